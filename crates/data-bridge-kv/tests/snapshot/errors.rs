//! Each operation of a disk fails once, or it and all later ones, while a snapshot is made, verified and restored: whoever asked
//! is told, what is not whole is taken for nothing, and what was there before is as it was.

use std::sync::Arc;

use data_bridge_kv::snapshot::Snapshot;
use data_bridge_kv::{DataDirectory, Engine, Settings};
use data_bridge_kv_model::{ErrorKind, Reply, Value};
use data_bridge_kv_testkit::disk::{Fault, FaultyDisk};

use super::{Disk, open, run, sample, tasks};

const KEYS: i64 = 50;

/// Runs `attempt` with a disk of `make` whose first operation fails, then whose second one does, and so on, until none is left
/// that could; `check` is shown how each ended, with the disk whole again. Answers how many failed.
fn each_error<D, T>(
    make: impl Fn() -> (FaultyDisk, D),
    attempt: impl Fn(&FaultyDisk, &D) -> data_bridge_kv_model::Result<T>,
    mut check: impl FnMut(&str, data_bridge_kv_model::Result<T>, &FaultyDisk, &D),
) -> u64 {
    let mut failed = 0;
    for sticky in [false, true] {
        for at in 0.. {
            let (disk, beside) = make();
            let first = disk.operations();
            disk.set_fault(Some(Fault { at: first + at, error: std::io::ErrorKind::Other, sticky }));
            let ended = attempt(&disk, &beside);
            disk.set_fault(None);
            if disk.operations() <= first + at {
                assert!(ended.is_ok());
                break;
            }
            check(&format!("operation {at}, sticky {sticky}"), ended, &disk, &beside);
            failed += 1;
        }
    }
    failed
}

fn verify(copy: &FaultyDisk) -> data_bridge_kv_model::Result<Snapshot> {
    Snapshot::verify(copy, &mut |_, _| {})
}

fn restore(copy: &FaultyDisk, into: &FaultyDisk) -> data_bridge_kv_model::Result<Snapshot> {
    Snapshot::restore(copy, into, 0, &mut |_, _| {})
}

/// All keys are on this disk.
fn has_all(disk: &FaultyDisk, says: &str) {
    let engine = open(Arc::new(disk.clone()), false);
    let caller = tasks(&engine);
    for n in 0..KEYS {
        let value = Reply::Value(Value::Bytes(format!("value:{n}").as_bytes().into()));
        assert_eq!(run(&engine, &caller, &format!("GET key:{n}")), value, "{says}");
    }
    assert_eq!(run(&engine, &caller, "DBSIZE"), Reply::Integer(KEYS), "{says}");
}

/// There is no snapshot in this place, or a whole one.
fn is_all_or_none(copy: &FaultyDisk, says: &str) {
    match verify(copy) {
        Ok(_) => {
            let into = FaultyDisk::new();
            restore(copy, &into).unwrap();
            has_all(&into, says);
        }
        Err(error) => {
            let is_none = [ErrorKind::NotFound, ErrorKind::Corruption].contains(&error.kind());
            assert!(is_none, "{says}: {error}");
        }
    }
}

#[test]
fn a_place_that_fails_gets_no_snapshot_and_the_store_goes_on() {
    for is_object in [false, true] {
        let (disk, _) = sample();
        let engine = open(Arc::new(disk), false);
        let place = || {
            let copy = FaultyDisk::new();
            if is_object {
                copy.write_once();
            }
            (copy, ())
        };
        let attempt = |copy: &FaultyDisk, (): &()| engine.snapshot(copy, &mut |_, _| {});
        let failed = each_error(place, attempt, |says, made, copy, ()| {
            assert_eq!(made.map(drop).unwrap_err().kind(), ErrorKind::Unavailable, "{says}");
            is_all_or_none(copy, says);
            assert_eq!(run(&engine, &tasks(&engine), "SET key:0 value:0"), Reply::Ok, "{says}");
        });
        println!("{failed} errors where a snapshot was to be, objects: {is_object}");
        assert!(failed > 30, "{failed}");
    }
}

#[test]
fn a_store_whose_disk_fails_makes_a_whole_snapshot_or_none() {
    for (is_open_anew, is_object) in [(false, false), (true, false), (false, true)] {
        let store = || {
            let disk = FaultyDisk::new();
            let mut engine = open(Arc::new(disk.clone()), false);
            (0..KEYS).for_each(|n| drop(run(&engine, &tasks(&engine), &format!("SET key:{n} value:{n}"))));
            if is_open_anew {
                // Its index comes from disk.
                drop(engine);
                engine = open(Arc::new(disk.clone()), false);
            }
            let copy = FaultyDisk::new();
            if is_object {
                copy.write_once();
            }
            (disk, (engine, copy))
        };
        let attempt =
            |_: &FaultyDisk, (engine, copy): &(Engine, FaultyDisk)| engine.snapshot(copy, &mut |_, _| {});
        let mut refused = 0;
        let failed = each_error(store, attempt, |says, made, disk, (_, copy)| {
            match made {
                Ok(_) => drop(verify(copy).unwrap()),
                Err(error) => {
                    let is_told = [ErrorKind::Unavailable, ErrorKind::Durability].contains(&error.kind());
                    assert!(is_told, "{says}: {error}");
                    refused += 1;
                }
            }
            is_all_or_none(copy, says);
            has_all(&disk.crash_image(refused), says);
        });
        println!("{failed} errors of the store's disk, {refused} of them without a snapshot");
        assert!(refused > 10 && refused < failed, "{refused} of {failed}");
    }
}

#[test]
fn a_restore_that_fails_leaves_nothing_that_is_opened() {
    let (_, copy) = sample();
    let (empty, kept) = (|| (FaultyDisk::new(), ()), || (copy.crash_image(0), FaultyDisk::new()));
    let refused = |says: &str, ended: data_bridge_kv_model::Result<Snapshot>, into: &FaultyDisk| {
        assert_eq!(ended.map(drop).unwrap_err().kind(), ErrorKind::Unavailable, "{says}");
        if says.ends_with("false") {
            assert_eq!(into.list().unwrap(), Vec::<String>::new(), "{says}: it can be tried again");
            return;
        }
        if !into.list().unwrap().is_empty() {
            let data = Some(DataDirectory::on(Arc::new(into.clone()), 1 << 28).unwrap());
            // Only what came after the last byte has failed, if it is.
            if Engine::open(Settings { data, background: false, ..Settings::default() }).is_ok() {
                has_all(into, says);
            }
        }
    };
    let there = each_error(
        empty,
        |into, ()| restore(&copy, into),
        |says, ended, into, ()| {
            refused(says, ended, into);
        },
    );
    let here = each_error(kept, restore, |says, ended, copy, into| {
        refused(says, ended, into);
        verify(copy).expect("it is as it was");
    });
    let verified = each_error(
        kept,
        |copy, _| verify(copy),
        |says, ended, copy, _| {
            assert_eq!(ended.map(drop).unwrap_err().kind(), ErrorKind::Unavailable, "{says}");
            verify(copy).expect("it is as it was");
        },
    );
    println!("{there} errors where it is restored, {here} where it is kept, {verified} where it is verified");
    assert!(there > 30 && here > 20 && verified > 20);
}
