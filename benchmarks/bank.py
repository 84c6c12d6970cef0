"""What a bank costs: a skill of its own for each sample, several skills at once, and learning their strengths.

    python benchmarks/bank.py mixed      batch 8, a skill each, banks of 8 to 512, against PEFT -> results/mixed_batch.json
    python benchmarks/bank.py active     8 skills active for all rows, against PEFT             -> results/all_active.json
    python benchmarks/bank.py scales     a step on 8 strengths, against rebuilding the weights  -> results/scales_step.json

One process and one thread; sides in turn within a round, ratios within a round, their median reported; milliseconds of CPU
time, since a busy machine lengthens every wall time (those are in `details`). "LoRA part" is all 126 linear layers of Gemma 3
270M with the frozen product taken out on both sides, so that only what the skills add is timed; "decode" is a whole step with
its key-value cache and the head. Skills are random, of rank 16, B scaled by 0.05, and overlap in memory, so that 512 of them
fit. PEFT is given 8 and 32 adapters: each takes a walk over all modules to load, and its cost is that of the adapters in use.
"""

import copy
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
import torch.nn.functional as F
from cyclopts import App

from skillweave.bank import SkillBank
from skillweave.base import Base, TinyBase, load_base
from skillweave.delta import Factors, LowRank
from skillweave.progress import progress
from skillweave.record import write_result
from skillweave.result import Table, text
from skillweave.strength import Routed

BATCH, RANK, SEED, CONTEXT = 8, 16, 0, 32
TOKENS = (1, 16, 128)
BANKS = (8, 32, 128, 512)
LOADED = (8, 32)
"""Numbers of adapters that PEFT is given."""
FLAT = 1.25
"""How much more the LoRA part may cost in the largest bank than in the smallest."""
RIGHT = 1.2
"""How much more a bf16 forward may differ from fp32 than one with a single PEFT adapter does."""

app = App(name="bank", help="What a bank of skills costs.", help_format="plaintext", version_flags=[])


def random_skills(base: Base, count: int) -> dict[str, LowRank]:
    """Skills whose factors are windows, at different places, on one pool of random numbers."""
    sizes = {slot: (RANK * x.in_features, x.out_features * RANK) for slot, x in base.linears.items()}
    draw = torch.Generator().manual_seed(SEED)
    pool = torch.randn(2 * max(map(max, sizes.values())) + 977 * count, generator=draw)
    skills = {}
    for k in range(count):
        factors = {}
        for i, (slot, (inner, outer)) in enumerate(sizes.items()):
            at = (977 * k + 131 * i) % (len(pool) - max(inner, outer))
            width = base.linears[slot].in_features
            a, b = pool[at : at + inner].view(RANK, width), pool[-outer - at :][:outer].view(-1, RANK)
            factors[slot] = Factors(a, b, 0.05 / width**0.5)
        skills[f"s{k}"] = LowRank(factors)
    return skills


class Peft:
    """A PEFT model with the first skills of a bank as its adapters; it shares the weights of the base."""

    def __init__(self, base: Base, skills: Mapping[str, LowRank]):
        import peft

        self.base, self.model = base, copy.deepcopy(base.model, {id(p): p for p in base.model.parameters()})
        self.loaded: list[str] = []
        config = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=[s.removeprefix("model.") for s in base.linears])
        self.peft = peft.get_peft_model(self.model, config, "s0").eval()
        self.load(skills)

    def load(self, skills: Mapping[str, LowRank]) -> None:
        """Give PEFT those of `skills` that it lacks."""
        config = self.peft.peft_config["s0"]
        for name, skill in skills.items():
            if name in self.loaded:
                continue
            if name != "s0":
                self.peft.add_adapter(name, config)
            for slot, f in skill.factors.items():
                layer = self.peft.base_model.model.get_submodule(slot)
                layer.lora_A[name].weight.data = f.a
                layer.lora_B[name].weight.data = f.b * f.scale
            self.loaded.append(name)
        self.peft.requires_grad_(False)

    @property
    def layers(self) -> dict[str, torch.nn.Module]:
        """PEFT's layers by the names of ours."""
        return {slot: self.peft.base_model.model.get_submodule(slot) for slot in self.base.linears}

    @contextmanager
    def mixed(self, names: Sequence[str]) -> Iterator[None]:
        """A batch of these adapters; what PEFT does for it at each `generate` is done once."""
        with self.peft.base_model._enable_peft_forward_hooks(adapter_names=list(names)):
            yield

    def body(self, **inputs):
        return self.peft.base_model.model.model(**inputs)


