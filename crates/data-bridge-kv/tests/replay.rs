//! Opening a store with a long log: several threads carry it out, and leave what one leaves. Where they refuse a record, opening is
//! refused, and the log is as it was.

use std::sync::Arc;

use data_bridge_kv::disk::Disk;
use data_bridge_kv::hash::stable::StableHasher;
use data_bridge_kv::wal::{NewRecord, Wal, WalPolicy};
use data_bridge_kv::{Caller, DataDirectory, Durability, Engine, ManualClock, Settings};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::{Arg, Error, ErrorKind, Reply, ReplyBuf, ReplyReader};
use data_bridge_kv_testkit::disk::FaultyDisk;
use data_bridge_kv_testkit::random::{Random, setting};

const START_MS: u64 = 1_800_000_000_000;
const SEED: u64 = 1;
const KEYS: usize = 40;
/// More than what one thread carries out.
const LONG_BYTES: u64 = 6 << 20;
const KINDS: [&str; 6] = ["s", "n", "l", "h", "t", "z"];

fn open(disk: &FaultyDisk, background: bool) -> Result<(Engine, Caller), Error> {
    let mut settings = Settings {
        clock: Arc::new(ManualClock::new(START_MS)),
        seed: Some(SEED),
        shards: Some(8),
        background,
        log_bytes: 1 << 30,
        data: Some(DataDirectory::on(Arc::new(disk.clone()), 1 << 30).expect("nobody else has it")),
        ..Settings::default()
    };
    settings.namespaces[1].durability = Some(Durability::EverySecond);
    settings.namespaces[1].allow_flush = true;
    let engine = Engine::open(settings)?;
    let caller = Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
    Ok((engine, caller))
}

fn run(engine: &Engine, caller: &Caller, line: &str) -> Reply {
    let words: Vec<&str> = line.split(' ').collect();
    let args: Vec<Arg<'_>> = words[1..].iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
    let call = table::by_name(words[0].as_bytes()).unwrap().call(&args).unwrap();
    let mut out = ReplyBuf::new();
    let _ = engine.execute(caller, 0, &call, &mut out);
    ReplyReader::new(out.as_bytes()).reply().unwrap()
}

/// A change of some key, or of two at once, or of all; now and then of a size that no thread is handed.
fn line(random: &mut Random) -> String {
    if random.one_in(1000) {
        return "FLUSHDB".to_owned();
    }
    let (key, other, number) = (random.below(KEYS), random.below(KEYS), random.below(50));
    let value = format!("{number:02}").repeat(if random.one_in(100) { 40_000 } else { 200 });
    match random.below(14) {
        0..3 => format!("SET s{key} {value}"),
        3 => format!("SET s{key} {value} PX {}", 1000 + number),
        4 => format!("MSET s{key} {value} s{other} {number}"),
        5 => format!("INCRBY n{key} {number}"),
        6 => format!("RPUSH l{key} {value} {number}"),
        7 => format!("LPOP l{key}"),
        8 => format!("HSET h{key} f{} {value}", number % 5),
        9 => format!("HDEL h{key} f{}", number % 5),
        10 => format!("SADD t{key} {number}"),
        11 => format!("ZADD z{key} {number} m{}", number % 7),
        12 => format!("PEXPIRE {}{key} {}", KINDS[number % KINDS.len()], 5000 + number),
        _ => format!("DEL {}{key}", KINDS[number % KINDS.len()]),
    }
}

/// Values with their versions, and deadlines.
fn state(engine: &Engine, caller: &Caller) -> Vec<(String, Reply, Reply)> {
    let keys = KINDS.iter().flat_map(|kind| (0..KEYS).map(move |key| format!("{kind}{key}")));
    let ask = |word: &str, key: &str| run(engine, caller, &format!("{word} {key}"));
    keys.map(|key| (ask("KV.GETV", &key), ask("PEXPIRETIME", &key), key))
        .map(|(value, deadline, key)| (key, value, deadline))
        .collect()
}

