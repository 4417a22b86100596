//! Tests of the eviction order as a whole, over a model of the table.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::settings::Eviction;

/// Entries with their heat; some cannot go, as a demotion in progress cannot.
#[derive(Default)]
struct Model {
    heat: BTreeMap<u32, u8>,
    held: BTreeSet<u32>,
    evicted: Vec<u32>,
    visits: usize,
}

impl Residents for Model {
    fn visit(&mut self, reference: u32, judge: impl FnOnce(u8) -> Verdict) -> Visit {
        self.visits += 1;
        let Some(heat) = self.heat.get_mut(&reference) else { return Visit::Gone };
        match judge(*heat) {
            Verdict::Keep { heat: kept } => {
                *heat = kept;
                Visit::Kept
            }
            Verdict::Evict if self.held.contains(&reference) => Visit::Kept,
            Verdict::Evict => {
                self.heat.remove(&reference);
                self.evicted.push(reference);
                Visit::Evicted { bytes: 1 }
            }
        }
    }
}

impl Model {
    fn touch(&mut self, reference: u32) {
        if let Some(heat) = self.heat.get_mut(&reference) {
            *heat = (*heat + 1).min(HEAT_MAX);
        }
    }
}

fn order(policy: Eviction) -> Order {
    Order::new(Arc::new(Balance::new(policy, 1)), 0)
}

/// Evicts until `count` entries are gone, as the engine does.
fn evict(order: &mut Order, model: &mut Model, count: usize) {
    let mut left = count;
    for _ in 0..1_000_000 {
        if left == 0 {
            return;
        }
        let victim = order.balance.victim().expect("entries are left, so there is a victim");
        left -= order.evict(victim.queue, model);
    }
    panic!("{left} of {count} could not be evicted");
}

fn insert(order: &mut Order, model: &mut Model, reference: u32) {
    model.heat.insert(reference, 0);
    order.insert(reference);
}

#[test]
fn a_touched_entry_outlives_untouched_ones() {
    let (mut order, mut model) = (order(Eviction::Lru), Model::default());
    (0..100).for_each(|reference| insert(&mut order, &mut model, reference));
    model.touch(0);
    model.touch(0);
    evict(&mut order, &mut model, 99);
    assert_eq!(model.heat.keys().collect::<Vec<_>>(), [&0]);
}

#[test]
fn popular_entries_survive_a_scan() {
    let (mut order, mut model) = (order(Eviction::Lru), Model::default());
    (0..100).for_each(|reference| insert(&mut order, &mut model, reference));
    for scanned in 1000..11_000 {
        (0..100).for_each(|popular| model.touch(popular));
        evict(&mut order, &mut model, 1);
        insert(&mut order, &mut model, scanned);
    }
    let survivors = (0..100).filter(|popular| model.heat.contains_key(popular)).count();
    assert!(
        survivors >= 90,
        "the small queue's tenth may go, but only {survivors} of 100 are left after the scan"
    );
}

#[test]
fn an_entry_that_comes_back_enters_main() {
    let (mut order, mut model) = (order(Eviction::Lru), Model::default());
    (0..100).for_each(|reference| insert(&mut order, &mut model, reference));
    evict(&mut order, &mut model, 10);
    let main = order.main.len();
    insert(&mut order, &mut model, 0);
    assert_eq!(order.main.len(), main + 1, "0 was evicted a moment ago");
    insert(&mut order, &mut model, 500);
    assert_eq!(order.main.len(), main + 1, "500 was never here");
}

#[test]
fn an_order_built_late_evicts_cold_entries_first() {
    let mut model = Model { heat: (0..1000).map(|reference| (reference, 0)).collect(), ..Model::default() };
    (0..1000).step_by(2).for_each(|reference| model.touch(reference));
    let references: Vec<u32> = model.heat.keys().copied().collect();
    let balance = Arc::new(Balance::new(Eviction::Lru, 1));
    let mut order = Order::new(balance, 0);
    order.adopt(references);
    evict(&mut order, &mut model, 500);
    assert!(model.evicted.iter().all(|reference| reference % 2 == 1), "an entry that was touched went first");
}

