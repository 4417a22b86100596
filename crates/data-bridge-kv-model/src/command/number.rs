//! Commands that add to a number.

use super::{Command, Expiry, scalar};
use crate::arg::{Arg, Args};
use crate::codec::ValueRef;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::kind::Kind;

/// Which rules and which answer an addition follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberStyle {
    /// INCR: numeric bytes are numbers too, the answer is an integer.
    RedisInteger,
    /// INCRBYFLOAT: numeric bytes are numbers too, the answer is text.
    RedisFloat,
    /// KV.INCR: only numbers, added by the rules of their kind, the answer is the typed number.
    Typed,
}

/// A command on numbers.
#[derive(Clone, Copy, Debug)]
pub enum NumberCommand<'a> {
    /// Adds `by` (subtracts it with `negate`) and answers the new number.
    Add {
        /// The key.
        key: Key<'a>,
        /// What to add.
        by: Arg<'a>,
        /// Subtract instead.
        negate: bool,
        /// Where a missing key starts instead of zero.
        initial: Option<Arg<'a>>,
        /// Smallest result; below it nothing changes.
        minimum: Option<Arg<'a>>,
        /// Largest result; above it nothing changes.
        maximum: Option<Arg<'a>>,
        /// The deadline a new key gets.
        expiry: Expiry,
        /// Whether an existing key gets the deadline too.
        refresh: bool,
        /// Whether numbers of different kinds may be added (the sum takes the wider kind).
        convert: bool,
        /// The rules.
        style: NumberStyle,
    },
}

const ONE: Arg<'static> = Arg::Value(INT_ONE);
const INT_ONE: ValueRef<'static> = ValueRef::from_static(Kind::Int, &[1, 0, 0, 0, 0, 0, 0, 0]);

fn redis<'a>(key: Key<'a>, by: Arg<'a>, negate: bool, style: NumberStyle) -> Command<'a> {
    Command::Number(NumberCommand::Add {
        key,
        by,
        negate,
        initial: None,
        minimum: None,
        maximum: None,
        expiry: Expiry::Keep,
        refresh: false,
        convert: true,
        style,
    })
}

pub(super) fn incr<'a>(args: &mut Args<'a>) -> Result<Command<'a>> {
    Ok(redis(args.key()?, ONE, false, NumberStyle::RedisInteger))
}

pub(super) fn decr<'a>(args: &mut Args<'a>) -> Result<Command<'a>> {
    Ok(redis(args.key()?, ONE, true, NumberStyle::RedisInteger))
}

pub(super) fn incrby<'a>(args: &mut Args<'a>) -> Result<Command<'a>> {
    let (key, by) = (args.key()?, args.next_arg()?);
    by.int()?;
    Ok(redis(key, by, false, NumberStyle::RedisInteger))
}

pub(super) fn decrby<'a>(args: &mut Args<'a>) -> Result<Command<'a>> {
    let (key, by) = (args.key()?, args.next_arg()?);
    by.int()?;
    Ok(redis(key, by, true, NumberStyle::RedisInteger))
}

pub(super) fn incrbyfloat<'a>(args: &mut Args<'a>) -> Result<Command<'a>> {
    let (key, by) = (args.key()?, args.next_arg()?);
    if by.float()?.is_infinite() {
        return Err(Error::invalid("increment would produce NaN or Infinity"));
    }
    Ok(redis(key, by, false, NumberStyle::RedisFloat))
}

pub(super) fn kv_incr<'a>(args: &mut Args<'a>) -> Result<Command<'a>> {
    typed(args, false)
}

pub(super) fn kv_decr<'a>(args: &mut Args<'a>) -> Result<Command<'a>> {
    typed(args, true)
}

/// `key [by] [INITIAL n] [MIN n] [MAX n] [EX|PX|EXAT|PXAT t] [REFRESH] [CONVERT]`.
fn typed<'a>(args: &mut Args<'a>, negate: bool) -> Result<Command<'a>> {
    let key = args.key()?;
    let by = if args.is_empty() { ONE } else { args.next_arg()? };
    let (mut initial, mut minimum, mut maximum) = (None, None, None);
    let (mut expiry, mut refresh, mut convert) = (Expiry::Default, false, false);
    while !args.is_empty() {
        if args.word("INITIAL") {
            initial = Some(args.next_arg()?);
        } else if args.word("MIN") {
            minimum = Some(args.next_arg()?);
        } else if args.word("MAX") {
            maximum = Some(args.next_arg()?);
        } else if args.word("REFRESH") {
            refresh = true;
        } else if args.word("CONVERT") {
            convert = true;
        } else if expiry == Expiry::Default {
            expiry = scalar::expiry(args, "kv.incr")?;
        } else {
            return Err(Error::syntax());
        }
    }
    let style = NumberStyle::Typed;
    Ok(Command::Number(NumberCommand::Add {
        key,
        by,
        negate,
        initial,
        minimum,
        maximum,
        expiry,
        refresh,
        convert,
        style,
    }))
}
