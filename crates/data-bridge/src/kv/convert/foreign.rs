//! Objects of other types: our Tagged and Opaque, classes with a registered codec, numpy scalars, and whatever the
//! caller's fallback codec takes. Unregistered subclasses of builtins are refused: storing an `IntEnum` as an int
//! would lose what it is.

use data_bridge_kv_model::ErrorKind;
use data_bridge_kv_model::limits::NAME_BYTES;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple, PyType};

use super::types::Types;
use super::{Failure, Outcome, type_name};

/// How an object of another type is stored.
pub enum Foreign<'py> {
    /// As this plain value.
    Plain(Bound<'py, PyAny>),
    /// As this value under a name.
    Tagged(String, Bound<'py, PyAny>),
    /// As these bytes of the named codec.
    Opaque(String, Bound<'py, PyBytes>),
}

/// Finds out how `value` is stored, or refuses it.
pub fn read<'py>(
    value: &Bound<'py, PyAny>,
    types: &Types,
    fallback: Option<&Bound<'py, PyAny>>,
) -> Outcome<Foreign<'py>> {
    let py = value.py();
    let class = value.get_type();
    if let Some(entry) = types.by_class.bind(py).get_item(&class)? {
        let (name, to_plain) = entry.extract::<(String, Bound<'py, PyAny>)>()?;
        return Ok(Foreign::Tagged(name, to_plain.call1((value,))?));
    }
    if class.is(&types.tagged) {
        return Ok(Foreign::Tagged(named(value, "name")?, value.getattr("value")?));
    }
    if class.is(&types.opaque) {
        return Ok(Foreign::Opaque(named(value, "codec")?, bytes_of(value.getattr("data")?)?));
    }
    if let Some(plain) = numpy_scalar(value, &class)? {
        return Ok(Foreign::Plain(plain));
    }
    if let Some(codec) = fallback {
        let name = named(codec, "name")?;
        return Ok(Foreign::Opaque(name, bytes_of(codec.call_method1("encode", (value,))?)?));
    }
    let name = type_name(value);
    let remedy = "convert it, register its class with kv.register, or give the store a fallback=";
    Err(Failure::unsupported(format!("object of type {name}: {remedy}")))
}

fn named(value: &Bound<'_, PyAny>, attribute: &str) -> Outcome<String> {
    let name: String = value.getattr(attribute)?.extract()?;
    check_name(&name).map_err(|message| Failure::refused(ErrorKind::InvalidArgument, message))?;
    Ok(name)
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > NAME_BYTES { Err("a name has 1 to 255 bytes") } else { Ok(()) }
}

fn bytes_of(value: Bound<'_, PyAny>) -> Outcome<Bound<'_, PyBytes>> {
    value.cast_into::<PyBytes>().map_err(|_| Failure::unsupported("a codec must encode to bytes"))
}

/// A numpy scalar as the plain object of its kind; `None` for anything else. Times coarser than microseconds are
/// exact as datetime and timedelta; finer ones, NaT, complex and extended floats are refused.
fn numpy_scalar<'py>(
    value: &Bound<'py, PyAny>,
    class: &Bound<'py, PyType>,
) -> Outcome<Option<Bound<'py, PyAny>>> {
    let py = value.py();
    if !class.module().is_ok_and(|module| module == "numpy") {
        return Ok(None);
    }
    let generic = py.import("numpy")?.getattr("generic")?;
    if !value.is_instance(&generic)? {
        return Ok(None);
    }
    let kind: String = value.getattr("dtype")?.getattr("kind")?.extract()?;
    let plain = value.call_method0("item")?;
    let exact = match kind.as_str() {
        "b" | "i" | "u" | "S" | "U" => true,
        "f" => value.getattr("dtype")?.getattr("itemsize")?.extract::<usize>()? <= 8,
        // What is finer than microseconds is an int, and NaT is None.
        "M" | "m" => !plain.is_none() && !plain.is_instance_of::<pyo3::types::PyInt>(),
        _ => false,
    };
    if exact {
        Ok(Some(plain))
    } else {
        Err(Failure::unsupported(format!("numpy scalar {}", type_name(value))))
    }
}

/// Registers a codec: objects whose exact class is `class` are stored under `name`, and values under `name` are given
/// to `from_plain`. Registering the same name or class again replaces it.
#[pyfunction]
pub fn register(
    class: &Bound<'_, PyType>,
    name: &Bound<'_, PyString>,
    to_plain: &Bound<'_, PyAny>,
    from_plain: &Bound<'_, PyAny>,
) -> PyResult<()> {
    check_name(name.to_str()?).map_err(PyValueError::new_err)?;
    let py = class.py();
    let types = Types::get(py)?;
    types.by_class.bind(py).set_item(class, PyTuple::new(py, [name.as_any(), to_plain])?)?;
    types.by_name.bind(py).set_item(name, from_plain)
}

/// The object of a Tagged value: what the registered codec makes of it, or our Tagged.
pub fn tagged<'py>(py: Python<'py>, name: &str, plain: Bound<'py, PyAny>) -> Outcome<Bound<'py, PyAny>> {
    let types = Types::get(py)?;
    if let Some(from_plain) = types.by_name.bind(py).get_item(name)? {
        return Ok(from_plain.call1((plain,))?);
    }
    Ok(types.tagged.bind(py).call1((name, plain))?)
}

/// The object of an Opaque value: what the caller's fallback codec of that name makes of it, or our Opaque.
pub fn opaque<'py>(
    py: Python<'py>,
    name: &str,
    bytes: &[u8],
    fallback: Option<&Bound<'py, PyAny>>,
) -> Outcome<Bound<'py, PyAny>> {
    let data = PyBytes::new(py, bytes);
    if let Some(codec) = fallback
        && codec.getattr("name")?.eq(name)?
    {
        return Ok(codec.call_method1("decode", (data,))?);
    }
    Ok(Types::get(py)?.opaque.bind(py).call1((name, data))?)
}
