//! What a running command uses to read and change shards. Every change goes through [`Txn::change`], which turns it
//! into a mutation, keeps an undo image where one is asked for, and remembers whom to tell.

use std::cell::Cell;
use std::sync::Arc;

use data_bridge_kv_model::{Error, ErrorKind, Key, Kind, ReplyBuf, Result};

use super::notice::{Change, Notices, event_item};
use super::undo::UndoLog;
use super::waiters::{Waiter, Watcher};
use super::{Shard, Space, is_large, put_value};
use crate::clock::Clock;
use crate::collections::Collection;
use crate::expire::{REFERENCE_BITS, Wheel};
use crate::hash::KeyHash;
use crate::mutation::{Applied, Mutation, bytes};
use crate::random::Random;
use crate::sync::MutexGuard;
use crate::table::{EntryRef, Look, NewValue, OwnedEntry, Position, Stored};
use crate::wal::Lsn;

mod clear;
mod eviction;
mod gaps;
mod graph;
mod line;
mod record;
mod tier;

pub use clear::Removed;
pub use gaps::Gaps;
pub use tier::{Departures, Fetched, Named, Wanted};

/// A key with its hash: what every step of a command names an entry by.
#[derive(Clone, Copy, Debug)]
pub struct Place<'k> {
    /// The key.
    pub key: Key<'k>,
    /// Its hash in this namespace.
    pub hash: KeyHash,
}

/// The locked shards of a step, by index.
pub enum Guards<'a> {
    /// One shard.
    One(MutexGuard<'a, Shard>),
    /// Several, in ascending order of index; none after the end.
    Many(Vec<(usize, MutexGuard<'a, Shard>)>),
    /// No lock: copies of entries, for a read of something large, or of what stays on disk.
    Copy(Box<Shard>),
}

/// What a step does when it meets a value whose encoding is larger than `LOCKED_ENCODE_BYTES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Large {
    /// Reads it in place: writes, atomic steps, copies.
    InPlace,
    /// Leaves a whole value to a copy, reads parts of a collection in place.
    CopyValues,
    /// Leaves both to a copy.
    CopyAll,
}

struct Touched {
    key: Box<str>,
    hash: KeyHash,
    change: Change,
    version: u64,
}

/// A running step on locked shards.
pub struct Txn<'a> {
    space: &'a Space,
    clock: &'a dyn Clock,
    now: Cell<Option<u64>>,
    guards: Guards<'a>,
    /// The key (where it stands) that the step was begun for, and its hash.
    known: Option<(*const [u8], KeyHash)>,
    /// How much of a large value may be read while the shard is locked.
    large: Large,
    /// Whether anything was changed, or tried to be.
    changed: bool,
    /// The record that has to be durable before anybody may see what the step answers; 0 = none.
    rests_on: Lsn,
    /// The effects of the step as its record has them, where changes are logged. Memory of the shard's journal.
    effects: Vec<u8>,
    /// Those bytes of `effects` that stay when a part is taken back.
    kept_effects: usize,
    /// Whether one of them removes a key.
    removes: bool,
    rare: Option<Box<Rare>>,
}

/// What most steps do without: apart, so that beginning and ending a step costs little.
#[derive(Default)]
struct Rare {
    copied: Option<(KeyHash, OwnedEntry)>,
    gaps: Gaps,
    undo: Option<UndoLog>,
    touched: Vec<Touched>,
    /// Those of `touched` that stay when a part is taken back.
    kept: usize,
}

impl<'a> Txn<'a> {
    /// Starts a step on locked shards of `space`.
    pub fn new(space: &'a Space, clock: &'a dyn Clock, guards: Guards<'a>) -> Txn<'a> {
        Txn {
            space,
            clock,
            now: Cell::new(None),
            guards,
            known: None,
            large: Large::InPlace,
            changed: false,
            rests_on: 0,
            effects: Vec::new(),
            kept_effects: 0,
            removes: false,
            rare: None,
        }
    }

    /// A step that reads copied entries, without a lock.
    pub fn on_copies(
        space: &'a Space,
        clock: &'a dyn Clock,
        copies: impl IntoIterator<Item = (KeyHash, OwnedEntry)>,
    ) -> Txn<'a> {
        let mut shard = space.spare_shard();
        for (hash, entry) in copies {
            shard.table.restore(hash, entry);
        }
        Txn::new(space, clock, Guards::Copy(Box::new(shard)))
    }

