//! Opening a log that is there: where each segment ends, and which record is the last word on each key.
//!
//! A crash may leave a batch that was not synced: at the end of a segment, in part. It is cut off. Damage of what was
//! synced must not be taken for that, so a batch is only cut off if nothing valid stands behind it: each batch proves
//! those before it, and a segment that is closed ends with an empty one.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::base::Base;
use super::format::{self, Foreign, HEADER, HEADER_BYTES, KEYS, KeyLine, KeyState};
use super::index::Spot;
use super::reader::{self, Found, Keys, ReadError};
use super::segment::{Locator, Segment};
use super::writer::{Log, Policy};
use crate::disk::Disk;
use crate::hash::stable::KeyId;
use crate::opening::Opening;
use crate::record::{self, Mark, MarkFile, Position};

/// Why a log can't be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The disk says no.
    Disk(io::Error),
    /// What was synced is not what stands there.
    Damaged {
        /// The file.
        file: String,
        /// Where the damage begins.
        offset: u64,
    },
    /// A file of another format, class or secret.
    Foreign {
        /// The file.
        file: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Disk(error) => write!(f, "{error}"),
            OpenError::Damaged { file, offset } => write!(f, "{file} is damaged at offset {offset}"),
            OpenError::Foreign { file, why } => write!(f, "{file} {why}"),
        }
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        OpenError::Disk(error)
    }
}

/// The last word on a key that is there.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    /// The namespace.
    pub namespace: u8,
    /// Its generation when the entry was written.
    pub generation: u32,
    /// The identity.
    pub id: KeyId,
    /// The version.
    pub version: u64,
    /// For the index.
    pub spot: Spot,
}

impl Log {
    /// Opens what is there. Cuts off what a crash left at the ends of segments; refuses damage.
    pub fn open(disk: Arc<dyn Disk>, policy: Policy) -> Result<Log, OpenError> {
        let log = Log::new(disk, policy);
        let names = log.disk.list()?;
        let base = if policy.is_durable { Base::read(&*log.disk, &policy)? } else { None };
        let index = policy.class.index_name();
        if base.is_none() && names.contains(&index) {
            // What is made from now on may have a lower number: if it were read later, that would be taken for removed.
            log.disk.remove(&index)?;
        }
        let start = if policy.is_durable { Mark::read(&*log.disk, MarkFile::TierStart)? } else { None };
        let start = start.unwrap_or(0);
        log.tail.lock().last_id = base.as_ref().map_or(0, |base| base.number).max(start);
        let ids = || names.iter().filter_map(|name| Some((name, policy.class.segment_id(name)?)));
        // First those that the base knows, into the slots that it knows them by.
        let (known, others): (Vec<_>, Vec<_>) =
            ids().partition(|(_, id)| base.as_ref().is_some_and(|base| base.covered(*id).is_some()));
        for (name, id) in known.into_iter().chain(others) {
            if id < start || base.as_ref().is_some_and(|base| base.has_outlived(id)) {
                log.disk.remove(name)?;
                continue;
            }
            let file = log.disk.open(name)?;
            let size = file.size()?;
            let covered = base.as_ref().and_then(|base| base.covered(id));
            let made = match covered {
                Some(covered) => log.segments.put_back(Segment::new(id, covered.slot, file, covered.end)),
                None => log.segments.add(|slot| Segment::new(id, slot, file, HEADER_BYTES as u64)),
            };
            let segment = made.ok_or(io::ErrorKind::StorageFull).map_err(io::Error::from)?;
            if let Some(covered) = covered {
                segment.count_covered(covered);
            }
            let mut tail = log.tail.lock();
            tail.last_id = tail.last_id.max(id);
            drop(tail);
            if !log.check_header(&segment, size, name)? || !log.find_end(&segment, size, name)? {
                // A segment whose making was cut short: nothing was ever accepted in it.
                log.segments.remove(&segment);
                // Not even if the removal is taken back, or what is seen of it is not what lasts.
                segment.file.set_size(0)?;
                segment.file.sync_data()?;
                log.disk.remove(name)?;
            }
        }
        log.disk.sync_names()?;
        *log.base.lock() = base;
        Ok(log)
    }

