//! The data-bridge KV engine: namespaces, shards, expiry, eviction, waiting. Standard threads only; no tokio, no Python, no network.
#![deny(unsafe_code)]

pub mod clock;
pub mod collections;
pub mod evict;
pub mod expire;
mod footprint;
pub mod hash;
pub mod table;
