//! The whole engine on one thread: a seed decides what comes next, a command of some client, a chore of the engine, or trouble.

use std::io::ErrorKind as DiskError;
use std::sync::{Arc, Weak};

use data_bridge_kv::record::{Mark, MarkFile};
use data_bridge_kv::settings::Durability;
use data_bridge_kv::snapshot::Snapshot;
use data_bridge_kv::sync::real::Mutex;
use data_bridge_kv::{
    Caller, Chore, Clock, Engine, Eviction, ManualClock, Mode, OnError, Progress, Settings,
};
use data_bridge_kv_model::command::Command;
use data_bridge_kv_model::command::table::opcode;
use data_bridge_kv_model::{Arg, Call, Error, ErrorKind, Key, Reply, ReplyBuf, ReplyReader};
use data_bridge_kv_testkit::disk::{Fault, FaultyDisk};
use data_bridge_kv_testkit::random::Random;
use data_bridge_kv_testkit::reference::Reference;
use data_bridge_kv_testkit::workload::{KEYS, Request, VersionOf, Word};

use crate::client::{Client, Push};
use crate::counts::Counts;
use crate::opened::{Opened, base_of, open};
use crate::plan::{START, Step, Watched};
use crate::trace::Trace;
use crate::wire::{Bystander, Plant};
use crate::witness::{SPACES, Witness};

/// Clients of each namespace of [`SPACES`].
const CLIENTS: [usize; 2] = [2, 1];
/// What a disk holds while it is full, and how much more than before where the log's segments are small.
const FULL_BYTES: u64 = 1 << 20;
const FULL_FEW_BYTES: usize = 16 << 10;
/// Small segments, so that the log is trimmed.
const SEGMENT_BYTES: u64 = 4096;

pub struct World {
    disk: FaultyDisk,
    clock: Arc<ManualClock>,
    settings: Settings,
    opened: Mutex<Opened>,
    state: Mutex<State>,
    me: Weak<World>,
    plant: Plant,
}

struct State {
    random: Random,
    witness: Witness,
    clients: Vec<Client>,
    counts: Counts,
    trace: Trace,
    /// What versions are counted from, so that a trace does not depend on it.
    base: u64,
    /// From where on the log was, the last time that it was looked at.
    log_start: u64,
    /// Whether a fault was planned since the store was opened.
    is_faulty: bool,
    is_full: bool,
    /// Whether commands may run while the tier is written.
    interrupts: bool,
    /// What everything done so far is durable for at the latest: changes, and when a step of the log came after them.
    written: Vec<(u64, u64)>,
}

pub type Outcome<T = ()> = Result<T, String>;

impl Bystander for World {
    fn meanwhile(&self) {
        // Whoever steps the world holds its state, but not while the engine does its chores.
        if let Some(mut state) = self.state.try_lock()
            && state.interrupts
            && state.random.one_in(3)
        {
            let engine = Arc::clone(&self.opened.lock().engine);
            state.counts.between += 1;
            let done = self.command(&mut state, &engine);
            if let Err(why) = done {
                state.trace.fail(why);
            }
        }
    }
}

impl World {
    pub fn new(seed: u64, plant: Plant) -> Arc<World> {
        let clock = Arc::new(ManualClock::new(START));
        let mut settings = Settings {
            shards: Some([1, 2, 4][(seed % 3) as usize]),
            clock: Arc::clone(&clock) as _,
            seed: Some(seed),
            background: false,
            log_bytes: [1 << 10, 8 << 10, 256 << 20][(seed / 3 % 3) as usize],
            log_segment_bytes: [None, Some(SEGMENT_BYTES)][(seed / 9 % 2) as usize],
            ..Settings::default()
        };
        for (space, durability) in SPACES.into_iter().zip([Durability::Always, Durability::EverySecond]) {
            let named = &mut settings.namespaces[space];
            (named.mode, named.eviction, named.durability) = (Mode::Task, Eviction::None, Some(durability));
        }
        Arc::new_cyclic(|me: &Weak<World>| {
            let disk = FaultyDisk::new();
            let opened = open(&disk, &settings, me.clone(), plant).expect("an empty directory opens");
            let places = SPACES.into_iter().zip(CLIENTS).flat_map(|(space, count)| vec![space; count]);
            let client = |(at, space): (u64, usize)| {
                Client::new(&opened.engine, space, seed.wrapping_mul(31).wrapping_add(at))
            };
            let clients = (0..).zip(places).map(client).collect();
            let state = State {
                random: Random::new(seed),
                witness: Witness::new(Reference::new(START)),
                clients,
                counts: Counts::default(),
                trace: Trace::default(),
                base: base_of(&disk),
                log_start: 1,
                is_faulty: false,
                is_full: false,
                interrupts: !seed.is_multiple_of(4),
                written: Vec::new(),
            };
            let (opened, state) = (Mutex::new(opened), Mutex::new(state));
            World { disk, clock, settings, opened, state, me: me.clone(), plant }
        })
    }

