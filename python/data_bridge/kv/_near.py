"""Values of a server kept near: `kv.near_cache`, a cache in this process that the server keeps true by its watch.

A read that is not kept puts a place into the dict first and the value into that place afterwards. A change that the
watch tells takes the place out. So a value that was read before a change never stays: when it comes, its place is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any, Self, overload
from uuid import UUID

from data_bridge import _native as native
from data_bridge.kv._remote import Client
from data_bridge.kv._steps import positive
from data_bridge.kv._values import MISSING, Event, Value
from data_bridge.kv._watch import Watch
from data_bridge.kv.aio import AsyncClient
from data_bridge.kv.errors import KvError

SHARED = frozenset(
    {type(None), bool, int, float, str, bytes, Decimal, date, datetime, time_of_day, timedelta, UUID}
)
"""Types whose values nobody can change: they are handed out as they are, others are decoded anew for each reader."""
AGAIN = 0.2
"""Seconds between attempts to listen again."""


class Copy:
    """A place for a value: `ends` is in monotonic time, before it the value holds."""

    __slots__ = ("ends", "is_encoded", "value")

    def __init__(self) -> None:
        self.value: Any = MISSING
        self.ends, self.is_encoded = 0.0, False


class Copies:
    """What is kept, and what both kinds of near cache know."""

    def __init__(self, client: Any, prefix: str, size: int, max_age: float) -> None:
        positive(size=size, max_age=max_age)
        self.prefix, self.size, self.max_age = prefix, size, max_age
        self.hits = self.misses = 0
        self.is_listening = False
        self._client = client
        self._by_key: dict[str, Copy] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def _kept(self, key: str) -> Any:
        """The value that is kept of a key, or `MISSING`."""
        copy = self._by_key.get(key)
        if copy is None or time.monotonic() >= copy.ends:
            self.misses += 1
            return MISSING
        self.hits += 1
        return native.decode(copy.value, self._client._fallback) if copy.is_encoded else copy.value

    def _place(self, key: str) -> Copy | None:
        """A place for a value that is about to be read; None where it would not be kept."""
        if not self.is_listening or not key.startswith(self.prefix):
            return None
        by_key = self._by_key
        while len(by_key) >= self.size:
            with contextlib.suppress(StopIteration, RuntimeError):
                by_key.pop(next(iter(by_key)), None)
        copy = by_key[key] = Copy()
        return copy

    def _keep(self, key: str, copy: Copy, value: Any, left_ms: int, since: float) -> None:
        """Puts a value into its place, for as long as it lives and may be kept; what is missing takes no place."""
        if value is MISSING:
            if self._by_key.get(key) is copy:
                self._by_key.pop(key, None)
            return
        seconds = self.max_age if left_ms < 0 else min(self.max_age, left_ms / 1000)
        copy.is_encoded = type(value) not in SHARED
        copy.value = native.encode(value, self._client._fallback) if copy.is_encoded else value
        copy.ends = since + seconds

    def _changed(self, event: Event | None) -> None:
        """What the watch told: a change, or that changes were missed."""
        if event is None:
            return
        if event.change == "lost":
            self._by_key.clear()
        else:
            self._by_key.pop(event.key, None)

    def _drop(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._by_key.pop(key, None)

    def _deaf(self) -> None:
        """Nothing is told any more: nothing is kept."""
        self.is_listening = False
        self._by_key.clear()


class NearCache(Copies):
    """Reads of a client, kept in this process; a context manager. Threads may share it, a forked child goes on."""

    _thread: threading.Thread | None = None
    _stop: threading.Event
    _watch: Watch | None = None
    _pid = 0

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, `default` where there is none."""
        if self._pid != os.getpid():
            self._listen()
        found = self._kept(key)
        if found is not MISSING:
            return found
        copy, since = self._place(key), time.monotonic()
        if copy is None:
            return self._client.get(key, default)
        found, left = self._client.pipeline(atomic=True).get(key, MISSING).pttl(key).execute()
        self._keep(key, copy, found, left, since)
        return default if found is MISSING else found

    def set(self, key: str, value: Value, *, ttl: float | timedelta | None = None) -> None:
        """Writes a value; the next read of this process sees it."""
        self._client.set(key, value, ttl=ttl)
        self._drop([key])

    def delete(self, *keys: str) -> int:
        """Deletes keys; how many there were."""
        count: int = self._client.delete(*keys)
        self._drop(keys)
        return count

    def _listen(self) -> None:
        """Starts to listen; in a forked child anew, since threads stay behind."""
        self._deaf()
        self._pid, self._stop, self._watch = os.getpid(), threading.Event(), None
        ready = threading.Event()
        self._thread = threading.Thread(target=self._hear, args=(self._stop, ready.set), daemon=True)
        self._thread.start()
        ready.wait()

    def _hear(self, stop: threading.Event, ready: Callable[[], None]) -> None:
        while not stop.is_set():
            with contextlib.suppress(KvError), self._client.watch(prefix=self.prefix) as watch:
                self._watch = watch
                self.is_listening = True
                ready()
                # Who stops this sets the event, then closes the watch if there is one: one of both is seen.
                while not stop.is_set():
                    self._changed(watch.next())
            self._watch = None
            self._deaf()
            ready()
            stop.wait(AGAIN)

    def close(self) -> None:
        """Ends listening; nothing is kept any more, reads go on at the server."""
        if self._thread is not None and self._pid == os.getpid():
            self._stop.set()
            watch = self._watch
            if watch is not None:
                watch.close()
            self._thread.join()

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncNearCache(Copies):
    """Reads of an asynchronous client, kept in this process; an async context manager."""

    _task: asyncio.Task[None] | None = None

    async def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, `default` where there is none."""
        found = self._kept(key)
        if found is not MISSING:
            return found
        copy, since = self._place(key), time.monotonic()
        if copy is None:
            return await self._client.get(key, default)
        found, left = await self._client.pipeline(atomic=True).get(key, MISSING).pttl(key).execute()
        self._keep(key, copy, found, left, since)
        return default if found is MISSING else found

    async def set(self, key: str, value: Value, *, ttl: float | timedelta | None = None) -> None:
        """Writes a value; the next read of this process sees it."""
        await self._client.set(key, value, ttl=ttl)
        self._drop([key])

    async def delete(self, *keys: str) -> int:
        """Deletes keys; how many there were."""
        count: int = await self._client.delete(*keys)
        self._drop(keys)
        return count

    async def _hear(self, ready: Callable[[], None]) -> None:
        while True:
            try:
                with contextlib.suppress(KvError):
                    async with self._client.watch(prefix=self.prefix) as watch:
                        self.is_listening = True
                        ready()
                        async for event in watch:
                            self._changed(event)
            finally:
                self._deaf()
                ready()
            await asyncio.sleep(AGAIN)

    async def aclose(self) -> None:
        """Ends listening; nothing is kept any more, reads go on at the server."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def __aenter__(self) -> Self:
        ready = asyncio.Event()
        self._task = asyncio.create_task(self._hear(ready.set), name=f"keeps {self.prefix!r} near")
        await ready.wait()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


@overload
def near_cache(client: Client, prefix: str, *, size: int = 10_000, max_age: float = 60.0) -> NearCache: ...
@overload
def near_cache(
    client: AsyncClient, prefix: str, *, size: int = 10_000, max_age: float = 60.0
) -> AsyncNearCache: ...
def near_cache(
    client: Client | AsyncClient, prefix: str, *, size: int = 10_000, max_age: float = 60.0
) -> NearCache | AsyncNearCache:
    """Keeps what is read of keys with a prefix in this process, for `with` or `async with`.

    The server tells each change, by whomever, and what is kept of that key is dropped: another process's write is seen
    a moment after it was made, one of this cache at once. At most `size` values are kept, none longer than its TTL or
    `max_age` seconds: so long may a value be old if the connection dies without a word. A connection that is known to
    be lost keeps nothing until it is there again; reads then go to the server.
    """
    if isinstance(client, Client):
        return NearCache(client, prefix, size, max_age)
    if isinstance(client, AsyncClient):
        return AsyncNearCache(client, prefix, size, max_age)
    raise TypeError(f"kv.near_cache needs a client, from kv.connect or kv.aio.connect, not {client!r:.80}")
