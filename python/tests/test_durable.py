"""Task stores that outlive their process: `kv.open(path, mode="task")` and a server with `--data`."""

from __future__ import annotations

import asyncio
import datetime
import subprocess
import sys
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from data_bridge import kv

VALUES: dict[str, Any] = {
    "int": 42,
    "big": 1 << 90,
    "float": -0.5,
    "decimal": Decimal("1.10"),
    "text": "grüße",
    "bytes": b"\x00\xff" * 5000,
    "none": None,
    "bool": True,
    "list": [1, "two", [3.0, None]],
    "empty": [],
    "set": {1, "a", Decimal("2.5")},
    "hash": {"a": 1, "b": [2, {"c": uuid.UUID(int=7)}]},
    "tuple": (1, (2,)),
    "moment": datetime.datetime(2026, 11, 24, 18, 30, tzinfo=datetime.UTC),
    "span": datetime.timedelta(days=-1, microseconds=3),
}

WRITER = """
import sys
from data_bridge import kv
store = kv.open(sys.argv[1], mode="task")
for n in range(store.get("last", -1) + 1, 1_000_000):
    with store.pipeline(atomic=True) as together:
        together.set(f"job:{n}", {"status": "done", "result": n * 1.5})
        together.set("last", n)
    print(n, flush=True)
"""


def test_every_kind_comes_back_with_its_ttl_and_version(tmp_path: Path) -> None:
    store = kv.open(tmp_path, mode="task")
    for name, value in VALUES.items():
        store.set(name, value, ttl=1000 if name == "text" else None)
    store.zadd("scores", {"a": 1.5, "b": 2})
    store.rpush("list", "more")
    versions = {name: store.get_versioned(name).version for name in VALUES}
    store.set("gone", 1)
    store.delete("gone")
    store.close()

    again = kv.open(tmp_path, mode="task")
    assert again["list"] == [*VALUES["list"], "more"]
    assert {name: again[name] for name in VALUES if name != "list"} == {
        name: value for name, value in VALUES.items() if name != "list"
    }
    assert again["scores"] == [("a", 1.5), ("b", 2.0)]
    assert {name: again.get_versioned(name).version for name in VALUES} == versions
    assert 990 < (again.ttl("text") or 0) <= 1000
    assert again.ttl("int") is None
    assert "gone" not in again
    assert len(again) == len(VALUES) + 1
    again.close()


def test_a_version_from_before_never_matches_afterwards(tmp_path: Path) -> None:
    store = kv.open(tmp_path, mode="task")
    before = store.set_if_version("key", 1, 0)
    store.delete("key")
    store.close()
    again = kv.open(tmp_path, mode="task")
    after = again.set_if_version("key", 1, 0)
    assert after > before
    with pytest.raises(kv.ConflictError):
        again.set_if_version("key", 2, before)
    again.close()


def test_what_a_killed_process_wrote_is_there(tmp_path: Path) -> None:
    last = -1
    for round_number in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:
                last = int(line)
                if last % 50 == 10 * round_number:
                    break
            writer.kill()
            rest = writer.stdout.read().split()
            last = int(rest[-1]) if rest else last
        store = kv.open(tmp_path, mode="task")
        # The one after the last that was told may be there as well, whole.
        assert store["last"] in (last, last + 1)
        last = store["last"]
        assert all(store[f"job:{n}"]["result"] == n * 1.5 for n in range(last + 1))
        assert len(store) == last + 2
        store.close()


def test_a_task_store_is_not_opened_as_a_cache(tmp_path: Path) -> None:
    kv.open(tmp_path, mode="task").close()
    with pytest.raises(ValueError, match="has a task namespace 'default'"):
        kv.open(tmp_path)


def test_a_cache_beside_tasks_starts_empty(tmp_path: Path) -> None:
    store = kv.open(tmp_path)
    store["cached"] = 1
    store.namespace("tasks")["task"] = 2
    store.close()
    again = kv.open(tmp_path)
    assert (len(again), again.namespace("tasks")["task"]) == (0, 2)
    again.close()


