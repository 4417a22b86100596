"""The actors of the tests with real Dramatiq workers. Broker and backend come from the environment."""

from __future__ import annotations

import os
from decimal import Decimal
from typing import Any

import dramatiq
from data_bridge.kv.dramatiq import RateLimiterBackend, ResultBackend
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import CurrentMessage, Middleware
from dramatiq.rate_limits import ConcurrentRateLimiter
from dramatiq.results import Results
from events import note, rest


class Notes(Middleware):
    """Tells which messages began."""

    def before_process_message(self, broker: Any, message: Any) -> None:
        """A message begins."""
        note("ran", message.message_id, message.actor_name, message.options.get("retries", 0))


broker = RedisBroker(url=os.environ["BROKER"])
broker.add_middleware(Notes())
broker.add_middleware(CurrentMessage())
# Dramatiq keeps a result for ten minutes; a storm may be longer, and looks at all of them in the end.
broker.add_middleware(Results(backend=ResultBackend(url=os.environ["BACKEND"]), result_ttl=86_400_000))
dramatiq.set_broker(broker)
limits = RateLimiterBackend(url=os.environ["BACKEND"])


@dramatiq.actor(store_results=True)
def add(x: int, y: int) -> int:
    """A number."""
    rest()
    return x + y


@dramatiq.actor(store_results=True)
def echo(value: Any) -> Any:
    """What it got, with a Decimal and a tuple beside it, which JSON has no words for."""
    return {"value": value, "price": Decimal("19.90"), "pair": (1, b"two")}


@dramatiq.actor(store_results=True, max_retries=0)
def refuse() -> None:
    """Fails."""
    raise ValueError("too much")


@dramatiq.actor(store_results=True, max_retries=5, min_backoff=5, max_backoff=20)
def third_time() -> int:
    """Succeeds at the third try."""
    message: Any = CurrentMessage.get_current_message()
    tries = int(message.options.get("retries", 0))
    if tries < 2:
        raise ValueError("not yet")
    return tries


@dramatiq.actor(store_results=True, max_retries=50, min_backoff=5, max_backoff=20)
def alone(number: int) -> int:
    """Runs while no other one does, and counts those that do."""
    with ConcurrentRateLimiter(limits, "alone", limit=1).acquire():
        inside = limits.client.incr("inside")
        limits.client.decr("inside")
        return int(inside)
