"""Locks, semaphores and rate limits: across threads, tasks and processes, with holders that die."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, TypeAlias

import pytest
from data_bridge import kv
from data_bridge.kv._rate import Grant

Either: TypeAlias = kv.Store | kv.Client
Awaited: TypeAlias = kv.aio.AsyncStore | kv.aio.AsyncClient
Test = Callable[[Any], Awaitable[None]]
Run = Callable[[Test], None]


HELD = 60.0
"""A time to live that no renewal misses, however busy the machine is."""


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lives for HELD seconds is renewed every tenth of a second."""
    for module in ("_lock", "_semaphore"):
        monkeypatch.setattr(f"data_bridge.kv.{module}.RENEWALS", HELD * 10)


def left(store: Either, key: str) -> float:
    """Seconds that a key has left."""
    seconds = store.ttl(key)
    assert seconds is not None
    return seconds


@pytest.fixture(params=["embedded", "remote"])
def run(request: pytest.FixtureRequest, server: Any) -> Run:
    """Runs a coroutine function with an empty asynchronous store of either kind."""

    async def with_store(test: Test) -> None:
        opened = kv.aio.open() if request.param == "embedded" else kv.aio.connect(server.url())
        async with opened as store:
            await store.clear()
            await test(store)

    return lambda test: asyncio.run(with_store(test))


def added(store: Either, guard: Callable[[], Any], threads: int, rounds: int) -> tuple[int, int]:
    """What an addition that is not atomic comes to under a guard, and how many were inside it at most."""
    inside, most = [0], [0]

    def work(_: int) -> None:
        for _ in range(rounds):
            with guard():
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                store["sum"] = store.get("sum", 0) + 1
                inside[0] -= 1

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    return store["sum"], most[0]


def test_one_holder_at_a_time_and_rising_fences(store: Either) -> None:
    fences: list[int] = []

    class Guard:
        def __enter__(self) -> None:
            self.lock = kv.lock(store, "lock")
            with_fence = self.lock.__enter__()
            fences.append(with_fence.fence or 0)

        def __exit__(self, *exc: Any) -> None:
            self.lock.__exit__(*exc)

    assert added(store, Guard, 5, 20) == (100, 1)
    assert fences == sorted(set(fences))


def test_whoever_waits_for_a_lock_is_woken(store: Either) -> None:
    held, taken = kv.lock(store, "lock", ttl=60), threading.Event()
    assert held.acquire()

    def late() -> int:
        with kv.lock(store, "lock", ttl=60) as lock:
            taken.set()
            return lock.fence or 0

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(late)
        assert not taken.wait(0.05)
        fence = held.fence or 0
        assert held.locked()
        held.release()
        assert waiting.result(20) > fence
    assert not held.locked()


def test_a_lock_that_is_not_free_in_time(store: Either) -> None:
    with kv.lock(store, "lock"):
        assert not kv.lock(store, "lock").acquire(timeout=0)
        assert not kv.lock(store, "lock", timeout=0).acquire()
        start = time.monotonic()
        with (
            pytest.raises(kv.TimeoutError, match=r"'lock' was not free within 0.1 s"),
            kv.lock(store, "lock", timeout=0.1),
        ):
            pass
        assert 0.05 < time.monotonic() - start < 10
    assert kv.lock(store, "lock").acquire(timeout=0)


@pytest.mark.usefixtures("_often")
def test_a_lock_is_renewed_while_it_is_held(store: Either) -> None:
    with store.watch("lock") as changes, kv.lock(store, "lock", ttl=HELD) as held:
        for _ in range(5):
            event = changes.next(20)
            assert event is not None
            assert event.change == "set"
        held.check()
        assert not kv.lock(store, "lock").acquire(timeout=0)


