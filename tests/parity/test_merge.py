"""Our merges are PEFT's where PEFT works on the true change, and right where its other ways are not."""

import pytest
import torch

from skillweave.base import TinyBase
from skillweave.compose.sum import Sum
from skillweave.compose.thin import Magnitude, Ties
from skillweave.peft_format import save_adapter

peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # PEFT's own
WEIGHTS = (0.7, -0.4, 1.5)


@pytest.fixture(scope="module")
def skills(tiny, random_skill):
    return [random_skill(tiny, seed, 4, scale=0.5 + seed) for seed in range(3)]


@pytest.fixture(scope="module")
def model(skills, tmp_path_factory):
    """A PEFT model that has loaded the three from disk."""
    folder = tmp_path_factory.mktemp("adapters")
    for k, skill in enumerate(skills):
        save_adapter(folder / f"a{k}", skill, "tiny-32")
    model = peft.PeftModel.from_pretrained(TinyBase(32).model, folder / "a0", adapter_name="a0")
    for k in (1, 2):
        model.load_adapter(folder / f"a{k}", f"a{k}")
    return model


def theirs(model, name, weights=WEIGHTS, **options):
    """PEFT's merged change of every layer."""
    model.add_weighted_adapter(["a0", "a1", "a2"], list(weights), name, **options)
    layers = {n: m for n, m in model.base_model.model.named_modules() if hasattr(m, "lora_A") and name in m.lora_A}
    return {slot: module.get_delta_weight(name).detach() for slot, module in layers.items()}


def distance(merged, changes):
    off = sum(float((f.dense() - changes[slot]).square().sum()) for slot, f in merged.skill.factors.items())
    return (off / sum(float(change.square().sum()) for change in changes.values())) ** 0.5


@pytest.mark.parametrize("rank", [1, 5, 12])
def test_cut_sums(model, skills, rank):
    changes = theirs(model, f"svd{rank}", combination_type="svd", svd_rank=rank)
    assert distance(Sum(WEIGHTS, rank=rank).merge(skills), changes) < 2e-5


def test_exact_sums(model, skills):
    assert distance(Sum(WEIGHTS).merge(skills), theirs(model, "cat", combination_type="cat")) < 1e-6


@pytest.mark.parametrize("density", [0.25, 0.75])
def test_ties_of_each_layer(model, skills, density):
    """PEFT elects before it weighs, so the weights are 1 here."""
    changes = theirs(model, f"ties{density:.0%}", (1.0, 1.0, 1.0), combination_type="ties_svd", svd_rank=32, density=density)
    assert distance(Ties(energy=1.0, density=density, scope="layer").merge(skills), changes) < 1e-5


@pytest.mark.parametrize("density", [0.25, 0.75])
def test_magnitude_of_each_layer(model, skills, density):
    options = {"combination_type": "magnitude_prune_svd", "svd_rank": 32, "density": density}
    changes = theirs(model, f"magnitude{density:.0%}", **options)
    assert distance(Magnitude(WEIGHTS, energy=1.0, density=density, scope="layer").merge(skills), changes) < 1e-5


def test_what_peft_calls_linear_is_not(model, skills):
    """It adds the factors, so that every two adapters leave a cross term: far from the sum of the changes."""
    changes = theirs(model, "linear", (0.7, 0.4, 1.5), combination_type="linear")
    assert distance(Sum((0.7, 0.4, 1.5)).merge(skills), changes) > 0.5


@pytest.mark.parametrize("kind", ["rslora", "plain"])
def test_one_adapter_of_weight_one_is_itself(tmp_path, kind, tiny):
    """PEFT 0.21 gives an adapter with rslora back with another scale."""
    from skillweave.peft_format import load_adapter

    model = peft.get_peft_model(
        TinyBase(32).model, peft.LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj"], use_rslora=kind == "rslora")
    )
    for name, weight in model.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(weight)
    model.save_pretrained(tmp_path)
    skill = load_adapter(tmp_path)
    layers = {n: m for n, m in model.base_model.model.named_modules() if hasattr(m, "lora_A")}
    changes = {slot: module.get_delta_weight("default").detach() for slot, module in layers.items()}
    assert distance(Sum(energy=1.0).merge([skill]), changes) < 1e-5
