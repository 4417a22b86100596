"""Tests of the benchmark's arithmetic and tables: ratios, verdicts, and that a part replaces only its own lines."""

from functools import partial

import pytest

from bench.plan import Plan, RefusedError
from bench.rows import OURS, Report, Row, Sample, Target, replace_headlines, replace_section

README = "# Title\n<!-- bench:begin -->\nNot measured yet.\n<!-- bench:end -->\nrest\n"


def sample(*rounds: float) -> Sample:
    return Sample.of(rounds)


def report(part: str, *rows: Row) -> Report:
    return Report(
        part, "Title", f"make bench NAME={part}", "abc", "machine", "2026-01-01", rows, {"peer": "peer 1"}
    )


def test_a_sample_is_the_median_with_its_ends() -> None:
    assert sample(3, 1, 2) == Sample(2, 1, 3)


@pytest.mark.parametrize(
    ("target", "reached", "met"),
    [
        (Target("≤", 0.5, "peer"), 0.5, True),
        (Target("≤", 0.4, "peer"), 0.5, False),
        (Target("≥", 0.6, "peer"), 0.5, False),
        (Target("≤", 3.0), 2.0, True),
        (Target("≤", 0.5, "absent"), None, None),
    ],
)
def test_a_target_says_what_was_reached(target: Target, reached: float | None, met: bool | None) -> None:
    values = {OURS: sample(2), "peer": sample(4)}
    assert target.reached(values) == reached
    assert target.met(values) is met


def test_without_ours_nothing_is_met() -> None:
    assert Target("≤", 0.5, "peer").met({"peer": sample(4)}) is None


def test_a_section_shows_missing_peers_and_verdicts() -> None:
    row = Row("GET", "us", {OURS: sample(1, 2, 3)}, [Target("≤", 0.5, "peer"), Target("≤", 3)])
    text = report("server", row).section()
    assert "| GET | us | 2 (1-3) | missing | ≤ 0.5x peer: not measured<br>≤ 3 us: 2 us, met |" in text


def test_where_ours_does_not_reach_the_limit_the_floor_is_told() -> None:
    values = {OURS: sample(2), "peer": sample(4), "floor": sample(1)}
    missed, met = Target("≤", 0.3, "peer", "floor"), Target("≤", 0.5, "peer", "floor")
    assert missed.shown(values, "us") == "0.50x (floor: 0.25x)"
    assert met.shown(values, "us") == "0.50x"
    assert Target("≤", 0.3, "peer", "absent").shown(values, "us") == "0.50x"


def test_a_part_replaces_only_its_own_section() -> None:
    document = "# Head\n\n## memory\nold memory\n\n## server\nold server\n"
    changed = replace_section(document, "memory", "## memory\nfresh\n")
    assert changed == "# Head\n\n## memory\nfresh\n\n## server\nold server\n"
    added = replace_section("# Head\n", "server", "## server\nfresh\n")
    assert added == "# Head\n\n## server\nfresh\n"


def test_a_part_replaces_only_its_own_lines_of_the_readme() -> None:
    row = Row("GET", "us", {OURS: sample(1), "peer": sample(2)}, [Target("≤", 0.5, "peer")], headline=True)
    once = replace_headlines(README, "server", report("server", row).headlines())
    assert "| server | GET | 0.50x | ≤ 0.5x peer | yes |\n<!-- bench:end -->\nrest" in once
    assert "Not measured" not in once
    assert replace_headlines(once, "server", report("server", row).headlines()) == once
    both = replace_headlines(once, "memory", report("memory", row).headlines())
    assert both.index("| memory |") < both.index("| server |")
    assert both.count("| part |") == 1


def test_a_readme_without_markers_is_an_error() -> None:
    with pytest.raises(ValueError, match="markers"):
        replace_headlines("# Title\n", "server", [])


def test_rounds_are_interleaved_and_a_refusing_server_is_left_out() -> None:
    calls: list[str] = []

    def measure(name: str) -> float:
        calls.append(name)
        if name == "c":
            raise RefusedError
        return float(len(calls))

    plan = Plan(rounds=2, seconds=0, keys=(1,))
    values = plan.interleaved({name: partial(measure, name) for name in "abc"})
    assert set(values) == {"a", "b"}
    assert [call for call in calls if call != "c"][:2] == ["a", "b"]
