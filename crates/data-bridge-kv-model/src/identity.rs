//! When two values are the same: as members of a collection, and exactly. Everybody who compares values asks here;
//! `docs/TYPES.md` has both rules as a table.
//!
//! **Identity** is what set members, hash fields and sorted-set members are told apart by: kind and value, except
//! that Text and Bytes with the same content are one identity, Decimals compare by number (`1.0` is `1.00`), the two
//! zeros of Float are one and so are all its NaNs. That holds inside tuples and frozen sets too, and the order of a
//! frozen set does not count. Identical values have encodings of equal length.
//!
//! **Exact equality** is what compare-and-set asks for: same kind and same payload, whatever the order of sets,
//! frozen sets, hashes and sorted sets, at every level.
//!
//! All functions take validated values: their recursion is bounded by the depth that the codec's reader allows.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use std::hash::Hasher;

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;

use crate::codec::{Items, ValueRef};
use crate::kind::Kind;

/// The hash of a member's identity, without allocating: members of one identity hash equally. It is seeded once per
/// process against crafted collisions and never shows outside.
#[inline]
pub fn identity_hash(member: ValueRef<'_>) -> u64 {
    match member.kind() {
        kind @ (Kind::Tuple | Kind::FrozenSet) => {
            let hashes = Items::of(member).map(identity_hash);
            sealed_hash(kind, hashes.fold(0, |state, hash| folded_hash(kind, state, hash)))
        }
        _ => scalar_hash(member),
    }
}

/// [`identity_hash`] of a member that is neither a tuple nor a frozen set.
#[inline]
pub(crate) fn scalar_hash(member: ValueRef<'_>) -> u64 {
    let mut hasher = seeded();
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
                hasher.write_i32(exponent);
            }
        }
        kind => {
            hasher.write_u8(kind.number());
            hasher.write(member.payload());
        }
    }
    hasher.finish()
}

/// Takes the hash of the next item of a tuple or frozen set into `state`, which starts at 0: a tuple's order counts,
/// a frozen set's does not.
#[inline]
pub(crate) fn folded_hash(kind: Kind, state: u64, hash: u64) -> u64 {
    if kind == Kind::FrozenSet {
        return state.wrapping_add(hash);
    }
    let mut hasher = seeded();
    hasher.write_u64(state);
    hasher.write_u64(hash);
    hasher.finish()
}

/// The hash of a tuple or frozen set whose items were folded into `state`.
#[inline]
pub(crate) fn sealed_hash(kind: Kind, state: u64) -> u64 {
    folded_hash(Kind::Tuple, state, u64::from(kind.number()))
}

#[inline]
fn seeded() -> FoldHasher<'static> {
    FoldHasher::with_seed(0x6d65_6d62_6572, SharedSeed::global_random())
}

/// Whether both are one member.
///
/// ```
/// use data_bridge_kv_model::ValueRef;
/// use data_bridge_kv_model::identity::{identity_hash, same_identity};
/// let (text, bytes) = (ValueRef::text("a"), ValueRef::bytes(b"a"));
/// assert!(same_identity(text, bytes));
/// assert_eq!(identity_hash(text), identity_hash(bytes));
/// assert!(!same_identity(text, ValueRef::text("b")));
/// ```
#[inline]
pub fn same_identity(one: ValueRef<'_>, other: ValueRef<'_>) -> bool {
    if let (Some(one), Some(other)) = (one.content(), other.content()) {
        return one == other;
    }
    one.kind() == other.kind()
        && one.payload().len() == other.payload().len()
        && (one.payload() == other.payload() || identical_otherwise(one, other))
}

/// Identity of values of one kind and length whose payloads differ.
fn identical_otherwise(one: ValueRef<'_>, other: ValueRef<'_>) -> bool {
    match one.kind() {
        Kind::Float => float_identity(one) == float_identity(other),
        Kind::Decimal => match (one.as_decimal(), other.as_decimal()) {
            (Some(one), Some(other)) => one.numeric_eq(other),
            _ => false,
        },
        Kind::Tuple => in_order(one, other, same_identity),
        Kind::FrozenSet => in_any_order(one, other, 1, |one, other| same_identity(one.key, other.key)),
        _ => false,
    }
}

