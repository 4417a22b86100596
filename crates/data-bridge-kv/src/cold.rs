//! The cold tier: values that left memory, in an append-only log of segments, and a packed index in memory that says
//! where each stands.
//!
//! A [`Log`] belongs to one class of namespaces and never holds entries of the other. Its owner encodes entries into a
//! [`Batch`], appends that, and lets the [`Index`] of each key's shard point at the new records; it reads a record by
//! its [`Locator`], forgets one by taking it from the index and telling the log, and has segments with many dead bytes
//! rewritten by [`reclaim`]. An index holds no keys: 96 bits of the stable hash are a key's identity, and whoever reads a
//! record compares the key in it.
//!
//! The log of a durable class survives a crash: what [`Log::append`] accepted is found again by [`Log::replay`], the rest
//! is not. Of several records of a key the highest version is the truth, and a tombstone beats every record that is not
//! newer: so neither reclaim nor a lost index brings back what was deleted or overwritten.
//!
//! Only the owner knows shards and their locks: nothing here waits for one, and nothing but [`Index`] may be called under
//! one.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

mod base;
mod fetch;
mod format;
mod index;
mod parts;
mod pool;
mod reader;
pub mod reclaim;
mod recovery;
mod segment;
mod verify;
mod writer;

pub use base::NewBase;
pub use fetch::{Ahead, Outcome, Reading, Reads};
pub use format::{Class, Entry, Front};
pub use index::{Index, Spot};
pub use pool::Job;
pub use reader::{Fetched, Part, ReadError, Source};
pub use recovery::{OpenError, Restored};
pub use segment::{Locator, Usage};
pub use verify::{Verified, verify};
pub use writer::{Batch, Item, Log, NewRecord, Policy};
