//! Where the entry blocks of one table stand: in pages cut into blocks of one size. Up to 512 bytes the sizes are eight
//! bytes apart, above they are a sixteenth.
//!
//! A general allocator's size classes lie 16 or 32 bytes apart here, so that a few bytes more (a deadline) can cost an
//! entry 32. Pages of a size are cut from front to end. A freed block is a *hole*, which the next block of that size
//! fills. Where holes are more than a thirty-second of a size, the table moves the last block into one of them
//! ([`Slab::last_to_move`], [`Slab::move_last`]): only one slot knows where a block stands. So pages become empty from
//! the end, in whatever order entries leave, and go back at once.
//!
//! Pages grow with their number from 512 bytes to 16 KiB, since a small table has many sizes and few blocks of each; those
//! of blocks above 512 bytes from 8 to 64 KiB. From 16 KiB on they are the arena's. A block that fits no size is an
//! allocation of its own.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::{self, NonNull};

use super::arena::{self, PAGE_BYTES};
use crate::footprint::block_bytes;

/// The largest block that stands in a page.
const SLAB_BYTES: usize = 8 << 10;
/// The largest block of the sizes that are [`STEP`] apart.
const FINE_BYTES: usize = 512;
const STEP: usize = 8;
/// The smallest block: a hole keeps its number in it.
const SMALLEST: usize = 2 * STEP;
/// Sizes that are [`STEP`] apart.
const FINE_SIZES: usize = (FINE_BYTES - SMALLEST) / STEP + 1;
/// Sizes in each doubling above.
const COARSE_SIZES: usize = 16;
const _: () = assert!(index_of(SLAB_BYTES) < u128::BITS as usize, "a bit for each size");
const _: () = assert!(SLAB_BYTES <= PAGE_BYTES / 2, "a page has some blocks");
/// One hole is tolerated, and one more for so many blocks of a size.
const BLOCKS_A_HOLE: usize = 32;

/// The bytes that a block of `len` bytes takes.
#[inline]
pub(super) const fn slot_bytes(len: usize) -> usize {
    if stands_alone(len) {
        block_bytes(len)
    } else if len > FINE_BYTES {
        len.next_multiple_of(coarse_step(len))
    } else if len > SMALLEST {
        len.next_multiple_of(STEP)
    } else {
        SMALLEST
    }
}

/// How far the sizes around a length above [`FINE_BYTES`] are apart.
const fn coarse_step(len: usize) -> usize {
    (1 << (len - 1).ilog2()) / COARSE_SIZES
}

/// Whether a block of `len` bytes is in no page.
#[inline]
pub(super) const fn stands_alone(len: usize) -> bool {
    len > SLAB_BYTES
}

