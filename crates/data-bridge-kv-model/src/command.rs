//! Commands as data: what both protocols and the bindings ask of the engine.
//!
//! `table.rs` declares every command once; one file per family holds its enum and the functions that read its
//! arguments. An enum borrows the arguments: building a command allocates nothing.

use crate::arg::{Arg, Args};
use crate::error::{Error, Result};
use crate::key::Key;

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
pub use list::{End, ListCommand};
pub use number::{NumberCommand, NumberStyle};
pub use scalar::{Condition, Expiry, ScalarCommand, SetOptions, SetReply};
pub use set::{SetCommand, SetOperation};
pub use state::{Expected, StateCommand, Target, Transition, Until};
pub use table::Spec;
pub use zset::{AddOptions, RangeBy, ScoreBound, ZSetCommand};

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
            return Err(self.wrong_arity());
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
        let place = usize::try_from(self.keys.first).ok()?.checked_sub(1)?;
        if self.keys.first != self.keys.last {
            return None;
        }
        args.get(place)?.content()
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
    fn wrong_arity(&self) -> Error {
        Error::invalid(format!("wrong number of arguments for '{}' command", self.name.to_ascii_lowercase()))
    }
}
