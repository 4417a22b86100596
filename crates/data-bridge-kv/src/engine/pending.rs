//! Where a caller waits and watches: so that what it began is found when it is cancelled, or when the caller is gone,
//! however many others wait.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{Caller, Core, NamespaceId};
use crate::shard::takers::Taker;
use crate::shard::waiters::{Waiter, Watcher};
use crate::sync::Mutex;

/// From so many marks of waits on, those of waits that are over are looked for.
const FIRST_LOOK: usize = 64;

/// The waits and watches of one caller. Clones are the same.
#[derive(Clone, Default)]
pub struct Pending(Arc<Mutex<Marks>>, Arc<Mutex<Vec<Standing>>>);

/// One who waits to take.
type Standing = (NamespaceId, Arc<Taker>);

#[derive(Debug, Default)]
struct Marks {
    /// By token. A mark may outlive its wait.
    waits: BTreeSet<Mark>,
    /// Those whose waiter is perhaps not there yet.
    begun: Vec<Mark>,
    /// By number of the watch.
    watches: BTreeSet<Mark>,
    /// How many waits there were after the last look for those that are over.
    looked_at: usize,
}

/// Token or number, namespace, and key; `None` = some prefix.
type Mark = (u64, NamespaceId, Option<Box<str>>);

impl Pending {
    /// To be called before there is a watcher of this key, or of some prefix.
    pub(super) fn mark_watch(&self, watch: u64, namespace: NamespaceId, key: Option<Box<str>>) {
        self.0.lock().watches.insert((watch, namespace, key));
    }

    pub(super) fn unmark_watch(&self, watch: u64, namespace: NamespaceId, key: &str) {
        self.0.lock().watches.remove(&(watch, namespace, Some(key.into())));
    }

    /// Keeps one who waits to take. Answers those whose wait is over; they may still stand at keys.
    pub(super) fn keep_taker(&self, namespace: NamespaceId, taker: &Arc<Taker>) -> Vec<Standing> {
        let mut takers = self.1.lock();
        let over = takers.extract_if(.., |(_, taker)| taker.is_over()).collect();
        takers.push((namespace, Arc::clone(taker)));
        over
    }

    /// To be called when a marked wait has its waiter, or ended at once. The mark stays: another wait may have the same.
    pub(super) fn has_begun(&self, token: u64, namespace: NamespaceId, key: &str) {
        let mut marks = self.0.lock();
        let ours = |mark: &Mark| (mark.0, mark.1, mark.2.as_deref()) == (token, namespace, Some(key));
        if let Some(index) = marks.begun.iter().position(ours) {
            marks.begun.swap_remove(index);
        }
    }
}

impl Core {
    /// To be called before there is a waiter, without the lock of any shard. Looks for waits that are over where there are
    /// twice as many as at the last look.
    pub(super) fn mark_wait(&self, caller: &Caller, token: u64, key: &str) {
        let mut marks = caller.pending.0.lock();
        let marks = &mut *marks;
        if marks.waits.len() >= FIRST_LOOK.max(2 * marks.looked_at) {
            marks.waits.retain(|mark| {
                let (token, namespace, key) = mark;
                if marks.begun.contains(mark) {
                    return true;
                }
                let key = key.as_deref().unwrap_or_default().as_bytes();
                let space = self.space(*namespace);
                let mut shard = space.lock(space.shard_of(space.hash(key)));
                let party = shard.waiters().get_mut(key);
                party.is_some_and(|party| party.waiters.iter().any(|waiter| is_of(caller, *token, waiter)))
            });
            marks.looked_at = marks.waits.len();
        }
        let mark = (token, caller.namespace, Some(Box::from(key)));
        marks.begun.push(mark.clone());
        marks.waits.insert(mark);
    }

    /// Takes the caller's waits with these tokens out; nobody is told. Answers how many there were.
    pub(super) fn drop_waits(&self, caller: &Caller, tokens: RangeInclusive<u64>) -> usize {
        let marks = take(&mut caller.pending.0.lock().waits, tokens.clone());
        let dropped = marks.iter().map(|(token, namespace, key)| {
            let key = key.as_deref().unwrap_or_default().as_bytes();
            let space = self.space(*namespace);
            let mut shard = space.lock(space.shard_of(space.hash(key)));
            let waiters = shard.waiters();
            std::iter::from_fn(|| waiters.take_one(key, |waiter| is_of(caller, *token, waiter))).count()
        });
        let dropped: usize = dropped.sum();
        dropped + self.drop_takers(caller, tokens)
    }

    fn drop_takers(&self, caller: &Caller, tokens: RangeInclusive<u64>) -> usize {
        let ours = |(_, taker): &mut Standing| tokens.contains(&taker.token);
        let takers: Vec<Standing> = caller.pending.1.lock().extract_if(.., ours).collect();
        let ended = takers.iter().filter(|(_, taker)| taker.end()).count();
        self.leave_lines(&takers);
        ended
    }

