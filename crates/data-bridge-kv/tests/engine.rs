//! The engine through its door: one command at a time, batches, atomic steps, waits, expiry, eviction.

#[path = "engine/memory.rs"]
mod memory;
#[path = "engine/takers.rs"]
mod takers;
#[path = "engine/waits.rs"]
mod waits;

use std::sync::Arc;

use data_bridge_kv::table::Stored;
use data_bridge_kv::{
    Caller, Engine, Lookahead, ManualClock, Obstacle, OnError, Pin, Progress, Settings, TransitionGraph,
};
use data_bridge_kv_model::command::{Expiry, table};
use data_bridge_kv_model::limits::LOCKED_ENCODE_BYTES;
use data_bridge_kv_model::{Arg, ErrorKind, Key, Kind, Reply, ReplyBuf, ReplyReader, Shape, Value, ValueRef};

use waits::Collected;

const START_MS: u64 = 1_700_000_000_000;

struct Store {
    engine: Engine,
    clock: Arc<ManualClock>,
    caller: Caller,
}

impl Store {
    fn new(change: impl FnOnce(&mut Settings)) -> Store {
        let clock = Arc::new(ManualClock::new(START_MS));
        let mut settings = Settings {
            clock: clock.clone(),
            seed: Some(1),
            shards: Some(4),
            background: false,
            ..Settings::default()
        };
        change(&mut settings);
        let engine = Engine::open(settings).unwrap();
        let caller = engine.caller();
        Store { engine, clock, caller }
    }

    /// Runs a line of words as an untyped client would.
    fn run(&self, line: &str) -> Reply {
        let words: Vec<&str> = line.split(' ').collect();
        let args: Vec<Arg<'_>> = words[1..].iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
        self.call(words[0], &args, 0).unwrap_or_else(|| panic!("pending: {line}"))
    }

    fn call(&self, name: &str, args: &[Arg<'_>], token: u64) -> Option<Reply> {
        let call = table::by_name(name.as_bytes()).unwrap().call(args).unwrap();
        let mut out = ReplyBuf::new();
        let progress = self.engine.execute(&self.caller, token, &call, &mut out);
        let mut reader = ReplyReader::new(out.as_bytes());
        let reply = (progress == Progress::Done).then(|| reader.reply().unwrap());
        assert!(reader.is_done());
        reply
    }

    fn atomic(&self, lines: &[&str], on_error: OnError, watched: &[(&str, u64)]) -> Reply {
        let words: Vec<Vec<Arg<'_>>> = lines
            .iter()
            .map(|line| line.split(' ').map(|word| Arg::Untyped(word.as_bytes())).collect())
            .collect();
        let calls: Vec<_> = words
            .iter()
            .map(|words| table::by_name(words[0].content().unwrap()).unwrap().call(&words[1..]).unwrap())
            .collect();
        let watched: Vec<_> =
            watched.iter().map(|(key, version)| (Key::new(key.as_bytes()).unwrap(), *version)).collect();
        let mut out = ReplyBuf::new();
        let _ = self.engine.execute_atomic(&self.caller, &calls, on_error, &watched, &mut out);
        ReplyReader::new(out.as_bytes()).reply().unwrap()
    }
}

fn bytes(text: &str) -> Reply {
    Reply::Value(Value::Bytes(text.as_bytes().into()))
}

fn error_kind(reply: &Reply) -> ErrorKind {
    match reply {
        Reply::Error(error) => error.kind(),
        other => panic!("no error: {other:?}"),
    }
}

#[test]
fn everyday_commands() {
    let store = Store::new(|_| {});
    assert_eq!(store.run("SET a 1"), Reply::Ok);
    assert_eq!(store.run("GET a"), bytes("1"));
    assert_eq!(store.run("INCR a"), Reply::Integer(2));
    assert_eq!(store.run("RPUSH l x y z"), Reply::Integer(3));
    assert_eq!(error_kind(&store.run("GET l")), ErrorKind::WrongType);
    assert_eq!(
        store.run("LRANGE l 0 -1"),
        Reply::Container(Shape::Array, vec![bytes("x"), bytes("y"), bytes("z")])
    );
    assert_eq!(store.run("HSET h f 1 g 2"), Reply::Integer(2));
    assert_eq!(store.run("HGET h g"), bytes("2"));
    assert_eq!(store.run("ZADD z 2 b 1 a"), Reply::Integer(2));
    assert_eq!(store.run("ZRANGE z 0 -1"), Reply::Container(Shape::Array, vec![bytes("a"), bytes("b")]));
    assert_eq!(store.run("SADD s a b a"), Reply::Integer(2));
    assert_eq!(store.run("DBSIZE"), Reply::Integer(5));
    assert_eq!(store.run("DEL a l h nosuch"), Reply::Integer(3));
}

#[test]
fn a_scan_shows_every_key_once() {
    let store = Store::new(|_| {});
    for number in 0..500 {
        store.run(&format!("SET key:{number} x"));
    }
    let mut seen = std::collections::HashSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let Reply::Container(Shape::Array, parts) = store.run(&format!("SCAN {cursor} COUNT 7")) else {
            panic!()
        };
        let [Reply::Value(Value::Text(next)), Reply::Container(_, keys)] = &parts[..] else {
            panic!("{parts:?}")
        };
        for key in keys {
            assert!(seen.insert(format!("{key:?}")), "{key:?} twice");
        }
        if &**next == "0" {
            break;
        }
        cursor = next.to_string();
    }
    assert_eq!(seen.len(), 500);
}

