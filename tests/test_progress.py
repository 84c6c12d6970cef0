"""Progress: the words, the pace, and silence on stdout."""

import pytest

from skillweave import progress as module
from skillweave.progress import Meter, duration, progress, say


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved: `clock[0] += 5`."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_one_plain_line_every_ten_seconds(capsys, clock):
    with progress(80, "learn date") as tick:
        for step in range(1, 81):
            clock[0] += 0.5
            tick(1, note=f"loss {1 / step:.2f}")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "learn date: 20/80 steps · 2.0 steps/s · 30 s left · loss 0.05",
        "learn date: 40/80 steps · 2.0 steps/s · 20 s left · loss 0.03",
        "learn date: 60/80 steps · 2.0 steps/s · 10 s left · loss 0.02",
        "learn date: 80/80 steps · 2.0 steps/s · 0 s left · loss 0.01",
    ]


def test_a_quick_job_says_nothing(capsys, clock):
    with progress(3, "quick") as tick:
        tick(3)
    assert capsys.readouterr() == ("", "")


def test_silence_on_request(capsys, clock, monkeypatch):
    monkeypatch.setenv("SKILLWEAVE_NO_PROGRESS", "1")
    with progress(2, "learn date") as tick:
        clock[0] += 60
        tick(1, note="loss 1")
    assert capsys.readouterr() == ("", "")


def test_a_resumed_job_counts_only_what_this_run_did(clock):
    meter = Meter(100, "learn", "steps", 80)
    assert str(meter) == "learn: 80/100 steps"
    clock[0] += 10
    meter.add(10, "")
    assert str(meter) == "learn: 90/100 steps · 1.0 steps/s · 10 s left"


def test_slow_jobs_show_seconds_a_step_and_unknown_totals_no_time_left(clock):
    meter = Meter(None, "read", "files")
    clock[0] += 8
    meter.add(2, "")
    assert str(meter) == "read: 2 files · 4.0 s/file"


def test_durations_in_words():
    assert [duration(s) for s in (-1.0, 59.4, 59.6, 250.0, 7500.0)] == ["0 s", "59 s", "1 min 0 s", "4 min 10 s", "2 h 5 min"]


def test_say_is_one_line_on_stderr(capsys):
    say("ready")
    assert capsys.readouterr() == ("", "ready\n")


class Terminal:
    def __init__(self):
        self.words = ""

    def write(self, words: str) -> int:
        self.words += words
        return len(words)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_that_goes_away(capsys, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    module._console.cache_clear()
    with progress(4, "learn [date]") as tick:
        tick(2, note="loss [0.5]")
    module._console.cache_clear()
    assert "learn [date]" in terminal.words and "2/4 steps" in terminal.words and "loss [0.5]" in terminal.words
    assert terminal.words.endswith("\x1b[2K")
    assert capsys.readouterr().out == ""


def test_a_dumb_terminal_gets_lines(monkeypatch, clock):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "dumb")
    with progress(4, "learn") as tick:
        clock[0] += 10
        tick(1)
    assert terminal.words == "learn: 1/4 steps · 10.0 s/step · 30 s left\n"
