//! How a connection waits for the disk: with a thread of its own, so that whatever else its worker had to do goes on.

use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};

/// Most threads beside the workers. Each has a stack and memory that its allocator keeps.
pub const THREADS: usize = 32;
/// Most connections that wait for the disk with a thread each; the rest wait for their turn as they wait for input. So
/// however many there are, and whatever else takes a thread now and then, the workers are never without one that takes over.
pub const WAITING: usize = THREADS / 4 * 3;

/// Of the memory budget, what one of these connections is reckoned to need beside its data.
const BYTES: u64 = 16 << 20;
/// Least of them.
const WAITING_MIN: usize = 4;
/// Of all of them, those who may wait for room in memory or in the log: one in so many.
const ROOM_SHARE: usize = 8;
/// How long a thread that has nothing to do stays.
pub const IDLE: Duration = Duration::from_millis(200);

/// How many connections wait with a thread each under this memory budget: for the disk, and for room in memory or in the log
/// too, which must not keep those waiting who only read.
pub fn turns(max_memory: u64) -> (usize, usize) {
    let all = usize::try_from(max_memory / BYTES).unwrap_or(WAITING).clamp(WAITING_MIN, WAITING);
    let for_room = (all / ROOM_SHARE).max(1);
    (all.saturating_sub(for_room), for_room)
}

/// Does what may wait for the disk: the worker's other tasks are taken over by others.
pub fn wait<R>(act: impl FnOnce() -> R) -> R {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(act),
        _ => act(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_budgets_have_few_turns() {
        let expected = [(3, 1), (3, 1), (14, 2), (WAITING - 3, 3)];
        assert_eq!([0, 64 << 20, 256 << 20, u64::MAX].map(turns), expected);
    }
}
