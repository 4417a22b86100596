//! Emptying namespaces of which each change is logged: a crash leaves all of it or nothing, in every namespace and wherever the
//! keys were, and nothing that was cleared comes back.

use std::io::ErrorKind;
use std::sync::Arc;

use data_bridge_kv::engine::describe_record;
use data_bridge_kv::sync::real::Mutex;
use data_bridge_kv::wal::{self, Line};
use data_bridge_kv::{
    Caller, Completions, DataDirectory, Durability, Engine, Eviction, ManualClock, Mode, Settings,
};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::{Arg, Reply, ReplyBuf, ReplyReader};
use data_bridge_kv_testkit::disk::{Fault, FaultyDisk};

const START_MS: u64 = 1_700_000_000_000;
const SPACES: [&str; 3] = ["1", "2", "5"];
/// What of the last writes lasts is tried so often for each cut.
const SEEDS: u64 = 16;
const KEYS: [&str; 6] = ["cold", "resident", "older", "new", "list", "hash"];

struct Store {
    engine: Engine,
    disk: FaultyDisk,
}

impl Store {
    fn open(disk: &FaultyDisk) -> Store {
        let mut settings = Settings {
            clock: Arc::new(ManualClock::new(START_MS)) as _,
            seed: Some(7),
            // So many that what a clear writes does not fit one sector of the disk.
            shards: Some(64),
            background: false,
            data: Some(DataDirectory::on(Arc::new(disk.clone()), 32 << 20).expect("nobody else has it")),
            ..Settings::default()
        };
        for (number, durability) in
            [(1, Durability::Always), (2, Durability::EverySecond), (5, Durability::Always)]
        {
            let space = &mut settings.namespaces[number];
            (space.mode, space.eviction, space.allow_flush) = (Mode::Task, Eviction::None, true);
            space.durability = Some(durability);
        }
        Store { engine: Engine::open(settings).expect("it opens"), disk: disk.clone() }
    }

    fn caller(&self, space: &str) -> Caller {
        Caller { namespace: self.engine.namespace(space).unwrap(), ..self.engine.caller() }
    }

    fn run(&self, space: &str, line: &str) -> Reply {
        self.run_as(&self.caller(space), line)
    }

    fn run_as(&self, caller: &Caller, line: &str) -> Reply {
        let words: Vec<&str> = line.split(' ').collect();
        let args: Vec<Arg<'_>> = words[1..].iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
        let call = table::by_name(words[0].as_bytes()).unwrap().call(&args).unwrap();
        let mut out = ReplyBuf::new();
        let _ = self.engine.execute(caller, 0, &call, &mut out);
        ReplyReader::new(out.as_bytes()).reply().unwrap()
    }

    /// Keys in each place that there is, in each namespace.
    fn filled(disk: &FaultyDisk) -> Store {
        let store = Store::open(disk);
        for space in SPACES {
            ["SET cold 1", "SET resident 1", "SET older 1"]
                .iter()
                .for_each(|line| drop(store.run(space, line)));
        }
        assert!(store.engine.checkpoint());
        store.engine.demote_all();
        for space in SPACES {
            // What was read comes back for good by the second time.
            ["GET resident", "GET resident", "SET older 2", "SET new 1", "RPUSH list a b", "HSET hash f 1"]
                .iter()
                .for_each(|line| drop(store.run(space, line)));
            assert_eq!(store.keys(space), KEYS.len() as i64);
        }
        store.engine.sync().unwrap();
        store
    }

    fn keys(&self, space: &str) -> i64 {
        let Reply::Integer(keys) = self.run(space, "DBSIZE") else { panic!() };
        keys
    }

    /// What every key of a namespace holds, with its version.
    fn state(&self, space: &str) -> Vec<Reply> {
        KEYS.map(|key| self.run(space, &format!("KV.GETV {key}"))).into()
    }

    fn states(&self) -> Vec<Vec<Reply>> {
        SPACES.map(|space| self.state(space)).into()
    }

    /// What is there after the power was cut.
    fn crash(self, seed: u64) -> Store {
        self.disk.crash(seed);
        // The one before is gone with the power: it may not touch the disk any more.
        self.disk.set_fault(Some(Fault { at: 0, error: ErrorKind::Other, sticky: true }));
        drop(self.engine.close());
        self.disk.set_fault(None);
        Store::open(&self.disk)
    }
}

/// The power is cut at every single operation on the disk from the clear to the end of the checkpoint behind it.
#[test]
fn a_power_cut_within_a_clear_leaves_all_or_nothing() {
    let (mut cuts, mut cleared, mut whole) = (0, 0, 0);
    for cut in 0.. {
        let (at, seed) = (cut / SEEDS, cut);
        let store = Store::filled(&FaultyDisk::new());
        let before = store.states();
        let first = store.disk.operations();
        store.disk.set_fault(Some(Fault { at: first + at, error: ErrorKind::Other, sticky: true }));
        let reply = store.run("1", "FLUSHALL");
        let is_written = store.engine.checkpoint();
        let is_over = store.disk.operations() < first + at;
        let store = store.crash(seed);
        let keys = SPACES.map(|space| store.keys(space));
        if keys == [0; 3] {
            cleared += 1;
        } else {
            assert_eq!(store.states(), before, "cut {at} leaves a part: {keys:?}");
            assert!(reply != Reply::Ok && !is_written, "cut {at} takes back what was answered");
            whole += 1;
        }
        cuts += 1;
        // Nor does anything come back later.
        SPACES.iter().for_each(|space| drop(store.run(space, "SET later 1")));
        assert!(store.engine.checkpoint());
        let store = store.crash(seed);
        let expected = keys.map(|keys| keys + 1);
        assert_eq!(SPACES.map(|space| store.keys(space)), expected, "cut {at}, later");
        if is_over && cut % SEEDS == SEEDS - 1 {
            break;
        }
    }
    println!("{cuts} cuts, {cleared} of them left nothing, {whole} everything");
    assert!(cleared > 40 && whole > 10, "{cuts} cuts, {cleared} left nothing, {whole} everything");
}

