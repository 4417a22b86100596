"""Drives the load generator (the testkit's example `load`, Rust) against a server. Used by the parts on servers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from bench.meters import cpu_seconds
from bench.plan import RefusedError
from bench.servers import ROOT, Running

PROGRAM = ROOT / "target" / "release" / "examples" / "load"


@dataclass(frozen=True)
class Outcome:
    """What one run of the generator did."""

    operations: int
    seconds: float
    server_cpu: float

    @property
    def cpu_microseconds(self) -> float:
        """Server CPU time of one operation."""
        return self.server_cpu / self.operations * 1e6

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.operations / self.seconds


def build() -> None:
    """Builds the generator and the `+OK` server if they are not fresh."""
    command = ["cargo", "build", "--quiet", "--release", "--locked", "-p", "data-bridge-kv-testkit"]
    subprocess.run([*command, "--example", "load", "--example", "floor"], cwd=ROOT, check=True)


def run(server: Running, command: str, cores: Sequence[int] | None, **options: str | float) -> Outcome:
    """One run; options are those of the generator. RefusedError if the server answered with an error."""
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    pin = None if cores is None else lambda: os.sched_setaffinity(0, cores)
    before = cpu_seconds(server.pid)
    done = subprocess.run(
        [PROGRAM, "--address", f"127.0.0.1:{server.port}", "--command", command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=pin,
    )
    after = cpu_seconds(server.pid)
    if done.returncode != 0:
        raise RuntimeError(f"{server.name}, {command}: {done.stderr.strip()}")
    operations, seconds, errors = done.stdout.split()
    if int(errors) > 0:
        raise RefusedError(f"{server.name} refused {errors} of {operations} {command}")
    return Outcome(int(operations), float(seconds), after - before)


def fill(server: Running, command: str, keys: int, **options: str | float) -> None:
    """Writes each key once, in order."""
    run(server, command, None, keys=keys, fill="true", pipeline=100, **options)
