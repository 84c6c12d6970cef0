"""Completions that the model itself wrote, with what each earned: where rejection tuning, self-training and GRPO begin.

    Prompts    which example is asked next, without end, in an order that follows from the seed
    Judge      what completions earn, a whole group at a time; a verifier that raises counts as 0, and the run goes on
    Writer     draws completions from the model as it is now, and counts them
    Rollout    one prompt, its completions, what each earned; of a conversation, one turn of it
    together   completions as one batch, those of a prompt padded together

The labels are the tokens that were drawn. A text that is encoded again can have others, and the model never drew those. What
an executor or a conversation adds is no label: it is read, or only judged.
"""

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..base import Base
from ..composition import Active
from ..errors import BadData, BadOption
from ..measure.score import ANSWER_TOKENS
from ..progress import say
from ..task import Example, Task
from .batches import Batch, collate
from .loss import TILE
from .sampling import Sample, sample
from .templates import PLAIN, Template
from .turns import Conversation, Executor, Talk, Turns

Reward = Callable[[Example, Sequence[Sample]], Sequence[float]]
"""(an example, all completions of its prompt) -> what each earns, unitless: it sees the whole group."""


@dataclass(frozen=True)
class Rollout:
    """One prompt, its completions, what each earned."""

    example: Example
    prompt: tuple[int, ...]
    """Tokens of what was asked, template included."""
    samples: tuple[Sample, ...]
    rewards: tuple[float, ...]
    """The sum of `parts`, a number a completion."""
    parts: dict[str, tuple[float, ...]] = field(hash=False)
    """What each completion earned by what: `score`, and `quality` and `format` where there is such a reward."""
    turn: int = 0
    """Which turn of a conversation the completions are."""
    prompts: tuple[tuple[int, ...], ...] = ()
    """What each completion was written behind, where that is not the same for all: from the second turn on."""

    @property
    def level(self) -> bool:
        """Whether all completions earned exactly the same: there is nothing to prefer."""
        return len(set(self.rewards)) == 1

    def pairs(self) -> list[tuple[list[int], int]]:
        """(tokens of prompt and completion, how many are the completion's) for each completion."""
        prompts = self.prompts or (self.prompt,) * len(self.samples)
        return [([*prompt, *one.tokens], len(one.tokens)) for prompt, one in zip(prompts, self.samples, strict=True)]

    def keep(self, chosen: Sequence[int]) -> "Rollout":
        """The same prompt with some of its completions."""
        parts = {name: tuple(values[i] for i in chosen) for name, values in self.parts.items()}
        samples, rewards = tuple(self.samples[i] for i in chosen), tuple(self.rewards[i] for i in chosen)
        prompts = tuple(self.prompts[i] for i in chosen) if self.prompts else ()
        return Rollout(self.example, self.prompt, samples, rewards, parts, self.turn, prompts)

    def saved(self) -> list[Any]:
        """All of it as a JSON value."""
        samples = [[one.tokens, one.logprobs, one.text, one.ended] for one in self.samples]
        example = [self.example.prompt, self.example.completion, self.example.tags]
        return [example, self.prompt, samples, self.rewards, self.parts, self.turn, self.prompts]

    @staticmethod
    def restored(saved: Sequence[Any]) -> "Rollout":
        """What `saved` was."""
        example, prompt, samples, rewards, parts, turn, prompts = saved
        made = tuple(Sample(tuple(tokens), tuple(logprobs), text, ended) for tokens, logprobs, text, ended in samples)
        named = {name: tuple(values) for name, values in parts.items()}
        return Rollout(Example(*example), tuple(prompt), made, tuple(rewards), named, turn, tuple(map(tuple, prompts)))


class Prompts:
    """The examples of a pool, pass after pass, each pass in an order of its own.

    One that looks at how the model does (a curriculum) overrides `told`, `saved` and `restore`: what it has learned is saved
    with the run.
    """

    def __init__(self, examples: Sequence[Example], seed: int):
        if not examples:
            raise BadData("there are no examples to learn from.", "give a task or file with at least one example")
        self.examples, self.seed = list(examples), seed
        self._pass: tuple[int, list[int]] = (-1, [])

    def at(self, place: int) -> Example:
        """The example at `place` (0, 1, …): the same one each time."""
        number, within = divmod(place, len(self.examples))
        if self._pass[0] != number:
            order = list(range(len(self.examples)))
            random.Random(f"{self.seed}:prompts:{number}").shuffle(order)
            self._pass = (number, order)
        return self.examples[self._pass[1][within]]

    def told(self, rollouts: Sequence[Rollout]) -> None:
        """What came of the prompts that were asked last."""

    def saved(self) -> Any:
        """What it remembers, as a JSON value."""
        return None

    def restore(self, saved: Any) -> None:
        """Be as it was when `saved` was taken."""


