//! Nouns and bytes of the data-bridge KV store: keys, values, decimals, commands, replies, errors, limits, the value
//! codec and the native frame. No I/O, no threads, no time.
//!
//! Everything else of the store speaks in these types; nothing here knows who uses it.
#![forbid(unsafe_code)]

pub mod arg;
mod bigint;
mod calendar;
pub mod codec;
pub mod command;
pub mod decimal;
pub mod error;
pub mod frame;
pub mod glob;
pub mod identity;
pub mod key;
pub mod kind;
pub mod limits;
mod literal;
pub mod reply;
pub mod show;
pub mod value;

pub use arg::{Arg, Args};
pub use codec::{Items, Reader, ValueRef};
pub use command::{Call, Command, KeySet, Keys, Spec};
pub use decimal::{Decimal, DecimalError};
pub use error::{Error, ErrorKind, Found, Result};
pub use glob::{Glob, PatternTooLong};
pub use key::Key;
pub use kind::Kind;
pub use reply::{Item, Reply, ReplyBuf, ReplyReader, Shape};
pub use value::Value;
