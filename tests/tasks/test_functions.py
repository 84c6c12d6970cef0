"""Nested functions: what each does, that every example needs all of itself, and what is held out."""

from dataclasses import replace
from itertools import pairwise

import pytest

from skillweave.errors import BadData, BadOption, NotFound
from skillweave.task import check_task
from skillweave.tasks.atoms import EQUAL, FAMILIES, LISTS, NUMBERS, Family, halves, lists, weave, words
from skillweave.tasks.functions import DEEPEST, FunctionChain, Step, held_out, small

SPLITS = ("train", "valid", "test")
ON_WORDS = {
    "reverse": "iaznab", "shift": "cboabj", "rotate": "anzaib", "back": "azmyzh", "swap": "abznia", "mirror": "yzmazr",
    "turn": "ibanza", "head": "canzai", "ends": "ianzab", "evens": "bbnaaj", "fan": "bnaazi", "tail": "banzah",
    "halves": "zaiban", "leap": "onamnv", "rest": "biazna", "staircase": "bbpcen", "sort": "aabinz", "unique": "banzi",
    "double": "bbaannzzaaii", "repeat": "banzaibanzai", "palindrome": "banzaiaznab", "stutter": "bbanzai",
    "behead": "anzai", "chop": "banza", "odd": "bna",
}  # fmt: skip
ON_LISTS = {
    "sums": "3 4 8 9 4", "differences": "3 8 3 7 4", "add 3": "6 4 7 4 8", "times 3": "9 3 2 3 5",
    "add the first": "3 4 7 4 8", "add the last": "8 6 9 6 5", "add places": "4 3 7 5 0", "nines": "6 8 5 8 4",
    "add the next": "4 5 5 6 5", "negate odd places": "3 9 4 9 5", "add the count": "8 6 9 6 0", "totals": "3 1 4 1 4",
}  # fmt: skip
ON_NUMBERS = {
    "plus 7": "991", "minus 30": "954", "times 7": "888", "from 500": "516", "plus 250": "234", "times 11": "824",
    "plus digit sum": "005", "times 3 plus 1": "953", "minus last digit": "584", "plus tens": "082",
    "exclusive or 21": "973", "square": "256",
}  # fmt: skip


def test_functions_do_what_they_are_called():
    assert {name: function("banzai") for name, function in words().table.items()} == ON_WORDS and len(ON_WORDS) == 25
    assert {name: function("3 1 4 1 5") for name, function in LISTS.items()} == ON_LISTS and len(ON_LISTS) == 12
    assert {name: function("984") for name, function in NUMBERS.items()} == ON_NUMBERS and len(ON_NUMBERS) == 12
    assert weave("abcd", "xy") == "axbycd" and weave("x", "abc") == "xabc"


def test_families_share_no_function_and_no_name():
    names = [name for make in FAMILIES.values() for name in make().table]
    assert len(set(names)) == len(names) == 49
    for short in (False, True):
        opaque = [name for make in FAMILIES.values() for name in make().names(short).values()]
        assert len(set(opaque)) == len(opaque) == 51 and not set(opaque) & set(names)
    order = [name for name in words().names() if name in ON_WORDS]
    assert order not in (list(ON_WORDS), sorted(ON_WORDS)), "opaque names have to be in an order that tells nothing"
    assert all(len(name) == 1 for make in FAMILIES.values() for name in make().names(short=True).values())


def test_twelve_functions_keep_the_length_and_lose_nothing():
    table = words("abcde", (4, 4)).table
    every = [f"{a}{b}{c}{d}" for a in "abcde" for b in "abcde" for c in "abcde" for d in "abcde"]
    for name in EQUAL:
        assert sorted(table[name](word) for word in every) == every, name
    assert len(EQUAL) == 12
    moving = {name for name in EQUAL if all(sorted(table[name](word)) == sorted(word) for word in every)}
    assert [len(moving & set(half)) for half in halves(EQUAL)] == [3, 3]


def test_halves_are_thirteen_and_twelve_and_share_nothing():
    seen, unseen = halves(list(words().table))
    assert len(seen) == 13 and len(unseen) == 12 and not set(seen) & set(unseen)
    assert (seen, unseen) == halves(list(words().table))


