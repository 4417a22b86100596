//! What the log counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Buckets of [`WalStats::sync_us`].
pub const SYNC_BUCKETS: usize = 24;

/// Figures of the log, since it was opened where nothing else is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Bytes on disk that opening would have to read.
    pub bytes: u64,
    /// Segments on disk that have records, the growing one included.
    pub segments: u64,
    /// The LSN that was given last.
    pub last: u64,
    /// The LSN up to which everything is durable.
    pub durable: u64,
    /// Bytes accepted and not written.
    pub backlog: u64,
    /// Bytes that can be written before space has to be asked for.
    pub runway: u64,
    /// Whether space was asked for in vain.
    pub is_short_of_space: bool,
    /// Records written.
    pub records: u64,
    /// Batches written: each is one write, or a few where it is large.
    pub batches: u64,
    /// Syncs of segments that grow.
    pub syncs: u64,
    /// Bytes written, heads of batches included.
    pub bytes_written: u64,
    /// The longest sync in microseconds.
    pub sync_us_max: u64,
    /// The time of all syncs in microseconds.
    pub sync_us_sum: u64,
    /// How many syncs took less than 2^n microseconds, and no less than half of that; the last also counts all longer ones.
    pub sync_us: [u64; SYNC_BUCKETS],
}

impl WalStats {
    /// Records for each sync.
    pub fn records_per_sync(&self) -> f64 {
        self.records as f64 / self.syncs.max(1) as f64
    }
}

/// A figure that only the writer changes.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, by: u64) {
        self.0.fetch_add(by, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The figures while they grow.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) records: Count,
    pub(super) batches: Count,
    pub(super) bytes_written: Count,
    syncs: Count,
    sync_us_sum: Count,
    sync_us_max: AtomicU64,
    /// Of late.
    sync_us_mean: AtomicU64,
    sync_us: [Count; SYNC_BUCKETS],
}

impl Counts {
    /// Counts a sync that took so many microseconds.
    pub(super) fn sync(&self, us: u64) {
        self.syncs.add(1);
        self.sync_us_sum.add(us);
        self.sync_us_max.fetch_max(us, Relaxed);
        let mean = self.sync_us_mean.load(Relaxed);
        self.sync_us_mean.store(mean - mean / 8 + us / 8, Relaxed);
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        self.sync_us[bucket.min(SYNC_BUCKETS - 1)].add(1);
    }

    /// About how long syncs take of late, in microseconds.
    pub(super) fn sync_us_mean(&self) -> u64 {
        self.sync_us_mean.load(Relaxed)
    }

    /// Fills in what is counted here.
    pub(super) fn fill(&self, stats: &mut WalStats) {
        stats.records = self.records.get();
        stats.batches = self.batches.get();
        stats.bytes_written = self.bytes_written.get();
        stats.syncs = self.syncs.get();
        stats.sync_us_sum = self.sync_us_sum.get();
        stats.sync_us_max = self.sync_us_max.load(Relaxed);
        stats.sync_us = std::array::from_fn(|bucket| self.sync_us[bucket].get());
    }
}
