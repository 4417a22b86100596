//! An engine and the model beside it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;

use data_bridge_kv::shard::put_value;
use data_bridge_kv::table::Stored;
use data_bridge_kv::{
    Caller, DataDirectory, Engine, Eviction, Lookahead, ManualClock, Mode, OnError, Pin, Settings,
    TransitionGraph,
};
use data_bridge_kv_model::command::table::opcode;
use data_bridge_kv_model::command::{Condition, NumberCommand, NumberStyle, ScalarCommand, SetReply};
use data_bridge_kv_model::{Arg, Call, Command, Key, Reply, ReplyBuf, ReplyReader, Shape, Value};
use data_bridge_kv_testkit::disk::{Fault, FaultyDisk};
use data_bridge_kv_testkit::random::Random;
use data_bridge_kv_testkit::reference::{Follower, Graph, Reference, same_fault};
use data_bridge_kv_testkit::workload::{KEYS, Request, VersionOf, Word};

use crate::plan::{Plan, START, Step, Watched};

/// What is done to the engine on purpose, so that the test can be seen to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing.
    None,
    /// Writes forget their deadline.
    LostDeadline,
    /// Conditional writes write always.
    ConditionIgnored,
    /// An increment ignores its bounds.
    BoundIgnored,
    /// A transition ignores its fence.
    FenceIgnored,
    /// An atomic step that fails leaves what it did.
    NotUndone,
    /// Watched keys are not looked at.
    WatchIgnored,
    /// Time stands still, so that what has expired is served.
    ExpiredServed,
    /// A write keeps the deadline that was there.
    DeadlineKept,
    /// Compare-and-set writes whatever is there.
    NotCompared,
    /// Reads tell an older version.
    OldVersion,
    /// States follow each other as they like.
    GraphIgnored,
}

impl Flaw {
    pub const ALL: [Flaw; 11] = [
        Flaw::LostDeadline,
        Flaw::ConditionIgnored,
        Flaw::BoundIgnored,
        Flaw::FenceIgnored,
        Flaw::NotUndone,
        Flaw::WatchIgnored,
        Flaw::ExpiredServed,
        Flaw::DeadlineKept,
        Flaw::NotCompared,
        Flaw::OldVersion,
        Flaw::GraphIgnored,
    ];

    /// The request as the flawed engine takes it.
    fn bend(self, mut request: Request) -> Request {
        match self {
            Flaw::LostDeadline => drop_option(&mut request, &["EX", "PX", "EXAT", "PXAT"], 2),
            Flaw::ConditionIgnored => drop_option(&mut request, &["NX", "XX", "GT", "LT"], 1),
            Flaw::BoundIgnored => drop_option(&mut request, &["MIN", "MAX"], 2),
            Flaw::FenceIgnored => drop_option(&mut request, &["FENCE"], 2),
            Flaw::DeadlineKept if request.opcode == opcode::SET && request.words.len() == 2 => {
                request.words.push(Word::Untyped(b"KEEPTTL".to_vec()));
            }
            Flaw::NotCompared if request.opcode == opcode::KV_CAS => {
                if let Some(at) = request.words.iter().position(|word| is_word(word, "TO")) {
                    request = Request {
                        opcode: opcode::KV_SET,
                        words: vec![request.words[0].clone(), request.words[at + 1].clone()],
                    };
                }
            }
            _ => {}
        }
        request
    }

    fn bend_reply(self, request: &Request, reply: Reply) -> Reply {
        match (self, request.opcode, reply) {
            (Flaw::NotCompared, opcode::KV_CAS, Reply::Ok) => Reply::Boolean(true),
            (Flaw::OldVersion, opcode::KV_GETV, Reply::Container(shape, mut items)) => {
                if let Some(Reply::Integer(version)) = items.last_mut() {
                    *version &= !1;
                }
                Reply::Container(shape, items)
            }
            (_, _, reply) => reply,
        }
    }
}

fn is_word(word: &Word, name: &str) -> bool {
    match word {
        Word::Untyped(bytes) => bytes == name.as_bytes(),
        Word::Value(encoded) => *encoded == Value::Text(name.into()).encode(),
        Word::Literal(..) | Word::Version(_) => false,
    }
}

fn drop_option(request: &mut Request, names: &[&str], words: usize) {
    if let Some(at) = request.words.iter().position(|word| names.iter().any(|name| is_word(word, name))) {
        request.words.drain(at..request.words.len().min(at + words));
    }
}

