//! Rust client of the native data-bridge KV protocol: asynchronous and pipelined.
//!
//! [`core`] is the protocol without I/O, for every shell; the rest is the shell for tokio.
#![forbid(unsafe_code)]

pub mod core;
