//! A store that is opened with an index on disk: a shard has its part loaded when somebody needs it, and answers as if it had
//! been there all along. Where a part is damaged its shard is built anew from the segments; where the disk fails the command
//! says so, and the next one tries again.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::mpsc;

use data_bridge_kv::disk::Disk;
use data_bridge_kv::engine::TierStats;
use data_bridge_kv::{
    Caller, Chore, DataDirectory, Durability, Engine, ManualClock, Needs, Progress, Settings, Waits,
};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::{Arg, Key, Reply, ReplyBuf, ReplyReader, Value};
use data_bridge_kv_testkit::disk::hooked::{Hooked, Operation};
use data_bridge_kv_testkit::disk::{Fault, FaultyDisk};
use data_bridge_kv_testkit::random::{Random, setting};

const START_MS: u64 = 1_800_000_000_000;
const SHARDS: usize = 8;
const KEYS: usize = 400;
const INDEX: &str = "cold-task-index";
/// So short a segment of the log is given up once all of it is checkpointed.
const LOG_SEGMENT_BYTES: u64 = 16 << 10;

struct Store {
    engine: Engine,
    caller: Caller,
}

impl Store {
    fn open(disk: &FaultyDisk, background: bool) -> Store {
        Store::open_with(Arc::new(disk.clone()), |settings| settings.background = background)
    }

    fn open_with(disk: Arc<dyn Disk>, adjust: impl FnOnce(&mut Settings)) -> Store {
        let mut settings = Settings {
            clock: Arc::new(ManualClock::new(START_MS)),
            seed: Some(1),
            shards: Some(SHARDS),
            background: false,
            data: Some(DataDirectory::on(disk, 1 << 30).expect("nobody else has it")),
            ..Settings::default()
        };
        settings.namespaces[1].durability = Some(Durability::EverySecond);
        settings.namespaces[1].allow_flush = true;
        adjust(&mut settings);
        let engine = Engine::open(settings).unwrap();
        let caller = Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
        Store { engine, caller }
    }

    fn execute(&self, caller: &Caller, line: &str) -> (Progress, ReplyBuf) {
        let words: Vec<&str> = line.split(' ').collect();
        let args: Vec<Arg<'_>> = words[1..].iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
        let call = table::by_name(words[0].as_bytes()).unwrap().call(&args).unwrap();
        let mut out = ReplyBuf::new();
        (self.engine.execute(caller, 0, &call, &mut out), out)
    }

    fn run(&self, line: &str) -> Reply {
        let (progress, out) = self.execute(&self.caller, line);
        assert_eq!(progress, Progress::Done, "{line}");
        ReplyReader::new(out.as_bytes()).reply().unwrap()
    }

    fn tier(&self) -> TierStats {
        self.engine.stats().tier.unwrap()
    }

    fn to_load(&self) -> usize {
        self.tier().shards_to_load
    }

    fn size(&self) -> Reply {
        self.run("DBSIZE")
    }

    /// Every key, with its version.
    fn state(&self) -> Vec<Reply> {
        (0..KEYS).map(|n| self.run(&format!("KV.GETV {}", key(n)))).collect()
    }
}

fn key(n: usize) -> String {
    format!("key:{n}")
}

fn text(n: usize) -> Reply {
    Reply::Value(Value::Bytes(format!("value {n}").into_bytes().into()))
}

/// A directory with the index of that many keys, closed in good order.
fn closed() -> FaultyDisk {
    let disk = FaultyDisk::new();
    let store = Store::open(&disk, false);
    for n in 0..KEYS {
        let args = [key(n), format!("value {n}")];
        let args: Vec<Arg<'_>> = args.iter().map(|arg| Arg::Untyped(arg.as_bytes())).collect();
        let call = table::by_name(b"SET").unwrap().call(&args).unwrap();
        assert_eq!(store.engine.execute(&store.caller, 0, &call, &mut ReplyBuf::new()), Progress::Done);
    }
    store.engine.close().unwrap();
    disk
}

fn is_error(reply: &Reply, kind: data_bridge_kv_model::ErrorKind) -> bool {
    matches!(reply, Reply::Error(error) if error.kind() == kind)
}

