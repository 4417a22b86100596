//! One bit of every byte of every segment flipped: an error for that key or at opening, never another value.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_bridge_kv::cold::{OpenError, ReadError, verify};
use data_bridge_kv::disk::Disk;
use data_bridge_kv_testkit::disk::{Fault, FaultyDisk};

use crate::store::{GetError, Mistake, Store};

/// All files of a disk.
type Image = BTreeMap<String, Vec<u8>>;

fn image(disk: &dyn Disk) -> Image {
    let read = |name: String| {
        let file = disk.open(&name).unwrap();
        let mut bytes = vec![0; file.size().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        (name, bytes)
    };
    disk.list().unwrap().into_iter().map(read).collect()
}

fn disk_of(image: &Image) -> Arc<FaultyDisk> {
    let disk = FaultyDisk::new();
    for (name, bytes) in image {
        disk.create(name).unwrap().write_at(bytes, 0).unwrap();
    }
    Arc::new(disk)
}

/// A store whose segments are closed, with overwritten and deleted keys, and what is in it.
fn sample() -> (Arc<FaultyDisk>, Store, BTreeMap<String, Option<Vec<u8>>>) {
    let disk = Arc::new(FaultyDisk::new());
    let store = Store::create(Arc::clone(&disk) as Arc<dyn Disk>, Mistake::Nothing).unwrap();
    let mut state = BTreeMap::new();
    for version in 1..40_u64 {
        let key = format!("key {}", version % 9);
        let value = format!("value {version} ").repeat(1 + version as usize % 5).into_bytes();
        let deadline = (version % 4 == 0).then_some(1 << 40);
        store.put(&[(&key, version * 10, deadline, &value)]).unwrap();
        state.insert(key, Some(value));
        if version % 7 == 0 {
            let key = format!("key {}", version % 5);
            store.delete(&key, version * 10 + 1);
            state.insert(key, None);
        }
    }
    store.put(&[]).unwrap();
    drop(store);
    let store = Store::open(Arc::clone(&disk) as Arc<dyn Disk>, Mistake::Nothing).unwrap();
    (disk, store, state)
}

#[test]
fn a_flip_under_an_index_is_an_error_for_that_key() {
    let (disk, store, state) = sample();
    let (mut flips, mut errors, mut names) = (0, 0, 0);
    for (name, bytes) in image(&*disk) {
        let file = disk.open(&name).unwrap();
        for (offset, byte) in (0_u64..).zip(bytes) {
            file.write_at(&[byte ^ 1 << (offset % 8)], offset).unwrap();
            let (mut broken, mut nameless) = (0, 0);
            for (key, value) in &state {
                match store.get(key, 0) {
                    Ok(found) => assert_eq!(found, *value, "{key}, {name}, byte {offset}"),
                    Err(error) => {
                        assert_eq!(error, GetError::Corrupt);
                        broken += 1;
                    }
                }
                match store.name(key) {
                    Ok(found) => assert_eq!(found, value.as_ref().map(|_| key.clone()), "byte {offset}"),
                    Err(error) => {
                        assert_eq!(error, GetError::Corrupt);
                        nameless += 1;
                    }
                }
            }
            assert!(nameless <= broken && broken <= 1, "{broken} keys by byte {offset} of {name}");
            file.write_at(&[byte], offset).unwrap();
            (flips, errors, names) = (flips + 1, errors + broken, names + nameless);
        }
    }
    println!("{flips} flips, {errors} errors, {names} names");
    assert!(flips > 3000 && errors > 200 && names > 100 && names < errors);
}

#[test]
fn a_flip_before_opening_is_an_error_or_nothing() {
    let (disk, _, state) = sample();
    let whole = image(&*disk);
    let (mut flips, mut refused, mut errors) = (0, 0, 0);
    for (name, bytes) in &whole {
        for at in 0..bytes.len() {
            let mut damaged = whole.clone();
            damaged.get_mut(name).unwrap()[at] ^= 1 << (at % 8);
            flips += 1;
            match Store::open(disk_of(&damaged), Mistake::Nothing) {
                Ok(store) => {
                    for (key, value) in &state {
                        match store.get(key, 0) {
                            Ok(found) => assert_eq!(found, *value, "{key}, {name}, byte {at}"),
                            Err(error) => {
                                assert_eq!(error, GetError::Corrupt);
                                errors += 1;
                            }
                        }
                    }
                }
                Err(OpenError::Damaged { file, offset }) => {
                    assert_eq!(file, *name);
                    assert!(offset <= at as u64);
                    refused += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    println!("{flips} flips, {refused} refused, {errors} errors");
    assert!(flips > 3000 && refused > 500 && errors > 200);
}

/// An index that is damaged is not used, wherever that is; what it says is found again without it.
#[test]
fn a_flip_in_the_index_costs_nothing_but_time() {
    let (disk, store, state) = sample();
    store.write_base(9).unwrap();
    store.put(&[("key 3", 5000, None, b"behind the index")]).unwrap();
    store.delete("key 4", 5001);
    store.put(&[("key 10", 5002, None, b"new")]).unwrap();
    drop(store);
    let changed = [("key 3", Some(&b"behind the index"[..])), ("key 4", None), ("key 10", Some(b"new"))];
    let mut state = state;
    state.extend(changed.map(|(key, value)| (key.to_owned(), value.map(<[u8]>::to_vec))));
    let whole = image(&*disk);
    let check = |image: &Image, what: &str| {
        let store =
            Store::open(disk_of(image), Mistake::Nothing).unwrap_or_else(|error| panic!("{what}: {error}"));
        for (key, value) in &state {
            assert_eq!(store.get(key, 0).as_ref(), Ok(value), "{key}, {what}");
        }
        assert_eq!(store.len(), state.values().flatten().count(), "{what}");
        store.mark
    };
    assert_eq!(check(&whole, "whole"), Some(9));
    let index = &whole["cold-task-index"];
    let (mut unused, mut cuts) = (0, 0);
    for at in 0..index.len() {
        let mut damaged = whole.clone();
        damaged.get_mut("cold-task-index").unwrap()[at] ^= 1 << (at % 8);
        unused += usize::from(check(&damaged, &format!("byte {at}")).is_none());
        damaged.get_mut("cold-task-index").unwrap().truncate(at);
        cuts += usize::from(check(&damaged, &format!("cut at {at}")).is_none());
    }
    println!("{} flips, {unused} of them in the head, {cuts} cuts in it", index.len());
    assert!(unused > 200 && cuts > 200 && unused < index.len());
}

/// What is cut off at the end of a segment that is not closed is a batch that was being written; anything else is damage.
#[test]
fn a_cut_is_a_prefix_or_refused() {
    let disk = Arc::new(FaultyDisk::new());
    let store = Store::create(Arc::clone(&disk) as Arc<dyn Disk>, Mistake::Nothing).unwrap();
    for version in 1..6_u64 {
        store.put(&[("key", version, None, format!("value {version}").as_bytes())]).unwrap();
    }
    let whole = image(&*disk);
    let (name, bytes) = whole.first_key_value().unwrap();
    assert_eq!(whole.len(), 1);
    let mut last = 0;
    for end in 0..bytes.len() {
        let cut = Image::from([(name.clone(), bytes[..end].to_vec())]);
        let store = Store::open(disk_of(&cut), Mistake::Nothing).unwrap();
        let found = store.get("key", 0).unwrap();
        let version = found.map_or(0, |value| String::from_utf8(value).unwrap()[6..].parse::<u64>().unwrap());
        assert!(version == last || version == last + 1, "{version} after {last} at {end}");
        last = version;
    }
    assert_eq!(last, 4);
}

#[test]
fn a_file_of_another_secret_or_format_is_refused() {
    let (disk, _, _) = sample();
    let policy = crate::store::policy();
    let other = data_bridge_kv::cold::Policy { fingerprint: policy.fingerprint + 1, ..policy };
    let error = data_bridge_kv::cold::Log::open(disk, other).err().expect("refused");
    assert_eq!(error.to_string(), "cold-task-0000000000000001 was written under another secret");
}

/// Whoever checks a directory is told what the disk did not give, and of each flipped bit of an entry where that stands.
#[test]
fn whoever_checks_is_told_of_each_flip_and_each_error() {
    let (disk, store, _) = sample();
    drop(store);
    let check = |disk: &FaultyDisk| {
        let mut all = Vec::new();
        verify(disk, |found| all.push(found)).map(|()| all)
    };
    let whole = check(&disk).unwrap();
    let is_trouble =
        |found: &data_bridge_kv::cold::Verified| !found.is_whole() || found.unknown_from.is_some();
    assert!(whole.len() > 2 && !whole.iter().any(is_trouble) && whole.iter().any(|found| found.entries > 0));
    let mut failed = 0;
    for at in 0.. {
        let first = disk.operations();
        disk.set_fault(Some(Fault { at: first + at, error: std::io::ErrorKind::Other, sticky: false }));
        let checked = check(&disk);
        disk.set_fault(None);
        if disk.operations() <= first + at {
            break;
        }
        assert!(matches!(checked, Err(ReadError::Disk(_))), "operation {at}: {checked:?}");
        failed += 1;
    }
    let mut flips = 0;
    for (name, bytes) in image(&*disk) {
        let file = disk.open(&name).unwrap();
        for (offset, byte) in (0_u64..).zip(bytes) {
            file.write_at(&[byte ^ 1 << (offset % 8)], offset).unwrap();
            let checked = check(&disk).unwrap();
            let told: Vec<_> =
                checked.iter().filter(|found| is_trouble(found)).map(|found| &found.file).collect();
            assert_eq!(told, [&name], "byte {offset}");
            file.write_at(&[byte], offset).unwrap();
            flips += 1;
        }
    }
    println!("{failed} errors and {flips} flips told of");
    assert!(failed > 20 && flips > 1000);
}
