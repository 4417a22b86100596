//! The cold tier at work: entries leave memory for it when the budget is short, and are fetched for the commands that need
//! them. A command blocks its caller while it reads, never with a shard locked.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use data_bridge_kv_model::limits::COLD_BATCH_BYTES;
use data_bridge_kv_model::{Error, ErrorKind, Result};

use super::halt::Means;
use super::held::Held;
use super::open::refused;
use super::reclaim::Vain;
use super::room::ORDER_AT_ONCE;
use super::stats::{FETCH_TIMES, TierStats};
use super::{Core, Halt, NamespaceId, Step, Waits};
use crate::clock::Stopwatch;
use crate::cold::{Class, Item, Log, Outcome, Part, Policy, ReadError, Reading, Reads};
use crate::disk::{Disk, is_full};
use crate::hash::stable::StableHasher;
use crate::manifest::Manifest;
use crate::settings::{Blocking, DataDirectory, Mode};
use crate::shard::Space;
use crate::shard::txn::{Departures, Fetched, Named, Wanted};
use crate::sync::atomic::AtomicBool;
use crate::sync::{Mutex, MutexGuard, RwLock};
use crate::table::hold_short;

/// Most values that one command may hold while it waits for others.
const FETCHED_BYTES: u64 = 256 << 20;
/// Bytes of a batch, and of what is read ahead for one caller, as shares of the memory budget: one in so many.
const BATCHES: u64 = 128;
const AHEADS: u64 = 512;
/// Of the memory budget, what a thread that reads is reckoned to need.
const READER_BYTES: u64 = 16 << 20;
const BATCH_BYTES_MIN: u64 = 64 << 10;
/// Most bytes that a caller who never waits reads from what the system has in memory.
const AT_ONCE_BYTES: u64 = 1 << 20;
/// Share of the memory budget, and of the space on disk, that is kept free in the background: one in so many.
pub(super) const HEADROOM: u64 = 16;
/// Segments at the limit of space.
pub(super) const SEGMENTS: u64 = 32;
const SEGMENT_BYTES: (u64, u64) = (1 << 20, 64 << 20);
/// Entries of one shard that arrive on disk while it is locked, and how many arrive until others get their turn at the core.
const ARRIVING_AT_ONCE: usize = 64;
const ARRIVING_IN_A_TURN: usize = 2048;
/// What expires so soon is not written in the background, which has time: a writer that needs room at once writes it.
const SOON_MS: u64 = 3000;
/// Victims in a row that may not leave before demotion gives up, and how often it begins again.
const STUCK: usize = 1024;
const VAIN: usize = 8;
/// How seldom a checkpoint is tried while there is no space for it, or loading what the disk does not give: each so many looks.
const FULL_LOOKS: u64 = 32;

/// What the spaces' cold entries have in common.
pub(super) struct Tier {
    /// Caches' entries, and tasks'.
    logs: [Arc<Log>; 2],
    /// Written by whoever lets entries change their place; read by a command that must not meet that.
    pub(super) moves: RwLock<()>,
    work: Mutex<Departures>,
    /// Most bytes that are read ahead for one caller.
    pub(super) ahead_bytes: u64,
    pub(super) held: Held,
    pub(super) vain: Vain,
    /// Tasks' entries found no space the last time.
    pub(super) is_full: AtomicBool,
    /// The disk did not give all indexes the last time.
    pub(super) is_unread: AtomicBool,
    /// Looks since then.
    looks: AtomicU64,
    pub(super) reads: Reads,
    blocking: Blocking,
    pub(super) figures: Arc<Figures>,
    /// Held while the store is open; taken with `work`, so that nobody writes any more when others may have it.
    directory: Mutex<Option<DataDirectory>>,
}

/// What the tier did.
#[derive(Default)]
pub(super) struct Figures {
    pub(super) demoted: AtomicU64,
    pub(super) fetched: AtomicU64,
    named: AtomicU64,
    pub(super) copied: AtomicU64,
    damaged: AtomicU64,
    pub(super) read_errors: AtomicU64,
    pub(super) promoted: AtomicU64,
    pub(super) reclaimed_bytes: AtomicU64,
    pub(super) moved: AtomicU64,
    pub(super) stalls: AtomicU64,
    pub(super) stall_us: AtomicU64,
    pub(super) write_errors: AtomicU64,
    fetch_times: [AtomicU64; FETCH_TIMES],
    fetch_us: AtomicU64,
}

