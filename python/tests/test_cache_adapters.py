"""The adapters of cachelib, Flask-Caching, dogpile.cache, aiocache, cashews and limits: what is ours in them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import aiocache
import aiocache.lock
import cashews
import limits
import limits.aio.strategies
import limits.errors
import limits.storage
import limits.strategies
import pytest
from aiocache.serializers import JsonSerializer
from cashews.exceptions import LockedError
from data_bridge import kv
from data_bridge.kv.aiocache import KVCache as AiocacheCache
from data_bridge.kv.cachelib import KVCache as CachelibCache
from data_bridge.kv.cashews import KVBackend as CashewsBackend
from data_bridge.kv.dogpile import KVBackend as DogpileBackend
from data_bridge.kv.limits import AsyncKVStorage, KVStorage
from data_bridge.kv.taskiq import ResultBackend as TaskiqResults
from dogpile.cache import make_region, register_backend
from dogpile.cache.api import NO_VALUE
from flask import Flask
from flask_caching import Cache as FlaskCache

VALUES: dict[str, Any] = {
    "decimal": Decimal("1.10"),
    "tuple": (1, {"a": b"\xff"}),
    "none": None,
    "object": SimpleNamespace(a=1),
    "field": {range(3): 1},
}
"""Of these the last two are pickled, the very last as a whole."""

register_backend(  # type: ignore[no-untyped-call]
    "data_bridge.kv.adapter", "data_bridge.kv.dogpile", "KVBackend"
)


@pytest.fixture(params=["memory", "remote"])
def url(request: pytest.FixtureRequest, server: Any) -> str:
    """Where an empty cache is."""
    where = "memory://adapters" if request.param == "memory" else str(server.url("12"))
    CachelibCache(where).clear()
    return where


def same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether values are equal, and of the same types."""
    return repr(found) == repr(wanted)


def test_cachelib(url: str) -> None:
    cache = CachelibCache(url, key_prefix="a:", default_timeout=60)
    other = CachelibCache(url, key_prefix="b:")
    assert cache.set_many(VALUES) == list(VALUES)
    assert same(cache.get_dict(*VALUES), VALUES)
    for name, value in VALUES.items():
        assert cache.add(f"{name}-added", value)
        assert cache.set(f"{name}-set", value, timeout=timedelta(seconds=30))
    store = cache._store()
    assert [store.kind(f"a:{name}") for name in VALUES] == ["decimal", "tuple", "null", "opaque", "opaque"]
    assert 59 < (store.ttl("a:decimal") or 0) <= 60
    assert 29 < (store.ttl("a:none-set") or 0) <= 30
    cache.set("for ever", 1, timeout=0)
    assert store.ttl("a:for ever") is None
    assert (cache.inc("count", 3), cache.dec("count")) == (3, 2)
    assert 59 < (store.ttl("a:count") or 0) <= 60
    other.set("kept", 1)
    assert cache.clear()
    assert (list(store), cache.get_many(), cache.get("count")) == (["b:kept"], [], None)
    typed_only = CachelibCache(url, fallback=None)
    with pytest.raises(kv.UnsupportedValueError):
        typed_only.set("object", VALUES["object"])


def test_flask_caching(url: str) -> None:
    app = Flask(__name__)
    config = {
        "CACHE_TYPE": "data_bridge.kv.flask_caching.kv_cache",
        "CACHE_KV_URL": url,
        "CACHE_KEY_PREFIX": "site:",
        "CACHE_DEFAULT_TIMEOUT": 60,
    }
    cache = FlaskCache(app, config=config)
    calls: list[int] = []

    @app.route("/price/<int:sku>")
    @cache.cached()
    def price(sku: int) -> str:
        calls.append(sku)
        return str(sku)

    with app.test_client() as client:
        assert [client.get("/price/7").text for _ in range(3)] == ["7", "7", "7"]
    assert calls == [7]
    with app.app_context():
        assert isinstance(cache.cache, CachelibCache)
        (name,) = cache.cache._store().keys()
        assert name.startswith("site:view/")
        cache.clear()
        assert not list(cache.cache._store())


def test_dogpile(url: str) -> None:
    arguments = {"url": url, "expiration_time": 60}
    region: Any = make_region().configure("data_bridge.kv.adapter", arguments=arguments)
    region.set_multi(VALUES)
    assert same(dict(zip(VALUES, region.get_multi(list(VALUES)), strict=True)), VALUES)
    store = DogpileBackend(arguments)._store()
    assert (store.kind("decimal"), store.kind("field")) == ("tuple", "opaque")
    assert store["decimal"][0] == Decimal("1.10")
    assert 59 < (store.ttl("decimal") or 0) <= 60
    assert region.get("lost") is NO_VALUE
    region.delete_multi(list(VALUES))
    assert not list(store)
    locked: Any = make_region().configure(
        "data_bridge.kv.adapter", arguments={**arguments, "distributed_lock": True}
    )
    for name in ("k" * 251, "k" * 252, "k" * 5000):
        assert [locked.get_or_create(name, lambda name=name: len(name)) for _ in range(2)] == [len(name)] * 2
    assert sorted(len(name) for name in store if not name.startswith("lock:")) == [40, 40, 251]


