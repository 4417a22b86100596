"""Task queues on a server that is killed again and again: every task ends once, nobody waits for ever, nothing is left.

STORM_TASKS says how many tasks there are in all, STORM_SECONDS how long a server lives. Workers and broker are not
killed, so that everything is delivered once; what a broker delivered again all the same is told apart by its mark.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chord, group, signals
from data_bridge import kv
from data_bridge._native import opcode as op
from data_bridge.kv import _patience
from data_bridge.kv.celery import backend as backends

WORKERS = Path(__file__).parent / "workers"
TASKS = int(os.environ.get("STORM_TASKS", "500"))
SECONDS = float(os.environ.get("STORM_SECONDS", "2"))
KILLS = 4
"""How often a server is killed at least; there are more tasks where that takes longer."""
PATIENCE = 60.0 + TASKS / 50
"""Seconds that nothing here takes unless it hangs."""
WHOLE_LOG = 10_000
"""With so many tasks the log is short enough to be whole in the end."""
REST = 0.05
"""Seconds that most tasks take."""
FINAL = {"SUCCESS", "FAILURE"}
READY = {
    "prefork": (" ready.", 1),
    "threads": (" ready.", 1),
    "dramatiq": ("ready for action", 2),
    "taskiq": ("Listening started", 2),
}
"""What workers say when they have begun, and how often."""
SPARE_FILES = 8
"""Descriptors that a process may have more than before: what it needs for the first time."""
SPARE_THREADS = 2
SPARE_MEMORY = 48 << 20


class Storm:
    """A server that is killed and started again on its directory and port, until it is over."""

    def __init__(self, start: Callable[..., Any], directory: Path) -> None:
        self._start = partial(start, "--data", str(directory))
        self.server = self._start(port=0)
        self.kills = 0
        self._over = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._rage)

    def _rage(self) -> None:
        try:
            while not self._over.wait(SECONDS):
                self.server.kill()
                self.server = self._start(port=self.server.port)
                self.kills += 1
        except BaseException as error:  # the end of a storm that is not over is a failure
            self._failed = error

    @contextmanager
    def raging(self) -> Iterator[None]:
        """The time in which it kills."""
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()
        if self._failed is not None:
            raise self._failed


class Workers:
    """Worker processes of all frameworks, and what they hold."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        celery = ["celery", "-A", "celery_tasks", "worker", "--without-gossip", "--without-mingle"]
        self._broker = environment["BROKER"]
        self._stack = ExitStack()
        self._running = []
        for name, command in {
            "prefork": [*celery, "-l", "INFO", "-n", "prefork@%h", "-P", "prefork", "-c", "2"],
            "threads": [*celery, "-l", "INFO", "-n", "threads@%h", "-P", "threads", "-c", "4"],
            "dramatiq": ["dramatiq", "dramatiq_tasks", "--processes", "2", "--threads", "2"],
            "taskiq": ["taskiq", "worker", "taskiq_storm:broker", "--workers", "2"],
        }.items():
            output = self._stack.enter_context((log / f"{name}.log").open("w"))
            command = [sys.executable, "-m", *command]
            self._running.append(
                subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
            )
        for process, (name, (said, times)) in zip(self._running, READY.items(), strict=True):
            while (log / f"{name}.log").read_text().count(said) < times:
                assert process.poll() is None, (log / f"{name}.log").read_text()
                time.sleep(0.05)

    def held(self) -> dict[int, tuple[int, int, int]]:
        """Descriptors, threads and bytes of memory of each process, children included."""
        found, left = {}, [process.pid for process in self._running]
        while left:
            pid = left.pop()
            threads = list(Path(f"/proc/{pid}/task").iterdir())
            left += [int(child) for thread in threads for child in (thread / "children").read_text().split()]
            found[pid] = (files_of(pid), len(threads), memory_of(pid))
        return found

    def end(self) -> list[int]:
        """Ends them all; their exit codes."""
        for process in self._running:
            process.terminate()
        # A worker of Taskiq that is told to end takes its broker's next message before: one that says nothing.
        deadline = time.monotonic() + 60
        with redis.Redis.from_url(self._broker) as broker:
            while self._running[-1].poll() is None and time.monotonic() < deadline:
                broker.rpush("taskiq-storm", "end")
                time.sleep(0.1)
        codes = [process.wait(timeout=60) for process in self._running]
        self._stack.close()
        return codes


