//! The model of commands on sorted sets. What is random takes the first members.

use std::cmp::Ordering;

use data_bridge_kv_model::command::{
    AddOptions, Aggregate, Combination, Expiry, LexBound, RangeBy, ScoreBound, SetOperation, ZSetCommand,
};
use data_bridge_kv_model::value::SortedSet;
use data_bridge_kv_model::{Arg, Error, Key, Keys, Kind, Reply, Result, Shape, Value};

use super::matching::{content, member_of, position, same_member};
use super::set::{is_scanned, picks, scanned};
use super::{Answer, Space, count, maybe};

/// A score and its member.
type Scored = (Value, Value);

/// A set or sorted set that is combined: the kind of its scores, if it has any, and its members.
type Input = (Option<Kind>, Vec<Scored>);

/// The kind of the scores and the members of a sorted set.
pub fn pairs_of(set: &SortedSet) -> (Kind, Vec<(Value, Value)>) {
    match set {
        SortedSet::Float(members) => (
            Kind::Float,
            members.iter().map(|(score, member)| (Value::Float(*score), member.clone())).collect(),
        ),
        SortedSet::Decimal(members) => (
            Kind::Decimal,
            members.iter().map(|(score, member)| (Value::Decimal(*score), member.clone())).collect(),
        ),
    }
}

/// A sorted set of scores that are all of this kind.
pub fn sorted_set(kind: Kind, members: Vec<(Value, Value)>) -> Value {
    let members = members.into_iter();
    Value::SortedSet(if kind == Kind::Decimal {
        let decimal =
            |score| if let Value::Decimal(score) = score { score } else { panic!("a score of another kind") };
        SortedSet::Decimal(members.map(|(score, member)| (decimal(score), member)).collect())
    } else {
        let float =
            |score| if let Value::Float(score) = score { score } else { panic!("a score of another kind") };
        SortedSet::Float(members.map(|(score, member)| (float(score), member)).collect())
    })
}

/// The order of scores as numbers.
fn order_scores(one: &Value, other: &Value) -> Ordering {
    match (one, other) {
        (Value::Float(one), Value::Float(other)) => one.partial_cmp(other).expect("no score is NaN"),
        (Value::Decimal(one), Value::Decimal(other)) => one.numeric_cmp(*other),
        _ => panic!("scores of two kinds"),
    }
}

/// The order of a sorted set: score, then Text and Bytes by content, then other members by kind and payload.
pub(super) fn order(one: &Scored, other: &Scored) -> Ordering {
    order_scores(&one.0, &other.0).then_with(|| match (content(&one.1), content(&other.1)) {
        (Some(one), Some(other)) => one.cmp(other),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => one.1.encode().cmp(&other.1.encode()),
    })
}

/// A score in the kind of the set.
fn score(arg: Arg<'_>, kind: Kind) -> Result<Value> {
    if kind == Kind::Decimal {
        return data_bridge_kv_model::arg::decimal(arg).map(Value::Decimal);
    }
    match arg {
        Arg::Value(value) if value.kind() == Kind::Decimal => Err(Error::wrong_type()),
        other => other.float().map(Value::Float),
    }
}

fn kind_of(first: Arg<'_>) -> Kind {
    match first {
        Arg::Value(value) if value.kind() == Kind::Decimal => Kind::Decimal,
        Arg::Literal(Kind::Decimal, _) => Kind::Decimal,
        Arg::Value(_) | Arg::Literal(..) | Arg::Untyped(_) => Kind::Float,
    }
}

fn find(set: &[Scored], member: Arg<'_>) -> Result<Option<usize>> {
    position(set.iter().map(|(_, member)| member), member)
}

fn flat((score, member): &Scored) -> [Reply; 2] {
    [Reply::Value(member.clone()), Reply::Value(score.clone())]
}

