//! Load generator of `make bench`: many connections on one thread, each with one pipeline of commands under way.
//!
//! `load --address A --command C [--protocol resp|native] [--connections 50] [--pipeline 16] [--value 100]`
//! `[--keys 1000000] [--ttl SECONDS | --deadline UNIX_MS --span MS]`, then either `--seconds S` (random keys) or `--fill true` (each key once, in order). Prints one line:
//! `operations seconds errors`. Connections take turns: take the replies of one, send its next pipeline once all are
//! there, go to the next. The generator never sleeps, as clients on other machines would be awake: waking one costs the
//! server more than a command does, and the faster a server is, the more often its client would sleep.

mod wire;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use wire::Argument::{Bytes, Int, Text};
use wire::{Protocol, Verb};

/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Members of each collection that a collection command draws from.
const MEMBERS: u64 = 100;

fn main() -> ExitCode {
    match Settings::from_arguments().and_then(|settings| run(&settings)) {
        Ok(outcome) => {
            let Outcome { operations, seconds, errors } = outcome;
            match writeln!(io::stdout(), "{operations} {seconds:.6} {errors}") {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        Err(message) => {
            let _ = writeln!(io::stderr(), "load: {message}");
            ExitCode::from(2)
        }
    }
}

/// What to send, where to, and for how long.
struct Settings {
    address: String,
    protocol: Protocol,
    command: Command,
    verbs: [Verb; 2],
    connections: usize,
    pipeline: u64,
    value: Vec<u8>,
    keys: u64,
    ttl: Option<i64>,
    /// First deadline in Unix milliseconds; the keys' deadlines are spread evenly over `span` milliseconds.
    deadline: Option<i64>,
    span: u64,
    seconds: f64,
    fill: bool,
}

#[derive(Clone, Copy)]
enum Command {
    Get,
    Set,
    Incr,
    LpushRpop,
    Hset,
    Sadd,
    Zadd,
}

struct Outcome {
    operations: u64,
    seconds: f64,
    errors: u64,
}

impl Settings {
    fn from_arguments() -> Result<Self, String> {
        let mut settings = Self {
            address: String::new(),
            protocol: Protocol::Resp,
            command: Command::Get,
            verbs: Command::Get.verbs(false),
            connections: 50,
            pipeline: 16,
            value: vec![b'x'; 100],
            keys: 1_000_000,
            ttl: None,
            deadline: None,
            span: 0,
            seconds: 1.0,
            fill: false,
        };
        let mut arguments = std::env::args().skip(1);
        while let (Some(name), Some(text)) = (arguments.next(), arguments.next()) {
            let wrong = |_| format!("{name} {text}: not a number");
            match name.as_str() {
                "--address" => settings.address = text,
                "--command" => settings.command = Command::named(&text)?,
                "--protocol" => {
                    settings.protocol = if text == "native" { Protocol::Native } else { Protocol::Resp }
                }
                "--connections" => settings.connections = text.parse().map_err(wrong)?,
                "--pipeline" => settings.pipeline = text.parse().map_err(wrong)?,
                "--value" => settings.value = vec![b'x'; text.parse().map_err(wrong)?],
                "--keys" => settings.keys = text.parse().map_err(wrong)?,
                "--ttl" => settings.ttl = Some(text.parse().map_err(wrong)?),
                "--deadline" => settings.deadline = Some(text.parse().map_err(wrong)?),
                "--span" => settings.span = text.parse().map_err(wrong)?,
                "--seconds" => {
                    settings.seconds = text.parse().map_err(|_| format!("{name} {text}: not a number"))?
                }
                "--fill" => settings.fill = text == "true",
                _ => return Err(format!("unknown option {name}")),
            }
        }
        settings.verbs = settings.command.verbs(settings.fill);
        Ok(settings)
    }

    /// Appends one command; returns how many replies it asks for.
    fn append(&self, out: &mut Vec<u8>, number: u64, key: u64) -> u64 {
        let member = number % MEMBERS;
        let [first, second] = self.verbs;
        let mut put = |verb, arguments: &[wire::Argument<'_>]| self.protocol.append(out, verb, arguments);
        match self.command {
            Command::Get => put(first, &[Text(&digits("key:", key))]),
            Command::Set => {
                let (key_text, value) = (digits("key:", key), Bytes(&self.value));
                let spread = (key * self.span / self.keys) as i64;
                match (self.ttl, self.deadline) {
                    (Some(ttl), _) => put(first, &[Text(&key_text), value, Text("EX"), Int(ttl)]),
                    (_, Some(at)) => put(first, &[Text(&key_text), value, Text("PXAT"), Int(at + spread)]),
                    (None, None) => put(first, &[Text(&key_text), value]),
                }
            }
            Command::Incr if !self.fill => put(first, &[Text(&digits("key:", key))]),
            Command::Incr => {
                put(first, &[Text(&digits("key:", key)), Int(1_234_000_000_000_000 + number as i64)]);
                if let Some(ttl) = self.ttl {
                    put(second, &[Text(&digits("key:", key)), Int(ttl)]);
                    return 2;
                }
            }
            Command::LpushRpop if number.is_multiple_of(2) => {
                put(first, &[Text(&digits("lst:", key)), Bytes(&self.value)]);
            }
            Command::LpushRpop => put(second, &[Text(&digits("lst:", key))]),
            Command::Hset => {
                put(first, &[Text(&digits("hsh:", key)), Text(&digits("fld:", member)), Bytes(&self.value)]);
            }
            Command::Sadd => put(first, &[Text(&digits("set:", key)), Text(&digits("mem:", member))]),
            Command::Zadd => {
                put(first, &[Text(&digits("zst:", key)), Int(number as i64), Text(&digits("mem:", member))]);
            }
        }
        1
    }
}

impl Command {
    fn named(name: &str) -> Result<Self, String> {
        Ok(match name {
            "get" => Self::Get,
            "set" => Self::Set,
            "incr" => Self::Incr,
            "lpush_rpop" => Self::LpushRpop,
            "hset" => Self::Hset,
            "sadd" => Self::Sadd,
            "zadd" => Self::Zadd,
            _ => return Err(format!("unknown command {name}")),
        })
    }

    /// Names on the wire; the second one only where two take turns or follow each other.
    fn verbs(self, fill: bool) -> [Verb; 2] {
        let names = match self {
            Self::Get => ["GET", "GET"],
            Self::Set => ["SET", "SET"],
            Self::Incr if fill => ["INCRBY", "EXPIRE"],
            Self::Incr => ["INCR", "INCR"],
            Self::LpushRpop => ["LPUSH", "RPOP"],
            Self::Hset => ["HSET", "HSET"],
            Self::Sadd => ["SADD", "SADD"],
            Self::Zadd => ["ZADD", "ZADD"],
        };
        names.map(Verb::named)
    }
}

fn run(settings: &Settings) -> Result<Outcome, String> {
    let connect = || {
        Connection::open(&settings.address, settings.protocol)
            .map_err(|e| format!("{}: {e}", settings.address))
    };
    let mut connections = (0..settings.connections).map(|_| connect()).collect::<Result<Vec<_>, _>>()?;
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(settings.seconds);
    let mut numbers = Numbers::new(settings);
    let failed = |e: io::Error| format!("connection lost: {e}");
    let (mut operations, mut errors, mut idle, mut progress) = (0, 0, 0, start);
    for turn in (0..settings.connections).cycle() {
        let connection = &mut connections[turn];
        connection.write().map_err(failed)?;
        errors += connection.read_replies().map_err(failed)?;
        if connection.awaited > 0 {
            idle = 0;
            if turn == 0 && progress.elapsed() > PATIENCE {
                return Err(format!("no reply for {PATIENCE:?}"));
            }
            continue;
        }
        if turn == 0 {
            progress = Instant::now();
        }
        let more = settings.fill || Instant::now() < end;
        let sent = if more { connection.send(settings, &mut numbers).map_err(failed)? } else { 0 };
        operations += sent;
        idle = if sent == 0 { idle + 1 } else { 0 };
        if idle == settings.connections {
            break;
        }
    }
    Ok(Outcome { operations, seconds: start.elapsed().as_secs_f64(), errors })
}

/// The keys to send: each once, or random ones for ever (xorshift, so a run is repeatable).
struct Numbers {
    drawn: u64,
    state: u64,
    keys: u64,
    fill: bool,
}

impl Numbers {
    fn new(settings: &Settings) -> Self {
        Self { drawn: 0, state: 0x9E37_79B9_7F4A_7C15, keys: settings.keys, fill: settings.fill }
    }

    /// Running number and key of the next command.
    fn draw(&mut self) -> Option<(u64, u64)> {
        let number = self.drawn;
        self.drawn += 1;
        if self.fill {
            return (number < self.keys).then_some((number, number));
        }
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        Some((number, self.state % self.keys))
    }
}

struct Connection {
    stream: TcpStream,
    outgoing: Vec<u8>,
    written: usize,
    incoming: Vec<u8>,
    awaited: u64,
    protocol: Protocol,
}

impl Connection {
    fn open(address: &str, protocol: Protocol) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.write_all(protocol.preface())?;
        let mut answer = vec![0; protocol.preface().len()];
        stream.read_exact(&mut answer)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, outgoing: Vec::new(), written: 0, incoming: Vec::new(), awaited: 0, protocol })
    }

    /// Sends the next pipeline; returns the number of commands in it.
    fn send(&mut self, settings: &Settings, numbers: &mut Numbers) -> io::Result<u64> {
        self.outgoing.clear();
        self.written = 0;
        let mut sent = 0;
        while sent < settings.pipeline {
            let Some((number, key)) = numbers.draw() else { break };
            self.awaited += settings.append(&mut self.outgoing, number, key);
            sent += 1;
        }
        self.write()?;
        Ok(sent)
    }

    /// Writes what the socket takes of the pipeline under way.
    fn write(&mut self) -> io::Result<()> {
        while self.written < self.outgoing.len() {
            match self.stream.write(&self.outgoing[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Reads what is there of the awaited replies; returns how many were errors.
    fn read_replies(&mut self) -> io::Result<u64> {
        let mut errors = 0;
        let mut chunk = [0; 65536];
        while self.awaited > 0 {
            let count = match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            };
            self.incoming.extend_from_slice(&chunk[..count]);
            let mut at = 0;
            while let Some((length, is_error)) = self.protocol.reply(&self.incoming[at..]) {
                errors += u64::from(is_error);
                self.awaited -= 1;
                at += length;
            }
            self.incoming.drain(..at);
        }
        Ok(errors)
    }
}

/// A prefix of four characters and twelve decimal digits.
fn digits(prefix: &'static str, mut number: u64) -> Digits {
    let mut text = [b'0'; 16];
    text[..4].copy_from_slice(prefix.as_bytes());
    for place in text[4..].iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
    Digits(text)
}

struct Digits([u8; 16]);

impl std::ops::Deref for Digits {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}
