"""Five kinds of input: as long, told apart by a rule that a person could apply, the same when asked again."""

from random import Random

import pytest

from skillweave.errors import NotFound
from skillweave.task import check_task
from skillweave.tasks import modalities
from skillweave.tasks.modalities import ALPHABET, BANDS, GLYPHS, KINDS, LENGTH, PATCHES, TOPICS, Modality


def drawn(kind, count=40):
    draw, classes = KINDS[kind]
    return [(label, draw(Random(f"{label}/{i}"), label)) for label in range(classes) for i in range(count)]


@pytest.fixture
def clean(monkeypatch):
    monkeypatch.setattr(modalities, "FLIP", {"image": 0.0, "video": 0.0})


@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), ("image", "sound")])
def test_tasks_keep_the_contract(kinds):
    task = Modality(0, *kinds)
    check_task(task, n=40)
    examples = task.take(100, "train")
    assert {len(example.prompt) for example in examples} == {(LENGTH + 1) * len(kinds) + 1}
    assert all(set(example.prompt + example.completion) <= set(ALPHABET) for example in examples)
    assert {len(example.completion) for example in examples} == {len(kinds)}


def test_an_unknown_kind_gets_a_sentence():
    with pytest.raises(NotFound, match="no kind of input `vidio`. Did you mean `video`"):
        Modality(0, "vidio")


def test_the_topic_is_that_of_the_first_noun():
    for label, words in drawn("text"):
        first, *_, last = words.split()
        assert first in TOPICS[label].split() and last not in TOPICS[label].split()
    nouns = [noun for topic in TOPICS for noun in topic.split()]
    assert len(set(nouns)) == len(nouns) == 50


def test_sound_is_louder_where_its_class_says():
    where = {1: lambda f, b: b == f, 2: lambda f, b: b == 3 - f, 3: lambda f, b: b in (0, 2), 4: lambda f, b: b in (0, 3)}
    for label, loud in where.items():
        levels = [[BANDS.index(c) for c in found] for k, found in drawn("sound") if k == label]
        places = [(frame, band) for frame in range(4) for band in range(4)]
        inside, outside = ([x[i] for x in levels for i, p in enumerate(places) if loud(*p) is side] for side in (True, False))
        assert sum(inside) / len(inside) > sum(outside) / len(outside) + 1.5


def pixels(patches, columns):
    """The rows of pixels behind patches that stand `columns` to a row."""
    rows = []
    for at in range(0, len(patches), columns):
        numbers = [PATCHES.index(patch) for patch in patches[at : at + columns]]
        rows += ["".join(f"{(n >> s) & 1}{(n >> s + 1) & 1}" for n in numbers) for s in (0, 2)]
    return rows


def test_images_are_their_glyphs(clean):
    for label, found in drawn("image"):
        rows = [row for row in pixels(found, 4) if "1" in row]
        assert len(rows) == 7 and any([row[x : x + 5] for row in rows] == GLYPHS[label].split() for x in range(4))


def test_a_dot_moves_its_way(clean):
    for label, found in drawn("video"):
        frames = [pixels(found[at : at + 4], 2) for at in range(0, LENGTH, 4)]
        places = [next((y, row.index("1")) for y, row in enumerate(frame) if "1" in row) for frame in frames]
        steps = {(b[0] - a[0], b[1] - a[1]) for a, b in zip(places, places[1:], strict=False)}
        assert steps == {modalities.DIRECTIONS[label]}


def test_pixels_flip_at_their_rate():
    draw = Random(0)
    ones = "".join(modalities.patches(draw, [[0] * 8 for _ in range(8)], 0.05) for _ in range(400))
    share = sum(PATCHES.index(patch).bit_count() for patch in ones) / (400 * 64)
    assert share == pytest.approx(0.05, abs=0.005)


def test_brackets_nest_as_deep_as_the_class_says():
    for label, found in drawn("code"):
        waiting, deepest = [], 0
        for character in found:
            if character in "([":
                waiting.append({"(": ")", "[": "]"}[character])
            elif character in ")]":
                assert waiting.pop() == character
            deepest = max(deepest, len(waiting))
        assert (waiting, deepest, len(found)) == ([], label + 1, LENGTH)
