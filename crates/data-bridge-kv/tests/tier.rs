//! The engine with a cold tier: what leaves memory and comes back, what costs no reading, and what a full, failing or
//! damaged disk does. That no command behaves differently on a cold key is shown by `model_equiv`.

#[path = "tier/full.rs"]
mod full;
#[path = "tier/reads.rs"]
mod reads;
#[path = "tier/space.rs"]
mod space;

use std::collections::HashSet;
use std::io::ErrorKind as DiskError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use data_bridge_kv::disk::Disk;
use data_bridge_kv::engine::TierStats;
use data_bridge_kv::sync::real::Mutex;
use data_bridge_kv::{
    Caller, Completions, DataDirectory, Engine, Eviction, ManualClock, Mode, OnError, Progress, Settings,
};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::{Arg, Call, ErrorKind, Key, Reply, ReplyBuf, ReplyReader, Shape, Value};
use data_bridge_kv_testkit::disk::{Fault, FaultyDisk};

const START_MS: u64 = 1_700_000_000_000;

struct Store {
    engine: Arc<Engine>,
    clock: Arc<ManualClock>,
    caller: Caller,
    disk: FaultyDisk,
}

impl Store {
    fn new(namespace: &str, max_memory: u64, max_disk: u64) -> Store {
        let disk = FaultyDisk::new();
        let directory = DataDirectory::on(Arc::new(disk.clone()), max_disk).unwrap();
        Store::on(namespace, max_memory, disk, directory)
    }

    fn on(namespace: &str, max_memory: u64, disk: FaultyDisk, directory: DataDirectory) -> Store {
        Store::try_on(namespace, max_memory, disk, directory).unwrap()
    }

    fn try_on(
        namespace: &str,
        max_memory: u64,
        disk: FaultyDisk,
        directory: DataDirectory,
    ) -> data_bridge_kv_model::Result<Store> {
        let clock = Arc::new(ManualClock::new(START_MS));
        let mut settings = Settings {
            clock: clock.clone(),
            seed: Some(1),
            shards: Some(4),
            background: false,
            max_memory,
            data: Some(directory),
            ..Settings::default()
        };
        if namespace != "tasks" {
            // Then nothing is logged.
            settings.namespaces[1].mode = Mode::Cache;
        }
        // What neither is evicted nor logged.
        settings.namespaces[3].name = "kept".to_owned();
        settings.namespaces[3].eviction = Eviction::None;
        let engine = Arc::new(Engine::open(settings)?);
        let caller = Caller { namespace: engine.namespace(namespace)?, ..engine.caller() };
        Ok(Store { engine, clock, caller, disk })
    }

    /// Everything fits, until the test lets it leave.
    fn roomy(namespace: &str) -> Store {
        Store::new(namespace, u64::MAX, 1 << 30)
    }

    fn run(&self, line: &str) -> Reply {
        run(&self.engine, &self.caller, line)
    }

    fn tier(&self) -> TierStats {
        self.engine.stats().tier.unwrap()
    }

    /// How many entries a line reads from disk.
    fn reads(&self, line: &str) -> u64 {
        let before = self.tier().fetched;
        self.run(line);
        self.tier().fetched - before
    }

    fn is_cold(&self, keys: usize) -> bool {
        self.engine.stats().namespaces.iter().map(|one| one.cold).sum::<usize>() == keys
    }
}

