//! Executors of the sorted set commands.

use std::ops::Range;
use std::sync::Arc;

use data_bridge_kv_model::command::{AddOptions, Expiry, Keys, LexBound, RangeBy, ScoreBound, ZSetCommand};
use data_bridge_kv_model::{Arg, Error, Glob, Key, Kind, ReplyBuf, Result, Shape, ValueRef};

use super::scalar::{deadline, range as rank_range};
use super::set::{matches, picks, put_cursor};
use super::{check_collection_bytes, check_growth, first_filled, member, named_by_bytes, plain_member};
use crate::clock::Clock;
use crate::collections::{Collection, Packed, Score, SortedSet};
use crate::hash::KeyHash;
use crate::mutation::Mutation;
use crate::shard::{Shard, Space, Txn};
use crate::table::NewValue;
use crate::wal::Lsn;

mod combination;

/// Gives one member of a sorted set that is there a score. Answers `None`, having done nothing, where it takes more.
#[inline]
pub fn run_short(
    shard: &mut Shard,
    space: &Space,
    clock: &dyn Clock,
    (command, hash): (&ZSetCommand<'_>, KeyHash),
    out: &mut ReplyBuf,
) -> Option<Result<Lsn>> {
    let ZSetCommand::Add { key, options, pairs: &[given, named] } = *command else { return None };
    let (member, is_it) = plain_member(named).filter(|_| options == AddOptions::default())?;
    let choose = |collection: &Collection| {
        let Collection::SortedSet(set) = collection else { return None };
        check_growth(set.encoded_len(), &[given, named]).ok()?;
        let score = score(given, set.score_kind()).ok()?;
        (is_it || set.get(member).is_some()).then_some(Mutation::ScoreSet(member, score))
    };
    let (before, after) = shard.change_collection(space, hash, key.as_bytes(), || clock.unix_ms(), choose)?;
    out.count(after - before);
    Some(Ok(0))
}

/// Executes a sorted set command.
pub fn run(txn: &mut Txn<'_>, command: &ZSetCommand<'_>, out: &mut ReplyBuf) -> Result<()> {
    match command {
        ZSetCommand::Add { key, options, pairs } => add(txn, *key, *options, pairs, out),
        ZSetCommand::Remove { key, members } => remove(txn, *key, members, out),
        ZSetCommand::Score { key, member } => {
            let found = find(read(txn, *key)?, *member)?;
            put_score_or_missing(found.map(|(_, score)| score), out);
            Ok(())
        }
        ZSetCommand::Scores { key, members } => {
            let set = read(txn, *key)?;
            let scores: Vec<_> = members.iter().map(|member| find(set, *member)).collect::<Result<_>>()?;
            out.container(Shape::Array, scores.len());
            scores.into_iter().for_each(|found| put_score_or_missing(found.map(|(_, score)| score), out));
            Ok(())
        }
        ZSetCommand::Length { key } => {
            out.count(read(txn, *key)?.map_or(0, SortedSet::len));
            Ok(())
        }
        ZSetCommand::Count { key, by } => {
            let range = ranks_if_any(read(txn, *key)?, *by)?;
            out.count(range.len());
            Ok(())
        }
        ZSetCommand::Rank { key, member, reverse, with_score } => {
            rank(txn, *key, *member, *reverse, *with_score, out)
        }
        ZSetCommand::Range { key, by, reverse, with_scores } => {
            range(txn, *key, *by, *reverse, *with_scores, out)
        }
        ZSetCommand::Combine { store, combination, with_scores } => {
            combination::combine(txn, *store, combination, *with_scores, out)
        }
        ZSetCommand::CountCommon { keys, limit } => combination::count_common(txn, *keys, *limit, out),
        ZSetCommand::StoreRange { to, from, by, reverse } => store_range(txn, *to, *from, *by, *reverse, out),
        ZSetCommand::RemoveRange { key, by } => {
            let range = ranks_if_any(read(txn, *key)?, *by)?;
            out.count(remove_ranks(txn, *key, range)?.len());
            Ok(())
        }
        ZSetCommand::Pop { key, highest, count } => pop(txn, *key, *highest, *count, out),
        ZSetCommand::PopFirst { keys, highest, count, .. } => pop_first(txn, *keys, *highest, *count, out),
        ZSetCommand::Random { key, count, with_scores } => random(txn, *key, *count, *with_scores, out),
        ZSetCommand::Scan { key, cursor, options } => {
            let set = read(txn, *key)?;
            let glob = options.pattern.map(Glob::new).transpose()?;
            let mut found = Vec::new();
            let next = set.map_or(0, |set| {
                set.scan(*cursor, options.count, |member, score| {
                    if matches(member, glob.as_ref(), options) {
                        found.push((member.clone(), score));
                    }
                })
            });
            put_cursor(next, out);
            out.container(Shape::Map, found.len());
            for (member, score) in &found {
                out.value(member.value());
                put_score(*score, out);
            }
            Ok(())
        }
    }
}

fn read<'t>(txn: &'t mut Txn<'_>, key: Key<'_>) -> Result<Option<&'t SortedSet>> {
    let place = txn.place(key);
    match txn.collection(place, Kind::SortedSet)? {
        Some(Collection::SortedSet(set)) => Ok(Some(set)),
        Some(_) => Err(Error::wrong_type()),
        None => Ok(None),
    }
}

