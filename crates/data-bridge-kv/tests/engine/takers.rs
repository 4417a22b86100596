//! Commands that wait for something to take: who gets what, in which order, and who gets nothing.

use std::sync::Arc;

use data_bridge_kv::{Caller, OnError};
use data_bridge_kv_model::{Arg, ErrorKind, Reply, Shape, Value};

use super::waits::Collected;
use super::{Store, bytes, error_kind};

fn text(text: &str) -> Reply {
    Reply::Value(Value::Text(text.into()))
}

fn array(parts: Vec<Reply>) -> Reply {
    Reply::Container(Shape::Array, parts)
}

fn pair(key: &str, element: &str) -> Reply {
    array(vec![text(key), bytes(element)])
}

/// Callers, who wait, and what they are answered by their numbers.
struct Waiting {
    store: Store,
    collected: Arc<Collected>,
}

impl Waiting {
    fn new() -> Waiting {
        let mut store = Store::new(|_| {});
        let collected = Arc::new(Collected::default());
        store.caller.completions = Some(collected.clone());
        Waiting { store, collected }
    }

    fn say(&self, token: u64, line: &str) -> Option<Reply> {
        let words: Vec<&str> = line.split(' ').collect();
        let args: Vec<Arg<'_>> = words[1..].iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
        self.store.call(words[0], &args, token)
    }

    /// Begins to wait.
    fn wait(&self, token: u64, line: &str) {
        assert_eq!(self.say(token, line), None, "{line}");
    }

    fn told(&self) -> Vec<(u64, Reply)> {
        self.collected.0.lock().drain(..).collect()
    }
}

#[test]
fn who_came_first_is_served_first_and_each_element_goes_to_one() {
    let waiting = Waiting::new();
    for token in 1..=4 {
        waiting.wait(token, if token % 2 == 0 { "BRPOP l 0" } else { "BLPOP l 0" });
    }
    assert_eq!(waiting.store.engine.stats().waiting, 4);
    // Whoever pushes is told the length before anybody was served.
    assert_eq!(waiting.store.run("RPUSH l a b c"), Reply::Integer(3));
    assert_eq!(waiting.told(), [(1, pair("l", "a")), (2, pair("l", "c")), (3, pair("l", "b"))]);
    assert_eq!(waiting.store.run("EXISTS l"), Reply::Integer(0));
    assert_eq!(waiting.store.run("LPUSH l d"), Reply::Integer(1));
    assert_eq!(waiting.told(), [(4, pair("l", "d"))]);
    assert_eq!(waiting.store.run("LPUSH l e"), Reply::Integer(1));
    assert_eq!((waiting.told(), waiting.store.run("LLEN l")), (vec![], Reply::Integer(1)));
    assert_eq!(waiting.store.engine.stats().waiting, 0);
}

#[test]
fn whatever_fills_a_key_serves_those_who_wait_for_its_kind() {
    let waiting = Waiting::new();
    let both = |key: &str| {
        waiting.wait(1, &format!("BLPOP {key} 0"));
        waiting.wait(2, &format!("BZPOPMAX {key} 0"));
    };
    both("k");
    for line in ["SET k v", "DEL k", "SADD k m", "DEL k", "HSET k f v", "DEL k"] {
        waiting.store.run(line);
    }
    assert_eq!(waiting.told(), []);
    waiting.store.run("ZADD k 1 a 2 b");
    let member =
        |key, member, score| (2, array(vec![text(key), bytes(member), Reply::Value(Value::Float(score))]));
    assert_eq!(waiting.told(), [member("k", "b", 2.0)]);
    waiting.store.run("DEL k");
    waiting.store.run("RPUSH other x");
    waiting.store.run("RENAME other k");
    assert_eq!(waiting.told(), [(1, pair("k", "x"))]);
    both("n");
    waiting.store.run("RPUSH source y");
    waiting.store.run("LMOVE source n LEFT LEFT");
    waiting.store.run("ZINCRBY n 3 z");
    assert_eq!(waiting.told(), [(1, pair("n", "y")), member("n", "z", 3.0)]);
}

#[test]
fn a_wait_at_several_keys_ends_once_and_stands_at_none_any_more() {
    let waiting = Waiting::new();
    waiting.wait(1, "BLPOP a b a c 0");
    waiting.wait(2, "BLMPOP 0 2 b c RIGHT COUNT 2");
    assert_eq!(waiting.store.engine.stats().waiting, 2);
    waiting.store.run("RPUSH c 1 2 3");
    let several = array(vec![text("c"), array(vec![bytes("3"), bytes("2")])]);
    assert_eq!(waiting.told(), [(1, pair("c", "1")), (2, several)]);
    for key in ["a", "b", "c"] {
        waiting.store.run(&format!("RPUSH {key} x"));
        assert_eq!(waiting.store.run(&format!("LLEN {key}")), Reply::Integer(1));
    }
    assert_eq!((waiting.told(), waiting.store.engine.stats().waiting), (vec![], 0));
    // The first key that has something, not the one that had it first.
    assert_eq!(waiting.say(3, "BLPOP none b a 0"), Some(pair("b", "x")));
}

