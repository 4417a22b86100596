"""What the methods of every family stand on."""

from __future__ import annotations

from typing import Any, Self


class QueuedBase:
    """Carries out commands; the native classes do."""

    __slots__ = ()

    def _call(
        self,
        opcode: int,
        args: tuple[Any, ...],
        missing: Any = None,
        shape: Any = None,
    ) -> Self:
        """Runs one command. `missing` stands for no such key; `shape` is a function that makes the
        result of the reply, or `...` for (kind, member) pairs."""
        raise NotImplementedError

    def _ready(self, result: Any) -> Self:
        """A result that needs no command."""
        raise NotImplementedError
