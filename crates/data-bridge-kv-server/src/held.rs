//! Connections whose output is held until the log has what it rests on. The log calls once for a sync, however many wait,
//! and one task wakes them all from a worker, which costs less than from a thread beside the runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};

use data_bridge_kv_model::Result;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clients::Client;
use crate::mailbox::{DURABLE, LOST};
use crate::server::Shared;

/// Who waits for the log.
#[derive(Debug, Default)]
pub struct Held {
    queue: Mutex<Queue>,
    bell: Notify,
    /// The log failed: what is not durable never will be.
    is_lost: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    /// Each with the record that its output rests on.
    waiting: Vec<(u64, Arc<Client>)>,
    /// Whether the log will call.
    is_armed: bool,
}

/// Signals a connection once this record is durable, or is known not to become it.
pub fn hold(shared: &Arc<Shared>, lsn: u64, client: Arc<Client>) {
    let was_armed = {
        let mut queue = shared.held.queue.lock();
        queue.waiting.push((lsn, client));
        std::mem::replace(&mut queue.is_armed, true)
    };
    if !was_armed {
        arm(shared, lsn);
    }
}

/// Lets the log ring the bell. No lock is held: it may do so at once.
fn arm(shared: &Arc<Shared>, lsn: u64) {
    let sharing = Arc::clone(shared);
    let ring = move |outcome: Result<()>| {
        if outcome.is_err() {
            sharing.held.is_lost.store(true, Release);
        }
        sharing.held.bell.notify_one();
    };
    shared.engine.when_durable(lsn, Box::new(ring));
}

/// Signals those whose time has come whenever the log calls, for the server's life.
pub async fn release(shared: Arc<Shared>) {
    let mut due = Vec::new();
    loop {
        shared.held.bell.notified().await;
        let next = {
            let mut queue = shared.held.queue.lock();
            let is_lost = shared.held.is_lost.load(Acquire);
            let is_due = |lsn: u64| is_lost || shared.engine.is_durable(lsn);
            due.extend(queue.waiting.extract_if(.., |(lsn, _)| is_due(*lsn)));
            let next = queue.waiting.iter().map(|(lsn, _)| *lsn).min();
            queue.is_armed = next.is_some();
            next
        };
        for (lsn, client) in due.drain(..) {
            client.mailbox.signal(if shared.engine.is_durable(lsn) { DURABLE } else { LOST });
        }
        if let Some(lsn) = next {
            arm(&shared, lsn);
        }
    }
}
