//! Nouns and bytes of the data-bridge KV store: keys, values, commands, replies, errors, codec, native frame. No I/O, no threads.

pub mod decimal;
pub mod glob;

pub use decimal::{Decimal, DecimalError};
pub use glob::{Glob, PatternTooLong};