    /// Runs until every client's script is at its end, and the store was opened a last time; answers everything that happened.
    pub fn run(&self) -> Outcome<(Trace, Counts)> {
        let stepped = self.steps();
        let mut state = self.state.lock();
        let ended = stepped.and_then(|()| self.restart(&mut state, 0));
        state.trace.failure().map_or(ended, Err).map_err(|why| state.trace.told(&why))?;
        Ok((std::mem::take(&mut state.trace), state.counts))
    }

    fn steps(&self) -> Outcome {
        while self.state.lock().clients.iter().any(|client| !client.script.is_empty()) {
            self.step()?;
            let mut state = self.state.lock();
            self.show(&mut state)?;
            let (ms, operations) = (self.clock.unix_ms() - START, self.disk.operations());
            let (position, floor) = (state.witness.position, state.witness.floor());
            state.trace.add(format!("  {ms} ms, {operations} operations, {position} changes, {floor} shown"));
            if let Some(why) = state.trace.failure() {
                return Err(why);
            }
        }
        Ok(())
    }

    fn step(&self) -> Outcome {
        let engine = Arc::clone(&self.opened.lock().engine);
        let mut state = self.state.lock();
        let what = state.random.below(100);
        match what {
            0..60 => self.command(&mut state, &engine),
            60..78 => {
                let chore =
                    [Chore::Log, Chore::Log, Chore::Log, Chore::Tier, Chore::Expire][state.random.below(5)];
                state.trace.add(format!("{chore:?}"));
                drop(state);
                engine.do_chore(chore);
                if chore == Chore::Log { self.count_second(&engine) } else { Ok(()) }
            }
            78..82 => {
                let ms = *state.random.pick(&[1, 10, 100, 400, 1000]);
                self.pass(&mut state, ms);
                Ok(())
            }
            82..87 => {
                drop(state);
                let is_done = engine.checkpoint();
                let mut state = self.state.lock();
                state.trace.add(format!("checkpoint: {is_done}"));
                state.counts.checkpoints += u64::from(is_done);
                Ok(())
            }
            87..91 => {
                state.trace.add("demote".to_owned());
                drop(state);
                engine.demote_all();
                Ok(())
            }
            91..94 => {
                let error = *state.random.pick(&[DiskError::Other, DiskError::StorageFull]);
                let (after, sticky) = (state.random.below(40) as u64, state.random.one_in(2));
                let at = self.disk.operations() + after;
                state.trace.add(format!("operation {at} fails: {error}, sticky {sticky}"));
                self.disk.set_fault(Some(Fault { at, error, sticky }));
                (state.is_faulty, state.counts.faults) = (true, state.counts.faults + 1);
                Ok(())
            }
            94 => self.fill_or_free(&mut state, &engine),
            95 => self.copy(&mut state, &engine),
            _ => {
                let how = state.random.below(5);
                self.restart(&mut state, how)
            }
        }
    }

    /// Time passes for everybody.
    fn pass(&self, state: &mut State, ms: u64) {
        self.clock.advance(ms);
        state.witness.now.model.advance(ms);
    }

    /// Where the log is synced every second: what was done a second before its last step is durable now.
    fn count_second(&self, engine: &Engine) -> Outcome {
        let mut state = self.state.lock();
        let now = self.clock.unix_ms();
        if engine.log_failure().is_none() {
            let due = state.written.iter().rposition(|(_, at)| at + 1000 <= now);
            if let Some(due) = due {
                let (position, _) = state.written[due];
                state.witness.show(position);
                state.written.drain(..=due);
            }
            let position = state.witness.position;
            state.written.push((position, now));
        }
        Ok(())
    }