fn with_call<R>(line: &str, act: impl FnOnce(&Call<'_>) -> R) -> R {
    let words: Vec<&str> = line.split(' ').collect();
    let args: Vec<Arg<'_>> = words[1..].iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
    act(&table::by_name(words[0].as_bytes()).unwrap().call(&args).unwrap())
}

fn run(engine: &Engine, caller: &Caller, line: &str) -> Reply {
    let mut out = ReplyBuf::new();
    assert_eq!(with_call(line, |call| engine.execute(caller, 0, call, &mut out)), Progress::Done, "{line}");
    ReplyReader::new(out.as_bytes()).reply().unwrap()
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

fn value(n: usize) -> String {
    format!("{n}-").repeat(40 + n % 60)
}

#[test]
fn data_several_times_the_budget_is_all_there() {
    for namespace in ["cache", "default", "kept", "tasks"] {
        let budget = 1 << 20;
        let store = Store::new(namespace, budget, 1 << 30);
        let mut most = 0;
        for n in 0..20_000 {
            assert_eq!(store.run(&format!("SET key:{n} {}", value(n))), Reply::Ok, "{n}");
            most = most.max(store.engine.stats().used_memory);
        }
        let stats = store.engine.stats();
        assert!(most < budget + budget / 16, "{most} bytes were used");
        assert!(stats.namespaces.iter().all(|one| one.evicted == 0));
        assert!(store.tier().bytes > 3 * budget);
        for n in 0..20_000 {
            assert_eq!(store.run(&format!("GET key:{n}")), bytes(&value(n)), "{n}");
        }
        assert_eq!(store.run("DBSIZE"), Reply::Integer(20_000));
    }
}

#[test]
fn every_kind_comes_back_with_version_and_deadline() {
    let store = Store::roomy("0");
    let large = "x".repeat(200_000);
    let lines = [
        "SET s text",
        "SET n 5",
        "RPUSH l a b c",
        "SADD set a b",
        "HSET h f 1 g 2",
        "ZADD z 2 b 1 a",
        &format!("SET large {large}"),
        &format!("RPUSH many {}", "item ".repeat(30_000).trim_end()),
    ];
    let keys = ["s", "n", "l", "set", "h", "z", "large", "many"];
    lines.iter().for_each(|line| drop(store.run(line)));
    keys.iter().for_each(|key| drop(store.run(&format!("EXPIRE {key} 100"))));
    let states = |store: &Store| {
        keys.map(|key| (store.run(&format!("KV.GETV {key}")), store.run(&format!("PTTL {key}"))))
    };
    let before = states(&store);
    store.engine.demote_all();
    assert!(store.is_cold(keys.len()));
    store.clock.advance(10);
    for (key, (before, after)) in keys.iter().zip(before.iter().zip(states(&store))) {
        assert_eq!(before.0, after.0, "{key}");
        assert_eq!((before.1.clone(), after.1), (Reply::Integer(100_000), Reply::Integer(99_990)), "{key}");
    }
}

#[test]
fn a_key_is_promoted_when_it_is_read_again() {
    let store = Store::roomy("cache");
    store.run("SET a 1");
    store.engine.demote_all();
    assert_eq!((store.run("GET a"), store.is_cold(1)), (bytes("1"), true));
    assert_eq!((store.run("GET a"), store.is_cold(0)), (bytes("1"), true));
    assert_eq!((store.tier().fetched, store.tier().promoted, store.tier().copied), (2, 1, 1));
    assert_eq!(store.reads("GET a"), 0);
    assert_eq!(store.engine.stats().namespaces[2].hits, 3);
}

#[test]
fn what_does_not_need_a_value_reads_none() {
    let store = Store::roomy("cache");
    for n in 0..100 {
        store.run(&format!("SET key:{n} {n} PX {}", 1000 + n * 100));
    }
    store.engine.demote_all();
    for line in [
        "EXISTS key:1 key:2 missing",
        "TTL key:1",
        "PTTL key:2",
        "PEXPIRETIME key:3",
        "TYPE key:4",
        "KV.KIND key:5",
        "DBSIZE",
        "DEL key:6 key:7",
        "UNLINK key:8",
        "SET key:9 new",
        "MSET key:10 a key:11 b",
        "SET key:12 new EX 100",
        "SETEX key:13 100 new",
        "KV.SET key:14 new PX 100000",
        "GET missing",
        "INCR absent",
        "HGET missing f",
    ] {
        assert_eq!(store.reads(line), 0, "{line}");
    }
    assert_eq!(store.run("TTL key:20"), Reply::Integer(3));
    assert_eq!(store.run("DBSIZE"), Reply::Integer(98));
    let before = store.disk.operations();
    store.clock.advance(5000);
    store.engine.tick();
    // Keys 0 to 40 have expired, but for those that were deleted (3) or written anew (6).
    assert_eq!((store.run("DBSIZE"), store.tier().fetched), (Reply::Integer(98 - 32), 0));
    assert_eq!(store.run("FLUSHDB"), Reply::Ok);
    assert_eq!((store.run("DBSIZE"), store.tier().fetched), (Reply::Integer(0), 0));
    assert!(store.disk.operations() - before < 10, "nothing was read");
}

#[test]
fn keys_with_a_deadline_are_counted_wherever_they_are() {
    let store = Store::roomy("cache");
    (0..20).for_each(|n| drop(store.run(&format!("SET key:{n} 1"))));
    (0..10).for_each(|n| drop(store.run(&format!("SET dated:{n} 1 EX 100"))));
    let expiring = || store.engine.stats().namespaces[2].expiring;
    assert_eq!(expiring(), 10);
    store.engine.demote_all();
    assert!(store.is_cold(30) && expiring() == 10);
    store.run("DEL dated:1");
    store.run("SET key:1 2 EX 100");
    store.run("APPEND dated:2 3");
    assert_eq!(expiring(), 10);
    store.clock.advance(100_000);
    store.engine.tick();
    assert_eq!((expiring(), store.run("DBSIZE")), (0, Reply::Integer(19)));
}

#[test]
fn a_scan_shows_hot_and_cold_keys_once() {
    let store = Store::roomy("default");
    (0..700).for_each(|n| drop(store.run(&format!("SET key:{n} x"))));
    store.engine.demote_all();
    (500..1000).for_each(|n| drop(store.run(&format!("SET key:{n} x"))));
    let (mut seen, mut cursor, mut calls) = (HashSet::new(), "0".to_owned(), 0);
    loop {
        let Reply::Container(Shape::Array, parts) = store.run(&format!("SCAN {cursor} COUNT 50")) else {
            panic!()
        };
        let [Reply::Value(Value::Text(next)), Reply::Container(_, keys)] = parts.as_slice() else { panic!() };
        for key in keys {
            let Reply::Value(Value::Text(key)) = key else { panic!("{key:?}") };
            assert!(seen.insert(key.clone()), "{key} twice");
        }
        cursor = next.to_string();
        calls += 1;
        // Keys that move between the tiers are neither lost nor doubled.
        if calls == 5 {
            store.engine.demote_all();
        }
        if cursor == "0" {
            break;
        }
    }
    assert_eq!((seen.len(), store.run("DBSIZE")), (1000, Reply::Integer(1000)));
    assert!(matches!(store.run("RANDOMKEY"), Reply::Value(Value::Text(_))));
    assert_eq!(store.run("KV.CLEAR key:9"), Reply::Integer(111));
    assert_eq!(store.run("DBSIZE"), Reply::Integer(889));
}

#[test]
fn at_the_limit_of_space_caches_lose_the_oldest_and_tasks_refuse() {
    let (memory, space) = (1 << 20, 16 << 20);
    let cache = Store::new("cache", memory, space);
    let kept = Store::new("kept", memory, space);
    let line = |n: usize| format!("SET key:{n} {}", format!("{n:06}").repeat(200));
    let mut refused = None;
    for n in 0..30_000 {
        assert_eq!(cache.run(&line(n)), Reply::Ok);
        if refused.is_none() {
            match kept.run(&line(n)) {
                Reply::Ok => {}
                reply => refused = Some((n, error_kind(&reply))),
            }
        }
    }
    let stats = cache.engine.stats();
    assert!(stats.namespaces[2].evicted > 10_000 && cache.tier().bytes <= space, "{stats:?}");
    let there = (0..30_000).filter(|n| cache.run(&format!("EXISTS key:{n}")) == Reply::Integer(1)).count();
    assert_eq!(cache.run("DBSIZE"), Reply::Integer(there as i64));
    assert!(there > 8000 && cache.run("EXISTS key:29999") == Reply::Integer(1), "{there}");
    let (n, kind) = refused.expect("tasks are never evicted");
    assert_eq!(kind, ErrorKind::OutOfMemory);
    for key in 0..n {
        assert_eq!(
            kept.run(&format!("GET key:{key}")),
            bytes(&format!("{key:06}").repeat(200)),
            "{key} of {n}"
        );
    }
    // Deletes work, and make room.
    (0..n / 2).for_each(|key| assert_eq!(kept.run(&format!("DEL key:{key}")), Reply::Integer(1)));
    kept.engine.tick();
    assert_eq!(kept.run(&line(n)), Reply::Ok);
}

#[test]
fn a_damaged_record_is_an_error_for_its_key() {
    let store = Store::roomy("cache");
    store.run("SET a 1");
    store.run("SET b 2");
    store.engine.demote_all();
    let name = store.disk.list().unwrap().into_iter().find(|name| name.starts_with("cold")).unwrap();
    let file = store.disk.open(&name).unwrap();
    let mut all = vec![0; file.size().unwrap() as usize];
    file.read_at(&mut all, 0).unwrap();
    // The keys stand at the end, in the entries; those in front of them hold hashes.
    let at = all.windows(6).rposition(|bytes| (bytes[0], bytes[5]) == (b'a', 6)).unwrap() as u64;
    file.write_at(b"c", at).unwrap();
    let lines = [
        "GET a",
        "INCR a",
        "MGET a b",
        "GETDEL a",
        "EXPIRE a 10",
        "KV.GETV a",
        "SCAN 0 VALUES",
        "SCAN 0 ENTRIES",
    ];
    for line in lines {
        assert_eq!(error_kind(&store.run(line)), ErrorKind::Corruption, "{line}");
    }
    assert_eq!(store.tier().damaged, lines.len() as u64);
    // Its name can't be read any more: what lists names goes on without it.
    for line in ["SCAN 0", "KEYS *", "RANDOMKEY", "KV.CLEAR x"] {
        assert!(!matches!(store.run(line), Reply::Error(_)), "{line}");
    }
    assert_eq!(
        store.run("KEYS *"),
        Reply::Container(Shape::Array, vec![Reply::Value(Value::Text("b".into()))])
    );
    assert_eq!(store.run("GET b"), bytes("2"));
    assert_eq!(store.run("GET c"), Reply::Missing);
    assert_eq!(store.run("EXISTS a"), Reply::Integer(1));
    assert_eq!(store.run("SET a new"), Reply::Ok);
    assert_eq!(store.run("GET a"), bytes("new"));
}

#[test]
fn a_failing_disk_gives_errors_and_is_used_again_when_it_recovers() {
    let budget = 1 << 20;
    let store = Store::new("kept", budget, 1 << 30);
    let mut n = 0;
    while store.tier().demoted == 0 {
        assert_eq!(store.run(&format!("SET key:{n} {}", value(n))), Reply::Ok);
        n += 1;
    }
    let written = n;
    for error in [DiskError::Other, DiskError::StorageFull] {
        store.disk.set_fault(Some(Fault { at: store.disk.operations(), error, sticky: true }));
        let reply = loop {
            let reply = store.run(&format!("SET more:{n} {}", value(n)));
            if reply != Reply::Ok {
                break reply;
            }
            n += 1;
        };
        assert_eq!(error_kind(&reply), ErrorKind::OutOfMemory);
        let cold = (0..written).find(|n| store.reads(&format!("GET key:{n}")) == 1).expect("some are cold");
        assert_eq!(error_kind(&store.run(&format!("GET key:{cold}"))), ErrorKind::Unavailable);
        assert_eq!(store.run(&format!("EXISTS key:{cold}")), Reply::Integer(1));
        store.disk.set_fault(None);
        assert_eq!(store.run(&format!("GET key:{cold}")), bytes(&value(cold)));
        assert_eq!(store.run(&format!("SET more:{n} {}", value(n))), Reply::Ok);
    }
    for n in 0..written {
        assert_eq!(store.run(&format!("GET key:{n}")), bytes(&value(n)), "{n}");
    }
}

#[test]
fn a_directory_is_for_one_store_and_what_tasks_left_is_kept() {
    let disk = FaultyDisk::new();
    let directory = || DataDirectory::on(Arc::new(disk.clone()), 1 << 30);
    let open = |directory| {
        Engine::open(Settings { background: false, data: Some(directory), ..Settings::default() })
    };
    let engine = open(directory().unwrap()).unwrap();
    assert_eq!(directory().err().map(|error| error.kind()), Some(ErrorKind::Locked));
    run(&engine, &engine.caller(), "SET a 1");
    engine.demote_all();
    let tasks = |engine: &Engine| Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
    run(&engine, &tasks(&engine), "SET task 1");
    engine.close().unwrap();
    let segments = || disk.list().unwrap().iter().filter(|name| name.starts_with("cold-cache")).count();
    assert_eq!(segments(), 1);
    let engine = open(directory().unwrap()).unwrap();
    assert_eq!(
        (segments(), run(&engine, &engine.caller(), "DBSIZE")),
        (0, Reply::Integer(0)),
        "a cache is empty"
    );
    assert_eq!(run(&engine, &tasks(&engine), "GET task"), bytes("1"));
}

#[test]
fn dead_entries_are_cleared_away() {
    let store = Store::new("cache", u64::MAX, 64 << 20);
    for round in 0..60 {
        (0..500).for_each(|n| drop(store.run(&format!("SET key:{n} {}", format!("{round:04}").repeat(250)))));
        store.engine.demote_all();
        store.engine.tick();
    }
    let tier = store.tier();
    assert!(tier.demoted == 30_000 && tier.reclaimed_bytes > 20 << 20, "{tier:?}");
    // Beside three segments, half as much as what lives.
    assert!(tier.bytes <= tier.live_bytes * 3 / 2 + 3 * (2 << 20), "{tier:?}");
    (0..500).for_each(|n| assert_eq!(store.run(&format!("GET key:{n}")), bytes(&"0059".repeat(250))));
}

#[derive(Default)]
struct Letters(Mutex<Vec<Reply>>);

impl Completions for Letters {
    fn complete(&self, _: u64, reply: &[u8]) {
        self.0.lock().push(ReplyReader::new(reply).reply().unwrap());
    }

    fn event(&self, _: u64, event: &[u8]) {
        self.complete(0, event);
    }
}

/// The first words of the events so far.
fn events(letters: &Letters) -> Vec<String> {
    let word = |reply: Reply| match reply {
        Reply::Container(_, mut parts) => match parts.swap_remove(0) {
            Reply::Status(word) => word.to_string(),
            other => format!("{other:?}"),
        },
        other => format!("{other:?}"),
    };
    std::mem::take(&mut *letters.0.lock()).into_iter().map(word).collect()
}

#[test]
fn watchers_hear_of_cold_keys() {
    let store = Store::roomy("cache");
    let letters = Arc::new(Letters::default());
    let watcher = Caller { completions: Some(Arc::clone(&letters) as _), ..store.caller.clone() };
    for (key, ttl) in [("a", " PX 500"), ("b", ""), ("c", ""), ("d", ""), ("e", "")] {
        store.run(&format!("SET {key} 1{ttl}"));
    }
    run(&store.engine, &watcher, "KV.WATCH KEY a");
    run(&store.engine, &watcher, "KV.WATCH KEY b");
    run(&store.engine, &watcher, "KV.WATCH PREFIX c");
    store.engine.demote_all();
    assert_eq!(events(&letters), Vec::<String>::new(), "moving is no change");
    store.run("DEL b");
    assert_eq!(events(&letters), ["delete"]);
    store.clock.advance(1000);
    store.engine.tick();
    assert_eq!(events(&letters), ["expire"]);
    store.run("FLUSHDB");
    assert_eq!(events(&letters), ["delete"]);
}

/// Counters that several threads raise, alone and together, while everything is pushed out of memory all the time: every
/// command ends, and no step is lost or seen half done.
#[test]
fn commands_on_several_cold_keys_finish_and_stay_atomic() {
    let store = Store::roomy("cache");
    let keys: Vec<String> = (0..12).map(|n| format!("n:{n}")).collect();
    store.run(&format!("MSET {}", keys.iter().map(|key| format!("{key} 0")).collect::<Vec<_>>().join(" ")));
    let (is_over, rounds) = (AtomicBool::new(false), AtomicI64::new(0));
    std::thread::scope(|scope| {
        let pusher = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                store.engine.demote_all();
            }
        });
        let workers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let lines: Vec<String> = keys.iter().map(|key| format!("INCR {key}")).collect();
                    while store.tier().fetched < 500 {
                        rounds.fetch_add(1, Ordering::Relaxed);
                        atomic(&store, &lines);
                        let Reply::Container(_, found) =
                            run(&store.engine, &store.caller, &format!("MGET {}", keys.join(" ")))
                        else {
                            panic!("no array")
                        };
                        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "torn: {found:?}");
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
        pusher.join().unwrap();
    });
    for key in &keys {
        assert_eq!(store.run(&format!("GET {key}")), bytes(&rounds.load(Ordering::Relaxed).to_string()));
    }
}