def files_of(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def memory_of(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Programs:
    """The programs that send tasks and wait for them, one a framework."""

    def __init__(self, broker: str, storm: Storm) -> None:
        import dramatiq_tasks
        import taskiq_storm

        self.storm, self.kills, url = storm, 0, storm.server.url("tasks")
        self.dramatiq, self.taskiq = dramatiq_tasks, taskiq_storm
        self.app = Celery(
            "celery_tasks", broker=broker, backend=f"data-bridge{url[2:]}", set_as_current=False
        )
        self.app.conf.result_backend_always_retry = True
        self.tasks = self.bodies = 0
        self.failed: set[str] = set()

    def signature(self, name: str, *args: Any) -> Any:
        """A task of Celery's by its name."""
        return self.app.signature(f"celery_tasks.{name}", args)

    def run_celery(self, tasks: int) -> None:
        """So many tasks in groups, chords, chains and one by one, about forty at a time, each wave with its results."""
        done = 0
        while done < tasks or self.storm.kills < self.kills:
            done += self.celery_wave(done)
        # Celery has a backend for each thread.
        consumer = self.app.backend.result_consumer
        assert (consumer._waits, consumer._unasked) == ({}, {})

    def celery_wave(self, start: int) -> int:
        """Sends tasks of each shape and checks their results; how many they were."""
        add, total = partial(self.signature, "add"), self.signature("total")
        nested = [add(1, 1), group(add(number, 1) for number in range(3)), add(2, 2) | group(add(3), add(4))]
        sent = [
            (group(add(start, number) for number in range(8)), [start + number for number in range(8)]),
            (chord([add(start, number) for number in range(8)], total), 8 * start + 28),
            (chord(nested, total), 2 + 6 + 15),
            (add(start, 1) | group(add(number) for number in range(4)) | total, 4 * (start + 1) + 6),
            (self.signature("third_time"), 2),
            (self.signature("replaced", 5), [5, 6, 7]),
        ]
        running = [(shape.apply_async(), expected) for shape, expected in sent]
        launched = self.signature("launches", 3).apply_async()
        refused = self.signature("refuse", 3).apply_async()
        broken: Any = chord([add(1, 1), self.signature("refuse", 1)], total).apply_async()
        for result, expected in running:
            assert result.get(timeout=PATIENCE) == expected
        body = self.app.AsyncResult(launched.get(timeout=PATIENCE))
        assert body.get(timeout=PATIENCE) == 6
        for failing, message in ((refused, "too much"), (broken, "Dependency")):
            with pytest.raises(Exception, match=message):
                self.app.AsyncResult(failing.id).get(timeout=PATIENCE)
            self.failed.add(failing.id)
        self.failed |= {part.id for part in broken.parent.results if part.state == "FAILURE"}
        self.tasks += 45
        self.bodies += 6
        return 45

    def run_dramatiq(self, tasks: int) -> dict[str, Any]:
        """So many messages, alone and in groups; each result by its key."""
        actors, found, done = self.dramatiq, {}, 0
        backend = actors.broker.get_results_backend()
        while done < tasks or self.storm.kills < self.kills:
            many = actors.dramatiq.group([actors.add.message(done, number) for number in range(20)]).run()
            assert list(many.get_results(block=True, timeout=PATIENCE * 1000)) == [
                done + n for n in range(20)
            ]
            third, refused = actors.third_time.send(), actors.refuse.send()
            assert third.get_result(block=True, timeout=PATIENCE * 1000) == 2
            with pytest.raises(Exception, match="too much"):
                refused.get_result(block=True, timeout=PATIENCE * 1000)
            for sent in (*many.children, third, refused):
                key = backend.build_message_key(sent)
                found[key] = patiently(lambda key=key: backend.client.get(key))  # type: ignore[misc]
            done += 22
        return found

    async def run_taskiq(self, tasks: int) -> dict[str, Any]:
        """So many tasks, waited for with Taskiq's own wait and with ours; each result by its key."""
        tasks_of, found, done = self.taskiq, {}, 0
        backend = tasks_of.broker.result_backend
        await tasks_of.broker.startup()
        while done < tasks or self.storm.kills < self.kills:
            sent = [await tasks_of.add.kiq(done, number) for number in range(20)]
            refused = await tasks_of.refuse.kiq()
            asked = asyncio.gather(*(one.wait_result(timeout=PATIENCE) for one in sent[:10]))
            told = asyncio.gather(*(backend.wait(one.task_id, timeout=PATIENCE) for one in sent[10:]))
            results = [*(await asked), *(await told)]
            assert [one.return_value for one in results] == [done + number for number in range(20)]
            assert type((await refused.wait_result(timeout=PATIENCE)).error) is ValueError
            for one in (*sent, refused):
                found[f"taskiq:{one.task_id}"] = await backend._patiently(
                    lambda one=one: backend.client.get(f"taskiq:{one.task_id}")
                )
            done += 21
        await tasks_of.broker.shutdown()
        return found

    def run(self, tasks: int, kills: int) -> dict[str, Any]:
        """So many tasks of all frameworks at once; the results of Dramatiq and Taskiq by their keys."""
        self.kills = kills
        with ThreadPoolExecutor(3) as pool:
            celery = pool.submit(self.run_celery, tasks * 7 // 10)
            others = [
                pool.submit(self.run_dramatiq, tasks * 15 // 100),
                pool.submit(lambda: asyncio.run(self.run_taskiq(tasks * 15 // 100))),
            ]
            celery.result()
            return {key: value for other in others for key, value in other.result().items()}

    def close(self) -> None:
        """Ends every connection."""
        self.app.close()
        gc.collect()  # a backend and its consumer know each other
        while backends._stores:
            backends._stores.popitem()[1].close()
        self.dramatiq.broker.close()
        self.dramatiq.broker.client.close()
        self.dramatiq.broker.get_results_backend().client.close()
        self.dramatiq.limits.client.close()


def patiently(call: Callable[[], Any]) -> Any:
    """What a call answers once the server is there."""
    return _patience.patiently(call, _patience.end_of(PATIENCE))


@pytest.fixture
def events(tmp_path: Path) -> Iterator[Path]:
    """Where everybody tells what was sent and what ran."""
    from events import note

    def sent(sender: str, headers: dict[str, Any], **_: Any) -> None:
        note("sent", headers["id"], sender, headers["retries"])

    signals.before_task_publish.connect(sent)
    yield tmp_path / "events"
    signals.before_task_publish.disconnect(sent)


@pytest.fixture
def environment(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], dict[str, str]]:
    """The environment of workers, for a store; that of this process too."""
    monkeypatch.syspath_prepend(str(WORKERS))
    for module in ("dramatiq_tasks", "taskiq_storm", "events"):
        monkeypatch.delitem(sys.modules, module, raising=False)

    def of(url: str) -> dict[str, str]:
        path = os.pathsep.join([str(WORKERS), *filter(None, [os.environ.get("PYTHONPATH")])])
        of_all = {"BROKER": broker, "EVENTS": str(tmp_path / "events"), "REST": str(REST)}
        for name, value in {**of_all, "BACKEND": url}.items():
            monkeypatch.setenv(name, value)
        celery = {"BACKEND_OF_CELERY": f"data-bridge{url[2:]}"}
        return {**os.environ, **celery, "PYTHONPATH": path}

    return of


@pytest.fixture
def _quiet() -> Iterator[None]:
    """Nothing is logged: pytest keeps what was, with the tracebacks and all that they hold."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(180 + TASKS)
@pytest.mark.usefixtures("_quiet")
def test_every_task_ends_once_while_the_server_is_killed(
    environment: Any, events: Path, start_server: Any, broker: str, tmp_path: Path
) -> None:
    storm = Storm(start_server, tmp_path / "data")
    workers = Workers(environment(storm.server.url("tasks")), tmp_path)
    programs = Programs(broker, storm)
    try:
        programs.run(20, 0)
        before = workers.held()
        mine = files_of(os.getpid())
        with storm.raging():
            others = programs.run(TASKS, KILLS)
        check_nothing_waits(storm)
        assert files_of(os.getpid()) <= mine + SPARE_FILES
        after = workers.held()
        check_what_is_stored(storm, programs, others)
        assert workers.end() == [0, 0, 0, 0]
        programs.close()
        check_nobody_is_left(storm)
    finally:
        workers.end()
    assert after.keys() == before.keys()
    for pid, (files, threads, memory) in before.items():
        assert after[pid][0] <= files + SPARE_FILES, pid
        assert after[pid][1] <= threads + SPARE_THREADS, pid
        assert after[pid][2] <= memory + SPARE_MEMORY, pid
    ran = check_events(events)
    storm.server.kill()  # one that is stopped cuts its log
    check_log(tmp_path / "data", programs)
    assert storm.kills >= KILLS
    assert sum(ran.values()) >= TASKS
    sys.stdout.write(f"{sum(ran.values())} tasks ran, {storm.kills} kills\n")


def check_nothing_waits(storm: Storm) -> None:
    with kv.connect(storm.server.url("tasks")) as client:
        wait_until(client, "blocked_clients:0\r\n")


def check_nobody_is_left(storm: Storm) -> None:
    with kv.connect(storm.server.url("tasks")) as client:
        wait_until(client, "connected_clients:1\r\n")


def wait_until(client: kv.Client, fact: str) -> None:
    """Asks the server until it says so; the test's time ends otherwise."""
    while fact not in client._call(op.INFO, ("clients",)):
        time.sleep(0.01)


def check_what_is_stored(storm: Storm, programs: Programs, others: dict[str, Any]) -> None:
    """What was read during the storm is there after it."""
    with kv.connect(storm.server.url("tasks")) as client:
        assert client.get_many(others) == others
        states: Counter[str] = Counter()
        for key in client.scan("celery-task-meta-"):
            meta = client.get(key)
            states[meta["status"]] += 1
            assert (meta["status"] == "FAILURE") == (meta["task_id"] in programs.failed), meta
        assert set(states) == FINAL, states


def check_events(events: Path) -> Counter[str]:
    """Everything was sent once and ran once; how many tasks ran, by their name."""
    lines = Counter(line.strip() for line in events.read_text().splitlines())
    sent = Counter(" ".join(line.split()[1:4]) for line in lines.elements() if line.startswith("sent "))
    ran = Counter(" ".join(line.split()[1:4]) for line in lines.elements() if line.startswith("ran "))
    assert [task for task, times in sent.items() if times > 1] == []
    assert [task for task, times in ran.items() if times > 1] == []
    assert sent.keys() <= ran.keys()
    hosts = {line.split()[4].split("@")[0] for line in lines if line.startswith("ran ") and "@" in line}
    assert hosts == {"prefork", "threads"}
    return Counter(task.split()[1] for task in ran.elements())


def check_log(directory: Path, programs: Programs) -> None:
    """What the log says of each task and chord: one final state, one dispatch."""
    command = [sys.executable, "-m", "data_bridge.kv", "log", "dump", str(directory)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if ", start 1\n" not in text:
        assert TASKS > WHOLE_LOG, "the checkpoint let records go"
        return
    steps: dict[str, list[str]] = {}
    written = r'(?:put|hash) "([^"]+)" (?:= Hash\(\[\(|set )Text\("(status|chord)"\)(?:,| =) Text\("(\w+)"\)'
    for key, _, state in re.findall(written, text):
        steps.setdefault(key, []).append(state)
    tasks = {key: states for key, states in steps.items() if not key.endswith(".chord")}
    chords = [states for key, states in steps.items() if key.endswith(".chord")]
    assert len(tasks) >= programs.tasks
    for key, states in tasks.items():
        assert len(set(states) & FINAL) == 1, (key, states)
        assert states[-1] in FINAL, (key, states)
        assert states.count("SUCCESS") <= 1, (key, states)
    dispatched = [states for states in chords if "dispatching" in states]
    assert len(dispatched) >= programs.bodies
    for states in dispatched:
        assert (states.count("dispatching"), states[-1], states.count("done")) == (1, "done", 1), states
