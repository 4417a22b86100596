//! When two members of a set, fields of a hash or members of a sorted set are the same one.
//!
//! Kind and value decide, except: Text and Bytes with the same content are one identity, Decimals compare by
//! number (`1.0` is `1.00`), the two zeros of Float are one and so are all its NaNs. That holds inside tuples and
//! frozen sets too, and the order of a frozen set does not count. Identical values have encodings of equal length.

use std::hash::Hasher;

use data_bridge_kv_model::{Items, Kind, ValueRef};
use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;

/// The hash of a member's identity, without allocating. It depends on the process and never shows outside: the
/// order of members is theirs, not the hash's.
#[inline]
pub fn identity_hash(member: ValueRef<'_>) -> u64 {
    let mut hasher = FoldHasher::with_seed(0x6d65_6d62, SharedSeed::global_random());
    feed(member, &mut hasher);
    hasher.finish()
}

fn feed(member: ValueRef<'_>, hasher: &mut FoldHasher<'_>) {
    match member.kind() {
        Kind::Text | Kind::Bytes => hasher.write(member.payload()),
        Kind::Float => {
            hasher.write_u8(Kind::Float.number());
            hasher.write_u64(float_identity(member));
        }
        Kind::Decimal => {
            hasher.write_u8(Kind::Decimal.number());
            if let Some(number) = member.as_decimal() {
                let (negative, coefficient, exponent) = number.normalized();
                hasher.write_u128(coefficient << 1 | u128::from(negative));
                hasher.write_u32(exponent as u32);
            }
        }
        Kind::Tuple => {
            hasher.write_u8(Kind::Tuple.number());
            Items::of(member).for_each(|item| feed(item, hasher));
        }
        Kind::FrozenSet => {
            hasher.write_u8(Kind::FrozenSet.number());
            let sum = Items::of(member).fold(0u64, |sum, item| sum.wrapping_add(identity_hash(item)));
            hasher.write_u64(sum);
        }
        kind => {
            hasher.write_u8(kind.number());
            hasher.write(member.payload());
        }
    }
}

/// Whether both are one member.
#[inline]
pub fn same_identity(one: ValueRef<'_>, other: ValueRef<'_>) -> bool {
    if let (Some(one), Some(other)) = (one.content(), other.content()) {
        return one == other;
    }
    one.kind() == other.kind()
        && one.payload().len() == other.payload().len()
        && (one.payload() == other.payload() || equal_otherwise(one, other))
}

/// Values of one kind and length whose bytes differ, or a NaN.
fn equal_otherwise(one: ValueRef<'_>, other: ValueRef<'_>) -> bool {
    match one.kind() {
        Kind::Float => float_identity(one) == float_identity(other),
        Kind::Decimal => match (one.as_decimal(), other.as_decimal()) {
            (Some(one), Some(other)) => one.numeric_eq(other),
            _ => false,
        },
        Kind::Tuple => {
            Items::of(one).count() == Items::of(other).count()
                && Items::of(one).zip(Items::of(other)).all(|(one, other)| same_identity(one, other))
        }
        Kind::FrozenSet => same_members(one, other),
        _ => false,
    }
}

/// Members are paired by hash, so that large frozen sets do not cost a comparison of all with all.
fn same_members(one: ValueRef<'_>, other: ValueRef<'_>) -> bool {
    let sorted = |set| {
        let mut members: Vec<(u64, ValueRef<'_>)> =
            Items::of(set).map(|member| (identity_hash(member), member)).collect();
        members.sort_unstable_by_key(|(hash, _)| *hash);
        members
    };
    let (one, other) = (sorted(one), sorted(other));
    one.len() == other.len()
        && one.iter().zip(&other).all(|(one, other)| one.0 == other.0 && same_identity(one.1, other.1))
}

fn float_identity(member: ValueRef<'_>) -> u64 {
    match member.as_float() {
        Some(number) if number.is_nan() => f64::NAN.to_bits(),
        // Matches both zeros.
        Some(0.0) => 0,
        Some(number) => number.to_bits(),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_bridge_kv_model::Value;

    /// Pairs of one identity; encoded, because that is what members are.
    fn identical() -> Vec<(Value, Value)> {
        let decimal = |text: &str| Value::Decimal(text.parse().expect("a decimal"));
        let text = |content: &str| Value::Text(content.into());
        let bytes = |content: &str| Value::Bytes(content.as_bytes().into());
        vec![
            (text("a"), bytes("a")),
            (text(""), bytes("")),
            (decimal("1.0"), decimal("1.00")),
            (decimal("1E+5"), decimal("100000")),
            (decimal("-0"), decimal("0.00")),
            (Value::Float(0.0), Value::Float(-0.0)),
            (Value::Float(f64::NAN), Value::Float(f64::from_bits(f64::NAN.to_bits() | 1))),
            (Value::Tuple(vec![text("a"), decimal("2")]), Value::Tuple(vec![bytes("a"), decimal("2.0")])),
            (
                Value::FrozenSet(vec![Value::Int(1), text("b"), Value::Tuple(vec![text("c")])]),
                Value::FrozenSet(vec![Value::Tuple(vec![bytes("c")]), bytes("b"), Value::Int(1)]),
            ),
        ]
    }

    #[test]
    fn one_identity_is_equal_and_hashes_equally() {
        for (one, other) in identical() {
            let (a, b) = (one.encode(), other.encode());
            let (a, b) = (ValueRef::decode(&a).expect("valid"), ValueRef::decode(&b).expect("valid"));
            assert!(same_identity(a, b) && same_identity(b, a), "{one:?} {other:?}");
            assert_eq!(identity_hash(a), identity_hash(b), "{one:?} {other:?}");
        }
    }

    #[test]
    fn different_values_differ() {
        let values: Vec<Vec<u8>> = identical()
            .into_iter()
            .map(|(one, _)| one)
            .chain([
                Value::Null,
                Value::Bool(false),
                Value::Bool(true),
                Value::Int(0),
                Value::Int(1),
                Value::Float(1.0),
                Value::Text("1".into()),
                Value::Tuple(vec![]),
                Value::FrozenSet(vec![]),
                Value::Tuple(vec![Value::Int(1)]),
                Value::FrozenSet(vec![Value::Int(1)]),
                Value::FrozenSet(vec![Value::Int(1), Value::Int(2)]),
                Value::Date(1),
                Value::Uuid([1; 16]),
            ])
            .map(|value| value.encode())
            .collect();
        for (index, one) in values.iter().enumerate() {
            for (other_index, other) in values.iter().enumerate() {
                let (one, other) =
                    (ValueRef::decode(one).expect("valid"), ValueRef::decode(other).expect("valid"));
                assert_eq!(same_identity(one, other), index == other_index, "{one:?} {other:?}");
                assert_eq!(identity_hash(one) == identity_hash(other), index == other_index);
            }
        }
    }
}
