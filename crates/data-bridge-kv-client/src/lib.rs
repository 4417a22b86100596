//! Rust client of the native data-bridge KV protocol: asynchronous and pipelined.
//!
//! [`core`] is the protocol without I/O, for every shell; [`Client`] is the shell for tokio.
#![forbid(unsafe_code)]

mod client;
pub mod core;

pub use client::{Client, Options};
