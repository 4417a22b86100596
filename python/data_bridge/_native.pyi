# Types of the compiled module; its code stands in crates/data-bridge.
import os
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Final, Self, final

from typing_extensions import disjoint_base

__all__ = [
    "KINDS",
    "AsyncRemote",
    "Bell",
    "Blocked",
    "Deferred",
    "Embedded",
    "Engine",
    "Queue",
    "Ready",
    "Remote",
    "RemoteWatch",
    "Watch",
    "decode",
    "encode",
    "forked",
    "opcode",
    "register",
    "run_server",
    "shut_down",
    "ttl_ms",
    "unix_ms",
]

KINDS: Final[list[str]]

def encode(value: Any, fallback: Any = None) -> bytes: ...
def decode(data: bytes, fallback: Any = None) -> Any: ...
def ttl_ms(ttl: float | timedelta) -> int: ...
def unix_ms(when: float | datetime) -> int: ...
def register(
    class_: type, name: str, to_plain: Callable[[Any], Any], from_plain: Callable[[Any], Any], /
) -> None: ...
def run_server(args: list[str]) -> int: ...
def forked() -> None: ...
def shut_down() -> None: ...

@final
class Engine:
    def __new__(
        cls,
        path: str | os.PathLike[str] | None,
        max_disk: int | None,
        mode: str,
        eviction: str | None,
        durability: str | None,
        max_memory: int | None,
        namespaces: dict[str, dict[str, Any]] | None,
    ) -> Self: ...
    def snapshot(self, destination: str | os.PathLike[str]) -> None: ...
    def close(self) -> None: ...

@final
class Watch:
    def next(self, timeout: float | None = None) -> Any: ...
    def close(self) -> None: ...

@disjoint_base
class Embedded:
    def __new__(cls, engine: Engine, namespace: str, fallback: Any = None, waits: bool = True) -> Self: ...
    def __getitem__(self, key: str, /) -> Any: ...
    def __setitem__(self, key: str, value: Any, /) -> None: ...
    def __delitem__(self, key: str, /) -> None: ...
    def __contains__(self, key: object, /) -> bool: ...
    def __len__(self) -> int: ...
    def get(self, key: str, default: Any = None) -> Any: ...
    def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | timedelta | None = None,
        nx: bool = False,
        xx: bool = False,
        keep_ttl: bool = False,
        return_old: bool = False,
        durable: bool = False,
    ) -> Any: ...
    def _call(self, opcode: int, args: tuple[Any, ...], missing: Any = None, shape: Any = None) -> Any: ...
    def _wait(self, opcode: int, args: tuple[Any, ...], missing: Any = None, shape: Any = None) -> Any: ...
    def _watch(self, args: tuple[Any, ...]) -> Watch: ...
    def _run(self, queue: Queue, atomic: bool) -> list[Any]: ...
    def _ready(self, result: Any) -> Any: ...
    @property
    def _fallback(self) -> Any: ...
    @property
    def _may_block(self) -> bool: ...
    @property
    def _engine(self) -> Engine: ...

@final
class RemoteWatch:
    def next(self, timeout: float | None = None) -> Any: ...
    def close(self) -> None: ...

@disjoint_base
class Remote:
    def __new__(
        cls,
        target: tuple[str, int] | str,
        *,
        namespace: str | None = None,
        password: str | None = None,
        max_connections: int = 50,
        pool_timeout: float = 5.0,
        connect_timeout: float = 5.0,
        timeout: float | None = ...,
        cooperative: bool = False,
        fallback: Any = None,
    ) -> Self: ...
    def close(self) -> None: ...
    def __getitem__(self, key: str, /) -> Any: ...
    def __setitem__(self, key: str, value: Any, /) -> None: ...
    def __delitem__(self, key: str, /) -> None: ...
    def __contains__(self, key: object, /) -> bool: ...
    def __len__(self) -> int: ...
    def get(self, key: str, default: Any = None) -> Any: ...
    def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | timedelta | None = None,
        nx: bool = False,
        xx: bool = False,
        keep_ttl: bool = False,
        return_old: bool = False,
        durable: bool = False,
    ) -> Any: ...
    def _call(self, opcode: int, args: tuple[Any, ...], missing: Any = None, shape: Any = None) -> Any: ...
    def _wait(self, opcode: int, args: tuple[Any, ...], missing: Any = None, shape: Any = None) -> Any: ...
    def _watch(self, args: tuple[Any, ...]) -> RemoteWatch: ...
    def _run(self, queue: Queue, atomic: bool) -> list[Any]: ...
    def _ready(self, result: Any) -> Any: ...
    @property
    def _fallback(self) -> Any: ...
    @property
    def _connections(self) -> tuple[int, int]: ...