/// Where the engine's entries are before each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// In memory.
    Hot,
    /// On disk.
    Cold,
    /// In memory and in the log, from which they come back after the power was cut between two steps.
    Logged,
    /// The same, and on disk: checkpoints are written and entries leave memory between steps, the disk fails, and the store
    /// is closed and opened.
    Kept,
}

pub struct Pair {
    engine: Engine,
    settings: Settings,
    disk: FaultyDisk,
    random: Random,
    caller: Caller,
    clock: Arc<ManualClock>,
    follower: Follower,
    namespace: usize,
    flaw: Flaw,
    /// Whether single commands go the short way.
    short: bool,
    /// How many did.
    pub shortened: Cell<usize>,
    tier: Tier,
    /// How many replies were compared.
    pub replies: usize,
    /// How often the power was cut.
    pub crashes: usize,
    /// How many checkpoints were written.
    pub checkpoints: usize,
}

/// A store with these settings; where it has a directory, on this disk.
fn open(settings: &Settings, disk: &FaultyDisk, tier: Tier) -> Engine {
    let directory = || DataDirectory::on(Arc::new(disk.clone()), 1 << 26).expect("nobody else has it");
    let data = (tier != Tier::Hot).then(directory);
    Engine::open(Settings { data, ..settings.clone() }).expect("it opens")
}

/// Which side an argument is meant for.
#[derive(Clone, Copy)]
enum Side {
    Engine,
    Model,
}

impl Pair {
    pub fn open(plan: &Plan, flaw: Flaw, tier: Tier) -> Pair {
        let clock = Arc::new(ManualClock::new(START));
        let mut settings = Settings {
            shards: Some([1, 2, 16][(plan.seed % 3) as usize]),
            clock: Arc::clone(&clock) as _,
            seed: Some(plan.seed),
            background: false,
            ..Settings::default()
        };
        let mut model = Reference::new(START);
        // Namespace 3 gives every key a time to live, namespace 1 refuses to be flushed.
        settings.namespaces[3].default_ttl_ms = Some(1000);
        model.space_mut(3).default_ttl_ms = Some(1000);
        // Namespace 4 knows which state may follow which.
        let steps = "->A, A->B|C, B->C";
        if flaw != Flaw::GraphIgnored {
            settings.namespaces[4].graph = Some(TransitionGraph::parse("status", steps).expect("a graph"));
        }
        let edge = |from: Option<&str>, to: &str| (from.map(str::to_owned), to.to_owned());
        let edges = vec![edge(None, "A"), edge(Some("A"), "B"), edge(Some("A"), "C"), edge(Some("B"), "C")];
        model.space_mut(4).graph = Some(Graph { field: "status".to_owned(), edges });
        let namespace = (plan.seed % 5) as usize;
        if matches!(tier, Tier::Logged | Tier::Kept) {
            let logged = &mut settings.namespaces[namespace];
            (logged.mode, logged.eviction) = (Mode::Task, Eviction::None);
        }
        let disk = FaultyDisk::new();
        let engine = open(&settings, &disk, tier);
        let id = engine.namespace(&namespace.to_string()).expect("a namespace");
        let caller = Caller { namespace: id, ..engine.caller() };
        Pair {
            engine,
            settings,
            disk,
            random: Random::new(plan.seed),
            caller,
            clock,
            follower: Follower::new(model),
            namespace,
            flaw,
            short: plan.seed.is_multiple_of(2),
            shortened: Cell::new(0),
            tier,
            replies: 0,
            crashes: 0,
            checkpoints: 0,
        }
    }

    /// How many entries were read from disk.
    pub fn fetched(&self) -> u64 {
        self.engine.stats().tier.map_or(0, |tier| tier.fetched)
    }

    /// Cuts the power and opens the store again.
    fn crash(&mut self) {
        self.disk.crash(self.random.bits());
        // The one before is gone with the power: it may not touch the disk any more.
        self.disk.set_fault(Some(Fault { at: 0, error: ErrorKind::Other, sticky: true }));
        self.engine = Engine::open(Settings { background: false, ..Settings::default() }).expect("in memory");
        self.disk.set_fault(None);
        self.engine = open(&self.settings, &self.disk, self.tier);
        self.caller = Caller { namespace: self.caller.namespace, ..self.engine.caller() };
        self.crashes += 1;
    }

