//! The data-bridge KV engine: namespaces, shards, expiry, eviction, waiting. Standard threads only; no tokio, no Python, no network.
