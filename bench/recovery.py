"""Servers with a directory that are stopped, killed and started again, and what a client sees of that. Used by the part
`restart`.

A process is timed from its start on: until the first read is answered rightly, and until the number of keys is, which
takes everything that was there.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench import load
from bench.servers import ROOT, Running, ask, free_port, reported_version

VALUE = 100
"""Bytes of a value."""
PATIENCE = 300.0
"""Seconds that a server may take to have its data, or to end."""
PAUSE = 0.002


@dataclass(frozen=True)
class Recovery:
    """How a server that was started on its data came back."""

    first_read: float
    """Seconds until a key was answered with its value."""
    indexed: float
    """Seconds until the number of keys was answered."""
    peak: int
    """Most bytes resident until then."""


class Server:
    """A program and its directory: started, stopped and killed."""

    def __init__(
        self, name: str, binary: Path, arguments: Callable[[int], list[str]], directory: Path
    ) -> None:
        self.name, self.binary, self.arguments, self.directory = name, binary, arguments, directory
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._log = directory / "server.log"

    @property
    def pid(self) -> int:
        """The process that runs."""
        if self._process is None:
            raise RuntimeError(f"{self.name} does not run")
        return self._process.pid

    @property
    def running(self) -> Running:
        """As the load generator wants it."""
        return Running(self.name, self.port, self.pid, "")

    def version(self) -> str:
        """What it says it is."""
        return reported_version(self.port)

    def start(self, key: bytes | None, keys: int) -> Recovery:
        """Starts it, and waits until it answers with a key's value (without one: none) and the number of keys."""
        self.port = free_port()
        with self._log.open("ab") as log:
            begun = time.monotonic()
            self._process = subprocess.Popen(
                [self.binary, *self.arguments(self.port)],
                cwd=self.directory,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        expected = b"$-1\r\n" if key is None else b"$%d\r\n%s\r\n" % (VALUE, b"x" * VALUE)
        self._until((b"GET", key or b"key"), expected)
        first_read = time.monotonic() - begun
        self._until((b"DBSIZE",), b":%d\r\n" % keys)
        return Recovery(first_read, time.monotonic() - begun, peak_bytes(self.pid))

    def _until(self, words: tuple[bytes, ...], expected: bytes) -> None:
        """Asks until the server, which may still load, has this answer; any other is an error."""
        give_up = time.monotonic() + PATIENCE
        reply = b""
        while time.monotonic() < give_up and self._process is not None and self._process.poll() is None:
            with suppress(OSError):
                reply = ask(self.port, *words)
                if reply == expected:
                    return
                if reply and not reply.startswith(b"-LOADING"):
                    break
            time.sleep(PAUSE)
        said = self._log.read_text(errors="replace").strip()[-300:]
        raise RuntimeError(f"{self.name}: {words!r} answered {reply!r}, not {expected!r}; {said}")

    def info(self, section: str) -> dict[str, int]:
        """The numbers of a section of INFO."""
        text = ask(self.port, b"INFO", section.encode()).decode(errors="replace")
        return {name: int(number) for name, number in re.findall(r"(\w+):(\d+)\r", text)}

    def wait(self, section: str, is_so: Callable[[dict[str, int]], bool]) -> None:
        """Waits until the numbers of a section are as they should be."""
        give_up = time.monotonic() + PATIENCE
        while not is_so(self.info(section)):
            if time.monotonic() > give_up:
                raise RuntimeError(f"{self.name}: {section} stays {self.info(section)}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends it cleanly."""
        self._end(subprocess.Popen.terminate)

    def kill(self) -> None:
        """Ends it as `kill -9` does."""
        self._end(subprocess.Popen.kill)

    def _end(self, how: Callable[[subprocess.Popen[bytes]], None]) -> None:
        process, self._process = self._process, None
        if process is not None:
            how(process)
            try:
                process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def on_disk(name: str, binary: Path, arguments: Callable[[int], list[str]]) -> Iterator[Server]:
    """A server with a directory on the disk of the tree (the system's may be in memory); both are gone afterwards."""
    with tempfile.TemporaryDirectory(dir=ROOT / "target", prefix="bench-restart-") as directory:
        server = Server(name, binary, arguments, Path(directory))
        try:
            yield server
        finally:
            server.kill()


def peak_bytes(pid: int) -> int:
    """Most bytes that a process had resident so far."""
    return status_bytes(Path(f"/proc/{pid}/status").read_text(), "VmHWM")


def machine_bytes(name: str) -> int:
    """A line of the machine's memory: `MemAvailable`; or `AnonPages`, where what a fork shares counts once."""
    return status_bytes(Path("/proc/meminfo").read_text(), name)


def status_bytes(text: str, name: str) -> int:
    """The bytes of one line of a file of the kernel's."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"no {name} there")
    return int(found[1]) * 1024


def lacks_memory(keys: int) -> str | None:
    """How much memory the machine lacks for so many keys in the server that takes most; None if it has enough."""
    needed, free = keys * 350 + (1 << 30), machine_bytes("MemAvailable")
    if free < needed:
        return f"{free / 2**30:.1f} GiB of memory are free, {needed / 2**30:.1f} needed"
    return None


def lacks(keys: int) -> str | None:
    """What the machine has too little of for so many keys; None if it has enough."""
    if lack := lacks_memory(keys):
        return lack
    disk = keys * 700 + (2 << 30)
    free = shutil.disk_usage(ROOT / "target").free
    if free < disk:
        return f"{free / 2**30:.1f} GiB of disk are free, {disk / 2**30:.1f} needed"
    return None


class Writers:
    """Clients that overwrite the keys at random, as fast as they can, while the body of the `with` runs."""

    def __init__(self, server: Server, keys: int) -> None:
        options = {"command": "set", "connections": 8, "pipeline": 16, "keys": keys, "seconds": 1000}
        given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        self._command: list[str | Path] = [load.PROGRAM, "--address", f"127.0.0.1:{server.port}", *given]

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()


def longest_reply(port: int, goes_on: Callable[[], bool], sample: Callable[[], None]) -> float:
    """The longest reply in seconds of a client that reads and writes in turn, a few hundred times a second, as long as
    something goes on; `sample` is called in between."""
    requests = (
        (b"*3\r\n$3\r\nSET\r\n$5\r\nprobe\r\n$1\r\n1\r\n", b"+OK\r\n"),
        (b"*2\r\n$3\r\nGET\r\n$5\r\nprobe\r\n", b"$1\r\n1\r\n"),
    )
    worst, count = 0.0, 0
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        while goes_on():
            request, expected = requests[count % 2]
            start = time.monotonic()
            connection.sendall(request)
            reply = connection.recv(64)
            worst = max(worst, time.monotonic() - start)
            if reply != expected:
                raise RuntimeError(f"{request!r} answered {reply!r}")
            count += 1
            if count % 20 == 0:
                sample()
            time.sleep(PAUSE)
    return worst
