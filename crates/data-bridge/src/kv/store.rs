//! The embedded store: commands run on the caller's thread, in the engine of this process.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use data_bridge_kv::{Caller, Engine, Progress, Settings, Waits};
use data_bridge_kv_model::ReplyBuf;
use data_bridge_kv_model::command::Expiry;
use data_bridge_kv_model::command::table::opcode;
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use super::batch::{self, Answers};
use super::bell::Parts;
use super::deferred::{Deferred, Held, Receipt, Work, held_by, runner};
use super::direct::Door;
use super::lifetime::{self, Generation};
use super::queue::Queue;
use super::request::{self, Fallback, Scratch, SetOptions, Shaping};
use super::waiter::{Letter, Mailbox};
use super::{doorway, errors, options};

/// An engine of this process, shared by the stores of its namespaces.
#[pyclass(frozen, name = "Engine", module = "data_bridge._native")]
pub struct SharedEngine {
    /// The engine.
    pub engine: Arc<Engine>,
    /// The process that opened it.
    pub generation: Generation,
    /// The watches, which end with it.
    watches: Mutex<Vec<Weak<Mailbox>>>,
}

#[pymethods]
impl SharedEngine {
    /// Opens an engine: a directory and the most bytes there, `mode`, `eviction` and `durability` of namespace 0,
    /// memory in bytes (None = from the container), and for other namespaces a dict of name to options.
    #[new]
    #[pyo3(signature = (path, max_disk, mode, eviction, durability, max_memory, namespaces))]
    #[expect(clippy::too_many_arguments, reason = "the options of kv.open(), by name")]
    fn new(
        py: Python<'_>,
        path: Option<PathBuf>,
        max_disk: Option<u64>,
        mode: &str,
        eviction: Option<&str>,
        durability: Option<&str>,
        max_memory: Option<u64>,
        namespaces: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<SharedEngine> {
        let settings = options::settings(mode, eviction, durability, max_memory, namespaces)?;
        let open = || {
            let data = path.map(|path| options::data(&path, max_disk)).transpose()?;
            Engine::open(Settings { data, ..settings })
        };
        let engine = doorway::outside(py, open).map_err(|error| errors::from_model(py, &error))?;
        let engine = Arc::new(engine);
        lifetime::close_at_exit(&engine);
        Ok(SharedEngine { engine, generation: Generation::current(), watches: Mutex::default() })
    }

    /// Copies the task namespaces to an empty directory, or one to be made, as they are at one moment.
    fn snapshot(&self, py: Python<'_>, destination: PathBuf) -> PyResult<()> {
        self.generation.check(py)?;
        let copy = || options::snapshot(&self.engine, &destination);
        doorway::outside(py, copy).map_err(|error| errors::from_model(py, &error))
    }

    /// Ends every wait and watch and refuses later calls. Raises `DurabilityError` if the log failed.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if !self.generation.is_current() {
            return Ok(());
        }
        let closed = doorway::outside(py, || self.engine.close());
        let watches = std::mem::take(&mut *self.watches());
        watches.iter().filter_map(Weak::upgrade).for_each(|mailbox| mailbox.close());
        closed.map_err(|error| errors::from_model(py, &error))
    }
}

impl SharedEngine {
    fn watches(&self) -> MutexGuard<'_, Vec<Weak<Mailbox>>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A mailbox for a watch, which ends with the store.
    fn mailbox(&self) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::default());
        let mut watches = self.watches();
        watches.retain(|watch| watch.strong_count() > 0);
        watches.push(Arc::downgrade(&mailbox));
        mailbox
    }
}

impl Drop for SharedEngine {
    fn drop(&mut self) {
        if !self.generation.is_current() {
            // The threads that its end would wait for are not in this process: it is kept for ever.
            std::mem::forget(Arc::clone(&self.engine));
        }
    }
}

/// One namespace of an embedded store.
#[pyclass(frozen, subclass, module = "data_bridge._native")]
pub struct Embedded {
    shared: Py<SharedEngine>,
    generation: Generation,
    caller: Caller,
    fallback: Fallback,
}

#[pymethods]
impl Embedded {
    /// With `waits=False` a command that has to wait for the disk raises `Blocked`: it has done nothing, or its answer has to
    /// wait for the log.
    #[new]
    #[pyo3(signature = (engine, namespace, fallback=None, waits=true))]
    fn new(
        engine: Bound<'_, SharedEngine>,
        namespace: &str,
        fallback: Option<Py<PyAny>>,
        waits: bool,
    ) -> PyResult<Embedded> {
        let py = engine.py();
        let shared = engine.get();
        shared.generation.check(py)?;
        let mut caller = shared.engine.caller();
        caller.namespace =
            shared.engine.namespace(namespace).map_err(|error| errors::from_model(py, &error))?;
        caller.waits = if waits { Waits::Here } else { Waits::Never };
        caller.parks = !waits && shared.engine.may_block();
        if !waits {
            // Here, so that no change of an event loop has to wait for it and is overtaken.
            doorway::outside(py, || shared.engine.begin_log(&caller))
                .map_err(|error| errors::from_model(py, &error))?;
        }
        Ok(Embedded { generation: shared.generation, shared: engine.unbind(), caller, fallback })
    }

