//! Counters for `INFO` and `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Core;
use super::tier::Tier;
use crate::shard::{ColdKeys, Space};

/// One namespace's figures.
#[derive(Clone, Debug, Default)]
pub struct NamespaceStats {
    /// Entries, those that have expired but are not removed yet included.
    pub keys: usize,
    /// Of those the ones that are on disk.
    pub cold: usize,
    /// Entries with a deadline.
    pub expiring: usize,
    /// Bytes of entries, tables and collections.
    pub bytes: usize,
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Keys removed because their deadline passed.
    pub expired: u64,
    /// Keys removed because memory was needed.
    pub evicted: u64,
}

/// The engine's figures.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Memory budget in bytes; `u64::MAX` = none.
    pub max_memory: u64,
    /// Bytes in use, as the budget counts them.
    pub used_memory: u64,
    /// Up to where that may grow, so that the process stays within the budget.
    pub memory_target: u64,
    /// When the engine was opened, unix ms.
    pub started_ms: u64,
    /// Waits and watches that are open.
    pub waiting: usize,
    /// By namespace number.
    pub namespaces: Vec<NamespaceStats>,
    /// The cold tier, where there is one.
    pub tier: Option<TierStats>,
    /// The log, where there is one.
    pub log: Option<LogStats>,
}

/// The log's figures; counts are since the start.
#[derive(Clone, Debug, Default)]
pub struct LogStats {
    /// Records that were carried out again when the store was opened.
    pub replayed: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes after which a checkpoint is written, so that it can be cut.
    pub limit: u64,
    /// The last record.
    pub last: u64,
    /// The last record that is on disk for good.
    pub durable: u64,
    /// Syncs since the start.
    pub syncs: u64,
    /// Microseconds of all of them.
    pub sync_us: u64,
    /// Microseconds of the longest.
    pub sync_us_max: u64,
    /// Whether it failed.
    pub has_failed: bool,
    /// The checkpoints.
    pub checkpoints: CheckpointStats,
}

/// Figures of checkpoints, those at closing and for snapshots included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointStats {
    /// How many were written.
    pub count: u64,
    /// How many failed: they are tried again.
    pub failures: u64,
    /// Microseconds that the last one took.
    pub last_us: u64,
    /// Bytes of records that they wrote.
    pub bytes: u64,
}

/// The same while they grow.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    count: AtomicU64,
    failures: AtomicU64,
    last_us: AtomicU64,
    bytes: AtomicU64,
}

impl Checkpoints {
    /// Counts one that took so long.
    pub(super) fn end(&self, is_written: bool, us: u64) {
        let cell = if is_written { &self.count } else { &self.failures };
        cell.fetch_add(1, Relaxed);
        self.last_us.store(us, Relaxed);
    }

    /// Counts bytes that one writes.
    pub(super) fn write(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    fn stats(&self) -> CheckpointStats {
        let [count, failures, last_us, bytes] =
            [&self.count, &self.failures, &self.last_us, &self.bytes].map(|cell| cell.load(Relaxed));
        CheckpointStats { count, failures, last_us, bytes }
    }
}

/// The cold tier's figures; counts are since the start.
#[derive(Clone, Debug, Default)]
pub struct TierStats {
    /// Most bytes on disk.
    pub max_bytes: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes on disk that are of use, about.
    pub live_bytes: u64,
    /// Files.
    pub segments: usize,
    /// Shards whose index is still on disk since the store was opened: how many keys these have is told about.
    pub shards_to_load: usize,
    /// Entries written to disk because memory was short.
    pub demoted: u64,
    /// Entries read from disk.
    pub fetched: u64,
    /// Names of entries read from disk, without their values.
    pub named: u64,
    /// Reads that were answered from disk and left their entry there.
    pub copied: u64,
    /// Of the entries and names the ones that another command was just reading, or that were read ahead.
    pub coalesced: u64,
    /// Of the entries and names the ones whose record is damaged.
    pub damaged: u64,
    /// Of the entries and names the ones that the disk did not give.
    pub read_errors: u64,
    /// Entries that came back into memory.
    pub promoted: u64,
    /// Bytes of files that were removed.
    pub reclaimed_bytes: u64,
    /// Entries written again so that a file could go.
    pub moved: u64,
    /// Writes that had to wait for entries to leave memory.
    pub stalls: u64,
    /// Microseconds of all of them.
    pub stall_us: u64,
    /// Batches that could not be written.
    pub write_errors: u64,
    /// Reads from disk by time: how many took less than 2^n microseconds, and not less than half of that.
    pub fetch_times: [u64; FETCH_TIMES],
    /// Microseconds of all of them.
    pub fetch_us: u64,
}

/// Ranges of [`TierStats::fetch_times`]; the last has no end.
pub const FETCH_TIMES: usize = 22;

impl Core {
    /// The log's figures: all 0 before it begins.
    fn log_stats(&self) -> LogStats {
        let Some(wal) = self.wal.get() else {
            return LogStats { limit: self.log_limit(), ..LogStats::default() };
        };
        let log = wal.stats();
        LogStats {
            replayed: self.replayed.load(Relaxed),
            bytes: log.bytes,
            limit: self.log_limit(),
            last: log.last,
            durable: log.durable,
            syncs: log.syncs,
            sync_us: log.sync_us_sum,
            sync_us_max: log.sync_us_max,
            has_failed: wal.failure().is_some(),
            checkpoints: self.checkpoints.stats(),
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let mut stats = Stats {
            max_memory: self.budget.limit(),
            memory_target: self.budget.target(),
            started_ms: self.started_ms,
            tier: self.tier.as_ref().map(Tier::stats),
            log: self.spaces.iter().any(Space::is_logged).then(|| self.log_stats()),
            ..Stats::default()
        };
        for space in &self.spaces {
            let mut sum = NamespaceStats::default();
            for index in (0..space.shard_count()).filter(|_| space.is_touched()) {
                let mut shard = space.lock(index);
                let counters = shard.counters();
                sum.keys += shard.keys();
                sum.cold += shard.cold().map_or(0, ColdKeys::on_disk);
                sum.expiring += counters.expiring + shard.cold().map_or(0, ColdKeys::dated);
                sum.bytes += shard.memory_bytes();
                sum.hits += counters.hits;
                sum.misses += counters.misses;
                sum.expired += counters.expired;
                sum.evicted += counters.evicted;
                stats.waiting += shard.waiters().len();
            }
            stats.namespaces.push(sum);
        }
        // The account lags behind the shards by a little: with it the whole would be less than its parts.
        let of_namespaces = stats.namespaces.iter().map(|one| one.bytes as u64).sum::<u64>();
        stats.used_memory = of_namespaces + self.budget.beside();
        stats
    }
}
