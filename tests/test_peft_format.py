"""Adapters on disk: what is written is read back, and what cannot be trusted is refused by name."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from skillweave.delta import Factors, LowRank
from skillweave.errors import BadSkill
from skillweave.peft_config import IDLE, READ, REFUSED
from skillweave.peft_format import load_adapter, save_adapter


@pytest.fixture
def skill(tiny, random_skill):
    """Layers of unequal rank and scale."""
    slots = list(tiny.linears)
    small, large = random_skill(tiny, 1, 2, slots[:9], 0.5), random_skill(tiny, 2, 5, slots[9:], 1.5)
    return LowRank({**small.factors, **large.factors})


@pytest.fixture
def adapter(tmp_path, skill):
    save_adapter(tmp_path / "date" / "adapter", skill, "tiny-32")
    return tmp_path / "date" / "adapter"


def rewrite(folder, **fields):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def with_tensors(folder, change):
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def test_what_is_written_is_read(adapter, skill):
    back = load_adapter(adapter)
    assert list(back.factors) == sorted(skill.factors)
    for slot, f in skill.factors.items():
        assert torch.equal(back.factors[slot].a, f.a) and torch.equal(back.factors[slot].b, f.b)
        assert back.factors[slot].scale == pytest.approx(f.scale, rel=1e-12)


@pytest.mark.parametrize("scale", [0.1, 1 / 3, 2.0])
def test_any_scale_survives(tmp_path, tiny, random_skill, scale):
    save_adapter(tmp_path, random_skill(tiny, 0, 7, scale=scale), "tiny-32")
    assert [f.scale for f in load_adapter(tmp_path).factors.values()] == [pytest.approx(scale, rel=1e-12)] * 21


def test_the_same_skill_gives_the_same_bytes(tmp_path, adapter, skill):
    save_adapter(tmp_path / "again", skill, "tiny-32")
    for file in adapter.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_a_trained_skill_is_written_in_single_precision(tmp_path):
    f = Factors(torch.ones(1, 4, dtype=torch.bfloat16, requires_grad=True), torch.ones(4, 1, dtype=torch.bfloat16))
    save_adapter(tmp_path, LowRank({"layers.0.x": f}), "any")
    assert load_adapter(tmp_path).factors["layers.0.x"].a.dtype == torch.float32


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"use_dora": True}, r"tensors of `model\.\S+` in `date` are not those of its configuration: .*\(magnitude\)"),
        ({"lora_bias": True}, r"not those of its configuration: .*\(bias\)"),
        ({"lora_bias": True, "use_dora": True}, "lora_bias and use_dora of PEFT at once"),
        ({"bias": "all"}, "`date` uses bias of PEFT, which replaces biases of the base"),
        ({"layer_replication": [[0, 2]], "use_qalora": True}, "uses layer_replication, use_qalora of PEFT.*a deeper model"),
        ({"target_modules": None}, "target_modules of `date` is None, which it cannot be"),
        ({"target_modules": "(a+)+"}, "a pattern in the configuration of `date` cannot be used: it repeats a repeat"),
        ({"exclude_modules": "("}, "a pattern in the configuration of `date` cannot be used: missing"),
        ({"use_rslora": "yes"}, "use_rslora of `date` is 'yes', which it cannot be"),
        ({"r": 2.5}, "r of `date` is 2.5, which it cannot be"),
        ({"invented": 1, "another": [0]}, "`date` uses another, invented of PEFT, which would not be read rightly"),
        ({"init_lora_weights": "pissa_niter_4"}, "uses init_lora_weights of PEFT"),
        ({"init_lora_weights": "olora"}, "uses init_lora_weights of PEFT"),
        ({"trainable_token_indices": [-1]}, r"trainable_token_indices of `date` is \[-1\], which it cannot be"),
        ({"peft_type": "IA3"}, "an adapter of type 'IA3'; only LORA is read"),
        ({"peft_type": None}, "an adapter of type None"),
        ({"alpha_pattern": {}, "lora_alpha": "much"}, "lora_alpha or alpha_pattern of `date`"),
        ({"alpha_pattern": {}, "lora_alpha": None}, "lora_alpha or alpha_pattern of `date`"),
        ({"alpha_pattern": {}, "lora_alpha": float("nan")}, "lora_alpha or alpha_pattern of `date`"),
        ({"alpha_pattern": {"(": 3}}, "lora_alpha or alpha_pattern of `date`"),
        ({"alpha_pattern": {".*up_proj": [3]}}, "lora_alpha or alpha_pattern of `date`"),
        ({"alpha_pattern": [3]}, "lora_alpha or alpha_pattern of `date`"),
        ({"alpha_pattern": {"(a+)+$": 3}}, "lora_alpha or alpha_pattern of `date`"),
        ({"alpha_pattern": {}, "lora_alpha": "6"}, "lora_alpha or alpha_pattern of `date`"),
        ({"alpha_pattern": {}, "lora_alpha": True}, "lora_alpha or alpha_pattern of `date`"),
        *(({field: {"x": 1}}, f"`date` uses {field} of PEFT, .*: it {re.escape(why)}") for field, why in REFUSED.items()),
    ],
)
def test_what_would_not_be_read_rightly_is_refused(adapter, fields, words):
    rewrite(adapter, **fields)
    with pytest.raises(BadSkill, match=words):
        load_adapter(adapter, "date")


def test_empty_fields_that_are_not_known_are_let_through(adapter):
    rewrite(adapter, invented=None, another=False, third={}, fourth=[], **dict.fromkeys(REFUSED))
    assert load_adapter(adapter).rank == 5


def test_a_field_that_is_there_twice_is_refused(adapter):
    file = adapter / "adapter_config.json"
    file.write_text(file.read_text().rstrip()[:-1] + ', "lora_alpha": 1}')
    with pytest.raises(BadSkill, match="adapter_config.json of `date` is not JSON: a field is there twice"):
        load_adapter(adapter, "date")


@pytest.mark.parametrize("init", [True, False, "gaussian", "orthogonal"])
def test_starts_that_leave_the_base_alone_are_read(adapter, init):
    rewrite(adapter, init_lora_weights=init)
    assert load_adapter(adapter).rank == 5


def first(tensors, side="A"):
    return next(key for key in sorted(tensors) if f"lora_{side}" in key)


def spoil(value):
    def change(tensors):
        tensors[first(tensors)][0, 0] = value

    return change


def rename(tensors):
    tensors["base_model.model.model.embed_tokens.lora_embedding_A"] = tensors.pop(first(tensors))


def flatten(tensors):
    tensors[first(tensors)] = tensors[first(tensors)].flatten()


def shorten(tensors):
    tensors[first(tensors)] = tensors[first(tensors)][:1].contiguous()


def empty(tensors):
    for side in "AB":
        key = first(tensors, side)
        tensors[key] = tensors[key][:0] if side == "A" else tensors[key][:, :0].contiguous()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (spoil(float("nan")), r"values that are not finite in `model\.layers\.0\.mlp\.down_proj\.lora_A\.weight`"),
        (spoil(float("inf")), "not finite"),
        (
            lambda tensors: tensors.pop(first(tensors, "B")),
            r"only one of the two factors of `model\.layers\.0\.mlp\.down_proj`",
        ),
        (lambda tensors: tensors.pop(first(tensors, "A")), "only one of the two factors"),
        (rename, "only one of the two factors of `model.embed_tokens`"),
        (lambda tensors: tensors.update({"any": torch.zeros(2)}), r"holds `any`, which its configuration does not account for"),
        (
            lambda tensors: tensors.update({"base_model.model.lm_head.weight": torch.zeros(2)}),
            "holds `base_model.model.lm_head.weight`, which its .*resized vocabulary",
        ),
        (
            lambda tensors: tensors.update(
                {first(tensors).replace("weight", "default.weight"): tensors[first(tensors)].clone()}
            ),
            "twice, under two names",
        ),
        (lambda tensors: tensors.update({first(tensors): tensors[first(tensors)].int()}), "is in int32, not in 16 or 32 bit"),
        (flatten, r"factors of `model.layers.0.mlp.down_proj` in `date` do not fit: \(32, 2\) and \(160,\)"),
        (shorten, r"do not fit: \(32, 2\) and \(1, 80\)"),
        (empty, r"do not fit: \(32, 0\) and \(0, 80\)"),
        (dict.clear, "holds no weights"),
    ],
)
def test_weights_that_cannot_be_trusted_are_refused(adapter, change, words):
    with_tensors(adapter, change)
    with pytest.raises(BadSkill, match=words):
        load_adapter(adapter, "date")


def test_files_that_are_not_what_they_should_be(adapter):
    weights, config = adapter / "adapter_model.safetensors", adapter / "adapter_config.json"
    data = weights.read_bytes()
    for cut in (0, 5, 100, len(data) - 1):
        weights.write_bytes(data[:cut])
        with pytest.raises(BadSkill, match="the adapter of `adapter` is corrupt: .*fetch or learn it again"):
            load_adapter(adapter)
    weights.rename(adapter / "adapter_model.bin")
    with pytest.raises(BadSkill, match="has no adapter_model.safetensors.*a pickle can run code"):
        load_adapter(adapter, "date")
    for text in ("{", "\xff"):
        config.write_bytes(text.encode("latin-1"))
        with pytest.raises(BadSkill, match="adapter_config.json of `date` is not JSON"):
            load_adapter(adapter, "date")
    config.write_text("[]")
    with pytest.raises(BadSkill, match="type 'list'"):
        load_adapter(adapter, "date")
    config.unlink()
    with pytest.raises(BadSkill, match="`date` has no adapter_config.json"):
        load_adapter(adapter, "date")


def test_patterns_name_one_layer_each(adapter, skill):
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert len(config["rank_pattern"]) == 9
    assert config["target_modules"] == sorted(skill.factors)
    assert config["base_model_name_or_path"] == "tiny-32"


def test_the_guide_says_what_is_done_with_every_field():
    page = (Path(__file__).resolve().parent.parent / "docs" / "guides" / "adapters.md").read_text(encoding="utf-8")
    table = page.split("<!-- fields -->\n")[1].split("<!-- /fields -->")[0].strip().splitlines()[2:]
    rows = [f"| `{field}` | read | {what} |" for field, what in READ.items()]
    rows += [f"| `{field}` | refused | it {why} |" for field, why in REFUSED.items()]
    rows += [f"| {', '.join(f'`{field}`' for field in sorted(IDLE))} | no effect | |"]
    assert table == rows
