"""Dramatiq's results and rate limits in a store: `Results(backend=ResultBackend(url="kv://host:port/tasks"))`.

Results keep their types. Whoever waits is told, so that timeouts below a second work; each step of a rate limiter is
one atomic operation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from data_bridge.kv._embedded import Store
from data_bridge.kv._patience import PATIENCE, end_of, patiently, value_of
from data_bridge.kv._plain import plain
from data_bridge.kv._remote import Client, connect
from data_bridge.kv.errors import (
    ConflictError,
    OutOfRangeError,
    TimeoutError,  # noqa: A004 - named as its builtin
    UnsupportedValueError,
)
from dramatiq.encoder import Encoder
from dramatiq.rate_limits import RateLimiterBackend as BaseRateLimiterBackend
from dramatiq.results import Missing, ResultMissing, ResultTimeout
from dramatiq.results import ResultBackend as BaseResultBackend
from dramatiq.results.backend import DEFAULT_TIMEOUT

__all__ = ["RateLimiterBackend", "ResultBackend"]

FIELD = "result"
"""A result is a field of a hash: an empty list is a result too."""


class ResultBackend(BaseResultBackend):
    """Results in a store: `client`, or one that is connected to with `url` and the options of `kv.connect`.

    With an `encoder` of Dramatiq's a result is stored as that one's bytes, otherwise as a typed value. Dramatiq drops a
    result that can't be stored: while the server is away, storing goes on for `patience` seconds.
    """

    def __init__(
        self,
        *,
        namespace: str = "dramatiq-results",
        encoder: Encoder | None = None,
        use_namespace_prefix_keys: bool = False,
        patience: float = PATIENCE,
        client: Store | Client | None = None,
        url: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            namespace=namespace, encoder=encoder, use_namespace_prefix_keys=use_namespace_prefix_keys
        )
        self.client: Store | Client = client or connect(url, **options)
        self._chosen, self.patience = encoder, patience

    def get_result(self, message: Any, *, block: bool = False, timeout: int | None = None) -> Any:
        """The result of a message; with `block` waits for it, at most `timeout` milliseconds (10 seconds)."""
        key = self.build_message_key(message)
        if not block:
            found = self._get(key)
            if found is Missing:
                raise ResultMissing(message)
            return self.unwrap_result(found)
        try:
            stored = value_of(self.client, key, (DEFAULT_TIMEOUT if timeout is None else timeout) / 1000)
        except TimeoutError:
            raise ResultTimeout(message) from None
        return self.unwrap_result(self._decoded(stored))

    def _get(self, message_key: str) -> Any:
        stored = self.client.get(message_key)
        return Missing if stored is None else self._decoded(stored)

    def _store(self, message_key: str, result: Any, ttl: int) -> None:
        if self._chosen is not None:
            result = self._chosen.encode(result)
        try:
            self._set(message_key, result, ttl)
        except UnsupportedValueError:
            self._set(message_key, plain(result), ttl)

    def _set(self, message_key: str, result: Any, ttl: int) -> None:
        patiently(
            lambda: self.client.set(message_key, {FIELD: result}, ttl=ttl / 1000), end_of(self.patience)
        )

    def _decoded(self, stored: dict[str, Any]) -> Any:
        return stored[FIELD] if self._chosen is None else self._chosen.decode(stored[FIELD])


class RateLimiterBackend(BaseRateLimiterBackend):
    """Rate limits and barriers in a store: `client`, or one that is connected to with `url` and options."""

    def __init__(
        self, *, client: Store | Client | None = None, url: str | None = None, **options: Any
    ) -> None:
        self.client: Store | Client = client or connect(url, **options)

    def add(self, key: str, value: int, ttl: int) -> bool:
        """Adds a key unless it exists; whether it did."""
        return bool(self.client.set(key, value, nx=True, ttl=ttl / 1000))

    def incr(self, key: str, amount: int, maximum: int, ttl: int) -> bool:
        """Adds up to a maximum; whether it did."""
        try:
            self.client.incr(key, amount, maximum=maximum, ttl=ttl / 1000, refresh_ttl=True)
        except OutOfRangeError:
            return False
        return True

    def decr(self, key: str, amount: int, minimum: int, ttl: int) -> bool:
        """Subtracts down to a minimum; whether it did."""
        try:
            self.client.decr(key, amount, minimum=minimum, ttl=ttl / 1000, refresh_ttl=True)
        except OutOfRangeError:
            return False
        return True

    def incr_and_sum(
        self, key: str, keys: Callable[[], Sequence[str]], amount: int, maximum: int, ttl: int
    ) -> bool:
        """Adds unless the sum of the keys would pass a maximum; whether it did."""
        while True:
            names = list(dict.fromkeys(keys()))
            found = self.client.get_many([key, *names])
            value = found.get(key, 0) + amount
            if value > maximum or amount + sum(found.get(name, 0) for name in names) > maximum:
                return False
            pipe = self.client.pipeline(atomic=True)
            # All or nothing: only if each key is still what it was.
            for name in names:
                if name in found:
                    pipe.incr(name, 0, minimum=found[name], maximum=found[name])
                else:
                    pipe.delete_if_version(name, 0)
            pipe.incr(key, amount, minimum=value, maximum=value, ttl=ttl / 1000, refresh_ttl=True)
            try:
                pipe.execute()
            except (ConflictError, OutOfRangeError):
                continue
            return True

    def wait(self, key: str, timeout: int | None) -> bool:
        """Waits for a notification, at most so many milliseconds; whether it came."""
        try:
            value_of(self.client, key, None if timeout is None else timeout / 1000)
        except TimeoutError:
            return False
        return True

    def wait_notify(self, key: str, ttl: int) -> None:
        """Notifies everybody who waits, and whoever comes within so many milliseconds."""
        patiently(lambda: self.client.set(key, True, ttl=ttl / 1000), end_of(PATIENCE))
