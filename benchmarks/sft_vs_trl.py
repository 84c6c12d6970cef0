"""Our SFT against TRL's SFTTrainer: the same LoRA, data, batches, rates and steps on Gemma 3 270M, in turn on the same threads.

    python benchmarks/sft_vs_trl.py          about 8 minutes on 2 idle cores; needs pip install 'skillweave[bench]'

Every run has a process of its own, so that its peak memory is its own, and all start from one saved adapter and one list of
examples. A round runs each side once; ratios are taken within a round, and their median is reported. TRL is measured as it
comes and without gradient checkpointing, and the faster of the two is the peer. Both keep SFTConfig's bf16=True, which on
bf16 weights means autocast: what its users get. A plain loop with PEFT that projects only labelled rows is there to compare.
"""

import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median

from cyclopts import App

from skillweave.errors import BadOption, MissingExtra, SkillweaveError
from skillweave.progress import progress
from skillweave.record import run_app, write_result
from skillweave.result import Table, text

TASK, BATCH, RANK, SCALE, CLIP, SEED = "date", 16, 8, 2.0, 1.0, 0
LR = 2e-4
"""A tenth of `learn`'s: a course of a few steps at 2e-3 jumps, and the rounding of bf16 grows to 10 % of the loss."""
WARMUP = 1
"""First steps of a run that are not timed."""
TIMES_FASTER, MEMORY_SHARE = 6.0, 0.6
TOLERANCE = 0.02
"""Largest relative difference of the mean loss over the last half of the steps; bf16 keeps 8 bits, or 0.4 % a number."""
IDLE = 0.5
"""Share of its threads' time that every side must get; below it other programs decide the times, and nothing is claimed."""

PEERS = {
    "trl": "TRL SFTTrainer as it comes (gradient checkpointing, bf16 autocast)",
    "trl-plain": "TRL SFTTrainer with gradient_checkpointing=False (bf16 autocast)",
}
SIDES = {"ours": "skillweave", **PEERS, "naive": "a plain loop with PEFT that projects only labelled rows"}

app = App(name="sft_vs_trl", help="Our SFT against TRL's SFTTrainer.", help_format="plaintext", version_flags=[])


@app.default
def compare(*, steps: int = 6, rounds: int = 3, threads: int = 2, out: Path = Path("results/sft_vs_trl.json")) -> None:
    """Measure every side in turn and write the result.

    Args:
        steps: Timed optimiser steps a run.
        rounds: Runs of every side.
        threads: Processor threads of every run.
    """
    check_options(steps, rounds, threads)
    found: list[dict] = []
    with tempfile.TemporaryDirectory() as scratch, progress(rounds * len(SIDES), "sft_vs_trl", unit="runs") as tick:
        folder, total = Path(scratch), steps + WARMUP
        run("start", folder, total, threads)
        for _ in range(rounds):
            found.append({})
            for side in SIDES:
                found[-1][side] = run(side, folder, total, threads)
                tick(1, note=f"{side} {seconds(found[-1][side]):.2f} s a step")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    idle = min(share_of_processor(found, side, threads) for side in SIDES) >= IDLE
    values = summary(found) | {"machine_idle": idle, "settings": settings(steps, rounds, threads)}
    write_result(
        out,
        name="sft_vs_trl",
        kind="benchmark",
        command=f"python benchmarks/sft_vs_trl.py --steps {steps} --rounds {rounds} --threads {threads}",
        seeds=[SEED],
        cpu_minutes=(used.ru_utime + used.ru_stime) / 60,
        verdict=verdict(values["rows"], values["losses_agree"], idle),
        values=values,
    )
    keys = ("job", "ours", "peer", "unit", "ratio", "goal", "met")
    print(text(Table(keys, tuple(tuple(row[key] for key in keys) for row in values["rows"]), title=f"peer: {values['peer']}")))


def check_options(steps: int, rounds: int, threads: int) -> None:
    for name, value in {"steps": steps, "rounds": rounds, "threads": threads}.items():
        if value < 1:
            raise BadOption(f"--{name} is {value}, but has to be at least 1.")
    if any(importlib.util.find_spec(package) is None for package in ("trl", "peft")):
        raise MissingExtra("the comparison with TRL", "skillweave[bench]")


