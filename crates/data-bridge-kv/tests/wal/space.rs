//! A disk that is full: records are refused before they are made, first those that free nothing, and taken again when
//! there is space.

use data_bridge_kv::wal::{Refusal, WalPolicy};
use data_bridge_kv_testkit::disk::FaultyDisk;

use crate::rig::{Rig, head, image, policy};

fn used(disk: &FaultyDisk) -> u64 {
    image(disk).values().map(|bytes| bytes.len() as u64).sum()
}

/// Writes small records as long as they are admitted; how many were.
fn write(rig: &Rig, frees: bool) -> usize {
    for count in 0..10_000 {
        rig.clock.advance(10);
        rig.wal.step();
        if let Err(refusal) = rig.wal.admit(frees) {
            assert_eq!(refusal, Refusal::Full);
            return count;
        }
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
        assert!(rig.wal.stats().is_short_of_space && rig.wal.has_room());
        deletes += write(&rig, true);
        assert_eq!(rig.wal.failure(), None, "capacity {capacity}");
        // Not enough to end it, then enough.
        disk.set_capacity(Some(used(&disk) + 1000));
        rig.clock.advance(1000);
        rig.wal.step();
        assert_eq!(rig.wal.admit(false), Err(Refusal::Full));
        disk.set_capacity(Some(used(&disk) + 40_000));
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
    disk.set_capacity(Some(used(&disk) + 50_000));
    assert_eq!(rig.wal.admit_bytes(false, 100), Ok(()));
    assert_eq!(rig.wal.admit_bytes(false, 20_000), Ok(()));
    assert_eq!(rig.wal.admit_bytes(false, 60_000), Err(Refusal::Full));
    assert_eq!(rig.wal.admit(false), Ok(()), "small ones go on");
}
