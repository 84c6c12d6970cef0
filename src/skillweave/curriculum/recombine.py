"""New examples of a task from few: the skills' own examples in the places where the few hold what the skills know.

A word that stands in several of the few prompts, and in no input of a skill, belongs to the sentence; every run of other words
is a place. A prompt's words are kept in order and its places filled anew, with one input of each skill in any order. The
answers go where the few answers hold a value of that skill's shape. Nothing but the few examples and those that the skills
carry is used.

    "On August 5, 2024 we billed a client in Bhutan three hundred dirhams."  ->  "On _ we billed a client in _"
"""

import os
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from ..task import Example

COMMON = 3
"""Prompts that a word has to stand in to belong to the sentence."""


def recombine(few: Sequence[Example], pools: Mapping[str, Sequence[Example]], count: int, seed: int) -> list[Example]:
    """`count` new examples, or none at all when the answers do not show one value for each skill.

    few: examples of the task; pools: each skill's own examples. What all prompts of one source begin and end with (`date: `,
    a line's end) is their frame; the input is what stands between. Prompts of several lines are left alone.
    """
    answer = _answer_pattern(few, pools)
    if answer is None or not all(pools.values()):
        return []
    frames = {name: _frame(pool) for name, pool in pools.items()}
    opening, ending = _frame(few)
    bare = {name: [(_input(e.prompt, frames[name]), e.completion) for e in pool] for name, pool in pools.items()}
    sentences = _sentences(
        [_input(e.prompt, (opening, ending)) for e in few], [text for pool in bare.values() for text, _ in pool]
    )
    if any("\n" in text for pool in bare.values() for text, _ in pool) or any(w and "\n" in w for s in sentences for w in s):
        return []
    rng = random.Random(f"{seed}:recombine")
    lead = " " if all(e.completion.startswith(" ") for e in few) else ""
    made = []
    for _ in range(count):
        words = rng.choice(sentences)
        chosen = [rng.choice(pool) for pool in bare.values()]
        values = {f"s{i}": completion.strip() for i, (_, completion) in enumerate(chosen)}
        inputs = [text for text, _ in chosen]
        rng.shuffle(inputs)
        made.append(Example(f"{opening}{' '.join(_fill(rng, words, inputs))}{ending}", lead + answer.format(**values)))
    return made


def _frame(examples: Sequence[Example]) -> tuple[str, str]:
    """What all prompts begin with, up to a colon, and end with, of spaces and signs that ask for an answer."""
    prompts = [example.prompt for example in examples]
    start = os.path.commonprefix(prompts)
    end = os.path.commonprefix([prompt[::-1] for prompt in prompts])[::-1]
    return start[: start.rfind(": ") + 2] if ": " in start else "", end[len(end.rstrip(" \t\n\r\f\v=>:-")) :]


def _input(prompt: str, frame: tuple[str, str]) -> str:
    return prompt.removeprefix(frame[0]).removesuffix(frame[1]).strip(" ")


def _sentences(few: Sequence[str], inputs: Sequence[str]) -> list[list[str | None]]:
    """Each of the few as its words, with None for a place."""
    known = {_bare(word) for text in inputs for word in text.split()}
    seen = Counter(word for text in few for word in set(text.split(" ")))
    common = {w for w, n in seen.items() if n >= min(COMMON, len(few)) and _bare(w) not in known and not re.search(r"\d", w)}
    sentences = []
    for text in few:
        words: list[str | None] = []
        for word in text.split(" "):
            if word in common:
                words.append(word)
            elif not words or words[-1] is not None:
                words.append(None)
        sentences.append(words)
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
