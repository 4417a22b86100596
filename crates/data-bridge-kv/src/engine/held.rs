//! Where writers wait for the demoter while memory is short: it alone lets entries leave, so that a writer is as slow as
//! the disk, and whatever that takes beside the entries is taken once.

use std::sync::Arc;
use std::time::Duration;

use super::NamespaceId;
use super::ticker::Bell;
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::sync::{Condvar, Mutex};

/// How often a writer looks by itself, should nobody tell it.
const PATIENCE: Duration = Duration::from_millis(100);
/// The waiting writers, and what they are told.
#[derive(Default)]
pub(super) struct Held {
    state: Mutex<State>,
    changed: Condvar,
    /// Wakes the demoter.
    bell: Arc<Bell>,
    is_begun: AtomicBool,
}

#[derive(Default)]
struct State {
    waiting: usize,
    /// The namespace that the last of them writes to.
    own: Option<NamespaceId>,
    /// The demoter found nothing more to do when it looked last, and that was not enough.
    is_stuck: bool,
    /// Who is to be told once there is room, or none can be made.
    parked: Vec<Box<dyn FnOnce() + Send>>,
}

impl Held {
    /// There is a demoter from now on; it listens to this.
    pub(super) fn begin(&self) -> Arc<Bell> {
        self.is_begun.store(true, Relaxed);
        Arc::clone(&self.bell)
    }

    /// Whether there is one.
    pub(super) fn is_begun(&self) -> bool {
        self.is_begun.load(Relaxed)
    }

    /// Waits until there is room. Answers false if the demoter can't make any, or the store closes.
    pub(super) fn wait(
        &self,
        own: NamespaceId,
        is_closed: impl Fn() -> bool,
        has_room: impl Fn() -> bool,
    ) -> bool {
        let mut state = self.state.lock();
        state.waiting += 1;
        state.own = Some(own);
        let has_room = loop {
            if has_room() {
                break true;
            }
            // The demoter tries again by itself: whoever comes meanwhile need not wait for that.
            if state.is_stuck || is_closed() {
                break false;
            }
            self.bell.ring();
            (state, _) = self.changed.wait_for(state, PATIENCE);
        };
        state.waiting -= 1;
        has_room
    }

    /// Tells somebody once there is room, or none can be made: at once if that is so already.
    pub(super) fn park(&self, has_room: impl Fn() -> bool, then: Box<dyn FnOnce() + Send>) {
        let mut state = self.state.lock();
        if has_room() || state.is_stuck || !self.is_begun() {
            drop(state);
            return then();
        }
        state.parked.push(then);
        self.bell.ring();
    }

    /// The namespace whose writer waits, if one does.
    pub(super) fn who_waits(&self) -> Option<NamespaceId> {
        let state = self.state.lock();
        state.own.filter(|_| state.waiting > 0)
    }

    /// There may be room: lets them look.
    pub(super) fn look(&self, has_room: bool) {
        self.wake(|state| has_room || state.is_stuck);
    }

    /// The demoter has made some room, and goes on: it is worth waiting for.
    pub(super) fn advance(&self, has_room: bool) {
        self.wake(|state| {
            state.is_stuck = false;
            has_room
        });
    }

    /// The demoter has done what it can; whether that was not enough.
    pub(super) fn end_pass(&self, is_stuck: bool) {
        self.wake(|state| {
            state.is_stuck = is_stuck;
            true
        });
    }

    fn wake(&self, tells_parked: impl FnOnce(&mut State) -> bool) {
        let mut state = self.state.lock();
        let parked = if tells_parked(&mut state) { std::mem::take(&mut state.parked) } else { Vec::new() };
        if state.waiting > 0 {
            self.changed.notify_all();
        }
        drop(state);
        parked.into_iter().for_each(|then| then());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// Runs a writer that waits until `excess` is 0, and does `act` once it does.
    fn with_writer(excess: &AtomicU64, held: &Held, act: impl Fn()) -> bool {
        std::thread::scope(|scope| {
            let has_room = || excess.load(Relaxed) == 0;
            let writer = scope.spawn(move || held.wait(NamespaceId::DEFAULT, || false, has_room));
            while held.who_waits().is_none() && !writer.is_finished() {
                std::thread::yield_now();
            }
            act();
            writer.join().expect("the writer ends")
        })
    }

    #[test]
    fn a_writer_waits_until_there_is_room() {
        let (held, excess) = (Held::default(), AtomicU64::new(3));
        let has_room = with_writer(&excess, &held, || {
            while excess.fetch_sub(1, Relaxed) > 1 {
                held.look(false);
                assert_eq!(held.who_waits(), Some(NamespaceId::DEFAULT), "there is no room yet");
            }
            held.look(true);
        });
        assert!(has_room && held.who_waits().is_none());
    }

    #[test]
    fn it_goes_on_without_room_when_there_will_be_none() {
        let (held, excess) = (Held::default(), AtomicU64::new(1));
        let has_room = with_writer(&excess, &held, || {
            held.end_pass(false);
            assert!(held.who_waits().is_some(), "there may be some later");
            held.end_pass(true);
        });
        assert!(!has_room);
    }

    #[test]
    fn who_is_parked_is_told_once() {
        let (held, told) = (Held::default(), Arc::new(AtomicU64::new(0)));
        let tell = || {
            let told = Arc::clone(&told);
            Box::new(move || {
                told.fetch_add(1, Relaxed);
            })
        };
        held.park(|| false, tell());
        assert_eq!(told.load(Relaxed), 1, "without a demoter nobody waits");
        held.begin();
        held.park(|| true, tell());
        assert_eq!(told.load(Relaxed), 2);
        held.park(|| false, tell());
        held.look(false);
        assert_eq!(told.load(Relaxed), 2, "there is no room");
        held.look(true);
        held.look(true);
        assert_eq!(told.load(Relaxed), 3);
        held.park(|| false, tell());
        held.end_pass(true);
        assert_eq!(told.load(Relaxed), 4, "there will be no room");
    }
}
