"""What tasks do to a store, step by step, for the synchronous and the asynchronous class alike. No I/O.

    NAME:ID        hash: status, payload, tries, worker, error, result
    NAME~STATE     sorted set of the ids in a state, by time: due, end of the lease, end of the task
    NAME~wake      counts what may be claimed anew, for those who wait

Each step is one atomic pipeline, so that a task stands in exactly one of the sets. Times are Unix seconds of the clock
of whoever takes the step.
"""

from __future__ import annotations

import contextlib
import random
import time
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from data_bridge.kv._steps import Step, Steps, may_have_happened, positive
from data_bridge.kv._values import MISSING, newer_than
from data_bridge.kv.errors import ConflictError, KvError, TimeoutError  # noqa: A004 - named as its builtin

PENDING, STARTED, SUCCESS, FAILURE = "PENDING", "STARTED", "SUCCESS", "FAILURE"
TRANSITIONS = f"->{PENDING}, {PENDING}->{STARTED}, {STARTED}->{STARTED}|{PENDING}|{SUCCESS}|{FAILURE}"
LOOKED_AT = 16
"""Tasks that a claim looks at before it looks anew, and that one requeuing takes."""
LARGEST_EXPONENT = 1023
"""Of a power of two that is a float."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task as it was at one version. `error` is the last try's that had one, also of a task that ended well."""

    id: str
    status: str
    payload: Any
    tries: int
    version: int
    worker: str | None = None
    result: Any = None
    error: Any = None


@dataclass(frozen=True, slots=True)
class Policy:
    """How tasks of a name are tried and kept."""

    name: str
    lease: float
    max_tries: int
    backoff: float
    max_backoff: float
    keep: float | None

    def __post_init__(self) -> None:
        positive(lease=self.lease, max_tries=self.max_tries)
        if self.keep is not None:
            positive(keep=self.keep)

    def key(self, task_id: str) -> str:
        """The key of a task."""
        return f"{self.name}:{task_id}"

    def ids(self, state: str) -> str:
        """The key of the ids in a state."""
        return f"{self.name}~{state}"

    @property
    def wake(self) -> str:
        """The key that changes when there is something to claim."""
        return f"{self.name}~wake"

    def pause(self, tries: int) -> float:
        """Seconds before the next try: twice as long each time, and somewhere in the upper half of that."""
        doublings = min(max(0, tries - 1), LARGEST_EXPONENT)
        longest = min(self.max_backoff, self.backoff * 2.0**doublings)
        return longest * random.uniform(0.5, 1.0)


def ask(method: str, *args: Any, **options: Any) -> Step:
    """One call of a method."""
    return lambda store: getattr(store, method)(*args, **options)


def atomic(fill: Step) -> Step:
    """Several commands as one step."""

    def call(store: Any) -> Any:
        pipe = store.pipeline(atomic=True)
        fill(pipe)
        return pipe.execute()

    return call


def task_of(task_id: str, fields: Any, version: int) -> Task:
    """A task from its hash."""
    names = ("status", "payload", "tries", "worker", "result", "error")
    return Task(id=task_id, version=version, **{name: fields.get(name) for name in names})


def create(policy: Policy, payload: Any, task_id: str | None, delay: float) -> Steps[str]:
    """A new task, due after a delay; `ConflictError` if there is one of this id."""
    task_id, due = uuid4().hex if task_id is None else task_id, time.time() + delay

    def fill(pipe: Any) -> None:
        fields = {"payload": payload, "tries": 0}
        pipe.transition(policy.key(task_id), expect=MISSING, to=PENDING, update=fields)
        pipe.zadd(policy.ids(PENDING), {task_id: due}).incr(policy.wake)

    yield atomic(fill)
    return task_id


def claim(policy: Policy, worker: str, timeout: float | None) -> Steps[Task | None]:
    """The next task that is due; waits for one."""
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        _, seen = yield ask("get_versioned", policy.wake)
        now = time.time()
        due = policy.ids(PENDING)
        ids = yield ask("zrangebyscore", due, "-inf", now, start=0, num=LOOKED_AT)
        for task_id in ids:
            task = yield from start(policy, task_id, worker, now)
            if task is not None:
                return task
        if ids or (yield from requeue_expired(policy)):
            continue
        to_next = yield from seconds_to_next(policy, now)
        left = to_next if end is None else min(to_next, max(0.0, end - time.monotonic()))
        patience = None if left == float("inf") else left
        try:
            yield ask("wait", policy.wake, until=newer_than(seen), timeout=patience)
        except TimeoutError:
            if left < to_next:
                return None


def start(policy: Policy, task_id: str, worker: str, now: float) -> Steps[Task | None]:
    """Claims a task; None if somebody else did."""
    key, until = policy.key(task_id), now + policy.lease

    def fill(pipe: Any) -> None:
        pipe.transition(key, expect=PENDING, to=STARTED, update={"worker": worker}).hincrby(key, "tries", 1)
        pipe.zrem(policy.ids(PENDING), task_id).zadd(policy.ids(STARTED), {task_id: until}).get_versioned(key)

    try:
        answers = yield atomic(fill)
    except ConflictError as conflict:
        if conflict.current is MISSING:
            yield from forget(policy, task_id, PENDING)
        return None
    except BaseException as error:
        if may_have_happened(error):
            yield from unclaim(policy, task_id, until)
        raise
    fields, version = answers[-1]
    return task_of(task_id, fields, version)


