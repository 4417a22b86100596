//! The engine: sixteen namespaces behind one door. It executes commands that were read by a protocol or built by a
//! binding, and answers in reply items. It blocks on nothing but short shard locks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use data_bridge_kv_model::command::table::{BLOCKING, FAST, GROWS, READ, STREAM};
use data_bridge_kv_model::limits::NAMESPACES;
use data_bridge_kv_model::{Call, Command, Error, ErrorKind, Key, KeySet, Load, ReplyBuf, Result, Spec};

use crate::budget::{Budget, Resident};
use crate::clock::Clock;
use crate::cold::{self, Job};
use crate::hash::KeyHash;
use crate::manifest::Manifest;
use crate::router::lock_one;
use crate::settings::{NamespaceSettings, Settings};
use crate::shard::notice::Completions;
use crate::shard::txn::{Guards, Large};
use crate::shard::{Space, Txn, exec};
use crate::sync::Mutex;
use crate::sync::atomic::AtomicBool;
use crate::wal::{Promise, Wal};

mod atomic;
mod checkpoint;
mod clear;
mod direct;
mod durable;
mod halt;
mod held;
mod indexes;
mod lookahead;
mod open;
mod pending;
mod reclaim;
mod replay;
mod room;
mod stats;
mod takers;
mod ticker;
mod tier;
mod waiting;
mod walk;
mod warm;

pub use atomic::OnError;
pub use direct::Obstacle;
pub use durable::{Owed, describe_record};
pub use halt::{Needs, Waits};
pub use lookahead::{Ahead, Lookahead, Lookout, Pin, Turn};
pub use pending::Pending;
pub use stats::{CheckpointStats, FETCH_TIMES, LogStats, NamespaceStats, Stats, TierStats};

use durable::{Room, record_bytes};
use halt::{Halt, Means, Step};
use open::LogToCome;
use stats::Checkpoints;
use ticker::Ticker;
use tier::Tier;
use waiting::Timeouts;
use warm::Warm;

/// A namespace by number, 0..=15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId(u8);

impl NamespaceId {
    /// Namespace 0.
    pub const DEFAULT: NamespaceId = NamespaceId(0);

    /// The number.
    pub fn number(self) -> usize {
        usize::from(self.0)
    }
}

/// Who executes: one for each connection or embedded waiter.
///
/// Where answers wait for the log, [`Engine::execute`] and the like return when they may be shown. A caller that `parks` gets
/// them before, and shows them only once [`Engine::owed`] is durable.
#[derive(Clone)]
pub struct Caller {
    /// The namespace that commands go to.
    pub namespace: NamespaceId,
    /// Tells callers apart; from [`Engine::caller`].
    pub id: u64,
    /// What it does when the disk is slow.
    pub waits: Waits,
    /// Most bytes of values that a command may read from disk at a time, or answer with if it only reads. One that would
    /// need more is [`Progress::Blocked`], and [`Caller::needs`] says how many.
    pub most_bytes: u64,
    /// What it needed that was blocked; shared by its clones.
    pub needs: Needs,
    /// Where answers of waits and events go; without it waits are refused.
    pub completions: Option<Arc<dyn Completions>>,
    /// Whether it sees to it itself that no answer is shown too early.
    pub parks: bool,
    /// What its answers rest on; shared by its clones.
    pub owed: Owed,
    /// Where it waits and watches; shared by its clones.
    pub pending: Pending,
}

/// Whether a command was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// One reply item was appended.
    Done,
    /// Nothing was appended: the answer comes to the caller's completions.
    Pending,
    /// Nothing was appended and nothing done: a caller that [`Waits::Never`] has to execute it where it may wait, and one that
    /// limits what a command holds has to allow what it [`Needs`].
    Blocked,
}

/// A part of [`Engine::tick`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chore {
    /// Keys expire, and waits end.
    Expire,
    /// Entries leave memory, dead space is given back, a long log leads to a checkpoint.
    Tier,
    /// What was appended to the log is written, and synced if that is due.
    Log,
}

/// The store.
pub struct Engine {
    core: Arc<Core>,
    ticker: Option<Ticker>,
    /// Lets entries leave memory, where there is a cold tier.
    demoter: Option<Ticker>,
}

