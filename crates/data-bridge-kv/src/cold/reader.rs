//! Reading one record of the cold tier, and walking the batches of a segment.

use std::io;
use std::sync::Arc;

use super::format::{self, Entry, HEADER_BYTES, Input, KEYS, KEYS_FRONT_BYTES, KeyLine, KeyList, KeyState};
use super::segment::{Locator, Segment, UNSIZED, class_bytes, size_class};
use crate::record::{self, HEAD_BYTES, Position, Record};

/// Why a cold entry could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// The disk says no.
    Disk(io::Error),
    /// What stands there is not the entry that was written.
    Damaged,
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => ReadError::Damaged,
            _ => ReadError::Disk(error),
        }
    }
}

/// A record that can be read; holds its segment open.
#[derive(Clone)]
pub struct Source {
    segment: Arc<Segment>,
    at: Locator,
}

impl Source {
    pub(super) fn new(segment: Arc<Segment>, at: Locator) -> Source {
        Source { segment, at }
    }

    /// The place.
    pub fn locator(&self) -> Locator {
        self.at
    }

    /// Reads and checks the record. Blocks: to be called without any lock.
    pub fn read(&self) -> Result<Fetched, ReadError> {
        let (offset, left, wanted) = self.range();
        let mut bytes = read_bytes(&self.segment, offset, wanted)?;
        if self.at.class == UNSIZED {
            let total = record::total_bytes(&bytes).ok_or(ReadError::Damaged)? as u64;
            if total > left || size_class(total) != UNSIZED {
                return Err(ReadError::Damaged);
            }
            bytes = read_bytes(&self.segment, offset, total)?;
        }
        self.check(bytes)
    }

    /// The same, if the system has the record in memory; `None` if the disk would have to be waited for.
    pub fn read_at_once(&self) -> Result<Option<Fetched>, ReadError> {
        let (offset, _, wanted) = self.range();
        if self.at.class == UNSIZED {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(wanted).map_err(|_| ReadError::Damaged)?];
        if !self.segment.file.read_cached_at(&mut bytes, offset)? {
            return Ok(None);
        }
        self.check(bytes).map(Some)
    }

    /// Where the record starts, how many bytes there are from there, and how many to read first.
    fn range(&self) -> (u64, u64, u64) {
        let offset = u64::from(self.at.offset);
        let left = self.segment.end().saturating_sub(offset);
        let wanted = if self.at.class == UNSIZED { HEAD_BYTES as u64 } else { class_bytes(self.at.class) };
        (offset, left, wanted.min(left))
    }

    fn check(&self, mut bytes: Vec<u8>) -> Result<Fetched, ReadError> {
        let at = Position { segment: self.segment.id, offset: u64::from(self.at.offset) };
        let total = record::read(&bytes, at).filter(|record| format::entry(*record).is_some());
        let total = total.ok_or(ReadError::Damaged)?.total_bytes();
        bytes.truncate(total);
        Ok(Fetched { record: bytes, at })
    }
}

/// An entry that was read and whose checksum holds.
pub struct Fetched {
    record: Vec<u8>,
    at: Position,
}

impl Fetched {
    /// The entry of this key. `None` if it is the entry of another key.
    pub fn entry(&self, namespace: u8, key: &[u8]) -> Option<Entry<'_>> {
        self.any_entry().filter(|entry| entry.key == key && entry.namespace == namespace)
    }

    /// The entry, of whatever key.
    pub fn any_entry(&self) -> Option<Entry<'_>> {
        format::entry(record::read(&self.record, self.at)?)
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.record.capacity()
    }
}

fn read_bytes(segment: &Segment, offset: u64, count: u64) -> Result<Vec<u8>, ReadError> {
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
