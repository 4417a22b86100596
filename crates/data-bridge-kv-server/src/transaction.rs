//! MULTI/EXEC with Redis's semantics, and `KV.ATOMIC` of the native protocol, which is all or nothing.
//!
//! A queued command is kept as the bytes it came in and parsed again by EXEC: no second form of a command exists.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use data_bridge_kv::{OnError, Progress, Waits};
use data_bridge_kv_model::command::table::{self, BLOCKING, CONNECTION, READ, STREAM, Spec};
use data_bridge_kv_model::error::{Error, ErrorKind, Result};
use data_bridge_kv_model::limits::{ATOMIC_COMMANDS, REQUEST_BYTES};
use data_bridge_kv_model::{Arg, Call, Command, Item, Key, ReplyBuf, ReplyReader};

use crate::commands;
use crate::requests::{self, Request, Scratch};
use crate::resp::encode::{Encoder, PLAIN, Skin, form_of, head, put_error};
use crate::resp::parse::Limits;
use crate::session::{Session, Watched};

/// Commands queued by MULTI.
#[derive(Debug, Default)]
pub struct Transaction {
    raw: Vec<u8>,
    count: usize,
    broken: bool,
}

impl Transaction {
    /// Queues a command: its bytes as they came.
    pub fn queue(&mut self, raw: &[u8]) -> Result<()> {
        if self.count >= ATOMIC_COMMANDS || self.raw.len().saturating_add(raw.len()) > REQUEST_BYTES {
            self.broken = true;
            return Err(Error::new(ErrorKind::Limit, "transaction is larger than the limit"));
        }
        self.raw.extend_from_slice(raw);
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// A command was refused: EXEC will refuse all.
    pub fn break_off(&mut self) {
        self.broken = true;
    }

    /// How many commands are queued, as `CLIENT LIST` shows it.
    pub fn count_shown(&self) -> i64 {
        i64::try_from(self.count).unwrap_or(i64::MAX)
    }

    /// Bytes it holds.
    pub fn bytes(&self) -> usize {
        self.raw.capacity()
    }
}

/// Whether a command can't stand in a transaction, and why.
pub fn refusal(spec: &Spec) -> Option<Error> {
    let opcode = spec.opcode;
    // What waits for something to take does not wait there, and finds nothing.
    if spec.has(BLOCKING | READ) || spec.has(STREAM) {
        return Some(Error::invalid("a transaction can't wait or watch"));
    }
    let changes_connection = spec.has(CONNECTION)
        && [
            table::opcode::SELECT,
            table::opcode::HELLO,
            table::opcode::AUTH,
            table::opcode::KV_TYPED,
            table::opcode::KV_ATOMIC,
        ]
        .contains(&opcode);
    changes_connection.then(|| Error::invalid(format!("{} is not allowed in a transaction", spec.name)))
}

/// Whether the engine can run a command as part of one locked step: it names its keys.
fn is_keyed(call: &Call<'_>) -> bool {
    !matches!(call.command, Command::Key(_)) || call.spec.keys.first != 0
}

/// Runs a transaction and appends its reply. If it is blocked nothing was done, and it is to be run again where it may wait.
pub fn exec(session: &mut Session, limits: &Limits, encoder: &mut Encoder, out: &mut Vec<u8>) -> Progress {
    let Some(transaction) = session.transaction.take() else {
        put_error(&Error::invalid("EXEC without MULTI"), out);
        return Progress::Done;
    };
    let (watched, mark) = (std::mem::take(&mut session.watched), out.len());
    let progress = run(session, &transaction, &watched, limits, encoder, out);
    if progress == Progress::Blocked {
        out.truncate(mark);
        (session.transaction, session.watched) = (Some(transaction), watched);
    }
    progress
}

/// Refuses a command that can't be read and is not queued: an EXEC ends its transaction all the same, so that what
/// follows is not queued without end; any other makes EXEC refuse it.
pub fn refuse(session: &mut Session, request: &Request, error: &Error, out: &mut Vec<u8>) {
    let is_exec = request.spec.is_some_and(|spec| spec.opcode == table::opcode::EXEC);
    match session.transaction.take_if(|_| is_exec) {
        Some(_) => {
            session.watched.clear();
            let text = format!("Transaction discarded because of: {}", error.message());
            put_error(&Error::new(ErrorKind::Aborted, text), out);
        }
        None => {
            if let Some(transaction) = &mut session.transaction {
                transaction.break_off();
            }
            put_error(error, out);
        }
    }
}

fn run(
    session: &mut Session,
    transaction: &Transaction,
    watched: &[Watched],
    limits: &Limits,
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
) -> Progress {
    if transaction.broken {
        let text = "Transaction discarded because of previous errors.";
        put_error(&Error::new(ErrorKind::Aborted, text), out);
        return Progress::Done;
    }
    let (mut args, mut scratch, mut requests) = (Vec::new(), Scratch::default(), Vec::new());
    requests::read(&transaction.raw, limits, usize::MAX, &mut args, &mut scratch, &mut requests, |_, _| {});
    requests::complete(&mut args, &scratch, &mut requests);
    let built: Vec<Result<Call<'_>>> = requests.iter().map(|request| request.call(&args)).collect();

    let (mut here, mut elsewhere) = (Vec::new(), false);
    for one in watched {
        let Ok(key) = Key::new(one.key.as_bytes()) else { continue };
        if one.namespace == session.caller.namespace {
            here.push((key, one.version));
        } else {
            let caller = data_bridge_kv::Caller { namespace: one.namespace, ..session.caller.clone() };
            match session.shared.engine.try_version(&caller, key) {
                Ok(Some(version)) => elsewhere |= version != one.version,
                Ok(None) => return Progress::Blocked,
                Err(error) => {
                    put_error(&error, out);
                    return Progress::Done;
                }
            }
        }
    }
    let mark = out.len();
    head(b'*', requests.len(), out);
    let outcome = if elsewhere { Outcome::Changed } else { steps(session, &built, &here, encoder, out) };
    match outcome {
        Outcome::Done => Progress::Done,
        Outcome::Blocked => Progress::Blocked,
        Outcome::Changed => {
            out.truncate(mark);
            out.extend_from_slice(if session.skin.resp3 { b"_\r\n" } else { b"*-1\r\n" });
            Progress::Done
        }
    }
}

/// What came of the steps of a transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// A watched key has changed: nothing was done.
    Changed,
    /// Nothing was done either: the disk has to be waited for.
    Blocked,
}

