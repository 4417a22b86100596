//! A small store on the cold tier: what an owner of shards does, without memory, commands or threads. It can be told to
//! make the mistakes that the tier must not survive unnoticed.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use data_bridge_kv::cold::reclaim::{Fate, Holder, Pick, Reclaimed};
use data_bridge_kv::cold::{
    Batch, Class, Index, Locator, Log, NewRecord, OpenError, Part, Policy, ReadError, Spot,
};
use data_bridge_kv::disk::Disk;
use data_bridge_kv::hash::KeyHash;
use data_bridge_kv::hash::stable::{KeyId, StableHasher};
use data_bridge_kv::opening::Opening;

/// A mistake that tests plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// None.
    Nothing,
    /// Reclaim lets the index point at whatever it moved.
    ReappendsOlder,
    /// A delete leaves no tombstone.
    ForgetsTombstones,
    /// A read does not compare the key.
    ServesCollisions,
}

/// The store: one namespace, a few shards.
pub struct Store {
    pub log: Log,
    hasher: StableHasher,
    /// Bits of an identity that are kept: few make keys collide.
    kept: u64,
    shards: RefCell<Vec<Index>>,
    /// The mark of the base that it was opened with.
    pub mark: Option<u64>,
    mistake: Mistake,
}

const NAMESPACE: u8 = 3;
const SHARD_BITS: u32 = 2;
const SHARDS: usize = 1 << SHARD_BITS;
const SEED: u64 = 77;

/// Why a get has no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum GetError {
    /// The record is not what was written, or another key's.
    Corrupt,
    /// The disk failed.
    Disk,
}

/// Small segments, so that there are many.
pub fn policy() -> Policy {
    Policy {
        class: Class::Task,
        is_durable: true,
        segment_bytes: 2000,
        max_bytes: 1 << 30,
        batch_bytes: data_bridge_kv_model::limits::COLD_BATCH_BYTES,
        fingerprint: StableHasher::new(SEED).fingerprint(),
    }
}

impl Store {
    pub fn create(disk: Arc<dyn Disk>, mistake: Mistake) -> io::Result<Store> {
        Ok(Store::of(Log::create(disk, policy())?, mistake))
    }

    /// One that does not outlive its process.
    pub fn overflow(disk: Arc<dyn Disk>) -> io::Result<Store> {
        let policy = Policy { is_durable: false, max_bytes: 1 << 20, ..policy() };
        Ok(Store::of(Log::create(disk, policy)?, Mistake::Nothing))
    }

    /// Opens what is there and builds the indexes anew.
    pub fn open(disk: Arc<dyn Disk>, mistake: Mistake) -> Result<Store, OpenError> {
        let mut store = Store::of(Log::open(disk, policy())?, mistake);
        let restore = |namespace, shard: usize, index| {
            assert_eq!(namespace, NAMESPACE);
            store.shards.borrow_mut()[shard] = index;
        };
        store.mark = store.log.restore(SHARD_BITS, &Opening::default(), |_, _, _| {}, restore)?;
        while let Some((namespace, shard)) = store.log.next_part(None) {
            store
                .log
                .load(namespace, shard, &mut |namespace, shard, index| restore(namespace, shard, index))?;
        }
        Ok(store)
    }

    /// Writes the index; nothing may wait for its tombstone.
    pub fn write_base(&self, mark: u64) -> io::Result<()> {
        let mut base = self.log.begin_base(SHARD_BITS, SHARDS)?;
        for (shard, index) in self.shards.borrow().iter().enumerate() {
            base.put(NAMESPACE, shard, index.all_from(KeyHash::from_bits(0)).collect())?;
        }
        base.finish(mark)
    }

    fn of(log: Log, mistake: Mistake) -> Store {
        let shards = RefCell::new((0..SHARDS).map(|_| Index::new()).collect());
        let hasher = StableHasher::new(SEED);
        Store { log, hasher, kept: u64::MAX, shards, mark: None, mistake }
    }

    /// Makes keys collide.
    pub fn weaken(&mut self, kept: u64) {
        self.kept = kept;
    }

    pub fn id(&self, key: &str) -> KeyId {
        let id = self.hasher.id(key.as_bytes());
        if self.kept == u64::MAX {
            id
        } else {
            KeyId::new(KeyHash::from_bits(id.hash().bits() & self.kept), 0)
        }
    }

    fn with<R>(&self, id: KeyId, act: impl FnOnce(&mut Index) -> R) -> R {
        act(&mut self.shards.borrow_mut()[id.hash().shard(SHARD_BITS)])
    }

