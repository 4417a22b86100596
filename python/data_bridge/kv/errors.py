"""Exceptions of `data_bridge.kv`: each also is the builtin one would expect, and survives pickling."""

from __future__ import annotations

import builtins
from typing import Any

from data_bridge.kv._values import MISSING


class KvError(Exception):
    """Base of every error of the store."""


class InvalidArgumentError(KvError, ValueError):
    """The call is malformed: fix it."""


class InvalidKeyError(KvError, ValueError):
    """The key is empty, longer than 256 characters or not UTF-8."""


class UnavailableError(KvError, ValueError):
    """Not available in this version or configuration."""


class WrongTypeError(KvError, TypeError):
    """The key holds another kind of value: use the methods of that kind."""


class UnsupportedValueError(KvError, TypeError):
    """The value can't be stored, or not shown as one Python object: convert it first."""


class OutOfRangeError(KvError, OverflowError):
    """A number, bound or size is out of range; nothing was changed."""


class NotFoundError(KvError, LookupError):
    """The key or element does not exist and the method needs it."""


class ConflictError(KvError):
    """The expected value, state or version was not there: read again and decide anew.

    `current` is what was found (`MISSING` where nothing was), `version` the version of the key (0 where there is none).
    """

    def __init__(self, message: str = "", current: Any = MISSING, version: int = 0) -> None:
        super().__init__(message, current, version)
        self.message, self.current, self.version = message, current, version

    def __str__(self) -> str:
        return (
            f"{self.message} (found {self.current!r}, version {self.version})"
            if self.version
            else self.message
        )


class StateError(KvError):
    """The namespace's transition graph forbids this step."""

    def __init__(self, message: str = "", current: Any = MISSING, version: int = 0) -> None:
        super().__init__(message, current, version)
        self.message, self.current, self.version = message, current, version

    def __str__(self) -> str:
        return self.message


class OutOfMemoryError(KvError, MemoryError):
    """The memory budget is full and nothing may be evicted: free space or raise the budget."""


class ReadOnlyError(KvError):
    """Writes are refused for now (full disk): free space, then retry."""


class DurabilityError(KvError):
    """The log failed; the outcome of the write is unknown and the server must be restarted."""


class CorruptionError(KvError):
    """Stored bytes are damaged: restore this key from a backup."""


class AuthError(KvError):
    """Not authenticated, or not allowed."""


class LimitError(KvError, ValueError):
    """A limit was reached: send less at once."""


class TimeoutError(KvError, builtins.TimeoutError):  # noqa: A001 - the name of its builtin
    """The wait, the operation or the connection attempt took too long."""


class ClosedError(KvError):
    """The store or client is closed."""


class ForkedError(KvError):
    """This store was opened before a fork: open one in the child, or connect to a server."""


class LockedError(KvError):
    """The data directory belongs to another process; connect to that one."""


class ConnectionError(KvError, builtins.ConnectionError):  # noqa: A001 - the name of its builtin
    """The server can't be reached, or the connection broke before the request was sent."""


class OutcomeUnknownError(ConnectionError):
    """The connection broke after a request was sent that must not be repeated: it may have been carried out."""
