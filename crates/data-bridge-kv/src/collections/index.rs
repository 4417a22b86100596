//! From a member to its place in a collection: nothing for a few members (they are compared one by one), a
//! hash table of places beyond that.

use hashbrown::HashTable;

/// Up to so many members are searched without a table.
pub(super) const LINEAR_MEMBERS: usize = 16;

/// Places by the hash of the member that stands there. Only used above [`LINEAR_MEMBERS`] members; the owner
/// fills it then.
#[derive(Clone, Default)]
pub(super) struct PlaceIndex {
    places: HashTable<u32>,
}

impl PlaceIndex {
    /// Whether members are searched one by one.
    #[inline]
    pub(super) fn is_linear(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        crate::footprint::block_bytes(self.places.allocation_size())
    }

    /// The place that `is_it` accepts among those with this hash.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.places.find(hash, |place| is_it(*place)).copied()
    }

    /// Adds a place; `hash_of` gives the hash of the member at any place.
    pub(super) fn insert(&mut self, hash: u64, place: u32, hash_of: impl Fn(u32) -> u64) {
        self.places.insert_unique(hash, place, |place| hash_of(*place));
    }

    /// Forgets a place, and gives memory back when few are left; `hash_of` as for an insert.
    pub(super) fn remove(&mut self, hash: u64, place: u32, hash_of: impl Fn(u32) -> u64) {
        if let Ok(entry) = self.places.find_entry(hash, |other| *other == place) {
            entry.remove();
        }
        if self.places.len() * 4 < self.places.capacity() {
            self.places.shrink_to(self.places.len() * 2, |place| hash_of(*place));
        }
    }

    /// A member moved.
    pub(super) fn moved(&mut self, hash: u64, from: u32, to: u32) {
        if let Some(place) = self.places.find_mut(hash, |place| *place == from) {
            *place = to;
        }
    }

    /// Starts again with these members.
    pub(super) fn rebuild(
        &mut self,
        members: impl Iterator<Item = (u64, u32)>,
        hash_of: impl Fn(u32) -> u64,
    ) {
        let members: Vec<(u64, u32)> = members.collect();
        self.places = HashTable::with_capacity(members.len());
        for (hash, place) in members {
            self.insert(hash, place, &hash_of);
        }
    }

    /// Goes back to searching one by one.
    pub(super) fn clear(&mut self) {
        self.places = HashTable::new();
    }
}
