//! Checkpoints, demotion, reclaim and crashes under a log of which the last part may be lost: what is there after a crash is
//! what was there after some record of the log, one that was durable or a later one, for all keys together.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use data_bridge_kv::disk::Disk;
use data_bridge_kv::settings::Durability;
use data_bridge_kv::sync::real::Mutex;
use data_bridge_kv::{Caller, Chore, Clock, DataDirectory, Engine, ManualClock, Settings};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::{Arg, Reply, ReplyBuf, ReplyReader, Value};
use data_bridge_kv_testkit::disk::hooked::{Hooked, Operation};
use data_bridge_kv_testkit::disk::{Fault, FaultyDisk};
use data_bridge_kv_testkit::random::{Random, setting};

const START_MS: u64 = 1_700_000_000_000;
const KEYS: [&str; 10] = ["a", "b", "c", "d", "e", "f", "n1", "n2", "l1", "h1"];

/// What every key holds, with its version, and its deadline (unix ms, or below 0).
type State = BTreeMap<&'static str, (Reply, Reply)>;

struct Run {
    disk: FaultyDisk,
    clock: Arc<ManualClock>,
    client: Arc<Client>,
    random: Random,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    checkpoints: u64,
    crashes: u64,
    /// Crashes after which less was there than before.
    lost: u64,
    reclaimed: u64,
    replayed: u64,
    /// Commands that were run while the tier was being written.
    interrupts: Arc<AtomicU64>,
}

/// Who runs commands: between the steps, and while the tier is being written.
struct Client {
    engine: Engine,
    caller: Caller,
    random: Mutex<Random>,
    /// Whether it runs no commands on its own: where the disk fails or the store is closed.
    is_quiet: AtomicBool,
    /// States that a crash may lead to, each with the last record of the log in it; ascending.
    states: Mutex<Vec<(u64, State)>>,
}

/// A disk that lets a client run commands at some of the writes to the tier, when no shard is locked; they are counted.
fn interrupting(disk: &FaultyDisk, client: Arc<Mutex<Weak<Client>>>, commands: Arc<AtomicU64>) -> Hooked {
    Hooked::new(Arc::new(disk.clone()), move |operation, name| {
        if operation != Operation::Write || !name.starts_with("cold-task") {
            return Ok(());
        }
        let client = client.lock().upgrade();
        let is_free = |client: &Arc<Client>| !client.is_quiet.load(Relaxed) && client.random.lock().one_in(3);
        if let Some(client) = client.filter(is_free) {
            client.command();
            commands.fetch_add(1, Relaxed);
        }
        Ok(())
    })
}

fn open(disk: Arc<dyn Disk>, clock: &Arc<ManualClock>) -> Engine {
    open_with(disk, clock, 4 << 10)
}

fn open_with(disk: Arc<dyn Disk>, clock: &Arc<ManualClock>, log_bytes: u64) -> Engine {
    let mut settings = Settings {
        clock: Arc::clone(clock) as _,
        seed: Some(1),
        shards: Some(2),
        background: false,
        log_bytes,
        data: Some(DataDirectory::on(disk, 32 << 20).expect("nobody else has it")),
        ..Settings::default()
    };
    settings.namespaces[1].durability = Some(Durability::EverySecond);
    settings.namespaces[1].allow_flush = true;
    Engine::open(settings).expect("it opens")
}

impl Client {
    fn open(disk: &FaultyDisk, clock: &Arc<ManualClock>, seed: u64, counts: &mut Counts) -> Arc<Client> {
        let interrupted = Arc::<Mutex<Weak<Client>>>::default();
        let disk = interrupting(disk, Arc::clone(&interrupted), Arc::clone(&counts.interrupts));
        let engine = open(Arc::new(disk), clock);
        let caller = Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
        let client = Arc::new(Client {
            engine,
            caller,
            random: Mutex::new(Random::new(seed)),
            is_quiet: AtomicBool::new(false),
            states: Mutex::default(),
        });
        let log = client.engine.stats().log.unwrap_or_default();
        counts.replayed += log.replayed;
        client.states.lock().push((log.last, client.state()));
        *interrupted.lock() = Arc::downgrade(&client);
        client
    }

    fn run(&self, line: &str) -> Reply {
        let words: Vec<&str> = line.split(' ').collect();
        let args: Vec<Arg<'_>> = words[1..].iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
        let call = table::by_name(words[0].as_bytes()).unwrap().call(&args).unwrap();
        let mut out = ReplyBuf::new();
        let _ = self.engine.execute(&self.caller, 0, &call, &mut out);
        ReplyReader::new(out.as_bytes()).reply().unwrap()
    }

