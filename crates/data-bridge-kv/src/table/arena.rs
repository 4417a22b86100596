//! Memory straight from the system for what tables hold: pages of entries, and long payloads. A general allocator keeps
//! what one thread allocated and another freed, so that a process would take much more than its tables do; what is given
//! back here is the system's again, whoever gives it.
//!
//! A *chunk* is 2 MiB of address space that starts at a multiple of its size, in 128 *pages* of 16 KiB. A *run* is some
//! pages of one chunk that stand together, and of a chunk's free pages only a bit each is kept, so that a freed run needs
//! no memory. Runs are cut where the longest free run of a chunk is the shortest that suffices. An empty chunk goes back
//! as a whole, but for one. Some single pages are kept as they are, since pages come and go in turns. Pieces of a few KiB
//! that have to stay where they are, are *cells* of a run ([`take_cell`]).
//!
//! Entries are read at random, and with pages of 4 KiB most of the reads would first have to look up where the page is.
//! So the system is asked to put a chunk of tables' pages into one page of its size, but for the first few, and for those
//! of which some went back: the system would fill them up again. Payloads have chunks of their own, without that: what is
//! behind one in its last page takes no memory. Those below 32 KiB stand here only if a
//! store asks for it: they have pages of 4 KiB, in chunks of 512 KiB, so that what goes is the system's again whatever stands
//! beside it.
//!
//! A payload that is longer than a run is mapped by itself.
//!
//! A child of `fork` begins an arena of its own: another thread may have held the lock of this one just then. What it
//! gives back of the old one is only emptied.

mod cells;

use std::collections::BTreeSet;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use hashbrown::HashMap;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use self::cells::Cells;
pub(super) use self::cells::LENGTHS as CELL_LENGTHS;
use crate::sync::real::Mutex;

/// Bytes of a page.
pub(super) const PAGE_BYTES: usize = 16 << 10;
const CHUNK_PAGES: usize = u128::BITS as usize;
/// The longest run.
const RUN_BYTES: usize = PAGE_BYTES * CHUNK_PAGES;
/// What the system counts; the page of short payloads.
const SYSTEM_PAGE: usize = 4 << 10;
/// Payloads below this are short.
const SHORT_BYTES: usize = 32 << 10;
/// Chunks that are there before huge pages are asked for: a small store takes no more than it needs.
const SMALL_CHUNKS: usize = 4;
/// Free runs that stay the process's: single pages, and of short payloads as many pages in all.
const KEPT_PAGES: usize = 32;
const KEPT_SHORT_PAGES: usize = 128;

/// Whether short payloads stand here, too.
static HOLDS_SHORT: AtomicBool = AtomicBool::new(false);

/// From now on short payloads stand here, too, for a store that is to take little: it costs time, since the system clears what
/// it gives page by page.
pub fn hold_short() {
    HOLDS_SHORT.store(true, Ordering::Relaxed);
}

/// The least bytes of a payload that stands here.
pub(super) fn least_bytes() -> usize {
    if HOLDS_SHORT.load(Ordering::Relaxed) { SYSTEM_PAGE } else { SHORT_BYTES }
}

/// A run of `len` bytes, from 1 to [`RUN_BYTES`]; `None` if the system has no memory.
pub(super) fn take(len: usize) -> Option<NonNull<u8>> {
    Arena::of_this_process().tables.take(len.div_ceil(PAGE_BYTES))
}

/// # Safety
/// The run is from [`take`] with a length of as many pages, and is not used any more.
pub(super) unsafe fn give(run: NonNull<u8>, len: usize) {
    // SAFETY: promised by the caller.
    unsafe { Arena::of_this_process().tables.give(run, len.div_ceil(PAGE_BYTES)) }
}

/// A cell of `len` bytes, one of [`CELL_LENGTHS`]; `None` if the system has no memory.
pub(super) fn take_cell(len: usize) -> Option<NonNull<u8>> {
    let arena = Arena::of_this_process();
    arena.cells.lock().take(len, &arena.tables)
}

/// # Safety
/// The cell is from [`take_cell`] with this length, and is not used any more.
pub(super) unsafe fn give_cell(cell: NonNull<u8>, len: usize) {
    let arena = Arena::of_this_process();
    // SAFETY: promised by the caller.
    unsafe { arena.cells.lock().give(cell, len, &arena.tables) }
}

