//! Integers beyond 64 bits: sign, and the magnitude in little-endian bytes.

use data_bridge_kv_model::codec::put_varint;
use data_bridge_kv_model::limits::BIGINT_BYTES;
use data_bridge_kv_model::{ErrorKind, Kind};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt};

use super::{Failure, Outcome};

/// Appends an `int` that fits no i64.
#[cold]
pub fn put(number: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> Outcome<()> {
    let negative = number.lt(0)?;
    let bits: usize = number.call_method0("bit_length")?.extract()?;
    let length = bits.div_ceil(8);
    if length > BIGINT_BYTES {
        return Err(Failure::refused(ErrorKind::OutOfRange, "int has more than 32,768 bits"));
    }
    let magnitude = number.call_method0("__abs__")?.call_method1("to_bytes", (length, "little"))?;
    let magnitude = magnitude.cast_into::<PyBytes>().map_err(PyErr::from)?;
    out.push(Kind::BigInt.number());
    out.push(u8::from(negative));
    put_varint(length, out);
    out.extend_from_slice(magnitude.as_bytes());
    Ok(())
}

/// Builds the `int` of a sign and a magnitude.
#[cold]
pub fn build<'py>(py: Python<'py>, negative: bool, magnitude: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let number =
        py.get_type::<PyInt>().call_method1("from_bytes", (PyBytes::new(py, magnitude), "little"))?;
    if negative { number.neg() } else { Ok(number) }
}
