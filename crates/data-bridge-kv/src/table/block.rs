//! The bytes of an entry: one heap block per key, laid out as the head of `header.rs` draws it.
//!
//! The block is as large as [`slot_bytes`] says, so that a rewrite within that size needs no allocation. Nothing in it is
//! aligned. A block of a table stands in the table's slab, one outside of any table is an allocation of its own.

use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use data_bridge_kv_model::Kind;

use super::header::{
    ADDRESS_BYTES, DEADLINE_BYTES, FRONT_BYTES, Fields, Header, LENGTH_BYTES, MAX_KEY_BYTES, WORD_BYTES,
    payload_len_of,
};
use super::slab::{Slab, allocate_alone, free_alone, slot_bytes, stands_alone};
use super::value::{Blob, INLINE_BYTES, NewEntry, NewValue, Shared, Stored, is_kept_whole};
use crate::collections::Collection;
use crate::footprint::arc_bytes;

/// A live entry block. Copies of the handle are only made inside the table module, which keeps this
/// invariant: a handle that is still used points to a block that [`Block::new`] made and nobody freed, and
/// whoever writes through one holds the table exclusively.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Block(NonNull<u8>);

/// What stands in the payload's place of a block: bytes, or an owned external part as its address.
pub(super) struct Payload<'a> {
    kind: Kind,
    place: Place<'a>,
}

enum Place<'a> {
    Inline(&'a [u8]),
    External([u8; ADDRESS_BYTES]),
}

impl<'a> Payload<'a> {
    /// Takes over the value. An external part is owned by the result and must end up in a block.
    #[inline]
    pub(super) fn new(value: NewValue<'a>) -> Payload<'a> {
        match value {
            NewValue::Payload { kind, bytes } if bytes.len() <= INLINE_BYTES => {
                assert!(!kind.is_collection(), "a collection is no payload");
                assert!(
                    payload_len_of(kind).is_none_or(|len| len == bytes.len()),
                    "a {kind:?} of another length"
                );
                Payload { kind, place: Place::Inline(bytes) }
            }
            other => Payload::of_any(other),
        }
    }

    #[inline(never)]
    fn of_any(value: NewValue<'a>) -> Payload<'a> {
        match value {
            NewValue::Payload { kind, bytes } => {
                Payload::of_any(NewValue::Blob { kind, blob: Arc::new(Blob::from(bytes)) })
            }
            NewValue::Blob { kind, blob } => {
                assert!(!kind.is_collection(), "a collection is no payload");
                Payload { kind, place: Place::external(Arc::into_raw(blob)) }
            }
            NewValue::Whole { kind, bytes } => {
                assert!(is_kept_whole(kind, bytes.len()), "a {kind:?} that is to be built");
                Payload { kind, place: Place::Inline(bytes) }
            }
            NewValue::Collection(collection) => {
                Payload { kind: collection.kind(), place: Place::external(Arc::into_raw(collection)) }
            }
        }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match &self.place {
            Place::Inline(bytes) => bytes,
            Place::External(address) => address,
        }
    }
}

impl Place<'_> {
    fn external<T>(target: *const T) -> Self {
        Place::External((target.expose_provenance() as u64).to_le_bytes())
    }
}

/// What a collection takes on the heap, its reference counts included.
pub(super) fn collection_bytes(collection: &Collection) -> usize {
    arc_bytes::<Collection>() + collection.memory_bytes()
}

impl Block {
    /// A new block of a table.
    pub(super) fn new(slab: &mut Slab, key: &[u8], fields: Fields, payload: Payload<'_>) -> Block {
        Block::write_new(|len| slab.allocate(len), key, fields, payload)
    }