#[test]
fn keys_expire_on_access_and_by_the_tick() {
    let store = Store::new(|_| {});
    store.run("SET a 1 PX 100");
    store.run("SET b 1 PX 100");
    store.run("SET c 1 PX 5000");
    assert_eq!(store.run("PTTL a"), Reply::Integer(100));
    store.clock.advance(99);
    assert_eq!(store.run("GET a"), bytes("1"));
    store.clock.advance(1);
    assert_eq!(store.run("GET a"), Reply::Missing);
    assert_eq!(store.run("DBSIZE"), Reply::Integer(2));
    store.clock.advance(32);
    store.engine.tick();
    assert_eq!(store.run("DBSIZE"), Reply::Integer(1));
    assert_eq!(store.engine.stats().namespaces[0].expired, 2);
}

#[test]
fn an_earlier_deadline_is_met_without_anybody_asking() {
    let store = Store::new(|_| {});
    store.run("SET a 1 PX 600000");
    store.run("PEXPIRE a 100");
    store.clock.advance(140);
    store.engine.tick();
    assert_eq!(store.run("DBSIZE"), Reply::Integer(0));
}

#[test]
fn an_atomic_step_with_a_wrong_type_in_the_middle_changes_nothing() {
    let store = Store::new(|_| {});
    store.run("SET text x");
    store.run("RPUSH list a");
    let steps = ["SET new 1", "RPUSH list b", "DEL text", "INCR list", "SET after 1"];
    assert_eq!(error_kind(&store.atomic(&steps, OnError::Abort, &[])), ErrorKind::WrongType);
    assert_eq!(store.run("EXISTS new after"), Reply::Integer(0));
    assert_eq!(store.run("GET text"), bytes("x"));
    assert_eq!(store.run("LRANGE list 0 -1"), Reply::Container(Shape::Array, vec![bytes("a")]));
    let Reply::Container(_, answers) = store.atomic(&steps, OnError::Continue, &[]) else { panic!() };
    assert_eq!(answers.len(), 5);
    assert_eq!(error_kind(&answers[3]), ErrorKind::WrongType);
    assert_eq!(store.run("EXISTS new after text"), Reply::Integer(2));
}

