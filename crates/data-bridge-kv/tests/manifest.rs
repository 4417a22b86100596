//! The manifest on a disk that fails and forgets.

use std::io::ErrorKind;
use std::sync::Arc;

use data_bridge_kv::disk::Disk;
use data_bridge_kv::manifest::{Manifest, ManifestError};
use data_bridge_kv::opening::{Opening, Progress, Stage};
use data_bridge_kv::{Caller, DataDirectory, Engine, Mode, NamespaceSettings, Settings};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::limits::NAMESPACES;
use data_bridge_kv_model::{Arg, Reply, ReplyBuf, ReplyReader};
use data_bridge_kv_testkit::disk::{Fault, FaultyDisk};

fn manifest(ceiling: u64) -> Manifest {
    let tasks = vec![(1, "tasks".to_owned()), (3, "jobs ✓".to_owned())];
    Manifest { base: 1 << 60, ceiling, seed: u64::MAX, shard_bits: 4, tasks }
}

#[test]
fn what_is_written_is_read_back() {
    let disk = FaultyDisk::new();
    assert_eq!(Manifest::read(&disk).unwrap(), None);
    for ceiling in [1, 2] {
        manifest(ceiling).write(&disk).unwrap();
        assert_eq!(Manifest::read(&disk).unwrap(), Some(manifest(ceiling)));
    }
    assert_eq!(disk.list().unwrap(), ["manifest"]);
}

