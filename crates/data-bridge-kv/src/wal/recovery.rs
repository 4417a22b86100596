//! Opening the log that is there: what survived, and where it ends.
//!
//! Behind what must be there (see `survey.rs`), a crash may have left anything. The log is cut at the first record that is
//! not whole, and what stands behind is kept aside: records that were whole there were never acknowledged, and the one
//! before them is missing. It goes on in a new segment.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use std::io::{self, ErrorKind};

use super::Lsn;
use super::format::{self, Before};
use super::reader::Reader;
use super::segment::ClosedSegments;
use super::survey::{Found, OpenError, Reading, Replay, Survey};
use crate::disk::{Disk, is_full};

/// Files of cut off bytes that are kept; older ones go.
const KEPT_CUTS: usize = 8;
/// Written again or copied at a time.
const COPY_BYTES: usize = 1 << 20;

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

/// The end of a log that was read.
pub(super) struct Reached {
    pub(super) recovered: Recovered,
    /// The segments, as they are now.
    pub(super) closed: ClosedSegments,
    /// What the next segment's header says.
    pub(super) before: Before,
    /// A segment without records, to be removed once the next one is there.
    pub(super) empty: Option<u64>,
    /// Segments below the start, to be removed once that is known to last.
    pub(super) leftovers: Vec<u64>,
}

/// Reads everything, hands the records on, and cuts off what a crash left behind the end, once `finish` has agreed.
pub(super) fn recover(
    disk: &dyn Disk,
    survey: Survey,
    replay: &mut Replay<'_>,
    finish: &mut dyn FnMut() -> Result<(), OpenError>,
) -> Result<Reached, OpenError> {
    let reading = survey.read(disk, replay, &mut |_| {})?;
    finish()?;
    let mut recovered = Recovered {
        first: reading.first,
        last: reading.last,
        bytes: reading.bytes,
        was_closed: reading.was_closed,
        cut: None,
    };
    let mut empty = None;
    if let Some(newest) = survey.segments.last() {
        recovered.cut = end_segment(disk, newest, &reading)?;
        empty = (reading.last == newest.header.before.last).then_some(newest);
    }
    let Reading { segments: mut closed, mut before, .. } = reading;
    if let Some(empty) = empty {
        before = empty.header.before;
        closed.pop_back();
    }
    let empty = empty.map(|empty| empty.number);
    for number in survey.unborn {
        let cut = put_aside(disk, number)?;
        recovered.cut = recovered.cut.or(cut);
    }
    forget_old_cuts(disk)?;
    disk.sync_names()?;
    Ok(Reached { recovered, closed, before, empty, leftovers: survey.leftovers })
}

/// Makes the last segment end where nothing is whole any more. What is not known to be durable is written again: it may
/// stand in the page cache only, after a sync that failed, and another sync would do nothing.
fn end_segment(disk: &dyn Disk, newest: &Found, reading: &Reading) -> io::Result<Option<Cut>> {
    let file = newest.open(disk)?;
    let mut reader = Reader::new(&*file, newest.number)?;
    let cut = keep_behind(disk, &mut reader, newest, reading.end)?;
    copy(&mut reader, reading.doubt_from, reading.end, |bytes, at| file.write_at(bytes, at))?;
    if reader.size > reading.end {
        file.set_size(reading.end)?;
    }
    file.sync_data()?;
    Ok(cut)
}

/// Keeps what stands in a segment from an offset on in a file of its own.
pub(super) fn keep_behind(
    disk: &dyn Disk,
    reader: &mut Reader<'_>,
    found: &Found,
    offset: u64,
) -> io::Result<Option<Cut>> {
    let zeros = reader.zeros_from(offset)?;
    if zeros <= offset {
        return Ok(None);
    }
    let name = format::cut_name(found.number, offset);
    let kept_in = keep(disk, reader, offset, zeros, &name)?.then_some(name);
    Ok(Some(Cut { file: found.name.clone(), offset, bytes: zeros.saturating_sub(offset), kept_in }))
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
pub(super) fn put_aside(disk: &dyn Disk, number: u64) -> io::Result<Option<Cut>> {
    let name = format::segment_name(number);
    let file = disk.open(&name)?;
    let bytes = Reader::new(&*file, number)?.zeros_from(0)?;
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
