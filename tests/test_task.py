"""The contract of a task, and that `check_task` sees each way to break it."""

import os
import random
import subprocess
import sys
from itertools import count

import pytest

from skillweave.errors import BadData, NotFound
from skillweave.task import Example, Task, assert_disjoint, check_task, split_of
from skillweave.tasks import TASKS, load_task


class Doubling(Task):
    """Split by the remainder of the number: a task that keeps the contract, unbounded."""

    name, description, template = "doubling", "twice a number", "double: {input}\n"

    def example(self, i, split):
        self.check_split(split)
        value = 3 * i + self.splits.index(split)
        return Example(self.prompt(str(value)), str(2 * value))


class Bounded(Doubling):
    """Ten examples a split."""

    def size(self, split):
        self.check_split(split)
        return 10

    def example(self, i, split):
        return super().example(self.place(i, split), split)


class Lenient(Doubling):
    def score(self, example, completion):
        return 1.0


class Harsh(Doubling):
    def score(self, example, completion):
        return 0.0


class Partial(Doubling):
    """Half the points for any text that is not empty."""

    def score(self, example, completion):
        return max(super().score(example, completion), 0.5 * bool(completion.strip()))


class Counting(Doubling):
    """Gives another example each time it is asked."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.calls = count()

    def example(self, i, split):
        return super().example(next(self.calls), split)


class GlobalRandom(Doubling):
    def example(self, i, split):
        return super().example(random.randrange(10**6), split)


class Leaky(Doubling):
    def example(self, i, split):
        return super().example(i, "train")


class LeakyContent(Doubling):
    """Prompts differ between splits, the answers to them do not."""

    def example(self, i, split):
        return Example(f"{split} {i}\n", str(i))

    def content(self, example):
        return frozenset({example.completion})


class EmptyAnswer(Doubling):
    def example(self, i, split):
        return Example(super().example(i, split).prompt, " ")


class ForgetsAPart(Doubling):
    def fields(self, example, completion):
        return {"number": 0.0}


@pytest.mark.parametrize("kind", [Doubling, Bounded])
def test_a_good_task_passes(kind):
    check_task(kind(), n=20)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (Lenient, "where '0' is right"),
        (Harsh, "does not score 1"),
        (Partial, "'junk' scores 0.5"),
        (Counting, "another one when asked again"),
        (GlobalRandom, "another one when asked again"),
        (Leaky, "train and valid share"),
        (LeakyContent, "share 'content"),
        (EmptyAnswer, "empty completion"),
        (ForgetsAPart, "in number"),
    ],
)
def test_check_task_finds(kind, fault):
    with pytest.raises(AssertionError, match=fault):
        check_task(kind(), n=20)


def test_a_task_may_declare_partial_scores():
    task = Partial()
    task.wrong_at_most = 0.5
    check_task(task, n=20)


def test_every_task_keeps_the_contract():
    seen = []
    for name in TASKS:
        for seed in (0, 7):
            task = load_task(name, seed)
            check_task(task, n=30)
            seen.append((task.name, task.seed))
    assert seen == [(name, seed) for name in TASKS for seed in (0, 7)] and len(TASKS) == 33


def test_seeds_differ_and_digests_say_so():
    for name in TASKS:
        one, other = load_task(name, 1), load_task(name, 2)
        assert one.take(5, "train") != other.take(5, "train")
        assert one.digest() != other.digest()
        assert one.digest() == load_task(name, 1).digest()


def test_another_process_gives_the_same_examples():
    code = "from skillweave.tasks import TASKS, load_task; print(*(load_task(name, 3).digest() for name in TASKS))"
    for hash_seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        answer = subprocess.check_output([sys.executable, "-c", code], env=env, text=True)
        assert answer.split() == [load_task(name, 3).digest() for name in TASKS]


def test_a_digest_changes_with_what_is_taught():
    task, other = Doubling(), Doubling()
    other.template = "twice: {input}\n"
    assert task.digest() != other.digest()
    assert Doubling().digest() != Bounded().digest()


def test_take_says_how_many_there_are():
    assert Bounded().take(3, "test", start=7) == [Bounded().example(i, "test") for i in (7, 8, 9)]
    with pytest.raises(BadData, match="the test split of `doubling` has 10 examples, and 11 were asked for.*at most 3"):
        Bounded().take(4, "test", start=7)


def test_a_bounded_train_split_starts_again_and_the_others_do_not():
    assert Bounded().example(13, "train") == Bounded().example(3, "train")
    for split in ("valid", "test"):
        with pytest.raises(BadData, match=f"no example 10 in the {split} split of `doubling`, which has 10"):
            Bounded().example(10, split)


def test_unknown_names_get_the_nearest():
    with pytest.raises(NotFound, match="no task `invoise`. Did you mean `invoice`"):
        load_task("invoise")
    with pytest.raises(NotFound, match="no split `tests` in task `date`. Did you mean `test`"):
        load_task("date").example(0, "tests")


def test_braces_stay_as_they_are():
    task = Doubling()
    task.template = '{"double": "{input}"}\n'
    assert task.prompt("{0}") == '{"double": "{0}"}\n'


def test_splits_by_hash_are_stable_and_about_80_10_10():
    splits = [split_of(f"key {k}") for k in range(5000)]
    assert 0.09 < splits.count("test") / 5000 < 0.11 and 0.09 < splits.count("valid") / 5000 < 0.11
    assert [split_of(key) for key in ("date 2021-05-03", "number 205")] == ["train", "train"]


def test_assert_disjoint_looks_at_all_of_a_bounded_task():
    class LateLeak(Bounded):
        def example(self, i, split):
            return super().example(i, "train" if i == 9 else split)

    assert_disjoint(LateLeak(), n=9)
    with pytest.raises(AssertionError, match="share"):
        assert_disjoint(LateLeak())


def test_assert_disjoint_looks_at_1000_of_an_unbounded_task():
    class LateLeak(Doubling):
        def example(self, i, split):
            return super().example(i, "train" if i == 900 else split)

    with pytest.raises(AssertionError, match="share"):
        assert_disjoint(LateLeak())


def test_examples_can_be_kept_in_sets():
    assert len({Example("a", "b", {"kind": "x"}), Example("a", "b", {"kind": "x"})}) == 1
