"""Part (d): speed as ratios measured in this run, with the benchmark's own loops in short rounds.

`make bench` measures the same and more, at length.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Any

import msgspec
import redis
import redis.asyncio
from data_bridge import kv

from bench import meters
from bench.parts import client_async, client_sync, embedded
from bench.plan import Plan
from demo.report import Progress, Report
from demo.servers import Servers

TITLE = "speed: ratios measured now, embedded beside a dict, the clients beside redis-py"
PLAN = Plan(rounds=3, seconds=0.25, keys=())
KEYS = 10_000
READS = 50_000
OURS, DICT, MSGSPEC, REDIS_PY = "ours", "dict", "msgspec into a dict", "redis-py"
KINDS = ("int", "short str", "Decimal", "dict of ten typed fields")

Measurements = Mapping[str, Callable[[], float]]


def show(report: Report, servers: Servers) -> None:
    """The whole part."""
    measure_embedded(report)
    report.measured("redis-py is measured with", f"{servers.peer}: {servers.redis_how.split(',')[0]}")
    with meters.cores_awake():
        measure_sync(report, servers)
        measure_async(report, servers)


def measure_embedded(report: Report) -> None:
    """Nanoseconds of one get and one set in this process."""
    keys = [f"key:{number:012d}" for number in range(KEYS)]
    order = random.Random(7).choices(keys, k=READS)
    values = {what: value for what, value, *_ in embedded.CASES}
    with embedded_stores() as stores, Progress("embedded, rounds", 2 * len(KINDS)) as step:
        for what in KINDS:
            value = values[what]
            for store in stores.values():
                embedded.loop(store, store.write, keys, value)
            for name in ("get", "set"):
                rounds = {
                    who: statement(store, store.read if name == "get" else store.write, order, value)
                    for who, store in stores.items()
                }
                ours, plain, packed = medians(rounds, OURS, DICT, MSGSPEC)
                report.measured(
                    f"embedded {name} of {what}: {ours:.0f} ns",
                    f"{ours / plain:.1f}x the time of a dict, {ours / packed:.2f}x that of msgspec into a dict",
                )
                step.add(1)


@contextmanager
def embedded_stores() -> Iterator[dict[str, embedded.Store]]:
    """Ours, a dict, and a dict of encoded values."""
    coder = embedded.Coder({}, msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode)
    with kv.open() as store:
        yield {
            OURS: embedded.Store(store, "store[key]", "store[key] = value"),
            DICT: embedded.Store({}, "get(key)", "store[key] = value"),
            MSGSPEC: embedded.Store(coder, "decode(encoded[key])", "encoded[key] = encode(value)"),
        }


def statement(store: embedded.Store, text: str, order: list[str], value: object) -> Callable[[], float]:
    """Nanoseconds of one operation, the empty loop left out."""

    def nanoseconds() -> float:
        empty = embedded.loop(store, "pass", order, value)
        return (embedded.loop(store, text, order, value) - empty) / len(order) * 1e9

    return nanoseconds


def medians(measurements: Measurements, *names: str) -> list[float]:
    """The median of each, over interleaved rounds."""
    samples = PLAN.interleaved(measurements)
    return [samples[name].middle for name in names]


def faster(report: Report, servers: Servers, what: str, measurements: Measurements) -> None:
    """Adds operations a second of our client beside redis-py's."""
    ours, theirs = medians(measurements, OURS, REDIS_PY)
    peer = "redis-server" if servers.redis_port else "our server"
    report.measured(
        f"{what}: {ours:,.0f} op/s", f"{ours / theirs:.1f}x redis-py ({theirs:,.0f} op/s with {peer})"
    )


def measure_sync(report: Report, servers: Servers) -> None:
    """The blocking clients, each against its own server: round trips and pipelines."""
    key, value, keys = client_sync.KEYS[0], client_sync.VALUE, client_sync.KEYS
    with kv.connect(servers.url("default")) as ours, redis.Redis(port=servers.peer_port) as theirs:
        ours.mset(dict.fromkeys(keys, value))
        theirs.mset(dict.fromkeys(keys, value))
        gets = {OURS: lambda: ours.get(key), REDIS_PY: lambda: theirs.get(key)}
        sets = {OURS: lambda: ours.set(key, value), REDIS_PY: lambda: theirs.set(key, value)}
        pipelines = {
            OURS: lambda: get_all(ours.pipeline()),
            REDIS_PY: lambda: get_all(theirs.pipeline(transaction=False)),
        }
        faster(report, servers, "sync client, get", rates(gets, 1))
        faster(report, servers, "sync client, set", rates(sets, 1))
        faster(report, servers, f"sync client, pipelines of {len(keys)}", rates(pipelines, len(keys)))


def rates(calls: Mapping[str, Callable[[], object]], operations: int) -> Measurements:
    """Operations a second, where one call does so many."""
    return {who: partial(client_sync.repeated(call, operations), PLAN.seconds) for who, call in calls.items()}


def get_all(pipeline: Any) -> None:
    """One pipeline of either client."""
    for key in client_sync.KEYS:
        pipeline.get(key)
    pipeline.execute()


def measure_async(report: Report, servers: Servers) -> None:
    """The asyncio clients: one after the other, 50 tasks, a thousand at once."""
    with asyncio.Runner() as loop:
        stack = AsyncExitStack()
        gets = loop.run(connected(stack, servers))
        try:
            for what, shape in [
                ("one after the other", client_async.sequential),
                (f"{client_async.TASKS} tasks", client_async.tasks),
                (f"gather of {client_async.GATHERED:,}", client_async.gathered),
            ]:
                rounds = {who: async_rate(loop, shape, get) for who, get in gets.items()}
                faster(report, servers, f"async client, {what}", rounds)
        finally:
            loop.run(stack.aclose())


async def connected(stack: AsyncExitStack, servers: Servers) -> dict[str, client_async.Get]:
    """One get of each client."""
    ours = await stack.enter_async_context(kv.aio.connect(servers.url("default")))
    pool = redis.asyncio.BlockingConnectionPool(
        port=servers.peer_port, max_connections=client_async.TASKS, timeout=None
    )
    theirs = await stack.enter_async_context(redis.asyncio.Redis.from_pool(pool))
    for client in (ours, theirs):
        await client.set(client_async.KEY, client_async.VALUE)
    return {OURS: lambda: ours.get(client_async.KEY), REDIS_PY: lambda: theirs.get(client_async.KEY)}


def async_rate(loop: asyncio.Runner, shape: client_async.Shape, get: client_async.Get) -> Callable[[], float]:
    """Operations a second of one way of calling."""

    def rate() -> float:
        start = time.perf_counter()
        done = loop.run(client_async.run(shape, get, PLAN.seconds))
        return done / (time.perf_counter() - start)

    return rate
