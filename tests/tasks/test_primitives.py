"""Functions on words: right, apart between the splits under every name, and mixed by share."""

from collections import Counter
from itertools import combinations

import pytest

from skillweave.errors import BadData, BadOption, NotFound
from skillweave.task import Example, Task, assert_disjoint, check_task
from skillweave.tasks import load_data, load_task
from skillweave.tasks.primitives import CHAINED, FUNCTIONS, SHORT, Mixture, Words, chain, chains, primitives

SPLITS = ("train", "valid", "test")
KNOWN = {
    "copy": "banzai",
    "reverse": "iaznab",
    "sort": "aabinz",
    "shift": "cboabj",
    "double": "bbaannzzaaii",
    "rotate": "anzaib",
    "swap": "abznia",
    "unique": "banzi",
    "first": "b",
    "last": "i",
    "upper": "BANZAI",
}


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_functions_do_what_they_are_called(name):
    assert list(KNOWN) == list(FUNCTIONS) and len(KNOWN) == 11
    assert Words(0, [name]).answer("banzai") == KNOWN[name]
    example = load_task(name).example(0, "train")
    word = example.prompt.removeprefix(f"{name}: ").removesuffix("\n")
    assert word.isalpha() and 3 <= len(word) <= 8 and example.completion == FUNCTIONS[name](word)


def test_functions_are_applied_from_left_to_right():
    task = Words(0, ["rotate", "upper"])
    assert task.answer("abc") == "BCA" and task.name == "rotate upper"
    assert Words(0, ["double", "rotate"]).answer("ab") == "abba" != Words(0, ["rotate", "double"]).answer("ab")


def test_labels_take_the_place_of_the_names():
    assert len(set(SHORT.values())) == 11
    task, long = (Words(0, ["swap", "spin"], labels=labels, table={**FUNCTIONS, "spin": str}) for labels in (SHORT, None))
    short, example = task.example(3, "test"), long.example(3, "test")
    assert task.name == long.name == "swap spin" and example.prompt.startswith("swap spin: ")
    assert short.prompt == example.prompt.replace("swap spin", "W spin") and short.completion == example.completion
    assert task.content(short) == long.content(example)


def test_every_family_keeps_the_contract():
    made = [*chains(2), *chains(3, CHAINED[:3]), primitives(3), chain(3)]
    made += chains(1, list(FUNCTIONS), labels=SHORT)
    made += [Words(5, ["reverse"], letters="abc", lengths=(4, 6)), Words(0, ["spin"], table={"spin": lambda w: w + w[::-1]})]
    for task in made:
        check_task(task, n=40)
    assert len(made) == 42 + 6 + 11 + 4


def test_no_word_and_no_anagram_of_it_crosses_a_split_under_any_function():
    made = [*chains(1, list(FUNCTIONS)), *chains(2), chain(1), primitives(1)]
    seen = {split: {"".join(sorted(_word(e))) for task in made for e in task.take(60, split)} for split in SPLITS}
    assert len(made) == 55 and all(len(letters) > 200 for letters in seen.values())
    for one, other in combinations(SPLITS, 2):
        assert not seen[one] & seen[other]
    keys = {key for task in made for e in task.take(60, "test") for key in task.content(e)}
    assert keys == {f"letters {letters}" for letters in seen["test"]}


def _word(example: Example) -> str:
    return example.prompt.split(": ")[1].strip()


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "copy"])
def test_no_function_is_idle(name):
    """Copying the word would be right in less than a third of the cases."""
    examples = load_task(name).take(500, "test")
    assert sum(e.completion == _word(e) for e in examples) / 500 < 0.34


def test_a_mixture_keeps_its_shares_and_judges_by_the_owner():
    class Half(Task):
        """Gives half a point to everything else."""

        name, description, wrong_at_most = "half", "", 0.5

        def example(self, i, split):
            return Example(f"half: {split} {i}\n", f"{i}")

        def score(self, example, completion):
            return 1.0 if completion == example.completion else 0.5

    task = Mixture([Words(0, ["copy"]), Words(0, ["upper"]), Half()], [1, 3, 0.5])
    check_task(task)
    examples = task.take(1800, "train")
    count = Counter(e.tags["task"] for e in examples)
    assert count["copy"] == pytest.approx(400, abs=70) and count["half"] == pytest.approx(200, abs=50)
    assert {e.tags["task"]: task.score(e, "no") for e in examples} == {"copy": 0, "upper": 0, "half": 0.5}


def test_a_mixture_ends_where_its_shortest_task_does(tmp_path):
    (tmp_path / "few.jsonl").write_text("".join(f'{{"prompt": "p{i}", "completion": "c{i}"}}\n' for i in range(60)))
    few = load_data(tmp_path / "few.jsonl")
    task = Mixture([few, load_task("reverse")])
    assert [task.size(split) for split in SPLITS] == [few.size(split) for split in SPLITS] and task.size("test") > 0
    assert_disjoint(task)
    with pytest.raises(BadData, match="there is no example"):
        task.example(task.size("test"), "test")
    assert task.example(task.size("train"), "train") == task.example(0, "train")


@pytest.mark.parametrize(
    ("kind", "sentence", "make"),
    [
        (BadOption, "at least one function", lambda: Words(0, [])),
        (NotFound, "no function `revrse`.* `reverse`", lambda: Words(0, ["revrse"])),
        (BadOption, r"lengths are \(5, 3\)", lambda: Words(0, ["copy"], lengths=(5, 3))),
        (BadOption, "no letters", lambda: Words(0, ["copy"], letters="")),
        (BadData, "has no word of 1 to 1 of the letters 'a'", lambda: _all(Words(0, letters="a", lengths=(1, 1)))),
        (BadOption, "a mixture of 2 tasks with 1 names", lambda: Mixture([Words(0), Words(1)])),
        (BadOption, "a mixture of 0 tasks", lambda: Mixture([])),
        (BadOption, r"the shares of 1 tasks are \[1, 2\]", lambda: Mixture([Words(0)], [1, 2])),
        (BadOption, r"the shares of 1 tasks are \[0\]", lambda: Mixture([Words(0)], [0])),
        (NotFound, "split", lambda: Words(0).example(0, "dev")),
    ],
)
def test_mistakes_are_answered_in_a_sentence(kind, sentence, make):
    with pytest.raises(kind, match=sentence):
        make()


def _all(task: Task) -> None:
    for split in SPLITS:
        task.example(0, split)
