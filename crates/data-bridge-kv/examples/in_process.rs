//! Speed of the engine inside a Rust process: what `make bench NAME=engine` runs.
//!
//! `in_process KEYS THREADS BATCH SECONDS`: keys of 16 bytes with 32-byte values are filled in, then every thread reads
//! (95 %) and writes (5 %) keys drawn by Zipf's law (exponent 0.99), one at a time or in batches of at most 64. Prints one
//! line: operations a second of all threads together, and nanoseconds of CPU time of one operation. Part of that is to read
//! the next sample, to write its key, which takes some ten instructions, and to copy the value out.
//!
//! One at a time it goes by [`Engine::try_read`] and [`Engine::try_write`], as the Python binding does; in batches by
//! [`Engine::look_ahead`], as both doors of the server do.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that measures time and prints it"
)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, LazyLock};
use std::time::{Duration, Instant};

use data_bridge_kv::shard::put_value;
use data_bridge_kv::table::Stored;
use data_bridge_kv::{Caller, Engine, Lookahead, Pin, Settings};
use data_bridge_kv_model::command::{Call, Expiry, ScalarCommand, SetOptions, table};
use data_bridge_kv_model::{Arg, Command, Key, Load, ReplyBuf, ValueRef};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Samples a thread goes through again and again.
const SAMPLES: usize = 1 << 20;
/// One in so many operations is a write.
const WRITE_EVERY: usize = 20;
/// Operations between two looks at the stop flag.
const CHUNK: usize = 1 << 12;
/// The largest batch.
const MOST_BATCH: usize = 64;

fn main() -> ExitCode {
    let numbers: Vec<f64> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let [keys, threads, batch, seconds] = numbers[..] else {
        println!("usage: in_process KEYS THREADS BATCH SECONDS");
        return ExitCode::from(2);
    };
    let (keys, threads, batch) = (keys as usize, threads as usize, batch as usize);
    let engine = Engine::open(Settings::default()).expect("the default settings are valid");
    fill(&engine, keys);
    let (start, stop) = (Barrier::new(threads + 1), AtomicBool::new(false));
    let samples: Vec<Vec<u32>> = (0..threads).map(|thread| zipf(keys, thread as u64 + 1)).collect();
    let measured: Vec<Measured> = std::thread::scope(|scope| {
        let mut workers = Vec::new();
        for samples in &samples {
            let (engine, start, stop) = (&engine, &start, &stop);
            workers.push(scope.spawn(move || {
                start.wait();
                work(engine, samples, batch, stop)
            }));
        }
        start.wait();
        std::thread::sleep(Duration::from_secs_f64(seconds));
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    let rate: f64 = measured.iter().map(|one| one.operations / one.seconds).sum();
    let cpu: f64 = measured.iter().map(|one| one.cpu_ns / one.operations).sum::<f64>() / threads as f64;
    println!("{rate:.0} {cpu:.2}");
    ExitCode::SUCCESS
}

/// What one thread did.
struct Measured {
    operations: f64,
    seconds: f64,
    cpu_ns: f64,
}

fn fill(engine: &Engine, keys: usize) {
    let (caller, mut out) = (engine.caller(), ReplyBuf::new());
    for number in 0..keys {
        let _ = engine.execute(&caller, 0, &set(&name(number as u32)), &mut out);
        out.truncate(0);
    }
}

/// Works in one thread until it is told to stop.
fn work(engine: &Engine, samples: &[u32], batch: usize, stop: &AtomicBool) -> Measured {
    let (caller, mut out) = (engine.caller(), ReplyBuf::new());
    let mut memory = Lookahead::default();
    let (start, cpu) = (Instant::now(), thread_cpu_ns());
    let mut done = 0_usize;
    for chunk in samples.chunks(CHUNK).cycle() {
        if batch == 1 {
            one_by_one(engine, &caller, chunk, &mut out);
        } else {
            for part in chunk.chunks(batch.min(MOST_BATCH)) {
                memory = in_batches(engine, &caller, part, &mut out, memory);
            }
        }
        done += chunk.len();
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Measured {
        operations: done as f64,
        seconds: start.elapsed().as_secs_f64(),
        cpu_ns: thread_cpu_ns() - cpu,
    }
}

/// CPU time of this thread so far.
fn thread_cpu_ns() -> f64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    schedstat.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(f64::NAN)
}

fn one_by_one(engine: &Engine, caller: &Caller, chunk: &[u32], out: &mut ReplyBuf) {
    for (place, number) in chunk.iter().enumerate() {
        let name = name(*number);
        let done = if place.is_multiple_of(WRITE_EVERY) {
            engine.try_write(caller, key(&name), value(), Expiry::Default).is_ok()
        } else {
            let put = |value: Option<Stored<'_>>| value.map(|value| put_value(value, out));
            engine.try_read(caller, key(&name), put).is_ok()
        };
        if !done {
            let _ = engine.execute(caller, 0, &call(place, &name), out);
        }
        out.truncate(0);
    }
}

fn in_batches(
    engine: &Engine,
    caller: &Caller,
    part: &[u32],
    out: &mut ReplyBuf,
    memory: Lookahead,
) -> Lookahead {
    let mut names = [[0; 16]; MOST_BATCH];
    for (place, number) in names.iter_mut().zip(part) {
        *place = name(*number);
    }
    let names = &names[..part.len()];
    let pin = Pin::new();
    let mut ahead = memory.begin(&pin);
    let mut lookout = engine.look_ahead(caller, &mut ahead);
    names.iter().for_each(|name| lookout.tell(Some(name), None));
    lookout.ask();
    for (place, name) in names.iter().enumerate() {
        let turn = ahead.turn(place);
        let done = if place.is_multiple_of(WRITE_EVERY) {
            engine.write_ahead(caller, key(name), value(), turn)
        } else {
            let put = |value: Option<Stored<'_>>| Some(value.map(|value| put_value(value, out)));
            engine.read_ahead(caller, key(name), turn, put).is_some()
        };
        if !done {
            let call = call(place, name);
            let _ = engine.execute_ahead(caller, (call.spec, call.load), &call.command, turn, out);
        }
    }
    out.truncate(0);
    ahead.end()
}

fn call(place: usize, name: &[u8]) -> Call<'_> {
    if place.is_multiple_of(WRITE_EVERY) { set(name) } else { get(name) }
}

fn get(name: &[u8]) -> Call<'_> {
    Call {
        spec: *GET,
        command: Command::Scalar(ScalarCommand::Get { key: key(name), any_kind: true }),
        load: Load { args: 1, bytes: name.len() },
    }
}