fn atomic(store: &Store, lines: &[String]) {
    let replies = run_atomic(store, lines, OnError::Abort);
    assert!(matches!(replies, Reply::Container(..)));
}

fn run_atomic(store: &Store, lines: &[String], on_error: OnError) -> Reply {
    let words: Vec<Vec<Arg<'_>>> = lines
        .iter()
        .map(|line| line.split(' ').map(|word| Arg::Untyped(word.as_bytes())).collect())
        .collect();
    let calls: Vec<_> = words
        .iter()
        .map(|words| table::by_name(words[0].content().unwrap()).unwrap().call(&words[1..]).unwrap())
        .collect();
    let mut out = ReplyBuf::new();
    let _ = store.engine.execute_atomic(&store.caller, &calls, on_error, &[], &mut out);
    ReplyReader::new(out.as_bytes()).reply().unwrap()
}

/// Entries with different lives, over and over: what has expired goes with its segment, next to nothing is written again.
#[test]
fn what_expires_goes_without_being_written_again() {
    let store = Store::new("default", 1 << 20, 64 << 20);
    let (lives, text) = ([2, 50, 600, 5000], "x".repeat(2000));
    for second in 0..1500 {
        for n in 0..20 {
            let life = lives[n % 4];
            let reply = store.run(&format!("SET key:{second}:{n} {text} EX {life}"));
            assert_eq!(reply, Reply::Ok);
        }
        store.clock.advance(1000);
        store.engine.tick();
    }
    let (tier, stats) = (store.tier(), store.engine.stats());
    assert!(tier.demoted > 10_000 && tier.reclaimed_bytes > 12 << 20, "{tier:?}");
    assert!(tier.moved < tier.demoted / 50, "{tier:?}");
    // Two seconds, fifty, ten minutes, and everything of the last kind.
    let alive = 5 * (2 + 50 + 600 + 1500);
    let keys = stats.namespaces[0].keys;
    assert!((alive - 50..=alive + 50).contains(&keys), "{keys}");
}