#[test]
fn a_watched_key_that_changed_stops_the_step() {
    let store = Store::new(|_| {});
    store.run("SET a 1");
    let version = store.engine.version(&store.caller, Key::new(b"a").unwrap()).unwrap();
    assert!(matches!(store.atomic(&["INCR a"], OnError::Continue, &[("a", version)]), Reply::Container(..)));
    let reply = store.atomic(&["INCR a"], OnError::Continue, &[("a", version)]);
    assert_eq!(error_kind(&reply), ErrorKind::Aborted);
    assert_eq!(store.run("GET a"), bytes("2"));
}

#[test]
fn versions_from_before_a_restart_never_match() {
    let first = Store::new(|_| {});
    first.run("SET a 1");
    let key = Key::new(b"a").unwrap();
    let version = first.engine.version(&first.caller, key).unwrap();
    let second = Store::new(|settings| settings.clock = Arc::new(ManualClock::new(START_MS + 1)));
    for _ in 0..1000 {
        second.run("SET a 1");
        assert!(second.engine.version(&second.caller, key).unwrap() > version);
    }
    let line = format!("KV.SETV a 2 {version}");
    assert_eq!(error_kind(&second.run(&line)), ErrorKind::Conflict);
}

#[test]
fn transitions_follow_states_fences_and_the_graph() {
    let graph =
        TransitionGraph::parse("status", "->PENDING, PENDING->STARTED, STARTED->SUCCESS|FAILURE").unwrap();
    let store = Store::new(|settings| settings.namespaces[0].graph = Some(graph));
    let moved = |line: &str| matches!(store.run(line), Reply::Container(Shape::Array, _));
    assert!(moved("KV.TRANSITION t status TO PENDING MISSING"));
    assert_eq!(error_kind(&store.run("KV.TRANSITION t status TO SUCCESS FROM 1 PENDING")), ErrorKind::State);
    assert_eq!(
        error_kind(&store.run("KV.TRANSITION t status TO SUCCESS FROM 1 STARTED")),
        ErrorKind::Conflict
    );
    let Reply::Container(_, parts) =
        store.run("KV.TRANSITION t status TO STARTED FROM 1 PENDING UPDATE 1 worker 7")
    else {
        panic!()
    };
    let Reply::Integer(fence) = parts[1] else { panic!() };
    assert_eq!(parts[0], bytes("PENDING"));
    assert_eq!(error_kind(&store.run("HSET t status PENDING")), ErrorKind::State);
    assert_eq!(error_kind(&store.run("HDEL t status")), ErrorKind::State);
    let stale = format!("KV.TRANSITION t status TO SUCCESS FROM 1 STARTED FENCE {}", fence - 1);
    assert_eq!(error_kind(&store.run(&stale)), ErrorKind::Conflict);
    assert!(moved(&format!("KV.TRANSITION t status TO SUCCESS FROM 1 STARTED FENCE {fence}")));
    assert_eq!(store.run("HGET t worker"), bytes("7"));
}

#[test]
fn a_state_is_not_lost_to_another_value_but_may_be_deleted() {
    let graph = || TransitionGraph::parse("status", "->A, A->B").unwrap();
    let store = Store::new(|settings| settings.namespaces[0].graph = Some(graph()));
    let kept = |store: &Store| store.run("HGETALL t");
    store.run("HSET t status A n 1");
    let before = kept(&store);
    store.run("SET text x");
    store.run("SADD set x");
    store.run("HSET hash n 1");
    store.run("HSET state status A");
    for line in [
        "SET t x",
        "SET t x GET",
        "KV.SET t x",
        "MSET other 1 t x",
        "SETEX t 10 x",
        "RENAME text t",
        "RENAME set t",
        "RENAME hash t",
        "SINTERSTORE t set",
        "SUNIONSTORE t set",
        "ZUNIONSTORE t 1 set",
        "COPY text t REPLACE",
        "COPY hash t REPLACE",
        "KV.SETV t x 1",
    ] {
        let kind = error_kind(&store.run(line));
        assert!(
            matches!(kind, ErrorKind::State | ErrorKind::WrongType | ErrorKind::Conflict),
            "{line}: {kind:?}"
        );
        assert_eq!(kept(&store), before, "{line}");
    }
    assert_eq!(store.run("EXISTS text set hash other"), Reply::Integer(3));
    let version = store.engine.version(&store.caller, Key::new(b"t").unwrap()).unwrap();
    assert_eq!(error_kind(&store.run(&format!("KV.SETV t x {version}"))), ErrorKind::State);
    // A command that is refused in the middle has changed nothing, in a transaction that goes on too.
    let steps = ["MSET text new t x", "SET other 2", "MSET other 3 t x"];
    let Reply::Container(_, answers) = store.atomic(&steps, OnError::Continue, &[]) else { panic!() };
    assert!(matches!(&answers[0], Reply::Error(_)) && matches!(&answers[2], Reply::Error(_)), "{answers:?}");
    assert_eq!(store.run("MGET text other"), Reply::Container(Shape::Array, vec![bytes("x"), bytes("2")]));
    // The same state, or one that the graph allows, is a step like any other.
    assert_eq!(store.run("RENAME state t"), Reply::Ok);
    assert_eq!(store.run("DEL t"), Reply::Integer(1));
    assert_eq!(store.run("SET t x"), Reply::Ok);
}