impl Space {
    /// The members of a sorted set and the kind of its scores; `None` without a key.
    fn sorted_set(&self, key: &str) -> Result<Option<(Kind, Vec<Scored>)>> {
        match self.get(key).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::SortedSet(set)) => Ok(Some(pairs_of(set))),
            Some(_) => Err(Error::wrong_type()),
        }
    }

    fn scored(&self, key: &str) -> Result<Vec<Scored>> {
        Ok(self.sorted_set(key)?.map(|(_, members)| members).unwrap_or_default())
    }

    // long: one arm a command
    pub(super) fn zset(&mut self, command: &ZSetCommand<'_>) -> Answer {
        match command {
            ZSetCommand::Add { key, options, pairs } => self.add_scored(key.as_str(), *options, pairs),
            ZSetCommand::Remove { key, members } => {
                let mut set = self.scored(key.as_str())?;
                let before = set.len();
                for member in *members {
                    if let Some(at) = find(&set, *member)? {
                        set.remove(at);
                    }
                }
                let removed = before - set.len();
                self.keep_scored(key.as_str(), before, set);
                Ok(count(removed))
            }
            ZSetCommand::RemoveRange { key, by } => {
                let stored = self.sorted_set(key.as_str())?;
                let removed = range(&stored, *by, false)?;
                let set = stored.map(|(_, members)| members).unwrap_or_default();
                // By encoding: a NaN is a member too, though it equals nothing.
                let gone: Vec<Vec<u8>> = removed.iter().map(|(_, member)| member.encode()).collect();
                let stays = |(_, member): &&Scored| !gone.contains(&member.encode());
                let kept: Vec<Scored> = set.iter().filter(stays).cloned().collect();
                self.keep_scored(key.as_str(), set.len(), kept);
                Ok(count(removed.len()))
            }
            ZSetCommand::Combine { store, combination, with_scores } => {
                let inputs = self.inputs(combination.keys)?;
                let (kind, members) = combine(&inputs, combination)?;
                Ok(match store {
                    Some(store) => self.store_scored(store.as_str(), kind, members),
                    None => shown_range(&members, *with_scores),
                })
            }
            ZSetCommand::CountCommon { keys, limit } => {
                let inputs = self.inputs(*keys)?;
                let (first, others) = inputs.split_first().expect("there is a key");
                let is_common =
                    |(_, member): &&Scored| others.iter().all(|other| score_in(other, member).is_some());
                let common = first.1.iter().filter(is_common).count();
                Ok(count(if *limit == 0 { common } else { common.min(*limit) }))
            }
            ZSetCommand::StoreRange { to, from, by, reverse } => {
                let stored = self.sorted_set(from.as_str())?;
                let mut members = range(&stored, *by, *reverse)?;
                members.sort_by(order);
                let kind = stored.map_or(Kind::Float, |(kind, _)| kind);
                Ok(self.store_scored(to.as_str(), kind, members))
            }
            ZSetCommand::Pop { key, highest, count } => {
                let taken = self.pop_scored(key.as_str(), *highest, count.unwrap_or(1))?;
                // Without a count Redis answers one flat pair.
                let shape = if count.is_some() { Shape::Scored } else { Shape::Array };
                Ok(Reply::Container(shape, taken.iter().flat_map(flat).collect()))
            }
            ZSetCommand::PopFirst { keys, highest, count, .. } => {
                for key in keys.iter().map(|key| key.as_str()) {
                    let taken = self.pop_scored(key, *highest, count.unwrap_or(1))?;
                    if taken.is_empty() {
                        continue;
                    }
                    let mut parts = vec![Reply::Value(Value::Text(key.into()))];
                    let pair = |one| Reply::Container(Shape::Array, flat(one).into_iter().collect());
                    match count {
                        Some(_) => {
                            parts.push(Reply::Container(Shape::Array, taken.iter().map(pair).collect()));
                        }
                        None => parts.extend(taken.iter().flat_map(flat)),
                    }
                    return Ok(Reply::Container(Shape::Array, parts));
                }
                Ok(Reply::Missing)
            }
            ZSetCommand::Score { .. }
            | ZSetCommand::Scores { .. }
            | ZSetCommand::Length { .. }
            | ZSetCommand::Count { .. }
            | ZSetCommand::Rank { .. }
            | ZSetCommand::Range { .. }
            | ZSetCommand::Random { .. }
            | ZSetCommand::Scan { .. } => self.read_zset(command),
        }
    }

    /// Takes so many members out at most, the lowest or the highest first.
    fn pop_scored(&mut self, key: &str, highest: bool, most: usize) -> Result<Vec<Scored>> {
        let mut kept = self.scored(key)?;
        let before = kept.len();
        let mut taken = Vec::new();
        while taken.len() < most && !kept.is_empty() {
            taken.push(if highest { kept.remove(kept.len() - 1) } else { kept.remove(0) });
        }
        self.keep_scored(key, before, kept);
        Ok(taken)
    }

    fn keep_scored(&mut self, key: &str, before: usize, set: Vec<Scored>) {
        if set.len() != before {
            let kind = set.first().map_or(Kind::Float, |(score, _)| score.kind());
            self.edit(key, sorted_set(kind, set));
        }
    }

    /// What is combined: the members of each key and the kind of their scores, none for those of a set.
    fn inputs(&self, keys: Keys<'_>) -> Result<Vec<Input>> {
        let input = |key: Key<'_>| match self.get(key.as_str()).map(|entry| &entry.value) {
            None => Ok((None, Vec::new())),
            Some(Value::Set(members)) => {
                Ok((None, members.iter().map(|member| (Value::Float(1.0), member.clone())).collect()))
            }
            Some(Value::SortedSet(set)) => {
                let (kind, members) = pairs_of(set);
                Ok(((!members.is_empty()).then_some(kind), members))
            }
            Some(_) => Err(Error::wrong_type()),
        };
        keys.iter().map(input).collect()
    }

    /// Stores a result over whatever is there.
    fn store_scored(&mut self, key: &str, kind: Kind, members: Vec<Scored>) -> Reply {
        let length = members.len();
        if length == 0 {
            self.entries.remove(key);
        } else {
            let deadline = self.deadline_of(key, Expiry::Default);
            self.put(key, sorted_set(kind, members), deadline);
        }
        count(length)
    }

    fn read_zset(&self, command: &ZSetCommand<'_>) -> Answer {
        Ok(match command {
            ZSetCommand::Score { key, member } => {
                let set = self.scored(key.as_str())?;
                maybe(find(&set, *member)?.map(|at| set[at].0.clone()))
            }
            ZSetCommand::Scores { key, members } => {
                let set = self.scored(key.as_str())?;
                let scores = members.iter().map(|m| Ok(maybe(find(&set, *m)?.map(|at| set[at].0.clone()))));
                Reply::Container(Shape::Array, scores.collect::<Result<_>>()?)
            }
            ZSetCommand::Length { key } => count(self.scored(key.as_str())?.len()),
            ZSetCommand::Count { key, by } => {
                count(range(&self.sorted_set(key.as_str())?, *by, false)?.len())
            }
            ZSetCommand::Rank { key, member, reverse, with_score } => {
                let set = self.scored(key.as_str())?;
                let Some(at) = find(&set, *member)? else { return Ok(Reply::Missing) };
                let rank = count(if *reverse { set.len() - 1 - at } else { at });
                let score = Reply::Value(set[at].0.clone());
                if *with_score { Reply::Container(Shape::Array, vec![rank, score]) } else { rank }
            }
            ZSetCommand::Range { key, by, reverse, with_scores } => {
                let set = self.sorted_set(key.as_str())?;
                shown_range(&range(&set, *by, *reverse)?, *with_scores)
            }
            ZSetCommand::Random { key, count, with_scores } => {
                let set = self.scored(key.as_str())?;
                let Some(count) = count else { return Ok(maybe(set.first().map(|(_, m)| m.clone()))) };
                let picked: Vec<Scored> =
                    picks(set.len(), *count).into_iter().map(|at| set[at].clone()).collect();
                shown_range(&picked, *with_scores)
            }
            ZSetCommand::Scan { key, options, .. } => {
                let mut items = Vec::new();
                for pair in self.scored(key.as_str())? {
                    if is_scanned(&pair.1, options)? {
                        items.extend(flat(&pair));
                    }
                }
                scanned(Shape::Map, items)
            }
            _ => Reply::Missing,
        })
    }

    fn add_scored(&mut self, key: &str, options: AddOptions, pairs: &[Arg<'_>]) -> Answer {
        let (kind, mut set) = self.sorted_set(key)?.unwrap_or_else(|| (kind_of(pairs[0]), Vec::new()));
        let (mut added, mut changed, mut last) = (0, 0, Reply::Missing);
        for pair in pairs.chunks_exact(2) {
            let given = score(pair[0], kind)?;
            let found = find(&set, pair[1])?;
            if options.only_new && found.is_some() || options.only_existing && found.is_none() {
                continue;
            }
            let next = match found {
                Some(at) if options.increment => sum(&set[at].0, &given)?,
                _ => given,
            };
            let order = found.map(|at| order_scores(&next, &set[at].0));
            let refused =
                |order: Ordering| options.greater && order.is_le() || options.lower && order.is_ge();
            if order.is_some_and(refused) {
                continue;
            }
            last = Reply::Value(next.clone());
            match found {
                None => {
                    set.push((next, member_of(pair[1])?));
                    (added, changed) = (added + 1, changed + 1);
                }
                Some(at) if set[at].0.encode() != next.encode() => {
                    set[at].0 = next;
                    changed += 1;
                }
                Some(_) => {}
            }
        }
        if changed > 0 {
            self.edit(key, sorted_set(kind, set));
        }
        Ok(if options.increment { last } else { count(if options.changed { changed } else { added }) })
    }
}

