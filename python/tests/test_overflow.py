"""Stores larger than memory: `kv.open(path)`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from data_bridge import kv

BUDGET = 1 << 20


def value(n: int) -> list[Any]:
    """A value of several kinds, of about 600 bytes."""
    return [n, f"text {n} " * 60, Decimal(n) / 4, {"field": n}]


def test_everything_is_there(tmp_path: Path) -> None:
    store = kv.open(tmp_path / "overflow", max_memory=BUDGET, max_disk=256 << 20)
    for n in range(6000):
        store[f"key:{n}"] = value(n)
    assert len(store) == 6000
    assert sum(file.stat().st_size for file in (tmp_path / "overflow").iterdir()) > 2 * BUDGET
    assert all(store[f"key:{n}"] == value(n) for n in range(6000))
    assert len(set(store)) == 6000
    assert store.get("missing") is None
    store.close()
    again = kv.open(tmp_path / "overflow", max_memory=BUDGET)
    assert len(again) == 0
    again.close()


def test_threads_read_cold_keys_side_by_side(tmp_path: Path) -> None:
    store = kv.open(tmp_path, max_memory=BUDGET, mode="task")
    for n in range(4000):
        store[f"key:{n}"] = value(n)
    wrong: list[int] = []

    def read(start: int) -> None:
        wrong.extend(n for n in range(start, 4000, 4) if store[f"key:{n}"] != value(n))

    threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    store.close()
    again = kv.open(tmp_path, max_memory=BUDGET, mode="task")
    assert all(again[f"key:{n}"] == value(n) for n in range(0, 4000, 17))
    again.close()


WRONG = [(0, ValueError), (-1, ValueError), (1 << 64, ValueError), ("1gb", TypeError), (1.5, TypeError)]


@pytest.mark.parametrize("option", ["max_memory", "max_disk"])
@pytest.mark.parametrize(("given", "error"), WRONG)
def test_what_is_no_number_of_bytes_is_refused_by_name(
    tmp_path: Path, option: str, given: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"{option} must be a number of bytes"):
        kv.open(tmp_path, **{option: given})


def test_a_directory_is_for_one_store(tmp_path: Path) -> None:
    store = kv.open(tmp_path)
    with pytest.raises(kv.LockedError, match=rf"this process already \(pid {os.getpid()}\): .*kv\.connect"):
        kv.open(tmp_path)
    code = f"from data_bridge import kv; kv.open({str(tmp_path)!r})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    says = f"LockedError: the data directory {tmp_path} belongs to another process (pid {os.getpid()}): "
    assert says in other.stderr
    with pytest.raises(ValueError, match="max_disk needs a path"):
        kv.open(max_disk=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(kv.UnavailableError, match="data directory"):
        kv.open(tmp_path / "file")
    store.close()


def forget_pages(directory: Path) -> None:
    """Lets the system forget what it has in memory of the files, so that a read has to wait for the disk."""
    for path in directory.iterdir():
        if path.name.startswith("cold-"):
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


async def filled(directory: Path, keys: int) -> kv.aio.AsyncStore:
    """A store most of whose keys are on disk."""
    store = kv.aio.open(directory, max_memory=BUDGET)
    for n in range(keys):
        await store.set(f"key:{n}", value(n))
    forget_pages(directory)
    return store


def test_an_event_loop_goes_on_while_keys_are_read(tmp_path: Path) -> None:
    async def main() -> None:
        store = await filled(tmp_path, 3000)
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticker = asyncio.create_task(tick())
        calls: list[Awaitable[object]] = [store.get(f"key:{n}", "missing") for n in range(3000)]
        # What is in memory is there at once; what has to be read is not, and nobody waited for it.
        waiting = [call for call in calls if isinstance(call, asyncio.Future)]
        assert waiting
        assert not any(call.done() for call in waiting)
        assert [await call for call in calls] == [value(n) for n in range(3000)]
        assert ticks > 0
        ticker.cancel()
        await store.aclose()

    asyncio.run(main())


def test_every_kind_of_call_may_wait(tmp_path: Path) -> None:
    async def main() -> None:
        store = await filled(tmp_path, 2000)
        other = store.namespace("default")
        for n in range(0, 2000, 50):
            forget_pages(tmp_path)
            assert await store.mget([f"key:{n + m}" for m in range(5)]) == [value(n + m) for m in range(5)]
            await store.rename(f"key:{n + 5}", f"new:{n}")
            assert await other.get(f"new:{n}") == value(n + 5)
            queue = store.pipeline()
            queue.set(f"set:{n}", n).get(f"key:{n + 6}").get(f"key:{n + 7}", 7).get(
                "missing", "nothing"
            ).lpush(f"key:{n + 8}", 1)
            results = await queue.execute()
            assert results == [None, value(n + 6), value(n + 7), "nothing", 5]
            async with store.pipeline(atomic=True) as queue:
                queue.get(f"key:{n + 9}").incr(f"set:{n}").delete(f"key:{n + 10}")
            assert await store.get(f"set:{n}") == n + 1
            with pytest.raises(kv.WrongTypeError):
                await store.incr(f"key:{n + 11}")
        keys = [key async for key in store.scan()]
        assert len(keys) == len(set(keys)) == 2000
        await store.aclose()

    asyncio.run(main())


def test_closing_ends_what_waits(tmp_path: Path) -> None:
    async def main() -> None:
        store = await filled(tmp_path, 2000)
        calls = [store.get(f"key:{n}") for n in range(2000)]
        waits = asyncio.ensure_future(store.wait("never"))
        await asyncio.sleep(0)
        await store.aclose()
        results = await asyncio.gather(waits, *calls, return_exceptions=True)
        assert isinstance(results[0], kv.ClosedError)
        assert all(
            result == value(n) or isinstance(result, kv.ClosedError) for n, result in enumerate(results[1:])
        )
        with pytest.raises(kv.ClosedError):
            await store.get("key:1")

    asyncio.run(main())
