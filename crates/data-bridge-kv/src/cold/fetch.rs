//! Reading what one command wants: several records side by side, neighbours as one, and a record that others are just
//! reading not again.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::pool::{Job, Pool};
use super::reader::{Fetched, Part, ReadError, Source, Verdict, read_bytes};
use super::segment::Segment;
use crate::sync::{Condvar, Mutex};

/// Bytes between two records that are rather read than left out: a device reads pages of so many.
const GAP_BYTES: u64 = 4096;
/// Most bytes that several records are read with as one.
const RUN_BYTES: u64 = 256 << 10;

/// What became of a record; several may have asked for it.
pub type Outcome = Result<Arc<Fetched>, ReadError>;

/// What one command wants to read.
pub struct Reading {
    part: Part,
    wants: Vec<Want>,
    outcomes: Vec<Option<Outcome>>,
}

/// A record, and how many bytes to read of it.
#[derive(Clone)]
struct Want {
    source: Source,
    bytes: u64,
}

impl Reading {
    /// This part of these records.
    pub fn new(sources: impl IntoIterator<Item = Source>, part: Part) -> Reading {
        let want = |source: Source| Want { bytes: source.first_bytes(part), source };
        let wants: Vec<Want> = sources.into_iter().map(want).collect();
        Reading { part, outcomes: wants.iter().map(|_| None).collect(), wants }
    }

    /// Reads what the system has in memory; answers whether that was all.
    pub fn at_once(&mut self) -> bool {
        let is_sized = |want: &Want| self.part == Part::Front || !want.source.is_unsized();
        for run in runs(&self.wants, is_sized) {
            let Some(bytes) = run.read_at_once() else { continue };
            for place in run.places.iter().copied() {
                let (Some(want), Some(outcome)) = (self.wants.get(place), self.outcomes.get_mut(place))
                else {
                    continue;
                };
                *outcome = match want.source.judge(run.part_of(&bytes, want), self.part) {
                    Ok(Verdict::Fetched(fetched)) => Some(Ok(Arc::new(fetched))),
                    Ok(Verdict::Short(_)) => None,
                    Err(error) => Some(Err(error)),
                };
            }
        }
        self.outcomes.iter().all(Option::is_some)
    }

    /// How many bytes everything takes at most, as far as that is known.
    pub fn bytes(&self) -> u64 {
        self.wants.iter().fold(0, |sum, want| want.bytes.saturating_add(sum))
    }

    /// Finds out the lengths that stand in the records alone. Blocks.
    pub fn measure(&mut self) {
        if self.part == Part::Front {
            return;
        }
        let unsized_ones =
            self.wants.iter_mut().zip(&mut self.outcomes).filter(|(want, _)| want.source.is_unsized());
        for (want, outcome) in unsized_ones {
            match want.source.measure() {
                Ok(total) => want.bytes = total,
                Err(error) => *outcome = Some(Err(error)),
            }
        }
    }

    /// What became of each, in the order in which they were wanted; none that was not read.
    pub fn into_outcomes(self) -> impl Iterator<Item = Outcome> {
        self.outcomes.into_iter().flatten()
    }
}

/// Records of one segment that are read as one.
struct Run {
    segment: Arc<Segment>,
    start: u64,
    end: u64,
    /// Which of the wants.
    places: Vec<usize>,
}

/// Puts together what is worth it of those that `is_meant` picks.
fn runs(wants: &[Want], is_meant: impl Fn(&Want) -> bool) -> Vec<Run> {
    let mut meant: Vec<(usize, &Want)> =
        wants.iter().enumerate().filter(|(_, want)| is_meant(want)).collect();
    meant.sort_unstable_by_key(|(_, want)| (Arc::as_ptr(&want.source.segment), want.source.offset()));
    let mut runs: Vec<Run> = Vec::new();
    for (place, want) in meant {
        let (start, end) = (want.source.offset(), want.source.offset().saturating_add(want.bytes));
        match runs.last_mut() {
            Some(run)
                if Arc::ptr_eq(&run.segment, &want.source.segment)
                    && start <= run.end.saturating_add(GAP_BYTES)
                    && end <= run.start.saturating_add(RUN_BYTES) =>
            {
                run.end = run.end.max(end);
                run.places.push(place);
            }
            _ => {
                runs.push(Run { segment: Arc::clone(&want.source.segment), start, end, places: vec![place] });
            }
        }
    }
    runs
}

impl Run {
    fn read_at_once(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.end.saturating_sub(self.start)).ok()?];
        // Whatever is wrong is told by the read that may wait.
        matches!(self.segment.file.read_cached_at(&mut bytes, self.start), Ok(true)).then_some(bytes)
    }

    /// What was read of one record.
    fn part_of(&self, bytes: &[u8], want: &Want) -> Vec<u8> {
        let start = want.source.offset().saturating_sub(self.start);
        let part = |start: u64, end: u64| bytes.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?);
        part(start, start.saturating_add(want.bytes)).unwrap_or_default().to_vec()
    }
}

/// Reads that are under way.
#[derive(Default)]
pub struct Reads {
    flights: Arc<Flights>,
    /// Threads that read what a command has to wait for.
    pub pool: Pool,
}

#[derive(Default)]
struct Flights {
    flying: Mutex<HashMap<Target, Arc<Flight>>>,
    coalesced: AtomicU64,
}

/// A part of a record; the segment by its address, which is its own as long as somebody reads from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Target {
    segment: usize,
    offset: u64,
    part: Part,
}

impl Target {
    fn of(source: &Source, part: Part) -> Target {
        Target { segment: Arc::as_ptr(&source.segment).addr(), offset: source.offset(), part }
    }
}

