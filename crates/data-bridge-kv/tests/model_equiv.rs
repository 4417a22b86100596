//! The engine against the reference model: seeded sequences of every command, alone, in batches and as atomic steps, under
//! a clock that the test turns. Every reply must be one that the model allows, every version must move exactly where
//! the model's does, and in the end both hold the same.
//!
//! `KV_SEQUENCES` scales it, `KV_SEED` chooses where it starts. A failure is shrunk and says how to see it again.

#[path = "model_equiv/pair.rs"]
mod pair;
#[path = "model_equiv/plan.rs"]
mod plan;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use data_bridge_kv_testkit::random::setting;
use pair::{Flaw, Pair, Tier};
use plan::{Plan, shrink};

/// Entries that engines read from disk.
static FETCHED: AtomicU64 = AtomicU64::new(0);
/// How often power was cut.
static CRASHES: AtomicU64 = AtomicU64::new(0);
/// Checkpoints that were written.
static CHECKPOINTS: AtomicU64 = AtomicU64::new(0);

/// How many replies were compared, and how many of them came the short way.
fn check(plan: &Plan, flaw: Flaw, tier: Tier) -> Result<(usize, usize), String> {
    let mut pair = Pair::open(plan, flaw, tier);
    for step in &plan.steps {
        pair.take(step).map_err(|why| format!("{why}\n  at {}", step.line()))?;
    }
    pair.compare_everything()?;
    if tier == Tier::Cold {
        FETCHED.fetch_add(pair.fetched(), Ordering::Relaxed);
    }
    CRASHES.fetch_add(pair.crashes as u64, Ordering::Relaxed);
    CHECKPOINTS.fetch_add(pair.checkpoints as u64, Ordering::Relaxed);
    Ok((pair.replies, pair.shortened.get()))
}

/// The first failing seed with its reason; the replies compared, and those that came the short way.
fn search(seeds: std::ops::Range<u64>, flaw: Flaw, tier: Tier) -> (Option<(u64, String)>, u64, u64) {
    let next = AtomicU64::new(seeds.start);
    let (replies, shortened) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = data_bridge_kv::sync::real::Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || !failed.lock().is_empty() {
                        return;
                    }
                    match check(&Plan::new(seed), flaw, tier) {
                        Ok((compared, short)) => {
                            replies.fetch_add(compared as u64, Ordering::Relaxed);
                            shortened.fetch_add(short as u64, Ordering::Relaxed);
                        }
                        Err(why) => drop(failed.lock().insert(seed, why)),
                    }
                }
            });
        }
    });
    (failed.into_inner().pop_first(), replies.into_inner(), shortened.into_inner())
}

/// Runs sequences; answers what was compared.
fn agree(sequences: u64, tier: Tier) -> String {
    let (first, sequences) = (setting("KV_SEED", 1), setting("KV_SEQUENCES", sequences));
    let (failed, replies, shortened) = search(first..first + sequences, Flaw::None, tier);
    if let Some((seed, _)) = failed {
        let (plan, why) = shrink(Plan::new(seed), |plan| check(plan, Flaw::None, tier).err());
        panic!(
            "{why}\nshrunk to\n{}\nreproduce: KV_SEED={seed} KV_SEQUENCES=1 cargo test -p data-bridge-kv --test model_equiv",
            plan.lines()
        );
    }
    assert!(replies > sequences * 10);
    assert!(tier != Tier::Hot || sequences < 100 || shortened > sequences / 4);
    format!("{sequences} sequences, {replies} replies compared, {shortened} of them came the short way")
}

#[test]
fn engine_and_model_agree() {
    println!("{}", agree(20_000, Tier::Hot));
}

/// Before each step every entry leaves memory, so that every command meets cold keys only.
#[test]
fn engine_and_model_agree_when_everything_is_cold() {
    println!("{}", agree(6000, Tier::Cold));
    let fetched = FETCHED.load(Ordering::Relaxed);
    println!("{fetched} entries read from disk");
    assert!(fetched > 10_000 || setting("KV_SEQUENCES", 6000) < 6000);
}

/// The power is cut between two steps, once in six: what was answered is there again, with its versions.
#[test]
fn engine_and_model_agree_although_the_power_is_cut() {
    println!("{}", agree(2000, Tier::Logged));
    let crashes = CRASHES.load(Ordering::Relaxed);
    println!("the power was cut {crashes} times");
    assert!(crashes > 10_000 || setting("KV_SEQUENCES", 2000) < 2000);
}

/// Between steps checkpoints are written, some of them on a disk that fails, entries leave memory, the power is cut, the store
/// closed: no key changes by that, and what changes follows the model.
#[test]
fn engine_and_model_agree_whatever_moves_to_disk() {
    println!("{}", agree(800, Tier::Kept));
    let checkpoints = CHECKPOINTS.load(Ordering::Relaxed);
    println!("{checkpoints} checkpoints were written");
    assert!(checkpoints > 5000 || setting("KV_SEQUENCES", 800) < 800);
}

#[test]
fn every_planted_flaw_is_found() {
    let mut found = Vec::new();
    for flaw in Flaw::ALL {
        let (failed, ..) = search(1..3000, flaw, Tier::Hot);
        let (seed, _) = failed.unwrap_or_else(|| panic!("{flaw:?} was not found in 3000 sequences"));
        found.push(format!("{flaw:?} by sequence {seed}"));
    }
    println!("{} planted flaws found: {}", found.len(), found.join(", "));
}
