//! The bytes of a segment of the cold tier.
//!
//! ```text
//! segment  := header batch*                         file cold-<class>-<number, 16 hex digits>
//! header   := record of kind 1: magic "DBKVCOLD", format u16, class u8, hasher's fingerprint u64
//! batch    := keys entry*                           written as one; nothing follows a batch that failed
//! keys     := record of kind 2: bytes of the entries u64, number of (space | key | dead) u32, and those
//! space    := 0x80 | namespace, generation varint   the keys behind it belong to that namespace
//! key      := kind | 0x20 if deadline, identity 12, version signed varint, bytes of the entry varint,
//!             [deadline signed varint]              versions and deadlines as difference to the one before in the batch
//! dead     := 0x40, identity 12, version            a tombstone; no entry stands for it
//! entry    := record of kind 3, number = version: bytes of the key u16 | 0x8000 if deadline, [deadline u64], key,
//!             checksum u32 of the record up to here as record.rs makes it, value
//! varint   := LEB128; a signed one zigzag           integers little endian, deadlines in unix ms
//! ```
//! An entry tells everything about itself, so that reading one needs nothing else. What stands in front of its value has a
//! checksum of its own, so that a name can be read and trusted without the value behind it. The keys in front of each batch tell
//! the same in an eighth of the bytes, so that an index is rebuilt without reading values.

use data_bridge_kv_model::limits::{KEY_BYTES, NAMESPACES};

use crate::hash::stable::KeyId;
use crate::record::{self, Head, Position};

pub(super) const MAGIC: &[u8; 8] = b"DBKVCOLD";
pub(super) const FORMAT: u16 = 1;

/// Kinds of records.
pub(super) const HEADER: u8 = 1;
pub(super) const KEYS: u8 = 2;
pub(super) const ENTRY: u8 = 3;

const KIND_MASK: u8 = 0x1f;
const WITH_DEADLINE: u8 = 0x20;
const DEAD: u8 = 0x40;
const SPACE: u8 = 0x80;
const ENTRY_WITH_DEADLINE: u16 = 0x8000;
/// Payload of a keys record before its list.
pub(super) const KEYS_FRONT_BYTES: usize = 12;

/// What kind of namespaces a log serves; they never share a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Overflow of caches: may be emptied at any time.
    Cache,
    /// Entries that must not get lost.
    Task,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Class::Cache => "cache",
            Class::Task => "task",
        }
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Class::Cache => 0,
            Class::Task => 1,
        }
    }

    /// The file of a segment.
    pub(super) fn file_name(self, id: u64) -> String {
        format!("cold-{}-{id:016x}", self.name())
    }

    /// The file of the index.
    pub(super) fn index_name(self) -> String {
        format!("cold-{}-index", self.name())
    }

    /// The same while it is written.
    pub(super) fn index_aside_name(self) -> String {
        format!("cold-{}-index.new", self.name())
    }

    /// Whether a file belongs to this class: a segment or the index.
    pub fn owns(self, file_name: &str) -> bool {
        self.segment_id(file_name).is_some() || file_name == self.index_name()
    }

    /// The number of the segment in a file of this name; `None` if it is none of this class.
    pub(super) fn segment_id(self, file_name: &str) -> Option<u64> {
        let digits = file_name.strip_prefix("cold-")?.strip_prefix(self.name())?.strip_prefix('-')?;
        u64::from_str_radix(digits, 16).ok().filter(|id| self.file_name(*id) == file_name)
    }
}

/// The header of a segment, to be sealed.
pub(super) fn header(class: Class, id: u64, fingerprint: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    record::begin(Head { number: id, generation: 0, namespace: 0, kind: HEADER }, &mut bytes);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.push(class.number());
    bytes.extend_from_slice(&fingerprint.to_le_bytes());
    bytes
}

/// Bytes of a header with its envelope.
pub(super) const HEADER_BYTES: usize = record::HEAD_BYTES + 8 + 2 + 1 + 8;

/// What is wrong with a header whose checksum holds.
pub(super) enum Foreign {
    Format,
    Class,
    Secret,
}

/// Checks what a header says; its secret only where that is known.
pub(super) fn check_header(payload: &[u8], class: Class, fingerprint: Option<u64>) -> Result<(), Foreign> {
    let mut input = Input(payload);
    if input.take(MAGIC.len()) != Some(MAGIC) || input.take(2) != Some(&FORMAT.to_le_bytes()) {
        return Err(Foreign::Format);
    }
    if input.take(1) != Some(&[class.number()]) {
        return Err(Foreign::Class);
    }
    let found = input.u64();
    let is_ours = fingerprint.is_none() || found == fingerprint;
    if found.is_some() && is_ours && input.0.is_empty() { Ok(()) } else { Err(Foreign::Secret) }
}

