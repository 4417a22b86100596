//! A disk that is full: records are refused before they are made, first those that free nothing, and taken again when
//! there is space.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use data_bridge_kv::wal::{Refusal, WalPolicy};
use data_bridge_kv_testkit::disk::FaultyDisk;
use data_bridge_kv_testkit::random::Random;

use crate::rig::{Rig, disk_of, head, image, policy};

/// Writes small records as long as they are admitted; how many were.
fn write(rig: &Rig, frees: bool) -> usize {
    for count in 0..10_000 {
        rig.clock.advance(10);
        rig.wal.step();
        let _room = match rig.wal.reserve(frees, 20) {
            Ok(room) => room,
            Err(refusal) => {
                assert_eq!(refusal, Refusal::Full);
                return count;
            }
        };
        let lsn = rig.wal.append(head(0, 0), &[7; 20], true);
        rig.wal.wait_durable(lsn).expect("what is admitted is written");
    }
    panic!("the disk is never full");
}

fn open(disk: &FaultyDisk) -> Rig {
    let policy = WalPolicy { segment_bytes: 16_384, ..policy() };
    let clock = std::sync::Arc::new(data_bridge_kv::ManualClock::new(1 << 40));
    let disk = disk.clone();
    let opened = data_bridge_kv::wal::Wal::open(
        std::sync::Arc::new(disk.clone()),
        std::sync::Arc::clone(&clock) as _,
        policy,
        &mut |_, _| Ok(()),
    );
    let (wal, recovered) = opened.expect("a full disk does not keep a log from opening");
    Rig { disk, clock, wal: std::sync::Arc::new(wal), recovered, found: Vec::new(), life: 0 }
}

#[test]
fn a_full_disk_refuses_records_before_it_fails() {
    let (mut refused, mut deletes) = (0, 0);
    for capacity in (20_000..200_000).step_by(1111) {
        let disk = FaultyDisk::new();
        disk.set_capacity(Some(capacity));
        let rig = open(&disk);
        write(&rig, false);
        refused += 1;
        assert!(rig.wal.stats().is_short_of_space && rig.wal.has_room(0));
        deletes += write(&rig, true);
        assert_eq!(rig.wal.failure(), None, "capacity {capacity}");
        // Not enough to end it, then enough.
        disk.set_capacity(Some(disk.used() + 1000));
        rig.clock.advance(1000);
        rig.wal.step();
        assert_eq!(rig.wal.admit(false), Err(Refusal::Full));
        disk.set_capacity(Some(disk.used() + 40_000));
        rig.clock.advance(1000);
        while rig.wal.step() {}
        assert_eq!(rig.wal.admit(false), Ok(()), "capacity {capacity}");
        assert!(write(&rig, false) > 100);
        let last = rig.wal.last();
        rig.wal.close();
        assert_eq!(rig.wal.failure(), None);
        assert_eq!(open(&disk).recovered.last, last);
    }
    println!("{refused} disks, {deletes} deletes");
    assert!(deletes > refused * 5);
}

#[test]
fn trimming_is_what_frees_space() {
    let disk = FaultyDisk::new();
    disk.set_capacity(Some(100_000));
    let rig = open(&disk);
    for _ in 0..5 {
        assert!(write(&rig, false) > 200);
        rig.wal.trim(rig.wal.durable()).unwrap();
        rig.clock.advance(1000);
        while rig.wal.step() {}
    }
}

#[test]
fn a_log_opens_on_a_full_disk() {
    let disk = FaultyDisk::new();
    let rig = open(&disk);
    rig.fill(3);
    rig.wal.close();
    disk.set_capacity(Some(0));
    let rig = open(&disk);
    assert_eq!(rig.recovered.last, 3);
    assert_eq!(rig.wal.admit(true), Err(Refusal::Full));
    assert!(rig.wal.stats().is_short_of_space);
    disk.set_capacity(None);
    rig.clock.advance(1000);
    while rig.wal.step() {}
    assert_eq!(rig.wal.admit(false), Ok(()));
    rig.fill(1);
    assert_eq!(open(&disk).recovered.last, 4);
}

