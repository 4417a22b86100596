//! Compare-and-set, versions, transitions and waiting.

use super::{Command, Expiry, scalar};
use crate::arg::{Arg, Args};
use crate::error::{Error, Result};
use crate::key::Key;

/// What a conditional write expects of a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expected<'a> {
    /// No such key.
    Missing,
    /// A value of this kind and exactly this value.
    Value(Arg<'a>),
}

/// When a wait ends.
#[expect(missing_docs, reason = "fields are named as the command's arguments")]
#[derive(Clone, Copy, Debug)]
pub enum Until<'a> {
    /// At the next change.
    Change,
    /// When the key exists.
    Exists,
    /// When the version is greater, or a key that had one is gone; at once if it is so already.
    NewerThan(u64),
    /// When the value (or the field, if one is named) is one of these.
    States { field: Option<Arg<'a>>, states: &'a [Arg<'a>] },
}

/// What a watch follows.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// One key.
    Key(Key<'a>),
    /// All keys with a prefix.
    Prefix(&'a [u8]),
}

/// A step of a state machine that lives in a field of a hash: all of it in one step, or nothing.
#[derive(Clone, Copy, Debug)]
pub struct Transition<'a> {
    /// The hash.
    pub key: Key<'a>,
    /// The field that holds the state.
    pub field: Arg<'a>,
    /// States to leave from; empty = the key (or field) must not exist.
    pub expect: &'a [Arg<'a>],
    /// Whether a missing key or field is allowed beside the states of `expect`.
    pub or_missing: bool,
    /// The new state.
    pub to: Arg<'a>,
    /// Field and value pairs to merge.
    pub update: &'a [Arg<'a>],
    /// The deadline afterwards.
    pub expiry: Expiry,
    /// The version the caller holds as its fence: it must be the key's current version.
    pub fence: Option<u64>,
}

/// A command on states and versions.
#[expect(missing_docs, reason = "fields are named as the command's arguments")]
#[derive(Clone, Copy, Debug)]
pub enum StateCommand<'a> {
    /// Writes where the value is what is expected; answers Boolean.
    CompareAndSet { key: Key<'a>, expected: Expected<'a>, value: Arg<'a>, expiry: Expiry },
    /// Deletes where the value is what is expected; answers Boolean.
    CompareAndDelete { key: Key<'a>, expected: Expected<'a> },
    /// Value and version, or Missing.
    GetVersioned { key: Key<'a> },
    /// Writes where the version matches (0 = create only); answers the new version or a conflict.
    SetIfVersion { key: Key<'a>, value: Arg<'a>, version: u64, expiry: Expiry },
    /// Deletes where the version matches; answers Ok or a conflict.
    DeleteIfVersion { key: Key<'a>, version: u64 },
    /// A state transition; answers the previous state (or Missing) and the new version.
    Transition(Transition<'a>),
    /// Waits for a change; answers value and version. `timeout_ms` None = for ever.
    Wait { key: Key<'a>, until: Until<'a>, timeout_ms: Option<u64> },
    /// Starts pushing events; answers the watch's number.
    Watch { target: Target<'a>, from_version: u64 },
    /// Ends a watch.
    Unwatch { watch: u64 },
}

type Parsed<'a> = Result<Command<'a>>;

fn wrap(command: StateCommand<'_>) -> Result<Command<'_>> {
    Ok(Command::State(command))
}

fn expected<'a>(args: &mut Args<'a>) -> Result<Expected<'a>> {
    if args.word("MISSING") { Ok(Expected::Missing) } else { value_after(args, "VALUE").map(Expected::Value) }
}

/// The argument after a word that must stand there.
fn value_after<'a>(args: &mut Args<'a>, word: &str) -> Result<Arg<'a>> {
    if args.word(word) { args.next_arg() } else { Err(Error::syntax()) }
}

fn optional_expiry(args: &mut Args<'_>, otherwise: Expiry, command: &str) -> Result<Expiry> {
    if args.is_empty() {
        return Ok(otherwise);
    }
    if args.word("KEEPTTL") { Ok(Expiry::Keep) } else { scalar::expiry(args, command) }
}

/// `key MISSING|VALUE expected TO value [EX|PX|EXAT|PXAT t|KEEPTTL]`.
pub(super) fn cas<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let (key, expected) = (args.key()?, expected(args)?);
    let value = value_after(args, "TO")?;
    let expiry = optional_expiry(args, Expiry::Default, "kv.cas")?;
    wrap(StateCommand::CompareAndSet { key, expected, value, expiry })
}

