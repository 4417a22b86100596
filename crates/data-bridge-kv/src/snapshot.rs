//! A snapshot: the task namespaces of a directory as they were at one record of the log, in a directory of its own. It has no
//! format of its own: it is the files of the store (manifest, log, segments and index of the cold tier) and one more, the
//! contents, which names them with their lengths and checksums. So opening it, after a restore, is opening a store.
//!
//! ```text
//! contents := record of kind 1 at segment 0, offset 0, number = LSN (see `record`), in the file `snapshot`:
//!             magic "DBKVSNAP", format u16, made at u64 (unix ms), files u32,
//!             for each: name counted by a varint, bytes u64, CRC32C u32
//! ```
//! Contents are written last: a copy without them was not finished. In a copy that could not be changed once it was written
//! the log may go on behind that record; restoring ends it there.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use data_bridge_kv_model::codec::put_counted;
use data_bridge_kv_model::{Error, ErrorKind, Reader, Result};

use crate::cold::Class;
use crate::disk::{Disk, File};
use crate::manifest::{self, Manifest, ManifestError};
use crate::record::{self, Head, Position};
use crate::wal::{self, Lsn};

/// The file of the contents.
pub const NAME: &str = "snapshot";
const MAGIC: &[u8; 8] = b"DBKVSNAP";
const FORMAT: u16 = 1;
const KIND: u8 = 1;
const AT: Position = Position { segment: 0, offset: 0 };
/// Copied at a time.
const COPY_BYTES: usize = 1 << 20;
/// Bytes of a copy between two syncs: what is written in one go keeps the disk from syncing the log.
const SYNC_BYTES: u64 = 4 << 20;
/// Longest contents: a million files.
const CONTENTS_BYTES: u64 = 64 << 20;

/// Is told how many bytes are done, and of how many.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// What a snapshot has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// It is the state at this record of the log.
    pub lsn: Lsn,
    /// When it was made, unix ms.
    pub made_ms: u64,
    files: Vec<Copied>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Copied {
    name: String,
    bytes: u64,
    checksum: u32,
}

