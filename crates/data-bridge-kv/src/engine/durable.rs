//! What the log means for commands: which may begin, and which answers have to wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use data_bridge_kv_model::{Call, Command, Error, ErrorKind, Load, ReplyBuf, Result, Shape};

use super::tier::Tier;
use super::{Caller, Core, Engine, Halt, Progress, Step, Waits};
use crate::disk::Disk;
use crate::manifest::SEQUENCES;
use crate::mutation::bytes::{self, EFFECT_BYTES};
use crate::mutation::clear;
use crate::mutation::describe::describe;
use crate::record::Record;
use crate::shard::notice::Notices;
use crate::shard::space::{CLEAR, EFFECTS};
use crate::shard::{Space, Txn, exec};
use crate::snapshot::{self, Snapshot};
use crate::wal::{Lsn, Promise, Refusal, Wal};

/// What the record of an expired key takes, about.
const EXPIRED_BYTES: usize = 64;
/// A log so many times as long as it should be takes nothing more while its checkpoint finds no space.
const LOG_OVERDUE: u64 = 2;

/// What a caller's answers rest on: a record of the log. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Owed(Arc<AtomicU64>);

impl Owed {
    pub(super) fn raise(&self, lsn: Lsn) {
        if lsn > 0 {
            self.0.fetch_max(lsn, Relaxed);
        }
    }
}

/// The room that a command has in the log.
#[derive(Default)]
pub(super) struct Room<'a> {
    wal: Option<&'a Wal>,
    _promise: Option<Promise<'a>>,
    /// Bytes of the record that it was made for.
    bytes: usize,
    frees: bool,
    is_scarce: bool,
}

impl<'a> Room<'a> {
    /// Whether a step is to be taken back when its record turns out to need more than there is.
    pub(super) fn is_scarce(&self) -> bool {
        self.is_scarce
    }

    /// Room for what a step has become; it is to live until that is finished.
    pub(super) fn for_record(&self, txn: &Txn<'_>) -> Result<Option<Promise<'a>>> {
        let more = txn.record_bytes().saturating_sub(self.bytes);
        let Some(wal) = self.wal.filter(|_| self.is_scarce && more > 0) else { return Ok(None) };
        wal.try_reserve(self.frees, more).map_err(refused)?.map(Some).ok_or_else(|| refused(wal.full()))
    }
}

/// The bytes of a command's record, about: each argument may be an effect of its own, which names the key.
pub(super) fn record_bytes(command: &Command<'_>, load: Load) -> usize {
    let key = command.keys().only().map_or(0, <[u8]>::len);
    load.bytes + load.args * (key + EFFECT_BYTES)
}

fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Failed(failure) => failure.into(),
        Refusal::Full => Error::new(
            ErrorKind::ReadOnly,
            "the disk is full: what frees space still works, writes will once there is space",
        ),
        Refusal::Files => Error::new(
            ErrorKind::ReadOnly,
            "the process has as many files open as it may (see ulimit -n): writes will work once it may open more",
        ),
        Refusal::Closed => Error::new(ErrorKind::Closed, "the store is closed"),
    }
}

impl Caller {
    /// Sends the notices of a finished step; what its answer rests on is owed from now on.
    #[inline]
    pub(super) fn send(&self, notices: Notices) {
        self.owed.raise(notices.rests_on());
        notices.send();
    }
}

impl Engine {
    /// The record of the log that has to be durable before the answers that a caller got so far may be shown; `None` = they
    /// may be shown.
    #[inline]
    pub fn owed(&self, caller: &Caller) -> Option<u64> {
        let lsn = caller.owed.0.load(Relaxed);
        let wal = self.core.wal.get().filter(|_| lsn > 0)?;
        (wal.durable() < lsn).then_some(lsn)
    }

    /// Whether this record of the log is durable.
    pub fn is_durable(&self, lsn: u64) -> bool {
        self.core.wal.get().is_none_or(|wal| wal.durable() >= lsn)
    }

