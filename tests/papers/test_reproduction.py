"""One way to run a paper: every seed a job, every number with an interval, the verdict of the paper's own judge."""

import json
import re
import types
from dataclasses import dataclass

import pytest

from skillweave.errors import NotFound, SkillweaveError
from skillweave.files import atomic_write
from skillweave.papers import reproduction
from skillweave.papers.reproduction import load, reproduce, summary


@dataclass(frozen=True)
class Effort:
    seeds: int = 3


def one_seed(effort, seed, tick):
    return {"ours": {"exact": 0.5 + seed / 10, "minutes": 1.0}, "base": {"exact": 0.1}}


@pytest.fixture
def paper(monkeypatch):
    """Paper 47 as a module of three seeds, run in this process."""

    def in_this_process(jobs, folder, workers, title, engine):
        assert engine == "local"
        costs = {"seed 0": 30.0, "seed 1": 60.0, "seed 2": 1.0, "seed 3": 1.0, "seed 4": 1.0}
        atomic_write(folder / "cpu.json", json.dumps(costs))
        return {job.name: job.run(**job.arguments, tick=lambda n, note: None) for job in jobs}

    module = types.SimpleNamespace(
        CRITERION="ours above base by 10 points", LIMITS="tiny", EFFORTS={"quick": Effort(1), "paper": Effort()}, seed=one_seed
    )
    module.judge = lambda runs: "holds" if all(r["ours"]["exact"] > r["base"]["exact"] + 0.1 for r in runs) else "does not hold"
    monkeypatch.setattr(reproduction, "load", lambda number: module)
    monkeypatch.setattr(reproduction, "run_jobs", in_this_process)
    return module


def test_seeds_and_intervals(paper, tmp_path):
    report = reproduce(47, "paper", library=tmp_path, seed=2)
    assert report.seeds == (2, 3, 4) and report.verdict == "holds" and report.exit_code == 0
    exact = report.arms["ours"]["exact"]
    assert (exact.value, exact.n) == (pytest.approx(0.8), 3) and exact.low < 0.8 < exact.high
    table = report.table()
    assert table.columns == ("arm", "exact", "minutes") and table.rows[1][2] is None
    assert "ours above base by 10 points" in table.note and "tiny" in table.note


def test_an_effect_that_is_not_there_is_said(paper, tmp_path):
    paper.judge = lambda runs: "does not hold"
    report = reproduce(47, library=tmp_path)
    assert (report.seeds, report.verdict, report.exit_code) == ((0,), "does not hold", 4)


def test_the_result_file(paper, tmp_path):
    reproduce(47, "paper", library=tmp_path, seeds=2, out=tmp_path / "p47.json")
    result = json.loads((tmp_path / "p47.json").read_text())
    assert (result["name"], result["kind"], result["verdict"], result["seeds"]) == ("p47", "reproduction", "holds", [0, 1])
    assert result["command"].startswith("skillweave reproduce 47 --effort paper --seeds 2")
    assert result["values"]["arms"]["ours"]["exact"]["mean"] == pytest.approx(0.55)
    assert result["values"]["runs"][1] == one_seed(None, 1, None)
    assert result["cpu_minutes"] == 1.5  # of the two seeds that are reported, and of no other in the folder


def test_every_seed_has_the_same_arms():
    with pytest.raises(KeyError):
        summary([{"ours": {"exact": 1.0}}, {"ours": {}}])


def test_a_paper_that_has_no_module():
    with pytest.raises(NotFound, match="no reproduction of paper `2`"):
        load(2)


@pytest.mark.parametrize(
    ("metric", "spent", "unequal", "said"),
    [
        ("samples", (100, 99), (), ""),
        ("samples", (100, 90), (), "the samples of `ours` and `other` differ (100 and 90)"),
        ("tokens", (100, 0), (), "the tokens of `ours` and `other` differ"),
        ("steps", (100, 0), ("other",), ""),
        ("seconds", (100, 1), (), ""),
    ],
)
def test_arms_with_unequal_budgets_are_not_judged(metric, spent, unequal, said):
    runs = [{"ours": {metric: spent[0]}, "other": {metric: spent[1]}, "base": {"exact": 0.5}}] * 2
    if not said:
        return reproduction.check_budgets(runs, unequal)
    with pytest.raises(SkillweaveError, match=re.escape(said)):
        reproduction.check_budgets(runs, unequal)


def test_a_paper_is_refused_with_unequal_budgets(paper, tmp_path):
    paper.seed = lambda effort, seed, tick: {"ours": {"samples": 10.0, "exact": 1.0}, "base": {"samples": 5.0, "exact": 0.0}}
    with pytest.raises(SkillweaveError, match="name those that are to differ in UNEQUAL"):
        reproduce(47, "paper", library=tmp_path)
    paper.UNEQUAL = ("base",)
    assert reproduce(47, "paper", library=tmp_path).verdict == "holds"
