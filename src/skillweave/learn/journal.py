"""The journal of a run that samples: a row a step, kept with the state, and a JSON object a line in a file to look at.

A run that was killed and goes on first writes the file anew from its state, so that no line is missing and none is there twice.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import atomic_write

UNTIMED = ("step_time",)
"""Keys that differ between two runs of the same seed."""

Row = dict[str, Any]


class Journal:
    """Rows so far, the same in the file at `path` if there is one."""

    def __init__(self, path: Path | None):
        self.path, self.rows = path, list[Row]()

    def add(self, row: Row) -> None:
        """One more row."""
        self.rows.append(row)
        if self.path is None:
            return
        if len(self.rows) == 1:
            return self._write()
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(_line(row))

    def restore(self, rows: Sequence[Row]) -> None:
        """Have `rows` and no others."""
        self.rows = list(rows)
        if self.path is not None:
            self._write()

    def series(self, key: str) -> list[float]:
        """The values of `key` in the rows that have it."""
        return [row[key] for row in self.rows if key in row]

    def _write(self) -> None:
        assert self.path is not None
        atomic_write(self.path, "".join(map(_line, self.rows)))


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
