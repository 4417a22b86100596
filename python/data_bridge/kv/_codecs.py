"""Codecs of a program's own classes: enums, dataclasses and pydantic models, stored by name with typed fields."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from data_bridge import _native as native

C = TypeVar("C", bound=type)


class Fallback(Protocol):
    """A codec for objects that nothing else takes, given as `fallback=`. Its bytes are stored as Opaque."""

    name: str

    def encode(self, value: Any, /) -> bytes:
        """The bytes of an object."""
        ...

    def decode(self, data: bytes, /) -> Any:
        """The object of bytes."""
        ...


def register(
    cls: C,
    name: str | None = None,
    *,
    encode: Callable[[Any], Any] | None = None,
    decode: Callable[[Any], Any] | None = None,
) -> C:
    """Stores instances of exactly this class as `Tagged(name, ...)` and reads them back; also a class decorator.

    Enums, dataclasses and pydantic models need no functions: an enum is stored as its value, the others as a dict of
    their fields. For any other class `encode` gives a plain value and `decode` makes an object of it. `name` defaults
    to the class's qualified name; a reader without the codec gets `kv.Tagged`.

    >>> from dataclasses import dataclass
    >>> from data_bridge import kv
    >>> @kv.register
    ... @dataclass
    ... class Point:
    ...     x: int
    ...     y: int
    >>> store = kv.open()
    >>> store["p"] = Point(1, 2)
    >>> store["p"]
    Point(x=1, y=2)
    """
    if encode is None or decode is None:
        own_encode, own_decode = _of_class(cls)
        encode, decode = encode or own_encode, decode or own_decode
    native.register(cls, name or cls.__qualname__, encode, decode)
    return cls


def _of_class(cls: type) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    if issubclass(cls, enum.Enum):
        return _enum_value, cls
    if dataclasses.is_dataclass(cls):
        names = [field.name for field in dataclasses.fields(cls)]
        later = [field.name for field in dataclasses.fields(cls) if not field.init]
        return _reader_of(names), _dataclass_builder(cls, later)
    fields = getattr(cls, "model_fields", None)
    validate = getattr(cls, "model_validate", None)
    if fields is not None and validate is not None:
        return _reader_of(list(fields)), validate
    raise TypeError(f"{cls.__name__} is no enum, dataclass or pydantic model: give encode and decode")


def _enum_value(member: Any) -> Any:
    return member.value


def _reader_of(names: list[str]) -> Callable[[Any], dict[str, Any]]:
    def read(value: Any) -> dict[str, Any]:
        return {name: getattr(value, name) for name in names}

    return read


def _dataclass_builder(cls: type, later: list[str]) -> Callable[[dict[str, Any]], Any]:
    def build(fields: dict[str, Any]) -> Any:
        rest = [(name, fields[name]) for name in later if name in fields]
        value = cls(**{name: field for name, field in fields.items() if name not in later})
        for name, field in rest:
            object.__setattr__(value, name, field)
        return value

    return build