    /// Removes those whose wait is over from the keys where they stand.
    pub(super) fn leave_lines(&self, takers: &[Standing]) {
        for (namespace, taker) in takers {
            let space = self.space(*namespace);
            for key in taker.keys.iter().map(|key| key.as_bytes()) {
                space.lock(space.shard_of(space.hash(key))).waiters().remove_taker(key, taker);
            }
        }
    }

    /// Drops the caller's watches with these numbers.
    pub(super) fn drop_watches(&self, caller: &Caller, watches: RangeInclusive<u64>) {
        let marks = take(&mut caller.pending.0.lock().watches, watches);
        for (watch, namespace, key) in marks {
            let ours = |watcher: &Watcher| watcher.caller == caller.id && watcher.watch == watch;
            let space = self.space(namespace);
            match key.as_deref().map(str::as_bytes) {
                Some(key) => space.lock(space.shard_of(space.hash(key))).waiters().drop_watchers(key, ours),
                None => space.drop_prefix_watchers(ours),
            }
        }
    }
}

fn is_of(caller: &Caller, token: u64, waiter: &Waiter) -> bool {
    waiter.caller == caller.id && waiter.token == token
}

/// Takes the marks with these numbers out.
fn take(marks: &mut BTreeSet<Mark>, numbers: RangeInclusive<u64>) -> Vec<Mark> {
    let (first, last) = numbers.into_inner();
    let mut taken = marks.split_off(&(first, NamespaceId::DEFAULT, None));
    if let Some(after) = last.checked_add(1) {
        marks.append(&mut taken.split_off(&(after, NamespaceId::DEFAULT, None)));
    }
    taken.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use data_bridge_kv_model::command::table;
    use data_bridge_kv_model::{Arg, ReplyBuf};

    use super::*;
    use crate::engine::{Engine, Progress};
    use crate::settings::Settings;
    use crate::shard::notice::Completions;

    #[test]
    fn marks_of_waits_that_are_over_do_not_pile_up() {
        struct Deaf;
        impl Completions for Deaf {
            fn complete(&self, _: u64, _: &[u8]) {}
            fn event(&self, _: u64, _: &[u8]) {}
        }
        let engine = Engine::open(Settings::default()).unwrap();
        let caller = Caller { completions: Some(Arc::new(Deaf)), ..engine.caller() };
        let run = |name: &[u8], words: &[&str], token| {
            let args: Vec<Arg<'_>> = words.iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
            let call = table::by_name(name).unwrap().call(&args).unwrap();
            engine.execute(&caller, token, &call, &mut ReplyBuf::new())
        };
        let waits = || caller.pending.0.lock().waits.len();
        for token in 0..20 {
            assert_eq!(run(b"KV.WAIT", &["never"], token), Progress::Pending);
        }
        for token in 20..2_000 {
            assert_eq!(run(b"KV.WAIT", &["k"], token), Progress::Pending);
            assert_eq!(run(b"SET", &["k", "v"], token), Progress::Done);
            assert!(waits() <= FIRST_LOOK, "{} marks for 21 waits", waits());
        }
        assert_eq!(run(b"KV.WAIT", &["k", "PRESENT"], 3), Progress::Done);
        for token in 0..20 {
            assert!(engine.cancel(&caller, token), "{token} still waits");
        }
        assert!(!engine.cancel(&caller, 100), "it is over");
        engine.disconnect(&caller);
        assert_eq!(waits(), 0);
    }

    #[test]
    fn a_wait_that_is_only_just_beginning_keeps_its_mark() {
        let engine = Engine::open(Settings::default()).unwrap();
        let caller = engine.caller();
        let waits = || caller.pending.0.lock().waits.len();
        engine.core.mark_wait(&caller, 1_000, "slow");
        for token in 0..200 {
            engine.core.mark_wait(&caller, token, "k");
            caller.pending.has_begun(token, caller.namespace, "k");
        }
        assert!(waits() <= FIRST_LOOK);
        assert!(caller.pending.0.lock().waits.iter().any(|mark| mark.0 == 1_000));
        caller.pending.has_begun(1_000, caller.namespace, "slow");
        assert!(caller.pending.0.lock().begun.is_empty());
    }

    #[test]
    fn marks_are_taken_by_number() {
        let all = || {
            (0..5).flat_map(|number| {
                [(number, NamespaceId(1), None), (number, NamespaceId::DEFAULT, Some("k".into()))]
            })
        };
        let mut marks: BTreeSet<Mark> = all().chain([(u64::MAX, NamespaceId::DEFAULT, None)]).collect();
        let numbers = |marks: &[Mark]| marks.iter().map(|mark| mark.0).collect::<Vec<u64>>();
        assert_eq!(numbers(&take(&mut marks, 2..=2)), [2, 2]);
        assert_eq!(numbers(&take(&mut marks, 2..=2)), [0; 0]);
        assert_eq!(numbers(&take(&mut marks, u64::MAX..=u64::MAX)), [u64::MAX]);
        assert_eq!(numbers(&take(&mut marks, 0..=u64::MAX)), [0, 0, 1, 1, 3, 3, 4, 4]);
        assert!(marks.is_empty());
    }
}
