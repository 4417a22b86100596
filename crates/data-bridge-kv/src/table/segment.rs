//! One segment of a table: groups of eight slots, one cache line each.
//!
//! A slot is 16 bits of tag above the 48-bit address of an entry block; 0 is empty. The tag is the 16 hash
//! bits that follow the segment's directory bits, and it alone decides the home group, so that a segment
//! changes its size, and two merge, without looking at a key; only a split needs one more bit of each hash.
//!
//! Invariants: a group's occupied slots stand in front; an entry stands in its home group or, if that was
//! full, in the first later group (cyclic) that was not, and removal keeps it so by moving entries back:
//! every group from an entry's home up to where it stands is full. So a search ends at the first group that
//! is not full, and there are no tombstones.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::arena;
use super::block::Block;
use crate::footprint::block_bytes;
use crate::hash::{KeyHash, KeyHasher};

/// Slots of a group: a cache line.
pub(super) const GROUP_SLOTS: usize = 8;
/// Groups of a full-grown segment: 4 KiB.
pub(super) const FULL_GROUPS: usize = 64;
/// Deepest directory: the tag's 16 bits must still be bits of the hash.
pub(super) const MAX_DEPTH: u32 = 48;
/// How many slots ahead of the work an entry is prefetched.
const PREFETCH_AHEAD: usize = 12;

/// Sizes of a segment in groups, each an allocator size class; the steps keep the load above 70 %.
const STEPS: [u16; 20] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64];

/// A tag and the address of an entry block, or nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub(super) struct Slot(u64);

impl Slot {
    const EMPTY: Slot = Slot(0);

    #[inline]
    fn new(tag: u16, block: Block) -> Slot {
        Slot(u64::from(tag) << 48 | block.address())
    }

    #[inline]
    pub(super) fn tag(self) -> u16 {
        (self.0 >> 48) as u16
    }

    #[inline]
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The block of an occupied slot.
    #[inline]
    pub(super) fn block(self) -> Block {
        debug_assert!(!self.is_empty());
        // SAFETY: an occupied slot holds the address of a live block: it leaves its segment before it is freed.
        unsafe { Block::from_address(self.0 & ((1 << 48) - 1)) }
    }

    /// Asks the processor for the first two cache lines of the entry, if there is one; its block may be gone by now.
    #[inline]
    pub(super) fn prefetch(self) {
        if !self.is_empty() {
            let block: *const u8 = std::ptr::without_provenance((self.0 & ((1 << 48) - 1)) as usize);
            super::prefetch(block);
            super::prefetch(block.wrapping_add(64));
        }
    }

    #[inline]
    fn retagged(self, tag: u16) -> Slot {
        Slot(self.0 & ((1 << 48) - 1) | u64::from(tag) << 48)
    }
}

/// A cache line of slots. Only the table's owner writes; a look ahead reads beside it, so slots are atomic.
#[repr(C, align(64))]
pub(super) struct Group([AtomicU64; GROUP_SLOTS]);

impl Group {
    #[inline]
    fn slot(&self, index: usize) -> Slot {
        Slot(self.0[index].load(Relaxed))
    }

    #[inline]
    fn set_slot(&self, index: usize, slot: Slot) {
        self.0[index].store(slot.0, Relaxed);
    }

