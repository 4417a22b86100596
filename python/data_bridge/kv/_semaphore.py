"""Semaphores across processes: `kv.semaphore`.

A semaphore is a hash of its holders, each with the Unix time at which its place ends unless it is renewed. Places are
taken and renewed by compare and set of the version, and given back by removing one field. The hash never gets empty (it
has its limit as a field too), so that whoever waits for a newer version is woken by every change.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import uuid
from datetime import timedelta
from operator import methodcaller
from typing import Any, Self, overload

from data_bridge._native import ttl_ms
from data_bridge.kv._async_methods import AsyncMethods
from data_bridge.kv._methods import StoreMethods
from data_bridge.kv._steps import (
    Steps,
    is_async,
    may_have_happened,
    positive,
    renew_in_thread,
    run,
    run_async,
)
from data_bridge.kv._values import MISSING, MissingType, Versioned, newer_than
from data_bridge.kv.errors import (
    ConflictError,
    ConnectionError,  # noqa: A004 - named as its builtin
    KvError,
    TimeoutError,  # noqa: A004 - named as its builtin
    WrongTypeError,
)

LIMIT = "limit"
RENEWALS = 3
"""Renewals within one time to live, so that one may fail."""


class Place:
    """What both kinds of semaphore know: one place at most is held by one object."""

    def __init__(
        self, store: Any, name: str, limit: int, ttl: float | timedelta, timeout: float | None
    ) -> None:
        positive(limit=limit)
        self.name, self.limit, self.ttl, self.timeout = name, limit, ttl_ms(ttl) / 1000, timeout
        self._store, self._pid = store, 0
        self._token: str | None = None

    def _acquiring(self, timeout: float | MissingType | None) -> Steps[bool]:
        if self._token is not None:
            raise RuntimeError(f"a place of the semaphore {self.name!r} is held by this object already")
        timeout = self.timeout if isinstance(timeout, MissingType) else timeout
        give_up = None if timeout is None else time.monotonic() + timeout
        token = uuid.uuid4().hex
        while True:
            found: Versioned = yield methodcaller("get_versioned", self.name)
            others = self._living(found.value)
            if len(others) < self.limit:
                try:
                    taken = yield from self._write({**others, token: time.time() + self.ttl}, found.version)
                except BaseException as error:
                    if may_have_happened(error):
                        yield from self._undoing(token)
                    raise
                if taken:
                    self._token, self._pid = token, os.getpid()
                    return True
                continue
            left = max(0.001, min(others.values()) - time.time())
            if give_up is not None:
                left = min(left, give_up - time.monotonic())
            if left <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                yield methodcaller("wait", self.name, until=newer_than(found.version), timeout=left)

    def _undoing(self, token: str) -> Steps[None]:
        """Gives back what an interrupted step took. One that is yet to come finds another version and takes nothing."""
        with contextlib.suppress(KvError):
            written = False
            while not written:
                found: Versioned = yield methodcaller("get_versioned", self.name)
                holders = self._living(found.value)
                holders.pop(token, None)
                written = yield from self._write(holders, found.version)

    def _renewing(self, token: str) -> Steps[bool]:
        """One renewal, and whether there is a next: the place may be lost, the connection may come back."""
        try:
            while True:
                found: Versioned = yield methodcaller("get_versioned", self.name)
                holders = self._living(found.value)
                if token not in holders:
                    return False
                if (yield from self._write({**holders, token: time.time() + self.ttl}, found.version)):
                    return True
        except (ConnectionError, TimeoutError):
            return True
        except KvError:
            return False

    def _write(self, holders: dict[str, float], version: int) -> Steps[bool]:
        """Writes the holders unless somebody else did, who then has come further."""
        last = max(holders.values(), default=0.0) - time.time()
        try:
            yield methodcaller(
                "set_if_version", self.name, {LIMIT: self.limit, **holders}, version, ttl=max(last, self.ttl)
            )
        except ConflictError:
            return False
        return True

    def _living(self, value: Any) -> dict[str, float]:
        """The holders whose places have not ended."""
        now = time.time()
        holders = {} if value is MISSING else value
        try:
            return {token: ends for token, ends in holders.items() if token != LIMIT and ends > now}
        except (AttributeError, TypeError):
            raise WrongTypeError(f"the key {self.name!r} is something else than a semaphore") from None

    def _releasing(self) -> Steps[None]:
        token, self._token = self._token, None
        if token is None:
            raise RuntimeError(f"no place of the semaphore {self.name!r} is held by this object")
        if self._pid != os.getpid():
            raise ConflictError(
                f"the place of the semaphore {self.name!r} is that of the process that took it, not of its child"
            )
        try:
            was_held = yield methodcaller("hdel", self.name, token)
        except BaseException as error:
            if may_have_happened(error):
                yield from self._undoing(token)
            raise
        if not was_held:
            raise ConflictError(
                f"the place of the semaphore {self.name!r} was lost: not renewed within {self.ttl} s"
            )

    def _refused(self) -> TimeoutError:
        return TimeoutError(f"no place of the semaphore {self.name!r} was free within {self.timeout} s")


class Semaphore(Place):
    """A semaphore of a synchronous store; a context manager. A thread renews the place while it is held."""

    _stop: threading.Event | None = None

    def acquire(self, timeout: float | MissingType | None = MISSING) -> bool:
        """Takes a place, waiting for one at most `timeout` seconds (0 only tries, None waits for ever; as it was
        made unless given); whether it was taken."""
        taken = run(self._store, self._acquiring(timeout))
        if taken:
            self._stop = threading.Event()
            renew_in_thread(self.name, self._renew, (self._stop, self._token), self.release)
        return taken

    def _renew(self, stop: threading.Event, token: str) -> None:
        while not stop.wait(self.ttl / RENEWALS) and run(self._store, self._renewing(token)):
            pass

    def release(self) -> None:
        """Gives the place back; `ConflictError` if it was lost before."""
        if self._stop is not None:
            self._stop.set()
        run(self._store, self._releasing())

    def __enter__(self) -> Self:
        if not self.acquire():
            raise self._refused()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: object, trace: object) -> None:
        # An error of the block says more than that the place was lost during it.
        with contextlib.suppress(*() if exc_type is None else (ConflictError, ConnectionError)):
            self.release()


class AsyncSemaphore(Place):
    """A semaphore of an asynchronous store; an async context manager. A task renews the place while it is held."""

    _renewal: asyncio.Task[None] | None = None

    async def acquire(self, timeout: float | MissingType | None = MISSING) -> bool:
        """Takes a place, waiting for one at most `timeout` seconds (0 only tries, None waits for ever; as it was
        made unless given); whether it was taken."""
        taken = await run_async(self._store, self._acquiring(timeout))
        if taken and self._token is not None:
            self._renewal = asyncio.create_task(self._renew(self._token), name=f"renews {self.name}")
        return taken

    async def _renew(self, token: str) -> None:
        held = True
        while held:
            await asyncio.sleep(self.ttl / RENEWALS)
            held = await run_async(self._store, self._renewing(token))

    async def release(self) -> None:
        """Gives the place back; `ConflictError` if it was lost before."""
        if self._renewal is not None:
            self._renewal.cancel()
        await run_async(self._store, self._releasing())

    async def __aenter__(self) -> Self:
        if not await self.acquire():
            raise self._refused()
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: object, trace: object) -> None:
        with contextlib.suppress(*() if exc_type is None else (ConflictError, ConnectionError)):
            await self.release()


@overload
def semaphore(
    store: StoreMethods, name: str, limit: int, *, ttl: float | timedelta = 30.0, timeout: float | None = None
) -> Semaphore: ...
@overload
def semaphore(
    store: AsyncMethods, name: str, limit: int, *, ttl: float | timedelta = 30.0, timeout: float | None = None
) -> AsyncSemaphore: ...
def semaphore(
    store: StoreMethods | AsyncMethods,
    name: str,
    limit: int,
    *,
    ttl: float | timedelta = 30.0,
    timeout: float | None = None,
) -> Semaphore | AsyncSemaphore:
    """A semaphore that at most `limit` holders have at a time, across threads, processes and machines.

    Whoever waits is woken when a place is given back. A place is free again `ttl` (seconds or timedelta) after its
    holder died; until then it is renewed. `timeout` is how long the block waits before `TimeoutError`. The holders'
    clocks must agree to a fraction of `ttl`. Semaphores belong into a task namespace, which evicts nothing.

    >>> from data_bridge import kv
    >>> store = kv.open(mode="task")
    >>> with kv.semaphore(store, "reports", 2), kv.semaphore(store, "reports", 2):
    ...     kv.semaphore(store, "reports", 2).acquire(timeout=0)
    False
    """
    kind = AsyncSemaphore if is_async(store, "semaphore") else Semaphore
    return kind(store, name, limit, ttl, timeout)
