"""Going on while a server is away: for steps that may be done twice, where a framework asks once and then gives up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from data_bridge.kv._values import MISSING, newer_than
from data_bridge.kv.errors import (
    ClosedError,
    ConnectionError,  # noqa: A004 - named as its builtin
    DurabilityError,
    OutOfMemoryError,
    ReadOnlyError,
    TimeoutError,  # noqa: A004 - named as its builtin
)

if TYPE_CHECKING:
    from data_bridge.kv._embedded import Store
    from data_bridge.kv._remote import Client
    from data_bridge.kv.aio import AsyncClient, AsyncStore

T = TypeVar("T")

LOST = (ConnectionError, TimeoutError, ClosedError)
"""The server is away for now."""
RETRYABLE = (*LOST, DurabilityError, OutOfMemoryError, ReadOnlyError)
"""Beside that: it is there and can't write for now."""
COMES_BACK = tuple(kind for kind in RETRYABLE if kind is not ClosedError)
"""The same, where the program may have closed its own client, which stays closed."""
PATIENCE = 60.0
"""For how many seconds an adapter goes on unless told otherwise."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds before a server is asked again: they double, and so a restart is noticed soon and an outage costs nothing."""


def seconds_until(end: float | None) -> float | None:
    """What is left until a moment of the monotonic clock; None where there is no end."""
    return None if end is None else max(0.0, end - time.monotonic())


def end_of(patience: float | None) -> float | None:
    """The moment of the monotonic clock at which so many seconds are over."""
    return None if patience is None else time.monotonic() + patience


def pauses(end: float | None) -> Iterator[float]:
    """The seconds to wait before each further attempt, until the end."""
    pause = FIRST_PAUSE
    while (left := seconds_until(end)) is None or left > 0:
        yield pause if left is None else min(pause, left)
        pause = min(2 * pause, LONGEST_PAUSE)


def patiently(call: Callable[[], T], end: float | None, away: tuple[type[Exception], ...] = COMES_BACK) -> T:
    """What a call answers, which is made again while the server can't answer it, until the end."""
    waits = pauses(end)
    while True:
        try:
            return call()
        except away:
            pause = next(waits, None)
            if pause is None:
                raise
        time.sleep(pause)


async def patiently_awaited(call: Callable[[], Awaitable[T]], end: float | None) -> T:
    """The same for what is awaited."""
    waits = pauses(end)
    while True:
        try:
            return await call()
        except COMES_BACK:
            pause = next(waits, None)
            if pause is None:
                raise
        await asyncio.sleep(pause)


def value_of(store: Store | Client, key: str, timeout: float | None) -> Any:
    """Waits until a key has a value, through restarts of the server; `TimeoutError` after so many seconds."""
    end = end_of(timeout)
    while True:
        found = patiently(lambda: store.wait(key, until=newer_than(0), timeout=seconds_until(end)), end)
        if found.value is not MISSING:
            return found.value


async def awaited_value_of(store: AsyncStore | AsyncClient, key: str, timeout: float | None) -> Any:
    """The same for an asynchronous store."""
    end = end_of(timeout)
    while True:
        found = await patiently_awaited(
            lambda: store.wait(key, until=newer_than(0), timeout=seconds_until(end)), end
        )
        if found.value is not MISSING:
            return found.value
