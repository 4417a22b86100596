"""Stores for the tests: embedded, and a client of a real server."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping

import pytest
from data_bridge import kv

os.environ["HUEY_SLOW_TESTS"] = "1"  # Huey leaves tests out unless it is there when they are imported


class Server:
    """A server process on a free port."""

    def __init__(self, *args: str, port: int = 0, environment: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "data_bridge.kv", "serve", "--listen", f"127.0.0.1:{port}", *args]
        self.process = subprocess.Popen(
            [*command, "--admin", "off", "--drain-delay", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:  # one that loads for long tells how far it is
            said += line
            if found := re.search(r"on 127\.0\.0\.1:(\d+)", line):
                self.start_line, self.port = line, int(found[1])
                break
        else:
            pytest.fail(f"the server ended with {self.process.wait()}: {said}")

    def url(self, namespace: str = "") -> str:
        """The URL of a namespace."""
        return f"kv://127.0.0.1:{self.port}/{namespace}"

    def stop(self) -> int:
        """SIGTERM and the exit code."""
        self.process.terminate()
        return self._ended()

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self.process.kill()
        self._ended()

    def _ended(self) -> int:
        code = self.process.wait(timeout=30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for the whole run."""
    running = Server()
    yield running
    assert running.stop() == 0


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """Starts servers with flags and environment of their own, which end with the test."""
    started: list[Server] = []

    def start(*args: str, port: int = 0, environment: Mapping[str, str] | None = None) -> Server:
        started.append(Server(*args, port=port, environment=environment))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that a test may stop."""
    running = Server()
    yield running
    running.kill()


@pytest.fixture(params=["embedded", "remote"])
def store(request: pytest.FixtureRequest, server: Server) -> Iterator[kv.Store | kv.Client]:
    """An empty store of either kind."""
    with kv.open() if request.param == "embedded" else kv.connect(server.url()) as opened:
        opened.clear()
        yield opened


@pytest.fixture(scope="session")
def keep_port() -> Iterator[Callable[[], int]]:
    """Gets a free port that no other process gets before the server that is told to listen there."""
    with contextlib.ExitStack() as kept:

        def keep() -> int:
            place = kept.enter_context(socket.socket())
            # Bound, but not listening: who wants just this port may have it, who wants any gets another.
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            place.bind(("127.0.0.1", 0))
            port: int = place.getsockname()[1]
            return port

        yield keep


@pytest.fixture(scope="session")
def broker(keep_port: Callable[[], int]) -> Iterator[str]:
    """The URL of a Redis server that carries the messages of task queues; its results are ours."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed: task queues have no broker")
    port = keep_port()
    running = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    for line in running.stdout:
        if "Ready to accept connections" in line:
            break
    else:
        pytest.fail(f"redis-server ended with {running.wait()}")
    yield f"redis://127.0.0.1:{port}/0"
    running.terminate()
    running.wait(timeout=30)