    fn state(&self) -> State {
        let ask = |word: &str, key| self.run(&format!("{word} {key}"));
        KEYS.into_iter().map(|key| (key, (ask("KV.GETV", key), ask("PEXPIRETIME", key)))).collect()
    }

    /// Something that changes a key, or not.
    fn command(&self) {
        let line = self.line();
        let reply = self.run(&line);
        assert!(!matches!(reply, Reply::Error(_)), "{line}: {reply:?}");
        let log = self.engine.stats().log.unwrap_or_default();
        let state = self.state();
        let mut states = self.states.lock();
        states.push((log.last, state));
        // Of those that are durable the last one is enough.
        let durable = states.iter().rposition(|(lsn, _)| *lsn <= log.durable).unwrap_or(0);
        states.drain(..durable);
    }

    fn line(&self) -> String {
        let mut random = self.random.lock();
        let key = KEYS[random.below(6)];
        let large = random.one_in(2);
        let value = format!("{:06}", random.below(1_000_000)).repeat(if large { 30_000 } else { 20 });
        match random.below(25) {
            0..8 => format!("SET {key} {value}"),
            8 | 9 => format!("SET {key} {value} PX {}", 100 + random.below(5000)),
            10..14 => format!("DEL {key}"),
            14 | 15 => format!("INCR n{}", 1 + random.below(2)),
            16 | 17 => format!("RPUSH l1 {}", random.below(100)),
            18 | 19 => format!("HSET h1 f{} {}", random.below(5), random.below(100)),
            20 | 21 => format!("DEL {}", KEYS[6 + random.below(4)]),
            22 => "FLUSHDB".to_owned(),
            _ => format!("GETDEL {key}"),
        }
    }
}

impl Run {
    fn new(seed: u64) -> Run {
        let (disk, clock) = (FaultyDisk::new(), Arc::new(ManualClock::new(START_MS)));
        let mut counts = Counts::default();
        let client = Client::open(&disk, &clock, seed, &mut counts);
        Run { disk, clock, client, random: Random::new(seed), counts }
    }

    fn step(&mut self) -> Result<(), String> {
        let engine = &self.client.engine;
        match self.random.below(40) {
            0..22 => self.client.command(),
            22..26 => engine.demote_all(),
            26..31 => self.counts.checkpoints += u64::from(engine.checkpoint()),
            31..35 => engine.tick(),
            35 => {
                self.clock.advance(self.random.below(700) as u64);
                engine.tick();
            }
            36 => {
                self.client.is_quiet.store(true, Relaxed);
                let sticky = self.random.one_in(2);
                let at = self.disk.operations() + self.random.below(40) as u64;
                self.disk.set_fault(Some(Fault { at, error: ErrorKind::Other, sticky }));
                match self.random.below(3) {
                    0 => engine.demote_all(),
                    1 => drop(engine.checkpoint()),
                    _ => engine.tick(),
                }
                self.disk.set_fault(None);
                return self.crash();
            }
            37 => {
                self.client.is_quiet.store(true, Relaxed);
                engine.close().unwrap();
                return self.crash();
            }
            _ => return self.crash(),
        }
        Ok(())
    }

    fn crash(&mut self) -> Result<(), String> {
        self.client.is_quiet.store(true, Relaxed);
        let stats = self.client.engine.stats();
        let durable = stats.log.unwrap_or_default().durable;
        self.counts.reclaimed += stats.tier.unwrap().reclaimed_bytes;
        self.disk.crash(self.random.bits());
        let states = std::mem::take(&mut *self.client.states.lock());
        // The one before is gone with the power: it may not touch the disk any more.
        self.disk.set_fault(Some(Fault { at: 0, error: ErrorKind::Other, sticky: true }));
        drop(self.client.engine.close());
        self.disk.set_fault(None);
        self.client = Client::open(&self.disk, &self.clock, self.random.bits(), &mut self.counts);
        let found = self.client.states.lock()[0].1.clone();
        let from = states.iter().rposition(|(lsn, _)| *lsn <= durable).unwrap_or(0);
        let Some(at) = (from..states.len()).rev().find(|at| self.fits(&states[*at].1, &found)) else {
            let (expected, last) = (&states[from].1, &states[states.len() - 1].1);
            let differs = KEYS.iter().filter(|key| found[*key] != expected[*key]);
            let show = |reply: &(Reply, Reply)| format!("{reply:?}").chars().take(90).collect::<String>();
            let shown = differs.map(|key| {
                let [found, expected, last] = [&found, expected, last].map(|state| show(&state[key]));
                format!("{key}: {found} not {expected} or in the end {last}")
            });
            return Err(shown.collect::<Vec<_>>().join("\n"));
        };
        self.counts.crashes += 1;
        self.counts.lost += u64::from(at + 1 < states.len());
        Ok(())
    }

