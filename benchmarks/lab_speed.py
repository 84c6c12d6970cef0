"""Small models: training against transformers' Trainer, sampling groups against its `generate`, and how far from the limit.

    python benchmarks/lab_speed.py           about 7 minutes on one idle core

Llamas of 1, 4 and 14 M parameters over 31 characters, one thread. Training: whole texts of 24 to 105 tokens, batches of 32, the
same batches, AdamW and rates on all sides, ours with products in bfloat16, the Trainer in fp32 and under bf16 autocast; the
faster of the two is the peer. Sampling: 16 completions of each of 16 prompts of 16 to 64 tokens, at most 64 tokens long, which
end when the end token is drawn (27 tokens on the average): `sample` against `generate(num_return_sequences=16)`, both fp32. The
limit is what the machine multiplies in bfloat16 (2048 x 1024 x 1024), over 6 operations a weight and token; attention is not
counted. A side has a process of its own, the sizes rise, so that its peak memory so far is that of the size. Sides run in turn
within a round, ratios are taken within a round, and their median is reported; times are processor time, since a busy machine
lengthens every wall time.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median

from cyclopts import App

from skillweave.errors import BadOption, SkillweaveError
from skillweave.progress import progress
from skillweave.record import run_app, write_result
from skillweave.result import Table, text

SIZES = {"1 M": (128, 5), "4 M": (256, 5), "14 M": (384, 8)}
"""Width and layers."""
GOALS = {"1 M": 1.2, "4 M": 1.5, "14 M": 1.5}
"""How many times as fast as the Trainer training has to be."""
SAMPLING, LIMIT, TOLERANCE = 3.0, 3.0, 0.02
ALPHABET = "abcdefghijklmnopqrstuvwxyz "
BATCH, LR, SEED, PROMPTS, GROUP, NEW, WARMUP = 32, 1e-3, 0, 16, 16, 64, 1
TRAINERS = {"trainer": "transformers.Trainer, fp32", "trainer-bf16": "transformers.Trainer, bf16=True (autocast)"}
SIDES = {"ours": "skillweave", **TRAINERS, "generate": "transformers' generate, do_sample"}

app = App(name="lab_speed", help="Small models: training and sampling.", help_format="plaintext", version_flags=[])


@app.default
def compare(*, steps: int = 3, rounds: int = 3, out: Path = Path("results/lab_speed.json")) -> None:
    """Measure every side in turn and write the result.

    Args:
        steps: Timed training steps of a side and size.
        rounds: Runs of every side.
    """
    for name, value in {"steps": steps, "rounds": rounds}.items():
        if value < 1:
            raise BadOption(f"--{name} is {value}, but has to be at least 1.")
    found: list[dict] = []
    with tempfile.TemporaryDirectory() as scratch, progress(rounds * len(SIDES), "lab_speed", unit="runs") as tick:
        for number in range(rounds):
            found.append({})
            for side in [*SIDES][:: 1 if number % 2 == 0 else -1]:
                found[-1][side] = run(side, Path(scratch) / "found.json", steps)
                tick(1, note=side)
    used, values = resource.getrusage(resource.RUSAGE_CHILDREN), summary(found)
    write_result(
        out,
        name="lab_speed",
        kind="benchmark",
        command=f"python benchmarks/lab_speed.py --steps {steps} --rounds {rounds}",
        seeds=[SEED],
        cpu_minutes=(used.ru_utime + used.ru_stime) / 60,
        verdict=verdict(values["rows"], values["agree"]),
        values=values | {"settings": {"steps": steps, "rounds": rounds, "batch": BATCH, "threads": 1, "sizes": SIZES}},
    )
    keys = ("job", "ours", "peer", "unit", "ratio", "goal", "met")
    print(text(Table(keys, tuple(tuple(row[key] for key in keys) for row in values["rows"]))))


def run(side: str, file: Path, steps: int) -> dict:
    """Run one side in its own process; returns what it measured, size by size."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "side", side, str(file), str(steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SkillweaveError(f"the side `{side}` ended with code {done.returncode}: {last}")
    return json.loads(file.read_text())