def test_dogpiles_lock_is_one_across_processes(server: Any) -> None:
    code = f"""
import time
from data_bridge import kv
from dogpile.cache import make_region, register_backend
register_backend("kv", "data_bridge.kv.dogpile", "KVBackend")
arguments = {{"url": {server.url("12")!r}, "distributed_lock": True}}
region = make_region().configure("kv", expiration_time=60, arguments=arguments)
store = kv.connect({server.url("12")!r})
def create():
    time.sleep(0.002)  # as if it took work
    return store.incr(f"calls:{{n}}")
store.incr("ready")
store.wait("ready", until=3, timeout=60)
for n in range(50):
    assert region.get_or_create(f"value:{{n}}", create) == 1
"""
    with kv.connect(server.url("12")) as store:
        store.clear()
        started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
        assert [process.wait(60) for process in started] == [0, 0, 0]
        assert [store[f"calls:{n}"] for n in range(50)] == [1] * 50


def test_aiocache(url: str) -> None:
    async def test() -> None:
        async with AiocacheCache(url, namespace="ns", ttl=60) as cache:
            await cache.multi_set(list(VALUES.items()))
            found = await cache.multi_get(list(VALUES))
            assert same(dict(zip(VALUES, found, strict=True)), VALUES)
            for name, value in VALUES.items():
                assert await cache.set(f"{name}-set", value)
                assert await cache.add(f"{name}-add", value)
            assert sorted(await cache.raw("get_many", ["ns:none"])) == ["ns:none"]
            assert 59 < await cache.raw("ttl", "ns:none") <= 60
            async with aiocache.lock.OptimisticLock(cache, "decimal") as lock:
                await cache.set("decimal", 2)
                with pytest.raises(aiocache.lock.OptimisticLockError):
                    await lock.cas(3)
            json = AiocacheCache(url, serializer=JsonSerializer(), namespace="json")
            await json.set("key", (1, 2))
            assert (await json.get("key"), await json.raw("get", "json:key")) == ([1, 2], "[1, 2]")
            assert await json.increment("count", 7) == 7
            assert await json.multi_get(["count", "key"]) == [await json.get("count"), [1, 2]] == [7, [1, 2]]
            await json.delete("count")
            for ttl, is_over in (
                (0, False),
                (5, False),
                (-1, True),
            ):  # 0 is for ever, as in aiocache's own caches
                await cache.expire("none-set", ttl)
                assert await cache.exists("none-set") is not is_over
            await cache.clear(namespace="ns")
            assert [key async for key in cache._store()] == ["json:key"]

        cached: Any = aiocache.cached(cache=AiocacheCache, url=url)

        @cached  # type: ignore[untyped-decorator]
        async def price(sku: int) -> Decimal:
            return Decimal(sku) / 10

        assert [await price(11), await price(11)] == [Decimal("1.1")] * 2

    asyncio.run(test())


def test_cashews(url: str) -> None:
    async def test() -> None:
        cache = cashews.Cache()
        backend = cache.setup(url)
        assert isinstance(backend, CashewsBackend)
        await cache.set_many(VALUES, expire=60)
        found = await cache.get_many(*VALUES)
        assert same(dict(zip(VALUES, found, strict=True)), VALUES)
        assert await cache.get_expire("none") == 60
        assert sorted([key async for key in cache.scan("*e*")]) == [
            "decimal",
            "field",
            "none",
            "object",
            "tuple",
        ]
        assert [key async for key in cache.scan("de*l")] == ["decimal"]
        for seconds in (0, -1):  # over at once, as in Redis
            await cache.set("short", 1)
            await cache.expire("short", seconds)
            assert not await cache.exists("short")
        await cache.delete_match("*e*")
        assert await cache.get_keys_count() == 0
        many = [cache.incr_bits("bits", index, index + 1, size=4) for index in range(20)]
        await asyncio.gather(*many)
        assert await cache.get_bits("bits", 0, 1, 20, 21, size=4) == (1, 2, 1, 0)
        counts = await asyncio.gather(*(cache.slice_incr("slice", 0, n, 7, expire=60) for n in range(1, 20)))
        assert sorted(counts) == [1, 2, 3, 4, 5, 6] + [7] * 13

        @cache(ttl="1m", key="price:{sku}", lock=True)
        async def price(sku: int) -> Decimal:
            await cache.incr("calls")
            return Decimal(sku) / 10

        assert await asyncio.gather(*(price(11) for _ in range(10))) == [Decimal("1.1")] * 10
        assert await cache.get("calls") == 1

    asyncio.run(test())


