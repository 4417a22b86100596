//! The errors a caller sees: few kinds, each of which says what to do, and the one map from a kind to its wire
//! number, its RESP prefix and its Python class.

use std::borrow::Cow;
use std::fmt;

use crate::decimal::DecimalError;
use crate::glob::PatternTooLong;

/// What went wrong, in terms of what the caller should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ErrorKind {
    /// The request is malformed: fix the call.
    InvalidArgument = 1,
    /// The key is empty, too long or not UTF-8: fix the key.
    InvalidKey = 2,
    /// The key holds another kind of value: use the commands of that kind.
    WrongType = 3,
    /// A number, bound or size is out of range; nothing was changed.
    OutOfRange = 4,
    /// The value can't be stored or shown this way: convert it first.
    UnsupportedValue = 5,
    /// The key or element does not exist and the command needs it.
    NotFound = 6,
    /// The expected state or version was not there: read again and decide anew.
    Conflict = 7,
    /// The namespace's transition graph forbids this step.
    State = 8,
    /// The memory budget is full and nothing may be evicted: free space or raise the budget.
    OutOfMemory = 9,
    /// Writes are refused for now (full disk): free space, then retry.
    ReadOnly = 10,
    /// The log failed, the outcome of the write is unknown: the server must be restarted.
    Durability = 11,
    /// Stored bytes are damaged: restore this key from a backup.
    Corruption = 12,
    /// Not authenticated, or not allowed: authenticate.
    Auth = 13,
    /// The wait ended without the expected change.
    Timeout = 14,
    /// The store is closed or shutting down: open or connect again.
    Closed = 15,
    /// Not available in this version or configuration.
    Unavailable = 16,
    /// The command does not exist.
    UnknownCommand = 17,
    /// A limit of the server was reached: send less at once.
    Limit = 18,
    /// A watched key changed: the transaction was not run.
    Aborted = 19,
    /// A wrong password or user.
    WrongPassword = 20,
    /// The data directory belongs to another process.
    Locked = 21,
    /// The asked-for protocol version does not exist: ask for another.
    Protocol = 22,
    /// The store is still loading its data: try again soon.
    Loading = 23,
}

/// One row of the error map.
struct Row {
    kind: ErrorKind,
    resp: &'static str,
    python: &'static str,
}

/// The one map: kind → RESP prefix → Python class in `data_bridge.kv`.
const ROWS: [Row; 23] = [
    row(ErrorKind::InvalidArgument, "ERR", "InvalidArgumentError"),
    row(ErrorKind::InvalidKey, "ERR", "InvalidKeyError"),
    row(ErrorKind::WrongType, "WRONGTYPE", "WrongTypeError"),
    row(ErrorKind::OutOfRange, "ERR", "OutOfRangeError"),
    row(ErrorKind::UnsupportedValue, "ERR", "UnsupportedValueError"),
    row(ErrorKind::NotFound, "ERR", "NotFoundError"),
    row(ErrorKind::Conflict, "CONFLICT", "ConflictError"),
    row(ErrorKind::State, "STATE", "StateError"),
    row(ErrorKind::OutOfMemory, "OOM", "OutOfMemoryError"),
    row(ErrorKind::ReadOnly, "READONLY", "ReadOnlyError"),
    row(ErrorKind::Durability, "DURABILITY", "DurabilityError"),
    row(ErrorKind::Corruption, "CORRUPTION", "CorruptionError"),
    row(ErrorKind::Auth, "NOAUTH", "AuthError"),
    row(ErrorKind::Timeout, "TIMEOUT", "TimeoutError"),
    row(ErrorKind::Closed, "CLOSED", "ClosedError"),
    row(ErrorKind::Unavailable, "ERR", "UnavailableError"),
    row(ErrorKind::UnknownCommand, "ERR", "InvalidArgumentError"),
    row(ErrorKind::Limit, "ERR", "LimitError"),
    row(ErrorKind::Aborted, "EXECABORT", "ConflictError"),
    row(ErrorKind::WrongPassword, "WRONGPASS", "AuthError"),
    row(ErrorKind::Locked, "LOCKED", "LockedError"),
    row(ErrorKind::Protocol, "NOPROTO", "UnavailableError"),
    row(ErrorKind::Loading, "LOADING", "UnavailableError"),
];

