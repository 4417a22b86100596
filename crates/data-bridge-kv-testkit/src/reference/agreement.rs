//! Following a store that is watched from outside: every reply it gives must be one that the model allows. Random picks
//! are checked to be possible ones and then taken over by the model; versions may be other numbers, but must grow
//! exactly where the model's do.

use std::collections::BTreeMap;

use data_bridge_kv_model::command::{
    Command, HashCommand, KeyCommand, SetCommand, StateCommand, ZSetCommand,
};
use data_bridge_kv_model::{Error, ErrorKind, Key, KeySet, Reply, Shape, Value};

use super::{Reference, pairs_of, shown};

/// A model that follows an observed store.
#[derive(Clone, Debug)]
pub struct Follower {
    /// The model.
    pub model: Reference,
    /// Whether only what a Redis client is shown of a value is compared, not its kind.
    pub untyped: bool,
    /// For each key, the observed version of each of the model's versions.
    versions: BTreeMap<(usize, String), BTreeMap<u64, u64>>,
}

/// A canonical encoding of a value: the members of a set are sorted.
pub fn canonical(value: &Value) -> Vec<u8> {
    match value {
        Value::Set(members) => {
            let mut members: Vec<Vec<u8>> = members.iter().map(Value::encode).collect();
            members.sort();
            members.concat()
        }
        other => other.encode(),
    }
}

/// A text in which equal replies are equal.
fn print(reply: &Reply, untyped: bool) -> String {
    match reply {
        Reply::Value(value) if untyped => match shown(value) {
            Some(text) => format!("{:?}", text.escape_ascii().to_string()),
            None => print(reply, false),
        },
        Reply::Value(value) => format!("{:?} {:02x?}", value.kind(), canonical(value)),
        Reply::Container(shape, items) => {
            let mut items: Vec<String> = items.iter().map(|item| print(item, untyped)).collect();
            if *shape == Shape::Members {
                items.sort();
            }
            // An empty container looks alike to every client, whatever it would hold.
            let shape = if items.is_empty() { Shape::Array } else { *shape };
            format!("{shape:?}[{}]", items.join(", "))
        }
        Reply::Error(error) => {
            let current = error.found().map(|found| {
                found.current.as_deref().map(|current| {
                    Value::decode(current).map_or_else(|_| current.to_vec(), |value| canonical(&value))
                })
            });
            format!("{:?} {current:?}", error.kind())
        }
        plain => format!("{plain:?}"),
    }
}

fn sorted(reply: &Reply) -> Reply {
    match reply {
        Reply::Container(_, items) => Reply::Container(Shape::Members, items.clone()),
        other => other.clone(),
    }
}

/// How the reply of a command is checked.
enum Check {
    /// It is the model's.
    Exact,
    /// The same items, in any order.
    AnyOrder,
    /// As many picks as the model's, each from the whole; `repeats` where one may come twice. `width` items a pick.
    Picks { whole: Reply, width: usize, repeats: bool },
    /// A part of what the model shows, all of it if the walk ends where it began.
    Walk { cursor: u64, width: usize },
    /// Some number above zero.
    Positive,
}

impl Follower {
    /// Follows from this state on.
    pub fn new(model: Reference) -> Follower {
        Follower { model, untyped: false, versions: BTreeMap::new() }
    }

    /// Carries the command out in the model, and tells what is wrong with the reply that was observed.
    pub fn follow(
        &mut self,
        namespace: usize,
        command: &Command<'_>,
        observed: &Reply,
    ) -> Result<(), String> {
        let check = self.check_of(namespace, command);
        if let Command::Set(SetCommand::Pop { key, .. }) = command {
            self.prefer(namespace, *key, observed);
        }
        let mut expected = self.model.execute(namespace, command);
        let mut observed = observed.clone();
        self.take_versions(namespace, command, &mut expected, &mut observed)?;
        let untyped = self.untyped;
        let same = |expected: &Reply, observed: &Reply| print(expected, untyped) == print(observed, untyped);
        let agrees = match check {
            _ if matches!(expected, Reply::Error(_)) => match (&expected, &observed) {
                (Reply::Error(one), Reply::Error(other)) if one.kind() != other.kind() => {
                    same_fault(one, other)
                }
                _ => same(&expected, &observed),
            },
            Check::Exact => same(&expected, &observed),
            Check::AnyOrder => same(&sorted(&expected), &sorted(&observed)),
            Check::Picks { whole, width, repeats } => {
                let groups = |reply: &Reply| groups(reply, width, untyped);
                picked(&expected, &observed, &groups(&whole), repeats, groups)
            }
            Check::Walk { cursor, width } => {
                walked(&expected, &observed, cursor, |reply| groups(reply, width, untyped))
            }
            Check::Positive => match (&expected, &observed) {
                (Reply::Missing, observed) => *observed == Reply::Missing,
                (_, observed) => matches!(observed, Reply::Integer(1..)),
            },
        };
        if agrees {
            return Ok(());
        }
        Err(format!("the model answers {expected:?}, observed was {observed:?}"))
    }

