"""The methods of a store, embedded and remote."""

from __future__ import annotations

import datetime as dt
import math
import pickle
import threading
import time
from decimal import Decimal
from typing import Any

import pytest
from data_bridge import kv


def test_mapping(store: kv.Store) -> None:
    store["a"] = 1
    store.update({"b": 2}, c=3)
    assert (store["a"], len(store), "a" in store, "x" in store) == (1, 3, True, False)
    assert dict(store) == {"a": 1, "b": 2, "c": 3}
    assert sorted(store.values()) == [1, 2, 3]
    assert sorted(store.scan("a")) == ["a"]
    with pytest.raises(KeyError, match="nope"):
        store["nope"]
    with pytest.raises(KeyError):
        del store["nope"]
    with pytest.raises(TypeError):
        store.popitem()
    assert (store.pop("a"), store.pop("a", 7), store.setdefault("b", 9), store.setdefault("d", 9)) == (
        1,
        7,
        2,
        9,
    )
    with pytest.raises(KeyError):
        store.pop("a")
    store.clear()
    assert bool(store)
    assert len(store) == 0
    assert store == store
    assert {store: 1}[store] == 1


def test_a_read_is_a_copy(store: kv.Store) -> None:
    store["list"] = [1]
    store["list"].append(2)
    assert store["list"] == [1]
    store.as_list("list").append(2)
    assert store["list"] == [1, 2]


@pytest.mark.parametrize("key", ["a" * 256, "\x06\x16", "é" * 256, "\U0001f600" * 256])
def test_keys(store: kv.Store, key: str) -> None:
    store[key] = 1
    assert key in store
    assert list(store) == [key]


@pytest.mark.parametrize(
    ("key", "error"),
    [("", ValueError), ("a" * 257, ValueError), ("\ud800", ValueError), (b"a", TypeError), (1, TypeError)],
)
def test_bad_keys(store: kv.Store, key: Any, error: type[Exception]) -> None:
    for use in (
        lambda: store.get(key),
        lambda: store.set(key, 1),
        lambda: store.ttl(key),
        lambda: store.get_many([key]),
    ):
        with pytest.raises(error):
            use()


def test_set_options(store: kv.Store) -> None:
    assert store.set("k", 1) is None
    assert (store.set("k", 2, nx=True), store.set("n", 2, xx=True), store.set("k", 2, xx=True)) == (
        False,
        False,
        True,
    )
    assert store.set("k", 3, return_old=True) == 2
    assert store.set("new", None, return_old=True) is kv.MISSING
    assert store.set("new", 1, return_old=True) is None
    store.set("k", 4, ttl=100)
    store.set("k", 5, keep_ttl=True)
    assert store.ttl("k") == pytest.approx(100, abs=1)
    store["k"] = 6
    assert store.ttl("k") is None


@pytest.mark.parametrize(
    ("option", "ours"),
    [("ex", "ttl="), ("px", "ttl="), ("keepttl", "keep_ttl"), ("get", "return_old"), ("x", "unexpected")],
)
def test_options_of_redis_are_told_ours(store: kv.Store, option: str, ours: str) -> None:
    options: dict[str, Any] = {option: 1}
    with pytest.raises(TypeError, match=ours):
        store.set("k", 1, **options)


def test_ttl(store: kv.Store) -> None:
    store["k"] = 1
    assert store.ttl("k") is None
    assert store.expire("k", dt.timedelta(minutes=1))
    assert store.ttl("k") == pytest.approx(60, abs=1)
    assert store.persist("k")
    assert not store.persist("k")
    assert store.expire_at("k", dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30))
    assert store.ttl("k") == pytest.approx(30, abs=1)  # two clocks, apart by up to a millisecond
    assert not store.expire("nope", 1)
    with pytest.raises(KeyError):
        store.ttl("nope")
    for bad in (0, -1, float("nan"), dt.timedelta(0)):
        with pytest.raises(ValueError, match=r"ttl|time"):
            store.expire("k", bad)
    for wrong in (True, "5", None):
        with pytest.raises(TypeError):
            store.expire("k", wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="aware"):
        store.expire_at("k", dt.datetime(2030, 1, 1))
    with store.watch("short") as watch:
        store.set("short", 1, ttl=0.02)
        changes = [watch.next(10), watch.next(10)]
    assert [change.change for change in changes if change] == ["set", "expire"]
    assert "short" not in store


