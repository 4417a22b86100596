//! Eviction order: which entry of a shard goes next when a namespace is over its budget.
//!
//! An [`Order`] stands beside each shard's table, under the same lock; a [`Balance`] is shared by the orders of one
//! namespace. Both are built late, from a full table, when a namespace that evicts comes near its budget: a few hundred
//! entries with each write, so that no write waits for all of them. Only the
//! shard's transaction (insert, remove) and whoever frees memory (evict) call in here; a hit touches nothing but the
//! two heat bits of its entry.
//!
//! The algorithm is of the S3-FIFO class. New entries enter a *small* queue; those touched while they wait there move
//! to the *main* queue, the others leave, and their fingerprint stays behind as a *ghost*. A key that comes back while
//! its ghost is remembered enters main at once. Main is a queue with second chances. Three things differ from the
//! paper, each for what it measured (`cargo run --release --example hit_ratio`):
//! - The small queue's share of the entries adapts. A ghost met soon after its eviction says that its queue should have
//!   been a little longer; both queues are asked over the same distance, so the answers compare. That is what keeps
//!   up with true LRU where recency decides, at no loss where frequency does.
//! - One touch earns one more round in main, not three: an entry that was popular once does not outstay its time.
//! - Queues are per shard, but the victim comes from the shard whose oldest entry is the oldest of the namespace
//!   (to a sixteenth of a turnover), so that the number of shards does not show, however small the budget.
//!
//! `lfu` is the same structure with more weight on frequency: three touches count in main, and the small queue keeps
//! a tenth. Shares and distances count entries, not bytes: entries change their size in place.
//!
//! # References
//! A queue slot is four bytes: the top 32 bits of the key's hash inside its shard. It may be stale, or be shared by two
//! entries; [`Residents`] finds whatever entry it leads to. Removal never searches a queue: it leaves a note, and the
//! slot goes when it is met, or when notes make up an eighth of the slots and a sweep passes by.

mod balance;
mod departed;
mod ghosts;
mod ring;

use std::sync::Arc;

pub use balance::{Balance, Victim};
use departed::Departed;
use ghosts::Ghosts;
use ring::Ring;

/// The highest heat an entry can have; a touch raises it by one up to here.
pub const HEAT_MAX: u8 = 3;

/// Slots looked at in one call of [`Order::evict`] at most, before the lock should be given to others; fewer in a small
/// shard (one in 16), where the queue that is due changes with every slot.
const VISITS: usize = 32;

/// The generation of entries that are older than the order.
const BEFORE: u32 = 0;

/// Notes of departed entries tolerated per slot (one in eight), and always at least this many.
const NOTES_MIN: usize = 64;

/// The two queues of an [`Order`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Entries on probation.
    Small,
    /// Entries that were touched on probation, came back after eviction, or were there before the order was built.
    Main,
}

/// What shall become of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, with this heat.
    Keep {
        /// At most [`HEAT_MAX`].
        heat: u8,
    },
    /// It goes: deleted, or demoted where there is a tier below.
    Evict,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// No entry is found by this reference, or it no longer takes part.
    Gone,
    /// It stayed, because of the verdict or because it cannot go now.
    Kept,
    /// It went, and this many bytes with it.
    Evicted {
        /// Bytes freed, in the unit of the budget.
        bytes: usize,
    },
}

/// The table, as eviction sees it.
pub trait Residents {
    /// Finds the entry that takes part under `reference` (any one, if two share it), passes its heat to `judge`, and
    /// carries the verdict out. An entry whose deadline has passed may be removed and reported as evicted whatever the
    /// verdict. Must not call [`Order::remove`] for what it evicts.
    fn visit(&mut self, reference: u32, judge: impl FnOnce(u8) -> Verdict) -> Visit;
}

/// The eviction order of one shard.
#[derive(Debug)]
pub struct Order {
    balance: Arc<Balance>,
    /// Which of the namespace's shards this is.
    shard: usize,
    small: Ring,
    main: Ring,
    departed: Departed,
    ghosts: Ghosts,
    /// Slots pushed and not yet told to `balance`.
    pushed: usize,
    /// Where the sweep for departed slots stands.
    sweep: (Queue, usize),
}

impl Order {
    /// The order of shard number `shard`, of no entries yet.
    pub fn new(balance: Arc<Balance>, shard: usize) -> Self {
        Self {
            balance,
            shard,
            small: Ring::default(),
            main: Ring::default(),
            departed: Departed::default(),
            ghosts: Ghosts::default(),
            pushed: 0,
            sweep: (Queue::Small, 0),
        }
    }

