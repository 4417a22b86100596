//! A namespace at run time: its shards, made on the first write, its policy, and who watches its prefixes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use data_bridge_kv_model::limits::LOG_RECORD_SPARE_BYTES;
use data_bridge_kv_model::{Error, ErrorKind, Result};

use super::notice::{Change, Notices, event_item};
use super::waiters::Watcher;
use super::{ColdKeys, Shard};
use crate::budget::Budget;
use crate::cold::{Index, Log};
use crate::evict::Balance;
use crate::hash::stable::KeyId;
use crate::hash::{KeyHash, KeyHasher};
use crate::random::Random;
use crate::settings::{Eviction, NamespaceSettings};
use crate::sync::atomic::AtomicUsize;
use crate::sync::hint::spin_loop;
use crate::sync::{Mutex, MutexGuard, RwLock};
use crate::table::Outline;
use crate::wal::{Lsn, NewRecord, Wal};

/// Records of this kind have the effects of a step: see `mutation/bytes.rs`.
pub const EFFECTS: u8 = 1;
/// Records of this kind empty namespaces: see `mutation/clear.rs`.
pub const CLEAR: u8 = 2;
/// Turns of a loop that last longer than it takes a thread to wake.
const TURNS: usize = 2000;

/// What the namespaces of an engine begin with.
#[derive(Clone, Copy, Debug)]
pub struct Beginning {
    /// A namespace has `2^shard_bits` shards.
    pub shard_bits: u32,
    /// What versions are counted from: see [`Space::version`].
    pub base: u64,
    /// The sequence numbers of every shard go on above this.
    pub floor: u64,
    /// Seeds random picks.
    pub seed: u64,
    /// Unix ms.
    pub opened_ms: u64,
}

/// One namespace.
pub struct Space {
    settings: NamespaceSettings,
    hasher: KeyHasher,
    shard_bits: u32,
    /// Versions start above this: see [`Space::version`].
    base: u64,
    /// Every shard's first sequence number is above this.
    floor: u64,
    /// When the engine was opened, unix ms.
    opened_ms: u64,
    /// What the next random pick is seeded with.
    seeds: AtomicU64,
    budget: Arc<Budget>,
    balance: OnceLock<Arc<Balance>>,
    /// Shards whose eviction order has all entries: those below this number.
    ordered: AtomicUsize,
    shards: OnceLock<Box<[Cell]>>,
    prefixes: RwLock<Vec<(Box<[u8]>, Watcher)>>,
    prefix_count: AtomicUsize,
    log: Option<Arc<Log>>,
    number: u8,
    /// How many shards have an index that is still on disk.
    absent: AtomicUsize,
    journal: Option<Journaling>,
}

/// How the changes of a namespace are logged.
struct Journaling {
    /// Set once what the log had is replayed: changes are logged from then on.
    wal: Arc<OnceLock<Arc<Wal>>>,
    /// Whether answers wait for what they rest on.
    is_awaited: bool,
    /// Most bytes of a record.
    record_bytes: usize,
    /// The last record of this namespace, where answers wait.
    last: AtomicU64,
}

#[cold]
fn too_long(most: usize) -> Error {
    let message =
        format!("the changes of one command or atomic step may take {most} bytes in the log: use several");
    Error::new(ErrorKind::Limit, message)
}

/// A shard behind its lock, and what may be read without it. Neighbours share no cache line.
#[repr(C, align(64))]
struct Cell {
    shard: Mutex<Shard>,
    /// How many threads wait for it.
    waiting: AtomicUsize,
    outline: Arc<Outline>,
}

impl Cell {
    fn new(mut shard: Shard) -> Cell {
        Cell { outline: shard.outline(), shard: Mutex::new(shard), waiting: AtomicUsize::new(0) }
    }

    #[cold]
    fn wait(&self) -> MutexGuard<'_, Shard> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let guard = self.shard.lock();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        guard
    }
}