    /// Calls `then` once this record of the log is durable, or known not to become it: at once, or later from the log's
    /// thread, which it must not block.
    pub fn when_durable(&self, lsn: u64, then: Box<dyn FnOnce(Result<()>) + Send>) {
        match self.core.wal.get() {
            Some(wal) => wal.when_durable(lsn, Box::new(move |outcome| then(outcome.map_err(Error::from)))),
            None => then(Ok(())),
        }
    }

    /// Makes this record of the log and all before it durable on the caller's thread. False if that is for the log's thread to
    /// do, which is told to: see [`Wal::commit`].
    pub fn commit(&self, lsn: u64) -> bool {
        self.core.wal.get().is_none_or(|wal| wal.commit(lsn))
    }

    /// Leaves all commits to the log's thread, until the next call of [`Engine::commit`].
    pub fn leave_commits(&self) {
        if let Some(wal) = self.core.wal.get() {
            wal.leave_to_thread();
        }
    }

    /// Begins the log of a directory that has none, if the caller's namespace needs one. The first change does that too, which
    /// for a caller that [`Waits::Never`] comes back as [`Progress::Blocked`]: others could overtake it.
    ///
    /// # Errors
    /// `Unavailable` if the disk fails or is full, `Closed` if the store is.
    pub fn begin_log(&self, caller: &Caller) -> Result<()> {
        if self.core.wal.get().is_none() && self.core.space(caller.namespace).is_logged() {
            self.core.begin_log()?;
        }
        Ok(())
    }

    /// Whether an answer in the caller's namespace can be told to wait until what the command wrote is on disk, see
    /// [`Engine::owe_everything`].
    ///
    /// # Errors
    /// `InvalidArgument` if the namespace has no log.
    pub fn check_durable(&self, caller: &Caller) -> Result<()> {
        let space = self.core.space(caller.namespace);
        if space.is_logged() {
            return Ok(());
        }
        let name = &space.settings().name;
        Err(Error::invalid(format!(
            "namespace '{name}' has no log, so nothing in it is durable: that takes a task namespace and a data directory"
        )))
    }

    /// Lets the caller's answers so far rest on everything that was done so far, whatever the namespace's durability says.
    pub fn owe_everything(&self, caller: &Caller) {
        caller.owed.raise(self.core.wal.get().map_or(0, |wal| wal.last()));
    }

    /// Waits until the caller's answers so far may be shown, unless it sees to that itself.
    ///
    /// # Errors
    /// `Durability` if the log failed.
    pub fn settle(&self, caller: &Caller) -> Result<()> {
        self.core.settle(caller)
    }

    /// Executes a command as [`Engine::execute`] does, and answers when what it wrote is on disk, whatever the namespace's
    /// durability says.
    pub fn execute_durably(
        &self,
        caller: &Caller,
        token: u64,
        call: &Call<'_>,
        out: &mut ReplyBuf,
    ) -> Progress {
        if let Err(error) = self.check_durable(caller) {
            out.error(&error);
            return Progress::Done;
        }
        let mark = out.len();
        let result = self.core.run(caller, token, (call.spec, call.load), &call.command, None, out);
        self.owe_everything(caller);
        self.core.show(caller, result).unwrap_or_else(|halt| halt.answer(caller, mark, out))
    }

    /// Why the log failed, if it did: nothing is acknowledged any more, and the store is to be opened anew.
    pub fn log_failure(&self) -> Option<String> {
        Some(self.core.wal.get()?.failure()?.to_string())
    }

    /// Copies the task namespaces to an empty directory, as they are at one moment, while commands go on. `progress` is told the
    /// bytes that are copied, and of how many. [`Snapshot::restore`] makes of the copy a directory to open.
    ///
    /// # Errors
    /// `InvalidArgument` if the destination is not empty, `Unavailable` without a directory, for lack of space and for a disk
    /// that fails, `Durability` if the log failed.
    pub fn snapshot(&self, to: &dyn Disk, progress: snapshot::Progress<'_>) -> Result<Snapshot> {
        self.core.snapshot(to, progress)
    }

    /// Waits until everything that was done so far is on disk.
    ///
    /// # Errors
    /// `Durability` if the log failed.
    pub fn sync(&self) -> Result<()> {
        self.core.wal.get().map_or(Ok(()), |wal| Ok(wal.wait_durable(wal.last())?))
    }

