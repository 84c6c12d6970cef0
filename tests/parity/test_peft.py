"""PEFT reads what we write and gives the same logits; we read what PEFT writes and give the same logits."""

import pytest
import torch

from skillweave.bank import SkillBank
from skillweave.base import TinyBase
from skillweave.composition import Composition
from skillweave.delta import LowRank
from skillweave.errors import BadSkill
from skillweave.peft_format import load_adapter, save_adapter
from skillweave.strength import PerSample

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


def mixed(tiny, random_skill, folder):
    """Three adapters of ranks 2, 5 and 2 (the last on some layers), in a bank and in a PEFT model."""
    slots = list(tiny.linears)
    skills = {
        "a": random_skill(tiny, 1, 2),
        "b": random_skill(tiny, 2, 5, scale=1.5),
        "c": random_skill(tiny, 3, 2, slots[3:9]),
    }
    for name, skill in skills.items():
        save_adapter(folder / name, skill, tiny.name)
    model = peft.PeftModel.from_pretrained(TinyBase(32).model, folder / "a", adapter_name="a")
    for name in ("b", "c"):
        model.load_adapter(folder / name, name)
    return SkillBank(tiny, skills), model.eval()


@pytest.mark.parametrize("names", ["abc", "ccbbaa", "_a_b", "aaaaaaab", "____"])
def test_a_mixed_batch_is_that_of_peft(tiny, random_skill, tmp_path, names):
    bank, model = mixed(tiny, random_skill, tmp_path)
    tokens = torch.randint(4, 90, (len(names), 6), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = model(input_ids=tokens, adapter_names=["__base__" if n == "_" else n for n in names]).logits
    with bank.on(bank.choice([None if n == "_" else n for n in names])):
        assert equal(tiny.logits(tiny.hidden(tokens).flatten(0, 1)), wanted.flatten(0, 1))


def test_several_adapters_at_once_are_those_of_peft(tiny, random_skill, tmp_path):
    bank, model = mixed(tiny, random_skill, tmp_path)
    model.base_model.set_adapter(["a", "b", "c"])
    wanted = theirs(model)  # outside the blocks: its layers came from a Base, and would compute with our skills too
    for strength in (PerSample(torch.ones(2, 3)), torch.ones(3)):
        with bank.on(strength):
            assert equal(tiny.logits(tiny.hidden(TOKENS).flatten(0, 1)), wanted)


@pytest.mark.parametrize("time", [3, 40])
def test_bf16_is_as_right_as_one_adapter_of_peft(random_skill, tmp_path, time):
    """Against fp32 on the same weights; PEFT's own mixed batch, which rounds twice, is no measure."""
    exact, base = TinyBase(64), TinyBase(64)
    base.model.bfloat16()
    base.dtype = torch.bfloat16
    exact.model.load_state_dict({name: tensor.float() for name, tensor in base.model.state_dict().items()})
    skills = {name: random_skill(base, seed, 4) for seed, name in enumerate("abcd")}
    tokens = torch.randint(4, 90, (4, time), generator=torch.Generator().manual_seed(1))
    wanted, peers = [], []
    for i, (name, skill) in enumerate(skills.items()):
        with SkillBank(exact, {name: skill}).on():
            wanted.append(exact.hidden(tokens[i : i + 1]))
        save_adapter(tmp_path / name, skill, base.name)
        plain = TinyBase(64).model.bfloat16()
        model = peft.PeftModel.from_pretrained(plain, tmp_path / name).eval()
        with torch.no_grad():
            peers.append(model.base_model.model.model(input_ids=tokens[i : i + 1]).last_hidden_state)
    bank = SkillBank(base, skills)
    with bank.on(bank.choice("abcd")):
        ours = base.hidden(tokens).float()
    wanted = torch.cat(wanted)
    assert 0 < (ours - wanted).norm() <= 1.2 * (torch.cat(peers).float() - wanted).norm()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"bias": "lora_only"}, "bias"),
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
