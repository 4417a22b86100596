//! Text to values: how a Redis client writes a typed value (`KV.SET price 1.10 AS decimal`).

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
        Kind::Int => put(parse_int(text).map(i64::to_le_bytes), kind, out),
        Kind::Float => {
            let nan = text.eq_ignore_ascii_case(b"nan").then_some(f64::NAN);
            put(nan.or_else(|| parse_float(text)).map(f64::to_le_bytes), kind, out)
        }
        Kind::Decimal => {
            let number = Decimal::parse_bytes(text);
            put(Some(number.map_err(|error| Error::invalid(error.to_string()))?.to_payload()), kind, out)
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
