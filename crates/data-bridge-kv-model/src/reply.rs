//! Replies as data: what `execute` answers, before any protocol.
//!
//! Executors append reply items to a [`ReplyBuf`]; the native protocol sends these bytes as they are, the RESP
//! skin and the bindings walk them with [`ReplyReader`]. An item is a value in the value codec (kind 0..=20) or
//! one of the reply-only tags:
//!
//! ```text
//! 0xE0 Missing                 no such key, field or member
//! 0xE1 Ok
//! 0xE2 Integer   i64           a count or position (a stored Int is a value)
//! 0xE3 Boolean   0 or 1
//! 0xE4 Array     u32, item*    0xE5 Map     u32, (item, item)*
//! 0xE6 Members   u32, item*    0xE7 Scored  u32, (item member, item score)*
//! 0xE8 Error     code:u8, found:u8, u16 length, message, [version u64, current value or Missing if found]
//! 0xE9 Status    u8 length, text
//! ```
//! Numbers are little endian. Counts are fixed width so that they can be patched once they are known.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use crate::codec::{Reader, ValueRef};
use crate::error::{Error, ErrorKind, Found, Result};
use crate::kind::Kind;
use crate::value::Value;

const MISSING: u8 = 0xE0;
const OK: u8 = 0xE1;
const INTEGER: u8 = 0xE2;
const BOOLEAN: u8 = 0xE3;
const ARRAY: u8 = 0xE4;
const MAP: u8 = 0xE5;
const MEMBERS: u8 = 0xE6;
const SCORED: u8 = 0xE7;
const ERROR: u8 = 0xE8;
const STATUS: u8 = 0xE9;
/// The whole reply of a command that was carried out and has nothing else to say.
pub const OK_REPLY: &[u8] = &[OK];
/// The whole reply of a read that found nothing.
pub const MISSING_REPLY: &[u8] = &[MISSING];
/// Containers inside a reply nest at most this deep, above the values' own depth.
const REPLY_DEPTH: usize = 8;

/// A whole reply that is one integer.
#[inline]
pub fn integer_reply(number: i64) -> [u8; 9] {
    let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
    [INTEGER, a, b, c, d, e, f, g, h]
}

/// The number of a whole reply that is one count, position or redis-style number.
///
/// ```
/// use data_bridge_kv_model::{ReplyBuf, reply::{content_of, integer_of}};
/// let (mut count, mut text) = (ReplyBuf::new(), ReplyBuf::new());
/// count.integer(-7);
/// text.value(data_bridge_kv_model::ValueRef::text("seven"));
/// assert_eq!((integer_of(count.as_bytes()), integer_of(text.as_bytes())), (Some(-7), None));
/// assert_eq!((content_of(count.as_bytes()), content_of(text.as_bytes())), (None, Some(&b"seven"[..])));
/// ```
#[inline]
pub fn integer_of(reply: &[u8]) -> Option<i64> {
    match *reply {
        [INTEGER, a, b, c, d, e, f, g, h] => Some(i64::from_le_bytes([a, b, c, d, e, f, g, h])),
        _ => None,
    }
}

/// The content of a whole reply that is one Text or Bytes.
#[inline]
pub fn content_of(reply: &[u8]) -> Option<&[u8]> {
    const TEXT: u8 = Kind::Text as u8;
    const BYTES: u8 = Kind::Bytes as u8;
    match reply {
        // Below 128 the length is one byte.
        [TEXT | BYTES, 0..=127, content @ ..] => Some(content),
        [TEXT | BYTES, rest @ ..] => {
            let mut reader = Reader::new(rest);
            reader.varint().and_then(|length| reader.take(length)).ok()
        }
        _ => None,
    }
}

/// The container shapes of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Items in order.
    Array,
    /// Key and value alternate; the count is of pairs.
    Map,
    /// Distinct members.
    Members,
    /// Member and score alternate; the count is of pairs.
    Scored,
}

/// A reusable buffer of reply items, one item or container per command.
#[derive(Debug, Default)]
pub struct ReplyBuf {
    bytes: Vec<u8>,
}

