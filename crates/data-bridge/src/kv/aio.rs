//! The asynchronous remote client: an `asyncio.Protocol` whose codec and queue of futures stand here.
//!
//! A request is written at once if nothing is in flight, else with all others of the same tick of the loop. Answers
//! find their future by id; one that was cancelled drops its answer. The state is locked for moments only and never
//! while Python code runs.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_bridge_kv_client::core::{
    InFlight, Responses, check_request, is_repeatable, put_greeting, put_request,
};
use data_bridge_kv_model::command::table::opcode;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use super::errors;
use super::queue::Queue;
use super::request::{self, Fallback, Request, Scratch, SetOptions, Shaping};

mod waiter;

pub use waiter::settle;
use waiter::{Answer, Waiter};

/// Ids below are those of the greeting.
const FIRST_ID: u32 = 16;
/// Ticks of the watchdog after which an operation is too late.
const LATE: u32 = 4;
/// Ticks that a wait may take: half of those that can be told apart.
const MOST_TICKS: u32 = 1 << 30;

/// A client of one namespace of a server, for one event loop at a time.
#[pyclass(frozen, subclass, module = "data_bridge._native")]
pub struct AsyncRemote {
    namespace: Option<String>,
    password: Option<String>,
    timeout: Option<f64>,
    fallback: Fallback,
    /// The loop of a client that is given one; None = the loop that runs when it is used.
    given_loop: Option<Py<PyAny>>,
    state: Mutex<State>,
}

struct State {
    /// Requests that were not written yet.
    out: Vec<u8>,
    flight: InFlight<Waiter>,
    responses: Responses,
    link: Link,
    event_loop: Option<Py<PyAny>>,
    flush_is_due: bool,
    watchdog_runs: bool,
    tick: u32,
    closed: bool,
}

enum Link {
    None,
    Connecting,
    Up(Py<PyAny>),
}

/// What a new request needs from its caller, once the state is unlocked.
enum Push {
    Nothing,
    Write(Py<PyAny>, Vec<u8>),
    Flush,
    Connect,
}

#[pymethods]
impl AsyncRemote {
    #[new]
    #[pyo3(signature = (*, namespace=None, password=None, timeout=Some(5.0), fallback=None, event_loop=None))]
    fn new(
        py: Python<'_>,
        namespace: Option<String>,
        password: Option<String>,
        timeout: Option<f64>,
        fallback: Option<Py<PyAny>>,
        event_loop: Option<Py<PyAny>>,
    ) -> PyResult<AsyncRemote> {
        timeout.map(super::seconds).transpose()?;
        let state = State {
            out: Vec::new(),
            flight: InFlight::starting_at(FIRST_ID),
            responses: Responses::new(),
            link: Link::None,
            event_loop: event_loop.as_ref().map(|given| given.clone_ref(py)),
            flush_is_due: false,
            watchdog_runs: false,
            tick: 0,
            closed: false,
        };
        Ok(AsyncRemote {
            namespace,
            password,
            timeout,
            fallback,
            given_loop: event_loop,
            state: Mutex::new(state),
        })
    }

