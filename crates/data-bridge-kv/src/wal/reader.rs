//! Reading a segment: whatever stands in it is trusted only where its checksum holds.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use std::io;

use data_bridge_kv_model::limits::LOG_RECORD_BYTES;

use super::Lsn;
use super::format::{self, BATCH, BATCH_BYTES, END, Header};
use crate::disk::File;
use crate::record::{self, HEAD_BYTES, Position, Record};

/// Read from disk at a time.
const READ_BYTES: u64 = 1 << 20;

/// A file, with a part of it in memory.
pub(super) struct Reader<'a> {
    file: &'a dyn File,
    segment: u64,
    pub(super) size: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a dyn File, segment: u64) -> io::Result<Reader<'a>> {
        Ok(Reader { file, segment, size: file.size()?, window: Vec::new(), window_at: 0 })
    }

    /// The header of the segment, and the record it stands in. `None` if it is not whole.
    pub(super) fn header(&mut self) -> io::Result<Option<Record<'_>>> {
        let segment = self.segment;
        let header = self.record(0)?;
        Ok(header.filter(|record| record.head.kind == format::HEADER && record.head.number == segment))
    }

    /// The record at this offset, with its checksum. `None` if none is there.
    pub(super) fn record(&mut self, offset: u64) -> io::Result<Option<Record<'_>>> {
        let at = Position { segment: self.segment, offset };
        let total = record::total_bytes(self.bytes(offset, HEAD_BYTES)?);
        let Some(total) = total.filter(|total| *total <= LOG_RECORD_BYTES.saturating_add(HEAD_BYTES)) else {
            return Ok(None);
        };
        if offset.saturating_add(total as u64) > self.size {
            return Ok(None);
        }
        Ok(record::read(self.bytes(offset, total)?, at))
    }

    /// The sealed bytes of the record at this offset, which was found there just before.
    pub(super) fn sealed(&mut self, offset: u64) -> io::Result<&[u8]> {
        self.bytes(offset, HEAD_BYTES)
    }

    /// The durable LSN that is claimed highest by batches behind this offset, whatever else stands there.
    pub(super) fn claimed_behind(&mut self, offset: u64) -> io::Result<Option<Lsn>> {
        let (segment, mut highest) = (self.segment, None);
        self.scan(offset, |at, bytes| {
            let starts = bytes.len().saturating_sub(BATCH_BYTES - 1);
            for (start, part) in bytes.windows(BATCH_BYTES).enumerate().take(starts) {
                let head = record::head(part).filter(|head| matches!(head.kind, BATCH | END));
                let position = Position { segment, offset: at.saturating_add(start as u64) };
                if let Some(head) = head
                    && record::read(part, position).is_some_and(|record| record.total_bytes() == BATCH_BYTES)
                {
                    highest = highest.max(Some(head.number));
                }
            }
        })?;
        Ok(highest)
    }

    /// Where the zeros begin that the file ends with, but not before this offset.
    pub(super) fn zeros_from(&mut self, offset: u64) -> io::Result<u64> {
        let mut zeros = offset;
        self.scan(offset, |at, bytes| {
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                zeros = zeros.max(at.saturating_add(last as u64).saturating_add(1));
            }
        })?;
        Ok(zeros)
    }

    /// Hands out everything from an offset on that is not a megabyte of zeros, in parts that overlap by less than a batch.
    fn scan(&mut self, offset: u64, mut see: impl FnMut(u64, &[u8])) -> io::Result<()> {
        let mut at = offset;
        while at < self.size {
            let count = READ_BYTES.min(self.size.saturating_sub(at));
            let bytes = self.bytes(at, usize::try_from(count).unwrap_or(usize::MAX))?;
            if bytes.iter().any(|byte| *byte != 0) {
                see(at, bytes);
            }
            let is_last = at.saturating_add(count) >= self.size;
            let overlap = if is_last { 0 } else { (BATCH_BYTES as u64).saturating_sub(1) };
            at = at.saturating_add(count).saturating_sub(overlap);
        }
        Ok(())
    }

    /// So many bytes from an offset on, or all up to the end if there are fewer.
    pub(super) fn bytes(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        let end = offset.saturating_add(count as u64).min(self.size);
        let held_to = self.window_at.saturating_add(self.window.len() as u64);
        if offset < self.window_at || end > held_to {
            let wanted = end.max(offset.saturating_add(READ_BYTES).min(self.size)).saturating_sub(offset);
            let wanted = usize::try_from(wanted).map_err(|_| io::ErrorKind::FileTooLarge)?;
            self.window.clear();
            self.window.shrink_to(wanted);
            self.window.resize(wanted, 0);
            self.window_at = offset;
            self.file.read_at(&mut self.window, offset)?;
        }
        let from = usize::try_from(offset.saturating_sub(self.window_at)).unwrap_or(usize::MAX);
        let held = self.window.get(from..).unwrap_or_default();
        Ok(held.get(..count).unwrap_or(held))
    }
}

/// What stands at a place in a segment.
pub(super) enum Item<'a> {
    /// A record of the owner.
    Record(Lsn, Record<'a>),
    /// The front of a batch, or the end of the log: with the LSN that is durable for sure.
    Claim { durable: Lsn, is_end: bool },
}

/// Goes through a segment from its header on.
pub(super) struct Walk<'a> {
    pub(super) reader: Reader<'a>,
    /// Where the next item stands.
    pub(super) offset: u64,
    /// The LSN before.
    pub(super) last: Lsn,
    /// The chain before.
    pub(super) chain: u32,
}

impl<'a> Walk<'a> {
    /// Begins behind the header, which was found whole.
    pub(super) fn new(mut reader: Reader<'a>, header: Header) -> io::Result<Walk<'a>> {
        let chain = format::chain(header.before.chain, reader.sealed(0)?);
        Ok(Walk { reader, offset: format::HEADER_BYTES as u64, last: header.before.last, chain })
    }

    /// The next item. `None` where nothing stands that belongs there; the walk stays before it.
    pub(super) fn next(&mut self) -> io::Result<Option<Item<'_>>> {
        let offset = self.offset;
        let chain = format::chain(self.chain, self.reader.sealed(offset)?);
        let Some(record) = self.reader.record(offset)? else { return Ok(None) };
        let next = self.last.checked_add(1);
        let number = record.head.number;
        let item = if format::is_owners(&record.head) {
            if Some(number) != next {
                return Ok(None);
            }
            self.last = number;
            self.chain = chain;
            Item::Record(number, record)
        } else {
            if format::next_of(record) != next || number > self.last {
                return Ok(None);
            }
            Item::Claim { durable: number, is_end: record.head.kind == END }
        };
        self.offset = offset.saturating_add(record.total_bytes() as u64);
        Ok(Some(item))
    }
}
