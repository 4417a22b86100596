"""The result backend: each task is a hash, its state one field of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from typing import Any

from celery import states
from celery.backends.asynchronous import AsyncBackendMixin
from celery.backends.base import BaseKeyValueStoreBackend
from celery.result import ResultSet, result_from_tuple
from celery.utils.log import get_logger
from celery.utils.time import humanize_seconds
from data_bridge import _native as native
from data_bridge.kv._embedded import Store
from data_bridge.kv._embedded import open as open_store
from data_bridge.kv._patience import LOST, RETRYABLE
from data_bridge.kv._plain import plain
from data_bridge.kv._remote import Client, address, connect, without_tls
from data_bridge.kv._values import MISSING
from data_bridge.kv.celery.chords import Chords
from data_bridge.kv.celery.consumer import ResultConsumer
from data_bridge.kv.celery.payload import encoded, encoding, levels, nested
from data_bridge.kv.errors import ConflictError, UnsupportedValueError
from kombu.serialization import register
from kombu.utils.encoding import bytes_to_str
from kombu.utils.functional import retry_over_time

SCHEME = "data-bridge"
"""The scheme of the URL and the name of the serializer."""
NOT_FINAL = frozenset({MISSING, *states.ALL_STATES, states.REJECTED, states.IGNORED} - {states.SUCCESS})
"""States that may be left, beside those that programs make up."""
CLIENT_OPTIONS = ("max_connections", "pool_timeout", "connect_timeout", "timeout", "password")
"""What `result_backend_transport_options` may say about the client."""

logger = get_logger(__name__)

_stores: dict[tuple[Any, ...], Store | Client] = {}


def url_of(url: str | None) -> str | None:
    """The URL of `kv.connect` that a backend's URL means, None for KV_URL; a URL that is none is refused."""
    scheme, _, rest = (url or "").partition("://")
    if scheme == f"{SCHEME}s":
        raise without_tls(SCHEME)
    if scheme == SCHEME:
        url = f"kv://{rest}" if rest else None
    if url is not None and not in_memory(url):
        address(url, None)
    return url


def in_memory(url: str | None) -> bool:
    """Whether a URL names a store in this process."""
    return (url or "").partition("://")[0].endswith("memory")


def store_of(url: str | None, options: dict[str, Any]) -> Store | Client:
    """The store of a URL: one for all backends of a process. `data-bridge+memory://name` lives in the process."""
    key = (url, *sorted(options.items()))
    store = _stores.get(key)
    if store is None:
        opened = open_store(mode="task") if in_memory(url) else connect(url_of(url), **options)
        store = _stores.setdefault(key, opened)
    return store


