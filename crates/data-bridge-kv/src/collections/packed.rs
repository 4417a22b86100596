//! One owned value in codec bytes, as an element of a collection: 16 bytes, and no heap up to 15 bytes.

use data_bridge_kv_model::Kind;

use crate::footprint::block_bytes;

/// Longest encoding that needs no heap.
pub const INLINE_BYTES: usize = 15;

/// How many bytes of the inline place are used. The values above leave room for the other variants' tags, so
/// that the whole is 16 bytes.
#[derive(Clone, Copy)]
#[repr(u8)]
#[rustfmt::skip]
enum InlineLen { L0, L1, L2, L3, L4, L5, L6, L7, L8, L9, L10, L11, L12, L13, L14, L15 }

#[rustfmt::skip]
const INLINE_LENS: [InlineLen; INLINE_BYTES + 1] = {
    use InlineLen::*;
    [L0, L1, L2, L3, L4, L5, L6, L7, L8, L9, L10, L11, L12, L13, L14, L15]
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

const _: () = assert!(size_of::<Packed>() == 16);

/// An encoded value that owns its bytes. It holds what the value codec wrote or validated.
#[derive(Clone)]
pub struct Packed(Repr);

impl Packed {
    /// A copy of an encoded value: kind byte and payload.
    pub fn new(encoded: &[u8]) -> Packed {
        let len = encoded.len();
        debug_assert!(len > 0);
        Packed(match len {
            ..=INLINE_BYTES => {
                let mut bytes = [0; INLINE_BYTES];
                bytes[..len].copy_from_slice(encoded);
                Repr::Inline(INLINE_LENS[len], bytes)
            }
            16..=31 => Repr::Block32(counted(encoded)),
            32..=47 => Repr::Block48(counted(encoded)),
            48..=63 => Repr::Block64(counted(encoded)),
            64..=95 => Repr::Block96(counted(encoded)),
            96..=127 => Repr::Block128(counted(encoded)),
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

    /// What it takes on the heap, its own 16 bytes apart.
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

/// A block with the length in front.
fn counted<const N: usize>(bytes: &[u8]) -> Box<[u8; N]> {
    let mut block = Box::new([0; N]);
    block[0] = bytes.len() as u8;
    block[1..=bytes.len()].copy_from_slice(bytes);
    block
}

#[inline]
fn content(block: &[u8]) -> &[u8] {
    &block[1..=usize::from(block[0])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_round_trips() {
        for len in 1..400usize {
            let bytes: Vec<u8> = (0..len).map(|at| (at % 21) as u8).collect();
            let packed = Packed::new(&bytes);
            assert_eq!(packed.as_bytes(), bytes);
            assert_eq!(packed.clone().as_bytes(), bytes);
            assert_eq!(packed.kind(), Kind::Null);
            assert_eq!(packed.heap_bytes() == 0, len <= INLINE_BYTES);
            assert!(packed.heap_bytes() == 0 || packed.heap_bytes() >= len);
        }
    }
}
