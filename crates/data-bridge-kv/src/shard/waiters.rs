//! Who waits for a change of a key: kept beside the table by key, so that absent keys can be waited for.

use std::sync::Arc;

use data_bridge_kv_model::{Kind, ValueRef};
use hashbrown::HashMap;

use super::notice::Completions;
use super::takers::{Line, Taker};
use crate::table::Stored;

/// When a wait ends; the owned form of the command's condition.
#[derive(Debug)]
pub enum Condition {
    /// At the next change.
    Change,
    /// When the key exists.
    Exists,
    /// When the version is greater, or a key that had one is gone.
    NewerThan(u64),
    /// When the value (or the field) is one of these; encoded values, untyped ones as Bytes.
    States {
        /// The field; `None` = the value itself.
        field: Option<Box<[u8]>>,
        /// The states.
        states: Vec<State>,
    },
}

/// A state that is waited for.
#[derive(Debug)]
pub struct State {
    /// The encoded value.
    pub encoded: Box<[u8]>,
    /// Whether it came from an untyped client, and so matches by shown text.
    pub untyped: bool,
}

/// One that waits once.
pub struct Waiter {
    /// Who asked, for disconnects.
    pub caller: u64,
    /// The caller's number for the answer.
    pub token: u64,
    /// When it ends.
    pub condition: Condition,
    /// Where the answer goes.
    pub completions: Arc<dyn Completions>,
    /// Whoever ends it when its time has come sees by this whether it still waits.
    pub presence: Arc<()>,
}

/// One that is told every change.
pub struct Watcher {
    /// Who asked.
    pub caller: u64,
    /// Number of the watch.
    pub watch: u64,
    /// Where events go.
    pub completions: Arc<dyn Completions>,
}

/// Those who wait for one key.
#[derive(Default)]
pub struct Party {
    /// Once each.
    pub waiters: Vec<Waiter>,
    /// Every change.
    pub watchers: Vec<Watcher>,
    /// Those who take an element as soon as there is one.
    pub line: Line,
}

/// All who wait for keys of one shard.
#[derive(Default)]
pub struct Waiters {
    by_key: HashMap<Box<[u8]>, Party, std::hash::RandomState>,
}

impl Waiters {
    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// How many wait or watch.
    pub fn len(&self) -> usize {
        let count =
            |key: &[u8], party: &Party| party.waiters.len() + party.watchers.len() + party.line.count(key);
        self.by_key.iter().map(|(key, party)| count(key, party)).sum()
    }

    /// The keys that somebody waits for.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.by_key.keys().map(|key| &**key)
    }

    /// Takes the waiter of a key that `ours` picks.
    pub fn take_one(&mut self, key: &[u8], ours: impl Fn(&Waiter) -> bool) -> Option<Waiter> {
        let party = self.by_key.get_mut(key)?;
        let index = party.waiters.iter().position(ours)?;
        let waiter = party.waiters.swap_remove(index);
        self.tidy(key);
        Some(waiter)
    }

    /// Those who wait for a key.
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut Party> {
        self.by_key.get_mut(key)
    }

    /// The party of a key, made if there is none yet.
    pub fn party(&mut self, key: &[u8]) -> &mut Party {
        self.by_key.entry(key.into()).or_default()
    }

    /// Forgets the key if nobody waits for it any more.
    pub fn tidy(&mut self, key: &[u8]) {
        if self.by_key.get(key).is_some_and(Party::is_over) {
            self.by_key.remove(key);
        }
    }

    /// Drops the watchers of a key that `ours` picks.
    pub fn drop_watchers(&mut self, key: &[u8], ours: impl Fn(&Watcher) -> bool) {
        if let Some(party) = self.by_key.get_mut(key) {
            party.watchers.retain(|watcher| !ours(watcher));
            self.tidy(key);
        }
    }

    /// Who comes first of those who wait at a key to take from this kind of value.
    pub fn first_taker(&mut self, key: &[u8], kind: Kind) -> Option<Arc<Taker>> {
        self.by_key.get_mut(key)?.line.first(kind).map(Arc::clone)
    }

    /// Removes one who waits at a key to take.
    pub fn remove_taker(&mut self, key: &[u8], taker: &Arc<Taker>) {
        if let Some(party) = self.by_key.get_mut(key) {
            party.line.remove(taker);
            self.tidy(key);
        }
    }

    /// Takes out every waiter and taker, and drops every watcher.
    pub fn take_all(&mut self) -> (Vec<Waiter>, Vec<Arc<Taker>>) {
        let (mut waiters, mut takers) = (Vec::new(), Vec::new());
        for (_, party) in self.by_key.drain() {
            waiters.extend(party.waiters);
            takers.extend(party.line);
        }
        (waiters, takers)
    }
}

impl Party {
    /// Whether nobody is left.
    fn is_over(&self) -> bool {
        self.waiters.is_empty() && self.watchers.is_empty() && self.line.is_empty()
    }
}

impl Condition {
    /// Whether a key in this state ends the wait; `changed` tells whether this is a change or the first look.
    pub fn holds(&self, entry: Option<(Stored<'_>, u64)>, changed: bool) -> bool {
        match (self, entry) {
            (Condition::Change, _) => changed,
            (Condition::Exists, entry) => entry.is_some(),
            (Condition::NewerThan(version), entry) => match entry {
                Some((_, current)) => current > *version,
                // Whoever names a version has seen the key: that it is gone is news, also when it went before the wait.
                None => changed || *version > 0,
            },
            (Condition::States { .. }, None) => false,
            (Condition::States { field: None, states }, Some((stored, _))) => {
                super::scalar(stored).is_some_and(|value| states.iter().any(|state| state.matches(value)))
            }
            (Condition::States { field: Some(field), states }, Some((stored, _))) => {
                let Ok(field) = ValueRef::decode(field) else { return false };
                let Some(value) = stored.field(field) else { return false };
                states.iter().any(|state| state.matches(value))
            }
        }
    }
}

impl State {
    fn matches(&self, value: ValueRef<'_>) -> bool {
        let Ok(state) = ValueRef::decode(&self.encoded) else { return false };
        match state.content() {
            Some(content) if self.untyped => data_bridge_kv_model::show::matches_untyped(value, content),
            Some(content) => value.content() == Some(content),
            None => data_bridge_kv_model::identity::exact_eq(state, value),
        }
    }
}
