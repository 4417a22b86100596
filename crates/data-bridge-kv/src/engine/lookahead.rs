//! Looking ahead in a batch: the keys are hashed and their entries asked for from memory before the commands run, so that
//! the misses of one command pass while others work.

use data_bridge_kv_model::{Command, ReplyBuf, Spec};

use super::{Caller, Engine};
use crate::hash::KeyHash;
use crate::shard::Space;

/// How many commands ahead an entry is asked for: enough to cover a trip to memory, few enough that what was fetched is
/// still in the cache.
const ENTRIES_AHEAD: usize = 8;

/// What is known of a batch's keys. Kept and used again by whoever executes batches.
#[derive(Debug, Default)]
pub struct Lookahead {
    keys: Vec<Option<Hashed>>,
}

/// A key, by where its bytes stand, and its hash.
#[derive(Clone, Copy, Debug)]
struct Hashed {
    address: usize,
    bytes: usize,
    hash: KeyHash,
}

/// One command's place in a batch.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    ahead: &'a Lookahead,
    index: usize,
}

impl Lookahead {
    /// Forgets the batch and keeps the memory.
    pub fn clear(&mut self) {
        self.keys.clear();
    }

    /// The turn of command `index`.
    #[inline]
    pub fn at(&self, index: usize) -> Turn<'_> {
        Turn { ahead: self, index }
    }

    #[inline]
    fn hashed(&self, index: usize) -> Option<Hashed> {
        self.keys.get(index).copied().flatten()
    }
}

impl Turn<'_> {
    /// The hash of this very key, if it is the one of the command whose turn it is.
    #[inline]
    fn hash_of(self, key: &[u8]) -> Option<KeyHash> {
        let hashed = self.ahead.hashed(self.index)?;
        (hashed.address == key.as_ptr().addr() && hashed.bytes == key.len()).then_some(hashed.hash)
    }

    /// The hash of the key whose entry is to be asked for now.
    #[inline]
    fn next(self) -> Option<KeyHash> {
        self.ahead.hashed(self.index + ENTRIES_AHEAD).map(|hashed| hashed.hash)
    }
}

impl Engine {
    /// Begins a batch: `keys` has for each command the bytes of its key, or `None` where it has not exactly one. They
    /// must stay where they are until the commands are executed.
    #[inline]
    pub fn look_ahead<'k>(
        &self,
        caller: &Caller,
        keys: impl Iterator<Item = Option<&'k [u8]>>,
        ahead: &mut Lookahead,
    ) {
        let space = self.core.space(caller.namespace);
        ahead.keys.clear();
        ahead.keys.extend(keys.map(|key| {
            key.map(|key| {
                let hash = space.hash(key);
                prefetch_slot(space, hash);
                Hashed { address: key.as_ptr().addr(), bytes: key.len(), hash }
            })
        }));
        for hashed in (0..ENTRIES_AHEAD).filter_map(|index| ahead.hashed(index)) {
            prefetch_entry(space, hashed.hash);
        }
    }

    /// Executes a command in its turn of a batch. It must be one that is answered at once: exactly one reply item is
    /// appended, errors included.
    #[inline]
    pub fn execute_ahead(
        &self,
        caller: &Caller,
        spec: &Spec,
        command: &Command<'_>,
        turn: Turn<'_>,
        out: &mut ReplyBuf,
    ) {
        let hash = self.take_turn(caller, command, turn);
        // The token is for answers that come later.
        let _ = self.execute_hashed(caller, 0, spec, command, hash, out);
    }

    /// Asks for the entry of a later command, and answers the hash of this one's key.
    #[inline]
    pub(super) fn take_turn(
        &self,
        caller: &Caller,
        command: &Command<'_>,
        turn: Turn<'_>,
    ) -> Option<KeyHash> {
        if let Some(hash) = turn.next() {
            prefetch_entry(self.core.space(caller.namespace), hash);
        }
        command.keys().only().and_then(|key| turn.hash_of(key))
    }
}

/// Asks for the slots where the search for an entry begins.
#[inline]
fn prefetch_slot(space: &Space, hash: KeyHash) {
    if let Some(shard) = space.try_lock(space.shard_of(hash)) {
        shard.table().prefetch_slot(hash);
    }
}

/// Asks for the entry itself, when the slots have arrived.
#[inline]
fn prefetch_entry(space: &Space, hash: KeyHash) {
    if let Some(shard) = space.try_lock(space.shard_of(hash)) {
        shard.table().prefetch_entry(hash);
    }
}