/// Where an open container's count stands, to be given back to [`ReplyBuf::close`].
#[derive(Debug)]
#[must_use = "an open container must be closed with its count"]
pub struct Open(usize);

impl ReplyBuf {
    /// An empty buffer.
    pub fn new() -> ReplyBuf {
        ReplyBuf::default()
    }

    /// A buffer that appends to these bytes: an item goes where it is sent from.
    ///
    /// ```
    /// use data_bridge_kv_model::ReplyBuf;
    /// let mut reply = ReplyBuf::onto(b"before".to_vec());
    /// reply.ok();
    /// assert!(reply.into_bytes().starts_with(b"before"));
    /// ```
    #[inline]
    pub fn onto(bytes: Vec<u8>) -> ReplyBuf {
        ReplyBuf { bytes }
    }

    /// All bytes, those that were there before included.
    #[inline]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The encoded items.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes so far: a mark for [`ReplyBuf::truncate`].
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was answered yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes back what was appended after `mark`: a command that runs again starts anew.
    pub fn truncate(&mut self, mark: usize) {
        self.bytes.truncate(mark);
    }

    /// Empties the buffer and keeps its memory, unless it grew beyond `keep` bytes.
    pub fn reset(&mut self, keep: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(keep);
    }

    /// The raw bytes, for encoders that append whole values.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The command was carried out.
    #[inline]
    pub fn ok(&mut self) {
        self.bytes.push(OK);
    }

    /// There is no such key, field or member.
    #[inline]
    pub fn missing(&mut self) {
        self.bytes.push(MISSING);
    }

    /// A count, position or redis-style number.
    #[inline]
    pub fn integer(&mut self, number: i64) {
        // Of a known length, so in one step.
        self.bytes.extend_from_slice(&integer_reply(number));
    }

