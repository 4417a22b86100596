//! The data-bridge KV server: RESP2, RESP3 and the native protocol on one port, an admin port, and the binary
//! `data-bridge-kv`.
//!
//! [`run`] is the whole program; [`Server`] serves on a caller's tokio runtime:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use data_bridge_kv::{Engine, Settings};
//! use data_bridge_kv_server::config::keys::KeyName;
//! use data_bridge_kv_server::config::{Config, layers::Layers};
//! use data_bridge_kv_server::Server;
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let flags = vec![(KeyName::Listen, "127.0.0.1:0".into()), (KeyName::Admin, "off".into())];
//! let (config, _) = Config::read(&Layers { flags, ..Layers::default() }).unwrap();
//! let engine = Arc::new(Engine::open(Settings::default()).unwrap());
//! let server = Server::start(config, engine).await.unwrap();
//! assert_ne!(server.addresses()[0].port(), 0);
//! server.stop(Duration::from_secs(1)).await;
//! # });
//! ```
#![forbid(unsafe_code)]

mod admin;
pub mod allowance;
pub mod auth;
pub mod cli;
pub mod clients;
pub mod commands;
pub mod config;
mod connection;
pub mod destination;
pub mod dialogue;
pub mod disk;
pub mod endpoint;
mod files;
#[doc(hidden)]
pub mod fuzz;
pub mod held;
mod janitor;
mod json;
mod listener;
mod loading;
pub mod mailbox;
mod native;
mod pending;
mod process;
mod program;
mod recycle;
mod repeated;
pub mod requests;
pub mod resp;
pub mod server;
pub mod session;
mod shutdown;
mod snapshots;
mod startline;
#[cfg(feature = "object-store")]
pub mod storage;
#[cfg(not(feature = "object-store"))]
#[path = "storage/absent.rs"]
pub mod storage;
mod stream;
pub mod transaction;

pub use program::run;
pub use server::Server;

/// Version of this server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The Redis version whose commands and replies this server follows; clients decide by it what they may send.
pub const REDIS_VERSION: &str = "7.4.0";
