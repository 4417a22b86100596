//! Which keys a command touches: what the engine locks before it runs.

use super::{
    Command, HashCommand, KeyCommand, Keys, ListCommand, NumberCommand, ScalarCommand, SetCommand,
    StateCommand, ZSetCommand,
};
use crate::key::Key;

/// The keys of a command.
#[derive(Clone, Copy, Debug)]
pub enum KeySet<'a> {
    /// None, or the whole namespace.
    None,
    /// One.
    One(Key<'a>),
    /// Two.
    Two(Key<'a>, Key<'a>),
    /// Any number, and perhaps one more in front.
    Many(Option<Key<'a>>, Keys<'a>),
}

impl<'a> KeySet<'a> {
    /// The bytes of the only key, if there is exactly one.
    #[inline]
    pub fn only(self) -> Option<&'a [u8]> {
        match self {
            KeySet::One(key) => Some(key.as_bytes()),
            KeySet::None | KeySet::Two(..) | KeySet::Many(..) => None,
        }
    }

    /// Calls `visit` for every key.
    pub fn for_each(self, mut visit: impl FnMut(Key<'a>)) {
        match self {
            KeySet::None => {}
            KeySet::One(key) => visit(key),
            KeySet::Two(first, second) => {
                visit(first);
                visit(second);
            }
            KeySet::Many(first, keys) => {
                first.into_iter().for_each(&mut visit);
                keys.iter().for_each(visit);
            }
        }
    }
}

impl<'a> Command<'a> {
    /// Whether it works on a list, set, hash or sorted set.
    #[inline]
    pub fn is_on_collection(&self) -> bool {
        match self {
            Command::List(_) | Command::Set(_) | Command::Hash(_) | Command::ZSet(_) => true,
            Command::Scalar(_)
            | Command::Number(_)
            | Command::Key(_)
            | Command::State(_)
            | Command::Connection(_) => false,
        }
    }

    /// The keys that it reads or writes.
    #[inline]
    pub fn keys(&self) -> KeySet<'a> {
        match self {
            Command::Scalar(command) => scalar(command),
            Command::Number(NumberCommand::Add { key, .. }) => KeySet::One(*key),
            Command::Key(command) => key(command),
            Command::List(command) => list(command),
            Command::Set(command) => set(command),
            Command::Hash(command) => KeySet::One(hash(command)),
            Command::ZSet(command) => zset(command),
            Command::State(command) => state(command),
            Command::Connection(_) => KeySet::None,
        }
    }
}

#[inline]
fn scalar<'a>(command: &ScalarCommand<'a>) -> KeySet<'a> {
    match command {
        ScalarCommand::Get { key, .. }
        | ScalarCommand::Set { key, .. }
        | ScalarCommand::Pop { key, .. }
        | ScalarCommand::GetExpire { key, .. }
        | ScalarCommand::Append { key, .. }
        | ScalarCommand::Length { key }
        | ScalarCommand::GetRange { key, .. }
        | ScalarCommand::SetRange { key, .. }
        | ScalarCommand::GetBit { key, .. }
        | ScalarCommand::SetBit { key, .. }
        | ScalarCommand::CountBits { key, .. }
        | ScalarCommand::FindBit { key, .. } => KeySet::One(*key),
        ScalarCommand::MultiGet { keys, .. } => KeySet::Many(None, *keys),
        ScalarCommand::MultiSet { pairs, .. } => KeySet::Many(None, *pairs),
    }
}

fn key<'a>(command: &KeyCommand<'a>) -> KeySet<'a> {
    match command {
        KeyCommand::Delete { keys } | KeyCommand::Exists { keys } | KeyCommand::Touch { keys } => {
            KeySet::Many(None, *keys)
        }
        KeyCommand::Expire { key, .. }
        | KeyCommand::Ttl { key, .. }
        | KeyCommand::Persist { key }
        | KeyCommand::Type { key }
        | KeyCommand::Kind { key }
        | KeyCommand::Memory { key } => KeySet::One(*key),
        KeyCommand::Rename { from, to, .. } | KeyCommand::Copy { from, to, .. } => KeySet::Two(*from, *to),
        KeyCommand::Scan { .. }
        | KeyCommand::Keys { .. }
        | KeyCommand::Random
        | KeyCommand::Size
        | KeyCommand::Sync { .. }
        | KeyCommand::Flush { .. }
        | KeyCommand::Clear { .. } => KeySet::None,
    }
}