    /// A new block in the memory that `allocate` gives for its length.
    fn write_new(
        allocate: impl FnOnce(usize) -> NonNull<u8>,
        key: &[u8],
        fields: Fields,
        payload: Payload<'_>,
    ) -> Block {
        assert!((1..=MAX_KEY_BYTES).contains(&key.len()), "a key has 1 to 1024 bytes");
        let header = fields.header(key.len(), payload.kind, matches!(payload.place, Place::External(_)));
        let block = Block(allocate(header.payload_offset() + payload.bytes().len()));
        block.write_front(header, fields, payload.bytes().len());
        // SAFETY: the block was allocated for this header, so key and payload fit behind their offsets, and
        // new memory does not overlap the sources.
        unsafe {
            ptr::copy_nonoverlapping(key.as_ptr(), block.at(header.key_offset()), key.len());
            block.write_payload(header, payload.bytes());
        }
        block
    }

    /// Changes fields and value where key and payload keep their places and lengths, as most writes over a value of the
    /// same kind leave them. Whether that was so; nothing changes otherwise.
    #[inline]
    pub(super) fn overwrite(self, fields: Fields, payload: &Payload<'_>) -> bool {
        let (old, Place::Inline(bytes)) = (self.header(), &payload.place) else { return false };
        let header = fields.header(old.key_len(), payload.kind, false);
        if !header.has_layout_of(old) || self.payload_len(old) != bytes.len() {
            return false;
        }
        // The length, where it stands in the block, is right already.
        self.write_header(header);
        if let Some(deadline) = fields.deadline {
            self.write_deadline(deadline);
        }
        // SAFETY: the new payload is as long as the old one and stands in its place.
        unsafe { self.write_payload(old, bytes) }
        true
    }

    /// Changes fields and value of a block in `slab`, in place if its size allows it. The old external part, if any, is
    /// released. Returns the block to use from now on: if it differs from `self`, `self` is gone.
    pub(super) fn rewrite(self, slab: &mut Slab, fields: Fields, payload: Payload<'_>) -> Block {
        let old = self.header();
        let header = fields.header(old.key_len(), payload.kind, matches!(payload.place, Place::External(_)));
        self.release_external();
        let len = header.payload_offset() + payload.bytes().len();
        if slot_bytes(len) == slot_bytes(self.len()) {
            // SAFETY: the block has room for `len` bytes: its size is the same. The key may overlap its
            // old place, so `copy`; the payload comes from outside (`&mut Table` excludes borrows of it).
            unsafe {
                if header.key_offset() != old.key_offset() {
                    ptr::copy(self.at(old.key_offset()), self.at(header.key_offset()), old.key_len());
                }
                self.write_payload(header, payload.bytes());
            }
            self.write_front(header, fields, payload.bytes().len());
            return self;
        }
        let block = Block(slab.allocate(len));
        block.write_front(header, fields, payload.bytes().len());
        // SAFETY: as in `write_new`; `self` is freed after its key was copied, its external part is released, and
        // the caller forgets the handle.
        unsafe {
            ptr::copy_nonoverlapping(self.key().as_ptr(), block.at(header.key_offset()), old.key_len());
            block.write_payload(header, payload.bytes());
            slab.free(self.0, self.len());
        }
        block
    }

    /// Changes the deadline only; returns the block to use from now on, as [`Block::rewrite`] does.
    pub(super) fn set_deadline(self, slab: &mut Slab, deadline: Option<u64>) -> Block {
        let old = self.header();
        let fields = Fields { sequence: old.sequence(), deadline, heat: self.heat() };
        let header = fields.header(old.key_len(), old.kind(), old.is_external());
        let payload_len = self.payload_len(old);
        // Key and payload are neighbours and move together.
        let tail = old.key_len() + payload_len;
        let len = header.key_offset() + tail;
        let same_size = slot_bytes(len) == slot_bytes(self.len());
        let block = if same_size { self } else { Block(slab.allocate(len)) };
        // SAFETY: `block` has room for `len` bytes; source and target may overlap. A block that was replaced
        // has handed its external part on and is not used again.
        unsafe {
            ptr::copy(self.at(old.key_offset()), block.at(header.key_offset()), tail);
            if !same_size {
                slab.free(self.0, self.len());
            }
        }
        block.write_front(header, fields, payload_len);
        block
    }

    /// A block outside any table.
    pub(super) fn alone(key: &[u8], new: NewEntry<'_>) -> Block {
        let fields = Fields { sequence: new.sequence, deadline: new.deadline, heat: new.heat };
        Block::write_new(allocate_alone, key, fields, Payload::new(new.value))
    }