#[test]
fn a_transaction_serves_at_its_end_the_keys_as_they_were_filled() {
    let waiting = Waiting::new();
    waiting.wait(1, "BLPOP b a 0");
    waiting.wait(2, "BLPOP gone 0");
    let lines =
        ["RPUSH gone x", "LPOP gone", "RPUSH a 1", "RPUSH b 2", "BLPOP none 0", "BLPOP b 0", "RPUSH b 3"];
    let reply = waiting.store.atomic(&lines, OnError::Continue, &[]);
    let Reply::Container(Shape::Array, parts) = reply else { panic!() };
    assert_eq!(parts[4..], [Reply::Missing, pair("b", "2"), Reply::Integer(1)]);
    assert_eq!(waiting.told(), [(1, pair("a", "1"))]);
    let reply = waiting.store.atomic(&["RPUSH gone y", "INCR b"], OnError::Abort, &[]);
    assert_eq!(error_kind(&reply), ErrorKind::WrongType);
    assert_eq!(waiting.told(), [], "it was taken back");
}

#[test]
fn a_move_passes_elements_on_to_those_who_wait_for_them() {
    let waiting = Waiting::new();
    waiting.wait(1, "BLMOVE a b LEFT RIGHT 0");
    waiting.wait(2, "BRPOPLPUSH b c 0");
    waiting.wait(3, "BLPOP c 0");
    waiting.wait(4, "BLMOVE a a LEFT RIGHT 0");
    waiting.store.run("RPUSH a 1 2");
    let told = waiting.told();
    assert_eq!(told, [(1, bytes("1")), (4, bytes("2")), (2, bytes("1")), (3, pair("c", "1"))]);
    assert_eq!(waiting.store.run("LRANGE a 0 -1"), array(vec![bytes("2")]));
    assert_eq!(waiting.store.run("EXISTS b c"), Reply::Integer(0));
    // Where it may not go it stays, for the next one.
    waiting.store.run("DEL a");
    waiting.store.run("SET s v");
    waiting.wait(5, "BLMOVE a s LEFT RIGHT 0");
    waiting.wait(6, "BLPOP a 0");
    waiting.store.run("RPUSH a 3");
    let told = waiting.told();
    assert_eq!((told[0].0, error_kind(&told[0].1)), (5, ErrorKind::WrongType));
    assert_eq!(told[1..], [(6, pair("a", "3"))]);
}

#[test]
fn waits_end_by_their_time_by_cancel_and_by_close() {
    let waiting = Waiting::new();
    for (token, line) in [
        (1, "BLPOP l 0.05"),
        (2, "BZMPOP 0.05 2 l z MIN"),
        (3, "BLMOVE l d LEFT LEFT 0.051"),
        (4, "BLPOP l m 0"),
        (5, "BLPOP l 100"),
    ] {
        waiting.wait(token, line);
    }
    waiting.store.clock.advance(50);
    waiting.store.engine.tick();
    assert_eq!(waiting.told(), [(1, Reply::Missing), (2, Reply::Missing)]);
    waiting.store.clock.advance(1);
    waiting.store.engine.tick();
    assert_eq!(waiting.told(), [(3, Reply::Missing)]);
    assert!(waiting.store.engine.cancel(&waiting.store.caller, 4));
    assert!(!waiting.store.engine.cancel(&waiting.store.caller, 4));
    waiting.store.run("RPUSH m x");
    waiting.store.run("RPUSH l y");
    assert_eq!(waiting.told(), [(5, pair("l", "y"))]);
    assert!(!waiting.store.engine.cancel(&waiting.store.caller, 5), "it was answered");
    assert_eq!(waiting.store.engine.stats().waiting, 0);
    waiting.wait(6, "BLPOP none other 0");
    waiting.store.engine.close().unwrap();
    let told = waiting.told();
    assert_eq!((told.len(), told[0].0, error_kind(&told[0].1)), (1, 6, ErrorKind::Closed));
}

#[test]
fn nothing_is_taken_for_whoever_is_gone() {
    let waiting = Waiting::new();
    waiting.wait(1, "BLPOP a l 0");
    waiting.wait(1, "BRPOP l 5");
    waiting.store.engine.disconnect(&waiting.store.caller);
    let other = Caller { completions: Some(waiting.collected.clone()), ..waiting.store.engine.caller() };
    let store = Store { caller: other, ..waiting.store };
    store.run("RPUSH l x");
    store.clock.advance(6_000);
    store.engine.tick();
    assert_eq!((waiting.collected.0.lock().len(), store.run("LLEN l")), (0, Reply::Integer(1)));
}

#[test]
fn a_wait_that_is_over_is_forgotten_at_keys_that_never_come() {
    let waiting = Waiting::new();
    for token in 0..2_000 {
        waiting.wait(token, "BLPOP hot never 0");
        waiting.store.run("RPUSH hot x");
    }
    assert_eq!(waiting.told().len(), 2_000);
    waiting.wait(9, "BLPOP other 0");
    assert_eq!(waiting.store.engine.stats().waiting, 1);
}

#[test]
fn who_can_not_wait_takes_what_there_is_and_is_refused_otherwise() {
    let store = Store::new(|_| {});
    assert_eq!(error_kind(&store.run("BLPOP l 0")), ErrorKind::Unavailable);
    store.run("RPUSH l x");
    assert_eq!(store.run("BLPOP l 0"), pair("l", "x"));
}
