//! Fingerprints of entries that were evicted lately. Used by the eviction order only.
//!
//! A table of four-byte slots in buckets of sixteen (one cache line), 1.25 slots for each entry of the shard:
//!
//! ```text
//! bit 31     bits 30..23                          bits 22..0
//! queue      when: evictions of that queue/unit   fingerprint, never 0 (0 is an empty slot)
//! ```
//! A full bucket gives up its relatively oldest ghost. A wrong match has odds of about 2 in a million and costs nothing
//! but one entry that starts in main.

use super::Queue;
use crate::footprint::block_bytes;

const BUCKET: usize = 16;
const FINGERPRINT: u32 = (1 << 23) - 1;
/// Units in which the age of a ghost is told apart, at least, up to one turnover of the shard.
const AGES: usize = 64;

/// An entry that was evicted and is wanted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ghost {
    /// Where it was evicted from.
    pub queue: Queue,
    /// Evictions from that queue of this shard since, to within a few hundredths of a turnover.
    pub age: usize,
}

/// What a shard remembers of evicted entries.
#[derive(Debug, Default)]
pub struct Ghosts {
    slots: Vec<u32>,
    /// Entries of the shard for which `slots` and `unit` were made.
    fit_for: usize,
    /// Evictions that share a stamp: 2 to the power of this.
    unit: u32,
    /// Evictions from the small and the main queue so far.
    evictions: [u32; 2],
}

impl Ghosts {
    /// Remembers that `reference` was evicted from `queue`; the shard has about `entries` entries.
    pub fn remember(&mut self, reference: u32, queue: Queue, entries: usize) {
        self.fit(entries);
        let clock = &mut self.evictions[index_of(queue)];
        *clock = clock.wrapping_add(1);
        let (bucket, fingerprint) = self.place(reference);
        let slot = (index_of(queue) as u32) << 31 | self.stamp(queue) << 23 | fingerprint;
        let (evictions, unit) = (self.evictions, self.unit);
        let bucket = &mut self.slots[bucket..bucket + BUCKET];
        let staleness = |slot: u32| match slot {
            0 => u32::MAX,
            slot if slot & FINGERPRINT == fingerprint => u32::MAX - 1,
            // Main ghosts are of use for a third of the time of small ones.
            slot => age_of(slot, evictions, unit) * (1 + 2 * (slot >> 31)),
        };
        if let Some(stalest) = bucket.iter_mut().max_by_key(|slot| staleness(**slot)) {
            *stalest = slot;
        }
    }

    /// Forgets the ghost of `reference` and tells about it.
    pub fn take(&mut self, reference: u32) -> Option<Ghost> {
        if self.slots.is_empty() {
            return None;
        }
        let (bucket, fingerprint) = self.place(reference);
        let (evictions, unit) = (self.evictions, self.unit);
        let mut matching = self.slots[bucket..bucket + BUCKET].iter_mut();
        let slot = matching.find(|slot| **slot & FINGERPRINT == fingerprint)?;
        let found = std::mem::take(slot);
        let queue = if found >> 31 == 0 { Queue::Small } else { Queue::Main };
        Some(Ghost { queue, age: (age_of(found, evictions, unit) as usize) << unit })
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        block_bytes(self.slots.capacity() * size_of::<u32>())
    }

    /// Makes a table for a shard of `entries`, if it is far from the present one. Ghosts are lost then: it happens
    /// while a namespace grows or shrinks, not while it stands at its budget.
    fn fit(&mut self, entries: usize) {
        let (least, most) = (self.fit_for * 3 / 5, self.fit_for * 3 / 2 + BUCKET);
        if !self.slots.is_empty() && (least..=most).contains(&entries) {
            return;
        }
        self.fit_for = entries;
        self.unit = (entries / AGES).max(1).ilog2();
        let buckets = (entries * 5 / 4).div_ceil(BUCKET).max(1);
        self.slots = vec![0; buckets * BUCKET];
    }

    /// First slot of the bucket of a reference, and its fingerprint.
    fn place(&self, reference: u32) -> (usize, u32) {
        let mixed = reference.wrapping_mul(0x9E37_79B1);
        let buckets = (self.slots.len() / BUCKET) as u64;
        let bucket = (u64::from(mixed) * buckets) >> 32;
        (bucket as usize * BUCKET, (mixed & FINGERPRINT).max(1))
    }

    fn stamp(&self, queue: Queue) -> u32 {
        self.evictions[index_of(queue)] >> self.unit & 0xFF
    }
}

fn index_of(queue: Queue) -> usize {
    match queue {
        Queue::Small => 0,
        Queue::Main => 1,
    }
}

/// Age of a slot in units, modulo 256; a bucket is written to many times in 256 units.
fn age_of(slot: u32, evictions: [u32; 2], unit: u32) -> u32 {
    let now = evictions[(slot >> 31) as usize] >> unit;
    now.wrapping_sub(slot >> 23) & 0xFF
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ghost_tells_its_queue_and_age_once() {
        let mut ghosts = Ghosts::default();
        assert_eq!(ghosts.take(1), None);
        ghosts.remember(1, Queue::Small, 50);
        ghosts.remember(2, Queue::Main, 50);
        (100..105).for_each(|other| ghosts.remember(other, Queue::Small, 50));
        assert_eq!(ghosts.take(1), Some(Ghost { queue: Queue::Small, age: 5 }));
        assert_eq!(ghosts.take(2), Some(Ghost { queue: Queue::Main, age: 0 }));
        assert_eq!((ghosts.take(1), ghosts.take(3)), (None, None));
    }

    #[test]
    fn a_turnover_is_remembered_and_ages_are_true_to_a_few_hundredths() {
        const ENTRIES: u32 = 10_000;
        let mut ghosts = Ghosts::default();
        (0..3 * ENTRIES).for_each(|reference| ghosts.remember(reference, Queue::Small, ENTRIES as usize));
        let (mut found, mut wrong) = (0, 0);
        for back in 0..ENTRIES * 9 / 10 {
            if let Some(ghost) = ghosts.take(3 * ENTRIES - 1 - back) {
                found += 1;
                wrong += usize::from((ghost.age as f64 - f64::from(back)).abs() > f64::from(ENTRIES) * 0.03);
            }
        }
        assert!(found > ENTRIES * 85 / 100, "{found} of {} ghosts are there", ENTRIES * 9 / 10);
        assert_eq!(wrong, 0, "ages that are off by more than three hundredths of a turnover");
    }

    #[test]
    fn strangers_are_not_taken_for_ghosts() {
        let mut ghosts = Ghosts::default();
        (0..10_000).for_each(|reference| ghosts.remember(reference, Queue::Small, 10_000));
        let strangers = (1_000_000..2_000_000).filter(|reference| ghosts.take(*reference).is_some()).count();
        assert!(strangers < 20, "{strangers} of a million strangers");
    }
}
