//! The value codec: one byte format for wire, memory, log, cold tier and snapshot.
//!
//! ```text
//! value    := kind:u8 payload                     integers little endian, len and count LEB128, shortest form
//! Null     -                                      Bool      0 or 1
//! Int      i64                                    Float     f64 bits
//! Decimal  u128 (bit 127 sign, below it the coefficient), i16 exponent
//! Text     len, UTF-8                             Bytes     len, bytes
//! List     count, value*                          Tuple     count, value*
//! Set      count, member*                         FrozenSet count, member*
//! Hash     count, (member, value)*                SortedSet score kind (3 or 4), count, (score payload, member)*
//! BigInt   sign 0 or 1, len, magnitude (little endian, no leading zero, beyond i64)
//! Timestamp flags (1 aware, 2 fold, 4 zone), i64 local microseconds since 1970-01-01T00:00:00,
//!          [i64 offset in microseconds if aware], [len, zone name if zone]
//! Time     flags, i64 microseconds since midnight, [offset], [zone]
//! Date     i32 days since 1970-01-01              Duration  i32 days, i64 microseconds below one day
//! Uuid     16 bytes                               Opaque    len, codec name, len, bytes
//! Tagged   len, name, value
//! ```
//!
//! [`Reader::value`] is the only place that accepts foreign bytes: it checks every rule above, with a budget for
//! depth and elements, and never allocates. What it returned is walked again by [`Items`] without checks.

use crate::Decimal;
use crate::error::{Error, ErrorKind, Result};
use crate::kind::Kind;
use crate::limits::{BIGINT_BYTES, NAME_BYTES, VALUE_DEPTH, VALUE_ELEMENTS};

mod items;
mod write;
pub use items::{Items, element_count, tagged_parts};
pub use write::{put_head, put_varint};

/// One day in microseconds.
pub const DAY_US: i64 = 86_400_000_000;
/// Flag of a Timestamp or Time: an offset follows.
pub const AWARE: u8 = 1;
/// Flag of a Timestamp or Time: the second of two equal local times.
pub const FOLD: u8 = 2;
/// Flag of a Timestamp or Time: a zone name follows.
pub const ZONE: u8 = 4;
/// Local microseconds of 0001-01-01T00:00:00.
pub const MIN_LOCAL_US: i64 = -62_135_596_800_000_000;
/// Local microseconds after 9999-12-31T23:59:59.999999.
pub const END_LOCAL_US: i64 = 253_402_300_800_000_000;
/// Largest number of days of a Duration, as in Python's `timedelta`.
pub const DURATION_DAYS: i32 = 999_999_999;

/// A borrowed, validated value: its kind and its payload. For Text and Bytes the payload is the content without
/// the length in front; for every other kind it is the codec's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueRef<'a> {
    kind: Kind,
    payload: &'a [u8],
}

