//! Who waits at the keys of a step for something to take.

use std::sync::Arc;

use data_bridge_kv_model::Kind;

use super::{Place, Txn};
use crate::shard::takers::Taker;

impl Txn<'_> {
    /// Adds one at the end of a key's line.
    pub fn add_taker(&mut self, place: Place<'_>, taker: &Arc<Taker>) {
        self.shard(place.hash).waiters.party(place.key.as_bytes()).line.add(Arc::clone(taker));
    }

    /// Who comes first of those who take from this kind of value.
    pub fn first_taker(&mut self, place: Place<'_>, kind: Kind) -> Option<Arc<Taker>> {
        self.shard(place.hash).waiters.first_taker(place.key.as_bytes(), kind)
    }

    /// Removes one from a key's line.
    pub fn remove_taker(&mut self, place: Place<'_>, taker: &Arc<Taker>) {
        self.shard(place.hash).waiters.remove_taker(place.key.as_bytes(), taker);
    }
}
