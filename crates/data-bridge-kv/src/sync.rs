//! What threads meet on: locks, condition variables, threads, loops that wait for another one, and the atomics by which log and
//! engine decide who goes first.
//!
//! They are the real ones. With the feature `interleave`, which is for one test program alone, they are those of a scheduler
//! that runs one thread at a time and switches at each of these places as a seed says: so the product's own code meets orders
//! that a machine would show once in a year (`tests/interleave.rs`).

pub mod real;
#[cfg(feature = "interleave")]
mod scheduled;

#[cfg(not(feature = "interleave"))]
pub use real::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(feature = "interleave")]
pub use scheduled::{Condvar, Mutex, MutexGuard, RwLock, atomic, hint, thread};
#[cfg(not(feature = "interleave"))]
pub use std::{hint, sync::atomic, thread};
