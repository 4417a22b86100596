"""Every kind of value comes back as what it was, through both doors; what can't is refused with its path."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import enum
import functools
import math
import sys
import uuid
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pydantic
import pytest
from data_bridge import _native, kv
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LIMIT = 16 << 20
"""Elements of a value, on all levels."""
ZONES = [ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("UTC"), ZoneInfo("Asia/Kathmandu")]

offsets = st.timedeltas(dt.timedelta(hours=-23, minutes=-59), dt.timedelta(hours=23, minutes=59)).map(
    dt.timezone
)
moments = st.builds(
    lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold),
    st.datetimes(dt.datetime(2, 1, 1), dt.datetime(9998, 12, 31)),
    st.none() | offsets | st.sampled_from(ZONES) | st.just(dt.UTC),
    st.sampled_from([0, 1]),
)
times = st.builds(
    lambda time, zone, fold: time.replace(tzinfo=zone, fold=fold),
    st.times(),
    st.none() | offsets | st.sampled_from(ZONES),
    st.sampled_from([0, 1]),
)
decimals = st.builds(
    lambda sign, digits, exponent: Decimal((sign, digits, exponent)),
    st.sampled_from([0, 1]),
    st.lists(st.integers(0, 9), min_size=1, max_size=38).map(tuple),
    st.integers(-32768, 32767),
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False)
    | decimals
    | st.text()
    | st.binary()
    | moments
    | st.dates()
    | times
    | st.timedeltas()
    | st.uuids()
)
# Members of one kind: mixed ones may be equal in Python or one identity in the store.
members = st.integers() | st.text() | st.uuids() | st.tuples(st.integers(), st.text())
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(members, inner, max_size=4)
        | st.sets(members, max_size=4)
        | st.frozensets(members, max_size=4)
    ),
    max_leaves=12,
)


def same(left: Any, right: Any) -> bool:
    """Equal in value, type, sign of zero, digits of a Decimal, zone and fold."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return math.copysign(1, left) == math.copysign(1, right) and bool(left == right)
    if isinstance(left, Decimal):
        return bool(left.as_tuple() == right.as_tuple())
    if isinstance(left, (dt.datetime, dt.time)):
        fields = (left.replace(tzinfo=None), left.fold, left.tzinfo)
        return bool(fields == (right.replace(tzinfo=None), right.fold, right.tzinfo))
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return all(map(same, left.items(), right.items())) and len(left) == len(right)
    return bool(left == right)


@settings(max_examples=300, deadline=None)
@given(values)
def test_bytes_come_back(value: Any) -> None:
    assert same(_native.decode(_native.encode(value)), value)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=values)
def test_stored_values_come_back(store: kv.Store, value: Any) -> None:
    store["value"] = value
    assert same(store["value"], value)
    assert same(store.pop("value"), value)


@settings(max_examples=200, deadline=None)
@given(decimals)
def test_decimals_keep_every_digit(number: Decimal) -> None:
    assert _native.decode(_native.encode(number)).as_tuple() == number.as_tuple()


EDGES: list[Any] = [
    2**63 - 1,
    -(2**63),
    2**63,
    -(2**63) - 1,
    10**9000,
    -0.0,
    math.inf,
    5e-324,
    Decimal("-0"),
    Decimal("0E-7"),
    Decimal("9" * 38),
    dt.datetime.min,
    dt.datetime.max,
    dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    dt.time(1, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    dt.timedelta.min,
    dt.timedelta.max,
    dt.date.max,
    "",
    b"",
    [],
    {},
    set(),
    frozenset({(1, (2, frozenset({"a"})))}),
    {1: "int", "1": "str", b"one": "bytes", (1,): "tuple", None: "none"},
    {"b": 1, "a": 2},
]


@pytest.mark.parametrize("value", EDGES, ids=lambda value: type(value).__name__)
def test_edges(store: kv.Store, value: Any) -> None:
    store["edge"] = value
    assert same(store["edge"], value)


def test_nan_keeps_its_bits(store: kv.Store) -> None:
    store["nan"] = math.nan
    assert math.isnan(store["nan"])


class Color(enum.IntEnum):
    RED = 1


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth - 1):
        value = [value]
    return value


def cyclic() -> list[Any]:
    value: list[Any] = []
    value.append([value, value])
    return value


