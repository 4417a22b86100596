//! What is left of a log when its end, a file or a name is missing.

use std::collections::BTreeSet;

use data_bridge_kv::disk::Disk;
use data_bridge_kv::record;
use data_bridge_kv::wal::{OpenError, WalPolicy, verify};
use data_bridge_kv_model::Error;

use crate::rig::{Image, Rig, disk_of, image, policy};

/// So large segments that one is enough.
const WIDE: WalPolicy =
    WalPolicy { segment_bytes: 1 << 20, backlog_bytes: 1 << 20, sync_every_ms: 1000, fingerprint: 77 };

/// The log's own records have kinds from here on.
const OWN_KINDS: u8 = 240;

/// The files of the segments, oldest first.
fn segments(image: &Image) -> Vec<String> {
    image.keys().filter(|name| name.len() == 20 && name.starts_with("log-0")).cloned().collect()
}

/// Where the records of a segment end.
fn record_ends(bytes: &[u8]) -> Vec<usize> {
    let (mut at, mut ends) = (0, Vec::new());
    while let Some(total) = bytes.get(at..).and_then(record::total_bytes) {
        let Some(item) = bytes.get(at..at + total).filter(|item| item[8..22] != [0; 14]) else { break };
        at += total;
        if item[21] < OWN_KINDS {
            ends.push(at);
        }
    }
    ends
}

