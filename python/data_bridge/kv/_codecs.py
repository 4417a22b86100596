"""Codecs of a program's own classes: enums, dataclasses and pydantic models, stored by name with typed fields."""

from __future__ import annotations

import dataclasses
import enum
import inspect
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from data_bridge import _native as native

C = TypeVar("C", bound=type)
_MODULES: dict[str, str] = {}
"""Where the class of each registered name was defined."""


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
    their fields; a pydantic model is validated when it is read. For any other class `encode` gives a plain value and
    `decode` makes an object of it. `name` defaults to the class's qualified name, which must not be that of a class of
    another module; a reader without the codec gets `kv.Tagged`.

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
    if name is None:
        name = cls.__qualname__
        known = _MODULES.get(name, cls.__module__)
        if known != cls.__module__:
            raise ValueError(
                f"{name} of {known} is registered under this name too: give each a name of its own"
            )
    native.register(cls, name, encode, decode)
    _MODULES[name] = cls.__module__
    return cls


def _of_class(cls: type) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    if issubclass(cls, enum.Enum):
        return _enum_value, cls
    if dataclasses.is_dataclass(cls):
        return _dataclass_codec(cls)
    fields = getattr(cls, "model_fields", None)
    validate = getattr(cls, "model_validate", None)
    if fields is not None and validate is not None:
        return _model_codec(cls, list(fields), validate)
    raise TypeError(f"{cls.__name__} is no enum, dataclass or pydantic model: give encode and decode")


def _enum_value(member: Any) -> Any:
    return member.value


def _reader_of(names: list[str]) -> Callable[[Any], dict[str, Any]]:
    def read(value: Any) -> dict[str, Any]:
        return {name: getattr(value, name) for name in names}

    return read


def _dataclass_codec(cls: type) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    later = {field.name for field in dataclasses.fields(cls) if not field.init}
    names = [field.name for field in dataclasses.fields(cls)]
    try:
        inspect.signature(cls).bind(**{name: None for name in names if name not in later})
    except TypeError as error:
        raise TypeError(
            f"{cls.__name__} is not made from its fields, {error}: give encode and decode"
        ) from None

    def build(fields: dict[str, Any]) -> Any:
        value = cls(**{name: field for name, field in fields.items() if name not in later})
        for name, field in fields.items():
            # As it was stored, whatever __post_init__ made of it.
            object.__setattr__(value, name, field)
        return value

    return _reader_of(names), build


def _model_codec(
    cls: Any, names: list[str], validate: Callable[..., Any]
) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    if getattr(cls, "__pydantic_root_model__", False):
        return _root_of, validate
    read = _reader_of(names)
    by_name: dict[str, bool] = {}
    if "by_name" in inspect.signature(validate).parameters:
        # A field may have another name outside.
        by_name = {"by_alias": False, "by_name": True}

    def read_all(value: Any) -> dict[str, Any]:
        return {**read(value), **(value.model_extra or {})}

    def build(fields: dict[str, Any]) -> Any:
        return validate(fields, **by_name)

    return read_all, build


def _root_of(model: Any) -> Any:
    return model.root
