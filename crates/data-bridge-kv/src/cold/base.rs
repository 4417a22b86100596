//! The index of a durable log as a file, so that opening need not read the keys of every segment.
//!
//! ```text
//! base     := head part*                            file cold-<class>-index
//! head     := record of kind 4 at segment 0, offset 0, number = that of the base: magic "DBKVBASE", format u16, class u8,
//!             hasher's fingerprint u64, shard bits u8, mark u64, number of segments u32, of parts u32, and those
//! segment  := slot u16, id u64, end u64, weight of its records u64, tombstones u64, whether it is closed u8
//! part     := offset of its record u64, bytes of it u64, namespace u8, shard u32
//! record   := of kind 5 at segment 0, same number: (identity 12, spot 12, as in `index`)*, ascending
//! ```
//! It says where everything stood that was in the segments up to their ends when it was begun; the mark is the owner's. What
//! was appended behind those ends is read when the log is opened, and each last word there stands above the base. So an old
//! base serves as well as a new one, it only leaves more to be read. One that can't be used is removed when the log is opened:
//! segments of later numbers than it has are those that came after it. It is written aside, synced and renamed. Parts are
//! loaded when their shards are needed (`parts.rs`).

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use super::format::Input;
use super::index::{ENTRY_BYTES, Index, Spot, high_of};
use super::parts::{Line, index_of};
use super::recovery::OpenError;
use super::writer::{Log, Policy};
use crate::disk::{Disk, File};
use crate::hash::stable::KeyId;
use crate::record::{self, HEAD_BYTES, Head, Position};

const MAGIC: &[u8; 8] = b"DBKVBASE";
const FORMAT: u16 = 1;
const HEAD: u8 = 4;
const PART: u8 = 5;
const FRONT_BYTES: usize = HEAD_BYTES + 8 + 2 + 1 + 8 + 1 + 8 + 4 + 4;
const SEGMENT_BYTES: usize = 2 + 8 + 8 + 8 + 8 + 1;
const PART_BYTES: usize = 8 + 8 + 1 + 4;

/// A base that was read: its head; the parts are still on disk.
pub(super) struct Base {
    file: Box<dyn File>,
    pub(super) number: u64,
    pub(super) shard_bits: u8,
    pub(super) mark: u64,
    pub(super) covered: Vec<Covered>,
    pub(super) parts: Vec<Part>,
}

/// A segment as far as a base knows it.
#[derive(Clone, Copy)]
pub(super) struct Covered {
    pub(super) slot: u16,
    pub(super) id: u64,
    pub(super) end: u64,
    pub(super) written: u64,
    pub(super) tombstones: u64,
    pub(super) is_closed: bool,
}

/// Where a base has the keys of a shard.
#[derive(Clone, Copy)]
pub(super) struct Part {
    offset: u64,
    bytes: u64,
    pub(super) namespace: u8,
    pub(super) shard: u32,
}

impl Part {
    /// How many keys it has.
    pub(super) fn keys(self) -> u64 {
        self.bytes.saturating_sub(HEAD_BYTES as u64).checked_div(ENTRY_BYTES as u64).unwrap_or(0)
    }
}

impl Base {
    /// What it knows of a segment.
    pub(super) fn covered(&self, id: u64) -> Option<&Covered> {
        self.covered.iter().find(|covered| covered.id == id)
    }

    /// The base in a directory, if there is one that can be used. One of an unknown format may mean what this version would
    /// overlook: it is refused.
    pub(super) fn read(disk: &dyn Disk, policy: &Policy) -> Result<Option<Base>, OpenError> {
        let mut is_unknown = false;
        let base = Base::known(disk, policy, &mut is_unknown);
        let (file, why) = (policy.class.index_name(), record::UNKNOWN_FORMAT);
        if is_unknown { Err(OpenError::Foreign { file, why }) } else { Ok(base) }
    }

