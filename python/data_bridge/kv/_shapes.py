"""Small functions that the methods of a store share: arguments from options, results from replies. No I/O."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

from data_bridge._native import opcode as op
from data_bridge._native import ttl_ms
from data_bridge.kv._values import MISSING, Transition, Versioned, newer_than

Args = tuple[Any, ...]
LONGEST_TIMEOUT = 1e11
"""Seconds that a wait may take; None is for ever."""


def code(opcode: int, durable: bool) -> int:
    """The number of a command; one that is durable is answered when it is on disk."""
    return opcode | op.DURABLY if durable else opcode


def nothing(_reply: Any) -> None:
    """A method that only succeeds or raises."""


def bools(reply: Iterable[Any]) -> list[bool]:
    """Yes or no for each."""
    return [bool(item) for item in reply]


def pair_list(reply: Any) -> list[tuple[Any, Any]]:
    """Pairs, however the reply holds them."""
    if isinstance(reply, dict):
        return list(reply.items())
    if reply and not isinstance(reply[0], tuple):
        if isinstance(reply[0], list):
            return [(first, second) for first, second in reply]
        return list(zip(reply[::2], reply[1::2], strict=True))
    return list(reply)


def present(keys: Args) -> Callable[[Any], dict[str, Any]]:
    """The keys that were there, with their values."""

    def shape(values: Iterable[Any]) -> dict[str, Any]:
        found = zip(keys, values, strict=True)
        return {key: value for key, value in found if value is not MISSING}

    return shape


def seconds_left(key: str) -> Callable[[int], float | None]:
    """Redis's milliseconds left as ours."""

    def shape(ms: int) -> float | None:
        if ms == -2:
            raise KeyError(key)
        return None if ms == -1 else ms / 1000

    return shape


def found(key: Any) -> Callable[[Any], Any]:
    """The value, or `KeyError`."""

    def shape(value: Any) -> Any:
        if value is MISSING:
            raise KeyError(key)
        return value

    return shape


def versioned(reply: Any) -> Versioned:
    """A value with its version."""
    return Versioned(MISSING, 0) if reply is MISSING else Versioned(*reply)


def transitioned(reply: Any) -> Transition:
    """The previous state and the new version."""
    return Transition(*reply)


def listed(first: Any, rest: Args) -> Args:
    """redis-py's `keys, *args`: one name, several, or a list of them."""
    if isinstance(first, (list, set, frozenset, Mapping)) or (
        not isinstance(first, (str, bytes, tuple)) and isinstance(first, Iterable)
    ):
        return (*first, *rest)
    if isinstance(first, tuple) and not rest:
        return first
    return (first, *rest)


