"""A server with a directory that is started again: how soon it answers, how soon it has everything, what
memory that takes; and how long replies take at most while it writes a checkpoint or a snapshot.

Redis keeps its files in three ways: an append-only file of commands alone, one that was rewritten (a snapshot in front,
commands behind it), and a snapshot alone. Files are in the page cache, as when a process is started again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench import load, meters, recovery
from bench.plan import Plan
from bench.recovery import Recovery, Server, Writers
from bench.rows import OURS, Row, Sample, Target
from bench.servers import KINDS, ask, free_port

BUDGET = 4 << 30
TITLE = (
    f"Restart with keys of 16 B and values of {recovery.VALUE} B, all alike, files in the page cache, from exec: "
    "`first read` answered with the value of a key, `indexed` when the number of keys is answered; "
    f"ours `everysec` with a budget of {BUDGET >> 30} GiB. Then the longest reply of a client beside 8 that overwrite "
    "keys as fast as they can, on all cores"
)

REDIS = "redis 7.0"
PLAIN, REWRITTEN, RDB = f"{REDIS}, plain AOF", f"{REDIS}, AOF", f"{REDIS}, RDB"
SIZES = (1_000_000, 5_000_000, 20_000_000)
QUICK_SIZES = (200_000,)
PAUSE_KEYS = 5_000_000
PAUSE_MS = 5.0
EXTRA_PERCENT = 5.0
LOG_BYTES, QUICK_LOG_BYTES = 256 << 20, 32 << 20
"""What a log may take before a checkpoint is written."""
LOG_SHARE = 0.8
"""The share of that which is to be there when the server is killed: beyond, the checkpoint is due."""
PAUSED_LOG_BYTES = 64 << 20
REPEATED = 5_000_000
"""Up to so many keys each start is measured several times."""

Found = dict[str, list[Recovery]]
"""Recoveries by server."""


@dataclass(frozen=True)
class Sizes:
    """How large a run is."""

    keys: tuple[int, ...]
    paused: int
    log_bytes: int
    rounds: int

    @classmethod
    def of(cls, plan: Plan) -> Sizes:
        """Those of a plan: small for a look."""
        if plan.rounds > 1:
            return cls(SIZES, PAUSE_KEYS, LOG_BYTES, min(3, plan.rounds))
        return cls(QUICK_SIZES, QUICK_SIZES[0], QUICK_LOG_BYTES, 1)


def measure(plan: Plan) -> tuple[list[Row], dict[str, str]]:
    """All rows of the part, and how each server ran."""
    load.build()
    sizes = Sizes.of(plan)
    rows: list[Row] = []
    how: dict[str, str] = {}
    for keys in sizes.keys:
        missing = recovery.lacks(keys)
        if missing is None:
            rows += restart_rows(keys, sizes, how)
        else:
            rows.append(show(Row(f"restart, {named(keys)}", "s", {}, note=f"skipped: {missing}")))
    missing = recovery.lacks(sizes.paused)
    if missing is None:
        return [*rows, *pause_rows(sizes, how)], how
    rows.append(show(Row(f"pauses, {named(sizes.paused)}", "ms", {}, note=f"skipped: {missing}")))
    return rows, how


def restart_rows(keys: int, sizes: Sizes, how: dict[str, str]) -> list[Row]:
    """Both kinds of end at one size."""
    rounds = sizes.rounds if keys <= REPEATED else 1
    stopped: Found = {}
    killed: Found = {}
    written = ours(keys, rounds, sizes.log_bytes, stopped, killed)
    redis(keys, written or sizes.log_bytes // 200, rounds, stopped, killed, how)
    data = named(keys)
    one_second = Target("≤", 1.0)
    first = [one_second] if keys == max(sizes.keys) else []
    indexed = [one_second] if keys == REPEATED else []
    rows = []
    behind = f"{written:,}".replace(",", " ")
    for end, found in ((f"clean stop, {data}", stopped), (f"kill -9 behind {behind} writes, {data}", killed)):
        for what, pick, targets in (
            ("first read", lambda one: one.first_read, first),
            ("indexed", lambda one: one.indexed, indexed),
        ):
            values = taken(found, pick)
            rows.append(Row(f"{what}, {end}", "s", values, targets, headline=bool(targets)))
        values = taken(found, lambda one: one.peak / 2**20)
        rows.append(Row(f"most resident until then, {end}", "MiB", values, [Target("≤", BUDGET / 2**20)]))
    return [show(row) for row in rows]


def taken(found: Found, pick: Callable[[Recovery], float]) -> dict[str, Sample]:
    """One figure of all recoveries, by server."""
    return {name: Sample.of([pick(one) for one in each]) for name, each in found.items()}


def ours(keys: int, rounds: int, log_bytes: int, stopped: Found, killed: Found) -> int:
    """Our server: filled, stopped, started; then killed behind a log that is nearly full. Answers how many writes."""
    binary = KINDS[0].find()
    if binary is None:
        return 0
    say(f"{OURS}: {named(keys)}")
    with recovery.on_disk(OURS, binary, our_arguments(log_bytes)) as server:
        server.start(None, 0)
        load.fill(server.running, "set", keys, value=recovery.VALUE)
        for _ in range(rounds):
            server.stop()
            stopped.setdefault(OURS, []).append(server.start(middle(keys), keys))
        written = 0
        while server.info("persistence")["log_bytes"] < LOG_SHARE * log_bytes:
            written += overwrite(server, keys, 0.05)
        for _ in range(rounds):
            server.kill()
            killed.setdefault(OURS, []).append(server.start(middle(keys), keys))
    return written


def redis(keys: int, written: int, rounds: int, stopped: Found, killed: Found, how: dict[str, str]) -> None:
    """Redis with the same keys, and in the end about as many writes behind its snapshot."""
    kind = next(kind for kind in KINDS if kind.name == REDIS)
    binary = kind.find()
    if binary is None:
        how |= dict.fromkeys((REWRITTEN, PLAIN, RDB), f"missing ({kind.remedy})")
        return
    say(f"{REDIS}: {named(keys)}")
    with recovery.on_disk(REDIS, binary, redis_arguments) as server:
        server.start(None, 0)
        tell(how, server)
        load.fill(server.running, "set", keys, value=recovery.VALUE)

        def again(name: str, found: Found, end: Callable[[], None]) -> None:
            for _ in range(rounds):
                end()
                found.setdefault(name, []).append(server.start(middle(keys), keys))

        again(PLAIN, stopped, server.stop)
        ask(server.port, b"BGREWRITEAOF")
        server.wait("persistence", rewritten)
        again(REWRITTEN, stopped, server.stop)
        done = 0
        while done < written:
            done += overwrite(server, keys, 0.1)
        again(REWRITTEN, killed, server.kill)
        ask(server.port, b"SAVE")
        server.arguments = lambda port: [*redis_arguments(port), "--appendonly", "no"]
        again(RDB, stopped, server.stop)


def tell(how: dict[str, str], server: Server) -> None:
    """How Redis keeps its files in each of the three ways."""
    version = server.version()
    how[REWRITTEN] = f"{version}, `--appendonly yes --appendfsync everysec`, behind BGREWRITEAOF"
    how[PLAIN] = f"{version}, the same without it; only its clean stop is measured"
    how[RDB] = f"{version}, `--appendonly no`, behind SAVE; a kill would lose what was written since"


def overwrite(server: Server, keys: int, seconds: float) -> int:
    """Overwrites keys at random; answers how many."""
    return load.run(server.running, "set", None, keys=keys, value=recovery.VALUE, seconds=seconds).operations


def pause_rows(sizes: Sizes, how: dict[str, str]) -> list[Row]:
    """The longest reply beside writers: alone, during a checkpoint, during a snapshot; and the memory that takes."""
    seen: dict[str, Pauses] = {}
    redis = next(kind for kind in KINDS if kind.name == REDIS)
    for name, binary, arguments in (
        (OURS, KINDS[0].find(), snapshooting(PAUSED_LOG_BYTES)),
        (REWRITTEN, redis.find(), redis_arguments),
    ):
        if binary is None:
            how.setdefault(name, f"missing ({redis.remedy})")
            continue
        say(f"{name}: pauses, {named(sizes.paused)}")
        with recovery.on_disk(name, binary, arguments) as server:
            server.start(None, 0)
            load.fill(server.running, "set", sizes.paused, value=recovery.VALUE)
            is_ours = name == OURS
            with Writers(server, sizes.paused):
                seen[name] = Pauses.of(server, sizes.rounds, *(OUR_WORK if is_ours else REDIS_WORK))
    data = named(sizes.paused)
    limit = [Target("≤", PAUSE_MS)]
    rows = [
        Row(f"longest reply, {data}, writers alone for 2 s", "ms", figures(seen, lambda one: one.idle)),
        Row(
            f"longest reply, {data}, checkpoint (BGREWRITEAOF)",
            "ms",
            figures(seen, lambda one: one.checkpoint),
        ),
        Row(
            f"longest reply, {data}, snapshot (BGSAVE)",
            "ms",
            figures(seen, lambda one: one.snapshot),
            limit,
            headline=True,
        ),
        Row(
            f"extra RAM, {data}, snapshot (BGSAVE)",
            "% of resident",
            figures(seen, lambda one: one.extra),
            [Target("≤", EXTRA_PERCENT)],
            headline=True,
        ),
    ]
    return [show(row) for row in rows]


Work = Callable[[Server], None]


@dataclass
class Pauses:
    """What a client saw beside writers, in milliseconds; and a snapshot's memory in percent of what is resident."""

    idle: list[float]
    checkpoint: list[float]
    snapshot: list[float]
    extra: list[float]

    @classmethod
    def of(cls, server: Server, rounds: int, checkpoint: Work, snapshot: Work) -> Pauses:
        """Measures each so many times."""
        pauses = cls([], [], [], [])
        for _ in range(rounds):
            pauses.idle.append(beside(server, nothing)[0])
            pauses.checkpoint.append(beside(server, checkpoint)[0])
            longest, extra = beside(server, snapshot)
            pauses.snapshot.append(longest)
            pauses.extra.append(extra)
        return pauses


