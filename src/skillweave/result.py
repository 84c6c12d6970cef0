"""What a measurement returns, and the one printer.

Every verb returns a frozen dataclass, a *report*. `show` prints it: as a table for people, or as one JSON object for programs.
A report may have `table() -> Table`, `next` (the command to try now, a string) and `exit_code` (an int); all are optional.
"""

import dataclasses
import json as jsonlib
import math
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval `[low, high]`, measured on `n` examples."""

    value: float
    low: float
    high: float
    n: int
    unit: str = ""

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return f"{number(self.value)}{unit} [{number(self.low)}, {number(self.high)}] n={self.n}"


@dataclass(frozen=True)
class Table:
    """Rows for people to read; every row has one cell a column."""

    columns: tuple[str, ...]
    rows: tuple[tuple, ...]
    title: str = ""
    note: str = ""


def number(value: float) -> str:
    """A number in few digits: two after the point, none from 1,000 up, a dash for what is not a number."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.2f}" if abs(value) < 1000 else f"{value:,.0f}"


def plain(report) -> dict:
    """The report as a JSON-ready dict: its fields, with every nested value made of dicts, lists, strings and numbers."""
    value = _plain(report)
    return value if isinstance(value, dict) else {"value": value}


def _plain(value):
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=str)
    if hasattr(value, "tolist"):  # numpy scalars and arrays, torch tensors
        return _plain(value.tolist())
    if isinstance(value, Iterable) and not isinstance(value, PathLike):
        return [_plain(item) for item in value]
    return str(value)


def show(report, json: bool = False) -> None:
    """Print a report: a table on stdout and `next: ...` on stderr, or with `json` one JSON object on stdout."""
    if json:
        print(jsonlib.dumps(plain(report), ensure_ascii=False, allow_nan=False))
        return
    if hasattr(report, "table"):
        _print_table(report.table())
    sys.stdout.flush()
    if following := getattr(report, "next", ""):
        print(f"next: {one_line(following)}", file=sys.stderr)


def text(table: Table) -> str:
    """The table as aligned plain text: title, column names, rows, note; nothing is cut."""
    cells = [tuple(map(_cell, row)) for row in (table.columns, *table.rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in [*_lines(table.title), *lines, *_lines(table.note)])


def _print_table(table: Table) -> None:
    if sys.stdout.isatty():
        _print_rich(table)
    else:
        print(text(table))


def _print_rich(table: Table) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console()
    grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in table.columns:
        grid.add_column(Text(name), overflow="fold")
    for row in table.rows:
        grid.add_row(*(Text(_cell(cell)) for cell in row))
    for part in (*map(Text, _lines(table.title)), grid, *map(Text, _lines(table.note))):
        console.print(part)


def _lines(words: str) -> list[str]:
    return [one_line(line) for line in words.splitlines()]


def _cell(value) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    return one_line(str(value))


def one_line(words: str) -> str:
    """One line without control characters: a skill's description must not steer the terminal."""
    return words if words.isprintable() else "".join(c if unicodedata.category(c) != "Cc" else " " for c in words)


def _width(words: str) -> int:
    """Columns on a terminal: wide letters take two, combining marks none."""
    if words.isascii():
        return len(words)
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in words)
