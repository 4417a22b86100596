//! Commands on sorted sets.

use super::key::{ScanOptions, member_options, scan_cursor};
use super::list::{Patience, count_to_take, keys_and_patience, numbered_keys, patience};
use super::set::{common_limit, random_count};
use super::{Command, Keys, SetOperation};
use crate::arg::{Arg, Args};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::kind::Kind;

/// Options of ZADD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddOptions {
    /// Only new members (NX).
    pub only_new: bool,
    /// Only existing members (XX).
    pub only_existing: bool,
    /// Existing members only to a greater score (GT).
    pub greater: bool,
    /// Existing members only to a lower score (LT).
    pub lower: bool,
    /// Answer the number of changed members, not of new ones (CH).
    pub changed: bool,
    /// Add to the score and answer it (INCR).
    pub increment: bool,
}

/// One end of a score range.
#[derive(Clone, Copy, Debug)]
pub enum ScoreBound<'a> {
    /// Minus infinity.
    Lowest,
    /// Plus infinity.
    Highest,
    /// This score, included.
    Included(Arg<'a>),
    /// This score, excluded (`(1.5`).
    Excluded(Arg<'a>),
}

/// One end of a range by members.
#[derive(Clone, Copy, Debug)]
pub enum LexBound<'a> {
    /// Before all members.
    Lowest,
    /// Behind all members.
    Highest,
    /// The member with these bytes, included.
    Included(&'a [u8]),
    /// The member with these bytes, excluded.
    Excluded(&'a [u8]),
}

/// What a range goes by.
#[expect(missing_docs, reason = "fields are named as the command's arguments")]
#[derive(Clone, Copy, Debug)]
pub enum RangeBy<'a> {
    /// Positions from start to end, both included, negative from the end.
    Rank { start: i64, end: i64 },
    /// Scores; `offset` and `count` cut the result (count below 0 = all).
    Score { low: ScoreBound<'a>, high: ScoreBound<'a>, offset: usize, count: i64 },
    /// Members, in a set whose scores are all the same; cut likewise.
    Lex { low: LexBound<'a>, high: LexBound<'a>, offset: usize, count: i64 },
}

/// What becomes of the scores that a member has in several sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregate {
    /// Their sum.
    #[default]
    Sum,
    /// The lowest.
    Lowest,
    /// The highest.
    Highest,
}

/// How several sets and sorted sets are made one.
#[derive(Clone, Copy, Debug)]
pub struct Combination<'a> {
    /// Which members it has.
    pub operation: SetOperation,
    /// The sets.
    pub keys: Keys<'a>,
    /// What the scores of each are multiplied by; none if there is nothing to multiply by.
    pub weights: &'a [Arg<'a>],
    /// Which scores its members have.
    pub aggregate: Aggregate,
}