def test_the_innermost_is_applied_first_and_a_trace_has_a_line_a_step():
    task = FunctionChain(0, ["reverse", "shift"], 2, trace=True)
    names = task.family.names()
    example = next(e for e in task.take(50, "train") if e.tags["functions"] == f"{names['shift']} {names['reverse']}")
    word = example.tags["input"]
    back = word[::-1]
    on = task.family.table["shift"](back)
    assert example.prompt == f"{names['shift']}({names['reverse']}({word}))\n"
    assert example.completion == f"{names['reverse']}({word})={back}\n{names['shift']}({back})={on}"
    assert task.score(example, on) == task.score(example, f"nonsense\n{on}") == task.score(example, f" ?={on}\n") == 1
    assert task.score(example, f"{on}\n{back}") == task.score(example, back) == task.score(example, f"{on}=") == 0


def test_with_and_without_a_trace_the_examples_are_the_same():
    plain, traced = small(depth=3, trace=False), small(depth=3)
    for one, other in zip(plain.take(50, "test"), traced.take(50, "test"), strict=True):
        assert one.prompt == other.prompt and one.completion == traced.final(other.completion)
        assert plain.score(one, other.completion) == 1 == traced.score(other, one.completion)
        assert other.completion.count("\n") == 2


def test_every_family_and_depth_keeps_the_contract():
    made = [FunctionChain(3, None, depth, family=name) for name in FAMILIES for depth in (1, 2, 4, DEEPEST)]
    made += [FunctionChain(0, None, 2, half=half, pairs=pairs) for half in ("all", "seen", "unseen") for pairs in
             ("all", "seen", "unseen")]  # fmt: skip
    made += [small(), small(depth=3, half="unseen"), small(family=words("abcdefgh", (4, 5))), FunctionChain(0, joined=0.5)]
    for task in made:
        check_task(task, n=15)
    assert len(made) == 12 + 9 + 4


@pytest.mark.parametrize("family", list(FAMILIES))
def test_no_step_can_be_left_out(family):
    task = FunctionChain(1, None, (1, 2, 3, 5), family=_family(family), joined=0.3 if family == "words" else 0.0)
    by_name = {opaque: name for name, opaque in task.family.names().items()}
    depths = set()
    for example in task.take(400, "train"):
        value, steps = _read(example.prompt.strip(), by_name)
        depths.add(len(steps))
        assert task.values(steps, value)[-1] == example.completion != value
        for at in range(len(steps)):
            assert task.values(steps[:at] + steps[at + 1 :], value)[-1] != example.completion
    assert depths == {1, 2, 3, 5}


def test_a_literal_never_takes_the_place_of_the_value():
    task = FunctionChain(0, None, 2, family=_family("words"), joined=1.0)
    by_name = {opaque: name for name, opaque in task.family.names().items()}
    sides = set()
    for example in task.take(100, "test"):
        value, steps = _read(example.prompt.strip(), by_name)
        assert value == example.tags["input"] and all(step.literal for step in steps)
        sides |= {step.left for step in steps}
        assert task.values(steps, value[::-1] + "q")[-1] != example.completion
    assert sides == {True, False}


def _family(name: str) -> Family:
    """Words of at least four letters, so that they are never as short as a literal."""
    return words(lengths=(4, 8)) if name == "words" else FAMILIES[name]()


def _read(call: str, by_name: dict[str, str]) -> tuple[str, list[Step]]:
    """The value and the steps, innermost first, read from the prompt alone: of two words, the value is the longer call."""
    if "(" not in call:
        return call, []
    name, _, inside = call[:-1].partition("(")
    literal, left = "", False
    if "," in inside and by_name[name] in ("join", "weave"):
        left = "(" in inside.partition(",")[2] and "(" not in inside.partition(",")[0]
        if "(" not in inside:  # both are plain words: literals have at most three letters, values of this task more
            left = len(inside.partition(",")[0]) <= 3
        literal = inside.partition(",")[0] if left else inside.rpartition(",")[2]
        inside = inside.partition(",")[2] if left else inside.rpartition(",")[0]
    value, steps = _read(inside, by_name)
    return value, [*steps, Step(by_name[name], literal, left)]


