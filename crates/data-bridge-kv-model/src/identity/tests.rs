//! Pairs that are one identity, pairs that are not, and the same for exact equality.

use super::*;
use crate::Value;
use crate::value::SortedSet;

fn decimal(text: &str) -> Value {
    Value::Decimal(text.parse().unwrap())
}

fn text(content: &str) -> Value {
    Value::Text(content.into())
}

fn bytes(content: &str) -> Value {
    Value::Bytes(content.as_bytes().into())
}

/// Pairs of one identity that are not exactly equal.
fn identical() -> Vec<(Value, Value)> {
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
        (
            Value::FrozenSet(vec![Value::FrozenSet(vec![text("a"), Value::Null]), Value::FrozenSet(vec![])]),
            Value::FrozenSet(vec![Value::FrozenSet(vec![]), Value::FrozenSet(vec![Value::Null, bytes("a")])]),
        ),
    ]
}

fn of_bytes(one: &Value, other: &Value, test: impl Fn(ValueRef<'_>, ValueRef<'_>) -> bool) -> bool {
    let (one, other) = (one.encode(), other.encode());
    test(ValueRef::decode(&one).unwrap(), ValueRef::decode(&other).unwrap())
}

#[test]
fn one_identity_is_equal_and_hashes_equally() {
    for (one, other) in identical() {
        assert!(
            of_bytes(&one, &other, same_identity) && of_bytes(&other, &one, same_identity),
            "{one:?} {other:?}"
        );
        assert!(of_bytes(&one, &other, |a, b| identity_hash(a) == identity_hash(b)), "{one:?} {other:?}");
        assert_eq!(one.encode().len(), other.encode().len());
        assert!(!of_bytes(&one, &other, exact_eq), "{one:?} {other:?}");
    }
}

#[test]
fn different_members_differ() {
    let others = [
        Value::Null,
        Value::Bool(false),
        Value::Bool(true),
        Value::Int(0),
        Value::Int(1),
        Value::Float(1.0),
        decimal("7"),
        text("1"),
        Value::Tuple(vec![]),
        Value::Tuple(vec![Value::Int(1)]),
        Value::Tuple(vec![text("ab"), text("c")]),
        Value::Tuple(vec![text("a"), text("bc")]),
        Value::Tuple(vec![text("c"), text("ab")]),
        Value::FrozenSet(vec![]),
        Value::FrozenSet(vec![Value::Int(1)]),
        Value::FrozenSet(vec![Value::Int(1), Value::Int(2)]),
        Value::Date(1),
        Value::Uuid([1; 16]),
    ];
    let values: Vec<Value> = identical().into_iter().map(|(one, _)| one).chain(others).collect();
    for (index, one) in values.iter().enumerate() {
        for (other_index, other) in values.iter().enumerate() {
            assert_eq!(of_bytes(one, other, same_identity), index == other_index, "{one:?} {other:?}");
            let hashes = of_bytes(one, other, |a, b| identity_hash(a) == identity_hash(b));
            assert_eq!(hashes, index == other_index, "{one:?} {other:?}");
        }
    }
}

#[test]
fn exact_equality_is_blind_to_order_only() {
    let hash = |fields: &[(&str, Value)]| {
        Value::Hash(fields.iter().map(|(name, value)| (text(name), value.clone())).collect())
    };
    let sorted = |members: &[(f64, &str)]| {
        Value::SortedSet(SortedSet::Float(members.iter().map(|(score, name)| (*score, text(name))).collect()))
    };
    let set = |members: &[i64]| Value::Set(members.iter().map(|member| Value::Int(*member)).collect());
    let tagged = |name: &str, inner: Value| Value::Tagged(Box::new((name.into(), inner)));
    let equal = [
        (set(&[1, 2, 3]), set(&[3, 1, 2])),
        (
            hash(&[("a", Value::Int(1)), ("b", set(&[1, 2]))]),
            hash(&[("b", set(&[2, 1])), ("a", Value::Int(1))]),
        ),
        (sorted(&[(1.0, "a"), (1.0, "b")]), sorted(&[(1.0, "b"), (1.0, "a")])),
        (Value::List(vec![set(&[1, 2])]), Value::List(vec![set(&[2, 1])])),
        (tagged("t", set(&[1, 2])), tagged("t", set(&[2, 1]))),
        (Value::Float(f64::NAN), Value::Float(f64::NAN)),
    ];
    for (one, other) in equal {
        assert!(of_bytes(&one, &other, exact_eq) && of_bytes(&other, &one, exact_eq), "{one:?} {other:?}");
    }
    let unequal = [
        (set(&[1, 2]), set(&[1, 3])),
        (Value::Set(vec![text("a"), Value::Int(1)]), Value::Set(vec![bytes("a"), Value::Int(1)])),
        (
            hash(&[("a", Value::Int(1)), ("b", Value::Int(2))]),
            hash(&[("a", Value::Int(2)), ("b", Value::Int(1))]),
        ),
        (sorted(&[(1.0, "a"), (2.0, "b")]), sorted(&[(2.0, "a"), (1.0, "b")])),
        (sorted(&[(0.0, "a")]), sorted(&[(-0.0, "a")])),
        (Value::List(vec![Value::Int(1), Value::Int(2)]), Value::List(vec![Value::Int(2), Value::Int(1)])),
        (tagged("t", Value::Int(1)), tagged("u", Value::Int(1))),
        (set(&[1]), Value::FrozenSet(vec![Value::Int(1)])),
        (Value::Int(1), Value::Float(1.0)),
    ];
    for (one, other) in unequal {
        assert!(!of_bytes(&one, &other, exact_eq), "{one:?} {other:?}");
    }
}