    /// All slots, the empty ones too.
    #[inline]
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.0.iter().map(|slot| Slot(slot.load(Relaxed)))
    }

    /// A slot with this tag, or an empty one. Without branches, which the processor could only guess.
    #[inline]
    pub(super) fn likely(&self, tag: u16) -> Slot {
        let pick = |picked, slot: Slot| if slot.tag() == tag { slot } else { picked };
        self.slots().fold(Slot::EMPTY, pick)
    }

    /// A bit for each slot with this tag; empty slots count as tag 0.
    #[inline]
    #[cfg(target_arch = "x86_64")]
    fn matches(&self, tag: u16) -> u32 {
        use std::arch::x86_64::*;
        let pairs = std::ptr::from_ref(&self.0).cast::<__m128>();
        // SAFETY: the group is four aligned vectors of two slots, and every x86_64 has these instructions.
        unsafe {
            // The upper halves of the slots: four numbers a vector, each the tag above 16 address bits.
            let low =
                _mm_shuffle_ps::<0b11_01_11_01>(_mm_load_ps(pairs.cast()), _mm_load_ps(pairs.add(1).cast()));
            let high = _mm_shuffle_ps::<0b11_01_11_01>(
                _mm_load_ps(pairs.add(2).cast()),
                _mm_load_ps(pairs.add(3).cast()),
            );
            let (low, high) = (_mm_castps_si128(low), _mm_castps_si128(high));
            // Sign-extended tags pack to 16 bits without saturating.
            let tags = _mm_packs_epi32(_mm_srai_epi32::<16>(low), _mm_srai_epi32::<16>(high));
            let equal = _mm_cmpeq_epi16(tags, _mm_set1_epi16(tag as i16));
            _mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128())) as u32
        }
    }

    /// A bit for each slot with this tag; empty slots count as tag 0.
    #[inline]
    #[cfg(not(target_arch = "x86_64"))]
    fn matches(&self, tag: u16) -> u32 {
        self.matches_one_by_one(tag)
    }

    #[cfg(any(test, not(target_arch = "x86_64")))]
    fn matches_one_by_one(&self, tag: u16) -> u32 {
        let mut mask = 0;
        for (index, slot) in self.slots().enumerate() {
            mask |= u32::from(slot.tag() == tag) << index;
        }
        mask
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        !self.slot(GROUP_SLOTS - 1).is_empty()
    }

    fn occupied(&self) -> usize {
        self.slots().take_while(|slot| !slot.is_empty()).count()
    }
}

/// Where a slot stands in its segment.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    group: usize,
    slot: usize,
}

/// A handle of a segment's memory. The directory holds copies of it, keeps them equal, and frees the memory
/// once; the count of entries is right in the first copy only.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    groups: NonNull<Group>,
    len: u32,
    group_count: u16,
    depth: u8,
    /// Whether the memory was asked for as aligned.
    aligned: bool,
}

const _: () = assert!(size_of::<Segment>() == 16);

impl Segment {
    /// An empty segment of `group_count` groups, at least 1.
    pub(super) fn allocate(group_count: usize, depth: u32) -> Segment {
        assert!(
            (1..=usize::from(u16::MAX)).contains(&group_count),
            "more equal hashes than a segment can hold"
        );
        let (groups, aligned) = allocate_groups(group_count);
        Segment { groups, len: 0, group_count: group_count as u16, depth: depth as u8, aligned }
    }

    /// The smallest segment that holds `len` entries and one more.
    fn sized_for(len: usize, depth: u32) -> Segment {
        let fits = |&&step: &&u16| capacity(usize::from(step)) > len;
        let group_count = match STEPS.iter().find(fits) {
            Some(&step) => usize::from(step),
            // Only reached with hashes that cannot be split apart: grow by a quarter.
            None => (len + len / 4).div_ceil(GROUP_SLOTS) + 1,
        };
        Segment::allocate(group_count, depth)
    }

    /// Frees the slots, not the blocks.
    ///
    /// # Safety
    /// No copy of the handle is used afterwards.
    pub(super) unsafe fn free(self) {
        let bytes = self.group_count() * size_of::<Group>();
        // SAFETY: from [`allocate_groups`] with as many; the caller promised that it is the last use.
        unsafe {
            if arena::CELL_LENGTHS.contains(&bytes) {
                arena::give_cell(self.groups.cast(), bytes);
            } else {
                dealloc(self.groups.as_ptr().cast(), layout(self.group_count(), self.aligned));
            }
        }
    }

    #[inline]
    fn groups(&self) -> &[Group] {
        // SAFETY: the memory holds so many groups, zeroed at first (an empty slot is 0), and lives as long as
        // a copy of the handle is in use; slots are atomic, and only who has the directory as `&mut` writes them.
        unsafe { std::slice::from_raw_parts(self.groups.as_ptr(), self.group_count()) }
    }

    /// The address of the first group, below 2^48.
    pub(super) fn address(&self) -> u64 {
        let address = self.groups.as_ptr().expose_provenance() as u64;
        assert!(address >> 48 == 0, "the platform hands out addresses above 48 bits");
        address
    }

    #[inline]
    pub(super) fn group_count(&self) -> usize {
        usize::from(self.group_count)
    }

