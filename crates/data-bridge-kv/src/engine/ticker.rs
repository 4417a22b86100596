//! The engine's own threads: one expires keys on time and ends waits, another tends the cold tier.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use data_bridge_kv_model::{Error, ErrorKind, Result};
use parking_lot::{Condvar, Mutex};

use super::Core;

/// How often it looks.
const PERIOD: Duration = Duration::from_millis(10);
/// Entries expired in one go while a shard is locked.
const EXPIRE_AT_ONCE: usize = 256;

/// A running thread.
pub(super) struct Ticker {
    stopped: Arc<(Mutex<bool>, Condvar)>,
    thread: JoinHandle<()>,
}

impl Ticker {
    /// Starts a thread that does this work again and again.
    pub(super) fn start(core: Arc<Core>, name: &str, work: fn(&Core)) -> Result<Ticker> {
        let stopped = Arc::new((Mutex::new(false), Condvar::new()));
        let signal = Arc::clone(&stopped);
        let run = move || {
            let (stopped, changed) = &*signal;
            let mut guard = stopped.lock();
            while !*guard {
                changed.wait_for(&mut guard, PERIOD);
                parking_lot::MutexGuard::unlocked(&mut guard, || work(&core));
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        let failed = |_| Error::new(ErrorKind::Unavailable, "no thread could be started");
        Ok(Ticker { stopped, thread: thread.map_err(failed)? })
    }

    pub(super) fn stop(self) {
        *self.stopped.0.lock() = true;
        self.stopped.1.notify_all();
        // A panic in the thread was reported there.
        let _ = self.thread.join();
    }
}

impl Core {
    /// Expires what is due and ends waits that timed out.
    pub(super) fn tick(&self) {
        self.end_timed_out();
        for space in self.spaces.iter().filter(|space| space.is_touched()) {
            for index in 0..space.shard_count() {
                loop {
                    let mut txn = self.begin_at(space, index);
                    let more = txn.expire_due(EXPIRE_AT_ONCE);
                    txn.finish().send();
                    if !more {
                        break;
                    }
                }
            }
        }
    }
}
