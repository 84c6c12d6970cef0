"""The arithmetic of benchmarks/bank.py, and that what it takes out of both sides is the frozen product and nothing else."""

import importlib.util
from pathlib import Path

import pytest
import torch

from skillweave.bank import SkillBank

FILE = Path(__file__).resolve().parent.parent / "benchmarks" / "bank.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_bank", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ratios_are_taken_within_a_round(bench):
    found = {"ours": {"cpu": [1.0, 10.0, 1.0]}, "peer": {"cpu": [2.0, 60.0, 7.0]}}
    row = bench.row("step", found, 4.0)
    assert [row[key] for key in ("ours", "peer", "ratio", "goal", "met")] == [1, 7, 6, ">= 4", True]
    assert bench.row("step", found, 7.0)["met"] is False
    alone = bench.row("step", {"ours": found["ours"]})
    assert [alone[key] for key in ("peer", "ratio", "goal", "met")] == [None] * 4


def test_a_cost_may_grow_by_so_much(bench):
    assert bench.compared("flat", 12.0, 10.0, "ms", 1.25)["met"] and not bench.compared("flat", 13.0, 10.0, "ms", 1.25)["met"]


def test_only_the_frozen_product_is_taken_out(bench, tiny):
    bank = SkillBank(tiny, bench.random_skills(tiny, 3))
    x = bench.inputs(tiny, 2)
    with torch.no_grad():
        plain = bench.run(tiny.linears, x)
        with bank.on(bank.choice(["s0", "s1", "s2", None] * 2)):
            whole = bench.run(tiny.linears, x)
        with bench.frozen_part_free(tiny, 2) as ready:
            frozen = {slot: ready[layer.weight.data_ptr()].clone() for slot, layer in tiny.linears.items()}
            alone = {slot: y.clone() for slot, y in bench.run(tiny.linears, x).items()}  # what a peer's adapter is added to
            with bank.on(bank.choice(["s0", "s1", "s2", None] * 2)):
                part = bench.run(tiny.linears, x)
    for slot in tiny.linears:
        assert torch.equal(alone[slot], frozen[slot])
        assert torch.allclose(part[slot] - frozen[slot], whole[slot] - plain[slot], atol=1e-5)
        assert (whole[slot] - plain[slot]).abs().max() > 1e-3


def test_skills_of_the_benchmark_differ(bench, tiny):
    one, other = bench.random_skills(tiny, 2).values()
    slot = next(iter(tiny.linears))
    assert not torch.equal(one.factors[slot].a, other.factors[slot].a)
