//! Commands on sorted sets.

use super::key::{ScanOptions, member_options, scan_cursor};
use super::list::{Patience, count_to_take, keys_and_patience, numbered_keys, patience};
use super::set::random_count;
use super::{Command, Keys};
use crate::arg::{Arg, Args};
use crate::error::{Error, Result};
use crate::key::Key;

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

/// What a range goes by.
#[expect(missing_docs, reason = "fields are named as the command's arguments")]
#[derive(Clone, Copy, Debug)]
pub enum RangeBy<'a> {
    /// Positions from start to end, both included, negative from the end.
    Rank { start: i64, end: i64 },
    /// Scores; `offset` and `count` cut the result (count below 0 = all).
    Score { low: ScoreBound<'a>, high: ScoreBound<'a>, offset: usize, count: i64 },
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
    /// Number of members in a score range.
    Count { key: Key<'a>, low: ScoreBound<'a>, high: ScoreBound<'a> },
    /// Position of a member.
    Rank { key: Key<'a>, member: Arg<'a>, reverse: bool, with_score: bool },
    /// Members of a range.
    Range { key: Key<'a>, by: RangeBy<'a>, reverse: bool, with_scores: bool },
    /// Removes the members of a range; answers how many.
    RemoveRange { key: Key<'a>, by: RangeBy<'a> },
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
    wrap(ZSetCommand::Count {
        key: args.key()?,
        low: bound(args.next_arg()?)?,
        high: bound(args.next_arg()?)?,
    })
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

/// `key start stop [BYSCORE] [REV] [LIMIT offset count] [WITHSCORES]`.
pub(super) fn zrange<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let (key, first, second) = (args.key()?, args.next_arg()?, args.next_arg()?);
    let (mut by_score, mut reverse, mut limit, mut with_scores) = (false, false, None, false);
    while !args.is_empty() {
        if args.word("BYSCORE") {
            by_score = true;
        } else if args.word("REV") {
            reverse = true;
        } else if args.word("WITHSCORES") {
            with_scores = true;
        } else if args.word("LIMIT") {
            limit = Some((args.next_arg()?.int()?, args.next_arg()?.int()?));
        } else {
            return Err(Error::syntax());
        }
    }
    let by = if by_score {
        let (low, high) = if reverse { (second, first) } else { (first, second) };
        score_range(low, high, limit)?
    } else if limit.is_some() {
        let message = "syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX";
        return Err(Error::invalid(message));
    } else {
        RangeBy::Rank { start: first.int()?, end: second.int()? }
    };
    wrap(ZSetCommand::Range { key, by, reverse, with_scores })
}

fn score_range<'a>(low: Arg<'a>, high: Arg<'a>, limit: Option<(i64, i64)>) -> Result<RangeBy<'a>> {
    let (offset, count) = limit.unwrap_or((0, -1));
    let (offset, count) = match usize::try_from(offset) {
        Ok(offset) => (offset, count),
        Err(_) => (0, 0),
    };
    Ok(RangeBy::Score { low: bound(low)?, high: bound(high)?, offset, count })
}

pub(super) fn zrevrange<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let key = args.key()?;
    let by = RangeBy::Rank { start: args.next_arg()?.int()?, end: args.next_arg()?.int()? };
    wrap(ZSetCommand::Range { key, by, reverse: true, with_scores: args.word("WITHSCORES") })
}

fn range_by_score<'a>(args: &mut Args<'a>, reverse: bool) -> Parsed<'a> {
    let (key, first, second) = (args.key()?, args.next_arg()?, args.next_arg()?);
    let (mut with_scores, mut limit) = (false, None);
    while !args.is_empty() {
        if args.word("WITHSCORES") {
            with_scores = true;
        } else if args.word("LIMIT") {
            limit = Some((args.next_arg()?.int()?, args.next_arg()?.int()?));
        } else {
            return Err(Error::syntax());
        }
    }
    let (low, high) = if reverse { (second, first) } else { (first, second) };
    wrap(ZSetCommand::Range { key, by: score_range(low, high, limit)?, reverse, with_scores })
}

pub(super) fn zrangebyscore<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    range_by_score(args, false)
}

pub(super) fn zrevrangebyscore<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    range_by_score(args, true)
}

pub(super) fn zremrangebyrank<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let key = args.key()?;
    let by = RangeBy::Rank { start: args.next_arg()?.int()?, end: args.next_arg()?.int()? };
    wrap(ZSetCommand::RemoveRange { key, by })
}

pub(super) fn zremrangebyscore<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let key = args.key()?;
    let by = score_range(args.next_arg()?, args.next_arg()?, None)?;
    wrap(ZSetCommand::RemoveRange { key, by })
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
