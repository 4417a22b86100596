"""Dramatiq's own tests of results, rate limits, pipelines and groups with our backends.

They come by `scripts/test-suites`, without the fixtures that they ask for: those stand here. They run as a program of
their own, once for each kind of store: `test_dramatiq_suite.py SUITE URL REPORT`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

ARCHIVES = Path(__file__).parents[2] / "target" / "test-suites"
CHOSEN = [
    "results",
    "composition",
    "barrier",
    "bucket_rate_limiter",
    "concurrent_rate_limiter",
    "window_rate_limiter",
]
DIFFERENT = {
    "test_pipe_ignore_applies_to_receiving_message": "a tuple comes back as one; expected is the list of JSON"
}
"""What is otherwise here, with the reason: exactly these fail."""
FEWEST = 45
"""Tests of the pinned version that run, rounded down: fewer would mean that they were not found."""
SETTINGS = "[pytest]\naddopts = -p no:cacheprovider --import-mode=importlib\n"


class Fixtures:
    """What Dramatiq's tests ask for, as its conftest has it, with our backends."""

    def __init__(self, url: str) -> None:
        from data_bridge import kv

        self._store = kv.open() if url == "memory://" else kv.connect(url)

    @pytest.fixture
    def stub_broker(self) -> Iterator[Any]:
        """A broker in this process, the global one."""
        import dramatiq
        from dramatiq.brokers.stub import StubBroker

        broker = StubBroker()
        broker.emit_after("process_boot")
        dramatiq.set_broker(broker)
        yield broker
        broker.flush_all()
        broker.close()

    @pytest.fixture
    def stub_worker(self, stub_broker: Any) -> Iterator[Any]:
        """Its worker."""
        import dramatiq

        worker = dramatiq.Worker(stub_broker, worker_timeout=100, worker_threads=32)
        worker.start()
        yield worker
        worker.stop()

    @pytest.fixture
    def result_backend(self) -> Any:
        """Results, in an empty store."""
        from data_bridge.kv.dramatiq import ResultBackend

        self._store.clear()
        return ResultBackend(client=self._store)

    @pytest.fixture
    def redis_result_backend(self, result_backend: Any) -> Any:
        """The same: what Dramatiq looks at with its Redis backend holds here too."""
        return result_backend

    @pytest.fixture
    def rate_limiter_backend(self) -> Any:
        """Rate limits, in an empty store."""
        from data_bridge.kv.dramatiq import RateLimiterBackend

        self._store.clear()
        return RateLimiterBackend(client=self._store)


def skip_in_ci(test: Callable[..., Any]) -> Callable[..., Any]:
    """Dramatiq leaves these out where it is tested; here they run."""
    return test


def main(suite: str, url: str, report: str) -> int:
    """Runs Dramatiq's tests in its unpacked folder; pytest's exit code."""
    os.chdir(suite)
    Path("suite.ini").write_text(SETTINGS)
    common = ModuleType("tests.common")
    common.skip_in_ci = skip_in_ci  # type: ignore[attr-defined]
    sys.modules["tests.common"] = common
    chosen = [f"tests/test_{name}.py" for name in CHOSEN]
    given = ["-c", "suite.ini", "--rootdir", ".", "-q", f"--junitxml={report}", *chosen]
    return int(pytest.main(given, [Fixtures(url)]))


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """The folder with Dramatiq's tests, without Dramatiq."""
    archives = list(ARCHIVES.glob("dramatiq-*.tar.gz")) if (ARCHIVES / "complete").exists() else []
    if not archives:
        pytest.skip("Dramatiq's tests are not here: scripts/test-suites could not reach the package registry")
    with tarfile.open(archives[0]) as archive:
        wanted = [file for file in archive if file.name.split("/")[1:2] == ["tests"]]
        archive.extractall(tmp_path, wanted, filter="data")
    (unpacked,) = tmp_path.iterdir()
    (unpacked / "tests" / "__init__.py").touch()
    return unpacked


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["memory", "remote"])
def test_dramatiqs_own_tests(kind: str, suite: Path, own_server: Any) -> None:
    url = "memory://" if kind == "memory" else own_server.url()
    report = suite / "report.xml"
    command = [sys.executable, __file__, str(suite), url, str(report)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 1), ended.stdout + ended.stderr
    cases = [case for case in ElementTree.parse(report).iter("testcase") if case.find("skipped") is None]
    failed = {case.attrib["name"] for case in cases if {"failure", "error"} & {found.tag for found in case}}
    assert failed == DIFFERENT.keys(), ended.stdout
    assert len(cases) >= FEWEST, ended.stdout
    sys.stdout.write(f"{len(cases)} tests ran, {len(failed)} of them are different here\n")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
