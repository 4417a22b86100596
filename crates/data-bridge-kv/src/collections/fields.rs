//! A hash: fields and their values, in the order in which the fields came.

use data_bridge_kv_model::{Items, Kind, ValueRef};

use super::ordered::OrderedMap;
use super::packed::{Packed, count_len};

/// Fields, each once by identity, and a value of any kind for each.
#[derive(Clone, Default)]
pub struct Fields {
    fields: OrderedMap<Packed>,
}

impl Fields {
    /// How many fields.
    #[inline]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// What the hash takes on the heap.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        self.fields.memory_bytes()
    }

    /// See [`super::Collection::look_ahead`].
    #[inline]
    pub(super) fn look_ahead(&self, element: u64, step: usize, ask: impl Fn(*const u8)) {
        self.fields.look_ahead(element, step, ask);
    }

    /// Length of the encoded hash.
    #[inline]
    pub fn encoded_len(&self) -> usize {
        1 + count_len(self.len()) + self.fields.encoded_bytes()
    }

    /// Sets a field; whether it is new. A field that is there keeps its place and its form.
    pub fn insert(&mut self, field: ValueRef<'_>, value: ValueRef<'_>) -> bool {
        self.fields.insert(field, value)
    }

    /// The value of a field.
    #[inline]
    pub fn get(&self, field: ValueRef<'_>) -> Option<&Packed> {
        self.fields.get(field).map(|(_, value)| value)
    }

    /// The field in its stored form, and its value.
    #[inline]
    pub fn get_pair(&self, field: ValueRef<'_>) -> Option<(&Packed, &Packed)> {
        self.fields.get(field)
    }

    /// Whether the field is there.
    #[inline]
    pub fn contains(&self, field: ValueRef<'_>) -> bool {
        self.fields.contains(field)
    }

    /// Takes a field out, with its value.
    pub fn remove(&mut self, field: ValueRef<'_>) -> Option<(Packed, Packed)> {
        self.fields.remove(field)
    }

    /// Fields and values in the order in which the fields came.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Packed, &Packed)> {
        self.fields.iter()
    }

    /// A field drawn with `below(n)`, which gives a number below `n`, and its value.
    pub fn random(&self, below: impl FnMut(usize) -> usize) -> Option<(&Packed, &Packed)> {
        self.fields.random(below).map(|(_, field, value)| (field, value))
    }

    /// Visits about `count` fields from `cursor` on (0 at the start); returns the next cursor, 0 at the end.
    pub fn scan(&self, cursor: u64, count: usize, visit: impl FnMut(&Packed, &Packed)) -> u64 {
        self.fields.scan(cursor, count, visit)
    }

    /// Appends the payload of the value codec.
    pub(super) fn encode_payload(&self, out: &mut Vec<u8>) {
        data_bridge_kv_model::codec::put_varint(self.len(), out);
        for (field, value) in self.iter() {
            out.extend_from_slice(field.as_bytes());
            out.extend_from_slice(value.as_bytes());
        }
    }

    /// The hash of a validated value of kind Hash; of a field that comes twice the last value counts.
    pub(super) fn decode(value: ValueRef<'_>) -> Fields {
        debug_assert_eq!(value.kind(), Kind::Hash);
        let mut items = Items::of(value);
        let mut hash = Fields { fields: OrderedMap::with_capacity(items.size_hint().0 / 2) };
        while let (Some(field), Some(value)) = (items.next(), items.next()) {
            hash.insert(field, value);
        }
        hash
    }
}
