//! One command on its way from a Python call to the engine or the wire, and its result on the way back.

use std::cell::Cell;
use std::time::Duration;

use data_bridge_kv::{Caller, Engine, Progress};
use data_bridge_kv_model::codec::put_varint;
use data_bridge_kv_model::command::table::{self, Spec, opcode};
use data_bridge_kv_model::frame::DURABLY;
use data_bridge_kv_model::{Arg, Call, Error, ErrorKind, Kind, Reader, ReplyBuf, ValueRef};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::convert::{self, Decoder, Encoder, Failure};
use super::errors;

/// Buffers above this give their memory back after the call.
const KEPT_BYTES: usize = 256 << 10;

/// Arguments above this are worth the cost of releasing the interpreter lock.
pub const LARGE_BYTES: usize = 64 << 10;

/// An opcode and its encoded arguments.
#[derive(Debug, Default)]
pub struct Request {
    /// Number of the command; with [`DURABLY`] added it is answered when it is on disk.
    pub opcode: u16,
    /// The arguments' codec bytes, one after the other.
    pub args: Vec<u8>,
    ends: Vec<usize>,
}

/// The buffers of one call, kept by the thread for the next.
#[derive(Debug, Default)]
pub struct Scratch {
    /// What is asked.
    pub request: Request,
    /// What is answered.
    pub reply: ReplyBuf,
}

thread_local! {
    static KEPT: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl Scratch {
    /// Buffers for one call. A call inside a call (a registered codec that uses the store) gets its own.
    #[inline]
    pub fn take() -> Box<Scratch> {
        let mut scratch = KEPT.take().unwrap_or_default();
        scratch.request.args.clear();
        scratch.request.ends.clear();
        scratch.reply.reset(KEPT_BYTES);
        scratch
    }

    /// Keeps the buffers for the next call.
    #[inline]
    pub fn keep(mut self: Box<Self>) {
        self.request.args.shrink_to(KEPT_BYTES);
        KEPT.set(Some(self));
    }
}

/// The codec that the caller of a store gave for other objects.
pub type Fallback = Option<Py<PyAny>>;

impl Request {
    /// A command without arguments.
    pub fn new(opcode: u16) -> Request {
        Request { opcode, ..Request::default() }
    }

    /// Adds a key; a name that can't be one is refused here already.
    #[inline]
    pub fn key(&mut self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        self.word(convert::key(key)?.as_str());
        Ok(())
    }

    /// Adds a value.
    #[inline]
    pub fn value<'py>(&mut self, value: &Bound<'py, PyAny>, fallback: &Fallback) -> PyResult<()> {
        let py = value.py();
        let fallback = fallback.as_ref().map(|codec| codec.bind(py));
        let encoded = Encoder { out: &mut self.args, fallback }.value(value);
        self.ends.push(self.args.len());
        encoded.map_err(|failure: Failure| failure.into_error(py, "value"))
    }

    /// Adds a text of ours, as options are.
    #[inline]
    pub fn word(&mut self, word: &str) {
        self.args.push(Kind::Text.number());
        put_varint(word.len(), &mut self.args);
        self.args.extend_from_slice(word.as_bytes());
        self.ends.push(self.args.len());
    }

    /// Adds a value of the codec.
    pub fn encoded(&mut self, value: ValueRef<'_>) {
        value.encode_into(&mut self.args);
        self.ends.push(self.args.len());
    }

    /// Adds an integer of ours.
    pub fn int(&mut self, number: i64) {
        self.args.push(Kind::Int.number());
        self.args.extend_from_slice(&number.to_le_bytes());
        self.ends.push(self.args.len());
    }

    /// Fills in a command with arguments as the package's methods give them: names at the command's key positions.
    pub fn fill<'py>(
        &mut self,
        opcode: u16,
        args: &Bound<'py, PyTuple>,
        fallback: &Fallback,
    ) -> PyResult<()> {
        self.opcode = opcode;
        let spec = self.spec().map_err(|error| errors::from_model(args.py(), &error))?;
        for (position, arg) in args.iter_borrowed().enumerate() {
            if is_key(spec, position + 1, args.len()) {
                self.key(&arg)?;
            } else {
                self.value(&arg, fallback)?;
            }
        }
        Ok(())
    }

    /// Reads this request as a call of the engine.
    pub fn call_with<T>(&self, run: impl FnOnce(&Call<'_>) -> T) -> Result<T, Error> {
        let mut few = [Arg::Value(ValueRef::from_static(Kind::Null, &[])); 8];
        let mut start = 0;
        if let Some(few) = few.get_mut(..self.ends.len()) {
            for (arg, end) in few.iter_mut().zip(&self.ends) {
                *arg = Arg::Value(self.arg(start, *end));
                start = *end;
            }
            return Ok(run(&self.spec()?.call(few)?));
        }
        let many: Vec<Arg<'_>> = self
            .ends
            .iter()
            .map(|end| Arg::Value(self.arg(std::mem::replace(&mut start, *end), *end)))
            .collect();
        Ok(run(&self.spec()?.call(&many)?))
    }

    /// The row of the command table.
    pub fn spec(&self) -> Result<&'static Spec, Error> {
        table::by_opcode(self.opcode & !DURABLY)
            .ok_or_else(|| Error::new(ErrorKind::UnknownCommand, "unknown opcode"))
    }

    /// Whether it is answered only when it is on disk.
    #[inline]
    pub fn is_durable(&self) -> bool {
        self.opcode & DURABLY != 0
    }

    /// Runs it.
    #[inline]
    pub fn execute(
        &self,
        engine: &Engine,
        caller: &Caller,
        token: u64,
        reply: &mut ReplyBuf,
    ) -> Result<Progress, Error> {
        self.call_with(|call| match self.is_durable() {
            true => engine.execute_durably(caller, token, call, reply),
            false => engine.execute(caller, token, call, reply),
        })
    }

    /// The only argument, a value.
    pub fn whole_value(&self) -> ValueRef<'_> {
        self.arg(0, self.args.len())
    }

    /// How many arguments.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// Whether running it is worth the cost of releasing the interpreter lock.
    #[inline]
    pub fn is_large(&self) -> bool {
        self.args.len() > LARGE_BYTES || self.ends.len() > 512
    }

    #[inline]
    fn arg(&self, start: usize, end: usize) -> ValueRef<'_> {
        let encoded = self.args.get(start..end).unwrap_or_default();
        let Some((&number, payload)) = encoded.split_first() else {
            return ValueRef::from_static(Kind::Null, &[]);
        };
        let kind = Kind::from_number(number).unwrap_or(Kind::Null);
        let payload = if matches!(kind, Kind::Text | Kind::Bytes) {
            let mut reader = Reader::new(payload);
            // Our own encoder wrote the length: reading it cannot fail.
            let _ = reader.varint();
            reader.rest()
        } else {
            payload
        };
        ValueRef::from_parts(kind, payload)
    }
}

