//! Views of an entry: borrowed, borrowed for change, and owned outside the table.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use data_bridge_kv_model::{Kind, ValueRef};

use super::block::{Block, Payload, collection_bytes};
use super::header::Fields;
use super::segment::{Position, Segment};
use super::slab::Slab;
use super::value::{NewEntry, NewValue, Stored};
use crate::collections::Collection;

/// An entry as it stands in the table.
#[derive(Clone, Copy)]
pub struct EntryRef<'a> {
    block: Block,
    lifetime: PhantomData<&'a Block>,
}

impl<'a> EntryRef<'a> {
    /// `'a` must be bounded by a borrow of whatever owns the block.
    #[inline]
    pub(super) fn new(block: Block) -> EntryRef<'a> {
        EntryRef { block, lifetime: PhantomData }
    }

    /// The key's bytes (UTF-8).
    #[inline]
    pub fn key(self) -> &'a [u8] {
        self.block.key()
    }

    /// The value.
    #[inline]
    pub fn value(self) -> Stored<'a> {
        // SAFETY: 'a is bounded by a shared borrow of the owner, and changes need an exclusive one.
        unsafe { self.block.value() }
    }

    /// The value's kind.
    #[inline]
    pub fn kind(self) -> Kind {
        self.block.kind()
    }

    /// Whether it is a collection as it was written, which a command that looks inside has built first.
    #[inline]
    pub fn is_whole(self) -> bool {
        self.block.is_whole()
    }

    /// Whether the value stands outside the entry's block.
    #[inline]
    pub fn is_external(self) -> bool {
        self.block.is_external()
    }

    /// The 44-bit sequence part of the version.
    #[inline]
    pub fn sequence(self) -> u64 {
        self.block.sequence()
    }

    /// When it expires, unix ms.
    #[inline]
    pub fn deadline(self) -> Option<u64> {
        self.block.deadline()
    }

    /// How warm it is, 0..=3.
    #[inline]
    pub fn heat(self) -> u8 {
        self.block.heat()
    }

    /// What it takes on the heap, its slot apart.
    pub fn memory_bytes(self) -> usize {
        self.block.memory_bytes()
    }

    /// A copy that is independent of the table; large payloads and collections are shared with it.
    pub fn to_owned(self) -> OwnedEntry {
        OwnedEntry { block: self.block.duplicate() }
    }
}

/// A copy of an entry, in no table. Gives its memory back when dropped.
pub struct OwnedEntry {
    block: Block,
}

// SAFETY: an owned entry is the only owner of its block, whose external parts are Arcs of Send + Sync types.
unsafe impl Send for OwnedEntry {}
// SAFETY: shared access only reads.
unsafe impl Sync for OwnedEntry {}

impl OwnedEntry {
    /// An entry that is put into no table yet. The key must have 1 to 1024 bytes.
    pub fn build(key: &[u8], new: NewEntry<'_>) -> OwnedEntry {
        OwnedEntry { block: Block::alone(key, new) }
    }

    /// Gives the block to the caller.
    pub(super) fn into_block(self) -> Block {
        std::mem::ManuallyDrop::new(self).block
    }

    /// The entry, to be read.
    #[inline]
    pub fn entry(&self) -> EntryRef<'_> {
        EntryRef::new(self.block)
    }
}

impl Drop for OwnedEntry {
    fn drop(&mut self) {
        // SAFETY: it is the only owner, and views of it have ended with the borrow.
        unsafe { self.block.free_alone() }
    }
}

/// An entry that can be changed in place. The memory account follows.
pub struct EntryMut<'a> {
    segment: &'a mut Segment,
    position: Position,
    block: Block,
    slab: &'a mut Slab,
    account: &'a mut usize,
}

