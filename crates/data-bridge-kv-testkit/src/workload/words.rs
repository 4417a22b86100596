//! How each token of the grammar becomes an argument.

use data_bridge_kv_model::value::{BigInt, Moment};
use data_bridge_kv_model::{Decimal, Kind, Value};

use super::grammar::Rule;
use super::{KEYS, Request, VersionOf, Word};
use crate::random::Random;
use crate::reference::{sorted_set, stored};

/// Makes the words of one request.
pub(super) struct Generator<'r> {
    pub(super) random: &'r mut Random,
    pub(super) now: u64,
    pub(super) typed: bool,
}

/// What untyped clients write: texts, numbers in many forms, bytes that are no text.
const TEXTS: [&[u8]; 14] = [
    b"a",
    b"b",
    b"",
    b"5",
    b"10",
    b"-3",
    b"1.5",
    b"1.10",
    b"true",
    b"abc",
    b"9223372036854775807",
    b"3.0e3",
    b"\xff\x00",
    b"0123456789012345678901234567890123456789",
];
const MEMBERS: [&[u8]; 9] = [b"a", b"b", b"c", b"5", b"1.5", b"1.10", b"", b"true", b"\xff"];
const STATES: [&str; 3] = ["A", "B", "C"];
const INTS: [i64; 9] = [1, -1, 0, 2, 5, 10, i64::MAX, i64::MIN, 1 << 53];
const INDEXES: [i64; 10] = [0, 1, 2, 3, -1, -2, -3, 100, -100, i64::MAX];
const DECIMALS: [&str; 8] =
    ["1.10", "1.1", "5", "-0.00", "1E+5", "0.1", "99999999999999999999999999999999999999", "-3.5"];
const FLOATS: [f64; 10] =
    [1.5, 0.1, 5.0, -0.0, 0.0, -2.25, 1e300, f64::INFINITY, f64::NAN, 9_007_199_254_740_992.0];

