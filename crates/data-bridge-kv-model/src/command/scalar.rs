//! Commands on scalar values: read, write, and byte strings.

use super::{Command, Keys};
use crate::arg::{Arg, Args};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::limits::DEADLINE_MS;

/// When a write takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    Always,
    /// Only where no key is (NX).
    IfAbsent,
    /// Only over an existing key (XX).
    IfPresent,
}

/// What a write does to the deadline. Times are milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Clears it, or applies the namespace's default TTL.
    Default,
    /// Leaves it as it is (KEEPTTL; a read without a change).
    Keep,
    /// Removes it (PERSIST).
    Never,
    /// A deadline this many milliseconds from now.
    In(u64),
    /// A deadline in unix milliseconds.
    At(u64),
}

/// What a conditional write answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetReply {
    /// Ok, or Missing where the condition failed.
    Status,
    /// Integer 1 or 0 (SETNX).
    Integer,
    /// The value that was there before, or Missing; without effect the same (GET).
    Old,
    /// Boolean.
    Boolean,
}

/// Options of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetOptions {
    /// When it takes place.
    pub condition: Condition,
    /// The new deadline.
    pub expiry: Expiry,
    /// The answer.
    pub reply: SetReply,
    /// Whether an old value of a kind that is no Redis string may be returned (typed callers).
    pub any_kind: bool,
}

impl SetOptions {
    /// A plain write.
    pub const PLAIN: SetOptions = SetOptions {
        condition: Condition::Always,
        expiry: Expiry::Default,
        reply: SetReply::Status,
        any_kind: false,
    };
}

/// A part of a string, ends included, negative from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitRange {
    /// The first.
    pub start: i64,
    /// The last one that was named.
    pub end: Option<i64>,
    /// Whether bits are counted, not bytes.
    pub by_bit: bool,
}

impl BitRange {
    /// Whether both ends are counted from the end, and in the wrong order.
    pub fn is_crossed(self) -> bool {
        let end = self.end.unwrap_or(-1);
        self.start < 0 && end < 0 && self.start > end
    }
}

