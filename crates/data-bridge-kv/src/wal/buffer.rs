//! Records that were accepted and are not written yet. Appending copies into chunks of a fixed size, so that nothing that
//! was copied moves again; the writer takes all chunks at once and gives them back empty.

use super::format::BATCH_BYTES;
use super::gather::Crowd;
use super::{Lsn, NewRecord, ahead};
use crate::record::{self, Head};

/// Bytes of a chunk; a larger record has one of its own.
const CHUNK_BYTES: usize = 256 << 10;
/// A record from this size on is copied before the lock is taken.
pub(super) const LARGE_BYTES: usize = CHUNK_BYTES / 4;
/// Empty chunks that are kept for the next batches.
const KEPT_CHUNKS: usize = 8;

/// Whole records, one behind the other. The first chunk of a batch has room for the batch's own record in front.
pub(super) type Chunk = Vec<u8>;

/// What records take until they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) bytes: usize,
    /// Those of large ones.
    pub(super) large: usize,
    /// What they weigh, see `admission.rs`.
    pub(super) weight: u64,
}

impl Load {
    pub(super) fn add(&mut self, other: Load) {
        self.bytes += other.bytes;
        self.large += other.large;
        self.weight += other.weight;
    }
}

/// Filled under the lock of the log.
pub(super) struct Buffer {
    chunks: Vec<Chunk>,
    empty: Vec<Chunk>,
    /// The LSN given last.
    pub(super) last: Lsn,
    /// What is in the chunks.
    pub(super) load: Load,
    /// Bytes that were taken and are not written yet.
    taken: usize,
    /// Who waits for them.
    pub(super) crowd: Crowd,
}

impl Buffer {
    pub(super) fn new(last: Lsn) -> Buffer {
        let (chunks, empty) = (Vec::new(), Vec::new());
        Buffer { chunks, empty, last, load: Load::default(), taken: 0, crowd: Crowd::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Appends a record whose payload of at most `most` bytes is written in its place.
    #[inline]
    pub(super) fn push(&mut self, new: NewRecord, most: usize, write: impl FnOnce(&mut Vec<u8>)) -> Lsn {
        let lsn = self.give_lsn();
        let chunk = self.chunk_for(most + record::HEAD_BYTES);
        let start = chunk.len();
        begin(new, lsn, chunk);
        write(chunk);
        record::finish(&mut chunk[start..]);
        let bytes = chunk.len() - start;
        assert!(bytes <= most + record::HEAD_BYTES, "a record that is longer than it was said to be");
        ahead::ask_behind(chunk);
        self.load.bytes += bytes;
        lsn
    }

    /// Appends a record that was copied before.
    pub(super) fn push_large(&mut self, mut record: Chunk) -> Lsn {
        let lsn = self.give_lsn();
        record::renumber(&mut record, lsn);
        self.load.bytes += record.len();
        self.load.large += record.len();
        self.chunk_for(0);
        self.chunks.push(record);
        lsn
    }

    /// Gives an LSN to a record that will not be written.
    pub(super) fn give_lsn(&mut self) -> Lsn {
        self.last += 1;
        self.last
    }

    /// A chunk with room for so many bytes.
    fn chunk_for(&mut self, bytes: usize) -> &mut Chunk {
        let has_room = self.chunks.last().is_some_and(|chunk| chunk.len() + bytes <= chunk.capacity());
        if !has_room {
            let mut chunk = self.empty.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES));
            if self.chunks.is_empty() {
                chunk.extend_from_slice(&[0; BATCH_BYTES]);
            }
            self.chunks.push(chunk);
        }
        let last = self.chunks.len() - 1;
        &mut self.chunks[last]
    }

    /// Everything so far, and what it takes.
    pub(super) fn take(&mut self) -> (Vec<Chunk>, Load) {
        if !self.is_empty() || self.crowd.is_there() {
            self.crowd.go();
        }
        let load = std::mem::take(&mut self.load);
        self.taken += load.bytes;
        (std::mem::take(&mut self.chunks), load)
    }

    /// Bytes that are not written yet.
    pub(super) fn backlog(&self) -> u64 {
        (self.load.bytes + self.taken) as u64
    }

    /// Takes chunks back that were written, with records that took so much.
    pub(super) fn recycle(&mut self, chunks: Vec<Chunk>, load: Load) {
        self.taken -= load.bytes;
        for mut chunk in chunks {
            if chunk.capacity() == CHUNK_BYTES && self.empty.len() < KEPT_CHUNKS {
                chunk.clear();
                self.empty.push(chunk);
            }
        }
    }
}

/// A large record, to be numbered.
pub(super) fn large(new: NewRecord, payload: &[u8]) -> Chunk {
    let mut record = Vec::with_capacity(payload.len() + record::HEAD_BYTES);
    begin(new, 0, &mut record);
    record.extend_from_slice(payload);
    record::finish(&mut record);
    record
}

#[inline]
fn begin(new: NewRecord, lsn: Lsn, out: &mut Vec<u8>) {
    let NewRecord { namespace, generation, kind } = new;
    record::begin(Head { number: lsn, generation, namespace, kind }, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: NewRecord = NewRecord { namespace: 1, generation: 2, kind: 3 };

    #[test]
    fn a_burst_leaves_a_few_chunks() {
        let mut buffer = Buffer::new(0);
        for _ in 0..4000 {
            buffer.push(NEW, 4096, |out| out.extend_from_slice(&[7; 4096]));
        }
        buffer.push_large(large(NEW, &[8; 1 << 20]));
        assert_eq!(buffer.last, 4001);
        let (chunks, load) = buffer.take();
        assert!(chunks.len() > 60 && load.bytes > 17_000_000 && buffer.is_empty());
        assert_eq!((buffer.load, load.large), (Load::default(), (1 << 20) + record::HEAD_BYTES));
        assert_eq!(buffer.backlog(), load.bytes as u64, "taken is not written");
        buffer.recycle(chunks, load);
        assert_eq!(buffer.backlog(), 0);
        assert_eq!(buffer.empty.len(), KEPT_CHUNKS);
        assert!(buffer.empty.iter().all(|chunk| chunk.capacity() == CHUNK_BYTES));
    }

    #[test]
    fn records_are_whole_and_in_order() {
        let mut buffer = Buffer::new(41);
        let sizes = [0, 1, LARGE_BYTES - 1, CHUNK_BYTES, 5, 300_000, 200_000, 7];
        for size in sizes {
            let payload = vec![size as u8; size];
            match size < LARGE_BYTES {
                true => buffer.push(NEW, size, |out| out.extend_from_slice(&payload)),
                false => buffer.push_large(large(NEW, &payload)),
            };
        }
        let (mut found, mut lsn) = (Vec::new(), 41);
        for (index, chunk) in buffer.take().0.iter().enumerate() {
            let mut rest = if index == 0 { &chunk[BATCH_BYTES..] } else { &chunk[..] };
            while !rest.is_empty() {
                let total = record::total_bytes(rest).unwrap();
                lsn += 1;
                let expected = Head { number: lsn, generation: 2, namespace: 1, kind: 3 };
                assert_eq!(record::head(rest), Some(expected));
                found.push(total - record::HEAD_BYTES);
                rest = &rest[total..];
            }
        }
        assert_eq!(found, sizes);
    }
}