#[test]
fn a_write_that_gives_a_state_twice_is_undone_as_a_whole() {
    let store = Store::new(|settings| {
        settings.namespaces[0].graph = Some(TransitionGraph::parse("status", "->A, A->B|C").unwrap());
    });
    store.run("HSET t status A");
    assert_eq!(error_kind(&store.run("HSET t status B status C")), ErrorKind::State);
    assert_eq!(store.run("HGET t status"), bytes("A"));
}

#[test]
fn counting_keeps_the_deadline_is_told_and_counts_once() {
    let mut store = Store::new(|_| {});
    let counts = |store: &Store| {
        let stats = &store.engine.stats().namespaces[0];
        (stats.hits, stats.misses)
    };
    assert_eq!(store.run("INCR n"), Reply::Integer(1));
    assert_eq!(counts(&store), (0, 1));
    store.run("PEXPIRE n 50");
    assert_eq!(store.run("DECRBY n 5"), Reply::Integer(-4));
    assert_eq!(store.run("PTTL n"), Reply::Integer(50));
    assert_eq!(counts(&store), (1, 1));
    store.run("SET text 7");
    assert_eq!(store.run("INCR text"), Reply::Integer(8));
    assert_eq!(counts(&store), (2, 1));
    assert_eq!(error_kind(&store.run("INCRBY n -9223372036854775807")), ErrorKind::OutOfRange);
    assert_eq!(store.run("GET n"), Reply::Value(Value::Int(-4)));
    store.clock.advance(50);
    assert_eq!(store.run("INCR n"), Reply::Integer(1), "it had expired");
    assert_eq!(store.run("PTTL n"), Reply::Integer(-1));
    let collected = Arc::new(Collected::default());
    store.caller.completions = Some(collected.clone());
    store.run("KV.WATCH PREFIX n");
    store.run("INCR n");
    assert_eq!(collected.0.lock().len(), 1);
}

#[test]
fn a_state_is_seen_in_a_hash_that_was_written_whole() {
    let mut store = Store::new(|settings| {
        settings.namespaces[0].graph = Some(TransitionGraph::parse("status", "->A, A->B").unwrap());
    });
    let collected = Arc::new(Collected::default());
    store.caller.completions = Some(collected.clone());
    let hash = |state: &str| {
        let fields = [("id", Value::Int(7)), ("status", state.into()), ("tags", Value::List(Vec::new()))];
        Value::Hash(fields.map(|(field, value)| (field.into(), value)).into())
    };
    let write = |state: &str| {
        let encoded = hash(state).encode();
        let value = Arg::Value(ValueRef::decode(&encoded).unwrap());
        store.call("KV.SET", &[Arg::Untyped(b"t"), value], 0).unwrap()
    };
    let wait = ["t", "FIELD", "status", "STATES", "1", "B"].map(|word| Arg::Untyped(word.as_bytes()));
    assert_eq!(store.call("KV.WAIT", &wait, 1), None);
    assert_eq!(error_kind(&write("B")), ErrorKind::State, "B is no first state");
    assert_eq!(write("A"), Reply::Ok);
    assert_eq!(error_kind(&write("C")), ErrorKind::State, "from A only B follows");
    assert!(collected.0.lock().is_empty());
    assert_eq!(write("B"), Reply::Ok);
    assert_eq!(collected.0.lock().drain(..).map(|(token, _)| token).collect::<Vec<_>>(), [1]);
    let memory = |store: &Store| store.engine.stats().namespaces[0].bytes;
    let whole = memory(&store);
    assert_eq!(store.run("KV.GET t"), Reply::Value(hash("B")));
    assert_eq!((store.run("HLEN t"), store.run("KV.GET t")), (Reply::Integer(3), Reply::Value(hash("B"))));
    assert!(memory(&store) > whole, "looked into, it is built, and that is accounted");
}

