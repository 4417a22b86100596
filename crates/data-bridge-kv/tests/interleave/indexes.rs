//! Indexes that come from disk after opening, while several need them at once: each part is read once, whoever needs it waits
//! for who reads it, and everybody is answered as if it had been there; also where a part is damaged, or the disk fails once.

use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use data_bridge_kv::disk::Disk;
use data_bridge_kv::{Caller, Chore};
use data_bridge_kv_model::{ErrorKind, Reply, Value};
use data_bridge_kv_testkit::disk::FaultyDisk;
use data_bridge_kv_testkit::disk::hooked::{Hooked, Operation};
use shuttle::thread;

use crate::rig::{Meeting, Store, random, run, schedules};

const SHARDS: u64 = 4;
const KEYS: u64 = 24;
/// A short log takes little memory.
const LOG_BYTES: u64 = 4 << 20;
const INDEX: &str = "cold-task-index";
/// One of so many reads fails, where one does.
const READS: u64 = 8;

/// What is wrong with the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// A byte of a part.
    Damage,
    /// One read fails.
    Error,
    Both,
}

/// Reads since the store was opened: of the index, and of anything.
#[derive(Default)]
struct Counts {
    index: AtomicU64,
    all: AtomicU64,
}

fn open(disk: Arc<dyn Disk>) -> Store {
    Store::open_with(Some(disk), |settings| {
        (settings.shards, settings.log_bytes) = (Some(SHARDS as usize), LOG_BYTES);
    })
}

/// A directory with an index, of a store that was closed in good order: of key `n` the value is `n + 1`.
fn closed() -> FaultyDisk {
    static CLOSED: OnceLock<FaultyDisk> = OnceLock::new();
    let make = || {
        let store = open(Arc::new(CLOSED.get_or_init(FaultyDisk::new).clone()));
        let caller = store.caller("tasks");
        for key in 0..KEYS {
            assert_eq!(store.number(&caller, &format!("INCRBY {key} {}", key + 1)), key as i64 + 1);
        }
        store.engine.close().unwrap();
    };
    if CLOSED.get().is_none() {
        run(1, 1, make);
    }
    CLOSED.get().expect("it is made").crash_image(0)
}

/// A store whose disk has this trouble, and what it reads from now on.
fn troubled(trouble: Trouble) -> (Arc<Store>, Arc<Counts>) {
    let disk = Meeting(closed());
    disk.0.cache_reads(true);
    if matches!(trouble, Trouble::Damage | Trouble::Both) {
        let file = disk.0.open(INDEX).unwrap();
        // The parts are behind the head, which is shorter than the half.
        let half = file.size().unwrap() / 2;
        let (at, mut byte) = (half + random(half), [0]);
        file.read_at(&mut byte, at).unwrap();
        file.write_at(&[byte[0] ^ 1], at).unwrap();
    }
    let fails_at = matches!(trouble, Trouble::Error | Trouble::Both).then(|| random(READS));
    let counts: Arc<Counts> = Arc::default();
    let counting = Arc::clone(&counts);
    let is_open = Arc::new(AtomicU64::new(0));
    let opened = Arc::clone(&is_open);
    let disk = Hooked::new(disk.disk(), move |operation, name| {
        if operation == Operation::Read && opened.load(Relaxed) > 0 {
            counting.index.fetch_add(u64::from(name == INDEX), Relaxed);
            if Some(counting.all.fetch_add(1, Relaxed)) == fails_at {
                return Err(io::ErrorKind::Other.into());
            }
        }
        Ok(())
    });
    let store = Arc::new(open(Arc::new(disk)));
    is_open.store(1, Relaxed);
    (store, counts)
}

/// Who says lines again that the disk has failed; it fails once.
struct Client {
    store: Arc<Store>,
    caller: Caller,
    failed: i64,
}

impl Client {
    fn number(&mut self, line: &str) -> i64 {
        loop {
            match self.store.say(&self.caller, 0, line) {
                Some(Reply::Error(error)) if error.kind() == ErrorKind::Unavailable => self.failed += 1,
                Some(Reply::Integer(number) | Reply::Value(Value::Int(number))) => return number,
                Some(Reply::Missing) => return 0,
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}

/// What somebody does; how often the disk failed him.
type Act = Box<dyn FnOnce(&mut Client) + Send>;

/// Runs all of them at once; how often the disk failed somebody.
fn together(store: &Arc<Store>, acts: Vec<Act>) -> i64 {
    let spawn = |act: Act| {
        let mut client = Client { store: Arc::clone(store), caller: store.caller("tasks"), failed: 0 };
        thread::spawn(move || {
            act(&mut client);
            client.failed
        })
    };
    let threads: Vec<_> = acts.into_iter().map(spawn).collect();
    threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
}

/// Reads two keys, one that is there and one that is not.
fn reads() -> Act {
    Box::new(|client| {
        let key = random(KEYS - 2);
        assert_eq!(client.number(&format!("EXISTS {key}")), 1);
        assert_eq!(client.number(&format!("GET {key}")), key as i64 + 1);
        assert_eq!(client.number(&format!("GET {}", KEYS + key)), 0);
    })
}

fn loads() {
    let trouble = [Trouble::None, Trouble::Damage, Trouble::Error, Trouble::Both][random(4) as usize];
    let (store, counts) = troubled(trouble);
    let failed = together(
        &store,
        vec![
            reads(),
            reads(),
            Box::new(|client| {
                let size = client.number("DBSIZE");
                assert!((KEYS as i64 - 1..=KEYS as i64).contains(&size), "{size} keys");
            }),
            Box::new(|client| client.store.engine.do_chore(Chore::Tier)),
            // The last two keys are this one's.
            Box::new(|client| {
                assert_eq!(client.number(&format!("DEL {}", KEYS - 1)), 1);
                assert_eq!(client.number(&format!("GET {}", KEYS - 1)), 0, "deleted");
                assert_eq!(client.number(&format!("INCR {}", KEYS - 2)), KEYS as i64);
            }),
        ],
    );
    let tier = store.engine.stats().tier.expect("it has one");
    assert_eq!(tier.shards_to_load, 0, "who counts the keys has needed all");
    let read = counts.index.load(Relaxed);
    match trouble {
        Trouble::None => assert_eq!((read, failed), (SHARDS, 0), "each part is read once"),
        Trouble::Damage => assert!(read <= SHARDS && failed == 0, "{read} parts read, {failed} failed"),
        Trouble::Error | Trouble::Both => {
            assert!(read <= SHARDS && failed <= 1, "{read} parts read, {failed} failed");
        }
    }
    let last = |client: &mut Client| {
        for key in 0..KEYS - 2 {
            assert_eq!(client.number(&format!("GET {key}")), key as i64 + 1);
        }
        assert_eq!(client.number(&format!("GET {}", KEYS - 2)), KEYS as i64);
        assert_eq!(client.number(&format!("GET {}", KEYS - 1)), 0);
        assert_eq!(client.number("DBSIZE"), KEYS as i64 - 1);
        assert!(client.store.engine.checkpoint(), "nothing is in the way");
    };
    together(&store, vec![Box::new(last)]);
}

#[test]
fn each_part_is_loaded_once_and_everybody_who_needs_it_is_answered() {
    closed();
    let test = "indexes::each_part_is_loaded_once_and_everybody_who_needs_it_is_answered";
    println!("{}", schedules(test, 3000, loads));
}
