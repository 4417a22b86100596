//! What a shard has beside its table: keys on disk, and those on their way there.
//!
//! A key counts in one place only: in the table, departing, or cold. Departing entries are still in memory while a batch that
//! has them is written, outside the lock; whoever needs one takes it back into the table.
//!
//! In a log that lasts, the disk is the checkpoint of what is logged. A key in memory may have a record there too, its own or
//! an older one: it stays when the entry is promoted or changed, because the changes in the log build on it, until a newer
//! record arrives. When such a key is deleted, the record is buried, but not before the delete is durable: a grave waits here
//! for [`ColdKeys::settle`]. So the records on disk never know more than the log, and with the log they tell everything. When
//! all keys go at once, the whole index becomes one grave.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::cold::{Index, Locator, Log, Source, Spot};
use crate::hash::KeyHash;
use crate::hash::stable::KeyId;
use crate::table::OwnedEntry;

/// A record on disk whose key is deleted.
struct Grave {
    id: KeyId,
    /// The change that deleted it, or one behind it: once that is durable the record may be buried.
    version: u64,
    spot: Spot,
}

/// Records of a clear that are buried together: a tombstone takes more memory than what the index has of a key.
const BURIED_AT_ONCE: usize = 1 << 14;

/// The records of all keys that were there when they were cleared.
struct Pit {
    index: Index,
    /// The change that cleared them.
    version: u64,
}

/// The part of a namespace's keys that one shard has outside its table.
pub struct ColdKeys {
    log: Arc<Log>,
    namespace: u8,
    index: Index,
    departing: BTreeMap<KeyId, OwnedEntry>,
    departing_bytes: usize,
    /// In the order of versions.
    graves: VecDeque<Grave>,
    /// The same for those that were cleared.
    pits: VecDeque<Pit>,
    /// Entries in memory with a sequence number up to this have their record on disk.
    checkpointed: u64,
    /// While the log is carried out again, the keys that it deleted: their records may be newer than the delete, if the log
    /// goes on to write them again. So they are buried in the end.
    replayed: Option<BTreeSet<KeyId>>,
    /// Where the search for expired keys goes on.
    swept: KeyHash,
    /// While the index is still on disk.
    absent: Option<Absent>,
}

/// What is known of an index that is not loaded. Changes that need not see it go on: what they mean for it is made up for.
struct Absent {
    /// About how many keys it has.
    keys: usize,
    /// Keys that were deleted, and the change that did it.
    deleted: BTreeMap<KeyId, u64>,
}

impl ColdKeys {
    /// None yet; what is on disk has sequence numbers up to `floor`.
    pub fn new(log: Arc<Log>, namespace: u8, floor: u64) -> ColdKeys {
        ColdKeys {
            log,
            namespace,
            index: Index::new(),
            departing: BTreeMap::new(),
            departing_bytes: 0,
            graves: VecDeque::new(),
            pits: VecDeque::new(),
            checkpointed: floor,
            replayed: None,
            swept: KeyHash::from_bits(0),
            absent: None,
        }
    }

    /// Notes that the index, of about so many keys, is still on disk: until [`ColdKeys::restore`] nobody may ask where a key is.
    pub fn expect(&mut self, keys: usize) {
        self.absent = Some(Absent { keys, deleted: BTreeMap::new() });
    }

    /// Whether the index is still on disk.
    pub fn is_absent(&self) -> bool {
        self.absent.is_some()
    }

    /// The index, which is loaded: without it every answer would be wrong.
    fn index(&self) -> &Index {
        assert!(self.absent.is_none(), "the index of a shard is asked before it is loaded");
        &self.index
    }

    fn index_mut(&mut self) -> &mut Index {
        assert!(self.absent.is_none(), "the index of a shard is changed before it is loaded");
        &mut self.index
    }

    /// Whether records on disk outlive the process, as the checkpoint of a log.
    fn lasts(&self) -> bool {
        self.log.policy().is_durable
    }

