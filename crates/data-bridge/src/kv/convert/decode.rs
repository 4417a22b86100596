//! Codec bytes and reply items to Python objects. The bytes may come from the network: every length is checked
//! against what is left before anything is allocated by it.

use std::borrow::Cow;

use data_bridge_kv_model::codec::Reader;
use data_bridge_kv_model::limits::VALUE_DEPTH;
use data_bridge_kv_model::reply::MISSING_REPLY;
use data_bridge_kv_model::{Decimal, ErrorKind, Item, Kind, ReplyReader, Shape};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple};

use super::{Failure, Outcome, bigint, decimal, foreign, moment, names, scalars};

/// Containers inside a reply nest at most this deep above the values' own depth.
const REPLY_DEPTH: usize = 8;

/// Reads values and reply items of one call.
pub struct Decoder<'a, 'py> {
    py: Python<'py>,
    rest: &'a [u8],
    /// What a missing key, field or member becomes.
    missing: Option<&'a Bound<'py, PyAny>>,
    fallback: Option<&'a Bound<'py, PyAny>>,
}

impl<'a, 'py> Decoder<'a, 'py> {
    /// Starts at the first byte. `missing` None = Python's None; `fallback` is the caller's codec.
    #[inline]
    pub fn new(
        py: Python<'py>,
        bytes: &'a [u8],
        missing: Option<&'a Bound<'py, PyAny>>,
        fallback: Option<&'a Bound<'py, PyAny>>,
    ) -> Decoder<'a, 'py> {
        Decoder { py, rest: bytes, missing, fallback }
    }

