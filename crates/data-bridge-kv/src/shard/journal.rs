//! What a shard of a logged namespace knows of the log: which of its versions are not on disk yet, where answers wait for that.

use std::collections::VecDeque;

use data_bridge_kv_model::{Error, ErrorKind};

use crate::wal::{Failure, Lsn};

/// Records that are told apart; of more at once the later ones count as one.
const TOLD_APART: usize = 4096;

/// Memory that is kept for the effects of the next step.
const SCRATCH_BYTES: usize = 2048;

/// The recent records of a shard.
#[derive(Debug, Default)]
pub struct Journal {
    /// For each record that was not durable when last looked: the last sequence number in it, and its LSN. Both ascend.
    recent: VecDeque<(u64, Lsn)>,
    /// The last sequence number that is in a record.
    noted: u64,
    /// Changes up to this sequence number are durable.
    settled: u64,
    /// The last record.
    last: Lsn,
    /// The last record that removed a key.
    removal: Lsn,
    /// Memory in which the shard's steps gather their effects.
    scratch: Vec<u8>,
}

impl Journal {
    /// Notes that the changes up to `sequence` that are not noted yet, if any, are in the record `lsn`.
    pub fn note(&mut self, sequence: u64, lsn: Lsn, removes: bool, durable: Lsn) {
        self.settle(durable);
        if sequence <= self.noted {
            return;
        }
        self.noted = sequence;
        self.last = lsn;
        if removes {
            self.removal = lsn;
        }
        if self.recent.len() >= TOLD_APART
            && let Some(last) = self.recent.back_mut()
        {
            *last = (sequence, lsn);
        } else {
            self.recent.push_back((sequence, lsn));
        }
    }

    /// The record that a change waits for; 0 = it is durable.
    pub fn rests_on(&mut self, sequence: u64, durable: Lsn) -> Lsn {
        self.lsn_of(sequence, durable).unwrap_or(0)
    }

    /// The record that a change is in, if that is not durable yet.
    pub fn lsn_of(&mut self, sequence: u64, durable: Lsn) -> Option<Lsn> {
        self.settle(durable);
        if sequence <= self.settled {
            return None;
        }
        let at = self.recent.partition_point(|(last, _)| *last < sequence);
        self.recent.get(at).map(|(_, lsn)| *lsn)
    }

    /// The record that has to be durable for the absence of a key to be.
    pub fn removal(&self) -> Lsn {
        self.removal
    }

    /// Whether every change is durable.
    pub fn is_settled(&self, durable: Lsn) -> bool {
        self.last <= durable
    }

    /// Empty memory to gather effects in; it is to be given back.
    pub fn lend_scratch(&mut self) -> Vec<u8> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.reserve(SCRATCH_BYTES / 8);
        scratch
    }

    /// Takes it back, unless it grew.
    pub fn take_scratch(&mut self, mut scratch: Vec<u8>) {
        if scratch.capacity() <= SCRATCH_BYTES {
            scratch.clear();
            self.scratch = scratch;
        }
    }

    fn settle(&mut self, durable: Lsn) {
        while let Some((sequence, _)) = self.recent.front().filter(|(_, lsn)| *lsn <= durable) {
            self.settled = *sequence;
            self.recent.pop_front();
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure.is_end {
            true => Error::new(ErrorKind::Closed, "the store was closed before this was on disk"),
            false => Error::new(ErrorKind::Durability, failure.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_in_the_first_record_that_reaches_it_until_that_is_durable() {
        let mut journal = Journal::default();
        journal.note(3, 10, false, 0);
        journal.note(4, 12, true, 0);
        journal.note(9, 20, false, 0);
        assert_eq!(
            [1, 3, 4, 5, 9].map(|sequence| journal.lsn_of(sequence, 9)),
            [10, 10, 12, 20, 20].map(Some)
        );
        assert_eq!([3, 4, 5].map(|sequence| journal.lsn_of(sequence, 12)), [None, None, Some(20)]);
        assert_eq!(journal.removal(), 12);
        assert!(!journal.is_settled(19) && journal.is_settled(20));
        assert_eq!(journal.lsn_of(9, 20), None);
    }

    #[test]
    fn too_many_records_to_tell_apart_count_as_the_last_of_them() {
        let mut journal = Journal::default();
        let last = TOLD_APART as u64 + 5;
        (1..=last).for_each(|number| journal.note(number, number, false, 0));
        assert_eq!(journal.recent.len(), TOLD_APART);
        assert_eq!(journal.lsn_of(7, 0), Some(7));
        assert_eq!(journal.lsn_of(TOLD_APART as u64, 0), Some(last));
    }
}
