//! Snapshots of a running server: on demand and every so often, into a folder of which the newest are kept. Each is a
//! directory `snapshot-<unix ms>` there.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_bridge_kv::Engine;
use data_bridge_kv::disk::RealDisk;
use data_bridge_kv::snapshot::Snapshot;
use data_bridge_kv_model::{Error, ErrorKind, Result};
use parking_lot::Mutex;

use crate::server::Shared;

const PREFIX: &str = "snapshot-";
/// After a failure it is tried again so soon, if the next one is not due before.
const RETRY: Duration = Duration::from_secs(60);

/// Where snapshots go, and what became of them.
pub struct Snapshots {
    folder: Option<PathBuf>,
    keep: usize,
    /// Held while one is made.
    one_at_a_time: Mutex<()>,
    last_ms: AtomicU64,
    failures: AtomicU64,
}

impl Snapshots {
    /// Into this folder, of which the newest `keep` stay; `None` = nowhere.
    pub fn new(folder: Option<PathBuf>, keep: usize) -> Snapshots {
        let last = folder.as_deref().and_then(|folder| list(folder).ok()?.pop()?.1.ok());
        let last_ms = AtomicU64::new(last.map_or(0, |snapshot| snapshot.made_ms));
        Snapshots { folder, keep, one_at_a_time: Mutex::new(()), last_ms, failures: AtomicU64::new(0) }
    }

    /// When the last one was made, unix ms; 0 = never.
    pub fn last_ms(&self) -> u64 {
        self.last_ms.load(Relaxed)
    }

    /// How many could not be made.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Makes one, and removes those that are not kept; answers its directory. Blocks.
    pub fn take(&self, engine: &Engine) -> Result<(PathBuf, Snapshot)> {
        let folder = self.folder.as_deref().ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "the server was started without --snapshot-dest FOLDER")
        })?;
        let _one = self.one_at_a_time.lock();
        let taken = take_into(folder, engine);
        match &taken {
            Ok((_, snapshot)) => {
                self.last_ms.store(snapshot.made_ms, Relaxed);
                if let Err(error) = prune(folder, self.keep) {
                    tracing::warn!(%error, "old snapshots could not be removed");
                }
            }
            Err(_) => drop(self.failures.fetch_add(1, Relaxed)),
        }
        taken
    }
}

fn take_into(folder: &Path, engine: &Engine) -> Result<(PathBuf, Snapshot)> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let path = folder.join(format!("{PREFIX}{:013}", now.as_millis()));
    let unavailable =
        |error: io::Error| Error::new(ErrorKind::Unavailable, format!("{}: {error}", path.display()));
    let disk = RealDisk::open(&path).map_err(unavailable)?;
    let snapshot = engine.snapshot(&disk, &mut |_, _| {}).inspect_err(|_| {
        // What was copied so far is of no use, and may be what fills the disk.
        let _ = std::fs::remove_dir_all(&path);
    })?;
    Ok((path, snapshot))
}

/// The snapshots of a folder, oldest first, each with what it has or why that can't be told.
pub fn list(folder: &Path) -> io::Result<Vec<(PathBuf, Result<Snapshot>)>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        if is_ours && path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let disk =
            RealDisk::open(&path).map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()));
        let snapshot = disk.and_then(|disk| Snapshot::read(&disk));
        (path, snapshot)
    };
    Ok(paths.into_iter().map(read).collect())
}

/// Removes all but the newest `keep` whole ones, and what was not finished before those.
fn prune(folder: &Path, keep: usize) -> io::Result<()> {
    let all = list(folder)?;
    let mut whole = 0;
    for (path, snapshot) in all.iter().rev() {
        let is_kept = whole < keep && (snapshot.is_ok() || whole == 0);
        whole += usize::from(snapshot.is_ok());
        if !is_kept {
            std::fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

/// Makes one every so often, for the server's life.
pub async fn take_regularly(shared: Arc<Shared>, every: Duration) {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let due = Duration::from_millis(shared.snapshots.last_ms()) + every;
        tokio::time::sleep(due.saturating_sub(now)).await;
        let sharing = Arc::clone(&shared);
        let taken = tokio::task::spawn_blocking(move || sharing.snapshots.take(&sharing.engine)).await;
        match taken {
            Ok(Ok((path, snapshot))) => {
                tracing::info!(path = %path.display(), lsn = snapshot.lsn, bytes = snapshot.bytes(), "made a snapshot");
            }
            Ok(Err(error)) => {
                tracing::error!(error = %error, "no snapshot could be made: it is tried again");
                tokio::time::sleep(RETRY.min(every)).await;
            }
            Err(_) => return,
        }
    }
}
