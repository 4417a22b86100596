"""Django's cache backend: what Django's own tests do not look at."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import django
import pytest
from data_bridge import kv
from data_bridge.kv.django import KVCache
from django.conf import settings
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends import base
from django.core.signals import request_finished

if not settings.configured:
    settings.configure(SECRET_KEY="tests", SESSION_ENGINE="django.contrib.sessions.backends.cache")
    django.setup()

CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.fixture(params=["memory", "remote"])
def location(request: pytest.FixtureRequest, server: Any) -> str:
    """Where the cache is."""
    return "memory://django" if request.param == "memory" else server.url("9")


@pytest.fixture
def cache(location: str) -> Iterator[KVCache]:
    """An empty cache."""
    made = KVCache(location, {})
    yield made
    made.clear()


@pytest.mark.parametrize(
    "value",
    [
        Decimal("1.10"),
        datetime(2026, 11, 24, tzinfo=UTC),
        {"a": [1, (2, {3})]},
        b"\xff",
        True,
        2**70,
        {SimpleNamespace: 1},
        {"a": 1, b"a": 2},
        Decimal("NaN"),
        "\ud800",
        [SimpleNamespace(a=1), 2],
        {frozenset({range(3)})},
    ],
    ids=repr,
)
def test_values_come_back_as_they_were(cache: KVCache, value: Any) -> None:
    async def awaited() -> list[Any]:
        await cache.aset("b", value)
        await cache.aadd("c", value)
        await cache.aset_many({"d": value})
        return list((await cache.aget_many(["b", "c", "d"])).values())

    cache.set("a", value)
    cache.add("e", value)
    cache.set_many({"f": value, "g": 1})
    for found in [cache.get("a"), cache.get("e"), cache.get("f"), *asyncio.run(awaited())]:
        assert (repr(found), type(found)) == (repr(value), type(value))


def test_only_what_has_no_kind_is_pickled(cache: KVCache) -> None:
    cache.set_many({"plain": {"price": Decimal("1.10")}, "object": SimpleNamespace(a=1), "itself": CYCLE})
    store = cache._store()
    assert [store.kind(f":1:{key}") for key in ("plain", "object", "itself")] == ["hash", "opaque", "opaque"]
    assert cache.get("itself")[0][0] is not None


def test_without_the_fallback_nothing_is_pickled(location: str) -> None:
    cache = KVCache(location, {"OPTIONS": {"fallback": None}})
    cache.set("key", [1, 2])
    for value in (SimpleNamespace(), CYCLE):
        with pytest.raises(kv.UnsupportedValueError):
            cache.set("key", value)
        with pytest.raises(kv.UnsupportedValueError):
            asyncio.run(cache.aset("key", value))
    assert cache.get("key") == [1, 2]


def test_timeouts(cache: KVCache) -> None:
    async def awaited() -> None:
        await cache.aset("c", 1, timeout=60)
        await cache.aset("e", 1, timeout=-1)
        assert await cache.atouch("c", timeout=None)
        assert await cache.atouch("c", timeout=None)
        assert not await cache.atouch("e", timeout=None)

    def left(key: str) -> float | None:
        return cache._store().ttl(f":1:{key}")

    cache.set("a", 1)
    cache.set("b", 1, timeout=0.25)
    assert 299 < (left("a") or 0) <= 300
    assert 0 < (left("b") or 0) <= 0.25
    asyncio.run(awaited())
    assert left("c") is None
    assert cache.touch("c", timeout=None)
    cache.set("d", 1, timeout=1e-9)
    assert cache.add("e", 1, timeout=-5)
    assert cache.get_many(["c", "e"]) == {"c": 1}
    assert cache.touch("a", timeout=-1)
    assert not cache.touch("a", timeout=-1)


def test_adding_is_one_step_and_keeps_the_deadline(cache: KVCache) -> None:
    cache.set_many({"int": 41, "float": 1.5, "decimal": Decimal("1.10")}, timeout=60)
    assert [cache.incr(key, 1) for key in ("int", "float", "decimal")] == [42, 2.5, Decimal("2.10")]
    assert (cache.decr("int", 0), cache.incr("int", 0.5), cache.incr("int", -50.5)) == (42, 42.5, -8.0)
    assert 59 < (cache._store().ttl(":1:int") or 0) <= 60
    for delta in (1, 0, -1, 1.5, -1.5):
        with pytest.raises(ValueError, match="Key 'lost' not found"):
            cache.incr("lost", delta)
        with pytest.raises(ValueError, match="Key 'lost' not found"):
            asyncio.run(cache.aincr("lost", delta))
    assert not cache.has_key("lost")
    cache.set("int", 2**63 - 2)
    with pytest.raises(kv.OutOfRangeError):
        cache.incr("int", 5)
    assert cache.get("int") == 2**63 - 2


def test_a_new_version_keeps_the_deadline(cache: KVCache) -> None:
    cache.set("key", 1, timeout=60)
    assert cache.incr_version("key") == 2
    assert asyncio.run(cache.aincr_version("key", version=2)) == 3
    assert 59 < (cache._store().ttl(":3:key") or 0) <= 60
    assert not cache.has_key("key")
    with pytest.raises(ValueError, match="not found"):
        asyncio.run(cache.adecr_version("key"))


def test_nothing_asynchronous_uses_a_thread(cache: KVCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_args: Any, **_options: Any) -> None:
        raise AssertionError("a thread")

    async def every() -> None:
        before = threading.active_count()
        assert await cache.aadd("a", 1)
        assert (await cache.aget("a"), await cache.aget("b", "none")) == (1, "none")
        await cache.aset("a", 2)
        assert await cache.atouch("a", 60)
        assert (await cache.aincr("a"), await cache.adecr("a")) == (3, 2)
        assert await cache.aset_many({"b": 1, "c": 2}) == []
        assert await cache.aget_many(["b", "c", "d"]) == {"b": 1, "c": 2}
        assert await cache.aget_or_set("d", lambda: 5) == 5
        assert await cache.ahas_key("d")
        assert await cache.adelete("d")
        await cache.adelete_many(["b"])
        assert (await cache.aincr_version("a"), await cache.adecr_version("a", version=2)) == (2, 1)
        await asyncio.gather(*(cache.aset(str(number), number) for number in range(100)))
        assert sorted(await asyncio.gather(*(cache.aget(str(n)) for n in range(100)))) == list(range(100))
        await cache.aclear()
        assert not await cache.ahas_key("a")
        await cache.aclose()
        assert threading.active_count() == before

    monkeypatch.setattr(base, "sync_to_async", refused)
    monkeypatch.setattr("data_bridge.kv.django.sync_to_async", refused)
    asyncio.run(every())


def test_backends_of_one_place_share_it(server: Any) -> None:
    first, second = KVCache(server.url("9"), {}), KVCache(server.url("9"), {"KEY_PREFIX": "other"})
    assert first._store() is second._store()
    assert KVCache(server.url("8"), {})._store() is not first._store()

    async def on_one_loop() -> bool:
        await first.aset("a", 1)
        return first._async_store() is second._async_store()

    assert asyncio.run(on_one_loop())


def test_a_loop_that_ends_closes_its_connection(server: Any) -> None:
    code = f"""