/// A command on scalar values.
#[expect(missing_docs, reason = "fields are named as the command's arguments")]
#[derive(Clone, Copy, Debug)]
pub enum ScalarCommand<'a> {
    /// Reads a value; of any kind for typed callers, only Redis strings otherwise.
    Get { key: Key<'a>, any_kind: bool },
    /// Writes a value.
    Set { key: Key<'a>, value: Arg<'a>, options: SetOptions },
    /// Reads several values; other kinds read as missing unless `any_kind`.
    MultiGet { keys: Keys<'a>, any_kind: bool },
    /// Writes several values at once; with `only_if_absent` all or none.
    MultiSet { pairs: Keys<'a>, only_if_absent: bool, expiry: Expiry },
    /// Reads and deletes.
    Pop { key: Key<'a>, any_kind: bool },
    /// Reads and changes the deadline.
    GetExpire { key: Key<'a>, expiry: Expiry },
    /// Appends bytes.
    Append { key: Key<'a>, bytes: Arg<'a> },
    /// Length in bytes of what a Redis client is shown.
    Length { key: Key<'a> },
    /// A byte range, ends included, negative from the end.
    GetRange { key: Key<'a>, start: i64, end: i64 },
    /// Overwrites bytes from an offset, filled with zero bytes up to there.
    SetRange { key: Key<'a>, offset: usize, bytes: Arg<'a> },
    /// One bit.
    GetBit { key: Key<'a>, offset: usize },
    /// Turns one bit on or off, behind zero bytes up to there; answers what it was.
    SetBit { key: Key<'a>, offset: usize, on: bool },
    /// How many bits are on.
    CountBits { key: Key<'a>, within: Option<BitRange> },
    /// Place of the first bit that is on, or off.
    FindBit { key: Key<'a>, on: bool, within: Option<BitRange> },
}

type Parsed<'a> = Result<Command<'a>>;

pub(super) fn get<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    Ok(Command::Scalar(ScalarCommand::Get { key: args.key()?, any_kind: false }))
}

pub(super) fn kv_get<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    Ok(Command::Scalar(ScalarCommand::Get { key: args.key()?, any_kind: true }))
}

pub(super) fn set<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let (key, value) = (args.key()?, args.next_arg()?);
    if args.is_empty() {
        return Ok(Command::Scalar(ScalarCommand::Set { key, value, options: SetOptions::PLAIN }));
    }
    let options = set_options(args, SetOptions::PLAIN, "set")?;
    Ok(Command::Scalar(ScalarCommand::Set { key, value, options }))
}

pub(super) fn kv_set<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let (key, value) = (args.key()?, args.next_arg()?);
    let options = set_options(args, SetOptions { any_kind: true, ..SetOptions::PLAIN }, "kv.set")?;
    Ok(Command::Scalar(ScalarCommand::Set { key, value, options }))
}

fn set_options(args: &mut Args<'_>, mut options: SetOptions, command: &str) -> Result<SetOptions> {
    while !args.is_empty() {
        let unconditional = options.condition == Condition::Always;
        if unconditional && args.word("NX") {
            options.condition = Condition::IfAbsent;
        } else if unconditional && args.word("XX") {
            options.condition = Condition::IfPresent;
        } else if args.word("GET") {
            options.reply = SetReply::Old;
        } else if options.expiry == Expiry::Default {
            let keep = args.word("KEEPTTL");
            options.expiry = if keep { Expiry::Keep } else { expiry(args, command)? };
        } else {
            return Err(Error::syntax());
        }
    }
    Ok(options)
}

/// Reads EX, PX, EXAT or PXAT with its number.
pub(super) fn expiry(args: &mut Args<'_>, command: &str) -> Result<Expiry> {
    let (scale, absolute) = if args.word("EX") {
        (1000, false)
    } else if args.word("PX") {
        (1, false)
    } else if args.word("EXAT") {
        (1000, true)
    } else if args.word("PXAT") {
        (1, true)
    } else {
        return Err(Error::syntax());
    };
    expiry_of(args.next_arg()?, scale, absolute, command)
}

fn expiry_of(number: Arg<'_>, scale: i64, absolute: bool, command: &str) -> Result<Expiry> {
    let invalid = || Error::invalid(format!("invalid expire time in '{command}' command"));
    let number = number.int()?;
    let ms = number.checked_mul(scale).filter(|ms| *ms > 0).ok_or_else(invalid)?;
    let ms = u64::try_from(ms).ok().filter(|ms| *ms <= DEADLINE_MS).ok_or_else(invalid)?;
    Ok(if absolute { Expiry::At(ms) } else { Expiry::In(ms) })
}

fn set_with<'a>(key: Key<'a>, value: Arg<'a>, options: SetOptions) -> Parsed<'a> {
    Ok(Command::Scalar(ScalarCommand::Set { key, value, options }))
}

pub(super) fn setex<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let key = args.key()?;
    let expiry = expiry_of(args.next_arg()?, 1000, false, "setex")?;
    set_with(key, args.next_arg()?, SetOptions { expiry, ..SetOptions::PLAIN })
}

pub(super) fn psetex<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let key = args.key()?;
    let expiry = expiry_of(args.next_arg()?, 1, false, "psetex")?;
    set_with(key, args.next_arg()?, SetOptions { expiry, ..SetOptions::PLAIN })
}

pub(super) fn setnx<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let options =
        SetOptions { condition: Condition::IfAbsent, reply: SetReply::Integer, ..SetOptions::PLAIN };
    set_with(args.key()?, args.next_arg()?, options)
}

pub(super) fn getset<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    set_with(args.key()?, args.next_arg()?, SetOptions { reply: SetReply::Old, ..SetOptions::PLAIN })
}

pub(super) fn getdel<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    Ok(Command::Scalar(ScalarCommand::Pop { key: args.key()?, any_kind: false }))
}

pub(super) fn kv_pop<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    Ok(Command::Scalar(ScalarCommand::Pop { key: args.key()?, any_kind: true }))
}

pub(super) fn getex<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let key = args.key()?;
    let expiry = if args.is_empty() {
        Expiry::Keep
    } else if args.word("PERSIST") {
        Expiry::Never
    } else {
        expiry(args, "getex")?
    };
    Ok(Command::Scalar(ScalarCommand::GetExpire { key, expiry }))
}

