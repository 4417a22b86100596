//! Rules of the codec, each with bytes that break it.

use super::*;
use crate::Value;
use crate::error::ErrorKind;
use crate::value::SortedSet;

fn value(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind.number()];
    out.extend_from_slice(payload);
    out
}

#[test]
fn lengths_take_their_shortest_form() {
    assert!(ValueRef::decode(&value(Kind::Bytes, &[0x80, 0x00])).is_err());
    assert!(ValueRef::decode(&value(Kind::Bytes, &[0xff, 0xff, 0xff, 0xff, 0xff])).is_err());
    assert!(ValueRef::decode(&value(Kind::Bytes, &[0])).is_ok());
    for number in [0usize, 1, 127, 128, 16383, 16384, u32::MAX as usize] {
        let mut out = Vec::new();
        put_varint(number, &mut out);
        assert_eq!(out.len(), write::varint_len(number));
        assert_eq!(Reader::new(&out).varint().unwrap(), number);
    }
}

#[test]
fn depth_is_limited_to_32() {
    let nested = |levels: usize| {
        let mut bytes = Vec::new();
        for _ in 1..levels {
            bytes.extend_from_slice(&[Kind::List.number(), 1]);
        }
        bytes.push(Kind::Null.number());
        bytes
    };
    assert!(ValueRef::decode(&nested(32)).is_ok());
    assert!(ValueRef::decode(&nested(33)).is_err());
    assert!(ValueRef::decode(&nested(1_000_000)).is_err());
}

#[test]
fn a_declared_count_allocates_nothing_and_is_refused() {
    assert!(ValueRef::decode(&value(Kind::List, &[0xff, 0xff, 0xff, 0xff, 0x0f])).is_err());
    assert!(ValueRef::decode(&value(Kind::Hash, &[1, 0])).is_err());
}

#[test]
fn members_are_scalars() {
    assert!(ValueRef::decode(&value(Kind::Set, &[1, Kind::List.number(), 0])).is_err());
    assert!(ValueRef::decode(&value(Kind::Set, &[1, Kind::Tuple.number(), 1, Kind::Null.number()])).is_ok());
    assert!(
        ValueRef::decode(&value(Kind::Set, &[1, Kind::Tuple.number(), 1, Kind::List.number(), 0])).is_err()
    );
}

#[test]
fn big_integers_lie_beyond_64_bits() {
    let big = |sign: u8, magnitude: &[u8]| {
        let mut payload = vec![sign, magnitude.len() as u8];
        payload.extend_from_slice(magnitude);
        ValueRef::decode(&value(Kind::BigInt, &payload)).is_ok()
    };
    assert!(!big(0, &(i64::MAX as u64).to_le_bytes()));
    assert!(big(0, &(1u64 << 63).to_le_bytes()));
    assert!(!big(1, &(1u64 << 63).to_le_bytes()));
    assert!(big(1, &((1u64 << 63) + 1).to_le_bytes()));
    assert!(!big(0, &[0; 9]));
    assert!(!big(2, &[0, 0, 0, 0, 0, 0, 0, 0, 1]));
}

#[test]
fn unknown_and_reserved_kinds_are_refused() {
    for number in crate::kind::RESERVED_FROM..=u8::MAX {
        assert_eq!(ValueRef::decode(&[number]).unwrap_err().kind(), ErrorKind::UnsupportedValue);
    }
}

#[test]
fn items_walk_pairs_and_scores() {
    let mut bytes = value(Kind::SortedSet, &[Kind::Float.number(), 1]);
    bytes.extend_from_slice(&1.5f64.to_le_bytes());
    ValueRef::text("m").encode_into(&mut bytes);
    let set = ValueRef::decode(&bytes).unwrap();
    let items: Vec<_> = Items::of(set).collect();
    assert_eq!(items.len(), 2);
    assert_eq!(items[0].as_float(), Some(1.5));
    assert_eq!(items[1].content(), Some(&b"m"[..]));
    assert_eq!(element_count(set), Some(1));
}

fn integer(number: i64) -> Value {
    Value::Int(number)
}

fn refused(value: Value) {
    let error = ValueRef::decode(&value.encode()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedValue, "{value:?}");
    let inside = Value::List(vec![Value::Null, value]);
    assert!(ValueRef::decode(&inside.encode()).is_err(), "{inside:?}");
}

#[test]
fn no_member_or_field_stands_twice() {
    let text = |content: &str| Value::Text(content.into());
    let bytes = |content: &str| Value::Bytes(content.as_bytes().into());
    refused(Value::Set(vec![text("a"), integer(1), bytes("a")]));
    refused(Value::FrozenSet(vec![Value::Float(0.0), Value::Float(-0.0)]));
    refused(Value::Hash(vec![(text("a"), integer(1)), (integer(1), Value::Null), (bytes("a"), integer(1))]));
    refused(Value::SortedSet(SortedSet::Float(vec![(1.0, text("m")), (2.0, text("m"))])));
    let decimal = |text: &str| Value::Decimal(text.parse().unwrap());
    refused(Value::Set(vec![Value::Tuple(vec![decimal("1.0")]), Value::Tuple(vec![decimal("1.00")])]));
    let frozen = |members: &[i64]| Value::FrozenSet(members.iter().map(|member| integer(*member)).collect());
    refused(Value::Set(vec![frozen(&[1, 2]), frozen(&[2, 1])]));
    // The value of a field may be any, and equal fields of different kinds are different.
    let fine =
        Value::Hash(vec![(integer(1), text("x")), (text("1"), text("x")), (Value::Float(1.0), text("x"))]);
    assert_eq!(Value::decode(&fine.encode()).unwrap(), fine);
}

