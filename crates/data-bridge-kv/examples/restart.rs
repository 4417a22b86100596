//! How long a checkpoint takes and holds commands up, and how long a store that was closed takes to open.
//!
//! `cargo run --release -p data-bridge-kv --example restart -- DIR KEYS`; DIR must be empty.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a measuring program")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use data_bridge_kv::settings::Durability;
use data_bridge_kv::{Caller, DataDirectory, Engine, Settings};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::{Arg, ReplyBuf};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn open(directory: &Path) -> Engine {
    let data = DataDirectory::open(directory, |_| 64 << 30).expect("a directory");
    let mut settings = Settings { data: Some(data), log_bytes: 1 << 40, ..Settings::default() };
    settings.namespaces[1].durability = Some(Durability::EverySecond);
    Engine::open(settings).expect("it opens")
}

fn caller(engine: &Engine) -> Caller {
    Caller { namespace: engine.namespace("tasks").expect("it is there"), ..engine.caller() }
}

fn run(engine: &Engine, caller: &Caller, name: &str, args: &[Arg<'_>], out: &mut ReplyBuf) {
    let call = table::by_name(name.as_bytes()).expect("known").call(args).expect("well formed");
    out.truncate(0);
    let _ = engine.execute(caller, 0, &call, out);
}

fn key(number: u64) -> String {
    format!("task:{number:012}")
}

/// Reads while `work` runs; answers the longest that one read took, in microseconds, and how many there were.
fn read_during(engine: &Engine, keys: u64, work: impl FnOnce() + Send) -> (u64, u64) {
    let (is_over, caller) = (AtomicBool::new(false), caller(engine));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            work();
            is_over.store(true, Relaxed);
        });
        let (mut longest, mut count, mut out) = (0, 0, ReplyBuf::new());
        while !is_over.load(Relaxed) {
            let key = key(count * 7919 % keys);
            let start = Instant::now();
            run(engine, &caller, "GET", &[Arg::Untyped(key.as_bytes())], &mut out);
            longest = longest.max(start.elapsed().as_micros() as u64);
            count += 1;
        }
        (longest, count)
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, directory, keys] = arguments.as_slice() else { panic!("DIR KEYS") };
    let (directory, keys) = (Path::new(directory), keys.parse::<u64>().expect("a number"));
    let engine = open(directory);
    let (writer, mut out, value) = (caller(&engine), ReplyBuf::new(), [7; 100]);
    for number in 0..keys {
        let key = key(number);
        run(&engine, &writer, "SET", &[Arg::Untyped(key.as_bytes()), Arg::Untyped(&value)], &mut out);
    }
    let (idle, _) = read_during(&engine, keys, || std::thread::sleep(std::time::Duration::from_secs(1)));
    let start = Instant::now();
    let (longest, reads) = read_during(&engine, keys, || assert!(engine.checkpoint()));
    println!(
        "checkpoint of {keys} keys: {} ms; longest of {reads} reads {longest} us (without it {idle} us)",
        start.elapsed().as_millis()
    );
    let start = Instant::now();
    engine.close().unwrap();
    drop(engine);
    println!("close: {} ms", start.elapsed().as_millis());
    for what in ["with the index", "without the index"] {
        let start = Instant::now();
        let engine = open(directory);
        let opened = start.elapsed().as_millis();
        let key = key(keys / 2);
        run(&engine, &caller(&engine), "GET", &[Arg::Untyped(key.as_bytes())], &mut out);
        println!("open {what}: {opened} ms, first read after {} ms", start.elapsed().as_millis());
        drop(engine);
        std::fs::remove_file(directory.join("cold-task-index")).expect("it is there");
    }
}
