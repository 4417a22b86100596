//! The files of the log: those that are full, and making those to come, zeroed and on disk before they are needed, so
//! that a write of a record cannot meet a full disk.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

use super::Lsn;
use super::format;
use crate::disk::{Disk, File};

/// A segment that is not written any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) number: u64,
    /// Its last LSN; the one before its first if it has none.
    pub(super) last: Lsn,
    /// Bytes that are of use.
    pub(super) bytes: u64,
}

/// Those, oldest first.
pub(super) type ClosedSegments = VecDeque<Closed>;

/// Which of these can be deleted if no LSN below this one is needed, and from which LSN on the rest reaches.
pub(super) fn trimmable(closed: &ClosedSegments, keep_from: Lsn) -> (Vec<u64>, Lsn) {
    let below = closed.iter().take_while(|segment| segment.last < keep_from);
    let numbers: Vec<u64> = below.clone().map(|segment| segment.number).collect();
    (numbers, below.last().map_or(0, |segment| segment.last) + 1)
}

/// A file full of zeros that will be a segment.
pub(super) struct Spare {
    pub(super) number: u64,
    pub(super) file: Box<dyn File>,
    /// Zeroed up to here, and on disk.
    pub(super) size: u64,
    /// The size that it is to have.
    pub(super) planned: u64,
}

/// Why a spare did not become longer.
pub(super) enum Lengthening {
    /// It is as it was.
    Undone,
    /// What is in it is in doubt.
    InDoubt,
}

impl Spare {
    /// Bytes that it lacks of its size: somebody waited for it.
    pub(super) fn lacks(&self) -> u64 {
        self.planned.saturating_sub(self.size)
    }

    /// Lengthens it by so many bytes of zeros, on disk.
    pub(super) fn lengthen(&mut self, bytes: u64) -> Result<(), Lengthening> {
        let size = self.size.saturating_add(bytes);
        if self.file.allocate(size).is_err() {
            // What can't be cut off is no more than space.
            drop(self.file.set_size(self.size));
            return Err(Lengthening::Undone);
        }
        self.file.sync_data().map_err(|_| Lengthening::InDoubt)?;
        self.size = size;
        Ok(())
    }
}

/// About where a segment ends that was zeroed before it was used, found in a few reads: a page of zeros may also stand in
/// the middle of a value, and what is behind it is not counted then.
pub(super) fn used_bytes(file: &dyn File) -> io::Result<u64> {
    const PAGE: usize = 4096;
    let (size, mut page) = (file.size()?, [0; PAGE]);
    let mut is_used = |number: u64| {
        let at = number.saturating_mul(PAGE as u64);
        let count = usize::try_from(size.saturating_sub(at)).map_or(PAGE, |rest| rest.min(PAGE));
        let part = page.get_mut(..count).unwrap_or_default();
        file.read_at(part, at)?;
        io::Result::Ok(part.iter().any(|byte| *byte != 0))
    };
    let (mut used, mut unused) = (0, size.div_ceil(PAGE as u64));
    while used < unused {
        let middle = used.midpoint(unused);
        if is_used(middle)? {
            used = middle.saturating_add(1);
        } else {
            unused = middle;
        }
    }
    Ok(used.saturating_mul(PAGE as u64).min(size))
}

/// Removes a spare. What can't be removed is when the log is opened again.
pub(super) fn discard(disk: &dyn Disk, spare: &Spare) {
    drop(disk.remove(&format::segment_name(spare.number)));
}

/// Zeroed at a time, and synced, so that the device is never busy with zeros for long.
pub(super) const STEP_BYTES: u64 = 2 << 20;
/// After a failure, when to try again.
const RETRY_MS: u64 = 500;

/// How much a segment is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// There is another one before it.
    Ahead,
    /// Somebody waits: he should not wait for all the zeros of a long one.
    Soon,
    /// The log has none: on a disk that is full almost everything is taken that is left, for those who free some.
    Any,
}

/// Makes spare segments.
pub(super) struct Maker {
    /// The largest.
    segment_bytes: u64,
    /// The number of the next one; no number is used twice.
    next_number: u64,
    /// The size of the next one: small at first, so that opening takes no time.
    next_size: u64,
    making: Option<Spare>,
    /// When it may be tried again, by the clock.
    retry_ms: u64,
}

