//! Counters for `INFO` and `/metrics`.

use super::Core;

/// One namespace's figures.
#[derive(Clone, Debug, Default)]
pub struct NamespaceStats {
    /// Entries, those that have expired but are not removed yet included.
    pub keys: usize,
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
    /// When the engine was opened, unix ms.
    pub started_ms: u64,
    /// Waits and watches that are open.
    pub waiting: usize,
    /// By namespace number.
    pub namespaces: Vec<NamespaceStats>,
}

impl Core {
    pub(super) fn stats(&self) -> Stats {
        let mut stats = Stats {
            max_memory: self.budget.limit(),
            used_memory: self.budget.used(),
            started_ms: self.started_ms,
            ..Stats::default()
        };
        for space in &self.spaces {
            let mut sum = NamespaceStats::default();
            for index in (0..space.shard_count()).filter(|_| space.is_touched()) {
                let mut shard = space.lock(index);
                let counters = shard.counters();
                sum.keys += shard.table().len();
                sum.expiring += counters.expiring;
                sum.bytes += shard.memory_bytes();
                sum.hits += counters.hits;
                sum.misses += counters.misses;
                sum.expired += counters.expired;
                sum.evicted += counters.evicted;
                stats.waiting += shard.waiters().len();
            }
            stats.namespaces.push(sum);
        }
        stats
    }
}