# What the runs say together: rounds[i][side][size] is {train: …, sample: …, flops: a token, gemm: a second}, where train and
# sample are {tokens, cpu: seconds, wall: seconds, peak: MiB, nats: a number a step, or one}.


def speed(run: Mapping) -> float:
    """Tokens a second of processor time."""
    return run["tokens"] / run["cpu"]


def summary(rounds: Sequence[Mapping]) -> dict:
    rows, peers, same = [], {}, {}
    for size in SIZES:
        peers[size] = max(TRAINERS, key=lambda side: median(speed(r[side][size]["train"]) for r in rounds))
        pairs = [(r["ours"][size]["train"], r[peers[size]][size]["train"]) for r in rounds]
        drawn = [(r["ours"][size]["sample"], r["generate"][size]["sample"]) for r in rounds]
        rows += [*compared(f"training, {size}", pairs, GOALS[size]), *compared(f"sampling groups, {size}", drawn, SAMPLING)]
        rows.append(limit(size, [r["ours"][size] for r in rounds]))
        same[size] = {"training": agree(pairs), "sampling": agree(drawn)}
    return {
        "rows": rows,
        "criterion": "every goal of the table, in tokens per second of processor time of one thread, at the same loss and "
        f"likelihood (within {TOLERANCE:.0%})",
        "agree": all(all(both.values()) for both in same.values()),
        "agree_by_size": same,
        "peers": {size: SIDES[side] for size, side in peers.items()} | {"sampling": SIDES["generate"]},
        "rounds": list(rounds),
    }


def compared(job: str, pairs: Sequence[tuple[Mapping, Mapping]], goal: float) -> list[dict]:
    """Speed (ratio ours / peer), and peak memory (the same, without a goal)."""
    ratio = median(speed(ours) / speed(peer) for ours, peer in pairs)
    ours, peer = (median(speed(pair[side]) for pair in pairs) for side in (0, 1))
    row = {
        "job": job,
        "ours": ours,
        "peer": peer,
        "unit": "tokens/s",
        "ratio": ratio,
        "goal": f"≥ {goal:g}",
        "met": ratio >= goal,
    }
    mine, theirs = (median(pair[side]["peak"] for pair in pairs) for side in (0, 1))
    share = median(ours["peak"] / peer["peak"] for ours, peer in pairs)
    memory = {"job": f"{job}, peak memory", "ours": mine, "peer": theirs, "unit": "MiB", "ratio": share}
    return [row, memory | {"goal": None, "met": None}]


def limit(size: str, runs: Sequence[Mapping]) -> dict:
    """Training against what bfloat16 products alone would allow; the ratio is limit / ours."""
    most = [run["gemm"] / run["flops"] for run in runs]
    far = median(top / speed(run["train"]) for top, run in zip(most, runs, strict=True))
    aimed = size == "14 M"
    row = {"job": f"training against the bf16 limit, {size}", "ours": median(speed(run["train"]) for run in runs)}
    row |= {"peer": median(most), "unit": "tokens/s", "ratio": far}
    return row | {"goal": f"≤ {LIMIT:g}" if aimed else None, "met": far <= LIMIT if aimed else None}


def agree(pairs: Sequence[tuple[Mapping, Mapping]]) -> bool:
    """Whether both sides had the same nats per token (the loss of the last step, or of what was drawn) in every round."""
    return all(abs(ours["nats"][-1] / peer["nats"][-1] - 1) <= TOLERANCE for ours, peer in pairs)


def verdict(rows: Sequence[Mapping], same: bool) -> str:
    met = [row["met"] for row in rows if row["met"] is not None]
    return "holds" if same and all(met) else "partly" if same and any(met) else "does not hold"


# What one process does.


