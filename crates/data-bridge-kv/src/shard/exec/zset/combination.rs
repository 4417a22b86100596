//! Executors that combine several sets and sorted sets. A member of a set counts with the score 1.

use std::sync::Arc;

use data_bridge_kv_model::command::{Aggregate, Combination, SetOperation};
use data_bridge_kv_model::{Decimal, Error, ErrorKind, Key, Keys, Kind, ReplyBuf, Result, ValueRef};

use super::super::REPLY_HEAD;
use super::super::set::{MANY_BYTES, shared};
use super::{is_less, put_range, score, store, sum};
use crate::collections::{Collection, Packed, Score, SortedSet};
use crate::shard::Txn;

/// One of the sets; without a collection it is empty.
#[derive(Clone, Copy)]
struct Input<'s> {
    collection: Option<&'s Collection>,
    weight: Option<Score>,
}

impl<'s> Input<'s> {
    fn len(self) -> usize {
        self.collection.map_or(0, Collection::len)
    }

    /// The members with their scores; `one` is the score of a set's.
    fn members(self, one: Score) -> Box<dyn Iterator<Item = (&'s Packed, Score)> + 's> {
        match self.collection {
            Some(Collection::Set(set)) => Box::new(set.iter().map(move |member| (member, one))),
            Some(Collection::SortedSet(set)) => Box::new(set.iter()),
            Some(Collection::List(_) | Collection::Hash(_)) | None => Box::new(std::iter::empty()),
        }
    }

    fn score(self, member: ValueRef<'_>, one: Score) -> Option<Score> {
        match self.collection? {
            Collection::Set(set) => set.contains(member).then_some(one),
            Collection::SortedSet(set) => set.score(member),
            Collection::List(_) | Collection::Hash(_) => None,
        }
    }

    fn contains(self, member: ValueRef<'_>) -> bool {
        self.score(member, Score::Float(1.0)).is_some()
    }

    /// A score times the weight. Infinity times nothing is not a number: it is left to whoever adds it.
    fn weighed(self, score: Score) -> Result<Score> {
        match (score, self.weight) {
            (score, None) => Ok(score),
            (Score::Float(score), Some(Score::Float(weight))) => Ok(Score::Float(score * weight)),
            (Score::Decimal(score), Some(Score::Decimal(weight))) => {
                let product = score.checked_mul(weight);
                product.map(Score::Decimal).map_err(|error| Error::out_of_range(error.to_string()))
            }
            _ => Err(mixed_scores()),
        }
    }
}

/// Combines sets; with `to` stores the result there and answers its length.
pub(super) fn combine(
    txn: &mut Txn<'_>,
    to: Option<Key<'_>>,
    combination: &Combination<'_>,
    with_scores: bool,
    out: &mut ReplyBuf,
) -> Result<()> {
    let collections = collections(txn, combination.keys)?;
    let inputs = inputs(&collections);
    let result = match combination.operation {
        SetOperation::Union => union(inputs, combination)?,
        SetOperation::Intersection => intersection(inputs, combination)?,
        SetOperation::Difference => difference(&inputs)?,
    };
    if let Some(to) = to {
        return store(txn, to, Some(result), out);
    }
    // In a reply each score has its kind in front.
    let score_bytes = if result.score_kind() == Kind::Decimal { 19 } else { 9 };
    let member_bytes: usize = result.iter().map(|(member, _)| member.as_bytes().len()).sum();
    let bytes = member_bytes + if with_scores { result.len() * score_bytes } else { 0 };
    if bytes >= MANY_BYTES {
        out.bytes_mut().reserve_exact(bytes + REPLY_HEAD);
    }
    put_range(result.len(), result.iter(), with_scores, out);
    txn.check_reply(out)
}

/// Answers how many members all have, at most `limit` if that is not 0.
pub(super) fn count_common(
    txn: &mut Txn<'_>,
    keys: Keys<'_>,
    limit: usize,
    out: &mut ReplyBuf,
) -> Result<()> {
    let collections = collections(txn, keys)?;
    let inputs = smallest_first(inputs(&collections));
    let common = inputs.split_first().map_or(0, |(smallest, others)| {
        let is_common =
            |(member, _): &(&Packed, Score)| others.iter().all(|other| other.contains(member.value()));
        let most = if limit == 0 { usize::MAX } else { limit };
        smallest.members(Score::Float(1.0)).filter(is_common).take(most).count()
    });
    out.count(common);
    Ok(())
}

/// The sets and sorted sets of these keys as they are now; they stay so as long as they are held.
fn collections(txn: &mut Txn<'_>, keys: Keys<'_>) -> Result<Vec<Option<Arc<Collection>>>> {
    let of_key = |key: Key<'_>| {
        let place = txn.place(key);
        let is_set = txn.peek(place).is_some_and(|entry| entry.kind() == Kind::Set);
        shared(txn, key, if is_set { Kind::Set } else { Kind::SortedSet })
    };
    keys.iter().map(of_key).collect()
}

