"""The printer: what people see, what programs read."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from skillweave.result import Estimate, Table, number, plain, show, text


@dataclass(frozen=True)
class Report:
    name: str
    path: Path
    score: Estimate
    scores: tuple = ()
    next: str = ""

    def table(self) -> Table:
        return Table(("skill", "score"), ((self.name, self.score), ("no score", None)), "A title", "a note")


REPORT = Report("date", Path("library/date"), Estimate(0.83, 0.77, 0.88, 200), next="skillweave run date")


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (Estimate(0.83, 0.77, 0.88, 200), "0.83 [0.77, 0.88] n=200"),
        (Estimate(4.4, 4.31, 4.49, 10, "s"), "4.40 s [4.31, 4.49] n=10"),
        (Estimate(12345.6, 11000.0, 13000.0, 5, "tokens/s"), "12,346 tokens/s [11,000, 13,000] n=5"),
        (Estimate(math.nan, math.nan, math.inf, 0), "– [–, –] n=0"),
    ],
)
def test_an_estimate_carries_its_interval(estimate, words):
    assert str(estimate) == words


def test_numbers_have_few_digits():
    assert [number(x) for x in (0.0, -0.126, 999.5, 1000.0, -2500.0)] == ["0.00", "-0.13", "999.50", "1,000", "-2,500"]


def test_table_on_a_pipe_is_aligned_plain_text(capsys):
    show(REPORT)
    out, err = capsys.readouterr()
    assert out == "A title\nskill     score\ndate      0.83 [0.77, 0.88] n=200\nno score  –\na note\n"
    assert err == "next: skillweave run date\n"


def test_json_is_one_object_and_nothing_else(capsys):
    show(REPORT, json=True)
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert json.loads(out) == {
        "name": "date",
        "path": "library/date",
        "score": {"value": 0.83, "low": 0.77, "high": 0.88, "n": 200, "unit": ""},
        "scores": [],
        "next": "skillweave run date",
    }
    assert err == ""


def test_plain_makes_json_of_everything():
    value = {
        1: math.nan,
        "b": (1, {2.5}),
        "c": np.float32(0.5),
        "d": np.arange(2),
        "e": True,
        "f": np.bool_(False),
        "g": math.inf,
    }
    want = {"1": None, "b": [1, [2.5]], "c": 0.5, "d": [0, 1], "e": True, "f": False, "g": None}
    assert plain(value) == want
    assert json.dumps(plain(value), allow_nan=False)


def test_cells_cannot_steer_the_terminal():
    table = Table(("skill",), (("evil \x1b[31mred\x07\nline",), ("[bold]kept[/bold]",)))
    assert text(table) == "skill\nevil  [31mred  line\n[bold]kept[/bold]"
    assert text(Table(("x",), (), "\x1b[1m", "two\nlines\x07")) == " [1m\nx\ntwo\nlines"


def test_wide_letters_stay_aligned():
    assert text(Table(("a", "b"), (("日本", 1), ("xy", 2)))) == "a     b\n日本  1\nxy    2"


def test_empty_table_shows_its_columns():
    assert text(Table(("a", "b"), (), note="0 rows")) == "a  b\n0 rows"


def test_cells_in_words():
    assert text(Table(("x",), ((True,), (None,), (("a", "b"),), (0.5,), (Path("p"),)))) == "x\nyes\n–\na, b\n0.50\np"


class Terminal:
    """A stdout that says it is a terminal."""

    def __init__(self):
        self.words = []

    def write(self, words: str) -> int:
        self.words.append(words)
        return len(words)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch, **env: str) -> str:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout", terminal)
    show(REPORT)
    return "".join(terminal.words)


def test_terminal_gets_a_drawn_table_with_brackets_kept(monkeypatch):
    drawn = on_a_terminal(monkeypatch)
    assert "0.83 [0.77, 0.88] n=200" in drawn
    assert "─" in drawn and "\x1b[" in drawn


def test_no_color_is_respected(monkeypatch):
    drawn = on_a_terminal(monkeypatch, NO_COLOR="1")
    assert "0.83 [0.77, 0.88] n=200" in drawn
    assert not any(f"\x1b[3{digit}" in drawn for digit in range(8))
