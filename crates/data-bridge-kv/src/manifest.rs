//! What a data directory says of itself, in the file `manifest`: under which secret and in how many shards its keys are
//! placed, what versions are counted from, and which namespaces are kept.
//!
//! ```text
//! file := manifest at 0, manifest at 8192
//! manifest := record of kind 1 at segment 0, offset as in the file (see `record`): magic "DBKVMANI", format u16, base of
//! versions u64, sequence ceiling u64, seed u64, shard bits u8, namespaces u8, for each: number u8, name counted by a varint
//! ```
//! It is written aside, synced and renamed, so that either the old or the new one is there, whole. Where the disk has no space
//! for that, the two copies in the file are written one after the other: the one with the higher ceiling counts.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use std::fmt;
use std::io;

use data_bridge_kv_model::Reader;
use data_bridge_kv_model::codec::put_counted;
use data_bridge_kv_model::limits::{NAME_BYTES, NAMESPACES};

use crate::disk::{Disk, is_full};
use crate::record::{self, Head, Position};

/// The file.
pub const NAME: &str = "manifest";
const ASIDE: &str = "manifest.new";
const MAGIC: &[u8; 8] = b"DBKVMANI";
const FORMAT: u16 = 1;
const KIND: u8 = 1;
/// Where the copies stand: never in one sector or page.
const COPIES: [Position; 2] = [Position { segment: 0, offset: 0 }, Position { segment: 0, offset: 8192 }];

/// The longest fits in front of the second copy.
const _: () = assert!(NAMESPACES * (NAME_BYTES + 3) + record::HEAD_BYTES + 64 <= 8192);

/// Sequence numbers that an opening may use before the ceiling is raised again. 20 bits of openings have 24 each.
pub const SEQUENCES: u64 = 1 << 24;

/// The largest of them: versions keep 44 bits.
const MAX_SEQUENCE: u64 = (1 << 44) - 1;
/// So many openings a restored copy leaves out, and one more for each so many ms since it was made.
const LEFT_OUT: u64 = 64;
const LEFT_OUT_MS: u64 = 60_000;

/// The manifest of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What versions are counted from, for ever.
    pub base: u64,
    /// No shard has given a sequence number above this. Raised, and on disk, before one does.
    pub ceiling: u64,
    /// What the secret of the stable hash grows from.
    pub seed: u64,
    /// A namespace has two to the power of this many shards.
    pub shard_bits: u8,
    /// The task namespaces that were kept here: number and name.
    pub tasks: Vec<(u8, String)>,
}

/// Why a manifest can't be read.
#[derive(Debug)]
pub enum ManifestError {
    /// The disk says no.
    Disk(io::Error),
    /// It is not what was written.
    Damaged,
    /// It has a format that this version does not know.
    Foreign,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestError::Disk(error) => write!(f, "{error}"),
            ManifestError::Damaged => write!(f, "{NAME} is damaged: restore the directory from a backup"),
            ManifestError::Foreign => write!(f, "{NAME} {}", record::UNKNOWN_FORMAT),
        }
    }
}

impl Manifest {
    /// Reads the manifest of a directory; `None` where there is none.
    pub fn read(disk: &dyn Disk) -> Result<Option<Manifest>, ManifestError> {
        Ok(Manifest::verify(disk)?.map(|(manifest, _)| manifest))
    }

