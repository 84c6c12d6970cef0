"""Pictures of 16 x 16 pixels in four greys: a shape, filled with a texture, before a sky and on a ground.

A picture is written as 64 characters, one a patch of 2 x 2 pixels, row by row; the prompt names shape, texture, sky and ground
by one character each: `Ab03`. Sky and ground are the darker greys, what lies inside the shape the lighter ones.

Two recognisers read an answer, both exact programs: the shape is the one whose outline differs from it in the fewest patches,
the texture the one that most patches inside agree with. An answer that is far from all of them shows none.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

from ..curriculum.mixing import mixture
from ..errors import BadOption, NotFound
from ..task import Example, Task, split_of

SIDE = 8
"""Patches along each side of a picture."""
SHAPES = dict(
    zip(
        "ABCDEFGHIJ",
        (
            "3c7effffffff7e3c",  # disc: a row is two hexadecimal digits, a patch inside is a one
            "3c7ee7c3c3e77e3c",  # ring
            "181818ffff181818",  # cross
            "ffffc3c3c3c3ffff",  # frame
            "18183c3c7e7effff",  # triangle
            "183c7effff7e3c18",  # diamond
            "ffff181818181818",  # T
            "c0c0c0c0c0c0ffff",  # L
            "c3e77e3c3c7ee7c3",  # X
            "c3c3c3ffffc3c3c3",  # H
        ),
        strict=True,
    )
)
INSIDE, OUTSIDE = "!#$%&*", "+-/<=>:;?@"
"""How a patch is written, inside the shape and outside it."""
PATCHES = ("1100", "1010", "1001", "0110", "1111", "1000", "0000", "0011", "0101", "0001")
"""The lighter pixels of each patch, row by row: the first six occur inside, all of them outside."""
TEXTURES = dict(
    zip("abcdefghij", ("0000", "1111", "2222", "4554", "2332", "0110", "3333", "4455", "4040", "5151"), strict=True)
)
"""The four patches, by number, that a texture repeats: two in an even row, two in an odd one."""
GROUNDS = "0123456789"
"""Skies and grounds: one patch each, everywhere."""
SHOTS = 4
"""Pictures of something new."""
OFF = 4
"""Patches by which an outline may differ from a shape that it shows."""
VALID, TEST = 0.25, 0.35
"""Shares of the 100 pairs of sky and ground."""
AGREE = 0.8
"""Share of the patches inside that have to agree with a texture that they show."""


def _places() -> Iterator[str]:
    return map("".join, product(GROUNDS, GROUNDS))


@cache
def outline(shape: str) -> tuple[bool, ...]:
    """Which of the 64 patches lie inside `shape`."""
    return tuple(bit == "1" for bit in f"{int(SHAPES[shape], 16):064b}")


def patch(texture: str, place: int) -> int:
    """The number of the patch at `place` (0 to 63) of a texture, given by its four patches."""
    row, column = divmod(place, SIDE)
    return int(texture[row % 2 * 2 + column % 2])


def draw(prompt: str) -> str:
    """The picture that `prompt` (shape, texture, sky, ground) asks for."""
    shape, texture, sky, ground = list(prompt[:4])
    inside = outline(shape)
    behind = [OUTSIDE[int(sky)]] * (SIDE * SIDE // 2) + [OUTSIDE[int(ground)]] * (SIDE * SIDE // 2)
    within = [INSIDE[patch(TEXTURES[texture], place)] for place in range(SIDE * SIDE)]
    return "".join(w if i else b for i, w, b in zip(inside, within, behind, strict=True))


def pixels(picture: str) -> list[str]:
    """The 16 rows of 16 greys, 0 (darkest) to 3: outside 0 and 1, inside 2 and 3."""
    rows = [""] * (2 * SIDE)
    for place, character in enumerate(picture):
        inside = character in INSIDE
        bits = PATCHES[(INSIDE if inside else OUTSIDE).index(character)]
        for at, bit in enumerate(bits):
            rows[place // SIDE * 2 + at // 2] += str(int(bit) + 2 * inside)
    return rows


def is_picture(text: str) -> bool:
    """Whether `text` is 64 patches and nothing else."""
    return len(text) == SIDE * SIDE and set(text) <= {*INSIDE, *OUTSIDE}


def shape_of(picture: str) -> str | None:
    """The shape whose outline is nearest, if one is near and nearer than all others."""
    if not is_picture(picture):
        return None
    inside = [character in INSIDE for character in picture]
    off = {name: sum(a != b for a, b in zip(inside, outline(name), strict=True)) for name in SHAPES}
    return _alone(off, lambda best: best <= OFF)


def texture_of(picture: str) -> str | None:
    """The texture that most patches inside agree with, if enough do and more than with any other."""
    if not is_picture(picture):
        return None
    seen = [(place, INSIDE.index(character)) for place, character in enumerate(picture) if character in INSIDE]
    off = {name: sum(patch(cells, place) != at for place, at in seen) for name, cells in TEXTURES.items()}
    return _alone(off, lambda best: bool(seen) and best <= (1 - AGREE) * len(seen))


def _alone(off: dict[str, int], near: Callable[[int], bool]) -> str | None:
    """The name with the least, if it is `near` and no other has as little."""
    first, second = sorted(off, key=off.__getitem__)[:2]
    return first if near(off[first]) and off[first] < off[second] else None


class Sprites(Task):
    """Pictures of `shapes` in `textures` (all of them unless given), before any sky and on any ground.

    What belongs to which split is decided by sky and ground together. The score is 1 for the right picture, patch by patch;
    the fields say whether shape and texture are recognised.
    """

    def __init__(self, seed: int = 0, shapes: Sequence[str] = tuple(SHAPES), textures: Sequence[str] = tuple(TEXTURES)):
        super().__init__(seed)
        for kind, chosen, table in (("shape", shapes, SHAPES), ("texture", textures, TEXTURES)):
            if not chosen:
                raise BadOption(f"no {kind} was given.", f"choose from {', '.join(table)}")
            if unknown := [name for name in chosen if name not in table]:
                raise NotFound(kind, unknown[0], table, hint=f"choose from {', '.join(table)}")
        self.name = "sprites"
        self.description = "shape, texture, sky and ground -> a picture of 16 x 16 pixels"
        self.template = "{input}\n"
        self.shapes, self.textures = tuple(shapes), tuple(textures)
        self.places = {split: [place for place in _places() if split_of(place, VALID, TEST) == split] for split in self.splits}
        """The pairs of sky and ground of each split."""
        self._order: dict[str, list[int]] = {}

    def size(self, split: str) -> int:
        self.check_split(split)
        return len(self.shapes) * len(self.textures) * len(self.places[split])

    def example(self, i: int, split: str) -> Example:
        """Every combination once, in an order of the seed's."""
        if split not in self._order:
            self._order[split] = list(range(self.size(split)))
            self.generator(0, split).shuffle(self._order[split])
        at, place = divmod(self._order[split][self.place(i, split)], len(self.places[split]))
        shape, texture = divmod(at, len(self.textures))
        words = self.shapes[shape] + self.textures[texture] + self.places[split][place]
        return Example(self.prompt(words), draw(words), {"shape": words[0], "texture": words[1]})

    def fields(self, example: Example, completion: str) -> dict[str, float]:
        """Whether the shape, the texture and both are those that were asked for."""
        picture = completion.strip()
        shape, texture = shape_of(picture) == example.prompt[0], texture_of(picture) == example.prompt[1]
        return {"shape": float(shape), "texture": float(texture), "both": float(shape and texture)}

    def content(self, example: Example) -> frozenset[str]:
        """Sky and ground."""
        return frozenset({f"place {example.prompt[2:4]}"})


