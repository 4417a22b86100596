//! Random sequences of puts, overwrites, deletes, expiry, reclaims, errors, crashes and openings.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use data_bridge_kv::cold::Locator;
use data_bridge_kv::cold::reclaim::{Fate, Holder, Pick};
use data_bridge_kv::disk::Disk;
use data_bridge_kv::hash::stable::KeyId;
use data_bridge_kv_testkit::disk::{Fault, FaultyDisk};
use data_bridge_kv_testkit::random::{Random, setting};

use crate::store::{GetError, Mistake, Store};

/// What a key has: version, deadline and value.
type State = BTreeMap<String, (u64, Option<u64>, Vec<u8>)>;

/// One entry to be written: key, version, deadline, value.
type New = (String, u64, Option<u64>, Vec<u8>);

/// A run: the store, what it holds, and what may be found instead.
struct Run {
    disk: FaultyDisk,
    store: Store,
    random: Random,
    mistake: Mistake,
    /// What was accepted for good.
    durable: State,
    /// What the indexes say: `durable` and the deletes since the last put.
    now_there: State,
    /// What batches that failed since may have led to: all of one, or no more than its tombstones.
    in_doubt: Vec<State>,
    version: u64,
    time: u64,
    /// How many indexes were written, and how many openings had one.
    bases: u64,
    based: u64,
}

const KEYS: usize = 24;

impl Run {
    fn new(seed: u64, mistake: Mistake) -> Run {
        let disk = FaultyDisk::new();
        let store = Store::create(Arc::new(disk.clone()), mistake).unwrap();
        let state = State::new();
        Run {
            disk,
            store,
            random: Random::new(seed),
            mistake,
            durable: state.clone(),
            now_there: state,
            in_doubt: Vec::new(),
            version: 1,
            time: 1000,
            bases: 0,
            based: 0,
        }
    }

    fn key(&mut self) -> String {
        format!("key {}", self.random.below(KEYS))
    }

    fn step(&mut self) -> Result<(), String> {
        self.version += 1;
        match self.random.below(16) {
            0..6 => self.put(),
            6..9 => {
                let key = self.key();
                self.store.delete(&key, self.version);
                self.now_there.remove(&key);
            }
            9 => {
                self.time += self.random.below(300) as u64;
                self.store.expire(self.time, self.version);
            }
            10..13 => {
                let pick = if self.random.one_in(3) { Pick::Oldest } else { Pick::Deadest(20) };
                self.sometimes_failing(|store| drop(store.reclaim(pick)));
                // What moves takes the tombstones that wait along.
                self.in_doubt.push(self.now_there.clone());
            }
            13 => self.put_failing(),
            14 => self.write_base(),
            _ => return self.reopen(),
        }
        self.check(&self.store, &[&self.now_there], "")
    }

    /// Writes the index, and fails sometimes; then there is the one before, or this one.
    fn write_base(&mut self) {
        if self.store.put(&[]).is_err() {
            return self.in_doubt.push(self.now_there.clone());
        }
        self.durable = self.now_there.clone();
        self.in_doubt.clear();
        if self.random.one_in(3) {
            let at = self.disk.operations() + self.random.below(9) as u64;
            self.disk.set_fault(Some(Fault { at, error: ErrorKind::Other, sticky: false }));
        }
        self.bases += u64::from(self.store.write_base(self.version).is_ok());
        self.disk.set_fault(None);
    }

    /// A batch of entries, and the state that it leads to.
    fn batch(&mut self) -> (Vec<New>, State) {
        let mut state = self.now_there.clone();
        let count = self.random.below(6);
        let mut batch = Vec::new();
        for _ in 0..count {
            self.version += 1;
            let key = self.key();
            let deadline = self.random.one_in(3).then(|| self.time + self.random.below(900) as u64);
            let value = format!("{key} {} ", self.version).repeat(1 + self.random.below(12)).into_bytes();
            state.insert(key.clone(), (self.version, deadline, value.clone()));
            batch.push((key, self.version, deadline, value));
        }
        (batch, state)
    }

    fn put(&mut self) {
        let (batch, state) = self.batch();
        match put(&self.store, &batch) {
            Ok(()) => {
                self.durable = state.clone();
                self.now_there = state;
                self.in_doubt.clear();
            }
            Err(_) => {
                batch.iter().for_each(|(key, ..)| drop(self.now_there.remove(key)));
                self.in_doubt.extend([state, self.now_there.clone()]);
            }
        }
    }

