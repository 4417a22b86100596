//! Values as they go into a table entry and as they are seen in it.

use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use data_bridge_kv_model::identity::same_identity;
use data_bridge_kv_model::{Items, Kind, ValueRef};

use super::arena::{self, Extent};
use crate::collections::Collection;
use crate::footprint::{arc_bytes, block_bytes};

/// Longest payload that stands in the entry block itself; a longer one is a [`Blob`].
pub const INLINE_BYTES: usize = 4095;

/// Whether a collection of this kind and payload length may stand in its entry as it was written. A sorted set may
/// not: its order is the store's, not the writer's.
#[inline]
pub fn is_kept_whole(kind: Kind, payload_len: usize) -> bool {
    matches!(kind, Kind::List | Kind::Set | Kind::Hash) && payload_len <= INLINE_BYTES
}

/// A payload outside the entry block, reference-counted so that a reader can keep it and copy it without
/// the shard's lock.
#[derive(Debug)]
pub struct Blob(Bytes);

#[derive(Debug)]
enum Bytes {
    /// The payload starts at `start` and ends with the bytes.
    Heap { bytes: Box<[u8]>, start: usize },
    /// A long one: see `arena.rs`.
    Own(Extent),
}

impl Blob {
    /// The last `length` of these bytes, where they are; copied if much less is needed than they take.
    pub fn tail(bytes: Vec<u8>, length: usize) -> Blob {
        let start = bytes.len() - length;
        if bytes.capacity() - length > length / 16 || length >= arena::least_bytes() {
            return Blob::from(&bytes[start..]);
        }
        Blob(Bytes::Heap { bytes: bytes.into_boxed_slice(), start })
    }

    /// What the blob takes on the heap.
    pub fn memory_bytes(&self) -> usize {
        let bytes = match &self.0 {
            Bytes::Heap { bytes, .. } => block_bytes(bytes.len()),
            Bytes::Own(extent) => extent.memory_bytes(),
        };
        arc_bytes::<Blob>() + bytes
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Blob {
        let own = if bytes.len() >= arena::least_bytes() { Extent::copy_of(bytes) } else { None };
        Blob(own.map_or_else(|| Bytes::Heap { bytes: bytes.into(), start: 0 }, Bytes::Own))
    }
}

impl Deref for Blob {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Heap { bytes, start } => &bytes[*start..],
            Bytes::Own(extent) => extent,
        }
    }
}

/// A borrowed, reference-counted part of an entry: reads like `&T`, and [`Shared::share`] keeps it beyond the
/// borrow.
#[derive(Debug)]
pub struct Shared<'a, T> {
    /// From `Arc::into_raw`, and that `Arc` lives for `'a`.
    target: NonNull<T>,
    lifetime: PhantomData<&'a T>,
}

impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// # Safety
    /// `target` came from `Arc::into_raw` and that `Arc` is not dropped during `'a`.
    #[inline]
    pub(super) unsafe fn new(target: NonNull<T>) -> Shared<'a, T> {
        Shared { target, lifetime: PhantomData }
    }

    /// The target for as long as the entry is borrowed.
    #[inline]
    pub fn get(self) -> &'a T {
        // SAFETY: `new` was promised that the target lives for 'a; it is only changed through `&mut Table`.
        unsafe { self.target.as_ref() }
    }

    /// One more owner of the target.
    pub fn share(self) -> Arc<T> {
        // SAFETY: `new` was promised a pointer of `Arc::into_raw` whose Arc is alive; the count raised here
        // belongs to the Arc made from it.
        unsafe {
            Arc::increment_strong_count(self.target.as_ptr());
            Arc::from_raw(self.target.as_ptr())
        }
    }
}

impl<T> Deref for Shared<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.get()
    }
}

/// A value as it stands in an entry.
#[derive(Clone, Copy, Debug)]
pub enum Stored<'a> {
    /// A payload in the entry block. It is the value codec's payload without the kind byte; of Text and Bytes
    /// it is the raw bytes without their length.
    Inline {
        /// Never a collection.
        kind: Kind,
        /// At most [`INLINE_BYTES`].
        payload: &'a [u8],
    },
    /// A longer payload, in the same form.
    Blob {
        /// Never a collection.
        kind: Kind,
        /// The payload.
        blob: Shared<'a, Blob>,
    },
    /// A list, set or hash as it was written whole: its payload in the entry block. The first command that looks
    /// inside has it built.
    Whole {
        /// List, Set or Hash.
        kind: Kind,
        /// At most [`INLINE_BYTES`].
        payload: &'a [u8],
    },
    /// A list, set, hash or sorted set, built.
    Collection(Shared<'a, Collection>),
}