class DataBridgeBackend(Chords, BaseKeyValueStoreBackend, AsyncBackendMixin):
    """Results in a data-bridge store.

    The URL is `data-bridge://[:password@]host:port/namespace`, `data-bridge+unix:///path?namespace=name`, or
    `data-bridge+memory://name` for a store in this process.
    """

    ResultConsumer = ResultConsumer
    key_t = bytes_to_str
    supports_native_join = True
    supports_autoexpire = True
    supports_failure_expires = True
    persistent = True

    def __init__(self, url: str | None = None, **kwargs: Any) -> None:
        kwargs["serializer"] = SCHEME
        url_of(url)
        super().__init__(url=url, expires_type=float, **kwargs)
        failure_expires = self.app.conf.get("result_failure_expires")
        self.failure_expires = (
            self.expires if failure_expires is None else self.prepare_expires(failure_expires, type=float)
        )
        self.result_consumer = self.ResultConsumer(
            self, self.app, self.accept, self._pending_results, self._pending_messages
        )

    def _key(self, task_id: Any) -> Any:
        return self.get_key_for_task(task_id)

    @property
    def _transport_options(self) -> dict[str, Any]:
        return self.app.conf.get("result_backend_transport_options") or {}

    @cached_property
    def client(self) -> Store | Client:
        """The store, shared by all backends of this process."""
        options = {name: value for name, value in self._transport_options.items() if name in CLIENT_OPTIONS}
        return store_of(self.url, options)

    def encode(self, data: Any) -> bytes:
        """The bytes of a value; `EncodeError` for what has none."""
        return encoded(data)

    def decode(self, payload: Any) -> Any:
        """What was stored: a fresh object each time."""
        if isinstance(payload, bytes):
            return native.decode(payload)
        if isinstance(payload, dict) and payload.get("children"):
            payload["children"] = [nested(child) for child in payload["children"]]
        return payload

    def exception_safe_to_retry(self, exc: BaseException) -> Any:
        """Whether the store may be asked again later."""
        return isinstance(exc, RETRYABLE)

    def _retried(self, function: Any, *args: Any) -> Any:
        """Calls it again while the server is away, as often as the retry policy says."""
        policy = {**self.retry_policy, **self._transport_options.get("retry_policy", {})}
        on_error = partial(self._on_lost, policy.get("max_retries"))
        return retry_over_time(function, LOST, args, {}, on_error, **policy)

    def _on_lost(self, most: int | None, error: Exception, intervals: Iterator[Any], retries: int) -> Any:
        seconds = next(intervals)
        logger.error("%s: retry (%s/%s) %s.", error, retries, most or "Inf", humanize_seconds(seconds, "in "))
        return seconds

    def _store_result(
        self, task_id: Any, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request, format_date=False
        )
        del meta["status"]
        meta["task_id"] = bytes_to_str(task_id)
        if meta["children"]:
            meta["children"] = [levels(child) for child in meta["children"]]
        ttl = self.failure_expires if state == states.FAILURE else self.expires
        store = partial(self._retried, self._store_unless_final, self._key(task_id), state, ttl)
        with encoding():
            try:
                store(meta)
            except UnsupportedValueError:
                store(plain(meta))
        return result

    def _store_unless_final(self, key: str, state: str, ttl: float | None, meta: dict[str, Any]) -> None:
        """One step of the store: a state that is not final gives way to the new one, and who waits is told."""
        expect = set(NOT_FINAL)
        while True:
            try:
                if ttl:
                    self.client.transition(key, expect=expect, to=state, update=meta, ttl=ttl)
                else:
                    with self.client.pipeline(atomic=True) as pipe:
                        pipe.transition(key, expect=expect, to=state, update=meta).persist(key)
                return
            except ConflictError as conflict:
                if conflict.current == states.SUCCESS:
                    return
                expect.add(conflict.current)

    def _get_task_meta_for(self, task_id: Any) -> Any:
        meta = self.client.get(self._key(task_id))
        if meta is None:
            return {"status": states.PENDING, "result": None}
        return self.decode_result(meta)

    def task_result_exists(self, task_id: Any) -> bool:
        """Whether something is stored for a task."""
        return bool(self.client.exists(self._key(task_id)))

    def forget(self, task_id: Any) -> None:
        """Removes a result, and waits for it no longer."""
        super().forget(task_id)
        self.result_consumer.cancel_for(task_id)

    def get_many(
        self,
        task_ids: Iterable[Any],
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Any = None,
        on_interval: Any = None,
        max_iterations: int | None = None,
        READY_STATES: frozenset[str] = states.READY_STATES,  # noqa: N803 - Celery's name
    ) -> Any:
        """Ids and results as they are there; with `max_iterations` only what is there now.

        A timeout of 0 that finds one missing is `TimeoutError` in any case, as with Celery's other backends.
        """
        ids = {bytes_to_str(task_id) for task_id in task_ids}
        keys = {self._key(task_id): task_id for task_id in ids}
        for key, meta in self._filter_ready(self.mget(list(keys)).items(), READY_STATES):
            task_id = keys[key]
            ids.discard(task_id)
            self._cache[task_id] = meta
            if on_message is not None:
                on_message(meta)
            yield task_id, meta
        if ids and (not max_iterations or (timeout is not None and timeout <= 0)):
            rest = ResultSet([self.app.AsyncResult(task_id, backend=self) for task_id in ids], app=self.app)
            yield from rest.iter_native(timeout=timeout, on_message=on_message, on_interval=on_interval)

    def _save_group(self, group_id: Any, result: Any) -> Any:
        key = self.get_key_for_group(group_id)
        self._retried(self._set, key, {"result": levels(result.as_tuple())}, self.expires)
        return result

    def _restore_group(self, group_id: Any) -> dict[str, Any] | None:
        key: Any = self.get_key_for_group(group_id)
        meta = self.client.get(key)
        if meta is None:
            return None
        return {**meta, "result": result_from_tuple(nested(meta["result"]), self.app)}

    def get(self, key: str) -> Any:
        """The value of a key."""
        return self.client.get(key)

    def mget(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values of the keys that there are."""
        return self.client.get_many(keys)

    def set(self, key: str, value: Any) -> None:
        """Writes a value that expires with the results."""
        self._retried(self._set, key, value, self.expires)

    def _set(self, key: str, value: Any, ttl: float | None) -> None:
        if ttl:
            self.client.set(key, value, ttl=ttl)
        else:
            with self.client.pipeline(atomic=True) as pipe:
                pipe.set(key, value).persist(key)

    def delete(self, key: str) -> None:
        """Removes a key."""
        self.client.delete(key)

    def expire(self, key: str, value: float) -> None:
        """Lets a key expire after so many seconds."""
        if value:
            self.client.expire(key, value)
        else:
            self.client.persist(key)

    def __reduce__(self, args: Any = (), kwargs: Any = None) -> Any:
        return super().__reduce__(args, {**(kwargs or {}), "expires": self.expires, "url": self.url})


register(SCHEME, encoded, native.decode, content_type="application/x-data-bridge", content_encoding="binary")
