//! What an untyped client is shown of a scalar: its shortest exact text.
//!
//! `docs/TYPES.md` has the table. An untyped argument names a typed member, field or expected value when it equals
//! this text, see [`matches_untyped`].
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use std::io::Write;

use crate::arg::parse_int;
use crate::bigint;
use crate::calendar;
use crate::codec::{Reader, ValueRef, tagged_parts};
use crate::kind::Kind;

/// Appends the text of a scalar and answers true; containers (collections, tuples, frozen sets, tagged values) and
/// null have none.
///
/// ```
/// use data_bridge_kv_model::show::show;
/// use data_bridge_kv_model::{Value, ValueRef};
/// let (bytes, mut text) = (Value::Float(0.1).encode(), Vec::new());
/// assert!(show(ValueRef::decode(&bytes)?, &mut text));
/// assert_eq!(text, b"0.1");
/// # Ok::<(), data_bridge_kv_model::Error>(())
/// ```
pub fn show(value: ValueRef<'_>, out: &mut Vec<u8>) -> bool {
    let payload = value.payload();
    match value.kind() {
        Kind::Text | Kind::Bytes => out.extend_from_slice(payload),
        Kind::Int => put_int(value.as_int().unwrap_or_default(), out),
        Kind::Float => put_float(value.as_float().unwrap_or_default(), out),
        Kind::Decimal => match value.as_decimal() {
            Some(number) => number.write_to(out),
            None => return false,
        },
        Kind::Bool => out.extend_from_slice(if payload == [1] { b"true" } else { b"false" }),
        Kind::BigInt => {
            let mut reader = Reader::new(payload);
            let negative = reader.byte().is_ok_and(|sign| sign == 1);
            let length = reader.varint().unwrap_or(0);
            bigint::show(negative, reader.take(length).unwrap_or_default(), out);
        }
        Kind::Timestamp => return calendar::show_moment(payload, true, out).is_ok(),
        Kind::Time => return calendar::show_moment(payload, false, out).is_ok(),
        Kind::Date => match payload.try_into().map(i32::from_le_bytes) {
            Ok(days) => calendar::show_date(i64::from(days), out),
            Err(_) => return false,
        },
        Kind::Duration => {
            let Some((days, micros)) = payload.split_first_chunk::<4>() else { return false };
            let micros = micros.try_into().map(i64::from_le_bytes).unwrap_or_default();
            calendar::show_duration(i64::from(i32::from_le_bytes(*days)), micros, out);
        }
        Kind::Uuid => put_uuid(payload, out),
        Kind::Opaque => match tagged_parts(value) {
            Some((_, bytes)) => out.extend_from_slice(bytes),
            None => return false,
        },
        Kind::Null
        | Kind::List
        | Kind::Set
        | Kind::Hash
        | Kind::SortedSet
        | Kind::Tuple
        | Kind::FrozenSet
        | Kind::Tagged => return false,
    }
    true
}

