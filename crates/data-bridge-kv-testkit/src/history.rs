//! A checker of histories: is there an order of the operations, in keeping with their times, in which each has the
//! result that was observed? Wing and Gong's search with Lowe's memory of states that were seen (1993, 2017).
//!
//! Linearizability is local, so each key's history is checked alone; a key's operations are what a model steps over.

use std::collections::HashSet;
use std::hash::Hash;

/// How one object behaves.
pub trait Model {
    /// Its state.
    type State: Clone + Eq + Hash;
    /// An operation with the result that was observed.
    type Operation;

    /// The state before anything happened.
    fn start(&self) -> Self::State;
    /// The state afterwards, or `None` where the observed result is impossible in this state.
    fn step(&self, state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;
}

/// An operation that began and ended at two times of one clock; no two times are equal.
#[derive(Clone, Debug)]
pub struct Span<O> {
    /// When it was asked for.
    pub began: u64,
    /// When its result was there.
    pub ended: u64,
    /// What and with which result.
    pub operation: O,
}

/// What remains to be put in order: the operations in the order of their begin, as a list that undoes its removals.
struct Open {
    next: Vec<usize>,
    previous: Vec<usize>,
}

impl Open {
    /// Position 0 is the list's head; operation `i` stands at position `i + 1`.
    fn new(count: usize) -> Open {
        Open {
            next: (1..=count + 1).collect(),
            previous: (0..=count).map(|at| at.saturating_sub(1)).collect(),
        }
    }

    fn first(&self) -> Option<usize> {
        self.after(0)
    }

    fn after(&self, position: usize) -> Option<usize> {
        let next = self.next[position];
        (next < self.next.len()).then_some(next)
    }

    fn take(&mut self, position: usize) {
        let (previous, next) = (self.previous[position], self.next[position]);
        self.next[previous] = next;
        if let Some(previous_of_next) = self.previous.get_mut(next) {
            *previous_of_next = previous;
        }
    }

    fn put_back(&mut self, position: usize) {
        let (previous, next) = (self.previous[position], self.next[position]);
        self.next[previous] = position;
        if let Some(previous_of_next) = self.previous.get_mut(next) {
            *previous_of_next = position;
        }
    }
}

/// Whether the history has an order that the model allows.
pub fn is_linearizable<M: Model>(model: &M, history: &[Span<M::Operation>]) -> bool {
    let mut spans: Vec<&Span<M::Operation>> = history.iter().collect();
    spans.sort_by_key(|span| span.began);
    let mut open = Open::new(spans.len());
    let mut done = vec![0u64; spans.len().div_ceil(64)];
    let mut seen: HashSet<(Vec<u64>, M::State)> = HashSet::new();
    let mut taken: Vec<(usize, M::State)> = Vec::new();
    let mut state = model.start();
    let mut candidate = open.first();
    // Whatever ends first among the open operations bounds which of them may come next.
    let mut bound = earliest_end(&open, &spans);
    loop {
        if open.first().is_none() {
            return true;
        }
        match candidate.filter(|position| spans[position - 1].began < bound) {
            Some(position) => {
                let next = model.step(&state, &spans[position - 1].operation).filter(|next| {
                    flip(&mut done, position);
                    let is_new = seen.insert((done.clone(), next.clone()));
                    flip(&mut done, position);
                    is_new
                });
                match next {
                    Some(next) => {
                        flip(&mut done, position);
                        taken.push((position, std::mem::replace(&mut state, next)));
                        open.take(position);
                        candidate = open.first();
                        bound = earliest_end(&open, &spans);
                    }
                    None => candidate = open.after(position),
                }
            }
            None => {
                let Some((position, before)) = taken.pop() else { return false };
                flip(&mut done, position);
                open.put_back(position);
                state = before;
                candidate = open.after(position);
                bound = earliest_end(&open, &spans);
            }
        }
    }
}

fn flip(done: &mut [u64], position: usize) {
    done[(position - 1) / 64] ^= 1 << ((position - 1) % 64);
}

/// The earliest end among the open operations. They are sorted by begin, so the search stops at the first that began
/// after an end.
fn earliest_end<O>(open: &Open, spans: &[&Span<O>]) -> u64 {
    let mut earliest = u64::MAX;
    let mut position = open.first();
    while let Some(at) = position.filter(|at| spans[at - 1].began < earliest) {
        earliest = earliest.min(spans[at - 1].ended);
        position = open.after(at);
    }
    earliest
}

/// A key as clients see it: a value, and a version that grows with every write.
#[derive(Clone, Copy, Debug, Default)]
pub struct Register;

/// What is known of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// It was observed.
    Is(u64),
    /// It was written and is newer than this.
    Above(u64),
}

/// The state of a [`Register`]: a value, if there is one, and its version. Without a value the version is the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegisterState {
    value: Option<i64>,
    version: Version,
}

/// An operation on a [`Register`] with its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are the arguments and the observed result")]
pub enum RegisterOperation {
    /// Reads.
    Get { found: Option<i64> },
    /// Writes.
    Set { value: i64 },
    /// Adds and answers the sum; a missing key is 0.
    Add { by: i64, sum: i64 },
    /// Writes if the value is as expected.
    CompareAndSet { expected: Option<i64>, value: i64, done: bool },
    /// Deletes.
    Delete { was_there: bool },
    /// Reads value and version.
    GetVersioned { found: Option<(i64, u64)> },
    /// Writes if the version is as expected (0 = missing); answers the new one, or the one that is there.
    SetIfVersion { expected: u64, value: i64, result: Result<u64, u64> },
}

