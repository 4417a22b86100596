//! Measures the log by itself, on a real disk: threads that each append a record of 256 bytes and wait until it is
//! durable, beside a bare loop that writes and syncs as much, one record at a time.
//!
//! `cargo run --release -p data-bridge-kv --example wal_bench -- DIRECTORY [seconds a row] [threads...]`
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a measuring program")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use data_bridge_kv::SystemClock;
use data_bridge_kv::disk::{Disk, RealDisk};
use data_bridge_kv::wal::{NewRecord, Wal, WalPolicy, WalStats};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BYTES: usize = 256;
const HEAD: NewRecord = NewRecord { namespace: 1, generation: 1, kind: 1 };

/// User and system time of the process so far, in microseconds.
fn cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("a Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().map(|at| fields[*at].parse::<f64>().expect("a number")).sum();
    ticks * 10_000.0
}

/// One record at a time into a file that is zeroed before.
fn bare(directory: &Path, seconds: f64) {
    let disk = RealDisk::open(directory).expect("a directory");
    let _ = disk.remove("bare");
    let file = disk.create("bare").expect("a file");
    file.allocate(64 << 20).and_then(|()| file.sync_data()).expect("space");
    let (start, cpu, mut records) = (Instant::now(), cpu_us(), 0_u64);
    while start.elapsed().as_secs_f64() < seconds {
        let offset = records * BYTES as u64 % (63 << 20);
        file.write_at(&[7; BYTES], offset).and_then(|()| file.sync_data()).expect("written");
        records += 1;
    }
    let (took, cpu) = (start.elapsed().as_secs_f64(), cpu_us() - cpu);
    let rate = records as f64 / took;
    println!(
        "| bare pwrite + fdatasync, 1 thread | {rate:.0} | {rate:.0} | 1.0 | {:.1} | |",
        cpu / records as f64
    );
    disk.remove("bare").expect("it is there");
}

fn open(directory: &Path) -> Arc<Wal> {
    let disk = Arc::new(RealDisk::open(directory).expect("a directory"));
    let clock = Arc::new(SystemClock::new());
    let (wal, _) = Wal::open(disk, clock, WalPolicy::default(), &mut |_, _| Ok(())).expect("an empty log");
    let wal = Arc::new(wal);
    wal.start().expect("a thread");
    wal
}

/// Threads that append; they wait for each record if `durable`.
fn threads(directory: &Path, seconds: f64, count: usize, durable: bool) {
    let wal = open(directory);
    let (stop, appended) = (AtomicBool::new(false), AtomicU64::new(0));
    let (before, start, cpu) = (wal.stats(), Instant::now(), cpu_us());
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                let mut records = 0;
                while !stop.load(Relaxed) {
                    wal.wait_room(0);
                    let _room = wal.reserve(false, BYTES).expect("space");
                    let lsn = wal.append(HEAD, &[7; BYTES], durable);
                    if durable {
                        wal.wait_durable(lsn).expect("durable");
                    }
                    records += 1;
                }
                appended.fetch_add(records, Relaxed);
            });
        }
        std::thread::park_timeout(Duration::from_secs_f64(seconds));
        stop.store(true, Relaxed);
    });
    let (took, cpu, stats) = (start.elapsed().as_secs_f64(), cpu_us() - cpu, wal.stats());
    report(count, durable, &stats, &before, (appended.load(Relaxed) as f64, took, cpu));
    wal.trim(wal.durable()).expect("trimmed");
    wal.close();
}

fn report(count: usize, durable: bool, stats: &WalStats, before: &WalStats, run: (f64, f64, f64)) {
    let ((records, took, cpu), syncs) = (run, (stats.syncs - before.syncs) as f64);
    let name = if durable { "each waits for its record" } else { "nobody waits" };
    println!(
        "| {count} threads, {name} | {:.0} | {:.0} | {:.1} | {:.1} | mean {:.0}, max {} |",
        records / took,
        syncs / took,
        records / syncs,
        cpu / records,
        (stats.sync_us_sum - before.sync_us_sum) as f64 / syncs,
        stats.sync_us_max,
    );
}

fn main() {
    let mut args = std::env::args().skip(1);
    let root = PathBuf::from(args.next().expect("a directory"));
    let seconds = args.next().map_or(3.0, |text| text.parse().expect("seconds"));
    let counts: Vec<usize> = args.map(|text| text.parse().expect("a count of threads")).collect();
    let counts = if counts.is_empty() { vec![1, 8, 64, 256] } else { counts };
    let directory = root.join(format!("wal-bench-{}", std::process::id()));
    println!("| what | records/s | syncs/s | records a sync | CPU us a record | us a sync |");
    println!("|---|---|---|---|---|---|");
    bare(&directory, seconds);
    for count in &counts {
        threads(&directory, seconds, *count, true);
        bare(&directory, seconds / 2.0);
    }
    threads(&directory, seconds, 2, false);
    std::fs::remove_dir_all(&directory).expect("it is there");
}
