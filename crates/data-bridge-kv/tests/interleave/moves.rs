//! Entries that leave memory, are checkpointed and come back while others read, write and delete them: at each moment a key
//! has one value, and that is the last one that was written.

use std::sync::Arc;

use data_bridge_kv::Chore;
use data_bridge_kv_model::Reply;
use shuttle::sync::mpsc::channel;
use shuttle::thread;

use crate::rig::{Meeting, Store, numbers_on, schedules};

/// Runs all of them at once.
fn together(acts: Vec<Box<dyn FnOnce() + Send>>) {
    let threads: Vec<_> = acts.into_iter().map(thread::spawn).collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

/// Adds one to `k` so many times.
fn adds(store: &Arc<Store>, namespace: &'static str, times: i64) -> Box<dyn FnOnce() + Send> {
    let store = Arc::clone(store);
    Box::new(move || {
        let caller = store.caller(namespace);
        let mut last = 0;
        for _ in 0..times {
            let now = store.number(&caller, "INCR k");
            assert!(now > last, "{now} after {last}");
            last = now;
        }
    })
}

/// Reads `k` so many times: it never goes back.
fn reads(store: &Arc<Store>, namespace: &'static str, times: usize) -> Box<dyn FnOnce() + Send> {
    let store = Arc::clone(store);
    Box::new(move || {
        let caller = store.caller(namespace);
        let mut last = 0;
        for _ in 0..times {
            let now = store.number(&caller, "GET k");
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
    })
}

fn departs() {
    let store = Arc::new(Store::open(Some(Meeting::new().disk())));
    let caller = store.caller("cache");
    for key in ["k", "other", "gone"] {
        assert_eq!(store.number(&caller, &format!("INCR {key}")), 1);
    }
    let (demoter, deleter) = (Arc::clone(&store), Arc::clone(&store));
    together(vec![
        adds(&store, "cache", 2),
        adds(&store, "cache", 1),
        reads(&store, "cache", 3),
        Box::new(move || {
            demoter.engine.demote_all();
            demoter.engine.do_chore(Chore::Tier);
            demoter.engine.demote_all();
        }),
        Box::new(move || {
            let caller = deleter.caller("cache");
            assert_eq!(deleter.number(&caller, "DEL gone"), 1, "deleted once");
            assert_eq!(deleter.number(&caller, "GET gone"), 0, "and gone");
        }),
    ]);
    assert_eq!(store.number(&caller, "GET k"), 4, "nothing is lost, nothing counts twice");
    assert_eq!((store.number(&caller, "GET other"), store.number(&caller, "GET gone")), (1, 0));
    assert_eq!(store.number(&caller, "DBSIZE"), 2, "each key is in one place");
    store.engine.demote_all();
    assert_eq!((store.number(&caller, "GET k"), store.number(&caller, "DBSIZE")), (4, 2), "on disk too");
}

fn checkpoints() {
    let disk = Meeting::new();
    let store = Arc::new(Store::open(Some(disk.disk())));
    let caller = store.caller("tasks");
    for key in ["k", "gone"] {
        assert_eq!(store.number(&caller, &format!("INCR {key}")), 1);
    }
    let (demoter, keeper, deleter) = (Arc::clone(&store), Arc::clone(&store), Arc::clone(&store));
    together(vec![
        adds(&store, "tasks", 2),
        reads(&store, "tasks", 2),
        Box::new(move || demoter.engine.demote_all()),
        Box::new(move || assert!(keeper.engine.checkpoint(), "nothing is in the way")),
        Box::new(move || {
            let caller = deleter.caller("tasks");
            assert_eq!(deleter.number(&caller, "DEL gone"), 1, "deleted once");
        }),
    ]);
    assert_eq!((store.number(&caller, "GET k"), store.number(&caller, "DBSIZE")), (3, 1));
    assert_eq!(numbers_on(&disk.image(), ["k", "gone"]), [3, 0], "after a power cut too");
}

/// So short a log has segments that few large values fill.
const LOG_BYTES: u64 = 4 << 20;

fn trims() {
    let disk = Meeting::new();
    let short = Some(disk.disk());
    let store = Arc::new(Store::open_with(short, |settings| settings.log_bytes = LOG_BYTES));
    // The log begins with the first write.
    assert_eq!(store.number(&store.caller("tasks"), "INCR first"), 1);
    let (writer, keeper) = (Arc::clone(&store), Arc::clone(&store));
    together(vec![
        Box::new(move || {
            let (caller, value) = (writer.caller("tasks"), "v".repeat(400 << 10));
            for number in 1..=6 {
                assert_eq!(writer.say(&caller, 0, &format!("SET large {number}{value}")), Some(Reply::Ok));
                assert_eq!(writer.number(&caller, &format!("INCR k{number}")), 1);
            }
        }),
        Box::new(move || assert!((0..2).all(|_| keeper.engine.checkpoint()), "nothing is in the way")),
    ]);
    let numbers = numbers_on(&disk.image(), ["k1", "k2", "k3", "k4", "k5", "k6"]);
    assert_eq!(numbers, [1; 6], "what the log has lost the tier has");
}

/// Memory for a few of the values that are written.
const SCARCE_BYTES: u64 = 128 << 10;

fn is_held() {
    let store = Arc::new(Store::open_with(Some(Meeting::new().disk()), |settings| {
        (settings.background, settings.max_memory) = (true, SCARCE_BYTES);
    }));
    let writer = |name: &'static str| -> Box<dyn FnOnce() + Send> {
        let store = Arc::clone(&store);
        Box::new(move || {
            let caller = store.caller("cache");
            let value = "v".repeat(32 << 10);
            for number in 0..6 {
                let answer = store.say(&caller, 0, &format!("SET {name}{number} {value}"));
                assert_eq!(answer, Some(Reply::Ok), "who is held goes on");
            }
        })
    };
    let parking = Arc::clone(&store);
    together(vec![
        writer("a"),
        writer("b"),
        Box::new(move || {
            for _ in 0..3 {
                let (tell, told) = channel();
                parking.engine.when_room(Box::new(move || tell.send(()).expect("somebody listens")));
                told.recv().expect("whoever is parked is told");
                assert!(told.recv().is_err(), "once");
            }
        }),
    ]);
    let caller = store.caller("cache");
    assert_eq!(store.number(&caller, "DBSIZE"), 12, "everything is somewhere");
}

#[test]
fn whoever_is_held_for_lack_of_memory_goes_on() {
    println!("{}", schedules("moves::whoever_is_held_for_lack_of_memory_goes_on", 2000, is_held));
}

#[test]
fn an_entry_is_in_one_place_whoever_moves_it() {
    println!("{}", schedules("moves::an_entry_is_in_one_place_whoever_moves_it", 5000, departs));
}

#[test]
fn a_log_is_trimmed_of_nothing_that_is_needed() {
    println!("{}", schedules("moves::a_log_is_trimmed_of_nothing_that_is_needed", 300, trims));
}

#[test]
fn a_checkpoint_knows_what_the_log_lets_go() {
    println!("{}", schedules("moves::a_checkpoint_knows_what_the_log_lets_go", 100, checkpoints));
}
