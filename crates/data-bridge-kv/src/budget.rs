//! The memory account of one engine: what shards report, against the limit; and the limit against what the system counts
//! for the process.
//!
//! Shards report what they hold, and a server the large buffers of its connections. What else a process takes (small buffers,
//! stacks, what its allocator keeps) is *slack*: known only by the difference to what the system counts. [`Budget::follow`]
//! is told that a hundred times a second and moves the *target*, up to which the account may grow: down at once by what is
//! too much, up again slowly.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::sync::Mutex;

/// How far a shard's report may lag behind, in bytes: it keeps writers from meeting on one counter.
pub const REPORT_STEP: usize = 4096;
/// What the process should stay below the limit, for what comes between two looks: one in so many parts of it, and as much
/// again up to [`BURST`].
const MARGIN: u64 = 16;
const BURST: u64 = 2 << 20;
/// How much the target grows at most between two looks, as a share of the limit: one in so many.
const GROWTH: u64 = 1024;

/// Looks until a target that did not suffice is lowered again.
const PATIENCE: u64 = 5;

/// What the system counts for the process that holds the store. For stores that are most of their process.
pub trait Resident: Send + Sync {
    /// Bytes of memory; `None` if that can't be told now.
    fn bytes(&self) -> Option<u64>;
}

/// Bytes in use by all shards, and the limit.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicI64,
    /// What `used` holds that is not of the shards.
    beside: Mutex<Beside>,
    /// Up to where the account may grow; the limit or less.
    target: AtomicU64,
    /// What was too much when the target was last lowered, and looks until it is lowered by as much again.
    lowered_by: AtomicU64,
    patience: AtomicU64,
}

/// Memory beside the shards.
#[derive(Debug, Default)]
struct Beside {
    bytes: u64,
    /// What of it is in the account.
    counted: u64,
}

