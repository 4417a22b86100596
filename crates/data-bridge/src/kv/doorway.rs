//! The one place that releases the interpreter lock. Whatever can block comes through here: waits, sockets, large
//! batches. A wait goes on in slices, so that Ctrl-C is seen; hits in memory stay outside, since releasing the lock
//! costs more than they do.

use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// Longest time without a look at signals.
pub const SLICE: Duration = Duration::from_millis(100);

/// What a task sleeps between two looks where gevent or eventlet took the place of threads, in seconds: at first, and at most,
/// so that many who wait for long cost little.
const TURNS: (f64, f64) = (0.001, 0.02);

/// Runs `work` without the interpreter lock. It must not touch Python objects.
pub fn outside<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    py.detach(work)
}

/// Lets Python run while the engine reads from disk for a command of this thread, which has the interpreter lock or gave it
/// away before. What the command borrows from Python objects stays: its caller holds them.
pub fn aside(act: &mut (dyn FnMut() + Send)) {
    Python::attach(|py| py.detach(act));
}

/// Runs `work` of a thread that has the interpreter lock, which PyO3 is told: it lets go of what was kept until then.
pub fn attached<T>(work: impl FnOnce(Python<'_>) -> T) -> T {
    Python::attach(work)
}

/// Polls until there is a result or the deadline has passed (then None). `poll` blocks for at most the time it is
/// given. Between two polls signal handlers run: what they raise ends the wait.
pub fn wait<T: Send>(
    py: Python<'_>,
    deadline: Option<Instant>,
    mut poll: impl FnMut(Duration) -> Option<T> + Send,
) -> PyResult<Option<T>> {
    loop {
        let left = deadline.map_or(SLICE, |deadline| deadline.saturating_duration_since(Instant::now()));
        if let Some(result) = py.detach(|| poll(left.min(SLICE))) {
            return Ok(Some(result));
        }
        py.check_signals()?;
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Ok(None);
        }
    }
}

/// The same for what another thread of this process does, which is another task where gevent or eventlet took the place of
/// threads: there the others run between two looks.
pub fn wait_for_others<T: Send>(
    py: Python<'_>,
    deadline: Option<Instant>,
    mut poll: impl FnMut(Duration) -> Option<T> + Send,
) -> PyResult<Option<T>> {
    let is_cooperative = py.import("data_bridge.kv._remote")?.call_method0("is_cooperative")?;
    if !is_cooperative.is_truthy()? {
        return wait(py, deadline, poll);
    }
    let (mut turn, longest) = TURNS;
    loop {
        if let Some(result) = poll(Duration::ZERO) {
            return Ok(Some(result));
        }
        let left = deadline
            .map_or(longest, |deadline| deadline.saturating_duration_since(Instant::now()).as_secs_f64());
        if left == 0.0 {
            return Ok(None);
        }
        yield_to_others(py, turn.min(left))?;
        turn = longest.min(2.0 * turn);
    }
}

/// Lets other tasks of gevent or eventlet run for a first turn.
pub fn yield_once(py: Python<'_>) -> PyResult<()> {
    yield_to_others(py, TURNS.0)
}

fn yield_to_others(py: Python<'_>, seconds: f64) -> PyResult<()> {
    py.import("time")?.call_method1("sleep", (seconds,)).map(drop)
}