    fn check_of(&self, namespace: usize, command: &Command<'_>) -> Check {
        let space = self.model.space(namespace);
        let value = |key: &Key<'_>| space.get(key.as_str()).map(|entry| &entry.value);
        let items = |values: Vec<&Value>| {
            Reply::Container(Shape::Array, values.into_iter().map(|v| Reply::Value(v.clone())).collect())
        };
        let firsts = |pairs: &[(Value, Value)], both: bool, swapped: bool| {
            let flat = pairs.iter().flat_map(|(first, second)| {
                let (first, second) = if swapped { (second, first) } else { (first, second) };
                [Some(first), both.then_some(second)]
            });
            Reply::Container(Shape::Array, flat.flatten().map(|value| Reply::Value(value.clone())).collect())
        };
        let picks = |whole: Option<Reply>, count: &Option<i64>, both: bool| Check::Picks {
            whole: whole.unwrap_or(Reply::Missing),
            width: 1 + usize::from(both),
            repeats: count.is_some_and(|count| count < 0),
        };
        match command {
            Command::Key(KeyCommand::Keys { .. }) => Check::AnyOrder,
            Command::Key(KeyCommand::Memory { .. }) => Check::Positive,
            Command::Key(KeyCommand::Random) => {
                let keys = space.iter().map(|(key, _)| Reply::Value(Value::Text(key.into()))).collect();
                picks(Some(Reply::Container(Shape::Array, keys)), &None, false)
            }
            Command::Set(SetCommand::Random { key, count }) => {
                let whole = value(key).and_then(|value| match value {
                    Value::Set(members) => Some(items(members.iter().collect())),
                    _ => None,
                });
                picks(whole, count, false)
            }
            Command::Hash(HashCommand::Random { key, count, values }) => {
                let whole = value(key).and_then(|value| match value {
                    Value::Hash(fields) => Some(firsts(fields, *values, false)),
                    _ => None,
                });
                picks(whole, count, *values)
            }
            Command::ZSet(ZSetCommand::Random { key, count, with_scores }) => {
                let whole = value(key).and_then(|value| match value {
                    Value::SortedSet(set) => Some(firsts(&pairs_of(set).1, *with_scores, true)),
                    _ => None,
                });
                picks(whole, count, *with_scores)
            }
            Command::Key(KeyCommand::Scan { cursor, options }) => {
                Check::Walk { cursor: *cursor, width: 1 + usize::from(options.values) }
            }
            Command::Set(SetCommand::Scan { cursor, .. }) => Check::Walk { cursor: *cursor, width: 1 },
            Command::Hash(HashCommand::Scan { cursor, options, .. }) => {
                Check::Walk { cursor: *cursor, width: 1 + usize::from(options.values) }
            }
            Command::ZSet(ZSetCommand::Scan { cursor, .. }) => Check::Walk { cursor: *cursor, width: 2 },
            _ => Check::Exact,
        }
    }

    /// Puts the members that were observed to be popped in front, where the model pops.
    fn prefer(&mut self, namespace: usize, key: Key<'_>, observed: &Reply) {
        let space = self.model.space_mut(namespace);
        let Some(entry) = space.entries.get_mut(key.as_str()) else { return };
        let Value::Set(members) = &mut entry.value else { return };
        let popped: Vec<Vec<u8>> = match observed {
            Reply::Value(value) => vec![value.encode()],
            Reply::Container(_, items) => items.iter().filter_map(encoded).collect(),
            _ => Vec::new(),
        };
        // The sort is stable: what was not popped keeps its order.
        members.sort_by_key(|member| !popped.contains(&member.encode()));
    }

