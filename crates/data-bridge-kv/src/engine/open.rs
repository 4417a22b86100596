//! Opening: what the directory says, what the log has, and then the threads.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use data_bridge_kv_model::{Error, ErrorKind, Result};

use super::Core;
use super::replay::{LONG_BYTES, Replay, Threads};
use super::stats::Checkpoints;
use super::tier::Tier;
use super::waiting::Timeouts;
use crate::budget::Budget;
use crate::cold::{Class, OpenError};
use crate::hash::KeyHasher;
use crate::hash::stable::StableHasher;
use crate::manifest::{Manifest, ManifestError, NAME, SEQUENCES};
use crate::opening::{Opening, Stage};
use crate::random::process_seed;
use crate::record::Record;
use crate::settings::{DataDirectory, Durability, Mode, NamespaceSettings, Settings};
use crate::shard::Space;
use crate::shard::space::Beginning;
use crate::snapshot;
use crate::sync::Mutex;
use crate::sync::atomic::AtomicBool;
use crate::wal::{self, Lsn, Wal, WalPolicy};

/// The log's segments, and the most that one may take of the directory: one in so many parts.
const SEGMENT_BYTES: (u64, u64) = (1 << 20, 64 << 20);
const SEGMENTS: u64 = 64;

/// What the versions of a store start above: unix ms times 2^20, and above those of any store that this process opened
/// before, so that closing and opening within a millisecond brings no version back.
fn next_base(started_ms: u64) -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let next = |last: u64| last.saturating_add(1 << 20).max(started_ms << 20);
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
    next(last.unwrap_or_else(|last| last))
}

impl Core {
    /// Opens a store without its threads.
    pub(super) fn open(mut settings: Settings) -> Result<Arc<Core>> {
        settings.check()?;
        let budget = Arc::new(Budget::new(settings.max_memory));
        let started_ms = settings.clock.unix_ms();
        let data = settings.data.clone();
        let manifest = data.as_ref().map(|data| manifest(data, &mut settings, started_ms)).transpose()?;
        let beginning = beginning(&settings, manifest.as_ref(), started_ms);
        let tier = settings
            .data
            .map(|data| Tier::open(data, beginning.seed, settings.max_memory, settings.blocking))
            .transpose()?;
        let (wal, record_bytes) = (Arc::new(OnceLock::new()), settings.record_bytes);
        let make = |(number, settings): (u8, NamespaceSettings)| {
            let (mode, durability) = (settings.mode, settings.durability_with(tier.is_some()));
            let new = |hasher| Space::new(settings, hasher, beginning, Arc::clone(&budget));
            let space = match &tier {
                None => new(KeyHasher::new(beginning.seed)),
                Some(tier) => {
                    let hasher = KeyHasher::stable(beginning.seed);
                    new(hasher).with_cold(Arc::clone(tier.log(mode)), number)
                }
            };
            match durability {
                Durability::None => space,
                durability => {
                    space.with_wal(Arc::clone(&wal), durability == Durability::Always, record_bytes)
                }
            }
        };
        let core = Arc::new(Core {
            spaces: (0..).zip(settings.namespaces).map(make).collect(),
            budget,
            resident: settings.resident,
            tier,
            wal,
            log_to_come: Mutex::default(),
            manifest: Mutex::new(manifest),
            replayed: AtomicU64::new(0),
            log_bytes: settings.log_bytes,
            checkpoints: Checkpoints::default(),
            clock: settings.clock,
            timeouts: Timeouts::default(),
            closed: AtomicBool::new(false),
            numbers: AtomicU64::new(1),
            started_ms,
        });
        if let Some(data) = data.filter(|_| core.spaces.iter().any(Space::is_logged)) {
            let (fingerprint, background) =
                (StableHasher::new(beginning.seed).fingerprint(), settings.background);
            let is_there = Wal::exists(&**data.disk()).map_err(|error| unavailable(&error))?;
            let known = core.restore_cold(is_there, &settings.opening)?;
            let (opening, segment_bytes) = (settings.opening, settings.log_segment_bytes);
            let to_come = LogToCome { data, fingerprint, background, known, opening, segment_bytes };
            *core.log_to_come.lock() = Some(to_come);
            if is_there {
                core.begin_log()?;
            }
        }
        Ok(core)
    }

