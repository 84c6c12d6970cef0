"""New examples of a task from few: the skills' own examples in the places where the few hold what the skills know.

A word that stands in several of the few prompts, and in no input of a skill, belongs to the sentence; every run of other words
is a place. A prompt's words are kept in order and its places filled anew, with one input of each skill in any order. The
answers go where the few answers hold a value of that skill's shape. Nothing but the few examples and those that the skills
carry is used.

    "On August 5, 2024 we billed a client in Bhutan three hundred dirhams."  ->  "On _ we billed a client in _"
"""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from ..task import Example

COMMON = 3
"""Prompts that a word has to stand in to belong to the sentence."""


def recombine(few: Sequence[Example], pools: Mapping[str, Sequence[Example]], count: int, seed: int) -> list[Example]:
    """`count` new examples, or none at all when the answers do not show one value for each skill.

    few: examples of the task; pools: each skill's own examples. Inputs are what follows the opening word of a prompt
    (`date: 3 May` -> `3 May`).
    """
    answer = _answer_pattern(few, pools)
    if answer is None or not all(pools.values()):
        return []
    rng = random.Random(f"{seed}:recombine")
    sentences = _sentences(few, pools)
    made = []
    for _ in range(count):
        opening, words = rng.choice(sentences)
        chosen = {name: rng.choice(list(pool)) for name, pool in pools.items()}
        inputs = [_input(example.prompt) for example in chosen.values()]
        rng.shuffle(inputs)
        text = " ".join(_fill(rng, words, inputs))
        made.append(
            Example(
                f"{opening}{text}\n", answer.format(**{f"s{i}": e.completion.strip() for i, e in enumerate(chosen.values())})
            )
        )
    return made


def _input(prompt: str) -> str:
    return prompt.partition(": ")[2].strip() or prompt.strip()


def _sentences(few: Sequence[Example], pools: Mapping[str, Sequence[Example]]) -> list[tuple[str, list[str | None]]]:
    """Each prompt as (opening, words), with None for a place."""
    known = {_bare(word) for pool in pools.values() for example in pool for word in _input(example.prompt).split()}
    seen = Counter(word for example in few for word in set(_input(example.prompt).split()))
    common = {w for w, n in seen.items() if n >= min(COMMON, len(few)) and _bare(w) not in known and not re.search(r"\d", w)}
    sentences = []
    for example in few:
        head, colon, _ = example.prompt.partition(": ")
        words: list[str | None] = []
        for word in _input(example.prompt).split():
            if word in common:
                words.append(word)
            elif not words or words[-1] is not None:
                words.append(None)
        sentences.append((head + colon if colon else "", words))
    return sentences


def _bare(word: str) -> str:
    return word.strip(".,:;!?").casefold()


def _fill(rng: random.Random, words: Sequence[str | None], inputs: Sequence[str]) -> list[str]:
    """The words with every input in a place: each place gets at least one while there are enough, in the order given."""
    places = [i for i, word in enumerate(words) if word is None] or [len(words)]
    share = sorted(places[: len(inputs)] + rng.choices(places, k=max(0, len(inputs) - len(places))))
    left = dict.fromkeys(range(len(words) + 1), 0) | Counter(share)
    queue, out = list(inputs), []
    for i, word in enumerate([*words, None]):
        out += [queue.pop(0) for _ in range(left[i])]
        out += [word] if word is not None else []
    return out


def _answer_pattern(few: Sequence[Example], pools: Mapping[str, Sequence[Example]]) -> str | None:
    """The common form of the few answers with a field `{sK}` for the K-th skill; None if it is not plain which is which."""
    rows = [example.completion.split() for example in few]
    if len({len(row) for row in rows}) != 1:
        return None
    columns = list(zip(*rows, strict=True))
    slots = [i for i, column in enumerate(columns) if len(set(column)) > 1]
    shapes = [Counter(_shape(e.completion.strip()) for e in pool) for pool in pools.values()]
    owner = {}
    for slot in slots:
        wanted = Counter(map(_shape, columns[slot]))
        fits = [sum((wanted & Counter({s: len(few) for s in shape})).values()) for shape in shapes]
        best = max(fits)
        if best < len(few) or fits.count(best) != 1:
            return None
        owner[slot] = fits.index(best)
    if sorted(owner.values()) != list(range(len(pools))):
        return None
    literal = [column[0].replace("{", "{{").replace("}", "}}") for column in columns]
    return " ".join(f"{{s{owner[i]}}}" if i in owner else literal[i] for i in range(len(columns)))


def _shape(text: str) -> str:
    """A value's form: every run of capitals, small letters or digits as one sign (`2021-05-03` is `9-9-9`)."""
    return re.sub(r"\d+", "9", re.sub(r"[a-z]+", "a", re.sub(r"[A-Z]+", "A", text)))