    /// The next step of some client's script, or a wait.
    fn command(&self, state: &mut State, engine: &Engine) -> Outcome {
        let at = state.random.below(state.clients.len());
        if state.random.one_in(10) {
            return self.wait(state, engine, at);
        }
        match state.clients[at].script.pop_front() {
            None => Ok(()),
            Some(Step::Run(request)) => self.one(state, engine, at, &request),
            Some(Step::Batch(requests)) => {
                requests.iter().try_for_each(|request| self.one(state, engine, at, request))
            }
            Some(Step::Atomic { requests, abort, watched }) => {
                self.atomic(state, engine, at, &requests, abort, &watched)
            }
            Some(Step::Pause { ms, .. }) => {
                self.pass(state, ms);
                Ok(())
            }
        }
    }

    /// The version of a key, for nobody's eyes.
    fn version(engine: &Engine, space: usize, key: &str) -> Option<u64> {
        let namespace = engine.namespace(&space.to_string()).ok()?;
        let caller = Caller { namespace, parks: true, ..engine.caller() };
        engine.version(&caller, Key::new(key.as_bytes()).ok()?).ok()
    }

    /// The request as the engine takes it, and as the model does; `None` if it can't be asked now.
    fn resolve(state: &State, engine: &Engine, space: usize, request: &Request) -> Option<[Request; 2]> {
        let stale = |current: u64| if current < 2 { 1 << 62 } else { current - 1 };
        let unknown = std::cell::Cell::new(false);
        let filled = |version: &dyn Fn(&str) -> u64| {
            request.resolved(|of| match of {
                VersionOf::Current(key) => version(key),
                VersionOf::Stale(key) => stale(version(key)),
            })
        };
        let theirs = filled(&|key| state.witness.now.model.space(space).version(key));
        let ours = filled(&|key| {
            let version = World::version(engine, space, key);
            unknown.set(unknown.get() || version.is_none());
            version.unwrap_or(0)
        });
        // What it counts may have expired, which is noticed by and by.
        let is_asked = !unknown.get() && request.opcode != opcode::DBSIZE;
        is_asked.then_some([ours, theirs])
    }

    fn one(&self, state: &mut State, engine: &Engine, at: usize, request: &Request) -> Outcome {
        let space = state.clients[at].space;
        // It goes through the keys in small steps, with a record for each: a crash may leave a part, unless the log is synced at
        // once.
        let is_many_steps = request.opcode == opcode::KV_CLEAR;
        if is_many_steps && (state.is_faulty || state.is_full) {
            return Ok(());
        }
        let Some([ours, theirs]) = World::resolve(state, engine, space, request) else { return Ok(()) };
        let (our_args, their_args) = (ours.args(), theirs.args());
        let (Ok(call), Ok(model)) = (ours.call(&our_args), theirs.call(&their_args)) else { return Ok(()) };
        // Reads of several keys go to threads, unless they come from memory.
        self.disk.cache_reads(call.command.keys().only().is_none());
        let mut out = ReplyBuf::new();
        let progress = engine.execute(&state.clients[at].caller, 0, &call, &mut out);
        self.disk.cache_reads(false);
        state.counts.commands += 1;
        if progress != Progress::Done {
            return Err(format!("{} is {progress:?}", request.line()));
        }
        let observed = ReplyReader::new(out.as_bytes()).reply().map_err(|error| error.to_string())?;
        state.trace.reply(&format!("{space}: {}", request.line()), &observed, state.base);
        let (before, position) = (state.witness.versions(space), state.witness.position);
        let follow = |state: &mut State| state.witness.now.follow(space, &model.command, &observed);
        let told = match &observed {
            Reply::Error(error) if state.may_refuse(error) => {
                let as_it_was = state.witness.now.clone();
                if follow(state).is_err() {
                    state.witness.now = as_it_was;
                    state.counts.refused += 1;
                    return Ok(());
                }
                Ok(())
            }
            _ => follow(state),
        };
        told.map_err(|why| format!("{why}\n  in {}", request.line()))?;
        state.witness.note(space, before, |key| World::version(engine, space, key))?;
        if is_many_steps {
            engine.sync().map_err(|error| error.to_string())?;
            state.witness.show(state.witness.position);
        }
        let is_sync = request.opcode == opcode::KV_SYNC;
        let rests_on = if is_sync {
            state.witness.position
        } else {
            state.witness.rests_on(space, request.opcode, &model.command, &observed, position)
        };
        if is_sync || space == SPACES[0] {
            state.clients[at].held.push(rests_on);
        }
        Ok(())
    }