#[test]
fn the_victim_is_in_the_shard_with_the_oldest_entries() {
    let balance = Arc::new(Balance::new(Eviction::Lru, 4));
    let mut model = Model::default();
    let mut orders: Vec<Order> = (0..4).map(|shard| Order::new(Arc::clone(&balance), shard)).collect();
    for shard in [2, 0, 3, 1] {
        for reference in 0..100 {
            insert(&mut orders[shard], &mut model, shard as u32 * 1000 + reference);
        }
    }
    let mut first_shards = BTreeSet::new();
    for _ in 0..90 {
        let victim = balance.victim().expect("full");
        first_shards.insert(victim.shard);
        orders[victim.shard].evict(victim.queue, &mut model);
    }
    assert_eq!(first_shards, BTreeSet::from([2]));
}

#[test]
fn entries_that_cannot_go_stay_in_the_order() {
    let (mut order, mut model) = (order(Eviction::Lru), Model::default());
    (0..100).for_each(|reference| insert(&mut order, &mut model, reference));
    model.held = (0..50).collect();
    evict(&mut order, &mut model, 50);
    assert_eq!(order.len(), 50);
    model.held.clear();
    evict(&mut order, &mut model, 50);
    assert!(order.is_empty() && model.heat.is_empty());
}

#[test]
fn where_everything_was_touched_a_write_does_not_wait_for_a_whole_round() {
    for policy in [Eviction::Lru, Eviction::Lfu] {
        let mut model =
            Model { heat: (0..10_000).map(|reference| (reference, 3)).collect(), ..Model::default() };
        let balance = Arc::new(Balance::new(policy, 1));
        let mut order = Order::new(balance, 0);
        order.adopt(0..10_000);
        for count in 1..=100 {
            evict(&mut order, &mut model, 1);
            assert!(model.visits <= 65 * count, "{} visits for {count} entries", model.visits);
        }
    }
}

#[test]
fn references_without_an_entry_are_dropped() {
    let (mut order, mut model) = (order(Eviction::Lru), Model::default());
    (0..100).for_each(|reference| order.insert(reference));
    insert(&mut order, &mut model, 500);
    evict(&mut order, &mut model, 1);
    assert_eq!((model.evicted.as_slice(), order.len()), ([500].as_slice(), 0));
}

#[test]
fn keys_removed_and_set_again_for_ever_do_not_grow_the_queues() {
    let (mut order, mut model) = (order(Eviction::Lru), Model::default());
    (0..1000).for_each(|reference| insert(&mut order, &mut model, reference));
    for round in 0..200 {
        for reference in 0..1000 {
            order.remove(reference);
            insert(&mut order, &mut model, reference);
        }
        let slots = order.small.len() + order.main.len();
        assert!(slots < 1300 && order.len() == 1000, "round {round}: {slots} slots, {} entries", order.len());
    }
    evict(&mut order, &mut model, 1000);
    assert_eq!((model.heat.len(), order.len()), (0, 0));
}

#[test]
fn notes_of_entries_that_never_were_do_not_pile_up() {
    let (mut order, mut model) = (order(Eviction::Lru), Model::default());
    (0..1000).for_each(|reference| insert(&mut order, &mut model, reference));
    for stranger in 0..100_000_u32 {
        order.remove(1_000_000 + stranger);
    }
    assert!(order.departed.len() < 1000, "{} notes", order.departed.len());
}