/// What the engine's own thread shares with its callers.
struct Core {
    spaces: Vec<Space>,
    budget: Arc<Budget>,
    resident: Option<Arc<dyn Resident>>,
    tier: Option<Tier>,
    /// The log of the namespaces that have one, from when it is replayed on.
    wal: Arc<OnceLock<Arc<Wal>>>,
    /// What the log is opened with by the first command that needs it, where there was none.
    log_to_come: Mutex<Option<LogToCome>>,
    /// What the directory says of itself, where there is one.
    manifest: Mutex<Option<Manifest>>,
    /// Records of the log that were carried out when it was opened.
    replayed: AtomicU64,
    /// Bytes of the log after which a checkpoint is written, where there is space.
    log_bytes: u64,
    checkpoints: Checkpoints,
    clock: Arc<dyn Clock>,
    timeouts: Timeouts,
    closed: AtomicBool,
    numbers: AtomicU64,
    started_ms: u64,
}

impl Engine {
    /// Opens a store: in memory, or with a directory whose task namespaces are as they were left. Refuses settings that can't
    /// be.
    ///
    /// # Errors
    /// `InvalidArgument` for the settings; `Corruption` if the directory is damaged; `Unavailable` if it can't be used.
    ///
    /// ```
    /// use data_bridge_kv::{Engine, Settings};
    /// use data_bridge_kv_model::{Arg, Item, ReplyBuf, ReplyReader, command::table};
    /// let engine = Engine::open(Settings::default()).unwrap();
    /// let caller = engine.caller();
    /// let mut out = ReplyBuf::new();
    /// let set = table::by_opcode(table::opcode::SET).unwrap();
    /// let args = [Arg::Untyped(b"greeting"), Arg::Untyped(b"hello")];
    /// let _ = engine.execute(&caller, 0, &set.call(&args).unwrap(), &mut out);
    /// assert_eq!(ReplyReader::new(out.as_bytes()).item().unwrap(), Item::Ok);
    /// ```
    pub fn open(settings: Settings) -> Result<Engine> {
        let background = settings.background;
        let core = Core::open(settings)?;
        let start = |name, bell, work| Ticker::start(Arc::clone(&core), name, bell, work);
        let ticker = background.then(|| start("kv-ticker", Arc::default(), Core::tick)).transpose()?;
        let held = core.tier.as_ref().filter(|_| background).map(Tier::held);
        let demoter = held.map(|held| start("kv-demoter", held.begin(), Core::tend_tier)).transpose()?;
        Ok(Engine { core, ticker, demoter })
    }

    /// A new caller on namespace 0, without completions.
    pub fn caller(&self) -> Caller {
        Caller {
            namespace: NamespaceId::DEFAULT,
            id: self.core.number(),
            waits: Waits::Here,
            most_bytes: u64::MAX,
            needs: Needs::default(),
            completions: None,
            parks: false,
            owed: Owed::default(),
            pending: Pending::default(),
        }
    }

    /// The namespace with this name or number.
    pub fn namespace(&self, name_or_number: &str) -> Result<NamespaceId> {
        let named = self.core.spaces.iter().position(|space| space.settings().name == name_or_number);
        let number = || name_or_number.parse().ok().filter(|number| *number < NAMESPACES);
        let found = named.or_else(number).and_then(|number| u8::try_from(number).ok());
        found.map(NamespaceId).ok_or_else(|| Error::invalid(format!("unknown namespace '{name_or_number}'")))
    }

    /// The policy of a namespace.
    pub fn settings(&self, namespace: NamespaceId) -> &NamespaceSettings {
        self.core.space(namespace).settings()
    }

    /// Executes one command. Appends exactly one reply item, errors included, or answers [`Progress::Pending`]: then
    /// the caller's completions get the item with this `token` later.
    #[inline]
    pub fn execute(&self, caller: &Caller, token: u64, call: &Call<'_>, out: &mut ReplyBuf) -> Progress {
        self.execute_in_turn(caller, token, (call.spec, call.load), &call.command, None, out)
    }

    #[inline]
    fn execute_in_turn(
        &self,
        caller: &Caller,
        token: u64,
        row: (&Spec, Load),
        command: &Command<'_>,
        turn: Option<Turn<'_>>,
        out: &mut ReplyBuf,
    ) -> Progress {
        let mark = out.len();
        let result = self.core.run(caller, token, row, command, turn, out);
        self.core.show(caller, result).unwrap_or_else(|halt| halt.answer(caller, mark, out))
    }

