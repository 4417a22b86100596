//! The memory account of one engine: what shards report, against the limit.

use std::sync::atomic::{AtomicI64, Ordering};

/// How far a shard's report may lag behind, in bytes: it keeps writers from meeting on one counter.
pub const REPORT_STEP: usize = 4096;

/// Bytes in use by all shards, and the limit.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicI64,
}

impl Budget {
    /// An empty account; a limit of `u64::MAX` means none.
    pub fn new(limit: u64) -> Budget {
        Budget { limit, used: AtomicI64::new(0) }
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes in use, as reported.
    pub fn used(&self) -> u64 {
        u64::try_from(self.used.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Bytes above the limit; 0 within it.
    #[inline]
    pub fn excess(&self) -> u64 {
        self.used().saturating_sub(self.limit)
    }

    /// Whether the limit is so close that eviction should know the order of entries.
    #[inline]
    pub fn is_near(&self) -> bool {
        self.used() >= self.limit / 16 * 15
    }

    /// Takes over a shard's memory that changed from `before` to `after` bytes.
    pub fn report(&self, before: usize, after: usize) {
        let change = after as i64 - before as i64;
        self.used.fetch_add(change, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_excess_is_what_stands_above_the_limit() {
        let budget = Budget::new(100);
        budget.report(0, 90);
        assert_eq!((budget.used(), budget.excess()), (90, 0));
        budget.report(90, 130);
        assert_eq!(budget.excess(), 30);
        budget.report(130, 0);
        assert_eq!(budget.used(), 0);
    }
}
