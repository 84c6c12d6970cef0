"""The arithmetic of benchmarks/sft_vs_trl.py on made-up runs: nothing is trained."""

import importlib.util
from pathlib import Path

import pytest

from skillweave.errors import BadOption, MissingExtra, SkillweaveError

FILE = Path(__file__).resolve().parent.parent / "benchmarks" / "sft_vs_trl.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("sft_vs_trl", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(second: float, mib: float, loss: float = 0.5) -> dict:
    """A run whose first step is slow, as first steps are; the other two take `second` for 400 tokens each."""
    steps = [100.0, second, second]
    return {"seconds": steps, "cpu_seconds": steps, "tokens": [400] * 3, "losses": [2.0, loss, loss], "peak": int(mib * 2**20)}


def rounds(ours=(1, 1, 1), trl=(8, 8, 8), plain=(7, 7, 7), mib=(100, 200), loss=(0.5, 0.5)) -> list[dict]:
    return [
        {"ours": run(a, mib[0], loss[0]), "trl": run(b, mib[1]), "trl-plain": run(c, mib[1], loss[1]), "naive": run(2 * a, 180)}
        for a, b, c in zip(ours, trl, plain, strict=True)
    ]


def by_job(rows: list[dict]) -> dict[str, dict]:
    return {row["job"]: row for row in rows}


def test_the_peer_is_the_faster_setting(bench):
    assert bench.summary(rounds())["peer"] == bench.PEERS["trl-plain"]
    assert bench.summary(rounds(plain=(9, 9, 9)))["peer"] == bench.PEERS["trl"]


def test_ratios_are_taken_within_a_round(bench):
    """A slow spell of the machine in one round slows both sides: 2/1, 60/10 and 7/1 have the median 6, not 7/1."""
    step = by_job(bench.summary(rounds(ours=(1, 10, 1), trl=(99,) * 3, plain=(2, 60, 7)))["rows"])["step"]
    assert (step["ratio"], step["ours"], step["peer"]) == (6, 1, 7)


def test_the_table_holds_the_goals_and_leaves_out_the_first_step(bench):
    rows = by_job(bench.summary(rounds())["rows"])
    assert [rows["step"][key] for key in ("ours", "peer", "ratio", "met")] == [1, 7, 7, True]
    assert [rows["throughput"][key] for key in ("ours", "ratio", "met")] == [400, pytest.approx(7), True]
    assert [rows["peak memory"][key] for key in ("ours", "peer", "ratio", "met")] == [100, 200, 0.5, True]
    assert rows["final loss"]["met"] and rows["step, against a naive loop"]["ratio"] == 2
    assert {key for row in rows.values() for key in row} == {"job", "ours", "peer", "unit", "ratio", "goal", "met"}


@pytest.mark.parametrize(
    ("changed", "verdict", "agree"),
    [
        ({}, "holds", True),
        ({"plain": (5, 5, 5)}, "partly", True),
        ({"mib": (130, 200)}, "partly", True),
        ({"plain": (5, 5, 5), "mib": (130, 200)}, "does not hold", True),
        ({"loss": (0.505, 0.5)}, "holds", True),
        ({"loss": (0.52, 0.5)}, "does not hold", False),
    ],
)
def test_verdict(bench, changed, verdict, agree):
    values = bench.summary(rounds(**changed))
    assert (bench.verdict(values["rows"], values["losses_agree"]), values["losses_agree"]) == (verdict, agree)


def test_a_busy_machine_tests_nothing(bench):
    found = rounds()
    assert bench.share_of_processor(found, "ours", threads=1) == 1
    found[1]["ours"]["cpu_seconds"] = [1.0, 0.4, 0.2]
    assert bench.share_of_processor(found, "ours", threads=1) == pytest.approx(0.3)
    values = bench.summary(found)
    assert bench.verdict(values["rows"], values["losses_agree"], idle=False) == "not tested"


def test_a_meter_reports_one_number_a_step(bench):
    meter = bench.Meter(losses=[2.0, 1.0])
    for _ in range(3):
        meter.mark()
    found = meter.report([5, 7])
    assert len(found["seconds"]) == len(found["cpu_seconds"]) == 2 and min(found["seconds"]) >= 0
    assert found["peak"] > 2**20
    with pytest.raises(AssertionError, match="2, 1, 2"):
        meter.report([5])


def test_says_what_to_install(bench, monkeypatch):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'skillweave\[bench\]'"):
        bench.check_options(1, 1, 1)
    with pytest.raises(BadOption, match="--rounds is 0"):
        bench.check_options(1, 0, 1)


def test_a_run_that_fails_says_its_last_line(bench, tmp_path):
    with pytest.raises(SkillweaveError, match="the side `ours` ended with code 1: .*start.json"):
        bench.run("ours", tmp_path, 1, 1)
