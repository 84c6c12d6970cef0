"""The audit: every task passes it, and it sees what is wrong with a task that should not."""

import os
import resource
import subprocess
import sys

import pytest

from skillweave import tasks
from skillweave.task import Example, Task
from skillweave.tasks import TASKS, load_data, load_task
from skillweave.tasks.audit import audit


class Coin(Task):
    """Three answers of four are heads."""

    name, description = "coin", "a number -> heads or tails"

    def example(self, i, split):
        self.check_split(split)
        return Example(f"{split} {i}\n", "heads" if i % 4 else "tails")


class Stepwise(Coin):
    """The same with a step before it, another one each time, that does not count."""

    def example(self, i, split):
        one = super().example(i, split)
        return Example(one.prompt, f"step {i}\n{one.completion}")

    def final(self, completion):
        return completion.strip().rpartition("\n")[2]


class Generous(Coin):
    """Gives half a point to any text."""

    def score(self, example, completion):
        return max(super().score(example, completion), 0.5 * bool(completion.strip()))


class ForNothing(Coin):
    def score(self, example, completion):
        return max(super().score(example, completion), 0.25)


class Wrong(Coin):
    def score(self, example, completion):
        return 0.0


class Leaky(Coin):
    def example(self, i, split):
        return super().example(i, "test")


def test_every_task_is_sound():
    found = {name: audit(load_task(name, 5), 60) for name in TASKS}
    assert len(found) == len(TASKS) == 33
    for name, one in found.items():
        assert (one.task, one.fault, one.truth) == (name, "", 1), one
        assert max(one.nothing, one.junk) <= one.wrong_at_most and one.n >= 50
        assert max(one.guess, one.other) <= 0.25, f"{name} can be guessed"


def test_the_most_common_answer_is_the_guess():
    one = audit(Coin(), 40)
    assert (one.n, one.truth, one.nothing, one.junk, one.guess, one.other, one.fault) == (40, 1, 0, 0, 0.75, 0.5, "")
    assert (audit(Stepwise(), 40).guess, audit(Stepwise(), 40).fault) == (0.75, "")


@pytest.mark.parametrize(
    ("kind", "shown", "fault"),
    [
        (Generous, {"truth": 1, "junk": 0.5, "nothing": 0.5, "guess": 0.875}, "scores 0.5"),
        (ForNothing, {"truth": 1, "junk": 0.25, "nothing": 0.25}, "'' scores 0.25"),
        (Wrong, {"truth": 0}, "does not score 1"),
        (Leaky, {"truth": 1}, "train and valid share"),
    ],
)
def test_faults_are_named_and_scores_show_them(kind, shown, fault):
    one = audit(kind(), 40)
    assert fault in one.fault and not one.sound
    assert {name: getattr(one, name) for name in shown} == shown


def test_a_bound_that_is_declared_is_no_fault():
    task = Generous()
    task.wrong_at_most = 0.5
    assert audit(task, 40).sound and audit(task, 40).junk == 0.5


def test_files_can_be_audited_too(tmp_path):
    (tmp_path / "few.jsonl").write_text("".join(f'{{"prompt": "p{i}", "completion": "{i % 3}"}}\n' for i in range(90)))
    one = audit(load_data(tmp_path / "few.jsonl"))
    assert one.sound and 0.1 < one.guess < 0.7
    (tmp_path / "one.jsonl").write_text('{"prompt": "p", "completion": "c"}\n')
    assert audit(load_data(tmp_path / "one.jsonl")).n in (0, 1)


def test_a_task_whose_splits_share_is_not_handed_out(monkeypatch):
    monkeypatch.setitem(TASKS, "leaky", f"{__name__}:Leaky")
    monkeypatch.setattr(tasks, "import_module", lambda name: sys.modules[__name__])
    with pytest.raises(AssertionError, match="task `coin`: train and valid share"):
        load_task("leaky")


def test_the_list_of_tasks_with_its_audit_is_quick():
    """Under 2 s of processor time, with everything that is imported."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "skillweave", "tasks"], env=env, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.0
