//! Directories that earlier versions wrote, kept for ever under `tests/formats/`: each opens, and has what was recorded of it.
//! What a later version wrote is refused, with what to do.
//!
//! `FORMATS_WRITE=NAME cargo test -p data-bridge-kv --test formats opens` writes the directories of this version under a
//! new name.

#[path = "formats/maker.rs"]
mod maker;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_bridge_kv::disk::{Disk, RealDisk};
use data_bridge_kv::engine::describe_record;
use data_bridge_kv::record::{self, Position};
use data_bridge_kv::snapshot::Snapshot;
use data_bridge_kv::{Caller, DataDirectory, Engine, ManualClock, Settings, cold, wal};
use data_bridge_kv_model::command::table::opcode;
use data_bridge_kv_model::{ErrorKind, Kind, Reply, ReplyBuf, ReplyReader, Value};
use data_bridge_kv_testkit::disk::FaultyDisk;
use data_bridge_kv_testkit::reference::canonical;
use data_bridge_kv_testkit::workload::{Request, Word};

/// When the directories were written, and when they are opened, unix ms.
const WRITTEN_MS: u64 = 1_790_000_000_000;
const OPENED_MS: u64 = WRITTEN_MS + 60_000;
/// A log's segments are as long as this, the rest of them zeros, which are not kept here.
const SEGMENT_BYTES: usize = 1 << 20;
/// What is kept of each version: a store that was closed, one that was killed, a snapshot.
const STATES: [&str; 3] = ["closed", "killed", "snapshot"];

/// The bytes of a directory's files.
type Files = BTreeMap<String, Vec<u8>>;

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats")
}

