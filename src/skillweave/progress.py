"""Progress on stderr: a bar for people, one plain line every ten seconds for logs, nothing on stdout.

Set SKILLWEAVE_NO_PROGRESS to anything for silence.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache

EVERY = 10.0
"""Seconds between two plain lines."""


def say(words: str) -> None:
    """One status line on stderr."""
    print(words, file=sys.stderr, flush=True)


def progress(total: int | None, title: str, unit: str = "steps", done: int = 0) -> AbstractContextManager[Callable]:
    """`with progress(80, "learn date") as tick: tick(1, note="loss 0.12")`.

    `total` is None when nobody knows; `done` is where a resumed job starts, so that its rate counts only what this run did.
    """
    meter = Meter(total, title, unit, done)
    if os.environ.get("SKILLWEAVE_NO_PROGRESS"):
        return _silent(meter)
    bar = sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    return _bar(meter) if bar else _lines(meter)


@dataclass
class Meter:
    """How far a job is: counts in `unit`, seconds since the start."""

    total: int | None
    title: str
    unit: str
    done: int = 0
    note: str = ""
    started: float = field(default_factory=lambda: time.monotonic())

    def __post_init__(self) -> None:
        self.first = self.done

    def add(self, count: int, note: str) -> None:
        self.done += count
        self.note = note or self.note

    def __str__(self) -> str:
        return f"{self.title}: {self.status()}"

    def status(self) -> str:
        """Counts, rate, time left and note, such as `40/80 steps · 1.2 steps/s · 33 s left · loss 0.12`."""
        counts = f"{self.done}/{self.total} {self.unit}" if self.total else f"{self.done} {self.unit}"
        return " · ".join(filter(None, [counts, *self._pace(), self.note]))

    def _pace(self) -> list[str]:
        seconds = time.monotonic() - self.started
        if self.done <= self.first or seconds <= 0:
            return []
        rate = (self.done - self.first) / seconds
        shown = f"{rate:.1f} {self.unit}/s" if rate >= 1 else f"{1 / rate:.1f} s/{self.unit.removesuffix('s')}"
        return [shown, f"{duration((self.total - self.done) / rate)} left"] if self.total else [shown]


def duration(seconds: float) -> str:
    """`33 s`, `4 min 10 s`, `2 h 5 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def _silent(meter: Meter) -> Iterator[Callable]:
    def tick(count: int = 1, note: str = "") -> None:
        meter.add(count, note)

    yield tick


@contextmanager
def _lines(meter: Meter) -> Iterator[Callable]:
    due = meter.started + EVERY

    def tick(count: int = 1, note: str = "") -> None:
        nonlocal due
        meter.add(count, note)
        if time.monotonic() >= due:
            due = time.monotonic() + EVERY
            say(str(meter))

    yield tick


@contextmanager
def _bar(meter: Meter) -> Iterator[Callable]:
    from rich.progress import BarColumn, Progress, TextColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(24), TextColumn("{task.fields[status]}", markup=False)
    with Progress(*columns, console=_console(), transient=True) as bar:
        job = bar.add_task(meter.title, total=meter.total, completed=meter.done, status=meter.status())

        def tick(count: int = 1, note: str = "") -> None:
            meter.add(count, note)
            bar.update(job, completed=meter.done, status=meter.status())

        yield tick


@cache
def _console():
    """One console for all bars, so that a bar inside a bar takes its own line."""
    from rich.console import Console

    return Console(stderr=True)
