//! Looking ahead in a batch: the keys are hashed and their entries asked for from memory before the commands run, so that
//! the misses of one command pass while others work.

use std::cell::Cell;
use std::ops::Range;

use crate::sync::MutexGuard;
use crossbeam_epoch::Guard;
use data_bridge_kv_model::command::Expiry;
use data_bridge_kv_model::identity::identity_hash;
use data_bridge_kv_model::limits::LOCKED_ENCODE_BYTES;
use data_bridge_kv_model::{Arg, Command, Key, Load, ReplyBuf, Spec, ValueRef};

use super::{Caller, Engine, Progress};
use crate::collections::{AHEAD_STEPS, Collection};
use crate::hash::KeyHash;
use crate::shard::exec::new_value;
use crate::shard::exec::scalar::deadline_at;
use crate::shard::{Shard, Space};
use crate::table::{EntryRef, Home, Stored, prefetch};

/// How many entries are asked for together, while as many commands are still to run on those before. Together, because
/// each command locks its shard, and a processor finishes what it has begun to fetch before it locks.
const TOGETHER: usize = 16;

/// How many entries are looked into together for what they lead to.
const INSIDE: usize = 16;

/// Held while a batch is read and executed: what its look ahead reads of tables stays where it is.
#[derive(Debug)]
pub struct Pin(Guard);

impl Pin {
    /// Holds on.
    #[inline]
    #[expect(clippy::new_without_default, reason = "it is an act, not a value")]
    pub fn new() -> Pin {
        Pin(crossbeam_epoch::pin())
    }
}

/// Memory of look aheads, kept and used again by whoever executes batches.
#[derive(Debug, Default)]
pub struct Lookahead(Vec<Option<Hashed<'static>>>);

/// What is known of a batch's keys: for each command its only key, if it has exactly one.
#[derive(Debug)]
pub struct Ahead<'p> {
    keys: Vec<Option<Hashed<'p>>>,
    /// The entries of the commands before this one have been asked for.
    asked: Cell<usize>,
    /// The entries of the commands before this one have been looked into.
    inside: Cell<usize>,
    pin: &'p Pin,
}

/// A key, its hash, and where its search begins.
#[derive(Clone, Copy, Debug)]
struct Hashed<'p> {
    key: &'p [u8],
    hash: KeyHash,
    home: Option<Home<'p>>,
    /// The hash of the element that the command names in the key's collection; 0 where it names none.
    element: u64,
}

impl Lookahead {
    /// Begins a batch, for which the pin is held.
    #[inline]
    pub fn begin<'p>(self, pin: &'p Pin) -> Ahead<'p> {
        Ahead { keys: self.0, asked: Cell::new(0), inside: Cell::new(0), pin }
    }
}

impl<'p> Ahead<'p> {
    /// Ends the batch and gives the memory back.
    #[inline]
    pub fn end(self) -> Lookahead {
        let Ahead { mut keys, .. } = self;
        keys.clear();
        // Collecting a vector's own iterator happens in its place.
        Lookahead(keys.into_iter().map(|_| None).collect())
    }

    /// The turn of command `index`.
    #[inline]
    pub fn turn(&self, index: usize) -> Turn<'_> {
        Turn { ahead: self, index }
    }

    /// Whether entries are to be asked for in the turn of command `index`.
    #[inline]
    fn is_due(&self, index: usize) -> bool {
        index + TOGETHER >= self.asked.get()
    }

    /// The commands whose entries are to be asked for in the turn of command `index`: at most 32, each once. Turns may be
    /// left out, since not every command has a key.
    fn due(&self, index: usize) -> Range<usize> {
        let asked = self.asked.get();
        if !self.is_due(index) {
            return asked..asked;
        }
        let end = index + 2 * TOGETHER;
        self.asked.set(end);
        asked.max(index)..end
    }

    /// Asks for what the entries of this command and of those behind it lead to: the further misses of a command on a
    /// collection. Their shards are locked together, so that the misses of all pass side by side, step by step. Where
    /// somebody holds a shard it is left alone.
    fn look_inside(&self, space: &Space, index: usize) {
        if index < self.inside.get() {
            return;
        }
        let end = self.keys.len().min(index + INSIDE);
        self.inside.set(end);
        let keys = self.keys.get(index..end).unwrap_or_default();
        let shards = Locked::new(space, keys.iter().flatten().map(|hashed| space.shard_of(hashed.hash)));
        let mut found = [const { None }; INSIDE];
        for (place, hashed) in found.iter_mut().zip(keys) {
            *place = hashed.as_ref().and_then(|Hashed { key, hash, element, .. }| {
                let shard = shards.get(space.shard_of(*hash))?;
                Some((shard.table().find(*hash, key)?.value().collection()?, *element))
            });
            if let Some((collection, _)) = place {
                let start = std::ptr::from_ref::<Collection>(collection).cast::<u8>();
                prefetch(start);
                prefetch(start.wrapping_add(64));
            }
        }
        for step in 0..AHEAD_STEPS {
            for (collection, element) in found.iter().flatten() {
                collection.look_ahead(*element, step, prefetch);
            }
        }
    }

    /// Asks for the entries that are due, whose slots have arrived.
    #[inline(never)]
    fn prefetch_due(&self, index: usize) {
        let commands = self.due(index);
        let keys = self.keys.get(commands.start..commands.end.min(self.keys.len())).unwrap_or_default();
        // A bit for each command whose first slots are full of others.
        let mut late = 0u32;
        for (index, hashed) in keys.iter().enumerate() {
            late |= u32::from(!prefetch_entry(hashed, 0)) << index;
        }
        while late != 0 {
            prefetch_entry(&keys[late.trailing_zeros() as usize], 1);
            late &= late - 1;
        }
    }
}

