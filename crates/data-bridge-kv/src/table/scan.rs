//! Walking a table in hash order, and looking entries up by a part of their hash.

use super::Table;
use super::entry::EntryRef;
use super::segment::Slot;
use crate::hash::KeyHash;

/// So many entries ahead of the one that is visited are asked for.
const AHEAD: usize = 8;

type Hashed<'a> = (KeyHash, EntryRef<'a>);

impl Table {
    /// Visits entries in hash order from `from` on until at least `limit` are visited, and returns where to
    /// go on; `None` at the end. Entries with equal hashes are visited in one call, so `limit` may be passed
    /// by those. The position is a hash, not a place in memory: an entry that is there from the first call to
    /// the last is visited exactly once, whatever is inserted and removed between calls.
    pub fn scan<'a>(
        &'a self,
        from: KeyHash,
        limit: usize,
        mut visit: impl FnMut(KeyHash, EntryRef<'a>),
    ) -> Option<KeyHash> {
        let mut left = limit.max(1);
        let mut start = from;
        let (mut slots, mut entries) = (Vec::new(), Vec::new());
        loop {
            let last = self.window(start, left, &mut slots);
            let mut ahead = slots.iter();
            ahead.by_ref().take(AHEAD).for_each(|slot: &Slot| slot.prefetch());
            // Tags order the slots roughly; those of one tag are ordered by their whole hashes.
            for run in slots.chunk_by(|one: &Slot, other| one.tag() == other.tag()) {
                ahead.by_ref().take(run.len()).for_each(|slot| slot.prefetch());
                entries.clear();
                entries.extend(run.iter().map(|slot| self.hashed(*slot)).filter(|(hash, _)| *hash >= start));
                entries.sort_unstable_by_key(|(hash, _)| *hash);
                for same in entries.chunk_by(|one: &Hashed<'_>, other| one.0 == other.0) {
                    same.iter().for_each(|&(hash, entry)| visit(hash, entry));
                    left = left.saturating_sub(same.len());
                    if left == 0 {
                        return next(same[0].0);
                    }
                }
            }
            start = next(last)?;
        }
    }

    /// Visits entries from `from` on, those of a tag in no order, until at least `limit` are visited or one of a tag says
    /// that it is enough (`false`), and returns where to go on; `None` at the end. No key is hashed. An entry that is
    /// there from the first call to the last is visited at least once.
    pub fn sift<'a>(
        &'a self,
        from: KeyHash,
        limit: usize,
        mut visit: impl FnMut(EntryRef<'a>) -> bool,
    ) -> Option<KeyHash> {
        let mut left = limit.max(1);
        let (mut start, mut slots) = (from, Vec::new());
        loop {
            let last = self.window(start, left, &mut slots);
            let mut ahead = slots.iter();
            ahead.by_ref().take(AHEAD).for_each(|slot: &Slot| slot.prefetch());
            for run in slots.chunk_by(|one: &Slot, other| one.tag() == other.tag()) {
                ahead.by_ref().take(run.len()).for_each(|slot| slot.prefetch());
                let mut goes_on = true;
                for slot in run {
                    goes_on &= visit(EntryRef::new(slot.block()));
                }
                left = left.saturating_sub(run.len());
                if left == 0 || !goes_on {
                    return next(self.directory.segment(start).last_hash_of_tag(start, run[0].tag()));
                }
            }
            start = next(last)?;
        }
    }

    /// The entries that may have this hash, few more than those that do; none of their keys is hashed.
    pub fn near(&self, hash: KeyHash) -> impl Iterator<Item = EntryRef<'_>> {
        let segment = self.directory.segment(hash);
        let tag = segment.tag(hash);
        segment.slots_tagged(tag..=tag).map(|slot| EntryRef::new(slot.block()))
    }

    /// Fills `slots` with those of the segment of `start` from its tag on, ordered by tag; if there are many
    /// more than `wanted`, only with the first of them. Returns the last hash that they cover.
    fn window(&self, start: KeyHash, wanted: usize, slots: &mut Vec<Slot>) -> KeyHash {
        let segment = self.directory.segment(start);
        slots.clear();
        slots.extend(segment.slots_tagged(segment.tag(start)..=u16::MAX));
        let mut last = segment.last_hash(start);
        if slots.len() > 2 * wanted {
            let (_, cut, _) = slots.select_nth_unstable(wanted);
            let cut = cut.tag();
            slots.retain(|slot| slot.tag() <= cut);
            last = segment.last_hash_of_tag(start, cut);
        }
        slots.sort_unstable();
        last
    }

    /// The entries whose hash has this high half ([`KeyHash::position`]): usually one, none if it is gone.
    pub fn at_position(&self, position: u32) -> impl Iterator<Item = (KeyHash, EntryRef<'_>)> {
        self.under(position, u32::BITS)
    }

    /// The entries whose hash has these `bits` top bits, 24 to 32.
    pub fn under(&self, top: u32, bits: u32) -> impl Iterator<Item = (KeyHash, EntryRef<'_>)> {
        let first = KeyHash::from_bits(u64::from(top) << (u64::BITS - bits));
        let last = KeyHash::from_bits(first.bits() | u64::MAX >> bits);
        // A directory deeper than 24 bits would spread them over segments; it would hold 2^32 keys.
        let segment = self.directory.segment(first);
        segment
            .slots_tagged(segment.tag(first)..=segment.tag(last))
            .map(|slot| self.hashed(slot))
            .filter(move |(hash, _)| (first..=last).contains(hash))
    }

    fn hashed(&self, slot: Slot) -> Hashed<'_> {
        let entry = EntryRef::new(slot.block());
        (self.hasher.hash(entry.key()), entry)
    }
}

fn next(hash: KeyHash) -> Option<KeyHash> {
    hash.bits().checked_add(1).map(KeyHash::from_bits)
}
