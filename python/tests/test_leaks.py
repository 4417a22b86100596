"""What the adapters of frameworks leave behind: after many rounds of use as much is held as after some.

Each use is a function of this file, in a program of its own. A round is a thread that ends, with a loop or without.
Counted are descriptors, threads, Python's objects, memory, and the connections that the server sees.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_bridge import kv
from data_bridge._native import opcode as op
from data_bridge.kv import tasks

WARM, ROUNDS = 40, 200
"""Rounds before the first count and between the two."""
SPARE_BYTES = 6 << 20
"""What memory may grow by: 30 KiB a round would be too much."""

OTHER_FILES = 4
"""Descriptors that are no connections: standard input, output and errors, and the one that lists them."""

Use = Callable[[str], Callable[[], Any]]
"""Sets up for a URL; answers what a round does. What that returns is awaited, in a loop of its own."""


def celery_results(url: str) -> Callable[[], None]:
    from celery import Celery
    from celery.exceptions import TimeoutError as LateError

    app: Any = Celery("leaks", broker="memory://", backend=f"data-bridge{url[2:]}", set_as_current=False)

    def use() -> None:
        one, other = str(uuid.uuid4()), str(uuid.uuid4())
        app.backend.mark_as_done(one, {"a": (1, b"x")})
        app.backend.mark_as_failure(other, ValueError("no"))
        assert app.AsyncResult(one).get(timeout=60) == {"a": (1, b"x")}
        with pytest.raises(ValueError, match="no"):
            app.AsyncResult(other).get(timeout=60)
        with pytest.raises(LateError):
            app.AsyncResult("never").get(timeout=0.001)
        app.AsyncResult(one).forget()
        app.AsyncResult(other).forget()

    return use


def dramatiq_results(url: str) -> Callable[[], None]:
    import dramatiq
    from data_bridge.kv.dramatiq import RateLimiterBackend, ResultBackend
    from dramatiq.rate_limits import Barrier, ConcurrentRateLimiter

    results, limits = ResultBackend(url=url), RateLimiterBackend(url=url)

    def use() -> None:
        message = dramatiq.Message("default", "actor", (), {}, {})
        results.store_result(message, (1, 2), 1000)
        assert results.get_result(message, block=True, timeout=60_000) == (1, 2)
        with ConcurrentRateLimiter(limits, "leaks", limit=4).acquire():
            barrier = Barrier(limits, str(uuid.uuid4()), ttl=1000)
            barrier.create(parties=2)
            assert not barrier.wait(timeout=1)

    return use


def taskiq_results(url: str) -> Callable[[], Any]:
    from data_bridge.kv.taskiq import ResultBackend, Schedules
    from taskiq import ScheduledTask, TaskiqResult
    from taskiq.depends.progress_tracker import TaskProgress

    async def use() -> None:
        results: ResultBackend[int] = ResultBackend(url, ttl=1, keep_results=False)
        schedules = Schedules(url)
        await results.set_progress("id", TaskProgress(state="half", meta=None))
        waiting = asyncio.create_task(results.wait("id", timeout=60))
        await results.set_result("id", TaskiqResult(is_err=False, return_value=1, execution_time=0.1))
        assert (await waiting).return_value == 1
        at = ScheduledTask(task_name="t", labels={}, args=[], kwargs={}, cron="* * * * *", schedule_id="one")
        await schedules.add_schedule(at)
        assert len(await schedules.get_schedules()) == 1
        await results.shutdown()
        await schedules.shutdown()

    return use


def huey_storage(url: str) -> Callable[[], None]:
    from data_bridge.kv.huey import DataBridgeHuey

    def use() -> None:
        made = DataBridgeHuey("leaks", url=url, read_timeout=0.001)
        double = made.task()(lambda number: number * 2)
        sent = double(4)
        made.execute(made.dequeue())
        assert sent.get(blocking=True, timeout=60) == 8
        assert made.dequeue() is None
        made.storage.close()

    return use


def django_cache(url: str) -> Callable[[], Any]:
    from django.conf import settings

    settings.configure()
    from data_bridge.kv.django import KVCache

    async def use() -> None:
        cache = KVCache(url, {"TIMEOUT": 1})
        cache.set("one", {1: object})
        await cache.aset("two", [1])
        assert await cache.aget_many(["one", "two"]) == {"one": {1: object}, "two": [1]}
        assert cache.get_or_set("three", lambda: 3) == 3
        cache.close()
        await cache.aclose()

    return use


def cachelib_cache(url: str) -> Callable[[], None]:
    from data_bridge.kv.cachelib import KVCache

    def use() -> None:
        cache = KVCache(url)
        kept: list[Any] = [1, range(3), None]
        cache.set_many({"a": 1, "b": range(3)}, timeout=1)
        assert cache.get_many("a", "b", "c") == kept

    return use


def dogpile_region(url: str) -> Callable[[], None]:
    from dogpile.cache import make_region

    arguments = {"url": url, "distributed_lock": True, "expiration_time": 1}

    def use() -> None:
        region = make_region().configure("data_bridge.kv", arguments=arguments)
        assert region.get_or_create(str(uuid.uuid4()), lambda: (1, 2)) == (1, 2)

    return use


def aiocache_cache(url: str) -> Callable[[], Any]:
    from aiocache.lock import RedLock
    from data_bridge.kv.aiocache import KVCache

    async def use() -> None:
        async with KVCache(url, namespace="leaks") as cache, RedLock(cache, "key", lease=5):
            await cache.set("key", (1, 2), ttl=1)
            assert await cache.get("key") == (1, 2)

    return use


def cashews_cache(url: str) -> Callable[[], Any]:
    import data_bridge.kv.cashews  # noqa: F401 - registers the scheme
    from cashews import Cache

    cache = Cache()
    cache.setup(url)

    # With lock=True cashews keeps objects of each call, whatever its backend.
    @cache(ttl=1, key="leaks:{number}")
    async def twice(number: int) -> int:
        return number * 2

    async def use() -> None:
        async with cache.lock("leaks", expire=5):
            assert list(await asyncio.gather(twice(4), twice(4))) == [8, 8]

    return use


def limits_storage(url: str) -> Callable[[], Any]:
    import data_bridge.kv.limits  # noqa: F401 - registers the scheme
    from limits import parse
    from limits.aio import strategies as asynchronous
    from limits.storage import storage_from_string
    from limits.strategies import FixedWindowRateLimiter

    async def use() -> None:
        item = parse("100000/second")
        assert FixedWindowRateLimiter(storage_from_string(url)).hit(item, "leaks")
        storage: Any = storage_from_string(f"async+{url}")
        assert await asynchronous.MovingWindowRateLimiter(storage).hit(parse("5/second"), str(uuid.uuid4()))

    return use


def store_helpers(url: str) -> Callable[[], None]:
    client = kv.connect(url)
    near = kv.near_cache(client, "leaks:")
    near.__enter__()

    def use() -> None:
        work = tasks.Tasks(client, "leaks")
        name = work.create({"to": "x"})
        claimed = work.claim(timeout=60)
        assert claimed is not None
        work.succeed(claimed, 1)
        assert work.wait(name, timeout=60).result == 1
        client.delete(f"leaks:{name}")
        with kv.lock(client, "leaks", timeout=60), kv.semaphore(client, "places", 2, timeout=60):
            assert kv.cached(client, ttl=1, key="cached:{number}")(lambda number: number)(4) == 4
        assert near.get("leaks:none") is None
        client.watch(prefix="leaks:").close()

    return use


def asynchronous_client(url: str) -> Callable[[], Any]:
    async def use() -> None:
        async with kv.aio.connect(url) as client:
            waiting = [asyncio.ensure_future(client.wait("never", until=1)) for _ in range(3)]
            async with kv.near_cache(client, "key") as near:
                await near.set("key", 1, ttl=1)
                assert await near.get("key") == 1
            waiting[0].cancel()
            with pytest.raises(TimeoutError):
                await client.wait("never", until=1, timeout=0.001)
        await asyncio.gather(*waiting, return_exceptions=True)

    return use


USES: list[Use] = [
    celery_results,
    dramatiq_results,
    taskiq_results,
    huey_storage,
    django_cache,
    cachelib_cache,
    dogpile_region,
    aiocache_cache,
    cashews_cache,
    limits_storage,
    store_helpers,
    asynchronous_client,
]


def run(use: Callable[[], Any], rounds: int) -> None:
    """Rounds of a use, each in a thread that ends."""

    def once() -> None:
        try:
            if (awaited := use()) is not None:
                asyncio.run(awaited)
        except BaseException as error:
            failed.append(error)

    failed: list[BaseException] = []
    for _ in range(rounds):
        thread = threading.Thread(target=once)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]


def held() -> dict[str, int]:
    """What this process holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "threads": sum(1 for _ in Path("/proc/self/task").iterdir()),
        "objects": len(gc.get_objects()),
        "bytes": pages * os.sysconf("SC_PAGE_SIZE"),
    }


