"""Tests of how servers are asked, against a server of the test's own."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.servers import ask


@pytest.fixture
def serve() -> Iterator[Callable[[bytes], int]]:
    """Starts to answer one connection with these bytes and then closes it; the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def answer(reply: bytes) -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(reply)

        def start(reply: bytes) -> int:
            pool.submit(answer, reply)
            return int(listener.getsockname()[1])

        yield start


@pytest.mark.parametrize(
    "reply",
    [
        b"+OK\r\n",
        b":7\r\n",
        b"-LOADING wait\r\n",
        b"$-1\r\n",
        b"$0\r\n\r\n",
        b"$300000\r\n" + b"\r\n" * 150_000 + b"\r\n",
    ],
    ids=["status", "number", "error", "nothing", "empty", "long"],
)
def test_a_reply_is_read_whole(serve: Callable[[bytes], int], reply: bytes) -> None:
    assert ask(serve(reply), b"INFO", b"server") == reply


@pytest.mark.parametrize(
    "reply", [b"", b"+O", b"$300000\r\nredis_version:7\r\n"], ids=["none", "line", "text"]
)
def test_a_reply_that_is_cut_off_is_an_error(serve: Callable[[bytes], int], reply: bytes) -> None:
    with pytest.raises(ConnectionError):
        ask(serve(reply), b"INFO", b"server")
