//! How a command stops short: by an error, or since it would have to wait and its caller does not, or would hold more bytes
//! than its caller lets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use data_bridge_kv_model::command::table::READ;
use data_bridge_kv_model::{Error, ErrorKind, ReplyBuf, Spec};

use super::{Caller, Progress};

/// What a caller does when a command has to wait for the disk: for a value that left memory, or for room in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Waits {
    /// Its thread waits, as [`Settings::blocking`](crate::Settings::blocking) says.
    #[default]
    Here,
    /// Its thread waits, and serves nobody else.
    Alone,
    /// The same, but not for room in memory or in the log: without it, the command has done nothing and is [`Progress::Blocked`].
    Disk,
    /// It does not: the command has done nothing and is [`Progress::Blocked`].
    Never,
}

/// What a caller lets a command do.
#[derive(Clone, Copy)]
pub(super) struct Means {
    pub(super) waits: Waits,
    /// Most bytes that it may hold, see [`Caller::most_bytes`].
    pub(super) most_bytes: u64,
}

impl Means {
    /// Whatever it takes.
    pub(super) fn all(waits: Waits) -> Means {
        Means { waits, most_bytes: u64::MAX }
    }

    /// Stops a command that would hold more than it may.
    pub(super) fn check(self, bytes: u64) -> Step<()> {
        if bytes > self.most_bytes { Err(Halt::Blocked(bytes)) } else { Ok(()) }
    }
}

/// Why the last command of a caller was [`Progress::Blocked`].
#[derive(Clone, Debug, Default)]
pub struct Needs(Arc<Reason>);

#[derive(Debug, Default)]
struct Reason {
    bytes: AtomicU64,
    room: AtomicBool,
}

impl Needs {
    /// Takes the number of bytes that it would have held, if that was the reason; 0 if not.
    pub fn take(&self) -> u64 {
        self.0.bytes.swap(0, Relaxed)
    }

    /// Whether it needs room in memory or in the log first, if that was not taken before.
    pub fn take_room(&self) -> bool {
        self.0.room.swap(false, Relaxed)
    }
}

impl Caller {
    pub(super) fn means(&self) -> Means {
        Means { waits: self.waits, most_bytes: self.most_bytes }
    }

    /// Stops a command that only reads and would answer with more than it may: it can begin again.
    #[inline]
    pub(super) fn check_answer(&self, spec: &Spec, bytes: u64) -> Step<()> {
        if spec.has(READ) { self.means().check(bytes) } else { Ok(()) }
    }

    /// Remembers what a command that stopped short needs.
    #[cold]
    pub(super) fn note(&self, halt: &Halt) {
        let (bytes, room) = match halt {
            Halt::Error(_) => return,
            Halt::Blocked(bytes) => (*bytes, false),
            Halt::NoRoom => (0, true),
        };
        self.needs.0.bytes.store(bytes, Relaxed);
        self.needs.0.room.store(room, Relaxed);
    }
}

/// Why a command has not run, or not to its end.
pub(super) enum Halt {
    Error(Error),
    /// The caller would have to wait, or to let it hold so many bytes if that is not 0; nothing was changed.
    Blocked(u64),
    /// The caller would have to wait for room in memory or in the log; nothing was changed.
    NoRoom,
}

impl From<Error> for Halt {
    fn from(error: Error) -> Halt {
        Halt::Error(error)
    }
}

impl Halt {
    /// What to tell whoever can't try again.
    pub(super) fn into_error(self) -> Error {
        match self {
            Halt::Error(error) => error,
            Halt::Blocked(_) | Halt::NoRoom => {
                Error::new(ErrorKind::Unavailable, "the key is on disk, and its reader never waits")
            }
        }
    }

    /// Takes back what stands in `out` behind this mark; an error is the answer, and what the caller must allow is noted.
    #[cold]
    pub(super) fn answer(self, caller: &Caller, mark: usize, out: &mut ReplyBuf) -> Progress {
        caller.note(&self);
        out.truncate(mark);
        match self {
            Halt::Blocked(_) | Halt::NoRoom => Progress::Blocked,
            Halt::Error(error) => {
                out.error(&error);
                Progress::Done
            }
        }
    }
}

/// What comes of a step of a command.
pub(super) type Step<T> = std::result::Result<T, Halt>;