#[test]
fn memory_stays_within_14_bytes_a_key_under_churn() {
    const KEYS: u32 = 100_000;
    let (mut order, mut model) = (order(Eviction::Lru), Model::default());
    (0..KEYS).for_each(|reference| insert(&mut order, &mut model, reference.wrapping_mul(0x9E37_79B1)));
    let mut most = 0.0_f64;
    for new in KEYS..6 * KEYS {
        let reference = new.wrapping_mul(0x9E37_79B1);
        if new % 3 == 0 {
            let oldest = *model.heat.keys().next().expect("full");
            model.heat.remove(&oldest);
            order.remove(oldest);
        } else {
            evict(&mut order, &mut model, 1);
        }
        insert(&mut order, &mut model, reference);
        if new % 5 == 0 {
            model.touch(reference);
            model.touch(reference);
        }
        if new % 1000 == 0 {
            most = most.max(order.bytes() as f64 / model.heat.len() as f64);
        }
    }
    assert!(most > 4.0 && most <= 14.0, "{most:.1} bytes a key");
}

#[test]
fn each_policy_admits_its_keys() {
    let admitted = |policy: Eviction| [policy.admits(false), policy.admits(true)];
    assert_eq!(admitted(Eviction::None), [false, false]);
    assert_eq!(admitted(Eviction::Lru), [true, true]);
    assert_eq!(admitted(Eviction::LruTtl), [false, true]);
    assert_eq!(admitted(Eviction::Lfu), [true, true]);
}

#[test]
fn lfu_gives_an_often_used_entry_more_rounds_than_lru() {
    let rounds = |policy| {
        let (mut order, mut model) = (order(policy), Model::default());
        insert(&mut order, &mut model, 0);
        (0..2).for_each(|_| model.touch(0));
        order.evict(Queue::Small, &mut model);
        (0..3).for_each(|_| model.touch(0));
        (0..10).take_while(|_| order.evict(Queue::Main, &mut model) == 0).count()
    };
    assert_eq!((rounds(Eviction::Lru), rounds(Eviction::Lfu)), (1, 3));
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u32),
    Remove(u32),
    Touch(u32),
    Evict,
}

fn step() -> impl Strategy<Value = Step> {
    let reference = 0..300_u32;
    prop_oneof![
        4 => reference.clone().prop_map(Step::Insert),
        3 => reference.clone().prop_map(Step::Remove),
        3 => reference.prop_map(Step::Touch),
        1 => Just(Step::Evict),
    ]
}

proptest! {
    /// Whatever happens, each entry has one slot: the order counts right, and draining it evicts each entry once.
    #[test]
    fn each_entry_has_one_slot(steps in prop::collection::vec(step(), 1..3000)) {
        let (mut order, mut model) = (order(Eviction::Lru), Model::default());
        for step in steps {
            match step {
                Step::Insert(reference) => {
                    if !model.heat.contains_key(&reference) {
                        insert(&mut order, &mut model, reference);
                    }
                }
                Step::Remove(reference) => {
                    if model.heat.remove(&reference).is_some() {
                        order.remove(reference);
                    }
                }
                Step::Touch(reference) => model.touch(reference),
                Step::Evict => {
                    let any = usize::from(!model.heat.is_empty());
                    evict(&mut order, &mut model, any);
                }
            }
            prop_assert_eq!(order.len(), model.heat.len());
        }
        let live: Vec<u32> = model.heat.keys().copied().collect();
        model.evicted.clear();
        evict(&mut order, &mut model, live.len());
        model.evicted.sort_unstable();
        prop_assert_eq!(model.evicted, live);
        prop_assert!(order.is_empty());
    }
}

#[test]
fn an_order_that_was_cleared_goes_on_with_what_comes() {
    let (mut order, mut model) = (order(Eviction::Lru), Model::default());
    (0..1000).for_each(|reference| insert(&mut order, &mut model, reference));
    (0..10).for_each(|reference| order.remove(reference));
    order.clear();
    assert!(order.is_empty() && order.balance.victim().is_none());
    model = Model::default();
    (0..100).for_each(|reference| insert(&mut order, &mut model, reference));
    assert_eq!(order.len(), 100);
    evict(&mut order, &mut model, 100);
    assert!(order.is_empty());
}
