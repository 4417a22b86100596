//! The checkpoint: what changed in logged namespaces is written to the cold tier, so that the log before it can go. Entries
//! stay in memory; those that leave it later go for free, as long as they do not change.

use std::sync::Arc;

use data_bridge_kv_model::{Error, ErrorKind, Result};

use super::Core;
use super::tier::Tier;
use crate::clock::Stopwatch;
use crate::cold::Log;
use crate::disk::Disk;
use crate::hash::KeyHash;
use crate::shard::{ColdKeys, Settled, Space};
use crate::snapshot::{Captured, Progress, Snapshot};
use crate::sync::thread::yield_now;
use crate::wal::{Lsn, Wal};

/// Where a walk through a shard begins.
const FIRST: KeyHash = KeyHash::from_bits(0);
/// The index is written anew when the items behind it are a share of the keys (one in so many), and as many as a full log has,
/// of so many bytes each.
const BASE_SHARE: u64 = 4;
const BYTES_PER_ITEM: u64 = 256;
/// The most that the log takes of the directory before a checkpoint is written: one in so many parts.
const LOG_SHARE: u64 = 4;
/// Files of the log, beside those that its length makes, from which on a checkpoint is due: each kill leaves one.
const SEGMENTS: u64 = 64;
/// Steps, each with a shard locked, after which others get their turn at the core: whoever is interrupted while he has a lock keeps
/// everybody waiting who needs it, until he is there again.
const STEPS: usize = 4;
/// A log so many times as long as it should be leaves its checkpoint no time for that.
const LOG_LATE: u64 = 2;
/// Keys of an index that are copied in one go while a shard is locked.
const DUMPED_AT_ONCE: usize = 2048;

