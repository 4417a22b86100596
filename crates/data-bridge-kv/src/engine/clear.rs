//! Emptying namespaces: one step on all their shards, and one record of the log, so that a crash takes back all of it or
//! nothing.

use super::{Caller, Core, Halt, Step, Waits};
use crate::mutation::clear::{self, Cleared};
use crate::router::lock_all;
use crate::shard::notice::Notices;
use crate::shard::txn::Removed;
use crate::shard::{Space, Txn};
use crate::wal::{Lsn, Promise};
use data_bridge_kv_model::{Error, ErrorKind, Result};

/// Names that are read in one go.
const NAMED_AT_ONCE: usize = 256;

impl Core {
    /// Removes every key of these namespaces, in ascending order; answers how many that were.
    pub(super) fn clear(&self, caller: &Caller, spaces: &[&Space]) -> Step<usize> {
        let touched: Vec<&Space> = spaces.iter().copied().filter(|space| space.is_touched()).collect();
        touched.iter().try_for_each(|space| self.need_all_indexes(space, caller.waits))?;
        let _room = self.room_to_clear(&touched, caller.waits)?;
        let begun = touched.iter().map(|space| self.begin(space, lock_all(space)));
        let mut txns: Vec<Txn<'_>> = begun.collect();
        txns.retain_mut(Txn::has_keys);
        let lsn = append(&mut txns);
        let cleared = txns.iter_mut().map(|txn| (txn.space(), txn.clear(lsn)));
        let cleared: Vec<(&Space, Vec<Removed>)> = cleared.collect();
        let notices: Vec<Notices> = txns.into_iter().map(Txn::finish).collect();
        notices.into_iter().for_each(|notices| caller.send(notices));
        let mut count = 0;
        for (space, shards) in cleared {
            for mut removed in shards {
                count += removed.live();
                self.tell_of_prefixes(space, &mut removed, lsn, caller.waits);
                removed.discard();
            }
        }
        Ok(count)
    }

    fn room_to_clear(&self, spaces: &[&Space], waits: Waits) -> Step<Option<Promise<'_>>> {
        let logged = spaces.iter().filter(|space| space.is_logged());
        let bytes = logged.map(|space| clear::most_bytes(space.shard_count())).sum();
        let wal = self.wal.get().filter(|_| bytes > 0);
        wal.map(|wal| self.reserve(wal, waits, true, bytes)).transpose()
    }

    /// Sends those who watch prefixes what was removed. A name that can't be read is nobody's any more.
    fn tell_of_prefixes(&self, space: &Space, removed: &mut Removed, lsn: Lsn, waits: Waits) {
        if !space.has_prefix_watchers() {
            return;
        }
        let mut notices = Notices::default();
        removed.notice(space, &mut notices);
        // What was done can't be undone: who never waits does so here.
        let waits = if waits == Waits::Never { Waits::Here } else { waits };
        let mut unnamed = removed.take_unnamed();
        while let (Some(tier), false) = (&self.tier, unnamed.is_empty()) {
            let rest = unnamed.split_off(NAMED_AT_ONCE.min(unnamed.len()));
            if let Ok(named) = tier.names(space, std::mem::replace(&mut unnamed, rest), waits) {
                removed.notice_named(space, &named, &mut notices);
            }
        }
        if let Some(wal) = space.awaited().filter(|_| lsn > 0) {
            notices.rest_on(lsn, Some(wal));
        }
        notices.send();
    }

    /// Carries out a clear that the log has.
    pub(super) fn replay_clear(&self, payload: &[u8]) -> Result<()> {
        for Cleared { namespace, versions } in clear::decode(payload)? {
            let space = self.spaces.get(usize::from(namespace));
            let is_ours = |space: &&Space| versions.len() == space.shard_count();
            let space = space.filter(is_ours).ok_or_else(foreign)?;
            self.need_all_indexes(space, Waits::Alone).map_err(Halt::into_error)?;
            for (index, version) in versions.into_iter().enumerate() {
                let mut txn = self.begin_at(space, index);
                txn.replay_clear(space.sequence_of(version));
                txn.finish().send();
            }
        }
        Ok(())
    }
}

fn foreign() -> Error {
    Error::new(ErrorKind::Corruption, "a clear in the log is of another namespace or number of shards")
}

/// Appends the one record of a clear, while all shards are locked; 0 = nothing of it is logged.
fn append(txns: &mut [Txn<'_>]) -> Lsn {
    let mut payload = Vec::new();
    let logged = txns.iter_mut().filter(|txn| txn.space().wal().is_some());
    let spaces: Vec<&Space> = logged
        .map(|txn| {
            clear::encode(&txn.upcoming_clear(), &mut payload);
            txn.space()
        })
        .collect();
    let Some((first, others)) = spaces.split_first() else { return 0 };
    let is_awaited = spaces.iter().any(|space| space.awaited().is_some());
    let lsn = first.append_clear(&payload, is_awaited).unwrap_or(0);
    others.iter().for_each(|space| space.note_record(lsn));
    lsn
}
