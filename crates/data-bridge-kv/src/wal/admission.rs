//! Who may append: a record gets its room on disk before it is made.
//!
//! Room is what is left of the active segment and the spare one, zeroed, less what is promised or accepted already. Records
//! stand in it one behind the other and none is cut in two, so a large one may leave as much as it takes unused at the end of
//! the active segment: it weighs twice. A part is kept back for small ones, and for those that free space.

use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::time::Duration;

use super::buffer::LARGE_BYTES;
use super::format::BATCH_BYTES;
use super::{Refusal, Wal, segment};
use crate::record::HEAD_BYTES;
use crate::sync::thread::yield_now;

/// A record that is no larger than this part of what is kept back weighs once: one in so many.
const SMALL: u64 = 8;
/// Of the bytes that may be accepted and not written, the part that small records have beside large ones: one in so many.
const PASSING: u64 = 4;

/// When to look again whether commands that have promises have ended, which tell nobody, and how often who frees space does.
const PROMISED_AGAIN: Duration = Duration::from_millis(1);
const PATIENCE: u32 = 1000;

/// Room for a record that is about to be made; it ends when this is dropped, when the record has taken its place.
#[derive(Debug)]
#[must_use]
pub struct Promise<'a> {
    wal: &'a Wal,
    weight: u64,
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.wal.state.promised.fetch_sub(self.weight, AcqRel);
        self.wal.state.taken.fetch_sub(self.weight, AcqRel);
    }
}

impl Wal {
    /// Whether records are taken at all; those that free space longer than others.
    pub fn admit(&self, frees: bool) -> Result<(), Refusal> {
        self.check()?;
        if self.is_short() && self.spare_room() < self.least_room(frees) {
            return Err(self.full());
        }
        Ok(())
    }

    /// Whether the log is neither failed nor closed.
    pub fn check(&self) -> Result<(), Refusal> {
        if let Some(failure) = self.failure() {
            return Err(Refusal::Failed(failure));
        }
        if self.state.is_closed.load(Acquire) {
            return Err(Refusal::Closed);
        }
        Ok(())
    }

    /// Whether space was asked for in vain: what is left is all there is for now.
    pub fn is_short(&self) -> bool {
        self.state.is_short.load(Acquire)
    }

    /// Promises room for a record with a payload of at most so many bytes, if there is some right now.
    pub fn try_reserve(&self, frees: bool, bytes: usize) -> Result<Option<Promise<'_>>, Refusal> {
        self.check()?;
        let weight = self.weight((bytes + HEAD_BYTES) as u64);
        let (runway, kept) = (&self.state.runway, self.least_room(frees));
        let take = |taken: u64| {
            let taken = taken.saturating_add(weight);
            (taken.saturating_add(kept) <= runway.load(Acquire)).then_some(taken)
        };
        let taken = self.state.taken.fetch_update(AcqRel, Acquire, take);
        Ok(taken.is_ok().then(|| {
            self.state.promised.fetch_add(weight, AcqRel);
            Promise { wal: self, weight }
        }))
    }

    /// The same; has space made if there is not enough, which blocks. Nothing that frees space is refused but what does not fit.
    pub fn reserve(&self, frees: bool, bytes: usize) -> Result<Promise<'_>, Refusal> {
        let needed = self.weight((bytes + HEAD_BYTES) as u64).saturating_add(self.least_room(frees));
        let mut patience = if frees { PATIENCE } else { 0 };
        if bytes >= LARGE_BYTES {
            // For small ones behind it as well: they would wait to ask for more until this one is written.
            let ample = needed.saturating_add(4 * segment::reserve(self.policy.segment_bytes));
            while self.spare_room() < ample && self.extend(ample) {}
        }
        loop {
            if let Some(promise) = self.try_reserve(frees, bytes)? {
                return Ok(promise);
            }
            if !self.extend(needed) && self.spare_room() < needed {
                self.check()?;
                if patience == 0 || !self.may_get_room(needed) {
                    return Err(self.full());
                }
                patience -= 1;
                drop(self.room.wait_for(self.buffer.lock(), PROMISED_AGAIN));
            }
        }
    }

    /// Why there is no room.
    pub fn full(&self) -> Refusal {
        if self.state.lacks_files.load(Acquire) { Refusal::Files } else { Refusal::Full }
    }

    /// Whether there may be so much room when the commands that have promises have ended: until then a record counts beside its
    /// promise. Nobody waits for them while the log itself waits for space.
    fn may_get_room(&self, needed: u64) -> bool {
        let promised = self.state.promised.load(Acquire);
        !self.state.is_held.load(Acquire) && self.spare_room().saturating_add(promised) >= needed
    }

    /// Goes on a step with the segment to come, until there is so much room; whether it got further.
    fn extend(&self, needed: u64) -> bool {
        let mut tail = self.tail.lock();
        let lacks = needed.saturating_sub(self.spare_room());
        if lacks == 0 || self.check().is_err() {
            return lacks == 0;
        }
        let made = self.around(|around| match tail.spare {
            Some(_) => Ok(tail.lengthen(lacks, around)),
            None => tail.make_space(around, true),
        });
        let got_further = matches!(made, Ok(true));
        self.settle(tail, made.map(drop));
        self.ring();
        got_further
    }

    /// Whether what was accepted and is not written is little enough for a record of so many bytes. A small one passes large ones
    /// that fill it, until small ones are a part of it themselves: a large one takes the disk a second.
    #[inline]
    pub fn has_room(&self, bytes: usize) -> bool {
        let most = self.policy.backlog_bytes as u64;
        let backlog = self.state.backlog.load(Acquire);
        if backlog < most {
            return true;
        }
        let small = backlog.saturating_sub(self.state.large_backlog.load(Acquire));
        let passes = bytes < LARGE_BYTES && small < most / PASSING;
        passes || self.failure.get().is_some() || self.state.is_closed.load(Acquire)
    }

    /// Waits for that. A log that failed or is closed has room: it refuses.
    pub fn wait_room(&self, bytes: usize) {
        if !self.state.has_thread.load(Acquire) {
            while !self.has_room(bytes) {
                if !self.step() {
                    yield_now();
                }
            }
            return;
        }
        let mut buffer = self.buffer.lock();
        while !self.has_room(bytes) {
            buffer = self.room.wait(buffer);
        }
    }

    /// What a record of so many bytes weighs, with the head of a batch before it.
    pub(super) fn weight(&self, bytes: u64) -> u64 {
        let once = bytes.saturating_add(BATCH_BYTES as u64);
        if bytes <= self.least_room(true) * 4 / SMALL { once } else { once.saturating_mul(2) }
    }

    /// Bytes that can be accepted and will find their space on disk.
    fn spare_room(&self) -> u64 {
        self.state.runway.load(Acquire).saturating_sub(self.state.taken.load(Acquire))
    }

    /// How many of them are kept back.
    fn least_room(&self, frees: bool) -> u64 {
        let reserve = segment::reserve(self.policy.segment_bytes);
        if frees { reserve / 4 } else { reserve }
    }
}
