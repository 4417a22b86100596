//! What the eviction orders of one namespace share: how long their queues are, how old their heads, and the share of the
//! small queues, which adapts. All of it is advice, so every access is relaxed and a lost race costs nothing. Used by
//! the eviction order, and by whoever frees memory to learn where to go.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::{Queue, Verdict};
use crate::settings::Eviction;

/// Generations in one turnover of the namespace: how finely the ages of queue heads are told apart.
const GENERATIONS: usize = 16;
/// The share of the small queues at first, as in the paper.
const SHARE_START: f64 = 0.10;
/// Its limits: a hundredth keeps a door open for new keys, 19 in 20 is as good as LRU and leaves main something to show.
const SHARE_LIMITS: (f64, f64) = (0.01, 0.95);
/// Entries that the small queues gain or lose by one ghost. ARC uses one; a drift in the workload wants more.
const STEP: f64 = 8.0;
/// From this share on one touch in the small queue is enough: that queue is long enough to make it mean something.
const SHARE_RECENCY: f64 = 0.4;
/// Fractions of a turnover, in tenths: how long a ghost of the small or of the main queue opens main ...
const REMEMBERED: [usize; 2] = [9, 3];
/// ... and how long one of either still says that its queue is too short.
const NEAR: usize = 2;

/// Touched entries that may be passed over for one that goes. Where everything was touched, the next one goes then: a write
/// must not wait for a walk through the whole namespace.
const PATIENCE: usize = 64;

/// Length and age of one shard's queues, on its own cache line: only that shard writes it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Gauge {
    small: AtomicU64,
    main: AtomicU64,
}

/// Where the next victim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Victim {
    /// The number of the shard.
    pub shard: usize,
    /// Which of its queues.
    pub queue: Queue,
}

/// What the orders of a namespace have in common.
#[derive(Debug)]
pub struct Balance {
    policy: Eviction,
    gauges: Box<[Gauge]>,
    /// Counts sixteenths of a turnover.
    generation: AtomicU32,
    /// Slots pushed in this generation, about.
    pushes: AtomicUsize,
    /// Entries in all queues when last counted.
    entries: AtomicUsize,
    /// The small queues' share of the entries, as the bits of an f64.
    share: AtomicU64,
    /// Touched entries passed over since the last one went.
    passed_over: AtomicUsize,
}

impl Balance {
    /// For a namespace of so many shards.
    pub fn new(policy: Eviction, shards: usize) -> Self {
        Self {
            policy,
            gauges: (0..shards).map(|_| Gauge::default()).collect(),
            generation: AtomicU32::new(0),
            pushes: AtomicUsize::new(0),
            entries: AtomicUsize::new(0),
            share: AtomicU64::new(SHARE_START.to_bits()),
            passed_over: AtomicUsize::new(0),
        }
    }

    /// The shard and queue to evict from next: lock that shard, call its order's `evict` with that queue, once or a few
    /// times, then ask again. Nothing if every queue is empty. Reads one cache line per shard.
    pub fn victim(&self) -> Option<Victim> {
        let now = self.generation();
        let mut totals = [0, 0];
        let mut oldest: [Option<(u32, u32, usize)>; 2] = [None, None];
        for (shard, gauge) in self.gauges.iter().enumerate() {
            for (which, packed) in [&gauge.small, &gauge.main].into_iter().enumerate() {
                let (head, len) = unpack(packed.load(Relaxed));
                if len > 0 {
                    totals[which] += len as usize;
                    oldest[which] = oldest[which].max(Some((now.wrapping_sub(head), len, shard)));
                }
            }
        }
        let [small, main] = totals;
        let entries = small + main;
        if self.entries.load(Relaxed) != entries {
            self.entries.store(entries, Relaxed);
        }
        let small_is_due = small as f64 >= self.share() * entries as f64;
        let of_small = oldest[0].map(|(_, _, shard)| Victim { shard, queue: Queue::Small });
        let of_main = oldest[1].map(|(_, _, shard)| Victim { shard, queue: Queue::Main });
        if small_is_due { of_small.or(of_main) } else { of_main.or(of_small) }
    }

    /// The small queues' share of the entries, from 0 to 1.
    pub fn share(&self) -> f64 {
        f64::from_bits(self.share.load(Relaxed))
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation.load(Relaxed)
    }

    pub(super) fn entries_per_shard(&self) -> usize {
        self.entries.load(Relaxed).div_ceil(self.gauges.len())
    }

    /// How many pushes an order may gather before it calls `advance`.
    pub(super) fn pushes_to_report(&self) -> usize {
        (self.entries_per_shard() / (4 * GENERATIONS)).clamp(1, 64)
    }

