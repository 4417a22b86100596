//! Collections as they stand in memory: their elements are values in codec bytes.

mod list;
mod packed;

use data_bridge_kv_model::Kind;

pub use list::List;
pub use packed::Packed;

/// A value that collection commands change in place.
#[derive(Clone)]
pub enum Collection {
    /// See [`List`].
    List(List),
}

impl Collection {
    /// The kind of the value.
    #[inline]
    pub fn kind(&self) -> Kind {
        match self {
            Collection::List(_) => Kind::List,
        }
    }

    /// What the collection takes on the heap, in constant time.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        match self {
            Collection::List(list) => list.memory_bytes(),
        }
    }
}

impl std::fmt::Debug for Collection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collection").field("kind", &self.kind()).finish_non_exhaustive()
    }
}
