//! The cold tier at work: entries leave memory for it when the budget is short, and are fetched for the commands that need
//! them. A command blocks its caller while it reads, never with a shard locked.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use data_bridge_kv_model::command::{KeyCommand, ScalarCommand, SetOptions};
use data_bridge_kv_model::{Command, Error, ErrorKind, Key, KeySet, Result};
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::open::refused;
use super::room::ORDER_AT_ONCE;
use super::stats::{FETCH_TIMES, TierStats};
use super::{Core, NamespaceId};
use crate::clock::Stopwatch;
use crate::cold::reclaim::{Fate, Holder, Pick};
use crate::cold::{Class, Locator, Log, Policy, Spot};
use crate::hash::stable::{KeyId, StableHasher};
use crate::manifest::Manifest;
use crate::router::{lock_keys, lock_one};
use crate::settings::{Blocking, DataDirectory, Eviction, Mode};
use crate::shard::notice::Change;
use crate::shard::txn::{Departures, Fetched, Guards, Wanted};
use crate::shard::{ColdKeys, Space, Txn};

/// Rounds after which a command keeps entries from leaving memory until it has run: others may have made its keys cold
/// again each time.
const FREE_ROUNDS: usize = 3;
/// Most values that one command may hold while it waits for others.
const FETCHED_BYTES: usize = 256 << 20;
/// Share of the memory budget, and of the space on disk, that is kept free in the background: one in so many.
const HEADROOM: u64 = 16;
/// Segments at the limit of space.
const SEGMENTS: u64 = 32;
const SEGMENT_BYTES: (u64, u64) = (1 << 20, 64 << 20);
/// Space that dead entries may take: half as much as the live ones, beside some segments.
const SPARE_SEGMENTS: u64 = 2;
/// A segment that is rewritten is dead to this share, in percent.
const DEAD_PERCENT: u64 = 20;
/// Pages of an index that are searched for expired keys at once.
const SWEEP_PAGES: usize = 1024;
/// Victims in a row that may not leave before demotion gives up.
const STUCK: usize = 1024;

/// What the spaces' cold entries have in common.
pub(super) struct Tier {
    /// Caches' entries, and tasks'.
    logs: [Arc<Log>; 2],
    /// Written by whoever lets entries change their place; read by a command that must not meet that.
    moves: RwLock<()>,
    work: Mutex<Departures>,
    blocking: Blocking,
    pub(super) figures: Figures,
    /// Held while the store is open; taken with `work`, so that nobody writes any more when others may have it.
    directory: Mutex<Option<DataDirectory>>,
}

/// What the tier did.
#[derive(Default)]
pub(super) struct Figures {
    pub(super) demoted: AtomicU64,
    pub(super) fetched: AtomicU64,
    pub(super) promoted: AtomicU64,
    pub(super) reclaimed_bytes: AtomicU64,
    pub(super) moved: AtomicU64,
    pub(super) stalls: AtomicU64,
    pub(super) write_errors: AtomicU64,
    fetch_times: [AtomicU64; FETCH_TIMES],
    fetch_us: AtomicU64,
}

impl Tier {
    /// Opens the tier. What a cache left is removed; what tasks left is there, but not in the shards yet.
    pub(super) fn open(directory: DataDirectory, seed: u64, blocking: Blocking) -> Result<Tier> {
        let disk = Arc::clone(directory.disk());
        let failed =
            |error: io::Error| Error::new(ErrorKind::Unavailable, format!("the data directory: {error}"));
        let max_bytes = directory.max_bytes();
        let (least, most) = SEGMENT_BYTES;
        let policy = |class| Policy {
            class,
            is_durable: class == Class::Task,
            segment_bytes: (max_bytes / SEGMENTS).clamp(least, most),
            max_bytes,
            fingerprint: StableHasher::new(seed).fingerprint(),
        };
        let caches = Log::create(Arc::clone(&disk), policy(Class::Cache)).map_err(failed)?;
        let tasks = Log::open(Arc::clone(&disk), policy(Class::Task)).map_err(|error| refused(&error))?;
        Ok(Tier {
            logs: [Arc::new(caches), Arc::new(tasks)],
            moves: RwLock::new(()),
            work: Mutex::default(),
            blocking,
            figures: Figures::default(),
            directory: Mutex::new(Some(directory)),
        })
    }

    pub(super) fn log(&self, mode: Mode) -> &Arc<Log> {
        match mode {
            Mode::Cache => &self.logs[0],
            Mode::Task => &self.logs[1],
        }
    }

