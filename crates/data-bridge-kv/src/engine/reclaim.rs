//! Giving space on disk back: what has expired or is dead goes, and at the limit of space what caches may lose.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::tier::{HEADROOM, SEGMENTS, Tier, segment_bytes};
use super::{Core, Engine, Waits};
use crate::cold::reclaim::{Fate, Holder, Pick, Reclaimed};
use crate::cold::{Class, Locator, Log, Policy, Spot};
use crate::hash::stable::KeyId;
use crate::settings::Eviction;
use crate::shard::notice::Change;
use crate::shard::{ColdKeys, Space};

/// Space that a log may take for its live entries, in percent, before segments are rewritten: what dies and comes in until that is
/// done has the rest of one and a half. So much may always be there.
const SPACE_PERCENT: u64 = 140;
const LEAST_SPACE: u64 = 2 << 20;
/// Segments that are to be free below the limit of space.
const SPARE_SEGMENTS: u64 = 2;
/// Segments that a tier may have beside twice those that its bytes make, as each opening begins another; so many are put together
/// at once.
const SMALL_SEGMENTS: u64 = 64;
const PUT_TOGETHER: usize = 32;
/// A segment that is rewritten is dead to this share, in percent; at the limit of space to the other one.
const DEAD_PERCENT: u64 = 20;
const DEAD_PERCENT_FULL: u64 = 5;
/// A segment of a cache was rewritten in vain if it gave back less than this part of it: one in so many.
const GAIN: u64 = 8;
/// How often a cache's whole log may be rewritten in vain, and how much of it for each byte that comes in: where less than one
/// in so many may be evicted, writes are refused.
const VAIN_ROUNDS: u64 = 2;
const VAIN_FOR_ONE: u64 = 64;
/// Pages of an index that are searched for expired keys at once.
const SWEEP_PAGES: usize = 1024;
/// Deleted keys whose records wait to be buried until that is done without another reason: as many as take this share of the
/// memory budget (one in so many), within bounds.
const GRAVES_SHARE: u64 = 64;
const GRAVES: (u64, u64) = (1 << 10, 1 << 16);
/// Bytes that one takes.
const GRAVE_BYTES: u64 = 100;

/// Bytes of a cache's log that were rewritten so that some of it could be evicted, and could not: of those that may not go
/// there could be nothing else.
#[derive(Default)]
pub(super) struct Vain(AtomicU64);

impl Vain {
    /// Some bytes came in, of which some may be evicted.
    pub(super) fn came_in(&self, bytes: usize) {
        let less = VAIN_FOR_ONE.saturating_mul(bytes as u64);
        let _ = self.0.fetch_update(Relaxed, Relaxed, |vain| Some(vain.saturating_sub(less)));
    }

    fn moved(&self, bytes: u64) {
        self.0.fetch_add(bytes, Relaxed);
    }

    fn is_too_much(&self, of: u64) -> bool {
        self.0.load(Relaxed) > of.saturating_mul(VAIN_ROUNDS)
    }
}

impl Engine {
    /// About how many files a store holds open at most that may take so many bytes on disk: of tasks and of caches.
    pub fn files_for(max_disk: u64) -> u64 {
        max_disk / segment_bytes(max_disk) + 2 * SMALL_SEGMENTS
    }
}

/// Whether little is left below the limit of space.
fn is_nearly_full(log: &Log) -> bool {
    let Policy { segment_bytes, max_bytes: limit, .. } = log.policy();
    let spare = segment_bytes.saturating_mul(SPARE_SEGMENTS);
    log.taken() > limit.saturating_sub((limit / HEADROOM).max(spare))
}

impl Core {
    /// Background work on the logs.
    pub(super) fn clear_up(&self, tier: &Tier) {
        if tier.is_full.load(Relaxed) || is_nearly_full(tier.task_log()) {
            self.widen(tier);
        }
        let mut doomed = self.bury_many(tier);
        for log in tier.logs() {
            // The lock keeps reclaim and demotion apart: a log has one writer.
            if let Some(_work) = self.lock_work(tier) {
                // What has expired goes with its segment.
                match log.drop_dead() {
                    Ok(bytes) => tier.figures.reclaimed_bytes.fetch_add(bytes, Relaxed),
                    Err(_) => tier.figures.write_errors.fetch_add(1, Relaxed),
                };
                self.free_space(tier, log, &mut doomed);
                self.put_together(tier, log);
            }
        }
    }

    /// Buries what was deleted or has expired, once it is much: until then it takes memory, and its space counts as live. Answers
    /// about how much space what still waits takes.
    fn bury_many(&self, tier: &Tier) -> u64 {
        let log = tier.task_log();
        let (least, most) = GRAVES;
        let many = (self.budget.limit() / GRAVES_SHARE / GRAVE_BYTES).clamp(least, most) as usize;
        let (mut waiting, mut records) = (0, 0);
        for (space, index) in self.logged_shards() {
            if let Some(cold) = space.lock(index).cold() {
                waiting += cold.graves();
                records += cold.records();
            }
        }
        if waiting < many && !log.has_graves(many) {
            let share = log.usage().live_bytes.saturating_mul(waiting as u64);
            return share.checked_div(records as u64).unwrap_or(0);
        }
        let Some(_work) = self.lock_work(tier) else { return 0 };
        if self.settle_deletes().is_some() && self.sync_log().is_some() && log.bury().is_err() {
            tier.figures.write_errors.fetch_add(1, Relaxed);
        }
        0
    }

