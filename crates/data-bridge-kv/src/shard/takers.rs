//! Who waits for an element to take: beside the waiters of a key, in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use data_bridge_kv_model::command::{End, Keys, ListCommand, Patience, ZSetCommand};
use data_bridge_kv_model::{Arg, Command, Key, Kind, Result};

use super::notice::Completions;
use crate::sync::atomic::AtomicBool;

/// One that waits at its keys for an element of one of them.
pub struct Taker {
    /// Who asked, for disconnects.
    pub caller: u64,
    /// The caller's number for the answer.
    pub token: u64,
    /// Where it waits, each key once.
    pub keys: Box<[Box<str>]>,
    /// What it takes.
    pub taking: Taking,
    /// Where the answer goes.
    pub completions: Arc<dyn Completions>,
    is_over: AtomicBool,
}

/// What is taken; the owned form of a command without its keys.
#[derive(Debug)]
pub enum Taking {
    /// From a list.
    Elements(End, Option<usize>),
    /// From a list, to an end of this one.
    Move(Box<str>, End, End),
    /// From a sorted set, perhaps the highest.
    Members(bool, Option<usize>),
}

impl Taking {
    /// What a command takes, from where, and how long it waits for that.
    pub fn of<'a>(command: &'a Command<'a>) -> Option<(Taking, TakenFrom<'a>, Patience)> {
        match command {
            Command::List(ListCommand::PopFirst { keys, end, count, patience }) => {
                Some((Taking::Elements(*end, *count), TakenFrom::First(*keys), *patience))
            }
            Command::List(ListCommand::Move { from, to, take, put, patience }) => {
                Some((Taking::Move(to.as_str().into(), *take, *put), TakenFrom::Only(*from), *patience))
            }
            Command::ZSet(ZSetCommand::PopFirst { keys, highest, count, patience }) => {
                Some((Taking::Members(*highest, *count), TakenFrom::First(*keys), *patience))
            }
            _ => None,
        }
    }

    /// The kind of value that it takes from.
    pub fn kind(&self) -> Kind {
        match self {
            Taking::Elements(..) | Taking::Move(..) => Kind::List,
            Taking::Members(..) => Kind::SortedSet,
        }
    }

    /// The command that takes it from the one key in `from`, and does not wait.
    pub fn command<'a>(&'a self, from: &'a [Arg<'a>; 1]) -> Result<Command<'a>> {
        let patience = Patience::None;
        Ok(match self {
            Taking::Elements(end, count) => {
                let keys = Keys::new(from, 1)?;
                Command::List(ListCommand::PopFirst { keys, end: *end, count: *count, patience })
            }
            Taking::Move(to, take, put) => {
                let (from, to) = (from[0].key()?, Key::new(to.as_bytes())?);
                Command::List(ListCommand::Move { from, to, take: *take, put: *put, patience })
            }
            Taking::Members(highest, count) => {
                let keys = Keys::new(from, 1)?;
                Command::ZSet(ZSetCommand::PopFirst { keys, highest: *highest, count: *count, patience })
            }
        })
    }
}

/// The keys that something may be taken from.
#[derive(Clone, Copy, Debug)]
pub enum TakenFrom<'a> {
    /// This one.
    Only(Key<'a>),
    /// The first that has something.
    First(Keys<'a>),
}

impl<'a> TakenFrom<'a> {
    /// The keys in order.
    pub fn iter(self) -> impl Iterator<Item = Key<'a>> {
        let (only, first) = match self {
            TakenFrom::Only(key) => (Some(key), None),
            TakenFrom::First(keys) => (None, Some(keys)),
        };
        only.into_iter().chain(first.into_iter().flat_map(Keys::iter))
    }
}

impl Taker {
    /// One that begins to wait.
    pub fn new(
        (caller, token): (u64, u64),
        keys: Box<[Box<str>]>,
        taking: Taking,
        completions: Arc<dyn Completions>,
    ) -> Taker {
        Taker { caller, token, keys, taking, completions, is_over: AtomicBool::new(false) }
    }

    /// Ends the wait. Only whom this answers true may answer it, or take something for it.
    pub fn end(&self) -> bool {
        !self.is_over.swap(true, Ordering::AcqRel)
    }

    /// Whether the wait has ended. It may still stand at some of its keys.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

/// Those who wait at one key.
#[derive(Default)]
pub struct Line(VecDeque<Arc<Taker>>);

impl Line {
    /// Whether nobody stands here.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one at the end.
    pub fn add(&mut self, taker: Arc<Taker>) {
        self.0.push_back(taker);
    }

    /// Who comes first of those who take from this kind of value.
    pub fn first(&mut self, kind: Kind) -> Option<&Arc<Taker>> {
        while self.0.front().is_some_and(|taker| taker.is_over()) {
            self.0.pop_front();
        }
        self.0.iter().find(|taker| taker.taking.kind() == kind && !taker.is_over())
    }

    /// Removes one.
    pub fn remove(&mut self, taker: &Arc<Taker>) {
        if let Some(index) = self.0.iter().position(|one| Arc::ptr_eq(one, taker)) {
            self.0.remove(index);
        }
    }

    /// How many still wait of whom this is the first key.
    pub fn count(&self, key: &[u8]) -> usize {
        let is_first = |taker: &Taker| taker.keys.first().is_some_and(|first| first.as_bytes() == key);
        self.0.iter().filter(|taker| !taker.is_over() && is_first(taker)).count()
    }
}

impl IntoIterator for Line {
    type Item = Arc<Taker>;
    type IntoIter = std::collections::vec_deque::IntoIter<Arc<Taker>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
