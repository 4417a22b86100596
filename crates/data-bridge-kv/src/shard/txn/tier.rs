//! How a step meets keys that are not in its table, and how entries leave and come back. Not mutations: nothing but the
//! place of an entry changes here, its version stays.

use std::sync::Arc;

use data_bridge_kv_model::limits::LOCKED_ENCODE_BYTES;
use data_bridge_kv_model::{Error, ErrorKind, Key, Kind, Result, ValueRef};

use super::{Place, Txn, is_large};
use crate::cold::Fetched as Record;
use crate::cold::{Batch, Front, Item, NewRecord, Outcome, ReadError, Source, Spot};
use crate::evict::Victim;
use crate::hash::KeyHash;
use crate::hash::stable::KeyId;
use crate::mutation::{Applied, Mutation};
use crate::shard::notice::Change;
use crate::shard::{ColdKeys, Resting, Shard, Space, exec};
use crate::table::{Blob, EntryRef, INLINE_BYTES, NewEntry, NewValue, OwnedEntry, Stored};

/// Bytes of large entries that are encoded together.
const LARGE_BYTES: usize = 1 << 20;
/// Entries that are looked at in one go while a shard is locked.
const LOOKED_AT_ONCE: usize = 1024;

/// How many arrivals ahead an entry is asked for.
const ARRIVES_AHEAD: usize = 8;

/// An entry on disk whose value or name is needed.
pub struct Wanted {
    /// Its name, where that is known.
    key: Option<Box<str>>,
    id: KeyId,
    source: Source,
}

/// The same, read.
pub struct Fetched {
    wanted: Wanted,
    entry: OwnedEntry,
}

/// The same, of which only the name was read.
pub struct Named {
    wanted: Wanted,
    key: Box<str>,
}

/// Entries on their way to disk: small ones are encoded, large ones still to be, without a lock.
#[derive(Default)]
pub struct Departures {
    /// What is to be appended.
    pub batch: Batch,
    /// Entries that expire until then, unix ms, stay: writing them would be in vain.
    pub spares_until: u64,
    large: Vec<(u8, KeyId, u64, OwnedEntry)>,
}

impl Departures {
    /// Encodes what was too large for a locked shard.
    pub fn encode_large(&mut self) {
        for (namespace, id, version, entry) in std::mem::take(&mut self.large) {
            put(&mut self.batch, namespace, id, version, entry.entry());
        }
    }

    /// Bytes that are gathered, about.
    pub fn is_full(&self) -> bool {
        let large: usize = self.large.iter().map(|(.., entry)| entry.entry().memory_bytes()).sum();
        self.batch.is_full() || large >= LARGE_BYTES.min(self.batch.full_bytes())
    }
}

fn put(batch: &mut Batch, namespace: u8, id: KeyId, version: u64, entry: EntryRef<'_>) {
    let record = NewRecord {
        namespace,
        generation: 0,
        id,
        key: entry.key(),
        version,
        deadline: entry.deadline(),
        kind: entry.kind().number(),
    };
    batch.put(record, |out| match entry.value() {
        Stored::Inline { kind, payload } | Stored::Whole { kind, payload } => {
            ValueRef::from_parts(kind, payload).encode_into(out);
        }
        Stored::Blob { kind, blob } => ValueRef::from_parts(kind, blob.get()).encode_into(out),
        Stored::Collection(collection) => collection.encode_into(out),
    });
}

fn damaged() -> Error {
    Error::new(ErrorKind::Corruption, "the stored entry of this key is damaged")
}

fn unreadable(error: ReadError) -> Error {
    match error {
        ReadError::Damaged => damaged(),
        ReadError::Disk(error) => Error::new(ErrorKind::Unavailable, format!("the disk fails: {error}")),
    }
}

impl Wanted {
    /// Every key of a shard that is on disk and has not expired: their names are wanted.
    pub(super) fn all_of(cold: &ColdKeys, now: u64) -> Vec<Wanted> {
        let found = cold.from(KeyHash::from_bits(0)).filter_map(|(id, resting)| match resting {
            Resting::Cold(spot) if !spot.is_expired(now) => {
                Some(Wanted { key: None, id, source: cold.source(spot)? })
            }
            Resting::Cold(_) | Resting::Departing(_) => None,
        });
        found.collect()
    }

