//! Short texts that come back again and again: the fields of hashes. A small direct-mapped table of `str` objects
//! saves their creation and hashing. It is touched only while the interpreter lock is held.

use std::cell::RefCell;

use pyo3::prelude::*;
use pyo3::types::PyString;

/// Slots of the table: a power of two.
const SLOTS: usize = 1024;
/// Longest text kept.
const LONGEST: usize = 32;

thread_local! {
    static TABLE: RefCell<Vec<Option<Py<PyString>>>> = const { RefCell::new(Vec::new()) };
}

/// The `str` of a field's name, from the table if it is there.
#[inline]
pub fn name<'py>(py: Python<'py>, text: &str) -> Bound<'py, PyString> {
    if text.len() > LONGEST {
        return PyString::new(py, text);
    }
    let slot = slot_of(text.as_bytes());
    let kept = TABLE.with_borrow(|table| {
        let kept = table.get(slot)?.as_ref()?.bind(py);
        (super::utf8(kept.as_any()) == Some(text)).then(|| kept.clone())
    });
    if let Some(kept) = kept {
        return kept;
    }
    let fresh = PyString::new(py, text);
    let replaced = TABLE.with_borrow_mut(|table| {
        if table.is_empty() {
            table.resize_with(SLOTS, || None);
        }
        table.get_mut(slot).and_then(|kept| kept.replace(fresh.clone().unbind()))
    });
    // Dropped outside the borrow: the end of an object may run any code.
    drop(replaced);
    fresh
}

#[inline]
fn slot_of(text: &[u8]) -> usize {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325 ^ text.len() as u64;
    for chunk in text.chunks(8) {
        let mut word = [0u8; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    (hash >> 40) as usize % SLOTS
}
