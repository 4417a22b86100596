//! What the log's own thread does, or whoever steps the log in its place: waits for work, has it written and synced, and
//! tells how far the log is.

use std::io;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::thread;
use std::time::Duration;

use super::buffer::{Chunk, Load};
use super::segment::Closed;
use super::writer::{Surroundings, Tail};
use super::{Failure, Lsn, Wal};
use crate::sync::MutexGuard;

/// How long records that nobody waits for are gathered before they are written.
const LINGER: Duration = Duration::from_millis(50);

impl Wal {
    /// Writes what is left and the end, once. The thread is gone.
    pub(super) fn finish(&self) {
        if !self.state.is_ended.load(Acquire) && self.failure.get().is_none() {
            let mut tail = self.tail.lock();
            let (chunks, mut load) = {
                let mut buffer = self.buffer.lock();
                self.state.is_finished.store(true, Release);
                buffer.take()
            };
            let written = self.around(|around| {
                tail.write_last(chunks, around)?;
                tail.sync(around)?;
                tail.finish(around)
            });
            load.add(std::mem::take(&mut tail.in_hand));
            self.recycle(Vec::new(), load);
            self.settle(tail, written);
        }
        self.state.is_ended.store(true, Release);
        self.tell_all(&Failure::closed());
    }

    /// The life of the thread.
    pub(super) fn run(&self) {
        let _guard = PanicGuard(self);
        while self.await_work() {
            self.step();
        }
    }

    /// Waits until there is something to do; false once the log is closed.
    fn await_work(&self) -> bool {
        let mut buffer = self.gather(self.buffer.lock());
        let mut lingered = false;
        while !self.state.is_closed.load(Acquire) {
            if self.failure.get().is_some() {
                buffer = self.work.wait(buffer);
                continue;
            }
            let now_ms = self.clock.unix_ms();
            if self.state.is_held.load(Acquire) {
                let due = self.state.space_due_ms.load(Acquire);
                if now_ms >= due {
                    return true;
                }
                let left = Duration::from_millis((due - now_ms).min(1000));
                (buffer, _) = self.work.wait_for(buffer, left);
                continue;
            }
            let has_records = !buffer.is_empty();
            if has_records && (lingered || buffer.load.bytes >= self.write_bytes()) || self.is_due(now_ms) {
                return true;
            }
            let due = self.sync_due_ms().min(self.state.space_due_ms.load(Acquire));
            if has_records {
                (buffer, lingered) = self.work.wait_for(buffer, LINGER);
            } else if due < u64::MAX {
                let left = Duration::from_millis(due.saturating_sub(now_ms).clamp(1, 1000));
                (buffer, _) = self.work.wait_for(buffer, left);
            } else {
                buffer = self.work.wait(buffer);
            }
        }
        false
    }

    /// Whether somebody waits for a sync, one is due, or space is to be made.
    fn is_due(&self, now_ms: u64) -> bool {
        let somebody_waits = self.state.urgent.load(Acquire).min(self.last()) > self.durable();
        somebody_waits || now_ms >= self.sync_due_ms() || now_ms >= self.state.space_due_ms.load(Acquire)
    }

    fn sync_due_ms(&self) -> u64 {
        match self.state.unsynced_since_ms.load(Acquire) {
            0 => u64::MAX,
            since => since.saturating_add(self.policy.sync_every_ms),
        }
    }

    /// Writes what has come in, and syncs if somebody waits or it is time; whether there was anything to do.
    pub(super) fn write_and_sync(&self) -> bool {
        self.write_and_sync_from(self.tail.lock())
    }

    /// The same for who has the tail.
    pub(super) fn write_and_sync_from(&self, mut tail: MutexGuard<'_, Tail>) -> bool {
        if self.failure.get().is_some() || self.state.is_finished.load(Acquire) {
            return false;
        }
        let was_held = tail.is_held();
        let mut chunks = Vec::new();
        if !was_held {
            (chunks, tail.in_hand) = self.buffer.lock().take();
        }
        let (has_records, mut synced, mut empty) = (!chunks.is_empty(), false, Vec::new());
        let written = self.around(|around| {
            if was_held {
                empty = tail.go_on(around)?;
            } else if has_records {
                empty = tail.write(chunks, around)?;
            }
            let due = tail.unsynced_since_ms.map(|since| since.saturating_add(self.policy.sync_every_ms));
            let somebody_waits = self.state.urgent.load(Acquire).min(tail.written) > tail.durable;
            if somebody_waits || due.is_some_and(|due| around.now_ms >= due) {
                synced = tail.unsynced_since_ms.is_some();
                tail.sync(around)?;
            }
            Ok(())
        });
        // The runway first: or what was written would look like room until everybody is told.
        self.publish(&tail);
        let wrote = has_records || !empty.is_empty();
        let is_over = written.is_err() || !tail.is_held();
        let load = if is_over { std::mem::take(&mut tail.in_hand) } else { Load::default() };
        self.recycle(empty, load);
        self.settle(tail, written);
        wrote || synced
    }

