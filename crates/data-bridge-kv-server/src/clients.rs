//! Who is connected: admission, what `CLIENT LIST` shows, and the sums for `INFO` and `/metrics`.
//!
//! A connection's task writes its own counters without contention; whoever asks adds them up.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};
use std::time::Instant;

use data_bridge_kv::Completions;
use data_bridge_kv::sync::real::Mutex;
use data_bridge_kv_model::Spec;
use data_bridge_kv_model::limits::UNAUTHENTICATED_CONNECTIONS;

use crate::dialogue::Ending;
use crate::endpoint::Endpoint;
use crate::mailbox::{Letter, Mailbox};

/// What others may know of a connection.
#[derive(Debug)]
pub struct Client {
    /// Its number, never used again.
    pub id: u64,
    /// The other end.
    pub address: Endpoint,
    /// Our end.
    pub local: Endpoint,
    /// When it was accepted.
    pub since: Instant,
    /// How to reach it.
    pub mailbox: Mailbox,
    /// Names the client gave itself.
    pub names: Mutex<Names>,
    /// Whether it may run commands.
    pub authenticated: AtomicBool,
    /// 2, 3, or 0 for the native protocol.
    pub protocol: AtomicU8,
    /// Number of its namespace.
    pub namespace: AtomicU8,
    /// Opcode of its last command.
    pub last_opcode: AtomicU16,
    /// Second of the server's life in which it was last heard of.
    pub active_at: AtomicU32,
    /// The one in which it last had to wait for the log.
    pub held_at: AtomicU32,
    /// Second since which a request is incomplete, plus one; 0 = none is.
    pub incomplete_since: AtomicU32,
    /// Second since which the output is above the soft limit, plus one; 0 = it is not.
    pub full_since: AtomicU32,
    /// Second since which it holds a part of the allowance for answers that were not taken, plus one; 0 = it does not.
    pub holding_since: AtomicU32,
    /// What `taken` was then.
    pub held_from: AtomicU64,
    /// Bytes that the client took until the last look, while it holds such a part.
    pub taken: AtomicU64,
    /// Memory of its input buffer.
    pub input_bytes: AtomicUsize,
    /// Memory of its output buffer.
    pub output_bytes: AtomicUsize,
    /// How much of these two it has by its turn in an allowance, which bounds them.
    pub allowed_bytes: AtomicUsize,
    /// Commands carried out.
    pub commands: AtomicU64,
    /// Bytes received.
    pub received: AtomicU64,
    /// Bytes sent.
    pub sent: AtomicU64,
}

/// Names a client gave itself.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// CLIENT SETNAME or HELLO SETNAME.
    pub name: String,
    /// CLIENT SETINFO LIB-NAME.
    pub library: String,
    /// CLIENT SETINFO LIB-VER.
    pub library_version: String,
}

impl Client {
    /// Counts commands that were carried out; the last one was `spec`. Only the connection's own task calls this.
    #[inline]
    pub fn count(&self, commands: usize, spec: Option<&'static Spec>) {
        let done = self.commands.load(Relaxed).wrapping_add(commands as u64);
        self.commands.store(done, Relaxed);
        if let Some(spec) = spec {
            self.last_opcode.store(spec.opcode, Relaxed);
        }
    }
}

impl Completions for Client {
    fn complete(&self, token: u64, reply: &[u8]) {
        self.mailbox.deliver(Letter::Answer(token), reply);
    }

    fn event(&self, watch: u64, event: &[u8]) {
        self.mailbox.deliver(Letter::Event(watch), event);
    }
}

/// Sums over connections that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections refused.
    pub refused: u64,
    /// Connections ended by the server for breaking a limit.
    pub ended: u64,
    /// Connections ended by the server because what they sent is no request.
    pub malformed: u64,
    /// Commands carried out.
    pub commands: u64,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
}

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many as the server takes.
    Full,
    /// As many as it takes of one address.
    Address,
    /// Too many that have not authenticated yet.
    Strangers,
}

impl Refusal {
    /// One line for the client.
    pub fn message(self) -> &'static str {
        match self {
            Refusal::Full => "max number of clients reached",
            Refusal::Address => "max number of clients of this address reached",
            Refusal::Strangers => "too many connections that have not authenticated",
        }
    }
}

#[derive(Default)]
struct Register {
    clients: HashMap<u64, Arc<Client>>,
    by_address: HashMap<IpAddr, usize>,
    totals: Totals,
    last_id: u64,
}

/// All connections.
pub struct Clients {
    register: Mutex<Register>,
    strangers: AtomicUsize,
    most: usize,
    most_of_address: usize,
}

impl Clients {
    /// An empty register with its limits.
    pub fn new(most: usize, most_of_address: usize) -> Clients {
        Clients { register: Mutex::default(), strangers: AtomicUsize::new(0), most, most_of_address }
    }

