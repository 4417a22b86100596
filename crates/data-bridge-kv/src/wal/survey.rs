//! The files of a log as they are: which segments belong to it, and what in them is whole. Changes nothing.
//!
//! What was synced must be there, or the log is damaged: up to the watermark, up to the LSN that any batch claims to be
//! durable, and in every segment but the last, as a segment is only begun once the one before is synced.
//!
//! Files are opened one at a time: each kill leaves a segment, and there may be more of those than files that may be open.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use data_bridge_kv_model::Error;

use super::Lsn;
use super::format::{self, Before, Header};
use super::reader::{Item, Reader, Walk};
use super::segment::{Closed, ClosedSegments};
use crate::disk::{Disk, File};
use crate::record::{self, Mark, MarkFile, Record};

/// Why a log can't be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The disk says no.
    Disk(io::Error),
    /// What was durable is not there.
    Damaged {
        /// The file.
        file: String,
        /// Where the damage begins.
        offset: u64,
        /// The first LSN in doubt.
        from: Lsn,
        /// The last LSN that is known to have been durable.
        to: Lsn,
    },
    /// A file of marks is missing, or nothing in it is whole: what can be read may be all there was, or not.
    Unmarked {
        /// The file.
        file: String,
        /// The first LSN that can be read.
        first: Lsn,
        /// The last one.
        last: Lsn,
    },
    /// A file of another format or owner.
    Foreign {
        /// The file.
        file: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The owner of the log could not take a record.
    Refused {
        /// Which.
        lsn: Lsn,
        /// Why.
        why: Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Disk(error) => write!(f, "{error}"),
            OpenError::Damaged { file, offset, from, to } => write!(
                f,
                "{file} is damaged at offset {offset}: the records {from} to {to} were durable and can't be read; \
                 `data-bridge-kv log repair DIR --accept-loss-after {}` gives them up",
                from.saturating_sub(1)
            ),
            OpenError::Unmarked { file, first, last } => write!(
                f,
                "{file} is missing or damaged: the records {first} to {last} can be read, and whether there were others can't be \
                 told; `data-bridge-kv log repair DIR --accept-loss-after {last}` goes on with those"
            ),
            OpenError::Foreign { file, why } => write!(f, "{file} {why}"),
            OpenError::Refused { lsn, why } => write!(f, "record {lsn} of the log can't be applied: {why}"),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        OpenError::Disk(error)
    }
}

/// A segment with its header.
pub(super) struct Found {
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) header: Header,
}

impl Found {
    /// Its file, for as long as it is needed.
    pub(super) fn open(&self, disk: &dyn Disk) -> io::Result<Box<dyn File>> {
        disk.open(&self.name)
    }
}

/// All files of segments, by number.
#[derive(Default)]
pub(super) struct Files {
    /// Those that have their header.
    pub(super) whole: BTreeMap<u64, Found>,
    /// Those that have not.
    pub(super) rest: BTreeSet<u64>,
}

impl Files {
    /// Looks at all. `fingerprint` is the owner's, where that is known.
    pub(super) fn find(disk: &dyn Disk, fingerprint: Option<u64>) -> Result<Files, OpenError> {
        let mut files = Files::default();
        for name in disk.list()? {
            let Some(number) = format::segment_number(&name) else { continue };
            let file = disk.open(&name)?;
            let foreign = |why| OpenError::Foreign { file: name.clone(), why };
            match Reader::new(&*file, number)?.header()?.map(format::read_header) {
                Some(Some(header)) if fingerprint.is_none_or(|ours| ours == header.fingerprint) => {
                    files.whole.insert(number, Found { number, name, header });
                }
                Some(Some(_)) => return Err(foreign("belongs to another store")),
                Some(None) => return Err(foreign(record::UNKNOWN_FORMAT)),
                None => drop(files.rest.insert(number)),
            }
        }
        Ok(files)
    }

