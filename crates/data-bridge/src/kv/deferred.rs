//! Commands that a store of an event loop has not run, because they have to wait for the disk. They are raised, caught,
//! and given to the loop's bell, which lets a thread of the engine run them.

use std::sync::{Mutex, PoisonError};

use data_bridge_kv::{Caller, Engine, Progress};
use data_bridge_kv_model::ReplyBuf;
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use super::batch::{self, Answers};
use super::queue::Queued;
use super::request::{Request, Shaping};

create_exception!(
    data_bridge._native,
    Blocked,
    PyException,
    "A command of a store that never waits has to; its argument is for `Bell.defer`."
);

/// A command or a queue that was not run, or not to its end.
#[pyclass(frozen, module = "data_bridge._native")]
pub struct Deferred(Mutex<Option<(Work, Receipt)>>);

/// What is left to be done; nothing of Python's is in it.
pub enum Work {
    /// One command.
    Command(Request),
    /// Opcodes and arguments, whether they are one step, and the answers to those that are done.
    Queue { commands: Vec<(u16, Box<[u8]>)>, atomic: bool, done: Answers },
}

/// What becomes of the answer.
pub enum Receipt {
    /// The answer to one command.
    One(Shaping),
    /// An array of answers.
    Queue(Queued),
}

impl Deferred {
    /// The exception that brings it to the event loop.
    pub fn raise(py: Python<'_>, work: Work, receipt: Receipt) -> PyErr {
        match Py::new(py, Deferred(Mutex::new(Some((work, receipt))))) {
            Ok(deferred) => Blocked::new_err((deferred,)),
            Err(error) => error,
        }
    }

    /// Takes it out; nothing is left after the first time.
    pub fn take(&self) -> Option<(Work, Receipt)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Work {
    /// Runs it on a thread that may wait. The answer stands in `reply`, unless it is pending.
    pub fn run(&self, engine: &Engine, caller: &Caller, token: u64, reply: &mut ReplyBuf) -> Progress {
        let run = match self {
            Work::Command(request) => request.execute(engine, caller, token, reply),
            Work::Queue { commands, atomic, done } => {
                batch::go_on(engine, caller, commands, *atomic, done, reply).map(|()| Progress::Done)
            }
        };
        run.unwrap_or_else(|error| {
            reply.error(&error);
            Progress::Done
        })
    }
}
