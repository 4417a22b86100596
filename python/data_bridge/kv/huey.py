"""Huey's storage: `huey = DataBridgeHuey("name", url="kv://host:port/tasks")`.

Queue with priorities, schedule, results, locks and counters. Consumers and whoever waits for a result are told, they do
not ask again and again.
"""

from __future__ import annotations

import itertools
import os
import struct
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from data_bridge.kv._embedded import Store
from data_bridge.kv._patience import PATIENCE, end_of, patiently, value_of
from data_bridge.kv._remote import Client, connect
from data_bridge.kv._values import newer_than
from data_bridge.kv.errors import TimeoutError  # noqa: A004 - named as its builtin
from huey.api import Huey
from huey.constants import EmptyData
from huey.storage import BaseStorage

__all__ = ["DataBridgeHuey", "Storage"]

TICKET = struct.Struct(">QII")
"""What stands before a message of the queue, so that those of one priority keep their order and none is another's:
nanoseconds, process, a count."""


def text(key: str | bytes) -> str:
    """A key as the store takes it."""
    return key.decode() if isinstance(key, bytes) else key


class Storage(BaseStorage):
    """Huey's data in a store: `client`, or one that is connected to with `url` and the options of `kv.connect`.

    Results expire after `expire_time` seconds (a day; None = never), what else Huey keeps does not. An empty queue is
    waited for `read_timeout` seconds at a time. Huey drops a result that can't be stored: while the server is away,
    storing goes on for `patience` seconds.
    """

    blocking = True
    priority = True

    def __init__(
        self,
        name: str = "huey",
        *,
        url: str | None = None,
        client: Store | Client | None = None,
        read_timeout: float = 1.0,
        expire_time: float | None = 86_400,
        patience: float = PATIENCE,
        **options: Any,
    ) -> None:
        super().__init__(name)
        self._own = client is None
        self.client: Store | Client = client or connect(url, **options)
        self.read_timeout, self.expire_time, self.patience = read_timeout, expire_time, patience
        self._queue, self._schedule, self._counters = (
            f"huey.{kind}.{name}" for kind in ("queue", "schedule", "counters")
        )
        self._results = f"huey.result.{name}."
        self._tickets = itertools.count()

    def close(self) -> None:
        """Ends the connection that was made here."""
        if self._own:
            self.client.close()

    def enqueue(self, data: bytes, priority: float | None = None) -> None:
        """Adds a message; higher priorities come first."""
        ticket = TICKET.pack(time.time_ns(), os.getpid(), next(self._tickets) & 0xFFFFFFFF)
        self.client.zadd(self._queue, {ticket + data: -(priority or 0)})

    def dequeue(self) -> bytes | None:
        """Takes the next message; waits for one, None if none came."""
        taken = self.client.zpopmin(self._queue)
        if not taken:
            try:
                self.client.wait(self._queue, until=newer_than(0), timeout=self.read_timeout)
            except TimeoutError:
                return None
            taken = self.client.zpopmin(self._queue)
        return taken[0][0][TICKET.size :] if taken else None

    def queue_size(self) -> int:
        """Messages that wait."""
        return self.client.zcard(self._queue)

    def enqueued_items(self, limit: int | None = None) -> list[bytes]:
        """The next messages."""
        return [item[TICKET.size :] for item in self.client.zrange(self._queue, 0, (limit or 0) - 1)]

    def flush_queue(self) -> None:
        """Removes all messages."""
        self.client.delete(self._queue)

    def add_to_schedule(self, data: bytes, ts: datetime) -> None:
        """Adds a message that is due at a moment."""
        self.client.zadd(self._schedule, {data: ts.timestamp()})

    def read_schedule(self, ts: datetime) -> list[bytes]:
        """Takes the messages that are due."""
        with self.client.pipeline(atomic=True) as pipe:
            pipe.zrangebyscore(self._schedule, "-inf", ts.timestamp())
            pipe.zremrangebyscore(self._schedule, "-inf", ts.timestamp())
        return list(pipe.results[0])

    def schedule_size(self) -> int:
        """Messages that are not due yet."""
        return self.client.zcard(self._schedule)

    def scheduled_items(self, limit: int | None = None) -> list[bytes]:
        """The messages that are due next."""
        return list(self.client.zrange(self._schedule, 0, (limit or 0) - 1))

    def flush_schedule(self) -> None:
        """Removes the schedule."""
        self.client.delete(self._schedule)

    def _key(self, key: str | bytes) -> str:
        return self._results + text(key)

    def put_data(self, key: str | bytes, value: Any, is_result: bool = False) -> None:
        """Writes a result, or what else Huey keeps."""
        name, ttl = self._key(key), self.expire_time if is_result else None
        patiently(lambda: self.client.set(name, value, ttl=ttl), end_of(self.patience))

    def peek_data(self, key: str | bytes) -> Any:
        """Reads a value, `EmptyData` where there is none."""
        return self.client.get(self._key(key), EmptyData)

    def peek_many(self, keys: Iterable[str | bytes]) -> dict[Any, Any]:
        """Reads the values that there are."""
        names = {self._key(key): key for key in keys}
        return {names[name]: value for name, value in self.client.get_many(names).items()}

    def pop_data(self, key: str | bytes) -> Any:
        """Reads and removes a value in one step."""
        return self.client.pop(self._key(key), EmptyData)

    def delete_data(self, key: str | bytes) -> bool:
        """Removes a value; whether there was one."""
        return bool(self.client.delete(self._key(key)))

    def has_data_for_key(self, key: str | bytes) -> bool:
        """Whether there is a value."""
        return bool(self.client.exists(self._key(key)))

    def wait_result(
        self, key: str | bytes, timeout: float | None = None, backoff: float = 1.15, max_delay: float = 1.0
    ) -> bool:
        """Waits for a result; False if none came in time."""
        try:
            value_of(self.client, self._key(key), timeout)
        except TimeoutError:
            return False
        return True

    def put_if_empty(self, key: str | bytes, value: Any, ttl: float | None = None) -> bool:
        """Writes a value where none is; whether it did."""
        return bool(self.client.set(self._key(key), value, nx=True, ttl=ttl))

    def incr(self, key: str | bytes, amount: int = 1) -> int:
        """Adds to a counter."""
        return self.client.hincrby(self._counters, text(key), amount)

    def delete_counter(self, key: str | bytes) -> None:
        """Removes a counter."""
        self.client.hdel(self._counters, text(key))

    def flush_counters(self) -> None:
        """Removes all counters."""
        self.client.delete(self._counters)

    def result_store_size(self) -> int:
        """Values that there are."""
        return sum(1 for _ in self.client.scan(self._results))

    def result_items(self) -> dict[str, Any]:
        """All values by their keys."""
        found = self.client.get_many(set(self.client.scan(self._results)))
        return {key.removeprefix(self._results): value for key, value in found.items()}

    def flush_results(self) -> None:
        """Removes all values."""
        self.client.clear(self._results)


class DataBridgeHuey(Huey):
    """A Huey whose data is in a store."""

    storage_class = Storage
