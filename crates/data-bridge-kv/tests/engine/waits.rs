//! Who waits and watches: what ends a wait, what is told, and who is forgotten.

use std::sync::Arc;

use data_bridge_kv::sync::real::Mutex;
use data_bridge_kv::{Caller, Completions, Lookahead, Obstacle, OnError, Pin};
use data_bridge_kv_model::command::{Expiry, table};
use data_bridge_kv_model::{Arg, ErrorKind, Key, Reply, ReplyBuf, ReplyReader, Shape, ValueRef};

use super::{Store, error_kind};

#[derive(Default)]
pub(super) struct Collected(pub(super) Mutex<Vec<(u64, Reply)>>);

impl Completions for Collected {
    fn complete(&self, token: u64, reply: &[u8]) {
        self.0.lock().push((token, ReplyReader::new(reply).reply().unwrap()));
    }

    fn event(&self, watch: u64, event: &[u8]) {
        self.complete(watch, event);
    }
}

#[test]
fn waits_end_by_change_timeout_cancel_and_close() {
    let mut store = Store::new(|_| {});
    let collected = Arc::new(Collected::default());
    store.caller.completions = Some(collected.clone());
    let wait = |token, words: &[&str]| {
        let args: Vec<Arg<'_>> = words.iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
        store.call("KV.WAIT", &args, token)
    };
    assert_eq!(wait(1, &["t", "FIELD", "status", "STATES", "2", "SUCCESS", "FAILURE"]), None);
    assert_eq!(wait(2, &["t", "TIMEOUT", "50", "PRESENT"]), None);
    assert_eq!(wait(3, &["never", "TIMEOUT", "50"]), None);
    assert_eq!(wait(4, &["never"]), None);
    assert_eq!(wait(5, &["never"]), None);
    store.run("HSET t status PENDING");
    assert_eq!(collected.0.lock().drain(..).map(|(token, _)| token).collect::<Vec<_>>(), [2]);
    store.run("HSET t status SUCCESS");
    assert_eq!(collected.0.lock().drain(..).map(|(token, _)| token).collect::<Vec<_>>(), [1]);
    store.clock.advance(51);
    store.engine.tick();
    let ended: Vec<_> = collected.0.lock().drain(..).collect();
    assert_eq!((ended.len(), ended[0].0, error_kind(&ended[0].1)), (1, 3, ErrorKind::Timeout));
    store.engine.cancel(&store.caller, 4);
    store.engine.close().unwrap();
    let ended: Vec<_> = collected.0.lock().drain(..).collect();
    assert_eq!((ended.len(), ended[0].0, error_kind(&ended[0].1)), (1, 5, ErrorKind::Closed));
    assert_eq!(error_kind(&store.run("GET a")), ErrorKind::Closed);
}

#[test]
fn whoever_is_gone_waits_no_more_and_nobody_else_is_concerned() {
    let mut store = Store::new(|_| {});
    let collected = Arc::new(Collected::default());
    store.caller.completions = Some(collected.clone());
    let other = Caller { completions: Some(collected.clone()), ..store.engine.caller() };
    let elsewhere = Caller { namespace: store.engine.namespace("4").unwrap(), ..store.caller.clone() };
    let run = |caller: &Caller, token, name: &[u8], words: &[&str]| {
        let args: Vec<Arg<'_>> = words.iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
        let call = table::by_name(name).unwrap().call(&args).unwrap();
        let _ = store.engine.execute(caller, token, &call, &mut ReplyBuf::new());
    };
    // A number may be taken twice, for one key too.
    for (token, key) in [(1, "a"), (1, "a"), (1, "b"), (u64::MAX, "c")] {
        run(&store.caller, token, b"KV.WAIT", &[key]);
        run(&elsewhere, token, b"KV.WAIT", &[key]);
        run(&other, token, b"KV.WAIT", &[key]);
    }
    // And once more for one that is answered at once.
    run(&store.caller, 1, b"KV.WAIT", &["a", "TIMEOUT", "0"]);
    for caller in [&store.caller, &elsewhere, &other] {
        run(caller, 7, b"KV.WATCH", &["KEY", "a"]);
        run(caller, 7, b"KV.WATCH", &["PREFIX", "b"]);
    }
    assert_eq!(store.engine.stats().waiting, 12 + 3, "without those of a prefix");
    store.engine.disconnect(&store.caller);
    for caller in [&store.caller, &elsewhere, &other] {
        ["a", "b", "c"].iter().for_each(|key| run(caller, 9, b"SET", &[key, "v"]));
    }
    let told: Vec<u64> = collected.0.lock().drain(..).map(|(token, _)| token).collect();
    let (mut waits, events): (Vec<u64>, Vec<u64>) =
        told.iter().partition(|token| [1, u64::MAX].contains(token));
    waits.sort_unstable();
    assert_eq!((waits, events.len()), (vec![1, 1, 1, u64::MAX], 4), "{told:?}");
}

#[test]
fn a_key_that_went_before_the_wait_began_ends_it() {
    let mut store = Store::new(|_| {});
    store.caller.completions = Some(Arc::new(Collected::default()));
    store.run("SET t a PX 10");
    let version = store.engine.version(&store.caller, Key::new(b"t").unwrap()).unwrap().to_string();
    let wait = |token, version: &str| {
        let args = ["t", "NEWER", version].map(|word| Arg::Untyped(word.as_bytes()));
        store.call("KV.WAIT", &args, token)
    };
    assert_eq!(wait(1, &version), None);
    store.clock.advance(11);
    let gone = Reply::Container(Shape::Array, vec![Reply::Missing, Reply::Integer(0)]);
    assert_eq!(wait(2, &version), Some(gone));
    assert_eq!(wait(3, "0"), None);
}

