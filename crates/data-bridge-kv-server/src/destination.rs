//! Where snapshots are kept: a folder, or a part of an object storage. Each snapshot is a directory `snapshot-<unix ms>` there.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use data_bridge_kv::disk::{Disk, RealDisk};
use data_bridge_kv::snapshot::{self, Snapshot};
use data_bridge_kv_model::{Error, ErrorKind, Result};

use crate::storage::Storage;

const PREFIX: &str = "snapshot-";

/// A folder or a storage, or one snapshot there.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A folder.
    Folder(PathBuf),
    /// A bucket, and where in it.
    Storage(Storage),
}

impl Destination {
    /// The place that a path or a URL names. Nothing is asked of a storage yet.
    ///
    /// # Errors
    /// `InvalidArgument`; `Unavailable` for a storage that this program was built without.
    pub fn parse(text: &str) -> Result<Destination> {
        // It would be the working directory, where nobody looks for it.
        if text.is_empty() {
            return Err(Error::invalid("an empty name is no folder"));
        }
        match text.contains("://") {
            true => Storage::open(text).map(Destination::Storage),
            false => Ok(Destination::Folder(PathBuf::from(text))),
        }
    }

    /// The place of a new snapshot here: behind those that are here, also where the clock was set back.
    pub fn next(&self) -> Destination {
        // Where that can't be told there may be none yet.
        let last = self.names().ok().and_then(|names| names.last()?.0).unwrap_or(0);
        self.below(&format!("{PREFIX}{:013}", unix_ms().max(last.saturating_add(1))))
    }

    fn below(&self, name: &str) -> Destination {
        match self {
            Destination::Folder(path) => Destination::Folder(path.join(name)),
            Destination::Storage(storage) => Destination::Storage(storage.below(name)),
        }
    }

    /// Its files; a folder is made if it is not there.
    pub fn disk(&self) -> Result<Box<dyn Disk>> {
        match self {
            Destination::Folder(path) => match RealDisk::open(path) {
                Ok(disk) => Ok(Box::new(disk)),
                Err(error) => Err(self.unavailable(&error)),
            },
            Destination::Storage(storage) => Ok(storage.disk()),
        }
    }

    /// Its files, if it is there.
    pub fn existing(&self) -> Result<Box<dyn Disk>> {
        match self {
            Destination::Folder(path) if !path.is_dir() => {
                Err(Error::new(ErrorKind::NotFound, format!("{self}: no such directory")))
            }
            _ => self.disk(),
        }
    }

    /// The snapshots here, oldest first, each with what it has or why that can't be told.
    pub fn list(&self) -> Result<Vec<(Destination, Result<Snapshot>)>> {
        Ok(self.names()?.iter().map(|(_, name)| self.look(name)).collect())
    }

    fn look(&self, name: &str) -> (Destination, Result<Snapshot>) {
        let place = self.below(name);
        let snapshot = place.disk().and_then(|disk| Snapshot::read(&*disk));
        (place, snapshot)
    }

    /// The names of the snapshots here with their times, oldest first; in front those that somebody named otherwise.
    fn names(&self) -> Result<Vec<(Option<u64>, String)>> {
        let names = match self {
            Destination::Folder(path) => names_in(path),
            Destination::Storage(storage) => storage.names(),
        };
        let names = names.map_err(|error| self.unavailable(&error))?;
        let timed = |name: String| Some((name.strip_prefix(PREFIX)?.parse().ok(), name));
        let mut timed: Vec<_> = names.into_iter().filter_map(timed).collect();
        timed.sort();
        Ok(timed)
    }

    /// Removes all but the newest `keep` whole snapshots, and what was not finished before those; none that has no time for a
    /// name.
    pub fn prune(&self, keep: usize) -> Result<()> {
        let mut whole = 0;
        for (_, name) in self.names()?.iter().rev().take_while(|(time, _)| time.is_some()) {
            let (place, snapshot) = self.look(name);
            let is_kept = whole < keep && (snapshot.is_ok() || whole == 0);
            whole += usize::from(snapshot.is_ok());
            if !is_kept {
                place.remove()?;
            }
        }
        Ok(())
    }

    /// Removes a snapshot, or what there is of one: its contents first, so that half of one is none.
    pub fn remove(&self) -> Result<()> {
        let removed = match self {
            Destination::Folder(path) => match std::fs::remove_file(path.join(snapshot::NAME)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => std::fs::remove_dir_all(path),
            },
            Destination::Storage(storage) => storage.remove(snapshot::NAME),
        };
        removed.map_err(|error| self.unavailable(&error))
    }

    fn unavailable(&self, error: &io::Error) -> Error {
        let text = match self {
            Destination::Folder(_) => format!("{self}: {error}"),
            // It says itself where.
            Destination::Storage(_) => error.to_string(),
        };
        Error::new(ErrorKind::Unavailable, text)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Folder(path) => path.display().fmt(out),
            Destination::Storage(storage) => storage.fmt(out),
        }
    }
}

fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path().is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}

/// Now.
pub fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
