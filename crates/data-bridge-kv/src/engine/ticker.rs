//! The engine's own threads: one expires keys on time and ends waits, another tends the cold tier.

use std::sync::Arc;
use std::time::Duration;

use data_bridge_kv_model::{Error, ErrorKind, Result};

use super::Core;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex};

/// How often it looks.
const PERIOD: Duration = Duration::from_millis(10);
/// Entries expired in one go while a shard is locked.
const EXPIRE_AT_ONCE: usize = 256;

/// Wakes a thread before its time.
#[derive(Default)]
pub(super) struct Bell {
    is_stopped: Mutex<bool>,
    rung: Condvar,
}

impl Bell {
    /// Lets the thread look now, unless it is at work: then it looks soon by itself.
    pub(super) fn ring(&self) {
        self.rung.notify_all();
    }
}

/// A running thread.
pub(super) struct Ticker {
    bell: Arc<Bell>,
    thread: JoinHandle<()>,
}

impl Ticker {
    /// Starts a thread that does this work again and again.
    pub(super) fn start(core: Arc<Core>, name: &str, bell: Arc<Bell>, work: fn(&Core)) -> Result<Ticker> {
        let own = Arc::clone(&bell);
        let run = move || {
            let mut is_stopped = own.is_stopped.lock();
            while !*is_stopped {
                drop(own.rung.wait_for(is_stopped, PERIOD));
                work(&core);
                is_stopped = own.is_stopped.lock();
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
        let failed = |_| Error::new(ErrorKind::Unavailable, "no thread could be started");
        Ok(Ticker { bell, thread: thread.map_err(failed)? })
    }

    pub(super) fn stop(self) {
        *self.bell.is_stopped.lock() = true;
        self.bell.rung.notify_all();
        // A panic in the thread was reported there.
        let _ = self.thread.join();
    }
}

impl Core {
    /// Looks at the memory of the process, expires what is due and ends waits that timed out.
    pub(super) fn tick(&self) {
        self.follow_memory();
        self.end_timed_out();
        for space in self.spaces.iter().filter(|space| space.is_touched()) {
            for index in 0..space.shard_count() {
                loop {
                    let Some(_room) = self.room_to_expire(space, EXPIRE_AT_ONCE) else { break };
                    let mut txn = self.begin_behind(space, index);
                    let more = txn.expire_due(EXPIRE_AT_ONCE);
                    let notices = txn.finish();
                    // Nobody waits for these.
                    if let Some(wal) = self.wal.get().filter(|_| notices.rests_on() > 0) {
                        wal.leave_to_thread();
                    }
                    notices.send();
                    if !more {
                        break;
                    }
                }
            }
        }
    }
}