    /// The log of task namespaces.
    pub(super) fn task_log(&self) -> &Arc<Log> {
        self.log(Mode::Task)
    }

    /// What whoever writes to the logs holds; `None` once the directory belongs to others.
    pub(super) fn lock_work(&self) -> Option<MutexGuard<'_, Departures>> {
        let work = self.work.lock();
        (!self.is_closed()).then_some(work)
    }

    /// Gives the directory to others. What is read meanwhile can still be read; nothing is written from now on.
    pub(super) fn close(&self) {
        let work = self.work.lock();
        let directory = self.directory.lock().take();
        drop((work, directory));
    }

    /// Writes the manifest of the directory; answers whether it lasts.
    pub(super) fn write_manifest(&self, manifest: &Manifest) -> bool {
        let directory = self.directory.lock();
        let written = directory.as_ref().map(|directory| manifest.write(&**directory.disk()));
        if let Some(Err(_)) = written {
            self.figures.write_errors.fetch_add(1, Relaxed);
        }
        written.is_some_and(|written| written.is_ok())
    }

    fn is_closed(&self) -> bool {
        self.directory.lock().is_none()
    }

    pub(super) fn logs(&self) -> &[Arc<Log>] {
        &self.logs
    }

    /// Does what may block where the caller's thread may.
    pub(super) fn block<R: Send>(&self, act: impl FnOnce() -> R + Send) -> R {
        let (mut act, mut result) = (Some(act), None);
        (self.blocking)(&mut || {
            if let Some(act) = act.take() {
                result = Some(act());
            }
        });
        result.or_else(|| act.map(|act| act())).expect("the act ran once")
    }

    /// Reads entries and shows each to `visit`; none is kept.
    pub(super) fn fetch_each(
        &self,
        space: &Space,
        wanted: Vec<Wanted>,
        mut visit: impl FnMut(Fetched) + Send,
    ) -> Result<()> {
        self.figures.fetched.fetch_add(wanted.len() as u64, Relaxed);
        self.block(|| {
            wanted.into_iter().try_for_each(|wanted| self.timed(|| wanted.fetch(space)).map(&mut visit))
        })
    }

    fn timed<R>(&self, read: impl FnOnce() -> R) -> R {
        let watch = Stopwatch::start();
        let result = read();
        self.count_time(watch.elapsed_us());
        result
    }

    fn count_time(&self, us: u64) {
        let range = (u64::BITS - us.leading_zeros()) as usize;
        self.figures.fetch_times[range.min(FETCH_TIMES - 1)].fetch_add(1, Relaxed);
        self.figures.fetch_us.fetch_add(us, Relaxed);
    }

    pub(super) fn stats(&self) -> TierStats {
        let figures = &self.figures;
        let of = |figure: &AtomicU64| figure.load(Relaxed);
        let mut stats = TierStats {
            max_bytes: self.logs.first().map_or(0, |log| log.policy().max_bytes),
            demoted: of(&figures.demoted),
            fetched: of(&figures.fetched),
            promoted: of(&figures.promoted),
            reclaimed_bytes: of(&figures.reclaimed_bytes),
            moved: of(&figures.moved),
            stalls: of(&figures.stalls),
            write_errors: of(&figures.write_errors),
            fetch_times: figures.fetch_times.each_ref().map(of),
            fetch_us: of(&figures.fetch_us),
            ..TierStats::default()
        };
        for usage in self.logs.iter().map(|log| log.usage()) {
            stats.bytes += usage.bytes;
            stats.live_bytes += usage.live_bytes;
            stats.segments += usage.segments;
        }
        stats
    }

    /// Reads what a command needs.
    pub(super) fn fetch(&self, space: &Space, wanted: Vec<Wanted>) -> Result<Vec<Fetched>> {
        let (mut bytes, mut fetched) = (0_usize, Vec::with_capacity(wanted.len()));
        self.fetch_each(space, wanted, |one| {
            bytes = bytes.saturating_add(one.bytes());
            if bytes <= FETCHED_BYTES || fetched.is_empty() {
                fetched.push(one);
            }
        })?;
        if bytes > FETCHED_BYTES && fetched.len() > 1 {
            let message = "the values on disk that the command needs are more than 256 MiB";
            return Err(Error::new(ErrorKind::Limit, message));
        }
        Ok(fetched)
    }
}

