//! Collections as they stand in memory: lists, sets, hashes and sorted sets whose elements are values in codec
//! bytes.
//!
//! Members, fields and elements go in and are looked up as [`data_bridge_kv_model::ValueRef`]s; what is stored is a
//! [`Packed`]. Every collection knows its memory and its encoded length in constant time. Nothing here locks,
//! draws random numbers or reads clocks.

mod fields;
mod index;
mod list;
mod ordered;
mod packed;
mod ranking;
mod score;
mod set;
#[cfg(test)]
mod tests;
mod zset;

use data_bridge_kv_model::{Kind, ValueRef};

pub use fields::Fields;
pub use list::List;
pub use packed::Packed;
pub use score::Score;
pub use set::Set;
pub use zset::{Inserted, SortedSet};

/// How many steps a look ahead takes at most.
pub const AHEAD_STEPS: usize = 3;

/// Bytes of a cache line.
const LINE: usize = 64;

/// A value that collection commands change in place.
#[derive(Clone)]
pub enum Collection {
    /// Values in order.
    List(List),
    /// Members.
    Set(Set),
    /// Fields and values.
    Hash(Fields),
    /// Members by score.
    SortedSet(SortedSet),
}

impl Collection {
    /// The kind of the value.
    #[inline]
    pub fn kind(&self) -> Kind {
        match self {
            Collection::List(_) => Kind::List,
            Collection::Set(_) => Kind::Set,
            Collection::Hash(_) => Kind::Hash,
            Collection::SortedSet(_) => Kind::SortedSet,
        }
    }

    /// How many elements, members or fields.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Collection::List(list) => list.len(),
            Collection::Set(set) => set.len(),
            Collection::Hash(hash) => hash.len(),
            Collection::SortedSet(sorted) => sorted.len(),
        }
    }

    /// Whether there is none; an emptied collection is removed with its key.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the collection takes on the heap, by allocation size class, in constant time.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        match self {
            Collection::List(list) => list.memory_bytes(),
            Collection::Set(set) => set.memory_bytes(),
            Collection::Hash(hash) => hash.memory_bytes(),
            Collection::SortedSet(sorted) => sorted.memory_bytes(),
        }
    }

    /// Length of the encoded value, kind byte included, in constant time.
    #[inline]
    pub fn encoded_len(&self) -> usize {
        match self {
            Collection::List(list) => list.encoded_len(),
            Collection::Set(set) => set.encoded_len(),
            Collection::Hash(hash) => hash.encoded_len(),
            Collection::SortedSet(sorted) => sorted.encoded_len(),
        }
    }

    /// The value of a field; `None` where there is no such field, or no hash.
    pub fn field(&self, field: ValueRef<'_>) -> Option<ValueRef<'_>> {
        match self {
            Collection::Hash(fields) => fields.get(field).map(Packed::value),
            Collection::List(_) | Collection::Set(_) | Collection::SortedSet(_) => None,
        }
    }

    /// Hands the addresses to `ask` that a command on the element with this hash of its identity will want, as far as they
    /// are known once those of the steps before have arrived. Steps count from 0 up to [`AHEAD_STEPS`].
    #[inline]
    pub fn look_ahead(&self, element: u64, step: usize, ask: impl Fn(*const u8)) {
        match self {
            Collection::List(list) => list.look_ahead(step, ask),
            Collection::Set(set) => set.look_ahead(element, step, ask),
            Collection::Hash(hash) => hash.look_ahead(element, step, ask),
            Collection::SortedSet(sorted) => sorted.look_ahead(element, step, ask),
        }
    }

    /// Appends the encoded value: kind byte and payload.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len());
        out.push(self.kind().number());
        match self {
            Collection::List(list) => list.encode_payload(out),
            Collection::Set(set) => set.encode_payload(out),
            Collection::Hash(hash) => hash.encode_payload(out),
            Collection::SortedSet(sorted) => sorted.encode_payload(out),
        }
    }

    /// The collection of a value that the codec validated; `None` for other kinds.
    pub fn decode(value: ValueRef<'_>) -> Option<Collection> {
        match value.kind() {
            Kind::List => Some(Collection::List(List::decode(value))),
            Kind::Set => Some(Collection::Set(Set::decode(value))),
            Kind::Hash => Some(Collection::Hash(Fields::decode(value))),
            Kind::SortedSet => SortedSet::decode(value).map(Collection::SortedSet),
            _ => None,
        }
    }
}

/// Asks for all cache lines of something.
#[inline]
fn ask_whole<T>(target: &T, ask: impl Fn(*const u8)) {
    let start = std::ptr::from_ref(target).cast::<u8>();
    (0..size_of::<T>()).step_by(LINE).for_each(|at| ask(start.wrapping_add(at)));
    ask(start.wrapping_add(size_of::<T>() - 1));
}

impl std::fmt::Debug for Collection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collection")
            .field("kind", &self.kind())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
