//! What a locked shard does for one key without a step around it: the read and the write of a value, or a change inside of
//! one, where nothing else is to be done, and the one place that carries effects out, for the transaction too.

use super::notice::Change;
use super::{Shard, Space, is_large};
use crate::budget::{Budget, REPORT_STEP};
use crate::collections::Collection;
use crate::hash::KeyHash;
use crate::mutation::{self, Applied, Mutation, bytes};
use crate::table::{EntryRef, Look, NewValue};
use crate::wal::Lsn;

impl Shard {
    /// Reads the entry of a key, with `None` where there is none. Answers `None`, having counted nothing, where `use_it`
    /// does, and without having called where reading takes a step of its own: the deadline has passed, the value is large,
    /// the key may be on disk, or the answer may have to wait for the log.
    #[inline]
    pub fn read<R>(
        &mut self,
        space: &Space,
        hash: KeyHash,
        key: &[u8],
        now: impl FnOnce() -> u64,
        use_it: impl FnOnce(Option<EntryRef<'_>>) -> Option<R>,
    ) -> Option<R> {
        if let Some(wal) = space.awaited()
            && !self.is_settled(wal.durable())
        {
            return None;
        }
        self.consult(hash, key, now, use_it)
    }

    /// The same for an answer that rests on what comes behind this.
    #[inline]
    pub fn consult<R>(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        now: impl FnOnce() -> u64,
        use_it: impl FnOnce(Option<EntryRef<'_>>) -> Option<R>,
    ) -> Option<R> {
        let may_be_elsewhere = self.may_be_elsewhere();
        match self.table.look(hash, key, true, now) {
            Look::Live(entry, _) if !is_large(entry) => {
                let used = use_it(Some(entry))?;
                self.reads.hits += 1;
                Some(used)
            }
            Look::Absent if may_be_elsewhere => None,
            Look::Absent => {
                let used = use_it(None)?;
                self.reads.misses += 1;
                Some(used)
            }
            Look::Live(..) | Look::Expired => None,
        }
    }

    /// Whether a write takes a transaction: a transition graph must allow it, or others are told.
    #[inline]
    pub fn is_watched(&self, space: &Space) -> bool {
        space.settings().graph.is_some() || self.tells(space)
    }

    /// Writes a value and its deadline (unix ms, not passed), if that is all there is to do, and answers the record that this
    /// rests on; 0 = none. The value is no longer than what may be encoded while a shard is locked. Answers `None`, having done
    /// nothing, where it takes a transaction: a transition graph must allow it, others are told, or the key may be on disk.
    #[inline]
    pub fn write(
        &mut self,
        space: &Space,
        hash: KeyHash,
        key: &[u8],
        value: NewValue<'_>,
        deadline: Option<u64>,
    ) -> Option<Lsn> {
        if self.is_watched(space) {
            return None;
        }
        if self.may_be_elsewhere() && self.table.find(hash, key).is_none() {
            return None;
        }
        let logged = if space.is_logged() { Some(self.log_put(space, key, &value, deadline)?) } else { None };
        let (bytes, sequence) = (self.table.entry_bytes(), self.next_sequence());
        let applied = mutation::put(&mut self.table, (hash, key), sequence, value, deadline);
        self.follow(space, hash, key, sequence, applied);
        if self.table.entry_bytes() != bytes {
            self.report(space.budget());
        }
        let (Some(lsn), Some(wal)) = (logged, space.awaited()) else { return Some(0) };
        self.note(lsn, false, wal.durable());
        Some(lsn)
    }

    /// Carries out the effect that `choose` names on the collection of a key, if that is all there is to do, and answers how
    /// many elements it had before and has after. Answers `None`, having done nothing, where `choose` does, where no built
    /// collection is live in the table, or where it takes a transaction. The effect must leave an element.
    #[inline]
    pub fn change_collection<'m>(
        &mut self,
        space: &Space,
        hash: KeyHash,
        key: &[u8],
        now: impl FnOnce() -> u64,
        choose: impl FnOnce(&Collection) -> Option<Mutation<'m>>,
    ) -> Option<(usize, usize)> {
        if space.is_logged() || self.is_watched(space) {
            return None;
        }
        let sequence = self.upcoming();
        let lengths = mutation::change_live(&mut self.table, (hash, key), sequence, now, choose)?;
        self.settle_change(sequence);
        self.report(space.budget());
        Some(lengths)
    }

    /// Replaces the number of a key that holds an Int by what `sum` makes of it, if that is all there is to do, and answers it.
    /// Answers `None`, having done nothing, where `sum` does, where no Int is live in the table, or where it takes a
    /// transaction.
    #[inline]
    pub fn change_int(
        &mut self,
        space: &Space,
        hash: KeyHash,
        key: &[u8],
        now: impl FnOnce() -> u64,
        sum: impl FnOnce(i64) -> Option<i64>,
    ) -> Option<i64> {
        if space.is_logged() || self.is_watched(space) {
            return None;
        }
        let sequence = self.upcoming();
        let sum = mutation::count_live(&mut self.table, (hash, key), sequence, now, sum)?;
        // It takes as much memory as before.
        self.settle_change(sequence);
        Some(sum)
    }

    /// Ends a change of an entry that was found: it counts as a hit.
    #[inline]
    fn settle_change(&mut self, sequence: u64) {
        self.sequence = sequence;
        self.reads.hits += 1;
    }

    /// Appends the record of a write that is about to be carried out.
    fn log_put(&self, space: &Space, key: &[u8], value: &NewValue<'_>, deadline: Option<u64>) -> Option<Lsn> {
        let version = space.version(self.upcoming());
        space.append_with(bytes::most_bytes_of_put(key, value), |out| {
            bytes::encode_put(key, version, value, deadline, out);
        })
    }

    /// Whether every change is durable, as far as anybody waits for that.
    #[inline]
    fn is_settled(&self, durable: Lsn) -> bool {
        self.journal.as_ref().is_none_or(|journal| journal.is_settled(durable))
    }

    /// Whether keys that are not in the table may exist.
    #[inline]
    fn may_be_elsewhere(&self) -> bool {
        self.cold().is_some_and(|cold| !cold.is_empty())
    }

    /// Whether the log is carried out again.
    #[inline]
    fn is_replaying(&self) -> bool {
        self.cold().is_some_and(|cold| cold.is_replaying())
    }

    /// Whether keys in the table have records on disk.
    #[inline]
    fn has_residents(&self) -> bool {
        self.cold().is_some_and(|cold| cold.has_residents())
    }

    /// Whether somebody may have to be told of a change.
    #[inline]
    pub(super) fn tells(&self, space: &Space) -> bool {
        !self.waiters.is_empty() || space.has_prefix_watchers()
    }

    /// Carries out an effect under the next sequence number. Answers that, and whether a collection without elements is
    /// left; `None` if nothing changed.
    #[inline]
    pub(super) fn carry_out(
        &mut self,
        space: &Space,
        hash: KeyHash,
        key: &[u8],
        mutation: Mutation<'_>,
        change: Change,
    ) -> Option<(u64, bool)> {
        let sequence = self.next_sequence();
        let leaves_nothing = self.carry_out_as(space, hash, key, sequence, mutation)?;
        self.counters.expired += u64::from(change == Change::Expire);
        Some((sequence, leaves_nothing))
    }

    /// Carries out an effect under the sequence number that it had, and answers whether a collection without elements is left;
    /// `None` if nothing changed.
    #[inline]
    pub(super) fn carry_out_as(
        &mut self,
        space: &Space,
        hash: KeyHash,
        key: &[u8],
        sequence: u64,
        mutation: Mutation<'_>,
    ) -> Option<bool> {
        let applied = mutation::apply(&mut self.table, hash, key, sequence, mutation)?;
        self.follow(space, hash, key, sequence, applied);
        Some(applied.leaves_nothing)
    }

    /// Lets everything beside the table follow an effect that was carried out there.
    #[inline]
    fn follow(&mut self, space: &Space, hash: KeyHash, key: &[u8], sequence: u64, applied: Applied) {
        if applied.before.is_none() && (self.may_be_elsewhere() || self.is_replaying())
            || applied.after.is_none() && self.has_residents()
        {
            self.follow_on_disk(space, key, sequence, applied.after.is_some());
        }
        self.track(hash, applied, space.order_policy());
    }

    /// Lets what is on disk of a key follow its entry, which has just come into the table or left it.
    pub(super) fn follow_on_disk(&mut self, space: &Space, key: &[u8], sequence: u64, is_in_table: bool) {
        if let (Some(cold), Some(id)) = (self.cold_mut(), space.id(key)) {
            let version = space.version(sequence);
            if is_in_table {
                cold.come_in(id, version);
            } else {
                cold.forget(id, version);
            }
        }
    }

    /// Tells the budget, once the memory has moved by more than a little.
    #[inline]
    pub(super) fn report(&mut self, budget: &Budget) {
        let bytes = self.memory_bytes();
        if bytes.abs_diff(self.reported) >= REPORT_STEP {
            budget.report(self.reported, bytes);
            self.reported = bytes;
        }
    }
}
