//! Values that a reply lacks while shards are locked: they are put in without the locks, from copies that share what
//! is large.

use data_bridge_kv_model::limits::REPLY_BYTES;
use data_bridge_kv_model::{Error, ErrorKind, ReplyBuf, Result};

use super::{encoded_len, put_value};
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

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Forgets all but the first `count`.
    pub fn truncate(&mut self, count: usize) {
        let forgotten: usize =
            self.list.drain(count..).map(|(_, entry)| encoded_len(entry.entry().value())).sum();
        self.bytes = self.bytes.saturating_sub(forgotten);
    }

    /// About how many bytes they will add.
    pub fn bytes(&self) -> usize {
        self.bytes
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

/// Refuses a reply that would be larger than a client can be sent.
pub fn check_reply(length: usize, lacking: usize) -> Result<()> {
    if length.saturating_add(lacking) <= REPLY_BYTES {
        return Ok(());
    }
    let text = format!("the reply would have more than {} MiB: ask for less at once", REPLY_BYTES >> 20);
    Err(Error::new(ErrorKind::Limit, text))
}
