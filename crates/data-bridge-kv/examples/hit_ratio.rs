//! Hit ratios of our eviction order beside true LRU and S3-FIFO, on real traces and on synthetic ones.
//!
//! `cargo run --release -p data-bridge-kv --example hit_ratio [SHARDS]`, 16 shards unless given. The traces are read
//! from `../shared/data/traces` beside the checkout, or from the folder in `KV_TRACES`; they are not part of the tree.
//! Ends with failure if the traces are there and the target is missed: on every trace and size at least true LRU less
//! half a point, and on the mean at least S3-FIFO.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that reads files and prints a table"
)]

#[path = "hit_ratio/namespace.rs"]
mod namespace;
#[path = "hit_ratio/synthetic.rs"]
mod synthetic;
#[path = "hit_ratio/traces.rs"]
mod traces;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use data_bridge_kv::settings::Eviction;
use namespace::{Namespace, true_lru};

/// Hit ratios in percent.
#[derive(Clone, Copy, Default)]
struct Measured {
    lru: f64,
    ours: f64,
    lfu: f64,
}

fn main() -> ExitCode {
    let shards = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(16);
    println!(
        "{shards} shards, unit sizes, hit ratio in percent; LRU is computed here, S3-FIFO by libCacheSim 0.3.5\n"
    );
    let met = real(shards);
    made_up(shards);
    cost();
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The real traces. False if the target is missed.
fn real(shards: usize) -> bool {
    let Some(traces) = traces::load() else {
        println!("skipped: no traces in ../shared/data/traces nor in KV_TRACES\n");
        return true;
    };
    let rows: Vec<(&[u32], usize)> =
        traces::ROWS.iter().map(|row| (traces[row.trace].as_slice(), row.capacity)).collect();
    let measured = measure(&rows, shards);
    println!("| trace | capacity | LRU | S3-FIFO | ours | ours - LRU | lfu |");
    println!("|---|---|---|---|---|---|---|");
    let (mut ours, mut s3_fifo, mut worst) = (0.0, 0.0, f64::MAX);
    for (row, is) in traces::ROWS.iter().zip(&measured) {
        let margin = is.ours - is.lru;
        println!(
            "| {} | {} | {:.2} | {:.2} | {:.2} | {margin:+.2} | {:.2} |",
            row.trace, row.capacity, is.lru, row.s3_fifo, is.ours, is.lfu
        );
        ours += is.ours / measured.len() as f64;
        s3_fifo += row.s3_fifo / measured.len() as f64;
        worst = margin.min(worst);
    }
    let met = worst >= -0.5 && ours >= s3_fifo;
    println!(
        "\n{} rows: mean {ours:.2} (S3-FIFO {s3_fifo:.2}), least margin to LRU {worst:+.2}: target {}\n",
        measured.len(),
        if met { "met" } else { "MISSED" }
    );
    met
}

/// Synthetic workloads: what each is about stands in `synthetic.rs`.
fn made_up(shards: usize) {
    let workloads = synthetic::all();
    let rows: Vec<(&[u32], usize)> = workloads
        .iter()
        .flat_map(|workload| workload.capacities.iter().map(|capacity| (workload.ids.as_slice(), *capacity)))
        .collect();
    let names = workloads
        .iter()
        .flat_map(|workload| workload.capacities.iter().map(|capacity| (workload.name, capacity)));
    println!("| synthetic | capacity | LRU | ours | ours - LRU | lfu |");
    println!("|---|---|---|---|---|---|");
    for ((name, capacity), is) in names.zip(measure(&rows, shards)) {
        let margin = is.ours - is.lru;
        println!("| {name} | {capacity} | {:.2} | {:.2} | {margin:+.2} | {:.2} |", is.lru, is.ours, is.lfu);
    }
}

/// Runs every row on the cores there are.
fn measure(rows: &[(&[u32], usize)], shards: usize) -> Vec<Measured> {
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut done = Vec::new();
        while let Some((ids, capacity)) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
            let hit_ratio = |policy| Namespace::new(policy, shards, *capacity).hit_ratio(ids);
            let measured = Measured {
                lru: true_lru(ids, *capacity),
                ours: hit_ratio(Eviction::Lru),
                lfu: hit_ratio(Eviction::Lfu),
            };
            let place = rows.iter().position(|row| std::ptr::eq(row.0, *ids) && row.1 == *capacity);
            done.extend(place.map(|place| (place, measured)));
        }
        done
    };
    let mut all = vec![Measured::default(); rows.len()];
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for handle in handles {
            for (place, measured) in handle.join().expect("a worker does not panic") {
                all[place] = measured;
            }
        }
    });
    all
}

/// Memory a key and time a miss, on a million keys with nothing but misses and with a mix.
fn cost() {
    const KEYS: usize = 1_000_000;
    println!("\n| 1 M keys, 16 shards | RAM of queues and ghosts, B a key | ns an operation |");
    println!("|---|---|---|");
    for (name, ids) in
        [("only new keys", synthetic::scan(3 * KEYS)), ("zipf 0.9", synthetic::zipf(6 * KEYS, 3 * KEYS))]
    {
        let mut namespace = Namespace::new(Eviction::Lru, 16, KEYS);
        let start = Instant::now();
        let hits = namespace.hit_ratio(&ids);
        let each = start.elapsed().as_nanos() as f64 / ids.len() as f64;
        let bytes = namespace.order_bytes() as f64 / KEYS as f64;
        println!("| {name}, {hits:.1} % hits | {bytes:.1} | {each:.0} (with the model's own table) |");
    }
}
