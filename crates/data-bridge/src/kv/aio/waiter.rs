//! Who waits for answers of an asynchronous client: a future, a pipeline, a watch.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use data_bridge_kv_client::core::{is_repeatable, put_request};
use data_bridge_kv_model::Value;
use data_bridge_kv_model::command::table::opcode;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::super::batch;
use super::super::queue::Queued;
use super::super::request::{Fallback, Shaping};
use super::{AsyncRemote, Push, act, lost};

/// A request in flight.
pub struct Waiter {
    /// Who gets the answer.
    pub answer: Answer,
    /// Opcode and arguments, where it may be sent again after a lost connection.
    pub again: Option<(u16, Box<[u8]>)>,
    /// When it was sent, in ticks of the watchdog, and so much later as it waits by itself; None where it may take for ever.
    pub tick: Option<u32>,
}

/// Who gets an answer.
pub enum Answer {
    /// A future.
    One { future: Py<PyAny>, shaping: Shaping },
    /// One place in the answers of a pipeline.
    Part { group: Arc<Group>, place: usize },
    /// An atomic pipeline.
    Atomic { future: Py<PyAny>, queued: Box<Queued> },
    /// A watch: its start, then its events.
    Watch { future: Option<Py<PyAny>>, put: Py<PyAny> },
    /// One event of a watch.
    Event { put: Py<PyAny> },
    /// Nobody.
    Nobody,
}

/// A reply item, or the exception in its place.
type Place = OnceLock<Result<Box<[u8]>, Py<PyAny>>>;

/// The commands of a pipeline.
pub struct Group {
    future: Py<PyAny>,
    queued: Queued,
    answers: Vec<Place>,
    left: AtomicUsize,
}

impl Waiter {
    /// Whether it was sent so many ticks ago.
    pub fn is_late(&self, now: u32, ticks: u32) -> bool {
        self.tick.is_some_and(|sent| now.wrapping_sub(sent).cast_signed() > ticks.cast_signed())
    }

    /// For a watch that has started: the receiver of one event.
    pub fn event(&mut self, py: Python<'_>) -> Option<Waiter> {
        match &mut self.answer {
            Answer::Watch { future, put } => {
                let answer = match future.take() {
                    Some(future) => Answer::One { future, shaping: Shaping::default() },
                    None => Answer::Event { put: put.clone_ref(py) },
                };
                Some(Waiter { answer, again: None, tick: None })
            }
            _ => None,
        }
    }

    /// The answer came: one reply item.
    pub fn finish(self, py: Python<'_>, item: &[u8], fallback: &Fallback) -> PyResult<()> {
        match self.answer {
            Answer::One { future, shaping } => {
                if is_done(py, &future)? {
                    return Ok(());
                }
                settle(py, &future, shaping.result(py, item, fallback))
            }
            Answer::Part { group, place } => group.fill(py, place, Ok(item.into()), fallback),
            Answer::Atomic { future, queued } => {
                let results = batch::answers_of(item)
                    .map_err(|error| super::errors::from_model(py, &error))
                    .and_then(|answers| batch::results(py, &queued, item, &answers, fallback));
                settle(py, &future, results.map(Bound::into_any))
            }
            Answer::Watch { .. } | Answer::Nobody => Ok(()),
            Answer::Event { put } => {
                let event = Shaping::default().result(py, item, &None)?;
                put.bind(py).call1((event,)).map(drop)
            }
        }
    }

    /// There will be no answer.
    pub fn fail(self, py: Python<'_>, error: &PyErr) -> PyResult<()> {
        match self.answer {
            Answer::One { future, .. } | Answer::Atomic { future, .. } => {
                settle(py, &future, Err(error.clone_ref(py)))
            }
            Answer::Part { group, place } => {
                let error = error.clone_ref(py).into_value(py).into_any();
                group.fill(py, place, Err(error), &None)
            }
            Answer::Watch { future, put } => {
                if let Some(future) = future {
                    return settle(py, &future, Err(error.clone_ref(py)));
                }
                put.bind(py).call1((error.value(py),)).map(drop)
            }
            Answer::Event { .. } | Answer::Nobody => Ok(()),
        }
    }

    /// The connection was lost: what to send again and for whom, or nothing where the waiter was told or is gone.
    pub fn again(mut self, py: Python<'_>) -> Option<(u16, Box<[u8]>, Waiter)> {
        if let Answer::One { future, .. } = &self.answer
            && is_done(py, future).unwrap_or(true)
        {
            return None;
        }
        match self.again.take() {
            Some((opcode, args)) => Some((opcode, args, self)),
            None => {
                let is_watch = matches!(self.answer, Answer::Watch { .. });
                // A failure to tell a future of a loop that is closed has nobody to tell it to.
                let _ = self.fail(py, &lost(py, "the server closed the connection", is_watch));
                None
            }
        }
    }
}

