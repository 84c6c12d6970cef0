"""A GRPO run as the loop sees it: the batch of a step, its loss, and what is said of it."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..composition import Active
from ..errors import SkillweaveError
from ..progress import say
from .attempts import Attempts, Watch, completions, unwatched
from .batches import Batch
from .collapse import fallen
from .grpo_loss import Terms, advantages, k3, terms, weights
from .journal import Row
from .loop import Plan, Run, rate
from .loss import token_nats
from .rollout import Prompts, Rollout, Writer, together

if TYPE_CHECKING:
    from .grpo import GRPO


class Course(Attempts):
    """What a run remembers (`loop.Memory`): the completions that it learns from now, and what all attempts remember."""

    def __init__(
        self,
        method: "GRPO",
        plan: Plan,
        writer: Writer,
        reference: Active,
        prompts: Prompts,
        run: Run,
        watch: Watch = unwatched,
    ):
        super().__init__(writer, prompts, run, watch)
        self.method, self.plan, self.reference = method, plan, reference
        self.note = ""
        self.kept: list[Rollout] = []
        """Groups whose completions differ in reward, of conversations a turn: what is learned from."""
        self.facts: Row = {}
        """What is said of the completions of this step, those of dropped groups included."""
        self.warned = False
        self._began = time.monotonic()

    def batch(self, step: int) -> Batch:
        """The completions to learn from at `step`, drawn anew from the model as it is unless the last ones are still in use."""
        self._began, self._sums = time.monotonic(), {}
        self._step = step
        if step == 0 and self.method.probe:
            self._probe()
        if step % self.method.updates == 0:
            self._draw(step)
        self._ready()
        return together([rollout.pairs() for rollout in self.kept], self.writer.use.base.pad)

    def _probe(self) -> None:
        """How often one completion, and one of a group, is right: of conversations, what their first turns earned.

        SkillweaveError if there is nothing to learn from.
        """
        group = self.method.group
        examples = [self.prompts.at(place) for place in range(self.method.probe)]
        played = self.writer.play(examples, group, self.method.temperature, "probe")
        rollouts = [turns[0] for turns in played]
        rewards = torch.tensor([rollout.rewards for rollout in rollouts])
        right = torch.tensor([rollout.parts["score"] for rollout in rollouts]) >= 1
        some = right.any(1).float().mean().item()
        row = {"step": 0, "pass@1": right.float().mean().item(), f"pass@{group}": some, **self.counts()}
        self.journal.add(row | {"reward": rewards.mean().item()})
        if all(rollout.level for turns in played for rollout in turns):
            self._refuse(rewards)

    def _refuse(self, rewards: Float[Tensor, "prompt sample"]) -> None:
        count, name = rewards.numel(), self.writer.judge.task.name
        if not rewards.any():
            raise SkillweaveError(
                f"none of {count:,} completions of {len(rewards)} prompts of {name} earned anything "
                f"(pass@{self.method.group} is 0): there is nothing to reinforce.",
                "teach it by examples first (--method sft, then --from that skill), ask easier prompts, or larger groups",
            )
        raise SkillweaveError(
            f"within each of {len(rewards)} groups of {name} all completions earned the same (on average "
            f"{rewards.mean():.2f}): there is nothing to prefer.",
            "ask harder prompts, or raise the temperature (--set temperature=1.2)",
        )

    def _draw(self, step: int) -> None:
        """Ask prompts until `batch` groups have something to prefer, or the refills are used up."""
        method, seen = self.method, list[Rollout]()
        place = step // method.updates * method.batch * (1 + method.refills)
        self.kept, asked, kept = [], 0, 0
        for attempt in range(1 + method.refills):
            missing = method.batch - kept
            if not missing:
                break
            examples = [self.prompts.at(place + asked + i) for i in range(missing)]
            asked += missing
            for turns in self.writer.play(examples, method.group, method.temperature, step, attempt):
                seen += turns
                useful = [rollout for rollout in turns if not rollout.level]
                self.kept += useful
                kept += bool(useful)
        self.prompts.told(seen)
        self.facts = self._facts(seen) | {"groups/kept": kept, "groups/asked": asked}

    def _ready(self) -> None:
        """What the loss needs of each completion."""
        samples = [one for rollout in self.kept for one in rollout.samples]
        self._old = [torch.tensor(one.logprobs) for one in samples]
        self._better = [a for r in self.kept for a in advantages(torch.tensor(r.rewards), self.method.loss).tolist()]
        lengths = torch.tensor([len(one.tokens) for one in samples], dtype=torch.long)
        self._weights = weights(self.method.loss, lengths, self.writer.limit).tolist() if samples else []
        self._labels = int(lengths.sum())

    def loss(self, piece: Batch) -> Float[Tensor, ""]:
        """The part of `piece` in the loss of the step, as the mean over labels that the loop takes it for."""
        method = self.method
        owner = piece.rows // piece.tokens.shape[1]
        spread = [torch.tensor([values[i] for i in piece.samples])[owner] for values in (self._better, self._weights)]
        old = torch.cat([self._old[i] for i in piece.samples])
        logp = self._logp(self.writer.use, piece)
        term = terms(method.loss, logp, old, spread[0], owner, method.clip)
        each = term.loss
        if method.kl:
            with torch.no_grad():
                reference = self._logp(self.reference, piece)
            moved = k3(logp, reference)
            each = each + method.kl * moved
            self._add("kl", moved)
        self._watch(term, logp.detach() - old, owner)
        total = (spread[1] * each).sum()
        self._sums["loss"] = self._sums.get("loss", 0.0) + total.item()
        return total * (self._labels / max(1, len(piece.labels)))

    def _logp(self, use: Active, piece: Batch) -> Float[Tensor, " token"]:
        with use.on([""] * len(piece.tokens)):
            rows = use.base.hidden(piece.tokens).flatten(0, 1)[piece.rows]
            return -token_nats(use.base, rows, piece.labels, self.method.temperature)

    def _watch(self, term: Terms, gap: Float[Tensor, " token"], owner: Tensor) -> None:
        """Means over tokens, and the extremes over completions that TRL has, too."""
        self._add("clip_ratio/low_mean", term.fell)
        self._add("clip_ratio/high_mean", term.rose)
        self._add("clip_ratio/region_mean", term.fell | term.rose)
        self._add("sampling/sampling_logp_difference/mean", gap.abs())
        self._most("sampling/sampling_logp_difference/max", gap.abs().max().item())
        count = torch.bincount(owner).clamp(min=1)
        shares = [torch.bincount(owner, cut.double()) / count for cut in (term.fell, term.rose)]
        self._most("clip_ratio/low_min", -shares[0].min().item())
        self._most("clip_ratio/high_max", shares[1].max().item())

    def _add(self, key: str, values: Tensor) -> None:
        self._sums[key] = self._sums.get(key, 0.0) + values.detach().double().sum().item() / max(1, self._labels)

    def _most(self, key: str, value: float) -> None:
        self._sums[key] = max(self._sums.get(key, value), value)

    def after(self) -> None:
        """One row of the journal."""
        sums = self._sums
        if "clip_ratio/low_min" in sums:
            sums["clip_ratio/low_min"] = abs(sums["clip_ratio/low_min"])  # kept as the largest of negatives
        row = {"step": self._step + 1, "loss": 0.0, **sums, "learning_rate": self.method.lr * rate(self._step, self.plan)}
        row |= self.facts | self.counts() | {"step_time": time.monotonic() - self._began}
        row |= self.watch(self._step + 1, self.writer.use)
        self.journal.add(row)
        self.note = f"reward {self.facts['reward']:.3f} · entropy {self.facts['entropy']:.2f}"
        self._warn()

    def _warn(self) -> None:
        """Say once when the reward has come down from where it was."""
        rewards = [row["reward"] for row in self.journal.rows if row["step"]]
        if not self.warned and fallen(rewards) is not None:
            self.warned = True
            entropy = self.journal.series("entropy")
            say(
                f"collapse: the mean reward has fallen since its best steps, and the entropy went from {entropy[0]:.2f} to "
                f"{entropy[-1]:.2f} nats a token (step {len(rewards)})"
            )

    def _facts(self, rollouts: Sequence[Rollout]) -> Row:
        """What TRL says of rewards and completions, under its names; of conversations also the rewards of each turn."""
        rewards = torch.tensor([value for rollout in rollouts for value in rollout.rewards])
        turns: dict[str, list[float]] = {}
        for rollout in rollouts if any(rollout.turn for rollout in rollouts) else ():
            turns.setdefault(f"turn {rollout.turn + 1}", []).extend(rollout.rewards)
        parts = {name: [v for rollout in rollouts for v in rollout.parts[name]] for name in rollouts[0].parts}
        return {
            "reward": rewards.mean().item(),
            "reward_std": rewards.std().item(),
            "frac_reward_zero_std": sum(rollout.level for rollout in rollouts) / len(rollouts),
            **{f"rewards/{name}/mean": sum(values) / len(values) for name, values in (parts | turns).items()},
            **completions(rollouts),
        }

    def saved(self) -> dict[str, Any]:
        """All that the next step needs beside the weights."""
        kept = [rollout.saved() for rollout in self.kept]
        return super().saved() | {"kept": kept, "facts": self.facts, "warned": self.warned}

    def restore(self, saved: dict[str, Any]) -> None:
        """Be as it was when `saved` was taken."""
        super().restore(saved)
        self.kept = [Rollout.restored(rollout) for rollout in saved["kept"]]
        self.facts, self.warned = saved["facts"], saved["warned"]
