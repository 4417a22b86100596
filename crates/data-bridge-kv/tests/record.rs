//! What one command or atomic step changes is one record of the log, and that has a limit: whatever would be longer is refused
//! before anything is changed.

use std::sync::Arc;

use data_bridge_kv::{Caller, DataDirectory, Durability, Engine, ManualClock, OnError, Settings};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::{Arg, Call, ErrorKind, Reply, ReplyBuf, ReplyReader, Shape};
use data_bridge_kv_testkit::disk::FaultyDisk;

/// The limit here; everywhere else it is 1 GiB.
const RECORD_BYTES: usize = 1 << 20;
const KEYS: [&str; 8] = ["a", "b", "s", "t", "l", "m", "z", "h"];

struct Store {
    engine: Engine,
    caller: Caller,
    /// A key of 1000 bytes, so that each effect on it weighs.
    long: String,
}

type Words = Vec<String>;

fn words(line: &str) -> Words {
    line.split(' ').map(str::to_owned).collect()
}

impl Store {
    fn open(disk: &FaultyDisk) -> Store {
        let mut settings = Settings {
            clock: Arc::new(ManualClock::new(1_700_000_000_000)) as _,
            seed: Some(7),
            shards: Some(2),
            background: false,
            record_bytes: RECORD_BYTES,
            data: Some(DataDirectory::on(Arc::new(disk.clone()), 256 << 20).expect("nobody else has it")),
            ..Settings::default()
        };
        settings.namespaces[1].durability = Some(Durability::EverySecond);
        settings.namespaces[1].history = 4;
        let engine = Engine::open(settings).expect("it opens");
        let caller = Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
        Store { engine, caller, long: "🔑".repeat(250) }
    }

    fn run(&self, words: &Words) -> Reply {
        let args: Vec<Arg<'_>> = words[1..].iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
        let call = table::by_name(words[0].as_bytes()).unwrap().call(&args).unwrap();
        let mut out = ReplyBuf::new();
        let _ = self.engine.execute(&self.caller, 0, &call, &mut out);
        ReplyReader::new(out.as_bytes()).reply().unwrap()
    }

    fn line(&self, line: &str) -> Reply {
        self.run(&words(line))
    }

    fn atomic(&self, lines: &[Words], on_error: OnError) -> Reply {
        let args: Vec<Vec<Arg<'_>>> = lines
            .iter()
            .map(|words| words[1..].iter().map(|word| Arg::Untyped(word.as_bytes())).collect())
            .collect();
        let named = lines.iter().zip(&args);
        let calls: Vec<Call<'_>> = named
            .map(|(words, args)| table::by_name(words[0].as_bytes()).unwrap().call(args).unwrap())
            .collect();
        let mut out = ReplyBuf::new();
        let _ = self.engine.execute_atomic(&self.caller, &calls, on_error, &[], &mut out);
        ReplyReader::new(out.as_bytes()).reply().unwrap()
    }

    /// What every key holds, with its version, and the last record of the log.
    fn state(&self) -> (Vec<Reply>, u64) {
        let keys = KEYS.into_iter().chain([self.long.as_str()]);
        let held = keys.map(|key| self.line(&format!("KV.GETV {key}"))).collect();
        (held, self.engine.stats().log.unwrap().last)
    }

    /// Runs what is refused for its length, and looks that it has done nothing.
    fn refuses(&self, words: &Words) {
        let before = self.state();
        let reply = self.run(words);
        assert!(is_limit(&reply), "{}: {}", words[0], shown(&reply));
        assert!(self.state() == before, "{}", words[0]);
    }

    /// Fills a collection under the long key, a little at a time.
    fn fill(&self, command: &str, elements: usize, element: impl Fn(usize) -> Vec<String>) {
        self.line(&format!("DEL {}", self.long));
        for first in (0..elements).step_by(100) {
            let mut words = vec![command.to_owned(), self.long.clone()];
            words.extend((first..first + 100).flat_map(&element));
            assert!(!matches!(self.run(&words), Reply::Error(_)));
        }
    }
}

/// The start of a reply.
fn shown(reply: &Reply) -> String {
    format!("{reply:?}").chars().take(200).collect()
}

fn is_limit(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(error) if error.kind() == ErrorKind::Limit)
}

