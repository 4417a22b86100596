//! How the keys of a command get into memory: they are looked for under the locks, what is on disk is read without a lock,
//! and the step begins again.

use std::sync::atomic::Ordering::Relaxed;

use data_bridge_kv_model::command::{
    Condition, KeyCommand, ScalarCommand, SetCommand, SetOperation, SetReply, ZSetCommand,
};
use data_bridge_kv_model::{Command, Key, KeySet, ReplyBuf};

use super::halt::Means;
use super::{Caller, Core, NamespaceId, Progress, Step, Waits};
use crate::cold::{Ahead, Source};
use crate::collections::Collection;
use crate::hash::KeyHash;
use crate::router::{lock_keys, lock_one};
use crate::shard::txn::{Fetched, Guards};
use crate::shard::{Space, Txn, encoded_len, exec};
use crate::table::{EntryRef, OwnedEntry};

/// Rounds after which a command keeps entries from leaving memory until it has run: others may have made its keys cold
/// again each time.
const FREE_ROUNDS: usize = 3;
/// Most keys of a pipeline that are read ahead, within a share of the memory budget.
const READ_AHEAD: usize = 128;

/// What a score takes in an encoded sorted set, at most.
const SCORE_BYTES: usize = 18;

/// Whether a command alone looks at the values of its keys, or only replaces, deletes, counts or dates them.
pub(super) fn looks_at_values(space: &Space, command: &Command<'_>) -> bool {
    let blind = match command {
        Command::Key(command) => matches!(
            command,
            KeyCommand::Delete { .. }
                | KeyCommand::Exists { .. }
                | KeyCommand::Touch { .. }
                | KeyCommand::Ttl { .. }
                | KeyCommand::Type { .. }
                | KeyCommand::Kind { .. }
        ),
        Command::Scalar(ScalarCommand::Set { options, .. }) => {
            options.condition == Condition::Always
                && options.reply == SetReply::Status
                && exec::scalar::is_from_now(options.expiry)
        }
        Command::Scalar(ScalarCommand::MultiSet { only_if_absent, .. }) => !only_if_absent,
        _ => false,
    };
    !blind || space.settings().graph.is_some()
}

/// Bytes that a command puts together from collections, beside those themselves, at most.
fn gathered_bytes(txn: &mut Txn<'_>, command: &Command<'_>) -> usize {
    let mut length_and_bytes = |key: Key<'_>| {
        let place = txn.place(key);
        let of_entry = |entry: EntryRef<'_>| {
            let stored = entry.value();
            (stored.collection().map_or(0, Collection::len), encoded_len(stored))
        };
        txn.peek(place).map_or((0, 0), of_entry)
    };
    let (gathered, builds) = match command {
        Command::Set(SetCommand::Combine { operation, keys, store }) => {
            let mut bytes = keys.iter().map(|key| length_and_bytes(key).1);
            let gathered = match operation {
                SetOperation::Union => bytes.sum(),
                SetOperation::Intersection | SetOperation::Difference => bytes.next().unwrap_or(0),
            };
            (gathered, store.is_some())
        }
        Command::ZSet(ZSetCommand::Combine { combination, .. }) => {
            // The members of a set get scores.
            let mut bytes = combination.keys.iter().map(|key| {
                let (length, bytes) = length_and_bytes(key);
                bytes + length * SCORE_BYTES
            });
            let gathered = match combination.operation {
                SetOperation::Union => bytes.sum(),
                SetOperation::Intersection => bytes.min().unwrap_or(0),
                SetOperation::Difference => bytes.next().unwrap_or(0),
            };
            (gathered, true)
        }
        Command::ZSet(ZSetCommand::StoreRange { from, .. }) => (length_and_bytes(*from).1, true),
        _ => (0, false),
    };
    // What stays has its members one by one.
    if builds { gathered.saturating_mul(2) } else { gathered }
}

/// The step on one key, or what it reads beside memory.
pub(super) enum Warm<'a> {
    Ready(Txn<'a>),
    Copy(Fetched),
}

impl Core {
    /// Runs a command that reads on a copy of the entry that it reads, without a lock.
    pub(super) fn run_on_copy(
        &self,
        caller: &Caller,
        command: &Command<'_>,
        copy: (KeyHash, OwnedEntry),
        out: &mut ReplyBuf,
    ) -> Step<Progress> {
        let bytes = exec::reply_bytes(command, copy.1.entry().value());
        caller.means().check(bytes as u64)?;
        // What doubles as it grows would take up to three times as much.
        out.bytes_mut().reserve_exact(bytes);
        exec::run(&mut Txn::on_copies(self.space(caller.namespace), &*self.clock, [copy]), command, out)?;
        Ok(Progress::Done)
    }