/// Whether the argument at `position`, from 1, of `count` is a key.
fn is_key(spec: &Spec, position: usize, count: usize) -> bool {
    let keys = spec.keys;
    let (Ok(first), Ok(step)) = (usize::try_from(keys.first), usize::try_from(keys.step)) else {
        return false;
    };
    let last = usize::try_from(keys.last).unwrap_or(count);
    first > 0 && (first..=last).contains(&position) && (position - first).is_multiple_of(step.max(1))
}

/// What becomes of a reply.
#[derive(Debug, Default)]
pub struct Shaping {
    /// What a missing key, field or member becomes; None for Python's None.
    pub missing: Option<Py<PyAny>>,
    /// What is made of the decoded reply.
    pub shape: Shape,
}

/// What is made of a decoded reply.
#[derive(Debug, Default)]
pub enum Shape {
    /// As it is.
    #[default]
    Whole,
    /// None: the method only succeeds or raises.
    Nothing,
    /// The result of a function.
    Apply(Py<PyAny>),
    /// Members with the names of their kinds, for those that are equal in Python.
    Typed,
}

impl Shaping {
    /// From what a method of the package gives: `...` stands for [`Shape::Typed`].
    pub fn of(missing: Option<Bound<'_, PyAny>>, shape: Option<Bound<'_, PyAny>>) -> Shaping {
        let shape = match shape {
            None => Shape::Whole,
            Some(shape) if shape.is(shape.py().Ellipsis()) => Shape::Typed,
            Some(shape) => Shape::Apply(shape.unbind()),
        };
        Shaping { missing: missing.map(Bound::unbind), shape }
    }

