"""Jobs: in order, never twice, and gone when their parent goes."""

import importlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from skillweave import jobs
from skillweave.errors import NotFound, SkillweaveError
from skillweave.jobs import Job, run_jobs

SOURCE = Path(__file__).resolve().parent.parent / "src"
WORK = '''
"""What the workers do; they import it by name."""
import os, time
from pathlib import Path


def mark(folder, name, tick, needs=()):
    for need in needs:
        assert (Path(folder) / need).exists(), f"{name} began before {need} was done"
    assert not (Path(folder) / name).exists(), f"{name} was done again"
    tick(1, f"half of {name}")
    time.sleep(0.2)
    (Path(folder) / name).write_text(str(os.getpid()))
    import torch

    return {"name": name, "threads": torch.get_num_threads(), "pair": (1, 2)}


def fail(tick):
    from skillweave.errors import NotFound, SkillweaveError

    raise NotFound("skill", "oen", ["one"], hint="look")


def vanish(tick):
    os.kill(os.getpid(), 9)


def sleep(folder, name, tick):
    (Path(folder) / name).write_text(str(os.getpid()))
    time.sleep(120)
'''


@pytest.fixture
def work(tmp_path, monkeypatch):
    (tmp_path / "work_of_jobs.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SKILLWEAVE_NO_PROGRESS", "1")
    monkeypatch.delitem(sys.modules, "work_of_jobs", raising=False)
    return importlib.import_module("work_of_jobs")


@pytest.fixture
def chain(work, tmp_path):
    (tmp_path / "marks").mkdir()

    def job(name, *after):
        return Job(name, work.mark, {"folder": str(tmp_path / "marks"), "name": name, "needs": after}, after)

    return [job("d", "b", "c"), job("b", "a"), job("c", "a"), job("a")]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z" if Path("/proc").exists() else True


def wait_until(true, seconds=60.0):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def test_jobs_wait_for_each_other_and_are_done_once(chain, tmp_path, monkeypatch):
    notes = []
    monkeypatch.setattr(jobs, "_listen", lambda ticks, tick, stop: notes.append(ticks.get(timeout=30)))
    answers = run_jobs(chain, tmp_path / "answers", 2, "test")
    assert set(answers) == set("abcd") and answers["a"]["threads"] == 1
    assert notes == [("a", 1, "half of a")]
    assert json.loads((tmp_path / "answers" / "d.json").read_text())["name"] == "d"
    (tmp_path / "answers" / "d.json").unlink()
    (tmp_path / "marks" / "d").unlink()
    again = run_jobs(chain, tmp_path / "answers", 1, "test")
    assert again["a"] == answers["a"] | {"pair": [1, 2]} and again["d"]["name"] == "d"


def test_what_each_job_cost_is_kept_whichever_run_did_it(chain, tmp_path):
    folder = tmp_path / "answers"
    run_jobs(chain[2:], folder, 1, "test")
    first = jobs.spent(folder)
    run_jobs(chain, folder, 1, "test")
    assert len(first) == 2 and set(jobs.spent(folder)) == set("abcd") and jobs.spent(folder).items() >= first.items()
    assert all(0 < seconds < 60 for seconds in first.values())


def test_what_is_done_starts_no_process(chain, tmp_path, monkeypatch):
    (tmp_path / "answers").mkdir()
    for name in "abcd":
        (tmp_path / "answers" / f"{name}.json").write_text(f'"{name}"')
    (tmp_path / "answers" / "cpu.json").write_text(json.dumps(dict.fromkeys("abcd", 1.0)))
    monkeypatch.setattr(jobs.mp, "get_context", lambda kind: pytest.fail("a process"))
    assert run_jobs(chain, tmp_path / "answers", 2, "test") == {name: name for name in "abcd"}


def test_a_job_that_fails_says_why_and_keeps_what_is_done(work, chain, tmp_path):
    failing = [*chain[2:], Job("bad", work.fail, {}, ("a",))]
    with pytest.raises(NotFound, match="no skill `oen`. Did you mean `one`.*hint: look"):
        run_jobs(failing, tmp_path / "answers", 1, "test")
    assert (tmp_path / "answers" / "a.json").exists() and not (tmp_path / "answers" / "bad.json").exists()


def test_a_worker_that_is_killed_is_said_in_a_sentence(work, chain, tmp_path):
    jobs = [*chain[2:], Job("gone", work.vanish, {}, ("a",))]
    with pytest.raises(SkillweaveError, match="a worker was killed, most likely because memory ran out"):
        run_jobs(jobs, tmp_path / "answers", 1, "test")
    assert (tmp_path / "answers" / "a.json").exists()


def test_jobs_that_wait_for_nothing_are_our_mistake(chain, tmp_path):
    pool = ProcessPoolExecutor(1)
    with pytest.raises(AssertionError, match="b, c wait for jobs that nobody does"):
        jobs._drive(jobs.Workers(1, None, pool.submit), chain[1:3], {}, tmp_path)
    pool.shutdown()


def test_workers_die_with_an_interrupt(work, tmp_path):
    def interrupt():
        wait_until(lambda: len([p for name in "ab" if (p := tmp_path / name).exists() and p.read_text()]) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    sleepers = [Job(name, work.sleep, {"folder": str(tmp_path), "name": name}) for name in "ab"]
    threading.Thread(target=interrupt, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_jobs(sleepers, tmp_path / "answers", 2, "test")
    assert time.monotonic() - began < 60
    wait_until(lambda: not any(alive(int((tmp_path / name).read_text())) for name in "ab"), 5)


def test_workers_die_with_a_killed_parent(work, tmp_path):
    code = (
        "import sys, work_of_jobs\nfrom pathlib import Path\nfrom skillweave.jobs import Job, run_jobs\n"
        "if __name__ == '__main__':\n"
        "    folder = sys.argv[1]\n"
        "    run_jobs([Job('a', work_of_jobs.sleep, {'folder': folder, 'name': 'a'})], Path(folder) / 'answers', 1, 'test')\n"
    )
    (tmp_path / "parent.py").write_text(code)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(SOURCE), str(tmp_path)])}
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py"), str(tmp_path)], env=env, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: (tmp_path / "a").exists() and (tmp_path / "a").read_text())
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not alive(int((tmp_path / "a").read_text())), 10)


def test_errors_cross_processes_whole():
    error = pickle.loads(pickle.dumps(NotFound("skill", "oen", ["one"], hint="look")))
    assert (type(error), str(error)) == (NotFound, "no skill `oen`. Did you mean `one`?   hint: look")


def test_a_busy_machine_is_said(chain, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jobs.os, "cpu_count", lambda: 2)
    for load, said in ((1.9, 0), (7.25, 1)):
        monkeypatch.setattr(jobs.os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        jobs._warn_if_busy()
        assert capsys.readouterr().err.count("load 7.2 on 2 cores") == said
