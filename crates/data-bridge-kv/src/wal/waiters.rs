//! Who waits for an LSN to be durable.

use std::collections::VecDeque;

use super::{Failure, Lsn};

/// Told once: that the LSN is durable, or that it never will be.
pub(super) type Then = Box<dyn FnOnce(Result<(), Failure>) + Send>;

/// By LSN; of one LSN in the order in which they came.
#[derive(Default)]
pub(super) struct Waiters {
    queue: VecDeque<(Lsn, Then)>,
}

impl Waiters {
    pub(super) fn add(&mut self, lsn: Lsn, then: Then) {
        // Nearly always the last place.
        let is_last = self.queue.back().is_none_or(|(last, _)| *last <= lsn);
        let place = if is_last { self.queue.len() } else { self.below(lsn) };
        self.queue.insert(place, (lsn, then));
    }

    /// Those who wait for no more than this, in order.
    pub(super) fn up_to(&mut self, durable: Lsn) -> Vec<Then> {
        let count = self.below(durable);
        let served = self.queue.drain(..count).map(|(_, then)| then).collect();
        // After a burst.
        if self.queue.capacity() > 1024 && self.queue.len() < self.queue.capacity() / 8 {
            self.queue.shrink_to(1024);
        }
        served
    }

    fn below(&self, lsn: Lsn) -> usize {
        self.queue.partition_point(|(waiting, _)| *waiting <= lsn)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::sync::real::Mutex;

    use super::*;

    #[test]
    fn they_are_served_in_order_and_once() {
        let (mut waiters, served) = (Waiters::default(), Arc::new(Mutex::new(Vec::new())));
        for (number, lsn) in [5, 7, 7, 2, 9, 7, 2].into_iter().enumerate() {
            let served = Arc::clone(&served);
            waiters.add(lsn, Box::new(move |_| served.lock().push((lsn, number))));
        }
        let mut serve = |durable| {
            waiters.up_to(durable).into_iter().for_each(|then| then(Ok(())));
            std::mem::take(&mut *served.lock())
        };
        assert_eq!(serve(1), []);
        assert_eq!(serve(7), [(2, 3), (2, 6), (5, 0), (7, 1), (7, 2), (7, 5)]);
        assert_eq!(serve(Lsn::MAX), [(9, 4)]);
        assert_eq!(serve(Lsn::MAX), []);
    }
}