    /// What is to be read, without any lock.
    pub fn source(&self) -> Source {
        self.source.clone()
    }

    /// The entry that was read.
    pub fn fetched(self, space: &Space, outcome: Outcome) -> Result<Fetched> {
        let record = outcome.map_err(unreadable)?;
        let found = record.any_entry().filter(|entry| self.is_of(space, entry.front)).ok_or_else(damaged)?;
        let value = ValueRef::decode_stored(found.value).map_err(|_| damaged())?;
        let Front { key, version, deadline, .. } = found.front;
        let sequence = space.sequence_of(version);
        let entry = match exec::new_value(value).map_err(|_| damaged())? {
            NewValue::Payload { kind, bytes } if bytes.len() > INLINE_BYTES => {
                let (key, length) = (Box::<[u8]>::from(key), bytes.len());
                // The value ends the record: it stays where it was read to, unless others need it too.
                let record =
                    Arc::try_unwrap(record).map_or_else(|shared| shared.to_bytes(), Record::into_bytes);
                let value = NewValue::Blob { kind, blob: Arc::new(Blob::tail(record, length)) };
                OwnedEntry::build(&key, NewEntry { value, sequence, deadline, heat: 0 })
            }
            value => OwnedEntry::build(key, NewEntry { value, sequence, deadline, heat: 0 }),
        };
        Ok(Fetched { wanted: self, entry })
    }

    /// The name that was read.
    pub fn named(self, space: &Space, outcome: Outcome) -> Result<Named> {
        let record = outcome.map_err(unreadable)?;
        let front = record.front().filter(|front| self.is_of(space, *front)).ok_or_else(damaged)?;
        let key = Key::new(front.key).map_err(|_| damaged())?.as_str().into();
        Ok(Named { wanted: self, key })
    }

    /// Whether an entry is the one that is wanted, and not that of another key.
    fn is_of(&self, space: &Space, front: Front<'_>) -> bool {
        let is_named = match &self.key {
            Some(key) => key.as_bytes() == front.key,
            None => space.id(front.key) == Some(self.id) && Key::new(front.key).is_ok(),
        };
        is_named && front.namespace == space.number()
    }
}

impl Named {
    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl Fetched {
    /// The entry.
    pub fn entry(&self) -> EntryRef<'_> {
        self.entry.entry()
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.entry.entry().memory_bytes()
    }

    /// The entry beside any table, for a read that leaves it on disk.
    pub fn into_copy(self) -> (KeyHash, OwnedEntry) {
        (self.wanted.id.hash(), self.entry)
    }
}

impl<'a> Txn<'a> {
    /// Makes a key ready for a step that looks at its value, or only replaces, deletes or counts it. Answers what must
    /// be read first, if it is on disk; then the step is begun anew.
    pub fn warm(&mut self, place: Place<'_>, for_value: bool) -> Option<Wanted> {
        let space = self.space;
        let shard = self.shard(place.hash);
        let cold = shard.cold.as_mut().filter(|cold| !cold.is_empty())?;
        if shard.table.find(place.hash, place.key.as_bytes()).is_some() {
            return None;
        }
        let id = space.id(place.key.as_bytes())?;
        if let Some(entry) = cold.take_back(id) {
            self.come_back(id.hash(), entry);
            return None;
        }
        // What is later than the index can say, only the record knows.
        let spot = cold.get(id).filter(|spot| for_value || spot.deadline == Some(Spot::FAR))?;
        let source = cold.source(spot);
        if spot.is_expired(self.now()) && !space.is_replaying() {
            self.forget_cold(place, id, Change::Expire);
            return None;
        }
        Some(Wanted { key: Some(place.key.as_str().into()), id, source: source? })
    }

    /// Whether what was read is still the entry of its key.
    pub fn is_current(&mut self, fetched: &Fetched) -> bool {
        let Wanted { id, source, .. } = &fetched.wanted;
        self.shard(id.hash()).cold.as_ref().is_some_and(|cold| cold.is_at(*id, source))
    }