#[test]
fn a_shard_is_loaded_when_it_is_asked_for() {
    let store = Store::open(&closed(), false);
    assert_eq!(store.to_load(), SHARDS, "opening reads none");
    assert_eq!(store.engine.stats().namespaces[1].keys, KEYS, "the parts tell how many keys they have");
    assert_eq!(store.run("GET key:7"), text(7));
    assert_eq!(store.to_load(), SHARDS - 1, "the others are not needed");
    assert_eq!(store.run("GET key:7"), text(7));
    assert_eq!(store.run("GET nothing"), Reply::Missing);
    assert!(
        (SHARDS - 2..SHARDS).contains(&store.to_load()),
        "a missing key may exist until its shard is loaded"
    );
    assert_eq!(store.size(), Reply::Integer(KEYS as i64));
    assert_eq!(store.to_load(), 0, "how many keys there are takes all");
}

#[test]
fn the_rest_is_loaded_in_the_background() {
    let store = Store::open(&closed(), false);
    store.engine.do_chore(Chore::Tier);
    assert_eq!(store.to_load(), 0);
    assert_eq!(store.size(), Reply::Integer(KEYS as i64));
    let store = Store::open(&closed(), true);
    while store.to_load() > 0 {
        std::thread::yield_now();
    }
    assert_eq!(store.run("GET key:7"), text(7));
}

/// Each first command on a shard whose part is on disk, by what it says after everything is loaded.
#[test]
fn whatever_asks_first_is_answered_as_if_it_had_been_loaded() {
    let disk = closed();
    let firsts = [
        "GET key:1",
        "EXISTS key:1 key:2 key:3",
        "DEL key:1",
        "DEL key:1 key:2 nothing",
        "UNLINK key:5",
        "TTL key:3",
        "TYPE key:3",
        "SETNX key:4 x",
        "SETNX new x",
        "SET key:4 y",
        "SET key:4 y GET",
        "GETDEL key:4",
        "APPEND key:4 z",
        "STRLEN key:4",
        "MGET key:1 key:2 nothing key:3",
        "MSET key:1 a key:2 b",
        "MSETNX key:1 a other b",
        "RENAME key:1 key:2",
        "RENAMENX key:1 key:2",
        "EXPIRE key:1 100",
        "PERSIST key:1",
        "KV.GETV key:9",
        "DBSIZE",
        "KEYS key:1*",
        "FLUSHDB",
        "KV.CLEAR key:1",
        "RPUSH key:1 x",
        "INCR key:1",
        "INCR counter",
        "GETEX key:1 PX 1000",
        "SADD set a",
        "COPY key:1 copied",
        "TOUCH key:1 key:2",
        "RANDOMKEY",
    ];
    let mut compared = 0;
    for first in firsts {
        let words = first.split(' ').next().unwrap_or_default();
        if table::by_name(words.as_bytes()).is_none() {
            continue;
        }
        let [fresh, loaded] = [1, 2].map(|_| Store::open(&disk.crash_image(0), false));
        loaded.engine.do_chore(Chore::Tier);
        assert_eq!((fresh.to_load(), loaded.to_load()), (SHARDS, 0));
        let [mut one, mut other] = [&fresh, &loaded].map(|store| store.run(first));
        for reply in [&mut one, &mut other] {
            if let Reply::Container(_, items) = reply {
                items.sort_by_key(|item| format!("{item:?}"));
            }
        }
        if first != "RANDOMKEY" {
            assert_eq!(one, other, "{first}");
        }
        assert_eq!(fresh.size(), loaded.size(), "{first}");
        // Versions count the changes of a shard, which are the same.
        assert_eq!(fresh.state(), loaded.state(), "{first}");
        compared += 1;
    }
    assert!(compared > 20, "{compared} commands are compared");
}

#[test]
fn a_scan_meets_every_key_once() {
    let store = Store::open(&closed(), false);
    let (mut cursor, mut met) = ("0".to_owned(), Vec::new());
    loop {
        let Reply::Container(_, answer) = store.run(&format!("SCAN {cursor} COUNT 20")) else {
            panic!("not an answer")
        };
        let [Reply::Value(next), Reply::Container(_, keys)] = &answer[..] else { panic!("{answer:?}") };
        met.extend(keys.iter().map(|key| format!("{key:?}")));
        cursor = match next {
            Value::Text(next) => next.to_string(),
            other => panic!("{other:?}"),
        };
        if cursor == "0" {
            break;
        }
    }
    met.sort_unstable();
    met.dedup();
    assert_eq!((met.len(), store.to_load()), (KEYS, 0));
}

