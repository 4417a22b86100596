//! What answers rest on in the log.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

use data_bridge_kv::wal::{self, Line};
use data_bridge_kv::{
    Caller, Completions, DataDirectory, Durability, Engine, Lookahead, ManualClock, NamespaceSettings,
    Obstacle, Pin, Progress, Settings, Waits,
};
use data_bridge_kv_model::command::{Expiry, table};
use data_bridge_kv_model::{Arg, ErrorKind, Key, Reply, ReplyBuf, ReplyReader, Value, ValueRef};
use data_bridge_kv_testkit::disk::{Fault, FaultyDisk};
use data_bridge_kv_testkit::random::Random;

fn run(engine: &Engine, caller: &Caller, line: &str) -> Reply {
    let words: Vec<&str> = line.split(' ').collect();
    let args: Vec<Arg<'_>> = words[1..].iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
    let call = table::by_name(words[0].as_bytes()).unwrap().call(&args).unwrap();
    let mut out = ReplyBuf::new();
    let _ = engine.execute(caller, 0, &call, &mut out);
    ReplyReader::new(out.as_bytes()).reply().unwrap()
}

/// A flush of all namespaces from one that is not logged is shown no sooner than those that are logged have it; so is what it
/// leaves in each of those, which have one record of it together.
#[test]
fn a_flush_of_everything_rests_on_every_namespace() {
    let data = DataDirectory::on(Arc::new(FaultyDisk::new()), 1 << 26).unwrap();
    let mut settings =
        Settings { data: Some(data), background: false, shards: Some(2), ..Settings::default() };
    settings.namespaces[3] = NamespaceSettings { name: "jobs".to_owned(), ..NamespaceSettings::preset(1) };
    for number in [1, 3] {
        settings.namespaces[number].allow_flush = true;
    }
    let engine = Engine::open(settings).unwrap();
    let all = ["tasks", "jobs"].map(|name| engine.namespace(name).unwrap());
    for namespace in all {
        assert_eq!(run(&engine, &Caller { namespace, ..engine.caller() }, "SET job 1"), Reply::Ok);
    }
    let parking = Caller { parks: true, ..engine.caller() };
    assert_eq!(run(&engine, &parking, "FLUSHALL"), Reply::Ok);
    let others = all.map(|namespace| Caller { namespace, parks: true, ..engine.caller() });
    for other in &others {
        assert_eq!(run(&engine, other, "DBSIZE"), Reply::Integer(0));
    }
    let asked = [&parking, &others[0], &others[1]];
    assert_eq!(asked.map(|caller| engine.owed(caller).is_some()), [true; 3]);
    engine.sync().unwrap();
    assert_eq!(asked.map(|caller| engine.owed(caller).is_some()), [false; 3]);
}

/// Whoever writes while the store is closed is on disk, or told that it is closed: nothing failed.
#[test]
fn a_write_beside_the_end_is_on_disk_or_told_of_it() {
    for round in 0..100_u64 {
        let disk = FaultyDisk::new();
        let open = || {
            let data = DataDirectory::on(Arc::new(disk.clone()), 1 << 26).unwrap();
            let engine = Engine::open(Settings { data: Some(data), ..Settings::default() }).unwrap();
            let caller = Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
            (engine, caller)
        };
        let (engine, caller) = open();
        let written = AtomicU64::new(0);
        let known = thread::scope(|scope| {
            let write = |number: u64| {
                let mut known = 0;
                loop {
                    match run(&engine, &caller, &format!("INCR n{number}")) {
                        Reply::Integer(now) => known = now,
                        Reply::Error(error) if error.kind() == ErrorKind::Closed => return known,
                        other => panic!("round {round}: {other:?}"),
                    }
                    written.fetch_add(1, SeqCst);
                }
            };
            let writers: Vec<_> = (0..3).map(|number| scope.spawn(move || write(number))).collect();
            while written.load(SeqCst) < round {
                thread::yield_now();
            }
            engine.close().unwrap();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<i64>>()
        });
        drop(engine);
        let (engine, caller) = open();
        for (number, known) in (0_u64..).zip(known) {
            let there = match run(&engine, &caller, &format!("INCRBY n{number} 0")) {
                Reply::Integer(there) => there,
                other => panic!("round {round}: {other:?}"),
            };
            assert!((known..=known + 1).contains(&there), "round {round}: {known} known, {there} there");
        }
    }
}

