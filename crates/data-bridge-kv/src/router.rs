//! Which shards a step needs, locked in ascending order so that no two steps can wait for each other.

use data_bridge_kv_model::{Call, KeySet};

use crate::shard::Space;
use crate::shard::txn::Guards;

/// Locks the shards of a command's keys.
pub fn lock_keys<'a>(space: &'a Space, keys: KeySet<'_>) -> Guards<'a> {
    let mut indexes = Vec::new();
    keys.for_each(|key| indexes.push(space.shard_of(space.hash(key.as_bytes()))));
    lock_many(space, indexes)
}

/// Locks the shards of all these commands together, and of the `watched` keys.
pub fn lock_calls<'a>(
    space: &'a Space,
    calls: &[Call<'_>],
    watched: impl Iterator<Item = usize>,
) -> Guards<'a> {
    let mut indexes: Vec<usize> = watched.collect();
    for call in calls {
        call.command.keys().for_each(|key| indexes.push(space.shard_of(space.hash(key.as_bytes()))));
    }
    lock_many(space, indexes)
}

/// Locks one shard.
#[inline]
pub fn lock_one(space: &Space, index: usize) -> Guards<'_> {
    Guards::One(space.lock(index))
}

/// Locks every shard.
pub fn lock_all(space: &Space) -> Guards<'_> {
    Guards::Many((0..space.shard_count()).map(|index| (index, space.lock(index))).collect())
}

fn lock_many(space: &Space, mut indexes: Vec<usize>) -> Guards<'_> {
    indexes.sort_unstable();
    indexes.dedup();
    match indexes.as_slice() {
        [index] => lock_one(space, *index),
        _ => Guards::Many(indexes.into_iter().map(|index| (index, space.lock(index))).collect()),
    }
}