    /// Begins a step all of whose keys are in memory or nowhere; `keys` names them. One that only `reads` waits for no room where
    /// memory is short and others make some: it runs on copies, and what was read for it stays on disk.
    pub(super) fn begin_warm<'a>(
        &'a self,
        space: &'a Space,
        (means, reads): (Means, bool),
        lock: impl Fn() -> Guards<'a>,
        keys: impl Fn(&mut dyn FnMut(Key<'_>)),
    ) -> Step<Txn<'a>> {
        let Some(tier) = &self.tier else { return Ok(self.begin(space, lock())) };
        self.need_indexes(space, means.waits, |visit| keys(visit))?;
        let (mut fetched, mut round, mut stay) = (Vec::new(), 0, false);
        let mut _pause = None;
        loop {
            if round == FREE_ROUNDS {
                _pause = Some(tier.moves.read());
            }
            round += 1;
            let mut txn = self.begin(space, lock());
            if !stay {
                tier.figures.promoted.fetch_add(fetched.len() as u64, Relaxed);
                fetched.drain(..).for_each(|one| txn.promote(one));
            }
            let mut wanted = Vec::new();
            keys(&mut |key| {
                let place = txn.place(key);
                wanted.extend(txn.warm(place, true));
            });
            if wanted.is_empty() {
                return Ok(txn);
            }
            if wanted.len() == fetched.len() && fetched.iter().all(|one| txn.is_current(one)) {
                tier.figures.copied.fetch_add(fetched.len() as u64, Relaxed);
                return Ok(txn.into_copies(fetched, keys));
            }
            txn.finish().send();
            // What comes in is to leave again: who does not only read waits for that as writers do, but never twice.
            if round == 1 && self.budget.excess() > 0 {
                let others_do = matches!(means.waits, Waits::Disk | Waits::Never) || tier.held.is_begun();
                stay = reads && others_do;
                if !stay {
                    self.demote_excess(NamespaceId(space.number()), means.waits)?;
                }
            }
            fetched = tier.fetch(space, wanted, means)?;
        }
    }

    /// The same for the keys of a command, if it looks at their values.
    pub(super) fn begin_several<'a>(
        &'a self,
        space: &'a Space,
        means: (Means, bool),
        keys: KeySet<'_>,
        command: &Command<'_>,
    ) -> Step<Txn<'a>> {
        if self.tier.is_none() {
            return Ok(self.begin(space, lock_keys(space, keys)));
        }
        if looks_at_values(space, command) {
            return self.begin_warm(space, means, || lock_keys(space, keys), |visit| keys.for_each(visit));
        }
        self.need_indexes(space, means.0.waits, |visit| keys.for_each(visit))?;
        let mut txn = self.begin(space, lock_keys(space, keys));
        keys.for_each(|key| {
            let place = txn.place(key);
            txn.warm(place, false);
        });
        Ok(txn)
    }

    /// Stops a command that would put together more from several collections than its caller lets it.
    pub(super) fn check_sources<'a>(
        caller: &Caller,
        mut txn: Txn<'a>,
        command: &Command<'_>,
    ) -> Step<Txn<'a>> {
        if caller.most_bytes == u64::MAX {
            return Ok(txn);
        }
        if let Err(halt) = caller.means().check(gathered_bytes(&mut txn, command) as u64) {
            txn.finish().send();
            return Err(halt);
        }
        Ok(txn)
    }

    /// Makes the step on one key ready. A read of a cold key that was not read before leaves it cold.
    pub(super) fn warm_one<'a>(
        &'a self,
        mut txn: Txn<'a>,
        means: Means,
        key: Key<'_>,
        command: &Command<'_>,
        may_copy: bool,
    ) -> Step<Warm<'a>> {
        let Some(tier) = &self.tier else { return Ok(Warm::Ready(txn)) };
        let place = txn.place(key);
        let for_value = looks_at_values(txn.space(), command);
        let Some(wanted) = txn.warm(place, for_value) else { return Ok(Warm::Ready(txn)) };
        let space = txn.space();
        txn.finish().send();
        let index = space.shard_of(place.hash);
        if may_copy {
            for fetched in tier.fetch(space, vec![wanted], means)? {
                let mut txn = self.begin_at(space, index);
                if txn.is_current(&fetched) {
                    // Where memory is short, nothing comes in that has not to.
                    if !txn.touch_cold(&fetched) || self.budget.excess() > 0 {
                        // The copy has no counters; what is promoted counts itself.
                        txn.count_hit(&fetched);
                        tier.figures.copied.fetch_add(1, Relaxed);
                        return Ok(Warm::Copy(fetched));
                    }
                    tier.figures.promoted.fetch_add(1, Relaxed);
                    txn.promote(fetched);
                    txn.know(key, place.hash);
                    return Ok(Warm::Ready(txn));
                }
            }
        }
        let mut txn =
            self.begin_warm(space, (means, may_copy), || lock_one(space, index), |visit| visit(key))?;
        txn.know(key, place.hash);
        Ok(Warm::Ready(txn))
    }

    /// Reads what of these keys is on disk side by side, for commands that are about to read them one after the other.
    /// Blocks as the caller does.
    pub(super) fn fetch_ahead<'k>(
        &self,
        caller: &Caller,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Option<Ahead> {
        let (tier, space) = (self.tier.as_ref()?, self.space(caller.namespace));
        let now = self.clock.unix_ms();
        let source = |key: &[u8]| {
            let shard = space.lock(space.shard_of(space.hash(key)));
            let cold = shard.cold().filter(|cold| !cold.is_empty() && !cold.is_absent())?;
            let spot = cold.get(space.id(key)?).filter(|spot| !spot.is_expired(now))?;
            cold.source(spot).filter(|source| !source.is_unsized())
        };
        let mut room = tier.ahead_bytes;
        let fits = |source: &Source| {
            let left = room.checked_sub(source.most_bytes());
            room = left.unwrap_or(0);
            left.is_some()
        };
        let sources: Vec<Source> = keys.filter_map(source).take(READ_AHEAD).take_while(fits).collect();
        if sources.len() < 2 {
            return None;
        }
        tier.block(caller.waits, || tier.reads.read_ahead(sources)).ok()
    }
}
