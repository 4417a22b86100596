//! Appending to the cold tier: batches of entries and tombstones, one at a time.
//!
//! A batch is written as one, but for a log that does not outlive its process: that one keeps entries that have about as
//! long to live in segments of their own, so that whole segments die and go by unlinking. A log that lasts may not: the
//! numbers of its segments say which of them may hold what a tombstone buries.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

use data_bridge_kv_model::limits::COLD_BATCH_BYTES;

use super::base::Base;
use super::format::{self, Class, HEADER_BYTES, KEYS, KeyLine, KeyList, KeyState};
use super::parts::Parts;
use super::reader::Source;
use super::segment::{Locator, MAX_OFFSET, Segment, Segments, UNSIZED, Usage, size_class};
use crate::disk::{Disk, File};
use crate::hash::stable::KeyId;
use crate::record::{self, Head, Mark, MarkFile, Position};
use crate::sync::Mutex;

/// How a log behaves.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Whose entries it holds.
    pub class: Class,
    /// Whether what is appended survives a crash: then batches are synced, and tombstones written.
    pub is_durable: bool,
    /// A segment is closed at this size (at most 64 MiB), and in a small log before.
    pub segment_bytes: u64,
    /// Most bytes on disk, of this log and of one that shares them.
    pub max_bytes: u64,
    /// A batch is large enough to be appended at this size.
    pub batch_bytes: usize,
    /// Tells whether a directory was written under another secret: [`crate::hash::stable::StableHasher::fingerprint`].
    pub fingerprint: u64,
}

/// Of the space on disk, the most that is kept for what gives space back: one in so many.
const KEPT_SHARE: u64 = 8;
/// Of a log, the most that one segment has (one part in so many), but for small ones: what is dead in a segment that still grows
/// can't be given back, nor in one that is not worth to be rewritten.
const SEGMENT_SHARE: u64 = 16;
const SMALL_BYTES: u64 = 1 << 20;
/// Most tombstones of a batch: the keys in front of its entries may not push those out of reach.
const GRAVES_AT_ONCE: usize = 1 << 16;

impl Policy {
    /// Most bytes on disk with what comes in: room for a segment is kept for entries that move and for tombstones.
    fn most_bytes(&self) -> u64 {
        self.max_bytes.saturating_sub(self.segment_bytes.min(self.max_bytes / KEPT_SHARE))
    }

    /// The size at which a segment of a log of so many bytes is closed.
    fn full_bytes(&self, log_bytes: u64) -> u64 {
        let most = self.segment_bytes.min(MAX_OFFSET);
        (log_bytes / SEGMENT_SHARE).clamp(SMALL_BYTES.min(most), most)
    }
}

/// An entry to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// The namespace.
    pub namespace: u8,
    /// Its generation.
    pub generation: u32,
    /// The identity of the key.
    pub id: KeyId,
    /// The key.
    pub key: &'a [u8],
    /// The version.
    pub version: u64,
    /// Unix ms.
    pub deadline: Option<u64>,
    /// The kind's number.
    pub kind: u8,
}

/// Groups of entries by the time that they have to live; the last one has the rest.
pub(super) const LANES: usize = 5;
pub(super) const LAST_LANE: usize = LANES - 1;
/// Where the groups end, in milliseconds: 2 minutes, 16 minutes, 2 hours, 17 hours.
const LANE_ENDS: [u64; LAST_LANE] = [120_000, 960_000, 7_680_000, 61_440_000];

/// One entry or tombstone of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    line: KeyLine,
    lane: usize,
    /// Of a tombstone, the entry that it buries: dead for good once the tombstone is written.
    buries: Option<Locator>,
    /// Where the entry stands, once it is appended; `None` for a tombstone.
    pub locator: Option<Locator>,
}

impl Item {
    /// The namespace.
    pub fn namespace(&self) -> u8 {
        self.line.namespace
    }