#[inline]
fn prefetch_entry(hashed: &Option<Hashed<'_>>, behind: u8) -> bool {
    let home = hashed.as_ref().and_then(|hashed| hashed.home);
    home.is_none_or(|home| home.prefetch_entry(behind))
}

/// Takes down the keys of a batch's commands, one after the other, and then asks for their slots: together, because a
/// processor that waits to learn where the pages of one stand looks only a few hundred instructions ahead for the next.
pub struct Lookout<'e, 'p> {
    space: &'e Space,
    ahead: &'e mut Ahead<'p>,
}

impl<'p> Lookout<'_, 'p> {
    /// Tells the next command of the batch: the bytes of its only key, or `None` where it has not exactly one, and the element
    /// that it names in the key's collection.
    #[inline]
    pub fn tell(&mut self, key: Option<&'p [u8]>, element: Option<Arg<'_>>) {
        let pin = self.ahead.pin;
        let hashed = key.map(|key| {
            let hash = self.space.hash(key);
            let home = self.space.outline(hash).and_then(|outline| outline.home(hash, &pin.0));
            Hashed { key, hash, home, element: element.map_or(0, element_hash) }
        });
        self.ahead.keys.push(hashed);
    }

    /// Asks for the slots of all keys that were told.
    #[inline(never)]
    pub fn ask(self) {
        self.ahead.keys.iter().flatten().filter_map(|hashed| hashed.home).for_each(Home::prefetch_slots);
    }
}

/// Shards that are locked together, each once.
struct Locked<'s> {
    indexes: [usize; INSIDE],
    guards: [Option<MutexGuard<'s, Shard>>; INSIDE],
    len: usize,
}

impl<'s> Locked<'s> {
    /// Locks those of at most [`INSIDE`] shards that nobody holds. It waits for none, so it may be done in any order.
    fn new(space: &'s Space, shards: impl Iterator<Item = usize>) -> Locked<'s> {
        let mut locked = Locked { indexes: [0; INSIDE], guards: [const { None }; INSIDE], len: 0 };
        for index in shards {
            if !locked.indexes[..locked.len].contains(&index) {
                locked.indexes[locked.len] = index;
                locked.guards[locked.len] = space.try_lock(index);
                locked.len += 1;
            }
        }
        locked
    }

    fn get(&self, index: usize) -> Option<&Shard> {
        let at = self.indexes[..self.len].iter().position(|locked| *locked == index)?;
        self.guards[at].as_deref()
    }
}

/// One command's place in a batch.
#[derive(Clone, Copy)]
pub struct Turn<'a> {
    ahead: &'a Ahead<'a>,
    index: usize,
}

impl Turn<'_> {
    /// Takes the turn: asks for the entries of later commands, and answers the hash of this command's only key.
    #[inline]
    pub(super) fn take(self, key: &[u8]) -> Option<KeyHash> {
        if self.ahead.is_due(self.index) {
            self.ahead.prefetch_due(self.index);
        }
        let hashed = self.ahead.keys.get(self.index)?.as_ref()?;
        std::ptr::eq(hashed.key, key).then_some(hashed.hash)
    }

    /// Has what the entries lead to fetched, for a command on a collection: the next ones are likely to be such too.
    #[inline]
    pub(super) fn look_inside(self, space: &Space) {
        self.ahead.look_inside(space, self.index);
    }
}

/// The hash of the element that an argument names.
fn element_hash(arg: Arg<'_>) -> u64 {
    match arg {
        Arg::Untyped(bytes) => identity_hash(ValueRef::bytes(bytes)),
        Arg::Value(value) if !value.kind().is_container() => identity_hash(value),
        // It costs more than it may bring.
        Arg::Value(_) | Arg::Literal(..) => 0,
    }
}