/// Bytes in memory of their own, which never change.
#[derive(Debug)]
pub(super) struct Extent {
    /// From the arena's payloads, or from [`map`] if they are more than fit there; owned.
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it owns its bytes, and they never change.
unsafe impl Send for Extent {}
// SAFETY: as above.
unsafe impl Sync for Extent {}

impl Extent {
    /// A copy of these bytes, which are some; `None` if the system has no memory.
    pub(super) fn copy_of(bytes: &[u8]) -> Option<Extent> {
        let len = bytes.len();
        let start = match Arena::of_this_process().region_of(len) {
            Some(region) => region.take(len.div_ceil(region.page_bytes))?,
            None => map(len)?,
        };
        // SAFETY: new memory of this length.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), start.as_ptr(), len) };
        Some(Extent { start, len })
    }

    /// The bytes of memory that it takes: what is behind it in its last page is never touched.
    pub(super) fn memory_bytes(&self) -> usize {
        self.len.next_multiple_of(SYSTEM_PAGE)
    }
}

impl Deref for Extent {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: so many bytes were written there, and they stay as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        // SAFETY: taken or mapped with this length, and nobody has a reference into it any more.
        unsafe {
            match Arena::of_this_process().region_of(self.len) {
                Some(region) => region.give(self.start, self.len.div_ceil(region.page_bytes)),
                None => unmap(self.start, self.len),
            }
        }
    }
}

struct Arena {
    /// The process that made it.
    process: u32,
    /// Locked before the chunks.
    cells: Mutex<Cells>,
    tables: Region,
    payloads: Region,
    short_payloads: Region,
}

/// Chunks of one use.
struct Region {
    page_bytes: usize,
    chunks: Mutex<Chunks>,
}

/// The chunks by number: their address through their size.
struct Chunks {
    known: HashMap<usize, Chunk, foldhash::fast::FixedState>,
    /// By the length of the longest free run: the chunks that have one.
    rooms: [BTreeSet<usize>; CHUNK_PAGES + 1],
    kept: Kept,
    page_bytes: usize,
    /// Whether huge pages are asked for.
    is_dense: bool,
}

/// Free runs that were not given back, since runs come and go in turns.
struct Kept {
    /// By length in pages, from one on: their addresses.
    runs: Vec<Vec<usize>>,
    pages: usize,
    most_pages: usize,
}

impl Kept {
    /// Of runs of at most so many pages, and pages in all.
    fn new(longest: usize, most_pages: usize) -> Kept {
        Kept { runs: vec![Vec::new(); longest], pages: 0, most_pages }
    }

    fn take(&mut self, pages: usize) -> Option<usize> {
        let run = self.runs.get_mut(pages - 1)?.pop()?;
        self.pages -= pages;
        Some(run)
    }

    /// Whether such a run is kept at all, though another may have to go for it.
    fn admits(&self, pages: usize) -> bool {
        pages <= self.runs.len()
    }

    fn keep(&mut self, run: usize, pages: usize) {
        self.runs[pages - 1].push(run);
        self.pages += pages;
    }

    /// One that is too much, with its length: of the length that has most pages, so that those stay that are used now.
    fn spare(&mut self) -> Option<(usize, usize)> {
        if self.pages <= self.most_pages {
            return None;
        }
        let most = (1..=self.runs.len()).max_by_key(|pages| self.runs[pages - 1].len() * pages)?;
        // The one that was kept first.
        let run = (!self.runs[most - 1].is_empty()).then(|| self.runs[most - 1].remove(0))?;
        self.pages -= most;
        Some((run, most))
    }
}

#[derive(Clone, Copy, Default)]
struct Chunk {
    /// A bit for each page that is free.
    free: u128,
    /// Whether the system was asked for a huge page.
    huge: bool,
}

