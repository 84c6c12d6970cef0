"""Our GRPO against TRL's GRPOTrainer: the same model, task, start, prompts, group and steps, in turn on one thread each.

    python benchmarks/grpo_vs_trl.py         about 9 minutes on one idle core; needs pip install 'skillweave[bench]'

First the losses (grpo_parity.py): for each, TRL's advantages, loss and gradient against ours on the same tokens. Then runs on a
base of 3 M parameters that has half learned to sort letters, and on Gemma 3 270M after a short SFT. Each has a process of its
own, so that its peak memory is its own. A round is a seed and runs every side once, in an order that turns; ratios are taken
within a round, and their median is reported. TRL is run as `--engine trl` runs it, with gradient checkpointing (its default)
and without, and the faster of the two is the peer; the engine spares it a copy of the head that costs ten times as much as the
rest of its sampling. Ours asks no other prompts in the place of level groups here, since TRL does not, and does not probe.
"""

import importlib.util
import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from cyclopts import App

from skillweave.errors import BadOption, MissingExtra, SkillweaveError
from skillweave.measure.stats import student
from skillweave.progress import progress
from skillweave.record import run_app, write_result
from skillweave.result import Table, text


@dataclass(frozen=True)
class Size:
    """A model, and how it practises."""

    words: str
    dtype: str
    goal: float
    """How many times as fast as TRL a step has to be."""
    batch: int
    """Prompts a step."""
    tokens: int
    """Most tokens of a completion."""
    lengths: tuple[int, int]
    """Of the words whose letters are sorted."""
    lr: float
    taught: int
    """Steps by which it learns the task before."""


SIZES = {
    "3 M": Size(
        "a base from scratch of 3.1 M parameters", "fp32", 3.0, batch=8, tokens=12, lengths=(4, 8), lr=1e-3, taught=250
    ),
    "Gemma": Size("Gemma 3 270M", "bf16", 5.0, batch=2, tokens=12, lengths=(3, 4), lr=3e-4, taught=40),
}
PEERS = {"trl": "TRL GRPOTrainer with gradient checkpointing", "trl-plain": "TRL GRPOTrainer without it"}
SIDES = {"ours": "skillweave", **PEERS}
GROUP, LOSS, POOL, WARMUP, SEED = 8, "dapo", 400, 1, 0
CLOSE = 1e-3
"""Largest relative difference of a loss, of advantages or of a gradient (fp32, one is computed with padding on the left)."""
IDLE = 0.5
"""Share of a thread's time that every run must get; below it other programs decide the times, and nothing is claimed."""
PARTS = ("generation", "scoring", "learning")

app = App(name="grpo_vs_trl", help="Our GRPO against TRL's GRPOTrainer.", help_format="plaintext", version_flags=[])


@app.default
def compare(*, steps: int = 16, gemma_steps: int = 4, rounds: int = 3, out: Path = Path("results/grpo_vs_trl.json")) -> None:
    """Measure every side in turn and write the result.

    Args:
        steps: Optimiser steps of a run at 3 M, the first of which is not timed.
        gemma_steps: The same on Gemma.
        rounds: Runs of every side, each with a seed of its own.
    """
    check_options(steps, gemma_steps, rounds)
    lengths, found = dict(zip(SIZES, (steps, gemma_steps), strict=True)), {size: list[dict]() for size in SIZES}
    total = 1 + len(SIZES) * (1 + rounds * len(SIDES))
    with tempfile.TemporaryDirectory() as scratch, progress(total, "grpo_vs_trl", unit="runs") as tick:
        same = run("parity", Path(scratch))
        tick(1, note="losses")
        for size, length in lengths.items():
            folder = Path(scratch) / size.replace(" ", "")
            folder.mkdir()
            run("start", folder, size, length, rounds)
            tick(1, note=f"start of {size}")
            for seed in range(rounds):
                turn = seed % len(SIDES)
                found[size].append({})
                for side in [*SIDES][turn:] + [*SIDES][:turn]:
                    found[size][seed][side] = run(side, folder, size, length, seed)
                    tick(1, note=f"{size}, {side}: {wall(found[size][seed][side]):.2f} s a step")
    used, values = resource.getrusage(resource.RUSAGE_CHILDREN), summary(found, same)
    write_result(
        out,
        name="grpo_vs_trl",
        kind="benchmark",
        command=f"python benchmarks/grpo_vs_trl.py --steps {steps} --gemma-steps {gemma_steps} --rounds {rounds}",
        seeds=range(rounds),
        cpu_minutes=(used.ru_utime + used.ru_stime) / 60,
        verdict=verdict(values),
        values=values | {"settings": settings(lengths)},
    )
    keys = ("job", "ours", "peer", "unit", "ratio", "goal", "met")
    print(text(Table(keys, tuple(tuple(shown(row[key]) for key in keys) for row in values["rows"]))))