    #[inline]
    pub(super) fn depth(&self) -> u32 {
        u32::from(self.depth)
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn memory_bytes(&self) -> usize {
        block_bytes(self.group_count() * size_of::<Group>())
    }

    /// Whether another entry needs room to be made first.
    #[inline]
    pub(super) fn is_at_capacity(&self) -> bool {
        self.len() >= capacity(self.group_count())
    }

    /// Whether it is as large as a segment gets before it splits.
    pub(super) fn is_full_grown(&self) -> bool {
        self.group_count() >= FULL_GROUPS
    }

    #[inline]
    pub(super) fn tag(&self, hash: KeyHash) -> u16 {
        hash.tag(self.depth())
    }

    /// The last hash that belongs to the segment of `hash`, which must be this one.
    pub(super) fn last_hash(&self, hash: KeyHash) -> KeyHash {
        KeyHash::from_bits(hash.bits() | u64::MAX >> self.depth)
    }

    /// The last hash with this tag in the segment of `hash`, which must be this one.
    pub(super) fn last_hash_of_tag(&self, hash: KeyHash, tag: u16) -> KeyHash {
        let behind_prefix = u64::MAX >> self.depth;
        let tagged = (u64::from(tag) << 48) >> self.depth;
        let rest = behind_prefix >> 16;
        KeyHash::from_bits(hash.bits() & !behind_prefix | tagged | rest)
    }

    #[inline]
    fn home(&self, tag: u16) -> usize {
        home_of(tag, self.group_count())
    }

    #[inline]
    fn after(&self, group: usize) -> usize {
        if group + 1 == self.group_count() { 0 } else { group + 1 }
    }

    /// The slot of the entry with this key.
    #[inline]
    pub(super) fn find(&self, hash: KeyHash, key: &[u8]) -> Option<Position> {
        let tag = self.tag(hash);
        let groups = self.groups();
        let home = self.home(tag);
        let mut group = home;
        loop {
            let slots = &groups[group];
            let mut mask = slots.matches(tag);
            while mask != 0 {
                let slot = mask.trailing_zeros() as usize;
                let candidate = slots.slot(slot);
                if candidate.is_empty() {
                    break;
                }
                if candidate.block().has_key(key) {
                    return Some(Position { group, slot });
                }
                mask &= mask - 1;
            }
            if !slots.is_full() {
                return None;
            }
            group = self.after(group);
            if group == home {
                return None;
            }
        }
    }

    #[inline]
    pub(super) fn block_at(&self, position: Position) -> Block {
        self.groups()[position.group].slot(position.slot).block()
    }

    /// The block at a position that may be out of date.
    #[inline]
    pub(super) fn get(&self, position: Position) -> Option<Block> {
        let slot = self.groups().get(position.group)?.slot(position.slot);
        (!slot.is_empty()).then(|| slot.block())
    }

    /// Puts another block in the place of the one there; same key.
    #[inline]
    pub(super) fn set_block(&mut self, position: Position, block: Block) {
        let group = &self.groups()[position.group];
        group.set_slot(position.slot, Slot::new(group.slot(position.slot).tag(), block));
    }

    /// Adds a block whose key is not in the segment. There must be room.
    pub(super) fn insert(&mut self, hash: KeyHash, block: Block) {
        self.push(Slot::new(self.tag(hash), block));
    }

    fn push(&mut self, slot: Slot) {
        debug_assert!(!self.is_at_capacity());
        let mut group = self.home(slot.tag());
        while self.groups()[group].is_full() {
            group = self.after(group);
        }
        let slots = &self.groups()[group];
        slots.set_slot(slots.occupied(), slot);
        self.len += 1;
    }

    /// Takes an entry out and moves later ones back so that the search for them still ends.
    pub(super) fn remove(&mut self, position: Position) -> Block {
        let block = self.block_at(position);
        self.len -= 1;
        let mut hole = position;
        while let Some(next) = self.displaced_over(hole.group) {
            let moved = self.groups()[next.group].slot(next.slot);
            self.groups()[hole.group].set_slot(hole.slot, moved);
            hole = next;
        }
        let slots = &self.groups()[hole.group];
        let last = slots.occupied() - 1;
        slots.set_slot(hole.slot, slots.slot(last));
        slots.set_slot(last, Slot::EMPTY);
        block
    }

    /// An entry behind `group` that stands there only because `group` was full.
    fn displaced_over(&self, group: usize) -> Option<Position> {
        let groups = self.groups();
        let mut next = group;
        while groups[next].is_full() {
            next = self.after(next);
            if next == group {
                return None;
            }
            // It may move back if its home is not behind `group` on the way to `next`.
            let way = self.distance(group, next);
            let displaced =
                |slot: Slot| !slot.is_empty() && self.distance(self.home(slot.tag()), next) >= way;
            if let Some(slot) = groups[next].slots().position(displaced) {
                return Some(Position { group: next, slot });
            }
        }
        None
    }

    /// Steps from one group to another, going up and around.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.group_count() - from }
    }

