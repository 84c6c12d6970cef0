"""The quickstart on a base of a few thousand weights: every arm is run, judged by the criterion, and the skill is saved."""

import json
import pickle
from dataclasses import replace

import pytest

from skillweave import quickstart as qs
from skillweave import quickstart_arms as arms
from skillweave.base import TinyBase
from skillweave.errors import LibraryError
from skillweave.jobs import Job
from skillweave.learn.loop import Run
from skillweave.learn.sft import SFT
from skillweave.library import Library

SMALL = arms.Effort(
    {name: SFT(steps=3, batch=2, rank=2) for name in arms.SKILLS},
    few=SFT(steps=4, batch=2, rank=2),
    test=4,
    kept=2,
    rates=(1e-3, 2e-3),
    arms=qs.ARMS,
)


@pytest.fixture(params=["paper", "fair", "quick"])
def jobs(request, tmp_path):
    return qs.plan(arms.Setting(qs.EFFORTS[request.param], tmp_path, 0))


@pytest.mark.parametrize(
    ("effort", "missing"),
    [("paper", set()), ("fair", {qs.FRESH_MADE, qs.REPLAY}), ("quick", {*qs.ARMS} - {qs.BASE, qs.FRESH, qs.WOVEN, qs.JOINT})],
)
def test_the_plan_covers_every_arm(tmp_path, effort, missing):
    names = [job.name for job in qs.plan(arms.Setting(qs.EFFORTS[effort], tmp_path, 0))]
    assert len(set(names)) == len(names)
    assert set(qs.ARMS) - missing | {"example"} | {f"skill {name}" for name in arms.SKILLS} <= set(names)
    assert not missing & set(names)
    assert qs.WOVEN in qs.ARMS and qs.JOINT in qs.ARMS and len(qs.ARMS) == len(set(qs.ARMS))


def test_every_job_can_start_once_others_are_done(jobs):
    done = set()
    while ready := [job for job in jobs if job.name not in done and set(job.after) <= done]:
        done |= {job.name for job in ready}
    assert done == {job.name for job in jobs}
    assert all(job.steps > 0 for job in jobs)
    assert pickle.loads(pickle.dumps(jobs)) == jobs


def test_all_arms_that_learn_take_the_same_steps(jobs):
    steps = {job.name: job.steps for job in jobs}
    learning = (qs.FRESH, qs.FRESH_MADE, qs.SINGLE, qs.ALPHA, qs.NEW, qs.REPLAY, qs.WOVEN)
    assert len({steps[name] for name in learning if name in steps}) == 1
    skills = sum(steps[f"skill {name}"] for name in arms.SKILLS)
    assert steps[qs.JOINT] == skills + steps[qs.WOVEN]


def answers(woven, fresh, joint, seconds=(1.0, 10.0)):
    """Answers of a run of 100 invoices: shares right, and seconds of the woven and the joint arm."""

    def arm(share, seconds):
        return {"exact": [1.0] * round(100 * share) + [0.0] * (100 - round(100 * share)), "seconds": seconds}

    return {qs.WOVEN: arm(woven, seconds[0]), qs.FRESH: arm(fresh, 5.0), qs.JOINT: arm(joint, seconds[1])}


@pytest.mark.parametrize(
    ("seeds", "verdict"),
    [
        ([answers(0.95, 0.20, 0.95)], "holds"),
        ([answers(0.90, 0.30, 0.90)], "holds"),
        ([answers(0.95, 0.20, 0.95)] * 3, "holds"),
        ([answers(0.95, 0.20, 0.95, (3.0, 10.0))], "partly"),  # too slow
        ([answers(0.95, 0.40, 0.95)], "partly"),  # too close to the fresh LoRA
        ([answers(0.88, 0.20, 0.88)], "partly"),  # not exact enough
        ([answers(0.90, 0.20, 1.00)], "partly"),  # below the joint LoRA
        ([answers(0.95, 0.20, 0.95), answers(0.80, 0.20, 0.80)], "partly"),  # one seed of two fails
        ([answers(0.50, 0.40, 0.90)], "does not hold"),
    ],
)
def test_the_criterion(seeds, verdict):
    assert qs.judge(seeds) == verdict