def test_whoever_waits_for_a_lock_of_cashews_is_woken(url: str) -> None:
    async def test() -> None:
        cache = cashews.Cache()
        cache.setup(url)
        entered: list[str] = []

        async def late() -> None:
            async with cache.lock("lock", expire=60):
                entered.append("late")

        async with cache.lock("lock", expire=60):
            waiting = asyncio.create_task(late())
            asked = asyncio.create_task(cache.is_locked("lock", wait=60))
            assert await cache.is_locked("lock", wait=0.05)
            with pytest.raises(LockedError):
                async with cache.lock("lock", expire=60, wait=False):
                    pass
            entered.append("first")
        await asyncio.wait_for(waiting, 20)
        await asyncio.wait_for(asked, 20)
        assert entered == ["first", "late"]
        assert not await cache.is_locked("lock")

    asyncio.run(test())


STRATEGIES = ["FixedWindowRateLimiter", "MovingWindowRateLimiter", "SlidingWindowCounterRateLimiter"]


def storage(url: str, prefix: str = "") -> Any:
    """The storage of limits for a place."""
    made = limits.storage.storage_from_string(prefix + url.replace("memory://", "kv+memory://"))
    assert isinstance(made, AsyncKVStorage if prefix else KVStorage)
    made._store().clear() if not prefix else None
    return made


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_limits(url: str, strategy: str) -> None:
    limiter = getattr(limits.strategies, strategy)(storage(url))
    limit = limits.parse("10/hour")
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: limiter.hit(limit, "ada"), range(60))) == 10
    assert limiter.hit(limit, "bob", cost=9)
    assert [limiter.test(limit, who) for who in ("ada", "bob", "eve")] == [False, True, True]
    stats = limiter.get_window_stats(limit, "bob")
    assert stats.remaining == 1
    assert time.time() < stats.reset_time < time.time() + 7200
    assert not limiter.hit(limit, "bob", cost=2)
    limiter.clear(limit, "bob")
    assert limiter.hit(limit, "bob", cost=10)
    assert not limiter.hit(limit, "zoe", cost=11)
    assert limiter.storage.check()
    assert limiter.storage.reset() >= 2
    assert limiter.hit(limit, "ada", cost=10)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_asynchronous_limits(url: str, strategy: str) -> None:
    async def test() -> None:
        limiter = getattr(limits.aio.strategies, strategy)(storage(url, "async+"))
        limit = limits.parse("10/hour")
        assert sum(await asyncio.gather(*(limiter.hit(limit, "ada") for _ in range(60)))) == 10
        assert [await limiter.test(limit, who) for who in ("ada", "bob")] == [False, True]
        assert (await limiter.get_window_stats(limit, "bob")).remaining == 10
        await limiter.clear(limit, "ada")
        assert await limiter.hit(limit, "ada", cost=10)
        assert await limiter.storage.check()
        assert await limiter.storage.reset() >= 1
        assert await limiter.hit(limit, "ada", cost=10)

    asyncio.run(test())


def test_a_sliding_window_weighs_the_one_before(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [3600.0 * 500_000]
    monkeypatch.setattr("data_bridge.kv.limits.time.time", lambda: now[0])
    limiter = limits.strategies.SlidingWindowCounterRateLimiter(storage(url))
    limit = limits.parse("10/hour")
    assert limiter.hit(limit, "ada", cost=10)
    now[0] += 3600 * 1.5
    assert [limiter.hit(limit, "ada") for _ in range(6)] == [True] * 5 + [False]
    moving = limits.strategies.MovingWindowRateLimiter(storage(url))
    assert moving.hit(limit, "bob", cost=6)
    now[0] += 1800
    assert [moving.hit(limit, "bob", cost=cost) for cost in (5, 4)] == [False, True]
    now[0] += 1801
    assert [moving.hit(limit, "bob", cost=cost) for cost in (7, 6)] == [False, True]


def test_errors_of_the_store_become_those_of_limits() -> None:
    unreachable = limits.storage.storage_from_string("kv://127.0.0.1:1", wrap_exceptions=True)
    with pytest.raises(limits.errors.StorageError):
        limits.strategies.FixedWindowRateLimiter(unreachable).hit(limits.parse("1/second"))
    assert not unreachable.check()


Made = Callable[[str], Any]


def set_up(url: str) -> Any:
    """A cache of cashews."""
    cache = cashews.Cache()
    cache.setup(url)
    return cache


@pytest.mark.parametrize(
    "make",
    [
        CachelibCache,
        AiocacheCache,
        CashewsBackend,
        lambda url: DogpileBackend({"url": url}),
        TaskiqResults,
    ],
    ids=["cachelib", "aiocache", "cashews", "dogpile", "taskiq"],
)
def test_a_url_that_is_none_is_refused_at_once(make: Made) -> None:
    with pytest.raises(kv.InvalidArgumentError, match="a URL is"):
        make("http://127.0.0.1")


@pytest.mark.parametrize("make", [set_up, limits.storage.storage_from_string], ids=["cashews", "limits"])
@pytest.mark.parametrize("url", ["kvs://127.0.0.1", "async+kvs://127.0.0.1"])
def test_a_scheme_that_frameworks_look_up_is_refused_in_words(make: Made, url: str) -> None:
    if make is set_up:
        url = url.removeprefix("async+")
    with pytest.raises(kv.UnavailableError, match=r"^kvs:// is not available yet"):
        make(url)
