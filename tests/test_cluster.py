"""Jobs on a real Ray cluster of this machine: started, a worker lost, finished; and what is said where there is none."""

import importlib
import sys

import pytest

from skillweave.errors import BadOption, NotFound, SkillweaveError
from skillweave.jobs import Job, run_jobs, spent

WORK = '''
"""What the workers do; they import it by name."""
import os
from pathlib import Path


def once_lost(folder, name, tick):
    tick(1, "begun")
    tries = Path(folder) / name
    with tries.open("a") as file:
        file.write("x")
    if name == "b" and tries.read_text() == "x":
        os.kill(os.getpid(), 9)
    import torch

    return {"name": name, "tries": tries.read_text(), "threads": torch.get_num_threads()}


def fail(tick):
    from skillweave.errors import NotFound

    raise NotFound("skill", "oen", ["one"], hint="look")
'''


@pytest.fixture
def work(tmp_path, monkeypatch):
    (tmp_path / "work_on_ray.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # workers look there
    monkeypatch.setenv("SKILLWEAVE_NO_PROGRESS", "1")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delitem(sys.modules, "work_on_ray", raising=False)
    return importlib.import_module("work_on_ray")


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_lost_worker_is_replaced_and_a_failure_keeps_what_is_done(work, tmp_path):
    """One cluster for both, since starting one takes seconds."""
    folder = tmp_path / "answers"
    jobs = [
        Job(name, work.once_lost, {"folder": str(tmp_path), "name": name}, after)
        for name, after in zip("abc", [(), (), ("b",)], strict=True)
    ]
    with pytest.raises(NotFound, match="no skill `oen`. Did you mean `one`.*hint: look"):
        run_jobs([*jobs, Job("bad", work.fail, {}, ("c",))], folder, 2, "test", "ray")
    assert set(spent(folder)) == set("abc") and not (folder / "bad.json").exists()
    answers = run_jobs(jobs, folder, 2, "test", "ray")
    assert {name: (each["tries"], each["threads"]) for name, each in answers.items()} == {
        "a": ("x", 1),
        "b": ("xx", 1),
        "c": ("x", 1),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("address", ["auto", "127.0.0.1:1", "here:there"])
def test_no_cluster(work, tmp_path, monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(SkillweaveError, match=f"no Ray cluster at '{address}'.*unset RAY_ADDRESS"):
        run_jobs([Job("bad", work.fail)], tmp_path, 2, "test", "ray")


def test_no_ray(work, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadOption, match=r"Ray is not installed.*skillweave\[ray\]"):
        run_jobs([Job("bad", work.fail)], tmp_path, 2, "test", "ray")
