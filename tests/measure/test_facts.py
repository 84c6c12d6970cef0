"""Cloze facts: true, from packages, of one kind of answer each, and of no use to who does not look at the subject."""

from collections import Counter

import pytest

from skillweave.measure.facts import CHOICES, KINDS, _pool, facts

KNOWN = {
    ("Nairobi is a city in", "Kenya"),
    ("The official language of Denmark is", "Danish"),
    ("The currency of Thailand is the", "baht"),
    ("Peru is a country in", "America"),
    ("The German word for the number eighteen is", "achtzehn"),
    ("The Spanish word for the number seventy is", "setenta"),
}


@pytest.fixture(scope="module")
def items():
    return facts(1200, seed=0)


def test_facts_are_true(items):
    truth = {(template.format(s), answer) for kind, (template, _) in KINDS.items() for answer, subjects in _pool(kind).items()
             for s in subjects}  # fmt: skip
    assert truth >= KNOWN
    assert {(item.prompt, item.choices[item.answer]) for item in items} <= truth


def test_exactly_one_choice_is_true(items):
    for item in items:
        true = [c for c in item.choices if item.prompt in map(KINDS[item.kind][0].format, _pool(item.kind)[c])]
        assert true == [item.choices[item.answer]]


def test_every_kind_has_its_share_and_enough_choices(items):
    assert Counter(item.kind for item in items) == dict.fromkeys(KINDS, 200)
    assert {len(item.choices) for item in items if item.kind == "continent"} == {4}
    assert {len(item.choices) for item in items if item.kind != "continent"} == {CHOICES}
    assert all(len(set(item.choices)) == len(item.choices) for item in items)


def test_spelling_gives_nothing_away(items):
    for item in items:
        answer = item.choices[item.answer]
        assert answer[:3].casefold() not in {word[:3].casefold() for word in item.prompt.split()}
        assert not any(o != answer and (o.startswith(answer) or answer.startswith(o)) for o in item.choices)
    assert "Germany" not in _pool("language")["German"] and "Austria" in _pool("language")["German"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_favourite_answer_is_right_as_often_as_chance(kind):
    mine = [item for item in facts(6 * 2000, seed=1) if item.kind == kind]
    rank = {answer: i for i, answer in enumerate(sorted(_pool(kind), key=lambda a: (len(a), a)))}
    blind = sum(min(item.choices, key=rank.__getitem__) == item.choices[item.answer] for item in mine) / len(mine)
    first = sum(item.answer == 0 for item in mine) / len(mine)
    assert blind == pytest.approx(1 / len(mine[0].choices), abs=0.035)
    assert first == pytest.approx(1 / len(mine[0].choices), abs=0.035)


def test_a_seed_is_a_draw():
    assert facts(60, 0) == facts(60, 0) and facts(60, 0) == facts(200, 0)[:60]
    assert len({item.prompt for item in facts(60, 0)} & {item.prompt for item in facts(60, 1)}) < 40