    /// The value of a key, `default` where there is none.
    #[pyo3(signature = (key, default=None))]
    fn get<'py>(
        this: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut scratch = Scratch::take();
        scratch.request.opcode = opcode::KV_GET;
        scratch.request.key(key)?;
        send(this, scratch, Shaping::of(default, None), Patience::Request)
    }

    /// Writes a value; the options are those of a synchronous store's `set`.
    #[pyo3(
        signature = (key, value, *, ttl=None, nx=false, xx=false, keep_ttl=false, return_old=false, durable=false, **other),
        text_signature = "($self, key, value, *, ttl=None, nx=False, xx=False, keep_ttl=False, return_old=False, durable=False)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the options of the method, by name")]
    fn set<'py>(
        this: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
        ttl: Option<&Bound<'py, PyAny>>,
        nx: bool,
        xx: bool,
        keep_ttl: bool,
        return_old: bool,
        durable: bool,
        other: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        request::refuse(other)?;
        let mut scratch = Scratch::take();
        let options = SetOptions { ttl, nx, xx, keep_ttl, return_old, durable };
        let shaping = options.fill(key, value, &this.get().fallback, &mut scratch.request)?;
        send(this, scratch, shaping, Patience::Request)
    }

    /// Sends one command: a future of its result.
    #[pyo3(signature = (opcode, args, missing=None, shape=None))]
    fn _call<'py>(
        this: &Bound<'py, Self>,
        opcode: u16,
        args: &Bound<'py, PyTuple>,
        missing: Option<Bound<'py, PyAny>>,
        shape: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut scratch = Scratch::take();
        scratch.request.fill(opcode, args, &this.get().fallback)?;
        send(this, scratch, Shaping::of(missing, shape), Patience::Request)
    }

    /// The same for a command that ends later: only its own timeout ends it, here too if the server does not say so.
    #[pyo3(signature = (opcode, args, missing=None, shape=None))]
    fn _wait<'py>(
        this: &Bound<'py, Self>,
        opcode: u16,
        args: &Bound<'py, PyTuple>,
        missing: Option<Bound<'py, PyAny>>,
        shape: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut scratch = Scratch::take();
        scratch.request.fill(opcode, args, &this.get().fallback)?;
        let patience = Patience::Wait(request::time_of_wait(args));
        send(this, scratch, Shaping::of(missing, shape), patience)
    }

    /// Starts a watch whose events are given to `put`; a future of its start.
    fn _watch<'py>(
        this: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        put: Py<PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut scratch = Scratch::take();
        scratch.request.fill(opcode::KV_WATCH, args, &None)?;
        let (event_loop, future) = this.get().begin(this.py())?;
        let answer = Answer::Watch { future: Some(future.clone().unbind()), put };
        let (_, push) = this.get().queue_up(this.py(), &scratch.request, answer, None);
        scratch.keep();
        act(this, &event_loop, push)?;
        Ok(future)
    }

    /// Sends a queue: a future of the list of results, with exceptions in the places of commands that failed.
    fn _run<'py>(
        this: &Bound<'py, Self>,
        queue: &Bound<'py, Queue>,
        atomic: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let queued = queue.borrow_mut().take();
        let (event_loop, future) = this.get().begin(this.py())?;
        let push = waiter::send_queue(this, queued, atomic, &future)?;
        guard(this, &event_loop)?;
        act(this, &event_loop, push)?;
        Ok(future)
    }

    /// A future that is done.
    fn _ready<'py>(&self, py: Python<'py>, result: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (_, future) = self.begin(py)?;
        future.call_method1(pyo3::intern!(py, "set_result"), (result,))?;
        Ok(future)
    }

    /// The codec given as `fallback=`.
    #[getter]
    fn _fallback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.fallback.as_ref().map(|codec| codec.clone_ref(py))
    }

    /// Writes what the tick has gathered.
    fn _flush(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.lock();
        state.flush_is_due = false;
        let Link::Up(transport) = &state.link else { return Ok(()) };
        let transport = transport.clone_ref(py);
        let out = std::mem::take(&mut state.out);
        drop(state);
        if out.is_empty() { Ok(()) } else { write(py, &transport, &out) }
    }

    /// The connection is up: greets, and writes what waited for it. One that comes too late is closed.
    fn connection_made(&self, py: Python<'_>, transport: Py<PyAny>) -> PyResult<()> {
        let mut greeting = Vec::new();
        put_greeting(self.password.as_deref(), self.namespace.as_deref(), &mut greeting);
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return transport.bind(py).call_method0("abort").map(drop);
        }
        state.responses = Responses::new();
        greeting.append(&mut state.out);
        state.link = Link::Up(transport.clone_ref(py));
        drop(state);
        write(py, &transport, &greeting)
    }

    /// Bytes came: the futures of whole answers get their results.
    fn data_received(&self, py: Python<'_>, data: &Bound<'_, PyBytes>) -> PyResult<()> {
        let mut responses = std::mem::take(&mut self.lock().responses);
        responses.feed(data.as_bytes());
        loop {
            match responses.cut() {
                Ok(Some(response)) if response.id < FIRST_ID => self.greeted(py, response.item)?,
                Ok(Some(response)) => {
                    let waiter = self.lock().waiter(py, response.id);
                    if let Some(waiter) = waiter {
                        waiter.finish(py, response.item, &self.fallback)?;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    let error = errors::named(py, "ConnectionError", error.message());
                    self.abort(py, &error)?;
                    break;
                }
            }
        }
        self.lock().responses = responses;
        Ok(())
    }

    /// The other side sends no more: the transport closes.
    fn eof_received(&self) {}

    /// Nothing is written while the transport's buffer is full; what is queued stays in order.
    fn pause_writing(&self) {}

    /// The transport takes bytes again.
    fn resume_writing(&self) {}

    /// The connection is gone. Commands whose outcome would be the same are sent again, the others fail.
    #[pyo3(signature = (error))]
    fn connection_lost(this: &Bound<'_, Self>, error: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let py = this.py();
        let (waiters, event_loop) = {
            let mut state = this.get().lock();
            state.link = Link::None;
            state.out.clear();
            let waiters: Vec<(u32, Waiter)> = state.flight.drain().collect();
            (waiters, state.event_loop.as_ref().map(|event_loop| event_loop.clone_ref(py)))
        };
        let why =
            error.map_or_else(|| "the server closed the connection".to_owned(), |error| error.to_string());
        let mut again = false;
        for (id, waiter) in waiters {
            match waiter.again(py) {
                Some((opcode, args, waiter)) if !this.get().lock().closed => {
                    let mut state = this.get().lock();
                    state.flight.restore(id, waiter);
                    put_request(id, opcode, &args, &mut state.out);
                    again = true;
                }
                Some((_, _, waiter)) => waiter.fail(py, &lost(py, &why, true))?,
                None => {}
            }
        }
        if again && let Some(event_loop) = event_loop {
            this.get().lock().link = Link::Connecting;
            act(this, event_loop.bind(py), Push::Connect)?;
        }
        Ok(())
    }

    /// The connection could not be made: everything that waits fails.
    fn _failed(&self, py: Python<'_>, error: &Bound<'_, PyAny>) -> PyResult<()> {
        self.fail_all(py, &PyErr::from_value(error.clone()))
    }

    /// The watchdog: operations that are too late fail, their answers will be dropped.
    fn _tick(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let (late, event_loop) = {
            let mut state = this.get().lock();
            state.tick = state.tick.wrapping_add(1);
            let tick = state.tick;
            let late = state.flight.take_where(|waiter| waiter.is_late(tick, LATE));
            state.watchdog_runs = !state.flight.is_empty();
            let event_loop = state.event_loop.as_ref().filter(|_| state.watchdog_runs);
            (late, event_loop.map(|event_loop| event_loop.clone_ref(py)))
        };
        for waiter in late {
            waiter.fail(py, &errors::named(py, "TimeoutError", "the server did not answer in time"))?;
        }
        event_loop.map_or(Ok(()), |event_loop| watch_over(this, event_loop.bind(py)))
    }

    /// Closes the connection; what waits fails.
    fn _close(&self, py: Python<'_>) -> PyResult<()> {
        self.lock().closed = true;
        self.abort(py, &errors::named(py, "ClosedError", "the client is closed"))
    }
}

