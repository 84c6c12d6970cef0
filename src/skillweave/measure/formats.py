"""Twelve format instructions that a program can check, and answers that nobody would call following them.

A checker sees only the form. Some forms are met by an empty answer, by gibberish, by the prompt said again or by one word for
ever; a broken model writes just these. So every answer is also asked whether it is *sound*, and four controls are scored in the
place of a model: what a control reaches is no ability.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from .text import documentation

LINES = re.compile(r"[^\n]+")


@dataclass(frozen=True)
class Instruction:
    """What is asked, and whether an answer has that form."""

    words: str
    """The instruction; `{}` is the topic."""
    met: Callable[[str], bool]


def _json(answer: str) -> bool:
    try:
        return isinstance(json.loads(answer), dict)
    except ValueError:
        return False


INSTRUCTIONS = {
    "capitals": Instruction("Write about {} in capital letters only.", str.isupper),
    "small letters": Instruction("Write about {} in small letters only.", str.islower),
    "no comma": Instruction("Write about {} without any comma.", lambda a: "," not in a),
    "first word": Instruction("Write about {}. Begin with the word Honestly.", lambda a: a.startswith("Honestly")),
    "last word": Instruction("Write about {}. End with the word finished.", lambda a: a.rstrip(" .!").endswith("finished")),
    "keyword": Instruction("Write about {}. Use the word river.", lambda a: re.search(r"\briver\b", a) is not None),
    "bullets": Instruction(
        "List three things about {}, each on a line that begins with a hyphen.",
        lambda a: len(LINES.findall(a)) == 3 and all(line.startswith("- ") for line in LINES.findall(a)),
    ),
    "numbers": Instruction(
        "List three things about {} as lines 1., 2. and 3.",
        lambda a: [line[:2] for line in LINES.findall(a)] == ["1.", "2.", "3."],
    ),
    "json": Instruction("Describe {} as one JSON object.", _json),
    "quotes": Instruction("Write about {}, all of it in double quotes.", lambda a: re.fullmatch(r'"[^"]+"', a) is not None),
    "short": Instruction("Describe {} in at most ten words.", lambda a: len(a.split()) <= 10),
    "question": Instruction("Ask a question about {}.", lambda a: a.endswith("?")),
}


@dataclass(frozen=True)
class Asked:
    """One instruction about one topic."""

    name: str
    prompt: str


@dataclass(frozen=True)
class Forms:
    """Shares of answers, each in [0, 1]."""

    met: float
    """Have the form that was asked for, whatever else they are."""
    sound: float
    """Have the form, and are an answer."""
    degenerate: float
    """Are no answer: empty, gibberish, the prompt again, or the same words again and again."""


def asked(topics: int, seed: int) -> list[Asked]:
    """Every instruction about `topics` countries each."""
    import pycountry

    draw = random.Random(f"formats/{seed}")
    names = draw.sample(sorted(country.name for country in pycountry.countries), topics)
    return [
        Asked(name, f"Instruction: {instruction.words.format(topic)}\nAnswer:")
        for name, instruction in INSTRUCTIONS.items()
        for topic in names
    ]


def met(name: str, answer: str) -> bool:
    """Whether `answer` has the form of the instruction `name`."""
    return INSTRUCTIONS[name].met(answer.strip())


def degenerate(prompt: str, answer: str) -> bool:
    """Whether `answer` is none: half of its words are no words, or half of its runs of four are said twice or in the prompt."""
    words = re.findall(r"\w+", answer.casefold())
    letters = [word for word in words if not word.isdecimal()]
    known = sum(word in lexicon() or word in prompt.casefold() for word in letters)
    runs, told = _runs(words), _runs(re.findall(r"\w+", prompt.casefold()))
    return 2 * known <= len(letters) or 2 * len(set(runs) - set(told)) < len(runs)


def _runs(words: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + 4]) for i in range(len(words) - 3)]


@cache
def lexicon() -> frozenset[str]:
    """Words of English: those of Python's documentation, so that a short answer in rare words counts as gibberish."""
    return frozenset(word for text in documentation() for word in re.findall(r"[^\W\d_]+", text.casefold()))


def score(questions: Sequence[Asked], answers: Sequence[str]) -> Forms:
    """How many of `answers` have the form, how many of them are answers."""
    form = [met(q.name, a) for q, a in zip(questions, answers, strict=True)]
    bad = [degenerate(q.prompt, a) for q, a in zip(questions, answers, strict=True)]
    n = len(form)
    return Forms(sum(form) / n, sum(f and not b for f, b in zip(form, bad, strict=True)) / n, sum(bad) / n)


def controls(questions: Sequence[Asked], seed: int) -> dict[str, list[str]]:
    """Answers that follow no instruction: empty, random letters, the prompt again, one word for ever."""
    draw = random.Random(f"controls/{seed}")

    def gibberish() -> str:
        return " ".join("".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(20))

    return {
        "empty": ["" for _ in questions],
        "gibberish": [gibberish() for _ in questions],
        "prompt again": [q.prompt for q in questions],
        "one word": [" ".join(["the"] * 40) for _ in questions],
    }