@contextmanager
def frozen_part_free(base: Base, tokens: int) -> Iterator[dict[int, torch.Tensor]]:
    """Inside, the product with a frozen weight is a tensor that is there already, on both sides."""
    ready = {x.weight.data_ptr(): torch.randn(BATCH, tokens, x.out_features).to(base.dtype) for x in base.linears.values()}
    product = F.linear

    def linear(x, weight, bias=None):
        found = ready.get(weight.data_ptr())
        return product(x, weight, bias) if found is None else found.view(*x.shape[:-1], -1)

    with patch.object(F, "linear", linear):  # whoever asks for it: a list of modules would be out of date one day
        yield ready


Sides = Mapping[str, tuple[Callable[[], object], Callable]]
"""By name: what to time, and the block that it runs in."""


def in_turn(sides: Sides, rounds: int) -> dict[str, dict[str, list[float]]]:
    """CPU and wall milliseconds of each side in each round; entering a block and what is made once in it is not timed."""
    found = {side: {"cpu": [], "wall": []} for side in sides}
    for i in range(rounds + 1):
        for side, (call, block) in sides.items():
            with block():
                if side == "ours" or not i:
                    call()
                if not i:
                    continue
                cpu, wall = time.process_time(), time.perf_counter()
                call()
                found[side]["cpu"].append((time.process_time() - cpu) * 1e3)
                found[side]["wall"].append((time.perf_counter() - wall) * 1e3)
    return found


def row(job: str, found: dict, goal: float | None = None) -> dict:
    """One row of the table; `goal` is the least ratio."""
    ours, peer = found["ours"]["cpu"], found.get("peer", {}).get("cpu")
    ratio = median(p / o for o, p in zip(ours, peer, strict=True)) if peer else None
    return {
        "job": job,
        "ours": round(median(ours), 2),
        "peer": round(median(peer), 2) if peer else None,
        "unit": "CPU ms",
        "ratio": round(ratio, 2) if ratio else None,
        "goal": f">= {goal:g}" if goal else None,
        "met": ratio >= goal if ratio and goal else None,
    }


def medians(found: dict) -> dict:
    return {side: {kind: round(median(values), 2) for kind, values in times.items()} for side, times in found.items()}


def compared(job: str, ours: float, peer: float, unit: str, goal: float) -> dict:
    """A row whose goal is that ours is at most `goal` times the peer."""
    return {
        "job": job,
        "ours": round(ours, 4),
        "peer": round(peer, 4),
        "unit": unit,
        "ratio": round(ours / peer, 2),
        "goal": f"<= {goal:g}",
        "met": ours <= goal * peer,
    }


@app.command
@torch.no_grad()
def mixed(*, rounds: int = 5, out: Path = Path("results/mixed_batch.json")) -> None:
    """A skill of its own for each of 8 samples."""
    torch.set_num_threads(1)
    rows, details, load, exact = [], {}, os.getloadavg()[0], None
    with progress(2 * len(BANKS), "mixed_batch", unit="banks") as tick:
        for kind, goal in (("fp32", 1.25), ("bf16", 1.5)):
            base = load_base(dtype=kind)
            skills = random_skills(base, max(BANKS))
            peer = Peft(base, {})
            small: dict[int, float] = {}
            for count in BANKS:
                names = [f"s{k * count // BATCH}" for k in range(BATCH)]
                bank = SkillBank(base, {name: skills[name] for name in list(skills)[:count]})
                if count in LOADED:
                    peer.load(bank.skills)
                beside = peer if count in LOADED else None
                here, more = lora_part(bank, beside, names, f"{count} skills, {kind}", rounds, small)
                rows += here
                details |= more
                found = decode(bank, beside, names, rounds)
                rows.append(row(f"decode, {count} skills, {kind}", found, goal if beside else None))
                details[rows[-1]["job"]] = medians(found) | {"copies_mib": round(bank.store.bytes / 2**20, 1)}
                if count == BANKS[0]:
                    exact = agreement(bank, peer, names, exact, rows, details)
                tick(1, f"{count} skills, {kind}")
    write(out, "mixed_batch", f"python benchmarks/bank.py mixed --rounds {rounds}", rows, details, load)


