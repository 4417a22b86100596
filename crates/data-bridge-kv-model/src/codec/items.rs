//! Walking a validated container. Scalars of fixed width are not checked again; a broken length ends the walk.

use super::{Reader, ValueRef};
use crate::kind::Kind;

/// The values inside a validated container, in stored order: elements of a list, tuple, set or frozen set;
/// field, value, field, value … of a hash; score, member, score, member … of a sorted set.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    rest: &'a [u8],
    left: usize,
    /// Kind of the scores, when every second item is a bare score payload.
    score: Option<Kind>,
    at_score: bool,
}

impl<'a> Items<'a> {
    /// Starts a walk; a value that is no container has no items. A Tagged value has one.
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
            Kind::Tagged => match tagged_parts(value) {
                Some((_, inner)) => {
                    reader = Reader::new(inner);
                    1
                }
                None => 0,
            },
            _ => 0,
        };
        Items { rest: reader.rest(), left, score, at_score: score.is_some() }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = ValueRef<'a>;

    fn next(&mut self) -> Option<ValueRef<'a>> {
        self.left = self.left.checked_sub(1)?;
        if let Some(kind) = self.score.filter(|_| self.at_score) {
            self.at_score = false;
            let width = if kind == Kind::Decimal { 18 } else { 8 };
            let (payload, rest) = self.rest.split_at_checked(width)?;
            self.rest = rest;
            return Some(ValueRef::from_parts(kind, payload));
        }
        self.at_score = self.score.is_some();
        let (value, used) = split_value(self.rest)?;
        self.rest = self.rest.get(used..)?;
        Some(value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.min(self.rest.len()), Some(self.left))
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
    let mut reader = Reader::new(value.payload());
    let length = reader.varint().ok()?;
    let name = std::str::from_utf8(reader.take(length).ok()?).ok()?;
    match value.kind() {
        Kind::Tagged => Some((name, reader.rest())),
        Kind::Opaque => {
            let length = reader.varint().ok()?;
            Some((name, reader.take(length).ok()?))
        }
        _ => None,
    }
}

/// The first value of `bytes` and its encoded length.
fn split_value(bytes: &[u8]) -> Option<(ValueRef<'_>, usize)> {
    let kind = Kind::from_number(*bytes.first()?)?;
    let body = bytes.get(1..)?;
    let fixed = match kind {
        Kind::Null => Some(0),
        Kind::Bool => Some(1),
        Kind::Int | Kind::Float => Some(8),
        Kind::Decimal => Some(18),
        Kind::Date => Some(4),
        Kind::Duration => Some(12),
        Kind::Uuid => Some(16),
        _ => None,
    };
    if let Some(width) = fixed {
        return Some((ValueRef::from_parts(kind, body.get(..width)?), width + 1));
    }
    let mut reader = Reader::new(bytes);
    let value = reader.value().ok()?;
    Some((value, bytes.len().checked_sub(reader.rest().len())?))
}
