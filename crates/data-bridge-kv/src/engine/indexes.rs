//! The indexes of shards that come from disk after opening: whoever needs a shard first loads it, the rest is loaded in the
//! background. A shard is locked by nobody meanwhile, and once its index is there it stays.
//!
//! What looks for keys that are not in the table asks [`Core::need_index`] before it locks. Reads and writes of entries in the
//! table go on without. Whoever writes the tier needs all.

use std::sync::atomic::Ordering::Relaxed;

use data_bridge_kv_model::{Key, Result};

use super::open::refused;
use super::tier::Tier;
use super::{Core, Step, Waits};
use crate::cold::Index;
use crate::hash::KeyHash;
use crate::shard::txn::Departures;
use crate::shard::{Shard, Space};
use crate::sync::MutexGuard;

impl Core {
    /// Sees to it that a shard has its index; blocks as the caller does.
    pub(super) fn need_index(&self, space: &Space, shard: usize, waits: Waits) -> Step<()> {
        if !space.lacks_indexes() || !space.lock(shard).lacks_index() {
            return Ok(());
        }
        let Some(tier) = &self.tier else { return Ok(()) };
        Ok(tier.block(waits, || self.load_index(tier, space.number(), shard))??)
    }

    /// The same for the shards of these keys.
    pub(super) fn need_indexes(
        &self,
        space: &Space,
        waits: Waits,
        keys: impl FnOnce(&mut dyn FnMut(Key<'_>)),
    ) -> Step<()> {
        let mut shards = Vec::new();
        if space.lacks_indexes() {
            keys(&mut |key| shards.push(space.shard_of(space.hash(key.as_bytes()))));
        }
        shards.into_iter().try_for_each(|shard| self.need_index(space, shard, waits))
    }

    /// The same for a namespace.
    pub(super) fn need_all_indexes(&self, space: &Space, waits: Waits) -> Step<()> {
        let Some(tier) = self.tier.as_ref().filter(|_| space.lacks_indexes()) else { return Ok(()) };
        let load = || {
            let (log, number) = (tier.task_log(), space.number());
            // First those that nobody loads; the others are there soon.
            while let Some((_, shard)) = log.next_part(Some(number)) {
                self.load_index(tier, number, shard)?;
            }
            (0..space.shard_count()).try_for_each(|shard| self.load_index(tier, number, shard))
        };
        Ok(tier.block(waits, load)??)
    }

    /// The same for the shard of this hash, which is locked, and in the end is again.
    #[inline]
    pub(super) fn with_index<'a>(
        &self,
        space: &'a Space,
        hash: KeyHash,
        shard: MutexGuard<'a, Shard>,
        waits: Waits,
    ) -> Step<MutexGuard<'a, Shard>> {
        if !shard.lacks_index() {
            return Ok(shard);
        }
        drop(shard);
        let index = space.shard_of(hash);
        self.need_index(space, index, waits)?;
        Ok(space.lock(index))
    }

    fn load_index(&self, tier: &Tier, namespace: u8, shard: usize) -> Result<()> {
        let loaded = tier.task_log().load(namespace, shard, &mut |namespace, shard, index| {
            self.put_index(namespace, shard, index);
        });
        if loaded.is_err() {
            tier.figures.read_errors.fetch_add(1, Relaxed);
        }
        loaded.map_err(|error| refused(&error))
    }

    /// The index of a shard is there. One of a namespace that is not is of no use.
    pub(super) fn put_index(&self, namespace: u8, shard: usize, index: Index) {
        if let Some(space) = self.spaces.get(usize::from(namespace)) {
            space.put_index(shard, index);
        }
    }

    /// Loads what is left, in the background; answers whether nothing is.
    pub(super) fn load_rest(&self, tier: &Tier) -> bool {
        if !tier.is_due(&tier.is_unread) {
            return false;
        }
        let is_loaded = self.load_indexes(tier, || !self.closed.load(Relaxed));
        tier.is_unread.store(!is_loaded, Relaxed);
        is_loaded
    }

    /// Loads what is left, as long as `goes_on` says; answers whether nothing is. Where the disk fails it can be tried again.
    fn load_indexes(&self, tier: &Tier, goes_on: impl Fn() -> bool) -> bool {
        let log = tier.task_log();
        loop {
            while let Some((namespace, shard)) = log.next_part(None) {
                if !goes_on() || self.load_index(tier, namespace, shard).is_err() {
                    return false;
                }
            }
            if log.await_parts() {
                return true;
            }
        }
    }

    /// What whoever writes to the tier holds; `None` once the directory belongs to others, and while what is there is not known,
    /// since the disk fails.
    pub(super) fn lock_work<'t>(&self, tier: &'t Tier) -> Option<MutexGuard<'t, Departures>> {
        if !self.load_indexes(tier, || true) {
            return None;
        }
        tier.lock_work()
    }
}
