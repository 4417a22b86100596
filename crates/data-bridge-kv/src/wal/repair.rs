//! Giving up the end of a damaged log, when somebody says so: everything behind one LSN, and nothing else.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use std::io::{self, ErrorKind};

use super::Lsn;
use super::reader::Reader;
use super::recovery::{Cut, keep_behind, put_aside};
use super::survey::{Files, Followed, OpenError};
use crate::disk::Disk;
use crate::record::{Mark, MarkFile};

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// The last LSN that is left.
    pub last: Lsn,
    /// What was taken out of the log, and where it is now.
    pub cuts: Vec<Cut>,
}

/// Lets the log end with this LSN. What is behind is kept aside in files, for whoever wants to look. Refused if some record
/// up to there can't be read: then the error says which.
pub fn repair(disk: &dyn Disk, accept_loss_after: Lsn) -> Result<Repaired, OpenError> {
    let files = Files::find(disk, None)?;
    let oldest = files.whole.values().next();
    let start = match Mark::read(disk, MarkFile::Start)? {
        Some(start) => start,
        None => oldest.map_or(1, |oldest| oldest.header.before.last.saturating_add(1)),
    };
    if accept_loss_after < start.saturating_sub(1) {
        let why = format!("the log begins with record {start}: what was before it can't be given up here");
        return Err(OpenError::Disk(io::Error::new(ErrorKind::InvalidInput, why)));
    }
    let reached = files.follow(disk, start, accept_loss_after)?;
    if reached.last < accept_loss_after {
        let Followed { file, offset, last, .. } = reached;
        let from = last.saturating_add(1);
        return Err(OpenError::Damaged { file, offset, from, to: accept_loss_after });
    }
    let end = reached.found;
    let mut cuts = Vec::new();
    if let Some(found) = end {
        let file = found.open(disk)?;
        let mut reader = Reader::new(&*file, found.number)?;
        let cut = keep_behind(disk, &mut reader, found, reached.offset)?;
        if cut.as_ref().is_some_and(|cut| cut.kept_in.is_none()) {
            return Err(OpenError::Disk(ErrorKind::StorageFull.into()));
        }
        cuts.extend(cut);
    }
    let kept = end.map_or(0, |found| found.number);
    // From behind, so that whatever is left after a crash in between is found damaged again.
    for number in files.whole.keys().rev().filter(|number| **number > kept) {
        cuts.extend(put_aside(disk, *number)?);
    }
    for number in files.rest.iter().rev().filter(|number| **number > kept) {
        cuts.extend(put_aside(disk, *number)?);
    }
    disk.sync_names()?;
    if let Some(found) = end {
        let file = found.open(disk)?;
        file.set_size(reached.offset)?;
        file.sync_data()?;
    }
    Mark::renew(disk, MarkFile::Start, start)?;
    Mark::renew(disk, MarkFile::Watermark, accept_loss_after)?;
    Ok(Repaired { last: accept_loss_after, cuts })
}
