"""Invented text: consistent, drawn from its seed, and never the same sentence in two splits."""

from collections import defaultdict

import pytest

from skillweave.curriculum.invented import FACTS, NOUNS, PEOPLE, RULES, VERBS, InventedField, grammar

SPLITS = ("train", "valid", "test")


def test_every_fact_is_said_in_every_way_and_once():
    field = InventedField(0)
    said = [sentence for split in SPLITS for sentence in field.sentences(split)]
    ways = sum(map(len, FACTS.values())) + sum(len(ways) for _, *ways in RULES.values())
    assert len(said) == len(set(said)) == PEOPLE * ways == 1320
    assert len(field.sentences("train")) > 900 and min(len(field.sentences(split)) for split in SPLITS) > 80


def test_rules_follow_from_facts():
    field = InventedField(3)
    for kind, (what, *_) in RULES.items():
        follows = defaultdict(set)
        for person in field.people:
            follows[field.facts[person, kind]].add(field.facts[person, what])
        assert len(follows) > 3 and all(len(values) == 1 for values in follows.values())


def test_seeds_are_other_countries():
    one, other = InventedField(0), InventedField(1)
    assert one.sentences("test") == InventedField(0).sentences("test")
    assert not set(one.sentences("train")) & set(other.sentences("train"))


@pytest.mark.parametrize("texts", [InventedField(0).texts, grammar], ids=["field", "grammar"])
def test_no_sentence_is_in_two_splits(texts):
    seen = {split: {s.strip() + "." for text in texts(60, split, 0) for s in text.split(".") if s} for split in SPLITS}
    assert all(len(sentences) > 60 for sentences in seen.values())
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["valid"] and not seen["valid"] & seen["test"]
    assert texts(5, "train", 0) == texts(5, "train", 0) != texts(5, "train", 1)


def test_every_sentence_is_read_before_any_comes_again():
    field = InventedField(0)
    count = len(field.sentences("train"))
    first = " ".join(field.texts(count // 3, "train", 4))
    assert all(sentence in first for sentence in field.sentences("train"))


def test_verbs_agree_and_sums_are_right():
    sentences = [sentence.strip() for text in grammar(300, "train", 0) for sentence in text.split(".") if sentence]
    sums = [s.split() for s in sentences if "+" in s]
    assert len(sums) > 100 and all(int(a) + int(b) == int(c) for a, _, b, _, c in sums)
    one, many = dict(VERBS), {plural: one for one, plural in NOUNS.items()}
    checked = 0
    for words in (s.lower().split() for s in sentences if "+" not in s):
        subject = next(word for word in words if word in NOUNS or word in many)
        verbs = [word for word in words if word in one or word in one.values()]
        assert all((verb in one) == (subject in NOUNS) for verb in verbs[-1:]), words
        checked += len(verbs)
    assert checked > 800
