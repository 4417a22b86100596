//! What happens at the limit of space on disk, where everything that is there is of use.

use super::*;

const MEMORY: u64 = 1 << 20;
const SPACE: u64 = 16 << 20;

fn line(n: usize) -> String {
    format!("SET key:{n} {}", format!("{n:06}").repeat(200))
}

/// Writes until nothing is taken any more, down to the smallest values; answers how many keys there are.
fn fill(store: &Store) -> usize {
    fill_with(store, "key")
}

fn fill_with(store: &Store, name: &str) -> usize {
    let mut count = 0;
    for length in [200, 20, 2] {
        let next = |n: usize| store.run(&format!("SET {name}:{n} {}", format!("{n:06}").repeat(length)));
        while next(count) == Reply::Ok {
            count += 1;
            if count % 500 == 0 {
                store.engine.tick();
            }
            assert!(count < 200_000, "there is no end");
        }
    }
    count
}

fn tick(store: &Store, times: usize) {
    (0..times).for_each(|_| store.engine.tick());
}

#[test]
fn a_full_disk_is_not_written_over_and_over() {
    for namespace in ["tasks", "kept", "default"] {
        let store = Store::new(namespace, MEMORY, SPACE);
        let count = fill(&store);
        assert!(count > 8000, "{count} of {namespace}");
        tick(&store, 20);
        let before = store.tier();
        tick(&store, 50);
        (0..50).for_each(|n| drop(store.run(&line(count + n))));
        let moved = store.tier().moved - before.moved;
        assert!(moved < 2000, "{moved} entries of {namespace} were written again for nothing");
    }
}

#[test]
fn a_full_disk_has_room_again_when_keys_are_deleted() {
    for namespace in ["tasks", "kept", "default"] {
        let store = Store::new(namespace, MEMORY, SPACE);
        let count = fill(&store);
        // Here and there, so that no segment is empty.
        let (gone, left): (Vec<usize>, Vec<usize>) = (0..count).partition(|n| n % 3 == 0);
        gone.iter().for_each(|n| assert_eq!(store.run(&format!("DEL key:{n}")), Reply::Integer(1), "{n}"));
        tick(&store, 20);
        for n in gone.iter().take(gone.len() / 2) {
            assert_eq!(store.run(&line(*n)), Reply::Ok, "{n} of {namespace}");
        }
        assert!(store.tier().bytes <= SPACE);
        let is_there = |n: &&usize| store.run(&format!("EXISTS key:{n}")) == Reply::Integer(1);
        assert_eq!(left.iter().filter(is_there).count(), left.len());
    }
}

#[test]
fn a_full_disk_has_room_again_when_keys_expire() {
    for namespace in ["tasks", "kept"] {
        let store = Store::new(namespace, MEMORY, SPACE);
        let mut count = 0;
        while store.run(&format!("{} PX {}", line(count), 60_000 + count % 7 * 60_000)) == Reply::Ok {
            count += 1;
        }
        store.clock.advance(130_000);
        tick(&store, 20);
        for n in 0..count / 4 {
            assert_eq!(store.run(&line(count + n)), Reply::Ok, "{n} of {namespace}");
        }
    }
}

#[test]
fn caches_and_tasks_share_the_limit_and_caches_make_way() {
    let store = Store::new("tasks", MEMORY, SPACE);
    let cache = Caller { namespace: store.engine.namespace("cache").unwrap(), ..store.engine.caller() };
    for n in 0..20_000 {
        assert_eq!(run(&store.engine, &cache, &line(n)), Reply::Ok);
    }
    store.engine.tick();
    assert!(store.tier().bytes <= SPACE, "{:?}", store.tier());
    for n in 0..7000 {
        assert_eq!(store.run(&line(n)), Reply::Ok, "{n}");
        assert!(store.tier().bytes <= SPACE, "{:?}", store.tier());
    }
    for n in 0..20_000 {
        assert_eq!(run(&store.engine, &cache, &line(n)), Reply::Ok, "{n}");
    }
    assert!(store.tier().bytes <= SPACE, "{:?}", store.tier());
    assert_eq!(store.run("DBSIZE"), Reply::Integer(7000));
}