def test_several_keys(store: kv.Store) -> None:
    told: list[tuple[int, int]] = []
    store.set_many(
        {f"k{i}": i for i in range(1500)}, ttl=60, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(1000, 1500), (1500, 1500)]
    assert store.get_many(["k1", "nope", "k2"]) == {"k1": 1, "k2": 2}
    assert store.get_many([]) == {}
    assert store.ttl("k7") == pytest.approx(60, abs=2)
    assert (store.exists("k1", "k1", "no"), store.delete("k1", "no"), store.delete(), len(store)) == (
        2,
        1,
        0,
        1499,
    )
    assert len(set(store)) == 1499


def test_numbers(store: kv.Store) -> None:
    assert (store.incr("i"), store.incr("i", 5), store.decr("i", 2)) == (1, 6, 4)
    assert (store.incr("d", Decimal("0.10")), store.incr("d", Decimal("0.2"))) == (
        Decimal("0.10"),
        Decimal("0.30"),
    )
    assert (store.incr("f", 0.5), store.incr("start", initial=10)) == (0.5, 11)
    assert store.incr("bound", 5, maximum=7) == 5
    with pytest.raises(OverflowError):
        store.incr("bound", 5, maximum=7)
    store["max"] = 2**63 - 1
    with pytest.raises(OverflowError):
        store.incr("max")
    assert (store["bound"], store["max"]) == (5, 2**63 - 1)
    with pytest.raises(TypeError):
        store.incr("i", 1.5)
    with pytest.raises(ValueError, match="an integer of 64 bits"):
        store.incr("i", 1 << 70)
    assert store.incrbyfloat("i", 0.5) == 4.5
    assert (store.incr("i", 1, convert=True), store.decr("i", Decimal("0.25"), convert=True)) == (5.5, 5.25)
    store.incr("t", ttl=60)
    assert store.ttl("t") == pytest.approx(60, abs=1)


def test_compare_and_versions(store: kv.Store) -> None:
    assert store.compare_and_set("k", kv.MISSING, 1)
    assert not store.compare_and_set("k", 1.0, 2)
    assert store.compare_and_set("k", 1, {"a": [1]})
    assert store.compare_and_set("k", {"a": [1]}, 2, ttl=9)
    found = store.get_versioned("k")
    assert found.value == 2
    assert store.set_if_version("k", 3, found.version) > found.version
    with pytest.raises(kv.ConflictError) as raised:
        store.set_if_version("k", 4, found.version)
    assert (raised.value.current, raised.value.version > found.version) == (3, True)
    assert store.get_versioned("nope") == (kv.MISSING, 0)
    assert store.set_if_version("new", 1, 0) > 0
    assert store.compare_and_delete("new", 1)


def test_transitions(store: kv.Store) -> None:
    first = store.transition("job", expect=kv.MISSING, to="PENDING", update={"n": Decimal("1.50")})
    assert first.previous is kv.MISSING
    second = store.transition("job", expect={"PENDING", "RETRY"}, to="STARTED", fence=first.version, ttl=60)
    assert (second.previous, second.version > first.version) == ("PENDING", True)
    assert store["job"] == {"status": "STARTED", "n": Decimal("1.50")}
    with pytest.raises(kv.ConflictError) as raised:
        store.transition("job", expect="PENDING", to="X")
    assert raised.value.current == "STARTED"
    with pytest.raises(kv.ConflictError):
        store.transition("job", expect="STARTED", to="DONE", fence=first.version)


def test_waiting(store: kv.Store) -> None:
    store.transition("job", expect=kv.MISSING, to="PENDING")
    version = store.get_versioned("job").version
    threading.Timer(0.05, store.transition, ("job",), {"expect": "PENDING", "to": "DONE"}).start()
    done = store.wait("job", field="status", until={"DONE", "FAILED"}, timeout=10)
    assert (done.value, done.version > version) == ({"status": "DONE"}, True)
    assert store.wait("job", until=kv.newer_than(version), timeout=10) == done
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        store.wait("job", timeout=0.2)
    assert 0.15 < time.monotonic() - start < 5
    with pytest.raises(TypeError, match="function"):
        store.wait("job", until=lambda value: True)


def test_a_timeout_of_zero_only_looks(store: kv.Store) -> None:
    store["there"] = 1
    assert store.wait("there", until=1, timeout=0).value == 1
    for timeout in (0, 0.0, dt.timedelta(0)):
        with pytest.raises(TimeoutError):
            store.wait("there", until=2, timeout=timeout)
    with store.watch("there") as watch:
        assert watch.next(0) is None


