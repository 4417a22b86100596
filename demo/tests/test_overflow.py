"""Tests of the comparison after cold reads: each thing that may differ is found, also in the lines beside a flight."""

import csv
from typing import Any

import pytest

from demo.overflow import LINES, Beside, percentiles
from demo.source import FLIGHTS, MISSING_TEXT, READERS, Record

LINE = "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"
TEXTS = next(csv.reader([LINE]))
WEATHER = [f"EWR,2013,1,1,{hour},39.02" for hour in range(3)]
BESIDE = Beside(
    planes={"N14228": "N14228,1999,BOEING"},
    airports={"EWR": "EWR,Newark Liberty Intl", "IAH": "IAH,George Bush Intercontinental"},
    weather={("EWR", "2013", "1", "1"): WEATHER},
)


@pytest.fixture
def flight() -> Record:
    """The row as it should come back."""
    row: Record = {
        name: None if text == MISSING_TEXT else READERS[kind](text)
        for (name, kind), text in zip(FLIGHTS.columns.items(), TEXTS, strict=True)
    }
    return {**row, LINES: BESIDE.of(row)}


def test_a_flight_has_its_lines(flight: Record) -> None:
    assert flight[LINES] == [BESIDE.planes["N14228"], *BESIDE.airports.values(), *WEATHER]
    newark = BESIDE.airports["EWR"]
    assert BESIDE.of({**flight, "tailnum": None, "dest": "BQN", "day": 2}) == [None, newark, None]


def test_what_came_back_whole_is_the_same(flight: Record) -> None:
    assert BESIDE.differences(TEXTS, flight) == []


@pytest.mark.parametrize(
    ("name", "value"), [("distance", 1400.0), ("tailnum", None), ("flight", "1545"), (LINES, None)]
)
def test_another_value_is_a_difference(flight: Record, name: str, value: object) -> None:
    assert len(BESIDE.differences(TEXTS, {**flight, name: value})) == 1


@pytest.mark.parametrize("lines", [[], ["N14228,1999,BOEING", None, None, *WEATHER], (), "EWR"])
def test_other_lines_are_a_difference(flight: Record, lines: Any) -> None:
    assert len(BESIDE.differences(TEXTS, {**flight, LINES: lines})) == 1


@pytest.mark.parametrize("found", [None, [], {}, "row"])
def test_no_row_is_a_difference(found: object) -> None:
    assert BESIDE.differences(TEXTS, found)


def test_percentiles_are_milliseconds() -> None:
    assert percentiles([number / 1000 for number in range(101)]) == "50.00, 99.00, 100.00"
