//! Finds out that a member of a collection was there before, in linear time and whatever the members are.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use smallvec::SmallVec;

/// Up to this many hashes are compared one by one.
const FEW: usize = 16;
/// Room taken before the members were seen.
const AHEAD: usize = 4096;

/// The identity hashes seen so far. They are seeded, so a repeated hash almost surely is a repeated member; the caller
/// compares the members to be sure.
#[derive(Default)]
pub(super) struct Distinct {
    few: SmallVec<[u64; FEW]>,
    many: HashSet<u64, BuildHasherDefault<Passed>>,
}

impl Distinct {
    /// Room for `count` hashes, whatever a declared count says at most [`AHEAD`].
    pub(super) fn of(count: usize) -> Distinct {
        let mut distinct = Distinct::default();
        if count > FEW {
            distinct.many.reserve(count.min(AHEAD));
        }
        distinct
    }

    /// Adds a hash; false if it was there.
    pub(super) fn insert(&mut self, hash: u64) -> bool {
        if self.few.len() < FEW {
            let new = !self.few.contains(&hash);
            self.few.push(hash);
            return new;
        }
        if self.many.is_empty() {
            self.many.extend(&self.few);
        }
        self.many.insert(hash)
    }
}

/// A hasher that passes the hash it is given.
#[derive(Default)]
struct Passed(u64);

impl Hasher for Passed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