def beside(server: Server, work: Work) -> tuple[float, float]:
    """The longest reply in milliseconds while something is done, and how much memory that took in percent."""
    resident, before = meters.rss_bytes(server.pid), recovery.machine_bytes("AnonPages")
    most = [before]
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work(server)
        except BaseException as error:
            errors.append(error)

    worker = threading.Thread(target=run)
    worker.start()

    def sample() -> None:
        most.append(recovery.machine_bytes("AnonPages"))

    longest = recovery.longest_reply(server.port, worker.is_alive, sample)
    worker.join()
    if errors:
        raise errors[0]
    return longest * 1e3, max(0.0, 100 * (max(most) - before) / resident)


def nothing(_: Server) -> None:
    """Lets the writers go on for a while."""
    time.sleep(2.0)


def our_checkpoint(server: Server) -> None:
    """Waits for one that begins and ends meanwhile: writers make them due."""
    before = server.info("persistence")["checkpoints"]
    server.wait("persistence", lambda info: info["checkpoints"] >= before + 2)


def our_snapshot(server: Server) -> None:
    """Makes one."""
    reply = ask(server.port, b"KV.SNAPSHOT")
    if reply.startswith(b"-"):
        raise RuntimeError(f"KV.SNAPSHOT answered {reply!r}")