    /// Lets reads of something large be left to a copy, see [`Txn::take_copy`].
    pub fn copy_large(&mut self, large: Large) {
        self.large = large;
    }

    /// The entry that the step would have to read at length: the step is to be run again on a copy of it, which shares
    /// what is large, without the lock.
    pub fn take_copy(&mut self) -> Option<(KeyHash, OwnedEntry)> {
        self.rare.as_mut()?.copied.take()
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Keeps undo images from now on, so that [`Txn::roll_back`] can take the step back.
    pub fn keep_undo(&mut self) {
        let rare = self.rare();
        if rare.undo.is_none() {
            rare.undo = Some(UndoLog::default());
            self.kept_effects = self.effects.len();
        }
    }

    /// The namespace.
    pub fn space(&self) -> &'a Space {
        self.space
    }

    /// The time of the step, unix ms: read once, and only if somebody asks.
    #[inline]
    pub fn now(&self) -> u64 {
        if let Some(now) = self.now.get() {
            return now;
        }
        let now = self.clock.unix_ms();
        self.now.set(Some(now));
        now
    }

    /// Where a key stands.
    #[inline]
    pub fn place<'k>(&self, key: Key<'k>) -> Place<'k> {
        match self.known {
            Some((known, hash)) if std::ptr::eq(known, key.as_bytes()) => Place { key, hash },
            _ => Place { key, hash: self.space.hash(key.as_bytes()) },
        }
    }

    /// Tells the hash of this very key, which was computed to lock its shard.
    #[inline]
    pub fn know(&mut self, key: Key<'_>, hash: KeyHash) {
        self.known = Some((std::ptr::from_ref(key.as_bytes()), hash));
    }

    #[inline]
    fn shard(&mut self, hash: KeyHash) -> &mut Shard {
        match &mut self.guards {
            Guards::One(guard) => guard,
            Guards::Copy(shard) => shard,
            Guards::Many(guards) => {
                let index = self.space.shard_of(hash);
                let at = guards.partition_point(|(locked, _)| *locked < index);
                &mut guards[at].1
            }
        }
    }

    /// The live entry of a key, for a command that uses its value: it counts as a touch.
    #[inline]
    pub fn find(&mut self, place: Place<'_>) -> Option<EntryRef<'_>> {
        self.look(place, true)
    }

    /// The live entry of a key, for commands about the key (TTL, EXISTS, TYPE): no touch.
    #[inline]
    pub fn peek(&mut self, place: Place<'_>) -> Option<EntryRef<'_>> {
        self.look(place, false)
    }

    #[inline]
    fn look(&mut self, place: Place<'_>, touch: bool) -> Option<EntryRef<'_>> {
        let position = self.seek(place, touch, |found| found.map(|(_, position)| position))?;
        self.shard(place.hash).table.at(place.hash, position)
    }

    /// Hands the live entry of a key to `use_it`; a `touch` counts as a use of its value.
    #[inline]
    pub fn with_entry<R>(
        &mut self,
        place: Place<'_>,
        touch: bool,
        use_it: impl FnOnce(Option<EntryRef<'_>>) -> R,
    ) -> R {
        self.seek(place, touch, |found| use_it(found.map(|(entry, _)| entry)))
    }

    /// The same with the entry's position, in one probe.
    #[inline]
    fn seek<R>(
        &mut self,
        place: Place<'_>,
        touch: bool,
        use_it: impl FnOnce(Option<(EntryRef<'_>, Position)>) -> R,
    ) -> R {
        let (now, clock, awaited) = (self.now.get(), self.clock, self.space.awaited());
        let mut read = now;
        let shard = self.shard(place.hash);
        let mut rests_on = 0;
        let found = shard
            .table
            .look(place.hash, place.key.as_bytes(), touch, || *read.get_or_insert_with(|| clock.unix_ms()));
        let result = match found {
            Look::Live(entry, position) => {
                shard.reads.hits += u64::from(touch);
                if let Some(wal) = awaited {
                    let journal = shard.journal.as_mut();
                    rests_on = journal.map_or(0, |journal| journal.rests_on(entry.sequence(), wal.durable()));
                }
                use_it(Some((entry, position)))
            }
            Look::Absent => {
                shard.reads.misses += u64::from(touch);
                if awaited.is_some() {
                    rests_on = shard.journal.as_ref().map_or(0, |journal| journal.removal());
                }
                use_it(None)
            }
            Look::Expired => {
                shard.reads.misses += u64::from(touch);
                self.now.set(read);
                self.remove(place, Change::Expire);
                use_it(None)
            }
        };
        self.now.set(read);
        self.rests_on = self.rests_on.max(rests_on);
        result
    }

    /// The live collection of a key, read; an error if the key holds another kind.
    #[inline]
    pub fn collection(&mut self, place: Place<'_>, kind: Kind) -> Result<Option<&Collection>> {
        if self.large == Large::CopyAll && self.leave_to_copy(place) {
            return Err(left_to_copy());
        }
        let found = self.seek(place, true, |found| {
            found.map(|(entry, position)| (entry.kind(), entry.is_whole(), position))
        });
        let Some((found, is_whole, position)) = found else { return Ok(None) };
        if found != kind {
            return Err(Error::wrong_type());
        }
        if is_whole {
            self.build(place);
        }
        let entry = self.shard(place.hash).table.at(place.hash, position);
        Ok(entry.and_then(|entry| entry.value().collection()))
    }

    /// Builds a collection that stands as it was written. No effect that anybody sees: only its memory is another.
    #[cold]
    fn build(&mut self, place: Place<'_>) {
        self.changed = true;
        if let Some(mut entry) = self.shard(place.hash).table.find_mut(place.hash, place.key.as_bytes()) {
            entry.build();
        }
    }

    /// Appends the whole value of a live key with `put`, unless it is large and left to a copy.
    #[inline]
    pub fn with_value<R>(
        &mut self,
        place: Place<'_>,
        put: impl FnOnce(Option<EntryRef<'_>>) -> Result<R>,
    ) -> Result<R> {
        let copies = self.large != Large::InPlace;
        let found = self.with_entry(place, true, |entry| match entry {
            Some(entry) if copies && is_large(entry) => Err(entry.to_owned()),
            entry => Ok(put(entry)),
        });
        found.unwrap_or_else(|copy| {
            self.rare().copied = Some((place.hash, copy));
            Err(left_to_copy())
        })
    }

    fn leave_to_copy(&mut self, place: Place<'_>) -> bool {
        let large =
            |entry: Option<EntryRef<'_>>| entry.filter(|entry| is_large(*entry)).map(EntryRef::to_owned);
        let Some(copy) = self.with_entry(place, false, large) else { return false };
        self.rare().copied = Some((place.hash, copy));
        true
    }

    /// The version of a live key; 0 without one.
    pub fn version(&mut self, place: Place<'_>) -> u64 {
        let space = self.space;
        self.peek(place).map_or(0, |entry| space.version(entry.sequence()))
    }

    /// Writes a whole value and deadline (unix ms) and answers the new version. Where the old or the new value is a
    /// hash with a state, this must be a step that the namespace's transition graph allows.
    pub fn put(&mut self, place: Place<'_>, value: NewValue<'_>, deadline: Option<u64>) -> Result<u64> {
        self.check_put(place, &value)?;
        if self.space.is_logged() {
            self.check_record(bytes::most_bytes_of_put(place.key.as_bytes(), &value))?;
        }
        Ok(self
            .carry_out(place, Mutation::Put { value, deadline }, Change::Set)
            .map_or(0, |(version, _)| version))
    }

    /// Deletes a live key; answers whether there was one.
    pub fn delete(&mut self, place: Place<'_>) -> bool {
        if self.peek(place).is_some() { self.remove(place, Change::Delete) } else { self.delete_cold(place) }
    }

    /// Removes an entry for a reason other than a command.
    pub fn remove(&mut self, place: Place<'_>, change: Change) -> bool {
        self.carry_out(place, Mutation::Delete, change).is_some()
    }

    /// Carries out an effect; answers the entry's new version, or `None` if nothing changed. A collection that lost
    /// its last element is deleted.
    #[inline]
    pub fn change(&mut self, place: Place<'_>, mutation: Mutation<'_>) -> Option<u64> {
        let shrinks = mutation.shrinks();
        let (version, leaves_nothing) = self.carry_out(place, mutation, Change::Set)?;
        if shrinks && leaves_nothing {
            self.carry_out(place, Mutation::Delete, Change::Delete);
        }
        Some(version)
    }

    /// Answers the new version, and whether a collection without elements is left.
    #[inline]
    fn carry_out(&mut self, place: Place<'_>, mutation: Mutation<'_>, change: Change) -> Option<(u64, bool)> {
        if self.rare.is_some() {
            self.save(place);
        }
        self.changed = true;
        let space = self.space;
        let logged = space.wal().is_some().then(|| self.log(place, &mutation));
        let shard = self.shard(place.hash);
        let carried = shard.carry_out(space, place.hash, place.key.as_bytes(), mutation, change);
        let Some((sequence, leaves_nothing)) = carried else {
            self.unlog(logged);
            return None;
        };
        let told = shard.tells(space);
        let version = space.version(sequence);
        if told {
            self.remember(place, change, version);
        }
        Some((version, leaves_nothing))
    }

    /// Remembers a change that somebody is told of.
    #[cold]
    fn remember(&mut self, place: Place<'_>, change: Change, version: u64) {
        let Rare { touched, kept, .. } = self.rare();
        let name = place.key.as_str();
        match touched.get_mut(*kept..).unwrap_or_default().last_mut() {
            // Fields that a step sets one by one are one change of the key.
            Some(last) if last.change == change && last.hash == place.hash && &*last.key == name => {
                last.version = version;
            }
            _ => touched.push(Touched { key: name.into(), hash: place.hash, change, version }),
        }
    }

    /// Keeps how the entry was, once for each key of a step that may be taken back.
    #[cold]
    fn save(&mut self, place: Place<'_>) {
        let Some(undo) = self.rare.as_mut().and_then(|rare| rare.undo.as_mut()) else { return };
        let key = place.key.as_str();
        if undo.is_new(key) {
            let entry = self.shard(place.hash).table.find(place.hash, key.as_bytes()).map(EntryRef::to_owned);
            self.rare().undo.get_or_insert_default().add(key, place.hash, entry);
        }
    }

    /// Begins a part of the step: [`Txn::roll_back`] takes back what was changed from here on, no more.
    pub fn begin_part(&mut self) {
        let rare = self.rare();
        rare.undo = Some(UndoLog::default());
        rare.kept = rare.touched.len();
        self.kept_effects = self.effects.len();
    }

    /// Takes every change of the step, or of its last part, back. Versions that were given stay used.
    pub fn roll_back(&mut self) {
        let policy = self.space.order_policy();
        let space = self.space;
        let Some(undo) = self.rare.as_mut().and_then(|rare| rare.undo.take()) else { return };
        for image in undo.into_images() {
            let shard = self.shard(image.hash);
            if let (Some(cold), Some(id)) = (shard.cold_mut(), space.id(image.key.as_bytes())) {
                let version = image.entry.as_ref().map(|entry| space.version(entry.entry().sequence()));
                cold.roll_back(id, version);
            }
            let after = image.entry.as_ref().map(|entry| entry.entry().deadline());
            let before = match image.entry {
                Some(entry) => shard.table.restore(image.hash, entry),
                None => shard.table.remove(image.hash, image.key.as_bytes()),
            };
            shard.track(image.hash, Applied::new(before, after), policy);
        }
        if let Some(rare) = &mut self.rare {
            rare.touched.truncate(rare.kept);
        }
        self.effects.truncate(self.kept_effects);
    }

    /// A generator for random picks.
    pub fn random(&self) -> Random {
        self.space.random()
    }

    /// Adds one that waits for a key.
    pub fn add_waiter(&mut self, place: Place<'_>, waiter: Waiter) {
        self.shard(place.hash).waiters.party(place.key.as_bytes()).waiters.push(waiter);
    }

    /// Adds one that watches a key.
    pub fn add_watcher(&mut self, place: Place<'_>, watcher: Watcher) {
        self.shard(place.hash).waiters.party(place.key.as_bytes()).watchers.push(watcher);
    }

    /// Removes entries of the one locked shard whose deadline has passed, looking at no more than `limit`; true if
    /// more may be due.
    pub fn expire_due(&mut self, limit: usize) -> bool {
        let now = self.now();
        let Some(shard) = self.only_shard().filter(|shard| !shard.wheel.is_empty()) else { return false };
        let mut wheel = std::mem::replace(&mut shard.wheel, Wheel::new(now));
        let more = wheel.advance(now, limit, |reference, ahead| self.expire_under(reference, ahead, now));
        if let Some(shard) = self.only_shard() {
            shard.wheel = wheel;
            shard.count_side();
        }
        more
    }

    /// Removes the entries under a reference whose deadline has passed; answers the next deadline there. Has the entries
    /// fetched that come next.
    fn expire_under(&mut self, reference: u32, ahead: [Option<u32>; 2], now: u64) -> Option<u64> {
        let shard = self.only_shard()?;
        shard.table.prefetch_under(ahead, REFERENCE_BITS);
        let (mut due, mut next) = (Vec::new(), None);
        for (hash, entry) in shard.table.under(reference, REFERENCE_BITS) {
            match entry.deadline() {
                Some(deadline) if deadline <= now => due.push((hash, Box::<[u8]>::from(entry.key()))),
                Some(deadline) => next = Some(next.map_or(deadline, |next: u64| next.min(deadline))),
                None => {}
            }
        }
        for (hash, key) in due {
            if let Ok(key) = Key::new(&key) {
                self.remove(Place { key, hash }, Change::Expire);
            }
        }
        next
    }

    fn only_shard(&mut self) -> Option<&mut Shard> {
        match &mut self.guards {
            Guards::One(guard) => Some(guard),
            Guards::Many(_) | Guards::Copy(_) => None,
        }
    }

    /// Ends the step: reports memory, releases the locks, answers what waiters and watchers are to be told.
    #[inline]
    pub fn finish(mut self) -> Notices {
        let mut notices = if self.changed { self.settle() } else { Notices::default() };
        if self.rests_on > 0 {
            notices.rest_on(self.rests_on, self.space.awaited());
        }
        notices
    }

    /// Whether there is anything that only few steps have: something to take back, to tell, or to add to the reply.
    #[inline]
    pub fn has_rare(&self) -> bool {
        self.rare.is_some()
    }

    /// Reports memory and gathers the notices of a step that changed something.
    fn settle(&mut self) -> Notices {
        let mut notices = Notices::default();
        if self.effects.capacity() > 0 {
            self.append();
        }
        if let Some(rare) = self.rare.take() {
            for touched in &rare.touched {
                self.notice(touched, &mut notices);
            }
        }
        let budget = self.space.budget();
        match &mut self.guards {
            Guards::One(guard) => guard.report(budget),
            Guards::Many(guards) => guards.iter_mut().for_each(|(_, guard)| guard.report(budget)),
            Guards::Copy(_) => {}
        }
        notices
    }

    fn notice(&mut self, touched: &Touched, notices: &mut Notices) {
        let space = self.space;
        space.notice_prefixes(touched.change, touched.key.as_bytes(), touched.version, notices);
        let shard = self.shard(touched.hash);
        let Shard { table, waiters, .. } = shard;
        let Some(party) = waiters.get_mut(touched.key.as_bytes()) else { return };
        if !party.watchers.is_empty() {
            let event = event_item(touched.change, touched.key.as_bytes(), touched.version);
            for watcher in &party.watchers {
                notices.event(Arc::clone(&watcher.completions), watcher.watch, Arc::clone(&event));
            }
        }
        let entry = table.find(touched.hash, touched.key.as_bytes());
        let state = entry.map(|entry| (entry.value(), space.version(entry.sequence())));
        for waiter in party.waiters.extract_if(.., |waiter| waiter.condition.holds(state, true)) {
            let mut reply = ReplyBuf::new();
            put_versioned(state, touched.version, &mut reply);
            notices.complete(waiter.completions, waiter.token, reply);
        }
        if state.is_some() && !party.line.is_empty() {
            notices.fill(&touched.key);
        }
        waiters.tidy(touched.key.as_bytes());
    }
}

/// Appends Array[value or Missing, version]; `version` is told where there is no entry.
pub fn put_versioned(entry: Option<(Stored<'_>, u64)>, version: u64, out: &mut ReplyBuf) {
    out.container(data_bridge_kv_model::Shape::Array, 2);
    match entry {
        Some((stored, version)) => {
            put_value(stored, out);
            out.version(version);
        }
        None => {
            out.missing();
            out.version(version);
        }
    }
}

/// Ends a step that is run again on a copy; nobody sees this error.
fn left_to_copy() -> Error {
    Error::new(ErrorKind::Unavailable, "the value is read from a copy")
}