/// Who finds memory spent is refused where nothing can leave: what expires soon can, before that.
#[test]
fn what_expires_within_seconds_is_written_where_memory_is_spent() {
    let (budget, text) = (4 << 20, "x".repeat(500));
    let store = Store::new("cache", budget, 64 << 20);
    let mut n = 0;
    while store.engine.stats().used_memory < budget - budget / 32 {
        assert_eq!(store.run(&format!("SET key:{n} {text} EX 2")), Reply::Ok);
        n += 1;
    }
    store.engine.count_beside(0, budget as usize / 8);
    store.engine.tick();
    assert!(store.tier().demoted > 0 && store.engine.stats().used_memory <= budget);
}

#[test]
fn what_expires_within_seconds_is_written_only_for_a_writer() {
    // Large beside the pages that a shard gives back.
    let (budget, text) = (4 << 20, "x".repeat(500));
    let store = Store::new("cache", budget, 64 << 20);
    let mut n = 0;
    let mut write = |ttl: u64| {
        assert_eq!(store.run(&format!("SET key:{n} {text} EX {ttl}")), Reply::Ok);
        n += 1;
    };
    while store.engine.stats().used_memory < budget - budget / 32 {
        write(2);
    }
    store.engine.tick();
    assert_eq!(store.tier().demoted, 0);
    (0..800).for_each(|_| write(100));
    assert!(store.tier().demoted > 0, "there was no other room");
    store.clock.advance(1000);
    let before = store.tier().demoted;
    store.engine.tick();
    let demoted = store.tier().demoted - before;
    assert!((1..1600).contains(&demoted), "{demoted}: those of a hundred seconds go");
}