    /// A second block with the same content, outside any table; external parts are shared.
    pub(super) fn duplicate(self) -> Block {
        let fields = Fields { sequence: self.sequence(), deadline: self.deadline(), heat: self.heat() };
        // SAFETY: the copy made from it outlives nothing: the borrow ends in `write_new`.
        let value = unsafe { self.value() };
        Block::write_new(allocate_alone, self.key(), fields, Payload::new(value.into()))
    }

    /// Frees a block of a table and releases its external part.
    ///
    /// # Safety
    /// The block is in `slab`. No copy of the handle and no borrow of the block is used afterwards.
    pub(super) unsafe fn free(self, slab: &mut Slab) {
        self.release_external();
        // SAFETY: the caller promised that nobody uses the block any more; rewrites never leave its size.
        unsafe { slab.free(self.0, self.len()) }
    }

    /// Frees what the block has outside the pages of its slab, which goes away next.
    ///
    /// # Safety
    /// As for [`Block::free`].
    pub(super) unsafe fn free_but_page(self) {
        self.release_external();
        if stands_alone(self.len()) {
            // SAFETY: as in `free`; that is where the slab took it from.
            unsafe { free_alone(self.0, self.len()) }
        }
    }

    /// Frees a block outside any table and releases its external part.
    ///
    /// # Safety
    /// As for [`Block::free`], but the block is in no slab.
    pub(super) unsafe fn free_alone(self) {
        self.release_external();
        // SAFETY: as in `free`.
        unsafe { free_alone(self.0, self.len()) }
    }

    /// Brings a block from outside any table into `slab`. The handle is not to be used any more.
    pub(super) fn move_into(self, slab: &mut Slab) -> Block {
        let len = self.len();
        let block = Block(slab.allocate(len));
        // SAFETY: both have room for `len` bytes; the external part belongs to the new block from here on.
        unsafe {
            ptr::copy_nonoverlapping(self.0.as_ptr(), block.0.as_ptr(), len);
            free_alone(self.0, len);
        }
        block
    }

    /// # Safety
    /// A live block stands at `memory`.
    pub(super) unsafe fn at_memory(memory: NonNull<u8>) -> Block {
        Block(memory)
    }

    /// The address as a number below 2^48, for a slot.
    #[inline]
    pub(super) fn address(self) -> u64 {
        let address = self.0.as_ptr().expose_provenance() as u64;
        assert!(address >> 48 == 0, "the platform hands out addresses above 48 bits");
        address
    }

    /// The handle of an address that [`Block::address`] gave.
    ///
    /// # Safety
    /// The block is alive.
    #[inline]
    pub(super) unsafe fn from_address(address: u64) -> Block {
        // SAFETY: a live block's address is not null.
        Block(unsafe { NonNull::new_unchecked(ptr::with_exposed_provenance_mut(address as usize)) })
    }

    #[inline]
    fn at(self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= FRONT_BYTES + MAX_KEY_BYTES);
        // SAFETY: offsets come from a header that the block was made for and stay within it.
        unsafe { self.0.as_ptr().add(offset) }
    }

    #[inline]
    fn header(self) -> Header {
        // SAFETY: a block has at least eight bytes, written by `write_front`.
        Header::from_le_bytes(unsafe { self.0.cast::<[u8; WORD_BYTES]>().read() })
    }

    #[inline]
    fn write_header(self, header: Header) {
        // SAFETY: a block has at least eight bytes.
        unsafe { self.0.cast::<[u8; WORD_BYTES]>().write(header.to_le_bytes()) }
    }

    /// Header, deadline and length. The block must have been allocated for `header`.
    #[inline]
    fn write_front(self, header: Header, fields: Fields, payload_len: usize) {
        debug_assert!(payload_len <= INLINE_BYTES);
        self.write_header(header);
        if let Some(deadline) = fields.deadline {
            self.write_deadline(deadline);
        }
        if header.has_length() {
            let length = (payload_len as u16).to_le_bytes();
            // SAFETY: the header says that the two bytes in front of the key are the length.
            unsafe {
                let place = self.at(header.key_offset() - LENGTH_BYTES);
                ptr::copy_nonoverlapping(length.as_ptr(), place, LENGTH_BYTES);
            }
        }
    }