fn inputs(collections: &[Option<Arc<Collection>>]) -> Vec<Input<'_>> {
    collections.iter().map(|collection| Input { collection: collection.as_deref(), weight: None }).collect()
}

/// As Redis takes them: sums of floats depend on the order.
fn smallest_first(mut inputs: Vec<Input<'_>>) -> Vec<Input<'_>> {
    inputs.sort_by_key(|input| input.len());
    inputs
}

/// The inputs with their weights, and an empty result whose scores are of their kind.
fn weighed<'s>(
    mut inputs: Vec<Input<'s>>,
    combination: &Combination<'_>,
) -> Result<(Vec<Input<'s>>, SortedSet)> {
    let kind = score_kind(&inputs)?;
    for (input, weight) in inputs.iter_mut().zip(combination.weights) {
        input.weight = Some(score(*weight, kind)?);
    }
    Ok((smallest_first(inputs), empty(kind)?))
}

fn empty(kind: Kind) -> Result<SortedSet> {
    SortedSet::new(kind).ok_or_else(Error::not_a_float)
}

/// The kind of all scores: Float where there are none.
fn score_kind(inputs: &[Input<'_>]) -> Result<Kind> {
    let mut kinds = inputs.iter().filter_map(|input| match input.collection {
        Some(Collection::SortedSet(set)) if !set.is_empty() => Some(set.score_kind()),
        _ => None,
    });
    let kind = kinds.next().unwrap_or(Kind::Float);
    if kinds.any(|other| other != kind) { Err(mixed_scores()) } else { Ok(kind) }
}

fn mixed_scores() -> Error {
    let text = "these sorted sets have float scores and decimal scores: a decimal score would be rounded";
    Error::new(ErrorKind::WrongType, text)
}

/// The score of a set's members.
fn one(kind: Kind) -> Score {
    if kind == Kind::Decimal { Score::Decimal(Decimal::from(1)) } else { Score::Float(1.0) }
}

fn union(inputs: Vec<Input<'_>>, combination: &Combination<'_>) -> Result<SortedSet> {
    let (inputs, mut result) = weighed(inputs, combination)?;
    let one = one(result.score_kind());
    for input in inputs {
        for (member, score) in input.members(one) {
            let score = or_zero(input.weighed(score)?);
            let score = match result.score(member.value()) {
                Some(current) => aggregated(combination.aggregate, current, score)?,
                None => score,
            };
            result.insert(score, member.value());
        }
    }
    Ok(result)
}

fn intersection(inputs: Vec<Input<'_>>, combination: &Combination<'_>) -> Result<SortedSet> {
    let (inputs, mut result) = weighed(inputs, combination)?;
    let one = one(result.score_kind());
    let Some((smallest, others)) = inputs.split_first() else { return Ok(result) };
    'members: for (member, score) in smallest.members(one) {
        let mut whole = or_zero(smallest.weighed(score)?);
        for other in others {
            let Some(score) = other.score(member.value(), one) else { continue 'members };
            whole = aggregated(combination.aggregate, whole, other.weighed(score)?)?;
        }
        result.insert(whole, member.value());
    }
    Ok(result)
}

/// The members of the first only, with their scores: those of the others don't matter.
fn difference(inputs: &[Input<'_>]) -> Result<SortedSet> {
    let Some((first, others)) = inputs.split_first() else { return empty(Kind::Float) };
    let mut result = empty(score_kind(&[*first])?)?;
    for (member, score) in first.members(Score::Float(1.0)) {
        if !others.iter().any(|other| other.contains(member.value())) {
            result.insert(score, member.value());
        }
    }
    Ok(result)
}

/// Two scores of a member made one. What is not a number counts as nothing in a sum, and for no lowest or highest.
fn aggregated(aggregate: Aggregate, current: Score, other: Score) -> Result<Score> {
    let other_wins = match aggregate {
        Aggregate::Sum => {
            return match (current, other) {
                (Score::Float(current), Score::Float(other)) => Ok(or_zero(Score::Float(current + other))),
                (current, other) => sum(current, other),
            };
        }
        Aggregate::Lowest => is_less(other, current),
        Aggregate::Highest => is_less(current, other),
    };
    Ok(if other_wins { other } else { current })
}

/// A score, or zero for what is not a number.
fn or_zero(score: Score) -> Score {
    match score {
        Score::Float(number) if number.is_nan() => Score::Float(0.0),
        score => score,
    }
}