def test_what_is_left_of_a_time_may_be_very_little(store: kv.Store) -> None:
    for little in (1e-9, 4e-7, dt.timedelta(microseconds=1)):
        with pytest.raises(TimeoutError):
            store.wait("there", until=2, timeout=little)
        with store.watch("there") as watch:
            assert watch.next(little) is None
        store.set("brief", 1, ttl=little)
        assert store.pttl("brief") in (1, 0, -2)


@pytest.mark.parametrize("timeout", [-1, -1e-9, math.nan, math.inf, dt.timedelta.max])
def test_what_is_no_timeout_is_said(store: kv.Store, timeout: float | dt.timedelta) -> None:
    for use in (lambda: store.wait("k", timeout=timeout), lambda: store.watch("k").next(timeout)):
        with pytest.raises(ValueError, match="a timeout must not be negative, and must be a finite time"):
            use()
    for wrong in ("5", True):
        with pytest.raises(TypeError, match="a timeout must be seconds"):
            store.wait("k", timeout=wrong)  # type: ignore[arg-type]


def test_a_wait_for_no_state_at_all_is_refused(store: kv.Store) -> None:
    nothing: tuple[Any, ...] = (set(), frozenset(), [])
    for states in nothing:
        with pytest.raises(ValueError, match="empty set"):
            store.wait("k", until=states)


def test_a_fraction_can_be_added_to_an_int_in_a_hash(store: kv.Store) -> None:
    store["h"] = {"n": 1}
    assert (store.hincrbyfloat("h", "n", 0.5), store.hincrbyfloat("h", "new", 0.5)) == (1.5, 0.5)


def test_no_prefix_is_not_every_prefix(store: kv.Store) -> None:
    store["k"] = 1
    wrong: tuple[Any, ...] = (None, 5, b"k")
    for prefix in wrong:
        for use in (store.clear, lambda given: list(store.scan(given))):
            with pytest.raises(TypeError, match="prefix must be str"):
                use(prefix)
    assert "k" in store


def test_a_field_may_be_none(store: kv.Store) -> None:
    assert store.hset("h", None, 1) == 1
    assert store["h"] == {None: 1}


def test_an_update_does_not_overrule_the_state(store: kv.Store) -> None:
    for field in ("status", b"status"):
        with pytest.raises(ValueError, match="UPDATE"):
            store.transition("t", expect=kv.MISSING, to="A", update={field: "B"})
    assert "t" not in store


def test_one_text_is_not_several_keys(store: kv.Store) -> None:
    store["a"] = 1
    with pytest.raises(TypeError, match="not one str"):
        store.get_many("a")
    assert store.mget("a") == [1]


def test_watching(store: kv.Store) -> None:
    with store.watch(prefix="w:") as watch:
        store["w:a"] = 1
        store["other"] = 1
        del store["w:a"]
        changes = [watch.next(10), watch.next(10)]
        assert [(change.change, change.key) for change in changes if change] == [
            ("set", "w:a"),
            ("delete", "w:a"),
        ]
        assert watch.next(0.01) is None
    with pytest.raises(TypeError):
        store.watch()
    with pytest.raises(TypeError, match="from_version is that of a key"):
        store.watch(prefix="w:", from_version=1)


def test_watching_on_from_a_version(store: kv.Store) -> None:
    store["a"] = 1
    known = store.get_versioned("a")
    assert known
    del store["a"]
    with store.watch("a", from_version=known.version) as watch:
        gone = watch.next(10)
        assert gone
        assert (gone.change, gone.version > known.version) == ("delete", True)
    with store.watch("a", from_version=gone.version) as watch:
        assert watch.next(0.01) is None
        store["a"] = 2
        told = watch.next(10)
        assert told
        assert (told.change, told.version > gone.version) == ("set", True)


def test_pipelines(store: kv.Store) -> None:
    with store.pipeline() as pipe:
        pipe.set("a", 1).incr("a").get("a").hset("h", "f", 2).hget("h", "f").get("no", 7).delete()
    assert pipe.results == [None, 2, 2, 1, 2, 7, 0]
    pipe.lpush("a", 1).set("b", 1)
    with pytest.raises(kv.WrongTypeError):
        pipe.execute()
    assert store["b"] == 1
    pipe.lpush("a", 1)
    assert isinstance(pipe.execute(raise_on_error=False)[0], kv.WrongTypeError)
    atomic = store.pipeline(atomic=True).set("c", 1).lpush("a", 1).set("d", 1)
    with pytest.raises(kv.WrongTypeError):
        atomic.execute()
    assert store.exists("c", "d") == 0
    assert store.pipeline(atomic=True).set("c", 1).incr("c").execute() == [None, 2]
    assert store.pipeline().execute() == []
    big = store.pipeline()
    for number in range(3000):
        big.set(f"k{number}", "x" * 100)
        big.get(f"k{number}")
    assert big.execute()[1::2] == ["x" * 100] * 3000


