//! The validating reader: the only place that accepts foreign bytes.
//!
//! It costs one pass and its recursion is bounded by the depth budget. Only sets and hashes allocate: the hashes of
//! the members seen so far, which are never more than the bytes read.

use super::distinct::Distinct;
use super::items::Items;
use super::{
    AWARE, DAY_US, DURATION_DAYS, END_LOCAL_US, FOLD, MIN_LOCAL_US, ValueRef, ZONE, malformed, truncated,
};
use crate::Decimal;
use crate::bigint;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{folded_hash, same_identity, scalar_hash, sealed_hash};
use crate::kind::Kind;
use crate::limits::{NAME_BYTES, STORED_DEPTH, VALUE_DEPTH, VALUE_ELEMENTS};

/// Whether bytes are UTF-8. Most are ASCII, which is told faster.
#[inline]
fn is_text(content: &[u8]) -> bool {
    content.is_ascii() || std::str::from_utf8(content).is_ok()
}

/// A validating cursor over foreign bytes.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// How many more elements the value being read may have.
    elements: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
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
    #[inline]
    pub fn finish(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(malformed("bytes after the value")) }
    }

    /// Reads and checks the next value; each has the whole budget of `limits.rs`.
    #[inline]
    pub fn value(&mut self) -> Result<ValueRef<'a>> {
        if let Some(value) = self.plain() {
            return Ok(value);
        }
        self.elements = VALUE_ELEMENTS;
        self.whole(VALUE_DEPTH)
    }

    /// Reads a value that a store wrote. A collection that grew by its commands may have more elements than one that is
    /// written whole; the bytes bound them.
    #[inline]
    pub fn stored_value(&mut self) -> Result<ValueRef<'a>> {
        self.elements = usize::MAX;
        self.value_at(STORED_DEPTH)
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

    /// Reads a length, then that many bytes.
    #[inline]
    pub fn counted(&mut self) -> Result<&'a [u8]> {
        let length = self.varint()?;
        self.take(length)
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
                return match u32::try_from(number) {
                    Ok(number) => Ok(number as usize),
                    Err(_) => Err(malformed("a length is too large")),
                };
            }
        }
        Err(malformed("a length is too large"))
    }

    /// Reads a little-endian i32.
    #[inline]
    pub fn i32(&mut self) -> Result<i32> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(truncated)?;
        self.rest = rest;
        Ok(i32::from_le_bytes(*bytes))
    }

    /// Reads a little-endian i64.
    #[inline]
    pub fn i64(&mut self) -> Result<i64> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(truncated)?;
        self.rest = rest;
        Ok(i64::from_le_bytes(*bytes))
    }

    /// The everyday scalars without a call: Int, Float, and Text and Bytes below 128 bytes.
    #[inline]
    fn plain(&mut self) -> Option<ValueRef<'a>> {
        let (&number, rest) = self.rest.split_first()?;
        let (kind, (payload, rest)) = match Kind::from_number(number)? {
            kind @ (Kind::Int | Kind::Float) => (kind, rest.split_at_checked(8)?),
            kind @ (Kind::Text | Kind::Bytes) => {
                let (&length, rest) = rest.split_first().filter(|(length, _)| **length < 0x80)?;
                let (content, rest) = rest.split_at_checked(usize::from(length))?;
                if kind == Kind::Text && !is_text(content) {
                    return None;
                }
                (kind, (content, rest))
            }
            _ => return None,
        };
        self.rest = rest;
        Some(ValueRef::from_parts(kind, payload))
    }

    fn kind(&mut self) -> Result<Kind> {
        Kind::from_number(self.byte()?)
            .ok_or_else(|| Error::new(ErrorKind::UnsupportedValue, "unknown kind of value"))
    }

    #[inline]
    fn value_at(&mut self, depth: usize) -> Result<ValueRef<'a>> {
        if let Some(value) = self.plain() {
            return Ok(value);
        }
        self.whole(depth)
    }

    /// Reads a value of any kind.
    fn whole(&mut self, depth: usize) -> Result<ValueRef<'a>> {
        let kind = self.kind()?;
        self.value_of(kind, depth)
    }

    /// Reads a value whose kind byte was read.
    fn value_of(&mut self, kind: Kind, depth: usize) -> Result<ValueRef<'a>> {
        let payload = match kind {
            Kind::Text => {
                let content = self.counted()?;
                if !is_text(content) {
                    return Err(malformed("text is not valid UTF-8"));
                }
                content
            }
            Kind::Bytes => self.counted()?,
            _ => {
                let start = self.rest;
                self.payload(kind, depth)?;
                self.since(start)
            }
        };
        Ok(ValueRef::from_parts(kind, payload))
    }

    /// What was read since the rest was `start`.
    fn since(&self, start: &'a [u8]) -> &'a [u8] {
        let used = start.len().saturating_sub(self.rest.len());
        start.get(..used).unwrap_or_default()
    }

    pub(super) fn payload(&mut self, kind: Kind, depth: usize) -> Result<()> {
        match kind {
            Kind::Null => Ok(()),
            Kind::Bool => match self.byte()? {
                0 | 1 => Ok(()),
                _ => Err(malformed("a bool is neither 0 nor 1")),
            },
            Kind::Int | Kind::Float => self.take(8).map(drop),
            Kind::Decimal => {
                let (payload, rest) = self.rest.split_first_chunk().ok_or_else(truncated)?;
                self.rest = rest;
                Decimal::from_payload(payload).map(drop).map_err(|_| malformed("a decimal is out of range"))
            }
            Kind::Text | Kind::Bytes => self.counted().map(drop),
            Kind::List | Kind::Tuple => {
                let (count, inner) = self.open(depth)?;
                for _ in 0..count {
                    self.value_at(inner)?;
                }
                Ok(())
            }
            Kind::Set | Kind::FrozenSet | Kind::Hash => self.members(kind, depth).map(drop),
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
                in_range(i64::from(days.unsigned_abs()), 0, i64::from(DURATION_DAYS).saturating_add(1))?;
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

    /// Reads the count of a container and charges the budgets; answers it with the depth left inside.
    fn open(&mut self, depth: usize) -> Result<(usize, usize)> {
        let count = self.varint()?;
        let inner = deeper(depth)?;
        self.elements =
            self.elements.checked_sub(count).ok_or_else(|| malformed("a value has too many elements"))?;
        Ok((count, inner))
    }

    /// Reads the members of a set or frozen set, or the fields and values of a hash; answers the folded hash.
    fn members(&mut self, kind: Kind, depth: usize) -> Result<u64> {
        let (count, inner) = self.open(depth)?;
        let start = self.rest;
        let mut distinct = Distinct::of(count);
        let mut state = 0;
        for seen in 0..count {
            let (member, hash) = self.member_at(inner)?;
            if !distinct.insert(hash)
                && earlier(start, kind, None, seen).any(|one| same_identity(one, member))
            {
                return Err(doubled(kind));
            }
            state = folded_hash(kind, state, hash);
            if kind == Kind::Hash {
                self.value_at(inner)?;
            }
        }
        Ok(state)
    }

    /// Reads a value that is a scalar, or a tuple or frozen set of members, with the hash of its identity.
    fn member_at(&mut self, depth: usize) -> Result<(ValueRef<'a>, u64)> {
        if let Some(value) = self.plain() {
            return Ok((value, scalar_hash(value)));
        }
        let kind = self.kind()?;
        if !kind.is_member() {
            return Err(malformed("a member or field must be a scalar"));
        }
        if !matches!(kind, Kind::Tuple | Kind::FrozenSet) {
            let value = self.value_of(kind, depth)?;
            return Ok((value, scalar_hash(value)));
        }
        let start = self.rest;
        let state = if kind == Kind::FrozenSet {
            self.members(kind, depth)?
        } else {
            let (count, inner) = self.open(depth)?;
            let mut state = 0;
            for _ in 0..count {
                state = folded_hash(kind, state, self.member_at(inner)?.1);
            }
            state
        };
        Ok((ValueRef::from_parts(kind, self.since(start)), sealed_hash(kind, state)))
    }

    /// The order of (score, member) is not checked: whoever stores a sorted set sorts it by its own order of
    /// members.
    fn sorted_set(&mut self, depth: usize) -> Result<()> {
        let score = match Kind::from_number(self.byte()?) {
            Some(kind @ (Kind::Float | Kind::Decimal)) => kind,
            _ => return Err(malformed("scores are neither floats nor decimals")),
        };
        let (count, inner) = self.open(depth)?;
        let start = self.rest;
        let mut distinct = Distinct::of(count);
        for seen in 0..count {
            let number = self.value_of(score, inner)?;
            if number.as_float().is_some_and(f64::is_nan) {
                return Err(malformed("a score is not a number"));
            }
            let (member, hash) = self.member_at(inner)?;
            let mut before = earlier(start, Kind::SortedSet, Some(score), seen);
            if !distinct.insert(hash) && before.any(|one| same_identity(one, member)) {
                return Err(doubled(Kind::SortedSet));
            }
        }
        Ok(())
    }

    fn big_int(&mut self) -> Result<()> {
        let sign = self.byte()?;
        let magnitude = self.counted()?;
        if sign > 1 || !bigint::is_valid(sign == 1, magnitude) {
            return Err(malformed("a big integer is not in its shortest form or too long"));
        }
        Ok(())
    }

    fn moment(&mut self, low: i64, end: i64) -> Result<()> {
        let flags = self.byte()?;
        if flags > (AWARE | FOLD | ZONE) {
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
}

/// The first `count` members of a container whose items start at `start`: fields without values, members without
/// scores.
fn earlier(
    start: &[u8],
    kind: Kind,
    score: Option<Kind>,
    count: usize,
) -> impl Iterator<Item = ValueRef<'_>> {
    let (lead, step) = match kind {
        Kind::Hash => (0, 2),
        Kind::SortedSet => (1, 2),
        _ => (0, 1),
    };
    Items::over(start, count.saturating_mul(step), score).skip(lead).step_by(step)
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
fn doubled(kind: Kind) -> Error {
    let message = match kind {
        Kind::Hash => "a hash has a field twice",
        _ => "a set has a member twice",
    };
    Error::new(ErrorKind::UnsupportedValue, message)
}
