//! Reading one record of the cold tier, and walking the batches of a segment.

use std::io;
use std::sync::Arc;

use super::format::{
    self, Entry, FRONT_BYTES, FRONT_BYTES_MAX, Front, HEADER_BYTES, Input, KEYS, KEYS_FRONT_BYTES, KeyLine,
    KeyList, KeyState,
};
use super::segment::{Locator, Segment, UNSIZED, class_bytes, size_class};
use crate::record::{self, HEAD_BYTES, Position, Record};

/// Why a cold entry could not be read.
#[derive(Clone, Debug)]
pub enum ReadError {
    /// The disk says no.
    Disk(Arc<io::Error>),
    /// What stands there is not the entry that was written.
    Damaged,
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => ReadError::Damaged,
            _ => ReadError::Disk(Arc::new(error)),
        }
    }
}

/// How much of a record is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// What stands in front of its value.
    Front,
    /// All of it.
    Whole,
}

/// A record that can be read; holds its segment open.
#[derive(Clone)]
pub struct Source {
    pub(super) segment: Arc<Segment>,
    at: Locator,
}

/// What bytes that were read are.
pub(super) enum Verdict {
    Fetched(Fetched),
    /// The beginning of so many.
    Short(u64),
}

impl Source {
    pub(super) fn new(segment: Arc<Segment>, at: Locator) -> Source {
        Source { segment, at }
    }

    /// The place.
    pub fn locator(&self) -> Locator {
        self.at
    }

    /// Where the record starts in its segment.
    pub(super) fn offset(&self) -> u64 {
        u64::from(self.at.offset)
    }

    /// Reads and checks the record. Blocks: to be called without any lock.
    pub fn read(&self, part: Part) -> Result<Fetched, ReadError> {
        let bytes = read_bytes(&self.segment, self.offset(), self.first_bytes(part))?;
        self.complete(bytes, part)
    }

    /// Whether its length is known only from the record itself.
    pub fn is_unsized(&self) -> bool {
        self.at.class == UNSIZED
    }

    /// How many bytes the record has at most, unless it is unsized.
    pub fn most_bytes(&self) -> u64 {
        class_bytes(self.at.class)
    }

    /// The length of a record that [`Source::is_unsized`], as it says itself. Blocks.
    pub(super) fn measure(&self) -> Result<u64, ReadError> {
        let head = read_bytes(&self.segment, self.offset(), self.first_bytes(Part::Whole))?;
        match self.judge(head, Part::Whole)? {
            Verdict::Short(total) => Ok(total),
            Verdict::Fetched(_) => Err(ReadError::Damaged),
        }
    }

    /// How many bytes to read first. Most records end before.
    pub(super) fn first_bytes(&self, part: Part) -> u64 {
        let wanted = match part {
            Part::Front => FRONT_BYTES.min(class_bytes(self.at.class)),
            Part::Whole if self.is_unsized() => HEAD_BYTES as u64,
            Part::Whole => class_bytes(self.at.class),
        };
        wanted.min(self.bytes_left())
    }

    fn bytes_left(&self) -> u64 {
        self.segment.end().saturating_sub(self.offset())
    }

    /// The record that starts with these bytes; what they lack is read.
    pub(super) fn complete(&self, bytes: Vec<u8>, part: Part) -> Result<Fetched, ReadError> {
        let total = match self.judge(bytes, part)? {
            Verdict::Fetched(fetched) => return Ok(fetched),
            Verdict::Short(total) => total,
        };
        match self.judge(read_bytes(&self.segment, self.offset(), total)?, part)? {
            Verdict::Fetched(fetched) => Ok(fetched),
            Verdict::Short(_) => Err(ReadError::Damaged),
        }
    }

    /// Looks at bytes that were read from the start of the record.
    pub(super) fn judge(&self, mut bytes: Vec<u8>, part: Part) -> Result<Verdict, ReadError> {
        let at = Position { segment: self.segment.id, offset: self.offset() };
        let total = match part {
            Part::Front => format::front_bytes(&bytes).filter(|total| *total <= FRONT_BYTES_MAX),
            Part::Whole => record::total_bytes(&bytes).map(|total| total as u64),
        };
        let total = total.filter(|total| *total <= self.bytes_left()).ok_or(ReadError::Damaged)?;
        if total > bytes.len() as u64 {
            let may_go_on = part == Part::Front || self.is_unsized() && size_class(total) == UNSIZED;
            return if may_go_on { Ok(Verdict::Short(total)) } else { Err(ReadError::Damaged) };
        }
        let is_whole = match part {
            Part::Front => format::front(&bytes, at).is_some(),
            Part::Whole => entry_at(&bytes, at).is_some(),
        };
        bytes.truncate(usize::try_from(total).unwrap_or(usize::MAX));
        if is_whole { Ok(Verdict::Fetched(Fetched { bytes })) } else { Err(ReadError::Damaged) }
    }
}

/// The entry at the start of bytes that were read from this place. `None` if it is no such thing.
pub(super) fn entry_at(bytes: &[u8], at: Position) -> Option<Entry<'_>> {
    let total = record::read(bytes, at)?.total_bytes();
    format::entry(bytes.get(..total)?)
}

