"""The tasks of the storm with Taskiq: messages in a list of Redis, results in the store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from typing import Any

import redis.asyncio
from data_bridge.kv.taskiq import ResultBackend
from events import note
from taskiq import AsyncBroker, BrokerMessage, TaskiqMessage, TaskiqMiddleware

QUEUE = "taskiq-storm"


class ListBroker(AsyncBroker):
    """Messages in a list of Redis."""

    def __init__(self) -> None:
        super().__init__()
        self.redis = redis.asyncio.from_url(os.environ["BROKER"])

    async def kick(self, message: BrokerMessage) -> None:
        """Sends a message."""
        await self.redis.rpush(QUEUE, message.message)

    async def listen(self) -> AsyncGenerator[bytes, None]:
        """Takes messages as they come."""
        while True:
            taken: Any = await self.redis.blpop([QUEUE], timeout=1)
            if taken is not None:
                yield taken[1]

    async def shutdown(self) -> None:
        """Ends the connections."""
        await super().shutdown()
        await self.redis.aclose()


class Notes(TaskiqMiddleware):
    """Tells which tasks began."""

    def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """A task begins."""
        note("ran", message.task_id, message.task_name, 0)
        return message


broker: Any = ListBroker().with_result_backend(ResultBackend(os.environ["BACKEND"])).with_middlewares(Notes())


@broker.task
async def add(x: int, y: int) -> int:
    """A number."""
    await asyncio.sleep(float(os.environ.get("REST", "0")))
    return x + y


@broker.task
async def refuse() -> None:
    """Fails."""
    raise ValueError("too much")