    /// A put that fails somewhere, perhaps.
    fn put_failing(&mut self) {
        let at = self.disk.operations() + self.random.below(5) as u64;
        self.disk.set_fault(Some(Fault { at, error: ErrorKind::Other, sticky: self.random.one_in(2) }));
        self.put();
        self.disk.set_fault(None);
    }

    fn sometimes_failing(&mut self, act: impl FnOnce(&Store)) {
        if self.random.one_in(3) {
            let at = self.disk.operations() + self.random.below(12) as u64;
            self.disk.set_fault(Some(Fault { at, error: ErrorKind::Other, sticky: false }));
        }
        act(&self.store);
        self.disk.set_fault(None);
    }

    /// Cuts the power or not, and opens again, sometimes with a failure before.
    fn reopen(&mut self) -> Result<(), String> {
        let crashes = self.random.one_in(2);
        if crashes {
            self.disk.crash(self.random.bits());
        }
        if self.random.one_in(4) {
            let at = self.disk.operations() + self.random.below(9) as u64;
            self.disk.set_fault(Some(Fault { at, error: ErrorKind::Other, sticky: false }));
            drop(Store::open(Arc::new(self.disk.clone()), self.mistake));
            self.disk.set_fault(None);
            if self.random.one_in(2) {
                self.disk.crash(self.random.bits());
            }
        }
        self.store =
            Store::open(Arc::new(self.disk.clone()), self.mistake).map_err(|error| error.to_string())?;
        let allowed: Vec<&State> = [&self.durable].into_iter().chain(&self.in_doubt).collect();
        let found = allowed.iter().position(|state| self.check(&self.store, &[state], "").is_ok());
        let Some(found) = found else {
            let error = self.check(&self.store, &[&self.durable], "after opening: ").unwrap_err();
            return Err(format!("{error} (or {} others)", self.in_doubt.len()));
        };
        let state = allowed[found].clone();
        self.now_there = state.clone();
        self.durable = state;
        self.in_doubt.clear();
        self.based += u64::from(self.store.mark.is_some());
        if self.store.mark.is_some() && self.random.one_in(3) {
            self.compare_without_base()?;
        }
        Ok(())
    }

    /// Without the index everything is found all the same.
    fn compare_without_base(&mut self) -> Result<(), String> {
        let all =
            |store: &Store, time| (0..KEYS).map(|n| store.get(&format!("key {n}"), time)).collect::<Vec<_>>();
        let with = all(&self.store, self.time);
        self.disk.remove("cold-task-index").unwrap();
        self.store =
            Store::open(Arc::new(self.disk.clone()), self.mistake).map_err(|error| error.to_string())?;
        let without = all(&self.store, self.time);
        if with == without { Ok(()) } else { Err(format!("{with:?} with the index, without {without:?}")) }
    }

    /// Every key has what one of these states says.
    fn check(&self, store: &Store, states: &[&State], when: &str) -> Result<(), String> {
        for key in (0..KEYS).map(|n| format!("key {n}")) {
            let found = store.get(&key, self.time);
            let fits = states.iter().any(|state| {
                let live =
                    state.get(&key).filter(|(_, deadline, _)| deadline.is_none_or(|at| at > self.time));
                found == Ok(live.map(|(_, _, value)| value.clone()))
            });
            if !fits {
                let found =
                    found.map(|value| value.map(|value| String::from_utf8_lossy(&value).into_owned()));
                return Err(format!("{when}{key} is {found:?}, not {:?}", states[0].get(&key)));
            }
        }
        Ok(())
    }
}

fn put(store: &Store, batch: &[New]) -> std::io::Result<()> {
    let batch: Vec<(&str, u64, Option<u64>, &[u8])> =
        batch.iter().map(|(key, version, deadline, value)| (&**key, *version, *deadline, &**value)).collect();
    store.put(&batch)
}

/// Runs sequences until one fails, and answers how; or how many indexes were written and used.
fn run(seeds: std::ops::Range<u64>, steps: usize, mistake: Mistake) -> Result<(u64, u64), String> {
    let (mut bases, mut based) = (0, 0);
    for seed in seeds {
        let mut run = Run::new(seed, mistake);
        for step in 0..steps {
            run.step().map_err(|error| format!("KV_SEED={seed}, step {step}: {error}"))?;
        }
        (bases, based) = (bases + run.bases, based + run.based);
    }
    Ok((bases, based))
}

#[test]
fn nothing_deleted_or_overwritten_comes_back_and_nothing_gets_lost() {
    let (first, sequences) = (setting("KV_SEED", 1), setting("KV_SEQUENCES", 300));
    let (bases, based) = run(first..first + sequences, 150, Mistake::Nothing).unwrap();
    println!("{sequences} sequences of 150 steps, {bases} indexes written, {based} openings with one");
    assert!(bases > sequences && based > sequences);
}

