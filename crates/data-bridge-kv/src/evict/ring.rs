//! A queue of entry references in chunks, each stamped with the generation in which its first slot was pushed. Used by
//! the eviction order only.
//!
//! Chunks keep growth free of copies of the whole, give memory back as the queue drains, and bound the work of one step
//! of a sweep. A chunk is also closed when the generation changes, unless that would leave many short chunks: at least
//! 32 slots each, or at most 16 chunks.

use std::collections::VecDeque;

use crate::footprint::block_bytes;

/// Slots in a full chunk.
const CHUNK: usize = 512;
/// A chunk this long may be closed early.
const CHUNK_MIN: usize = 32;
/// A queue this short (in chunks) may close chunks early, however short they are.
const CHUNKS_FREE: usize = 16;

#[derive(Debug)]
struct Chunk {
    generation: u32,
    slots: Vec<u32>,
}

/// A first-in first-out queue of references.
#[derive(Debug, Default)]
pub struct Ring {
    chunks: VecDeque<Chunk>,
    /// Slots of the first chunk that are popped already.
    popped: usize,
    len: usize,
}

impl Ring {
    /// Slots in the queue.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The generation of the oldest slot, if there is one.
    pub fn head(&self) -> Option<u32> {
        self.chunks.front().map(|chunk| chunk.generation)
    }

    /// Appends a slot.
    pub fn push(&mut self, reference: u32, generation: u32) {
        let few = self.chunks.len() < CHUNKS_FREE;
        let open = self.chunks.back_mut().filter(|chunk| {
            let long = few || chunk.slots.len() >= CHUNK_MIN;
            chunk.slots.len() < CHUNK && (chunk.generation == generation || !long)
        });
        if let Some(chunk) = open {
            chunk.slots.push(reference);
        } else {
            if let Some(closed) = self.chunks.back_mut() {
                closed.slots.shrink_to_fit();
            }
            self.chunks.push_back(Chunk { generation, slots: vec![reference] });
        }
        self.len += 1;
    }

    /// Removes the oldest slot.
    pub fn pop(&mut self) -> Option<u32> {
        let chunk = self.chunks.front()?;
        let reference = *chunk.slots.get(self.popped)?;
        self.popped += 1;
        self.len -= 1;
        if self.popped == chunk.slots.len() {
            self.drop_chunk(0);
        }
        Some(reference)
    }

    /// Drops the slots of one chunk, oldest first, that `keep` refuses. False if there is no such chunk.
    pub fn retain(&mut self, chunk: usize, mut keep: impl FnMut(u32) -> bool) -> bool {
        let Some(found) = self.chunks.get_mut(chunk) else { return false };
        if chunk == 0 {
            found.slots.drain(..std::mem::take(&mut self.popped));
        }
        let before = found.slots.len();
        found.slots.retain(|reference| keep(*reference));
        self.len -= before - found.slots.len();
        if found.slots.is_empty() {
            self.drop_chunk(chunk);
        } else {
            found.slots.shrink_to_fit();
        }
        true
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        let slots = self.chunks.iter().map(|chunk| block_bytes(chunk.slots.capacity() * size_of::<u32>()));
        slots.sum::<usize>() + block_bytes(self.chunks.capacity() * size_of::<Chunk>())
    }

    fn drop_chunk(&mut self, chunk: usize) {
        self.chunks.remove(chunk);
        if chunk == 0 {
            self.popped = 0;
        }
        if self.chunks.len() * 4 < self.chunks.capacity() {
            self.chunks.shrink_to(self.chunks.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_out_in_order_across_chunks_and_generations() {
        let mut ring = Ring::default();
        (0..5000).for_each(|at| ring.push(at, at / 700));
        assert_eq!((ring.len(), ring.head()), (5000, Some(0)));
        for at in 0..5000 {
            assert_eq!(ring.pop(), Some(at));
        }
        assert_eq!((ring.pop(), ring.len(), ring.head()), (None, 0, None));
    }

    #[test]
    fn the_head_tells_its_generation() {
        let mut ring = Ring::default();
        (0..10).for_each(|at| ring.push(at, at));
        (0..10).for_each(|at| assert_eq!((ring.head(), ring.pop()), (Some(at), Some(at))));
    }

    #[test]
    fn many_generations_do_not_make_many_chunks() {
        let mut ring = Ring::default();
        (0..10_000).for_each(|at| ring.push(at, at));
        assert!(ring.bytes() < 80_000, "{} bytes for 10,000 slots", ring.bytes());
    }

    #[test]
    fn a_sweep_drops_what_is_refused_and_no_popped_slot_comes_back() {
        let mut ring = Ring::default();
        (0..2000).for_each(|at| ring.push(at, 0));
        (0..100).for_each(|_| assert!(ring.pop().is_some()));
        let mut chunk = 0;
        while ring.retain(chunk, |reference| reference % 2 == 0) {
            chunk += 1;
        }
        assert_eq!(ring.len(), 950);
        let left: Vec<u32> = std::iter::from_fn(|| ring.pop()).collect();
        assert_eq!(left, (100..2000).step_by(2).collect::<Vec<u32>>());
    }

    #[test]
    fn memory_goes_back_down() {
        let mut ring = Ring::default();
        (0..1_000_000).for_each(|at| ring.push(at, 0));
        assert!(ring.bytes() < 4_300_000, "{} bytes for a million slots", ring.bytes());
        (0..999_000).for_each(|_| assert!(ring.pop().is_some()));
        assert!(ring.bytes() < 10_000, "{} bytes for a thousand slots", ring.bytes());
    }
}