/// The stored member that an argument names, and its score.
fn find<'t>(set: Option<&'t SortedSet>, named: Arg<'_>) -> Result<Option<(&'t Packed, Score)>> {
    let mut scratch = Vec::new();
    let member = member(named, &mut scratch)?;
    let Some(set) = set else { return Ok(None) };
    if let Some(found) = set.get(member) {
        return Ok(Some(found));
    }
    Ok(shown_as(set, named).and_then(|found| set.get(found.value())))
}

/// The typed member that is shown as an untyped argument, where no member has its bytes.
fn shown_as(set: &SortedSet, named: Arg<'_>) -> Option<Packed> {
    named_by_bytes(named, |value| set.get(value).map(|(member, _)| member.clone()))
}

fn put_score(score: Score, out: &mut ReplyBuf) {
    match score {
        Score::Float(number) => out.float(number),
        Score::Decimal(number) => out.value(ValueRef::from_parts(Kind::Decimal, &number.to_payload())),
    }
}

fn put_score_or_missing(score: Option<Score>, out: &mut ReplyBuf) {
    match score {
        Some(score) => put_score(score, out),
        None => out.missing(),
    }
}

/// A score that an argument brings, in the kind of the set's scores.
fn score(arg: Arg<'_>, kind: Kind) -> Result<Score> {
    if kind == Kind::Decimal {
        return data_bridge_kv_model::arg::decimal(arg).map(Score::Decimal);
    }
    if let Arg::Value(value) = arg
        && value.kind() == Kind::Decimal
    {
        return Err(Error::new(
            data_bridge_kv_model::ErrorKind::WrongType,
            "this sorted set has float scores: a decimal score would be rounded",
        ));
    }
    arg.float().map(Score::Float)
}

/// The kind of the scores that a new set gets: Decimal if the first score is one.
fn score_kind(first: Arg<'_>) -> Kind {
    match first {
        Arg::Value(value) if value.kind() == Kind::Decimal => Kind::Decimal,
        Arg::Literal(Kind::Decimal, _) => Kind::Decimal,
        Arg::Value(_) | Arg::Literal(..) | Arg::Untyped(_) => Kind::Float,
    }
}

fn sum(current: Score, by: Score) -> Result<Score> {
    match (current, by) {
        (Score::Float(current), Score::Float(by)) => {
            let sum = current + by;
            if sum.is_nan() {
                return Err(Error::invalid("resulting score is not a number (NaN)"));
            }
            Ok(Score::Float(sum))
        }
        (Score::Decimal(current), Score::Decimal(by)) => current
            .checked_add(by)
            .map(Score::Decimal)
            .map_err(|error| Error::out_of_range(error.to_string())),
        _ => Err(Error::not_a_float()),
    }
}

fn is_less(one: Score, other: Score) -> bool {
    match (one, other) {
        (Score::Float(one), Score::Float(other)) => one < other,
        (Score::Decimal(one), Score::Decimal(other)) => one.numeric_cmp(other).is_lt(),
        _ => false,
    }
}

