//! Nouns and bytes of the data-bridge KV store: keys, values, decimals, commands, replies, errors, limits, the value
//! codec and the native frame. No I/O, no threads, no time.
//!
//! Everything else of the store speaks in these types; nothing here knows who uses it. What each kind of value is, and
//! when two are the same, stands in `docs/TYPES.md`; the bytes stand in [`codec`], [`frame`] and [`reply`].
//!
//! A [`Value`] is an owned tree; a [`ValueRef`] borrows the same value as codec bytes, which is what travels and is
//! stored. Reading foreign bytes validates them:
//!
//! ```
//! use data_bridge_kv_model::{Decimal, Items, Kind, Value, ValueRef};
//!
//! let price: Decimal = "1.10".parse()?;
//! let order = Value::Hash(vec![
//!     ("id".into(), 42.into()),
//!     ("price".into(), price.into()),
//!     ("tags".into(), Value::Set(vec!["new".into(), 7.into()])),
//! ]);
//! let bytes = order.encode();
//!
//! let read = ValueRef::decode(&bytes)?;
//! assert_eq!(read.kind(), Kind::Hash);
//! let second_value = Items::of(read).nth(3).and_then(ValueRef::as_decimal);
//! assert_eq!(second_value.map(|price| price.to_string()), Some("1.10".to_owned()));
//! assert_eq!(Value::decode(&bytes)?, order);
//!
//! assert!(Value::decode(&bytes[..bytes.len() - 1]).is_err());
//! assert!(Value::decode(&Value::Set(vec!["a".into(), "a".into()]).encode()).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Command`] is built from a name or opcode and arguments; its executor appends items to a [`ReplyBuf`], which the
//! asker reads as a [`Reply`]:
//!
//! ```
//! use data_bridge_kv_model::command::table;
//! use data_bridge_kv_model::{Arg, Reply, ReplyBuf, ReplyReader, ValueRef};
//!
//! let spec = table::by_name(b"kv.set").expect("a command of the table");
//! let args = [Arg::Value(ValueRef::text("price")), Arg::Untyped(b"1.10")];
//! let command = spec.build(&args)?;
//! assert!(format!("{command:?}").contains("price"));
//! assert!(spec.build(&args[..1]).is_err());
//!
//! let mut out = ReplyBuf::new();
//! out.ok();
//! assert_eq!(ReplyReader::new(out.as_bytes()).reply()?, Reply::Ok);
//! # Ok::<(), data_bridge_kv_model::Error>(())
//! ```
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
pub use command::{Call, Command, KeySet, Keys, Load, Spec};
pub use decimal::{Decimal, DecimalError};
pub use error::{Error, ErrorKind, Found, Result};
pub use glob::{Glob, PatternTooLong};
pub use key::Key;
pub use kind::Kind;
pub use reply::{Item, Reply, ReplyBuf, ReplyReader, Shape};
pub use value::Value;