    /// Several commands as one step.
    fn atomic(
        &self,
        state: &mut State,
        engine: &Engine,
        at: usize,
        requests: &[Request],
        abort: bool,
        watched: &[Watched],
    ) -> Outcome {
        let space = state.clients[at].space;
        let resolved: Option<Vec<[Request; 2]>> =
            requests.iter().map(|request| World::resolve(state, engine, space, request)).collect();
        let Some(resolved) = resolved else { return Ok(()) };
        let args: Vec<[Vec<Arg<'_>>; 2]> =
            resolved.iter().map(|[ours, theirs]| [ours.args(), theirs.args()]).collect();
        let calls = |side: usize| -> Option<Vec<Call<'_>>> {
            resolved.iter().zip(&args).map(|(pair, args)| pair[side].call(&args[side]).ok()).collect()
        };
        let (Some(ours), Some(theirs)) = (calls(0), calls(1)) else { return Ok(()) };
        let version = |watched: &Watched| {
            let version = World::version(engine, space, watched.key)? + u64::from(!watched.holds);
            Some((Key::new(watched.key.as_bytes()).ok()?, version))
        };
        let Some(keys) = watched.iter().map(version).collect::<Option<Vec<_>>>() else { return Ok(()) };
        let mut out = ReplyBuf::new();
        let on_error = if abort { OnError::Abort } else { OnError::Continue };
        self.disk.cache_reads(true);
        let _ = engine.execute_atomic(&state.clients[at].caller, &ours, on_error, &keys, &mut out);
        self.disk.cache_reads(false);
        state.counts.commands += 1;
        let observed = ReplyReader::new(out.as_bytes()).reply().map_err(|error| error.to_string())?;
        let line: Vec<String> = requests.iter().map(Request::line).collect();
        state.trace.reply(&format!("{space}: atomic {}", line.join("; ")), &observed, state.base);
        let holds = watched.iter().all(|watched| watched.holds);
        let before = state.witness.versions(space);
        let (as_it_was, position) = (state.witness.now.clone(), state.witness.position);
        let commands: Vec<Command<'_>> = theirs.iter().map(|call| call.command).collect();
        let told = state.witness.follow_atomic(space, &commands, holds, abort, &observed);
        match (&observed, told) {
            (Reply::Error(error), Err(_)) if state.may_refuse(error) => {
                state.witness.now = as_it_was;
                state.counts.refused += 1;
                return Ok(());
            }
            (_, told) => told.map_err(|why| format!("{why}\n  in {requests:?}"))?,
        }
        state.witness.note(space, before, |key| World::version(engine, space, key))?;
        if space == SPACES[0] {
            // What a step of several commands changed; what it read besides is not looked into.
            let rests_on = (state.witness.position > position).then_some(state.witness.position);
            state.clients[at].held.push(rests_on.unwrap_or(0));
        }
        Ok(())
    }

    /// A client begins to watch everything, or waits for a key to change.
    fn wait(&self, state: &mut State, engine: &Engine, at: usize) -> Outcome {
        let key = *state.random.pick(&KEYS);
        let client = &mut state.clients[at];
        let token = client.waits.len() as u64;
        let version = World::version(engine, client.space, key).unwrap_or(0);
        let word = |text: &str| Word::Untyped(text.as_bytes().to_vec());
        let request = match state.random.below(3) {
            0 => Request { opcode: opcode::KV_WATCH, words: vec![word("KEY"), word(key)] },
            _ => Request {
                opcode: opcode::KV_WAIT,
                words: ["", "TIMEOUT", "700", "NEWER", &version.to_string()]
                    .map(|text| word(if text.is_empty() { key } else { text }))
                    .to_vec(),
            },
        };
        client.waits.push(key);
        let mut out = ReplyBuf::new();
        let args = request.args();
        let call = request.call(&args).map_err(|error| error.to_string())?;
        let progress = engine.execute(&client.caller, token, &call, &mut out);
        let line = request.line().replace(&version.to_string(), "..");
        state.trace.add(format!("{at}: {line} -> {progress:?}"));
        Ok(())
    }

