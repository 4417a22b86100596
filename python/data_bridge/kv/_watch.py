"""Watches: changes of keys as they happen."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Self

from data_bridge.kv._shapes import timeout_ms
from data_bridge.kv._values import Event


class Watch(Iterator[Event]):
    """The changes of a key or prefix; iterating waits for the next one. Close it, or use it as a context manager."""

    __slots__ = ("_native",)

    def __init__(self, native: Any) -> None:
        self._native = native

    def __next__(self) -> Event:
        return Event(*self._native.next(None))

    def next(self, timeout: float | timedelta | None = None) -> Event | None:
        """The next change, None when `timeout` seconds are over."""
        event = self._native.next(None if timeout is None else timeout_ms(timeout) / 1000)
        return None if event is None else Event(*event)

    def close(self) -> None:
        """Ends the watch."""
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
