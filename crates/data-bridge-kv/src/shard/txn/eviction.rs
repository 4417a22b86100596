//! Entries that leave a shard's table because memory is short: deleted, or to the cold tier.

use data_bridge_kv_model::Key;

use super::{Departures, Place, Txn};
use crate::evict::{Residents, Verdict, Victim, Visit};
use crate::shard::notice::Change;

impl Txn<'_> {
    /// Evicts an entry of the one locked shard, if the next in order may go; answers the bytes freed.
    pub fn evict(&mut self, victim: Victim) -> usize {
        self.evict_into(victim, None)
    }

    /// The same, to a batch where there is one.
    pub(super) fn evict_into(&mut self, victim: Victim, departures: Option<&mut Departures>) -> usize {
        let is_deleted = departures.is_none();
        let Some(shard) = self.only_shard() else { return 0 };
        let Some(mut order) = shard.order.take() else { return 0 };
        let freed = order.evict(victim.queue, &mut Evicting { txn: self, departures });
        if let Some(shard) = self.only_shard() {
            shard.order = Some(order);
            shard.counters.evicted += u64::from(is_deleted && freed > 0);
            if !is_deleted || shard.counters.evicted.is_multiple_of(64) {
                shard.count_side();
            }
        }
        freed
    }
}

/// A shard's table as eviction sees it.
struct Evicting<'t, 'a> {
    txn: &'t mut Txn<'a>,
    /// Where entries go that are not deleted.
    departures: Option<&'t mut Departures>,
}

impl Residents for Evicting<'_, '_> {
    fn visit(&mut self, reference: u32, judge: impl FnOnce(u8) -> Verdict) -> Visit {
        let (policy, deleted) = (self.txn.space.order_policy(), self.txn.space.settings().eviction);
        let Some(shard) = self.txn.only_shard() else { return Visit::Gone };
        let mut entries = shard.table.at_position(reference);
        let found = entries.find(|(_, entry)| policy.admits(entry.deadline().is_some()));
        let Some((hash, key, heat, may_go)) = found.map(|(hash, entry)| {
            let may_go = deleted.admits(entry.deadline().is_some());
            (hash, Box::<[u8]>::from(entry.key()), entry.heat(), may_go)
        }) else {
            return Visit::Gone;
        };
        drop(entries);
        let Ok(key) = Key::new(&key) else { return Visit::Gone };
        match judge(heat) {
            Verdict::Keep { heat } => {
                if let Some(mut entry) = shard.table.find_mut(hash, key.as_bytes()) {
                    entry.set_heat(heat);
                }
                Visit::Kept
            }
            Verdict::Evict => {
                if let Some(departures) = &mut self.departures {
                    let departed = self.txn.depart(hash, key, departures);
                    return departed.map_or(Visit::Kept, |bytes| Visit::Evicted { bytes });
                }
                if !may_go {
                    return Visit::Kept;
                }
                let before = shard.table.memory_bytes();
                self.txn.remove(Place { key, hash }, Change::Evict);
                let after = self.txn.only_shard().map_or(0, |shard| shard.table.memory_bytes());
                Visit::Evicted { bytes: before.saturating_sub(after).max(1) }
            }
        }
    }
}
