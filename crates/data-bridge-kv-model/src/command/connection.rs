//! Commands for the connection and the server: the engine never sees them.

use super::{Command, Keys};
use crate::arg::{Arg, Args};
use crate::error::{Error, Result};

/// A command for the connection.
#[expect(missing_docs, reason = "fields are named as the command's arguments")]
#[derive(Clone, Copy, Debug)]
pub enum ConnectionCommand<'a> {
    /// Answers PONG or the text.
    Ping { text: Option<Arg<'a>> },
    /// Answers the text.
    Echo { text: Arg<'a> },
    /// Chooses the protocol, may authenticate and name the connection.
    Hello { args: &'a [Arg<'a>] },
    /// Authenticates.
    Auth { user: Option<Arg<'a>>, password: Arg<'a> },
    /// Chooses the namespace by number or name.
    Select { namespace: Arg<'a> },
    /// CLIENT and its subcommands.
    Client { args: &'a [Arg<'a>] },
    /// COMMAND and its subcommands.
    Describe { args: &'a [Arg<'a>] },
    /// Facts about the server by section.
    Info { sections: &'a [Arg<'a>] },
    /// CONFIG GET and SET.
    Config { args: &'a [Arg<'a>] },
    /// Ends the connection.
    Quit,
    /// Back to the state of a new connection.
    Reset,
    /// Seconds and microseconds since 1970.
    Time,
    /// Starts a transaction.
    Multi,
    /// Runs the transaction.
    Exec,
    /// Drops the transaction.
    Discard,
    /// Makes the next transaction depend on these keys.
    WatchKeys { keys: Keys<'a> },
    /// Forgets the watched keys.
    UnwatchKeys,
    /// Typed replies on or off for this RESP connection.
    Typed { on: bool },
    /// Runs several native commands as one atomic step; the skin reads the nested commands.
    Atomic { args: &'a [Arg<'a>] },
    /// Ends the wait that the native request with this id started.
    Cancel { request: u64 },
    /// Makes a snapshot of the task namespaces; answers where.
    Snapshot,
    /// `KV.DURABLE` without anything behind it: the doors take it away from in front of a command.
    Durable,
}

type Parsed<'a> = Result<Command<'a>>;

fn wrap(command: ConnectionCommand<'_>) -> Result<Command<'_>> {
    Ok(Command::Connection(command))
}

pub(super) fn ping<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let text = if args.is_empty() { None } else { Some(args.next_arg()?) };
    wrap(ConnectionCommand::Ping { text })
}

pub(super) fn echo<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ConnectionCommand::Echo { text: args.next_arg()? })
}

pub(super) fn hello<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ConnectionCommand::Hello { args: args.all() })
}

pub(super) fn auth<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let first = args.next_arg()?;
    if args.is_empty() {
        return wrap(ConnectionCommand::Auth { user: None, password: first });
    }
    wrap(ConnectionCommand::Auth { user: Some(first), password: args.next_arg()? })
}

pub(super) fn select<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ConnectionCommand::Select { namespace: args.next_arg()? })
}

pub(super) fn client<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ConnectionCommand::Client { args: args.all() })
}

pub(super) fn describe<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ConnectionCommand::Describe { args: args.all() })
}

pub(super) fn info<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ConnectionCommand::Info { sections: args.all() })
}

pub(super) fn config<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ConnectionCommand::Config { args: args.all() })
}

pub(super) fn quit<'a>(_args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ConnectionCommand::Quit)
}

pub(super) fn reset<'a>(_args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ConnectionCommand::Reset)
}

pub(super) fn time<'a>(_args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ConnectionCommand::Time)
}

pub(super) fn multi<'a>(_args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ConnectionCommand::Multi)
}

pub(super) fn exec<'a>(_args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ConnectionCommand::Exec)
}

pub(super) fn discard<'a>(_args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ConnectionCommand::Discard)
}

pub(super) fn watch_keys<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ConnectionCommand::WatchKeys { keys: Keys::new(args.all(), 1)? })
}

pub(super) fn unwatch_keys<'a>(_args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ConnectionCommand::UnwatchKeys)
}

pub(super) fn typed<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let on = args.word("ON");
    if !on && !args.word("OFF") {
        return Err(Error::syntax());
    }
    wrap(ConnectionCommand::Typed { on })
}

pub(super) fn cancel<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let request = u64::try_from(args.next_arg()?.int()?).map_err(|_| Error::syntax())?;
    wrap(ConnectionCommand::Cancel { request })
}

pub(super) fn atomic<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ConnectionCommand::Atomic { args: args.all() })
}

pub(super) fn durable<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    args.all();
    wrap(ConnectionCommand::Durable)
}

pub(super) fn snapshot<'a>(_args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ConnectionCommand::Snapshot)
}
