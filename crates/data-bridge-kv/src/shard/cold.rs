//! The keys of a shard that are not in its table: those on disk, and those on their way there.
//!
//! A key is in one place only: in the table, departing, or cold. Departing entries are still in memory while a batch that
//! has them is written, outside the lock; whoever needs one takes it back into the table.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cold::{Index, Log, Source, Spot};
use crate::hash::KeyHash;
use crate::hash::stable::KeyId;
use crate::table::OwnedEntry;

/// The part of a namespace's keys that left the table of one shard.
pub struct ColdKeys {
    log: Arc<Log>,
    namespace: u8,
    index: Index,
    departing: BTreeMap<KeyId, OwnedEntry>,
    departing_bytes: usize,
    /// Where the search for expired keys goes on.
    swept: KeyHash,
}

impl ColdKeys {
    /// None yet.
    pub fn new(log: Arc<Log>, namespace: u8) -> ColdKeys {
        ColdKeys {
            log,
            namespace,
            index: Index::new(),
            departing: BTreeMap::new(),
            departing_bytes: 0,
            swept: KeyHash::from_bits(0),
        }
    }

    /// How many keys, those that have expired but are not removed yet included.
    pub fn len(&self) -> usize {
        self.index.len() + self.departing.len()
    }

    /// How many of them are on disk.
    pub fn on_disk(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty() && self.departing.is_empty()
    }

    /// Bytes in memory.
    pub fn memory_bytes(&self) -> usize {
        self.index.memory_bytes() + self.departing_bytes
    }

    /// The place of a key on disk.
    pub fn get(&self, id: KeyId) -> Option<Spot> {
        self.index.get(id)
    }

    /// Notes that a key was read; answers whether it had been before.
    pub fn touch(&mut self, id: KeyId) -> bool {
        self.index.touch(id)
    }

    /// What has to be read for a key on disk.
    pub fn source(&self, spot: Spot) -> Option<Source> {
        self.log.source(spot.locator)
    }

    /// Whether a key stands at this very place.
    pub fn is_at(&self, id: KeyId, source: &Source) -> bool {
        self.index.get(id).is_some_and(|spot| spot.locator == source.locator())
    }

    /// Lets the index follow an entry that moved on disk.
    pub fn relocate(&mut self, id: KeyId, from: crate::cold::Locator, to: crate::cold::Locator) -> bool {
        self.index.relocate(id, from, to)
    }

    /// Forgets a key on disk, because of a change of this version.
    pub fn forget(&mut self, id: KeyId, version: u64) -> bool {
        let Some(spot) = self.index.remove(id) else { return false };
        self.log.forget(self.namespace, 0, id, version, spot.locator);
        true
    }

    /// Forgets all keys on disk, because of a change of this version; answers how many.
    pub fn forget_all(&mut self, version: u64) -> usize {
        let index = std::mem::take(&mut self.index);
        for (id, spot) in index.from(KeyHash::from_bits(0)) {
            self.log.forget(self.namespace, 0, id, version, spot.locator);
        }
        index.len()
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

    /// A departing entry is on disk: it is cold from now on, if it is still the same. Otherwise nobody points there.
    pub fn arrive(&mut self, id: KeyId, sequence: u64, spot: Spot) {
        if self.departing.get(&id).is_some_and(|entry| entry.entry().sequence() == sequence) {
            self.take_back(id);
            self.index.insert(id, spot);
        } else {
            self.log.retire(spot.locator);
        }
    }

    /// The keys from this hash on, in the order of hashes; departing ones and those on disk.
    pub fn from(&self, start: KeyHash) -> impl Iterator<Item = (KeyId, Resting<'_>)> {
        let departing = self.departing.range(KeyId::new(start, 0)..);
        let mut departing = departing.map(|(id, entry)| (*id, Resting::Departing(entry))).peekable();
        let mut cold = self.index.from(start).map(|(id, spot)| (id, Resting::Cold(spot))).peekable();
        std::iter::from_fn(move || match (departing.peek(), cold.peek()) {
            (Some((one, _)), Some((other, _))) if one < other => departing.next(),
            (Some(_), None) => departing.next(),
            _ => cold.next(),
        })
    }

    /// Some keys on disk whose deadline has passed, each time from where the search stopped; true if it reached the end.
    pub fn expired(&mut self, now: u64, pages: usize, found: &mut Vec<(KeyId, Spot)>) -> bool {
        let next = self.index.expired(self.swept, now, pages, |id, spot| found.push((id, spot)));
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