/// What is left of the log on a full disk serves deletes also when it is opened there again, after a kill as after an end in good
/// order, and nobody else may get it in between.
#[test]
fn a_log_that_ended_on_a_full_disk_goes_on_there_with_deletes() {
    for capacity in (40_000..200_000).step_by(3333) {
        for is_killed in [false, true] {
            let disk = FaultyDisk::new();
            disk.set_capacity(Some(capacity));
            let rig = open(&disk);
            write(&rig, false);
            let last = rig.wal.last();
            let disk = if is_killed { disk.crash_image(capacity) } else { disk };
            rig.wal.close();
            // Others take all that is free.
            disk.set_capacity(Some(disk.used()));
            let rig = open(&disk);
            assert_eq!(rig.recovered.last, last, "capacity {capacity}");
            assert_eq!(write(&rig, false), 0, "capacity {capacity}");
            assert!(write(&rig, true) >= 3, "capacity {capacity}, killed: {is_killed}");
            let last = rig.wal.last();
            rig.wal.close();
            assert_eq!(rig.wal.failure(), None);
            disk.set_capacity(None);
            let rig = open(&disk);
            assert_eq!(rig.recovered.last, last);
            rig.fill(1);
        }
    }
}

#[test]
fn a_log_with_space_leaves_nothing_unused_behind() {
    let disk = FaultyDisk::new();
    let rig = open(&disk);
    rig.fill(3);
    let (before, runway) = (disk.used(), rig.wal.stats().runway);
    rig.wal.close();
    assert!(disk.used() + runway < before + 100, "{} of {before} bytes", disk.used());
}

#[test]
fn a_record_larger_than_a_segment_is_written_like_any_other() {
    let disk = FaultyDisk::new();
    let rig = open(&disk);
    let large = |n: u8| vec![n; 100_000 + usize::from(n)];
    let mut next = 1;
    let mut append = |bytes: &[u8]| {
        let lsn = rig.wal.append(head(0, 0), bytes, true);
        assert_eq!(lsn, next);
        next += 1;
        rig.wal.wait_durable(lsn).unwrap();
    };
    append(b"small");
    append(&large(1));
    append(&large(2));
    append(b"small");
    rig.wal.close();
    let mut found = Vec::new();
    let clock = std::sync::Arc::clone(&rig.clock);
    data_bridge_kv::wal::Wal::open(std::sync::Arc::new(disk), clock, *rig_policy(), &mut |_, record| {
        found.push(record.payload.to_vec());
        Ok(())
    })
    .unwrap();
    assert_eq!(found, [b"small".to_vec(), large(1), large(2), b"small".to_vec()]);
}

fn rig_policy() -> &'static WalPolicy {
    &WalPolicy { segment_bytes: 16_384, backlog_bytes: 1 << 20, sync_every_ms: 1000, fingerprint: 77 }
}

#[test]
fn many_bytes_are_asked_of_the_disk() {
    let disk = FaultyDisk::new();
    let rig = open(&disk);
    disk.set_capacity(Some(disk.used() + 50_000));
    let reserve = |bytes| rig.wal.reserve(false, bytes).map(drop);
    assert_eq!(reserve(100), Ok(()));
    assert_eq!(reserve(20_000), Ok(()));
    assert_eq!(reserve(60_000), Err(Refusal::Full));
    assert_eq!(reserve(100), Ok(()), "small ones go on");
}

