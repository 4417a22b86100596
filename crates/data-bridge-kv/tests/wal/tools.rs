//! What people are shown of a log, and how they give up a part of it.

use data_bridge_kv::disk::Disk;
use data_bridge_kv::wal::{Line, Lsn, OpenError, dump, repair, verify};
use data_bridge_kv_testkit::disk::FaultyDisk;

use crate::rig::{Rig, disk_of, image, payload, policy};

/// The LSNs that a dump shows, and how many bytes it can't read.
fn dumped(disk: &FaultyDisk) -> (Vec<Lsn>, u64) {
    let (mut lsns, mut unread) = (Vec::new(), 0);
    dump(disk, |line| match line {
        Line::Record { lsn, record, .. } => {
            assert_eq!(record.payload, payload(lsn, record.head.generation));
            lsns.push(lsn);
        }
        Line::Rest { bytes, .. } => unread += bytes,
        Line::Marks { .. } | Line::Segment { .. } | Line::Claim { .. } => {}
    })
    .expect("a dump takes what it finds");
    (lsns, unread)
}

fn refusal(disk: &FaultyDisk) -> (Lsn, Lsn) {
    match Rig::open(disk, policy()) {
        Err(OpenError::Damaged { from, to, .. }) => (from, to),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it is not damaged"),
    }
}

#[test]
fn a_whole_log_is_shown_and_found_whole() {
    let rig = Rig::new();
    rig.fill(40);
    rig.append(false);
    rig.wal.step();
    let before = image(&rig.disk);
    assert_eq!(dumped(&rig.disk), ((1..=41).collect(), 0));
    let mut segments = 0;
    let verified = verify(&rig.disk, |file, bytes, all| {
        assert!(file.starts_with("log-0") && (1..=all).contains(&bytes));
        segments += 1;
    })
    .unwrap();
    assert_eq!((verified.first, verified.last, verified.unfinished), (1, 41, 0));
    assert!((40..=41).contains(&verified.watermark) && !verified.was_closed);
    assert_eq!((verified.segments, verified.bytes), (segments, rig.wal.bytes()));
    assert_eq!(image(&rig.disk), before, "nothing is changed");
    rig.wal.close();
    assert!(verify(&rig.disk, |_, _, _| {}).unwrap().was_closed);
}

/// Wherever the damage is: what is before it can be kept, no more is promised, and what was given up does not come back.
#[test]
fn a_damaged_log_opens_again_once_the_loss_is_accepted() {
    let rig = Rig::new();
    rig.fill(60);
    let whole = disk_of(&image(&rig.disk));
    let mut repaired = 0;
    for (name, bytes) in image(&rig.disk).iter().filter(|(name, _)| name.starts_with("log-0")) {
        for at in (0..bytes.len()).step_by(97).filter(|at| bytes[*at] != 0) {
            let disk = whole.crash_image(0);
            let file = disk.open(name).unwrap();
            file.write_at(&[bytes[at] ^ 4], at as u64).unwrap();
            file.sync_data().unwrap();
            let Err(OpenError::Damaged { from, to, .. }) = verify(&disk, |_, _, _| {}) else { continue };
            assert_eq!(refusal(&disk), (from, to));
            let Err(OpenError::Damaged { from: first, .. }) = repair(&disk, from) else {
                panic!("a record that can't be read can't be kept");
            };
            assert_eq!(first, from);
            let unread = dumped(&disk).1;
            assert!(unread > 0);
            let kept = first - 1;
            let done = repair(&disk, kept).unwrap();
            assert!(done.last == kept && !done.cuts.is_empty());
            assert!(
                done.cuts.iter().all(|cut| cut.kept_in.as_ref().is_some_and(|name| disk.open(name).is_ok()))
            );
            let opened = Rig::open_as(&disk.crash_image(at as u64), policy(), 1).unwrap();
            assert_eq!((opened.found.len() as u64, opened.recovered.last), (kept, kept));
            opened.fill(3);
            let again = Rig::open(&opened.disk, policy()).unwrap();
            assert_eq!(again.found.len() as u64, kept + 3);
            assert!(again.found[kept as usize..].iter().all(|life| *life == 1));
            repaired += 1;
        }
    }
    println!("{repaired} repaired");
    assert!(repaired > 100);
}

#[test]
fn a_log_without_its_watermark_loses_nothing_when_that_is_accepted() {
    let rig = Rig::new();
    rig.fill(60);
    rig.wal.trim(40).unwrap();
    let disk = disk_of(&image(&rig.disk));
    let first = Rig::open(&disk_of(&image(&rig.disk)), policy()).unwrap().recovered.first;
    let refused =
        |disk: &FaultyDisk, missing: &str| match (verify(disk, |_, _, _| {}), Rig::open(disk, policy())) {
            (Err(OpenError::Unmarked { .. }), Err(error @ OpenError::Unmarked { .. })) => {
                let text = error.to_string();
                assert!(
                    text.starts_with(&format!(
                        "{missing} is missing or damaged: the records {first} to 60 can be read"
                    )),
                    "{text}"
                );
                assert!(text.contains("--accept-loss-after 60`"), "{text}");
            }
            (verified, opened) => panic!("{verified:?} {:?}", opened.map(drop)),
        };
    for missing in ["log-watermark", "log-start"] {
        let disk = disk_of(&image(&rig.disk));
        disk.remove(missing).unwrap();
        refused(&disk, missing);
        assert_eq!(repair(&disk, 60).unwrap().cuts, []);
        assert_eq!(Rig::open(&disk, policy()).unwrap().found.len() as u64, 61 - first);
    }
    disk.remove("log-watermark").unwrap();
    disk.remove("log-start").unwrap();
    refused(&disk, "log-start");
    let too_early = repair(&disk, first - 2).expect_err("that was trimmed");
    assert!(
        too_early.to_string().starts_with(&format!("the log begins with record {first}:")),
        "{too_early}"
    );
    repair(&disk, 60).unwrap();
    let rig = Rig::open(&disk, policy()).unwrap();
    assert_eq!((rig.recovered.first, rig.recovered.last), (first, 60));
}

#[test]
fn a_repair_without_space_for_what_it_cuts_changes_nothing_for_good() {
    let rig = Rig::new();
    rig.fill(30);
    let disk = disk_of(&image(&rig.disk));
    disk.set_capacity(Some(0));
    let last = rig.wal.last() - 1;
    assert!(matches!(repair(&disk, last), Err(OpenError::Disk(_))));
    assert_eq!(Rig::open(&disk, policy()).unwrap().recovered.last, 30);
}
