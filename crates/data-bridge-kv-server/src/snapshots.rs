//! Snapshots of a running server: on demand and every so often, into a place of which the newest are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_bridge_kv::Engine;
use data_bridge_kv::snapshot::Snapshot;
use data_bridge_kv::sync::real::Mutex;
use data_bridge_kv_model::{Error, ErrorKind, Result};

use crate::destination::Destination;
use crate::server::Shared;

/// After a failure it is tried again so soon, if the next one is not due before.
const RETRY: Duration = Duration::from_secs(60);

/// Where snapshots go, and what became of them.
pub struct Snapshots {
    place: Option<Destination>,
    keep: usize,
    /// Held while one is made.
    one_at_a_time: Mutex<()>,
    last_ms: AtomicU64,
    failures: AtomicU64,
    has_failed: AtomicBool,
}

impl Snapshots {
    /// Into this place, of which the newest `keep` stay; `None` = nowhere.
    pub fn new(place: Option<Destination>, keep: usize) -> Snapshots {
        let snapshots = Snapshots {
            place,
            keep,
            one_at_a_time: Mutex::new(()),
            last_ms: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
        };
        if matches!(snapshots.place, Some(Destination::Folder(_))) {
            snapshots.look();
        }
        snapshots
    }

    /// Looks when the last one was made. Blocks.
    fn look(&self) {
        let all = self.place.as_ref().and_then(|place| place.list().ok()).unwrap_or_default();
        let last = all.into_iter().rev().find_map(|(_, snapshot)| snapshot.ok());
        self.last_ms.fetch_max(last.map_or(0, |snapshot| snapshot.made_ms), Relaxed);
    }

    /// When the last one was made, unix ms; 0 = never.
    pub fn last_ms(&self) -> u64 {
        self.last_ms.load(Relaxed)
    }

    /// How many could not be made.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Whether the last one could not be made.
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Relaxed)
    }

    /// Whether one is being made.
    pub fn is_making(&self) -> bool {
        self.one_at_a_time.try_lock().is_none()
    }

    /// Makes one, and removes those that are not kept; answers where it is. Blocks.
    pub fn take(&self, engine: &Engine) -> Result<(Destination, Snapshot)> {
        let place = self.place.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "the server was started without --snapshot-dest FOLDER")
        })?;
        let _one = self.one_at_a_time.lock();
        let taken = take_into(place, engine);
        self.has_failed.store(taken.is_err(), Relaxed);
        match &taken {
            Ok((_, snapshot)) => {
                self.last_ms.store(snapshot.made_ms, Relaxed);
                if let Err(error) = place.prune(self.keep) {
                    tracing::warn!(%error, "old snapshots could not be removed");
                }
            }
            Err(_) => drop(self.failures.fetch_add(1, Relaxed)),
        }
        taken
    }
}

fn take_into(place: &Destination, engine: &Engine) -> Result<(Destination, Snapshot)> {
    let place = place.next();
    let disk = place.disk()?;
    let snapshot = engine.snapshot(&*disk, &mut |_, _| {}).inspect_err(|_| {
        // What was copied so far is of no use, and may be what fills the disk.
        let _ = place.remove();
    })?;
    Ok((place, snapshot))
}

/// Makes one every so often, for the server's life; at first looks when the last one was made.
pub async fn take_regularly(shared: Arc<Shared>, every: Duration) {
    let sharing = Arc::clone(&shared);
    if tokio::task::spawn_blocking(move || sharing.snapshots.look()).await.is_err() {
        return;
    }
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        tokio::time::sleep(until_due(shared.snapshots.last_ms(), every, now)).await;
        let sharing = Arc::clone(&shared);
        let taken = tokio::task::spawn_blocking(move || sharing.snapshots.take(&sharing.engine)).await;
        match taken {
            Ok(Ok((place, snapshot))) => {
                tracing::info!(%place, lsn = snapshot.lsn, bytes = snapshot.bytes(), "made a snapshot");
            }
            Ok(Err(error)) => {
                tracing::error!(error = %error, "no snapshot could be made: it is tried again");
                tokio::time::sleep(RETRY.min(every)).await;
            }
            Err(_) => return,
        }
    }
}

/// How long it is until the next one. Where the clock was set back, the last one may have been made later than now.
fn until_due(last_ms: u64, every: Duration, now: Duration) -> Duration {
    (Duration::from_millis(last_ms) + every).saturating_sub(now).min(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_that_one_is_being_made() {
        let snapshots = Snapshots::new(None, 1);
        let one = snapshots.one_at_a_time.lock();
        assert!(snapshots.is_making());
        drop(one);
        assert!(!snapshots.is_making());
    }

    #[test]
    fn a_clock_that_was_set_back_puts_no_snapshot_off() {
        let [day, second] = [86_400, 1].map(Duration::from_secs);
        let now = 1000 * day;
        let until = |last: Duration| until_due(u64::try_from(last.as_millis()).unwrap(), day, now);
        assert_eq!((until(Duration::ZERO), until(now - day)), (Duration::ZERO, Duration::ZERO));
        assert_eq!((until(now - second), until(now)), (day - second, day));
        assert_eq!(until(now + 300 * day), day);
    }
}