    /// Notes that an entry on disk is read; answers whether it was before, and so belongs into memory.
    pub fn touch_cold(&mut self, fetched: &Fetched) -> bool {
        let id = fetched.wanted.id;
        self.shard(id.hash()).cold.as_mut().is_some_and(|cold| cold.touch(id))
    }

    /// Goes on without the locks, on copies of what these keys have: what was read of them stays on disk.
    pub fn into_copies(mut self, fetched: Vec<Fetched>, keys: impl Fn(&mut dyn FnMut(Key<'_>))) -> Txn<'a> {
        let mut copies = Vec::new();
        keys(&mut |key| {
            let (place, id) = (self.place(key), self.space.id(key.as_bytes()));
            if id.is_none_or(|id| self.spot_of(id).is_none()) {
                let copy = self.with_entry(place, true, |entry| entry.map(EntryRef::to_owned));
                copies.extend(copy.map(|copy| (place.hash, copy)));
            }
        });
        for one in fetched {
            self.touch_cold(&one);
            self.count_hit(&one);
            copies.push(one.into_copy());
        }
        let (space, clock, now) = (self.space, self.clock, self.now.clone());
        let notices = self.finish();
        let rests_on = notices.rests_on();
        notices.send();
        Txn { now, rests_on, ..Txn::on_copies(space, clock, copies) }
    }

    /// Counts a read that was served from disk.
    pub fn count_hit(&mut self, fetched: &Fetched) {
        self.shard(fetched.wanted.id.hash()).reads.hits += 1;
    }

    /// Takes an entry that was read into the table, unless its key has changed meanwhile.
    pub fn promote(&mut self, fetched: Fetched) {
        if !self.is_current(&fetched) {
            return;
        }
        let Fetched { wanted: Wanted { id, .. }, entry } = fetched;
        let version = self.space.version(entry.entry().sequence());
        if let Some(cold) = &mut self.shard(id.hash()).cold {
            cold.come_in(id, version);
        }
        self.come_back(id.hash(), entry);
    }

    fn come_back(&mut self, hash: KeyHash, entry: OwnedEntry) {
        self.changed = true;
        let policy = self.space.order_policy();
        let after = Some(entry.entry().deadline());
        let shard = self.shard(hash);
        shard.table.restore(hash, entry);
        shard.track(hash, Applied::new(None, after), policy);
    }

    /// Kind and deadline of a live key, wherever its value is: no touch.
    pub fn about(&mut self, place: Place<'_>) -> Option<(Kind, Option<u64>)> {
        if let Some(entry) = self.peek(place) {
            return Some((entry.kind(), entry.deadline()));
        }
        let (_, spot) = self.cold_spot(place)?;
        Some((Kind::from_number(spot.kind)?, spot.deadline))
    }

    /// Deletes a live key that is on disk; answers whether there was one.
    pub(super) fn delete_cold(&mut self, place: Place<'_>) -> bool {
        let Some((id, _)) = self.cold_spot(place) else { return false };
        self.forget_cold(place, id, Change::Delete);
        true
    }

    fn cold_spot(&mut self, place: Place<'_>) -> Option<(KeyId, Spot)> {
        let space = self.space;
        let cold = self.shard(place.hash).cold.as_ref().filter(|cold| !cold.is_empty())?;
        let id = space.id(place.key.as_bytes())?;
        let spot = cold.get(id)?;
        if spot.is_expired(self.now()) {
            self.forget_cold(place, id, Change::Expire);
            return None;
        }
        Some((id, spot))
    }

    /// Removes a key on disk, and tells whoever wants to know.
    fn forget_cold(&mut self, place: Place<'_>, id: KeyId, change: Change) {
        // What expired is gone by its deadline, whatever the log says.
        let logged = (change == Change::Delete && self.space.wal().is_some())
            .then(|| self.log(place, &Mutation::Delete));
        let Some(version) = self.forget_id(id, change) else { return self.unlog(logged) };
        if self.is_listened_to(id.hash()) {
            self.remember(place, change, version);
        }
    }

    /// Removes a key on disk that nobody is told of; answers the version of that, if it was there.
    pub fn forget_id(&mut self, id: KeyId, change: Change) -> Option<u64> {
        self.changed = true;
        let space = self.space;
        let shard = self.shard(id.hash());
        let version = space.version(shard.next_sequence());
        let cold = shard.cold.as_mut()?;
        let was_there = match change {
            Change::Expire | Change::Evict => cold.forget_at_once(id, version),
            Change::Set | Change::Delete => cold.forget(id, version),
        };
        shard.counters.expired += u64::from(was_there && change == Change::Expire);
        shard.counters.evicted += u64::from(was_there && change == Change::Evict);
        was_there.then_some(version)
    }

    /// Removes a key that is still at the place where its name was read from.
    pub fn remove_named(&mut self, named: &Named, change: Change) {
        let Wanted { id, source, .. } = &named.wanted;
        let is_current = self.shard(id.hash()).cold.as_ref().is_some_and(|cold| cold.is_at(*id, source));
        if let (true, Ok(key)) = (is_current, Key::new(named.key.as_bytes())) {
            self.forget_cold(Place { key, hash: id.hash() }, *id, change);
        }
    }

    /// Where a key is on disk.
    pub fn spot_of(&mut self, id: KeyId) -> Option<Spot> {
        self.shard(id.hash()).cold.as_ref()?.get(id)
    }

    /// What must be read to know the name of a key on disk.
    pub fn name_of(&mut self, id: KeyId, spot: Spot) -> Option<Wanted> {
        let source = self.shard(id.hash()).cold.as_ref()?.source(spot)?;
        Some(Wanted { key: None, id, source })
    }

    /// Whether somebody may have to be told of changes of keys of this hash's shard.
    pub fn is_listened_to(&mut self, hash: KeyHash) -> bool {
        self.space.has_prefix_watchers() || !self.shard(hash).waiters.is_empty()
    }

    /// Visits the keys of the one locked shard that are in its table or departing, and gives those on disk to `cold`, all in
    /// hash order from `from` on, until about `limit` of each are visited; answers where to go on.
    pub fn walk(
        &mut self,
        from: KeyHash,
        limit: usize,
        mut visit: impl FnMut(EntryRef<'_>),
        mut cold: impl FnMut(Spot, Wanted),
    ) -> Option<KeyHash> {
        let shard = self.only_shard()?;
        let Some(beside) = shard.cold.as_ref().filter(|cold| !cold.is_empty()) else {
            return shard.table.scan(from, limit, |_, entry| visit(entry));
        };
        let mut met = Vec::new();
        let mut end = shard.table.scan(from, limit, |hash, entry| met.push((hash, entry)));
        let (mut last, mut count) = (from, 0);
        for (id, resting) in beside.from(from) {
            let hash = id.hash();
            if end.is_some_and(|end| hash >= end) {
                break;
            }
            if count >= limit && hash != last {
                // Right behind the last one: whoever keeps a position may round it up past the bits that all hashes of a
                // shard share.
                end = last.bits().checked_add(1).map(KeyHash::from_bits);
                break;
            }
            (last, count) = (hash, count + 1);
            match resting {
                Resting::Departing(entry) => visit(entry.entry()),
                Resting::Cold(spot) => {
                    if let Some(source) = beside.source(spot) {
                        cold(spot, Wanted { key: None, id, source });
                    }
                }
            }
        }
        let before_end = |hash: KeyHash| end.is_none_or(|end| hash < end);
        met.into_iter().filter(|(hash, _)| before_end(*hash)).for_each(|(_, entry)| visit(entry));
        end
    }

    /// Lets the next entry in order leave the one locked shard, if it may; answers its bytes.
    pub fn demote(&mut self, victim: Victim, departures: &mut Departures) -> usize {
        self.changed = true;
        self.evict_into(victim, Some(departures))
    }

    /// An entry leaves the table for a batch. `None` if it can't: then it stays.
    pub(super) fn depart(
        &mut self,
        hash: KeyHash,
        key: Key<'_>,
        departures: &mut Departures,
    ) -> Option<usize> {
        let (space, now) = (self.space, self.now());
        let id = space.id(key.as_bytes())?;
        let shard = self.only_shard()?;
        let deadline = shard.table.find(hash, key.as_bytes())?.deadline();
        if deadline.is_some_and(|at| at <= now) && !space.is_replaying() {
            if space.wal().is_some_and(|wal| wal.is_short()) {
                // Its room in the log is for those who free space on disk.
                return None;
            }
            self.remove(Place { key, hash }, Change::Expire);
            return Some(1);
        }
        if deadline.is_some_and(|at| at <= departures.spares_until) {
            return None;
        }
        let entry = shard.table.find(hash, key.as_bytes())?.to_owned();
        shard.table.remove(hash, key.as_bytes());
        // Not by `track`: whoever evicts has taken it from the order already.
        shard.counters.expiring -= usize::from(deadline.is_some());
        let view = entry.entry();
        if let Some(cold) = shard.cold.as_mut().filter(|cold| cold.is_clean(id, view.sequence())) {
            cold.leave(id);
            return Some(view.memory_bytes().max(1));
        }
        let (bytes, version) = (view.memory_bytes(), space.version(view.sequence()));
        if is_large(view) {
            departures.large.push((space.number(), id, version, view.to_owned()));
        } else {
            put(&mut departures.batch, space.number(), id, version, view);
        }
        shard.cold.as_mut()?.depart(id, entry);
        Some(bytes.max(1))
    }

    /// Entries of the one locked shard have arrived on disk.
    pub fn arrive_all(&mut self, items: &[Item]) {
        for (index, item) in items.iter().enumerate() {
            if let (Some(next), Some(shard)) = (items.get(index + ARRIVES_AHEAD), self.only_shard()) {
                shard.table.prefetch_entry(next.id().hash());
            }
            self.arrive(item);
        }
    }

    fn arrive(&mut self, item: &Item) {
        self.changed = true;
        let (space, id) = (self.space, item.id());
        if let (Some(locator), Some(Shard { cold: Some(cold), table, sequence, .. })) =
            (item.locator, self.only_shard())
        {
            let spot = Spot::new(locator, item.deadline(), item.kind());
            let is_named = |entry: EntryRef<'_>| space.id(entry.key()) == Some(id);
            let is_in_table = || table.near(id.hash()).any(is_named);
            let (arrived, last) = (space.sequence_of(item.version()), space.version(*sequence));
            cold.arrive(id, arrived, spot, last, is_in_table);
        }
    }

    /// Encodes entries of the one locked shard that changed since its last checkpoint, from this hash on, as many as may be
    /// under a lock and fit; answers where to go on. The entries stay.
    pub fn checkpoint(&mut self, from: KeyHash, departures: &mut Departures) -> Option<KeyHash> {
        let space = self.space;
        let shard = self.only_shard()?;
        let checkpointed = shard.cold()?.checkpointed();
        let enough = departures.batch.bytes().saturating_add(LOCKED_ENCODE_BYTES);
        shard.table.sift(from, LOOKED_AT_ONCE, |entry| {
            if entry.sequence() > checkpointed
                && let Some(id) = space.id(entry.key())
            {
                let version = space.version(entry.sequence());
                if is_large(entry) {
                    departures.large.push((space.number(), id, version, entry.to_owned()));
                } else {
                    put(&mut departures.batch, space.number(), id, version, entry);
                }
                return departures.batch.bytes() < enough && !departures.is_full();
            }
            true
        })
    }

    /// The last sequence number that the one locked shard has given.
    pub fn last_sequence(&mut self) -> u64 {
        self.only_shard().map_or(0, |shard| shard.sequence)
    }

    /// Takes back every departing entry of the one locked shard: they could not be written.
    pub fn stay(&mut self) {
        while let Some((id, entry)) = self.only_shard().and_then(|shard| {
            let cold = shard.cold.as_mut()?;
            let id = cold.any_departing()?;
            Some((id, cold.take_back(id)?))
        }) {
            self.come_back(id.hash(), entry);
        }
    }
}
