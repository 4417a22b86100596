"""Storages of limits: `import data_bridge.kv.limits`, then `storage_from_string("kv://127.0.0.1:7379/cache")`.

`async+kv://` is the asynchronous one; `kv+memory://` and `async+kv+memory://` are in this process. All strategies work:
a fixed window is one addition, a sliding window counter one with an upper bound, a moving window the times of its hits,
exchanged by version.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from math import floor
from operator import methodcaller
from typing import Any

from data_bridge.kv._shared import Shared, shared
from data_bridge.kv._steps import Steps, run, run_async
from data_bridge.kv._values import MISSING
from data_bridge.kv.errors import ConflictError, KvError, OutOfRangeError
from limits.aio import storage as aio
from limits.storage import MovingWindowSupport, SlidingWindowCounterSupport, Storage
from limits.storage.base import TimestampedSlidingWindow

windows = TimestampedSlidingWindow.sliding_window_keys


def opened(uri: str | None, options: dict[str, Any]) -> Shared:
    """The place that a storage's URL names."""
    url = (uri or "kv://").removeprefix("async+").removeprefix("kv+")
    return shared(None if url == "kv://" else url, options)


def moving(key: str) -> str:
    """Where the hits of a moving window are: beside the counter that another strategy has for the same limit."""
    return f"{key}/moving"


def taken_from_moving_window(key: str, limit: int, expiry: int, amount: int) -> Steps[bool]:
    """Whether the hits have room among those of the last `expiry` seconds, and then are among them."""
    key = moving(key)
    found = yield methodcaller("get_versioned", key)
    value, version = found.value, found.version
    while amount <= limit:
        now = time.time()
        hits = [] if value is MISSING else [hit for hit in value if hit > now - expiry]
        if len(hits) + amount > limit:
            return False
        try:
            yield methodcaller("set_if_version", key, [now] * amount + hits, version, ttl=expiry)
        except ConflictError as other:
            value, version = other.current, other.version
        else:
            return True
    return False


def moving_window(key: str, expiry: int) -> Steps[tuple[float, int]]:
    """When the first hit of the window was, and how many there are."""
    now = time.time()
    hits = [hit for hit in (yield methodcaller("get", moving(key), [])) if hit > now - expiry]
    return (hits[-1] if hits else now), len(hits)


def taken_from_sliding_window(key: str, limit: int, expiry: int, amount: int) -> Steps[bool]:
    """Whether the hits have room beside those of this window and the weighted ones of the window before."""
    now = time.time()
    before, seconds, _, _ = yield from sliding_window(key, expiry, now)
    current = windows(key, expiry, now)[1]
    room = limit - floor(before * seconds / expiry)
    try:
        yield methodcaller("incr", current, amount, maximum=room, ttl=2 * expiry)
    except OutOfRangeError:
        return False
    return True


def sliding_window(key: str, expiry: int, now: float) -> Steps[tuple[int, float, int, float]]:
    """Hits and seconds left of the window before and of this one."""
    previous, current = windows(key, expiry, now)
    found = yield methodcaller("get_many", (previous, current))
    before = found.get(previous, 0)
    left = expiry - now % expiry
    return before, left if before else 0.0, found.get(current, 0), left + expiry


def expiry_of(key: str) -> Steps[float]:
    """When a counter ends, in Unix time; now if there is none."""
    try:
        seconds = yield methodcaller("ttl", key)
    except KeyError:
        seconds = 0.0
    return time.time() + (seconds or 0.0)


def checked() -> Steps[bool]:
    """Whether the store answers."""
    try:
        yield methodcaller("exists", "check")
    except KvError:
        return False
    return True


class KVStorage(Storage, MovingWindowSupport, SlidingWindowCounterSupport):
    """A namespace of a server, or a store in this process, as a storage of limits. `reset` clears the namespace."""

    STORAGE_SCHEME = ["kv", "kvs", "kv+memory"]  # noqa: RUF012 - as limits declares it

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **options: Any) -> None:
        super().__init__(uri, wrap_exceptions)
        self._store = opened(uri, options).store
        self._store()

    @property
    def base_exceptions(self) -> type[Exception]:
        return KvError

    def _run(self, steps: Steps[Any]) -> Any:
        return run(self._store(), steps)

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return int(self._store().incr(key, amount, ttl=expiry))

    def get(self, key: str) -> int:
        return int(self._store().get(key, 0))

    def get_expiry(self, key: str) -> float:
        return float(self._run(expiry_of(key)))

    def check(self) -> bool:
        return bool(self._run(checked()))

    def reset(self) -> int | None:
        count = self._store().dbsize()
        self._store().clear()
        return count

    def clear(self, key: str) -> None:
        self._store().delete(key, moving(key))

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        return bool(self._run(taken_from_moving_window(key, limit, expiry, amount)))

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        start, count = self._run(moving_window(key, expiry))
        return start, count

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        return bool(self._run(taken_from_sliding_window(key, limit, expiry, amount)))

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        before, before_left, count, left = self._run(sliding_window(key, expiry, time.time()))
        return before, before_left, count, left

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        self._store().delete(*windows(key, expiry, time.time()))


class AsyncKVStorage(aio.Storage, aio.MovingWindowSupport, aio.SlidingWindowCounterSupport):
    """The same for asyncio; the client is the running loop's and ends with it."""

    STORAGE_SCHEME = ["async+kv", "async+kvs", "async+kv+memory"]  # noqa: RUF012 - as limits declares it

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **options: Any) -> None:
        super().__init__(uri, wrap_exceptions)
        self._store = opened(uri, options).async_store

    @property
    def base_exceptions(self) -> type[Exception]:
        return KvError

    def _run(self, steps: Steps[Any]) -> Awaitable[Any]:
        return run_async(self._store(), steps)

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return int(await self._store().incr(key, amount, ttl=expiry))

    async def get(self, key: str) -> int:
        return int(await self._store().get(key, 0))

    async def get_expiry(self, key: str) -> float:
        return float(await self._run(expiry_of(key)))

    async def check(self) -> bool:
        return bool(await self._run(checked()))

    async def reset(self) -> int | None:
        count = await self._store().dbsize()
        await self._store().clear()
        return count

    async def clear(self, key: str) -> None:
        await self._store().delete(key, moving(key))

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        return bool(await self._run(taken_from_moving_window(key, limit, expiry, amount)))

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        start, count = await self._run(moving_window(key, expiry))
        return start, count

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        return bool(await self._run(taken_from_sliding_window(key, limit, expiry, amount)))

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        before, before_left, count, left = await self._run(sliding_window(key, expiry, time.time()))
        return before, before_left, count, left

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        await self._store().delete(*windows(key, expiry, time.time()))