@final
class Ready:
    def __new__(cls, result: Any, failed: bool = False) -> Self: ...
    def __await__(self) -> Any: ...
    def __iter__(self) -> Any: ...
    def __next__(self) -> Any: ...

@final
class Bell:
    def __new__(cls, store: Embedded) -> Self: ...
    def fileno(self) -> int: ...
    def wait(
        self, future: Any, opcode: int, args: tuple[Any, ...], missing: Any = None, shape: Any = None
    ) -> int: ...
    def defer(self, future: Any, deferred: Deferred) -> None: ...
    def cancel(self, token: int) -> None: ...
    def watch(self, put: Callable[[Any], None], args: tuple[Any, ...]) -> int: ...
    def unwatch(self, number: int) -> None: ...
    def close(self) -> None: ...
    def drain(self) -> None: ...

class Blocked(Exception): ...

@final
class Deferred: ...

@disjoint_base
class AsyncRemote:
    def __new__(
        cls,
        *,
        namespace: str | None = None,
        password: str | None = None,
        timeout: float | None = ...,
        fallback: Any = None,
        event_loop: Any = None,
    ) -> Self: ...
    def get(self, key: str, default: Any = None) -> Awaitable[Any]: ...
    def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | timedelta | None = None,
        nx: bool = False,
        xx: bool = False,
        keep_ttl: bool = False,
        return_old: bool = False,
        durable: bool = False,
    ) -> Awaitable[Any]: ...
    def _call(
        self, opcode: int, args: tuple[Any, ...], missing: Any = None, shape: Any = None
    ) -> Awaitable[Any]: ...
    def _wait(
        self, opcode: int, args: tuple[Any, ...], missing: Any = None, shape: Any = None
    ) -> Awaitable[Any]: ...
    def _watch(self, args: tuple[Any, ...], put: Callable[[Any], None]) -> Awaitable[int]: ...
    def _run(self, queue: Queue, atomic: bool) -> Awaitable[list[Any]]: ...
    def _ready(self, result: Any) -> Awaitable[Any]: ...
    @property
    def _fallback(self) -> Any: ...
    def _flush(self) -> None: ...
    def _failed(self, error: BaseException) -> None: ...
    def _tick(self) -> None: ...
    def _close(self) -> None: ...
    def connection_made(self, transport: Any) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, error: Exception | None) -> None: ...

@disjoint_base
class Queue:
    def __new__(cls, fallback: Any = None) -> Self: ...
    def __len__(self) -> int: ...
    def reset(self) -> None: ...
    def get(self, key: str, default: Any = None) -> Self: ...
    def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | timedelta | None = None,
        nx: bool = False,
        xx: bool = False,
        keep_ttl: bool = False,
        return_old: bool = False,
        durable: bool = False,
    ) -> Self: ...
    def _call(self, opcode: int, args: tuple[Any, ...], missing: Any = None, shape: Any = None) -> Self: ...
    def _ready(self, result: Any) -> Self: ...

