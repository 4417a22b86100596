//! Exceptions: the class of `data_bridge.kv` that the one map of the model names, found once per process.

use data_bridge_kv_model::{Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyModule;

use super::convert::Decoder;

static CLASSES: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// The exception class with this name.
fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let module = CLASSES.get_or_try_init(py, || py.import("data_bridge.kv.errors").map(Bound::unbind))?;
    module.bind(py).getattr(name)
}

/// An exception of the class with this name.
#[cold]
pub fn named(py: Python<'_>, name: &str, message: &str) -> PyErr {
    let error = class(py, name).and_then(|class| class.call1((message,)));
    error.map_or_else(|error| error, PyErr::from_value)
}

/// The exception of an error kind.
#[cold]
pub fn raised(py: Python<'_>, kind: ErrorKind, message: &str) -> PyErr {
    named(py, kind.python_class(), message)
}

/// The exception of an error of the engine or server; a conflict tells what was found.
#[cold]
pub fn from_model(py: Python<'_>, error: &Error) -> PyErr {
    let Some(found) = error.found() else { return raised(py, error.kind(), error.message()) };
    let build = || -> PyResult<PyErr> {
        let current = match &found.current {
            Some(encoded) => Decoder::new(py, encoded, None, None).one_value()?,
            None => py.import("data_bridge.kv._values")?.getattr("MISSING")?,
        };
        let class = class(py, error.kind().python_class())?;
        Ok(PyErr::from_value(class.call1((error.message(), current, found.version))?))
    };
    build().unwrap_or_else(|error| error)
}
