//! How many files a store has and holds open: few, however often it was opened, closed and killed.

use std::sync::Arc;

use data_bridge_kv::disk::Disk;
use data_bridge_kv::settings::Durability;
use data_bridge_kv::snapshot::Snapshot;
use data_bridge_kv::wal::{self, Wal};
use data_bridge_kv::{Caller, Chore, DataDirectory, Engine, Settings};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::{Arg, ErrorKind, Reply, ReplyBuf, ReplyReader, Value};
use data_bridge_kv_testkit::disk::FaultyDisk;

/// More lives than files may be open where nobody raised the limit.
const LIVES: usize = 1100;

fn open(disk: &FaultyDisk) -> Engine {
    let mut settings = Settings {
        shards: Some(2),
        seed: Some(1),
        background: false,
        log_bytes: 1 << 20,
        log_segment_bytes: Some(64 << 10),
        data: Some(DataDirectory::on(Arc::new(disk.clone()), 1 << 30).expect("nobody else has it")),
        ..Settings::default()
    };
    settings.namespaces[1].durability = Some(Durability::EverySecond);
    Engine::open(settings).expect("it opens")
}

fn run(engine: &Engine, line: &str) -> Reply {
    let caller = Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
    let words: Vec<&str> = line.split(' ').collect();
    let args: Vec<Arg<'_>> = words[1..].iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
    let call = table::by_name(words[0].as_bytes()).unwrap().call(&args).unwrap();
    let mut out = ReplyBuf::new();
    let _ = engine.execute(&caller, 0, &call, &mut out);
    ReplyReader::new(out.as_bytes()).reply().unwrap()
}

fn text(value: &str) -> Reply {
    Reply::Value(Value::Bytes(value.as_bytes().into()))
}

fn count(disk: &FaultyDisk, is_meant: impl Fn(&str) -> bool) -> usize {
    disk.list().unwrap().iter().filter(|name| is_meant(name)).count()
}

/// Each life leaves a segment of the tier: the checkpoint of its end. Small ones are put together, and every key stays.
#[test]
fn a_store_that_was_opened_often_has_few_segments() {
    let disk = FaultyDisk::new();
    let (mut most, mut deleted) = (0, 0);
    for life in 0..LIVES {
        let engine = open(&disk);
        assert_eq!(run(&engine, &format!("SET key:{life} {life}")), Reply::Ok);
        if life % 3 == 2 {
            deleted += 1;
            assert_eq!(run(&engine, &format!("DEL key:{}", life - 1)), Reply::Integer(1));
        }
        engine.do_chore(Chore::Tier);
        drop(engine);
        most = most.max(count(&disk, |name| name.starts_with("cold-task-0")));
        assert_eq!(disk.open_files(), 0);
    }
    assert!((40..=70).contains(&most), "{most} segments");
    let engine = open(&disk);
    assert_eq!(run(&engine, "DBSIZE"), Reply::Integer((LIVES - deleted) as i64));
    for life in 0..LIVES {
        let expected =
            if life % 3 == 1 && life + 1 < LIVES { Reply::Missing } else { text(&life.to_string()) };
        assert_eq!(run(&engine, &format!("GET key:{life}")), expected, "key:{life}");
    }
    println!("{LIVES} lives, {most} segments at most");
}

/// Each life that is killed leaves a segment of the log: a checkpoint comes before they are many.
#[test]
fn a_store_that_was_killed_often_has_a_log_of_few_files() {
    let mut disk = FaultyDisk::new();
    let mut most = 0;
    for life in 0..200 {
        let engine = open(&disk);
        assert_eq!(run(&engine, &format!("SET key:{life} {life}")), Reply::Ok);
        engine.do_chore(Chore::Log);
        engine.do_chore(Chore::Tier);
        assert_eq!(run(&engine, "KV.SYNC"), Reply::Ok);
        let killed = disk.crash_image(life);
        most = most.max(count(&killed, wal::is_segment));
        disk = killed;
    }
    assert!((60..=90).contains(&most), "{most} segments");
    let engine = open(&disk);
    assert_eq!(run(&engine, "DBSIZE"), Reply::Integer(200));
}

/// A log that was not trimmed, of more files than may be open: it is opened and looked at one file at a time.
#[test]
fn a_log_of_many_segments_is_opened_with_few_files() {
    let mut disk = FaultyDisk::new();
    for life in 0..300 {
        let engine = open(&disk);
        assert_eq!(run(&engine, &format!("SET key:{life} {life}")), Reply::Ok);
        assert_eq!(run(&engine, "KV.SYNC"), Reply::Ok);
        disk = disk.crash_image(life);
    }
    let segments = count(&disk, wal::is_segment);
    assert!(segments >= 300, "{segments}");
    disk.limit_open(Some(12));
    assert_eq!(wal::verify(&disk, |_, _, _| {}).unwrap().last, 300);
    let mut records = 0;
    wal::dump(&disk, |line| records += u64::from(matches!(line, wal::Line::Record { .. }))).unwrap();
    assert_eq!(records, 300);
    assert!(Wal::stored_bytes(&disk).unwrap() > 0);
    let engine = open(&disk);
    assert_eq!(run(&engine, "DBSIZE"), Reply::Integer(300));
    drop(engine);
    assert_eq!(wal::repair(&disk, 300).unwrap().last, 300);
}

/// The tier's files are open once, also while they are copied.
#[test]
fn a_snapshot_needs_few_files_beside_those_of_the_tier() {
    let (disk, copy) = (FaultyDisk::new(), FaultyDisk::new());
    for life in 0..40 {
        assert_eq!(run(&open(&disk), &format!("SET key:{life} {life}")), Reply::Ok);
    }
    let engine = open(&disk);
    let before = disk.open_files();
    assert!(before >= 40, "{before} files");
    disk.limit_open(Some(before + 8));
    engine.snapshot(&copy, &mut |_, _| {}).unwrap();
    assert!(disk.open_files() <= before + 1, "and gives them back");
    let restored = FaultyDisk::new();
    Snapshot::restore(&copy, &restored, 0, &mut |_, _| {}).unwrap();
    assert_eq!(run(&open(&restored), "DBSIZE"), Reply::Integer(40));
}

/// Where no more files may be opened, writes are refused before anything is in doubt, what is there can be read, and writes go
/// on by themselves when files may be opened again.
#[test]
fn a_store_that_may_open_no_more_files_goes_on() {
    let disk = FaultyDisk::new();
    let engine = open(&disk);
    assert_eq!(run(&engine, "SET first 1"), Reply::Ok);
    disk.limit_open(Some(disk.open_files()));
    let value = "v".repeat(50);
    let mut written = 0;
    let refused = loop {
        match run(&engine, &format!("SET key:{written} {value}")) {
            Reply::Ok => written += 1,
            other => break other,
        }
        engine.do_chore(Chore::Log);
        assert!(written < 10_000);
    };
    match refused {
        Reply::Error(error) => {
            assert_eq!(error.kind(), ErrorKind::ReadOnly);
            assert!(error.message().contains("ulimit -n"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(written > 10);
    assert_eq!(run(&engine, "GET key:0"), text(&value));
    assert_eq!(run(&engine, "DEL key:1"), Reply::Integer(1), "what frees space is taken for longer");
    assert!(!engine.checkpoint(), "nor can the tier begin a segment");
    disk.limit_open(None);
    while run(&engine, "SET after 1") != Reply::Ok {
        engine.do_chore(Chore::Log);
    }
    assert!(engine.checkpoint());
    drop(engine);
    let engine = open(&disk);
    assert_eq!(run(&engine, "DBSIZE"), Reply::Integer(written + 1));
}
