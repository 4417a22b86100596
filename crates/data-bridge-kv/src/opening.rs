//! How far the opening of a directory has come: told by whoever opens it, asked by whoever waits for it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The directory is being looked at.
    Beginning,
    /// What the cold tier has behind its index is being read, or all of it where the index is damaged or missing.
    Index,
    /// The log is being carried out.
    Log,
}

impl Stage {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Beginning => "beginning",
            Stage::Index => "index",
            Stage::Log => "log",
        }
    }
}

/// How far an opening has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Bytes of this stage that are done: never more than `bytes_total`.
    pub bytes_done: u64,
    /// Bytes of this stage, of a log about.
    pub bytes_total: u64,
}

/// An opening that others may watch.
///
/// ```
/// use std::sync::Arc;
/// use data_bridge_kv::opening::{Opening, Stage};
/// use data_bridge_kv::{Engine, Settings};
///
/// let opening = Arc::new(Opening::default());
/// let settings = Settings { opening: Arc::clone(&opening), ..Settings::default() };
/// let engine = std::thread::spawn(|| Engine::open(settings));
/// assert_eq!(opening.progress().stage, Stage::Beginning); // without a directory there is nothing to read
/// engine.join().unwrap().unwrap();
/// ```
#[derive(Debug, Default)]
pub struct Opening {
    stage: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
}

impl Opening {
    /// How far it is.
    pub fn progress(&self) -> Progress {
        let stage = match self.stage.load(Relaxed) {
            0 => Stage::Beginning,
            1 => Stage::Index,
            _ => Stage::Log,
        };
        let bytes_total = self.total.load(Relaxed);
        Progress { stage, bytes_done: self.done.load(Relaxed).min(bytes_total), bytes_total }
    }

    /// Goes on to a stage of so many bytes.
    pub(crate) fn enter(&self, stage: Stage, bytes_total: u64) {
        self.done.store(0, Relaxed);
        self.total.store(bytes_total, Relaxed);
        self.stage.store(stage as u8, Relaxed);
    }

    /// So many bytes more are done.
    pub(crate) fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Relaxed);
    }
}