class opcode:
    DURABLY: Final[int]
    GET: Final[int]
    SET: Final[int]
    SETEX: Final[int]
    PSETEX: Final[int]
    SETNX: Final[int]
    GETSET: Final[int]
    GETDEL: Final[int]
    GETEX: Final[int]
    MGET: Final[int]
    MSET: Final[int]
    MSETNX: Final[int]
    APPEND: Final[int]
    STRLEN: Final[int]
    GETRANGE: Final[int]
    SETRANGE: Final[int]
    SUBSTR: Final[int]
    KV_GET: Final[int]
    KV_SET: Final[int]
    KV_MGET: Final[int]
    KV_MSET: Final[int]
    KV_POP: Final[int]
    GETBIT: Final[int]
    SETBIT: Final[int]
    BITCOUNT: Final[int]
    BITPOS: Final[int]
    INCR: Final[int]
    DECR: Final[int]
    INCRBY: Final[int]
    DECRBY: Final[int]
    INCRBYFLOAT: Final[int]
    KV_INCR: Final[int]
    KV_DECR: Final[int]
    DEL: Final[int]
    UNLINK: Final[int]
    EXISTS: Final[int]
    EXPIRE: Final[int]
    PEXPIRE: Final[int]
    EXPIREAT: Final[int]
    PEXPIREAT: Final[int]
    TTL: Final[int]
    PTTL: Final[int]
    EXPIRETIME: Final[int]
    PEXPIRETIME: Final[int]
    PERSIST: Final[int]
    TYPE: Final[int]
    KV_KIND: Final[int]
    RENAME: Final[int]
    RENAMENX: Final[int]
    SCAN: Final[int]
    KEYS: Final[int]
    RANDOMKEY: Final[int]
    DBSIZE: Final[int]
    KV_SYNC: Final[int]
    KV_SNAPSHOT: Final[int]
    KV_DURABLE: Final[int]
    WAITAOF: Final[int]
    COPY: Final[int]
    TOUCH: Final[int]
    FLUSHDB: Final[int]
    FLUSHALL: Final[int]
    KV_CLEAR: Final[int]
    MEMORY: Final[int]
    LPUSH: Final[int]
    RPUSH: Final[int]
    LPUSHX: Final[int]
    RPUSHX: Final[int]
    LPOP: Final[int]
    RPOP: Final[int]
    LINDEX: Final[int]
    LRANGE: Final[int]
    LLEN: Final[int]
    LSET: Final[int]
    LREM: Final[int]
    LTRIM: Final[int]
    LINSERT: Final[int]
    KV_LINSERT: Final[int]
    KV_LREMOVE: Final[int]
    LPOS: Final[int]
    LMOVE: Final[int]
    RPOPLPUSH: Final[int]
    BLPOP: Final[int]
    BRPOP: Final[int]
    LMPOP: Final[int]
    BLMPOP: Final[int]
    BLMOVE: Final[int]
    BRPOPLPUSH: Final[int]
    SADD: Final[int]
    SREM: Final[int]
    SISMEMBER: Final[int]
    SMISMEMBER: Final[int]
    SMEMBERS: Final[int]
    SCARD: Final[int]
    SPOP: Final[int]
    SRANDMEMBER: Final[int]
    SSCAN: Final[int]
    SMOVE: Final[int]
    SINTER: Final[int]
    SUNION: Final[int]
    SDIFF: Final[int]
    SINTERSTORE: Final[int]
    SUNIONSTORE: Final[int]
    SDIFFSTORE: Final[int]
    SINTERCARD: Final[int]
    HSET: Final[int]
    HMSET: Final[int]
    HSETNX: Final[int]
    KV_HSETDEFAULT: Final[int]
    HGET: Final[int]
    HMGET: Final[int]
    HDEL: Final[int]
    KV_HPOP: Final[int]
    HGETALL: Final[int]
    HKEYS: Final[int]
    HVALS: Final[int]
    HLEN: Final[int]
    HEXISTS: Final[int]
    HINCRBY: Final[int]
    HINCRBYFLOAT: Final[int]
    KV_HINCR: Final[int]
    HSTRLEN: Final[int]
    HRANDFIELD: Final[int]
    HSCAN: Final[int]
    ZADD: Final[int]
    ZINCRBY: Final[int]
    ZREM: Final[int]
    ZSCORE: Final[int]
    ZMSCORE: Final[int]
    ZCARD: Final[int]
    ZCOUNT: Final[int]
    ZRANK: Final[int]
    ZREVRANK: Final[int]
    ZRANGE: Final[int]
    ZREVRANGE: Final[int]
    ZRANGEBYSCORE: Final[int]
    ZREVRANGEBYSCORE: Final[int]
    ZREMRANGEBYRANK: Final[int]
    ZREMRANGEBYSCORE: Final[int]
    ZPOPMIN: Final[int]
    ZPOPMAX: Final[int]
    ZRANDMEMBER: Final[int]
    ZSCAN: Final[int]
    ZLEXCOUNT: Final[int]
    ZRANGEBYLEX: Final[int]
    ZREVRANGEBYLEX: Final[int]
    ZREMRANGEBYLEX: Final[int]
    ZRANGESTORE: Final[int]
    BZPOPMIN: Final[int]
    BZPOPMAX: Final[int]
    ZMPOP: Final[int]
    BZMPOP: Final[int]
    KV_CAS: Final[int]
    KV_CAD: Final[int]
    KV_GETV: Final[int]
    KV_SETV: Final[int]
    KV_DELV: Final[int]
    KV_TRANSITION: Final[int]
    KV_WAIT: Final[int]
    KV_WATCH: Final[int]
    KV_UNWATCH: Final[int]
    ZUNION: Final[int]
    ZINTER: Final[int]
    ZDIFF: Final[int]
    ZUNIONSTORE: Final[int]
    ZINTERSTORE: Final[int]
    ZDIFFSTORE: Final[int]
    ZINTERCARD: Final[int]
    PING: Final[int]
    ECHO: Final[int]
    HELLO: Final[int]
    AUTH: Final[int]
    SELECT: Final[int]
    CLIENT: Final[int]
    COMMAND: Final[int]
    INFO: Final[int]
    CONFIG: Final[int]
    QUIT: Final[int]
    RESET: Final[int]
    TIME: Final[int]
    MULTI: Final[int]
    EXEC: Final[int]
    DISCARD: Final[int]
    WATCH: Final[int]
    UNWATCH: Final[int]
    KV_TYPED: Final[int]
    KV_ATOMIC: Final[int]
    KV_CANCEL: Final[int]
