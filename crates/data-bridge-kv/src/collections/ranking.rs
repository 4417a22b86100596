//! The order of a sorted set: (score, place) pairs in blocks, so that an insert moves a few kilobytes at most and
//! a rank is found from the blocks' lengths.

use std::cmp::Ordering;

use super::ask_whole;
use super::score::Number;
use crate::footprint::block_bytes;

/// Pairs of a full block; it splits into two.
const BLOCK_PAIRS: usize = 512;

/// A score and the place of its member among the set's entries.
#[derive(Clone, Copy)]
pub(super) struct Ranked<S> {
    pub(super) score: S,
    pub(super) place: u32,
}

/// Pairs in order. The order among equal scores is the caller's: it hands in a comparison.
#[derive(Clone)]
pub(super) struct Ranking<S> {
    /// None is empty.
    blocks: Vec<Vec<Ranked<S>>>,
    /// Length of each block, kept beside so that ranks are sums over one array.
    lens: Vec<u32>,
    /// Heap bytes of the blocks, the two arrays apart.
    block_bytes: usize,
}

impl<S> Default for Ranking<S> {
    fn default() -> Self {
        Ranking { blocks: Vec::new(), lens: Vec::new(), block_bytes: 0 }
    }
}

/// A block and an index in it.
type Spot = (usize, usize);

impl<S: Number> Ranking<S> {
    pub(super) fn memory_bytes(&self) -> usize {
        self.block_bytes
            + block_bytes(self.blocks.capacity() * size_of::<Vec<Ranked<S>>>())
            + block_bytes(self.lens.capacity() * size_of::<u32>())
    }

    /// Hands the addresses to `ask` that a command will want: the blocks' first in step 0, then what a search compares in a
    /// single one. Of several it is known too late which.
    #[inline]
    pub(super) fn look_ahead(&self, step: usize, ask: impl Fn(*const u8)) {
        if step == 0 {
            ask(self.blocks.as_ptr().cast());
        } else if let [pairs] = &*self.blocks {
            pairs.iter().step_by(STRIDE).chain(pairs.last()).for_each(|pair| ask_whole(pair, &ask));
        }
    }

    /// The first spot that does not come before what is looked for; may be one past the last block.
    fn spot(&self, score: S, ties: impl Fn(&Ranked<S>) -> Ordering) -> Spot {
        let is_before = |pair: &Ranked<S>| pair.score.order(score).then_with(|| ties(pair)) == Ordering::Less;
        let block = self.blocks.partition_point(|block| block.last().is_some_and(is_before));
        let index = self.blocks.get(block).map_or(0, |pairs| {
            let below = count_below(pairs, score);
            match pairs.get(below..) {
                Some(rest @ [first, ..]) if first.score.order(score) == Ordering::Equal => {
                    below + rest.partition_point(is_before)
                }
                _ => below,
            }
        });
        (block, index)
    }

    fn rank_of_spot(&self, (block, index): Spot) -> usize {
        self.lens[..block].iter().map(|len| *len as usize).sum::<usize>() + index
    }

    fn spot_of_rank(&self, rank: usize) -> Spot {
        let mut left = rank;
        for (block, len) in self.lens.iter().enumerate() {
            if left < *len as usize {
                return (block, left);
            }
            left -= *len as usize;
        }
        (self.blocks.len(), 0)
    }

    /// How many pairs come before a score; `ties` says how pairs of this score compare with what is looked for.
    pub(super) fn rank(&self, score: S, ties: impl Fn(&Ranked<S>) -> Ordering) -> usize {
        self.rank_of_spot(self.spot(score, ties))
    }

    /// How many pairs come before what `is_before` says, which holds for none behind one for which it does not.
    pub(super) fn count_before(&self, is_before: impl Fn(&Ranked<S>) -> bool) -> usize {
        let block = self.blocks.partition_point(|block| block.last().is_some_and(&is_before));
        let index = self.blocks.get(block).map_or(0, |pairs| pairs.partition_point(is_before));
        self.rank_of_spot((block, index))
    }

    /// Adds a pair; `ties` compares a stored pair of its score with it, never `Equal`.
    pub(super) fn insert(&mut self, pair: Ranked<S>, ties: impl Fn(&Ranked<S>) -> Ordering) {
        let (mut block, mut index) = self.spot(pair.score, ties);
        if block == self.blocks.len() {
            // Behind everything: the last block takes it, unless there is none.
            match block.checked_sub(1) {
                Some(last) => (block, index) = (last, self.blocks[last].len()),
                None => {
                    self.blocks.push(Vec::new());
                    self.lens.push(0);
                }
            }
        }
        if self.blocks[block].len() == BLOCK_PAIRS {
            // A block that is filled from its end keeps most: ordered inserts leave full blocks behind.
            let keep = if index == BLOCK_PAIRS { BLOCK_PAIRS * 7 / 8 } else { BLOCK_PAIRS / 2 };
            self.split(block, keep);
            if index > keep {
                (block, index) = (block + 1, index - keep);
            }
        }
        let before = vec_bytes(&self.blocks[block]);
        make_room(&mut self.blocks[block]);
        self.blocks[block].insert(index, pair);
        self.lens[block] += 1;
        self.block_bytes = self.block_bytes - before + vec_bytes(&self.blocks[block]);
    }

