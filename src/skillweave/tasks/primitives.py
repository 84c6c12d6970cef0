"""Functions on words of a few letters, one after another, and mixtures of tasks: what small bases from scratch learn.

The prompt names the functions in the order in which they are applied: `reverse upper: abcd` is `DCBA`. What belongs to which
split is decided by a hash of the letters of the word, whatever their order: neither a word of the test split nor a word that is
made of its letters turns up in training, under any function.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import permutations
from random import Random

from ..errors import BadData, BadOption, NotFound
from ..task import Example, Task, split_of

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SHORTEST, LONGEST = 3, 8
TRIES = 10_000
"""Draws after which a split is taken to be empty: each split has a tenth of all words, or more."""


def shift(word: str, by: int = 1, letters: str = LETTERS) -> str:
    """For each letter the one that comes `by` places later in `letters`; the first follows the last."""
    return "".join(letters[(letters.index(letter) + by) % len(letters)] for letter in word)


def swap(word: str) -> str:
    """The letters of each pair exchanged; the last of an odd number stays."""
    return "".join(word[at : at + 2][::-1] for at in range(0, len(word), 2))


def draw_word(random: Random, letters: str, lengths: tuple[int, int]) -> str:
    """A word of `lengths` (shortest, longest): a few of `letters`, which may repeat, so that none of the functions is idle."""
    length = random.randint(*lengths)
    few = random.sample(letters, min(len(letters), random.randint(2, max(2, length))))
    return "".join(random.choices(few, k=length))


def key_of_word(word: str) -> str:
    """What decides the split of a word: its letters in alphabetical order, so anagrams are in the same split."""
    return f"letters {''.join(sorted(word))}"


FUNCTIONS: dict[str, Callable[[str], str]] = {
    "copy": str,
    "reverse": lambda word: word[::-1],
    "sort": lambda word: "".join(sorted(word)),
    "shift": shift,
    "double": lambda word: "".join(letter * 2 for letter in word),
    "rotate": lambda word: word[1:] + word[:1],
    "swap": swap,
    "unique": lambda word: "".join(dict.fromkeys(word)),
    "first": lambda word: word[:1],
    "last": lambda word: word[-1:],
    "upper": str.upper,
}
"""Words of lower-case letters to words; all but `upper` can be followed by any other."""
CHAINED = ("reverse", "sort", "shift", "double", "rotate", "swap", "unique")
"""Those that leave work for the next one."""
SHORT = dict(zip(FUNCTIONS, "CRSNDOWUFLP", strict=True))
"""One capital for each name: prompts of half the length, which share no letter with the words (`Words(labels=SHORT)`)."""


class Words(Task):
    """The functions named by `functions`, applied from left to right to words of `lengths` (shortest, longest) of `letters`.

    `table` has functions of one's own by name. The prompt begins with the names, or with what `labels` puts in their place.
    """

    def __init__(
        self,
        seed: int = 0,
        functions: Sequence[str] = ("copy",),
        *,
        letters: str = LETTERS,
        lengths: tuple[int, int] = (SHORTEST, LONGEST),
        table: Mapping[str, Callable[[str], str]] = FUNCTIONS,
        labels: Mapping[str, str] | None = None,
    ):
        super().__init__(seed)
        if not functions:
            raise BadOption("a task on words needs at least one function.", f"choose from {', '.join(table)}")
        if unknown := [name for name in functions if name not in table]:
            raise NotFound("function", unknown[0], table, hint=f"choose from {', '.join(table)}")
        if not 1 <= lengths[0] <= lengths[1]:
            raise BadOption(f"lengths are {lengths}, but have to be (shortest, longest), at least 1.")
        if not letters:
            raise BadOption("there are no letters to make words of.", 'give some, such as letters="abcdef"')
        self.name = " ".join(functions)
        self.description = f"words of {lengths[0]}-{lengths[1]} letters -> {', then '.join(functions)}"
        self.template = " ".join((labels or {}).get(name, name) for name in functions) + ": {input}\n"
        self.depths = (len(functions),)
        self._functions = [table[name] for name in functions]
        self._letters, self._lengths = letters, lengths

    def answer(self, word: str) -> str:
        """What the functions make of `word`."""
        for function in self._functions:
            word = function(word)
        return word

    def example(self, i: int, split: str) -> Example:
        self.check_split(split)
        word = self._word(i, split)
        return Example(self.prompt(word), self.answer(word), {"task": self.name})

    def content(self, example: Example) -> frozenset[str]:
        """The letters of the word in alphabetical order: of `reverse: abc` and `reverse: cba`, one gives the other away."""
        return frozenset({key_of_word(example.prompt.rpartition(": ")[2].strip())})

    def _word(self, i: int, split: str) -> str:
        """Word `i` of `split`."""
        random = self.generator(i, split)
        for _ in range(TRIES):
            word = draw_word(random, self._letters, self._lengths)
            if split_of(key_of_word(word)) == split:
                return word
        raise BadData(
            f"the {split} split of `{self.name}` has no word of {self._lengths[0]} to {self._lengths[1]} of the letters "
            f"{self._letters!r}.",
            "give more letters, or allow longer words",
        )


class Mixture(Task):
    """One of `tasks` an example, drawn by `shares` (equal ones unless given): what a base learns before skills come.

    The tag `task` says whose example it is. It ends where the shortest of the tasks does.
    """

    def __init__(
        self, tasks: Sequence[Task], shares: Sequence[float | int] | None = None, seed: int = 0, name: str = "mixture"
    ):
        super().__init__(seed)
        self.tasks = {task.name: task for task in tasks}
        self.shares = [1.0] * len(tasks) if shares is None else list(shares)
        if not tasks or len(self.tasks) < len(tasks):
            raise BadOption(f"a mixture of {len(tasks)} tasks with {len(self.tasks)} names.", "give tasks of different names")
        if len(self.shares) != len(tasks) or min(self.shares) < 0 or sum(self.shares) <= 0:
            raise BadOption(f"the shares of {len(tasks)} tasks are {self.shares}.", "give one a task, none below 0")
        self.name, self.description = name, f"a mixture of {len(tasks)} tasks: {', '.join(self.tasks)}"
        self.depths = tuple(sorted({depth for task in tasks for depth in task.depths}))
        self.wrong_at_most = max(task.wrong_at_most for task in tasks)

    def size(self, split: str) -> int | None:
        self.check_split(split)
        return min((size for task in self.tasks.values() if (size := task.size(split)) is not None), default=None)

    def example(self, i: int, split: str) -> Example:
        i = i if self.size(split) is None else self.place(i, split)
        name = self.generator(i, split).choices(list(self.tasks), self.shares)[0]
        example = self.tasks[name].example(i, split)
        return Example(example.prompt, example.completion, {**example.tags, "task": name})

    def score(self, example: Example, completion: str) -> float:
        return self._owner(example).score(example, completion)

    def fields(self, example: Example, completion: str) -> dict[str, float]:
        return self._owner(example).fields(example, completion)

    def content(self, example: Example) -> frozenset[str]:
        return self._owner(example).content(example)

    def _owner(self, example: Example) -> Task:
        return self.tasks[example.tags["task"]]


def chains(depth: int = 2, functions: Sequence[str] = CHAINED, seed: int = 0, **options) -> list[Words]:
    """Every task that applies `depth` different ones of `functions`; `options` are those of `Words`."""
    return [Words(seed, names, **options) for names in permutations(functions, depth)]


def chain(seed: int = 0) -> Mixture:
    """Two different functions, one after the other, named by the prompt."""
    mixture = Mixture(chains(2, seed=seed), seed=seed, name="chain")
    mixture.description = f"words -> two of {', '.join(CHAINED)}, one after the other"
    return mixture


def primitives(seed: int = 0) -> Mixture:
    """Every function alone, named by the prompt: something for a small base to be trained on from scratch."""
    mixture = Mixture([Words(seed, [name]) for name in FUNCTIONS], seed=seed, name="primitives")
    mixture.description = f"words -> one of {', '.join(FUNCTIONS)}"
    return mixture


Copy, Reverse, Sort, Shift, Double, Rotate, Swap, Unique, First, Last, Upper = (
    partial(Words, functions=(name,)) for name in FUNCTIONS
)
