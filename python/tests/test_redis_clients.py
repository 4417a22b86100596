"""What one client writes, another reads: Python's typed client beside redis-py, coredis and valkey-glide."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from data_bridge import kv

redis = pytest.importorskip("redis", reason="redis-py is not installed: scripts/venv dev")


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def both(request: pytest.FixtureRequest, server: Any) -> Any:
    """A typed client and redis-py on the same namespace."""
    with kv.connect(server.url()) as typed, redis.Redis(port=server.port, protocol=request.param) as plain:
        typed.clear()
        yield typed, plain


def test_typed_values_are_shown_as_text(both: Any) -> None:
    typed, plain = both
    typed.update({"int": 7, "float": 0.5, "decimal": Decimal("1.10"), "text": "é", "bytes": b"\x00\xff"})
    shown = plain.mget("int", "float", "decimal", "text", "bytes")
    assert shown == [b"7", b"0.5", b"1.10", "é".encode(), b"\x00\xff"]
    assert plain.incr("int") == 8
    assert typed["int"] == 8


def test_bytes_of_redis_clients_stay_bytes(both: Any) -> None:
    typed, plain = both
    plain.set("k", "text")
    plain.hset("h", mapping={"a": 1})
    plain.rpush("l", "x", "y")
    plain.sadd("s", "m")
    plain.zadd("z", {"m": 1.5})
    assert (typed["k"], typed["h"], typed["l"], typed["s"]) == (b"text", {b"a": b"1"}, [b"x", b"y"], {b"m"})
    assert typed["z"] == [(b"m", 1.5)]
    assert (typed.hget("h", "a"), typed.sismember("s", "m"), typed.zscore("z", "m")) == (b"1", True, 1.5)


def test_collections_are_shared(both: Any) -> None:
    typed, plain = both
    typed.hset("h", mapping={"name": "Ada", 1: Decimal("2.50")})
    assert plain.hgetall("h") == {b"name": b"Ada", b"1": b"2.50"}
    assert plain.hget("h", "1") == b"2.50"
    typed["l"] = [1, "two"]
    assert plain.lrange("l", 0, -1) == [b"1", b"two"]
    plain.expire("l", 100)
    assert typed.ttl("l") == pytest.approx(100, abs=2)


def test_a_blocking_pop_takes_each_element_once(both: Any) -> None:
    _, plain = both
    jobs = [f"{number}".encode() for number in range(200)]

    def work(command: str) -> list[bytes]:
        done: list[bytes] = []
        while True:
            found = getattr(plain, command)(["urgent", "jobs"], timeout=30)
            if found[1] == b"end":
                return done
            done.append(found[1])

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work, command) for command in ("blpop", "brpop", "blpop", "brpop")]
        for job in jobs:
            plain.rpush("urgent" if job.endswith(b"7") else "jobs", job)
        while plain.exists("urgent", "jobs"):
            pass
        plain.rpush("jobs", *[b"end"] * len(workers))
        done = [job for worker in workers for job in worker.result()]
    assert sorted(done) == sorted(jobs)


def test_a_blocking_pop_of_one_worker_keeps_the_order(both: Any) -> None:
    _, plain = both

    def work() -> list[Any]:
        moved = [plain.blmove("jobs", "taken", timeout=30, src="LEFT", dest="RIGHT") for _ in range(50)]
        return moved + [plain.bzpopmin("ranks", timeout=30) for _ in range(3)]

    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(work)
        for number in range(50):
            plain.rpush("jobs", number)
        plain.zadd("ranks", {"a": 1, "b": 2.5, "c": 3})
        result = worker.result()
    numbers = [str(number).encode() for number in range(50)]
    assert (result[:50], plain.lrange("taken", 0, -1)) == (numbers, numbers)
    assert [tuple(one) for one in result[50:]] == [
        (b"ranks", b"a", 1.0),
        (b"ranks", b"b", 2.5),
        (b"ranks", b"c", 3.0),
    ]


def test_blocking_pops_that_find_nothing_or_several(both: Any) -> None:
    _, plain = both
    assert plain.blpop("none", timeout=0.01) is None
    assert plain.brpoplpush("none", "other", timeout=0.01) is None
    assert plain.blmove("none", "other", 0.01) is None
    assert plain.bzpopmax(["none", "other"], timeout=0.01) is None
    assert plain.blmpop(0.01, 2, "none", "other", direction="LEFT") is None
    plain.rpush("l", "a", "b", "c")
    assert plain.lmpop(2, "none", "l", direction="RIGHT", count=2) == [b"l", [b"c", b"b"]]
    plain.zadd("z", {"a": 1.5, "b": 2})
    name, members = plain.bzmpop(1, 2, ["none", "z"], min=True, count=5)
    assert (name, [(member, float(score)) for member, score in members]) == (b"z", [(b"a", 1.5), (b"b", 2.0)])
    with plain.pipeline() as transaction:
        transaction.rpush("l", "d").blpop("none", timeout=0).brpop("l", timeout=0)
        assert [one and tuple(one) for one in transaction.execute()[1:]] == [None, (b"l", b"d")]
    with pytest.raises(redis.ResponseError, match="timeout is negative"):
        plain.blpop("l", timeout=-1)


def test_coredis(server: Any) -> None:
    coredis = pytest.importorskip("coredis", reason="coredis is not installed: scripts/venv dev")

    async def main() -> None:
        async with coredis.Redis(port=server.port) as plain:
            await plain.set("coredis", "1")
            assert await plain.get("coredis") == b"1"

    asyncio.run(main())
    assert kv.connect(server.url())["coredis"] == b"1"


def test_valkey_glide(server: Any) -> None:
    glide = pytest.importorskip("glide", reason="valkey-glide is not installed: scripts/venv dev")

    async def main() -> None:
        address = glide.NodeAddress("127.0.0.1", server.port)
        plain = await glide.GlideClient.create(glide.GlideClientConfiguration([address]))
        await plain.set("glide", "1")
        assert await plain.get("glide") == b"1"
        await plain.close()

    asyncio.run(main())
    assert kv.connect(server.url())["glide"] == b"1"
