//! Commands as data: what both protocols and the bindings ask of the engine.
//!
//! `table.rs` declares every command once; one file per family holds its enum and the functions that read its
//! arguments. An enum borrows the arguments: building a command allocates nothing.

use crate::arg::{Arg, Args};
use crate::codec::ValueRef;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::limits::ARGUMENTS;

mod connection;
mod hash;
mod key;
mod keys;
mod list;
mod number;
mod scalar;
mod set;
mod state;
pub mod table;
mod zset;

pub use connection::ConnectionCommand;
pub use hash::HashCommand;
pub use key::{ExpireCondition, KeyCommand, ScanOptions, TimeUnit};
pub use keys::KeySet;
pub use list::{End, ListCommand, Patience, Search};
pub use number::{NumberCommand, NumberStyle};
pub use scalar::{BitRange, Condition, Expiry, ScalarCommand, SetOptions, SetReply};
pub use set::{SetCommand, SetOperation};
pub use state::{Expected, StateCommand, Target, Transition, Until};
pub use table::Spec;
pub use zset::{AddOptions, Aggregate, Combination, LexBound, RangeBy, ScoreBound, ZSetCommand};

/// One command with its arguments.
#[derive(Clone, Copy, Debug)]
pub enum Command<'a> {
    /// On one or more scalar values.
    Scalar(ScalarCommand<'a>),
    /// On numbers.
    Number(NumberCommand<'a>),
    /// On keys of any kind.
    Key(KeyCommand<'a>),
    /// On lists.
    List(ListCommand<'a>),
    /// On sets.
    Set(SetCommand<'a>),
    /// On hashes.
    Hash(HashCommand<'a>),
    /// On sorted sets.
    ZSet(ZSetCommand<'a>),
    /// Compare-and-set, transitions, waiting.
    State(StateCommand<'a>),
    /// For the connection, not the engine.
    Connection(ConnectionCommand<'a>),
}

/// A command together with its row of the table: what the engine executes.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The row.
    pub spec: &'static Spec,
    /// The command.
    pub command: Command<'a>,
    /// How much it brings.
    pub load: Load,
}

/// How much a request brings: how many arguments, and their bytes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Arguments.
    pub args: usize,
    /// Their bytes.
    pub bytes: usize,
}

impl Load {
    /// Of these arguments.
    #[inline]
    pub fn of(args: &[Arg<'_>]) -> Load {
        let bytes = args.iter().map(|arg| match arg {
            Arg::Untyped(bytes) | Arg::Literal(_, bytes) => bytes.len(),
            Arg::Value(value) => value.payload().len(),
        });
        Load { args: args.len(), bytes: bytes.sum() }
    }
}

/// What a command comes down to that reads, writes or counts up the value of one key and does nothing else.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Direct<'a> {
    /// The value of this key is read.
    Read(Key<'a>),
    /// This value is written to this key, without options.
    Write(Key<'a>, ValueRef<'a>),
    /// So much is added to the integer of this key, as INCR does.
    Add(Key<'a>, i64),
}

/// Several keys that were validated when the command was built.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    args: &'a [Arg<'a>],
    step: usize,
}

impl<'a> Keys<'a> {
    /// Validates every `step`-th argument as a key.
    pub fn new(args: &'a [Arg<'a>], step: usize) -> Result<Keys<'a>> {
        for arg in args.iter().step_by(step) {
            arg.key()?;
        }
        Ok(Keys { args, step })
    }

    /// The keys in order.
    pub fn iter(self) -> impl Iterator<Item = Key<'a>> {
        self.args.iter().step_by(self.step).filter_map(|arg| arg.key().ok())
    }

    /// Key and value pairs, for a step of two.
    pub fn pairs(self) -> impl Iterator<Item = (Key<'a>, Arg<'a>)> {
        self.args.chunks_exact(2).filter_map(|pair| match pair {
            [key, value] => Some((key.key().ok()?, *value)),
            _ => None,
        })
    }

    /// How many keys.
    pub fn len(self) -> usize {
        self.args.len().div_ceil(self.step)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.args.is_empty()
    }
}

impl Spec {
    /// Builds the command from its arguments: arity first, then the family's parser, which must take them all.
    #[inline]
    pub fn build<'a>(&self, args: &'a [Arg<'a>]) -> Result<Command<'a>> {
        if args.len() < self.min_args || args.len() > self.max_args {
            return Err(self.wrong_arity(args.len()));
        }
        let mut cursor = Args::new(args);
        // Built where the caller wants it: a command is too large to be moved for nothing.
        let mut built = (self.parse)(&mut cursor);
        if built.is_ok()
            && let Err(leftover) = cursor.finish()
        {
            built = Err(leftover);
        }
        built
    }

    /// Builds the command and keeps its row beside it.
    #[inline]
    pub fn call<'a>(&'static self, args: &'a [Arg<'a>]) -> Result<Call<'a>> {
        Ok(Call { spec: self, command: self.build(args)?, load: Load::of(args) })
    }

    /// The bytes of the key among the arguments, for a command that has exactly one at a fixed place.
    #[inline]
    pub fn only_key<'a>(&self, args: &[Arg<'a>]) -> Option<&'a [u8]> {
        if self.keys.first != self.keys.last || self.has(table::COUNTED) {
            return None;
        }
        // Without keys there is no such place.
        args.get(usize::from(self.keys.first.unsigned_abs()).wrapping_sub(1))?.content()
    }

    /// What the command comes down to, if these arguments make it a plain read or write of one value. Then it needs not be
    /// built: who finds the way free carries it out. `None` for whatever is more, and for what can't be built.
    #[inline]
    pub fn direct<'a>(&self, args: &[Arg<'a>]) -> Option<Direct<'a>> {
        if !self.has(table::DIRECT) {
            return None;
        }
        let key = |arg: &Arg<'a>| Key::new(arg.content()?).ok();
        if self.has(table::ADDS) {
            return match args {
                [name] if self.max_args == 1 => Some(Direct::Add(key(name)?, 1)),
                [name, by] if self.max_args == 2 => Some(Direct::Add(key(name)?, by.int().ok()?)),
                _ => None,
            };
        }
        match (self.has(table::READ), args) {
            (true, [name]) => Some(Direct::Read(key(name)?)),
            (false, [name, Arg::Untyped(bytes)]) => Some(Direct::Write(key(name)?, ValueRef::bytes(bytes))),
            (false, [name, Arg::Value(value)]) => Some(Direct::Write(key(name)?, *value)),
            _ => None,
        }
    }

    /// The element of its key's collection among the arguments, where it names one; the first one of several.
    #[inline]
    pub fn element<'a>(&self, args: &[Arg<'a>]) -> Option<Arg<'a>> {
        let place = match self.flags & (table::ELEMENT | table::LATER_ELEMENT) {
            0 => return None,
            table::ELEMENT => 1,
            _ => 2,
        };
        args.get(place).copied()
    }

    #[cold]
    fn wrong_arity(&self, count: usize) -> Error {
        if count > ARGUMENTS {
            return too_many_arguments(ARGUMENTS);
        }
        Error::invalid(format!("wrong number of arguments for '{}' command", self.name.to_ascii_lowercase()))
    }
}

