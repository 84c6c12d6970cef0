"""Five kinds of input for small bases from scratch, all as sequences of 16 symbols, each with a class to name (a digit).

    text    two nouns in a phrase: the topic of the first, one of five
    sound   four frames of a four-band spectrogram: noise, a sweep up or down, two chords, or beats
    image   a digit drawn in 8 x 8 pixels that flip at times, as 2 x 2 patches: which of ten
    video   a dot that moves through four frames of 4 x 4 pixels, as 2 x 2 patches: which of four directions
    code    nested brackets between letters: how deep they nest, one to four

Every prompt is as long, so that equal numbers of examples are equal numbers of tokens; every answer is one symbol of the one
head. A task of two kinds shows an input of each and asks for both classes: it needs the skills of both.
"""

from collections.abc import Callable
from random import Random

from ..errors import BadData, NotFound
from ..task import Example, Task, split_of

LENGTH = 16
TOPICS = (
    "ant bear cow crab deer duck eel fox goat owl",
    "bean beet bun cake corn egg fig jam leek plum",
    "axe drill file hoe jack nail pick rake saw vise",
    "bay cape cave dune hill isle lake mesa reef vale",
    "bass bell drum fife gong harp horn lute oboe viol",
)
LINKS = ("and", "by", "for", "in", "near", "on", "or", "with")
BANDS = "▁▂▃▅▆▇"
PATCHES = "·▘▝▀▖▌▞▛▗▚▐▜▄▙▟█"
"""Patch number b of 2 x 2 pixels: top left 1, top right 2, bottom left 4, bottom right 8."""
GLYPHS = (
    "01110 10001 10011 10101 11001 10001 01110",
    "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00010 00100 01000 11111",
    "11111 00010 00100 00010 00001 10001 01110",
    "00010 00110 01010 10010 11111 00010 00010",
    "11111 10000 11110 00001 00001 10001 01110",
    "00110 01000 10000 11110 10001 10001 01110",
    "11111 00001 00010 00100 01000 01000 01000",
    "01110 10001 10001 01110 10001 10001 01110",
    "01110 10001 10001 01111 00001 00010 01100",
)
"""Ten digits of 5 x 7 pixels."""
FLIP = {"image": 0.05, "video": 0.02}
"""Share of pixels that flip."""
DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""(down, right) of a dot a frame."""
ALPHABET = "".join(sorted({*"abcdefghijklmnopqrstuvwxyz ", *BANDS, *PATCHES, *"()[]", *"0123456789", *"TSIVC="}))
"""Every symbol of every kind."""


def text(random: Random, label: int) -> str:
    other = random.choice([k for k in range(len(TOPICS)) if k != label])
    words = f"{random.choice(TOPICS[label].split())} {random.choice(LINKS)} {random.choice(TOPICS[other].split())}"
    return words.ljust(LENGTH)


def sound(random: Random, label: int) -> str:
    loud, phase = random.uniform(2.0, 4.0), random.randint(0, 1)

    def level(frame: int, band: int) -> float:
        shapes = (0.5, band == frame, band == 3 - frame, band in (0, 2), band in (0, 3), (frame + phase) % 2)
        return loud * float(shapes[label])

    found = [level(frame, band) + random.gauss(1, 0.9) for frame in range(4) for band in range(4)]
    return "".join(BANDS[max(0, min(len(BANDS) - 1, round(value)))] for value in found)


def image(random: Random, label: int) -> str:
    left, top = random.randint(0, 3), random.randint(0, 1)
    pixels = [[0] * 8 for _ in range(8)]
    for y, row in enumerate(GLYPHS[label].split()):
        for x, pixel in enumerate(row):
            pixels[top + y][left + x] = int(pixel)
    return patches(random, pixels, FLIP["image"])


def video(random: Random, label: int) -> str:
    (down, right), across, frames = DIRECTIONS[label], random.randint(0, 3), []
    for time in range(4):
        pixels = [[0] * 4 for _ in range(4)]
        along = time if down + right > 0 else 3 - time
        pixels[along if down else across][along if right else across] = 1
        frames.append(patches(random, pixels, FLIP["video"]))
    return "".join(frames)


def code(random: Random, label: int) -> str:
    while True:
        waiting, out, deepest = "", "", 0
        while len(out) + len(waiting) < LENGTH:
            step = random.random()
            if step < 0.4 and len(waiting) <= label and len(out) + len(waiting) + 2 <= LENGTH:
                opened = random.choice(("()", "[]"))
                out, waiting = out + opened[0], opened[1] + waiting
            elif step < 0.7 and waiting:
                out, waiting = out + waiting[0], waiting[1:]
            else:
                out += random.choice("abcxyz")
            deepest = max(deepest, len(waiting))
        if deepest == label + 1:
            return out + waiting


def patches(random: Random, pixels: list[list[int]], flip: float) -> str:
    """The 2 x 2 patches of an image row by row, with a share `flip` of its pixels flipped."""
    noisy = [[pixel ^ (random.random() < flip) for pixel in row] for row in pixels]
    rows, columns = range(0, len(noisy), 2), range(0, len(noisy[0]), 2)
    return "".join(
        PATCHES[noisy[y][x] + 2 * noisy[y][x + 1] + 4 * noisy[y + 1][x] + 8 * noisy[y + 1][x + 1]]
        for y in rows
        for x in columns
    )


KINDS: dict[str, tuple[Callable[[Random, int], str], int]] = {
    "text": (text, 5), "sound": (sound, 6), "image": (image, 10), "video": (video, 4), "code": (code, 4),
}  # fmt: skip
"""(what draws 16 symbols of a class, number of classes) of each kind."""


class Modality(Task):
    """Inputs of one kind, or of several side by side; the answer is the class of each."""

    def __init__(self, seed: int = 0, *kinds: str):
        super().__init__(seed)
        for kind in kinds:
            if kind not in KINDS:
                raise NotFound("kind of input", kind, KINDS, hint=f"choose from {', '.join(KINDS)}")
        self.kinds, self.name = kinds, "+".join(kinds)
        self.description = f"{' and '.join(kinds)} -> class"

    def example(self, i: int, split: str) -> Example:
        self.check_split(split)
        random = self.generator(i, split)
        for _ in range(1000):
            labels = [random.randrange(KINDS[kind][1]) for kind in self.kinds]
            parts = [kind[0].upper() + KINDS[kind][0](random, label) for kind, label in zip(self.kinds, labels, strict=True)]
            if split_of("".join(parts)) == split:
                return Example("".join(parts) + "=", "".join(map(str, labels)), {"task": self.name})
        raise BadData(f"the {split} split of `{self.name}` is empty.")