#[test]
fn who_never_waits_is_told_to_come_again() {
    let store = Store::open(&closed(), false);
    let never = Caller { waits: Waits::Never, needs: Needs::default(), ..store.caller.clone() };
    for line in [
        "GET key:7",
        "SET key:7 x",
        "SET unknown x",
        "DEL key:7",
        "MGET key:7 key:8",
        "DBSIZE",
        "SCAN 0",
        "FLUSHDB",
    ] {
        let (progress, out) = store.execute(&never, line);
        assert_eq!((progress, out.len()), (Progress::Blocked, 0), "{line}");
        assert_eq!((never.needs.take(), never.needs.take_room()), (0, false), "{line}: it needs the disk");
    }
    assert_eq!(store.engine.try_version(&never, Key::new(b"key:7").unwrap()).unwrap(), None);
    assert_eq!(store.to_load(), SHARDS, "nothing was read");
    assert_eq!(store.run("GET key:7"), text(7));
    let read = store.execute(&Caller { waits: Waits::Never, ..store.caller.clone() }, "EXISTS key:7");
    assert_eq!(read.0, Progress::Done, "its shard is there");
    assert_eq!(store.size(), Reply::Integer(KEYS as i64));
}

/// What the log has is carried out on top of parts that nobody loaded; a key never shows what it was before.
#[test]
fn a_log_is_carried_out_before_the_index_is_there() {
    let (first, seeds) = (setting("KV_SEED", 1), setting("KV_SEEDS", 40));
    let mut absent = 0;
    for seed in first..first + seeds {
        let disk = closed();
        let store = Store::open(&disk, false);
        let mut random = Random::new(seed);
        for _ in 0..random.below(300) {
            let (one, other) = (key(random.below(KEYS + 50)), key(random.below(KEYS)));
            let kinds = if random.one_in(3) { 9 } else { 6 };
            let line = match random.below(kinds) {
                0 | 1 => format!("SET {one} new{}", random.below(100)),
                2 | 3 => format!("DEL {one}"),
                4 => format!("MSET {one} a {other} b"),
                5 => format!("DEL {one} {other}"),
                6 => format!("APPEND {one} more"),
                7 => format!("PEXPIRE {one} 100000"),
                _ => format!("GETDEL {one}"),
            };
            assert!(!matches!(store.run(&line), Reply::Error(_)), "{line}");
            if random.one_in(600) {
                assert_eq!(store.run("FLUSHDB"), Reply::Ok);
            }
        }
        store.engine.sync().unwrap();
        let (expected, size) = (store.state(), store.size());
        let mut image = disk.crash_image(seed);
        // Each opening ends in its own way, and the next one finds the same.
        for round in 0..4 {
            let again = Store::open(&image, round == 3);
            absent += again.to_load();
            let shown = |what: &str| format!("KV_SEED={seed}, round {round}: {what}");
            if random.one_in(2) {
                assert_eq!(again.size(), size, "{}", shown("DBSIZE"));
            }
            if random.one_in(2) {
                for _ in 0..20 {
                    let n = random.below(KEYS);
                    assert_eq!(again.run(&format!("KV.GETV {}", key(n))), expected[n], "{}", shown(&key(n)));
                }
            }
            let end = random.below(4);
            match end {
                0 => again.engine.close().unwrap(),
                1 => assert!(again.engine.checkpoint()),
                2 => again.engine.tick(),
                _ => {}
            }
            if round > 1 && end > 0 {
                assert_eq!(again.state(), expected, "{}", shown("the state"));
                assert_eq!(again.size(), size, "{}", shown("DBSIZE"));
            }
            image = image.crash_image(seed);
        }
    }
    println!("{seeds} logs, {absent} shards whose index was absent behind them");
    assert!(absent as u64 > seeds * 5, "{absent}");
}

#[test]
fn a_damaged_part_is_built_anew_from_the_segments() {
    let disk = closed();
    let expected = Store::open(&disk.crash_image(0), false).state();
    let size = disk.open(INDEX).unwrap().size().unwrap();
    let (mut rebuilt, mut flipped) = (0, 0);
    for offset in (0..size).step_by(211) {
        let image = disk.crash_image(0);
        let file = image.open(INDEX).unwrap();
        let mut byte = [0];
        file.read_at(&mut byte, offset).unwrap();
        file.write_at(&[byte[0] ^ 4], offset).unwrap();
        let store = Store::open(&image, false);
        rebuilt += usize::from(store.to_load() > 0);
        assert_eq!(store.state(), expected, "offset {offset}");
        assert_eq!(store.size(), Reply::Integer(KEYS as i64), "offset {offset}");
        assert_eq!(store.to_load(), 0);
        // It is written anew, and serves.
        store.engine.close().unwrap();
        let again = Store::open(&image, false);
        assert_eq!(again.to_load(), SHARDS);
        assert_eq!(again.state(), expected, "offset {offset}, again");
        flipped += 1;
    }
    println!("{flipped} flips, of which {rebuilt} were found late");
    assert!(rebuilt > 30, "{rebuilt} of {flipped}");
}