impl AsyncRemote {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop and a future of it. On another loop than before the client starts anew.
    fn begin<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let event_loop = if let Some(given) = &self.given_loop {
            given.bind(py).clone()
        } else {
            let running = || py.import("asyncio")?.getattr("get_running_loop").map(Bound::unbind);
            RUNNING.get_or_try_init(py, running)?.bind(py).call0()?
        };
        let state = self.lock();
        if state.closed {
            return Err(errors::named(py, "ClosedError", "the client is closed"));
        }
        let known = match &state.event_loop {
            Some(known) if known.is(&event_loop) => None,
            other => Some(other.as_ref().map(|known| known.clone_ref(py))),
        };
        drop(state);
        if let Some(known) = known {
            self.move_to(&event_loop, known)?;
        }
        let future = event_loop.call_method0(pyo3::intern!(py, "create_future"))?;
        Ok((event_loop, future))
    }

    /// Starts anew on another loop than before. That one must have ended, or nobody could tell those who wait there.
    fn move_to(&self, event_loop: &Bound<'_, PyAny>, known: Option<Py<PyAny>>) -> PyResult<()> {
        let py = event_loop.py();
        if let Some(known) = known
            && known.call_method0(py, "is_running")?.is_truthy(py)?
        {
            let message =
                "this client is used in an event loop that runs in another thread: connect one for each loop";
            return Err(PyRuntimeError::new_err(message));
        }
        let (stale, link) = {
            let mut state = self.lock();
            state.event_loop = Some(event_loop.clone().unbind());
            (state.flush_is_due, state.watchdog_runs) = (false, false);
            state.out.clear();
            let stale = std::mem::replace(&mut state.flight, InFlight::starting_at(FIRST_ID));
            (stale, std::mem::replace(&mut state.link, Link::None))
        };
        drop((stale, link));
        Ok(())
    }

    /// Puts a request behind the others; answers its id, and what is to be done about it.
    /// The answer may come so many ticks later than that of a request; None where it may take for ever.
    fn queue_up(&self, py: Python<'_>, request: &Request, answer: Answer, ticks: Option<u32>) -> (u32, Push) {
        let again = is_repeatable(request.opcode, &request.args)
            .then(|| (request.opcode, request.args.clone().into_boxed_slice()));
        let mut state = self.lock();
        let tick = ticks.map(|ticks| state.tick.wrapping_add(ticks));
        let idle = state.flight.is_empty() && state.out.is_empty();
        let id = state.flight.add(Waiter { answer, again, tick });
        put_request(id, request.opcode, &request.args, &mut state.out);
        (id, state.push(py, idle))
    }

    /// An answer to the greeting: one that refuses ends the connection.
    fn greeted(&self, py: Python<'_>, item: &[u8]) -> PyResult<()> {
        match Shaping::default().result(py, item, &None) {
            Ok(_) => Ok(()),
            Err(error) => self.abort(py, &error),
        }
    }

    fn abort(&self, py: Python<'_>, error: &PyErr) -> PyResult<()> {
        let (link, event_loop) = {
            let mut state = self.lock();
            let link = std::mem::replace(&mut state.link, Link::None);
            (link, state.event_loop.as_ref().map(|event_loop| event_loop.clone_ref(py)))
        };
        if let Some(event_loop) = event_loop
            && event_loop.call_method0(py, "is_closed")?.is_truthy(py)?
        {
            // Nobody is left to be told, and the socket ends with its transport.
            let stale = std::mem::replace(&mut self.lock().flight, InFlight::starting_at(FIRST_ID));
            drop((stale, link));
            return Ok(());
        }
        self.fail_all(py, error)?;
        if let Link::Up(transport) = link {
            transport.bind(py).call_method0("abort")?;
        }
        Ok(())
    }

    fn fail_all(&self, py: Python<'_>, error: &PyErr) -> PyResult<()> {
        let waiters: Vec<Waiter> = {
            let mut state = self.lock();
            state.link = Link::None;
            state.out.clear();
            state.flight.drain().map(|(_, waiter)| waiter).collect()
        };
        waiters.into_iter().try_for_each(|waiter| waiter.fail(py, error))
    }
}

