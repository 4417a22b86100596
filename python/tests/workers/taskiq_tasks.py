"""The tasks of the tests with real Taskiq workers, and a broker on a list of the store."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from decimal import Decimal
from typing import Annotated, Any

from data_bridge import kv
from data_bridge.kv.taskiq import ResultBackend, Schedules
from taskiq import AsyncBroker, BrokerMessage, TaskiqDepends, TaskiqScheduler
from taskiq.depends.progress_tracker import ProgressTracker, TaskState

URL = os.environ["BACKEND"]


class ListBroker(AsyncBroker):
    """Messages in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.client = kv.aio.connect(URL)

    async def kick(self, message: BrokerMessage) -> None:
        """Sends a message."""
        await self.client.rpush("messages", message.message)

    async def listen(self) -> AsyncGenerator[bytes, None]:
        """Takes messages as they come."""
        while True:
            taken = await self.client.lpop("messages")
            if taken is None:
                await self.client.wait("messages", until=kv.newer_than(0))
            else:
                yield taken

    async def shutdown(self) -> None:
        """Ends the connection."""
        await super().shutdown()
        await self.client.aclose()


broker = ListBroker().with_result_backend(ResultBackend(URL))
schedules = Schedules(URL)
scheduler = TaskiqScheduler(broker, [schedules])


@broker.task
async def add(x: int, y: int) -> int:
    """A number."""
    return x + y


@broker.task
async def echo(value: Any) -> Any:
    """What it got, with a Decimal and a tuple beside it."""
    return {"value": value, "price": Decimal("19.90"), "pair": (1, b"two")}


@broker.task
async def refuse() -> None:
    """Fails."""
    raise ValueError("too much", Decimal(3))


@broker.task
async def tells(tracker: Annotated[ProgressTracker[Any], TaskiqDepends()]) -> Any:
    """Says how far it is."""
    await tracker.set_progress(TaskState.STARTED, {"step": Decimal("0.5")})
    progress = await tracker.get_progress()
    return None if progress is None else progress.meta