/// A batch of nothing, which closes a segment.
pub(super) fn empty_batch(at: Position) -> Vec<u8> {
    let mut bytes = Vec::new();
    record::begin(Head { number: 0, generation: 0, namespace: 0, kind: KEYS }, &mut bytes);
    bytes.extend_from_slice(&[0; KEYS_FRONT_BYTES]);
    record::finish(&mut bytes);
    record::seal(&mut bytes, at);
    bytes
}

/// What stands in front of an entry's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Front<'a> {
    /// The namespace.
    pub namespace: u8,
    /// Its generation when the entry was written.
    pub generation: u32,
    /// The version.
    pub version: u64,
    /// Unix ms.
    pub deadline: Option<u64>,
    /// The key.
    pub key: &'a [u8],
}

/// A cold entry, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What stands in front of the value.
    pub front: Front<'a>,
    /// The value in the codec.
    pub value: &'a [u8],
}

/// Bytes that hold the front of an entry with a key of some 190 bytes.
pub(super) const FRONT_BYTES: u64 = 224;
/// Bytes that hold the front of any entry.
pub(super) const FRONT_BYTES_MAX: u64 = (record::HEAD_BYTES + 2 + 8 + KEY_BYTES + CHECKSUM_BYTES) as u64;
const CHECKSUM_BYTES: usize = 4;

/// Starts an entry; the value is appended behind it, then [`record::finish`] and [`seal_entry`] called.
pub(super) fn begin_entry(head: Head, deadline: Option<u64>, key: &[u8], out: &mut Vec<u8>) {
    record::begin(Head { kind: ENTRY, ..head }, out);
    let length = u16::try_from(key.len().min(KEY_BYTES)).unwrap_or(0);
    let flag = if deadline.is_some() { ENTRY_WITH_DEADLINE } else { 0 };
    out.extend_from_slice(&(length | flag).to_le_bytes());
    if let Some(deadline) = deadline {
        out.extend_from_slice(&deadline.to_le_bytes());
    }
    out.extend_from_slice(key);
    out.extend_from_slice(&[0; CHECKSUM_BYTES]);
}

/// Gives a finished entry the checksums of the place where it is about to be written.
pub(super) fn seal_entry(entry: &mut [u8], at: Position) {
    let end = split(entry).map(|(_, end)| end);
    if let Some(checksum) = end.and_then(|end| record::checksum(entry.get(..end)?, at))
        && let Some(place) = end.and_then(|end| entry.get_mut(end..)?.first_chunk_mut())
    {
        *place = checksum.to_le_bytes();
    }
    record::seal(entry, at);
}

/// What stands in front of the value of an entry that starts here, and where it ends: its checksum stands there. Not to be
/// trusted before that, or the record's, was compared.
pub(super) fn split(bytes: &[u8]) -> Option<(Front<'_>, usize)> {
    let Head { number: version, generation, namespace, kind } = record::head(bytes)?;
    let mut input = Input(bytes.get(record::HEAD_BYTES..)?);
    let flags = u16::from_le_bytes(input.take(2)?.try_into().ok()?);
    let deadline = if flags & ENTRY_WITH_DEADLINE == 0 { None } else { Some(input.u64()?) };
    let key = input.take(usize::from(flags & !ENTRY_WITH_DEADLINE))?;
    let end = bytes.len().checked_sub(input.0.len())?;
    (kind == ENTRY).then_some((Front { namespace, generation, version, deadline, key }, end))
}

/// How many bytes the front of an entry says that it takes with its checksum. Not to be trusted.
pub(super) fn front_bytes(bytes: &[u8]) -> Option<u64> {
    let flags = u16::from_le_bytes(*bytes.get(record::HEAD_BYTES..)?.first_chunk()?);
    let deadline = if flags & ENTRY_WITH_DEADLINE == 0 { 0 } else { 8 };
    let rest = u64::from(flags & !ENTRY_WITH_DEADLINE).checked_add(deadline)?;
    rest.checked_add((record::HEAD_BYTES + 2 + CHECKSUM_BYTES) as u64)
}

/// The front of the entry at the start of bytes that were read from this place. `None` if it is no such thing.
pub(super) fn front(bytes: &[u8], at: Position) -> Option<Front<'_>> {
    let (front, end) = split(bytes)?;
    let stored = u32::from_le_bytes(*bytes.get(end..)?.first_chunk()?);
    (record::checksum(bytes.get(..end)?, at)? == stored).then_some(front)
}

/// The entry in a record, from its first byte on, whose checksum holds. `None` if it is another kind of record.
pub(super) fn entry(record: &[u8]) -> Option<Entry<'_>> {
    let (front, end) = split(record)?;
    let value = record.get(end.checked_add(CHECKSUM_BYTES)?..).filter(|value| !value.is_empty())?;
    Some(Entry { front, value })
}

/// What the keys of a batch say of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyLine {
    pub(super) namespace: u8,
    pub(super) generation: u32,
    pub(super) id: KeyId,
    pub(super) version: u64,
    pub(super) what: KeyState,
}

