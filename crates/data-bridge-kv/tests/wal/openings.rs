//! Each operation of the disk fails while a log is opened that ends in what was not finished, while a log is shown or verified,
//! and while a damaged one gives up its end: whoever asked is told, and can ask again without having lost anything by it.

use std::io::ErrorKind;

use data_bridge_kv::disk::Disk;
use data_bridge_kv::wal::{Lsn, OpenError, dump, repair, verify};
use data_bridge_kv_testkit::disk::{Fault, FaultyDisk};

use crate::rig::{Rig, disk_of, image, policy};

const RECORDS: Lsn = 60;
/// So many records at least are before the damage.
const KEPT: Lsn = 20;
/// What stands behind the end.
const UNFINISHED: [u8; 40] = [7; 40];

/// The newest segment with records, and where it ends.
fn end_of(disk: &FaultyDisk) -> (String, u64) {
    let is_segment = |name: &String| name.len() == 20 && name.starts_with("log-0");
    let end_of = |(name, bytes): (String, Vec<u8>)| {
        let last = bytes.iter().rposition(|byte| *byte != 0)?;
        Some((name, last as u64 + 1))
    };
    let segments = image(disk).into_iter().rev().filter(|(name, _)| is_segment(name));
    segments.filter_map(end_of).next().unwrap()
}

fn whole() -> FaultyDisk {
    let rig = Rig::new();
    rig.fill(RECORDS as usize);
    disk_of(&image(&rig.disk))
}

fn change(disk: &FaultyDisk, name: &str, bytes: &[u8], at: u64) {
    let file = disk.open(name).unwrap();
    file.write_at(bytes, at).unwrap();
    file.sync_data().unwrap();
}

/// Runs `attempt` on copies of a disk on each of which another operation fails, in each way; `check` is shown how that ended,
/// with the disk whole again. Answers how many failed.
fn each_error<T>(
    disk: &FaultyDisk,
    attempt: impl Fn(&FaultyDisk) -> Result<T, OpenError>,
    check: impl Fn(&str, ErrorKind, Result<T, OpenError>, &FaultyDisk),
) -> u64 {
    let mut failed = 0;
    for (error, sticky) in
        [(ErrorKind::Other, false), (ErrorKind::Other, true), (ErrorKind::StorageFull, false)]
    {
        for at in 0.. {
            let disk = disk.crash_image(0);
            let first = disk.operations();
            disk.set_fault(Some(Fault { at: first + at, error, sticky }));
            let ended = attempt(&disk);
            disk.set_fault(None);
            if disk.operations() <= first + at {
                assert!(ended.is_ok());
                break;
            }
            check(&format!("operation {at}, {error}, sticky {sticky}"), error, ended, &disk);
            failed += 1;
        }
    }
    failed
}

fn is_told<T>(ended: &Result<T, OpenError>) -> bool {
    matches!(ended, Err(OpenError::Disk(_)))
}

#[test]
fn a_log_that_could_not_be_opened_can_be_later_and_what_it_cuts_off_is_kept() {
    let disk = whole();
    let (name, end) = end_of(&disk);
    change(&disk, &name, &UNFINISHED, end + 100);
    let failed = each_error(
        &disk,
        |disk| Rig::open(disk, policy()),
        |says, error, ended, disk| {
            assert!(is_told(&ended) || ended.is_ok(), "{says}");
            for disk in [disk.crash_image(0), disk.crash_image(1), disk.clone()] {
                let again = Rig::open(&disk, policy()).unwrap_or_else(|refused| panic!("{says}: {refused}"));
                assert_eq!((again.recovered.first, again.recovered.last), (1, RECORDS), "{says}");
                let holds = |bytes: &[u8]| bytes.windows(UNFINISHED.len()).any(|part| part == UNFINISHED);
                let is_kept = image(&disk).values().any(|bytes| holds(bytes));
                assert!(is_kept || error == ErrorKind::StorageFull, "{says}: it is not kept");
                again.fill(2);
            }
        },
    );
    println!("{failed} errors at opening");
    assert!(failed > 100, "{failed}");
}

#[test]
fn what_could_not_be_read_is_not_said_to_be_whole() {
    let disk = whole();
    let (name, end) = end_of(&disk);
    change(&disk, &name, &UNFINISHED, end + 100);
    let before = image(&disk);
    let is_refused = |says: &str, _, ended: Result<(), OpenError>, disk: &FaultyDisk| {
        assert!(is_told(&ended), "{says}");
        assert_eq!(image(disk), before, "{says}");
    };
    let verified = each_error(&disk, |disk| verify(disk, |_, _, _| {}).map(drop), is_refused);
    let shown = each_error(&disk, |disk| dump(disk, |_| {}), is_refused);
    println!("{verified} errors of a verification, {shown} of a dump");
    assert!(verified > 60 && shown > 60);
}

#[test]
fn a_repair_that_failed_can_be_done_again() {
    let disk = whole();
    let damage = (0..).map(|number| format!("log-{number:016x}")).find_map(|name| {
        let bytes = image(&disk).remove(&name)?;
        let at = bytes.len() / 2;
        let copy = disk.crash_image(0);
        change(&copy, &name, &[bytes[at] ^ 4], at as u64);
        let Err(OpenError::Damaged { from, .. }) = verify(&copy, |_, _, _| {}) else { return None };
        (from > KEPT).then_some((copy, from))
    });
    let (disk, from) = damage.unwrap();
    let kept = from - 1;
    let failed = each_error(
        &disk,
        |disk| repair(disk, kept),
        |says, _, ended, disk| {
            assert!(is_told(&ended) || ended.is_ok(), "{says}");
            for disk in [disk.crash_image(0), disk.crash_image(1), disk.clone()] {
                match Rig::open(&disk.crash_image(2), policy()) {
                    Ok(opened) => assert_eq!(opened.recovered.last, kept, "{says}"),
                    Err(OpenError::Damaged { .. } | OpenError::Unmarked { .. }) => {
                        assert!(ended.is_err(), "{says}: it is said to be done");
                    }
                    Err(other) => panic!("{says}: {other}"),
                }
                repair(&disk, kept).unwrap_or_else(|refused| panic!("{says}: {refused}"));
                let opened = Rig::open(&disk, policy()).unwrap();
                assert_eq!((opened.recovered.first, opened.recovered.last), (1, kept), "{says}");
            }
        },
    );
    println!("{failed} errors of a repair");
    assert!(failed > 60, "{failed}");
}