    /// The identity of the key.
    pub fn id(&self) -> KeyId {
        self.line.id
    }

    /// The version.
    pub fn version(&self) -> u64 {
        self.line.version
    }

    /// The deadline, unix ms.
    pub fn deadline(&self) -> Option<u64> {
        match self.line.what {
            KeyState::Entry { deadline, .. } => deadline,
            KeyState::Dead => None,
        }
    }

    /// The kind's number.
    pub fn kind(&self) -> u8 {
        match self.line.what {
            KeyState::Entry { kind, .. } => kind,
            KeyState::Dead => 0,
        }
    }
}

/// Entries and tombstones that are to be appended as one.
pub struct Batch {
    /// The records of each lane.
    records: [Vec<u8>; LANES],
    items: Vec<Item>,
    /// Unix ms; `None` = there is one lane.
    now: Option<u64>,
    full_bytes: usize,
}

impl Default for Batch {
    fn default() -> Batch {
        Batch::of(COLD_BATCH_BYTES)
    }
}

impl Batch {
    /// An empty one that is large enough at this size.
    pub fn of(full_bytes: usize) -> Batch {
        Batch { records: Default::default(), items: Vec::new(), now: None, full_bytes }
    }

    fn lane(&self, deadline: Option<u64>) -> usize {
        let (Some(deadline), Some(now)) = (deadline, self.now) else { return LAST_LANE };
        LANE_ENDS.partition_point(|end| *end < deadline.saturating_sub(now))
    }

    /// Adds an entry; `write_value` appends its value in the codec. Answers false, and adds nothing, if the entry is
    /// longer than an envelope can say.
    pub fn put(&mut self, entry: NewRecord<'_>, write_value: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.put_in(self.lane(entry.deadline), entry, write_value)
    }

    /// The same, in this lane.
    pub(super) fn put_in(
        &mut self,
        lane: usize,
        entry: NewRecord<'_>,
        write_value: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let NewRecord { namespace, generation, id, key, version, deadline, kind } = entry;
        let Some(records) = self.records.get_mut(lane) else { return false };
        let start = records.len();
        let head = Head { number: version, generation, namespace, kind: format::ENTRY };
        format::begin_entry(head, deadline, key, records);
        write_value(records);
        let finished = records.get_mut(start..).and_then(record::finish);
        if finished.is_none() {
            records.truncate(start);
            return false;
        }
        let bytes = records.len().saturating_sub(start) as u64;
        let what = KeyState::Entry { kind, bytes, deadline };
        let line = KeyLine { namespace, generation, id, version, what };
        self.items.push(Item { line, lane, buries: None, locator: None });
        true
    }

    /// Adds the end of every record of a key that is not newer than this version.
    pub(super) fn bury(&mut self, namespace: u8, generation: u32, id: KeyId, version: u64) {
        let line = KeyLine { namespace, generation, id, version, what: KeyState::Dead };
        self.items.push(Item { line, lane: LAST_LANE, buries: None, locator: None });
    }

    /// What is in it; with the places, once it is appended.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether it is large enough to be appended.
    pub fn is_full(&self) -> bool {
        self.bytes() >= self.full_bytes
    }

    /// The bytes from which on it is.
    pub fn full_bytes(&self) -> usize {
        self.full_bytes
    }

    /// Bytes that it takes in memory, and about as many on disk.
    pub fn bytes(&self) -> usize {
        let records: usize = self.records.iter().map(Vec::len).sum();
        records.saturating_add(self.items.len().saturating_mul(size_of::<Item>()))
    }

    /// Bytes that a lane takes on disk, about; 0 if nothing is in it.
    fn lane_bytes(&self, lane: usize) -> u64 {
        let items = self.items.iter().filter(|item| item.lane == lane).count();
        let records = self.records.get(lane).map_or(0, Vec::len);
        records.saturating_add(items.saturating_mul(size_of::<Item>())) as u64
    }

