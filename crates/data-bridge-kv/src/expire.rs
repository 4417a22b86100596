//! A timer wheel for the deadlines of one shard: says which entries to look at because their time may have come.
//!
//! It stands beside the shard's table under the same lock. Only the transaction (insert) and active expiry (advance,
//! sweep) call it. Time is an argument.
//!
//! # Contract
//! The wheel holds *items*: a reference (the top 24 bits of the key's hash inside its shard) and a tick of 16 ms. It
//! never learns that an entry changed or went; an item that fires is only a hint to look. The caller keeps one rule:
//! **an entry with a deadline has an item that fires no later than its deadline.** So it calls [`Wheel::insert`]
//! - when an entry gets a deadline and had none, and
//! - when its deadline moves to an earlier time;
//!
//! and does nothing when a deadline moves to a later time (the item it has will fire early, and be filed again), when
//! the deadline is taken away, or when the entry goes. Setting the same TTL again a million times leaves one item.
//!
//! When an item fires, the caller removes every entry under that reference whose deadline has passed, and answers with
//! the earliest deadline of the entries under it that remain, if any has one: the item is filed again there. An item
//! fires at the first [`Wheel::advance`] at or after its tick; ticks are rounded up, so an entry is found at most 16 ms
//! after its deadline plus the time between two calls, and is looked at too early only if its deadline moved, or once or
//! twice if it is over three days away.
//!
//! Taking deadlines away and giving them back (a plain write, then a TTL, for ever) does leave items behind. The caller
//! compares: while [`Wheel::is_crowded`], each further insert is accompanied by one [`Wheel::sweep`], which moves the
//! items of one slot to where they belong and drops the doubles. So items stay within about twice the entries.
//!
//! # Layout
//! Level 0 has a slot for each of 256 ticks (4 s), level 1 a slot for each 256 of those (17 min), level 2 for each
//! 65,536 (75 h in all), and so on. An item stands at the level of the highest byte in which its tick differs from the
//! next tick to be handled; when that byte is reached its slot is handed down. An item is five bytes: the slot says the
//! high part of its tick, 16 bits say the rest, exactly up to level 2. The items of a slot stand in chunks of 8 KiB, so
//! that growth copies little and wastes less.

use crate::footprint::block_bytes;
use crate::hash::KeyHash;

/// How finely deadlines are told apart, in milliseconds.
pub const TICK_MS: u64 = 16;

/// A look at an entry costs about as much as handing so many items down.
const LOOK_COST: usize = 8;
/// Bits of a tick that one level tells apart.
const DIGIT: u32 = 8;
/// Slots of a level.
const SLOTS: usize = 1 << DIGIT;
/// How many items ahead the slot of an entry is asked for, and how many the entry itself.
const AHEAD: [usize; 2] = [16, 8];
/// Items of a full chunk: 8 KiB. (Not the 4 KiB of a segment of the table: between freed segments chunks would keep pages alive.)
const CHUNK: usize = 8192 / size_of::<Item>();
/// Items tolerated beyond twice the entries with a deadline.
const CROWD_MIN: usize = 1024;

/// Bits of a reference.
pub const REFERENCE_BITS: u32 = 24;

/// What the wheel calls the entries with this hash, and a few others.
#[inline]
pub fn reference(hash: KeyHash) -> u32 {
    hash.position() >> (u32::BITS - REFERENCE_BITS)
}

/// A reference and the low bits of a tick. Bytes, so that no padding is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item([u8; 5]);

impl Item {
    fn new(reference: u32, rest: u16) -> Self {
        let [_, high, middle, low] = reference.to_be_bytes();
        let [rest_high, rest_low] = rest.to_be_bytes();
        Self([high, middle, low, rest_high, rest_low])
    }

    fn reference(self) -> u32 {
        u32::from_be_bytes([0, self.0[0], self.0[1], self.0[2]])
    }

    fn rest(self) -> u16 {
        u16::from_be_bytes([self.0[3], self.0[4]])
    }
}

#[derive(Debug, Default)]
struct Level {
    /// One bit for each slot that has items.
    occupied: [u64; SLOTS / 64],
    /// All slots, or none while the level was never used.
    slots: Vec<Slot>,
}

/// The items of a slot. All chunks but the last are full, and none is empty.
#[derive(Debug, Default)]
struct Slot {
    chunks: Vec<Vec<Item>>,
}

