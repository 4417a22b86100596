//! Snapshots: the state at one record of the log, made while writers go on; what is damaged is found.

#[path = "snapshot/errors.rs"]
mod errors;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use data_bridge_kv::disk::{Disk, RealDisk};
use data_bridge_kv::snapshot::{Captured, Snapshot};
use data_bridge_kv::wal::{self, NewRecord, Wal, WalPolicy};
use data_bridge_kv::{Caller, DataDirectory, Engine, OnError, Settings, SystemClock};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::{Arg, Call, ErrorKind, Reply, ReplyBuf, ReplyReader, Value};
use data_bridge_kv_testkit::directory::Directory;
use data_bridge_kv_testkit::disk::FaultyDisk;
use data_bridge_kv_testkit::disk::hooked::{Hooked, Operation};

fn open(disk: Arc<dyn Disk>, background: bool) -> Engine {
    let data = Some(DataDirectory::on(disk, 1 << 28).unwrap());
    Engine::open(Settings { data, background, shards: Some(4), ..Settings::default() }).unwrap()
}

fn tasks(engine: &Engine) -> Caller {
    Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() }
}

fn with_call<R>(line: &str, act: impl FnOnce(&Call<'_>) -> R) -> R {
    let words: Vec<&str> = line.split(' ').collect();
    let args: Vec<Arg<'_>> = words[1..].iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
    act(&table::by_name(words[0].as_bytes()).unwrap().call(&args).unwrap())
}

fn run(engine: &Engine, caller: &Caller, line: &str) -> Reply {
    let mut out = ReplyBuf::new();
    let _ = with_call(line, |call| engine.execute(caller, 0, call, &mut out));
    ReplyReader::new(out.as_bytes()).reply().unwrap()
}

fn number(reply: Reply) -> u64 {
    match reply {
        Reply::Integer(number) => number.unsigned_abs(),
        other => panic!("{other:?}"),
    }
}

fn disk(directory: &Directory) -> Arc<RealDisk> {
    Arc::new(RealDisk::open(directory.path()).unwrap())
}

/// A writer adds jobs in order, each with a counter in one step, while snapshots are made: each has a beginning of what was
/// written, whole, and no less than was acknowledged before it was begun.
#[test]
fn a_snapshot_under_load_is_the_state_at_one_moment() {
    let home = Directory::new("load");
    let engine = open(disk(&home), true);
    let (written, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let caller = tasks(&engine);
            while !stop.load(Ordering::Relaxed) {
                let n = written.load(Ordering::Relaxed) + 1;
                let mut out = ReplyBuf::new();
                let (job, count) = (format!("SET job:{n} {}", "x".repeat(2000)), "INCR count".to_owned());
                with_call(&job, |job| {
                    with_call(&count, |count| {
                        let _ =
                            engine.execute_atomic(&caller, &[*job, *count], OnError::Abort, &[], &mut out);
                    });
                });
                assert!(matches!(ReplyReader::new(out.as_bytes()).reply(), Ok(Reply::Container(..))));
                written.store(n, Ordering::Relaxed);
            }
        });
        for round in 0..6 {
            while written.load(Ordering::Relaxed) < round * 150 {
                std::thread::yield_now();
            }
            let (copy, restored) =
                (Directory::new(&format!("copy{round}")), Directory::new(&format!("back{round}")));
            let least = written.load(Ordering::Relaxed);
            let mut steps = Vec::new();
            let made = engine.snapshot(&*disk(&copy), &mut |done, all| steps.push((done, all))).unwrap();
            let most = written.load(Ordering::Relaxed) + 1;
            assert!(steps.is_sorted() && steps.last().is_some_and(|(done, all)| done == all), "{steps:?}");
            assert_eq!(Snapshot::verify(&*disk(&copy), &mut |_, _| {}).unwrap(), made);
            assert_eq!(Snapshot::restore(&*disk(&copy), &*disk(&restored), 0, &mut |_, _| {}).unwrap(), made);
            let again = open(disk(&restored), false);
            let caller = tasks(&again);
            let count = number(run(&again, &caller, "INCRBY count 0"));
            assert!((least..=most).contains(&count), "{least}..={most} has {count}");
            assert_eq!(number(run(&again, &caller, "DBSIZE")), count + u64::from(count > 0 || round == 0));
            for job in 1..=count {
                assert_eq!(number(run(&again, &caller, &format!("STRLEN job:{job}"))), 2000, "job {job}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// The log goes on while it is copied, and stands in the copy where that can't be changed: what is behind the moment of the
/// snapshot is not restored.
#[test]
fn what_is_written_while_it_is_copied_is_not_restored() {
    for is_object in [false, true] {
        let (disk, copy, restored) = (FaultyDisk::new(), FaultyDisk::new(), FaultyDisk::new());
        if is_object {
            copy.write_once();
        }
        let engine = open(Arc::new(disk), false);
        let caller = tasks(&engine);
        (0..50).for_each(|n| drop(run(&engine, &caller, &format!("SET key:{n} value:{n}"))));
        let mut later = 0;
        let mut write = |_, _| {
            assert_eq!(run(&engine, &caller, &format!("SET later:{later} 1")), Reply::Ok);
            assert_eq!(run(&engine, &caller, "SET key:0 changed"), Reply::Ok);
            assert_eq!(
                run(&engine, &caller, "DEL key:1"),
                Reply::Integer(u64::from(later == 0).cast_signed())
            );
            later += 1;
        };
        let made = engine.snapshot(&copy, &mut write).unwrap();
        assert!(later > 0);
        let copied = wal::verify(&copy, |_, _, _| {}).unwrap();
        assert_eq!(copied.last > made.lsn, is_object, "{copied:?}");
        Snapshot::restore(&copy, &restored, 0, &mut |_, _| {}).unwrap();
        assert_eq!(wal::verify(&restored, |_, _, _| {}).unwrap().last, made.lsn);
        let again = open(Arc::new(restored), false);
        let caller = tasks(&again);
        for n in 0..50 {
            let value = Reply::Value(Value::Bytes(format!("value:{n}").as_bytes().into()));
            assert_eq!(run(&again, &caller, &format!("GET key:{n}")), value, "{is_object}");
        }
        assert_eq!(run(&again, &caller, "DBSIZE"), Reply::Integer(50));
    }
}

fn sample() -> (FaultyDisk, FaultyDisk) {
    let (disk, copy) = (FaultyDisk::new(), FaultyDisk::new());
    let engine = open(Arc::new(disk.clone()), false);
    let caller = tasks(&engine);
    (0..50).for_each(|n| drop(run(&engine, &caller, &format!("SET key:{n} value:{n}"))));
    engine.snapshot(&copy, &mut |_, _| {}).unwrap();
    (disk, copy)
}

#[test]
fn a_damaged_snapshot_is_found_and_not_restored() {
    let (_, copy) = sample();
    for name in copy.list().unwrap() {
        let file = copy.open(&name).unwrap();
        let size = file.size().unwrap();
        for at in (0..size).step_by(1 + size as usize / 40) {
            let mut byte = [0];
            file.read_at(&mut byte, at).unwrap();
            file.write_at(&[byte[0] ^ 4], at).unwrap();
            let found = Snapshot::verify(&copy, &mut |_, _| {}).unwrap_err();
            assert_eq!(found.kind(), ErrorKind::Corruption, "{name} at {at}");
            let into = FaultyDisk::new();
            let restored = Snapshot::restore(&copy, &into, 0, &mut |_, _| {}).unwrap_err();
            assert_eq!(restored.kind(), ErrorKind::Corruption, "{name} at {at}");
            assert_eq!(into.list().unwrap(), Vec::<String>::new(), "it can be tried again");
            file.write_at(&byte, at).unwrap();
        }
    }
    Snapshot::verify(&copy, &mut |_, _| {}).unwrap();
}

/// A file that is missing, or shorter than it was, is named: by whoever verifies, and by whoever restores.
#[test]
fn a_snapshot_that_lacks_a_file_says_which() {
    let (_, copy) = sample();
    let names = copy.list().unwrap();
    for name in names.iter().filter(|name| *name != "snapshot") {
        let is_named = |what: &str| {
            for found in [
                Snapshot::verify(&copy, &mut |_, _| {}).unwrap_err(),
                Snapshot::restore(&copy, &FaultyDisk::new(), 0, &mut |_, _| {}).unwrap_err(),
            ] {
                assert_eq!(found.kind(), ErrorKind::Corruption, "{name}");
                assert_eq!(found.message(), format!("the file {name} of the snapshot is {what}"));
            }
        };
        copy.rename(name, "elsewhere").unwrap();
        is_named("missing");
        copy.rename("elsewhere", name).unwrap();
        let file = copy.open(name).unwrap();
        let size = file.size().unwrap();
        let mut bytes = vec![0; size as usize];
        file.read_at(&mut bytes, 0).unwrap();
        for shorter in [0, size / 2, size - 1] {
            file.set_size(shorter).unwrap();
            is_named("damaged");
        }
        file.write_at(&bytes, 0).unwrap();
    }
    Snapshot::verify(&copy, &mut |_, _| {}).unwrap();
}

/// Whoever opened it as a store would write to it, and it would be a snapshot no more.
#[test]
fn a_snapshot_is_not_opened_but_restored() {
    let (disk, copy) = sample();
    let data = Some(DataDirectory::on(Arc::new(copy.clone()), 1 << 28).unwrap());
    let refused = Engine::open(Settings { data, ..Settings::default() }).map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.message().contains("backup restore"), "{refused}");
    Snapshot::verify(&copy, &mut |_, _| {}).unwrap();
    // One that lost its manifest is nothing to begin anew in.
    disk.remove("manifest").unwrap();
    let data = Some(DataDirectory::on(Arc::new(disk.clone()), 1 << 28).unwrap());
    let refused = Engine::open(Settings { data, ..Settings::default() }).map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corruption);
    assert!(refused.message().contains("manifest is missing"), "{refused}");
    assert!(!disk.list().unwrap().contains(&"manifest".to_owned()));
}

/// A full disk takes no checkpoint, but its log has everything.
#[test]
fn a_snapshot_whose_checkpoint_fails_has_the_last_record() {
    let (disk, copy, restored) = (FaultyDisk::new(), FaultyDisk::new(), FaultyDisk::new());
    let engine = open(Arc::new(disk.clone()), false);
    let caller = tasks(&engine);
    (0..50).for_each(|n| drop(run(&engine, &caller, &format!("SET key:{n} value:{n}"))));
    disk.set_capacity(Some(disk.used()));
    assert!(!engine.checkpoint());
    engine.snapshot(&copy, &mut |_, _| {}).unwrap();
    Snapshot::restore(&copy, &restored, 0, &mut |_, _| {}).unwrap();
    let again = open(Arc::new(restored), false);
    let caller = tasks(&again);
    for n in 0..50 {
        let value = Reply::Value(Value::Bytes(format!("value:{n}").as_bytes().into()));
        assert_eq!(run(&again, &caller, &format!("GET key:{n}")), value);
    }
}

#[test]
fn only_an_empty_place_takes_a_snapshot() {
    let (disk, copy) = sample();
    let refused = Snapshot::restore(&copy, &disk, 0, &mut |_, _| {}).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    let full = FaultyDisk::new();
    full.set_capacity(Some(1000));
    let refused = Snapshot::restore(&copy, &full, 0, &mut |_, _| {}).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    copy.remove("snapshot").unwrap();
    let unfinished = Snapshot::verify(&copy, &mut |_, _| {}).unwrap_err();
    assert_eq!(unfinished.kind(), ErrorKind::NotFound);
    let engine = Engine::open(Settings { background: false, ..Settings::default() }).unwrap();
    let refused = engine.snapshot(&FaultyDisk::new(), &mut |_, _| {}).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
}

/// A checkpoint that gives up the beginning of the log while its files are opened takes nothing from the snapshot.
#[test]
fn a_log_that_is_trimmed_while_it_is_captured_is_whole() {
    let (disk, clock) = (FaultyDisk::new(), Arc::new(SystemClock::new()));
    let policy = WalPolicy { segment_bytes: 4096, ..WalPolicy::default() };
    let (wal, _) = Wal::open(Arc::new(disk.clone()), clock, policy, &mut |_, _| Ok(())).unwrap();
    let wal = Arc::new(wal);
    let head = NewRecord { namespace: 1, generation: 0, kind: 9 };
    for n in 0..50 {
        let lsn = wal.append(head, &[n; 400], true);
        wal.wait_durable(lsn).unwrap();
    }
    let before = wal.segments();
    let (lists, log) = (AtomicU64::new(0), Arc::clone(&wal));
    let trimming = Hooked::new(Arc::new(disk), move |operation, _| {
        // Just before the names are listed the second time.
        if operation == Operation::List && lists.fetch_add(1, Ordering::Relaxed) == 1 {
            log.trim(log.last())?;
        }
        Ok(())
    });
    let captured = Captured::open(&trimming, Vec::new()).unwrap();
    assert!(wal.segments() < before, "it was trimmed meanwhile");
    let copy = FaultyDisk::new();
    captured.copy_to(&copy, wal.last(), 1, &mut |_, _| {}).unwrap();
    let found = wal::verify(&copy, |_, _, _| {}).unwrap();
    assert!(found.first > 1 && found.last == wal.last(), "{found:?}");
}

/// What was made, or restored, is whole after a power cut as soon as that was said.
#[test]
fn what_was_copied_outlives_a_power_cut() {
    for seed in 0..40 {
        let (_, copy) = sample();
        copy.crash(seed);
        Snapshot::verify(&copy, &mut |_, _| {}).unwrap();
        let restored = FaultyDisk::new();
        Snapshot::restore(&copy, &restored, 0, &mut |_, _| {}).unwrap();
        restored.crash(seed);
        let again = open(Arc::new(restored), false);
        let caller = tasks(&again);
        let is_there = |n: &i32| run(&again, &caller, &format!("STRLEN key:{n}")) != Reply::Integer(0);
        assert_eq!((0..50).filter(is_there).count(), 50, "seed {seed}");
    }
}

/// A disk that has much to write at once keeps whoever waits for the log waiting.
#[test]
fn a_copy_is_synced_as_it_goes() {
    const MIB: usize = 1 << 20;
    let source = FaultyDisk::new();
    let engine = open(Arc::new(source), false);
    for n in 0..24 {
        run(&engine, &tasks(&engine), &format!("SET {n} {}", "x".repeat(MIB)));
    }
    let copy = FaultyDisk::new();
    let mut most = 0;
    let mut watch = |_, _| most = copy.unsynced().max(most);
    let made = engine.snapshot(&copy, &mut watch).unwrap();
    assert!(most <= 4 * MIB, "{most} bytes at once");
    assert!(Snapshot::verify(&copy, &mut |_, _| {}).unwrap() == made && made.bytes() > 24 << 20);
}

/// The store that was copied may go on, be opened again and give versions that the copy has not given yet.
#[test]
fn a_version_of_a_store_that_went_on_matches_nothing_in_a_restored_one() {
    let (disk, copy) = (FaultyDisk::new(), FaultyDisk::new());
    let engine = open(Arc::new(disk.clone()), false);
    run(&engine, &tasks(&engine), "SET job 1");
    let made = engine.snapshot(&copy, &mut |_, _| {}).unwrap();
    drop(engine);
    let mut seen = HashSet::new();
    let mut write = |disk: &FaultyDisk| {
        let engine = open(Arc::new(disk.clone()), false);
        let caller = tasks(&engine);
        run(&engine, &caller, "DEL job");
        let version = number(run(&engine, &caller, "KV.SETV job 2 0"));
        assert!(seen.insert(version), "{version}");
    };
    (0..20).for_each(|_| write(&disk));
    for minutes in [0, 60, 60 * 24 * 30] {
        let restored = FaultyDisk::new();
        Snapshot::restore(&copy, &restored, made.made_ms + minutes * 60_000, &mut |_, _| {}).unwrap();
        (0..20).for_each(|_| write(&restored));
    }
}

/// Each copy goes on by itself: what somebody knows of one that was given up matches nothing in the next.
#[test]
fn two_copies_restored_at_different_times_give_different_versions() {
    let (_disk, copy) = sample();
    let made_ms = Snapshot::read(&copy).unwrap().made_ms;
    let mut seen = HashSet::new();
    // Within a second, and long after so many days that the copy leaves out as much as it may.
    for elapsed_ms in [0, 1000, 30_000, 200 * 86_400_000, 200 * 86_400_000 + 1000, 201 * 86_400_000] {
        let restored = FaultyDisk::new();
        Snapshot::restore(&copy, &restored, made_ms + elapsed_ms, &mut |_, _| {}).unwrap();
        let engine = open(Arc::new(restored), false);
        let caller = tasks(&engine);
        for n in 0..100 {
            let version = number(run(&engine, &caller, &format!("KV.SETV new-{n} 1 0")));
            assert!(seen.insert((n, version)), "{elapsed_ms} ms later: {version}");
        }
    }
}
