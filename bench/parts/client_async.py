"""Asynchronous Python clients on asyncio's own loop: one at a time, 50 tasks, a gather of 1000, CPU of an operation."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import Any

from bench import meters
from bench.plan import Plan
from bench.rows import OURS, Row, Target
from bench.servers import Running, all_started

TITLE = "Asynchronous Python clients, one connection's worth of work, GET of a 100 B str, cores kept awake"

REDIS_PY, GLIDE, COREDIS = "redis.asyncio+hiredis", "valkey-glide", "coredis"
VALUE = "x" * 100
KEY = "key:000000000001"
TASKS = 50
GATHERED = 1000

Get = Callable[[], Awaitable[object]]
Shape = Callable[[Get, float], Awaitable[int]]
"""A way of calling: for about so many seconds; says how many operations it did."""


def measure(plan: Plan) -> tuple[list[Row], dict[str, str]]:
    """All rows of the part, and what each client is."""
    with all_started([OURS, "redis 7.0"]) as (running, _), asyncio.Runner() as loop:
        if not running:
            raise RuntimeError("no server to measure against: make build")
        server = running[0]
        stack = AsyncExitStack()
        gets: dict[str, Get] = {}
        how = {name: loop.run(connect(stack, server, gets)) for name, connect in CLIENTS.items()}
        try:
            with meters.cores_awake():
                rows = all_rows(plan, loop, gets)
        finally:
            loop.run(stack.aclose())
    return rows, {name: f"{text}, against {server.name}" for name, text in how.items()}


def all_rows(plan: Plan, loop: asyncio.Runner, gets: dict[str, Get]) -> list[Row]:
    """Every way of calling, and the CPU time in the busiest one."""

    def rate(shape: Shape, get: Get) -> Callable[[], float]:
        def operations_a_second() -> float:
            start = time.perf_counter()
            done = loop.run(run(shape, get, plan.seconds))
            return done / (time.perf_counter() - start)

        return operations_a_second

    def cpu(get: Get) -> Callable[[], float]:
        def microseconds() -> float:
            start = time.process_time()
            done = loop.run(run(tasks, get, plan.seconds))
            return (time.process_time() - start) / done * 1e6

        return microseconds

    rows = []
    for what, shape, targets in [
        ("one at a time", sequential, [Target("≥", 2.0, REDIS_PY)]),
        (f"{TASKS} tasks", tasks, [Target("≥", 10.0, REDIS_PY), Target("≥", 5.0, GLIDE)]),
        (f"gather of {GATHERED}", gathered, []),
    ]:
        values = plan.interleaved({name: rate(shape, get) for name, get in gets.items()})
        rows.append(show(Row(what, "op/s", values, targets, headline=bool(targets))))
    values = plan.interleaved({name: cpu(get) for name, get in gets.items()})
    what = f"client CPU of one operation, {TASKS} tasks"
    rows.append(show(Row(what, "us", values, [Target("≤", 8.0)], headline=True)))
    return rows


def show(row: Row) -> Row:
    """Prints a row as soon as it is there."""
    shown = ", ".join(f"{name} {sample.middle:,.3g}" for name, sample in row.values.items())
    print(f"    {row.what} [{row.unit}]: {shown}", flush=True)
    return row


async def run(shape: Shape, get: Get, seconds: float) -> int:
    """The shape as a coroutine of its own."""
    return await shape(get, seconds)


async def sequential(get: Get, seconds: float) -> int:
    """One operation after the other."""
    done, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        await get()
        done += 1
    return done


async def tasks(get: Get, seconds: float) -> int:
    """Tasks that each do one operation after the other."""
    return sum(await asyncio.gather(*(sequential(get, seconds) for _ in range(TASKS))))


async def gathered(get: Get, seconds: float) -> int:
    """A thousand operations at once, again and again."""
    done, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        await asyncio.gather(*(get() for _ in range(GATHERED)))
        done += GATHERED
    return done


async def connect_ours(stack: AsyncExitStack, server: Running, gets: dict[str, Get]) -> str:
    """Our client, over the native protocol; it talks to no other server."""
    if server.name != OURS or importlib.util.find_spec("data_bridge") is None:
        return "missing (make build)"
    try:
        aio = importlib.import_module("data_bridge.kv.aio")
    except ImportError:
        return "missing (not part of this build)"
    client = await stack.enter_async_context(aio.connect(f"kv://127.0.0.1:{server.port}"))
    await client.set(KEY, VALUE)
    gets[OURS] = lambda: client.get(KEY)
    return "native protocol"


async def connect_redis_py(stack: AsyncExitStack, server: Running, gets: dict[str, Get]) -> str:
    """redis-py's asyncio client with the hiredis parser."""
    redis: Any = importlib.import_module("redis.asyncio")
    pool = redis.BlockingConnectionPool(port=server.port, max_connections=TASKS, timeout=None)
    client = await stack.enter_async_context(redis.Redis.from_pool(pool))
    await client.set(KEY, VALUE)
    gets[REDIS_PY] = lambda: client.get(KEY)
    return f"{version('redis')}, hiredis {version('hiredis')}"


async def connect_glide(stack: AsyncExitStack, server: Running, gets: dict[str, Get]) -> str:
    """valkey-glide, asyncio."""
    glide: Any = importlib.import_module("glide")
    address = glide.NodeAddress("127.0.0.1", server.port)
    client = await glide.GlideClient.create(
        glide.GlideClientConfiguration([address], inflight_requests_limit=2 * GATHERED)
    )
    stack.push_async_callback(client.close)
    await client.set(KEY, VALUE)
    gets[GLIDE] = lambda: client.get(KEY)
    return version("valkey-glide")


async def connect_coredis(stack: AsyncExitStack, server: Running, gets: dict[str, Get]) -> str:
    """coredis with its connection pool."""
    coredis: Any = importlib.import_module("coredis")
    client = coredis.Redis(port=server.port)
    await kept_open(stack, client)
    await client.set(KEY, VALUE)
    gets[COREDIS] = lambda: client.get(KEY)
    return version("coredis")


async def kept_open(stack: AsyncExitStack, client: Any) -> None:
    """Enters and leaves a client in one task of its own: coredis wants that."""
    opened, closing = asyncio.Event(), asyncio.Event()

    async def own() -> None:
        async with client:
            opened.set()
            await closing.wait()

    owner = asyncio.create_task(own())

    async def close() -> None:
        closing.set()
        await owner

    stack.push_async_callback(close)
    await opened.wait()


CLIENTS = {OURS: connect_ours, REDIS_PY: connect_redis_py, GLIDE: connect_glide, COREDIS: connect_coredis}
