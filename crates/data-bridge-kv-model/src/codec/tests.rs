//! Rules of the codec, each with bytes that break it.

use super::*;

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
