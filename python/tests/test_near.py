"""Near caches: what is kept is never older than what the server told."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from data_bridge import kv
from data_bridge.kv import _near


@pytest.fixture
def other(server: Any) -> Iterator[kv.Client]:
    """Another client, of an empty namespace."""
    with kv.connect(server.url("15")) as client:
        client.clear()
        yield client


@pytest.fixture
def client(server: Any, other: kv.Client) -> Iterator[kv.Client]:
    """The client whose reads are kept."""
    with kv.connect(server.url("15")) as opened:
        yield opened


def soon(holds: Callable[[], bool]) -> bool:
    """Whether something comes true: the watch tells it at its own pace."""
    give_up = time.monotonic() + 30
    while not holds() and time.monotonic() < give_up:
        threading.Event().wait(0.002)
    return holds()


def test_a_second_read_is_kept(client: kv.Client, other: kv.Client) -> None:
    values = {
        "p:text": "a",
        "p:decimal": Decimal("1.10"),
        "p:list": [1, {"a": (2,)}],
        "p:none": None,
        "q:out": 1,
    }
    other.set_many(values)
    with kv.near_cache(client, "p:") as near:
        for _ in range(3):
            assert {key: near.get(key) for key in values} == values
        assert (near.hits, near.misses, len(near)) == (8, 7, 4)
        near.get("p:list").append("changed by its reader")
        assert near.get("p:list") == values["p:list"]
        assert (near.get("p:lost"), near.get("p:lost", 5)) == (None, 5)
    assert near.get("p:text") == "a"
    assert not near.is_listening


def test_what_others_write_is_seen(client: kv.Client, other: kv.Client) -> None:
    other.set_many({"p:a": 1, "p:b": 1, "p:c": [1], "p:d": 1})
    with kv.near_cache(client, "p:") as near:
        assert [near.get(f"p:{name}") for name in "abcd"] == [1, 1, [1], 1]
        other.incr("p:a")
        other.delete("p:b")
        other.rpush("p:c", 2)
        other.rename("p:d", "p:e")
        assert soon(lambda: [near.get(f"p:{name}") for name in "abcde"] == [2, None, [1, 2], None, 1])
        other.clear()
        assert soon(lambda: near.get("p:a") is None)


def test_its_own_writes_are_seen_at_once(client: kv.Client, other: kv.Client) -> None:
    with kv.near_cache(client, "p:") as near:
        for number in range(200):
            near.set("p:a", number, ttl=60)
            assert near.get("p:a") == number
        assert near.delete("p:a", "p:b") == 1
        assert near.get("p:a") is None


def test_a_value_that_changed_while_it_was_read_is_not_kept(
    client: kv.Client, other: kv.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.set("p:a", "old")
    real = _near.NearCache._keep

    def late(self: Any, copy: Any, *rest: Any) -> None:
        monkeypatch.undo()
        other.set("p:a", "new")
        assert soon(lambda: "p:a" not in self._by_key)
        real(self, copy, *rest)

    with kv.near_cache(client, "p:") as near:
        monkeypatch.setattr(_near.NearCache, "_keep", late)
        assert near.get("p:a") == "old"
        assert near.get("p:a") == "new"


def test_nothing_is_kept_beyond_its_time_or_the_size(
    client: kv.Client, other: kv.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    other.set("p:short", 1, ttl=30)
    other.set_many({f"p:{number}": number for number in range(50)})
    with kv.near_cache(client, "p:", size=10, max_age=60) as near:
        monkeypatch.setattr("data_bridge.kv._near.time.monotonic", lambda: now[0])
        assert [near.get(key) for key in ("p:short", "p:1")] == [1, 1]
        now[0] += 29
        assert [near.get(key) for key in ("p:short", "p:1")] == [1, 1]
        assert near.hits == 2
        now[0] += 2
        assert [near.get(key) for key in ("p:short", "p:1")] == [1, 1]
        assert near.hits == 3
        now[0] += 30
        assert near.get("p:1") == 1
        assert near.hits == 3
        assert [near.get(f"p:{number}") for number in range(50)] == list(range(50))
        assert len(near) == 10


def test_keys_that_are_not_there_take_no_place(client: kv.Client, other: kv.Client) -> None:
    """Who asked for enough of them lost all that was kept."""
    other["p:there"] = 1
    with kv.near_cache(client, "p:", size=2) as near:
        assert near.get("p:there") == 1
        assert [near.get(f"p:missing:{number}") for number in range(10)] == [None] * 10
        assert (near.get("p:there"), near.hits, len(near)) == (1, 1, 1)


def test_a_lost_connection_keeps_nothing_until_it_is_back(start_server: Any) -> None:
    first = start_server()
    client = kv.connect(first.url(), connect_timeout=1)
    with kv.near_cache(client, "p:") as near:
        near.set("p:a", 1)
        assert soon(lambda: near.get("p:a") == 1 and near.hits > 0)
        first.kill()
        assert soon(lambda: not near.is_listening)
        assert len(near) == 0
        with pytest.raises(kv.ConnectionError):
            near.get("p:a")
        start_server(port=first.port)
        assert soon(lambda: near.is_listening)
        near.set("p:a", 2)
        hits = near.hits
        assert soon(lambda: near.get("p:a") == 2 and near.hits > hits)


def test_its_end_does_not_wait_for_anything(client: kv.Client) -> None:
    start = time.monotonic()
    for _ in range(20):
        kv.near_cache(client, "p:").__enter__().close()
    assert time.monotonic() - start < 4, "each looked for its end after a while"


def test_a_forked_child_listens_for_itself(server: Any, client: kv.Client, other: kv.Client) -> None:
    other.set("p:a", 1)
    with kv.near_cache(client, "p:") as near:
        assert near.get("p:a") == 1
        child = os.fork()
        if child == 0:
            status = 1
            try:
                same = (near.get("p:a"), near.get("p:a"))
                kv.connect(server.url("15")).set("p:a", 2)
                status = 0 if same == (1, 1) and soon(lambda: near.get("p:a") == 2) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert soon(lambda: near.get("p:a") == 2)


def test_asynchronous(server: Any, other: kv.Client) -> None:
    other.set("p:a", [1])

    async def test() -> None:
        async with kv.aio.connect(server.url("15")) as client, kv.near_cache(client, "p:") as near:
            assert [await near.get("p:a") for _ in range(3)] == [[1]] * 3
            assert (near.hits, await near.get("p:lost", 7)) == (2, 7)
            other.set("p:a", [2])
            give_up = time.monotonic() + 30
            while await near.get("p:a") != [2] and time.monotonic() < give_up:
                await asyncio.sleep(0.002)
            assert await near.get("p:a") == [2]
            await near.set("p:a", [3])
            assert await near.get("p:a") == [3]
            assert await near.delete("p:a") == 1
            assert await near.get("p:a") is None
            await near.aclose()
            assert not near.is_listening
            await client.set("p:a", 3)
            assert [await near.get("p:a") for _ in range(2)] == [3, 3]
            assert len(near) == 0

    asyncio.run(test())


def test_only_clients_have_one() -> None:
    near_cache: Any = kv.near_cache
    with pytest.raises(TypeError, match="needs a client, from"):
        near_cache(kv.open(), "p:")
    with pytest.raises(ValueError, match="size must be positive"):
        near_cache(kv.connect("kv://127.0.0.1:1"), "p:", size=0)