def lora_part(bank: SkillBank, peer: Peft | None, names: Sequence[str], what: str, rounds: int, small: dict) -> tuple:
    """Rows of all linear layers without their frozen products."""
    rows, details, base = [], {}, bank.base
    for tokens in TOKENS:
        x = inputs(base, tokens)
        sides = {"ours": (lambda x=x: run(base.linears, x), lambda: bank.on(bank.choice(names)))}
        if peer:
            sides["peer"] = (lambda x=x: run(peer.layers, x, adapter_names=list(names)), nullcontext)
        with frozen_part_free(base, tokens):
            found = in_turn(sides, rounds)
        rows.append(row(f"LoRA part, {tokens} tokens, {what}", found, 4.0 if peer else None))
        details[rows[-1]["job"]] = medians(found) | {"copies_mib": round(bank.store.bytes / 2**20, 1)}
        cost = median(found["ours"]["cpu"])
        first = small.setdefault(tokens, cost)
        if len(bank.names) == max(BANKS):
            job = f"LoRA part, {tokens} tokens, {max(BANKS)} skills against {BANKS[0]} (ours both), {what[-4:]}"
            rows.append(compared(job, cost, first, "CPU ms", FLAT))
    return rows, details


def inputs(base: Base, tokens: int) -> dict[str, torch.Tensor]:
    """Random inputs of every linear layer."""
    draw = torch.Generator().manual_seed(SEED)
    shapes = {slot: (BATCH, tokens, layer.in_features) for slot, layer in base.linears.items()}
    return {slot: torch.randn(*shape, generator=draw).to(base.dtype) for slot, shape in shapes.items()}


def run(layers: Mapping[str, Callable], x: Mapping[str, torch.Tensor], **options) -> dict[str, torch.Tensor]:
    return {slot: layer(x[slot], **options) for slot, layer in layers.items()}


def decode(bank: SkillBank, peer: Peft | None, names: Sequence[str], rounds: int) -> dict:
    """Whole steps of one token a sample, with the key-value cache and the head."""
    base = bank.base
    draw = torch.Generator().manual_seed(SEED)
    read, step = (torch.randint(5, 2000, (BATCH, n), generator=draw) for n in (CONTEXT, 1))
    blocks = {"base": (base._body, nullcontext), "ours": (base._body, lambda: bank.on(bank.choice(names)))}
    if peer:
        blocks["peer"] = (peer.body, lambda: peer.mixed(names))
    sides, last = {}, {}
    for side, (body, block) in blocks.items():
        with block():
            state = body(input_ids=read, use_cache=True)
        last[side] = state.last_hidden_state[:, -1]

        def call(body=body, cache=state.past_key_values):
            out = body(input_ids=step, past_key_values=cache, use_cache=True)
            return base.logits(out.last_hidden_state[:, -1])

        sides[side] = (call, block)
    assert apart(last["ours"], last["base"]) > 0.05, "the skills change nothing"
    if peer and base.dtype == torch.float32:
        assert apart(last["ours"], last["peer"]) < 1e-4, "ours and PEFT's answers differ"
    return in_turn(sides, rounds)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """‖one - other‖ / ‖other‖."""
    return ((one.float() - other.float()).norm() / other.float().norm()).item()


