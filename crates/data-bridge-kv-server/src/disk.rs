//! How a connection waits for the disk: with a thread of its own, so that whatever else its worker had to do goes on.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Most connections that wait for the disk with a thread each, half of the threads that tokio has for that: however many
/// more do, the workers are never without a thread that takes over. The rest wait for their turn as they wait for input.
pub const WAITING: usize = 256;

/// Does what may wait for the disk: the worker's other tasks are taken over by others.
pub fn wait<R>(act: impl FnOnce() -> R) -> R {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(act),
        _ => act(),
    }
}
