"""Self-training that chooses how to sample (B-STaR, paper 23, 2412.17256): temperature and threshold follow the balance score.

Each round first asks `tuning` prompts of the training split at every temperature of a grid, and takes the temperature and the
threshold at which the mean balance score is highest (balance.py). Then it goes on as rejection tuning does (practice.py). The
tuning samples are counted like all others. The reward is 1 for a right answer, plus what a `quality` of one's own says of a
completion; without one only the temperature is chosen.
"""

from dataclasses import dataclass

from ..errors import BadOption, SkillweaveError
from .balance import Try, choose, wanted_of
from .journal import Row
from .practice import Practice
from .rollout import Rollout
from .rounds import Rounds


@dataclass(frozen=True)
class SelfTrain(Practice):
    """A skill from its own right answers; temperature and threshold are chosen anew in each round."""

    tuning: int = 16
    """Training prompts on which each round chooses."""
    temperatures: tuple[float, ...] = (0.5, 0.7, 0.9, 1.1, 1.3)
    """What it chooses from, unitless."""
    thresholds: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5)
    """What it chooses from, in units of reward: 1 is a right answer without a quality of its own."""

    def check(self) -> None:
        """Raises BadOption."""
        super().check()
        if not self.temperatures or min(self.temperatures) <= 0:
            raise BadOption(f"temperatures are {list(self.temperatures)}, but have to be above 0, at least one.")
        if not self.thresholds:
            raise BadOption("there is no threshold to choose.", "leave thresholds as they are")
        if self.tuning < 1:
            raise BadOption(f"tuning is {self.tuning}, but has to be at least 1.")

    def settings(self, course: Rounds, number: int) -> Row:
        """The temperature and the threshold of the highest balance score, and that score. Raises SkillweaveError."""
        examples = [course.prompts.at(number * self.prompts + i) for i in range(min(self.tuning, self.prompts))]
        heats = [heat for heat in self.temperatures for _ in examples]
        rollouts = course.writer.draw(examples * len(self.temperatures), self.samples, heats, "tuning", number)
        tried = {
            heat: [tries(rollout, self.cut) for rollout in rollouts[at * len(examples) : (at + 1) * len(examples)]]
            for at, heat in enumerate(self.temperatures)
        }
        best = choose(tried, self.thresholds, wanted_of(self.steps // self.rounds * self.batch, self.prompts), self.keep)
        if best.balance == 0 and number == 0:
            raise SkillweaveError(
                f"none of {len(rollouts) * self.samples:,} completions of {len(examples)} prompts of "
                f"{course.writer.judge.task.name} was right at any temperature: there is nothing to learn from.",
                "teach it by examples first (--method sft, then --from that skill), or ask easier prompts",
            )
        return {"temperature": best.temperature, "threshold": best.threshold, "balance": best.balance}


def tries(rollout: Rollout, cut: bool) -> list[Try]:
    """The completions of a prompt that could be kept: those that have an end, with `cut` the others, too."""
    rows = zip(rollout.samples, rollout.rewards, rollout.parts["score"], strict=True)
    return [Try(one.text, reward, score >= 1) for one, reward, score in rows if one.tokens and (one.ended or cut)]