    fn known(disk: &dyn Disk, policy: &Policy, is_unknown: &mut bool) -> Option<Base> {
        let file = disk.open(&policy.class.index_name()).ok()?;
        let size = file.size().ok()?;
        let mut front = [0; HEAD_BYTES];
        file.read_at(&mut front, 0).ok()?;
        let total = record::total_bytes(&front).filter(|total| *total as u64 <= size)?;
        let bytes = read(&*file, 0, total as u64)?;
        let head = record::read(&bytes, at(0)).filter(|record| record.head.kind == HEAD)?;
        let mut input = Input(head.payload);
        let is_base = input.take(MAGIC.len()) == Some(MAGIC);
        *is_unknown = is_base && input.take(2) != Some(&FORMAT.to_le_bytes());
        let is_ours = is_base
            && !*is_unknown
            && input.take(1) == Some(&[policy.class.number()])
            && input.u64() == Some(policy.fingerprint);
        if !is_ours {
            return None;
        }
        let shard_bits = *input.take(1)?.first()?;
        let (mark, segments, parts) = (input.u64()?, input.u32()?, input.u32()?);
        let covered = (0..segments).map(|_| covered(&mut input)).collect::<Option<_>>()?;
        let parts = (0..parts).map(|_| part(&mut input)).collect::<Option<_>>()?;
        let number = head.head.number;
        input.0.is_empty().then_some(Base { file, number, shard_bits, mark, covered, parts })
    }

    /// Whether a segment was removed before the base was begun, and is there again because that was not made to last.
    pub(super) fn has_outlived(&self, id: u64) -> bool {
        id < self.number && self.covered(id).is_none()
    }

    /// The keys of a part whose record this is, ascending. `None` if it is damaged.
    fn entries<'b>(&self, part: Part, bytes: &'b [u8]) -> Option<&'b [[u8; ENTRY_BYTES]]> {
        let record = record::read(bytes, at(part.offset))?;
        let Head { number, namespace, kind, .. } = record.head;
        let is_it = (number, namespace, kind) == (self.number, part.namespace, PART);
        let (entries, rest) = record.payload.as_chunks();
        let shard = |entry| high_of(entry).shard(self.shard_bits.into()) == part.shard as usize;
        let is_whole = is_it && rest.is_empty() && entries.iter().all(shard);
        (is_whole && entries.is_sorted_by(|one, other| identity(one) < identity(other))).then_some(entries)
    }

    /// Reads a part and builds the index of its shard, beside what is live in it by slot; `None` if it is damaged. `ends`: by
    /// slot, where the segments end that may be meant. A `buffer` that was used has its pages from the system already.
    pub(super) fn load(
        &self,
        part: Part,
        lines: Vec<Line>,
        ends: &[u64],
        buffer: &mut Vec<u8>,
    ) -> Option<(Index, Vec<u64>)> {
        read_into(&*self.file, part.offset, part.bytes, buffer)?;
        Some(index_of(self.entries(part, buffer)?, lines, ends))
    }
}

fn at(offset: u64) -> Position {
    Position { segment: 0, offset }
}

fn read(file: &dyn File, offset: u64, count: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    read_into(file, offset, count, &mut bytes)?;
    Some(bytes)
}

fn read_into(file: &dyn File, offset: u64, count: u64, bytes: &mut Vec<u8>) -> Option<()> {
    let is_there = offset.checked_add(count)? <= file.size().ok()?;
    bytes.resize(usize::try_from(count).ok().filter(|_| is_there)?, 0);
    file.read_at(bytes, offset).ok()
}

fn covered(input: &mut Input<'_>) -> Option<Covered> {
    let slot = u16::from_le_bytes(*input.take(2)?.first_chunk()?);
    let (id, end, written, tombstones) = (input.u64()?, input.u64()?, input.u64()?, input.u64()?);
    let is_closed = *input.take(1)?.first()? != 0;
    Some(Covered { slot, id, end, written, tombstones, is_closed })
}

fn part(input: &mut Input<'_>) -> Option<Part> {
    let (offset, bytes, namespace) = (input.u64()?, input.u64()?, *input.take(1)?.first()?);
    Some(Part { offset, bytes, namespace, shard: input.u32()? })
}

impl Log {
    /// How many items were appended since the base was begun; more than any log has if there is none.
    pub fn unbased(&self) -> u64 {
        self.unbased.load(Relaxed)
    }

    /// Whether there is a base with this mark that tells everything that is in the log.
    pub fn is_based(&self, mark: u64) -> bool {
        self.unbased.load(Relaxed) == 0 && self.mark.load(Relaxed) == mark
    }

