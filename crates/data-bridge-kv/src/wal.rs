//! The log: every record that must survive a crash, of all shards, in one order, numbered without a gap.
//!
//! Appending copies a record into a buffer and no more, so it may be done under a shard's lock. A writer (a thread of the
//! log, or whoever calls [`Wal::step`] or [`Wal::commit`]) takes everything that has come in, writes it at once and syncs it: all who wait
//! for durability share that sync, and what arrives meanwhile goes with the next one. Whoever waits is told from there,
//! without a lock.
//!
//! A write or sync that fails is final: what is on disk is in doubt, so nothing is acknowledged any more, and whoever
//! waits is told the [`Failure`]. A full disk is met earlier: segments are zeroed before they are used, and a record gets
//! its room by [`Wal::reserve`] before it is made, or is refused; some room is kept for those that free space. What was made
//! without that, and finds no space, waits for it.
//!
//! The bytes are in `format.rs`, what survives a crash in `recovery.rs`. The log knows nothing of what its records mean.

mod admission;
mod ahead;
mod buffer;
mod commit;
mod format;
mod gather;
mod inspect;
mod reader;
mod recovery;
mod repair;
mod segment;
mod stats;
mod survey;
mod thread;
mod waiters;
mod writer;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use data_bridge_kv_model::limits::LOG_RECORD_BYTES;

pub use admission::Promise;
pub use format::{is_cut_name as is_cut, is_mark, is_segment, is_start};
pub use inspect::{Line, Verified, dump, verify};
pub use recovery::{Cut, Recovered};
pub use repair::{Repaired, repair};
pub use stats::{SYNC_BUCKETS, WalStats};
pub use survey::OpenError;

use crate::clock::Clock;
use crate::disk::Disk;
use crate::record::{self, Mark, MarkFile, Record};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use crate::sync::atomic::{Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use crate::sync::thread::{self as threads, JoinHandle};
use crate::sync::{Condvar, Mutex};
use buffer::{Buffer, LARGE_BYTES, Load};
use recovery::Reached;
use segment::{ClosedSegments, Maker};
use stats::Counts;
use survey::Survey;
use waiters::{Then, Waiters};
use writer::Tail;

/// The number of a record: 0 is before everything, the first record has 1, each one more than the one before.
pub type Lsn = u64;

/// Bytes that are written at once although nobody waits for them.
const WRITE_BYTES: usize = 256 << 10;
/// How often somebody who waits looks whether the log has no space.
const LOOKED_AGAIN: Duration = Duration::from_millis(10);
/// The least size of a segment.
const SEGMENT_BYTES_MIN: u64 = 4096;

/// How a log behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalPolicy {
    /// Size of a segment, at least 4 KiB; a record that is larger makes its segment larger.
    pub segment_bytes: u64,
    /// Most bytes that are accepted and not written, about.
    pub backlog_bytes: usize,
    /// What nobody waits for is durable after so many milliseconds.
    pub sync_every_ms: u64,
    /// Tells whose log it is.
    pub fingerprint: u64,
}

impl Default for WalPolicy {
    fn default() -> WalPolicy {
        WalPolicy { segment_bytes: 64 << 20, backlog_bytes: 64 << 20, sync_every_ms: 1000, fingerprint: 0 }
    }
}

/// Why the log is final: what is durable stays so, and nothing else will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the disk said.
    pub kind: io::ErrorKind,
    /// Whether the disk did nothing wrong: the log was closed before.
    pub is_end: bool,
    text: Arc<str>,
}

impl Failure {
    fn new(error: &io::Error, durable: Lsn) -> Failure {
        let text = format!("the log failed, and is durable up to record {durable} only: {error}");
        Failure { kind: error.kind(), is_end: false, text: text.into() }
    }

