//! A list of values: a ring of packed elements.

use std::collections::VecDeque;

use data_bridge_kv_model::{Items, Kind, ValueRef};

use super::ask_whole;
use super::packed::{Account, Packed, count_len};
use crate::footprint::block_bytes;

/// Spare places that are tolerated beside as many as elements, before the ring shrinks.
const SPARE_PLACES: usize = 16;

/// Elements in order, cheap at both ends. Indexes count from 0; an index past the end is `None` or does nothing.
#[derive(Clone, Default)]
pub struct List {
    elements: VecDeque<Packed>,
    account: Account,
}

impl List {
    /// How many elements.
    #[inline]
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// What the list takes on the heap.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        self.account.heap + block_bytes(self.elements.capacity() * size_of::<Packed>())
    }

    /// See [`super::Collection::look_ahead`].
    #[inline]
    pub(super) fn look_ahead(&self, step: usize, ask: impl Fn(*const u8)) {
        if step == 0 {
            [self.elements.front(), self.elements.back()]
                .into_iter()
                .flatten()
                .for_each(|end| ask_whole(end, &ask));
        }
    }

    /// Length of the encoded list.
    #[inline]
    pub fn encoded_len(&self) -> usize {
        1 + count_len(self.len()) + self.account.encoded
    }

    /// Adds at the front.
    pub fn push_front(&mut self, element: Packed) {
        self.account.add(&element);
        self.make_room();
        self.elements.push_front(element);
    }

    /// Adds at the end.
    pub fn push_back(&mut self, element: Packed) {
        self.account.add(&element);
        self.make_room();
        self.elements.push_back(element);
    }

    /// Takes the first element.
    pub fn pop_front(&mut self) -> Option<Packed> {
        let element = self.elements.pop_front()?;
        self.taken(&element);
        Some(element)
    }

    /// Takes the last element.
    pub fn pop_back(&mut self) -> Option<Packed> {
        let element = self.elements.pop_back()?;
        self.taken(&element);
        Some(element)
    }

    /// The element at an index.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&Packed> {
        self.elements.get(index)
    }

    /// Replaces the element at an index and returns the old one.
    pub fn set(&mut self, index: usize, element: Packed) -> Option<Packed> {
        let place = self.elements.get_mut(index)?;
        self.account.add(&element);
        let old = std::mem::replace(place, element);
        self.account.subtract(&old);
        Some(old)
    }

    /// Puts an element in front of the one at `index`; at the end if there is none.
    pub fn insert(&mut self, index: usize, element: Packed) {
        self.account.add(&element);
        self.make_room();
        self.elements.insert(index.min(self.elements.len()), element);
    }

    /// Takes the element at an index.
    pub fn remove(&mut self, index: usize) -> Option<Packed> {
        let element = self.elements.remove(index)?;
        self.taken(&element);
        Some(element)
    }

    /// Takes out the elements that `wanted` accepts, at most `limit`, looking from the end if `from_back`.
    /// Returns how many it took.
    pub fn remove_where(
        &mut self,
        limit: usize,
        from_back: bool,
        mut wanted: impl FnMut(&Packed) -> bool,
    ) -> usize {
        let mut taken = 0;
        let mut take = |account: &mut Account, element: &Packed| {
            let take = taken < limit && wanted(element);
            if take {
                taken += 1;
                account.subtract(element);
            }
            take
        };
        if from_back {
            let mut kept = VecDeque::with_capacity(self.elements.len());
            while let Some(element) = self.elements.pop_back() {
                if !take(&mut self.account, &element) {
                    kept.push_front(element);
                }
            }
            self.elements = kept;
        } else {
            let account = &mut self.account;
            self.elements.retain(|element| !take(account, element));
        }
        self.give_room_back();
        taken
    }

    /// Keeps the elements from `start` to before `end` and drops the others.
    pub fn trim(&mut self, start: usize, end: usize) {
        let end = end.min(self.elements.len());
        let start = start.min(end);
        let account = &mut self.account;
        self.elements.drain(end..).for_each(|element| account.subtract(&element));
        self.elements.drain(..start).for_each(|element| account.subtract(&element));
        self.give_room_back();
    }

    /// The elements in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Packed> + ExactSizeIterator {
        self.elements.iter()
    }

    /// The elements from `start` to before `end`, in order.
    pub fn range(&self, start: usize, end: usize) -> impl DoubleEndedIterator<Item = &Packed> {
        let end = end.min(self.elements.len());
        self.elements.range(start.min(end)..end)
    }

    /// Grows by a quarter when full.
    fn make_room(&mut self) {
        if self.elements.len() == self.elements.capacity() {
            self.elements.reserve_exact((self.elements.len() / 4).max(4));
        }
    }

    fn taken(&mut self, element: &Packed) {
        self.account.subtract(element);
        self.give_room_back();
    }

    fn give_room_back(&mut self) {
        if self.elements.capacity() > 2 * self.elements.len() + SPARE_PLACES {
            self.elements.shrink_to(self.elements.len() + self.elements.len() / 4);
        }
    }

    /// Appends the payload of the value codec.
    pub(super) fn encode_payload(&self, out: &mut Vec<u8>) {
        data_bridge_kv_model::codec::put_varint(self.len(), out);
        self.elements.iter().for_each(|element| out.extend_from_slice(element.as_bytes()));
    }

    /// The list of a validated value of kind List.
    pub(super) fn decode(value: ValueRef<'_>) -> List {
        debug_assert_eq!(value.kind(), Kind::List);
        let mut account = Account::default();
        let elements: VecDeque<Packed> = Items::of(value).map(Packed::from).collect();
        elements.iter().for_each(|element| account.add(element));
        List { elements, account }
    }
}
