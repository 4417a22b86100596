//! Commands on lists.

use super::Command;
use crate::arg::{Arg, Args};
use crate::error::{Error, Result};
use crate::key::Key;

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The first element.
    Head,
    /// The last element.
    Tail,
}

/// A command on a list. Indexes count from 0, negative ones from the end (-1 is the last element).
#[expect(missing_docs, reason = "fields are named as the command's arguments")]
#[derive(Clone, Copy, Debug)]
pub enum ListCommand<'a> {
    /// Adds elements at an end, one after the other; answers the length.
    Push { key: Key<'a>, end: End, values: &'a [Arg<'a>], only_existing: bool },
    /// Takes elements from an end; with a count an array.
    Pop { key: Key<'a>, end: End, count: Option<usize> },
    /// One element.
    Index { key: Key<'a>, index: i64 },
    /// The elements from start to end, both included.
    Range { key: Key<'a>, start: i64, end: i64 },
    /// Number of elements.
    Length { key: Key<'a> },
    /// Replaces one element.
    Set { key: Key<'a>, index: i64, value: Arg<'a> },
    /// Removes the first `count` equal elements (the last ones if negative, all if 0).
    Remove { key: Key<'a>, count: i64, value: Arg<'a> },
    /// Keeps only the elements from start to end.
    Trim { key: Key<'a>, start: i64, end: i64 },
    /// Inserts beside the first element equal to `pivot`.
    Insert { key: Key<'a>, before: bool, pivot: Arg<'a>, value: Arg<'a> },
    /// Inserts before an index, as Python's `list.insert` (an index beyond an end means that end).
    InsertAt { key: Key<'a>, index: i64, value: Arg<'a> },
    /// Removes one element by index and answers it.
    RemoveAt { key: Key<'a>, index: i64 },
    /// Moves an element from one end to another, atomically.
    Move { from: Key<'a>, to: Key<'a>, take: End, put: End },
    /// Index of an equal element; with a count an array of so many at most.
    Position { key: Key<'a>, value: Arg<'a>, search: Search },
}

/// How LPOS searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search {
    /// The first equal element that counts: 1 is the first; negative ones are looked for from the tail on. Not 0.
    pub rank: i64,
    /// How many are wanted; only one, not in an array, without.
    pub count: Option<usize>,
    /// How many elements are looked at.
    pub longest: usize,
}

type Parsed<'a> = Result<Command<'a>>;

fn wrap(command: ListCommand<'_>) -> Result<Command<'_>> {
    Ok(Command::List(command))
}

fn push<'a>(args: &mut Args<'a>, end: End, only_existing: bool) -> Parsed<'a> {
    wrap(ListCommand::Push { key: args.key()?, end, values: args.all(), only_existing })
}

pub(super) fn lpush<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    push(args, End::Head, false)
}

pub(super) fn rpush<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    push(args, End::Tail, false)
}

pub(super) fn lpushx<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    push(args, End::Head, true)
}

pub(super) fn rpushx<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    push(args, End::Tail, true)
}

fn pop<'a>(args: &mut Args<'a>, end: End) -> Parsed<'a> {
    let key = args.key()?;
    let count = if args.is_empty() { None } else { Some(args.next_arg()?.count()?) };
    wrap(ListCommand::Pop { key, end, count })
}

pub(super) fn lpop<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    pop(args, End::Head)
}

pub(super) fn rpop<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    pop(args, End::Tail)
}

pub(super) fn lindex<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ListCommand::Index { key: args.key()?, index: args.next_arg()?.int()? })
}

pub(super) fn lrange<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ListCommand::Range {
        key: args.key()?,
        start: args.next_arg()?.int()?,
        end: args.next_arg()?.int()?,
    })
}

pub(super) fn llen<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ListCommand::Length { key: args.key()? })
}

pub(super) fn lset<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ListCommand::Set { key: args.key()?, index: args.next_arg()?.int()?, value: args.next_arg()? })
}

pub(super) fn lrem<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ListCommand::Remove { key: args.key()?, count: args.next_arg()?.int()?, value: args.next_arg()? })
}

pub(super) fn ltrim<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ListCommand::Trim { key: args.key()?, start: args.next_arg()?.int()?, end: args.next_arg()?.int()? })
}

pub(super) fn linsert<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let key = args.key()?;
    let before = args.word("BEFORE");
    if !before && !args.word("AFTER") {
        return Err(Error::syntax());
    }
    wrap(ListCommand::Insert { key, before, pivot: args.next_arg()?, value: args.next_arg()? })
}

pub(super) fn kv_linsert<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ListCommand::InsertAt { key: args.key()?, index: args.next_arg()?.int()?, value: args.next_arg()? })
}

pub(super) fn kv_lremove<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ListCommand::RemoveAt { key: args.key()?, index: args.next_arg()?.int()? })
}

fn end(args: &mut Args<'_>) -> Result<End> {
    if args.word("LEFT") {
        Ok(End::Head)
    } else if args.word("RIGHT") {
        Ok(End::Tail)
    } else {
        Err(Error::syntax())
    }
}

pub(super) fn lmove<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ListCommand::Move { from: args.key()?, to: args.key()?, take: end(args)?, put: end(args)? })
}

pub(super) fn rpoplpush<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ListCommand::Move { from: args.key()?, to: args.key()?, take: End::Tail, put: End::Head })
}

pub(super) fn lpos<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let (key, value) = (args.key()?, args.next_arg()?);
    let mut search = Search { rank: 1, count: None, longest: usize::MAX };
    while !args.is_empty() {
        if args.word("RANK") {
            search.rank = args.next_arg()?.int()?;
        } else if args.word("COUNT") {
            search.count = Some(or_all(args, "COUNT")?);
        } else if args.word("MAXLEN") {
            search.longest = or_all(args, "MAXLEN")?;
        } else {
            return Err(Error::syntax());
        }
    }
    if search.rank == 0 {
        return Err(Error::invalid(
            "RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to \
             start from the end of the list",
        ));
    }
    wrap(ListCommand::Position { key, value, search })
}

/// A number of which 0 stands for all.
fn or_all(args: &mut Args<'_>, option: &str) -> Result<usize> {
    match usize::try_from(args.next_arg()?.int()?) {
        Ok(0) => Ok(usize::MAX),
        Ok(number) => Ok(number),
        Err(_) => Err(Error::invalid(format!("{option} can't be negative"))),
    }
}