def seen(monitor: kv.Client, most: int) -> int:
    """Connections that the server sees, once they are so few: it notices the end of one a moment later."""
    end = time.monotonic() + 60
    while True:
        facts = monitor._call(op.INFO, ("clients",))
        connections = int(facts.split("connected_clients:")[1].split("\r")[0])
        if connections <= most or time.monotonic() > end:
            return connections
        time.sleep(0.01)


def main(use: str, url: str) -> None:
    """Two counts of what is held, with rounds before and between."""
    act = globals()[use](url)
    with kv.connect(url) as monitor:
        monitor.ping()
        run(act, WARM)
        before = held()
        run(act, ROUNDS)
        after = held()
        json.dump([before, after, seen(monitor, after["descriptors"] - OTHER_FILES)], sys.stdout)


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_nothing_is_left(use: Use, own_server: Any) -> None:
    command = [sys.executable, __file__, use.__name__, own_server.url("tasks")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    before, after, connections = json.loads(ended.stdout)
    sys.stdout.write(f"{use.__name__}: {before} {after} {connections}\n")
    for name in ("descriptors", "threads"):
        assert after[name] <= before[name], (name, before, after)
    assert connections <= after["descriptors"] - OTHER_FILES
    assert after["objects"] < before["objects"] + ROUNDS, (before, after)
    assert after["bytes"] < before["bytes"] + SPARE_BYTES, (before, after)


if __name__ == "__main__":
    main(*sys.argv[1:])