    /// How many keys that are not in the table, those that have expired but are not removed yet included. About, while the
    /// index is absent.
    pub fn len(&self) -> usize {
        self.on_disk() + self.departing.len()
    }

    /// How many of them are on disk.
    pub fn on_disk(&self) -> usize {
        self.absent.as_ref().map_or(self.index.len(), |absent| absent.keys)
    }

    /// How many that are not in the table have a deadline.
    pub fn dated(&self) -> usize {
        let departing = self.departing.values().filter(|entry| entry.entry().deadline().is_some());
        self.index.dated() + departing.count()
    }

    /// Whether there is none, for sure.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty() && self.departing.is_empty() && self.absent.is_none()
    }

    /// Whether keys in memory have records on disk, or may have.
    pub fn has_residents(&self) -> bool {
        self.index.residents() > 0 || self.absent.is_some()
    }

    /// Bytes in memory.
    pub fn memory_bytes(&self) -> usize {
        let pits: usize = self.pits.iter().map(|pit| pit.index.memory_bytes()).sum();
        self.index.memory_bytes() + self.departing_bytes + self.graves.capacity() * size_of::<Grave>() + pits
    }

    /// The place of a cold key.
    pub fn get(&self, id: KeyId) -> Option<Spot> {
        self.index().get(id).filter(|spot| !spot.is_resident)
    }

    /// Whether this is where a key's record stands, cold or not.
    pub fn points_at(&self, id: KeyId, at: Locator) -> bool {
        self.index().get(id).is_some_and(|spot| spot.locator == at)
    }

    /// Where a key is that is not in the table.
    pub fn find(&self, id: KeyId) -> Option<Resting<'_>> {
        let departing = self.departing.get(&id).map(Resting::Departing);
        departing.or_else(|| self.get(id).map(Resting::Cold))
    }

    /// Whether a record of the key is, or may be, the last word of the disk on it.
    pub fn knows(&self, id: KeyId) -> bool {
        self.index().get(id).is_some()
            || self.graves.iter().any(|grave| grave.id == id)
            || self.pits.iter().any(|pit| pit.index.get(id).is_some())
    }

    /// Notes that a key was read; answers whether it had been before.
    pub fn touch(&mut self, id: KeyId) -> bool {
        self.index_mut().touch(id)
    }

    /// What has to be read for a key on disk.
    pub fn source(&self, spot: Spot) -> Option<Source> {
        self.log.source(spot.locator)
    }

    /// Whether a key is cold at this very place.
    pub fn is_at(&self, id: KeyId, source: &Source) -> bool {
        self.get(id).is_some_and(|spot| spot.locator == source.locator())
    }

    /// Lets the index follow an entry that moved on disk.
    pub fn relocate(&mut self, id: KeyId, from: Locator, to: Locator) -> bool {
        self.index_mut().relocate(id, from, to)
    }

    /// A key is in the table from now on, by a change of this version or because it was read.
    pub fn come_in(&mut self, id: KeyId, version: u64) {
        if let Some(absent) = &mut self.absent {
            absent.deleted.remove(&id);
        } else if self.lasts() {
            if self.index.set_resident(id, true).is_none() {
                self.dig_out(id);
            }
            if let Some(deleted) = &mut self.replayed {
                deleted.remove(&id);
            }
        } else {
            self.forget_at_once(id, version);
        }
    }

    /// Forgets a key whose entry was deleted by a change of this version; answers whether it is known to have had a record.
    pub fn forget(&mut self, id: KeyId, version: u64) -> bool {
        if let Some(absent) = &mut self.absent {
            absent.deleted.insert(id, version);
            return false;
        }
        if !self.lasts() {
            return self.forget_at_once(id, version);
        }
        if let Some(deleted) = &mut self.replayed {
            return self.index.set_resident(id, true).is_some_and(|_| deleted.insert(id));
        }
        let Some(spot) = self.index.remove(id) else { return false };
        self.graves.push_back(Grave { id, version, spot });
        true
    }

    /// The same for a change that needs no log: the deadline had passed, or nothing is logged.
    pub fn forget_at_once(&mut self, id: KeyId, version: u64) -> bool {
        let Some(spot) = self.index_mut().remove(id) else { return false };
        self.log.forget(self.namespace, 0, id, version, spot.locator);
        true
    }

    /// While the log is carried out again, a key that was cleared comes back: its record may be newer than the clear.
    fn dig_out(&mut self, id: KeyId) {
        if self.replayed.is_some()
            && let Some(spot) = self.pits.iter_mut().rev().find_map(|pit| pit.index.remove(id))
        {
            self.index.insert(id, Spot { is_resident: true, ..spot });
        }
    }

    /// Forgets every key but the `kept` ones, which are in the table, because of a change of this version. Answers what is
    /// left to do without a lock.
    pub fn clear(&mut self, version: u64, kept: impl Iterator<Item = KeyId>) -> Remains {
        let departing = std::mem::take(&mut self.departing);
        self.departing_bytes = 0;
        self.swept = KeyHash::from_bits(0);
        let mut index = std::mem::take(self.index_mut());
        for id in kept {
            if let Some(spot) = index.remove(id) {
                self.index.insert(id, spot);
            }
        }
        let mut remains = Remains { departing, forgotten: None };
        if !self.lasts() {
            remains.forgotten = Some((Arc::clone(&self.log), index));
        } else if index.len() + index.residents() > 0 {
            self.pits.push_back(Pit { index, version });
        }
        remains
    }

    /// How many keys that are not in the table have not expired.
    pub fn count_live(&mut self, now: u64) -> usize {
        let is_live = |entry: &&OwnedEntry| entry.entry().deadline().is_none_or(|deadline| deadline > now);
        let mut expired = 0;
        self.index_mut().expired(KeyHash::from_bits(0), now, usize::MAX, |_, _| expired += 1);
        self.departing.values().filter(is_live).count() + self.index.len() - expired
    }

    /// Takes back what changes behind this version did to the record of a key that is in the table again, or (`None`) was
    /// not there before.
    pub fn roll_back(&mut self, id: KeyId, version: Option<u64>) {
        let Some(version) = version else {
            self.index_mut().set_resident(id, false);
            return;
        };
        let taken_back = self.graves.iter().rposition(|grave| grave.id == id && grave.version > version);
        if let Some(grave) = taken_back.and_then(|at| self.graves.remove(at)) {
            self.index.insert(id, Spot { is_resident: true, ..grave.spot });
        }
    }

    /// Tells that changes up to this version are durable: what they deleted is buried with the next batch, once the answer is
    /// done, which takes no lock.
    pub fn settle(&mut self, version: u64) -> Settled {
        while self.graves.front().is_some_and(|grave| grave.version <= version)
            && let Some(grave) = self.graves.pop_front()
        {
            self.log.forget(self.namespace, 0, grave.id, grave.version, grave.spot.locator);
        }
        if self.graves.is_empty() {
            self.graves = VecDeque::new();
        }
        // While the log is carried out again, keys may come back out of a pit.
        let is_due = |pit: &Pit| pit.version <= version;
        let count = if self.is_replaying() { 0 } else { self.pits.partition_point(is_due) };
        Settled {
            log: Arc::clone(&self.log),
            namespace: self.namespace,
            pits: self.pits.drain(..count).collect(),
        }
    }

    /// Whether graves wait for [`ColdKeys::settle`].
    pub fn has_graves(&self) -> bool {
        !self.graves.is_empty() || !self.pits.is_empty() && !self.is_replaying()
    }

    /// How many keys are deleted whose records wait for [`ColdKeys::settle`].
    pub fn graves(&self) -> usize {
        let cleared: usize = self.pits.iter().map(|pit| pit.index.len() + pit.index.residents()).sum();
        self.graves.len() + cleared
    }

    /// How many records count as live, these included.
    pub fn records(&self) -> usize {
        self.index.len() + self.index.residents() + self.graves()
    }

    /// Whether some of these are of a clear.
    pub fn has_pits(&self) -> bool {
        !self.pits.is_empty()
    }

    /// Whether an entry in memory is on disk as it is, so that it can leave memory as if it had just been written.
    pub fn is_clean(&self, id: KeyId, sequence: u64) -> bool {
        sequence <= self.checkpointed && self.index().get(id).is_some()
    }

    /// A clean entry leaves the table.
    pub fn leave(&mut self, id: KeyId) {
        self.index_mut().set_resident(id, false);
    }

    /// What is on disk, as it was found at opening. What changed before it was loaded is made up for: keys that are in the table
    /// are resident, those that were deleted go.
    pub fn restore(&mut self, index: Index, in_table: impl Iterator<Item = KeyId>) {
        self.index = index;
        let Some(absent) = self.absent.take() else { return };
        for id in in_table {
            self.index.set_resident(id, true);
        }
        let mut deleted: Vec<(KeyId, u64)> = absent.deleted.into_iter().collect();
        // Graves stand in the order of versions.
        deleted.sort_by_key(|(_, version)| *version);
        for (id, version) in deleted {
            self.forget(id, version);
        }
    }

    /// Adds what is on disk from this hash on to `found`, about `limit` keys of it; answers where to go on. In the end come
    /// records whose keys are deleted, but perhaps not for good: the latest first.
    pub fn dump(&self, from: KeyHash, limit: usize, found: &mut Vec<(KeyId, Spot)>) -> Option<KeyHash> {
        let start = found.len();
        for (id, spot) in self.index().all_from(from) {
            if found.len() - start >= limit && found.last().is_some_and(|(last, _)| last.hash() != id.hash())
            {
                return Some(id.hash());
            }
            found.push((id, spot));
        }
        let mut graves = self.graves.iter().rev().peekable();
        for pit in self.pits.iter().rev() {
            while let Some(grave) = graves.next_if(|grave| grave.version > pit.version) {
                found.push((grave.id, grave.spot));
            }
            found.extend(pit.index.all_from(KeyHash::from_bits(0)));
        }
        found.extend(graves.map(|grave| (grave.id, grave.spot)));
        None
    }

    /// Notes that the log has this change: neither it nor those behind it are known to be on disk.
    pub fn note_replay(&mut self, sequence: u64) {
        self.checkpointed = self.checkpointed.min(sequence.saturating_sub(1));
        self.replayed.get_or_insert_default();
    }

    /// Whether that goes on.
    pub fn is_replaying(&self) -> bool {
        self.replayed.is_some()
    }

    /// Notes that the log is carried out; no version so far is above `version`.
    pub fn end_replay(&mut self, version: u64) {
        let deleted = self.absent.iter_mut().flat_map(|absent| absent.deleted.values_mut());
        deleted.for_each(|deleted| *deleted = version);
        for id in self.replayed.take().unwrap_or_default() {
            self.forget(id, version);
        }
    }

    /// Entries with a sequence number up to this have their record on disk.
    pub fn checkpointed(&self) -> u64 {
        self.checkpointed
    }

    /// Notes that they do.
    pub fn set_checkpointed(&mut self, sequence: u64) {
        self.checkpointed = sequence;
    }

    /// An entry leaves the table.
    pub fn depart(&mut self, id: KeyId, entry: OwnedEntry) {
        self.departing_bytes += entry.entry().memory_bytes();
        self.departing.insert(id, entry);
    }

    /// An entry that is departing comes back.
    pub fn take_back(&mut self, id: KeyId) -> Option<OwnedEntry> {
        let entry = self.departing.remove(&id)?;
        self.departing_bytes -= entry.entry().memory_bytes();
        Some(entry)
    }

    /// Some entry that is departing.
    pub fn any_departing(&self) -> Option<KeyId> {
        self.departing.first_key_value().map(|(id, _)| *id)
    }

    /// An entry is on disk. If it departed and is still the same, it is cold from now on. In a log that lasts it may have
    /// stayed in memory, where a newer one may be in its place by now; or the key is gone, by a change up to `version`.
    /// Elsewhere nobody points to an entry that did not depart.
    pub fn arrive(
        &mut self,
        id: KeyId,
        sequence: u64,
        spot: Spot,
        version: u64,
        is_in_table: impl FnOnce() -> bool,
    ) {
        let departing = self.departing.get(&id).map(|entry| entry.entry().sequence());
        if departing == Some(sequence) {
            self.take_back(id);
            self.point_at(id, spot);
        } else if !self.lasts() {
            self.log.retire(spot.locator);
        } else if self.replayed.is_none()
            && let Some(before) = self.index_mut().move_resident(id, spot)
        {
            debug_assert!(departing.is_some() || is_in_table(), "memory has every resident key");
            self.log.retire(before.locator);
        } else if departing.is_some() || is_in_table() {
            self.point_at(id, Spot { is_resident: true, ..spot });
        } else {
            self.graves.push_back(Grave { id, version, spot });
        }
    }

    fn point_at(&mut self, id: KeyId, spot: Spot) {
        if let Some(before) = self.index_mut().insert(id, spot) {
            self.log.retire(before.locator);
        }
    }

    /// The keys from this hash on, in the order of hashes; departing ones and those on disk.
    pub fn from(&self, start: KeyHash) -> impl Iterator<Item = (KeyId, Resting<'_>)> {
        let departing = self.departing.range(KeyId::new(start, 0)..);
        let mut departing = departing.map(|(id, entry)| (*id, Resting::Departing(entry))).peekable();
        let mut cold = self.index().from(start).map(|(id, spot)| (id, Resting::Cold(spot))).peekable();
        std::iter::from_fn(move || match (departing.peek(), cold.peek()) {
            (Some((one, _)), Some((other, _))) if one < other => departing.next(),
            (Some(_), None) => departing.next(),
            _ => cold.next(),
        })
    }

    /// Some keys on disk whose deadline has passed, each time from where the search stopped; true if it reached the end.
    pub fn expired(&mut self, now: u64, pages: usize, found: &mut Vec<(KeyId, Spot)>) -> bool {
        let swept = self.swept;
        let next = self.index_mut().expired(swept, now, pages, |id, spot| found.push((id, spot)));
        self.swept = next.unwrap_or(KeyHash::from_bits(0));
        next.is_none()
    }
}