#[test]
fn what_stands_in_the_way_of_the_short_way_is_told() {
    let store = Store::new(|settings| {
        settings.namespaces[4].graph = Some(TransitionGraph::parse("status", "->A").unwrap());
    });
    let (engine, caller, key) = (&store.engine, &store.caller, Key::new(b"k").unwrap());
    let value = ValueRef::text("v");
    let kind = |caller: &Caller| engine.try_read(caller, key, |value| value.map(Stored::kind));
    assert_eq!(kind(caller), Ok(None));
    assert_eq!(engine.try_write(caller, key, value, Expiry::In(100)), Ok(()));
    assert_eq!(kind(caller), Ok(Some(Kind::Text)));
    assert_eq!(store.run("PTTL k"), Reply::Integer(100));

    let held = engine
        .try_read(caller, key, |_| (kind(caller), engine.try_write(caller, key, value, Expiry::Default)));
    assert_eq!(held, Ok((Err(Obstacle::Locked), Err(Obstacle::Locked))));

    store.clock.advance(100);
    assert_eq!(kind(caller), Err(Obstacle::Unusual), "it has expired");
    assert_eq!(store.run("GET k"), Reply::Missing);
    for expiry in [Expiry::Keep, Expiry::In(0), Expiry::At(START_MS)] {
        assert_eq!(engine.try_write(caller, key, value, expiry), Err(Obstacle::Unusual), "{expiry:?}");
    }
    let graph = Caller { namespace: engine.namespace("4").unwrap(), ..caller.clone() };
    assert_eq!(engine.try_write(&graph, key, value, Expiry::Default), Err(Obstacle::Unusual));

    let large = vec![0; LOCKED_ENCODE_BYTES + 1];
    let large = ValueRef::bytes(&large);
    assert_eq!(engine.try_write(caller, key, large, Expiry::Default), Err(Obstacle::Unusual));
    store.call("SET", &[Arg::Untyped(b"k"), Arg::Value(large)], 0).unwrap();
    assert_eq!(kind(caller), Err(Obstacle::Unusual), "it is large");

    engine.close().unwrap();
    assert_eq!(kind(caller), Err(Obstacle::Unusual));
    assert_eq!(engine.try_write(caller, key, value, Expiry::Default), Err(Obstacle::Unusual));
}

