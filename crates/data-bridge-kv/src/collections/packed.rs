//! One owned value in codec bytes, as an element of a collection: 24 bytes, and no heap up to 23 bytes. So numbers,
//! a Decimal, a Uuid and short text stand where they are looked for, and cost neither an allocation nor a cache miss.

use data_bridge_kv_model::{Kind, ValueRef};

use crate::footprint::block_bytes;

/// Longest encoding that needs no heap.
pub const INLINE_BYTES: usize = 23;

/// Longest encoding that has a block of a size class to itself.
const BLOCK_BYTES: usize = 127;

/// How many bytes of the inline place are used. The values above leave room for the other variants' tags, so
/// that the whole is 24 bytes.
#[derive(Clone, Copy)]
#[repr(u8)]
#[rustfmt::skip]
enum InlineLen {
    L0, L1, L2, L3, L4, L5, L6, L7, L8, L9, L10, L11, L12, L13, L14, L15, L16, L17, L18, L19, L20, L21, L22, L23,
}

#[rustfmt::skip]
const INLINE_LENS: [InlineLen; INLINE_BYTES + 1] = {
    use InlineLen::*;
    [
        L0, L1, L2, L3, L4, L5, L6, L7, L8, L9, L10, L11, L12, L13, L14, L15, L16, L17, L18, L19, L20, L21, L22, L23,
    ]
};

/// The encoded value. Medium lengths have one block of an allocator size class each, so that a value costs one
/// allocation without slack; the first byte of such a block is the length.
#[derive(Clone)]
enum Repr {
    Inline(InlineLen, [u8; INLINE_BYTES]),
    Block32(Box<[u8; 32]>),
    Block48(Box<[u8; 48]>),
    Block64(Box<[u8; 64]>),
    Block96(Box<[u8; 96]>),
    Block128(Box<[u8; 128]>),
    Long(Box<Box<[u8]>>),
}

const _: () = assert!(size_of::<Packed>() == 24);

/// A value that owns its codec bytes. It holds what the value codec wrote or validated.
#[derive(Clone)]
pub struct Packed(Repr);

impl Packed {
    /// A copy of an encoded value: kind byte and payload, at least one byte.
    pub fn new(encoded: &[u8]) -> Packed {
        let len = encoded.len();
        debug_assert!(len > 0);
        Packed(match len {
            ..=INLINE_BYTES => {
                let mut bytes = [0; INLINE_BYTES];
                bytes[..len].copy_from_slice(encoded);
                Repr::Inline(INLINE_LENS[len], bytes)
            }
            24..=31 => Repr::Block32(counted(encoded)),
            32..=47 => Repr::Block48(counted(encoded)),
            48..=63 => Repr::Block64(counted(encoded)),
            64..=95 => Repr::Block96(counted(encoded)),
            96..=BLOCK_BYTES => Repr::Block128(counted(encoded)),
            _ => Repr::Long(Box::new(Box::from(encoded))),
        })
    }

    /// The encoded value.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(len, bytes) => &bytes[..usize::from(*len as u8)],
            Repr::Block32(block) => content(&**block),
            Repr::Block48(block) => content(&**block),
            Repr::Block64(block) => content(&**block),
            Repr::Block96(block) => content(&**block),
            Repr::Block128(block) => content(&**block),
            Repr::Long(bytes) => bytes,
        }
    }

    /// The value's kind.
    #[inline]
    pub fn kind(&self) -> Kind {
        Kind::ALL[usize::from(self.as_bytes()[0])]
    }

    /// The value: its kind and its payload.
    #[inline]
    pub fn value(&self) -> ValueRef<'_> {
        let encoded = self.as_bytes();
        let (kind, mut start) = (Kind::ALL[usize::from(encoded[0])], 1);
        if matches!(kind, Kind::Text | Kind::Bytes) {
            // The length in front of the content ends with the first byte below 128.
            while encoded[start] >= 0x80 {
                start += 1;
            }
            start += 1;
        }
        ValueRef::from_parts(kind, &encoded[start..])
    }

    /// What it takes on the heap, its own 24 bytes apart.
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Repr::Inline(..) => 0,
            Repr::Block32(..) => 32,
            Repr::Block48(..) => 48,
            Repr::Block64(..) => 64,
            Repr::Block96(..) => 96,
            Repr::Block128(..) => 128,
            Repr::Long(bytes) => block_bytes(size_of::<Box<[u8]>>()) + block_bytes(bytes.len()),
        }
    }
}

impl Packed {
    /// Becomes another value, in its place where one of that length has a block of this size.
    #[inline]
    pub fn assign(&mut self, value: ValueRef<'_>) {
        if let Some(inline) = Packed::inline(value) {
            *self = inline;
            return;
        }
        with_short(value, |encoded| {
            match encoded.and_then(|encoded| Some((encoded, self.block(encoded.len())?))) {
                Some((encoded, block)) => fill(block, encoded),
                None => *self = Packed::from(value),
            }
        });
    }

