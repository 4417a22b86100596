//! Rust client of the native data-bridge KV protocol: asynchronous and pipelined.
