//! Rules of typed values that no Redis server can confirm, each as a line that a reader of `docs/TYPES.md` expects.

use data_bridge_kv_model::command::table::by_name;
use data_bridge_kv_model::{Arg, ErrorKind, Reply, Shape, Value, ValueRef};
use data_bridge_kv_testkit::reference::Reference;

/// A store and a way to write commands: `~` before a word makes it untyped, otherwise `i:` `d:` `f:` tell the kind.
struct Store(Reference);

fn word(text: &str) -> Vec<u8> {
    match text.split_once(':') {
        Some(("i", number)) => Value::Int(number.parse().unwrap()),
        Some(("f", number)) => Value::Float(number.parse().unwrap()),
        Some(("d", number)) => Value::Decimal(number.parse().unwrap()),
        _ => Value::Text(text.into()),
    }
    .encode()
}

impl Store {
    fn run(&mut self, line: &str) -> Reply {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<(bool, Vec<u8>)> = rest
            .split_whitespace()
            .map(|text| match text.strip_prefix('~') {
                Some(untyped) => (false, untyped.into()),
                None => (true, word(text)),
            })
            .collect();
        let args: Vec<Arg<'_>> = words
            .iter()
            .map(
                |(typed, bytes)| {
                    if *typed { Arg::Value(ValueRef::decode(bytes).unwrap()) } else { Arg::Untyped(bytes) }
                },
            )
            .collect();
        let spec = by_name(name.as_bytes()).expect("a command");
        match spec.build(&args) {
            Ok(command) => self.0.execute(0, &command),
            Err(error) => Reply::Error(error),
        }
    }

    fn kind_of_error(&mut self, line: &str) -> ErrorKind {
        match self.run(line) {
            Reply::Error(error) => error.kind(),
            other => panic!("{line} answers {other:?}"),
        }
    }
}

fn store() -> Store {
    Store(Reference::new(1_000_000))
}

fn int(number: i64) -> Reply {
    Reply::Value(Value::Int(number))
}

fn decimal(text: &str) -> Reply {
    Reply::Value(Value::Decimal(text.parse().unwrap()))
}

#[test]
fn numbers_add_by_the_rules_of_their_kind() {
    let mut store = store();
    assert_eq!(store.run("KV.INCR n i:5"), int(5));
    assert_eq!(store.kind_of_error("KV.INCR n f:1.5"), ErrorKind::WrongType);
    assert_eq!(store.run("KV.INCR n f:1.5 CONVERT"), Reply::Value(Value::Float(6.5)));
    assert_eq!(store.run("KV.INCR price d:1.10"), decimal("1.10"));
    assert_eq!(store.run("KV.INCR price i:2"), decimal("3.10"));
    assert_eq!(store.run("KV.DECR price d:0.10 MIN d:3"), decimal("3.00"));
    assert_eq!(store.kind_of_error("KV.DECR price d:0.10 MIN d:3"), ErrorKind::OutOfRange);
    assert_eq!(store.run("KV.GET price"), decimal("3.00"));
    assert_eq!(store.run("KV.INCR fresh i:1 INITIAL i:10"), int(11));
    store.run("KV.SET top i:9223372036854775807");
    assert_eq!(store.kind_of_error("KV.INCR top"), ErrorKind::OutOfRange);
    assert_eq!(store.kind_of_error("INCR ~top"), ErrorKind::OutOfRange);
}

#[test]
fn untyped_bytes_name_the_typed_member_that_is_shown_as_them() {
    let mut store = store();
    assert_eq!(store.run("SADD s i:5 text d:1.10"), Reply::Integer(3));
    assert_eq!(store.run("SADD ~s ~5 ~text ~1.10"), Reply::Integer(0));
    assert_eq!(store.run("SISMEMBER ~s ~1.1"), Reply::Integer(0), "it is shown as 1.10");
    assert_eq!(store.run("SISMEMBER s d:1.1"), Reply::Integer(1), "decimals compare by number");
    assert_eq!(store.run("SREM ~s ~5"), Reply::Integer(1));
    assert_eq!(store.run("SCARD s"), Reply::Integer(2));
}

