//! Python objects to codec bytes.

use std::ffi::c_int;

use data_bridge_kv_model::codec::put_varint;
use data_bridge_kv_model::limits::{VALUE_BYTES, VALUE_DEPTH, VALUE_ELEMENTS};
use data_bridge_kv_model::{ErrorKind, Kind, ValueRef};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFrozenSet, PyList, PySet, PyTuple};

use super::text::utf8;
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
    nested: usize,
}

impl<'py> Encoder<'_, 'py> {
    /// Appends one value.
    #[inline]
    pub fn value(&mut self, value: &Bound<'py, PyAny>) -> Outcome<()> {
        let mut number = [0; 8];
        if let Some(value) = scalar(value, &mut number) {
            put(value, self.out);
            return Ok(());
        }
        let start = self.out.len();
        self.container_or_rich(value, value.get_type_ptr(), VALUE_DEPTH)?;
        match self.out.get(start..) {
            // Each element takes a byte at least: what is shorter has not too many.
            Some(long) if long.len() > VALUE_ELEMENTS => Ok(ValueRef::decode(long).map(drop)?),
            _ => Ok(()),
        }
    }

    #[inline]
    fn value_at(&mut self, value: &Bound<'py, PyAny>, depth: usize) -> Outcome<()> {
        let mut number = [0; 8];
        if let Some(value) = scalar(value, &mut number) {
            put(value, self.out);
            return Ok(());
        }
        self.container_or_rich(value, value.get_type_ptr(), depth)
    }

    fn container_or_rich(
        &mut self,
        value: &Bound<'py, PyAny>,
        class: *mut ffi::PyTypeObject,
        depth: usize,
    ) -> Outcome<()> {
        if class == &raw mut ffi::PyUnicode_Type {
            let message = "text holds a lone surrogate, so it is no UTF-8";
            return Err(Failure::refused(ErrorKind::InvalidArgument, message));
        }
        if class == &raw mut ffi::PyLong_Type {
            return bigint::put(value, self.out);
        }
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

    fn counted_name(&mut self, kind: Kind, name: &str) {
        self.out.push(kind.number());
        put_varint(name.len(), self.out);
        self.out.extend_from_slice(name.as_bytes());
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
        let whole = self.out.len();
        self.out.push(kind.number());
        put_varint(count, self.out);
        let mut identities = Identities::default();
        let mut written = 0;
        for member in set.try_iter()? {
            self.member(&member?, depth, &mut identities)?;
            written += 1;
            self.bounded()?;
        }
        if written != count { Err(changed()) } else { identities.check(set, self.out, whole) }
    }

    fn dict(&mut self, dict: &Bound<'py, PyDict>, depth: usize) -> Outcome<()> {
        let (count, mut written, mut position) = (dict.len(), 0, 0);
        let whole = self.out.len();
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
            // SAFETY: borrowed references to live items. Both are made owned ones before any Python code can run, which
            // it does not for texts and plain scalars.
            let (key, value) =
                unsafe { (Borrowed::from_ptr(dict.py(), key), Borrowed::from_ptr(dict.py(), value)) };
            let alive = || (key.to_owned(), value.to_owned());
            let text = if is_exact_str(&key) { utf8(&key) } else { None };
            let _alive = match text {
                Some(text) => {
                    identities.text = true;
                    put_text(text, self.out);
                    None
                }
                None => {
                    let alive = alive();
                    self.member(&key, depth, &mut identities)?;
                    Some(alive)
                }
            };
            let mut number = [0; 8];
            if let Some(value) = scalar(&value, &mut number) {
                put(value, self.out);
            } else {
                let _alive = alive();
                self.container_or_rich(&value, value.get_type_ptr(), depth)
                    .map_err(|failure| failure.inside(|| format!("[{}]", shown(&key))))?;
            }
            written += 1;
            self.bounded()?;
        }
        if written != count || dict.len() != count {
            return Err(changed());
        }
        identities.check(dict, self.out, whole)
    }

    /// Appends a set member or hash field.
    #[inline]
    fn member(
        &mut self,
        member: &Bound<'py, PyAny>,
        depth: usize,
        identities: &mut Identities,
    ) -> Outcome<()> {
        if is_exact_str(member)
            && let Some(text) = utf8(member)
        {
            identities.text = true;
            put_text(text, self.out);
            return Ok(());
        }
        let start = self.out.len();
        self.value_at(member, depth)
            .and_then(|()| self.check_member(start, member))
            .map_err(|failure| failure.inside(|| format!("{{{}}}", shown(member))))?;
        identities.see(self.out, start);
        Ok(())
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
            Some(Kind::Tuple | Kind::FrozenSet) => self.nested += 1,
            _ => {}
        }
    }

    /// Two members of one identity: a text and bytes with its characters, two NaNs, or either inside tuples and frozen
    /// sets. The encoded container starts at `whole`.
    fn check(&self, container: &Bound<'_, PyAny>, out: &[u8], whole: usize) -> Outcome<()> {
        if self.nested > 1 {
            ValueRef::decode(out.get(whole..).unwrap_or_default())?;
        }
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

/// An object of one of Python's plain scalar types as a value, without a copy of texts and bytes; numbers are written to
/// `number`. `None` for any other type, for an int beyond 64 bits and for text that is no UTF-8.
#[inline]
pub fn scalar<'a>(value: &'a Bound<'_, PyAny>, number: &'a mut [u8; 8]) -> Option<ValueRef<'a>> {
    let class = value.get_type_ptr();
    if class == &raw mut ffi::PyUnicode_Type {
        return utf8(value).map(ValueRef::text);
    }
    if class == &raw mut ffi::PyLong_Type {
        *number = int(value)?.to_le_bytes();
        return Some(ValueRef::from_parts(Kind::Int, number));
    }
    if class == &raw mut ffi::PyFloat_Type {
        // SAFETY: the exact type is float.
        *number = unsafe { ffi::PyFloat_AsDouble(value.as_ptr()) }.to_le_bytes();
        return Some(ValueRef::from_parts(Kind::Float, number));
    }
    if class == &raw mut ffi::PyBytes_Type {
        // SAFETY: the exact type is bytes.
        return Some(ValueRef::bytes(unsafe { value.cast_unchecked::<PyBytes>() }.as_bytes()));
    }
    if class == &raw mut ffi::PyBool_Type {
        // SAFETY: True is a static object; only its address is taken.
        let yes = value.as_ptr() == unsafe { ffi::Py_True() };
        return Some(ValueRef::from_static(Kind::Bool, if yes { &[1] } else { &[0] }));
    }
    value.is_none().then_some(ValueRef::from_static(Kind::Null, &[]))
}

