//! Reading a log for people: every item of every file, or whether the whole is sound. Changes nothing.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use super::Lsn;
use super::format;
use super::reader::{Item, Reader, Walk};
use super::survey::{Files, Found, OpenError, Survey};
use crate::disk::Disk;
use crate::record::{Mark, MarkFile, Record};

/// Something that stands in the files of a log.
#[derive(Clone, Copy, Debug)]
pub enum Line<'a> {
    /// What the marks say: up to where it is durable, and from where on it must be there.
    Marks {
        /// `None` if no mark is whole.
        watermark: Option<Lsn>,
        /// The same.
        start: Option<Lsn>,
    },
    /// A segment begins.
    Segment {
        /// Its file.
        file: &'a str,
        /// The length of that.
        bytes: u64,
        /// Its first LSN.
        first: Lsn,
        /// The segment before; 0 if there is none.
        after: u64,
    },
    /// A batch, or the end of the log, begins.
    Claim {
        /// Where.
        offset: u64,
        /// What was durable then.
        durable: Lsn,
        /// Whether the log was closed here.
        is_end: bool,
    },
    /// A record.
    Record {
        /// Its LSN.
        lsn: Lsn,
        /// Where it stands.
        offset: u64,
        /// What it is.
        record: Record<'a>,
    },
    /// Nothing is whole from here on.
    Rest {
        /// The file.
        file: &'a str,
        /// From where on.
        offset: u64,
        /// How many bytes there are that are not the zeros at the end.
        bytes: u64,
    },
}

/// Hands out everything that is whole, file by file, whether the files fit together or not.
pub fn dump(disk: &dyn Disk, mut see: impl FnMut(Line<'_>)) -> Result<(), OpenError> {
    see(Line::Marks {
        watermark: Mark::read(disk, MarkFile::Watermark)?,
        start: Mark::read(disk, MarkFile::Start)?,
    });
    let Files { whole, rest } = Files::find(disk, None)?;
    for found in whole.values() {
        dump_segment(disk, found, &mut see)?;
    }
    for number in rest {
        let name = format::segment_name(number);
        let file = disk.open(&name)?;
        let bytes = Reader::new(&*file, number)?.zeros_from(0)?;
        see(Line::Rest { file: &name, offset: 0, bytes });
    }
    Ok(())
}

fn dump_segment(disk: &dyn Disk, found: &Found, see: &mut impl FnMut(Line<'_>)) -> Result<(), OpenError> {
    let Found { number, name, header } = found;
    let file = found.open(disk)?;
    let mut walk = Walk::new(Reader::new(&*file, *number)?, *header)?;
    see(Line::Segment {
        file: name,
        bytes: walk.reader.size,
        first: walk.last.saturating_add(1),
        after: header.before.segment,
    });
    loop {
        let offset = walk.offset;
        match walk.next()? {
            Some(Item::Record(lsn, record)) => see(Line::Record { lsn, offset, record }),
            Some(Item::Claim { durable, is_end }) => see(Line::Claim { offset, durable, is_end }),
            None => break,
        }
    }
    let offset = walk.offset;
    let bytes = walk.reader.zeros_from(offset)?.saturating_sub(offset);
    if bytes > 0 {
        see(Line::Rest { file: name, offset, bytes });
    }
    Ok(())
}

/// A log that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The first LSN that is there, or the next one if none is.
    pub first: Lsn,
    /// The last.
    pub last: Lsn,
    /// Up to which LSN it is known to be durable: a crash of the machine may have lost what is behind.
    pub watermark: Lsn,
    /// Bytes of use.
    pub bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Whether it was closed in good order.
    pub was_closed: bool,
    /// Bytes behind the end that opening would cut off and keep aside.
    pub unfinished: u64,
}

/// Reads everything as opening would, telling before each segment of its file, its length, and the length of all.
pub fn verify(disk: &dyn Disk, mut tell: impl FnMut(&str, u64, u64)) -> Result<Verified, OpenError> {
    let survey = Survey::of(disk, None)?;
    let mut sizes = Vec::new();
    for found in &survey.segments {
        sizes.push(found.open(disk)?.size()?);
    }
    let all = sizes.iter().fold(0_u64, |sum, size| sum.saturating_add(*size));
    let mut sizes = sizes.into_iter();
    let reading = survey.read(disk, &mut |_, _| Ok(()), &mut |found| {
        tell(&found.name, sizes.next().unwrap_or(0), all);
    })?;
    let mut unfinished = 0_u64;
    if let Some(newest) = survey.segments.last() {
        let file = newest.open(disk)?;
        let zeros = Reader::new(&*file, newest.number)?.zeros_from(reading.end)?;
        unfinished = zeros.saturating_sub(reading.end);
    }
    for number in &survey.unborn {
        let file = disk.open(&format::segment_name(*number))?;
        unfinished = unfinished.saturating_add(Reader::new(&*file, *number)?.zeros_from(0)?);
    }
    Ok(Verified {
        first: reading.first,
        last: reading.last,
        watermark: survey.watermark.unwrap_or(0),
        bytes: reading.bytes,
        segments: survey.segments.len() as u64,
        was_closed: reading.was_closed && unfinished == 0,
        unfinished,
    })
}
