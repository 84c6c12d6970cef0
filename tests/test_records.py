"""Dates, numbers, countries and invoices: right, unambiguous, and apart between the splits."""

import sys
import time
from datetime import date, timedelta
from itertools import combinations
from types import SimpleNamespace

import pytest

from skillweave.errors import BadData, MissingExtra
from skillweave.task import split_of
from skillweave.tasks import TASKS, load_task, records

SAMPLE = 1000
SPLITS = ("train", "valid", "test")


def everything(name, seed=0, n=SAMPLE):
    task = load_task(name, seed)
    return {split: task.take(min(n, task.size(split) or n), split) for split in SPLITS}


def contents(name, split, seed=0, n=SAMPLE):
    task = load_task(name, seed)
    examples = task.take(min(n, task.size(split) or n), split)
    return {key for example in examples for key in task.content(example)}


def inputs(name, example):
    start = f"{name}: "
    assert example.prompt.startswith(start)
    return example.prompt.removeprefix(start).removesuffix("\n")


def test_prompts_and_completions_are_bare_lines():
    for name in ("date", "number", "country", "invoice"):
        for examples in everything(name, n=200).values():
            for example in examples:
                assert example.prompt.endswith("\n") and example.prompt.count("\n") == 1
                assert example.completion == example.completion.strip() and "\n" not in example.completion
                text = inputs(name, example)
                assert text == " ".join(text.split())


def test_dates_read_as_a_person_would():
    day = date(2021, 5, 3)
    assert records.date_text(day, "en_US", "medium") == "May 3, 2021"
    assert records.date_text(day, "en_GB", "full") == "Monday, 3 May 2021"
    assert records.date_text(day, "de", "long") == "3. Mai 2021"
    assert records.date_text(day, "it", "full") == "lunedì 3 maggio 2021"
    assert records.date_text(day, "pt_BR", "long") == "3 de maio de 2021"


def test_no_text_means_two_dates():
    meaning = {}
    for day in [date(year, 1, 1) + timedelta(k) for year in (2023, 2024) for k in range(366)]:
        for locale in records.LOCALES:
            for form in records.FORMS:
                text = records.date_text(day, locale, form)
                assert meaning.setdefault(text.casefold(), day) == day, text
                assert str(day.year) in text
    assert len(records.LOCALES) >= 8 and len(meaning) > 8 * 700


def test_numeric_dates_have_one_order_of_day_and_month():
    orders = set()
    for locale in records.LOCALES:
        for form in records.FORMS:
            text = records.date_text(date(2021, 5, 3), locale, form)
            if text.replace(".", "").replace("/", "").replace("-", "").isdigit():
                orders.add(text)
    assert orders == {"03.05.2021"}


def test_dates_cover_all_years_locales_and_forms():
    examples = load_task("date").take(3000, "train")
    assert {int(e.completion[:4]) for e in examples} == set(range(1990, 2040))
    assert {(e.tags["locale"], e.tags["form"]) for e in examples} == {(x, y) for x in records.LOCALES for y in records.FORMS}


TRICKY = {
    "en": {1: "one", 205: "two hundred and five", 999: "nine hundred and ninety-nine"},
    "fr": {71: "soixante et onze", 80: "quatre-vingts", 81: "quatre-vingt-un", 200: "deux cents", 201: "deux cent un"},
    "es": {21: "veintiuno", 100: "cien", 101: "ciento uno", 500: "quinientos", 999: "novecientos noventa y nueve"},
}


@pytest.mark.parametrize("language", records.NUMBER_LANGUAGES)
def test_tricky_numbers_are_spelled_right(language):
    assert {value: records.number_text(value, language) for value in TRICKY[language]} == TRICKY[language]


def test_no_words_mean_two_numbers():
    meaning = {}
    for language in records.NUMBER_LANGUAGES:
        texts = set()
        for value in range(1, records.LARGEST + 1):
            text = records.number_text(value, language)
            assert meaning.setdefault(text.casefold(), value) == value, text
            assert not any(character.isdigit() for character in text)
            texts.add(text)
        assert len(texts) == records.LARGEST
    assert len(records.NUMBER_LANGUAGES) >= 3 and records.LARGEST >= 999