def test_other_namespaces(store: kv.Store) -> None:
    tasks = store.namespace("tasks")
    tasks["k"] = 1
    assert ("k" in store, "k" in store.namespace(1), tasks.delete("k")) == (False, True, 1)
    with pytest.raises(kv.KvError, match="flush"):
        tasks.clear()
    with pytest.raises(ValueError, match="unknown namespace"):
        store.namespace("nope").get("k")


def test_errors_survive_pickling(store: kv.Store) -> None:
    store["k"] = 1
    errors: list[kv.KvError] = []
    for fail in (
        lambda: store.lpush("k", 1),
        lambda: store.set_if_version("k", 2, 1),
        lambda: store.get(""),
        lambda: store.rename("no", "b"),
    ):
        with pytest.raises(kv.KvError) as raised:
            fail()
        errors.append(raised.value)
    for error in errors:
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_kinds_and_names(store: kv.Store) -> None:
    store.update({"i": 1, "h": {}, "l": [], "d": Decimal(1)})
    assert {key: store.kind(key) for key in store} == {"i": "int", "h": "hash", "l": "list", "d": "decimal"}
    assert (store.kind("no"), store.type("h"), list(store.scan(kind="hash"))) == (None, "hash", ["h"])
    store.rename("i", "j")
    assert (store.get("i"), store["j"], store.renamenx("j", "l")) == (None, 1, False)


def test_an_index_out_of_range_is_an_index_error(store: kv.Store) -> None:
    items = store.as_list("short")
    items.extend([1, 2])
    for index in (2, -3):
        for use in (items.pop, items.__delitem__, items.__getitem__, lambda at: items.__setitem__(at, 0)):
            with pytest.raises(IndexError):
                use(index)
    assert items.copy() == [1, 2]


def test_a_wait_for_a_newer_version_ends_where_the_key_is_gone(store: kv.Store | kv.Client) -> None:
    store.set("k", 1)
    version = store.get_versioned("k").version
    store.delete("k")
    assert store.wait("k", until=kv.newer_than(version), timeout=20) == (kv.MISSING, 0)
    with pytest.raises(TimeoutError):
        store.wait("k", until=kv.newer_than(0), timeout=0.01)


def test_indices_are_those_of_python(store: kv.Store) -> None:
    items = store.as_list("list")
    items.extend([1, 2, 3])
    for index in (1 << 63, -(1 << 70)):
        for use in (items.__getitem__, lambda at: items.__setitem__(at, 0)):
            with pytest.raises(IndexError):
                use(index)
    wrong: Any = "0"
    for use in (items.__getitem__, items.pop, lambda at: items.insert(at, 0)):
        with pytest.raises(TypeError):
            use(wrong)
    assert (items[True], list(reversed(items))) == (2, [3, 2, 1])
    # It is the value that is refused, not the index.
    with pytest.raises(kv.OutOfRangeError, match="38"):
        items[0] = Decimal("1" * 39)


def test_sorted_sets_are_combined(store: kv.Store) -> None:
    store.zadd("one", {"a": 1, "b": 2})
    store.zadd("two", {"b": 10, 5: 3})
    store.sadd("set", "a", "b")
    assert store.zunion(["one", "two"], withscores=True) == [("a", 1.0), (5, 3.0), ("b", 12.0)]
    assert store.zunion({"one": 2, "two": 0.5}, "MAX", withscores=True) == [(5, 1.5), ("a", 2.0), ("b", 5.0)]
    assert (store.zinter(["one", "set"]), store.zdiff(["two", "set"], True)) == (["a", "b"], [(5, 3.0)])
    assert (store.zintercard(2, ["one", "set"], 1), store.sintercard(1, ["set"])) == (1, 2)
    assert store.zunionstore("all", ["one", "two"]) == store.zcard("all") == 3
    assert (store.zinterstore("all", {"one": 1}), store.zdiffstore("all", ["one", "set"])) == (2, 0)
    store.zadd("exact", {"a": Decimal("0.1")})
    assert store.zunion({"exact": Decimal("3"), "set": 1}, withscores=True) == [
        ("b", Decimal(1)),
        ("a", Decimal("1.3")),
    ]
    with pytest.raises(kv.WrongTypeError):
        store.zunion(["one", "exact"])
    with pytest.raises(TypeError):
        store.zunion("one")