fn list<'a>(command: &ListCommand<'a>) -> KeySet<'a> {
    match command {
        ListCommand::Push { key, .. }
        | ListCommand::Pop { key, .. }
        | ListCommand::Index { key, .. }
        | ListCommand::Range { key, .. }
        | ListCommand::Length { key }
        | ListCommand::Set { key, .. }
        | ListCommand::Remove { key, .. }
        | ListCommand::Trim { key, .. }
        | ListCommand::Insert { key, .. }
        | ListCommand::InsertAt { key, .. }
        | ListCommand::RemoveAt { key, .. }
        | ListCommand::Position { key, .. } => KeySet::One(*key),
        ListCommand::PopFirst { keys, .. } => KeySet::Many(None, *keys),
        ListCommand::Move { from, to, .. } => KeySet::Two(*from, *to),
    }
}

fn set<'a>(command: &SetCommand<'a>) -> KeySet<'a> {
    match command {
        SetCommand::Add { key, .. }
        | SetCommand::Remove { key, .. }
        | SetCommand::Contains { key, .. }
        | SetCommand::ContainsMany { key, .. }
        | SetCommand::Members { key }
        | SetCommand::Length { key }
        | SetCommand::Pop { key, .. }
        | SetCommand::Random { key, .. }
        | SetCommand::Scan { key, .. } => KeySet::One(*key),
        SetCommand::Move { from, to, .. } => KeySet::Two(*from, *to),
        SetCommand::Combine { store, keys, .. } => KeySet::Many(*store, *keys),
        SetCommand::CountCommon { keys, .. } => KeySet::Many(None, *keys),
    }
}

fn hash<'a>(command: &HashCommand<'a>) -> Key<'a> {
    match command {
        HashCommand::Set { key, .. }
        | HashCommand::SetIfAbsent { key, .. }
        | HashCommand::SetDefault { key, .. }
        | HashCommand::Get { key, .. }
        | HashCommand::MultiGet { key, .. }
        | HashCommand::Delete { key, .. }
        | HashCommand::Pop { key, .. }
        | HashCommand::All { key }
        | HashCommand::Fields { key }
        | HashCommand::Values { key }
        | HashCommand::Length { key }
        | HashCommand::Contains { key, .. }
        | HashCommand::Add { key, .. }
        | HashCommand::ValueLength { key, .. }
        | HashCommand::Random { key, .. }
        | HashCommand::Scan { key, .. } => *key,
    }
}

fn zset<'a>(command: &ZSetCommand<'a>) -> KeySet<'a> {
    match command {
        ZSetCommand::Add { key, .. }
        | ZSetCommand::Remove { key, .. }
        | ZSetCommand::Score { key, .. }
        | ZSetCommand::Scores { key, .. }
        | ZSetCommand::Length { key }
        | ZSetCommand::Count { key, .. }
        | ZSetCommand::Rank { key, .. }
        | ZSetCommand::Range { key, .. }
        | ZSetCommand::RemoveRange { key, .. }
        | ZSetCommand::Pop { key, .. }
        | ZSetCommand::Random { key, .. }
        | ZSetCommand::Scan { key, .. } => KeySet::One(*key),
        ZSetCommand::StoreRange { to, from, .. } => KeySet::Two(*to, *from),
        ZSetCommand::Combine { store, combination, .. } => KeySet::Many(*store, combination.keys),
        ZSetCommand::CountCommon { keys, .. } => KeySet::Many(None, *keys),
        ZSetCommand::PopFirst { keys, .. } => KeySet::Many(None, *keys),
    }
}

fn state<'a>(command: &StateCommand<'a>) -> KeySet<'a> {
    match command {
        StateCommand::CompareAndSet { key, .. }
        | StateCommand::CompareAndDelete { key, .. }
        | StateCommand::GetVersioned { key }
        | StateCommand::SetIfVersion { key, .. }
        | StateCommand::DeleteIfVersion { key, .. }
        | StateCommand::Wait { key, .. } => KeySet::One(*key),
        StateCommand::Transition(step) => KeySet::One(step.key),
        StateCommand::Watch { .. } | StateCommand::Unwatch { .. } => KeySet::None,
    }
}
