"""Celery's own integration tests with our result backend: a real worker, canvas of every shape, one session.

They come by `scripts/test-suites` and run as Celery runs them, in a process of their own.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest

ARCHIVES = Path(__file__).parents[2] / "target" / "test-suites"
CHOSEN = [f"test_canvas.py::test_{part}" for part in ("result_set", "group", "chord")]
"""What runs: that which is about collecting results, groups and chords."""
REST = ["test_canvas.py::test_chain", "test_group_chains.py"]
"""What runs as well with CELERY_SUITE=whole, for many minutes."""
FEWEST = 80
"""Tests of the pinned version that run, rounded down: fewer would mean that they were not found."""
SETTINGS = """[pytest]
addopts = -p no:cacheprovider -p celery.contrib.pytest
python_classes = test_*
markers = flaky
"""
DIFFERENT = {
    "test_chord_on_error": "reads the parts of a chord where Celery's Redis backend keeps them",
    "test_groupresult_serialization": "a tuple comes back as a tuple; expected is the list that JSON makes of it",
}
"""What Celery's tests expect and is otherwise here, each with the reason: exactly these fail."""
TIMED = {
    "test_mutable_errback_called_by_chord_from_group_fail_multiple_on_body_failure": (
        "gives 42 callbacks a second or two: on a busy machine it fails with Celery's Redis backend too"
    ),
}
"""What may fail for its time limits, as well as pass."""
SLOW = ("errback", "error_cb", "link_error", "fail_multiple", "test_generator")
"""Parts of the names of tests that sleep for seconds, as for what must not come: only in the whole suite."""
LEFT_OUT = {
    "(test_error_propagates_from_chord and not chord2)": "Celery's issue 6437: so it is with its Redis backend",
    "test_redis_subscribed_channels_leak": "counts the channels that Celery's Redis backend subscribes to",
}
"""What does not run."""
UNIT = ["backends/test_base.py::test_KeyValueStoreBackend", "tasks/test_result.py", "tasks/test_chord.py"]
"""Celery's unit tests that run with our backend in a store of the process."""
FEWEST_UNIT = 200
DIFFERENT_UNIT = {
    "test_get_many__ids_completing_on_the_deadline_is_not_a_timeout": "puts a list in the place of our mget",
    "test_chord_apply_fallback": "a chord of ours is always dispatched by the store, not by a task that polls",
    "test_on_chord_part_return": "counts parts through a request that is a Mock; ours are told apart by their ids",
    **dict.fromkeys(
        [
            f"test_chord_part_return_{part}"
            for part in (
                "restore_raises",
                "restore_empty",
                "timeout",
                "propagate_set",
                "propagate_default",
                "join_raises_internal",
                "join_raises_task",
            )
        ],
        "mocks the group that Celery's counter joins; ours keeps the parts and reads no results",
    ),
}
"""The same of its unit tests."""


class LikeRedis(str):
    """The URL of our backend, for tests that skip themselves unless results are in Redis: there is one, as broker."""

    __slots__ = ()

    def startswith(self, *prefix: Any) -> bool:
        """Also "redis"."""
        return prefix == ("redis",) or super().startswith(*prefix)


class Plugin:
    """Hands the URL over once Celery's conftest is there."""

    def __init__(self, backend: str) -> None:
        self._backend = backend

    def pytest_collection_finish(self) -> None:
        """Tests begin after this."""
        sys.modules["t.integration.conftest"].TEST_BACKEND = LikeRedis(self._backend)  # type: ignore[attr-defined]


class UnitPlugin:
    """Gives unit tests our backend: where their application has one, and in the place of the base's test double."""

    def __init__(self) -> None:
        from celery.contrib.testing import app

        app.DEFAULT_TEST_CONFIG["result_backend"] = "data-bridge+memory://unit"

    def pytest_collection_finish(self) -> None:
        """Tests begin after this."""
        from data_bridge.kv.celery.backend import DataBridgeBackend

        numbers = itertools.count()

        class Ours(DataBridgeBackend):
            def __init__(self, app: Any, **options: Any) -> None:
                super().__init__(app=app, url=f"data-bridge+memory://unit{next(numbers)}", **options)

        sys.modules["t.unit.backends.test_base"].KVBackend = Ours  # type: ignore[attr-defined]


def run_unit_tests(suite: str, report: str) -> int:
    """Runs Celery's unit tests of results in its unpacked folder; pytest's exit code."""
    folder = Path(suite)
    (folder / "suite.ini").write_text(SETTINGS)
    os.chdir(folder)
    sys.path.insert(0, suite)
    given = ["-c", "suite.ini", "--rootdir", ".", "-q", f"--junitxml={report}"]
    return int(pytest.main([*given, *(f"t/unit/{name}" for name in UNIT)], [UnitPlugin()]))


def main(suite: str, broker: str, backend: str, report: str) -> int:
    """Runs Celery's tests in its unpacked folder; pytest's exit code."""
    folder = Path(suite)
    (folder / "suite.ini").write_text(SETTINGS)
    where = urlsplit(broker)
    os.environ.update(
        TEST_BROKER=broker, TEST_BACKEND=backend, REDIS_HOST=str(where.hostname), REDIS_PORT=str(where.port)
    )
    os.chdir(folder)
    sys.path.insert(0, suite)
    whole = os.environ.get("CELERY_SUITE") == "whole"
    names = LEFT_OUT if whole else (*LEFT_OUT, *SLOW)
    left_out = " and ".join(f"not {name}" for name in names)
    chosen = [f"t/integration/{name}" for name in CHOSEN + REST * whole]
    given = ["-c", "suite.ini", "--rootdir", ".", "-q", f"--junitxml={report}", "-k", left_out, *chosen]
    return int(pytest.main(given, [Plugin(backend)]))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with Celery's tests, without Celery."""
    archives = list(ARCHIVES.glob("celery-*.tar.gz")) if (ARCHIVES / "complete").exists() else []
    if not archives:
        pytest.skip("Celery's tests are not here: scripts/test-suites could not reach the package registry")
    folder = tmp_path_factory.mktemp("celery")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(
            folder, [file for file in archive if file.name.split("/")[1:2] == ["t"]], filter="data"
        )
    (unpacked,) = folder.iterdir()
    return unpacked


@pytest.mark.timeout(1800)
def test_celerys_own_tests(suite: Path, broker: str, own_server: Any) -> None:
    report = suite / "report.xml"
    backend = f"data-bridge://127.0.0.1:{own_server.port}/tasks"
    check([str(suite), broker, backend, str(report)], DIFFERENT, FEWEST)


def test_celerys_own_unit_tests(suite: Path) -> None:
    check([str(suite), str(suite / "unit.xml")], DIFFERENT_UNIT, FEWEST_UNIT)


def check(arguments: list[str], different: dict[str, str], fewest: int) -> None:
    """Runs tests by this file, which writes the report that is its last argument: exactly those named fail."""
    command = [sys.executable, __file__, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 1), ended.stdout + ended.stderr
    cases = list(ElementTree.parse(arguments[-1]).getroot().iter("testcase"))
    ran = [case.attrib["name"] for case in cases if case.find("skipped") is None]
    failed = {case.attrib["name"] for case in cases if {"failure", "error"} & {found.tag for found in case}}
    timed = {name for name in failed if name.split("[")[0] in TIMED}
    assert failed - timed == different.keys() & set(ran), ended.stdout
    assert len(ran) >= fewest, ended.stdout
    sys.stdout.write(
        f"{len(ran)} tests ran, {len(failed - timed)} of them are different here, {len(timed)} were late\n"
    )


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(*given) if len(given) == 4 else run_unit_tests(*given))
