"""The arithmetic of benchmarks/grpo_vs_trl.py on made-up runs: nothing is trained."""

import importlib.util
import sys
from pathlib import Path

import pytest

from skillweave.errors import BadOption, MissingExtra, SkillweaveError

FILE = Path(__file__).resolve().parent.parent / "benchmarks" / "grpo_vs_trl.py"
SAME = [{"loss_type": "dapo", "advantages": 1e-7, "loss": 2e-6, "gradient": 1e-6}]


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("grpo_vs_trl", FILE)
    module = sys.modules["grpo_vs_trl"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(second: float, mib: float = 100, reward: float = 0.3) -> dict:
    """Four steps, the first of them slow, as first steps are; half of a step is generation."""
    steps = {"step": second, "generation": second / 2, "scoring": second / 8, "learning": second * 3 / 8}
    times = {part: [50.0, value, value, value] for part, value in steps.items()}
    return {"wall": times, "cpu": times, "reward": [reward] * 4, "peak": int(mib * 2**20)}


def rounds(ours=(1, 1, 1), trl=(8, 8, 8), plain=(7, 7, 7), rewards=(0.3, 0.3, 0.3)) -> list[dict]:
    return [
        {"ours": run(a, 100, reward), "trl": run(b, 250), "trl-plain": run(c, 200)}
        for a, b, c, reward in zip(ours, trl, plain, rewards, strict=True)
    ]


def summary(bench, same=SAME, **changed) -> dict:
    return bench.summary({"3 M": rounds(), "Gemma": rounds(**changed)}, same)


def by_job(values: dict) -> dict[str, dict]:
    return {row["job"]: row for row in values["rows"]}


def test_the_peer_is_the_faster_setting_of_each_size(bench):
    values = summary(bench, plain=(9, 9, 9))
    assert values["peers"] == {"3 M": bench.PEERS["trl-plain"], "Gemma": bench.PEERS["trl"]}


def test_ratios_are_taken_within_a_round(bench):
    """A slow spell in one round slows both sides: 2/1, 60/10 and 7/1 have the median 6, not 7/1."""
    step = by_job(summary(bench, ours=(1, 10, 1), trl=(99,) * 3, plain=(2, 60, 7)))["Gemma: step"]
    assert (step["ratio"], step["ours"], step["peer"], step["goal"]) == (6, 1, 7, "≥ 5")


def test_the_table_leaves_out_the_first_step(bench):
    rows = by_job(summary(bench))
    assert [rows["Gemma: generation"][key] for key in ("ours", "peer", "ratio", "met")] == [0.5, 3.5, 7, None]
    assert [rows["3 M: peak memory"][key] for key in ("ours", "peer", "ratio")] == [100, 200, 0.5]
    assert {key for row in rows.values() for key in row} == {"job", "ours", "peer", "unit", "ratio", "goal", "met"}
    assert len(rows) == 2 * (4 + 2 + 2) + 1


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, "holds"),
        ({"plain": (4, 4, 4)}, "partly"),
        ({"rewards": (0.2, 0.3, 0.4)}, "holds"),
        ({"rewards": (0.40, 0.41, 0.42)}, "does not hold"),
        ({"same": [SAME[0] | {"gradient": 0.01}]}, "does not hold"),
    ],
)
def test_verdict(bench, changed, verdict):
    assert bench.verdict(summary(bench, **changed)) == verdict


def test_a_busy_machine_tests_nothing(bench):
    found = rounds()
    found[1]["ours"]["cpu"] = found[1]["ours"]["cpu"] | {"step": [1.0, 0.4, 0.4, 0.4]}
    values = bench.summary({"3 M": rounds(), "Gemma": found}, SAME)
    assert not values["machine_idle"] and bench.verdict(values) == "not tested"


def test_a_meter_gives_each_step_its_parts(bench):
    meter = bench.Meter()
    for _ in range(2):
        with meter.part("generation"):
            pass
        meter.timed("scoring", meter.scored)([1.0, 0.0])
        meter.step()
    found = meter.report()
    assert found["reward"] == [0.5, 0.5] and found["peak"] > 2**20
    for clock in ("wall", "cpu"):
        for step, *parts in zip(*(found[clock][part] for part in ("step", *bench.PARTS)), strict=True):
            assert step == pytest.approx(sum(parts)) and min(parts) >= 0


def test_says_what_to_install(bench, monkeypatch):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'skillweave\[bench\]'"):
        bench.check_options(3, 3, 1)
    with pytest.raises(BadOption, match="--gemma-steps is 2"):
        bench.check_options(3, 2, 1)


def test_a_run_that_fails_says_its_last_line(bench, tmp_path):
    with pytest.raises(SkillweaveError, match="the side `ours` ended with code 1: .*jobs"):
        bench.run("ours", tmp_path, "3 M", 1, 0)
