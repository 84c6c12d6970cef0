"""How long it takes to bring 100 adapters of rank 16 to Gemma 3 270M: ours against PEFT's `load_adapter`.

    python benchmarks/load_adapters.py

Each side runs in a fresh process of one thread, on a base in fp32, with the same files, warm in the page cache. Ours is all
that it takes until the adapters can be used: reading each file (its header checked, every value finite, the configuration
judged) and one bank for all; beside it, also with the try on the base that an import makes. PEFT loads one after another into
one model. The cost of an adapter is CPU time, which other work on the machine changes least. PEFT loads only 20 of them, since
it takes so long; its mean over 20 stands for 100, which flatters it if later ones take longer.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
sys.path.insert(0, str(SOURCE))

COUNT, PEER, CHECKED, RANK, SEED = 100, 20, 5, 16, 0
GOAL = 10.0
"""How many times faster than PEFT an adapter is to be loaded."""
BASE = "gemma-3-270m"
TOKENS = [[2, 651, 9456, 576, 7127, 603]]


def write_adapters(folder: Path) -> None:
    """COUNT folders; four different adapters, their weights linked (the cost of reading is the same)."""
    import torch

    from skillweave.base import load_base
    from skillweave.delta import Factors, LowRank
    from skillweave.peft_format import save_adapter

    base = load_base(BASE, "fp32")
    draw = torch.Generator().manual_seed(SEED)
    for k in range(COUNT):
        if k >= 4:
            (folder / str(k)).mkdir()
            for file in (folder / str(k % 4)).iterdir():
                os.link(file, folder / str(k) / file.name)
            continue
        factors = {}
        for slot, linear in base.linears.items():
            a = torch.randn(RANK, linear.in_features, generator=draw) * 0.02
            factors[slot] = Factors(a, torch.randn(linear.out_features, RANK, generator=draw) * 0.02, 1.0)
        save_adapter(folder / str(k), LowRank(factors), BASE)


def ours(folder: Path) -> dict:
    import torch

    from skillweave.bank import SkillBank
    from skillweave.base import load_base
    from skillweave.peft_check import check_on
    from skillweave.peft_format import load_adapter, read_adapter

    base = load_base(BASE, "fp32")
    wall, cpu, each, skills = time.perf_counter(), time.process_time(), [], {}
    for k in range(COUNT):
        start = time.process_time()
        skills[str(k)] = load_adapter(folder / str(k))
        each.append(time.process_time() - start)
    start = time.process_time()
    bank = SkillBank(base, skills)
    total = {"bank_ms": (time.process_time() - start) * 1e3}
    total |= {"cpu_ms": (time.process_time() - cpu) * 1e3 / COUNT, "wall_ms": (time.perf_counter() - wall) * 1e3 / COUNT}
    total |= {"first_ms": each[0] * 1e3, "last_ms": each[-1] * 1e3}
    start = time.process_time()
    for k in range(CHECKED):
        check_on(base, read_adapter(folder / str(k)))
    total["checked_cpu_ms"] = (time.process_time() - start) * 1e3 / CHECKED
    alpha = torch.zeros(COUNT, base.layers)
    alpha[1] = 1
    with torch.no_grad(), bank.on(alpha):
        total["logits"] = base.logits(base.hidden(torch.tensor(TOKENS))[0, -1:])[0, :1000].tolist()
    return total


def peft(folder: Path) -> dict:
    import warnings

    import torch
    from peft import PeftModel

    from skillweave.base import load_base

    warnings.simplefilter("ignore")
    model = load_base(BASE, "fp32").model
    wall, cpu, each, wrapped = time.perf_counter(), time.process_time(), [], None
    for k in range(PEER):
        start = time.process_time()
        if wrapped is None:
            wrapped = PeftModel.from_pretrained(model, folder / str(k), adapter_name=str(k))
        else:
            wrapped.load_adapter(folder / str(k), str(k))
        each.append(time.process_time() - start)
    total = {"cpu_ms": (time.process_time() - cpu) * 1e3 / PEER, "wall_ms": (time.perf_counter() - wall) * 1e3 / PEER}
    total |= {"first_ms": each[0] * 1e3, "last_ms": each[-1] * 1e3}
    wrapped.set_adapter("1")
    with torch.no_grad():
        total["logits"] = wrapped.eval()(input_ids=torch.tensor(TOKENS)).logits[0, -1, :1000].tolist()
    return total


def one_process(side: str, folder: str) -> None:
    import torch

    torch.set_num_threads(1)
    print(json.dumps({"ours": ours, "peft": peft}[side](Path(folder))))


def run(side: str, folder: Path) -> dict:
    """What one side says in a fresh process."""
    command = [sys.executable, __file__, "--one", side, str(folder)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env).stdout
    return {key: value if key == "logits" else round(value, 2) for key, value in json.loads(said).items()}


def row(job: str, mine: float, peer: float, unit: str, goal: str | None = None, met: bool | None = None) -> dict:
    return {"job": job, "ours": mine, "peer": peer, "unit": unit, "ratio": round(peer / mine, 2), "goal": goal, "met": met}


def main() -> None:
    from skillweave.record import write_result

    load = round(os.getloadavg()[0], 2)
    with tempfile.TemporaryDirectory() as place:
        write_adapters(Path(place))
        mine, peer = run("ours", Path(place)), run("peft", Path(place))
    pairs = list(zip(mine.pop("logits"), peer.pop("logits"), strict=True))
    apart = max(abs(a - b) for a, b in pairs) / max(abs(b) for _, b in pairs)
    met = peer["cpu_ms"] / mine["cpu_ms"] >= GOAL and apart < 1e-4
    rows = [
        row("load an adapter", mine["cpu_ms"], peer["cpu_ms"], "CPU ms", f"{GOAL:.0f}x", met),
        row("load an adapter, wall time", mine["wall_ms"], peer["wall_ms"], "ms"),
        row("the last one", mine["last_ms"], peer["last_ms"], "CPU ms"),
        row("load one and try it on the base", mine["checked_cpu_ms"], peer["cpu_ms"], "CPU ms"),
    ]
    spent = sum(
        getattr(resource.getrusage(who), part)
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        for part in ("ru_utime", "ru_stime")
    )
    write_result(
        SOURCE.parent / "results" / "load_adapters.json",
        name="load_adapters",
        kind="benchmark",
        command="python benchmarks/load_adapters.py",
        seeds=[SEED],
        cpu_minutes=spent / 60,
        verdict="holds" if met else "does not hold",
        values={
            "rows": rows,
            "adapters": {"ours": COUNT, "peer": PEER, "rank": RANK, "checked": CHECKED},
            "ours": mine,
            "peer": peer,
            "logits_apart": apart,
            "load_before": load,
        },
    )


if __name__ == "__main__":
    one_process(*sys.argv[2:]) if sys.argv[1:2] == ["--one"] else main()
