//! Waits and watches of an embedded store in an event loop, and what of its commands has to wait for the disk: the engine's
//! threads put letters into a box and ring a bell, one byte on a socket that the loop watches. The loop then takes all
//! letters at once.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use data_bridge_kv::{Caller, Completions, Engine, NamespaceId, Owed, Progress, Waits};
use data_bridge_kv_model::ReplyBuf;
use data_bridge_kv_model::command::table::opcode;
use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::deferred::{Deferred, Held, Receipt, Work, held_by};
use super::lifetime::Generation;
use super::request::{Fallback, Scratch, Shaping};
use super::store::{Embedded, lost};
use super::{batch, doorway, errors};

/// Most events kept while the loop is busy.
const EVENTS: usize = 10_000;

/// A result that is there already: awaiting it does not leave the task.
#[pyclass(frozen, module = "data_bridge._native")]
pub struct Ready {
    result: Py<PyAny>,
    failed: bool,
}

#[pymethods]
impl Ready {
    /// The result; with `failed` the exception to raise.
    #[new]
    #[pyo3(signature = (result, failed=false))]
    fn new(result: Py<PyAny>, failed: bool) -> Ready {
        Ready { result, failed }
    }

    fn __await__(this: Py<Ready>) -> Py<Ready> {
        this
    }

    fn __iter__(this: Py<Ready>) -> Py<Ready> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let result = self.result.clone_ref(py);
        Err(if self.failed {
            PyErr::from_value(result.into_bound(py))
        } else {
            PyStopIteration::new_err((result,))
        })
    }
}

/// A token or marked watch, and its item; None where events were dropped.
type Letter = (u64, Option<Box<[u8]>>);

/// Where the engine's threads leave answers and events.
struct Letters {
    mail: Mutex<Mail>,
    bell: UnixStream,
}

#[derive(Default)]
struct Mail {
    letters: Vec<Letter>,
    /// Watches that were told once that events of theirs were dropped.
    lost: Vec<u64>,
    /// Tokens of work on a thread of the engine, unless nobody waits for it any more.
    aside: HashSet<u64>,
}

impl Letters {
    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs work on a thread that may wait for the disk. It does not wait for the log.
    fn answer(self: &Arc<Letters>, engine: &Engine, caller: &Caller, token: u64, work: &Work) {
        let mut reply = ReplyBuf::new();
        let progress = work.run(engine, caller, token, &mut reply);
        let is_awaited = self.lock().aside.remove(&token);
        match progress {
            Progress::Done | Progress::Blocked => {
                self.hold(engine, token, work.held(&reply, held_by(engine, caller).unwrap_or(0)));
            }
            Progress::Pending if is_awaited => {}
            Progress::Pending => drop(engine.cancel(caller, token)),
        }
    }

    /// Puts an answer here once it may be shown: at once, or from the log's thread.
    fn hold(self: &Arc<Letters>, engine: &Engine, token: u64, held: Held) {
        let (letters, rests_on) = (Arc::clone(self), held.rests_on);
        let then = move |outcome: Result<(), _>| match outcome {
            Ok(()) => letters.put(token, &held.reply),
            Err(error) => letters.put(token, held.failed(&error).as_bytes()),
        };
        engine.when_durable(rests_on, Box::new(then));
    }

    fn put(&self, token: u64, item: &[u8]) {
        let mut mail = self.lock();
        // An answer is never dropped: each was asked for.
        if token & WATCH == 0 || mail.letters.len() < EVENTS {
            mail.letters.push((token, Some(item.into())));
        } else if !mail.lost.contains(&token) {
            mail.lost.push(token);
            mail.letters.push((token, None));
        }
        let first = mail.letters.len() == 1;
        drop(mail);
        if first {
            // A full socket has rung already.
            let _ = (&self.bell).write(&[1]);
        }
    }
}

impl Completions for Letters {
    fn complete(&self, token: u64, reply: &[u8]) {
        self.put(token, reply);
    }

    fn event(&self, watch: u64, event: &[u8]) {
        self.put(watch | WATCH, event);
    }
}

/// Marks the number of a watch among tokens.
const WATCH: u64 = 1 << 63;