impl Snapshot {
    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// How many files.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Reads the contents of a snapshot.
    ///
    /// # Errors
    /// `NotFound` where there is none, or one that was not finished; `Corruption`.
    pub fn read(disk: &dyn Disk) -> Result<Snapshot> {
        let file = disk.open(NAME).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::new(ErrorKind::NotFound, "no snapshot, or one that was not finished")
            }
            _ => failed(&error),
        })?;
        let damaged = || Error::new(ErrorKind::Corruption, "the contents of the snapshot are damaged");
        let size = file.size().map_err(|error| failed(&error))?;
        let size = usize::try_from(size).ok().filter(|_| size <= CONTENTS_BYTES).ok_or_else(damaged)?;
        let mut bytes = vec![0; size];
        file.read_at(&mut bytes, 0).map_err(|error| failed(&error))?;
        let record =
            record::read(&bytes, AT).filter(|record| record.head.kind == KIND).ok_or_else(damaged)?;
        let known = |payload: &'_ [u8]| {
            payload.strip_prefix(MAGIC)?.strip_prefix(&FORMAT.to_le_bytes()).map(<[u8]>::to_vec)
        };
        let rest = known(record.payload).ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, format!("the snapshot {}", record::UNKNOWN_FORMAT))
        })?;
        Snapshot::decode(record.head.number, &rest).ok_or_else(damaged)
    }

    fn decode(lsn: Lsn, bytes: &[u8]) -> Option<Snapshot> {
        let mut reader = Reader::new(bytes);
        let made_ms = reader.i64().ok()?.cast_unsigned();
        let count = reader.i32().ok()?.cast_unsigned();
        let mut file = || {
            let name = String::from_utf8(reader.counted().ok()?.to_vec()).ok()?;
            let (bytes, checksum) = (reader.i64().ok()?.cast_unsigned(), reader.i32().ok()?.cast_unsigned());
            Some(Copied { name, bytes, checksum })
        };
        let files = (0..count).map(|_| file()).collect::<Option<_>>()?;
        Some(Snapshot { lsn, made_ms, files })
    }

    fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        let mut bytes = Vec::new();
        record::begin(Head { number: self.lsn, generation: 0, namespace: 0, kind: KIND }, &mut bytes);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.made_ms.to_le_bytes());
        let count = u32::try_from(self.files.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        bytes.extend_from_slice(&count.to_le_bytes());
        for file in &self.files {
            put_counted(file.name.as_bytes(), &mut bytes);
            bytes.extend_from_slice(&file.bytes.to_le_bytes());
            bytes.extend_from_slice(&file.checksum.to_le_bytes());
        }
        record::finish(&mut bytes).ok_or(io::ErrorKind::InvalidInput)?;
        record::seal(&mut bytes, AT);
        let file = disk.create(NAME)?;
        file.write_at(&bytes, 0)?;
        file.sync_data()?;
        disk.sync_names()
    }

    /// Reads every byte of a snapshot, and compares.
    ///
    /// # Errors
    /// `Corruption` names the first file that is not as it was made.
    pub fn verify(disk: &dyn Disk, progress: Progress<'_>) -> Result<Snapshot> {
        let snapshot = Snapshot::read(disk)?;
        let mut done = 0;
        for file in &snapshot.files {
            let found = file.open(disk)?;
            let mut tell = |bytes: u64| progress(bytes.saturating_add(done), snapshot.bytes());
            file.check(&*found, None, &mut tell)?;
            done = done.saturating_add(file.bytes);
        }
        Ok(snapshot)
    }

    /// Copies a snapshot into an empty directory, and compares on the way. The directory is then opened as any other, and counts
    /// its versions on from above those that the store may have given until now, unix ms. After an error it is empty again.
    ///
    /// # Errors
    /// `InvalidArgument` if the directory is not empty; `Unavailable` for lack of space; `Corruption`.
    pub fn restore(from: &dyn Disk, to: &dyn Disk, now_ms: u64, progress: Progress<'_>) -> Result<Snapshot> {
        let snapshot = Snapshot::read(from)?;
        check_empty(to, snapshot.bytes())?;
        snapshot.copy_back(from, to, now_ms, progress).inspect_err(|_| {
            for name in to.list().unwrap_or_default() {
                // What stays is seen by whoever looks: a part of a snapshot is never opened.
                let _ = to.remove(&name);
            }
        })?;
        Ok(snapshot)
    }

    fn copy_back(&self, from: &dyn Disk, to: &dyn Disk, now_ms: u64, progress: Progress<'_>) -> Result<()> {
        let mut done = 0;
        let (manifest, others): (Vec<_>, Vec<_>) =
            self.files.iter().partition(|file| file.name == manifest::NAME);
        let mut read = |file: &Copied, made: Option<&dyn File>| -> Result<()> {
            let found = file.open(from)?;
            let mut tell = |bytes: u64| progress(bytes.saturating_add(done), self.bytes());
            file.check(&*found, made, &mut tell)?;
            done = done.saturating_add(file.bytes);
            Ok(())
        };
        for file in others {
            let made = to.create(&file.name).map_err(|error| failed(&error))?;
            read(file, Some(&*made))?;
            made.sync_data().map_err(|error| failed(&error))?;
        }
        end_log(to, self.lsn).map_err(|error| failed(&error))?;
        // The manifest last: a directory without one is refused.
        for file in manifest {
            read(file, None)?;
            let elapsed_ms = now_ms.saturating_sub(self.made_ms);
            let manifest = Manifest::read(from).map_err(|error| match error {
                ManifestError::Disk(error) => failed(&error),
                error => Error::new(ErrorKind::Corruption, format!("the snapshot: {error}")),
            })?;
            let next = manifest.map(|manifest| manifest.after(elapsed_ms));
            next.map_or(Ok(()), |next| next.write(to)).map_err(|error| failed(&error))?;
        }
        to.sync_names().map_err(|error| failed(&error))
    }
}