/// The fault that a prototype had: reclaim wrote an older record over a newer one.
#[test]
fn an_older_record_over_a_newer_one_is_caught() {
    let error = run(1..100, 150, Mistake::ReappendsOlder).unwrap_err();
    assert!(error.contains("key"), "{error}");
}

#[test]
fn a_forgotten_tombstone_is_caught() {
    let error = run(1..100, 150, Mistake::ForgetsTombstones).unwrap_err();
    assert!(error.contains("after opening"), "{error}");
}

#[test]
fn a_colliding_key_is_never_served() {
    for (mistake, expected) in
        [(Mistake::Nothing, Err(GetError::Corrupt)), (Mistake::ServesCollisions, Ok(Some(b"two's".to_vec())))]
    {
        let mut store = Store::create(Arc::new(FaultyDisk::new()), mistake).unwrap();
        store.weaken(0);
        assert_eq!(store.id("one"), store.id("two"));
        store.put(&[("one", 1, None, b"one's"), ("two", 2, None, b"two's")]).unwrap();
        assert_eq!(store.get("one", 0), expected, "what a store would answer that {mistake:?}");
        assert_eq!(store.get("two", 0), Ok(Some(b"two's".to_vec())));
    }
}

/// Each operation of a script fails once; then the script is run to its end and everything must be as it says.
#[test]
fn after_any_one_error_the_store_goes_on() {
    let script = |store: &Store| -> State {
        let mut state = State::new();
        for round in 0..12_u64 {
            let batch: Vec<_> = (0..4_u64)
                .map(|n| {
                    let version = 2 + round * 10 + n;
                    let key = format!("key {}", (round * 3 + n) % KEYS as u64);
                    (key, version, None, format!("value {version} ").repeat(20).into_bytes())
                })
                .collect();
            // What did not get in is tried again, as a demoter would.
            if put(store, &batch).is_err() {
                put(store, &batch).unwrap();
            }
            state.extend(
                batch.into_iter().map(|(key, version, deadline, value)| (key, (version, deadline, value))),
            );
            let gone = format!("key {}", round % KEYS as u64);
            store.delete(&gone, 9 + round * 10);
            state.remove(&gone);
            drop(store.reclaim(Pick::Deadest(10)));
        }
        if store.put(&[]).is_err() {
            store.put(&[]).unwrap();
        }
        state
    };
    let counted = FaultyDisk::new();
    let store = Store::create(Arc::new(counted.clone()), Mistake::Nothing).unwrap();
    let (first, state) = (counted.operations(), script(&store));
    let last = counted.operations();
    let mut seen = 0;
    for at in first..last {
        for error in [ErrorKind::Other, ErrorKind::StorageFull] {
            let run = Run::new(at, Mistake::Nothing);
            run.disk.set_fault(Some(Fault { at, error, sticky: false }));
            let found = script(&run.store);
            assert_eq!(found, state);
            run.check(&run.store, &[&state], "").unwrap_or_else(|error| panic!("operation {at}: {error}"));
            run.disk.crash(at);
            let again = Store::open(Arc::new(run.disk.clone()), Mistake::Nothing).unwrap();
            run.check(&again, &[&state], "")
                .unwrap_or_else(|error| panic!("operation {at}, opened: {error}"));
            assert_eq!(again.len(), state.len());
            seen += 1;
        }
    }
    println!("{seen} errors");
    assert!(seen > 200);
}

/// An owner whose entries change when they have been written to their new place.
struct Changing<'s>(&'s Store);

impl Holder for Changing<'_> {
    fn judge(&self, namespace: u8, id: KeyId, at: Locator) -> Fate {
        self.0.judge(namespace, id, at)
    }

    fn knows(&self, namespace: u8, id: KeyId) -> bool {
        self.0.knows(namespace, id)
    }

    fn relocate(&self, namespace: u8, id: KeyId, from: Locator, to: Locator) -> bool {
        self.0.put(&[("written", 10, None, b"newer")]).unwrap();
        self.0.delete("deleted", 11);
        self.0.relocate(namespace, id, from, to)
    }
}