/// What was acknowledged before it was on disk is written at the end; if that fails, who closes the store hears of it, once.
#[test]
fn an_end_that_loses_what_was_acknowledged_says_so() {
    for works in [true, false] {
        let disk = FaultyDisk::new();
        let (engine, caller) = tasks_on(&disk, Durability::EverySecond);
        assert_eq!(run(&engine, &caller, "SET key 1"), Reply::Ok);
        let fault = Fault { at: disk.operations(), error: io::ErrorKind::Other, sticky: true };
        disk.set_fault((!works).then_some(fault));
        let failure = engine.close().err().map(|error| error.kind());
        assert_eq!(failure, (!works).then_some(ErrorKind::Durability));
        engine.close().expect("it is closed");
        disk.set_fault(None);
        let (again, caller) = tasks_on(&disk, Durability::EverySecond);
        assert_eq!(run(&again, &caller, "EXISTS key"), Reply::Integer(i64::from(works)));
    }
}

/// Where events go that nobody looks at.
struct Deaf;

impl Completions for Deaf {
    fn complete(&self, _token: u64, _reply: &[u8]) {}
    fn event(&self, _watch: u64, _event: &[u8]) {}
}

fn tasks_on(disk: &FaultyDisk, durability: Durability) -> (Engine, Caller) {
    tasks_at(disk, durability, &Arc::new(ManualClock::new(1_800_000_000_000)))
}

fn tasks_at(disk: &FaultyDisk, durability: Durability, clock: &Arc<ManualClock>) -> (Engine, Caller) {
    let data = DataDirectory::on(Arc::new(disk.clone()), 1 << 26).unwrap();
    let clock = Arc::clone(clock) as _;
    let mut settings =
        Settings { data: Some(data), background: false, shards: Some(2), clock, ..Settings::default() };
    settings.namespaces[1].durability = Some(durability);
    let engine = Engine::open(settings).unwrap();
    let caller = Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
    (engine, caller)
}

/// The records of a log: LSN, head and payload.
fn records(disk: &FaultyDisk) -> Vec<(u64, Vec<u8>)> {
    let mut records = Vec::new();
    let see = |line: Line<'_>| {
        if let Line::Record { lsn, record, .. } = line {
            let head = record.head;
            let front = [head.namespace, head.kind].into_iter().chain(head.generation.to_le_bytes());
            records.push((lsn, front.chain(record.payload.iter().copied()).collect()));
        }
    };
    wal::dump(disk, see).unwrap();
    records
}

/// A write that goes the short way, without a transaction, leaves the same record as one that a watcher is told of.
#[test]
fn the_short_way_and_the_long_way_leave_the_same_records() {
    let write = |key: &str, engine: &Engine, caller: &Caller| {
        let value = "v".repeat(70);
        engine.try_write(
            caller,
            Key::new(key.as_bytes()).unwrap(),
            ValueRef::bytes(value.as_bytes()),
            Expiry::In(5000),
        )
    };
    for durability in [Durability::EverySecond, Durability::Always] {
        let first = FaultyDisk::new();
        drop(tasks_on(&first, durability));
        let second = first.crash_image(0);
        let mut replies = Vec::new();
        for (disk, watched) in [(&first, false), (&second, true)] {
            let (engine, caller) = tasks_on(disk, durability);
            if watched {
                let deaf = Caller { completions: Some(Arc::new(Deaf)), ..caller.clone() };
                assert!(matches!(run(&engine, &deaf, "KV.WATCH PREFIX a"), Reply::Integer(_)));
            }
            let mut told = vec![run(&engine, &caller, "SET a:0 1")];
            let long = "x".repeat(3000);
            for line in [
                "SET a:1 some-bytes",
                "SET a:1 7 PX 70000",
                "INCR a:1",
                "DECRBY a:2 9",
                "INCR a:2",
                "SET b 1 EX 9",
                "HSET a:3 f 1 g 2",
                "INCRBY a:4 5000000000",
                "SET a:1 x KEEPTTL",
                &format!("SET a:5 {long}"),
            ] {
                told.push(run(&engine, &caller, line));
            }
            let short = write("a:6", &engine, &caller);
            let expected = durability == Durability::EverySecond && !watched;
            assert_eq!(short, if expected { Ok(()) } else { Err(Obstacle::Unusual) });
            let (pin, key) = (Pin::new(), Key::new(b"a:7").unwrap());
            let mut ahead = Lookahead::default().begin(&pin);
            engine.look_ahead(&caller, &mut ahead).tell(Some(key.as_bytes()), None);
            assert_eq!(engine.write_ahead(&caller, key, ValueRef::bytes(b"v"), ahead.turn(0)), expected);
            if !expected {
                for line in [format!("SET a:6 {} PX 5000", "v".repeat(70)), "SET a:7 v".to_owned()] {
                    assert_eq!(run(&engine, &caller, &line), Reply::Ok);
                }
            }
            engine.sync().unwrap();
            replies.push(told);
        }
        assert_eq!(replies[0], replies[1]);
        let (short, long) = (records(&first), records(&second));
        assert_eq!(short.len(), 13);
        assert_eq!(short, long, "{durability:?}");
    }
}