impl<'a> ValueRef<'a> {
    /// A value from parts that are valid by construction or came out of the engine.
    #[inline]
    pub fn from_parts(kind: Kind, payload: &'a [u8]) -> ValueRef<'a> {
        ValueRef { kind, payload }
    }

    /// A value from constant parts.
    pub const fn from_static(kind: Kind, payload: &'static [u8]) -> ValueRef<'static> {
        ValueRef { kind, payload }
    }

    /// Untyped bytes.
    #[inline]
    pub fn bytes(content: &'a [u8]) -> ValueRef<'a> {
        ValueRef { kind: Kind::Bytes, payload: content }
    }

    /// Text.
    #[inline]
    pub fn text(content: &'a str) -> ValueRef<'a> {
        ValueRef { kind: Kind::Text, payload: content.as_bytes() }
    }

    /// Reads exactly one value: bytes after it are an error. Costs one pass.
    ///
    /// ```
    /// use data_bridge_kv_model::{Kind, ValueRef};
    /// let value = ValueRef::decode(&[5, 2, b'h', b'i']).unwrap();
    /// assert_eq!((value.kind(), value.payload()), (Kind::Text, &b"hi"[..]));
    /// assert!(ValueRef::decode(&[5, 2, b'h', b'i', 0]).is_err());
    /// ```
    pub fn decode(encoded: &'a [u8]) -> Result<ValueRef<'a>> {
        let mut reader = Reader::new(encoded);
        let value = reader.value()?;
        reader.finish()?;
        Ok(value)
    }

    /// The kind.
    #[inline]
    pub fn kind(self) -> Kind {
        self.kind
    }

    /// The payload, see the type.
    #[inline]
    pub fn payload(self) -> &'a [u8] {
        self.payload
    }

    /// The content of Text or Bytes.
    #[inline]
    pub fn content(self) -> Option<&'a [u8]> {
        matches!(self.kind, Kind::Text | Kind::Bytes).then_some(self.payload)
    }

    /// The integer of an Int.
    #[inline]
    pub fn as_int(self) -> Option<i64> {
        if self.kind != Kind::Int {
            return None;
        }
        self.payload.try_into().ok().map(i64::from_le_bytes)
    }

    /// The number of a Float.
    #[inline]
    pub fn as_float(self) -> Option<f64> {
        if self.kind != Kind::Float {
            return None;
        }
        self.payload.try_into().ok().map(f64::from_le_bytes)
    }

    /// The number of a Decimal.
    #[inline]
    pub fn as_decimal(self) -> Option<Decimal> {
        if self.kind != Kind::Decimal {
            return None;
        }
        let payload: &[u8; 18] = self.payload.try_into().ok()?;
        Decimal::from_payload(payload).ok()
    }

    /// Whether it may be a set member or hash field: a scalar, or a tuple or frozen set of such.
    pub fn is_member(self) -> bool {
        match self.kind {
            Kind::Tuple | Kind::FrozenSet => Items::of(self).all(|item| item.is_member()),
            kind => kind.is_member(),
        }
    }

    /// Appends the encoded value.
    #[inline]
    pub fn encode_into(self, out: &mut Vec<u8>) {
        put_head(self.kind, self.payload.len(), out);
        out.extend_from_slice(self.payload);
    }

    /// Length of the encoded value in bytes.
    #[inline]
    pub fn encoded_len(self) -> usize {
        let head = match self.kind {
            Kind::Text | Kind::Bytes => 1 + write::varint_len(self.payload.len()),
            _ => 1,
        };
        head + self.payload.len()
    }
}

/// A validating cursor over foreign bytes, with a budget for elements.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    elements: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte, with the budget of `limits.rs`.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, elements: VALUE_ELEMENTS }
    }

    /// What has not been read yet.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Refuses bytes after the last value.
    pub fn finish(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(malformed("bytes after the value")) }
    }