/// Whether there is an entry, or the end of all older ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyState {
    Entry { kind: u8, bytes: u64, deadline: Option<u64> },
    Dead,
}

/// Writes and reads the list of a keys record: both remember the same things of the line before.
#[derive(Default)]
pub(super) struct KeyList {
    space: Option<(u8, u32)>,
    version: u64,
    deadline: u64,
}

impl KeyList {
    /// Appends a line; answers how many items it took.
    pub(super) fn write(&mut self, line: &KeyLine, out: &mut Vec<u8>) -> u32 {
        let space = (line.namespace, line.generation);
        let is_new = self.space.replace(space) != Some(space);
        if is_new {
            out.push(SPACE | line.namespace);
            put_varint(u64::from(line.generation), out);
        }
        let tag = match line.what {
            KeyState::Entry { kind, deadline: None, .. } => kind & KIND_MASK,
            KeyState::Entry { kind, deadline: Some(_), .. } => kind & KIND_MASK | WITH_DEADLINE,
            KeyState::Dead => DEAD,
        };
        out.push(tag);
        out.extend_from_slice(&line.id.to_bytes());
        put_difference(&mut self.version, line.version, out);
        if let KeyState::Entry { bytes, deadline, .. } = line.what {
            put_varint(bytes, out);
            if let Some(deadline) = deadline {
                put_difference(&mut self.deadline, deadline, out);
            }
        }
        if is_new { 2 } else { 1 }
    }

    /// The next line. `None` where the bytes are no list: their checksum held, so only a writer's mistake gives that.
    pub(super) fn read(&mut self, input: &mut Input<'_>, items: &mut u32) -> Option<KeyLine> {
        loop {
            *items = items.checked_sub(1)?;
            let tag = *input.take(1)?.first()?;
            if tag & SPACE != 0 {
                let namespace = tag & !SPACE;
                if usize::from(namespace) >= NAMESPACES {
                    return None;
                }
                self.space = Some((namespace, u32::try_from(input.varint()?).ok()?));
                continue;
            }
            let (namespace, generation) = self.space?;
            let id = KeyId::from_bytes(*input.take(KeyId::BYTES)?.first_chunk()?);
            let version = input.difference(&mut self.version)?;
            let what = if tag == DEAD {
                KeyState::Dead
            } else {
                let bytes = input.varint()?;
                let with_deadline = tag & WITH_DEADLINE != 0;
                let deadline = if with_deadline { Some(input.difference(&mut self.deadline)?) } else { None };
                KeyState::Entry { kind: tag & KIND_MASK, bytes, deadline }
            };
            return Some(KeyLine { namespace, generation, id, version, what });
        }
    }
}

/// Bytes that are read from the front.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn difference(&mut self, last: &mut u64) -> Option<u64> {
        let coded = self.varint()?;
        let difference = (coded >> 1) ^ (coded & 1).wrapping_neg();
        *last = last.wrapping_add(difference);
        Some(*last)
    }
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the signed difference to the last one, small ones short.
fn put_difference(last: &mut u64, value: u64, out: &mut Vec<u8>) {
    let difference = value.wrapping_sub(*last);
    put_varint(difference << 1 ^ (difference >> 63).wrapping_neg(), out);
    *last = value;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::KeyHash;

    #[test]
    fn key_lines_come_back() {
        let line = |namespace, n: u64, what| KeyLine {
            namespace,
            generation: u32::from(namespace) * 300,
            id: KeyId::new(KeyHash::from_bits(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)), n as u32),
            version: n,
            what,
        };
        let entry = |bytes, deadline| KeyState::Entry { kind: 20, bytes, deadline };
        let lines = [
            line(0, u64::MAX, entry(1, None)),
            line(0, 0, entry(u64::from(u32::MAX), Some(u64::MAX))),
            line(0, 1 << 63, KeyState::Dead),
            line(15, 7, entry(200, Some(0))),
            line(0, 6, KeyState::Dead),
        ];
        let (mut bytes, mut items, mut writer) = (Vec::new(), 0, KeyList::default());
        lines.iter().for_each(|line| items += writer.write(line, &mut bytes));
        let (mut reader, mut input) = (KeyList::default(), Input(&bytes));
        let mut found = Vec::new();
        while items > 0 {
            found.push(reader.read(&mut input, &mut items).unwrap());
        }
        assert_eq!((found.as_slice(), input.0.len()), (&lines[..], 0));
    }

    #[test]
    fn segments_are_known_by_their_names() {
        assert_eq!(Class::Task.file_name(0x1f), "cold-task-000000000000001f");
        assert_eq!(Class::Task.segment_id("cold-task-000000000000001f"), Some(0x1f));
        for other in ["cold-cache-000000000000001f", "cold-task-1f", "cold-task-index", "manifest"] {
            assert_eq!(Class::Task.segment_id(other), None, "{other}");
        }
    }
}
