//! From a member to its place in a collection: nothing for a few members (they are compared one by one), a
//! hash table of places beyond that.
//!
//! The table is an array of words, a power of two, searched from where the top bits of a hash point up to the first
//! empty word. A word is a place plus one in its low bits and low bits of the hash above, so that one cache line tells
//! where a member stands and nearly always that another does not; 0 is empty. At most three quarters are in use.

use data_bridge_kv_model::ValueRef;
use data_bridge_kv_model::identity::identity_hash;

use crate::footprint::block_bytes;

/// Up to so many members are searched without a table.
pub(super) const LINEAR_MEMBERS: usize = 16;

const MIN_WORDS: usize = 32;

/// Places by the hash of the member that stands there. Only used above [`LINEAR_MEMBERS`] members; the owner
/// fills it then.
#[derive(Clone, Default)]
pub(super) struct PlaceIndex {
    words: Box<[u32]>,
    len: usize,
}

impl PlaceIndex {
    /// Whether members are searched one by one.
    #[inline]
    pub(super) fn is_linear(&self) -> bool {
        self.words.is_empty()
    }

    /// The hash by which a member is looked for; `None` while members are searched one by one.
    #[inline]
    pub(super) fn hash(&self, member: ValueRef<'_>) -> Option<u64> {
        (!self.is_linear()).then(|| identity_hash(member))
    }

    #[inline]
    pub(super) fn memory_bytes(&self) -> usize {
        block_bytes(size_of_val(&*self.words))
    }

    /// The place that `is_it` accepts among those with this hash.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.position(hash, is_it).map(|at| self.place(self.words[at]))
    }

    /// The address of the word where the search for a hash begins.
    #[inline]
    pub(super) fn home_address(&self, hash: u64) -> *const u8 {
        self.words.as_ptr().wrapping_add(self.home(hash)).cast()
    }

    /// The place where a member with this hash most likely stands, if it is there.
    #[inline]
    pub(super) fn likely(&self, hash: u64) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// Adds a place; `hash_of` gives the hash of the member at any place.
    pub(super) fn insert(&mut self, hash: u64, place: u32, hash_of: impl Fn(u32) -> u64) {
        if self.len >= room(self.words.len()) {
            self.resize(words_for(self.len + 1), hash_of);
        }
        self.push(hash, place);
    }

    /// Forgets a place, and gives memory back when few are left; `hash_of` as for an insert.
    pub(super) fn remove(&mut self, hash: u64, place: u32, hash_of: impl Fn(u32) -> u64) {
        let Some(mut hole) = self.position(hash, |other| other == place) else { return };
        // What was pushed on by the one that leaves moves back, so that searches still end at an empty word.
        let mut at = self.after(hole);
        while self.words[at] != 0 {
            let home = self.home(hash_of(self.place(self.words[at])));
            if self.distance(home, at) >= self.distance(hole, at) {
                self.words[hole] = self.words[at];
                hole = at;
            }
            at = self.after(at);
        }
        self.words[hole] = 0;
        self.len -= 1;
        if self.len < room(self.words.len()) / 4 && self.words.len() > MIN_WORDS {
            self.resize(words_for(self.len * 2), hash_of);
        }
    }

    /// A member moved.
    pub(super) fn moved(&mut self, hash: u64, from: u32, to: u32) {
        if let Some(at) = self.position(hash, |place| place == from) {
            self.words[at] = self.word(hash, to);
        }
    }

    /// Starts again with these members.
    pub(super) fn rebuild(
        &mut self,
        members: impl Iterator<Item = (u64, u32)>,
        hash_of: impl Fn(u32) -> u64,
    ) {
        self.clear();
        for (hash, place) in members {
            self.insert(hash, place, &hash_of);
        }
    }

    /// Goes back to searching one by one.
    pub(super) fn clear(&mut self) {
        *self = PlaceIndex::default();
    }

    /// Where the word of a place with this hash stands that `is_it` accepts.
    #[inline]
    fn position(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<usize> {
        if self.words.is_empty() {
            return None;
        }
        let (tag, tag_mask) = (hash as u32, !self.place_mask());
        let mut at = self.home(hash);
        loop {
            let word = self.words[at];
            if word == 0 {
                return None;
            }
            if (word ^ tag) & tag_mask == 0 && is_it(self.place(word)) {
                return Some(at);
            }
            at = self.after(at);
        }
    }

    fn push(&mut self, hash: u64, place: u32) {
        let mut at = self.home(hash);
        while self.words[at] != 0 {
            at = self.after(at);
        }
        self.words[at] = self.word(hash, place);
        self.len += 1;
    }

    fn resize(&mut self, words: usize, hash_of: impl Fn(u32) -> u64) {
        let old = std::mem::replace(self, PlaceIndex { words: vec![0; words].into(), len: 0 });
        for word in old.words.iter().filter(|word| **word != 0) {
            let place = old.place(*word);
            self.push(hash_of(place), place);
        }
    }

    /// Two bits more than it takes to count the words: holes in a collection make places larger than members are many.
    #[inline]
    fn place_mask(&self) -> u32 {
        (self.words.len() * 4 - 1) as u32
    }

    #[inline]
    fn place(&self, word: u32) -> u32 {
        (word & self.place_mask()) - 1
    }

    fn word(&self, hash: u64, place: u32) -> u32 {
        let mask = self.place_mask();
        assert!(place < mask, "a place is within three times the words");
        (hash as u32 & !mask) | (place + 1)
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        (hash >> (u64::BITS - self.words.len().trailing_zeros())) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.words.len() - 1)
    }

    /// How many steps it is from one word to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.words.len() - 1)
    }
}