    /// Takes in entries that were there before the order; their heat is all that is known of them.
    pub fn adopt(&mut self, references: impl IntoIterator<Item = u32>) {
        references.into_iter().for_each(|reference| self.main.push(reference, BEFORE));
        self.publish(Queue::Main);
    }

    /// An entry was created, or takes part from now on (it got a deadline under `lru-ttl`). Its heat must be zero.
    pub fn insert(&mut self, reference: u32) {
        let queue = match self.ghosts.take(reference) {
            Some(ghost) if self.balance.returned(ghost.queue, ghost.age) => Queue::Main,
            _ => Queue::Small,
        };
        self.push(queue, reference);
        self.publish(queue);
    }

    /// An entry is gone or no longer takes part, by any way but [`Order::evict`]. Call it once per inserted entry.
    pub fn remove(&mut self, reference: u32) {
        self.departed.note(reference);
        if self.departed.len() > self.tolerated() {
            self.sweep_step();
        }
    }

    /// Every entry is gone. What was evicted before is still remembered.
    pub fn clear(&mut self) {
        (self.small, self.main, self.departed) = (Ring::default(), Ring::default(), Departed::default());
        self.sweep = (Queue::Small, 0);
        self.publish(Queue::Small);
        self.publish(Queue::Main);
    }

    /// Evicts one entry from `queue`, if one of its next slots (at most 32) allows it. Returns the bytes freed; zero says
    /// that touched or departed entries were in the way, and that [`Balance::victim`] should be asked again.
    pub fn evict(&mut self, queue: Queue, residents: &mut impl Residents) -> usize {
        let mut freed = 0;
        let mut passed_over = self.balance.passed_over();
        for _ in 0..(self.len() / 16).clamp(1, VISITS) {
            let Some(reference) = self.ring(queue).pop() else { break };
            if self.departed.take(reference) {
                continue;
            }
            let mut refused = false;
            let visit = residents.visit(reference, |heat| {
                let verdict = self.balance.judge(queue, heat, passed_over);
                refused = verdict == Verdict::Evict;
                verdict
            });
            match visit {
                Visit::Gone => {}
                // What cannot go now waits in the other queue, or one of such entries would stay due for ever.
                Visit::Kept if refused => match queue {
                    Queue::Small => self.push(Queue::Main, reference),
                    Queue::Main => self.push(Queue::Small, reference),
                },
                Visit::Kept => {
                    passed_over += 1;
                    self.push(Queue::Main, reference);
                }
                Visit::Evicted { bytes } => {
                    self.ghosts.remember(reference, queue, self.balance.entries_per_shard());
                    (freed, passed_over) = (bytes, 0);
                    break;
                }
            }
        }
        self.balance.set_passed_over(passed_over);
        self.publish(Queue::Small);
        self.publish(Queue::Main);
        freed
    }

    /// Entries that take part.
    pub fn len(&self) -> usize {
        (self.small.len() + self.main.len()).saturating_sub(self.departed.len())
    }

    /// Whether no entry takes part.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory held, to be counted against the budget. Costs a walk over one in 512 slots.
    pub fn bytes(&self) -> usize {
        self.small.bytes() + self.main.bytes() + self.departed.bytes() + self.ghosts.bytes()
    }

    fn ring(&mut self, queue: Queue) -> &mut Ring {
        match queue {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
        }
    }

    fn push(&mut self, queue: Queue, reference: u32) {
        let generation = self.balance.generation();
        self.ring(queue).push(reference, generation);
        self.pushed += 1;
        if self.pushed >= self.balance.pushes_to_report() {
            self.balance.advance(self.pushed);
            self.pushed = 0;
        }
    }

    fn publish(&mut self, queue: Queue) {
        let ring = match queue {
            Queue::Small => &self.small,
            Queue::Main => &self.main,
        };
        self.balance.publish(self.shard, queue, ring.head(), ring.len());
    }

    fn tolerated(&self) -> usize {
        (self.small.len() + self.main.len()) / 8 + NOTES_MIN
    }

    /// Drops the departed slots of one chunk. A chunk holds many more notes than one when this is called, so a removal
    /// pays for looking at about eight slots.
    fn sweep_step(&mut self) {
        let (queue, chunk) = self.sweep;
        let departed = &mut self.departed;
        let ring = match queue {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
        };
        if ring.retain(chunk, |reference| !departed.take(reference)) {
            self.sweep = (queue, chunk + 1);
        } else if queue == Queue::Small {
            self.sweep = (Queue::Main, 0);
        } else {
            self.sweep = (Queue::Small, 0);
            // Notes that a whole round did not match were never slots here; they must not pile up.
            if self.departed.len() > 2 * self.tolerated() {
                self.departed.clear();
            }
        }
        self.publish(queue);
    }
}

#[cfg(test)]
mod tests;