    /// Empties it, to be filled again. Memory that one large entry took is given back.
    pub fn clear(&mut self) {
        let mut kept = self.full_bytes.saturating_mul(2);
        // The last lane is used most.
        for records in self.records.iter_mut().rev() {
            records.clear();
            records.shrink_to(kept);
            kept = kept.saturating_sub(records.capacity());
        }
        self.items.clear();
    }

    /// Gives every record of a lane its place and checksum for being written at `at`; answers the keys in front of them.
    fn seal(&mut self, lane: usize, at: Position, number: u64, slot: u16) -> Option<Vec<u8>> {
        let records = self.records.get_mut(lane)?;
        let (mut list, mut listed, mut items) = (Vec::new(), KeyList::default(), 0_u32);
        for item in self.items.iter().filter(|item| item.lane == lane) {
            items = items.checked_add(listed.write(&item.line, &mut list))?;
        }
        let mut keys = Vec::with_capacity(list.len().saturating_add(64));
        record::begin(Head { number, generation: 0, namespace: 0, kind: KEYS }, &mut keys);
        keys.extend_from_slice(&(records.len() as u64).to_le_bytes());
        keys.extend_from_slice(&items.to_le_bytes());
        keys.extend_from_slice(&list);
        record::finish(&mut keys)?;
        record::seal(&mut keys, at);
        let mut offset = at.offset.checked_add(keys.len() as u64)?;
        let mut rest = records.as_mut_slice();
        for item in self.items.iter_mut().filter(|item| item.lane == lane) {
            let KeyState::Entry { bytes, .. } = item.line.what else { continue };
            let (record, others) = rest.split_at_mut_checked(usize::try_from(bytes).ok()?)?;
            rest = others;
            format::seal_entry(record, Position { offset, ..at });
            let reached = u32::try_from(offset).ok().filter(|_| offset < MAX_OFFSET)?;
            item.locator = Some(Locator { slot, offset: reached, class: size_class(bytes) });
            offset = offset.checked_add(bytes)?;
        }
        Some(keys)
    }
}

/// The append-only log of one class.
pub struct Log {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) policy: Policy,
    /// What of the policy is raised.
    max_bytes: AtomicU64,
    segment_bytes: AtomicU64,
    pub(super) segments: Segments,
    pub(super) tail: Mutex<Tail>,
    /// Tombstones for the next batches. A lock of its own: it is taken while a shard is locked.
    graves: Mutex<VecDeque<Item>>,
    /// The log that shares its space.
    beside: OnceLock<Weak<Log>>,
    /// The base that was found at opening, until [`Log::restore`].
    pub(super) base: Mutex<Option<Base>>,
    /// What of it is still to be loaded.
    pub(super) parts: Parts,
    /// Items that were appended since the base was begun; more than any if there is none.
    pub(super) unbased: AtomicU64,
    /// The mark of the base.
    pub(super) mark: AtomicU64,
    /// A base is being written: segments stay.
    pub(super) is_frozen: AtomicBool,
    /// From which number on segments are needed, once that has been said since the log was opened.
    pub(super) start: Mutex<Option<Mark>>,
}

/// Where the log grows.
#[derive(Default)]
pub(super) struct Tail {
    /// The segment of each lane.
    current: [Option<Arc<Segment>>; LANES],
    /// The last number given to a segment.
    pub(super) last_id: u64,
    batches: u64,
    /// Where a segment of a durable log has to be cut off before anything else is written: what a batch that failed left
    /// behind that may be whole, and nothing of it may be found later.
    uncut: Option<(Arc<Segment>, u64)>,
}

impl Tail {
    fn drop_current(&mut self, lane: usize) -> Option<Arc<Segment>> {
        self.current.get_mut(lane)?.take()
    }

    /// Whether a segment may still grow.
    pub(super) fn has(&self, segment: &Segment) -> bool {
        self.current.iter().flatten().any(|current| current.id == segment.id)
    }
}

