//! Values that a reply lacks while shards are locked: they are put in without the locks, from copies that share what
//! is large.

use data_bridge_kv_model::limits::REPLY_BYTES;
use data_bridge_kv_model::{Error, ErrorKind, ReplyBuf, Result};

use super::Txn;
use crate::shard::{encoded_len, put_value};
use crate::table::OwnedEntry;

/// The values, each with its place.
#[derive(Default)]
pub struct Gaps {
    /// The length of the reply before it, and the entry whose value it is; in order.
    list: Vec<(usize, OwnedEntry)>,
    /// About how many bytes they will add.
    bytes: usize,
}

impl Gaps {
    /// Leaves a value out of the reply, which is `at` bytes long.
    pub fn add(&mut self, at: usize, entry: OwnedEntry) {
        self.bytes = self.bytes.saturating_add(encoded_len(entry.entry().value()));
        self.list.push((at, entry));
    }

    /// Forgets all but the first `count`.
    fn truncate(&mut self, count: usize) {
        let forgotten: usize =
            self.list.drain(count..).map(|(_, entry)| encoded_len(entry.entry().value())).sum();
        self.bytes = self.bytes.saturating_sub(forgotten);
    }

    /// About how many bytes a reply that began at `mark` has with them.
    pub fn bytes_after(&self, mark: usize, out: &ReplyBuf) -> u64 {
        out.len().saturating_sub(mark).saturating_add(self.bytes) as u64
    }

    /// Puts the values in.
    pub fn fill(self, out: &mut ReplyBuf) {
        let Some((first, _)) = self.list.first() else { return };
        let first = *first;
        let rest = out.as_bytes()[first..].to_vec();
        out.truncate(first);
        out.bytes_mut().reserve(rest.len() + self.bytes);
        let mut done = 0;
        for (at, entry) in &self.list {
            out.bytes_mut().extend_from_slice(&rest[done..at - first]);
            put_value(entry.entry().value(), out);
            done = at - first;
        }
        out.bytes_mut().extend_from_slice(&rest[done..]);
    }
}

impl Txn<'_> {
    /// Leaves a value out of the reply, which is `at` bytes long: it is put in once the shards are free again.
    pub fn leave_out(&mut self, at: usize, entry: OwnedEntry) {
        self.rare().gaps.add(at, entry);
    }

    /// What the reply lacks.
    pub fn take_gaps(&mut self) -> Gaps {
        self.rare.as_mut().map(|rare| std::mem::take(&mut rare.gaps)).unwrap_or_default()
    }

    /// How many values the reply lacks.
    pub fn gap_count(&self) -> usize {
        self.rare.as_ref().map_or(0, |rare| rare.gaps.list.len())
    }

    /// Forgets all but so many of them: the reply was cut off.
    pub fn keep_gaps(&mut self, count: usize) {
        if let Some(rare) = &mut self.rare {
            rare.gaps.truncate(count);
        }
    }

    /// Refuses a reply that would be larger than a client can be sent.
    pub fn check_reply(&self, out: &ReplyBuf) -> Result<()> {
        let lacking = self.rare.as_ref().map_or(0, |rare| rare.gaps.bytes);
        if out.len().saturating_add(lacking) <= REPLY_BYTES {
            return Ok(());
        }
        let text = format!("the reply would have more than {} MiB: ask for less at once", REPLY_BYTES >> 20);
        Err(Error::new(ErrorKind::Limit, text))
    }
}
