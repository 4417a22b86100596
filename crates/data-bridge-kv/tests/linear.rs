//! Many threads on few keys. Every operation is timed by one counter, and each key's history must have an order that a
//! register with versions allows; steps over several keys must never be seen half done.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use data_bridge_kv::{Caller, Engine, OnError, Settings};
use data_bridge_kv_model::command::table::{by_opcode, opcode};
use data_bridge_kv_model::{Arg, Call, Reply, ReplyBuf, ReplyReader, Shape, Value};
use data_bridge_kv_testkit::history::{Register, RegisterOperation, Span, is_linearizable};
use data_bridge_kv_testkit::random::{Random, setting};

const THREADS: u64 = 4;
const KEYS: [&str; 2] = ["one", "two"];
const OPERATIONS: usize = 500;

fn engine(shards: usize) -> Engine {
    Engine::open(Settings { shards: Some(shards), ..Settings::default() }).unwrap()
}

/// How a command reaches the engine.
#[derive(Clone, Copy)]
enum Way {
    Alone,
    Batch,
    Atomic,
}

fn ask(engine: &Engine, caller: &Caller, way: Way, opcode: u16, words: &[&str]) -> Reply {
    let args: Vec<Arg<'_>> = words.iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
    let call = by_opcode(opcode).unwrap().call(&args).unwrap();
    let mut out = ReplyBuf::new();
    match way {
        Way::Alone => {
            let _ = engine.execute(caller, 0, &call, &mut out);
        }
        Way::Batch => engine.execute_batch(caller, 0, &[call], &mut out, &mut Vec::new()),
        Way::Atomic => drop(engine.execute_atomic(caller, &[call], OnError::Abort, &[], &mut out)),
    }
    match (way, ReplyReader::new(out.as_bytes()).reply().unwrap()) {
        (Way::Atomic, Reply::Container(Shape::Array, mut items)) => items.remove(0),
        (_, reply) => reply,
    }
}

fn number(reply: &Reply) -> Option<i64> {
    match reply {
        Reply::Missing => None,
        Reply::Integer(number) | Reply::Value(Value::Int(number)) => Some(*number),
        Reply::Value(Value::Bytes(text)) => Some(std::str::from_utf8(text).unwrap().parse().unwrap()),
        other => panic!("no number: {other:?}"),
    }
}

/// What one thread remembers to use again: versions that it saw.
struct Client<'e> {
    engine: &'e Engine,
    caller: Caller,
    random: Random,
    seen: Vec<u64>,
    /// Whether compare-and-set is done in two steps, as it must not be.
    torn: bool,
}

impl Client<'_> {
    fn ask(&mut self, opcode: u16, words: &[&str]) -> Reply {
        let way = *self.random.pick(&[Way::Alone, Way::Alone, Way::Batch, Way::Atomic]);
        ask(self.engine, &self.caller, way, opcode, words)
    }

    fn operate(&mut self, key: &str) -> RegisterOperation {
        let value = self.random.below(4) as i64;
        let text = value.to_string();
        match self.random.below(8) {
            0 => RegisterOperation::Get { found: number(&self.ask(opcode::GET, &[key])) },
            1 => {
                self.ask(opcode::SET, &[key, &text]);
                RegisterOperation::Set { value }
            }
            2 => {
                let sum = number(&self.ask(opcode::INCRBY, &[key, &text])).unwrap();
                RegisterOperation::Add { by: value, sum }
            }
            3 | 4 => {
                let expected = Some(self.random.below(4) as i64).filter(|expected| *expected > 0);
                let done = self.compare_and_set(key, expected, &text);
                RegisterOperation::CompareAndSet { expected, value, done }
            }
            5 => {
                let deleted = number(&self.ask(opcode::DEL, &[key]));
                RegisterOperation::Delete { was_there: deleted == Some(1) }
            }
            6 => match self.ask(opcode::KV_GETV, &[key]) {
                Reply::Missing => RegisterOperation::GetVersioned { found: None },
                Reply::Container(_, items) => {
                    let version = number(&items[1]).unwrap().cast_unsigned();
                    self.seen.push(version);
                    RegisterOperation::GetVersioned { found: Some((number(&items[0]).unwrap(), version)) }
                }
                other => panic!("{other:?}"),
            },
            _ => self.set_if_version(key, value, &text),
        }
    }

    fn compare_and_set(&mut self, key: &str, expected: Option<i64>, text: &str) -> bool {
        if self.torn {
            let holds = number(&self.ask(opcode::GET, &[key])) == expected;
            std::thread::yield_now();
            if holds {
                self.ask(opcode::SET, &[key, text]);
            }
            return holds;
        }
        let reply = match expected.map(|expected| expected.to_string()) {
            Some(expected) => self.ask(opcode::KV_CAS, &[key, "VALUE", &expected, "TO", text]),
            None => self.ask(opcode::KV_CAS, &[key, "MISSING", "TO", text]),
        };
        match reply {
            Reply::Boolean(done) => done,
            other => panic!("{other:?}"),
        }
    }

    fn set_if_version(&mut self, key: &str, value: i64, text: &str) -> RegisterOperation {
        let expected = match self.seen.last() {
            Some(version) if self.random.below(3) > 0 => *version,
            _ => 0,
        };
        let result = match self.ask(opcode::KV_SETV, &[key, text, &expected.to_string()]) {
            Reply::Integer(version) => {
                self.seen.push(version.cast_unsigned());
                Ok(version.cast_unsigned())
            }
            Reply::Error(error) => Err(error.found().expect("a conflict tells the version").version),
            other => panic!("{other:?}"),
        };
        RegisterOperation::SetIfVersion { expected, value, result }
    }
}