    fn __getitem__<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match self.door().read(py, key, None)? {
            Some(value) => Ok(value),
            None => Err(PyKeyError::new_err((key.clone().unbind(),))),
        }
    }

    fn __setitem__<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        self.door().write(py, key, value, Expiry::Default)
    }

    fn __delitem__<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<()> {
        if self.one_key(py, opcode::DEL, key)?.is_truthy()? {
            return Ok(());
        }
        Err(PyKeyError::new_err((key.clone().unbind(),)))
    }

    fn __contains__<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<bool> {
        self.one_key(py, opcode::EXISTS, key)?.is_truthy()
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.generation.check(py)?;
        let mut scratch = Scratch::take();
        scratch.request.opcode = opcode::DBSIZE;
        self.finish(py, scratch, Shaping::default())?.extract()
    }

    /// The value of a key, `default` where there is none. A sorted set comes as a list of (member, score).
    #[pyo3(signature = (key, default=None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let value = self.door().read(py, key, default.as_ref())?;
        Ok(value.or(default).unwrap_or_else(|| py.None().into_bound(py)))
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
        self.generation.check(py)?;
        request::refuse(other)?;
        let mut scratch = Scratch::take();
        let options = SetOptions { ttl, nx, xx, keep_ttl, return_old, durable };
        let shaping = options.fill(key, value, &self.fallback, &mut scratch.request)?;
        self.finish(py, scratch, shaping)
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
        self.generation.check(py)?;
        let mut scratch = Scratch::take();
        scratch.request.fill(opcode, args, &self.fallback)?;
        self.finish(py, scratch, Shaping::of(missing, shape))
    }

    /// Runs a command that ends later; Ctrl-C ends it.
    #[pyo3(signature = (opcode, args, missing=None, shape=None))]
    fn _wait<'py>(
        &self,
        py: Python<'py>,
        opcode: u16,
        args: &Bound<'py, PyTuple>,
        missing: Option<Bound<'py, PyAny>>,
        shape: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.generation.check(py)?;
        let engine = &self.shared.get().engine;
        let mailbox = Arc::new(Mailbox::default());
        let mut caller = engine.caller();
        caller.namespace = self.caller.namespace;
        caller.completions = Some(mailbox.clone());
        let mut scratch = Scratch::take();
        scratch.request.fill(opcode, args, &self.fallback)?;
        let shaping = Shaping::of(missing, shape);
        if self.run(py, &caller, &mut scratch)? == Progress::Done {
            let result = shaping.result(py, scratch.reply.as_bytes(), &self.fallback);
            scratch.keep();
            return result;
        }
        let letter = doorway::wait_for_others(py, None, |patience| mailbox.next(patience));
        if letter.is_err() {
            engine.disconnect(&caller);
        }
        match letter? {
            Some(Letter::Item(item)) => shaping.result(py, &item, &self.fallback),
            _ => Ok(py.None().into_bound(py)),
        }
    }

    /// Starts a watch: an iterator of (change, key, version).
    fn _watch<'py>(&self, py: Python<'py>, args: &Bound<'py, PyTuple>) -> PyResult<Watch> {
        self.generation.check(py)?;
        let mailbox = self.shared.get().mailbox();
        let mut caller = self.shared.get().engine.caller();
        caller.namespace = self.caller.namespace;
        caller.completions = Some(mailbox.clone());
        let mut scratch = Scratch::take();
        scratch.request.fill(opcode::KV_WATCH, args, &self.fallback)?;
        let _ = self.run(py, &caller, &mut scratch)?;
        Shaping::default().result(py, scratch.reply.as_bytes(), &None)?;
        scratch.keep();
        Ok(Watch { shared: self.shared.clone_ref(py), generation: self.generation, caller, mailbox })
    }

    /// Runs a queue: a list of results, with exceptions in the places of commands that failed. With `atomic` all or
    /// none take effect, and the first error is raised.
    fn _run<'py>(
        &self,
        py: Python<'py>,
        queue: &Bound<'py, Queue>,
        atomic: bool,
    ) -> PyResult<Bound<'py, PyList>> {
        self.generation.check(py)?;
        let queued = queue.borrow_mut().take();
        let mut scratch = Scratch::take();
        let (engine, runner) = (&self.shared.get().engine, runner(&self.caller));
        let answers = batch::run(py, engine, &runner, &queued, atomic, &mut scratch.reply)?;
        let (rests_on, count) = (held_by(engine, &runner), queued.commands().count());
        if answers.len() < count {
            let commands = queued.commands().map(|command| (command.opcode, command.args.into())).collect();
            let done = Answers { reply: scratch.reply.as_bytes().to_vec(), places: answers };
            scratch.keep();
            let work = Work::Queue { commands, atomic, done, rests_on: rests_on.unwrap_or(0) };
            return Err(Deferred::raise(py, work, Receipt::Queue(queued)));
        }
        if let Some(rests_on) = rests_on {
            let parts = (!atomic).then_some(count);
            let reply = batch::one_item(scratch.reply.as_bytes(), parts);
            scratch.keep();
            let held = Held { reply, rests_on, parts };
            return Err(Deferred::raise(py, Work::Nothing(held), Receipt::Queue(queued)));
        }
        let results = batch::results(py, &queued, scratch.reply.as_bytes(), &answers, &self.fallback);
        scratch.keep();
        results
    }

    /// A result that needs no command.
    fn _ready(&self, result: Py<PyAny>) -> Py<PyAny> {
        result
    }

    /// Whether commands and the end of the store may have to wait for the disk.
    #[getter]
    fn _may_block(&self) -> bool {
        self.shared.get().engine.may_block()
    }

    /// The engine, for another namespace of it.
    #[getter]
    fn _engine(&self, py: Python<'_>) -> Py<SharedEngine> {
        self.shared.clone_ref(py)
    }

    /// The codec given as `fallback=`.
    #[getter]
    fn _fallback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.fallback.as_ref().map(|codec| codec.clone_ref(py))
    }
}