/// A command that is asked for durably answers when its record is on disk, whatever the namespace's durability says; without a
/// log it is refused.
#[test]
fn a_command_is_durable_where_that_is_asked_for() {
    let disk = FaultyDisk::new();
    let (engine, caller) = tasks_on(&disk, Durability::EverySecond);
    let durably = |caller: &Caller, line: &str| {
        let words: Vec<Arg<'_>> = line.split(' ').map(|word| Arg::Untyped(word.as_bytes())).collect();
        let call = table::by_name(words[0].content().unwrap()).unwrap().call(&words[1..]).unwrap();
        let mut out = ReplyBuf::new();
        let _ = engine.execute_durably(caller, 0, &call, &mut out);
        ReplyReader::new(out.as_bytes()).reply().unwrap()
    };
    assert_eq!(run(&engine, &caller, "SET a 1"), Reply::Ok);
    assert!(!engine.is_durable(1));
    assert_eq!(durably(&caller, "SET b 1"), Reply::Ok);
    assert!(engine.is_durable(2) && !engine.is_durable(3));
    let parking = Caller { parks: true, ..caller.clone() };
    assert_eq!(durably(&parking, "INCR b"), Reply::Integer(2));
    assert_eq!(engine.owed(&parking), Some(3));
    let Reply::Error(refused) = durably(&engine.caller(), "SET a 1") else { panic!("no log") };
    assert!(refused.to_string().contains("'default' has no log"), "{refused}");
    assert_eq!(run(&engine, &engine.caller(), "EXISTS a"), Reply::Integer(0));
}

/// What an error tells of a key waits for the log as any other answer does.
#[test]
fn an_error_that_tells_a_version_rests_on_its_record() {
    let (engine, caller) = tasks_on(&FaultyDisk::new(), Durability::Always);
    let parking = Caller { parks: true, ..caller.clone() };
    assert_eq!(run(&engine, &parking, "SET a 1"), Reply::Ok);
    assert!(!engine.is_durable(1));
    assert!(matches!(run(&engine, &caller, "KV.SETV a 2 5"), Reply::Error(_)));
    assert!(engine.is_durable(1));
}

/// What is stored, as somebody knows who was answered.
type Known = BTreeMap<String, Vec<u8>>;

/// Runs a command that writes, and follows it unless it was refused because the disk is full; answers whether it was.
fn write(engine: &Engine, caller: &Caller, line: &str, follow: impl FnOnce()) -> bool {
    match run(engine, caller, line) {
        Reply::Error(error) => {
            assert_eq!(error.kind(), ErrorKind::ReadOnly, "{line:.60}: {error}");
            true
        }
        _ => {
            follow();
            false
        }
    }
}

fn check(engine: &Engine, caller: &Caller, known: &Known, seed: u64) {
    for (key, value) in known {
        let found = run(engine, caller, &format!("GET {key}"));
        assert!(found == Reply::Value(Value::Bytes(value.clone().into())), "{key}, seed {seed}");
    }
    assert_eq!(run(engine, caller, "DBSIZE"), Reply::Integer(known.len() as i64), "seed {seed}");
}

