"""Each loss of GRPO against TRL's: the advantages, the loss and the gradient of the adapter, on one batch.

    python benchmarks/grpo_parity.py FOLDER      a few seconds; writes FOLDER/parity.json; needs pip install 'skillweave[bench]'

TRL's trainer makes one step on completions that it drew itself, with rewards that differ within every group. The old
log-probabilities that it has, and those of the reference, are first moved at random, so that some ratios are cut and some are
not. Ours computes from the same tokens, old probabilities and rewards. benchmarks/grpo_vs_trl.py runs this first.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skillweave.bank import SkillBank
from skillweave.base import Base, TinyBase
from skillweave.composition import Active
from skillweave.delta import LowRank
from skillweave.learn.batches import collate
from skillweave.learn.grpo import GRPO
from skillweave.learn.grpo_loss import CLIPS, advantages, k3, terms, weights
from skillweave.learn.loss import token_nats
from skillweave.learn.trl_engine import Job, practice, prepare, scorer, trainer
from skillweave.peft_config import PREFIX
from skillweave.task import Example, Task

SEED = 0
MOVED = {"grpo": 0.3, "dr_grpo": 0.3, "dapo": 0.3, "gspo": 3e-3}
"""How far old log-probabilities are moved, nats (standard deviation): about what each loss cuts at."""
REFERENCE = 0.3
"""The same of the reference."""


class Graded(Task):
    """Its score takes many values, so that no group of a base that knows nothing is level."""

    name, description = "graded", "the mean of the letters"

    def example(self, i: int, split: str) -> Example:
        return Example("abc"[i % 3] * (1 + i) + "\n", "x")

    def score(self, example: Example, completion: str) -> float:
        return sum(ord(letter) % 32 for letter in completion) / (32 * max(1, len(completion)))


def cases(folder: Path) -> list[dict[str, Any]]:
    """How far ours is from TRL for each loss, without and with KL."""
    return [case(folder / f"{kind}-{kl:g}", kind, kl) for kind in CLIPS for kl in (0.0, 0.1)]


def case(folder: Path, kind: str, kl: float) -> dict[str, Any]:
    """‖ours - TRL's‖ / ‖TRL's‖ of the advantages, the loss and the gradient of the adapter."""
    base, task, method = TinyBase(32, SEED), Graded(SEED), GRPO(1, 3, 4, loss=kind, kl=kl, rank=4, tokens=8)
    fresh, draw = LowRank.fresh(base, method.rank, method.scale, SEED), torch.Generator().manual_seed(SEED)
    start = LowRank({s: replace(f, b=0.1 * torch.randn(f.b.shape, generator=draw)) for s, f in fresh.detach().factors.items()})
    job = practice(method, base, task.take(method.batch, "train"), SEED)
    folder.mkdir()
    prepare(folder, job, base, start)
    theirs, skill = step_of_trl(folder, job, task), start.learner()
    loss, cut = our_loss(base, skill, method, theirs, job.limit)
    loss.backward()
    groups = theirs["rewards"].view(-1, method.group)
    better = torch.cat([advantages(group, kind) for group in groups])
    gradients = [torch.cat([of[name].flatten() for name in skill.tensors()]) for of in (gradient(skill), theirs["gradient"])]
    return {
        "loss_type": kind,
        "kl": kl,
        "ours": loss.item(),
        "trl": theirs["loss"].item(),
        "tokens": int(theirs["completion_mask"].sum()),
        "tokens_cut": cut,
        "level_groups": sum(len(group.unique()) == 1 for group in groups),
        "advantages": apart(better, theirs["better"]),
        "loss": apart(loss.detach(), theirs["loss"]),
        "gradient": apart(*gradients),
    }


def apart(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def gradient(skill: LowRank) -> dict[str, Tensor]:
    return {name: tensor.grad for name, tensor in skill.tensors().items() if tensor.grad is not None}


def step_of_trl(folder: Path, job: Job, task: Task) -> dict[str, Any]:
    """One step of TRL's trainer: what its loss is computed from, the loss, and the gradient under our names."""
    from transformers import TrainerCallback

    class Kept(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **options):
            named = {name.removeprefix(PREFIX): p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
            ours = {
                name: name.replace(".lora_A.default.weight", ".a").replace(".lora_B.default.weight", ".b") for name in named
            }
            seen["gradient"] = {ours[name]: grad for name, grad in named.items()}

    seen: dict[str, Any] = {}
    draw = torch.Generator().manual_seed(SEED)
    one = trainer(folder, job, scorer(job, task), max_grad_norm=0.0, gradient_checkpointing=False)
    compute, generate, score = one._compute_loss, one._generate_and_score_completions, one._calculate_rewards

    def generated(inputs):
        made = generate(inputs)
        seen["better"] = made["advantages"].clone()  # before TRL shuffles the completions
        return made

    def scored(*args):
        made = score(*args)
        seen["rewards"] = made[:, 0].clone()
        return made

    def computed(model, inputs):
        tokens, mask = (torch.cat([inputs[f"prompt_{end}"], inputs[f"completion_{end}"]], 1) for end in ("ids", "mask"))
        with torch.no_grad():
            logp = one._get_per_token_logps_and_entropies(model, tokens, mask, inputs["completion_ids"].shape[1])[0]
        inputs["old_per_token_logps"] = logp + MOVED[job.method.loss] * torch.randn(logp.shape, generator=draw)
        inputs["ref_per_token_logps"] = logp + REFERENCE * torch.randn(logp.shape, generator=draw)
        loss = compute(model, inputs)
        seen.update(inputs, loss=loss.detach())
        return loss

    one._generate_and_score_completions, one._calculate_rewards, one._compute_loss = generated, scored, computed
    one.add_callback(Kept())
    one.train()
    return seen


def our_loss(base: Base, skill: LowRank, method: GRPO, seen: Mapping[str, Tensor], limit: int) -> tuple[Tensor, float]:
    """Ours on the tokens and old probabilities of TRL's step, and the share of tokens whose gradient is cut."""
    asked, said = seen["prompt_mask"].bool(), seen["completion_mask"].bool()
    rows = zip(seen["prompt_ids"], asked, seen["completion_ids"], said, strict=True)
    pairs = [(torch.cat([p[m], c[n]]).tolist(), int(n.sum())) for p, m, c, n in rows]
    batch = collate(pairs, base.pad)
    with Active(base, SkillBank(base, {"new": skill})).on([""] * len(pairs)):
        logp = -token_nats(base, base.hidden(batch.tokens).flatten(0, 1)[batch.rows], batch.labels, method.temperature)
    owner = batch.rows // batch.tokens.shape[1]
    term = terms(method.loss, logp, seen["old_per_token_logps"][said], seen["advantages"][owner], owner, method.clip)
    each = term.loss + method.kl * k3(logp, seen["ref_per_token_logps"][said])
    total = (weights(method.loss, said.sum(1), limit)[owner] * each).sum()
    return total, float((term.fell | term.rose).float().mean())


if __name__ == "__main__":
    where = Path(sys.argv[1])
    (where / "parity.json").write_text(json.dumps(cases(where)))
