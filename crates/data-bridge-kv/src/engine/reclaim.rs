//! Giving back space of the tier: which segments are rewritten, and what becomes of the entries in them.

use std::sync::atomic::Ordering::Relaxed;

use super::tier::{HEADROOM, SEGMENTS, Tier, segment_bytes};
use super::{Core, Engine};
use crate::cold::reclaim::{Fate, Holder, Pick};
use crate::cold::{Locator, Log, Spot};
use crate::hash::stable::KeyId;
use crate::settings::Eviction;
use crate::shard::notice::Change;
use crate::shard::{ColdKeys, Space};

/// Space that dead entries may take: half as much as the live ones, beside some segments.
const SPARE_SEGMENTS: u64 = 2;
/// Segments that a tier may have beside twice those that its bytes make, as each opening begins another; so many are put together
/// at once.
const SMALL_SEGMENTS: u64 = 64;
const PUT_TOGETHER: usize = 32;
/// A segment that is rewritten is dead to this share, in percent.
const DEAD_PERCENT: u64 = 20;

impl Engine {
    /// About how many files a store holds open at most that may take so many bytes on disk: of tasks and of caches.
    pub fn files_for(max_disk: u64) -> u64 {
        max_disk / segment_bytes(max_disk) + 2 * SMALL_SEGMENTS
    }
}

impl Core {
    /// Rewrites segments until dead entries take no more than their share. At the limit of space the oldest entries that
    /// may be evicted go.
    pub(super) fn free_space(&self, tier: &Tier, log: &Log, is_full: bool) {
        let (spare, limit) =
            (log.policy().segment_bytes.saturating_mul(SPARE_SEGMENTS), log.policy().max_bytes);
        for _ in 0..SEGMENTS {
            // Room in memory comes first: writers wait for it.
            if !is_full && self.budget.excess() > 0 {
                break;
            }
            let usage = log.usage();
            let full = is_full || usage.bytes > limit.saturating_sub((limit / HEADROOM).max(spare));
            let wasteful =
                usage.bytes > usage.live_bytes.saturating_add(usage.live_bytes / 2).saturating_add(spare);
            let pick = match (wasteful, full) {
                (true, _) => Pick::Deadest(DEAD_PERCENT),
                (false, true) => Pick::Oldest,
                (false, false) => break,
            };
            let freed = self.rewrite(tier, log, pick);
            if freed == 0 || is_full {
                break;
            }
        }
    }

    /// Puts the smallest segments together where there are many: each is a file that is open.
    pub(super) fn put_together(&self, tier: &Tier, log: &Log) {
        let usage = log.usage();
        let large = usage.bytes / log.policy().segment_bytes;
        if (usage.segments as u64) <= large.saturating_mul(2).saturating_add(SMALL_SEGMENTS) {
            return;
        }
        for _ in 0..PUT_TOGETHER {
            if self.rewrite(tier, log, Pick::Smallest) == 0 {
                break;
            }
        }
    }

    /// Rewrites a segment; answers how many bytes that gave back.
    fn rewrite(&self, tier: &Tier, log: &Log, pick: Pick) -> u64 {
        // What was deleted can be given back once its tombstone is written.
        if log.policy().is_durable && self.settle_deletes().is_none() {
            return 0;
        }
        let holder = Shards { core: self, tier, evicts: pick == Pick::Oldest };
        match log.reclaim(&holder, pick) {
            Ok(done) => {
                let done = done.unwrap_or_default();
                tier.figures.reclaimed_bytes.fetch_add(done.freed_bytes, Relaxed);
                tier.figures.moved.fetch_add(done.moved, Relaxed);
                done.freed_bytes
            }
            Err(_) => {
                tier.figures.write_errors.fetch_add(1, Relaxed);
                0
            }
        }
    }
}

/// The shards of all namespaces, as reclaim sees them.
struct Shards<'a> {
    core: &'a Core,
    tier: &'a Tier,
    /// Whether entries that may be evicted go instead of moving.
    evicts: bool,
}

impl Shards<'_> {
    fn space(&self, namespace: u8) -> Option<&Space> {
        self.core.spaces.iter().find(|space| space.number() == namespace)
    }

    /// Asks what the shard of a key knows of it.
    fn ask<R>(&self, namespace: u8, id: KeyId, ask: impl FnOnce(&ColdKeys) -> R) -> Option<R> {
        let space = self.space(namespace)?;
        space.lock(space.shard_of(id.hash())).cold().map(ask)
    }
}

impl Holder for Shards<'_> {
    fn judge(&self, namespace: u8, id: KeyId, at: Locator) -> Fate {
        let found = |cold: &ColdKeys| (cold.points_at(id, at), cold.get(id));
        let (Some((true, spot)), Some(space)) = (self.ask(namespace, id, found), self.space(namespace))
        else {
            return Fate::Dead;
        };
        let policy: Eviction = space.settings().eviction;
        let may_go = |spot: &Spot| !spot.is_touched && policy.admits(spot.deadline.is_some());
        if self.evicts && spot.as_ref().is_some_and(may_go) {
            self.core.remove_cold(self.tier, space, id, at, Change::Evict);
            return Fate::Dead;
        }
        Fate::Moves
    }

    fn knows(&self, namespace: u8, id: KeyId) -> bool {
        self.ask(namespace, id, |cold| cold.knows(id)) == Some(true)
    }

    fn relocate(&self, namespace: u8, id: KeyId, from: Locator, to: Locator) -> bool {
        let Some(space) = self.space(namespace) else { return false };
        let _moves = self.tier.moves.write();
        let mut shard = space.lock(space.shard_of(id.hash()));
        shard.cold_mut().is_some_and(|cold| cold.relocate(id, from, to))
    }
}