fn score_in(input: &Input, member: &Value) -> Option<Value> {
    input.1.iter().find(|(_, held)| same_member(held, member)).map(|(score, _)| score.clone())
}

/// The kind of the result's scores, and its members in order.
fn combine(inputs: &[Input], combination: &Combination<'_>) -> Result<(Kind, Vec<Scored>)> {
    let difference = combination.operation == SetOperation::Difference;
    let counting = if difference { &inputs[..1] } else { inputs };
    let mut kinds = counting.iter().filter_map(|(kind, _)| *kind);
    let kind = kinds.next().unwrap_or(Kind::Float);
    if kinds.any(|other| other != kind) {
        return Err(Error::wrong_type());
    }
    let weights: Vec<Option<Value>> = match combination.weights {
        [] => vec![None; inputs.len()],
        weights => weights.iter().map(|weight| score(*weight, kind).map(Some)).collect::<Result<_>>()?,
    };
    // Sums of floats depend on the order: Redis takes the smallest first.
    let mut weighted: Vec<(&Input, Option<Value>)> = inputs.iter().zip(weights).collect();
    if !difference {
        weighted.sort_by_key(|((_, members), _)| members.len());
    }
    let mut result: Vec<Scored> = Vec::new();
    for ((_, members), _) in &weighted {
        for (_, member) in members {
            let found: Vec<Option<Value>> =
                weighted.iter().map(|(input, _)| score_in(input, member)).collect();
            let wanted = match combination.operation {
                SetOperation::Union => true,
                SetOperation::Intersection => found.iter().all(Option::is_some),
                SetOperation::Difference => found[0].is_some() && found[1..].iter().all(Option::is_none),
            };
            if !wanted || result.iter().any(|(_, held)| same_member(held, member)) {
                continue;
            }
            let mut whole: Option<Value> = None;
            for (number, (input, weight)) in found.into_iter().zip(&weighted) {
                let Some(number) = number else { continue };
                let number = in_kind(number, input.0, kind);
                let number = weight.as_ref().map_or(Ok(number.clone()), |weight| product(&number, weight))?;
                let union = combination.operation == SetOperation::Union;
                whole = Some(match whole {
                    None => or_zero(number),
                    Some(whole) => {
                        let number = if union { or_zero(number) } else { number };
                        aggregated(combination.aggregate, whole, number)?
                    }
                });
            }
            result.push((whole.expect("it is in one of them"), member.clone()));
        }
    }
    result.sort_by(order);
    Ok((kind, result))
}

