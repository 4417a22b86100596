//! Looking ahead in a batch: the keys are hashed and their entries asked for from memory before the commands run, so that
//! the misses of one command pass while others work.

use std::cell::Cell;
use std::ops::Range;

use crossbeam_epoch::Guard;
use data_bridge_kv_model::{Command, ReplyBuf, Spec};

use super::{Caller, Engine, Progress};
use crate::hash::KeyHash;
use crate::shard::Space;

/// How many entries are asked for together, while as many commands are still to run on those before. Together, because
/// each command locks its shard, and a processor finishes what it has begun to fetch before it locks.
const TOGETHER: usize = 16;

/// Held while a batch is read and executed: what its look ahead reads of tables stays where it is.
pub struct Pin(Guard);

impl Pin {
    /// Holds on.
    #[inline]
    #[expect(clippy::new_without_default, reason = "it is an act, not a value")]
    pub fn new() -> Pin {
        Pin(crossbeam_epoch::pin())
    }
}

/// What is known of a batch's keys: for each command its only key, if it has exactly one. Kept and used again by whoever
/// executes batches.
#[derive(Debug, Default)]
pub struct Lookahead {
    keys: Vec<Option<Hashed>>,
    /// The entries of the commands before this one have been asked for.
    asked: Cell<usize>,
}

/// A key, by where its bytes stand, and its hash.
#[derive(Clone, Copy, Debug)]
struct Hashed {
    address: usize,
    bytes: usize,
    hash: KeyHash,
}

impl Lookahead {
    /// Forgets the batch and keeps the memory.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.asked.set(0);
    }

    /// The turn of command `index`.
    #[inline]
    pub fn turn<'a>(&'a self, index: usize, pin: &'a Pin) -> Turn<'a> {
        Turn { ahead: self, index, pin }
    }

    /// The commands whose entries are to be asked for in the turn of command `index`: at most 32, each once. Turns may be
    /// left out, since not every command has a key.
    #[inline]
    fn due(&self, index: usize) -> Range<usize> {
        let asked = self.asked.get();
        if index + TOGETHER < asked {
            return asked..asked;
        }
        let end = index + 2 * TOGETHER;
        self.asked.set(end);
        asked.max(index)..end
    }

    /// Asks for the entries of these commands, at most 32, whose slots have arrived.
    #[inline]
    fn prefetch_entries(&self, space: &Space, commands: Range<usize>, pin: &Pin) {
        let keys = self.keys.get(commands.start..commands.end.min(self.keys.len())).unwrap_or_default();
        // A bit for each command whose first slots are full of others.
        let mut late = 0u32;
        for (index, hashed) in keys.iter().enumerate() {
            late |= u32::from(!prefetch_entry(space, hashed, 0, pin)) << index;
        }
        while late != 0 {
            prefetch_entry(space, &keys[late.trailing_zeros() as usize], 1, pin);
            late &= late - 1;
        }
    }
}

#[inline]
fn prefetch_entry(space: &Space, hashed: &Option<Hashed>, behind: usize, pin: &Pin) -> bool {
    let Some(Hashed { hash, .. }) = *hashed else { return true };
    space.outline(hash).is_none_or(|outline| outline.prefetch_entry(hash, behind, &pin.0))
}

/// One command's place in a batch.
#[derive(Clone, Copy)]
pub struct Turn<'a> {
    ahead: &'a Lookahead,
    index: usize,
    pin: &'a Pin,
}

impl Turn<'_> {
    /// Takes the turn: asks for the entries of later commands, and answers the hash of this command's only key.
    #[inline]
    pub(super) fn take(self, space: &Space, key: &[u8]) -> Option<KeyHash> {
        let due = self.ahead.due(self.index);
        if !due.is_empty() {
            self.ahead.prefetch_entries(space, due, self.pin);
        }
        let hashed = self.ahead.keys.get(self.index).copied().flatten()?;
        (hashed.address == key.as_ptr().addr() && hashed.bytes == key.len()).then_some(hashed.hash)
    }
}

impl Engine {
    /// Tells the next command of a batch ahead: the bytes of its only key, or `None` where it has not exactly one. They
    /// must stay where they are until the command is executed.
    #[inline]
    pub fn look_ahead(&self, caller: &Caller, key: Option<&[u8]>, ahead: &mut Lookahead) {
        let space = self.core.space(caller.namespace);
        ahead.keys.push(key.map(|key| {
            let hash = space.hash(key);
            if let Some(outline) = space.outline(hash) {
                outline.prefetch_slots(hash);
            }
            Hashed { address: key.as_ptr().addr(), bytes: key.len(), hash }
        }));
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
    ) -> Progress {
        // The token is for answers that come later.
        self.execute_in_turn(caller, 0, spec, command, Some(turn), out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_asked_for_once_and_ahead_also_where_turns_are_left_out() {
        for left_out in [&[][..], &[0], &[16, 17, 32], &[1, 2, 3, 60, 61]] {
            let ahead = Lookahead::default();
            let mut asked = [0; 256];
            for index in (0..128).filter(|index| !left_out.contains(index)) {
                let due = ahead.due(index);
                assert!(due.len() <= 2 * TOGETHER, "{due:?} are too many at once");
                due.for_each(|command| asked[command] += 1);
                assert_eq!(asked[index], 1, "command {index}, without {left_out:?}");
            }
        }
        let ahead = Lookahead::default();
        assert_eq!(
            [ahead.due(0), ahead.due(1), ahead.due(15), ahead.due(16)],
            [0..32, 32..32, 32..32, 32..48]
        );
        assert_eq!(ahead.due(100), 100..132, "those before are over");
    }
}