    #[inline]
    fn write_deadline(self, deadline: u64) {
        let bytes = deadline.to_le_bytes();
        // SAFETY: only called for a block whose header says that the six bytes are there.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.at(WORD_BYTES), DEADLINE_BYTES) }
    }

    /// # Safety
    /// The block has room for the bytes behind the header's payload offset, and they are not part of it.
    #[inline]
    unsafe fn write_payload(self, header: Header, bytes: &[u8]) {
        // SAFETY: promised by the caller.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.at(header.payload_offset()), bytes.len()) }
    }

    /// The bytes in use, which decide the block's size.
    #[inline]
    pub(super) fn len(self) -> usize {
        let header = self.header();
        header.payload_offset() + self.payload_len(header)
    }

    #[inline]
    fn payload_len(self, header: Header) -> usize {
        if header.has_length() {
            // SAFETY: the header says that the two bytes in front of the key are the length.
            let length =
                unsafe { self.at(header.key_offset() - LENGTH_BYTES).cast::<u16>().read_unaligned() };
            usize::from(u16::from_le(length))
        } else {
            header.fixed_payload_len()
        }
    }

    /// Whether this is the entry of `key`.
    #[inline]
    pub(super) fn has_key(self, key: &[u8]) -> bool {
        let header = self.header();
        // SAFETY: the key stands at its offset with its length; the borrow ends here.
        header.key_len() == key.len()
            && unsafe { std::slice::from_raw_parts(self.at(header.key_offset()), key.len()) } == key
    }

    /// The key. The lifetime is the caller's to bound: the table does so in `EntryRef`.
    #[inline]
    pub(super) fn key<'a>(self) -> &'a [u8] {
        let header = self.header();
        // SAFETY: the key stands at its offset with its length; callers bound the lifetime by the table's.
        unsafe { std::slice::from_raw_parts(self.at(header.key_offset()), header.key_len()) }
    }

    /// Whether the value stands outside of it.
    #[inline]
    pub(super) fn is_external(self) -> bool {
        self.header().is_external()
    }

    /// Whether it is a collection as it was written.
    #[inline]
    pub(super) fn is_whole(self) -> bool {
        let header = self.header();
        !header.is_external() && header.kind().is_collection()
    }

    #[inline]
    pub(super) fn sequence(self) -> u64 {
        self.header().sequence()
    }

    pub(super) fn set_sequence(self, sequence: u64) {
        self.write_header(self.header().with_sequence(sequence));
    }

    #[inline]
    pub(super) fn kind(self) -> Kind {
        self.header().kind()
    }

    #[inline]
    pub(super) fn heat(self) -> u8 {
        self.header().heat()
    }

    #[inline]
    pub(super) fn set_heat(self, heat: u8) {
        self.write_header(self.header().with_heat(heat));
    }

    #[inline]
    pub(super) fn deadline(self) -> Option<u64> {
        if !self.header().has_deadline() {
            return None;
        }
        // SAFETY: with a deadline the block has at least 14 bytes; the upper six of the last eight are it.
        let word =
            unsafe { self.0.as_ptr().add(WORD_BYTES + DEADLINE_BYTES - 8).cast::<u64>().read_unaligned() };
        Some(u64::from_le(word) >> 16)
    }

    /// # Safety
    /// The block is neither changed nor freed during `'a`.
    #[inline]
    pub(super) unsafe fn value<'a>(self) -> Stored<'a> {
        let header = self.header();
        let kind = header.kind();
        if !header.is_external() {
            // SAFETY: the payload stands at its offset with its length; the lifetime is the caller's promise.
            let payload = unsafe {
                std::slice::from_raw_parts(self.at(header.payload_offset()), self.payload_len(header))
            };
            return if kind.is_collection() {
                Stored::Whole { kind, payload }
            } else {
                Stored::Inline { kind, payload }
            };
        }
        // SAFETY: an external payload is the address of an Arc that the block owns, of the type that the
        // kind tells; the Arc lives as long as the block.
        unsafe {
            if kind.is_collection() {
                Stored::Collection(Shared::new(self.external::<Collection>(header)))
            } else {
                Stored::Blob { kind, blob: Shared::new(self.external::<Blob>(header)) }
            }
        }
    }