class Unknown(dt.tzinfo):
    """A zone without a name that knows its offset only with a date."""

    def utcoffset(self, _moment: dt.datetime | None) -> None:
        return None

    def dst(self, moment: dt.datetime | None) -> None:
        return None

    def tzname(self, moment: dt.datetime | None) -> None:
        return None


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (
        object(),
        TypeError,
        r"value: object of type object: convert it, register .* kv\.register, .* fallback=",
    ),
    ({"rows": [1, {"x": object()}]}, TypeError, r"value\['rows'\]\[1\]\['x'\]: object of type object"),
    ([{1, frozenset({object()})}], TypeError, r"value\[0\]\{"),
    (Color.RED, TypeError, "object of type Color"),
    (OrderedDict(), TypeError, "OrderedDict"),
    (bytearray(b"x"), TypeError, "bytearray"),
    (1j, TypeError, "complex"),
    (Decimal("NaN"), ValueError, "NaN"),
    (Decimal("-Infinity"), ValueError, "infinities"),
    (Decimal("1" * 39), OverflowError, "38"),
    (Decimal("1E+32768"), OverflowError, "exponent"),
    (1 << 40_000, OverflowError, "bits"),
    ("\ud800", ValueError, "surrogate"),
    (cyclic(), TypeError, "32 deep"),
    (nested(33), TypeError, "32 deep"),
    ({"a", b"a"}, TypeError, "one member"),
    (dt.time(1, tzinfo=Unknown()), TypeError, "time zone"),
    (kv.MISSING, TypeError, "MissingType"),
]