def test_a_lock_that_is_lost_says_so(store: Either) -> None:
    for deleted in (True, False):
        held = kv.lock(store, "lock", ttl=60)
        assert held.acquire()
        if deleted:
            store.delete("lock")
        else:
            store.hset("lock", "owner", "somebody")
        with pytest.raises(kv.ConflictError, match="was lost before it was released"):
            held.release()
        store.delete("lock")
    short = kv.lock(store, "lock", ttl=0.05, renew=False)
    assert short.acquire()
    version = store.get_versioned("lock").version
    if store.exists("lock"):
        store.wait("lock", until=kv.newer_than(version), timeout=20)
    assert short.lost
    with pytest.raises(kv.ConflictError, match="is not held"):
        short.check()
    with pytest.raises(ZeroDivisionError), kv.lock(store, "lock"):
        assert 1 / (store.delete("lock") - 1)


def test_a_lost_renewal_is_noticed_while_the_block_runs(store: Either) -> None:
    held = kv.lock(store, "lock", ttl=0.3)
    assert held.acquire()
    store.hset("lock", "owner", "somebody")
    give_up = time.monotonic() + 20
    while not held.lost and time.monotonic() < give_up:
        threading.Event().wait(0.01)
    with pytest.raises(kv.ConflictError):
        held.check()


def test_a_time_to_live_is_seconds_or_a_timedelta(store: Either) -> None:
    minute = timedelta(minutes=1)
    with kv.lock(store, "lock", ttl=minute), kv.semaphore(store, "semaphore", 1, ttl=minute):
        assert all(59 < (store.ttl(name) or 0) <= 60 for name in ("lock", "semaphore"))
    with pytest.raises(TypeError, match="ttl must be seconds"):
        kv.lock(store, "lock", ttl="60")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="ttl must be seconds"):
        kv.semaphore(store, "semaphore", 1, ttl="60")  # type: ignore[call-overload]


def test_a_lock_used_wrongly(store: Either) -> None:
    held = kv.lock(store, "lock")
    with pytest.raises(RuntimeError, match="not held by this object"):
        held.release()
    with held, pytest.raises(RuntimeError, match="held by this object already"):
        held.acquire()
    with pytest.raises(ValueError, match="ttl must be positive"):
        kv.lock(store, "lock", ttl=0)
    with pytest.raises(TypeError, match="needs a store"):
        kv.lock(None, "lock")  # type: ignore[call-overload]
    store["lock"] = 1
    with pytest.raises(kv.WrongTypeError):
        held.acquire()