def run_of(exact, seconds):
    fields = {"country": exact, "date": [1.0] * 4, "amount": [0.0] * 4}
    return {
        "exact": exact,
        "seen": [True, True, False, False],
        "fields": fields,
        "kept": {"date": [1.0, 0.0]},
        "seconds": seconds,
    }


def test_the_summary_of_an_arm():
    arm = qs.summary([run_of([1.0, 1.0, 1.0, 0.0], 60.0), run_of([1.0, 0.0, 0.0, 0.0], 120.0)])
    values = {name: estimate.value for name, estimate in arm.items()}
    assert values == pytest.approx(
        {
            "exact": 0.5,
            "seen": 0.75,
            "unseen": 0.25,
            "country": 0.5,
            "date": 1.0,
            "amount": 0.0,
            "kept date": 0.5,
            "minutes": 1.5,
        }
    )
    assert (arm["exact"].n, arm["seen"].n, arm["minutes"].unit) == (8, 4, "min")
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in arm.values())
    assert arm["exact"].low < 0.5 < arm["exact"].high


def in_this_process(jobs, folder, workers, title):
    """Stands in for `run_jobs`: the same jobs and files, one after the other, pickled as for another process."""
    jobs = [replace(job, arguments=pickle.loads(pickle.dumps(job.arguments))) for job in jobs]
    done = {job.name: json.loads(path.read_text()) for job in jobs if (path := folder / f"{job.name}.json").is_file()}
    folder.mkdir(parents=True, exist_ok=True)
    while waiting := [job for job in jobs if job.name not in done]:
        job = next(job for job in waiting if set(job.after) <= set(done))
        answer = json.loads(json.dumps(job.run(**job.arguments, tick=lambda steps, note: None)))
        (folder / f"{job.name}.json").write_text(json.dumps(answer))
        done[job.name] = answer
    return done


@pytest.fixture
def small(monkeypatch):
    base = TinyBase(32, window=8000)
    monkeypatch.setenv("SKILLWEAVE_NO_PROGRESS", "1")
    monkeypatch.setitem(qs.EFFORTS, "fair", SMALL)
    monkeypatch.setattr(arms, "_base", lambda: base)
    monkeypatch.setattr("skillweave.base.load_base", lambda name: base)
    monkeypatch.setattr(qs.gemma, "folder", lambda: None)
    monkeypatch.setattr(qs, "run_jobs", in_this_process)
    return base


def test_the_whole_of_it(small, tmp_path, capsys, monkeypatch):
    report = qs.quickstart("fair", library=tmp_path / "library")
    shelf = Library(tmp_path / "library")
    assert shelf.names() == ["country", "date", "invoice", "number"] and shelf.verify() == []
    skill = shelf.get("invoice")
    assert [parent["name"] for parent in skill.provenance["parents"]] == list(arms.SKILLS)
    assert skill.provenance["data"]["rows"] == 24 and skill.template == "invoice: {input}\n"
    assert skill.provenance["config"]["steps"] == 4
    assert tuple(report.arms) == qs.ARMS
    for arm in report.arms.values():
        assert arm["exact"].n == 4 and {"seen", "unseen", "country", "date", "amount", "kept date", "minutes"} <= set(arm)
    assert report.arms[qs.JOINT]["minutes"].value > 0 == report.arms[qs.BASE]["minutes"].value
    table = report.table()
    assert len(table.rows) == len(qs.ARMS) and all(len(row) == len(table.columns) for row in table.rows)
    assert qs.CRITERION in table.note and report.question in table.note and report.verdict in table.note
    assert report.next.startswith("skillweave run invoice ")
    assert list((tmp_path / "library" / ".work").glob("*.safetensors")) == []
    said = capsys.readouterr()
    assert "Gemma Terms of Use" in said.err and said.out == ""
    monkeypatch.setattr(Job, "run", None, raising=False)
    for name in ("teach", "search", "weave", "fresh", "single", "joint", "prompted", "example"):
        monkeypatch.setattr(arms, name, lambda **arguments: pytest.fail("done again"))
    assert qs.quickstart("fair", library=tmp_path / "library").arms == report.arms


