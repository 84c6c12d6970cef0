"""Shared by all tests: the command line in this process (quick) and in one of its own (exact)."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = ("SKILLWEAVE_LIBRARY", "SKILLWEAVE_DEBUG", "SKILLWEAVE_NO_PROGRESS", "FORCE_COLOR", "NO_COLOR")

signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background starts with interrupts switched off


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """No test depends on what the person who runs it has set."""
    for name in LEFT_OUT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    loaded = getattr(sys.modules.get("skillweave.verbs"), "_load", None)
    if hasattr(loaded, "cache_clear"):  # the base that another test has used
        loaded.cache_clear()


@dataclass(frozen=True)
class Said:
    """What a command line did."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys):
    """`cli("library", "list")` runs the command line here and returns exit code, stdout and stderr."""
    from skillweave.cli import main

    def call(*words: str) -> Said:
        code = main(list(map(str, words)))
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture
def process(tmp_path):
    """`process("--help")` runs `python -m skillweave` in a process of its own, in an empty folder."""

    def call(*words: str, stdin: str = "", code: str | None = None, **env: str) -> Said:
        command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "skillweave", *words]
        paths = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            command,
            input=stdin,
            text=True,
            capture_output=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": paths} | env,
            timeout=60,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="session")
def tiny():
    """The smallest base; nothing that a test does may change it."""
    from skillweave.base import TinyBase

    return TinyBase(32)


@pytest.fixture(scope="session")
def loud():
    """`loud(alphabet="abc")`: a TinyBase of large weights, so that a LoRA can teach it and its answers vary."""
    from skillweave.base import TinyBase

    @cache
    def make(width: int = 32, **options):
        base = TinyBase(width, **options)
        base.model.get_input_embeddings().weight.data.mul_(30)
        for linear in base.linears.values():
            linear.weight.data.mul_(4)
        return base

    return make


@pytest.fixture(scope="session")
def random_skill():
    """`random_skill(base, seed, rank, slots)`: factors that change every layer (or `slots`) noticeably."""
    import torch

    from skillweave.delta import Factors, LowRank

    def make(base, seed: int = 0, rank: int = 3, slots=None, scale: float = 0.5):
        draw = torch.Generator().manual_seed(seed)
        factors = {}
        for slot in slots or base.linears:
            linear = base.linears[slot]
            a = torch.randn(rank, linear.in_features, generator=draw) * 0.1
            b = torch.randn(linear.out_features, rank, generator=draw) * 0.3
            factors[slot] = Factors(a, b, scale)
        return LowRank(factors)

    return make


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """A model folder as the hub has it: a small Llama with a tokenizer of single characters."""
    from skillweave.base import TinyBase, save_base

    folder = tmp_path_factory.mktemp("model") / "tiny-llama"
    save_base(TinyBase(32), folder)
    return folder


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """`stopped(module, fit)`: `fit(run)`, whose module plans a training, interrupted in its third step and called again.

    Gives what the second call gave, which has gone on from the state that the first one left.
    """
    from functools import partial

    from skillweave.learn.loop import Plan, Run

    def call(module, fit, steps: int = 3):
        monkeypatch.setattr(module, "Plan", partial(Plan, save_every=-1.0))
        ticks = []

        def tick(count, note):
            ticks.append(count)
            if len(ticks) == steps:
                raise KeyboardInterrupt

        run = Run(tmp_path / "state", "key", tick)
        with pytest.raises(KeyboardInterrupt):
            fit(run)
        answer = fit(run)
        assert ticks[steps] == steps and set(ticks[steps + 1 :]) == {1}  # it went on, and did not begin again
        return answer

    return call
