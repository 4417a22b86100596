"""Tests of the restarts: what counts as an answer, what is read from the kernel's files, and what a machine lacks."""

import socket
import sys
import threading
from pathlib import Path

import pytest

from bench import recovery
from bench.recovery import Server, lacks, longest_reply, on_disk, status_bytes

SERVER = """
import socket, sys
info = b"# Persistence\\r\\nloading:0\\r\\nlog_bytes:12\\r\\n"
loading = b"-LOADING wait\\r\\n"
replies = [loading, {first!r}, loading, b":3\\r\\n", b"$%d\\r\\n%s\\r\\n" % (len(info), info)]
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    for reply in replies:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(reply)
"""
VALUE = b"$100\r\n" + b"x" * 100 + b"\r\n"


def scripted(first: bytes) -> tuple[Path, list[str]]:
    """A program that answers by a script, and its arguments but the port."""
    return Path(sys.executable), ["-c", SERVER.format(first=first)]


def test_a_start_waits_while_the_server_loads_and_takes_its_numbers() -> None:
    binary, script = scripted(VALUE)
    with on_disk("scripted", binary, lambda port: [*script, str(port)]) as server:
        found = server.start(b"key", 3)
        assert 0 < found.first_read < found.indexed
        assert found.peak > 0
        assert server.info("persistence") == {"loading": 0, "log_bytes": 12}
        directory = server.directory
        assert directory.exists()
    assert not directory.exists()


@pytest.mark.parametrize("first", [b"$-1\r\n", b"$1\r\nx\r\n", b"-ERR broken\r\n"])
def test_a_wrong_answer_is_an_error(first: bytes) -> None:
    binary, script = scripted(first)
    with (
        on_disk("scripted", binary, lambda port: [*script, str(port)]) as server,
        pytest.raises(RuntimeError, match=r"scripted: .* answered"),
    ):
        server.start(b"key", 3)


def test_a_server_that_ends_is_an_error() -> None:
    with (
        on_disk("ending", Path(sys.executable), lambda _: ["-c", "exit('no disk')"]) as server,
        pytest.raises(RuntimeError, match="no disk"),
    ):
        server.start(None, 0)
    assert isinstance(server, Server)


def test_lines_of_the_kernels_files_are_found_by_their_whole_name() -> None:
    text = "VmHWM:\t     12 kB\nVmRSS:\t      7 kB\n"
    assert status_bytes(text, "VmRSS") == 7 * 1024
    with pytest.raises(ValueError, match="no mRSS"):
        status_bytes(text, "mRSS")


def test_what_a_machine_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "machine_bytes", lambda _: 4 << 30)
    assert lacks(1_000) is None
    assert lacks(20_000_000) == "4.0 GiB of memory are free, 7.5 needed"


def test_the_longest_reply_is_that_of_the_slowest_command() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        waits = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                for reply in (b"+OK\r\n", b"$1\r\n1\r\n", b"+OK\r\n"):
                    if b"GET" in connection.recv(1000):
                        waits.wait(0.2)
                    connection.sendall(reply)

        server = threading.Thread(target=serve)
        server.start()
        rounds = iter([True, True, True, False])
        worst = longest_reply(listener.getsockname()[1], lambda: next(rounds), lambda: None)
        server.join()
    assert worst > 0.19
