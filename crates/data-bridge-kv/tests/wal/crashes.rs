//! Random sequences of appends, steps, waits, trims, errors, closings, kills and power cuts: after each of these the log
//! holds what was acknowledged, in order, from the life that wrote it.

use std::io::ErrorKind;
use std::sync::Arc;

use data_bridge_kv::sync::real::Mutex;
use data_bridge_kv::wal::Lsn;
use data_bridge_kv_testkit::disk::{Fault, FaultyDisk};
use data_bridge_kv_testkit::random::{Random, setting};

use crate::rig::{Rig, policy};

/// What waiters were told.
#[derive(Default)]
struct Told {
    /// The highest LSN that was acknowledged.
    durable: Lsn,
    /// How many were told, and how many asked.
    answers: usize,
    failures: usize,
}

/// A run: the log, and what it must hold.
struct Run {
    rig: Rig,
    random: Random,
    /// Which life wrote each record, from LSN 1 on.
    lives: Vec<u32>,
    told: Arc<Mutex<Told>>,
    asked: usize,
    /// LSNs from here on were never given up.
    kept_from: Lsn,
    images: usize,
}

impl Run {
    fn new(seed: u64) -> Run {
        let random = Random::new(seed);
        let told = Arc::default();
        Run { rig: Rig::new(), random, lives: Vec::new(), told, asked: 0, kept_from: 1, images: 0 }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..6 => self.append(),
            6..9 => drop(self.rig.wal.step()),
            9..11 => drop(self.rig.wal.commit(self.rig.wal.last())),
            11..13 => self.wait(),
            13 => self.rig.clock.advance(self.random.below(1500) as u64),
            14 => self.trim(),
            15..17 => drop(self.power_cut()),
            17 => {
                self.rig = self.power_cut();
                self.begin_life();
            }
            18 if self.random.one_in(2) => self.close(),
            18 => self.kill(),
            _ => self.break_disk(),
        }
    }

    fn append(&mut self) {
        for _ in 0..1 + self.random.below(8) {
            let urgent = self.random.one_in(4);
            self.rig.append(urgent);
            self.lives.push(self.rig.life);
        }
    }

    /// Asks to be told of an LSN.
    fn wait(&mut self) {
        let lsn = 1 + self.random.below(self.lives.len() + 1) as u64;
        if lsn > self.rig.wal.last() {
            return;
        }
        self.asked += 1;
        let told = Arc::clone(&self.told);
        let then = move |outcome: Result<(), _>| {
            let mut told = told.lock();
            told.answers += 1;
            match outcome {
                Ok(()) => told.durable = told.durable.max(lsn),
                Err(_) => told.failures += 1,
            }
        };
        self.rig.wal.when_durable(lsn, Box::new(then));
    }

    fn trim(&mut self) {
        let keep_from = 1 + self.random.below(self.rig.wal.durable() as usize + 1) as u64;
        self.kept_from = self.kept_from.max(keep_from);
        self.rig.wal.trim(keep_from).expect("no error was planned");
    }

    /// What a log must at least hold, whatever happens now.
    fn least(&self) -> Lsn {
        self.told.lock().durable.max(self.rig.wal.durable())
    }

    /// Opens what a power cut would leave.
    fn power_cut(&mut self) -> Rig {
        let least = self.least();
        let image = self.rig.disk.crash_image(self.random.bits());
        self.images += 1;
        self.open(&image, least)
    }

    fn open(&self, disk: &FaultyDisk, least: Lsn) -> Rig {
        let rig = Rig::open_as(disk, policy(), self.rig.life + 1).unwrap_or_else(|error| panic!("{error}"));
        let (first, last) = (rig.recovered.first, rig.recovered.last);
        assert!(first <= self.kept_from, "from {first}, but {} is needed", self.kept_from);
        assert!(last >= least, "up to {last}, but {least} was acknowledged");
        assert_eq!(rig.found, self.lives[first as usize - 1..last as usize], "{first} to {last}");
        rig
    }

    /// Takes stock after the log was opened again.
    fn begin_life(&mut self) {
        self.lives.truncate(self.rig.recovered.last as usize);
        *self.told.lock() = Told { durable: self.rig.recovered.last, ..Told::default() };
        self.asked = 0;
    }

    fn close(&mut self) {
        self.rig.wal.close();
        let told = self.told.lock();
        assert_eq!((told.answers, told.failures), (self.asked, 0));
        drop(told);
        self.rig = self.open(&self.rig.disk, self.lives.len() as u64);
        assert!(self.rig.recovered.was_closed && self.rig.recovered.cut.is_none());
        self.begin_life();
    }

    /// The process dies; the disk does not.
    fn kill(&mut self) {
        self.rig = self.open(&self.rig.disk, self.least());
        self.begin_life();
    }

    /// Something fails soon. Then nothing is acknowledged any more, and whoever waits is told.
    fn break_disk(&mut self) {
        let at = self.rig.disk.operations() + self.random.below(12) as u64;
        let error = *self.random.pick(&[ErrorKind::Other, ErrorKind::StorageFull, ErrorKind::Interrupted]);
        self.rig.disk.set_fault(Some(Fault { at, error, sticky: self.random.one_in(3) }));
        for _ in 0..1 + self.random.below(8) {
            self.append();
            self.wait();
            self.rig.wal.step();
            if self.random.one_in(4) {
                let keep_from = 1 + self.random.below(self.rig.wal.durable() as usize + 1) as u64;
                self.kept_from = self.kept_from.max(keep_from);
                drop(self.rig.wal.trim(keep_from));
            }
        }
        if self.rig.wal.failure().is_some() {
            let durable = self.rig.wal.durable();
            let told = self.told.lock();
            assert_eq!(told.answers, self.asked, "everybody is told");
            assert!(told.durable <= durable);
            drop(told);
            self.rig.disk.set_fault(None);
            for _ in 0..3 {
                self.append();
                self.wait();
                self.rig.wal.step();
                self.rig.clock.advance(2000);
            }
            assert_eq!(self.rig.wal.durable(), durable, "a failure is final");
            assert_eq!(self.told.lock().answers, self.asked, "everybody is told");
            assert!(self.rig.wal.admit(true).is_err());
            self.rig.wal.close();
            self.lives.truncate(self.rig.wal.last() as usize);
            self.rig = if self.random.one_in(2) {
                self.power_cut()
            } else {
                self.open(&self.rig.disk, self.least())
            };
            self.begin_life();
        }
        self.rig.disk.set_fault(None);
    }
}

#[test]
fn what_is_acknowledged_survives() {
    let (first, sequences) = (setting("KV_SEED", 0), setting("KV_SEQUENCES", 300));
    let (mut images, mut records) = (0, 0);
    for seed in first..first + sequences {
        println!("KV_SEED={seed} KV_SEQUENCES=1");
        let mut run = Run::new(seed);
        (0..120).for_each(|_| run.step());
        images += run.images;
        records += run.lives.len();
    }
    println!("{sequences} sequences, {images} images, {records} records in the end");
    assert!(sequences < 300 || images > 4000 && records > 30_000);
}
