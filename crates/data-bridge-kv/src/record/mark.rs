//! A file that holds one number which only grows, twice: a write that is cut short leaves the other one. The higher one
//! counts.
//!
//! ```text
//! file := mark at 0, mark at 4096
//! mark := record of kind 243, number = what the file says, at a segment that the file has for itself
//! ```
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use std::io::{self, ErrorKind};

use super::{HEAD_BYTES, Head, Position};
use crate::disk::{Disk, File, is_full};

const MARK: u8 = 243;
/// Where the marks of a file stand: never in one sector or page.
const MARK_OFFSETS: [u64; 2] = [0, 4096];

/// The files of marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkFile {
    /// How far the log is durable.
    Watermark,
    /// From which LSN on the log must be there.
    Start,
    /// From which number on the segments of the tier that lasts are needed.
    TierStart,
}

impl MarkFile {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            MarkFile::Watermark => "log-watermark",
            MarkFile::Start => "log-start",
            MarkFile::TierStart => "cold-task-start",
        }
    }

    /// Its name while it is made.
    pub fn aside_name(self) -> String {
        format!("{}-new", self.name())
    }

    /// Where one of its marks stands.
    fn position(self, offset: u64) -> Position {
        let segment = match self {
            MarkFile::Watermark => u64::MAX,
            MarkFile::Start => u64::MAX - 1,
            MarkFile::TierStart => u64::MAX - 2,
        };
        Position { segment, offset }
    }
}

/// A sealed mark.
fn mark(number: u64, at: Position) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES);
    super::begin(Head { number, generation: 0, namespace: 0, kind: MARK }, &mut bytes);
    super::finish(&mut bytes);
    super::seal(&mut bytes, at);
    bytes
}

/// The file, open.
pub struct Mark {
    what: MarkFile,
    file: Box<dyn File>,
    /// Which of the two is written next.
    turn: usize,
}

impl Mark {
    /// The number in the file; `None` without a file, or with one in which nothing is whole.
    pub fn read(disk: &dyn Disk, what: MarkFile) -> io::Result<Option<u64>> {
        let file = match disk.open(what.name()) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let size = file.size()?;
        let mut highest = None;
        for offset in MARK_OFFSETS {
            let mut bytes = [0; HEAD_BYTES];
            if offset.saturating_add(bytes.len() as u64) <= size {
                file.read_at(&mut bytes, offset)?;
            }
            let found = super::read(&bytes, what.position(offset)).filter(|record| record.head.kind == MARK);
            highest = highest.max(found.map(|record| record.head.number));
        }
        Ok(highest)
    }

    /// Makes the file anew, in place of the one that may be there, and lets it say this number, for good. Without space for
    /// that, the one that is there is written: its name is one that lasts.
    pub fn renew(disk: &dyn Disk, what: MarkFile, number: u64) -> io::Result<Mark> {
        match Mark::make(disk, what, number) {
            Err(error) if is_full(&error) => {
                let mut mark = Mark { what, file: disk.open(what.name())?, turn: 0 };
                mark.set_for_good(number)?;
                Ok(mark)
            }
            made => made?.take_place(disk),
        }
    }

    /// The same, but without space for it that is an error.
    pub fn anew(disk: &dyn Disk, what: MarkFile, number: u64) -> io::Result<Mark> {
        Mark::make(disk, what, number)?.take_place(disk)
    }

    /// Gives a file that was made aside its name.
    fn take_place(self, disk: &dyn Disk) -> io::Result<Mark> {
        disk.rename(&self.what.aside_name(), self.what.name())?;
        disk.sync_names()?;
        Ok(self)
    }

    fn make(disk: &dyn Disk, what: MarkFile, number: u64) -> io::Result<Mark> {
        let name = what.aside_name();
        match disk.remove(&name) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut mark = Mark { what, file: disk.create(&name)?, turn: 0 };
        mark.set_for_good(number)?;
        Ok(mark)
    }

    /// Says this number from now on; a crash may take it back to the one before.
    pub fn set(&mut self, number: u64) -> io::Result<()> {
        let offset = MARK_OFFSETS.get(self.turn).copied().unwrap_or(0);
        self.turn = usize::from(self.turn == 0);
        self.file.write_at(&mark(number, self.what.position(offset)), offset)
    }

    /// The same, for good.
    pub fn set_for_good(&mut self, number: u64) -> io::Result<()> {
        self.set(number)?;
        self.set(number)?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_golden() {
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mark = mark(9, MarkFile::Watermark.position(4096));
        assert_eq!(hex(mark), "00000000da66431f09000000000000000000000000f3");
    }
}