    /// Whether a segment has its header. Without one it has nothing, if nothing valid follows.
    fn check_header(&self, segment: &Segment, size: u64, name: &str) -> Result<bool, OpenError> {
        let mut bytes = [0; HEADER_BYTES];
        if size >= HEADER_BYTES as u64 {
            segment.file.read_at(&mut bytes, 0)?;
        }
        let at = Position { segment: segment.id, offset: 0 };
        let foreign = |why| OpenError::Foreign { file: name.to_owned(), why };
        match record::read(&bytes, at).filter(|record| record.head.kind == HEADER) {
            Some(header) => {
                match format::check_header(header.payload, self.policy.class, Some(self.policy.fingerprint)) {
                    Ok(()) => Ok(true),
                    Err(Foreign::Format) => Err(foreign(record::UNKNOWN_FORMAT)),
                    Err(Foreign::Class) => Err(foreign("belongs to another class")),
                    Err(Foreign::Secret) => Err(foreign("was written under another secret")),
                }
            }
            None if keys_behind(segment, 0, size)? => {
                Err(OpenError::Damaged { file: name.to_owned(), offset: 0 })
            }
            None => Ok(false),
        }
    }

    /// Finds where the accepted batches of a segment end, of which those up to its end are known already; cuts off the rest
    /// and closes it. Answers false if there are none.
    fn find_end(&self, segment: &Segment, size: u64, name: &str) -> Result<bool, OpenError> {
        let damaged = |offset| OpenError::Damaged { file: name.to_owned(), offset };
        let mut end = segment.end();
        if size < end {
            return Err(damaged(size));
        }
        // The last batch that has entries is counted only once it is known to be whole.
        let mut last: Option<(Keys, u64)> = None;
        let was_closed = segment.is_closed.load(Relaxed);
        let mut is_closed = was_closed;
        let mut closed_at = end;
        loop {
            match reader::batch_at(segment, end, size).map_err(|error| open_error(error, name, end))? {
                Found::Batch(keys) => {
                    let start = std::mem::replace(&mut end, keys.end);
                    closed_at = start;
                    is_closed = keys.entries_at == keys.end && keys.is_empty();
                    if let Some((keys, start)) = last.replace((keys, start)) {
                        self.count(segment, &keys).ok_or_else(|| damaged(start))?;
                    }
                }
                Found::End => break,
                Found::Damage if keys_behind(segment, end, size)? => return Err(damaged(end)),
                Found::Damage => break,
            }
        }
        if let Some((keys, start)) = last {
            let is_kept =
                is_closed || renew(segment, &keys).map_err(|error| open_error(error, name, start))?;
            if is_kept {
                self.count(segment, &keys).ok_or_else(|| damaged(start))?;
            } else {
                end = start;
            }
        }
        if end == HEADER_BYTES as u64 {
            return Ok(false);
        }
        if was_closed && end == size {
            return Ok(true);
        }
        if end != size {
            segment.file.set_size(end)?;
        }
        // Also one that is marked: as the last batch, the mark may stand in the page cache only.
        segment.end.store(if is_closed { closed_at } else { end }, Relaxed);
        segment.close()?;
        Ok(true)
    }

    fn count(&self, segment: &Segment, keys: &Keys) -> Option<()> {
        for (_, at) in keys.lines(segment.slot)? {
            match at {
                Some(at) => segment.count_written(at.weight()),
                None => drop(segment.tombstones.fetch_add(1, Relaxed)),
            }
        }
        Some(())
    }

