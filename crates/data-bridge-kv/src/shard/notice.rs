//! What a finished step tells others: answers to waiters and events for watchers, sent after every lock is released.

use std::sync::Arc;

use data_bridge_kv_model::{ReplyBuf, Shape, ValueRef};

use crate::wal::{Failure, Lsn, Wal};

/// Where answers of waits and events of watches go. Called from any thread without locks; it must not block and must
/// not call the engine.
pub trait Completions: Send + Sync {
    /// The answer to a pending command: one reply item.
    fn complete(&self, token: u64, reply: &[u8]);
    /// An event of a watch: one reply item, Array[Status change, Text key, Integer version].
    fn event(&self, watch: u64, event: &[u8]);
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Written.
    Set,
    /// Deleted by a command.
    Delete,
    /// Its deadline passed.
    Expire,
    /// Memory was needed.
    Evict,
}

impl Change {
    /// The word in an event.
    pub fn word(self) -> &'static str {
        match self {
            Change::Set => "set",
            Change::Delete => "delete",
            Change::Expire => "expire",
            Change::Evict => "evict",
        }
    }
}

enum Notice {
    Complete { completions: Arc<dyn Completions>, token: u64, reply: ReplyBuf },
    Event { completions: Arc<dyn Completions>, watch: u64, event: Arc<[u8]> },
}

/// Notices of one step. Dropping them would lose answers: they are sent when the step's locks are released, and what
/// they rest on is durable.
#[derive(Default)]
#[must_use]
pub struct Notices {
    list: Vec<Notice>,
    rests_on: Lsn,
    wal: Option<Arc<Wal>>,
    filled: Vec<Box<str>>,
}

impl Notices {
    /// Adds an answer.
    pub fn complete(&mut self, completions: Arc<dyn Completions>, token: u64, reply: ReplyBuf) {
        self.list.push(Notice::Complete { completions, token, reply });
    }

    /// Adds an event.
    pub fn event(&mut self, completions: Arc<dyn Completions>, watch: u64, event: Arc<[u8]>) {
        self.list.push(Notice::Event { completions, watch, event });
    }

    /// Adds a key that may have something for those who wait to take it.
    pub fn fill(&mut self, key: &str) {
        if self.filled.last().is_none_or(|last| **last != *key) {
            self.filled.push(key.into());
        }
    }

    /// Takes the keys that may have something for those who wait, in the order in which they got it.
    pub fn take_filled(&mut self) -> Vec<Box<str>> {
        std::mem::take(&mut self.filled)
    }

    /// Nobody may be told before this record is durable.
    pub fn rest_on(&mut self, lsn: Lsn, wal: Option<&Arc<Wal>>) {
        self.rests_on = lsn;
        self.wal = wal.map(Arc::clone);
    }

    /// The record that has to be durable before anybody may see what the step answered; 0 = none.
    pub fn rests_on(&self) -> Lsn {
        self.rests_on
    }

    /// Sends them, or lets the log do it. No lock may be held.
    #[inline]
    pub fn send(self) {
        if !self.list.is_empty() {
            self.send_in_time();
        }
    }

    fn send_in_time(self) {
        match self.wal {
            Some(wal) if wal.durable() < self.rests_on => {
                let list = self.list;
                wal.when_durable(self.rests_on, Box::new(move |outcome| send_all(list, outcome.err())));
            }
            _ => send_all(self.list, None),
        }
    }
}

/// Sends notices; after a failure of the log nobody knows whether what they tell of lasts.
fn send_all(notices: Vec<Notice>, failure: Option<Failure>) {
    let error = failure.map(|failure| {
        let mut reply = ReplyBuf::new();
        reply.error(&failure.into());
        reply
    });
    for notice in notices {
        match (notice, &error) {
            (Notice::Complete { completions, token, reply }, None) => {
                completions.complete(token, reply.as_bytes());
            }
            (Notice::Complete { completions, token, .. }, Some(error)) => {
                completions.complete(token, error.as_bytes());
            }
            (Notice::Event { completions, watch, event }, None) => completions.event(watch, &event),
            (Notice::Event { .. }, Some(_)) => {}
        }
    }
}

/// The bytes of an event.
pub fn event_item(change: Change, key: &[u8], version: u64) -> Arc<[u8]> {
    let mut out = ReplyBuf::new();
    out.container(Shape::Array, 3);
    out.status(change.word());
    out.value(ValueRef::from_parts(data_bridge_kv_model::Kind::Text, key));
    out.version(version);
    out.as_bytes().into()
}