#[test]
fn a_sum_goes_the_short_way_where_an_integer_is_there() {
    let store = Store::new(|settings| settings.max_memory = 1 << 16);
    let pin = Pin::new();
    let ahead = Lookahead::default().begin(&pin);
    let add = |key: &str, by| {
        store.engine.add_ahead(&store.caller, Key::new(key.as_bytes()).unwrap(), by, ahead.turn(0))
    };
    let run = |line| store.run(line);
    assert_eq!(add("n", 1), None, "there is no number");
    assert_eq!((run("INCR n"), add("n", 41)), (Reply::Integer(1), Some(42)));
    let version = || store.engine.version(&store.caller, Key::new(b"n").unwrap()).unwrap();
    let hits = || store.engine.stats().namespaces[0].hits;
    let before = (version(), hits());
    assert_eq!((add("n", -2), run("GET n")), (Some(40), Reply::Value(Value::Int(40))));
    assert!(version() > before.0);
    assert_eq!(hits(), before.1 + 2, "the sum and the read");
    assert_eq!(add("n", i64::MAX), None, "it would overflow");
    run("SET text 1");
    assert_eq!(add("text", 1), None, "digits are a text");
    run("PEXPIRE n 100");
    assert_eq!((add("n", 1), run("PTTL n")), (Some(41), Reply::Integer(100)));
    store.clock.advance(100);
    assert_eq!((add("n", 1), run("EXISTS n")), (None, Reply::Integer(0)));

    run("INCR n");
    let fill = |number: usize| store.run(&format!("SET key:{number} {}", "x".repeat(1000))) == Reply::Ok;
    assert!((0..100).any(|number| !fill(number)), "the budget is 64 KiB");
    assert_eq!(add("n", 1), None, "it is spent");
    store.engine.close().unwrap();
    assert_eq!(add("n", 1), None);
}

#[test]
fn a_budget_that_is_nearly_spent_is_left_to_the_command() {
    let store = Store::new(|settings| settings.max_memory = 1 << 16);
    let value = vec![b'x'; 1000];
    let write = |number: usize| {
        let name = format!("key:{number}");
        store.engine.try_write(
            &store.caller,
            Key::new(name.as_bytes()).unwrap(),
            ValueRef::bytes(&value),
            Expiry::Default,
        )
    };
    let refused = (0..100).find(|number| write(*number).is_err()).expect("the budget is 64 KiB");
    assert!((30..64).contains(&refused), "{refused}");
    assert_eq!(write(refused), Err(Obstacle::Unusual));
}

#[test]
fn large_values_are_read_from_a_copy_and_stay_whole() {
    let store = Store::new(|_| {});
    let element = "x".repeat(1000);
    let elements = vec![element.as_str(); 200].join(" ");
    store.run(&format!("RPUSH list {elements}"));
    store.run(&format!("SET text {}", "y".repeat(100_000)));
    assert_eq!(store.run("LRANGE list 0 -1"), Reply::Container(Shape::Array, vec![bytes(&element); 200]));
    assert_eq!(store.run("GET text"), bytes(&"y".repeat(100_000)));
    assert_eq!(error_kind(&store.run("SMEMBERS list")), ErrorKind::WrongType);
    assert!(matches!(store.run("KV.GET list"), Reply::Value(Value::List(items)) if items.len() == 200));
    assert_eq!(store.run("RPUSH list last"), Reply::Integer(201));
    assert_eq!(store.run("LINDEX list -1"), bytes("last"));
    let Reply::Container(_, parts) = store.run("KV.GETV text") else { panic!() };
    assert_eq!(parts[0], bytes(&"y".repeat(100_000)));
}

#[test]
fn large_values_of_many_keys_are_filled_in_from_copies() {
    let store = Store::new(|_| {});
    let large = |letter: &str| letter.repeat(70_000);
    store.run(&format!("MSET a {} b small c {}", large("a"), large("c")));
    // Together they are large too.
    let middle: Vec<String> = (0..5).map(|number| number.to_string().repeat(20_000)).collect();
    for (number, text) in middle.iter().enumerate() {
        store.run(&format!("SET m{number} {text}"));
    }
    store.run("RPUSH list x y");
    let expected = [
        vec![bytes(&large("a")), Reply::Missing, bytes("small"), bytes(&large("c")), bytes(&large("a"))],
        middle.iter().map(|text| bytes(text)).collect(),
        vec![Reply::Missing, bytes("small")],
    ];
    let asked = "MGET a none b c a m0 m1 m2 m3 m4 list b";
    assert_eq!(store.run(asked), Reply::Container(Shape::Array, expected.concat()));
    assert_eq!(store.run("MGET a"), Reply::Container(Shape::Array, vec![bytes(&large("a"))]));
    // In a step that changes the values afterwards they are those of their moment.
    let steps = [asked, "SET a new", "GET a", "APPEND c x", "LPUSH b x", "MGET a b"];
    let Reply::Container(_, answers) = store.atomic(&steps, OnError::Continue, &[]) else { panic!() };
    assert_eq!(answers[0], Reply::Container(Shape::Array, expected.concat()));
    assert_eq!(answers[2..4], [bytes("new"), Reply::Integer(70_001)]);
    assert!(matches!(answers[4], Reply::Error(_)));
    assert_eq!(answers[5], Reply::Container(Shape::Array, vec![bytes("new"), bytes("small")]));
}

