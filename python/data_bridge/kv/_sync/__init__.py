"""The methods of a store, one class per family. Each method says which command with which arguments it is and what the
reply becomes; how a command travels is the business of the class that inherits them.

`scripts/derive-commands` makes from these files the awaitable methods of `_async` and the queued ones of `_queued`.
"""

from data_bridge.kv._sync.hash import HashCommands
from data_bridge.kv._sync.key import KeyCommands
from data_bridge.kv._sync.list import ListCommands
from data_bridge.kv._sync.number import NumberCommands
from data_bridge.kv._sync.set import SetCommands
from data_bridge.kv._sync.state import StateCommands
from data_bridge.kv._sync.text import TextCommands
from data_bridge.kv._sync.zset import SortedSetCommands


class Commands(
    KeyCommands,
    NumberCommands,
    StateCommands,
    TextCommands,
    HashCommands,
    ListCommands,
    SetCommands,
    SortedSetCommands,
):
    """Every method that is one command."""

    __slots__ = ()
