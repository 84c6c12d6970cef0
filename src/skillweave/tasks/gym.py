"""The sound part of reasoning_gym 0.1.25 (arXiv:2505.24760), and true compositions of it (the extra `gym`).

    gym-gcd                               a task of it
    gym-gcd-then-chain-sum                the answer of one is a number in the next
    [1] Find the Greatest Common Divisor (GCD) of these numbers: 36, 84. …
    [2] State the final answer to the following arithmetic problem: [1] + 25 =
    [1] 12
    [2] 37

What is taken over are questions, answers and verifiers; the splits are ours. Which item is asked for is a hash of (task,
settings, split, place), and an item belongs to the split that a hash of its words says, whatever their order. A completion
scores 1 or 0: partial credit of a verifier is none. Which tasks are in, and why others are not, was found out by
`benchmarks/gym_audit.py`; `results/gym_audit.json` has it for each.
"""

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..errors import BadData, BadOption, MissingExtra, NotFound
from ..task import Example, Task, split_of
from . import GYM

VERSION = "0.1.25"
"""The one that was audited."""
THEN = "-then-"
VALID, TEST = 0.2, 0.2
"""Shares of the items."""
TRIES = 1000
POOL = 3000
"""Items of a task among which one is looked for that has a given answer in it."""
MOST_STEPS = 4
RIGHT = 0.999
"""What a verifier has to give: less is partial credit."""
EXACT = (
    "binary_matrix",
    "bitwise_arithmetic",
    "calendar_arithmetic",
    "fraction_simplification",
    "letter_jumble",
    "number_sorting",
    "spell_backward",
    "spiral_matrix",
    "string_insertion",
)
"""Tasks with one right answer whose verifiers execute it or take others, too: here only the answer itself is right."""
NAMES = """
advanced_geometry aiw arc_1d arc_agi base_conversion basic_arithmetic bf binary_alternation binary_matrix
bitwise_arithmetic caesar_cipher calendar_arithmetic chain_sum circuit_logic color_cube_rotation complex_arithmetic
count_bits count_primes course_schedule cryptarithm decimal_arithmetic decimal_chain_sum dice emoji_mystery
family_relationships figlet_font fraction_simplification gcd group_anagrams largest_island lcm leg_counting
letter_counting letter_jumble mahjong_puzzle manipulate_matrix maze mini_sudoku modulo_grid needle_haystack
number_filtering number_format number_sequence number_sorting palindrome_generation palindrome_partitioning path_star
pool_matrix power_function prime_factorization products rearc rectangle_count rotate_matrix rotten_oranges
self_reference sentence_reordering shortest_path simple_equations simple_geometry spell_backward spiral_matrix
string_insertion string_manipulation string_splitting string_synthesis sudoku tower_of_hanoi tsumego
word_sequence_reversal word_sorting
"""
SOUND = tuple(NAMES.split())
"""What passes the audit."""


@dataclass(frozen=True)
class Place:
    """Where a question takes the answer of another one, and settings under which such answers occur there."""

    pattern: str
    """With one group: what is replaced."""
    settings: Mapping[str, Any] = field(hash=False)
    idle: tuple[str, ...] = ()
    """Answers that do not depend on what stands there."""


PLACES = {
    "chain_sum": Place(r": (\d+) [+-]", {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2}),
    "products": Place(r": (\d+) \*", {"min_digits": 1, "max_digits": 2}, idle=("0",)),
    "base_conversion": Place(r"number (\w+) to", {"min_value": 1, "max_value": 200}),
    "count_bits": Place(r"number (\d+)\?", {"min_n": 1, "max_n": 200}),
}
"""Tasks that can come second: their answer is another one for almost every other number in that place."""


