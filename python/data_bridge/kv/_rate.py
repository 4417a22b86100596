"""Rate limits across processes: `kv.rate_limit`, the generic cell rate algorithm (ITU-T I.371) on one number a name.

The number is the time, in nanoseconds, at which everything granted so far is paid back at the allowed rate. A grant
moves it on by its cost; it may not come to stand further than a burst from now. Where it is in the future that is one
addition with bounds. Where it is in the past, its name was idle, and it starts anew from now: one compare and set.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta
from operator import methodcaller
from typing import Any, overload

from data_bridge.kv._async_methods import AsyncMethods
from data_bridge.kv._methods import StoreMethods
from data_bridge.kv._steps import Steps, is_async, positive, run, run_async
from data_bridge.kv._values import MISSING
from data_bridge.kv.errors import OutOfRangeError

SECOND = 1_000_000_000
"""In the number's unit."""
LONGEST = 1 << 62
"""What a burst may take, 146 years, so that the number is one of 64 bits."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer of a rate limit; true if allowed. `retry_after` is in seconds, 0 where it was allowed."""

    allowed: bool
    remaining: int
    retry_after: float

    def __bool__(self) -> bool:
        return self.allowed


class Rate:
    """What both kinds of rate limit know."""

    def __init__(self, store: Any, name: str, limit: int, per: float | timedelta, burst: int | None) -> None:
        seconds = per.total_seconds() if isinstance(per, timedelta) else per
        burst = limit if burst is None else burst
        positive(limit=limit, per=seconds, burst=burst)
        self.name, self.limit, self.burst = name, limit, burst
        self._store = store
        self._interval = max(1, round(seconds * SECOND / limit))
        self._most = burst * self._interval
        if self._most > LONGEST:
            raise ValueError(f"per is out of range: {per!r}")

    def _hitting(self, who: str, cost: int) -> Steps[Grant]:
        if not 0 < cost <= self.burst:
            raise ValueError(f"cost must be 1 to {self.burst}, the burst, not {cost!r}")
        key, price = f"{self.name}:{who}", cost * self._interval
        ttl = self._most / SECOND
        while True:
            now = time.time_ns()
            try:
                paid = yield methodcaller(
                    "incr",
                    key,
                    price,
                    initial=now,
                    minimum=now + price,
                    maximum=now + self._most,
                    ttl=ttl,
                    refresh_ttl=True,
                )
                return self._granted(paid - now)
            except OutOfRangeError:
                found = yield methodcaller("get", key, MISSING)
            if found is MISSING:
                continue
            too_early = found + price - self._most - now
            if too_early > 0:
                return Grant(False, (self._most - (found - now)) // self._interval, too_early / SECOND)
            if found < now and (yield methodcaller("compare_and_set", key, found, now + price, ttl=ttl)):
                return self._granted(price)

    def _granted(self, ahead: int) -> Grant:
        return Grant(True, (self._most - ahead) // self._interval, 0.0)


class RateLimit(Rate):
    """A rate limit of a synchronous store."""

    def hit(self, who: str = "all", cost: int = 1) -> Grant:
        """Asks for `cost` of the limit of `who`: a user, an address. What is refused costs nothing."""
        return run(self._store, self._hitting(who, cost))


class AsyncRateLimit(Rate):
    """A rate limit of an asynchronous store."""

    def hit(self, who: str = "all", cost: int = 1) -> Awaitable[Grant]:
        """Asks for `cost` of the limit of `who`: a user, an address. What is refused costs nothing."""
        return run_async(self._store, self._hitting(who, cost))


@overload
def rate_limit(
    store: StoreMethods, name: str, limit: int, per: float | timedelta, *, burst: int | None = None
) -> RateLimit: ...
@overload
def rate_limit(
    store: AsyncMethods, name: str, limit: int, per: float | timedelta, *, burst: int | None = None
) -> AsyncRateLimit: ...
def rate_limit(
    store: StoreMethods | AsyncMethods,
    name: str,
    limit: int,
    per: float | timedelta,
    *,
    burst: int | None = None,
) -> RateLimit | AsyncRateLimit:
    """Allows `limit` hits `per` so many seconds for each name it is asked for, across threads, processes and machines.

    At most `burst` come at once, `limit` unless given; what was used comes back evenly over time, so that up to
    `burst + limit` come within some `per` seconds. The clocks of those who ask must agree.

    >>> from data_bridge import kv
    >>> store = kv.open()
    >>> logins = kv.rate_limit(store, "login", 2, per=60)
    >>> [bool(logins.hit("ada")) for _ in range(3)], bool(logins.hit("bob"))
    ([True, True, False], True)
    >>> round(logins.hit("ada").retry_after)
    30
    """
    kind = AsyncRateLimit if is_async(store, "rate_limit") else RateLimit
    return kind(store, name, limit, per, burst)