/// Appends a scalar.
#[inline]
fn put(value: ValueRef<'_>, out: &mut Vec<u8>) {
    if value.kind() == Kind::Text { put_content(value.payload(), out) } else { value.encode_into(out) }
}

/// Appends a text.
#[inline]
fn put_text(text: &str, out: &mut Vec<u8>) {
    put_content(text.as_bytes(), out);
}

/// Appends a text of these bytes: a short one with one look at the room, since most of a record is short texts.
#[inline]
fn put_content(text: &[u8], out: &mut Vec<u8>) {
    let Some(length) = u8::try_from(text.len()).ok().filter(|length| *length < 0x80) else {
        ValueRef::from_parts(Kind::Text, text).encode_into(out);
        return;
    };
    let start = out.len();
    out.reserve(text.len() + 2);
    // SAFETY: there is room for two bytes and the text behind those that are there, and all of them are written before
    // the length says so. `out` is borrowed mutably, so the text is no part of it.
    unsafe {
        let end = out.as_mut_ptr().add(start);
        end.write(Kind::Text.number());
        end.add(1).write(length);
        std::ptr::copy_nonoverlapping(text.as_ptr(), end.add(2), text.len());
        out.set_len(start + 2 + text.len());
    }
}

/// The number of an exact `int`; `None` beyond 64 bits.
#[inline]
pub fn int(value: &Bound<'_, PyAny>) -> Option<i64> {
    let mut overflow: c_int = 0;
    // SAFETY: the exact type is int, so no Python code runs and -1 without overflow is the number.
    let number = unsafe { ffi::PyLong_AsLongLongAndOverflow(value.as_ptr(), &mut overflow) };
    (overflow == 0).then_some(number)
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
