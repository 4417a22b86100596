//! Reading every byte of the segments in a directory, to say what is in them and what is wrong. Changes nothing.

use super::format::{self, Class, HEADER, HEADER_BYTES, KeyState};
use super::reader::{self, Found, Keys, ReadError};
use super::segment::Segment;
use crate::disk::Disk;
use crate::record::{self, Position};

/// What was found in one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The file.
    pub file: String,
    /// Its bytes.
    pub bytes: u64,
    /// Entries whose checksums hold.
    pub entries: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Where entries stand that are damaged.
    pub damaged_entries: Vec<u64>,
    /// Where something stands that is no batch: the end that a crash cut off, or damage.
    pub unknown_from: Option<u64>,
    /// Whether the file is no segment of this version.
    pub is_foreign: bool,
}

impl Verified {
    /// Whether everything is as it was written, but perhaps for an end that was not finished.
    pub fn is_whole(&self) -> bool {
        self.damaged_entries.is_empty() && !self.is_foreign
    }
}

/// Reads all segments of both classes, telling of each when it is read.
pub fn verify(disk: &dyn Disk, mut tell: impl FnMut(Verified)) -> Result<(), ReadError> {
    for name in disk.list()? {
        let of = |class: Class| Some((class, class.segment_id(&name)?));
        if let Some((class, id)) = of(Class::Cache).or_else(|| of(Class::Task)) {
            tell(segment(disk, &name, class, id)?);
        }
    }
    Ok(())
}

fn segment(disk: &dyn Disk, name: &str, class: Class, id: u64) -> Result<Verified, ReadError> {
    let file = disk.open(name)?;
    let size = file.size()?;
    let mut found = Verified { file: name.to_owned(), bytes: size, ..Verified::default() };
    let mut header = [0; HEADER_BYTES];
    if size >= HEADER_BYTES as u64 {
        file.read_at(&mut header, 0)?;
    }
    let header = record::read(&header, Position { segment: id, offset: 0 });
    let is_ours = header.filter(|header| header.head.kind == HEADER);
    if is_ours.is_none_or(|header| format::check_header(header.payload, class, None).is_err()) {
        found.is_foreign = true;
        return Ok(found);
    }
    let segment = Segment::new(id, 0, file, size);
    let mut offset = HEADER_BYTES as u64;
    loop {
        match reader::batch_at(&segment, offset, size)? {
            Found::Batch(keys) => {
                offset = keys.end;
                batch(&segment, &keys, &mut found)?;
            }
            Found::End => return Ok(found),
            Found::Damage => {
                found.unknown_from = Some(offset);
                return Ok(found);
            }
        }
    }
}

fn batch(segment: &Segment, keys: &Keys, found: &mut Verified) -> Result<(), ReadError> {
    let bytes = reader::entries_of(segment, keys)?;
    for (line, at) in keys.lines(segment.slot).ok_or(ReadError::Damaged)? {
        let (KeyState::Entry { .. }, Some(at)) = (line.what, at) else {
            found.tombstones = found.tombstones.saturating_add(1);
            continue;
        };
        let offset = u64::from(at.offset);
        let start = usize::try_from(offset.saturating_sub(keys.entries_at)).unwrap_or(usize::MAX);
        let position = Position { segment: segment.id, offset };
        let entry = reader::entry_at(bytes.get(start..).unwrap_or_default(), position);
        match entry.filter(|entry| entry.front.version == line.version) {
            Some(_) => found.entries = found.entries.saturating_add(1),
            None => found.damaged_entries.push(offset),
        }
    }
    Ok(())
}
