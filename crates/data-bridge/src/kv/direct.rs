//! One value in and out of the embedded engine without building a command: what reads and plain writes cost is the
//! price of the whole store. Whatever the engine does not take this way is executed as the command that it is; it
//! releases the interpreter lock where it may wait for a shard or work for long.

use data_bridge_kv::shard::put_value;
use data_bridge_kv::table::Stored;
use data_bridge_kv::{Caller, Engine, Obstacle, Progress};
use data_bridge_kv_model::command::table::{self, Spec, opcode};
use data_bridge_kv_model::command::{Expiry, ScalarCommand, SetOptions};
use data_bridge_kv_model::{Arg, Call, Command, Key, Kind, Load, ReplyBuf, ValueRef};
use pyo3::prelude::*;
use pyo3::types::PyInt;

use super::convert::{self, Decoder};
use super::deferred::{Deferred, Receipt, Work, held_by, runner};
use super::doorway;
use super::lifetime::Generation;
use super::request::{Fallback, LARGE_BYTES, Request, Scratch, Shape, Shaping};

/// Longest payload that is copied to the stack.
const SHORT_BYTES: usize = 126;

/// An engine with what a store knows beside it.
#[derive(Clone, Copy)]
pub struct Door<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// Who asks, and in which namespace.
    pub caller: &'a Caller,
    /// The process that opened the engine.
    pub generation: Generation,
    /// The store's codec for other objects.
    pub fallback: &'a Fallback,
}

/// A value as it was copied while its shard was locked.
enum Copied {
    Missing,
    Int(i64),
    /// A text of so many bytes, on the stack.
    Text(usize),
    /// So many bytes of the codec, on the stack.
    Short(usize),
    /// In the buffers of the thread.
    Long(Box<Scratch>),
}

/// What came of a command that was executed; the reply is in the buffers.
enum Executed {
    Done(Box<Scratch>),
    /// It may be shown once this record of the log is durable.
    Held(Box<Scratch>, u64),
    /// The caller never waits and would have to; nothing was done.
    Blocked,
}

impl Door<'_> {
    /// The value of a key. The engine's lock is gone before a Python object is made. `missing` is what becomes of an answer
    /// that comes later.
    #[inline]
    pub fn read<'py>(
        self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        missing: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.generation.check(py)?;
        let key = convert::key(key)?;
        let mut short = [0; SHORT_BYTES + 2];
        let scratch = match self.engine.try_read(self.caller, key, |value| copy(value, &mut short)) {
            Ok(Copied::Missing) => return Ok(None),
            Ok(Copied::Int(number)) => return Ok(Some(PyInt::new(py, number).into_any())),
            Ok(Copied::Text(length)) => {
                return convert::build_text(py, short.get(..length).unwrap_or_default()).map(Some);
            }
            Ok(Copied::Short(length)) => return self.object(py, short.get(..length).unwrap_or_default()),
            Ok(Copied::Long(scratch)) => scratch,
            Err(obstacle) => {
                let command = ScalarCommand::Get { key, any_kind: true };
                match self.execute(py, get_row(), (command, Load::default()), obstacle == Obstacle::Locked) {
                    Executed::Done(scratch) => scratch,
                    Executed::Held(scratch, rests_on) => {
                        let shaping = Shaping::of(missing.cloned(), None);
                        return Err(Deferred::hold(py, scratch, rests_on, shaping));
                    }
                    Executed::Blocked => return Err(deferred_get(py, key, missing)),
                }
            }
        };
        let value = self.object(py, scratch.reply.as_bytes());
        scratch.keep();
        value
    }

    /// Writes a value with this expiry.
    #[inline]
    pub fn write<'py>(
        self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
        expiry: Expiry,
    ) -> PyResult<()> {
        self.generation.check(py)?;
        let key = convert::key(key)?;
        let mut number = [0; 8];
        if let Some(value) = convert::scalar(value, &mut number) {
            return self.put(py, key, value, expiry);
        }
        let mut scratch = Scratch::take();
        scratch.request.value(value, self.fallback)?;
        let done = self.put(py, key, scratch.request.whole_value(), expiry);
        scratch.keep();
        done
    }

    #[inline]
    fn put(self, py: Python<'_>, key: Key<'_>, value: ValueRef<'_>, expiry: Expiry) -> PyResult<()> {
        let obstacle = match self.engine.try_write(self.caller, key, value, expiry) {
            Ok(()) => return Ok(()),
            Err(obstacle) => obstacle,
        };
        let options = SetOptions { expiry, ..SetOptions::PLAIN };
        let command = ScalarCommand::Set { key, value: Arg::Value(value), options };
        let load = Load { args: 2, bytes: key.as_bytes().len() + value.payload().len() };
        let outside = obstacle == Obstacle::Locked || value.payload().len() > LARGE_BYTES;
        let scratch = match self.execute(py, set_row(), (command, load), outside) {
            Executed::Done(scratch) => scratch,
            Executed::Held(scratch, rests_on) => {
                return Err(Deferred::hold(py, scratch, rests_on, nothing()));
            }
            Executed::Blocked => return Err(deferred_set(py, key, value, expiry)),
        };
        let done = Shaping::default().result(py, scratch.reply.as_bytes(), &None);
        scratch.keep();
        done.map(drop)
    }

    /// Executes a command, `outside` without the interpreter lock.
    #[cold]
    fn execute(
        self,
        py: Python<'_>,
        spec: &'static Spec,
        (command, load): (ScalarCommand<'_>, Load),
        outside: bool,
    ) -> Executed {
        let mut scratch = Scratch::take();
        let call = Call { spec, command: Command::Scalar(command), load };
        let runner = runner(self.caller);
        let run = |reply: &mut ReplyBuf| self.engine.execute(&runner, 0, &call, reply);
        let progress =
            if outside { doorway::outside(py, || run(&mut scratch.reply)) } else { run(&mut scratch.reply) };
        if progress == Progress::Blocked {
            return Executed::Blocked;
        }
        match held_by(self.engine, &runner) {
            Some(rests_on) => Executed::Held(scratch, rests_on),
            None => Executed::Done(scratch),
        }
    }

    #[inline]
    fn object<'py>(self, py: Python<'py>, reply: &[u8]) -> PyResult<Option<Bound<'py, PyAny>>> {
        let fallback = self.fallback.as_ref().map(|codec| codec.bind(py));
        Decoder::new(py, reply, None, fallback).reply_or_missing()
    }
}

