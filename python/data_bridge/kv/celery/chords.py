"""Chords: one hash each, in which the parts are counted, and of which one worker sends the body.

    chord    counting → dispatching → done
    size     how many parts there will be, once that is known
    extra    parts that were added to the running chord
    header   the tree of results, where the header holds groups
    claim    who dispatches: its token, and until when (Unix seconds) it may take
    (index, task)   a part that returned: its state and result

A part that comes twice, or after the dispatch, changes nothing. A worker that dies while it dispatches leaves the
claim, which the next copy of one of its parts waits for and then takes over.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from celery import states
from celery.canvas import maybe_signature
from celery.exceptions import ChordError
from celery.result import GroupResult, allow_join_result, result_from_tuple
from celery.utils.functional import _regen
from celery.utils.log import get_logger
from data_bridge.kv._values import MISSING
from data_bridge.kv.celery.payload import encoding, levels, nested
from data_bridge.kv.errors import ConflictError, TimeoutError  # noqa: A004 - named as its builtin

FIELD = "chord"
COUNTING, DISPATCHING, DONE = "counting", "dispatching", "done"
KNOWN = ("size", "extra", "header")
"""Fields that are no parts and may be there while it counts."""
LEAST_DONE_SECONDS = 300
"""How long a chord that was dispatched is remembered at least, for late copies of its parts."""

logger = get_logger(__name__)


class Chords:
    """What a backend does for chords. The rest of the class is Celery's backend."""

    app: Any
    client: Any

    def _chord_key(self, group_id: str) -> str:
        return self.get_key_for_group(group_id, ".chord")  # type: ignore[attr-defined]

    def _ttl_of_chords(self) -> float | None:
        return self.chord_expires or None  # type: ignore[attr-defined]

    def _retried(self, function: Any, *args: Any) -> Any:
        raise NotImplementedError

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Begins to count. A chord that was frozen and is applied again begins anew."""
        fields: dict[str, Any] = {}
        if not isinstance(header_result_args[1], _regen):
            header = self.app.GroupResult(*header_result_args)
            if any(isinstance(result, GroupResult) for result in header.results):
                fields["header"] = levels(header.as_tuple())
        self._retried(self._begin_to_count, self._chord_key(header_result_args[0]), fields)

    def _begin_to_count(self, key: str, fields: dict[str, Any]) -> None:
        if not self._still_counting(key, fields):
            self.client.set(key, {FIELD: COUNTING, **fields}, ttl=self._ttl_of_chords())

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Says how many parts there will be; some may have returned already."""
        self._retried(self._still_counting, self._chord_key(group_id), {"size": chord_size})

    def _still_counting(self, key: str, fields: dict[str, Any]) -> bool:
        """Merges fields into a chord, made if there is none; False if it is past counting."""
        step: dict[str, Any] = {"expect": [MISSING, COUNTING], "to": COUNTING, "ttl": self._ttl_of_chords()}
        try:
            self.client.transition(key, field=FIELD, update=fields, **step)
        except ConflictError:
            return False
        return True

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """One more part."""
        key = self._chord_key(chord_id)
        with self.client.pipeline(atomic=True) as pipe:
            pipe.transition(
                key, field=FIELD, expect=[MISSING, COUNTING], to=COUNTING, ttl=self._ttl_of_chords()
            )
            pipe.hincrby(key, "extra", 1)

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """A part returned. The one that completes the chord sends the body."""
        if not request.group or not request.id:
            return
        key = self._chord_key(request.group)
        part = (state, self.encode_result(result, state))  # type: ignore[attr-defined]
        with encoding():
            complete = self._retried(self._record_part, key, (request.group_index, request.id), part)
        if complete:
            callback = maybe_signature(request.chord, app=self.app)
            token, seconds = uuid4().hex, self._seconds_to_dispatch(callback)
            version = self._retried(self._claim, key, token, seconds)
            if version:
                self._dispatch(key, version, callback, seconds)

    def _record_part(self, key: str, place: tuple[Any, str], part: tuple[str, Any]) -> bool:
        """Whether all parts are there, this one or a copy of it included."""
        ttl = self._ttl_of_chords()
        pipe = self.client.pipeline(atomic=True)
        pipe.transition(key, field=FIELD, expect=[MISSING, COUNTING], to=COUNTING, ttl=ttl)
        pipe.hsetnx(key, place, part).hlen(key).hmget(key, KNOWN)
        try:
            _, _, fields, known = pipe.execute()
        except ConflictError as conflict:
            return bool(conflict.current == DISPATCHING)
        size, extra, _ = known
        parts = fields - 1 - sum(value is not None for value in known)
        return size is not None and parts >= size + (extra or 0)

    def _claim(self, key: str, token: str, seconds: float) -> int | None:
        """The version of the chord once it is ours to dispatch; None if somebody else has, or does."""
        step: dict[str, Any] = {"field": FIELD, "to": DISPATCHING, "ttl": self._ttl_of_chords()}
        expect, fence = COUNTING, None
        while True:
            claim = {"claim": (token, time.time() + seconds)}
            try:
                taken = self.client.transition(key, expect=expect, fence=fence, update=claim, **step)
                return taken.version
            except ConflictError as conflict:
                if conflict.current != DISPATCHING:
                    return None
            chord, version = self.client.get_versioned(key)
            if chord is MISSING or chord[FIELD] != DISPATCHING:
                return None
            owner, until = chord["claim"]
            if owner == token:
                # The answer to our own claim was lost.
                return version
            try:
                left = max(0.0, until - time.time())
                self.client.wait(key, field=FIELD, until={DONE, COUNTING}, timeout=left)
                return None
            except TimeoutError:
                logger.warning("Chord %s: nobody finished its dispatch, taking over", key)
                expect, fence = DISPATCHING, version

    def _seconds_to_dispatch(self, callback: Any) -> float:
        """How long a dispatch may take: every attempt to publish the body, and the waits between them."""
        conf, options = self.app.conf, callback.options
        policy = {**(conf.task_publish_retry_policy or {}), **(options.get("retry_policy") or {})}
        retry = options.get("retry")
        attempts = 1
        if conf.task_publish_retry if retry is None else retry:
            attempts += int(policy.get("max_retries") or 0)
        patience = float(conf.broker_connection_timeout or 4) + float(policy.get("interval_max") or 1)
        return max(5.0, attempts * patience) + float(conf.result_chord_join_timeout or 0)

    def _dispatch(self, key: str, version: int, callback: Any, seconds: float) -> None:
        """Sends the body, or fails it; then the chord is done."""
        try:
            results = self._results(self._retried(self.client.get, key) or {})
        except ChordError as error:
            self._failed_chord(key, callback, error)
        except Exception as error:
            self._failed_chord(key, callback, ChordError(f"Join error: {error!r}"))
        else:
            try:
                self.app.amqp._retry_publish(callback.delay, results)
            except Exception as error:
                self._failed_chord(key, callback, ChordError(f"Callback error: {error!r}"))
        self._retried(self._finish, key, version, max(2 * seconds, LEAST_DONE_SECONDS))

    def _failed_chord(self, key: str, callback: Any, error: ChordError) -> None:
        logger.exception("Chord %s raised: %r", key, error)
        self.chord_error_from_stack(callback, error)  # type: ignore[attr-defined]

    def _finish(self, key: str, version: int, ttl: float) -> None:
        try:
            self.client.set_if_version(key, {FIELD: DONE}, version, ttl=ttl)
        except ConflictError as conflict:
            if conflict.current is MISSING or conflict.current[FIELD] != DONE:
                logger.warning("Chord %s: the claim was lost before the dispatch had ended", key)

    def _results(self, chord: dict[Any, Any]) -> list[Any]:
        """The results of the header in its order and shape."""
        parts = {place: part for place, part in chord.items() if isinstance(place, tuple)}
        if chord.get("header") is None:
            places = sorted(parts, key=lambda place: float("inf") if place[0] is None else place[0])
            return [self._outcome(place[1], *parts[place]) for place in places]
        by_task = {place[1]: part for place, part in parts.items()}

        def shaped(result: Any) -> Any:
            (task_id, _), members = result
            if members is not None:
                return [shaped(member) for member in members]
            if task_id in by_task:
                return self._outcome(task_id, *by_task[task_id])
            return self._joined(result_from_tuple(result, self.app))

        # Not by objects of Celery's: the members of its groups are waited for, and so kept, until they are collected.
        return shaped(nested(chord["header"]))

    def _joined(self, result: Any) -> Any:
        """The result of a member that is no part of the chord itself."""
        try:
            with allow_join_result():
                return result.get(timeout=self.app.conf.result_chord_join_timeout)
        finally:
            self._let_go(result.parent)

    def _let_go(self, result: Any) -> None:
        """Waits no longer for the members of groups among a result and those before it."""
        while result is not None:
            if isinstance(result, GroupResult):
                for member in result.results or ():
                    self._let_go(member)
            else:
                self.remove_pending_result(result)  # type: ignore[attr-defined]
            result = result.parent

    def _outcome(self, task_id: str, state: str, result: Any) -> Any:
        if state in states.EXCEPTION_STATES:
            result = self.exception_to_python(result)  # type: ignore[attr-defined]
        if state in states.PROPAGATE_STATES:
            raise ChordError(f"Dependency {task_id} raised {result!r}") from result
        return result