/// The zeros of a whole segment take the disk a while: who waits for room gets what is there of them as soon as that is worth it.
/// That makes neither this segment nor those to come short for good: the next one would wait the sooner.
#[test]
fn who_waits_for_room_does_not_wait_for_a_long_segment() {
    const MIB: u64 = 1 << 20;
    let policy = WalPolicy { segment_bytes: 64 * MIB, ..policy() };
    let rig = Rig::open(&FaultyDisk::new(), policy).unwrap();
    assert_eq!(rig.wal.stats().runway / MIB, 7, "the first is short");
    let mut promises = Vec::new();
    while rig.wal.stats().runway < 8 * MIB {
        promises.push(rig.wal.reserve(false, 60_000).unwrap());
    }
    assert_eq!(rig.wal.stats().runway / MIB, 15, "so is the one that somebody waits for");
    drop(promises);
    let append = || {
        rig.wal.append(head(0, 0), &vec![7; 5 << 20], false);
        while rig.wal.step() {}
        rig.wal.stats().runway / MIB
    };
    assert_eq!(append(), 2 + 16, "where nobody waits it becomes longer");
    assert_eq!(append(), 10 + 32, "and so does the next one");
}

/// Room is made with a sync: whoever waits for some makes it for those who wait beside him as well, as long as there is space.
#[test]
fn who_waits_for_room_makes_some_for_others() {
    const MIB: u64 = 1 << 20;
    let policy = WalPolicy { segment_bytes: 16 * MIB, ..policy() };
    let disk = FaultyDisk::new();
    let rig = Rig::open(&disk, policy).unwrap();
    let (mut promises, mut made) = (Vec::new(), BTreeSet::new());
    while rig.wal.stats().runway < 12 * MIB {
        promises.push(rig.wal.reserve(false, 10_000).unwrap());
        made.insert(rig.wal.stats().runway);
    }
    println!("{} times for {} records", made.len(), promises.len());
    assert!(made.len() < 10 && promises.len() > 500);
    disk.set_capacity(Some(disk.used() + 100_000));
    while rig.wal.try_reserve(false, 10_000).unwrap().map(|room| promises.push(room)).is_some() {}
    let more =
        (0..20).map_while(|_| rig.wal.reserve(false, 10_000).map(|room| promises.push(room)).ok()).count();
    assert!(more >= 9, "the last of the space is no less of use: {more}");
}

/// Where a whole segment has no room a short one has: nobody is refused, and nobody waits until it is tried again.
#[test]
fn little_space_makes_a_short_segment_at_once() {
    const SHORTEST: u64 = 16_384 / 8;
    let mut shortest = u64::MAX;
    for left in (0..40_000).step_by(777) {
        let disk = FaultyDisk::new();
        let rig = open(&disk);
        // Long enough that segments have their full length.
        for _ in 0..200 {
            rig.wal.wait_durable(rig.wal.append(head(0, 0), &[7; 500], true)).unwrap();
            while rig.wal.step() {}
        }
        let capacity = disk.used() + left;
        disk.set_capacity(Some(capacity));
        while rig.wal.reserve(false, 500).map(|_room| rig.wal.append(head(0, 0), &[7; 500], true)).is_ok() {
            while rig.wal.step() {}
        }
        let free = capacity - disk.used();
        assert!(free < 2 * SHORTEST, "{free} of {left} bytes were of no use");
        shortest = shortest.min(free);
    }
    println!("{shortest} bytes were left at best");
}

/// Lets everything be written and synced that can be.
fn settle(rig: &Rig) {
    for _ in 0..2 {
        while rig.wal.step() {}
        rig.clock.advance(1000);
    }
    while rig.wal.step() {}
}

