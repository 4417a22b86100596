"""A typed key-value store: embedded in this process, or a client of a server.

>>> from data_bridge import kv
>>> store = kv.open()
>>> store["greeting"] = "hello"
>>> store["greeting"]
'hello'
"""

import atexit as _atexit
import os as _os

from data_bridge import _native
from data_bridge.kv import aio as aio
from data_bridge.kv._cached import cached, invalidate_tags
from data_bridge.kv._codecs import Fallback, register
from data_bridge.kv._embedded import Store, open
from data_bridge.kv._lock import lock
from data_bridge.kv._near import near_cache
from data_bridge.kv._pickled import PickleFallback
from data_bridge.kv._rate import rate_limit
from data_bridge.kv._remote import Client, connect
from data_bridge.kv._semaphore import semaphore
from data_bridge.kv._values import (
    MISSING,
    Event,
    Member,
    Opaque,
    Tagged,
    Transition,
    Value,
    Versioned,
    newer_than,
)
from data_bridge.kv.errors import (
    AuthError,
    ClosedError,
    ConflictError,
    ConnectionError,
    CorruptionError,
    DurabilityError,
    ForkedError,
    InvalidArgumentError,
    InvalidKeyError,
    KvError,
    LimitError,
    LockedError,
    NotFoundError,
    OutcomeUnknownError,
    OutOfMemoryError,
    OutOfRangeError,
    ReadOnlyError,
    StateError,
    TimeoutError,
    UnavailableError,
    UnsupportedValueError,
    WrongTypeError,
)

_os.register_at_fork(after_in_child=_native.forked)
_atexit.register(_native.shut_down)

__all__ = [
    "MISSING",
    "AuthError",
    "Client",
    "ClosedError",
    "ConflictError",
    "ConnectionError",
    "CorruptionError",
    "DurabilityError",
    "Event",
    "Fallback",
    "ForkedError",
    "InvalidArgumentError",
    "InvalidKeyError",
    "KvError",
    "LimitError",
    "LockedError",
    "Member",
    "NotFoundError",
    "Opaque",
    "OutOfMemoryError",
    "OutOfRangeError",
    "OutcomeUnknownError",
    "PickleFallback",
    "ReadOnlyError",
    "StateError",
    "Store",
    "Tagged",
    "TimeoutError",
    "Transition",
    "UnavailableError",
    "UnsupportedValueError",
    "Value",
    "Versioned",
    "WrongTypeError",
    "cached",
    "connect",
    "invalidate_tags",
    "lock",
    "near_cache",
    "newer_than",
    "open",
    "rate_limit",
    "register",
    "semaphore",
]
