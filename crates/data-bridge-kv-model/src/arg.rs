//! Arguments of commands, as both protocols hand them over, and the cursor that command parsers read them with.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use crate::Decimal;
use crate::codec::ValueRef;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::kind::Kind;

/// One argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg<'a> {
    /// Bytes of a Redis client. As a value they are Bytes; as a member, field or expected value they match
    /// whatever the RESP door shows as these bytes.
    Untyped(&'a [u8]),
    /// A typed value: native protocol, Python, or a typed RESP3 element.
    Value(ValueRef<'a>),
    /// Text that a Redis client wants read as a kind (`KV.CAS k 1.10 2.20 AS decimal`).
    Literal(Kind, &'a [u8]),
}

impl<'a> Arg<'a> {
    /// The bytes of an untyped argument, a literal, Text or Bytes.
    #[inline]
    pub fn content(self) -> Option<&'a [u8]> {
        match self {
            Arg::Untyped(bytes) | Arg::Literal(_, bytes) => Some(bytes),
            Arg::Value(value) => value.content(),
        }
    }

    /// This argument as a key.
    #[inline]
    pub fn key(self) -> Result<Key<'a>> {
        match self.content() {
            Some(bytes) => Key::new(bytes),
            None => Err(Error::new(ErrorKind::InvalidKey, "key must be text")),
        }
    }

    /// This argument as a 64-bit integer.
    pub fn int(self) -> Result<i64> {
        match self {
            Arg::Value(value) if value.kind() == Kind::Int => {
                value.as_int().ok_or_else(Error::not_an_integer)
            }
            other => other.content().and_then(parse_int).ok_or_else(Error::not_an_integer),
        }
    }

    /// This argument as a count or size that is not negative.
    pub fn count(self) -> Result<usize> {
        usize::try_from(self.int()?)
            .map_err(|_| Error::out_of_range("value is out of range, must be positive"))
    }

    /// This argument as a float: `inf`, `-inf` and Int or Float values are taken, NaN is refused.
    pub fn float(self) -> Result<f64> {
        let number = match self {
            Arg::Value(value) if value.kind() == Kind::Float => value.as_float(),
            Arg::Value(value) if value.kind() == Kind::Int => value.as_int().map(|number| number as f64),
            other => other.content().and_then(parse_float),
        };
        number.filter(|number| !number.is_nan()).ok_or_else(Error::not_a_float)
    }

    /// Whether it is this word, in any letter case.
    #[inline]
    pub fn is_word(self, word: &str) -> bool {
        self.content().is_some_and(|bytes| bytes.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// This argument as text.
    pub fn text(self) -> Result<&'a str> {
        self.content().and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or_else(Error::syntax)
    }

    /// This argument as a value. A literal is read into `scratch`; the others are borrowed as they are.
    #[inline]
    pub fn value(self, scratch: &'a mut Vec<u8>) -> Result<ValueRef<'a>> {
        match self {
            Arg::Untyped(bytes) => Ok(ValueRef::bytes(bytes)),
            Arg::Value(value) => Ok(value),
            Arg::Literal(kind, text) => {
                scratch.clear();
                crate::literal::read(kind, text, scratch)?;
                Ok(ValueRef::from_parts(kind, scratch))
            }
        }
    }
}

/// Reads a decimal integer as Redis does: an optional minus, no plus, no spaces, no leading zeros.
pub fn parse_int(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !canonical || digits.len() > 19 {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads a float as Redis does: decimal or exponent form, `inf` and `infinity` with a sign, no spaces.
pub fn parse_float(text: &[u8]) -> Option<f64> {
    // Integers below 10^15 are floats exactly.
    if (1..=15).contains(&text.len()) && text.iter().all(u8::is_ascii_digit) {
        let digit = |number: u64, digit: &u8| number.wrapping_mul(10).wrapping_add(u64::from(digit & 15));
        return Some(text.iter().fold(0, digit) as f64);
    }
    let number = std::str::from_utf8(text).ok()?.parse::<f64>().ok()?;
    let digits = || text.split(|byte| matches!(byte, b'e' | b'E')).next().unwrap_or_default();
    let fits = match number {
        // Only a word is infinite, and only zeros are zero: anything else is out of a float's range.
        f64::INFINITY | f64::NEG_INFINITY => !text.iter().any(u8::is_ascii_digit),
        0.0 => !digits().iter().any(|byte| matches!(byte, b'1'..=b'9')),
        number => !number.is_nan(),
    };
    fits.then_some(number)
}

/// Reads a Decimal argument: a Decimal, an Int, or text of a number.
pub fn decimal(arg: Arg<'_>) -> Result<Decimal> {
    let typed = match arg {
        Arg::Value(value) if value.kind() == Kind::Int => value.as_int().map(Decimal::from),
        Arg::Value(value) => value.as_decimal(),
        Arg::Untyped(_) | Arg::Literal(..) => None,
    };
    match (typed, arg.content()) {
        (Some(number), _) => Ok(number),
        (None, Some(text)) => Ok(Decimal::parse_bytes(text)?),
        (None, None) => Err(Error::invalid("value is not a decimal number")),
    }
}

/// A cursor over the arguments of one command, without its name.
#[derive(Debug)]
pub struct Args<'a> {
    rest: &'a [Arg<'a>],
}

impl<'a> Args<'a> {
    /// Starts at the first argument.
    #[inline]
    pub fn new(args: &'a [Arg<'a>]) -> Args<'a> {
        Args { rest: args }
    }

    /// How many are left.
    #[inline]
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether none is left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next argument, which must be there.
    #[inline]
    pub fn next_arg(&mut self) -> Result<Arg<'a>> {
        let (&first, rest) = self.rest.split_first().ok_or_else(Error::syntax)?;
        self.rest = rest;
        Ok(first)
    }

    /// The next argument without taking it.
    pub fn peek(&self) -> Option<Arg<'a>> {
        self.rest.first().copied()
    }

    /// The next argument as a key.
    #[inline]
    pub fn key(&mut self) -> Result<Key<'a>> {
        self.next_arg()?.key()
    }

    /// Takes the next argument if it is this word, in any letter case.
    #[inline]
    pub fn word(&mut self, word: &str) -> bool {
        let found = self.rest.first().is_some_and(|arg| arg.is_word(word));
        if found {
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        found
    }

    /// Takes the next `count` arguments.
    pub fn take(&mut self, count: usize) -> Result<&'a [Arg<'a>]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(Error::syntax)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes all that are left.
    pub fn all(&mut self) -> &'a [Arg<'a>] {
        std::mem::take(&mut self.rest)
    }

    /// Takes all that are left as (first, second) pairs.
    pub fn pairs(&mut self) -> Result<&'a [Arg<'a>]> {
        if self.rest.len().is_multiple_of(2) { Ok(self.all()) } else { Err(Error::syntax()) }
    }

    /// Refuses arguments that no parser took.
    #[inline]
    pub fn finish(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(Error::syntax()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_redis_reads_them() {
        for (text, number) in [("0", 0), ("-1", -1), ("9223372036854775807", i64::MAX)] {
            assert_eq!(parse_int(text.as_bytes()), Some(number), "{text}");
        }
        assert_eq!(parse_int(b"-9223372036854775808"), Some(i64::MIN));
        for bad in ["", "-", "+1", " 1", "1 ", "01", "-0", "1.0", "9223372036854775808", "0x1", "1_000"] {
            assert_eq!(parse_int(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn floats_take_infinities_and_refuse_nan() {
        for digits in
            ["0", "007", "1234567890", "999999999999999", "9999999999999999", "18446744073709551617"]
        {
            assert_eq!(parse_float(digits.as_bytes()), digits.parse().ok(), "{digits}");
        }
        for (text, number) in
            [("1.5", 1.5), ("inf", f64::INFINITY), ("-inf", f64::NEG_INFINITY), ("+1", 1.0), ("0e400", 0.0)]
        {
            assert_eq!(parse_float(text.as_bytes()), Some(number), "{text}");
        }
        for bad in
            ["nan", "+nan", "", " 1", "1 ", "+-1", "abc", "1,5", "1_0", "0x10", "1e400", "-1e400", "1e-400"]
        {
            assert_eq!(parse_float(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
