//! The hash table of one shard: key → entry, for one owner at a time (`&mut self`, the shard's lock is
//! outside).
//!
//! Three layers, each in its own file: the *directory* leads from the top bits of a hash to a *segment* of at
//! most 4 KiB, the segment holds 8-byte slots in groups of one cache line, and a slot points to the *block*
//! with everything an entry consists of, which stands in the table's *slab*, whose pages come from the process's *arena*. Segments grow in small steps and split in two,
//! so the load stays at 70 to 88 percent at any count and no operation pauses for a whole-table resize.
//!
//! All unsafe code of the engine is in this module, but for the processor's counter in `clock/ticks.rs`. Outwards it
//! is safe: views borrow the table, and whatever
//! leaves it is owned. Only the shard's transaction changes a table; scans, timers and eviction read it.
#![allow(unsafe_code)]

mod arena;
mod block;
mod directory;
mod entry;
mod header;
mod outline;
mod scan;
mod segment;
mod slab;
#[cfg(test)]
mod tests;
mod value;

pub use arena::hold_short;
pub use entry::{CollectionMut, EntryMut, EntryRef, OwnedEntry};
pub use header::{MAX_DEADLINE, MAX_HEAT, MAX_KEY_BYTES, MAX_SEQUENCE};
pub use outline::{Home, Outline};
pub use segment::Position;
pub use value::{Blob, INLINE_BYTES, NewEntry, NewValue, Shared, Stored, is_kept_whole};

use std::sync::Arc;

use block::{Block, Payload};
use directory::Directory;
use header::Fields;
use slab::Slab;

use crate::hash::{KeyHash, KeyHasher};

/// What [`Table::look`] found.
pub enum Look<'a> {
    /// No entry.
    Absent,
    /// An entry whose deadline has passed.
    Expired,
    /// An entry, and where it stands.
    Live(EntryRef<'a>, Position),
}

/// The entries of one shard. Every hash handed in must come from the table's hasher; another one makes keys
/// unfindable, but nothing worse.
// What a search begins with stands in front, see `Shard`.
#[repr(C)]
pub struct Table {
    directory: Directory,
    len: usize,
    /// Bytes of blocks in use and of what they own.
    entry_bytes: usize,
    slab: Slab,
    hasher: KeyHasher,
}

// Blobs and collections are shared with readers on other threads.
const _: fn() = || {
    fn crosses_threads<T: Send + Sync>() {}
    crosses_threads::<Blob>();
    crosses_threads::<crate::collections::Collection>();
};

// SAFETY: the table is the only owner of its slots and blocks; what the blocks share with readers are Arcs of
// Send + Sync types.
unsafe impl Send for Table {}
// SAFETY: `&Table` only reads.
unsafe impl Sync for Table {}

impl Table {
    /// An empty table for keys hashed by `hasher`.
    pub fn new(hasher: KeyHasher) -> Table {
        Table { hasher, directory: Directory::new(), slab: Slab::default(), len: 0, entry_bytes: 0 }
    }

    /// The hasher that the table was made with.
    pub fn hasher(&self) -> &KeyHasher {
        &self.hasher
    }

