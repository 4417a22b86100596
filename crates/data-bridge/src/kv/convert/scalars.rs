//! Small readings and buildings of scalars: times to live, deadlines, UUIDs.

use data_bridge_kv_model::limits::DEADLINE_MS;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDateTime, PyDelta, PyDeltaAccess, PyFloat, PyInt, PyTzInfoAccess};

use super::encode::int;
use super::moment::below_day;
use super::types::Types;

/// A time to live in milliseconds: positive seconds (int, float) or a timedelta, rounded up to a millisecond.
#[inline]
pub fn ttl_ms(ttl: &Bound<'_, PyAny>) -> PyResult<i64> {
    const MOST: i64 = DEADLINE_MS.cast_signed() / 1000;
    if ttl.get_type_ptr() == &raw mut ffi::PyLong_Type
        && let Some(seconds @ 1..=MOST) = int(ttl)
    {
        return Ok(seconds * 1000);
    }
    any_ttl_ms(ttl)
}

#[inline(never)]
fn any_ttl_ms(ttl: &Bound<'_, PyAny>) -> PyResult<i64> {
    let ms = if ttl.is_exact_instance_of::<PyInt>() {
        seconds_of(ttl)?
    } else if let Ok(span) = ttl.cast::<PyDelta>() {
        let micros = i128::from(span.get_days()) * 86_400_000_000 + i128::from(below_day(span));
        micros.div_euclid(1000) + i128::from(micros.rem_euclid(1000) != 0)
    } else {
        let ms = seconds_to_ms(ttl, "ttl must be seconds (int, float) or a timedelta", f64::ceil)?;
        // What is left of a time may be less than a microsecond.
        if ms == 0 && ttl.gt(0)? { 1 } else { ms }
    };
    if ms <= 0 {
        return Err(PyValueError::new_err("ttl must be positive; delete the key, or persist it, instead"));
    }
    in_deadlines(ms, "ttl")
}

/// A deadline in Unix milliseconds: an aware datetime or Unix seconds.
pub fn unix_ms(when: &Bound<'_, PyAny>) -> PyResult<i64> {
    let ms = if let Ok(moment) = when.cast::<PyDateTime>() {
        if moment.get_tzinfo().is_none() {
            return Err(PyValueError::new_err("when must be an aware datetime: give it a time zone"));
        }
        seconds_to_ms(&moment.call_method0("timestamp")?, "when", f64::floor)?
    } else {
        seconds_to_ms(when, "when must be an aware datetime or Unix seconds", f64::floor)?
    };
    in_deadlines(ms, "when")
}

fn seconds_to_ms(value: &Bound<'_, PyAny>, what: &'static str, round: fn(f64) -> f64) -> PyResult<i128> {
    if value.is_instance_of::<PyBool>() {
        return Err(PyTypeError::new_err(what));
    }
    if value.is_instance_of::<PyInt>() {
        return seconds_of(value);
    }
    let seconds = value.cast::<PyFloat>().map_err(|_| PyTypeError::new_err(what))?.value();
    if !seconds.is_finite() {
        return Err(PyValueError::new_err("time must be finite"));
    }
    // What is not a whole number of microseconds is noise of the binary fraction.
    let ms = (seconds * 1e6).round() / 1e3;
    Ok(round(ms) as i128)
}

#[inline]
fn seconds_of(value: &Bound<'_, PyAny>) -> PyResult<i128> {
    let seconds: i64 = value.extract().map_err(|_| PyValueError::new_err("time is out of range"))?;
    Ok(i128::from(seconds) * 1000)
}

fn in_deadlines(ms: i128, what: &str) -> PyResult<i64> {
    let in_range = i64::try_from(ms).ok().filter(|ms| ms.unsigned_abs() <= DEADLINE_MS);
    in_range.ok_or_else(|| PyValueError::new_err(format!("{what} is out of range")))
}

/// Builds a `uuid.UUID` without its constructor's checks, as its `__setstate__` does.
pub fn build_uuid<'py>(py: Python<'py>, bytes: [u8; 16]) -> PyResult<Bound<'py, PyAny>> {
    let types = Types::get(py)?;
    let class = types.uuid.as_ptr().cast::<ffi::PyTypeObject>();
    // SAFETY: a class in Python code without a `__new__` of its own; an instance without attributes is valid, and the
    // call returns a new reference or null with an exception set.
    let value = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_GenericAlloc(class, 0))? };
    let number = u128::from_be_bytes(bytes).into_pyobject(py)?;
    set_slot(&value, pyo3::intern!(py, "int"), &number)?;
    set_slot(&value, pyo3::intern!(py, "is_safe"), types.safe_unknown.bind(py))?;
    Ok(value)
}

/// Sets an attribute past the class's own `__setattr__`, which refuses: a UUID is immutable once it is built.
fn set_slot(object: &Bound<'_, PyAny>, name: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: three live objects; the function takes no ownership and reports failure by -1 with an exception set.
    let status = unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value.as_ptr()) };
    if status == 0 { Ok(()) } else { Err(PyErr::fetch(object.py())) }
}
