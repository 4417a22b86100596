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
//! member   a value that is a scalar, or a tuple or frozen set of members; no identity twice in one container
//! BigInt   sign 0 or 1, len, magnitude (little endian, no leading zero, beyond i64)
//! Timestamp flags (1 aware, 2 fold, 4 zone), i64 local microseconds since 1970-01-01T00:00:00,
//!          [i64 offset in microseconds if aware], [len, zone name if zone]
//! Time     flags, i64 microseconds since midnight, [offset], [zone]
//! Date     i32 days since 1970-01-01              Duration  i32 days, i64 microseconds below one day
//! Uuid     16 bytes                               Opaque    len, codec name, len, bytes
//! Tagged   len, name, value
//! ```
//!
//! Each value has one encoding only: what the reader accepts is encoded again to the same bytes. Sets and hashes keep
//! the order in which they were written; scores are no NaN, and the order of a sorted set is that of its writer, too:
//! whoever stores it sorts it.
//!
//! [`Reader::value`] is the only place that accepts foreign bytes: it checks every rule above, with a budget for
//! depth and elements. What it returned is walked again by [`Items`] without checks.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use crate::Decimal;
use crate::error::{Error, Result};
use crate::kind::Kind;
use crate::limits::VALUE_DEPTH;

mod distinct;
mod items;
mod reader;
mod write;
pub use items::{Items, element_count, tagged_parts};
pub use reader::Reader;
pub use write::{put_counted, put_head, put_varint};

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

    /// Reads exactly one value that a store wrote, whose bytes are known to be whole: collections that grew by commands may
    /// have more elements than [`ValueRef::decode`] takes.
    pub fn decode_stored(encoded: &'a [u8]) -> Result<ValueRef<'a>> {
        let mut reader = Reader::new(encoded);
        let value = reader.stored_value()?;
        reader.finish()?;
        Ok(value)
    }

    /// Refuses what is nested too deep to be part of another value. Costs a pass over a container, nothing for a scalar.
    #[inline]
    pub fn check_part(self) -> Result<()> {
        if self.kind.is_container() {
            return Reader::new(self.payload).payload(self.kind, VALUE_DEPTH - 1);
        }
        Ok(())
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
        if let (Kind::Int | Kind::Float, &[a, b, c, d, e, f, g, h]) = (self.kind, self.payload) {
            // Of a known length, so in one step.
            out.extend_from_slice(&[self.kind.number(), a, b, c, d, e, f, g, h]);
            return;
        }
        put_head(self.kind, self.payload.len(), out);
        out.extend_from_slice(self.payload);
    }

    /// Length of the encoded value in bytes.
    #[inline]
    pub fn encoded_len(self) -> usize {
        let head = match self.kind {
            Kind::Text | Kind::Bytes => write::varint_len(self.payload.len()).saturating_add(1),
            _ => 1,
        };
        self.payload.len().saturating_add(head)
    }
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
