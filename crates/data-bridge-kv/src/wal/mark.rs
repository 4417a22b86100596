//! A file that holds one LSN, twice: a write that is cut short leaves the other one. The higher one counts.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use std::io::{self, ErrorKind};

use super::format::{self, MARK, MARK_OFFSETS, MarkFile};
use super::{Lsn, is_full};
use crate::disk::{Disk, File};
use crate::record;

/// The file, open.
pub(super) struct Mark {
    what: MarkFile,
    file: Box<dyn File>,
    /// Which of the two is written next.
    turn: usize,
}

impl Mark {
    /// The LSN in the file; `None` without a file, or with one in which nothing is whole.
    pub(super) fn read(disk: &dyn Disk, what: MarkFile) -> io::Result<Option<Lsn>> {
        let file = match disk.open(what.name()) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let size = file.size()?;
        let mut highest = None;
        for offset in MARK_OFFSETS {
            let mut bytes = [0; record::HEAD_BYTES];
            if offset.saturating_add(bytes.len() as u64) <= size {
                file.read_at(&mut bytes, offset)?;
            }
            let found = record::read(&bytes, what.position(offset));
            let lsn = found.filter(|record| record.head.kind == MARK).map(|record| record.head.number);
            highest = highest.max(lsn);
        }
        Ok(highest)
    }

    /// Makes the file anew, in place of the one that may be there, and lets it say this LSN, for good. Without space for
    /// that, the one that is there is written.
    pub(super) fn renew(disk: &dyn Disk, what: MarkFile, lsn: Lsn) -> io::Result<Mark> {
        let aside = format!("{}-new", what.name());
        let mark = match Mark::make(disk, what, &aside, lsn) {
            Err(error) if is_full(&error) => {
                let mut mark = Mark { what, file: disk.open(what.name())?, turn: 0 };
                mark.set_for_good(lsn)?;
                return Ok(mark);
            }
            made => made?,
        };
        disk.rename(&aside, what.name())?;
        disk.sync_names()?;
        Ok(mark)
    }

    fn make(disk: &dyn Disk, what: MarkFile, name: &str, lsn: Lsn) -> io::Result<Mark> {
        match disk.remove(name) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut mark = Mark { what, file: disk.create(name)?, turn: 0 };
        mark.set_for_good(lsn)?;
        Ok(mark)
    }

    /// Says this LSN from now on; a crash may take it back to the one before.
    pub(super) fn set(&mut self, lsn: Lsn) -> io::Result<()> {
        let offset = MARK_OFFSETS.get(self.turn).copied().unwrap_or(0);
        self.turn = usize::from(self.turn == 0);
        self.file.write_at(&format::mark(lsn, self.what.position(offset)), offset)
    }

    /// The same, for good.
    pub(super) fn set_for_good(&mut self, lsn: Lsn) -> io::Result<()> {
        self.set(lsn)?;
        self.set(lsn)?;
        self.file.sync_data()
    }
}