/// An entry that was read, or what stands in front of its value; its checksum holds.
#[derive(Debug)]
pub struct Fetched {
    bytes: Vec<u8>,
}

impl Fetched {
    /// The entry of this key. `None` if it is the entry of another key.
    pub fn entry(&self, namespace: u8, key: &[u8]) -> Option<Entry<'_>> {
        self.any_entry().filter(|entry| entry.front.key == key && entry.front.namespace == namespace)
    }

    /// The entry, of whatever key. `None` if only its front was read.
    pub fn any_entry(&self) -> Option<Entry<'_>> {
        format::entry(&self.bytes)
    }

    /// What stands in front of the value.
    pub fn front(&self) -> Option<Front<'_>> {
        format::split(&self.bytes).map(|(front, _)| front)
    }

    /// All bytes of the record; the value is their end.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// A copy of them.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }
}

pub(super) fn read_bytes(segment: &Segment, offset: u64, count: u64) -> Result<Vec<u8>, ReadError> {
    let count = usize::try_from(count).map_err(|_| ReadError::Damaged)?;
    let mut bytes = vec![0; count];
    segment.file.read_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// The keys of one batch, and where its entries stand.
pub(super) struct Keys {
    record: Vec<u8>,
    at: Position,
    /// Where the entries start.
    pub(super) entries_at: u64,
    /// Where the batch ends.
    pub(super) end: u64,
}

impl Keys {
    /// Whether it has neither entries nor tombstones.
    pub(super) fn is_empty(&self) -> bool {
        self.record.len() == HEAD_BYTES.saturating_add(KEYS_FRONT_BYTES)
    }

    /// Writes the record where it stands.
    pub(super) fn write_again(&self, segment: &Segment) -> io::Result<()> {
        segment.file.write_at(&self.record, self.at.offset)
    }

    /// The lines with the place of each entry. `None` stands for a line that can't be read: a writer's mistake.
    pub(super) fn lines(&self, slot: u16) -> Option<Vec<(KeyLine, Option<Locator>)>> {
        let payload = record::read(&self.record, self.at)?.payload;
        let mut input = Input(payload.get(8..)?);
        let mut items = input.u32()?;
        let (mut list, mut offset, mut lines) = (KeyList::default(), self.entries_at, Vec::new());
        while items > 0 {
            let line = list.read(&mut input, &mut items)?;
            let locator = match line.what {
                KeyState::Entry { bytes, .. } => {
                    let at = Locator { slot, offset: u32::try_from(offset).ok()?, class: size_class(bytes) };
                    offset = offset.checked_add(bytes)?;
                    Some(at)
                }
                KeyState::Dead => None,
            };
            lines.push((line, locator));
        }
        (offset == self.end && input.0.is_empty()).then_some(lines)
    }
}

/// What stands at an offset of a segment.
pub(super) enum Found {
    Batch(Keys),
    /// Nothing: the segment ends here.
    End,
    /// Something that is no batch.
    Damage,
}

/// The batch at this offset of a file of `size` bytes.
pub(super) fn batch_at(segment: &Segment, offset: u64, size: u64) -> Result<Found, ReadError> {
    let left = size.saturating_sub(offset);
    if left == 0 {
        return Ok(Found::End);
    }
    if left < (HEAD_BYTES + KEYS_FRONT_BYTES) as u64 {
        return Ok(Found::Damage);
    }
    let front = read_bytes(segment, offset, HEAD_BYTES as u64)?;
    let total = record::total_bytes(&front).map_or(u64::MAX, |total| total as u64);
    if total > left {
        return Ok(Found::Damage);
    }
    let bytes = read_bytes(segment, offset, total)?;
    let at = Position { segment: segment.id, offset };
    let entry_bytes = match record::read(&bytes, at) {
        Some(Record { head, payload }) if head.kind == KEYS => Input(payload).u64(),
        _ => None,
    };
    let entries_at = offset.saturating_add(total);
    let end = entry_bytes.and_then(|bytes| entries_at.checked_add(bytes)).filter(|end| *end <= size);
    Ok(end.map_or(Found::Damage, |end| Found::Batch(Keys { record: bytes, at, entries_at, end })))
}

/// The entries of a batch, as one piece.
pub(super) fn entries_of(segment: &Segment, keys: &Keys) -> Result<Vec<u8>, ReadError> {
    read_bytes(segment, keys.entries_at, keys.end.saturating_sub(keys.entries_at))
}

/// The batches of a segment that was written here, from the first on.
pub(super) fn batches(segment: &Segment) -> impl Iterator<Item = Result<Keys, ReadError>> {
    batches_from(segment, HEADER_BYTES as u64)
}

/// The same from the end of one of them on.
pub(super) fn batches_from(
    segment: &Segment,
    mut offset: u64,
) -> impl Iterator<Item = Result<Keys, ReadError>> {
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let found = match batch_at(segment, offset, segment.end()) {
            Ok(Found::Batch(keys)) => {
                offset = keys.end;
                return Some(Ok(keys));
            }
            Ok(Found::End) => None,
            Ok(Found::Damage) => Some(Err(ReadError::Damaged)),
            Err(error) => Some(Err(error)),
        };
        is_over = true;
        found
    })
}