impl Slot {
    fn push(&mut self, item: Item) {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            if self.chunks.is_empty() {
                self.chunks.reserve_exact(1);
            }
            self.chunks.push(Vec::new());
        }
        let Some(chunk) = self.chunks.last_mut() else { return };
        if chunk.len() == chunk.capacity() {
            chunk.reserve_exact((chunk.len() / 4).clamp(4, CHUNK - chunk.len()));
        }
        chunk.push(item);
    }

    fn pop(&mut self) -> Option<Item> {
        let chunk = self.chunks.last_mut()?;
        let item = chunk.pop();
        if chunk.is_empty() {
            self.chunks.pop();
        }
        item
    }

    /// The reference that comes after so many more of the chunk.
    fn ahead(&self, items: usize) -> Option<u32> {
        let chunk = self.chunks.last()?;
        Some(chunk[chunk.len().checked_sub(items)?].reference())
    }

    fn bytes(&self) -> usize {
        let chunks = self.chunks.iter().map(|chunk| block_bytes(chunk.capacity() * size_of::<Item>()));
        chunks.sum::<usize>() + block_bytes(self.chunks.capacity() * size_of::<Vec<Item>>())
    }
}

/// The deadlines of one shard.
#[derive(Debug)]
pub struct Wheel {
    /// The first tick whose items have not all fired.
    next: u64,
    levels: Vec<Level>,
    len: usize,
    /// Level and slot where the sweep goes on.
    sweep: (usize, usize),
}

impl Wheel {
    /// An empty wheel at this time (Unix milliseconds).
    pub fn new(now_ms: u64) -> Self {
        Self { next: now_ms / TICK_MS, levels: Vec::new(), len: 0, sweep: (0, 0) }
    }

    /// Items held, at least one for each entry with a deadline.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to wait for.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory held: a little over 5 for each item, and 6 KiB for each level in use (three, up to 75 h). Costs a
    /// walk over the slots.
    pub fn bytes(&self) -> usize {
        let slots = self.levels.iter().flat_map(|level| &level.slots);
        slots.map(|slot| size_of::<Slot>() + slot.bytes()).sum()
    }

    /// Files an item for an entry whose deadline (Unix milliseconds) is this; one that has passed fires with the next
    /// tick.
    pub fn insert(&mut self, reference: u32, deadline_ms: u64) {
        self.file(reference, deadline_ms.div_ceil(TICK_MS));
    }

    /// Fires what is due, oldest first, looking at no more than `limit` entries, and hands items down for as much work
    /// again. `look` is as the contract says, and is told besides what it will be asked for a few calls later: far ahead
    /// and near, so that the processor can have it fetched. True if more may be due: release the lock for a moment, then call again.
    pub fn advance(
        &mut self,
        now_ms: u64,
        limit: usize,
        mut look: impl FnMut(u32, [Option<u32>; 2]) -> Option<u64>,
    ) -> bool {
        let last = now_ms / TICK_MS;
        let mut looks = limit;
        let mut handed_down = limit.saturating_mul(LOOK_COST);
        while self.next <= last {
            if let Some(level) = self.due_level() {
                handed_down = self.hand_down(level, handed_down);
                if handed_down == 0 {
                    return true;
                }
            } else if let Some(item) = self.pop(0, digit(self.next, 0)) {
                let slot = &self.levels[0].slots[digit(self.next, 0)];
                let ahead = AHEAD.map(|items| slot.ahead(items));
                if let Some(deadline_ms) = look(item.reference(), ahead) {
                    self.file(item.reference(), deadline_ms.div_ceil(TICK_MS).max(self.next + 1));
                }
                looks = looks.saturating_sub(1);
                if looks == 0 {
                    return true;
                }
            } else {
                self.next = self.next_event().map_or(last + 1, |tick| tick.min(last + 1));
            }
        }
        false
    }

    /// A time (Unix milliseconds) before which nothing is due, at most one level's slot too early; nothing if the wheel
    /// is empty. It changes with each insert.
    pub fn wake_ms(&self) -> Option<u64> {
        let here = self.due_level().is_some() || self.has_items(0, digit(self.next, 0));
        let tick = if here { Some(self.next) } else { self.next_event() };
        tick.map(|tick| tick.saturating_mul(TICK_MS))
    }

    /// Whether so many items are stale that the wheel wants sweeping, given the number of entries with a deadline.
    pub fn is_crowded(&self, entries: usize) -> bool {
        self.len > entries.saturating_mul(2).saturating_add(CROWD_MIN)
    }

    /// Looks at each reference of the next slot that has items, and files its item anew, once, at the deadline that
    /// `look` tells; with none it is dropped. Here `look` tells the earliest deadline under the reference, passed or
    /// not, and removes nothing. The work is that of one slot.
    pub fn sweep(&mut self, mut look: impl FnMut(u32) -> Option<u64>) {
        let Some((level, slot)) = self.next_to_sweep() else { return };
        let mut items = self.take(level, slot).concat();
        items.sort_unstable_by_key(|item| item.reference());
        items.dedup_by_key(|item| item.reference());
        for item in items {
            if let Some(deadline_ms) = look(item.reference()) {
                self.insert(item.reference(), deadline_ms);
            }
        }
    }

