//! A naive model of the whole store, written to be obviously right: a sorted map of value trees for each namespace and a
//! clock that stands still. The engine's tests compare every reply with it, and it is itself compared with a real
//! Redis server. It shares nothing with the engine but the model crate.
//!
//! A command that fails changes nothing: each one works on a copy of its namespace that is only kept when it succeeds.

use std::collections::BTreeMap;

use data_bridge_kv_model::command::{Command, Expiry};
use data_bridge_kv_model::limits::{DEADLINE_MS, NAMESPACES};
use data_bridge_kv_model::value::SortedSet;
use data_bridge_kv_model::{Error, ErrorKind, Kind, Reply, Result, Value};

mod agreement;
mod graph;
mod hash;
mod key;
mod list;
mod matching;
mod number;
mod scalar;
mod set;
mod state;
mod zset;

pub use agreement::{Follower, canonical, same_fault};
pub use graph::Graph;
pub use matching::{normal as stored, shown, value_of};
pub use zset::{pairs_of, sorted_set};

/// What a key holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The value; sets and hashes in insertion order, sorted sets in score order.
    pub value: Value,
    /// Grows with every change, also across deletion.
    pub version: u64,
    /// Unix ms from which on the key is gone.
    pub deadline: Option<u64>,
}

/// One namespace.
#[derive(Clone, Debug)]
pub struct Space {
    entries: BTreeMap<String, Entry>,
    now: u64,
    last_version: u64,
    /// Whether a command took a step that the graph does not allow: it is undone.
    forbidden: bool,
    /// Time to live of keys that are written without one, in ms.
    pub default_ttl_ms: Option<u64>,
    /// Whether a flush is allowed.
    pub allow_flush: bool,
    /// Which steps the states of its hashes may take; `None` = all.
    pub graph: Option<Graph>,
}

/// The reply of a command that succeeded, or its error.
type Answer = Result<Reply>;

/// The whole store.
#[derive(Clone, Debug)]
pub struct Reference {
    spaces: Vec<Space>,
}

impl Reference {
    /// An empty store at `now` (unix ms). Namespace 1 refuses a flush, as the engine's preset does.
    pub fn new(now: u64) -> Reference {
        let space = |number| Space {
            entries: BTreeMap::new(),
            now,
            last_version: 0,
            forbidden: false,
            default_ttl_ms: None,
            allow_flush: number != 1,
            graph: None,
        };
        Reference { spaces: (0..NAMESPACES).map(space).collect() }
    }

    /// Moves the clock forward.
    pub fn advance(&mut self, ms: u64) {
        self.spaces.iter_mut().for_each(|space| space.now += ms);
    }

    /// The time in unix ms.
    pub fn now(&self) -> u64 {
        self.spaces[0].now
    }

    /// A namespace.
    pub fn space(&self, namespace: usize) -> &Space {
        &self.spaces[namespace]
    }

    /// A namespace, to be configured.
    pub fn space_mut(&mut self, namespace: usize) -> &mut Space {
        &mut self.spaces[namespace]
    }

    /// Carries out one command. What is random (SPOP and the like) takes the first; see [`agreement::Follower::follow`].
    pub fn execute(&mut self, namespace: usize, command: &Command<'_>) -> Reply {
        if let Command::Key(data_bridge_kv_model::command::KeyCommand::Flush { all: true }) = command {
            return self.flush_all();
        }
        let space = &mut self.spaces[namespace];
        space.expire();
        let mut next = space.clone();
        match next.run(command) {
            Ok(_) if next.forbidden => {
                Reply::Error(Error::new(ErrorKind::State, "the transition graph forbids this step"))
            }
            Ok(reply) => {
                next.expire();
                *space = next;
                reply
            }
            Err(error) => Reply::Error(error),
        }
    }

    /// Carries out several commands as one step that is undone as a whole when one of them fails; the error is then
    /// the reply, otherwise all replies.
    pub fn execute_atomic(&mut self, namespace: usize, commands: &[Command<'_>]) -> Result<Vec<Reply>> {
        let before = self.spaces[namespace].clone();
        let mut replies = Vec::new();
        for command in commands {
            match self.execute(namespace, command) {
                Reply::Error(error) => {
                    // Versions that were given stay used.
                    let last_version = self.spaces[namespace].last_version;
                    self.spaces[namespace] = Space { last_version, ..before };
                    return Err(error);
                }
                reply => replies.push(reply),
            }
        }
        Ok(replies)
    }

    /// Empties all namespaces, unless one of them holds keys and may not be flushed.
    fn flush_all(&mut self) -> Reply {
        self.spaces.iter_mut().for_each(Space::expire);
        if self.spaces.iter().any(|space| !space.allow_flush && !space.entries.is_empty()) {
            return Reply::Error(flush_refused());
        }
        self.spaces.iter_mut().for_each(|space| space.entries.clear());
        Reply::Ok
    }
}

fn flush_refused() -> Error {
    Error::new(ErrorKind::Unavailable, "flushing this namespace is not allowed")
}

impl Space {
    /// The live entry of a key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key).filter(|entry| entry.deadline.is_none_or(|deadline| deadline > self.now))
    }