fn add(
    txn: &mut Txn<'_>,
    key: Key<'_>,
    options: AddOptions,
    pairs: &[Arg<'_>],
    out: &mut ReplyBuf,
) -> Result<()> {
    let first = pairs.first().copied().ok_or_else(Error::syntax)?;
    if pairs.len() > 2 {
        // Whatever is refused is refused before the first write.
        let set = read(txn, key)?;
        check_growth(set.map_or(0, SortedSet::encoded_len), pairs)?;
        let kind = set.map_or_else(|| score_kind(first), SortedSet::score_kind);
        let mut scratch = Vec::new();
        for pair in pairs.chunks_exact(2) {
            score(pair[0], kind)?;
            member(pair[1], &mut scratch)?;
        }
    }
    let (mut added, mut changed, mut answer) = (0, 0, None);
    for pair in pairs.chunks_exact(2) {
        if let Some(done) = add_one(txn, key, options, (first, pair[0]), pair[1])? {
            added += usize::from(done.is_new);
            changed += usize::from(done.is_changed);
            answer = Some(done.score);
        }
    }
    if options.increment {
        put_score_or_missing(answer, out);
    } else {
        out.count(if options.changed { changed } else { added });
    }
    Ok(())
}

/// What became of a member that was added and not passed over.
struct Done {
    score: Score,
    is_new: bool,
    is_changed: bool,
}

/// Gives one member its score, unless the options pass it over; `first` is the score that a new set's kind goes by.
fn add_one(
    txn: &mut Txn<'_>,
    key: Key<'_>,
    options: AddOptions,
    (first, given): (Arg<'_>, Arg<'_>),
    named: Arg<'_>,
) -> Result<Option<Done>> {
    let place = txn.place(key);
    let mut scratch = Vec::new();
    let set = read(txn, key)?;
    let exists = set.is_some();
    check_growth(set.map_or(0, SortedSet::encoded_len), &[given, named])?;
    let kind = set.map_or_else(|| score_kind(first), SortedSet::score_kind);
    let given = score(given, kind)?;
    let member = member(named, &mut scratch)?;
    let mut current = set.and_then(|set| set.get(member)).map(|(_, score)| score);
    let shown = set.filter(|_| current.is_none()).and_then(|set| shown_as(set, named));
    if let Some(shown) = &shown {
        current = set.and_then(|set| set.score(shown.value()));
    }
    if options.only_new && current.is_some() || options.only_existing && current.is_none() {
        return Ok(None);
    }
    let next = match current {
        Some(current) if options.increment => sum(current, given)?,
        Some(_) | None => given,
    };
    if let Some(current) = current
        && (options.greater && !is_less(current, next) || options.lower && !is_less(next, current))
    {
        return Ok(None);
    }
    if !exists {
        let deadline = deadline(txn, Expiry::Default, None);
        let set = SortedSet::new(kind).ok_or_else(Error::not_a_float)?;
        txn.put(place, NewValue::Collection(Arc::new(Collection::SortedSet(set))), deadline)?;
    }
    let member = shown.as_ref().map_or(member, Packed::value);
    let is_changed = txn.change(place, Mutation::ScoreSet(member, next)).is_some();
    Ok(Some(Done { score: next, is_new: current.is_none(), is_changed }))
}

fn remove(txn: &mut Txn<'_>, key: Key<'_>, members: &[Arg<'_>], out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(key);
    for named in members {
        find(read(txn, key)?, *named)?;
    }
    let mut removed = 0;
    for named in members {
        if let Some(found) = find(read(txn, key)?, *named)?.map(|(member, _)| member.clone()) {
            removed += usize::from(txn.change(place, Mutation::ScoreRemove(found.value())).is_some());
        }
    }
    out.count(removed);
    Ok(())
}

fn rank(
    txn: &mut Txn<'_>,
    key: Key<'_>,
    named: Arg<'_>,
    reverse: bool,
    with_score: bool,
    out: &mut ReplyBuf,
) -> Result<()> {
    let set = read(txn, key)?;
    let found = find(set, named)?;
    let place = set.zip(found).and_then(|(set, (member, score))| {
        let rank = set.rank(member.value())?;
        Some((if reverse { set.len() - 1 - rank } else { rank }, score))
    });
    let Some((rank, score)) = place else {
        out.missing();
        return Ok(());
    };
    if with_score {
        out.container(Shape::Array, 2);
    }
    out.count(rank);
    if with_score {
        put_score(score, out);
    }
    Ok(())
}

/// Ranks of the members between two bounds.
fn score_range(set: &SortedSet, low: ScoreBound<'_>, high: ScoreBound<'_>) -> Result<Range<usize>> {
    let before = |bound: ScoreBound<'_>, including_equal: bool| -> Result<usize> {
        let (arg, including) = match bound {
            // Infinite scores are inside a range that begins or ends with themselves; no Decimal is infinite.
            ScoreBound::Lowest => {
                return Ok(set.rank_of_score(Score::Float(f64::NEG_INFINITY), including_equal).unwrap_or(0));
            }
            ScoreBound::Highest => {
                let rank = set.rank_of_score(Score::Float(f64::INFINITY), including_equal);
                return Ok(rank.unwrap_or_else(|| set.len()));
            }
            ScoreBound::Included(arg) => (arg, including_equal),
            ScoreBound::Excluded(arg) => (arg, !including_equal),
        };
        set.rank_of_score(score(arg, set.score_kind())?, including).ok_or_else(Error::not_a_float)
    };
    let (start, end) = (before(low, false)?, before(high, true)?);
    Ok(start..end.max(start))
}

/// Ranks of the members between two bounds, if all scores are the same.
fn lex_range(set: &SortedSet, low: LexBound<'_>, high: LexBound<'_>) -> Range<usize> {
    let before = |bound: LexBound<'_>, including_equal: bool| match bound {
        LexBound::Lowest => 0,
        LexBound::Highest => set.len(),
        LexBound::Included(bytes) => set.rank_of_content(bytes, including_equal),
        LexBound::Excluded(bytes) => set.rank_of_content(bytes, !including_equal),
    };
    let (start, end) = (before(low, false), before(high, true));
    start..end.max(start)
}