def redis_rewrite(server: Server) -> None:
    """Makes Redis write its append-only file anew."""
    ask(server.port, b"BGREWRITEAOF")
    server.wait("persistence", rewritten)


def redis_save(server: Server) -> None:
    """Makes Redis write a snapshot."""
    ask(server.port, b"BGSAVE")
    server.wait("persistence", lambda info: info["rdb_bgsave_in_progress"] == 0)


def rewritten(info: dict[str, int]) -> bool:
    """Whether Redis has no append-only file under way."""
    return info["aof_rewrite_in_progress"] == 0 and info["aof_rewrite_scheduled"] == 0


OUR_WORK: tuple[Work, Work] = (our_checkpoint, our_snapshot)
REDIS_WORK: tuple[Work, Work] = (redis_rewrite, redis_save)


def our_arguments(log_bytes: int) -> Callable[[int], list[str]]:
    """A task namespace that is logged; a log of this length."""
    return lambda port: [
        *("serve", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{free_port()}"),
        *("--namespace", "default:task:everysec", "--data", "data", "--drain-delay", "0"),
        *("--max-memory", str(BUDGET), "--log-bytes", str(log_bytes)),
    ]


def snapshooting(log_bytes: int) -> Callable[[int], list[str]]:
    """The same with a folder for snapshots, of which the last is kept."""
    common = our_arguments(log_bytes)
    return lambda port: [*common(port), "--snapshot-dest", "snapshots", "--snapshot-keep", "1"]


def redis_arguments(port: int) -> list[str]:
    """Redis with its append-only file, which it rewrites when it is told to."""
    files = ["--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"]
    quiet = ["--save", "", "--loglevel", "warning", "--protected-mode", "no"]
    return ["--port", str(port), "--bind", "127.0.0.1", *quiet, *files]


def figures(seen: dict[str, Pauses], pick: Callable[[Pauses], list[float]]) -> dict[str, Sample]:
    """One figure by server."""
    return {name: Sample.of(pick(one)) for name, one in seen.items()}


def middle(keys: int) -> bytes:
    """A key that is there."""
    return b"key:%012d" % (keys // 2)


def named(keys: int) -> str:
    """`5 M keys`, `200 k keys`."""
    return f"{keys / 1e6:g} M keys" if keys >= 1_000_000 else f"{keys / 1e3:g} k keys"


def say(text: str) -> None:
    """Says what is being done."""
    print(f"    ... {text}", flush=True)


def show(row: Row) -> Row:
    """Prints a row as soon as it is there."""
    shown = ", ".join(f"{name} {sample.middle:,.4g}" for name, sample in row.values.items())
    print(f"    {row.what} [{row.unit}]: {shown or row.note}", flush=True)
    return row