def test_ranges_of_members(store: kv.Store) -> None:
    store.zadd("z", dict.fromkeys(["a", "b", "c", 7], 0))
    assert store.zrangebylex("z", "[b", "+") == store.zrange("z", "[b", "+", bylex=True) == ["b", "c", 7]
    assert store.zrevrangebylex("z", "(c", b"-", 0, 1) == ["b"]
    assert (store.zlexcount("z", "-", "+"), store.zlexcount("z", "-", "[zz")) == (4, 3)
    assert store.zrangestore("part", "z", 0, 1) == store.zcard("part") == 2
    assert store.zrangestore("part", "z", "-", "+", bylex=True, desc=True, offset=0, num=1) == 0
    assert (store.zremrangebylex("z", "-", "(c"), store.zrange("z", 0, -1)) == (2, ["c", 7])


def test_a_copy_has_the_deadline_and_a_life_of_its_own(store: kv.Store) -> None:
    store.set("list", [1], ttl=100)
    assert (store.copy("list", "other"), store.copy("list", "other"), store.copy("none", "x")) == (
        True,
        False,
        False,
    )
    store.as_list("other").append(2)
    assert (store["list"], store["other"], store.ttl("other") is not None) == ([1], [1, 2], True)
    assert store.copy("list", "other", replace=True)
    assert (store["other"], store.touch("list", "other", "none"), store.touch()) == ([1], 2, 0)


def test_bits(store: kv.Store) -> None:
    assert (store.setbit("b", 9, 1), store.setbit("b", 9, 1), store.getbit("b", 9)) == (0, 1, 1)
    assert (store["b"], store.bitcount("b"), store.bitcount("b", 0, 8, "BIT")) == (b"\x00@", 1, 0)
    assert (store.bitpos("b", 1), store.bitpos("b", 0, 1), store.bitpos("none", 1)) == (9, 8, -1)
    with pytest.raises(TypeError):
        store.bitcount("b", None, 5)


def test_views_read_and_take_in_one_step(store: kv.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store["h"] = {"a": 1, "b": 2}
    store.zadd("z", {"a": 1, "b": 2})
    fields, scores = store.as_hash("h"), store.as_zset("z")
    for view in (fields, scores):
        # Somebody else removes a member between the names and the values.
        with monkeypatch.context() as patch:
            patch.setattr(type(view), "__getitem__", lambda _view, member: {}[member])
            assert (list(view.values()), 2 in view.values(), 7 in view.values()) == ([1, 2], True, False)
            store.as_hash("copy").update(view, c=3)
            assert store.as_hash("copy").copy() == {"a": 1, "b": 2, "c": 3}
            assert (view.pop("a"), view.pop("a", 7)) == (1, 7)
            assert view.setdefault("b", 5) == 2
            assert view.popitem() == ("b", 2)
        for fail in (view.popitem, lambda gone=view: gone.pop("a")):
            with pytest.raises(KeyError):
                fail()
        assert view.setdefault("new", 5) == 5
    assert (1 in store.values(), {"new": 5} in store.values()) == (False, True)


def test_a_closed_client_starts_no_watch(store: kv.Store) -> None:
    store.close()
    with pytest.raises(kv.ClosedError):
        store.watch("k")


NAMED: dict[str, dict[str, Any]] = {"0": {"default_ttl": 60}, "1": {"mode": "cache"}, "3": {}, "jobs": {}}


def test_a_namespace_is_configured_by_its_number_too() -> None:
    with kv.open(mode="task", namespaces=NAMED) as store:
        store["k"] = 1
        assert store.namespace("default").ttl("k") == pytest.approx(60, abs=1)
        assert store.namespace(0)["k"] == 1
        store.namespace("tasks").clear()  # a cache may be flushed
        store.namespace(3)["three"] = 1
        store.namespace("jobs")["four"] = 1
        assert [list(store.namespace(number)) for number in (3, 4)] == [["three"], ["four"]]
    for name in ("", "two words", "x" * 65, "\u00e9"):
        with pytest.raises(ValueError, match="is no name of a namespace"):
            kv.open(namespaces={name: {}})


def test_the_mode_that_a_namespace_has_leaves_its_eviction() -> None:
    with kv.open(
        max_memory=8 << 20, namespaces={"cache": {"mode": "cache"}, "default": {"mode": "cache"}}
    ) as store:
        for place in (store, store.namespace("cache")):
            for number in range(200):
                place[f"k{number}"] = b"x" * 100_000
            assert 0 < len(place) < 200
