//! Writing what was appended: one batch at a time, sealed for the place where it comes to stand, and synced.
//!
//! What finds no segment, because the disk is full, is held: nothing of it was tried, so nothing is in doubt, and it goes on
//! when there is space.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

use super::Lsn;
use super::buffer::{Chunk, Load};
use super::format::{self, BATCH, BATCH_BYTES, Before, END, HEADER_BYTES, Header};
use super::segment::{self, Closed, Maker, Need, Spare};
use super::stats::Counts;
use crate::clock::Stopwatch;
use crate::disk::{Disk, File, is_full, is_out_of_files};
use crate::record::{self, Mark, Position};

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
    /// Whether that was for want of files that may be open.
    pub(super) lacks_files: bool,
    /// Since when something written is not durable, by the clock.
    pub(super) unsynced_since_ms: Option<u64>,
    /// What is still to be written of the batch, and from where on in the first chunk.
    pub(super) held: VecDeque<Chunk>,
    pub(super) held_from: usize,
    /// What the batch takes that is being written.
    pub(super) in_hand: Load,
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

    /// Whether a batch of so many bytes of records can be written without making a segment first.
    pub(super) fn has_place_for(&self, bytes: u64) -> bool {
        let is_near_the_end =
            || self.active.as_ref().is_none_or(|active| bytes + BATCH_BYTES as u64 > active.rest());
        !self.is_held() && (self.spare.is_some() || !is_near_the_end())
    }

    /// Bytes of the active segment that are of use.
    pub(super) fn active_bytes(&self) -> u64 {
        self.active.as_ref().map_or(0, |active| active.end)
    }

    /// Writes a batch, and answers the chunks that are written. After an error nothing may be written any more.
    pub(super) fn write(
        &mut self,
        mut chunks: Vec<Chunk>,
        around: &mut Surroundings<'_>,
    ) -> io::Result<Vec<Chunk>> {
        assert!(self.held.is_empty(), "one batch after the other");
        if let Some(front) = chunks.first_mut().and_then(|chunk| chunk.first_chunk_mut::<BATCH_BYTES>()) {
            *front = format::batch(BATCH, self.durable, self.written + 1);
        }
        self.held = chunks.into();
        around.counts.batches.add(1);
        self.go_on(around)
    }

    /// Goes on with what is held, if there is space by now.
    pub(super) fn go_on(&mut self, around: &mut Surroundings<'_>) -> io::Result<Vec<Chunk>> {
        let mut written = Vec::new();
        while let Some(mut chunk) = self.held.pop_front() {
            let from = std::mem::take(&mut self.held_from);
            let end = self.write_chunk(&mut chunk, from, around)?;
            if end < chunk.len() {
                self.held.push_front(chunk);
                self.held_from = end;
                break;
            }
            written.push(chunk);
        }
        Ok(written)
    }

    /// Whether something waits for space.
    pub(super) fn is_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// The same where nothing may be left: at the end.
    pub(super) fn write_last(&mut self, chunks: Vec<Chunk>, around: &mut Surroundings<'_>) -> io::Result<()> {
        self.maker.rest_no_more();
        self.go_on(around)?;
        if !self.is_held() && !chunks.is_empty() {
            self.write(chunks, around)?;
        }
        if self.is_held() { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// Seals and writes a chunk from a record on, in one go unless the segment is full in between; answers up to where there was
    /// space.
    fn write_chunk(
        &mut self,
        chunk: &mut Chunk,
        from: usize,
        around: &mut Surroundings<'_>,
    ) -> io::Result<usize> {
        // Sealed and not written yet is what lies between the two.
        let (mut start, mut end) = (from, from);
        let before = self.written;
        while end < chunk.len() {
            let total = record::total_bytes(&chunk[end..]).ok_or(ErrorKind::InvalidData)?;
            let sealed = (end - start) as u64;
            if self.active.as_ref().is_none_or(|active| sealed + total as u64 > active.rest()) {
                self.put(&chunk[start..end], around)?;
                start = end;
                if !self.rotate(total as u64, around)? {
                    break;
                }
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
        self.put(&chunk[start..end], around)?;
        Ok(end)
    }

    fn put(&mut self, bytes: &[u8], around: &Surroundings<'_>) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.unsynced_since_ms.get_or_insert(around.now_ms);
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

    /// Goes on in the next segment, which has room for a record of so many bytes; false if there is no space for it. The full
    /// one is synced before the header of the next is written: so a header proves that everything before it is durable.
    pub(super) fn rotate(&mut self, record: u64, around: &mut Surroundings<'_>) -> io::Result<bool> {
        let was_unsynced = self.unsynced_since_ms;
        self.sync(around)?;
        let Some(spare) = self.next(record + HEADER_BYTES as u64, around)? else { return Ok(false) };
        self.close_active(around);
        let Spare { number, file, size, .. } = spare;
        let header = format::header(number, Header { fingerprint: self.fingerprint, before: self.before });
        file.write_at(&header, 0)?;
        self.before = Before { chain: format::chain(self.before.chain, &header), ..self.before };
        self.active = Some(Active { number, file, size, end: HEADER_BYTES as u64 });
        self.unsynced_since_ms = was_unsynced.or(Some(around.now_ms));
        Ok(true)
    }

    /// The segment to come, of at least this size; `None` if there is no space for it.
    fn next(&mut self, size: u64, around: &mut Surroundings<'_>) -> io::Result<Option<Spare>> {
        if self.spare.is_none() {
            if !self.maker.may_try(around.now_ms) {
                return Ok(None);
            }
            let made = self.maker.make(around.disk, around.now_ms, self.need(true));
            self.note(made.as_ref().err());
            match made {
                Err(error) if is_full(&error) || is_out_of_files(&error) => return Ok(None),
                made => self.spare = Some(made?),
            }
            around.disk.sync_names()?;
        }
        while let Some(lacks) = self.spare.as_ref().and_then(|spare| size.checked_sub(spare.size + 1)) {
            if !self.maker.may_try(around.now_ms) {
                return Ok(None);
            }
            if !self.lengthen(lacks + 1, around) {
                self.maker.rest(around.now_ms);
                return Ok(None);
            }
        }
        Ok(self.spare.take())
    }

    /// How much the log needs a segment, if somebody waits (`in_haste`) or not.
    fn need(&self, in_haste: bool) -> Need {
        match self.active {
            None => Need::Any,
            Some(_) if in_haste => Need::Soon,
            Some(_) => Need::Ahead,
        }
    }

    /// Notes whether a segment could be made, and why not.
    fn note(&mut self, error: Option<&io::Error>) {
        self.is_short = error.is_some();
        self.lacks_files = error.is_some_and(is_out_of_files);
    }

    /// Lengthens the spare segment by a step on the way to so many bytes more, or by some more than that where the disk has
    /// them; false if there is no space for them all.
    pub(super) fn lengthen(&mut self, bytes: u64, around: &Surroundings<'_>) -> bool {
        let Some(spare) = self.spare.as_mut().filter(|_| self.maker.may_try(around.now_ms)) else {
            return false;
        };
        let free = around.disk.free_bytes().unwrap_or(bytes);
        if free < bytes {
            return false;
        }
        let ample = bytes.max(self.maker.least_bytes());
        let more = if free < ample { bytes } else { ample };
        match spare.lengthen(more.min(segment::STEP_BYTES)) {
            Ok(()) => return true,
            Err(segment::Lengthening::Undone) => {}
            Err(segment::Lengthening::InDoubt) => {
                let spare = self.spare.take();
                spare.iter().for_each(|spare| segment::discard(around.disk, spare));
                (self.is_short, self.lacks_files) = (true, false);
            }
        }
        self.maker.rest(around.now_ms);
        false
    }

    /// Takes leave of the active segment, whose bytes are synced.
    fn close_active(&mut self, around: &mut Surroundings<'_>) {
        if let Some(full) = self.active.take() {
            let last = self.written;
            self.before = Before { segment: full.number, last, chain: self.before.chain };
            (around.closed)(Closed { number: full.number, last, bytes: full.end });
        }
    }

    /// Goes on a step with the spare segment if one is missing or short, in haste if somebody waits for it; whether it got
    /// further. That there is no space is no error: the log goes on with what it has.
    pub(super) fn make_space(&mut self, around: &mut Surroundings<'_>, in_haste: bool) -> io::Result<bool> {
        if !self.maker.may_try(around.now_ms) {
            return Ok(false);
        }
        if self.spare.is_some() {
            return Ok(self.complete_spare(around));
        }
        let made = match self.maker.step(around.disk, around.now_ms, self.need(in_haste)) {
            Ok(made) => made,
            Err(error) => {
                self.note(Some(&error));
                return Ok(false);
            }
        };
        if made.is_some() {
            // A name that is in doubt may not hold records: an error is final.
            around.disk.sync_names()?;
            self.spare = made;
            self.note(None);
            if self.active.is_none() {
                self.rotate(0, around)?;
            }
        }
        Ok(true)
    }

    /// Goes on a step with a spare segment that is short. Where there is no space it stays so.
    fn complete_spare(&mut self, around: &Surroundings<'_>) -> bool {
        let lacks = self.spare.as_ref().map_or(0, Spare::lacks);
        let got_further = lacks > 0 && self.lengthen(lacks, around);
        if let Some(spare) = self.spare.as_mut().filter(|_| !got_further) {
            spare.planned = spare.size;
        }
        got_further
    }

    /// Whether the segment to come is there as it should be.
    pub(super) fn has_spare(&self) -> bool {
        self.spare.as_ref().is_some_and(|spare| spare.lacks() == 0)
    }

    /// Marks the end, of which everything is synced, cuts off what is not used and removes what is spare. Where there is little
    /// space both are kept, for deletes when the log is opened again: opening makes its first segment of them.
    pub(super) fn finish(&mut self, around: &mut Surroundings<'_>) -> io::Result<()> {
        let keeps = self.maker.lacks_space(around.disk);
        if let Some(active) = &mut self.active {
            let mut end = format::batch(END, self.durable, self.written + 1);
            record::seal(&mut end, Position { segment: active.number, offset: active.end });
            active.file.write_at(&end, active.end)?;
            active.end += BATCH_BYTES as u64;
            if !keeps {
                active.file.set_size(active.end)?;
            }
            active.file.sync_data()?;
        }
        self.watermark.set_for_good(self.durable)?;
        self.close_active(around);
        self.maker.abandon(around.disk);
        if let Some(spare) = self.spare.take().filter(|_| !keeps) {
            segment::discard(around.disk, &spare);
        }
        Ok(())
    }
}
