//! Carrying out the log again when a store is opened. What a long one has is carried out by several threads: the one that reads
//! hands out the effects, those of a shard to the same thread always, in the order of the log. A record's effects on
//! several shards are so carried out at different moments, but nothing is shown before all are done. A clear waits for all that
//! was handed out before.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use data_bridge_kv_model::{Error, ErrorKind, Key, Result};

use super::halt::Means;
use super::{Core, Halt, NamespaceId, Waits};
use crate::mutation::Mutation;
use crate::mutation::bytes::{self, Effect};
use crate::opening::Opening;
use crate::record::Record;
use crate::shard::space::{CLEAR, EFFECTS};
use crate::shard::{Space, exec};
use crate::sync::real::{Condvar, Mutex};
use crate::wal::{Lsn, OpenError};

/// A log of so many bytes is long.
pub(super) const LONG_BYTES: u64 = 4 << 20;
/// Most threads that carry it out.
const THREADS: usize = 8;
/// Bytes of effects that go to a thread together. A larger effect is carried out by the reader, while the threads stand still.
const PIECE_BYTES: usize = 64 << 10;

/// Effects on their way to a thread.
#[derive(Default)]
struct Piece {
    bytes: Vec<u8>,
    /// The record and the namespace of each effect, and where it ends.
    effects: Vec<(Lsn, u8, usize)>,
}

/// How far the threads are.
#[derive(Default)]
pub(super) struct Threads {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Pieces that are not carried out yet.
    under_way: usize,
    /// The earliest record that was refused so far.
    failure: Option<(Lsn, Error)>,
}

/// Takes the records of the log as it is read.
pub(super) struct Replay<'s> {
    core: &'s Core,
    /// What was done up to this record is known already.
    known: Lsn,
    opening: Arc<Opening>,
    threads: &'s Threads,
    /// The way to each thread, with what is gathered for it; none for a short log.
    ways: Vec<(SyncSender<Piece>, Piece)>,
}

impl<'s> Replay<'s> {
    pub(super) fn new(
        core: &'s Core,
        known: Lsn,
        opening: &Arc<Opening>,
        threads: &'s Threads,
    ) -> Replay<'s> {
        Replay { core, known, opening: Arc::clone(opening), threads, ways: Vec::new() }
    }

    /// Lets threads carry out what comes from now on, if there are cores for that.
    pub(super) fn spread<'e>(&mut self, scope: &'s Scope<'s, 'e>) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..if cores > 1 { cores.min(THREADS) } else { 0 } {
            // One is under way, one waits, one is gathered: they take memory.
            let (send, pieces) = sync_channel(1);
            let (core, threads) = (self.core, self.threads);
            let work = move || threads.work(core, &pieces);
            if std::thread::Builder::new().name("kv-replay".to_owned()).spawn_scoped(scope, work).is_ok() {
                self.ways.push((send, Piece::default()));
            }
        }
    }

    /// Carries out a record, or hands it on.
    pub(super) fn take(&mut self, lsn: Lsn, record: &Record<'_>) -> std::result::Result<(), OpenError> {
        self.opening.advance(record.total_bytes() as u64);
        if lsn <= self.known {
            return Ok(());
        }
        self.core.replayed.fetch_add(1, Relaxed);
        let taken = if self.ways.is_empty() { self.core.replay(record) } else { self.hand_out(lsn, record)? };
        taken.map_err(|error| refused(lsn, &error))
    }

    /// Waits until everything is carried out.
    pub(super) fn finish(&mut self) -> std::result::Result<(), OpenError> {
        for way in 0..self.ways.len() {
            self.send(way);
        }
        let mut state = self.threads.state.lock();
        while state.under_way > 0 {
            state = self.threads.changed.wait(state);
        }
        state.failure.take().map_or(Ok(()), |(lsn, error)| Err(refused(lsn, &error)))
    }

    fn hand_out(&mut self, lsn: Lsn, record: &Record<'_>) -> std::result::Result<Result<()>, OpenError> {
        if record.head.kind == CLEAR {
            self.finish()?;
            return Ok(self.core.replay_clear(record.payload));
        }
        let (number, space) = match self.core.space_of(record) {
            Ok(space) => (record.head.namespace, space),
            Err(error) => return Ok(Err(error)),
        };
        for effect in bytes::split(record.payload) {
            let (key, effect) = match effect {
                Ok(effect) => effect,
                Err(error) => return Ok(Err(error)),
            };
            if effect.len() > PIECE_BYTES {
                self.finish()?;
                if let Err(error) = self.core.replay_effects(number, space, effect) {
                    return Ok(Err(error));
                }
                continue;
            }
            let way = space.shard_of(space.hash(key)) % self.ways.len();
            let Some((_, piece)) = self.ways.get_mut(way) else { continue };
            piece.bytes.extend_from_slice(effect);
            piece.effects.push((lsn, number, piece.bytes.len()));
            if piece.bytes.len() >= PIECE_BYTES && self.send(way) {
                self.finish()?;
            }
        }
        Ok(Ok(()))
    }

    /// Sends what is gathered on its way; answers whether the threads met a record that they refused.
    fn send(&mut self, way: usize) -> bool {
        let Some((send, piece)) = self.ways.get_mut(way).filter(|(_, piece)| !piece.effects.is_empty())
        else {
            return false;
        };
        let piece = std::mem::take(piece);
        let mut state = self.threads.state.lock();
        state.under_way += 1;
        let has_failed = state.failure.is_some();
        drop(state);
        if send.send(piece).is_err() {
            // The thread panicked, and so will whoever waits for its end.
            self.threads.end_piece();
        }
        has_failed
    }
}

