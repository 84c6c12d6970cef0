"""Generated pictures: what is drawn is recognised, what is spoilt is not, and places are apart between the splits."""

from itertools import combinations, product

import pytest

from skillweave.errors import BadOption, NotFound
from skillweave.task import check_task
from skillweave.tasks import load_task, sprites
from skillweave.tasks.sprites import (
    INSIDE,
    OFF,
    OUTSIDE,
    SHAPES,
    TEXTURES,
    Sprites,
    Withheld,
    all_of,
    draw,
    outline,
    shape_of,
    texture_of,
)

ALL = ["".join(words) for words in product(SHAPES, TEXTURES)]


def test_it_keeps_the_contract_of_a_task():
    check_task(Sprites())
    check_task(Sprites(3, "AB", "cd"))
    assert load_task("sprites").name == "sprites"


def test_every_picture_is_recognised_before_any_sky():
    for words, place in product(ALL, ("00", "37", "92")):
        picture = draw(words + place)
        assert (shape_of(picture), texture_of(picture)) == (words[0], words[1])
    assert len(ALL) == 100


def test_a_picture_by_hand():
    """The disc of bars before posts, on steps: its first row is 00111100, its last lies on the ground."""
    assert draw("Aa12")[:8] == "--!!!!--" and draw("Aa12")[-8:] == "//!!!!//"


def test_a_picture_has_pixels():
    """The same picture: bars (light over dark) in the disc, posts for a sky, steps for a ground."""
    rows = sprites.pixels(draw("Aa12"))
    assert [len(row) for row in rows] == [16] * 16
    assert rows[0] == "1010" + "3" * 8 + "1010" and rows[1] == "1010" + "2" * 8 + "1010"
    assert rows[14][:4] == "1010" and rows[15][:4] == "0101"


def test_shapes_and_textures_are_far_enough_apart():
    """No answer can be near two shapes at once by the tolerance alone; textures differ in half of their patches at least."""
    pairs = list(combinations(SHAPES, 2))
    assert min(sum(a != b for a, b in zip(outline(x), outline(y), strict=True)) for x, y in pairs) > 2 * OFF
    assert len(pairs) == 45 and len(set(TEXTURES.values())) == len(TEXTURES) == 10
    assert min(sum(a != b for a, b in zip(TEXTURES[x], TEXTURES[y], strict=True)) for x, y in combinations(TEXTURES, 2)) >= 2
    patches = "".join(TEXTURES[t] for t in TEXTURES)
    assert all(sum(p in cells for cells in TEXTURES.values()) >= 2 for p in set(patches)), "a patch that only one texture has"


def flipped(picture, count):
    """The first `count` patches moved from the inside to the outside or back."""
    swap = str.maketrans(INSIDE + OUTSIDE[:6], OUTSIDE[:6] + INSIDE)
    return picture[:count].translate(swap) + picture[count:]


def test_the_recognisers_forgive_little():
    picture = draw("Cb45")
    assert shape_of(flipped(picture, OFF)) == "C" and shape_of(flipped(picture, OFF + 1)) is None
    inside = [place for place, character in enumerate(picture) if character in INSIDE]
    for wrong, seen in ((len(inside) // 5, "b"), (len(inside) // 5 + 1, None)):
        spoilt = list(picture)
        for place in inside[:wrong]:
            spoilt[place] = INSIDE[5]
        assert texture_of("".join(spoilt)) == seen and shape_of("".join(spoilt)) == "C"


@pytest.mark.parametrize("junk", ["", "junk", draw("Aa00")[:-1], draw("Aa00") + "+", "?" * 64, OUTSIDE[0] * 64])
def test_junk_shows_nothing(junk):
    assert shape_of(junk) is None and texture_of(junk) is None


def test_fields_tell_shape_from_texture():
    task = Sprites()
    example = next(e for e in task.take(200, "test") if e.prompt[0] != "A" and e.prompt[1] != "a")
    shape, texture, place = example.prompt[0], example.prompt[1], example.prompt[2:4]
    for words, right in (((shape, texture), (1, 1, 1)), ((shape, "a"), (1, 0, 0)), (("A", texture), (0, 1, 0))):
        found = task.fields(example, draw("".join(words) + place))
        assert tuple(found.values()) == right and list(found) == ["shape", "texture", "both"]
    elsewhere = draw(shape + texture + place[::-1]) if place[0] != place[1] else draw(shape + texture + "01")
    assert task.fields(example, elsewhere)["both"] == 1 and task.score(example, elsewhere) == 0


def test_every_combination_once():
    task = Sprites(0, "AB", "ab")
    sizes = {split: task.size(split) for split in task.splits}
    assert sum(sizes.values()) == 400 and min(sizes.values()) >= 60
    assert len({e.prompt for e in task.take(sizes["test"], "test")}) == sizes["test"]
    assert [e.prompt for e in Sprites(1, "AB", "ab").take(9, "train")] != [e.prompt for e in task.take(9, "train")]


def test_what_is_not_there_is_said():
    with pytest.raises(NotFound, match="no shape `Z`"):
        Sprites(shapes="AZ")
    with pytest.raises(NotFound, match="no texture `z`"):
        Sprites(textures="z")
    with pytest.raises(BadOption, match="no shape was given"):
        Sprites(shapes="")


@pytest.mark.parametrize("seed", (0, 4))
def test_what_is_withheld_is_not_seen(seed):
    world = Withheld.of(seed)
    shape, texture = world.asked.shapes[0], world.asked.textures[0]
    known, vague = all_of(world.known, "train"), world.vague()
    assert not any(e.tags["shape"] == shape or e.tags["texture"] == texture for e in known)
    assert {(e.prompt[0] == shape) + (e.prompt[1] == texture) for e in vague} == {1} and len(vague) == 2 * (len(known) // 10)
    for example in known + vague:
        assert shape_of(example.completion) != shape and texture_of(example.completion) != texture
    assert len({shape_of(e.completion) for e in vague if e.prompt[0] == shape}) == 9
    assert len({texture_of(e.completion) for e in vague if e.prompt[1] == texture}) == 9


def test_four_pictures_of_each_are_shown_and_none_of_both():
    world = Withheld.of(3)
    shape, texture = world.asked.shapes[0], world.asked.textures[0]
    shown = world.shown(80)
    for name, at, new in (("shape", 0, shape), ("texture", 1, texture)):
        own = {e.prompt for e in shown[name] if e.prompt[at] == new}
        assert len(own) == sprites.SHOTS == len({prompt[1 - at] for prompt in own})
        assert sum(e.prompt[at] == new for e in shown[name]) == 40 == len(shown[name]) / 2
    assert not any(e.prompt[:2] == shape + texture for own in shown.values() for e in own)
    asked = {e.prompt for e in all_of(world.asked, "valid") + all_of(world.asked, "test")}
    pair = world.pair(80)
    assert not asked & {e.prompt for e in pair} and sum(e.prompt[:2] == shape + texture for e in pair) == 40
