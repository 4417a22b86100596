"""What the demo shows: progress while it works, and one table of everything it checked and measured at the end.

Used by every part. Progress overwrites its line on a terminal and is a line every few seconds elsewhere.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import Self, TextIO

LINE_SECONDS = 3.0
"""Pause between two lines of progress that do not overwrite each other."""
DRAW_SECONDS = 0.1


@dataclass(frozen=True)
class Line:
    """One line of the summary. `held` is None for what is only measured."""

    part: str
    what: str
    found: str
    held: bool | None

    @property
    def verdict(self) -> str:
        """The last cell of the line."""
        return {True: "held", False: "FAILED", None: "measured"}[self.held]


@dataclass
class Report:
    """All lines of the summary, in order."""

    part: str = ""
    lines: list[Line] = field(default_factory=list)

    def begin(self, part: str, title: str) -> None:
        """Starts a part of the demo."""
        self.part = part
        print(f"==> {part}: {title}", flush=True)

    def check(self, what: str, held: bool, found: str) -> None:
        """Adds something that must hold."""
        self.add(Line(self.part, what, found, held))

    def measured(self, what: str, found: str) -> None:
        """Adds a figure nobody has to reach."""
        self.add(Line(self.part, what, found, None))

    def add(self, line: Line) -> None:
        """Adds a line and shows it at once."""
        self.lines.append(line)
        print(f"    {line.what}: {line.found} [{line.verdict}]", flush=True)

    @property
    def failed(self) -> list[Line]:
        """The checks that did not hold."""
        return [line for line in self.lines if line.held is False]

    def complete(self, parts: list[str]) -> bool:
        """Whether every check held, and each part checked or measured something."""
        return not self.failed and {line.part for line in self.lines} >= set(parts)

    def table(self) -> str:
        """The summary."""
        rows = [
            ("part", "what", "found", ""),
            *((line.part, line.what, line.found, line.verdict) for line in self.lines),
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        shown = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        shown.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(row.rstrip() for row in shown)


class Progress:
    """Progress of one step, as a context manager: `step.at(done)` as often as one likes."""

    def __init__(self, what: str, total: int, stream: TextIO = sys.stdout) -> None:
        self.what, self.total, self.stream = what, total, stream
        self.overwrites = stream.isatty()
        self.start = self.drawn = time.monotonic()
        self.done = 0

    def __enter__(self) -> Self:
        return self

    def at(self, done: int) -> None:
        """Tells how far it is."""
        self.done = done
        now = time.monotonic()
        if now - self.drawn >= (DRAW_SECONDS if self.overwrites else LINE_SECONDS):
            self.drawn = now
            self.draw(
                f"{done:,} of {self.total:,} ({done / self.total:.0%})", "" if self.overwrites else "\n"
            )

    def add(self, more: int) -> None:
        """Tells that so much more is done."""
        self.at(self.done + more)

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self.start

    def __exit__(self, exc_type: object, *exc: object) -> None:
        state = "done" if exc_type is None else "broken off"
        self.draw(f"{self.done:,} of {self.total:,} {state}, {self.seconds:.1f} s", "\n")

    def draw(self, text: str, end: str) -> None:
        """Shows a state of the step."""
        start = "\r\x1b[K" if self.overwrites else ""
        print(f"{start}    {self.what}: {text}", end=end, file=self.stream, flush=True)
