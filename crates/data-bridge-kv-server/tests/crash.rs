//! The binary is killed at random moments under load and started again: whatever it acknowledged, or showed, is there.
//!
//! Each client keeps a ledger of its own: the state that its acknowledged commands led to, and the one that the command in
//! flight leads to. After a restart the store must be in one of the two. `KV_CYCLES` scales it, `KV_SEED` chooses where it
//! starts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};

use data_bridge_kv_testkit::random::{Random, setting};

const CLIENTS: usize = 16;
const PLACES: usize = 6;

/// A server on a directory, killed with the test.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(directory: &Path, flags: &[&str]) -> Server {
        let fixed = ["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--max-memory", "64mb", "--data"];
        let mut child = Command::new(env!("CARGO_BIN_EXE_data-bridge-kv"))
            .args(fixed)
            .arg(directory)
            .args(flags)
            .env_clear()
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let address = line.split("native on ").nth(1).and_then(|rest| rest.split([',', ';']).next());
        let address = address.unwrap_or_else(|| panic!("no start line: {line}")).parse().unwrap();
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Server { child, address }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A RESP connection on the namespace `tasks`.
struct Connection {
    reader: BufReader<TcpStream>,
}

/// A reply, as far as the test looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reply {
    Text(String),
    Integer(i64),
    Missing,
    Array(Vec<Reply>),
}

impl Connection {
    fn open(address: SocketAddr) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut connection = Connection { reader: BufReader::new(stream) };
        connection.ask(&["SELECT", "1"])?;
        Ok(connection)
    }

    fn send(&mut self, words: &[&str]) -> std::io::Result<()> {
        let mut text = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| text.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        self.reader.get_mut().write_all(text.as_bytes())
    }

    fn ask(&mut self, words: &[&str]) -> std::io::Result<Reply> {
        self.send(words)?;
        self.reply()
    }

    fn reply(&mut self) -> std::io::Result<Reply> {
        let line = self.line()?;
        let (mark, rest) = line.split_at(1);
        Ok(match mark {
            "+" => Reply::Text(rest.to_owned()),
            ":" => Reply::Integer(rest.parse().unwrap()),
            "$" if rest == "-1" => Reply::Missing,
            "$" => {
                let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
                self.reader.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Reply::Text(String::from_utf8(bytes).unwrap())
            }
            "*" => {
                let count = rest.parse::<usize>().unwrap();
                Reply::Array((0..count).map(|_| self.reply()).collect::<Result<_, _>>()?)
            }
            _ => panic!("the server answers {line}"),
        })
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 || !line.ends_with("\r\n") {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

/// What one client's keys hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    counter: i64,
    list: Vec<i64>,
    texts: [Option<i64>; PLACES],
    fields: [Option<i64>; PLACES],
}

/// What a client does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Count,
    Push,
    Shorten,
    Set(usize),
    Delete(usize),
    SetField(usize),
    /// Counter and list together.
    Both,
}

impl Step {
    fn pick(random: &mut Random) -> Step {
        let place = random.below(PLACES);
        match random.below(8) {
            0 | 1 => Step::Count,
            2 => Step::Push,
            3 => Step::Shorten,
            4 => Step::Set(place),
            5 => Step::Delete(place),
            6 => Step::SetField(place),
            _ => Step::Both,
        }
    }

    fn apply(self, state: &State, number: i64) -> State {
        let mut next = state.clone();
        match self {
            Step::Count => next.counter += 1,
            Step::Push => next.list.push(number),
            Step::Shorten => drop((!next.list.is_empty()).then(|| next.list.remove(0))),
            Step::Set(place) => next.texts[place] = Some(number),
            Step::Delete(place) => next.texts[place] = None,
            Step::SetField(place) => next.fields[place] = Some(number),
            Step::Both => {
                next.counter += 1;
                next.list.push(number);
            }
        }
        next
    }

    fn run(self, connection: &mut Connection, client: usize, number: i64) -> std::io::Result<Reply> {
        let key = |name: &str| format!("{name}:{client}");
        let number = number.to_string();
        let (counter, list, hash) = (key("counter"), key("list"), key("hash"));
        match self {
            Step::Count => connection.ask(&["INCR", &counter]),
            Step::Push => connection.ask(&["RPUSH", &list, &number]),
            Step::Shorten => connection.ask(&["LPOP", &list]),
            Step::Set(place) => connection.ask(&["SET", &key(&format!("text{place}")), &number]),
            Step::Delete(place) => connection.ask(&["DEL", &key(&format!("text{place}"))]),
            Step::SetField(place) => connection.ask(&["HSET", &hash, &format!("field{place}"), &number]),
            Step::Both => {
                for words in [&["MULTI"][..], &["INCR", &counter], &["RPUSH", &list, &number], &["EXEC"]] {
                    connection.send(words)?;
                }
                (0..3).try_for_each(|_| connection.reply().map(drop))?;
                connection.reply()
            }
        }
    }
}