class Gym(Task):
    """A task of reasoning_gym, with its own settings or others."""

    def __init__(self, seed: int = 0, what: str = "gcd", settings: Mapping[str, Any] | None = None):
        """`what` is its name there. NotFound for one that is not sound, MissingExtra without the package."""
        super().__init__(seed)
        if what not in SOUND:
            raise NotFound(
                "sound task of reasoning_gym", what, SOUND, hint="results/gym_audit.json says what is wrong with others"
            )
        self.what, self.key = what, json.dumps(settings or {}, sort_keys=True)
        try:
            _dataset(what, self.key)
        except (AssertionError, TypeError, ValueError) as error:
            raise BadOption(
                f"reasoning_gym refuses {self.key} for {what}: {error}.", "leave them out, or give others"
            ) from error
        self.name, self.template, self.setting = name_of(what), "{input}\n", self.key
        self.description = f"{what.replace('_', ' ')}, as in reasoning_gym -> the answer"

    def example(self, i: int, split: str) -> Example:
        self.check_split(split)
        for attempt in range(TRIES):
            at = number(self.what, self.key, self.seed, split, i, attempt)
            item = item_of(self.what, self.key, at)
            if item.split == split:
                return Example(self.prompt(item.question), item.answer, {"item": str(at)})
        raise BadData(f"the {split} split of `{self.name}` is empty: there are too few items.", "give settings that allow more")

    def score(self, example: Example, completion: str) -> float:
        """1 for the answer itself or what the task's own verifier takes for right; what that cannot read is wrong."""
        if completion.strip() == example.completion.strip():
            return 1.0
        if self.what in EXACT:
            return 0.0
        return float(verified(self.what, self.key, int(example.tags["item"]), completion))

    def content(self, example: Example) -> frozenset[str]:
        return frozenset({item_of(self.what, self.key, int(example.tags["item"])).content})


class GymChain(Task):
    """Tasks of reasoning_gym in a row: the answer of each is a number in the next question, in which it is not told."""

    def __init__(self, seed: int = 0, parts: Sequence[str] = ("gcd", "chain_sum"), *, trace: bool = True):
        """`trace` asks for the answer of each step, a line each; only the last is scored."""
        super().__init__(seed)
        if not 2 <= len(parts) <= MOST_STEPS:
            raise BadOption(f"{len(parts)} tasks cannot make a chain.", f"name 2 to {MOST_STEPS}, joined by {THEN}")
        for what in parts[1:]:
            if what not in PLACES:
                raise NotFound(
                    "task that takes an answer", what, PLACES, hint=f"those that can come second: {', '.join(PLACES)}"
                )
        self.parts = [(what, json.dumps(PLACES[what].settings if what in PLACES else {}, sort_keys=True)) for what in parts]
        for what in parts:
            Gym(seed, what)
        self.name = name_of(*parts)
        self.template, self.depths, self._trace = "{input}\n", (len(parts),), trace
        words = " of ".join(what.replace("_", " ") for what in reversed(parts))
        self.description = f"{words}, as in reasoning_gym -> {'answers' if trace else 'the last answer'}"

    def example(self, i: int, split: str) -> Example:
        self.check_split(split)
        (first, key), *rest = self.parts
        for attempt in range(TRIES):
            at = number(self.name, self.seed, split, i, attempt)
            places, item = [at], item_of(first, key, at)
            if item.split != split:
                continue
            for step, (what, settings) in enumerate(rest, 1):
                known = pool(what, settings, split).get(self._answer(step - 1, places[-1]), [])
                if not known:
                    break
                places.append(known[number(at, step) % len(known)])
            else:
                return self._written(places)
        raise BadData(
            f"no answer of {self.parts[0][0]} leads on through `{self.name}` in the {split} split.", "chain other tasks"
        )

    def final(self, completion: str) -> str:
        """The last line, without the number of its step."""
        return re.sub(r"^\[\d\]", "", completion.strip().rpartition("\n")[2]).strip()

    def content(self, example: Example) -> frozenset[str]:
        """The items of all steps."""
        places = map(int, example.tags["items"].split())
        return frozenset(item_of(what, key, at).content for (what, key), at in zip(self.parts, places, strict=True))

    def _answer(self, step: int, at: int) -> str:
        return item_of(*self.parts[step], at).answer

    def _written(self, places: Sequence[int]) -> Example:
        items = [item_of(what, key, at) for (what, key), at in zip(self.parts, places, strict=True)]
        asked = [items[0].question]
        for step, ((what, _), item) in enumerate(zip(self.parts[1:], items[1:], strict=True), 1):
            place = re.search(PLACES[what].pattern, item.question)
            assert place is not None, f"{what} asks in another way than it used to"
            asked.append(f"{item.question[: place.start(1)]}[{step}]{item.question[place.end(1) :]}")
        questions = "\n".join(f"[{step}] {text.strip()}" for step, text in enumerate(asked, 1))
        text = f"Here [1] stands for the answer to question 1, and so on.\n{questions}"
        answers = [f"[{step}] {item.answer}" for step, item in enumerate(items, 1)]
        tags = {"items": " ".join(map(str, places)), "inner": " / ".join(item.answer for item in items[:-1])}
        return Example(self.prompt(text), "\n".join(answers) if self._trace else items[-1].answer, tags)


