//! Python objects to codec bytes.

use std::ffi::c_int;

use data_bridge_kv_model::codec::put_varint;
use data_bridge_kv_model::limits::{VALUE_BYTES, VALUE_DEPTH};
use data_bridge_kv_model::{ErrorKind, Kind};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFrozenSet, PyList, PySet, PyTuple};

use super::types::{Types, is_type};
use super::{Failure, Outcome, bigint, decimal, foreign, moment, type_name};

/// Writes values of one call, with the caller's fallback codec.
pub struct Encoder<'a, 'py> {
    /// Where the bytes go.
    pub out: &'a mut Vec<u8>,
    /// Codec for objects of other types: its `name`, and `encode(object)` that returns bytes.
    pub fallback: Option<&'a Bound<'py, PyAny>>,
}

/// What of one container needs a second look, because two members would be one identity in the store.
#[derive(Default)]
struct Identities {
    text: bool,
    bytes: bool,
    nans: usize,
}

impl<'py> Encoder<'_, 'py> {
    /// Appends one value.
    #[inline]
    pub fn value(&mut self, value: &Bound<'py, PyAny>) -> Outcome<()> {
        self.value_at(value, VALUE_DEPTH)
    }

    #[inline]
    fn value_at(&mut self, value: &Bound<'py, PyAny>, depth: usize) -> Outcome<()> {
        let class = value.get_type_ptr();
        if class == &raw mut ffi::PyUnicode_Type {
            return self.text(value);
        }
        if class == &raw mut ffi::PyLong_Type {
            return self.int(value);
        }
        if class == &raw mut ffi::PyFloat_Type {
            // SAFETY: the exact type is float.
            let number = unsafe { ffi::PyFloat_AsDouble(value.as_ptr()) };
            self.out.push(Kind::Float.number());
            self.out.extend_from_slice(&number.to_le_bytes());
            return Ok(());
        }
        if class == &raw mut ffi::PyBytes_Type {
            // SAFETY: the exact type is bytes.
            let bytes = unsafe { value.cast_unchecked::<PyBytes>() }.as_bytes();
            self.counted(Kind::Bytes, bytes);
            return Ok(());
        }
        if class == &raw mut ffi::PyBool_Type {
            // SAFETY: True is a static object; only its address is taken.
            let yes = value.as_ptr() == unsafe { ffi::Py_True() };
            self.out.extend_from_slice(&[Kind::Bool.number(), u8::from(yes)]);
            return Ok(());
        }
        if value.is_none() {
            self.out.push(Kind::Null.number());
            return Ok(());
        }
        self.container_or_rich(value, class, depth)
    }

    fn container_or_rich(
        &mut self,
        value: &Bound<'py, PyAny>,
        class: *mut ffi::PyTypeObject,
        depth: usize,
    ) -> Outcome<()> {
        if class == &raw mut ffi::PyDict_Type {
            return self.dict(exact(value)?, inner(depth)?);
        }
        if class == &raw mut ffi::PyList_Type {
            return self.list(exact(value)?, inner(depth)?);
        }
        if class == &raw mut ffi::PyTuple_Type {
            return self.tuple(exact(value)?, inner(depth)?);
        }
        if class == &raw mut ffi::PySet_Type {
            let count = exact::<PySet>(value)?.len();
            return self.members(Kind::Set, value, count, inner(depth)?);
        }
        if class == &raw mut ffi::PyFrozenSet_Type {
            let count = exact::<PyFrozenSet>(value)?.len();
            return self.members(Kind::FrozenSet, value, count, inner(depth)?);
        }
        let types = Types::get(value.py())?;
        if is_type(class, &types.decimal) {
            return decimal::put(value, types, self.out);
        }
        if is_type(class, &types.datetime) {
            return moment::put_datetime(exact(value)?, self.out);
        }
        if is_type(class, &types.uuid) {
            return moment::put_uuid(value, self.out);
        }
        if is_type(class, &types.date) {
            moment::put_date(exact(value)?, self.out);
            return Ok(());
        }
        if is_type(class, &types.timedelta) {
            moment::put_duration(exact(value)?, self.out);
            return Ok(());
        }
        if is_type(class, &types.time) {
            return moment::put_time(exact(value)?, self.out);
        }
        self.foreign(value, types, depth)
    }

    /// Tagged and Opaque objects, registered classes, numpy scalars, the fallback codec; else refused.
    #[cold]
    fn foreign(&mut self, value: &Bound<'py, PyAny>, types: &Types, depth: usize) -> Outcome<()> {
        match foreign::read(value, types, self.fallback)? {
            foreign::Foreign::Plain(plain) => self.value_at(&plain, depth),
            foreign::Foreign::Tagged(name, plain) => {
                let depth = inner(depth)?;
                self.counted_name(Kind::Tagged, &name);
                self.value_at(&plain, depth).map_err(|failure| failure.inside(|| format!(".{name}")))
            }
            foreign::Foreign::Opaque(name, bytes) => {
                self.counted_name(Kind::Opaque, &name);
                put_varint(bytes.as_bytes().len(), self.out);
                self.out.extend_from_slice(bytes.as_bytes());
                Ok(())
            }
        }
    }

    #[inline]
    fn text(&mut self, value: &Bound<'py, PyAny>) -> Outcome<()> {
        let Some(text) = utf8(value) else {
            let message = "text holds a lone surrogate, so it is no UTF-8";
            return Err(Failure::refused(ErrorKind::InvalidArgument, message));
        };
        self.counted(Kind::Text, text.as_bytes());
        Ok(())
    }

    #[inline]
    fn int(&mut self, value: &Bound<'py, PyAny>) -> Outcome<()> {
        let mut overflow: c_int = 0;
        // SAFETY: the exact type is int, so no Python code runs and -1 without overflow is the number.
        let number = unsafe { ffi::PyLong_AsLongLongAndOverflow(value.as_ptr(), &mut overflow) };
        if overflow != 0 {
            return bigint::put(value, self.out);
        }
        self.out.push(Kind::Int.number());
        self.out.extend_from_slice(&number.to_le_bytes());
        Ok(())
    }

    #[inline]
    fn counted(&mut self, kind: Kind, bytes: &[u8]) {
        self.out.push(kind.number());
        put_varint(bytes.len(), self.out);
        self.out.extend_from_slice(bytes);
    }

    fn counted_name(&mut self, kind: Kind, name: &str) {
        self.counted(kind, name.as_bytes());
    }

    fn list(&mut self, list: &Bound<'py, PyList>, depth: usize) -> Outcome<()> {
        let count = list.len();
        self.out.push(Kind::List.number());
        put_varint(count, self.out);
        for index in 0..count {
            // Code of a registered class may have changed the list: a missing item is an error, never a crash.
            let item = list.get_item(index).map_err(|_| changed())?;
            self.element(&item, depth, index)?;
        }
        if list.len() == count { Ok(()) } else { Err(changed()) }
    }

    fn tuple(&mut self, tuple: &Bound<'py, PyTuple>, depth: usize) -> Outcome<()> {
        self.out.push(Kind::Tuple.number());
        put_varint(tuple.len(), self.out);
        for index in 0..tuple.len() {
            self.element(&*tuple.get_borrowed_item(index)?, depth, index)?;
        }
        Ok(())
    }

    #[inline]
    fn element(&mut self, item: &Bound<'py, PyAny>, depth: usize, index: usize) -> Outcome<()> {
        self.value_at(item, depth).map_err(|failure| failure.inside(|| format!("[{index}]")))?;
        self.bounded()
    }

    fn members(&mut self, kind: Kind, set: &Bound<'py, PyAny>, count: usize, depth: usize) -> Outcome<()> {
        self.out.push(kind.number());
        put_varint(count, self.out);
        let mut identities = Identities::default();
        let mut written = 0;
        for member in set.try_iter()? {
            let member = member?;
            let start = self.out.len();
            self.value_at(&member, depth)
                .and_then(|()| self.check_member(start, &member))
                .map_err(|failure| failure.inside(|| format!("{{{}}}", shown(&member))))?;
            identities.see(self.out, start);
            written += 1;
            self.bounded()?;
        }
        if written != count { Err(changed()) } else { identities.check(set) }
    }

    fn dict(&mut self, dict: &Bound<'py, PyDict>, depth: usize) -> Outcome<()> {
        let (count, mut written, mut position) = (dict.len(), 0, 0);
        self.out.push(Kind::Hash.number());
        put_varint(count, self.out);
        let mut identities = Identities::default();
        loop {
            let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
            // SAFETY: a live dict and three places to write to. The call checks its position against the dict as it
            // is now, so a dict that changed meanwhile gives other items, never invalid ones.
            if unsafe { ffi::PyDict_Next(dict.as_ptr(), &mut position, &mut key, &mut value) } == 0 {
                break;
            }
            // SAFETY: borrowed references to live items; each is made an owned one before any Python code can run.
            let (key, value) = unsafe {
                (Bound::from_borrowed_ptr(dict.py(), key), Bound::from_borrowed_ptr(dict.py(), value))
            };
            let start = self.out.len();
            self.value_at(&key, depth)
                .and_then(|()| self.check_member(start, &key))
                .map_err(|failure| failure.inside(|| format!("{{{}}}", shown(&key))))?;
            identities.see(self.out, start);
            self.value_at(&value, depth)
                .map_err(|failure| failure.inside(|| format!("[{}]", shown(&key))))?;
            written += 1;
            self.bounded()?;
        }
        if written != count || dict.len() != count { Err(changed()) } else { identities.check(dict) }
    }

    /// Refuses what grew beyond the largest value, before a structure shared many times fills the memory.
    #[inline]
    fn bounded(&self) -> Outcome<()> {
        if self.out.len() > 2 * VALUE_BYTES {
            return Err(Failure::refused(ErrorKind::Limit, "value is larger than 64 MiB"));
        }
        Ok(())
    }

    fn check_member(&self, start: usize, member: &Bound<'py, PyAny>) -> Outcome<()> {
        let kind = self.out.get(start).copied().and_then(Kind::from_number);
        if kind.is_some_and(Kind::is_member) {
            return Ok(());
        }
        let name = type_name(member);
        Err(Failure::unsupported(format!("object of type {name} can't be a set member or hash field")))
    }
}

