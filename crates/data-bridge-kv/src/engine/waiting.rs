//! Waits and watches: they are answered by the step that makes their condition true, never by polling.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use data_bridge_kv_model::command::{StateCommand, Target, Until};
use data_bridge_kv_model::{Arg, Command, Error, ErrorKind, Key, ReplyBuf, Result, Spec};

use super::durable::Room;
use super::{Caller, Core, NamespaceId, Progress, Step};
use crate::shard::notice::{Change, Completions, event_item};
use crate::shard::takers::Taker;
use crate::shard::txn::put_versioned;
use crate::shard::waiters::{Condition, State, Waiter, Watcher};
use crate::sync::Mutex;

/// A version that no key has: who watches from it hears of whatever is there.
const ANY: u64 = 1;
/// Waits that are over are forgotten once there are so many, and more of them than of others.
const OVER_MIN: usize = 1024;

/// All waits that have a timeout.
#[derive(Default)]
pub(super) struct Timeouts(Mutex<Ends>);

#[derive(Default)]
struct Ends {
    /// By the time they end, unix ms, and the order in which they came. One may outlive its wait.
    waits: BTreeMap<(u64, u64), Timed>,
    came: u64,
    /// How many of them went on when that was looked at last.
    went_on: usize,
}

/// A wait that has a timeout.
struct Timed {
    namespace: NamespaceId,
    wait: Wait,
}

enum Wait {
    /// For a change; the presence is gone with the wait.
    Change { key: Box<str>, caller: u64, token: u64, presence: Weak<()> },
    /// For something to take.
    Taker(Weak<Taker>),
}

impl Timed {
    fn goes_on(&self) -> bool {
        match &self.wait {
            Wait::Change { presence, .. } => presence.strong_count() > 0,
            Wait::Taker(taker) => taker.upgrade().is_some_and(|taker| !taker.is_over()),
        }
    }
}

impl Ends {
    fn add(&mut self, end: u64, wait: Timed) {
        self.came += 1;
        self.waits.insert((end, self.came), wait);
    }

    /// Takes a wait whose time has come.
    fn take_due(&mut self, now: u64) -> Option<Timed> {
        self.waits.first_entry().filter(|wait| wait.key().0 <= now).map(|wait| wait.remove())
    }

    /// Forgets those that ended before their time, if they are many.
    fn tidy(&mut self) {
        if self.waits.len() >= OVER_MIN.max(2 * self.went_on) {
            self.waits.retain(|_, wait| wait.goes_on());
            self.went_on = self.waits.len();
        }
    }
}