    /// Slots were pushed: time passes.
    pub(super) fn advance(&self, pushed: usize) {
        let pushes = self.pushes.fetch_add(pushed, Relaxed) + pushed;
        let turn = (self.entries.load(Relaxed) / GENERATIONS).max(1);
        if pushes >= turn && self.pushes.compare_exchange(pushes, 0, Relaxed, Relaxed).is_ok() {
            self.generation.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn publish(&self, shard: usize, queue: Queue, head: Option<u32>, len: usize) {
        let gauge = &self.gauges[shard];
        let packed = u64::from(head.unwrap_or(0)) << 32 | u64::from(u32::try_from(len).unwrap_or(u32::MAX));
        match queue {
            Queue::Small => gauge.small.store(packed, Relaxed),
            Queue::Main => gauge.main.store(packed, Relaxed),
        }
    }

    pub(super) fn passed_over(&self) -> usize {
        self.passed_over.load(Relaxed)
    }

    pub(super) fn set_passed_over(&self, entries: usize) {
        self.passed_over.store(entries, Relaxed);
    }

    /// What becomes of an entry at the head of a queue, after so many were passed over.
    pub(super) fn judge(&self, queue: Queue, heat: u8, passed_over: usize) -> Verdict {
        let frequency = self.policy == Eviction::Lfu;
        match queue {
            _ if passed_over >= PATIENCE => Verdict::Evict,
            Queue::Small if heat >= if self.share() >= SHARE_RECENCY { 1 } else { 2 } => {
                Verdict::Keep { heat: 0 }
            }
            Queue::Main if heat > 0 => Verdict::Keep { heat: if frequency { heat - 1 } else { 0 } },
            Queue::Small | Queue::Main => Verdict::Evict,
        }
    }

    /// An entry is back that its shard evicted from `queue`, `age` evictions ago. Says whether it may enter main, and
    /// learns from it which queue was too short.
    pub(super) fn returned(&self, queue: Queue, age: usize) -> bool {
        let entries = self.entries.load(Relaxed);
        let within = |tenths: usize| age * self.gauges.len() * 10 <= entries * tenths;
        let (step, remembered) = match queue {
            Queue::Small => (STEP, REMEMBERED[0]),
            Queue::Main => (-STEP, REMEMBERED[1]),
        };
        if within(NEAR) && self.policy != Eviction::Lfu {
            let share = self.share() + step / entries.max(1) as f64;
            let share = share.clamp(SHARE_LIMITS.0, SHARE_LIMITS.1);
            self.share.store(share.to_bits(), Relaxed);
        }
        within(remembered) || age <= 1
    }
}

/// Head generation and length of a queue.
fn unpack(packed: u64) -> (u32, u32) {
    ((packed >> 32) as u32, packed as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lens: [usize; 2]) -> Balance {
        let balance = Balance::new(Eviction::Lru, 1);
        balance.publish(0, Queue::Small, Some(0), lens[0]);
        balance.publish(0, Queue::Main, Some(0), lens[1]);
        balance.victim();
        balance
    }

    #[test]
    fn the_small_queue_is_due_once_it_has_its_share() {
        let due = |lens| of(lens).victim().map(|victim| victim.queue);
        assert_eq!(due([10, 90]), Some(Queue::Small));
        assert_eq!(due([9, 91]), Some(Queue::Main));
        assert_eq!(due([0, 5]), Some(Queue::Main));
        assert_eq!(due([1, 0]), Some(Queue::Small));
        assert_eq!(due([0, 0]), None);
    }

    #[test]
    fn the_share_follows_the_queue_whose_ghosts_come_back_soon() {
        let balance = of([100, 900]);
        let start = balance.share();
        assert!(balance.returned(Queue::Small, 10));
        assert!(balance.share() > start);
        assert!(balance.returned(Queue::Main, 10));
        assert!((balance.share() - start).abs() < 1e-9);
        assert!(balance.returned(Queue::Small, 500), "remembered for 0.9 of a turnover");
        assert!(!balance.returned(Queue::Main, 500), "remembered for 0.3 of a turnover");
        assert!((balance.share() - start).abs() < 1e-9, "ghosts from long ago do not move the share");
        (0..1000).for_each(|_| assert!(balance.returned(Queue::Small, 0)));
        assert!((balance.share() - SHARE_LIMITS.1).abs() < 1e-9);
        (0..1000).for_each(|_| assert!(balance.returned(Queue::Main, 0)));
        assert!((balance.share() - SHARE_LIMITS.0).abs() < 1e-9);
    }

    #[test]
    fn a_generation_is_a_sixteenth_of_a_turnover() {
        let balance = of([100, 1500]);
        (0..1600).for_each(|_| balance.advance(1));
        assert_eq!(balance.generation(), 16);
    }
}
