"""Format instructions: an answer of each form passes, another does not; what the controls pass is known and not sound."""

import random

import pytest

from skillweave.measure.formats import INSTRUCTIONS, Asked, Forms, asked, controls, degenerate, lexicon, met, score

GOOD = {
    "capitals": "KENYA HAS HIGH MOUNTAINS.",
    "small letters": "kenya has high mountains.",
    "no comma": "Kenya has high mountains.",
    "first word": "Honestly, Kenya is large.",
    "last word": "Of Kenya there is no more to say, and so I am finished.",
    "keyword": "The Tana is a river of Kenya.",
    "bullets": "- water\n- people\n- names",
    "numbers": "1. water\n2. people\n3. names",
    "json": '{"name": "Kenya"}',
    "quotes": '"Kenya is large."',
    "short": "A large country in the east.",
    "question": "Which lake is the largest of Kenya?",
}
BAD = {
    "capitals": "KENYA has high mountains.",
    "small letters": "Kenya has high mountains.",
    "no comma": "Kenya, a country, has high mountains.",
    "first word": "Kenya is large. Honestly",
    "last word": "I am finished with it now.",
    "keyword": "Kenya has rivers.",
    "bullets": "- water\n- people",
    "numbers": "1. water\n3. people\n2. names",
    "json": '["Kenya"]',
    "quotes": '"Kenya" is "large"',
    "short": "It is a country that one can hardly describe in ten words or fewer.",
    "question": "Which lake? The largest one.",
}


def test_there_are_twelve():
    assert len(INSTRUCTIONS) == 12 and GOOD.keys() == BAD.keys() == INSTRUCTIONS.keys()


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_an_answer_of_the_form_is_met_and_another_is_not(name):
    prompt = f"Instruction: {INSTRUCTIONS[name].words.format('Kenya')}\nAnswer:"
    assert met(name, f"\n {GOOD[name]} ") and not met(name, BAD[name])
    assert not degenerate(prompt, GOOD[name])


ASKED = asked(4, seed=0)
PASSED = {
    "empty": {"no comma", "short"},
    "gibberish": {"small letters", "no comma"},
    "prompt again": {"no comma", "keyword", "short"},
    "one word": {"small letters", "no comma"},
}


@pytest.mark.parametrize("name", PASSED)
def test_what_a_control_passes_is_known_and_none_of_it_is_sound(name):
    answers = controls(ASKED, seed=0)[name]
    passed = {question.name for question, answer in zip(ASKED, answers, strict=True) if met(question.name, answer)}
    assert PASSED[name] <= passed <= PASSED[name] | {"no comma"}
    assert score(ASKED, answers) == Forms(len(PASSED[name]) / 12, 0.0, 1.0)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "empty"),
        (" \n.!", "no word"),
        ("1.\n2.\n3.\n4.", "numbers alone"),
        ("xqv zzt plmk wrr", "gibberish"),
        ("Instruction: Write about Kenya without any comma.", "the prompt"),
        ("I am a student of it. I am a student of it. I am a student of it.", "again and again"),
        ("the the the the the the", "one word"),
    ],
)
def test_what_is_no_answer_is_seen(answer, why):
    assert degenerate("Instruction: Write about Kenya without any comma.\nAnswer:", answer), why


def test_shares_are_those_counted_by_hand():
    questions = [Asked("short", "p"), Asked("short", "p"), Asked("json", "p"), Asked("capitals", "p")]
    answers = [GOOD["short"], "", "This is a large country.", "THIS IS A LARGE COUNTRY."]
    assert score(questions, answers) == Forms(met=0.75, sound=0.5, degenerate=0.25)


def test_every_instruction_is_asked_about_every_topic():
    assert len(ASKED) == 48 and len({question.prompt for question in ASKED}) == 48
    assert asked(4, seed=0) == ASKED and asked(4, seed=1) != ASKED


def test_words_in_a_senseless_order_are_not_seen():
    """What the check cannot do, so that nobody takes it for more: page 31 says so."""
    draw = random.Random(0)
    salad = [" ".join(draw.choices(sorted(lexicon()), k=30)) for _ in ASKED]
    assert score(ASKED, salad) == Forms(met=2 / 12, sound=2 / 12, degenerate=0.0)