#[test]
fn a_disk_that_fails_is_told_and_tried_again() {
    let disk = closed();
    let store = Store::open(&disk, false);
    let fail = |fails| {
        let fault = Fault { at: 0, error: ErrorKind::Other, sticky: true };
        disk.set_fault(Some(fault).filter(|_| fails));
    };
    fail(true);
    for line in ["GET key:7", "SET key:7 x", "EXISTS key:7 key:8", "DBSIZE", "FLUSHDB", "SCAN 0"] {
        let reply = store.run(line);
        assert!(is_error(&reply, data_bridge_kv_model::ErrorKind::Unavailable), "{line}: {reply:?}");
    }
    assert_eq!(store.to_load(), SHARDS);
    (0..100).for_each(|_| store.engine.do_chore(Chore::Tier));
    assert!(store.tier().read_errors > 5 && store.tier().read_errors < 50, "{}", store.tier().read_errors);
    assert!(!store.engine.checkpoint(), "what is there is not known");
    fail(false);
    assert_eq!(store.run("GET key:7"), text(7));
    assert_eq!(store.size(), Reply::Integer(KEYS as i64));
    store.engine.close().unwrap();
    let again = Store::open(&disk, false);
    assert_eq!(again.size(), Reply::Integer(KEYS as i64));
    assert_eq!(again.run("GET key:9"), text(9));
}

/// The disk does not give the index at one opening, and would at the next, when it knows nothing of what came in between.
#[test]
fn an_index_that_could_not_be_read_takes_nothing_away_later() {
    let disk = closed();
    let store = Store::open(&disk, false);
    // The next index is newer than every segment.
    assert_eq!(store.run("SET brief x"), Reply::Ok);
    assert_eq!(store.run("DEL brief"), Reply::Integer(1));
    store.engine.close().unwrap();
    let hides = |operation, name: &str| match operation {
        Operation::Open if name == INDEX => Err(ErrorKind::Other.into()),
        _ => Ok(()),
    };
    let hidden = Arc::new(Hooked::new(Arc::new(disk.clone()), hides));
    let store = Store::open_with(hidden, |settings| settings.log_segment_bytes = Some(LOG_SEGMENT_BYTES));
    assert_eq!((store.to_load(), store.run("GET key:7")), (0, text(7)), "it is built anew");
    let later = || (0..100).map(|n| format!("later:{n} {}", "x".repeat(1000)));
    later().for_each(|words| assert_eq!(store.run(&format!("SET {words}")), Reply::Ok));
    assert!(store.engine.checkpoint(), "nothing is in the way");
    let again = Store::open(&disk.crash_image(1), false);
    for words in later() {
        let key = words.split(' ').next().unwrap();
        assert_eq!(again.run(&format!("EXISTS {key}")), Reply::Integer(1), "{key} was checkpointed");
    }
    assert_eq!(again.run("GET key:7"), text(7));
    assert_eq!(again.size(), Reply::Integer(KEYS as i64 + 100));
}

/// Each operation of loading fails once; the other shards are not concerned.
#[test]
fn any_one_error_at_loading_costs_one_command_at_most() {
    let disk = closed();
    for at in 0..60 {
        let image = disk.crash_image(0);
        let store = Store::open(&image, false);
        image.set_fault(Some(Fault { at: image.operations() + at, error: ErrorKind::Other, sticky: false }));
        let mut failed = 0;
        for n in 0..KEYS {
            let mut reply = store.run(&format!("GET {}", key(n)));
            if is_error(&reply, data_bridge_kv_model::ErrorKind::Unavailable) {
                failed += 1;
                reply = store.run(&format!("GET {}", key(n)));
            }
            assert_eq!(reply, text(n), "fault {at}");
        }
        assert!(failed <= 1, "fault {at}: {failed} commands failed");
        assert_eq!(store.size(), Reply::Integer(KEYS as i64));
    }
}