def test_short_and_long_numbers_both_occur():
    for split in SPLITS:
        assert {len(e.completion) for e in load_task("number").take(1000, split)} >= {2, 3}


def test_the_names_of_countries_are_whole_and_mean_one_country():
    rows = records.country_names()
    meaning = {}
    for text, code, _ in rows:
        assert meaning.setdefault(" ".join(text.casefold().split()), code) == code
    assert len(meaning) == len(rows) > 500
    assert len({code for _, code, _ in rows}) > 230
    assert all(len(text.split()) <= 3 and not set(text) & set(",()") for text, *_ in rows)
    assert {language for *_, language in rows} == set(records.COUNTRY_LANGUAGES)
    assert meaning["deutschland"] == meaning["allemagne"] == "DE"
    assert meaning["south korea"] == meaning["südkorea"] == "KR"


def test_a_name_that_means_two_countries_is_left_out(monkeypatch):
    countries = [
        SimpleNamespace(name=name, alpha_2=code) for name, code in (("France", "FR"), ("FRANCE", "XX"), ("Togo", "TG"))
    ]
    folder = records.package("pycountry", "country names").LOCALES_DIR
    monkeypatch.setattr(records, "package", lambda *_: SimpleNamespace(countries=countries, LOCALES_DIR=folder))
    names = [text.casefold() for text, *_ in records.country_names.__wrapped__()]
    assert "france" not in names and "togo" in names


def test_country_splits_hold_each_name_once():
    task, names = load_task("country"), []
    for split in SPLITS:
        names += [inputs("country", e) for e in task.take(task.size(split), split)]
    assert sorted(names) == sorted(text for text, *_ in records.country_names())
    shares = [task.size(split) / len(names) for split in SPLITS]
    assert 0.75 < shares[0] < 0.85 and all(0.08 < share < 0.13 for share in shares[1:])
    with pytest.raises(BadData, match="no example"):
        task.example(task.size("test"), "test")


