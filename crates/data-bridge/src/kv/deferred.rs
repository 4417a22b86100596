//! What a store of an event loop can't answer at once, because it has to wait for the disk: a command that has not run, or
//! an answer that may not be shown before the log is durable. It is raised, caught, and given to the loop's bell: a thread
//! of the engine runs the command, the log's thread lets the answer go.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use data_bridge_kv::{Caller, Engine, Owed, Progress};
use data_bridge_kv_model::{Error, ReplyBuf, Shape};
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use super::batch::{self, Answers};
use super::queue::Queued;
use super::request::{Request, Scratch, Shaping};

create_exception!(
    data_bridge._native,
    Blocked,
    PyException,
    "A command of a store that never waits has to; its argument is for `Bell.defer`."
);

/// A command or a queue that was not run, or not to its end, or whose answer is held back.
#[pyclass(frozen, module = "data_bridge._native")]
pub struct Deferred(Mutex<Option<(Work, Receipt)>>);

/// What is left to be done; nothing of Python's is in it.
pub enum Work {
    /// One command.
    Command(Request),
    /// Opcodes and arguments, whether they are one step, and the answers to those that are done.
    Queue { commands: Vec<(u16, Box<[u8]>)>, atomic: bool, done: Answers, rests_on: u64 },
    /// Nothing, only the answer has to wait.
    Nothing(Held),
}

/// An answer that may be shown once the log is durable.
pub struct Held {
    /// One reply item.
    pub reply: Box<[u8]>,
    /// The record that it rests on; 0 = none.
    pub rests_on: u64,
    /// How many answers are in it that fail one by one.
    pub parts: Option<usize>,
}

impl Held {
    /// What is answered if the record never becomes durable.
    pub fn failed(&self, error: &Error) -> ReplyBuf {
        let mut reply = ReplyBuf::new();
        if let Some(parts) = self.parts {
            reply.container(Shape::Array, parts);
        }
        (0..self.parts.unwrap_or(1)).for_each(|_| reply.error(error));
        reply
    }
}

/// Who runs one command for this caller: where answers are held back, somebody whose answer rests on what it shows itself.
#[inline]
pub fn runner(caller: &Caller) -> Cow<'_, Caller> {
    match caller.parks {
        true => Cow::Owned(Caller { owed: Owed::default(), ..caller.clone() }),
        false => Cow::Borrowed(caller),
    }
}

/// The record that must be durable before the answers to this one may be shown, if nobody waited for it.
#[inline]
pub fn held_by(engine: &Engine, runner: &Caller) -> Option<u64> {
    if runner.parks { engine.owed(runner) } else { None }
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

    /// The same for the answer of a scratch that rests on this record.
    #[cold]
    pub fn hold(py: Python<'_>, scratch: Box<Scratch>, rests_on: u64, shaping: Shaping) -> PyErr {
        let held = Held { reply: scratch.reply.as_bytes().into(), rests_on, parts: None };
        scratch.keep();
        Deferred::raise(py, Work::Nothing(held), Receipt::One(shaping))
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
            Work::Queue { commands, atomic, done, .. } => {
                batch::go_on(engine, caller, commands, *atomic, done, reply).map(|()| Progress::Done)
            }
            Work::Nothing(held) => {
                reply.bytes_mut().extend_from_slice(&held.reply);
                Ok(Progress::Done)
            }
        };
        run.unwrap_or_else(|error| {
            reply.error(&error);
            Progress::Done
        })
    }

    /// Its answer, which rests on this record if not on a later one already.
    pub fn held(&self, reply: &ReplyBuf, rests_on: u64) -> Held {
        let (before, parts) = match self {
            Work::Command(_) => (0, None),
            Work::Queue { atomic, commands, rests_on, .. } => {
                (*rests_on, (!atomic).then_some(commands.len()))
            }
            Work::Nothing(held) => (held.rests_on, held.parts),
        };
        Held { reply: reply.as_bytes().into(), rests_on: rests_on.max(before), parts }
    }
}