/// Nothing is refused while something on disk may be evicted, however little that is.
#[test]
fn a_full_disk_loses_what_may_go_before_writes_are_refused() {
    let store = Store::new("default", MEMORY, SPACE);
    let count = fill(&store);
    (0..count).step_by(40).for_each(|n| drop(store.run(&format!("DEL key:{n}"))));
    tick(&store, 20);
    let passing = |n: usize| format!("SET passing:{n} {} EX 100000", format!("{n:06}").repeat(200));
    (0..200).for_each(|n| assert_eq!(store.run(&passing(n)), Reply::Ok));
    store.engine.demote_all();
    tick(&store, 20);
    let more = fill_with(&store, "more");
    let left = (0..200).filter(|n| store.run(&format!("EXISTS passing:{n}")) == Reply::Integer(1)).count();
    assert!(more > 100 && left == 0, "{left} of 200, {more} more, {:?}", store.tier());
}

/// However few of the keys of a full disk may be evicted, what comes in takes their place.
#[test]
fn a_full_disk_of_which_little_may_go_takes_what_may_go_again() {
    let store = Store::new("default", MEMORY, SPACE);
    let count = fill(&store);
    (0..count).step_by(40).for_each(|n| drop(store.run(&format!("DEL key:{n}"))));
    tick(&store, 20);
    for n in 0..1500 {
        let line = format!("SET passing:{n} {} EX 100000", format!("{n:06}").repeat(200));
        assert_eq!(store.run(&line), Reply::Ok, "{n}, {:?}", store.tier());
        if n % 500 == 0 {
            store.engine.tick();
        }
    }
}

#[test]
fn a_clear_of_many_cold_keys_is_buried_a_part_at_a_time() {
    let store = Store::new("tasks", 64 << 20, 1 << 30);
    for n in 0..40_000 {
        store.run(&format!("SET key:{n} 1"));
    }
    store.engine.demote_all();
    assert!(store.is_cold(40_000));
    assert_eq!(store.run("KV.CLEAR "), Reply::Integer(40_000));
    tick(&store, 3);
    assert_eq!(store.tier().live_bytes, 0, "{:?}", store.tier());
}

#[test]
fn what_a_store_left_is_free_for_the_next_one() {
    let disk = FaultyDisk::new();
    disk.set_capacity(Some(64 << 20));
    let free =
        |disk: &FaultyDisk| DataDirectory::sized(Arc::new(disk.clone()), |bytes| bytes).unwrap().max_bytes();
    assert_eq!(free(&disk), 64 << 20);
    disk.create("cold-task-0000000000000001").unwrap().write_at(&vec![1; 30 << 20], 0).unwrap();
    assert_eq!(free(&disk), 64 << 20);
}

/// A limit that is a share of what there is grows with that: who started on a full disk takes what is freed later.
#[test]
fn a_share_of_the_disk_grows_with_it() {
    let disk = FaultyDisk::new();
    disk.set_capacity(Some(8 << 20));
    let directory = DataDirectory::sized(Arc::new(disk.clone()), |there| there / 4 * 3).unwrap();
    let store = Store::on("tasks", MEMORY, disk, directory);
    let count = fill(&store);
    assert_eq!(store.tier().max_bytes, 6 << 20, "{count} keys");
    store.disk.set_capacity(Some(64 << 20));
    store.clock.advance(1000);
    tick(&store, 20);
    for n in count..3 * count {
        assert_eq!(store.run(&line(n)), Reply::Ok, "{n}, {:?}", store.tier());
        if n % 200 == 0 {
            store.engine.tick();
        }
    }
    assert!((0..count).all(|n| store.run(&format!("EXISTS key:{n}")) == Reply::Integer(1)));
    let (max, log) = (store.tier().max_bytes, store.engine.stats().log.unwrap());
    assert!(max > 40 << 20 && max <= 48 << 20 && log.limit == max / 4, "{max}, {log:?}");
    // What is taken elsewhere does not lower it.
    store.disk.set_capacity(Some(store.disk.used() + (4 << 20)));
    tick(&store, 20);
    assert_eq!(store.tier().max_bytes, max);
}

/// Of the log, when a checkpoint is due in a store of that space, and what it may have before writes are refused.
const LOG: u64 = SPACE / 4;
const LOG_OVERDUE: u64 = 2 * LOG + (1 << 20);