    /// Shows clients what they may see by now; it rests on changes that nothing may take back from here on.
    fn show(&self, state: &mut State) -> Outcome {
        let engine = Arc::clone(&self.opened.lock().engine);
        for at in 0..state.clients.len() {
            let client = &mut state.clients[at];
            let (space, pushes) = (client.space, client.mailbox.take());
            let is_early = self.plant == Plant::EarlyAnswer;
            if !client.held.is_empty() && (is_early || engine.owed(&client.caller).is_none()) {
                state.counts.shown += client.held.len() as u64;
                let last = client.held.drain(..).max();
                state.witness.show(last.unwrap_or(0));
            }
            for push in pushes.into_iter().filter(|_| space == SPACES[0]) {
                let (key, version) = match &push {
                    Push::Answer { token, version } => (state.clients[at].waits[*token as usize], *version),
                    Push::Event { change, key, version } if change == "set" => (
                        *KEYS.iter().find(|name| *name == key).ok_or("an event of an unknown key")?,
                        *version,
                    ),
                    // What is gone has no version that could come back.
                    Push::Event { .. } => continue,
                };
                let count = version.wrapping_sub(state.base);
                let from = if matches!(push, Push::Answer { .. }) { "answer" } else { "event" };
                state.trace.add(format!("{from} to {at}: {key:?} has version {count}"));
                let position = state.witness.version_position((space, key), version);
                let unknown =
                    || format!("a push told of version {version} of {key:?}, which it never had or lost");
                state.witness.show(position.ok_or_else(unknown)?);
                state.counts.pushed += 1;
            }
        }
        Ok(())
    }

    /// The disk fills up, or has space again: then writes go on by themselves.
    fn fill_or_free(&self, state: &mut State, engine: &Engine) -> Outcome {
        state.is_full = !state.is_full;
        state.counts.full += u64::from(state.is_full);
        let full = match self.settings.log_segment_bytes {
            None => FULL_BYTES,
            Some(_) => self.disk.used() + state.random.below(FULL_FEW_BYTES) as u64,
        };
        self.disk.set_capacity(state.is_full.then_some(full));
        state.trace.add(format!("full: {}", state.is_full));
        if state.is_full || state.is_faulty {
            return Ok(());
        }
        // As long as it takes the tier to look whether there is space: it does not each time.
        for _ in 0..40 {
            self.pass(state, 100);
            engine.do_chore(Chore::Log);
            engine.do_chore(Chore::Tier);
        }
        let refused = state.counts.refused;
        let word = |text: &str| Word::Untyped(text.as_bytes().to_vec());
        let set = Request { opcode: opcode::SET, words: vec![word(KEYS[0]), word("again")] };
        self.one(state, engine, 0, &set)?;
        if state.counts.refused > refused {
            return Err("writes don't go on although there is space".to_owned());
        }
        Ok(())
    }

    /// A snapshot has everything that was done.
    fn copy(&self, state: &mut State, engine: &Engine) -> Outcome {
        let (copy, restored) = (FaultyDisk::new(), FaultyDisk::new());
        match engine.snapshot(&copy, &mut |_, _| {}) {
            Err(_) if state.is_faulty || state.is_full => return Ok(()),
            made => drop(made.map_err(|error| format!("no snapshot: {error}"))?),
        }
        state.counts.snapshots += 1;
        state.witness.show(state.witness.position);
        Snapshot::restore(&copy, &restored, 0, &mut |_, _| {})
            .map_err(|error| format!("not restored: {error}"))?;
        let again = open(&restored, &self.settings, Weak::<World>::new(), Plant::Nothing)?;
        self.recognise(state, &again.engine).map(drop).map_err(|why| format!("the snapshot: {why}"))
    }

    /// What a store holds, as answers to questions about all keys, and which state that is.
    fn recognise(
        &self,
        state: &State,
        engine: &Engine,
    ) -> Outcome<(u64, data_bridge_kv_testkit::reference::Follower, usize)> {
        self.disk.cache_reads(true);
        let word = |text: &str| Word::Untyped(text.as_bytes().to_vec());
        let ask = |opcode, text| Request { opcode, words: vec![word(text)] };
        let mut requests = vec![ask(opcode::KEYS, "*")];
        for key in KEYS {
            requests.extend([opcode::KV_GETV, opcode::PEXPIRETIME].map(|opcode| ask(opcode, key)));
        }
        let args: Vec<Vec<Arg<'_>>> = requests.iter().map(Request::args).collect();
        let mut replies = Vec::new();
        for space in SPACES {
            let namespace = engine.namespace(&space.to_string()).map_err(|error| error.to_string())?;
            let caller = Caller { namespace, parks: true, ..engine.caller() };
            for (request, args) in requests.iter().zip(&args) {
                let call = request.call(args).map_err(|error| error.to_string())?;
                let mut out = ReplyBuf::new();
                let _ = engine.execute(&caller, 0, &call, &mut out);
                let reply = ReplyReader::new(out.as_bytes()).reply().map_err(|error| error.to_string())?;
                replies.push((space, call.command, reply));
            }
        }
        self.disk.cache_reads(false);
        state.witness.recognise(&replies)
    }

