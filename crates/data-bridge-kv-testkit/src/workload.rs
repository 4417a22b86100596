//! A seeded generator of commands that collide: few keys of every kind, typed and untyped arguments for the same
//! members, numbers at the edges, deadlines around the time that is now.
//!
//! A command is generated in an owned form and built through its row of the command table, as both protocols do.

use data_bridge_kv_model::command::table::by_opcode;
use data_bridge_kv_model::{Arg, Call, Kind, Result, Value, ValueRef};

use crate::random::Random;

mod grammar;
mod words;

pub use grammar::{Family, GRAMMAR, Rule};

/// The keys that commands work on.
pub const KEYS: [&str; 6] = ["a", "b", "c", "key:d", "key:e", "\u{e9}"];

/// Which version an argument stands for; each store fills in its own number.
#[derive(Clone, Debug, PartialEq)]
pub enum VersionOf {
    /// The version that the key has now.
    Current(String),
    /// One that it had before, or never.
    Stale(String),
}

/// One argument in an owned form.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    /// See [`Arg::Untyped`].
    Untyped(Vec<u8>),
    /// See [`Arg::Value`]: the encoded value.
    Value(Vec<u8>),
    /// See [`Arg::Literal`].
    Literal(Kind, Vec<u8>),
    /// A version of a key.
    Version(VersionOf),
}

/// A command in an owned form.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The row of the command table.
    pub opcode: u16,
    /// The arguments.
    pub words: Vec<Word>,
}

impl Request {
    /// The request with every version filled in.
    pub fn resolved(&self, version: impl Fn(&VersionOf) -> u64) -> Request {
        let words = self.words.iter().map(|word| match word {
            Word::Version(of) => Word::value(&Value::Int(version(of).cast_signed())),
            other => other.clone(),
        });
        Request { opcode: self.opcode, words: words.collect() }
    }

    /// The arguments, borrowed; versions must be filled in.
    pub fn args(&self) -> Vec<Arg<'_>> {
        self.words.iter().map(Word::arg).collect()
    }

    /// The command, or why its arguments are refused.
    pub fn call<'a>(&self, args: &'a [Arg<'a>]) -> Result<Call<'a>> {
        by_opcode(self.opcode).expect("the grammar names known commands").call(args)
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let name = by_opcode(self.opcode).map_or("?", |spec| spec.name);
        let words: Vec<String> = self.words.iter().map(Word::line).collect();
        format!("{name} {}", words.join(" "))
    }
}

impl Word {
    /// A typed argument.
    pub fn value(value: &Value) -> Word {
        Word::Value(value.encode())
    }

    fn arg(&self) -> Arg<'_> {
        match self {
            Word::Untyped(bytes) => Arg::Untyped(bytes),
            Word::Value(encoded) => {
                Arg::Value(ValueRef::decode(encoded).expect("the generator encodes well"))
            }
            Word::Literal(kind, text) => Arg::Literal(*kind, text),
            Word::Version(_) => panic!("a version was not filled in"),
        }
    }

    fn line(&self) -> String {
        match self {
            Word::Untyped(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
            Word::Value(encoded) => match Value::decode(encoded) {
                Ok(value) => format!("{value:?}"),
                Err(error) => format!("<{error}>"),
            },
            Word::Literal(kind, text) => format!("{} as {}", String::from_utf8_lossy(text), kind.name()),
            Word::Version(of) => format!("<{of:?}>"),
        }
    }
}

/// Generates requests.
#[derive(Clone, Debug)]
pub struct Workload {
    random: Random,
    /// The time that absolute deadlines are put around, unix ms.
    pub now: u64,
    /// Whether arguments may be typed and commands our own.
    typed: bool,
    rules: Vec<&'static Rule>,
}

impl Workload {
    /// All commands, typed and untyped.
    pub fn new(seed: u64, now: u64) -> Workload {
        Workload { random: Random::new(seed), now, typed: true, rules: GRAMMAR.iter().collect() }
    }

    /// Only what a Redis client can say to a Redis server.
    pub fn redis(seed: u64, now: u64) -> Workload {
        let rules = GRAMMAR.iter().filter(|rule| rule.redis).collect();
        Workload { random: Random::new(seed), now, typed: false, rules }
    }

    /// Only the families for which `wanted` holds.
    pub fn only(mut self, wanted: impl Fn(Family) -> bool) -> Workload {
        self.rules.retain(|rule| wanted(rule.family));
        self
    }

    /// The next request.
    pub fn request(&mut self) -> Request {
        let rule = *self.random.pick(&self.rules);
        let typed = self.typed && !self.random.one_in(3);
        words::Generator { random: &mut self.random, now: self.now, typed }.request(rule)
    }

    /// How far the clock moves now: mostly not at all.
    pub fn pause(&mut self) -> u64 {
        if self.random.one_in(10) { *self.random.pick(&[1, 1, 5, 49, 50, 1000, 1001, 100_000]) } else { 0 }
    }

    /// A random number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.random.below(end)
    }
}
