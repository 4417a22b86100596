//! Keyed hashing of keys: which shard a key lives in and where it stands in its shard's table.
//!
//! One 64-bit hash serves both, from disjoint bits: the shard index comes from the low bits; directory, tag,
//! group, scan order and timer references come from the high ones. The seed is handed in by whoever opens
//! the engine, so that a simulated run is repeatable. A store without a directory draws a seed per process;
//! nothing outside this file knows which function is behind it.

pub mod stable;

use std::hash::Hasher;

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;

use stable::{KeyId, StableHasher};

/// The hash of a key under the engine's seed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyHash(u64);

impl KeyHash {
    /// The hash with these bits, as a scan cursor or a test gives them.
    #[inline]
    pub const fn from_bits(bits: u64) -> KeyHash {
        KeyHash(bits)
    }

    /// All 64 bits; they order a shard's entries for scans.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The shard among `2^shard_bits` (at most 16) shards.
    #[inline]
    pub const fn shard(self, shard_bits: u32) -> usize {
        (self.0 & ((1 << shard_bits) - 1)) as usize
    }

    /// The top `depth` (at most 63) bits as a number.
    #[inline]
    pub const fn prefix(self, depth: u32) -> usize {
        // Two shifts, because a depth of 0 would shift by 64.
        ((self.0 >> 1) >> (63 - depth)) as usize
    }

    /// The 16 bits that follow the top `depth` (at most 48) ones.
    #[inline]
    pub const fn tag(self, depth: u32) -> u16 {
        ((self.0 << depth) >> 48) as u16
    }

    /// The high half: a short reference to an entry that timer wheel and eviction rings keep. Two entries may
    /// share it, so whoever follows it checks the entry.
    #[inline]
    pub const fn position(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Hashes keys under one seed. Every table of a namespace uses the same one.
#[derive(Clone, Debug)]
pub struct KeyHasher {
    seed: u64,
    shared: SharedSeed,
    /// Where keys have identities on disk, these place them too, so that scans see one order.
    stable: Option<StableHasher>,
    /// Tests make hashes collide by keeping only these bits.
    #[cfg(test)]
    kept: u64,
}

impl KeyHasher {
    /// A hasher under `seed`, which must not be guessable by whoever chooses the keys.
    pub fn new(seed: u64) -> KeyHasher {
        KeyHasher {
            seed,
            shared: SharedSeed::from_u64(seed.rotate_left(32)),
            stable: None,
            #[cfg(test)]
            kept: u64::MAX,
        }
    }

    /// A hasher for a store with a cold tier: hashes are the first bits of identities.
    pub fn stable(seed: u64) -> KeyHasher {
        KeyHasher { stable: Some(StableHasher::new(seed)), ..KeyHasher::new(seed) }
    }

    /// The identity of a key; `None` for a store without a cold tier.
    pub fn id(&self, key: &[u8]) -> Option<KeyId> {
        self.stable.as_ref().map(|stable| stable.id(key))
    }

    /// A hasher whose hashes keep only the bits of `kept`, so that different keys collide.
    #[cfg(test)]
    pub(crate) fn weak(seed: u64, kept: u64) -> KeyHasher {
        KeyHasher { kept, ..KeyHasher::new(seed) }
    }

    /// The hash of a key's bytes.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        let bits = match &self.stable {
            None => {
                let mut hasher = FoldHasher::with_seed(self.seed, &self.shared);
                hasher.write(key);
                hasher.finish()
            }
            Some(stable) => stable_bits(stable, key),
        };
        #[cfg(test)]
        let bits = bits & self.kept;
        KeyHash(bits)
    }
}

#[inline(never)]
fn stable_bits(stable: &StableHasher, key: &[u8]) -> u64 {
    stable.id(key).hash().bits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_seed_decides_and_repeats() {
        let (one, other) = (KeyHasher::new(1), KeyHasher::new(2));
        assert_eq!(one.hash(b"key"), KeyHasher::new(1).hash(b"key"));
        assert_ne!(one.hash(b"key"), other.hash(b"key"));
        assert_ne!(one.hash(b"key"), one.hash(b"kez"));
        assert_ne!(one.hash(b""), one.hash(b"\0"));
    }

    #[test]
    fn parts_are_disjoint_bits() {
        let hash = KeyHash::from_bits(0x1234_5678_9abc_def0);
        assert_eq!(hash.position(), 0x1234_5678);
        assert_eq!(hash.shard(0), 0);
        assert_eq!(hash.shard(5), 0x10);
        assert_eq!(hash.shard(8), 0xf0);
    }

    #[test]
    fn similar_keys_spread_over_shards_and_positions() {
        let hasher = KeyHasher::new(7);
        let mut shards = [0u32; 32];
        let mut high = HashSet::new();
        for number in 0..32_000u32 {
            let hash = hasher.hash(format!("key:{number:08}").as_bytes());
            shards[hash.shard(5)] += 1;
            high.insert(hash.position() >> 16);
        }
        assert!(shards.iter().all(|&count| (800..1200).contains(&count)), "{shards:?}");
        // 32,000 draws from 65,536 values leave about 25,300 distinct ones.
        assert!((24_800..25_800).contains(&high.len()), "{}", high.len());
    }
}
