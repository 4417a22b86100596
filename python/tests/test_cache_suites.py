"""The suites of dogpile.cache, cachelib, aiocache and cashews against our adapters.

That of dogpile.cache comes with it, the others by `scripts/test-suites`.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
import inspect
import queue
import sys
import tarfile
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cashews
import pytest
from data_bridge.kv.aiocache import KVCache as AiocacheCache
from data_bridge.kv.cachelib import KVCache as CachelibCache
from data_bridge.kv.cashews import KVBackend as CashewsBackend
from data_bridge.kv.dogpile import KVBackend
from dogpile.cache import register_backend
from dogpile.testing import fixtures

ARCHIVES = Path(__file__).parents[2] / "target" / "test-suites"
FEWEST = {"aiocache": 25, "cachelib": 11, "cashews": 30}
"""Tests of the pinned versions, rounded down: fewer would mean that they were not found."""


def unpacked(name: str, into: Path) -> Path:
    """The folder of a distribution."""
    archives = list(ARCHIVES.glob(f"{name}-*.tar.gz")) if (ARCHIVES / "complete").exists() else []
    if not archives:
        pytest.skip(f"{name}'s tests are not here: scripts/test-suites could not reach the package registry")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(into, filter="data")
    (folder,) = into.glob(f"{name}-*")
    return folder


@pytest.fixture
def urls(server: Any) -> list[str]:
    """Where the caches are."""
    return ["memory://suites", server.url("10")]


def loaded(name: str, path: Path) -> types.ModuleType:
    """The module that a file of a suite is."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_all(tests: dict[str, Callable[[], None]]) -> None:
    """Runs tests at once, since most of their time is sleep, and tells which failed."""
    with ThreadPoolExecutor(len(tests)) as pool:
        done = {name: pool.submit(test) for name, test in tests.items()}
    failed = {name: future.exception() for name, future in done.items() if future.exception()}
    assert not failed, "\n".join(f"{name}: {error!r}" for name, error in failed.items())


def methods(cls: type, parameter: str) -> list[str]:
    """The tests of a class that need only this."""
    return [
        name
        for name, test in inspect.getmembers(cls, inspect.isfunction)
        if name.startswith("test_") and list(inspect.signature(test).parameters)[1:] in ([parameter], [])
    ]


