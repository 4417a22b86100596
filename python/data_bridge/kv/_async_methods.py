"""What an asynchronous store is beside its commands: scans, waits, watches, pipelines."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Self

from data_bridge._native import Queue, ttl_ms
from data_bridge._native import opcode as op
from data_bridge.kv import _shapes as shapes
from data_bridge.kv._async import AsyncCommands
from data_bridge.kv._async_views import AsyncHashView, AsyncListView, AsyncSetView, AsyncSortedSetView
from data_bridge.kv._methods import SCAN_COUNT, WRITTEN_AT_ONCE
from data_bridge.kv._pipeline import checked
from data_bridge.kv._queued import QueuedCommands
from data_bridge.kv._values import MISSING, Event, Value, Versioned
from data_bridge.kv.errors import ClosedError, KvError

MOST_EVENTS = 10_000
"""Events of a watch that are kept for a reader who is late."""


class AsyncWatch:
    """The changes of a key or prefix as an async iterator. Close it, or use it as an async context manager; one that
    nobody holds any more ends too."""

    __slots__ = ("__weakref__", "_end", "_ended", "_events", "_loop", "_start")

    def __init__(self, start: Callable[[AsyncWatch], Awaitable[Callable[[], object]]]) -> None:
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._start: Callable[[AsyncWatch], Awaitable[Callable[[], object]]] | None = start
        self._end: Callable[[], object] | None = None
        self._ended: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def receiver(self) -> Callable[[Any], None]:
        """What takes the events, without holding the watch: it ends when its user forgets it."""
        known = weakref.ref(self)

        def put(event: Any) -> None:
            watch = known()
            if watch is not None:
                watch._put(event)

        return put

    def _put(self, event: Any) -> None:
        if self._events.qsize() >= MOST_EVENTS:
            # Nobody reads them: they are dropped, and whoever comes back is told.
            self._events = asyncio.Queue()
            event = ("lost", "", 0)
        self._events.put_nowait(event)

    async def start(self) -> Self:
        """Starts it: changes from here on are seen. Entering the context manager and iterating do so too."""
        if self._start is not None:
            start, self._start = self._start, None
            self._loop = asyncio.get_running_loop()
            try:
                self._end = await start(self)
            except BaseException:
                self._start = start
                raise
        return self

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self._ended is None:
            await self.start()
        elif self._events.empty():
            raise self._ended
        event = await self._events.get()
        if isinstance(event, BaseException):
            self._ended = event
            # Whoever else waits for the next event is told too.
            self._events.put_nowait(event)
            raise event
        return Event(*event)

    async def next(self, timeout: float | timedelta | None = None) -> Event | None:
        """The next change, None when `timeout` seconds are over."""
        seconds = None if timeout is None else shapes.timeout_ms(timeout) / 1000
        if seconds == 0:
            await self.start()
            return None if self._events.empty() else await self.__anext__()
        try:
            return await asyncio.wait_for(self.__anext__(), seconds)
        except TimeoutError:
            return None

    def close(self) -> None:
        """Ends the watch; whoever waits for an event is told."""
        end, self._end = self._end, None
        if end is not None:
            end()
        if self._ended is None:
            self._ended = ClosedError("the watch is closed")
            self._put(self._ended)

    def __del__(self) -> None:
        # Any thread may collect it, only the loop's may end it.
        if self._end is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end)


class AsyncPipeline(Queue, QueuedCommands):
    """Commands of an asynchronous store, sent together by `execute` or at the end of an `async with` block."""

    __slots__ = ("_atomic", "_store", "results")

    _atomic: bool
    _store: AsyncMethods
    results: list[Any]

    def __new__(cls, store: AsyncMethods, atomic: bool = False) -> Self:
        """For a store; `atomic` makes one step of the commands."""
        self = super().__new__(cls, store._fallback)
        self._store, self._atomic, self.results = store, atomic, []
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Sends what is queued and returns the results in order; see the synchronous pipeline."""
        self.results = await self._store._run(self, self._atomic)
        return checked(self.results) if raise_on_error else self.results

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: object, trace: object) -> None:
        if exc_type is None:
            await self.execute()
        else:
            self.reset()