    /// Gives the pair of score `old` for which `ties` is `Equal` the score of `pair`. It mostly stays in its block.
    pub(super) fn rescore(&mut self, old: S, pair: Ranked<S>, ties: impl Fn(&Ranked<S>) -> Ordering) {
        let (block, from) = self.spot(old, &ties);
        let (target, mut to) = match self.spot(pair.score, &ties) {
            // Behind everything is at the end of the last block.
            (past, _) if past == self.blocks.len() => (past - 1, self.blocks[past - 1].len()),
            spot => spot,
        };
        if target != block {
            self.remove(old, &ties);
            return self.insert(pair, ties);
        }
        let pairs = &mut self.blocks[block];
        if from < to {
            to -= 1;
            pairs.copy_within(from + 1..=to, from);
        } else {
            pairs.copy_within(to..from, to + 1);
        }
        pairs[to] = pair;
    }

    fn split(&mut self, block: usize, keep: usize) {
        let before = vec_bytes(&self.blocks[block]);
        let upper = self.blocks[block].split_off(keep);
        self.blocks[block].shrink_to_fit();
        self.block_bytes = self.block_bytes - before + vec_bytes(&self.blocks[block]) + vec_bytes(&upper);
        self.lens[block] = keep as u32;
        self.lens.insert(block + 1, upper.len() as u32);
        self.blocks.insert(block + 1, upper);
    }

    /// Takes out the pair of this score for which `ties` is `Equal`.
    pub(super) fn remove(&mut self, score: S, ties: impl Fn(&Ranked<S>) -> Ordering) {
        let (block, index) = self.spot(score, &ties);
        let found = self.blocks.get(block).and_then(|pairs| pairs.get(index));
        debug_assert!(found.is_some_and(|pair| ties(pair) == Ordering::Equal), "a ranked member is found");
        if found.is_none() {
            return;
        }
        let before = vec_bytes(&self.blocks[block]);
        self.blocks[block].remove(index);
        self.lens[block] -= 1;
        let pairs = &mut self.blocks[block];
        if pairs.capacity() > 2 * pairs.len() + 8 {
            pairs.shrink_to(pairs.len() + pairs.len() / 4);
        }
        self.block_bytes = self.block_bytes - before + vec_bytes(&self.blocks[block]);
        self.join(block);
    }

    /// Drops an empty block, and joins a small one with the next.
    fn join(&mut self, block: usize) {
        let len = self.blocks[block].len();
        if len == 0 {
            self.block_bytes -= vec_bytes(&self.blocks[block]);
            self.blocks.remove(block);
            self.lens.remove(block);
        } else if let Some(next) = self.blocks.get(block + 1)
            && len + next.len() <= BLOCK_PAIRS / 4
        {
            self.block_bytes -= vec_bytes(next) + vec_bytes(&self.blocks[block]);
            let next = self.blocks.remove(block + 1);
            self.lens.remove(block + 1);
            self.blocks[block].extend(next);
            self.lens[block] = self.blocks[block].len() as u32;
            self.block_bytes += vec_bytes(&self.blocks[block]);
        }
        if self.blocks.capacity() > 4 * self.blocks.len() + 4 {
            self.blocks.shrink_to(2 * self.blocks.len());
            self.lens.shrink_to(2 * self.blocks.len());
        }
    }

    /// Gives the pair of this score for which `ties` is `Equal` another place.
    pub(super) fn set_place(&mut self, score: S, ties: impl Fn(&Ranked<S>) -> Ordering, place: u32) {
        let (block, index) = self.spot(score, ties);
        if let Some(pair) = self.blocks.get_mut(block).and_then(|pairs| pairs.get_mut(index)) {
            pair.place = place;
        }
    }

    /// The pairs from rank `start` to before rank `end`, in order.
    pub(super) fn range(&self, start: usize, end: usize) -> impl DoubleEndedIterator<Item = &Ranked<S>> {
        let (first, from) = self.spot_of_rank(start);
        let (last, to) = if start < end { self.spot_of_rank(end) } else { (first, from) };
        let part = |block: usize, from: usize, to: usize| match self.blocks.get(block) {
            Some(pairs) => &pairs[from..to.min(pairs.len())],
            None => &[],
        };
        let (head, middle, tail) = if first == last {
            (part(first, from, to), &[][..], &[][..])
        } else {
            (part(first, from, usize::MAX), &self.blocks[first + 1..last], part(last, 0, to))
        };
        head.iter().chain(middle.iter().flatten()).chain(tail.iter())
    }
}

/// Pairs that are compared in one go.
const STRIDE: usize = 16;

/// How many pairs in order have a lower score. In two rounds of comparisons that don't wait for each other, where a binary
/// search would wait for memory at each of its steps.
fn count_below<S: Number>(pairs: &[Ranked<S>], score: S) -> usize {
    let is_below = |pair: &Ranked<S>| usize::from(pair.score.is_below(score));
    let strides = pairs.chunks_exact(STRIDE).map(|stride| is_below(&stride[STRIDE - 1])).sum::<usize>();
    let start = strides * STRIDE;
    let rest = &pairs[start..pairs.len().min(start + STRIDE)];
    start + rest.iter().map(is_below).sum::<usize>()
}

/// Grows by a quarter, up to a whole block.
fn make_room<S>(pairs: &mut Vec<Ranked<S>>) {
    if pairs.len() == pairs.capacity() {
        pairs.reserve_exact((pairs.len() / 4).max(4).min(BLOCK_PAIRS - pairs.len()));
    }
}

fn vec_bytes<S>(pairs: &Vec<Ranked<S>>) -> usize {
    block_bytes(pairs.capacity() * size_of::<Ranked<S>>())
}