def test_cachelib(urls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tests = unpacked("cachelib", tmp_path) / "tests"
    # Its conftest starts other servers with a plugin that nothing here uses.
    monkeypatch.setitem(sys.modules, "xprocess", types.SimpleNamespace(ProcessStarter=object))
    for name in ("conftest", "common", "clear", "has"):
        monkeypatch.setitem(sys.modules, name, loaded(name, tests / f"{name}.py"))
    classes = (
        sys.modules["common"].CommonTests,
        sys.modules["clear"].ClearTests,
        sys.modules["has"].HasTests,
    )

    def one(url: str, cls: Any, name: str) -> Callable[[], None]:
        def factory(_self: Any, **options: Any) -> CachelibCache:
            return CachelibCache(url, key_prefix=f"{name}:", **options)

        return getattr(type(cls.__name__, (cls,), {"cache_factory": factory})(), name)  # type: ignore[no-any-return]

    named = [(cls, name) for cls in classes for name in methods(cls, "")]
    assert len(named) >= FEWEST["cachelib"]
    run_all({f"{name} in {url}": one(url, cls, name) for cls, name in named for url in urls})


def test_aiocache(urls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(unpacked("aiocache", tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        monkeypatch.delitem(sys.modules, name)
    base: Any = importlib.import_module("tests.acceptance.test_base")
    lock: Any = importlib.import_module("tests.acceptance.test_lock")

    def one(url: str, cls: type, name: str) -> Callable[[], None]:
        async def test() -> None:
            # All run at once, so each has keys of its own; aiocache knows its locks by key in the whole process.
            def build_key(key: Any, namespace: str | None = None) -> str:
                return f"{url}:{cls.__name__}.{name}:{namespace}:{getattr(key, 'value', key)}"

            async with AiocacheCache(url, namespace="test", key_builder=build_key) as cache:
                call = getattr(cls(), name)
                await (call(cache) if inspect.signature(call).parameters else call())

        return lambda: asyncio.run(test())

    classes = (base.TestCache, lock.TestRedLock, lock.TestOptimisticLock)
    named = [(cls, name) for cls in classes for name in methods(cls, "cache")]
    assert len(named) >= FEWEST["aiocache"]
    named.remove((base.TestCache, "test_clear"))
    run_all({f"{cls.__name__}.{name} in {url}": one(url, cls, name) for cls, name in named for url in urls})
    run_all({f"test_clear in {url}": one(url, base.TestCache, "test_clear") for url in urls})


def test_cashews(urls: list[str], tmp_path: Path) -> None:
    commands = loaded(
        "cashews_commands", unpacked("cashews", tmp_path) / "tests" / "test_backend_commands.py"
    )
    # They all use the same keys: each has a store in memory, or a namespace, of its own while it runs.
    in_memory, remote = urls
    free: dict[str, queue.SimpleQueue[str]] = {url: queue.SimpleQueue() for url in urls}
    for number in range(3, 16):
        free[in_memory].put(f"{in_memory}{number}")
        free[remote].put(f"{remote.rpartition('/')[0]}/{number}")

    def one(url: str, test: Any) -> Callable[[], None]:
        async def with_cache(place: str) -> None:
            cache = cashews.Cache()
            assert isinstance(cache.setup(place), CashewsBackend)
            await cache.init()
            await cache.clear()
            await test(cache)

        def run() -> None:
            place = free[url].get()
            try:
                asyncio.run(with_cache(place))
            finally:
                free[url].put(place)

        return run

    tests = [test for test in vars(commands).values() if inspect.iscoroutinefunction(test)]
    named = {test.__name__: test for test in tests if list(inspect.signature(test).parameters) == ["cache"]}
    assert len(named) >= FEWEST["cashews"]
    del named["test_expire"]  # expects to read a value within the ten milliseconds that it lives
    run_all({f"{name} in {url}": one(url, test) for name, test in named.items() for url in urls})


register_backend(  # type: ignore[no-untyped-call]
    "data_bridge.kv.tested", "data_bridge.kv.dogpile", "KVBackend"
)


@pytest.fixture(scope="module", autouse=True)
def dogpile_url(server: Any) -> None:
    """Where dogpile's suites find the server; it is there only when they run."""
    for cls in (TestDogpile, TestDogpileSerializer, TestDogpileLock):
        cls.config_args = {"arguments": {**cls.config_args["arguments"], "url": server.url("11")}}


class TestDogpile(fixtures._GenericBackendTestSuite):
    """The backend without a serializer."""

    backend = "data_bridge.kv.tested"
    config_args: dict[str, Any] = {"arguments": {}}  # noqa: RUF012

    # These two take long, and run with the locks.
    test_threaded_get_multi = None  # pyright: ignore[reportAssignmentType]
    test_threaded_dogpile = None  # pyright: ignore[reportAssignmentType]


class TestDogpileSerializer(fixtures._GenericSerializerTestSuite, TestDogpile):
    """The backend of a region with a serializer of its own."""


class TestDogpileLock(fixtures._GenericMutexTestSuite, fixtures._GenericBackendTestSuite):
    """The backend with locks across processes."""

    backend = "data_bridge.kv.tested"
    config_args: dict[str, Any] = {"arguments": {"distributed_lock": True}}  # noqa: RUF012


def test_dogpile_finds_the_backend_by_its_entry_point() -> None:
    (found,) = importlib.metadata.entry_points(group="dogpile.cache", name="data_bridge.kv")
    assert found.load() is KVBackend