    /// Lets entries change their place, or the store be opened again: no key may change by that.
    fn move_about(&mut self) -> Result<(), String> {
        let before = KEYS.map(|key| self.version(key));
        let what = self.random.below(9);
        match what {
            0 | 1 => self.engine.demote_all(),
            2 | 3 => {
                self.checkpoints += usize::from(self.engine.checkpoint());
                if self.random.below(3) == 0 {
                    self.engine.demote_all();
                }
            }
            4 => {
                let at = self.disk.operations() + self.random.below(30) as u64;
                let sticky = self.random.below(2) == 0;
                self.disk.set_fault(Some(Fault { at, error: ErrorKind::Other, sticky }));
                self.engine.checkpoint();
                self.disk.set_fault(None);
                self.crash();
            }
            5 => self.crash(),
            6 => {
                self.engine.close().unwrap();
                self.crash();
            }
            _ => return Ok(()),
        }
        let after = KEYS.map(|key| self.version(key));
        if before == after {
            Ok(())
        } else {
            Err(format!("versions before move {what} {before:?}, after it {after:?}"))
        }
    }

    pub fn take(&mut self, step: &Step) -> Result<(), String> {
        match self.tier {
            Tier::Hot => {}
            Tier::Cold => self.engine.demote_all(),
            Tier::Logged if self.random.below(6) == 0 => {
                let before = KEYS.map(|key| self.version(key));
                self.crash();
                let after = KEYS.map(|key| self.version(key));
                if before != after {
                    return Err(format!("versions before a crash {before:?}, after it {after:?}"));
                }
            }
            Tier::Logged => {}
            Tier::Kept => self.move_about()?,
        }
        match step {
            Step::Run(request) => self.run(std::slice::from_ref(request), false)?,
            Step::Batch(requests) => self.run(requests, true)?,
            Step::Atomic { requests, abort, watched } => self.run_atomic(requests, *abort, watched)?,
            Step::Pause { ms, ticks } => {
                if self.flaw != Flaw::ExpiredServed {
                    self.clock.advance(*ms);
                }
                self.follower.model.advance(*ms);
                if *ticks {
                    self.engine.tick();
                }
            }
        }
        self.compare_versions()
    }

    fn version_of(&self, of: &VersionOf, side: Side) -> u64 {
        let (VersionOf::Current(key) | VersionOf::Stale(key)) = of;
        let current = match side {
            Side::Engine => self.version(key),
            Side::Model => self.follower.model.space(self.namespace).version(key),
        };
        match of {
            VersionOf::Current(_) => current,
            // Far above, or the one before: neither is the key's.
            VersionOf::Stale(_) if current < 2 => 1 << 62,
            VersionOf::Stale(_) => current - 1,
        }
    }

    fn version(&self, key: &str) -> u64 {
        Key::new(key.as_bytes()).map_or(0, |key| self.engine.version(&self.caller, key).expect("readable"))
    }

    /// The requests as the engine and as the model take them.
    fn resolve(&self, requests: &[Request]) -> (Vec<Request>, Vec<Request>) {
        let resolved = |request: &Request, side| request.resolved(|of| self.version_of(of, side));
        let bent = requests.iter().map(|request| self.flaw.bend(resolved(request, Side::Engine)));
        (bent.collect(), requests.iter().map(|request| resolved(request, Side::Model)).collect())
    }

