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
//! base serves as well as a new one, it only leaves more to be read. It is written aside, synced and renamed. Where a checksum
//! does not hold, or anything else is not as it should be, that part, or all, is built anew from the keys in the segments.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::sync_channel;

use super::format::{HEADER_BYTES, Input, KeyLine, KeyState};
use super::index::{ENTRY_BYTES, Index, Spot, high_of};
use super::recovery::OpenError;
use super::segment::Locator;
use super::writer::{Log, Policy};
use crate::disk::{Disk, File};
use crate::hash::stable::KeyId;
use crate::opening::{Opening, Stage};
use crate::record::{self, HEAD_BYTES, Head, Position};
use crate::sync::Mutex;

const MAGIC: &[u8; 8] = b"DBKVBASE";
const FORMAT: u16 = 1;
const HEAD: u8 = 4;
const PART: u8 = 5;
const FRONT_BYTES: usize = HEAD_BYTES + 8 + 2 + 1 + 8 + 1 + 8 + 4 + 4;
const SEGMENT_BYTES: usize = 2 + 8 + 8 + 8 + 8 + 1;
const PART_BYTES: usize = 8 + 8 + 1 + 4;
/// More items than any log has.
const NO_BASE: u64 = 1 << 62;
/// Parts of this many bytes together are read on all cores.
const LARGE_BYTES: u64 = 1 << 20;
/// A log is rebuilt in parts of two to this many bytes.
const REBUILT_BITS: u32 = 30;

/// A base that was read: its head; the parts are still on disk.
pub(super) struct Base {
    file: Box<dyn File>,
    pub(super) number: u64,
    shard_bits: u8,
    mark: u64,
    pub(super) covered: Vec<Covered>,
    parts: Vec<Part>,
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

#[derive(Clone, Copy)]
struct Part {
    offset: u64,
    bytes: u64,
    namespace: u8,
    shard: u32,
}

/// A shard: its namespace and number.
type Shard = (u8, usize);
/// What the keys of a batch say, and where the entry stands.
type Line = (KeyLine, Option<Locator>);

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

