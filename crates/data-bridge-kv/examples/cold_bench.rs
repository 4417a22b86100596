//! Measures the cold tier by itself, on a real disk: demotion, cold reads, missing keys, RAM per key, reclaim, opening.
//!
//! `cargo run --release -p data-bridge-kv --example cold_bench -- DIRECTORY [entries] [value bytes] [durable]`: with a
//! fourth argument batches are synced, and what is left in the end is opened again.
//! `… --example cold_bench -- DIRECTORY churn` measures what expiring entries cost, see `cold_bench/churn.rs`.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a measuring program")]

#[path = "cold_bench/churn.rs"]
mod churn;
#[path = "cold_bench/reads.rs"]
mod reads;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use data_bridge_kv::cold::reclaim::{Fate, Holder, Pick};
use data_bridge_kv::cold::{Batch, Class, Index, Locator, Log, NewRecord, Part, Policy, Restored, Spot};
use data_bridge_kv::disk::RealDisk;
use data_bridge_kv::hash::stable::{KeyId, StableHasher};
use data_bridge_kv::opening::Opening;
use data_bridge_kv::sync::real::Mutex;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SHARD_BITS: u32 = 4;

struct Shards(Vec<Mutex<Index>>);

impl Shards {
    fn new() -> Shards {
        Shards((0..1 << SHARD_BITS).map(|_| Mutex::default()).collect())
    }

    fn of(&self, id: KeyId) -> data_bridge_kv::sync::real::MutexGuard<'_, Index> {
        self.0[id.hash().shard(SHARD_BITS)].lock()
    }
}

impl Holder for Shards {
    fn judge(&self, _: u8, id: KeyId, at: Locator) -> Fate {
        if self.of(id).get(id).is_some_and(|spot| spot.locator == at) { Fate::Moves } else { Fate::Dead }
    }

    fn knows(&self, _: u8, id: KeyId) -> bool {
        self.of(id).get(id).is_some()
    }

    fn relocate(&self, _: u8, id: KeyId, from: Locator, to: Locator) -> bool {
        self.of(id).relocate(id, from, to)
    }
}

/// User and system time of the process so far, in microseconds.
fn cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("a Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().map(|at| fields[*at].parse::<f64>().expect("a number")).sum();
    ticks * 10_000.0
}

fn key(n: usize) -> String {
    format!("key:{n:012}")
}