    /// Lets the shards know what tasks have on disk, or that they have something there; answers the record of the log up to
    /// which that is everything.
    fn restore_cold(&self, has_log: bool, opening: &Opening) -> Result<Lsn> {
        let Some(tier) = &self.tier else { return Ok(0) };
        if !has_log && tier.task_log().usage().segments > 0 {
            return Err(missing_log());
        }
        let bits = self.spaces.first().map_or(0, Space::shard_bits);
        let absent = |namespace, shard, keys| {
            if let Some(space) = self.spaces.get(usize::from(namespace)) {
                space.expect_index(shard, keys);
            }
        };
        let found = |namespace, shard, index| self.put_index(namespace, shard, index);
        let known = tier.task_log().restore(bits, opening, absent, found).map_err(|error| refused(&error))?;
        Ok(known.unwrap_or(0))
    }

    /// Opens the log and carries out what it has. A directory without one gets it with the first command that needs it:
    /// whoever has caches only pays nothing.
    pub(super) fn begin_log(&self) -> Result<&Arc<Wal>> {
        let mut to_come = self.log_to_come.lock();
        if let Some(LogToCome { data, fingerprint, background, known, opening, segment_bytes }) = &*to_come {
            let (least, most) = SEGMENT_BYTES;
            let usual = (data.max_bytes() / SEGMENTS).min(self.log_limit() / 4).clamp(least, most);
            let segment_bytes = segment_bytes.unwrap_or(usual);
            let policy = WalPolicy { fingerprint: *fingerprint, segment_bytes, ..WalPolicy::default() };
            let (disk, clock) = (Arc::clone(data.disk()), Arc::clone(&self.clock));
            let known = *known;
            let log_bytes = Wal::stored_bytes(&*disk).map_err(|error| unavailable(&error))?;
            opening.enter(Stage::Log, log_bytes);
            let threads = Threads::default();
            let opened = std::thread::scope(|scope| {
                let mut replay = Replay::new(self, known, opening, &threads);
                if *background && log_bytes >= LONG_BYTES {
                    replay.spread(scope);
                }
                let replay = RefCell::new(replay);
                let mut take = |lsn, record: Record<'_>| replay.borrow_mut().take(lsn, &record);
                Wal::open_checked(disk, clock, policy, &mut take, &mut || replay.borrow_mut().finish())
            });
            let (wal, _) = opened.map_err(|error| match &error {
                wal::OpenError::Disk(_) | wal::OpenError::Foreign { .. } => unavailable(&error),
                wal::OpenError::Refused { why, .. } if why.kind() == ErrorKind::Unavailable => {
                    unavailable(why)
                }
                wal::OpenError::Damaged { .. }
                | wal::OpenError::Unmarked { .. }
                | wal::OpenError::Refused { .. } => {
                    Error::new(ErrorKind::Corruption, format!("the data directory: {error}"))
                }
            })?;
            if wal.last() < known {
                return Err(missing_log());
            }
            for (space, index) in self.logged_shards() {
                let mut shard = space.lock(index);
                let version = space.version(shard.sequence());
                if let Some(cold) = shard.cold_mut() {
                    cold.end_replay(version);
                }
            }
            let wal = Arc::new(wal);
            if *background {
                wal.start().map_err(|error| unavailable(&error))?;
            }
            *to_come = None;
            self.wal.get_or_init(|| wal);
        }
        self.wal.get().ok_or_else(|| Error::new(ErrorKind::Closed, "the store is closed"))
    }
}

