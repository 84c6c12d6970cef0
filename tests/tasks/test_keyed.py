"""Key-value arithmetic: right, apart between the splits, and the same keys with other numbers for a control."""

import re
from collections import Counter

import pytest

from skillweave.errors import BadOption
from skillweave.task import SPLITS, check_task
from skillweave.tasks import load_task
from skillweave.tasks.keyed import KEYS, Keys, KeySums, Numbers, Sums, Terms, key_split, table, written

TASKS = ("sums", "numbers", "keys", "key-sums")


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("name", TASKS)
def test_the_contract_is_kept(name, seed):
    check_task(load_task(name, seed), 150)


@pytest.mark.parametrize(("number", "digits", "text"), [(12, 2, "21"), (7, 2, "70"), (19, 3, "910"), (297, 3, "792")])
def test_the_lowest_digit_comes_first(number, digits, text):
    assert written(number, digits) == text


def test_answers():
    assert Sums(0).answer(["21", "70"]) == "910" and Sums(0).answer(["99", "99", "99"]) == "792"
    assert Numbers(0).answer(["21", "70"]) == "21+70"
    values = table(0)
    one, two = list(values)[:2]
    assert Keys(0).answer([one, two]) == f"{written(values[one], 2)}+{written(values[two], 2)}"
    assert KeySums(0).answer([one, two]) == written(values[one] + values[two], 3)


def test_there_are_500_keys_with_numbers_from_1_to_99():
    values = table(0)
    assert len(values) == sum(KEYS.values()) == 500 and all(re.fullmatch("[a-z]{2}", key) for key in values)
    assert min(values.values()) >= 1 and max(values.values()) <= 99 and len(set(values.values())) > 90
    assert Counter(map(key_split, values)) == KEYS
    assert table(0) == values != table(1) and set(table(1)) != set(values)


def test_shuffled_keys_have_the_same_numbers_elsewhere():
    values, other = table(0), table(0, shuffled=True)
    assert list(values) == list(other) and sorted(values.values()) == sorted(other.values())
    assert sum(values[key] == other[key] for key in values) < 20


def _keys(example):
    return example.prompt[:-1].split("+")


def test_key_sums_give_each_split_keys_of_its_own():
    task = KeySums(0)
    for split in SPLITS:
        examples = task.take(600, split)
        used = {key for e in examples for key in _keys(e)}
        assert {key_split(key) for key in used} == {split} and len(used) > 0.9 * KEYS[split]
        assert {len(_keys(e)) for e in examples} == {2, 3}


def test_keys_are_all_met_in_training_and_tested_in_new_company():
    task = Keys(0)
    train = task.take(3000, "train")
    assert {key for e in train for key in _keys(e)} == set(table(0))
    assert {len(_keys(e)) for e in task.take(200, "test")} == {2, 3}  # a single key is for training
    seen = {frozenset(Counter(_keys(e)).items()) for e in train}
    assert not any(frozenset(Counter(_keys(e)).items()) in seen for e in task.take(500, "test"))


def test_numbers_cannot_be_kept_apart():
    with pytest.raises(BadOption, match="numbers cannot be kept apart"):
        Terms(apart=True)