/// A checkpoint on its way through the shards.
struct Walk<'a> {
    shards: Vec<(&'a Space, usize)>,
    /// The shard that it is in, and where there.
    at: usize,
    from: KeyHash,
    /// The last sequence number of that shard when the walk through it began.
    began: Option<u64>,
    /// The shards whose last entries are in the batch that is being gathered, with that number.
    passed: Vec<(&'a Space, usize, u64)>,
}

impl Core {
    /// Bytes of the log after which a checkpoint is written: it may not fill a small disk before.
    pub(super) fn log_limit(&self) -> u64 {
        self.tier.as_ref().map_or(self.log_bytes, |tier| self.log_bytes.min(tier.max_bytes() / LOG_SHARE))
    }

    /// Writes a checkpoint if the log is longer than it should be, or in more files.
    pub(super) fn checkpoint_if_due(&self) {
        let (Some(tier), Some(wal)) = (&self.tier, self.wal.get()) else { return };
        let limit = self.log_limit();
        let segments = SEGMENTS + limit / wal.segment_bytes();
        if (wal.bytes() > limit || wal.segments() > segments)
            && tier.may_try_again()
            && let Some(start) = self.checkpoint()
        {
            let keys: usize = self.logged_shards().map(|(space, index)| space.lock(index).keys()).sum();
            if tier.task_log().unbased() > (limit / BYTES_PER_ITEM).max(keys as u64 / BASE_SHARE) {
                self.write_base(tier, start);
            }
        }
    }

    /// Writes what changed since the last checkpoint to the tier, and lets the log before it go. Answers up to which record;
    /// `None` if that failed: then everything is as before, and can be tried again.
    pub(super) fn checkpoint(&self) -> Option<Lsn> {
        let (tier, wal) = (self.tier.as_ref()?, self.wal.get()?);
        let watch = Stopwatch::start();
        let written = self.write_checkpoint(tier, wal);
        self.checkpoints.end(written.is_some(), watch.elapsed_us());
        written
    }

    fn write_checkpoint(&self, tier: &Tier, wal: &Wal) -> Option<Lsn> {
        let start = wal.last();
        let mut walk = Walk {
            shards: self.logged_shards().collect(),
            at: 0,
            from: FIRST,
            began: None,
            passed: Vec::new(),
        };
        let log = tier.task_log();
        while walk.at < walk.shards.len() {
            self.checkpoint_batch(tier, log, &mut walk)?;
        }
        wal.trim(start + 1).ok()?;
        Some(start)
    }

    /// The last checkpoint of this opening: what was done up to here is in the tier, and the next opening need not carry it out
    /// again.
    pub(super) fn close_checkpoint(&self) {
        if self.is_as_opened() {
            return;
        }
        if let (Some(tier), Some(start)) = (&self.tier, self.checkpoint()) {
            self.write_base(tier, start);
        }
    }

    /// Whether indexes are still on disk, and they and the tier tell everything: nothing was written since opening.
    fn is_as_opened(&self) -> bool {
        let (Some(tier), Some(wal)) = (&self.tier, self.wal.get()) else { return false };
        tier.task_log().parts() > 0 && tier.task_log().is_based(wal.last())
    }

    /// Copies the task namespaces, as they are at one record of the log, to an empty directory.
    pub(super) fn snapshot(&self, to: &dyn Disk, progress: Progress<'_>) -> Result<Snapshot> {
        self.check_open()?;
        let needs = || Error::new(ErrorKind::Unavailable, "a snapshot needs a data directory");
        let tier = self.tier.as_ref().ok_or_else(needs)?;
        let closed = || Error::new(ErrorKind::Closed, "the store is closed");
        // The shorter the log, the less there is to copy and to carry out again; without it the copy is as good.
        self.checkpoint();
        self.sync_log().ok_or_else(|| {
            let failed = self.wal.get().is_none_or(|wal| wal.failure().is_some());
            let kind = if failed { ErrorKind::Durability } else { ErrorKind::Unavailable };
            Error::new(kind, if failed { "the log failed" } else { "the log waits for space on the disk" })
        })?;
        let unread = || Error::new(ErrorKind::Unavailable, "the data directory: what is there can't be read");
        let refused = || tier.disk().map_or_else(closed, |_| unread());
        let work = self.lock_work(tier).ok_or_else(refused)?;
        let disk = tier.disk().ok_or_else(closed)?;
        let captured = Captured::open(&*disk, tier.task_log().files());
        let lsn = self.wal.get().map_or(0, |wal| wal.durable());
        drop(work);
        let captured = captured
            .map_err(|error| Error::new(ErrorKind::Unavailable, format!("the data directory: {error}")))?;
        captured.copy_to(to, lsn, self.clock.unix_ms(), progress)
    }

    /// Writes the index of the tier to disk; whether that succeeds changes no more than how long the next opening takes.
    fn write_base(&self, tier: &Tier, mark: Lsn) -> Option<()> {
        let log = tier.task_log();
        let shards: Vec<(&Space, usize)> = self.logged_shards().collect();
        if shards.is_empty() || log.is_based(mark) {
            return None;
        }
        let work = self.lock_work(tier)?;
        let bits = self.spaces.first().map_or(0, Space::shard_bits);
        let mut base = log.begin_base(bits, shards.len()).ok()?;
        drop(work);
        for (space, index) in shards {
            let (mut found, mut from) = (Vec::new(), Some(FIRST));
            while let Some(at) = from {
                let shard = space.lock_behind(index);
                from = shard.cold().and_then(|cold| cold.dump(at, DUMPED_AT_ONCE, &mut found));
                drop(shard);
                self.leave_the_core();
            }
            base.put(space.number(), index, found).ok()?;
        }
        base.finish(mark).ok()
    }

    /// The shards of the namespaces that are logged.
    pub(super) fn logged_shards(&self) -> impl Iterator<Item = (&Space, usize)> {
        let logged = self.spaces.iter().filter(|space| space.is_logged() && space.is_touched());
        logged.flat_map(|space| (0..space.shard_count()).map(move |index| (space, index)))
    }

    /// Gathers one batch of entries, and writes it with what was deleted before.
    fn checkpoint_batch(&self, tier: &Tier, log: &Arc<Log>, walk: &mut Walk<'_>) -> Option<()> {
        let mut departures = self.lock_work(tier)?;
        log.group(&mut departures.batch, self.clock.unix_ms());
        let mut steps = 0..STEPS;
        while let Some(&(space, shard)) = walk.shards.get(walk.at)
            && !departures.is_full()
        {
            if steps.next().is_none() {
                self.leave_the_core();
                steps = 0..STEPS - 1;
            }
            let mut txn = self.begin_behind(space, shard);
            let began = *walk.began.get_or_insert_with(|| txn.last_sequence());
            let next = txn.checkpoint(walk.from, &mut departures);
            txn.finish().send();
            walk.from = next.unwrap_or(FIRST);
            if next.is_none() {
                walk.passed.push((space, shard, began));
                walk.began = None;
                walk.at += 1;
            }
        }
        departures.encode_large();
        let has_pits = |(space, shard, _): &(&Space, usize, _)| {
            space.lock(*shard).cold().is_some_and(ColdKeys::has_pits)
        };
        if walk.passed.iter().any(has_pits) {
            // Those are written at once.
            self.sync_log()?;
        }
        for (space, shard, began) in &walk.passed {
            let settled = space.lock(*shard).cold_mut().map(|cold| cold.settle(space.version(*began)));
            settled.into_iter().for_each(Settled::bury);
        }
        let bytes = departures.batch.bytes() as u64;
        self.put(tier, log, &mut departures).then_some(())?;
        self.checkpoints.write(bytes);
        for (space, shard, began) in walk.passed.drain(..) {
            if let Some(cold) = space.lock(shard).cold_mut() {
                cold.set_checkpointed(began);
            }
        }
        Some(())
    }

    /// Lets others have a turn at the core, with no shard locked, unless what is done in the background is late.
    pub(super) fn leave_the_core(&self) {
        let is_late = |wal: &Arc<Wal>| wal.bytes() > self.log_limit().saturating_mul(LOG_LATE);
        if self.budget.excess() == 0 && !self.wal.get().is_some_and(is_late) {
            yield_now();
        }
    }

    /// Waits until everything in the log is durable: nothing may reach the tier before. `None` if it can't become so, or only
    /// once there is space, which others may not be kept from making.
    pub(super) fn sync_log(&self) -> Option<()> {
        self.wal.get().is_none_or(|wal| wal.wait_durable_with_space(wal.last())).then_some(())
    }

    /// Lets the tier bury what was deleted so far with its next batch. `None` if the log failed: nothing may be written then.
    pub(super) fn settle_deletes(&self) -> Option<()> {
        if self.wal.get().is_some_and(|wal| wal.failure().is_some()) {
            return None;
        }
        let mut due = Vec::new();
        for (space, index) in self.logged_shards() {
            let shard = space.lock(index);
            if shard.cold().is_some_and(|cold| cold.has_graves()) {
                due.push((space, index, space.version(shard.sequence())));
            }
        }
        if !due.is_empty() {
            self.sync_log()?;
        }
        for (space, index, version) in due {
            let settled = space.lock(index).cold_mut().map(|cold| cold.settle(version));
            settled.into_iter().for_each(Settled::bury);
        }
        Some(())
    }
}