def unclaim(policy: Policy, task_id: str, until: float) -> Steps[None]:
    """Gives back a task whose claim was interrupted, and the try, if there is a lease that ends just then."""
    key = policy.key(task_id)
    with contextlib.suppress(KvError):
        _, version = yield ask("get_versioned", key)
        if (yield ask("zscore", policy.ids(STARTED), task_id)) != until:
            return

        def fill(pipe: Any) -> None:
            pipe.transition(key, expect=STARTED, to=PENDING, fence=version).hincrby(key, "tries", -1)
            pipe.zrem(policy.ids(STARTED), task_id).zadd(policy.ids(PENDING), {task_id: time.time()})
            pipe.incr(policy.wake)

        yield atomic(fill)


def forget(policy: Policy, task_id: str, state: str) -> Steps[None]:
    """Drops the id of a task whose hash was deleted by hand."""

    def fill(pipe: Any) -> None:
        pipe.delete_if_version(policy.key(task_id), 0).zrem(policy.ids(state), task_id)

    try:
        yield atomic(fill)
    except ConflictError:
        return


def seconds_to_next(policy: Policy, now: float) -> Steps[float]:
    """Until the next task is due, or the next lease ends."""

    def fill(pipe: Any) -> None:
        for state in (PENDING, STARTED):
            pipe.zrange(policy.ids(state), 0, 0, withscores=True)

    firsts = yield atomic(fill)
    return max(0.0, min((first[0][1] - now for first in firsts if first), default=float("inf")))


def heartbeat(policy: Policy, task: Task, lease: float | None) -> Steps[Task]:
    """A new lease; `ConflictError` if the old one was lost."""
    until = time.time() + (policy.lease if lease is None else lease)

    def fill(pipe: Any) -> None:
        pipe.transition(policy.key(task.id), expect=STARTED, to=STARTED, fence=task.version)
        pipe.zadd(policy.ids(STARTED), {task.id: until})

    answers = yield atomic(fill)
    return replace(task, version=answers[0].version)


def finish(policy: Policy, task: Task, state: str, fields: dict[str, Any]) -> Steps[None]:
    """The end of a task; `ConflictError` if the lease was lost."""
    now = time.time()

    def fill(pipe: Any) -> None:
        key = policy.key(task.id)
        pipe.transition(key, expect=STARTED, to=state, update=fields, fence=task.version, ttl=policy.keep)
        pipe.zrem(policy.ids(STARTED), task.id).zadd(policy.ids(state), {task.id: now})
        if policy.keep is not None:
            pipe.zremrangebyscore(policy.ids(state), "-inf", now - policy.keep)

    yield atomic(fill)


def retry(policy: Policy, task: Task, error: Any, delay: float | None) -> Steps[bool]:
    """Another try after a pause, or the end where there were enough; whether there will be another."""
    if task.tries >= policy.max_tries:
        yield from finish(policy, task, FAILURE, {"error": error})
        return False
    pause = policy.pause(task.tries) if delay is None else delay

    def fill(pipe: Any) -> None:
        key, due = policy.key(task.id), time.time() + pause
        pipe.transition(key, expect=STARTED, to=PENDING, update={"error": error}, fence=task.version)
        pipe.zrem(policy.ids(STARTED), task.id).zadd(policy.ids(PENDING), {task.id: due}).incr(policy.wake)

    yield atomic(fill)
    return True


def requeue_expired(policy: Policy) -> Steps[int]:
    """Tasks whose lease has ended get another try, or fail; how many there were."""
    now, count = time.time(), 0
    started = policy.ids(STARTED)
    ids = yield ask("zrangebyscore", started, "-inf", now, start=0, num=LOOKED_AT)
    for task_id in ids:
        fields, version = yield ask("get_versioned", policy.key(task_id))
        if fields is MISSING:
            yield from forget(policy, task_id, STARTED)
            continue
        # A heartbeat that came since `ids` was read has changed the version or moves the lease ahead.
        until = yield ask("zscore", started, task_id)
        if fields["status"] != STARTED or until is None or until > now:
            continue
        task = task_of(task_id, fields, version)
        try:
            yield from retry(policy, task, f"the lease of {task.worker} ended", None)
        except ConflictError:
            continue
        count += 1
    return count


def get(policy: Policy, task_id: str) -> Steps[Task | None]:
    """A task as it is."""
    fields, version = yield ask("get_versioned", policy.key(task_id))
    return None if fields is MISSING else task_of(task_id, fields, version)


def wait(policy: Policy, task_id: str, timeout: float | None) -> Steps[Task]:
    """A task once it has ended."""
    ends, key = {SUCCESS, FAILURE}, policy.key(task_id)
    fields, version = yield ask("wait", key, field="status", until=ends, timeout=timeout)
    return task_of(task_id, fields, version)


def in_state(policy: Policy, state: str, limit: int) -> Steps[list[Task]]:
    """Tasks in a state, those first that are next or oldest."""
    ids = yield ask("zrangebyscore", policy.ids(state), "-inf", "+inf", start=0, num=limit)
    if not ids:
        return []

    def fill(pipe: Any) -> None:
        for task_id in ids:
            pipe.get_versioned(policy.key(task_id))

    found = zip(ids, (yield atomic(fill)), strict=True)
    tasks = [task_of(task_id, *stored) for task_id, stored in found if stored[0] is not MISSING]
    return [task for task in tasks if task.status == state]
