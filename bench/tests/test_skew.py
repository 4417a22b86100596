"""Tests of the skewed traffic: the law it draws by, what it takes for found, and the control group it looks up."""

import socket
import threading
from collections import Counter
from itertools import islice

import pytest

from bench.parts import tier
from bench.skew import Seen, group_of, limited, over_resp, ranks

KEYS = 1000


def test_ranks_follow_zipfs_law_and_a_seed_repeats_them() -> None:
    drawn = list(islice(ranks(KEYS, 1), 50_000))
    counts = Counter(drawn)
    assert 0 <= min(drawn) <= max(drawn) < KEYS
    assert 1.7 < counts[0] / counts[1] < 2.3
    assert sum(counts[rank] for rank in range(KEYS // 10)) > 0.6 * len(drawn)
    assert drawn[:100] == list(islice(ranks(KEYS, 1), 100)) != list(islice(ranks(KEYS, 2), 100))


def test_what_was_seen_is_told_in_percent_and_microseconds() -> None:
    seen = Seen([number / 1e6 for number in range(101)], found=50, operations=303, duration=3.0)
    assert (seen.rate, seen.microseconds(0.5), seen.microseconds(1)) == (101, 50, 100)
    assert seen.hit_percent == pytest.approx(100 * 50 / 101)


def test_replies_are_found_missing_or_errors() -> None:
    replies = [b"$-1\r\n", b"$4\r\nabcd\r\n", b"+OK\r\n", b"-ERR no\r\n"]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as connection:
                for reply in replies:
                    connection.recv(4096)
                    connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        get, put = over_resp(listener.getsockname()[1])
        assert not get(b"key")
        assert get(b"key")
        put(b"key", b"value")
        with pytest.raises(RuntimeError, match="ERR no"):
            get(b"key")
        thread.join()


def test_a_group_that_cannot_be_made_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.skew.GROUPS", [])
    with limited(1, 1 << 30) as how:
        assert "no control group" in how
    assert not group_of(1, "no such controller")


def test_a_figure_that_an_example_no_longer_prints_is_an_error() -> None:
    assert tier.found(r"index: (\S+) bytes", "index: 25.1 bytes a key") == 25.1
    with pytest.raises(RuntimeError, match="no index"):
        tier.found(r"index: (\S+) bytes", "something else")