#[test]
fn an_entry_that_changes_while_it_moves_stays_as_it_is() {
    let disk = FaultyDisk::new();
    let store = Store::create(Arc::new(disk.clone()), Mistake::Nothing).unwrap();
    for (version, key) in (2..).zip(["written", "deleted", "kept"]) {
        store.put(&[(key, version, None, b"older")]).unwrap();
    }
    store.put(&[("large", 5, None, &[1; 3000])]).unwrap();
    let done = store.log.reclaim(&Changing(&store), Pick::Oldest).unwrap().unwrap();
    assert_eq!(done.moved, 1, "of three");
    let check = |store: &Store| {
        let found = ["written", "deleted", "kept"].map(|key| store.get(key, 0).unwrap());
        assert_eq!(found, [Some(b"newer".to_vec()), None, Some(b"older".to_vec())]);
    };
    check(&store);
    store.put(&[]).unwrap();
    disk.crash(1);
    check(&Store::open(Arc::new(disk), Mistake::Nothing).unwrap());
}

/// The removal of a segment was not synced, which only the process knew that did it; the next one took the tombstones away
/// that buried what was in it; then the power went, and it was there again.
#[test]
fn a_segment_that_comes_back_brings_nothing_back() {
    for (in_reclaim, seed) in [false, true].into_iter().flat_map(|way| (0..20).map(move |seed| (way, seed))) {
        let disk = FaultyDisk::new();
        let open = || Store::open(Arc::new(disk.clone()), Mistake::Nothing).unwrap();
        let store = open();
        store.put(&[("gone", 2, None, &[1; 1500])]).unwrap();
        store.put(&[("there", 3, None, &[2; 1500])]).unwrap();
        store.delete("gone", 4);
        store.put(&[("other", 5, None, &[3; 1500])]).unwrap();
        let names = disk.list().unwrap();
        disk.set_fault(Some(Fault { at: disk.operations() + 1, error: ErrorKind::Other, sticky: false }));
        let dropped = store.log.drop_dead();
        disk.set_fault(None);
        let left = disk.list().unwrap();
        assert!(!left.contains(&names[0]), "the first one goes: {dropped:?}");
        // As if that sync had failed, if there was none.
        disk.set_fault(Some(Fault { at: disk.operations(), error: ErrorKind::Other, sticky: false }));
        disk.sync_names().unwrap_err();
        disk.set_fault(None);

        let store = open();
        store.delete("there", 6);
        store.delete("other", 7);
        store.put(&[("last", 8, None, &[4; 1500])]).unwrap();
        while if in_reclaim {
            store.reclaim(Pick::Oldest).unwrap().is_some_and(|done| done.freed_bytes > 0)
                && disk.list().unwrap().iter().any(|name| left.contains(name))
        } else {
            store.log.drop_dead().unwrap() > 0
        } {}
        assert!(!disk.list().unwrap().iter().any(|name| left.contains(name)), "{:?}", disk.list());
        disk.crash(seed);
        assert!(disk.list().unwrap().contains(&names[0]), "it is there again");
        let store = open();
        assert_eq!(store.get("gone", 0), Ok(None));
        assert_eq!(store.get("last", 0), Ok(Some(vec![4; 1500])));
        assert!(!disk.list().unwrap().contains(&names[0]));
    }
}

#[test]
fn a_full_disk_refuses_and_resumes() {
    let disk = FaultyDisk::new();
    let store = Store::overflow(Arc::new(disk.clone())).unwrap();
    let value = vec![b'v'; 500];
    disk.set_capacity(Some(6000));
    let keys: Vec<String> = (0..40).map(|n| format!("key {n}")).collect();
    let mut written = Vec::new();
    for (version, key) in (2..).zip(&keys) {
        match store.put(&[(key, version, None, &value)]) {
            Ok(()) => written.push(key),
            Err(error) => assert_eq!(error.kind(), ErrorKind::StorageFull),
        }
    }
    assert!((5..20).contains(&written.len()), "{}", written.len());
    for key in &keys {
        let expected = written.contains(&key).then(|| value.clone());
        assert_eq!(store.get(key, 0), Ok(expected), "{key}");
    }
    let gone = written.len() - 2;
    written.drain(..gone).for_each(|key| store.delete(key, 100));
    assert!(store.log.drop_dead().unwrap() > 0);
    store.put(&[("key 39", 101, None, &value)]).unwrap();
    assert_eq!(store.get("key 39", 0), Ok(Some(value)));
}

#[test]
fn the_limit_of_the_log_is_a_full_disk() {
    let store = Store::overflow(Arc::new(FaultyDisk::new())).unwrap();
    let limit = store.log.policy().max_bytes;
    let large = vec![0; 10_000];
    let accepted = (1..200).take_while(|version| match store.put(&[("key", *version, None, &large)]) {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::StorageFull);
            false
        }
    });
    let accepted = accepted.count() as u64;
    assert!((limit / 12_000..limit / 10_000).contains(&accepted), "{accepted}");
    assert!(store.log.usage().bytes <= limit);
}
