"""How late keys go and what others notice of it: a million due within one second, a million volatile ones beside."""

from __future__ import annotations

import socket
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from bench import load, meters
from bench.plan import Plan, RefusedError
from bench.rows import Row, Sample, Target
from bench.servers import KINDS, Running, started

TITLE = (
    "Active expiry: milliseconds between a key's deadline and its end, keys with deadlines spread over one second "
    "among as many that expire much later; and the GETs of one client meanwhile"
)

SPAN_SECONDS = 1.0
PATIENCE_SECONDS = 20.0
"""After so long what is left counts as this late."""
POLL_SECONDS = 0.005
QUIET_SECONDS = 3.0
"""How long GETs are timed before the first deadline."""
TTL_SECONDS = 1_000_000


@dataclass(frozen=True)
class Found:
    """What one run on one server showed."""

    p50: float
    p99: float
    slowdown: float
    """99.9th percentile of a GET while keys expire, over that before."""


def measure(plan: Plan) -> tuple[list[Row], dict[str, str]]:
    """Median and 99th percentile of the lag, the slowdown of others, and how each server ran."""
    load.build()
    keys = plan.keys[0]
    rounds: dict[str, list[Found]] = {}
    how = {}
    for kind in KINDS:
        for _ in range(min(3, plan.rounds)):
            with started(kind) as server:
                how[kind.name] = server if isinstance(server, str) else server.how
                if isinstance(server, str):
                    break
                try:
                    found = run(server, keys)
                except RefusedError as refused:
                    print(f"    {refused}", flush=True)
                    break
                shown = f"p50 {found.p50:.0f} ms, p99 {found.p99:.0f} ms, GET p99.9 {found.slowdown:.1f}x"
                print(f"    {kind.name}: {shown}", flush=True)
                rounds.setdefault(kind.name, []).append(found)
                if found.p99 >= PATIENCE_SECONDS * 1000:
                    break
    count = f"{keys / 1e6:g} M keys"
    note = f"{PATIENCE_SECONDS * 1000:.0f} means more"

    def values(figure: str) -> dict[str, Sample]:
        return {name: Sample.of([getattr(one, figure) for one in found]) for name, found in rounds.items()}

    return [
        Row(f"lag p50, {count}", "ms", values("p50"), note=note),
        Row(f"lag p99, {count}", "ms", values("p99"), [Target("≤", 50.0)], headline=True, note=note),
        Row(
            f"GET p99.9 meanwhile over before, {count}",
            "x",
            values("slowdown"),
            [Target("≤", 2.0)],
            headline=True,
        ),
    ], how


def run(server: Running, keys: int) -> Found:
    """Fills a server, and watches it while half of its keys expire."""
    load.fill(server, "set", 2 * keys, value=32, ttl=TTL_SECONDS)
    fill_seconds = keys / 200_000 + 1
    first = time.time() + fill_seconds + QUIET_SECONDS
    options = {"value": 32, "deadline": int(first * 1000), "span": int(SPAN_SECONDS * 1000)}
    load.fill(server, "set", keys, **options)
    if time.time() >= first - QUIET_SECONDS:
        raise RuntimeError(f"{server.name} took longer than {fill_seconds:.0f} s to fill")
    with meters.cores_awake(), Client(server.port) as client:
        quiet = client.watch(lambda _: time.time() >= first)
        give_up = first + SPAN_SECONDS + PATIENCE_SECONDS
        busy = client.watch(lambda left: left <= keys or time.time() > give_up)
    gone = [(when, 2 * keys - left) for when, left in busy.sizes]
    slowdown = top(busy.seconds, 0.999) / top(quiet.seconds, 0.999)
    return Found(percentile(gone, keys, first, 0.5), percentile(gone, keys, first, 0.99), slowdown)


@dataclass(frozen=True)
class Watched:
    """What a client saw: how long its GETs took, and how many keys there were at which time."""

    seconds: list[float]
    sizes: list[tuple[float, int]]


class Client:
    """One connection that reads one key again and again."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def watch(self, done: Callable[[int], bool]) -> Watched:
        """Times GETs and looks at the number of keys now and then, until `done` says so of that number."""
        seen = Watched([], [])
        polled = 0.0
        while True:
            start = time.perf_counter()
            self._ask(b"*2\r\n$3\r\nGET\r\n$4\r\nnone\r\n")
            end = time.perf_counter()
            seen.seconds.append(end - start)
            if end - polled < POLL_SECONDS:
                continue
            polled = end
            left = int(self._ask(b"*1\r\n$6\r\nDBSIZE\r\n")[1:-2])
            seen.sizes.append((time.time(), left))
            if done(left):
                return seen

    def _ask(self, request: bytes) -> bytes:
        self._socket.sendall(request)
        return self._socket.recv(4096)


def top(values: list[float], share: float) -> float:
    """The value that this share of all stays below."""
    return sorted(values)[int(share * (len(values) - 1))]


def percentile(samples: list[tuple[float, int]], keys: int, first: float, share: float) -> float:
    """Lag below which that share of the keys ended, taking them to end in the order of their deadlines."""
    gone = [count for _, count in samples]
    lags = []
    for step in range(1, 1001):
        number = keys * step // 1000
        at = bisect_left(gone, number)
        deadline = first + SPAN_SECONDS * number / keys
        lags.append(samples[at][0] - deadline if at < len(samples) else PATIENCE_SECONDS)
    lags.sort()
    return max(0.0, lags[int(share * len(lags)) - 1]) * 1000
