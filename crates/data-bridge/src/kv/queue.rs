//! Commands that wait to be sent together: the native part of a pipeline.

use std::ops::Range;

use data_bridge_kv_client::core::check_request;
use data_bridge_kv_model::command::table::opcode;
use data_bridge_kv_model::frame::DURABLY;
use data_bridge_kv_model::{Error, Kind};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::request::{self, Fallback, Request, Scratch, SetOptions, Shaping};

/// What stands before a command's arguments in an atomic step: two numbers.
const STEP_BYTES: usize = 18;

/// Queued commands, in order. Their methods are those of a store and return the queue.
#[pyclass(subclass, module = "data_bridge._native")]
pub struct Queue {
    queued: Queued,
    fallback: Fallback,
}

/// What a queue holds, taken out when it is sent.
#[derive(Default)]
pub struct Queued {
    args: Vec<u8>,
    steps: Vec<Step>,
}

struct Step {
    opcode: u16,
    args: Range<usize>,
    /// How many arguments.
    count: usize,
    shaping: Shaping,
    /// A result that needs no command.
    ready: Option<Py<PyAny>>,
}

/// One queued command.
pub struct Command<'a> {
    /// Number of the command.
    pub opcode: u16,
    /// Its encoded arguments.
    pub args: &'a [u8],
    /// How many arguments.
    pub count: usize,
    /// What becomes of its reply.
    pub shaping: &'a Shaping,
}

impl Queued {
    /// The commands in order; what needs none is left out.
    pub fn commands(&self) -> impl Iterator<Item = Command<'_>> {
        self.steps.iter().filter(|step| step.ready.is_none()).map(|step| Command {
            opcode: step.opcode,
            args: self.args.get(step.args.clone()).unwrap_or_default(),
            count: step.count,
            shaping: &step.shaping,
        })
    }

    /// The whole queue as one request for an atomic step.
    pub fn atomic(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.args.len() + self.steps.len() * STEP_BYTES);
        for command in self.commands() {
            for number in [i64::from(command.opcode & !DURABLY), command.count as i64] {
                out.push(Kind::Int.number());
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(command.args);
        }
        out
    }

    /// Refuses what no server takes, one by one or as one step, before anything is sent.
    pub fn check(&self, atomic: bool) -> Result<(), Error> {
        if atomic {
            return check_request(self.args.len() + self.steps.len() * STEP_BYTES);
        }
        self.commands().try_for_each(|command| check_request(command.args.len()))
    }

    /// Whether one of them is answered only when it is on disk.
    pub fn is_durable(&self) -> bool {
        self.commands().any(|command| command.opcode & DURABLY != 0)
    }

    /// The opcode of the queue as one step.
    pub fn atomic_opcode(&self) -> u16 {
        opcode::KV_ATOMIC | if self.is_durable() { DURABLY } else { 0 }
    }

    /// Bytes of all arguments.
    pub fn size(&self) -> usize {
        self.args.len()
    }

    /// The results in order: those of the commands come from `result`.
    pub fn results<'py>(
        &self,
        py: Python<'py>,
        mut result: impl FnMut(&Shaping) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let results = PyList::empty(py);
        for step in &self.steps {
            match &step.ready {
                Some(ready) => results.append(ready.bind(py))?,
                None => results.append(result(&step.shaping)?)?,
            }
        }
        Ok(results)
    }

    fn add(&mut self, request: &Request, shaping: Shaping) {
        let start = self.args.len();
        self.args.extend_from_slice(&request.args);
        let args = start..self.args.len();
        let count = request.count();
        self.steps.push(Step { opcode: request.opcode, args, count, shaping, ready: None });
    }
}

impl Queue {
    /// Takes what is queued; the queue is empty then.
    pub fn take(&mut self) -> Queued {
        std::mem::take(&mut self.queued)
    }

    fn add<'py>(
        this: &Bound<'py, Self>,
        fill: impl FnOnce(&mut Request, &Fallback) -> PyResult<Shaping>,
    ) -> PyResult<Bound<'py, Self>> {
        let fallback = this.borrow().fallback.as_ref().map(|codec| codec.clone_ref(this.py()));
        let mut scratch = Scratch::take();
        let shaping = fill(&mut scratch.request, &fallback)?;
        this.borrow_mut().queued.add(&scratch.request, shaping);
        scratch.keep();
        Ok(this.clone())
    }
}

#[pymethods]
impl Queue {
    #[new]
    #[pyo3(signature = (fallback=None))]
    fn new(fallback: Option<Py<PyAny>>) -> Queue {
        Queue { queued: Queued::default(), fallback }
    }

    fn __len__(&self) -> usize {
        self.queued.steps.len()
    }

    /// Forgets what is queued.
    fn reset(&mut self) {
        self.queued = Queued::default();
    }

    /// The value of a key, `default` where there is none.
    #[pyo3(signature = (key, default=None))]
    fn get<'py>(
        this: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, Self>> {
        Queue::add(this, |request, _| {
            request.opcode = opcode::KV_GET;
            request.key(key)?;
            Ok(Shaping::of(default, None))
        })
    }

    /// Writes a value; the options are those of a store's `set`.
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
    ) -> PyResult<Bound<'py, Self>> {
        request::refuse(other)?;
        let options = SetOptions { ttl, nx, xx, keep_ttl, return_old, durable };
        Queue::add(this, |request, fallback| options.fill(key, value, fallback, request))
    }

    /// Queues one command.
    #[pyo3(signature = (opcode, args, missing=None, shape=None))]
    fn _call<'py>(
        this: &Bound<'py, Self>,
        opcode: u16,
        args: &Bound<'py, PyTuple>,
        missing: Option<Bound<'py, PyAny>>,
        shape: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, Self>> {
        Queue::add(this, |request, fallback| {
            request.fill(opcode, args, fallback)?;
            Ok(Shaping::of(missing, shape))
        })
    }

    /// Queues a result that needs no command.
    fn _ready<'py>(this: &Bound<'py, Self>, result: Py<PyAny>) -> Bound<'py, Self> {
        let step = Step { opcode: 0, args: 0..0, count: 0, shaping: Shaping::default(), ready: Some(result) };
        this.borrow_mut().queued.steps.push(step);
        this.clone()
    }
}
