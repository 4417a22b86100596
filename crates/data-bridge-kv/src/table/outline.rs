//! What a look ahead may know of a table without its lock: where the slots of a hash stand.
//!
//! The table publishes the handle of each segment here as one word. A reader holds an epoch guard meanwhile; slots that
//! the table gives up are freed only when every guard that was held then is gone. What a reader finds may be out of date:
//! it is only good for asking the processor for memory.

use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crossbeam_epoch::Guard;

use super::prefetch;
use super::segment::{FULL_GROUPS, Group, Segment, home_of};
use crate::hash::KeyHash;

/// Directories deeper than this are not published: four million segments of a shard.
const LEVELS: usize = 23;
/// The depth of an outline that shows nothing.
const HIDDEN: u32 = u32::MAX;

/// The published directory of one table.
pub struct Outline {
    depth: AtomicU32,
    /// The address of the handles that are published: only good for asking for the one that a search begins with.
    handles: AtomicUsize,
    /// For each depth of the directory that there ever was, its handles. Levels stay, so that late readers find memory.
    levels: [OnceLock<Box<[AtomicU64]>>; LEVELS],
}

impl Outline {
    /// An outline that shows nothing yet.
    pub(super) fn new() -> Outline {
        Outline {
            depth: AtomicU32::new(HIDDEN),
            handles: AtomicUsize::new(0),
            levels: [const { OnceLock::new() }; LEVELS],
        }
    }

    /// Publishes a whole directory of `1 << depth` handles.
    pub(super) fn publish(&self, depth: u32, segments: &[Segment]) {
        let Some(level) = self.levels.get(depth as usize) else { return self.hide() };
        let words = level.get_or_init(|| segments.iter().map(|_| AtomicU64::new(0)).collect());
        for (word, segment) in words.iter().zip(segments) {
            word.store(packed(segment), Ordering::Release);
        }
        self.handles.store(segments.as_ptr().addr(), Ordering::Relaxed);
        self.depth.store(depth, Ordering::Release);
    }

    /// Publishes one handle at `places` of the directory of this depth.
    pub(super) fn place(&self, depth: u32, places: std::ops::Range<usize>, segment: &Segment) {
        let words =
            self.levels.get(depth as usize).and_then(OnceLock::get).and_then(|words| words.get(places));
        for word in words.unwrap_or_default() {
            word.store(packed(segment), Ordering::Release);
        }
    }

    /// Shows nothing any more.
    pub(super) fn hide(&self) {
        self.depth.store(HIDDEN, Ordering::Release);
    }

    /// Where the search for a hash begins, for as long as the guard is held; `None` if nothing is shown.
    #[inline]
    pub fn home<'g>(&self, hash: KeyHash, _guard: &'g Guard) -> Option<Home<'g>> {
        let depth = self.depth.load(Ordering::Acquire);
        let words = self.levels.get(depth as usize)?.get()?;
        let place = hash.prefix(depth);
        let word = words.get(place)?.load(Ordering::Acquire);
        let groups = NonZeroUsize::new((word >> 16) as usize)?;
        let (group_count, segment_depth) = (word as u8 & 0x7f, (word >> 7) as u32 & 0x3f);
        let tag = hash.tag(segment_depth);
        let index = home_of(tag, usize::from(group_count)) as u8;
        let handle = self.handles.load(Ordering::Relaxed) + place * size_of::<Segment>();
        Some(Home { groups, handle, group_count, index, tag, guard: PhantomData })
    }
}

/// Where the search for a hash begins in its segment, whose slots stay while the guard is held.
#[derive(Clone, Copy, Debug)]
pub struct Home<'g> {
    /// The address of the segment's first group.
    groups: NonZeroUsize,
    /// The address of the segment's handle, if the directory has not moved.
    handle: usize,
    tag: u16,
    group_count: u8,
    index: u8,
    guard: PhantomData<&'g ()>,
}

impl Home<'_> {
    /// First step of a look ahead: asks the processor for the slots where the search begins, and for what leads there.
    #[inline]
    pub fn prefetch_slots(self) {
        prefetch(std::ptr::without_provenance(self.handle));
        prefetch(self.group(0).cast());
    }

    /// Second step, when the slots have arrived: asks for the entry that the hash probably stands for. Answers false if the
    /// search goes on in the next slots: they are asked for, and a call with one more `behind` looks there.
    #[inline]
    pub fn prefetch_entry(self, behind: u8) -> bool {
        // SAFETY: the address was published by a segment that was alive when the guard was pinned or came later, and
        // its slots are freed only after the guard is gone. They are atomic.
        let group = unsafe { &*self.group(behind) };
        let slot = group.likely(self.tag);
        slot.prefetch();
        let ends = !slot.is_empty() || !group.is_full();
        if !ends {
            prefetch(self.group(behind + 1).cast());
        }
        ends
    }

    /// The address of the group so many steps behind the first, going around.
    #[inline]
    fn group(self, behind: u8) -> *const Group {
        let index = self.index + behind;
        let around = if index < self.group_count { index } else { index % self.group_count };
        std::ptr::with_exposed_provenance::<Group>(self.groups.get()).wrapping_add(usize::from(around))
    }
}

