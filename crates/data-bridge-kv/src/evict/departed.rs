//! Notes about queue slots whose entry is gone, so that removal need not search. Used by the eviction order only.
//!
//! A reference may be noted more than once: each note stands for one slot. An entry that was removed and created again
//! has two slots and one note; whichever slot is met first is dropped, and exactly one stays. That is what keeps the
//! queues from growing under keys that are removed and set again for ever.

use hashbrown::HashTable;

use crate::footprint::block_bytes;

/// A multiset of references.
#[derive(Debug, Default)]
pub struct Departed {
    notes: HashTable<u32>,
}

impl Departed {
    /// Notes held.
    pub fn len(&self) -> usize {
        self.notes.len()
    }

    /// Notes that one slot of `reference` is stale.
    pub fn note(&mut self, reference: u32) {
        self.notes.insert_unique(spread(reference), reference, |reference| spread(*reference));
    }

    /// Whether a slot of `reference` is stale; the note is used up.
    pub fn take(&mut self, reference: u32) -> bool {
        if self.notes.is_empty() {
            return false;
        }
        let found = self.notes.find_entry(spread(reference), |noted| *noted == reference);
        let Ok(found) = found else { return false };
        found.remove();
        if self.notes.is_empty() {
            self.clear();
        }
        true
    }

    /// Forgets every note and gives the memory back.
    pub fn clear(&mut self) {
        self.notes = HashTable::new();
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        block_bytes(self.notes.allocation_size())
    }
}

/// References are hash bits already; the table wants them in both ends of 64 bits.
fn spread(reference: u32) -> u64 {
    u64::from(reference).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_note_is_used_once() {
        let mut departed = Departed::default();
        departed.note(7);
        departed.note(7);
        departed.note(0);
        let taken = [7, 7, 7, 0, 0, 1].map(|reference| departed.take(reference));
        assert_eq!(taken, [true, true, false, true, false, false]);
        assert_eq!((departed.len(), departed.bytes()), (0, 0));
    }
}
