//! Text to values: how a Redis client writes a typed value (`KV.SET price 1.10 AS decimal`).
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use crate::Decimal;
use crate::arg::{parse_float, parse_int};
use crate::bigint;
use crate::error::{Error, Result};
use crate::kind::Kind;

/// Reads `text` as a value of `kind` and appends its payload (for Text and Bytes the content).
/// Null, bool (`true`, `false`), int, float (`nan` too), decimal, text, bytes, bigint, uuid, date, time, timestamp
/// and duration are in the form that the RESP door shows; containers have no literal.
pub fn read(kind: Kind, text: &[u8], out: &mut Vec<u8>) -> Result<()> {
    match kind {
        Kind::Null => text.is_empty().then_some(()).ok_or_else(|| invalid(kind)),
        Kind::Bool => match text {
            b"true" => put(Some([1]), kind, out),
            b"false" => put(Some([0]), kind, out),
            _ => Err(invalid(kind)),
        },
        Kind::Int => {
            let number = parse_int(text).ok_or_else(Error::not_an_integer)?;
            put(Some(number.to_le_bytes()), kind, out)
        }
        Kind::Float => {
            let nan = text.eq_ignore_ascii_case(b"nan").then_some(f64::NAN);
            put(nan.or_else(|| parse_float(text)).map(f64::to_le_bytes), kind, out)
        }
        Kind::Decimal => {
            out.extend_from_slice(&Decimal::parse_bytes(text)?.to_payload());
            Ok(())
        }
        Kind::Text => {
            std::str::from_utf8(text).map_err(|_| invalid(kind))?;
            out.extend_from_slice(text);
            Ok(())
        }
        Kind::Bytes => {
            out.extend_from_slice(text);
            Ok(())
        }
        Kind::BigInt if parse_int(text).is_some() => {
            Err(Error::invalid("value fits 64 bits: it is an int, not a bigint"))
        }
        Kind::BigInt => bigint::parse(text, out).ok_or_else(|| invalid(kind)),
        Kind::Uuid => put(uuid(text), kind, out),
        Kind::Date => put(crate::calendar::parse_date(text).map(i32::to_le_bytes), kind, out),
        Kind::Time => crate::calendar::parse_time(text, out).ok_or_else(|| invalid(kind)),
        Kind::Timestamp => crate::calendar::parse_timestamp(text, out).ok_or_else(|| invalid(kind)),
        Kind::Duration => crate::calendar::parse_duration(text, out).ok_or_else(|| invalid(kind)),
        Kind::List
        | Kind::Set
        | Kind::Hash
        | Kind::SortedSet
        | Kind::Tuple
        | Kind::FrozenSet
        | Kind::Opaque
        | Kind::Tagged => Err(Error::invalid(format!("a {} has no literal form", kind.name()))),
    }
}

fn put<const N: usize>(payload: Option<[u8; N]>, kind: Kind, out: &mut Vec<u8>) -> Result<()> {
    out.extend_from_slice(&payload.ok_or_else(|| invalid(kind))?);
    Ok(())
}

fn invalid(kind: Kind) -> Error {
    Error::invalid(format!("value is not a valid {}", kind.name()))
}

fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    let dashes = [8usize, 13, 18, 23];
    if text.len() != 36 || !dashes.iter().all(|at| text.get(*at) == Some(&b'-')) {
        return None;
    }
    let mut bytes = [0u8; 16];
    let mut digits = text.iter().filter(|byte| **byte != b'-').map(|byte| char::from(*byte).to_digit(16));
    for byte in &mut bytes {
        let (high, low) = (digits.next()??, digits.next()??);
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    digits.next().is_none().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::ValueRef;
    use crate::error::ErrorKind;

    fn literal(kind: Kind, text: &str) -> Result<Vec<u8>> {
        let mut payload = Vec::new();
        read(kind, text.as_bytes(), &mut payload)?;
        let mut encoded = Vec::new();
        ValueRef::from_parts(kind, &payload).encode_into(&mut encoded);
        assert!(ValueRef::decode(&encoded).is_ok(), "{kind:?} {text}");
        Ok(encoded)
    }

    #[test]
    fn each_scalar_has_a_literal() {
        for (kind, text) in [
            (Kind::Null, ""),
            (Kind::Bool, "true"),
            (Kind::Int, "-5"),
            (Kind::Float, "NaN"),
            (Kind::Float, "+1e300"),
            (Kind::Decimal, "1E+5"),
            (Kind::Text, "é"),
            (Kind::BigInt, "-9223372036854775809"),
            (Kind::Uuid, "ABABABAB-abab-abab-abab-abababababab"),
            (Kind::Date, "0001-01-01"),
            (Kind::Time, "13:05[Europe/Berlin]"),
            (Kind::Timestamp, "2026-11-22 13:05:00Z"),
            (Kind::Duration, "P0DT0S"),
        ] {
            assert!(literal(kind, text).is_ok(), "{kind:?} {text}");
        }
    }

    #[test]
    fn what_is_no_literal_says_why() {
        let error = |kind, text: &'static str| literal(kind, text).unwrap_err();
        assert_eq!(error(Kind::Int, "99999999999999999999").kind(), ErrorKind::OutOfRange);
        assert_eq!(error(Kind::Decimal, "1e99999").kind(), ErrorKind::OutOfRange);
        assert_eq!(error(Kind::Decimal, "NaN").kind(), ErrorKind::InvalidArgument);
        assert!(error(Kind::BigInt, "5").message().contains("fits 64 bits"));
        for (kind, text) in [
            (Kind::Null, "null"),
            (Kind::Bool, "True"),
            (Kind::Float, " 1"),
            (Kind::BigInt, "99999999999999999999.0"),
            (Kind::Uuid, "abababababababababababababababab"),
            (Kind::Date, "2026-02-29"),
            (Kind::List, "1"),
            (Kind::Opaque, "x"),
        ] {
            assert_eq!(error(kind, text).kind(), ErrorKind::InvalidArgument, "{kind:?} {text}");
        }
    }
}