    /// Shows what the keys of a segment say from the start of a batch on.
    pub(super) fn each_line(
        &self,
        segment: &Segment,
        from: u64,
        mut visit: impl FnMut((KeyLine, Option<Locator>)),
    ) -> Result<(), OpenError> {
        for keys in reader::batches_from(segment, from) {
            let name = || self.policy.class.file_name(segment.id);
            let keys = keys.map_err(|error| open_error(error, &name(), segment.end()))?;
            let damaged = || OpenError::Damaged { file: name(), offset: keys.entries_at };
            keys.lines(segment.slot).ok_or_else(damaged)?.into_iter().for_each(&mut visit);
        }
        Ok(())
    }

    /// Finds the last word on each key that `wants` picks, in the order of namespaces and identities, and counts those
    /// entries as live. Reads keys only. It keeps about 72 bytes for each record of a wanted key while it works: whoever has
    /// little memory asks for parts, each key once.
    pub fn replay(
        &self,
        wants: impl Fn(u8, u32, KeyId) -> bool,
        opening: &Opening,
        mut found: impl FnMut(Restored),
    ) -> Result<(), OpenError> {
        let mut all: Vec<(KeyLine, Option<Locator>)> = Vec::new();
        for segment in self.segments.by_age() {
            self.each_line(&segment, HEADER_BYTES as u64, |(line, locator)| {
                if wants(line.namespace, line.generation, line.id) {
                    all.push((line, locator));
                }
            })?;
            opening.advance(segment.end());
        }
        // Stable: of two records of one version the later one is the truth.
        all.sort_by_key(|(line, _)| (line.namespace, line.id, line.version));
        for of_key in
            all.chunk_by(|(one, _), (other, _)| (one.namespace, one.id) == (other.namespace, other.id))
        {
            if let Some((line, Some(locator))) = of_key.last()
                && let KeyState::Entry { kind, deadline, .. } = line.what
            {
                self.segments.account(*locator, Segment::revive);
                let KeyLine { namespace, generation, id, version, .. } = *line;
                found(Restored {
                    namespace,
                    generation,
                    id,
                    version,
                    spot: Spot::new(*locator, deadline, kind),
                });
            }
        }
        Ok(())
    }
}

fn open_error(error: ReadError, file: &str, offset: u64) -> OpenError {
    match error {
        ReadError::Disk(error) => OpenError::Disk(io::Error::new(error.kind(), error)),
        ReadError::Damaged => OpenError::Damaged { file: file.to_owned(), offset },
    }
}

/// Makes a batch last that nothing behind it proves, if each of its entries has its checksum; answers whether they have.
/// It may stand in the page cache only, after a sync that failed: another sync would do nothing, so it is written again.
fn renew(segment: &Segment, keys: &Keys) -> Result<bool, ReadError> {
    let bytes = reader::entries_of(segment, keys)?;
    let (mut rest, mut offset) = (bytes.as_slice(), keys.entries_at);
    while !rest.is_empty() {
        let Some(record) = record::read(rest, Position { segment: segment.id, offset }) else {
            return Ok(false);
        };
        let total = record.total_bytes();
        offset = offset.saturating_add(total as u64);
        rest = rest.get(total..).unwrap_or_default();
    }
    keys.write_again(segment)?;
    segment.file.write_at(&bytes, keys.entries_at)?;
    segment.file.sync_data()?;
    Ok(true)
}

/// Whether the keys of some batch stand behind this offset: then what is there was accepted once.
fn keys_behind(segment: &Segment, offset: u64, size: u64) -> Result<bool, OpenError> {
    let count = usize::try_from(size.saturating_sub(offset)).map_err(|_| io::ErrorKind::FileTooLarge.into());
    let mut bytes = vec![0; count.map_err(OpenError::Disk)?];
    segment.file.read_at(&mut bytes, offset)?;
    let is_keys = |start: usize| {
        let rest = bytes.get(start..).unwrap_or_default();
        let at = Position { segment: segment.id, offset: offset.saturating_add(start as u64) };
        // The kind first: a checksum over every byte to the end at every byte would take a day.
        rest.get(21) == Some(&KEYS) && record::read(rest, at).is_some()
    };
    Ok((1..bytes.len()).any(is_keys))
}
