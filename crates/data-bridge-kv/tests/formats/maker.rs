//! Writes the directories of this version: one store, closed, opened again, copied and killed.

use std::path::Path;

use data_bridge_kv::disk::{Disk, RealDisk};
use data_bridge_kv::{Engine, wal};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::{Reply, Value};
use data_bridge_kv_testkit::disk::FaultyDisk;
use data_bridge_kv_testkit::workload::Word;

use super::{Files, OPENED_MS, WRITTEN_MS, contents, disk_of, image, kept, open, run, word, write};

/// Values of every kind, as the codec's tests hold them.
const VALUES: &str = include_str!("../../../data-bridge-kv-model/tests/golden/value.hex");

/// What is done before the first closing: what is on disk of it changes in every way afterwards.
const FIRST: &str = "SET cold:stays 1\nSET cold:written 1\nSET cold:deleted 1\nSET cold:until 1 PX 100000000\n\
    SET cold:gone 1 PX 1000\nRPUSH list a b c d\nSADD set a b c\nHSET hash a 1 b 2\nZADD zset 1 a 2 b\nINCRBY number 40\n\
    DEL nothing";
/// What is done once the store was opened again.
const THEN: &str = "SET cold:written 2\nDEL cold:deleted\nSET until 1 PX 100000000\nSET gone 1 PX 1000\nRPUSH list e\n\
    LPUSH list z\nLSET list 1 changed\nLPOP list\nLTRIM list 0 2\nSADD set d\nSREM set a\nHSET hash c 3\nHDEL hash a\n\
    ZADD zset 3 c\nZREM zset a\nINCRBY number 2\nPEXPIRE cold:stays 200000000\nPEXPIRE number 1000000\nPERSIST number\n\
    KV.TRANSITION task status TO PENDING MISSING\nKV.TRANSITION task status TO STARTED FROM 1 PENDING\n\
    KV.TRANSITION task status TO SUCCESS FROM 1 STARTED\nSET deleted 1\nDEL deleted";

fn lines(engine: &Engine, text: &str) {
    for line in text.lines() {
        let mut words = line.split(' ');
        let spec = table::by_name(words.next().unwrap().as_bytes()).unwrap();
        let reply = run(engine, spec.opcode, words.map(word).collect());
        assert!(!matches!(reply, Reply::Error(_)), "{line}: {reply:?}");
    }
}

fn typed(engine: &Engine) {
    let values =
        VALUES.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_once(' ').unwrap());
    for (name, hex) in values {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let encoded: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        let set = vec![word(&format!("value:{name}")), Word::Value(encoded)];
        assert_eq!(run(engine, table::opcode::KV_SET, set), Reply::Ok, "{name}");
    }
    let long = Value::Text("long ".repeat(400).into());
    run(engine, table::opcode::KV_SET, vec![word("value:long"), Word::value(&long)]);
    run(engine, table::opcode::KV_SET, vec![word("key:\u{e9}\u{1F600}"), Word::value(&Value::Int(1))]);
}

/// Keeps a directory, and beside it what a store has that is opened on it: what it had when it was left, `told`, but for what
/// has expired since.
fn keep(to: &Path, state: &str, mut files: Files, told: &str) {
    if state == "killed" {
        for (_, bytes) in files.iter_mut().filter(|(name, _)| wal::is_segment(name)) {
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            bytes.truncate(end);
        }
    }
    write(&RealDisk::open(&to.join(state)).unwrap(), &files);
    let version = to.file_name().unwrap().to_string_lossy();
    let text = contents(&open(&disk_of(&kept(&version, state)), OPENED_MS).unwrap());
    assert!(told.lines().filter(|line| !line.contains("gone")).eq(text.lines()), "{told}is not {text}");
    let record = RealDisk::open(to).unwrap().create(&format!("{state}.txt")).unwrap();
    record.write_at(text.as_bytes(), 0).unwrap();
}

pub fn make(to: &Path) {
    let (disk, copy) = (FaultyDisk::new(), FaultyDisk::new());
    let engine = open(&disk, WRITTEN_MS).unwrap();
    typed(&engine);
    lines(&engine, FIRST);
    assert!(engine.checkpoint());
    lines(&engine, "DEL cold:until\nSET cold:until 2 PX 100000000\nSET buried 1");
    assert!(engine.checkpoint());
    lines(&engine, "DEL buried");
    let told = contents(&engine);
    drop(engine);
    keep(to, "closed", image(&disk), &told);
    let engine = open(&disk, WRITTEN_MS).unwrap();
    lines(&engine, "GET cold:stays");
    lines(&engine, THEN);
    let told = contents(&engine);
    keep(to, "killed", image(&disk), &told);
    engine.snapshot(&copy, &mut |_, _| {}).unwrap();
    keep(to, "snapshot", image(&copy), &told);
}
