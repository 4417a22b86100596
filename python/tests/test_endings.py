"""How waits and watches end, and how clients meet a server that was restarted: nobody hangs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from data_bridge import kv
from data_bridge._native import opcode as op

PATIENCE = 30
"""Seconds after which something that should end at once hangs."""


@pytest.fixture(params=["embedded", "remote"])
def opened(request: pytest.FixtureRequest, server: Any) -> Iterator[Any]:
    """A store that the test closes."""
    with kv.open() if request.param == "embedded" else kv.connect(server.url("14")) as store:
        store.clear()
        yield store


@pytest.fixture(params=["embedded", "remote"])
def run(request: pytest.FixtureRequest, server: Any) -> Callable[[Callable[[Any], Awaitable[None]]], None]:
    """Runs a coroutine function with an asynchronous store, within a time."""

    async def with_store(test: Callable[[Any], Awaitable[None]]) -> None:
        store = kv.aio.open() if request.param == "embedded" else kv.aio.connect(server.url("14"))
        async with store, asyncio.timeout(PATIENCE):
            await store.clear()
            await test(store)

    return lambda test: asyncio.run(with_store(test))


def outcome_in_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    """Starts a call in a thread of its own; answers what gets its result, or the exception that it raised."""
    outcomes: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcomes.put(call())
        except BaseException as error:
            outcomes.put(error)

    threading.Thread(target=work, daemon=True).start()
    return lambda: outcomes.get(timeout=PATIENCE)


def listening(watch: Any, store: Any) -> Callable[[], Any]:
    """Lets a thread wait for the events of a watch until it ends; answers what gets its end."""
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def listen() -> None:
        for event in watch:
            events.put(event)

    end = outcome_in_thread(listen)
    store.set("seen", 1)
    assert events.get(timeout=PATIENCE).key == "seen"
    return end


def test_a_watch_that_another_thread_closes_ends(opened: Any) -> None:
    watch = opened.watch(prefix="")
    end = listening(watch, opened)
    watch.close()
    assert isinstance(end(), kv.ClosedError)
    with pytest.raises(kv.ClosedError):
        watch.next()
    watch.close()


def test_a_watch_ends_with_its_store(opened: Any) -> None:
    watch, other = opened.watch(prefix=""), opened.watch(prefix="")
    end = listening(watch, opened)
    opened.close()
    assert isinstance(end(), kv.ClosedError)
    with pytest.raises(kv.ClosedError):
        list(other)


def test_watches_that_ended_leave_nothing_behind(server: Any) -> None:
    with kv.connect(server.url("14")) as client:
        for _ in range(3):
            with client.watch("key"):
                pass
        kept = client.watch("key")
    with pytest.raises(kv.ClosedError):
        kept.next()
    with pytest.raises(kv.ClosedError, match="the client is closed"):
        client.watch("key")


def test_a_watch_that_is_closed_before_it_is_read_says_so(opened: Any) -> None:
    watch = opened.watch("key")
    watch.close()
    with pytest.raises(kv.ClosedError):
        watch.next()


def blocked(client: Any) -> int:
    """How many wait at the server."""
    facts = client._call(op.INFO, ("clients",))
    return int(facts.split("blocked_clients:")[1].split("\r")[0])


def test_a_wait_ends_with_its_client(own_server: Any) -> None:
    with kv.connect(own_server.url()) as monitor:
        client = kv.connect(own_server.url())
        ends = [outcome_in_thread(lambda: client.wait("never")) for _ in range(3)]
        while blocked(monitor) < 3:
            pass
        client.close()
        assert [type(end()) for end in ends] == [kv.ClosedError] * 3
        while blocked(monitor) > 0:
            pass


def test_a_forked_child_leaves_the_connections_of_its_parent_alone(own_server: Any) -> None:
    client = kv.connect(own_server.url())
    watch = client.watch(prefix="")
    end = listening(watch, client)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with contextlib.suppress(kv.ForkedError):
                watch.next()
                status = 2
            watch.close()
            client.close()
            status = 0 if status == 1 else status
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    client.set("after", 1)
    assert client["after"] == 1
    watch.close()
    assert isinstance(end(), kv.ClosedError)


def test_the_connections_that_a_restart_broke_are_met_once(own_server: Any) -> None:
    client = kv.connect(own_server.url())
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            client.set("k", 1)

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    give_up = time.monotonic() + PATIENCE
    while client._connections[0] < 4 and time.monotonic() < give_up:
        pass
    stop.set()
    for thread in threads:
        thread.join()
    assert client._connections[1] >= 4
    own_server.kill()
    again = type(own_server)(port=own_server.port)
    try:
        assert client.get("k") is None
        assert client._connections == (1, 1)
    finally:
        again.kill()


def test_pipelines_go_on_after_a_restart(own_server: Any) -> None:
    with kv.connect(own_server.url()) as client:
        for atomic in (True, False):
            with client.pipeline(atomic=atomic) as pipe:
                pipe.set("k", 1).incr("n")
            own_server.kill()
            own_server = type(own_server)(port=own_server.port)
            # One that must not be sent twice is sent on a connection that was looked at before.
            assert client.pipeline(atomic=atomic).set("k", 2).incr("n").execute() == [None, 1]
            own_server.kill()
            own_server = type(own_server)(port=own_server.port)
            assert client.pipeline(atomic=False).set("k", 3).get("k").execute() == [None, 3]
        own_server.kill()


def test_an_asynchronous_watch_that_is_closed_ends(run: Any) -> None:
    async def test(store: Any) -> None:
        watch = store.watch(prefix="")
        await watch.start()
        waiting = asyncio.ensure_future(watch.next())
        await asyncio.sleep(0)
        watch.close()
        with pytest.raises(kv.ClosedError):
            await waiting
        for _ in range(2):
            with pytest.raises(kv.ClosedError):
                await watch.next()

    run(test)


def test_an_asynchronous_watch_ends_with_its_embedded_store() -> None:
    async def test() -> None:
        store = kv.aio.open()
        watch = store.watch(prefix="")
        await watch.start()
        waiting = asyncio.ensure_future(watch.next())
        await asyncio.sleep(0)
        await store.aclose()
        async with asyncio.timeout(PATIENCE):
            for attempt in (waiting, watch.next()):
                with pytest.raises(kv.ClosedError):
                    await attempt

    asyncio.run(test())


def test_all_who_read_an_asynchronous_watch_are_told_its_end(run: Any) -> None:
    async def test(store: Any) -> None:
        watch = await store.watch("key").start()
        readers = [asyncio.create_task(watch.next()) for _ in range(3)]
        await asyncio.sleep(0.05)
        watch.close()
        async with asyncio.timeout(PATIENCE):
            ends = await asyncio.gather(*readers, return_exceptions=True)
        assert [type(end) for end in ends] == [kv.ClosedError] * 3
        await store.aclose()
        with pytest.raises(kv.ClosedError):
            await store.watch("key").start()

    run(test)


@pytest.mark.parametrize("host", ["a..b", "a" * 300, "a\0b"])
def test_what_can_be_no_host_is_no_timeout(host: str) -> None:
    async def test() -> None:
        async with kv.aio.connect(f"kv://{host}:1", timeout=None) as client:
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(kv.ConnectionError, match="can't connect"):
                    await client.get("k")

    asyncio.run(test())


def test_an_asynchronous_watch_that_could_not_start_may_try_again(own_server: Any) -> None:
    own_server.kill()

    async def test() -> None:
        client = kv.aio.connect(own_server.url())
        watch = client.watch(prefix="")
        for _ in range(2):
            with pytest.raises(kv.ConnectionError):
                await watch.next()
        again = type(own_server)(port=own_server.port)
        try:
            async with asyncio.timeout(PATIENCE), client:
                await watch.start()
                await client.set("k", 1)
                event = await watch.next()
                assert event is not None
                assert event.key == "k"
        finally:
            again.kill()
        # Its connection is gone for good, and it says so as often as it is asked.
        async with asyncio.timeout(PATIENCE):
            for _ in range(2):
                with pytest.raises(kv.ConnectionError):
                    await watch.next()

    asyncio.run(test())


@pytest.mark.parametrize("atomic", [False, True])
def test_an_asynchronous_pipeline_keeps_its_timeout(atomic: bool) -> None:
    async def test(port: int) -> None:
        client = kv.aio.connect(f"kv://127.0.0.1:{port}", timeout=0.1)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(kv.TimeoutError, match="did not answer in time"):
                await client.pipeline(atomic=atomic).get("k").set("k", 1).execute()
        await client.aclose()

    with socket.create_server(("127.0.0.1", 0)) as silent:
        asyncio.run(test(silent.getsockname()[1]))


def test_what_no_server_takes_is_refused_before_it_is_sent(opened: Any) -> None:
    opened.set("k", 1)
    for atomic in (False, True):
        pipe = opened.pipeline(atomic=atomic).set("k", 2).set("large", b"x" * (65 << 20))
        with pytest.raises(kv.LimitError, match="64 MiB"):
            pipe.execute()
    with pytest.raises(kv.LimitError, match="64 MiB"):
        opened.set("large", "x" * (65 << 20))
    assert opened["k"] == (1 if isinstance(opened, kv.Client) else 2)
    with pytest.raises(kv.LimitError, match="too many arguments: 1048576 at most"):
        opened.rpush("list", *[None] * (1 << 20))
    assert "list" not in opened


def test_what_no_server_takes_is_refused_in_an_event_loop(run: Any) -> None:
    async def test(store: Any) -> None:
        with pytest.raises(kv.LimitError, match="64 MiB"):
            await store.set("large", b"x" * (65 << 20))
        for atomic in (False, True):
            with pytest.raises(kv.LimitError, match="64 MiB"):
                await store.pipeline(atomic=atomic).set("large", b"x" * (65 << 20)).execute()
        assert await store.exists("large") == 0

    run(test)


def test_an_asynchronous_client_is_for_one_running_loop(server: Any) -> None:
    client = kv.aio.connect(server.url("14"))

    async def other() -> None:
        with pytest.raises(RuntimeError, match="connect one for each loop"):
            await client.get("k")

    async def test() -> None:
        waiting = asyncio.ensure_future(client.wait("never"))
        await client.set("k", 1)
        failed = await asyncio.to_thread(outcome_in_thread(lambda: asyncio.run(other())))
        assert failed is None
        assert await client.get("k") == 1
        waiting.cancel()

    asyncio.run(test())
    # The next loop finds it as good as new.
    asyncio.run(test())


def test_a_client_may_be_closed_after_its_loop(server: Any) -> None:
    async def test() -> None:
        asyncio.ensure_future(client.wait("never"))  # noqa: RUF006 - ends with the loop
        await client.set("k", 1)

    client = kv.aio.connect(server.url("14"))
    with asyncio.Runner() as runner:
        runner.run(test())
    asyncio.run(client.aclose())

    async def late() -> None:
        with pytest.raises(kv.ClosedError):
            await client.get("k")

    asyncio.run(late())


def descriptors() -> int:
    """How many this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_loops_of_several_threads_wait_at_one_embedded_store() -> None:
    store = kv.aio.open()
    gc.collect()
    files = descriptors()

    async def waits(key: str) -> Any:
        return (await store.wait(key, until=1)).value

    async def main() -> None:
        mine = [asyncio.ensure_future(waits(f"mine:{number}")) for number in range(20)]
        others = [outcome_in_thread(partial(asyncio.run, waits(f"other:{number}"))) for number in range(5)]
        for number in range(20):
            await asyncio.sleep(0)
            await store.set(f"mine:{number}", 1)
            await store.set(f"other:{number % 5}", 1)
        async with asyncio.timeout(PATIENCE):
            assert await asyncio.gather(*mine) == [1] * 20
            for other in others:
                assert await asyncio.to_thread(other) == 1

    async def again() -> None:
        await store.clear()
        waiting = asyncio.ensure_future(waits("last"))
        await asyncio.sleep(0)
        await store.set("last", 1)
        await waiting

    for _ in range(5):
        asyncio.run(main())
        # A new loop that waits lets go of what the store held for the loops that ended: its own pair is left.
        asyncio.run(again())
        gc.collect()
        assert descriptors() <= files + 2


def test_a_wait_ends_in_its_time_although_the_server_says_nothing(own_server: Any) -> None:
    """A machine that hangs closes no connection: the wait had no end."""
    with kv.connect(own_server.url(), timeout=0.5) as client:
        with pytest.raises(kv.TimeoutError):
            client.wait("never", timeout=0.01)  # so that there is a connection for waits

        async def awaited() -> None:
            async with kv.aio.connect(own_server.url(), timeout=0.5) as store:
                await store.get("key")
                stopped.wait()
                with pytest.raises(kv.TimeoutError, match="did not answer"):
                    await store.wait("never", timeout=0.2)

        stopped = threading.Event()
        end = outcome_in_thread(lambda: asyncio.run(awaited()))
        time.sleep(0.2)
        os.kill(own_server.process.pid, signal.SIGSTOP)
        stopped.set()
        try:
            with pytest.raises(kv.TimeoutError, match="did not answer"):
                client.wait("never", timeout=0.2)
            assert end() is None
        finally:
            os.kill(own_server.process.pid, signal.SIGCONT)
