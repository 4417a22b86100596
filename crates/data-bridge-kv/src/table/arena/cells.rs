//! Cells: pieces of a few KiB of one run, all of one size, that stay where they are until they are given back.
//!
//! A cell is taken from the run with the lowest address that has a free one. A run without cells serves any size next;
//! a few are kept for that, since what grows out of one size goes to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::ptr::{self, NonNull};

use super::{PAGE_BYTES, Region};

/// The shortest cell, and how far the lengths are apart.
const SHORTEST: usize = 2 << 10;
const STEP: usize = 512;
/// Lengths from [`SHORTEST`] to 4 KiB.
const COUNT: usize = 5;
pub(in crate::table) const LENGTHS: [usize; COUNT] = {
    let mut lengths = [SHORTEST; COUNT];
    let mut index = 1;
    while index < COUNT {
        lengths[index] = lengths[index - 1] + STEP;
        index += 1;
    }
    lengths
};
/// Of a run of cells.
const RUN_PAGES: usize = 4;
const RUN_BYTES: usize = RUN_PAGES * PAGE_BYTES;
const _: () = assert!(RUN_BYTES / SHORTEST <= u32::BITS as usize, "a bit for each cell");
/// Runs without cells that are kept.
const KEPT_RUNS: usize = 16;

/// The cells of an arena.
#[derive(Default)]
pub(super) struct Cells {
    by_length: [Runs; COUNT],
    /// Addresses of runs without cells.
    kept: Vec<usize>,
}

/// The runs of cells of one length, by address.
#[derive(Default)]
struct Runs {
    /// A bit for each cell that is free.
    free: BTreeMap<usize, u32>,
    /// Those that have a free cell.
    roomy: BTreeSet<usize>,
}

impl Cells {
    /// A cell of this length, which is one of [`LENGTHS`].
    pub(super) fn take(&mut self, len: usize, region: &Region) -> Option<NonNull<u8>> {
        let runs = &mut self.by_length[index_of(len)];
        let run = match runs.roomy.first() {
            Some(run) => *run,
            None => {
                let run = match self.kept.pop() {
                    Some(run) => run,
                    None => region.take(RUN_PAGES)?.as_ptr().expose_provenance(),
                };
                runs.free.insert(run, all_of(len));
                runs.roomy.insert(run);
                run
            }
        };
        let free = runs.free.get_mut(&run)?;
        let cell = run + free.trailing_zeros() as usize * len;
        *free &= *free - 1;
        if *free == 0 {
            runs.roomy.remove(&run);
        }
        NonNull::new(ptr::with_exposed_provenance_mut(cell))
    }

    /// # Safety
    /// The cell is from [`Cells::take`] with this length, and is not used any more.
    pub(super) unsafe fn give(&mut self, cell: NonNull<u8>, len: usize, region: &Region) {
        let address = cell.as_ptr().addr();
        let runs = &mut self.by_length[index_of(len)];
        let below = runs.free.range_mut(..=address).next_back();
        // What the process before a fork took is not known here.
        let Some((&run, free)) = below.filter(|(run, _)| address - **run < RUN_BYTES) else { return };
        let bit = 1 << ((address - run) / len);
        assert!(*free & bit == 0, "a cell that is free already");
        *free |= bit;
        if *free != all_of(len) {
            runs.roomy.insert(run);
            return;
        }
        runs.free.remove(&run);
        runs.roomy.remove(&run);
        if self.kept.len() < KEPT_RUNS {
            self.kept.push(run);
        } else if let Some(start) = NonNull::new(ptr::with_exposed_provenance_mut(run)) {
            // SAFETY: none of its cells is used any more.
            unsafe { region.give(start, RUN_PAGES) }
        }
    }
}

/// Where a length stands in [`LENGTHS`].
fn index_of(len: usize) -> usize {
    debug_assert!(LENGTHS.contains(&len), "a cell of {len} bytes");
    (len - SHORTEST) / STEP
}

/// A bit for each cell of a run.
fn all_of(len: usize) -> u32 {
    u32::MAX >> (u32::BITS as usize - RUN_BYTES / len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_apart_and_their_runs_go_back() {
        let region = Region::of_tables();
        let mut cells = Cells::default();
        let mut taken: Vec<(NonNull<u8>, usize, u8)> = Vec::new();
        let mut seed = 11_u64;
        for round in 0..40_000_u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pick = (seed >> 33) as usize;
            if taken.len() < 2_000 && !pick.is_multiple_of(3) {
                let (len, mark) = (LENGTHS[pick / 8 % COUNT], round as u8);
                let cell = cells.take(len, &region).expect("there is memory");
                assert!(cell.as_ptr().addr().is_multiple_of(64), "{len} bytes");
                // SAFETY: the cell has so many bytes, and is this test's.
                unsafe { cell.write_bytes(mark, len) };
                taken.push((cell, len, mark));
            } else if !taken.is_empty() {
                let (cell, len, mark) = taken.swap_remove(pick % taken.len());
                // SAFETY: as above.
                let bytes = unsafe { std::slice::from_raw_parts(cell.as_ptr(), len) };
                assert!(bytes.iter().all(|byte| *byte == mark), "somebody else wrote here");
                // SAFETY: taken above, with this length.
                unsafe { cells.give(cell, len, &region) };
            }
        }
        for (cell, len, _) in taken {
            // SAFETY: as above.
            unsafe { cells.give(cell, len, &region) };
        }
        assert_eq!(cells.kept.len(), KEPT_RUNS, "what is kept");
        assert!(cells.by_length.iter().all(|runs| runs.free.is_empty() && runs.roomy.is_empty()));
        let used: u32 = region.chunks.lock().known.values().map(|chunk| chunk.free.count_zeros()).sum();
        assert_eq!(used as usize, KEPT_RUNS * RUN_PAGES, "all others went back");
    }

    #[test]
    fn the_lowest_run_with_room_is_taken_from() {
        let (region, mut cells) = (Region::of_tables(), Cells::default());
        let mut all: Vec<NonNull<u8>> = (0..48).map(|_| cells.take(4096, &region).expect("memory")).collect();
        all.sort_unstable();
        for index in [40, 3] {
            // SAFETY: taken above, once.
            unsafe { cells.give(all[index], 4096, &region) };
        }
        assert_eq!(cells.take(4096, &region), Some(all[3]));
        assert_eq!(cells.take(4096, &region), Some(all[40]));
    }

    #[test]
    #[should_panic(expected = "free already")]
    fn a_cell_goes_back_once() {
        let (region, mut cells) = (Region::of_tables(), Cells::default());
        let cell = cells.take(2048, &region).expect("there is memory");
        // SAFETY: the second time it is refused.
        unsafe {
            let _other = cells.take(2048, &region);
            cells.give(cell, 2048, &region);
            cells.give(cell, 2048, &region);
        }
    }

    #[test]
    fn a_cell_of_the_process_before_a_fork_is_left() {
        let (before, mut cells_before) = (Region::of_tables(), Cells::default());
        let cell = cells_before.take(2048, &before).expect("there is memory");
        let (region, mut cells) = (Region::of_tables(), Cells::default());
        // SAFETY: nobody uses the cell, and these cells do not know it.
        unsafe { cells.give(cell, 2048, &region) };
        assert!(cells.kept.is_empty() && region.chunks.lock().known.is_empty());
    }
}
