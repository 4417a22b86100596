//! How entries on disk are read: once for all who ask at a time, side by side, names without values, and never on the thread
//! of a caller that does not wait.

use std::thread::{ScopedJoinHandle, scope, yield_now};

use data_bridge_kv::Waits;

use super::*;

/// Waits until the disk or the engine says so.
fn until(holds: impl Fn() -> bool) {
    while !holds() {
        yield_now();
    }
}

fn joined<T>(threads: Vec<ScopedJoinHandle<'_, T>>) -> Vec<T> {
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// A store with keys of so many bytes each on disk.
fn cold(keys: usize, value_bytes: usize) -> Store {
    let store = Store::roomy("cache");
    for n in 0..keys {
        store.run(&format!("SET key:{n} {}", format!("{n}-").repeat(value_bytes).split_at(value_bytes).0));
    }
    store.engine.demote_all();
    assert!(store.is_cold(keys));
    store
}

fn names(keys: usize) -> String {
    (0..keys).map(|n| format!(" key:{n}")).collect()
}

fn texts(reply: Reply) -> HashSet<String> {
    let Reply::Container(_, items) = reply else { panic!("{reply:?}") };
    let text = |item| match item {
        Reply::Value(Value::Text(text)) => text.to_string(),
        other => panic!("{other:?}"),
    };
    items.into_iter().map(text).collect()
}

#[test]
fn readers_of_one_key_share_one_read() {
    for fails in [false, true] {
        let store = cold(1, 100);
        let before = store.disk.reads().count;
        store.disk.hold_reads(true);
        if fails {
            let (at, error) = (store.disk.operations(), DiskError::Other);
            store.disk.set_fault(Some(Fault { at, error, sticky: false }));
        }
        let replies = scope(|scope| {
            let readers = (0..8).map(|_| scope.spawn(|| store.run("GET key:0"))).collect();
            until(|| store.tier().coalesced == 7);
            store.disk.hold_reads(false);
            joined(readers)
        });
        for reply in replies {
            match fails {
                false => assert_eq!(reply, bytes(&"0-".repeat(50))),
                true => assert_eq!(error_kind(&reply), ErrorKind::Unavailable),
            }
        }
        assert_eq!(store.disk.reads().count - before, 1);
        assert_eq!(store.tier().read_errors, if fails { 8 } else { 0 });
        assert_eq!(store.run("GET key:0"), bytes(&"0-".repeat(50)));
    }
}

#[test]
fn the_keys_of_one_command_are_read_side_by_side() {
    // Too large to be read as one.
    let store = cold(10, 200_000);
    store.disk.hold_reads(true);
    let reply = scope(|scope| {
        let reader = scope.spawn(|| store.run(&format!("MGET{}", names(10))));
        until(|| store.disk.reads().waiting == 10);
        store.disk.hold_reads(false);
        reader.join().unwrap()
    });
    let Reply::Container(_, found) = reply else { panic!("{reply:?}") };
    for (n, found) in found.into_iter().enumerate() {
        assert_eq!(found, bytes(format!("{n}-").repeat(200_000).split_at(200_000).0));
    }
}

#[test]
fn neighbours_are_read_as_one() {
    let store = cold(100, 50);
    let before = store.disk.reads();
    let Reply::Container(_, found) = store.run(&format!("MGET{}", names(100))) else { panic!() };
    assert!(
        found.iter().enumerate().all(|(n, one)| *one == bytes(format!("{n}-").repeat(50).split_at(50).0))
    );
    assert_eq!((store.disk.reads().count - before.count, store.tier().fetched), (1, 100));
    // Where they can't be read as one, each is tried.
    store.engine.demote_all();
    store.disk.set_fault(Some(Fault { at: store.disk.operations(), error: DiskError::Other, sticky: false }));
    let Reply::Container(_, found) = store.run("MGET key:1 key:2 key:3") else { panic!() };
    assert_eq!((found.len(), store.tier().read_errors), (3, 0));
}

#[test]
fn names_are_read_without_values() {
    let store = cold(40, 100_000);
    let long = format!("long:{}", "k".repeat(250));
    store.run(&format!("SET {long} {}", "x".repeat(100_000)));
    store.engine.demote_all();
    let expected: HashSet<String> = (0..40).map(|n| format!("key:{n}")).chain([long.clone()]).collect();
    let before = store.disk.reads();
    assert_eq!(texts(store.run("KEYS *")), expected);
    let (mut scanned, mut cursor) = (HashSet::new(), "0".to_owned());
    loop {
        let Reply::Container(_, mut parts) = store.run(&format!("SCAN {cursor} COUNT 7")) else { panic!() };
        scanned.extend(texts(parts.pop().unwrap()));
        let Some(Reply::Value(Value::Text(next))) = parts.pop() else { panic!() };
        cursor = next.to_string();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(scanned, expected);
    for _ in 0..10 {
        let Reply::Value(Value::Text(key)) = store.run("RANDOMKEY") else { panic!() };
        assert!(expected.contains(&*key));
    }
    assert_eq!(store.run("KV.CLEAR long"), Reply::Integer(1));
    let tier = store.tier();
    let read = store.disk.reads();
    assert_eq!(tier.fetched, 0);
    // Each name with one small read, the long one with a second.
    assert!(read.bytes - before.bytes <= tier.named * 224 + 4 * 400, "{read:?} {tier:?}");
    assert!(read.count - before.count <= tier.named + 4, "{read:?} {tier:?}");
}

#[test]
fn what_is_in_memory_does_not_wait_for_reads_that_hang() {
    let store = cold(64, 1000);
    (0..64).for_each(|n| drop(store.run(&format!("SET hot:{n} {n}"))));
    store.disk.hold_reads(true);
    scope(|scope| {
        let readers = (0..64).map(|n| {
            let store = &store;
            scope.spawn(move || store.run(&format!("GET key:{n}")))
        });
        let readers: Vec<_> = readers.collect();
        until(|| store.disk.reads().waiting == 64);
        // Every shard has a reader that hangs. All of this ends, or the test does not.
        for n in 0..64 {
            assert_eq!(store.run(&format!("GET hot:{n}")), bytes(&n.to_string()));
            assert_eq!(store.run(&format!("INCR hot:{n}")), Reply::Integer(n + 1));
        }
        assert_eq!(store.run(&format!("MGET{}", " hot:1".repeat(3))), store.run("MGET hot:1 hot:1 hot:1"));
        assert_eq!(store.run("SET key:5 new"), Reply::Ok);
        store.disk.hold_reads(false);
        let replies = joined(readers);
        // The write came first, or while the read hung: the reader sees the one or the other.
        assert!(replies.iter().enumerate().all(|(n, reply)| n == 5 || !matches!(reply, Reply::Error(_))));
    });
    assert_eq!(store.run("GET key:5"), bytes("new"));
}

#[test]
fn a_caller_that_never_waits_is_told_and_nothing_is_done() {
    let store = cold(20, 1000);
    store.run("SET hot 1");
    let caller = Caller { waits: Waits::Never, ..store.caller.clone() };
    let before = store.disk.reads().count;
    let progress = |line: &str| {
        let mut out = ReplyBuf::new();
        let progress = with_call(line, |call| store.engine.execute(&caller, 0, call, &mut out));
        assert!(progress == Progress::Done || out.as_bytes().is_empty(), "{line}");
        progress
    };
    for line in
        ["GET key:1", "INCR key:1", "MGET hot key:1", "SCAN 0", "SCAN 0 VALUES", "KEYS *", "RENAME key:1 a"]
    {
        assert_eq!(progress(line), Progress::Blocked, "{line}");
        assert!(!caller.needs.take_room(), "{line}");
    }
    for line in ["FLUSHALL", "KV.CLEAR key", "RANDOMKEY"] {
        assert_eq!(progress(line), Progress::Blocked, "{line}");
    }
    for line in ["GET hot", "TTL key:1", "EXISTS key:1", "DEL key:2", "SET key:3 x", "DBSIZE", "GET missing"]
    {
        assert_eq!(progress(line), Progress::Done, "{line}");
    }
    assert_eq!(store.disk.reads().count, before);
    let (mut out, mut answers) = (ReplyBuf::new(), Vec::new());
    with_call("SET hot 2", |first| {
        with_call("INCR key:4", |second| {
            let progress =
                store.engine.execute_atomic(&caller, &[*first, *second], OnError::Abort, &[], &mut out);
            assert_eq!(progress, Progress::Blocked);
            assert_eq!(store.run("GET hot"), bytes("1"));
            store.engine.execute_batch(&caller, 0, &[*first, *second, *first], &mut out, &mut answers);
        });
    });
    assert_eq!((answers.len(), store.run("GET hot")), (1, bytes("2")));
    assert_eq!(store.run("DBSIZE"), Reply::Integer(20));
}

#[test]
fn a_write_that_needs_room_does_not_wait_either() {
    let store = Store::new("cache", 1 << 20, 1 << 30);
    let caller = Caller { waits: Waits::Never, ..store.caller.clone() };
    let mut n = 0;
    loop {
        let line = format!("SET key:{n} {}", value(n));
        let mut out = ReplyBuf::new();
        match with_call(&line, |call| store.engine.execute(&caller, 0, call, &mut out)) {
            Progress::Done => n += 1,
            Progress::Blocked => break,
            Progress::Pending => panic!("a SET that is pending"),
        }
    }
    assert_eq!((store.tier().demoted, store.run("EXISTS last")), (0, Reply::Integer(0)));
    assert!(caller.needs.take_room() && !caller.needs.take_room());
    // Who waits for the disk, but not for room, is told the same.
    let reader = Caller { waits: Waits::Disk, ..caller.clone() };
    let mut out = ReplyBuf::new();
    let progress = with_call("SET last 1", |call| store.engine.execute(&reader, 0, call, &mut out));
    assert!(progress == Progress::Blocked && out.as_bytes().is_empty() && reader.needs.take_room());
    let (sender, done) = std::sync::mpsc::channel();
    let (engine, alone) = (Arc::clone(&store.engine), Caller { waits: Waits::Alone, ..caller });
    let job = Box::new(move || sender.send(run(&engine, &alone, "SET last 1")).unwrap());
    assert!(store.engine.aside(job).is_ok());
    assert_eq!(done.recv().unwrap(), Reply::Ok);
    assert!(store.tier().demoted > 0);
}

/// Of a budget of 1 MiB, what the shards hold, and what counts beside them: together more than it.
const HOT_BYTES: u64 = 850_000;
const BESIDE: usize = 3 << 17;

/// A store whose memory is too full for anything to come in, with these keys on disk.
fn crowded(namespace: &str, lines: &[&str]) -> Store {
    let store = Store::new(namespace, 1 << 20, 1 << 30);
    lines.iter().for_each(|line| drop(store.run(line)));
    store.engine.demote_all();
    assert!(store.is_cold(lines.len()));
    let mut n = 0;
    while store.engine.stats().used_memory < HOT_BYTES {
        assert_eq!(store.run(&format!("SET hot:{n} {}", "h".repeat(1000))), Reply::Ok);
        n += 1;
    }
    store.engine.count_beside(0, BESIDE);
    let stats = store.engine.stats();
    assert!(stats.used_memory > stats.memory_target && store.is_cold(lines.len()), "{stats:?}");
    store
}

#[test]
fn what_only_reads_several_keys_needs_no_room() {
    for namespace in ["cache", "tasks"] {
        let lines = ["SET a 1", "SET b 2", "SET c 3", "SET d 4", "SADD one a b", "SADD two b c"];
        let store = crowded(namespace, &lines);
        let hot = bytes(&"h".repeat(1000));
        let reader = Caller { waits: Waits::Disk, ..store.caller.clone() };
        let before = store.tier();
        // However often: what is read stays where it is.
        for _ in 0..3 {
            let Reply::Container(_, found) = run(&store.engine, &reader, "MGET a hot:0 missing b a") else {
                panic!()
            };
            assert_eq!(found, [bytes("1"), hot.clone(), Reply::Missing, bytes("2"), bytes("1")]);
            let Reply::Container(_, found) = run(&store.engine, &reader, "SINTER one two") else { panic!() };
            assert_eq!(found, [bytes("b")]);
        }
        let key = Key::new(b"c").unwrap();
        let version = match store.run("KV.GETV c") {
            Reply::Container(_, parts) => parts[1].clone(),
            other => panic!("{other:?}"),
        };
        let Reply::Integer(version) = version else { panic!("{version:?}") };
        let read = |version: u64| {
            with_call("GET c", |first| {
                with_call("MGET d hot:1", |second| {
                    let (calls, mut out) = ([*first, *second], ReplyBuf::new());
                    let watched = [(key, version)];
                    let progress =
                        store.engine.execute_atomic(&reader, &calls, OnError::Abort, &watched, &mut out);
                    assert_eq!(progress, Progress::Done);
                    ReplyReader::new(out.as_bytes()).reply().unwrap()
                })
            })
        };
        let Reply::Container(_, found) = read(u64::try_from(version).unwrap()) else { panic!() };
        assert_eq!(found[0], bytes("3"));
        assert_eq!(error_kind(&read(1)), ErrorKind::Aborted);
        let after = store.tier();
        assert_eq!((after.promoted, after.demoted), (before.promoted, before.demoted), "{namespace}");
        assert!(after.copied >= before.copied + 15, "{after:?}");
        // A step that writes does.
        let mut out = ReplyBuf::new();
        let progress = with_call("APPEND a x", |call| store.engine.execute(&reader, 0, call, &mut out));
        assert!(progress == Progress::Blocked && reader.needs.take_room());
    }
}

#[test]
fn what_changes_while_several_keys_are_read_is_read_again() {
    let store = crowded("cache", &["SET a 1", "SET b 2", "SET c 3", "SET short 4 PX 1000"]);
    store.disk.hold_reads(true);
    let reader = Caller { waits: Waits::Disk, ..store.caller.clone() };
    let read_meanwhile = |line: &str, change: &dyn Fn()| {
        scope(|scope| {
            let reading = scope.spawn(|| run(&store.engine, &reader, line));
            until(|| store.disk.reads().waiting > 0);
            change();
            store.disk.hold_reads(false);
            match reading.join().unwrap() {
                Reply::Container(_, found) => found,
                other => panic!("{other:?}"),
            }
        })
    };
    let found = read_meanwhile("MGET a short b", &|| {
        store.clock.advance(2000);
        assert_eq!(store.run("DEL b"), Reply::Integer(1));
    });
    assert_eq!(found, [bytes("1"), Reply::Missing, Reply::Missing]);
    store.disk.hold_reads(true);
    // One that is elsewhere on disk.
    let found = read_meanwhile("MGET a c", &|| {
        store.engine.count_beside(BESIDE, 0);
        assert_eq!(store.run("SET c new"), Reply::Ok);
        store.engine.demote_all();
    });
    assert_eq!(found, [bytes("1"), bytes("new")]);
}

#[test]
fn large_values_come_back_whole_whoever_shares_them() {
    let store = Store::roomy("cache");
    let text = |n: usize| format!("{n:07}").repeat(n);
    let sizes = [500, 1000, 60_000, 700_000];
    for n in sizes {
        store.run(&format!("SET key:{n} {}", text(n)));
        store.run(&format!("EXPIRE key:{n} 100"));
    }
    store.engine.demote_all();
    store.disk.hold_reads(true);
    let replies = scope(|scope| {
        let store = &store;
        let read = |n: usize| [0, 1].map(|_| scope.spawn(move || (n, store.run(&format!("GET key:{n}")))));
        let readers = sizes.into_iter().flat_map(read).collect();
        until(|| store.tier().coalesced >= 3);
        store.disk.hold_reads(false);
        joined(readers)
    });
    replies.into_iter().for_each(|(n, reply)| assert_eq!(reply, bytes(&text(n))));
    for n in sizes {
        for line in ["GET", "GET", "APPEND", "TTL"] {
            let reply = match line {
                "APPEND" => store.run(&format!("APPEND key:{n} !")),
                _ => store.run(&format!("{line} key:{n}")),
            };
            match line {
                "GET" => assert_eq!(reply, bytes(&text(n))),
                "TTL" => assert_eq!(reply, Reply::Integer(100)),
                _ => assert_eq!(reply, Reply::Integer(7 * n as i64 + 1)),
            }
        }
    }
}

/// Moving a cold entry to another name, or changing when it ends, reads it once and leaves version and value right.
#[test]
fn renaming_and_dating_cold_keys() {
    let store = cold(6, 300);
    store.run("SET other x");
    assert_eq!(store.reads("RENAME key:0 new"), 1);
    assert_eq!(
        (store.run("EXISTS key:0"), store.run("GET new")),
        (Reply::Integer(0), bytes(&"0-".repeat(150)))
    );
    assert_eq!(store.reads("EXPIRE key:1 100"), 1);
    assert_eq!((store.run("TTL key:1"), store.reads("GET key:1")), (Reply::Integer(100), 0));
    store.engine.demote_all();
    assert_eq!(store.reads("PERSIST key:1"), 1);
    assert_eq!(
        (store.run("TTL key:1"), store.run("GET key:1")),
        (Reply::Integer(-1), bytes(&"1-".repeat(150)))
    );
    assert_eq!(store.run("RENAMENX key:2 key:3"), Reply::Integer(0));
    assert_eq!(store.run("EXPIRE key:4 -1"), Reply::Integer(1));
    assert_eq!(store.run("RENAME key:5 other"), Reply::Ok);
    assert_eq!(store.run("GET other"), bytes(&"5-".repeat(150)));
    assert_eq!(store.run("DBSIZE"), Reply::Integer(5));
}

/// The index can't say a deadline so late, only the record can.
#[test]
fn keys_that_expire_in_centuries_leave_memory_too() {
    let ends = 7_258_118_400_000_u64;
    for namespace in ["cache", "tasks", "default"] {
        let store = Store::new(namespace, 1 << 20, 1 << 30);
        for n in 0..3000 {
            assert_eq!(store.run(&format!("SET key:{n} {} PXAT {ends}", value(n))), Reply::Ok, "{n}");
        }
        let stats = store.engine.stats();
        assert!(stats.used_memory <= stats.max_memory && store.tier().demoted > 1000, "{stats:?}");
        for n in 0..3000 {
            if n % 3 > 0 {
                let before = if n % 3 == 1 { Reply::Integer(ends as i64) } else { bytes(&value(n)) };
                let line = if n % 3 == 1 { "PEXPIRETIME" } else { "GET" };
                assert_eq!(store.run(&format!("{line} key:{n}")), before, "{line} {n} of {namespace}");
            }
            assert_eq!(store.run(&format!("PEXPIRETIME key:{n}")), Reply::Integer(ends as i64));
            assert_eq!(store.run(&format!("GET key:{n}")), bytes(&value(n)));
        }
        store.clock.advance(ends);
        store.engine.tick();
        assert_eq!((store.run("GET key:1"), store.run("EXISTS key:2")), (Reply::Missing, Reply::Integer(0)));
    }
}

/// Whoever watches would be told its name, and that can't be read any more: it goes all the same.
#[test]
fn a_damaged_key_expires_and_nobody_is_told() {
    let store = Store::roomy("cache");
    let letters = Arc::new(Letters::default());
    let watcher = Caller { completions: Some(Arc::clone(&letters) as _), ..store.caller.clone() };
    run(&store.engine, &watcher, "KV.WATCH PREFIX k");
    store.run("SET key:lost x PX 500");
    store.run("SET key:kept x PX 500");
    store.engine.demote_all();
    events(&letters);
    let name = store.disk.list().unwrap().into_iter().find(|name| name.starts_with("cold-cache-0")).unwrap();
    let file = store.disk.open(&name).unwrap();
    let mut all = vec![0; file.size().unwrap() as usize];
    file.read_at(&mut all, 0).unwrap();
    let at = all.windows(8).rposition(|bytes| bytes == b"key:lost").unwrap() as u64;
    file.write_at(b"K", at).unwrap();
    store.clock.advance(1000);
    store.engine.tick();
    assert_eq!((store.run("DBSIZE"), events(&letters)), (Reply::Integer(0), vec!["expire".to_owned()]));
    assert_eq!(store.tier().damaged, 1);
}

#[test]
fn what_several_sets_have_takes_no_more_memory_than_it_has_bytes() {
    let store = Store::roomy("cache");
    for set in 0..9 {
        for from in (0..5000).step_by(1000) {
            let members: String =
                (from..from + 1000).map(|n| format!(" {set}-{n}-{}", "m".repeat(40))).collect();
            store.run(&format!("SADD set:{set}{members}"));
        }
    }
    for (line, sets, options) in [
        ("SUNION", 3, ""),
        ("SUNION", 9, ""),
        ("SDIFF", 2, ""),
        ("SINTER", 1, ""),
        ("ZUNION 3", 3, ""),
        ("ZUNION 9", 9, " WITHSCORES"),
        ("ZDIFF 2", 2, " WITHSCORES"),
    ] {
        store.engine.demote_all();
        let keys: String = (0..sets).map(|set| format!(" set:{set}")).collect();
        let line = format!("{line}{keys}{options}");
        let mut out = ReplyBuf::new();
        let progress = with_call(&line, |call| store.engine.execute(&store.caller, 0, call, &mut out));
        let (bytes, room) = (out.as_bytes().len(), out.bytes_mut().capacity());
        assert!(
            progress == Progress::Done && bytes > 200_000 && room < bytes + 1000,
            "{line}: {bytes} in {room}"
        );
    }
}

/// Whoever may hold so many bytes only is told how many it takes, and nothing is done.
#[test]
fn what_is_put_together_of_several_keys_is_reckoned_before() {
    let store = Store::roomy("cache");
    let members: String = (0..500).map(|n| format!(" {n} {n}-{}", "m".repeat(40))).collect();
    store.run(&format!("ZADD one{members}"));
    store.run("ZUNIONSTORE two 1 one");
    store.run(&format!("SADD set{members}"));
    let caller = Caller { most_bytes: 20_000, ..store.caller.clone() };
    for line in [
        "ZUNION 2 one two",
        "ZUNIONSTORE to 2 one two",
        "ZINTERSTORE to 2 one two",
        "ZDIFFSTORE to 2 set one",
        "ZRANGESTORE to one 0 -1",
        "SUNIONSTORE to set",
    ] {
        let mut out = ReplyBuf::new();
        let progress = with_call(line, |call| store.engine.execute(&caller, 0, call, &mut out));
        assert!(progress == Progress::Blocked && out.is_empty(), "{line}: {progress:?}");
        let needs = caller.needs.take();
        assert!((20_001..150_000).contains(&needs), "{line}: {needs}");
        assert_eq!(store.run("EXISTS to"), Reply::Integer(0), "{line}");
    }
    assert_eq!(store.run("ZINTERCARD 2 one two"), Reply::Integer(500));
}

#[test]
fn the_commands_of_a_pipeline_are_read_side_by_side() {
    // Too large to be read as one.
    let store = cold(10, 200_000);
    let before = store.disk.reads().count;
    store.disk.hold_reads(true);
    let lines: Vec<String> = (0..10).map(|n| format!("GET key:{n}")).collect();
    let args: Vec<Vec<Arg<'_>>> =
        lines.iter().map(|line| vec![Arg::Untyped(line.split_at(4).1.as_bytes())]).collect();
    let get = table::by_name(b"GET").unwrap();
    let calls: Vec<Call<'_>> = args.iter().map(|args| get.call(args).unwrap()).collect();
    let (mut out, mut answers) = (ReplyBuf::new(), Vec::new());
    scope(|scope| {
        let reader =
            scope.spawn(|| store.engine.execute_batch(&store.caller, 0, &calls, &mut out, &mut answers));
        until(|| store.disk.reads().waiting == 10);
        store.disk.hold_reads(false);
        reader.join().unwrap();
    });
    assert_eq!((answers.len(), store.disk.reads().count - before), (10, 10));
    let mut reader = ReplyReader::new(out.as_bytes());
    for n in 0..10 {
        assert_eq!(reader.reply().unwrap(), bytes(format!("{n}-").repeat(200_000).split_at(200_000).0));
    }
    // What was read ahead is not kept for later.
    assert_eq!(store.run("GET key:0"), bytes("0-".repeat(200_000).split_at(200_000).0));
    assert_eq!(store.disk.reads().count - before, 11);
}

/// In a transaction as alone: what only replaces, deletes or counts keys reads none of their values.
#[test]
fn a_transaction_reads_what_it_needs() {
    for namespace in ["cache", "tasks"] {
        let store = Store::new(namespace, u64::MAX, 1 << 30);
        (0..8).for_each(|n| drop(store.run(&format!("SET key:{n} {n} PX {}", 1000 * (n + 1)))));
        let cold = |keys: usize| {
            store.engine.demote_all();
            assert!(store.is_cold(keys));
        };
        let run = |lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            let before = store.tier().fetched;
            let Reply::Container(_, replies) = run_atomic(&store, &lines, OnError::Continue) else {
                panic!()
            };
            (replies, store.tier().fetched - before)
        };
        cold(8);
        store.clock.advance(1000);
        let lines =
            ["SET key:1 new", "DEL key:2 key:3 key:0", "MSET key:4 a key:9 b", "EXISTS key:5 key:2 key:1"];
        let (replies, reads) = run(&lines);
        assert_eq!(replies, [Reply::Ok, Reply::Integer(2), Reply::Ok, Reply::Integer(2)]);
        assert_eq!(reads, 0, "{namespace}");
        let (replies, reads) =
            run(&["TYPE key:6", "DEL key:5", "APPEND key:7 x", "EXISTS key:7", "SET key:8 c"]);
        let status = Reply::Status("string".into());
        assert_eq!(replies, [status, Reply::Integer(1), Reply::Integer(2), Reply::Integer(1), Reply::Ok]);
        assert_eq!(reads, 1, "{namespace}");
        cold(6);
        let (replies, reads) = run(&["EXISTS key:1 key:2", "TYPE key:4"]);
        assert_eq!(replies, [Reply::Integer(1), Reply::Status("string".into())]);
        assert_eq!(reads, 0, "{namespace}");
        let found = store.run("MGET key:0 key:1 key:2 key:3 key:4 key:5 key:6 key:7 key:8 key:9");
        let Reply::Container(_, found) = found else { panic!("{found:?}") };
        let missing = || Reply::Missing;
        let expected = [
            missing(),
            bytes("new"),
            missing(),
            missing(),
            bytes("a"),
            missing(),
            bytes("6"),
            bytes("7x"),
            bytes("c"),
        ];
        assert_eq!(found[..9], expected, "{namespace}");
        assert_eq!((&found[9], store.run("DBSIZE")), (&bytes("b"), Reply::Integer(6)));
    }
}
