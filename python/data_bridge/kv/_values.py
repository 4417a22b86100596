"""Values and results that are no builtins: what is missing, tagged and opaque values, versions, transitions, events."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple, TypeAlias, final
from uuid import UUID


@final
class MissingType(enum.Enum):
    """Type of `MISSING`."""

    MISSING = "MISSING"

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "kv.MISSING"


MISSING: Final = MissingType.MISSING
"""No such key, where None could be a value."""


@dataclass(frozen=True, slots=True)
class Tagged:
    """A value under a name, as it comes back where no codec of that name is registered."""

    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class Opaque:
    """Bytes of a named codec, as they come back where the store was opened without that fallback codec."""

    codec: str
    data: bytes


class Versioned(NamedTuple):
    """A value and the version of its key. `value` is `MISSING` where the key was deleted."""

    value: Any
    version: int


class Transition(NamedTuple):
    """The state before a transition (`MISSING` where there was none) and the version after it."""

    previous: Any
    version: int


class Event(NamedTuple):
    """A change that a watch saw: `set`, `delete`, `expire`, `evict`, or `lost` when it could not keep up."""

    change: str
    key: str
    version: int


@dataclass(frozen=True, slots=True)
class newer_than:  # noqa: N801 - reads as a function in `wait(key, until=newer_than(version))`
    """Ends a wait as soon as the key's version is greater, or the key that had it is gone; 0 waits for any value."""

    version: int


Member: TypeAlias = (
    bool
    | int
    | float
    | Decimal
    | str
    | bytes
    | datetime
    | date
    | time
    | timedelta
    | UUID
    | tuple[Any, ...]
    | frozenset[Any]
    | None
)
"""What can be a set member or a hash field."""

Value: TypeAlias = Any
"""What can be stored: members, and lists, sets and dicts of values, nested up to 32 deep; `Tagged`, `Opaque`, and
objects of registered classes."""
