//! Memory for what large commands hold: their requests in one allowance, and in another the values that were read from disk
//! for them and the answers until they are sent. All connections share it, so that together they hold no more than a part
//! of the memory budget; who needs more than is left waits for its turn, in order. Who needs more than there is at all waits
//! until it is alone.
//!
//! Nobody who waits for memory for a request holds any for an answer, and what a connection has for an answer is given back
//! before it asks for more: so there is always one that can go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a command may hold without asking.
pub const FREE_BYTES: u64 = 256 << 10;
/// Share of the memory budget: one in so many.
const SHARE: u64 = 8;
/// The least and the most that there is, in units.
const UNITS: (u64, u64) = (256, 1 << 20);
/// Bytes of a unit.
const UNIT: u64 = 4096;

/// What there is.
pub struct Allowance {
    units: Arc<Semaphore>,
    all: u32,
    waiting: AtomicUsize,
}

/// A part of it, given back when it is dropped.
pub struct Grant {
    units: OwnedSemaphorePermit,
    is_all: bool,
}

impl Allowance {
    /// The part of a memory budget.
    pub fn of(max_memory: u64) -> Allowance {
        let (least, most) = UNITS;
        let units = (max_memory / SHARE / UNIT).clamp(least, most);
        let all = u32::try_from(units).unwrap_or(u32::MAX);
        Allowance { units: Arc::new(Semaphore::new(all as usize)), all, waiting: AtomicUsize::new(0) }
    }

    /// Waits for so many bytes; dropping this gives the turn up.
    pub async fn grant(&self, bytes: u64) -> Option<Grant> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.all);
        let _waiting = Waiting::new(&self.waiting);
        // It is never closed.
        let got = Arc::clone(&self.units).acquire_many_owned(units).await.ok()?;
        Some(Grant { units: got, is_all: units == self.all })
    }

    /// How many connections wait for their turn.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// How many bytes nobody holds.
    pub fn left(&self) -> u64 {
        self.units.available_permits() as u64 * UNIT
    }

    /// How many there are.
    pub fn bytes(&self) -> u64 {
        u64::from(self.all) * UNIT
    }
}

impl Grant {
    /// How many bytes a command may hold by it.
    pub fn allows(&self) -> u64 {
        if self.is_all { u64::MAX } else { self.bytes() }
    }

    /// Bytes of it.
    pub fn bytes(&self) -> u64 {
        self.units.num_permits() as u64 * UNIT
    }

    /// Gives back what is more than these bytes.
    pub fn keep(&mut self, bytes: u64) {
        let units = usize::try_from(bytes.div_ceil(UNIT)).unwrap_or(usize::MAX);
        let spare = self.units.num_permits().saturating_sub(units);
        if spare > 0 {
            self.is_all = false;
            drop(self.units.split(spare));
        }
    }
}

/// Somebody who waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn new(count: &AtomicUsize) -> Waiting<'_> {
        count.fetch_add(1, Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn turns_are_taken_in_order_and_whoever_wants_all_gets_it() {
        let allowance = Allowance::of(64 << 20);
        assert_eq!((allowance.bytes(), allowance.left()), (8 << 20, 8 << 20));
        let mut first = pin!(allowance.grant(5 << 20));
        let Poll::Ready(Some(mut first)) = poll(first.as_mut()) else { panic!("there is enough") };
        assert_eq!((first.allows(), allowance.left()), (5 << 20, 3 << 20));
        let mut greedy = pin!(allowance.grant(1 << 40));
        let mut small = pin!(allowance.grant(1));
        assert!(poll(greedy.as_mut()).is_pending() && poll(small.as_mut()).is_pending());
        assert_eq!(allowance.waiting(), 2);
        first.keep(1);
        assert_eq!(first.bytes(), UNIT);
        assert!(poll(small.as_mut()).is_pending(), "who came before is first");
        drop(first);
        let Poll::Ready(Some(greedy)) = poll(greedy.as_mut()) else { panic!("it is alone now") };
        assert_eq!((greedy.allows(), allowance.left()), (u64::MAX, 0));
        assert!(poll(small.as_mut()).is_pending());
        drop(greedy);
        let Poll::Ready(Some(small)) = poll(small.as_mut()) else { panic!("nobody is before") };
        assert_eq!((small.allows(), allowance.waiting()), (UNIT, 0));
    }

    #[test]
    fn who_goes_away_makes_way() {
        let allowance = Allowance::of(0);
        let mut first = pin!(allowance.grant(allowance.bytes()));
        let Poll::Ready(Some(_first)) = poll(first.as_mut()) else { panic!("there is enough") };
        {
            let mut gone = pin!(allowance.grant(1));
            assert!(poll(gone.as_mut()).is_pending());
        }
        assert_eq!(allowance.waiting(), 0);
        drop(_first);
        assert_eq!(allowance.left(), allowance.bytes());
    }
}
