"""`import SOURCE TARGET`: copies the keys of a Redis database into a namespace, with their types and deadlines.

Source keys are walked by SCAN and read page by page, each by its Redis type. Every key is written as a whole, so that a
run that was cut off can be repeated, or go on from the cursor in its `--resume` file.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from data_bridge.kv._patience import PATIENCE, end_of, patiently
from data_bridge.kv._remote import Client, connect
from data_bridge.kv.errors import ConnectionError, KvError  # noqa: A004 - named as its builtin

READS: dict[str, tuple[Any, ...]] = {
    "string": ("get",),
    "list": ("lrange", 0, -1),
    "set": ("smembers",),
    "hash": ("hgetall",),
    "zset": ("zrange", 0, -1, "withscores"),
}
"""What reads each type that has a kind here; the key stands behind the name."""
TOGETHER = 16
"""Keys that are read in one transaction."""
TOLERANCE_MS = 2000
"""How far apart the deadlines of a key may be that was copied: the clocks of two servers, and the way."""
SHOWN = 20
"""Refused or different keys that are named; all are counted."""
WIDTH = 30
"""Of the progress bar."""
SILENCE = 30.0
"""Seconds of silence after which the source is given up, unless its URL says another `socket_timeout`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of the source; `value` is None where it has gone meanwhile or has a type without a kind here, and the
    error where the source refused to show it."""

    key: bytes
    type: str
    value: Any
    deadline: int | None
    """In Unix milliseconds."""


@dataclass(slots=True)
class Tally:
    """What happened."""

    done: int = 0
    gone: int = 0
    refused: list[str] = field(default_factory=list)

    def refuse(self, key: bytes, why: str) -> None:
        """Counts a key that could not be copied, or that differs."""
        self.refused.append(f"{key!r}: {why}")


class Bar:
    """Progress on a terminal; elsewhere nothing."""

    def __init__(self, what: str, total: int, out: TextIO) -> None:
        self._what, self._total, self._out = what, max(total, 1), out
        self._start = time.monotonic()

    def show(self, done: int) -> None:
        """The bar with so many keys done."""
        if not self._out.isatty():
            return
        part = min(1.0, done / self._total)
        rate = done / max(time.monotonic() - self._start, 1e-9)
        bar = "#" * round(part * WIDTH)
        self._out.write(f"\r{self._what} [{bar:<{WIDTH}}] {part:4.0%} {done:,} keys, {rate:,.0f}/s ")
        self._out.write("\n" if part == 1.0 else "")
        self._out.flush()


class Source:
    """A Redis database."""

    def __init__(self, url: str, text: bool, prefix: str, count: int) -> None:
        try:
            import redis
            from redis.exceptions import NoPermissionError
        except ImportError as error:
            raise KvError("reading Redis needs redis-py: pip install 'data-bridge[redis]'") from error
        self.errors: tuple[type[Exception], ...] = (redis.RedisError, KvError, OSError)
        self._redis: Any = redis.Redis.from_url(url, socket_timeout=SILENCE)
        # The URL of a program may ask for text.
        self._redis.connection_pool.connection_kwargs["decode_responses"] = False
        for name, *_ in READS.values():
            self._redis.set_response_callback(name, lambda answer, **_: answer)
        self._denied = NoPermissionError
        self._text, self._count = text, count
        self.part = f"{self._redis.connection_pool.connection_kwargs.get('db') or 0} {prefix!r}"
        """Which database, and which keys of it."""
        self._match = "".join(f"\\{c}" if c in "*?[]\\" else c for c in prefix) + "*"

    def close(self) -> None:
        """Closes its connections."""
        self._redis.close()

    def size(self) -> int:
        """Number of keys, those without the prefix too."""
        return int(self._redis.dbsize())

    def process(self) -> tuple[str, bool]:
        """Which start of a server this is, since another has other cursors, "" where it is not told; and whether it
        is a part of a cluster."""
        try:
            told = self._redis.info()
        except self._denied:
            return "", False
        return str(told.get("run_id", "")), bool(told.get("cluster_enabled"))

    def pages(self, cursor: int = 0) -> Iterator[tuple[int, list[Entry]]]:
        """The entries by page, each with the cursor after it; 0 at the end."""
        while True:
            cursor, keys = self._redis.scan(cursor, match=self._match, count=self._count)
            yield cursor, self._read(keys)
            if cursor == 0:
                return

    def _read(self, keys: list[bytes]) -> list[Entry]:
        heads = self._redis.pipeline(transaction=False)
        for key in keys:
            heads.type(key)
        heads_found = heads.execute(raise_on_error=False)
        types = [kind.decode() if isinstance(kind, bytes) else "" for kind in heads_found]
        steps, now = self._steps(list(zip(keys, types, strict=True)), TOGETHER), time.time_ns() // 1_000_000
        answers = zip(keys, types, heads_found, steps, strict=True)
        return [self._entry(key, kind, head, *step, now) for key, kind, head, step in answers]

    def _steps(self, keys: list[tuple[bytes, str]], together: int) -> list[tuple[Any, Any]]:
        """The value and the time left of each key at one moment; where one of a group fails, each by itself."""
        groups = [keys[at : at + together] for at in range(0, len(keys), together)]
        pipe = self._redis.pipeline(transaction=False)
        for group in groups:
            pipe.execute_command("multi")
            for key, kind in group:
                name, *rest = READS.get(kind, ("exists",))
                pipe.execute_command(name, key, *rest)
                pipe.execute_command("pttl", key)
            pipe.execute_command("exec")
        answers, steps = iter(pipe.execute(raise_on_error=False)), []
        for group in groups:
            begun, *found, done = islice(answers, 2 * len(group) + 2)
            found = done if isinstance(done, list) else found
            failed = [each for each in (*found, done, begun) if isinstance(each, Exception)]
            if failed and together > 1:
                steps += self._steps(group, 1)
            elif isinstance(done, list) or isinstance(begun, Exception):
                # A user who may not begin a transaction reads one after the other.
                steps += zip(found[::2], found[1::2], strict=True)
            else:
                steps.append((failed[0], None))
        return steps

    def _entry(self, key: bytes, kind: str, head: Any, value: Any, left: Any, now: int) -> Entry:
        for answer in (head, value, left):
            if isinstance(answer, Exception):
                return Entry(key, kind, answer, None)
        gone = left == -2  # after its value was read: without its deadline it would stay for ever
        return Entry(key, kind, None if gone else self._value(kind, value), now + left if left >= 0 else None)

    def _value(self, kind: str, value: Any) -> Any:
        if kind not in READS or value is None or (kind != "string" and not value):
            return None
        if kind == "string":
            return self._scalar(value)
        if kind == "hash":
            return {self._scalar(name): self._scalar(each) for name, each in pairs(value)}
        if kind == "zset":
            return [(self._scalar(member), float(score)) for member, score in pairs(value)]
        return (set if kind == "set" else list)(map(self._scalar, value))

    def _scalar(self, value: bytes) -> str | bytes:
        if not self._text:
            return value
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value


def pairs(answer: Any) -> Iterable[tuple[Any, Any]]:
    """Two and two: RESP3 answers a dict or pairs, RESP2 one flat list."""
    if isinstance(answer, dict):
        return answer.items()
    return answer if isinstance(answer[0], list) else zip(answer[::2], answer[1::2], strict=True)


def write(client: Client, entry: Entry) -> None:
    """Writes one entry as a whole, in one step."""
    key = entry.key.decode()
    pipe = client.pipeline(atomic=True)
    if entry.type == "zset":
        pipe.delete(key).zadd(key, dict(entry.value))
    else:
        pipe.set(key, entry.value)
    if entry.deadline is not None:
        pipe.expire_at(key, entry.deadline / 1000)
    pipe.execute()


def difference(client: Client, entry: Entry) -> str | None:
    """How what is stored differs from an entry of the source."""
    key = entry.key.decode()
    value, left = client.pipeline(atomic=True).get(key).pttl(key).execute()
    if value != entry.value:
        return "missing" if left == -2 else f"another value of kind {client.kind(key)}"
    deadline = None if left == -1 else time.time_ns() // 1_000_000 + left
    if (deadline is None) != (entry.deadline is None):
        return f"expires: {deadline is not None}, in the source: {entry.deadline is not None}"
    if deadline is not None and abs(deadline - (entry.deadline or 0)) > TOLERANCE_MS:
        return f"expires {deadline - (entry.deadline or 0):+} ms apart from the source"
    return None


def begin(source: Source, client: Client, resume: Path | None, out: TextIO) -> tuple[str, int]:
    """Which import this is, from which process, and the cursor to begin at."""
    process, is_part = source.process()
    if is_part:
        out.write("the source is one node of a cluster: import from each of its masters\n")
    this = f"{process} {source.part} {client!r}"
    if resume is None or not resume.exists():
        return this, 0
    cursor, _, before = (resume.read_text().strip() or f"0 {this}").partition(" ")
    if not cursor.isdigit():
        raise KvError(f"{resume} is not a file of --resume")
    if not process:
        out.write(
            "the source does not say which process it is, so no cursor can be used: from the beginning\n"
        )
        return this, 0
    if before != this:
        out.write(f"{resume} is of another import or another process of the source: from the beginning\n")
        return this, 0
    return this, int(cursor)


def walk(
    source: Source, client: Client, verify: bool, resume: Path | None, out: TextIO, tally: Tally
) -> None:
    """Copies every entry, or compares it, and counts."""
    bar = Bar("comparing" if verify else "copying", source.size(), out)
    this, start = begin(source, client, resume, out) if not verify else ("", 0)
    for cursor, entries in source.pages(start):
        for entry in entries:
            one(client, entry, verify, tally)
        if resume is not None:
            resume.write_text(f"{cursor} {this}")
        bar.show(tally.done + tally.gone + len(tally.refused))
    if resume is not None:
        resume.unlink()


def one(client: Client, entry: Entry, verify: bool, tally: Tally) -> None:
    """Copies or compares one entry and counts it."""
    if isinstance(entry.value, Exception):
        tally.refuse(entry.key, f"the source does not show it: {entry.value}")
        return
    if entry.value is None:
        if entry.type in READS or entry.type == "none":
            tally.gone += 1
        else:
            tally.refuse(entry.key, f"a {entry.type} has no kind here")
        return
    why = None
    step = difference if verify else write
    try:
        why = patiently(lambda: step(client, entry), end_of(PATIENCE), (ConnectionError,))
    except ConnectionError as error:
        away = f"the target did not come back within {PATIENCE:.0f} s"
        raise ConnectionError(f"{away}; with --resume the next run goes on from here: {error}") from error
    except (KvError, UnicodeDecodeError) as error:
        why = str(error)
    if why is None:
        tally.done += 1
    else:
        tally.refuse(entry.key, why)


def report(what: str, tally: Tally, out: TextIO) -> None:
    """A line of counts, and the first keys that were refused."""
    out.write(f"{what}: {tally.done:,} keys, {tally.gone:,} gone meanwhile, {len(tally.refused):,} not\n")
    for line in tally.refused[:SHOWN]:
        out.write(f"  {line}\n")


def arguments() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(prog="data-bridge-kv import", description="Copies a Redis database.")
    parser.add_argument("source", help="redis://host:port/db")
    parser.add_argument("target", help="kv://host:port/namespace")
    parser.add_argument("--prefix", default="", help="only keys that begin with it")
    parser.add_argument(
        "--text", action="store_true", help="what is UTF-8 becomes text, otherwise all is bytes"
    )
    parser.add_argument("--verify", action="store_true", help="compare everything after copying")
    parser.add_argument(
        "--resume", type=Path, help="a file for the place in the source; go on from it if it is there"
    )
    parser.add_argument("--count", type=int, default=500, help="keys of one page (500)")
    return parser


def migrate(args: list[str]) -> int:
    """`import SOURCE TARGET`: 0 if every key was copied (and, with `--verify`, is the same), otherwise 1."""
    parser = arguments()
    given = parser.parse_args(args)
    try:
        source = Source(given.source, given.text, given.prefix, given.count)
        client = connect(given.target)
    except (KvError, ValueError) as error:
        parser.error(str(error))
    with client:
        try:
            client.dbsize()  # an unknown namespace is told once, not for each key
            return both(source, client, given.verify, given.resume)
        except source.errors as error:
            sys.stderr.write(f"\n{type(error).__name__}: {error}\n")
        except KeyboardInterrupt:
            sys.stderr.write("\nstopped; with --resume the next run goes on from here\n")
    return 1


def both(source: Source, client: Client, verify: bool, resume: Path | None) -> int:
    """Copies, and compares if asked to; the exit code."""
    copied, compared = Tally(), Tally()
    try:
        walk(source, client, False, resume, sys.stderr, copied)
    finally:  # also when cut off: the run that goes on does not name these again
        report("copied", copied, sys.stdout)
    if verify:
        walk(source, client, True, None, sys.stderr, compared)
        report("the same", compared, sys.stdout)
    return 1 if copied.refused or compared.refused else 0
