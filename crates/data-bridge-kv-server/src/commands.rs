//! Commands for the connection and the server: one function for each family, the same for both protocols.
//!
//! They append a reply item like the engine's executors do; the skins make bytes of it.

mod client;
mod config;
mod describe;
mod handshake;
mod info;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_bridge_kv_model::command::ConnectionCommand;
use data_bridge_kv_model::command::table::{self, Spec, opcode};
use data_bridge_kv_model::error::{Error, ErrorKind, Result};
use data_bridge_kv_model::{Args, ReplyBuf, Shape, ValueRef};

use crate::resp::encode::{Form, PLAIN, REPORT};
use crate::session::Session;

pub use client::describe_client;
pub use info::info_text;

/// What a command does to the connection beside its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// It ends when the reply is sent.
    End,
    /// It ends when the reply is sent, because a limit was broken.
    Refuse,
    /// The reply is held back for this long.
    Pause(Duration),
    /// It has to wait for the disk: there is no reply, and it is to be carried out again.
    Disk,
}

/// Carries out a command and appends its reply. EXEC and KV.ATOMIC belong to `transaction`,
/// KV.CANCEL to `native`.
pub fn carry_out(session: &mut Session, command: &ConnectionCommand<'_>, out: &mut ReplyBuf) -> Effect {
    let mark = out.len();
    match try_carry_out(session, command, out) {
        Ok(effect) => effect,
        Err(error) => {
            out.truncate(mark);
            out.error(&error);
            Effect::None
        }
    }
}

fn try_carry_out(
    session: &mut Session,
    command: &ConnectionCommand<'_>,
    out: &mut ReplyBuf,
) -> Result<Effect> {
    match command {
        ConnectionCommand::Ping { text: None } => out.status("PONG"),
        ConnectionCommand::Ping { text: Some(text) } | ConnectionCommand::Echo { text } => {
            let mut scratch = Vec::new();
            out.value(text.value(&mut scratch)?);
        }
        ConnectionCommand::Hello { args } => return handshake::hello(session, Args::new(args), out),
        ConnectionCommand::Auth { user, password } => {
            let user = user.map(|user| user.content().unwrap_or_default());
            let password = password.content().unwrap_or_default();
            return handshake::authenticate(session, user, password, out);
        }
        ConnectionCommand::Select { namespace } => handshake::select(session, *namespace, out)?,
        ConnectionCommand::Client { args } => return client::client(session, Args::new(args), out),
        ConnectionCommand::Describe { args } => describe::command(Args::new(args), out)?,
        ConnectionCommand::Info { sections } => info::info(session, sections, out)?,
        ConnectionCommand::Config { args } => config::config(session, Args::new(args), out)?,
        ConnectionCommand::Quit => {
            out.ok();
            return Ok(Effect::End);
        }
        ConnectionCommand::Reset => {
            session.reset();
            out.status(name_of(opcode::RESET));
        }
        ConnectionCommand::Time => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            out.container(Shape::Array, 2);
            out.value(ValueRef::text(&now.as_secs().to_string()));
            out.value(ValueRef::text(&now.subsec_micros().to_string()));
        }
        ConnectionCommand::Multi
        | ConnectionCommand::Exec
        | ConnectionCommand::Discard
        | ConnectionCommand::WatchKeys { .. }
        | ConnectionCommand::UnwatchKeys => return steer(session, command, out),
        ConnectionCommand::Typed { on } => {
            if *on && !session.skin.resp3 {
                let text = "typed replies need RESP3: send HELLO 3 first";
                return Err(Error::new(ErrorKind::Unavailable, text));
            }
            session.skin.typed = *on;
            out.ok();
        }
        ConnectionCommand::Snapshot => {
            let shared = &session.shared;
            // It takes as long as copying does: whatever else the worker had to do is taken over by others.
            let (place, _) = tokio::task::block_in_place(|| shared.snapshots.take(&shared.engine))?;
            out.value(ValueRef::text(&place.to_string()));
        }
        ConnectionCommand::Cancel { .. } | ConnectionCommand::Atomic { .. } | ConnectionCommand::Durable => {
            return Err(Error::new(ErrorKind::Unavailable, other_form(command)));
        }
    }
    Ok(Effect::None)
}

/// What a client is told that says a command in the form of another protocol.
fn other_form(command: &ConnectionCommand<'_>) -> &'static str {
    match command {
        ConnectionCommand::Cancel { .. } => {
            "KV.CANCEL is for the native protocol; a RESP client's wait ends with its connection"
        }
        ConnectionCommand::Durable => {
            "KV.DURABLE stands in front of a command that writes; in the native protocol it is a flag"
        }
        _ => "KV.ATOMIC is for the native protocol; MULTI and EXEC are its RESP form",
    }
}

/// Starts, drops or conditions a transaction; EXEC comes here only without one.
fn steer(session: &mut Session, command: &ConnectionCommand<'_>, out: &mut ReplyBuf) -> Result<Effect> {
    match command {
        ConnectionCommand::Multi => {
            if session.transaction.is_some() {
                return Err(Error::invalid("MULTI calls can not be nested"));
            }
            session.transaction = Some(crate::transaction::Transaction::default());
            out.ok();
        }
        ConnectionCommand::Discard => {
            if session.transaction.take().is_none() {
                return Err(Error::invalid("DISCARD without MULTI"));
            }
            session.watched.clear();
            out.ok();
        }
        ConnectionCommand::WatchKeys { keys } => {
            if session.transaction.is_some() {
                return Err(Error::invalid("WATCH inside MULTI is not allowed"));
            }
            for key in keys.iter() {
                if !session.watch(key)? {
                    return Ok(Effect::Disk);
                }
            }
            out.ok();
        }
        ConnectionCommand::UnwatchKeys => {
            session.watched.clear();
            out.ok();
        }
        _ => return Err(Error::invalid("EXEC without MULTI")),
    }
    Ok(Effect::None)
}

fn name_of(opcode: u16) -> &'static str {
    table::by_opcode(opcode).map_or("", |spec| spec.name)
}

/// The form of a command's reply.
pub fn form_of(command: &ConnectionCommand<'_>) -> Form {
    match command {
        ConnectionCommand::Info { .. } | ConnectionCommand::Client { .. } => REPORT,
        _ => PLAIN,
    }
}

/// Whether a command is carried out at once although a transaction is being queued.
pub fn steers_transaction(spec: &Spec) -> bool {
    [opcode::EXEC, opcode::DISCARD, opcode::MULTI, opcode::WATCH, opcode::QUIT, opcode::RESET]
        .contains(&spec.opcode)
}

/// Whether it is EXEC.
pub fn is_exec(command: &ConnectionCommand<'_>) -> bool {
    matches!(command, ConnectionCommand::Exec)
}

/// Whether a command is for RESP clients only.
pub fn is_resp_only(command: &ConnectionCommand<'_>) -> bool {
    matches!(
        command,
        ConnectionCommand::Multi
            | ConnectionCommand::Exec
            | ConnectionCommand::Discard
            | ConnectionCommand::WatchKeys { .. }
            | ConnectionCommand::UnwatchKeys
            | ConnectionCommand::Typed { .. }
    )
}

/// A subcommand that does not exist.
fn unknown_subcommand(args: &Args<'_>) -> Error {
    let word = args.peek().and_then(|arg| arg.text().ok()).unwrap_or_default();
    Error::invalid(format!("unknown subcommand '{}'", shown(word)))
}

/// What an error repeats of a client's words.
fn shown(word: &str) -> String {
    word.chars().take(64).flat_map(char::escape_debug).collect()
}