/// Where a key is that is not in the table.
pub enum Resting<'a> {
    /// Still in memory.
    Departing(&'a OwnedEntry),
    /// On disk.
    Cold(Spot),
}

/// Records whose keys were cleared for good.
#[must_use]
pub struct Settled {
    log: Arc<Log>,
    namespace: u8,
    pits: Vec<Pit>,
}

impl Settled {
    /// Buries them, the last of them with the next batch. Whoever writes the tier holds its lock all along: until then nobody
    /// knows of them.
    pub fn bury(self) {
        for Pit { index, version } in self.pits {
            for (id, spot) in index.all_from(KeyHash::from_bits(0)) {
                self.log.forget(self.namespace, 0, id, version, spot.locator);
                if self.log.has_graves(BURIED_AT_ONCE) {
                    // What can't be written now is with the next batch.
                    let _ = self.log.bury();
                }
            }
        }
    }
}

/// What a clear leaves to be done once the shard is unlocked.
#[derive(Default)]
pub struct Remains {
    departing: BTreeMap<KeyId, OwnedEntry>,
    /// The records that nobody points at any more, where that is all.
    forgotten: Option<(Arc<Log>, Index)>,
}

impl Remains {
    /// The entries that were on their way to disk.
    pub fn departing(&self) -> impl Iterator<Item = &OwnedEntry> {
        self.departing.values()
    }

    /// Lets the space of the records be given back.
    pub fn retire(self) {
        if let Some((log, index)) = self.forgotten {
            index.all_from(KeyHash::from_bits(0)).for_each(|(_, spot)| log.retire(spot.locator));
        }
    }
}