/// The score of a set's member in the kind of the others.
fn in_kind(number: Value, own: Option<Kind>, kind: Kind) -> Value {
    if own.is_none() && kind == Kind::Decimal { Value::Decimal(1.into()) } else { number }
}

fn product(one: &Value, other: &Value) -> Result<Value> {
    match (one, other) {
        (Value::Float(one), Value::Float(other)) => Ok(Value::Float(one * other)),
        (Value::Decimal(one), Value::Decimal(other)) => one
            .checked_mul(*other)
            .map(Value::Decimal)
            .map_err(|error| Error::out_of_range(error.to_string())),
        _ => panic!("scores of two kinds"),
    }
}

fn or_zero(number: Value) -> Value {
    match number {
        Value::Float(number) if number.is_nan() => Value::Float(0.0),
        number => number,
    }
}

fn aggregated(aggregate: Aggregate, whole: Value, number: Value) -> Result<Value> {
    let is_less = |one: &Value, other: &Value| match (one, other) {
        (Value::Float(one), Value::Float(other)) => one < other,
        _ => order_scores(one, other).is_lt(),
    };
    Ok(match aggregate {
        Aggregate::Sum => match (&whole, &number) {
            (Value::Float(whole), Value::Float(number)) => or_zero(Value::Float(whole + number)),
            _ => sum(&whole, &number)?,
        },
        Aggregate::Lowest if is_less(&number, &whole) => number,
        Aggregate::Highest if is_less(&whole, &number) => number,
        Aggregate::Lowest | Aggregate::Highest => whole,
    })
}

