"""How clients reach a server: addresses, Unix sockets, passwords, and the sockets of gevent."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import pickle
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from data_bridge import kv


def test_a_unix_socket_is_as_good_as_a_port(tmp_path: Path, start_server: Any) -> None:
    path = tmp_path / "a b.sock"
    server = start_server("--listen", f"unix:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    url = f"unix://{str(path).replace(' ', '%20')}"
    with kv.connect(url) as client, kv.connect(f"{url}?namespace=tasks") as tasks:
        client["k"] = 1
        assert (client["k"], tasks.get("k")) == (1, None)
        again = pickle.loads(pickle.dumps(tasks))
        again["k"] = 2
        assert client.namespace(1)["k"] == tasks["k"] == 2
        assert repr(again) == f"kv.connect('{url}?namespace=tasks')"
        with kv.connect(server.url()) as over_tcp:
            assert over_tcp["k"] == 1

    async def main() -> None:
        async with kv.aio.connect(f"{url}?db=1") as tasks:
            assert await tasks.get("k") == 2

    asyncio.run(main())
    with redis.Redis.from_url(f"unix://{path}?db=1") as other:
        assert other.get("k") == b"2"
    assert server.stop() == 0
    assert not path.exists()
    with pytest.raises(kv.ConnectionError, match=r"can't connect to unix:///.*a b\.sock: "):
        kv.connect(url).ping()

    async def nobody() -> None:
        with pytest.raises(kv.ConnectionError, match=r"can't connect to unix:///.*: "):
            await kv.aio.connect(url).ping()

    asyncio.run(nobody())


@pytest.fixture
def guarded(start_server: Any, tmp_path: Path) -> Any:
    """A server that wants a password."""
    password = tmp_path / "password"
    password.write_text("s3cret/@:\n")
    return start_server("--password-file", str(password))


def _login(url: str, **options: Any) -> list[Any]:
    """What both clients get: an answer or an error."""

    async def main() -> Any:
        async with kv.aio.connect(url, **options) as client:
            return await client.incr("login")

    def attempt(call: Any) -> Any:
        try:
            return call()
        except kv.KvError as error:
            return type(error)

    with kv.connect(url, **options) as client:
        return [attempt(lambda: client.incr("login")), attempt(lambda: asyncio.run(main()))]


def test_passwords(guarded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KV_PASSWORD", raising=False)
    url = guarded.url()
    with_password = url.replace("://", "://:s3cret%2F%40%3A@")
    assert _login(url) == [kv.AuthError, kv.AuthError]
    assert _login(url, password="wrong") == [kv.AuthError, kv.AuthError]
    assert _login(url, password="s3cret/@:") == [1, 2]
    assert _login(with_password) == [3, 4]
    # What is given beats the URL, and that the environment.
    assert _login(with_password, password="wrong") == [kv.AuthError, kv.AuthError]
    monkeypatch.setenv("KV_PASSWORD", "wrong")
    assert _login(with_password + "tasks") == [1, 2]
    assert _login(url) == [kv.AuthError, kv.AuthError]
    monkeypatch.setenv("KV_PASSWORD", "s3cret/@:")
    assert _login(url) == [5, 6]
    monkeypatch.setenv("KV_URL", url)
    with kv.connect() as client:
        assert client["login"] == 6
        again = pickle.loads(pickle.dumps(client))
        assert again["login"] == 6
    monkeypatch.delenv("KV_PASSWORD")
    for make in (copy.copy, copy.deepcopy):  # what stays in the process keeps the password
        with make(kv.connect(url, password="s3cret/@:")) as client:
            assert client["login"] == 6

        async def read(client: Any) -> Any:
            async with client:
                return await client.get("login")

        assert asyncio.run(read(make(kv.aio.connect(url, password="s3cret/@:")))) == 6


def test_a_password_that_nobody_asks_for_is_told(server: Any) -> None:
    with (
        kv.connect(server.url(), password="any") as client,
        pytest.raises(kv.KvError, match="without any password"),
    ):
        client.ping()


def test_threads_that_wait_for_a_connection_get_one(server: Any) -> None:
    """Whoever gave one back had it again before those that waited: they came to nothing, and to TimeoutError."""
    with kv.connect(server.url(), max_connections=2) as client:
        end = time.monotonic() + 1.5

        def calls(_: int) -> int:
            count = 0
            while time.monotonic() < end:
                client.get("key")
                count += 1
            return count

        with ThreadPoolExecutor(8) as pool:
            counts = list(pool.map(calls, range(8)))
    assert 20 * min(counts) > max(counts), counts


@pytest.mark.parametrize("namespace", ["", "tasks"])
@pytest.mark.parametrize("spoken", ["that of Redis", "HTTP"])
def test_another_server_is_named_at_once(spoken: str, namespace: str, broker: str) -> None:
    """Redis waited for the end of a line, and the client for its timeout: nobody was told what is there."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as web:
        threading.Thread(target=web.serve_forever).start()
        port = web.server_port if spoken == "HTTP" else urlsplit(broker).port
        url = f"kv://127.0.0.1:{port}/{namespace}"

        async def main() -> None:
            async with kv.aio.connect(url, connect_timeout=20, timeout=20) as client:
                await client.set("a longer key", 1)

        try:
            for attempt in (
                lambda: kv.connect(url, connect_timeout=20, timeout=20).set("a longer key", 1),
                lambda: asyncio.run(main()),
            ):
                with pytest.raises(kv.ConnectionError, match=f"native protocol of data-bridge but {spoken}"):
                    attempt()
        finally:
            web.shutdown()


