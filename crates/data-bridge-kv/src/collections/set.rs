//! A set of members, in the order in which they came.

use data_bridge_kv_model::{Items, Kind, ValueRef};

use super::ordered::OrderedMap;
use super::packed::{Packed, count_len};

/// Members, each once by identity; the first writer's form of a member is kept.
#[derive(Clone, Default)]
pub struct Set {
    members: OrderedMap<()>,
}

impl Set {
    /// How many members.
    #[inline]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// What the set takes on the heap.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        self.members.memory_bytes()
    }

    /// See [`super::Collection::look_ahead`].
    #[inline]
    pub(super) fn look_ahead(&self, element: u64, step: usize, ask: impl Fn(*const u8)) {
        self.members.look_ahead(element, step, ask);
    }

    /// Length of the encoded set.
    #[inline]
    pub fn encoded_len(&self) -> usize {
        1 + count_len(self.len()) + self.members.encoded_bytes()
    }

    /// Adds a member; whether it is new.
    pub fn insert(&mut self, member: ValueRef<'_>) -> bool {
        self.members.insert(member, ())
    }

    /// The member in its stored form.
    #[inline]
    pub fn get(&self, member: ValueRef<'_>) -> Option<&Packed> {
        self.members.get(member).map(|(member, ())| member)
    }

    /// Whether the member is there.
    #[inline]
    pub fn contains(&self, member: ValueRef<'_>) -> bool {
        self.members.contains(member)
    }

    /// Takes a member out.
    pub fn remove(&mut self, member: ValueRef<'_>) -> Option<Packed> {
        self.members.remove(member).map(|(member, ())| member)
    }

    /// The members in the order in which they came.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Packed> {
        self.members.iter().map(|(member, ())| member)
    }

    /// A member drawn with `below(n)`, which gives a number below `n`.
    pub fn random(&self, below: impl FnMut(usize) -> usize) -> Option<&Packed> {
        self.members.random(below).map(|(_, member, ())| member)
    }

    /// Takes out a member drawn with `below(n)`.
    pub fn pop(&mut self, below: impl FnMut(usize) -> usize) -> Option<Packed> {
        let (position, ..) = self.members.random(below)?;
        self.members.remove_at(position).map(|(member, ())| member)
    }

    /// Visits about `count` members from `cursor` on (0 at the start); returns the next cursor, 0 at the end.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&Packed)) -> u64 {
        self.members.scan(cursor, count, |member, ()| visit(member))
    }

    /// Appends the payload of the value codec.
    pub(super) fn encode_payload(&self, out: &mut Vec<u8>) {
        data_bridge_kv_model::codec::put_varint(self.len(), out);
        self.iter().for_each(|member| out.extend_from_slice(member.as_bytes()));
    }

    /// The set of a validated value of kind Set; a member that comes twice counts once.
    pub(super) fn decode(value: ValueRef<'_>) -> Set {
        debug_assert_eq!(value.kind(), Kind::Set);
        let items = Items::of(value);
        let mut set = Set { members: OrderedMap::with_capacity(items.size_hint().0) };
        items.for_each(|member| {
            set.insert(member);
        });
        set
    }
}
