//! Giving back the space of dead entries: the live ones of a segment move to the end of the log, then its file goes.
//!
//! Live is what an index points at, at this very place, when the new place is swapped in: an entry that was overwritten or
//! deleted meanwhile stays so. Tombstones move too, as long as an older segment could hold what they bury.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::format::{KeyLine, KeyState};
use super::reader::{self, Keys, ReadError};
use super::segment::{Locator, Segment};
use super::writer::{Batch, Log, NewRecord};
use crate::disk::is_full;
use crate::hash::stable::KeyId;
use crate::record::{Mark, MarkFile, Position};

/// What happens to an entry whose segment is about to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// No index points at it.
    Dead,
    /// It moves.
    Moves,
}

/// Who has the indexes. Called without any lock of the log.
pub trait Holder {
    /// What happens to the entry at this place. A holder that wants it gone takes it out of its index, lets the log
    /// forget it, and says that it is dead.
    fn judge(&self, namespace: u8, id: KeyId, at: Locator) -> Fate;

    /// Whether the key is in an index at all.
    fn knows(&self, namespace: u8, id: KeyId) -> bool;

    /// Lets the index point at `to` if it points at `from`; answers whether it did.
    fn relocate(&self, namespace: u8, id: KeyId, from: Locator, to: Locator) -> bool;
}

/// What a reclaim did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Bytes of the files that went.
    pub freed_bytes: u64,
    /// Bytes written for entries that moved.
    pub moved_bytes: u64,
    /// Entries that moved.
    pub moved: u64,
}

/// How full of dead bytes a segment must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The one with the largest share of dead bytes, if that is at least this many percent.
    Deadest(u64),
    /// The oldest, whatever is in it.
    Oldest,
    /// The smallest: its file is what it costs.
    Smallest,
}

impl Log {
    /// Removes the segments that have neither live entries nor tombstones that are needed. Costs no reading.
    pub fn drop_dead(&self) -> std::io::Result<u64> {
        if self.is_frozen.load(Relaxed) {
            return Ok(0);
        }
        let mut freed = 0_u64;
        let tail = self.tail.lock();
        let all = self.segments.by_age();
        let has_tombstones = |segment: &Segment| segment.tombstones.load(Relaxed) > 0;
        let is_dead = |segment: &Segment| !segment.has_live() && !tail.has(segment);
        // What these bury stands in themselves, or went before them.
        let oldest: Vec<_> = all.iter().take_while(|segment| is_dead(segment)).collect();
        let last_grave = oldest.iter().rfind(|segment| has_tombstones(segment));
        let begun = last_grave.map_or(Ok(()), |segment| self.begin_at(segment.id));
        let may_unbury = if begun.is_ok() { oldest.len() } else { 0 };
        for (at, segment) in all.iter().enumerate().filter(|(_, segment)| is_dead(segment)) {
            if !has_tombstones(segment) || at < may_unbury {
                self.remove(segment)?;
                freed = freed.saturating_add(segment.end());
            }
        }
        // What is only full may have room for that later.
        begun.or_else(|error| if is_full(&error) { Ok(()) } else { Err(error) }).map(|()| freed)
    }

    /// Tells for good that no segment below this number is needed, before tombstones go that bury what is in those: the
    /// removal of a file may be taken back by a crash at any time, also in another process, if a sync of names failed.
    fn begin_at(&self, id: u64) -> std::io::Result<()> {
        let mut start = self.start.lock();
        match start.as_mut() {
            Some(start) => start.set_for_good(id),
            // The name of one that is there may not last.
            None => Mark::anew(&*self.disk, MarkFile::TierStart, id).map(|mark| *start = Some(mark)),
        }
    }

    fn remove(&self, segment: &Segment) -> std::io::Result<()> {
        self.disk.remove(&self.policy.class.file_name(segment.id))?;
        self.segments.remove(segment);
        Ok(())
    }

