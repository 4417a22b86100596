//! Walking a validated container. Nothing is checked again; a broken length ends the walk.

use super::{AWARE, Reader, ValueRef, ZONE};
use crate::kind::Kind;
use crate::limits::VALUE_DEPTH;

/// The values inside a validated container, in stored order: elements of a list, tuple, set or frozen set;
/// field, value, field, value … of a hash; score, member, score, member … of a sorted set; the value of a Tagged.
///
/// A step costs the length of the item at most, nothing for an item of fixed width.
///
/// ```
/// use data_bridge_kv_model::{Items, Value, ValueRef};
/// let bytes = Value::List(vec![1.into(), "two".into()]).encode();
/// let kinds: Vec<_> = Items::of(ValueRef::decode(&bytes)?).map(|item| item.kind().name()).collect();
/// assert_eq!(kinds, ["int", "text"]);
/// # Ok::<(), data_bridge_kv_model::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Items<'a> {
    rest: &'a [u8],
    left: usize,
    /// Kind of the scores, when every second item is a bare score payload.
    score: Option<Kind>,
    at_score: bool,
}

impl<'a> Items<'a> {
    /// Starts a walk; a value that is no container has no items.
    pub fn of(value: ValueRef<'a>) -> Items<'a> {
        let mut reader = Reader::new(value.payload());
        let mut score = None;
        let left = match value.kind() {
            Kind::List | Kind::Tuple | Kind::Set | Kind::FrozenSet => reader.varint().unwrap_or(0),
            Kind::Hash => reader.varint().unwrap_or(0).saturating_mul(2),
            Kind::SortedSet => {
                score = reader.byte().ok().and_then(Kind::from_number);
                reader.varint().unwrap_or(0).saturating_mul(2)
            }
            Kind::Tagged => usize::from(reader.counted().is_ok()),
            _ => 0,
        };
        Items::over(reader.rest(), left, score)
    }

    /// A walk over `left` items of which the first stands at `rest`; with `score`, scores and members alternate.
    pub(super) fn over(rest: &'a [u8], left: usize, score: Option<Kind>) -> Items<'a> {
        Items { rest, left, score, at_score: score.is_some() }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = ValueRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<ValueRef<'a>> {
        self.left = self.left.checked_sub(1)?;
        if let Some(kind) = self.score.filter(|_| self.at_score) {
            self.at_score = false;
            let (payload, rest) = self.rest.split_at_checked(fixed_width(kind)?)?;
            self.rest = rest;
            return Some(ValueRef::from_parts(kind, payload));
        }
        self.at_score = self.score.is_some();
        let (&number, body) = self.rest.split_first()?;
        let kind = Kind::from_number(number)?;
        let (payload, rest) = match (kind, fixed_width(kind)) {
            (_, Some(width)) => body.split_at_checked(width)?,
            (Kind::Text | Kind::Bytes, None) => {
                let mut reader = Reader::new(body);
                (reader.counted().ok()?, reader.rest())
            }
            (_, None) => {
                let rest = skip_payload(kind, body, VALUE_DEPTH)?;
                body.split_at_checked(body.len().checked_sub(rest.len())?)?
            }
        };
        self.rest = rest;
        Some(ValueRef::from_parts(kind, payload))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

/// Payload length of the kinds whose payloads are all of one length.
#[inline]
fn fixed_width(kind: Kind) -> Option<usize> {
    match kind {
        Kind::Null => Some(0),
        Kind::Bool => Some(1),
        Kind::Int | Kind::Float => Some(8),
        Kind::Decimal => Some(18),
        Kind::Date => Some(4),
        Kind::Duration => Some(12),
        Kind::Uuid => Some(16),
        Kind::Text
        | Kind::Bytes
        | Kind::List
        | Kind::Set
        | Kind::Hash
        | Kind::SortedSet
        | Kind::BigInt
        | Kind::Timestamp
        | Kind::Time
        | Kind::Tuple
        | Kind::FrozenSet
        | Kind::Opaque
        | Kind::Tagged => None,
    }
}

/// What follows the first value of `bytes`.
fn skip(bytes: &[u8], depth: usize) -> Option<&[u8]> {
    let (&number, body) = bytes.split_first()?;
    skip_payload(Kind::from_number(number)?, body, depth)
}

/// What follows the payload that stands at `body`.
fn skip_payload(kind: Kind, body: &[u8], depth: usize) -> Option<&[u8]> {
    if let Some(width) = fixed_width(kind) {
        return body.get(width..);
    }
    let depth = depth.checked_sub(1)?;
    let mut reader = Reader::new(body);
    match kind {
        Kind::List | Kind::Tuple | Kind::Set | Kind::FrozenSet => {
            let count = reader.varint().ok()?;
            (0..count).try_fold(reader.rest(), |rest, _| skip(rest, depth))
        }
        Kind::Hash => {
            let count = reader.varint().ok()?;
            (0..count).try_fold(reader.rest(), |rest, _| skip(skip(rest, depth)?, depth))
        }
        Kind::SortedSet => {
            let width = fixed_width(Kind::from_number(reader.byte().ok()?)?)?;
            let count = reader.varint().ok()?;
            (0..count).try_fold(reader.rest(), |rest, _| skip(rest.get(width..)?, depth))
        }
        Kind::Timestamp | Kind::Time => {
            let flags = reader.byte().ok()?;
            reader.take(if flags & AWARE != 0 { 16 } else { 8 }).ok()?;
            if flags & ZONE != 0 {
                reader.counted().ok()?;
            }
            Some(reader.rest())
        }
        Kind::BigInt => {
            reader.byte().ok()?;
            reader.counted().ok()?;
            Some(reader.rest())
        }
        Kind::Opaque => {
            reader.counted().ok()?;
            reader.counted().ok()?;
            Some(reader.rest())
        }
        Kind::Tagged => {
            reader.counted().ok()?;
            skip(reader.rest(), depth)
        }
        _ => {
            reader.counted().ok()?;
            Some(reader.rest())
        }
    }
}

/// Number of elements, fields or members of a container; `None` for other kinds.
pub fn element_count(value: ValueRef<'_>) -> Option<usize> {
    let mut reader = Reader::new(value.payload());
    match value.kind() {
        Kind::List | Kind::Tuple | Kind::Set | Kind::FrozenSet | Kind::Hash => reader.varint().ok(),
        Kind::SortedSet => {
            reader.byte().ok()?;
            reader.varint().ok()
        }
        _ => None,
    }
}

/// The name and the encoded inner value of a Tagged, or the codec name and the bytes of an Opaque.
pub fn tagged_parts(value: ValueRef<'_>) -> Option<(&str, &[u8])> {
    if !matches!(value.kind(), Kind::Tagged | Kind::Opaque) {
        return None;
    }
    let mut reader = Reader::new(value.payload());
    let name = std::str::from_utf8(reader.counted().ok()?).ok()?;
    let content = if value.kind() == Kind::Tagged { reader.rest() } else { reader.counted().ok()? };
    Some((name, content))
}