impl Identities {
    #[inline]
    fn see(&mut self, out: &[u8], start: usize) {
        match out.get(start).copied().and_then(Kind::from_number) {
            Some(Kind::Text) => self.text = true,
            Some(Kind::Bytes) => self.bytes = true,
            Some(Kind::Float) => {
                let bits = out.get(start + 1..start + 9).and_then(|bits| bits.try_into().ok());
                self.nans += usize::from(bits.is_some_and(|bits| f64::from_le_bytes(bits).is_nan()));
            }
            _ => {}
        }
    }

    /// Two members of one identity: a text and bytes with its characters, or two NaNs.
    fn check(&self, container: &Bound<'_, PyAny>) -> Outcome<()> {
        if self.nans > 1 {
            return Err(Failure::unsupported("several NaNs are one member in the store"));
        }
        if self.text && self.bytes {
            for member in container.try_iter()? {
                let member = member?;
                let Ok(bytes) = member.cast_exact::<PyBytes>() else { continue };
                let Ok(text) = std::str::from_utf8(bytes.as_bytes()) else { continue };
                if container.contains(text)? {
                    let message = format!("{text:?} as str and as bytes are one member in the store");
                    return Err(Failure::unsupported(message));
                }
            }
        }
        Ok(())
    }
}

/// The UTF-8 of a `str` or a subclass of it; `None` for one with a lone surrogate.
#[inline]
pub fn utf8<'a>(text: &'a Bound<'_, PyAny>) -> Option<&'a str> {
    let mut length: ffi::Py_ssize_t = 0;
    // SAFETY: a live str; the buffer belongs to it and lives as long as the borrow.
    let data = unsafe { ffi::PyUnicode_AsUTF8AndSize(text.as_ptr(), &mut length) };
    if data.is_null() {
        drop(PyErr::take(text.py()));
        return None;
    }
    // SAFETY: `length` bytes of valid UTF-8, by the contract of the call; a str never changes.
    Some(unsafe {
        std::str::from_utf8_unchecked(std::slice::from_raw_parts(data.cast(), length.unsigned_abs()))
    })
}

/// Whether the exact type is `str`.
#[inline]
pub fn is_exact_str(value: &Bound<'_, PyAny>) -> bool {
    value.get_type_ptr() == &raw mut ffi::PyUnicode_Type
}

/// The same object as the class that its type was just compared with.
#[inline]
fn exact<'a, 'py, T: pyo3::PyTypeCheck>(value: &'a Bound<'py, PyAny>) -> Outcome<&'a Bound<'py, T>> {
    value.cast::<T>().map_err(|error| Failure::Raised(error.into()))
}

#[inline]
fn inner(depth: usize) -> Outcome<usize> {
    match depth {
        0 | 1 => Err(Failure::unsupported("value is nested more than 32 deep, or contains itself")),
        _ => Ok(depth - 1),
    }
}

#[cold]
fn changed() -> Failure {
    Failure::refused(ErrorKind::InvalidArgument, "container changed while it was stored")
}

/// A member or field for the path of an error: short.
#[cold]
fn shown(value: &Bound<'_, PyAny>) -> String {
    let text = value.repr().map_or_else(|_| type_name(value), |text| text.to_string());
    if text.chars().count() <= 40 { text } else { text.chars().take(39).chain(['…']).collect() }
}
