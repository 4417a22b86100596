//! The synchronous remote client: blocking sockets owned by the calling thread, no threads of its own.

use std::time::{Duration, Instant};

use data_bridge_kv_client::core::{check_request, is_repeatable, put_request};
use data_bridge_kv_model::command::table::opcode;
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::queue::{Queue, Queued};
use super::request::{self, Fallback, Scratch, SetOptions, Shaping};
use super::{batch, errors, store};

mod link;
mod pool;
mod watch;

use link::{Address, Link, Lost, Target};
use pool::Pool;
pub use watch::RemoteWatch;

/// Bytes of requests that a pipeline sends before it reads answers.
const WINDOW_BYTES: usize = 128 << 10;
/// An idle connection older than this is looked at before a command that must not be repeated.
const TRUSTED: Duration = Duration::from_millis(50);
/// Id of the first request after a greeting.
const FIRST_ID: u32 = 16;

/// A client of one namespace of a server.
#[pyclass(frozen, subclass, module = "data_bridge._native")]
pub struct Remote {
    address: Address,
    pool: Py<Pool>,
    /// Connections of waits, which may be busy for long.
    waits: Py<Pool>,
    timeout: Option<Duration>,
    fallback: Fallback,
}

#[pymethods]
impl Remote {
    #[new]
    #[pyo3(signature = (
        target, *, namespace=None, password=None, max_connections=50, pool_timeout=5.0, connect_timeout=5.0,
        timeout=Some(5.0), cooperative=false, fallback=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "the options of the client, by name")]
    fn new(
        py: Python<'_>,
        target: Target,
        namespace: Option<String>,
        password: Option<String>,
        max_connections: usize,
        pool_timeout: f64,
        connect_timeout: f64,
        timeout: Option<f64>,
        cooperative: bool,
        fallback: Option<Py<PyAny>>,
    ) -> PyResult<Remote> {
        let connect_timeout = super::seconds(connect_timeout)?;
        let address = Address { target, namespace, password, connect_timeout, cooperative };
        Ok(Remote {
            address,
            pool: Py::new(py, Pool::new(max_connections.max(1), super::seconds(pool_timeout)?))?,
            waits: Py::new(py, Pool::of_waits())?,
            timeout: timeout.map(super::seconds).transpose()?,
            fallback,
        })
    }

    fn __getitem__<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let missing = py.Ellipsis().into_bound(py);
        let value = self.one_key(py, opcode::KV_GET, key, Some(missing.clone()))?;
        if value.is(&missing) { Err(PyKeyError::new_err((key.clone().unbind(),))) } else { Ok(value) }
    }

    fn __setitem__<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let mut scratch = Scratch::take();
        scratch.request.opcode = opcode::KV_SET;
        scratch.request.key(key)?;
        scratch.request.value(value, &self.fallback)?;
        self.finish(py, scratch, &Shaping::default()).map(drop)
    }

    fn __delitem__<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<()> {
        if self.one_key(py, opcode::DEL, key, None)?.is_truthy()? {
            return Ok(());
        }
        Err(PyKeyError::new_err((key.clone().unbind(),)))
    }

    fn __contains__<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<bool> {
        self.one_key(py, opcode::EXISTS, key, None)?.is_truthy()
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        let mut scratch = Scratch::take();
        scratch.request.opcode = opcode::DBSIZE;
        self.finish(py, scratch, &Shaping::default())?.extract()
    }

    /// The value of a key, `default` where there is none. A sorted set comes as a list of (member, score).
    #[pyo3(signature = (key, default=None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.one_key(py, opcode::KV_GET, key, default)
    }

    /// Writes a value. It loses its TTL, or gets the namespace's default, unless `ttl` (seconds, timedelta) or
    /// `keep_ttl` says otherwise. With `nx` or `xx`: whether it was written. With `return_old`: the old value or MISSING.
    /// With `durable` it returns when the write is on disk, whatever the namespace's durability says.
    #[pyo3(
        signature = (key, value, *, ttl=None, nx=false, xx=false, keep_ttl=false, return_old=false, durable=false, **other),
        text_signature = "($self, key, value, *, ttl=None, nx=False, xx=False, keep_ttl=False, return_old=False, durable=False)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the options of the method, by name")]
    fn set<'py>(
        &self,
        py: Python<'py>,
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
        let shaping = options.fill(key, value, &self.fallback, &mut scratch.request)?;
        self.finish(py, scratch, &shaping)
    }

    /// Runs one command.
    #[pyo3(signature = (opcode, args, missing=None, shape=None))]
    fn _call<'py>(
        &self,
        py: Python<'py>,
        opcode: u16,
        args: &Bound<'py, PyTuple>,
        missing: Option<Bound<'py, PyAny>>,
        shape: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut scratch = Scratch::take();
        scratch.request.fill(opcode, args, &self.fallback)?;
        self.finish(py, scratch, &Shaping::of(missing, shape))
    }

    /// Runs a command that ends later, on a connection of its own; Ctrl-C ends it.
    #[pyo3(signature = (opcode, args, missing=None, shape=None))]
    fn _wait<'py>(
        &self,
        py: Python<'py>,
        opcode: u16,
        args: &Bound<'py, PyTuple>,
        missing: Option<Bound<'py, PyAny>>,
        shape: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut scratch = Scratch::take();
        scratch.request.fill(opcode, args, &self.fallback)?;
        // The server ends a wait in its time, unless it does not answer any more.
        let timeout =
            self.timeout.zip(request::time_of_wait(args)).map(|(timeout, own)| own.saturating_add(timeout));
        self.exchange(py, scratch, &Shaping::of(missing, shape), &self.waits, timeout)
    }

    /// Starts a watch, on a connection of its own.
    fn _watch<'py>(&self, py: Python<'py>, args: &Bound<'py, PyTuple>) -> PyResult<RemoteWatch> {
        self.pool.borrow_mut(py).check(py)?;
        let mut scratch = Scratch::take();
        scratch.request.fill(opcode::KV_WATCH, args, &self.fallback)?;
        let deadline = within(self.timeout);
        RemoteWatch::start(py, &self.waits, &self.address, &scratch.request.args, deadline)
    }

    /// Runs a queue: a list of results, with exceptions in the places of commands that failed. With `atomic` all or
    /// none take effect, and the first error is raised.
    fn _run<'py>(
        &self,
        py: Python<'py>,
        queue: &Bound<'py, Queue>,
        atomic: bool,
    ) -> PyResult<Bound<'py, PyList>> {
        let queued = queue.borrow_mut().take();
        if queued.commands().next().is_none() {
            return batch::results(py, &queued, &[], &[], &self.fallback);
        }
        queued.check(atomic).map_err(|error| errors::from_model(py, &error))?;
        let repeatable =
            !atomic && queued.commands().all(|command| is_repeatable(command.opcode, command.args));
        let deadline = within(self.timeout);
        let run = |link: &mut Link| pipeline(py, link, &queued, atomic, deadline);
        let (link, (replies, answers)) = self.on_a_link(py, &self.pool, repeatable, run)?;
        Pool::give(&self.pool, py, link);
        let answers = match (atomic, answers.first()) {
            (true, Some(_)) => batch::answers_of(&replies).map_err(|error| errors::from_model(py, &error))?,
            _ => answers,
        };
        batch::results(py, &queued, &replies, &answers, &self.fallback)
    }

    /// A result that needs no command.
    fn _ready(&self, result: Py<PyAny>) -> Py<PyAny> {
        result
    }

    /// The codec given as `fallback=`.
    #[getter]
    fn _fallback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.fallback.as_ref().map(|codec| codec.clone_ref(py))
    }

    /// How many connections are open, and how many of them are idle.
    #[getter]
    fn _connections(&self, py: Python<'_>) -> (usize, usize) {
        self.pool.borrow(py).counts()
    }

    /// Closes the connections; waits and watches end, later calls raise.
    fn close(&self, py: Python<'_>) {
        Pool::close(&self.pool, py);
        Pool::close(&self.waits, py);
    }
}