impl Maker {
    pub(super) fn new(segment_bytes: u64, next_number: u64) -> Maker {
        let next_size = smallest(segment_bytes);
        Maker { segment_bytes, next_number, next_size, making: None, retry_ms: 0 }
    }

    /// Whether it makes sense to go on at this time.
    pub(super) fn may_try(&self, now_ms: u64) -> bool {
        now_ms >= self.retry_ms
    }

    /// When it makes sense again, if not at once.
    pub(super) fn retry_ms(&self) -> u64 {
        self.retry_ms
    }

    /// Goes on a step; the spare when it is complete, but for its name, which is to be synced. After an error the file is given
    /// up, as a sync is never tried twice, and another one is begun later.
    pub(super) fn step(&mut self, disk: &dyn Disk, now_ms: u64, need: Need) -> io::Result<Option<Spare>> {
        let stepped = self.advance(disk, need);
        if stepped.is_err() {
            self.rest(now_ms);
            self.next_size = smallest(self.segment_bytes);
            self.abandon(disk);
        }
        stepped
    }

    /// The same until there is one.
    pub(super) fn make(&mut self, disk: &dyn Disk, now_ms: u64, need: Need) -> io::Result<Spare> {
        loop {
            if let Some(spare) = self.step(disk, now_ms, need)? {
                return Ok(spare);
            }
        }
    }

    /// What a spare is lengthened by at least: each time costs a sync, and whoever waits is not the only one for long.
    pub(super) fn least_bytes(&self) -> u64 {
        smallest(self.segment_bytes).min(STEP_BYTES)
    }

    /// Tries nothing for a while.
    pub(super) fn rest(&mut self, now_ms: u64) {
        self.retry_ms = now_ms.saturating_add(RETRY_MS);
    }

    /// Tries again at once.
    pub(super) fn rest_no_more(&mut self) {
        self.retry_ms = 0;
    }

    /// Removes what is not complete.
    pub(super) fn abandon(&mut self, disk: &dyn Disk) {
        self.making.take().iter().for_each(|spare| discard(disk, spare));
    }

    /// Whether there is less space than a segment takes.
    pub(super) fn lacks_space(&self, disk: &dyn Disk) -> bool {
        disk.free_bytes().is_ok_and(|free| free < self.segment_bytes)
    }

    fn advance(&mut self, disk: &dyn Disk, need: Need) -> io::Result<Option<Spare>> {
        let least = smallest(self.segment_bytes);
        if self.making.is_none() {
            let free = disk.free_bytes()?;
            // Not to take the last bytes from those who free some.
            let size = match need {
                _ if free >= self.next_size => self.next_size,
                Need::Any => least.min(free - free / 8),
                Need::Ahead | Need::Soon => least,
            };
            if free < size || size < reserve(self.segment_bytes) / 4 {
                return Err(ErrorKind::StorageFull.into());
            }
            let number = self.next_number;
            self.next_number += 1;
            let file = disk.create(&format::segment_name(number))?;
            self.making = Some(Spare { number, file, size: 0, planned: size });
        }
        let Some(spare) = &mut self.making else { return Ok(None) };
        let zeroed = spare.planned.min(spare.size + STEP_BYTES);
        spare.file.allocate(zeroed)?;
        spare.file.sync_data()?;
        spare.size = zeroed;
        let is_enough = need != Need::Ahead && zeroed >= least;
        if spare.lacks() > 0 && !is_enough {
            return Ok(None);
        }
        // Whoever waited for it makes those after it no shorter.
        self.next_size = (spare.planned * 2).clamp(least, self.segment_bytes);
        self.retry_ms = 0;
        Ok(self.making.take())
    }
}

/// The size of the first segment after opening and after a failure.
fn smallest(segment_bytes: u64) -> u64 {
    (segment_bytes / 8).max(segment_bytes.min(4096))
}

/// Space that is kept for records that free some.
pub(super) fn reserve(segment_bytes: u64) -> u64 {
    smallest(segment_bytes) / 4
}