    /// A count of things in memory.
    #[inline]
    pub fn count(&mut self, count: usize) {
        self.integer(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A version: at most 63 bits by construction.
    pub fn version(&mut self, version: u64) {
        self.integer(i64::try_from(version).unwrap_or(i64::MAX));
    }

    /// Yes or no.
    #[inline]
    pub fn boolean(&mut self, yes: bool) {
        self.bytes.extend_from_slice(&[BOOLEAN, u8::from(yes)]);
    }

    /// A stored value.
    #[inline]
    pub fn value(&mut self, value: ValueRef<'_>) {
        value.encode_into(&mut self.bytes);
    }

    /// A float as a value.
    pub fn float(&mut self, number: f64) {
        self.value(ValueRef::from_parts(Kind::Float, &number.to_le_bytes()));
    }

    /// A short word such as `QUEUED` or a type name; longer texts are cut at 255 bytes.
    pub fn status(&mut self, text: &str) {
        let (length, text) = cut(text, usize::from(u8::MAX));
        self.bytes.extend_from_slice(&[STATUS, length as u8]);
        self.bytes.extend_from_slice(text);
    }

    /// A container of exactly `count` items (pairs for [`Shape::Map`] and [`Shape::Scored`]), which follow.
    pub fn container(&mut self, shape: Shape, count: usize) {
        let Open(at) = self.open(shape);
        self.close(Open(at), count);
    }

    /// A container whose count is given to [`ReplyBuf::close`] after its items.
    pub fn open(&mut self, shape: Shape) -> Open {
        self.bytes.push(match shape {
            Shape::Array => ARRAY,
            Shape::Map => MAP,
            Shape::Members => MEMBERS,
            Shape::Scored => SCORED,
        });
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        Open(at)
    }

    /// Writes the count of an open container.
    pub fn close(&mut self, open: Open, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if let Some(field) = open.0.checked_add(4).and_then(|end| self.bytes.get_mut(open.0..end)) {
            field.copy_from_slice(&count.to_le_bytes());
        }
    }

    /// The command failed and changed nothing.
    #[cold]
    pub fn error(&mut self, error: &Error) {
        let (length, message) = cut(error.message(), usize::from(u16::MAX));
        self.bytes.extend_from_slice(&[ERROR, error.kind().code(), u8::from(error.found().is_some())]);
        self.bytes.extend_from_slice(&(length as u16).to_le_bytes());
        self.bytes.extend_from_slice(message);
        if let Some(found) = error.found() {
            self.bytes.extend_from_slice(&found.version.to_le_bytes());
            match &found.current {
                Some(encoded) => self.bytes.extend_from_slice(encoded),
                None => self.missing(),
            }
        }
    }
}

/// The longest prefix of at most `limit` bytes that ends at a character.
fn cut(text: &str, limit: usize) -> (usize, &[u8]) {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    (end, text.as_bytes().get(..end).unwrap_or_default())
}

/// One step of a walk over reply items.
#[derive(Clone, Debug, PartialEq)]
pub enum Item<'a> {
    /// No such key, field or member.
    Missing,
    /// Carried out.
    Ok,
    /// A count or position.
    Integer(i64),
    /// Yes or no.
    Boolean(bool),
    /// A stored value.
    Value(ValueRef<'a>),
    /// A container: its items follow (two per pair for maps and scored members).
    Container(Shape, usize),
    /// Failed.
    Error(Error),
    /// A short word.
    Status(&'a str),
}

/// A cursor over reply items. It checks what it reads, so clients use it on bytes from the network.
#[derive(Debug)]
pub struct ReplyReader<'a> {
    reader: Reader<'a>,
}

impl<'a> ReplyReader<'a> {
    /// Starts at the first item.
    pub fn new(bytes: &'a [u8]) -> ReplyReader<'a> {
        ReplyReader { reader: Reader::new(bytes) }
    }

    /// Whether every item was read.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.reader.rest().is_empty()
    }

    /// The bytes that were not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.reader.rest()
    }

    /// Reads the next item; a container's items come with the next calls. Not an iterator: the end is an error.
    #[inline]
    pub fn item(&mut self) -> Result<Item<'a>> {
        let tag = *self.reader.rest().first().ok_or_else(|| Error::invalid("reply is cut short"))?;
        if tag < MISSING {
            return self.reader.value().map(Item::Value);
        }
        self.reader.byte()?;
        Ok(match tag {
            MISSING => Item::Missing,
            OK => Item::Ok,
            INTEGER => Item::Integer(self.reader.i64()?),
            BOOLEAN => Item::Boolean(self.yes_or_no()?),
            ARRAY => Item::Container(Shape::Array, self.count()?),
            MAP => Item::Container(Shape::Map, self.count()?),
            MEMBERS => Item::Container(Shape::Members, self.count()?),
            SCORED => Item::Container(Shape::Scored, self.count()?),
            ERROR => Item::Error(self.failure()?),
            STATUS => {
                let length = usize::from(self.reader.byte()?);
                Item::Status(self.text(length)?)
            }
            _ => return Err(Error::invalid("unknown reply item")),
        })
    }

    /// Reads the next item with everything inside it as one owned [`Reply`].
    pub fn reply(&mut self) -> Result<Reply> {
        self.reply_at(REPLY_DEPTH)
    }

    /// Steps over the next item with everything inside it.
    pub fn skip(&mut self) -> Result<()> {
        let mut left: usize = 1;
        while left > 0 {
            left = left.saturating_sub(1);
            if let Item::Container(shape, count) = self.item()? {
                left = left.saturating_add(items_of(shape, count));
            }
        }
        Ok(())
    }

    fn reply_at(&mut self, depth: usize) -> Result<Reply> {
        Ok(match self.item()? {
            Item::Missing => Reply::Missing,
            Item::Ok => Reply::Ok,
            Item::Integer(number) => Reply::Integer(number),
            Item::Boolean(yes) => Reply::Boolean(yes),
            Item::Value(value) => Reply::Value(Value::from_ref(value)),
            Item::Status(text) => Reply::Status(text.into()),
            Item::Error(error) => Reply::Error(error),
            Item::Container(shape, count) => {
                let inner = depth.checked_sub(1).ok_or_else(|| Error::invalid("reply is nested too deep"))?;
                let mut items = Vec::new();
                for _ in 0..items_of(shape, count) {
                    items.push(self.reply_at(inner)?);
                }
                Reply::Container(shape, items)
            }
        })
    }