impl Remote {
    fn one_key<'py>(
        &self,
        py: Python<'py>,
        opcode: u16,
        key: &Bound<'py, PyAny>,
        missing: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut scratch = Scratch::take();
        scratch.request.opcode = opcode;
        scratch.request.key(key)?;
        self.finish(py, scratch, &Shaping::of(missing, None))
    }

    fn finish<'py>(
        &self,
        py: Python<'py>,
        scratch: Box<Scratch>,
        shaping: &Shaping,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.exchange(py, scratch, shaping, &self.pool, self.timeout)
    }

    /// Sends one request and makes the result of its answer.
    fn exchange<'py>(
        &self,
        py: Python<'py>,
        mut scratch: Box<Scratch>,
        shaping: &Shaping,
        pool: &Py<Pool>,
        timeout: Option<Duration>,
    ) -> PyResult<Bound<'py, PyAny>> {
        check_request(scratch.request.args.len()).map_err(|error| errors::from_model(py, &error))?;
        let (opcode, sent) = (scratch.request.opcode, scratch.reply.bytes_mut());
        put_request(FIRST_ID, opcode, &scratch.request.args, sent);
        let repeatable = is_repeatable(opcode, &scratch.request.args);
        let deadline = within(timeout);
        let request = scratch.reply.as_bytes();
        let run = |link: &mut Link| link.exchange(py, request, deadline, |responses| responses.is_whole());
        let (mut link, ()) = self.on_a_link(py, pool, repeatable, run)?;
        let item = match link.responses.cut() {
            Ok(Some(response)) => response.item,
            _ => &[],
        };
        let result = shaping.result(py, item, &self.fallback);
        Pool::give(pool, py, link);
        scratch.keep();
        result
    }

    /// Runs an exchange on a connection, which is to be given back. A lost one is tried again once if the outcome would be
    /// the same; for anything else one that was idle is looked at before.
    fn on_a_link<T>(
        &self,
        py: Python<'_>,
        pool: &Py<Pool>,
        repeatable: bool,
        mut run: impl FnMut(&mut Link) -> Result<T, Lost>,
    ) -> PyResult<(Link, T)> {
        let mut is_again = false;
        loop {
            let mut link = Pool::take(pool, py, &self.address)?;
            if !repeatable && link.used.elapsed() > TRUSTED && link.is_closed(py) {
                Pool::gone(pool, py, link.number);
                continue;
            }
            match run(&mut link) {
                Ok(done) => return Ok((link, done)),
                Err(lost) => {
                    Pool::gone(pool, py, link.number);
                    let is_broken = matches!(lost, Lost::Socket(_));
                    drop(link);
                    if is_broken {
                        Pool::look_through(pool, py);
                    }
                    if !(repeatable && is_broken) || is_again {
                        return Err(raise(py, lost, repeatable));
                    }
                    is_again = true;
                }
            }
        }
    }
}

