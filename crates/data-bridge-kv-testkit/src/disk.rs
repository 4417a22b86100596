//! A disk in memory that fails when told and forgets when it crashes. For tests of whatever stores bytes.
//!
//! It keeps two images: what a reader sees now, and what lasts. Writes reach the second one by a sync, names by a sync of
//! names. At a crash, what is not synced meets a fate drawn from a seed: it lasts, is lost, or lasts for some of its
//! sectors only (of 512 bytes or of 4 KiB), each write by itself and in any order, perhaps twice; of the changes of names a
//! first part lasts. A sync that fails forgets what it should have made last, as Linux does: the next one succeeds without
//! it.

pub mod contract;
pub mod hooked;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use data_bridge_kv::disk::{DirectoryLock, Disk, File, check_name};

use crate::random::Random;

/// What lasts or is lost as one, by the device.
const SECTORS: [usize; 2] = [512, 4096];

/// EMFILE.
const TOO_MANY_OPEN: i32 = 24;

/// A failure to come.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Which operation fails, counted from 0 at the start of the disk.
    pub at: u64,
    /// How it fails. A write writes its first half before it does.
    pub error: ErrorKind,
    /// Whether all later ones fail too.
    pub sticky: bool,
}

/// What was read of files so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// How many reads, those that wait included.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them wait now.
    pub waiting: u64,
}

/// The disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
    released: Arc<Condvar>,
}

#[derive(Clone, Debug, Default)]
struct State {
    files: Vec<Contents>,
    names: BTreeMap<String, usize>,
    lasting_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    operations: u64,
    reads: Reads,
    is_held: bool,
    holds_writes: bool,
    writes_once: bool,
    is_cached: bool,
    fault: Option<Fault>,
    capacity: Option<u64>,
    /// Files that are open, and how many may be.
    open: usize,
    most_open: Option<usize>,
    crashes: u64,
    locked: bool,
}

/// The bytes of a file: both images, and what was done to the first since the second.
#[derive(Clone, Debug, Default)]
struct Contents {
    seen: Vec<u8>,
    lasting: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetSize(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Create { name: String, file: usize },
    Rename { from: String, to: String },
    Remove { name: String },
}

impl FaultyDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Plans a failure, or takes the plan back.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    /// Limits the bytes of all files together; writes that need more fail with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Limits the files that are open at a time; one more fails as the system's own limit does.
    pub fn limit_open(&self, files: Option<usize>) {
        self.state().most_open = files;
    }

    /// Files that are open now.
    pub fn open_files(&self) -> usize {
        self.state().open
    }

    /// Lets every read wait from now on, or go on.
    pub fn hold_reads(&self, is_held: bool) {
        self.state().is_held = is_held;
        self.released.notify_all();
    }

    /// Says that files are written once, as a store of objects does.
    pub fn write_once(&self) {
        self.state().writes_once = true;
    }

    /// Lets every write wait from now on, or go on.
    pub fn hold_writes(&self, is_held: bool) {
        self.state().holds_writes = is_held;
        self.released.notify_all();
    }

    /// Bytes of all files together.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Whether the system has all bytes in memory from now on: they are read at once, which is no operation.
    pub fn cache_reads(&self, is_cached: bool) {
        self.state().is_cached = is_cached;
    }

    /// What was read so far.
    pub fn reads(&self) -> Reads {
        self.state().reads
    }

    /// How many bytes were written that no sync has made last.
    pub fn unsynced(&self) -> usize {
        let written =
            |change: &Change| if let Change::Write { bytes, .. } = change { bytes.len() } else { 0 };
        self.state().files.iter().flat_map(|file| &file.pending).map(written).sum()
    }