impl Arena {
    fn of_this_process() -> &'static Arena {
        static CURRENT: AtomicPtr<Arena> = AtomicPtr::new(ptr::null_mut());
        let process = std::process::id();
        let mut current = CURRENT.load(Ordering::Acquire);
        loop {
            // SAFETY: whatever stands there was leaked, so it lives on.
            if let Some(arena) = unsafe { current.as_ref() }.filter(|arena| arena.process == process) {
                return arena;
            }
            let made = Box::into_raw(Box::new(Arena::new(process)));
            match CURRENT.compare_exchange(current, made, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => current = made,
                Err(other) => {
                    // SAFETY: from `into_raw` above, and nobody has seen it.
                    drop(unsafe { Box::from_raw(made) });
                    current = other;
                }
            }
        }
    }

    fn new(process: u32) -> Arena {
        Arena {
            process,
            cells: Mutex::default(),
            tables: Region::of_tables(),
            payloads: Region::new(PAGE_BYTES, false, Kept::new(1, KEPT_PAGES)),
            short_payloads: Region::new(
                SYSTEM_PAGE,
                false,
                Kept::new(SHORT_BYTES / SYSTEM_PAGE, KEPT_SHORT_PAGES),
            ),
        }
    }

    /// Where a payload of so many bytes stands; `None` if by itself.
    fn region_of(&self, len: usize) -> Option<&Region> {
        match len {
            ..SHORT_BYTES => Some(&self.short_payloads),
            SHORT_BYTES..=RUN_BYTES => Some(&self.payloads),
            _ => None,
        }
    }
}

impl Region {
    fn new(page_bytes: usize, is_dense: bool, kept: Kept) -> Region {
        let known = HashMap::with_hasher(foldhash::fast::FixedState::default());
        let rooms = std::array::from_fn(|_| BTreeSet::new());
        Region { page_bytes, chunks: Mutex::new(Chunks { known, rooms, kept, page_bytes, is_dense }) }
    }

    fn of_tables() -> Region {
        Region::new(PAGE_BYTES, true, Kept::new(1, KEPT_PAGES))
    }

    fn take(&self, pages: usize) -> Option<NonNull<u8>> {
        assert!((1..=CHUNK_PAGES).contains(&pages), "a run of {pages} pages");
        let mut chunks = self.chunks.lock();
        let address = match chunks.kept.take(pages) {
            Some(run) => run,
            None => chunks.cut(pages)?,
        };
        NonNull::new(ptr::with_exposed_provenance_mut(address))
    }

    /// # Safety
    /// The run is from [`Region::take`] of this region with as many pages, and is not used any more.
    unsafe fn give(&self, run: NonNull<u8>, pages: usize) {
        let address = run.as_ptr().expose_provenance();
        let mut freed = Some((address, pages));
        {
            let mut chunks = self.chunks.lock();
            if chunks.kept.admits(pages) && chunks.known.contains_key(&(address / chunks.bytes())) {
                chunks.kept.keep(address, pages);
                freed = chunks.kept.spare();
            }
        }
        while let Some((address, pages)) = freed {
            // SAFETY: a run of this region that nobody uses any more.
            unsafe { self.release(address, pages) }
            freed = self.chunks.lock().kept.spare();
        }
    }

    /// # Safety
    /// As for [`Region::give`]; the run is not kept.
    unsafe fn release(&self, address: usize, pages: usize) {
        let chunk_bytes = CHUNK_PAGES * self.page_bytes;
        if let Some(run) = NonNull::new(ptr::with_exposed_provenance_mut(address)) {
            // SAFETY: nobody uses the run any more, and nobody is given it before it is noted as free.
            unsafe { empty(run, pages * self.page_bytes) };
        }
        let unused = self.chunks.lock().note(address, pages);
        let start =
            unused.and_then(|chunk| NonNull::new(ptr::with_exposed_provenance_mut(chunk * chunk_bytes)));
        if let Some(start) = start {
            // SAFETY: a whole chunk, all of whose pages are free, and which is known no more.
            unsafe { unmap(start, chunk_bytes) };
        }
    }
}