#[test]
fn compare_and_set_is_exact() {
    let mut store = store();
    store.run("KV.SET k d:1.10");
    assert_eq!(store.run("KV.CAS k VALUE d:1.1 TO i:1"), Reply::Boolean(false));
    assert_eq!(store.run("KV.CAS k VALUE d:1.10 TO i:1"), Reply::Boolean(true));
    assert_eq!(store.run("KV.CAS k VALUE f:1 TO i:2"), Reply::Boolean(false));
    assert_eq!(store.run("KV.CAS ~k VALUE ~1 TO ~2"), Reply::Boolean(true), "untyped bytes as shown");
    assert_eq!(store.run("KV.CAS k MISSING TO i:3"), Reply::Boolean(false));
}

#[test]
fn a_transition_changes_all_or_nothing() {
    let mut store = store();
    let made = store.run("KV.TRANSITION t status TO PENDING MISSING UPDATE i:1 n i:0 PX i:1000");
    assert_eq!(made, Reply::Container(Shape::Array, vec![Reply::Missing, Reply::Integer(1)]));
    assert_eq!(store.kind_of_error("KV.TRANSITION t status TO DONE FROM i:1 STARTED"), ErrorKind::Conflict);
    let taken = store.run("KV.TRANSITION t status TO STARTED FROM i:1 PENDING FENCE i:1");
    let pending = Reply::Value(Value::Text("PENDING".into()));
    assert_eq!(taken, Reply::Container(Shape::Array, vec![pending, Reply::Integer(2)]));
    assert_eq!(
        store.kind_of_error("KV.TRANSITION t status TO DONE FROM i:1 STARTED FENCE i:1"),
        ErrorKind::Conflict
    );
    assert_eq!(store.run("PTTL t"), Reply::Integer(1000), "the deadline stays unless one is given");
    store.0.advance(1000);
    assert_eq!(store.run("EXISTS t"), Reply::Integer(0));
}

#[test]
fn deadlines_move_under_their_conditions() {
    let mut store = store();
    store.run("SET k v");
    assert_eq!(store.run("PEXPIRE k i:50 GT"), Reply::Integer(0), "no deadline is later than any");
    assert_eq!(store.run("PEXPIRE k i:50 LT"), Reply::Integer(1));
    assert_eq!(store.run("PEXPIRE k i:50 GT"), Reply::Integer(0));
    assert_eq!(store.run("PEXPIRE k i:60 GT"), Reply::Integer(1));
    assert_eq!(store.run("PEXPIRE k i:70 NX"), Reply::Integer(0));
    assert_eq!(store.run("SET k w KEEPTTL"), Reply::Ok);
    store.0.advance(59);
    assert_eq!(store.run("PTTL k"), Reply::Integer(1));
    store.0.advance(1);
    assert_eq!(store.run("PTTL k"), Reply::Integer(-2));
}

#[test]
fn an_empty_collection_is_stored_whole_and_goes_with_its_last_element() {
    let mut store = store();
    let empty = Value::List(Vec::new()).encode();
    let args = [Arg::Untyped(b"l"), Arg::Value(ValueRef::decode(&empty).unwrap())];
    let set = by_name(b"KV.SET").unwrap().build(&args).unwrap();
    assert_eq!(store.0.execute(0, &set), Reply::Ok);
    assert_eq!(store.run("EXISTS l"), Reply::Integer(1));
    assert_eq!(store.run("RPUSH l a"), Reply::Integer(1));
    store.run("LPOP l");
    assert_eq!(store.run("EXISTS l"), Reply::Integer(0));
}

#[test]
fn decimal_scores_order_exactly() {
    let mut store = store();
    store.run("ZADD z d:0.30 a d:0.3000000000000000000001 b d:0.1 c");
    assert_eq!(store.run("ZRANK z b"), Reply::Integer(2));
    assert_eq!(store.run("ZINCRBY z d:0.2 c"), decimal("0.3"));
    assert_eq!(store.run("ZRANK z c"), Reply::Integer(1), "0.3 is 0.30, so the members decide");
    assert_eq!(store.kind_of_error("ZADD f f:1 a d:1.5 b"), ErrorKind::WrongType);
}