    /// The same, and where copies of it stand that are damaged, although one is whole.
    pub fn verify(disk: &dyn Disk) -> Result<Option<(Manifest, Vec<u64>)>, ManifestError> {
        let file = match disk.open(NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ManifestError::Disk(error)),
        };
        let size = file.size().map_err(ManifestError::Disk)?;
        // Sixteen names and a few numbers: more is no manifest.
        let size = usize::try_from(size).ok().filter(|_| size <= 1 << 16).ok_or(ManifestError::Damaged)?;
        let mut bytes = vec![0; size];
        file.read_at(&mut bytes, 0).map_err(ManifestError::Disk)?;
        let (mut newest, mut damaged): (Option<Manifest>, Vec<u64>) = (None, Vec::new());
        for at in COPIES {
            let copy = usize::try_from(at.offset).ok().and_then(|offset| bytes.get(offset..));
            let found =
                copy.and_then(|copy| record::read(copy, at)).filter(|record| record.head.kind == KIND);
            let Some(found) = found else {
                damaged.push(at.offset);
                continue;
            };
            let rest = found.payload.strip_prefix(MAGIC).ok_or(ManifestError::Foreign)?;
            let rest = rest.strip_prefix(&FORMAT.to_le_bytes()).ok_or(ManifestError::Foreign)?;
            let found = Manifest::decode(rest).ok_or(ManifestError::Damaged)?;
            if newest.as_ref().is_none_or(|newest| newest.ceiling < found.ceiling) {
                newest = Some(found);
            }
        }
        newest.map(|newest| Some((newest, damaged))).ok_or(ManifestError::Damaged)
    }

    fn decode(bytes: &[u8]) -> Option<Manifest> {
        let mut reader = Reader::new(bytes);
        let mut number = || reader.i64().map(i64::cast_unsigned).ok();
        let (base, ceiling, seed) = (number()?, number()?, number()?);
        let shard_bits = reader.byte().ok()?;
        let count = reader.byte().ok()?;
        let mut task = || {
            let number = reader.byte().ok()?;
            Some((number, String::from_utf8(reader.counted().ok()?.to_vec()).ok()?))
        };
        let tasks = (0..count).map(|_| task()).collect::<Option<_>>()?;
        Some(Manifest { base, ceiling, seed, shard_bits, tasks })
    }

    /// The manifest of a copy that was made so long ago, to go on with: its numbers begin above those that the store may
    /// have given since, and elsewhere each time that the copy is restored, so that whoever knows a version of the store, or
    /// of a copy that was given up, does not find it again for another state. It takes a quarter of what is left at most.
    pub fn after(self, elapsed_ms: u64) -> Manifest {
        let most = MAX_SEQUENCE.saturating_sub(self.ceiling) / 8;
        let openings = elapsed_ms.saturating_mul(SEQUENCES) / LEFT_OUT_MS;
        let left_out = openings.saturating_add(LEFT_OUT.saturating_mul(SEQUENCES)).min(most);
        // Where that is the most, each ms still tells.
        let ceiling = self.ceiling.saturating_add(left_out).saturating_add(elapsed_ms.min(most));
        Manifest { ceiling, ..self }
    }

    /// Writes the manifest in place of the one that was there; once this returns, it lasts.
    pub fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        match self.take_place(disk) {
            Err(error) if is_full(&error) => self.write_over(disk)?.ok_or(error),
            done => done,
        }
    }

    /// Makes the file aside, and gives it the name.
    fn take_place(&self, disk: &dyn Disk) -> io::Result<()> {
        match disk.remove(ASIDE) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(ASIDE)?;
        for at in COPIES {
            file.write_at(&self.encode(at)?, at.offset)?;
        }
        file.sync_data()?;
        disk.rename(ASIDE, NAME)?;
        disk.sync_names()
    }

    /// Without space for another file, the copies in the one that is there are written, one after the other, beginning with one
    /// that is not needed. `None` if they have another length.
    fn write_over(&self, disk: &dyn Disk) -> io::Result<Option<()>> {
        let file = disk.open(NAME)?;
        let [first, second] = COPIES;
        let mut bytes = self.encode(first)?;
        if file.size()? != second.offset.saturating_add(bytes.len() as u64) {
            return Ok(None);
        }
        file.read_at(&mut bytes, first.offset)?;
        let is_first_whole = record::read(&bytes, first).is_some();
        for at in if is_first_whole { [second, first] } else { [first, second] } {
            file.write_at(&self.encode(at)?, at.offset)?;
            file.sync_data()?;
        }
        disk.sync_names()?;
        Ok(Some(()))
    }

    fn encode(&self, at: Position) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        record::begin(Head { number: 0, generation: 0, namespace: 0, kind: KIND }, &mut bytes);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        for number in [self.base, self.ceiling, self.seed] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.push(self.shard_bits);
        bytes.push(u8::try_from(self.tasks.len()).map_err(|_| io::ErrorKind::InvalidInput)?);
        for (number, name) in &self.tasks {
            bytes.push(*number);
            put_counted(name.as_bytes(), &mut bytes);
        }
        record::finish(&mut bytes).ok_or(io::ErrorKind::InvalidInput)?;
        record::seal(&mut bytes, at);
        Ok(bytes)
    }
}
