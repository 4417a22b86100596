//! The allocator of the program: mimalloc, but for large blocks, which come straight from the system. A thread keeps what it
//! freed for a while, and for good while it waits; with buffers of megabytes, which come and go, that was more than all the
//! buffers in use. And a block of the system's grows without being copied, and takes no memory before it is written to.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_long};

use mimalloc::MiMalloc;

/// Blocks from this size on come from the system.
const LARGE_BYTES: usize = 64 << 10;

/// Options of mimalloc by number: whether a thread that ends gives back what it freed, and for how many milliseconds pages that
/// were freed are kept.
const ENDED_THREADS: c_int = 12;
const KEPT_MS: c_int = 15;

unsafe extern "C" {
    fn mi_option_set(option: c_int, value: c_long);
    #[cfg(test)]
    fn mi_option_get(option: c_int) -> c_long;
}

/// Lets pages that were freed go back to the system at once: a memory budget holds for what the system counts. To be called
/// before there are threads.
pub fn keep_nothing() {
    // SAFETY: both options are there and take these numbers; no other thread changes any.
    unsafe {
        mi_option_set(ENDED_THREADS, 1);
        mi_option_set(KEPT_MS, 0);
    }
}

/// The allocator.
pub struct Allocator;

// SAFETY: every block comes from one of two allocators, each of which keeps the promises of the trait, and `is_large` names
// the same one for a layout whenever it is asked.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return system::map(layout.size());
        }
        // SAFETY: promised by the caller.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            // What the system gives is zero.
            return system::map(layout.size());
        }
        // SAFETY: promised by the caller.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_large(layout) {
            // SAFETY: the block was mapped with this size, and is not used any more.
            return unsafe { system::unmap(block, layout.size()) };
        }
        // SAFETY: promised by the caller.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size does not overflow when it is rounded up to the alignment.
        let changed = unsafe { Layout::from_size_align_unchecked(bytes, layout.align()) };
        match (is_large(layout), is_large(changed)) {
            // SAFETY: promised by the caller.
            (false, false) => unsafe { MiMalloc.realloc(block, layout, bytes) },
            // SAFETY: the block was mapped with this size.
            (true, true) => unsafe { system::remap(block, layout.size(), bytes) },
            _ => {
                // SAFETY: promised by the caller; the two blocks are apart, and both have the bytes that are copied.
                unsafe {
                    let other = self.alloc(changed);
                    if !other.is_null() {
                        other.copy_from_nonoverlapping(block, layout.size().min(bytes));
                        self.dealloc(block, layout);
                    }
                    other
                }
            }
        }
    }
}

/// Whether a block comes from the system, whose pages no alignment of ours exceeds.
#[inline]
fn is_large(layout: Layout) -> bool {
    cfg!(target_os = "linux") && layout.size() >= LARGE_BYTES && layout.align() <= system::PAGE_BYTES
}

#[cfg(target_os = "linux")]
mod system {
    use std::ptr;

    use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap_anonymous, mremap, munmap};

    /// The least page of any machine.
    pub const PAGE_BYTES: usize = 4 << 10;

    /// Memory of zeros; null if there is none.
    pub fn map(bytes: usize) -> *mut u8 {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping, wherever the system puts it.
        let mapped = unsafe { mmap_anonymous(ptr::null_mut(), bytes, protection, flags) };
        mapped.map_or(ptr::null_mut(), <*mut _>::cast)
    }

    /// # Safety
    /// The block is from [`map`] or [`remap`] with this size, and not used any more.
    pub unsafe fn unmap(block: *mut u8, bytes: usize) {
        // SAFETY: promised by the caller. It fails only for want of memory, and then the block stays mapped.
        let _ = unsafe { munmap(block.cast(), bytes) };
    }

    /// Null, with the block as it was, if there is no memory.
    ///
    /// # Safety
    /// The block is from [`map`] or [`remap`] with the size `before`, and not used any more under its old address.
    pub unsafe fn remap(block: *mut u8, before: usize, after: usize) -> *mut u8 {
        // SAFETY: promised by the caller.
        let mapped = unsafe { mremap(block.cast(), before, after, MremapFlags::MAYMOVE) };
        mapped.map_or(ptr::null_mut(), <*mut _>::cast)
    }
}

/// Elsewhere every block is mimalloc's.
#[cfg(not(target_os = "linux"))]
mod system {
    pub const PAGE_BYTES: usize = 0;

    pub fn map(_: usize) -> *mut u8 {
        std::ptr::null_mut()
    }

    pub unsafe fn unmap(_: *mut u8, _: usize) {}

    pub unsafe fn remap(_: *mut u8, _: usize, _: usize) -> *mut u8 {
        std::ptr::null_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block that knows its layout.
    struct Block(*mut u8, Layout);

    impl Block {
        fn new(bytes: usize, align: usize) -> Block {
            let layout = Layout::from_size_align(bytes, align).unwrap();
            // SAFETY: the size is not 0.
            let start = unsafe { Allocator.alloc_zeroed(layout) };
            assert!(!start.is_null() && start.addr().is_multiple_of(align));
            Block(start, layout)
        }

        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: it owns so many bytes, all of which were written.
            unsafe { std::slice::from_raw_parts_mut(self.0, self.1.size()) }
        }

        fn resize(&mut self, bytes: usize) {
            let before = self.1.size();
            // SAFETY: the block has this layout, and neither size is 0.
            self.0 = unsafe { Allocator.realloc(self.0, self.1, bytes) };
            assert!(!self.0.is_null());
            self.1 = Layout::from_size_align(bytes, self.1.align()).unwrap();
            if let Some(grown) = self.1.size().checked_sub(before) {
                // SAFETY: the block has them.
                unsafe { self.0.add(before).write_bytes(0, grown) };
            }
        }
    }

    impl Drop for Block {
        fn drop(&mut self) {
            // SAFETY: the block has this layout.
            unsafe { Allocator.dealloc(self.0, self.1) };
        }
    }

    #[test]
    fn options_are_those_that_are_meant() {
        let options = || {
            // SAFETY: both options are there.
            unsafe { (mi_option_get(ENDED_THREADS), mi_option_get(KEPT_MS)) }
        };
        assert_eq!(options(), (0, 10), "what mimalloc does unless told");
        keep_nothing();
        assert_eq!(options(), (1, 0));
    }

    #[test]
    fn a_block_keeps_its_bytes_whoever_it_comes_from() {
        for align in [1, 64, 4096, 64 << 10] {
            let mut block = Block::new(1000, align);
            block.bytes().fill(7);
            let sizes = [LARGE_BYTES - 1, LARGE_BYTES, 3 * LARGE_BYTES + 5, 70 << 20, LARGE_BYTES, 2000];
            for bytes in sizes {
                block.resize(bytes);
                assert!(block.bytes().iter().take(1000).all(|byte| *byte == 7), "{bytes} bytes");
                assert!(block.bytes().iter().skip(1000).all(|byte| *byte == 0), "{bytes} bytes");
            }
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_large_block_is_the_systems_again_when_it_is_freed() {
        let is_mapped = |address: usize| {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            maps.lines().any(|line| {
                let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
                let of = |hex| usize::from_str_radix(hex, 16).unwrap();
                (of(start)..of(end)).contains(&address)
            })
        };
        // So long that nothing else takes its place at once.
        let mut block = Block::new(1 << 30, 1);
        block.bytes()[0] = 1;
        let middle = block.0.addr() + (1 << 29);
        assert!(is_mapped(middle));
        block.resize(1 << 20);
        assert!(!is_mapped(middle), "what it was cut by stays");
    }
}