impl<'a> EntryMut<'a> {
    #[inline]
    pub(super) fn new(
        segment: &'a mut Segment,
        position: Position,
        slab: &'a mut Slab,
        account: &'a mut usize,
    ) -> EntryMut<'a> {
        let block = segment.block_at(position);
        EntryMut { segment, position, block, slab, account }
    }

    /// The entry, to be read.
    #[inline]
    pub fn entry(&self) -> EntryRef<'_> {
        EntryRef::new(self.block)
    }

    /// The entry, to be read for as long as the table is borrowed.
    #[inline]
    pub fn into_entry(self) -> EntryRef<'a> {
        EntryRef::new(self.block)
    }

    /// Changes value, version, deadline and heat. Allocates only if the block's size changes.
    #[inline]
    pub fn set(&mut self, new: NewEntry<'_>) {
        let fields = Fields { sequence: new.sequence, deadline: new.deadline, heat: new.heat };
        self.rewrite(fields, new.value);
    }

    /// Changes the value alone.
    pub fn set_value(&mut self, value: NewValue<'_>) {
        let fields = Fields {
            sequence: self.block.sequence(),
            deadline: self.block.deadline(),
            heat: self.block.heat(),
        };
        self.rewrite(fields, value);
    }

    /// Changes the 44-bit sequence part of the version.
    #[inline]
    pub fn set_sequence(&mut self, sequence: u64) {
        self.block.set_sequence(sequence);
    }

    /// Sets, changes or removes the deadline (unix ms, at most 48 bits).
    pub fn set_deadline(&mut self, deadline: Option<u64>) {
        let before = self.block.memory_bytes();
        let block = self.block.set_deadline(self.slab, deadline);
        self.settle(before, block);
    }

    /// Sets the heat; above 3 counts as 3.
    #[inline]
    pub fn set_heat(&mut self, heat: u8) {
        self.block.set_heat(heat);
    }

    /// Counts a use of the value: its heat grows.
    #[inline]
    pub fn touch(&mut self) {
        self.set_heat(self.block.heat() + 1);
    }

    /// The payload in the entry block, to be overwritten with as many bytes (a number counted up). `None` if
    /// the value stands outside it.
    #[inline]
    pub fn payload_mut(&mut self) -> Option<&mut [u8]> {
        // SAFETY: the table is borrowed exclusively through `self`.
        unsafe { self.block.payload_mut() }
    }

    /// Builds a collection that stands as it was written. Whether it did.
    #[inline]
    pub fn build(&mut self) -> bool {
        self.block.is_whole() && self.build_whole()
    }

    #[cold]
    fn build_whole(&mut self) -> bool {
        let Stored::Whole { kind, payload } = self.entry().value() else { return false };
        let Some(built) = Collection::decode(ValueRef::from_parts(kind, payload)) else { return false };
        self.set_value(NewValue::Collection(Arc::new(built)));
        true
    }

    /// The collection, to be changed in place: built first where it stands as it was written, copied first if a
    /// reader holds a snapshot of it. `None` if the value is none.
    pub fn collection_mut(&mut self) -> Option<CollectionMut<'_>> {
        self.build();
        // Before a copy is made: that may have another capacity.
        let before = collection_bytes(self.entry().value().collection()?);
        // SAFETY: the table is borrowed exclusively through `self`.
        let collection = unsafe { self.block.collection_mut() }?;
        Some(CollectionMut { block: self.block, collection, before, account: self.account })
    }

    #[inline]
    fn rewrite(&mut self, fields: Fields, value: NewValue<'_>) {
        let payload = Payload::new(value);
        if !self.block.overwrite(fields, &payload) {
            self.replace(fields, payload);
        }
    }

    /// Changes all but the key where that may take another block.
    pub(super) fn replace(&mut self, fields: Fields, payload: Payload<'_>) {
        let before = self.block.memory_bytes();
        let block = self.block.rewrite(self.slab, fields, payload);
        self.settle(before, block);
    }

    /// After a change: the account and the slot follow the block.
    #[inline]
    fn settle(&mut self, before: usize, block: Block) {
        let after = block.memory_bytes();
        if before != after {
            *self.account = *self.account - before + after;
        }
        if block != self.block {
            self.segment.set_block(self.position, block);
            self.block = block;
        }
    }
}

/// A collection in an entry, borrowed for change; the account is settled when this goes away.
pub struct CollectionMut<'a> {
    block: Block,
    collection: &'a mut Collection,
    before: usize,
    account: &'a mut usize,
}

impl Deref for CollectionMut<'_> {
    type Target = Collection;

    #[inline]
    fn deref(&self) -> &Collection {
        self.collection
    }
}

impl DerefMut for CollectionMut<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Collection {
        self.collection
    }
}

impl Drop for CollectionMut<'_> {
    fn drop(&mut self) {
        *self.account = *self.account - self.before + collection_bytes(self.collection);
        self.block.set_collection_kind(self.collection.kind());
    }
}
