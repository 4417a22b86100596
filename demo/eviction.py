"""Eviction: a read-through cache of aircraft pages under a small budget, on the real order of flights.

The hit ratio stands beside that of an exact LRU with as many entries. Used by `demo.cache`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from data_bridge import kv

from demo.report import Progress, Report
from demo.source import FLIGHTS

BUDGET = 1 << 20
PAGE_WORDS = 120
STEP = 10_000
TOLERANCE = 0.02
"""Share of all reads by which we may hit less often than the exact LRU."""


def show(report: Report) -> None:
    """Runs the trace once against the store and once against an exact LRU."""
    place = list(FLIGHTS.columns).index("tailnum")
    trace = [texts[place] for texts in FLIGHTS.texts()]
    hits = wrong = most = 0
    with kv.open(eviction="lru", max_memory=BUDGET) as store:
        with Progress("pages asked for under a small budget", len(trace)) as step:
            for number, plane in enumerate(trace):
                found = store.get(plane)
                if found is None:
                    store.set(plane, page(plane))
                else:
                    hits += 1
                    wrong += found != page(plane)
                if number % STEP == 0:
                    most = max(most, stored_bytes(store))
                    step.at(number)
            step.done = len(trace)
        entries = len(store)
    ratio, exact = hits / len(trace), lru_hits(trace, entries) / len(trace)
    report.check(
        f"eviction: {len(set(trace)):,} pages in {BUDGET >> 10:,} KiB, budget kept, no wrong page",
        hits > 0 and wrong == 0 and 0 < most <= BUDGET,
        f"{entries:,} pages fit, at most {most >> 10:,} KiB used, {wrong} wrong",
    )
    report.check(
        "eviction: hit ratio, beside an exact LRU of as many entries",
        ratio >= exact - TOLERANCE,
        f"{ratio:.1%}, exact LRU {exact:.1%}",
    )


def page(plane: str) -> str:
    """About a kilobyte about an aircraft."""
    return " ".join([plane] * PAGE_WORDS)


def stored_bytes(store: kv.Store) -> int:
    """Bytes that all keys take together."""
    return sum(store.memory_usage(key) or 0 for key in store)


def lru_hits(trace: Sequence[str], entries: int) -> int:
    """How often an LRU of so many entries has what is asked for."""
    held: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for key in trace:
        if key in held:
            hits += 1
            held.move_to_end(key)
        else:
            held[key] = None
            if len(held) > entries:
                held.popitem(last=False)
    return hits