impl RegisterState {
    fn newest(self) -> u64 {
        match self.version {
            Version::Is(version) | Version::Above(version) => version,
        }
    }

    fn write(self, value: Option<i64>) -> RegisterState {
        RegisterState { value, version: Version::Above(self.newest()) }
    }

    /// The state in which the version is this one; `None` if it can't be.
    fn observe(self, version: u64) -> Option<RegisterState> {
        if self.value.is_none() {
            return (version == 0).then_some(self);
        }
        let possible = match self.version {
            Version::Is(known) => known == version,
            Version::Above(known) => version > known,
        };
        possible.then_some(RegisterState { version: Version::Is(version), ..self })
    }
}

impl Model for Register {
    type State = RegisterState;
    type Operation = RegisterOperation;

    fn start(&self) -> RegisterState {
        RegisterState { value: None, version: Version::Is(0) }
    }

    fn step(&self, state: &RegisterState, operation: &RegisterOperation) -> Option<RegisterState> {
        match *operation {
            RegisterOperation::Get { found } => (state.value == found).then_some(*state),
            RegisterOperation::Set { value } => Some(state.write(Some(value))),
            RegisterOperation::Add { by, sum } => {
                (state.value.unwrap_or(0) + by == sum).then(|| state.write(Some(sum)))
            }
            RegisterOperation::CompareAndSet { expected, value, done } => {
                if (state.value == expected) != done {
                    return None;
                }
                Some(if done { state.write(Some(value)) } else { *state })
            }
            RegisterOperation::Delete { was_there } => {
                if state.value.is_some() != was_there {
                    return None;
                }
                Some(if was_there { RegisterState { value: None, ..*state } } else { *state })
            }
            RegisterOperation::GetVersioned { found } => match found {
                None => state.value.is_none().then_some(*state),
                Some((value, version)) if state.value == Some(value) => state.observe(version),
                Some(_) => None,
            },
            RegisterOperation::SetIfVersion { expected, value, result } => match result {
                Ok(new) => {
                    let state = state.observe(expected)?;
                    let grows = new > state.newest();
                    grows.then_some(RegisterState { value: Some(value), version: Version::Is(new) })
                }
                Err(found) => {
                    if found == expected {
                        return None;
                    }
                    state.observe(found)
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RegisterOperation::{Add, CompareAndSet, Delete, Get, GetVersioned, Set, SetIfVersion};

    fn check(history: &[(u64, u64, RegisterOperation)]) -> bool {
        let spans: Vec<Span<RegisterOperation>> = history
            .iter()
            .map(|(began, ended, operation)| Span { began: *began, ended: *ended, operation: *operation })
            .collect();
        is_linearizable(&Register, &spans)
    }

    #[test]
    fn overlapping_operations_may_take_either_order() {
        assert!(check(&[(1, 4, Set { value: 1 }), (2, 3, Get { found: None })]));
        assert!(check(&[(1, 4, Set { value: 1 }), (2, 3, Get { found: Some(1) })]));
        let both = [(1, 10, Set { value: 1 }), (2, 9, Set { value: 2 }), (3, 8, Get { found: Some(1) })];
        assert!(check(&[both[0], both[1], both[2], (11, 12, Get { found: Some(2) })]));
        assert!(check(&[]));
    }

    #[test]
    fn what_came_before_is_seen() {
        assert!(!check(&[(1, 2, Set { value: 1 }), (3, 4, Get { found: None })]), "a lost write");
        let stale = [
            (1, 2, Set { value: 1 }),
            (3, 4, Set { value: 2 }),
            (5, 6, Get { found: Some(2) }),
            (7, 8, Get { found: Some(1) }),
        ];
        assert!(!check(&stale), "a read goes back");
        assert!(!check(&[(1, 9, Add { by: 1, sum: 1 }), (2, 8, Add { by: 1, sum: 1 })]), "a lost increment");
        let twice = [
            (1, 9, CompareAndSet { expected: None, value: 1, done: true }),
            (2, 8, CompareAndSet { expected: None, value: 2, done: true }),
        ];
        assert!(!check(&twice), "two winners");
        assert!(!check(&[(1, 9, Delete { was_there: true }), (2, 8, Get { found: None })]));
    }

    #[test]
    fn versions_grow_and_are_unique() {
        let written = [
            (1, 2, SetIfVersion { expected: 0, value: 5, result: Ok(7) }),
            (3, 4, Set { value: 6 }),
            (5, 6, GetVersioned { found: Some((6, 9)) }),
        ];
        assert!(check(&written));
        assert!(check(&[
            written[0],
            written[1],
            (5, 6, SetIfVersion { expected: 7, value: 1, result: Err(8) })
        ]));
        let reused = [written[0], written[1], (5, 6, GetVersioned { found: Some((6, 7)) })];
        assert!(!check(&reused), "a write that keeps the version");
        let again = [
            written[0],
            (3, 4, Delete { was_there: true }),
            (5, 6, SetIfVersion { expected: 0, value: 5, result: Ok(7) }),
        ];
        assert!(!check(&again), "a version that comes back");
    }

    #[test]
    fn a_long_history_of_overlaps_is_decided() {
        let adds = (0..500u64).map(|at| {
            // Each overlaps its neighbours; in pairs the later begin has the earlier sum.
            let sum = (at ^ 1) + 1;
            (at * 10, at * 10 + 25, Add { by: 1, sum: sum.cast_signed() })
        });
        let history: Vec<_> = adds.collect();
        assert!(check(&history));
        let mut broken = history.clone();
        broken[400].2 = Add { by: 1, sum: 7 };
        assert!(!check(&broken));
    }
}