    /// The store ends in some way and is opened again: it is in a state that it was in, with everything that was shown.
    fn restart(&self, state: &mut State, how: usize) -> Outcome {
        let mut opened = self.opened.lock();
        state.counts.fetched += opened.engine.stats().tier.map_or(0, |tier| tier.fetched);
        let full_only = state.is_full && !state.is_faulty;
        if full_only && let Some(why) = opened.engine.log_failure() {
            return Err(format!("the log failed although the disk was only full: {why}"));
        }
        match how {
            0 | 1 => {
                opened.wire.cut();
                self.disk.crash(state.random.bits());
                state.counts.power_cuts += 1;
            }
            2 | 3 => {
                opened.wire.cut();
                state.counts.kills += 1;
            }
            _ => {
                state.counts.closes += 1;
                match opened.engine.close() {
                    // Who says nothing of a loss has lost nothing, whatever the disk did.
                    Ok(()) => state.witness.show(state.witness.position),
                    Err(_) if state.is_faulty || state.is_full => {}
                    Err(error) => return Err(format!("nothing went wrong, but the end: {error}")),
                }
                opened.wire.cut();
            }
        }
        self.disk.set_fault(None);
        self.disk.set_capacity(None);
        state.count_trims(&self.disk);
        (state.is_faulty, state.is_full) = (false, false);
        // The one before is gone: nobody else has it.
        let memory = Settings { background: false, ..Settings::default() };
        opened.engine = Arc::new(Engine::open(memory).map_err(|error| error.to_string())?);
        self.open_failing(state);
        *opened = open(&self.disk, &self.settings, self.me.clone(), self.plant)?;
        let (position, follower, lost) = self.recognise(state, &opened.engine)?;
        state.trace.add(format!("restart {how}: {lost} lost"));
        state.counts.lost += lost as u64;
        state.witness.return_to(position, follower);
        state.written.clear();
        state.base = base_of(&self.disk);
        state.clients.iter_mut().for_each(|client| client.reconnect(&opened.engine));
        Ok(())
    }

    /// Sometimes an opening meets a failing disk before the one that counts, and ends there, or after it; perhaps with the power.
    fn open_failing(&self, state: &mut State) {
        while state.random.one_in(4) {
            let at = self.disk.operations() + state.random.below(100) as u64;
            let (error, sticky) = (DiskError::Other, state.random.one_in(2));
            self.disk.set_fault(Some(Fault { at, error, sticky }));
            let opened = open(&self.disk, &self.settings, Weak::<World>::new(), self.plant);
            state.trace.add(format!("opened while operation {at} fails: {}", opened.is_ok()));
            state.counts.failed_openings += u64::from(opened.is_err());
            opened.into_iter().for_each(|opened| opened.wire.cut());
            self.disk.set_fault(None);
            if state.random.one_in(2) {
                self.disk.crash(state.random.bits());
            }
        }
    }
}

impl State {
    /// Notes whether the log begins later than when this was asked before.
    fn count_trims(&mut self, disk: &FaultyDisk) {
        let start = Mark::read(disk, MarkFile::Start).ok().flatten().unwrap_or(0);
        self.counts.trims += u64::from(start > self.log_start);
        self.log_start = self.log_start.max(start);
    }

    /// Whether an error may mean that nothing was done, as the disk is in trouble.
    fn may_refuse(&self, error: &Error) -> bool {
        let of_the_disk =
            [ErrorKind::Durability, ErrorKind::ReadOnly, ErrorKind::Unavailable, ErrorKind::OutOfMemory];
        (self.is_faulty || self.is_full) && of_the_disk.contains(&error.kind())
    }
}