impl<'a> Stored<'a> {
    /// The kind of the value.
    #[inline]
    pub fn kind(self) -> Kind {
        match self {
            Stored::Inline { kind, .. } | Stored::Blob { kind, .. } | Stored::Whole { kind, .. } => kind,
            Stored::Collection(collection) => collection.kind(),
        }
    }

    /// The payload bytes; `None` for a collection.
    #[inline]
    pub fn payload(self) -> Option<&'a [u8]> {
        match self {
            Stored::Inline { payload, .. } => Some(payload),
            Stored::Blob { blob, .. } => Some(blob.get()),
            Stored::Whole { .. } | Stored::Collection(_) => None,
        }
    }

    /// The value as the codec sees it; `None` for a collection.
    #[inline]
    pub fn scalar(self) -> Option<ValueRef<'a>> {
        self.payload().map(|payload| ValueRef::from_parts(self.kind(), payload))
    }

    /// The collection; `None` for a payload and for a collection that was not built yet.
    #[inline]
    pub fn collection(self) -> Option<&'a Collection> {
        match self {
            Stored::Inline { .. } | Stored::Blob { .. } | Stored::Whole { .. } => None,
            Stored::Collection(collection) => Some(collection.get()),
        }
    }

    /// The value of a field; `None` where there is no such field, or no hash.
    pub fn field(self, field: ValueRef<'_>) -> Option<ValueRef<'a>> {
        match self {
            Stored::Whole { kind: Kind::Hash, payload } => {
                let mut items = Items::of(ValueRef::from_parts(Kind::Hash, payload));
                while let (Some(name), Some(value)) = (items.next(), items.next()) {
                    if same_identity(name, field) {
                        return Some(value);
                    }
                }
                None
            }
            Stored::Collection(collection) => collection.get().field(field),
            Stored::Inline { .. } | Stored::Blob { .. } | Stored::Whole { .. } => None,
        }
    }
}

/// A value on its way into an entry.
#[derive(Clone, Debug)]
pub enum NewValue<'a> {
    /// A payload in the form of [`Stored::Inline`]; the table decides where it stands.
    Payload {
        /// Never a collection.
        kind: Kind,
        /// The payload.
        bytes: &'a [u8],
    },
    /// A payload that is reference-counted already.
    Blob {
        /// Never a collection.
        kind: Kind,
        /// The payload.
        blob: Arc<Blob>,
    },
    /// A list, set or hash to be kept as it is written, in the form of [`Stored::Whole`].
    Whole {
        /// List, Set or Hash.
        kind: Kind,
        /// At most [`INLINE_BYTES`]; no member or field comes twice.
        bytes: &'a [u8],
    },
    /// A list, set, hash or sorted set.
    Collection(Arc<Collection>),
}

impl NewValue<'_> {
    /// The kind of the value.
    #[inline]
    pub fn kind(&self) -> Kind {
        match self {
            NewValue::Payload { kind, .. } | NewValue::Blob { kind, .. } | NewValue::Whole { kind, .. } => {
                *kind
            }
            NewValue::Collection(collection) => collection.kind(),
        }
    }

    /// The value of a field; `None` where there is no such field, or no hash.
    pub fn field(&self, field: ValueRef<'_>) -> Option<ValueRef<'_>> {
        match self {
            NewValue::Whole { kind, bytes } => Stored::Whole { kind: *kind, payload: bytes }.field(field),
            NewValue::Collection(collection) => collection.field(field),
            NewValue::Payload { .. } | NewValue::Blob { .. } => None,
        }
    }
}

impl<'a> From<ValueRef<'a>> for NewValue<'a> {
    /// A value that is no collection.
    #[inline]
    fn from(value: ValueRef<'a>) -> NewValue<'a> {
        NewValue::Payload { kind: value.kind(), bytes: value.payload() }
    }
}

impl<'a> From<Stored<'a>> for NewValue<'a> {
    /// The same value for another entry: payloads are copied when stored, blobs and collections are shared.
    fn from(stored: Stored<'a>) -> NewValue<'a> {
        match stored {
            Stored::Inline { kind, payload } => NewValue::Payload { kind, bytes: payload },
            Stored::Blob { kind, blob } => NewValue::Blob { kind, blob: blob.share() },
            Stored::Whole { kind, payload } => NewValue::Whole { kind, bytes: payload },
            Stored::Collection(collection) => NewValue::Collection(collection.share()),
        }
    }
}

/// Everything a new entry consists of but its key.
#[derive(Clone, Debug)]
pub struct NewEntry<'a> {
    /// The value.
    pub value: NewValue<'a>,
    /// The 44-bit sequence part of the version.
    pub sequence: u64,
    /// When it expires, unix ms, at most 48 bits.
    pub deadline: Option<u64>,
    /// 0..=3.
    pub heat: u8,
}
