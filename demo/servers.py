"""The servers of the demo: ours with the demo's namespaces, and a real Redis where one is installed.

Both listen on free ports of the loopback interface and end with the demo.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.servers import ROOT, Kind, Running, existing, free_port, on_path, redis_arguments, started

MEMORY = "1GiB"
STEPS = "->PENDING, PENDING->STARTED, STARTED->SUCCESS|FAILURE"
"""What a task of the demo may do; everything else is refused, whoever asks."""
SETTINGS = f"""
max_memory = "{MEMORY}"
drain_delay = 0

[namespaces.tasks]
transitions = "{STEPS}"
"""


class MissingServerError(Exception):
    """Our own server is not there or does not start; says what to do."""


@dataclass(frozen=True)
class Servers:
    """Where they answer. `redis_how` says what the Redis is, or why there is none."""

    port: int
    pid: int
    redis_port: int | None
    redis_how: str

    def url(self, namespace: str) -> str:
        """A namespace of our server."""
        return f"kv://127.0.0.1:{self.port}/{namespace}"

    @property
    def peer_port(self) -> int:
        """Where redis-py is measured: Redis, without one our server."""
        return self.port if self.redis_port is None else self.redis_port

    @property
    def peer(self) -> str:
        """What redis-py talks to."""
        return "redis-server" if self.redis_port else "our server (no redis-server installed)"


@contextmanager
def running() -> Iterator[Servers]:
    """Both servers for as long as the demo runs."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "demo.toml"
        settings.write_text(SETTINGS)
        with started(ours(settings)) as our, started(REDIS) as redis:
            if isinstance(our, str):
                raise MissingServerError(f"no server of ours: {our}. Remedy: make build")
            if isinstance(redis, Running):
                yield Servers(our.port, our.pid, redis.port, redis.how)
            else:
                yield Servers(our.port, our.pid, None, redis)


def ours(settings: Path) -> Kind:
    """Our server with the demo's settings."""

    def arguments(port: int) -> list[str]:
        addresses = ["--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{free_port()}"]
        return ["serve", *addresses, "--config", str(settings)]

    binary = ROOT / "target" / "release" / "data-bridge-kv"
    return Kind("data-bridge-kv", lambda: existing(binary), arguments, "not built")


REDIS = Kind("redis-server", on_path("redis-server"), redis_arguments, "apt-get install redis-server")
