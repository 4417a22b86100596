//! Commands on sets.

use super::key::{ScanOptions, member_options, scan_cursor};
use super::{Command, Keys};
use crate::arg::{Arg, Args};
use crate::error::{Error, Result};
use crate::key::Key;

/// How several sets are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOperation {
    /// Members of all.
    Intersection,
    /// Members of any.
    Union,
    /// Members of the first and of no other.
    Difference,
}

/// A command on sets.
#[expect(missing_docs, reason = "fields are named as the command's arguments")]
#[derive(Clone, Copy, Debug)]
pub enum SetCommand<'a> {
    /// Adds members; answers how many are new.
    Add { key: Key<'a>, members: &'a [Arg<'a>] },
    /// Removes members; answers how many there were.
    Remove { key: Key<'a>, members: &'a [Arg<'a>] },
    /// Whether it is a member.
    Contains { key: Key<'a>, member: Arg<'a> },
    /// The same for several members.
    ContainsMany { key: Key<'a>, members: &'a [Arg<'a>] },
    /// All members.
    Members { key: Key<'a> },
    /// Number of members.
    Length { key: Key<'a> },
    /// Removes random members.
    Pop { key: Key<'a>, count: Option<usize> },
    /// Random members; a negative count allows repeats.
    Random { key: Key<'a>, count: Option<i64> },
    /// Moves a member.
    Move { from: Key<'a>, to: Key<'a>, member: Arg<'a> },
    /// Combines sets; with `store` writes the result there and answers its length.
    Combine { operation: SetOperation, store: Option<Key<'a>>, keys: Keys<'a> },
    /// How many members all sets have, at most `limit` if that is not 0.
    CountCommon { keys: Keys<'a>, limit: usize },
    /// One step of a walk over the members.
    Scan { key: Key<'a>, cursor: u64, options: ScanOptions<'a> },
}

type Parsed<'a> = Result<Command<'a>>;

fn wrap(command: SetCommand<'_>) -> Result<Command<'_>> {
    Ok(Command::Set(command))
}

pub(super) fn sadd<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(SetCommand::Add { key: args.key()?, members: args.all() })
}

pub(super) fn srem<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(SetCommand::Remove { key: args.key()?, members: args.all() })
}

pub(super) fn sismember<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(SetCommand::Contains { key: args.key()?, member: args.next_arg()? })
}

pub(super) fn smismember<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(SetCommand::ContainsMany { key: args.key()?, members: args.all() })
}

pub(super) fn smembers<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(SetCommand::Members { key: args.key()? })
}

pub(super) fn scard<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(SetCommand::Length { key: args.key()? })
}

pub(super) fn spop<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let key = args.key()?;
    let count = if args.is_empty() { None } else { Some(args.next_arg()?.count()?) };
    wrap(SetCommand::Pop { key, count })
}

pub(super) fn srandmember<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(SetCommand::Random { key: args.key()?, count: random_count(args)? })
}

/// The optional count of a random pick: its magnitude is bounded, so that a repeat can't fill memory.
pub(super) fn random_count(args: &mut Args<'_>) -> Result<Option<i64>> {
    if args.is_empty() {
        return Ok(None);
    }
    let count = args.next_arg()?.int()?;
    if count < -(crate::limits::ARGUMENTS as i64) {
        return Err(Error::out_of_range("value is out of range"));
    }
    Ok(Some(count))
}

pub(super) fn smove<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(SetCommand::Move { from: args.key()?, to: args.key()?, member: args.next_arg()? })
}

fn combine<'a>(args: &mut Args<'a>, operation: SetOperation, stores: bool) -> Parsed<'a> {
    let store = if stores { Some(args.key()?) } else { None };
    wrap(SetCommand::Combine { operation, store, keys: Keys::new(args.all(), 1)? })
}

pub(super) fn sinter<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    combine(args, SetOperation::Intersection, false)
}

pub(super) fn sunion<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    combine(args, SetOperation::Union, false)
}

pub(super) fn sdiff<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    combine(args, SetOperation::Difference, false)
}

pub(super) fn sinterstore<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    combine(args, SetOperation::Intersection, true)
}

pub(super) fn sunionstore<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    combine(args, SetOperation::Union, true)
}

pub(super) fn sdiffstore<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    combine(args, SetOperation::Difference, true)
}

/// `numkeys key… [LIMIT n]`.
pub(super) fn sintercard<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let count = args.next_arg()?.int().ok().and_then(|count| usize::try_from(count).ok());
    let count = count.filter(|count| *count > 0);
    let count = count.ok_or_else(|| Error::out_of_range("numkeys should be greater than 0"))?;
    let keys = args
        .take(count)
        .map_err(|_| Error::invalid("Number of keys can't be greater than number of args"))?;
    wrap(SetCommand::CountCommon { keys: Keys::new(keys, 1)?, limit: common_limit(args)? })
}

/// Reads `[LIMIT n]` of a command that counts; 0 = no limit.
pub(super) fn common_limit(args: &mut Args<'_>) -> Result<usize> {
    let mut limit = 0;
    while args.word("LIMIT") {
        let given = args.next_arg()?.int().ok().and_then(|limit| usize::try_from(limit).ok());
        limit = given.ok_or_else(|| Error::out_of_range("LIMIT can't be negative"))?;
    }
    Ok(limit)
}

pub(super) fn sscan<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let key = args.key()?;
    let cursor = scan_cursor(args.next_arg()?)?;
    wrap(SetCommand::Scan { key, cursor, options: member_options(args)? })
}