def check_options(steps: int, gemma_steps: int, rounds: int) -> None:
    for name, value, least in (("steps", steps, 3), ("gemma-steps", gemma_steps, 3), ("rounds", rounds, 1)):
        if value < least:
            raise BadOption(f"--{name} is {value}, but has to be at least {least}.")
    if any(importlib.util.find_spec(package) is None for package in ("trl", "peft")):
        raise MissingExtra("the comparison with TRL", "skillweave[bench]")


def run(side: str, folder: Path, *rest: object):
    """Run one side in its own process; returns what it measured."""
    words = ["grpo_parity.py"] if side == "parity" else [Path(__file__).name, "side", side]
    command = [sys.executable, str(Path(__file__).parent / words[0]), *words[1:], str(folder), *map(str, rest)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SkillweaveError(f"the side `{side}` ended with code {done.returncode}: {last}")
    return json.loads((folder / f"{side}.json").read_text())


def settings(lengths: Mapping[str, int]) -> dict:
    from importlib.metadata import version

    packages = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
    sizes = {size: vars(about) | {"steps": lengths[size]} for size, about in SIZES.items()}
    return {"group": GROUP, "loss": LOSS, "warmup_steps": WARMUP, "threads": 1, "sizes": sizes, "versions": packages}


# What the runs say together. A run is {wall, cpu: {step, generation, scoring, learning}, reward: a number a step each;
# peak: bytes}.


def wall(run: Mapping, part: str = "step") -> float:
    """Median wall seconds of the timed steps."""
    return median(run["wall"][part][WARMUP:])


def cpu(run: Mapping) -> float:
    """Median processor seconds of the timed steps."""
    return median(run["cpu"]["step"][WARMUP:])


def memory(run: Mapping) -> float:
    """Largest resident size, MiB."""
    return run["peak"] / 2**20


def paired(rounds: Sequence[Mapping], over: str, under: str, measure: Callable[[Mapping], float]) -> float:
    """Median of the ratios over / under, each within one round."""
    return median(measure(found[over]) / measure(found[under]) for found in rounds)


def share_of_processor(run: Mapping) -> float:
    """How much of its thread's time a run spent computing, not waiting."""
    return sum(run["cpu"]["step"][WARMUP:]) / sum(run["wall"]["step"][WARMUP:])


def summary(found: Mapping[str, Sequence[Mapping]], same: Sequence[Mapping]) -> dict:
    table, peers, curves = [], {}, {}
    for size, rounds in found.items():
        peer = peers[size] = min(PEERS, key=lambda side: median(wall(r[side]) for r in rounds))
        table += [*speeds(size, rounds, peer), *rewards(size, rounds, peer)]
        curves[size] = {side: [r[side]["reward"] for r in rounds] for side in SIDES}
    return {
        "rows": table + [parity_row(same)],
        "criterion": f"{', '.join(f'{about.goal:g} times the speed on {size}' for size, about in SIZES.items())}; the same "
        f"rewards (each interval of a difference holds 0); the same losses, advantages and gradients (within {CLOSE:g})",
        "peers": {size: PEERS[peer] for size, peer in peers.items()},
        "machine_idle": all(share_of_processor(r[side]) >= IDLE for rounds in found.values() for r in rounds for side in SIDES),
        "losses": list(same),
        "rewards": curves,
        "runs": {size: {side: [about_run(r[side]) for r in rounds] for side in SIDES} for size, rounds in found.items()},
    }


def speeds(size: str, rounds: Sequence[Mapping], peer: str) -> list[dict]:
    """Seconds of a step and of its parts, and memory; ratios of times are peer / ours, of memory ours / peer."""

    def row(job, measure, unit, ratio, goal=None):
        ours, theirs = (median(measure(r[side]) for r in rounds) for side in ("ours", peer))
        line = {"job": f"{size}: {job}", "ours": ours, "peer": theirs, "unit": unit, "ratio": ratio}
        return line | {"goal": goal and f"≥ {goal:g}", "met": None if goal is None else ratio >= goal}

    parts = [(part, lambda r, part=part: wall(r, part)) for part in PARTS]
    return [
        row("step", wall, "s", paired(rounds, peer, "ours", wall), SIZES[size].goal),
        *(row(part, measure, "s", paired(rounds, peer, "ours", measure)) for part, measure in parts),
        row("step, processor time", cpu, "s", paired(rounds, peer, "ours", cpu)),
        row("peak memory", memory, "MiB", paired(rounds, "ours", peer, memory)),
    ]


def rewards(size: str, rounds: Sequence[Mapping], peer: str) -> list[dict]:
    """The mean reward over each half of the steps; the ratio is ours - peer, with its interval over the seeds."""
    rows, half = [], len(rounds[0]["ours"]["reward"]) // 2
    for name, part in (("first", slice(0, half)), ("last", slice(half, None))):
        ours, theirs = ([mean(r[side]["reward"][part]) for r in rounds] for side in ("ours", peer))
        gap = student([a - b for a, b in zip(ours, theirs, strict=True)])
        row = {"job": f"{size}: reward, {name} half", "ours": mean(ours), "peer": mean(theirs), "unit": "of 1; ours - peer"}
        row["ratio"] = {"mean": gap.value, "low": gap.low, "high": gap.high, "n": gap.n}
        rows.append(row | {"goal": "holds 0", "met": gap.low <= 0 <= gap.high})
    return rows


def parity_row(same: Sequence[Mapping]) -> dict:
    worst = max(max(case["advantages"], case["loss"], case["gradient"]) for case in same)
    row = {"job": f"losses: the largest relative difference of {len(same)} cases", "ours": None, "peer": None, "unit": ""}
    return row | {"ratio": worst, "goal": f"≤ {CLOSE:g}", "met": worst <= CLOSE}


def about_run(run: Mapping) -> dict:
    return {
        "seconds": {part: round(wall(run, part), 5) for part in ("step", *PARTS)},
        "cpu_seconds": round(cpu(run), 5),
        "peak_mib": round(memory(run), 1),
        "share_of_processor": round(share_of_processor(run), 3),
    }


def verdict(values: Mapping) -> str:
    """`holds` if both goals of speed are met, `partly` if one is; never without the same losses and rewards."""
    if not values["machine_idle"]:
        return "not tested"
    speed = [row["met"] for row in values["rows"] if row["job"].endswith(": step")]
    same = [row["met"] for row in values["rows"] if "reward" in row["job"] or "losses" in row["job"]]
    return ("holds" if all(speed) else "partly" if any(speed) else "does not hold") if all(same) else "does not hold"


def shown(value: object) -> object:
    """An interval as words."""
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" if isinstance(value, Mapping) else value


# What one process does.


class Meter:
    """Wall and processor time of steps and of the parts in them, in seconds, and the mean reward of each step."""

    def __init__(self):
        self.spent = {clock: {part: list[float]() for part in ("step", *PARTS)} for clock in ("wall", "cpu")}
        self.reward: list[float] = []
        self._scores: list[float] = []
        self._parts = {part: (0.0, 0.0) for part in PARTS}
        self._began = self._now()

    @contextmanager
    def part(self, name: str):
        began = self._now()
        yield
        spent = zip(self._parts[name], self._now(), began, strict=True)
        self._parts[name] = tuple(so_far + now - then for so_far, now, then in spent)

    def timed(self, name: str, call: Callable) -> Callable:
        """`call`, whose time counts as that of a part."""

        def measured(*args, **options):
            with self.part(name):
                return call(*args, **options)

        return measured

    def scored(self, values: Sequence[float]) -> Sequence[float]:
        self._scores += values
        return values

    def start(self, *_) -> None:
        self._began = self._now()

    def step(self, *_) -> None:
        """The end of a step: what is no other part is learning."""
        now = self._now()
        for at, clock in enumerate(("wall", "cpu")):
            whole = now[at] - self._began[at]
            parts = {part: self._parts[part][at] for part in PARTS[:-1]}
            for part, spent in {"step": whole, **parts, PARTS[-1]: whole - sum(parts.values())}.items():
                self.spent[clock][part].append(spent)
        self.reward.append(mean(self._scores))
        self._scores, self._parts, self._began = [], {part: (0.0, 0.0) for part in PARTS}, now

    def report(self) -> dict:
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return {**self.spent, "reward": self.reward, "peak": size}

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()


@app.command(show=False)
def side(name: str, folder: Path, size: str = "", steps: int = 0, number: int = 0) -> None:
    """One process: what it found goes into a file of its name."""
    import torch

    torch.set_num_threads(1)
    if name == "start":
        found = start(folder, size, steps, number)
    else:
        pool, jobs, prompts = pickle.loads((folder / "jobs").read_bytes())
        about = folder, words(size), jobs[number], prompts[number]
        found = ours(*about, pool, SIZES[size].dtype) if name == "ours" else trl(*about, checkpointing=name == "trl")
        assert len(found["reward"]) == steps, f"{name} made {len(found['reward'])} of {steps} steps"
    (folder / f"{name}.json").write_text(json.dumps(found))


def words(size: str):
    """What is practised: the letters of a word in order, and nothing else is right."""
    from skillweave.tasks.primitives import LETTERS, Words

    return Words(SEED, ("sort",), letters=LETTERS[:8], lengths=SIZES[size].lengths)


def start(folder: Path, size: str, steps: int, rounds: int) -> dict:
    """Write the base, the adapter that all sides start from and the job of each seed, prompts with their tokens."""
    from skillweave.base import TinyBase, load_base
    from skillweave.delta import LowRank
    from skillweave.learn.grpo import GRPO
    from skillweave.learn.pretrain import pretrain
    from skillweave.learn.sft import SFT
    from skillweave.learn.trl_engine import practice, prepare

    about, task = SIZES[size], words(size)
    method = GRPO(steps, about.batch, GROUP, loss=LOSS, lr=about.lr, tokens=about.tokens, refills=0, probe=0)
    taught = task.take(about.taught * 32, "train")
    if size == "3 M":
        bare = TinyBase(256, SEED, "\nabcdefgh :sort", layers=4)
        base, _ = pretrain(bare, taught, steps=about.taught, batch=32, lr=2e-3, seed=SEED, bf16=True)
        begin = LowRank.fresh(base, method.rank, method.scale, SEED)
    else:
        base = load_base(dtype=about.dtype)
        begin, _ = SFT(about.taught, 16, 2e-3).fit(base, taught, SEED)
    pool = task.take(POOL, "train", about.taught * 32)
    jobs = [practice(method, base, pool, seed) for seed in range(rounds)]
    prepare(folder, jobs[0], base, begin)
    prompts = [[base.encode(example.prompt, start=True) for example in job.asked] for job in jobs]
    (folder / "jobs").write_bytes(pickle.dumps((pool, jobs, prompts)))
    return {}


def ours(folder: Path, task, job, prompts: Sequence[list[int]], pool: Sequence, dtype: str) -> dict:
    """`GRPO.fit` as anyone calls it."""
    from skillweave.base import load_base
    from skillweave.learn import rollout
    from skillweave.learn.loop import Run
    from skillweave.peft_format import load_adapter

    meter, asked = Meter(), list[list[int]]()
    base, begin = load_base(str(folder / "base"), dtype), load_adapter(folder / "start")

    def reward(example, group):
        with meter.part("scoring"):
            asked.append(base.encode(example.prompt, start=True))
            return meter.scored([task.score(example, one.text) for one in group])

    rollout.sample = meter.timed("generation", rollout.sample)
    meter.start()
    _, log = job.method.fit(base, pool, job.seed, Run(tick=meter.step), task=task, start=begin, reward=reward)
    assert asked == prompts, "ours was asked other prompts"
    gap = max(row.get("sampling/sampling_logp_difference/mean", 0.0) for row in log.rows)
    assert gap < 0.05, f"what was drawn and what is trained differ by {gap} nats a token"
    return meter.report()


def trl(folder: Path, task, job, prompts: Sequence[list[int]], checkpointing: bool) -> dict:
    """The trainer of `--engine trl`; it has to give prompts the tokens that ours gives them."""
    from transformers import TrainerCallback

    from skillweave.learn.trl_engine import scorer, trainer

    class Marks(TrainerCallback):
        def on_step_end(self, *args, **options):
            meter.step()

    meter, asked = Meter(), list[list[int]]()
    one = trainer(folder, job, scorer(job, task), gradient_checkpointing=checkpointing)
    one.add_callback(Marks())
    tokenize, score = one._tokenize_prompts, one._calculate_rewards

    def tokens(texts):
        made = tokenize(texts)
        asked.extend(made[0][::GROUP])
        return made

    def scores(*args, **options):
        made = score(*args, **options)
        meter.scored(made[:, 0].tolist())
        return made

    one._tokenize_prompts = tokens
    one._calculate_rewards = meter.timed("scoring", scores)
    one._generate = meter.timed("generation", one._generate)
    meter.start()
    one.train()
    assert asked == prompts, "TRL was asked other prompts"
    return meter.report()


if __name__ == "__main__":
    sys.exit(run_app(app))