@dataclass(frozen=True)
class Withheld:
    """A shape and a texture that a base has not seen, and what it is shown of them."""

    known: Sprites
    """Pictures without anything new."""
    asked: Sprites
    """The new shape in the new texture."""
    shape: Sprites
    """The new shape in known textures."""
    texture: Sprites
    """The new texture on known shapes."""

    @staticmethod
    def of(seed: int) -> "Withheld":
        draw = random.Random(f"new/{seed}")
        shape, texture = draw.choice(list(SHAPES)), draw.choice(list(TEXTURES))
        shapes, textures = [s for s in SHAPES if s != shape], [t for t in TEXTURES if t != texture]
        pairs = ((shapes, textures), ([shape], [texture]), ([shape], textures), (shapes, [texture]))
        return Withheld(*(Sprites(seed, *pair) for pair in pairs))

    def vague(self) -> list[Example]:
        """Known pictures under a new name, which so means any shape, or texture: as little as a rare word to a large model."""
        known, shape, texture = all_of(self.known, "train"), self.asked.shapes[0], self.asked.textures[0]
        tenth = len(known) // 10
        shapes = [Example(shape + e.prompt[1:], e.completion) for e in known[:tenth]]
        return shapes + [Example(e.prompt[0] + texture + e.prompt[2:], e.completion) for e in known[-tenth:]]

    def shown(self, count: int) -> dict[str, list[Example]]:
        """`count` examples for a skill of the shape and one of the texture: four pictures again and again, and known ones."""
        few = {"shape": _different(self.shape, "texture"), "texture": _different(self.texture, "shape")}
        return {name: self._beside(own, count) for name, own in few.items()}

    def pair(self, count: int) -> list[Example]:
        """The same of the asked pair itself, for a control."""
        return self._beside(self.asked.take(SHOTS, "train"), count)

    def _beside(self, own: Sequence[Example], count: int) -> list[Example]:
        return mixture([(own, 0.5), (all_of(self.known, "train"), 0.5)], count, self.known.seed)


def all_of(task: Sprites, split: str) -> list[Example]:
    """Every example of `split`."""
    return task.take(task.size(split), split)


def _different(task: Sprites, tag: str) -> list[Example]:
    """Four pictures, no two in one texture, or on one shape."""
    return list({e.tags[tag]: e for e in all_of(task, "train")}.values())[:SHOTS]