/// Runs one history; the keys whose history has no order.
fn broken_keys(seed: u64, torn: bool) -> Vec<String> {
    let engine = engine([1, 2, 8][(seed % 3) as usize]);
    let clock = AtomicU64::new(1);
    let start = Barrier::new(THREADS as usize);
    let spans: Vec<(usize, Span<RegisterOperation>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (engine, clock, start) = (&engine, &clock, &start);
                scope.spawn(move || {
                    let random = Random::new(seed * THREADS + thread);
                    let mut client =
                        Client { engine, caller: engine.caller(), random, seen: Vec::new(), torn };
                    start.wait();
                    let mut spans = Vec::new();
                    for _ in 0..OPERATIONS {
                        let key = client.random.below(KEYS.len());
                        let began = clock.fetch_add(1, Ordering::SeqCst);
                        let operation = client.operate(KEYS[key]);
                        spans.push((
                            key,
                            Span { began, ended: clock.fetch_add(1, Ordering::SeqCst), operation },
                        ));
                    }
                    spans
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let is_broken = |key: &usize| {
        let history: Vec<_> =
            spans.iter().filter(|(at, _)| at == key).map(|(_, span)| span.clone()).collect();
        assert!(!history.is_empty());
        !is_linearizable(&Register, &history)
    };
    (0..KEYS.len()).filter(is_broken).map(|key| KEYS[key].to_owned()).collect()
}

#[test]
fn every_history_has_an_order() {
    let (first, histories) = (setting("KV_SEED", 1), setting("KV_HISTORIES", 200));
    for seed in first..first + histories {
        let broken = broken_keys(seed, false);
        assert!(
            broken.is_empty(),
            "no order for {broken:?}\nreproduce (threads decide too): KV_SEED={seed} KV_HISTORIES=200 cargo test -p data-bridge-kv --test linear"
        );
    }
    let operations = histories * THREADS * OPERATIONS as u64;
    println!("{histories} histories with {operations} operations have an order");
}

#[test]
fn a_compare_and_set_in_two_steps_is_found() {
    let found = (1..500).find(|seed| !broken_keys(*seed, true).is_empty());
    println!("found in history {}", found.expect("torn operations have no order"));
}

/// Calls from lines of words, as an untyped client would write them.
fn atomic(engine: &Engine, caller: &Caller, lines: &[&[&str]]) -> Reply {
    let args: Vec<Vec<Arg<'_>>> = lines
        .iter()
        .map(|line| line[1..].iter().map(|word| Arg::Untyped(word.as_bytes())).collect())
        .collect();
    let calls: Vec<Call<'_>> = lines
        .iter()
        .zip(&args)
        .map(|(line, args)| {
            data_bridge_kv_model::command::table::by_name(line[0].as_bytes()).unwrap().call(args).unwrap()
        })
        .collect();
    let mut out = ReplyBuf::new();
    let _ = engine.execute_atomic(caller, &calls, OnError::Abort, &[], &mut out);
    ReplyReader::new(out.as_bytes()).reply().unwrap()
}

/// Transfers between accounts, some of which fail in the middle, while others read all accounts at once: the sum never
/// changes, and no account is ever below zero.
#[test]
fn atomic_transfers_keep_the_sum() {
    let engine = engine(8);
    let accounts = ["a", "b", "c", "d"];
    let caller = engine.caller();
    accounts
        .iter()
        .for_each(|account| drop(ask(&engine, &caller, Way::Alone, opcode::KV_INCR, &[account, "100"])));
    ask(&engine, &caller, Way::Alone, opcode::RPUSH, &["list", "x"]);
    let (done, refused, reads) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let finished = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let transfers: Vec<_> = (0..3u64)
            .map(|thread| {
                let (engine, done, refused) = (&engine, &done, &refused);
                scope.spawn(move || {
                    let (mut random, caller) = (Random::new(thread), engine.caller());
                    for _ in 0..3000 {
                        let (from, to) = (*random.pick(&accounts), *random.pick(&accounts));
                        let amount = random.below(40).to_string();
                        let add = ["KV.INCR", to, &amount];
                        let subtract = ["KV.DECR", from, &amount, "MIN", "0"];
                        // One in five meets a list in the middle: WRONGTYPE, and all of it is undone.
                        let wrong = ["KV.INCR", if random.one_in(5) { "list" } else { "count" }, "1"];
                        let counter = match atomic(engine, &caller, &[&add, &wrong, &subtract]) {
                            Reply::Container(..) => done,
                            Reply::Error(_) => refused,
                            other => panic!("{other:?}"),
                        };
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let caller = engine.caller();
            while !finished.load(Ordering::Relaxed) {
                let Reply::Container(_, items) =
                    ask(&engine, &caller, Way::Alone, opcode::KV_MGET, &accounts)
                else {
                    panic!("no array");
                };
                let balances: Vec<i64> = items.iter().map(|item| number(item).unwrap()).collect();
                assert!(
                    balances.iter().sum::<i64>() == 400 && balances.iter().min() >= Some(&0),
                    "{balances:?}"
                );
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        transfers.into_iter().for_each(|thread| thread.join().unwrap());
        finished.store(true, Ordering::Relaxed);
    });
    let count = number(&ask(&engine, &caller, Way::Alone, opcode::KV_GET, &["count"]));
    assert_eq!(count, Some(done.load(Ordering::Relaxed).cast_signed()), "what was refused left nothing");
    let (done, refused, reads) = (done.into_inner(), refused.into_inner(), reads.into_inner());
    println!("{done} transfers, {refused} refused, {reads} reads of all accounts");
    assert!(done > 0 && refused > 0 && reads > 0);
}

/// A key that is renamed to and fro is under exactly one name whenever both are read at once, and its version grows
/// with each rename.
#[test]
fn a_renamed_key_is_never_seen_twice_or_not_at_all() {
    let engine = engine(8);
    let caller = engine.caller();
    ask(&engine, &caller, Way::Alone, opcode::SET, &["here", "1"]);
    let (read, finished) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let renames = scope.spawn(|| {
            let (caller, mut names, mut newest) = (engine.caller(), ["here", "there"], 0);
            // On a busy machine the reader may come late.
            for _ in (0..).take_while(|round| *round < 5000 || !read.load(Ordering::Relaxed)) {
                assert_eq!(ask(&engine, &caller, Way::Alone, opcode::RENAME, &names), Reply::Ok);
                let Reply::Container(_, items) =
                    ask(&engine, &caller, Way::Alone, opcode::KV_GETV, &[names[1]])
                else {
                    panic!("the key is gone");
                };
                let version = number(&items[1]);
                // Two shards number their changes each for themselves: what grows is the version under one name.
                if names[1] == "there" {
                    assert!(version > Some(newest), "{version:?} after {newest}");
                    newest = version.unwrap();
                }
                names.swap(0, 1);
            }
        });
        let reader = scope.spawn(|| {
            let (caller, mut reads) = (engine.caller(), 0);
            while !finished.load(Ordering::Relaxed) {
                let Reply::Integer(count) =
                    ask(&engine, &caller, Way::Alone, opcode::EXISTS, &["here", "there"])
                else {
                    panic!("no count");
                };
                assert_eq!(count, 1);
                reads += 1;
                read.store(true, Ordering::Relaxed);
            }
            reads
        });
        renames.join().unwrap();
        finished.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}

/// Versions of a store that was opened in the same millisecond, and of keys that were deleted or renamed away, never
/// match again.
#[test]
fn no_version_ever_comes_back() {
    let clock = std::sync::Arc::new(data_bridge_kv::ManualClock::new(1_700_000_000_000));
    let mut seen = std::collections::HashSet::new();
    for _ in 0..3 {
        let settings =
            Settings { clock: clock.clone(), shards: Some(1), background: false, ..Settings::default() };
        let engine = Engine::open(settings).unwrap();
        let caller = engine.caller();
        for _ in 0..50 {
            ask(&engine, &caller, Way::Alone, opcode::SET, &["k", "1"]);
            let Reply::Container(_, items) = ask(&engine, &caller, Way::Alone, opcode::KV_GETV, &["k"])
            else {
                panic!("no version");
            };
            assert!(seen.insert(number(&items[1])), "a version came back");
            ask(&engine, &caller, Way::Alone, opcode::DEL, &["k"]);
        }
    }
    assert_eq!(seen.len(), 150);
}