/// How many of so many words may be in use.
#[inline]
fn room(words: usize) -> usize {
    words / 4 * 3
}

/// How many words so many members need.
fn words_for(members: usize) -> usize {
    (members + members / 3 + 1).next_power_of_two().max(MIN_WORDS)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Few homes and few tags, so that searches run into each other and around the end.
    fn hash_of(place: u32) -> u64 {
        let place = u64::from(place);
        (62 + place % 3) << 58 | (place % 7) << 28
    }

    fn check(index: &PlaceIndex, held: &HashMap<u32, u64>, places: u32) {
        for place in 0..places {
            let found = index.find(hash_of(place), |other| other == place);
            assert_eq!(found, held.contains_key(&place).then_some(place));
        }
    }

    #[test]
    fn places_are_found_whatever_came_and_went() {
        let (mut index, mut held, mut checked) = (PlaceIndex::default(), HashMap::new(), 0);
        for round in 0..303u32 {
            let place = (round * 37) % 101;
            if held.remove(&place).is_some() {
                index.remove(hash_of(place), place, hash_of);
            } else {
                held.insert(place, 0);
                index.insert(hash_of(place), place, hash_of);
            }
            check(&index, &held, 101);
            checked += held.len();
        }
        assert!(checked > 10_000, "{checked}");
        let words = index.words.len();
        for place in held.drain().map(|(place, _)| place) {
            index.remove(hash_of(place), place, hash_of);
        }
        assert!(index.words.len() < words, "memory comes back");
        check(&index, &held, 101);
    }

    #[test]
    fn a_member_that_moved_is_found_at_its_new_place() {
        let mut index = PlaceIndex::default();
        let hash = |place: u32| hash_of(if place == 90 { 5 } else { place });
        index.rebuild((0..40).map(|place| (hash(place), place)), hash);
        index.moved(hash(5), 5, 90);
        assert_eq!(index.find(hash(5), |place| place == 90), Some(90));
        assert_eq!(index.find(hash(5), |place| place == 5), None);
        index.remove(hash(90), 90, hash);
        assert_eq!(index.find(hash(5), |_| true).filter(|place| *place == 90), None);
    }
}
