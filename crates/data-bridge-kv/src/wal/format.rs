//! The bytes of the log.
//!
//! ```text
//! directory := segment* watermark start cut*
//! segment   := header (batch record*)* [end batch*] zeros   file log-<number, 16 hex digits>
//! header    := record of kind 240, number = the segment's: magic "DBKVWLOG", format u16, owner's fingerprint u64,
//!              segment before u64 (0: none), last LSN before u64, chain u32
//! batch     := record of kind 241, number = durable LSN when it was written: LSN of the record behind it u64
//! end       := record of kind 242, the same: everything before it was synced, and the log closed
//! record    := record of a kind below 240, number = LSN: payload of the owner; LSNs begin at 1 and grow by one
//! watermark := marks (see `record/mark.rs`)                  file log-watermark, segment 2^64-1: the durable LSN
//! start     := marks                                         file log-start, segment 2^64-2: LSNs from it on must be there
//! cut       := bytes that recovery cut off                   file log-cut-<number>-<offset, 16 hex digits each>
//! ```
//! All integers are little endian, every record stands in the envelope of `record.rs`. The chain is the CRC32C of the
//! checksums of all headers and records (kinds below 240) before a header, in order, since the log began: it proves that
//! the segment before is the one that was there. Segments are zeroed before they are used, and never used again.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use crate::record::{self, Head, MarkFile, Position, Record};

pub(super) const MAGIC: &[u8; 8] = b"DBKVWLOG";
pub(super) const FORMAT: u16 = 1;

/// Kinds from here on are the log's own.
pub(super) const OWN_KINDS: u8 = 240;
pub(super) const HEADER: u8 = 240;
pub(super) const BATCH: u8 = 241;
pub(super) const END: u8 = 242;

/// Bytes of a header with its envelope.
pub(super) const HEADER_BYTES: usize = record::HEAD_BYTES + 8 + 2 + 8 + 8 + 8 + 4;
/// Bytes of a batch or an end with its envelope.
pub(super) const BATCH_BYTES: usize = record::HEAD_BYTES + 8;

/// The file of a segment.
pub(super) fn segment_name(number: u64) -> String {
    format!("log-{number:016x}")
}

/// The segment in a file of this name; `None` if it is none.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_prefix("log-")?, 16).ok()?;
    (segment_name(number) == name).then_some(number)
}

/// The file of bytes that were cut off a segment.
pub(super) fn cut_name(number: u64, offset: u64) -> String {
    format!("log-cut-{number:016x}-{offset:016x}")
}

/// Whether a file has bytes that were cut off.
pub fn is_cut_name(name: &str) -> bool {
    name.starts_with("log-cut-")
}

/// Whether a file is a segment.
pub fn is_segment(name: &str) -> bool {
    segment_number(name).is_some()
}

/// Whether a file has marks, which are written over.
pub fn is_mark(name: &str) -> bool {
    [MarkFile::Watermark, MarkFile::Start].iter().any(|file| file.name() == name)
}

/// Whether a file says from where on the log must be there.
pub fn is_start(name: &str) -> bool {
    name == MarkFile::Start.name()
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) fingerprint: u64,
    /// What stands before the segment.
    pub(super) before: Before,
}

/// What stands before a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Before {
    /// The segment; 0 if there is none.
    pub(super) segment: u64,
    /// The last LSN in it.
    pub(super) last: u64,
    /// The chain up to there.
    pub(super) chain: u32,
}

/// The chain with one more sealed record.
pub(super) fn chain(before: u32, record: &[u8]) -> u32 {
    crc32c::crc32c_append(before, &record::seal_of(record))
}

/// A sealed header.
pub(super) fn header(number: u64, header: Header) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    record::begin(Head { number, generation: 0, namespace: 0, kind: HEADER }, &mut bytes);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&header.fingerprint.to_le_bytes());
    bytes.extend_from_slice(&header.before.segment.to_le_bytes());
    bytes.extend_from_slice(&header.before.last.to_le_bytes());
    bytes.extend_from_slice(&header.before.chain.to_le_bytes());
    record::finish(&mut bytes);
    record::seal(&mut bytes, Position { segment: number, offset: 0 });
    bytes
}

/// The header in a record of the log's format. `None` if it is another kind of record, or of another format.
pub(super) fn read_header(record: Record<'_>) -> Option<Header> {
    let payload = record.payload.strip_prefix(MAGIC)?.strip_prefix(&FORMAT.to_le_bytes())?;
    let (fingerprint, rest) = payload.split_first_chunk()?;
    let (segment, rest) = rest.split_first_chunk()?;
    let (last, chain) = rest.split_first_chunk()?;
    let before = Before {
        segment: u64::from_le_bytes(*segment),
        last: u64::from_le_bytes(*last),
        chain: u32::from_le_bytes(chain.try_into().ok()?),
    };
    (record.head.kind == HEADER).then_some(Header { fingerprint: u64::from_le_bytes(*fingerprint), before })
}

/// A batch or an end, to be sealed.
pub(super) fn batch(kind: u8, durable: u64, next: u64) -> [u8; BATCH_BYTES] {
    let mut bytes = Vec::with_capacity(BATCH_BYTES);
    record::begin(Head { number: durable, generation: 0, namespace: 0, kind }, &mut bytes);
    bytes.extend_from_slice(&next.to_le_bytes());
    record::finish(&mut bytes);
    let mut batch = [0; BATCH_BYTES];
    batch.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    batch
}

/// The LSN behind a batch or an end. `None` if it is another kind of record.
pub(super) fn next_of(record: Record<'_>) -> Option<u64> {
    let is_batch = matches!(record.head.kind, BATCH | END);
    is_batch.then(|| record.payload.try_into().ok().map(u64::from_le_bytes)).flatten()
}

/// Whether a record may be one that the owner of the log gave.
pub(super) fn is_owners(head: &Head) -> bool {
    head.kind < OWN_KINDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn segments_are_known_by_their_names() {
        assert_eq!(segment_name(0x1f), "log-000000000000001f");
        assert_eq!(segment_number("log-000000000000001f"), Some(0x1f));
        let cut = cut_name(1, 2);
        for other in ["log-1f", "log-watermark", "log-000000000000001F", &cut, "cold-task-000000000000001f"] {
            assert_eq!(segment_number(other), None, "{other}");
        }
        assert!(is_cut_name(&cut));
    }

    #[test]
    fn the_bytes_are_golden() {
        let before = Before { segment: 6, last: 0x0102_0304_0506_0708, chain: 0xAABB_CCDD };
        let header = header(7, Header { fingerprint: 0x1122_3344_5566_7788, before });
        let mut batch = batch(BATCH, 9, 12);
        record::seal(&mut batch, Position { segment: 7, offset: 60 });
        let expected = [
            "2600000089ebb76807000000000000000000000000f044424b56574c4f470100887766554433221106000000000000000807060504030201ddccbbaa",
            "08000000c3a72d0509000000000000000000000000f10c00000000000000",
        ];
        assert_eq!([hex(&header), hex(&batch)], expected);
    }

    #[test]
    fn a_header_comes_back() {
        let before = Before { segment: 6, last: 5, chain: 4 };
        let written = Header { fingerprint: 3, before };
        let bytes = header(7, written);
        let record = record::read(&bytes, Position { segment: 7, offset: 0 }).unwrap();
        assert_eq!(read_header(record), Some(written));
        let longer = Record { payload: &[record.payload, b"x"].concat(), ..record };
        assert_eq!(read_header(longer), None);
    }
}