/// A command on a sorted set.
#[expect(missing_docs, reason = "fields are named as the command's arguments")]
#[derive(Clone, Copy, Debug)]
pub enum ZSetCommand<'a> {
    /// Adds (score, member) pairs; a set created with Decimal scores keeps exact ones.
    Add { key: Key<'a>, options: AddOptions, pairs: &'a [Arg<'a>] },
    /// Removes members; answers how many there were.
    Remove { key: Key<'a>, members: &'a [Arg<'a>] },
    /// The score of a member.
    Score { key: Key<'a>, member: Arg<'a> },
    /// The scores of several members.
    Scores { key: Key<'a>, members: &'a [Arg<'a>] },
    /// Number of members.
    Length { key: Key<'a> },
    /// Number of members in a range.
    Count { key: Key<'a>, by: RangeBy<'a> },
    /// Position of a member.
    Rank { key: Key<'a>, member: Arg<'a>, reverse: bool, with_score: bool },
    /// Members of a range.
    Range { key: Key<'a>, by: RangeBy<'a>, reverse: bool, with_scores: bool },
    /// Stores the members of a range under another key; answers how many.
    StoreRange { to: Key<'a>, from: Key<'a>, by: RangeBy<'a>, reverse: bool },
    /// Removes the members of a range; answers how many.
    RemoveRange { key: Key<'a>, by: RangeBy<'a> },
    /// Combines sets and sorted sets; with `store` writes the result there and answers its length.
    Combine { store: Option<Key<'a>>, combination: Combination<'a>, with_scores: bool },
    /// How many members all sets and sorted sets have, at most `limit` if that is not 0.
    CountCommon { keys: Keys<'a>, limit: usize },
    /// Takes the members with the lowest or highest scores.
    Pop { key: Key<'a>, highest: bool, count: Option<usize> },
    /// Takes members from the first sorted set that has some, or waits for one: answers the key, a member and its score,
    /// with a count the key and an array of such pairs.
    PopFirst { keys: Keys<'a>, highest: bool, count: Option<usize>, patience: Patience },
    /// Random members; a negative count allows repeats.
    Random { key: Key<'a>, count: Option<i64>, with_scores: bool },
    /// One step of a walk over members and scores.
    Scan { key: Key<'a>, cursor: u64, options: ScanOptions<'a> },
}

type Parsed<'a> = Result<Command<'a>>;

fn wrap(command: ZSetCommand<'_>) -> Result<Command<'_>> {
    Ok(Command::ZSet(command))
}

pub(super) fn zadd<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let key = args.key()?;
    let mut options = AddOptions::default();
    loop {
        let flag = if args.word("NX") {
            &mut options.only_new
        } else if args.word("XX") {
            &mut options.only_existing
        } else if args.word("GT") {
            &mut options.greater
        } else if args.word("LT") {
            &mut options.lower
        } else if args.word("CH") {
            &mut options.changed
        } else if args.word("INCR") {
            &mut options.increment
        } else {
            break;
        };
        *flag = true;
    }
    let pairs = args.pairs()?;
    if pairs.is_empty() {
        return Err(Error::syntax());
    }
    if options.only_new && options.only_existing {
        return Err(Error::invalid("XX and NX options at the same time are not compatible"));
    }
    if u8::from(options.greater) + u8::from(options.lower) + u8::from(options.only_new) > 1 {
        return Err(Error::invalid("GT, LT, and/or NX options at the same time are not compatible"));
    }
    if options.increment && pairs.len() != 2 {
        return Err(Error::invalid("INCR option supports a single increment-element pair"));
    }
    wrap(ZSetCommand::Add { key, options, pairs })
}

pub(super) fn zincrby<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let options = AddOptions { increment: true, ..AddOptions::default() };
    wrap(ZSetCommand::Add { key: args.key()?, options, pairs: args.take(2)? })
}

pub(super) fn zrem<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ZSetCommand::Remove { key: args.key()?, members: args.all() })
}

pub(super) fn zscore<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ZSetCommand::Score { key: args.key()?, member: args.next_arg()? })
}

pub(super) fn zmscore<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ZSetCommand::Scores { key: args.key()?, members: args.all() })
}

pub(super) fn zcard<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ZSetCommand::Length { key: args.key()? })
}

pub(super) fn zcount<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ZSetCommand::Count { key: args.key()?, by: scores(args)? })
}

pub(super) fn zlexcount<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ZSetCommand::Count { key: args.key()?, by: lex(args)? })
}

fn rank<'a>(args: &mut Args<'a>, reverse: bool) -> Parsed<'a> {
    let (key, member) = (args.key()?, args.next_arg()?);
    let with_score = args.word("WITHSCORE");
    wrap(ZSetCommand::Rank { key, member, reverse, with_score })
}

pub(super) fn zrank<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    rank(args, false)
}

pub(super) fn zrevrank<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    rank(args, true)
}

/// Reads `1.5`, `(1.5`, `-inf`, `+inf`, or a typed number.
fn bound(arg: Arg<'_>) -> Result<ScoreBound<'_>> {
    let not_a_float = || Error::invalid("min or max is not a float");
    let Arg::Untyped(text) = arg else {
        return match arg.content() {
            Some(text) => bound(Arg::Untyped(text)),
            None => Ok(ScoreBound::Included(arg)),
        };
    };
    match text {
        b"-inf" | b"-Inf" | b"-INF" => Ok(ScoreBound::Lowest),
        b"+inf" | b"inf" | b"+Inf" | b"+INF" => Ok(ScoreBound::Highest),
        [b'(', rest @ ..] => {
            let exclusive = Arg::Untyped(rest);
            exclusive.float().map_err(|_| not_a_float())?;
            Ok(ScoreBound::Excluded(exclusive))
        }
        _ => {
            arg.float().map_err(|_| not_a_float())?;
            Ok(ScoreBound::Included(arg))
        }
    }
}

/// What a range goes by, before its ends are read.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Rank,
    Score,
    Lex,
}

