//! The front of an entry block: what its first bytes mean and where that puts key and payload.
//!
//! ```text
//! 0   u64 LE  sequence 44 bits | key length - 1, 10 bits | kind 5 bits | deadline? | external? | heat 2 bits | 1 spare
//! 8   [6]     deadline, unix ms LE, only if the flag says so
//! ..  u16 LE  payload length, only for an inline payload whose kind does not fix it
//! ..  key
//! ..  payload, or the address of an Arc<Blob> or Arc<Collection> (8 bytes LE) if the flag says external
//! ```
//! So a 16-byte key with an Int takes 32 bytes.

use data_bridge_kv_model::Kind;

use super::value::INLINE_BYTES;

/// Largest sequence: 44 bits.
pub const MAX_SEQUENCE: u64 = (1 << 44) - 1;
/// Largest deadline, unix ms: 48 bits.
pub const MAX_DEADLINE: u64 = (1 << 48) - 1;
/// Longest key in bytes.
pub const MAX_KEY_BYTES: usize = 1024;
/// Largest heat: 2 bits.
pub const MAX_HEAT: u8 = 3;

const KEY_LEN_SHIFT: u32 = 44;
const KIND_SHIFT: u32 = 54;
const KIND: u64 = 0x1f << KIND_SHIFT;
const HAS_DEADLINE: u64 = 1 << 59;
const EXTERNAL: u64 = 1 << 60;
const HEAT_SHIFT: u32 = 61;
pub(super) const WORD_BYTES: usize = 8;
pub(super) const DEADLINE_BYTES: usize = 6;
pub(super) const LENGTH_BYTES: usize = 2;
pub(super) const ADDRESS_BYTES: usize = 8;
pub(super) const FRONT_BYTES: usize = WORD_BYTES + DEADLINE_BYTES + LENGTH_BYTES;

/// Payload bytes of each kind by its number; `VARIABLE` if the payload has a length field in the block.
const PAYLOAD_BYTES: [u8; 32] = {
    let mut bytes = [VARIABLE; 32];
    bytes[Kind::Null as usize] = 0;
    bytes[Kind::Bool as usize] = 1;
    bytes[Kind::Int as usize] = 8;
    bytes[Kind::Float as usize] = 8;
    bytes[Kind::Decimal as usize] = 18;
    bytes[Kind::Date as usize] = 4;
    bytes[Kind::Duration as usize] = 12;
    bytes[Kind::Uuid as usize] = 16;
    bytes
};
const VARIABLE: u8 = u8::MAX;

/// A bit for each kind without a fixed length.
const VARIABLE_KINDS: u32 = {
    let mut kinds = 0;
    let mut number = 0;
    while number < PAYLOAD_BYTES.len() {
        if PAYLOAD_BYTES[number] == VARIABLE {
            kinds |= 1 << number;
        }
        number += 1;
    }
    kinds
};

const _: () = assert!(INLINE_BYTES <= u16::MAX as usize);
const _: () = assert!(MAX_KEY_BYTES == 1 << (KIND_SHIFT - KEY_LEN_SHIFT));
const _: () = assert!(data_bridge_kv_model::kind::RESERVED_TO < 1 << 5);

/// The first eight bytes of a block, read once and asked several times.
#[derive(Clone, Copy)]
pub(super) struct Header(u64);

impl Header {
    #[inline]
    pub(super) fn from_le_bytes(bytes: [u8; WORD_BYTES]) -> Header {
        Header(u64::from_le_bytes(bytes))
    }

    #[inline]
    pub(super) fn to_le_bytes(self) -> [u8; WORD_BYTES] {
        self.0.to_le_bytes()
    }

    /// The same with another sequence.
    #[inline]
    pub(super) fn with_sequence(self, sequence: u64) -> Header {
        assert!(sequence <= MAX_SEQUENCE, "the sequence part of a version has 44 bits");
        Header(self.0 & !MAX_SEQUENCE | sequence)
    }