/// Whether a command alone looks at the values of its keys, or only replaces, deletes, counts or dates them.
pub(super) fn looks_at_values(space: &Space, command: &Command<'_>) -> bool {
    let blind = match command {
        Command::Key(command) => matches!(
            command,
            KeyCommand::Delete { .. }
                | KeyCommand::Exists { .. }
                | KeyCommand::Ttl { .. }
                | KeyCommand::Type { .. }
                | KeyCommand::Kind { .. }
        ),
        Command::Scalar(ScalarCommand::Set { options, .. }) => {
            SetOptions { any_kind: false, ..*options } == SetOptions::PLAIN
        }
        Command::Scalar(ScalarCommand::MultiSet { only_if_absent, .. }) => !only_if_absent,
        _ => false,
    };
    !blind || space.settings().graph.is_some()
}

/// The step on one key, or what it reads beside memory.
pub(super) enum Warm<'a> {
    Ready(Txn<'a>),
    Copy(Fetched),
}

impl Core {
    /// Begins a step all of whose keys are in memory or nowhere; `keys` names them.
    pub(super) fn begin_warm<'a>(
        &'a self,
        space: &'a Space,
        lock: impl Fn() -> Guards<'a>,
        keys: impl Fn(&mut dyn FnMut(Key<'_>)),
    ) -> Result<Txn<'a>> {
        let Some(tier) = &self.tier else { return Ok(self.begin(space, lock())) };
        let (mut fetched, mut round) = (Vec::new(), 0);
        let mut _pause = None;
        loop {
            if round == FREE_ROUNDS {
                _pause = Some(tier.moves.read());
            }
            round += 1;
            let mut txn = self.begin(space, lock());
            tier.figures.promoted.fetch_add(fetched.len() as u64, Relaxed);
            fetched.drain(..).for_each(|one| txn.promote(one));
            let mut wanted = Vec::new();
            keys(&mut |key| {
                let place = txn.place(key);
                wanted.extend(txn.warm(place, true));
            });
            if wanted.is_empty() {
                return Ok(txn);
            }
            txn.finish().send();
            fetched = tier.fetch(space, wanted)?;
        }
    }