    /// Begins a base of so many parts. Until it is written or dropped, others may append; but no segment may be removed.
    pub fn begin_base(&self, shard_bits: u32, parts: usize) -> io::Result<NewBase<'_>> {
        let aside = self.policy.class.index_aside_name();
        match self.disk.remove(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.disk.create(&aside)?;
        let mut tail = self.tail.lock();
        tail.last_id = tail.last_id.saturating_add(1);
        self.is_frozen.store(true, Relaxed);
        let covered: Vec<Covered> = self.segments.by_age().iter().map(|segment| segment.covered()).collect();
        let head_bytes = FRONT_BYTES
            .saturating_add(covered.len().saturating_mul(SEGMENT_BYTES))
            .saturating_add(parts.saturating_mul(PART_BYTES));
        Ok(NewBase {
            log: self,
            file,
            number: tail.last_id,
            shard_bits: u8::try_from(shard_bits).unwrap_or(u8::MAX),
            covered,
            most: parts,
            parts: Vec::new(),
            end: head_bytes as u64,
            before: self.unbased.swap(0, Relaxed),
        })
    }
}

/// The identity of an entry, as a number that orders as it does.
fn identity(entry: &[u8; ENTRY_BYTES]) -> (u64, u32) {
    let low = entry.get(8..).and_then(<[u8]>::first_chunk).map_or(0, |low| u32::from_be_bytes(*low));
    (high_of(entry).bits(), low)
}

/// A base that is being written.
pub struct NewBase<'l> {
    log: &'l Log,
    file: Box<dyn File>,
    number: u64,
    shard_bits: u8,
    covered: Vec<Covered>,
    most: usize,
    parts: Vec<Part>,
    end: u64,
    /// What was not in the base before, for the case that this one fails.
    before: u64,
}

impl NewBase<'_> {
    /// Adds the keys of a shard, in any order; of several spots of a key the first is meant.
    pub fn put(&mut self, namespace: u8, shard: usize, mut entries: Vec<(KeyId, Spot)>) -> io::Result<()> {
        entries.sort_by_key(|(id, _)| *id);
        entries.dedup_by_key(|(id, _)| *id);
        let mut bytes =
            Vec::with_capacity(entries.len().saturating_mul(ENTRY_BYTES).saturating_add(HEAD_BYTES));
        record::begin(Head { number: self.number, generation: 0, namespace, kind: PART }, &mut bytes);
        for (id, spot) in entries {
            bytes.extend_from_slice(&id.to_bytes());
            bytes.extend_from_slice(&Spot { is_resident: false, ..spot }.to_bytes());
        }
        let offset = self.end;
        self.write(&mut bytes, offset)?;
        self.end = self.end.saturating_add(bytes.len() as u64);
        let shard = u32::try_from(shard).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.parts.push(Part { offset, bytes: bytes.len() as u64, namespace, shard });
        Ok(())
    }

    /// Lets the base be the one that is found from now on, with this mark.
    pub fn finish(mut self, mark: u64) -> io::Result<()> {
        if self.parts.len() != self.most {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let policy = self.log.policy();
        let mut head = Vec::new();
        record::begin(Head { number: self.number, generation: 0, namespace: 0, kind: HEAD }, &mut head);
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&FORMAT.to_le_bytes());
        head.push(policy.class.number());
        head.extend_from_slice(&policy.fingerprint.to_le_bytes());
        head.push(self.shard_bits);
        head.extend_from_slice(&mark.to_le_bytes());
        head.extend_from_slice(&(self.covered.len() as u32).to_le_bytes());
        head.extend_from_slice(&(self.parts.len() as u32).to_le_bytes());
        for Covered { slot, id, end, written, tombstones, is_closed } in &self.covered {
            head.extend_from_slice(&slot.to_le_bytes());
            [id, end, written, tombstones]
                .iter()
                .for_each(|part| head.extend_from_slice(&part.to_le_bytes()));
            head.push(u8::from(*is_closed));
        }
        for Part { offset, bytes, namespace, shard } in &self.parts {
            [offset, bytes].iter().for_each(|part| head.extend_from_slice(&part.to_le_bytes()));
            head.push(*namespace);
            head.extend_from_slice(&shard.to_le_bytes());
        }
        self.write(&mut head, 0)?;
        self.file.sync_data()?;
        let disk = &self.log.disk;
        disk.rename(&policy.class.index_aside_name(), &policy.class.index_name())?;
        disk.sync_names()?;
        self.before = 0;
        self.log.mark.store(mark, Relaxed);
        Ok(())
    }

    fn write(&self, record: &mut [u8], offset: u64) -> io::Result<()> {
        record::finish(record).ok_or(io::ErrorKind::InvalidInput)?;
        record::seal(record, at(offset));
        self.file.write_at(record, offset)
    }
}

impl Drop for NewBase<'_> {
    fn drop(&mut self) {
        self.log.unbased.fetch_add(self.before, Relaxed);
        self.log.is_frozen.store(false, Relaxed);
    }
}
