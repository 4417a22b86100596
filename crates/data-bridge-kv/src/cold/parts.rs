//! The indexes of shards come from disk one by one, when somebody needs them. A base says where each has its part; what was
//! appended behind it is read when the log is opened, because it lies about. Whoever loads a shard that another is just loading
//! waits for that; those who load different ones do not meet.
//!
//! Until all are loaded no segment may be removed, nor anything be appended: where the checksum of a part does not hold, or
//! anything else is not as it should be, its shard is built anew from the keys in the segments. So is everything, at once,
//! where there is no base.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::base::{Base, Part};
use super::format::{HEADER_BYTES, KeyLine, KeyState};
use super::index::{ENTRY_BYTES, Index, Spot};
use super::recovery::OpenError;
use super::segment::Locator;
use super::writer::Log;
use crate::hash::stable::KeyId;
use crate::opening::{Opening, Stage};
use crate::sync::{Condvar, Mutex};

/// More items than any log has.
pub(super) const NO_BASE: u64 = 1 << 62;
/// A log is rebuilt in parts of two to this many bytes.
const REBUILT_BITS: u32 = 30;

/// A shard: its namespace and number.
type Shard = (u8, usize);
/// What the keys of a batch say, and where the entry stands.
pub(super) type Line = (KeyLine, Option<Locator>);

/// The shards whose indexes are still on disk.
#[derive(Default)]
pub(super) struct Parts {
    state: Mutex<State>,
    /// One is loaded, or could not be.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    source: Option<Arc<Source>>,
    waiting: BTreeMap<Shard, Work>,
    under_way: BTreeSet<Shard>,
}

/// Where the parts come from.
struct Source {
    base: Base,
    /// By slot, where the segments end that the base may mean.
    ends: Vec<u64>,
}

/// What is to be done for a shard.
enum Work {
    /// Its part is to be read, if it has one, and what was appended behind the base to be added.
    Load(Option<Part>, Vec<Line>),
    /// Its part is damaged.
    Rebuild,
}

/// Shards that a thread loads. Those that are not loaded in the end wait again.
struct UnderWay<'l> {
    parts: &'l Parts,
    work: BTreeMap<Shard, Work>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.parts.state.lock();
        for (shard, work) in std::mem::take(&mut self.work) {
            state.under_way.remove(&shard);
            state.waiting.insert(shard, work);
        }
        self.parts.changed.notify_all();
    }
}

impl UnderWay<'_> {
    /// A shard is loaded.
    fn end(&mut self, shard: Shard) {
        self.work.remove(&shard);
        let mut state = self.parts.state.lock();
        state.under_way.remove(&shard);
        if state.waiting.is_empty() && state.under_way.is_empty() {
            state.source = None;
        }
        self.parts.changed.notify_all();
    }

    /// Takes over what waits of these shards.
    fn take(&mut self, is_meant: impl Fn(Shard) -> bool) {
        let mut state = self.parts.state.lock();
        let meant: Vec<Shard> = state.waiting.keys().copied().filter(|shard| is_meant(*shard)).collect();
        for shard in meant {
            if let Some(work) = state.waiting.remove(&shard) {
                state.under_way.insert(shard);
                self.work.insert(shard, work);
            }
        }
    }
}

impl Parts {
    /// Takes a shard to be loaded, once nobody else does that; `None` if it is loaded.
    fn take(&self, shard: Shard) -> Option<UnderWay<'_>> {
        let mut state = self.state.lock();
        while state.under_way.contains(&shard) {
            state = self.changed.wait(state);
        }
        let work = state.waiting.remove(&shard)?;
        state.under_way.insert(shard);
        Some(UnderWay { parts: self, work: BTreeMap::from([(shard, work)]) })
    }

    fn source(&self) -> Option<Arc<Source>> {
        self.state.lock().source.clone()
    }
}

