//! Whoever waits for a shard gets it before work in the background that takes it again and again.

use std::sync::Arc;

use data_bridge_kv::sync::real::Mutex;
use data_bridge_kv::{Chore, Clock, ManualClock};
use shuttle::sync::mpsc::{Receiver, Sender, channel};
use shuttle::thread::{self, ThreadId};

use crate::rig::{START_MS, Store, schedules};

/// Keys that expire at once, and how many of them while a shard is locked.
const KEYS: usize = 600;
const BATCH: usize = 256;
/// More turns than a client takes until it waits for a shard.
const TURNS: usize = 200;

/// A clock that is read with a shard locked, by the thread that lets keys expire: then somebody is told, and comes as far as
/// he can.
struct Halting {
    time: ManualClock,
    told: Mutex<Option<(ThreadId, Sender<()>)>>,
}

impl Halting {
    fn halt_here(&self) -> Receiver<()> {
        let (tell, told) = channel();
        *self.told.lock() = Some((thread::current().id(), tell));
        told
    }
}

impl Clock for Halting {
    fn unix_ms(&self) -> u64 {
        let here = thread::current().id();
        let tell =
            self.told.lock().as_ref().filter(|(halts, _)| *halts == here).map(|(_, tell)| tell.clone());
        if let Some(tell) = tell {
            tell.send(()).expect("somebody listens");
            (0..TURNS).for_each(|_| thread::yield_now());
        }
        self.time.unix_ms()
    }
}

fn expires() {
    let clock = Arc::new(Halting { time: ManualClock::new(START_MS), told: Mutex::default() });
    let store = Arc::new(Store::open_with(None, |settings| settings.clock = clock.clone()));
    let caller = store.caller("default");
    for key in 0..KEYS {
        store.say(&caller, 0, &format!("SET {key} v PX 10"));
    }
    clock.time.advance(20);
    let told = clock.halt_here();
    let client = {
        let (store, caller) = (Arc::clone(&store), caller.clone());
        thread::spawn(move || {
            told.iter().map(|()| store.number(&caller, "DBSIZE") as usize).collect::<Vec<_>>()
        })
    };
    store.engine.do_chore(Chore::Expire);
    *clock.told.lock() = None;
    let mut found = client.join().expect("no panic");
    // Asked before the first batch.
    found.retain(|size| *size < KEYS);
    let after = [KEYS - BATCH, KEYS - 2 * BATCH, 0];
    assert_eq!(found, after, "whoever comes during a batch is answered before the next one");
}

#[test]
fn whoever_waits_for_a_shard_goes_before_the_background() {
    println!("{}", schedules("shards::whoever_waits_for_a_shard_goes_before_the_background", 2000, expires));
}