/// The log does not take instead what the tier may not, however much memory there is, and is cut once something was deleted.
#[test]
fn the_log_is_cut_also_when_the_disk_is_full() {
    // With less memory nothing would be written once the tier is full.
    let store = Store::new("tasks", 256 << 20, SPACE);
    let mut refused = 0;
    for n in 0..40_000 {
        refused += usize::from(store.run(&line(n)) != Reply::Ok);
        if n % 200 == 0 {
            store.engine.tick();
        }
    }
    let (log, tier) = (store.engine.stats().log.unwrap(), store.tier());
    assert!(refused > 10_000 && log.bytes > LOG, "{refused} were refused, {log:?}");
    assert!(log.bytes < LOG_OVERDUE && tier.bytes <= SPACE, "{log:?}, {tier:?}");
    assert!(store.disk.used() < SPACE + LOG_OVERDUE + LOG, "{}", store.disk.used());
    for n in (0..40_000).step_by(2) {
        store.run(&format!("DEL key:{n}"));
    }
    tick(&store, 100);
    assert_eq!(store.run(&line(0)), Reply::Ok);
    assert!(store.engine.stats().log.unwrap().bytes < LOG, "{:?}", store.engine.stats().log);
}

#[test]
fn many_deletes_of_cold_keys_do_not_pile_up() {
    let store = Store::new("tasks", 64 << 20, 1 << 30);
    for n in 0..30_000 {
        store.run(&format!("SET key:{n} 1 PX 60000"));
    }
    store.engine.demote_all();
    assert!(store.is_cold(30_000));
    store.clock.advance(60_000);
    tick(&store, 3);
    assert!(store.is_cold(0));
    assert_eq!(store.tier().live_bytes, 0, "{:?}", store.tier());
}

/// Cuts the power.
fn crash(store: Store) -> FaultyDisk {
    let disk = store.disk.clone();
    disk.crash(1);
    // The one before is gone with the power.
    disk.set_fault(Some(Fault { at: 0, error: std::io::ErrorKind::Other, sticky: true }));
    drop(store);
    disk.set_fault(None);
    disk
}

/// What the log has is on disk already: that the limit leaves no space for what memory has no room for keeps nobody out.
#[test]
fn a_store_at_its_limit_of_space_opens_again_after_a_crash() {
    let mut store = Store::new("tasks", MEMORY, SPACE);
    let count = fill(&store);
    let Reply::Error(refused) = store.run(&line(count)) else { panic!("there is space") };
    assert!(refused.message().contains("--max-disk"), "it says what is spent: {refused}");
    for round in 0..3 {
        let disk = crash(store);
        let directory = DataDirectory::on(Arc::new(disk.clone()), SPACE).unwrap();
        store = Store::on("tasks", MEMORY, disk, directory);
        assert_eq!(store.run("DBSIZE"), Reply::Integer(count as i64), "{round}");
        tick(&store, 100);
        let (tier, log) = (store.tier(), store.engine.stats().log.unwrap());
        assert!(tier.bytes <= SPACE + (1 << 20), "{tier:?}");
        assert!(log.bytes < LOG_OVERDUE, "{log:?}");
    }
    for n in (0..count).step_by(5) {
        let Reply::Value(Value::Bytes(value)) = store.run(&format!("GET key:{n}")) else { panic!("{n}") };
        assert!(value.starts_with(format!("{n:06}").as_bytes()), "{n}");
    }
    (0..count / 4).for_each(|n| assert_eq!(store.run(&format!("DEL key:{n}")), Reply::Integer(1)));
    tick(&store, 100);
    assert!(store.tier().bytes <= SPACE, "{:?}", store.tier());
    assert_eq!(store.run(&line(0)), Reply::Ok);
}

/// Nothing is damaged then, and it says what to do.
#[test]
fn a_store_whose_log_finds_no_space_on_the_disk_says_so() {
    let store = Store::new("tasks", 256 << 20, 1 << 30);
    (0..4000).for_each(|n| assert_eq!(store.run(&line(n)), Reply::Ok));
    let disk = crash(store);
    let open = || {
        let directory = DataDirectory::on(Arc::new(disk.clone()), 1 << 30).unwrap();
        Store::try_on("tasks", MEMORY, disk.clone(), directory)
    };
    disk.set_capacity(Some(disk.used() + (1 << 20)));
    let error = open().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains("the disk has no space for what the log has"), "{error}");
    disk.set_capacity(None);
    assert_eq!(open().unwrap().run("DBSIZE"), Reply::Integer(4000));
}