/// Whether both are exactly the same value: kind and payload, the order inside sets, frozen sets, hashes and sorted
/// sets apart.
///
/// ```
/// use data_bridge_kv_model::identity::{exact_eq, same_identity};
/// use data_bridge_kv_model::{Value, ValueRef};
/// let (short, long) = (Value::Decimal("1.0".parse()?).encode(), Value::Decimal("1.00".parse()?).encode());
/// let (short, long) = (ValueRef::decode(&short)?, ValueRef::decode(&long)?);
/// assert!(same_identity(short, long) && !exact_eq(short, long));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline]
pub fn exact_eq(one: ValueRef<'_>, other: ValueRef<'_>) -> bool {
    // The order inside changes no length.
    one.kind() == other.kind()
        && one.payload().len() == other.payload().len()
        && (one.payload() == other.payload() || equal_otherwise(one, other))
}

/// Exact equality of values of one kind and length whose payloads differ.
fn equal_otherwise(one: ValueRef<'_>, other: ValueRef<'_>) -> bool {
    match one.kind() {
        Kind::List | Kind::Tuple => in_order(one, other, exact_eq),
        Kind::Tagged => {
            // The name is the same if what comes before the inner value is.
            let name = |value| crate::codec::tagged_parts(value).map(|(name, _)| name);
            name(one) == name(other) && in_order(one, other, exact_eq)
        }
        Kind::Set | Kind::FrozenSet => in_any_order(one, other, 1, |one, other| exact_eq(one.key, other.key)),
        Kind::Hash | Kind::SortedSet => in_any_order(one, other, 2, |one, other| {
            exact_eq(one.key, other.key) && exact_eq(one.beside, other.beside)
        }),
        _ => false,
    }
}

fn in_order(one: ValueRef<'_>, other: ValueRef<'_>, same: fn(ValueRef<'_>, ValueRef<'_>) -> bool) -> bool {
    let (mut one, mut other) = (Items::of(one), Items::of(other));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) if same(one, other) => {}
            _ => return false,
        }
    }
}

/// A member or field with what stands beside it (its value or score; itself in a set).
#[derive(Clone, Copy)]
struct Pair<'a> {
    hash: u64,
    key: ValueRef<'a>,
    beside: ValueRef<'a>,
}

/// Whether the distinct members of both can be paired so that each pair is the same. They are looked up by the hash
/// of their identity, so that large sets do not cost a comparison of all with all.
fn in_any_order(
    one: ValueRef<'_>,
    other: ValueRef<'_>,
    width: usize,
    same: impl Fn(&Pair<'_>, &Pair<'_>) -> bool,
) -> bool {
    let (one, other) = (pairs_by_hash(one, width), pairs_by_hash(other, width));
    one.len() == other.len()
        && one.iter().all(|pair| {
            let first = other.partition_point(|candidate| candidate.hash < pair.hash);
            let candidates = other.get(first..).unwrap_or_default().iter();
            candidates.take_while(|candidate| candidate.hash == pair.hash).any(|found| same(pair, found))
        })
}

fn pairs_by_hash(container: ValueRef<'_>, width: usize) -> Vec<Pair<'_>> {
    let mut items = Items::of(container);
    let mut pairs = Vec::new();
    while let Some(first) = items.next() {
        let second = if width == 2 { items.next().unwrap_or(first) } else { first };
        // A sorted set's scores stand before its members.
        let (key, beside) =
            if container.kind() == Kind::SortedSet { (second, first) } else { (first, second) };
        pairs.push(Pair { hash: identity_hash(key), key, beside });
    }
    pairs.sort_unstable_by_key(|pair| pair.hash);
    pairs
}

/// The bits of a float, with one zero and one NaN.
fn float_identity(member: ValueRef<'_>) -> u64 {
    match member.as_float() {
        Some(number) if number.is_nan() => f64::NAN.to_bits(),
        Some(0.0) | None => 0,
        Some(number) => number.to_bits(),
    }
}

#[cfg(test)]
mod tests;