def run(side: str, folder: Path, steps: int, threads: int) -> dict:
    """Run one side in its own process; returns what it measured."""
    command = [sys.executable, __file__, "side", side, str(folder), str(steps), str(threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SkillweaveError(f"the side `{side}` ended with code {done.returncode}: {last}")
    return json.loads((folder / f"{side}.json").read_text())


def settings(steps: int, rounds: int, threads: int) -> dict:
    packages = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
    lora = {"task": TASK, "batch": BATCH, "rank": RANK, "scale": SCALE, "lr": LR, "clip": CLIP, "weights": "bf16"}
    return lora | {"steps": steps, "warmup_steps": WARMUP, "rounds": rounds, "threads": threads, "versions": packages}


# What the runs say together. A run is {seconds, cpu_seconds, tokens, losses: one number a step; peak: bytes}.


def seconds(run: Mapping) -> float:
    """Median wall seconds of the timed steps."""
    return median(run["seconds"][WARMUP:])


def cpu_seconds(run: Mapping) -> float:
    return median(run["cpu_seconds"][WARMUP:])


def speed(run: Mapping) -> float:
    """Tokens a second over the timed steps, padding not counted."""
    return sum(run["tokens"][WARMUP:]) / sum(run["seconds"][WARMUP:])


def memory(run: Mapping) -> float:
    """Largest resident size, MiB."""
    return run["peak"] / 2**20


def last_loss(run: Mapping) -> float:
    """Mean loss of the last half of the steps, in nats per token."""
    return mean(run["losses"][len(run["losses"]) // 2 :])


def middle(rounds: Sequence[Mapping], side: str, measure: Callable[[Mapping], float]) -> float:
    """Median over the rounds."""
    return median(measure(found[side]) for found in rounds)


def paired(rounds: Sequence[Mapping], over: str, under: str, measure: Callable[[Mapping], float]) -> float:
    """Median of the ratios over / under, each within one round."""
    return median(measure(found[over]) / measure(found[under]) for found in rounds)


def share_of_processor(rounds: Sequence[Mapping], side: str, threads: int) -> float:
    """How much of its threads' time a side spent computing, not waiting, in its worst round."""
    return min(sum(r[side]["cpu_seconds"][WARMUP:]) / sum(r[side]["seconds"][WARMUP:]) / threads for r in rounds)


def agree(rounds: Sequence[Mapping], peer: str) -> bool:
    """Whether ours and `peer` end at the same loss in every round."""
    return all(abs(last_loss(found["ours"]) / last_loss(found[peer]) - 1) <= TOLERANCE for found in rounds)


def summary(rounds: Sequence[Mapping]) -> dict:
    peer = min(PEERS, key=lambda side: middle(rounds, side, seconds))
    same = agree(rounds, peer)
    return {
        "rows": rows(rounds, peer, same),
        "criterion": f"at least {TIMES_FASTER:g} times as fast as the faster setting of TRL, in at most "
        f"{MEMORY_SHARE:.0%} of its memory, and at the same loss (within {TOLERANCE:.0%})",
        "peer": PEERS[peer],
        "losses_agree": same,
        "sides": {side: about(rounds, side, words) for side, words in SIDES.items()},
    }


def rows(rounds: Sequence[Mapping], peer: str, same: bool) -> list[dict]:
    """The table; ratios of times are peer / ours (how many times as fast), of all else ours / peer."""
    faster, share = paired(rounds, peer, "ours", seconds), paired(rounds, "ours", peer, memory)
    more, loss = paired(rounds, "ours", peer, speed), paired(rounds, "ours", peer, last_loss)

    def row(job, measure, unit, ratio, goal=None, met=None, than=peer):
        ours, theirs = (middle(rounds, side, measure) for side in ("ours", than))
        return {"job": job, "ours": ours, "peer": theirs, "unit": unit, "ratio": ratio, "goal": goal, "met": met}

    return [
        row("step", seconds, "s", faster, f"≥ {TIMES_FASTER:g}", faster >= TIMES_FASTER),
        row("throughput", speed, "tokens/s", more, f"≥ {TIMES_FASTER:g}", more >= TIMES_FASTER),
        row("peak memory", memory, "MiB", share, f"≤ {MEMORY_SHARE:g}", share <= MEMORY_SHARE),
        row("final loss", last_loss, "nats/token", loss, f"1 ± {TOLERANCE:g}", same),
        row("step, processor time", cpu_seconds, "s", paired(rounds, peer, "ours", cpu_seconds)),
        row("step, against a naive loop", seconds, "s", paired(rounds, "naive", "ours", seconds), than="naive"),
    ]


def about(rounds: Sequence[Mapping], side: str, words: str) -> dict:
    measures = {"seconds": seconds, "cpu_seconds": cpu_seconds, "tokens_per_second": speed, "peak_mib": memory}
    found = {name: [round(measure(r[side]), 4) for r in rounds] for name, measure in measures.items()}
    return {"what": words, **found, "losses": [round(x, 5) for x in rounds[0][side]["losses"]]}


def verdict(rows: Sequence[Mapping], same: bool, idle: bool = True) -> str:
    """`holds` if the goals of time and memory are met, `partly` if one is; never without the same loss."""
    if not idle:
        return "not tested"
    met = sum(row["met"] for row in rows if row["job"] in ("step", "peak memory"))
    return ("does not hold", "partly", "holds")[met] if same else "does not hold"


# What one process does.


@dataclass
class Meter:
    """Wall and processor time between marks, in seconds, and the loss of each step."""

    losses: list[float] = field(default_factory=list)
    marks: list[tuple[float, float]] = field(default_factory=list)

    def mark(self, *_) -> None:
        self.marks.append((time.perf_counter(), time.process_time()))

    def report(self, tokens: Sequence[int]) -> dict:
        gaps = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(self.marks, self.marks[1:], strict=False)]
        assert len(gaps) == len(tokens) == len(self.losses), (len(gaps), len(tokens), len(self.losses))
        wall, cpu = map(list, zip(*gaps, strict=True))
        return {"seconds": wall, "cpu_seconds": cpu, "tokens": list(tokens), "losses": self.losses, "peak": peak()}


def peak() -> int:
    """Largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@app.command(show=False)
def side(name: str, folder: Path, steps: int, threads: int) -> None:
    """One process: prepare the start, or train one side for `steps` and write what was measured."""
    if name == "start":
        (folder / "start.json").write_text(json.dumps(start(folder, steps)))
        return
    data, meter = json.loads((folder / "start.json").read_text()), Meter()
    import torch

    torch.set_num_threads(threads)
    {"ours": ours, "naive": naive, "trl": trl, "trl-plain": partial(trl, checkpointing=False)}[name](folder, data, steps, meter)
    tokens = [sum(len(t) - 1 for t, _ in data["pairs"][at * BATCH : (at + 1) * BATCH]) for at in range(steps)]
    (folder / f"{name}.json").write_text(json.dumps(meter.report(tokens)))


def start(folder: Path, steps: int) -> dict:
    """Write the LoRA that all sides start from; returns the examples in the order in which all sides see them."""
    from skillweave.base import load_base
    from skillweave.delta import LowRank
    from skillweave.peft_format import save_adapter
    from skillweave.tasks import load_task

    base = load_base(dtype="bf16")
    save_adapter(folder / "adapter", LowRank.fresh(base, RANK, SCALE, SEED), base.name)
    examples = load_task(TASK, SEED).take(steps * BATCH, "train")
    pairs = [base.encode_pair(e.prompt, e.completion) for e in examples]
    return {"prompt": [e.prompt for e in examples], "completion": [e.completion for e in examples], "pairs": pairs}


def ours(folder: Path, data: Mapping, steps: int, meter: Meter) -> None:
    """The loop, loss and bank that `skillweave learn` uses, with the batches in the common order."""
    from skillweave.bank import SkillBank
    from skillweave.base import load_base
    from skillweave.learn.batches import Batches
    from skillweave.learn.loop import Group, Plan, train
    from skillweave.learn.loss import bank_loss
    from skillweave.peft_format import load_adapter
    from skillweave.task import Example

    base = load_base(dtype="bf16")
    skill = load_adapter(folder / "adapter")
    for tensor in skill.tensors().values():
        tensor.requires_grad_()
    examples = [Example(*pair) for pair in zip(data["prompt"], data["completion"], strict=True)]
    batches, bank = Batches(base, examples, BATCH, SEED), SkillBank(base, {"new": skill})
    meter.mark()
    log = train(
        lambda batch: bank_loss(bank, batch),
        [Group(skill.tensors(), LR)],
        lambda step: batches.collate(batches.pairs[step * BATCH : (step + 1) * BATCH]),
        Plan(steps, clip=CLIP),
        tick=meter.mark,
    )
    meter.losses += log.loss


def peft_model(folder: Path, steps: int):
    """Gemma with the common LoRA as PEFT loads it (factors in fp32), and our AdamW and course of the rate for it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from skillweave import gemma
    from skillweave.learn.loop import BETAS, Plan, rate

    bare = AutoModelForCausalLM.from_pretrained(gemma.folder(), dtype=torch.bfloat16)
    model = PeftModel.from_pretrained(bare, folder / "adapter", is_trainable=True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LR, betas=BETAS, weight_decay=0.0)
    return model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, Plan(steps)))


def trl(folder: Path, data: Mapping, steps: int, meter: Meter, checkpointing: bool = True) -> None:
    """TRL's trainer, fed with prompts and completions; checks that it makes the same tokens and labels of them."""
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from skillweave import gemma

    class Recorded(SFTTrainer):
        def compute_loss(self, *args, **options):
            loss = super().compute_loss(*args, **options)
            meter.losses.append(loss.item())
            return loss

    class Marks(TrainerCallback):
        def on_step_end(self, *args, **options):
            meter.mark()

    model, *course = peft_model(folder, steps)
    config = SFTConfig(
        output_dir=str(folder / "trl"),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        max_grad_norm=CLIP,
        gradient_checkpointing=checkpointing,
        completion_only_loss=True,
        train_sampling_strategy="sequential",
        dataloader_pin_memory=False,
        use_cpu=True,
        bf16=True,
        disable_tqdm=True,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        seed=SEED,
    )
    trainer = Recorded(
        model=model,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": data["prompt"], "completion": data["completion"]}),
        processing_class=AutoTokenizer.from_pretrained(gemma.folder()),
        optimizers=tuple(course),
        callbacks=[Marks()],
    )
    check_batches(trainer.get_train_dataloader(), data["pairs"], steps)
    meter.mark()
    trainer.train()


def check_batches(loader, pairs: Sequence, steps: int) -> None:
    """AssertionError unless the batches hold our tokens and our labels in our order."""
    seen = 0
    for batch in loader:
        for tokens, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
            wanted, answer = pairs[seen]
            assert tokens[mask.bool()].tolist() == wanted, (seen, tokens, wanted)
            assert labels[labels != -100].tolist() == wanted[-answer:], (seen, labels, wanted)
            seen += 1
    assert seen == len(pairs) == steps * BATCH, (seen, len(pairs))


def naive(folder: Path, data: Mapping, steps: int, meter: Meter) -> None:
    """A loop as one writes it in ten minutes: PEFT, full attention mask, one projection of the labelled rows."""
    import torch
    import torch.nn.functional as F
    from torch.nn.utils.rnn import pad_sequence

    model, optimizer, scheduler = peft_model(folder, steps)
    gemma3 = model.get_base_model()
    meter.mark()
    for step in range(steps):
        pairs = data["pairs"][step * BATCH : (step + 1) * BATCH]
        tokens = pad_sequence([torch.tensor(tokens) for tokens, _ in pairs], batch_first=True)
        place = torch.arange(tokens.shape[1])
        ends = torch.tensor([[len(tokens)] for tokens, _ in pairs])
        answer = (place >= ends - torch.tensor([[count] for _, count in pairs])) & (place < ends)
        hidden = gemma3.model(input_ids=tokens, attention_mask=(place < ends).long(), use_cache=False).last_hidden_state
        loss = F.cross_entropy(gemma3.lm_head(hidden[:, :-1][answer[:, 1:]]).float(), tokens[answer])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        scheduler.step()
        meter.losses.append(loss.item())
        meter.mark()


if __name__ == "__main__":
    sys.exit(run_app(app))