    fn yes_or_no(&mut self) -> Result<bool> {
        match self.reader.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Error::invalid("neither 0 nor 1 in a reply")),
        }
    }

    fn count(&mut self) -> Result<usize> {
        let bytes: [u8; 4] =
            self.reader.take(4)?.try_into().map_err(|_| Error::invalid("reply is cut short"))?;
        Ok(u32::from_le_bytes(bytes) as usize)
    }

    fn text(&mut self, length: usize) -> Result<&'a str> {
        std::str::from_utf8(self.reader.take(length)?).map_err(|_| Error::invalid("reply text is not UTF-8"))
    }

    fn failure(&mut self) -> Result<Error> {
        let code = self.reader.byte()?;
        let found = self.yes_or_no()?;
        let length = u16::from_le_bytes([self.reader.byte()?, self.reader.byte()?]);
        let message = self.text(usize::from(length))?.to_owned();
        // A newer server may know more kinds: the message still tells.
        let kind = ErrorKind::from_code(code).unwrap_or(ErrorKind::Unavailable);
        let error = Error::new(kind, message);
        if !found {
            return Ok(error);
        }
        let version = self.reader.i64()? as u64;
        let before = self.reader.rest();
        let current = if before.first() == Some(&MISSING) {
            self.reader.byte()?;
            None
        } else {
            self.reader.value()?;
            let used = before.len().saturating_sub(self.reader.rest().len());
            before.get(..used).map(Box::from)
        };
        Ok(error.with_found(Found { current, version }))
    }
}

/// How many items follow a container's head.
pub fn items_of(shape: Shape, count: usize) -> usize {
    match shape {
        Shape::Array | Shape::Members => count,
        Shape::Map | Shape::Scored => count.saturating_mul(2),
    }
}

/// An owned reply, for clients and tests.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// No such key, field or member.
    Missing,
    /// Carried out.
    Ok,
    /// A count or position.
    Integer(i64),
    /// Yes or no.
    Boolean(bool),
    /// A stored value.
    Value(Value),
    /// Several items; pairs stand flat.
    Container(Shape, Vec<Reply>),
    /// Failed.
    Error(Error),
    /// A short word.
    Status(Box<str>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_back_as_written() {
        let mut out = ReplyBuf::new();
        let open = out.open(Shape::Map);
        out.value(ValueRef::text("field"));
        out.integer(-7);
        out.value(ValueRef::text("other"));
        out.missing();
        out.close(open, 2);
        out.status("QUEUED");
        let mut reader = ReplyReader::new(out.as_bytes());
        let Reply::Container(Shape::Map, items) = reader.reply().unwrap() else { panic!("no map") };
        assert_eq!(items.len(), 4);
        assert_eq!(items[1], Reply::Integer(-7));
        assert_eq!(items[3], Reply::Missing);
        assert_eq!(reader.reply().unwrap(), Reply::Status("QUEUED".into()));
        assert!(reader.is_done());
        assert!(reader.item().is_err());
    }

    #[test]
    fn a_conflict_carries_what_was_found() {
        let mut out = ReplyBuf::new();
        let found = Found { current: Some(Box::from([2u8, 1, 0, 0, 0, 0, 0, 0, 0])), version: 9 };
        let error = Error::conflict("version differs", found);
        out.error(&error);
        assert_eq!(ReplyReader::new(out.as_bytes()).reply().unwrap(), Reply::Error(error));
    }

    #[test]
    fn an_error_inside_an_error_is_refused() {
        let one = [ERROR, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let nested: Vec<u8> = one.iter().copied().cycle().take(one.len() * 1_000_000).collect();
        assert!(ReplyReader::new(&nested).item().is_err());
        assert!(ReplyReader::new(&[BOOLEAN, 2]).item().is_err());
    }

    #[test]
    fn skip_steps_over_nested_containers() {
        let mut out = ReplyBuf::new();
        out.container(Shape::Array, 2);
        out.container(Shape::Scored, 1);
        out.value(ValueRef::text("m"));
        out.float(1.0);
        out.ok();
        out.boolean(true);
        let mut reader = ReplyReader::new(out.as_bytes());
        reader.skip().unwrap();
        assert_eq!(reader.item().unwrap(), Item::Boolean(true));
    }
}
