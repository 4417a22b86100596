"""The methods of a store, one class per family. Each method says which command with which arguments it is and what the
reply becomes; how a command travels is the business of the class that inherits them.

This folder is derived:
`scripts/derive-commands` makes from these files the awaitable methods of `_async` and the queued ones of `_queued`.
"""

from data_bridge.kv._async.hash import AsyncHashCommands
from data_bridge.kv._async.key import AsyncKeyCommands
from data_bridge.kv._async.list import AsyncListCommands
from data_bridge.kv._async.number import AsyncNumberCommands
from data_bridge.kv._async.set import AsyncSetCommands
from data_bridge.kv._async.state import AsyncStateCommands
from data_bridge.kv._async.text import AsyncTextCommands
from data_bridge.kv._async.zset import AsyncSortedSetCommands


class AsyncCommands(
    AsyncKeyCommands,
    AsyncNumberCommands,
    AsyncStateCommands,
    AsyncTextCommands,
    AsyncHashCommands,
    AsyncListCommands,
    AsyncSetCommands,
    AsyncSortedSetCommands,
):
    """Every method that is one command."""

    __slots__ = ()
