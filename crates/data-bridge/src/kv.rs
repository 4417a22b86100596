//! The native part of `data_bridge.kv`: conversion, the embedded store, the codec of remote clients.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use data_bridge_kv_model::command::table::COMMANDS;
use data_bridge_kv_model::frame::DURABLY;
use data_bridge_kv_model::kind::Kind;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple, PyType};

mod aio;
mod batch;
mod bell;
mod client;
mod convert;
mod deferred;
mod direct;
mod doorway;
mod errors;
#[cfg(not(feature = "abi3"))] // reads tuples by CPython's macros
mod fastcall;
mod lifetime;
mod options;
mod queue;
mod request;
mod store;
mod waiter;

/// Adds the store's functions and classes to the module.
pub fn fill(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    convert::learn_layout(py)?;
    module.add_function(wrap_pyfunction!(encode, module)?)?;
    module.add_function(wrap_pyfunction!(decode, module)?)?;
    module.add_function(wrap_pyfunction!(ttl_ms, module)?)?;
    module.add_function(wrap_pyfunction!(unix_ms, module)?)?;
    module.add_function(wrap_pyfunction!(convert::register, module)?)?;
    module.add_function(wrap_pyfunction!(lifetime::forked, module)?)?;
    module.add_function(wrap_pyfunction!(lifetime::shut_down, module)?)?;
    module.add_function(wrap_pyfunction!(run_server, module)?)?;
    module.add_class::<store::SharedEngine>()?;
    module.add_class::<store::Embedded>()?;
    #[cfg(not(feature = "abi3"))]
    fastcall::install(py)?;
    module.add_class::<store::Watch>()?;
    module.add_class::<queue::Queue>()?;
    module.add_class::<bell::Ready>()?;
    module.add_class::<bell::Bell>()?;
    module.add_class::<deferred::Deferred>()?;
    module.add("Blocked", py.get_type::<deferred::Blocked>())?;
    module.add_class::<client::Remote>()?;
    module.add_class::<aio::AsyncRemote>()?;
    module.add_class::<client::RemoteWatch>()?;
    module.add("KINDS", Kind::ALL.map(Kind::name))?;
    let opcodes = PyDict::new(py);
    for spec in COMMANDS {
        opcodes.set_item(spec.name.replace('.', "_"), spec.opcode)?;
    }
    opcodes.set_item("DURABLY", DURABLY)?;
    opcodes.set_item("__module__", module.name()?)?;
    opcodes.set_item("__doc__", "The numbers of commands by name.")?;
    module.add("opcode", py.get_type::<PyType>().call1(("opcode", PyTuple::empty(py), opcodes))?)
}

/// The codec bytes of a value.
#[pyfunction]
#[pyo3(signature = (value, fallback=None))]
fn encode<'py>(
    py: Python<'py>,
    value: &Bound<'py, PyAny>,
    fallback: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Vec::new();
    let encoded = convert::Encoder { out: &mut out, fallback }.value(value);
    encoded.map_err(|failure| failure.into_error(py, "value"))?;
    Ok(PyBytes::new(py, &out))
}

/// The value of codec bytes.
#[pyfunction]
#[pyo3(signature = (data, fallback=None))]
fn decode<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyBytes>,
    fallback: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    data_bridge_kv_model::ValueRef::decode(data.as_bytes())
        .map_err(|error| errors::from_model(py, &error))?;
    convert::Decoder::new(py, data.as_bytes(), None, fallback).one_value()
}

/// Runs the server's program with these arguments, the first of which is its name; answers its exit code. It takes
/// over the handling of SIGTERM and SIGINT.
#[pyfunction]
fn run_server(py: Python<'_>, args: Vec<OsString>) -> u8 {
    let code = doorway::outside(py, || data_bridge_kv_server::run(args));
    (0..=u8::MAX).find(|number| code == ExitCode::from(*number)).unwrap_or(1)
}

/// A time to live in milliseconds.
#[pyfunction]
fn ttl_ms(ttl: &Bound<'_, PyAny>) -> PyResult<i64> {
    convert::ttl_ms(ttl)
}

/// A deadline in Unix milliseconds.
#[pyfunction]
fn unix_ms(when: &Bound<'_, PyAny>) -> PyResult<i64> {
    convert::unix_ms(when)
}

/// A moment so many seconds from now; None = never.
fn deadline(timeout: Option<f64>) -> PyResult<Option<Instant>> {
    let Some(timeout) = timeout else { return Ok(None) };
    Ok(Instant::now().checked_add(seconds(timeout)?))
}

/// A span of seconds.
fn seconds(timeout: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(timeout)
        .map_err(|_| PyValueError::new_err("timeout must be a number of seconds, not negative"))
}
