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

/// Appends a length and that many bytes.
#[inline]
pub fn put_counted(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Appends the kind, and for Text and Bytes the length of the content that follows.
#[inline]
pub fn put_head(kind: Kind, payload_len: usize, out: &mut Vec<u8>) {
    match (kind, u8::try_from(payload_len)) {
        // The common case in one step.
        (Kind::Text | Kind::Bytes, Ok(length @ ..0x80)) => out.extend_from_slice(&[kind.number(), length]),
        (Kind::Text | Kind::Bytes, _) => {
            out.push(kind.number());
            put_varint(payload_len, out);
        }
        _ => out.push(kind.number()),
    }
}

/// Length of `number` as LEB128.
#[inline]
pub(super) fn varint_len(number: usize) -> usize {
    ((number | 1).ilog2() as usize / 7).saturating_add(1)
}