    /// Rewrites segments until dead entries take no more than their share, and there is space for what comes in.
    fn free_space(&self, tier: &Tier, log: &Log, doomed: &mut u64) {
        for _ in 0..SEGMENTS {
            // Room in memory comes first: writers wait for it.
            if self.budget.excess() > 0 || self.free_some(tier, log, false, doomed).is_none() {
                break;
            }
        }
    }

    /// Raises the limit of space, if there is more space by now; whether it is higher.
    fn widen(&self, tier: &Tier) -> bool {
        let log = self.wal.get().map_or(0, |wal| wal.bytes());
        tier.widen(tier.task_log().taken().saturating_add(log))
    }

    /// Makes some space where there is none: what caches may lose goes first.
    pub(super) fn free_full(&self, tier: &Tier) {
        if self.widen(tier) {
            return;
        }
        let gains = |log: &&_| self.free_some(tier, log, true, &mut 0).is_some_and(|gained| gained > 0);
        let _ = tier.logs().iter().find(|log| gains(&&***log));
    }

    /// Rewrites one segment, if that is due and of use; answers the bytes that were gained. At the limit of space the oldest
    /// entries of caches go, if they may. `doomed` is the space of what will be buried before a segment of tasks is rewritten.
    fn free_some(&self, tier: &Tier, log: &Log, is_full: bool, doomed: &mut u64) -> Option<u64> {
        let (usage, policy) = (log.usage(), log.policy());
        let doomed = if policy.is_durable { std::mem::take(doomed) } else { 0 };
        let full = is_full || is_nearly_full(log);
        let live = usage.live_bytes.saturating_sub(doomed);
        let wasteful = usage.bytes > (live.saturating_mul(SPACE_PERCENT) / 100).max(LEAST_SPACE);
        let evicts = full && policy.class == Class::Cache && !tier.vain.is_too_much(usage.bytes);
        let picks = [
            wasteful.then_some(Pick::Deadest(DEAD_PERCENT)),
            evicts.then_some(Pick::Oldest),
            full.then_some(Pick::Deadest(DEAD_PERCENT_FULL)),
        ];
        for pick in picks.into_iter().flatten() {
            if let Some(done) = self.rewrite(tier, log, pick)? {
                let gained = done.freed_bytes.saturating_sub(done.moved_bytes);
                if pick == Pick::Oldest && gained < done.freed_bytes / GAIN {
                    tier.vain.moved(done.moved_bytes);
                }
                return (done.freed_bytes > 0).then_some(gained);
            }
        }
        None
    }

    /// Puts the smallest segments together where there are many: each is a file that is open.
    fn put_together(&self, tier: &Tier, log: &Log) {
        let usage = log.usage();
        let large = usage.bytes / log.policy().segment_bytes;
        if (usage.segments as u64) <= large.saturating_mul(2).saturating_add(SMALL_SEGMENTS) {
            return;
        }
        for _ in 0..PUT_TOGETHER {
            let done = self.rewrite(tier, log, Pick::Smallest).flatten();
            if done.is_none_or(|done| done.freed_bytes == 0) {
                break;
            }
        }
    }

    /// Rewrites a segment, if there is such a one; `None` if nothing can be written now.
    fn rewrite(&self, tier: &Tier, log: &Log, pick: Pick) -> Option<Option<Reclaimed>> {
        // What was deleted can be given back once its tombstone is written.
        if log.policy().is_durable && (self.settle_deletes().is_none() || log.bury().is_err()) {
            return None;
        }
        let holder = Shards { core: self, tier, evicts: pick == Pick::Oldest };
        match log.reclaim(&holder, pick) {
            Ok(done) => {
                let told = done.unwrap_or_default();
                tier.figures.reclaimed_bytes.fetch_add(told.freed_bytes, Relaxed);
                tier.figures.moved.fetch_add(told.moved, Relaxed);
                Some(done)
            }
            Err(_) => {
                tier.figures.write_errors.fetch_add(1, Relaxed);
                None
            }
        }
    }

    /// Removes cold keys whose deadline has passed.
    pub(super) fn expire_cold(&self, tier: &Tier) {
        for space in self.spaces.iter().filter(|space| space.is_touched()) {
            for index in 0..space.shard_count() {
                let mut found = Vec::new();
                let now = self.clock.unix_ms();
                if let Some(cold) = space.lock(index).cold_mut() {
                    cold.expired(now, SWEEP_PAGES, &mut found);
                }
                for (id, spot) in found {
                    self.remove_cold(tier, space, id, spot.locator, Change::Expire);
                }
            }
        }
    }

    /// Removes a cold key that is still at this place. Its name is read only if somebody is told of it.
    fn remove_cold(&self, tier: &Tier, space: &Space, id: KeyId, at: Locator, change: Change) {
        let mut txn = self.begin_at(space, space.shard_of(id.hash()));
        let is_there = |spot: Spot| spot.locator == at;
        if !txn.is_listened_to(id.hash()) {
            if txn.spot_of(id).is_some_and(is_there) {
                txn.forget_id(id, change);
            }
            return txn.finish().send();
        }
        let wanted = txn.spot_of(id).filter(|spot| is_there(*spot)).and_then(|spot| txn.name_of(id, spot));
        txn.finish().send();
        // Where the disk fails it is tried again later.
        let Ok(named) = tier.names(space, wanted.into_iter().collect(), Waits::Alone) else { return };
        let mut txn = self.begin_at(space, space.shard_of(id.hash()));
        match named.first() {
            Some(named) => txn.remove_named(named, change),
            // A damaged record has no name to tell.
            None if txn.spot_of(id).is_some_and(is_there) => drop(txn.forget_id(id, change)),
            None => {}
        }
        txn.finish().send();
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