def test_the_lock_of_a_holder_that_was_killed_is_free_after_its_ttl(server: Any) -> None:
    code = f"""
from data_bridge import kv
lock = kv.lock(kv.connect({server.url("tasks")!r}), "killed", ttl=1)
lock.acquire()
print(lock.fence, flush=True)
input()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    fence = int(process.stdout.readline())
    with kv.connect(server.url("tasks")) as store:
        assert not kv.lock(store, "killed").acquire(timeout=1.5)
        process.kill()
        process.communicate()
        with kv.lock(store, "killed", timeout=20) as lock:
            assert (lock.fence or 0) > fence


@pytest.mark.usefixtures("_often")
def test_asynchronous_locks(run: Run) -> None:
    async def test(store: Awaited) -> None:
        inside: list[int] = []

        async def work(number: int) -> int:
            async with kv.lock(store, "lock") as held:
                inside.append(number)
                await asyncio.sleep(0)
                assert inside == [number]
                inside.clear()
                return held.fence or 0

        fences = await asyncio.gather(*map(work, range(20)))
        assert len(set(fences)) == 20
        lock = kv.lock(store, "lock", ttl=HELD)
        async with store.watch("lock") as changes:
            assert await lock.acquire()
            assert all([await changes.next(20) for _ in range(5)])
            lock.check()
            assert await lock.locked()
            assert not await kv.lock(store, "lock").acquire(timeout=0.01)
            assert not await kv.lock(store, "lock", timeout=0.01).acquire()
            with pytest.raises(kv.TimeoutError):
                async with kv.lock(store, "lock", timeout=0.01):
                    pass
            await lock.release()
        assert not await lock.locked()
        await lock.acquire()
        await store.delete("lock")
        with pytest.raises(kv.ConflictError):
            await lock.release()

    run(test)


def test_a_cancelled_wait_for_a_lock_leaves_it_free(run: Run) -> None:
    async def test(store: Awaited) -> None:
        async with kv.lock(store, "lock"):
            waiting = asyncio.create_task(kv.lock(store, "lock").acquire())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert await kv.lock(store, "lock").acquire(timeout=0)

    run(test)


@pytest.mark.parametrize("kind", ["lock", "semaphore"])
def test_an_acquisition_that_is_cancelled_on_its_way_takes_nothing(run: Run, kind: str) -> None:
    """The store may have the request already: it was held for its whole time to live, by nobody."""

    async def test(store: Awaited) -> None:
        for turns in range(12):
            name = f"{kind}:{turns}"

            def made(name: str = name) -> Any:
                return kv.lock(store, name) if kind == "lock" else kv.semaphore(store, name, 1)

            taking = asyncio.create_task(made().acquire())
            for _ in range(turns % 6):
                await asyncio.sleep(0)
            if turns >= 6:
                await asyncio.sleep(0.0001 * turns)
            taking.cancel()
            outcomes = await asyncio.gather(taking, return_exceptions=True)
            if outcomes[0] is not True:
                assert await made().acquire(timeout=0), turns

    run(test)


def test_an_acquisition_that_is_given_up_by_its_loop_ends_quietly(run: Run) -> None:
    async def test(store: Awaited) -> None:
        @kv.cached(store, ttl=HELD)
        async def price(number: int) -> int:
            return number

        started = asyncio.Event()

        @kv.cached(store, ttl=HELD)
        async def endless() -> None:
            started.set()
            await asyncio.Event().wait()

        await store.get("x")
        for given_up in (kv.lock(store, "x").acquire(), kv.semaphore(store, "s", 1).acquire(), price(1)):
            with contextlib.suppress(StopIteration):
                given_up.send(None)
            given_up.close()
        computing = asyncio.create_task(endless())
        await started.wait()
        coroutine = computing.get_coro()
        assert coroutine is not None
        coroutine.close()
        computing.cancel()

    run(test)


def test_an_interrupted_acquisition_takes_nothing(store: Either, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(method: str) -> None:
        real = getattr(type(store), method)

        def taken(*args: Any, **options: Any) -> None:
            monkeypatch.setattr(type(store), method, real)
            real(*args, **options)
            raise KeyboardInterrupt

        monkeypatch.setattr(type(store), method, taken)

    for made, method in (
        (lambda: kv.lock(store, "lock"), "transition"),
        (lambda: kv.semaphore(store, "places", 1), "set_if_version"),
    ):
        interrupted(method)
        with pytest.raises(KeyboardInterrupt):
            made().acquire()
        assert made().acquire(timeout=0)


@pytest.mark.parametrize("kind", ["lock", "semaphore", "cached"])
def test_what_an_interrupted_acquisition_still_takes_afterwards_is_given_back(
    store: Either, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Its request is on a connection of its own, and may come after the one that undoes it."""
    method = "set_if_version" if kind == "semaphore" else "transition"
    real = getattr(type(store), method)
    late: list[threading.Timer] = []

    def taken_later(*args: Any, **options: Any) -> None:
        monkeypatch.setattr(type(store), method, real)

        def take() -> None:
            with contextlib.suppress(kv.ConflictError):
                real(*args, **options)

        late.append(threading.Timer(0.05, take))
        late[0].start()
        raise KeyboardInterrupt

    def taken() -> bool:
        if kind == "lock":
            return kv.lock(store, "lock", ttl=HELD).acquire(timeout=0)
        if kind == "semaphore":
            return kv.semaphore(store, "places", 1, ttl=HELD).acquire(timeout=0)
        return kv.cached(store, HELD, key="entry", lease=HELD)(lambda: True)()

    monkeypatch.setattr(type(store), method, taken_later)
    with pytest.raises(KeyboardInterrupt):
        taken()
    late[0].join()
    start = time.monotonic()
    assert taken()
    assert time.monotonic() - start < HELD / 2


