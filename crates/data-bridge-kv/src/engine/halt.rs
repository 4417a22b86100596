//! How a command stops short: by an error, or since it would have to wait and its caller does not.

use data_bridge_kv_model::{Error, ErrorKind, ReplyBuf};

use super::Progress;

/// What a caller does when a command has to wait for the disk: for a value that left memory, or for room in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Waits {
    /// Its thread waits, as [`Settings::blocking`](crate::Settings::blocking) says.
    #[default]
    Here,
    /// Its thread waits, and serves nobody else.
    Alone,
    /// It does not: the command has done nothing and is [`Progress::Blocked`].
    Never,
}

/// Why a command has not run, or not to its end.
pub(super) enum Halt {
    Error(Error),
    /// The caller would have to wait; nothing was changed.
    Blocked,
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
            Halt::Blocked => {
                Error::new(ErrorKind::Unavailable, "the key is on disk, and its reader never waits")
            }
        }
    }

    /// Takes back what stands in `out` behind this mark; an error is the answer.
    #[cold]
    pub(super) fn answer(self, mark: usize, out: &mut ReplyBuf) -> Progress {
        out.truncate(mark);
        match self {
            Halt::Blocked => Progress::Blocked,
            Halt::Error(error) => {
                out.error(&error);
                Progress::Done
            }
        }
    }
}

/// What comes of a step of a command.
pub(super) type Step<T> = std::result::Result<T, Halt>;
