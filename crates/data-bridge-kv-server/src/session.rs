//! What a connection has decided: namespace, protocol, authentication, names, and its transaction.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use data_bridge_kv::{Caller, NamespaceId, Waits};
use data_bridge_kv_model::command::table::{BLOCKING, STREAM, WRITE, opcode};
use data_bridge_kv_model::{Error, Key, Result, Spec};

use crate::allowance::FREE_BYTES;
use crate::clients::Client;
use crate::resp::encode::Skin;
use crate::server::Shared;
use crate::transaction::Transaction;

/// A key that the next transaction depends on.
pub struct Watched {
    /// Its namespace.
    pub namespace: NamespaceId,
    /// Its text.
    pub key: Box<str>,
    /// Its version when it was watched.
    pub version: u64,
}

/// The state of one connection beside its buffers.
pub struct Session {
    /// The server.
    pub shared: Arc<Shared>,
    /// What others may know of this connection.
    pub client: Arc<Client>,
    /// How the engine knows it.
    pub caller: Caller,
    /// Which RESP it speaks.
    pub skin: Skin,
    /// Whether it speaks the native protocol.
    pub native: bool,
    /// Whether it may run commands.
    pub authenticated: bool,
    /// The transaction that is being queued.
    pub transaction: Option<Transaction>,
    /// Keys that the next transaction depends on.
    pub watched: Vec<Watched>,
}

impl Session {
    /// The session of a new connection.
    pub fn new(shared: Arc<Shared>, client: Arc<Client>) -> Session {
        let mut caller = shared.engine.caller();
        caller.completions = Some(Arc::clone(&client) as _);
        caller.parks = true;
        caller.waits = Waits::Never;
        caller.most_bytes = FREE_BYTES;
        let authenticated = !shared.gate.is_closed();
        Session {
            shared,
            client,
            caller,
            skin: Skin::default(),
            native: false,
            authenticated,
            transaction: None,
            watched: Vec::new(),
        }
    }

    /// Lets the client in.
    pub fn welcome(&mut self) {
        self.authenticated = true;
        self.shared.clients.welcome(&self.client);
    }

    /// Chooses a namespace.
    pub fn select(&mut self, namespace: NamespaceId) {
        self.caller.namespace = namespace;
        self.client.namespace.store(u8::try_from(namespace.number()).unwrap_or(0), Relaxed);
    }

    /// Chooses RESP2 or RESP3.
    pub fn speak(&mut self, resp3: bool) {
        self.skin = Skin { resp3, typed: self.skin.typed && resp3 };
        if !self.native {
            self.client.protocol.store(if resp3 { 3 } else { 2 }, Relaxed);
        }
    }

    /// Makes the next transaction depend on a key; answers false if it would have to wait for the disk, and may not.
    pub fn watch(&mut self, key: Key<'_>) -> Result<bool> {
        let namespace = self.caller.namespace;
        let known = |one: &Watched| one.namespace == namespace && *one.key == *key.as_str();
        if !self.watched.iter().any(known) {
            let Some(version) = self.shared.engine.try_version(&self.caller, key)? else { return Ok(false) };
            self.watched.push(Watched { namespace, key: key.as_str().into(), version });
        }
        Ok(true)
    }

    /// Lets a command begin whose answer is to wait until it is on disk.
    ///
    /// # Errors
    /// `InvalidArgument` for a command that writes nothing, and in a namespace without a log.
    pub fn check_durable(&self, spec: &Spec) -> Result<()> {
        let writes = spec.has(WRITE) && spec.flags & (BLOCKING | STREAM) == 0;
        if !writes && ![opcode::EXEC, opcode::KV_ATOMIC].contains(&spec.opcode) {
            let why = if spec.has(WRITE) {
                "may have to wait for others"
            } else {
                "writes nothing that could be durable"
            };
            let text = format!("{} {why}", spec.name);
            return Err(Error::invalid(text));
        }
        self.shared.engine.check_durable(&self.caller)
    }

    /// Back to the state of a new connection; watches and waits of the engine end too.
    pub fn reset(&mut self) {
        self.shared.engine.disconnect(&self.caller);
        self.transaction = None;
        self.watched.clear();
        self.speak(false);
        self.select(NamespaceId::DEFAULT);
        self.client.names.lock().name.clear();
        self.authenticated &= !self.shared.gate.is_closed();
    }
}