impl Budget {
    /// An empty account; a limit of `u64::MAX` means none.
    pub fn new(limit: u64) -> Budget {
        Budget {
            limit,
            used: AtomicI64::new(0),
            beside: Mutex::default(),
            target: AtomicU64::new(limit),
            lowered_by: AtomicU64::new(0),
            patience: AtomicU64::new(0),
        }
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Up to where the account may grow.
    #[inline]
    pub fn target(&self) -> u64 {
        self.target.load(Ordering::Relaxed)
    }

    /// Bytes in use, as reported.
    #[inline]
    pub fn used(&self) -> u64 {
        u64::try_from(self.used.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// What of them is not of the shards.
    pub fn beside(&self) -> u64 {
        self.beside.lock().counted
    }

    /// Bytes above the target; 0 within it.
    #[inline]
    pub fn excess(&self) -> u64 {
        self.used().saturating_sub(self.target())
    }

    /// Whether the target is so close that eviction should know the order of entries.
    #[inline]
    pub fn is_near(&self) -> bool {
        self.used() >= self.target() / 16 * 15
    }

    /// Takes over a shard's memory that changed from `before` to `after` bytes.
    pub fn report(&self, before: usize, after: usize) {
        let change = after as i64 - before as i64;
        self.used.fetch_add(change, Ordering::Relaxed);
    }

    /// Takes over memory beside the shards. What is more than a share of the limit does not count: entries could not make
    /// room for it.
    pub fn count_beside(&self, before: usize, after: usize) {
        let mut beside = self.beside.lock();
        beside.bytes = beside.bytes.saturating_sub(before as u64).saturating_add(after as u64);
        let counted = beside.bytes.min(most_beside(self.limit));
        let change = counted as i64 - std::mem::replace(&mut beside.counted, counted) as i64;
        self.used.fetch_add(change, Ordering::Relaxed);
        self.target.fetch_max(least(self.limit, counted), Ordering::Relaxed);
    }

    /// Moves the target by what the system counts for the process. Not to be called by two at once.
    pub fn follow(&self, resident: u64) {
        let (limit, target) = (self.limit, self.target());
        let aim = limit - margin(limit);
        let moved = match resident.checked_sub(aim) {
            Some(over) if over > 0 => self.lowered(over),
            // Half of what is free at most, since slack grows with the account.
            _ => {
                self.patience.store(0, Ordering::Relaxed);
                target.saturating_add(((aim - resident.min(aim)) / 2).min(limit / GROWTH)).min(limit)
            }
        };
        let beside = self.beside.lock().counted;
        self.target.store(moved.max(least(limit, beside)), Ordering::Relaxed);
    }

    /// The target for a process that takes so much too much. From what is in use: what was asked for before may still be
    /// under way. And what left is not the system's at once, so that it is waited for before the same is asked for again.
    fn lowered(&self, over: u64) -> u64 {
        let patience = self.patience.load(Ordering::Relaxed);
        if patience > 0 && over <= self.lowered_by.load(Ordering::Relaxed) {
            self.patience.store(patience - 1, Ordering::Relaxed);
            return self.target();
        }
        self.patience.store(PATIENCE, Ordering::Relaxed);
        self.lowered_by.store(over, Ordering::Relaxed);
        self.target().min(self.used()).saturating_sub(over)
    }
}

fn margin(limit: u64) -> u64 {
    limit / MARGIN + (limit / MARGIN).min(BURST)
}

/// The least target, with so much of the account beside the shards. Whatever else takes more than the rest is not the
/// store's, or will be gone soon.
fn least(limit: u64, beside: u64) -> u64 {
    (limit / 8 * 3).max(beside + limit / 4)
}

/// Most memory beside the shards that they make room for.
fn most_beside(limit: u64) -> u64 {
    limit / 8 * 3
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

    #[test]
    fn the_target_leaves_room_for_what_the_account_does_not_know() {
        const LIMIT: usize = 96 << 20;
        let budget = Budget::new(LIMIT as u64);
        // A process with 20 MiB beside the account and a tenth more than it.
        let resident = |used: usize| (20 << 20) + used as u64 / 10 * 11;
        let (mut used, mut most) = (0, 0);
        for _ in 0..2000 {
            // A writer that takes all it may, and an eviction that follows at once.
            let wished = budget.target() as usize;
            let next = wished.min(used + (1 << 20));
            budget.report(used, next);
            used = next;
            most = most.max(resident(used));
            budget.follow(resident(used));
        }
        assert!(most <= LIMIT as u64, "{most}");
        assert!(resident(used) >= LIMIT as u64 / 100 * 90, "{used} of {LIMIT} bytes are used");
        assert!(budget.excess() < 1 << 20);
    }

    #[test]
    fn it_falls_at_once_and_comes_back_slowly() {
        let budget = Budget::new(1 << 30);
        budget.report(0, 900 << 20);
        budget.follow((1 << 30) + (10 << 20));
        let low = budget.target();
        assert!(budget.is_near() && low < 890 << 20 && budget.excess() > 10 << 20, "{low}");
        // The same again is what was asked for already, more is not.
        budget.follow((1 << 30) + (10 << 20));
        assert_eq!(budget.target(), low);
        budget.follow((1 << 30) + (11 << 20));
        assert_eq!(budget.target(), low - (margin(1 << 30) + (11 << 20)));
        let low = budget.target();
        budget.report(900 << 20, low as usize);
        let mut looks = 0;
        while budget.target() < 1 << 30 {
            budget.follow(100 << 20);
            looks += 1;
        }
        assert!(looks > 100, "{looks} looks");
    }

    #[test]
    fn what_is_not_the_stores_does_not_take_all() {
        let budget = Budget::new(800);
        for _ in 0..100 {
            budget.follow(1 << 40);
        }
        assert_eq!(budget.target(), 300);
    }

    #[test]
    fn what_stands_beside_the_shards_counts_up_to_its_share() {
        let budget = Budget::new(800);
        budget.report(0, 700);
        budget.count_beside(0, 100);
        assert_eq!((budget.used(), budget.excess()), (800, 0));
        budget.count_beside(0, 1000);
        assert_eq!(budget.used(), 1000);
        // Some room is always left for entries.
        (0..100).for_each(|_| budget.follow(1 << 40));
        assert_eq!(budget.target(), 500);
        budget.count_beside(1000, 100);
        assert_eq!(budget.used(), 900);
        budget.count_beside(100, 0);
        budget.count_beside(100, 0);
        assert_eq!(budget.used(), 700);
    }

    #[test]
    fn no_limit_stays_none() {
        let budget = Budget::new(u64::MAX);
        budget.follow(1 << 40);
        assert_eq!((budget.target(), budget.excess()), (u64::MAX, 0));
        assert!(!budget.is_near());
    }
}
