"""Tests of the day with TTL churn: what it takes for alive, and that it notices what is wrong."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from bench.day import BATCH, LIVES, READS, Day, Look, key_of, value_of

WRITES = BATCH - READS


@pytest.fixture
def day() -> Iterator[Day]:
    """A day of 96 seconds with a batch of 1000 bytes in each second of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        day = Day(listener.getsockname()[1], 96.0)
        day.times = [float(second) for second in range(96)]
        day.answered = [second + 0.5 for second in day.times]
        day.written = [1000] * 96
        yield day


def test_what_lives_is_what_was_written_within_its_life(day: Day) -> None:
    lives = [share * 96 for share in LIVES]
    alive = sum(1 for second in range(96) if second >= 96 - lives[second % len(lives)])
    assert lives == [1, 4, 12, 24]
    assert day.live(96.0) == 1000 * alive == 10_000


def test_a_value_that_is_wrong_missing_or_comes_back_is_an_error(day: Day) -> None:
    alive, gone = 95 * WRITES, 40 * WRITES
    day._compare(alive, value_of(alive), 96.0, 96.1)
    day._compare(gone, None, 96.0, 96.1)
    # One whose deadline passes meanwhile may be either.
    between = 72 * WRITES
    for found in (None, b"anything"):
        day._compare(between, found, 72.9, 73.6)
    assert day.compared == 2
    for number, found in [(alive, None), (alive, value_of(alive + 1)), (gone, value_of(gone))]:
        with pytest.raises(RuntimeError, match=f"key {number}"):
            day._compare(number, found, 96.0, 96.1)


def test_a_short_day_on_a_store_in_memory() -> None:
    store: dict[bytes, bytes] = {}
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as connection, connection.makefile("rb") as requests:
                while head := requests.readline():
                    words = [
                        requests.read(int(requests.readline()[1:]) + 2)[:-2] for _ in range(int(head[1:]))
                    ]
                    if words[0] == b"SET":
                        store[words[1]] = words[2]
                        connection.sendall(b"+OK\r\n")
                    else:
                        value = store.get(words[1])
                        connection.sendall(
                            b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)
                        )

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        day, looked = Day(listener.getsockname()[1], 1000.0), []
        day._figures = lambda: {"tier_disk_bytes": 30_000_000}  # type: ignore[method-assign]
        for _ in range(3):
            day._batch(time.monotonic())
        (look,) = day.run((0.0,), lambda: looked.append(1))
    assert looked == [1]
    assert isinstance(look, Look)
    assert day.compared == 2 * READS
    assert len(store) == 3 * WRITES
    assert store[key_of(3)] == value_of(3)
    assert look.live_bytes == sum(day.written)
    assert look.space_of_a_byte == 30_000_000 / look.live_bytes