impl Space {
    /// Lets entries overflow to the cold tier; `number` is the namespace's there. Before the first write.
    pub fn with_cold(self, log: Arc<Log>, number: u8) -> Space {
        Space { log: Some(log), number, ..self }
    }

    /// Lets every change be logged, once the log is there; with `is_awaited` answers wait until what they rest on is on
    /// disk. Before the first write.
    pub fn with_wal(self, wal: Arc<OnceLock<Arc<Wal>>>, is_awaited: bool, record_bytes: usize) -> Space {
        Space { journal: Some(Journaling { wal, is_awaited, record_bytes, last: AtomicU64::new(0) }), ..self }
    }

    /// Whether changes are logged.
    #[inline]
    pub fn is_logged(&self) -> bool {
        self.journal.is_some()
    }

    /// The log that changes go to.
    #[inline]
    pub fn wal(&self) -> Option<&Arc<Wal>> {
        self.journal.as_ref()?.wal.get()
    }

    /// Whether the log is still to be carried out: until then nothing expires, because a record to come may have moved the
    /// deadline.
    pub fn is_replaying(&self) -> bool {
        self.is_logged() && self.wal().is_none()
    }

    /// The log that answers wait for.
    #[inline]
    pub fn awaited(&self) -> Option<&Arc<Wal>> {
        let journal = self.journal.as_ref().filter(|journal| journal.is_awaited)?;
        journal.wal.get()
    }

    /// Refuses a step whose record would have so many bytes, where that is more than a record may have.
    #[inline]
    pub fn check_record(&self, bytes: usize) -> Result<()> {
        match &self.journal {
            Some(journal) if bytes.saturating_add(LOG_RECORD_SPARE_BYTES) > journal.record_bytes => {
                Err(too_long(journal.record_bytes))
            }
            _ => Ok(()),
        }
    }

    /// Appends the effects of a step; its shards are locked.
    pub fn append(&self, effects: &[u8]) -> Option<Lsn> {
        self.append_by(|wal, head, is_awaited| wal.append(head, effects, is_awaited))
    }

    /// The same for effects of at most `most` bytes, which `write` appends to what is there.
    #[inline]
    pub fn append_with(&self, most: usize, write: impl FnOnce(&mut Vec<u8>)) -> Option<Lsn> {
        self.append_by(|wal, head, is_awaited| wal.append_with(head, most, is_awaited, write))
    }

    /// Appends the record that empties this namespace and perhaps others, whose shards are all locked.
    pub fn append_clear(&self, payload: &[u8], is_awaited: bool) -> Option<Lsn> {
        let head = NewRecord { namespace: self.number, generation: 0, kind: CLEAR };
        let lsn = self.wal()?.append(head, payload, is_awaited);
        self.note_record(lsn);
        Some(lsn)
    }

    /// Notes that a record has changes of this namespace.
    pub fn note_record(&self, lsn: Lsn) {
        if let Some(journal) = self.journal.as_ref().filter(|journal| journal.is_awaited) {
            journal.last.fetch_max(lsn, Ordering::Relaxed);
        }
    }

    #[inline]
    fn append_by(&self, append: impl FnOnce(&Wal, NewRecord, bool) -> Lsn) -> Option<Lsn> {
        let journal = self.journal.as_ref()?;
        let head = NewRecord { namespace: self.number, generation: 0, kind: EFFECTS };
        let lsn = append(journal.wal.get()?, head, journal.is_awaited);
        self.note_record(lsn);
        Some(lsn)
    }

    /// The last record of the namespace, for answers that rest on all of it; 0 where none waits.
    pub fn last_awaited(&self) -> Lsn {
        let journal = self.journal.as_ref().filter(|journal| journal.is_awaited);
        journal.map_or(0, |journal| journal.last.load(Ordering::Relaxed))
    }

    /// The cold tier's log, where there is one.
    #[inline]
    pub fn log(&self) -> Option<&Arc<Log>> {
        self.log.as_ref()
    }