fn read(disk: &dyn Disk, name: &str) -> Vec<u8> {
    let file = disk.open(name).unwrap();
    let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn image(disk: &dyn Disk) -> Files {
    disk.list().unwrap().into_iter().map(|name| (name.clone(), read(disk, &name))).collect()
}

fn write(disk: &dyn Disk, files: &Files) {
    for (name, bytes) in files {
        let file = disk.create(name).unwrap();
        file.write_at(bytes, 0).unwrap();
        file.sync_data().unwrap();
    }
    disk.sync_names().unwrap();
}

/// A kept directory, with the zeros behind its log.
fn kept(version: &str, state: &str) -> Files {
    let mut files = image(&RealDisk::open(&home().join(version).join(state)).unwrap());
    if state == "killed" {
        let logs = files.iter_mut().filter(|(name, _)| wal::is_segment(name));
        logs.for_each(|(_, bytes)| bytes.resize(bytes.len().max(1).next_multiple_of(SEGMENT_BYTES), 0));
    }
    files
}

fn disk_of(files: &Files) -> FaultyDisk {
    let disk = FaultyDisk::new();
    write(&disk, files);
    disk
}

fn open(disk: &FaultyDisk, now_ms: u64) -> Result<Engine, data_bridge_kv_model::Error> {
    let mut settings = Settings {
        data: Some(DataDirectory::on(Arc::new(disk.clone()), 1 << 26).unwrap()),
        clock: Arc::new(ManualClock::new(now_ms)),
        seed: Some(1),
        shards: Some(2),
        background: false,
        ..Settings::default()
    };
    settings.namespaces[1].history = 2;
    Engine::open(settings)
}

fn run(engine: &Engine, opcode: u16, words: Vec<Word>) -> Reply {
    let caller = Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
    let request = Request { opcode, words };
    let args = request.args();
    let mut out = ReplyBuf::new();
    let _ = engine.execute(&caller, 0, &request.call(&args).unwrap(), &mut out);
    ReplyReader::new(out.as_bytes()).reply().unwrap()
}

fn word(text: &str) -> Word {
    Word::Untyped(text.as_bytes().to_vec())
}

/// A line for each key: its name, version, deadline and kind, and the bytes of its value, members of sets in order.
fn contents(engine: &Engine) -> String {
    let Reply::Container(_, keys) = run(engine, opcode::KEYS, vec![word("*")]) else { panic!("no keys") };
    let line = |key: &Reply| {
        let Reply::Value(Value::Text(key)) = key else { panic!("{key:?} is a key") };
        let Reply::Container(_, found) = run(engine, opcode::KV_GETV, vec![word(key)]) else {
            panic!("{key}")
        };
        let [Reply::Value(value), Reply::Integer(version)] = &found[..] else { panic!("{found:?}") };
        let Reply::Integer(deadline) = run(engine, opcode::PEXPIRETIME, vec![word(key)]) else { panic!() };
        let hex: String = canonical(value).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{key:?} version {version} until {deadline} {} {hex}\n", value.kind().name())
    };
    let mut lines: Vec<String> = keys.iter().map(line).collect();
    lines.sort();
    lines.concat()
}

fn recorded(version: &str, state: &str) -> String {
    let disk = RealDisk::open(&home().join(version)).unwrap();
    String::from_utf8(read(&disk, &format!("{state}.txt"))).unwrap()
}

fn versions() -> Vec<String> {
    #[expect(clippy::disallowed_methods, reason = "a disk lists files, here the folders are wanted")]
    let entries = std::fs::read_dir(home()).unwrap().map(Result::unwrap);
    let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    folders.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// The directories of this version are written if the environment asks for it.
#[test]
fn every_version_opens_with_what_it_had() {
    if let Some(name) = std::env::var_os("FORMATS_WRITE") {
        maker::make(&home().join(name));
    }
    let mut opened = 0;
    for version in versions() {
        for state in STATES {
            let mut disk = disk_of(&kept(&version, state));
            if state == "snapshot" {
                let copy = std::mem::take(&mut disk);
                Snapshot::restore(&copy, &disk, 0, &mut |_, _| {}).unwrap();
            }
            let engine = open(&disk, OPENED_MS).unwrap_or_else(|error| panic!("{version}/{state}: {error}"));
            assert_eq!(contents(&engine), recorded(&version, state), "{version}/{state}");
            // It goes on from there, and is a directory of this version from now on.
            assert_eq!(
                run(&engine, opcode::KV_SET, vec![word("later"), Word::value(&Value::Int(1))]),
                Reply::Ok
            );
            let later = contents(&engine);
            let version_of = |line: &str| line.split(' ').nth(2).unwrap().parse::<u64>().unwrap();
            let new = later.lines().find(|line| line.starts_with("\"later\"")).map(version_of);
            assert!(new > recorded(&version, state).lines().map(version_of).max(), "{version}/{state}");
            drop(engine);
            let engine = open(&disk, OPENED_MS).unwrap();
            assert_eq!(contents(&engine), later, "{version}/{state}");
            opened += 1;
        }
    }
    println!("{opened} directories opened, of versions {:?}", versions());
    assert!(opened >= 3);
}

/// The words by which [`describe_record`] tells the effects apart.
const EFFECTS: [&str; 15] = [
    "put ",
    " until ",
    "delete ",
    "persist ",
    "expire ",
    "insert ",
    "list \"list\" set ",
    "remove 0",
    " keep ",
    "set \"set\" add ",
    "set \"set\" remove ",
    "hash \"hash\" set ",
    "hash \"hash\" remove ",
    "zset \"zset\" set ",
    "zset \"zset\" remove ",
];

/// Of each version everything is kept that a format has: every effect, kind of value and kind of record.
#[test]
fn everything_that_a_format_has_is_kept() {
    for version in versions() {
        let disk = disk_of(&kept(&version, "killed"));
        let mut told = String::new();
        wal::dump(&disk, |line| {
            if let wal::Line::Record { record, .. } = line {
                told.push_str(&describe_record(&record).unwrap());
                told.push('\n');
            }
        })
        .unwrap();
        let lacks: Vec<&str> = EFFECTS.into_iter().filter(|effect| !told.contains(effect)).collect();
        assert!(lacks.is_empty(), "{version}: the log has no {lacks:?}");
        for state in STATES {
            let recorded = recorded(&version, state);
            let kinds: BTreeSet<&str> =
                recorded.lines().map(|line| line.split(' ').nth(5).unwrap()).collect();
            let all: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            assert_eq!(kinds, all, "{version}/{state}");
            let files = kept(&version, state);
            let has = |start: &str| files.keys().any(|name| name.starts_with(start));
            assert!(["manifest", "log-0", "log-watermark", "log-start", "cold-task-0"].into_iter().all(has));
            let (mut entries, mut tombstones) = (0, 0);
            cold::verify(&disk_of(&files), |found| {
                (entries, tombstones) = (entries + found.entries, tombstones + found.tombstones);
            })
            .unwrap();
            assert!(entries > 0 && tombstones > 0, "{version}/{state}: {entries} and {tombstones}");
        }
        assert!(kept(&version, "closed").contains_key("cold-task-index"));
        let closed = open(&disk_of(&kept(&version, "closed")), OPENED_MS).unwrap();
        assert_eq!(closed.stats().log.unwrap().replayed, 0, "{version}: the index says it all");
        let snapshot = Snapshot::verify(&disk_of(&kept(&version, "snapshot")), &mut |_, _| {}).unwrap();
        assert!(snapshot.lsn > 0);
    }
}

/// The first record of this file as a version would write it whose format is the next.
fn raise_format(name: &str, bytes: &mut [u8]) {
    let number = name.rsplit('-').next().and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let at = Position { segment: number.unwrap_or(0), offset: 0 };
    let total = record::read(bytes, at).expect("the first record").total_bytes();
    bytes[record::HEAD_BYTES + 8] += 1;
    record::seal(&mut bytes[..total], at);
}

#[test]
fn a_newer_format_is_refused_with_what_to_do() {
    let mut refused = Vec::new();
    for version in versions() {
        let files = kept(&version, "closed");
        for name in files.keys().filter(|name| !wal::is_mark(name)) {
            let mut newer = files.clone();
            raise_format(name, newer.get_mut(name).unwrap());
            let disk = disk_of(&newer);
            let error = open(&disk, OPENED_MS).err().unwrap_or_else(|| panic!("{name} was accepted"));
            assert!([ErrorKind::Unavailable, ErrorKind::Corruption].contains(&error.kind()), "{error}");
            let text = error.to_string();
            assert!(text.contains(name) && text.contains("use the version that wrote it"), "{text}");
            assert_eq!(read(&disk, name), newer[name], "{name} was changed");
            refused.push(name.clone());
        }
        let mut copy = kept(&version, "snapshot");
        raise_format("snapshot", copy.get_mut("snapshot").unwrap());
        let error = Snapshot::restore(&disk_of(&copy), &FaultyDisk::new(), 0, &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("use the version that wrote it"), "{error}");
    }
    let of = |start: &str| refused.iter().any(|name| name.starts_with(start));
    assert!(of("manifest") && of("log-0") && of("cold-task-0") && of("cold-task-index"), "{refused:?}");
}
