//! Commands on lists.

use super::{Command, Keys};
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

/// How long a command waits where there is nothing to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all.
    None,
    /// So many milliseconds at most.
    Ms(u64),
    /// Until there is something.
    Endless,
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
    /// Takes elements from the first list that has some, or waits for one: answers the key and the element, with a count
    /// the key and an array.
    PopFirst { keys: Keys<'a>, end: End, count: Option<usize>, patience: Patience },
    /// Moves an element from one end to another, atomically, or waits for one.
    Move { from: Key<'a>, to: Key<'a>, take: End, put: End, patience: Patience },
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
    let patience = Patience::None;
    wrap(ListCommand::Move {
        from: args.key()?,
        to: args.key()?,
        take: end(args)?,
        put: end(args)?,
        patience,
    })
}

pub(super) fn rpoplpush<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let (take, put, patience) = (End::Tail, End::Head, Patience::None);
    wrap(ListCommand::Move { from: args.key()?, to: args.key()?, take, put, patience })
}

pub(super) fn blmove<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let (from, to, take, put) = (args.key()?, args.key()?, end(args)?, end(args)?);
    wrap(ListCommand::Move { from, to, take, put, patience: patience(args.next_arg()?)? })
}

pub(super) fn brpoplpush<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let (from, to, take, put) = (args.key()?, args.key()?, End::Tail, End::Head);
    wrap(ListCommand::Move { from, to, take, put, patience: patience(args.next_arg()?)? })
}

/// `seconds`, in which 0 stands for ever.
pub(super) fn patience(seconds: Arg<'_>) -> Result<Patience> {
    let refused = |text| Err(Error::invalid(text));
    let Ok(seconds) = seconds.float() else { return refused("timeout is not a float or out of range") };
    let ms = (seconds * 1000.0).ceil();
    if ms < 0.0 {
        return refused("timeout is negative");
    }
    // The end of the wait has to be a time.
    if ms >= (i64::MAX / 2) as f64 {
        return refused("timeout is out of range");
    }
    Ok(if ms == 0.0 { Patience::Endless } else { Patience::Ms(ms as u64) })
}

/// `key… seconds`.
pub(super) fn keys_and_patience<'a>(args: &mut Args<'a>) -> Result<(Keys<'a>, Patience)> {
    let keys = args.take(args.len().saturating_sub(1))?;
    let patience = patience(args.next_arg()?)?;
    Ok((Keys::new(keys, 1)?, patience))
}

/// `numkeys key…`.
pub(super) fn numbered_keys<'a>(args: &mut Args<'a>) -> Result<Keys<'a>> {
    let count = args.next_arg()?.count().ok().filter(|count| *count > 0);
    let count = count.ok_or_else(|| Error::invalid("numkeys should be greater than 0"))?;
    Keys::new(args.take(count)?, 1)
}

/// `[COUNT count]`, at the end; 1 without.
pub(super) fn count_to_take(args: &mut Args<'_>) -> Result<usize> {
    if !args.word("COUNT") {
        return Ok(1);
    }
    let count = args.next_arg()?.count().ok().filter(|count| *count > 0);
    count.ok_or_else(|| Error::invalid("count should be greater than 0"))
}

fn pop_first<'a>(args: &mut Args<'a>, end: End) -> Parsed<'a> {
    let (keys, patience) = keys_and_patience(args)?;
    wrap(ListCommand::PopFirst { keys, end, count: None, patience })
}

pub(super) fn blpop<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    pop_first(args, End::Head)
}

pub(super) fn brpop<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    pop_first(args, End::Tail)
}

pub(super) fn lmpop<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let (keys, end, count) = (numbered_keys(args)?, end(args)?, count_to_take(args)?);
    wrap(ListCommand::PopFirst { keys, end, count: Some(count), patience: Patience::None })
}

pub(super) fn blmpop<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let seconds = args.next_arg()?;
    let (keys, end, count) = (numbered_keys(args)?, end(args)?, count_to_take(args)?);
    // Redis looks at the time last, but for what should not be there.
    args.finish()?;
    wrap(ListCommand::PopFirst { keys, end, count: Some(count), patience: patience(seconds)? })
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