    /// Reads one reply item with everything inside it; an error item is the exception it stands for. Ok = True.
    #[inline]
    pub fn reply(&mut self) -> PyResult<Bound<'py, PyAny>> {
        self.item(REPLY_DEPTH).map_err(|failure| failure.into_error(self.py, "value"))
    }

    /// Reads one reply item; a missing key is None.
    #[inline]
    pub fn reply_or_missing(&mut self) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.rest == MISSING_REPLY { Ok(None) } else { self.reply().map(Some) }
    }

    /// Reads a set as a list of (kind, member), a hash as a list of (kind, field, value); anything else as `reply`.
    pub fn typed_items(&mut self) -> PyResult<Bound<'py, PyAny>> {
        let kind = self.rest.first().copied().and_then(Kind::from_number);
        let fields = kind == Some(Kind::Hash);
        if !fields && !matches!(kind, Some(Kind::Set | Kind::FrozenSet)) {
            return self.reply();
        }
        let mut read = || {
            self.rest = self.rest.get(1..).unwrap_or_default();
            let count = self.varint()?;
            self.list(count, |this| {
                let kind = this.rest.first().copied().and_then(Kind::from_number).map_or("", Kind::name);
                let mut item = vec![PyString::new(this.py, kind).into_any(), this.value(VALUE_DEPTH)?];
                if fields {
                    item.push(this.value(VALUE_DEPTH)?);
                }
                Ok(PyTuple::new(this.py, item)?.into_any())
            })
        };
        read().map_err(|failure: Failure| failure.into_error(self.py, "value"))
    }

    /// Reads one encoded value.
    pub fn one_value(&mut self) -> PyResult<Bound<'py, PyAny>> {
        self.value(VALUE_DEPTH).map_err(|failure| failure.into_error(self.py, "value"))
    }

    #[inline]
    fn item(&mut self, depth: usize) -> Outcome<Bound<'py, PyAny>> {
        let tag = *self.rest.first().ok_or_else(cut_short)?;
        if Kind::from_number(tag).is_some() {
            return self.value(VALUE_DEPTH);
        }
        let mut reader = ReplyReader::new(self.rest);
        let item = reader.item()?;
        self.rest = reader.rest();
        Ok(match item {
            Item::Missing => self.missing.map_or_else(|| self.py.None().into_bound(self.py), Bound::clone),
            Item::Ok => PyBool::new(self.py, true).to_owned().into_any(),
            Item::Integer(number) => number.into_pyobject(self.py).map_err(PyErr::from)?.into_any(),
            Item::Boolean(yes) => PyBool::new(self.py, yes).to_owned().into_any(),
            Item::Status(text) => PyString::new(self.py, text).into_any(),
            Item::Error(error) => {
                return Err(Failure::Raised(super::super::errors::from_model(self.py, &error)));
            }
            Item::Container(shape, count) => {
                let inner = depth.checked_sub(1).ok_or_else(cut_short)?;
                self.shaped(shape, count, inner)?
            }
            Item::Value(_) => return Err(cut_short()),
        })
    }

    fn shaped(&mut self, shape: Shape, count: usize, depth: usize) -> Outcome<Bound<'py, PyAny>> {
        match shape {
            Shape::Array => self.list(count, |this| this.item(depth)),
            Shape::Map => self.dict(count, |this| this.item(depth)),
            Shape::Members => {
                let set = PySet::empty(self.py)?;
                for _ in 0..count {
                    set.add(self.item(depth)?)?;
                }
                if set.len() == count { Ok(set.into_any()) } else { Err(collision()) }
            }
            Shape::Scored => self.list(count, |this| {
                let (member, score) = (this.item(depth)?, this.item(depth)?);
                Ok(PyTuple::new(this.py, [member, score])?.into_any())
            }),
        }
    }

    // long: one arm a kind
    fn value(&mut self, depth: usize) -> Outcome<Bound<'py, PyAny>> {
        let (&number, rest) = self.rest.split_first().ok_or_else(cut_short)?;
        self.rest = rest;
        let Some(kind) = Kind::from_number(number) else {
            return Err(Failure::unsupported("unknown kind of value: a newer version wrote it"));
        };
        let py = self.py;
        Ok(match kind {
            Kind::Null => py.None().into_bound(py),
            Kind::Bool => PyBool::new(py, self.array::<1>()? != [0]).to_owned().into_any(),
            Kind::Int => int(py, i64::from_le_bytes(self.array()?)),
            Kind::Float => PyFloat::new(py, f64::from_le_bytes(self.array()?)).into_any(),
            Kind::Text => self.text()?,
            Kind::Bytes => PyBytes::new(py, self.counted()?).into_any(),
            Kind::Decimal => {
                let number = Decimal::from_payload(&self.array()?).map_err(|_| cut_short())?;
                decimal::build(py, number)?
            }
            Kind::List => {
                let (count, inner) = (self.varint()?, inner(depth)?);
                self.list(count, |this| this.value(inner))?
            }
            Kind::Tuple => {
                let (count, inner) = (self.varint()?, inner(depth)?);
                self.tuple(count, inner)?
            }
            Kind::Hash => {
                let (count, inner) = (self.varint()?, inner(depth)?);
                self.dict(count, |this| this.value(inner))?
            }
            Kind::Set => self.set(PySet::empty(py)?.into_any(), depth)?,
            Kind::FrozenSet => {
                let set = self.set(PySet::empty(py)?.into_any(), depth)?;
                py.get_type::<PyFrozenSet>().call1((set,))?
            }
            Kind::SortedSet => self.sorted_set(depth)?,
            Kind::BigInt => {
                let negative = self.array::<1>()? == [1];
                bigint::build(py, negative, self.counted()?)?
            }
            Kind::Date => moment::build_date(py, i32::from_le_bytes(self.array()?))?,
            Kind::Duration => {
                let days = i32::from_le_bytes(self.array()?);
                moment::build_duration(py, days, i64::from_le_bytes(self.array()?))?
            }
            Kind::Timestamp | Kind::Time => {
                let mut reader = Reader::new(self.rest);
                let moment = moment::build_moment(py, kind, &mut reader)?;
                self.rest = reader.rest();
                moment
            }
            Kind::Uuid => scalars::build_uuid(py, self.array()?)?,
            Kind::Opaque => {
                let name = self.name()?;
                let bytes = self.counted()?;
                foreign::opaque(py, &name, bytes, self.fallback)?
            }
            Kind::Tagged => {
                let (name, inner) = (self.name()?, inner(depth)?);
                let plain = self.value(inner)?;
                foreign::tagged(py, &name, plain)?
            }
        })
    }

    #[inline]
    fn text(&mut self) -> Outcome<Bound<'py, PyAny>> {
        let bytes = self.counted()?;
        Ok(super::build_text(self.py, bytes)?)
    }

    /// A hash's field: short texts come from the table of names.
    #[inline]
    fn field(
        &mut self,
        value: impl Fn(&mut Self) -> Outcome<Bound<'py, PyAny>>,
    ) -> Outcome<Bound<'py, PyAny>> {
        if self.rest.first() != Some(&Kind::Text.number()) {
            return value(self);
        }
        self.rest = self.rest.get(1..).unwrap_or_default();
        let bytes = self.counted()?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(names::name(self.py, text).into_any()),
            Err(_) => Err(cut_short()),
        }
    }

    fn list(
        &mut self,
        count: usize,
        mut item: impl FnMut(&mut Self) -> Outcome<Bound<'py, PyAny>>,
    ) -> Outcome<Bound<'py, PyAny>> {
        self.afford(count)?;
        // SAFETY: the new list has `count` empty places; each is filled once, and a list with empty places may be
        // dropped. The list is not handed out before it is full.
        unsafe {
            let list = Bound::from_owned_ptr_or_err(self.py, ffi::PyList_New(count.cast_signed()))?;
            for index in 0..count {
                let item = item(self).map_err(|failure| failure.inside(|| format!("[{index}]")))?;
                ffi::PyList_SetItem(list.as_ptr(), index.cast_signed(), item.into_ptr());
            }
            Ok(list)
        }
    }

    fn tuple(&mut self, count: usize, depth: usize) -> Outcome<Bound<'py, PyAny>> {
        let items = self.list(count, |this| this.value(depth))?;
        // SAFETY: `list` returns a list.
        Ok(unsafe { items.cast_unchecked::<PyList>() }.to_tuple().into_any())
    }

    fn dict(
        &mut self,
        count: usize,
        value: impl Fn(&mut Self) -> Outcome<Bound<'py, PyAny>>,
    ) -> Outcome<Bound<'py, PyAny>> {
        self.afford(count)?;
        let dict = PyDict::new(self.py);
        for _ in 0..count {
            let field = self.field(&value)?;
            let inside = |failure: Failure| {
                failure.inside(|| field.repr().map_or_else(|_| "[?]".to_owned(), |text| format!("[{text}]")))
            };
            let value = value(self).map_err(inside)?;
            dict.set_item(&field, value)?;
        }
        if dict.len() == count { Ok(dict.into_any()) } else { Err(collision()) }
    }

    fn set(&mut self, set: Bound<'py, PyAny>, depth: usize) -> Outcome<Bound<'py, PyAny>> {
        let (count, inner) = (self.varint()?, inner(depth)?);
        self.afford(count)?;
        let set = set.cast_into::<PySet>().map_err(PyErr::from)?;
        for _ in 0..count {
            set.add(self.value(inner)?)?;
        }
        if set.len() == count { Ok(set.into_any()) } else { Err(collision()) }
    }

    fn sorted_set(&mut self, depth: usize) -> Outcome<Bound<'py, PyAny>> {
        let [kind] = self.array::<1>()?;
        let (count, inner) = (self.varint()?, inner(depth)?);
        self.list(count, |this| {
            let score = if kind == Kind::Decimal.number() {
                decimal::build(this.py, Decimal::from_payload(&this.array()?).map_err(|_| cut_short())?)?
            } else {
                PyFloat::new(this.py, f64::from_le_bytes(this.array()?)).into_any()
            };
            Ok(PyTuple::new(this.py, [this.value(inner)?, score])?.into_any())
        })
    }

    /// A count is believed only as far as bytes are left: each element takes one at least.
    #[inline]
    fn afford(&self, count: usize) -> Outcome<()> {
        if count <= self.rest.len() { Ok(()) } else { Err(cut_short()) }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        let (&array, rest) = self.rest.split_first_chunk::<N>().ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(array)
    }

    #[inline]
    fn varint(&mut self) -> Outcome<usize> {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                Ok(usize::from(byte))
            }
            _ => {
                let mut reader = Reader::new(self.rest);
                let number = reader.varint()?;
                self.rest = reader.rest();
                Ok(number)
            }
        }
    }

    #[inline]
    fn counted(&mut self) -> Outcome<&'a [u8]> {
        let length = self.varint()?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn name(&mut self) -> Outcome<Cow<'a, str>> {
        Ok(String::from_utf8_lossy(self.counted()?))
    }
}

#[inline]
fn int(py: Python<'_>, number: i64) -> Bound<'_, PyAny> {
    PyInt::new(py, number).into_any()
}

fn inner(depth: usize) -> Outcome<usize> {
    match depth {
        0 | 1 => Err(Failure::unsupported("value is nested more than 32 deep")),
        _ => Ok(depth - 1),
    }
}

#[cold]
fn cut_short() -> Failure {
    Failure::refused(ErrorKind::Corruption, "encoded value is cut short or damaged")
}

#[cold]
fn collision() -> Failure {
    Failure::unsupported(
        "members that differ in the store are equal in Python (1, True and 1.0): read them with items_typed()",
    )
}