def agreement(bank: SkillBank, peer: Peft, names: Sequence[str], exact, rows: list, details: dict) -> torch.Tensor:
    """Hidden states of a mixed batch in fp32; in bf16, a row of how far from them (`exact`) it is, beside a single adapter."""
    tokens = torch.randint(5, 2000, (BATCH, CONTEXT), generator=torch.Generator().manual_seed(SEED + 1))
    with bank.on(bank.choice(names)):
        ours = bank.base.hidden(tokens)
    if exact is None:
        return ours
    with peer.mixed(names):
        mixed = peer.body(input_ids=tokens, use_cache=False).last_hidden_state
    alone = []
    for i, name in enumerate(names):
        peer.peft.set_adapter(name)
        alone.append(peer.body(input_ids=tokens[i : i + 1], use_cache=False).last_hidden_state)
    job = "distance of bf16 from fp32, against a single PEFT adapter"
    rows.append(compared(job, apart(ours, exact), apart(torch.cat(alone), exact), "relative", RIGHT))
    details[job] = {"ours": apart(ours, exact), "PEFT mixed batch": apart(mixed, exact)}
    return exact


@app.command
@torch.no_grad()
def active(*, rounds: int = 3, out: Path = Path("results/all_active.json")) -> None:
    """8 skills for all rows: with constant strengths, and the 3 nearest for each token as in Arrow."""
    torch.set_num_threads(1)
    rows, details, load = [], {}, os.getloadavg()[0]
    base = load_base(dtype="fp32")
    bank = SkillBank(base, random_skills(base, BATCH))
    with progress(2 * len(TOKENS), "all_active", unit="jobs") as tick:
        peer = Peft(base, dict(bank.skills))
        peer.peft.base_model.set_adapter(list(bank.names), inference_mode=True)
        arrows, router = arrow(peer, bank)
        pairs = {
            "8 skills, constant strengths": (peer.layers, lambda: bank.on(torch.ones(BATCH))),
            "3 of 8 skills for each token": (arrows, lambda: bank.on(Routed(router))),
        }
        for tokens in TOKENS:
            x = inputs(base, tokens)
            for job, (layers, block) in pairs.items():
                check_equal(base, layers, block, x)
                sides = {"ours": (lambda x=x: run(base.linears, x), block),
                         "peer": (lambda x=x, layers=layers: run(layers, x), nullcontext)}  # fmt: skip
                with frozen_part_free(base, tokens):
                    found = in_turn(sides, rounds)
                rows.append(row(f"{job}, {tokens} tokens", found, 2.0))
                details[rows[-1]["job"]] = medians(found)
                tick(1, rows[-1]["job"])
    write(out, "all_active", f"python benchmarks/bank.py active --rounds {rounds}", rows, details, load)


def arrow(peer: Peft, bank: SkillBank) -> tuple[dict[str, Callable], Callable]:
    """PEFT's Arrow layers on the adapters of `peer`, called as its linear layers call them, and a router that does the same."""
    from peft import ArrowConfig
    from peft.tuners.lora.arrow import ArrowLoraLinearLayer

    layers, nearest = {}, {}
    for slot, layer in peer.layers.items():
        config = ArrowConfig(top_k=3)
        config.task_adapter_names, config.gks_adapter_names = list(bank.names), []
        routing = ArrowLoraLinearLayer(layer.in_features, config)
        routing.build_prototypes(layer.lora_A, layer.lora_B)
        nearest[slot] = routing.prototypes
        scaling = dict.fromkeys(bank.names, 1.0)

        def call(x, layer=layer, routing=routing, scaling=scaling):
            return layer.base_layer(x) + routing(x, layer.lora_A, layer.lora_B, torch.nn.Identity(), scaling)

        layers[slot] = call

    def router(x, slot):
        near, which = torch.topk((x @ nearest[slot].t()).abs(), 3, dim=1)
        return torch.zeros(len(x), len(bank.names)).scatter_(1, which, torch.softmax(near, 1))

    return layers, router


def check_equal(base: Base, layers: Mapping[str, Callable], block: Callable, x: Mapping[str, torch.Tensor]) -> None:
    """AssertionError unless some layers give the same on both sides, and not what the base gives."""
    for slot in list(base.linears)[::25]:
        with block():
            ours = base.linears[slot](x[slot])
        plain = base.linears[slot](x[slot])
        assert apart(ours, layers[slot](x[slot])) < 1e-4 < apart(ours, plain)