@app.command(show=False)
def side(name: str, file: Path, steps: int) -> None:
    """One process: measure one side at every size."""
    if name not in SIDES:
        raise BadOption(f"no side `{name}`.", f"choose one of {', '.join(SIDES)}")
    import torch

    torch.set_num_threads(1)
    found: dict[str, dict] = {}
    for size, (width, layers) in SIZES.items():
        base = small(width, layers)
        found[size] = {}
        if name == "ours":
            weights = sum(layer.weight.numel() for layer in base.linears.values()) + base.head.numel()
            found[size] |= {"gemm": gemm(), "flops": 6 * weights}
        if name in ("ours", "generate"):
            found[size]["sample"] = (sampled if name == "ours" else generated)(base)
        if name != "generate":
            found[size]["train"] = trained(base, steps) if name == "ours" else trainer(base, steps, name.endswith("bf16"))
    file.write_text(json.dumps(found))


def small(width: int, layers: int):
    """The model of a size, untrained: it ends with about one token in 31."""
    from skillweave.base import TinyBase

    return TinyBase(width, SEED, ALPHABET, layers=layers)


def gemm() -> float:
    """Operations a second of processor time in one bfloat16 product, best of 5."""
    import torch

    x, weight = torch.ones(2048, 1024, dtype=torch.bfloat16), torch.ones(1024, 1024, dtype=torch.bfloat16)
    best = 0.0
    for _ in range(5):
        start = time.process_time()
        for _ in range(10):
            torch.nn.functional.linear(x, weight)
        best = max(best, 10 * 2 * 2048 * 1024 * 1024 / (time.process_time() - start))
    return best


class Meter:
    """Wall and processor time between marks."""

    def __init__(self):
        self.marks: list[tuple[float, float]] = []

    def mark(self, *_) -> None:
        self.marks.append((time.perf_counter(), time.process_time()))

    def report(self, tokens: int, nats: Sequence[float], warmup: int = 0) -> dict:
        (wall, cpu), (wall_end, cpu_end) = self.marks[warmup], self.marks[-1]
        scale = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20
        return {"tokens": tokens, "wall": wall_end - wall, "cpu": cpu_end - cpu, "peak": peak, "nats": list(nats)}


def words(count: int, low: int, high: int, seed: int) -> list[str]:
    import random

    draw = random.Random(seed)
    return ["".join(draw.choices(ALPHABET, k=draw.randint(low, high))) for _ in range(count)]


def examples(steps: int):
    from skillweave.task import Example

    count = BATCH * steps
    return [Example(*pair) for pair in zip(words(count, 16, 64, 1), words(count, 8, 40, 2), strict=True)]


def trained(base, steps: int) -> dict:
    """`pretrain` as anyone calls it, with products in bfloat16."""
    from skillweave.learn.loop import Run
    from skillweave.learn.pretrain import pretrain

    meter, total = Meter(), steps + WARMUP
    meter.mark()
    run = Run(tick=meter.mark)
    data = examples(total)
    _, log = pretrain(base, data, steps=total, batch=BATCH, lr=LR, seed=SEED, whole_text=True, bf16=True, run=run)
    return meter.report(sum(batch.real for batch in batches(base, total)[WARMUP:]), log.loss, WARMUP)


def batches(base, total: int):
    from skillweave.learn.batches import Batches

    made = Batches(base, examples(total), BATCH, SEED, whole_text=True)
    return [made.at(step) for step in range(total)]


def plain(base):
    """The same weights as transformers' own class holds them."""
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(base.model.config).to(torch.float32)
    model.load_state_dict(base.model.state_dict())
    return model