    fn file(&mut self, reference: u32, tick: u64) {
        let tick = tick.max(self.next);
        let level = ((tick ^ self.next) | 1).ilog2() / DIGIT;
        let slot = digit(tick, level);
        let rest = (tick & ((1 << (DIGIT * level)) - 1)) >> dropped_bits(level);
        let index = level as usize;
        if self.levels.len() <= index {
            self.levels.resize_with(index + 1, Level::default);
        }
        let level = &mut self.levels[index];
        if level.slots.is_empty() {
            level.slots.resize_with(SLOTS, Slot::default);
        }
        level.slots[slot].push(Item::new(reference, rest as u16));
        level.occupied[slot / 64] |= 1 << (slot % 64);
        self.len += 1;
    }

    /// The level of which the slot that has just been reached is to be handed down.
    fn due_level(&self) -> Option<u32> {
        (1..self.levels.len() as u32).rev().find(|level| self.has_items(*level, digit(self.next, *level)))
    }

    /// Files the items of the slot that has just been reached at lower levels; returns what is left of the budget.
    fn hand_down(&mut self, level: u32, budget: usize) -> usize {
        let slot_start = self.next >> (DIGIT * level) << (DIGIT * level);
        for left in (0..budget).rev() {
            let Some(item) = self.pop(level, digit(self.next, level)) else { return left + 1 };
            let rest = u64::from(item.rest()) << dropped_bits(level);
            self.file(item.reference(), slot_start | rest);
        }
        0
    }

    /// The tick of the first slot after `next` that has items, at whatever level.
    fn next_event(&self) -> Option<u64> {
        (0..self.levels.len() as u32).find_map(|level| {
            let slot = self.occupied_from(level as usize, digit(self.next, level) + 1)?;
            let above = DIGIT * (level + 1);
            let start = self.next.checked_shr(above).unwrap_or(0).checked_shl(above).unwrap_or(0);
            Some(start | (slot as u64) << (DIGIT * level))
        })
    }

    /// The next slot with items in order of time, from where the last sweep ended; round and round.
    fn next_to_sweep(&mut self) -> Option<(usize, usize)> {
        if self.len == 0 {
            return None;
        }
        loop {
            let (level, from) = self.sweep;
            if level >= self.levels.len() {
                self.sweep = (0, 0);
            } else if let Some(slot) = self.occupied_from(level, from) {
                self.sweep = (level, slot + 1);
                return Some((level, slot));
            } else {
                self.sweep = (level + 1, 0);
            }
        }
    }

    fn has_items(&self, level: u32, slot: usize) -> bool {
        let level = self.levels.get(level as usize);
        level.is_some_and(|level| level.occupied[slot / 64] >> (slot % 64) & 1 == 1)
    }

    fn occupied_from(&self, level: usize, from: usize) -> Option<usize> {
        let occupied = &self.levels[level].occupied;
        (from / 64..occupied.len()).find_map(|word| {
            let passed = if word == from / 64 { (1_u64 << (from % 64)) - 1 } else { 0 };
            let bits = occupied[word] & !passed;
            (bits != 0).then(|| word * 64 + bits.trailing_zeros() as usize)
        })
    }

    fn pop(&mut self, level: u32, slot: usize) -> Option<Item> {
        let level = level as usize;
        let items = self.levels.get_mut(level)?.slots.get_mut(slot)?;
        let item = items.pop()?;
        self.len -= 1;
        if items.chunks.is_empty() {
            self.take(level, slot);
        }
        Some(item)
    }

    /// Empties a slot and gives its memory away.
    fn take(&mut self, level: usize, slot: usize) -> Vec<Vec<Item>> {
        let level = &mut self.levels[level];
        level.occupied[slot / 64] &= !(1 << (slot % 64));
        let Slot { chunks } = std::mem::take(&mut level.slots[slot]);
        self.len -= chunks.iter().map(Vec::len).sum::<usize>();
        chunks
    }
}

/// The part of a tick that a level tells apart.
fn digit(tick: u64, level: u32) -> usize {
    (tick >> (DIGIT * level)) as usize % SLOTS
}

/// Low bits of a tick that an item of this level has no room for.
fn dropped_bits(level: u32) -> u32 {
    (DIGIT * level).saturating_sub(u16::BITS)
}

#[cfg(test)]
mod tests;
