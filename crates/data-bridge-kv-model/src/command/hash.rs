//! Commands on hashes.

use super::key::{ScanOptions, scan_cursor, walk_option};
use super::set::random_count;
use super::{Command, NumberStyle};
use crate::arg::{Arg, Args};
use crate::error::{Error, Result};
use crate::key::Key;

/// A command on a hash.
#[expect(missing_docs, reason = "fields are named as the command's arguments")]
#[derive(Clone, Copy, Debug)]
pub enum HashCommand<'a> {
    /// Sets fields; answers how many are new, or Ok for HMSET.
    Set { key: Key<'a>, pairs: &'a [Arg<'a>], status: bool },
    /// Sets a field where it is missing; answers 1 or 0.
    SetIfAbsent { key: Key<'a>, field: Arg<'a>, value: Arg<'a> },
    /// The field's value, set to `value` first where it is missing.
    SetDefault { key: Key<'a>, field: Arg<'a>, value: Arg<'a> },
    /// One field.
    Get { key: Key<'a>, field: Arg<'a> },
    /// Several fields.
    MultiGet { key: Key<'a>, fields: &'a [Arg<'a>] },
    /// Removes fields; answers how many there were.
    Delete { key: Key<'a>, fields: &'a [Arg<'a>] },
    /// Removes one field and answers its value.
    Pop { key: Key<'a>, field: Arg<'a> },
    /// All fields with their values.
    All { key: Key<'a> },
    /// All fields.
    Fields { key: Key<'a> },
    /// All values.
    Values { key: Key<'a> },
    /// Number of fields.
    Length { key: Key<'a> },
    /// Whether a field is there.
    Contains { key: Key<'a>, field: Arg<'a> },
    /// Adds to a field's number.
    Add { key: Key<'a>, field: Arg<'a>, by: Arg<'a>, style: NumberStyle },
    /// Length in bytes of what a Redis client is shown of a field.
    ValueLength { key: Key<'a>, field: Arg<'a> },
    /// Random fields; a negative count allows repeats.
    Random { key: Key<'a>, count: Option<i64>, values: bool },
    /// One step of a walk over the fields.
    Scan { key: Key<'a>, cursor: u64, options: ScanOptions<'a> },
}

type Parsed<'a> = Result<Command<'a>>;

fn wrap(command: HashCommand<'_>) -> Result<Command<'_>> {
    Ok(Command::Hash(command))
}

fn pairs<'a>(args: &mut Args<'a>, command: &str) -> Result<&'a [Arg<'a>]> {
    args.pairs().map_err(|_| Error::invalid(format!("wrong number of arguments for '{command}' command")))
}

pub(super) fn hset<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(HashCommand::Set { key: args.key()?, pairs: pairs(args, "hset")?, status: false })
}

pub(super) fn hmset<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(HashCommand::Set { key: args.key()?, pairs: pairs(args, "hmset")?, status: true })
}

pub(super) fn hsetnx<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(HashCommand::SetIfAbsent { key: args.key()?, field: args.next_arg()?, value: args.next_arg()? })
}

pub(super) fn kv_hsetdefault<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(HashCommand::SetDefault { key: args.key()?, field: args.next_arg()?, value: args.next_arg()? })
}

pub(super) fn hget<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(HashCommand::Get { key: args.key()?, field: args.next_arg()? })
}

pub(super) fn hmget<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(HashCommand::MultiGet { key: args.key()?, fields: args.all() })
}

pub(super) fn hdel<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(HashCommand::Delete { key: args.key()?, fields: args.all() })
}

pub(super) fn kv_hpop<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(HashCommand::Pop { key: args.key()?, field: args.next_arg()? })
}

pub(super) fn hgetall<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(HashCommand::All { key: args.key()? })
}

pub(super) fn hkeys<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(HashCommand::Fields { key: args.key()? })
}

pub(super) fn hvals<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(HashCommand::Values { key: args.key()? })
}

pub(super) fn hlen<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(HashCommand::Length { key: args.key()? })
}

pub(super) fn hexists<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(HashCommand::Contains { key: args.key()?, field: args.next_arg()? })
}

fn add<'a>(args: &mut Args<'a>, style: NumberStyle) -> Parsed<'a> {
    let (key, field, by) = (args.key()?, args.next_arg()?, args.next_arg()?);
    // What the text of an increment lacks is not told as a fault of the field.
    match style {
        NumberStyle::RedisInteger if by.content().is_some() => drop(by.int()?),
        NumberStyle::RedisFloat if by.content().is_some() => drop(by.float()?),
        NumberStyle::RedisInteger | NumberStyle::RedisFloat | NumberStyle::Typed => {}
    }
    wrap(HashCommand::Add { key, field, by, style })
}

pub(super) fn hincrby<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    add(args, NumberStyle::RedisInteger)
}

pub(super) fn hincrbyfloat<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    add(args, NumberStyle::RedisFloat)
}

pub(super) fn kv_hincr<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    add(args, NumberStyle::Typed)
}

pub(super) fn hstrlen<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(HashCommand::ValueLength { key: args.key()?, field: args.next_arg()? })
}

pub(super) fn hrandfield<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let key = args.key()?;
    let count = random_count(args)?;
    let values = count.is_some() && args.word("WITHVALUES");
    wrap(HashCommand::Random { key, count, values })
}

pub(super) fn hscan<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let key = args.key()?;
    let cursor = scan_cursor(args.next_arg()?)?;
    let mut options = ScanOptions { values: true, ..ScanOptions::ALL };
    while !args.is_empty() {
        if args.word("NOVALUES") {
            options.values = false;
        } else if !walk_option(args, &mut options)? {
            return Err(Error::syntax());
        }
    }
    wrap(HashCommand::Scan { key, cursor, options })
}