/// Cut off anywhere by a fault and a crash, the old or the new one is there, and the new one if the write said so.
#[test]
fn a_crash_leaves_the_old_one_or_the_new_one() {
    let mut outcomes = [0; 2];
    for at in 0..12 {
        for seed in 0..40 {
            let disk = FaultyDisk::new();
            manifest(1).write(&disk).unwrap();
            let at = disk.operations() + at;
            disk.set_fault(Some(Fault { at, error: ErrorKind::Other, sticky: true }));
            let written = manifest(2).write(&disk).is_ok();
            disk.set_fault(None);
            disk.crash(seed);
            let found = Manifest::read(&disk).unwrap().unwrap();
            assert!([1, 2].contains(&found.ceiling) && found == manifest(found.ceiling));
            assert!(found.ceiling == 2 || !written, "operation {at}, seed {seed}");
            outcomes[usize::from(found.ceiling == 2)] += 1;
            manifest(3).write(&disk).unwrap();
            assert_eq!(Manifest::read(&disk).unwrap(), Some(manifest(3)));
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

/// One of several sectors, all of which are others with another ceiling.
fn long(ceiling: u64) -> Manifest {
    let letter = |n: u8| char::from(b'a' + n + 8 * u8::try_from(ceiling).unwrap() % 16);
    Manifest { tasks: (0..8).map(|n| (n, letter(n).to_string().repeat(200))).collect(), ..manifest(ceiling) }
}

/// Without space for a file beside it, it is written over; that leaves the old or the new one too, and the name is made sure of.
#[test]
fn a_full_disk_takes_one_of_the_same_length() {
    let mut outcomes = [0; 2];
    for at in 0..16 {
        for seed in 0..40 {
            let disk = FaultyDisk::new();
            long(1).write(&disk).unwrap();
            disk.set_capacity(Some(disk.used()));
            let at = disk.operations() + at;
            disk.set_fault(Some(Fault { at, error: ErrorKind::Other, sticky: true }));
            let written = long(2).write(&disk).is_ok();
            disk.set_fault(None);
            disk.crash(seed);
            let found = Manifest::read(&disk).unwrap().unwrap();
            assert!([1, 2].contains(&found.ceiling) && found == long(found.ceiling));
            assert!(found.ceiling == 2 || !written, "operation {at}, seed {seed}");
            outcomes[usize::from(written)] += 1;
            // What was left half done is in nobody's way.
            if !written {
                long(2).write(&disk).unwrap();
                disk.crash(seed);
                assert_eq!(Manifest::read(&disk).unwrap(), Some(long(2)), "operation {at}, seed {seed}");
            }
            let longer =
                Manifest { tasks: (0..9).map(|n| (n, n.to_string().repeat(200))).collect(), ..long(3) };
            assert_eq!(longer.write(&disk).unwrap_err().kind(), ErrorKind::StorageFull);
            assert_eq!(Manifest::read(&disk).unwrap(), Some(long(2)));
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

/// One copy is as good as the other, as long as one is whole.
#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let disk = FaultyDisk::new();
    manifest(7).write(&disk).unwrap();
    let file = disk.open("manifest").unwrap();
    let mut whole = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
    file.read_at(&mut whole, 0).unwrap();
    let bytes = whole.len() - 8192;
    for bit in 0..bytes * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        file.write_at(&damaged, 0).unwrap();
        assert_eq!(
            Manifest::verify(&disk).unwrap(),
            Some((manifest(7), vec![0])),
            "bit {bit}, of the first only"
        );
        damaged[8192 + bit / 8] ^= 1 << (bit % 8);
        file.write_at(&damaged, 0).unwrap();
        assert!(matches!(Manifest::read(&disk), Err(ManifestError::Damaged)), "bit {bit}");
        damaged[bit / 8] ^= 1 << (bit % 8);
        file.write_at(&damaged, 0).unwrap();
        let found = Manifest::verify(&disk).unwrap();
        assert_eq!(found, Some((manifest(7), vec![8192])), "bit {bit}, of the second only");
    }
    file.write_at(&whole, 0).unwrap();
    assert_eq!(Manifest::verify(&disk).unwrap(), Some((manifest(7), Vec::new())));
    for size in 0..whole.len() {
        file.write_at(&whole, 0).unwrap();
        file.set_size(size as u64).unwrap();
        let read = Manifest::read(&disk);
        if size < bytes {
            assert!(matches!(read, Err(ManifestError::Damaged)), "cut at {size}");
        } else {
            assert_eq!(read.unwrap(), Some(manifest(7)), "cut at {size}");
        }
    }
}

/// A store on a disk; how far opening it says that it came.
fn opened(disk: &FaultyDisk) -> (Engine, Progress) {
    let opening = Arc::new(Opening::default());
    let settings = Settings {
        data: Some(DataDirectory::on(Arc::new(disk.clone()), 1 << 30).unwrap()),
        opening: Arc::clone(&opening),
        shards: Some(2),
        background: false,
        ..Settings::default()
    };
    (Engine::open(settings).unwrap(), opening.progress())
}

/// Whoever was killed on a full disk is there again, for reads and for what makes space.
#[test]
fn a_store_opens_on_a_full_disk() {
    let disk = FaultyDisk::new();
    let ask = |engine: &Engine, words: &[&str]| {
        let caller = Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
        let args: Vec<Arg<'_>> = words[1..].iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
        let mut out = ReplyBuf::new();
        let call = table::by_name(words[0].as_bytes()).unwrap().call(&args).unwrap();
        let _ = engine.execute(&caller, 0, &call, &mut out);
        ReplyReader::new(out.as_bytes()).reply().unwrap()
    };
    let (engine, _) = opened(&disk);
    assert_eq!(ask(&engine, &["SET", "here", "1"]), Reply::Ok);
    assert_eq!(ask(&engine, &["SET", "gone", "1"]), Reply::Ok);
    let after_kill = disk.crash_image(1);
    after_kill.set_capacity(Some(after_kill.used()));
    let (engine, _) = opened(&after_kill);
    assert_eq!(ask(&engine, &["DEL", "gone"]), Reply::Integer(1));
    assert_eq!(ask(&engine, &["EXISTS", "here", "gone"]), Reply::Integer(1));
    after_kill.set_capacity(None);
    drop(engine);
    let (engine, _) = opened(&after_kill);
    assert_eq!(ask(&engine, &["EXISTS", "here", "gone"]), Reply::Integer(1));
}

#[test]
fn opening_tells_how_far_it_is() {
    let disk = FaultyDisk::new();
    let (engine, fresh) = opened(&disk);
    assert_eq!((fresh.bytes_done, fresh.bytes_total), (0, 0));
    let caller = Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
    for number in 0..100 {
        let key = format!("key:{number}");
        let args = [Arg::Untyped(key.as_bytes()), Arg::Untyped(&[b'v'; 1000])];
        let call = table::by_name(b"SET").unwrap().call(&args).unwrap();
        let _ = engine.execute(&caller, 0, &call, &mut ReplyBuf::new());
    }
    let (_, after_crash) = opened(&disk.crash_image(1));
    assert_eq!(after_crash.stage, Stage::Log);
    // What was made ahead of the log's end is no part of the way.
    let Progress { bytes_done, bytes_total, .. } = after_crash;
    assert!(bytes_done > 100_000 && bytes_done * 10 > bytes_total * 9, "{after_crash:?}");
}

/// Those that are configured later, or in a table that is sorted by name, come before those that are there.
#[test]
fn task_namespaces_keep_their_numbers_in_whatever_order_they_are_configured() {
    let disk = FaultyDisk::new();
    let open = |spaces: &[(&str, Mode)]| {
        let mut namespaces: Vec<_> = (0..NAMESPACES).map(NamespaceSettings::preset).collect();
        let kept: Vec<_> = spaces.iter().filter_map(|(name, _)| NamespaceSettings::number(name)).collect();
        for (name, mode) in spaces {
            NamespaceSettings::named(&mut namespaces, name, &kept).unwrap().set_mode(*mode);
        }
        let data = Some(DataDirectory::on(Arc::new(disk.clone()), 1 << 30).unwrap());
        Engine::open(Settings { namespaces, data, shards: Some(2), background: false, ..Settings::default() })
    };
    let numbers = |engine: &Engine, names: &[&str]| {
        names.iter().map(|name| engine.namespace(name).unwrap().number()).collect::<Vec<_>>()
    };
    let (mail, orders) = (("mail", Mode::Task), ("orders", Mode::Task));
    let names = ["mail", "orders"];
    assert_eq!(numbers(&open(&[mail, orders]).unwrap(), &names), [3, 4]);
    assert_eq!(numbers(&open(&[orders, mail]).unwrap(), &names), [3, 4]);
    let engine = open(&[("aside", Mode::Cache), orders, ("bills", Mode::Task), mail]).unwrap();
    assert_eq!(numbers(&engine, &["mail", "orders", "bills", "aside"]), [3, 4, 5, 6]);
    drop(engine);
    // Numbers that nobody has are those of no name, and who is configured by number keeps it.
    let engine = open(&[orders, mail, ("8", Mode::Cache), ("bills", Mode::Task)]).unwrap();
    assert_eq!(numbers(&engine, &["mail", "orders", "bills", "6", "8"]), [3, 4, 5, 6, 8]);
    drop(engine);
    let refused = |spaces: &[(&str, Mode)]| open(spaces).err().unwrap().message().to_owned();
    let bills = ("bills", Mode::Task);
    assert!(refused(&[orders, bills]).contains("'mail' with number 3"));
    assert!(refused(&[("mail", Mode::Cache), orders, bills]).contains("'mail' with number 3"));
    assert!(refused(&[mail, orders, bills, ("4", Mode::Task)]).contains("'orders' with number 4"));
}
