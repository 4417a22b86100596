//! Space under entries that expire: what goes with its segment, and what has to be written again so that a segment can go.

use std::sync::Arc;

use data_bridge_kv::cold::reclaim::Pick;
use data_bridge_kv::cold::{Batch, Class, Log, NewRecord, Policy, Spot};
use data_bridge_kv::disk::Disk;
use data_bridge_kv::hash::KeyHash;
use data_bridge_kv::hash::stable::StableHasher;

use crate::Shards;

/// Seconds to live, and how many of a hundred entries have them: short answers, sessions, results of tasks, pages, and what
/// never expires.
const LIVES: [(Option<u64>, u64); 5] =
    [(Some(60), 40), (Some(600), 25), (Some(3600), 20), (Some(86_400), 10), (None, 5)];
/// When the first entry is written, unix ms.
const START: u64 = 1_700_000_000_000;
/// Entries a second, and for how many seconds of the simulated day.
const RATE: u64 = 400;
const SECONDS: u64 = 4 * 3600;
/// Space that is left alone, as the engine does.
const LEAST_SPACE: u64 = 2 << 20;

/// Lets entries come and expire for hours of a clock that is turned, `grouped` by deadline or not.
pub fn run(disk: Arc<dyn Disk>, hasher: &StableHasher, value: &[u8], grouped: bool) {
    let policy = policy(hasher);
    let (log, shards) = (Log::create(disk, policy).expect("an empty log"), Shards::new());
    let (mut batch, mut number) = (Batch::default(), 0_u64);
    let (mut written, mut moved, mut freed, mut most) = (0_u64, 0_u64, 0_u64, 0.0_f64);
    for second in 0..SECONDS {
        let now = START + second * 1000;
        if grouped {
            log.group(&mut batch, now);
        }
        for _ in 0..RATE {
            let key = format!("key:{number:012}");
            let id = hasher.id(key.as_bytes());
            let mut place = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            place %= 100;
            let life = LIVES.iter().find(|(_, share)| match place.checked_sub(*share) {
                Some(rest) => {
                    place = rest;
                    false
                }
                None => true,
            });
            let deadline = life.and_then(|(life, _)| *life).map(|life| now + life * 1000);
            let key = key.as_bytes();
            let entry =
                NewRecord { namespace: 0, generation: 0, id, key, version: number + 1, deadline, kind: 6 };
            batch.put(entry, |out| out.extend_from_slice(value));
            number += 1;
        }
        if second % 10 == 9 {
            log.append(&mut batch).expect("room");
            written += batch.bytes() as u64;
            for item in batch.items() {
                let spot = Spot::new(item.locator.expect("appended"), item.deadline(), item.kind());
                shards.of(item.id()).insert(item.id(), spot);
            }
            batch.clear();
            expire(&log, &shards, now);
            freed += log.drop_dead().expect("a disk that works");
            loop {
                let usage = log.usage();
                most = most.max(usage.bytes as f64 / usage.live_bytes.max(1) as f64);
                if usage.bytes <= (usage.live_bytes * 7 / 5).max(LEAST_SPACE) {
                    break;
                }
                let Some(done) = log.reclaim(&shards, Pick::Deadest(20)).expect("whole") else { break };
                moved += done.moved_bytes;
                freed += done.freed_bytes;
            }
        }
    }
    let (usage, mib) = (log.usage(), |bytes: u64| bytes as f64 / (1 << 20) as f64);
    println!(
        "churn, {}: {:.0} MiB written, {:.0} MiB written again ({:.2} bytes a byte), {:.0} MiB given back, {:.0} MiB for {:.0} MiB of live entries in the end",
        if grouped { "grouped by deadline" } else { "in order of arrival" },
        mib(written),
        mib(moved),
        (written + moved) as f64 / written as f64,
        mib(freed),
        mib(usage.bytes),
        mib(usage.live_bytes),
    );
}

/// Removes what has expired.
fn expire(log: &Log, shards: &Shards, now: u64) {
    for shard in &shards.0 {
        let mut shard = shard.lock();
        let mut gone = Vec::new();
        shard.expired(KeyHash::from_bits(0), now, usize::MAX, |id, spot| gone.push((id, spot)));
        for (id, spot) in gone {
            shard.remove(id);
            log.forget(0, 0, id, u64::MAX, spot.locator);
        }
    }
}

fn policy(hasher: &StableHasher) -> Policy {
    Policy {
        class: Class::Cache,
        is_durable: false,
        segment_bytes: 8 << 20,
        max_bytes: u64::MAX,
        batch_bytes: data_bridge_kv_model::limits::COLD_BATCH_BYTES,
        fingerprint: hasher.fingerprint(),
    }
}