impl Copied {
    fn open(&self, disk: &dyn Disk) -> Result<Box<dyn File>> {
        disk.open(&self.name).map_err(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                return failed(&error);
            }
            let message = format!("the file {} of the snapshot is missing", self.name);
            Error::new(ErrorKind::Corruption, message)
        })
    }

    /// Reads a file, which may be copied on the way; an error unless it is as it was made.
    fn check(&self, found: &dyn File, to: Option<&dyn File>, tell: &mut dyn FnMut(u64)) -> Result<()> {
        let is_whole = found.size().map_err(|error| failed(&error))? == self.bytes;
        let mut tell = |done| {
            tell(done);
            Ok(())
        };
        let checksum = is_whole.then(|| copy(found, to, self.bytes, &mut tell)).transpose();
        if checksum.map_err(|error| failed(&error))? != Some(self.checksum) {
            let message = format!("the file {} of the snapshot is damaged", self.name);
            return Err(Error::new(ErrorKind::Corruption, message));
        }
        Ok(())
    }
}

/// The files of a directory that a snapshot needs, held open: they can be read even if they are removed meanwhile.
pub struct Captured {
    files: Vec<(String, Arc<dyn File>, u64)>,
    /// Files that are written over, as they were.
    marks: Vec<(String, Vec<u8>)>,
}

impl Captured {
    /// Opens them, but for those that are `open` already: a large tier has many. Nobody may write to that meanwhile; the log
    /// may be written, trimmed too.
    pub fn open(disk: &dyn Disk, open: Vec<(String, Arc<dyn File>)>) -> io::Result<Captured> {
        let open: BTreeMap<String, Arc<dyn File>> = open.into_iter().collect();
        let mut marks = read_marks(disk)?;
        loop {
            let mut files = Vec::new();
            let mut is_whole = true;
            for name in disk.list()?.into_iter().filter(|name| is_needed(name)) {
                let found = open.get(&name).map(|file| Ok(Arc::clone(file)));
                match found.unwrap_or_else(|| disk.open(&name).map(Arc::from)) {
                    Ok(file) => {
                        let size = file.size()?;
                        files.push((name, file, size));
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => is_whole = false,
                    Err(error) => return Err(error),
                }
            }
            // A trim moves the start before it removes: with the same start nothing that is needed has gone.
            let later = read_marks(disk)?;
            let start =
                |marks: &[(String, Vec<u8>)]| marks.iter().find(|(name, _)| wal::is_start(name)).cloned();
            if is_whole && start(&marks) == start(&later) {
                return Ok(Captured { files, marks });
            }
            marks = later;
        }
    }

    /// Copies them to an empty directory, as they were at this record, which is durable and not older than what the cold
    /// tier has.
    pub fn copy_to(self, to: &dyn Disk, lsn: Lsn, made_ms: u64, progress: Progress<'_>) -> Result<Snapshot> {
        let total: u64 = self.files.iter().map(|(.., bytes)| *bytes).sum();
        check_empty(to, total)?;
        let files = self.copy(to, lsn, total, progress).map_err(|error| failed(&error))?;
        let snapshot = Snapshot { lsn, made_ms, files };
        snapshot.write(to).map_err(|error| failed(&error))?;
        Ok(snapshot)
    }

    fn copy(self, to: &dyn Disk, lsn: Lsn, total: u64, progress: Progress<'_>) -> io::Result<Vec<Copied>> {
        if to.writes_once() {
            return self.send(to, total, progress);
        }
        for (name, bytes) in &self.marks {
            let file = to.create(name)?;
            file.write_at(bytes, 0)?;
            file.sync_data()?;
        }
        let mut done = 0_u64;
        for (name, file, bytes) in &self.files {
            let made = to.create(name)?;
            let mut unsynced = 0;
            copy(&**file, Some(&*made), *bytes, &mut |part| {
                progress(done.saturating_add(part), total);
                unsynced = part.checked_rem(SYNC_BYTES).unwrap_or(0);
                if unsynced == 0 { made.sync_data() } else { Ok(()) }
            })?;
            if unsynced > 0 {
                made.sync_data()?;
            }
            done = done.saturating_add(*bytes);
        }
        end_log(to, lsn)?;
        let mut files = Vec::new();
        for name in to.list()? {
            let file = to.open(&name)?;
            let bytes = file.size()?;
            files.push(Copied { checksum: copy(&*file, None, bytes, &mut |_| Ok(()))?, name, bytes });
        }
        Ok(files)
    }

    /// Copies the files as they are now to where they can't be changed later: the log may go on behind the record, until it is
    /// restored.
    fn send(self, to: &dyn Disk, total: u64, progress: Progress<'_>) -> io::Result<Vec<Copied>> {
        let mut files = Vec::new();
        for (name, bytes) in self.marks {
            let file = to.create(&name)?;
            file.write_at(&bytes, 0)?;
            file.sync_data()?;
            files.push(Copied { name, bytes: bytes.len() as u64, checksum: crc32c::crc32c(&bytes) });
        }
        let mut done = 0_u64;
        for (name, file, bytes) in self.files {
            if wal::is_segment(&name) && is_unused(&*file, bytes)? {
                continue;
            }
            let made = to.create(&name)?;
            let checksum = copy(&*file, Some(&*made), bytes, &mut |part| {
                progress(done.saturating_add(part), total);
                Ok(())
            })?;
            made.sync_data()?;
            done = done.saturating_add(bytes);
            files.push(Copied { name, bytes, checksum });
        }
        Ok(files)
    }
}

/// Whether a segment of the log, zeroed ahead, has no header yet.
fn is_unused(file: &dyn File, bytes: u64) -> io::Result<bool> {
    let mut head = [0; record::HEAD_BYTES];
    if bytes >= head.len() as u64 {
        file.read_at(&mut head, 0)?;
    }
    Ok(head.iter().all(|byte| *byte == 0))
}

/// Lets the log of a copy end with this record.
fn end_log(disk: &dyn Disk, lsn: Lsn) -> io::Result<()> {
    if lsn > 0 {
        wal::repair(disk, lsn).map_err(|error| io::Error::other(error.to_string()))?;
    }
    for name in disk.list()?.into_iter().filter(|name| wal::is_cut(name)) {
        disk.remove(&name)?;
    }
    Ok(())
}

/// Whether a file belongs into a snapshot, marks apart.
fn is_needed(name: &str) -> bool {
    name == manifest::NAME || wal::is_segment(name) || Class::Task.owns(name)
}

fn read_marks(disk: &dyn Disk) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut marks = Vec::new();
    for name in disk.list()?.into_iter().filter(|name| wal::is_mark(name)) {
        let file = disk.open(&name)?;
        let mut bytes = vec![0; usize::try_from(file.size()?).map_err(|_| io::ErrorKind::InvalidData)?];
        file.read_at(&mut bytes, 0)?;
        marks.push((name, bytes));
    }
    Ok(marks)
}