impl State {
    fn read(connection: &mut Connection, client: usize) -> State {
        let number = |reply: Reply| match reply {
            Reply::Text(text) => Some(text.parse().unwrap()),
            Reply::Integer(number) => Some(number),
            _ => None,
        };
        let mut ask = |words: &[&str]| connection.ask(words).unwrap();
        let counter = number(ask(&["GET", &format!("counter:{client}")])).unwrap_or(0);
        let Reply::Array(list) = ask(&["LRANGE", &format!("list:{client}"), "0", "-1"]) else { panic!() };
        let texts = std::array::from_fn(|place| number(ask(&["GET", &format!("text{place}:{client}")])));
        let hash = format!("hash:{client}");
        let fields = std::array::from_fn(|place| number(ask(&["HGET", &hash, &format!("field{place}")])));
        State { counter, list: list.into_iter().filter_map(number).collect(), texts, fields }
    }
}

/// A client's ledger.
#[derive(Clone, Debug, Default)]
struct Ledger {
    acknowledged: State,
    /// Where the command in flight leads to.
    possible: Option<State>,
    numbers: i64,
}

impl Ledger {
    /// Works until the server is gone.
    fn work(&mut self, address: SocketAddr, client: usize, seed: u64, shared: &Shared) {
        let Ok(mut connection) = Connection::open(address) else { return };
        let mut random = Random::new(seed);
        loop {
            self.numbers += 1;
            let step = Step::pick(&mut random);
            let next = step.apply(&self.acknowledged, self.numbers);
            self.possible = Some(next.clone());
            if step.run(&mut connection, client, self.numbers).is_err() {
                return;
            }
            self.acknowledged = next;
            self.possible = None;
            shared.acknowledged.fetch_add(1, SeqCst);
            let words: &[&str] = if random.below(2) == 0 { &["INCR", "shared"] } else { &["GET", "shared"] };
            match connection.ask(words) {
                Ok(Reply::Integer(seen)) => drop(shared.seen.fetch_max(seen, SeqCst)),
                Ok(Reply::Text(text)) => drop(shared.seen.fetch_max(text.parse().unwrap(), SeqCst)),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// The store is where the ledger says, or where the command in flight led.
    fn settle(&mut self, found: State, client: usize) {
        let is_known = found == self.acknowledged || self.possible.as_ref() == Some(&found);
        assert!(is_known, "client {client}: {found:?} is there, acknowledged was {self:?}");
        self.acknowledged = found;
        self.possible = None;
    }
}

/// What the clients have in common.
#[derive(Default)]
struct Shared {
    acknowledged: AtomicU64,
    /// The highest value of a counter of all that anybody was shown.
    seen: AtomicI64,
}

fn killed_again_and_again(flags: &[&str], cycles: u64) {
    let directory = std::env::temp_dir().join(format!("kv-crash-{}-{}", std::process::id(), flags.len()));
    let _ = std::fs::remove_dir_all(&directory);
    let seed = setting("KV_SEED", 1);
    let mut random = Random::new(seed);
    let mut ledgers = vec![Ledger::default(); CLIENTS];
    let shared = Shared::default();
    for cycle in 0..setting("KV_CYCLES", cycles) {
        let server = Server::start(&directory, flags);
        let mut connection = Connection::open(server.address).unwrap();
        for (client, ledger) in ledgers.iter_mut().enumerate() {
            ledger.settle(State::read(&mut connection, client), client);
        }
        let Reply::Text(value) = connection
            .ask(&["INCRBY", "shared", "0"])
            .map(|reply| match reply {
                Reply::Integer(number) => Reply::Text(number.to_string()),
                other => other,
            })
            .unwrap()
        else {
            panic!()
        };
        assert!(
            value.parse::<i64>().unwrap() >= shared.seen.load(SeqCst),
            "cycle {cycle}: a shown value is gone"
        );
        let (address, until) = (server.address, shared.acknowledged.load(SeqCst) + random.below(400) as u64);
        std::thread::scope(|scope| {
            for (client, ledger) in ledgers.iter_mut().enumerate() {
                let (seed, shared) = (random.bits(), &shared);
                scope.spawn(move || ledger.work(address, client, seed, shared));
            }
            while shared.acknowledged.load(SeqCst) < until {
                std::thread::yield_now();
            }
            server.kill();
        });
    }
    println!("{} commands acknowledged, none lost", shared.acknowledged.load(SeqCst));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn what_was_acknowledged_or_shown_outlives_a_kill() {
    killed_again_and_again(&[], 25);
}
