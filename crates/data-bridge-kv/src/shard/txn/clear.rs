//! How a step empties its shards: each table and index is taken out as a whole, so that the locks are held for moments
//! however many keys there are. What that leaves to be done is done without a lock.

use std::collections::BTreeSet;

use data_bridge_kv_model::Key;

use super::{Guards, Named, Place, Touched, Txn, Wanted};
use crate::expire::Wheel;
use crate::hash::KeyHash;
use crate::mutation::Applied;
use crate::mutation::clear::Cleared;
use crate::shard::cold::Remains;
use crate::shard::notice::{Change, Notices};
use crate::shard::{Resting, Shard, Space, is_live};
use crate::table::{EntryRef, OwnedEntry, Table};
use crate::wal::Lsn;

/// What was in a shard.
pub struct Removed {
    table: Table,
    remains: Remains,
    /// Whether entries may have expired.
    may_expire: bool,
    /// Those of its keys that were on disk and had not expired.
    cold: usize,
    /// The same, where somebody wants to know their names.
    unnamed: Vec<Wanted>,
    /// Keys whose own waiters are told, and with them whoever watches a prefix.
    told: BTreeSet<Box<[u8]>>,
    /// The version of the clear.
    version: u64,
    now: u64,
}

impl Removed {
    /// How many keys had not expired.
    pub fn live(&self) -> usize {
        let is_live = |entry: &EntryRef<'_>| is_live(*entry, self.now);
        let in_table =
            if self.may_expire { self.table.iter().filter(is_live).count() } else { self.table.len() };
        in_table + self.cold
    }

    /// What is to be read to know the names of those that were on disk.
    pub fn take_unnamed(&mut self) -> Vec<Wanted> {
        std::mem::take(&mut self.unnamed)
    }

    /// Events for those who watch prefixes: of what was in memory.
    pub fn notice(&self, space: &Space, notices: &mut Notices) {
        let departing = self.remains.departing().map(OwnedEntry::entry);
        for entry in self.table.iter().chain(departing) {
            let change = if is_live(entry, self.now) { Change::Delete } else { Change::Expire };
            self.notice_name(space, change, entry.key(), notices);
        }
    }

    /// The same of names that were read.
    pub fn notice_named(&self, space: &Space, named: &[Named], notices: &mut Notices) {
        named.iter().for_each(|named| {
            self.notice_name(space, Change::Delete, named.key().as_bytes(), notices);
        });
    }

    fn notice_name(&self, space: &Space, change: Change, key: &[u8], notices: &mut Notices) {
        if !self.told.contains(key) {
            space.notice_prefixes(change, key, self.version, notices);
        }
    }

    /// Frees what it took.
    pub fn discard(self) {
        self.remains.retire();
    }
}

impl Txn<'_> {
    /// Whether there are keys in the locked shards.
    pub fn has_keys(&mut self) -> bool {
        self.shards().any(|shard| shard.keys() > 0)
    }

    /// What the record says of a clear that comes next: every shard of the namespace is locked.
    pub fn upcoming_clear(&mut self) -> Cleared {
        let space = self.space;
        let versions = self.shards().map(|shard| space.version(shard.upcoming())).collect();
        Cleared { namespace: space.number(), versions }
    }

    /// Removes every key of the locked shards, as the record `lsn` says; 0 = there is none.
    pub fn clear(&mut self, lsn: Lsn) -> Vec<Removed> {
        self.changed = true;
        let (space, now) = (self.space, self.now());
        let durable = space.awaited().filter(|_| lsn > 0).map(|wal| wal.durable());
        let (mut all, mut touched) = (Vec::new(), Vec::new());
        for shard in self.shards() {
            let sequence = shard.next_sequence();
            let waited = shard.waited_keys(space, space.version(sequence), now);
            let mut removed = shard.clear(space, sequence, now);
            removed.told = waited.iter().map(|touched| touched.key.as_bytes().into()).collect();
            all.push(removed);
            touched.extend(waited);
            if let Some(durable) = durable {
                shard.note(lsn, true, durable);
            }
        }
        if !touched.is_empty() {
            self.rare().touched.extend(touched);
        }
        if durable.is_some() {
            self.rests_on = self.rests_on.max(lsn);
        }
        all
    }

    /// Carries out what the log says of the one locked shard.
    pub fn replay_clear(&mut self, sequence: u64) {
        self.changed = true;
        let (space, now) = (self.space, self.now());
        if let Some(shard) = self.only_shard() {
            if let Some(cold) = shard.cold_mut() {
                cold.note_replay(sequence);
            }
            shard.clear(space, sequence, now).discard();
        }
    }

    fn shards(&mut self) -> impl Iterator<Item = &mut Shard> {
        let (one, many) = match &mut self.guards {
            Guards::One(shard) => (Some(&mut **shard), None),
            Guards::Many(shards) => (None, Some(shards)),
            Guards::Copy(_) => (None, None),
        };
        one.into_iter().chain(many.into_iter().flatten().map(|(_, shard)| &mut **shard))
    }
}

impl Shard {
    /// Removes every entry with a sequence number up to this. Later ones there are only while the log is carried out: what was
    /// read from disk may be newer.
    fn clear(&mut self, space: &Space, sequence: u64, now: u64) -> Removed {
        let mut kept: Vec<(KeyHash, OwnedEntry)> = Vec::new();
        if sequence < self.sequence {
            let later = self.table.iter().filter(|entry| entry.sequence() > sequence);
            kept = later.map(|entry| (space.hash(entry.key()), entry.to_owned())).collect();
        }
        let (version, may_expire) = (space.version(sequence), self.counters.expiring > 0);
        let (mut cold, mut unnamed, mut remains) = (0, Vec::new(), Remains::default());
        if let Some(beside) = self.cold_mut() {
            cold = beside.count_live(now);
            if space.has_prefix_watchers() {
                unnamed = Wanted::all_of(beside, now);
            }
            let ids = kept.iter().filter_map(|(_, entry)| space.id(entry.entry().key()));
            remains = beside.clear(version, ids);
        }
        let table = self.table.take();
        self.wheel = Wheel::new(now);
        self.counters.expiring = 0;
        if let Some(order) = &mut self.order {
            order.clear();
        }
        for (hash, entry) in kept {
            let after = Some(entry.entry().deadline());
            self.table.restore(hash, entry);
            self.track(hash, Applied::new(None, after), space.order_policy());
        }
        self.count_side();
        Removed { table, remains, may_expire, cold, unnamed, told: BTreeSet::new(), version, now }
    }

    /// Those keys that somebody waits for or watches, as they are about to be cleared.
    fn waited_keys(&self, space: &Space, version: u64, now: u64) -> Vec<Touched> {
        let found = self.waiters.keys().filter_map(|key| {
            let place = Place { key: Key::new(key).ok()?, hash: space.hash(key) };
            let change = match self.table.find(place.hash, key) {
                Some(entry) if !is_live(entry, now) => Change::Expire,
                Some(_) => Change::Delete,
                None => self.change_of_cold(space, key, now)?,
            };
            Some(Touched { key: place.key.as_str().into(), hash: place.hash, change, version })
        });
        found.collect()
    }

    fn change_of_cold(&self, space: &Space, key: &[u8], now: u64) -> Option<Change> {
        let (cold, id) = (self.cold()?, space.id(key)?);
        let is_expired = match cold.find(id)? {
            Resting::Departing(entry) => !is_live(entry.entry(), now),
            Resting::Cold(spot) => spot.is_expired(now),
        };
        Some(if is_expired { Change::Expire } else { Change::Delete })
    }
}