/// The part of a range that LIMIT leaves.
fn cut(range: Range<usize>, offset: usize, count: i64, reverse: bool) -> Range<usize> {
    let left = range.len().saturating_sub(offset);
    let taken = usize::try_from(count).map_or(left, |count| count.min(left));
    if taken == 0 {
        return 0..0;
    }
    let start = if reverse { range.end - offset - taken } else { range.start + offset };
    start..start + taken
}

/// The ranks of a range; none where there is no sorted set.
fn ranks_if_any(set: Option<&SortedSet>, by: RangeBy<'_>) -> Result<Range<usize>> {
    set.map_or(Ok(0..0), |set| ranks(set, by, false))
}

/// Ranks from the lowest score that a range stands for.
fn ranks(set: &SortedSet, by: RangeBy<'_>, reverse: bool) -> Result<Range<usize>> {
    match by {
        RangeBy::Rank { start, end } => {
            let range = rank_range(start, end, set.len());
            if reverse { Ok(set.len() - range.end..set.len() - range.start) } else { Ok(range) }
        }
        RangeBy::Score { low, high, offset, count } => {
            Ok(cut(score_range(set, low, high)?, offset, count, reverse))
        }
        RangeBy::Lex { low, high, offset, count } => {
            Ok(cut(lex_range(set, low, high), offset, count, reverse))
        }
    }
}

fn range(
    txn: &mut Txn<'_>,
    key: Key<'_>,
    by: RangeBy<'_>,
    reverse: bool,
    with_scores: bool,
    out: &mut ReplyBuf,
) -> Result<()> {
    let Some(set) = read(txn, key)? else {
        put_range(0, std::iter::empty(), with_scores, out);
        return Ok(());
    };
    let ranks = ranks(set, by, reverse)?;
    let (length, members) = (ranks.len(), set.range(ranks.start, ranks.end));
    if reverse {
        put_range(length, members.rev(), with_scores, out);
    } else {
        put_range(length, members, with_scores, out);
    }
    Ok(())
}

/// Answers so many members, with their scores or without.
fn put_range<'s>(
    length: usize,
    members: impl Iterator<Item = (&'s Packed, Score)>,
    with_scores: bool,
    out: &mut ReplyBuf,
) {
    out.container(if with_scores { Shape::Scored } else { Shape::Array }, length);
    members.for_each(|(member, score)| {
        out.value(member.value());
        if with_scores {
            put_score(score, out);
        }
    });
}

fn store_range(
    txn: &mut Txn<'_>,
    to: Key<'_>,
    from: Key<'_>,
    by: RangeBy<'_>,
    reverse: bool,
    out: &mut ReplyBuf,
) -> Result<()> {
    let Some(set) = read(txn, from)? else { return store(txn, to, None, out) };
    let ranks = ranks(set, by, reverse)?;
    let mut result = SortedSet::new(set.score_kind()).ok_or_else(Error::not_a_float)?;
    for (member, score) in set.range(ranks.start, ranks.end) {
        result.insert(score, member.value());
    }
    store(txn, to, Some(result), out)
}