impl Embedded {
    /// The short way into the engine.
    #[inline]
    pub fn door(&self) -> Door<'_> {
        let engine: &Engine = &self.shared.get().engine;
        Door { engine, caller: &self.caller, generation: self.generation, fallback: &self.fallback }
    }

    /// The engine, the namespace and the fallback codec, for waits in an event loop.
    pub fn parts(&self, py: Python<'_>) -> PyResult<Parts> {
        self.generation.check(py)?;
        let fallback = self.fallback.as_ref().map(|codec| codec.clone_ref(py));
        Ok((Arc::clone(&self.shared.get().engine), self.caller.namespace, fallback))
    }

    fn one_key<'py>(
        &self,
        py: Python<'py>,
        opcode: u16,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.generation.check(py)?;
        let mut scratch = Scratch::take();
        scratch.request.opcode = opcode;
        scratch.request.key(key)?;
        self.finish(py, scratch, Shaping::default())
    }

    /// Runs the request of a scratch and gives its buffers back.
    #[inline]
    fn finish<'py>(
        &self,
        py: Python<'py>,
        mut scratch: Box<Scratch>,
        shaping: Shaping,
    ) -> PyResult<Bound<'py, PyAny>> {
        let runner = runner(&self.caller);
        if self.run(py, &runner, &mut scratch)? == Progress::Blocked {
            return Err(Deferred::raise(py, Work::Command(scratch.request), Receipt::One(shaping)));
        }
        if let Some(rests_on) = held_by(&self.shared.get().engine, &runner) {
            return Err(Deferred::hold(py, scratch, rests_on, shaping));
        }
        let result = shaping.result(py, scratch.reply.as_bytes(), &self.fallback);
        scratch.keep();
        result
    }

    #[inline]
    fn run(&self, py: Python<'_>, caller: &Caller, scratch: &mut Scratch) -> PyResult<Progress> {
        let engine: &Engine = &self.shared.get().engine;
        let Scratch { request, reply } = scratch;
        let run = |reply: &mut ReplyBuf| request.execute(engine, caller, 1, reply);
        let progress = if request.is_large() { doorway::outside(py, || run(reply)) } else { run(reply) };
        progress.map_err(|error| errors::from_model(py, &error))
    }
}

/// The events of a watch of an embedded store.
#[pyclass(frozen, module = "data_bridge._native")]
pub struct Watch {
    shared: Py<SharedEngine>,
    generation: Generation,
    caller: Caller,
    mailbox: Arc<Mailbox>,
}

#[pymethods]
impl Watch {
    /// The next event as one reply, waiting for it at most so many seconds (None = for ever); None when the time is over.
    #[pyo3(signature = (timeout=None))]
    fn next<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        self.generation.check(py)?;
        let deadline = super::deadline(timeout)?;
        match doorway::wait_for_others(py, deadline, |patience| self.mailbox.next(patience))? {
            Some(Letter::Item(item)) => Shaping::default().result(py, &item, &None),
            Some(Letter::Lost) => lost(py),
            Some(Letter::Closed) => Err(errors::named(py, "ClosedError", "the watch is closed")),
            None => Ok(py.None().into_bound(py)),
        }
    }

    /// Ends the watch; whoever waits for an event is told.
    fn close(&self) {
        if self.generation.is_current() {
            self.shared.get().engine.disconnect(&self.caller);
            self.mailbox.close();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.close();
    }
}

/// The event of a watch that could not keep up.
pub fn lost(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static LOST: PyOnceLock<Py<PyTuple>> = PyOnceLock::new();
    let event = LOST.get_or_try_init(py, || {
        PyTuple::new(
            py,
            [
                PyString::new(py, "lost").into_any(),
                PyString::new(py, "").into_any(),
                0u64.into_pyobject(py)?.into_any(),
            ],
        )
        .map(Bound::unbind)
    })?;
    Ok(event.bind(py).clone().into_any())
}