@pytest.mark.parametrize("name", list(TASKS))
def test_splits_stay_apart_even_with_other_seeds(name):
    by_split = {split: contents(name, split, 0, 500) | contents(name, split, 1, 500) for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        assert by_split[one] and not by_split[one] & by_split[other]


def test_skill_splits_do_not_share_texts():
    for name in ("date", "number", "country"):
        texts = {split: {inputs(name, e).casefold() for e in examples} for split, examples in everything(name).items()}
        assert not texts["train"] & texts["test"] and not texts["valid"] & texts["test"] and not texts["train"] & texts["valid"]


def test_invoices_have_24_train_examples_of_24_countries():
    task = load_task("invoice")
    assert [task.size(split) for split in SPLITS] == [24, 400, 1000]
    train = task.take(24, "train")
    assert len({e.completion[:2] for e in train}) == 24
    assert task.example(24, "train") == train[0]
    assert {e.tags["phrasing"] for e in train} == {"seen"}
    with pytest.raises(BadData, match="24 examples, and 25"):
        task.take(25, "train")


@pytest.mark.parametrize("split", ["valid", "test"])
def test_half_of_the_held_out_invoices_have_unseen_phrasings(split):
    examples = load_task("invoice").take(400, split)
    assert [e.tags["phrasing"] for e in examples] == ["seen", "unseen"] * 200


def carrier(sentence, phrasings):
    """Which of `phrasings` the sentence was made with."""
    fixed = {phrasing: [part.partition("}")[2] for part in phrasing.split("{")][1:] for phrasing in phrasings}
    starts = {phrasing: phrasing.partition("{")[0] for phrasing in phrasings}
    return [p for p in phrasings if sentence.startswith(starts[p]) and all(part in sentence for part in fixed[p])]


def test_unseen_phrasings_are_not_in_train():
    assert len(set(records.SEEN_PHRASINGS)) == len(set(records.UNSEEN_PHRASINGS)) == 6
    assert not set(records.SEEN_PHRASINGS) & set(records.UNSEEN_PHRASINGS)
    for split, examples in everything("invoice").items():
        found = set()
        for example in examples:
            sentence = inputs("invoice", example)
            seen, unseen = carrier(sentence, records.SEEN_PHRASINGS), carrier(sentence, records.UNSEEN_PHRASINGS)
            assert seen if example.tags["phrasing"] == "seen" else unseen, sentence
            assert split != "train" or not unseen, sentence
            found.update(seen, unseen)
        assert len(found) == (6 if split == "train" else 12)


def test_invoices_say_what_the_record_says():
    codes = {text: code for text, code, _ in records.country_names()}
    for split, examples in everything("invoice").items():
        for example in examples:
            code, day, value = example.completion.split(" | ")
            text, tags = inputs("invoice", example), example.tags
            assert records.date_text(date.fromisoformat(day), tags["locale"], tags["form"]) in text
            assert f" {records.number_text(int(value), 'en')} " in f" {text}"
            names = [name for name, meant in codes.items() if meant == code and name in text]
            assert names, (split, text)
            assert int(value) > 1  # "one euros"
            assert len(text.split()) < 30


def test_the_skills_train_on_what_invoices_hold():
    countries = {e.completion for e in everything("country")["train"]}
    train_names = {inputs("country", e) for e in everything("country")["train"]}
    for examples in everything("invoice").values():
        for example in examples:
            code, day, value = example.completion.split(" | ")
            assert code in countries
            assert any(name in example.prompt for name in train_names)
            assert split_of(f"date {day}") == split_of(f"number {value}") == "train"


def test_held_out_invoices_hold_nothing_of_the_24():
    for seed in (0, 1):
        train = contents("invoice", "train", seed)
        assert len([key for key in train if key.startswith("country")]) == 24 and len(train) > 60
        for split in ("valid", "test"):
            assert not train & contents("invoice", split, 0)


def test_fields_of_an_invoice_forgive_what_is_missing():
    task = load_task("invoice")
    example = task.example(0, "test")
    code, day, value = example.completion.split(" | ")
    right = {"country": 1.0, "date": 1.0, "amount": 1.0}
    assert task.fields(example, f" {code}|{day} |  {value}\n") == right
    assert task.fields(example, f"{code} | {day}") == right | {"amount": 0.0}
    assert task.fields(example, f"XX | {day} | {value}") == right | {"country": 0.0}
    assert task.fields(example, f"{code} | 1900-01-01 | {value} | 7") == right | {"date": 0.0}
    assert task.fields(example, "") == dict.fromkeys(right, 0.0)
    assert task.fields(example, f"{value} | {code} | {day}") == dict.fromkeys(right, 0.0)


def test_an_invoice_scores_only_when_all_of_it_is_right():
    task = load_task("invoice")
    example = task.example(0, "test")
    code, day, value = example.completion.split(" | ")
    assert task.score(example, f" {code} |  {day} | {value}\n") == 1
    for wrong in ("{code} | {day}", "{code} | {day} | {value}0", "{code} | {day} | {value} | x", "{day} | {code} | {value}"):
        assert task.score(example, wrong.format(code=code, day=day, value=value)) == 0


@pytest.mark.parametrize("name", list(TASKS))
def test_an_example_costs_little(name):
    """Less than five milliseconds, with the types of every call checked."""
    task = load_task(name)
    task.take(400, "valid") if task.size("valid") is None else task.take(min(90, task.size("valid")), "valid")
    start = time.process_time()
    for i in range(200):
        task.example(i, "train")
    assert (time.process_time() - start) / 200 < 5e-3


@pytest.mark.parametrize(("name", "package"), [("date", "babel"), ("number", "num2words"), ("country", "pycountry")])
def test_a_missing_package_is_named(name, package, monkeypatch):
    for cached in (records.package, records.country_names, records._names):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, "babel.dates", None)
    with pytest.raises(MissingExtra, match=f"pip install '{package}'"):
        load_task(name).example(0, "train")