/// Memory for a block outside any page.
pub(super) fn allocate_alone(len: usize) -> NonNull<u8> {
    let layout = layout(slot_bytes(len));
    // SAFETY: the layout is not empty.
    let memory = unsafe { alloc(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

/// # Safety
/// The memory is from [`allocate_alone`] with a length of the same [`slot_bytes`], and is not used any more.
pub(super) unsafe fn free_alone(memory: NonNull<u8>, len: usize) {
    // SAFETY: allocated with this layout, as the caller promised.
    unsafe { dealloc(memory.as_ptr(), layout(slot_bytes(len))) }
}

fn layout(bytes: usize) -> Layout {
    // SAFETY: the alignment is valid, and sizes (at most those of a block) cannot overflow.
    unsafe { Layout::from_size_align_unchecked(bytes, STEP) }
}

/// The memory of one table's blocks.
#[derive(Default)]
pub(super) struct Slab {
    /// By size, from [`SMALLEST`] up, as far as there was need.
    sizes: Vec<Pages>,
    /// Bytes of pages that no block was cut from yet.
    uncut_bytes: usize,
    /// A bit for each size that got too many holes.
    holey: u128,
}

/// The pages of one size.
#[derive(Default)]
struct Pages {
    /// From [`allocate_page`], owned. All but the last are cut to the end.
    pages: Vec<NonNull<u8>>,
    /// Blocks cut from the last page.
    cut: usize,
    /// Blocks cut from all pages.
    blocks: usize,
    /// Blocks that are free. The first four bytes of each are its index here.
    holes: Vec<NonNull<u8>>,
}

impl Slab {
    /// Memory for a block.
    #[inline]
    pub(super) fn allocate(&mut self, len: usize) -> NonNull<u8> {
        if stands_alone(len) {
            return allocate_alone(len);
        }
        let index = index_of(len);
        match self.sizes.get_mut(index).and_then(|pages| pages.holes.pop()) {
            Some(hole) => hole,
            None => self.cut(index),
        }
    }

    /// # Safety
    /// The memory is from [`Slab::allocate`] of this slab with a length of the same [`slot_bytes`], and is not used any
    /// more.
    #[inline]
    pub(super) unsafe fn free(&mut self, memory: NonNull<u8>, len: usize) {
        if stands_alone(len) {
            // SAFETY: promised by the caller: `allocate` took it from there.
            return unsafe { free_alone(memory, len) };
        }
        let index = index_of(len);
        let pages = &mut self.sizes[index];
        number_hole(memory, pages.holes.len());
        pages.holes.push(memory);
        if pages.has_many_holes() {
            self.holey |= 1 << index;
        }
    }

    /// Bytes of pages that are in no block yet.
    #[inline]
    pub(super) fn uncut_bytes(&self) -> usize {
        self.uncut_bytes
    }

    /// Whether [`Slab::last_to_move`] has something to do.
    #[inline]
    pub(super) fn is_holey(&self) -> bool {
        self.holey != 0
    }

    /// The last block of a size that has too many holes, until none has. It should be moved.
    pub(super) fn last_to_move(&mut self) -> Option<NonNull<u8>> {
        while let Some(index) = self.holey_size() {
            let pages = &mut self.sizes[index];
            if !pages.has_many_holes() {
                self.leave_holes();
                continue;
            }
            let last = pages.last(bytes_of(index))?;
            let Some(hole) = pages.hole_index(last) else { return Some(last) };
            pages.holes.swap_remove(hole);
            if let Some(renumbered) = pages.holes.get(hole) {
                number_hole(*renumbered, hole);
            }
            self.drop_last(index);
        }
        None
    }

    /// Moves what [`Slab::last_to_move`] just gave into a hole, and tells where it stands now.
    ///
    /// # Safety
    /// The block is not used any more where it stood.
    pub(super) unsafe fn move_last(&mut self) -> Option<NonNull<u8>> {
        let index = self.holey_size()?;
        let bytes = bytes_of(index);
        let last = self.sizes[index].last(bytes)?;
        let hole = self.sizes[index].holes.pop()?;
        // SAFETY: two different blocks of this size: the last one is no hole.
        unsafe { ptr::copy_nonoverlapping(last.as_ptr(), hole.as_ptr(), bytes) };
        self.drop_last(index);
        Some(hole)
    }

    /// Leaves the holes of the size that is at hand until the next of its blocks is freed.
    pub(super) fn leave_holes(&mut self) {
        self.holey &= self.holey.wrapping_sub(1);
    }

    fn holey_size(&self) -> Option<usize> {
        self.is_holey().then(|| self.holey.trailing_zeros() as usize)
    }

    #[inline(never)]
    fn cut(&mut self, index: usize) -> NonNull<u8> {
        if self.sizes.len() <= index {
            self.sizes.resize_with(index + 1, Pages::default);
        }
        let (pages, bytes) = (&mut self.sizes[index], bytes_of(index));
        if pages.pages.last().is_none() || pages.cut == blocks_in_page(pages.pages.len() - 1, bytes) {
            let page = page_bytes(pages.pages.len(), bytes);
            pages.pages.push(allocate_page(page));
            pages.cut = 0;
            self.uncut_bytes += page;
        }
        pages.cut += 1;
        pages.blocks += 1;
        self.uncut_bytes -= bytes;
        pages.last(bytes).expect("one was cut")
    }

    /// Gives the last block of a size back to its page, and the page to the allocator if it was the first there.
    fn drop_last(&mut self, index: usize) {
        let (pages, bytes) = (&mut self.sizes[index], bytes_of(index));
        pages.cut -= 1;
        pages.blocks -= 1;
        self.uncut_bytes += bytes;
        if pages.cut == 0
            && let Some(page) = pages.pages.pop()
        {
            let len = page_bytes(pages.pages.len(), bytes);
            // SAFETY: allocated with this length, and no block in it is in use.
            unsafe { free_page(page, len) };
            self.uncut_bytes -= len;
            pages.cut = pages.pages.len().checked_sub(1).map_or(0, |last| blocks_in_page(last, bytes));
        }
    }
}

impl Pages {
    fn has_many_holes(&self) -> bool {
        self.holes.len() > 1 + self.blocks / BLOCKS_A_HOLE
    }

    /// The block that was cut last.
    fn last(&self, bytes: usize) -> Option<NonNull<u8>> {
        let page = *self.pages.last()?;
        let before = self.cut.checked_sub(1)?;
        // SAFETY: so many blocks were cut from the page before it.
        Some(unsafe { page.add(before * bytes) })
    }

    /// Which hole the block is, if it is one. (Its first bytes may look like an index by chance.)
    fn hole_index(&self, block: NonNull<u8>) -> Option<usize> {
        // SAFETY: both a block in use and a hole start with bytes that were written.
        let index = unsafe { block.cast::<u32>().read_unaligned() } as usize;
        (self.holes.get(index) == Some(&block)).then_some(index)
    }
}

impl Drop for Slab {
    /// Frees the pages; the table has given up the blocks.
    fn drop(&mut self) {
        for (size, pages) in self.sizes.iter().enumerate() {
            for (index, page) in pages.pages.iter().enumerate() {
                // SAFETY: allocated with this length, and the table that uses the blocks goes away.
                unsafe { free_page(*page, page_bytes(index, bytes_of(size))) }
            }
        }
    }
}

fn number_hole(hole: NonNull<u8>, index: usize) {
    // SAFETY: a block has at least sixteen bytes, and nobody uses a hole's.
    unsafe { hole.cast::<u32>().write_unaligned(index as u32) }
}

/// Where the size of a block stands in [`Slab::sizes`].
const fn index_of(len: usize) -> usize {
    let bytes = slot_bytes(len);
    if bytes <= FINE_BYTES {
        return (bytes - SMALLEST) / STEP;
    }
    let doublings = ((bytes - 1).ilog2() - FINE_BYTES.ilog2()) as usize;
    let above = bytes - (FINE_BYTES << doublings);
    FINE_SIZES + doublings * COARSE_SIZES + above / coarse_step(bytes) - 1
}

const fn bytes_of(index: usize) -> usize {
    if index < FINE_SIZES {
        return SMALLEST + index * STEP;
    }
    let (doublings, step) = ((index - FINE_SIZES) / COARSE_SIZES, (index - FINE_SIZES) % COARSE_SIZES);
    let least = FINE_BYTES << doublings;
    least + (step + 1) * (least / COARSE_SIZES)
}

/// How large the page with this index is, among those of blocks of so many bytes.
fn page_bytes(index: usize, bytes: usize) -> usize {
    let (least, doublings) = if bytes <= FINE_BYTES { (PAGE_BYTES >> 5, 5) } else { (SLAB_BYTES, 3) };
    least << (index / 2).min(doublings)
}

fn blocks_in_page(index: usize, bytes: usize) -> usize {
    page_bytes(index, bytes) / bytes
}

/// Memory for a page: the arena's from the size of its pages on.
fn allocate_page(len: usize) -> NonNull<u8> {
    let memory = if len < PAGE_BYTES {
        // SAFETY: the layout is not empty.
        NonNull::new(unsafe { alloc(layout(len)) })
    } else {
        arena::take(len)
    };
    memory.unwrap_or_else(|| handle_alloc_error(layout(len)))
}

/// # Safety
/// The memory is from [`allocate_page`] with this length, and is not used any more.
unsafe fn free_page(memory: NonNull<u8>, len: usize) {
    if len < PAGE_BYTES {
        // SAFETY: allocated with this layout, as the caller promised.
        unsafe { dealloc(memory.as_ptr(), layout(len)) }
    } else {
        // SAFETY: as the caller promised.
        unsafe { arena::give(memory, len) }
    }
}

#[cfg(test)]
impl Slab {
    /// Bytes of all pages.
    pub(super) fn page_bytes(&self) -> usize {
        let of_size = |(size, pages): (usize, &Pages)| {
            (0..pages.pages.len()).map(|index| page_bytes(index, bytes_of(size))).sum::<usize>()
        };
        self.sizes.iter().enumerate().map(of_size).sum()
    }

    /// Asserts what is promised of holes and pages, with `len` bytes in use of blocks of each size as counted by others.
    pub(super) fn check(&self, in_use: impl Fn(usize) -> usize) {
        let mut uncut = 0;
        for (index, pages) in self.sizes.iter().enumerate() {
            let bytes = bytes_of(index);
            assert_eq!((pages.blocks - pages.holes.len()) * bytes, in_use(bytes), "blocks of {bytes} bytes");
            assert!(!pages.has_many_holes() || self.holey >> index & 1 == 1);
            for (number, hole) in pages.holes.iter().enumerate() {
                assert_eq!(pages.hole_index(*hole), Some(number));
            }
            let all: usize = (0..pages.pages.len()).map(|page| page_bytes(page, bytes)).sum();
            uncut += all - pages.blocks * bytes;
        }
        assert_eq!(self.uncut_bytes, uncut);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_its_own_and_the_next_one_is_near() {
        let mut sizes = 0;
        for len in 1..=SLAB_BYTES {
            let (bytes, index) = (slot_bytes(len), index_of(len));
            assert_eq!((bytes_of(index), index_of(bytes), slot_bytes(bytes)), (bytes, index, bytes), "{len}");
            assert!(
                bytes >= len && (len <= FINE_BYTES || bytes - len <= len / COARSE_SIZES),
                "{len}: {bytes}"
            );
            assert!(index == sizes || index + 1 == sizes, "{len}: no size is left out");
            sizes = index + 1;
        }
        assert_eq!(sizes, index_of(SLAB_BYTES) + 1);
    }
}