    /// How many entries there are, expired ones included.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the table takes on the heap: blocks and the pages they are cut from, large payloads, collections,
    /// slots and directory, each counted by its allocation size class. Holes between blocks are not counted.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        self.entry_bytes + self.slab.uncut_bytes() + self.directory.memory_bytes()
    }

    /// The part of [`Table::memory_bytes`] that blocks in use and what they own take: where a write leaves it as it was, the
    /// rest is as it was too.
    #[inline]
    pub fn entry_bytes(&self) -> usize {
        self.entry_bytes
    }

    /// The entry of a key.
    #[inline]
    pub fn find(&self, hash: KeyHash, key: &[u8]) -> Option<EntryRef<'_>> {
        let segment = self.directory.segment(hash);
        segment.find(hash, key).map(|position| EntryRef::new(segment.block_at(position)))
    }

    /// The entry at the position that a look for this hash has just answered: without another probe. If the table was
    /// changed since, it is some entry or none.
    #[inline]
    pub fn at(&self, hash: KeyHash, position: Position) -> Option<EntryRef<'_>> {
        self.directory.segment(hash).get(position).map(EntryRef::new)
    }

    /// The entry of a key, to be changed.
    #[inline]
    pub fn find_mut(&mut self, hash: KeyHash, key: &[u8]) -> Option<EntryMut<'_>> {
        if self.slab.is_holey() {
            self.fill_holes();
        }
        let segment = self.directory.segment_mut(hash);
        let position = segment.find(hash, key)?;
        Some(EntryMut::new(segment, position, &mut self.slab, &mut self.entry_bytes))
    }

    /// Looks a key up for a command: a live entry is touched if `touch` (its heat grows) and returned, one whose
    /// deadline has passed by `now` is left alone and reported. One probe.
    #[inline]
    pub fn look(&mut self, hash: KeyHash, key: &[u8], touch: bool, now: impl FnOnce() -> u64) -> Look<'_> {
        let segment = self.directory.segment(hash);
        let Some(position) = segment.find(hash, key) else { return Look::Absent };
        let block = segment.block_at(position);
        if block.deadline().is_some_and(|deadline| deadline <= now()) {
            return Look::Expired;
        }
        if touch && block.heat() < MAX_HEAT {
            block.set_heat(block.heat() + 1);
        }
        Look::Live(EntryRef::new(block), position)
    }

    /// Writes an entry whether or not the key is there; an existing block is reused if its size fits.
    /// Returns whether the key is new. The key must have 1 to 1024 bytes.
    pub fn put(&mut self, hash: KeyHash, key: &[u8], new: NewEntry<'_>) -> bool {
        if let Some(mut entry) = self.find_mut(hash, key) {
            entry.set(new);
            return false;
        }
        self.add(hash, key, new);
        true
    }

    /// Writes value, version and deadline; an entry that is there is touched (its heat grows), a new one is cold.
    /// Returns the deadline of the one that was there, if one was.
    #[inline]
    pub fn write(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        value: NewValue<'_>,
        sequence: u64,
        deadline: Option<u64>,
    ) -> Option<Option<u64>> {
        let segment = self.directory.segment(hash);
        let Some(position) = segment.find(hash, key) else {
            self.add(hash, key, NewEntry { value, sequence, deadline, heat: 0 });
            return None;
        };
        let block = segment.block_at(position);
        let before = block.deadline();
        let fields = Fields { sequence, deadline, heat: block.heat().saturating_add(1).min(MAX_HEAT) };
        let payload = Payload::new(value);
        if !block.overwrite(fields, &payload) {
            self.replace(hash, position, fields, payload);
        }
        Some(before)
    }

    /// Gives the entry at a position, which was just found, other fields and another value.
    fn replace(&mut self, hash: KeyHash, position: Position, fields: Fields, payload: Payload<'_>) {
        // That moves blocks, but leaves each slot where it is.
        if self.slab.is_holey() {
            self.fill_holes();
        }
        let segment = self.directory.segment_mut(hash);
        EntryMut::new(segment, position, &mut self.slab, &mut self.entry_bytes).replace(fields, payload);
    }

    /// Puts an owned entry in; returns the deadline of the one it replaces, if there was one.
    pub fn restore(&mut self, hash: KeyHash, entry: OwnedEntry) -> Option<Option<u64>> {
        let before = self.remove(hash, entry.entry().key());
        let block = entry.into_block().move_into(&mut self.slab);
        self.insert(hash, block);
        before
    }

    /// Removes an entry; returns the deadline it had, if it was there.
    pub fn remove(&mut self, hash: KeyHash, key: &[u8]) -> Option<Option<u64>> {
        let position = self.directory.find(hash, key)?;
        let block = self.directory.remove(hash, position);
        self.len -= 1;
        self.entry_bytes -= block.memory_bytes();
        let deadline = block.deadline();
        // SAFETY: the block has left its slot, and `&mut self` excludes borrows of it.
        unsafe { block.free(&mut self.slab) }
        if self.slab.is_holey() {
            self.fill_holes();
        }
        Some(deadline)
    }

    /// Takes every entry out at once; the table goes on empty, and those who look ahead follow it. What the entries took is
    /// freed with the answer.
    pub fn take(&mut self) -> Table {
        let mut empty = Table::new(self.hasher.clone());
        empty.directory.succeed(&mut self.directory);
        std::mem::replace(self, empty)
    }

    /// All entries, in no order that outlives a change.
    pub fn iter(&self) -> impl Iterator<Item = EntryRef<'_>> {
        self.directory.slots().map(|slot| EntryRef::new(slot.block()))
    }

    /// What a look ahead may read without this table's lock. The table keeps it up to date from now on.
    pub fn outline(&mut self) -> Arc<Outline> {
        self.directory.outline()
    }

    /// Moves blocks from the end of the slab's pages into holes, for as long as there are too many.
    #[cold]
    fn fill_holes(&mut self) {
        while let Some(memory) = self.slab.last_to_move() {
            // SAFETY: what is cut and no hole is a live block.
            let last = unsafe { Block::at_memory(memory) };
            let hash = self.hasher.hash(last.key());
            let segment = self.directory.segment_mut(hash);
            let found = segment.find(hash, last.key()).filter(|at| segment.block_at(*at) == last);
            // Only an entry that was filed under a wrong hash is not found.
            let Some(position) = found else {
                self.slab.leave_holes();
                continue;
            };
            // SAFETY: its slot, the only one, is given the new place next.
            if let Some(memory) = unsafe { self.slab.move_last() } {
                // SAFETY: the block was moved there.
                segment.set_block(position, unsafe { Block::at_memory(memory) });
            }
        }
    }

    /// Asks the processor for the entry that probably has this hash.
    #[inline]
    pub fn prefetch_entry(&self, hash: KeyHash) {
        self.directory.segment(hash).prefetch_entry(hash);
    }

    /// Asks the processor for slots, and for an entry whose slots have arrived; both are named by top bits of their hash,
    /// see [`Table::under`].
    #[inline]
    pub fn prefetch_under(&self, [slot, entry]: [Option<u32>; 2], bits: u32) {
        let hash = |top: u32| KeyHash::from_bits(u64::from(top) << (u64::BITS - bits));
        if let Some(top) = slot {
            self.directory.segment(hash(top)).prefetch(hash(top));
        }
        if let Some(top) = entry {
            self.directory.segment(hash(top)).prefetch_first(hash(top));
        }
    }

    fn add(&mut self, hash: KeyHash, key: &[u8], new: NewEntry<'_>) {
        let fields = Fields { sequence: new.sequence, deadline: new.deadline, heat: new.heat };
        let block = Block::new(&mut self.slab, key, fields, Payload::new(new.value));
        self.insert(hash, block);
    }

    fn insert(&mut self, hash: KeyHash, block: Block) {
        self.directory.insert(hash, block, &self.hasher);
        self.len += 1;
        self.entry_bytes += block.memory_bytes();
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        for slot in self.directory.slots() {
            // SAFETY: each block stands in one slot, and no slot is read again: only the slots' own memory and
            // the slab's pages are freed after this.
            unsafe { slot.block().free_but_page() }
        }
    }
}

/// Asks the processor for a cache line; any address will do. Does nothing where there is no such instruction.
#[inline]
pub fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults, and every x86_64 has it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