#[test]
fn many_members_are_told_apart() {
    let many: Vec<Value> = (0..100_000).map(integer).collect();
    assert!(ValueRef::decode(&Value::Set(many.clone()).encode()).is_ok());
    for doubled in [0, 15, 16, 17, 99_999] {
        let mut members = many.clone();
        members.push(integer(doubled));
        refused(Value::Set(members.clone()));
        refused(Value::Hash(members.into_iter().map(|member| (member, Value::Null)).collect()));
    }
}

#[test]
fn nested_frozen_sets_cost_one_pass() {
    // Each level holds the level below beside another member: comparing level by level would double the work 30 times.
    let mut value = Value::FrozenSet((0..20_000).map(integer).collect());
    for level in 0..30 {
        let beside = (0..20).map(|member| integer(level * 20 + member));
        value = Value::FrozenSet(std::iter::once(value).chain(beside).collect());
    }
    let bytes = value.encode();
    assert_eq!(ValueRef::decode(&bytes).unwrap().payload().len() + 1, bytes.len());
    assert_eq!(Value::decode(&bytes).unwrap(), value);
}

#[test]
fn scores_are_numbers_of_one_kind() {
    let scored = |score: f64| Value::SortedSet(SortedSet::Float(vec![(score, Value::Null)])).encode();
    assert!(ValueRef::decode(&scored(f64::INFINITY)).is_ok());
    assert!(ValueRef::decode(&scored(f64::NAN)).is_err());
    let empty = Value::SortedSet(SortedSet::Decimal(Vec::new()));
    assert_eq!(Value::decode(&empty.encode()).unwrap(), empty);
    assert!(ValueRef::decode(&value(Kind::SortedSet, &[Kind::Int.number(), 0])).is_err());
}

#[test]
fn each_value_has_the_whole_element_budget() {
    let mut list = vec![Kind::List.number()];
    put_varint(crate::limits::VALUE_ELEMENTS, &mut list);
    list.resize(list.len() + crate::limits::VALUE_ELEMENTS, Kind::Null.number());
    let mut two = list.clone();
    two.extend_from_slice(&list);
    let mut reader = Reader::new(&two);
    assert!(reader.value().is_ok() && reader.value().is_ok() && reader.finish().is_ok());
    assert!(ValueRef::decode(&value(Kind::List, &[2].into_iter().chain(two).collect::<Vec<_>>())).is_err());
}

#[test]
fn what_commands_made_of_many_parts_is_read_back() {
    let count = crate::limits::VALUE_ELEMENTS + 1;
    let mut list = vec![Kind::List.number()];
    put_varint(count, &mut list);
    list.resize(list.len() + count, Kind::Null.number());
    assert!(ValueRef::decode(&list).is_err());
    assert_eq!(ValueRef::decode_stored(&list).unwrap().payload().len() + 1, list.len());
    let nested = |levels| (1..levels).fold(Value::Int(1), |inner, _| Value::List(vec![inner])).encode();
    assert!(ValueRef::decode_stored(&nested(33)).is_ok() && ValueRef::decode_stored(&nested(100)).is_err());
}

#[test]
fn a_part_of_a_value_is_one_level_less_deep() {
    for of in [|inner| Value::Tuple(vec![inner]), |inner| Value::Tagged(Box::new(("t".into(), inner)))] {
        let nested = |levels: usize| (1..levels).fold(Value::Int(1), |inner, _| of(inner)).encode();
        assert!(ValueRef::decode(&nested(31)).unwrap().check_part().is_ok());
        let refused = ValueRef::decode(&nested(32)).unwrap().check_part().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::UnsupportedValue);
    }
}

#[test]
fn names_are_short_texts() {
    let named = |name: &[u8]| {
        let mut bytes = vec![Kind::Tagged.number()];
        put_counted(name, &mut bytes);
        bytes.push(Kind::Null.number());
        ValueRef::decode(&bytes).is_ok()
    };
    assert!(named(b"x") && named(&[b'x'; crate::limits::NAME_BYTES]));
    assert!(!named(b"") && !named(&[b'x'; crate::limits::NAME_BYTES + 1]) && !named(b"\xff"));
}

#[test]
fn dates_end_with_the_calendar() {
    let date = |days: i32| ValueRef::decode(&Value::Date(days).encode()).is_ok();
    assert!(date(-719_162) && date(2_932_896) && !date(-719_163) && !date(2_932_897));
    let span = |days, micros| ValueRef::decode(&Value::Duration(days, micros).encode()).is_ok();
    assert!(span(-DURATION_DAYS, 0) && span(DURATION_DAYS, DAY_US - 1));
    assert!(
        !span(-DURATION_DAYS - 1, 0) && !span(DURATION_DAYS + 1, 0) && !span(i32::MIN, 0) && !span(0, -1)
    );
}
