//! The segments of one log: which there are, how many of their bytes are live, and how an index names a place in them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::base::Covered;
use super::format;
use super::writer::LAST_LANE;
use crate::disk::File;
use crate::record::Position;
use crate::sync::RwLock;

/// Where a cold record stands, as an index keeps it: 48 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locator {
    /// Which of the segments that are there now, 15 bits; used again once no index points into a segment.
    pub(super) slot: u16,
    /// Bytes from the start of the segment: 26 bits.
    pub(super) offset: u32,
    /// How many bytes to read: see [`size_class`].
    pub(super) class: u8,
}

/// Records start below this offset.
pub(super) const MAX_OFFSET: u64 = 1 << 26;
/// The class of records whose length must be read first.
pub(super) const UNSIZED: u8 = 63;
/// What a record of that class counts for in the account of live bytes.
const UNSIZED_WEIGHT: u64 = 4 << 20;

/// The smallest class that holds so many bytes: four to an octave from 64 bytes on, so that a read that knows only the
/// class reads a tenth too much on average.
pub(super) fn size_class(bytes: u64) -> u8 {
    (0..UNSIZED).find(|class| class_bytes(*class) >= bytes).unwrap_or(UNSIZED)
}

/// The most bytes of a record of this class; for [`UNSIZED`] what it counts for.
pub(super) fn class_bytes(class: u8) -> u64 {
    if class >= UNSIZED {
        return UNSIZED_WEIGHT;
    }
    let (octave, quarter) = (class >> 2, u64::from(class & 3));
    quarter.saturating_add(4) << (u32::from(octave).saturating_add(4))
}

impl Locator {
    /// What the record counts for in the account of live bytes.
    pub(super) fn weight(self) -> u64 {
        class_bytes(self.class)
    }
}

/// A segment that is there.
pub(super) struct Segment {
    pub(super) id: u64,
    pub(super) slot: u16,
    /// What it holds by the time that it has to live.
    pub(super) lane: usize,
    pub(super) file: Arc<dyn File>,
    /// Bytes written that can be read.
    pub(super) end: AtomicU64,
    /// Bytes of the records of each batch, by size class, and how many of them the indexes point at.
    written: AtomicU64,
    live: AtomicU64,
    /// Tombstones in it.
    pub(super) tombstones: AtomicU64,
    /// A record that would have to move can't be read: the segment stays.
    pub(super) is_damaged: AtomicBool,
    /// Its end is marked on disk.
    pub(super) is_closed: AtomicBool,
}

