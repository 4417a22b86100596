"""What a synchronous store is beside its commands: a mapping of names to values, with views, scans, pipelines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from collections.abc import ItemsView as BaseItemsView
from collections.abc import KeysView as BaseKeysView
from collections.abc import ValuesView as BaseValuesView
from datetime import timedelta
from typing import Any, NoReturn, Self

from data_bridge._native import opcode as op
from data_bridge._native import ttl_ms
from data_bridge.kv import _shapes as shapes
from data_bridge.kv._pipeline import Pipeline
from data_bridge.kv._sync import Commands
from data_bridge.kv._values import MISSING, Value, Versioned
from data_bridge.kv._views import HashView, ListView, SetView, SortedSetView
from data_bridge.kv._watch import Watch
from data_bridge.kv.errors import KvError

SCAN_COUNT = 1000
"""Keys that one step of a scan looks at."""
WRITTEN_AT_ONCE = 1000
"""Keys that `set_many` writes between two calls of `progress`."""


class KeysView(BaseKeysView[str]):
    """The names of a store, walked by cursor."""

    _mapping: StoreMethods

    def __iter__(self) -> Iterator[str]:
        return self._mapping.scan()


class ItemsView(BaseItemsView[str, Any]):
    """Names and values, walked by cursor."""

    _mapping: StoreMethods

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self._mapping._scan_items("", None)


class ValuesView(BaseValuesView[Any]):
    """Values, walked by cursor."""

    _mapping: StoreMethods

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._mapping._scan_items("", None))

    def __contains__(self, value: object) -> bool:
        return any(found is value or found == value for found in self)


class StoreMethods(Commands, MutableMapping[str, Any]):
    """A store as a mapping. Every read is a copy: to change a stored list or dict use a view, or write it again."""

    __slots__ = ()

    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType] - a mapping is unhashable, a store is not

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: object
    ) -> None:
        try:
            self.close()
        except KvError as failed:
            # Native code does not tell what was under way.
            failed.__context__ = exc
            raise

    def close(self) -> None:
        """Ends the store or client; later calls raise `ClosedError`."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[str]:
        return self.scan()

    def keys(self) -> KeysView:
        """The names; iterating is a scan that tolerates changes."""
        return KeysView(self)

    def items(self) -> ItemsView:
        """Names and values; iterating is a scan that tolerates changes."""
        return ItemsView(self)

    def values(self) -> ValuesView:
        """The values; iterating is a scan that tolerates changes."""
        return ValuesView(self)

    def pop(self, key: str, default: Any = MISSING, /, *, durable: bool = False) -> Any:
        """Reads and deletes in one step. A missing key is `default`, or a `KeyError` without one."""
        if default is MISSING:
            return self._call(shapes.code(op.KV_POP, durable), (key,), MISSING, shapes.found(key))
        return self._call(shapes.code(op.KV_POP, durable), (key,), default)

    def setdefault(self, key: str, default: Value = None, /) -> Any:
        """The value of a key, set to `default` first where there is none, in one step."""
        found = self.set(key, default, nx=True, return_old=True)
        return default if found is MISSING else found

    def update(self, other: Any = (), /, **more: Value) -> None:
        """Writes several values in one step."""
        self.set_many(shapes.merged(other, more))

    def popitem(self) -> NoReturn:
        """A store has no order, so there is no last item."""
        raise TypeError("popitem() is not supported: a store has no last item")

    def set_many(
        self,
        mapping: Mapping[str, Value],
        ttl: float | timedelta | None = None,
        progress: Callable[[int, int], object] | None = None,
        *,
        durable: bool = False,
    ) -> None:
        """Writes several values in one step. With `progress` a thousand at a time, then it is told (done, total)."""
        first = 0 if ttl is None else ttl_ms(ttl)
        items = list(mapping.items())
        step = len(items) if progress is None else WRITTEN_AT_ONCE
        for start in range(0, len(items), step or 1):
            part = items[start : start + step]
            self._call(shapes.code(op.KV_MSET, durable), (first, *(value for pair in part for value in pair)))
            if progress is not None:
                progress(start + len(part), len(items))

    def scan(self, prefix: str = "", kind: str | None = None) -> Iterator[str]:
        """Walks over the names with a prefix and of a kind. Keys that stay are seen; others may be, once or twice."""
        for page in self._pages(prefix, kind, ()):
            yield from page

    def _scan_items(self, prefix: str, kind: str | None) -> Iterator[tuple[str, Any]]:
        for page in self._pages(prefix, kind, ("VALUES",)):
            yield from page.items()

    def _pages(self, prefix: str, kind: str | None, words: tuple[str, ...]) -> Iterator[Any]:
        cursor: Any = "0"
        options = shapes.scan(prefix, kind, SCAN_COUNT)
        while True:
            cursor, page = self._call(op.SCAN, (cursor, *options, *words))
            yield page
            if cursor == "0":
                return

    def wait(
        self, key: str, *, until: Any = None, field: Any = None, timeout: float | timedelta | None = None
    ) -> Versioned:
        """Waits until the value (or `field` of a hash) is `until`: a value, a set of them, or `kv.newer_than(version)`.

        Without `until` it waits for the next change. `TimeoutError` after `timeout` seconds. The engine wakes the
        waiter, nothing is polled.
        """
        args = shapes.wait(key, until, field, timeout)
        return self._wait(op.KV_WAIT, args, MISSING, shapes.versioned)

    def watch(self, key: str | None = None, *, prefix: str | None = None, from_version: int = 0) -> Watch:
        """An iterator of the changes of a key, or of all keys with a prefix, from now on.

        With `from_version` a key that is newer already, or gone, is told at once (from 1, which no key has, one that is
        there). An event `lost` says that changes were missed.
        """
        return Watch(self._watch(shapes.watch(key, prefix, from_version)))

    def pipeline(self, atomic: bool = False) -> Pipeline:
        """Commands sent together: one round trip; with `atomic` one step, all or nothing."""
        return Pipeline(self, atomic)

    def as_hash(self, key: str) -> HashView:
        """The hash at a key as a mutable mapping: each change is written."""
        return HashView(self, key)

    def as_list(self, key: str) -> ListView:
        """The list at a key as a mutable sequence."""
        return ListView(self, key)

    def as_set(self, key: str) -> SetView:
        """The set at a key as a mutable set."""
        return SetView(self, key)

    def as_zset(self, key: str) -> SortedSetView:
        """The sorted set at a key as a mapping of members to scores, in order of score."""
        return SortedSetView(self, key)

    def items_typed(self, key: str) -> list[tuple[Any, ...]]:
        """The members of a set as (kind, member), the fields of a hash as (kind, field, value).

        For collections that another client filled with members which are equal in Python: 1, True and 1.0.
        """
        return self._call(op.KV_GET, (key,), [], ...)

    def set(
        self,
        key: str,
        value: Value,
        *,
        ttl: float | timedelta | None = None,
        nx: bool = False,
        xx: bool = False,
        keep_ttl: bool = False,
        return_old: bool = False,
        durable: bool = False,
    ) -> Any:
        """Writes a value; the native class does it."""
        raise NotImplementedError

    def _wait(self, opcode: int, args: tuple[Any, ...], missing: Any = None, shape: Any = None) -> Any:
        raise NotImplementedError

    def _watch(self, args: tuple[Any, ...]) -> Any:
        raise NotImplementedError

    def _run(self, queue: Any, atomic: bool) -> list[Any]:
        raise NotImplementedError

    @property
    def _fallback(self) -> Any:
        raise NotImplementedError
