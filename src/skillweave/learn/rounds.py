"""Rounds of sampling, keeping and training as the loop sees them: what a round keeps, the batches of its steps, its row."""

import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import SkillweaveError
from .attempts import Attempts, Watch, completions, unwatched
from .batches import Batch
from .journal import Row
from .loop import Run
from .rollout import Prompts, Rollout, Writer, number, together

if TYPE_CHECKING:
    from .practice import Practice


class Rounds(Attempts):
    """What a run remembers (`loop.Memory`): what this round kept, and what all attempts remember."""

    def __init__(self, method: "Practice", writer: Writer, prompts: Prompts, run: Run, watch: Watch = unwatched):
        super().__init__(writer, prompts, run, watch)
        self.method = method
        self.pairs: list[tuple[list[int], int]] = []
        """(tokens, how many are the completion's) of what is learned from in this round."""

    def batch(self, step: int) -> Batch:
        """The completions to learn from at `step`; the first step of a round draws them from the model as it is."""
        now = self.round_of(step)
        first = self.first_of(now)
        if step == first:
            self._begin(now, step)
        start, pad = (step - first) * self.method.batch, self.writer.use.base.pad
        end = min(start + self.method.batch, self.method.passes * len(self.pairs))
        chosen = [self.pairs[self._at(now, place)] for place in range(start, end)]
        return together([sorted(chosen, key=lambda pair: len(pair[0]))] if chosen else [], pad)

    def round_of(self, step: int) -> int:
        """The round that `step` belongs to: rounds are as even as they can be."""
        return ((step + 1) * self.method.rounds - 1) // self.method.steps

    def first_of(self, now: int) -> int:
        """The first step of a round."""
        return now * self.method.steps // self.method.rounds

    def _at(self, now: int, place: int) -> int:
        """Which of what was kept comes at `place`: pass after pass, each in an order of its own."""
        passes, within = divmod(place, len(self.pairs))
        order = list(range(len(self.pairs)))
        random.Random(number(self.writer.seed, "order", now, passes)).shuffle(order)
        return order[within]

    def _begin(self, now: int, step: int) -> None:
        began, method = time.monotonic(), self.method
        settings = method.settings(self, now)
        examples = [self.prompts.at(now * method.prompts + i) for i in range(method.prompts)]
        rollouts = self.writer.draw(examples, method.samples, settings["temperature"], "round", now)
        self.prompts.told(rollouts)
        kept = [self.chosen(rollout, settings["threshold"]) for rollout in rollouts]
        self.pairs = [pair for rollout in kept for pair in rollout.pairs()]
        self.journal.add(
            {
                "step": step,
                "round": now + 1,
                **settings,
                **_facts(rollouts, kept),
                **self.counts(),
                "step_time": time.monotonic() - began,
                **self.watch(step, self.writer.use),
            }
        )
        if now == 0 and not self.pairs:
            self._refuse(rollouts, settings["threshold"])

    def chosen(self, rollout: Rollout, threshold: float) -> Rollout:
        """The different completions of a prompt that are good enough, the best first; equal ones in the order of drawing."""
        method, seen, good = self.method, set[str](), list[int]()
        for i in sorted(range(len(rollout.samples)), key=lambda i: -rollout.rewards[i]):
            one = rollout.samples[i]
            if rollout.rewards[i] >= threshold and one.tokens and (one.ended or method.cut) and one.text not in seen:
                seen.add(one.text)
                good.append(i)
        return rollout.keep(good[: method.keep or None])

    def _refuse(self, rollouts: Sequence[Rollout], threshold: float) -> None:
        total, best = self.method.prompts * self.method.samples, max(max(rollout.rewards) for rollout in rollouts)
        raise SkillweaveError(
            f"none of {total:,} completions of {len(rollouts)} prompts of {self.writer.judge.task.name} could be kept "
            f"(the best scored {best:.2f}, {threshold:.2f} is the least): there is nothing to learn from.",
            "teach it by examples first (--method sft, then --from that skill), ask easier prompts, or draw more samples",
        )

    def saved(self) -> dict[str, Any]:
        """All that the next step needs beside the weights."""
        return super().saved() | {"pairs": self.pairs}

    def restore(self, saved: dict[str, Any]) -> None:
        """Be as it was when `saved` was taken."""
        super().restore(saved)
        self.pairs = [(tokens, count) for tokens, count in saved["pairs"]]


def _facts(rollouts: Sequence[Rollout], kept: Sequence[Rollout]) -> Row:
    rewards = [value for rollout in rollouts for value in rollout.rewards]
    return {
        "reward": sum(rewards) / len(rewards),
        f"pass@{len(rollouts[0].samples)}": sum(max(rollout.parts["score"]) >= 1 for rollout in rollouts) / len(rollouts),
        "kept": sum(len(rollout.samples) for rollout in kept),
        "kept/prompts": sum(bool(rollout.samples) for rollout in kept),
        **completions(rollouts),
    }
