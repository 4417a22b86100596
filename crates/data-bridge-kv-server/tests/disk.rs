//! A server whose disk hangs: who needs it waits, nobody else does, with no more threads than the program has.

mod served;

use std::sync::Arc;

use data_bridge_kv::{DataDirectory, Engine, Settings};
use data_bridge_kv_model::command::table::opcode;
use data_bridge_kv_model::frame::{self, RequestHead};
use data_bridge_kv_model::{Reply, ReplyReader, Value};
use data_bridge_kv_server::config::keys::KeyName;
use data_bridge_kv_server::{Server, disk};
use data_bridge_kv_testkit::disk::FaultyDisk;
use served::{PATIENCE, Raw, config, within};

/// More connections than there are threads that could wait for the disk.
const CONNECTIONS: usize = 600;
/// Of the log: few writes take all room in it.
const LOG_SEGMENT_BYTES: u64 = 64 << 10;

/// Runs a test on a runtime like the program's.
fn on_few_threads(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).max_blocking_threads(disk::THREADS).enable_all().build().unwrap();
    runtime.block_on(test);
}

/// Connections that wait for the disk at a time, at most.
fn most_waiting() -> u64 {
    disk::turns(u64::MAX).0 as u64
}

/// A server with so many keys on disk, all of them one letter long.
async fn cold(keys: usize) -> (Server, FaultyDisk, Arc<Engine>) {
    cold_within(u64::MAX, keys).await
}

/// The same within a memory budget.
async fn cold_within(max_memory: u64, keys: usize) -> (Server, FaultyDisk, Arc<Engine>) {
    let disk = FaultyDisk::new();
    let data = DataDirectory::on(Arc::new(disk.clone()), 1 << 30).unwrap();
    let blocking = |act: &mut (dyn FnMut() + Send)| tokio::task::block_in_place(act);
    let log_segment_bytes = Some(LOG_SEGMENT_BYTES);
    let settings =
        Settings { max_memory, data: Some(data), blocking, log_segment_bytes, ..Settings::default() };
    let engine = Arc::new(Engine::open(settings).unwrap());
    // A server that has several threads may write the log on one of those that serve: that one would wait as the disk does.
    let config = config(&[(KeyName::Threads, "1")], &[]);
    let server = Server::start(config, Arc::clone(&engine)).await.unwrap();
    let mut writer = Raw::connect(server.addresses()[0]).await;
    for n in 0..keys {
        writer.send(format!("SET key:{n} c\r\n").as_bytes()).await;
        writer.expect("+OK\r\n").await;
    }
    engine.demote_all();
    (server, disk, engine)
}