    /// Executes commands in order, after asking the processor for the entries that they need. `answers` gets for each
    /// the length of `out` after it, or `None` where it is pending; the token of command i is `first_token` + i. Stops in
    /// front of a command that is [`Progress::Blocked`]: then there are fewer answers than commands.
    pub fn execute_batch(
        &self,
        caller: &Caller,
        first_token: u64,
        calls: &[Call<'_>],
        out: &mut ReplyBuf,
        answers: &mut Vec<Option<usize>>,
    ) {
        let pin = Pin::new();
        let (start, first) = (out.len(), answers.len());
        let parking = Caller { parks: true, ..caller.clone() };
        let mut ahead = Lookahead::default().begin(&pin);
        let mut lookout = self.look_ahead(caller, &mut ahead);
        calls.iter().for_each(|call| lookout.tell(call.command.keys().only(), None));
        lookout.ask();
        // What is on disk is read ahead as soon as the first command has to wait for it.
        let mut quick = (caller.waits != Waits::Never && self.core.tier.is_some())
            .then(|| Caller { waits: Waits::Never, ..parking.clone() });
        let mut _on_disk = None;
        for (index, (token, call)) in (first_token..).zip(calls).enumerate() {
            let turn = || Some(ahead.turn(index));
            let run = |caller: &Caller, out: &mut ReplyBuf| {
                self.execute_in_turn(caller, token, (call.spec, call.load), &call.command, turn(), out)
            };
            let mut progress = run(quick.as_ref().unwrap_or(&parking), out);
            if progress == Progress::Blocked && quick.take().is_some() {
                let reads = calls.iter().skip(index).filter(|call| call.spec.has(READ));
                let rest = reads.filter_map(|call| call.command.keys().only());
                _on_disk = self.core.fetch_ahead(caller, rest);
                progress = run(&parking, out);
            }
            match progress {
                Progress::Done => answers.push(Some(out.len())),
                Progress::Pending => answers.push(None),
                Progress::Blocked => break,
            }
        }
        if let Err(error) = self.core.settle(caller) {
            out.truncate(start);
            for answer in answers.iter_mut().skip(first).flatten() {
                out.error(&error);
                *answer = out.len();
            }
        }
    }

    /// Reads what of these keys is on disk, side by side, for commands that are about to read them one after the other: they
    /// find it as long as the answer lives.
    pub fn fetch_ahead<'k>(
        &self,
        caller: &Caller,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Option<cold::Ahead> {
        self.core.fetch_ahead(caller, keys)
    }

    /// Lets a thread that may wait for the disk do this, for callers that [`Waits::Never`]. Gives it back if there is no
    /// such thread, since nothing can be on disk or none could be started.
    pub fn aside(&self, job: Job) -> std::result::Result<(), Job> {
        match &self.core.tier {
            Some(tier) => tier.reads.pool.run(job),
            None => Err(job),
        }
    }

    /// The version of a key; 0 where it does not exist.
    ///
    /// # Errors
    /// `Corruption` or `Unavailable` if the key is on disk and can't be read; `Unavailable` too if the caller
    /// [`Waits::Never`] and would have to.
    pub fn version(&self, caller: &Caller, key: Key<'_>) -> Result<u64> {
        self.try_version(caller, key)?.ok_or_else(|| Halt::Blocked(0).into_error())
    }

    /// The same; `None` if the caller [`Waits::Never`] and would have to.
    ///
    /// # Errors
    /// `Corruption` or `Unavailable` if the key is on disk and can't be read.
    pub fn try_version(&self, caller: &Caller, key: Key<'_>) -> Result<Option<u64>> {
        let space = self.core.space(caller.namespace);
        let mut txn = match self.core.begin_with(space, caller.means(), key) {
            Ok(txn) => txn,
            Err(halt @ (Halt::Blocked(_) | Halt::NoRoom)) => {
                caller.note(&halt);
                return Ok(None);
            }
            Err(Halt::Error(error)) => return Err(error),
        };
        let place = txn.place(key);
        let version = txn.version(place);
        caller.send(txn.finish());
        self.core.settle(caller)?;
        Ok(Some(version))
    }

    /// Whether writers wait for entries to leave memory just now.
    pub fn holds_writers(&self) -> bool {
        self.core.tier.as_ref().is_some_and(|tier| tier.held().is_begun()) && self.core.budget.excess() > 0
    }

    /// Tells the memory that somebody takes beside the store, which is to count against the budget: so many bytes, after he
    /// told of `before`.
    pub fn count_beside(&self, before: usize, after: usize) {
        self.core.budget.count_beside(before, after);
    }

    /// Calls `then` once that is over, or known not to end: at once, or later from the engine's thread, which it must not
    /// block.
    pub fn when_room(&self, then: Box<dyn FnOnce() + Send>) {
        self.core.when_room(then);
    }

    /// Whether a caller that [`Waits::Never`] may be blocked at all.
    pub fn may_block(&self) -> bool {
        self.core.tier.is_some()
    }

    /// Drops a pending wait: its answer never comes. Whether there was one: if not, its answer came or is on its way.
    pub fn cancel(&self, caller: &Caller, token: u64) -> bool {
        self.core.drop_waits(caller, token..=token) > 0
    }

    /// Drops all waits and watches of a caller that is gone.
    pub fn disconnect(&self, caller: &Caller) {
        self.core.drop_waits(caller, 0..=u64::MAX);
        self.core.drop_watches(caller, 0..=u64::MAX);
    }

    /// Expires keys and ends waits whose time has come, and tends the cold tier. Background threads do it a hundred times
    /// a second; without them the owner calls this.
    pub fn tick(&self) {
        [Chore::Expire, Chore::Tier, Chore::Log].into_iter().for_each(|chore| self.do_chore(chore));
    }

    /// One part of a tick, for an owner who decides himself what comes when.
    pub fn do_chore(&self, chore: Chore) {
        match chore {
            Chore::Expire => self.core.tick(),
            Chore::Tier => self.core.tend_tier(),
            Chore::Log => self.core.tend_log(),
        }
    }

    /// Writes what changed in logged namespaces to the cold tier, so that the log before can go; answers whether that was done.
    /// It goes on by itself when the log is long, and at closing.
    pub fn checkpoint(&self) -> bool {
        self.core.checkpoint().is_some()
    }

    /// Lets every entry leave memory that may, as if there were no budget: for tests and measurements.
    pub fn demote_all(&self) {
        self.core.demote_all();
    }

    /// What is stored and what happened so far. Locks every shard once.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.core.close();
        for thread in self.ticker.take().into_iter().chain(self.demoter.take()) {
            thread.stop();
        }
    }
}