def test_an_interrupted_release_gives_back(store: Either, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody renews it any more, but it was held by nobody for what was left of its time to live."""
    for made, method in (
        (lambda: kv.lock(store, "lock", ttl=HELD), "transition"),
        (lambda: kv.semaphore(store, "places", 1, ttl=HELD), "hdel"),
    ):
        held, real = made(), getattr(type(store), method)
        assert held.acquire()

        def interrupted(*_: Any, real: Any = real, method: str = method, **__: Any) -> None:
            monkeypatch.setattr(type(store), method, real)
            raise KeyboardInterrupt

        monkeypatch.setattr(type(store), method, interrupted)
        with pytest.raises(KeyboardInterrupt):
            held.release()
        assert made().acquire(timeout=0)


def test_what_no_thread_can_renew_is_not_kept(store: Either, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads may be used up, and their start is interrupted as anything else."""

    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    for made in (lambda: kv.lock(store, "lock"), lambda: kv.semaphore(store, "places", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refused)
            with pytest.raises(RuntimeError, match="new thread"):
                made().acquire()
        assert made().acquire(timeout=0)


def test_a_key_that_is_no_semaphore_says_so(store: Either) -> None:
    store["number"] = 1
    with kv.lock(store, "lock"):
        for name in ("number", "lock"):
            with pytest.raises(kv.WrongTypeError, match="something else than a semaphore"):
                kv.semaphore(store, name, 1).acquire(timeout=0)


def test_a_semaphore_lets_in_its_limit(store: Either) -> None:
    total, most = added(store, lambda: kv.semaphore(store, "places", 1), 4, 10)
    assert (total, most) == (40, 1)
    places = [kv.semaphore(store, "places", 3) for _ in range(4)]
    assert [place.acquire(timeout=0) for place in places] == [True, True, True, False]
    assert not kv.semaphore(store, "places", 3, timeout=0).acquire()
    places[1].release()
    assert places[3].acquire(timeout=0)
    with pytest.raises(kv.TimeoutError, match=r"within 0.1 s"), kv.semaphore(store, "places", 3, timeout=0.1):
        pass


def test_whoever_waits_for_a_place_is_woken(store: Either) -> None:
    held = kv.semaphore(store, "places", 1, ttl=60)
    assert held.acquire()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(kv.semaphore(store, "places", 1, ttl=60).acquire)
        held.release()
        assert waiting.result(20)


@pytest.mark.usefixtures("_often")
def test_places_are_renewed_and_end_with_their_holder(store: Either) -> None:
    with store.watch("places") as changes, kv.semaphore(store, "places", 1, ttl=HELD) as held:
        assert all(changes.next(20) for _ in range(5))
        assert not kv.semaphore(store, "places", 1).acquire(timeout=0)
        store.hdel("places", held._token)
        with pytest.raises(kv.ConflictError, match="was lost"):
            held.release()
        start = time.monotonic()
        store["places"] = {"limit": 1, "dead": time.time() + 0.2}
        assert held.acquire(timeout=20)
        assert 0.1 < time.monotonic() - start < 10
    with pytest.raises(RuntimeError, match="no place"):
        held.release()
    with held, pytest.raises(RuntimeError, match="held by this object already"):
        held.acquire()


@pytest.mark.usefixtures("_often")
def test_asynchronous_semaphores(run: Run) -> None:
    async def test(store: Awaited) -> None:
        inside, most = 0, 0
        three = asyncio.Barrier(3)

        async def work(_: int) -> None:
            nonlocal inside, most
            async with kv.semaphore(store, "places", 3):
                inside += 1
                most = max(most, inside)
                await three.wait()
                inside -= 1

        await asyncio.gather(*map(work, range(30)))
        assert most == 3
        async with store.watch("places") as changes, kv.semaphore(store, "places", 1, ttl=HELD):
            assert all([await changes.next(20) for _ in range(5)])
            with pytest.raises(kv.TimeoutError):
                async with kv.semaphore(store, "places", 1, timeout=0.01):
                    pass

    run(test)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Nanoseconds that the rate limits see."""
    now = [time.time_ns()]
    monkeypatch.setattr("data_bridge.kv._rate.time.time_ns", lambda: now[0])
    return now


def test_a_rate_limit_allows_a_burst_and_then_its_rate(store: Either, clock: list[int]) -> None:
    limit = kv.rate_limit(store, "api", 3, per=timedelta(seconds=30))
    assert [(bool(grant), grant.remaining) for grant in (limit.hit("ada") for _ in range(4))] == [
        (True, 2),
        (True, 1),
        (True, 0),
        (False, 0),
    ]
    assert limit.hit("bob")
    refused = limit.hit("ada")
    assert (refused.allowed, refused.retry_after) == (False, 10.0)
    clock[0] += int(9.9e9)
    assert limit.hit("ada").retry_after == pytest.approx(0.1)
    clock[0] += int(0.1e9)
    assert [bool(limit.hit("ada")) for _ in range(2)] == [True, False]
    # Idle for longer than it takes to pay all back, while the key is still there.
    clock[0] += int(600e9)
    assert [bool(limit.hit("ada")) for _ in range(4)] == [True, True, True, False]
    assert 0 < left(store, "api:ada") <= 30


def test_costs_and_bursts_of_a_rate_limit(store: Either, clock: list[int]) -> None:
    limit = kv.rate_limit(store, "api", 10, per=10, burst=5)
    assert [bool(limit.hit(cost=cost)) for cost in (3, 3, 2, 1)] == [True, False, True, False]
    clock[0] += int(1e9)
    assert limit.hit() == Grant(True, 0, 0.0)
    for wrong in (0, 6, -1):
        with pytest.raises(ValueError, match="cost must be 1 to 5"):
            limit.hit(cost=wrong)
    for options in ({"limit": 0, "per": 1}, {"limit": 1, "per": 0}, {"limit": 1, "per": 1, "burst": 0}):
        with pytest.raises(ValueError, match="must be positive"):
            kv.rate_limit(store, "api", **options)


def test_a_rate_of_bytes_is_kept(store: Either, clock: list[int]) -> None:
    """Ten million a second were one million, since each took a whole microsecond."""
    limit = kv.rate_limit(store, "upload", 10_000_000, per=1)
    granted = 0
    for _ in range(200):
        clock[0] += int(0.01e9)
        granted += 100_000 * bool(limit.hit(cost=100_000)) + 50_000 * bool(limit.hit(cost=50_000))
    assert granted == pytest.approx(10_000_000 + 2 * 10_000_000, rel=0.01)
    with pytest.raises(ValueError, match="per is out of range"):
        kv.rate_limit(store, "century", 1, per=1e10)


def test_a_rate_limit_under_many_threads(store: Either) -> None:
    limit = kv.rate_limit(store, "api", 50, per=1000)
    with ThreadPoolExecutor(8) as pool:
        granted = sum(map(bool, pool.map(lambda _: limit.hit(), range(400))))
    assert granted == 50


def test_asynchronous_rate_limits(run: Run, clock: list[int]) -> None:
    async def test(store: Awaited) -> None:
        limit = kv.rate_limit(store, "api", 5, per=50)
        grants = await asyncio.gather(*(limit.hit("ada") for _ in range(20)))
        assert sum(map(bool, grants)) == 5
        clock[0] += int(20e9)
        assert [bool(await limit.hit("ada")) for _ in range(3)] == [True, True, False]

    run(test)