/// Values of some megabytes meet a disk that fills up: each is written or refused as a whole, and so is a command whose record is
/// much longer than its request; deletes and reads work, the log never fails, and writes go on when there is space.
#[test]
fn large_values_on_a_full_disk_are_refused_and_deletes_work() {
    let (mut refused, mut deleted) = (0, 0);
    for seed in 0..6 {
        let mut random = Random::new(seed);
        let durability = [Durability::EverySecond, Durability::Always][seed as usize % 2];
        let (disk, clock) = (FaultyDisk::new(), Arc::new(ManualClock::new(1_800_000_000_000)));
        let (engine, caller) = tasks_at(&disk, durability, &clock);
        let mut known = Known::new();
        for (key, bytes) in [("large", 3 << 20), ("first", 10), ("second", 10)] {
            let value = "l".repeat(bytes);
            assert_eq!(run(&engine, &caller, &format!("SET {key} {value}")), Reply::Ok);
            known.insert(key.to_owned(), value.into_bytes());
        }
        engine.tick();
        // Less than a log of which there is no checkpoint may have (twice 16 MiB here): that refuses only what grows.
        disk.set_capacity(Some(disk.used() + (8 << 20) + random.below(16 << 20) as u64));
        let mut is_full = false;
        while !is_full {
            let bytes = [20, 1000, 300_000, 2_500_000, 5_000_000][random.below(5)];
            let value = format!("{:07}", random.below(10_000_000)).repeat(1 + random.below(bytes) / 7);
            let key = format!("key:{}", random.below(300));
            let put = || drop(known.insert(key.clone(), value.clone().into_bytes()));
            let is_refused = write(&engine, &caller, &format!("SET {key} {value}"), put);
            refused += usize::from(is_refused);
            is_full = is_refused && value.len() < 100;
            // In the background some space may be freed.
            if !is_full && random.one_in(5) {
                clock.advance(300);
                engine.tick();
            }
        }
        assert_eq!(engine.log_failure(), None, "seed {seed}");
        assert!(write(&engine, &caller, "RENAME large larger", || {}), "its record has the value");
        assert!(write(&engine, &caller, "APPEND large x", || {}));
        check(&engine, &caller, &known, seed);
        let keys: Vec<String> = known.keys().filter(|key| key.starts_with("key")).cloned().collect();
        for key in keys.iter().take(40) {
            assert_eq!(run(&engine, &caller, &format!("DEL {key}")), Reply::Integer(1), "seed {seed}");
            known.remove(key);
            deleted += 1;
        }
        assert_eq!(run(&engine, &caller, "RENAME first third"), Reply::Ok, "a little one");
        let first = known.remove("first").unwrap();
        known.insert("third".to_owned(), first);
        disk.set_capacity(None);
        clock.advance(1000);
        engine.tick();
        assert!(!write(&engine, &caller, "RENAME large larger", || {}));
        let large = known.remove("large").unwrap();
        known.insert("larger".to_owned(), large);
        check(&engine, &caller, &known, seed);
        engine.sync().unwrap();
        let image = disk.crash_image(seed);
        let (engine, caller) = tasks_at(&image, durability, &clock);
        check(&engine, &caller, &known, seed);
    }
    println!("{refused} writes refused, {deleted} keys deleted");
    assert!(refused > 6 && deleted > 6 * 10);
}

/// A large value that waits for the disk holds no small write back, on whichever way that comes; another large one it does.
#[test]
fn a_small_write_passes_large_values_that_wait_for_the_disk() {
    let disk = FaultyDisk::new();
    let data = DataDirectory::on(Arc::new(disk.clone()), 1 << 30).unwrap();
    let mut settings =
        Settings { data: Some(data), background: false, shards: Some(2), ..Settings::default() };
    settings.namespaces[1].durability = Some(Durability::EverySecond);
    let engine = Engine::open(settings).unwrap();
    let caller = Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
    let large = "v".repeat(64 << 20);
    assert_eq!(run(&engine, &caller, &format!("SET large {large}")), Reply::Ok);
    let caller = Caller { waits: Waits::Never, ..caller };
    let progress = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let args: Vec<Arg<'_>> = words[1..].iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
        let call = table::by_name(words[0].as_bytes()).unwrap().call(&args).unwrap();
        engine.execute(&caller, 0, &call, &mut ReplyBuf::new())
    };
    for line in ["SET small 1", "INCR number", "RPUSH list a b", "DEL small"] {
        assert_eq!(progress(line), Progress::Done, "{line}");
    }
    let key = Key::new(b"direct").unwrap();
    assert!(engine.try_write(&caller, key, ValueRef::bytes(b"1"), Expiry::Default).is_ok());
    assert_eq!(progress(&format!("SET other {}", &large[..100_000])), Progress::Blocked);
}
