//! Opening the log that is there: which segments belong to it, what in them survived, and where it ends.
//!
//! What was synced must be there, or the log is damaged and stays shut: up to the watermark, up to the LSN that any batch
//! claims to be durable, and in every segment but the last, as a segment is only begun once the one before is synced.
//! Behind that, a crash may have left anything. The log is cut at the first record that is not whole, and what stands
//! behind is kept aside: records that were whole there were never acknowledged, and the one before them is missing.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};

use super::format::{self, Before, HEADER_BYTES, Header, MarkFile};
use super::mark::Mark;
use super::reader::{Item, Reader, Walk};
use super::segment::{Closed, ClosedSegments};
use super::{Lsn, is_full};
use crate::disk::{Disk, File};
use crate::record::Record;

/// Files of cut off bytes that are kept; older ones go.
const KEPT_CUTS: usize = 8;
/// Written again or copied at a time.
const COPY_BYTES: usize = 1 << 20;

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
        why: String,
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

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The first LSN that is there, or the next one if none is.
    pub first: Lsn,
    /// The last LSN that is there; everything up to it is durable.
    pub last: Lsn,
    /// Bytes that were read.
    pub bytes: u64,
    /// Whether the log was closed in good order.
    pub was_closed: bool,
    /// What was cut off.
    pub cut: Option<Cut>,
}

/// An end that a crash left unfinished. Nothing in it was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The file.
    pub file: String,
    /// From where on.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// The file that has them now; `None` if there was no space for it.
    pub kept_in: Option<String>,
}

/// A segment with its header.
pub(super) struct Found {
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) file: Box<dyn File>,
    pub(super) header: Header,
}

/// The files of a log.
pub(super) struct Survey {
    /// The segments that must be there, oldest first.
    pub(super) segments: Vec<Found>,
    /// Files behind them that have no header, by number.
    pub(super) unborn: BTreeMap<u64, Box<dyn File>>,
    /// Segments that are not needed any more, and were being removed.
    pub(super) leftovers: Vec<u64>,
    pub(super) watermark: Option<Lsn>,
    pub(super) start: Lsn,
    /// The highest number of a segment.
    pub(super) highest: u64,
}

/// Looks at all files. `fingerprint` is the owner's, where that is known.
pub(super) fn survey(disk: &dyn Disk, fingerprint: Option<u64>) -> Result<Survey, OpenError> {
    let watermark = Mark::read(disk, MarkFile::Watermark)?;
    let start = Mark::read(disk, MarkFile::Start)?.unwrap_or(1);
    let (mut whole, mut rest) = (BTreeMap::new(), BTreeMap::new());
    for name in disk.list()? {
        let Some(number) = format::segment_number(&name) else { continue };
        let file = disk.open(&name)?;
        let foreign = |why| OpenError::Foreign { file: name.clone(), why };
        match Reader::new(&*file, number)?.header()?.map(format::read_header) {
            Some(Some(header)) if fingerprint.is_none_or(|ours| ours == header.fingerprint) => {
                whole.insert(number, Found { number, name, file, header });
            }
            Some(Some(_)) => return Err(foreign("belongs to another store")),
            Some(None) => return Err(foreign("has an unknown format")),
            None => drop(rest.insert(number, file)),
        }
    }
    let highest = whole.keys().chain(rest.keys()).copied().max().unwrap_or(0);
    let mut segments = Vec::new();
    let mut next = whole.last_key_value().map(|(number, _)| *number);
    while let Some(number) = next {
        let missing_to = segments.last().map_or(0, |after: &Found| after.header.before.last);
        let file = format::segment_name(number);
        let missing = OpenError::Damaged { file, offset: 0, from: start.min(missing_to), to: missing_to };
        let found = whole.remove(&number).ok_or(missing)?;
        let before = found.header.before;
        next = (before.last >= start).then_some(before.segment);
        segments.push(found);
    }
    segments.reverse();
    let newest = segments.last().map_or(0, |newest| newest.number);
    let unborn = rest.split_off(&newest);
    let leftovers = whole.into_keys().chain(rest.into_keys()).collect();
    Ok(Survey { segments, unborn, leftovers, watermark, start, highest })
}