class AsyncMethods(AsyncCommands):
    """An asynchronous store. Every read is a copy."""

    __slots__ = ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: object
    ) -> None:
        try:
            await self.aclose()
        except KvError as failed:
            # Native code does not tell what was under way.
            failed.__context__ = exc
            raise

    async def aclose(self) -> None:
        """Ends the store or client; later calls raise `ClosedError`."""
        raise NotImplementedError

    def __aiter__(self) -> AsyncIterator[str]:
        return self.scan()

    def keys(self) -> AsyncIterator[str]:
        """The names, walked by cursor."""
        return self.scan()

    async def items(self) -> AsyncIterator[tuple[str, Any]]:
        """Names and values, walked by cursor."""
        async for page in self._pages("", None, ("VALUES",)):
            for item in page.items():
                yield item

    async def values(self) -> AsyncIterator[Any]:
        """The values, walked by cursor."""
        async for _, value in self.items():
            yield value

    def pop(self, key: str, default: Any = MISSING, /, *, durable: bool = False) -> Awaitable[Any]:
        """Reads and deletes in one step. A missing key is `default`, or a `KeyError` without one."""
        if default is MISSING:
            return self._call(shapes.code(op.KV_POP, durable), (key,), MISSING, shapes.found(key))
        return self._call(shapes.code(op.KV_POP, durable), (key,), default)

    async def setdefault(self, key: str, default: Value = None, /) -> Any:
        """The value of a key, set to `default` first where there is none, in one step."""
        found = await self.set(key, default, nx=True, return_old=True)
        return default if found is MISSING else found

    async def update(self, other: Any = (), /, **more: Value) -> None:
        """Writes several values in one step."""
        await self.set_many(shapes.merged(other, more))

    async def set_many(
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
            await self._call(
                shapes.code(op.KV_MSET, durable), (first, *(value for pair in part for value in pair))
            )
            if progress is not None:
                progress(start + len(part), len(items))

    async def scan(self, prefix: str = "", kind: str | None = None) -> AsyncIterator[str]:
        """Walks over the names with a prefix and of a kind. Keys that stay are seen; others may be, once or twice."""
        async for page in self._pages(prefix, kind, ()):
            for key in page:
                yield key

    async def _pages(self, prefix: str, kind: str | None, words: tuple[str, ...]) -> AsyncIterator[Any]:
        cursor: Any = "0"
        options = shapes.scan(prefix, kind, SCAN_COUNT)
        while True:
            cursor, page = await self._call(op.SCAN, (cursor, *options, *words))
            yield page
            if cursor == "0":
                return

    def wait(
        self, key: str, *, until: Any = None, field: Any = None, timeout: float | timedelta | None = None
    ) -> Awaitable[Versioned]:
        """Waits until the value (or `field` of a hash) is `until`: a value, a set of them, or `kv.newer_than(version)`.

        Without `until` it waits for the next change. `TimeoutError` after `timeout` seconds.
        """
        args = shapes.wait(key, until, field, timeout)
        return self._wait(op.KV_WAIT, args, MISSING, shapes.versioned)

    def watch(
        self, key: str | None = None, *, prefix: str | None = None, from_version: int = 0
    ) -> AsyncWatch:
        """An async iterator of the changes of a key, or of all keys with a prefix, from its start on."""
        args = shapes.watch(key, prefix, from_version)
        return AsyncWatch(lambda watch: self._start_watch(args, watch))

    def pipeline(self, atomic: bool = False) -> AsyncPipeline:
        """Commands sent together: one round trip; with `atomic` one step, all or nothing."""
        return AsyncPipeline(self, atomic)

    def as_hash(self, key: str) -> AsyncHashView:
        """The hash at a key, with the methods of a mapping, awaited."""
        return AsyncHashView(self, key)

    def as_list(self, key: str) -> AsyncListView:
        """The list at a key, with the methods of a sequence, awaited."""
        return AsyncListView(self, key)

    def as_set(self, key: str) -> AsyncSetView:
        """The set at a key, with the methods of a set, awaited."""
        return AsyncSetView(self, key)

    def as_zset(self, key: str) -> AsyncSortedSetView:
        """The sorted set at a key, with the methods of a mapping of members to scores, awaited."""
        return AsyncSortedSetView(self, key)

    def items_typed(self, key: str) -> Awaitable[list[tuple[Any, ...]]]:
        """The members of a set as (kind, member), the fields of a hash as (kind, field, value)."""
        return self._call(op.KV_GET, (key,), [], ...)

    def get(self, key: str, default: Any = None) -> Awaitable[Any]:
        """The value of a key, `default` where there is none."""
        raise NotImplementedError

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
    ) -> Awaitable[Any]:
        """Writes a value; the options are those of a synchronous store's `set`."""
        raise NotImplementedError

    def _wait(self, opcode: int, args: tuple[Any, ...], missing: Any = None, shape: Any = None) -> Any:
        raise NotImplementedError

    async def _start_watch(self, args: tuple[Any, ...], watch: AsyncWatch) -> Any:
        raise NotImplementedError

    def _run(self, queue: Any, atomic: bool) -> Any:
        raise NotImplementedError

    @property
    def _fallback(self) -> Any:
        raise NotImplementedError