    /// Rewrites one segment; answers `None` if none is worth it. Not to be called by two at once.
    pub fn reclaim(&self, holder: &dyn Holder, pick: Pick) -> Result<Option<Reclaimed>, ReadError> {
        if self.is_frozen.load(Relaxed) {
            return Ok(None);
        }
        let freed_bytes = self.drop_dead()?;
        let Some(segment) = self.candidate(pick) else {
            return Ok((freed_bytes > 0).then_some(Reclaimed { freed_bytes, ..Reclaimed::default() }));
        };
        let mut done = Reclaimed { freed_bytes, ..Reclaimed::default() };
        let oldest = self.segments.by_age().first().map(|oldest| oldest.id);
        // Where that can't be said, tombstones move, too.
        let is_oldest = oldest == Some(segment.id)
            && (segment.tombstones.load(Relaxed) == 0 || self.begin_at(segment.id).is_ok());
        let mut batch = Batch::of(self.policy.batch_bytes);
        let mut sources = Vec::new();
        for keys in reader::batches(&segment) {
            let moved = keys
                .and_then(|keys| self.gather(&segment, &keys, holder, !is_oldest, &mut batch, &mut sources));
            if let Err(error) = moved {
                if matches!(error, ReadError::Damaged) {
                    segment.is_damaged.store(true, Relaxed);
                }
                return Err(error);
            }
            if batch.is_full() {
                self.hand_over(holder, &mut batch, &mut sources, &mut done)?;
            }
        }
        self.hand_over(holder, &mut batch, &mut sources, &mut done)?;
        if !segment.has_live() {
            self.remove(&segment)?;
            done.freed_bytes = done.freed_bytes.saturating_add(segment.end());
        }
        Ok(Some(done))
    }

    fn candidate(&self, pick: Pick) -> Option<Arc<Segment>> {
        let tail = self.tail.lock();
        let all = self.segments.by_age().into_iter();
        let mut closed = all.filter(|segment| !tail.has(segment) && !segment.is_damaged.load(Relaxed));
        let dead_percent = |segment: &Arc<Segment>| {
            let live = segment.live_bytes().saturating_mul(100).checked_div(segment.end()).unwrap_or(0);
            100_u64.saturating_sub(live)
        };
        match pick {
            Pick::Oldest => closed.next(),
            Pick::Smallest => closed.min_by_key(|segment| segment.end()),
            Pick::Deadest(least) => {
                closed.filter(|segment| dead_percent(segment) >= least).max_by_key(dead_percent)
            }
        }
    }

    /// Adds what lives of a batch to the one that is being built, and where each came from to `sources`.
    fn gather(
        &self,
        segment: &Segment,
        keys: &Keys,
        holder: &dyn Holder,
        keep_tombstones: bool,
        batch: &mut Batch,
        sources: &mut Vec<Option<Locator>>,
    ) -> Result<(), ReadError> {
        let mut entries: Option<Vec<u8>> = None;
        for (line, at) in keys.lines(segment.slot).ok_or(ReadError::Damaged)? {
            let KeyLine { namespace, generation, id, version, what } = line;
            match (what, at) {
                (KeyState::Entry { kind, deadline, .. }, Some(at)) => {
                    if holder.judge(namespace, id, at) == Fate::Dead {
                        continue;
                    }
                    let bytes = match &mut entries {
                        Some(bytes) => bytes,
                        none => none.insert(reader::entries_of(segment, keys)?),
                    };
                    let offset = u64::from(at.offset);
                    let start = usize::try_from(offset.saturating_sub(keys.entries_at)).unwrap_or(usize::MAX);
                    let position = Position { segment: segment.id, offset };
                    let entry = reader::entry_at(bytes.get(start..).unwrap_or_default(), position);
                    let entry = entry.ok_or(ReadError::Damaged)?;
                    let key = entry.front.key;
                    let new = NewRecord { namespace, generation, id, key, version, deadline, kind };
                    if batch.put_in(segment.lane, new, |out| out.extend_from_slice(entry.value)) {
                        sources.push(Some(at));
                    }
                }
                (_, _) => {
                    if keep_tombstones && !holder.knows(namespace, id) {
                        batch.bury(namespace, generation, id, version);
                        sources.push(None);
                    }
                }
            }
        }
        Ok(())
    }

    /// Appends what was gathered and lets the indexes point at it.
    fn hand_over(
        &self,
        holder: &dyn Holder,
        batch: &mut Batch,
        sources: &mut Vec<Option<Locator>>,
        done: &mut Reclaimed,
    ) -> Result<(), ReadError> {
        self.append_moved(batch)?;
        done.moved_bytes = done.moved_bytes.saturating_add(batch.bytes() as u64);
        for (item, from) in batch.items().iter().zip(sources.iter()) {
            let (Some(from), Some(to)) = (from, item.locator) else { continue };
            if holder.relocate(item.namespace(), item.id(), *from, to) {
                self.retire(*from);
                done.moved = done.moved.saturating_add(1);
            } else {
                self.retire(to);
            }
        }
        batch.clear();
        sources.clear();
        Ok(())
    }
}
