//! `decimal.Decimal`: read from libmpdec's layout where a self-test at import knows it, else through `str()`; built
//! from text. Finite numbers of at most 38 digits; the rest is refused, never rounded.
//!
//! ```text
//! PyDecObject (64-bit, radix 10^19): head 16 | hash 8 | flags u8, pad | exp i64 | digits i64 | len i64 | alloc i64
//!                                    | data *u64 | 4 words
//! ```

use std::ffi::c_void;

use data_bridge_kv_model::decimal::{DecimalError, MAX_TEXT_BYTES};
use data_bridge_kv_model::{Decimal, ErrorKind, Kind};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};

use super::types::Types;
use super::{Failure, Outcome};

const FLAGS: usize = 24;
const EXPONENT: usize = 32;
const DIGITS: usize = 40;
const LENGTH: usize = 48;
const DATA: usize = 64;
const WORDS: usize = 72;
const SIZE: usize = 104;
const RADIX: u128 = 10_000_000_000_000_000_000;
/// Flags of infinities and NaNs.
const SPECIAL: u8 = 2 | 4 | 8;
const NEGATIVE: u8 = 1;

/// Appends a Decimal.
#[inline]
pub fn put(value: &Bound<'_, PyAny>, types: &Types, out: &mut Vec<u8>) -> Outcome<()> {
    let number = if types.decimal_layout {
        // SAFETY: the exact type is `Decimal` (the caller compared it) and its layout passed the self-test.
        unsafe { read_layout(value) }
    } else {
        Decimal::parse_bytes(value.str()?.to_str()?.as_bytes())
    };
    out.push(Kind::Decimal.number());
    out.extend_from_slice(&number.map_err(refused)?.to_payload());
    Ok(())
}

#[cold]
fn refused(error: DecimalError) -> Failure {
    let kind = match error {
        DecimalError::NotFinite | DecimalError::Syntax => ErrorKind::InvalidArgument,
        DecimalError::TooManyDigits | DecimalError::ExponentOutOfRange | DecimalError::Overflow => {
            ErrorKind::OutOfRange
        }
    };
    Failure::refused(kind, error.to_string())
}

/// Builds a Decimal.
pub fn build<'py>(py: Python<'py>, number: Decimal) -> PyResult<Bound<'py, PyAny>> {
    let mut text = StackText { bytes: [0; MAX_TEXT_BYTES], length: 0 };
    use std::fmt::Write as _;
    let text = match write!(text, "{number}") {
        Ok(()) => PyString::new(py, text.as_str()),
        Err(_) => PyString::new(py, &number.to_string()),
    };
    Types::get(py)?.decimal.bind(py).call1((text,))
}

/// Text on the stack: the canonical text of a Decimal fits.
struct StackText {
    bytes: [u8; MAX_TEXT_BYTES],
    length: usize,
}

impl StackText {
    fn as_str(&self) -> &str {
        self.bytes.get(..self.length).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl std::fmt::Write for StackText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// Reads the field at `offset` of an object.
///
/// # Safety
/// The object must reach at least to `offset + size_of::<T>()`, and any bits there must be a `T`.
#[inline]
unsafe fn field<T>(object: *const c_void, offset: usize) -> T {
    // SAFETY: inside the object, by the caller's promise.
    unsafe { object.cast::<u8>().add(offset).cast::<T>().read_unaligned() }
}

/// Reads a `Decimal` whose layout is the one above.
///
/// # Safety
/// `value` must be a `Decimal` of libmpdec with that layout.
#[inline]
unsafe fn read_layout(value: &Bound<'_, PyAny>) -> Result<Decimal, DecimalError> {
    let object = value.as_ptr().cast_const().cast::<c_void>();
    // SAFETY: all offsets are inside the object's SIZE bytes; these fields are plain integers and a pointer.
    let (flags, exponent, digits, length, data) = unsafe {
        (
            field::<u8>(object, FLAGS),
            field::<i64>(object, EXPONENT),
            field::<i64>(object, DIGITS),
            field::<i64>(object, LENGTH),
            field::<*const u64>(object, DATA),
        )
    };
    if flags & SPECIAL != 0 {
        return Err(DecimalError::NotFinite);
    }
    if digits > 38 || length > 2 {
        return Err(DecimalError::TooManyDigits);
    }
    let exponent = i16::try_from(exponent).map_err(|_| DecimalError::ExponentOutOfRange)?;
    // SAFETY: libmpdec keeps `length` (1 or 2 here) initialised words at `data`.
    let (low, high) = unsafe { (data.read(), if length > 1 { data.add(1).read() } else { 0 }) };
    Decimal::new(flags & NEGATIVE != 0, u128::from(high) * RADIX + u128::from(low), exponent)
}

/// Whether `Decimal` has the layout that is read here: checked on numbers whose text is known.
pub fn layout_is_known(class: &Bound<'_, PyType>) -> bool {
    let size = class.getattr("__basicsize__").and_then(|size| size.extract::<usize>());
    if cfg!(not(all(target_pointer_width = "64", target_endian = "little"))) || size.ok() != Some(SIZE) {
        return false;
    }
    let samples =
        ["0", "-0", "1.10", "-123456789012345678901234567890.12345678", "1E+5", "9999999999999999999"];
    samples.iter().all(|text| {
        let Ok(number) = class.call1((*text,)) else { return false };
        let object = number.as_ptr().cast_const().cast::<c_void>();
        // SAFETY: the object has SIZE bytes; the pointer is only compared before it is followed, and it is followed
        // only when it points at the words inside the object itself.
        let inside = unsafe { field::<usize>(object, DATA) } == object as usize + WORDS;
        // SAFETY: the words are inside the object; flags, exponent and lengths are plain integers.
        inside && Decimal::parse_bytes(text.as_bytes()).ok() == unsafe { read_layout(&number) }.ok()
    })
}
