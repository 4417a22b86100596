//! Many threads append while the log's own thread writes: whatever was acknowledged is on disk at that moment.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread;

use data_bridge_kv::SystemClock;
use data_bridge_kv::wal::{NewRecord, Refusal, Wal, WalPolicy};
use data_bridge_kv_model::{Error, ErrorKind as KvError};
use data_bridge_kv_testkit::disk::{Fault, FaultyDisk};

pub const NEW: NewRecord = NewRecord { namespace: 1, generation: 2, kind: 3 };

fn policy() -> WalPolicy {
    WalPolicy { segment_bytes: 32_768, backlog_bytes: 4096, sync_every_ms: 20, fingerprint: 5 }
}

pub fn open(disk: &FaultyDisk) -> (Arc<Wal>, Vec<Vec<u8>>) {
    let mut found = Vec::new();
    let clock = Arc::new(SystemClock::new());
    let (wal, _) = Wal::open(Arc::new(disk.clone()), clock, policy(), &mut |_, record| {
        found.push(record.payload.to_vec());
        Ok(())
    })
    .unwrap();
    (Arc::new(wal), found)
}

/// The acknowledged records of each thread are a prefix of what it wrote, and at least what it knew of.
#[test]
fn an_image_taken_at_any_time_has_what_was_acknowledged() {
    const THREADS: usize = 64;
    const EACH: u64 = 40;
    /// So many before the second half is written.
    const IMAGES: u64 = 4;
    let disk = FaultyDisk::new();
    let (wal, _) = open(&disk);
    wal.start().unwrap();
    let known: Vec<AtomicU64> = (0..THREADS).map(|_| AtomicU64::new(0)).collect();
    let (left, images) = (AtomicUsize::new(THREADS), AtomicU64::new(0));
    thread::scope(|scope| {
        for (thread, known) in known.iter().enumerate() {
            let (wal, left, images) = (&wal, &left, &images);
            scope.spawn(move || {
                for n in 1..=EACH {
                    while n > EACH / 2 && images.load(SeqCst) < IMAGES {
                        thread::yield_now();
                    }
                    wal.wait_room(0);
                    let payload = format!("{thread} {n} {}", "x".repeat(n as usize * 3 % 100));
                    let _room = wal.reserve(false, payload.len()).unwrap();
                    let lsn = wal.append(NEW, payload.as_bytes(), n % 2 == 0);
                    wal.wait_durable(lsn).unwrap();
                    known.store(n, SeqCst);
                }
                left.fetch_sub(1, SeqCst);
            });
        }
        while left.load(SeqCst) > 0 {
            let least: Vec<u64> = known.iter().map(|known| known.load(SeqCst)).collect();
            let (_, found) = open(&disk.crash_image(images.load(SeqCst)));
            let mut counts = vec![0; THREADS];
            for record in &found {
                let text = String::from_utf8(record.clone()).unwrap();
                let mut words = text.split(' ').map(|word| word.parse::<u64>().unwrap_or(0));
                let (thread, n) = (words.next().unwrap() as usize, words.next().unwrap());
                counts[thread] += 1;
                assert_eq!(counts[thread], n, "in order");
            }
            assert!(counts.iter().zip(&least).all(|(found, known)| found >= known), "{counts:?} {least:?}");
            images.fetch_add(1, SeqCst);
        }
    });
    let stats = wal.stats();
    println!("{} images, {:.1} records per sync", images.load(SeqCst), stats.records_per_sync());
    assert_eq!((stats.records, wal.durable()), (THREADS as u64 * EACH, THREADS as u64 * EACH));
    wal.close();
    assert_eq!(open(&disk).1.len(), THREADS * EACH as usize);
}

#[test]
fn whoever_waits_is_told_once_also_when_the_disk_fails_or_the_log_is_closed() {
    for round in 0..60_u64 {
        let disk = FaultyDisk::new();
        let (wal, _) = open(&disk);
        wal.start().unwrap();
        if round % 2 == 0 {
            let at = disk.operations() + round;
            disk.set_fault(Some(Fault { at, error: ErrorKind::Other, sticky: round % 4 == 0 }));
        }
        let (good, bad, asked) =
            (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !stop.load(SeqCst) && asked.load(SeqCst) < 400 {
                        wal.wait_room(0);
                        let _room = match wal.reserve(false, b"payload".len()) {
                            Ok(room) => room,
                            // A disk that goes on failing never has space again.
                            Err(Refusal::Full) if round % 4 == 0 => break,
                            Err(Refusal::Full) => continue,
                            Err(_) => break,
                        };
                        asked.fetch_add(1, SeqCst);
                        let lsn = wal.append(NEW, b"payload", false);
                        let (good, bad) = (Arc::clone(&good), Arc::clone(&bad));
                        wal.when_durable(
                            lsn,
                            Box::new(move |told| {
                                if told.is_ok() { &good } else { &bad }.fetch_add(1, SeqCst);
                                if let Err(failure) = told {
                                    let kind = match failure.is_end {
                                        true => KvError::Closed,
                                        false => KvError::Durability,
                                    };
                                    assert_eq!(Error::from(failure).kind(), kind);
                                }
                            }),
                        );
                    }
                });
            }
            if round % 4 == 1 {
                wal.close();
            }
        });
        stop.store(true, SeqCst);
        wal.close();
        wal.close();
        assert_eq!(good.load(SeqCst) + bad.load(SeqCst), asked.load(SeqCst), "round {round}");
        if wal.failure().is_none() && round % 4 != 1 {
            assert_eq!(bad.load(SeqCst), 0, "round {round}");
        }
    }
}

/// Whoever waits for room while the disk gets full is woken, to be refused.
#[test]
fn waiting_for_room_ends_when_the_disk_is_full() {
    for round in 0..20 {
        let disk = FaultyDisk::new();
        let (wal, _) = open(&disk);
        wal.start().unwrap();
        let mut appended = 0;
        thread::scope(|scope| {
            let full = scope.spawn(|| {
                loop {
                    wal.wait_room(0);
                    match wal.reserve(false, 100) {
                        Ok(_room) => drop(wal.append(NEW, &[7; 100], false)),
                        Err(refusal) => break refusal,
                    }
                }
            });
            while wal.last() < 250 + round {
                thread::yield_now();
            }
            disk.set_capacity(Some(0));
            assert_eq!(full.join().unwrap(), Refusal::Full);
            appended = wal.last();
        });
        wal.close();
        assert_eq!((wal.failure(), wal.durable()), (None, appended));
    }
}

/// What nobody waits for is written and synced by itself.
#[test]
fn what_nobody_waits_for_becomes_durable() {
    let disk = FaultyDisk::new();
    let (wal, _) = open(&disk);
    wal.start().unwrap();
    let lsn = wal.append(NEW, b"payload", false);
    while wal.durable() < lsn {
        thread::yield_now();
    }
    assert_eq!(open(&disk.crash_image(1)).1.len(), 1);
    wal.close();
}

#[test]
fn a_callback_that_panics_is_a_failure_of_the_log() {
    let disk = FaultyDisk::new();
    let (wal, _) = open(&disk);
    wal.start().unwrap();
    let lsn = wal.append(NEW, b"payload", false);
    wal.when_durable(lsn, Box::new(|_| panic!("a callback that panics: this is part of the test")));
    let later = loop {
        let lsn = wal.append(NEW, b"payload", false);
        if wal.failure().is_some() {
            break lsn;
        }
        thread::yield_now();
    };
    assert!(wal.wait_durable(later).is_err() && wal.admit(true).is_err());
    wal.close();
}