@app.command
def scales(*, rounds: int = 20, out: Path = Path("results/scales_step.json")) -> None:
    """An optimiser step on 8 strengths of one layer of 640 x 2048; the peer adds up the dense changes at each step (aTLAS).

    A step is forward, backward from a given gradient of the output, and Adam.
    """
    torch.set_num_threads(1)
    draw, load = torch.Generator().manual_seed(SEED), os.getloadavg()[0]
    base = TinyBase(16)
    slot, layer = next(iter(base.linears.items()))
    layer.weight = torch.nn.Parameter(torch.randn(2048, 640, generator=draw) / 640**0.5, requires_grad=False)
    layer.in_features, layer.out_features = 640, 2048
    base.linears = {slot: layer}
    bank = SkillBank(base, random_skills(base, BATCH))
    dense = torch.stack([skill.factors[slot].dense() for skill in bank.skills.values()])
    rows, details = [], {}
    for tokens, goal in ((8, 15.0), (128, None), (1024, 2.0)):
        x, above = (torch.randn(1, tokens, width, generator=draw) for width in (640, 2048))

        def ours(alpha, x=x):
            with bank.on(alpha):
                return layer(x)

        def peer(alpha, x=x):
            return F.linear(x, layer.weight + sum(change * strength for change, strength in zip(dense, alpha, strict=True)))

        def fused(alpha, x=x):
            return F.linear(x, layer.weight + torch.einsum("k,koi->oi", alpha, dense))

        sides = {"ours": ours, "peer": peer, "fused": fused}
        grads = {name: gradient(side, above) for name, side in sides.items()}
        assert all(apart(grad, grads["ours"]) < 1e-4 for grad in grads.values()) and grads["peer"].norm() > 0
        found = in_turn({name: (stepper(side, above), nullcontext) for name, side in sides.items()}, rounds)
        rows.append(row(f"step on 8 strengths, {tokens:,} tokens", found, goal))
        details[rows[-1]["job"]] = medians(found)
        rows.append(row(f"the same, the changes added up in one product, {tokens:,} tokens", found | {"peer": found["fused"]}))
    details["memory"] = {
        "factors_mib": round(sum(s.parameters for s in bank.skills.values()) * 4 / 2**20, 2),
        "dense_mib": round(dense.numel() * 4 / 2**20, 2),
    }
    write(out, "scales_step", f"python benchmarks/bank.py scales --rounds {rounds}", rows, details, load)


def gradient(side: Callable, above: torch.Tensor) -> torch.Tensor:
    alpha = torch.ones(BATCH, requires_grad=True)
    return torch.autograd.grad(side(alpha), alpha, above)[0]


def stepper(side: Callable, above: torch.Tensor) -> Callable[[], None]:
    alpha = torch.ones(BATCH, requires_grad=True)
    adam = torch.optim.Adam([alpha], 1e-2)

    def step() -> None:
        adam.zero_grad()
        side(alpha).backward(above)
        adam.step()

    return step


def write(out: Path, name: str, command: str, rows: Sequence[Mapping], details: Mapping, load: float) -> None:
    goals = [line["met"] for line in rows if line["met"] is not None]
    usage = resource.getrusage(resource.RUSAGE_SELF)
    write_result(
        out,
        name=name,
        kind="benchmark",
        command=command,
        seeds=[SEED],
        cpu_minutes=(usage.ru_utime + usage.ru_stime) / 60,
        verdict="holds" if all(goals) else "partly" if any(goals) else "does not hold",
        values={
            "rows": rows,
            "criterion": "every goal of the table, times in CPU milliseconds of one thread",
            "details": details,
            "peak_mib": round(usage.ru_maxrss / 1024),
            "load": {"before": round(load, 2), "after": round(os.getloadavg()[0], 2)},
        },
    )
    print(text(Table(tuple(rows[0]), tuple(tuple(line.values()) for line in rows))))


if __name__ == "__main__":
    app()