    /// Writes these as one, with the tombstones that are due. What they overwrite was gone before, when memory got the new
    /// values; so after an error these keys are not here.
    pub fn put(&self, entries: &[(&str, u64, Option<u64>, &[u8])]) -> io::Result<()> {
        entries.iter().for_each(|(key, version, ..)| self.delete(key, *version));
        let mut batch = Batch::default();
        for (key, version, deadline, value) in entries {
            let id = self.id(key);
            let key = key.as_bytes();
            let entry = NewRecord {
                namespace: NAMESPACE,
                generation: 1,
                id,
                key,
                version: *version,
                deadline: *deadline,
                kind: 6,
            };
            assert!(batch.put(entry, |out| out.extend_from_slice(value)));
        }
        self.log.append(&mut batch)?;
        for item in batch.items() {
            if let Some(locator) = item.locator {
                let spot = Spot::new(locator, item.deadline(), item.kind());
                if let Some(before) = self.with(item.id(), |index| index.insert(item.id(), spot)) {
                    self.log.retire(before.locator);
                }
            }
        }
        Ok(())
    }

    /// The value of a key.
    pub fn get(&self, key: &str, now: u64) -> Result<Option<Vec<u8>>, GetError> {
        let id = self.id(key);
        let Some(spot) = self.with(id, |index| index.get(id)).filter(|spot| !spot.is_expired(now)) else {
            return Ok(None);
        };
        let source = self.log.source(spot.locator).ok_or(GetError::Corrupt)?;
        let fetched = source.read(Part::Whole).map_err(|error| match error {
            ReadError::Damaged => GetError::Corrupt,
            ReadError::Disk(_) => GetError::Disk,
        })?;
        let entry = match self.mistake {
            Mistake::ServesCollisions => fetched.any_entry(),
            _ => fetched.entry(NAMESPACE, key.as_bytes()),
        };
        Ok(Some(entry.ok_or(GetError::Corrupt)?.value.to_vec()))
    }

    /// The name that stands in the record of a key.
    pub fn name(&self, key: &str) -> Result<Option<String>, GetError> {
        let id = self.id(key);
        let Some(spot) = self.with(id, |index| index.get(id)) else { return Ok(None) };
        let source = self.log.source(spot.locator).ok_or(GetError::Corrupt)?;
        let fetched = source.read(Part::Front).map_err(|_| GetError::Corrupt)?;
        assert!(fetched.any_entry().is_none(), "its value was not read");
        let front = fetched.front().ok_or(GetError::Corrupt)?;
        Ok(Some(String::from_utf8(front.key.to_vec()).unwrap()))
    }

    /// Deletes a key by a change of this version; for good once the next put succeeded.
    pub fn delete(&self, key: &str, version: u64) {
        self.forget(self.id(key), version);
    }

    fn forget(&self, id: KeyId, version: u64) {
        if let Some(spot) = self.with(id, |index| index.remove(id)) {
            match self.mistake {
                Mistake::ForgetsTombstones => self.log.retire(spot.locator),
                _ => self.log.forget(NAMESPACE, 1, id, version, spot.locator),
            }
        }
    }

    /// Removes what has expired by a change of this version.
    pub fn expire(&self, now: u64, version: u64) {
        let mut gone = Vec::new();
        for shard in self.shards.borrow_mut().iter_mut() {
            shard.expired(KeyHash::from_bits(0), now, usize::MAX, |id, _| gone.push(id));
        }
        gone.into_iter().for_each(|id| self.forget(id, version));
    }

    pub fn reclaim(&self, pick: Pick) -> Result<Option<Reclaimed>, ReadError> {
        self.log.reclaim(self, pick)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.shards.borrow().iter().map(Index::len).sum()
    }
}

impl Holder for Store {
    fn judge(&self, namespace: u8, id: KeyId, at: Locator) -> Fate {
        assert_eq!(namespace, NAMESPACE);
        let points_there = self.with(id, |index| index.get(id)).is_some_and(|spot| spot.locator == at);
        if points_there || self.mistake == Mistake::ReappendsOlder { Fate::Moves } else { Fate::Dead }
    }

    fn knows(&self, _: u8, id: KeyId) -> bool {
        self.with(id, |index| index.get(id)).is_some()
    }

    fn relocate(&self, _: u8, id: KeyId, from: Locator, to: Locator) -> bool {
        if self.mistake == Mistake::ReappendsOlder {
            let spot = self.with(id, |index| index.get(id));
            let from = spot.map_or(from, |spot| spot.locator);
            return self.with(id, |index| index.relocate(id, from, to));
        }
        self.with(id, |index| index.relocate(id, from, to))
    }
}
