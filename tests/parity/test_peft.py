"""PEFT reads what we write and gives the same logits; we read what PEFT writes and give the same logits."""

import pytest
import torch

from skillweave.bank import SkillBank
from skillweave.base import TinyBase
from skillweave.composition import Composition
from skillweave.delta import LowRank
from skillweave.errors import BadSkill
from skillweave.peft_format import load_adapter, save_adapter

peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # PEFT's own
TOKENS = torch.tensor([[1, 20, 30, 40, 50], [1, 9, 8, 7, 6]])


def ours(tiny, skill):
    with SkillBank(tiny, {"skill": skill}).on():
        return tiny.logits(tiny.hidden(TOKENS).flatten(0, 1))


def theirs(model):
    with torch.no_grad():
        return model(input_ids=TOKENS).logits.flatten(0, 1)


def equal(one, other):
    return torch.allclose(one, other, rtol=1e-5, atol=1e-5)


def shapes(tiny, random_skill):
    slots = list(tiny.linears)
    first, second = random_skill(tiny, 1, 2, slots[:9], 0.5), random_skill(tiny, 2, 5, slots[5:], 1.5)
    merged = Composition(("a", "b"), torch.rand(2, 3), random_skill(tiny, 3, 4)).merged(tiny, {"a": first, "b": second})
    return {
        "every layer alike": random_skill(tiny),
        "two layers": random_skill(tiny, 0, 3, [slots[0], slots[12]]),
        "unequal": LowRank({**first.factors, **second.factors}),
        "a composition": merged,
    }


@pytest.mark.parametrize("shape", ["every layer alike", "two layers", "unequal", "a composition"])
def test_peft_reads_what_we_write(tiny, random_skill, tmp_path, shape):
    skill = shapes(tiny, random_skill)[shape]
    save_adapter(tmp_path, skill, tiny.name)
    model = peft.PeftModel.from_pretrained(TinyBase(32).model, tmp_path)
    load = model.load_adapter(tmp_path, "again")
    assert (load.missing_keys, load.unexpected_keys) == ([], [])
    count = sum(tensor.numel() for name, tensor in model.named_parameters() if ".default." in name)
    assert count == skill.parameters
    wanted = ours(tiny, skill)
    assert equal(theirs(model), wanted)
    assert not torch.allclose(wanted, ours(tiny, LowRank({})), atol=1e-2)


def written(folder, **options):
    """An adapter that PEFT wrote, with weights that do something, and its model."""
    options = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options
    model = peft.get_peft_model(TinyBase(32).model, peft.LoraConfig(**options))
    draw = torch.Generator().manual_seed(0)
    for name, tensor in model.named_parameters():
        if "lora_" in name:
            tensor.data.copy_(torch.randn(tensor.shape, generator=draw) * 0.2)
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": r".*\.1\..*(up|down)_proj"},
        {"target_modules": ["up_proj"], "layers_to_transform": [0, 2]},
        {"use_rslora": True},
        {
            "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 7},
            "alpha_pattern": {"q_proj": 5, "^model.layers.0.mlp.up_proj": 9},
        },
        {"rank_pattern": {"v_proj": 3}, "alpha_pattern": {"v_proj": 1}, "use_rslora": True},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": False},
    ],
    ids=str,
)
def test_we_read_what_peft_writes(tiny, tmp_path, options):
    model = written(tmp_path, **options)
    skill = load_adapter(tmp_path)
    assert skill.parameters == sum(tensor.numel() for name, tensor in model.named_parameters() if "lora_" in name)
    assert equal(ours(tiny, skill), theirs(model))


def test_back_and_forth_changes_nothing(tiny, tmp_path):
    written(tmp_path / "theirs", rank_pattern={"q_proj": 2}, alpha_pattern={"q_proj": 5})
    skill = load_adapter(tmp_path / "theirs")
    save_adapter(tmp_path / "ours", skill, tiny.name)
    assert equal(theirs(peft.PeftModel.from_pretrained(TinyBase(32).model, tmp_path / "ours")), ours(tiny, skill))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "lora_only"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights"),
    ],
    ids=str,
)
def test_what_peft_does_besides_is_refused(tmp_path, options, word):
    written(tmp_path, **options)
    with pytest.raises(BadSkill, match=rf"uses (\w+, )*{word}"):
        load_adapter(tmp_path)


def test_other_adapters_are_refused(tmp_path):
    config = peft.IA3Config(target_modules=["q_proj", "up_proj"], feedforward_modules=["up_proj"], task_type="CAUSAL_LM")
    peft.get_peft_model(TinyBase(32).model, config).save_pretrained(tmp_path)
    with pytest.raises(BadSkill, match="type 'IA3'; only LORA is read"):
        load_adapter(tmp_path)


def test_a_lora_of_the_embeddings_is_refused(tmp_path):
    written(tmp_path, target_modules=["embed_tokens", "q_proj"])
    with pytest.raises(BadSkill, match="not a LoRA of a linear layer"):
        load_adapter(tmp_path)
