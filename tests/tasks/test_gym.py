"""Tasks of reasoning_gym: splits of our own, verifiers that are not believed too much, chains that need every step.

Most of it is shown on a stand-in for the package, which makes sums as it does; the rest where the package is installed.
"""

import json
import random
import re
import sys
from collections import Counter
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType

import pytest

from skillweave.errors import BadData, BadOption, MissingExtra, NotFound
from skillweave.task import SPLITS, check_task
from skillweave.tasks import gym, load_task
from skillweave.tasks.audit import audit

RESULT = Path(__file__).resolve().parents[2] / "results" / "gym_audit.json"


class Made:
    """Items as the package makes them: item i from Random(seed + i), whatever its number."""

    def __init__(self, seed, size, **settings):
        self.seed, self.size, self.settings = seed, size, {"largest": 99} | settings
        if unknown := set(settings) - {"largest"}:
            raise TypeError(f"unexpected settings {', '.join(unknown)}")

    def __getitem__(self, at):
        assert 0 <= at < self.size
        draw = random.Random(self.seed + at)
        question, answer = self.make(draw, self.settings["largest"])
        return {"question": question, "answer": answer, "metadata": {}}

    def score_answer(self, answer, entry):
        """Partial credit for an answer that has the right one in it, as the package gives."""
        return 1.0 if answer == entry["answer"] else len(entry["answer"]) / len(answer) if entry["answer"] in answer else 0.0


class Sum(Made):
    def make(self, draw, largest):
        one, other = draw.randint(1, largest), draw.randint(1, largest)
        return f"State the final answer to the following arithmetic problem: {one} + {other} =", str(one + other)


class Divisor(Made):
    def make(self, draw, largest):
        print(".", end="")
        return f"Which digit comes first in {(number := draw.randint(10, 10**6))}?", str(number)[0]


class Nothing(Made):
    def make(self, draw, largest):
        return f"Colour the graph {draw.random()}.", None


class Crashes(Sum):
    def score_answer(self, answer, entry):
        return float(int(answer) == int(entry["answer"]))


KINDS = {"chain_sum": Sum, "gcd": Divisor, "graph_color": Nothing, "spell_backward": Sum, "prime_factorization": Crashes}


@pytest.fixture
def package(monkeypatch):
    """A stand-in for the package, with five tasks."""
    fake = ModuleType("reasoning_gym")
    fake.create_dataset = lambda name, **more: KINDS[name](
        **{k: v for k, v in more.items() if not k.startswith(("min", "max"))}
    )
    monkeypatch.setitem(sys.modules, "reasoning_gym", fake)
    monkeypatch.setattr(gym, "version", lambda name: gym.VERSION)
    monkeypatch.setattr(gym, "SOUND", tuple(KINDS))
    forget()
    yield fake
    forget()


def forget():
    for kept in (gym._dataset, gym._entry, gym.item_of, gym.pool):
        kept.cache_clear()


def test_splits_are_by_content_and_hold_for_every_seed(package):
    seen = {split: set() for split in SPLITS}
    for seed in range(3):
        task = gym.Gym(seed, "chain_sum")
        check_task(task, 40)
        for split in SPLITS:
            seen[split] |= {frozenset(re.findall(r"\d+", example.prompt)) for example in task.take(300, split)}
    assert min(map(len, seen.values())) > 500
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["valid"] and not seen["valid"] & seen["test"]


def test_two_seeds_are_two_streams(package):
    one, other = ([e.prompt for e in gym.Gym(seed, "chain_sum").take(200, "train")] for seed in (0, 1))
    assert len(set(one) & set(other)) < 20 and one == [e.prompt for e in gym.Gym(0, "chain_sum").take(200, "train")]