    /// Reads parts, on all cores if they are large, and hands over the index of each beside what is live in it by slot;
    /// `None` for a damaged part. `ends`: by slot, where the segments end that may be meant.
    fn load(
        &self,
        parts: Vec<(Part, Vec<Line>)>,
        ends: &[u64],
        mut found: impl FnMut(Part, Option<(Index, Vec<u64>)>),
    ) {
        // A buffer that was used has its pages from the system already.
        let load = |(part, lines): (Part, Vec<Line>), buffer: &mut Vec<u8>| {
            let is_read = read_into(&*self.file, part.offset, part.bytes, buffer);
            let entries = is_read.and_then(|()| self.entries(part, buffer));
            (part, entries.map(|entries| index_of(entries, lines, ends)))
        };
        let is_large = parts.iter().map(|(part, _)| part.bytes).sum::<u64>() >= LARGE_BYTES;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let parts = Mutex::new(parts.into_iter());
        let next = || parts.lock().next();
        if is_large && cores > 1 {
            // Few are on their way at a time: they take memory.
            let (send, loaded) = sync_channel(cores);
            std::thread::scope(|scope| {
                for _ in 0..cores {
                    let (send, load, next) = (send.clone(), &load, &next);
                    let work = move || {
                        let mut buffer = Vec::new();
                        while next().is_some_and(|one| send.send(load(one, &mut buffer)).is_ok()) {}
                    };
                    // Without a thread the others, or the caller below, do its part.
                    let _ = std::thread::Builder::new().name("kv-open".to_owned()).spawn_scoped(scope, work);
                }
                drop(send);
                loaded.iter().for_each(|(part, index)| found(part, index));
            });
        }
        let mut buffer = Vec::new();
        while let Some(one) = next() {
            let (part, index) = load(one, &mut buffer);
            found(part, index);
        }
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
    /// Hands over the index of every shard that has keys on disk; answers the mark of the base, if there is a good one. To be
    /// called once, after the log was opened and before anything else.
    pub fn restore(
        &self,
        shard_bits: u32,
        opening: &Opening,
        mut found: impl FnMut(u8, usize, Index),
    ) -> Result<Option<u64>, OpenError> {
        let base = self.base.lock().take().filter(|base| u32::from(base.shard_bits) == shard_bits);
        let Some(base) = base else {
            self.rebuild(shard_bits, opening, |_| true, &mut found)?;
            return Ok(None);
        };
        opening.enter(Stage::Index, base.parts.iter().map(|part| part.bytes).sum());
        let (ends, mut tail) = (self.ends(&base), self.tail_of(&base, shard_bits)?);
        let work = base.parts.iter().map(|part| {
            let lines = tail.remove(&(part.namespace, part.shard as usize));
            (*part, lines.unwrap_or_default())
        });
        let work: Vec<_> = work.collect();
        let (mut live, mut damaged) = (vec![0; ends.len()], BTreeSet::new());
        let mut count = |of_index: Vec<u64>| {
            live.iter_mut().zip(of_index).for_each(|(all, some)| *all = u64::saturating_add(*all, some));
        };
        base.load(work, &ends, |part, loaded| {
            let shard = (part.namespace, part.shard as usize);
            match loaded {
                Some((index, live)) => {
                    count(live);
                    found(shard.0, shard.1, index);
                }
                None => drop(damaged.insert(shard)),
            }
            opening.advance(part.bytes);
        });
        for (shard, lines) in tail {
            let (index, live) = index_of(&[], lines, &ends);
            count(live);
            found(shard.0, shard.1, index);
        }
        for (slot, weight) in (0..).zip(live) {
            if let Some(segment) = self.segments.get(slot) {
                segment.revive(weight);
            }
        }
        if !damaged.is_empty() {
            self.rebuild(shard_bits, opening, |shard| damaged.contains(&shard), &mut found)?;
        }
        self.mark.store(base.mark, Relaxed);
        Ok(Some(base.mark))
    }

    /// By slot, where the segments ended that a base knows and that are still there. A segment that is gone had nothing that
    /// is of use but what moved.
    fn ends(&self, base: &Base) -> Vec<u64> {
        let mut ends = Vec::new();
        for segment in self.segments.by_age() {
            let slot = usize::from(segment.slot);
            ends.resize(ends.len().max(slot.saturating_add(1)), 0);
            if let (Some(end), Some(covered)) = (ends.get_mut(slot), base.covered(segment.id)) {
                *end = covered.end;
            }
        }
        ends
    }

    /// What was appended since a base was begun, by shard; of each shard in the order in which it was appended.
    fn tail_of(&self, base: &Base, shard_bits: u32) -> Result<BTreeMap<Shard, Vec<Line>>, OpenError> {
        let (mut tail, mut items) = (BTreeMap::<Shard, Vec<Line>>::new(), 0_u64);
        for segment in self.segments.by_age() {
            let from = base.covered(segment.id).map_or(HEADER_BYTES as u64, |covered| covered.end);
            self.each_line(&segment, from, |line| {
                let shard = (line.0.namespace, line.0.id.hash().shard(shard_bits));
                tail.entry(shard).or_default().push(line);
                items = items.saturating_add(1);
            })?;
        }
        self.unbased.store(items, Relaxed);
        Ok(tail)
    }

    /// Finds the indexes of some shards without a base. In parts, because it takes memory for every record.
    fn rebuild(
        &self,
        shard_bits: u32,
        opening: &Opening,
        wants: impl Fn(Shard) -> bool,
        found: &mut impl FnMut(u8, usize, Index),
    ) -> Result<(), OpenError> {
        let parts = (self.usage().bytes >> REBUILT_BITS).saturating_add(1).next_power_of_two().min(64);
        self.unbased.store(NO_BASE, Relaxed);
        opening.enter(Stage::Index, self.usage().bytes.saturating_mul(parts));
        for part in 0..parts {
            let shard_of = |id: KeyId| id.hash().shard(shard_bits);
            let mut indexes = BTreeMap::<Shard, Index>::new();
            let is_wanted = |namespace, _, id| {
                let shard = shard_of(id);
                shard as u64 & parts.saturating_sub(1) == part && wants((namespace, shard))
            };
            self.replay(is_wanted, opening, |restored| {
                let shard = (restored.namespace, shard_of(restored.id));
                indexes.entry(shard).or_default().insert(restored.id, restored.spot);
            })?;
            indexes.into_iter().for_each(|((namespace, shard), index)| found(namespace, shard, index));
        }
        Ok(())
    }

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

/// The index of a shard: what a base says, and the last words behind it. Beside it what is live by slot. `ends`: by slot,
/// where the segments end that the base may mean.
fn index_of(entries: &[[u8; ENTRY_BYTES]], mut lines: Vec<Line>, ends: &[u64]) -> (Index, Vec<u64>) {
    let mut live = vec![0_u64; ends.len()];
    let mut index = Index::build(entries, |locator| {
        let slot = usize::from(locator.slot);
        let is_there = ends.get(slot).is_some_and(|end| u64::from(locator.offset) < *end);
        if let Some(live) = live.get_mut(slot).filter(|_| is_there) {
            *live = live.saturating_add(locator.weight());
        }
        is_there
    });
    let mut count = |locator: Locator, change: fn(u64, u64) -> u64| {
        if let Some(live) = live.get_mut(usize::from(locator.slot)) {
            *live = change(*live, locator.weight());
        }
    };
    // Stable: of two records of one version the later one is the truth.
    lines.sort_by_key(|(line, _)| (line.id, line.version));
    for of_key in lines.chunk_by(|(one, _), (other, _)| one.id == other.id) {
        let before = match of_key.last() {
            Some((KeyLine { id, what: KeyState::Entry { kind, deadline, .. }, .. }, Some(locator))) => {
                count(*locator, u64::saturating_add);
                index.insert(*id, Spot::new(*locator, *deadline, *kind))
            }
            Some((line, _)) => index.remove(line.id),
            None => None,
        };
        before.into_iter().for_each(|spot| count(spot.locator, u64::saturating_sub));
    }
    (index, live)
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