    /// The inline payload, to be changed without changing its length; `None` for an external one.
    ///
    /// # Safety
    /// Nothing else reads or writes the block during `'a`.
    pub(super) unsafe fn payload_mut<'a>(self) -> Option<&'a mut [u8]> {
        let header = self.header();
        if header.is_external() {
            return None;
        }
        // SAFETY: as in `value`, and the caller promised exclusive use.
        Some(unsafe {
            std::slice::from_raw_parts_mut(self.at(header.payload_offset()), self.payload_len(header))
        })
    }

    /// The collection, copied first if somebody else holds it too; `None` if the value is none.
    ///
    /// # Safety
    /// Nothing else reads or writes the block or the collection during `'a`.
    pub(super) unsafe fn collection_mut<'a>(self) -> Option<&'a mut Collection> {
        let header = self.header();
        if !header.is_external() || !header.kind().is_collection() {
            return None;
        }
        // SAFETY: the address came from Arc::into_raw of this type. The block goes on owning the Arc (whoever
        // panics in the copy leaves it as it was), and its address is written back before anything else. An Arc that
        // this block alone owns (nobody makes weak ones of collections) is nobody else's to read, once the fence has
        // ordered what its last reader did; that is all `make_mut` would find out, by a locked instruction.
        unsafe {
            let target = self.external::<Collection>(header);
            let mut owner = ManuallyDrop::new(Arc::from_raw(target.as_ptr()));
            if Arc::strong_count(&owner) == 1 {
                fence(Ordering::Acquire);
                return Some(&mut *target.as_ptr());
            }
            Arc::make_mut(&mut owner);
            let target = Arc::into_raw(ManuallyDrop::into_inner(owner));
            self.write_payload(header, &(target.expose_provenance() as u64).to_le_bytes());
            Some(&mut *target.cast_mut())
        }
    }

    /// Makes the header's kind that of the collection, which may have been replaced as a whole.
    pub(super) fn set_collection_kind(self, kind: Kind) {
        debug_assert!(kind.is_collection() && self.kind().is_collection());
        self.write_header(self.header().with_kind(kind));
    }

    /// # Safety
    /// The header is this block's and says external, with a part of type `T`.
    unsafe fn external<T>(self, header: Header) -> NonNull<T> {
        // SAFETY: eight bytes stand at the payload's place.
        let bytes =
            unsafe { self.at(header.payload_offset()).cast::<[u8; ADDRESS_BYTES]>().read_unaligned() };
        let target = ptr::with_exposed_provenance_mut(u64::from_le_bytes(bytes) as usize);
        // SAFETY: the address came from Arc::into_raw, so it is not null.
        unsafe { NonNull::new_unchecked(target) }
    }

    /// Gives up the block's ownership of its external part. The block must be rewritten or freed next.
    fn release_external(self) {
        let header = self.header();
        if !header.is_external() {
            return;
        }
        // SAFETY: the address came from Arc::into_raw of this type; it is not read again, since callers
        // overwrite or free the block.
        unsafe {
            if header.kind().is_collection() {
                drop(Arc::from_raw(self.external::<Collection>(header).as_ptr()));
            } else {
                drop(Arc::from_raw(self.external::<Blob>(header).as_ptr()));
            }
        }
    }

    /// What the entry takes on the heap, external parts included.
    pub(super) fn memory_bytes(self) -> usize {
        let block = slot_bytes(self.len());
        // SAFETY: the borrow ends here.
        match unsafe { self.value() } {
            Stored::Inline { .. } | Stored::Whole { .. } => block,
            Stored::Blob { blob, .. } => block + blob.memory_bytes(),
            Stored::Collection(collection) => block + collection_bytes(&collection),
        }
    }
}