    /// Follows the log from its start up to an LSN, or as far as it can be read.
    pub(super) fn follow(&self, disk: &dyn Disk, start: Lsn, to: Lsn) -> io::Result<Followed<'_>> {
        let (last, file) = (start.saturating_sub(1), MarkFile::Start.name().to_owned());
        let mut followed = Followed { found: None, last, file, offset: 0 };
        let mut next = self.whole.values().rfind(|found| found.header.before.last < start);
        while let Some(found) = next.filter(|_| followed.last < to) {
            let file = found.open(disk)?;
            let mut walk = Walk::new(Reader::new(&*file, found.number)?, found.header)?;
            while walk.last < to && walk.next()?.is_some() {}
            let (last, offset) = (walk.last, walk.offset);
            followed = Followed { found: Some(found), last, file: found.name.clone(), offset };
            let before = Before { segment: found.number, last, chain: walk.chain };
            let mut later = self.whole.range(found.number.saturating_add(1)..).map(|(_, after)| after);
            next = later.rfind(|after| after.header.before == before);
        }
        Ok(followed)
    }

    /// The highest number that was ever given, as far as can be seen.
    pub(super) fn highest(&self) -> u64 {
        self.whole.keys().chain(&self.rest).copied().max().unwrap_or(0)
    }
}

/// How far a log can be read.
pub(super) struct Followed<'a> {
    /// The last segment of which something was read.
    pub(super) found: Option<&'a Found>,
    /// The last LSN, and where it ends.
    pub(super) last: Lsn,
    pub(super) file: String,
    pub(super) offset: u64,
}

/// The files of a log, sorted.
pub(super) struct Survey {
    /// The segments that must be there, oldest first.
    pub(super) segments: Vec<Found>,
    /// The numbers of files behind them that have no header.
    pub(super) unborn: BTreeSet<u64>,
    /// Segments that are not needed any more, and were being removed.
    pub(super) leftovers: Vec<u64>,
    pub(super) watermark: Option<Lsn>,
    pub(super) start: Lsn,
    /// The highest number of a segment.
    pub(super) highest: u64,
}

/// What was read.
pub(super) struct Reading {
    pub(super) first: Lsn,
    pub(super) last: Lsn,
    /// Bytes of use.
    pub(super) bytes: u64,
    pub(super) was_closed: bool,
    pub(super) segments: ClosedSegments,
    /// What the header of the next segment says.
    pub(super) before: Before,
    /// In the last segment: where nothing is whole any more, and the first record that is not known to be durable.
    pub(super) end: u64,
    pub(super) doubt_from: u64,
}

/// Takes the records, one after the other.
pub(super) type Replay<'a> = dyn FnMut(Lsn, Record<'_>) -> Result<(), OpenError> + 'a;

impl Survey {
    /// Finds the segments of the log: the newest, and from there each that the one behind it names, as far as LSNs are
    /// needed.
    pub(super) fn of(disk: &dyn Disk, fingerprint: Option<u64>) -> Result<Survey, OpenError> {
        let watermark = Mark::read(disk, MarkFile::Watermark)?;
        let marked = Mark::read(disk, MarkFile::Start)?;
        let start = marked.unwrap_or(1);
        let files = Files::find(disk, fingerprint)?;
        let highest = files.highest();
        let mut numbers = Vec::new();
        let mut next = files.whole.last_key_value().map(|(number, _)| *number);
        let mut to: Lsn = 0;
        while let Some(number) = next {
            let found = files.whole.get(&number).filter(|found| found.header.before.segment < number);
            let Some(found) = found else {
                if marked.is_none() && to > 0 && files.whole.range(..number).next().is_none() {
                    // It may have been trimmed.
                    let (file, first) = (MarkFile::Start.name().to_owned(), to.saturating_add(1));
                    let last = files.follow(disk, first, Lsn::MAX)?.last;
                    return Err(OpenError::Unmarked { file, first, last });
                }
                let from = files.follow(disk, start, to)?.last.saturating_add(1).min(to);
                return Err(OpenError::Damaged { file: format::segment_name(number), offset: 0, from, to });
            };
            to = found.header.before.last;
            next = (to >= start).then_some(found.header.before.segment);
            numbers.push(number);
        }
        let Files { mut whole, mut rest } = files;
        let mut segments: Vec<Found> = numbers.iter().filter_map(|number| whole.remove(number)).collect();
        segments.reverse();
        let newest = segments.last().map_or(0, |newest| newest.number);
        let unborn = rest.split_off(&newest);
        let leftovers = whole.into_keys().chain(rest).collect();
        Ok(Survey { segments, unborn, leftovers, watermark, start, highest })
    }

