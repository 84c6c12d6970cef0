"""Merging LoRA adapters to one of a lower rank: ours against PEFT's exact way (`combination_type="svd"`).

    python benchmarks/merging.py gemma     4, 8 and 16 adapters of rank 16 on Gemma 3 270M -> results/merge_vs_peft.json
    python benchmarks/merging.py large     one layer of 4096 x 14336, and all layers of an 8B model -> results/merge_large.json

Both sides merge the same random adapters to the best change of rank 16, every run in a process of one thread, in turn. The time
is that of the merge alone (adapters in memory before and after): the median of ours, PEFT's one run. The memory is how far the
merge raises the peak of its process. Both results are held against an SVD in fp64 in the same run. Needs skillweave[bench].
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median

from cyclopts import App

from skillweave.errors import SkillweaveError
from skillweave.progress import progress
from skillweave.record import run_app, write_result
from skillweave.result import Table, text

RANK, SEED = 16, 0
COUNTS = (4, 8, 16)
GOALS = {"thin": 60.0, "full": 100.0, "memory": 0.1, "layer": 1000.0, "limit": 3.0}
RIGHT = 1e-4
"""Largest relative difference from the fp64 result, beyond what rank 16 cannot hold."""
LAYER = (4096, 14336)
LLAMA = {"q": (4096, 4096), "k": (1024, 4096), "v": (1024, 4096), "o": (4096, 4096),
         "gate": (14336, 4096), "up": (14336, 4096), "down": (4096, 14336)}  # fmt: skip
LAYERS = 32

app = App(name="merging", help="Merging adapters, ours against PEFT.", help_format="plaintext", version_flags=[])


@app.command
def gemma(*, rounds: int = 3, out: Path = Path("results/merge_vs_peft.json")) -> None:
    """4, 8 and 16 adapters on Gemma."""
    sides = ("ours", "thin", "full")
    with progress(rounds * len(COUNTS) * len(sides), "merge_vs_peft", unit="runs") as tick:
        found = {count: [] for count in COUNTS}
        for _ in range(rounds):
            for count in COUNTS:
                found[count].append({side: run("gemma-" + side, count, tick) for side in sides})
    rows = []
    for count, runs in found.items():
        check_right(runs)
        for side, words in (("thin", "thin SVD"), ("full", "PEFT's default")):
            rows.append(row(f"{count} adapters, {words}", runs, side, "cpu", "s", GOALS[side]))
        rows.append(row(f"{count} adapters, wall clock, thin SVD", runs, "thin", "seconds", "s"))
        rows.append(row(f"{count} adapters, peak memory", runs, "thin", "grown", "MiB", GOALS["memory"], less=True))
    write(out, "merge_vs_peft", f"python benchmarks/merging.py gemma --rounds {rounds}", rows, found)


@app.command
def large(*, rounds: int = 1, out: Path = Path("results/merge_large.json")) -> None:
    """One large layer, and the adapters of a whole 8B model."""
    with progress(rounds * 3, "merge_large", unit="runs") as tick:
        layers = [{side: run("layer-" + side, 4, tick) for side in ("ours", "thin")} for _ in range(rounds)]
        model = [{"ours": run("model-ours", 4, tick)} for _ in range(rounds)]
    check_right(layers)
    for one in model:
        one["limit"] = {"cpu": one["ours"]["limit"], "seconds": one["ours"]["limit"], "grown": 0.0}
    rows = [
        row("one layer 4096 x 14336, thin SVD", layers, "thin", "cpu", "s", GOALS["layer"]),
        row("one layer, peak memory", layers, "thin", "grown", "MiB"),
        {
            "job": "all layers of an 8B model, times the limit",
            "ours": median(one["ours"]["cpu"] for one in model),
            "peer": median(one["ours"]["limit"] for one in model),
            "unit": "s",
            "ratio": median(one["ours"]["cpu"] / one["ours"]["limit"] for one in model),
            "goal": f"≤ {GOALS['limit']:g}",
            "met": median(one["ours"]["cpu"] / one["ours"]["limit"] for one in model) <= GOALS["limit"],
        },
    ]
    write(out, "merge_large", f"python benchmarks/merging.py large --rounds {rounds}", rows, {"layer": layers, "model": model})


def row(job: str, runs: Sequence[Mapping], peer: str, measure: str, unit: str, goal: float | None = None, less: bool = False):
    """One line of the table: medians, and the median of the ratios within a round (peer / ours; of memory ours / peer)."""
    ours, theirs = ([one[side][measure] for one in runs] for side in ("ours", peer))
    ratio = median((a / b if less else b / a) if a and b else 0.0 for a, b in zip(ours, theirs, strict=True))
    met = None if goal is None else ratio <= goal if less else ratio >= goal
    words = None if goal is None else f"{'≤' if less else '≥'} {goal:g}"
    return {"job": job, "ours": median(ours), "peer": median(theirs), "unit": unit, "ratio": ratio, "goal": words, "met": met}


def check_right(runs: Sequence[Mapping]) -> None:
    """AssertionError unless both sides are as near to the exact sum as rank 16 can be."""
    for one in runs:
        for side, found in one.items():
            assert found["error"] <= found["best"] * (1 + RIGHT), (side, found["error"], found["best"])
            assert 0.1 < found["best"] < 1, found["best"]


def write(out: Path, name: str, command: str, rows: Sequence[Mapping], runs: Mapping) -> None:
    goals = [line["met"] for line in rows if line["met"] is not None]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    write_result(
        out,
        name=name,
        kind="benchmark",
        command=command,
        seeds=[SEED],
        cpu_minutes=(used.ru_utime + used.ru_stime) / 60,
        verdict="holds" if all(goals) else "partly" if any(goals) else "does not hold",
        values={"rows": rows, "criterion": "every goal of the table, times in CPU seconds of one thread", "runs": runs},
    )
    keys = ("job", "ours", "peer", "unit", "ratio", "goal", "met")
    print(text(Table(keys, tuple(tuple(line[key] for key in keys) for line in rows))))


def run(side: str, count: int, tick: Callable[..., None]) -> dict:
    """Run one side in a process of its own; returns what it measured."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        done = subprocess.run(
            [sys.executable, __file__, "side", side, str(count), str(report)], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise SkillweaveError(f"the side `{side}` ended with code {done.returncode}: {last}")
        found = json.loads(report.read_text())
    tick(1, note=f"{side} {count}: {found['cpu']:.2f} s")
    return found