/// Stores a result over whatever is there, which an empty one deletes; answers how many members it has.
fn store(txn: &mut Txn<'_>, to: Key<'_>, result: Option<SortedSet>, out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(to);
    let Some(result) = result.filter(|result| !result.is_empty()) else {
        txn.delete(place);
        out.count(0);
        return Ok(());
    };
    check_collection_bytes(result.encoded_len())?;
    let length = result.len();
    let deadline = deadline(txn, Expiry::Default, None);
    txn.put(place, NewValue::Collection(Arc::new(Collection::SortedSet(result))), deadline)?;
    out.count(length);
    Ok(())
}

/// Takes the members at these ranks out, lowest first.
fn remove_ranks(txn: &mut Txn<'_>, key: Key<'_>, ranks: Range<usize>) -> Result<Vec<(Packed, Score)>> {
    let place = txn.place(key);
    let Some(set) = read(txn, key)? else { return Ok(Vec::new()) };
    let members: Vec<(Packed, Score)> =
        set.range(ranks.start, ranks.end).map(|(member, score)| (member.clone(), score)).collect();
    let bytes = members.iter().map(|(member, _)| member.as_bytes().len()).sum();
    txn.check_effects(key, members.len(), bytes)?;
    for (member, _) in &members {
        txn.change(place, Mutation::ScoreRemove(member.value()));
    }
    Ok(members)
}

fn pop(
    txn: &mut Txn<'_>,
    key: Key<'_>,
    highest: bool,
    count: Option<usize>,
    out: &mut ReplyBuf,
) -> Result<()> {
    let members = take(txn, key, highest, count.unwrap_or(1))?;
    match count {
        Some(_) => out.container(Shape::Scored, members.len()),
        // Without a count both protocols answer one flat pair.
        None => out.container(Shape::Array, members.len() * 2),
    }
    for (member, score) in &members {
        out.value(member.value());
        put_score(*score, out);
    }
    Ok(())
}

/// Takes so many members out at most, the lowest or the highest first.
fn take(txn: &mut Txn<'_>, key: Key<'_>, highest: bool, most: usize) -> Result<Vec<(Packed, Score)>> {
    let length = read(txn, key)?.map_or(0, SortedSet::len);
    let taken = most.min(length);
    let ranks = if highest { length - taken..length } else { 0..taken };
    let mut members = remove_ranks(txn, key, ranks)?;
    if highest {
        members.reverse();
    }
    Ok(members)
}

fn pop_first(
    txn: &mut Txn<'_>,
    keys: Keys<'_>,
    highest: bool,
    count: Option<usize>,
    out: &mut ReplyBuf,
) -> Result<()> {
    let Some(key) = first_filled(txn, keys, Kind::SortedSet)? else {
        out.missing();
        return Ok(());
    };
    let members = take(txn, key, highest, count.unwrap_or(1))?;
    out.container(Shape::Array, if count.is_some() { 2 } else { 3 });
    out.value(ValueRef::text(key.as_str()));
    if count.is_some() {
        out.container(Shape::Array, members.len());
    }
    for (member, score) in &members {
        // Both protocols answer pairs, each in an array of its own.
        if count.is_some() {
            out.container(Shape::Array, 2);
        }
        out.value(member.value());
        put_score(*score, out);
    }
    Ok(())
}

fn random(
    txn: &mut Txn<'_>,
    key: Key<'_>,
    count: Option<i64>,
    with_scores: bool,
    out: &mut ReplyBuf,
) -> Result<()> {
    let mut random = txn.random();
    let Some(set) = read(txn, key)? else {
        match count {
            Some(_) => out.container(Shape::Array, 0),
            None => out.missing(),
        }
        return Ok(());
    };
    let Some(count) = count else {
        match set.random(|end| random.below(end)) {
            Some((member, _)) => out.value(member.value()),
            None => out.missing(),
        }
        return Ok(());
    };
    let members: Vec<(&Packed, Score)> = set.iter().collect();
    let picks = picks(&mut random, members.len(), count);
    out.container(if with_scores { Shape::Scored } else { Shape::Array }, picks.len());
    for (member, score) in picks.into_iter().filter_map(|index| members.get(index)) {
        out.value(member.value());
        if with_scores {
            put_score(*score, out);
        }
    }
    Ok(())
}
