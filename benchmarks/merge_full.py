"""Merging three whole fine-tunes of Gemma 3 270M onto it: ours against mergekit, command against command.

    python -m venv mergekit && mergekit/bin/pip install mergekit==0.1.5
    python benchmarks/merge_full.py --mergekit mergekit/bin/mergekit-yaml     -> results/merge_full.json

The fine-tunes are the base with 5 % noise, stored in bf16. Each side is a process of its own with the same number of threads,
in turn; time and peak memory are those of the whole command. mergekit runs in bf16, its usual way (in fp32 it is slower). The
output is held against mergekit's in fp32: entries may differ only where TIES leaves them open. Of entries just as large as the
threshold mergekit keeps an arbitrary part and we keep all; where the skills cancel, it takes the plus sign and we take none.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

from cyclopts import App

from skillweave import gemma
from skillweave.errors import BadOption, SkillweaveError
from skillweave.progress import progress
from skillweave.record import run_app, write_result
from skillweave.result import Table, text

JOBS = {"ties": "TIES, density 0.5", "sum": "task arithmetic"}
FASTER, MEMORY = {"ties": 6.0, "sum": 1.5}, 0.25
DENSITY, WEIGHT, NOISE, SEED = 0.5, 0.3, 0.05, 0

app = App(name="merge_full", help="Merging whole models, ours against mergekit.", help_format="plaintext", version_flags=[])


@app.default
def compare(*, mergekit: Path, rounds: int = 3, threads: int = 2, out: Path = Path("results/merge_full.json")) -> None:
    """Measure both sides in turn and write the result."""
    if not mergekit.is_file():
        raise BadOption(
            f"there is no {mergekit}.", "install mergekit==0.1.5 in an environment of its own and name its mergekit-yaml"
        )
    found: dict[str, list[dict]] = {job: [] for job in JOBS}
    with tempfile.TemporaryDirectory() as scratch, progress(rounds * 4 + 5, "merge_full", unit="runs") as tick:
        folder = Path(scratch)
        tuned = [folder / f"tuned-{k}" for k in range(3)]
        run([sys.executable, __file__, "tune"], threads, tick, folder / "tuned")  # aside: a child's peak starts at its parent's
        for _ in range(rounds):
            for job in JOBS:
                theirs = recipe(folder, tuned, job, "bfloat16")
                found[job].append(
                    {"ours": run(ours(tuned, job), threads, tick), "mergekit": run([mergekit, theirs], threads, tick)}
                )
        equal = {job: agreement(folder, tuned, job, mergekit, threads, tick) for job in JOBS}
    rows = [line for job in JOBS for line in rows_of(job, found[job], equal[job])]
    goals = [line["met"] for line in rows if line["met"] is not None]
    write_result(
        out,
        name="merge_full",
        kind="benchmark",
        command=f"python benchmarks/merge_full.py --rounds {rounds} --threads {threads} --mergekit mergekit/bin/mergekit-yaml",
        seeds=[SEED],
        cpu_minutes=sum(side["cpu"] for runs in found.values() for one in runs for side in one.values()) / 60,
        verdict="holds" if all(goals) else "partly" if any(goals) else "does not hold",
        values={
            "rows": rows,
            "criterion": "every goal of the table, with the same output",
            "runs": found,
            "torch": version("torch"),
        },
    )
    keys = ("job", "ours", "peer", "unit", "ratio", "goal", "met")
    print(text(Table(keys, tuple(tuple(line[key] for key in keys) for line in rows))))


def rows_of(job: str, runs: Sequence[Mapping], equal: Mapping) -> list[dict]:
    """The lines of one job: wall and CPU time (mergekit / ours), peak memory (ours / mergekit), and the same output."""

    def line(words: str, measure: str, unit: str, goal: float | None, less: bool = False) -> dict:
        pairs = [(one["ours"][measure], one["mergekit"][measure]) for one in runs]
        ratio = median(a / b if less else b / a for a, b in pairs)
        met = None if goal is None else ratio <= goal if less else ratio >= goal
        shown = None if goal is None else f"{'≤' if less else '≥'} {goal:g}"
        ours, theirs = (median(side) for side in zip(*pairs, strict=True))
        return {"job": words, "ours": ours, "peer": theirs, "unit": unit, "ratio": ratio, "goal": shown, "met": met}

    name = JOBS[job]
    same = {"job": f"{name}, entries that are equal", "ours": equal["equal"], "peer": None, "unit": "share", "ratio": None}
    return [
        line(name, "seconds", "s", FASTER[job]),
        line(f"{name}, CPU time", "cpu", "s", None),
        line(f"{name}, peak memory", "peak", "MiB", MEMORY, less=True),
        same | {"goal": "all but what TIES leaves open", "met": equal["explained"]},
    ]


@app.command(show=False)
def tune(start: Path) -> None:
    """Write three folders of Gemma with noise: start-0, start-1, start-2."""
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    root = gemma.folder()
    weights = load_file(root / "model.safetensors")
    for k in range(3):
        draw, place = torch.Generator().manual_seed(k), Path(f"{start}-{k}")
        place.mkdir()
        noisy = {}
        for name, w in weights.items():
            noise = torch.randn(w.shape, generator=draw) * (NOISE * w.float().std())
            noisy[name] = (w.float() + noise).to(w.dtype)
        save_file(noisy, place / "model.safetensors", metadata={"format": "pt"})
        for file in root.iterdir():
            if file.name not in ("model.safetensors", "seal.json"):
                shutil.copy(file, place)


def ours(tuned: Sequence[Path], job: str) -> list:
    """Our command, without the folder that it writes."""
    options = ["--set", f"density={DENSITY}", "--set", 'scope="layer"'] if job == "ties" else ["--weights", *[str(WEIGHT)] * 3]
    return [sys.executable, "-m", "skillweave", "merge", *tuned, "--base", gemma.folder(), "--method", job, *options, "--out"]


def recipe(folder: Path, tuned: Sequence[Path], job: str, dtype: str) -> Path:
    """mergekit's configuration of the same merge (JSON is YAML)."""
    parameters = {"weight": 1.0, "density": DENSITY} if job == "ties" else {"weight": WEIGHT}
    config = {
        "models": [{"model": str(model), "parameters": parameters} for model in tuned],
        "merge_method": "ties" if job == "ties" else "task_arithmetic",
        "base_model": str(gemma.folder()),
        "parameters": {"normalize": job == "ties"},
        "dtype": dtype,
        "out_dtype": "bfloat16",
    }
    path = folder / f"{job}-{dtype}.yml"
    path.write_text(json.dumps(config))
    return path