    /// The same for the keys of one command, which may not look at their values.
    pub(super) fn begin_several<'a>(
        &'a self,
        space: &'a Space,
        keys: KeySet<'_>,
        for_values: bool,
    ) -> Result<Txn<'a>> {
        if for_values {
            return self.begin_warm(space, || lock_keys(space, keys), |visit| keys.for_each(visit));
        }
        let mut txn = self.begin(space, lock_keys(space, keys));
        keys.for_each(|key| {
            let place = txn.place(key);
            txn.warm(place, false);
        });
        Ok(txn)
    }

    /// Makes the step on one key ready. A read of a cold key that was not read before leaves it cold.
    pub(super) fn warm_one<'a>(
        &'a self,
        mut txn: Txn<'a>,
        key: Key<'_>,
        for_value: bool,
        may_copy: bool,
    ) -> Result<Warm<'a>> {
        let Some(tier) = &self.tier else { return Ok(Warm::Ready(txn)) };
        let place = txn.place(key);
        let Some(wanted) = txn.warm(place, for_value) else { return Ok(Warm::Ready(txn)) };
        let space = txn.space();
        txn.finish().send();
        let index = space.shard_of(place.hash);
        if may_copy {
            for fetched in tier.fetch(space, vec![wanted])? {
                let mut txn = self.begin_at(space, index);
                if txn.is_current(&fetched) {
                    txn.count_hit(&fetched);
                    if !txn.touch_cold(&fetched) {
                        return Ok(Warm::Copy(fetched));
                    }
                    tier.figures.promoted.fetch_add(1, Relaxed);
                    txn.promote(fetched);
                    txn.know(key, place.hash);
                    return Ok(Warm::Ready(txn));
                }
            }
        }
        let mut txn = self.begin_warm(space, || lock_one(space, index), |visit| visit(key))?;
        txn.know(key, place.hash);
        Ok(Warm::Ready(txn))
    }

    /// Makes room by letting entries leave memory, as far as one write may be held up. Answers false if nothing left.
    pub(super) fn demote_excess(&self, own: NamespaceId) -> bool {
        let Some(tier) = &self.tier else { return false };
        tier.figures.stalls.fetch_add(1, Relaxed);
        tier.block(|| {
            while self.budget.excess() > 0 {
                if self.demote_batch(tier, Some(own), self.budget.excess()) == 0 {
                    return false;
                }
            }
            true
        })
    }

    /// Writes one batch of entries of those namespaces that may lose them soonest; answers the bytes that memory gained.
    fn demote_batch(&self, tier: &Tier, own: Option<NamespaceId>, wanted: u64) -> usize {
        let Some(mut departures) = tier.lock_work() else { return 0 };
        let first = own.map(|own| self.space(own));
        for (mode, log) in [Mode::Cache, Mode::Task].into_iter().zip(&tier.logs) {
            let of_mode = |space: &&Space| space.is_touched() && space.settings().mode == mode;
            let rest =
                self.spaces.iter().filter(|space| first.is_none_or(|first| !std::ptr::eq(first, *space)));
            let mut gathered = 0_usize;
            for space in first.into_iter().chain(rest).filter(of_mode) {
                while !space.extend_orders(ORDER_AT_ONCE) {}
                gathered += self.gather(space, wanted.saturating_sub(gathered as u64), &mut departures);
            }
            // What is on disk already left for free.
            if gathered > 0 && self.write(tier, log, &mut departures) {
                return gathered;
            }
        }
        0
    }

    /// Lets entries of a namespace depart until there are enough.
    fn gather(&self, space: &Space, wanted: u64, departures: &mut Departures) -> usize {
        let (mut gathered, mut stuck) = (0_usize, 0);
        while (gathered as u64) < wanted && stuck < STUCK && !departures.is_full() {
            let Some(victim) = space.balance().and_then(|balance| balance.victim()) else { break };
            let mut txn = self.begin_at(space, victim.shard);
            let bytes = txn.demote(victim, departures);
            txn.finish().send();
            gathered += bytes;
            stuck = if bytes == 0 { stuck + 1 } else { 0 };
        }
        gathered
    }

    /// Appends what departs and lets it arrive, or takes it back; answers whether it arrived.
    fn write(&self, tier: &Tier, log: &Arc<Log>, departures: &mut Departures) -> bool {
        departures.encode_large();
        let count = departures.batch.items().len() as u64;
        if count == 0 {
            return true;
        }
        let is_written = self.put(tier, log, departures);
        if is_written {
            tier.figures.demoted.fetch_add(count, Relaxed);
        }
        is_written
    }

    /// Appends a batch, once its versions are durable where they are logged, and tells the shards where everything stands;
    /// answers whether it was written.
    pub(super) fn put(&self, tier: &Tier, log: &Arc<Log>, departures: &mut Departures) -> bool {
        let batch = &mut departures.batch;
        let is_durable = !log.policy().is_durable || self.sync_log().is_some();
        let mut written = if is_durable { log.append(batch) } else { Err(io::ErrorKind::Other.into()) };
        if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::StorageFull) {
            self.free_space(tier, log, true);
            written = log.append(batch);
        }
        let number = |space: &&Space, item: &crate::cold::Item| space.number() == item.namespace();
        for item in batch.items() {
            let Some(space) = self.spaces.iter().find(|space| number(space, item)) else { continue };
            let shard = space.shard_of(item.id().hash());
            let _moves = tier.moves.write();
            let mut txn = self.begin_at(space, shard);
            match &written {
                Ok(()) => txn.arrive(item),
                Err(_) => txn.stay(),
            }
            txn.finish().send();
        }
        batch.clear();
        tier.figures.write_errors.fetch_add(u64::from(written.is_err()), Relaxed);
        written.is_ok()
    }

    /// Lets everything leave memory that may.
    pub(super) fn demote_all(&self) {
        let Some(tier) = &self.tier else { return };
        while self.demote_batch(tier, None, u64::MAX) > 0 {}
    }

    /// Background work: keeps some of the budget free, removes what has expired, gives dead space back.
    pub(super) fn tend_tier(&self) {
        let Some(tier) = &self.tier else { return };
        loop {
            let limit = self.budget.limit();
            let over = self.budget.used().saturating_sub(limit.saturating_sub(limit / HEADROOM));
            if over == 0 || self.demote_batch(tier, None, over) == 0 {
                break;
            }
        }
        self.expire_cold();
        for log in tier.logs() {
            // The lock keeps reclaim and demotion apart: a log has one writer.
            if let Some(_work) = tier.lock_work() {
                self.free_space(tier, log, false);
            }
        }
        self.checkpoint_if_due();
    }

    /// Rewrites segments until dead entries take no more than their share. At the limit of space the oldest entries that
    /// may be evicted go.
    fn free_space(&self, tier: &Tier, log: &Log, is_full: bool) {
        let (spare, limit) =
            (log.policy().segment_bytes.saturating_mul(SPARE_SEGMENTS), log.policy().max_bytes);
        for _ in 0..SEGMENTS {
            let usage = log.usage();
            let full = is_full || usage.bytes > limit.saturating_sub((limit / HEADROOM).max(spare));
            let wasteful =
                usage.bytes > usage.live_bytes.saturating_add(usage.live_bytes / 2).saturating_add(spare);
            let pick = match (wasteful, full) {
                (true, _) => Pick::Deadest(DEAD_PERCENT),
                (false, true) => Pick::Oldest,
                (false, false) => break,
            };
            // What was deleted can be given back once its tombstone is written.
            if log.policy().is_durable && self.settle_deletes().is_none() {
                break;
            }
            let holder = Shards { core: self, tier, evicts: pick == Pick::Oldest };
            match log.reclaim(&holder, pick) {
                Ok(Some(done)) => {
                    tier.figures.reclaimed_bytes.fetch_add(done.freed_bytes, Relaxed);
                    tier.figures.moved.fetch_add(done.moved, Relaxed);
                    if is_full && done.freed_bytes > 0 || done.freed_bytes == 0 {
                        break;
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    tier.figures.write_errors.fetch_add(1, Relaxed);
                    break;
                }
            }
        }
    }

    /// Removes cold keys whose deadline has passed.
    fn expire_cold(&self) {
        for space in self.spaces.iter().filter(|space| space.is_touched()) {
            for index in 0..space.shard_count() {
                let mut found = Vec::new();
                let now = self.clock.unix_ms();
                if let Some(cold) = space.lock(index).cold_mut() {
                    cold.expired(now, SWEEP_PAGES, &mut found);
                }
                for (id, spot) in found {
                    self.remove_cold(space, id, spot.locator, Change::Expire);
                }
            }
        }
    }

    /// Removes a cold key that is still at this place. Its name is read only if somebody is told of it.
    fn remove_cold(&self, space: &Space, id: KeyId, at: Locator, change: Change) {
        let mut txn = self.begin_at(space, space.shard_of(id.hash()));
        let is_there = |spot: Spot| spot.locator == at;
        if !txn.is_listened_to(id.hash()) {
            if txn.spot_of(id).is_some_and(is_there) {
                txn.forget_id(id, change);
            }
            return txn.finish().send();
        }
        let wanted = txn.spot_of(id).filter(|spot| is_there(*spot)).and_then(|spot| txn.name_of(id, spot));
        txn.finish().send();
        // A record that can't be read any more has no name to tell.
        if let Some(fetched) = wanted.and_then(|wanted| wanted.fetch(space).ok()) {
            let mut txn = self.begin_at(space, space.shard_of(id.hash()));
            txn.remove_named(&fetched, change);
            txn.finish().send();
        }
    }
}

