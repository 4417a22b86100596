//! Connections whose output is held until the log has what it rests on. One task commits for all of them: it lets everybody
//! carry out what has come in, writes and syncs that on its worker if it can, or has the log's thread do it, and wakes
//! those who waited.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use data_bridge_kv::sync::real::Mutex;
use data_bridge_kv_model::Result;
use tokio::sync::Notify;
use tokio::task::yield_now;

use crate::clients::Client;
use crate::mailbox::{DURABLE, LOST};
use crate::server::Shared;

/// Most rounds of the runtime that are given to others before a commit.
const ROUNDS: usize = 16;

/// Who waits for the log.
#[derive(Debug, Default)]
pub struct Held {
    queue: Mutex<Queue>,
    bell: Notify,
    /// The log failed: what is not durable never will be.
    is_lost: AtomicBool,
    /// A worker may commit.
    commits_here: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    /// Each with the record that its output rests on.
    waiting: Vec<(u64, Arc<Client>)>,
    /// Whether the task knows that somebody waits.
    is_told: bool,
}

/// Signals a connection once this record is durable, or is known not to become it.
pub fn hold(shared: &Arc<Shared>, lsn: u64, client: Arc<Client>) {
    client.held_at.store(shared.seconds(), Relaxed);
    let was_told = {
        let mut queue = shared.held.queue.lock();
        queue.waiting.push((lsn, client));
        std::mem::replace(&mut queue.is_told, true)
    };
    if !was_told {
        shared.held.bell.notify_one();
    }
}

/// Once a second: decides who commits. A worker may if the others are enough for the connections that do not wait for the
/// log: those would wait for the disk with it.
pub fn decide(shared: &Shared, clients: &[Arc<Client>]) {
    let others = busy_elsewhere(clients, shared.seconds());
    shared.held.commits_here.store(shared.threads > 1 && others < shared.threads, Relaxed);
}

/// How many connections were active of late and did not wait for the log.
fn busy_elsewhere(clients: &[Arc<Client>], now: u32) -> usize {
    let late = now.saturating_sub(1);
    let is_active = |client: &&Arc<Client>| client.active_at.load(Relaxed) >= late;
    clients.iter().filter(is_active).filter(|client| client.held_at.load(Relaxed) < late).count()
}

/// Commits, and signals those whose time has come, for the server's life.
pub async fn release(shared: Arc<Shared>) {
    let mut due = Vec::new();
    loop {
        shared.held.bell.notified().await;
        while let Some(lsn) = signal_due(&shared, &mut due) {
            let here = shared.held.commits_here.load(Relaxed);
            if here {
                gather(&shared.held).await;
            } else {
                shared.engine.leave_commits();
            }
            if !here || !shared.engine.commit(lsn) {
                call_back(&shared, lsn);
                break;
            }
        }
    }
}

/// Signals those whose time has come; answers the first record that somebody still waits for.
fn signal_due(shared: &Shared, due: &mut Vec<(u64, Arc<Client>)>) -> Option<u64> {
    let next = {
        let mut queue = shared.held.queue.lock();
        let is_lost = shared.held.is_lost.load(Acquire);
        let is_due = |lsn: u64| is_lost || shared.engine.is_durable(lsn);
        due.extend(queue.waiting.extract_if(.., |(lsn, _)| is_due(*lsn)));
        let next = queue.waiting.iter().map(|(lsn, _)| *lsn).min();
        queue.is_told = next.is_some();
        next
    };
    for (lsn, client) in due.drain(..) {
        client.mailbox.signal(if shared.engine.is_durable(lsn) { DURABLE } else { LOST });
    }
    next
}

/// Lets everybody who has something to do go first, as long as that makes more wait.
async fn gather(held: &Held) {
    let mut seen = 0;
    for _ in 0..ROUNDS {
        let waiting = held.queue.lock().waiting.len();
        if waiting == seen {
            break;
        }
        seen = waiting;
        yield_now().await;
    }
}

/// Lets the log's thread ring the bell. No lock is held: it may do so at once.
fn call_back(shared: &Arc<Shared>, lsn: u64) {
    let sharing = Arc::clone(shared);
    let ring = move |outcome: Result<()>| {
        if outcome.is_err() {
            sharing.held.is_lost.store(true, Release);
        }
        sharing.held.bell.notify_one();
    };
    shared.engine.when_durable(lsn, Box::new(ring));
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::clients::Clients;

    #[test]
    fn who_waits_for_the_log_or_is_idle_needs_no_other_worker() {
        let clients = Clients::new(10, 10);
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let all: Vec<_> = (0..4).map(|_| clients.admit(address, address, true, 0).unwrap()).collect();
        assert_eq!(busy_elsewhere(&all, 100), 0);
        all.iter().for_each(|client| client.active_at.store(99, Relaxed));
        assert_eq!(busy_elsewhere(&all, 100), 4);
        all[0].held_at.store(99, Relaxed);
        all[1].held_at.store(98, Relaxed);
        assert_eq!(busy_elsewhere(&all, 100), 3);
        assert_eq!(busy_elsewhere(&all, 101), 0);
    }
}
