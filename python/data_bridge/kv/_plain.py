"""Values that a framework hands over: subclasses of builtins become the builtins that a store takes."""

from __future__ import annotations

from typing import Any

CONTAINERS: tuple[Any, ...] = (list, tuple, set, frozenset)
SCALARS: tuple[tuple[type, Any], ...] = (
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
    (bytes, bytes.__bytes__),
)
"""How to get at the builtin in a member of a subclass, whatever that makes of `str()`: an enum shows its name there."""
DEEPEST = 32
"""How deep a stored value can be."""


def plain(value: Any, depth: int = 0) -> Any:
    """The value with subclasses of builtins as the builtins: a namedtuple is a tuple, an OrderedDict a dict."""
    if depth > DEEPEST:
        return value
    if isinstance(value, dict):
        return {plain(key, depth + 1): plain(item, depth + 1) for key, item in value.items()}
    for base in CONTAINERS:
        if isinstance(value, base):
            return base(plain(item, depth + 1) for item in value)
    for base, of in SCALARS:
        if isinstance(value, base) and not isinstance(value, bool):
            return of(value)
    return value
