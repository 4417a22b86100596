//! A server with data of several budgets that is read and written by clients that come and go, lets keys expire, and is killed
//! again and again: what was on disk is there, what has expired is gone, and memory, open files and the directory stay within
//! bounds.
//!
//! `KV_SOAK_SECONDS` says how long it is used, checks apart, and `KV_SEED` where it starts.

#![expect(clippy::disallowed_types, reason = "the client blocks, and is no worker")]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use data_bridge_kv_testkit::directory::Directory;
use data_bridge_kv_testkit::random::{Random, setting};

const BUDGET: u64 = 24 << 20;
/// Keys that stay, five budgets of them, and the bytes of a value.
const KEYS: usize = 20_000;
const VALUE_BYTES: usize = 6000;
const LIVES: u64 = 4;
const PIPELINE: usize = 32;
/// So many batches at least of each life, however slow the machine is.
const BATCHES: u64 = 10;
/// One batch in so many goes over a connection of its own.
const NEWCOMERS: usize = 2;
/// How long a key lives that expires, and when it has to be gone.
const TTL_MS: u64 = 500;
const GONE: Duration = Duration::from_millis(2000);
const PATIENCE: Duration = Duration::from_secs(120);
/// Bounds: resident memory (a budget so small takes the process to twice of it), files that are open, files of the directory,
/// their bytes.
const RESIDENT: u64 = 2 * BUDGET;
const OPEN_FILES: usize = 160;
const FILES: usize = 130;
const DISK_BYTES: u64 = 350 << 20;

fn bytes_and_files(directory: &Directory) -> (u64, usize) {
    let sizes: Vec<u64> = std::fs::read_dir(directory.path())
        .unwrap()
        .filter_map(|entry| entry.unwrap().metadata().ok())
        .map(|file| file.len())
        .collect();
    (sizes.iter().sum(), sizes.len())
}

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(directory: &Path) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_data-bridge-kv"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--log-bytes", "16MB"]);
        command.args(["--namespace", "tasks:task:everysec", "--max-memory", &BUDGET.to_string(), "--data"]);
        let mut child = command.arg(directory).env_clear().stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        // It may say how far loading is before.
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "the server ended");
            if let Some((_, rest)) = line.split_once("native on ") {
                break rest.split([',', ';']).next().unwrap().parse().unwrap();
            }
        };
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Server { child, address }
    }

    fn resident(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }

    fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(server: &Server) -> Client {
        let stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Client(BufReader::new(stream));
        assert_eq!(client.ask(&[vec![b"SELECT".to_vec(), b"1".to_vec()]]), [Some(b"OK".to_vec())]);
        client
    }

    /// Sends commands, and reads their answers: a status or a value, `None` for no value.
    fn ask(&mut self, commands: &[Vec<Vec<u8>>]) -> Vec<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        for words in commands {
            write!(bytes, "*{}\r\n", words.len()).unwrap();
            for word in words {
                write!(bytes, "${}\r\n", word.len()).unwrap();
                bytes.extend_from_slice(word);
                bytes.extend_from_slice(b"\r\n");
            }
        }
        self.0.get_mut().write_all(&bytes).unwrap();
        commands.iter().map(|_| self.read()).collect()
    }

    fn read(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).unwrap();
        let text = String::from_utf8(line).unwrap();
        match text.trim_end().split_at(1) {
            ("+", status) => Some(status.as_bytes().to_vec()),
            ("$", "-1") => None,
            ("$", bytes) => {
                let mut value = vec![0; bytes.parse::<usize>().unwrap() + 2];
                self.0.read_exact(&mut value).unwrap();
                value.truncate(value.len() - 2);
                Some(value)
            }
            _ => panic!("the server says {text}"),
        }
    }
}

fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

fn value(name: &str, round: u64) -> Vec<u8> {
    let mut value = format!("{name} {round} ").into_bytes();
    let byte = b'a' + (round % 26) as u8;
    value.resize(VALUE_BYTES, byte);
    value
}

/// The round of a value, which has to be one of this key.
fn round_of(name: &str, found: &[u8]) -> u64 {
    let round = String::from_utf8_lossy(found).split(' ').nth(1).and_then(|round| round.parse().ok());
    let round = round.unwrap_or_else(|| panic!("{name} has {} strange bytes", found.len()));
    assert!(found == value(name, round), "{name} is not what was written");
    round
}

/// What was written: of each key the round that is on disk for sure, and the last one.
struct Ledger {
    rounds: Vec<(u64, u64)>,
    volatile: VecDeque<(u64, Instant)>,
    written: u64,
    gone: u64,
}

fn name(key: usize) -> String {
    format!("key:{key}")
}