    /// The number of the namespace in the cold tier.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The identity of a key; `None` without a cold tier.
    pub fn id(&self, key: &[u8]) -> Option<KeyId> {
        self.hasher.id(key)
    }

    /// The order in which entries leave memory: with a cold tier all of them take part.
    #[inline]
    pub fn order_policy(&self) -> Eviction {
        match (&self.log, self.settings.eviction) {
            (None, policy) | (Some(_), policy @ Eviction::Lfu) => policy,
            (Some(_), Eviction::Lru | Eviction::LruTtl | Eviction::None) => Eviction::Lru,
        }
    }

    /// An empty namespace of `2^shard_bits` shards.
    pub fn new(
        settings: NamespaceSettings,
        hasher: KeyHasher,
        Beginning { shard_bits, base, floor, seed, opened_ms }: Beginning,
        budget: Arc<Budget>,
    ) -> Space {
        Space {
            settings,
            hasher,
            shard_bits,
            base,
            floor,
            opened_ms,
            seeds: AtomicU64::new(seed),
            budget,
            balance: OnceLock::new(),
            ordered: AtomicUsize::new(0),
            shards: OnceLock::new(),
            prefixes: RwLock::default(),
            prefix_count: AtomicUsize::new(0),
            log: None,
            number: 0,
            absent: AtomicUsize::new(0),
            journal: None,
        }
    }

    /// The policy.
    pub fn settings(&self) -> &NamespaceSettings {
        &self.settings
    }

    /// The memory account.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// How many bits of a hash choose the shard.
    pub fn shard_bits(&self) -> u32 {
        self.shard_bits
    }

    /// How many shards.
    pub fn shard_count(&self) -> usize {
        1 << self.shard_bits
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        self.hasher.hash(key)
    }

    /// An empty shard beside those of the namespace, for copies of entries.
    pub fn spare_shard(&self) -> Shard {
        Shard::new(self.hasher.clone(), 0)
    }

    /// The index of a key's shard.
    #[inline]
    pub fn shard_of(&self, hash: KeyHash) -> usize {
        hash.shard(self.shard_bits)
    }