impl Threads {
    /// Carries out pieces as long as some may come.
    fn work(&self, core: &Core, pieces: &Receiver<Piece>) {
        for Piece { bytes, effects } in pieces {
            let _in_hand = InHand(self);
            let mut start = 0;
            for (lsn, number, end) in effects {
                let effect = bytes.get(start..end).unwrap_or_default();
                start = end;
                if let Err(error) = core.replay_effects(number, &core.spaces[usize::from(number)], effect) {
                    let failure = &mut self.state.lock().failure;
                    if failure.as_ref().is_none_or(|(earliest, _)| lsn < *earliest) {
                        *failure = Some((lsn, error));
                    }
                    break;
                }
            }
        }
    }

    fn end_piece(&self) {
        self.state.lock().under_way -= 1;
        self.changed.notify_all();
    }
}

/// A piece that a thread has.
struct InHand<'t>(&'t Threads);

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.0.end_piece();
    }
}

fn refused(lsn: Lsn, error: &Error) -> OpenError {
    OpenError::Refused { lsn, why: error.clone() }
}

/// What memory lacks for the log, whose oldest entries leave it as they do otherwise.
fn short(halt: Halt) -> Error {
    let error = halt.into_error();
    let message = "the disk has no space for what the log has and memory has no room for: free some, or give the store more memory";
    if error.kind() == ErrorKind::OutOfMemory { Error::new(ErrorKind::Unavailable, message) } else { error }
}

impl Core {
    /// The namespace of a record of the log.
    fn space_of(&self, record: &Record<'_>) -> Result<&Space> {
        let space = self.spaces.get(usize::from(record.head.namespace));
        let unknown = || Error::new(ErrorKind::Corruption, "a record of the log is of an unknown kind");
        space.filter(|_| record.head.kind == EFFECTS).ok_or_else(unknown)
    }

    /// Carries out a record of the log.
    fn replay(&self, record: &Record<'_>) -> Result<()> {
        if record.head.kind == CLEAR {
            return self.replay_clear(record.payload);
        }
        self.replay_effects(record.head.namespace, self.space_of(record)?, record.payload)
    }

    fn replay_effects(&self, number: u8, space: &Space, effects: &[u8]) -> Result<()> {
        for effect in bytes::decode(effects, exec::new_value) {
            if self.budget.is_near() {
                self.make_room(NamespaceId(number), Waits::Alone).map_err(short)?;
            }
            let Effect { key, version, mutation } = effect?;
            let key = Key::new(key)?;
            let shard = space.shard_of(space.hash(key.as_bytes()));
            let mut txn = match mutation {
                Mutation::Put { .. } | Mutation::Delete => self.begin_at(space, shard),
                _ => self.begin_with(space, Means::all(Waits::Alone), key).map_err(Halt::into_error)?,
            };
            let place = txn.place(key);
            txn.replay(place, space.sequence_of(version), mutation);
            txn.finish().send();
        }
        Ok(())
    }
}
