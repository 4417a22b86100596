"""The asynchronous stores: the same names and signatures, cancelling, reconnecting, waiting without polling."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest
from data_bridge import kv
from data_bridge._native import opcode as op
from data_bridge.kv import _async_views, _views
from data_bridge.kv.aio import AsyncClient, AsyncStore

Test = Callable[[Any], Awaitable[None]]


@pytest.fixture(params=["embedded", "remote"])
def run(request: pytest.FixtureRequest, server: Any) -> Callable[[Test], None]:
    """Runs a coroutine function with an empty store of either kind."""

    async def with_store(test: Test) -> None:
        opened = kv.aio.open() if request.param == "embedded" else kv.aio.connect(server.url())
        async with opened as store:
            await store.clear()
            await test(store)

    return lambda test: asyncio.run(with_store(test))


def public(cls: type) -> dict[str, Any]:
    return {name: value for name, value in inspect.getmembers(cls, callable) if not name.startswith("_")}


PROTOCOL = {
    "connection_made",
    "connection_lost",
    "data_received",
    "eof_received",
    "pause_writing",
    "resume_writing",
}


@pytest.mark.parametrize(("sync", "other"), [(kv.Client, AsyncClient), (kv.Store, AsyncStore)])
def test_names_and_signatures_are_those_of_the_synchronous_class(sync: type, other: type) -> None:
    ours, theirs = public(sync), public(other)
    only_sync = {"close", "popitem"}
    assert set(ours) - set(theirs) == only_sync
    assert set(theirs) - set(ours) - PROTOCOL == {"aclose"}
    compared = 0
    for name in set(ours) & set(theirs) - {"set"}:
        left, right = inspect.signature(ours[name]), inspect.signature(theirs[name])
        assert list(left.parameters) == list(right.parameters), name
        defaults = [parameter.default for parameter in left.parameters.values()]
        assert defaults == [parameter.default for parameter in right.parameters.values()], name
        compared += 1
    assert compared > 100


VIEWS = [
    (_views.HashView, _async_views.AsyncHashView),
    (_views.ListView, _async_views.AsyncListView),
    (_views.SetView, _async_views.AsyncSetView),
    (_views.SortedSetView, _async_views.AsyncSortedSetView),
]


@pytest.mark.parametrize(("sync", "other"), VIEWS)
def test_views_have_the_methods_of_the_synchronous_ones(sync: type, other: type) -> None:
    own = {name for cls in sync.__mro__ if cls.__module__ == _views.__name__ for name in vars(cls)}
    ours = {name for name in own if not name.startswith("_") and name != "key"}
    for name in ours:
        left, right = inspect.signature(getattr(sync, name)), inspect.signature(getattr(other, name))
        assert list(left.parameters) == list(right.parameters), name
    assert len(ours) > 5


def test_views_of_hashes_and_lists(run: Callable[[Test], None]) -> None:
    async def test(store: Any) -> None:
        fields = store.as_hash("h")
        await fields.update({"a": 1}, b=[2])
        await fields.set(3, None)
        assert (await fields.get("a"), await fields.get("x", 7), await fields.get(3, 7)) == (1, 7, None)
        assert await fields.copy() == {"a": 1, "b": [2], 3: None} == dict(await fields.items())
        assert (await fields.keys(), await fields.values()) == (["a", "b", 3], [1, [2], None])
        assert (await fields.contains("a"), await fields.length(), await fields.setdefault("c", 5)) == (
            True,
            3,
            5,
        )
        assert (await fields.pop("c"), await fields.pop("c", 0)) == (5, 0)
        for missing in (fields.pop("c"), fields.delete("c")):
            with pytest.raises(KeyError):
                await missing
        await fields.delete("a")
        assert [kind for kind, *_ in await fields.items_typed()] == ["text", "int"]
        items = store.as_list("l")
        await items.extend([1, 2])
        await items.append(3)
        await items.insert(0, 0)
        await items.set(-1, "last")
        assert (await items.copy(), await items.length(), await items.get(1)) == ([0, 1, 2, "last"], 4, 1)
        assert (await items.contains(2), await items.pop(), await items.pop(0)) == (True, "last", 0)
        await items.remove(2)
        for missing, error in (
            (items.remove(9), ValueError),
            (items.get(9), IndexError),
            (items.pop(9), IndexError),
            (items.set(9, 1), IndexError),
        ):
            with pytest.raises(error):
                await missing
        for view in (fields, items):
            await view.clear()
        assert await store.exists("h", "l") == 0

    run(test)


def test_views_of_sets(run: Callable[[Test], None]) -> None:
    async def test(store: Any) -> None:
        members = store.as_set("s")
        await members.update([1, 2], ["x"])
        await members.add(b"y")
        await members.discard(7)
        await members.remove(2)
        assert (await members.copy(), await members.length(), await members.contains(1)) == (
            {1, "x", b"y"},
            3,
            True,
        )
        assert len(await members.items_typed()) == 3
        with pytest.raises(KeyError):
            await members.remove(7)
        assert await members.pop() in (1, "x", b"y")
        scores = store.as_zset("z")
        await scores.update({"a": 1.0}, b=2.0)
        await scores.set("c", 3.0)
        assert await scores.copy() == await scores.items() == [("a", 1.0), ("b", 2.0), ("c", 3.0)]
        assert (await scores.keys(), await scores.length(), await scores.get("b")) == (
            ["a", "b", "c"],
            3,
            2.0,
        )
        assert (await scores.incr("a", 5), await scores.rank("a"), await scores.contains("x")) == (
            6.0,
            2,
            False,
        )
        assert await scores.by_score(2.5) == await scores.by_rank(1) == [("c", 3.0), ("a", 6.0)]
        assert (await scores.pop_lowest(), await scores.pop_highest()) == (("b", 2.0), ("a", 6.0))
        await scores.delete("c")
        for missing in (scores.delete("c"), scores.pop_lowest()):
            with pytest.raises(KeyError):
                await missing
        for view in (members, scores):
            await view.clear()
        assert await store.exists("s", "z") == 0

    run(test)


def test_commands(run: Callable[[Test], None]) -> None:
    async def test(store: Any) -> None:
        assert await store.set("k", [1, Decimal("1.10")]) is None
        assert await store.get("k") == [1, Decimal("1.10")]
        assert await store.get("no", 7) == 7
        assert await asyncio.gather(*(store.incr("n") for _ in range(200))) == list(range(1, 201))
        assert await store.set("k", 1, nx=True) is False
        with pytest.raises(kv.WrongTypeError):
            await store.lpush("n", 1)
        with pytest.raises(KeyError):
            await store.pop("no")
        assert await store.setdefault("d", 1) == 1
        await store.set_many({"a": 1, "b": 2}, ttl=60)
        assert await store.get_many(["a", "no"]) == {"a": 1}
        assert await store.delete() == 0
        assert sorted([key async for key in store]) == ["a", "b", "d", "k", "n"]
        assert dict([item async for item in store.items()])["n"] == 200

    run(test)


def test_pipelines(run: Callable[[Test], None]) -> None:
    async def test(store: Any) -> None:
        async with store.pipeline() as pipe:
            pipe.set("a", 1).incr("a").get("no", 3).delete()
        assert pipe.results == [None, 2, 3, 0]
        pipe.lpush("a", 1)
        with pytest.raises(kv.WrongTypeError):
            await pipe.execute()
        atomic = store.pipeline(atomic=True).set("b", 1).lpush("a", 1)
        with pytest.raises(kv.WrongTypeError):
            await atomic.execute()
        assert await store.exists("b") == 0
        assert await store.pipeline(atomic=True).set("b", 1).incr("b").execute() == [None, 2]
        assert await store.pipeline().execute() == []

    run(test)


def test_waiting_and_watching(run: Callable[[Test], None]) -> None:
    async def test(store: Any) -> None:
        await store.transition("job", expect=kv.MISSING, to="PENDING")
        waits = [
            asyncio.ensure_future(store.wait("job", field="status", until="DONE", timeout=10))
            for _ in range(3)
        ]
        async with store.watch("job") as watch:
            await asyncio.sleep(0)
            done = await store.transition("job", expect="PENDING", to="DONE")
            assert [wait.version for wait in await asyncio.gather(*waits)] == [done.version] * 3
            event = await watch.next(10)
            assert event is not None
            assert (event.change, event.key) == ("set", "job")
            assert await watch.next(0.01) is None
        with pytest.raises(TimeoutError):
            await store.wait("job", timeout=0.05)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(store.wait("job"), 0.05)

    run(test)


def test_a_hit_in_memory_needs_no_loop() -> None:
    store = kv.aio.open()
    awaitable = store.get("k", 5).__await__()
    with pytest.raises(StopIteration) as stopped:
        next(awaitable)
    assert stopped.value.value == 5


def test_a_cancelled_request_drops_its_answer(server: Any) -> None:
    async def main() -> None:
        async with kv.aio.connect(server.url()) as client:
            await client.set("cancelled", 1)
            requests = [asyncio.ensure_future(client.get("cancelled", number)) for number in range(10)]
            for request in requests[::2]:
                request.cancel()
            done = await asyncio.gather(*requests, return_exceptions=True)
            assert [result == 1 for result in done] == [False, True] * 5
            assert await client.get("cancelled") == 1

    asyncio.run(main())


def test_reconnects(own_server: Any) -> None:
    async def main() -> None:
        client = kv.aio.connect(own_server.url())
        await client.set("k", 1)
        waits = asyncio.ensure_future(client.wait("k"))
        await client.ping()
        own_server.kill()
        with pytest.raises(kv.ConnectionError):
            await waits
        with pytest.raises(kv.ConnectionError):
            await client.get("k")
        again = type(own_server)(port=own_server.port)
        try:
            assert await client.get("k") is None
            assert await client.set("k", 2) is None
        finally:
            again.kill()
        await client.aclose()
        with pytest.raises(kv.ClosedError):
            await client.get("k")

    asyncio.run(main())


def test_binds_to_the_loop_that_runs(server: Any) -> None:
    client = kv.aio.connect(server.url())

    async def use(value: int) -> Any:
        await client.set("loops", value)
        return await client.get("loops")

    assert [asyncio.run(use(value)) for value in range(3)] == [0, 1, 2]


def test_a_silent_server_is_a_timeout() -> None:
    async def main() -> None:
        async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        silent = await asyncio.start_server(swallow, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        async with kv.aio.connect(f"kv://127.0.0.1:{port}", timeout=0.1) as client:
            start = time.monotonic()
            with pytest.raises(TimeoutError):
                await client.get("k")
            assert time.monotonic() - start < 5
        silent.close()

    asyncio.run(main())


def test_wrong_servers() -> None:
    async def main() -> None:
        async def redis(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"-ERR what\r\n")

        other = await asyncio.start_server(redis, "127.0.0.1", 0)
        port = other.sockets[0].getsockname()[1]
        async with kv.aio.connect(f"kv://127.0.0.1:{port}") as client:
            with pytest.raises(kv.ConnectionError, match="native protocol"):
                await client.get("k")
        other.close()
        with pytest.raises(kv.ConnectionError):
            await kv.aio.connect("kv://127.0.0.1:1").get("k")

    asyncio.run(main())


async def _waiting(client: Any, count: int, fact: str = "blocked_clients") -> None:
    """Until so many waits and watches (or connections) are open at the server."""
    async with asyncio.timeout(20):
        while f"{fact}:{count}\r\n" not in await client._call(op.INFO, ("clients",)):
            await asyncio.sleep(0)


def test_a_cancelled_wait_ends_at_the_server(own_server: Any) -> None:
    async def main() -> None:
        async with kv.aio.connect(own_server.url()) as client, kv.aio.connect(own_server.url()) as other:
            waits = [asyncio.ensure_future(client.wait("never")) for _ in range(5)]
            kept = asyncio.ensure_future(client.wait("key"))
            await _waiting(other, 6)
            for wait in waits:
                wait.cancel()
            await _waiting(other, 1)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.wait("never"), 0.05)
            # One that is cancelled in the tick in which it was sent, and one that never was sent.
            asyncio.ensure_future(client.wait("never")).cancel()
            sent: Any = client.wait("never")
            sent.cancel()
            await _waiting(other, 1)
            await other.set("key", 1)
            assert (await kept).value == 1
            await _waiting(other, 0)
            assert await client.get("key") == 1

    asyncio.run(main())


def test_a_cancelled_wait_is_not_sent_again(start_server: Any) -> None:
    async def main() -> None:
        server = start_server()
        async with kv.aio.connect(server.url()) as client:
            wait = asyncio.ensure_future(client.wait("never"))
            kept = asyncio.ensure_future(client.wait("key"))
            await _waiting(client, 2)
            server.kill()
            wait.cancel()
            again = start_server(port=server.port)
            async with kv.aio.connect(again.url()) as other:
                await _waiting(other, 1)
                kept.cancel()
                await _waiting(other, 0)

    asyncio.run(main())


def test_a_watch_that_is_cancelled_or_forgotten_leaves_nothing(own_server: Any) -> None:
    async def main() -> None:
        async with kv.aio.connect(own_server.url()) as client:
            await client.ping()
            for ticks in range(12):
                start = asyncio.ensure_future(anext(aiter(client.watch("key"))))
                for _ in range(ticks):
                    await asyncio.sleep(0)
                start.cancel()
                await asyncio.gather(start, return_exceptions=True)
                del start
            await _waiting(client, 0)
            await _waiting(client, 1, "connected_clients")

    asyncio.run(main())


def test_a_watch_that_nobody_reads_keeps_little_and_says_so(run: Callable[[Test], None]) -> None:
    async def test(store: Any) -> None:
        async with store.watch(prefix="many") as watch:
            for start in range(0, 30_000, 1000):
                await store.set_many({f"many:{start + number}": 0 for number in range(1000)})
            await store.set("many:last", 1)
            seen = 0
            async for event in watch:
                seen += 1
                if event.change == "lost":
                    assert event.key == ""
                    break
            assert seen <= 10_001

    run(test)


def test_every_wait_of_many_is_answered(run: Callable[[Test], None]) -> None:
    async def test(store: Any) -> None:
        waits = [asyncio.ensure_future(store.wait("key", until=1)) for _ in range(12_000)]
        # The store answers them all before the loop takes one.
        await asyncio.sleep(0)
        await store.set("key", 1)
        async with asyncio.timeout(60):
            assert {found.value for found in await asyncio.gather(*waits)} == {1}

    run(test)
