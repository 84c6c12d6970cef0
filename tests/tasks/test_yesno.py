"""Yes/no questions: true, balanced, in every template, and never the same text in two splits."""

import pytest

from skillweave.errors import BadOption, NotFound
from skillweave.task import check_task
from skillweave.tasks.yesno import ALPHABET, ANSWERS, KINDS, LENGTH, MARK, TEMPLATES, Question

ALL = [(kind, words) for kind, (*_, sets) in KINDS.items() for words in range(len(sets))]


def truth(kind: str, vocabulary: int, text: str) -> bool:
    """The answer, worked out from the text alone."""
    words = KINDS[kind][2][vocabulary]
    if kind == "mood":
        return sum(c in words[0] for c in text) > sum(c in words[1] for c in text)
    if kind == "order":
        pairs = [(a, b) for i, a in enumerate(text) for b in text[i + 1 :]]
        return sum(a < b for a, b in pairs) > len(pairs) / 2
    if kind == "subject":
        return next(c for c in text if c in words[0] + words[1]) in words[1]
    return MARK in text


@pytest.mark.parametrize(("kind", "words"), ALL)
def test_each_is_a_task(kind, words):
    check_task(Question(kind, words))
    check_task(Question(kind, words, template=2, answers=1, noise=0.2, seed=3))


@pytest.mark.parametrize(("kind", "words"), ALL)
def test_answers_are_true_and_half_of_them_are_yes(kind, words):
    examples = Question(kind, words).take(300, "train")
    texts = [e.prompt.removesuffix(" ?") for e in examples]
    assert {len(text) for text in texts} == {LENGTH}
    assert [e.completion.strip() == "y" for e in examples] == [truth(kind, words, text) for text in texts]
    assert 0.4 < sum(e.completion == " y" for e in examples) / 300 < 0.6
    assert len(set(texts)) > 250


def test_all_kinds_were_looked_at():
    assert len(ALL) == 8 and len(KINDS) == 4


def test_vocabularies_share_no_word():
    for *_, sets in KINDS.values():
        one, other = (set("".join(words)) - set(".,;'") for words in sets)
        assert not one & other


@pytest.mark.parametrize(("template", "answers"), [(t, a) for t in range(len(TEMPLATES)) for a in range(len(ANSWERS))])
def test_the_text_stays_when_it_is_put_in_other_words(template, answers):
    plain, other = Question("mood"), Question("mood", template=template, answers=answers)
    for split in ("train", "test"):
        for i in range(20):
            one, two = plain.example(i, split), other.example(i, split)
            assert plain.content(one) == other.content(two)
            assert two.prompt == TEMPLATES[template].replace("{input}", one.prompt.removesuffix(" ?"))
            assert two.completion.strip() == ANSWERS[answers][("y", "n").index(one.completion.strip())]


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_noise_is_the_share_of_wrong_answers(noise):
    said = [e.completion for e in Question("order", 1, noise=noise).take(1000, "test")]
    true = [e.completion for e in Question("order", 1).take(1000, "test")]
    assert sum(a != b for a, b in zip(said, true, strict=True)) / 1000 == pytest.approx(noise, abs=0.04 * (noise > 0))


def test_a_base_of_the_alphabet_reads_all_of_it():
    for kind, words in ALL:
        for template in range(len(TEMPLATES)):
            for e in Question(kind, words, template=template, answers=1).take(20, "valid"):
                assert set(e.prompt + e.completion) <= set(ALPHABET)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vocabulary": 2}, "vocabulary is 2, but there are only 2"),
        ({"template": 9}, "template is 9, but there are only 4"),
        ({"answers": -1}, "answers is -1, but there are only 2"),
    ],
)
def test_what_there_is_not_is_said(options, words):
    with pytest.raises(BadOption, match=words):
        Question("mood", **options)
    with pytest.raises(NotFound, match="Did you mean `mood`"):
        Question("moo")
