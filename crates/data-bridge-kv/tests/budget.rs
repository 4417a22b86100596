//! The memory budget against what the system counts for the process: here a reader that the test turns.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use data_bridge_kv::engine::Stats;
use data_bridge_kv::{Caller, DataDirectory, Engine, Eviction, Mode, Resident, Settings};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::{Arg, Reply, ReplyBuf, ReplyReader};
use data_bridge_kv_testkit::disk::FaultyDisk;

const LIMIT: u64 = 16 << 20;

/// A process that holds a store and something beside it.
#[derive(Default)]
struct Process {
    engine: OnceLock<Weak<Engine>>,
    beside: AtomicU64,
    is_unknown: AtomicBool,
}

impl Process {
    fn used(&self) -> u64 {
        self.engine.get().and_then(Weak::upgrade).map_or(0, |engine| engine.stats().used_memory)
    }

    fn resident(&self) -> u64 {
        self.used() + self.beside.load(Ordering::SeqCst)
    }
}

impl Resident for Process {
    fn bytes(&self) -> Option<u64> {
        (!self.is_unknown.load(Ordering::SeqCst)).then(|| self.resident())
    }
}

struct Store {
    engine: Arc<Engine>,
    caller: Caller,
    process: Arc<Process>,
}

impl Store {
    fn new(has_directory: bool, background: bool) -> Store {
        let process = Arc::new(Process::default());
        let disk = || DataDirectory::on(Arc::new(FaultyDisk::new()), 1 << 30).unwrap();
        let mut settings = Settings {
            max_memory: LIMIT,
            resident: Some(process.clone()),
            shards: Some(4),
            seed: Some(5),
            background,
            data: has_directory.then(disk),
            ..Settings::default()
        };
        settings.namespaces[0].eviction = Eviction::Lru;
        settings.namespaces[1].mode = Mode::Cache;
        let engine = Arc::new(Engine::open(settings).unwrap());
        let _ = process.engine.set(Arc::downgrade(&engine));
        Store { caller: engine.caller(), engine, process }
    }

    fn run(&self, name: &str, args: &[&[u8]]) -> Reply {
        let args: Vec<Arg<'_>> = args.iter().map(|arg| Arg::Untyped(arg)).collect();
        let mut out = ReplyBuf::new();
        let call = table::by_name(name.as_bytes()).unwrap().call(&args).unwrap();
        let _ = self.engine.execute(&self.caller, 0, &call, &mut out);
        ReplyReader::new(out.as_bytes()).reply().unwrap()
    }

    fn set(&self, number: usize) {
        assert_eq!(self.run("SET", &[key(number).as_bytes(), &value(number)]), Reply::Ok, "{number}");
    }

    /// Writes a share of keys, then lets the store look at its process.
    fn fill(&self, keys: std::ops::Range<usize>, mut look: impl FnMut(&Stats)) {
        for number in keys {
            self.set(number);
            if number % 64 == 0 {
                self.engine.tick();
                look(&self.engine.stats());
            }
        }
    }
}

fn key(number: usize) -> String {
    format!("key:{number}")
}

fn value(number: usize) -> Vec<u8> {
    let length = [40, 500, 700, 3000, 40_000][number % 5];
    (0..length).map(|at| (number * 31 + at) as u8).collect()
}

/// What the process had at most, as a share of the limit, while the memory beside the store changes.
fn most_of_the_limit(store: &Store) -> f64 {
    let mut most = 0;
    for (round, beside) in [1_u64, 4, 8, 2, 9].into_iter().enumerate() {
        // Slack does not come all at once: a look is a hundredth of a second.
        for step in 0..32 {
            let (now, goal) = (store.process.beside.load(Ordering::SeqCst), beside << 20);
            let next = if goal > now { goal.min(now + (512 << 10)) } else { goal };
            store.process.beside.store(next, Ordering::SeqCst);
            let first = (round * 32 + step) * 64;
            store.fill(first..first + 64, |_| most = most.max(store.process.resident()));
        }
    }
    most as f64 / LIMIT as f64
}