/// The waits of one embedded store in one event loop.
#[pyclass(frozen, module = "data_bridge._native")]
pub struct Bell {
    engine: Arc<Engine>,
    generation: Generation,
    caller: Caller,
    letters: Arc<Letters>,
    ears: UnixStream,
    fallback: Fallback,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    futures: HashMap<u64, (Py<PyAny>, Receipt)>,
    watches: HashMap<u64, Py<PyAny>>,
}

#[pymethods]
impl Bell {
    /// For an embedded store.
    #[new]
    fn new(store: &Bound<'_, Embedded>) -> PyResult<Bell> {
        let py = store.py();
        let (engine, namespace, fallback) = store.get().parts(py)?;
        let (ears, bell) = UnixStream::pair()?;
        ears.set_nonblocking(true)?;
        bell.set_nonblocking(true)?;
        let letters = Arc::new(Letters { mail: Mutex::default(), bell });
        let completions: Arc<dyn Completions> = letters.clone();
        let caller = Caller { namespace, parks: true, completions: Some(completions), ..engine.caller() };
        let (generation, state) = (Generation::current(), Mutex::default());
        Ok(Bell { engine, generation, caller, letters, ears, fallback, state })
    }

    /// The socket that becomes readable when letters are there.
    fn fileno(&self) -> i32 {
        self.ears.as_raw_fd()
    }

    /// Starts a wait whose result goes to a future. Answers its token, for `cancel`.
    #[pyo3(signature = (future, opcode, args, missing=None, shape=None))]
    fn wait(
        &self,
        future: Bound<'_, PyAny>,
        opcode: u16,
        args: &Bound<'_, PyTuple>,
        missing: Option<Bound<'_, PyAny>>,
        shape: Option<Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        let py = future.py();
        let shaping = Shaping::of(missing, shape);
        let mut scratch = Scratch::take();
        scratch.request.fill(opcode, args, &self.fallback)?;
        let token = self.expect(future.unbind(), Receipt::One(shaping));
        let mut reply = ReplyBuf::new();
        let runner = self.runner(Waits::Never);
        let run = scratch.request.call_with(|call| self.engine.execute(&runner, token, call, &mut reply));
        match run {
            Ok(Progress::Pending) => scratch.keep(),
            Ok(Progress::Done) => match held_by(&self.engine, &runner) {
                None => self.deliver(py, token, Some(reply.as_bytes()))?,
                Some(rests_on) => {
                    let held = Work::Command(scratch.request).held(&reply, rests_on);
                    self.letters.hold(&self.engine, token, held);
                }
            },
            Ok(Progress::Blocked) => self.run_aside(py, token, Work::Command(scratch.request)),
            Err(error) => {
                let mut failed = ReplyBuf::new();
                failed.error(&error);
                self.deliver(py, token, Some(failed.as_bytes()))?;
            }
        }
        Ok(token)
    }

    /// Lets a thread of the engine run a command that has to wait for the disk, or the log's thread let go of an answer that
    /// has; the result goes to the future.
    fn defer(&self, future: Bound<'_, PyAny>, deferred: &Bound<'_, Deferred>) {
        let py = future.py();
        if let Some((work, receipt)) = deferred.get().take() {
            let token = self.expect(future.unbind(), receipt);
            match work {
                Work::Nothing(held) => self.letters.hold(&self.engine, token, held),
                work @ (Work::Command(_) | Work::Queue { .. }) => self.run_aside(py, token, work),
            }
        }
    }

    /// Drops a wait.
    fn cancel(&self, token: u64) {
        if self.lock().futures.remove(&token).is_some() && !self.letters.lock().aside.remove(&token) {
            self.engine.cancel(&self.caller, token);
        }
    }

    /// Starts a watch whose events are given to `put`; answers its number, for `unwatch`.
    fn watch(&self, put: Bound<'_, PyAny>, args: &Bound<'_, PyTuple>) -> PyResult<u64> {
        let py = put.py();
        let mut scratch = Scratch::take();
        scratch.request.fill(opcode::KV_WATCH, args, &self.fallback)?;
        let mut reply = ReplyBuf::new();
        // The lock is held over the start, so that no event comes before its receiver is known.
        let mut state = self.lock();
        // It reads from disk only to compare versions, and then right here. Its answer is a number that shows nothing.
        let runner = self.runner(Waits::Here);
        let run = scratch.request.call_with(|call| self.engine.execute(&runner, 0, call, &mut reply));
        run.map(drop).map_err(|error| errors::from_model(py, &error))?;
        scratch.keep();
        let number: u64 = Shaping::default().result(py, reply.as_bytes(), &None)?.extract()?;
        state.watches.insert(number, put.unbind());
        Ok(number)
    }

