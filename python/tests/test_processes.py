"""Forks, signals, lost connections, threads and the end of the interpreter, with real processes."""

from __future__ import annotations

import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from data_bridge import kv
from data_bridge._native import opcode as op
from data_bridge.kv import errors

NO_TLS = "kvs:// is not available yet, since the server has no TLS: connect with kv://"


def python(code: str, *args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def in_child(check: Any) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            check()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_may_not_use_an_embedded_store() -> None:
    store = kv.open()
    store["k"] = 1
    uses: list[Callable[[], object]] = [
        lambda: store["k"],
        lambda: store.set("k", 1),
        lambda: store.ttl("k"),
        lambda: store.pipeline().get("k").execute(),
    ]

    def check() -> None:
        for use in uses:
            with pytest.raises(kv.ForkedError):
                use()
        with kv.open() as own:
            own["k"] = 2
            assert own["k"] == 2

    assert in_child(check) == 0
    assert store["k"] == 1


def test_a_forked_child_goes_on_with_a_client(server: Any) -> None:
    with kv.connect(server.url()) as client:
        client["forked"] = 0

        def check() -> None:
            assert [client.incr("forked") for _ in range(50)]

        children = [threading.Thread(target=lambda: codes.append(in_child(check))) for _ in range(1)]
        codes: list[int] = []
        for child in children:
            child.start()
        parent = [client.incr("forked") for _ in range(50)]
        for child in children:
            child.join()
        assert (codes, client["forked"], len(set(parent))) == ([0], 100, 50)


def test_a_forked_child_does_not_free_the_lock_of_its_parent(server: Any) -> None:
    """One that left the block by its end or by `sys.exit` did, and others had the lock while the parent worked on."""
    with kv.connect(server.url()) as client, kv.lock(client, "forked lock") as held:

        def leave() -> None:
            assert held.lost
            with pytest.raises(kv.ConflictError, match="the process that took it"):
                held.release()

        assert in_child(leave) == 0
        held.check()
        assert not kv.lock(client, "forked lock").acquire(timeout=0)


def test_a_forked_child_does_not_give_the_place_of_its_parent_back(server: Any) -> None:
    with kv.connect(server.url()) as client, kv.semaphore(client, "forked semaphore", 1) as held:

        def leave() -> None:
            with pytest.raises(kv.ConflictError, match="the process that took it"):
                held.release()

        assert in_child(leave) == 0
        assert not kv.semaphore(client, "forked semaphore", 1).acquire(timeout=0)


@pytest.mark.parametrize("embedded", [True, False])
def test_ctrl_c_ends_a_wait(server: Any, embedded: bool) -> None:
    # A runner that works in the background ignores SIGINT, and its children inherit that.
    code = """
import signal, sys
from data_bridge import kv
signal.signal(signal.SIGINT, signal.default_int_handler)
store = kv.open() if sys.argv[1] == "" else kv.connect(sys.argv[1])
store["k"] = 1
try:
    print("waiting", flush=True)
    store.wait("nothing")
except KeyboardInterrupt:
    print("interrupted", store["k"])
"""
    url = "" if embedded else server.url()
    command = [sys.executable, "-c", code, url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "interrupted 1\n"


def test_the_interpreter_ends_with_open_stores_and_waits() -> None:
    code = """
import asyncio, contextlib, threading
from data_bridge import kv
store = kv.open()
def waits():
    with contextlib.suppress(kv.ClosedError):
        store.wait("never")
threading.Thread(target=waits, daemon=True).start()
held = kv.aio.open()
async def main():
    asyncio.ensure_future(held.wait("never"))
    await asyncio.sleep(0)
asyncio.run(main())
store["k"] = 1
"""
    ended = python(code)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_process_ends_with_a_subinterpreter_that_has_the_module() -> None:
    code = """
try:
    import _interpreters as interpreters
    number = interpreters.create("legacy")
except ImportError:  # before CPython 3.13
    import _xxsubinterpreters as interpreters
    number = interpreters.create(isolated=False)
assert interpreters.run_string(number, "from data_bridge import kv") is None
"""
    ended = python(code)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_repeats_only_what_may_be_repeated(own_server: Any) -> None:
    with kv.connect(own_server.url()) as client:
        client["k"] = 1
        own_server.kill()
        again = type(own_server)(port=own_server.port)
        try:
            client["k"] = 2
            assert client.get("k") == 2
            again.kill()
            with pytest.raises(kv.ConnectionError):
                client.get("k")
        finally:
            again.kill()


def answering_once(answers: list[bytes]) -> int:
    """A server that reads requests and closes the connection after the preface."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)
        listener.close()

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def test_an_unknown_outcome_is_said() -> None:
    port = answering_once([b"\xdbKV\x01"])
    client = kv.connect(f"kv://127.0.0.1:{port}")
    with pytest.raises(kv.OutcomeUnknownError) as raised:
        client.incr("k")
    assert isinstance(raised.value, ConnectionError)


def test_another_protocol_is_told() -> None:
    client = kv.connect(f"kv://127.0.0.1:{answering_once([b'HTTP/1.1 400'])}")
    with pytest.raises(kv.ConnectionError, match="native protocol"):
        client.get("k")


def test_a_silent_server_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = kv.connect(f"kv://127.0.0.1:{listener.getsockname()[1]}", timeout=0.2)
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            client.get("k")
        assert time.monotonic() - start < 5


def test_threads_share_a_client(server: Any) -> None:
    with kv.connect(server.url(), max_connections=4) as client:
        client.delete("threads")

        def work(number: int) -> int:
            return int(max(client.incr("threads") for _ in range(50)))

        with ThreadPoolExecutor(16) as pool:
            assert max(pool.map(work, range(16))) == 800
        assert client._connections[0] <= 4


def test_clients_pickle_without_the_password(server: Any) -> None:
    with kv.connect(server.url("cache"), password=None) as client:
        again = pickle.loads(pickle.dumps(client))
        again["pickled"] = 1
        assert client["pickled"] == 1
        again.close()
    hidden = kv.connect("kv://:secret@127.0.0.1:1/tasks")
    assert b"secret" not in pickle.dumps(hidden)
    assert "secret" not in repr(hidden)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(kv.open())


class InterruptionError(Exception):
    """What a signal handler raises."""


def test_an_interrupted_or_late_wait_ends_at_the_server(own_server: Any) -> None:
    def raise_it(*_: object) -> None:
        raise InterruptionError

    before = signal.signal(signal.SIGALRM, raise_it)
    try:
        with kv.connect(own_server.url()) as client:
            with pytest.raises(TimeoutError):
                client.wait("never", timeout=0.01)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(InterruptionError):
                client.wait("never")
            signal.setitimer(signal.ITIMER_REAL, 20)
            while "blocked_clients:0\r\n" not in client._call(op.INFO, ("clients",)):
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_every_exception_survives_pickling() -> None:
    found = [value for value in vars(errors).values() if isinstance(value, type)]
    classes = [cls for cls in found if issubclass(cls, kv.KvError)]
    assert len(classes) > 15
    for cls in classes:
        error = cls("why")
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps(error, protocol))
            assert (type(again), str(again), again.args, vars(again)) == (cls, "why", error.args, vars(error))
    conflict = pickle.loads(pickle.dumps(kv.ConflictError("why", [1, None], 7)))
    assert (conflict.current, conflict.version) == ([1, None], 7)
    assert "version 7" in str(conflict)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "kv://host:port",
        "kv://host:0/tasks",
        "localhost:7379",
        "",
        "kv://h:1/n?x=1",
        "nonsense",
        "unix://",
        "unix://host/x",
        "unix:///x?database=1",
        "unix:///x?db=1&namespace=1",
        "kv:example.com:7379",
        "kv:/tasks",
        "kv://[::1",
    ],
)
def test_bad_urls(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|port"):
        kv.connect(url)


def test_what_a_url_begins_with_is_told_but_no_password() -> None:
    with pytest.raises(ValueError, match=r"a URL is kv://host:port/namespace .*, not redis:…$") as refused:
        kv.connect("redis://:secret@localhost")
    assert "secret" not in str(refused.value)
    for password in ("[secret]", "se\u2100cret"):
        with pytest.raises(kv.InvalidArgumentError, match="as %XX") as refused:
            kv.connect(f"kv://:{password}@localhost")
        assert "cret" not in "".join(traceback.format_exception(refused.value)).split("Error:")[-1]
        assert refused.value.__suppress_context__


def test_a_url_is_a_str() -> None:
    for wrong in (b"kv://localhost", Path("/run/kv.sock"), 7379):
        with pytest.raises(TypeError, match="a URL is a str"):
            kv.connect(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf")])
def test_what_is_no_timeout_of_a_client_is_said(timeout: float) -> None:
    for connect in (kv.connect, kv.aio.connect):
        for option in ("timeout", "connect_timeout"):
            options: dict[str, Any] = {option: timeout}
            with pytest.raises(ValueError, match="timeout must"):
                connect(**options)


def test_a_timeout_may_be_longer_than_any_clock(server: Any) -> None:
    with kv.connect(server.url(), timeout=1e19, pool_timeout=1e19, connect_timeout=1e19) as client:
        assert client.ping()


def test_an_unknown_namespace_is_named(server: Any) -> None:
    for name, why in (("taks", "unknown namespace 'taks'"), ("99", "DB index is out of range")):
        with kv.connect(server.url(name)) as client, pytest.raises(ValueError, match=why):
            client.ping()


def test_what_is_not_there_yet_is_refused() -> None:
    for connect in (kv.connect, kv.aio.connect):
        with pytest.raises(ValueError, match=re.escape(NO_TLS)):
            connect("kvs://h")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"durability": "always"}, "is a cache"),
        ({"mode": "task", "durability": "always"}, "needs a data directory"),
        ({"namespaces": {"tasks": {"mode": "task", "durability": "everysec"}}}, "needs a data directory"),
        ({"mode": "task", "durability": "often"}, "unknown durability 'often'"),
    ],
)
def test_a_durability_that_can_not_be_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        kv.open(**options)


def test_the_command_line(server: Any, tmp_path: Path) -> None:
    def run(*args: str) -> tuple[int, str]:
        ended = subprocess.run(
            [sys.executable, "-m", "data_bridge.kv", *args],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return ended.returncode, ended.stdout + ended.stderr

    assert run("cli", "--url", server.url(), "set", "cli", "[1, 2.5]") == (0, "None\n")
    assert run("cli", "--url", server.url(), "get", "cli") == (0, "[1, 2.5]\n")
    assert "'cli'" in run("cli", "--url", server.url(), "keys")[1].splitlines()
    assert "('cli', [1, 2.5])" in run("cli", "--url", server.url(), "items")[1].splitlines()
    assert run("check", "--url", server.url())[0] == 0
    assert run("cli", "--url", server.url(), "nothing")[0] == 2
    assert run("serve", "--nonsense")[0] == 2
    for action in (["check"], ["cli", "get", "key"]):
        code, output = run(*action, "--url", "kvs://h")
        assert (code, output.splitlines()[-1].partition(": error: ")[2]) == (2, NO_TLS), output
    code, output = run("import", "--help")
    assert (code, "kv://host:port/namespace of a running server" in output) == (0, True), output
    assert "--resume RESUME" in output
    code, output = run("check", "--help")
    assert (code, "<DIRECTORY>" in output, "--url URL" in output) == (0, True, True), output
    code, output = run("--help")
    assert (code, "  serve " in output, "  cli " in output) == (0, True, True), output
    # Wheels are built without object storage.
    code, output = run("serve", "--data", str(tmp_path), "--snapshot-dest", "s3://bucket/x")
    assert code == 2
    assert "built without object storage; build it with" in output