/// What a command needs may be far more than what it says.
#[test]
fn what_is_taken_out_of_a_collection_is_reckoned_before() {
    let store = Store::open(&FaultyDisk::new());
    let long = store.long.clone();
    store.fill("RPUSH", 2000, |_| vec!["x".to_owned()]);
    for line in ["LPOP {} 1500", "RPOP {} 1500", "LREM {} 0 x"] {
        store.refuses(&words(&line.replace("{}", &long)));
    }
    assert!(matches!(store.line(&format!("LPOP {long} 500")), Reply::Container(..)));
    store.fill("SADD", 2000, |n| vec![format!("m{n}")]);
    store.refuses(&words(&format!("SPOP {long} 1500")));
    assert!(matches!(store.line(&format!("SPOP {long} 500")), Reply::Container(..)));
    store.fill("ZADD", 2000, |n| vec![n.to_string(), format!("m{n}")]);
    for line in [
        "ZPOPMIN {} 1500",
        "ZPOPMAX {} 1500",
        "ZREMRANGEBYRANK {} 0 -1",
        "ZREMRANGEBYSCORE {} 100 1900",
        "ZREMRANGEBYLEX {} [m [n",
    ] {
        store.refuses(&words(&line.replace("{}", &long)));
    }
    assert_eq!(store.line(&format!("ZREMRANGEBYRANK {long} 0 499")), Reply::Integer(500));
    assert_eq!(store.line(&format!("DEL {long}")), Reply::Integer(1), "the whole key is one effect");
}

#[test]
fn what_a_command_brings_is_reckoned_before() {
    let store = Store::open(&FaultyDisk::new());
    let half = "v".repeat(RECORD_BYTES / 2);
    store.refuses(&["MSET", "a", &half, "b", &half].map(str::to_owned).into());
    store.refuses(&["SET", "a", &half.repeat(2)].map(str::to_owned).into());
    store.refuses(&["SADD", "s", &half, &format!("{half}2")].map(str::to_owned).into());
    let mut push = vec!["RPUSH".to_owned(), store.long.clone()];
    push.extend((0..1500).map(|n| n.to_string()));
    store.refuses(&push);
    assert_eq!(store.run(&["MSET", "a", &half, "b", "1"].map(str::to_owned).into()), Reply::Ok);
}

/// In an atomic step everything together counts: where it is taken back as a whole, and where each command fails alone.
#[test]
fn an_atomic_step_is_one_record() {
    let disk = FaultyDisk::new();
    let store = Store::open(&disk);
    let (large, small) = ("v".repeat(100_000), "1");
    let back_and_forth: [[String; 2]; 7] = [
        ["RENAME a b", "RENAME b a"].map(str::to_owned),
        ["APPEND a 1", "SETRANGE a 7 x"].map(str::to_owned),
        ["LMOVE l m LEFT RIGHT", "LMOVE m l LEFT RIGHT"].map(str::to_owned),
        [format!("SMOVE s t {large}"), format!("SMOVE t s {large}")],
        ["SUNIONSTORE t s", "SUNIONSTORE s s t"].map(str::to_owned),
        ["ZUNIONSTORE m 2 z t", "ZRANGESTORE z m 0 -1"].map(str::to_owned),
        ["COPY a b REPLACE", "COPY b a REPLACE"].map(str::to_owned),
    ];
    for pair in back_and_forth {
        store.line("DEL a b l m s t z");
        for line in ["SET a {}", "RPUSH l {}", "SADD s {}", "SADD t other", "ZADD z 1 {}", "HSET h status {}"]
        {
            assert!(!matches!(store.line(&line.replace("{}", &large)), Reply::Error(_)), "{line}");
        }
        // Of those that name the member eight are as many as may be said.
        let count = if pair[0].len() > 1000 { 8 } else { 12 };
        let lines: Vec<Words> = pair.iter().cycle().take(count).map(|line| words(line)).collect();
        let before = store.state();
        let reply = store.atomic(&lines, OnError::Abort);
        assert!(is_limit(&reply), "{}: {}", lines[0][0], shown(&reply));
        assert!(store.state() == before, "{}", lines[0][0]);
        match store.atomic(&lines, OnError::Continue) {
            Reply::Container(Shape::Array, replies) => {
                let refused = replies.iter().position(is_limit).expect("one is refused");
                assert!((4..12).contains(&refused), "{}: the {refused}th", lines[0][0]);
                let failed = |reply: &Reply| matches!(reply, Reply::Error(_));
                assert!(!replies[..refused].iter().any(failed), "{}", lines[0][0]);
            }
            reply => panic!("{}: {}", lines[0][0], shown(&reply)),
        }
        // The step as far as it came is in the log.
        store.line(&format!("SET z {small}"));
        let before = store.state();
        store.engine.sync().unwrap();
        let again = Store::open(&disk.crash_image(1));
        assert!(again.state().0 == before.0, "{}", lines[0][0]);
    }
}

/// A task keeps its last states, which may be long.
#[test]
fn the_history_of_a_task_counts() {
    let store = Store::open(&FaultyDisk::new());
    let state = |n: u32| format!("{n}").repeat(250_000);
    let step = |n: u32, from: &str| words(&format!("KV.TRANSITION h status TO {} {from}", state(n)));
    for step in [step(1, "MISSING"), step(2, &format!("FROM 1 {}", state(1)))] {
        let reply = store.run(&step);
        assert!(!matches!(reply, Reply::Error(_)), "{}", shown(&reply));
    }
    store.refuses(&step(3, &format!("FROM 1 {}", state(2))));
}