impl Log {
    /// Begins to restore the indexes of the shards that have keys on disk: tells those that are to be loaded, with about how many
    /// keys they have, and hands over the others. Answers the mark of the base, if there is a good one. To be called once, after
    /// the log was opened and before anything else.
    pub fn restore(
        &self,
        shard_bits: u32,
        opening: &Opening,
        mut absent: impl FnMut(u8, usize, u64),
        mut found: impl FnMut(u8, usize, Index),
    ) -> Result<Option<u64>, OpenError> {
        let base = self.base.lock().take().filter(|base| u32::from(base.shard_bits) == shard_bits);
        let Some(base) = base else {
            self.rebuild(shard_bits, opening, &mut found)?;
            return Ok(None);
        };
        let mut waiting = BTreeMap::new();
        let mut tail = self.tail_of(&base, shard_bits, opening)?;
        for part in &base.parts {
            let shard = (part.namespace, part.shard as usize);
            waiting.insert(shard, Work::Load(Some(*part), tail.remove(&shard).unwrap_or_default()));
        }
        waiting.extend(tail.into_iter().map(|(shard, lines)| (shard, Work::Load(None, lines))));
        for ((namespace, shard), work) in &waiting {
            absent(*namespace, *shard, work.keys());
        }
        let mark = base.mark;
        self.mark.store(mark, Relaxed);
        let source = Source { ends: self.ends(&base), base };
        let mut state = self.parts.state.lock();
        (state.waiting, state.source) = (waiting, Some(Arc::new(source)));
        Ok(Some(mark))
    }

    /// Some shard that is to be loaded and that nobody loads, if there is one; of this namespace, or of any.
    pub fn next_part(&self, namespace: Option<u8>) -> Option<(u8, usize)> {
        let state = self.parts.state.lock();
        let mut waiting = state.waiting.range((namespace.unwrap_or(0), 0)..);
        waiting.next().map(|(shard, _)| *shard).filter(|(next, _)| namespace.is_none_or(|only| only == *next))
    }

    /// Waits for those that are just being loaded; answers whether nothing is left then.
    pub fn await_parts(&self) -> bool {
        let mut state = self.parts.state.lock();
        while !state.under_way.is_empty() {
            state = self.parts.changed.wait(state);
        }
        state.waiting.is_empty()
    }

    /// How many shards are to be loaded.
    pub fn parts(&self) -> usize {
        let state = self.parts.state.lock();
        state.waiting.len().saturating_add(state.under_way.len())
    }

    /// Loads the index of a shard, and hands it over if nobody else has done that; perhaps others with it.
    ///
    /// # Errors
    /// If neither its part nor the segments can be read: it can be tried again.
    pub fn load(
        &self,
        namespace: u8,
        shard: usize,
        found: &mut dyn FnMut(u8, usize, Index),
    ) -> Result<(), OpenError> {
        let shard = (namespace, shard);
        let Some(mut under_way) = self.parts.take(shard) else { return Ok(()) };
        let Some(source) = self.parts.source() else { return Ok(()) };
        let loaded = match under_way.work.insert(shard, Work::Rebuild) {
            Some(Work::Load(Some(part), lines)) => {
                source.base.load(part, lines, &source.ends, &mut Vec::new())
            }
            Some(Work::Load(None, lines)) => Some(index_of(&[], lines, &source.ends)),
            Some(Work::Rebuild) | None => None,
        };
        if let Some((index, live)) = loaded {
            for (slot, weight) in (0..).zip(live) {
                if let Some(segment) = self.segments.get(slot) {
                    segment.revive(weight);
                }
            }
            found(shard.0, shard.1, index);
            under_way.end(shard);
            return Ok(());
        }
        // Each look at the segments finds as many shards as memory may be taken for.
        let (bits, parts) = (u32::from(source.base.shard_bits), self.rebuilt_parts());
        let is_beside = |other: Shard| (other.1 ^ shard.1) as u64 & parts.saturating_sub(1) == 0;
        under_way.take(is_beside);
        let shards: Vec<Shard> = under_way.work.keys().copied().collect();
        self.unbased.store(NO_BASE, Relaxed);
        let mut indexes = self.rebuild_some(bits, &Opening::default(), |shard| shards.contains(&shard))?;
        for shard in shards {
            found(shard.0, shard.1, indexes.remove(&shard).unwrap_or_default());
            under_way.end(shard);
        }
        Ok(())
    }

    /// By slot, where the segments ended that a base knows and that are still there. A segment that is gone had nothing that
    /// is of use but what moved.
    fn ends(&self, base: &Base) -> Vec<u64> {
        let mut ends = Vec::new();
        for segment in self.segments.by_age() {
            let slot = usize::from(segment.slot);
            ends.resize(ends.len().max(slot.saturating_add(1)), 0);
            if let (Some(end), Some(covered)) = (ends.get_mut(slot), base.covered(segment.id)) {
                *end = covered.end;
            }
        }
        ends
    }

