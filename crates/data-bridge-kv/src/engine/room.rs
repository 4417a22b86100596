//! Making room: when the budget is full, entries of namespaces that evict go, in the order of their policy.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use data_bridge_kv_model::{Error, ErrorKind};

use super::tier::{HEADROOM, Tier};
use super::{Core, NamespaceId, Step, Waits};
use crate::clock::Stopwatch;
use crate::settings::Eviction;
use crate::shard::Space;

/// Entries evicted at most before a single write goes on, within the slack: a write pays for its own share.
const EVICT_AT_ONCE: usize = 64;
/// Entries evicted at most when the process is found to take too much.
const EVICT_A_LOOK: usize = 4096;
/// Entries that one write takes into the eviction orders while these are built.
pub(super) const ORDER_AT_ONCE: usize = 256;
/// Excess that a burst may leave for the writes after it, as a share of the limit (one in 32). Beyond it a write evicts
/// on until it is back: the memory of a fresh order, or a limit that was lowered, is no reason to refuse.
const SLACK: u64 = 32;

impl Core {
    /// Evicts until the budget holds again, as far as one write may be held up; refuses the write when nothing may go
    /// and the limit is passed.
    pub(super) fn make_room(&self, namespace: NamespaceId, waits: Waits) -> Step<()> {
        if self.tier.is_some() && (self.budget.excess() == 0 || self.demote_excess(namespace, waits)?) {
            return Ok(());
        }
        let evicting = |space: &&Space| space.is_touched() && space.settings().eviction != Eviction::None;
        let own = self.space(namespace);
        let extend_orders = || {
            // Each gets its share, also behind one that is not done.
            let unfinished =
                self.spaces.iter().filter(evicting).filter(|space| !space.extend_orders(ORDER_AT_ONCE));
            unfinished.count() == 0
        };
        let mut is_ordered = extend_orders();
        let slack = self.budget.target() / SLACK;
        let (mut evicted, mut tried, mut stuck) = (0, 0, 0);
        while self.budget.excess() > if tried < EVICT_AT_ONCE { 0 } else { slack } {
            let others = self.spaces.iter().filter(|space| !std::ptr::eq(*space, own));
            let mut candidates = std::iter::once(own).chain(others).filter(evicting);
            let freed = candidates.find_map(|space| self.evict_one(space));
            match freed {
                Some(true) => (evicted, tried, stuck) = (evicted + 1, tried + 1, 0),
                Some(false) if stuck < 1024 => stuck += 1,
                Some(false) | None if is_ordered => break,
                // Those who may go are perhaps not in the orders yet.
                Some(false) | None => {
                    is_ordered = extend_orders();
                    tried += 1;
                }
            }
        }
        if self.budget.excess() > slack || self.budget.excess() > 0 && evicted == 0 && is_ordered {
            let message = "command not allowed when used memory > 'maxmemory'";
            let spent = self.tier.as_ref().and_then(Tier::spent);
            return Err(spent.unwrap_or_else(|| Error::new(ErrorKind::OutOfMemory, message)).into());
        }
        Ok(())
    }

    /// Makes room by letting entries leave memory, as far as one write may be held up. Answers false if nothing left. Where
    /// there is a thread for it, the writer waits for that.
    pub(super) fn demote_excess(&self, own: NamespaceId, waits: Waits) -> Step<bool> {
        let Some(tier) = &self.tier else { return Ok(false) };
        tier.stall(waits, || {
            if tier.held.is_begun() {
                let is_closed = || self.closed.load(Relaxed);
                return tier.held.wait(own, is_closed, || self.budget.excess() == 0);
            }
            // A batch costs a sync, however little is in it.
            let more = self.budget.target() / HEADROOM;
            while self.budget.excess() > 0 {
                if self.demote_batch(tier, Some(own), self.budget.excess() + more, 0) == 0 {
                    return false;
                }
            }
            true
        })
    }

    /// Lets writers that are held look whether they may go on.
    pub(super) fn look_at_held(&self) {
        if let Some(tier) = &self.tier {
            tier.held.look(self.budget.excess() == 0);
        }
    }

    /// Tells somebody once there is room for writers, or none can be made.
    pub(super) fn when_room(&self, then: Box<dyn FnOnce() + Send>) {
        match &self.tier {
            Some(tier) if !self.closed.load(Relaxed) => {
                tier.figures.stalls.fetch_add(1, Relaxed);
                let watch = Stopwatch::start();
                let figures = Arc::clone(&tier.figures);
                let told = move || {
                    figures.stall_us.fetch_add(watch.elapsed_us(), Relaxed);
                    then();
                };
                tier.held.park(|| self.budget.excess() == 0, Box::new(told));
            }
            _ => then(),
        }
    }

    /// Lets the budget follow what the system counts for the process. What is too much by that leaves memory although
    /// nobody writes: without a cold tier right here, otherwise by the demoter.
    pub(super) fn follow_memory(&self) {
        let limited = self.resident.as_ref().filter(|_| self.budget.limit() < u64::MAX);
        let Some(resident) = limited.and_then(|resident| resident.bytes()) else { return };
        self.budget.follow(resident);
        self.look_at_held();
        if self.tier.is_some() {
            return;
        }
        let evicting = |space: &&Space| space.is_touched() && space.settings().eviction != Eviction::None;
        let mut rest = EVICT_A_LOOK;
        while self.budget.excess() > 0 && rest > 0 {
            let mut candidates = self.spaces.iter().filter(evicting);
            let ordered =
                candidates.clone().fold(true, |all, space| space.extend_orders(ORDER_AT_ONCE) & all);
            match candidates.find_map(|space| self.evict_one(space)) {
                None if ordered => break,
                _ => rest -= 1,
            }
        }
    }

    /// Evicts one entry of a namespace, or moves the order on; `None` when nothing may go.
    fn evict_one(&self, space: &Space) -> Option<bool> {
        let victim = space.balance()?.victim()?;
        let mut txn = self.begin_at(space, victim.shard);
        let freed = txn.evict(victim);
        txn.finish().send();
        Some(freed > 0)
    }
}