/// `key start stop [BYSCORE|BYLEX] [REV] [LIMIT offset count] [WITHSCORES]`. The name of a command may have `settled` what its
/// range goes by and whether it is reversed; one that stores answers no scores.
fn range<'a>(args: &mut Args<'a>, settled: Option<(Order, bool)>, store: Option<Key<'a>>) -> Parsed<'a> {
    let (key, first, second) = (args.key()?, args.next_arg()?, args.next_arg()?);
    let mut order = settled.map(|(order, _)| order);
    let mut reverse = settled.is_some_and(|(_, reverse)| reverse);
    let (mut offset, mut count, mut with_scores) = (0, -1, false);
    while !args.is_empty() {
        if store.is_none() && args.word("WITHSCORES") {
            with_scores = true;
        } else if args.word("LIMIT") {
            (offset, count) = (args.next_arg()?.int()?, args.next_arg()?.int()?);
        } else if settled.is_none() && args.word("REV") {
            reverse = true;
        } else if order.is_none() && args.word("BYSCORE") {
            order = Some(Order::Score);
        } else if order.is_none() && args.word("BYLEX") {
            order = Some(Order::Lex);
        } else {
            return Err(Error::syntax());
        }
    }
    let (low, high) = if reverse { (second, first) } else { (first, second) };
    let is_limited = count != -1;
    // A negative offset leaves nothing.
    let (offset, count) = usize::try_from(offset).map_or((0, 0), |offset| (offset, count));
    let by = match order.unwrap_or(Order::Rank) {
        Order::Rank if is_limited => {
            let message = "syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX";
            return Err(Error::invalid(message));
        }
        Order::Lex if with_scores => {
            let message = "syntax error, WITHSCORES not supported in combination with BYLEX";
            return Err(Error::invalid(message));
        }
        Order::Rank => RangeBy::Rank { start: first.int()?, end: second.int()? },
        Order::Score => RangeBy::Score { low: bound(low)?, high: bound(high)?, offset, count },
        Order::Lex => RangeBy::Lex { low: lex_bound(low)?, high: lex_bound(high)?, offset, count },
    };
    wrap(match store {
        Some(to) => ZSetCommand::StoreRange { to, from: key, by, reverse },
        None => ZSetCommand::Range { key, by, reverse, with_scores },
    })
}

pub(super) fn zrange<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    range(args, None, None)
}

pub(super) fn zrangestore<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let to = args.key()?;
    range(args, None, Some(to))
}

pub(super) fn zrevrange<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    range(args, Some((Order::Rank, true)), None)
}

pub(super) fn zrangebyscore<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    range(args, Some((Order::Score, false)), None)
}

pub(super) fn zrevrangebyscore<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    range(args, Some((Order::Score, true)), None)
}

pub(super) fn zrangebylex<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    range(args, Some((Order::Lex, false)), None)
}

pub(super) fn zrevrangebylex<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    range(args, Some((Order::Lex, true)), None)
}

/// Reads `low high` as scores.
fn scores<'a>(args: &mut Args<'a>) -> Result<RangeBy<'a>> {
    Ok(RangeBy::Score { low: bound(args.next_arg()?)?, high: bound(args.next_arg()?)?, offset: 0, count: -1 })
}

/// Reads `low high` as bytes of members.
fn lex<'a>(args: &mut Args<'a>) -> Result<RangeBy<'a>> {
    let (low, high) = (lex_bound(args.next_arg()?)?, lex_bound(args.next_arg()?)?);
    Ok(RangeBy::Lex { low, high, offset: 0, count: -1 })
}

/// Reads `[text`, `(text`, `-` or `+`.
fn lex_bound(arg: Arg<'_>) -> Result<LexBound<'_>> {
    match arg.content() {
        Some(b"-") => Ok(LexBound::Lowest),
        Some(b"+") => Ok(LexBound::Highest),
        Some([b'[', bytes @ ..]) => Ok(LexBound::Included(bytes)),
        Some([b'(', bytes @ ..]) => Ok(LexBound::Excluded(bytes)),
        _ => Err(Error::invalid("min or max not valid string range item")),
    }
}

pub(super) fn zremrangebyrank<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let key = args.key()?;
    let by = RangeBy::Rank { start: args.next_arg()?.int()?, end: args.next_arg()?.int()? };
    wrap(ZSetCommand::RemoveRange { key, by })
}

pub(super) fn zremrangebyscore<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ZSetCommand::RemoveRange { key: args.key()?, by: scores(args)? })
}

pub(super) fn zremrangebylex<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ZSetCommand::RemoveRange { key: args.key()?, by: lex(args)? })
}

/// `numkeys key…`.
fn counted_keys<'a>(args: &mut Args<'a>, command: &str) -> Result<Keys<'a>> {
    let count = args.next_arg()?.int()?;
    if count < 1 {
        return Err(Error::invalid(format!("at least 1 input key is needed for '{command}' command")));
    }
    Keys::new(args.take(usize::try_from(count).unwrap_or(usize::MAX))?, 1)
}