impl Log {
    /// Whether segments of this class are there.
    pub fn exists(disk: &dyn Disk, class: Class) -> io::Result<bool> {
        Ok(disk.list()?.iter().any(|name| class.segment_id(name).is_some()))
    }

    /// An empty log. Removes the segments of this class that are there.
    pub fn create(disk: Arc<dyn Disk>, policy: Policy) -> io::Result<Log> {
        for name in disk.list()? {
            let is_index = [policy.class.index_name(), policy.class.index_aside_name()].contains(&name);
            let is_start = policy.is_durable && name == MarkFile::TierStart.name();
            if policy.class.segment_id(&name).is_some() || is_index || is_start {
                disk.remove(&name)?;
            }
        }
        disk.sync_names()?;
        Ok(Log::new(disk, policy))
    }

    pub(super) fn new(disk: Arc<dyn Disk>, policy: Policy) -> Log {
        let (tail, graves) = (Mutex::default(), Mutex::default());
        Log {
            disk,
            policy,
            max_bytes: AtomicU64::new(policy.max_bytes),
            segment_bytes: AtomicU64::new(policy.segment_bytes),
            segments: Segments::default(),
            tail,
            graves,
            beside: OnceLock::new(),
            base: Mutex::new(None),
            parts: Parts::default(),
            mark: AtomicU64::new(0),
            is_frozen: AtomicBool::new(false),
            unbased: AtomicU64::new(0),
            start: Mutex::new(None),
        }
    }

    /// How it behaves.
    pub fn policy(&self) -> Policy {
        let [max_bytes, segment_bytes] =
            [&self.max_bytes, &self.segment_bytes].map(|most| most.load(Relaxed));
        Policy { max_bytes, segment_bytes, ..self.policy }
    }

    /// Raises the limit of space, and the size at which segments are closed.
    pub fn widen(&self, max_bytes: u64, segment_bytes: u64) {
        self.max_bytes.fetch_max(max_bytes, Relaxed);
        self.segment_bytes.fetch_max(segment_bytes, Relaxed);
    }

    /// Makes a batch one for this log: as large as its are, and grouped by the time that entries have to live, if it may.
    pub fn group(&self, batch: &mut Batch, now: u64) {
        batch.now = (!self.policy.is_durable).then_some(now);
        batch.full_bytes = self.policy.batch_bytes;
    }

    /// Lets two logs share the space on disk of either.
    pub fn share_space(one: &Arc<Log>, other: &Arc<Log>) {
        for (log, beside) in [(one, other), (other, one)] {
            log.beside.get_or_init(|| Arc::downgrade(beside));
        }
    }

    /// Bytes on disk of this log and of the one that shares its space.
    pub fn taken(&self) -> u64 {
        let beside = self.beside.get().and_then(Weak::upgrade);
        self.usage().bytes.saturating_add(beside.map_or(0, |log| log.usage().bytes))
    }

    /// Whether the limit leaves no room for another whole batch.
    pub fn is_near_limit(&self) -> bool {
        let policy = self.policy();
        self.taken().saturating_add(policy.batch_bytes as u64) > policy.most_bytes()
    }

    /// Writes a batch, and syncs it in a durable log. From then on its items have places, and count as live: whoever
    /// does not let an index point at one calls [`Log::retire`]. After an error nothing is appended: no place is given,
    /// and the entries will not be found again once another batch was appended. `StorageFull` also if the log's own limit
    /// is reached.
    pub fn append(&self, batch: &mut Batch) -> io::Result<()> {
        self.append_below(self.policy().most_bytes(), batch)
    }

    /// The same for entries that move so that space can be given back: the log's own limit does not hold.
    pub fn append_moved(&self, batch: &mut Batch) -> io::Result<()> {
        self.append_below(u64::MAX, batch)
    }

    /// The same for tombstones alone.
    pub fn bury(&self) -> io::Result<()> {
        self.append_moved(&mut Batch::of(0))
    }

