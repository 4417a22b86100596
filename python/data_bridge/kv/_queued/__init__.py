"""The methods of a store, one class per family. Each method says which command with which arguments it is and what the
reply becomes; how a command travels is the business of the class that inherits them.

This folder is derived:
`scripts/derive-commands` makes from these files the awaitable methods of `_async` and the queued ones of `_queued`.
"""

from data_bridge.kv._queued.hash import QueuedHashCommands
from data_bridge.kv._queued.key import QueuedKeyCommands
from data_bridge.kv._queued.list import QueuedListCommands
from data_bridge.kv._queued.number import QueuedNumberCommands
from data_bridge.kv._queued.set import QueuedSetCommands
from data_bridge.kv._queued.state import QueuedStateCommands
from data_bridge.kv._queued.text import QueuedTextCommands
from data_bridge.kv._queued.zset import QueuedSortedSetCommands


class QueuedCommands(
    QueuedKeyCommands,
    QueuedNumberCommands,
    QueuedStateCommands,
    QueuedTextCommands,
    QueuedHashCommands,
    QueuedListCommands,
    QueuedSetCommands,
    QueuedSortedSetCommands,
):
    """Every method that is one command."""

    __slots__ = ()
