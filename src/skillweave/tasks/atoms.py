"""Functions to be nested in each other: 25 on words, 12 on lists of digits, 12 on numbers.

A family says what its values look like, how one is drawn, what each function does, and which names the functions go by: opaque
ones, in an order that tells nothing. No two families share a function, a name, or (lists and numbers apart) a symbol of their
values: who knows one knows nothing of another but the brackets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from random import Random

from ..errors import BadOption
from ..task import share
from .primitives import FUNCTIONS, LETTERS, draw_word, key_of_word, shift


@dataclass(frozen=True)
class Family:
    """Functions from written values to written values of one kind."""

    name: str
    draw: Callable[[Random], str]
    """A value."""
    key: Callable[[str], str]
    """What decides the split of a value."""
    table: Mapping[str, Callable[[str], str]]
    joins: Mapping[str, Callable[[str, str], str]]
    """Functions of two values, for nesting with literals."""
    prefix: str
    """What opaque names begin with."""
    symbols: str
    """One character for each function, then one for each join."""

    def names(self, short: bool = False) -> dict[str, str]:
        """The opaque name of each function and join: `f7`, or one character if `short`."""
        order = [*sorted(self.table, key=lambda name: share(f"name {name}")), *self.joins]
        return dict(zip(order, self.symbols, strict=False)) if short else {n: f"{self.prefix}{i}" for i, n in enumerate(order)}


def words(letters: str = LETTERS, lengths: tuple[int, int] = (3, 10)) -> Family:
    """Words of `lengths` (shortest, longest) of `letters`; functions that change letters stay within `letters`."""
    if not 1 <= lengths[0] <= lengths[1]:
        raise BadOption(f"lengths are {lengths}, but have to be (shortest, longest), at least 1.")
    if len(set(letters)) < 4 or not set(letters) <= set(LETTERS) or list(letters) != sorted(set(letters)):
        raise BadOption(f"letters are {letters!r}.", "give at least four lower-case letters, in alphabetical order")
    table = _word_functions(letters)
    return Family("words", lambda random: draw_word(random, letters, lengths), key_of_word, table,
                  {"join": lambda a, b: a + b, "weave": weave}, "f", "ABCDEFGHIJKLMNOPQRSTUVWXY.'")  # fmt: skip


def lists(lengths: tuple[int, int] = (3, 5)) -> Family:
    """Lists of digits, such as `3 1 4`; all functions keep the length and count modulo 10."""
    if not 2 <= lengths[0] <= lengths[1]:
        raise BadOption(f"lengths are {lengths}, but have to be (shortest, longest), at least 2.")

    def draw(random: Random) -> str:
        return " ".join(random.choices("0123456789", k=random.randint(*lengths)))

    return Family("lists", draw, lambda text: f"list {' '.join(sorted(text.split()))}", LISTS, {}, "g", "!#$%&*+-/:;<")


def numbers() -> Family:
    """Numbers from 0 to 999 in three digits; all functions count modulo 1000."""
    return Family(
        "numbers", lambda random: f"{random.randrange(1000):03}", "number {}".format, NUMBERS, {}, "h", ">?@[]^_`{|}~"
    )


FAMILIES: dict[str, Callable[..., Family]] = {"words": words, "lists": lists, "numbers": numbers}

EQUAL = ("reverse", "shift", "rotate", "back", "swap", "mirror", "turn", "head", "ends", "evens", "fan", "tail")
"""Twelve functions on words that keep the length and lose nothing: six that move letters, six that change them, three of each
in either half."""


def halves(functions: Sequence[str]) -> tuple[list[str], list[str]]:
    """The same functions in two halves, always the same: those that may be nested in training, and those held out."""
    seen = [name for at, name in enumerate(functions) if at % 4 in (0, 3)]
    return seen, [name for name in functions if name not in seen]


def weave(one: str, other: str) -> str:
    """The letters of two words in turn, then what is left of the longer."""
    shared = "".join(a + b for a, b in zip(one, other, strict=False))
    return shared + one[len(shared) // 2 :] + other[len(shared) // 2 :]


def _word_functions(letters: str) -> dict[str, Callable[[str], str]]:
    """The 25: first `EQUAL`, then others that keep the length, then those that do not."""
    forward, behind = partial(shift, letters=letters), partial(shift, by=-1, letters=letters)
    mirror = str.maketrans(letters, letters[::-1])
    new: dict[str, Callable[[str], str]] = {
        "shift": forward,
        "back": behind,
        "mirror": lambda word: word.translate(mirror),
        "turn": lambda word: word[-1:] + word[:-1],
        "head": lambda word: forward(word[:1]) + word[1:],
        "ends": lambda word: word if len(word) < 2 else word[-1] + word[1:-1] + word[0],
        "evens": lambda word: "".join(forward(c) if at % 2 else c for at, c in enumerate(word)),
        "fan": lambda word: word[::2] + word[1::2],
        "tail": lambda word: word[:-1] + behind(word[-1:]),
        "halves": lambda word: word[len(word) // 2 :] + word[: len(word) // 2],
        "leap": partial(shift, by=len(letters) // 2, letters=letters),
        "rest": lambda word: word[:1] + word[:0:-1],
        "staircase": lambda word: "".join(shift(c, at, letters) for at, c in enumerate(word)),
        "repeat": lambda word: word + word,
        "palindrome": lambda word: word + word[-2::-1],
        "stutter": lambda word: word[:1] + word,
        "behead": lambda word: word[1:],
        "chop": lambda word: word[:-1],
        "odd": lambda word: word[::2],
    }
    others = ("halves", "leap", "rest", "staircase", "sort", "unique", "double", "repeat", "palindrome", "stutter", "behead",
              "chop", "odd")  # fmt: skip
    return {name: new.get(name) or FUNCTIONS[name] for name in (*EQUAL, *others)}


def _on_list(function: Callable[[Sequence[int]], Sequence[int]]) -> Callable[[str], str]:
    return lambda text: " ".join(str(value % 10) for value in function([int(digit) for digit in text.split()]))


LISTS: dict[str, Callable[[str], str]] = {
    name: _on_list(function)
    for name, function in {
        "sums": lambda v: list(accumulate(v)),
        "differences": lambda v: [v[0], *(b - a for a, b in zip(v, v[1:], strict=False))],
        "add 3": lambda v: [x + 3 for x in v],
        "times 3": lambda v: [3 * x for x in v],
        "add the first": lambda v: [v[0], *(x + v[0] for x in v[1:])],
        "add the last": lambda v: [*(x + v[-1] for x in v[:-1]), v[-1]],
        "add places": lambda v: [x + at for at, x in enumerate(v, 1)],
        "nines": lambda v: [9 - x for x in v],
        "add the next": lambda v: [*(a + b for a, b in zip(v, v[1:], strict=False)), v[-1]],
        "negate odd places": lambda v: [-x if at % 2 else x for at, x in enumerate(v)],
        "add the count": lambda v: [x + len(v) for x in v],
        "totals": lambda v: [*v[:-1], sum(v)],
    }.items()
}
"""Functions on lists of digits, of which none merely moves them as those on words do."""


def _on_number(function: Callable[[int], int]) -> Callable[[str], str]:
    return lambda text: f"{function(int(text)) % 1000:03}"


NUMBERS: dict[str, Callable[[str], str]] = {
    name: _on_number(function)
    for name, function in {
        "plus 7": lambda n: n + 7,
        "minus 30": lambda n: n - 30,
        "times 7": lambda n: 7 * n,
        "from 500": lambda n: 500 - n,
        "plus 250": lambda n: n + 250,
        "times 11": lambda n: 11 * n,
        "plus digit sum": lambda n: n + sum(map(int, str(n))),
        "times 3 plus 1": lambda n: 3 * n + 1,
        "minus last digit": lambda n: n - 100 * (n % 10),
        "plus tens": lambda n: n + n // 10,
        "exclusive or 21": lambda n: n ^ 21,
        "square": lambda n: n * n,
    }.items()
}
"""Functions on numbers from 0 to 999."""
