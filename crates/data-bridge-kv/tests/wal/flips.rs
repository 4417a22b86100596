//! One bit of every byte of every file flipped: a refusal or the whole log, never a wrong record, never a silent loss of
//! what was known to be durable.

use data_bridge_kv::disk::Disk;
use data_bridge_kv::wal::OpenError;

use crate::rig::{Rig, disk_of, image, policy};

/// What became of the flips.
#[derive(Debug, Default)]
struct Outcomes {
    whole: u32,
    shorter: u32,
    damaged: u32,
}

/// Flips each byte's bit; at least so many records must be there where the log opens.
fn flip_all(rig: &Rig, least: u64) -> Outcomes {
    let (files, last) = (image(&rig.disk), rig.wal.last());
    let whole = disk_of(&files);
    let mut outcomes = Outcomes::default();
    for (name, bytes) in &files {
        for (at, byte) in bytes.iter().enumerate() {
            // Of what was never written a part will do.
            if bytes[at..].iter().take(64).all(|byte| *byte == 0) && at % 16 > 0 {
                continue;
            }
            let disk = whole.crash_image(0);
            let flipped = [byte ^ 1 << (at % 8)];
            disk.open(name).and_then(|file| file.write_at(&flipped, at as u64)).expect("it is there");
            match Rig::open(&disk, policy()) {
                Ok(found) if found.recovered.last == last => outcomes.whole += 1,
                Ok(found) => {
                    assert!(found.recovered.last >= least, "byte {at} of {name}: {:?}", found.recovered);
                    outcomes.shorter += 1;
                }
                Err(OpenError::Damaged { from, to, .. }) => {
                    assert!(from <= to && to <= last, "{from} to {to}");
                    outcomes.damaged += 1;
                }
                Err(other) => panic!("byte {at} of {name}: {other}"),
            }
        }
    }
    outcomes
}

#[test]
fn a_flip_in_what_is_durable_is_damage() {
    let rig = Rig::new();
    rig.fill(100);
    let stats = rig.wal.stats();
    // The front of a batch that stands at the very end of a segment says nothing that matters.
    let matters = (stats.bytes - stats.segments * 30) as u32;
    let outcomes = flip_all(&rig, 100);
    println!("{outcomes:?}");
    assert_eq!(outcomes.shorter, 0);
    assert!(outcomes.damaged >= matters && matters > 50_000, "{matters} {outcomes:?}");
    assert!(outcomes.whole > 1000, "flips of marks and zeros: {outcomes:?}");
}

#[test]
fn a_flip_in_a_closed_log_is_damage() {
    let rig = Rig::new();
    rig.fill(30);
    rig.append(false);
    rig.wal.close();
    let outcomes = flip_all(&rig, 31);
    println!("{outcomes:?}");
    // The very end only says that the log was closed, and the LSN up to which it was.
    assert!(outcomes.shorter == 0 && outcomes.damaged > 5000, "{outcomes:?}");
}

#[test]
fn a_flip_in_what_is_not_durable_looks_like_a_torn_end() {
    let rig = Rig::new();
    rig.fill(20);
    for _ in 0..10 {
        rig.append(false);
    }
    rig.wal.step();
    let durable = rig.wal.durable();
    assert!((20..30).contains(&durable));
    let outcomes = flip_all(&rig, durable);
    println!("{outcomes:?}");
    assert!(outcomes.shorter > 100 && outcomes.damaged > 2000, "{outcomes:?}");
}