    /// Ends every wait with `Closed`, and refuses whatever comes later.
    ///
    /// # Errors
    /// `Durability` if the log failed, before or while it was written to its end: the store is closed, and what was not on
    /// disk by then is lost. Who closes it again hears nothing of it.
    pub fn close(&self) -> Result<()> {
        let was_open = !self.core.closed.swap(true, SeqCst);
        self.core.close();
        let failure = self.core.wal.get().filter(|_| was_open).and_then(|wal| wal.failure());
        failure.map_or(Ok(()), |failure| Err(failure.into()))
    }
}

/// The effects of a record of the log in words; `None` if it has none that this version knows.
pub fn describe_record(record: &Record<'_>) -> Option<String> {
    if record.head.kind == CLEAR {
        return Some(clear::describe(&clear::decode(record.payload).ok()?));
    }
    if record.head.kind != EFFECTS {
        return None;
    }
    let mut text = String::new();
    for effect in bytes::decode(record.payload, exec::new_value) {
        if !text.is_empty() {
            text.push_str("; ");
        }
        describe(&effect.ok()?, &mut text);
    }
    Some(text)
}

impl Core {
    /// Lets a command begin in a namespace that is logged, with room in the log for what it writes; waits for that.
    pub(super) fn admit(
        &self,
        space: &Space,
        waits: Waits,
        (reads, grows): (bool, bool),
        record_bytes: impl FnOnce() -> usize,
    ) -> Step<Room<'_>> {
        let wal = match self.wal.get() {
            Some(wal) => wal,
            // Nothing was ever written.
            None if reads => return Ok(Room::default()),
            None => self.block(waits, || self.begin_log())??,
        };
        let room = Room { wal: Some(wal), frees: !grows, is_scarce: wal.is_short(), ..Room::default() };
        if reads {
            wal.check().map_err(refused)?;
            return Ok(room);
        }
        if grows && self.has_no_checkpoint(wal) {
            return Err(self.spent(wal).into());
        }
        let bytes = record_bytes();
        space.check_record(bytes)?;
        let promise = self.reserve(wal, waits, !grows, bytes)?;
        if !wal.has_room(bytes) {
            self.wait_for_log(waits, || wal.wait_room(bytes))?;
        }
        Ok(Room { _promise: Some(promise), bytes, ..room })
    }

    /// Whether the log is much too long, since its checkpoint finds no space: it is not to take what the tier may not.
    fn has_no_checkpoint(&self, wal: &Wal) -> bool {
        let is_full = self.tier.as_ref().is_some_and(|tier| tier.is_full.load(Relaxed));
        is_full && wal.bytes() > self.log_limit().saturating_mul(LOG_OVERDUE)
    }

    /// What a checkpoint lacks: space below the limit, or on the disk.
    #[cold]
    fn spent(&self, wal: &Wal) -> Error {
        self.tier.as_ref().and_then(Tier::spent).unwrap_or_else(|| refused(wal.full()))
    }

    pub(super) fn reserve<'a>(
        &self,
        wal: &'a Wal,
        waits: Waits,
        frees: bool,
        bytes: usize,
    ) -> Step<Promise<'a>> {
        match wal.try_reserve(frees, bytes).map_err(refused)? {
            Some(promise) => Ok(promise),
            None => Ok(self.wait_for_log(waits, || wal.reserve(frees, bytes))?.map_err(refused)?),
        }
    }

    /// Room in the log to delete keys with names of so many bytes together.
    pub(super) fn room_to_delete(
        &self,
        space: &Space,
        waits: Waits,
        (keys, bytes): (usize, usize),
    ) -> Step<Option<Promise<'_>>> {
        let wal = self.wal.get().filter(|_| space.is_logged());
        wal.map(|wal| self.reserve(wal, waits, true, bytes + keys * EFFECT_BYTES)).transpose()
    }

    /// Whether keys may expire before somebody asks for them; where that is logged, with room for it.
    pub(super) fn room_to_expire(&self, space: &Space, keys: usize) -> Option<Room<'_>> {
        let wal = self.wal.get().filter(|_| space.is_logged());
        let Some(wal) = wal else { return Some(Room::default()) };
        let promise = wal.try_reserve(false, keys * EXPIRED_BYTES).ok()??;
        Some(Room { _promise: Some(promise), ..Room::default() })
    }

    /// Room for a write of so many bytes that nobody waits for, if it may be logged right now.
    pub(super) fn may_log(&self, space: &Space, bytes: usize) -> Option<Promise<'_>> {
        let wal = self.wal.get().filter(|wal| space.awaited().is_none() && wal.has_room(bytes))?;
        wal.try_reserve(false, bytes).ok()?.filter(|_| !self.has_no_checkpoint(wal))
    }

    /// Answers a sync: it rests on everything that was done so far. Without a log nothing is ever on disk, and nothing is
    /// waited for.
    pub(super) fn owe_everything(&self, caller: &Caller, redis: bool, out: &mut ReplyBuf) {
        let wal = self.wal.get();
        caller.owed.raise(wal.map_or(0, |wal| wal.last()));
        if redis {
            out.container(Shape::Array, 2);
            out.integer(i64::from(wal.is_some()));
            out.integer(0);
        } else {
            out.ok();
        }
    }

    /// The outcome of a command once it may be shown.
    #[inline]
    pub(super) fn show<T>(&self, caller: &Caller, outcome: Step<T>) -> Step<T> {
        self.settle(caller)?;
        outcome
    }

    /// Waits until what a caller was answered may be shown, unless it sees to that itself.
    #[inline]
    pub(super) fn settle(&self, caller: &Caller) -> Result<()> {
        let lsn = caller.owed.0.load(Relaxed);
        if lsn == 0 || caller.parks { Ok(()) } else { self.wait_durable(caller.waits, lsn) }
    }

    #[cold]
    fn wait_durable(&self, waits: Waits, lsn: Lsn) -> Result<()> {
        match self.wal.get() {
            Some(wal) if wal.durable() < lsn => {
                // What was done can't be undone: who never waits does so here.
                let waits = if waits == Waits::Never { Waits::Here } else { waits };
                let waited = self.block(waits, || wal.wait_durable(lsn)).map_err(Halt::into_error)?;
                Ok(waited?)
            }
            _ => Ok(()),
        }
    }

    /// Waits for room in the log, which may take as long as others write: who waits to read does not.
    fn wait_for_log<R: Send>(&self, waits: Waits, act: impl FnOnce() -> R + Send) -> Step<R> {
        if waits == Waits::Disk { Err(Halt::NoRoom) } else { self.block(waits, act) }
    }

    fn block<R: Send>(&self, waits: Waits, act: impl FnOnce() -> R + Send) -> Step<R> {
        match &self.tier {
            Some(tier) => tier.block(waits, act),
            None => Ok(act()),
        }
    }

    /// Keeps the manifest's ceiling above the sequence numbers that shards give, and writes the log.
    pub(super) fn tend_log(&self) {
        if let Some(wal) = self.wal.get() {
            wal.step();
        }
        self.raise_ceiling();
    }

    /// Raises the ceiling once half of what is below it was used.
    pub(super) fn raise_ceiling(&self) {
        let mut manifest = self.manifest.lock();
        let (Some(manifest), Some(tier)) = (manifest.as_mut(), &self.tier) else { return };
        let touched = self.spaces.iter().filter(|space| space.is_touched());
        let highest =
            touched.flat_map(|space| (0..space.shard_count()).map(|index| space.lock(index).sequence()));
        let highest = highest.max().unwrap_or(0);
        if highest <= manifest.ceiling - SEQUENCES / 2 {
            return;
        }
        let raised = crate::manifest::Manifest { ceiling: highest + SEQUENCES, ..manifest.clone() };
        if tier.write_manifest(&raised) {
            *manifest = raised;
        }
    }

    /// Writes and syncs what was done, and ends the log.
    pub(super) fn close_log(&self) {
        *self.log_to_come.lock() = None;
        if let Some(wal) = self.wal.get() {
            wal.close();
        }
    }
}