/// One read that several may wait for.
#[derive(Default)]
struct Flight {
    outcome: Mutex<Option<Outcome>>,
    landed: Condvar,
}

impl Flight {
    fn wait(&self) -> Outcome {
        let mut outcome = self.outcome.lock();
        loop {
            match &*outcome {
                Some(outcome) => return outcome.clone(),
                None => outcome = self.landed.wait(outcome),
            }
        }
    }
}

impl Reads {
    /// Reads with at most so many threads.
    pub fn of(threads: usize) -> Reads {
        Reads { flights: Arc::default(), pool: Pool::of(threads) }
    }

    /// How often a record was not read because somebody else was just reading it, or had read it ahead.
    pub fn coalesced(&self) -> u64 {
        self.flights.coalesced.load(Relaxed)
    }

    /// Reads the rest. Blocks: to be called without any lock.
    pub fn finish(&self, reading: &mut Reading) {
        let (mut own, mut others) = (Work::new(&self.flights, reading.part, false), Vec::new());
        let mut flying = self.flights.flying.lock();
        for (place, want) in reading.wants.iter().enumerate() {
            if reading.outcomes.get(place).is_some_and(Option::is_some) {
                continue;
            }
            let target = Target::of(&want.source, reading.part);
            let flight = match flying.entry(target) {
                Slot::Occupied(flight) => {
                    self.flights.coalesced.fetch_add(1, Relaxed);
                    Arc::clone(flight.get())
                }
                Slot::Vacant(free) => {
                    let flight = Arc::clone(free.insert(Arc::default()));
                    own.targets.push((target, Arc::clone(&flight)));
                    own.wants.push(want.clone());
                    flight
                }
            };
            others.push((place, flight));
        }
        drop(flying);
        self.carry_out(own);
        for (place, flight) in others {
            if let Some(outcome) = reading.outcomes.get_mut(place) {
                *outcome = Some(flight.wait());
            }
        }
    }

    /// Reads records that several commands are about to ask for one after the other. Blocks.
    pub fn read_ahead(&self, sources: Vec<Source>) -> Ahead {
        let mut work = Work::new(&self.flights, Part::Whole, true);
        let mut flying = self.flights.flying.lock();
        for source in &sources {
            let target = Target::of(source, Part::Whole);
            if let Slot::Vacant(free) = flying.entry(target) {
                work.targets.push((target, Arc::clone(free.insert(Arc::default()))));
                work.wants.push(Want { bytes: source.first_bytes(Part::Whole), source: source.clone() });
            }
        }
        drop(flying);
        let landing = work.targets.clone();
        self.carry_out(work);
        landing.iter().for_each(|(_, flight)| drop(flight.wait()));
        let targets = landing.into_iter().map(|(target, _)| target).collect();
        Ahead { flights: Arc::clone(&self.flights), targets, _sources: sources }
    }

    fn carry_out(&self, mut work: Work) {
        work.runs = runs(&work.wants, |_| true);
        let others = work.runs.len().saturating_sub(1).min(self.pool.threads());
        let work = Arc::new(work);
        for _ in 0..others {
            let work = Arc::clone(&work);
            let job: Job = Box::new(move || work.go_on());
            if self.pool.run(job).is_err() {
                break;
            }
        }
        work.go_on();
    }
}

/// Records that were read ahead: as long as this lives, whoever asks for one gets it without another read.
pub struct Ahead {
    flights: Arc<Flights>,
    targets: Vec<Target>,
    /// Their segments keep their addresses.
    _sources: Vec<Source>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let mut flying = self.flights.flying.lock();
        self.targets.iter().for_each(|target| drop(flying.remove(target)));
    }
}

/// What one command reads itself, in pieces that any thread may take.
struct Work {
    flights: Arc<Flights>,
    part: Part,
    wants: Vec<Want>,
    /// For each of the wants.
    targets: Vec<(Target, Arc<Flight>)>,
    runs: Vec<Run>,
    taken: AtomicUsize,
    /// Whether what was read stays known.
    is_kept: bool,
}

impl Work {
    fn new(flights: &Arc<Flights>, part: Part, is_kept: bool) -> Work {
        let (wants, targets, runs) = (Vec::new(), Vec::new(), Vec::new());
        Work { flights: Arc::clone(flights), part, wants, targets, runs, taken: AtomicUsize::new(0), is_kept }
    }

    /// Reads pieces until none is left.
    fn go_on(&self) {
        while let Some(run) = self.runs.get(self.taken.fetch_add(1, Relaxed)) {
            let bytes = read_bytes(&run.segment, run.start, run.end.saturating_sub(run.start));
            match (bytes, run.places.as_slice()) {
                (Ok(bytes), [only]) => self.land(*only, |want| want.source.complete(bytes, self.part)),
                (Err(error), [only]) => self.land(*only, |_| Err(error)),
                (Ok(bytes), several) => several.iter().for_each(|place| {
                    self.land(*place, |want| want.source.complete(run.part_of(&bytes, want), self.part));
                }),
                // It may be one of them only that can't be read.
                (Err(_), several) => {
                    several.iter().for_each(|place| self.land(*place, |want| want.source.read(self.part)));
                }
            }
        }
    }

    fn land(&self, place: usize, read: impl FnOnce(&Want) -> Result<Fetched, ReadError>) {
        let (Some(want), Some((target, flight))) = (self.wants.get(place), self.targets.get(place)) else {
            return;
        };
        let outcome = read(want).map(Arc::new);
        if !self.is_kept {
            self.flights.flying.lock().remove(target);
        }
        *flight.outcome.lock() = Some(outcome);
        flight.landed.notify_all();
    }
}