    /// The same with another kind.
    #[inline]
    pub(super) fn with_kind(self, kind: Kind) -> Header {
        Header(self.0 & !KIND | u64::from(kind.number()) << KIND_SHIFT)
    }

    /// The same with another heat.
    #[inline]
    pub(super) fn with_heat(self, heat: u8) -> Header {
        let other = self.0 & !(u64::from(MAX_HEAT) << HEAT_SHIFT);
        Header(other | u64::from(heat.min(MAX_HEAT)) << HEAT_SHIFT)
    }

    #[inline]
    pub(super) fn sequence(self) -> u64 {
        self.0 & MAX_SEQUENCE
    }

    #[inline]
    pub(super) fn key_len(self) -> usize {
        (((self.0 >> KEY_LEN_SHIFT) & 0x3ff) + 1) as usize
    }

    #[inline]
    fn kind_number(self) -> usize {
        ((self.0 >> KIND_SHIFT) & 0x1f) as usize
    }

    #[inline]
    pub(super) fn kind(self) -> Kind {
        Kind::ALL[self.kind_number()]
    }

    #[inline]
    pub(super) fn heat(self) -> u8 {
        (self.0 >> HEAT_SHIFT) as u8 & MAX_HEAT
    }

    #[inline]
    pub(super) fn has_deadline(self) -> bool {
        self.0 & HAS_DEADLINE != 0
    }

    #[inline]
    pub(super) fn is_external(self) -> bool {
        self.0 & EXTERNAL != 0
    }

    /// Whether the payload's length stands in front of the key.
    #[inline]
    pub(super) fn has_length(self) -> bool {
        !self.is_external() && (VARIABLE_KINDS >> self.kind_number()) & 1 == 1
    }

    #[inline]
    pub(super) fn key_offset(self) -> usize {
        WORD_BYTES
            + DEADLINE_BYTES * usize::from(self.has_deadline())
            + LENGTH_BYTES * usize::from(self.has_length())
    }

    #[inline]
    pub(super) fn payload_offset(self) -> usize {
        self.key_offset() + self.key_len()
    }

    /// Whether kind and layout are those of `other`, which has a key of the same length: then key and payload stand in the
    /// same places.
    #[inline]
    pub(super) fn has_layout_of(self, other: Header) -> bool {
        (self.0 ^ other.0) & (KIND | HAS_DEADLINE | EXTERNAL) == 0
    }

    /// How long the payload is, unless the block tells it: see [`Header::has_length`].
    #[inline]
    pub(super) fn fixed_payload_len(self) -> usize {
        if self.is_external() { ADDRESS_BYTES } else { usize::from(PAYLOAD_BYTES[self.kind_number()]) }
    }
}

/// The length that every payload of this kind has, if there is one.
#[inline]
pub(super) fn payload_len_of(kind: Kind) -> Option<usize> {
    let bytes = PAYLOAD_BYTES[usize::from(kind.number())];
    (bytes != VARIABLE).then_some(usize::from(bytes))
}

/// The fields of a block besides key and payload.
#[derive(Clone, Copy)]
pub(super) struct Fields {
    pub(super) sequence: u64,
    pub(super) deadline: Option<u64>,
    pub(super) heat: u8,
}

impl Fields {
    #[inline]
    pub(super) fn header(self, key_len: usize, kind: Kind, external: bool) -> Header {
        assert!(self.sequence <= MAX_SEQUENCE, "the sequence part of a version has 44 bits");
        let mut word = self.sequence
            | (key_len as u64 - 1) << KEY_LEN_SHIFT
            | u64::from(kind.number()) << KIND_SHIFT
            | u64::from(self.heat.min(MAX_HEAT)) << HEAT_SHIFT;
        if let Some(deadline) = self.deadline {
            assert!(deadline <= MAX_DEADLINE, "a deadline has 48 bits");
            word |= HAS_DEADLINE;
        }
        if external {
            word |= EXTERNAL;
        }
        Header(word)
    }
}
