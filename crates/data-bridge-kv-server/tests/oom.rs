//! A server in a control group that limits its memory, with data several times the budget that it takes of that: it is never
//! killed, its resident memory stays at the budget, and every value that was written is read back.
//!
//! The aim is 1.10 budgets at any moment. Where more threads want to run than there are cores, what follows the memory comes
//! late and a few samples are above that; so the test bounds their number, and how far they may be.
//!
//! Where no such group can be made, the test says `skipped`. `KV_OOM_RUNS` says how often it runs, `KV_SEED` where it starts.

#![expect(clippy::disallowed_types, reason = "clients block, and are no workers")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use data_bridge_kv_testkit::directory::Directory;
use data_bridge_kv_testkit::random::{Random, setting};

/// The group's limit; the server takes 60 % of it for its budget, since it has a directory.
const LIMIT: u64 = 128 << 20;
/// Data in budgets.
const TIMES: u64 = 5;
/// What a value has at least and below, in bytes.
const SIZES: (usize, usize) = (100, 8000);
/// Share of the budget that is to be resident at most, in percent.
const AIM: u64 = 110;
/// One sample of so many may be above the aim.
const ABOVE: u64 = 10;
/// Share of the budget above which no sample may be, in percent: far below the group's limit, which is at 166.
const RESIDENT: u64 = 125;
const PAGE: u64 = 4096;
const SAMPLE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(120);
/// Namespaces of the clients, one for each: tasks, which is durable, and cache, twice.
const CLIENTS: [u8; 4] = [1, 2, 1, 2];
const PIPELINE: usize = 32;
/// Rounds of a client in which it reads and writes, skewed.
const ROUNDS: usize = 100;

/// A control group with a memory limit; gone in the end.
struct Group {
    path: PathBuf,
    /// Which file counts kills.
    events: &'static str,
}