def test_functions_that_ignore_their_value_or_do_nothing_are_refused():
    constant, idle = {"a": lambda w: "zz", "b": lambda w: "yy"}, {"a": str, "b": str}
    for table in (constant, idle, {"a": lambda w: "", "b": lambda w: ""}):
        with pytest.raises(BadData, match="no value on which every function matters"):
            FunctionChain(0, None, 1, family=replace(words(), table=table)).example(0, "train")
    undone = {"a": lambda w: w[::-1], "b": lambda w: w[::-1]}
    with pytest.raises(BadData, match="no value on which every function matters"):
        FunctionChain(0, None, 2, family=replace(words(), table=undone)).example(0, "train")


def test_held_out_functions_and_pairs_stay_out():
    counts = []
    for half in ("seen", "unseen"):
        for pairs in ("seen", "unseen"):
            task = FunctionChain(0, None, (2, 3), half=half, pairs=pairs)
            by_name = {opaque: name for name, opaque in task.family.names().items()}
            chains = [[by_name[name] for name in e.tags["functions"].split()] for e in task.take(300, "train")]
            assert {name for chain in chains for name in chain} <= set(halves(list(words().table))[half == "unseen"])
            held = [any(held_out(outer, inner) for outer, inner in pairwise(chain)) for chain in chains]
            assert all(held) if pairs == "unseen" else not any(held)
            counts.append(len({tuple(chain) for chain in chains}))
    assert len(counts) == 4 and min(counts) > 20
    every = [(a, b) for a in words().table for b in words().table]
    assert 0.15 < sum(held_out(*pair) for pair in every) / len(every) < 0.25


def test_values_are_apart_between_tasks_of_every_depth_and_half():
    seen = {split: set() for split in SPLITS}
    for task in (small(depth=1), small(depth=2, half="seen"), small(depth=3, half="unseen")):
        for split in SPLITS:
            seen[split] |= {key for e in task.take(200, split) for key in task.content(e)}
    assert not seen["train"] & seen["test"] and not seen["valid"] & (seen["train"] | seen["test"])


def test_the_small_variant_is_short():
    examples = small(depth=(1, 2, 3)).take(300, "train")
    assert max(len(e.prompt) for e in examples) == len("A(B(C(abcde)))\n")
    assert all(len(e.tags["input"]) == len(small().final(e.completion)) in (4, 5) for e in examples)
    assert max(len(line) for e in examples for line in e.completion.splitlines()) == 14


def test_other_settings_draw_other_examples():
    inputs = [[e.tags["input"] for e in small(depth=depth).take(20, "train")] for depth in (1, 2)]
    assert sum(one == other for one, other in zip(*inputs, strict=True)) < 4


@pytest.mark.parametrize(
    ("kind", "sentence", "make"),
    [
        (NotFound, "no function `revers`.* `reverse`", lambda: FunctionChain(0, ["revers", "sort"])),
        (NotFound, "no family `word`.* `words`", lambda: FunctionChain(0, family="word")),
        (NotFound, "no half `heldout`", lambda: FunctionChain(0, half="heldout")),
        (NotFound, "no pairs `unsen`.* `unseen`", lambda: FunctionChain(0, pairs="unsen")),
        (BadOption, "the functions are reverse.", lambda: FunctionChain(0, ["reverse"])),
        (BadOption, "the functions are sort, sort.", lambda: FunctionChain(0, ["sort", "sort"])),
        (BadOption, "depth is 9.*from 1 to 8", lambda: FunctionChain(0, None, 9)),
        (BadOption, r"depth is \(\)", lambda: FunctionChain(0, None, ())),
        (BadOption, "no pairs to be unseen", lambda: FunctionChain(0, None, 1, pairs="unseen")),
        (BadOption, "joined is 2", lambda: FunctionChain(0, joined=2.0)),
        (BadOption, "joined is 0.5.*only with words", lambda: FunctionChain(0, family="lists", joined=0.5)),
        (BadOption, r"lengths are \(5, 4\)", lambda: words(lengths=(5, 4))),
        (BadOption, r"lengths are \(1, 4\)", lambda: lists((1, 4))),
        (BadOption, "letters are 'aab'", lambda: words("aab")),
        (NotFound, "split", lambda: small().example(0, "dev")),
    ],
)
def test_mistakes_are_answered_in_a_sentence(kind, sentence, make):
    with pytest.raises(kind, match=sentence):
        make()