impl Generator<'_> {
    pub(super) fn request(&mut self, rule: &Rule) -> Request {
        let mut words = Vec::new();
        for token in rule.form.split_whitespace() {
            self.token(token, &mut words);
        }
        Request { opcode: rule.opcode, words }
    }

    fn token(&mut self, token: &str, words: &mut Vec<Word>) {
        let token = match token.strip_prefix('?') {
            Some(_) if !self.random.one_in(3) => return,
            Some(rest) => rest,
            None => token,
        };
        let alternatives: Vec<&str> = token.split('|').collect();
        let chosen = *self.random.pick(&alternatives);
        let (chosen, times) = match chosen.strip_suffix('+') {
            Some(rest) => (rest, 1 + self.random.below(3)),
            None => (chosen, 1),
        };
        for _ in 0..times {
            chosen.split('_').for_each(|part| {
                let word = self.word(part, words);
                words.push(word);
            });
        }
    }

    fn word(&mut self, token: &str, before: &[Word]) -> Word {
        match token {
            "key" => {
                let key = *self.random.pick(&KEYS);
                self.name(key)
            }
            "value" => self.value(),
            "member" => self.member(),
            "text" => {
                let text = *self.random.pick(&TEXTS);
                self.bytes(text)
            }
            "prefix" => {
                let prefix = *self.random.pick(&["key:", "a", "nothing", ""]);
                self.name(prefix)
            }
            "state" => {
                let state = *self.random.pick(&STATES);
                self.name(state)
            }
            "field" => self.name("status"),
            "int" => {
                let number = *self.random.pick(&INTS);
                self.integer(number)
            }
            "index" => {
                let number = *self.random.pick(&INDEXES);
                self.integer(number)
            }
            "count" => self.pick_integer(&[0, 1, 2, 3, 100]),
            "picks" => self.pick_integer(&[0, 1, 2, 100, -1, -3]),
            "bit" => self.pick_integer(&[0, 1]),
            "offset" => self.pick_integer(&[0, 1, 2, 20, 70]),
            "float" => self.fraction(),
            "number" => self.number(),
            "score" => self.score(),
            "bound" => self.bound(),
            "weight" => self.pick_weight(),
            "lexend" => {
                let text = *self.random.pick(&["-", "+", "-", "+", "x"]);
                self.name(text)
            }
            "lex" => {
                let text =
                    *self.random.pick(&["-", "+", "-", "+", "[a", "(a", "[b", "(c", "[5", "[", "(", "x", ""]);
                self.name(text)
            }
            "seconds" => self.pick_integer(&[1, 2, 100, 1000, -1, 0]),
            "ms" => self.pick_integer(&[1, 5, 50, 1000, 100_000, 1_000_000]),
            "at" => self.around(self.now / 1000, &[-1, 1, 2, 100]),
            "atms" => self.around(self.now, &[-1, 0, 1, 50, 1000, 100_000]),
            "glob" => {
                let glob = *self.random.pick(&["*", "key:*", "?", "[ab]", "nothing", "*5"]);
                self.name(glob)
            }
            "kind" => {
                let kind = *self.random.pick(&Kind::ALL);
                self.name(kind.name())
            }
            "redistype" => {
                let word = *self.random.pick(&["string", "list", "set", "zset", "hash"]);
                self.name(word)
            }
            "version" => self.version(before),
            literal => self.name(literal),
        }
    }

    /// A word or name: text for typed callers.
    fn name(&mut self, name: &str) -> Word {
        if self.typed { Word::value(&Value::Text(name.into())) } else { Word::Untyped(name.into()) }
    }

    /// A string: Text or Bytes for typed callers.
    fn bytes(&mut self, bytes: &[u8]) -> Word {
        if !self.typed || self.random.one_in(3) {
            return Word::Untyped(bytes.to_vec());
        }
        Word::value(&self.string(bytes))
    }

    fn string(&mut self, bytes: &[u8]) -> Value {
        match std::str::from_utf8(bytes) {
            Ok(text) if self.random.one_in(2) => Value::Text(text.into()),
            _ => Value::Bytes(bytes.into()),
        }
    }

    fn integer(&mut self, number: i64) -> Word {
        if self.typed { Word::value(&Value::Int(number)) } else { Word::Untyped(number.to_string().into()) }
    }

    fn pick_integer(&mut self, from: &[i64]) -> Word {
        let number = *self.random.pick(from);
        self.integer(number)
    }

    fn around(&mut self, now: u64, distances: &[i64]) -> Word {
        let distance = *self.random.pick(distances);
        self.integer(now.saturating_add_signed(distance).cast_signed())
    }

    fn decimal(&mut self) -> Value {
        let text = *self.random.pick(&DECIMALS);
        Value::Decimal(text.parse::<Decimal>().expect("a decimal"))
    }

    fn value(&mut self) -> Word {
        if self.typed && self.random.one_in(8) {
            let text = *self.random.pick(&["5", "1.10", "-0", "x"]);
            let kind = *self.random.pick(&[Kind::Int, Kind::Float, Kind::Decimal, Kind::Text]);
            return Word::Literal(kind, text.into());
        }
        if !self.typed {
            let text = *self.random.pick(&TEXTS);
            return Word::Untyped(text.to_vec());
        }
        let value = if self.random.one_in(3) { self.collection() } else { self.scalar() };
        Word::value(&value)
    }

    fn scalar(&mut self) -> Value {
        match self.random.below(16) {
            0..4 => {
                let text = *self.random.pick(&TEXTS);
                self.string(text)
            }
            4..7 => Value::Int(*self.random.pick(&INTS)),
            7..9 => Value::Float(*self.random.pick(&FLOATS)),
            9..11 => self.decimal(),
            11 => Value::Bool(self.random.one_in(2)),
            12 => Value::Null,
            13 => Value::BigInt(Box::new(BigInt {
                negative: false,
                magnitude: Box::new([0, 0, 0, 0, 0, 0, 0, 0, 1]),
            })),
            14 => Value::Timestamp(Box::new(Moment {
                local_us: 1_700_000_000_000_000,
                offset_us: Some(3_600_000_000),
                fold: false,
                zone: Some("Europe/Berlin".into()),
            })),
            _ => match self.random.below(5) {
                0 => Value::Date(20_000),
                1 => Value::Duration(-1, 5),
                2 => Value::Uuid([7; 16]),
                3 => Value::Opaque(Box::new(("pickle".into(), Box::new([1, 2])))),
                _ => Value::Time(Box::new(Moment { local_us: 1, offset_us: None, fold: true, zone: None })),
            },
        }
    }

    fn collection(&mut self) -> Value {
        let count = self.random.below(4);
        let members = |generator: &mut Self| -> Vec<Value> {
            let members = (0..count).map(|_| generator.member_value()).collect();
            match stored(Value::Set(members)) {
                Value::Set(members) => members,
                _ => Vec::new(),
            }
        };
        match self.random.below(7) {
            0 | 1 => {
                // Some are too long to be kept as they are written.
                let long = self.random.one_in(12).then(|| Value::Text("long".repeat(1100).into()));
                Value::List((0..count).map(|_| self.scalar()).chain(long).collect())
            }
            2 => Value::Set(members(self)),
            3 => {
                let fields = members(self);
                let state = self.random.one_in(3).then(|| {
                    let state = *self.random.pick(&STATES);
                    (Value::Text("status".into()), Value::Text(state.into()))
                });
                Value::Hash(fields.into_iter().map(|field| (field, self.scalar())).chain(state).collect())
            }
            4 => {
                let decimal = self.random.one_in(3);
                let scored = members(self).into_iter().map(|member| {
                    let score = Value::Float(*self.random.pick(&FLOATS[..7]));
                    (if decimal { self.decimal() } else { score }, member)
                });
                let scored = scored.collect();
                stored(sorted_set(if decimal { Kind::Decimal } else { Kind::Float }, scored))
            }
            5 => Value::Tuple(members(self)),
            _ => Value::Tagged(Box::new(("Point".into(), Value::List(vec![Value::Int(1)])))),
        }
    }

    fn member_value(&mut self) -> Value {
        match self.random.below(10) {
            0..5 => {
                let text = *self.random.pick(&MEMBERS);
                self.string(text)
            }
            5 => Value::Int(*self.random.pick(&[5, 1, 0])),
            6 => Value::Float(*self.random.pick(&FLOATS)),
            7 => self.decimal(),
            8 => Value::Bool(true),
            _ => match self.random.below(3) {
                0 => Value::Tuple(vec![Value::Int(1), Value::Text("a".into())]),
                1 => Value::FrozenSet(vec![Value::Int(1), Value::Int(2)]),
                _ => Value::Null,
            },
        }
    }

    fn member(&mut self) -> Word {
        if !self.typed || self.random.one_in(3) {
            let member = *self.random.pick(&MEMBERS);
            return Word::Untyped(member.to_vec());
        }
        // Once in a while what can be no member.
        let value = if self.random.one_in(30) { Value::List(Vec::new()) } else { self.member_value() };
        Word::value(&value)
    }

    fn fraction(&mut self) -> Word {
        let text = *self.random.pick(&["0.1", "0.2", "1.5", "-3", "3.0e3", "10", "x", "inf", "0.30"]);
        if self.typed && self.random.one_in(2) {
            return Word::value(&Value::Float(*self.random.pick(&FLOATS)));
        }
        self.bytes(text.as_bytes())
    }

    fn number(&mut self) -> Word {
        if !self.typed {
            let text = *self.random.pick(&["1", "-5", "0.10", "9223372036854775807", "x"]);
            return Word::Untyped(text.into());
        }
        let value = match self.random.below(8) {
            0..4 => Value::Int(*self.random.pick(&INTS)),
            4 | 5 => self.decimal(),
            6 => Value::Float(*self.random.pick(&FLOATS)),
            _ => Value::Text("1".into()),
        };
        Word::value(&value)
    }

    fn score(&mut self) -> Word {
        if !self.typed || self.random.one_in(3) {
            let text = *self.random.pick(&["1", "2", "-1.5", "0.1", "inf", "-inf", "3e2", "0", "x"]);
            return Word::Untyped(text.into());
        }
        let value = match self.random.below(6) {
            0 | 1 => Value::Int(*self.random.pick(&[1, 2, -1])),
            2 | 3 => Value::Float(*self.random.pick(&FLOATS)),
            _ => self.decimal(),
        };
        Word::value(&value)
    }

    fn bound(&mut self) -> Word {
        if self.typed && self.random.one_in(4) {
            return self.score();
        }
        let text = *self.random.pick(&["-inf", "+inf", "1", "(1", "2", "(0.1", "-1.5", "300", "x", "inf"]);
        self.name(text)
    }

    fn pick_weight(&mut self) -> Word {
        if self.typed && self.random.one_in(3) {
            return self.score();
        }
        let text = *self.random.pick(&["2", "1", "0", "-1.5", "inf", "0.1", "x"]);
        self.name(text)
    }

    fn version(&mut self, before: &[Word]) -> Word {
        let key = match before.first() {
            Some(Word::Untyped(key)) => String::from_utf8_lossy(key).into_owned(),
            Some(Word::Value(encoded)) => match Value::decode(encoded) {
                Ok(Value::Text(key)) => key.into(),
                _ => String::new(),
            },
            _ => String::new(),
        };
        Word::Version(if self.random.one_in(3) { VersionOf::Stale(key) } else { VersionOf::Current(key) })
    }
}
