//! The short way for callers in this process: a read and a write of one value without building a command, where
//! nothing stands in the way. Whatever does (a lock that somebody holds, a closed store, a spent budget, a value too
//! large for a locked shard) is left to [`Engine::execute`].

use std::sync::atomic::Ordering;

use data_bridge_kv_model::command::Expiry;
use data_bridge_kv_model::limits::LOCKED_ENCODE_BYTES;
use data_bridge_kv_model::{Key, ValueRef};

use super::{Caller, Core, Engine};
use crate::hash::KeyHash;
use crate::mutation::bytes::EFFECT_BYTES;
use crate::shard::Space;
use crate::shard::exec::new_value;
use crate::shard::exec::scalar::{deadline_at, is_from_now};
use crate::table::{EntryRef, Stored};
use crate::wal::Promise;

/// Why a value does not go the short way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Somebody holds the shard's lock: executing the command waits for a moment.
    Locked,
    /// It takes more than the short way knows.
    Unusual,
}

impl Engine {
    /// Hands the value of a key to `use_it` (`None` where there is none), while its shard is locked: copy it or share
    /// it, and do nothing else. With an obstacle nothing was called, and the command is to be executed instead.
    ///
    /// ```
    /// use data_bridge_kv::{Engine, Settings};
    /// use data_bridge_kv_model::{Key, ValueRef, command::Expiry};
    /// let engine = Engine::open(Settings::default())?;
    /// let (caller, key) = (engine.caller(), Key::new(b"answer")?);
    /// assert_eq!(engine.try_write(&caller, key, ValueRef::text("42"), Expiry::In(60_000)), Ok(()));
    /// let length = engine.try_read(&caller, key, |value| value.and_then(|value| Some(value.payload()?.len())));
    /// assert_eq!(length, Ok(Some(2)));
    /// # Ok::<(), data_bridge_kv_model::Error>(())
    /// ```
    #[inline]
    pub fn try_read<R>(
        &self,
        caller: &Caller,
        key: Key<'_>,
        use_it: impl FnOnce(Option<Stored<'_>>) -> R,
    ) -> Result<R, Obstacle> {
        let core = &*self.core;
        let (space, hash) = core.find(caller, key)?;
        let mut shard = space.try_lock(space.shard_of(hash)).ok_or(Obstacle::Locked)?;
        let use_entry = |entry: Option<EntryRef<'_>>| Some(use_it(entry.map(EntryRef::value)));
        shard.read(space, hash, key.as_bytes(), || core.clock.unix_ms(), use_entry).ok_or(Obstacle::Unusual)
    }

    /// Writes a value, as a plain SET with this expiry does. With an obstacle nothing was done, and the command is to be
    /// executed instead.
    #[inline]
    pub fn try_write(
        &self,
        caller: &Caller,
        key: Key<'_>,
        value: ValueRef<'_>,
        expiry: Expiry,
    ) -> Result<(), Obstacle> {
        let core = &*self.core;
        if core.budget.is_near() || value.payload().len() > LOCKED_ENCODE_BYTES {
            return Err(Obstacle::Unusual);
        }
        let (space, hash) = core.find(caller, key)?;
        if !is_from_now(expiry) {
            return Err(Obstacle::Unusual);
        }
        let _room = core.room_to_put(space, key, value)?;
        let deadline = deadline_at(space.settings(), expiry, None, || core.clock.unix_ms());
        let value = new_value(value).map_err(|_| Obstacle::Unusual)?;
        let mut shard = space.try_lock(space.shard_of(hash)).ok_or(Obstacle::Locked)?;
        shard.write(space, hash, key.as_bytes(), value, deadline).map(drop).ok_or(Obstacle::Unusual)
    }
}

impl Core {
    /// Room in the log for a plain write, where the namespace has one and nobody waits for it.
    #[inline]
    pub(super) fn room_to_put(
        &self,
        space: &Space,
        key: Key<'_>,
        value: ValueRef<'_>,
    ) -> Result<Option<Promise<'_>>, Obstacle> {
        let bytes = key.as_bytes().len() + value.payload().len() + EFFECT_BYTES;
        let room = space.is_logged().then(|| self.may_log(space, bytes).ok_or(Obstacle::Unusual));
        room.transpose()
    }

    /// The namespace and the hash of a key, unless the store is closed.
    #[inline]
    fn find(&self, caller: &Caller, key: Key<'_>) -> Result<(&Space, KeyHash), Obstacle> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Obstacle::Unusual);
        }
        let space = self.space(caller.namespace);
        Ok((space, space.hash(key.as_bytes())))
    }
}