impl Chunks {
    /// Cuts a run from the chunk whose room fits best, or from a new one.
    fn cut(&mut self, pages: usize) -> Option<usize> {
        let fitting = self.rooms.iter().skip(pages).find_map(|chunks| chunks.first().copied());
        let number = match fitting {
            Some(number) => number,
            None => {
                let number = map_chunk(self.bytes())?;
                if self.page_bytes == SYSTEM_PAGE {
                    populate(number * self.bytes(), self.bytes());
                }
                self.set(number, Chunk { free: u128::MAX, huge: self.is_large() && self.ask(number, true) });
                number
            }
        };
        let chunk = self.known.get(&number).copied()?;
        let first = first_run(chunk.free, pages);
        let free = chunk.free & !(mask(pages) << first);
        let huge = chunk.huge || free == 0 && self.is_large() && self.ask(number, true);
        self.set(number, Chunk { free, huge });
        Some(number * self.bytes() + first as usize * self.page_bytes)
    }

    /// Notes that a run is free; answers a chunk that is empty and not needed.
    fn note(&mut self, address: usize, pages: usize) -> Option<usize> {
        let (number, first) = (address / self.bytes(), address % self.bytes() / self.page_bytes);
        let chunk = *self.known.get(&number)?;
        let run = mask(pages) << first;
        assert!(chunk.free & run == 0, "a run that is free already");
        if chunk.huge {
            self.ask(number, false);
        }
        self.set(number, Chunk { free: chunk.free | run, huge: false });
        let empty = &self.rooms[CHUNK_PAGES];
        if empty.len() < 2 {
            return None;
        }
        let unused = *empty.last()?;
        self.rooms[CHUNK_PAGES].remove(&unused);
        self.known.remove(&unused);
        Some(unused)
    }

    /// Bytes of a chunk.
    fn bytes(&self) -> usize {
        CHUNK_PAGES * self.page_bytes
    }

    fn ask(&self, number: usize, huge: bool) -> bool {
        ask_for_huge(number * self.bytes(), self.bytes(), huge)
    }

    fn is_large(&self) -> bool {
        self.is_dense && self.known.len() >= SMALL_CHUNKS
    }

    fn set(&mut self, number: usize, chunk: Chunk) {
        if let Some(before) = self.known.insert(number, chunk) {
            self.rooms[longest_run(before.free)].remove(&number);
        }
        let longest = longest_run(chunk.free);
        if longest > 0 {
            self.rooms[longest].insert(number);
        }
    }
}

/// The lowest `pages` bits.
fn mask(pages: usize) -> u128 {
    u128::MAX >> (CHUNK_PAGES - pages)
}

/// How many bits stand together at most.
fn longest_run(mut bits: u128) -> usize {
    let mut longest = 0;
    while bits != 0 {
        bits &= bits << 1;
        longest += 1;
    }
    longest
}

/// Where the first so many bits stand together.
fn first_run(mut bits: u128, pages: usize) -> u32 {
    for _ in 1..pages {
        bits &= bits >> 1;
    }
    bits.trailing_zeros()
}

/// The number of a new chunk.
fn map_chunk(bytes: usize) -> Option<usize> {
    // The system puts new mappings below older ones, so that this is where it should most of the time.
    let first = map(bytes)?;
    let address = first.as_ptr().expose_provenance();
    if address.is_multiple_of(bytes) {
        return Some(address / bytes);
    }
    // SAFETY: just mapped, and nobody was told of it.
    unsafe { unmap(first, bytes) };
    let wide = map(2 * bytes)?;
    let address = wide.as_ptr().expose_provenance();
    let before = address.next_multiple_of(bytes) - address;
    // SAFETY: what was just mapped but for the chunk; its ends are at pages, as both are.
    unsafe {
        unmap(wide, before);
        unmap(wide.add(before + bytes), bytes - before);
    }
    Some((address + before) / bytes)
}

/// Whether the system puts the chunk into a huge page from now on, if it can; it is only asked.
fn ask_for_huge(address: usize, bytes: usize, huge: bool) -> bool {
    #[cfg(target_os = "linux")]
    {
        let advice = if huge { Advice::LinuxHugepage } else { Advice::LinuxNoHugepage };
        // SAFETY: what the memory holds stays as it is.
        let asked = unsafe { madvise(ptr::with_exposed_provenance_mut(address), bytes, advice) };
        asked.is_ok() && huge
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (address, bytes, huge);
        false
    }
}

