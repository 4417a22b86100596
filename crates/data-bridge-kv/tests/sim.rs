//! A simulation of the whole engine on one thread: clients, the log, the cold tier, checkpoints, snapshots, the clock and a
//! disk that tears, forgets, fails and fills up, in an order that a seed decides. The same seed does the same again.
//!
//! What any client was answered, or pushed, is never taken back by a crash, and what is there afterwards is a state that was,
//! for all keys of all namespaces together: held against the reference model. `KV_SIM_SEEDS` scales it, `KV_SEED` chooses
//! where it starts.

#[path = "sim/client.rs"]
mod client;
#[path = "sim/counts.rs"]
mod counts;
#[path = "sim/opened.rs"]
mod opened;
#[expect(dead_code, reason = "a run is not shrunk here")]
#[path = "model_equiv/plan.rs"]
mod plan;
#[path = "sim/trace.rs"]
mod trace;
#[path = "sim/wire.rs"]
mod wire;
#[path = "sim/witness.rs"]
mod witness;
#[path = "sim/world.rs"]
mod world;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use counts::Counts;
use data_bridge_kv::sync::real::Mutex;
use data_bridge_kv_testkit::random::setting;
use wire::Plant;
use world::World;

/// One seed of so many is run twice.
const TWICE: u64 = 16;

fn run(seed: u64) -> Result<Counts, String> {
    let again = |why: String| {
        format!("{why}\nreproduce: KV_SEED={seed} KV_SIM_SEEDS=1 cargo test -p data-bridge-kv --test sim")
    };
    let (trace, counts) = World::new(seed, Plant::Nothing).run().map_err(again)?;
    if seed.is_multiple_of(TWICE) {
        let (other, _) = World::new(seed, Plant::Nothing).run().map_err(again)?;
        if other.hash() != trace.hash() {
            let difference = trace.difference(&other).unwrap_or_default();
            return Err(again(format!("the same seed did something else: {difference}")));
        }
    }
    Ok(counts)
}

#[test]
fn what_was_answered_outlives_every_crash() {
    let (first, seeds) = (setting("KV_SEED", 1), setting("KV_SIM_SEEDS", 2000));
    let (next, all) = (AtomicU64::new(first), Mutex::new((Counts::default(), None::<(u64, String)>)));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= first + seeds || all.lock().1.is_some() {
                        return;
                    }
                    match run(seed) {
                        Ok(counts) => all.lock().0.add(&counts),
                        Err(why) => drop(all.lock().1.get_or_insert((seed, why))),
                    }
                }
            });
        }
    });
    let (counts, failed) = all.into_inner();
    if let Some((seed, why)) = failed {
        panic!("seed {seed}: {why}");
    }
    println!("{seeds} seeds, one in {TWICE} of them twice: {counts:?}");
    if seeds >= 1000 {
        counts.check_each(seeds);
    }
}

#[test]
fn every_planted_fault_is_found() {
    let mut found = Vec::new();
    for plant in [Plant::EarlyAnswer, Plant::NoLogSync, Plant::NoTierSync, Plant::NoNameSync] {
        let seed = (1..400).find(|seed| World::new(*seed, plant).run().is_err());
        found
            .push(format!("{plant:?} by seed {}", seed.unwrap_or_else(|| panic!("{plant:?} was not found"))));
    }
    println!("{} planted faults found: {}", found.len(), found.join(", "));
}
