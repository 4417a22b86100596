//! The product's own code under a scheduler that runs one thread at a time and switches as a seed says, wherever threads can
//! meet: at locks, condition variables and decisive atomics (`src/sync.rs`), and at every operation of the disk. Group commit,
//! waits and watches, entries that leave memory while others need them, indexes that are loaded by whoever comes first, and
//! shards that work in the background leaves to clients.
//!
//! A thread that nobody wakes is found as a deadlock. Half of the schedules pick any thread at each step, the others give
//! threads priorities that change at few steps. `KV_SCHEDULES` says how many for each test, `KV_SEED` where they begin; a
//! failure says how to see it again.
//!
//! ```text
//! cargo nextest run -p data-bridge-kv --features interleave --test interleave
//! ```

#[path = "interleave/indexes.rs"]
mod indexes;
#[path = "interleave/log.rs"]
mod log;
#[path = "interleave/moves.rs"]
mod moves;
#[path = "interleave/rig.rs"]
mod rig;
#[path = "interleave/shards.rs"]
mod shards;
#[path = "interleave/waits.rs"]
mod waits;