def test_partial_credit_is_none_and_a_verifier_that_fails_says_wrong(package):
    task = gym.Gym(0, "chain_sum")
    example = task.example(0, "test")
    assert (
        task.score(example, f" {example.completion}\n")
        == 1
        == gym._dataset("chain_sum", "{}").score_answer("5", {"answer": "5"})
    )
    assert task.score(example, f"it is {example.completion}") == 0 == task.score(example, "")
    broken = gym.Gym(0, "prime_factorization")
    example = broken.example(0, "test")
    assert [broken.score(example, said) for said in (example.completion, f"0{example.completion}", "none", "9" * 9999)] == [
        1,
        1,
        0,
        0,
    ]
    assert audit(broken, 30).sound


def test_where_only_the_answer_itself_is_right_the_verifier_is_not_asked(package, monkeypatch):
    monkeypatch.setattr(Sum, "score_answer", lambda *_: pytest.fail("asked"))
    task = gym.Gym(0, "spell_backward")
    example = task.example(0, "valid")
    assert "spell_backward" in gym.EXACT and task.score(example, example.completion) == 1 and task.score(example, "1 + 1") == 0


def test_what_an_item_prints_is_not_printed(package, capsys):
    gym.Gym(0, "gcd").take(5, "train")
    assert capsys.readouterr().out == ""


def test_settings_are_passed_on_and_make_another_task(package):
    small = gym.Gym(0, "chain_sum", {"largest": 9})
    assert max(int(n) for e in small.take(50, "train") for n in re.findall(r"\d+", e.prompt)) == 9
    assert small.digest() != gym.Gym(0, "chain_sum").digest()


@pytest.mark.parametrize("parts", [("gcd", "chain_sum"), ("chain_sum", "chain_sum", "chain_sum")])
def test_a_chain_needs_every_step(package, parts):
    task = gym.GymChain(3, parts)
    check_task(task, 30)
    answers = Counter()
    for example in task.take(60, "test"):
        head, first, *rest = example.prompt.strip().split("\n")
        values = [line.partition("] ")[2] for line in example.completion.split("\n")]
        assert len(rest) == len(parts) - 1 and head.startswith("Here [1] stands")
        if parts[0] == "gcd":
            assert re.search(r"in (\d)", first)[1] == values[0]
        for step, question in enumerate(rest, 1):
            assert question.count(f"[{step}]") == 1, "the answer of the step before is not told"
            one, other = re.search(r": (\S+) \+ (\d+) =$", question).groups()
            assert one == f"[{step}]" and int(values[step - 1]) + int(other) == int(values[step])
        assert example.tags["inner"].split(" / ") == values[:-1] and task.score(example, values[-1]) == 1
        answers[values[-1]] += 1
    assert len(answers) > 15


def test_chains_keep_the_splits_of_their_parts(package):
    task = gym.GymChain(0, ("gcd", "chain_sum"))
    sums = {split: set() for split in SPLITS}
    for split in SPLITS:
        for example in task.take(100, split):
            inner = example.tags["inner"]
            question = example.prompt.strip().rpartition("[2] ")[2].replace("[1]", inner)
            alone = frozenset(re.findall(r"\d+", question))
            sums[split].add(alone)
            assert task.content(example) == frozenset(
                gym.item_of(what, key, int(at)).content
                for (what, key), at in zip(task.parts, example.tags["items"].split(), strict=True)
            )
    assert min(map(len, sums.values())) > 30 and not sums["train"] & sums["test"]


def test_a_chain_may_leave_out_the_steps(package):
    example = gym.GymChain(0, ("gcd", "chain_sum"), trace=False).example(0, "test")
    assert example.completion == gym.GymChain(0, ("gcd", "chain_sum")).final(
        gym.named("gym-gcd-then-chain-sum").example(0, "test").completion
    )


def test_names_have_hyphens(package, cli):
    assert load_task("gym-chain-sum", 2).name == load_task("gym-chain_sum", 2).name == "gym-chain-sum"
    assert load_task("gym-gcd-then-chain-sum").depths == (2,)
    said = cli("tasks", "show", "gym-gcd-then-chain-sum", "-n", "3", "--json")
    assert said.code == 0 and len(json.loads(said.out)["examples"]) == 3