    fn closed() -> Failure {
        Failure { kind: io::ErrorKind::BrokenPipe, is_end: true, text: "the log is closed".into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// Why the log takes no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It failed, for good.
    Failed(Failure),
    /// There is no space on disk; it goes on by itself when there is.
    Full,
    /// The process may open no more files; it goes on by itself when it may.
    Files,
    /// It is closed.
    Closed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Failed(failure) => write!(f, "{failure}"),
            Refusal::Full => f.write_str("there is no space on disk for the log"),
            Refusal::Files => f.write_str("the log can't open its next file: too many are open"),
            Refusal::Closed => f.write_str("the log is closed"),
        }
    }
}

impl std::error::Error for Refusal {}

/// What the envelope of a record says, beside its LSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// The namespace.
    pub namespace: u8,
    /// Its generation.
    pub generation: u32,
    /// What the payload is: below 240.
    pub kind: u8,
}

/// The log. One whose thread was started lives until it is closed.
pub struct Wal {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    policy: WalPolicy,
    buffer: Mutex<Buffer>,
    /// Rung, with the buffer's lock, when there may be something to write, and when there may be room.
    work: Condvar,
    room: Condvar,
    tail: Mutex<Tail>,
    /// Full segments. A lock of its own, held for moments.
    closed: Mutex<ClosedSegments>,
    /// Held by whoever trims.
    start: Mutex<Mark>,
    waiters: Mutex<Waiters>,
    thread: Mutex<Option<JoinHandle<()>>>,
    counts: Counts,
    state: State,
    failure: OnceLock<Failure>,
}

/// What others may know of the log without a lock.
#[derive(Default)]
struct State {
    last: AtomicU64,
    durable: AtomicU64,
    /// Up to which LSN somebody waits.
    urgent: AtomicU64,
    backlog: AtomicU64,
    /// What of that are large records.
    large_backlog: AtomicU64,
    /// Bytes that can be written without asking for space, and how much of that is promised or accepted already.
    runway: AtomicU64,
    taken: AtomicU64,
    /// What of that is promised.
    promised: AtomicU64,
    is_held: AtomicBool,
    active_bytes: AtomicU64,
    /// By the clock; 0 if everything written is durable.
    unsynced_since_ms: AtomicU64,
    /// When a spare segment may be made; `u64::MAX` while there is one.
    space_due_ms: AtomicU64,
    is_short: AtomicBool,
    lacks_files: AtomicBool,
    has_thread: AtomicBool,
    /// Somebody commits what is urgent.
    has_committer: AtomicBool,
    /// Takes no more records.
    is_closed: AtomicBool,
    /// What is appended from now on will not be written.
    is_finished: AtomicBool,
    /// Everything was written that ever will be.
    is_ended: AtomicBool,
}

impl Wal {
    /// Opens the log of a directory, or begins one, and hands every record that survived to `replay`, in order. A full
    /// disk does not keep it from opening.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        policy: WalPolicy,
        replay: &mut dyn FnMut(Lsn, Record<'_>) -> Result<(), OpenError>,
    ) -> Result<(Wal, Recovered), OpenError> {
        Wal::open_checked(disk, clock, policy, replay, &mut || Ok(()))
    }

