//! The characters of a `str`, and a `str` of characters. They are read from the layout of compact ASCII where a self-test
//! at import knows it, else through `PyUnicode_AsUTF8AndSize`.
//!
//! ```text
//! PyASCIIObject (64-bit): head 16 | length i64 | hash 8 | state u32: bit 5 compact, bit 6 ASCII | … | characters, a zero
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyType};

const LENGTH: usize = 16;
const STATE: usize = 32;
const COMPACT_ASCII: u32 = 1 << 5 | 1 << 6;

/// Where the characters of compact ASCII stand in the object; 0 = the layout is another one.
static CHARACTERS: AtomicUsize = AtomicUsize::new(0);

/// The UTF-8 of a `str` or a subclass of it; `None` for one with a lone surrogate.
#[inline]
pub fn utf8<'a>(text: &'a Bound<'_, PyAny>) -> Option<&'a str> {
    let characters = CHARACTERS.load(Ordering::Relaxed);
    if characters != 0 {
        // SAFETY: the self-test found this layout for every `str`.
        if let Some(ascii) = unsafe { compact_ascii(text, characters) } {
            return Some(ascii);
        }
    }
    any_utf8(text)
}

/// The characters of compact ASCII; `None` for any other text.
///
/// # Safety
/// `text` is a `str` of the layout above with its characters at this offset.
#[inline]
unsafe fn compact_ascii<'a>(text: &'a Bound<'_, PyAny>, characters: usize) -> Option<&'a str> {
    let (claims, length) = front(text);
    if !claims {
        return None;
    }
    // SAFETY: behind length and state of compact ASCII there are `length` characters, which live as long as the object
    // and never change.
    unsafe {
        let first = text.as_ptr().cast::<u8>().cast_const().add(characters);
        Some(std::str::from_utf8_unchecked(std::slice::from_raw_parts(first, length)))
    }
}

fn any_utf8<'a>(text: &'a Bound<'_, PyAny>) -> Option<&'a str> {
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

/// Builds a `str` of UTF-8.
#[inline]
pub fn build_text<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: a pointer and length of live bytes; the call checks them as UTF-8 and returns null on failure.
    unsafe {
        let text =
            ffi::PyUnicode_DecodeUTF8(bytes.as_ptr().cast(), bytes.len().cast_signed(), std::ptr::null());
        Bound::from_owned_ptr_or_err(py, text)
    }
}

/// Whether an object claims to be compact ASCII, and its length, by the layout above.
#[inline]
fn front(text: &Bound<'_, PyAny>) -> (bool, usize) {
    let object = text.as_ptr().cast::<u8>().cast_const();
    // SAFETY: every `str` of a 64-bit CPython reaches beyond these places, and any bits there are numbers.
    let (state, length) =
        unsafe { (object.add(STATE).cast::<u32>().read(), object.add(LENGTH).cast::<usize>().read()) };
    (state & COMPACT_ASCII == COMPACT_ASCII, length)
}

/// Looks whether `str` has the layout that is read here: texts of every width, and a subclass, must show what they are.
pub fn learn_layout(py: Python<'_>) -> PyResult<()> {
    if cfg!(not(all(target_pointer_width = "64", target_endian = "little"))) {
        return Ok(());
    }
    let size = |text: &Bound<'_, PyAny>| -> PyResult<usize> { text.call_method0("__sizeof__")?.extract() };
    // The characters are followed by a zero.
    let characters = size(PyString::new(py, "").as_any())?.saturating_sub(1);
    let widest = py.get_type::<PyString>().getattr("__basicsize__")?.extract::<usize>()?;
    if !(STATE + size_of::<u32>()..=widest).contains(&characters) {
        return Ok(());
    }
    let subclass = PyTuple::new(py, [py.get_type::<PyString>()])?;
    let subclass = py.get_type::<PyType>().call1(("Text", subclass, pyo3::types::PyDict::new(py)))?;
    let samples = ["", "a", "0123456789abcdef", "\u{7f}", "\u{80}", "caf\u{e9}", "\u{20ac}", "\u{1f600}"];
    for sample in samples {
        let text = PyString::new(py, sample).into_any();
        let (claims, length) = front(&text);
        let sized = !sample.is_ascii() || size(&text)? == characters + sample.len() + 1;
        if claims != sample.is_ascii() || length != sample.chars().count() || !sized {
            return Ok(());
        }
        // SAFETY: what claims to be compact ASCII has as many characters and bytes as the sample.
        let read = unsafe { compact_ascii(&text, characters) };
        if read != sample.is_ascii().then_some(sample) || front(&subclass.call1((&text,))?).0 {
            return Ok(());
        }
    }
    CHARACTERS.store(characters, Ordering::Relaxed);
    Ok(())
}
