//! What commands carry counts: large answers share an allowance, in turns that nobody is left out of, and the process stays
//! within its budget meanwhile.

#![expect(clippy::disallowed_types, reason = "clients of a process block, and are no workers")]

mod served;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use data_bridge_kv::{Engine, Settings};
use data_bridge_kv_model::command::table::opcode;
use data_bridge_kv_model::frame::{self, RequestHead};
use data_bridge_kv_model::{Reply, ReplyReader, Value};
use data_bridge_kv_server::Server;
use data_bridge_kv_testkit::directory::Directory;
use data_bridge_kv_testkit::random::Random;
use served::{Raw, config, within};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const BUDGET: u64 = 64 << 20;

/// The program on a directory of its own, with what the system counts for it at most.
struct Program {
    child: Child,
    address: SocketAddr,
    _directory: Directory,
    most_resident: Arc<AtomicU64>,
    looks: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
}

impl Program {
    fn start(name: &str) -> Program {
        let directory = Directory::new(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_data-bridge-kv"));
        command.env_clear().args(["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--data"]);
        command.arg(directory.path()).args(["--max-memory", &BUDGET.to_string()]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let after = line.split("native on ").nth(1).unwrap_or_else(|| panic!("{line}"));
        let address = after.split([',', ';', '"']).next().unwrap().parse().unwrap();
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        let (most_resident, looks, ends) = <(Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let seen = (Arc::clone(&most_resident), Arc::clone(&looks), Arc::clone(&ends));
        let statm = format!("/proc/{}/statm", child.id());
        std::thread::spawn(move || {
            while !seen.2.load(Relaxed) {
                let Ok(text) = std::fs::read_to_string(&statm) else { break };
                let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
                seen.0.fetch_max(pages * 4096, Relaxed);
                seen.1.fetch_add(1, Relaxed);
                std::thread::park_timeout(std::time::Duration::from_millis(5));
            }
        });
        Program { child, address, _directory: directory, most_resident, looks, ends }
    }

    /// What was the most since this was asked last, as a share of the budget.
    fn most_of_budget(&self) -> f64 {
        assert!(self.looks.swap(0, Relaxed) > 20, "nobody looked");
        self.most_resident.swap(0, Relaxed) as f64 / BUDGET as f64
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that blocks.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(served::PATIENCE)).unwrap();
        Client(BufReader::new(stream))
    }

    fn send(&mut self, words: &[&[u8]]) {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&request).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Reads a bulk string, all bytes of which are this one.
    fn expect_value(&mut self, byte: u8, length: usize) {
        assert_eq!(self.line(), format!("${length}"));
        let mut value = vec![0; length + 2];
        self.0.read_exact(&mut value).unwrap();
        assert!(value.iter().take(length).all(|one| *one == byte) && value.ends_with(b"\r\n"));
    }
}

fn letter(number: usize) -> u8 {
    b'a' + u8::try_from(number % 26).unwrap()
}

#[test]
fn many_clients_reading_many_values_stay_within_the_budget() {
    const KEYS: usize = 1500;
    const LENGTH: usize = 100_000;
    const AT_ONCE: usize = 64;
    let program = Program::start("mget");
    let mut writer = Client::connect(program.address);
    for number in 0..KEYS {
        writer.send(&[b"SET", format!("key:{number}").as_bytes(), &[letter(number); LENGTH]]);
        assert_eq!(writer.line(), "+OK");
    }
    let written = program.most_of_budget();
    std::thread::scope(|scope| {
        for seed in 0..6 {
            let address = program.address;
            scope.spawn(move || {
                let (mut client, mut random) = (Client::connect(address), Random::new(seed));
                for _ in 0..12 {
                    let numbers: Vec<usize> = (0..AT_ONCE).map(|_| random.below(KEYS)).collect();
                    let keys: Vec<String> = numbers.iter().map(|number| format!("key:{number}")).collect();
                    let words = std::iter::once(&b"MGET"[..]).chain(keys.iter().map(String::as_bytes));
                    client.send(&words.collect::<Vec<_>>());
                    assert_eq!(client.line(), format!("*{AT_ONCE}"));
                    numbers.iter().for_each(|number| client.expect_value(letter(*number), LENGTH));
                }
            });
        }
    });
    let read = program.most_of_budget();
    std::thread::scope(|scope| {
        for seed in 0..6 {
            let address = program.address;
            scope.spawn(move || {
                let (mut client, mut random) = (Client::connect(address), Random::new(seed));
                for _ in 0..12 {
                    let pairs: Vec<(String, [u8; LENGTH])> = (0..AT_ONCE)
                        .map(|_| random.below(KEYS))
                        .map(|number| (format!("key:{number}"), [letter(number); LENGTH]))
                        .collect();
                    let words = pairs.iter().flat_map(|(key, value)| [key.as_bytes(), value]);
                    client.send(&std::iter::once(&b"MSET"[..]).chain(words).collect::<Vec<_>>());
                    assert_eq!(client.line(), "+OK");
                }
            });
        }
    });
    let rewritten = program.most_of_budget();
    println!("{rewritten:.2} of the budget while many were written at once");
    println!(
        "RSS was at most {written:.2} of the budget while values were written, {read:.2} while they were read"
    );
    let all = [written, read, rewritten];
    assert!(all.into_iter().all(|most| most <= 1.1), "{all:.2?} of the budget");
}

/// A server in memory with an allowance of 1 MiB.
async fn small() -> Server {
    let settings = Settings { max_memory: 8 << 20, ..Settings::default() };
    let server = Server::start(config(&[], &[]), Arc::new(Engine::open(settings).unwrap())).await.unwrap();
    assert_eq!(server.shared().allowance.bytes(), MIB as u64);
    server
}

async fn set(raw: &mut Raw, key: &str, length: usize) {
    let value = key.repeat(length);
    raw.send(format!("*3\r\n$3\r\nSET\r\n$1\r\n{key}\r\n${length}\r\n{value}\r\n").as_bytes()).await;
    raw.expect("+OK\r\n").await;
}

fn native(id: u32, opcode: u16, args: Vec<Value>) -> Vec<u8> {
    let mut request = Vec::new();
    let at = frame::start_request(RequestHead { id, opcode, flags: 0 }, &mut request);
    args.into_iter().for_each(|arg| arg.encode_into(&mut request));
    frame::finish(at, &mut request);
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_requests_come_in_turn_also_behind_answers_that_are_not_read() {
    let server = small().await;
    let mut writer = Raw::connect(server.addresses()[0]).await;
    set(&mut writer, "a", 300 * KIB).await;
    let pair = |key: &str| format!("$1\r\n{key}\r\n${}\r\n{}\r\n", 300 * KIB, key.repeat(300 * KIB));
    let several = format!("*9\r\n$4\r\nMSET\r\n{}{}{}{}", pair("a"), pair("b"), pair("c"), pair("d"));
    let mut tasks = Vec::new();
    for number in 0..40 {
        let mut raw = Raw::connect(server.addresses()[0]).await;
        let (several, one) = (several.clone(), format!("*3\r\n$3\r\nSET\r\n{}", pair("a")));
        tasks.push(tokio::spawn(async move {
            for _ in 0..3 {
                if number % 2 == 0 {
                    raw.send(several.as_bytes()).await;
                    raw.expect("+OK\r\n").await;
                } else {
                    // The answers are read when everything was sent.
                    raw.send(b"MGET a a a a a a a a a a a a\r\n").await;
                    raw.send(one.as_bytes()).await;
                    raw.send(one.as_bytes()).await;
                    expect_bulks(&mut raw, &["a"; 12], 300 * KIB).await;
                    raw.expect("+OK\r\n+OK\r\n").await;
                }
            }
        }));
    }
    for task in tasks {
        within(task).await.unwrap();
    }
    for allowance in [&server.shared().allowance, &server.shared().intake] {
        until(|| allowance.left() == allowance.bytes()).await;
    }
}

async fn expect_bulks(raw: &mut Raw, keys: &[&str], length: usize) {
    raw.expect(&format!("*{}\r\n", keys.len())).await;
    for key in keys {
        raw.expect(&format!("${length}\r\n")).await;
        let value = raw.read_bytes(length + 2).await;
        assert!(value.starts_with(key.repeat(length).as_bytes()) && value.ends_with(b"\r\n"));
    }
}

async fn until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_for_more_than_there_is_gets_it_in_turn() {
    let server = small().await;
    let mut writer = Raw::connect(server.addresses()[0]).await;
    for key in ["a", "b", "c"] {
        set(&mut writer, key, 300 * KIB).await;
    }
    let mut tasks = Vec::new();
    for number in 0..60 {
        let mut raw = Raw::connect(server.addresses()[0]).await;
        tasks.push(tokio::spawn(async move {
            for _ in 0..4 {
                match number % 4 {
                    // More than there is at all, all there is, and a part of it.
                    0 => {
                        raw.send(b"MGET a b c a b c\r\nPING\r\n").await;
                        expect_bulks(&mut raw, &["a", "b", "c", "a", "b", "c"], 300 * KIB).await;
                        raw.expect("+PONG\r\n").await;
                    }
                    1 => {
                        raw.send(b"GET c\r\nMGET c a b\r\nGET none\r\n").await;
                        raw.expect(&format!("${}\r\n", 300 * KIB)).await;
                        raw.read_bytes(300 * KIB + 2).await;
                        expect_bulks(&mut raw, &["c", "a", "b"], 300 * KIB).await;
                        raw.expect("$-1\r\n").await;
                    }
                    2 => {
                        raw.send(b"MULTI\r\nGET a\r\nGET b\r\nEXEC\r\n").await;
                        raw.expect("+OK\r\n+QUEUED\r\n+QUEUED\r\n").await;
                        expect_bulks(&mut raw, &["a", "b"], 300 * KIB).await;
                    }
                    _ => {
                        raw.send(b"GET b\r\n").await;
                        raw.expect(&format!("${}\r\n", 300 * KIB)).await;
                        raw.read_bytes(300 * KIB + 2).await;
                    }
                }
            }
        }));
    }
    let mut raw = Raw::connect(server.addresses()[0]).await;
    raw.send(&frame::PREFACE).await;
    assert_eq!(raw.read_bytes(4).await, frame::PREFACE);
    for id in 0..8 {
        let keys = ["a", "b", "c", "a"].map(|key| Value::Text(key.into()));
        raw.send(&native(id, opcode::MGET, keys.to_vec())).await;
        let length = u32::from_le_bytes(raw.read_bytes(4).await.try_into().unwrap());
        let body = raw.read_bytes(length as usize).await;
        let (answered, _, item) = frame::read_response(&body).unwrap();
        let Reply::Container(_, values) = ReplyReader::new(item).reply().unwrap() else { panic!() };
        assert_eq!((answered, values.len()), (id, 4));
    }
    for task in tasks {
        within(task).await.unwrap();
    }
    let allowance = &server.shared().allowance;
    until(|| allowance.left() == allowance.bytes()).await;
    assert_eq!(allowance.waiting(), 0);
    // What was counted beside the entries is not any more.
    until(|| server.shared().engine.stats().used_memory < 2 * MIB as u64).await;
}

/// A client that asked for a large answer and does not read it, once the server has no room in the socket any more.
async fn lazy(server: &Server, requests: &str) -> Raw {
    let mut raw = Raw::connect(server.addresses()[0]).await;
    raw.send(requests.as_bytes()).await;
    let allowance = &server.shared().allowance;
    until(|| allowance.left() == 0).await;
    raw
}

#[tokio::test]
async fn who_does_not_read_holds_others_up_for_a_while_only() {
    let server = small().await;
    let mut writer = Raw::connect(server.addresses()[0]).await;
    set(&mut writer, "a", 4 * MIB).await;
    let mut lazy = lazy(&server, "MGET a a a a a a a a a a a a\r\n").await;
    let mut other = Raw::connect(server.addresses()[0]).await;
    other.send(b"GET a\r\n").await;
    until(|| server.shared().allowance.waiting() == 1).await;
    // Whoever needs little goes on.
    assert_eq!(writer.ask("STRLEN a").await, format!(":{}\r\n", 4 * MIB));
    other.expect(&format!("${}\r\n", 4 * MIB)).await;
    other.read_bytes(4 * MIB + 2).await;
    assert_eq!(server.shared().clients.totals().ended, 1);
    lazy.until_closed().await;
}

#[tokio::test]
async fn who_does_not_read_may_take_his_time_if_nobody_waits() {
    let server = small().await;
    let mut writer = Raw::connect(server.addresses()[0]).await;
    set(&mut writer, "a", 4 * MIB).await;
    let keys = ["a"; 12];
    let mut lazy = lazy(&server, "MGET a a a a a a a a a a a a\r\nPING\r\n").await;
    tokio::time::sleep(std::time::Duration::from_secs(12)).await;
    expect_bulks(&mut lazy, &keys, 4 * MIB).await;
    lazy.expect("+PONG\r\n").await;
    assert_eq!(server.shared().clients.totals().ended, 0);
}

#[tokio::test]
async fn who_goes_away_while_waiting_makes_way() {
    let server = small().await;
    let mut writer = Raw::connect(server.addresses()[0]).await;
    set(&mut writer, "a", 4 * MIB).await;
    let lazy = lazy(&server, "MGET a a a a a a a a a a a a\r\n").await;
    let mut other = Raw::connect(server.addresses()[0]).await;
    let id = other.ask("CLIENT ID").await;
    other.send(b"GET a\r\n").await;
    until(|| server.shared().allowance.waiting() == 1).await;
    assert_eq!(writer.ask(&format!("CLIENT KILL ID {}", &id[1..])).await, ":1\r\n");
    until(|| server.shared().allowance.waiting() == 0).await;
    drop(lazy);
    until(|| server.shared().allowance.left() == server.shared().allowance.bytes()).await;
}

#[tokio::test]
async fn an_event_never_comes_in_the_middle_of_an_answer() {
    let server = small().await;
    let mut writer = Raw::connect(server.addresses()[0]).await;
    set(&mut writer, "a", 4 * MIB).await;
    let mut watcher = Raw::connect(server.addresses()[0]).await;
    watcher.ask("HELLO 3").await;
    assert!(watcher.ask("KV.WATCH KEY key").await.starts_with(":"));
    watcher.send(b"MGET a a a a a a a a a a a a\r\n").await;
    until(|| server.shared().allowance.left() == 0).await;
    for number in 0..3 {
        assert_eq!(writer.ask(&format!("SET key {number}")).await, "+OK\r\n");
    }
    expect_bulks(&mut watcher, &["a"; 12], 4 * MIB).await;
    for _ in 0..3 {
        assert!(watcher.reply().await.contains("kv.watch"));
    }
    assert_eq!(watcher.ask("PING").await, "+PONG\r\n");
}
