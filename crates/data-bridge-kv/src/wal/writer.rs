//! Writing what was appended: one batch at a time, sealed for the place where it comes to stand, and synced.

use std::io::{self, ErrorKind};

use super::Lsn;
use super::buffer::Chunk;
use super::format::{self, BATCH, BATCH_BYTES, Before, END, HEADER_BYTES, Header};
use super::mark::Mark;
use super::segment::{Closed, Maker, Spare};
use super::stats::Counts;
use crate::clock::Stopwatch;
use crate::disk::{Disk, File};
use crate::record::{self, Position};

/// The segment that grows.
pub(super) struct Active {
    number: u64,
    file: Box<dyn File>,
    /// Zeroed up to here.
    size: u64,
    /// Written up to here.
    pub(super) end: u64,
}

impl Active {
    fn rest(&self) -> u64 {
        self.size.saturating_sub(self.end)
    }
}

/// The end of the log. Whoever has it may write.
pub(super) struct Tail {
    pub(super) fingerprint: u64,
    pub(super) active: Option<Active>,
    pub(super) spare: Option<Spare>,
    pub(super) maker: Maker,
    pub(super) watermark: Mark,
    /// The segment before the active one, and the chain up to what was written last.
    pub(super) before: Before,
    /// The last LSN that was written, and the last that is durable.
    pub(super) written: Lsn,
    pub(super) durable: Lsn,
    /// Whether space was asked for in vain.
    pub(super) is_short: bool,
    /// Since when something written is not durable, by the clock.
    pub(super) unsynced_since_ms: Option<u64>,
}

/// What a tail needs of the log around it.
pub(super) struct Surroundings<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) counts: &'a Counts,
    /// Told of each segment that is full.
    pub(super) closed: &'a mut dyn FnMut(Closed),
    pub(super) now_ms: u64,
}

impl Tail {
    /// Bytes that can be written without asking for space.
    pub(super) fn runway(&self) -> u64 {
        let spare = self.spare.as_ref().map_or(0, |spare| spare.size.saturating_sub(HEADER_BYTES as u64));
        self.active.as_ref().map_or(0, Active::rest) + spare
    }

    /// Bytes of the active segment that are of use.
    pub(super) fn active_bytes(&self) -> u64 {
        self.active.as_ref().map_or(0, |active| active.end)
    }

    /// Writes a batch. After an error nothing may be written any more.
    pub(super) fn write(&mut self, chunks: &mut [Chunk], around: &mut Surroundings<'_>) -> io::Result<()> {
        self.unsynced_since_ms.get_or_insert(around.now_ms);
        if let Some(front) = chunks.first_mut().and_then(|chunk| chunk.first_chunk_mut::<BATCH_BYTES>()) {
            *front = format::batch(BATCH, self.durable, self.written + 1);
        }
        for chunk in chunks.iter_mut() {
            self.write_chunk(chunk, around)?;
        }
        around.counts.batches.add(1);
        Ok(())
    }

    /// Seals and writes a chunk, in one go unless the segment is full in between.
    fn write_chunk(&mut self, chunk: &mut Chunk, around: &mut Surroundings<'_>) -> io::Result<()> {
        // Sealed and not written yet is what lies between the two.
        let (mut start, mut end) = (0, 0);
        let before = self.written;
        while end < chunk.len() {
            let total = record::total_bytes(&chunk[end..]).ok_or(ErrorKind::InvalidData)?;
            let sealed = (end - start) as u64;
            let fits = |active: &Active| {
                sealed + total as u64 <= active.rest() || active.end + sealed == HEADER_BYTES as u64
            };
            if !self.active.as_ref().is_some_and(fits) {
                self.put(&chunk[start..end], around)?;
                start = end;
                self.rotate(around)?;
            }
            let active = self.active.as_ref().ok_or(ErrorKind::StorageFull)?;
            let at = Position { segment: active.number, offset: active.end + (end - start) as u64 };
            let item = &mut chunk[end..end + total];
            record::seal(item, at);
            if let Some(head) = record::head(item).filter(format::is_owners) {
                assert_eq!(head.number, self.written + 1, "LSNs grow by one");
                self.written = head.number;
                self.before.chain = format::chain(self.before.chain, item);
            }
            end += total;
        }
        around.counts.records.add(self.written - before);
        self.put(&chunk[start..], around)
    }

