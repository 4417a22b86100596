//! Measures the table: resident memory per key, and nanoseconds per operation.
//!
//! ```text
//! cargo run --release -p data-bridge-kv --example table_bench -- ram i64 1000000     one line per run
//! cargo run --release -p data-bridge-kv --example table_bench -- ram i64+ttl 1000000
//! cargo run --release -p data-bridge-kv --example table_bench -- curve 5000000       memory while it grows
//! cargo run --release -p data-bridge-kv --example table_bench -- speed 100000        zipf 95/5, 32-byte values
//! ```
//! Memory is the growth of the resident set from before the first key on, keys have 16 bytes, and 32 tables
//! behind one lock each stand for the shards of a namespace.
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::disallowed_types)]

use std::hint::black_box;
use std::time::Instant;

use data_bridge_kv::hash::{KeyHash, KeyHasher};
use data_bridge_kv::sync::real::Mutex;
use data_bridge_kv::table::{NewEntry, NewValue, Table};
use data_bridge_kv_model::Kind;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SHARD_BITS: u32 = 5;
const DEADLINE: u64 = 4_000_000_000_000;
/// Operations whose replies share a buffer.
const BATCH: usize = 16;

struct Store {
    hasher: KeyHasher,
    shards: Vec<Mutex<Table>>,
}

impl Store {
    fn new() -> Store {
        let hasher = KeyHasher::new(0x5eed);
        let shards = (0..1 << SHARD_BITS).map(|_| Mutex::new(Table::new(hasher.clone()))).collect();
        Store { hasher, shards }
    }

    fn shard(&self, hash: KeyHash) -> &Mutex<Table> {
        &self.shards[hash.shard(SHARD_BITS)]
    }

    fn set(&self, key: &[u8], value: NewValue<'_>, deadline: Option<u64>) {
        let hash = self.hasher.hash(key);
        self.set_hashed(hash, key, value, deadline);
    }

    fn set_hashed(&self, hash: KeyHash, key: &[u8], value: NewValue<'_>, deadline: Option<u64>) {
        let new = NewEntry { value, sequence: 1, deadline, heat: 0 };
        self.shard(hash).lock().put(hash, key, new);
    }

    fn get_hashed(&self, hash: KeyHash, key: &[u8], reply: &mut Vec<u8>) {
        let table = self.shard(hash).lock();
        if let Some(payload) = table.find(hash, key).and_then(|entry| entry.value().payload()) {
            reply.extend_from_slice(payload);
        }
    }

    fn memory_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().memory_bytes()).sum()
    }
}

fn key(number: u64) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let mut rest = number;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux tells the resident set");
    let pages: usize = status.split(' ').nth(1).and_then(|field| field.parse().ok()).expect("a number");
    pages * 4096
}

fn ram(what: &str, count: u64) {
    let (value, deadline) = match what.strip_suffix("+ttl") {
        Some(value) => (value, Some(DEADLINE)),
        None => (what, None),
    };
    let store = Store::new();
    let before = resident_bytes();
    let started = Instant::now();
    for number in 0..count {
        match value {
            "i64" => {
                let bytes = (number as i64).to_le_bytes();
                store.set(&key(number), NewValue::Payload { kind: Kind::Int, bytes: &bytes }, deadline);
            }
            size => {
                let len = size.parse().expect("i64 or a number of bytes");
                let bytes = &[number as u8; 4096][..len];
                store.set(&key(number), NewValue::Payload { kind: Kind::Bytes, bytes }, deadline);
            }
        }
    }
    let nanos = started.elapsed().as_nanos() as f64 / count as f64;
    // The allocator gives freed pages back a second late, and only while it works.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    black_box((0..500).map(|len| vec![1u8; len]).collect::<Vec<_>>());
    let resident = (resident_bytes() - before) as f64 / count as f64;
    let accounted = store.memory_bytes() as f64 / count as f64;
    println!(
        "{what:>8} {count:>9} keys  {resident:6.1} B/key resident  {accounted:6.1} accounted  {nanos:5.0} ns/insert"
    );
}

