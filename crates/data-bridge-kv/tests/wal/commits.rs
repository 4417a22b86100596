//! Whoever waits commits on its own thread, or has the log's thread do it.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

use data_bridge_kv::{Clock, SystemClock};
use data_bridge_kv_testkit::disk::{Fault, FaultyDisk};

use crate::threads::{NEW, open};

/// Milliseconds, for what takes none.
const PATIENCE: u64 = 60_000;

/// Most are committed by the threads that append, some by the log's own, and whatever was acknowledged is on disk.
#[test]
fn what_is_committed_by_many_is_acknowledged_once_and_there() {
    const THREADS: u64 = 8;
    const EACH: u64 = 200;
    let disk = FaultyDisk::new();
    let (wal, _) = open(&disk);
    wal.start().unwrap();
    let (told, here) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (wal, told, here) = (&wal, &told, &here);
            scope.spawn(move || {
                for n in 0..EACH {
                    wal.wait_room(0);
                    let lsn = wal.append(NEW, &[n as u8; 50], true);
                    if (n + thread) % 5 == 0 {
                        wal.leave_to_thread();
                    } else {
                        here.fetch_add(u64::from(wal.commit(lsn)), SeqCst);
                    }
                    let told = Arc::clone(told);
                    wal.when_durable(
                        lsn,
                        Box::new(move |outcome| {
                            told.fetch_add(u64::from(outcome.is_ok()), SeqCst);
                        }),
                    );
                    if n % 3 == 0 {
                        wal.wait_durable(lsn).unwrap();
                        assert!(wal.durable() >= lsn);
                    }
                }
            });
        }
    });
    wal.wait_durable(THREADS * EACH).unwrap();
    wal.close();
    assert_eq!(told.load(SeqCst), THREADS * EACH);
    println!("{} of {} were committed here", here.load(SeqCst), THREADS * EACH);
    assert_eq!(open(&disk).1.len() as u64, THREADS * EACH);
}

/// Without the log's thread in between: after a commit there is nothing to wait for.
#[test]
fn a_commit_here_is_durable_when_it_returns() {
    let disk = FaultyDisk::new();
    let (wal, _) = open(&disk);
    let lsn = wal.append(NEW, b"first", false);
    assert!(wal.commit(lsn), "also what nobody said was urgent");
    assert_eq!((wal.durable(), open(&disk.crash_image(1)).1.len()), (lsn, 1));
}

/// Records that are left to a committer which then does not come are written all the same, once somebody asks for them.
#[test]
fn what_is_left_to_a_committer_is_written_when_somebody_else_waits() {
    let (disk, clock) = (FaultyDisk::new(), SystemClock::new());
    let (wal, _) = open(&disk);
    wal.start().unwrap();
    for _ in 0..100 {
        let first = wal.append(NEW, b"payload", true);
        while !wal.commit(first) {}
        // Nobody is woken by this one.
        let lsn = wal.append(NEW, b"payload", true);
        wal.wait_durable(lsn).unwrap();
    }
    for _ in 0..100 {
        let first = wal.append(NEW, b"payload", true);
        while !wal.commit(first) {}
        let lsn = wal.append(NEW, b"payload", true);
        wal.leave_to_thread();
        let begun = clock.unix_ms();
        while wal.durable() < lsn {
            assert!(clock.unix_ms() - begun < PATIENCE, "nobody writes it");
            thread::yield_now();
        }
    }
    wal.close();
}

/// A store that is closed in good order loses nothing of what it only gathered.
#[test]
fn what_nobody_waited_for_is_there_after_a_close() {
    for has_thread in [false, true] {
        let disk = FaultyDisk::new();
        let (wal, _) = open(&disk);
        if has_thread {
            wal.start().unwrap();
        }
        for n in 0..20 {
            wal.append(NEW, &[n; 50], false);
        }
        wal.close();
        assert_eq!((wal.failure(), wal.durable()), (None, 20));
        assert_eq!(open(&disk.crash_image(1)).1.len(), 20);
    }
}

#[test]
fn a_commit_that_fails_is_the_end_of_the_log() {
    let disk = FaultyDisk::new();
    let (wal, _) = open(&disk);
    wal.start().unwrap();
    let first = wal.append(NEW, b"first", true);
    wal.wait_durable(first).unwrap();
    let lost = Arc::new(AtomicU64::new(0));
    let noted = Arc::clone(&lost);
    disk.set_fault(Some(Fault { at: disk.operations(), error: ErrorKind::Other, sticky: true }));
    let lsn = wal.append(NEW, b"second", true);
    assert!(!wal.commit(lsn));
    wal.when_durable(
        lsn,
        Box::new(move |outcome| {
            noted.fetch_add(u64::from(outcome.is_err()), SeqCst);
        }),
    );
    assert!(wal.wait_durable(lsn).is_err() && wal.failure().is_some());
    assert_eq!(lost.load(SeqCst), 1);
    assert!(!wal.commit(lsn));
    wal.close();
    assert_eq!(open(&disk.crash_image(1)).1.len(), 1);
}