def trainer(base, steps: int, bf16: bool) -> dict:
    """transformers' Trainer on the batches, optimiser and rates of ours."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from skillweave.learn.loop import BETAS, Plan, rate

    total, meter, losses = steps + WARMUP, Meter(), []
    data = batches(base, total)

    class Recorded(Trainer):
        def compute_loss(self, *args, **options):
            loss = super().compute_loss(*args, **options)
            losses.append(loss.item())
            return loss

        def get_train_dataloader(self):
            return [rows_of(batch, base.pad) for batch in data]

    class Marks(TrainerCallback):
        def on_step_end(self, *args, **options):
            meter.mark()

    model = plain(base).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=BETAS, weight_decay=0.0)
    course = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, Plan(total)))
    with tempfile.TemporaryDirectory() as folder:
        options = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "bf16": bf16}
        arguments = TrainingArguments(folder, max_steps=total, per_device_train_batch_size=BATCH, seed=SEED, **options)
        theirs = Recorded(model, arguments, train_dataset=data, optimizers=(optimizer, course), callbacks=[Marks()])
        meter.mark()
        theirs.train()
    assert len(meter.marks) == total + 1 == len(losses) + 1
    return meter.report(sum(batch.real for batch in data[WARMUP:]), losses, WARMUP)


def rows_of(batch, pad: int) -> dict:
    """A batch as transformers has it: the whole texts, and their labels at the places where they stand."""
    import torch

    count, width = batch.tokens.shape
    tokens = torch.cat([batch.tokens, batch.tokens.new_full((count, 1), pad)], 1)
    labels, at = torch.full_like(tokens, -100), (batch.rows // width, batch.rows % width + 1)
    labels[at] = tokens[at] = batch.labels
    return {"input_ids": tokens, "labels": labels}


def sampled(base) -> dict:
    """`sample` as anyone calls it; the probabilities that it gives are held against a full forward."""
    from skillweave.composition import Active
    from skillweave.learn.sampling import sample

    prompts, meter = words(PROMPTS, 16, 64, 3), Meter()
    meter.mark()
    groups = sample(Active(base), prompts, GROUP, max_new_tokens=NEW, seed=SEED)
    meter.mark()
    said = [one.tokens for group in groups for one in group]
    nats = likelihood(base, prompts, said)
    own = mean(-nat for group in groups for one in group for nat in one.logprobs)
    assert abs(own - nats) < 1e-3, f"the sampler says {own} nats per token, a full forward {nats}"
    return meter.report(sum(map(len, said)), [nats])


def generated(base) -> dict:
    """`generate` of transformers on all groups at once, padded on the left."""
    import torch
    from transformers import GenerationConfig

    prompts, model, meter = words(PROMPTS, 16, 64, 3), plain(base).eval(), Meter()
    before = [base.encode(prompt, start=True) for prompt in prompts]
    width = max(map(len, before))
    tokens = torch.tensor([[base.pad] * (width - len(one)) + one for one in before])
    ends = {"eos_token_id": base.eos, "pad_token_id": base.pad, "bos_token_id": 1}
    config = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=NEW, num_return_sequences=GROUP, **ends)
    torch.manual_seed(SEED)
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in before])
    meter.mark()
    with torch.inference_mode():
        out = model.generate(input_ids=tokens, attention_mask=mask, generation_config=config)[:, width:].tolist()
    meter.mark()
    said = [tuple(row[: row.index(base.eos) + 1] if base.eos in row else row) for row in out]
    return meter.report(sum(map(len, said)), [likelihood(base, prompts, said)])


def likelihood(base, prompts: Sequence[str], said: Sequence[Sequence[int]]) -> float:
    """Mean nats per token of what was drawn, by a full forward of each group; the groups are in the prompts' order."""
    import torch

    nats = []
    with torch.inference_mode():
        for i, prompt in enumerate(prompts):
            before, group = base.encode(prompt, start=True), said[i * GROUP : (i + 1) * GROUP]
            width = max(map(len, group))
            tokens = torch.tensor([[*before, *one, *[base.pad] * (width - len(one))] for one in group])
            logs = base.logits(base.hidden(tokens)[:, len(before) - 1 : -1].flatten(0, 1)).log_softmax(-1)
            own = -logs.gather(1, tokens[:, len(before) :].reshape(-1, 1)).view(len(group), width)
            nats += [nat for row, one in zip(own.tolist(), group, strict=True) for nat in row[: len(one)]]
    return mean(nats)


if __name__ == "__main__":
    sys.exit(run_app(app))
