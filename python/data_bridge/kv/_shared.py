"""Stores that a whole process shares by their URL: what the adapters of frameworks stand on.

A framework makes its backends often, some one for each request. All that name the same URL and options use one client,
or one store in this process (`memory://`), and for asyncio one client for each running loop, closed when the loop ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator
from typing import Any

from data_bridge.kv._embedded import Store
from data_bridge.kv._embedded import open as open_store
from data_bridge.kv._remote import Client, address, connect
from data_bridge.kv.aio import AsyncClient, AsyncStore
from data_bridge.kv.aio import connect as connect_async

MEMORY = "memory://"
"""Begins the URL of a store in this process; the rest is its name."""
ONLY_SYNC = ("max_connections", "pool_timeout")
"""Options of a synchronous client that an asynchronous one has no use for."""


class Shared:
    """The stores of one URL with one set of options."""

    __slots__ = ("_by_loop", "_lock", "_options", "_store", "_url")

    def __init__(self, url: str | None, options: dict[str, Any]) -> None:
        if url is not None and not url.startswith(MEMORY):
            address(url, None)  # a URL that is none is refused here, not at the first call
        self._url, self._options = url, options
        self._lock = threading.Lock()
        self._store: Store | Client | None = None
        self._by_loop: dict[asyncio.AbstractEventLoop, tuple[AsyncStore | AsyncClient, object]] = {}

    def store(self) -> Store | Client:
        """The store, opened at the first call."""
        if self._store is not None:
            return self._store
        with self._lock:
            if self._store is None:
                in_memory = self._url is not None and self._url.startswith(MEMORY)
                self._store = (
                    open_store(**self._options) if in_memory else connect(self._url, **self._options)
                )
            return self._store

    def async_store(self) -> AsyncStore | AsyncClient:
        """The store for the running loop."""
        loop = asyncio.get_running_loop()
        known = self._by_loop.get(loop)
        return self._for_loop(loop) if known is None else known[0]

    def _for_loop(self, loop: asyncio.AbstractEventLoop) -> AsyncStore | AsyncClient:
        store = self.store()
        opened: AsyncStore | AsyncClient
        if isinstance(store, Store):
            opened = AsyncStore(store)
        else:
            options = {name: value for name, value in self._options.items() if name not in ONLY_SYNC}
            opened = connect_async(self._url, **options)
        # A loop runs its asynchronous generators to their end before it closes.
        end = self._until_loop_ends(loop, opened)
        with contextlib.suppress(StopIteration):
            end.asend(None).send(None)
        with self._lock:
            self._by_loop = {known: kept for known, kept in self._by_loop.items() if not known.is_closed()}
            self._by_loop[loop] = (opened, end)
        return opened

    async def _until_loop_ends(
        self, loop: asyncio.AbstractEventLoop, opened: AsyncStore | AsyncClient
    ) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            with self._lock:
                self._by_loop.pop(loop, None)
            if isinstance(opened, AsyncClient):
                await opened.aclose()

    def forget(self) -> None:
        """Lets go of what a forked child may not use: it opens its own."""
        self._lock = threading.Lock()
        self._store, self._by_loop = None, {}


_all: dict[tuple[str | None, str], Shared] = {}


def shared(url: str | None, options: dict[str, Any]) -> Shared:
    """What this process shares under a URL (KV_URL for None) and options of `kv.connect`, or of `kv.open` for
    `memory://name`."""
    key = (url, repr(sorted(options.items())))
    found = _all.get(key)
    return _all.setdefault(key, Shared(url, options)) if found is None else found


def _forget() -> None:
    for one in _all.values():
        one.forget()


os.register_at_fork(after_in_child=_forget)
