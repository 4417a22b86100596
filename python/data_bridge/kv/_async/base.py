"""What the methods of every family stand on."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any


class AsyncBase:
    """Carries out commands; the native classes do."""

    __slots__ = ()

    def _call(
        self,
        opcode: int,
        args: tuple[Any, ...],
        missing: Any = None,
        shape: Any = None,
    ) -> Awaitable[Any]:
        """Runs one command. `missing` stands for no such key; `shape` is a function that makes the
        result of the reply, or `...` for (kind, member) pairs."""
        raise NotImplementedError

    def _ready(self, result: Any) -> Awaitable[Any]:
        """A result that needs no command."""
        raise NotImplementedError
