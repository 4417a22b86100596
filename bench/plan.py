"""How much a benchmark run does, and the interleaved rounds every part is measured in. Used by the parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.meters import watch_steal
from bench.rows import Sample

TRIES = 4
"""How often a round is repeated when the hypervisor steals too much, before it counts all the same."""


class RefusedError(Exception):
    """What was measured answered with errors, so its figure would mean nothing."""


@dataclass(frozen=True)
class Plan:
    """Sizes and durations of a run."""

    rounds: int
    seconds: float
    """Length of one round of one server."""
    keys: tuple[int, ...]
    """Numbers of keys at which cost per key is measured."""

    @classmethod
    def full(cls) -> Plan:
        """What the published tables are made with."""
        return cls(rounds=5, seconds=0.8, keys=(1_000_000, 5_000_000, 20_000_000))

    @classmethod
    def quick(cls) -> Plan:
        """Just enough to see that everything works."""
        return cls(rounds=1, seconds=0.1, keys=(20_000,))

    def interleaved(self, measurements: Mapping[str, Callable[[], float]]) -> dict[str, Sample]:
        """Measures each name once a round, so that noise hits all alike; the median over the rounds.

        A name whose measurement is refused (its server does not know the command) is left out.
        """
        rounds: dict[str, list[float]] = {name: [] for name in measurements}
        for _ in range(self.rounds):
            for name in list(rounds):
                try:
                    rounds[name].append(undisturbed(measurements[name]))
                except RefusedError:
                    del rounds[name]
        return {name: Sample.of(values) for name, values in rounds.items()}


def undisturbed(measure: Callable[[], float]) -> float:
    """One measurement, repeated while the hypervisor steals too much."""
    for _ in range(TRIES - 1):
        with watch_steal() as steal:
            value = measure()
        if not steal.too_much:
            return value
    return measure()