@dataclass(frozen=True)
class Item:
    """A question and its answer, which is empty where there is none."""

    question: str
    answer: str
    content: str
    """What it is about, whatever the order of its words."""
    split: str
    """Nothing for one without an answer: it is not used."""


def names() -> list[str]:
    """Every task that is sound, under the name by which it can be asked for."""
    return [name_of(what) for what in SOUND]


def name_of(*parts: str) -> str:
    """The name of a task or chain here."""
    return GYM + THEN.join(parts).replace("_", "-")


def named(name: str, seed: int = 0) -> Task:
    """The task or chain called `name`, as in `gym-gcd` and `gym-gcd-then-chain-sum`."""
    parts = [part.replace("-", "_") for part in name.removeprefix(GYM).split(THEN)]
    return Gym(seed, parts[0]) if len(parts) == 1 else GymChain(seed, parts)


def number(*where: object) -> int:
    """A place among all items of a task, 31 bits."""
    return int.from_bytes(hashlib.blake2b("/".join(map(str, where)).encode(), digest_size=4).digest()) >> 1


@lru_cache(4096)
def item_of(what: str, key: str, at: int) -> Item:
    """Item `at` of the task `what` with the settings `key`."""
    entry = _entry(what, key, at)
    question, answer = entry["question"], str(entry["answer"] or "").strip()
    words = sorted(re.findall(r"[^\W_]+|[^\w\s]", question.lower()))
    content = " ".join([what, *words])
    return Item(question, answer, content, split_of(content, VALID, TEST) if answer else "")


@cache
def pool(what: str, key: str, split: str) -> dict[str, list[int]]:
    """What stands in the place for an answer -> items of `split` that have it there, and need it."""
    found: dict[str, list[int]] = {}
    place = PLACES[what]
    for at in (number("pool", what, key, i) for i in range(POOL)):
        item = item_of(what, key, at)
        match = re.search(place.pattern, item.question)
        if item.split == split and match is not None and item.answer not in place.idle:
            found.setdefault(match[1], []).append(at)
    return found


def verified(what: str, key: str, at: int, answer: str) -> bool:
    """Whether the task's own verifier takes `answer` for right; False if that makes it fail."""
    try:
        with redirect_stdout(io.StringIO()):
            return float(_dataset(what, key).score_answer(answer, entry=_entry(what, key, at))) >= RIGHT
    except Exception:
        return False


@lru_cache(256)
def _entry(what: str, key: str, at: int) -> dict[str, Any]:
    with redirect_stdout(io.StringIO()):  # some of its tasks print
        return _dataset(what, key)[at]


@cache
def _dataset(what: str, key: str) -> Any:
    """All items of a task: they are made when they are asked for. Its seed is 0, always: another would be the same, shifted."""
    try:
        found = version("reasoning-gym")
        from reasoning_gym import create_dataset
    except (PackageNotFoundError, ImportError) as error:
        raise MissingExtra("a task of reasoning_gym", "skillweave[gym]") from error
    if found != VERSION:
        raise BadOption(
            f"reasoning_gym is {found}, but {VERSION} is what was audited.", f"pip install reasoning-gym=={VERSION}"
        )
    return create_dataset(what, seed=0, size=2**31, **json.loads(key))
