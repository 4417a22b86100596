//! The small writers that every encoder shares.

use crate::kind::Kind;

/// Appends `number` as LEB128, shortest form.
#[inline]
pub fn put_varint(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends the kind, and for Text and Bytes the length of the content that follows.
#[inline]
pub fn put_head(kind: Kind, payload_len: usize, out: &mut Vec<u8>) {
    out.push(kind.number());
    if matches!(kind, Kind::Text | Kind::Bytes) {
        put_varint(payload_len, out);
    }
}

/// Length of `number` as LEB128.
#[inline]
pub(super) fn varint_len(number: usize) -> usize {
    let bits = usize::BITS - (number | 1).leading_zeros();
    bits.div_ceil(7) as usize
}