    /// The same for a `replay` that only hands records on: `finish` is called when it has all, and may still refuse them, before
    /// anything on disk is changed.
    pub fn open_checked(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        policy: WalPolicy,
        replay: &mut dyn FnMut(Lsn, Record<'_>) -> Result<(), OpenError>,
        finish: &mut dyn FnMut() -> Result<(), OpenError>,
    ) -> Result<(Wal, Recovered), OpenError> {
        let policy = WalPolicy { segment_bytes: policy.segment_bytes.max(SEGMENT_BYTES_MIN), ..policy };
        let survey = Survey::of(&*disk, Some(policy.fingerprint))?;
        let (highest, start) = (survey.highest, survey.start);
        let Reached { recovered, closed, before, empty, leftovers } =
            recovery::recover(&*disk, survey, replay, finish)?;
        let last = recovered.last;
        let tail = Tail {
            fingerprint: policy.fingerprint,
            active: None,
            spare: None,
            maker: Maker::new(policy.segment_bytes, highest + 1),
            watermark: Mark::renew(&*disk, MarkFile::Watermark, last)?,
            before,
            written: last,
            durable: last,
            is_short: false,
            lacks_files: false,
            unsynced_since_ms: None,
            held: VecDeque::new(),
            held_from: 0,
            in_hand: Load::default(),
        };
        let start = Mark::renew(&*disk, MarkFile::Start, start.max(recovered.first))?;
        // What was read of the start may have stood in the page cache only, after a sync that failed.
        for number in leftovers {
            disk.remove(&format::segment_name(number))?;
        }
        let wal = Wal {
            disk,
            clock,
            policy,
            buffer: Mutex::new(Buffer::new(last)),
            work: Condvar::new(),
            room: Condvar::new(),
            tail: Mutex::new(tail),
            closed: Mutex::new(closed),
            start: Mutex::new(start),
            waiters: Mutex::default(),
            thread: Mutex::default(),
            counts: Counts::default(),
            state: State::default(),
            failure: OnceLock::new(),
        };
        wal.state.last.store(last, Relaxed);
        if wal.begin()?
            && let Some(number) = empty
        {
            // The new segment stands in its place.
            wal.disk.remove(&format::segment_name(number))?;
        }
        Ok((wal, recovered))
    }

    /// Makes the first segment; whether there was space.
    fn begin(&self) -> io::Result<bool> {
        let mut tail = self.tail.lock();
        let begun = self.around(|around| {
            let begun = tail.rotate(0, around)?;
            tail.sync(around)?;
            Ok(begun)
        });
        self.publish(&tail);
        begun
    }

    /// Whether a directory has a log, or what is left of one.
    pub fn exists(disk: &dyn Disk) -> io::Result<bool> {
        Ok(disk.list()?.iter().any(|name| is_segment(name) || is_mark(name)))
    }

    /// About how many bytes opening reads: segments up to where only zeros follow.
    pub fn stored_bytes(disk: &dyn Disk) -> io::Result<u64> {
        let names = disk.list()?.into_iter().filter(|name| is_segment(name));
        names.map(|name| segment::used_bytes(&*disk.open(&name)?)).sum()
    }

    /// Starts the thread that writes and syncs. Without it, whoever owns the log calls [`Wal::step`].
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        let mut thread = self.thread.lock();
        if thread.is_none() && !self.state.is_closed.load(Acquire) {
            let wal = Arc::clone(self);
            *thread = Some(threads::Builder::new().name("kv-log".to_owned()).spawn(move || wal.run())?);
            self.state.has_thread.store(true, Release);
        }
        Ok(())
    }

    /// Writes what was appended, syncs it if that is due, tells those who waited, and goes on a little with the segment
    /// to come. Whether there was something to do.
    pub fn step(&self) -> bool {
        let wrote = self.write_and_sync();
        let made_space = self.make_space();
        wrote || made_space
    }

    /// Appends a record, within a promise of [`Wal::reserve`]. Copies it and no more. `urgent` if somebody waits for its durability.
    ///
    /// # Panics
    /// If the payload is longer than [`LOG_RECORD_BYTES`] or the kind is one of the log's own.
    pub fn append(&self, head: NewRecord, payload: &[u8], urgent: bool) -> Lsn {
        assert!(payload.len() <= LOG_RECORD_BYTES, "a record that is too long");
        if payload.len() < LARGE_BYTES {
            return self.append_with(head, payload.len(), urgent, |out| out.extend_from_slice(payload));
        }
        let large = buffer::large(head, payload);
        self.push(head, urgent, |buffer| {
            self.state.large_backlog.fetch_add(large.len() as u64, AcqRel);
            buffer.push_large(large)
        })
    }

