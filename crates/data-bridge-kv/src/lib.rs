//! The data-bridge KV engine: namespaces, shards, expiry, eviction, waiting. Standard threads only; no tokio, no
//! Python, no network.
//!
//! [`Engine`] is the door: it executes the commands of `data-bridge-kv-model` and answers in reply items.
#![deny(unsafe_code)]

pub mod budget;
pub mod clock;
pub mod cold;
pub mod collections;
pub mod disk;
pub mod engine;
pub mod evict;
pub mod expire;
mod footprint;
pub mod hash;
pub mod manifest;
pub mod mutation;
pub mod opening;
mod random;
pub mod record;
mod router;
pub mod settings;
pub mod shard;
pub mod snapshot;
pub mod sync;
pub mod table;
pub mod wal;

pub use budget::Resident;
pub use clock::{Clock, ManualClock, SystemClock};
pub use engine::{
    Ahead, Caller, Chore, Engine, Lookahead, Lookout, NamespaceId, NamespaceStats, Needs, Obstacle, OnError,
    Owed, Pin, Progress, Stats, Turn, Waits,
};
pub use settings::{DataDirectory, Durability, Eviction, Mode, NamespaceSettings, Settings, TransitionGraph};
pub use shard::notice::Completions;