#[test]
fn a_reply_that_nobody_could_take_is_refused() {
    let store = Store::new(|_| {});
    store.run(&format!("SET big {}", "x".repeat(50 << 20)));
    let asked = format!("MGET{}", " big".repeat(11));
    assert_eq!(error_kind(&store.run(&asked)), ErrorKind::Limit);
    let all = store.atomic(&["SET other 1", &asked], OnError::Abort, &[]);
    assert_eq!(error_kind(&all), ErrorKind::Limit);
    assert_eq!(store.run("EXISTS other"), Reply::Integer(0));
    let Reply::Container(_, answers) =
        store.atomic(&["MGET big big", &asked, "SET other 1"], OnError::Continue, &[])
    else {
        panic!()
    };
    assert_eq!((error_kind(&answers[1]), &answers[2]), (ErrorKind::Limit, &Reply::Ok));
    assert!(matches!(&answers[0], Reply::Container(_, values) if values.len() == 2));
}

#[test]
fn a_walk_with_values_answers_in_portions() {
    let store = Store::new(|_| {});
    for number in 0..40 {
        store.run(&format!("SET key:{number} {}", "x".repeat(100_000)));
    }
    let (mut cursor, mut seen, mut most) = ("0".to_owned(), 0, 0);
    loop {
        let Reply::Container(_, answer) = store.run(&format!("SCAN {cursor} COUNT 10000 VALUES")) else {
            panic!()
        };
        let Reply::Container(Shape::Map, pairs) = &answer[1] else { panic!("{answer:?}") };
        assert!(pairs.iter().skip(1).step_by(2).all(|value| *value == bytes(&"x".repeat(100_000))));
        (seen, most) = (seen + pairs.len() / 2, most.max(pairs.len() / 2));
        let Reply::Value(Value::Text(next)) = &answer[0] else { panic!("{answer:?}") };
        if &**next == "0" {
            break;
        }
        cursor = next.to_string();
    }
    assert_eq!(seen, 40);
    assert!(most <= 12, "{most} values at once");
}

#[test]
fn a_walk_with_entries_shows_values_and_deadlines() {
    let store = Store::new(|_| {});
    store.run("SET lasting a");
    store.run("SET brief b PXAT 4102444800123");
    let Reply::Container(_, answer) = store.run("SCAN 0 ENTRIES") else { panic!() };
    let Reply::Container(Shape::Map, pairs) = &answer[1] else { panic!("{answer:?}") };
    let entry = |value, at| Reply::Container(Shape::Array, vec![bytes(value), Reply::Integer(at)]);
    for (key, shown) in [("lasting", entry("a", -1)), ("brief", entry("b", 4_102_444_800_123))] {
        let text = Reply::Value(Value::Text(key.into()));
        assert!(pairs.chunks(2).any(|pair| pair == [text.clone(), shown.clone()]), "{pairs:?}");
    }
}

/// `AS text` names the element that was pushed as bytes, and the other way round.
#[test]
fn a_literal_text_names_bytes_of_the_same_content() {
    let store = Store::new(|_| {});
    store.run("RPUSH list 10 1.10");
    for kind in [Kind::Text, Kind::Bytes] {
        let args = [Arg::Untyped(b"list"), Arg::Literal(kind, b"1.10")];
        assert_eq!(store.call("LPOS", &args, 0), Some(Reply::Integer(1)));
    }
}
