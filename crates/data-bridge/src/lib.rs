//! The Python module `data_bridge._native`. Each component of data-bridge has its own part; the KV store is `kv`.

use pyo3::prelude::*;

mod kv;

/// The allocator whose size classes the engine's accounts are written for. Python's own objects are not in it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Native part of data_bridge: use `data_bridge.kv`, not this module.
#[pymodule(gil_used = true)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    kv::fill(module)
}