/// What is on disk of a key may be older than a clear, or newer; the log tells which.
#[test]
fn what_came_after_a_clear_outlives_it() {
    for checkpoints in 0..8 {
        let mut store = Store::filled(&FaultyDisk::new());
        let checkpoint = |store: &Store, step: u32| {
            if checkpoints >> step & 1 == 1 {
                assert!(store.engine.checkpoint());
                store.engine.demote_all();
            }
        };
        checkpoint(&store, 0);
        assert_eq!(store.run("1", "FLUSHDB"), Reply::Ok);
        checkpoint(&store, 1);
        assert_eq!(store.run("1", "SET cold 2"), Reply::Ok);
        assert_eq!(store.run("1", "RPUSH list c"), Reply::Integer(1));
        checkpoint(&store, 2);
        assert_eq!(store.run("1", "RPUSH list d"), Reply::Integer(2));
        let expected = store.states();
        for round in 0..3 {
            store = store.crash(round);
            assert_eq!(store.states(), expected, "checkpoints {checkpoints:b}, round {round}");
            assert_eq!(SPACES.map(|space| store.keys(space)), [2, 6, 6]);
            store.engine.checkpoint();
        }
    }
}

/// A namespace is cleared by one record, so that it fits where the disk is full.
#[test]
fn a_clear_works_on_a_full_disk() {
    let disk = FaultyDisk::new();
    let store = Store::open(&disk);
    let value = "v".repeat(20_000);
    (0..100).for_each(|n| assert_eq!(store.run("1", &format!("SET key:{n} {value}")), Reply::Ok));
    disk.set_capacity(Some(disk.used()));
    let refused = (100..10_000).find(|n| store.run("1", &format!("SET key:{n} {value}")) != Reply::Ok);
    assert!(refused.is_some(), "the disk is full");
    assert_eq!(store.run("1", "FLUSHDB"), Reply::Ok);
    assert_eq!(store.run("1", "DBSIZE"), Reply::Integer(0));
    disk.set_capacity(None);
    let store = store.crash(1);
    assert_eq!(store.keys("1"), 0);
}

#[test]
fn the_log_tells_of_one_record_for_all_namespaces() {
    let disk = FaultyDisk::new();
    let store = Store::filled(&disk);
    assert_eq!(store.run("1", "KV.CLEAR "), Reply::Integer(6));
    assert_eq!(store.run("1", "FLUSHALL"), Reply::Ok);
    assert_eq!(store.run("1", "FLUSHALL"), Reply::Ok);
    store.engine.sync().unwrap();
    let mut told = Vec::new();
    let see = |line: Line<'_>| {
        if let Line::Record { record, .. } = line {
            told.push(describe_record(&record).expect("it is known"));
        }
    };
    wal::dump(&disk, see).unwrap();
    let clears: Vec<String> = told.into_iter().filter(|line| line.contains("clear")).collect();
    assert_eq!(clears.len(), 2, "what is empty takes no record: {clears:?}");
    assert!(clears[0].starts_with("clear namespace 1, every key of 64 shards (up to version "), "{clears:?}");
    let named: Vec<&str> =
        clears[1].split("; ").map(|part| part.split(',').next().unwrap_or_default()).collect();
    assert_eq!(named, ["clear namespace 2", "clear namespace 5"]);
}

#[derive(Default)]
struct Letters(Mutex<Vec<String>>);

impl Completions for Letters {
    fn complete(&self, token: u64, reply: &[u8]) {
        self.0.lock().push(format!("{token}: {:?}", ReplyReader::new(reply).reply().unwrap()));
    }

    fn event(&self, _watch: u64, event: &[u8]) {
        let Ok(Reply::Container(_, parts)) = ReplyReader::new(event).reply() else { panic!() };
        let parts: Vec<String> = parts.iter().take(2).map(|part| format!("{part:?}")).collect();
        self.0.lock().push(parts.join(" "));
    }
}

/// Who watches a key or a prefix hears of each key once, wherever it was, and no sooner than the clear is durable.
#[test]
fn whoever_watches_hears_of_each_key_once() {
    let store = Store::filled(&FaultyDisk::new());
    let letters = Arc::new(Letters::default());
    let watcher = Caller { completions: Some(Arc::clone(&letters) as _), ..store.caller("1") };
    for line in ["KV.WATCH KEY resident", "KV.WATCH KEY cold", "KV.WATCH KEY nothing", "KV.WATCH PREFIX "] {
        assert!(matches!(store.run_as(&watcher, line), Reply::Integer(_)), "{line}");
    }
    let parking = Caller { parks: true, ..store.caller("1") };
    assert_eq!(store.run_as(&parking, "FLUSHDB"), Reply::Ok);
    assert_eq!(*letters.0.lock(), Vec::<String>::new(), "not durable yet");
    store.engine.sync().unwrap();
    let mut told = std::mem::take(&mut *letters.0.lock());
    told.sort();
    let mut expected: Vec<&str> = KEYS.into_iter().chain(["cold", "resident"]).collect();
    expected.sort_unstable();
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for (line, key) in told.iter().zip(expected) {
        assert!(line.contains("delete") && line.contains(key), "{told:?}");
    }
}