/// A disk with a long log behind a checkpoint, as a crash leaves it, and what was stored then.
fn killed(seed: u64) -> (FaultyDisk, Vec<(String, Reply, Reply)>) {
    let disk = FaultyDisk::new();
    let (mut engine, mut caller) = open(&disk, false).unwrap();
    let mut random = Random::new(seed);
    let mut write = |engine: &Engine, caller: &Caller| {
        let line = line(&mut random);
        let reply = run(engine, caller, &line);
        assert!(!matches!(reply, Reply::Error(_)), "{line}: {reply:?}");
    };
    (0..500).for_each(|_| write(&engine, &caller));
    assert!(engine.checkpoint());
    engine.demote_all();
    // By turns there is an index on disk, whose parts nobody has loaded when the log is carried out.
    if seed.is_multiple_of(2) {
        engine.close().unwrap();
        drop(engine);
        (engine, caller) = open(&disk, false).unwrap();
    }
    let bytes = || engine.stats().log.unwrap().bytes;
    let before = bytes();
    while bytes() < before + LONG_BYTES {
        (0..50).for_each(|_| write(&engine, &caller));
        engine.sync().unwrap();
    }
    (disk.crash_image(seed), state(&engine, &caller))
}

#[test]
fn threads_leave_what_one_leaves() {
    let (first, logs) = (setting("KV_SEED", 1), setting("KV_LOGS", 3));
    for seed in first..first + logs {
        let (disk, expected) = killed(seed);
        for background in [false, true] {
            let (engine, caller) = open(&disk.crash_image(seed), background).unwrap();
            let log = engine.stats().log.unwrap();
            assert!(log.replayed > 1000 && log.bytes > LONG_BYTES, "{log:?}");
            for (expected, found) in expected.iter().zip(state(&engine, &caller)) {
                let key = &found.0;
                assert!(found == *expected, "KV_SEED={seed}, background: {background}: {key} differs");
            }
        }
    }
}

#[test]
fn a_record_that_is_refused_leaves_the_log_as_it_is() {
    let disk = killed(1).0;
    let policy = WalPolicy { fingerprint: StableHasher::new(SEED).fingerprint(), ..WalPolicy::default() };
    let clock = Arc::new(ManualClock::new(START_MS));
    let (wal, _) = Wal::open(Arc::new(disk.clone()), clock, policy, &mut |_, _| Ok(())).unwrap();
    let head = NewRecord { namespace: 1, generation: 0, kind: 1 };
    // Deletes of two keys that can't be keys.
    let refused = wal.append(head, b"\x02\x01\xff\0\0\0\0\0\0\0\0", false);
    wal.append(head, b"\x02\x01\xfe\0\0\0\0\0\0\0\0", false);
    wal.close();
    drop(wal);
    let log = |disk: &FaultyDisk| {
        let names = disk.list().unwrap().into_iter().filter(|name| name.starts_with("log"));
        let bytes = |name: &str| {
            let file = disk.open(name).unwrap();
            let mut bytes = vec![0; file.size().unwrap() as usize];
            file.read_at(&mut bytes, 0).unwrap();
            bytes
        };
        names.map(|name| (bytes(&name), name)).collect::<Vec<_>>()
    };
    let before = log(&disk);
    for background in [false, true] {
        let error = open(&disk, background).err().expect("it is refused");
        assert_eq!(error.kind(), ErrorKind::Corruption);
        let told = format!("record {refused} of the log can't be applied");
        assert!(error.to_string().contains(&told), "{error}, not of record {refused}");
        assert!(log(&disk) == before, "background: {background}");
    }
}

/// What memory has no room for goes to disk in whole batches while the log is carried out: each is a sync.
#[test]
fn a_log_of_several_budgets_is_carried_out_in_few_writes() {
    let disk = FaultyDisk::new();
    let (engine, caller) = open(&disk, false).unwrap();
    let value = "v".repeat(3000);
    for key in 0..3000 {
        assert_eq!(run(&engine, &caller, &format!("SET key:{key} {value}")), Reply::Ok);
    }
    engine.sync().unwrap();
    let image = disk.crash_image(1);
    let before = image.operations();
    drop((engine, caller));
    let settings = Settings {
        max_memory: 2 << 20,
        seed: Some(SEED),
        shards: Some(8),
        background: false,
        data: Some(DataDirectory::on(Arc::new(image.clone()), 1 << 30).unwrap()),
        ..Settings::default()
    };
    let engine = Engine::open(settings).unwrap();
    let caller = Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
    let (demoted, operations) = (engine.stats().tier.unwrap().demoted, image.operations() - before);
    println!("{demoted} entries went to disk, {operations} operations");
    assert!(demoted > 1500 && operations < demoted / 2, "{demoted} entries, {operations} operations");
    assert_eq!(run(&engine, &caller, "STRLEN key:1"), Reply::Integer(3000));
}