    /// The live keys with their entries.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        let is_live = |entry: &Entry| entry.deadline.is_none_or(|deadline| deadline > self.now);
        self.entries.iter().filter(move |(_, entry)| is_live(entry)).map(|(key, entry)| (key.as_str(), entry))
    }

    /// The version of a key, 0 without one.
    pub fn version(&self, key: &str) -> u64 {
        self.get(key).map_or(0, |entry| entry.version)
    }

    fn run(&mut self, command: &Command<'_>) -> Answer {
        match command {
            Command::Scalar(command) => self.scalar(command),
            Command::Number(command) => self.number(command),
            Command::Key(command) => self.key(command),
            Command::List(command) => self.list(command),
            Command::Set(command) => self.set(command),
            Command::Hash(command) => self.hash(command),
            Command::ZSet(command) => self.zset(command),
            Command::State(command) => self.state(command),
            Command::Connection(_) => Err(Error::invalid("not a command for the engine")),
        }
    }

    fn expire(&mut self) {
        let now = self.now;
        self.entries.retain(|_, entry| entry.deadline.is_none_or(|deadline| deadline > now));
    }

    /// Writes a whole value; answers the new version.
    fn put(&mut self, key: &str, value: Value, deadline: Option<u64>) -> u64 {
        self.forbidden |= !self.allows_step(key, Some(&value));
        self.last_version += 1;
        let entry = Entry { value: matching::normal(value), version: self.last_version, deadline };
        self.entries.insert(key.to_owned(), entry);
        self.last_version
    }

    /// Writes a value that a command changed in place: the deadline stays, and a collection that became empty goes.
    fn edit(&mut self, key: &str, value: Value) {
        if element_count(&value) == Some(0) {
            self.forbidden |= matches!(value, Value::Hash(_)) && !self.allows_step(key, None);
            self.entries.remove(key);
            return;
        }
        let deadline = match self.get(key) {
            Some(entry) => entry.deadline,
            None => self.deadline_of(key, Expiry::Default),
        };
        self.put(key, value, deadline);
    }

    fn set_deadline(&mut self, key: &str, deadline: Option<u64>) {
        if let Some(entry) = self.entries.get_mut(key) {
            self.last_version += 1;
            entry.version = self.last_version;
            entry.deadline = deadline;
        }
    }

    /// The deadline that a write gives a key: at most the last one that can be stored.
    fn deadline_of(&self, key: &str, expiry: Expiry) -> Option<u64> {
        match expiry {
            Expiry::Default => self.default_ttl_ms.map(|ttl| (self.now + ttl).min(DEADLINE_MS)),
            Expiry::Keep => self.get(key).and_then(|entry| entry.deadline),
            Expiry::Never => None,
            Expiry::In(ms) => Some((self.now + ms).min(DEADLINE_MS)),
            Expiry::At(ms) => Some(ms),
        }
    }
}

fn element_count(value: &Value) -> Option<usize> {
    match value {
        Value::List(items) | Value::Set(items) => Some(items.len()),
        Value::Hash(fields) => Some(fields.len()),
        Value::SortedSet(SortedSet::Float(members)) => Some(members.len()),
        Value::SortedSet(SortedSet::Decimal(members)) => Some(members.len()),
        _ => None,
    }
}

/// Whether GET and its kin may show a value of this kind.
fn is_string(kind: Kind) -> bool {
    !kind.is_container()
}

/// A count as a reply.
fn count(count: usize) -> Reply {
    Reply::Integer(i64::try_from(count).expect("a count of things in memory"))
}

/// A value as a reply, Missing where there is none.
fn maybe(value: Option<Value>) -> Reply {
    value.map_or(Reply::Missing, Reply::Value)
}

/// A flag as Redis answers it.
fn flag(yes: bool) -> Reply {
    Reply::Integer(i64::from(yes))
}
