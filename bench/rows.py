"""What a part of the benchmark hands back: rows of medians with their targets, as JSON and as Markdown.

Used by every part, and by the runner that writes the tables.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

OURS = "ours"


@dataclass(frozen=True)
class Sample:
    """Median, smallest and largest of the rounds of one measurement."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Sample:
        """The sample of at least one round."""
        return cls(median(rounds), min(rounds), max(rounds))


@dataclass(frozen=True)
class Target:
    """A limit for ours divided by a peer, or, without a peer, for ours itself."""

    sense: Literal["≤", "≥"]
    limit: float
    against: str | None = None
    floor: str | None = None
    """A peer that does none of the work: its ratio is told where ours does not reach the limit."""

    def reached(self, values: dict[str, Sample]) -> float | None:
        """The ratio (or the value) the target speaks of; None where one side was not measured."""
        return self._ratio(OURS, values)

    def _ratio(self, name: str, values: dict[str, Sample]) -> float | None:
        one = values.get(name)
        if one is None:
            return None
        if self.against is None:
            return one.middle
        peer = values.get(self.against)
        return None if peer is None or peer.middle == 0 else one.middle / peer.middle

    def met(self, values: dict[str, Sample]) -> bool | None:
        """Whether the target is met; None where it could not be measured."""
        reached = self.reached(values)
        if reached is None:
            return None
        return reached <= self.limit if self.sense == "≤" else reached >= self.limit

    def shown(self, values: dict[str, Sample], unit: str) -> str | None:
        """What was reached, in the words of the target, with the floor where it is not met; None if not measured."""
        reached = self.reached(values)
        if reached is None:
            return None
        floor = None if self.floor is None or self.met(values) else self._ratio(self.floor, values)
        floor_shown = f" ({self.floor}: {self._figure(floor, unit)})" if floor else ""
        return self._figure(reached, unit) + floor_shown

    def _figure(self, reached: float, unit: str) -> str:
        return f"{figure(reached)} {unit}" if self.against is None else f"{reached:.2f}x"

    def words(self, unit: str) -> str:
        """`≤ 0.35x redis 7.0`, or `≤ 66 B`."""
        if self.against is None:
            return f"{self.sense} {figure(self.limit)} {unit}"
        return f"{self.sense} {self.limit:g}x {self.against}"


@dataclass(frozen=True)
class Row:
    """One thing measured on ours and on the peers. A peer without a value is shown as missing."""

    what: str
    unit: str
    values: dict[str, Sample]
    targets: Sequence[Target] = ()
    headline: bool = False
    """Whether the README shows it."""
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """The row with each target's ratio and verdict."""
        return {
            "what": self.what,
            "unit": self.unit,
            "values": {name: vars(sample) for name, sample in self.values.items()},
            "targets": [
                {"target": t.words(self.unit), "reached": t.reached(self.values), "met": t.met(self.values)}
                for t in self.targets
            ],
            "note": self.note,
        }


@dataclass(frozen=True)
class Report:
    """All rows of one part, and what they were measured with."""

    part: str
    title: str
    command: str
    commit: str
    machine: str
    day: str
    rows: Sequence[Row]
    peers: dict[str, str] = field(default_factory=dict)
    """Peer to how it was started, or why it is missing."""

    def write_json(self, folder: Path) -> Path:
        """Writes `PART.json` into the folder and returns its path."""
        folder.mkdir(exist_ok=True)
        path = folder / f"{self.part}.json"
        body = vars(self) | {"rows": [row.as_json() for row in self.rows]}
        path.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n")
        return path

    def section(self) -> str:
        """The section of this part in docs/BENCHMARKS.md."""
        names = [OURS, *self.peers]
        lines = [
            f"## {self.part}",
            "",
            f"{self.title}. `{self.command}`, commit {self.commit}, {self.day}, {self.machine}.",
            "",
            *[f"- {name}: {how}" for name, how in self.peers.items()],
            "",
            table_line(["what", "unit", *names, "target: reached"]),
            table_line(["---"] * (len(names) + 3)),
        ]
        for row in self.rows:
            cells = [cell(row.values.get(name)) for name in names]
            verdicts = "<br>".join(verdict(row, target) for target in row.targets)
            what = f"{row.what} ({row.note})" if row.note else row.what
            lines.append(table_line([what, row.unit, *cells, verdicts or "-"]))
        return "\n".join(lines) + "\n"

    def headlines(self) -> list[str]:
        """The lines of this part in the README's table."""
        lines = []
        for row in self.rows:
            for target in row.targets if row.headline else ():
                shown = target.shown(row.values, row.unit) or "missing"
                met = {True: "yes", False: "no", None: "-"}[target.met(row.values)]
                lines.append(table_line([self.part, row.what, shown, target.words(row.unit), met]))
        return lines


HEADLINE_HEAD = ["| part | what | ours | target | met |", "|---|---|---|---|---|"]


def table_line(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def figure(value: float) -> str:
    """A number with about three figures."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


def cell(sample: Sample | None) -> str:
    """Median with smallest and largest, or `missing`."""
    if sample is None:
        return "missing"
    if sample.low == sample.high:
        return figure(sample.middle)
    return f"{figure(sample.middle)} ({figure(sample.low)}-{figure(sample.high)})"


def verdict(row: Row, target: Target) -> str:
    """`≤ 0.35x redis 7.0: 0.31x, met`."""
    shown = target.shown(row.values, row.unit)
    if shown is None:
        return f"{target.words(row.unit)}: not measured"
    met = "met" if target.met(row.values) else "not met"
    return f"{target.words(row.unit)}: {shown}, {met}"


def replace_section(document: str, part: str, section: str) -> str:
    """The document of all parts with the section of one replaced or added, sections in order of their names."""
    head, *sections = document.split("\n## ")
    kept = [text for text in sections if text.split("\n", 1)[0].strip() != part]
    ordered = sorted([*kept, section.removeprefix("## ")])
    return "\n## ".join([head.rstrip("\n") + "\n", *[text.rstrip("\n") + "\n" for text in ordered]])


def replace_headlines(readme: str, part: str, lines: Sequence[str]) -> str:
    """The README with one part's lines replaced between its markers."""
    begin, end = "<!-- bench:begin -->\n", "<!-- bench:end -->"
    before, _, rest = readme.partition(begin)
    inside, marker, after = rest.partition(end)
    if not marker:
        raise ValueError("the README has no bench markers")
    kept = [line for line in inside.splitlines() if line.startswith("| ") and line not in HEADLINE_HEAD]
    kept = [line for line in kept if not line.startswith(f"| {part} |")]
    body = sorted([*kept, *lines], key=lambda line: line.split(" | ")[0])
    return before + begin + "\n".join([*HEADLINE_HEAD, *body]) + "\n" + end + after