/// The shards of all namespaces, as reclaim sees them.
struct Shards<'a> {
    core: &'a Core,
    tier: &'a Tier,
    /// Whether entries that may be evicted go instead of moving.
    evicts: bool,
}

impl Shards<'_> {
    fn space(&self, namespace: u8) -> Option<&Space> {
        self.core.spaces.iter().find(|space| space.number() == namespace)
    }

    /// Asks what the shard of a key knows of it.
    fn ask<R>(&self, namespace: u8, id: KeyId, ask: impl FnOnce(&ColdKeys) -> R) -> Option<R> {
        let space = self.space(namespace)?;
        space.lock(space.shard_of(id.hash())).cold().map(ask)
    }
}

impl Holder for Shards<'_> {
    fn judge(&self, namespace: u8, id: KeyId, at: Locator) -> Fate {
        let found = |cold: &ColdKeys| (cold.points_at(id, at), cold.get(id));
        let (Some((true, spot)), Some(space)) = (self.ask(namespace, id, found), self.space(namespace))
        else {
            return Fate::Dead;
        };
        let policy: Eviction = space.settings().eviction;
        let may_go = |spot: &Spot| !spot.is_touched && policy.admits(spot.deadline.is_some());
        if self.evicts && spot.as_ref().is_some_and(may_go) {
            self.core.remove_cold(space, id, at, Change::Evict);
            return Fate::Dead;
        }
        Fate::Moves
    }

    fn knows(&self, namespace: u8, id: KeyId) -> bool {
        self.ask(namespace, id, |cold| cold.knows(id)) == Some(true)
    }

    fn relocate(&self, namespace: u8, id: KeyId, from: Locator, to: Locator) -> bool {
        let Some(space) = self.space(namespace) else { return false };
        let _moves = self.tier.moves.write();
        let mut shard = space.lock(space.shard_of(id.hash()));
        shard.cold_mut().is_some_and(|cold| cold.relocate(id, from, to))
    }
}