/// The end of a log that was read.
pub(super) struct Reached {
    pub(super) recovered: Recovered,
    /// The segments, as they are now.
    pub(super) closed: ClosedSegments,
    /// What the next segment's header says.
    pub(super) before: Before,
    /// A segment without records, to be removed once the next one is there.
    pub(super) empty: Option<u64>,
}

/// What is known to have been durable, and by which file.
struct Known {
    durable: Lsn,
    /// Where in the last segment the first record stands that is not known to be durable.
    doubt_from: u64,
}

/// Reads everything, hands the records on, and cuts off what a crash left behind the end.
pub(super) fn recover(
    disk: &dyn Disk,
    survey: Survey,
    replay: &mut dyn FnMut(Lsn, Record<'_>) -> Result<(), OpenError>,
) -> Result<Reached, OpenError> {
    let Survey { segments, unborn, leftovers, watermark, start, .. } = survey;
    let mut recovered = Recovered { first: start, last: start.saturating_sub(1), ..Recovered::default() };
    let (mut closed, mut before) = (ClosedSegments::new(), Before::default());
    let mut known = Known { durable: watermark.unwrap_or(0), doubt_from: 0 };
    if let (None, Some(newest)) = (watermark, segments.last()) {
        let to = newest.header.before.last;
        return Err(OpenError::Damaged {
            file: MarkFile::Watermark.name().to_owned(),
            offset: 0,
            from: start,
            to,
        });
    }
    if let Some(oldest) = segments.first() {
        before = oldest.header.before;
        recovered.first = before.last.saturating_add(1);
        recovered.last = before.last;
    }
    let mut empty = None;
    for (index, found) in segments.iter().enumerate() {
        let mut walk = Walk::new(Reader::new(&*found.file, found.number)?, found.header)?;
        known.doubt_from = 0;
        recovered.was_closed = false;
        while let Some(item) = walk.next()? {
            match item {
                Item::Record(lsn, record) => {
                    replay(lsn, record)?;
                    recovered.was_closed = false;
                    if lsn <= known.durable {
                        known.doubt_from = walk.offset;
                    }
                }
                Item::Claim { durable, is_end } => {
                    known.durable = known.durable.max(durable);
                    recovered.was_closed = is_end;
                }
            }
        }
        recovered.last = walk.last;
        recovered.bytes = recovered.bytes.saturating_add(walk.offset);
        before = Before { segment: found.number, last: walk.last, chain: walk.chain };
        closed.push_back(Closed { number: found.number, last: walk.last, bytes: walk.offset });
        if let Some(after) = segments.get(index.saturating_add(1)) {
            let promised = after.header.before;
            if promised != before {
                let (file, offset) = (found.name.clone(), walk.offset);
                let from = walk.last.saturating_add(1).min(promised.last);
                return Err(OpenError::Damaged { file, offset, from, to: promised.last });
            }
        } else {
            check_end(&mut walk, &unborn, found, &mut known)?;
            let is_empty = walk.last == found.header.before.last;
            recovered.cut = end_segment(disk, walk, found, known.doubt_from)?;
            if is_empty {
                (empty, before) = (Some(found.number), found.header.before);
                closed.pop_back();
            }
        }
    }
    if segments.is_empty() {
        check_nothing(&unborn, known.durable, start)?;
        before.last = recovered.last;
    }
    for number in leftovers {
        disk.remove(&format::segment_name(number))?;
    }
    for (number, file) in unborn {
        let cut = put_aside(disk, number, &*file)?;
        recovered.cut = recovered.cut.or(cut);
    }
    forget_old_cuts(disk)?;
    disk.sync_names()?;
    Ok(Reached { recovered, closed, before, empty })
}

/// Whether what the last segment ends with, and the files behind it, may be what a crash left.
fn check_end(
    walk: &mut Walk<'_>,
    unborn: &BTreeMap<u64, Box<dyn File>>,
    found: &Found,
    known: &mut Known,
) -> Result<(), OpenError> {
    let claimed = walk.reader.claimed_behind(walk.offset)?;
    known.durable = known.durable.max(claimed.unwrap_or(0));
    let mut damaged = (found.name.clone(), walk.offset);
    for (number, file) in unborn {
        let claimed = Reader::new(&**file, *number)?.claimed_behind(0)?.unwrap_or(0);
        if claimed > known.durable && known.durable <= walk.last {
            damaged = (format::segment_name(*number), 0);
        }
        known.durable = known.durable.max(claimed);
    }
    if known.durable > walk.last {
        let (file, offset) = damaged;
        return Err(OpenError::Damaged {
            file,
            offset,
            from: walk.last.saturating_add(1),
            to: known.durable,
        });
    }
    Ok(())
}

/// A directory without a segment: whole if no LSN that is not trimmed was ever durable.
fn check_nothing(unborn: &BTreeMap<u64, Box<dyn File>>, watermark: Lsn, start: Lsn) -> Result<(), OpenError> {
    let mut durable = (watermark, MarkFile::Watermark.name().to_owned());
    for (number, file) in unborn {
        let claimed = Reader::new(&**file, *number)?.claimed_behind(0)?.unwrap_or(0);
        durable = durable.max((claimed, format::segment_name(*number)));
    }
    let (to, file) = durable;
    if to < start { Ok(()) } else { Err(OpenError::Damaged { file, offset: 0, from: start, to }) }
}

/// Makes the last segment end where the walk ended. What is not known to be durable is written again: it may stand in the
/// page cache only, after a sync that failed, and another sync would do nothing.
fn end_segment(
    disk: &dyn Disk,
    walk: Walk<'_>,
    found: &Found,
    doubt_from: u64,
) -> Result<Option<Cut>, OpenError> {
    let Walk { mut reader, offset: end, .. } = walk;
    let zeros = reader.zeros_from(end)?;
    let cut = if zeros > end {
        let name = format::cut_name(found.number, end);
        let kept_in = keep(disk, &mut reader, end, zeros, &name)?.then_some(name);
        Some(Cut { file: found.name.clone(), offset: end, bytes: zeros.saturating_sub(end), kept_in })
    } else {
        None
    };
    copy(&mut reader, doubt_from, end, |bytes, at| found.file.write_at(bytes, at))?;
    if reader.size > end {
        found.file.set_size(end)?;
    }
    found.file.sync_data()?;
    Ok(cut)
}

/// Hands out a range in parts.
fn copy(
    reader: &mut Reader<'_>,
    from: u64,
    to: u64,
    mut put: impl FnMut(&[u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let count = usize::try_from(to.saturating_sub(at)).map_or(COPY_BYTES, |left| left.min(COPY_BYTES));
        put(reader.bytes(at, count)?, at)?;
        at = at.saturating_add(count as u64);
    }
    Ok(())
}

/// Copies a range into a file of its own; whether there was space for it.
fn keep(disk: &dyn Disk, reader: &mut Reader<'_>, from: u64, to: u64, name: &str) -> io::Result<bool> {
    let kept = || {
        match disk.remove(name) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(name)?;
        copy(reader, from, to, |bytes, at| file.write_at(bytes, at.saturating_sub(from)))?;
        file.sync_data()?;
        disk.sync_names()
    };
    match { kept }() {
        Ok(()) => Ok(true),
        Err(error) if is_full(&error) => {
            disk.remove(name)?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Removes a file that never became a segment; keeps it under another name if something stands in it.
fn put_aside(disk: &dyn Disk, number: u64, file: &dyn File) -> io::Result<Option<Cut>> {
    let name = format::segment_name(number);
    let bytes = Reader::new(file, number)?.zeros_from(0)?;
    if bytes == 0 {
        disk.remove(&name)?;
        return Ok(None);
    }
    let kept_in = format::cut_name(number, 0);
    disk.rename(&name, &kept_in)?;
    Ok(Some(Cut { file: name, offset: 0, bytes, kept_in: Some(kept_in) }))
}

fn forget_old_cuts(disk: &dyn Disk) -> io::Result<()> {
    let mut cuts: Vec<String> = disk.list()?.into_iter().filter(|name| format::is_cut_name(name)).collect();
    cuts.truncate(cuts.len().saturating_sub(KEPT_CUTS));
    cuts.iter().try_for_each(|name| disk.remove(name))
}

const _: () = assert!(HEADER_BYTES < 512);