/// When a timeout is over; never without one, and in more time than a clock can tell.
fn within(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}

/// Sends a queue window by window and collects the answers: their bytes, and where each stands.
fn pipeline(
    py: Python<'_>,
    link: &mut Link,
    queued: &Queued,
    atomic: bool,
    deadline: Option<Instant>,
) -> Result<(Vec<u8>, Vec<std::ops::Range<usize>>), Lost> {
    let (mut replies, mut answers) = (Vec::new(), Vec::new());
    let (mut out, mut waiting) = (Vec::new(), 0usize);
    let mut flush = |out: &mut Vec<u8>, waiting: &mut usize| {
        let result = link.exchange(py, out, deadline, |responses| {
            while *waiting > 0 {
                let Some(response) = responses.cut()? else { return Ok(false) };
                let start = replies.len();
                replies.extend_from_slice(response.item);
                answers.push(start..replies.len());
                *waiting -= 1;
            }
            Ok(true)
        });
        out.clear();
        result
    };
    if atomic {
        put_request(FIRST_ID, queued.atomic_opcode(), &queued.atomic(), &mut out);
        waiting = 1;
    } else {
        for (id, command) in (FIRST_ID..).zip(queued.commands()) {
            put_request(id, command.opcode, command.args, &mut out);
            waiting += 1;
            if out.len() > WINDOW_BYTES {
                flush(&mut out, &mut waiting)?;
            }
        }
    }
    if waiting > 0 {
        flush(&mut out, &mut waiting)?;
    }
    Ok((replies, answers))
}

/// The exception for a connection that was lost on the way.
#[cold]
fn raise(py: Python<'_>, lost: Lost, repeatable: bool) -> PyErr {
    match lost {
        Lost::Raised(error) => error,
        Lost::Late => errors::named(
            py,
            "TimeoutError",
            if repeatable {
                "the server did not answer in time"
            } else {
                "the server did not answer in time: the command may have been carried out"
            },
        ),
        Lost::Protocol(error) => errors::named(py, "ConnectionError", error.message()),
        Lost::Socket(error) if repeatable => {
            errors::named(py, "ConnectionError", &format!("connection lost: {error}"))
        }
        Lost::Socket(error) => {
            let message = format!("connection lost, the command may have been carried out: {error}");
            errors::named(py, "OutcomeUnknownError", &message)
        }
    }
}

/// The event of a watch that could not keep up.
fn lost_event(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    store::lost(py)
}