/// Reads back everything after a kill.
fn check(client: &mut Client, ledger: &mut Ledger) {
    for keys in (0..KEYS).collect::<Vec<_>>().chunks(PIPELINE) {
        let gets: Vec<_> = keys.iter().map(|key| words(&["GET", &name(*key)])).collect();
        for (key, found) in keys.iter().zip(client.ask(&gets)) {
            let found = found.map_or(0, |found| round_of(&name(*key), &found));
            let (synced, last) = ledger.rounds[*key];
            assert!((synced..=last).contains(&found), "{}: {synced}..={last} has {found}", name(*key));
            ledger.rounds[*key] = (found, found);
        }
    }
}

/// Some commands: nine of ten read, the rest writes; the low keys more often than the high ones.
fn mix(client: &mut Client, ledger: &mut Ledger, random: &mut Random) {
    let mut commands = Vec::new();
    let mut wanted = Vec::new();
    for _ in 0..PIPELINE {
        let below = 1 + random.below(KEYS);
        let key = random.below(below);
        if random.one_in(10) {
            let round = ledger.rounds[key].1 + 1;
            ledger.rounds[key].1 = round;
            commands.push(vec![b"SET".to_vec(), name(key).into_bytes(), value(&name(key), round)]);
        } else {
            commands.push(words(&["GET", &name(key)]));
        }
        wanted.push((key, ledger.rounds[key].1));
    }
    ledger.written += 1;
    let volatile = format!("volatile:{}", ledger.written);
    let mut set = words(&["SET", &volatile, "", "PX", &TTL_MS.to_string()]);
    set[2] = value(&volatile, 1);
    commands.push(set);
    let is_over = ledger.volatile.front().is_some_and(|(_, since)| since.elapsed() > GONE);
    let expired = if is_over { ledger.volatile.pop_front() } else { None };
    commands.extend(expired.map(|(number, _)| words(&["GET", &format!("volatile:{number}")])));
    let mut answers = client.ask(&commands).into_iter();
    for ((key, round), command) in wanted.into_iter().zip(&commands) {
        let found = answers.next().unwrap();
        if command[0] == b"GET" {
            assert_eq!(found.map_or(0, |found| round_of(&name(key), &found)), round, "{}", name(key));
        }
    }
    ledger.volatile.push_back((ledger.written, Instant::now()));
    assert_eq!(answers.next().unwrap(), Some(b"OK".to_vec()));
    if let Some(found) = answers.next() {
        assert!(found.is_none(), "it has expired");
        ledger.gone += 1;
    }
}

#[test]
fn what_is_used_for_long_keeps_its_data_and_its_bounds() {
    let directory = Directory::new("soak");
    let mut random = Random::new(setting("KV_SEED", 1));
    let life = Duration::from_secs(setting("KV_SOAK_SECONDS", 8)) / LIVES as u32;
    let mut ledger = Ledger { rounds: vec![(0, 0); KEYS], volatile: VecDeque::new(), written: 0, gone: 0 };
    let (mut most_resident, mut most_open, mut most_files, mut most_bytes) = (0, 0, 0, 0);
    for number in 0..LIVES {
        let server = Server::start(directory.path());
        let mut client = Client::connect(&server);
        if number == 0 {
            for keys in (0..KEYS).collect::<Vec<_>>().chunks(PIPELINE) {
                let sets =
                    keys.iter().map(|key| vec![b"SET".to_vec(), name(*key).into(), value(&name(*key), 1)]);
                assert!(client.ask(&sets.collect::<Vec<_>>()).iter().all(Option::is_some));
            }
            ledger.rounds.fill((0, 1));
        } else {
            check(&mut client, &mut ledger);
        }
        let (since, least, mut synced) = (Instant::now(), ledger.written + BATCHES, false);
        while since.elapsed() < life || ledger.written < least || !synced {
            if random.one_in(NEWCOMERS) {
                client = Client::connect(&server);
            }
            mix(&mut client, &mut ledger, &mut random);
            most_resident = most_resident.max(server.resident());
            if !synced && since.elapsed() > life / 2 {
                synced = true;
                assert_eq!(client.ask(&[words(&["KV.SYNC"])]), [Some(b"OK".to_vec())]);
                ledger.rounds.iter_mut().for_each(|(synced, last)| *synced = *last);
            }
        }
        most_open = most_open.max(server.open_files());
        // The next start would remove what this one has left.
        let (bytes, files) = bytes_and_files(&directory);
        (most_bytes, most_files) = (most_bytes.max(bytes), most_files.max(files));
        drop(server);
    }
    let server = Server::start(directory.path());
    check(&mut Client::connect(&server), &mut ledger);
    println!(
        "{} batches, {} keys expired, {LIVES} kills; {} MiB resident, {most_open} open files, {most_files} files with {} MiB",
        ledger.written,
        ledger.gone,
        most_resident >> 20,
        most_bytes >> 20,
    );
    assert!(most_resident < RESIDENT, "{most_resident} bytes resident");
    assert!(most_open < OPEN_FILES, "{most_open} open files");
    assert!(most_files < FILES && most_bytes < DISK_BYTES, "{most_files} files, {most_bytes} bytes");
}