    /// Whether what was found is this state, as it is now.
    fn fits(&self, state: &State, found: &State) -> bool {
        let has_expired = |deadline: &Reply| match deadline {
            Reply::Integer(at) => (1..=self.clock.unix_ms() as i64).contains(at),
            _ => false,
        };
        let missing = self.client.run("KV.GETV nothing");
        KEYS.iter().all(|key| match &state[key] {
            (_, deadline) if has_expired(deadline) => found[key].0 == missing,
            state => found[key] == *state,
        })
    }
}

#[test]
fn after_any_crash_there_is_a_state_that_was() {
    let (first, sequences) = (setting("KV_SEED", 1), setting("KV_SEQUENCES", 40));
    let mut all = Counts::default();
    for seed in first..first + sequences {
        let mut run = Run::new(seed);
        for step in 0..200 {
            run.step().unwrap_or_else(|error| panic!("KV_SEED={seed}, step {step}: {error}"));
        }
        let counts = run.counts;
        all.checkpoints += counts.checkpoints;
        all.crashes += counts.crashes;
        all.lost += counts.lost;
        all.reclaimed += counts.reclaimed;
        all.replayed += counts.replayed;
        all.interrupts.fetch_add(counts.interrupts.load(Relaxed), Relaxed);
    }
    println!("{sequences} sequences of 200 steps: {all:?}");
    assert!(all.interrupts.load(Relaxed) > sequences * 5 && all.crashes > sequences * 5);
    assert!(all.lost > sequences && all.reclaimed > sequences << 18);
}

/// The record of a deleted key goes only once the delete is durable: a crash may take the delete back, and then the key is there.
#[test]
fn a_record_is_not_given_up_for_a_delete_that_a_crash_takes_back() {
    let (disk, clock) = (FaultyDisk::new(), Arc::new(ManualClock::new(START_MS)));
    let open = |disk: &FaultyDisk| {
        // A log so long that no checkpoint of its own comes in between and syncs it.
        let engine = open_with(Arc::new(disk.clone()), &clock, 256 << 20);
        let caller = Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
        let (random, is_quiet) = (Mutex::new(Random::new(1)), AtomicBool::new(true));
        Client { engine, caller, random, is_quiet, states: Mutex::default() }
    };
    let client = open(&disk);
    let value = "v".repeat(150_000);
    for n in 0..40 {
        assert_eq!(client.run(&format!("SET key:{n} {value}")), Reply::Ok);
        client.engine.do_chore(Chore::Log);
    }
    assert_eq!(client.run("SET marker 1"), Reply::Ok);
    assert!(client.engine.checkpoint());
    client.engine.demote_all();
    // Most of what is on disk dies, so that all segments are worth rewriting.
    for n in (0..40).filter(|n| n % 8 != 0) {
        assert_eq!(client.run(&format!("DEL key:{n}")), Reply::Integer(1));
    }
    assert!(client.engine.checkpoint());
    let before = client.engine.stats().log.unwrap();
    assert_eq!(before.durable, before.last);
    assert!(before.bytes < 2 << 20, "the log has the first keys no more: {} bytes", before.bytes);
    assert_eq!(client.run("SET marker 2"), Reply::Ok);
    assert_eq!(client.run("DEL key:0"), Reply::Integer(1));
    client.engine.do_chore(Chore::Tier);
    let reclaimed = client.engine.stats().tier.unwrap().reclaimed_bytes;
    assert!(reclaimed > 3 << 20, "{reclaimed} bytes are given back");
    for seed in 0..30 {
        let again = open(&disk.crash_image(seed));
        let is_before = again.run("GET marker") == Reply::Value(Value::Bytes(b"1".as_slice().into()));
        let is_there = again.run("EXISTS key:0") == Reply::Integer(1);
        assert!(
            is_there || !is_before,
            "the delete is kept, and what was done before it is not: seed {seed}"
        );
        assert_eq!(again.run("EXISTS key:8 key:16 key:24 key:32 key:1"), Reply::Integer(4));
    }
}
