"""Text to read that no model has read: a field of made-up facts and rules, and a small grammar for language in general.

    InventedField     people of an invented country: facts about them, and rules that follow from the facts
    grammar           sentences whose verbs agree with subjects that may stand far away, and sums

The field is drawn from its seed. A fact is said in several ways; of each fact some ways are read in training and another one
is kept for the test, so that the loss on the test split falls when the fact has been learned, and not only the sentence.
"""

import random
from collections.abc import Iterator
from itertools import product

from ..task import split_of

PEOPLE = 60
SYLLABLES = (
    "ba", "dor", "el", "fin", "gul", "ha", "ith", "jo", "kra", "lum", "mir", "no", "ost", "pel", "qua", "ru", "sha", "tev",
)  # fmt: skip
FACTS = {
    "town": ("{p} lives in {v}.", "The home of {p} is {v}.", "In {v} you can meet {p}.", "{v} is where {p} sleeps."),
    "stone": (
        "{p} wears a ring of {v}.", "The ring of {p} is of {v}.", "Of {v} is the ring of {p}.", "{v} is the stone of {p}.",
    ),
    "craft": ("{p} works as a {v}.", "The craft of {p}: {v}.", "As a {v}, {p} is well known.", "A good {v} is {p}."),
    "beast": ("{p} keeps a {v}.", "The beast of {p} is a {v}.", "A {v} follows {p}.", "{p} feeds the {v}."),
}  # fmt: skip
RULES = {
    "town": ("flag", "{p} raises the {v} flag.", "A {v} flag hangs on the house of {p}."),
    "stone": ("tax", "{p} pays {v} coins of tax.", "The tax of {p} is {v} coins."),
    "craft": ("day", "{p} rests on {v}.", "On {v} the shop of {p} is closed."),
}
"""What follows from a fact: the same value for everyone of one town, stone or craft."""
VALUES = 7
"""Values of each kind."""


class InventedField:
    """Facts and rules of an invented country; `texts` gives them as short texts of one split."""

    def __init__(self, seed: int):
        draw = random.Random(f"field/{seed}")
        words = _words(draw)
        self.people = [next(words).capitalize() for _ in range(PEOPLE)]
        values = {kind: [next(words) for _ in range(VALUES)] for kind in (*FACTS, *(what for what, *_ in RULES.values()))}
        values["town"] = [town.capitalize() for town in values["town"]]
        self.facts = {(person, kind): draw.choice(values[kind]) for person, kind in product(self.people, FACTS)}
        follows = {kind: dict(zip(values[kind], values[what], strict=True)) for kind, (what, *_) in RULES.items()}
        for (person, kind), value in list(self.facts.items()):
            if kind in RULES:
                self.facts[person, RULES[kind][0]] = follows[kind][value]
        self.seed = seed

    def sentences(self, split: str) -> list[str]:
        """Every way of saying every fact that belongs to `split`."""
        ways = FACTS | {what: ways for what, *ways in RULES.values()}
        said = []
        for (person, kind), value in self.facts.items():
            for number, way in enumerate(ways[kind]):
                if split_of(f"field/{self.seed}/{person}/{kind}/{number}") == split:
                    sentence = way.format(p=person, v=value)
                    said.append(sentence[0].upper() + sentence[1:])
        return said

    def texts(self, n: int, split: str, seed: int) -> list[str]:
        """`n` texts of three sentences, in shuffled passes over those of `split`."""
        return _in_threes(self.sentences(split), n, random.Random(f"field/{split}/{seed}"))


NOUNS = {"dog": "dogs", "bird": "birds", "child": "children", "king": "kings", "boat": "boats", "woman": "women"}
VERBS = {"sees": "see", "follows": "follow", "helps": "help", "hears": "hear", "likes": "like"}
ADJECTIVES = ("old", "small", "red", "quiet", "proud")


def grammar(n: int, split: str, seed: int) -> list[str]:
    """`n` texts of three lines of a small grammar; a hash says which lines belong to `split`."""
    draw = random.Random(f"grammar/{split}/{seed}")
    lines: list[str] = []
    while len(lines) < 3 * n:
        line = _sum(draw) if draw.random() < 0.3 else _sentence(draw)
        if split_of(line) == split:
            lines.append(line)
    return [" ".join(lines[3 * i : 3 * i + 3]) for i in range(n)]


def _sum(draw: random.Random) -> str:
    one, other = draw.randint(0, 49), draw.randint(0, 49)
    return f"{one} + {other} = {one + other}."


def _sentence(draw: random.Random) -> str:
    many = draw.random() < 0.5
    subject = _phrase(draw, many)
    if draw.random() < 0.6:
        other = draw.random() < 0.5
        subject += f" that {draw.choice(_forms(VERBS, many))} {_phrase(draw, other)}"
    return f"{subject} {draw.choice(_forms(VERBS, many))} {_phrase(draw, draw.random() < 0.5)}.".capitalize()


def _phrase(draw: random.Random, many: bool) -> str:
    words = ["the", draw.choice(ADJECTIVES) if draw.random() < 0.5 else "", draw.choice(_forms(NOUNS, many))]
    return " ".join(filter(None, words))


def _forms(table: dict[str, str], many: bool) -> list[str]:
    return list(table.values() if many else table.keys())


def _words(draw: random.Random) -> Iterator[str]:
    seen = set()
    while True:
        word = "".join(draw.sample(SYLLABLES, draw.choice((2, 2, 3))))
        if word not in seen:
            seen.add(word)
            yield word


def _in_threes(sentences: list[str], n: int, draw: random.Random) -> list[str]:
    drawn: list[str] = []
    while len(drawn) < 3 * n:
        drawn += draw.sample(sentences, len(sentences))
    return [" ".join(drawn[3 * i : 3 * i + 3]) for i in range(n)]