    /// The same for a payload of at most `most` bytes, which `write` appends to what is there: nothing else may be done to
    /// that.
    ///
    /// # Panics
    /// If the payload turns out longer, if that is more than 128 KiB, or the kind is one of the log's own.
    #[inline]
    pub fn append_with(
        &self,
        head: NewRecord,
        most: usize,
        urgent: bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Lsn {
        assert!(most <= 2 * LARGE_BYTES, "a record that is too long");
        self.push(head, urgent, |buffer| buffer.push(head, most, write))
    }

    #[inline]
    fn push(&self, head: NewRecord, urgent: bool, push: impl FnOnce(&mut Buffer) -> Lsn) -> Lsn {
        assert!(head.kind < format::OWN_KINDS, "the log's own kind");
        let mut buffer = self.buffer.lock();
        if self.failure.get().is_some() || self.state.is_finished.load(Acquire) {
            let lsn = buffer.give_lsn();
            self.state.last.store(lsn, Release);
            return lsn;
        }
        let (was_empty, bytes_before) = (buffer.is_empty(), buffer.load.bytes);
        let lsn = push(&mut buffer);
        self.state.last.store(lsn, Release);
        self.state.backlog.store(buffer.backlog(), Release);
        let weight = self.weight((buffer.load.bytes - bytes_before) as u64);
        buffer.load.weight += weight;
        self.state.taken.fetch_add(weight, AcqRel);
        if urgent {
            self.state.urgent.fetch_max(lsn, AcqRel);
        }
        let is_much = bytes_before < self.write_bytes() && buffer.load.bytes >= self.write_bytes();
        let is_first = was_empty && !buffer.crowd.is_gathering();
        let is_complete = urgent && buffer.crowd.come();
        let is_others = urgent && self.state.has_committer.load(Relaxed);
        let wakes = (is_complete || is_first) && !is_others || is_much;
        drop(buffer);
        if wakes {
            self.work.notify_one();
        }
        lsn
    }

    /// Everything up to here survives a crash.
    pub fn durable(&self) -> Lsn {
        self.state.durable.load(Acquire)
    }

    /// The LSN that was given last.
    pub fn last(&self) -> Lsn {
        self.state.last.load(Acquire)
    }

    /// Calls back once an LSN is durable or never will be: at once if that is known, else from the writer, without locks.
    pub fn when_durable(&self, lsn: Lsn, then: Box<dyn FnOnce(Result<(), Failure>) + Send>) {
        match self.enlist(lsn, then) {
            None => self.hurry(lsn),
            Some((then, outcome)) => then(outcome),
        }
    }

    /// Adds a waiter, or says that there is nothing to wait for.
    fn enlist(&self, lsn: Lsn, then: Then) -> Option<(Then, Result<(), Failure>)> {
        let mut waiters = self.waiters.lock();
        if self.durable() >= lsn {
            return Some((then, Ok(())));
        }
        if let Some(failure) = self.failure() {
            return Some((then, Err(failure)));
        }
        if self.state.is_ended.load(Acquire) {
            return Some((then, Err(Failure::closed())));
        }
        waiters.add(lsn, then);
        None
    }

    /// Waits until an LSN is durable, and sees to that on the caller's thread where it can.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<(), Failure> {
        if self.durable() >= lsn || self.has_thread() && self.commit(lsn) {
            return Ok(());
        }
        let (waiting, outcome) = (threads::current(), Arc::new(OnceLock::new()));
        let told = Arc::clone(&outcome);
        self.when_durable(
            lsn,
            Box::new(move |result| {
                let _ = told.set(result);
                waiting.unpark();
            }),
        );
        loop {
            if let Some(outcome) = outcome.get() {
                return outcome.clone();
            }
            if self.has_thread() {
                threads::park();
            } else if !self.step() {
                // Somebody else is at it, or is ending it.
                threads::yield_now();
            }
        }
    }