/// Has the system give the memory of a new chunk at once, if it can: page by page, as it is written to, takes longer.
fn populate(address: usize, bytes: usize) {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: what the memory holds stays as it is.
        let _ =
            unsafe { madvise(ptr::with_exposed_provenance_mut(address), bytes, Advice::LinuxPopulateWrite) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (address, bytes);
}

/// New memory; `None` if the system has none.
fn map(bytes: usize) -> Option<NonNull<u8>> {
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new mapping at an address that the system chooses touches nothing that is there.
    let memory = unsafe { mmap_anonymous(ptr::null_mut(), bytes, protection, flags) };
    NonNull::new(memory.ok()?.cast())
}

/// # Safety
/// Mapped memory, or a part of it from one page to another, that nobody uses any more.
unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
    if bytes > 0 {
        // The system may refuse, if that would cut a mapping in two and it has too many: then the memory goes at least.
        // SAFETY: promised by the caller.
        if unsafe { munmap(start.as_ptr().cast(), bytes) }.is_err() {
            // SAFETY: promised by the caller.
            unsafe { empty(start, bytes) };
        }
    }
}

/// Gives the memory behind addresses back; they stay.
///
/// # Safety
/// Nobody uses what stands there any more, and whoever reads it next has written it before.
unsafe fn empty(start: NonNull<u8>, bytes: usize) {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: promised by the caller.
        let advised = unsafe { madvise(start.as_ptr().cast(), bytes, Advice::LinuxDontNeed) };
        debug_assert!(advised.is_ok());
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chunks of this test alone.
    fn region() -> Region {
        Region::of_tables()
    }

    fn resident_pages(run: NonNull<u8>, bytes: usize) -> usize {
        let text = std::fs::read_to_string("/proc/self/smaps").expect("this is Linux");
        let (start, mut inside, mut sum) = (run.as_ptr().addr(), false, 0);
        for line in text.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            if let Some((from, to)) = range {
                let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
                inside = number(from) < start + bytes && start < number(to);
            } else if let Some(rest) = line.strip_prefix("Rss:").filter(|_| inside) {
                sum += rest.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") / 4;
            }
        }
        sum
    }

    #[test]
    fn runs_are_apart_and_go_back() {
        let region = region();
        let mut taken: Vec<(NonNull<u8>, usize, u8)> = Vec::new();
        let mut seed = 7_u64;
        for round in 0..20_000_u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pick = (seed >> 33) as usize;
            if taken.len() < 200 && !pick.is_multiple_of(3) {
                let pages = if pick.is_multiple_of(5) { 1 + pick / 8 % 32 } else { 1 };
                let run = region.take(pages).expect("there is memory");
                let mark = round as u8;
                // SAFETY: the run has so many pages, and is this test's.
                unsafe { run.write_bytes(mark, pages * PAGE_BYTES) };
                taken.push((run, pages, mark));
            } else if !taken.is_empty() {
                let (run, pages, mark) = taken.swap_remove(pick % taken.len());
                // SAFETY: as above.
                let bytes = unsafe { std::slice::from_raw_parts(run.as_ptr(), pages * PAGE_BYTES) };
                assert!(bytes.iter().all(|byte| *byte == mark), "somebody else wrote here");
                // SAFETY: taken above, with so many pages.
                unsafe { region.give(run, pages) };
            }
        }
        for (run, pages, _) in taken {
            // SAFETY: as above.
            unsafe { region.give(run, pages) };
        }
        let chunks = region.chunks.lock();
        let used: u32 = chunks.known.values().map(|chunk| chunk.free.count_zeros()).sum();
        assert_eq!(used as usize, chunks.kept.pages, "all but what is kept is free");
        assert!(chunks.known.len() <= chunks.kept.pages + 1, "{} chunks", chunks.known.len());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_given_back_is_the_systems() {
        let region = region();
        let run = region.take(CHUNK_PAGES).expect("there is memory");
        let [first, second] = [0, 1].map(|half| {
            // SAFETY: within the run.
            unsafe { run.add(half * RUN_BYTES / 2) }
        });
        // SAFETY: the run is this test's.
        unsafe { run.write_bytes(1, RUN_BYTES) };
        let full = resident_pages(run, RUN_BYTES);
        assert!(full >= RUN_BYTES / SYSTEM_PAGE);
        // SAFETY: half of what was taken, and nothing looks at it again.
        unsafe { region.give(first, CHUNK_PAGES / 2) };
        let left = resident_pages(second, RUN_BYTES / 2);
        assert_eq!(full - left, RUN_BYTES / SYSTEM_PAGE / 2);
        // SAFETY: the other half is still this test's.
        assert!(unsafe { second.read() } == 1);
        // SAFETY: as above.
        unsafe { region.give(second, CHUNK_PAGES / 2) };
    }

    #[test]
    fn a_run_is_cut_where_it_fits_best() {
        let region = region();
        let all = region.take(CHUNK_PAGES).expect("there is memory");
        let other = region.take(CHUNK_PAGES).expect("there is memory");
        let part = |run: NonNull<u8>, page: usize| {
            // SAFETY: within the chunk.
            unsafe { run.add(page * PAGE_BYTES) }
        };
        // SAFETY: parts of what was taken.
        unsafe {
            region.give(part(all, 8), 8);
            region.give(part(other, 40), 3);
        }
        assert_eq!(region.take(3), Some(part(other, 40)));
        assert_eq!(region.take(3), Some(part(all, 8)));
        assert_eq!(region.take(5), Some(part(all, 11)));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_large_region_has_huge_pages_but_where_something_went_back() {
        let region = region();
        let runs: Vec<NonNull<u8>> =
            (0..=SMALL_CHUNKS).map(|_| region.take(CHUNK_PAGES).expect("there is memory")).collect();
        let is_huge = |run: NonNull<u8>| {
            let text = std::fs::read_to_string("/proc/self/smaps").expect("this is Linux");
            let (mut inside, address) = (false, run.as_ptr().addr());
            text.lines().any(|line| {
                let range = line.split(' ').next().and_then(|range| range.split_once('-'));
                if let Some((from, to)) = range {
                    let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
                    inside = number(from) <= address && address < number(to);
                }
                inside && line.starts_with("VmFlags:") && line.ends_with(" hg ")
            })
        };
        let (first, last) = (runs[0], runs[SMALL_CHUNKS]);
        if std::fs::exists("/sys/kernel/mm/transparent_hugepage").expect("this is Linux") {
            assert_eq!((is_huge(first), is_huge(last)), (false, true));
            // SAFETY: two of its pages, and nothing looks at them.
            unsafe { region.give(last, 2) };
            assert!(!is_huge(last), "the system would fill up again what went back");
            let again = region.take(2).expect("there is memory");
            assert_eq!((again, is_huge(last)), (last, true));
        }
        for run in runs {
            // SAFETY: taken above.
            unsafe { region.give(run, CHUNK_PAGES) };
        }
        assert!(region.chunks.lock().known.len() <= 1);
    }

    #[test]
    #[should_panic(expected = "free already")]
    fn a_run_goes_back_once() {
        let region = region();
        let run = region.take(2).expect("there is memory");
        // SAFETY: the second time it is refused.
        unsafe {
            region.give(run, 2);
            region.give(run, 2);
        }
    }

    #[test]
    fn an_extent_has_its_bytes_and_gives_them_back() {
        for len in [1, SYSTEM_PAGE + 1, SHORT_BYTES - 1, SHORT_BYTES, RUN_BYTES, RUN_BYTES + 1, 5 * RUN_BYTES]
        {
            let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let extent = Extent::copy_of(&bytes).expect("there is memory");
            assert!(*extent == *bytes, "{len} bytes");
            assert_eq!(extent.memory_bytes(), len.div_ceil(SYSTEM_PAGE) * SYSTEM_PAGE);
        }
    }

    #[test]
    fn runs_of_bits() {
        assert_eq!([0, 1, 0b1101_1100, u128::MAX].map(longest_run), [0, 1, 3, 128]);
        assert_eq!((first_run(0b1101_1100, 2), first_run(0b1101_1100, 3)), (2, 2));
        assert_eq!((first_run(0b1111_0110, 4), first_run(u128::MAX, 128)), (4, 0));
        assert_eq!((mask(1), mask(128)), (1, u128::MAX));
    }
}