#[test]
fn those_who_need_one_shard_wait_together_and_others_do_not() {
    let disk = closed();
    let store = Store::open(&disk, false);
    let shard_of = |n: usize| {
        // Those that are loaded by one read are in one shard.
        let store = Store::open(&disk.crash_image(0), false);
        store.run(&format!("GET {}", key(n)));
        (0..KEYS)
            .filter(|other| {
                let never = Caller { waits: Waits::Never, ..store.caller.clone() };
                store.execute(&never, &format!("EXISTS {}", key(*other))).0 == Progress::Done
            })
            .collect::<Vec<usize>>()
    };
    let together = shard_of(0);
    let other = (0..KEYS).find(|n| !together.contains(n)).unwrap();
    assert_eq!(store.run(&format!("GET {}", key(other))), text(other));
    let before = disk.reads().count;
    disk.hold_reads(true);
    std::thread::scope(|scope| {
        let (send, answers) = mpsc::channel();
        for n in together.iter().copied().take(8) {
            let (send, store) = (send.clone(), &store);
            scope.spawn(move || send.send(store.run(&format!("EXISTS {}", key(n)))).unwrap());
        }
        // Or nobody would see that one of them ended without an answer.
        drop(send);
        while disk.reads().waiting == 0 {
            std::thread::yield_now();
        }
        let loaded = store.run(&format!("EXISTS {}", key(other)));
        let early = answers.try_recv();
        disk.hold_reads(false);
        assert_eq!(loaded, Reply::Integer(1), "its shard is loaded");
        assert!(early.is_err(), "nobody is answered before");
        (0..8).for_each(|_| assert_eq!(answers.recv().unwrap(), Reply::Integer(1)));
    });
    assert_eq!(disk.reads().count, before + 1, "one read serves all");
}

#[test]
fn first_requests_of_many_threads_are_all_answered_right() {
    let (first, rounds) = (setting("KV_SEED", 1), setting("KV_ROUNDS", 20));
    for seed in first..first + rounds {
        let disk = closed();
        let store = Store::open(&disk, true);
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let store = &store;
                scope.spawn(move || {
                    let mut random = Random::new(seed * 10 + thread);
                    for _ in 0..60 {
                        let n = random.below(KEYS);
                        match random.below(8) {
                            0 => assert_eq!(store.size(), Reply::Integer(KEYS as i64)),
                            1 => assert_eq!(
                                store.run(&format!("EXISTS {} {}", key(n), key((n + 1) % KEYS))),
                                Reply::Integer(2)
                            ),
                            2 => {
                                let args = [key(n), format!("value {n}")];
                                let args: Vec<Arg<'_>> =
                                    args.iter().map(|arg| Arg::Untyped(arg.as_bytes())).collect();
                                let call = table::by_name(b"SET").unwrap().call(&args).unwrap();
                                let caller = store.caller.clone();
                                assert_eq!(
                                    store.engine.execute(&caller, 0, &call, &mut ReplyBuf::new()),
                                    Progress::Done
                                );
                            }
                            _ => assert_eq!(store.run(&format!("GET {}", key(n))), text(n)),
                        }
                    }
                });
            }
        });
        assert_eq!(store.size(), Reply::Integer(KEYS as i64), "KV_SEED={seed}");
    }
}

#[test]
fn a_store_that_is_closed_while_it_loads_loses_nothing() {
    let disk = closed();
    for round in 0..40 {
        let store = Store::open(&disk, round % 2 == 0);
        if round % 4 < 2 {
            assert_eq!(store.run(&format!("SET extra{round} x")), Reply::Ok);
        }
        store.engine.close().unwrap();
        let caller = store.caller.clone();
        let reply = store.execute(&caller, "GET key:1").1;
        let reply = ReplyReader::new(reply.as_bytes()).reply().unwrap();
        assert!(is_error(&reply, data_bridge_kv_model::ErrorKind::Closed), "{reply:?}");
    }
    let store = Store::open(&disk, false);
    assert_eq!(store.size(), Reply::Integer(KEYS as i64 + 20));
    assert_eq!(store.run("GET key:7"), text(7));
}

/// Nothing was written: there is nothing to checkpoint, and closing need not read what nobody asked for.
#[test]
fn closing_reads_no_index_for_nothing() {
    let disk = closed();
    let store = Store::open(&disk, false);
    assert_eq!(store.run("GET key:7"), text(7));
    let before = disk.reads().bytes;
    store.engine.close().unwrap();
    assert_eq!(disk.reads().bytes, before);
}
