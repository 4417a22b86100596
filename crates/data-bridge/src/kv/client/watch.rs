//! A watch of a remote client: a connection of its own that the server pushes events on.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use data_bridge_kv_client::core::put_request;
use data_bridge_kv_model::command::table::opcode;
use pyo3::prelude::*;

use super::super::lifetime::Generation;
use super::super::request::Shaping;
use super::link::{Address, Handle, Link, Lost};
use super::pool::Pool;
use super::{FIRST_ID, lost_event, raise};

/// The events of a watch. It ends with its client.
#[pyclass(frozen, module = "data_bridge._native")]
pub struct RemoteWatch {
    link: Mutex<Option<Link>>,
    handle: Handle,
    number: u64,
    pool: Py<Pool>,
    closed: AtomicBool,
    generation: Generation,
}

impl RemoteWatch {
    /// Connects and starts the watch; the answer is awaited, so that no later change is missed.
    pub fn start(
        py: Python<'_>,
        pool: &Py<Pool>,
        address: &Address,
        args: &[u8],
        deadline: Option<Instant>,
    ) -> PyResult<RemoteWatch> {
        let mut link = Link::connect(py, address)?;
        let mut out = Vec::new();
        put_request(FIRST_ID, opcode::KV_WATCH, args, &mut out);
        link.exchange(py, &out, deadline, |responses| responses.is_whole())
            .map_err(|lost| raise(py, lost, true))?;
        if let Ok(Some(response)) = link.responses.cut() {
            Shaping::default().result(py, response.item, &None)?;
        }
        let link = pool.borrow_mut(py).admit(py, link)?;
        Ok(RemoteWatch {
            handle: link.handle(py),
            number: link.number,
            pool: pool.clone_ref(py),
            link: Mutex::new(Some(link)),
            closed: AtomicBool::new(false),
            generation: Generation::current(),
        })
    }
}

#[pymethods]
impl RemoteWatch {
    /// The next event as one reply, waiting for it at most so many seconds (None = for ever); None when the time is over.
    #[pyo3(signature = (timeout=None))]
    fn next<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        self.generation.check(py)?;
        let deadline = super::super::deadline(timeout)?;
        let Ok(mut slot) = self.link.try_lock() else {
            let message = "another thread waits for this watch";
            return Err(pyo3::exceptions::PyRuntimeError::new_err(message));
        };
        let Some(link) = slot.as_mut() else { return Err(closed(py)) };
        match link.exchange(py, &[], deadline, |responses| responses.is_whole()) {
            Ok(()) => match link.responses.cut() {
                Ok(Some(response)) => Shaping::default().result(py, response.item, &None),
                _ => lost_event(py),
            },
            Err(Lost::Late) => Ok(py.None().into_bound(py)),
            Err(lost @ Lost::Raised(_)) => Err(raise(py, lost, true)),
            Err(lost) => {
                *slot = None;
                if self.closed.load(Ordering::Relaxed) {
                    return Err(closed(py));
                }
                self.pool.borrow_mut(py).check(py)?;
                Err(raise(py, lost, true))
            }
        }
    }

    /// Ends the watch; whoever waits for an event is told.
    fn close(&self, py: Python<'_>) {
        self.closed.store(true, Ordering::Relaxed);
        if let Ok(mut link) = self.link.try_lock() {
            *link = None;
        } else if self.generation.is_current() {
            self.handle.shut(py);
        }
    }
}

impl Drop for RemoteWatch {
    fn drop(&mut self) {
        Python::try_attach(|py| Pool::dropped(&self.pool, py, self.number));
    }
}

#[cold]
fn closed(py: Python<'_>) -> PyErr {
    super::errors::named(py, "ClosedError", "the watch is closed")
}