fn set(name: &[u8]) -> Call<'_> {
    let (value, options) = (Arg::Value(value()), SetOptions::PLAIN);
    Call {
        spec: *SET,
        command: Command::Scalar(ScalarCommand::Set { key: key(name), value, options }),
        load: Load { args: 2, bytes: name.len() + 32 },
    }
}

/// What is stored.
fn value() -> ValueRef<'static> {
    ValueRef::bytes(&[b'x'; 32])
}

static GET: LazyLock<&table::Spec> = LazyLock::new(|| table::by_name(b"GET").expect("the table has it"));
static SET: LazyLock<&table::Spec> = LazyLock::new(|| table::by_name(b"SET").expect("the table has it"));

fn key(name: &[u8]) -> Key<'_> {
    Key::new(name).expect("letters are a key")
}

/// The key of a number: its hexadecimal digits, counted from `a`.
fn name(number: u32) -> [u8; 16] {
    let steps = [(16, 0x0000_ffff_0000_ffff), (8, 0x00ff_00ff_00ff_00ff), (4, 0x0f0f_0f0f_0f0f_0f0f)];
    let spread = |word: u64, (shift, mask): (u32, u64)| (word | word << shift) & mask;
    let digits = steps.into_iter().fold(u64::from(number), spread);
    let mut text = *b"key:0000aaaaaaaa";
    text[8..].copy_from_slice(&(digits + u64::from_le_bytes(*b"aaaaaaaa")).to_be_bytes());
    text
}

/// Keys drawn by Zipf's law with exponent 0.99 by inverting its distribution; ranks are spread over the key numbers.
fn zipf(keys: usize, seed: u64) -> Vec<u32> {
    let mut total = 0.0;
    let cumulated: Vec<f64> = (1..=keys)
        .map(|rank| {
            total += (rank as f64).powf(-0.99);
            total
        })
        .collect();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let draw = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let at = (state >> 11) as f64 / (1_u64 << 53) as f64 * total;
        let rank = cumulated.partition_point(|sum| *sum < at).min(keys - 1) as u64;
        (rank.wrapping_mul(0x9E37_79B1) % keys as u64) as u32
    };
    (0..SAMPLES).map(draw).collect()
}