    fn put(&mut self, bytes: &[u8], around: &Surroundings<'_>) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let active = self.active.as_mut().ok_or(ErrorKind::StorageFull)?;
        active.file.write_at(bytes, active.end)?;
        active.end += bytes.len() as u64;
        around.counts.bytes_written.add(bytes.len() as u64);
        Ok(())
    }

    /// Makes everything written durable, and notes that.
    pub(super) fn sync(&mut self, around: &Surroundings<'_>) -> io::Result<()> {
        if self.unsynced_since_ms.is_none() {
            return Ok(());
        }
        if let Some(active) = &self.active {
            let watch = Stopwatch::start();
            active.file.sync_data()?;
            around.counts.sync(watch.elapsed_us());
        }
        self.unsynced_since_ms = None;
        self.durable = self.written;
        self.watermark.set(self.durable)
    }

    /// Goes on in the next segment. The full one is synced before the header of the next is written: so a header proves
    /// that everything before it is durable.
    pub(super) fn rotate(&mut self, around: &mut Surroundings<'_>) -> io::Result<()> {
        let was_unsynced = self.unsynced_since_ms;
        self.sync(around)?;
        let spare = match self.spare.take() {
            Some(spare) => spare,
            None => {
                let made = self.maker.make(around.disk, around.now_ms);
                self.is_short = made.is_err();
                let spare = made?;
                around.disk.sync_names()?;
                spare
            }
        };
        self.close_active(around);
        let Spare { number, file, size } = spare;
        let header = format::header(number, Header { fingerprint: self.fingerprint, before: self.before });
        file.write_at(&header, 0)?;
        self.before = Before { chain: format::chain(self.before.chain, &header), ..self.before };
        self.active = Some(Active { number, file, size, end: HEADER_BYTES as u64 });
        self.unsynced_since_ms = was_unsynced.or(Some(around.now_ms));
        Ok(())
    }

    /// Takes leave of the active segment, whose bytes are synced.
    fn close_active(&mut self, around: &mut Surroundings<'_>) {
        if let Some(full) = self.active.take() {
            let last = self.written;
            self.before = Before { segment: full.number, last, chain: self.before.chain };
            (around.closed)(Closed { number: full.number, last, bytes: full.end });
        }
    }

    /// Goes on a step with the spare segment if one is missing; whether it got further. That there is no space is no
    /// error: the log goes on with what it has.
    pub(super) fn make_space(&mut self, around: &mut Surroundings<'_>) -> io::Result<bool> {
        if self.spare.is_some() || !self.maker.may_try(around.now_ms) {
            return Ok(false);
        }
        let Ok(made) = self.maker.step(around.disk, around.now_ms) else {
            self.is_short = true;
            return Ok(false);
        };
        if made.is_some() {
            // A name that is in doubt may not hold records: an error is final.
            around.disk.sync_names()?;
            (self.spare, self.is_short) = (made, false);
            if self.active.is_none() {
                self.rotate(around)?;
            }
        }
        Ok(true)
    }

    /// Marks the end, of which everything is synced, cuts off what is not used and removes what is spare.
    pub(super) fn finish(&mut self, around: &mut Surroundings<'_>) -> io::Result<()> {
        if let Some(active) = &mut self.active {
            let mut end = format::batch(END, self.durable, self.written + 1);
            record::seal(&mut end, Position { segment: active.number, offset: active.end });
            active.file.write_at(&end, active.end)?;
            active.end += BATCH_BYTES as u64;
            active.file.set_size(active.end)?;
            active.file.sync_data()?;
        }
        self.watermark.set_for_good(self.durable)?;
        self.close_active(around);
        self.maker.abandon(around.disk);
        if let Some(spare) = self.spare.take() {
            // What can't be removed is when the log is opened again.
            drop(around.disk.remove(&format::segment_name(spare.number)));
        }
        Ok(())
    }
}
