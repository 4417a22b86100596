"""The suites of dogpile.cache, cachelib and aiocache against our adapters; `scripts/test-suites` fetches the latter."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
import tarfile
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest
from data_bridge.kv.aiocache import KVCache as AiocacheCache
from data_bridge.kv.cachelib import KVCache as CachelibCache
from data_bridge.kv.dogpile import KVBackend
from dogpile.cache import register_backend
from dogpile.testing import fixtures

ARCHIVES = Path(__file__).parents[2] / "target" / "test-suites"
FEWEST = {"aiocache": 25, "cachelib": 11}
"""Tests of the pinned versions, rounded down: fewer would mean that they were not found."""
WAYS = ["memory", "remote"]


def unpacked(name: str, into: Path) -> Path:
    """The folder of a distribution."""
    archives = list(ARCHIVES.glob(f"{name}-*.tar.gz")) if (ARCHIVES / "complete").exists() else []
    if not archives:
        pytest.skip(f"{name}'s tests are not here: scripts/test-suites could not reach the package registry")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(into, filter="data")
    (folder,) = into.glob(f"{name}-*")
    return folder


@pytest.fixture(params=WAYS)
def url(request: pytest.FixtureRequest, server: Any) -> str:
    """Where the caches are."""
    return "memory://suites" if request.param == "memory" else str(server.url("10"))


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


def test_cachelib(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tests = unpacked("cachelib", tmp_path) / "tests"
    # Its conftest starts other servers with a plugin that nothing here uses.
    monkeypatch.setitem(sys.modules, "xprocess", types.SimpleNamespace(ProcessStarter=object))
    for name in ("conftest", "common", "clear", "has"):
        spec = importlib.util.spec_from_file_location(name, tests / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
    classes = (
        sys.modules["common"].CommonTests,
        sys.modules["clear"].ClearTests,
        sys.modules["has"].HasTests,
    )

    def one(cls: Any, name: str) -> Callable[[], None]:
        def factory(_self: Any, **options: Any) -> CachelibCache:
            return CachelibCache(url, key_prefix=f"{name}:", **options)

        return getattr(type(cls.__name__, (cls,), {"cache_factory": factory})(), name)  # type: ignore[no-any-return]

    found = {name: one(cls, name) for cls in classes for name in methods(cls, "")}
    assert len(found) >= FEWEST["cachelib"]
    run_all(found)


def test_aiocache(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(unpacked("aiocache", tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        monkeypatch.delitem(sys.modules, name)
    base: Any = importlib.import_module("tests.acceptance.test_base")
    lock: Any = importlib.import_module("tests.acceptance.test_lock")

    def one(cls: type, name: str) -> Callable[[], None]:
        async def test() -> None:
            # All run at once, so each has keys of its own.
            def build_key(key: Any, namespace: str | None = None) -> str:
                return f"{cls.__name__}.{name}:{namespace}:{getattr(key, 'value', key)}"

            async with AiocacheCache(url, namespace="test", key_builder=build_key) as cache:
                call = getattr(cls(), name)
                await (call(cache) if inspect.signature(call).parameters else call())

        return lambda: asyncio.run(test())

    classes = (base.TestCache, lock.TestRedLock, lock.TestOptimisticLock)
    found = {f"{cls.__name__}.{name}": one(cls, name) for cls in classes for name in methods(cls, "cache")}
    assert len(found) >= FEWEST["aiocache"]
    clears = found.pop("TestCache.test_clear")
    run_all(found)
    clears()


register_backend("data_bridge.kv.tested", "data_bridge.kv.dogpile", "KVBackend")


@pytest.fixture(scope="module", autouse=True)
def dogpile_url(server: Any) -> None:
    """Where dogpile's suites find the server; it is there only when they run."""
    for cls in (TestDogpile, TestDogpileSerializer, TestDogpileLock):
        cls.config_args = {"arguments": {**cls.config_args["arguments"], "url": server.url("11")}}


class TestDogpile(fixtures._GenericBackendTestSuite):  # type: ignore[misc]
    """The backend without a serializer."""

    backend = "data_bridge.kv.tested"
    config_args: ClassVar[dict[str, Any]] = {"arguments": {"url": "memory://suites"}}

    test_threaded_get_multi = None  # with the lock's suite
    test_threaded_dogpile = None


class TestDogpileSerializer(fixtures._GenericSerializerTestSuite, TestDogpile):  # type: ignore[misc]
    """The backend of a region with a serializer of its own."""


class TestDogpileLock(fixtures._GenericMutexTestSuite, fixtures._GenericBackendTestSuite):  # type: ignore[misc]
    """The backend with locks across processes."""

    backend = "data_bridge.kv.tested"
    config_args: ClassVar[dict[str, Any]] = {
        "arguments": {"url": "memory://suites", "distributed_lock": True}
    }


def test_dogpile_finds_the_backend_by_its_entry_point() -> None:
    (found,) = importlib.metadata.entry_points(group="dogpile.cache", name="data_bridge.kv")
    assert found.load() is KVBackend