impl State {
    /// What a request that was just queued needs.
    fn push(&mut self, py: Python<'_>, idle: bool) -> Push {
        match &self.link {
            Link::Up(transport) if idle => {
                Push::Write(transport.clone_ref(py), std::mem::take(&mut self.out))
            }
            Link::Up(_) if !self.flush_is_due => {
                self.flush_is_due = true;
                Push::Flush
            }
            Link::None => {
                self.link = Link::Connecting;
                Push::Connect
            }
            Link::Up(_) | Link::Connecting => Push::Nothing,
        }
    }

    /// Whoever waits for this id; a watch stays.
    fn waiter(&mut self, py: Python<'_>, id: u32) -> Option<Waiter> {
        if let Some(watch) = self.flight.get_mut(id).and_then(|waiter| waiter.event(py)) {
            return Some(watch);
        }
        self.flight.take(id)
    }
}

/// When the answer to a request is late.
#[derive(Clone, Copy)]
enum Patience {
    /// When the client's timeout is over.
    Request,
    /// So much later, since it waits by itself; never without a time.
    Wait(Option<Duration>),
}

impl Patience {
    /// The ticks of the watchdog that it adds to a timeout.
    fn ticks(self, timeout: f64) -> Option<u32> {
        let own = match self {
            Patience::Request => return Some(0),
            Patience::Wait(own) => own?,
        };
        let tick = Duration::try_from_secs_f64(timeout).unwrap_or(Duration::MAX) / LATE;
        let ticks = own.as_nanos().div_ceil(tick.as_nanos().max(1));
        Some(u32::try_from(ticks).unwrap_or(MOST_TICKS).min(MOST_TICKS))
    }
}

