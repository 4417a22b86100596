//! A queue run by the embedded engine: several commands in one go, or as one atomic step.

use std::ops::Range;

use data_bridge_kv::{Caller, Engine, OnError, Progress};
use data_bridge_kv_model::frame::DURABLY;
use data_bridge_kv_model::{Arg, Call, Error, Reader, ReplyBuf, ReplyReader, Result, Shape, command::table};
use data_bridge_kv_model::{ErrorKind, Item};
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::queue::Queued;
use super::request::Fallback;
use super::{doorway, errors};

/// Commands or bytes from which on the interpreter lock is released.
const LARGE: (usize, usize) = (512, 64 << 10);

/// The answers to the first commands of a queue, or to all.
#[derive(Default)]
pub struct Answers {
    /// One reply item after the other; of an atomic step the one Array of them.
    pub reply: Vec<u8>,
    /// Where each stands.
    pub places: Vec<Range<usize>>,
}

/// Runs a queue as far as the caller need not wait for the disk; the answers stand in `reply` where the ranges say.
pub fn run(
    py: Python<'_>,
    engine: &Engine,
    caller: &Caller,
    queued: &Queued,
    atomic: bool,
    reply: &mut ReplyBuf,
) -> PyResult<Vec<Range<usize>>> {
    let commands: Vec<(u16, &[u8])> =
        queued.commands().map(|command| (command.opcode, command.args)).collect();
    let mut work = || {
        durably(engine, caller, &commands, || {
            with_calls(&commands, |calls| execute(engine, caller, calls, atomic, reply))
        })
    };
    let answers =
        if commands.len() > LARGE.0 || queued.size() > LARGE.1 { doorway::outside(py, work) } else { work() };
    answers.and_then(|answers| answers).map_err(|error| errors::from_model(py, &error))
}

/// Runs the rest of a queue; `reply` gets one Array of all answers.
pub fn go_on(
    engine: &Engine,
    caller: &Caller,
    commands: &[(u16, Box<[u8]>)],
    atomic: bool,
    done: &Answers,
    reply: &mut ReplyBuf,
) -> Result<()> {
    let rest: Vec<(u16, &[u8])> =
        commands.iter().skip(done.places.len()).map(|(opcode, args)| (*opcode, &**args)).collect();
    if !atomic {
        reply.container(Shape::Array, commands.len());
        reply.bytes_mut().extend_from_slice(&done.reply);
    }
    durably(engine, caller, &rest, || {
        with_calls(&rest, |calls| execute(engine, caller, calls, atomic, reply))
    })?
    .map(drop)
}

/// The answers to a whole queue as one reply item: an Array of `parts` unless it is one already.
pub fn one_item(answers: &[u8], parts: Option<usize>) -> Box<[u8]> {
    let mut reply = ReplyBuf::new();
    if let Some(parts) = parts {
        reply.container(Shape::Array, parts);
    }
    reply.bytes_mut().extend_from_slice(answers);
    reply.as_bytes().into()
}

/// Does it, and waits until it is on disk if one of the commands is to be. Where nothing is ever on disk it is not begun.
fn durably<T>(
    engine: &Engine,
    caller: &Caller,
    commands: &[(u16, &[u8])],
    act: impl FnOnce() -> Result<T>,
) -> Result<T> {
    if !commands.iter().any(|(opcode, _)| opcode & DURABLY != 0) {
        return act();
    }
    engine.check_durable(caller)?;
    let done = act()?;
    engine.owe_everything(caller);
    engine.settle(caller)?;
    Ok(done)
}

/// The results of a queue from the answers to its commands.
pub fn results<'py>(
    py: Python<'py>,
    queued: &Queued,
    reply: &[u8],
    answers: &[Range<usize>],
    fallback: &Fallback,
) -> PyResult<Bound<'py, PyList>> {
    let mut answers = answers.iter().cloned();
    queued.results(py, |shaping| {
        let item = answers.next().and_then(|answer| reply.get(answer)).unwrap_or_default();
        match shaping.result(py, item, fallback) {
            Ok(result) => Ok(result),
            Err(error) => Ok(error.into_value(py).into_bound(py).into_any()),
        }
    })
}

fn execute(
    engine: &Engine,
    caller: &Caller,
    calls: &[Call<'_>],
    atomic: bool,
    reply: &mut ReplyBuf,
) -> Result<Vec<Range<usize>>> {
    if !atomic {
        let mut answers = Vec::new();
        engine.execute_batch(caller, 0, calls, reply, &mut answers);
        let mut start = 0;
        return Ok(answers
            .into_iter()
            .flatten()
            .map(|end| std::mem::replace(&mut start, end)..end)
            .collect());
    }
    match engine.execute_atomic(caller, calls, OnError::Abort, &[], reply) {
        Progress::Blocked => Ok(Vec::new()),
        Progress::Done | Progress::Pending => answers_of(reply.as_bytes()),
    }
}

/// Where the answers of an atomic step stand: its one reply is an Array of them, or an error.
pub fn answers_of(reply: &[u8]) -> Result<Vec<Range<usize>>> {
    let mut reader = ReplyReader::new(reply);
    match reader.item()? {
        Item::Error(error) => Err(error),
        Item::Container(Shape::Array, count) => {
            let at = |reader: &ReplyReader<'_>| reply.len().saturating_sub(reader.rest().len());
            let mut answers = Vec::new();
            for _ in 0..count {
                let start = at(&reader);
                reader.skip()?;
                answers.push(start..at(&reader));
            }
            Ok(answers)
        }
        _ => Err(Error::new(ErrorKind::Corruption, "an atomic step was not answered by an array")),
    }
}

/// Reads encoded arguments as calls of the engine.
fn with_calls<T>(commands: &[(u16, &[u8])], run: impl FnOnce(&[Call<'_>]) -> T) -> Result<T> {
    let mut args: Vec<Arg<'_>> = Vec::new();
    let mut ends = Vec::with_capacity(commands.len());
    for (_, encoded) in commands {
        let mut reader = Reader::new(encoded);
        while !reader.rest().is_empty() {
            args.push(Arg::Value(reader.value()?));
        }
        ends.push(args.len());
    }
    let mut start = 0;
    let calls: Result<Vec<Call<'_>>> = commands
        .iter()
        .zip(ends)
        .map(|((opcode, _), end)| {
            let own = args.get(start..end).unwrap_or_default();
            start = end;
            let unknown = || Error::new(ErrorKind::UnknownCommand, "unknown opcode");
            table::by_opcode(*opcode & !DURABLY).ok_or_else(unknown)?.call(own)
        })
        .collect();
    Ok(run(&calls?))
}