    /// All occupied slots.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.groups().iter().flat_map(Group::slots).filter(|slot| !slot.is_empty())
    }

    /// The occupied slots whose tag may lie in `tags`: those of their home groups and of the full ones behind.
    pub(super) fn slots_tagged(
        &self,
        tags: std::ops::RangeInclusive<u16>,
    ) -> impl Iterator<Item = Slot> + '_ {
        let (first, last) = (self.home(*tags.start()), self.home(*tags.end()));
        let groups = self.groups();
        let mut ended = false;
        (0..self.group_count())
            .map_while(move |step| {
                if ended {
                    return None;
                }
                let group = &groups[(first + step) % groups.len()];
                ended = first + step >= last && !group.is_full();
                Some(group)
            })
            .flat_map(Group::slots)
            .filter(move |slot| !slot.is_empty() && tags.contains(&slot.tag()))
    }

    /// Asks the processor for the cache line where the search for `hash` begins.
    #[inline]
    pub(super) fn prefetch(&self, hash: KeyHash) {
        let home = self.home(self.tag(hash));
        super::prefetch(self.groups.as_ptr().wrapping_add(home).cast());
    }

    /// Asks the processor for the entry that probably has this hash.
    #[inline]
    pub(super) fn prefetch_entry(&self, hash: KeyHash) {
        let tag = self.tag(hash);
        self.groups()[self.home(tag)].likely(tag).prefetch();
    }

    /// Asks the processor for the block in the first slot from the tag of `hash` on that may be it, where the whole tag is
    /// not known.
    #[inline]
    pub(super) fn prefetch_first(&self, hash: KeyHash) {
        let tag = self.tag(hash);
        let slots = self.groups()[self.home(tag)].slots();
        let near = slots.filter(|slot| !slot.is_empty()).min_by_key(|slot| slot.tag().wrapping_sub(tag));
        if let Some(slot) = near {
            slot.prefetch();
        }
    }

    /// A copy sized for its entries and one more; the old slots are to be freed.
    pub(super) fn resized(&self) -> Segment {
        let mut copy = Segment::sized_for(self.len(), self.depth());
        for slot in self.slots() {
            copy.push(slot);
        }
        copy
    }

    /// Whether a split would leave at least a sixteenth on either side. Only hashes that agree in many bits
    /// fail this; then growing is better than splitting.
    pub(super) fn splits_well(&self) -> bool {
        let upper = self.slots().filter(|slot| slot.tag() >> 15 == 1).count();
        self.depth() < MAX_DEPTH && upper.min(self.len() - upper) * 16 >= self.len()
    }

    /// Two segments with one directory bit more; the old slots are to be freed. Reads every key.
    pub(super) fn split(&self, hasher: &KeyHasher) -> [Segment; 2] {
        let depth = self.depth() + 1;
        let upper = self.slots().filter(|slot| slot.tag() >> 15 == 1).count();
        let mut halves = [Segment::sized_for(self.len() - upper, depth), Segment::sized_for(upper, depth)];
        let mut ahead = self.slots();
        for slot in ahead.by_ref().take(PREFETCH_AHEAD) {
            slot.prefetch();
        }
        for slot in self.slots() {
            if let Some(later) = ahead.next() {
                later.prefetch();
            }
            let hash = hasher.hash(slot.block().key());
            let half = &mut halves[usize::from(slot.tag() >> 15)];
            let tag = half.tag(hash);
            half.push(slot.retagged(tag));
        }
        halves
    }

    /// One segment with one directory bit less, from the lower and the upper half.
    pub(super) fn merged(lower: &Segment, upper: &Segment) -> Segment {
        let mut whole = Segment::sized_for(lower.len() + upper.len(), lower.depth() - 1);
        for (half, top) in [(lower, 0), (upper, 1 << 15)] {
            for slot in half.slots() {
                whole.push(slot.retagged(slot.tag() >> 1 | top));
            }
        }
        whole
    }

    /// How many entries a full-grown segment takes.
    pub(super) const fn full_capacity() -> usize {
        capacity(FULL_GROUPS)
    }

    /// Whether it has become so empty that a smaller one would do.
    pub(super) fn is_sparse(&self) -> bool {
        self.group_count() > 1 && self.len() * 8 < capacity(self.group_count()) * 3
    }
}

