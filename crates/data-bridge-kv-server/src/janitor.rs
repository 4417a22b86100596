//! Once a second: ends connections that break a limit of time or memory, and asks idle ones to give back memory.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use data_bridge_kv_model::limits::{
    OUTPUT_HELD_RATE, OUTPUT_HELD_SECONDS, OUTPUT_SOFT_SECONDS, UNAUTHENTICATED_SECONDS,
};

use crate::clients::Client;
use crate::held;
use crate::mailbox::{END, TRIM};
use crate::server::Shared;

/// How long a request may take to arrive, in seconds.
const REQUEST_SECONDS: u32 = 30;
/// Idle for this many seconds, a connection gives back its buffers.
const IDLE_SECONDS: u32 = 2;
/// Buffers below this size are not worth giving back.
const WORTH_BYTES: usize = 4 << 10;
/// Share of the memory budget that all connections may take together, beside what the allowances give to large requests
/// and answers in turn.
const CLIENT_SHARE: u64 = 10;
/// Memory that connections may take even under a tiny budget.
const CLIENT_FLOOR: u64 = 64 << 20;

/// Runs for the server's life.
pub async fn look_after(shared: Arc<Shared>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut commands = 0;
    let limit = (shared.engine.stats().max_memory / CLIENT_SHARE).max(CLIENT_FLOOR);
    loop {
        second.tick().await;
        shared.beat();
        let left_out = shared.repeated.begin_second();
        if left_out > 0 {
            tracing::warn!(lines = left_out, "lines like those of this second were left out");
        }
        let total = shared.clients.totals().commands;
        shared.set_rate(total.saturating_sub(commands));
        commands = total;
        let clients = shared.clients.list();
        held::decide(&shared, &clients);
        let now = shared.seconds();
        for client in &clients {
            if let Some(reason) = overdue(client, now, shared.allowance.waiting() > 0) {
                if shared.repeated.allows() {
                    tracing::info!(address = %client.address, id = client.id, reason, "ending a connection");
                }
                client.mailbox.signal(END);
            } else if is_idle(client, now) {
                client.mailbox.signal(TRIM);
            }
        }
        if let Some(client) = largest_offender(&clients, limit) {
            tracing::warn!(address = %client.address, id = client.id, "connections take too much memory: ending the largest");
            client.mailbox.signal(END);
        }
    }
}

/// Why a connection must end now.
fn overdue(client: &Client, now: u32, others_wait: bool) -> Option<&'static str> {
    let longer_than = |since: u32, limit: u32| since > 0 && now >= since.saturating_add(limit);
    let soft = u32::try_from(OUTPUT_SOFT_SECONDS).unwrap_or(u32::MAX);
    if !client.authenticated.load(Relaxed) && client.since.elapsed().as_secs() >= UNAUTHENTICATED_SECONDS {
        Some("not authenticated in time")
    } else if longer_than(client.incomplete_since.load(Relaxed), REQUEST_SECONDS) {
        Some("a request was not completed in time")
    } else if longer_than(client.full_since.load(Relaxed), soft) {
        Some("replies were not read in time")
    } else if others_wait && is_holding_up(client, now) {
        Some("replies were not read while others waited for their memory")
    } else {
        None
    }
}

/// Whether it takes the answers that it holds memory of the allowance for too slowly.
fn is_holding_up(client: &Client, now: u32) -> bool {
    let since = client.holding_since.load(Relaxed);
    let seconds = u64::from(now.saturating_add(1).saturating_sub(since));
    let taken = client.taken.load(Relaxed).saturating_sub(client.held_from.load(Relaxed));
    since > 0 && seconds >= OUTPUT_HELD_SECONDS && taken / seconds < OUTPUT_HELD_RATE
}

fn is_idle(client: &Client, now: u32) -> bool {
    let memory = client.input_bytes.load(Relaxed).saturating_add(client.output_bytes.load(Relaxed));
    memory > WORTH_BYTES && now.saturating_sub(client.active_at.load(Relaxed)) >= IDLE_SECONDS
}

/// The connection with the most memory, if all together are above the limit.
fn largest_offender(clients: &[Arc<Client>], limit: u64) -> Option<&Arc<Client>> {
    let memory = |client: &Arc<Client>| {
        let buffers = client.input_bytes.load(Relaxed).saturating_add(client.output_bytes.load(Relaxed));
        buffers.saturating_sub(client.allowed_bytes.load(Relaxed)) as u64
    };
    let total: u64 = clients.iter().map(memory).sum();
    clients.iter().filter(|_| total > limit).max_by_key(|client| memory(client))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::Clients;
    use std::net::SocketAddr;

    fn client(clients: &Clients) -> Arc<Client> {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        clients.admit(address, address, true, 0).unwrap()
    }

    #[test]
    fn time_limits_count_from_their_beginning() {
        let clients = Clients::new(10, 10);
        let client = client(&clients);
        assert_eq!(overdue(&client, 1000, true), None);
        client.incomplete_since.store(11, Relaxed);
        assert_eq!(overdue(&client, 40, true), None);
        assert_eq!(overdue(&client, 41, true), Some("a request was not completed in time"));
        client.incomplete_since.store(0, Relaxed);
        client.full_since.store(1, Relaxed);
        assert_eq!(overdue(&client, 60, true), None);
        assert_eq!(overdue(&client, 61, true), Some("replies were not read in time"));
    }

    #[test]
    fn who_takes_answers_slowly_is_ended_only_if_others_wait_for_it() {
        let clients = Clients::new(10, 10);
        let client = client(&clients);
        client.held_from.store(1 << 20, Relaxed);
        client.taken.store(2 << 20, Relaxed);
        client.holding_since.store(11, Relaxed);
        let reason = Some("replies were not read while others waited for their memory");
        assert_eq!((overdue(&client, 19, true), overdue(&client, 26, true)), (None, None));
        assert_eq!((overdue(&client, 27, false), overdue(&client, 27, true)), (None, reason));
        client.holding_since.store(0, Relaxed);
        assert_eq!(overdue(&client, 27, true), None);
    }

    #[test]
    fn the_largest_pays_when_all_take_too_much() {
        let clients = Clients::new(10, 10);
        let all = [client(&clients), client(&clients)];
        all[0].input_bytes.store(100, Relaxed);
        all[1].output_bytes.store(200, Relaxed);
        assert!(largest_offender(&all, 300).is_none());
        assert_eq!(largest_offender(&all, 299).unwrap().id, all[1].id);
        all[1].allowed_bytes.store(150, Relaxed);
        assert!(largest_offender(&all, 150).is_none());
        assert_eq!(largest_offender(&all, 149).unwrap().id, all[0].id);
        assert!(!is_idle(&all[1], 100));
        all[1].output_bytes.store(5000, Relaxed);
        assert!(is_idle(&all[1], 100));
    }
}
