"""Rules that are only in the prompt, as ranked choices: who knows nothing but reads well can follow them.

Five kinds, all on invented words and plain numbers: look up a pair that was shown, pick the word at a place, write a word in
another form, put two words in an order, add a number. A few solved lines show the rule, the last line asks. All rules of a kind
have the same choices and are drawn equally often, and so are pairs and places: who does not read the solved lines is right
exactly as often as chance says.
"""

import random
from collections.abc import Callable

from .choice import Choice

SHOTS = 6
"""Solved lines before the question."""


def rules(n: int, seed: int) -> list[Choice]:
    """`n` items, about as many of each kind."""
    kinds = list(KINDS)
    return [_item(kinds[i % len(kinds)], i // len(kinds), random.Random(f"rules/{seed}/{i}")) for i in range(n)]


def _item(kind: str, i: int, draw: random.Random) -> Choice:
    lines, question, answer, choices = KINDS[kind](i, draw)
    choices = list(dict.fromkeys(choices))
    draw.shuffle(choices)
    prompt = "".join(f"{given} -> {wanted}\n" for given, wanted in lines)
    return Choice(f"{prompt}{question} ->", tuple(choices), choices.index(answer), kind)


def _word(draw: random.Random) -> str:
    return "".join(draw.choice("bdfgklmnprstvz") + draw.choice("aeiou") for _ in range(2))


def _words(draw: random.Random, n: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < n:
        found[_word(draw)] = None
    return list(found)


def _lookup(i: int, draw: random.Random):
    words = _words(draw, 2 * SHOTS)
    lines = list(zip(words[:SHOTS], words[SHOTS:], strict=True))
    return lines, *lines[i % SHOTS], words[SHOTS:]


def _apply(forms: list[Callable], i: int, draws: list):
    """Solved lines of form `i`, and for the last of `draws` the question, its answer, and what every form makes of it."""
    form = forms[i % len(forms)]
    *shown, asked = [(" ".join(map(str, given)), form(*given), [other(*given) for other in forms]) for given in draws]
    return [(question, answer) for question, answer, _ in shown], *asked


def _place(i: int, draw: random.Random):
    forms = [lambda *words, at=at: words[at] for at in range(4)]
    return _apply(forms, i, [_words(draw, 4) for _ in range(SHOTS + 1)])


def _form(i: int, draw: random.Random):
    forms = [str.upper, str.title, str.lower, lambda word: word[0] + word[1:].upper()]
    return _apply(forms, i, [[word] for word in _words(draw, SHOTS + 1)])


def _order(i: int, draw: random.Random):
    forms = [lambda a, b: f"{a} {b}", lambda a, b: f"{b} {a}", lambda a, b: f"{a} {a}", lambda a, b: f"{b} {b}"]
    return _apply(forms, i, [_words(draw, 2) for _ in range(SHOTS + 1)])


def _add(i: int, draw: random.Random):
    forms = [lambda n, k=k: str(n + k) for k in (1, 2, 3, 10)]
    return _apply(forms, i, [[n] for n in draw.sample(range(11, 90), SHOTS + 1)])


KINDS = {"lookup": _lookup, "place": _place, "form": _form, "order": _order, "add": _add}
"""Kind of rule: solved lines, question, answer, choices."""
