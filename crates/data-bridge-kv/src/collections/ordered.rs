//! A map from members to values in insertion order; sets and hashes are made of it.
//!
//! Entries stand in a vector. A removed one leaves a hole, and when holes outnumber entries the vector is
//! compacted, so removal costs constant time on average and keeps the order. Entries only ever move towards the
//! front: that is what [`OrderedMap::scan`] relies on when it walks from the back.

use data_bridge_kv_model::ValueRef;
use data_bridge_kv_model::identity::{identity_hash, same_identity};

use super::ask_whole;
use super::index::{LINEAR_MEMBERS, PlaceIndex};
use super::packed::{Account, Packed};
use crate::footprint::block_bytes;

/// Holes that are tolerated beside as many holes as entries.
const SPARE_HOLES: usize = 8;

/// What a member maps to: nothing in a set, a value in a hash.
pub trait Mapped: Clone {
    /// What it is made from.
    type Given<'v>: Copy;

    /// A new one.
    fn new(given: Self::Given<'_>) -> Self;

    /// Becomes another one, in its place if it can.
    fn assign(&mut self, given: Self::Given<'_>);

    /// Counts it in or out of the collection's account.
    #[doc(hidden)]
    fn packed(&self) -> Option<&Packed>;
}

impl Mapped for () {
    type Given<'v> = ();

    #[inline]
    fn new((): ()) {}

    #[inline]
    fn assign(&mut self, (): ()) {}

    #[inline]
    fn packed(&self) -> Option<&Packed> {
        None
    }
}

impl Mapped for Packed {
    type Given<'v> = ValueRef<'v>;

    #[inline]
    fn new(given: ValueRef<'_>) -> Packed {
        Packed::from(given)
    }

    #[inline]
    fn assign(&mut self, given: ValueRef<'_>) {
        Packed::assign(self, given);
    }

    #[inline]
    fn packed(&self) -> Option<&Packed> {
        Some(self)
    }
}

/// Members in insertion order, each once by identity, with a value each.
#[derive(Clone)]
pub struct OrderedMap<V> {
    /// `None` is a hole.
    slots: Vec<Option<(Packed, V)>>,
    len: usize,
    index: PlaceIndex,
    account: Account,
}

impl<V: Mapped> Default for OrderedMap<V> {
    fn default() -> Self {
        OrderedMap { slots: Vec::new(), len: 0, index: PlaceIndex::default(), account: Account::default() }
    }
}

impl<V: Mapped> OrderedMap<V> {
    /// Room for so many members.
    pub fn with_capacity(members: usize) -> OrderedMap<V> {
        OrderedMap { slots: Vec::with_capacity(members), ..OrderedMap::default() }
    }

    /// How many members.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What it takes on the heap.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        self.account.heap
            + block_bytes(self.slots.capacity() * size_of::<Option<(Packed, V)>>())
            + self.index.memory_bytes()
    }

    /// Encoded length of all members and values.
    #[inline]
    pub fn encoded_bytes(&self) -> usize {
        self.account.encoded
    }

    /// See [`super::Collection::look_ahead`].
    #[inline]
    pub(super) fn look_ahead(&self, element: u64, step: usize, ask: impl Fn(*const u8)) {
        match step {
            0 if self.index.is_linear() => ask(self.slots.as_ptr().cast()),
            0 => ask(self.index.home_address(element)),
            1 if !self.index.is_linear() => match self.index.likely(element).map(|place| place as usize) {
                Some(place) => self.slots.get(place).into_iter().for_each(|slot| ask_whole(slot, &ask)),
                // A new one comes to the end.
                None => ask(self.slots.as_ptr_range().end.cast()),
            },
            _ => {}
        }
    }

    fn find(&self, member: ValueRef<'_>) -> Option<usize> {
        self.find_hashed(self.index.hash(member), member)
    }

    fn find_hashed(&self, hash: Option<u64>, member: ValueRef<'_>) -> Option<usize> {
        let is_it =
            |place| self.entry_at(place).is_some_and(|(other, _)| same_identity(other.value(), member));
        match hash {
            Some(hash) => self.index.find(hash, |place| is_it(place as usize)).map(|place| place as usize),
            None => (0..self.slots.len()).find(|place| is_it(*place)),
        }
    }

    #[inline]
    fn entry_at(&self, place: usize) -> Option<&(Packed, V)> {
        self.slots.get(place)?.as_ref()
    }

    /// The member as it was first written, and its value.
    #[inline]
    pub fn get(&self, member: ValueRef<'_>) -> Option<(&Packed, &V)> {
        let (member, value) = self.entry_at(self.find(member)?)?;
        Some((member, value))
    }

    /// Whether the member is there.
    #[inline]
    pub fn contains(&self, member: ValueRef<'_>) -> bool {
        self.find(member).is_some()
    }

    /// Maps a member to a value; whether it is new. A member that is there keeps its place and its first form.
    pub fn insert(&mut self, member: ValueRef<'_>, value: V::Given<'_>) -> bool {
        let hash = self.index.hash(member);
        let Some(place) = self.find_hashed(hash, member) else {
            self.push(Packed::from(member), hash, V::new(value));
            return true;
        };
        if let Some((_, held)) = self.slots[place].as_mut() {
            if let Some(old) = held.packed() {
                self.account.subtract(old);
            }
            held.assign(value);
            if let Some(new) = held.packed() {
                self.account.add(new);
            }
        }
        false
    }

    /// Adds a member that is not there at the end; with its hash, unless members are searched one by one.
    fn push(&mut self, member: Packed, hash: Option<u64>, value: V) {
        self.account.add(&member);
        if let Some(value) = value.packed() {
            self.account.add(value);
        }
        if self.slots.len() == self.slots.capacity() {
            self.make_room();
        }
        // Closing holes may have been the end of the index.
        let hash = hash.filter(|_| !self.index.is_linear());
        let place = self.slots.len();
        self.slots.push(Some((member, value)));
        self.len += 1;
        match hash {
            Some(hash) => {
                let slots = &self.slots;
                self.index.insert(hash, place_number(place), |place| hash_at(slots, place));
            }
            None if self.slots.len() > LINEAR_MEMBERS => self.rebuild_index(),
            None => {}
        }
    }

    /// Grows by a quarter: a collection's slack is memory that nobody uses. Holes are closed first.
    fn make_room(&mut self) {
        if self.len < self.slots.len() {
            self.compact();
        }
        let more = (self.slots.len() / 4).max(4);
        if self.slots.capacity() - self.slots.len() < more {
            self.slots.reserve_exact(more);
        }
    }

    /// Takes a member out.
    pub fn remove(&mut self, member: ValueRef<'_>) -> Option<(Packed, V)> {
        let place = self.find(member)?;
        self.remove_at(place)
    }

    /// Takes out what stands at a position, as [`OrderedMap::random`] gives it.
    pub fn remove_at(&mut self, position: usize) -> Option<(Packed, V)> {
        let (member, value) = self.slots.get_mut(position)?.take()?;
        if !self.index.is_linear() {
            let slots = &self.slots;
            let hash_of = |place| hash_at(slots, place);
            self.index.remove(identity_hash(member.value()), place_number(position), hash_of);
        }
        self.account.subtract(&member);
        if let Some(value) = value.packed() {
            self.account.subtract(value);
        }
        self.len -= 1;
        while let Some(None) = self.slots.last() {
            self.slots.pop();
        }
        let holes = self.slots.len() > 2 * self.len + SPARE_HOLES;
        if holes || self.slots.capacity() > 4 * self.len + 2 * SPARE_HOLES {
            self.compact();
        }
        Some((member, value))
    }

    /// Closes the holes.
    fn compact(&mut self) {
        self.slots.retain(Option::is_some);
        if self.slots.capacity() > 2 * self.slots.len() + SPARE_HOLES {
            self.slots.shrink_to(self.slots.len() + self.slots.len() / 4);
        }
        if !self.index.is_linear() {
            self.rebuild_index();
        }
    }

    fn rebuild_index(&mut self) {
        if self.slots.len() <= LINEAR_MEMBERS {
            self.index.clear();
            return;
        }
        let slots = &self.slots;
        let members = slots.iter().enumerate().filter_map(|(place, slot)| {
            let (member, _) = slot.as_ref()?;
            Some((identity_hash(member.value()), place_number(place)))
        });
        self.index.rebuild(members, |place| hash_at(slots, place));
    }

    /// Members and values in insertion order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Packed, &V)> {
        self.slots.iter().flatten().map(|(member, value)| (member, value))
    }