@pytest.mark.parametrize(("value", "error", "message"), REFUSED, ids=lambda value: type(value).__name__)
def test_refused(store: kv.Store, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        store["refused"] = value
    assert isinstance(raised.value, kv.KvError)
    assert "refused" not in store


@pytest.mark.parametrize("value", ["\ud800 no UTF-8", object()])
def test_a_refused_value_is_let_go_of(value: kv.Value) -> None:
    """An embedded `set` kept the error, and the value in it, until another method was called."""
    with kv.open() as store:
        before = sys.getrefcount(value)
        for _ in range(10):
            with contextlib.suppress(ValueError, TypeError):
                store.set("key", value)
        assert sys.getrefcount(value) == before


def test_depth_32_is_taken() -> None:
    assert _native.decode(_native.encode(nested(32))) == nested(32)


def deep_tuple(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth - 1):
        value = (value,)
    return value


DEEPENED: dict[str, Callable[[Any, int], object]] = {
    "rpush": lambda store, depth: store.rpush("k", nested(depth)),
    "lset": lambda store, depth: store.lset("list", 0, nested(depth)),
    "linsert": lambda store, depth: store.linsert("list", "before", 1, nested(depth)),
    "append": lambda store, depth: store.as_list("list").append(nested(depth)),
    "insert": lambda store, depth: store.as_list("k").insert(0, nested(depth)),
    "hset": lambda store, depth: store.hset("k", "field", nested(depth)),
    "field": lambda store, depth: store.hset("k", deep_tuple(depth), 1),
    "setdefault": lambda store, depth: store.as_hash("k").setdefault("field", nested(depth)),
    "sadd": lambda store, depth: store.sadd("k", deep_tuple(depth)),
    "zadd": lambda store, depth: store.zadd("k", {deep_tuple(depth): 1}),
    "update": lambda store, depth: store.transition(
        "k", expect=kv.MISSING, to="A", update={"field": nested(depth)}
    ),
    "state": lambda store, depth: store.transition("k", expect=kv.MISSING, to=deep_tuple(depth)),
}


@pytest.mark.parametrize("command", DEEPENED)
def test_a_part_is_one_level_less_deep(store: kv.Store, command: str) -> None:
    store["list"] = [1]
    with pytest.raises(kv.UnsupportedValueError, match="32 deep"):
        DEEPENED[command](store, 32)
    assert ("k" in store, store["list"]) == (False, [1])
    DEEPENED[command](store, 31)
    for key in list(store):  # what is stored can be read, and written again
        store[key] = store[key] if store.kind(key) != "sortedset" else [store[key][0][0]]


def test_what_has_too_many_elements_is_refused() -> None:
    for value in ([None] * (LIMIT + 1), [[None] * (LIMIT // 2)] * 2):
        with pytest.raises(ValueError, match="too many elements"):
            _native.encode(value)


@pytest.mark.parametrize(
    "value",
    [
        {("a", 1): 1, (b"a", 1): 2},
        {("a", 1), (b"a", 1)},
        [{frozenset(["a"]), frozenset([b"a"])}],
    ],
)
def test_members_that_are_one_in_the_store(store: kv.Store, value: Any) -> None:
    with pytest.raises(kv.UnsupportedValueError, match="twice"):
        store["k"] = value
    assert "k" not in store


def test_members_that_collide_in_python(store: kv.Store) -> None:
    assert store.sadd("members", 1, True, 1.0, Decimal("1.0")) == 4
    for read in (lambda: store["members"], lambda: store.smembers("members")):
        with pytest.raises(kv.UnsupportedValueError, match="items_typed"):
            read()
    kinds = sorted(kind for kind, _ in store.as_set("members").items_typed())
    assert kinds == ["bool", "decimal", "float", "int"]
    store.hset("fields", mapping={1: "int"})
    store.hset("fields", True, "bool")
    assert sorted(store.as_hash("fields").items_typed()) == [("bool", True, "bool"), ("int", 1, "int")]


def test_tagged_values(store: kv.Store) -> None:
    @dataclasses.dataclass
    class Point:
        x: int
        y: Decimal
        length: float = dataclasses.field(init=False, default=0.5)

    class Paint(enum.Enum):
        BLUE = "blue"

    point = [Point(1, Decimal("2.50")), Paint.BLUE]
    with pytest.raises(TypeError, match="object of type Point"):
        store["point"] = point
    kv.register(Point, "Point")
    kv.register(Paint, "Paint")
    store["point"] = point
    assert store["point"] == point
    store["other"] = kv.Tagged("unknown", {"a": 1})
    assert store["other"] == kv.Tagged("unknown", {"a": 1})


def test_pydantic_models(store: kv.Store) -> None:
    class Item(pydantic.BaseModel):
        name: str
        price: Decimal
        tags: frozenset[str] = frozenset()

    class Order(pydantic.BaseModel):
        number: int
        at: dt.datetime
        items: list[Item]
        note: str | None = None

    kv.register(Item, "Item")
    kv.register(Order, "Order")
    at = dt.datetime(2026, 3, 1, 12, 30, tzinfo=ZoneInfo("Europe/Vienna"))
    order = Order(
        number=2**70, at=at, items=[Item(name="tea", price=Decimal("4.50"), tags=frozenset({"hot"}))]
    )
    store["order"] = {"order": order, "all": [order]}
    read = store["order"]
    assert read == {"order": order, "all": [order]}
    assert type(read["order"].items[0]) is Item
    assert str(read["order"].items[0].price) == "4.50"
    assert read["order"].at.tzinfo == at.tzinfo


def test_pydantic_models_whose_fields_have_other_names_outside(store: kv.Store) -> None:
    class Named(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        user_id: int = pydantic.Field(alias="userId")
        place: str = pydantic.Field(validation_alias=pydantic.AliasPath("address", "place"))

    class Names(pydantic.RootModel[dict[str, list[int]]]):
        pass

    kv.register(Named, "Named")
    kv.register(Names, "Names")
    named = Named.model_validate({"userId": 1, "address": {"place": "Wien"}, "more": Decimal("1.10")})
    store["models"] = [named, Names({"a": [1]})]
    assert store["models"] == [named, Names({"a": [1]})]
    assert (store["models"][0].user_id, store["models"][0].model_extra) == (1, named.model_extra)


def test_dataclasses_come_back_as_they_were_stored(store: kv.Store) -> None:
    @dataclasses.dataclass(frozen=True, slots=True)
    class Price:
        net: Decimal
        taxed: bool = False
        rate: dataclasses.InitVar[Decimal] = Decimal("1.2")

        def __post_init__(self, rate: Decimal) -> None:
            object.__setattr__(self, "net", self.net * rate)

    @dataclasses.dataclass
    class Moved:
        at: int
        by: dataclasses.InitVar[int]

    kv.register(Price, "Price")
    store["price"] = price = Price(Decimal(10))
    assert (store["price"], price.net) == (price, Decimal("12.0"))
    with pytest.raises(TypeError, match=r"Moved is not made from its fields, .*'by': give encode and decode"):
        kv.register(Moved, "Moved")


def test_two_classes_have_two_names() -> None:
    first, again, other = (
        type("Twice", (), {"__module__": module}) for module in ("shop.a", "shop.a", "shop.b")
    )
    register = functools.partial(kv.register, encode=lambda _value: 1, decode=lambda value: value)
    register(first)
    register(again)  # a module that is loaded again
    with pytest.raises(ValueError, match=r"Twice of shop\.a is registered .* a name of its own"):
        register(other)
    register(other, "shop.b.Twice")


def test_fallback_codec(server: Any) -> None:
    class Complex:
        name = "complex"

        def encode(self, value: complex) -> bytes:
            return f"{value.real} {value.imag}".encode()

        def decode(self, data: bytes) -> complex:
            return complex(*map(float, data.split()))

    for opened in (kv.open(fallback=Complex()), kv.connect(server.url(), fallback=Complex())):
        opened["number"] = [1 + 2j]
        assert opened["number"] == [1 + 2j]
    assert kv.connect(server.url())["number"] == [kv.Opaque("complex", b"1.0 2.0")]


def test_numpy_scalars(store: kv.Store) -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is not among the development packages")
    for scalar, plain in [
        (numpy.int32(7), 7),
        (numpy.float32(0.5), 0.5),
        (numpy.bool_(True), True),
        (numpy.str_("x"), "x"),
    ]:
        store["scalar"] = scalar
        assert same(store["scalar"], plain)
    nothing = (numpy.datetime64("NaT"), numpy.timedelta64("NaT"))
    for refused in (numpy.datetime64("2026-01-01T00:00:00.000000001"), numpy.complex64(1), *nothing):
        with pytest.raises(TypeError):
            store["scalar"] = refused


def test_uuid_is_a_whole_one() -> None:
    value = uuid.uuid4()
    read = _native.decode(_native.encode(value))
    assert (read, hash(read), read.is_safe, str(read)) == (value, hash(value), value.is_safe, str(value))