/// Many records of any size are promised at once, more than there is space for: each that was promised is written, whatever
/// order they come in, and what frees space goes on.
#[test]
fn what_is_promised_is_written_and_the_rest_is_refused() {
    let (mut written, mut refused, mut deletes) = (0, 0, 0);
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let disk = FaultyDisk::new();
        disk.set_capacity(Some(30_000 + random.below(400_000) as u64));
        let rig = open(&disk);
        let mut promised = Vec::new();
        let mut is_full = false;
        while !is_full {
            for _ in 0..1 + random.below(12) {
                let size = [20, 300, 3000, 40_000, 150_000][random.below(5)];
                let size = random.below(size);
                match rig.wal.reserve(false, size) {
                    Ok(room) => promised.push((size, room)),
                    Err(refusal) => {
                        assert_eq!(refusal, Refusal::Full);
                        (is_full, refused) = (is_full || size < 20, refused + 1);
                    }
                }
            }
            while !promised.is_empty() {
                let (size, _room) = promised.swap_remove(random.below(promised.len()));
                rig.wal.append(head(0, 0), &vec![7; size], random.one_in(2));
                written += 1;
                if random.one_in(4) {
                    rig.wal.step();
                }
            }
            settle(&rig);
            assert_eq!((rig.wal.durable(), rig.wal.failure()), (rig.wal.last(), None), "seed {seed}");
        }
        deletes += write(&rig, true);
        let last = rig.wal.last();
        rig.wal.close();
        assert_eq!(rig.wal.failure(), None, "seed {seed}");
        assert_eq!(open(&disk).recovered.last, last);
    }
    println!("{written} written, {refused} refused, {deletes} deletes");
    assert!(written > 10_000 && refused > 1000 && deletes > 300 * 5);
}

/// What was made without room waits for it: the log does not fail, and what is on disk stays a part of what was written, up to
/// where it was said to be durable.
#[test]
fn what_has_no_room_waits_for_space() {
    let mut held = 0;
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let disk = FaultyDisk::new();
        let rig = Rig::open(&disk, policy()).unwrap();
        rig.fill(random.below(20));
        disk.set_capacity(Some(disk.used() + random.below(9000) as u64));
        for _ in 0..10 + random.below(40) {
            rig.append(random.one_in(2));
            if random.one_in(3) {
                rig.wal.step();
                rig.clock.advance(random.below(400) as u64);
            }
        }
        settle(&rig);
        let (durable, last) = (rig.wal.durable(), rig.wal.last());
        assert_eq!(rig.wal.failure(), None, "seed {seed}");
        if durable < last {
            held += 1;
            assert!(rig.wal.stats().is_short_of_space);
            assert_eq!(rig.wal.reserve(true, 1).map(drop), Err(Refusal::Full));
            rig.append(true);
        }
        let cut = Rig::open(&disk_of(&image(&disk.crash_image(seed))), policy()).unwrap();
        assert!((durable..=last).contains(&cut.recovered.last), "seed {seed}");
        disk.set_capacity(None);
        let last = rig.append(true);
        for _ in 0..10 {
            // To look in between does not put off when it is tried again.
            rig.clock.advance(100);
            while rig.wal.step() {}
        }
        assert_eq!((rig.wal.durable(), rig.wal.failure()), (last, None), "seed {seed}");
        rig.wal.close();
        assert_eq!(Rig::open(&disk, policy()).unwrap().recovered.last, last);
    }
    println!("{held} of 200 logs were held");
    assert!(held > 100);
}

/// A record counts beside its promise until its command has ended: that is no reason to refuse a delete.
#[test]
fn a_delete_is_not_refused_for_what_counts_twice() {
    for _ in 0..30 {
        let disk = FaultyDisk::new();
        disk.set_capacity(Some(200_000));
        let rig = open(&disk);
        let fits = |hundreds: &usize| rig.wal.try_reserve(false, hundreds * 100).unwrap().is_some();
        let size = (1..).take_while(fits).count() * 100 - 100;
        let room = rig.wal.reserve(false, size).unwrap();
        rig.wal.append(head(0, 0), &vec![7; size], false);
        assert!(rig.wal.try_reserve(true, 20).unwrap().is_none(), "it counts twice");
        disk.set_capacity(Some(disk.used()));
        let is_asking = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let delete = scope.spawn(|| {
                is_asking.store(true, SeqCst);
                rig.wal.reserve(true, 20).map(drop)
            });
            // It comes to that before the room is given back, in some of the rounds.
            while !is_asking.load(SeqCst) {
                std::thread::yield_now();
            }
            (0..5).for_each(|_| std::thread::yield_now());
            drop(room);
            assert_eq!(delete.join().unwrap(), Ok(()));
        });
    }
}