impl Group {
    fn fill(
        &self,
        py: Python<'_>,
        place: usize,
        answer: Result<Box<[u8]>, Py<PyAny>>,
        fallback: &Fallback,
    ) -> PyResult<()> {
        if let Some(slot) = self.answers.get(place) {
            let _ = slot.set(answer);
        }
        if self.left.fetch_sub(1, Ordering::Relaxed) != 1 {
            return Ok(());
        }
        let mut answers = self.answers.iter();
        let results = self.queued.results(py, |shaping| {
            let raised = |error: PyErr| error.into_value(py).into_bound(py).into_any();
            Ok(match answers.next().and_then(OnceLock::get) {
                Some(Ok(item)) => shaping.result(py, item, fallback).unwrap_or_else(raised),
                Some(Err(error)) => error.bind(py).clone(),
                None => py.None().into_bound(py),
            })
        });
        settle(py, &self.future, results.map(Bound::into_any))
    }
}

/// Queues a pipeline's commands; its future gets the list of results.
pub fn send_queue(
    this: &Bound<'_, AsyncRemote>,
    queued: Queued,
    atomic: bool,
    future: &Bound<'_, PyAny>,
) -> PyResult<Push> {
    let (py, client) = (this.py(), this.get());
    let count = queued.commands().count();
    if count == 0 {
        let results = queued.results(py, |_| Ok(py.None().into_bound(py)))?;
        settle(py, future.as_unbound(), Ok(results.into_any()))?;
        return Ok(Push::Nothing);
    }
    queued.check(atomic).map_err(|error| super::errors::from_model(py, &error))?;
    let mut state = client.lock();
    let tick = client.timeout.map(|_| state.tick);
    let idle = state.flight.is_empty() && state.out.is_empty();
    let future = future.clone().unbind();
    if atomic {
        let (opcode, args) = (queued.atomic_opcode(), queued.atomic());
        let answer = Answer::Atomic { future, queued: Box::new(queued) };
        let id = state.flight.add(Waiter { answer, again: None, tick });
        put_request(id, opcode, &args, &mut state.out);
        return Ok(state.push(py, idle));
    }
    let answers = (0..count).map(|_| OnceLock::new()).collect();
    let group = Arc::new(Group { future, queued, answers, left: AtomicUsize::new(count) });
    for (place, command) in group.queued.commands().enumerate() {
        let again =
            is_repeatable(command.opcode, command.args).then(|| (command.opcode, command.args.into()));
        let answer = Answer::Part { group: Arc::clone(&group), place };
        let id = state.flight.add(Waiter { answer, again, tick });
        put_request(id, command.opcode, command.args, &mut state.out);
    }
    Ok(state.push(py, idle))
}

/// Ends a wait at the server when its future is cancelled before the answer.
pub fn end_with(this: &Bound<'_, AsyncRemote>, future: &Bound<'_, PyAny>, wait: u32) -> PyResult<()> {
    let py = this.py();
    let client = this.clone().unbind();
    let done = move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
        let future = args.get_item(0)?;
        if !future.call_method0(pyo3::intern!(args.py(), "cancelled"))?.is_truthy()? {
            return Ok(());
        }
        cancel(client.bind(args.py()), &future.call_method0("get_loop")?, wait)
    };
    let done = PyCFunction::new_closure(py, None, None, done)?;
    future.call_method1(pyo3::intern!(py, "add_done_callback"), (done,)).map(drop)
}

/// Sends the end of a wait, if it is in flight.
fn cancel(this: &Bound<'_, AsyncRemote>, event_loop: &Bound<'_, PyAny>, wait: u32) -> PyResult<()> {
    let push = {
        let mut state = this.get().lock();
        let current = state.event_loop.as_ref().is_some_and(|known| known.is(event_loop));
        if !current || state.flight.get_mut(wait).is_none() {
            return Ok(());
        }
        let idle = state.out.is_empty();
        let id = state.flight.add(Waiter { answer: Answer::Nobody, again: None, tick: None });
        let mut args = Vec::new();
        Value::from(i64::from(wait)).encode_into(&mut args);
        put_request(id, opcode::KV_CANCEL, &args, &mut state.out);
        state.push(this.py(), idle)
    };
    act(this, event_loop, push)
}

fn is_done(py: Python<'_>, future: &Py<PyAny>) -> PyResult<bool> {
    future.bind(py).call_method0(pyo3::intern!(py, "done"))?.is_truthy()
}

/// Gives a future its result, unless it was cancelled.
pub fn settle(py: Python<'_>, future: &Py<PyAny>, result: PyResult<Bound<'_, PyAny>>) -> PyResult<()> {
    if is_done(py, future)? {
        return Ok(());
    }
    let future = future.bind(py);
    match result {
        Ok(value) => future.call_method1(pyo3::intern!(py, "set_result"), (value,)).map(drop),
        Err(error) => {
            future.call_method1(pyo3::intern!(py, "set_exception"), (error.into_value(py),)).map(drop)
        }
    }
}
