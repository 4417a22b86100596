//! The contract on both disks, and what the faulty one does when it fails and crashes.

use data_bridge_kv::disk::{Doubt, RealDisk};

use super::contract::CLAUSES;
use super::*;
use crate::directory::Directory;

fn read(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0; file.size().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn fault(at: u64, sticky: bool) -> Option<Fault> {
    Some(Fault { at, error: ErrorKind::Other, sticky })
}

#[test]
fn the_real_disk_keeps_the_contract() {
    for (name, clause) in CLAUSES {
        let directory = Directory::new("disk");
        let disk = RealDisk::open(directory.path()).unwrap();
        clause(&disk).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    println!("{} clauses", CLAUSES.len());
}

#[test]
fn the_faulty_disk_keeps_the_contract() {
    for (name, clause) in CLAUSES {
        clause(&FaultyDisk::new()).unwrap_or_else(|error| panic!("{name}: {error}"));
        clause(&Doubt::over(Arc::new(FaultyDisk::new()))).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    println!("{} clauses", CLAUSES.len());
}

#[test]
fn what_is_synced_survives_every_crash() {
    for seed in 0..200 {
        let disk = FaultyDisk::new();
        let file = disk.create("file").unwrap();
        file.write_at(&[1; 2000], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_names().unwrap();
        disk.crash(seed);
        assert_eq!(read(&*disk.open("file").unwrap()), [1; 2000]);
    }
}

#[test]
fn what_is_not_synced_may_last_be_lost_or_be_torn() {
    let (mut lasted, mut lost, mut torn, mut out_of_order) = (0, 0, 0, 0);
    for seed in 0..500 {
        let disk = FaultyDisk::new();
        let file = disk.create("file").unwrap();
        file.write_at(&[1; 4096], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_names().unwrap();
        file.write_at(&[2; 2048], 0).unwrap();
        file.write_at(&[3; 2048], 2048).unwrap();
        disk.crash(seed);
        let bytes = read(&*disk.open("file").unwrap());
        let of = |byte| bytes.iter().filter(|found| **found == byte).count();
        assert!(of(2) % 512 == 0 && of(3) % 512 == 0 && of(1) + of(2) + of(3) == 4096);
        lasted += usize::from(of(1) == 0);
        lost += usize::from(of(1) == 4096);
        torn += usize::from((1..2048).contains(&of(2)));
        out_of_order += usize::from(of(2) == 0 && of(3) == 2048);
    }
    assert!(lasted > 10 && lost > 10 && torn > 10 && out_of_order > 10);
}

#[test]
fn of_two_writes_to_one_place_either_may_be_the_last() {
    let mut first_wins = 0;
    for seed in 0..200 {
        let disk = FaultyDisk::new();
        let file = disk.create("file").unwrap();
        disk.sync_names().unwrap();
        file.write_at(&[1; 10], 0).unwrap();
        file.write_at(&[2; 20], 0).unwrap();
        disk.crash(seed);
        let bytes = read(&*disk.open("file").unwrap());
        first_wins += usize::from(bytes.len() == 20 && bytes[0] == 1);
    }
    assert!(first_wins > 5);
}

#[test]
fn names_last_once_they_are_synced_and_change_in_order() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let disk = FaultyDisk::new();
        disk.create("a").unwrap();
        disk.sync_names().unwrap();
        disk.create("b").unwrap();
        disk.rename("b", "c").unwrap();
        disk.remove("a").unwrap();
        disk.crash(seed);
        seen.insert(disk.list().unwrap());
    }
    let states: [&[&str]; 4] = [&["a"], &["a", "b"], &["a", "c"], &["c"]];
    assert_eq!(
        seen,
        states.iter().map(|names| names.iter().map(|name| (*name).to_owned()).collect()).collect()
    );
}

#[test]
fn a_crash_voids_open_files_and_locks() {
    let disk = FaultyDisk::new();
    let file = disk.create("file").unwrap();
    let lock = disk.lock().unwrap();
    disk.crash(0);
    assert_eq!(file.size().unwrap_err().kind(), ErrorKind::BrokenPipe);
    let _new = disk.lock().unwrap();
    drop(lock);
    assert!(disk.lock().is_err(), "the old lock's end does not free the new one");
}

#[test]
fn the_same_seed_gives_the_same_crash() {
    let image = |seed| {
        let disk = FaultyDisk::new();
        let file = disk.create("file").unwrap();
        disk.sync_names().unwrap();
        (0..20_u8).for_each(|at| file.write_at(&[at; 700], u64::from(at) * 300).unwrap());
        disk.crash(seed);
        read(&*disk.open("file").unwrap())
    };
    assert_eq!(image(5), image(5));
    assert_ne!(image(5), image(6));
}

#[test]
fn an_image_of_a_crash_is_a_disk_of_its_own() {
    let disk = FaultyDisk::new();
    let file = disk.create("file").unwrap();
    file.write_at(&[1; 600], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_names().unwrap();
    file.write_at(&[2; 600], 0).unwrap();
    let image = disk.crash_image(5);
    image.open("file").unwrap().write_at(&[3; 700], 0).unwrap();
    assert_eq!(read(&*file), [2; 600], "this one goes on");
    disk.crash(5);
    assert_eq!(read(&*disk.open("file").unwrap()), read(&*disk.crash_image(6).open("file").unwrap()));
}

#[test]
fn each_operation_can_be_the_one_that_fails() {
    let script = |disk: &FaultyDisk| -> io::Result<()> {
        let file = disk.create("a")?;
        file.write_at(b"bytes", 0)?;
        file.sync_data()?;
        file.set_size(3)?;
        file.size()?;
        file.read_at(&mut [0; 3], 0)?;
        disk.rename("a", "b")?;
        disk.sync_names()?;
        disk.open("b")?;
        disk.list()?;
        disk.free_bytes()?;
        drop(disk.lock()?);
        disk.remove("b")
    };
    let whole = FaultyDisk::new();
    script(&whole).unwrap();
    assert_eq!(whole.operations(), 13);
    for at in 0..whole.operations() {
        let disk = FaultyDisk::new();
        disk.set_fault(fault(at, false));
        assert_eq!(script(&disk).unwrap_err().kind(), ErrorKind::Other, "operation {at}");
        assert_eq!(disk.operations(), at + 1);
        assert!(disk.list().is_ok(), "it fails once");
        disk.set_fault(fault(at, true));
        assert!(disk.list().is_err() && disk.list().is_err(), "a sticky fault stays");
        disk.set_fault(None);
        assert!(disk.list().is_ok());
    }
}

#[test]
fn a_sync_after_a_failed_one_succeeds_without_the_data() {
    for seed in 0..50 {
        let disk = FaultyDisk::new();
        let file = disk.create("file").unwrap();
        disk.sync_names().unwrap();
        file.write_at(b"lost", 0).unwrap();
        disk.set_fault(fault(disk.operations(), false));
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(read(&*file), b"lost", "still seen");
        disk.create("gone").unwrap();
        disk.set_fault(fault(disk.operations(), false));
        assert!(disk.sync_names().is_err());
        disk.sync_names().unwrap();
        disk.crash(seed);
        assert_eq!(
            (disk.list().unwrap(), read(&*disk.open("file").unwrap())),
            (vec!["file".to_owned()], vec![])
        );
    }
}

#[test]
fn a_failed_write_writes_a_part() {
    let disk = FaultyDisk::new();
    let file = disk.create("file").unwrap();
    disk.set_fault(fault(disk.operations(), false));
    assert!(file.write_at(b"abcdef", 0).is_err());
    assert_eq!(read(&*file), b"abc");
}

#[test]
fn a_full_disk_refuses_to_grow_until_space_is_freed() {
    let disk = FaultyDisk::new();
    disk.set_capacity(Some(1000));
    let file = disk.create("file").unwrap();
    file.allocate(900).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 100);
    file.write_at(&[1; 900], 0).unwrap();
    let other = disk.create("other").unwrap();
    assert_eq!(other.write_at(&[2; 150], 0).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(other.size().unwrap(), 75, "a failed write writes a part");
    disk.remove("file").unwrap();
    other.write_at(&[2; 150], 0).unwrap();
}

#[test]
fn names_stay_in_doubt_once_a_sync_of_them_failed() {
    let disk = FaultyDisk::new();
    let doubt = Doubt::over(Arc::new(disk.clone()));
    doubt.create("before").unwrap();
    doubt.sync_names().unwrap();
    doubt.create("after").unwrap();
    disk.set_fault(fault(disk.operations(), false));
    assert!(doubt.sync_names().is_err());
    assert!(
        doubt.sync_names().is_err() && doubt.sync_names().is_err(),
        "the disk would say that all is well"
    );
    doubt.create("later").unwrap().write_at(b"bytes", 0).unwrap();
    disk.crash(3);
    assert_eq!(disk.list().unwrap().first().map(String::as_str), Some("before"));
}