/// Whoever makes space may not wait for it.
#[test]
fn who_makes_space_is_told_that_there_is_none() {
    let rig = Rig::new();
    rig.disk.set_capacity(Some(rig.disk.used()));
    let first = rig.append(true);
    assert!(rig.wal.wait_durable_with_space(first), "there is some left");
    for _ in 0..100 {
        rig.append(true);
    }
    let last = rig.wal.last();
    assert!(!rig.wal.wait_durable_with_space(last) && rig.wal.failure().is_none());
    rig.wal.start().unwrap();
    assert!(!rig.wal.wait_durable_with_space(last), "nor with a thread of its own");
    rig.disk.set_capacity(None);
    rig.clock.advance(1000);
    while !rig.wal.wait_durable_with_space(last) {
        std::thread::yield_now();
    }
    assert_eq!(rig.wal.durable(), last);
    rig.wal.close();
}

/// Large records that wait to be written hold others back, but small ones only once those are many as well.
#[test]
fn small_records_pass_large_ones() {
    let rig = Rig::new();
    let (small, large) = ([7; 1000], vec![7; 2 << 20]);
    rig.wal.append(head(0, 0), &large, false);
    assert!(!rig.wal.has_room(large.len()));
    let fill = || {
        let mut count = 0;
        while rig.wal.has_room(small.len()) {
            rig.wal.append(head(0, 0), &small, false);
            count += 1;
            assert!(count < 5000, "there is no limit");
        }
        count
    };
    let passed = fill();
    assert!((200..300).contains(&passed), "a quarter of what may wait: {passed}");
    settle(&rig);
    assert_eq!(rig.wal.durable(), rig.wal.last());
    assert!(rig.wal.has_room(large.len()));
    let alone = fill();
    assert!((1000..1100).contains(&alone), "without large ones all of it: {alone}");
    assert!(!rig.wal.has_room(large.len()));
    settle(&rig);
    assert!(rig.wal.has_room(large.len()) && rig.wal.failure().is_none());
}

/// Room for a large record is made together with some for small ones, which else would wait until that one is written.
#[test]
fn a_large_record_leaves_room_for_small_ones() {
    let rig = open(&FaultyDisk::new());
    let large = rig.wal.reserve(false, 200_000).unwrap();
    let small: Vec<_> = (0..10).map(|_| rig.wal.try_reserve(false, 100).unwrap()).collect();
    assert!(small.iter().all(Option::is_some));
    drop((large, small));
}

/// A file that can't be opened is no failure of the log: what was accepted waits, what was not is refused, and it goes on.
#[test]
fn a_log_that_may_open_no_more_files_waits() {
    let disk = FaultyDisk::new();
    let rig = open(&disk);
    disk.limit_open(Some(disk.open_files()));
    let refused = loop {
        rig.clock.advance(10);
        rig.wal.step();
        match rig.wal.reserve(false, 20) {
            Ok(_room) => rig.wal.append(head(0, 0), &[7; 20], true),
            Err(refusal) => break refusal,
        };
    };
    assert_eq!(refused, Refusal::Files);
    // What nobody asked for room for, more than there is.
    for _ in 0..100 {
        rig.wal.append(head(0, 0), &[7; 1000], true);
    }
    settle(&rig);
    assert!(rig.wal.durable() < rig.wal.last() && rig.wal.failure().is_none());
    assert_eq!(rig.wal.admit(true), Err(Refusal::Files));
    disk.limit_open(None);
    settle(&rig);
    assert_eq!((rig.wal.durable(), rig.wal.failure()), (rig.wal.last(), None));
    assert_eq!(rig.wal.admit(false), Ok(()));
    // A full disk is told from that.
    disk.set_capacity(Some(disk.used()));
    write(&rig, false);
    disk.set_capacity(None);
    let last = rig.wal.last();
    rig.wal.close();
    assert_eq!(open(&disk).recovered.last, last);
}
