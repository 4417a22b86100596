//! One shard: a table, the waiters of its keys, and the sequence its versions come from. A plain struct behind one
//! lock; time comes in as an argument. Entries change in `direct.rs` alone: for `txn.rs`, and for the plain write of a
//! value that nobody waits for.

use crate::table::{EntryRef, INLINE_BYTES, Outline, Stored, Table};
use data_bridge_kv_model::limits::LOCKED_ENCODE_BYTES;
use data_bridge_kv_model::{Kind, ReplyBuf, ValueRef};
use std::sync::Arc;

mod cold;
mod direct;
pub mod exec;
mod journal;
pub mod notice;
pub mod space;
pub mod takers;
pub mod txn;
mod undo;
pub mod waiters;

pub use cold::{ColdKeys, Resting, Settled};
pub use space::Space;
pub use txn::{Gaps, Txn};

use crate::cold::Index;
use crate::evict::{Balance, Order};
use crate::expire::{self, Wheel};
use crate::hash::{KeyHash, KeyHasher};
use crate::mutation::Applied;
use crate::settings::Eviction;
use crate::wal::Lsn;
use journal::Journal;
use waiters::Waiters;

/// Sequence numbers take 44 bits of a version.
const MAX_SEQUENCE: u64 = (1 << 44) - 1;

/// The part of a namespace that one lock guards. What a read needs stands in front, beside the lock: another processor that
/// takes it then fetches one cache line.
#[repr(C)]
pub struct Shard {
    /// Its keys that are not in the table, where there is a cold tier.
    cold: Option<Box<ColdKeys>>,
    reads: Reads,
    table: Table,
    /// The last sequence number given to an entry; it only grows, also across deletion.
    sequence: u64,
    waiters: Waiters,
    /// Bytes that the budget knows of.
    reported: usize,
    /// The eviction order, once the namespace came near its budget.
    order: Option<Order>,
    /// Entries from this hash on are not in the order yet.
    unordered: Option<KeyHash>,
    /// Bytes of the order and the wheel when last counted: they are counted now and then, not at every change.
    side_bytes: usize,
    wheel: Wheel,
    /// All but `reads`.
    counters: Counters,
    /// Its recent records, where changes are logged.
    journal: Option<Box<Journal>>,
}

/// What [`Counters`] say of reads.
#[derive(Clone, Copy, Debug, Default)]
struct Reads {
    hits: u64,
    misses: u64,
}

/// What happened in a shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Entries removed because their deadline passed.
    pub expired: u64,
    /// Entries removed because memory was needed.
    pub evicted: u64,
    /// Entries with a deadline now.
    pub expiring: usize,
}

impl Shard {
    /// An empty shard at this time (unix ms).
    pub fn new(hasher: KeyHasher, now: u64) -> Shard {
        Shard {
            cold: None,
            reads: Reads::default(),
            table: Table::new(hasher),
            sequence: 0,
            waiters: Waiters::default(),
            reported: 0,
            order: None,
            unordered: Some(KeyHash::from_bits(0)),
            side_bytes: 0,
            wheel: Wheel::new(now),
            counters: Counters::default(),
            journal: None,
        }
    }

    /// The same with sequence numbers above `floor`, and a journal where changes are logged.
    pub fn above(self, floor: u64, is_logged: bool) -> Shard {
        Shard { sequence: floor, journal: is_logged.then(Box::default), ..self }
    }

    /// The same with a cold tier.
    pub fn with_cold(self, cold: ColdKeys) -> Shard {
        Shard { cold: Some(Box::new(cold)), ..self }
    }

    /// The keys that are not in the table.
    pub fn cold(&self) -> Option<&ColdKeys> {
        self.cold.as_deref()
    }

    /// The same, to be changed: where they are, not what they hold.
    pub fn cold_mut(&mut self) -> Option<&mut ColdKeys> {
        self.cold.as_deref_mut()
    }

    /// Whether the index of its keys on disk is still there too: until it is loaded, nothing may be done here that asks for keys
    /// which are not in the table.
    #[inline]
    pub fn lacks_index(&self) -> bool {
        self.cold().is_some_and(ColdKeys::is_absent)
    }

