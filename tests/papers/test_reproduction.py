"""One way to run a paper: every seed a job, every number with an interval, the verdict of the paper's own judge."""

import json
import types
from dataclasses import dataclass

import pytest

from skillweave.errors import NotFound
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