def test_a_client_finds_its_tasks_after_the_server_was_killed(
    tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    server = start_server("--data", str(tmp_path))
    assert "1 tasks (task, noeviction, always)" in server.start_line
    client = kv.connect(server.url("tasks"))
    for name, value in VALUES.items():
        client[name] = value
    moved = client.transition("job", expect=kv.MISSING, to="PENDING", update={"n": 1})
    client.close()
    server.kill()

    server = start_server("--data", str(tmp_path), port=server.port)
    client = kv.connect(server.url("tasks"))
    assert {name: client[name] for name in VALUES} == VALUES
    assert client["job"] == {"status": "PENDING", "n": 1}
    assert client.transition("job", expect="PENDING", to="STARTED", fence=moved.version).previous == "PENDING"
    client.close()
    assert server.stop() == 0


def test_a_task_keeps_its_last_transitions(tmp_path: Path) -> None:
    options: dict[str, dict[str, Any]] = {"tasks": {"mode": "task", "history": 3, "durability": "everysec"}}
    store = kv.open(tmp_path, namespaces=options)
    tasks = store.namespace("tasks")
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(milliseconds=2)
    tasks.transition("job", expect=kv.MISSING, to="PENDING")
    for state in ("STARTED", "RETRY", "STARTED", "SUCCESS"):
        tasks.transition("job", expect={"PENDING", "STARTED", "RETRY"}, to=state, update={"worker": 7})
    tasks.sync()
    store.close()
    again = kv.open(tmp_path, namespaces=options)
    job = again.namespace("tasks")["job"]
    assert isinstance(job, dict)
    assert (job["status"], job["worker"]) == ("SUCCESS", 7)
    assert [state for state, _ in job["history"]] == ["RETRY", "STARTED", "SUCCESS"]
    times = [at for _, at in job["history"]]
    assert times == sorted(times)
    assert before <= times[0] <= datetime.datetime.now(datetime.UTC)
    again.close()


def test_sync_waits_for_nothing_in_memory(store: kv.Store | kv.Client) -> None:
    store["key"] = 1
    assert store.sync() is None


def test_a_snapshot_is_restored(tmp_path: Path) -> None:
    store = kv.open(tmp_path / "data", mode="task")
    for name, value in VALUES.items():
        store[name] = value
    store.snapshot(tmp_path / "copy")
    store["int"] = 43
    with pytest.raises(ValueError, match="not empty"):
        store.snapshot(tmp_path / "copy")
    store.close()
    restored = subprocess.run(
        [
            sys.executable,
            "-m",
            "data_bridge.kv",
            "backup",
            "restore",
            tmp_path / "copy",
            "--into",
            tmp_path / "back",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert restored.returncode == 0, restored.stderr
    checked = subprocess.run(
        [sys.executable, "-m", "data_bridge.kv", "check", tmp_path / "back"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (checked.returncode, "0 files with trouble" in checked.stdout) == (0, True), checked.stderr
    again = kv.open(tmp_path / "back", mode="task")
    assert dict(again) == VALUES
    again.close()
    with pytest.raises(kv.UnavailableError, match="needs a data directory"):
        kv.open().snapshot(tmp_path / "nowhere")


KILLED = """
import asyncio, os, signal, sys
from data_bridge import kv
if sys.argv[2].startswith("await "):
    async def write():
        async with kv.aio.open(sys.argv[1], mode="task", durability="everysec") as store:
            await eval(sys.argv[2].removeprefix("await "))
            os.kill(os.getpid(), signal.SIGKILL)
    asyncio.run(write())
store = kv.open(sys.argv[1], mode="task", durability="everysec")
pipe, step = store.pipeline(), store.pipeline(atomic=True)
eval(sys.argv[2])
os.kill(os.getpid(), signal.SIGKILL)
"""
DURABLE = [
    'store.set("key", 1, durable=True)',
    'store.set("key", 1, ttl=1000, nx=True, return_old=True, durable=True)',
    'store.set_many({"key": 1, "other": 2}, durable=True)',
    'store.incr("key", initial=5, durable=True)',
    'store.hset("key", "field", 1, durable=True)',
    'store.rpush("key", 1, 2, durable=True)',
    'store.set_if_version("key", 1, 0, durable=True)',
    'store.compare_and_set("key", kv.MISSING, 1, durable=True)',
    'store.transition("key", expect=kv.MISSING, to="PENDING", durable=True)',
    'pipe.set("key", 1, durable=True).get("key").execute()',
    'step.set("other", 1).incr("key", durable=True).execute()',
    'await store.set("key", 1, durable=True)',
    'await store.sadd("key", 1, durable=True)',
]


@pytest.mark.parametrize("write", DURABLE)
def test_a_durable_write_outlives_a_kill_at_once(tmp_path: Path, write: str) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), write], check=False)
    assert killed.returncode == -9
    with kv.open(tmp_path, mode="task", durability="everysec") as store:
        assert "key" in store


def test_a_durable_write_of_a_client_outlives_a_kill_of_the_server(
    tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    options = ("--data", str(tmp_path), "--namespace", "tasks:task:everysec")
    server = start_server(*options)
    writes: list[Callable[[Any], Any]] = [
        lambda client: client.set("key", 1, durable=True),
        lambda client: client.hset("key", "field", 1, durable=True),
        lambda client: client.pipeline().set("other", 1).incr("key", durable=True).execute(),
        lambda client: client.pipeline(atomic=True).set("other", 1).incr("key", durable=True).execute(),
    ]
    for write in writes:
        with kv.connect(server.url("tasks")) as client:
            client.delete("key", durable=True)
            write(client)
        server.kill()
        server = start_server(*options, port=server.port)
        with kv.connect(server.url("tasks")) as client:
            assert "key" in client
    with kv.connect(server.url()) as cache:
        with pytest.raises(ValueError, match="'default' has no log"):
            cache.set("key", 1, durable=True)
        assert "key" not in cache

    async def write_and_wait() -> None:
        async with kv.aio.connect(server.url("tasks")) as client:
            await client.delete("key", "other", durable=True)
            async with client.pipeline(atomic=True) as step:
                step.set("other", 1)
                step.set("key", 1, durable=True)
            assert await client.exists("key", "other") == 2
        async with kv.aio.connect(server.url()) as cache:
            with pytest.raises(ValueError, match="'default' has no log"):
                await cache.incr("key", durable=True)

    asyncio.run(write_and_wait())
    server.kill()
    server = start_server(*options, port=server.port)
    with kv.connect(server.url("tasks")) as client:
        assert client.exists("key", "other") == 2


def test_durable_is_refused_where_nothing_is_on_disk() -> None:
    store = kv.open()
    with pytest.raises(ValueError, match="'default' has no log"):
        store.set("key", 1, durable=True)
    with pytest.raises(ValueError, match="'default' has no log"):
        store.pipeline().set("other", 1).hset("key", "field", 1, durable=True).execute()
    with pytest.raises(TypeError):
        store.get("key", durable=True)  # type: ignore[call-arg]
    assert len(store) == 0
    store.close()


FAILING = """
import asyncio, resource, sys
from data_bridge import kv

def write(store):
    # From here on no file takes a byte, and what is written now goes to one within a second.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    return store.set("key", 1)

async def of_a_loop():
    store = kv.aio.open(sys.argv[1], mode="task", durability="everysec")
    await store.set("first", 1, durable=True)
    await write(store)
    if sys.argv[2] == "async with":
        async with store:
            raise ValueError("of the block")
    try:
        await store.aclose()
    finally:
        await store.aclose()

if sys.argv[2] in ("await", "async with"):
    asyncio.run(of_a_loop())
store = kv.open(sys.argv[1], mode="task", durability="everysec")
store.set("first", 1, durable=True)
write(store)
if sys.argv[2] == "close":
    try:
        store.namespace(1).close()
    finally:
        store.close()
if sys.argv[2] == "with":
    with store:
        raise ValueError("of the block")
print("at the end")
"""


@pytest.mark.parametrize("way", ["close", "with", "await", "async with", "exit"])
def test_a_store_whose_last_writes_do_not_reach_the_disk_says_so_at_its_end(tmp_path: Path, way: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FAILING, str(tmp_path), way], capture_output=True, text=True, check=False
    )
    assert ended.stderr.count("data_bridge.kv.errors.DurabilityError: ") == 1, ended.stderr
    # Python ends with 0 after an exception that nobody can be given any more.
    assert (ended.returncode, ended.stdout) == ((0, "at the end\n") if way == "exit" else (1, ""))
    assert ("ValueError: of the block" in ended.stderr) is ("with" in way)
