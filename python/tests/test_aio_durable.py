"""An embedded store of an event loop whose answers wait for the log: the loop goes on, and many share one sync.

The disk is slow, or fails, as `strace` makes it: what has to wait then is seen to wait, whatever the machine is doing.
Each scenario is a coroutine function of this file, which runs as a program of its own.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from data_bridge import kv
from data_bridge._native import Ready
from data_bridge.kv.aio import AsyncStore

SLOW = "delay_enter=150000"
"""A sync takes so many microseconds more."""
STOOD = 3
"""Rounds of a loop that waits for the disk itself, rounded up; one that goes on makes thousands, or some at least."""
LATER = 40
"""Syncs after which one fails: opening takes fewer."""


def under_strace(tmp_path: Path, scenario: Callable[[Path], Awaitable[None]], inject: str) -> int:
    """Runs a scenario with its directory while syncs are slow or fail; how many there were."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed: syncs can't be slowed down")
    log = tmp_path / "syncs"
    command = [
        program,
        "-f",
        "-qq",
        "-e",
        "trace=fdatasync",
        "-e",
        f"inject=fdatasync:{inject}",
        "-o",
        str(log),
    ]
    script = [sys.executable, __file__, scenario.__name__, str(tmp_path / "data")]
    done = subprocess.run([*command, *script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return len(re.findall(r"fdatasync\(|fdatasync resumed", log.read_text()))


def opened(directory: Path, durability: Any = "always") -> AsyncStore:
    return kv.aio.open(directory, mode="task", durability=durability)


def waits(*answers: Any) -> bool:
    """Whether these answers are all still to come."""
    return all(isinstance(answer, asyncio.Future) and not answer.done() for answer in answers)


async def rounds_until(future: Any) -> int:
    """Rounds of the loop until a future is done."""
    rounds = 0
    while not future.done():
        rounds += 1
        await asyncio.sleep(0)
    return rounds


async def loop_goes_on(directory: Path) -> None:
    async with opened(directory) as store:
        for _ in range(3):
            assert await rounds_until(store.set("key", 1)) > STOOD
    async with opened(directory, "everysec") as store:
        # The first that asks for a shard waits until its index is loaded.
        await store.set("key", 1)
        assert isinstance(store.set("key", 1), Ready)
        for write in (
            lambda: store.set("key", 1, durable=True),
            lambda: store.incr("key", durable=True),
            lambda: store.pipeline().set("a", 1).set("b", 2, durable=True).execute(),
            lambda: store.pipeline(atomic=True).set("a", 1).set("b", 2, durable=True).execute(),
        ):
            assert await rounds_until(asyncio.ensure_future(write())) > STOOD
        store.set("key", 1)
        assert await rounds_until(asyncio.ensure_future(store.sync())) > STOOD


async def many_share_a_sync(directory: Path) -> None:
    async with opened(directory) as store:

        async def write(number: int) -> None:
            for turn in range(5):
                await store.set(f"key:{number}:{turn}", turn)

        await asyncio.gather(*map(write, range(64)))
        assert await store.dbsize() == 320


async def answers_come_in_order(directory: Path) -> None:
    async with opened(directory) as store:
        came: list[int] = []
        sent: list[Any] = []
        for number in range(300):
            sent.append(store.set(f"key:{number}", number) if number % 3 else store.incr("count"))
            sent[-1].add_done_callback(lambda _, number=number: came.append(number))
            if number == 100:
                await asyncio.sleep(0.01)
        await asyncio.gather(*sent)
        assert came == list(range(300))
        assert [await one for one in sent[::3]] == list(range(1, 101))
    async with kv.aio.open(directory.with_name("cache")) as cache:
        tasks = cache.namespace("tasks")
        assert await asyncio.gather(*(tasks.incr("count") for _ in range(50))) == list(range(1, 51))


async def what_is_shown_is_durable(directory: Path) -> None:
    async with opened(directory) as store:
        await store.set("calm", 1)
        await store.set("gone", 1)
        await store.set("task", {"status": "STARTED"})
        other = store.namespace("tasks")
        writes: list[Any] = [
            store.set("key", 1),
            store.delete("gone"),
            store.transition("task", expect="STARTED", to="DONE"),
            store.set_many({"a": 1, "b": 2}),
            store.pipeline().set("c", 1).set("d", 2).execute(),
            store.pipeline(atomic=True).set("e", 1).incr("e").execute(),
        ]
        writes = [asyncio.ensure_future(write) for write in writes]
        await asyncio.sleep(0)
        # A change that nobody may see yet is not shown, in whatever way it is asked for.
        asked: list[Any] = [
            store.get("key"),
            store.get("gone"),
            store.exists("key"),
            store.pipeline().get("calm").get("key").execute(),
            store.set_if_version("key", 2, 0),
            store.compare_and_set("a", 7, 8),
            store.wait("task", field="status", until={"DONE"}),
        ]
        asked = [asyncio.ensure_future(question) for question in asked]
        await asyncio.sleep(0)
        assert waits(*writes, *asked)
        # What rests on no such change is there at once.
        for calm in (store.get("calm"), other.get("key"), other.ttl("key")):
            assert isinstance(calm, Ready)
        assert await store.get("calm") == 1
        assert waits(*writes, *asked)
        shown: list[Any] = await asyncio.gather(*asked, return_exceptions=True)
        # Those that the answers rest on; what was written behind may be in the next sync.
        assert all(write.done() for write in writes[:4])
        assert shown[:4] == [1, None, 1, [1, 1]]
        assert (type(shown[4]), shown[5]) == (kv.ConflictError, False)
        assert shown[6].value == {"status": "DONE"}
        assert (await writes[4], await writes[5]) == ([None, None], [None, 2])


async def cancelled(directory: Path) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: sys.exit(str(context)))
    async with opened(directory) as store:

        async def write(number: int) -> None:
            await store.set(f"key:{number}", number)

        writing = [asyncio.create_task(write(number)) for number in range(20)]
        await asyncio.sleep(0)
        for task in writing[::2]:
            task.cancel()
        ended = await asyncio.gather(*writing, return_exceptions=True)
        assert [type(one) for one in ended] == [asyncio.CancelledError, type(None)] * 10
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await store.set("late", 1)
        # What was begun stands, whether somebody waits for it or not.
        assert await store.dbsize() == 21
    async with opened(directory) as store:
        assert await store.dbsize() == 21


async def closed_meanwhile(directory: Path) -> None:
    store = opened(directory)
    writes: list[Any] = [store.set(f"key:{number}", number) for number in range(50)]
    waiting = asyncio.ensure_future(store.wait("never", until="x"))
    assert waits(*writes, waiting)
    await store.aclose()
    assert all(write.done() and write.result() is None for write in writes)
    with pytest.raises(kv.ClosedError):
        await waiting
    with pytest.raises(kv.ClosedError):
        await store.set("key", 1)
    async with opened(directory) as again:
        assert await again.dbsize() == 50


async def closed_while_many_write(directory: Path) -> None:
    store = opened(directory)
    known = [0] * 8
    told: set[type] = set()

    async def write(number: int) -> None:
        while True:
            try:
                known[number] = await store.incr(f"key:{number}")
            except Exception as error:
                told.add(type(error))
                return

    writing = [asyncio.create_task(write(number)) for number in range(8)]
    await store.set("first", 1)
    await store.aclose()
    await asyncio.gather(*writing)
    assert told == {kv.ClosedError}
    async with opened(directory) as again:
        for number, last in enumerate(known):
            assert await again.get(f"key:{number}") in (last, last + 1)


async def loop_goes_on_while_it_closes(directory: Path) -> None:
    store = opened(directory)
    write = store.set("key", 1)
    assert await rounds_until(asyncio.ensure_future(store.aclose())) > STOOD
    assert await write is None


@asynccontextmanager
async def failing(directory: Path) -> AsyncIterator[AsyncStore]:
    """A store whose log fails in the block, which is told to who ends it."""
    store = opened(directory)
    try:
        yield store
    finally:
        with pytest.raises(kv.DurabilityError):
            await store.aclose()
        await store.aclose()


async def log_fails(directory: Path) -> None:
    async with failing(directory) as store:
        failure = None
        while failure is None:
            failure = (await asyncio.gather(store.set("key", 1), return_exceptions=True))[0]
        assert isinstance(failure, kv.DurabilityError)
        for refused in (store.set("key", 1), store.get("key"), store.incr("count", durable=True)):
            with pytest.raises(kv.DurabilityError):
                await refused


async def log_fails_for_all(directory: Path) -> None:
    async with failing(directory) as store:
        failed: set[type] = set()
        told: list[object] = []
        while not failed:
            together = [
                *(store.set(f"key:{number}", number) for number in range(8)),
                store.get("key:1"),
                store.pipeline().set("a", 1).get("a").execute(raise_on_error=False),
                store.pipeline(atomic=True).set("b", 1).get("b").execute(),
            ]
            ended = await asyncio.gather(*together, return_exceptions=True)
            assert type(ended[-2]) is list
            told = [*ended[:-2], *ended[-2], ended[-1]]
            failed = {type(one) for one in told if isinstance(one, Exception)}
            # They share a sync, or come with the next.
        assert failed == {kv.DurabilityError}
        assert isinstance(told[-1], kv.DurabilityError)


async def log_fails_for_a_queue(directory: Path) -> None:
    async with failing(directory) as store:
        together: list[Any] = [1, 1]
        while not isinstance(together[0], kv.DurabilityError):
            assert together[0] in (1, None)
            together = await store.pipeline().set("a", 1).get("a").execute(raise_on_error=False)
        assert [type(one) for one in together] == [kv.DurabilityError] * 2


async def forked(directory: Path) -> None:
    async with opened(directory) as store:
        write = store.set("key", 1)
        assert waits(write)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                store.get("key").__await__().__next__()
            except kv.ForkedError:
                code = 0
            finally:
                del store, write
                gc.collect()
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert await write is None
        assert await store.get("key") == 1


SCENARIOS = [
    loop_goes_on,
    answers_come_in_order,
    what_is_shown_is_durable,
    cancelled,
    closed_meanwhile,
    closed_while_many_write,
    loop_goes_on_while_it_closes,
    forked,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_with_a_slow_disk(tmp_path: Path, scenario: Callable[[Path], Awaitable[None]]) -> None:
    assert under_strace(tmp_path, scenario, SLOW) > 0


def test_many_writers_share_a_sync(tmp_path: Path) -> None:
    syncs = under_strace(tmp_path, many_share_a_sync, SLOW)
    assert 5 <= syncs <= 60


@pytest.mark.parametrize(
    "scenario", [log_fails, log_fails_for_all, log_fails_for_a_queue], ids=lambda scenario: scenario.__name__
)
def test_a_log_that_fails_is_told_to_all_who_wait(
    tmp_path: Path, scenario: Callable[[Path], Awaitable[None]]
) -> None:
    under_strace(tmp_path, scenario, f"error=EIO:when={LATER}+")


def test_loops_of_two_threads(tmp_path: Path) -> None:
    store = opened(tmp_path)
    seen: list[int] = []

    async def write(own: AsyncStore, name: str) -> None:
        await asyncio.gather(*(own.set(f"{name}:{number}", number) for number in range(200)))
        seen.append(sum([await own.get(f"{name}:{number}") for number in range(200)]))

    spaces = {name: store.namespace(0) for name in ("one", "two", "three")}
    threads = [
        threading.Thread(target=lambda name=name, own=own: asyncio.run(write(own, name)))
        for name, own in spaces.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [199 * 100] * 3
    asyncio.run(store.aclose())


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]](Path(sys.argv[2])))