class Judge:
    """What completions earn: by `reward` of the group, else by the score of `task`; what raises or is no number earns 0."""

    def __init__(self, task: Task, reward: Reward | None = None):
        self.task, self.reward, self.failed = task, reward, 0

    def __call__(self, example: Example, samples: Sequence[Sample]) -> tuple[float, ...]:
        if self.reward is None:
            return tuple(self._number(lambda one=one: self.task.score(example, one.text)) for one in samples)
        try:
            values = list(self.reward(example, samples))
        except Exception as error:
            self.fault(error, len(samples))
            return (0.0,) * len(samples)
        if len(values) != len(samples):
            raise BadOption(f"the reward gave {len(values)} numbers for {len(samples)} completions.", "give one a completion")
        return tuple(self._number(lambda value=value: value) for value in values)

    def turns(self, example: Example, talks: Sequence[Talk], turns: Turns) -> list[tuple[float, ...]]:
        """What each turn of each conversation earned: by the reward of `turns`, or all of them what the last one scores."""
        if turns.reward is None:
            return [(score,) * len(talk) for score, talk in zip(self(example, [t[-1] for t in talks]), talks, strict=True)]
        try:
            values = [list(each) for each in turns.reward(example, talks)]
        except Exception as error:
            self.fault(error, len(talks))
            return [(0.0,) * len(talk) for talk in talks]
        if [len(each) for each in values] != [len(talk) for talk in talks]:
            got, wanted = [len(each) for each in values], [len(talk) for talk in talks]
            raise BadOption(f"the reward gave {got} numbers for conversations of {wanted} turns.", "give one a turn")
        return [tuple(self._number(lambda value=value: value) for value in each) for each in values]

    def _number(self, ask: Callable[[], float]) -> float:
        try:
            value = float(ask())
            if not math.isfinite(value):
                raise ValueError(f"the reward is {value}")
            return value
        except Exception as error:
            self.fault(error, 1)
            return 0.0

    def fault(self, error: Exception, count: int) -> None:
        """Count `count` answers that could not be judged, and say so the first time."""
        if not self.failed:
            say(f"the verifier of {self.task.name} failed and counts as 0: {type(error).__name__}: {str(error)[:200]}")
        self.failed += count


ROWS = {False: 256, True: 64}
"""Completions that are written together, by whether the vocabulary is a large one: its scores are held for each."""