import asyncio, gc
from data_bridge.kv.django import KVCache
for _ in range(20):
    asyncio.run(KVCache({server.url("9")!r}, {{}}).aset("a", 1))
gc.collect()
import os
print(sum("socket" in os.readlink(f"/proc/self/fd/{{fd}}") for fd in os.listdir("/proc/self/fd")
    if os.path.exists(f"/proc/self/fd/{{fd}}") or os.path.lexists(f"/proc/self/fd/{{fd}}")))
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("0", "")


def test_a_forked_child_goes_on(location: str, cache: KVCache) -> None:
    cache.set("a", 1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            # What is in the memory of a process is that process's.
            found = cache.get("a")
            cache.set("b", 2)
            asyncio.run(cache.aset("c", 3))
            same = (found, cache.get("b"), cache.get("c"))
            status = 0 if same == (None if location.startswith("memory") else 1, 2, 3) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cache.get("a") == 1


def test_mistakes_are_told_at_once(server: Any) -> None:
    with pytest.raises(InvalidCacheBackendError, match="memory budget"):
        KVCache(server.url(), {"OPTIONS": {"MAX_ENTRIES": 10}})
    with pytest.raises(TypeError, match="max_entrys"):
        KVCache(server.url(), {"OPTIONS": {"max_entrys": 10}})
    with pytest.raises(kv.InvalidArgumentError, match="a URL is"):
        KVCache("redis://127.0.0.1", {})
    with pytest.raises(InvalidCacheBackendError, match=r"the URL of one server, not \['kv:"):
        KVCache([server.url()], {})  # type: ignore[arg-type]
    with pytest.raises(kv.InvalidKeyError, match="256"), pytest.warns(base.CacheKeyWarning):
        KVCache(server.url(), {}).set("a" * 300, 1)


def test_the_end_of_a_request_leaves_connections_open(server: Any) -> None:
    params = {"BACKEND": "data_bridge.kv.django.KVCache", "LOCATION": server.url("9")}
    settings.CACHES = {"default": params}
    caches._settings = caches.settings = caches.configure_settings(None)
    cache = caches["default"]
    cache.set("a", 1)
    store = cache._store()
    request_finished.send(object)
    assert (cache.get("a"), cache._store()) == (1, store)
    assert store._connections == (1, 1)
    assert isinstance(pickle.loads(pickle.dumps(store)), kv.Client)
