//! The tables of `docs/TYPES.md` that tell what commands do, carried out by the engine.

use data_bridge_kv::{Caller, Engine, Progress, Settings};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::limits::VALUE_BYTES;
use data_bridge_kv_model::{Arg, ErrorKind, Kind, Reply, ReplyBuf, ReplyReader, Value};

const DOCUMENT: &str = include_str!("../../../docs/TYPES.md");

/// The rows of the table behind `<!-- checked: name -->`, its head first.
fn rows(name: &str) -> Vec<Vec<&'static str>> {
    let mark = format!("<!-- checked: {name} -->\n");
    let (_, behind) = DOCUMENT.split_once(&mark).unwrap_or_else(|| panic!("TYPES.md has no table {name}"));
    let rows = behind.lines().take_while(|line| line.starts_with('|'));
    let mut rows: Vec<Vec<&str>> =
        rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect();
    rows.remove(1);
    assert!(rows.len() > 2, "the table {name} is empty");
    rows
}

struct Store {
    engine: Engine,
    caller: Caller,
}

impl Store {
    fn new() -> Store {
        let engine = Engine::open(Settings { background: false, ..Settings::default() }).unwrap();
        let caller = engine.caller();
        Store { engine, caller }
    }

    fn run(&self, name: &str, args: &[Arg<'_>]) -> Reply {
        let call = table::by_name(name.as_bytes()).unwrap().call(args).unwrap();
        let mut out = ReplyBuf::new();
        assert_eq!(self.engine.execute(&self.caller, 0, &call, &mut out), Progress::Done);
        ReplyReader::new(out.as_bytes()).reply().unwrap()
    }
}

fn word(text: &str) -> Arg<'_> {
    Arg::Untyped(text.as_bytes())
}

fn one_of(kind: Kind) -> Arg<'static> {
    Arg::Literal(kind, if kind == Kind::Decimal { b"1.5" } else { b"1" })
}

/// What adding one number of kind `by` to a stored one answers, as the table writes it.
fn sum(stored: Option<Kind>, by: Kind) -> String {
    let add = |flags: &[&str]| {
        let store = Store::new();
        if let Some(kind) = stored {
            store.run("KV.SET", &[word("k"), one_of(kind)]);
        }
        let mut args = vec![word("k"), one_of(by)];
        args.extend(flags.iter().map(|flag| word(flag)));
        match store.run("KV.INCR", &args) {
            Reply::Value(value) => Ok(value.kind().name().to_owned()),
            Reply::Error(error) => Err(error.kind()),
            other => panic!("{other:?}"),
        }
    };
    match (add(&[]), add(&["CONVERT"])) {
        (Ok(kind), Ok(same)) if kind == same => kind,
        (Err(ErrorKind::WrongType), Ok(kind)) => format!("CONVERT: {kind}"),
        (Err(ErrorKind::WrongType), Err(ErrorKind::WrongType)) => "refused".to_owned(),
        other => panic!("{stored:?} + {by:?}: {other:?}"),
    }
}

#[test]
fn numbers_are_added_as_written() {
    let rows = rows("adding");
    let by: Vec<Kind> = rows[0][1..].iter().map(|name| Kind::from_name(name).unwrap()).collect();
    for row in &rows[1..] {
        let stored: Vec<Option<Kind>> = match row[0] {
            "missing" => vec![None],
            "any other kind" => vec![Some(Kind::Text), Some(Kind::Bytes)],
            name => vec![Some(Kind::from_name(name).unwrap())],
        };
        for stored in stored {
            for (cell, by) in row[1..].iter().zip(&by) {
                assert_eq!(sum(stored, *by), *cell, "{stored:?} + {by:?}");
            }
        }
    }
}

#[test]
fn untyped_bytes_match_as_written() {
    for row in &rows("identity")[1..] {
        let (name, text) = row[0].split_once(' ').unwrap();
        let (text, bytes) = (text.trim_matches('`'), word(row[1].trim_matches('`')));
        let stored = Arg::Literal(Kind::from_name(name).unwrap(), text.as_bytes());
        let store = Store::new();
        store.run("SADD", &[word("set"), stored]);
        store.run("HSET", &[word("hash"), stored, word("v")]);
        store.run("ZADD", &[word("zset"), word("1"), stored]);
        store.run("KV.SET", &[word("k"), stored]);

        let matches = row[2] == "yes";
        let is_there = store.run("SISMEMBER", &[word("set"), bytes]);
        assert_eq!(is_there, Reply::Integer(matches.into()), "{row:?}");
        let found = store.run("HGET", &[word("hash"), bytes]);
        assert_eq!(found != Reply::Missing, matches, "{row:?}: {found:?}");
        let score = store.run("ZSCORE", &[word("zset"), bytes]);
        assert_eq!(score == Reply::Value(Value::Float(1.0)), matches, "{row:?}: {score:?}");
        let swapped = store.run("KV.CAS", &[word("k"), word("VALUE"), bytes, word("TO"), word("new")]);
        assert_eq!(swapped, Reply::Boolean(matches), "{row:?}");
        let new = Reply::Integer((!matches).into());
        assert_eq!(store.run("SADD", &[word("set"), bytes]), new, "{row:?}");
        assert_eq!(store.run("HSET", &[word("hash"), bytes, word("w")]), new, "{row:?}");
        assert_eq!(store.run("ZADD", &[word("zset"), word("2"), bytes]), new, "{row:?}");
    }
}

#[test]
fn a_value_above_the_limit_is_refused() {
    let store = Store::new();
    let most = vec![b'x'; VALUE_BYTES];
    assert_eq!(store.run("KV.SET", &[word("k"), Arg::Untyped(&most)]), Reply::Ok);
    let more = vec![b'x'; VALUE_BYTES + 1];
    let Reply::Error(error) = store.run("KV.SET", &[word("k"), Arg::Untyped(&more)]) else {
        panic!("it was taken")
    };
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert_eq!(store.run("STRLEN", &[word("k")]), Reply::Integer(VALUE_BYTES as i64));
}