impl Core {
    pub(super) fn wait(
        &self,
        caller: &Caller,
        token: u64,
        (spec, command): (&Spec, &Command<'_>),
        room: Room<'_>,
        out: &mut ReplyBuf,
    ) -> Step<Progress> {
        let Command::State(command) = command else {
            return self.take_or_wait(caller, token, (spec, command), room, out);
        };
        let Some(completions) = &caller.completions else {
            return Err(Error::new(ErrorKind::Unavailable, "this caller can't wait").into());
        };
        match command {
            StateCommand::Wait { key, until, timeout_ms } => {
                self.wait_for(caller, completions, token, *key, *until, *timeout_ms, out)
            }
            StateCommand::Watch { target, from_version } => {
                self.watch(caller, completions, *target, *from_version, out)?;
                Ok(Progress::Done)
            }
            StateCommand::Unwatch { watch } => {
                self.drop_watches(caller, *watch..=*watch);
                out.ok();
                Ok(Progress::Done)
            }
            _ => Err(Error::invalid("not a wait").into()),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a wait is its command's arguments and its caller")]
    fn wait_for(
        &self,
        caller: &Caller,
        completions: &Arc<dyn Completions>,
        token: u64,
        key: Key<'_>,
        until: Until<'_>,
        timeout_ms: Option<u64>,
        out: &mut ReplyBuf,
    ) -> Step<Progress> {
        let condition = condition(until)?;
        self.mark_wait(caller, token, key.as_str());
        let progress = self.wait_or_answer(caller, completions, token, key, condition, timeout_ms, out);
        caller.pending.has_begun(token, caller.namespace, key.as_str());
        progress
    }

    #[expect(clippy::too_many_arguments, reason = "as above")]
    fn wait_or_answer(
        &self,
        caller: &Caller,
        completions: &Arc<dyn Completions>,
        token: u64,
        key: Key<'_>,
        condition: Condition,
        timeout_ms: Option<u64>,
        out: &mut ReplyBuf,
    ) -> Step<Progress> {
        let space = self.space(caller.namespace);
        let mut txn = self.begin_with(space, caller.means(), key)?;
        let place = txn.place(key);
        let state = txn.find(place).map(|entry| (entry.value(), space.version(entry.sequence())));
        let holds = condition.holds(state, false);
        if holds {
            put_versioned(state, 0, out);
        }
        if holds || timeout_ms == Some(0) {
            caller.send(txn.finish());
            return if holds { Ok(Progress::Done) } else { Err(timed_out().into()) };
        }
        let presence = Arc::new(());
        if let Some(timeout) = timeout_ms {
            let end = txn.now().saturating_add(timeout);
            let (key, presence) = (key.as_str().into(), Arc::downgrade(&presence));
            let wait = Wait::Change { key, caller: caller.id, token, presence };
            self.timeouts.0.lock().add(end, Timed { namespace: caller.namespace, wait });
        }
        let completions = Arc::clone(completions);
        txn.add_waiter(place, Waiter { caller: caller.id, token, condition, completions, presence });
        caller.send(txn.finish());
        // A close that ran since the check has missed this waiter.
        if self.closed.load(Ordering::SeqCst) {
            self.close();
        }
        Ok(Progress::Pending)
    }

    fn watch(
        &self,
        caller: &Caller,
        completions: &Arc<dyn Completions>,
        target: Target<'_>,
        from_version: u64,
        out: &mut ReplyBuf,
    ) -> Step<()> {
        let space = self.space(caller.namespace);
        let watch = self.number();
        let watcher = Watcher { caller: caller.id, watch, completions: Arc::clone(completions) };
        let key = match target {
            Target::Key(key) => Some(Box::from(key.as_str())),
            Target::Prefix(_) => None,
        };
        caller.pending.mark_watch(watch, caller.namespace, key);
        match target {
            Target::Prefix(prefix) => space.watch_prefix(prefix, watcher),
            // From now on: it does not matter what is there, or where.
            Target::Key(key) if from_version == 0 => {
                let mut txn = self.begin_at(space, space.shard_of(space.hash(key.as_bytes())));
                let place = txn.place(key);
                txn.add_watcher(place, watcher);
                caller.send(txn.finish());
            }
            Target::Key(key) => {
                let begun = self.begin_with(space, caller.means(), key);
                let mut txn = begun
                    .inspect_err(|_| caller.pending.unmark_watch(watch, caller.namespace, key.as_str()))?;
                let place = txn.place(key);
                // Whoever names a version has seen the key: that it is gone is news.
                let (change, version) = match txn.version(place) {
                    0 if from_version > ANY => (Change::Delete, space.version(txn.last_sequence())),
                    version => (Change::Set, version),
                };
                txn.add_watcher(place, watcher);
                let mut notices = txn.finish();
                if version > from_version {
                    let event = event_item(change, key.as_bytes(), version);
                    notices.event(Arc::clone(completions), watch, event);
                }
                caller.send(notices);
            }
        }
        out.version(watch);
        Ok(())
    }

    /// Ends a wait for something to take at this time, unix ms.
    pub(super) fn end_taker_at(&self, end: u64, namespace: NamespaceId, taker: &Arc<Taker>) {
        let wait = Timed { namespace, wait: Wait::Taker(Arc::downgrade(taker)) };
        self.timeouts.0.lock().add(end, wait);
    }

    /// Answers `Timeout` to waits whose time has come, and to those for something to take that there was nothing.
    pub(super) fn end_timed_out(&self) {
        let now = self.clock.unix_ms();
        self.timeouts.0.lock().tidy();
        loop {
            let due = self.timeouts.0.lock().take_due(now);
            let Some(Timed { namespace, wait }) = due else { return };
            let (key, caller, token) = match wait {
                Wait::Change { key, caller, token, .. } => (key, caller, token),
                Wait::Taker(taker) => {
                    self.end_taker(namespace, taker.upgrade());
                    continue;
                }
            };
            let space = self.space(namespace);
            let ours = |waiter: &Waiter| waiter.caller == caller && waiter.token == token;
            let index = space.shard_of(space.hash(key.as_bytes()));
            let waiter = space.lock(index).waiters().take_one(key.as_bytes(), ours);
            if let Some(waiter) = waiter {
                let mut reply = ReplyBuf::new();
                reply.error(&timed_out());
                waiter.completions.complete(waiter.token, reply.as_bytes());
            }
        }
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.close_checkpoint();
        self.close_log();
        if let Some(tier) = &self.tier {
            tier.close();
        }
        let mut reply = ReplyBuf::new();
        reply.error(&Error::new(ErrorKind::Closed, "the store is closed"));
        for space in self.spaces.iter().filter(|space| space.is_touched()) {
            for index in 0..space.shard_count() {
                let (waiters, takers) = space.lock(index).waiters().take_all();
                for waiter in waiters {
                    waiter.completions.complete(waiter.token, reply.as_bytes());
                }
                for taker in takers.into_iter().filter(|taker| taker.end()) {
                    taker.completions.complete(taker.token, reply.as_bytes());
                }
            }
        }
    }
}

fn timed_out() -> Error {
    Error::new(ErrorKind::Timeout, "the wait timed out")
}

fn condition(until: Until<'_>) -> Result<Condition> {
    Ok(match until {
        Until::Change => Condition::Change,
        Until::Exists => Condition::Exists,
        Until::NewerThan(version) => Condition::NewerThan(version),
        Until::States { field, states } => {
            let field = field.map(|field| state(field).map(|state| state.encoded)).transpose()?;
            Condition::States { field, states: states.iter().map(|arg| state(*arg)).collect::<Result<_>>()? }
        }
    })
}

fn state(arg: Arg<'_>) -> Result<State> {
    let mut scratch = Vec::new();
    let mut encoded = Vec::new();
    arg.value(&mut scratch)?.encode_into(&mut encoded);
    Ok(State { encoded: encoded.into(), untyped: matches!(arg, Arg::Untyped(_)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_is_over_is_forgotten_before_its_time() {
        let mut ends = Ends::default();
        let mut waiting = Vec::new();
        for token in 0..20_000 {
            let presence = Arc::new(());
            let (key, presence_of) = ("a".into(), Arc::downgrade(&presence));
            let wait = Wait::Change { key, caller: 1, token, presence: presence_of };
            ends.add(3_600_000, Timed { namespace: NamespaceId::DEFAULT, wait });
            waiting.extend((token % 10 == 0).then_some(presence));
            ends.tidy();
            assert!(ends.waits.len() <= OVER_MIN.max(2 * waiting.len()), "{}", ends.waits.len());
        }
        let due: Vec<Timed> = std::iter::from_fn(|| ends.take_due(3_600_000)).collect();
        let went_on = due.iter().filter(|wait| wait.goes_on()).map(|wait| match wait.wait {
            Wait::Change { token, .. } => token,
            Wait::Taker(_) => unreachable!(),
        });
        assert_eq!(went_on.collect::<Vec<_>>(), (0..20_000).step_by(10).collect::<Vec<_>>());
        assert_eq!(waiting.len(), 2000);
    }
}
