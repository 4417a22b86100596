//! Stand-in until the log is merged.
#![allow(missing_docs)]
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use crate::disk::Disk;
use crate::record::Record;
pub type Lsn = u64;
#[derive(Clone, Copy, Debug, Default)]
pub struct WalPolicy { pub segment_bytes: u64, pub backlog_bytes: usize, pub sync_every_ms: u64, pub fingerprint: u64 }
#[derive(Clone, Debug)]
pub struct Failure;
impl std::fmt::Display for Failure { fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { Ok(()) } }
pub enum Refusal { Failed(Failure), Full, Closed }
#[derive(Debug)]
pub struct OpenError;
impl std::fmt::Display for OpenError { fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { Ok(()) } }
pub struct Recovered;
pub struct NewRecord { pub namespace: u8, pub generation: u32, pub kind: u8 }
#[derive(Default)]
pub struct Wal { last: AtomicU64 }
impl Wal {
    pub fn open(_: Arc<dyn Disk>, _: WalPolicy, _: &mut dyn FnMut(Lsn, Record<'_>) -> data_bridge_kv_model::Result<()>) -> Result<(Wal, Recovered), OpenError> { Ok((Wal::default(), Recovered)) }
    pub fn start(self: &Arc<Self>) -> std::io::Result<()> { Ok(()) }
    pub fn step(&self) -> bool { false }
    pub fn admit(&self, _: bool) -> Result<(), Refusal> { Ok(()) }
    pub fn has_thread(&self) -> bool { true }
    pub fn has_room(&self) -> bool { true }
    pub fn wait_room(&self) {}
    pub fn append(&self, _: NewRecord, _: &[u8], _: bool) -> Lsn { self.last.fetch_add(1, Ordering::Relaxed) + 1 }
    pub fn durable(&self) -> Lsn { self.last() }
    pub fn last(&self) -> Lsn { self.last.load(Ordering::Relaxed) }
    pub fn when_durable(&self, _: Lsn, then: Box<dyn FnOnce(Result<(), Failure>) + Send>) { then(Ok(())) }
    pub fn wait_durable(&self, _: Lsn) -> Result<(), Failure> { Ok(()) }
    pub fn failure(&self) -> Option<Failure> { None }
    pub fn trim(&self, _: Lsn) -> std::io::Result<()> { Ok(()) }
    pub fn bytes(&self) -> u64 { 0 }
    pub fn close(&self) {}
}

impl From<Failure> for data_bridge_kv_model::Error { fn from(_: Failure) -> Self { data_bridge_kv_model::Error::new(data_bridge_kv_model::ErrorKind::Durability, "") } }
