//! What a finished step tells others: answers to waiters and events for watchers, sent after every lock is released.

use std::sync::Arc;

use data_bridge_kv_model::{ReplyBuf, Shape, ValueRef};

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

/// Notices of one step. Dropping them would lose answers: they are sent when the step's locks are released.
#[derive(Default)]
#[must_use]
pub struct Notices(Vec<Notice>);

impl Notices {
    /// Adds an answer.
    pub fn complete(&mut self, completions: Arc<dyn Completions>, token: u64, reply: ReplyBuf) {
        self.0.push(Notice::Complete { completions, token, reply });
    }

    /// Adds an event.
    pub fn event(&mut self, completions: Arc<dyn Completions>, watch: u64, event: Arc<[u8]>) {
        self.0.push(Notice::Event { completions, watch, event });
    }

    /// Sends them. No lock may be held.
    #[inline]
    pub fn send(self) {
        if !self.0.is_empty() {
            self.send_all();
        }
    }

    fn send_all(self) {
        for notice in self.0 {
            match notice {
                Notice::Complete { completions, token, reply } => {
                    completions.complete(token, reply.as_bytes())
                }
                Notice::Event { completions, watch, event } => completions.event(watch, &event),
            }
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