    /// Reads everything that must be there, telling of each segment first.
    pub(super) fn read(
        &self,
        disk: &dyn Disk,
        replay: &mut Replay<'_>,
        begin: &mut dyn FnMut(&Found),
    ) -> Result<Reading, OpenError> {
        if self.watermark.is_none() && !self.segments.is_empty() {
            let Reading { first, last, .. } = self.read_all(disk, &mut |_, _| Ok(()), &mut |_| {})?;
            let file = MarkFile::Watermark.name().to_owned();
            return Err(OpenError::Unmarked { file, first, last });
        }
        self.read_all(disk, replay, begin)
    }

    fn read_all(
        &self,
        disk: &dyn Disk,
        replay: &mut Replay<'_>,
        begin: &mut dyn FnMut(&Found),
    ) -> Result<Reading, OpenError> {
        let last = self.start.saturating_sub(1);
        let mut reading = Reading {
            first: self.start,
            last,
            bytes: 0,
            was_closed: false,
            segments: ClosedSegments::new(),
            before: Before { last, ..Before::default() },
            end: 0,
            doubt_from: 0,
        };
        if let Some(oldest) = self.segments.first() {
            reading.before = oldest.header.before;
            reading.last = reading.before.last;
            reading.first = reading.last.saturating_add(1);
        }
        let mut durable = self.watermark.unwrap_or(0);
        let mut previous: Option<&Found> = None;
        for found in &self.segments {
            if let Some(previous) = previous
                && found.header.before != reading.before
            {
                let (file, offset, to) = (previous.name.clone(), reading.end, found.header.before.last);
                let from = reading.last.saturating_add(1).min(to);
                return Err(OpenError::Damaged { file, offset, from, to });
            }
            begin(found);
            reading.segment(disk, found, &mut durable, replay)?;
            previous = Some(found);
        }
        self.check_end(disk, &reading, durable)?;
        Ok(reading)
    }

    /// Whether what the last segment ends with, and the files behind it, may be what a crash left. `durable` is what is
    /// known to have been durable otherwise.
    fn check_end(&self, disk: &dyn Disk, reading: &Reading, durable: Lsn) -> Result<(), OpenError> {
        let mut highest = durable;
        // The first place where something speaks of records that are not there.
        let mut place = None;
        let mut claim = |claimed: Option<Lsn>, file: &str, offset| {
            if claimed > Some(reading.last) {
                place.get_or_insert((file.to_owned(), offset));
            }
            highest = highest.max(claimed.unwrap_or(0));
        };
        let newest = self.segments.last();
        if let Some(newest) = newest {
            let file = newest.open(disk)?;
            let claimed = Reader::new(&*file, newest.number)?.claimed_behind(reading.end)?;
            claim(claimed, &newest.name, reading.end);
        }
        for number in &self.unborn {
            let name = format::segment_name(*number);
            let file = disk.open(&name)?;
            claim(Reader::new(&*file, *number)?.claimed_behind(0)?, &name, 0);
        }
        if highest <= reading.last {
            return Ok(());
        }
        let last = || newest.map_or(MarkFile::Watermark.name(), |newest| &newest.name).to_owned();
        let (file, offset) = place.unwrap_or_else(|| (last(), reading.end));
        Err(OpenError::Damaged { file, offset, from: reading.last.saturating_add(1), to: highest })
    }
}

impl Reading {
    /// Reads a segment up to where nothing is whole any more.
    fn segment(
        &mut self,
        disk: &dyn Disk,
        found: &Found,
        durable: &mut Lsn,
        replay: &mut Replay<'_>,
    ) -> Result<(), OpenError> {
        let file = found.open(disk)?;
        let mut walk = Walk::new(Reader::new(&*file, found.number)?, found.header)?;
        (self.was_closed, self.doubt_from) = (false, 0);
        while let Some(item) = walk.next()? {
            match item {
                Item::Record(lsn, record) => {
                    replay(lsn, record)?;
                    self.was_closed = false;
                    if lsn <= *durable {
                        self.doubt_from = walk.offset;
                    }
                }
                Item::Claim { durable: claimed, is_end } => {
                    *durable = claimed.max(*durable);
                    self.was_closed = is_end;
                }
            }
        }
        (self.last, self.end) = (walk.last, walk.offset);
        self.bytes = self.bytes.saturating_add(walk.offset);
        self.before = Before { segment: found.number, last: walk.last, chain: walk.chain };
        self.segments.push_back(Closed { number: found.number, last: walk.last, bytes: walk.offset });
        Ok(())
    }
}
