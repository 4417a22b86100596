//! The binary in a cgroup with a memory limit, with data many times its budget: what the system counts for it stays within
//! the budget, it is not killed, and every value is read back. `KV_OOM_LIMIT_MB` and `KV_OOM_FACTOR` scale it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use data_bridge_kv_testkit::random::{Random, setting};

/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(100);
const CONNECTIONS: usize = 4;
/// Bytes of values that a connection sends at once.
const AT_ONCE: usize = 128 << 10;
const SIZES: [usize; 6] = [30, 100, 500, 4000, 30_000, 100_000];

/// A memory cgroup of its own; removed with the test.
struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// `Err` tells why there can be none.
    fn new(limit: u64) -> Result<Cgroup, String> {
        let name = format!("data-bridge-kv-oom-{}", std::process::id());
        let first = Path::new("/sys/fs/cgroup/memory");
        let (root, file) = if first.is_dir() {
            (first, "memory.limit_in_bytes")
        } else {
            (Path::new("/sys/fs/cgroup"), "memory.max")
        };
        let cgroup = Cgroup { path: root.join(name) };
        let failed = |error: std::io::Error| format!("{}: {error}", cgroup.path.display());
        std::fs::create_dir(&cgroup.path).map_err(failed)?;
        std::fs::write(cgroup.path.join(file), limit.to_string()).map_err(failed)?;
        Ok(cgroup)
    }

    /// How often a process in it was killed for memory.
    fn kills(&self) -> u64 {
        let text = ["memory.events", "memory.oom_control"]
            .map(|file| std::fs::read_to_string(self.path.join(file)).unwrap_or_default());
        let line = |text: &str| text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        text.iter().find_map(|text| line(text)).expect("the system counts them")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// A running program in a cgroup, on a directory; both are gone with it.
struct Program {
    child: Child,
    address: SocketAddr,
    directory: PathBuf,
}

impl Program {
    fn start(cgroup: &Cgroup) -> Program {
        let directory = std::env::temp_dir().join(format!("data-bridge-kv-oom-{}", std::process::id()));
        let script = format!(
            "echo $$ > {}/cgroup.procs && exec {} serve --listen 127.0.0.1:0 --admin off --data {}",
            cgroup.path.display(),
            env!("CARGO_BIN_EXE_data-bridge-kv"),
            directory.display()
        );
        let mut command = Command::new("sh");
        let mut child = command.arg("-c").arg(script).env_clear().stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let after = line.split("native on ").nth(1).unwrap_or_else(|| panic!("{line}"));
        let address = after.split([',', ';', '"']).next().unwrap().parse().unwrap();
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Program { child, address, directory }
    }

    /// A figure of the process in KiB, by the name it has in `/proc`.
    fn memory(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("it runs");
        line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A RESP connection on the namespace `cache`.
struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn open(address: SocketAddr) -> Connection {
        let mut connection = Connection { stream: BufReader::new(TcpStream::connect(address).unwrap()) };
        connection.send(b"SELECT 2\r\n");
        assert_eq!(connection.line(), "+OK");
        connection
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Reads one value; `None` if there is none.
    fn value(&mut self) -> Option<Vec<u8>> {
        let head = self.line();
        let length: i64 = head.strip_prefix('$').unwrap_or_else(|| panic!("{head}")).parse().unwrap();
        let length = usize::try_from(length).ok()?;
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes.truncate(length);
        Some(bytes)
    }

    fn figure(&mut self, name: &str) -> u64 {
        self.send(b"INFO\r\n");
        let text = String::from_utf8(self.value().unwrap()).unwrap();
        assert_eq!(self.line(), "");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("{name}")).trim().parse().unwrap()
    }

    fn set(&mut self, keys: &[usize]) {
        let mut bytes = Vec::new();
        for &key in keys {
            let (name, value) = (format!("key:{key}"), value_of(key));
            let head = format!("*3\r\n$3\r\nSET\r\n${}\r\n{name}\r\n${}\r\n", name.len(), value.len());
            bytes.extend_from_slice(head.as_bytes());
            bytes.extend_from_slice(&value);
            bytes.extend_from_slice(b"\r\n");
        }
        self.send(&bytes);
        keys.iter().for_each(|key| assert_eq!(self.line(), "+OK", "{key}"));
    }

    /// Reads keys and compares their values.
    fn check(&mut self, keys: &[usize]) {
        let lines: String = keys.iter().map(|key| format!("GET key:{key}\r\n")).collect();
        self.send(lines.as_bytes());
        for &key in keys {
            let value = self.value();
            assert!(
                value.as_deref() == Some(&value_of(key)),
                "key:{key}: {:?} bytes",
                value.map(|value| value.len())
            );
        }
    }
}

fn value_of(key: usize) -> Vec<u8> {
    let mut random = Random::new(key as u64);
    let (length, word) = (SIZES[random.below(SIZES.len())], random.bits().to_le_bytes());
    word.iter().copied().cycle().take(length).collect()
}

/// Keys until their values are enough for one request.
fn some(keys: &mut impl Iterator<Item = usize>) -> Vec<usize> {
    let (mut picked, mut bytes) = (Vec::new(), 0);
    while bytes < AT_ONCE
        && let Some(key) = keys.next()
    {
        bytes += value_of(key).len();
        picked.push(key);
    }
    picked
}

#[test]
fn a_server_with_data_many_times_its_budget_stays_within_it_and_is_not_killed() {
    let limit = setting("KV_OOM_LIMIT_MB", 256) << 20;
    let cgroup = match Cgroup::new(limit) {
        Ok(cgroup) => cgroup,
        Err(why) => return println!("skipped: 1 of 1, there can be no memory cgroup: {why}"),
    };
    let program = Program::start(&cgroup);
    let budget = Connection::open(program.address).figure("maxmemory");
    assert!(budget > limit / 2 && budget < limit, "{budget} of {limit}");
    let mean = SIZES.iter().sum::<usize>() / SIZES.len();
    let keys = (budget * setting("KV_OOM_FACTOR", 5)) as usize / mean;
    let (is_done, is_full, mut samples) = (AtomicBool::new(false), Barrier::new(CONNECTIONS), Vec::new());
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut samples = Vec::new();
            while !is_done.load(SeqCst) {
                samples.push(program.memory("VmRSS"));
                std::thread::park_timeout(SAMPLE);
            }
            samples
        });
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|client| {
                let (address, is_full) = (program.address, &is_full);
                scope.spawn(move || drive(address, client, keys, is_full))
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().expect("every value is as it was written"));
        is_done.store(true, SeqCst);
        samples = sampler.join().unwrap();
    });
    let (most, peak) = (samples.iter().max().unwrap() << 10, program.memory("VmHWM") << 10);
    let share = |bytes: u64| bytes as f64 / budget as f64;
    let mut connection = Connection::open(program.address);
    println!(
        "{keys} values of {} MB in all written, read and compared under a budget of {} MB: at most {:.3} of it in {} \
         samples, {:.3} at the highest, {} of it held by the account; {} stalls of {} ms in all",
        (keys * mean) >> 20,
        budget >> 20,
        share(most),
        samples.len(),
        share(peak),
        connection.figure("used_memory"),
        connection.figure("tier_stalls"),
        connection.figure("tier_stall_us") / 1000,
    );
    assert!(samples.len() > 10, "{} samples", samples.len());
    assert!(share(peak) <= 1.1, "{:.3} of the budget", share(peak));
    assert_eq!(connection.figure("evicted_keys"), 0);
    assert_eq!(cgroup.kills(), 0);
}

/// What one client does: it writes its share of the keys, reads and writes some much more often than others, and reads all.
fn drive(address: SocketAddr, client: usize, keys: usize, is_full: &Barrier) {
    let mut connection = Connection::open(address);
    let mut own = (client..keys).step_by(CONNECTIONS).peekable();
    while own.peek().is_some() {
        let batch = some(&mut own);
        connection.set(&batch);
    }
    is_full.wait();
    let mut random = Random::new(client as u64);
    for _ in 0..keys / CONNECTIONS / 8 {
        let mut skewed = std::iter::repeat_with(|| {
            let bits = [(); 3].map(|()| random.below(keys));
            bits.into_iter().min().expect("three")
        });
        let batch: Vec<usize> = skewed.by_ref().take(4).collect();
        connection.check(&batch);
        connection.set(&batch[..1]);
    }
    let mut all = (client..keys).step_by(CONNECTIONS).peekable();
    while all.peek().is_some() {
        let batch = some(&mut all);
        connection.check(&batch);
    }
}
