//! The record of a step: its effects in the order in which they were carried out, and how they are carried out again.

use data_bridge_kv_model::{Key, Result};

use super::{Guards, Place, Txn};
use crate::mutation::bytes::EFFECT_BYTES;
use crate::mutation::{Mutation, bytes};
use crate::table::EntryRef;

impl Txn<'_> {
    /// Adds an effect that is about to be carried out to the step's record; answers how long that was before.
    pub(super) fn log(&mut self, place: Place<'_>, mutation: &Mutation<'_>) -> usize {
        if self.effects.capacity() == 0 {
            self.effects = self.shard(place.hash).lend_scratch();
        }
        let version = self.space.version(self.shard(place.hash).upcoming());
        let before = self.effects.len();
        self.removes |= matches!(mutation, Mutation::Delete);
        bytes::encode(place.key.as_bytes(), version, mutation, &mut self.effects);
        before
    }

    /// Bytes of the step's record so far.
    pub fn record_bytes(&self) -> usize {
        self.effects.len()
    }

    /// Refuses what would make the step's record so many bytes longer, where that is too long; to be called before anything of
    /// it is done.
    #[inline]
    pub fn check_record(&self, more: usize) -> Result<()> {
        self.space.check_record(self.effects.len().saturating_add(more))
    }

    /// The same for so many effects on a key, on elements of so many bytes together.
    pub fn check_effects(&self, key: Key<'_>, effects: usize, bytes: usize) -> Result<()> {
        self.check_record(effects.saturating_mul(key.as_bytes().len() + EFFECT_BYTES).saturating_add(bytes))
    }

    /// Takes an effect back that changed nothing.
    pub(super) fn unlog(&mut self, before: Option<usize>) {
        if let Some(before) = before {
            self.effects.truncate(before);
        }
    }

    /// Appends the step's record, if there is one, while every shard that it changed is locked.
    pub(super) fn append(&mut self) {
        let effects = std::mem::take(&mut self.effects);
        if !effects.is_empty() {
            self.append_record(&effects);
        }
        match &mut self.guards {
            Guards::One(shard) => shard.take_scratch(effects),
            Guards::Many(shards) => {
                if let Some((_, shard)) = shards.first_mut() {
                    shard.take_scratch(effects);
                }
            }
            Guards::Copy(_) => {}
        }
    }

    fn append_record(&mut self, effects: &[u8]) {
        let (space, removes) = (self.space, self.removes);
        let (Some(lsn), Some(wal)) = (space.append(effects), space.awaited()) else { return };
        let durable = wal.durable();
        match &mut self.guards {
            Guards::One(shard) => shard.note(lsn, removes, durable),
            Guards::Many(shards) => {
                shards.iter_mut().for_each(|(_, shard)| shard.note(lsn, removes, durable));
            }
            Guards::Copy(_) => {}
        }
        self.rests_on = self.rests_on.max(lsn);
    }

    /// Carries out an effect of the log, unless the entry has it already. The key is in memory, or its value does not matter; then
    /// the index of its shard may be absent.
    pub fn replay(&mut self, place: Place<'_>, sequence: u64, mutation: Mutation<'_>) {
        self.changed = true;
        if !self.shard(place.hash).lacks_index() {
            self.warm(place, false);
        }
        if let Some(cold) = self.shard(place.hash).cold_mut() {
            cold.note_replay(sequence);
        }
        let (space, key) = (self.space, place.key.as_bytes());
        let shard = self.shard(place.hash);
        let known = shard.table.find(place.hash, key).map(EntryRef::sequence);
        if known.is_some_and(|known| known >= sequence) {
            return;
        }
        if matches!(mutation, Mutation::Delete) && known.is_none() {
            return shard.follow_on_disk(space, key, sequence, false);
        }
        shard.carry_out_as(space, place.hash, key, sequence, mutation);
    }
}
