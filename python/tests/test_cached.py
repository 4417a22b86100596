"""`kv.cached`: one computation of many callers, refreshes, tags, mistakes."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeAlias

import pytest
from data_bridge import kv
from data_bridge.kv import _entries

Either: TypeAlias = kv.Store | kv.Client
Awaited: TypeAlias = kv.aio.AsyncStore | kv.aio.AsyncClient
Test = Callable[[Any], Awaitable[None]]


def left(store: Either, key: str) -> float:
    """Seconds that a key has left."""
    seconds = store.ttl(key)
    assert seconds is not None
    return seconds


@pytest.fixture(params=["embedded", "remote"])
def run(request: pytest.FixtureRequest, server: Any) -> Callable[[Test], None]:
    """Runs a coroutine function with an empty asynchronous store of either kind."""

    async def with_store(test: Test) -> None:
        opened = kv.aio.open() if request.param == "embedded" else kv.aio.connect(server.url())
        async with opened as store:
            await store.clear()
            await test(store)

    return lambda test: asyncio.run(with_store(test))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the entries' time is ahead."""
    ahead, real = [0.0], time.time
    monkeypatch.setattr("data_bridge.kv._entries.time.time", lambda: real() + ahead[0])
    return ahead


def test_a_result_is_computed_once_and_keeps_its_type(store: Either) -> None:
    calls: list[Any] = []

    @kv.cached(store, ttl=60)
    def price(sku: int, currency: str = "EUR", *, net: bool = True) -> dict[str, Any]:
        """A price."""
        calls.append((sku, currency, net))
        return {"price": Decimal("1.10"), "sku": sku}

    assert price(7) == price(7, "EUR") == price(currency="EUR", sku=7) == {"price": Decimal("1.10"), "sku": 7}
    assert len(calls) == 1
    price(7, net=False)
    price(7, "USD")
    assert len(calls) == 3
    assert (getattr(price, "__name__", ""), price.__doc__) == ("price", "A price.")
    assert 59 < left(store, price.key(7)) <= 60
    assert price.invalidate(sku=7)
    assert not price.invalidate(7)
    price(7)
    assert len(calls) == 4


def test_results_that_are_none_are_results(store: Either) -> None:
    calls: list[int] = []

    @kv.cached(store, 60)
    def nothing() -> None:
        calls.append(1)

    assert [nothing(), nothing()] == [None, None]
    assert calls == [1]


def test_keys_tell_arguments_apart(store: Either) -> None:
    @kv.cached(store, 60)
    def same(value: Any) -> Any:
        return value

    values = [
        1,
        True,
        1.0,
        "1",
        b"1",
        Decimal("1.0"),
        Decimal("1.00"),
        (1,),
        [1],
        None,
        "x" * 5000,
        -0.0,
        0.0,
    ]
    assert [repr(same(value)) for value in values] == list(map(repr, values))
    assert [repr(same(value)) for value in values] == list(map(repr, values))
    assert len({same.key(value) for value in values}) == len(values)
    with pytest.raises(TypeError, match="need key="):
        same(object())


def test_keys_of_ones_own(store: Either) -> None:
    @kv.cached(store, 60, key="price:{sku}:{options[vat]}")
    def by_format(sku: int, options: dict[str, int]) -> int:
        return sku

    @kv.cached(store, 60, key=lambda user: f"user:{user.name}")
    def by_function(user: Any) -> str:
        return str(user.name)

    assert by_format(3, {"vat": 19}) == 3
    assert by_function(threading.current_thread()) == "MainThread"
    assert sorted(store) == ["price:3:19", "user:MainThread"]


def test_a_key_of_something_else_says_so(store: Either) -> None:
    @kv.cached(store, 60, key="{name}")
    def same(name: str) -> str:
        return name

    for name, value in {"text": "x", "number": 1, "list": [1], "hash": {"other": 1}}.items():
        store[name] = value
        with pytest.raises(kv.WrongTypeError, match=f"'{name}' holds something else than a result"):
            same(name)
        assert store[name] == value


def test_methods(store: Either) -> None:
    class Shop:
        tax = 2

        @kv.cached(store, 60, key="shop:{sku}")
        def price(self, sku: int) -> int:
            return sku * self.tax

    assert (Shop().price(2), Shop().price(sku=2), Shop.price.key(Shop(), 2)) == (4, 4, "shop:2")