    /// Ends a watch.
    fn unwatch(&self, py: Python<'_>, number: u64) -> PyResult<()> {
        if self.lock().watches.remove(&number).is_none() {
            return Ok(());
        }
        let mut scratch = Scratch::take();
        scratch.request.opcode = opcode::KV_UNWATCH;
        scratch.request.int(number.cast_signed());
        let mut reply = ReplyBuf::new();
        let run = scratch.request.call_with(|call| self.engine.execute(&self.caller, 0, call, &mut reply));
        scratch.keep();
        run.map(drop).map_err(|error| errors::from_model(py, &error))
    }

    /// Ends with the store: gives out what is there, and whoever still waits is told.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.drain(py)?;
        let (futures, watches) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.futures), std::mem::take(&mut state.watches))
        };
        self.letters.lock().aside.clear();
        let closed = errors::named(py, "ClosedError", "the store is closed");
        futures
            .into_values()
            .try_for_each(|(future, _)| super::aio::settle(py, &future, Err(closed.clone_ref(py))))?;
        watches.into_values().try_for_each(|put| put.bind(py).call1((closed.value(py),)).map(drop))
    }

    /// Takes the letters that are there and gives them to those who wait.
    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        let mut heard = [0; 64];
        while matches!((&self.ears).read(&mut heard), Ok(1..)) {}
        let letters = {
            let mut mail = self.letters.lock();
            mail.lost.clear();
            std::mem::take(&mut mail.letters)
        };
        letters.into_iter().try_for_each(|(token, item)| self.deliver(py, token, item.as_deref()))
    }
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, py: Python<'_>, token: u64, item: Option<&[u8]>) -> PyResult<()> {
        if token & WATCH != 0 {
            let put = self.lock().watches.get(&(token & !WATCH)).map(|put| put.clone_ref(py));
            let Some(put) = put else { return Ok(()) };
            let event = match item {
                Some(item) => Shaping::default().result(py, item, &None)?,
                None => lost(py)?,
            };
            return put.bind(py).call1((event,)).map(drop);
        }
        let Some((future, receipt)) = self.lock().futures.remove(&token) else { return Ok(()) };
        let Some(item) = item else { return Ok(()) };
        let result = match receipt {
            Receipt::One(shaping) => shaping.result(py, item, &self.fallback),
            Receipt::Queue(queued) => batch::answers_of(item)
                .map_err(|error| errors::from_model(py, &error))
                .and_then(|answers| batch::results(py, &queued, item, &answers, &self.fallback))
                .map(Bound::into_any),
        };
        super::aio::settle(py, &future, result)
    }

    /// Makes a future known; answers its token.
    fn expect(&self, future: Py<PyAny>, receipt: Receipt) -> u64 {
        let mut state = self.lock();
        state.next += 1;
        let token = state.next;
        state.futures.insert(token, (future, receipt));
        token
    }

    /// Who runs one command; its answer rests on what it shows itself.
    fn runner(&self, waits: Waits) -> Caller {
        Caller { waits, owed: Owed::default(), ..self.caller.clone() }
    }

    fn run_aside(&self, py: Python<'_>, token: u64, work: Work) {
        self.letters.lock().aside.insert(token);
        let (engine, letters) = (Arc::clone(&self.engine), Arc::clone(&self.letters));
        let runner = self.runner(Waits::Alone);
        let job = Box::new(move || letters.answer(&engine, &runner, token, &work));
        if let Err(job) = self.engine.aside(job) {
            // No thread could be started: the loop waits.
            doorway::outside(py, job);
        }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // In a forked child a thread that is not there may hold the locks.
        if self.generation.is_current() {
            self.engine.disconnect(&self.caller);
        }
    }
}

/// What a bell needs of a store.
pub type Parts = (Arc<Engine>, NamespaceId, Fallback);