impl Engine {
    /// Begins to look ahead in a batch of this caller: see [`Lookout::tell`].
    #[inline]
    pub fn look_ahead<'e, 'p>(&'e self, caller: &Caller, ahead: &'e mut Ahead<'p>) -> Lookout<'e, 'p> {
        Lookout { space: self.core.space(caller.namespace), ahead }
    }

    /// Hands the value of a key to `use_it` in the turn of the command that reads it, as [`Engine::try_read`] does. Where
    /// that takes more than a look at the locked shard, or `use_it` answers `None`, nothing was counted: the command is
    /// to be executed.
    #[inline]
    pub fn read_ahead<R>(
        &self,
        caller: &Caller,
        key: Key<'_>,
        turn: Turn<'_>,
        use_it: impl FnOnce(Option<Stored<'_>>) -> Option<R>,
    ) -> Option<R> {
        let core = &*self.core;
        core.check_open().ok()?;
        let space = core.space(caller.namespace);
        let hash = turn.take(key.as_bytes()).unwrap_or_else(|| space.hash(key.as_bytes()));
        let use_entry = |entry: Option<EntryRef<'_>>| use_it(entry.map(EntryRef::value));
        let now = || core.clock.unix_ms();
        space.lock(space.shard_of(hash)).read(space, hash, key.as_bytes(), now, use_entry)
    }

    /// Writes a value in the turn of the command that does no more than that, a SET without options. Answers `false` where
    /// it takes more: then nothing was done, and the command is to be executed.
    #[inline]
    pub fn write_ahead(&self, caller: &Caller, key: Key<'_>, value: ValueRef<'_>, turn: Turn<'_>) -> bool {
        let core = &*self.core;
        let space = core.space(caller.namespace);
        if core.check_open().is_err() || core.budget.is_near() {
            return false;
        }
        if value.payload().len() > LOCKED_ENCODE_BYTES {
            return false;
        }
        let _room = match core.room_to_put(space, key, value) {
            Ok(room) => room,
            Err(_) => return false,
        };
        let Ok(value) = new_value(value) else { return false };
        let hash = turn.take(key.as_bytes()).unwrap_or_else(|| space.hash(key.as_bytes()));
        let deadline = deadline_at(space.settings(), Expiry::Default, None, || core.clock.unix_ms());
        let mut shard = space.lock(space.shard_of(hash));
        shard.write(space, hash, key.as_bytes(), value, deadline).is_some()
    }

    /// Adds to the Int of a key in the turn of the command that does no more than that, as INCR does, and answers the sum.
    /// Answers `None` where it takes more, or there is no Int: then nothing was done, and the command is to be executed.
    #[inline]
    pub fn add_ahead(&self, caller: &Caller, key: Key<'_>, by: i64, turn: Turn<'_>) -> Option<i64> {
        let core = &*self.core;
        let space = core.space(caller.namespace);
        if core.check_open().is_err() || core.budget.is_near() {
            return None;
        }
        let hash = turn.take(key.as_bytes()).unwrap_or_else(|| space.hash(key.as_bytes()));
        let now = || core.clock.unix_ms();
        let sum = |number: i64| number.checked_add(by);
        space.lock(space.shard_of(hash)).change_int(space, hash, key.as_bytes(), now, sum)
    }

    /// Executes a command, with its row of the table and what it brings, in its turn of a batch. It must be one that is answered at once: exactly one reply item is
    /// appended, errors included.
    #[inline]
    pub fn execute_ahead(
        &self,
        caller: &Caller,
        row: (&Spec, Load),
        command: &Command<'_>,
        turn: Turn<'_>,
        out: &mut ReplyBuf,
    ) -> Progress {
        // The token is for answers that come later.
        self.execute_in_turn(caller, 0, row, command, Some(turn), out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_asked_for_once_and_ahead_also_where_turns_are_left_out() {
        let pin = Pin::new();
        for left_out in [&[][..], &[0], &[16, 17, 32], &[1, 2, 3, 60, 61]] {
            let ahead = Lookahead::default().begin(&pin);
            let mut asked = [0; 256];
            for index in (0..128).filter(|index| !left_out.contains(index)) {
                let due = ahead.due(index);
                assert!(due.len() <= 2 * TOGETHER, "{due:?} are too many at once");
                due.for_each(|command| asked[command] += 1);
                assert_eq!(asked[index], 1, "command {index}, without {left_out:?}");
            }
        }
        let ahead = Lookahead::default().begin(&pin);
        assert_eq!(
            [ahead.due(0), ahead.due(1), ahead.due(15), ahead.due(16)],
            [0..32, 32..32, 32..32, 32..48]
        );
        assert_eq!(ahead.due(100), 100..132, "those before are over");
    }
}
