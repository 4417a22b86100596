"""Tests of what the demo shows: the verdict needs every check of every part, and progress works without a terminal."""

import io

import pytest

from demo import report as report_module
from demo.report import Progress, Report


@pytest.fixture
def report() -> Report:
    """A report with a check that held and a figure."""
    report = Report()
    report.begin("one", "first part")
    report.check("a", True, "3 of 3")
    report.measured("b", "2.0x")
    return report


def test_it_is_complete_when_each_part_said_something(report: Report) -> None:
    assert report.complete(["one"])
    assert not report.complete(["one", "two"])
    assert not Report().complete(["one"])


def test_one_failed_check_is_enough(report: Report) -> None:
    report.check("c", False, "2 of 3")
    assert not report.complete(["one"])
    assert [line.what for line in report.failed] == ["c"]


def test_the_table_has_a_line_for_each(report: Report) -> None:
    head, _, first, second = report.table().splitlines()
    assert head.split() == ["part", "what", "found"]
    assert first.split() == ["one", "a", "3", "of", "3", "held"]
    assert second.split() == ["one", "b", "2.0x", "measured"]


def test_progress_is_lines_where_nothing_can_be_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "LINE_SECONDS", 0.0)
    stream = io.StringIO()
    with Progress("rows", 10, stream) as step:
        step.at(5)
        step.add(5)
    shown = stream.getvalue()
    assert "\r" not in shown
    assert [line.split(": ")[1].split(",")[0] for line in shown.splitlines()] == [
        "5 of 10 (50%)",
        "10 of 10 (100%)",
        "10 of 10 done",
    ]