/// Reads so many bytes, writes them if there is where to, and answers their checksum. After each part it tells how many are done.
fn copy(
    from: &dyn File,
    to: Option<&dyn File>,
    bytes: u64,
    tell: &mut dyn FnMut(u64) -> io::Result<()>,
) -> io::Result<u32> {
    let mut buffer = vec![0; COPY_BYTES];
    let (mut done, mut checksum) = (0_u64, 0);
    while done < bytes {
        let left = usize::try_from(bytes.saturating_sub(done)).unwrap_or(COPY_BYTES);
        let part = buffer.get_mut(..left.min(COPY_BYTES)).unwrap_or_default();
        from.read_at(part, done)?;
        checksum = crc32c::crc32c_append(checksum, part);
        if let Some(to) = to {
            to.write_at(part, done)?;
        }
        done = done.saturating_add(part.len() as u64);
        tell(done)?;
    }
    Ok(checksum)
}

fn check_empty(disk: &dyn Disk, needed: u64) -> Result<()> {
    if !disk.list().map_err(|error| failed(&error))?.is_empty() {
        return Err(Error::invalid("the destination is not empty"));
    }
    let free = disk.free_bytes().map_err(|error| failed(&error))?;
    if free < needed {
        let message = format!("the destination has {free} bytes free, {needed} are needed");
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    Ok(())
}

fn failed(error: &io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the snapshot: {error}"))
}