    /// What was appended since a base was begun, by shard; of each shard in the order in which it was appended.
    fn tail_of(
        &self,
        base: &Base,
        shard_bits: u32,
        opening: &Opening,
    ) -> Result<BTreeMap<Shard, Vec<Line>>, OpenError> {
        let (mut tail, mut items) = (BTreeMap::<Shard, Vec<Line>>::new(), 0_u64);
        let start = |id| base.covered(id).map_or(HEADER_BYTES as u64, |covered| covered.end);
        let segments = self.segments.by_age();
        let bytes = segments.iter().map(|segment| segment.end().saturating_sub(start(segment.id)));
        opening.enter(Stage::Index, bytes.sum());
        for segment in segments {
            let from = start(segment.id);
            self.each_line(&segment, from, |line| {
                let shard = (line.0.namespace, line.0.id.hash().shard(shard_bits));
                tail.entry(shard).or_default().push(line);
                items = items.saturating_add(1);
            })?;
            opening.advance(segment.end().saturating_sub(from));
        }
        self.unbased.store(items, Relaxed);
        Ok(tail)
    }

    /// In how many parts the log is rebuilt, because that takes memory for every record.
    fn rebuilt_parts(&self) -> u64 {
        (self.usage().bytes >> REBUILT_BITS).saturating_add(1).next_power_of_two().min(64)
    }

    /// Finds the indexes of all shards without a base.
    fn rebuild(
        &self,
        shard_bits: u32,
        opening: &Opening,
        found: &mut impl FnMut(u8, usize, Index),
    ) -> Result<(), OpenError> {
        let parts = self.rebuilt_parts();
        self.unbased.store(NO_BASE, Relaxed);
        opening.enter(Stage::Index, self.usage().bytes.saturating_mul(parts));
        for part in 0..parts {
            let is_wanted = |shard: Shard| shard.1 as u64 & parts.saturating_sub(1) == part;
            let indexes = self.rebuild_some(shard_bits, opening, is_wanted)?;
            indexes.into_iter().for_each(|((namespace, shard), index)| found(namespace, shard, index));
        }
        Ok(())
    }

    /// The same of some, in one go; of shards that have keys.
    fn rebuild_some(
        &self,
        shard_bits: u32,
        opening: &Opening,
        wants: impl Fn(Shard) -> bool,
    ) -> Result<BTreeMap<Shard, Index>, OpenError> {
        let shard_of = |id: KeyId| id.hash().shard(shard_bits);
        let mut indexes = BTreeMap::<Shard, Index>::new();
        let is_wanted = |namespace, _, id| wants((namespace, shard_of(id)));
        self.replay(is_wanted, opening, |restored| {
            let shard = (restored.namespace, shard_of(restored.id));
            indexes.entry(shard).or_default().insert(restored.id, restored.spot);
        })?;
        Ok(indexes)
    }
}

impl Work {
    /// About how many keys the shard has.
    fn keys(&self) -> u64 {
        match self {
            Work::Load(part, lines) => part.map_or(lines.len() as u64, Part::keys),
            Work::Rebuild => 0,
        }
    }
}

/// The index of a shard: what a base says, and the last words behind it. Beside it what is live by slot. `ends`: by slot,
/// where the segments end that the base may mean.
pub(super) fn index_of(
    entries: &[[u8; ENTRY_BYTES]],
    mut lines: Vec<Line>,
    ends: &[u64],
) -> (Index, Vec<u64>) {
    let mut live = vec![0_u64; ends.len()];
    let mut index = Index::build(entries, |locator| {
        let slot = usize::from(locator.slot);
        let is_there = ends.get(slot).is_some_and(|end| u64::from(locator.offset) < *end);
        if let Some(live) = live.get_mut(slot).filter(|_| is_there) {
            *live = live.saturating_add(locator.weight());
        }
        is_there
    });
    let mut count = |locator: Locator, change: fn(u64, u64) -> u64| {
        if let Some(live) = live.get_mut(usize::from(locator.slot)) {
            *live = change(*live, locator.weight());
        }
    };
    // Stable: of two records of one version the later one is the truth.
    lines.sort_by_key(|(line, _)| (line.id, line.version));
    for of_key in lines.chunk_by(|(one, _), (other, _)| one.id == other.id) {
        let before = match of_key.last() {
            Some((KeyLine { id, what: KeyState::Entry { kind, deadline, .. }, .. }, Some(locator))) => {
                count(*locator, u64::saturating_add);
                index.insert(*id, Spot::new(*locator, *deadline, *kind))
            }
            Some((line, _)) => index.remove(line.id),
            None => None,
        };
        before.into_iter().for_each(|spot| count(spot.locator, u64::saturating_sub));
    }
    (index, live)
}
