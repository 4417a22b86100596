//! Which segment a hash belongs to: the top bits of the hash index an array of segment handles.
//!
//! A segment of depth `d` owns all hashes that share its top `d` bits and appears `2^(depth - d)` times in a
//! row; the first copy of its handle counts its entries. A split or merge touches one or two segments; only
//! the array of handles (16 bytes a segment) is ever doubled or halved as a whole.

use std::sync::Arc;

use super::block::Block;
use super::outline::Outline;
use super::segment::{Position, Segment, Slot};
use crate::footprint::block_bytes;
use crate::hash::{KeyHash, KeyHasher};

/// The segments of one table in hash order.
#[repr(C)]
pub(super) struct Directory {
    segments: Vec<Segment>,
    /// `segments.len() == 1 << depth`.
    depth: u32,
    /// How many segments are as deep as the directory.
    deepest: usize,
    /// What the segments take on the heap, without the array.
    slot_bytes: usize,
    /// Where the handles are published, if anybody looks ahead.
    outline: Option<Arc<Outline>>,
}

/// A segment whose slots are freed once nobody who looks ahead can know them.
struct Retired(Segment);

// SAFETY: slots are freed on whatever thread comes to it; nothing else is done with them.
unsafe impl Send for Retired {}

impl Retired {
    /// # Safety
    /// As for [`Segment::free`].
    unsafe fn free(self) {
        // SAFETY: promised by the caller.
        unsafe { self.0.free() }
    }
}

impl Directory {
    /// One segment of one group.
    pub(super) fn new() -> Directory {
        let segment = Segment::allocate(1, 0);
        let slot_bytes = segment.memory_bytes();
        Directory { segments: vec![segment], depth: 0, deepest: 1, slot_bytes, outline: None }
    }

    /// Publishes the directory from now on.
    pub(super) fn outline(&mut self) -> Arc<Outline> {
        let outline = self.outline.get_or_insert_with(|| Arc::new(Outline::new()));
        outline.publish(self.depth, &self.segments);
        Arc::clone(outline)
    }

    /// Publishes this directory where another one was, which nobody finds any more; its slots still wait for those who did.
    pub(super) fn succeed(&mut self, other: &mut Directory) {
        let Some(outline) = other.outline.take() else { return };
        other.outline = Some(Arc::new(Outline::new()));
        outline.publish(self.depth, &self.segments);
        self.outline = Some(outline);
    }

    #[inline]
    pub(super) fn memory_bytes(&self) -> usize {
        self.slot_bytes + block_bytes(self.segments.capacity() * size_of::<Segment>())
    }

    #[inline]
    fn index(&self, hash: KeyHash) -> usize {
        hash.prefix(self.depth)
    }

    /// The segment of a hash, for reading.
    #[inline]
    pub(super) fn segment(&self, hash: KeyHash) -> &Segment {
        &self.segments[self.index(hash)]
    }

    /// Index of the segment's first handle, the one that counts.
    #[inline]
    fn first(&self, hash: KeyHash) -> usize {
        let index = self.index(hash);
        index & !(self.copies(&self.segments[index]) - 1)
    }

    /// How often the segment's handle appears.
    #[inline]
    fn copies(&self, segment: &Segment) -> usize {
        1 << (self.depth - segment.depth())
    }

    /// The slot position of a key.
    #[inline]
    pub(super) fn find(&self, hash: KeyHash, key: &[u8]) -> Option<Position> {
        self.segment(hash).find(hash, key)
    }

    /// The segment of a hash, to change the block of an occupied slot.
    #[inline]
    pub(super) fn segment_mut(&mut self, hash: KeyHash) -> &mut Segment {
        let index = self.index(hash);
        &mut self.segments[index]
    }

    /// Adds a block whose key is not in the table.
    pub(super) fn insert(&mut self, hash: KeyHash, block: Block, hasher: &KeyHasher) {
        let mut first = self.first(hash);
        if self.segments[first].is_at_capacity() {
            self.make_room(first, hasher);
            first = self.first(hash);
        }
        self.segments[first].insert(hash, block);
    }

    /// Takes the entry at a position out of its segment, which may shrink or merge.
    pub(super) fn remove(&mut self, hash: KeyHash, position: Position) -> Block {
        let first = self.first(hash);
        let block = self.segments[first].remove(position);
        if self.segments[first].is_sparse() {
            self.give_room_back(first);
        }
        block
    }