# What one process does.


@app.command(show=False)
def side(name: str, count: int, report: Path) -> None:
    import torch

    torch.set_num_threads(1)
    what, who = name.split("-")
    shapes = {"gemma": gemma_shapes, "layer": lambda: {"layer": LAYER}, "model": llama_shapes}[what]()
    adapters = [random_adapter(shapes, k) for k in range(count)]
    weights = [1.0, 0.7, -0.5, 0.9] * (count // 4)
    found = ours(adapters, weights) if who == "ours" else peft(what, adapters, weights, full=who == "full")
    merged = found.pop("merged")
    found |= nearness(adapters, weights, merged) if what != "model" else {"limit": limit(shapes, count)}
    report.write_text(json.dumps(found))


def gemma_shapes() -> dict[str, tuple[int, int]]:
    from skillweave.base import load_base

    return {slot: (linear.out_features, linear.in_features) for slot, linear in load_base().linears.items()}


def llama_shapes() -> dict[str, tuple[int, int]]:
    return {f"layers.{layer}.{name}": shape for layer in range(LAYERS) for name, shape in LLAMA.items()}


def random_adapter(shapes: Mapping[str, tuple[int, int]], seed: int):
    import torch

    from skillweave.delta import Factors, LowRank

    draw = torch.Generator().manual_seed(seed)
    return LowRank(
        {
            slot: Factors(torch.randn(RANK, n, generator=draw) / n**0.5, 0.05 * torch.randn(m, RANK, generator=draw), 1.0)
            for slot, (m, n) in shapes.items()
        }
    )


def timed(work: Callable[[], object]) -> tuple[object, dict]:
    """What `work` returns, its wall and CPU seconds, and by how many MiB it raised the peak of this process."""
    reset_peak()
    before, wall, cpu = peak(), time.perf_counter(), time.process_time()
    result = work()
    return result, {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "grown": peak() - before}


def reset_peak() -> None:
    """Forget the peak so far, where Linux lets us; elsewhere growth is counted from the highest point."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """Largest resident size, MiB."""
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def ours(adapters: Sequence, weights: Sequence[float]) -> dict:
    from skillweave.compose.merge import merge

    merged, first = timed(lambda: merge(adapters, weights, RANK))
    again = [timed(lambda: merge(adapters, weights, RANK))[1] for _ in range(4)]
    times = {key: median([first[key], *(one[key] for one in again)]) for key in ("seconds", "cpu")}
    return {"merged": merged.skill, "first": first, **times, "grown": first["grown"]}


def peft(what: str, adapters: Sequence, weights: Sequence[float], full: bool) -> dict:
    """The same with PEFT, on Gemma or on a bare layer; returns its result as factors."""
    import torch
    from peft import LoraConfig, get_peft_model

    from skillweave.base import load_base
    from skillweave.delta import Factors, LowRank

    if what == "gemma":
        bare = load_base().model
    else:
        bare = torch.nn.ModuleDict({"layer": torch.nn.Linear(LAYER[1], LAYER[0], bias=False)})
    slots = list(adapters[0].factors)
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=[slot.split(".")[-1] for slot in slots], bias="none")
    model = get_peft_model(bare, config, adapter_name="a0", autocast_adapter_dtype=True)
    for k in range(1, len(adapters)):
        model.add_adapter(f"a{k}", config)
    modules = {slot: model.base_model.model.get_submodule(slot) for slot in slots}
    with torch.no_grad():
        for k, adapter in enumerate(adapters):
            for slot, f in adapter.factors.items():
                modules[slot].lora_A[f"a{k}"].weight.copy_(f.a)
                modules[slot].lora_B[f"a{k}"].weight.copy_(f.b)
    names = [f"a{k}" for k in range(len(adapters))]

    def work():
        model.add_weighted_adapter(
            names, list(weights), "merged", combination_type="svd", svd_rank=RANK, svd_full_matrices=full
        )

    _, found = timed(work)
    merged = {}
    for slot, module in modules.items():
        a, b = module.lora_A["merged"].weight.detach(), module.lora_B["merged"].weight.detach()
        merged[slot] = Factors(a, b, module.scaling["merged"])
    return {"merged": LowRank(merged), **found}


def nearness(adapters: Sequence, weights: Sequence[float], merged) -> dict:
    """Relative distance of `merged` from the exact sum over a few layers, and the least that rank 16 can have (fp64)."""
    import torch

    off = best = whole = 0.0
    slots = list(merged.factors)
    for slot in slots[:: max(1, len(slots) // 7)]:
        parts = [(adapter.factors[slot], w) for adapter, w in zip(adapters, weights, strict=True)]
        b = torch.cat([w * f.scale * f.b.double() for f, w in parts], 1)
        a = torch.cat([f.a.double() for f, _ in parts])
        (qb, rb), (qa, ra) = torch.linalg.qr(b), torch.linalg.qr(a.t())
        values = torch.linalg.svdvals(rb @ ra.t())
        f = merged.factors[slot]
        core = qb.t() @ f.b.double() * f.scale @ (f.a.double() @ qa)
        outside = f.inner(f) - float(core.square().sum())
        off += float((core - rb @ ra.t()).square().sum()) + max(0.0, outside)
        best += float(values[RANK:].square().sum())
        whole += float(values.square().sum())
    return {"error": (off / whole) ** 0.5, "best": (best / whole) ** 0.5}


def limit(shapes: Mapping[str, tuple[int, int]], count: int) -> float:
    """Seconds that the operations of two thin QRs and the last two products take at this machine's measured fp32 rate."""
    import torch

    ranks = count * RANK
    one, two = torch.randn(1024, 1024), torch.randn(1024, 1024)
    times = []
    for _ in range(9):
        start = time.process_time()
        one @ two
        times.append(time.process_time() - start)
    rate = 2 * 1024**3 / median(times)
    return sum(4 * (m + n) * ranks**2 + 2 * (m + n) * ranks * RANK for m, n in shapes.values()) / rate


if __name__ == "__main__":
    sys.exit(run_app(app))