/// Address (48 bits), depth (at most 48, 6 bits) and number of groups (at most 64, 7 bits) of a segment; 0 for one that
/// hashes which cannot be split apart have made larger.
fn packed(segment: &Segment) -> u64 {
    if segment.group_count() > FULL_GROUPS {
        return 0;
    }
    segment.address() << 16 | u64::from(segment.depth()) << 7 | segment.group_count() as u64
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use data_bridge_kv_model::Kind;

    use super::super::{NewEntry, NewValue, Table};
    use super::*;
    use crate::hash::KeyHasher;

    impl Outline {
        /// The tag of a hash and the tags that stand in its home group and the next one; `None` if nothing is shown.
        fn shown(&self, hash: KeyHash, guard: &Guard) -> Option<(u16, Vec<u16>)> {
            let home = self.home(hash, guard)?;
            // SAFETY: as in `prefetch_entry`.
            let groups = [0, 1].map(|behind| unsafe { &*home.group(behind) });
            Some((home.tag, groups.iter().flat_map(|group| group.slots()).map(|slot| slot.tag()).collect()))
        }
    }

    fn write(table: &mut Table, hasher: &KeyHasher, number: u32) {
        let key = number.to_le_bytes();
        let value = NewValue::Payload { kind: Kind::Bytes, bytes: b"value" };
        table.put(hasher.hash(&key), &key, NewEntry { value, sequence: 1, deadline: None, heat: 0 });
    }

    fn remove(table: &mut Table, hasher: &KeyHasher, number: u32) {
        let key = number.to_le_bytes();
        table.remove(hasher.hash(&key), &key);
    }

    /// How many of the keys stand where the outline shows them.
    fn found(outline: &Outline, hasher: &KeyHasher, numbers: std::ops::Range<u32>) -> usize {
        let guard = crossbeam_epoch::pin();
        let stands = |number: &u32| {
            let shown = outline.shown(hasher.hash(&number.to_le_bytes()), &guard);
            shown.is_some_and(|(tag, tags)| tags.contains(&tag))
        };
        numbers.filter(stands).count()
    }

    /// How many of the keys would have their segment's handle asked for where it does not stand.
    fn misled(table: &Table, outline: &Outline, hasher: &KeyHasher, numbers: std::ops::Range<u32>) -> usize {
        let guard = crossbeam_epoch::pin();
        let is_misled = |number: &u32| {
            let hash = hasher.hash(&number.to_le_bytes());
            let handle = std::ptr::from_ref(table.directory.segment(hash)).addr();
            outline.home(hash, &guard).is_some_and(|home| home.handle != handle)
        };
        numbers.filter(is_misled).count()
    }

    #[test]
    fn it_follows_a_table_that_grows_and_shrinks() {
        let hasher = KeyHasher::new(5);
        let mut table = Table::new(hasher.clone());
        let outline = table.outline();
        for number in 0..100_000 {
            write(&mut table, &hasher, number);
        }
        let all = found(&outline, &hasher, 0..100_000);
        assert!(all > 95_000, "{all} of 100,000 at home or next to it");
        assert_eq!(misled(&table, &outline, &hasher, 0..100_000), 0);
        for number in 1_000..100_000 {
            remove(&mut table, &hasher, number);
        }
        let left = found(&outline, &hasher, 0..1_000);
        assert!(left > 950, "{left} of 1,000 at home or next to it");
        assert_eq!(misled(&table, &outline, &hasher, 0..1_000), 0);
        drop(table);
        assert_eq!(found(&outline, &hasher, 0..1_000), 0, "a table that is gone shows nothing");
    }

    #[test]
    fn it_goes_on_with_a_table_that_was_emptied_at_once() {
        let hasher = KeyHasher::new(7);
        let mut table = Table::new(hasher.clone());
        let (outline, empty) = (table.outline(), table.memory_bytes());
        (0..10_000).for_each(|number| write(&mut table, &hasher, number));
        let taken = table.take();
        assert_eq!((table.len(), table.memory_bytes(), taken.len()), (0, empty, 10_000));
        assert_eq!(found(&outline, &hasher, 0..10_000), 0, "what was taken is not shown");
        (0..5_000).for_each(|number| write(&mut table, &hasher, number));
        drop(taken);
        let shown = found(&outline, &hasher, 0..5_000);
        assert!(shown > 4_750, "{shown} of 5,000 at home or next to it");
        assert_eq!(misled(&table, &outline, &hasher, 0..5_000), 0);
    }

    #[test]
    fn who_looks_ahead_meets_no_freed_memory() {
        let hasher = KeyHasher::new(6);
        let mut table = Table::new(hasher.clone());
        let outline = table.outline();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut seen = 0;
                        while !done.load(Relaxed) || seen == 0 {
                            seen += found(&outline, &hasher, 0..500);
                        }
                        seen
                    })
                })
                .collect();
            for round in 0..20 {
                for number in 0..5_000 + round {
                    write(&mut table, &hasher, number);
                }
                for number in 500..5_000 + round {
                    remove(&mut table, &hasher, number);
                }
                if round % 4 == 3 {
                    drop(table.take());
                }
            }
            done.store(true, Relaxed);
            for reader in readers {
                assert!(reader.join().unwrap() > 0);
            }
        });
    }
}