    /// Compares versions, and makes them alike in both replies.
    fn take_versions(
        &mut self,
        namespace: usize,
        command: &Command<'_>,
        expected: &mut Reply,
        observed: &mut Reply,
    ) -> Result<(), String> {
        let Command::State(command) = command else { return Ok(()) };
        let KeySet::One(key) = Command::State(*command).keys() else { return Ok(()) };
        let (ours, theirs) = match (&*expected, &mut *observed) {
            (Reply::Error(expected), Reply::Error(observed)) => match (expected.found(), observed.found()) {
                (Some(expected), Some(observed)) => (expected.version, observed.version),
                _ => return Ok(()),
            },
            (Reply::Integer(expected), Reply::Integer(observed))
                if matches!(command, StateCommand::SetIfVersion { .. }) =>
            {
                let versions = (expected.cast_unsigned(), observed.cast_unsigned());
                *observed = *expected;
                versions
            }
            (Reply::Container(_, expected), Reply::Container(_, observed)) => {
                match (expected.last(), observed.last_mut()) {
                    (Some(Reply::Integer(expected)), Some(Reply::Integer(observed))) => {
                        let versions = (expected.cast_unsigned(), observed.cast_unsigned());
                        *observed = *expected;
                        versions
                    }
                    _ => return Ok(()),
                }
            }
            _ => return Ok(()),
        };
        self.see_version(namespace, key.as_str(), ours, theirs)
    }

    /// Takes note of a version that was observed while the model's key has version `ours`.
    pub fn see_version(&mut self, namespace: usize, key: &str, ours: u64, theirs: u64) -> Result<(), String> {
        let wrong = |why: &str| Err(format!("version of {key:?} is {theirs}, the model's is {ours}: {why}"));
        if (ours == 0) != (theirs == 0) {
            return wrong("zero means that there is no key");
        }
        let known = self.versions.entry((namespace, key.to_owned())).or_default();
        if let Some(before) = known.insert(ours, theirs)
            && before != theirs
        {
            return wrong("it changed without a change of the key");
        }
        if known.range(..ours).next_back().is_some_and(|(_, earlier)| *earlier >= theirs && ours != 0) {
            return wrong("it did not grow with a change of the key");
        }
        Ok(())
    }
}

/// Whether two errors may be the answer to one command: they are of one kind, or one finds fault with an argument and
/// the other with what is stored. Where both are wrong, either may be told.
pub fn same_fault(one: &Error, other: &Error) -> bool {
    let is_stored = |error: &Error| {
        matches!(
            error.kind(),
            ErrorKind::WrongType | ErrorKind::Conflict | ErrorKind::NotFound | ErrorKind::State
        )
    };
    one.kind() == other.kind() || is_stored(one) != is_stored(other)
}

fn encoded(reply: &Reply) -> Option<Vec<u8>> {
    match reply {
        Reply::Value(value) => Some(value.encode()),
        _ => None,
    }
}

/// The items of a reply in groups of `width`.
fn groups(reply: &Reply, width: usize, untyped: bool) -> Vec<String> {
    let line = |group: &[Reply]| group.iter().map(|item| print(item, untyped)).collect::<Vec<_>>().join(" ");
    match reply {
        Reply::Container(_, items) => items.chunks(width).map(line).collect(),
        single => vec![print(single, untyped)],
    }
}

fn has_repeats(groups: &[String]) -> bool {
    groups.iter().enumerate().any(|(at, group)| groups[..at].contains(group))
}

fn picked(
    expected: &Reply,
    observed: &Reply,
    whole: &[String],
    repeats: bool,
    groups: impl Fn(&Reply) -> Vec<String>,
) -> bool {
    let same_shape = match (expected, observed) {
        (Reply::Container(_, expected), Reply::Container(..)) if expected.is_empty() => true,
        (Reply::Container(one, _), Reply::Container(other, _)) => one == other,
        (Reply::Container(..), _) | (_, Reply::Container(..)) => false,
        (Reply::Missing, _) => return *observed == Reply::Missing,
        _ => true,
    };
    let picks = groups(observed);
    same_shape
        && groups(expected).len() == picks.len()
        && picks.iter().all(|pick| whole.contains(pick))
        && (repeats || !has_repeats(&picks))
}

fn walked(expected: &Reply, observed: &Reply, cursor: u64, groups: impl Fn(&Reply) -> Vec<String>) -> bool {
    let (Reply::Container(_, expected), Reply::Container(Shape::Array, observed)) = (expected, observed)
    else {
        return false;
    };
    let ([_, all], [Reply::Value(Value::Text(next)), part]) = (&expected[..], &observed[..]) else {
        return false;
    };
    let (all, part) = (groups(all), groups(part));
    let whole = cursor == 0 && &**next == "0";
    part.iter().all(|item| all.contains(item)) && !has_repeats(&part) && (!whole || part.len() == all.len())
}
