//! Committing on the thread of whoever waits. The log's own thread costs two changes of threads for each batch, which is more
//! than all the rest of it where the disk is fast; so a server's worker, which would have nothing to do but wait, writes and
//! syncs by itself.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use super::thread::PanicGuard;
use super::{Lsn, Wal};

/// A sync that takes longer than so many microseconds, of late, is left to the log's thread.
const SYNC_US: u64 = 1000;
/// So are more bytes than this.
const BYTES: u64 = 1 << 20;

impl Wal {
    /// Writes and syncs what was appended so far, up to this LSN at least, on the caller's thread. False if that is for the
    /// log's own to do, which is told to: the disk is slow or full, there is much to write, or the thread is just at it. As
    /// long as it is true, records that are appended as urgent do not wake the log's thread: who appends them calls this.
    pub fn commit(&self, lsn: Lsn) -> bool {
        let is_new = self.state.urgent.fetch_max(lsn, AcqRel) < lsn;
        let done = self.commit_here(lsn);
        if done {
            self.state.has_committer.store(true, Release);
        } else if self.state.has_committer.swap(false, AcqRel) || is_new {
            // Nobody else tells it: what nobody waited for it would gather, and sync when that is due.
            self.ring();
        }
        done
    }

    /// Has the log's thread see to what is urgent, from now on.
    pub fn leave_to_thread(&self) {
        // It was woken by what was appended, if that was not left to somebody else.
        if self.state.has_committer.swap(false, AcqRel) {
            self.ring();
        }
    }

    fn commit_here(&self, lsn: Lsn) -> bool {
        let backlog = self.state.backlog.load(Acquire);
        if backlog > BYTES || self.counts.sync_us_mean() > SYNC_US {
            return false;
        }
        let Some(tail) = self.tail.try_lock().filter(|tail| tail.has_place_for(backlog)) else {
            return false;
        };
        let _guard = PanicGuard(self);
        self.write_and_sync_from(tail);
        // It makes the segment to come.
        if self.state.space_due_ms.load(Acquire) < u64::MAX {
            self.ring();
        }
        self.durable() >= lsn
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::thread;
    use std::time::Duration;

    use crate::clock::ManualClock;
    use crate::disk::RealDisk;
    use crate::wal::{NewRecord, Wal, WalPolicy};

    /// Much longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(60);
    const NEW: NewRecord = NewRecord { namespace: 1, generation: 2, kind: 3 };

    /// Waits in place of the log's thread, which gathers what nobody waits for.
    #[test]
    fn what_is_not_committed_here_is_told_to_the_thread_although_it_was_not_urgent() {
        let path = std::env::temp_dir().join(format!("data-bridge-kv-told-{}", std::process::id()));
        let disk = Arc::new(RealDisk::open(&path).unwrap());
        let clock = Arc::new(ManualClock::new(1));
        let (wal, _) = Wal::open(disk, clock, WalPolicy::default(), &mut |_, _| Ok(())).unwrap();
        let lsn = wal.append(NEW, b"payload", false);
        let is_there = AtomicBool::new(false);
        thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let buffer = wal.buffer.lock();
                is_there.store(true, SeqCst);
                wal.work.wait_for(buffer, PATIENCE).1
            });
            while !is_there.load(SeqCst) {
                thread::yield_now();
            }
            // It has given the lock back, so it waits.
            drop(wal.buffer.lock());
            let tail = wal.tail.lock();
            assert!(!wal.commit(lsn), "somebody else writes");
            drop(tail);
            assert!(!waits.join().unwrap(), "nobody told it");
        });
        assert!(wal.step() && wal.durable() == lsn);
        drop(wal);
        std::fs::remove_dir_all(path).unwrap();
    }
}