const fn row(kind: ErrorKind, resp: &'static str, python: &'static str) -> Row {
    Row { kind, resp, python }
}

impl ErrorKind {
    /// The number on the native wire.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The kind with this wire number.
    pub fn from_code(code: u8) -> Option<ErrorKind> {
        ROWS.iter().map(|row| row.kind).find(|kind| kind.code() == code)
    }

    /// The first word of the RESP error line.
    pub fn resp_prefix(self) -> &'static str {
        self.row().resp
    }

    /// The class in `data_bridge.kv` that Python raises.
    pub fn python_class(self) -> &'static str {
        self.row().python
    }

    fn row(self) -> &'static Row {
        ROWS.iter().find(|row| row.kind == self).unwrap_or(&ROWS[0])
    }
}

/// What was found instead of what a conditional write expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The current value in codec bytes (the state field for a transition); `None` where there is none.
    pub current: Option<Box<[u8]>>,
    /// The version of the key; 0 where it does not exist.
    pub version: u64,
}

/// An error with its kind, one line of text without paths or values, and what a conflict found.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    found: Option<Box<Found>>,
}

/// Result of the model and the engine.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind`; `message` is one line.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Error {
        Error { kind, message: message.into(), found: None }
    }

    /// A conflict that tells what was found.
    pub fn conflict(message: &'static str, found: Found) -> Error {
        Error { kind: ErrorKind::Conflict, message: message.into(), found: Some(Box::new(found)) }
    }

    /// The same error with what a refused conditional write found.
    pub fn with_found(mut self, found: Found) -> Error {
        self.found = Some(Box::new(found));
        self
    }

    /// A malformed request.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    /// Redis's words for an unparsable argument list.
    pub fn syntax() -> Error {
        Error::invalid("syntax error")
    }

    /// Redis's words for an argument that is no 64-bit integer.
    pub fn not_an_integer() -> Error {
        Error::new(ErrorKind::OutOfRange, "value is not an integer or out of range")
    }

    /// Redis's words for an argument that is no float.
    pub fn not_a_float() -> Error {
        Error::invalid("value is not a valid float")
    }

    /// Redis's words for a command on another kind of value.
    pub fn wrong_type() -> Error {
        Error::new(ErrorKind::WrongType, "Operation against a key holding the wrong kind of value")
    }

    /// A number or size out of range.
    pub fn out_of_range(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::OutOfRange, message)
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The text, without the kind.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What a refused conditional write found.
    pub fn found(&self) -> Option<&Found> {
        self.found.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<DecimalError> for Error {
    fn from(error: DecimalError) -> Error {
        let kind = match error {
            DecimalError::Syntax | DecimalError::NotFinite => ErrorKind::InvalidArgument,
            DecimalError::TooManyDigits | DecimalError::ExponentOutOfRange | DecimalError::Overflow => {
                ErrorKind::OutOfRange
            }
        };
        Error::new(kind, error.to_string())
    }
}

impl From<PatternTooLong> for Error {
    fn from(error: PatternTooLong) -> Error {
        Error::new(ErrorKind::Limit, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_maps_back() {
        for (index, row) in ROWS.iter().enumerate() {
            assert_eq!(usize::from(row.kind.code()), index + 1);
            assert_eq!(ErrorKind::from_code(row.kind.code()), Some(row.kind));
            assert_eq!(row.kind.python_class(), row.python);
        }
        assert_eq!(ErrorKind::from_code(0), None);
        assert_eq!(ErrorKind::from_code(24), None);
    }
}