    /// Whether so many tombstones wait for a batch.
    pub fn has_graves(&self, count: usize) -> bool {
        self.graves.lock().len() >= count
    }

    fn append_below(&self, limit: u64, batch: &mut Batch) -> io::Result<()> {
        let mut tail = self.tail.lock();
        if let Some((segment, end)) = &tail.uncut {
            segment.cut(*end)?;
            tail.uncut = None;
        }
        loop {
            let graves: Vec<Item> = {
                let mut graves = self.graves.lock();
                let count = graves.len().min(GRAVES_AT_ONCE);
                graves.drain(..count).collect()
            };
            if graves.len() < GRAVES_AT_ONCE {
                return self.append_with(&mut tail, limit, graves, batch);
            }
            self.append_with(&mut tail, u64::MAX, graves, &mut Batch::of(0))?;
        }
    }

    /// Writes a batch behind these tombstones.
    fn append_with(
        &self,
        tail: &mut Tail,
        limit: u64,
        graves: Vec<Item>,
        batch: &mut Batch,
    ) -> io::Result<()> {
        let own = graves.len();
        // What buries something makes room, in the end.
        let limit = if batch.is_empty() { u64::MAX } else { limit };
        // In front, so that an entry of this batch with the same version comes later and wins.
        batch.items.splice(0..0, graves);
        if batch.is_empty() {
            return Ok(());
        }
        let written = (0..LANES).try_for_each(|lane| self.write(tail, lane, limit, batch));
        match &written {
            Ok(()) => {
                self.unbased.fetch_add(batch.items.len() as u64, Relaxed);
                let buried = batch.items.iter().filter_map(|item| item.buries);
                buried.for_each(|at| self.segments.account(at, Segment::retire));
                batch.items.drain(..own);
            }
            Err(_) => {
                batch.items.iter().filter_map(|item| item.locator).for_each(|at| self.retire(at));
                let mut graves = self.graves.lock();
                batch.items.drain(..own).rev().for_each(|grave| graves.push_front(grave));
                batch.items.iter_mut().for_each(|item| item.locator = None);
            }
        }
        written
    }

    /// Forgets the entry at a place that an index no longer points at, because its key was deleted or got a newer value by a
    /// change of this version. Waits for nothing. In a durable log the next batch makes it last.
    pub fn forget(&self, namespace: u8, generation: u32, id: KeyId, version: u64, at: Locator) {
        if !self.policy.is_durable {
            return self.retire(at);
        }
        let line = KeyLine { namespace, generation, id, version, what: KeyState::Dead };
        self.graves.lock().push_back(Item { line, lane: LAST_LANE, buries: Some(at), locator: None });
    }

    /// Writes one lane of a batch. After an error nothing of it has a place, nor is anything written behind it.
    fn write(&self, tail: &mut Tail, lane: usize, limit: u64, batch: &mut Batch) -> io::Result<()> {
        let expected = batch.lane_bytes(lane);
        if expected == 0 {
            return Ok(());
        }
        if self.taken().saturating_add(expected) > limit {
            return Err(io::Error::new(ErrorKind::StorageFull, "the cold tier's limit is reached"));
        }
        let segment = self.segment_for(tail, lane, expected)?;
        let at = Position { segment: segment.id, offset: segment.end() };
        let too_long = || io::Error::new(ErrorKind::InvalidInput, "a batch is too long for a segment");
        let written =
            batch.seal(lane, at, tail.batches, segment.slot).ok_or_else(too_long).and_then(|keys| {
                let records = batch.records.get(lane).map_or(&[][..], Vec::as_slice);
                let records_at = at.offset.checked_add(keys.len() as u64).ok_or_else(too_long)?;
                segment.file.write_at(&keys, at.offset)?;
                segment.file.write_at(records, records_at)?;
                if self.policy.is_durable {
                    segment.file.sync_data()?;
                }
                records_at.checked_add(records.len() as u64).ok_or_else(too_long)
            });
        let end = match written {
            Ok(end) => end,
            Err(error) => {
                batch.items.iter_mut().filter(|item| item.lane == lane).for_each(|item| item.locator = None);
                tail.drop_current(lane);
                // On a full disk every byte counts. In a cache's log nobody minds if this fails too.
                if segment.cut(at.offset).is_err() && self.policy.is_durable {
                    tail.uncut = Some((segment, at.offset));
                }
                return Err(error);
            }
        };
        tail.batches = tail.batches.wrapping_add(1);
        segment.end.store(end, Relaxed);
        for item in batch.items.iter().filter(|item| item.lane == lane) {
            match item.locator {
                Some(locator) => {
                    segment.count_written(locator.weight());
                    segment.revive(locator.weight());
                }
                None => {
                    segment.tombstones.fetch_add(1, Relaxed);
                }
            }
        }
        Ok(())
    }