impl Group {
    /// Beside this process's own group, or below the root; `Err` with the reason where that can't be.
    fn new() -> Result<Group, String> {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let path_of = |controller: &str| {
            own.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                controllers.split(',').any(|name| name == controller).then(|| path.trim_start_matches('/'))
            })
        };
        let versions = [
            ("/sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes", "memory.oom_control"),
            ("/sys/fs/cgroup", "", "memory.max", "memory.events"),
        ];
        let mut why = String::from("no control groups");
        for (root, controller, limit, events) in versions {
            for parent in [path_of(controller).unwrap_or_default(), ""] {
                let path = Path::new(root).join(parent).join(format!("kv-oom-{}", std::process::id()));
                match std::fs::create_dir(&path) {
                    Err(error) => why = format!("{}: {error}", path.display()),
                    Ok(()) => {
                        let group = Group { path, events };
                        match std::fs::write(group.path.join(limit), LIMIT.to_string()) {
                            Ok(()) => return Ok(group),
                            Err(error) => why = format!("{}: {error}", group.path.join(limit).display()),
                        }
                    }
                }
            }
        }
        Err(why)
    }

    /// How many of its processes the system killed for memory.
    fn kills(&self) -> u64 {
        let text = std::fs::read_to_string(self.path.join(self.events)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.expect("the system counts kills").parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// A server in a group, on a directory of its own.
struct Server {
    child: Child,
    address: SocketAddr,
    _directory: Directory,
}

impl Server {
    fn start(group: &Group) -> Server {
        let directory = Directory::new("oom");
        let mut command = Command::new("sh");
        // The shell is in the group before it becomes the server.
        command.args(["-c", r#"echo $$ > "$0" && exec "$@""#]).arg(group.path.join("cgroup.procs"));
        command.arg(env!("CARGO_BIN_EXE_data-bridge-kv")).args(["serve", "--listen", "127.0.0.1:0"]);
        command.args(["--admin", "off", "--data"]).arg(directory.path());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KV_")) {
            command.env_remove(name);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let address = line.split("native on ").nth(1).and_then(|rest| rest.split([',', ';']).next());
        let address = address.unwrap_or_else(|| panic!("the server says {line}")).parse().unwrap();
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Server { child, address, _directory: directory }
    }

    /// Pages that the system counts for the process.
    fn resident(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split_ascii_whitespace().nth(1).expect("resident pages").parse::<u64>().unwrap() * PAGE
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that sends commands in pipelines.
struct Connection {
    reader: BufReader<TcpStream>,
    outgoing: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr, namespace: u8) -> Connection {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut connection = Connection { reader: BufReader::new(stream), outgoing: Vec::new() };
        connection.add(&[b"SELECT", namespace.to_string().as_bytes()]);
        connection.send();
        assert_eq!(connection.line(), "+OK");
        connection
    }

    fn add(&mut self, words: &[&[u8]]) {
        write!(self.outgoing, "*{}\r\n", words.len()).unwrap();
        for word in words {
            write!(self.outgoing, "${}\r\n", word.len()).unwrap();
            self.outgoing.extend_from_slice(word);
            self.outgoing.extend_from_slice(b"\r\n");
        }
    }

    fn send(&mut self) {
        self.reader.get_mut().write_all(&self.outgoing).unwrap();
        self.outgoing.clear();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The bytes of a reply, `None` for nothing.
    fn bytes(&mut self) -> Option<Vec<u8>> {
        let head = self.line();
        let length = head.strip_prefix('$').unwrap_or_else(|| panic!("the server answers {head}"));
        let length = length.parse::<i64>().unwrap();
        let mut bytes = vec![0; usize::try_from(length).ok()? + 2];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes.truncate(bytes.len() - 2);
        Some(bytes)
    }

    /// One number of `INFO`.
    fn figure(&mut self, name: &str) -> u64 {
        self.add(&[b"INFO"]);
        self.send();
        let text = String::from_utf8(self.bytes().unwrap()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
    }
}

/// One client's keys, each with how often it was written.
struct Ledger {
    client: usize,
    writes: Vec<u32>,
    compared: u64,
}

impl Ledger {
    fn key(&self, place: usize) -> String {
        format!("key:{}:{place}", self.client)
    }

    /// What a key holds after so many writes: its name again and again, of another length each time.
    fn value(&self, place: usize) -> Vec<u8> {
        let name = format!("{}:{}:{};", self.client, place, self.writes[place]);
        let seed = (place as u64) << 32 | u64::from(self.writes[place]);
        let length = SIZES.0 + Random::new(seed).below(SIZES.1 - SIZES.0);
        name.bytes().cycle().take(length).collect()
    }

    fn write(&mut self, connection: &mut Connection, places: &[usize]) {
        for &place in places {
            self.writes[place] += 1;
            connection.add(&[b"SET", self.key(place).as_bytes(), &self.value(place)]);
        }
        connection.send();
        for _ in places {
            assert_eq!(connection.line(), "+OK");
        }
    }

    fn read(&mut self, connection: &mut Connection, places: &[usize]) {
        for &place in places {
            connection.add(&[b"GET", self.key(place).as_bytes()]);
        }
        connection.send();
        for &place in places {
            let (key, found) = (self.key(place), connection.bytes());
            assert!(found.as_ref() == Some(&self.value(place)), "{key} is {:?}", found.map(|it| it.len()));
            self.compared += 1;
        }
    }

    /// Writes every key, then reads and writes with most of it on few keys, then reads every key.
    fn work(&mut self, address: SocketAddr, seed: u64) {
        let mut connection = Connection::open(address, CLIENTS[self.client]);
        let all: Vec<usize> = (0..self.writes.len()).collect();
        for places in all.chunks(PIPELINE) {
            self.write(&mut connection, places);
        }
        let mut random = Random::new(seed);
        for round in 0..ROUNDS {
            let skewed = |random: &mut Random| {
                let share = random.below(1 << 20) as f64 / f64::from(1 << 20);
                (all.len() as f64 * share.powi(3)) as usize
            };
            let mut places: Vec<usize> = (0..PIPELINE).map(|_| skewed(&mut random)).collect();
            places.sort_unstable();
            places.dedup();
            if round % 3 == 0 {
                self.write(&mut connection, &places)
            } else {
                self.read(&mut connection, &places)
            }
        }
        for places in all.chunks(PIPELINE) {
            self.read(&mut connection, places);
        }
    }
}

/// Samples resident memory ten times a second until `work` is over.
fn watched(server: &Server, work: impl FnOnce(Sender<()>)) -> Vec<u64> {
    std::thread::scope(|scope| {
        let (over, is_over) = channel::<()>();
        let sampler = scope.spawn(move || {
            let mut samples = Vec::new();
            while is_over.recv_timeout(SAMPLE) == Err(RecvTimeoutError::Timeout) {
                samples.push(server.resident());
            }
            samples
        });
        work(over);
        sampler.join().unwrap()
    })
}

#[expect(clippy::print_stdout, reason = "a test says what it did, or that it did nothing")]
fn say(line: &str) {
    println!("{line}");
}

#[test]
fn data_of_five_budgets_is_served_within_a_memory_limit() {
    for run in 0..setting("KV_OOM_RUNS", 1) {
        let group = match Group::new() {
            Ok(group) => group,
            Err(why) => return say(&format!("skipped 1 test: no memory limit could be set: {why}")),
        };
        serve_within(&group, setting("KV_SEED", 1) + run);
    }
}

fn serve_within(group: &Group, seed: u64) {
    let mut server = Server::start(group);
    let mut control = Connection::open(server.address, 0);
    let budget = control.figure("maxmemory");
    assert_eq!(budget, LIMIT * 60 / 100, "the budget is a share of the group's limit");
    let mean = (SIZES.0 + SIZES.1) / 2;
    let keys = (budget * TIMES) as usize / mean / CLIENTS.len();
    let mut ledgers: Vec<Ledger> =
        (0..CLIENTS.len()).map(|client| Ledger { client, writes: vec![0; keys], compared: 0 }).collect();
    let address = server.address;
    let resident = watched(&server, |over| {
        std::thread::scope(|scope| {
            for ledger in &mut ledgers {
                scope.spawn(|| ledger.work(address, seed << 8 | ledger.client as u64));
            }
        });
        drop(over);
    });
    let (cold, stalls) = (control.figure("tier_keys_on_disk"), control.figure("tier_stalls"));
    let most = resident.iter().copied().max().unwrap_or(0);
    let above = resident.iter().filter(|&&bytes| bytes * 100 > budget * AIM).count() as u64;
    let samples = resident.len() as u64;
    let compared: u64 = ledgers.iter().map(|ledger| ledger.compared).sum();
    say(&format!(
        "{} keys, {cold} of them on disk, {compared} values compared, at most {:.2} budgets of {} MiB resident in \
         {samples} samples, {above} above {AIM} %, {stalls} writes held",
        keys * CLIENTS.len(),
        most as f64 / budget as f64,
        budget >> 20,
    ));
    assert_eq!(server.child.try_wait().unwrap(), None, "the server ended");
    assert_eq!(group.kills(), 0, "the system killed for memory");
    assert!(
        samples >= 10 && compared >= (keys * CLIENTS.len()) as u64,
        "{samples} samples, {compared} values"
    );
    assert!(cold as usize > keys * CLIENTS.len() / 2, "only {cold} keys are on disk");
    assert!(above * ABOVE <= samples, "{above} of {samples} samples are above {AIM} % of the budget");
    assert!(most * 100 <= budget * RESIDENT, "{most} bytes were resident with a budget of {budget}");
}
