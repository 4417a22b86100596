//! Each operation of the disk is the one that fails: nothing that was acknowledged is lost, and nothing is acknowledged
//! after a failure.

use std::io::ErrorKind;
use std::sync::Arc;

use data_bridge_kv::disk::Disk;
use data_bridge_kv::sync::real::Mutex;
use data_bridge_kv::wal::{Failure, Lsn, Refusal};
use data_bridge_kv_testkit::disk::{Fault, FaultyDisk};

use crate::rig::{Rig, policy};

/// What a script was told: by LSN, in order.
type Answers = Arc<Mutex<Vec<(Lsn, Result<(), Failure>)>>>;

/// Opens a log and writes about two hundred operations' worth. `None` if it did not open.
fn script(disk: &FaultyDisk) -> Option<(Rig, Answers)> {
    let rig = Rig::open(disk, policy()).ok()?;
    let answers = Answers::default();
    for round in 0..40 {
        for at in 0..3 {
            if rig.wal.admit(false).is_err() {
                continue;
            }
            let lsn = rig.append(false);
            if at == 1 {
                let answers = Arc::clone(&answers);
                rig.wal.when_durable(lsn, Box::new(move |told| answers.lock().push((lsn, told))));
            }
        }
        rig.wal.step();
        if round % 16 == 15 {
            drop(rig.wal.trim(rig.wal.durable() / 2));
        }
        rig.clock.advance(100);
    }
    rig.wal.close();
    Some((rig, answers))
}

#[test]
fn each_operation_fails_once_or_for_good() {
    let whole = FaultyDisk::new();
    let (_, answers) = script(&whole).expect("nothing fails");
    assert_eq!(answers.lock().len(), 40);
    assert!(answers.lock().iter().all(|(_, told)| told.is_ok()));
    let operations = whole.operations();
    assert!(operations > 200, "{operations}");
    let (mut runs, mut failures, mut survived, mut unopened) = (0, 0, 0, 0);
    for at in 0..operations {
        for error in [ErrorKind::Other, ErrorKind::StorageFull, ErrorKind::Interrupted] {
            for sticky in [false, true] {
                let disk = FaultyDisk::new();
                disk.set_fault(Some(Fault { at, error, sticky }));
                let ran = script(&disk);
                disk.set_fault(None);
                let acknowledged = match &ran {
                    Some((rig, answers)) => {
                        let acknowledged = check(rig, &answers.lock());
                        failures += usize::from(rig.wal.failure().is_some());
                        survived += usize::from(rig.wal.failure().is_none());
                        acknowledged
                    }
                    None => {
                        unopened += 1;
                        0
                    }
                };
                // After a power cut, after a restart of the process, and after both.
                for disk in [disk.crash_image(at), disk.clone(), disk.crash_image(at + 1)] {
                    let again = Rig::open(&disk, policy())
                        .unwrap_or_else(|refused| panic!("operation {at}, {error}, {sticky}: {refused}"));
                    assert!(again.recovered.last >= acknowledged, "operation {at}, {error}, {sticky}");
                    again.fill(2);
                }
                runs += 1;
            }
        }
    }
    println!("{runs} runs: {failures} failed, {survived} went on, {unopened} did not open");
    assert!(failures > 500 && survived > 50 && unopened > 50);
}

/// Everybody was told once, in order, and nothing good after something bad; answers the last LSN that was acknowledged.
fn check(rig: &Rig, answers: &[(Lsn, Result<(), Failure>)]) -> Lsn {
    assert!(answers.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, and once");
    let good = answers.iter().take_while(|(_, told)| told.is_ok()).count();
    assert!(answers[good..].iter().all(|(_, told)| told.is_err()), "nothing is acknowledged after a failure");
    let acknowledged = good.checked_sub(1).map_or(0, |last| answers[last].0);
    assert!(acknowledged <= rig.wal.durable());
    assert!(good == answers.len() || rig.wal.failure().is_some(), "nothing but a failure is told as one");
    acknowledged
}

/// The next sync would succeed, without the data.
#[test]
fn a_sync_that_failed_is_not_tried_again() {
    let rig = Rig::new();
    rig.fill(5);
    while rig.wal.step() {}
    let lsn = rig.append(true);
    // The write, then the sync.
    rig.disk.set_fault(Some(Fault { at: rig.disk.operations() + 1, error: ErrorKind::Other, sticky: false }));
    let failure = rig.wal.wait_durable(lsn).expect_err("the sync failed");
    assert!(
        failure.to_string().starts_with("the log failed, and is durable up to record 5 only"),
        "{failure}"
    );
    let operations = rig.disk.operations();
    let later = rig.append(true);
    assert_eq!(rig.wal.wait_durable(later), Err(failure.clone()));
    rig.clock.advance(10_000);
    assert!(!rig.wal.step());
    assert_eq!(rig.wal.admit(true), Err(Refusal::Failed(failure.clone())));
    assert!(rig.wal.has_room(0) && rig.wal.trim(3).is_err());
    rig.wal.close();
    assert_eq!(rig.disk.operations(), operations, "nothing is written after a failure");
    assert_eq!((rig.wal.durable(), rig.wal.failure()), (5, Some(failure)));
    // A restart finds the record in the page cache, and makes it last before it says so.
    let again = Rig::open(&rig.disk, policy()).unwrap();
    assert_eq!(again.recovered.last, 6);
    for seed in 0..50 {
        assert_eq!(
            Rig::open(&rig.disk.crash_image(seed), policy()).unwrap().recovered.last,
            6,
            "seed {seed}"
        );
    }
}

/// The sync of the start failed, which only the process knew that trimmed; the next one read the new start from the page cache,
/// removed what was before it, and ended; then the power went, and the old start asked for what was gone.
#[test]
fn segments_go_only_once_the_start_lasts() {
    let mut removed = 0;
    for at in 0..80 {
        let rig = Rig::new();
        rig.fill(60);
        while rig.wal.step() {}
        let segments = rig.disk.list().unwrap().len();
        // Two writes, then the sync.
        rig.disk.set_fault(Some(Fault {
            at: rig.disk.operations() + 2,
            error: ErrorKind::Other,
            sticky: false,
        }));
        assert!(rig.wal.trim(40).is_err() && rig.disk.list().unwrap().len() == segments);
        rig.disk.set_fault(Some(Fault {
            at: rig.disk.operations() + at,
            error: ErrorKind::Other,
            sticky: true,
        }));
        let opened = Rig::open(&rig.disk, policy());
        rig.disk.set_fault(None);
        removed += usize::from(opened.is_err() && rig.disk.list().unwrap().len() < segments);
        for seed in 0..10 {
            let again = Rig::open(&rig.disk.crash_image(seed), policy()).unwrap();
            assert_eq!(again.recovered.last, 60, "operation {at}");
        }
    }
    assert!(removed > 3, "{removed}");
}
