//! Strategies for arbitrary values: every kind, every nesting, all of them accepted by the codec.

use data_bridge_kv_model::codec::{DAY_US, DURATION_DAYS, END_LOCAL_US, MIN_LOCAL_US};
use data_bridge_kv_model::identity::same_identity;
use data_bridge_kv_model::value::{BigInt, Moment, SortedSet};
use data_bridge_kv_model::{Decimal, Value, ValueRef};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// A scalar of any kind; small and special numbers and short texts are frequent, so that equal ones meet.
pub fn scalar() -> BoxedStrategy<Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        prop_oneof![-3i64..4, any::<i64>()].prop_map(Value::Int),
        float().prop_map(Value::Float),
        decimal().prop_map(Value::Decimal),
        text().prop_map(Value::from),
        vec(any::<u8>(), 0..20).prop_map(Value::from),
        big_int(),
        moment(MIN_LOCAL_US..END_LOCAL_US).prop_map(|moment| Value::Timestamp(Box::new(moment))),
        moment(0..DAY_US).prop_map(|moment| Value::Time(Box::new(moment))),
        ((MIN_LOCAL_US / DAY_US) as i32..(END_LOCAL_US / DAY_US) as i32).prop_map(Value::Date),
        (-DURATION_DAYS..=DURATION_DAYS, 0..DAY_US).prop_map(|(days, micros)| Value::Duration(days, micros)),
        any::<[u8; 16]>().prop_map(Value::Uuid),
    ]
    .boxed()
}

/// What may be a set member or hash field: a scalar, or a tuple or frozen set of members.
pub fn member() -> BoxedStrategy<Value> {
    scalar()
        .prop_recursive(4, 12, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::Tuple),
                vec(inner, 0..4).prop_map(|members| Value::FrozenSet(distinct(members))),
            ]
        })
        .boxed()
}

/// Any value.
pub fn value() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        4 => scalar(),
        1 => (name(), vec(any::<u8>(), 0..20)).prop_map(|(name, bytes)| {
            Value::Opaque(Box::new((name, bytes.into())))
        }),
        1 => vec(member(), 0..6).prop_map(|members| Value::Set(distinct(members))),
        1 => vec(member(), 0..6).prop_map(|members| Value::FrozenSet(distinct(members))),
        1 => sorted_set(),
    ];
    leaf.prop_recursive(8, 48, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::List),
            vec(inner.clone(), 0..6).prop_map(Value::Tuple),
            (vec(member(), 0..6), vec(inner.clone(), 6)).prop_map(|(fields, values)| {
                Value::Hash(distinct(fields).into_iter().zip(values).collect())
            }),
            (name(), inner).prop_map(|(name, inner)| Value::Tagged(Box::new((name, inner)))),
        ]
    })
    .boxed()
}

/// The same value with the members of its sets and hashes in another order, at every level.
pub fn reordered(value: &Value) -> Value {
    let all = |items: &[Value]| items.iter().map(reordered).collect::<Vec<_>>();
    let pairs = |pairs: &[(Value, Value)]| {
        pairs.iter().rev().map(|(one, other)| (reordered(one), reordered(other))).collect::<Vec<_>>()
    };
    let turned = |items: &[Value]| items.iter().rev().map(reordered).collect::<Vec<_>>();
    match value {
        Value::List(items) => Value::List(all(items)),
        Value::Tuple(items) => Value::Tuple(all(items)),
        Value::Set(members) => Value::Set(turned(members)),
        Value::FrozenSet(members) => Value::FrozenSet(turned(members)),
        Value::Hash(fields) => Value::Hash(pairs(fields)),
        Value::SortedSet(SortedSet::Float(members)) => {
            let members = members.iter().rev().map(|(score, member)| (*score, reordered(member)));
            Value::SortedSet(SortedSet::Float(members.collect()))
        }
        Value::SortedSet(SortedSet::Decimal(members)) => {
            let members = members.iter().rev().map(|(score, member)| (*score, reordered(member)));
            Value::SortedSet(SortedSet::Decimal(members.collect()))
        }
        Value::Tagged(parts) => Value::Tagged(Box::new((parts.0.clone(), reordered(&parts.1)))),
        scalar => scalar.clone(),
    }
}

/// A decimal of any length and scale.
pub fn decimal() -> BoxedStrategy<Decimal> {
    let coefficient = prop_oneof![0u128..200, any::<u128>().prop_map(|number| number % 10u128.pow(38))];
    let exponent = prop_oneof![-3i16..4, any::<i16>()];
    (any::<bool>(), coefficient, exponent)
        .prop_map(|(negative, coefficient, exponent)| {
            Decimal::new(negative, coefficient, exponent).unwrap_or(Decimal::ZERO)
        })
        .boxed()
}

fn float() -> BoxedStrategy<f64> {
    const SPECIAL: [f64; 8] =
        [0.0, -0.0, 1.0, 0.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE];
    prop_oneof![proptest::sample::select(&SPECIAL[..]), any::<u64>().prop_map(f64::from_bits)].boxed()
}

fn text() -> BoxedStrategy<String> {
    prop_oneof!["[ab]{0,2}", "\\PC{0,12}", "[0-9]{1,3}"].boxed()
}

fn name() -> BoxedStrategy<Box<str>> {
    "[A-Za-z_./]{1,12}".prop_map(Box::from).boxed()
}

fn big_int() -> BoxedStrategy<Value> {
    let beyond =
        (any::<bool>(), vec(any::<u8>(), 8..40), 1u8..).prop_map(|(negative, mut magnitude, top)| {
            magnitude.push(top);
            Value::BigInt(Box::new(BigInt { negative, magnitude: magnitude.into() }))
        });
    prop_oneof![beyond, any::<i128>().prop_map(Value::from)].boxed()
}

fn moment(local: std::ops::Range<i64>) -> BoxedStrategy<Moment> {
    let offset = option::of(prop_oneof![-14i64..15, 1 - DAY_US..DAY_US]);
    (local, offset, any::<bool>(), option::of("[A-Z][a-z]{2,8}/[A-Z][a-z_]{2,8}"))
        .prop_map(|(local_us, offset_us, fold, zone)| Moment {
            local_us,
            offset_us,
            fold,
            zone: zone.map(Box::from),
        })
        .boxed()
}

fn sorted_set() -> BoxedStrategy<Value> {
    let members = || vec(member(), 0..6).prop_map(distinct);
    let number = float().prop_map(|number| if number.is_nan() { 0.5 } else { number });
    prop_oneof![
        (members(), vec(number, 6)).prop_map(|(members, scores)| {
            Value::SortedSet(SortedSet::Float(scores.into_iter().zip(members).collect()))
        }),
        (members(), vec(decimal(), 6)).prop_map(|(members, scores)| {
            Value::SortedSet(SortedSet::Decimal(scores.into_iter().zip(members).collect()))
        }),
    ]
    .boxed()
}

/// Members without those whose identity came before.
fn distinct(members: Vec<Value>) -> Vec<Value> {
    let mut kept: Vec<(Vec<u8>, Value)> = Vec::new();
    for member in members {
        let encoded = member.encode();
        let is_new = ValueRef::decode(&encoded).is_ok_and(|new| {
            kept.iter().all(|(bytes, _)| ValueRef::decode(bytes).is_ok_and(|one| !same_identity(one, new)))
        });
        if is_new {
            kept.push((encoded, member));
        }
    }
    kept.into_iter().map(|(_, member)| member).collect()
}