/// Sends one request; a future of its result.
fn send<'py>(
    this: &Bound<'py, AsyncRemote>,
    scratch: Box<Scratch>,
    shaping: Shaping,
    patience: Patience,
) -> PyResult<Bound<'py, PyAny>> {
    let (py, client) = (this.py(), this.get());
    check_request(scratch.request.args.len()).map_err(|error| errors::from_model(py, &error))?;
    let (event_loop, future) = client.begin(py)?;
    let answer = Answer::One { future: future.clone().unbind(), shaping };
    let ticks = client.timeout.and_then(|timeout| patience.ticks(timeout));
    let (id, push) = client.queue_up(py, &scratch.request, answer, ticks);
    scratch.keep();
    if matches!(patience, Patience::Wait(_)) {
        waiter::end_with(this, &future, id)?;
    }
    if ticks.is_some() {
        guard(this, &event_loop)?;
    }
    act(this, &event_loop, push)?;
    Ok(future)
}

/// Lets the watchdog look after what has just been queued.
fn guard(this: &Bound<'_, AsyncRemote>, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    let starts = !std::mem::replace(&mut this.get().lock().watchdog_runs, true);
    if starts { watch_over(this, event_loop) } else { Ok(()) }
}

fn act(this: &Bound<'_, AsyncRemote>, event_loop: &Bound<'_, PyAny>, push: Push) -> PyResult<()> {
    let py = this.py();
    match push {
        Push::Nothing => Ok(()),
        Push::Write(transport, out) => write(py, &transport, &out),
        Push::Flush => {
            let flush = this.getattr(pyo3::intern!(py, "_flush"))?;
            event_loop.call_method1(pyo3::intern!(py, "call_soon"), (flush,)).map(drop)
        }
        Push::Connect => this.call_method1("_connect", (event_loop,)).map(drop),
    }
}

fn watch_over(this: &Bound<'_, AsyncRemote>, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    let Some(timeout) = this.get().timeout else { return Ok(()) };
    let tick = this.getattr("_tick")?;
    event_loop.call_method1("call_later", (timeout / f64::from(LATE), tick)).map(drop)
}

fn write(py: Python<'_>, transport: &Py<PyAny>, bytes: &[u8]) -> PyResult<()> {
    transport.bind(py).call_method1(pyo3::intern!(py, "write"), (PyBytes::new(py, bytes),)).map(drop)
}

/// The exception for a connection that was lost on the way.
fn lost(py: Python<'_>, why: &str, repeatable: bool) -> PyErr {
    if repeatable {
        return errors::named(py, "ConnectionError", &format!("connection lost: {why}"));
    }
    let message = format!("connection lost, the command may have been carried out: {why}");
    errors::named(py, "OutcomeUnknownError", &message)
}
