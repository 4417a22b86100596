//! `Embedded.set` as CPython calls it fastest. PyO3's conventions build a tuple and a dict for a method that takes any
//! keyword, as `set` does to name redis-py's options in its error; that costs more than the write. So the calls that
//! matter, `set(key, value)` and `set(key, value, ttl=…)`, are taken here from the caller's stack, and every other
//! call goes to the method that PyO3 made.

use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};

use data_bridge_kv_model::command::Expiry;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

use super::store::Embedded;
use super::{convert, doorway};

/// The method of PyO3, and the name of the option.
struct Whole {
    set: Py<PyAny>,
    ttl: Py<PyString>,
}

static WHOLE: PyOnceLock<Whole> = PyOnceLock::new();

/// Puts the method in the place of PyO3's, with its signature and documentation.
pub fn install(py: Python<'_>) -> PyResult<()> {
    let class = py.get_type::<Embedded>();
    let set = class.getattr("set")?;
    let signature: String = set.getattr("__text_signature__")?.extract()?;
    let doc: String = set.getattr("__doc__")?.extract()?;
    let doc = CString::new(format!("set{signature}\n--\n\n{doc}"))?;
    let whole = Whole { set: set.unbind(), ttl: PyString::intern(py, "ttl").unbind() };
    if WHOLE.set(py, whole).is_err() {
        return Ok(());
    }
    let method = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: c"set".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: set_fast },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: doc.into_raw(),
    }));
    // SAFETY: the class is ready, and the definition and its texts live for ever. The call returns a new reference or
    // null with an exception set.
    let method =
        unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewMethod(class.as_type_ptr(), method))? };
    class.setattr("set", method)
}

/// # Safety
/// For CPython to call, by its rules of METH_FASTCALL and METH_KEYWORDS.
unsafe extern "C" fn set_fast(
    store: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls with the interpreter lock held, and the token does not leave this call.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the references are the caller's, and live during the call.
    let result = catch_unwind(AssertUnwindSafe(|| unsafe { set(py, store, args, count, names) }));
    match result {
        Ok(Ok(result)) => result.into_ptr(),
        Ok(Err(error)) => raise(error),
        Err(_) => raise(PyRuntimeError::new_err("the store panicked: this is a bug")),
    }
}

/// PyO3 was not told that this call holds the interpreter lock, so what an error let go of waits for the next call that
/// tells it: this one does.
#[cold]
fn raise(error: PyErr) -> *mut ffi::PyObject {
    doorway::attached(|py| error.restore(py));
    std::ptr::null_mut()
}

/// # Safety
/// As for [`set_fast`]: `store` and `args` are live objects, `names` is null or a tuple of the names of the last ones.
#[inline]
unsafe fn set<'py>(
    py: Python<'py>,
    store: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> PyResult<Bound<'py, PyAny>> {
    let Some(whole) = WHOLE.get(py) else {
        return Err(PyRuntimeError::new_err("the module is not initialised"));
    };
    // SAFETY: `store` is an instance of the class or a subclass: the descriptor that leads here checks it. There are
    // `count` arguments, and one more for each of `names`, which is a tuple.
    unsafe {
        let arg = |index: usize| Borrowed::from_ptr(py, *args.add(index));
        let expiry = if count != 2 {
            None
        } else if names.is_null() {
            Some(Expiry::Default)
        } else if ffi::PyTuple_GET_SIZE(names) == 1
            && ffi::PyTuple_GET_ITEM(names, 0) == whole.ttl.as_ptr()
            && !arg(2).is_none()
        {
            Some(Expiry::In(convert::ttl_ms(&arg(2))?.unsigned_abs()))
        } else {
            None
        };
        if let Some(expiry) = expiry {
            let store = Borrowed::from_ptr(py, store);
            let store = store.cast_unchecked::<Embedded>();
            store.get().door().write(py, &arg(0), &arg(1), expiry)?;
            return Ok(py.None().into_bound(py));
        }
        // The method of PyO3 takes the store as its first argument.
        let given = count.unsigned_abs();
        let named = if names.is_null() { 0 } else { ffi::PyTuple_GET_SIZE(names).unsigned_abs() };
        let mut all = Vec::with_capacity(1 + given + named);
        all.push(store);
        all.extend((0..given + named).map(|index| *args.add(index)));
        let result = ffi::PyObject_Vectorcall(whole.set.as_ptr(), all.as_ptr(), given + 1, names);
        Bound::from_owned_ptr_or_err(py, result)
    }
}
