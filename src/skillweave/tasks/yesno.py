"""Yes/no questions about a language whose words are single characters: what a small base from scratch can be asked.

    mood      are there more glad words than sad ones?    glad a-d, sad e-h, others say nothing
    order     do the words rise?                          or they fall
    subject   does the first noun stand for several?      the second noun is bait
    token     is there a mark in it?

Each has two vocabularies that share no word, so there are pairs of tasks that want the same skill of other words. The question
is put in one of several templates, and answered in one of several pairs of words. Half of the answers are yes.
"""

from collections.abc import Callable, Sequence
from random import Random

from ..errors import BadOption, NotFound
from ..task import Example, Task, split_of

TEMPLATES = ("{input} ?", "{input} =", "# {input} :", "& {input} |")
"""How a question can be put."""
ANSWERS = (("y", "n"), ("!", "~"))
"""Yes and no."""
FILLERS = ".,;'"
"""Words that say nothing beside nouns."""
MARK = "@"
"""What is there or not in a text about which nothing else is asked."""
LENGTH = 6
"""Words of a text."""


def mood(random: Random, words: Sequence[str], yes: bool) -> str:
    """Three words that are glad or sad, most of one kind, among others."""
    most, few = words[0 if yes else 1], words[1 if yes else 0]
    polar = [random.choice(most), random.choice(most), random.choice(random.choice((most, few)))]
    text = [*polar, *random.choices(words[2], k=LENGTH - len(polar))]
    random.shuffle(text)
    return "".join(text)


def order(random: Random, words: Sequence[str], yes: bool) -> str:
    """Different words, rising or falling, but perhaps for two neighbours."""
    text, at = sorted(random.sample(words[0], LENGTH), reverse=not yes), random.randrange(LENGTH)
    text[at : at + 2] = text[at : at + 2][::-1]
    return "".join(text)


def subject(random: Random, words: Sequence[str], yes: bool) -> str:
    """Two nouns, the first of one or of several, among fillers."""
    nouns = [random.choice(words[int(yes)]), random.choice(words[random.randrange(2)])]
    text = random.choices(FILLERS, k=LENGTH)
    for place, noun in zip(sorted(random.sample(range(LENGTH), 2)), nouns, strict=True):
        text[place] = noun
    return "".join(text)


def token(random: Random, words: Sequence[str], yes: bool) -> str:
    """Any words, with a mark among them or not."""
    text = random.choices(words[0], k=LENGTH)
    if yes:
        text[random.randrange(LENGTH)] = MARK
    return "".join(text)


KINDS: dict[str, tuple[Callable[[Random, Sequence[str], bool], str], str, tuple[tuple[str, ...], ...]]] = {
    "mood": (mood, "more glad words than sad ones", (("abcd", "efgh", "ijkl"), ("ABCD", "EFGH", "IJKL"))),
    "order": (order, "the words rise", (("0123456789",), ("opqrstuvwx",))),
    "subject": (subject, "the first noun stands for several", (("MNO", "PQR"), ("STU", "VWX"))),
    "token": (token, "there is a mark", (("abcdefghijkl0123456789MNOPQR.",), ("ABCDEFGHIJKLopqrstuvwxSTUVWX.",))),
}
"""Kinds of questions: how a text comes about, what is asked, and the vocabularies."""
ALPHABET = "".join(sorted({*"".join(word for *_, sets in KINDS.values() for words in sets for word in words), *FILLERS, MARK,
                           *"".join(TEMPLATES).replace("{input}", ""), *"".join(map("".join, ANSWERS))}))  # fmt: skip
"""All characters of the language: the alphabet of a base that is made for it."""


class Question(Task):
    """Questions of one kind, answered by yes or no."""

    def __init__(
        self,
        kind: str = "mood",
        vocabulary: int = 0,
        *,
        template: int = 0,
        answers: int = 0,
        noise: float = 0.0,
        seed: int = 0,
    ):
        """`noise` is the share of answers that are wrong, in every split, as people's are: it bounds what can be reached."""
        super().__init__(seed)
        if kind not in KINDS:
            raise NotFound("kind of question", kind, KINDS, hint=f"choose from {', '.join(KINDS)}")
        for what, number, there in (
            ("vocabulary", vocabulary, KINDS[kind][2]), ("template", template, TEMPLATES), ("answers", answers, ANSWERS)
        ):  # fmt: skip
            if not 0 <= number < len(there):
                raise BadOption(f"{what} is {number}, but there are only {len(there)}, from 0 on.")
        self._draw, about, words = KINDS[kind]
        self.name = f"{kind} {vocabulary}"
        self.description = f"a text of one-letter words -> {about}, yes or no"
        self.template = TEMPLATES[template]
        self.kind, self.vocabulary, self.answers = kind, vocabulary, ANSWERS[answers]
        self._words, self._noise = words[vocabulary], noise

    def example(self, i: int, split: str) -> Example:
        self.check_split(split)
        random = self.generator(i, split)
        yes = random.random() < 0.5
        while split_of(f"{self.name} {(text := self._draw(random, self._words, yes))}") != split:
            pass
        said = yes != (random.random() < self._noise)
        return Example(self.prompt(text), f" {self.answers[0 if said else 1]}", {"task": self.name})

    def content(self, example: Example) -> frozenset[str]:
        """The text, whatever the template."""
        before, _, after = self.template.partition("{input}")
        return frozenset({f"{self.name} {example.prompt.removeprefix(before).removesuffix(after)}"})