/// Waits until as many reads wait for the disk as ever do.
async fn until_waiting(disk: &FaultyDisk) {
    within(async {
        while disk.reads().waiting < most_waiting() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[test]
fn who_needs_the_disk_waits_and_nobody_else() {
    on_few_threads(readers_wait());
}

async fn readers_wait() {
    let (server, disk, engine) = cold(CONNECTIONS).await;
    let mut hot = Raw::connect(server.addresses()[0]).await;
    assert_eq!(hot.ask("SET hot 1").await, "+OK\r\n");
    disk.hold_reads(true);
    let mut readers = Vec::new();
    for n in 0..CONNECTIONS {
        let mut reader = Raw::connect(server.addresses()[0]).await;
        // What is answered before the cold key comes at once, what stands behind it waits.
        reader.send(format!("GET hot\r\nGET key:{n}\r\nINCR hot:{n}\r\n").as_bytes()).await;
        reader.expect("$1\r\n1\r\n").await;
        readers.push(reader);
    }
    until_waiting(&disk).await;
    let mut slowest = std::time::Duration::ZERO;
    for n in 0..2000 {
        let start = std::time::Instant::now();
        assert_eq!(hot.ask(&format!("SET hot {n}")).await, "+OK\r\n");
        let expected = format!("${}\r\n{n}\r\n", n.to_string().len());
        assert_eq!(hot.ask("GET hot").await, expected);
        assert_eq!(hot.ask("EXISTS key:1 hot:1").await, ":1\r\n");
        slowest = slowest.max(start.elapsed());
    }
    assert!(slowest < PATIENCE / 4, "the slowest of 2000 turns took {slowest:?}");
    assert!(engine.stats().tier.unwrap().coalesced == 0);
    disk.hold_reads(false);
    for reader in &mut readers {
        reader.expect("$1\r\nc\r\n:1\r\n").await;
    }
    server.stop(PATIENCE).await;
}

/// Memory that is too full for writers, with nothing leaving it until this goes.
struct Shortage {
    disk: FaultyDisk,
    engine: Arc<Engine>,
}

/// Of a budget, what the shards hold, and what counts beside them.
const BUDGET: u64 = 1 << 20;
const HOT_BYTES: u64 = 850_000;
const BESIDE: usize = 3 << 17;

impl Shortage {
    async fn begin(server: &Server, disk: &FaultyDisk, engine: &Arc<Engine>) -> Shortage {
        let mut writer = Raw::connect(server.addresses()[0]).await;
        let mut n = 0;
        while engine.stats().used_memory < HOT_BYTES {
            assert_eq!(writer.ask(&format!("SET hot:{n} {}", "h".repeat(1000))).await, "+OK\r\n");
            n += 1;
        }
        disk.hold_writes(true);
        engine.count_beside(0, BESIDE);
        Shortage { disk: disk.clone(), engine: Arc::clone(engine) }
    }

    /// Waits until so many writers wait.
    async fn until_held(&self, writers: u64) {
        within(async {
            while self.engine.stats().tier.unwrap().stalls < writers {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(self.engine.holds_writers());
    }
}

impl Drop for Shortage {
    fn drop(&mut self) {
        self.engine.count_beside(BESIDE, 0);
        self.disk.hold_writes(false);
    }
}

#[test]
fn who_reads_from_disk_does_not_wait_for_those_that_need_room() {
    on_few_threads(readers_go_on());
}

async fn readers_go_on() {
    const WRITERS: usize = 60;
    let (server, disk, engine) = cold_within(BUDGET, 40).await;
    let shortage = Shortage::begin(&server, &disk, &engine).await;
    // Those that write at once, those that read from disk before, and those whose steps are not one.
    let requests = [
        ("SET new:# n", "+OK\r\n"),
        ("GET key:1\r\nSET new:# n", "$1\r\nc\r\n+OK\r\n"),
        ("MULTI\r\nSET new:# n\r\nPING\r\nEXEC", "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n+PONG\r\n"),
    ];
    let mut writers = Vec::new();
    for n in 0..WRITERS {
        let (request, answer) = requests[n % requests.len()];
        let mut writer = Raw::connect(server.addresses()[0]).await;
        writer.send(format!("{}\r\n", request.replace('#', &n.to_string())).as_bytes()).await;
        writers.push((writer, answer));
    }
    // Of the last kind some wait for their turn only.
    shortage.until_held(2 * WRITERS as u64 / 3 + 1).await;
    let before = engine.stats().tier.unwrap();
    let mut reader = Raw::connect(server.addresses()[0]).await;
    for n in 0..120 {
        assert_eq!(reader.ask(&format!("GET key:{}", n % 40)).await, "$1\r\nc\r\n");
    }
    // Nor do commands and steps that read several.
    for n in 0..40 {
        let (one, other) = (n, (n + 7) % 40);
        let found = reader.ask(&format!("MGET key:{one} key:{other}")).await;
        assert_eq!(found, "*2\r\n$1\r\nc\r\n$1\r\nc\r\n");
        reader.send(format!("MULTI\r\nGET key:{one}\r\nSTRLEN key:{other}\r\nEXEC\r\n").as_bytes()).await;
        reader.expect("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$1\r\nc\r\n:1\r\n").await;
    }
    let after = engine.stats().tier.unwrap();
    assert_eq!((after.copied - before.copied, after.promoted), (280, before.promoted));
    assert_eq!(reader.ask("EXISTS new:0 new:1 new:2").await, ":0\r\n");
    shortage.until_held(0).await;
    drop(shortage);
    for (mut writer, answer) in writers {
        writer.expect(answer).await;
    }
    server.stop(PATIENCE).await;
}

#[test]
fn who_reads_from_disk_does_not_wait_for_those_that_need_room_in_the_log() {
    on_few_threads(readers_pass_the_log());
}

/// Writes wait until this goes, also where the test fails: the runtime would wait for them.
struct HeldWrites(FaultyDisk);

impl Drop for HeldWrites {
    fn drop(&mut self) {
        self.0.hold_writes(false);
    }
}

async fn readers_pass_the_log() {
    const WRITERS: usize = 64;
    let (server, disk, _) = cold(40).await;
    let mut first = Raw::connect(server.addresses()[0]).await;
    first.send(b"SELECT 1\r\nSET first 1\r\n").await;
    first.expect("+OK\r\n+OK\r\n").await;
    disk.hold_writes(true);
    let held = HeldWrites(disk);
    let value = "v".repeat(10_000);
    let mut writers = Vec::new();
    for n in 0..WRITERS {
        let mut writer = Raw::connect(server.addresses()[0]).await;
        assert_eq!(writer.ask("SELECT 1").await, "+OK\r\n");
        writer.send(format!("*3\r\n$3\r\nSET\r\n$2\r\n{n:02}\r\n$10000\r\n{value}\r\n").as_bytes()).await;
        writers.push(writer);
    }
    let mut reader = Raw::connect(server.addresses()[0]).await;
    for n in 0..120 {
        assert_eq!(reader.ask(&format!("GET key:{}", n % 40)).await, "$1\r\nc\r\n");
    }
    drop(held);
    for mut writer in writers {
        writer.expect("+OK\r\n").await;
    }
    server.stop(PATIENCE).await;
}

#[test]
fn transactions_and_native_clients_wait_alone_too() {
    on_few_threads(transactions_wait());
}

async fn transactions_wait() {
    let (server, disk, _) = cold(150).await;
    let mut hot = Raw::connect(server.addresses()[0]).await;
    disk.hold_reads(true);
    let (mut readers, mut watchers, mut native) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..50 {
        let mut reader = Raw::connect(server.addresses()[0]).await;
        reader.send(format!("MULTI\r\nGET key:{n}\r\nAPPEND key:{n} d\r\nEXEC\r\n").as_bytes()).await;
        readers.push(reader);
        // One that watches a key on disk, and asks for something that is no step on keys between its steps.
        let (own, cold) = (format!("SET own:{n} 1"), n + 100);
        let mut reader = Raw::connect(server.addresses()[0]).await;
        reader
            .send(
                format!("WATCH key:{cold}\r\nMULTI\r\n{own}\r\nPING\r\nSTRLEN key:{cold}\r\nEXEC\r\n")
                    .as_bytes(),
            )
            .await;
        watchers.push(reader);
        let mut reader = Raw::connect(server.addresses()[0]).await;
        let mut requests = frame::PREFACE.to_vec();
        for (id, key) in
            [(7, "missing".to_owned()), (8, format!("key:{}", n + 50)), (9, "missing".to_owned())]
        {
            let at =
                frame::start_request(RequestHead { id, opcode: opcode::KV_GET, flags: 0 }, &mut requests);
            Value::Text(key.into()).encode_into(&mut requests);
            frame::finish(at, &mut requests);
        }
        reader.send(&requests).await;
        native.push(reader);
    }
    until_waiting(&disk).await;
    for turn in 1..=100 {
        assert_eq!(hot.ask("INCR hot").await, format!(":{turn}\r\n"));
        assert_eq!(hot.ask("WATCH hot missing").await, "+OK\r\n");
        hot.send(b"MULTI\r\nGET hot\r\nGET missing\r\nEXEC\r\n").await;
        let number = turn.to_string();
        let answer = format!("${}\r\n{number}\r\n", number.len());
        hot.expect(&format!("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n{answer}$-1\r\n")).await;
    }
    assert!(disk.reads().waiting <= disk::WAITING as u64);
    disk.hold_reads(false);
    for reader in &mut readers {
        reader.expect("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$1\r\nc\r\n:2\r\n").await;
    }
    for reader in &mut watchers {
        reader.expect("+OK\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n+OK\r\n+PONG\r\n:1\r\n").await;
    }
    let value = || Reply::Value(Value::Bytes(b"c".as_slice().into()));
    for mut reader in native {
        assert_eq!(reader.read_bytes(4).await, frame::PREFACE);
        for expected in [(7, Reply::Missing), (8, value()), (9, Reply::Missing)] {
            let length = u32::from_le_bytes(reader.read_bytes(4).await.try_into().unwrap());
            let body = reader.read_bytes(length as usize).await;
            let (id, _, item) = frame::read_response(&body).unwrap();
            assert_eq!((id, ReplyReader::new(item).reply().unwrap()), expected);
        }
    }
    server.stop(PATIENCE).await;
}

#[test]
fn what_is_too_large_for_its_length_to_be_known_in_memory_is_read_too() {
    on_few_threads(large_values_are_read());
}

async fn large_values_are_read() {
    const ELEMENT: usize = 500_000;
    const ELEMENTS: usize = 9;
    let (server, _, engine) = cold(1).await;
    let mut client = Raw::connect(server.addresses()[0]).await;
    let element = format!("${ELEMENT}\r\n{}\r\n", "e".repeat(ELEMENT));
    let push = format!("*3\r\n$5\r\nRPUSH\r\n$4\r\nlist\r\n{element}");
    for count in 1..=ELEMENTS {
        client.send(push.as_bytes()).await;
        client.expect(&format!(":{count}\r\n")).await;
    }
    for key in ["text", "other"] {
        let text = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n$4500000\r\n", key.len());
        client.send(format!("{text}{}\r\n", "t".repeat(4_500_000)).as_bytes()).await;
        client.expect("+OK\r\n").await;
    }
    let text = format!("$4500000\r\n{}\r\n", "t".repeat(4_500_000));
    let requests = [
        ("GET text", text.clone()),
        ("MGET text key:0 other", format!("*3\r\n{text}$1\r\nc\r\n{text}")),
        ("LRANGE list 0 -1", format!("*{ELEMENTS}\r\n{}", element.repeat(ELEMENTS))),
        ("LINDEX list 3", element.clone()),
        ("RPUSH list e", format!(":{}\r\n", ELEMENTS + 1)),
        ("APPEND text t", ":4500001\r\n".to_owned()),
    ];
    for (request, answer) in requests {
        for number in 0..2 {
            engine.demote_all();
            client.send(format!("{request}\r\nPING\r\n").as_bytes()).await;
            let grown = number > 0 && (request.starts_with("RPUSH") || request.starts_with("APPEND"));
            match grown {
                true => drop(client.reply().await),
                false => client.expect(&answer).await,
            }
            client.expect("+PONG\r\n").await;
        }
    }
    server.stop(PATIENCE).await;
}
