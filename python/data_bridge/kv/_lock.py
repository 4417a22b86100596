"""Locks across processes: `kv.lock`.

A lock is a hash with one field, the owner: a token that only the holder knows, or `FREE`. Taking, renewing and freeing
it are one transition each, and its version at the taking is the fencing token. Whoever waits is woken by the change.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable
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
    renew_in_thread,
    run,
    run_async,
)
from data_bridge.kv._values import MISSING, MissingType, Transition, newer_than
from data_bridge.kv.errors import ConflictError, ConnectionError, KvError, TimeoutError  # noqa: A004

FIELD, FREE = "owner", "free"
RENEWALS = 3
"""Renewals within one time to live, so that one may fail."""
LATE = 0.2
"""Seconds after an interruption in which the interrupted step may still be taken."""


class Holding:
    """What both kinds of lock know. `fence` is greater at each taking of the lock, whoever takes it: give it to what
    the lock guards, and let that refuse a smaller one than it has seen."""

    def __init__(
        self, store: Any, name: str, ttl: float | timedelta, timeout: float | None, renew: bool
    ) -> None:
        self.name, self.ttl, self.timeout, self.renew = name, ttl_ms(ttl) / 1000, timeout, renew
        self.fence: int | None = None
        self._store, self._token, self._ends = store, "", 0.0
        self._lost, self._pid = False, 0

    @property
    def lost(self) -> bool:
        """Whether somebody else may have the lock by now: it was not renewed in time, or this is a forked child."""
        if self.fence is None:
            return self._lost
        return self._lost or time.monotonic() >= self._ends or self._pid != os.getpid()

    def check(self) -> None:
        """Raises `ConflictError` if the lock is not held any more."""
        if self.fence is None or self.lost:
            raise ConflictError(
                f"the lock {self.name!r} is not held: it was released, or not renewed within {self.ttl} s"
            )

    def _took(self, token: str, since: float, fence: int | None) -> bool:
        if fence is not None:
            self.fence, self._token, self._ends, self._lost = fence, token, since + self.ttl, False
            self._pid = os.getpid()
        return fence is not None

    def _acquiring(self, timeout: float | MissingType | None) -> Steps[bool]:
        if self.fence is not None:
            raise RuntimeError(f"the lock {self.name!r} is held by this object already")
        timeout = self.timeout if isinstance(timeout, MissingType) else timeout
        give_up = None if timeout is None else time.monotonic() + timeout
        token = uuid.uuid4().hex
        while True:
            since = time.monotonic()
            try:
                taken: Transition = yield self._step(MISSING, FREE, to=token)
            except ConflictError as held:
                version = held.version
            except BaseException as error:
                if may_have_happened(error):
                    yield from self._undoing(token)
                raise
            else:
                return self._took(token, since, taken.version)
            left = self.ttl if give_up is None else min(self.ttl, give_up - time.monotonic())
            if left <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                yield methodcaller("wait", self.name, until=newer_than(version), timeout=left)

    def _undoing(self, token: str) -> Steps[None]:
        """Frees what an interrupted step took. It may take it a moment later, as it went by another connection."""
        with contextlib.suppress(KvError):
            try:
                yield self._step(token, to=FREE)
            except ConflictError:
                yield methodcaller("wait", self.name, field=FIELD, until=token, timeout=LATE)
                yield self._step(token, to=FREE)

    def _renewing(self, token: str) -> Steps[bool]:
        """One renewal of one taking, and whether there is a next; a lost connection may be there again by then."""
        since, held = time.monotonic(), True
        try:
            yield self._step(token, to=token)
        except (ConnectionError, TimeoutError):
            return not self.lost
        except KvError:
            held = False
        if token == self._token:
            self._lost, self._ends = not held, since + self.ttl
        return held

    def _releasing(self) -> Steps[None]:
        if self.fence is None:
            raise RuntimeError(f"the lock {self.name!r} is not held by this object")
        self.fence = None
        if self._pid != os.getpid():
            raise ConflictError(
                f"the lock {self.name!r} is that of the process that took it, not of its child"
            )
        try:
            yield self._step(self._token, to=FREE)
        except ConflictError as error:
            why = f"the lock {self.name!r} was lost before it was released: it was not renewed within {self.ttl} s"
            raise ConflictError(why, error.current, error.version) from None
        except BaseException as error:
            if may_have_happened(error):
                # Or it may not have happened: nobody renews the lock any more.
                with contextlib.suppress(KvError):
                    yield self._step(self._token, to=FREE)
            raise

    def _step(self, *expect: Any, to: str) -> Callable[[Any], Any]:
        return methodcaller("transition", self.name, field=FIELD, expect=set(expect), to=to, ttl=self.ttl)

    def _refused(self) -> TimeoutError:
        return TimeoutError(f"the lock {self.name!r} was not free within {self.timeout} s")


class Lock(Holding):
    """A lock of a synchronous store; a context manager. It is not reentrant. A thread renews it while it is held."""

    _stop: threading.Event | None = None

    def acquire(self, timeout: float | MissingType | None = MISSING) -> bool:
        """Takes the lock, waiting for it at most `timeout` seconds (0 only tries, None waits for ever; as it was
        made unless given); whether it was taken."""
        taken = run(self._store, self._acquiring(timeout))
        if taken and self.renew:
            self._stop = threading.Event()
            renew_in_thread(self.name, self._renew, (self._stop, self._token), self.release)
        return taken

    def _renew(self, stop: threading.Event, token: str) -> None:
        while not stop.wait(self.ttl / RENEWALS) and run(self._store, self._renewing(token)):
            pass

    def locked(self) -> bool:
        """Whether somebody has the lock."""
        return self._store.hget(self.name, FIELD) not in (None, FREE)

    def release(self) -> None:
        """Frees the lock; `ConflictError` if it was lost before."""
        if self._stop is not None:
            self._stop.set()
            self._stop = None
        run(self._store, self._releasing())

    def __enter__(self) -> Self:
        if not self.acquire():
            raise self._refused()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: object, trace: object) -> None:
        # An error of the block says more than that the lock was lost during it.
        with contextlib.suppress(*() if exc_type is None else (ConflictError, ConnectionError)):
            self.release()


class AsyncLock(Holding):
    """A lock of an asynchronous store; an async context manager. It is not reentrant. A task renews it."""

    _renewal: asyncio.Task[None] | None = None

    async def acquire(self, timeout: float | MissingType | None = MISSING) -> bool:
        """Takes the lock, waiting for it at most `timeout` seconds (0 only tries, None waits for ever; as it was
        made unless given); whether it was taken."""
        taken = await run_async(self._store, self._acquiring(timeout))
        if taken and self.renew:
            self._renewal = asyncio.create_task(self._renew(self._token), name=f"renews {self.name}")
        return taken

    async def _renew(self, token: str) -> None:
        held = True
        while held:
            await asyncio.sleep(self.ttl / RENEWALS)
            held = await run_async(self._store, self._renewing(token))

    async def locked(self) -> bool:
        """Whether somebody has the lock."""
        return await self._store.hget(self.name, FIELD) not in (None, FREE)

    async def release(self) -> None:
        """Frees the lock; `ConflictError` if it was lost before."""
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        await run_async(self._store, self._releasing())

    async def __aenter__(self) -> Self:
        if not await self.acquire():
            raise self._refused()
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: object, trace: object) -> None:
        with contextlib.suppress(*() if exc_type is None else (ConflictError, ConnectionError)):
            await self.release()


@overload
def lock(
    store: StoreMethods,
    name: str,
    *,
    ttl: float | timedelta = 30.0,
    timeout: float | None = None,
    renew: bool = True,
) -> Lock: ...
@overload
def lock(
    store: AsyncMethods,
    name: str,
    *,
    ttl: float | timedelta = 30.0,
    timeout: float | None = None,
    renew: bool = True,
) -> AsyncLock: ...
def lock(
    store: StoreMethods | AsyncMethods,
    name: str,
    *,
    ttl: float | timedelta = 30.0,
    timeout: float | None = None,
    renew: bool = True,
) -> Lock | AsyncLock:
    """A lock that one holder at a time has, across threads, processes and machines; for `with` or `async with`.

    Whoever waits is woken when it is freed. It frees itself `ttl` (seconds or timedelta) after its holder died; until
    then it is renewed, unless `renew` is False. `timeout` is how long the block waits for it before `TimeoutError`. A
    holder that was stopped for longer than `ttl` may not know that it lost the lock: `fence` is for that. Locks belong
    into a task namespace, which evicts nothing. One object is one holder: threads and tasks make their own.

    >>> from data_bridge import kv
    >>> store = kv.open(mode="task")
    >>> with kv.lock(store, "report") as held:
    ...     first = held.fence
    >>> with kv.lock(store, "report", timeout=5) as held:
    ...     held.fence > first
    True
    """
    kind = AsyncLock if is_async(store, "lock") else Lock
    return kind(store, name, ttl, timeout, renew)