/// Copies a value's codec bytes: a short one to the stack.
#[inline]
fn copy(value: Option<Stored<'_>>, short: &mut [u8; SHORT_BYTES + 2]) -> Copied {
    let Some(stored) = value else { return Copied::Missing };
    if let Stored::Inline { kind: Kind::Int, payload } = stored
        && let Ok(number) = payload.try_into()
    {
        return Copied::Int(i64::from_le_bytes(number));
    }
    if let Stored::Inline { kind: Kind::Text, payload } = stored
        && let Some(place) = short.get_mut(..payload.len())
    {
        place.copy_from_slice(payload);
        return Copied::Text(payload.len());
    }
    if let Stored::Inline { kind, payload } = stored
        && payload.len() <= SHORT_BYTES
    {
        let head = 1 + usize::from(kind == Kind::Bytes);
        // Below 128 the length is one byte, which the next write covers where the kind has none.
        [short[0], short[1]] = [kind.number(), payload.len() as u8];
        short[head..head + payload.len()].copy_from_slice(payload);
        return Copied::Short(head + payload.len());
    }
    let mut scratch = Scratch::take();
    put_value(stored, &mut scratch.reply);
    Copied::Long(scratch)
}

/// A read that has to wait, as the command that it is.
#[cold]
fn deferred_get(py: Python<'_>, key: Key<'_>, missing: Option<&Bound<'_, PyAny>>) -> PyErr {
    let mut request = Request::new(opcode::KV_GET);
    request.word(key.as_str());
    let receipt = Receipt::One(Shaping::of(missing.cloned(), None));
    Deferred::raise(py, Work::Command(request), receipt)
}

/// A write that has to wait for room.
#[cold]
fn deferred_set(py: Python<'_>, key: Key<'_>, value: ValueRef<'_>, expiry: Expiry) -> PyErr {
    let mut request = Request::new(opcode::KV_SET);
    request.word(key.as_str());
    request.encoded(value);
    if let Expiry::In(ms) = expiry {
        request.word("PX");
        request.int(ms.cast_signed());
    }
    Deferred::raise(py, Work::Command(request), Receipt::One(nothing()))
}

/// A plain write has no result.
fn nothing() -> Shaping {
    Shaping { missing: None, shape: Shape::Nothing }
}

fn get_row() -> &'static Spec {
    table::by_opcode(opcode::KV_GET).unwrap_or(&table::COMMANDS[0])
}

fn set_row() -> &'static Spec {
    table::by_opcode(opcode::KV_SET).unwrap_or(&table::COMMANDS[0])
}