pub(super) fn mget<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    Ok(Command::Scalar(ScalarCommand::MultiGet { keys: Keys::new(args.all(), 1)?, any_kind: false }))
}

pub(super) fn kv_mget<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    Ok(Command::Scalar(ScalarCommand::MultiGet { keys: Keys::new(args.all(), 1)?, any_kind: true }))
}

pub(super) fn mset<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    multi_set(args, "mset", false, Expiry::Default)
}

pub(super) fn msetnx<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    multi_set(args, "msetnx", true, Expiry::Default)
}

/// `KV.MSET ttl_ms key value [key value …]`; 0 = the namespace's default.
pub(super) fn kv_mset<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let ttl = args.next_arg()?;
    let expiry = if ttl.int()? == 0 { Expiry::Default } else { expiry_of(ttl, 1, false, "kv.mset")? };
    multi_set(args, "kv.mset", false, expiry)
}

fn multi_set<'a>(args: &mut Args<'a>, command: &str, only_if_absent: bool, expiry: Expiry) -> Parsed<'a> {
    let pairs = args
        .pairs()
        .map_err(|_| Error::invalid(format!("wrong number of arguments for '{command}' command")))?;
    let pairs = Keys::new(pairs, 2)?;
    Ok(Command::Scalar(ScalarCommand::MultiSet { pairs, only_if_absent, expiry }))
}

pub(super) fn append<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    Ok(Command::Scalar(ScalarCommand::Append { key: args.key()?, bytes: args.next_arg()? }))
}

pub(super) fn strlen<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    Ok(Command::Scalar(ScalarCommand::Length { key: args.key()? }))
}

pub(super) fn getrange<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let (key, start, end) = (args.key()?, args.next_arg()?.int()?, args.next_arg()?.int()?);
    Ok(Command::Scalar(ScalarCommand::GetRange { key, start, end }))
}

pub(super) fn setrange<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let key = args.key()?;
    let offset = usize::try_from(args.next_arg()?.int()?)
        .map_err(|_| Error::out_of_range("offset is out of range"))?;
    Ok(Command::Scalar(ScalarCommand::SetRange { key, offset, bytes: args.next_arg()? }))
}

fn bit_offset(arg: Arg<'_>) -> Result<usize> {
    let offset = arg.int().ok().and_then(|offset| u32::try_from(offset).ok());
    let offset = offset.ok_or_else(|| Error::out_of_range("bit offset is not an integer or out of range"))?;
    Ok(offset as usize)
}

pub(super) fn getbit<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let (key, offset) = (args.key()?, bit_offset(args.next_arg()?)?);
    Ok(Command::Scalar(ScalarCommand::GetBit { key, offset }))
}

pub(super) fn setbit<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let (key, offset) = (args.key()?, bit_offset(args.next_arg()?)?);
    let on = match args.next_arg()?.int() {
        Ok(bit @ 0..=1) => bit == 1,
        _ => return Err(Error::out_of_range("bit is not an integer or out of range")),
    };
    Ok(Command::Scalar(ScalarCommand::SetBit { key, offset, on }))
}

/// `[start [end [BYTE|BIT]]]`; some commands have no start without an end.
fn bit_range(args: &mut Args<'_>, needs_end: bool) -> Result<Option<BitRange>> {
    if args.is_empty() {
        return Ok(None);
    }
    let start = args.next_arg()?;
    if needs_end && args.is_empty() {
        return Err(Error::syntax());
    }
    let start = start.int()?;
    let end = if args.is_empty() { None } else { Some(args.next_arg()?.int()?) };
    let by_bit = end.is_some() && args.word("BIT");
    if end.is_some() && !by_bit {
        args.word("BYTE");
    }
    Ok(Some(BitRange { start, end, by_bit }))
}

pub(super) fn bitcount<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let (key, within) = (args.key()?, bit_range(args, true)?);
    Ok(Command::Scalar(ScalarCommand::CountBits { key, within }))
}

pub(super) fn bitpos<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let key = args.key()?;
    let on = match args.next_arg()?.int()? {
        bit @ 0..=1 => bit == 1,
        _ => return Err(Error::invalid("The bit argument must be 1 or 0.")),
    };
    Ok(Command::Scalar(ScalarCommand::FindBit { key, on, within: bit_range(args, false)? }))
}
