//! A client: its script, what it was answered and has not been shown yet, and what was pushed to it.

use std::collections::VecDeque;
use std::sync::Arc;

use data_bridge_kv::sync::real::Mutex;
use data_bridge_kv::{Caller, Completions, Engine};
use data_bridge_kv_model::{Reply, ReplyReader, Value};

use crate::plan::{Plan, Step};
use crate::witness::Position;

pub struct Client {
    pub caller: Caller,
    pub space: usize,
    pub script: VecDeque<Step>,
    /// The changes that answers rest on which are held back.
    pub held: Vec<Position>,
    pub mailbox: Arc<Mailbox>,
    /// The keys that it waits for, by token.
    pub waits: Vec<&'static str>,
}

/// What is pushed to a client.
#[derive(Default)]
pub struct Mailbox(Mutex<Vec<Push>>);

pub enum Push {
    /// The answer of a wait.
    Answer { token: u64, version: u64 },
    /// An event of a watch.
    Event { change: String, key: String, version: u64 },
}

impl Completions for Mailbox {
    fn complete(&self, token: u64, reply: &[u8]) {
        // An error tells of no state.
        if let Ok(Reply::Container(_, items)) = ReplyReader::new(reply).reply()
            && let [Reply::Value(_), Reply::Integer(version)] = &items[..]
        {
            self.0.lock().push(Push::Answer { token, version: version.cast_unsigned() });
        }
    }

    fn event(&self, _watch: u64, event: &[u8]) {
        let Ok(Reply::Container(_, items)) = ReplyReader::new(event).reply() else { return };
        let [Reply::Status(change), Reply::Value(Value::Text(key)), Reply::Integer(version)] = &items[..]
        else {
            return;
        };
        let (change, key) = (change.to_string(), key.to_string());
        self.0.lock().push(Push::Event { change, key, version: version.cast_unsigned() });
    }
}

impl Mailbox {
    pub fn take(&self) -> Vec<Push> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Client {
    pub fn new(engine: &Engine, space: usize, seed: u64) -> Client {
        let mailbox = Arc::<Mailbox>::default();
        let script = Plan::new(seed).steps.into();
        let caller = Client::caller(engine, space, &mailbox);
        Client { caller, space, script, held: Vec::new(), mailbox, waits: Vec::new() }
    }

    fn caller(engine: &Engine, space: usize, mailbox: &Arc<Mailbox>) -> Caller {
        let namespace = engine.namespace(&space.to_string()).expect("a namespace");
        Caller { namespace, completions: Some(Arc::clone(mailbox) as _), parks: true, ..engine.caller() }
    }

    /// Begins anew with a store that was opened again; answers that it has not been shown never come.
    pub fn reconnect(&mut self, engine: &Engine) {
        self.mailbox = Arc::default();
        self.caller = Client::caller(engine, self.space, &self.mailbox);
        self.held.clear();
        self.waits.clear();
    }
}