def pairs(mapping: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> Args:
    """Keys and values, flat."""
    items = mapping.items() if isinstance(mapping, Mapping) else mapping
    return tuple(part for pair in items for part in pair)


def merged(other: Any, more: Mapping[str, Any]) -> dict[Any, Any]:
    """What `update` is given as a dict; a store or a view is read by its items, not key by key."""
    return {**dict(other.items() if isinstance(other, Mapping) else other), **more}


def pairs_after(first: Any, mapping: Mapping[Any, Any]) -> Args:
    """One argument, then keys and values."""
    return (first, *pairs(mapping))


def scores(mapping: Mapping[Any, Any]) -> Args:
    """Scores before their members, flat."""
    return tuple(part for member, score in mapping.items() for part in (score, member))


def flags(**given: bool) -> Args:
    """The words whose value is true. INCREMENT stands for the option that has a command's name."""
    return tuple(_WORDS.get(word, word) for word, value in given.items() if value)


_WORDS = {"INCREMENT": "Incr"}


def limit(offset: int | None, num: int | None) -> Args:
    """The part of a range that is wanted."""
    if (offset is None) != (num is None):
        raise TypeError("offset (start) and num go together")
    return () if offset is None else ("LIMIT", offset, num)


def combination(
    keys: Iterable[str] | Mapping[str, Any], aggregate: str | None, withscores: bool = False
) -> Args:
    """Sets that are combined; a mapping gives their weights."""
    names = several(keys)
    args: Args = (len(names), *names)
    if isinstance(keys, Mapping):
        args += ("WEIGHTS", *keys.values())
    if aggregate is not None:
        args += ("AGGREGATE", aggregate)
    return (*args, *flags(WITHSCORES=withscores))


def leading(*given: Any) -> Args:
    """Optional arguments, each of which needs the one before."""
    count = sum(one is not None for one in given)
    if None in given[:count]:
        raise TypeError("start, end and mode need each other in this order")
    return given[:count]


def counted(name: str, count: int | None, word: str | None = None) -> Args:
    """A key with an optional count; the word needs one."""
    if count is None:
        return (name,) if word is None else (name, 1, word)
    return (name, count) if word is None else (name, count, word)


def fields(key: Any, value: Any, mapping: Mapping[Any, Any] | None, items: Iterable[Any] | None) -> Args:
    """redis-py's three ways to give fields of a hash."""
    given = () if key is None and value is None else (key, value)
    if mapping:
        given += pairs(mapping)
    if items:
        given += tuple(items)
    if not given:
        raise TypeError("hset needs a field and value, a mapping or items")
    return given


def expiry(ttl: float | timedelta | None) -> Args:
    """A TTL as an option."""
    return () if ttl is None else ("PX", ttl_ms(ttl))


def expected(value: Any) -> Args:
    """What a conditional write expects."""
    return ("MISSING",) if value is MISSING else ("VALUE", value)


def increment(
    initial: Any, minimum: Any, maximum: Any, ttl: float | timedelta | None, refresh_ttl: bool, convert: bool
) -> Args:
    """The options of an addition."""
    bounds = (("INITIAL", initial), ("MIN", minimum), ("MAX", maximum))
    given = tuple(part for bound in bounds if bound[1] is not None for part in bound)
    return (*given, *expiry(ttl), *flags(REFRESH=refresh_ttl, CONVERT=convert))


def states(given: Any) -> tuple[bool, list[Any]]:
    """Whether a missing state is among the given ones, and the others. A set, list or frozenset is several."""
    several = list(given) if isinstance(given, (set, frozenset, list)) else [given]
    rest = [state for state in several if state is not MISSING]
    return len(rest) < len(several), rest


def transition(
    key: str,
    field: Any,
    expect: Any,
    to: Any,
    update: Mapping[Any, Any] | None,
    ttl: float | timedelta | None,
    fence: int | None,
) -> Args:
    """The arguments of a transition."""
    or_missing, several = states(expect)
    args: Args = (key, field, "TO", to)
    if or_missing:
        args += ("MISSING",)
    if several:
        args += ("FROM", len(several), *several)
    if update:
        args += ("UPDATE", len(update), *pairs(update))
    if fence is not None:
        args += ("FENCE", fence)
    return args + expiry(ttl)


def several(keys: Iterable[str]) -> tuple[str, ...]:
    """Several keys, which one text is not: its characters would be asked for."""
    if isinstance(keys, str):
        raise TypeError("keys must be an iterable of str, not one str")
    return tuple(keys)


def timeout_ms(timeout: float | timedelta) -> int:
    """Milliseconds of a timeout, rounded up, so that what is left of one is never an error; 0 only looks."""
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"a timeout must be seconds (int, float) or a timedelta, not {timeout!r}")
    if not 0 <= seconds <= LONGEST_TIMEOUT:
        raise ValueError(f"a timeout must not be negative, and must be a finite time, not {timeout!r}")
    return max(math.ceil(round(seconds * 1e6) / 1e3), 1) if seconds else 0


def wait(key: str, until: Any, field: Any, timeout: float | timedelta | None) -> Args:
    """The arguments of a wait."""
    args: Args = (key,) if timeout is None else (key, "TIMEOUT", timeout_ms(timeout))
    if until is None:
        if field is not None:
            raise TypeError("a field needs `until`: the states to wait for")
        return args
    if isinstance(until, newer_than):
        return (*args, "NEWER", until.version)
    if callable(until):
        raise TypeError("until is a value, a set of states or kv.newer_than(version), not a function")
    or_missing, several = states(until)
    if or_missing:
        raise TypeError("until can't be MISSING; watch the key instead")
    if not several:
        raise ValueError("until is an empty set: there is no state to wait for")
    if field is not None:
        args += ("FIELD", field)
    return (*args, "STATES", len(several), *several)


def checked_prefix(prefix: str) -> str:
    """A prefix; what is no str is refused, since None would mean every key."""
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be str, not {type(prefix).__name__}")
    return prefix


def scan(prefix: str, kind: str | None, count: int) -> Args:
    """The options of a scan."""
    args: Args = ("COUNT", count)
    if checked_prefix(prefix):
        args += ("PREFIX", prefix)
    return args if kind is None else (*args, "KIND", kind)


def watch(key: str | None, prefix: str | None, from_version: int) -> Args:
    """The arguments of a watch."""
    if (key is None) == (prefix is None):
        raise TypeError("watch a key or a prefix")
    if from_version and key is None:
        raise TypeError("from_version is that of a key: the keys with a prefix have none together")
    args: Args = ("PREFIX", prefix) if key is None else ("KEY", key)
    return (*args, "FROM", from_version) if from_version else args


def score(member: Any, taken: list[Any], default: Any) -> Any:
    """The score in the results of ZSCORE and ZREM; `default` where it was no member, or `KeyError`."""
    found = default if taken[0] is None else taken[0]
    if found is MISSING:
        raise KeyError(member)
    return found


def position(index: Any) -> int:
    """An index of a list, or `IndexError` where none can be that large."""
    number = operator.index(index)
    if not -(1 << 63) <= number < 1 << 63:
        raise IndexError("list index out of range")
    return number


def element(value: Any) -> Any:
    """An element of a list, or `IndexError`."""
    if value is MISSING:
        raise IndexError("list index out of range")
    return value