    /// The index of its keys on disk is there.
    fn restore(&mut self, space: &Space, index: Index) {
        if let Some(cold) = &mut self.cold {
            cold.restore(index, self.table.iter().filter_map(|entry| space.id(entry.key())));
        }
        self.report(space.budget());
    }

    /// How many keys, those that have expired but are not removed yet included.
    pub fn keys(&self) -> usize {
        self.table.len() + self.cold().map_or(0, ColdKeys::len)
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        let Reads { hits, misses } = self.reads;
        Counters { hits, misses, ..self.counters }
    }

    /// Bytes of entries, table, order and wheel.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        self.table.memory_bytes() + self.side_bytes + self.cold().map_or(0, ColdKeys::memory_bytes)
    }

    /// Takes about `limit` more of the entries that are there into the eviction order; true once it has all.
    pub fn extend_order(
        &mut self,
        balance: &Arc<Balance>,
        index: usize,
        policy: Eviction,
        limit: usize,
    ) -> bool {
        let Some(from) = self.unordered else { return true };
        let order = self.order.get_or_insert_with(|| Order::new(Arc::clone(balance), index));
        let mut references = Vec::with_capacity(limit);
        self.unordered = self.table.scan(from, limit, |hash, entry| {
            if policy.admits(entry.deadline().is_some()) {
                references.push(hash.position());
            }
        });
        order.adopt(references);
        self.count_side();
        self.unordered.is_none()
    }

    /// Counts the bytes of order and wheel anew.
    fn count_side(&mut self) {
        self.side_bytes = self.order.as_ref().map_or(0, Order::bytes) + self.wheel.bytes();
    }

    /// Lets order, wheel and counters follow a change.
    #[inline]
    fn track(&mut self, hash: KeyHash, Applied { before, after, .. }: Applied, policy: Eviction) {
        if before == after {
            return;
        }
        if let Some(order) = self.order.as_mut().filter(|_| self.unordered.is_none_or(|from| hash < from)) {
            let takes_part =
                |deadline: Option<Option<u64>>| deadline.is_some_and(|at| policy.admits(at.is_some()));
            match (takes_part(before), takes_part(after)) {
                (false, true) => order.insert(hash.position()),
                (true, false) => order.remove(hash.position()),
                (true, true) | (false, false) => {}
            }
        }
        let (old, new) = (before.flatten(), after.flatten());
        self.counters.expiring += usize::from(new.is_some());
        self.counters.expiring -= usize::from(old.is_some());
        if let Some(deadline) = new
            && old.is_none_or(|old| deadline < old)
        {
            self.wheel.insert(expire::reference(hash), deadline);
            if self.wheel.is_crowded(self.counters.expiring) {
                let table = &self.table;
                self.wheel.sweep(|reference| earliest_deadline(table, reference));
            }
        }
    }

    /// The entries, to be read.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// What a look ahead may read of the table without the shard's lock.
    pub fn outline(&mut self) -> Arc<Outline> {
        self.table.outline()
    }

    /// The waiters of this shard's keys.
    pub fn waiters(&mut self) -> &mut Waiters {
        &mut self.waiters
    }

    /// The next sequence number. It lasts for 17 trillion changes of one shard.
    fn next_sequence(&mut self) -> u64 {
        self.sequence = self.upcoming();
        self.sequence
    }

    /// What the next sequence number will be.
    fn upcoming(&self) -> u64 {
        (self.sequence + 1).min(MAX_SEQUENCE)
    }

    /// The last sequence number that was given.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Notes the record that the changes since the last one are in.
    fn note(&mut self, lsn: Lsn, removes: bool, durable: Lsn) {
        let sequence = self.sequence;
        if let Some(journal) = &mut self.journal {
            journal.note(sequence, lsn, removes, durable);
        }
    }

    /// Empty memory for the record of a step, to be given back.
    fn lend_scratch(&mut self) -> Vec<u8> {
        self.journal.as_mut().map(|journal| journal.lend_scratch()).unwrap_or_default()
    }

    fn take_scratch(&mut self, scratch: Vec<u8>) {
        if let Some(journal) = &mut self.journal {
            journal.take_scratch(scratch);
        }
    }
}