/// Appends an integer.
#[inline]
pub fn put_int(number: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a float in its shortest text that reads back as the same bits (NaN as `nan`): plain digits from 1e-5 up
/// to 1e17, an exponent beyond, as C's `%g` does and Redis clients read.
pub fn put_float(number: f64, out: &mut Vec<u8>) {
    let magnitude = number.abs();
    // Writing to a vector cannot fail.
    let _ = if number.is_nan() {
        out.write_all(b"nan")
    } else if number.is_infinite() {
        out.write_all(if number < 0.0 { b"-inf" } else { b"inf" })
    } else if magnitude == 0.0 || (1e-5..1e17).contains(&magnitude) {
        write!(out, "{number}")
    } else {
        let text = format!("{number:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => write!(out, "{digits}e+{exponent}"),
            _ => out.write_all(text.as_bytes()),
        }
    };
}

fn put_uuid(bytes: &[u8], out: &mut Vec<u8>) {
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        // Writing to a vector cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
}

/// Longest untyped bytes that can name a typed scalar: longer ones name only Text and Bytes. It holds every shown text
/// except that of a BigInt of more than 1,060 bits.
pub const UNTYPED_BYTES: usize = 320;

/// The kinds beside Text and Bytes that untyped bytes may name as a member or field, in the order in which they are
/// tried: `5` is the Int 5 before it is the Float or the Decimal.
const NAMED_KINDS: [Kind; 10] = [
    Kind::Int,
    Kind::Float,
    Kind::Decimal,
    Kind::Bool,
    Kind::BigInt,
    Kind::Uuid,
    Kind::Date,
    Kind::Time,
    Kind::Timestamp,
    Kind::Duration,
];

/// Whether untyped bytes name this value where it is expected: the same content for Text and Bytes, exactly the shown
/// text for other scalars.
pub fn matches_untyped(value: ValueRef<'_>, bytes: &[u8]) -> bool {
    match value.content() {
        Some(content) => content == bytes,
        None if value.kind() == Kind::Int => value.as_int() == parse_int(bytes),
        None if bytes.len() > UNTYPED_BYTES && value.kind() != Kind::Opaque => false,
        None => {
            let mut text = Vec::with_capacity(40);
            show(value, &mut text) && text == bytes
        }
    }
}

/// The typed scalars that untyped bytes may name as a member or field beside Text and Bytes, each tried until `found`
/// answers: those whose shown text is exactly these bytes. A lookup by identity may find another form (1.1 for 1.10):
/// whoever looks up asks [`matches_untyped`] about what it found.
pub fn typed_readings<T>(bytes: &[u8], mut found: impl FnMut(ValueRef<'_>) -> Option<T>) -> Option<T> {
    if bytes.len() > UNTYPED_BYTES {
        return None;
    }
    let mut payload = Vec::new();
    for kind in NAMED_KINDS.into_iter().filter(|kind| may_show(*kind, bytes)) {
        payload.clear();
        if crate::literal::read(kind, bytes, &mut payload).is_ok() {
            let value = ValueRef::from_parts(kind, &payload);
            if matches_untyped(value, bytes)
                && let Some(answer) = found(value)
            {
                return Some(answer);
            }
        }
    }
    None
}

/// Whether [`typed_readings`] may try anything: a cheap look, right where it answers false.
#[inline]
pub fn may_be_typed(bytes: &[u8]) -> bool {
    let is_uuid = || bytes.len() == 36 && bytes.get(8) == Some(&b'-');
    match bytes.first() {
        _ if bytes.len() > UNTYPED_BYTES => false,
        // Numbers, dates and times.
        Some(b'0'..=b'9' | b'-') => true,
        Some(b'i' | b'n') => matches!(bytes, b"inf" | b"nan"),
        Some(b't' | b'f') => matches!(bytes, b"true" | b"false") || is_uuid(),
        Some(b'P') => true,
        _ => is_uuid(),
    }
}

/// A first look whether a kind can be shown as these bytes, so that words cost nothing.
#[inline]
fn may_show(kind: Kind, bytes: &[u8]) -> bool {
    let (length, at) = (bytes.len(), |place: usize| bytes.get(place).copied().unwrap_or_default());
    let numeric = at(0).is_ascii_digit() || at(0) == b'-';
    match kind {
        Kind::Int => numeric && length <= 20,
        Kind::Float => numeric || matches!(bytes, b"inf" | b"nan"),
        Kind::Decimal => numeric,
        Kind::Bool => matches!(length, 4 | 5) && matches!(at(0), b't' | b'f'),
        Kind::BigInt => numeric && length >= 19,
        Kind::Uuid => length == 36 && at(8) == b'-',
        Kind::Date => length == 10 && at(4) == b'-',
        Kind::Time => at(2) == b':' && at(5) == b':',
        Kind::Timestamp => at(10) == b'T',
        _ => at(0) == b'P',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    fn shown(value: Value) -> String {
        let encoded = value.encode();
        let mut out = Vec::new();
        assert!(show(ValueRef::decode(&encoded).unwrap(), &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_show_their_shortest_text() {
        for (number, text) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (-0.0, "-0"),
            (1e21, "1e+21"),
            (1e-7, "1e-7"),
            (5e-324, "5e-324"),
            (1e16, "10000000000000000"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(shown(Value::Float(number)), text);
        }
        assert_eq!(shown(Value::Int(i64::MIN)), "-9223372036854775808");
        assert_eq!(shown(Value::Int(0)), "0");
        assert_eq!(shown(Value::Decimal("1.10".parse().unwrap())), "1.10");
        assert_eq!(shown(Value::Bool(true)), "true");
        assert_eq!(shown(Value::Uuid([0xab; 16])), "abababab-abab-abab-abab-abababababab");
    }

    #[test]
    fn untyped_bytes_name_typed_scalars() {
        let kinds = |bytes: &[u8]| {
            let mut kinds = Vec::new();
            typed_readings(bytes, |value| -> Option<()> {
                kinds.push(value.kind());
                None
            });
            kinds
        };
        assert_eq!(kinds(b"5"), [Kind::Int, Kind::Float, Kind::Decimal]);
        assert_eq!(kinds(b"1.10"), [Kind::Decimal]);
        assert_eq!(kinds(b"05"), []);
        assert_eq!(kinds(b"true"), [Kind::Bool]);
        assert_eq!(kinds(b"-0"), [Kind::Float, Kind::Decimal]);
        assert_eq!(kinds(b"nan"), [Kind::Float]);
        assert_eq!(kinds(b"9223372036854775808"), [Kind::Decimal, Kind::BigInt]);
        assert_eq!(kinds(b"2026-11-22"), [Kind::Date]);
        assert_eq!(kinds(b"13:05:00"), [Kind::Time]);
        assert_eq!(kinds(b"2026-11-22T13:05:00+01:00[Europe/Berlin]"), [Kind::Timestamp]);
        assert_eq!(kinds(b"P-1DT0.500000S"), [Kind::Duration]);
        assert_eq!(kinds(&[b'9'; UNTYPED_BYTES + 1]), []);
        assert_eq!(kinds(b"inf"), [Kind::Float]);
        assert_eq!(kinds(b"-inf"), [Kind::Float]);
    }

    #[test]
    fn words_name_no_typed_scalar_and_whatever_is_shown_may() {
        let words = [
            "", "name", "id", "index", "info", "field:1", "fld", "true!", "Name", "user:5", "a-b", "tag", "x",
        ];
        for word in words {
            assert!(!may_be_typed(word.as_bytes()), "{word}");
        }
        let shown = [
            "5",
            "-5",
            "0.1",
            "1e+21",
            "inf",
            "-inf",
            "nan",
            "1.10",
            "true",
            "false",
            "99999999999999999999",
            "abababab-abab-abab-abab-abababababab",
            "fbababab-abab-abab-abab-abababababab",
            "2026-11-22",
            "13:05:00",
            "2026-11-22T13:05:00+01:00[Europe/Berlin]",
            "P-1DT0.500000S",
        ];
        for text in shown {
            assert!(may_be_typed(text.as_bytes()), "{text}");
            assert!(typed_readings(text.as_bytes(), |_| Some(())).is_some(), "{text}");
        }
        assert!(!may_be_typed(&[b'9'; UNTYPED_BYTES + 1]));
    }
}
