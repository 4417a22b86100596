//! The binary is killed at random moments under load and started again: whatever it acknowledged, or showed, is there.
//!
//! Each client keeps a ledger of its own: the state that its acknowledged commands led to, and the one that the command in
//! flight leads to. After a restart the store must be in one of the two. `KV_CYCLES`, `KV_CALLS` and `KV_SYNCS` scale it,
//! `KV_SEED` chooses where it starts.

#![expect(clippy::disallowed_types, reason = "clients block, and are no workers")]

#[path = "crash/full.rs"]
mod full;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
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
    fn start(directory: &Path) -> Server {
        Server::launch(Command::new(env!("CARGO_BIN_EXE_data-bridge-kv")), directory).expect("it starts")
    }

    /// Starts it under strace, which does to some system calls what `inject` says: a fault or a signal. `Err` with the exit
    /// code if it ended before it served.
    fn start_under(inject: &str, directory: &Path) -> Result<Server, Option<i32>> {
        let mut command = Command::new("strace");
        let calls = inject.split(':').next().unwrap_or_default();
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e"]);
        command.arg(format!("inject={inject}")).arg(env!("CARGO_BIN_EXE_data-bridge-kv"));
        Server::launch(command, directory)
    }

    fn launch(mut command: Command, directory: &Path) -> Result<Server, Option<i32>> {
        let fixed = ["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--max-memory", "64mb", "--data"];
        // What scales these tests is no setting of the server.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KV_")) {
            command.env_remove(name);
        }
        Server::listening(command.args(fixed).arg(directory).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// A server once it says where it listens, or its exit code.
    fn listening(mut child: Child) -> Result<Server, Option<i32>> {
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let address = line.split("native on ").nth(1).and_then(|rest| rest.split([',', ';']).next());
        let Some(address) = address else { return Err(child.wait().unwrap().code()) };
        let address = address.parse().unwrap();
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Ok(Server { child, address })
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it in good order.
    fn end(mut self) {
        assert!(succeeds("kill", &["-s", "TERM", &self.child.id().to_string()]));
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Server {
    /// Kills what runs under strace, then lets strace end.
    fn kill_group(mut self) {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        for child in std::fs::read_to_string(children).unwrap_or_default().split_whitespace() {
            // It may just have been killed by strace.
            let _ = Command::new("kill").args(["-s", "KILL", child]).stderr(Stdio::null()).status();
        }
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Words of errors that say that there is no space, and that nothing was done.
const NO_SPACE: [&str; 4] = ["READONLY ", "OOM ", "No space left", "bytes free"];

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
    /// Nothing was done, since there is no space.
    Refused(String),
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
            // Nobody knows whether it lasts: as good as no answer.
            "-" if rest.starts_with("DURABILITY ") => return Err(std::io::ErrorKind::Other.into()),
            "-" if NO_SPACE.iter().any(|words| rest.contains(words)) => Reply::Refused(rest.to_owned()),
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

/// A file system of its own in a file, whose power can be cut.
struct Volume {
    image: PathBuf,
    mount: PathBuf,
}

/// Runs a program; answers whether it was there and said yes.
fn succeeds(program: &str, args: &[&str]) -> bool {
    let quiet = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

impl Volume {
    /// `None` where this process may not mount, or has not what makes this kind.
    fn new(kind: &str) -> Option<Volume> {
        let base = std::env::temp_dir().join(format!("kv-power-{kind}-{}", std::process::id()));
        let volume = Volume { image: base.with_extension("img"), mount: base };
        std::fs::create_dir_all(&volume.mount).unwrap();
        std::fs::File::create(&volume.image).unwrap().set_len(512 << 20).unwrap();
        let made = succeeds(&format!("mkfs.{kind}"), &["-q", volume.image.to_str().unwrap()]);
        (made && volume.attach()).then_some(volume)
    }

    fn attach(&self) -> bool {
        succeeds("mount", &["-o", "loop", self.image.to_str().unwrap(), self.mount.to_str().unwrap()])
    }

    /// Nothing that is not on the device will ever be, not even the file system's own log.
    fn cut_power(&self) {
        let script = "import fcntl, os, struct, sys\n\
                      fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        assert!(succeeds("python3", &["-c", script, self.mount.to_str().unwrap()]), "FS_IOC_SHUTDOWN");
    }

    fn detach(&self) -> bool {
        succeeds("umount", &[self.mount.to_str().unwrap()])
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.detach();
        let _ = std::fs::remove_dir(&self.mount);
        let _ = std::fs::remove_file(&self.image);
    }
}

/// A directory, and what clients know of it.
struct Run {
    directory: PathBuf,
    ledgers: Vec<Ledger>,
    shared: Shared,
    random: Random,
}

impl Run {
    fn new(name: &str) -> Run {
        let directory = std::env::temp_dir().join(format!("kv-crash-{name}-{}", std::process::id()));
        // Left by a run that failed.
        let _ = std::fs::remove_dir_all(&directory);
        Run::on(directory)
    }

    fn on(directory: PathBuf) -> Run {
        let random = Random::new(setting("KV_SEED", 1));
        Run { directory, ledgers: vec![Ledger::default(); CLIENTS], shared: Shared::default(), random }
    }

    /// Starts the server as it is; everything that was acknowledged or shown is there.
    fn check(&mut self) -> Server {
        let server = Server::start(&self.directory);
        let mut connection = Connection::open(server.address).unwrap();
        for (client, ledger) in self.ledgers.iter_mut().enumerate() {
            ledger.settle(State::read(&mut connection, client), client);
        }
        let Reply::Integer(shared) = connection.ask(&["INCRBY", "shared", "0"]).unwrap() else { panic!() };
        let seen = self.shared.seen.load(SeqCst);
        assert!(shared >= seen, "somebody was shown {seen}, now it is {shared}");
        server
    }

    /// Lets the clients work until the server is gone, which `end` sees to once some commands were acknowledged, or no client
    /// is left.
    fn work(&mut self, server: Server, commands: usize, end: impl FnOnce(Server, bool)) {
        let until = self.shared.acknowledged.load(SeqCst) + self.random.below(commands) as u64;
        let (address, shared) = (server.address, &self.shared);
        std::thread::scope(|scope| {
            let clients: Vec<_> = self
                .ledgers
                .iter_mut()
                .enumerate()
                .map(|(client, ledger)| {
                    let seed = self.random.bits();
                    scope.spawn(move || ledger.work(address, client, seed, shared))
                })
                .collect();
            let is_over = || clients.iter().all(|client| client.is_finished());
            while shared.acknowledged.load(SeqCst) < until && !is_over() {
                std::thread::yield_now();
            }
            end(server, is_over());
        });
    }

    fn end(self) -> u64 {
        std::fs::remove_dir_all(&self.directory).unwrap();
        self.shared.acknowledged.into_inner()
    }
}

#[test]
fn what_was_acknowledged_or_shown_outlives_a_kill() {
    let mut run = Run::new("kill");
    for _ in 0..setting("KV_CYCLES", 25) {
        let server = run.check();
        run.work(server, 400, |server, _| server.kill());
    }
    drop(run.check());
    println!("{} commands acknowledged, none lost", run.end());
}

#[expect(clippy::print_stdout, reason = "a test that did not run says so")]
fn skipped(why: &str) {
    println!("skipped 1 test: {why}");
}

fn have_strace() -> bool {
    let found = succeeds("strace", &["-V"]);
    if !found {
        skipped("strace is not installed");
    }
    found
}

/// Killed at the n-th write, sync, rename or removal, from opening on.
#[test]
fn what_was_acknowledged_outlives_a_kill_at_any_system_call() {
    if !have_strace() {
        return;
    }
    let mut run = Run::new("syscall");
    let (mut served, mut counts) = (0, BTreeMap::new());
    for call in ["pwrite64", "fdatasync", "fsync", "rename", "unlink", "openat"] {
        for when in (1..=setting("KV_CALLS", 10)).map(|n| n * n.div_ceil(4)) {
            let inject = format!("{call}:signal=SIGKILL:when={when}");
            if let Ok(server) = Server::start_under(&inject, &run.directory) {
                served += 1;
                // Calls that come too rarely never kill it.
                run.work(server, 150, |server, _| server.kill_group());
            }
            *counts.entry(call).or_insert(0) += 1;
            drop(run.check());
        }
    }
    assert!(served > 15, "{served} of them served");
    println!("{served} servers killed, {} commands acknowledged, none lost", run.end());
}

/// Once a sync of the log failed nothing is acknowledged any more, and the exit code says why.
#[test]
fn a_sync_that_fails_is_final() {
    if !have_strace() {
        return;
    }
    let mut run = Run::new("sync");
    let mut codes = BTreeMap::new();
    for when in 1..=setting("KV_SYNCS", 24) {
        // Only one fails: the next ones would succeed although data is gone, as the kernel reports a failure once.
        let mut ended = |code| *codes.entry(code).or_insert(0) += 1;
        match Server::start_under(&format!("fdatasync:error=EIO:when={when}"), &run.directory) {
            Err(code) => ended(code),
            Ok(server) => run.work(server, 2000, |mut server, clients_gone| match clients_gone {
                true => ended(server.child.wait().unwrap().code()),
                // It was the sync of a segment that is not in use yet, which is given up for another one.
                false => server.kill_group(),
            }),
        }
        drop(run.check());
    }
    assert!(
        codes.keys().all(|code| matches!(code, Some(3 | 4)))
            && codes.get(&Some(3)).is_some_and(|count| *count >= 5),
        "{codes:?}"
    );
    println!("exit codes {codes:?}; {} commands acknowledged, none lost", run.end());
}

/// The end of a server whose last sync fails looked like a good one.
#[test]
fn a_sync_that_fails_at_the_end_is_told() {
    if !have_strace() {
        return;
    }
    let run = Run::new("end");
    let mut server = Server::start(&run.directory);
    let mut connection = Connection::open(server.address).unwrap();
    assert_eq!(connection.ask(&["SET", "k", "v"]).unwrap(), Reply::Text("OK".into()));
    let pid = server.child.id().to_string();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"]);
    strace.args(["-e", "inject=fdatasync,fsync:error=EIO", "-p", &pid]);
    let mut strace = strace.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(strace.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains(" attached"), "{said}");
    assert!(succeeds("kill", &["-s", "TERM", &pid]));
    assert_eq!(server.child.wait().unwrap().code(), Some(3));
    strace.wait().unwrap();
    run.end();
}

/// The power of a real file system is cut under load: what was synced is there, the rest is not.
#[test]
fn what_was_acknowledged_or_shown_outlives_a_power_cut() {
    for kind in ["ext4", "xfs"] {
        let Some(volume) = Volume::new(kind) else {
            skipped(&format!("no {kind} file system could be made and mounted"));
            continue;
        };
        let mut run = Run::on(volume.mount.join("data"));
        for _ in 0..setting("KV_POWER_CUTS", 12) {
            let server = run.check();
            run.work(server, 600, |server, _| {
                volume.cut_power();
                server.kill();
            });
            assert!(volume.detach() && volume.attach(), "{kind}: it can't be mounted again");
        }
        drop(run.check());
        println!("{kind}: {} commands acknowledged, none lost", run.end());
    }
}
