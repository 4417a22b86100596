//! The options of `kv.open()` as settings of the engine.

use std::path::Path;

use data_bridge_kv::disk::RealDisk;
use data_bridge_kv::{
    DataDirectory, Durability, Engine, Eviction, Mode, NamespaceSettings, Settings, TransitionGraph,
};
use data_bridge_kv_model::{Error, ErrorKind, Result};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{convert, doorway, errors};

/// The directory of an embedded engine, and how much of it may be used: three quarters of what is free unless given.
pub fn data(path: &Path, max_disk: Option<u64>) -> Result<DataDirectory> {
    DataDirectory::open(path, move |free| max_disk.unwrap_or(free / 4 * 3)).map_err(|error| {
        if error.kind() != ErrorKind::Locked {
            return error;
        }
        let instead = "share its store, or let `data-bridge-kv serve --data` have it and use kv.connect()";
        Error::new(error.kind(), format!("{}: {instead}", error.message()))
    })
}

/// Copies the task namespaces of an engine to a directory.
pub fn snapshot(engine: &Engine, destination: &Path) -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Unavailable, format!("{}: {error}", destination.display()))
    };
    engine.snapshot(&RealDisk::open(destination).map_err(failed)?, &mut |_, _| {}).map(drop)
}

/// Settings of an embedded engine: `mode`, `eviction` and `durability` of namespace 0, and a dict of name to options for others.
pub fn settings(
    mode: &str,
    eviction: Option<&str>,
    durability: Option<&str>,
    max_memory: Option<u64>,
    namespaces: Option<&Bound<'_, PyDict>>,
) -> PyResult<Settings> {
    let mut settings = Settings { blocking: doorway::aside, ..Settings::default() };
    if let Some(bytes) = max_memory {
        settings.max_memory = bytes;
    }
    let first = &mut settings.namespaces[0];
    first.mode = mode_of(mode)?;
    first.eviction = match (eviction, first.mode) {
        (Some(word), _) => policy(word)?,
        (None, Mode::Cache) => Eviction::Lru,
        (None, Mode::Task) => Eviction::None,
    };
    first.allow_flush = first.mode == Mode::Cache;
    first.durability = durability.map(self::durability).transpose()?;
    let Some(namespaces) = namespaces else { return Ok(settings) };
    let names: Vec<String> = namespaces.keys().extract()?;
    let kept: Vec<usize> = names.iter().filter_map(|name| NamespaceSettings::number(name)).collect();
    for (name, given) in names.iter().zip(namespaces.values()) {
        let given = given
            .cast::<PyDict>()
            .map_err(|_| PyTypeError::new_err(format!("options of namespace {name:?} must be a dict")))?;
        let namespace = NamespaceSettings::named(&mut settings.namespaces, name, &kept)
            .map_err(|error| errors::from_model(given.py(), &error))?;
        apply(namespace, given)?;
    }
    Ok(settings)
}

fn apply(namespace: &mut NamespaceSettings, given: &Bound<'_, PyDict>) -> PyResult<()> {
    if let Some(mode) = given.get_item("mode")? {
        namespace.set_mode(mode_of(mode.extract()?)?);
    }
    for (option, value) in given.iter() {
        let option: String = option.extract()?;
        match option.as_str() {
            "mode" => {}
            "eviction" => namespace.eviction = policy(value.extract()?)?,
            "default_ttl" => {
                namespace.default_ttl_ms = Some(convert::ttl_ms(&value)?.unsigned_abs());
            }
            "history" => namespace.history = value.extract()?,
            "floor" => namespace.floor_bytes = value.extract()?,
            "allow_flush" => namespace.allow_flush = value.extract()?,
            "transitions" => namespace.graph = Some(graph(&value)?),
            "durability" => namespace.durability = Some(durability(value.extract()?)?),
            _ => return Err(PyTypeError::new_err(format!("unknown option of a namespace: {option:?}"))),
        }
    }
    Ok(())
}

/// `"->PENDING, PENDING->STARTED"` for the field `status`, or (field, steps).
fn graph(value: &Bound<'_, PyAny>) -> PyResult<TransitionGraph> {
    let (field, steps) = match value.extract::<(String, String)>() {
        Ok(both) => both,
        Err(_) => ("status".to_owned(), value.extract()?),
    };
    TransitionGraph::parse(&field, &steps).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn mode_of(mode: &str) -> PyResult<Mode> {
    match mode {
        "cache" => Ok(Mode::Cache),
        "task" => Ok(Mode::Task),
        _ => Err(PyValueError::new_err(format!("mode must be \"cache\" or \"task\", not {mode:?}"))),
    }
}

fn durability(word: &str) -> PyResult<Durability> {
    Durability::parse(word).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn policy(word: &str) -> PyResult<Eviction> {
    Eviction::parse(word).map_err(|error| PyValueError::new_err(error.to_string()))
}
