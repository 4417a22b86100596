//! The hash that reaches disk: XXH3-128 under a secret that a directory keeps for ever (decision 2). Its first 64 bits
//! place a key in tables and scans as [`KeyHash`] does, 96 bits of it are the key's identity in the cold tier.

use xxhash_rust::xxh3::xxh3_128_with_secret;

use super::KeyHash;
use crate::random::Random;

/// Bytes of the secret, as XXH3's own has.
const SECRET_BYTES: usize = 192;
/// What every directory hashes to tell whether it is opened under its own secret.
const PROBE: &[u8] = b"data-bridge-kv";

/// 96 bits of a key's stable hash: what the cold tier knows a key by. Ordered like [`KeyHash`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyId {
    high: u64,
    low: u32,
}

impl KeyId {
    /// Bytes of an identity.
    pub const BYTES: usize = 12;

    /// From its two parts: the hash that places the key, and 32 more bits.
    pub const fn new(hash: KeyHash, low: u32) -> KeyId {
        KeyId { high: hash.bits(), low }
    }

    /// The part that places the key in tables and scans.
    pub const fn hash(self) -> KeyHash {
        KeyHash::from_bits(self.high)
    }

    /// Big endian, so that bytes order as identities do.
    pub fn to_bytes(self) -> [u8; KeyId::BYTES] {
        let wide = u128::from(self.high) << 64 | u128::from(self.low) << 32;
        let mut bytes = [0; KeyId::BYTES];
        bytes.iter_mut().zip(wide.to_be_bytes()).for_each(|(to, from)| *to = from);
        bytes
    }

    /// Back from [`KeyId::to_bytes`].
    pub fn from_bytes(bytes: [u8; KeyId::BYTES]) -> KeyId {
        let mut wide = [0; 16];
        wide.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        let wide = u128::from_be_bytes(wide);
        KeyId { high: (wide >> 64) as u64, low: (wide >> 32) as u32 }
    }
}

/// Hashes keys under a secret.
#[derive(Clone)]
pub struct StableHasher {
    secret: Box<[u8; SECRET_BYTES]>,
}

impl StableHasher {
    /// The hasher whose secret grows from this seed: the same for ever. Nobody who chooses keys may guess it.
    pub fn new(seed: u64) -> StableHasher {
        let mut secret = Box::new([0; SECRET_BYTES]);
        let mut random = Random::new(seed);
        for part in secret.chunks_exact_mut(8) {
            part.copy_from_slice(&random.bits().to_le_bytes());
        }
        StableHasher { secret }
    }

    /// The identity of a key.
    #[inline]
    pub fn id(&self, key: &[u8]) -> KeyId {
        let hash = xxh3_128_with_secret(key, &*self.secret);
        KeyId { high: (hash >> 64) as u64, low: hash as u32 }
    }

    /// Tells hashers of different secrets apart without giving the secret away.
    pub fn fingerprint(&self) -> u64 {
        self.id(PROBE).high
    }
}

impl std::fmt::Debug for StableHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StableHasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These bytes are on disks: the hash of a key under a seed never changes.
    #[test]
    fn the_hash_is_the_same_for_ever() {
        let hasher = StableHasher::new(7);
        let ids: Vec<KeyId> = ["", "k", "key:00000001", &"long".repeat(100)]
            .iter()
            .map(|key| hasher.id(key.as_bytes()))
            .collect();
        let expected = [
            KeyId { high: 10640579933715597172, low: 3765653582 },
            KeyId { high: 3519919849760819840, low: 303876484 },
            KeyId { high: 1019059904184038336, low: 2987987904 },
            KeyId { high: 4260019085408531612, low: 1956342961 },
        ];
        assert_eq!(ids, expected);
    }

    #[test]
    fn bytes_keep_the_order_and_come_back() {
        let hasher = StableHasher::new(1);
        let mut ids: Vec<KeyId> = (0..1000_u32).map(|n| hasher.id(&n.to_le_bytes())).collect();
        ids.sort_unstable();
        assert!(ids.is_sorted_by_key(|id| id.to_bytes()) && ids.is_sorted_by_key(|id| id.hash()));
        assert!(ids.iter().all(|id| KeyId::from_bytes(id.to_bytes()) == *id));
    }

    #[test]
    fn secrets_differ() {
        let (one, other) = (StableHasher::new(1), StableHasher::new(2));
        assert_ne!(one.id(b"key"), other.id(b"key"));
        assert_ne!(one.fingerprint(), other.fingerprint());
        assert_eq!(one.fingerprint(), StableHasher::new(1).fingerprint());
    }
}