impl Core {
    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    #[inline]
    fn space(&self, namespace: NamespaceId) -> &Space {
        &self.spaces[namespace.number()]
    }

    #[inline]
    fn begin<'a>(&'a self, space: &'a Space, guards: Guards<'a>) -> Txn<'a> {
        Txn::new(space, &*self.clock, guards)
    }

    fn begin_at<'a>(&'a self, space: &'a Space, shard: usize) -> Txn<'a> {
        self.begin(space, lock_one(space, shard))
    }

    /// The same in the background, again and again.
    fn begin_behind<'a>(&'a self, space: &'a Space, shard: usize) -> Txn<'a> {
        self.begin(space, Guards::One(space.lock_behind(shard)))
    }

    /// Begins a step on one key that is in memory or nowhere.
    fn begin_with<'a>(&'a self, space: &'a Space, means: Means, key: Key<'_>) -> Step<Txn<'a>> {
        let index = space.shard_of(space.hash(key.as_bytes()));
        self.begin_warm(space, (means, false), || lock_one(space, index), |visit| visit(key))
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Closed, "the store is closed"));
        }
        Ok(())
    }

    /// Lets a command begin in an open store: with room in memory for one that needs it, and in the log.
    #[inline]
    fn make_way(
        &self,
        caller: &Caller,
        reads: bool,
        grows: bool,
        record_bytes: impl FnOnce() -> usize,
    ) -> Step<(&Space, Room<'_>)> {
        self.check_open()?;
        let space = self.space(caller.namespace);
        let room = match space.is_logged() {
            true => self.admit(space, caller.waits, (reads, grows), record_bytes)?,
            false => Room::default(),
        };
        if grows && self.budget.is_near() {
            self.make_room(caller.namespace, caller.waits)?;
        }
        Ok((space, room))
    }

    #[inline]
    fn run(
        &self,
        caller: &Caller,
        token: u64,
        row: (&Spec, Load),
        command: &Command<'_>,
        turn: Option<Turn<'_>>,
        out: &mut ReplyBuf,
    ) -> Step<Progress> {
        let (spec, load) = row;
        let bytes = || record_bytes(command, load);
        let (space, room) = self.make_way(caller, spec.has(READ), spec.has(GROWS), bytes)?;
        let mark = out.len();
        match command {
            _ if spec.flags & (BLOCKING | STREAM) != 0 => {
                return self.wait(caller, token, (spec, command), room, out);
            }
            Command::Key(command) if spec.keys.first == 0 => self.run_over_all(caller, command, out)?,
            command => {
                let mut txn = match command.keys() {
                    KeySet::None => Err(Error::invalid("a connection's command came to the engine"))?,
                    KeySet::One(key) => {
                        let hash = take_turn(space, turn, command, key);
                        let mut shard = space.lock(space.shard_of(hash));
                        let short = (command, hash);
                        if let Some(result) = exec::run_short(&mut shard, space, &*self.clock, short, out) {
                            drop(shard);
                            caller.owed.raise(result?);
                            return Ok(Progress::Done);
                        }
                        let shard = self.with_index(space, hash, shard, caller.waits)?;
                        let mut txn = self.begin(space, Guards::One(shard));
                        txn.know(key, hash);
                        if self.tier.is_some() {
                            match self.warm_one(txn, caller.means(), key, command, spec.has(READ))? {
                                Warm::Ready(ready) => txn = ready,
                                Warm::Copy(fetched) => {
                                    return self.run_on_copy(caller, command, fetched.into_copy(), out);
                                }
                            }
                        }
                        txn.copy_large(copies(spec));
                        txn
                    }
                    several => {
                        let means = (caller.means(), spec.has(READ));
                        let txn = self.begin_several(space, means, several, command)?;
                        Core::check_sources(caller, txn, command)?
                    }
                };
                if room.is_scarce() {
                    txn.keep_undo();
                }
                let result = exec::run(&mut txn, command, out);
                if !txn.has_rare() {
                    caller.send(txn.finish());
                    caller.check_answer(spec, (out.len() - mark) as u64)?;
                    return Ok(result.map(|()| Progress::Done)?);
                }
                let fits = room.for_record(&txn);
                if result.is_err() || fits.is_err() {
                    txn.roll_back();
                }
                self.end(caller, txn, (spec, command), (result, fits, room), (mark, out))?;
            }
        }
        Ok(Progress::Done)
    }

    /// Ends a step that may have to be taken back, has somebody to tell or to serve, or leaves something to a copy.
    fn end(
        &self,
        caller: &Caller,
        mut txn: Txn<'_>,
        (spec, command): (&Spec, &Command<'_>),
        (result, fits, room): (Result<()>, Result<Option<Promise<'_>>>, Room<'_>),
        (mark, out): (usize, &mut ReplyBuf),
    ) -> Step<()> {
        let (copy, gaps) = (txn.take_copy(), txn.take_gaps());
        let mut notices = txn.finish();
        let filled = notices.take_filled();
        caller.send(notices);
        match copy {
            None => result?,
            Some(copy) => return self.run_on_copy(caller, command, copy, out).map(drop),
        }
        // What a read finds expired is gone, whether that is written down or not.
        if !spec.has(READ) {
            fits?;
        }
        caller.check_answer(spec, gaps.bytes_after(mark, out))?;
        gaps.fill(out);
        drop(room);
        self.serve(caller, filled);
        Ok(())
    }
}

/// The hash of a command's only key; where it has a turn, what later commands need is asked for.
#[inline]
fn take_turn(space: &Space, turn: Option<Turn<'_>>, command: &Command<'_>, key: Key<'_>) -> KeyHash {
    let known = turn.and_then(|turn| turn.take(key.as_bytes()));
    if let (Some(turn), true) = (turn, command.is_on_collection()) {
        turn.look_inside(space);
    }
    known.unwrap_or_else(|| space.hash(key.as_bytes()))
}

/// What a command on one key leaves to a copy when it meets a large value.
#[inline]
fn copies(spec: &Spec) -> Large {
    match (spec.has(READ), spec.has(FAST)) {
        (false, _) => Large::InPlace,
        (true, true) => Large::CopyValues,
        (true, false) => Large::CopyAll,
    }
}
