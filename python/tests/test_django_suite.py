"""Django's own cache and session tests against our backend, each way it can be used in a process of its own.

Started as a program it runs them: `test_django_suite.py SUITES URL BACKEND`.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from data_bridge.kv.django import KVCache

ARCHIVES = Path(__file__).parents[2] / "target" / "test-suites"
SYNC, ASYNC = "data_bridge.kv.django.KVCache", "test_django_suite.AwaitedCache"
WAYS = [("memory://suite", SYNC), ("memory://suite", ASYNC), ("kv", SYNC), ("kv", ASYNC)]
FOLDERS = [["cache"], ["sessions_tests"]]
FEWEST = {"cache": 50, "sessions": 130}
"""Tests that are in Django 5.2, rounded down: fewer would mean that they were not found."""


def awaited(name: str) -> Callable[..., Any]:
    """The method that runs its asynchronous twin on a loop of its own."""

    def method(self: KVCache, *args: Any, **options: Any) -> Any:
        return async_to_sync(getattr(self, f"a{name}"))(*args, **options)

    return method


NAMES = [name[1:] for name in dir(KVCache) if name.startswith("a") and hasattr(KVCache, name[1:])]
AwaitedCache = type("AwaitedCache", (KVCache,), {name: awaited(name) for name in NAMES})
"""The backend with every method going through the asynchronous one."""


@pytest.fixture(scope="module")
def running(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Any, Any]]:
    """Django's tests, all ways at once: most of their time is sleep."""
    archives = list(ARCHIVES.glob("[Dd]jango-*.tar.gz")) if (ARCHIVES / "complete").exists() else []
    if not archives:
        pytest.skip("Django's tests are not here: scripts/test-suites could not reach the package registry")
    folder = tmp_path_factory.mktemp("django")
    with tarfile.open(archives[0]) as archive:
        wanted = [member for member in archive if member.name.split("/")[1:2] == ["tests"]]
        archive.extractall(
            folder, [file for file in wanted if file.name.split("/")[2:3] in FOLDERS], filter="data"
        )
    (suites,) = folder.glob("*/tests")
    with ExitStack() as stack:
        started = {}
        for number, (url, backend) in enumerate(WAYS):
            where = server.url(str(number)) if url == "kv" else url
            command = [sys.executable, __file__, str(suites), where, backend]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            started[url, backend] = stack.enter_context(process)
        yield started


@pytest.mark.parametrize(
    "way", WAYS, ids=lambda way: f"{way[0].partition(':')[0]}-{way[1].rpartition('.')[2]}"
)
def test_djangos_own_tests(running: dict[Any, Any], way: tuple[str, str]) -> None:
    output, _ = running[way].communicate(timeout=100)
    assert running[way].returncode == 0, output
    for suite, fewest in FEWEST.items():
        if suite == "sessions" and way[1] == ASYNC:
            continue
        (line,) = [line for line in output.splitlines() if line.startswith(f"{suite}: ")]
        assert int(line.split()[1]) >= fewest, output


def configured(location: str, backend: str) -> None:
    """Django, set up for its test applications and one cache."""
    import django
    from django.conf import settings

    settings.configure(
        DATABASES={
            name: {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
            for name in ("default", "other")
        },
        INSTALLED_APPS=["django.contrib.sessions", "cache", "sessions_tests"],
        CACHES={"default": {"BACKEND": backend, "LOCATION": location}},
        MIDDLEWARE=[],
        SECRET_KEY="tests",
        USE_TZ=False,
    )
    django.setup()


def main(suites: str, location: str, backend: str) -> int:
    """Runs Django's tests with our backend as the cache; how many failed."""
    sys.path.insert(0, suites)
    configured(location, backend)
    import unittest

    from django.test import TestCase, override_settings
    from django.test.runner import DiscoverRunner

    suite: Any = __import__("cache.tests").tests
    sessions: Any = __import__("sessions_tests.tests").tests
    caches = override_settings(
        CACHES=suite.caches_setting_for_tests(BACKEND=backend, LOCATION=location, TIMEOUT=600)
    )
    ours: dict[str, list[Any]] = {
        "cache": [caches(type("KVCacheTests", (suite.BaseCacheTests, TestCase), {}))]
    }
    if backend == SYNC:
        # They await too, and in between call what is not asynchronous on the same loop.
        ours["sessions"] = [sessions.CacheSessionTests, sessions.CacheDBSessionTests]
    failed = 0
    runner = DiscoverRunner(verbosity=1, interactive=False)
    runner.setup_test_environment()
    databases = runner.setup_databases()
    for name, classes in ours.items():
        tests = unittest.TestSuite(map(unittest.defaultTestLoader.loadTestsFromTestCase, classes))
        result = runner.run_suite(tests)
        sys.stdout.write(f"{name}: {result.testsRun} run, {len(result.skipped)} skipped\n")
        failed += len(result.failures) + len(result.errors)
    runner.teardown_databases(databases)
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