    /// Lets everybody know how far the log is now, or that it failed.
    pub(super) fn settle(&self, tail: MutexGuard<'_, Tail>, written: io::Result<()>) {
        self.publish(&tail);
        let durable = tail.durable;
        if let Err(error) = &written {
            // Whoever has the tail next may not write any more.
            let _ = self.failure.set(Failure::new(error, durable));
        }
        drop(tail);
        let served = self.waiters.lock().up_to(durable);
        served.into_iter().for_each(|then| then(Ok(())));
        if let Err(error) = written {
            self.fail(&error);
        }
    }

    /// Lets others see how far the tail is.
    pub(super) fn publish(&self, tail: &Tail) {
        let state = &self.state;
        state.durable.store(tail.durable, Release);
        state.runway.store(tail.runway(), Release);
        state.active_bytes.store(tail.active_bytes(), Release);
        state.is_short.store(tail.is_short || tail.is_held(), Release);
        state.lacks_files.store(tail.lacks_files, Release);
        state.unsynced_since_ms.store(tail.unsynced_since_ms.map_or(0, |since| since.max(1)), Release);
        state.is_held.store(tail.is_held(), Release);
        let is_content = tail.has_spare() && !tail.is_held();
        let space_due = if is_content { u64::MAX } else { tail.maker.retry_ms() };
        state.space_due_ms.store(space_due, Release);
    }

    /// Goes on with the segment to come; whether it got further.
    pub(super) fn make_space(&self) -> bool {
        let mut tail = self.tail.lock();
        if self.failure.get().is_some() || self.state.is_finished.load(Acquire) {
            return false;
        }
        let was_short = tail.is_short;
        let made = self.around(|around| tail.make_space(around, false));
        let got_further = matches!(made, Ok(true));
        let is_news = got_further || tail.is_short != was_short;
        self.settle(tail, made.map(drop));
        if is_news {
            self.ring();
        }
        got_further
    }

    /// Notes that records are written that took so much, or never will be.
    fn recycle(&self, chunks: Vec<Chunk>, load: Load) {
        let mut buffer = self.buffer.lock();
        buffer.recycle(chunks, load);
        self.state.backlog.store(buffer.backlog(), Release);
        if load.large > 0 {
            self.state.large_backlog.fetch_sub(load.large as u64, AcqRel);
        }
        self.state.taken.fetch_sub(load.weight, AcqRel);
        self.room.notify_all();
    }

    /// Wakes whoever waits for work or room.
    pub(super) fn ring(&self) {
        let _buffer = self.buffer.lock();
        self.work.notify_all();
        self.room.notify_all();
    }

    /// Makes the log final, and tells everybody who waits.
    pub(super) fn fail(&self, error: &io::Error) {
        let _ = self.failure.set(Failure::new(error, self.durable()));
        let mut buffer = self.buffer.lock();
        // What nobody will write need not be kept.
        let (chunks, load) = buffer.take();
        drop((buffer, chunks));
        self.recycle(Vec::new(), load);
        self.ring();
        if let Some(failure) = self.failure() {
            self.tell_all(&failure);
        }
    }

    /// Tells everybody who still waits that there is nothing to wait for.
    fn tell_all(&self, failure: &Failure) {
        let left = self.waiters.lock().up_to(Lsn::MAX);
        left.into_iter().for_each(|then| then(Err(failure.clone())));
    }

    /// Acts with what the tail needs of the log.
    pub(super) fn around<R>(&self, act: impl FnOnce(&mut Surroundings<'_>) -> R) -> R {
        let mut closed = |segment: Closed| self.closed.lock().push_back(segment);
        let now_ms = self.clock.unix_ms();
        act(&mut Surroundings { disk: &*self.disk, counts: &self.counts, closed: &mut closed, now_ms })
    }
}

/// Makes a panic of who writes a failure of the log, so that nobody waits for ever.
pub(super) struct PanicGuard<'a>(pub(super) &'a Wal);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(&io::Error::other("its writer panicked"));
        }
    }
}