    /// Locks a shard. A shard of a namespace that was never written is made empty.
    #[inline]
    pub fn lock(&self, index: usize) -> MutexGuard<'_, Shard> {
        let cell = &self.shards()[index];
        cell.shard.try_lock().unwrap_or_else(|| cell.wait())
    }

    /// The same for work in the background that takes the lock again and again: it lets those go first who wait, or they would
    /// find it taken each time that they wake.
    pub fn lock_behind(&self, index: usize) -> MutexGuard<'_, Shard> {
        let waiting = &self.shards()[index].waiting;
        let mut left = TURNS;
        while waiting.load(Ordering::Relaxed) > 0 && left > 0 {
            left -= 1;
            spin_loop();
        }
        self.lock(index)
    }

    /// Locks a shard if nobody holds it.
    #[inline]
    pub fn try_lock(&self, index: usize) -> Option<MutexGuard<'_, Shard>> {
        self.shards()[index].shard.try_lock()
    }

    /// What a look ahead may read of the shard of a hash; `None` in a namespace that was never written.
    #[inline]
    pub fn outline(&self, hash: KeyHash) -> Option<&Outline> {
        self.shards.get()?.get(self.shard_of(hash)).map(|cell| &*cell.outline)
    }

    /// Notes that the index of a shard, of about so many keys, is still on disk.
    pub fn expect_index(&self, index: usize, keys: u64) {
        if let Some(cold) = self.lock(index).cold_mut() {
            cold.expect(usize::try_from(keys).unwrap_or(usize::MAX));
            self.absent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the index of some shard is still on disk: then a step may not begin on a shard before [`Shard::lacks_index`] was
    /// asked.
    #[inline]
    pub fn lacks_indexes(&self) -> bool {
        self.absent.load(Ordering::Relaxed) > 0
    }

    /// The index of a shard is there.
    pub fn put_index(&self, index: usize, found: Index) {
        let mut shard = self.lock(index);
        let was_absent = shard.lacks_index();
        shard.restore(self, found);
        // While the shard is locked: whoever locks it later finds the index, if he sees that none is absent.
        self.absent.fetch_sub(usize::from(was_absent), Ordering::Relaxed);
    }

    /// Whether anything was ever written here: an untouched namespace has no shards.
    pub fn is_touched(&self) -> bool {
        self.shards.get().is_some()
    }

    fn shards(&self) -> &[Cell] {
        self.shards.get_or_init(|| {
            let cold = || Some(ColdKeys::new(Arc::clone(self.log.as_ref()?), self.number, self.floor));
            let shard = |_| {
                let shard =
                    Shard::new(self.hasher.clone(), self.opened_ms).above(self.floor, self.journal.is_some());
                Cell::new(match cold() {
                    Some(cold) => shard.with_cold(cold),
                    None => shard,
                })
            };
            (0..self.shard_count()).map(shard).collect()
        })
    }

    /// A generator for the random picks of one command.
    pub fn random(&self) -> Random {
        Random::new(self.seeds.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Takes about `limit` more entries into the eviction orders, those of one shard; true once they have all.
    pub fn extend_orders(&self, limit: usize) -> bool {
        let index = self.ordered.load(Ordering::Relaxed);
        if index == self.shard_count() {
            return true;
        }
        let balance =
            self.balance.get_or_init(|| Arc::new(Balance::new(self.order_policy(), self.shard_count())));
        if self.lock(index).extend_order(balance, index, self.order_policy(), limit) {
            self.ordered.fetch_max(index + 1, Ordering::Relaxed);
        }
        false
    }

    /// What the eviction orders of the shards have in common, once there are any.
    pub fn balance(&self) -> Option<&Arc<Balance>> {
        self.balance.get()
    }

    /// The version of an entry with this sequence number. The base is unix ms times 2^20 when the engine was opened,
    /// so that versions from before a restart never come back: a shard would have to change a billion times a second
    /// all along to catch up. 63 bits, so that Redis integers hold it.
    #[inline]
    pub fn version(&self, sequence: u64) -> u64 {
        self.base.saturating_add(sequence)
    }

    /// The sequence number in a version of this store.
    pub fn sequence_of(&self, version: u64) -> u64 {
        version.saturating_sub(self.base)
    }

    /// Whether somebody watches a prefix.
    #[inline]
    pub fn has_prefix_watchers(&self) -> bool {
        self.prefix_count.load(Ordering::Relaxed) > 0
    }

    /// Starts telling `watcher` of changes of keys with this prefix.
    pub fn watch_prefix(&self, prefix: &[u8], watcher: Watcher) {
        let mut prefixes = self.prefixes.write();
        prefixes.push((prefix.into(), watcher));
        self.prefix_count.store(prefixes.len(), Ordering::Relaxed);
    }

    /// Ends the watches that `drops` picks.
    pub fn drop_prefix_watchers(&self, mut drops: impl FnMut(&Watcher) -> bool) {
        let mut prefixes = self.prefixes.write();
        prefixes.retain(|(_, watcher)| !drops(watcher));
        self.prefix_count.store(prefixes.len(), Ordering::Relaxed);
    }

    /// Adds the events that a change has for those who watch prefixes.
    pub fn notice_prefixes(&self, change: Change, key: &[u8], version: u64, notices: &mut Notices) {
        let prefixes = self.prefixes.read();
        let mut watchers = prefixes.iter().filter(|(prefix, _)| key.starts_with(prefix)).peekable();
        if watchers.peek().is_some() {
            let event = event_item(change, key, version);
            for (_, watcher) in watchers {
                notices.event(Arc::clone(&watcher.completions), watcher.watch, Arc::clone(&event));
            }
        }
    }
}
