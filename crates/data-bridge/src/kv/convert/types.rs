//! The Python classes that are no builtins, found once per process.

use pyo3::ffi::PyTypeObject;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

/// Classes and constants of the standard library and of our package.
pub struct Types {
    /// `decimal.Decimal`.
    pub decimal: Py<PyType>,
    /// `datetime.datetime`.
    pub datetime: Py<PyType>,
    /// `datetime.date`.
    pub date: Py<PyType>,
    /// `datetime.time`.
    pub time: Py<PyType>,
    /// `datetime.timedelta`.
    pub timedelta: Py<PyType>,
    /// `uuid.UUID`.
    pub uuid: Py<PyType>,
    /// `uuid.SafeUUID.unknown`.
    pub safe_unknown: Py<PyAny>,
    /// `zoneinfo.ZoneInfo`.
    pub zone: Py<PyType>,
    /// Our `Tagged`.
    pub tagged: Py<PyType>,
    /// Our `Opaque`.
    pub opaque: Py<PyType>,
    /// Registered classes: class to (name, function to a plain value).
    pub by_class: Py<PyDict>,
    /// Registered names: name to function from the plain value.
    pub by_name: Py<PyDict>,
    /// Whether `Decimal` has the layout that [`super::decimal`] reads.
    pub decimal_layout: bool,
}

static TYPES: PyOnceLock<Types> = PyOnceLock::new();

impl Types {
    /// The classes; the first call imports them.
    #[inline]
    pub fn get(py: Python<'_>) -> PyResult<&'static Types> {
        TYPES.get_or_try_init(py, || Types::import(py))
    }

    fn import(py: Python<'_>) -> PyResult<Types> {
        let class = |module: &str, name: &str| -> PyResult<Py<PyType>> {
            Ok(py.import(module)?.getattr(name)?.cast_into::<PyType>()?.unbind())
        };
        let decimal = class("decimal", "Decimal")?;
        Ok(Types {
            decimal_layout: super::decimal::layout_is_known(decimal.bind(py)),
            decimal,
            datetime: class("datetime", "datetime")?,
            date: class("datetime", "date")?,
            time: class("datetime", "time")?,
            timedelta: class("datetime", "timedelta")?,
            uuid: class("uuid", "UUID")?,
            safe_unknown: py.import("uuid")?.getattr("SafeUUID")?.getattr("unknown")?.unbind(),
            zone: class("zoneinfo", "ZoneInfo")?,
            tagged: class("data_bridge.kv._values", "Tagged")?,
            opaque: class("data_bridge.kv._values", "Opaque")?,
            by_class: PyDict::new(py).unbind(),
            by_name: PyDict::new(py).unbind(),
        })
    }
}

/// Whether `class` is the type at `pointer`.
#[inline]
pub fn is_type(pointer: *mut PyTypeObject, class: &Py<PyType>) -> bool {
    pointer.cast() == class.as_ptr()
}