impl Tier {
    /// Opens the tier. What a cache left is removed; what tasks left is there, but not in the shards yet.
    pub(super) fn open(
        directory: DataDirectory,
        seed: u64,
        max_memory: u64,
        blocking: Blocking,
    ) -> Result<Tier> {
        let share = |parts| share_of(max_memory, parts);
        let disk = Arc::clone(directory.disk());
        let failed =
            |error: io::Error| Error::new(ErrorKind::Unavailable, format!("the data directory: {error}"));
        let max_bytes = directory.max_bytes();
        let policy = |class| Policy {
            class,
            is_durable: class == Class::Task,
            segment_bytes: segment_bytes(max_bytes),
            max_bytes,
            batch_bytes: share(BATCHES),
            fingerprint: StableHasher::new(seed).fingerprint(),
        };
        let caches = Log::create(Arc::clone(&disk), policy(Class::Cache)).map_err(failed)?;
        let tasks = Log::open(Arc::clone(&disk), policy(Class::Task)).map_err(|error| refused(&error))?;
        hold_short();
        let logs = [caches, tasks].map(Arc::new);
        Log::share_space(&logs[0], &logs[1]);
        Ok(Tier {
            logs,
            moves: RwLock::new(()),
            work: Mutex::default(),
            ahead_bytes: share(AHEADS) as u64,
            held: Held::default(),
            vain: Vain::default(),
            is_full: AtomicBool::new(false),
            is_unread: AtomicBool::new(false),
            looks: AtomicU64::new(0),
            reads: Reads::of(usize::try_from(max_memory / READER_BYTES).unwrap_or(usize::MAX)),
            blocking,
            figures: Arc::default(),
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

    /// The disk of the directory; `None` once it belongs to others.
    pub(super) fn disk(&self) -> Option<Arc<dyn Disk>> {
        Some(Arc::clone(self.directory.lock().as_ref()?.disk()))
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

    /// Whether it is time to try to write tasks' entries.
    pub(super) fn may_try_again(&self) -> bool {
        self.is_due(&self.is_full)
    }

    /// Whether it is time to try what failed the last time, if it did: not each time that somebody looks.
    pub(super) fn is_due(&self, has_failed: &AtomicBool) -> bool {
        !has_failed.load(Relaxed) || self.looks.fetch_add(1, Relaxed).is_multiple_of(FULL_LOOKS)
    }

    /// Where writers wait for room.
    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    pub(super) fn logs(&self) -> &[Arc<Log>] {
        &self.logs
    }

    /// What to say to writers where the limit of space is why memory has no room for them.
    pub(super) fn spent(&self) -> Option<Error> {
        let message = "command not allowed when the space on disk is spent ('--max-disk')";
        self.task_log().is_near_limit().then(|| Error::new(ErrorKind::OutOfMemory, message))
    }

    /// The most bytes on disk.
    pub(super) fn max_bytes(&self) -> u64 {
        self.task_log().policy().max_bytes
    }

    /// Raises the limit of space if there is more by now than when it was set, beside so many bytes that are the store's; whether
    /// it is higher.
    pub(super) fn widen(&self, used: u64) -> bool {
        let directory = self.directory.lock();
        let now = directory.as_ref().and_then(|directory| directory.max_bytes_now(used).ok());
        let Some(most) = now.filter(|most| *most > self.max_bytes()) else { return false };
        self.logs.iter().for_each(|log| log.widen(most, segment_bytes(most)));
        true
    }

    pub(super) fn stats(&self) -> TierStats {
        let figures = &self.figures;
        let of = |figure: &AtomicU64| figure.load(Relaxed);
        let mut stats = TierStats {
            max_bytes: self.max_bytes(),
            demoted: of(&figures.demoted),
            fetched: of(&figures.fetched),
            named: of(&figures.named),
            copied: of(&figures.copied),
            coalesced: self.reads.coalesced(),
            damaged: of(&figures.damaged),
            read_errors: of(&figures.read_errors),
            promoted: of(&figures.promoted),
            reclaimed_bytes: of(&figures.reclaimed_bytes),
            moved: of(&figures.moved),
            stalls: of(&figures.stalls),
            stall_us: of(&figures.stall_us),
            write_errors: of(&figures.write_errors),
            fetch_times: figures.fetch_times.each_ref().map(of),
            fetch_us: of(&figures.fetch_us),
            shards_to_load: self.task_log().parts(),
            ..TierStats::default()
        };
        for usage in self.logs.iter().map(|log| log.usage()) {
            stats.bytes += usage.bytes;
            stats.live_bytes += usage.live_bytes;
            stats.segments += usage.segments;
        }
        stats
    }

    /// Does what may block, as the caller does that.
    pub(super) fn block<R: Send>(&self, waits: Waits, act: impl FnOnce() -> R + Send) -> Step<R> {
        match waits {
            Waits::Never => Err(Halt::Blocked(0)),
            Waits::Alone | Waits::Disk => Ok(act()),
            Waits::Here => {
                let (mut act, mut result) = (Some(act), None);
                (self.blocking)(&mut || {
                    if let Some(act) = act.take() {
                        result = Some(act());
                    }
                });
                Ok(result.or_else(|| act.map(|act| act())).expect("the act ran once"))
            }
        }
    }

    /// The same for a writer that has to wait for room; that is counted.
    pub(super) fn stall<R: Send>(&self, waits: Waits, act: impl FnOnce() -> R + Send) -> Step<R> {
        if matches!(waits, Waits::Never | Waits::Disk) {
            return Err(Halt::NoRoom);
        }
        self.figures.stalls.fetch_add(1, Relaxed);
        let watch = Stopwatch::start();
        let result = self.block(waits, act)?;
        self.figures.stall_us.fetch_add(watch.elapsed_us(), Relaxed);
        Ok(result)
    }

    /// Reads this part of what is wanted, in order.
    fn read(&self, wanted: &[Wanted], part: Part, means: Means) -> Step<Vec<Outcome>> {
        let waits = means.waits;
        let mut reading = Reading::new(wanted.iter().map(Wanted::source), part);
        check_size(&reading, wanted.len())?;
        means.check(reading.bytes())?;
        let watch = Stopwatch::start();
        let is_short = waits != Waits::Never || reading.bytes() <= AT_ONCE_BYTES;
        if !(is_short && reading.at_once()) {
            self.block(waits, || {
                reading.measure();
                check_size(&reading, wanted.len())?;
                means.check(reading.bytes())?;
                self.reads.finish(&mut reading);
                Step::Ok(())
            })??;
        }
        let count = wanted.len() as u64;
        match part {
            Part::Whole => self.figures.fetched.fetch_add(count, Relaxed),
            Part::Front => self.figures.named.fetch_add(count, Relaxed),
        };
        self.count_time(watch.elapsed_us(), count);
        Ok(reading.into_outcomes().inspect(|outcome| self.count_failure(outcome)).collect())
    }

    fn count_time(&self, us: u64, reads: u64) {
        let range = (u64::BITS - us.leading_zeros()) as usize;
        self.figures.fetch_times[range.min(FETCH_TIMES - 1)].fetch_add(reads, Relaxed);
        self.figures.fetch_us.fetch_add(us.saturating_mul(reads), Relaxed);
    }

    fn count_failure(&self, outcome: &Outcome) {
        match outcome {
            Ok(_) => {}
            Err(ReadError::Damaged) => {
                self.figures.damaged.fetch_add(1, Relaxed);
            }
            Err(ReadError::Disk(_)) => {
                self.figures.read_errors.fetch_add(1, Relaxed);
            }
        }
    }

    /// Reads what a command needs.
    pub(super) fn fetch(&self, space: &Space, wanted: Vec<Wanted>, means: Means) -> Step<Vec<Fetched>> {
        let outcomes = self.read(&wanted, Part::Whole, means)?;
        let fetched =
            wanted.into_iter().zip(outcomes).map(|(wanted, outcome)| wanted.fetched(space, outcome));
        Ok(fetched.collect::<Result<_>>()?)
    }

    /// Reads the names of entries. One whose record is damaged has none any more: it is left out, and counted.
    pub(super) fn names(&self, space: &Space, wanted: Vec<Wanted>, waits: Waits) -> Step<Vec<Named>> {
        let outcomes = self.read(&wanted, Part::Front, Means::all(waits))?;
        let named = wanted.into_iter().zip(outcomes).map(|(wanted, outcome)| wanted.named(space, outcome));
        let has_name =
            |named: &Result<Named>| !named.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corruption);
        Ok(named.filter(has_name).collect::<Result<_>>()?)
    }
}

/// The size of the segments of a log that may take so many bytes.
pub(super) fn segment_bytes(max_bytes: u64) -> u64 {
    let (least, most) = SEGMENT_BYTES;
    (max_bytes / SEGMENTS).clamp(least, most)
}

/// So many parts of the memory budget, as bytes of a buffer.
fn share_of(max_memory: u64, parts: u64) -> usize {
    let bytes = (max_memory / parts).max(BATCH_BYTES_MIN);
    usize::try_from(bytes).map_or(COLD_BATCH_BYTES, |bytes| bytes.min(COLD_BATCH_BYTES))
}

/// Refuses what several values together would take.
fn check_size(reading: &Reading, values: usize) -> Result<()> {
    if values > 1 && reading.bytes() > FETCHED_BYTES {
        let message = "the values on disk that the command needs are more than 256 MiB";
        return Err(Error::new(ErrorKind::Limit, message));
    }
    Ok(())
}

impl Core {
    /// Writes one batch of entries of those namespaces that may lose them soonest, but for those that expire until then;
    /// answers the bytes that memory gained.
    pub(super) fn demote_batch(
        &self,
        tier: &Tier,
        own: Option<NamespaceId>,
        wanted: u64,
        spares_until: u64,
    ) -> usize {
        let Some(mut departures) = self.lock_work(tier) else { return 0 };
        departures.spares_until = spares_until;
        let first = own.map(|own| self.space(own));
        for (mode, log) in [Mode::Cache, Mode::Task].into_iter().zip(&tier.logs) {
            let of_mode = |space: &&Space| space.is_touched() && space.settings().mode == mode;
            let rest =
                self.spaces.iter().filter(|space| first.is_none_or(|first| !std::ptr::eq(first, *space)));
            let mut gathered = 0_usize;
            log.group(&mut departures.batch, self.clock.unix_ms());
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
        if written.as_ref().is_err_and(is_full) {
            self.free_full(tier);
            written = log.append(batch);
        }
        if written.as_ref().is_err_and(is_full) && log.policy().is_durable && self.wal.get().is_none() {
            // The log is carried out again. What it has is on disk already, and gives its space back.
            written = log.append_moved(batch);
        }
        match log.policy().class {
            Class::Cache if written.is_ok() => tier.vain.came_in(batch.bytes()),
            Class::Cache => {}
            Class::Task => tier.is_full.store(written.as_ref().is_err_and(is_full), Relaxed),
        }
        let mut rest = batch.items();
        let mut turn = rest.len();
        while let Some(first) = rest.first() {
            if turn - rest.len() >= ARRIVING_IN_A_TURN {
                turn = rest.len();
                self.leave_the_core();
            }
            let number = first.namespace();
            let Some(space) = self.spaces.iter().find(|space| space.number() == number) else {
                rest = &rest[1..];
                continue;
            };
            let shard = space.shard_of(first.id().hash());
            let is_there =
                |item: &&Item| item.namespace() == number && space.shard_of(item.id().hash()) == shard;
            let (here, others) =
                rest.split_at(rest.iter().take(ARRIVING_AT_ONCE).take_while(is_there).count());
            rest = others;
            let _moves = tier.moves.write();
            let mut txn = self.begin_behind(space, shard);
            match &written {
                Ok(()) => txn.arrive_all(here),
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
        while self.demote_batch(tier, None, u64::MAX, 0) > 0 {}
    }

    /// Background work: keeps some of the budget free, removes what has expired, gives dead space back.
    pub(super) fn tend_tier(&self) {
        let Some(tier) = &self.tier else { return };
        if !self.load_rest(tier) {
            return tier.held.end_pass(self.budget.excess() > 0);
        }
        let mut vain = 0;
        let is_stuck = loop {
            let target = self.budget.target();
            let over = self.budget.used().saturating_sub(target.saturating_sub(target / HEADROOM));
            if over == 0 {
                break false;
            }
            let own = tier.held.who_waits();
            // Writers wait for room, or will: they can't wait for what expires soon.
            let soon = if self.budget.excess() > 0 { 0 } else { self.clock.unix_ms() + SOON_MS };
            if self.demote_batch(tier, own, over, soon) > 0 {
                vain = 0;
                tier.held.advance(self.budget.excess() == 0);
            } else if vain < VAIN && !self.closed.load(Relaxed) {
                // What is next in order may have to stay just now.
                vain += 1;
            } else {
                break self.budget.excess() > 0;
            }
        };
        tier.held.end_pass(is_stuck);
        self.expire_cold(tier);
        self.clear_up(tier);
        self.checkpoint_if_due();
    }
}
