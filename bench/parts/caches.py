"""Caches of Python: Django's backends, and `cached` beside a plain read, remote and embedded."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from contextlib import ExitStack
from decimal import Decimal
from importlib.metadata import version
from typing import Any

from bench import meters
from bench.parts.client_sync import Measurement, repeated
from bench.plan import Plan
from bench.rows import OURS, Row, Target
from bench.servers import all_started

TITLE = "Caches in Python, one thread, operations a second, cores kept awake"

REDIS, REDIS_CACHE, PLAIN = "redis 7.0", "Django's Redis cache", "plain get"
TEXT = "x" * 100
RECORD = {
    "id": 7,
    "name": "Ada Lovelace",
    "price": Decimal("1234.50"),
    "active": True,
    "tags": ["red", "green"],
}


def measure(plan: Plan) -> tuple[list[Row], dict[str, str]]:
    """All rows of the part, and what each cache is."""
    if importlib.util.find_spec("data_bridge") is None or importlib.util.find_spec("django") is None:
        raise RuntimeError("no wheel or no Django to measure: make build")
    with ExitStack() as stack:
        running, versions = stack.enter_context(all_started([OURS, REDIS]))
        ports = {server.name: server.port for server in running}
        if len(ports) < 2:
            raise RuntimeError("both servers are needed: make build, apt-get install redis-server")
        caches = django_caches(ports)
        stores = kv_stores(stack, ports[OURS])
        stack.enter_context(meters.cores_awake())
        rows = [
            django_row(plan, what, caches, value) for what, value in (("str", TEXT), ("dict of 5", RECORD))
        ]
        rows += [django_set_row(plan, caches)]
        rows += [cached_row(plan, where, store) for where, store in stores.items()]
    how = {
        OURS: f"against our server, Django {version('Django')}",
        REDIS_CACHE: f"redis-py {version('redis')}, hiredis {version('hiredis')}, {versions[REDIS]}",
        PLAIN: "`store.get` of the same value, without `cached`",
    }
    return rows, how


def django_caches(ports: dict[str, int]) -> dict[str, Any]:
    """The backends by name, each with its own server."""
    ours: Any = importlib.import_module("data_bridge.kv.django")
    theirs: Any = importlib.import_module("django.core.cache.backends.redis")
    return {
        OURS: ours.KVCache(f"kv://127.0.0.1:{ports[OURS]}/cache", {}),
        REDIS_CACHE: theirs.RedisCache(f"redis://127.0.0.1:{ports[REDIS]}", {}),
    }


def kv_stores(stack: ExitStack, port: int) -> dict[str, Any]:
    """A remote and an embedded store."""
    kv: Any = importlib.import_module("data_bridge.kv")
    remote = stack.enter_context(kv.connect(f"kv://127.0.0.1:{port}/2"))
    return {"remote": remote, "embedded": stack.enter_context(kv.open())}


def django_row(plan: Plan, what: str, caches: dict[str, Any], value: Any) -> Row:
    """`cache.get` of one value."""

    def getting(cache: Any) -> Measurement:
        cache.set("key", value, 600)
        if cache.get("key") != value:
            raise RuntimeError(f"{cache!r} gave another value back")
        return repeated(lambda: cache.get("key"), 1)

    return row(
        plan,
        f"Django: get of a {what}",
        {name: getting(cache) for name, cache in caches.items()},
        REDIS_CACHE,
    )


def django_set_row(plan: Plan, caches: dict[str, Any]) -> Row:
    """`cache.set` of a text."""

    def setting(cache: Any) -> Measurement:
        return repeated(lambda: cache.set("key", TEXT, 600), 1)

    return row(
        plan, "Django: set of a str", {name: setting(cache) for name, cache in caches.items()}, REDIS_CACHE
    )


def cached_row(plan: Plan, where: str, store: Any) -> Row:
    """A hit of `cached` beside a read of the same value."""
    kv: Any = importlib.import_module("data_bridge.kv")

    @kv.cached(store, 600)  # type: ignore[untyped-decorator]
    def work(_number: int) -> str:
        return TEXT

    store.set("key", TEXT, ttl=600)
    measured = {OURS: repeated(lambda: work(7), 1), PLAIN: repeated(lambda: store.get("key"), 1)}
    return row(plan, f"cached: hit, {where}", measured, None)


def row(plan: Plan, what: str, measured: dict[str, Measurement], peer: str | None) -> Row:
    """One row: each does the same."""

    def timed(one: Measurement) -> Callable[[], float]:
        return lambda: one(plan.seconds)

    values = plan.interleaved({name: timed(one) for name, one in measured.items()})
    print(
        f"    {what} [op/s]: " + ", ".join(f"{name} {v.middle:,.0f}" for name, v in values.items()),
        flush=True,
    )
    return Row(what, "op/s", values, [Target("≥", 2.0, peer)] if peer else [], headline=peer is not None)