fn refusal(disk: &Image) -> Option<(String, u64, u64)> {
    match Rig::open(&disk_of(disk), policy()) {
        Ok(_) => None,
        Err(OpenError::Damaged { file, from, to, .. }) => Some((file, from, to)),
        Err(OpenError::Unmarked { file, first, last }) => Some((file, first, last)),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn what_is_durable_is_there_again() {
    let rig = Rig::new();
    rig.fill(100);
    assert!(rig.wal.stats().segments > 3);
    let again = Rig::open(&rig.disk, policy()).expect("it opens");
    assert_eq!((again.recovered.first, again.found.len()), (1, 100));
    assert!(!again.recovered.was_closed && again.recovered.cut.is_none());
    again.fill(50);
    again.wal.close();
    let again = Rig::open(&rig.disk, policy()).expect("it opens");
    assert_eq!((again.recovered.first, again.found.len()), (1, 150));
    assert!(again.recovered.was_closed);
    let again = Rig::open(&rig.disk, policy()).expect("it opens");
    assert_eq!((again.recovered.first, again.found.len()), (1, 150));
}

/// Every prefix of the file of a log, with the watermark of the time when half of it was written: either what is whole in
/// it, and no less than the watermark, or a refusal.
#[test]
fn a_cut_at_every_byte_is_a_prefix_or_refused() {
    let rig = Rig::open(&Default::default(), WIDE).unwrap();
    rig.fill(60);
    let at_half = image(&rig.disk);
    rig.fill(60);
    let mut files = image(&rig.disk);
    files.insert("log-watermark".to_owned(), at_half["log-watermark"].clone());
    let name = segments(&files).remove(0);
    // Without the segment to come, which is large.
    files.retain(|other, _| *other == name || !other.starts_with("log-0"));
    let ends = record_ends(&files[&name]);
    let used = *ends.last().unwrap();
    assert!(ends.len() == 120 && used > 60_000, "{} records, {used} bytes", ends.len());
    let whole = disk_of(&files);
    let (mut prefixes, mut refused) = (0, 0);
    for end in 0..=used {
        let disk = whole.crash_image(0);
        disk.open(&name).and_then(|file| file.set_size(end as u64)).unwrap();
        let expected = ends.partition_point(|record_end| *record_end <= end);
        match Rig::open(&disk, policy()) {
            Ok(rig) => {
                assert!(expected >= 60, "{expected} records at {end}");
                assert_eq!(rig.found.len(), expected, "at {end}");
                prefixes += 1;
            }
            Err(OpenError::Damaged { file, from, to, .. }) => {
                assert!(expected < 60, "{expected} records at {end}");
                assert!(file == name || end < 60, "{file}");
                assert!((from, to) == (expected as u64 + 1, 60) || expected == 0, "{from} to {to} at {end}");
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    println!("{} images: {prefixes} prefixes, {refused} refused", used + 1);
    assert!(prefixes > 20_000 && refused > 20_000);
}

/// The same with zeros behind, as a crash of the machine leaves it, for the part that is not durable for sure.
#[test]
fn an_end_of_zeros_is_cut_without_a_trace() {
    let rig = Rig::open(&Default::default(), WIDE).unwrap();
    rig.fill(10);
    let mut files = image(&rig.disk);
    let (lsn, _) = (rig.append(false), rig.append(false));
    rig.wal.step();
    let name = segments(&files).remove(0);
    let whole = image(&rig.disk)[&name].clone();
    let ends = record_ends(&whole);
    assert_eq!((ends.len(), rig.wal.durable(), lsn), (12, 10, 11));
    let (mut cuts, mut images) = (0, 0);
    for end in ends[9]..=ends[11] {
        let mut bytes = whole.clone();
        bytes[end..].fill(0);
        files.insert(name.clone(), bytes);
        let rig = Rig::open(&disk_of(&files), policy()).unwrap();
        assert_eq!(rig.found.len(), ends.partition_point(|record_end| *record_end <= end), "at {end}");
        cuts += usize::from(rig.recovered.cut.is_some());
        images += 1;
    }
    println!("{images} images, {cuts} cuts");
    assert!(cuts > images / 2 && cuts < images);
}

/// An unsynced batch may persist out of order: what is whole behind the first gap was never acknowledged.
#[test]
fn a_record_behind_a_bad_one_is_kept_aside_and_not_used() {
    let rig = Rig::open(&Default::default(), WIDE).unwrap();
    rig.fill(3);
    let kept = image(&rig.disk)["log-watermark"].clone();
    rig.append(false);
    rig.append(false);
    rig.wal.step();
    let mut files = image(&rig.disk);
    files.insert("log-watermark".to_owned(), kept);
    let name = segments(&files).remove(0);
    let ends = record_ends(&files[&name]);
    assert_eq!(ends.len(), 5);
    files.get_mut(&name).unwrap()[ends[3] - 1] ^= 1;
    let disk = disk_of(&files);
    let rig = Rig::open_as(&disk, policy(), 1).unwrap();
    assert_eq!(rig.found.len(), 3);
    let cut = rig.recovered.cut.clone().expect("something was cut");
    let aside = cut.kept_in.expect("there is space");
    // The front of the batch counts to what is there.
    assert_eq!((cut.file, cut.offset + cut.bytes), (name.clone(), ends[4] as u64));
    let (after, start) = (image(&disk), cut.offset as usize);
    assert_eq!(after[&aside], files[&name][start..ends[4]]);
    assert_eq!(after[&name], files[&name][..start]);
    // Its LSN is given again, and what was cut off does not come back.
    rig.fill(4);
    let again = Rig::open(&disk, policy()).unwrap();
    assert_eq!(again.found, [0, 0, 0, 1, 1, 1, 1]);
    assert!(again.recovered.cut.is_none());
}

/// A record whose checksum holds, but not its LSN, was not written there by this log.
#[test]
fn a_record_out_of_turn_ends_the_log() {
    let rig = Rig::open(&Default::default(), WIDE).unwrap();
    rig.fill(3);
    let kept = image(&rig.disk)["log-watermark"].clone();
    rig.append(false);
    rig.append(false);
    rig.wal.step();
    let mut files = image(&rig.disk);
    files.insert("log-watermark".to_owned(), kept);
    let name = segments(&files).remove(0);
    let ends = record_ends(&files[&name]);
    for number in [0, 3, 4, 6, 7, u64::MAX] {
        let mut files = files.clone();
        let last = &mut files.get_mut(&name).unwrap()[ends[3]..ends[4]];
        record::renumber(last, number);
        record::seal(last, record::Position { segment: 1, offset: ends[3] as u64 });
        assert_eq!(Rig::open(&disk_of(&files), policy()).unwrap().found.len(), 4, "{number}");
    }
}

/// Either of the two marks may be lost: then the other is no older than the sync before.
#[test]
fn a_lost_watermark_is_as_good_as_the_one_before() {
    let rig = Rig::new();
    for lsn in 1..10_u64 {
        rig.fill(1);
        for at in [0, 4096] {
            let mut files = image(&rig.disk);
            files.get_mut("log-watermark").unwrap()[at..at + 22].fill(0xFF);
            let watermark = verify(&disk_of(&files), |_, _, _| {}).unwrap().watermark;
            assert!((lsn - 1..=lsn).contains(&watermark), "{watermark} of {lsn}");
        }
    }
}

/// Without the latest watermark, which is not synced, the batches that follow tell what was durable.
#[test]
fn a_later_batch_proves_what_was_durable() {
    let rig = Rig::open(&Default::default(), WIDE).unwrap();
    rig.fill(3);
    let kept = image(&rig.disk)["log-watermark"].clone();
    rig.fill(17);
    let mut files = image(&rig.disk);
    files.insert("log-watermark".to_owned(), kept);
    let name = segments(&files).remove(0);
    let ends = record_ends(&files[&name]);
    for (record, end) in ends.iter().enumerate().skip(3) {
        let mut damaged = files.clone();
        damaged.get_mut(&name).unwrap()[end - 1] ^= 1;
        // The last batch says that the one before it is durable.
        let expected = (record < 19).then(|| (name.clone(), record as u64 + 1, 19));
        assert_eq!(refusal(&damaged), expected, "record {}", record + 1);
    }
    // The same where the header is what is not whole.
    files.get_mut(&name).unwrap()[30] ^= 1;
    assert_eq!(refusal(&files), Some((name, 1, 19)));
}

#[test]
fn files_of_cuts_do_not_pile_up() {
    let mut disk = Rig::new().disk;
    for life in 0..20 {
        let rig = Rig::open_as(&disk, WIDE, life).unwrap();
        rig.fill(1);
        let watermark = image(&disk)["log-watermark"].clone();
        rig.append(false);
        rig.wal.step();
        let mut files = image(&disk);
        files.insert("log-watermark".to_owned(), watermark);
        let name = segments(&files).into_iter().rfind(|name| files[name][0] != 0).unwrap();
        let ends = record_ends(&files[&name]);
        files.get_mut(&name).unwrap()[ends[1] - 1] ^= 1;
        disk = disk_of(&files);
    }
    let rig = Rig::open(&disk, policy()).unwrap();
    assert!(rig.recovered.cut.is_some() && rig.found.len() == 20);
    let cuts = image(&disk).keys().filter(|name| name.starts_with("log-cut-")).count();
    assert_eq!(cuts, 8);
}

#[test]
fn a_missing_file_is_damage() {
    let rig = Rig::new();
    rig.fill(100);
    let files = image(&rig.disk);
    let names = segments(&files);
    // The last is the one to come.
    let (spare, used) = names.split_last().unwrap();
    assert!(used.len() > 3);
    for name in used {
        let mut without = files.clone();
        without.remove(name);
        let (file, from, to) = refusal(&without).unwrap_or_else(|| panic!("{name} is not missed"));
        assert!(from <= to && to <= 100, "{from} to {to}");
        assert!(file == *name || name == used.last().unwrap(), "{file} instead of {name}");
    }
    let mut without = files.clone();
    without.remove(spare);
    assert_eq!(refusal(&without), None);
    for name in ["log-watermark", "log-start"] {
        let mut without = files.clone();
        without.remove(name);
        // All of it can be read, but who knows what is not there.
        let refused = (name == "log-watermark").then(|| (name.to_owned(), 1, 100));
        assert_eq!(refusal(&without), refused);
    }
    let without: Image = files.into_iter().filter(|(name, _)| !used.contains(name)).collect();
    assert_eq!(refusal(&without), Some(("log-watermark".to_owned(), 1, 100)));
}

#[test]
fn segments_in_each_others_place_are_damage() {
    let rig = Rig::new();
    rig.fill(100);
    let files = image(&rig.disk);
    let names = segments(&files);
    let mut swapped = files.clone();
    swapped.insert(names[0].clone(), files[&names[1]].clone());
    swapped.insert(names[1].clone(), files[&names[0]].clone());
    assert!(refusal(&swapped).is_some());
    // A batch that was written twice, behind the end.
    let mut twice = files.clone();
    let newest = names.iter().rfind(|name| files[*name][0] != 0).unwrap();
    let ends = record_ends(&files[newest]);
    let bytes = twice.get_mut(newest).unwrap();
    let copy = bytes[60..*ends.last().unwrap()].to_vec();
    bytes.truncate(*ends.last().unwrap());
    bytes.extend_from_slice(&copy);
    let rig = Rig::open(&disk_of(&twice), policy()).unwrap();
    assert_eq!(rig.found.len(), 100);
    assert_eq!(rig.recovered.cut.unwrap().bytes, copy.len() as u64);
}

#[test]
fn trimming_deletes_what_is_below_and_survives_a_crash_in_between() {
    let rig = Rig::new();
    rig.fill(100);
    let before = rig.wal.bytes();
    rig.wal.trim(1).unwrap();
    assert_eq!(rig.wal.bytes(), before);
    let synced = rig.disk.clone();
    rig.wal.trim(60).unwrap();
    assert!(rig.wal.bytes() < before * 3 / 4);
    let mut firsts = BTreeSet::new();
    for seed in 0..50 {
        let again = Rig::open(&synced.crash_image(seed), policy()).unwrap();
        assert!(again.recovered.first <= 60 && again.recovered.last == 100);
        firsts.insert(again.recovered.first);
    }
    assert!(firsts.len() == 1 && *firsts.first().unwrap() > 20, "{firsts:?}");
    // Segments that reappear, in any combination, are not missed and not used.
    let names = segments(&image(&rig.disk));
    let rest = Rig::new();
    rest.fill(100);
    let all = image(&rest.disk);
    let gone: Vec<String> = segments(&all).into_iter().filter(|name| !names.contains(name)).collect();
    assert!(gone.len() > 3);
    for some in 0..1_usize << gone.len().min(8) {
        let mut files = image(&rig.disk);
        let back = gone.iter().enumerate().filter(|(at, _)| some >> at & 1 == 1);
        files.extend(back.map(|(_, name)| (name.clone(), all[name].clone())));
        let disk = disk_of(&files);
        let again = Rig::open(&disk, policy()).unwrap();
        assert_eq!(again.recovered.first, *firsts.first().unwrap());
        assert!(gone.iter().all(|name| disk.open(name).is_err()), "they are removed");
    }
    rig.wal.trim(101).unwrap();
    assert_eq!(rig.wal.stats().segments, 1, "the one that grows stays");
    rig.fill(1);
    assert_eq!(Rig::open(&rig.disk, policy()).unwrap().recovered.last, 101);
}

#[test]
fn opening_again_and_again_leaves_no_files() {
    let rig = Rig::new();
    rig.fill(2);
    let disk = rig.disk;
    let count = |disk: &_| image(disk).len();
    let first = count(&disk);
    for _ in 0..5 {
        let rig = Rig::open(&disk, policy()).unwrap();
        assert_eq!(rig.found.len(), 2);
        rig.wal.step();
    }
    assert!(count(&disk) <= first + 1, "{:?}", image(&disk).keys());
}

#[test]
fn another_owner_or_format_is_refused() {
    let rig = Rig::new();
    rig.fill(1);
    let other = WalPolicy { fingerprint: 78, ..policy() };
    let error = Rig::open(&rig.disk, other).err().expect("refused");
    assert_eq!(error.to_string(), "log-0000000000000001 belongs to another store");
    let mut files = image(&rig.disk);
    let header = &mut files.get_mut("log-0000000000000001").unwrap()[..60];
    header[22 + 8] = 2;
    record::seal(header, record::Position { segment: 1, offset: 0 });
    let error = Rig::open(&disk_of(&files), policy()).err().expect("refused");
    let why = "has a format that this version does not know: use the version that wrote it, or a newer one";
    assert_eq!(error.to_string(), format!("log-0000000000000001 {why}"));
}

#[test]
fn an_owner_that_refuses_a_record_stops_the_opening() {
    use std::sync::Arc;

    use data_bridge_kv::wal::Wal;
    let rig = Rig::new();
    rig.fill(3);
    let disk = Arc::new(rig.disk.clone());
    let refuse = &mut |lsn, _: record::Record<'_>| match lsn {
        2 => Err(OpenError::Refused { lsn, why: Error::invalid("an unknown kind") }),
        _ => Ok(()),
    };
    let error = Wal::open(disk, Arc::clone(&rig.clock) as _, policy(), refuse).expect_err("refused");
    assert_eq!(error.to_string(), "record 2 of the log can't be applied: an unknown kind");
    assert_eq!(Rig::open(&rig.disk, policy()).unwrap().found.len(), 3);
}