    /// The value where it needs no heap; `None` where it does.
    #[inline]
    fn inline(value: ValueRef<'_>) -> Option<Packed> {
        let payload = value.payload();
        let has_length = value.content().is_some();
        let head = 1 + usize::from(has_length);
        if payload.len() > INLINE_BYTES - head {
            return None;
        }
        let mut bytes = [0; INLINE_BYTES];
        bytes[0] = value.kind().number();
        if has_length {
            // Below 128 the length is one byte.
            bytes[1] = payload.len() as u8;
        }
        bytes[head..head + payload.len()].copy_from_slice(payload);
        Some(Packed(Repr::Inline(INLINE_LENS[head + payload.len()], bytes)))
    }

    /// The block that a value of so many encoded bytes would have too, if it is the one that there is.
    fn block(&mut self, len: usize) -> Option<&mut [u8]> {
        match (&mut self.0, len) {
            (Repr::Block32(block), 24..=31) => Some(&mut **block),
            (Repr::Block48(block), 32..=47) => Some(&mut **block),
            (Repr::Block64(block), 48..=63) => Some(&mut **block),
            (Repr::Block96(block), 64..=95) => Some(&mut **block),
            (Repr::Block128(block), 96..=BLOCK_BYTES) => Some(&mut **block),
            _ => None,
        }
    }
}

impl From<ValueRef<'_>> for Packed {
    #[inline]
    fn from(value: ValueRef<'_>) -> Packed {
        Packed::inline(value).unwrap_or_else(|| Packed::on_heap(value))
    }
}

impl Packed {
    fn on_heap(value: ValueRef<'_>) -> Packed {
        with_short(value, |encoded| match encoded {
            Some(encoded) => Packed::new(encoded),
            None => {
                let mut encoded = Vec::with_capacity(value.encoded_len());
                value.encode_into(&mut encoded);
                Packed::new(&encoded)
            }
        })
    }
}

/// Hands the encoded value to `use_it`, or `None` if it is longer than a block.
#[inline]
fn with_short<R>(value: ValueRef<'_>, use_it: impl FnOnce(Option<&[u8]>) -> R) -> R {
    let payload = value.payload();
    let has_length = value.content().is_some();
    let head = 1 + usize::from(has_length);
    if payload.len() > BLOCK_BYTES - head {
        return use_it(None);
    }
    // Below 128 the length is one byte.
    let mut encoded = [0; BLOCK_BYTES];
    encoded[0] = value.kind().number();
    if has_length {
        encoded[1] = payload.len() as u8;
    }
    encoded[head..head + payload.len()].copy_from_slice(payload);
    use_it(Some(&encoded[..head + payload.len()]))
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.value().fmt(f)
    }
}

/// A block with the length in front.
fn counted<const N: usize>(bytes: &[u8]) -> Box<[u8; N]> {
    let mut block = Box::new([0; N]);
    fill(&mut *block, bytes);
    block
}

#[inline]
fn fill(block: &mut [u8], bytes: &[u8]) {
    block[0] = bytes.len() as u8;
    block[1..=bytes.len()].copy_from_slice(bytes);
}

#[inline]
fn content(block: &[u8]) -> &[u8] {
    &block[1..=usize::from(block[0])]
}

/// What the elements of a collection add up to, kept while they come and go.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// Heap bytes of the elements.
    pub(super) heap: usize,
    /// Their encoded length.
    pub(super) encoded: usize,
}

impl Account {
    #[inline]
    pub(super) fn add(&mut self, element: &Packed) {
        self.heap += element.heap_bytes();
        self.encoded += element.as_bytes().len();
    }

    #[inline]
    pub(super) fn subtract(&mut self, element: &Packed) {
        self.heap -= element.heap_bytes();
        self.encoded -= element.as_bytes().len();
    }
}

/// Length of a count in the value codec.
pub(super) fn count_len(count: usize) -> usize {
    (usize::BITS - (count | 1).leading_zeros()).div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_round_trips() {
        for len in 0..400usize {
            let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            for kind in [Kind::Bytes, Kind::Text, Kind::Tagged] {
                let value = ValueRef::from_parts(kind, &bytes);
                let packed = Packed::from(value);
                let mut encoded = Vec::new();
                value.encode_into(&mut encoded);
                assert_eq!(packed.as_bytes(), encoded);
                assert_eq!(packed.clone().value(), value);
                assert_eq!(Packed::new(&encoded).value(), value);
                assert_eq!(packed.kind(), kind);
                assert_eq!(packed.heap_bytes() == 0, encoded.len() <= INLINE_BYTES);
                assert!(packed.heap_bytes() == 0 || packed.heap_bytes() >= encoded.len());
            }
        }
    }

    #[test]
    fn every_length_takes_the_place_of_every_other() {
        let (bytes, text) = ([7; 140], "text".repeat(35));
        for old in 0..bytes.len() {
            for new in 0..bytes.len() {
                let after = ValueRef::text(&text[..new]);
                let mut packed = Packed::from(ValueRef::bytes(&bytes[..old]));
                packed.assign(after);
                assert_eq!(packed.as_bytes(), Packed::from(after).as_bytes());
                assert_eq!(packed.heap_bytes(), Packed::from(after).heap_bytes());
            }
        }
    }

    #[test]
    fn a_count_is_as_long_as_the_codec_writes_it() {
        for count in [0, 1, 127, 128, 16_383, 16_384, 1 << 21] {
            let mut out = Vec::new();
            data_bridge_kv_model::codec::put_varint(count, &mut out);
            assert_eq!(count_len(count), out.len());
        }
    }
}