    /// Reads and checks the next value.
    #[inline]
    pub fn value(&mut self) -> Result<ValueRef<'a>> {
        self.value_at(VALUE_DEPTH)
    }

    /// Reads one byte.
    #[inline]
    pub fn byte(&mut self) -> Result<u8> {
        let (&byte, rest) = self.rest.split_first().ok_or_else(truncated)?;
        self.rest = rest;
        Ok(byte)
    }

    /// Reads `count` bytes.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Reads a LEB128 number in its shortest form, at most 32 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<usize> {
        let mut number: u64 = 0;
        for shift in [0u32, 7, 14, 21, 28] {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                if byte == 0 && shift > 0 {
                    return Err(malformed("a length is not in its shortest form"));
                }
                return usize::try_from(number).map_err(|_| malformed("a length is too large"));
            }
        }
        Err(malformed("a length is too large"))
    }

    fn value_at(&mut self, depth: usize) -> Result<ValueRef<'a>> {
        let number = self.byte()?;
        let Some(kind) = Kind::from_number(number) else {
            return Err(Error::new(ErrorKind::UnsupportedValue, "unknown kind of value"));
        };
        let payload = match kind {
            Kind::Text => {
                let content = self.counted()?;
                std::str::from_utf8(content).map_err(|_| malformed("text is not valid UTF-8"))?;
                content
            }
            Kind::Bytes => self.counted()?,
            _ => {
                let start = self.rest;
                self.payload(kind, depth)?;
                let used = start.len().saturating_sub(self.rest.len());
                start.get(..used).unwrap_or_default()
            }
        };
        Ok(ValueRef { kind, payload })
    }

    fn counted(&mut self) -> Result<&'a [u8]> {
        let length = self.varint()?;
        self.take(length)
    }

    fn payload(&mut self, kind: Kind, depth: usize) -> Result<()> {
        match kind {
            Kind::Null => Ok(()),
            Kind::Bool => match self.byte()? {
                0 | 1 => Ok(()),
                _ => Err(malformed("a bool is neither 0 nor 1")),
            },
            Kind::Int | Kind::Float => self.take(8).map(drop),
            Kind::Decimal => {
                let payload: &[u8; 18] = self.take(18)?.try_into().map_err(|_| truncated())?;
                Decimal::from_payload(payload).map(drop).map_err(|_| malformed("a decimal is out of range"))
            }
            Kind::Text | Kind::Bytes => self.counted().map(drop),
            Kind::List | Kind::Tuple => {
                self.sequence(depth, |reader, inner| reader.value_at(inner).map(drop))
            }
            Kind::Set | Kind::FrozenSet => self.sequence(depth, |reader, inner| reader.member_at(inner)),
            Kind::Hash => self.sequence(depth, |reader, inner| {
                reader.member_at(inner)?;
                reader.value_at(inner).map(drop)
            }),
            Kind::SortedSet => self.sorted_set(depth),
            Kind::BigInt => self.big_int(),
            Kind::Timestamp => self.moment(MIN_LOCAL_US, END_LOCAL_US),
            Kind::Time => self.moment(0, DAY_US),
            Kind::Date => {
                let days = i64::from(self.i32()?);
                in_range(days, MIN_LOCAL_US / DAY_US, END_LOCAL_US / DAY_US)
            }
            Kind::Duration => {
                let days = self.i32()?;
                in_range(i64::from(days), -i64::from(DURATION_DAYS), i64::from(DURATION_DAYS) + 1)?;
                let micros = self.i64()?;
                in_range(micros, 0, DAY_US)
            }
            Kind::Uuid => self.take(16).map(drop),
            Kind::Opaque => {
                self.name()?;
                self.counted().map(drop)
            }
            Kind::Tagged => {
                self.name()?;
                self.value_at(deeper(depth)?).map(drop)
            }
        }
    }

    fn sequence(
        &mut self,
        depth: usize,
        mut element: impl FnMut(&mut Self, usize) -> Result<()>,
    ) -> Result<()> {
        let count = self.varint()?;
        let inner = deeper(depth)?;
        self.elements =
            self.elements.checked_sub(count).ok_or_else(|| malformed("a value has too many elements"))?;
        for _ in 0..count {
            element(self, inner)?;
        }
        Ok(())
    }

    fn member_at(&mut self, depth: usize) -> Result<()> {
        let value = self.value_at(depth)?;
        if value.is_member() { Ok(()) } else { Err(malformed("a member or field must be a scalar")) }
    }

    fn sorted_set(&mut self, depth: usize) -> Result<()> {
        let score = match Kind::from_number(self.byte()?) {
            Some(kind @ (Kind::Float | Kind::Decimal)) => kind,
            _ => return Err(malformed("scores are neither floats nor decimals")),
        };
        self.sequence(depth, |reader, inner| {
            let before = reader.rest;
            reader.payload(score, inner)?;
            let raw: Option<[u8; 8]> = before.get(..8).and_then(|bytes| bytes.try_into().ok());
            if score == Kind::Float && raw.is_some_and(|bits| f64::from_le_bytes(bits).is_nan()) {
                return Err(malformed("a score is not a number"));
            }
            reader.member_at(inner)
        })
    }

    fn big_int(&mut self) -> Result<()> {
        let sign = self.byte()?;
        let magnitude = self.counted()?;
        let beyond = match magnitude.len() {
            0..=7 => false,
            8 => {
                let bytes: [u8; 8] = magnitude.try_into().map_err(|_| truncated())?;
                u64::from_le_bytes(bytes) > (1 << 63) - u64::from(sign == 0)
            }
            length => length <= BIGINT_BYTES,
        };
        if sign > 1 || !beyond || magnitude.last() == Some(&0) {
            return Err(malformed("a big integer is not in its shortest form or too long"));
        }
        Ok(())
    }

    fn moment(&mut self, low: i64, end: i64) -> Result<()> {
        let flags = self.byte()?;
        if flags > (AWARE | FOLD | ZONE) || (flags & ZONE != 0 && flags & AWARE == 0 && low == 0) {
            return Err(malformed("unknown flags of a timestamp or time"));
        }
        in_range(self.i64()?, low, end)?;
        if flags & AWARE != 0 {
            in_range(self.i64()?, 1 - DAY_US, DAY_US)?;
        }
        if flags & ZONE != 0 {
            self.name()?;
        }
        Ok(())
    }

    fn name(&mut self) -> Result<()> {
        let name = self.counted()?;
        if name.is_empty() || name.len() > NAME_BYTES || std::str::from_utf8(name).is_err() {
            return Err(malformed("a name is empty, too long or not UTF-8"));
        }
        Ok(())
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_le_bytes(self.take(4)?.try_into().map_err(|_| truncated())?))
    }

    /// Reads a little-endian i64.
    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.take(8)?.try_into().map_err(|_| truncated())?))
    }
}

fn deeper(depth: usize) -> Result<usize> {
    match depth.checked_sub(1) {
        Some(inner) if inner > 0 => Ok(inner),
        _ => Err(Error::new(ErrorKind::UnsupportedValue, "value is nested more than 32 deep")),
    }
}

fn in_range(number: i64, low: i64, end: i64) -> Result<()> {
    if (low..end).contains(&number) { Ok(()) } else { Err(malformed("a date or time is out of range")) }
}

#[cold]
fn truncated() -> Error {
    malformed("value is cut short")
}

#[cold]
fn malformed(message: &'static str) -> Error {
    Error::invalid(message)
}

#[cfg(test)]
mod tests;
