//! A namespace reduced to what eviction sees of it: sharded tables of ids with heat, and the engine's own eviction order
//! over them, built late as the engine builds it. And the cache it is compared with.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use data_bridge_kv::evict::{Balance, HEAT_MAX, Order, Residents, Verdict, Visit};
use data_bridge_kv::settings::Eviction;

/// References are hashes already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only u32 is hashed");
    }

    fn write_u32(&mut self, reference: u32) {
        self.0 = u64::from(reference).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// Heat by reference.
#[derive(Default)]
struct Table(HashMap<u32, u8, BuildHasherDefault<AsIs>>);

impl Residents for Table {
    fn visit(&mut self, reference: u32, judge: impl FnOnce(u8) -> Verdict) -> Visit {
        let Entry::Occupied(mut entry) = self.0.entry(reference) else { return Visit::Gone };
        match judge(*entry.get()) {
            Verdict::Keep { heat } => {
                entry.insert(heat);
                Visit::Kept
            }
            Verdict::Evict => {
                entry.remove();
                Visit::Evicted { bytes: 1 }
            }
        }
    }
}

#[derive(Default)]
struct Shard {
    table: Table,
    order: Option<Order>,
}

/// Shards with a common budget in entries.
pub struct Namespace {
    policy: Eviction,
    shards: Vec<Shard>,
    balance: Option<Arc<Balance>>,
    capacity: usize,
    used: usize,
}

impl Namespace {
    /// An empty namespace.
    pub fn new(policy: Eviction, shards: usize, capacity: usize) -> Self {
        let shards = (0..shards).map(|_| Shard::default()).collect();
        Self { policy, shards, balance: None, capacity, used: 0 }
    }

    /// Requests every id in turn, storing those that are missing; the share of hits in percent.
    pub fn hit_ratio(&mut self, ids: &[u32]) -> f64 {
        let hits = ids.iter().filter(|id| self.request(**id)).count();
        hits as f64 * 100.0 / ids.len() as f64
    }

    /// Memory of the eviction order.
    pub fn order_bytes(&self) -> usize {
        self.shards.iter().filter_map(|shard| shard.order.as_ref()).map(Order::bytes).sum()
    }

    fn request(&mut self, id: u32) -> bool {
        // Both are bijections of the id, so that every id has a reference of its own.
        let (reference, place) = (mixed(id), mixed(id ^ 0x5BD1_E995) as usize % self.shards.len());
        if let Some(heat) = self.shards[place].table.0.get_mut(&reference) {
            *heat = (*heat + 1).min(HEAT_MAX);
            return true;
        }
        if self.used >= self.capacity - self.capacity / 16 && self.balance.is_none() {
            self.build();
        }
        while self.used >= self.capacity {
            self.evict();
        }
        let shard = &mut self.shards[place];
        shard.table.0.insert(reference, 0);
        shard.order.iter_mut().for_each(|order| order.insert(reference));
        self.used += 1;
        false
    }

    fn build(&mut self) {
        let balance = Arc::new(Balance::new(self.policy, self.shards.len()));
        for (number, shard) in self.shards.iter_mut().enumerate() {
            let mut in_hash_order: Vec<u32> = shard.table.0.keys().copied().collect();
            in_hash_order.sort_unstable();
            let mut order = Order::new(Arc::clone(&balance), number);
            order.adopt(in_hash_order);
            shard.order = Some(order);
        }
        self.balance = Some(balance);
    }

    fn evict(&mut self) {
        let victim = self
            .balance
            .as_ref()
            .and_then(|balance| balance.victim())
            .expect("a full namespace has a victim");
        let shard = &mut self.shards[victim.shard];
        if let Some(order) = &mut shard.order {
            self.used -= order.evict(victim.queue, &mut shard.table);
        }
    }
}

/// A bijection that spreads ids over 32 bits (the finish of MurmurHash3).
fn mixed(id: u32) -> u32 {
    let mut mixed = id;
    mixed = (mixed ^ mixed >> 16).wrapping_mul(0x85EB_CA6B);
    mixed = (mixed ^ mixed >> 13).wrapping_mul(0xC2B2_AE35);
    mixed ^ mixed >> 16
}

/// The share of hits in percent that one queue in exact order of use reaches.
pub fn true_lru(ids: &[u32], capacity: usize) -> f64 {
    let objects = ids.iter().max().map_or(0, |id| *id as usize + 1);
    // When each id was last used; 0: not in the cache. Uses that are not the last are skipped when met.
    let mut last_use = vec![0_u32; objects];
    let mut uses: VecDeque<(u32, u32)> = VecDeque::new();
    let (mut hits, mut used) = (0_usize, 0_usize);
    for (id, now) in ids.iter().zip(1_u32..) {
        if last_use[*id as usize] != 0 {
            hits += 1;
        } else if used < capacity {
            used += 1;
        } else {
            let is_last = |(id, at): &(u32, u32)| last_use[*id as usize] == *at;
            let (oldest, _) =
                uses.drain(..=uses.iter().position(is_last).unwrap_or(0)).next_back().unwrap_or((*id, 0));
            last_use[oldest as usize] = 0;
        }
        last_use[*id as usize] = now;
        uses.push_back((*id, now));
    }
    hits as f64 * 100.0 / ids.len() as f64
}
