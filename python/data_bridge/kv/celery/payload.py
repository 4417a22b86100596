"""What Celery stores, as values, and trees of results without the depth of their parents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from data_bridge import _native as native
from data_bridge.kv._plain import plain
from data_bridge.kv.errors import InvalidArgumentError, LimitError, OutOfRangeError, UnsupportedValueError
from kombu.exceptions import EncodeError

UNSTORABLE = (UnsupportedValueError, InvalidArgumentError, OutOfRangeError, LimitError)

Levels: TypeAlias = list[tuple[str, Any]]
"""A result, its parent, the parent's parent …: the id and the members of each, None where it is no group."""


@contextmanager
def encoding() -> Iterator[None]:
    """A value that can't be stored is Celery's `EncodeError`: the task fails with it."""
    try:
        yield
    except UNSTORABLE as error:
        raise EncodeError(f"the result can't be stored: {error}") from error


def encoded(value: Any) -> bytes:
    """The bytes of a value."""
    with encoding():
        try:
            return native.encode(value)
        except UnsupportedValueError:
            return native.encode(plain(value))


def levels(result: Any) -> Levels:
    """Celery's nested tuple of a result as a list, so that a long chain of parents is not deep."""
    found: Levels = []
    while result is not None:
        (name, result), members = result
        found.append((name, None if members is None else [levels(member) for member in members]))
    return found


def nested(found: Levels) -> Any:
    """The tuple of a result again."""
    result: Any = None
    for name, members in reversed(found):
        result = ((name, result), None if members is None else [nested(member) for member in members])
    return result
