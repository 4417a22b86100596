//! The Python module `data_bridge._native`. Each component of data-bridge has its own part; the KV store is `kv`.

use pyo3::prelude::*;

mod kv;

/// Native part of data_bridge: use `data_bridge.kv`, not this module.
#[pymodule(gil_used = true)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    kv::fill(module)
}