impl Segment {
    pub(super) fn new(id: u64, slot: u16, file: Box<dyn File>, end: u64) -> Segment {
        Segment {
            id,
            slot,
            lane: LAST_LANE,
            file: Arc::from(file),
            end: AtomicU64::new(end),
            written: AtomicU64::new(0),
            live: AtomicU64::new(0),
            tombstones: AtomicU64::new(0),
            is_damaged: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Of this lane.
    pub(super) fn in_lane(self, lane: usize) -> Segment {
        Segment { lane, ..self }
    }

    pub(super) fn end(&self) -> u64 {
        self.end.load(Relaxed)
    }

    /// Counts a record that was written; it is dead until [`Segment::revive`].
    pub(super) fn count_written(&self, weight: u64) {
        self.written.fetch_add(weight, Relaxed);
    }

    pub(super) fn revive(&self, weight: u64) {
        self.live.fetch_add(weight, Relaxed);
    }

    pub(super) fn retire(&self, weight: u64) {
        self.live.fetch_sub(weight, Relaxed);
    }

    pub(super) fn has_live(&self) -> bool {
        self.live.load(Relaxed) > 0
    }

    /// Marks its end on disk, for good: an empty batch proves the last one that has entries.
    pub(super) fn close(&self) -> io::Result<()> {
        let end = self.end();
        let mark = format::empty_batch(Position { segment: self.id, offset: end });
        self.file.write_at(&mark, end)?;
        self.file.sync_data()?;
        self.end.store(end.saturating_add(mark.len() as u64), Relaxed);
        self.is_closed.store(true, Relaxed);
        Ok(())
    }

    /// Takes over what a base says of what is in it.
    pub(super) fn count_covered(&self, covered: &Covered) {
        self.written.store(covered.written, Relaxed);
        self.tombstones.store(covered.tombstones, Relaxed);
        self.is_closed.store(covered.is_closed, Relaxed);
    }

    /// What a base says of it.
    pub(super) fn covered(&self) -> Covered {
        Covered {
            slot: self.slot,
            id: self.id,
            end: self.end(),
            written: self.written.load(Relaxed),
            tombstones: self.tombstones.load(Relaxed),
            is_closed: self.is_closed.load(Relaxed),
        }
    }

    /// Ends it here, for good: nothing behind will be found. A sync that failed before does not matter to that.
    pub(super) fn cut(&self, end: u64) -> io::Result<()> {
        self.file.set_size(end)?;
        self.file.sync_data()
    }

    /// Its bytes that are still of use, about.
    pub(super) fn live_bytes(&self) -> u64 {
        let (live, written) = (self.live.load(Relaxed), self.written.load(Relaxed));
        let share = u128::from(self.end()).saturating_mul(u128::from(live));
        let bytes = share.checked_div(u128::from(written)).unwrap_or(0);
        u64::try_from(bytes).unwrap_or(u64::MAX).min(self.end())
    }
}

/// What a log takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Segments.
    pub segments: usize,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Bytes that are still of use, about.
    pub live_bytes: u64,
}

/// Most segments at a time.
const SLOTS: u16 = 1 << 15;

/// The segments by slot.
#[derive(Default)]
pub(super) struct Segments {
    slots: RwLock<Vec<Option<Arc<Segment>>>>,
}

impl Segments {
    /// Puts a segment into the slot that it had; answers false if that is taken.
    pub(super) fn put_back(&self, segment: Segment) -> Option<Arc<Segment>> {
        let mut slots = self.slots.write();
        let slot = usize::from(segment.slot);
        if slots.len() <= slot {
            slots.resize_with(slot.saturating_add(1), || None);
        }
        let place = slots.get_mut(slot).filter(|place| place.is_none() && segment.slot < SLOTS)?;
        Some(Arc::clone(place.insert(Arc::new(segment))))
    }

    /// Opens a free slot to the segment that `make` makes for it. `None` if all slots are taken.
    pub(super) fn add(&self, make: impl FnOnce(u16) -> Segment) -> Option<Arc<Segment>> {
        let mut slots = self.slots.write();
        let free = slots.iter().position(Option::is_none).unwrap_or(slots.len());
        let segment = Arc::new(make(u16::try_from(free).ok().filter(|slot| *slot < SLOTS)?));
        if let Some(slot) = slots.get_mut(free) {
            *slot = Some(Arc::clone(&segment));
        } else {
            slots.push(Some(Arc::clone(&segment)));
        }
        Some(segment)
    }

    pub(super) fn get(&self, slot: u16) -> Option<Arc<Segment>> {
        self.slots.read().get(usize::from(slot))?.clone()
    }

    /// Counts a record as live or dead.
    pub(super) fn account(&self, at: Locator, count: impl FnOnce(&Segment, u64)) {
        if let Some(Some(segment)) = self.slots.read().get(usize::from(at.slot)) {
            count(segment, at.weight());
        }
    }

    pub(super) fn remove(&self, segment: &Segment) {
        if let Some(slot) = self.slots.write().get_mut(usize::from(segment.slot)) {
            *slot = None;
        }
    }

    /// All of them, oldest first.
    pub(super) fn by_age(&self) -> Vec<Arc<Segment>> {
        let mut all: Vec<Arc<Segment>> = self.slots.read().iter().flatten().cloned().collect();
        all.sort_unstable_by_key(|segment| segment.id);
        all
    }

    pub(super) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for segment in self.slots.read().iter().flatten() {
            usage.segments = usage.segments.saturating_add(1);
            usage.bytes = usage.bytes.saturating_add(segment.end());
            usage.live_bytes = usage.live_bytes.saturating_add(segment.live_bytes());
        }
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_holds_its_bytes_and_little_more() {
        for bytes in 1..4000 {
            let held = class_bytes(size_class(bytes));
            assert!(held >= bytes && (held <= 64 || held * 4 <= bytes * 5 + 64), "{bytes} in {held}");
        }
        assert_eq!((size_class(64), size_class(65), size_class(3 << 20)), (0, 1, 62));
        assert_eq!((size_class((3 << 20) + 1), size_class(1 << 30)), (UNSIZED, UNSIZED));
    }
}