/// What the log is opened with.
pub(super) struct LogToCome {
    data: DataDirectory,
    fingerprint: u64,
    background: bool,
    /// What was done up to this record is in the tier.
    known: Lsn,
    segment_bytes: Option<u64>,
    /// Who waits sees it here.
    opening: Arc<Opening>,
}

fn missing_log() -> Error {
    Error::new(ErrorKind::Corruption, "the data directory: the log is missing, or ends too early")
}

/// What to say of a log of the tier that can't be opened.
pub(super) fn refused(error: &OpenError) -> Error {
    match error {
        OpenError::Disk(error) => unavailable(error),
        OpenError::Damaged { .. } | OpenError::Foreign { .. } => {
            Error::new(ErrorKind::Corruption, format!("the data directory: {error}"))
        }
    }
}

fn unavailable(error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the data directory: {error}"))
}

/// The manifest of the directory as it is from now on: with room for this opening's sequence numbers, and its task
/// namespaces, which keep their numbers.
fn manifest(data: &DataDirectory, settings: &mut Settings, started_ms: u64) -> Result<Manifest> {
    let disk = &**data.disk();
    let old = Manifest::read(disk).map_err(|error| match error {
        ManifestError::Damaged => Error::new(ErrorKind::Corruption, format!("the data directory: {error}")),
        ManifestError::Disk(_) | ManifestError::Foreign => unavailable(&error),
    })?;
    let names = disk.list().map_err(|error| unavailable(&error))?;
    if names.iter().any(|name| name == snapshot::NAME) {
        return Err(unavailable(
            &"it is a snapshot, which stays as it is: `data-bridge-kv backup restore` makes another of it",
        ));
    }
    if old.is_none() && names.iter().any(|name| wal::is_segment(name) || Class::Task.owns(name)) {
        let message = format!(
            "the data directory: {NAME} is missing, without which nothing here can be read: restore the directory from a backup"
        );
        return Err(Error::new(ErrorKind::Corruption, message));
    }
    let mut manifest = match old {
        Some(old) => Manifest { ceiling: old.ceiling.saturating_add(SEQUENCES), ..old },
        None => Manifest {
            base: next_base(started_ms),
            ceiling: SEQUENCES,
            seed: settings.seed.unwrap_or_else(process_seed),
            shard_bits: u8::try_from(shards(settings).trailing_zeros()).unwrap_or(0),
            tasks: Vec::new(),
        },
    };
    NamespaceSettings::keep_numbers(&mut settings.namespaces, &manifest.tasks);
    for (number, name) in &manifest.tasks {
        let is_here = settings
            .namespaces
            .get(usize::from(*number))
            .is_some_and(|space| space.mode == Mode::Task && space.name == *name);
        if !is_here {
            let message = format!(
                "the data directory has a task namespace '{name}' with number {number}: configure it with mode \
                 task, or use another directory"
            );
            return Err(Error::invalid(message));
        }
    }
    let tasks = (0..).zip(&settings.namespaces).filter(|(_, space)| space.mode == Mode::Task);
    manifest.tasks = tasks.map(|(number, space)| (number, space.name.clone())).collect();
    manifest.write(disk).map_err(|error| unavailable(&error))?;
    Ok(manifest)
}

fn shards(settings: &Settings) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    settings.shards.unwrap_or((cores * 8).next_power_of_two().min(4096))
}

fn beginning(settings: &Settings, manifest: Option<&Manifest>, opened_ms: u64) -> Beginning {
    match manifest {
        Some(manifest) => Beginning {
            shard_bits: u32::from(manifest.shard_bits),
            base: manifest.base,
            floor: manifest.ceiling.saturating_sub(SEQUENCES),
            seed: manifest.seed,
            opened_ms,
        },
        None => Beginning {
            shard_bits: shards(settings).trailing_zeros(),
            base: next_base(opened_ms),
            floor: 0,
            seed: settings.seed.unwrap_or_else(process_seed),
            opened_ms,
        },
    }
}
