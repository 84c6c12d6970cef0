"""Key-value arithmetic: 500 short random words that stand for numbers from 1 to 99, and sums of two or three terms.

    numbers   21+70: -> 21+70    sums      21+70= -> 910    what one model can do that knows no key
    keys      qx+bd: -> 21+70    recall    qx+bd  -> 70     what another can do that cannot add
    key-sums  qx+bd= -> 910                                 what needs both

Numbers have two digits, sums three, the lowest first (12 + 7 = 19 above): a small model learns to add that way in minutes,
since a digit then follows from those of its place and a carry (2307.03381).

Which number a word stands for is drawn by the seed. `key-sums`, and `keys` with `apart`, give each split keys of its own: a
fifth of all to train, a fifth to validate, three fifths to test, so that nothing is learned about the keys of the test.
Elsewhere what belongs to which split is decided by a hash of the terms, whatever their order.
"""

from collections.abc import Sequence
from functools import cache, partial
from random import Random
from string import ascii_lowercase

from ..errors import BadOption
from ..task import SPLITS, Example, Task, split_of

KEYS = {"train": 100, "valid": 100, "test": 300}
"""How many keys each split of `key-sums` has."""
LETTERS = 2
"""Letters of a key."""
LARGEST = 99


class Terms(Task):
    """Terms joined by `+`, to their sum (`=`) or to the numbers that they are (`:`)."""

    def __init__(
        self,
        seed: int = 0,
        name: str = "sums",
        *,
        keys: bool = False,
        add: bool = True,
        apart: bool = False,
        shuffled: bool = False,
        terms: Sequence[int] = (2, 3),
    ):
        super().__init__(seed)
        if apart and not keys:
            raise BadOption("numbers cannot be kept apart between splits, only keys can.", "leave out apart, or ask for keys")
        self.name, self.template = name, "{input}" + ("=" if add else ":")
        what = f"{min(terms)} to {max(terms)} {'keys' if keys else f'numbers from 1 to {LARGEST}'}"
        self.description = f"{what} -> {'their sum' if add else 'the numbers they are'}"
        self.depths = (1 + (keys and add),)
        self._terms, self._add, self._apart = tuple(terms), add, apart
        self._values = table(seed, shuffled) if keys else {written(n, 2): n for n in range(1, LARGEST + 1)}
        words = list(self._values)
        self._pools = {split: [w for w in words if not apart or key_split(w) == split] for split in SPLITS}

    def answer(self, words: Sequence[str]) -> str:
        """What is to be said of these terms."""
        values = [self._values[word] for word in words]
        return written(sum(values), 3) if self._add else "+".join(written(value, 2) for value in values)

    def example(self, i: int, split: str) -> Example:
        self.check_split(split)
        random = self.generator(i, split)
        while True:
            words = random.choices(self._pools[split], k=random.choice(self._terms))
            if self._apart or self._split(words) == split:
                return Example(self.prompt("+".join(words)), self.answer(words), {"terms": str(len(words))})

    def content(self, example: Example) -> frozenset[str]:
        words = example.prompt[:-1].split("+")
        return frozenset(f"key {word}" for word in words) if self._apart else frozenset({_terms_of(words)})

    def _split(self, words: Sequence[str]) -> str:
        """Each term alone is for training: it has to be learned somewhere."""
        return "train" if len(words) == 1 else split_of(_terms_of(words))


class Recall(Terms):
    """Keys joined by `+`, to the number of the last; after a further sign (`+` or `=`), to its second digit.

    Who learns this knows the digits of each key as it reads: the first at its last letter, the second at the sign that follows.
    """

    def __init__(self, seed: int = 0, name: str = "recall", *, shuffled: bool = False):
        super().__init__(seed, name, keys=True, shuffled=shuffled, terms=(1, 2, 3))
        self.template, self.description = "{input}", "1 to 3 keys -> the number of the last, or its second digit"

    def example(self, i: int, split: str) -> Example:
        whole = super().example(i, split)
        words = whole.prompt.split("+")
        sign = self.generator(i, f"{split} sign").choice(("", "+", "="))
        return Example("+".join(words) + sign, written(self._values[words[-1]], 2)[bool(sign) :], whole.tags)

    def content(self, example: Example) -> frozenset[str]:
        return frozenset({_terms_of(example.prompt.rstrip("+=").split("+"))})


def written(number: int, digits: int) -> str:
    """The digits of a number, the lowest first."""
    return f"{number:0{digits}}"[::-1]


def key_split(key: str) -> str:
    """The split that a key belongs to where splits have keys of their own."""
    return split_of(f"key {key}", KEYS["valid"] / 500, KEYS["test"] / 500)


@cache
def table(seed: int, shuffled: bool = False) -> dict[str, int]:
    """The numbers that the keys stand for; with `shuffled`, the same numbers given to other keys."""
    random = Random(f"keys/{seed}")
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    while any(len(found[split]) < count for split, count in KEYS.items()):
        word = "".join(random.choices(ascii_lowercase, k=LETTERS))
        mates = found[key_split(word)]
        if word not in mates and len(mates) < KEYS[key_split(word)]:
            mates.append(word)
    words = sorted(word for mates in found.values() for word in mates)
    values = [random.randint(1, LARGEST) for _ in words]
    if shuffled:
        Random(f"keys/{seed}/shuffled").shuffle(values)
    return dict(zip(words, values, strict=True))


def _terms_of(words: Sequence[str]) -> str:
    return f"terms {'+'.join(sorted(words))}"


Sums = partial(Terms, name="sums")
Numbers = partial(Terms, name="numbers", add=False, terms=(1, 2, 3))
Keys = partial(Terms, name="keys", keys=True, add=False, terms=(1, 2, 3))
KeySums = partial(Terms, name="key-sums", keys=True, apart=True)