// long: one measurement after the other, each on what the one before left
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let directory = PathBuf::from(arguments.first().expect("a directory"));
    if arguments.get(1).is_some_and(|what| what == "churn") {
        for grouped in [false, true] {
            let disk = Arc::new(RealDisk::open(&directory).expect("a directory"));
            churn::run(disk, &StableHasher::new(1), &[b'v'; 150], grouped);
        }
        return;
    }
    let number =
        |at: usize, otherwise| arguments.get(at).map_or(otherwise, |text| text.parse().expect("a number"));
    let (entries, value_bytes) = (number(1, 5_000_000), number(2, 150));
    let hasher = StableHasher::new(1);
    let policy = Policy {
        class: Class::Task,
        is_durable: arguments.get(3).is_some(),
        segment_bytes: 64 << 20,
        max_bytes: u64::MAX,
        batch_bytes: data_bridge_kv_model::limits::COLD_BATCH_BYTES,
        fingerprint: hasher.fingerprint(),
    };
    let disk = Arc::new(RealDisk::open(&directory).expect("a directory"));
    let log = Log::create(Arc::clone(&disk) as _, policy).expect("an empty log");
    let shards = Shards::new();
    let value = vec![b'v'; value_bytes];

    let (start, cpu) = (Instant::now(), cpu_us());
    let (mut batch, mut worst) = (Batch::default(), 0.0_f64);
    for n in 0..entries {
        let key = key(n);
        let id = hasher.id(key.as_bytes());
        let deadline = (n % 2 == 0).then_some(1_800_000_000_000 + n as u64);
        let entry = NewRecord {
            namespace: 0,
            generation: 0,
            id,
            key: key.as_bytes(),
            version: (1 << 60) + n as u64 / 16,
            deadline,
            kind: 6,
        };
        batch.put(entry, |out| out.extend_from_slice(&value));
        if batch.is_full() || n + 1 == entries {
            let began = Instant::now();
            log.append(&mut batch).expect("room");
            for item in batch.items() {
                let spot = Spot::new(item.locator.expect("appended"), item.deadline(), item.kind());
                shards.of(item.id()).insert(item.id(), spot);
            }
            batch.clear();
            worst = worst.max(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_us() - cpu);
    let logical = entries as f64 * (key(0).len() + value_bytes) as f64;
    let bytes = log.usage().bytes as f64;
    println!(
        "demote: {:.0} k entries/s, {:.2} us CPU an entry, {:.3} bytes on disk per byte, worst batch {worst:.0} ms",
        entries as f64 / seconds / 1e3,
        cpu / entries as f64,
        bytes / logical
    );
    let memory: usize = shards.0.iter().map(|index| index.lock().memory_bytes()).sum();
    println!("index: {:.1} bytes a key", memory as f64 / entries as f64);

    let read = |n: usize| {
        let key = key(n);
        let id = hasher.id(key.as_bytes());
        let spot = shards.of(id).get(id).expect("there");
        let fetched = log.source(spot.locator).expect("there").read(Part::Whole).expect("whole");
        assert_eq!(fetched.entry(0, key.as_bytes()).expect("this key").value.len(), value_bytes);
    };
    reads::run(&directory, entries, value_bytes, read);

    let reads = 200_000.min(entries);
    let (start, cpu) = (Instant::now(), cpu_us());
    for n in 0..reads {
        read(n.wrapping_mul(7_919_993) % entries);
    }
    let per_read = |total: f64| total / reads as f64;
    println!(
        "cold read: {:.2} us, {:.2} us CPU (page cache as it is)",
        per_read(start.elapsed().as_secs_f64() * 1e6),
        per_read(cpu_us() - cpu)
    );
    let missing: Vec<String> = (0..1_000_000).map(|n| format!("missing:{n:08}")).collect();
    let start = Instant::now();
    let mut found = 0;
    for key in &missing {
        let id = hasher.id(key.as_bytes());
        found += usize::from(shards.of(id).get(id).is_some());
    }
    println!("missing key: {:.0} ns, {found} found", start.elapsed().as_secs_f64() * 1e3);

    for n in (0..entries).filter(|n| n % 3 != 0) {
        let id = hasher.id(key(n).as_bytes());
        let spot = shards.of(id).remove(id).expect("there");
        log.forget(0, 0, id, 1 << 61, spot.locator);
    }
    log.append(&mut Batch::default()).expect("room");
    let (start, cpu, mut moved) = (Instant::now(), cpu_us(), 0);
    while let Some(done) = log.reclaim(&shards, Pick::Deadest(40)).expect("whole") {
        moved += done.moved;
    }
    println!(
        "reclaim: {moved} entries moved in {:.1} s, {:.2} us CPU each, then {:?}",
        start.elapsed().as_secs_f64(),
        (cpu_us() - cpu) / moved as f64,
        log.usage()
    );
    let live: usize = shards.0.iter().map(|index| index.lock().len()).sum();

    if !policy.is_durable {
        return;
    }
    drop((log, shards));
    let (start, shards) = (Instant::now(), Shards::new());
    let log = Log::open(disk, policy).expect("whole");
    let opened = start.elapsed().as_secs_f64();
    let insert = |found: Restored| {
        shards.of(found.id).insert(found.id, found.spot);
    };
    log.replay(|_, _, _| true, &Opening::default(), insert).expect("whole");
    let keys: usize = shards.0.iter().map(|index| index.lock().len()).sum();
    assert_eq!(keys, live);
    println!("open: {opened:.2} s, index of {keys} keys after {:.2} s", start.elapsed().as_secs_f64());
}
