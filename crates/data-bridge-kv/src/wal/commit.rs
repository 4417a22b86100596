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
        self.state.urgent.fetch_max(lsn, AcqRel);
        let done = self.commit_here(lsn);
        if done {
            self.state.has_committer.store(true, Release);
        } else {
            self.leave_to_thread();
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