    /// A member drawn with `below(n)`, which gives a number below `n`: its position, itself and its value.
    /// `None` if there is none. All members are equally likely if the numbers are.
    pub fn random(&self, mut below: impl FnMut(usize) -> usize) -> Option<(usize, &Packed, &V)> {
        if self.is_empty() {
            return None;
        }
        // At least a third of a long vector is occupied; a short one is searched from a drawn rank.
        if self.slots.len() <= 4 * SPARE_HOLES {
            let rank = below(self.len);
            let occupied = |(place, slot): (usize, &'_ Option<(Packed, V)>)| slot.is_some().then_some(place);
            let place = self.slots.iter().enumerate().filter_map(occupied).nth(rank)?;
            return self.entry_at(place).map(|(member, value)| (place, member, value));
        }
        loop {
            let place = below(self.slots.len());
            if let Some((member, value)) = self.entry_at(place) {
                return Some((place, member, value));
            }
        }
    }

    /// Visits about `count` members from where `cursor` stands (0 at the start) and returns the next cursor, 0
    /// at the end. Whatever is there during the whole scan is visited at least once; small maps are visited in
    /// one call.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&Packed, &V)) -> u64 {
        let end = match usize::try_from(cursor) {
            Ok(cursor) if (1..self.slots.len()).contains(&cursor) => cursor,
            _ => self.slots.len(),
        };
        let start = if self.index.is_linear() { 0 } else { end.saturating_sub(count.max(1)) };
        for (member, value) in self.slots[start..end].iter().rev().flatten() {
            visit(member, value);
        }
        start as u64
    }
}

fn hash_at<V>(slots: &[Option<(Packed, V)>], place: u32) -> u64 {
    // Every place in the index is occupied.
    slots[place as usize].as_ref().map_or(0, |(member, _)| identity_hash(member.value()))
}

fn place_number(place: usize) -> u32 {
    u32::try_from(place).expect("a collection has fewer than 2^32 members")
}