/// `key VALUE expected`.
pub(super) fn cad<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(StateCommand::CompareAndDelete { key: args.key()?, expected: expected(args)? })
}

pub(super) fn getv<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(StateCommand::GetVersioned { key: args.key()? })
}

fn version(arg: Arg<'_>) -> Result<u64> {
    u64::try_from(arg.int()?).map_err(|_| Error::out_of_range("version is out of range"))
}

/// `key value version [EX|PX|EXAT|PXAT t|KEEPTTL]`.
pub(super) fn setv<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let (key, value, version) = (args.key()?, args.next_arg()?, version(args.next_arg()?)?);
    let expiry = optional_expiry(args, Expiry::Default, "kv.setv")?;
    wrap(StateCommand::SetIfVersion { key, value, version, expiry })
}

pub(super) fn delv<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(StateCommand::DeleteIfVersion { key: args.key()?, version: version(args.next_arg()?)? })
}

/// `key field TO state [MISSING] [FROM n state…] [UPDATE n field value…] [PX ms|…|KEEPTTL] [FENCE version]`.
pub(super) fn transition<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let (key, field) = (args.key()?, args.next_arg()?);
    let to = value_after(args, "TO")?;
    let none: &'a [Arg<'a>] = &[];
    let mut step = Transition {
        key,
        field,
        expect: none,
        or_missing: false,
        to,
        update: none,
        expiry: Expiry::Keep,
        fence: None,
    };
    let (mut given, mut timed) = (false, false);
    while !args.is_empty() {
        if args.word("MISSING") {
            (step.or_missing, given) = (true, true);
        } else if args.word("FROM") {
            let count = args.next_arg()?.count()?;
            (step.expect, given) = (args.take(count)?, true);
        } else if args.word("UPDATE") {
            let count = args.next_arg()?.count()?.checked_mul(2).ok_or_else(Error::syntax)?;
            step.update = args.take(count)?;
            if step.update.iter().step_by(2).any(|named| is_same_field(named, &field)) {
                return Err(Error::invalid("the state is what TO says: UPDATE can't set its field"));
            }
        } else if args.word("FENCE") {
            step.fence = Some(version(args.next_arg()?)?);
        } else if !timed {
            (step.expiry, timed) = (optional_expiry(args, Expiry::Keep, "kv.transition")?, true);
        } else {
            return Err(Error::syntax());
        }
    }
    if !given {
        return Err(Error::invalid("a transition needs FROM or MISSING: the states to leave from"));
    }
    wrap(StateCommand::Transition(step))
}

/// Whether two arguments name one field: Text and Bytes with the same bytes are one identity.
fn is_same_field(one: &Arg<'_>, other: &Arg<'_>) -> bool {
    one == other || one.content().is_some_and(|content| other.content() == Some(content))
}

/// `key [TIMEOUT ms] [PRESENT | NEWER version | [FIELD f] STATES n state…]`.
pub(super) fn wait<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let key = args.key()?;
    let timeout_ms = if args.word("TIMEOUT") { Some(args.next_arg()?.count()? as u64) } else { None };
    let until = if args.is_empty() {
        Until::Change
    } else if args.word("PRESENT") {
        Until::Exists
    } else if args.word("NEWER") {
        Until::NewerThan(version(args.next_arg()?)?)
    } else {
        let field = if args.word("FIELD") { Some(args.next_arg()?) } else { None };
        let count = value_after(args, "STATES")?.count()?;
        Until::States { field, states: args.take(count)? }
    };
    wrap(StateCommand::Wait { key, until, timeout_ms })
}

/// `KEY key [FROM version] | PREFIX prefix`: the keys with a prefix have no version together.
pub(super) fn watch<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let target = if args.word("PREFIX") {
        Target::Prefix(args.next_arg()?.content().ok_or_else(Error::syntax)?)
    } else if args.word("KEY") {
        Target::Key(args.key()?)
    } else {
        return Err(Error::syntax());
    };
    let has_version = matches!(target, Target::Key(_)) && args.word("FROM");
    let from_version = if has_version { version(args.next_arg()?)? } else { 0 };
    wrap(StateCommand::Watch { target, from_version })
}

pub(super) fn unwatch<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(StateCommand::Unwatch { watch: version(args.next_arg()?)? })
}