#[test]
fn a_cache_gives_way_to_what_else_the_process_takes() {
    let store = Store::new(false, false);
    let most = most_of_the_limit(&store);
    assert!(most <= 1.05, "{most:.3} of the limit");
    let stats = store.engine.stats();
    assert!(stats.namespaces[0].evicted > 1000, "{stats:?}");
    assert!(stats.memory_target < LIMIT / 8 * 5 && stats.used_memory > LIMIT / 8, "{stats:?}");
}

#[test]
fn a_store_with_a_directory_gives_way_and_keeps_everything() {
    let store = Store::new(true, false);
    let most = most_of_the_limit(&store);
    assert!(most <= 1.05, "{most:.3} of the limit");
    let stats = store.engine.stats();
    assert!(stats.tier.unwrap().demoted > 1000 && stats.namespaces[0].evicted == 0);
    let mut checked = 0;
    for number in 0..5 * 32 * 64 {
        let expected = Reply::Value(data_bridge_kv_model::Value::Bytes(value(number).into()));
        assert_eq!(store.run("GET", &[key(number).as_bytes()]), expected, "{number}");
        checked += 1;
    }
    println!("{checked} values read back, at most {most:.3} of the limit");
}

/// Commands on several keys take what is on disk into memory: readers filled it without a bound.
#[test]
fn readers_of_many_keys_make_room_for_them() {
    const KEYS: usize = 10_000;
    let store = Store::new(true, false);
    store.fill(0..KEYS, |_| {});
    let mut most = 0;
    for first in (0..KEYS).step_by(50) {
        let keys: Vec<String> = (first..first + 50).map(key).collect();
        let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
        assert!(matches!(store.run("MGET", &keys), Reply::Container(_, values) if values.len() == 50));
        most = most.max(store.engine.stats().used_memory);
    }
    let tier = store.engine.stats().tier.unwrap();
    assert!(tier.promoted > KEYS as u64 / 2, "{tier:?}");
    // One command's keys may stand above the limit.
    assert!(most <= LIMIT + (1 << 20), "{most} of {LIMIT} bytes");
}

#[test]
fn what_leaves_needs_no_writer() {
    for has_directory in [false, true] {
        let store = Store::new(has_directory, false);
        store.fill(0..3000, |_| {});
        store.process.beside.store(LIMIT / 2, Ordering::SeqCst);
        for _ in 0..50 {
            store.engine.tick();
        }
        assert!(store.process.resident() <= LIMIT, "{}", store.process.resident());
        // Room that is there again is used again, not at once.
        store.process.beside.store(0, Ordering::SeqCst);
        let low = store.engine.stats().memory_target;
        store.engine.tick();
        let next = store.engine.stats().memory_target;
        assert!(next > low && next < low + LIMIT / 64, "{low} to {next}");
    }
}

#[test]
fn what_can_not_be_told_changes_nothing() {
    let store = Store::new(false, false);
    store.process.beside.store(LIMIT, Ordering::SeqCst);
    store.process.is_unknown.store(true, Ordering::SeqCst);
    store.fill(0..1000, |_| {});
    assert_eq!(store.engine.stats().memory_target, LIMIT);
}

#[test]
fn writers_that_outrun_the_disk_are_held_and_go_on() {
    let store = Store::new(true, true);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || (0..2500).for_each(|number| store.set(number * 4 + thread)));
        }
    });
    let stats = store.engine.stats();
    let tier = stats.tier.unwrap();
    assert!(tier.stalls > 0 && tier.stall_us > 0 && tier.demoted > 1000, "{tier:?}");
    assert_eq!(stats.namespaces[0].evicted, 0);
    assert!(stats.used_memory <= LIMIT + LIMIT / 20, "{}", stats.used_memory);
}

#[test]
fn a_process_that_stays_too_large_slows_writers_and_stops_none() {
    let store = Store::new(true, false);
    store.fill(0..1000, |_| {});
    store.process.beside.store(LIMIT, Ordering::SeqCst);
    (0..50).for_each(|_| store.engine.tick());
    (1000..1200).for_each(|number| store.set(number));
    let stats = store.engine.stats();
    assert!(stats.tier.unwrap().stalls > 0);
    assert_eq!(stats.memory_target, LIMIT / 8 * 3, "a store keeps its share");
    assert!(stats.used_memory <= stats.memory_target + LIMIT / 64, "{}", stats.used_memory);
}