/// `numkeys key… [WEIGHTS weight…] [AGGREGATE SUM|MIN|MAX] [WITHSCORES]`; a difference has no weights and nothing to aggregate,
/// and what is stored is not shown.
fn combine<'a>(
    args: &mut Args<'a>,
    operation: SetOperation,
    store: Option<Key<'a>>,
    command: &str,
) -> Parsed<'a> {
    let keys = counted_keys(args, command)?;
    let mut combination = Combination { operation, keys, weights: &[], aggregate: Aggregate::Sum };
    let (weighs, mut with_scores) = (operation != SetOperation::Difference, false);
    while !args.is_empty() {
        if weighs && args.word("WEIGHTS") {
            combination.weights = args.take(keys.len())?;
            combination.weights.iter().try_for_each(|weight| check_weight(*weight))?;
        } else if weighs && args.word("AGGREGATE") {
            combination.aggregate = aggregate(args)?;
        } else if store.is_none() && args.word("WITHSCORES") {
            with_scores = true;
        } else {
            return Err(Error::syntax());
        }
    }
    wrap(ZSetCommand::Combine { store, combination, with_scores })
}

/// A weight is a number as a score is.
fn check_weight(weight: Arg<'_>) -> Result<()> {
    let is_decimal = matches!(weight, Arg::Value(value) if value.kind() == Kind::Decimal);
    if is_decimal || weight.float().is_ok() {
        return Ok(());
    }
    Err(Error::invalid("weight value is not a float"))
}

fn aggregate(args: &mut Args<'_>) -> Result<Aggregate> {
    if args.word("SUM") {
        Ok(Aggregate::Sum)
    } else if args.word("MIN") {
        Ok(Aggregate::Lowest)
    } else if args.word("MAX") {
        Ok(Aggregate::Highest)
    } else {
        Err(Error::syntax())
    }
}

pub(super) fn zunion<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    combine(args, SetOperation::Union, None, "zunion")
}

pub(super) fn zinter<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    combine(args, SetOperation::Intersection, None, "zinter")
}

pub(super) fn zdiff<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    combine(args, SetOperation::Difference, None, "zdiff")
}

pub(super) fn zunionstore<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let store = args.key()?;
    combine(args, SetOperation::Union, Some(store), "zunionstore")
}

pub(super) fn zinterstore<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let store = args.key()?;
    combine(args, SetOperation::Intersection, Some(store), "zinterstore")
}

pub(super) fn zdiffstore<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let store = args.key()?;
    combine(args, SetOperation::Difference, Some(store), "zdiffstore")
}

pub(super) fn zintercard<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(ZSetCommand::CountCommon { keys: counted_keys(args, "zintercard")?, limit: common_limit(args)? })
}

fn pop<'a>(args: &mut Args<'a>, highest: bool) -> Parsed<'a> {
    let key = args.key()?;
    let count = if args.is_empty() { None } else { Some(args.next_arg()?.count()?) };
    wrap(ZSetCommand::Pop { key, highest, count })
}

pub(super) fn zpopmin<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    pop(args, false)
}

pub(super) fn zpopmax<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    pop(args, true)
}

fn pop_first<'a>(args: &mut Args<'a>, highest: bool) -> Parsed<'a> {
    let (keys, patience) = keys_and_patience(args)?;
    wrap(ZSetCommand::PopFirst { keys, highest, count: None, patience })
}

pub(super) fn bzpopmin<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    pop_first(args, false)
}

pub(super) fn bzpopmax<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    pop_first(args, true)
}

/// `numkeys key… MIN|MAX [COUNT count]`, and nothing behind it.
fn pop_several<'a>(args: &mut Args<'a>, seconds: Option<Arg<'a>>) -> Parsed<'a> {
    let keys = numbered_keys(args)?;
    let highest = args.word("MAX");
    if !highest && !args.word("MIN") {
        return Err(Error::syntax());
    }
    let count = Some(count_to_take(args)?);
    args.finish()?;
    let patience = seconds.map_or(Ok(Patience::None), patience)?;
    wrap(ZSetCommand::PopFirst { keys, highest, count, patience })
}

pub(super) fn zmpop<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    pop_several(args, None)
}

pub(super) fn bzmpop<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let seconds = args.next_arg()?;
    pop_several(args, Some(seconds))
}

pub(super) fn zrandmember<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let key = args.key()?;
    let count = random_count(args)?;
    let with_scores = count.is_some() && args.word("WITHSCORES");
    wrap(ZSetCommand::Random { key, count, with_scores })
}

pub(super) fn zscan<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let key = args.key()?;
    let cursor = scan_cursor(args.next_arg()?)?;
    wrap(ZSetCommand::Scan { key, cursor, options: member_options(args)? })
}