    fn run(&mut self, requests: &[Request], batch: bool) -> Result<(), String> {
        let (ours, theirs) = self.resolve(requests);
        let (our_args, their_args): (Vec<_>, Vec<_>) =
            (ours.iter().map(Request::args).collect(), theirs.iter().map(Request::args).collect());
        // Both are refused alike: it is the same parser.
        let calls = |requests: &[Request], args: &'_ [Vec<Arg<'_>>]| -> Vec<bool> {
            requests.iter().zip(args).map(|(request, args)| request.call(args).is_ok()).collect()
        };
        let good = calls(&theirs, &their_args);
        let kept = |at: &usize| good[*at];
        let indexes: Vec<usize> = (0..requests.len()).filter(kept).collect();
        let engine_calls: Vec<Call<'_>> =
            indexes.iter().filter_map(|at| ours[*at].call(&our_args[*at]).ok()).collect();
        if engine_calls.len() != indexes.len() {
            return Ok(());
        }
        if requests.iter().any(|request| request.opcode == opcode::DBSIZE) {
            self.engine.tick();
        }
        let mut out = ReplyBuf::new();
        if batch {
            let mut answers = Vec::new();
            self.engine.execute_batch(&self.caller, 0, &engine_calls, &mut out, &mut answers);
            if answers.len() != engine_calls.len()
                || answers.last().is_some_and(|end| *end != Some(out.len()))
            {
                return Err(format!("a batch of {} has the answers {answers:?}", engine_calls.len()));
            }
        } else {
            engine_calls.iter().for_each(|call| self.execute(call, &mut out));
        }
        let mut reader = ReplyReader::new(out.as_bytes());
        for at in indexes {
            let observed = reader.reply().map_err(|error| format!("unreadable reply: {error}"))?;
            let observed = self.flaw.bend_reply(&requests[at], observed);
            let call = theirs[at].call(&their_args[at]).map_err(|error| error.to_string())?;
            self.follower
                .follow(self.namespace, &call.command, &observed)
                .map_err(|why| format!("{why}\n  in {}", requests[at].line()))?;
            self.replies += 1;
        }
        if reader.is_done() { Ok(()) } else { Err("bytes after the last reply".to_owned()) }
    }

    /// Executes one command, in every second sequence the short way where there is one.
    fn execute(&self, call: &Call<'_>, out: &mut ReplyBuf) {
        let done = match call.command {
            _ if !self.short => false,
            Command::Scalar(ScalarCommand::Get { key, any_kind: true }) => {
                let put = |value: Option<Stored<'_>>| match value {
                    Some(value) => put_value(value, out),
                    None => out.missing(),
                };
                self.engine.try_read(&self.caller, key, put).is_ok()
            }
            Command::Scalar(ScalarCommand::Set { key, value: Arg::Value(value), options })
                if options.condition == Condition::Always && options.reply == SetReply::Status =>
            {
                self.engine.try_write(&self.caller, key, value, options.expiry).map(|()| out.ok()).is_ok()
            }
            Command::Number(NumberCommand::Add {
                key,
                by,
                negate: false,
                style: NumberStyle::RedisInteger,
                ..
            }) => {
                let pin = Pin::new();
                let mut ahead = Lookahead::default().begin(&pin);
                self.engine.look_ahead(&self.caller, &mut ahead).tell(Some(key.as_bytes()), None);
                let sum =
                    by.int().ok().and_then(|by| self.engine.add_ahead(&self.caller, key, by, ahead.turn(0)));
                sum.map(|sum| out.integer(sum)).is_some()
            }
            _ => false,
        };
        if !done {
            let _ = self.engine.execute(&self.caller, 0, call, out);
        }
        self.shortened.set(self.shortened.get() + usize::from(done));
    }

    fn run_atomic(&mut self, requests: &[Request], abort: bool, watched: &[Watched]) -> Result<(), String> {
        let (ours, theirs) = self.resolve(requests);
        let (our_args, their_args): (Vec<_>, Vec<_>) =
            (ours.iter().map(Request::args).collect(), theirs.iter().map(Request::args).collect());
        let calls = |requests: &'_ [Request], args: &'_ [Vec<Arg<'_>>]| -> bool {
            requests.iter().zip(args).all(|(request, args)| request.call(args).is_ok())
        };
        if !calls(&ours, &our_args) || !calls(&theirs, &their_args) {
            return Ok(());
        }
        let our_calls: Vec<Call<'_>> =
            ours.iter().zip(&our_args).filter_map(|(r, a)| r.call(a).ok()).collect();
        let commands: Vec<_> = theirs
            .iter()
            .zip(&their_args)
            .filter_map(|(r, a)| r.call(a).ok())
            .map(|call| call.command)
            .collect();
        let holds = watched.iter().all(|watched| watched.holds);
        let keys: Vec<(Key<'_>, u64)> = watched
            .iter()
            .filter(|_| self.flaw != Flaw::WatchIgnored)
            .map(|watched| {
                let version = self.version(watched.key);
                (Key::new(watched.key.as_bytes()).expect("a key"), version + u64::from(!watched.holds))
            })
            .collect();
        let mut out = ReplyBuf::new();
        let abort_now = abort && self.flaw != Flaw::NotUndone;
        let on_error = if abort_now { OnError::Abort } else { OnError::Continue };
        let _ = self.engine.execute_atomic(&self.caller, &our_calls, on_error, &keys, &mut out);
        let observed = ReplyReader::new(out.as_bytes()).reply().map_err(|error| error.to_string())?;
        self.replies += 1;
        if !holds {
            return match observed {
                Reply::Error(error) if error.kind() == data_bridge_kv_model::ErrorKind::Aborted => Ok(()),
                other => Err(format!("a watched key has changed, but the step answers {other:?}")),
            };
        }
        match observed {
            Reply::Container(Shape::Array, items) if items.len() == commands.len() => {
                let failed = items.iter().any(|item| matches!(item, Reply::Error(_)));
                if abort && failed {
                    return Err("an atomic step went on after an error".to_owned());
                }
                for ((command, item), request) in commands.iter().zip(items).zip(requests) {
                    let item = self.flaw.bend_reply(request, item);
                    self.follower.follow(self.namespace, command, &item)?;
                }
                Ok(())
            }
            Reply::Error(error) if abort => {
                match self.follower.model.execute_atomic(self.namespace, &commands) {
                    Err(expected) if same_fault(&expected, &error) => Ok(()),
                    other => Err(format!("the step failed with {error:?}, the model says {other:?}")),
                }
            }
            other => Err(format!("an atomic step answers {other:?}")),
        }
    }

    fn compare_versions(&mut self) -> Result<(), String> {
        for key in KEYS {
            let theirs = self.version(key);
            let ours = self.follower.model.space(self.namespace).version(key);
            self.follower.see_version(self.namespace, key, ours, theirs)?;
        }
        Ok(())
    }

    fn ask(&mut self, opcode: u16, words: &[&[u8]]) -> Reply {
        let request =
            Request { opcode, words: words.iter().map(|word| Word::Untyped(word.to_vec())).collect() };
        let args = request.args();
        let call = request.call(&args).expect("a valid request");
        let mut out = ReplyBuf::new();
        let _ = self.engine.execute(&self.caller, 0, &call, &mut out);
        ReplyReader::new(out.as_bytes()).reply().expect("a reply")
    }

    /// Both hold the same keys with the same values, deadlines and members, and every walk shows each once.
    pub fn compare_everything(&mut self) -> Result<(), String> {
        let mut requests = Vec::new();
        for key in KEYS {
            let key = Word::Untyped(key.as_bytes().to_vec());
            for opcode in [opcode::KV_GETV, opcode::PTTL, opcode::KV_KIND, opcode::MEMORY] {
                let words = if opcode == opcode::MEMORY {
                    vec![Word::Untyped(b"USAGE".to_vec()), key.clone()]
                } else {
                    vec![key.clone()]
                };
                requests.push(Request { opcode, words });
            }
        }
        requests.push(Request { opcode: opcode::DBSIZE, words: Vec::new() });
        self.run(&requests, true)?;
        let space = self.follower.model.space(self.namespace);
        let all: BTreeSet<Vec<u8>> = space.iter().map(|(key, _)| Value::Text(key.into()).encode()).collect();
        let collections: Vec<(String, usize, u16)> = space
            .iter()
            .filter_map(|(key, entry)| match &entry.value {
                Value::Set(members) => Some((key.to_owned(), members.len(), opcode::SSCAN)),
                Value::Hash(fields) => Some((key.to_owned(), fields.len(), opcode::HSCAN)),
                Value::SortedSet(set) => Some((
                    key.to_owned(),
                    data_bridge_kv_testkit::reference::pairs_of(set).1.len(),
                    opcode::ZSCAN,
                )),
                _ => None,
            })
            .collect();
        let keys = self.walk(opcode::SCAN, None, 1)?;
        if keys.len() != all.len() || keys.into_iter().collect::<BTreeSet<_>>() != all {
            return Err("a walk over the keys does not show each of them once".to_owned());
        }
        for (key, members, opcode) in collections {
            let width = if opcode == opcode::SSCAN { 1 } else { 2 };
            let found = self.walk(opcode, Some(&key), width)?;
            let distinct: BTreeSet<&Vec<u8>> = found.iter().collect();
            if found.len() != members || distinct.len() != members {
                return Err(format!("a walk over {key:?} shows {} of {members} members", found.len()));
            }
        }
        Ok(())
    }

    /// What a whole walk in the smallest steps shows: the first of each `width` items, encoded.
    fn walk(&mut self, opcode: u16, key: Option<&str>, width: usize) -> Result<Vec<Vec<u8>>, String> {
        let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
        for _ in 0..1000 {
            let mut words: Vec<&[u8]> = key.map(str::as_bytes).into_iter().collect();
            words.extend([cursor.as_bytes(), b"COUNT", b"1"]);
            let Reply::Container(_, items) = self.ask(opcode, &words) else {
                return Err("a scan failed".to_owned());
            };
            let [Reply::Value(Value::Text(next)), Reply::Container(_, part)] = &items[..] else {
                return Err(format!("a scan answers {items:?}"));
            };
            found.extend(part.iter().step_by(width).filter_map(|item| match item {
                Reply::Value(value) => Some(value.encode()),
                _ => None,
            }));
            if &**next == "0" {
                return Ok(found);
            }
            cursor = next.to_string();
        }
        Err("a walk does not end".to_owned())
    }
}
