//! The envelope around everything that segments hold: one for the log, the cold tier and their headers.
//!
//! ```text
//! 0   u32 LE  bytes of payload
//! 4   u32 LE  CRC32C of: segment u64 LE, offset u64 LE (where the record stands), the head without these 4 bytes, payload
//! 8   u64 LE  number: the LSN in the log; the entry's version, or the batch's number, in the cold tier
//! 16  u32 LE  generation of the namespace
//! 20  u8      namespace
//! 21  u8      kind of record, see whoever writes it
//! 22  payload
//! ```
//! Because the checksum covers the place, a record that stands where it was not written is no record: neither one of
//! another segment nor one of another offset. A reader trusts no length inside before [`read`] accepted it.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

mod crc;
mod mark;

pub use mark::{Mark, MarkFile};

/// What is wrong with a file whose first record names a format that this version does not read, and what to do.
pub const UNKNOWN_FORMAT: &str =
    "has a format that this version does not know: use the version that wrote it, or a newer one";

/// Bytes in front of the payload.
pub const HEAD_BYTES: usize = 22;
const CHECKSUM_FROM: usize = 4;
const CHECKSUM_TO: usize = 8;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The number of the segment; never used twice in a directory.
    pub segment: u64,
    /// Bytes from the start of its file.
    pub offset: u64,
}

/// What an envelope says about its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The LSN, version or number.
    pub number: u64,
    /// The generation of the namespace when it was written.
    pub generation: u32,
    /// The namespace.
    pub namespace: u8,
    /// What the payload is.
    pub kind: u8,
}

/// A record whose checksum holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The envelope.
    pub head: Head,
    /// What is in it.
    pub payload: &'a [u8],
}

impl Record<'_> {
    /// Bytes with the envelope.
    pub fn total_bytes(&self) -> usize {
        self.payload.len().saturating_add(HEAD_BYTES)
    }
}

/// Appends the front of a record; the payload is appended behind it, then [`finish`] called.
pub fn begin(head: Head, out: &mut Vec<u8>) {
    let mut front = [0; HEAD_BYTES];
    front[CHECKSUM_TO..16].copy_from_slice(&head.number.to_le_bytes());
    front[16..20].copy_from_slice(&head.generation.to_le_bytes());
    (front[20], front[21]) = (head.namespace, head.kind);
    out.extend_from_slice(&front);
}

/// Notes the length of a record that is complete but for its checksum. `None` if it is too long for an envelope.
pub fn finish(record: &mut [u8]) -> Option<()> {
    let payload = u32::try_from(record.len().checked_sub(HEAD_BYTES)?).ok()?;
    record.first_chunk_mut::<4>()?.copy_from_slice(&payload.to_le_bytes());
    Some(())
}

/// Gives a finished record the checksum of the place where it is about to be written.
pub fn seal(record: &mut [u8], at: Position) {
    if let Some(checksum) = checksum(record, at)
        && let Some(place) = record.get_mut(CHECKSUM_FROM..CHECKSUM_TO)
    {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
}

/// The record at the start of `bytes`, which were read from this place. `None` if it is no record of this place, or
/// longer than `bytes`.
pub fn read(bytes: &[u8], at: Position) -> Option<Record<'_>> {
    let record = bytes.get(..total_bytes(bytes)?)?;
    let (front, payload) = record.split_at_checked(HEAD_BYTES)?;
    let stored = u32::from_le_bytes(front.get(CHECKSUM_FROM..CHECKSUM_TO)?.try_into().ok()?);
    if checksum(record, at)? != stored {
        return None;
    }
    Some(Record { head: head(front)?, payload })
}

/// What the envelope of the record that starts with these bytes says. Not to be trusted before [`read`] accepted it or a
/// checksum of it was compared, but by whoever made it.
pub fn head(bytes: &[u8]) -> Option<Head> {
    Some(Head {
        number: u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?),
        generation: u32::from_le_bytes(bytes.get(16..20)?.try_into().ok()?),
        namespace: *bytes.get(20)?,
        kind: *bytes.get(21)?,
    })
}

/// Gives a record another number; it is to be sealed afterwards.
pub fn renumber(record: &mut [u8], number: u64) {
    if let Some(place) = record.get_mut(8..16) {
        place.copy_from_slice(&number.to_le_bytes());
    }
}

/// The checksum that a record was sealed with.
pub fn seal_of(record: &[u8]) -> [u8; 4] {
    record.get(CHECKSUM_FROM..CHECKSUM_TO).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
}

/// How long the record that starts with these bytes says it is, envelope included. Not to be trusted: good for deciding
/// how much to read, within a limit.
pub fn total_bytes(bytes: &[u8]) -> Option<usize> {
    let payload = u32::from_le_bytes(*bytes.first_chunk()?);
    usize::try_from(payload).ok()?.checked_add(HEAD_BYTES)
}

/// The checksum of a record at its place, its own four bytes apart; or of the first part of one, for whoever keeps that
/// too, so that the part can be trusted without the rest.
pub fn checksum(record: &[u8], at: Position) -> Option<u32> {
    let (mut place, length) = ([0; crc::PLACE_BYTES], record.first_chunk::<4>()?);
    place[..8].copy_from_slice(&at.segment.to_le_bytes());
    place[8..16].copy_from_slice(&at.offset.to_le_bytes());
    place[16..].copy_from_slice(length);
    Some(crc::of(&place, record.get(CHECKSUM_TO..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position { segment: 3, offset: 70 };
    const HEAD: Head = Head { number: 0x0102_0304_0506_0708, generation: 9, namespace: 2, kind: 1 };

    fn record() -> Vec<u8> {
        let mut record = Vec::new();
        begin(HEAD, &mut record);
        record.extend_from_slice(b"payload");
        finish(&mut record).unwrap();
        seal(&mut record, AT);
        record
    }

    #[test]
    fn the_bytes_are_golden() {
        let text: String = record().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "070000000966a1c208070605040302010900000002017061796c6f6164");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut bytes = record();
        bytes.extend_from_slice(b"behind it");
        let found = read(&bytes, AT).unwrap();
        assert_eq!(found, Record { head: HEAD, payload: b"payload" });
        assert_eq!(found.total_bytes(), HEAD_BYTES + 7);
    }

    #[test]
    fn another_place_is_another_record() {
        let bytes = record();
        assert_eq!(read(&bytes, Position { segment: 4, ..AT }), None);
        assert_eq!(read(&bytes, Position { offset: 71, ..AT }), None);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = record();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&damaged, AT), None, "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end], AT), None, "cut at {end}");
        }
    }
}
