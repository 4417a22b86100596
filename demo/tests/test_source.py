"""Tests of the second way from text to types: each kind of difference is found."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from demo.source import FLIGHTS, PRICES, READERS, Kind, is_same

TEXTS: dict[Kind, str] = {
    "int": "-5",
    "text": "N14228",
    "money": "39.80",
    "day": "Jan 1 2000",
    "instant": "2013-01-01T10:00:00Z",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_what_was_read_is_the_same(kind: Kind) -> None:
    assert is_same(kind, TEXTS[kind], READERS[kind](TEXTS[kind]))
    assert is_same(kind, "NA", None)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", -5.0),
        ("int", "-5"),
        ("int", None),
        ("int", Decimal(-5)),
        ("text", b"N14228"),
        ("text", "N14229"),
        ("money", 39.80),
        ("money", Decimal("39.8")),
        ("money", "39.80"),
        ("day", "Jan 1 2000"),
        ("day", datetime(2000, 1, 1)),
        ("day", date(2000, 1, 2)),
        ("instant", "2013-01-01T10:00:00Z"),
        ("instant", datetime(2013, 1, 1, 10)),
        ("instant", datetime(2013, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))),
        ("instant", datetime(2013, 1, 1, 10, 0, 0, 1, tzinfo=UTC)),
    ],
)
def test_another_value_or_type_is_a_difference(kind: Kind, value: object) -> None:
    assert is_same("instant", TEXTS["instant"], datetime(2013, 1, 1, 10, tzinfo=UTC))
    assert not is_same(kind, TEXTS[kind], value)


def test_a_true_is_no_one() -> None:
    assert not is_same("int", "1", True)


def test_columns_and_their_order_count() -> None:
    record: dict[str, Any] = {"symbol": "MSFT", "date": date(2000, 1, 1), "price": Decimal("39.81")}
    texts = ["MSFT", "Jan 1 2000", "39.81"]
    assert PRICES.differences(texts, record) == []
    assert PRICES.differences(texts, record | {"price": 39.81}) == ["price: '39.81' came back as 39.81"]
    assert PRICES.differences(texts, None)
    assert PRICES.differences(texts, dict(reversed(record.items())))
    assert FLIGHTS.differences(texts, record)