    /// Operations so far, those that failed too.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Cuts the power. Open files and locks are void; files opened from now on show what lasted, by this seed.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state();
        let mut random = Random::new(seed);
        let lasts = random.below(state.pending_names.len() + 1);
        let changes = std::mem::take(&mut state.pending_names);
        changes.iter().take(lasts).for_each(|change| change.apply(&mut state.lasting_names));
        state.names = state.lasting_names.clone();
        for file in &mut state.files {
            file.crash(&mut random);
        }
        state.locked = false;
        state.crashes += 1;
    }

    /// What a power cut would leave right now, by this seed, as a disk of its own without faults; this one goes on.
    pub fn crash_image(&self, seed: u64) -> FaultyDisk {
        let state =
            State { fault: None, is_held: false, holds_writes: false, open: 0, ..self.state().clone() };
        let image = FaultyDisk { state: Arc::new(Mutex::new(state)), released: Arc::default() };
        image.crash(seed);
        image
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation; fails if it is its turn.
    fn operate(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.operate()?;
        Ok(state)
    }

    fn handle(&self, state: &mut State, file: usize) -> Box<dyn File> {
        state.open += 1;
        Box::new(Handle { disk: self.clone(), file, crashes: state.crashes })
    }
}

impl State {
    fn operate(&mut self) -> io::Result<()> {
        let now = self.operations;
        self.operations += 1;
        match self.fault {
            Some(fault) if fault.at == now || fault.sticky && fault.at < now => Err(fault.error.into()),
            _ => Ok(()),
        }
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        check_name(name)?;
        self.names.get(name).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn check_open(&self) -> io::Result<()> {
        let may_open = self.most_open.is_none_or(|most| self.open < most);
        if may_open { Ok(()) } else { Err(io::Error::from_raw_os_error(TOO_MANY_OPEN)) }
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn used(&self) -> u64 {
        let named: BTreeSet<usize> = self.names.values().copied().collect();
        named.into_iter().map(|file| self.files[file].seen.len() as u64).sum()
    }

    fn free(&self) -> u64 {
        self.capacity.map_or(1 << 40, |capacity| capacity.saturating_sub(self.used()))
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create { name, file } => {
                names.insert(name.clone(), *file);
            }
            Self::Rename { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Remove { name } => {
                names.remove(name);
            }
        }
    }
}

impl Contents {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.pending.push(change);
    }

    fn crash(&mut self, random: &mut Random) {
        let mut pending = std::mem::take(&mut self.pending);
        if random.one_in(2) {
            let again: Vec<Change> = pending.iter().filter(|_| random.one_in(8)).cloned().collect();
            pending.extend(again);
            for at in (1..pending.len()).rev() {
                pending.swap(at, random.below(at + 1));
            }
        }
        let sector_bytes = SECTORS[random.below(SECTORS.len())];
        for change in pending {
            match (random.below(3), change) {
                (0, change) => change.apply(&mut self.lasting),
                (1, Change::Write { offset, bytes }) => {
                    for (sector, bytes) in sectors(offset, &bytes, sector_bytes) {
                        if random.one_in(2) {
                            Change::Write { offset: sector, bytes }.apply(&mut self.lasting);
                        }
                    }
                }
                _ => {}
            }
        }
        self.seen = self.lasting.clone();
    }
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if image.len() < end {
                    image.resize(end, 0);
                }
                image[*offset..end].copy_from_slice(bytes);
            }
            Self::SetSize(size) => image.resize(*size, 0),
        }
    }
}

/// A write cut at the borders of sectors.
fn sectors(offset: usize, bytes: &[u8], size: usize) -> Vec<(usize, Vec<u8>)> {
    let mut parts = Vec::new();
    let (mut at, mut left) = (offset, bytes);
    while !left.is_empty() {
        let (part, rest) = left.split_at((size - at % size).min(left.len()));
        parts.push((at, part.to_vec()));
        at += part.len();
        left = rest;
    }
    parts
}

