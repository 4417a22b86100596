//! The model of commands on sorted sets. What is random takes the first members.

use std::cmp::Ordering;

use data_bridge_kv_model::command::{AddOptions, RangeBy, ScoreBound, ZSetCommand};
use data_bridge_kv_model::value::SortedSet;
use data_bridge_kv_model::{Arg, Error, Kind, Reply, Result, Shape, Value};

use super::matching::{content, member_of, position};
use super::set::{is_scanned, picks, scanned};
use super::{Answer, Space, count, maybe};

/// A score and its member.
type Scored = (Value, Value);

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
            ZSetCommand::Count { key, low, high } => {
                let set = self.sorted_set(key.as_str())?;
                let by = RangeBy::Score { low: *low, high: *high, offset: 0, count: -1 };
                count(range(&set, by, false)?.len())
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
    }
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