/// What a command gets that has more arguments than may be sent at once.
#[cold]
pub fn too_many_arguments(most: usize) -> Error {
    Error::new(ErrorKind::Limit, format!("too many arguments: {most} at most"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    /// What a command reads or writes that was built in full, if it does nothing else.
    fn built<'a>(spec: &Spec, args: &'a [Arg<'a>]) -> Option<Direct<'a>> {
        match spec.build(args).ok()? {
            Command::Scalar(ScalarCommand::Get { key, .. }) => Some(Direct::Read(key)),
            Command::Scalar(ScalarCommand::Set { key, value: Arg::Untyped(bytes), options })
                if SetOptions { any_kind: false, ..options } == SetOptions::PLAIN =>
            {
                Some(Direct::Write(key, ValueRef::bytes(bytes)))
            }
            Command::Scalar(ScalarCommand::Set { key, value: Arg::Value(value), options })
                if SetOptions { any_kind: false, ..options } == SetOptions::PLAIN =>
            {
                Some(Direct::Write(key, value))
            }
            Command::Number(NumberCommand::Add {
                key,
                by,
                negate: false,
                style: NumberStyle::RedisInteger,
                ..
            }) => Some(Direct::Add(key, by.int().ok()?)),
            _ => None,
        }
    }

    #[test]
    fn what_is_direct_is_what_would_be_built() {
        let long = "x".repeat(300);
        let (key, bytes) = (Arg::Value(ValueRef::text("key")), Arg::Untyped(b"bytes"));
        let number = Arg::Value(ValueRef::from_static(Kind::Int, &[1, 0, 0, 0, 0, 0, 0, 0]));
        let literal = Arg::Literal(Kind::Int, b"1");
        let lists: [&[Arg<'_>]; 11] = [
            &[],
            &[bytes],
            &[key],
            &[number],
            &[Arg::Untyped(long.as_bytes())],
            &[bytes, bytes],
            &[key, number],
            &[number, bytes],
            &[key, literal],
            &[bytes, bytes, Arg::Untyped(b"KEEPTTL")],
            &[bytes, bytes, Arg::Untyped(b"NX")],
        ];
        let (mut direct, mut other) = (0, 0);
        for spec in table::COMMANDS {
            for args in lists {
                match spec.direct(args) {
                    Some(found) => {
                        assert_eq!(Some(found), built(spec, args), "{} {args:?}", spec.name);
                        direct += 1;
                    }
                    None => other += 1,
                }
            }
        }
        // GET and KV.GET of two keys; SET and KV.SET of bytes and of a number; INCR of two keys, INCRBY with two numbers.
        assert_eq!((direct, other), (12, 11 * table::COMMANDS.len() - 12));
    }
}