/// A scalar as a borrowed value; `None` for a collection.
#[inline]
pub fn scalar(stored: Stored<'_>) -> Option<ValueRef<'_>> {
    stored.payload().map(|payload| ValueRef::from_parts(stored.kind(), payload))
}

/// Whether encoding the value takes too long for a locked shard. What stands in the entry itself does not.
#[inline]
fn is_large(entry: EntryRef<'_>) -> bool {
    entry.is_external() && encoded_len(entry.value()) > LOCKED_ENCODE_BYTES
}

const _: () = assert!(INLINE_BYTES <= LOCKED_ENCODE_BYTES);

/// Whether an entry has expired at `now` (unix ms).
#[inline]
pub fn is_expired(entry: EntryRef<'_>, now: impl FnOnce() -> u64) -> bool {
    match entry.deadline() {
        Some(deadline) => deadline <= now(),
        None => false,
    }
}

/// Whether a scan or count may show an entry at `now` (unix ms).
pub fn is_live(entry: EntryRef<'_>, now: u64) -> bool {
    !is_expired(entry, || now)
}

/// Appends a stored value of any kind.
#[inline]
pub fn put_value(stored: Stored<'_>, out: &mut ReplyBuf) {
    match stored {
        Stored::Inline { kind, payload } | Stored::Whole { kind, payload } => {
            out.value(ValueRef::from_parts(kind, payload))
        }
        Stored::Blob { kind, blob } => out.value(ValueRef::from_parts(kind, blob.get())),
        Stored::Collection(collection) => collection.encode_into(out.bytes_mut()),
    }
}

/// About how many bytes a value takes in a reply.
#[inline]
pub fn encoded_len(stored: Stored<'_>) -> usize {
    match stored {
        Stored::Inline { payload, .. } | Stored::Whole { payload, .. } => payload.len(),
        Stored::Blob { blob, .. } => blob.len(),
        Stored::Collection(collection) => collection.encoded_len(),
    }
}

/// Whether a Redis client may read it as a string.
pub fn is_redis_string(kind: Kind) -> bool {
    !kind.is_container()
}

/// The earliest deadline of the entries under a reference.
fn earliest_deadline(table: &Table, reference: u32) -> Option<u64> {
    table.under(reference, expire::REFERENCE_BITS).filter_map(|(_, entry)| entry.deadline()).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{NewEntry, NewValue};

    /// A shard that changes as a transaction would change it.
    struct Changed(Shard);

    impl Changed {
        fn insert(&mut self, number: u32) {
            let value = NewValue::from(ValueRef::from_parts(Kind::Bool, &[1]));
            let (key, hash) = self.place(number);
            let new = NewEntry { value, sequence: 1, deadline: None, heat: 0 };
            assert!(self.0.table.put(hash, &key, new));
            self.0.track(hash, Applied::new(None, Some(None)), Eviction::Lru);
        }

        fn remove(&mut self, number: u32) {
            let (key, hash) = self.place(number);
            let before = self.0.table.remove(hash, &key);
            assert!(before.is_some());
            self.0.track(hash, Applied::new(before, None), Eviction::Lru);
        }

        fn place(&self, number: u32) -> ([u8; 4], KeyHash) {
            let key = number.to_le_bytes();
            (key, self.0.table.hasher().hash(&key))
        }
    }

    #[test]
    fn an_order_that_is_built_while_entries_come_and_go_has_each_once() {
        let mut shard = Changed(Shard::new(KeyHasher::new(3), 0));
        (0..5000).for_each(|number| shard.insert(number));
        let balance = Arc::new(Balance::new(Eviction::Lru, 1));
        let mut steps = 0;
        while !shard.0.extend_order(&balance, 0, Eviction::Lru, 100) {
            (0..20).for_each(|at| shard.insert(5000 + steps * 20 + at));
            (0..20).for_each(|at| shard.remove(steps * 20 + at));
            steps += 1;
        }
        assert!((40..60).contains(&steps), "{steps} steps");
        assert_eq!(shard.0.table.len(), 5000);
        assert_eq!(shard.0.order.as_ref().map(Order::len), Some(5000));
    }
}
