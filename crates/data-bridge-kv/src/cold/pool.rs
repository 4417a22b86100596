//! Threads that wait for the disk in place of others. They are started when there is work for them, up to a limit, and
//! end when there was none for a while, since each has memory that its allocator keeps, or once the pool is gone: nobody
//! waits for one that hangs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::sync::thread;
use crate::sync::{Condvar, Mutex};

/// Most threads. What they do is wait, so that they may be more than the machine has cores.
pub const THREADS: usize = 16;
/// How long one stays that has nothing to do.
const IDLE: Duration = Duration::from_millis(200);
/// Bytes of the stack of one: commands may run there.
const STACK_BYTES: usize = 1 << 20;

/// Work for a thread of the pool.
pub type Job = Box<dyn FnOnce() + Send>;

/// The threads.
pub struct Pool {
    desk: Arc<Desk>,
    /// Most of them.
    threads: usize,
}

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

impl Default for Pool {
    fn default() -> Pool {
        Pool::of(THREADS)
    }
}

impl Pool {
    /// A pool of at most so many threads, one at least and no more than [`THREADS`].
    pub fn of(threads: usize) -> Pool {
        Pool { desk: Arc::default(), threads: threads.clamp(1, THREADS) }
    }

    /// Most threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Lets a thread do this, at once or when one is free. Gives it back if there are no threads.
    pub fn run(&self, job: Job) -> Result<(), Job> {
        let mut state = self.desk.state.lock();
        if state.idle <= state.jobs.len() && state.threads < self.threads {
            let desk = Arc::clone(&self.desk);
            let builder = thread::Builder::new().name("kv-reader".to_owned()).stack_size(STACK_BYTES);
            match builder.spawn(move || desk.serve()) {
                Ok(_) => state.threads = state.threads.saturating_add(1),
                Err(_) if state.threads == 0 => return Err(job),
                Err(_) => {}
            }
        }
        state.jobs.push_back(job);
        self.desk.changed.notify_one();
        Ok(())
    }
}

impl Desk {
    fn serve(&self) {
        let mut state = self.state.lock();
        while !state.is_closed {
            match state.jobs.pop_front() {
                Some(job) => {
                    drop(state);
                    job();
                    state = self.state.lock();
                }
                None => {
                    state.idle = state.idle.saturating_add(1);
                    let is_over;
                    (state, is_over) = self.changed.wait_for(state, IDLE);
                    state.idle = state.idle.saturating_sub(1);
                    if is_over && state.jobs.is_empty() {
                        break;
                    }
                }
            }
        }
        state.threads = state.threads.saturating_sub(1);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut state = self.desk.state.lock();
        state.is_closed = true;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        // What these hold may lead back here.
        drop(jobs);
        self.desk.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_without_work_end_and_come_again() {
        let pool = Pool::of(2);
        for _ in 0..3 {
            let (done, told) = std::sync::mpsc::channel();
            for _ in 0..20 {
                let done = done.clone();
                let job: Job = Box::new(move || done.send(()).expect("the test waits"));
                assert!(pool.run(job).is_ok());
            }
            assert_eq!(told.iter().take(20).count(), 20);
            assert!((1..=2).contains(&pool.desk.state.lock().threads));
            while pool.desk.state.lock().threads > 0 {
                thread::yield_now();
            }
        }
    }
}