class Writer:
    """Draws completions from `use` as it is now."""

    def __init__(
        self,
        use: Active,
        judge: Judge,
        limit: int,
        seed: int,
        *,
        templates: Sequence[Template] = (),
        quality: Reward | None = None,
        executor: Executor | None = None,
        turns: Turns | None = None,
    ):
        if turns is not None and (templates or quality is not None):
            raise BadOption(
                "a conversation has neither templates nor a quality.", "leave them out; reply and reward can do both"
            )
        self.use, self.judge, self.limit, self.seed = use, judge, limit, seed
        self.templates, self.executor, self.turns = tuple(templates), executor, turns
        self.quality = None if quality is None else Judge(judge.task, quality)
        self.samples = self.drawn = self.read = 0
        """Completions so far, their tokens, and the tokens of their prompts."""

    def draw(
        self, examples: Sequence[Example], count: int, temperature: float | Sequence[float], *where: object
    ) -> list[Rollout]:
        """`count` completions for each of `examples`; `where` in the run, with its seed, decides which ones.

        All completions of an example share one template, drawn for it; each has its reward in the completion's own words.
        """
        return [turns[0] for turns in self.play(examples, count, temperature, *where)]

    def play(
        self, examples: Sequence[Example], count: int, temperature: float | Sequence[float], *where: object
    ) -> list[list[Rollout]]:
        """The same with every turn of a conversation that follows: a rollout a turn, the first one first."""
        chosen = [self._template(i, *where) for i in range(len(examples))]
        asked = [template.prompt(example.prompt) for template, example in zip(chosen, examples, strict=True)]
        written = self._write(asked, count, temperature, *where)
        if self.turns is None:
            shown = self._shown(examples, chosen, written)
            return [[self._judged(*each)] for each in zip(examples, chosen, asked, written, shown, strict=True)]
        heats = temperature if isinstance(temperature, Sequence) else [temperature] * len(examples)
        groups = [[Conversation(e, heats[i], [asked[i]], [one]) for one in written[i]] for i, e in enumerate(examples)]

        def write(turn: int, texts: Sequence[str], heats: Sequence[float]) -> list[Sample]:
            return [one for (one,) in self._write(texts, 1, heats, *where, "turn", turn)]

        self.turns.converse([talk for group in groups for talk in group], write, self.judge.fault)
        return [self._earned(*each) for each in zip(examples, groups, strict=True)]

    def _write(
        self, asked: Sequence[str], count: int, temperature: float | Sequence[float], *where: object
    ) -> list[list[Sample]]:
        seed = number(self.seed, "samples", *where)
        rows = ROWS[len(self.use.base.head) > TILE]
        written = sample(self.use, asked, count, max_new_tokens=self.limit, temperature=temperature, seed=seed, batch=rows)
        self.samples += len(written) * count
        self.drawn += sum(len(one.tokens) for samples in written for one in samples)
        self.read += sum(len(self._encoded(prompt)) * count for prompt in asked)
        return written

    def _template(self, i: int, *where: object) -> Template:
        if not self.templates:
            return PLAIN
        return self.templates[number(self.seed, "template", *where, i) % len(self.templates)]

    def _shown(
        self, examples: Sequence[Example], chosen: Sequence[Template], written: Sequence[Sequence[Sample]]
    ) -> list[list[Sample]]:
        """What is judged: the answer in a completion, or what the executor makes of it; an executor that fails says nothing."""
        texts = [[template.answer(one.text) for one in samples] for template, samples in zip(chosen, written, strict=True)]
        if self.executor is not None:
            asked = [example for example, said in zip(examples, texts, strict=True) for _ in said]
            made = iter(self._carried_out(asked, [text for said in texts for text in said]))
            texts = [[next(made) for _ in said] for said in texts]
        return [[replace(one, text=text) for one, text in zip(*each, strict=True)] for each in zip(written, texts, strict=True)]

    def _carried_out(self, examples: Sequence[Example], texts: Sequence[str]) -> list[str]:
        assert self.executor is not None
        try:
            made = list(self.executor(examples, texts))
        except Exception as error:
            self.judge.fault(error, len(texts))
            return [""] * len(texts)
        if len(made) != len(texts):
            raise BadOption(f"the executor gave {len(made)} answers for {len(texts)} completions.", "give one a completion")
        return made

    def _judged(
        self, example: Example, template: Template, asked: str, samples: Sequence[Sample], shown: Sequence[Sample]
    ) -> Rollout:
        parts = {"score": self.judge(example, shown)}
        if self.quality is not None:
            parts["quality"] = self.quality(example, shown)
        if self.templates:
            parts["format"] = tuple(template.share * template.format(one.text) for one in samples)
        rewards = tuple(sum(values) for values in zip(*parts.values(), strict=True))
        return Rollout(example, self._encoded(asked), tuple(samples), rewards, parts)

    def _earned(self, example: Example, talks: Sequence[Conversation]) -> list[Rollout]:
        """A rollout a turn, of the conversations that got so far."""
        assert self.turns is not None
        shown = self._shown([example], [PLAIN], [[talk.said[-1] for talk in talks]])[0]
        judged = [(*talk.said[:-1], last) for talk, last in zip(talks, shown, strict=True)]
        rewards = self.judge.turns(example, judged, self.turns)
        found = []
        for turn in range(max(len(talk.said) for talk in talks)):
            here = [i for i, talk in enumerate(talks) if len(talk.said) > turn]
            earned = tuple(rewards[i][turn] for i in here)
            prompts = tuple(self._encoded(talks[i].asked[turn]) for i in here)
            samples = tuple(talks[i].said[turn] for i in here)
            found.append(Rollout(example, prompts[0], samples, earned, {"score": earned}, turn, prompts if turn else ()))
        return found

    def _encoded(self, text: str) -> tuple[int, ...]:
        return tuple(self.use.base.encode(text, start=True) or [self.use.base.eos])

    def saved(self) -> list[int]:
        """Its counts."""
        return [self.samples, self.drawn, self.read, self.judge.failed]

    def restore(self, saved: Sequence[int]) -> None:
        """Be as it was when `saved` was taken."""
        self.samples, self.drawn, self.read, self.judge.failed = saved


@dataclass(frozen=True)
class Parts(Batch):
    """Batches that count as one and are computed apart, each with its own padding."""

    parts: tuple[Batch, ...] = ()

    @property
    def positions(self) -> int:
        return sum(part.positions for part in self.parts)

    def pieces(self, positions: int) -> list[Batch]:
        return [piece for part in self.parts for piece in part.pieces(positions)]


def together(groups: Sequence[Sequence[tuple[list[int], int]]], pad: int) -> Parts:
    """(tokens, number of answer tokens) pairs as one batch, those of a group padded together; no groups make an idle step.

    Its samples are numbered through, in the order in which they come.
    """
    if not groups:
        none = torch.zeros(0, dtype=torch.long)
        return Parts(none[:, None], none, none, 0)
    parts, first = [], 0
    for group in groups:
        parts.append(replace(collate(group, pad), samples=tuple(range(first, first + len(group)))))
        first += len(group)
    whole = collate([pair for group in groups for pair in group], pad)
    return Parts(whole.tokens, whole.rows, whole.labels, whole.real, tuple(range(first)), tuple(parts))


def number(*where: object) -> int:
    """A seed of 63 bits for a place in a run, its own and the same in every process."""
    return int.from_bytes(hashlib.blake2b("/".join(map(str, where)).encode(), digest_size=8).digest()) >> 1


def limit_of(base: Base, examples: Sequence[Example], given: int) -> int:
    """The most tokens of a completion: `given`, or (0) a few beyond the longest right answer."""
    return given or max(len(base.encode(example.completion)) for example in examples) + ANSWER_TOKENS