    /// The result for one reply item; an error item is raised.
    #[inline]
    pub fn result<'py>(
        &self,
        py: Python<'py>,
        item: &[u8],
        fallback: &Fallback,
    ) -> PyResult<Bound<'py, PyAny>> {
        let missing = self.missing.as_ref().map(|missing| missing.bind(py));
        let fallback = fallback.as_ref().map(|codec| codec.bind(py));
        let mut decoder = Decoder::new(py, item, missing, fallback);
        if matches!(self.shape, Shape::Typed) {
            return decoder.typed_items();
        }
        let reply = decoder.reply()?;
        match &self.shape {
            Shape::Whole | Shape::Typed => Ok(reply),
            Shape::Nothing => Ok(py.None().into_bound(py)),
            Shape::Apply(shape) => shape.bind(py).call1((reply,)),
        }
    }
}

/// The options of `set`, as every class takes them.
#[derive(Debug)]
pub struct SetOptions<'a, 'py> {
    /// Time to live.
    pub ttl: Option<&'a Bound<'py, PyAny>>,
    /// Only where no key is.
    pub nx: bool,
    /// Only over an existing key.
    pub xx: bool,
    /// Leave the deadline as it is.
    pub keep_ttl: bool,
    /// Answer the old value.
    pub return_old: bool,
    /// Answer when it is on disk.
    pub durable: bool,
}

impl SetOptions<'_, '_> {
    /// Fills in a write, and says what becomes of its reply.
    pub fn fill<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
        fallback: &Fallback,
        request: &mut Request,
    ) -> PyResult<Shaping> {
        request.opcode = opcode::KV_SET | if self.durable { DURABLY } else { 0 };
        request.key(key)?;
        request.value(value, fallback)?;
        if let Some(ttl) = self.ttl {
            if self.keep_ttl {
                return Err(PyTypeError::new_err("set() takes ttl or keep_ttl, not both"));
            }
            request.word("PX");
            request.int(convert::ttl_ms(ttl)?);
        }
        if self.nx && self.xx {
            return Err(PyTypeError::new_err("set() takes nx or xx, not both"));
        }
        let words = [(self.nx, "NX"), (self.xx, "XX"), (self.keep_ttl, "KEEPTTL"), (self.return_old, "GET")];
        words.iter().filter(|(given, _)| *given).for_each(|(_, word)| request.word(word));
        let py = key.py();
        Ok(if self.return_old {
            let missing = py.import("data_bridge.kv._values")?.getattr("MISSING")?;
            Shaping { missing: Some(missing.unbind()), shape: Shape::Whole }
        } else if self.nx || self.xx {
            let no = pyo3::types::PyBool::new(py, false).to_owned().into_any();
            Shaping { missing: Some(no.unbind()), shape: Shape::Whole }
        } else {
            Shaping { missing: None, shape: Shape::Nothing }
        })
    }
}

/// redis-py's options of `set` and what they are called here.
const RENAMED: [(&str, &str); 7] = [
    ("ex", "ttl=seconds"),
    ("px", "ttl=milliseconds / 1000"),
    ("exat", "expire_at(key, when)"),
    ("pxat", "expire_at(key, when)"),
    ("keepttl", "keep_ttl=True"),
    ("get", "return_old=True"),
    ("expire", "ttl=seconds"),
];

/// How long a wait waits by itself, as its arguments say: `key, TIMEOUT, milliseconds, …`.
pub fn time_of_wait(args: &Bound<'_, PyTuple>) -> Option<Duration> {
    let is_timed = args.get_item(1).and_then(|word| word.eq("TIMEOUT")).unwrap_or(false);
    is_timed.then(|| args.get_item(2)?.extract().map(Duration::from_millis)).and_then(Result::ok)
}

/// Refuses options that are unknown; one of redis-py's is told its name here.
pub fn refuse(options: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    let Some(options) = options else { return Ok(()) };
    let Some(name) = options.keys().iter().next() else { return Ok(()) };
    let name = name.to_string();
    let ours = RENAMED.iter().find(|(theirs, _)| *theirs == name);
    Err(PyTypeError::new_err(match ours {
        Some((_, ours)) => format!("set() has no option {name}=; here it is {ours}"),
        None => format!("set() got an unexpected keyword argument '{name}'"),
    }))
}