    /// Grows or splits the segment at `first`, so that an insert into its range finds room.
    fn make_room(&mut self, first: usize, hasher: &KeyHasher) {
        let segment = self.segments[first];
        if !segment.is_full_grown() || !segment.splits_well() {
            let grown = segment.resized();
            self.place(first, grown);
            self.release(segment);
            return;
        }
        let first = if segment.depth() == self.depth { self.double(first) } else { first };
        let halves = segment.split(hasher);
        let copies = self.copies(&halves[0]);
        self.place(first, halves[0]);
        self.place(first + copies, halves[1]);
        self.release(segment);
        if halves[0].depth() == self.depth {
            self.deepest += 2;
        }
    }

    /// Twice as many handles; returns where the one at `index` stands now.
    fn double(&mut self, index: usize) -> usize {
        let mut doubled = Vec::with_capacity(self.segments.len() * 2);
        for segment in &self.segments {
            doubled.extend([*segment, *segment]);
        }
        self.segments = doubled;
        self.depth += 1;
        self.deepest = 0;
        self.publish();
        index * 2
    }

    /// Puts the handle at `first` and at all places behind it that its depth gives it.
    fn place(&mut self, first: usize, segment: Segment) {
        let places = first..first + self.copies(&segment);
        self.segments[places.clone()].fill(segment);
        if let Some(outline) = &self.outline {
            outline.place(self.depth, places, &segment);
        }
        self.slot_bytes += segment.memory_bytes();
    }

    /// Frees the slots of a segment that no handle stands for any more.
    fn release(&mut self, segment: Segment) {
        self.slot_bytes -= segment.memory_bytes();
        // SAFETY: its copies in the directory and outline were overwritten, so this is the last one.
        unsafe { self.free(segment) }
    }

    /// # Safety
    /// No handle of the segment is used afterwards but by those who look ahead and knew it before.
    unsafe fn free(&self, segment: Segment) {
        if self.outline.is_none() {
            // SAFETY: nobody looks ahead, and the caller promised the rest.
            return unsafe { segment.free() };
        }
        let retired = Retired(segment);
        // SAFETY: whoever looks ahead and could know the slots is pinned, and this runs when they no longer are.
        unsafe { crossbeam_epoch::pin().defer_unchecked(move || retired.free()) }
    }

    fn publish(&self) {
        if let Some(outline) = &self.outline {
            outline.publish(self.depth, &self.segments);
        }
    }

    /// Merges the sparse segment at `first` with its neighbour, or makes it smaller.
    fn give_room_back(&mut self, first: usize) {
        let segment = self.segments[first];
        if segment.depth() > 0 {
            let copies = self.copies(&segment);
            let neighbour = self.segments[first ^ copies];
            let together = segment.len() + neighbour.len();
            if neighbour.depth() == segment.depth() && together * 8 <= Segment::full_capacity() * 3 {
                let lower = first & !copies;
                let halves = [self.segments[lower], self.segments[lower + copies]];
                if segment.depth() == self.depth {
                    self.deepest -= 2;
                }
                self.place(lower, Segment::merged(&halves[0], &halves[1]));
                for half in halves {
                    self.release(half);
                }
                self.halve();
                return;
            }
        }
        let shrunk = segment.resized();
        self.place(first, shrunk);
        self.release(segment);
    }

    /// Drops every second handle for as long as no segment needs the directory's full depth.
    fn halve(&mut self) {
        while self.deepest == 0 {
            self.depth -= 1;
            self.segments = self.segments.iter().step_by(2).copied().collect();
            let depth = self.depth;
            self.deepest = self.segments.iter().filter(|segment| segment.depth() == depth).count();
            self.publish();
        }
    }

    /// Each segment once, in hash order.
    pub(super) fn segments(&self) -> impl Iterator<Item = &Segment> {
        let mut index = 0;
        std::iter::from_fn(move || {
            let segment = self.segments.get(index)?;
            index += self.copies(segment);
            Some(segment)
        })
    }

    /// All occupied slots, segment by segment in hash order.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.segments().flat_map(Segment::slots)
    }
}

#[cfg(test)]
impl Directory {
    /// Asserts what the counters claim.
    pub(super) fn check_account(&self) {
        assert_eq!(self.segments.len(), 1 << self.depth);
        assert_eq!(self.slot_bytes, self.segments().map(Segment::memory_bytes).sum());
        let deepest = self.segments().filter(|segment| segment.depth() == self.depth).count();
        assert_eq!(self.deepest, deepest);
        self.segments().for_each(Segment::check);
    }
}

impl Drop for Directory {
    /// Frees the slots; the table has freed the blocks.
    fn drop(&mut self) {
        if let Some(outline) = &self.outline {
            outline.hide();
        }
        let mut index = 0;
        while let Some(&segment) = self.segments.get(index) {
            index += self.copies(&segment);
            // SAFETY: each segment is freed once, at its first handle, and the directory goes away.
            unsafe { self.free(segment) }
        }
    }
}