def run(command: Sequence, threads: int, tick: Callable[..., None], keep: Path | None = None) -> dict:
    """Run one command that ends with the folder it writes: wall and CPU seconds, peak MiB."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "SKILLWEAVE_NO_PROGRESS": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        out, log = keep or Path(scratch) / "out", Path(scratch) / "log"
        start = time.perf_counter()
        with open(log, "w") as said:
            process = subprocess.Popen([*map(str, command), str(out)], env=environment, stdout=said, stderr=said)
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if process.returncode:
            last = (log.read_text().strip().splitlines() or ["no message"])[-1]
            raise SkillweaveError(f"{Path(str(command[0])).name} ended with code {process.returncode}: {last}")
    scale = 2**20 if sys.platform == "darwin" else 2**10
    tick(1, note=f"{seconds:.1f} s")
    return {"seconds": seconds, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss / scale}


def agreement(folder: Path, tuned: Sequence[Path], job: str, mergekit: Path, threads: int, tick: Callable[..., None]) -> dict:
    """Share of equal entries, and whether all others are one step of bf16 apart or left open by the method.

    TIES leaves open which of several entries just at the threshold stay, and the sign where the skills cancel.
    """
    from safetensors import safe_open

    run(ours(tuned, job), threads, tick, folder / f"ours-{job}")
    run([mergekit, recipe(folder, tuned, job, "float32")], threads, tick, folder / f"theirs-{job}")
    files = [gemma.folder(), *tuned, folder / f"ours-{job}", folder / f"theirs-{job}"]
    base, *models, one, other = [safe_open(file / "model.safetensors", "pt") for file in files]
    equal = total = 0
    explained = True
    for name in base.keys():  # noqa: SIM118 (not a dict)
        mine, theirs = one.get_tensor(name), other.get_tensor(name)
        near = (mine.float() - theirs.float()).abs() <= 2**-7 * theirs.float().abs()
        equal, total = equal + int((mine == theirs).sum()), total + mine.numel()
        if job == "ties" and not bool(near.all()):
            near |= left_open(base.get_tensor(name).float(), [model.get_tensor(name).float() for model in models])
        explained &= bool(near.all())
    return {"equal": equal / total, "explained": explained}


def left_open(start, tuned: Sequence):
    """Where a change is just as large as its threshold, or the changes that stay cancel."""
    import torch

    from skillweave.compose.thin import threshold, trim

    votes, edge = torch.zeros_like(start), torch.zeros_like(start, dtype=torch.bool)
    for model in tuned:
        change = (model - start).view(1, -1)
        at = threshold(lambda change=change: [change], DENSITY)
        edge |= ((change.abs() - at).abs() <= 1e-6 * at).view(start.shape)
        votes += trim(change, at).view(start.shape)
    return edge | (votes.abs() <= 1e-7)


if __name__ == "__main__":
    sys.exit(run_app(app))