/// Resident and accounted bytes per key while the table grows, to see whether they stay even.
fn curve(count: u64) {
    let store = Store::new();
    let before = resident_bytes();
    let mut next = 500_000;
    for number in 0..count {
        let bytes = (number as i64).to_le_bytes();
        store.set(&key(number), NewValue::Payload { kind: Kind::Int, bytes: &bytes }, None);
        if number + 1 == next {
            let resident = (resident_bytes() - before) as f64 / next as f64;
            let accounted = store.memory_bytes() as f64 / next as f64;
            println!("{next:>9} keys  {resident:6.1} B/key resident  {accounted:6.1} accounted");
            next += next / 12;
        }
    }
}

/// Zipf ranks of exponent 0.99 over `count` keys, as YCSB draws them, scrambled over the key space.
fn zipf_keys(count: u64, draws: usize) -> Vec<u64> {
    let theta = 0.99f64;
    let zeta = |n: u64| (1..=n).map(|rank| 1.0 / (rank as f64).powf(theta)).sum::<f64>();
    let zeta_n = zeta(count);
    let alpha = 1.0 / (1.0 - theta);
    let eta = (1.0 - (2.0 / count as f64).powf(1.0 - theta)) / (1.0 - zeta(2) / zeta_n);
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..draws)
        .map(|_| {
            let u = (random(&mut state) >> 11) as f64 / (1u64 << 53) as f64;
            let uz = u * zeta_n;
            let rank = if uz < 1.0 {
                0
            } else if uz < 1.0 + 0.5f64.powf(theta) {
                1
            } else {
                (count as f64 * (eta * u - eta + 1.0).powf(alpha)) as u64
            };
            rank.min(count - 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) % count
        })
        .collect()
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

fn speed(count: u64) {
    let store = Store::new();
    for number in 0..count {
        store.set(&key(number), NewValue::Payload { kind: Kind::Bytes, bytes: &[1; 32] }, None);
    }
    let draws = 4_000_000;
    let mut state = 77;
    let uniform: Vec<[u8; 16]> = (0..draws).map(|_| key(random(&mut state) % count)).collect();
    let zipf: Vec<[u8; 16]> = zipf_keys(count, draws).into_iter().map(key).collect();
    for (name, keys) in [("zipf", &zipf), ("uniform", &uniform)] {
        let rounds = (0..5).map(|_| timed(keys.len(), || one_by_one(&store, keys))).collect();
        println!("{name:>8} {count:>9} keys  {} ns/op", shown(rounds));
    }
}

/// Nanoseconds of processor time an operation: on a shared machine the clock on the wall tells little.
fn timed(operations: usize, run: impl FnOnce() -> usize) -> f64 {
    let started = processor_nanos();
    black_box(run());
    (processor_nanos() - started) as f64 / operations as f64
}

fn processor_nanos() -> u64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
    schedstat.split(' ').next().and_then(|field| field.parse().ok()).expect("a number")
}

/// Median and range.
fn shown(mut rounds: Vec<f64>) -> String {
    rounds.sort_by(f64::total_cmp);
    format!("{:.0} ({:.0}-{:.0})", rounds[rounds.len() / 2], rounds[0], rounds[rounds.len() - 1])
}

/// Every twentieth operation is a set, the others are gets.
#[inline(never)]
fn one_by_one(store: &Store, keys: &[[u8; 16]]) -> usize {
    let mut reply = Vec::with_capacity(4096);
    for (index, key) in keys.iter().enumerate() {
        let hash = store.hasher.hash(key);
        operate(store, index, hash, key, &mut reply);
        if index % BATCH == 0 {
            reply.clear();
        }
    }
    black_box(reply).len()
}

fn operate(store: &Store, index: usize, hash: KeyHash, key: &[u8], reply: &mut Vec<u8>) {
    if index.is_multiple_of(20) {
        store.set_hashed(hash, key, NewValue::Payload { kind: Kind::Bytes, bytes: &[index as u8; 32] }, None);
    } else {
        store.get_hashed(hash, key, reply);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["ram", what, count] => ram(what, count.parse().expect("a number of keys")),
        ["curve", count] => curve(count.parse().expect("a number of keys")),
        ["speed", count] => speed(count.parse().expect("a number of keys")),
        _ => println!(
            "usage: table_bench ram i64|BYTES[+ttl] KEYS | table_bench curve KEYS | table_bench speed KEYS"
        ),
    }
}
