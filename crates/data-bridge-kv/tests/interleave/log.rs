//! Group commit: append, gather, write, sync, tell. Whoever was told that a record is durable finds it after a power cut at
//! that moment, and everybody is told, once, whatever happens.

use std::io::ErrorKind;
use std::sync::Arc;

use data_bridge_kv::ManualClock;
use data_bridge_kv::sync::real::Mutex;
use data_bridge_kv::wal::{Lsn, NewRecord, Wal, WalPolicy};
use data_bridge_kv_testkit::disk::{Fault, FaultyDisk};
use shuttle::thread;

use crate::rig::{Meeting, START_MS, random, schedules};

const HEAD: NewRecord = NewRecord { namespace: 1, generation: 0, kind: 1 };

/// Little is accepted before it is written, so that there is waiting for room too.
const POLICY: WalPolicy =
    WalPolicy { segment_bytes: 4096, backlog_bytes: 160, sync_every_ms: 1000, fingerprint: 77 };

/// A log with its thread.
#[derive(Clone)]
struct Rig {
    disk: Meeting,
    wal: Arc<Wal>,
    /// What callbacks were told: the record, and whether it is durable.
    told: Arc<Mutex<Vec<(Lsn, bool)>>>,
}

fn open(disk: Arc<dyn data_bridge_kv::disk::Disk>) -> (Wal, Lsn) {
    let clock = Arc::new(ManualClock::new(START_MS));
    let (wal, recovered) = Wal::open(disk, clock, POLICY, &mut |_, _| Ok(())).expect("a log opens");
    (wal, recovered.last)
}

/// The last record on a disk.
fn last_on(image: FaultyDisk) -> Lsn {
    open(Arc::new(image)).1
}

impl Rig {
    fn new() -> Rig {
        let disk = Meeting::new();
        let wal = Arc::new(open(disk.disk()).0);
        wal.start().expect("a thread");
        Rig { disk, wal, told: Arc::default() }
    }

    fn append(&self, urgent: bool) -> Lsn {
        self.wal.wait_room(0);
        let size = random(80) as usize;
        self.wal.append(HEAD, &vec![7; size], urgent)
    }

    /// Appends and waits; whether that is durable.
    fn commit(&self) -> bool {
        let lsn = self.append(true);
        let is_durable = self.wal.wait_durable(lsn).is_ok();
        if is_durable {
            assert!(self.wal.durable() >= lsn, "told of {lsn} at {}", self.wal.durable());
            assert!(last_on(self.disk.image()) >= lsn, "{lsn} was acknowledged and is lost");
        }
        is_durable
    }

    /// Appends and lets itself be told.
    fn order(&self) -> Lsn {
        let lsn = self.append(false);
        let rig = self.clone();
        let then = move |outcome: Result<(), _>| {
            let is_durable = outcome.is_ok();
            assert!(!is_durable || last_on(rig.disk.image()) >= lsn, "{lsn} was acknowledged and is lost");
            rig.told.lock().push((lsn, is_durable));
        };
        self.wal.when_durable(lsn, Box::new(then));
        lsn
    }

    /// Whoever waits for two commits each and one who orders two, at once.
    fn crowd(&self) -> Vec<thread::JoinHandle<Vec<bool>>> {
        let commits = (0..2).map(|_| {
            let rig = self.clone();
            thread::spawn(move || vec![rig.commit(), rig.commit()])
        });
        let rig = self.clone();
        let orders = thread::spawn(move || {
            let _ = [rig.order(), rig.order()];
            Vec::new()
        });
        commits.chain([orders]).collect()
    }

    /// Closes the log; by then the two orders were told once each.
    fn end(&self) {
        self.wal.close();
        let mut told: Vec<Lsn> = self.told.lock().iter().map(|(lsn, _)| *lsn).collect();
        told.sort_unstable();
        told.dedup();
        assert_eq!((told.len(), self.told.lock().len()), (2, 2), "each is told once");
    }
}

fn join(threads: Vec<thread::JoinHandle<Vec<bool>>>) -> Vec<bool> {
    threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
}

fn commits() {
    let rig = Rig::new();
    let commits = join(rig.crowd());
    assert!(commits.iter().all(|is_durable| *is_durable), "nothing failed");
    rig.end();
    assert!(rig.told.lock().iter().all(|(_, is_durable)| *is_durable));
    assert_eq!((rig.wal.durable(), last_on(rig.disk.image())), (6, 6));
}

fn fails() {
    let rig = Rig::new();
    let error = [ErrorKind::Other, ErrorKind::StorageFull][random(2) as usize];
    let at = rig.disk.0.operations() + random(16);
    rig.disk.0.set_fault(Some(Fault { at, error, sticky: false }));
    let commits = join(rig.crowd());
    if commits.contains(&false) {
        assert!(rig.wal.failure().is_some(), "only a failure keeps a record from becoming durable");
        let durable = rig.wal.durable();
        assert!(!rig.commit() && rig.wal.durable() == durable, "nothing is acknowledged any more");
    }
    rig.end();
}

fn closes() {
    let rig = Rig::new();
    let crowd = rig.crowd();
    let closing = rig.clone();
    let closer = thread::spawn(move || closing.wal.close());
    join(crowd);
    closer.join().expect("no panic");
    rig.end();
}

#[test]
fn what_is_acknowledged_is_on_disk_and_everybody_is_told() {
    println!("{}", schedules("log::what_is_acknowledged_is_on_disk_and_everybody_is_told", 5000, commits));
}

#[test]
fn everybody_is_told_of_a_failure_and_nothing_is_acknowledged_after_it() {
    println!(
        "{}",
        schedules("log::everybody_is_told_of_a_failure_and_nothing_is_acknowledged_after_it", 5000, fails)
    );
}

#[test]
fn everybody_is_told_that_the_log_is_closed() {
    println!("{}", schedules("log::everybody_is_told_that_the_log_is_closed", 5000, closes));
}
