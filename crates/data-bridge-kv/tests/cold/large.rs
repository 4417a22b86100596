//! An index on disk that is large enough to be read on all cores.

use std::sync::Arc;

use data_bridge_kv::disk::Disk;
use data_bridge_kv_testkit::disk::FaultyDisk;

use crate::store::{Mistake, Store};

const KEYS: u64 = 60_000;
const BATCH: u64 = 6_000;

fn key(number: u64) -> String {
    format!("key:{number}")
}

fn put(store: &Store, numbers: std::ops::Range<u64>, version: u64) {
    let entries: Vec<(String, String)> =
        numbers.map(|number| (key(number), format!("{number}.{version}"))).collect();
    let entries: Vec<(&str, u64, Option<u64>, &[u8])> =
        entries.iter().map(|(key, value)| (key.as_str(), version, None, value.as_bytes())).collect();
    store.put(&entries).unwrap();
}

/// Half of the second batch is newer than the index, the third is deleted behind it.
fn compare(disk: &FaultyDisk) {
    let store = Store::open(Arc::new(disk.clone()), Mistake::Nothing).unwrap();
    assert_eq!(store.mark, Some(7));
    for number in 0..KEYS {
        let version = if (BATCH..BATCH * 3 / 2).contains(&number) { 2 } else { 1 };
        let is_deleted = (BATCH * 2..BATCH * 3).contains(&number);
        let expected = (!is_deleted).then(|| format!("{number}.{version}").into_bytes());
        assert_eq!(store.get(&key(number), 0), Ok(expected), "{number}");
    }
    assert_eq!(store.len() as u64, KEYS - BATCH);
}

#[test]
fn a_large_index_is_read_back_whole_or_damaged() {
    let disk = FaultyDisk::new();
    let store = Store::create(Arc::new(disk.clone()), Mistake::Nothing).unwrap();
    for first in (0..KEYS).step_by(BATCH as usize) {
        put(&store, first..first + BATCH, 1);
    }
    store.write_base(7).unwrap();
    (BATCH * 2..BATCH * 3).for_each(|number| store.delete(&key(number), 2));
    put(&store, BATCH..BATCH * 3 / 2, 2);
    drop(store);
    compare(&disk);
    let index = disk.open("cold-task-index").unwrap();
    let size = index.size().unwrap();
    assert!(size > 1 << 20, "read on one core: {size} bytes");
    let mut byte = [0];
    index.read_at(&mut byte, size / 2).unwrap();
    index.write_at(&[byte[0] ^ 4], size / 2).unwrap();
    compare(&disk);
}