/// Runs the commands in order: as one locked step where they name their keys. Commands over the whole namespace
/// (FLUSHDB, KEYS …) and those of the connection run between such steps. Since only one step can be taken back, several
/// run where they may wait.
fn steps(
    session: &mut Session,
    built: &[Result<Call<'_>>],
    watched: &[(Key<'_>, u64)],
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
) -> Outcome {
    let stops =
        |one: &Result<Call<'_>>| one.as_ref().is_ok_and(|call| call.spec.has(CONNECTION) || !is_keyed(call));
    let in_parts = built.iter().any(stops);
    if session.caller.waits != Waits::Alone && session.shared.engine.may_block() && in_parts {
        return Outcome::Blocked;
    }
    if in_parts {
        let most_bytes = std::mem::replace(&mut session.caller.most_bytes, u64::MAX);
        let outcome = steps_in_parts(session, built, watched, encoder, out, stops);
        session.caller.most_bytes = most_bytes;
        return outcome;
    }
    locked_step(session, built, watched, encoder, out)
}

/// Runs the parts one after the other.
fn steps_in_parts(
    session: &mut Session,
    built: &[Result<Call<'_>>],
    watched: &[(Key<'_>, u64)],
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
    stops: impl Fn(&Result<Call<'_>>) -> bool,
) -> Outcome {
    let (mut watched, mut rest, mut replies) = (watched, built, ReplyBuf::new());
    while !rest.is_empty() {
        let until = rest.iter().position(&stops).unwrap_or(rest.len());
        let (step, after) = rest.split_at_checked(until).unwrap_or((rest, &[]));
        if !step.is_empty() || !watched.is_empty() {
            let outcome = locked_step(session, step, watched, encoder, out);
            if outcome != Outcome::Done {
                return outcome;
            }
        }
        watched = &[];
        rest = after;
        if let Some((Ok(call), after)) = rest.split_first() {
            replies.reset(0);
            let form = match call.command {
                Command::Connection(command) => {
                    let _ = commands::carry_out(session, &command, &mut replies);
                    commands::form_of(&command)
                }
                _ => {
                    // Such a command is never pending: it waits for nothing.
                    let _ = session.shared.engine.execute(&session.caller, 0, call, &mut replies);
                    form_of(&call.command)
                }
            };
            encoder.reply(replies.as_bytes(), session.skin, form, out);
            rest = after;
        }
    }
    Outcome::Done
}

fn locked_step(
    session: &Session,
    step: &[Result<Call<'_>>],
    watched: &[(Key<'_>, u64)],
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
) -> Outcome {
    let calls: Vec<Call<'_>> = step.iter().filter_map(|one| one.as_ref().ok().copied()).collect();
    let mut replies = ReplyBuf::new();
    let engine = &session.shared.engine;
    let progress = engine.execute_atomic(&session.caller, &calls, OnError::Continue, watched, &mut replies);
    if progress == Progress::Blocked {
        return Outcome::Blocked;
    }
    let mut reader = ReplyReader::new(replies.as_bytes());
    match reader.item() {
        Ok(Item::Container(..)) => {}
        Ok(Item::Error(error)) if error.kind() == ErrorKind::Aborted => return Outcome::Changed,
        Ok(Item::Error(error)) => {
            step.iter().for_each(|_| put_error(&error, out));
            return Outcome::Done;
        }
        _ => return Outcome::Done,
    }
    for one in step {
        match one {
            Ok(call) => encoder.items(&mut reader, 1, session.skin, form_of(&call.command), out),
            Err(error) => put_error(error, out),
        }
    }
    Outcome::Done
}

/// `KV.ATOMIC [opcode argc arg…]…`: all of the commands in one step, or none and the first error. If it is blocked there is
/// no answer.
pub fn atomic(session: &Session, args: &[Arg<'_>], replies: &mut ReplyBuf) -> Result<Progress> {
    let mut calls = Vec::new();
    let mut rest = args;
    while let [opcode, count, after @ ..] = rest {
        let spec = u16::try_from(opcode.int()?).ok().and_then(table::by_opcode);
        let spec = spec.ok_or_else(|| Error::new(ErrorKind::UnknownCommand, "unknown opcode"))?;
        let (own, after) = after.split_at_checked(count.count()?).ok_or_else(Error::syntax)?;
        if calls.len() >= ATOMIC_COMMANDS {
            return Err(Error::new(ErrorKind::Limit, "too many commands in one step"));
        }
        let call = spec.call(own)?;
        if spec.has(CONNECTION) || !is_keyed(&call) || refusal(spec).is_some() {
            return Err(Error::invalid(format!("{} can't be part of an atomic step", spec.name)));
        }
        calls.push(call);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(Error::syntax());
    }
    Ok(session.shared.engine.execute_atomic(&session.caller, &calls, OnError::Abort, &[], replies))
}

/// Queues a request, or says why not; answers the line for the client.
pub fn queue(session: &mut Session, request: &Request, args: &[Arg<'_>], input: &[u8], out: &mut Vec<u8>) {
    let Some(transaction) = &mut session.transaction else { return };
    let checked = request.check_arity(args).and_then(|spec| match refusal(spec) {
        _ if request.is_durable => {
            Err(Error::invalid("KV.DURABLE is not allowed in a transaction: send KV.DURABLE EXEC"))
        }
        Some(error) => Err(error),
        None => transaction.queue(input.get(request.bytes.clone()).unwrap_or_default()),
    });
    match checked {
        Ok(()) => {
            let mut queued = ReplyBuf::new();
            queued.status("QUEUED");
            Encoder::default().reply(queued.as_bytes(), Skin::default(), PLAIN, out);
        }
        Err(error) => {
            transaction.break_off();
            put_error(&error, out);
        }
    }
}
