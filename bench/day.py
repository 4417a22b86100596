"""A day of a store whose keys expire, in little: keys with lives of different lengths are written and read at a steady
rate, and what is read is compared. Used by the part `tier`.
"""

from __future__ import annotations

import random
import re
import socket
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

LIVES = (1 / 96, 1 / 24, 1 / 8, 1 / 4)
"""How long keys live, as shares of the day; each has as many keys as the others."""
RATE = 32e6
"""Bytes written in a second."""
SIZES = (200, 4000)
"""The least and the most bytes of a value."""
BATCH, READS = 100, 20
"""Requests of a pipeline, and how many of them read."""
MARGIN = 0.02
"""Seconds by which two clocks may differ."""
BLOCK = random.Random(1).randbytes(1 << 16)
"""What values are pieces of."""
FIGURES = ("tier_disk_bytes", "tier_disk_live_bytes", "expired_keys")
"""Which figures of INFO are taken."""


@dataclass(frozen=True)
class Look:
    """What there is at one moment of the day."""

    live_bytes: int
    """Keys and values that have not expired."""
    figures: dict[str, int]
    """Of INFO."""

    @property
    def space_of_a_byte(self) -> float:
        """Bytes on disk for each byte that lives, there or in memory."""
        return self.figures["tier_disk_bytes"] / self.live_bytes


@dataclass
class Day:
    """One client's day, so many seconds long. Keys are numbered; all else of a key follows from its number."""

    port: int
    seconds: float
    compared: int = 0
    times: list[float] = field(default_factory=list)
    """When each batch was sent."""
    answered: list[float] = field(default_factory=list)
    """When it was answered."""
    written: list[int] = field(default_factory=list)
    """Bytes of each batch."""

    def __post_init__(self) -> None:
        self._draw = random.Random(2)
        self._connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._replies = self._connection.makefile("rb")

    def life(self, number: int) -> float:
        """How many seconds a key lives: those of one batch live equally long, so that what lives is easily counted."""
        return LIVES[number // (BATCH - READS) % len(LIVES)] * self.seconds

    def run(self, shares: tuple[float, ...], at: Callable[[], None]) -> list[Look]:
        """Writes and reads all day; looks at these shares of it, and lets the caller look, too."""
        start, looks, rate = time.monotonic(), [], RATE / (sum(SIZES) / 2) / (BATCH - READS)
        for share in shares:
            while (now := time.monotonic()) < start + share * self.seconds:
                self._batch(now)
                ahead = start + len(self.times) / rate - time.monotonic()
                if ahead > 0:
                    time.sleep(ahead)
            looks.append(Look(self.live(now), self._figures()))
            at()
        self._connection.close()
        return looks

    def live(self, now: float) -> int:
        """Bytes of what has not expired."""
        kinds = range(len(LIVES))
        firsts = [bisect_left(self.times, now - LIVES[kind] * self.seconds) for kind in kinds]
        batches = range(min(firsts), len(self.times))
        return sum(self.written[batch] for batch in batches if batch >= firsts[batch % len(LIVES)])

    def _batch(self, now: float) -> None:
        """One pipeline: new keys, and reads of keys that live or lived."""
        first, writes = len(self.times) * (BATCH - READS), BATCH - READS
        life = b"%d" % int(1000 * self.life(first))
        since = max(0, first - self._window())
        reads = [self._draw.randrange(since, first) for _ in range(READS if first else 0)]
        new = range(first, first + writes)
        words = [b"*5\r\n$3\r\nSET\r\n" + bulks(key_of(one), value_of(one), b"PX", life) for one in new]
        size = sum(map(len, words))
        words += [b"*2\r\n$3\r\nGET\r\n" + bulks(key_of(one)) for one in reads]
        self._connection.sendall(b"".join(words))
        for _ in range(writes):
            if (line := self._replies.readline()) != b"+OK\r\n":
                raise RuntimeError(f"SET answered {line!r}")
        found = [self._bulk() for _ in reads]
        then = time.monotonic()
        for number, value in zip(reads, found, strict=True):
            self._compare(number, value, now, then)
        self.times.append(now)
        self.answered.append(then)
        self.written.append(size)

    def _window(self) -> int:
        """How many keys were written since a little before the oldest that live."""
        since = self.times[-1] - 1.2 * LIVES[-1] * self.seconds if self.times else 0.0
        return (len(self.times) - bisect_left(self.times, since)) * (BATCH - READS)

    def _compare(self, number: int, found: bytes | None, sent: float, answered: float) -> None:
        """A key that lived all the time from the request to the answer has its value, one that was gone before none."""
        batch, life = number // (BATCH - READS), self.life(number)
        lives = self.times[batch] + life > answered + MARGIN
        is_gone = self.answered[batch] + life < sent - MARGIN
        if (lives and found != value_of(number)) or (is_gone and found is not None):
            what = "nothing" if found is None else f"{len(found)} bytes"
            raise RuntimeError(f"key {number}, which {'lives' if lives else 'has expired'}, is {what}")
        self.compared += lives or is_gone

    def _bulk(self) -> bytes | None:
        head = self._replies.readline()
        if head[:1] != b"$":
            raise RuntimeError(f"GET answered {head!r}")
        length = int(head[1:])
        return None if length < 0 else self._replies.read(length + 2)[:-2]

    def _figures(self) -> dict[str, int]:
        self._connection.sendall(b"INFO\r\n")
        text = (self._bulk() or b"").decode()
        return {name: int(value) for name, value in re.findall(r"(\w+):(\d+)\r", text) if name in FIGURES}


def key_of(number: int) -> bytes:
    """The key of this number."""
    return b"day:%012d" % number


def value_of(number: int) -> bytes:
    """Its value."""
    least, most = SIZES
    start = number * 7919 % (len(BLOCK) - most)
    return BLOCK[start : start + least + number * 104729 % (most - least)]


def bulks(*texts: bytes) -> bytes:
    """Words of a request."""
    return b"".join(b"$%d\r\n%s\r\n" % (len(text), text) for text in texts)
