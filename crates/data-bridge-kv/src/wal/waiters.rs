//! Who waits for an LSN to be durable.

use std::collections::BTreeMap;

use super::{Failure, Lsn};

/// Told once: that the LSN is durable, or that it never will be.
pub(super) type Then = Box<dyn FnOnce(Result<(), Failure>) + Send>;

/// By LSN, in the order in which they came.
#[derive(Default)]
pub(super) struct Waiters {
    by_lsn: BTreeMap<Lsn, Vec<Then>>,
}

impl Waiters {
    pub(super) fn add(&mut self, lsn: Lsn, then: Then) {
        self.by_lsn.entry(lsn).or_default().push(then);
    }

    /// Those who wait for no more than this.
    pub(super) fn up_to(&mut self, durable: Lsn) -> Vec<Then> {
        let later = match durable.checked_add(1) {
            Some(next) => self.by_lsn.split_off(&next),
            None => BTreeMap::new(),
        };
        std::mem::replace(&mut self.by_lsn, later).into_values().flatten().collect()
    }
}