fn sum(current: &Value, by: &Value) -> Result<Value> {
    match (current, by) {
        (Value::Float(current), Value::Float(by)) => {
            let sum = current + by;
            let nan = || Error::invalid("resulting score is not a number (NaN)");
            if sum.is_nan() { Err(nan()) } else { Ok(Value::Float(sum)) }
        }
        (Value::Decimal(current), Value::Decimal(by)) => current
            .checked_add(*by)
            .map(Value::Decimal)
            .map_err(|error| Error::out_of_range(error.to_string())),
        _ => Err(Error::not_a_float()),
    }
}

fn shown_range(members: &[Scored], with_scores: bool) -> Reply {
    if with_scores {
        return Reply::Container(Shape::Scored, members.iter().flat_map(flat).collect());
    }
    Reply::Container(Shape::Array, members.iter().map(|(_, member)| Reply::Value(member.clone())).collect())
}

/// The members of a range, from the highest if reversed.
///
/// A bound that is no score is refused even where nothing would be compared with it.
fn range(stored: &Option<(Kind, Vec<Scored>)>, by: RangeBy<'_>, reverse: bool) -> Result<Vec<Scored>> {
    let Some((kind, mut set)) = stored.clone() else { return Ok(Vec::new()) };
    if reverse {
        set.reverse();
    }
    match by {
        RangeBy::Rank { start, end } => Ok(set[super::list::range(set.len(), start, end)].to_vec()),
        RangeBy::Score { low, high, offset, count } => {
            for bound in [low, high] {
                if let ScoreBound::Included(arg) | ScoreBound::Excluded(arg) = bound {
                    score(arg, kind)?;
                }
            }
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let mut inside = Vec::new();
            for pair in set {
                if is_above(&pair.0, low)? && is_below(&pair.0, high)? {
                    inside.push(pair);
                }
            }
            Ok(inside.into_iter().skip(offset).take(count).collect())
        }
        RangeBy::Lex { low, high, offset, count } => {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            if reverse {
                set.reverse();
            }
            let (start, end) = (before(&set, low, false), before(&set, high, true));
            let mut inside = set[start..end.max(start)].to_vec();
            if reverse {
                inside.reverse();
            }
            Ok(inside.into_iter().skip(offset).take(count).collect())
        }
    }
}

/// How many members stand before a bound. Those that are neither Text nor Bytes stand behind all that are. A binary search, since
/// in a set of several scores there is no right answer, only one that both find.
fn before(set: &[Scored], bound: LexBound<'_>, including_equal: bool) -> usize {
    let (bound, including) = match bound {
        LexBound::Lowest => return 0,
        LexBound::Highest => return set.len(),
        LexBound::Included(bound) => (bound, including_equal),
        LexBound::Excluded(bound) => (bound, !including_equal),
    };
    let is_before = |(_, member): &Scored| {
        content(member).is_some_and(|bytes| bytes < bound || including && bytes == bound)
    };
    if set.last().is_some_and(is_before) { set.len() } else { set.partition_point(is_before) }
}

fn is_above(number: &Value, low: ScoreBound<'_>) -> Result<bool> {
    Ok(match low {
        ScoreBound::Lowest => true,
        // Plus infinity as the lower end: only what is infinite itself is not below it.
        ScoreBound::Highest => matches!(number, Value::Float(f64::INFINITY)),
        ScoreBound::Included(bound) => order_scores(number, &score(bound, number.kind())?).is_ge(),
        ScoreBound::Excluded(bound) => order_scores(number, &score(bound, number.kind())?).is_gt(),
    })
}

fn is_below(number: &Value, high: ScoreBound<'_>) -> Result<bool> {
    Ok(match high {
        ScoreBound::Highest => true,
        ScoreBound::Lowest => matches!(number, Value::Float(f64::NEG_INFINITY)),
        ScoreBound::Included(bound) => order_scores(number, &score(bound, number.kind())?).is_le(),
        ScoreBound::Excluded(bound) => order_scores(number, &score(bound, number.kind())?).is_lt(),
    })
}