impl Disk for FaultyDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.operate()?;
        check_name(name)?;
        if state.names.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.check_open()?;
        let file = state.files.len();
        state.files.push(Contents::default());
        state.change_names(NameChange::Create { name: name.to_owned(), file });
        Ok(self.handle(&mut state, file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.operate()?;
        let file = state.find(name)?;
        state.check_open()?;
        Ok(self.handle(&mut state, file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.operate()?;
        check_name(to)?;
        state.find(from)?;
        state.change_names(NameChange::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.operate()?;
        state.find(name)?;
        state.change_names(NameChange::Remove { name: name.to_owned() });
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.operate()?.names.keys().cloned().collect())
    }

    fn sync_names(&self) -> io::Result<()> {
        let operated = self.operate();
        let failed = operated.as_ref().err().map(io::Error::kind);
        drop(operated);
        let mut state = self.state();
        let changes = std::mem::take(&mut state.pending_names);
        if let Some(error) = failed {
            return Err(error.into());
        }
        changes.iter().for_each(|change| change.apply(&mut state.lasting_names));
        Ok(())
    }

    fn lock(&self) -> io::Result<DirectoryLock> {
        let mut state = self.operate()?;
        if std::mem::replace(&mut state.locked, true) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock { disk: self.clone(), crashes: state.crashes }))
    }

    fn writes_once(&self) -> bool {
        self.state().writes_once
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.operate()?.free())
    }
}

struct Lock {
    disk: FaultyDisk,
    crashes: u64,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.crashes == self.crashes {
            state.locked = false;
        }
    }
}

struct Handle {
    disk: FaultyDisk,
    file: usize,
    /// Crashes before this file was opened; it is void after the next.
    crashes: u64,
}

impl Handle {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.crashes == self.crashes { Ok(state) } else { Err(ErrorKind::BrokenPipe.into()) }
    }

    /// Makes a change that needs the file to be at least so long.
    fn change(&self, size: u64, change: Change) -> io::Result<()> {
        let mut state = self.state()?;
        let operated = state.operate();
        let grows = size.saturating_sub(state.files[self.file].seen.len() as u64);
        let full = if grows > state.free() { Err(ErrorKind::StorageFull.into()) } else { Ok(()) };
        let done = operated.and(full);
        match (&done, change) {
            (Ok(()), change) => state.files[self.file].change(change),
            (Err(_), Change::Write { offset, mut bytes }) if grows / 2 <= state.free() => {
                bytes.truncate(bytes.len() / 2);
                state.files[self.file].change(Change::Write { offset, bytes });
            }
            (Err(_), _) => {}
        }
        done
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.disk.state().open -= 1;
    }
}

impl File for Handle {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.reads.count += 1;
        state.reads.bytes += bytes.len() as u64;
        state.reads.waiting += 1;
        let released = &self.disk.released;
        let mut state =
            released.wait_while(state, |state| state.is_held).unwrap_or_else(PoisonError::into_inner);
        state.reads.waiting -= 1;
        state.operate()?;
        let offset = in_memory(offset)?;
        let seen = &state.files[self.file].seen;
        let found = seen.get(offset..).and_then(|from| from.get(..bytes.len()));
        bytes.copy_from_slice(found.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn read_cached_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<bool> {
        let state = self.state()?;
        let offset = in_memory(offset)?;
        let seen = &state.files[self.file].seen;
        let found = seen.get(offset..).and_then(|from| from.get(..bytes.len())).filter(|_| state.is_cached);
        found.inspect(|found| bytes.copy_from_slice(found));
        Ok(found.is_some())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let write = Change::Write { offset: in_memory(offset)?, bytes: bytes.to_vec() };
        let released = &self.disk.released;
        drop(released.wait_while(self.state()?, |state| state.holds_writes));
        self.change(offset.saturating_add(bytes.len() as u64), write)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        let operated = state.operate();
        let file = &mut state.files[self.file];
        let pending = std::mem::take(&mut file.pending);
        operated?;
        pending.iter().for_each(|change| change.apply(&mut file.lasting));
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        let mut state = self.state()?;
        state.operate()?;
        Ok(state.files[self.file].seen.len() as u64)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.change(0, Change::SetSize(in_memory(size)?))
    }
}

/// An offset as an index; one beyond a tebibyte is a mistake of the test.
fn in_memory(offset: u64) -> io::Result<usize> {
    let index = usize::try_from(offset).ok().filter(|index| *index < 1 << 40);
    index.ok_or_else(|| ErrorKind::FileTooLarge.into())
}

#[cfg(test)]
mod tests;
