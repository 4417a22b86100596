//! A list of values: a ring of packed elements.

use std::collections::VecDeque;

use super::packed::Packed;
use crate::footprint::block_bytes;

/// Elements in order, cheap at both ends.
#[derive(Clone, Default)]
pub struct List {
    elements: VecDeque<Packed>,
    /// Heap bytes of the elements, the ring apart.
    element_bytes: usize,
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
    pub fn memory_bytes(&self) -> usize {
        self.element_bytes + block_bytes(self.elements.capacity() * size_of::<Packed>())
    }

    /// Adds at the end.
    pub fn push_back(&mut self, element: Packed) {
        self.element_bytes += element.heap_bytes();
        self.elements.push_back(element);
    }
}