def test_a_method_of_an_object_has_what_the_function_has(store: Either) -> None:
    class Shop:
        @kv.cached(store, 60, key="shop:{sku}")
        def price(self, sku: int) -> int:
            return sku

        @classmethod
        @kv.cached(store, 60, key="tax:{sku}")
        def tax(cls, sku: int) -> int:
            return sku

    shop = Shop()
    assert (shop.price(2), Shop.tax(2)) == (2, 2)
    assert (shop.price.key(2), Shop.tax.key(sku=2)) == ("shop:2", "tax:2")
    assert shop.price.invalidate(2)
    assert Shop.tax.invalidate(2)
    assert sorted(store) == []


def test_equal_arguments_have_one_key_in_each_process() -> None:
    """A set's order is another one in each process, that of keywords in each call."""
    script = """
from data_bridge import kv

@kv.cached(kv.open(), 60)
def of(*args, **kwargs): ...

words = {"one", "two", "three", "four"}
within = {"in": [(frozenset(words), {frozenset({"a", "b"})})]}
print(of.key(words), of.key(within), of.key(a=1, b=2) == of.key(b=2, a=1))
"""
    said = {
        subprocess.check_output(
            [sys.executable, "-c", script], text=True, env={**os.environ, "PYTHONHASHSEED": seed}
        )
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1
    assert said.pop().endswith(" True\n")
    same = kv.cached(kv.open(), 60)(lambda value: value)
    distinct = ({1, 2}, frozenset({1, 2}), [1, 2], {1}, {"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert len({same.key(value) for value in distinct}) == len(distinct)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(TypeError, match="need key="):
        same.key(endless)


def test_of_many_threads_one_computes(store: Either) -> None:
    calls, started, release = [], threading.Event(), threading.Event()

    @kv.cached(store, 60)
    def slow(x: int) -> int:
        calls.append(x)
        started.set()
        assert release.wait(30)
        return x * 2

    def late(_: int) -> int:
        entered.release()
        return slow(1)

    entered = threading.Semaphore(0)
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(slow, 1)
        assert started.wait(30)
        others = pool.map(late, range(8))
        for _ in range(8):
            assert entered.acquire(timeout=30)
        release.set()
        assert [first.result(), *others] == [2] * 9
    assert calls == [1]


def test_of_many_processes_one_computes(server: Any) -> None:
    code = f"""
import os, time
from data_bridge import kv
store = kv.connect({server.url()!r})
@kv.cached(store, 60, key="work:{{n}}")
def work(n):
    store.rpush(f"calls:{{n}}", os.getpid())
    time.sleep(0.002)  # as if it took work
    return n * n
store.incr("ready")
store.wait("ready", until=4, timeout=60)
assert [work(n) for n in range(100)] == [n * n for n in range(100)]
"""
    with kv.connect(server.url()) as store:
        store.clear()
        started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
        assert [process.wait(60) for process in started] == [0] * 4
        assert [store.llen(f"calls:{n}") for n in range(100)] == [1] * 100


def test_after_a_failure_the_next_one_computes(store: Either) -> None:
    started, release = threading.Event(), threading.Event()
    outcomes: list[int | Exception] = [RuntimeError("first"), RuntimeError("second"), 3]

    @kv.cached(store, 60)
    def fails() -> int:
        outcome = outcomes.pop(0)
        started.set()
        assert release.wait(30)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def late() -> int:
        entered.set()
        return fails()

    entered = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(fails)
        assert started.wait(30)
        second = pool.submit(late)
        assert entered.wait(30)
        release.set()
        assert [str(first.exception()), str(second.exception())] == ["first", "second"]
    assert [fails(), fails()] == [3, 3]


def test_what_cannot_be_stored_is_an_error_and_the_next_one_computes(store: Either) -> None:
    values: list[Any] = [object(), 5]

    @kv.cached(store, 60)
    def strange() -> Any:
        return values.pop(0)

    with pytest.raises(kv.UnsupportedValueError):
        strange()
    assert [strange(), strange()] == [5, 5]


def test_who_computes_too_long_is_taken_for_dead(store: Either) -> None:
    @kv.cached(store, 60, lease=0.2)
    def work() -> int:
        return 1

    start = time.monotonic()
    store.transition(work.key(), field=_entries.STATE, expect=kv.MISSING, to=_entries.FILLING, ttl=0.2)
    assert work() == 1
    assert 0.1 < time.monotonic() - start < 10


def test_an_entry_that_is_invalidated_while_it_is_computed_is_not_kept(store: Either) -> None:
    values = [1, 2, 3]

    @kv.cached(store, 60, tags=["all"])
    def work(*, by_tag: bool) -> int:
        value = values.pop(0)
        if value == 1:
            work.invalidate(by_tag=by_tag)
        elif by_tag:
            kv.invalidate_tags(store, "all")
        return value

    assert [work(by_tag=False), work(by_tag=False)] == [1, 2]
    assert work(by_tag=False) == 2
    values[:] = [5, 6]
    assert work(by_tag=True) == 5
    values[:] = [7]
    assert work(by_tag=True) == 7


def test_who_waits_for_an_entry_that_is_invalidated_computes_it(store: Either) -> None:
    started, release, calls = threading.Event(), threading.Event(), []

    @kv.cached(store, 60, lease=60)
    def work() -> int:
        calls.append(1)
        number = len(calls)
        started.set()
        assert number > 1 or release.wait(30)
        return number

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(work)
        assert started.wait(30)
        second = pool.submit(work)
        assert work.invalidate()
        assert second.result(20) == 2
        release.set()
        assert first.result(20) == 1
    assert work() == 2


def test_tags(store: Either) -> None:
    calls: list[int] = []

    @kv.cached(store, 60, tags=lambda user, page: ["pages", f"user:{user}"])
    def page(user: int, page: int) -> int:
        calls.append(user)
        return page

    def computed() -> list[int]:
        calls.clear()
        assert [page(user, number) for user in (1, 2) for number in (1, 2)] == [1, 2, 1, 2]
        return sorted(calls)

    assert (computed(), computed()) == ([1, 1, 2, 2], [])
    assert kv.invalidate_tags(store, "user:1", "user:9") == 1
    assert (computed(), computed()) == ([1, 1], [])
    assert kv.invalidate_tags(store, "pages", "user:2") == 2
    assert (computed(), computed()) == ([1, 1, 2, 2], [])
    # A tag that is evicted only costs a computation.
    store.delete("tag:pages")
    assert (computed(), computed()) == ([1, 1, 2, 2], [])
    assert left(store, "tag:pages") > 60


def test_tags_that_can_be_gone_through_once(store: Either) -> None:
    @kv.cached(store, timedelta(minutes=1), tags=(name for name in ["once"]))
    def same(value: int) -> int:
        return value

    same(1)
    assert 59 < left(store, same.key(1)) <= 60
    same(2)
    assert kv.invalidate_tags(store, "once") == 1


def test_jitter_shortens_the_ttl(store: Either) -> None:
    @kv.cached(store, 100, jitter=0.2)
    def work(n: int) -> int:
        return n

    for n in range(50):
        work(n)
    seconds = [left(store, work.key(n)) for n in range(50)]
    assert 79 < min(seconds) < 95 < max(seconds) <= 100


def test_an_early_refresh_is_drawn_by_lot(
    store: Either, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    calls: list[int] = []

    @kv.cached(store, 60, early=1)
    def work() -> int:
        calls.append(1)
        clock[0] += 0.001
        return len(calls)

    monkeypatch.setattr("data_bridge.kv._entries.random.random", lambda: 0.0)
    assert [work(), work()] == [1, 1]
    # The gap grows with the cost: no lot reaches this far before the end, a long computation's does.
    monkeypatch.setattr("data_bridge.kv._entries.random.random", lambda: 1 - 1e-9)
    assert work() == 1
    store.hset(work.key(), "cost", 10.0)
    assert work() == 2
    assert len(calls) == 2


def test_a_stale_entry_is_served_while_it_is_computed_anew(store: Either, clock: list[float]) -> None:
    calls, release = [], threading.Event()

    @kv.cached(store, 60, stale_while_revalidate=600)
    def work() -> int:
        calls.append(1)
        assert len(calls) == 1 or release.wait(30)
        return len(calls)

    assert work() == 1
    assert 659 < left(store, work.key()) <= 660
    clock[0] = 100
    with store.watch(work.key()) as changes:
        assert work() == 1
        assert changes.next(30)  # it is claimed
        assert [work() for _ in range(20)] == [1] * 20
        release.set()
        assert changes.next(30)  # it is stored
    assert [work(), work()] == [2, 2]
    assert calls == [1, 1]


def test_a_refresh_that_fails_is_logged_and_does_no_harm(
    store: Either, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    @kv.cached(store, 60, stale_while_revalidate=600)
    def work() -> int:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("no luck")
        return len(calls)

    assert work() == 1
    clock[0] = 100
    with caplog.at_level(logging.ERROR), store.watch(work.key()) as changes:
        assert work() == 1
        assert all(changes.next(30) for _ in range(2))
        assert work() == 1  # the next attempt comes a little later
        clock[0] = 110
        assert work() == 1
        assert all(changes.next(30) for _ in range(2))
    assert work() == 3
    for thread in threading.enumerate():
        if thread.name.startswith("refreshes"):
            thread.join(20)
    assert "no luck" in caplog.text


def test_a_refresher_that_died_is_replaced(store: Either, clock: list[float]) -> None:
    calls: list[int] = []

    @kv.cached(store, 60, early=1, lease=30)
    def work() -> int:
        calls.append(1)
        return len(calls)

    assert work() == 1
    update = {"lease": time.time() + 30, "until": time.time() - 1}
    store.transition(work.key(), field="state", expect="READY", to="REFRESHING", update=update)
    assert work() == 1
    clock[0] = 31
    assert work() == 2


def test_asynchronous(run: Any, clock: list[float]) -> None:
    async def test(store: Awaited) -> None:
        calls, release = [], asyncio.Event()

        @kv.cached(store, 60, key="work:{x}", tags=["works"], stale_while_revalidate=60)
        async def work(x: int) -> int:
            calls.append(x)
            await release.wait()
            return x * len(calls)

        several = [asyncio.create_task(work(2)) for _ in range(20)]
        async with store.watch("work:2", from_version=1) as changes:
            assert await changes.next(30)
        release.set()
        assert await asyncio.gather(*several) == [2] * 20
        assert calls == [2]
        assert await kv.invalidate_tags(store, "works") == 1
        assert (await work(2), await work(x=2), calls) == (4, 4, [2, 2])
        assert await work.invalidate(2)
        assert await work(2) == 6
        clock[0] = 70
        async with store.watch("work:2") as changes:
            assert await work(2) == 6
            assert all([await changes.next(30) for _ in range(2)])
        assert await work(2) == 8

    run(test)


def test_an_asynchronous_failure_or_cancellation_lets_the_next_one_compute(run: Any) -> None:
    async def test(store: Awaited) -> None:
        calls, started = [], asyncio.Event()

        @kv.cached(store, 60)
        async def work() -> int:
            calls.append(1)
            if len(calls) == 1:
                raise RuntimeError("no luck")
            if len(calls) == 2:
                started.set()
                await asyncio.Event().wait()
            return len(calls)

        with pytest.raises(RuntimeError, match="no luck"):
            await work()
        cancelled = asyncio.create_task(work())
        await started.wait()
        waiting = asyncio.create_task(work())
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert await asyncio.wait_for(waiting, 20) == 3

    run(test)


def test_who_is_cancelled_while_claiming_keeps_nobody_waiting(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store may have the claim already: everybody waited for as long as it lasts."""

    async def test(store: Awaited) -> None:
        @kv.cached(store, 60)
        async def same(value: int) -> int:
            return value

        real = type(store).transition

        def sent_and_cancelled(*args: Any, **options: Any) -> Awaitable[Any]:
            monkeypatch.setattr(type(store), "transition", real)
            sent = asyncio.ensure_future(real(*args, **options))
            asking.cancel()
            return sent

        monkeypatch.setattr(type(store), "transition", sent_and_cancelled)
        asking = asyncio.create_task(same(1))
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await asyncio.wait_for(same(1), 20) == 1

    run(test)


def test_mistakes_are_told_when_decorating(store: Either) -> None:
    async def coroutine() -> None: ...
    def generator() -> Iterator[int]:
        yield 1

    async def asynchronous_generator() -> AsyncIterator[int]:
        yield 1

    for function in (generator, asynchronous_generator):
        with pytest.raises(TypeError, match="return a list"):
            kv.cached(store, 60)(function)
    with pytest.raises(TypeError, match=r"has no name to make keys of: give it key="):
        kv.cached(store, 60)(functools.partial(divmod, 7))
    assert kv.cached(store, 60, key="both")(functools.partial(divmod, 7))(3) == (2, 1)

    with pytest.raises(TypeError, match="this is a coroutine function"):
        kv.cached(store, 60)(coroutine)
    with pytest.raises(TypeError, match="needs a coroutine function"):
        kv.cached(kv.aio.connect("kv://127.0.0.1:1"), 60)(lambda: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match=r"kv.cached needs a store, from kv.open, .* not \{\}"):
        kv.cached({}, 60)  # type: ignore[call-overload]
    cached: Any = kv.cached
    for wrong in ({"ttl": 0}, {"ttl": 1, "jitter": 1}, {"ttl": 1, "early": -1}, {"ttl": 1, "lease": 0}):
        with pytest.raises(ValueError, match=r"must|is a part"):
            cached(store, **wrong)
    with pytest.raises(TypeError, match="iterable of str, not one str"):
        kv.cached(store, 60, tags="one")
