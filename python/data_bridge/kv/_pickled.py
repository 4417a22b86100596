"""Pickle as the codec of last resort, for adapters of frameworks whose contract is "any object that can be pickled"."""

from __future__ import annotations

import pickle
from typing import Any

from data_bridge import _native as native
from data_bridge.kv._values import Opaque
from data_bridge.kv.errors import InvalidArgumentError, OutOfRangeError, UnsupportedValueError

UNFIT = (UnsupportedValueError, InvalidArgumentError, OutOfRangeError)
"""How a value is refused that the fallback is not even asked for: it has a part that no codec can stand for, as a NaN
Decimal, a field that is an object, or itself."""


class PickleFallback:
    """Stores what nothing else takes as pickle's bytes, for `fallback=`.

    Reading runs what the bytes say: whoever may write to the store can run code in the process that reads. Values
    that the store has a kind for are not pickled.

    >>> from data_bridge import kv
    >>> store = kv.open(fallback=kv.PickleFallback())
    >>> store["range"] = range(3)
    >>> store["range"], store.kind("range")
    (range(0, 3), 'opaque')
    """

    name = "pickle"

    def encode(self, value: Any, /) -> bytes:
        """The bytes of an object."""
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def decode(self, data: bytes, /) -> Any:
        """The object of bytes."""
        return pickle.loads(data)

    def __repr__(self) -> str:
        return "kv.PickleFallback()"


PICKLE = PickleFallback()
"""The one that adapters use unless told otherwise: places with equal options are shared."""


def fitting(value: Any, fallback: Any) -> Any:
    """The value, or the whole of it pickled where the store and the fallback have no place for a part."""
    try:
        native.encode(value, fallback)
    except UNFIT:
        if not isinstance(fallback, PickleFallback):
            raise
        return Opaque(fallback.name, fallback.encode(value))
    return value