/// Who watches on from what he knows hears of what he missed: that the key is newer, or gone.
#[test]
fn a_watch_from_a_version_tells_what_came_before_it_began() {
    let mut store = Store::new(|_| {});
    let collected = Arc::new(Collected::default());
    store.caller.completions = Some(collected.clone());
    let told = |version: u64| {
        let Reply::Integer(watch) = store.run(&format!("KV.WATCH KEY t FROM {version}")) else { panic!() };
        store.run(&format!("KV.UNWATCH {watch}"));
        let events: Vec<_> = collected.0.lock().drain(..).collect();
        let event = |(number, event): &(u64, Reply)| {
            assert_eq!(*number as i64, watch);
            let Reply::Container(Shape::Array, parts) = event else { panic!() };
            let Reply::Integer(version) = parts[2] else { panic!() };
            (format!("{:?}", parts[0]), version as u64)
        };
        events.iter().map(event).collect::<Vec<_>>()
    };
    let version = || store.engine.version(&store.caller, Key::new(b"t").unwrap()).unwrap();
    store.run("SET t a");
    let first = version();
    assert_eq!(told(first), []);
    store.run("SET t b");
    let second = version();
    assert_eq!(told(first), [("Status(\"set\")".to_owned(), second)]);
    store.run("DEL t");
    let gone = told(second);
    assert_eq!(gone.iter().map(|(change, _)| change.as_str()).collect::<Vec<_>>(), ["Status(\"delete\")"]);
    assert!(gone[0].1 > second);
    assert_eq!(told(gone[0].1), [], "that is known by now");
    assert_eq!(told(1), [], "nothing is there");
    store.run("SET t c");
    let third = version();
    for known in [1, gone[0].1] {
        assert_eq!(told(known), [("Status(\"set\")".to_owned(), third)]);
    }
    let words = ["PREFIX", "t", "FROM", "1"].map(|word| Arg::Untyped(word.as_bytes()));
    assert!(table::by_name(b"KV.WATCH").unwrap().call(&words).is_err(), "keys together have no version");
}

#[test]
fn watches_tell_every_change() {
    let mut store = Store::new(|_| {});
    let collected = Arc::new(Collected::default());
    store.caller.completions = Some(collected.clone());
    let Reply::Integer(watch) = store.run("KV.WATCH PREFIX job:") else { panic!() };
    store.run("SET job:1 a PX 10");
    store.run("SET other a");
    store.run("DEL job:2");
    store.run("HSET job:4 status PENDING tries 0 owner me");
    store.clock.advance(40);
    store.engine.tick();
    store.run(&format!("KV.UNWATCH {watch}"));
    store.run("SET job:3 a");
    let events: Vec<_> = collected.0.lock().drain(..).collect();
    let words: Vec<String> = events
        .iter()
        .map(|(number, event)| {
            assert_eq!(*number as i64, watch);
            let Reply::Container(Shape::Array, parts) = event else { panic!() };
            format!("{:?}", parts[0])
        })
        .collect();
    assert_eq!(words, ["Status(\"set\")", "Status(\"set\")", "Status(\"expire\")"]);
}

#[test]
fn nobody_hears_of_a_change_that_was_taken_back() {
    let mut store = Store::new(|_| {});
    let collected = Arc::new(Collected::default());
    store.caller.completions = Some(collected.clone());
    store.run("RPUSH list a");
    let _ = store.run("KV.WATCH PREFIX k");
    let reply = store.atomic(&["SET k1 v", "INCR list", "SET k2 v"], OnError::Abort, &[]);
    assert_eq!(error_kind(&reply), ErrorKind::WrongType);
    assert!(collected.0.lock().is_empty(), "{:?}", collected.0.lock());
    store.run("SET k3 v");
    assert_eq!(collected.0.lock().len(), 1);
}

#[test]
fn whoever_watches_is_told_of_a_write_that_goes_the_short_way_or_not_at_all() {
    let store = Store::new(|_| {});
    let key = Key::new(b"k").unwrap();
    let watching = Caller { completions: Some(Arc::new(Collected::default())), ..store.engine.caller() };
    let watch = |words: [&str; 2]| {
        let args = words.map(|word| Arg::Untyped(word.as_bytes()));
        let call = table::by_name(b"KV.WATCH").unwrap().call(&args).unwrap();
        let _ = store.engine.execute(&watching, 1, &call, &mut ReplyBuf::new());
    };
    let write = || store.engine.try_write(&store.caller, key, ValueRef::text("v"), Expiry::Default);
    let pin = Pin::new();
    let ahead = Lookahead::default().begin(&pin);
    let number = Key::new(b"kn").unwrap();
    let add = || store.engine.add_ahead(&store.caller, number, 1, ahead.turn(0)).is_some();
    assert_eq!(store.run("INCR kn"), Reply::Integer(1));
    assert_eq!((write(), add()), (Ok(()), true));
    for words in [["KEY", "k"], ["PREFIX", "k"]] {
        watch(words);
        assert_eq!(write(), Err(Obstacle::Unusual), "{words:?}");
        assert!(words == ["KEY", "k"] || !add(), "whoever watches the prefix is told of a sum, too");
        store.engine.disconnect(&watching);
        assert_eq!((write(), add()), (Ok(()), true));
    }
}