    /// The segment for so many bytes of a lane: the current one, or a new one.
    fn segment_for(&self, tail: &mut Tail, lane: usize, bytes: u64) -> io::Result<Arc<Segment>> {
        let limit = self.policy().full_bytes(self.usage().bytes);
        if let Some(Some(current)) = tail.current.get(lane)
            && (current.end().saturating_add(bytes) <= limit || current.end() <= HEADER_BYTES as u64)
        {
            return Ok(Arc::clone(current));
        }
        if let Some(full) = tail.drop_current(lane)
            && self.policy.is_durable
        {
            full.close()?;
        }
        let id = tail.last_id.saturating_add(1);
        tail.last_id = id;
        let file = self.make_file(id)?;
        let make = |slot| Segment::new(id, slot, file, HEADER_BYTES as u64).in_lane(lane);
        let made = self.segments.add(make);
        let segment = made.ok_or_else(|| io::Error::new(ErrorKind::StorageFull, "too many segments"))?;
        if let Some(current) = tail.current.get_mut(lane) {
            *current = Some(Arc::clone(&segment));
        }
        Ok(segment)
    }

    /// A file with the header of a segment.
    fn make_file(&self, id: u64) -> io::Result<Box<dyn File>> {
        let name = self.policy.class.file_name(id);
        let mut header = format::header(self.policy.class, id, self.policy.fingerprint);
        record::finish(&mut header);
        record::seal(&mut header, Position { segment: id, offset: 0 });
        let file = self.disk.create(&name)?;
        let sync = || file.sync_data().and_then(|()| self.disk.sync_names());
        let synced = || if self.policy.is_durable { sync() } else { Ok(()) };
        if let Err(error) = file.write_at(&header, 0).and_then(|()| synced()) {
            // What stays of it after a second error has no batch, and is removed when the log is opened or created.
            self.disk.remove(&name)?;
            return Err(error);
        }
        Ok(file)
    }

    /// What has to be read for the entry at a place: it can be read without any lock, also after its segment is gone.
    /// `None` if the place was forgotten before.
    pub fn source(&self, at: Locator) -> Option<Source> {
        Some(Source::new(self.segments.get(at.slot)?, at))
    }

    /// Tells that no index points at this place, and that the log has a newer record of the key, or another copy.
    pub fn retire(&self, at: Locator) {
        self.segments.account(at, Segment::retire);
    }

    /// The files of its segments, as they are open.
    pub fn files(&self) -> Vec<(String, Arc<dyn File>)> {
        let all = self.segments.by_age().into_iter();
        all.map(|segment| (self.policy.class.file_name(segment.id), Arc::clone(&segment.file))).collect()
    }

    /// What it takes on disk.
    pub fn usage(&self) -> Usage {
        self.segments.usage()
    }
}

const _: () = assert!((COLD_BATCH_BYTES as u64) < MAX_OFFSET / 2 && UNSIZED < 64);