#[cfg(test)]
impl Segment {
    /// Asserts the invariants of the file's head.
    pub(super) fn check(&self) {
        assert_eq!(self.slots().count(), self.len());
        for (index, group) in self.groups().iter().enumerate() {
            assert!(group.slots().skip(group.occupied()).all(Slot::is_empty), "occupied slots are in front");
            for slot in group.slots().filter(|slot| !slot.is_empty()) {
                let mut on_the_way = self.home(slot.tag());
                while on_the_way != index {
                    assert!(self.groups()[on_the_way].is_full(), "a search would end before the entry");
                    on_the_way = self.after(on_the_way);
                }
            }
        }
    }
}

/// The home of a tag among so many groups.
#[inline]
pub(super) fn home_of(tag: u16, group_count: usize) -> usize {
    (usize::from(tag) * group_count) >> 16
}

/// Zeroed groups, and whether they were asked for as aligned. Those of a large table stand where its entries do, in huge
/// pages. Allocators give the smaller sizes at cache line borders anyway; asking for it can cost the next size class
/// (mimalloc 3 asks for `size + align - 1`), so that is only done where the plain request was not aligned.
fn allocate_groups(group_count: usize) -> (NonNull<Group>, bool) {
    let bytes = group_count * size_of::<Group>();
    if arena::CELL_LENGTHS.contains(&bytes) {
        let Some(groups) = arena::take_cell(bytes) else { handle_alloc_error(layout(group_count, true)) };
        let groups = groups.cast::<Group>();
        // SAFETY: a cell is large enough, and aligned as any multiple of 512 bytes from a page on is; an empty slot is 0.
        unsafe { groups.write_bytes(0, group_count) };
        return (groups, true);
    }
    for aligned in [false, true] {
        let layout = layout(group_count, aligned);
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc(layout) };
        let Some(groups) = NonNull::new(memory.cast::<Group>()) else { handle_alloc_error(layout) };
        if groups.is_aligned() {
            // SAFETY: the memory is large enough and aligned; an empty slot is 0.
            unsafe { groups.write_bytes(0, group_count) };
            return (groups, aligned);
        }
        // SAFETY: just allocated with this layout.
        unsafe { dealloc(memory, layout) };
    }
    unreachable!("an aligned request gives aligned memory")
}

fn layout(group_count: usize, aligned: bool) -> Layout {
    let align = if aligned { align_of::<Group>() } else { 1 };
    Layout::from_size_align(group_count * size_of::<Group>(), align)
        .expect("at most 65,535 groups fit the address space")
}

/// How many entries so many groups take before they grow: seven eighths.
const fn capacity(group_count: usize) -> usize {
    group_count * (GROUP_SLOTS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_match_what_a_loop_matches() {
        for tag in [0u16, 1, 0x7fff, 0x8000, 0xffff] {
            for pattern in 0u32..256 {
                let group = Group([const { AtomicU64::new(0) }; GROUP_SLOTS]);
                for index in 0..GROUP_SLOTS {
                    let same = pattern >> index & 1 == 1;
                    let address = 0x7fff_ffff_fff0 - index as u64;
                    let shown = u64::from(if same { tag } else { tag ^ 0x8001 });
                    group.set_slot(index, Slot(shown << 48 | address));
                }
                assert_eq!(group.matches(tag), pattern);
                assert_eq!(group.matches_one_by_one(tag), pattern);
            }
        }
        let empty = Group([const { AtomicU64::new(0) }; GROUP_SLOTS]);
        assert_eq!((empty.matches(0), empty.matches(1)), (0xff, 0));
    }
}