def test_the_list_has_the_audit_of_each(package, cli, monkeypatch):
    monkeypatch.setattr(gym, "SOUND", ("chain_sum", "gcd"))
    rows = json.loads(cli("tasks", "--gym", "-n", "10", "--json").out)["tasks"]
    assert [(row["name"], row["audit"]["fault"], row["audit"]["n"]) for row in rows] == [
        ("gym-chain-sum", "", 10),
        ("gym-gcd", "", 10),
    ]
    assert "gym-count-bits can come behind another" in cli("tasks", "--gym", "-n", "10").err


def test_without_the_package_one_sentence_names_the_extra(monkeypatch, cli):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(gym, "version", absent)
    forget()
    with pytest.raises(MissingExtra, match=r"a task of reasoning_gym needs a package.*skillweave\[gym\]"):
        gym.Gym(0, gym.SOUND[0])
    said = cli("tasks", "show", "gym-gcd")
    assert said.code == 1 and "skillweave[gym]" in said.err and "Traceback" not in said.err


@pytest.mark.parametrize(
    ("kind", "words", "make"),
    [
        (NotFound, "no sound task of reasoning_gym `puzzle24`", lambda: gym.Gym(0, "puzzle24")),
        (NotFound, "`chain_sums`. Did you mean `chain_sum`", lambda: gym.named("gym-chain-sums")),
        (NotFound, "no task that takes an answer `gcd`", lambda: gym.named("gym-chain-sum-then-gcd")),
        (BadOption, "refuses .*larger.* for chain_sum", lambda: gym.Gym(0, "chain_sum", {"larger": 3})),
        (BadOption, "5 tasks cannot make a chain", lambda: gym.GymChain(0, ("chain_sum",) * 5)),
        (BadData, "the train split of `gym-graph-color` is empty", lambda: gym.Gym(0, "graph_color").example(0, "train")),
        (BadData, "no answer of chain_sum leads on", lambda: gym.GymChain(0, ("chain_sum", "chain_sum")).example(0, "test")),
        (NotFound, "split", lambda: gym.Gym(0, "gcd").example(0, "dev")),
    ],
)
def test_mistakes_are_answered_in_a_sentence(package, monkeypatch, kind, words, make):
    if "leads on" in words:
        monkeypatch.setattr(gym, "POOL", 0)
    with pytest.raises(kind, match=words):
        make()


def test_another_version_is_refused(package, monkeypatch):
    monkeypatch.setattr(gym, "version", lambda name: "0.1.26")
    with pytest.raises(BadOption, match=r"reasoning_gym is 0\.1\.26, but 0\.1\.25 is what was audited"):
        gym.Gym(0, "gcd")


def test_what_is_offered_is_what_passed():
    result = json.loads(RESULT.read_text())
    rows = {row["job"]: row for row in result["values"]["rows"]}
    assert result["verdict"] == "holds" and len(rows) == 105
    assert tuple(name for name, row in rows.items() if row["offered"]) == gym.SOUND and len(gym.SOUND) >= 50
    assert all(bool(row["why not"]) != row["offered"] for row in rows.values())
    assert {"puzzle24", "countdown", "game_of_life_halting", "list_functions"}.isdisjoint(gym.SOUND)
    assert {name for name, row in rows.items() if row["judge"] == "exact match" and row["offered"]} == set(gym.EXACT)
    assert set(gym.PLACES) <= set(gym.SOUND)


@pytest.mark.parametrize("what", ["gcd", "chain_sum", "spell_backward", "prime_factorization"])
def test_the_package_itself(what):
    pytest.importorskip("reasoning_gym", reason="the extra gym is not installed")
    forget()
    assert audit(gym.Gym(1, what), 20).sound


@pytest.mark.parametrize("second", gym.PLACES)
def test_chains_of_the_package_itself(second):
    pytest.importorskip("reasoning_gym", reason="the extra gym is not installed")
    forget()
    assert audit(gym.GymChain(1, ("letter_counting", second)), 10).sound