    /// Takes a new connection in, or says why not.
    pub fn admit(
        &self,
        address: impl Into<Endpoint>,
        local: impl Into<Endpoint>,
        authenticated: bool,
        now: u32,
    ) -> Result<Arc<Client>, Refusal> {
        let (address, local) = (address.into(), local.into());
        let mut register = self.register.lock();
        let of_address = register.by_address.get(&address.ip()).copied().unwrap_or(0);
        let refusal = if register.clients.len() >= self.most {
            Some(Refusal::Full)
        } else if of_address >= self.most_of_address {
            Some(Refusal::Address)
        } else if !authenticated && self.strangers.load(Relaxed) >= UNAUTHENTICATED_CONNECTIONS {
            Some(Refusal::Strangers)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            register.totals.refused += 1;
            return Err(refusal);
        }
        if !authenticated {
            self.strangers.fetch_add(1, Relaxed);
        }
        register.last_id += 1;
        register.totals.accepted += 1;
        *register.by_address.entry(address.ip()).or_default() += 1;
        let client = Arc::new(Client {
            id: register.last_id,
            address,
            local,
            since: Instant::now(),
            mailbox: Mailbox::default(),
            names: Mutex::default(),
            authenticated: AtomicBool::new(authenticated),
            protocol: AtomicU8::new(2),
            namespace: AtomicU8::new(0),
            last_opcode: AtomicU16::new(0),
            held_at: AtomicU32::new(0),
            active_at: AtomicU32::new(now),
            incomplete_since: AtomicU32::new(0),
            full_since: AtomicU32::new(0),
            holding_since: AtomicU32::new(0),
            held_from: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            input_bytes: AtomicUsize::new(0),
            output_bytes: AtomicUsize::new(0),
            allowed_bytes: AtomicUsize::new(0),
            commands: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        });
        register.clients.insert(client.id, Arc::clone(&client));
        Ok(client)
    }

    /// Notes that a connection authenticated.
    pub fn welcome(&self, client: &Client) {
        if !client.authenticated.swap(true, Relaxed) {
            self.strangers.fetch_sub(1, Relaxed);
        }
    }

    /// Takes a connection out that ended.
    pub fn remove(&self, client: &Client, ending: Ending) {
        if !client.authenticated.load(Relaxed) {
            self.strangers.fetch_sub(1, Relaxed);
        }
        let mut register = self.register.lock();
        register.clients.remove(&client.id);
        if let Some(count) = register.by_address.get_mut(&client.address.ip()) {
            *count -= 1;
            if *count == 0 {
                register.by_address.remove(&client.address.ip());
            }
        }
        let totals = &mut register.totals;
        match ending {
            Ending::Wanted => {}
            Ending::Limit => totals.ended += 1,
            Ending::Malformed => totals.malformed += 1,
        }
        totals.commands += client.commands.load(Relaxed);
        totals.received += client.received.load(Relaxed);
        totals.sent += client.sent.load(Relaxed);
    }

    /// All connections now, by number.
    pub fn list(&self) -> Vec<Arc<Client>> {
        let mut list: Vec<Arc<Client>> = self.register.lock().clients.values().cloned().collect();
        list.sort_unstable_by_key(|client| client.id);
        list
    }

    /// The connection with this number.
    pub fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.register.lock().clients.get(&id).cloned()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.register.lock().clients.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sums over all connections, ended and living.
    pub fn totals(&self) -> Totals {
        let register = self.register.lock();
        register.clients.values().fold(register.totals, |mut totals, client| {
            totals.commands += client.commands.load(Relaxed);
            totals.received += client.received.load(Relaxed);
            totals.sent += client.sent.load(Relaxed);
            totals
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 1000))
    }

    #[test]
    fn limits_count_all_those_of_an_address_and_strangers() {
        let clients = Clients::new(3, 2);
        let first = clients.admit(address(1), address(9), true, 0).unwrap();
        clients.admit(address(1), address(9), true, 0).unwrap();
        assert_eq!(clients.admit(address(1), address(9), true, 0).unwrap_err(), Refusal::Address);
        clients.admit(address(2), address(9), true, 0).unwrap();
        assert_eq!(clients.admit(address(3), address(9), true, 0).unwrap_err(), Refusal::Full);
        first.commands.store(5, Relaxed);
        clients.remove(&first, Ending::Wanted);
        clients.admit(address(1), address(9), true, 0).unwrap();
        assert_eq!(
            (clients.totals().accepted, clients.totals().refused, clients.totals().commands),
            (4, 2, 5)
        );
    }

    #[test]
    fn strangers_are_few_and_those_who_authenticate_make_room() {
        let clients = Clients::new(1000, 1000);
        let all: Vec<_> = (0..UNAUTHENTICATED_CONNECTIONS)
            .map(|_| clients.admit(address(1), address(9), false, 0).unwrap())
            .collect();
        assert_eq!(clients.admit(address(1), address(9), false, 0).unwrap_err(), Refusal::Strangers);
        clients.welcome(&all[0]);
        clients.welcome(&all[0]);
        clients.admit(address(1), address(9), false, 0).unwrap();
        clients.remove(&all[1], Ending::Wanted);
        clients.admit(address(1), address(9), false, 0).unwrap();
        assert_eq!(clients.admit(address(1), address(9), false, 0).unwrap_err(), Refusal::Strangers);
    }
}
