//! What ends a store besides its own `close`: a fork and the end of the interpreter.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use data_bridge_kv::Engine;
use pyo3::prelude::*;

use super::errors;

/// Raised in each forked child: what was made before has another number.
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// Engines to close when the interpreter ends.
static ENGINES: Mutex<Vec<Weak<Engine>>> = Mutex::new(Vec::new());

/// The process that made something, as far as forks of Python tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u32);

impl Generation {
    /// This process.
    #[inline]
    pub fn current() -> Generation {
        Generation(GENERATION.load(Ordering::Relaxed))
    }

    /// Whether this is still the process that made it.
    #[inline]
    pub fn is_current(self) -> bool {
        self == Generation::current()
    }

    /// Refuses to go on in a forked child.
    #[inline]
    pub fn check(self, py: Python<'_>) -> PyResult<()> {
        if self.is_current() { Ok(()) } else { Err(forked_error(py)) }
    }
}

#[cold]
fn forked_error(py: Python<'_>) -> PyErr {
    let message = "this store was opened before a fork: open one in the child, or connect to a server";
    errors::named(py, "ForkedError", message)
}

/// Closes this engine when the interpreter ends, if it is still there.
pub fn close_at_exit(engine: &Arc<Engine>) {
    let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    engines.retain(|engine| engine.strong_count() > 0);
    engines.push(Arc::downgrade(engine));
}

/// Tells the module that this is a forked child.
#[pyfunction]
pub fn forked() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Closes every store that is still open: waits end, engine threads stop. Raises `DurabilityError` if a log failed.
#[pyfunction]
pub fn shut_down(py: Python<'_>) -> PyResult<()> {
    let engines: Vec<Weak<Engine>> =
        std::mem::take(&mut *ENGINES.lock().unwrap_or_else(PoisonError::into_inner));
    let open: Vec<Arc<Engine>> = engines.iter().filter_map(Weak::upgrade).collect();
    // Where a subinterpreter ends with the main one, who gives the lock away does not get it again.
    if open.is_empty() {
        return Ok(());
    }
    let close = || open.iter().fold(None, |failure, engine| engine.close().err().or(failure));
    super::doorway::outside(py, close).map_or(Ok(()), |error| Err(errors::from_model(py, &error)))
}
