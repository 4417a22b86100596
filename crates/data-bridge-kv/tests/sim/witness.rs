//! Who has seen the whole story: the model as it is, as it was at each point that a crash may lead back to, and what any
//! client was told. Knows nothing of the engine's log.

use std::collections::BTreeMap;

use data_bridge_kv_model::command::Command;
use data_bridge_kv_model::command::table::opcode;
use data_bridge_kv_model::{Error, ErrorKind, KeySet, Reply, Shape};
use data_bridge_kv_testkit::reference::{Follower, Reference, same_fault};
use data_bridge_kv_testkit::workload::KEYS;

/// How many changes there were.
pub type Position = u64;
/// A namespace and a key of it.
pub type Name = (usize, &'static str);

/// Namespaces that commands go to.
pub const SPACES: [usize; 2] = [1, 3];

pub struct Witness {
    /// What there is if nothing is lost.
    pub now: Follower,
    pub position: Position,
    /// The states that a crash may lead to, in order; the first one is at the floor or before it.
    history: Vec<(Position, Follower)>,
    /// What was shown to somebody rests on the changes up to here.
    floor: Position,
    /// The last change of each key.
    changed: BTreeMap<Name, Position>,
    /// Every version that a key ever had, with the change that gave it; `None` if a crash took that back.
    versions: BTreeMap<Name, BTreeMap<u64, Option<Position>>>,
}

impl Witness {
    pub fn new(model: Reference) -> Witness {
        let now = Follower::new(model);
        let history = vec![(0, now.clone())];
        Witness { now, position: 0, history, floor: 0, changed: BTreeMap::new(), versions: BTreeMap::new() }
    }

    /// Versions of the model, to compare them after a command.
    pub fn versions(&self, space: usize) -> [u64; KEYS.len()] {
        KEYS.map(|key| self.now.model.space(space).version(key))
    }

    /// Takes note of what a command changed; `version` tells what the engine gave the key.
    pub fn note(
        &mut self,
        space: usize,
        before: [u64; KEYS.len()],
        version: impl Fn(&str) -> Option<u64>,
    ) -> Result<(), String> {
        let after = self.versions(space);
        let changed = || (0..KEYS.len()).filter(|at| before[*at] != after[*at]);
        if changed().next().is_none() {
            return Ok(());
        }
        self.position += 1;
        for at in changed() {
            let key = KEYS[at];
            self.changed.insert((space, key), self.position);
            let Some(theirs) = version(key) else { continue };
            self.now.see_version(space, key, after[at], theirs)?;
            let known = self.versions.entry((space, key)).or_default();
            let highest = known.last_key_value().map_or(0, |(version, _)| *version);
            if theirs != 0 {
                if theirs <= highest {
                    return Err(format!(
                        "{key:?} has version {theirs}, and {highest} once had another state"
                    ));
                }
                known.insert(theirs, Some(self.position));
            }
        }
        self.history.push((self.position, self.now.clone()));
        Ok(())
    }

    /// Follows a step of several commands; `holds` if the watched keys had their versions.
    pub fn follow_atomic(
        &mut self,
        space: usize,
        commands: &[Command<'_>],
        holds: bool,
        abort: bool,
        observed: &Reply,
    ) -> Result<(), String> {
        match observed {
            Reply::Error(error) if !holds && error.kind() == ErrorKind::Aborted => Ok(()),
            Reply::Container(Shape::Array, items) if holds && items.len() == commands.len() => {
                if abort && items.iter().any(|item| matches!(item, Reply::Error(_))) {
                    return Err("an atomic step went on after an error".to_owned());
                }
                let mut pairs = commands.iter().zip(items);
                pairs.try_for_each(|(command, item)| self.now.follow(space, command, item))
            }
            Reply::Error(error) if holds && abort => match self.now.model.execute_atomic(space, commands) {
                Err(expected) if same_fault(&expected, error) => Ok(()),
                other => Err(format!("the step failed with {error:?}, the model says {other:?}")),
            },
            other => Err(format!("an atomic step answers {other:?}")),
        }
    }

    /// The change that an answer rests on: the last one of the key that it tells of. A command with several keys may have
    /// looked at some of them only, so that nothing counts but what it changed, after `before`, and what is told of each.
    pub fn rests_on(
        &self,
        space: usize,
        opcode: u16,
        command: &Command<'_>,
        reply: &Reply,
        before: Position,
    ) -> Position {
        let of = |key: &str| self.changed.iter().find(|((number, name), _)| *number == space && *name == key);
        let tells_of_all = [opcode::MGET, opcode::KV_MGET, opcode::EXISTS].contains(&opcode);
        let mut last = 0;
        match (command.keys(), reply) {
            (KeySet::One(_), Reply::Error(error)) if !is_told_of_state(error) => {}
            (KeySet::One(key), _) => last = of(key.as_str()).map_or(0, |(_, position)| *position),
            // Why all keys can't be looked at, or changed, says nothing of them.
            (KeySet::None, Reply::Error(_)) => {}
            (KeySet::None, _) => {
                let all = self.changed.iter().filter(|((number, _), _)| *number == space);
                last = all.map(|(_, position)| *position).max().unwrap_or(0);
            }
            (keys, _) => keys.for_each(|key| {
                let position = of(key.as_str()).map_or(0, |(_, position)| *position);
                if tells_of_all || position > before {
                    last = last.max(position);
                }
            }),
        }
        last
    }

    /// The change that gave a key this version, which somebody was told of. One of several that a step gives a key on its way
    /// belongs to the last of them, which may have removed it.
    pub fn version_position(&self, name: Name, version: u64) -> Option<Position> {
        match self.versions.get(&name).and_then(|known| known.range(version..).next()) {
            Some((_, position)) => *position,
            // A step may have made and removed it, which leads nowhere else.
            None if self.now.model.space(name.0).version(name.1) == 0 => {
                Some(self.changed.get(&name).copied().unwrap_or(0))
            }
            None => None,
        }
    }

    /// Somebody was shown what rests on this change: no crash may take it back.
    pub fn show(&mut self, position: Position) {
        self.floor = self.floor.max(position);
        let first = self.history.iter().rposition(|(at, _)| *at <= self.floor).unwrap_or(0);
        self.history.drain(..first);
    }

    /// Up to which change somebody was shown something.
    pub fn floor(&self) -> Position {
        self.floor
    }

    /// The state that a store is in, the latest if several look alike; everything after it is lost. `replies` holds what it
    /// answers to questions about all keys.
    pub fn recognise(
        &self,
        replies: &[(usize, Command<'_>, Reply)],
    ) -> Result<(Position, Follower, usize), String> {
        let mut why = String::new();
        for (position, follower) in self.history.iter().rev() {
            let mut trial = follower.clone();
            trial.model.advance(self.now.model.now() - trial.model.now());
            let mut ask = |(space, command, reply): &(usize, Command<'_>, Reply)| {
                trial.follow(*space, command, reply).map_err(|why| format!("{command:?}: {why}"))
            };
            match replies.iter().try_for_each(&mut ask) {
                Ok(()) => {
                    let lost = self.history.iter().filter(|(at, _)| at > position).count();
                    return Ok((*position, trial, lost));
                }
                Err(reason) => why = format!("{why}\n  not the state after change {position}: {reason}"),
            }
        }
        Err(format!("of the changes up to {} somebody was told{why}", self.floor))
    }

    /// Goes on from a state that was recognised.
    pub fn return_to(&mut self, position: Position, follower: Follower) {
        self.changed.values_mut().for_each(|at| *at = (*at).min(position));
        let given = self.versions.values_mut().flat_map(BTreeMap::values_mut);
        given.filter(|at| at.is_some_and(|at| at > position)).for_each(|at| *at = None);
        self.floor = self.floor.max(position);
        self.now = follower.clone();
        // Later changes get numbers of their own: what was lost stays known as lost.
        self.history = vec![(self.floor, follower)];
    }
}

/// Whether an error says something of what is stored.
fn is_told_of_state(error: &Error) -> bool {
    [ErrorKind::WrongType, ErrorKind::Conflict, ErrorKind::NotFound, ErrorKind::State].contains(&error.kind())
}
