"""Tests of the checker: it passes a true run, and each thing that must not happen makes it fail."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from demo.ledger import Expected, Run, audit, read_runs
from demo.tasks import plant_double_run

EXPECTED = Expected(tasks=2, flights=5, distance=500)


@pytest.fixture
def stored() -> dict[str, dict[str, Any]]:
    """Two finished tasks."""
    return {
        "task:a": {
            "status": "SUCCESS",
            "worker": "worker-1",
            "flights": 3,
            "cancelled": 1,
            "distance": 300,
            "revenue": Decimal("43.11"),
            "mean_delay": 2.5,
            "first": datetime(2013, 1, 1, 10, tzinfo=UTC),
            "destinations": {"IAH"},
        },
        "task:b": {
            "status": "FAILURE",
            "worker": "worker-2",
            "flights": 2,
            "cancelled": 2,
            "distance": 200,
            "revenue": Decimal("28.74"),
            "error": "every flight was cancelled",
        },
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the two workers wrote."""
    (tmp_path / "worker-1.tsv").write_text("task:a\tSUCCESS\t3\t300\t43.11\n")
    (tmp_path / "worker-2.tsv").write_text("task:b\tFAILURE\t2\t200\t28.74\n")
    return tmp_path


@pytest.fixture
def runs(folder: Path) -> list[Run]:
    """The same, read."""
    return read_runs(folder)


def test_a_true_run_passes(runs: list[Run], stored: dict[str, dict[str, Any]]) -> None:
    assert len(runs) == 2
    assert audit(runs, stored, EXPECTED) == []


def test_a_planted_double_run_is_named(folder: Path, stored: dict[str, dict[str, Any]]) -> None:
    task = plant_double_run(folder)
    assert audit(read_runs(folder), stored, EXPECTED) == [f"{task} ran 2 times: worker-1, worker-2"]


def test_a_task_without_a_run_is_lost(runs: list[Run], stored: dict[str, dict[str, Any]]) -> None:
    assert audit(runs[:1], stored, EXPECTED) == ["task:b was lost: no worker ran it"]


@pytest.mark.parametrize("state", ["PENDING", "STARTED", None])
def test_an_unfinished_task_is_lost(runs: list[Run], stored: dict[str, dict[str, Any]], state: str) -> None:
    stored["task:a"]["status"] = state
    assert audit(runs, stored, EXPECTED) == [f"task:a: was lost in state {state}"]


def test_a_run_without_a_stored_task_is_found(runs: list[Run], stored: dict[str, dict[str, Any]]) -> None:
    extra = replace(runs[0], task="task:c")
    assert audit([*runs, extra], stored, EXPECTED) == ["task:c was run but is not stored"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flights", 3.0),
        ("revenue", "43.11"),
        ("revenue", 43.11),
        ("mean_delay", 2),
        ("destinations", ["IAH"]),
    ],
)
def test_a_result_of_another_type_is_found(
    runs: list[Run], stored: dict[str, dict[str, Any]], name: str, value: object
) -> None:
    stored["task:a"][name] = value
    assert any(f"{name} is {value!r}" in line for line in audit(runs, stored, EXPECTED))


@pytest.mark.parametrize(
    ("name", "value"), [("worker", "worker-2"), ("distance", 301), ("revenue", Decimal("43.12"))]
)
def test_another_result_than_the_workers_is_found(
    runs: list[Run], stored: dict[str, dict[str, Any]], name: str, value: object
) -> None:
    stored["task:a"][name] = value
    assert any("its worker wrote" in line for line in audit(runs, stored, EXPECTED))


def test_totals_come_from_the_source(runs: list[Run], stored: dict[str, dict[str, Any]]) -> None:
    more_flights, more_tasks = replace(EXPECTED, flights=6), replace(EXPECTED, tasks=3)
    assert audit(runs, stored, more_flights) == ["the tasks' flights come to 5, the source has 6"]
    assert audit(runs, stored, more_tasks) == ["2 tasks are stored, 3 were given"]


def test_nothing_to_check_is_no_success() -> None:
    assert audit([], {}, Expected(0, 0, 0)) == ["0 tasks are stored, 0 were given"]


def test_half_a_line_is_an_error(folder: Path) -> None:
    with (folder / "worker-1.tsv").open("a") as file:
        file.write("task:c\tSUCC")
    with pytest.raises(ValueError, match="not enough values"):
        read_runs(folder)
