//! Python objects to codec bytes and back, in one pass each way. The only place of the module that looks inside
//! Python objects; the engine and the client codec see bytes.
//!
//! Writing dispatches on the exact type's pointer: builtin scalars and containers first, then the types of
//! [`types`], then what was registered, numpy scalars and the caller's fallback codec ([`foreign`]). An error names
//! the path inside the value. Nothing here holds a lock of the engine: creating objects may run any Python code.

mod bigint;
mod decimal;
mod decode;
mod encode;
mod foreign;
mod moment;
mod names;
mod scalars;
mod text;
mod types;

pub use decode::Decoder;
pub use encode::{Encoder, scalar};
pub use foreign::register;
pub use scalars::{ttl_ms, unix_ms};
pub use text::{build_text, learn_layout, utf8};

use data_bridge_kv_model::{ErrorKind, Key};
use pyo3::PyErr;
use pyo3::prelude::*;

/// Why a conversion failed: a rule of ours with the path inside the value, or what Python code raised.
#[derive(Debug)]
pub enum Failure {
    /// A rule of the store.
    Refused(Box<Refusal>),
    /// An exception of Python code that the conversion ran.
    Raised(PyErr),
}

/// A refused value: what to raise, where inside the value, and why.
#[derive(Debug)]
pub struct Refusal {
    kind: ErrorKind,
    message: String,
    /// Steps from the outermost value inwards, in reverse.
    path: Vec<String>,
}

/// Result of a conversion.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A refusal without a path yet.
    #[cold]
    pub fn refused(kind: ErrorKind, message: impl Into<String>) -> Failure {
        Failure::Refused(Box::new(Refusal { kind, message: message.into(), path: Vec::new() }))
    }

    /// A value that can't be stored or shown this way.
    #[cold]
    pub fn unsupported(message: impl Into<String>) -> Failure {
        Failure::refused(ErrorKind::UnsupportedValue, message)
    }

    /// The same failure, seen from the container around the value.
    #[cold]
    pub fn inside(mut self, step: impl FnOnce() -> String) -> Failure {
        if let Failure::Refused(refusal) = &mut self {
            refusal.path.push(step());
        }
        self
    }

    /// The exception to raise; `root` names the outermost value.
    #[cold]
    pub fn into_error(self, py: Python<'_>, root: &str) -> PyErr {
        match self {
            Failure::Raised(error) => error,
            Failure::Refused(refusal) => {
                let path: String = refusal.path.iter().rev().map(String::as_str).collect();
                super::errors::raised(py, refusal.kind, &format!("{root}{path}: {}", refusal.message))
            }
        }
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Failure {
        Failure::Raised(error)
    }
}

impl From<data_bridge_kv_model::Error> for Failure {
    fn from(error: data_bridge_kv_model::Error) -> Failure {
        Failure::refused(error.kind(), error.message())
    }
}

/// A key, borrowed from its `str`. A name that is no `str` is a TypeError; rules of keys are the model's.
#[inline]
pub fn key<'a>(key: &'a Bound<'_, PyAny>) -> PyResult<Key<'a>> {
    Key::of(text(key)?).map_err(|error| super::errors::from_model(key.py(), &error))
}

#[inline]
fn text<'a>(key: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    if encode::is_exact_str(key) || key.is_instance_of::<pyo3::types::PyString>() {
        utf8(key).ok_or_else(|| {
            let message = "key holds a lone surrogate, so it is no UTF-8";
            super::errors::raised(key.py(), ErrorKind::InvalidKey, message)
        })
    } else {
        Err(pyo3::exceptions::PyTypeError::new_err(format!("key must be str, not {}", type_name(key))))
    }
}

/// The name of an object's type, for messages.
#[cold]
pub fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string())
}