def _keepalive(port: int) -> list[tuple[int, ...]]:
    """What is set for the connections of this process to a port."""
    found = []
    for number in Path("/proc/self/fd").iterdir():
        try:
            with socket.socket(fileno=os.dup(int(number.name))) as one:
                if one.family == socket.AF_INET and one.getpeername()[1] == port:
                    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
                    times = [one.getsockopt(socket.IPPROTO_TCP, option) for option in options]
                    found.append((one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), *times))
        except OSError:  # no socket, or one that is not connected
            continue
    return found


@pytest.mark.parametrize("cooperative", [False, True])
def test_a_client_asks_whether_a_silent_server_is_alive(
    cooperative: bool, own_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait without a timeout and a watch stayed for ever where the host of the server was gone."""
    monkeypatch.setattr("data_bridge.kv._remote.is_cooperative", lambda: cooperative)
    with kv.connect(own_server.url()) as client, client.watch("key"):
        client.ping()
        assert _keepalive(own_server.port) == [(1, 30, 10, 3)] * 2

    async def main() -> None:
        async with kv.aio.connect(own_server.url()) as client, client.watch("key"):
            await client.ping()
            assert _keepalive(own_server.port) == [(1, 30, 10, 3)] * 2

    asyncio.run(main())


@pytest.fixture(params=[socket.AF_INET, socket.AF_UNIX])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a listener that has no room for another connection: who connects waits."""
    with contextlib.ExitStack() as kept:
        listener = kept.enter_context(socket.socket(request.param))
        listener.bind(("127.0.0.1", 0) if request.param == socket.AF_INET else str(tmp_path / "full"))
        listener.listen(0)
        place = listener.getsockname()
        for _ in range(2):
            waiting = kept.enter_context(socket.socket(request.param))
            waiting.setblocking(False)
            waiting.connect_ex(place)
        yield f"unix://{place}" if isinstance(place, str) else f"kv://127.0.0.1:{place[1]}"


def test_a_signal_ends_a_connect(full: str) -> None:
    """Ctrl-C was heard when connect_timeout was over, at a Unix socket never."""

    def interrupt(*_: Any) -> None:
        raise InterruptedError

    before, start = signal.signal(signal.SIGALRM, interrupt), time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(InterruptedError):
            kv.connect(full, connect_timeout=40).ping()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - start < 20


def test_a_connect_ends_in_its_time(full: str) -> None:
    """At a Unix socket it took as long as there was no room."""
    with pytest.raises(kv.ConnectionError, match=r"can't connect to .*: connection timed out"):
        kv.connect(full, connect_timeout=0.1).ping()


GEVENT = """
import gevent.monkey
gevent.monkey.patch_all()
import socket, sys, threading, time
import gevent
from data_bridge import kv
from data_bridge._native import opcode as op

client = kv.connect(sys.argv[1], max_connections=2)
client.clear()
turns = []

def tick():
    while True:
        turns.append(1)
        gevent.sleep(0.001)

def waiting():
    return next(line for line in client._call(op.INFO, ("clients",)).split() if line.startswith("blocked_"))

ticker = gevent.spawn(tick)
waits = [gevent.spawn(client.wait, "key", until="done") for _ in range(20)]
with gevent.Timeout(20):
    while waiting() != "blocked_clients:20":
        gevent.sleep(0)
before = len(turns)
assert [client.incr("count") for _ in range(100)] == list(range(1, 101))
# More at a time than there are connections.
gevent.joinall([gevent.spawn(client.incr, "count") for _ in range(50)], raise_error=True, timeout=20)
assert client["count"] == 150
client["key"] = "done"
gevent.joinall(waits, raise_error=True, timeout=20)
assert all(wait.value.value == "done" for wait in waits)
assert len(turns) > before, "nobody else ran while the client waited"
# A wait that gevent ends is not left behind at the server.
try:
    with gevent.Timeout(0.05):
        client.wait("never")
    raise SystemExit("the wait was not ended")
except gevent.Timeout:
    pass
killed = gevent.spawn(client.wait, "never")
while waiting() != "blocked_clients:1":
    gevent.sleep(0)
killed.kill()
with gevent.Timeout(20):
    while waiting() != "blocked_clients:0":
        gevent.sleep(0)
with client.watch("key") as watch:
    gevent.spawn_later(0.01, client.set, "key", 1)
    assert watch.next(20).change == "set"
with client.watch("key") as watch:
    gevent.spawn_later(0.01, watch.close)
    try:
        watch.next(20)
        raise SystemExit("the watch was not closed")
    except kv.ClosedError:
        pass
try:
    client.wait("never", timeout=0.01)
    raise SystemExit("the wait did not time out")
except TimeoutError:
    pass
# What ends a task while it connects is not taken for a server that can't be reached.
connect = socket.create_connection
socket.create_connection = lambda *_: gevent.sleep(20)
try:
    with gevent.Timeout(0.05):
        kv.connect("kv://127.0.0.1:1").ping()
    raise SystemExit("the connection was not ended")
except gevent.Timeout:
    pass
socket.create_connection = connect
ticker.kill()
print("fine")
"""

GEVENT_IN_PROCESS = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent
from data_bridge import kv

store = kv.open(mode="task")
inside, most = 0, 0

def alone():
    global inside, most
    with kv.lock(store, "lock", ttl=20):
        inside += 1
        most = max(most, inside)
        gevent.sleep(0.01)
        inside -= 1

with gevent.Timeout(15):
    gevent.joinall([gevent.spawn(alone) for _ in range(5)], raise_error=True)
    assert most == 1, most
    waiting = gevent.spawn(store.wait, "key", until="done")
    with store.watch("key") as watch:
        gevent.spawn_later(0.01, store.set, "key", "done")
        assert watch.next(20).change == "set"
        assert watch.next(0.01) is None
    assert waiting.get().value == "done"
    killed = gevent.spawn(store.wait, "never")
    gevent.sleep(0.01)
    killed.kill()
try:
    store.wait("never", timeout=0.01)
    raise SystemExit("the wait did not time out")
except TimeoutError:
    pass
print("fine")
"""


def test_gevent(own_server: Any, tmp_path: Path, start_server: Any) -> None:
    path = tmp_path / "kv.sock"
    start_server("--listen", f"unix:{path}")
    for url in (own_server.url(), f"unix://{path}"):
        command = [sys.executable, "-c", GEVENT, url]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "fine\n", "")


def test_the_tasks_of_gevent_share_a_store_in_their_process() -> None:
    """A wait held up the task that would have ended it: three had one lock, each when the time to live was over."""
    command = [sys.executable, "-c", GEVENT_IN_PROCESS]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "fine\n", "")