    /// The same for whoever could make space: it may not wait for that. Answers whether it is durable; false also where the
    /// log waits for space.
    pub fn wait_durable_with_space(&self, lsn: Lsn) -> bool {
        self.state.urgent.fetch_max(lsn, AcqRel);
        if self.has_thread() && self.durable() < lsn && !self.commit(lsn) {
            self.ring();
        }
        loop {
            if self.durable() >= lsn {
                return true;
            }
            if self.state.is_held.load(Acquire) || self.check().is_err() {
                return false;
            }
            if self.has_thread() {
                drop(self.room.wait_for(self.buffer.lock(), LOOKED_AGAIN));
            } else if !self.step() {
                threads::yield_now();
            }
        }
    }

    fn has_thread(&self) -> bool {
        self.state.has_thread.load(Acquire)
    }

    /// Why the log is final, if it is.
    pub fn failure(&self) -> Option<Failure> {
        self.failure.get().cloned()
    }

    /// Deletes the segments whose records are all below this LSN.
    pub fn trim(&self, keep_from: Lsn) -> io::Result<()> {
        if let Some(failure) = self.failure() {
            return Err(io::Error::new(failure.kind, failure));
        }
        if self.remove_below(keep_from)? {
            // With those that went, the name of a segment to come may be in doubt: an error is final.
            self.disk.sync_names().inspect_err(|error| self.fail(error))?;
        }
        Ok(())
    }

    /// Removes those segments; whether there are any.
    fn remove_below(&self, keep_from: Lsn) -> io::Result<bool> {
        let mut start = self.start.lock();
        let (numbers, first) = segment::trimmable(&self.closed.lock(), keep_from);
        if numbers.is_empty() {
            return Ok(false);
        }
        // First, for good, that they are not needed: or a crash in between would leave a gap.
        start.set_for_good(first)?;
        for number in numbers {
            self.disk.remove(&format::segment_name(number))?;
            self.closed.lock().pop_front();
        }
        Ok(true)
    }

    /// Bytes on disk that opening would have to read.
    pub fn bytes(&self) -> u64 {
        let closed = self.closed.lock().iter().map(|segment| segment.bytes).sum::<u64>();
        closed + self.state.active_bytes.load(Acquire)
    }

    /// The size of a full segment.
    pub fn segment_bytes(&self) -> u64 {
        self.policy.segment_bytes
    }

    /// How many files it has.
    pub fn segments(&self) -> u64 {
        self.closed.lock().len() as u64 + u64::from(self.state.active_bytes.load(Acquire) > 0)
    }

    /// Figures.
    pub fn stats(&self) -> WalStats {
        let mut stats = WalStats {
            bytes: self.bytes(),
            segments: self.segments(),
            last: self.last(),
            durable: self.durable(),
            backlog: self.state.backlog.load(Acquire),
            runway: self.state.runway.load(Acquire),
            is_short_of_space: self.state.is_short.load(Acquire),
            ..WalStats::default()
        };
        self.counts.fill(&mut stats);
        stats
    }

    /// Writes and syncs everything, marks that as the end, and ends the thread. After a failure it writes nothing. What
    /// is appended afterwards will never be durable.
    pub fn close(&self) {
        let mut thread = self.thread.lock();
        self.state.is_closed.store(true, Release);
        self.ring();
        if let Some(thread) = thread.take() {
            // A panic in it was reported there, and is a failure of the log.
            let _ = thread.join();
            self.state.has_thread.store(false, Release);
        }
        self.finish();
    }

    /// Asks the writer to make an LSN durable soon.
    fn hurry(&self, lsn: Lsn) {
        let is_new = self.state.urgent.fetch_max(lsn, AcqRel) < lsn;
        let is_overslept = self.state.has_committer.load(Acquire);
        if (is_new || is_overslept) && self.buffer.lock().crowd.come() {
            self.work.notify_one();
        }
    }

    /// From how many bytes on nothing is gathered any more.
    fn write_bytes(&self) -> usize {
        WRITE_BYTES.min(self.policy.backlog_bytes / 2)
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("last", &self.last())
            .field("durable", &self.durable())
            .finish_non_exhaustive()
    }
}

const _: () = assert!(LARGE_BYTES + record::HEAD_BYTES < WRITE_BYTES);