def test_skills_of_another_run_are_not_taken(small, tmp_path):
    at = arms.Setting(SMALL, tmp_path / "library", 0)
    Library(at.library, create=True)
    first = arms.teach(at, "date", lambda steps, note: None)
    assert arms.teach(at, "date", lambda steps, note: pytest.fail("learned again")) == pytest.approx(first, abs=1e-3)
    with pytest.raises(LibraryError, match="`date` in .* was learned in another way.*another --library"):
        arms.teach(arms.Setting(SMALL, at.library, 1), "date", lambda steps, note: None)


def test_the_best_step_of_the_search_is_taken(small, tmp_path, monkeypatch):
    at = arms.Setting(SMALL, tmp_path / "library", 0)
    at.work.mkdir(parents=True)
    found = {1e-3: [(1, 0.2, 1.0), (2, 0.5, 2.0), (4, 0.5, 2.5)], 2e-3: [(1, 0.1, 0.5), (2, 0.5, 2.1), (4, 0.4, 2.2)]}
    for rate, looks in found.items():
        (at.work / f"search {rate:g}.json").write_text(json.dumps({"rate": rate, "looks": looks, "seconds": 60.0}))
    monkeypatch.setattr(arms, "test", lambda at, skill, seconds: {"seconds": seconds})
    answer = arms.fresh(at, 0.0, lambda steps, note: None)
    assert answer["chosen"] == {"lr": 1e-3, "steps": 2} and 120 < answer["seconds"] < 150


def test_the_better_rate_is_searched_on_from_where_it_stopped(small, tmp_path):
    at = arms.Setting(SMALL, tmp_path / "library", 0)
    at.work.mkdir(parents=True)
    halves = {rate: arms.search(at, rate, lambda steps, note: None) for rate in SMALL.rates}
    assert len(halves) == 2 and all([steps for steps, *_ in half["looks"]] == [1, 2] for half in halves.values())
    for rate, half in halves.items():
        half["looks"] = [(steps, float(rate == 1e-3), loss) for steps, _, loss in half["looks"]]
        (at.work / f"search {rate:g}.json").write_text(json.dumps(half))
    on = [arms.search(at, None, lambda steps, note: None) for _ in range(2)]  # the second time, as after a kill
    steps, right, loss = zip(*on[0]["looks"], strict=True)
    assert on[0]["rate"] == 1e-3 and steps == (3, 4) and all(0 <= share <= 1 for share in right)
    assert on[1]["looks"] == on[0]["looks"]
    bank, rest = arms._new(at), [example for i, example in enumerate(at.invoices) if i % 3]
    arms._teach(bank, replace(SMALL.few, lr=1e-3), rest, 0, Run())
    assert loss[-1] == arms.mean_loss(bank, at.invoices[::3])  # as if it had never stopped


def test_only_the_paper_effort_has_the_control(tmp_path):
    arms_of = {name: {job.name for job in qs.plan(arms.Setting(effort, tmp_path, 0))} for name, effort in qs.EFFORTS.items()}
    assert {name for name, jobs in arms_of.items() if qs.FRESH_MADE in jobs} == {"paper"}
    assert qs.EFFORTS["paper"].few == qs.EFFORTS["fair"].few and qs.EFFORTS["paper"].test >= 200


def test_a_skill_that_was_taken_out_is_made_again(small, tmp_path):
    qs.quickstart("fair", library=tmp_path / "library")
    Library(tmp_path / "library").remove("invoice")
    qs.quickstart("fair", library=tmp_path / "library")
    assert "invoice" in Library(tmp_path / "library").names()


def test_an_invoice_of_somebody_else_is_not_taken_for_ours(small, tmp_path):
    qs.quickstart("fair", library=tmp_path / "library")
    shelf = Library(tmp_path / "library")
    at = arms.Setting(SMALL, tmp_path / "library", 0)
    with pytest.raises(LibraryError, match="`invoice` in .* was made in another way"):
        arms.weave(at, arms.Scales(rank=1), True, lambda steps, note: None)
    assert shelf.verify() == []
