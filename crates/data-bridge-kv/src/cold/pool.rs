//! Threads that wait for the disk in place of others. They are started when there is work for them, up to a limit, and
//! end once the pool is gone: nobody waits for one that hangs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Most threads. What they do is wait, so that they may be more than the machine has cores.
pub(super) const THREADS: usize = 16;
/// Bytes of the stack of one: commands may run there.
const STACK_BYTES: usize = 1 << 20;

/// Work for a thread of the pool.
pub type Job = Box<dyn FnOnce() + Send>;

/// The threads.
#[derive(Default)]
pub struct Pool(Arc<Desk>);

#[derive(Default)]
struct Desk {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    is_closed: bool,
}

impl Pool {
    /// Lets a thread do this, at once or when one is free. Gives it back if there are no threads.
    pub fn run(&self, job: Job) -> Result<(), Job> {
        let mut state = self.0.state.lock();
        if state.idle <= state.jobs.len() && state.threads < THREADS {
            let desk = Arc::clone(&self.0);
            let builder = thread::Builder::new().name("kv-reader".to_owned()).stack_size(STACK_BYTES);
            match builder.spawn(move || desk.serve()) {
                Ok(_) => state.threads = state.threads.saturating_add(1),
                Err(_) if state.threads == 0 => return Err(job),
                Err(_) => {}
            }
        }
        state.jobs.push_back(job);
        self.0.changed.notify_one();
        Ok(())
    }
}

impl Desk {
    fn serve(&self) {
        let mut state = self.state.lock();
        while !state.is_closed {
            match state.jobs.pop_front() {
                Some(job) => MutexGuard::unlocked(&mut state, job),
                None => {
                    state.idle = state.idle.saturating_add(1);
                    self.changed.wait(&mut state);
                    state.idle = state.idle.saturating_sub(1);
                }
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.is_closed = true;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        // What these hold may lead back here.
        drop(jobs);
        self.0.changed.notify_all();
    }
}
