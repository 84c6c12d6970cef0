"""Every kind of adapter that PEFT writes and we read gives PEFT's logits; what we write of it, PEFT loads, key by key."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from skillweave.bank import SkillBank
from skillweave.base import ALPHABET, Base, CharTokenizer
from skillweave.calibration import Shares
from skillweave.compose.merge import merge
from skillweave.delta import LowRank, weighted_sum
from skillweave.errors import BadOption, BadSkill, BaseMismatch
from skillweave.fitting import row_norms
from skillweave.learn.loss import mean_loss
from skillweave.peft_check import check_on
from skillweave.peft_format import load_adapter, read_adapter, save_adapter
from skillweave.strength import PerSample, PerToken, Routed
from skillweave.task import Example

peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # PEFT's own
TOKENS = torch.tensor([[1, 20, 30, 40, 50], [1, 9, 8, 7, 6]])
SMALL = {"vocab_size": 99, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def raw(kind: str):
    """A tiny model; the same weights each time."""
    import transformers

    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, **SMALL)
        model = transformers.GPT2LMHeadModel(config)
    else:
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
                 "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 64}  # fmt: skip
        if kind == "gemma":
            config = transformers.Gemma3TextConfig(
                **SMALL, **sizes, tie_word_embeddings=True, final_logit_softcapping=20.0, sliding_window=32
            )
            model = transformers.Gemma3ForCausalLM(config)
        else:
            config = transformers.LlamaConfig(**SMALL, **sizes, tie_word_embeddings=kind == "tied")
            model = transformers.LlamaForCausalLM(config)
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            weight.data.mul_(3 if "embed" in name or "wte" in name else 6)
        elif name.endswith("bias"):
            weight.data.normal_()
    return model.eval()


@pytest.fixture(scope="module")
def bases():
    return {kind: Base(kind, kind, raw(kind), CharTokenizer(ALPHABET)) for kind in ("llama", "tied", "gemma", "gpt2")}


def ours(base, *skills, alpha=None):
    with torch.no_grad(), SkillBank(base, {f"s{k}": skill for k, skill in enumerate(skills)}).on(alpha):
        return base.logits(base.hidden(TOKENS).flatten(0, 1))


def theirs(model):
    with torch.no_grad():
        return model(input_ids=TOKENS).logits.flatten(0, 1)


def close(one, other):
    return torch.allclose(one, other, rtol=1e-5, atol=1e-5 * other.abs().max().item())


def written(folder, kind, noise=0.2, **options):
    """An adapter that PEFT wrote, with weights that do something, and PEFT's model."""
    chosen = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options
    model = peft.get_peft_model(raw(kind), peft.LoraConfig(**chosen))
    draw = torch.Generator().manual_seed(0)
    for name, tensor in model.named_parameters():
        if any(word in name for word in ("lora_", "modules_to_save", "trainable_tokens_delta")):
            change = torch.randn(tensor.shape, generator=draw) * noise
            own = any(word in name for word in ("magnitude", "modules_to_save", "trainable_tokens_delta"))
            tensor.data.copy_(tensor * (1 + change) if own else change)
    model.save_pretrained(folder)
    return model.eval()


KINDS = {
    "plain": ("llama", {}),
    "rank and alpha patterns, rslora": (
        "llama",
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"up_proj": 9}, "use_rslora": True},
    ),
    "biases": ("llama", {"lora_bias": True}),
    "biases on GPT-2": ("gpt2", {"lora_bias": True, "target_modules": ["c_attn", "c_proj"], "use_rslora": True}),
    "GPT-2": ("gpt2", {"target_modules": ["c_attn", "c_fc", "c_proj"], "rank_pattern": {"c_attn": 2}}),
    "DoRA": ("llama", {"use_dora": True}),
    "DoRA on Gemma": ("gemma", {"use_dora": True, "rank_pattern": {"q_proj": 2}}),
    "DoRA on GPT-2": ("gpt2", {"use_dora": True, "target_modules": ["c_attn", "c_fc"]}),
    "a new head": ("llama", {"modules_to_save": ["lm_head"]}),
    "a new head, tied": ("tied", {"modules_to_save": ["lm_head"]}),
    "new embeddings": ("llama", {"modules_to_save": ["embed_tokens"]}),
    "new embeddings on Gemma": ("gemma", {"modules_to_save": ["embed_tokens"]}),
    "a new layer": ("llama", {"modules_to_save": ["o_proj"], "target_modules": ["q_proj", "o_proj"]}),
    "a new layer on GPT-2": ("gpt2", {"modules_to_save": ["c_fc"], "target_modules": ["c_attn"]}),
    "LoRA of the embeddings": ("llama", {"target_modules": ["embed_tokens", "q_proj"]}),
    "LoRA of the embeddings on Gemma": ("gemma", {"target_modules": ["embed_tokens", "q_proj"], "rank_pattern": {"q_proj": 3}}),
    "LoRA of the embeddings on GPT-2": ("gpt2", {"target_modules": ["wte", "c_attn"]}),
    "LoRA of the head": ("llama", {"target_modules": ["lm_head", "q_proj"]}),
    "LoRA of the head, tied": ("tied", {"target_modules": ["lm_head", "q_proj"]}),
    "LoRA of the head on Gemma": ("gemma", {"target_modules": ["lm_head", "embed_tokens", "v_proj"]}),
    "DoRA of the head": ("llama", {"target_modules": ["lm_head", "q_proj"], "use_dora": True}),
    "bias of the head": ("llama", {"target_modules": ["lm_head", "q_proj"], "lora_bias": True}),
    "new tokens": ("llama", {"trainable_token_indices": [20, 5, 50]}),
    "new tokens, tied": ("tied", {"trainable_token_indices": [30, 5]}),
    "new tokens on Gemma": ("gemma", {"trainable_token_indices": {"embed_tokens": [9, 3, 30]}}),
    "layers": ("llama", {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1], "layers_pattern": "layers"}),
    "all but some": ("llama", {"target_modules": ["q_proj", "v_proj"], "exclude_modules": ["layers.0.self_attn.q_proj"]}),
    "a regular expression": ("llama", {"target_modules": r".*\.1\..*(up|down)_proj"}),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_peft_writes_gives_its_logits(bases, tmp_path, name):
    kind, options = KINDS[name]
    wanted = theirs(written(tmp_path, kind, **options))
    adapter = read_adapter(tmp_path)
    moved = check_on(bases[kind], adapter)
    assert moved.layers == len(adapter.skill.factors) and moved.shift > 0.01
    assert close(ours(bases[kind], adapter.skill), wanted)
    assert not torch.allclose(wanted, ours(bases[kind]), atol=1e-2)


def into_peft(folder, kind):
    """PEFT's model of an adapter, and the keys that it missed or had no place for."""
    config = peft.PeftConfig.from_pretrained(folder)
    model = peft.get_peft_model(raw(kind), config)
    load = peft.set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
    marks = ("lora_", "modules_to_save", "trainable_tokens_delta")
    return model.eval(), [key for key in load.missing_keys if any(mark in key for mark in marks)], load.unexpected_keys


@pytest.mark.parametrize("name", KINDS)
def test_what_we_write_peft_loads_key_by_key(bases, tmp_path, name):
    kind, options = KINDS[name]
    wanted = theirs(written(tmp_path / "theirs", kind, **options))
    save_adapter(tmp_path / "ours", load_adapter(tmp_path / "theirs"), kind)
    model, missing, unexpected = into_peft(tmp_path / "ours", kind)
    assert unexpected == []
    assert missing == [key for key in into_peft(tmp_path / "theirs", kind)[1] if "lm_head.token_adapter" in key]  # is tied
    assert close(theirs(model), wanted)
    assert close(theirs(peft.PeftModel.from_pretrained(raw(kind), tmp_path / "ours").eval()), wanted)
    back = read_adapter(tmp_path / "ours")
    check_on(bases[kind], back)
    assert close(ours(bases[kind], back.skill), wanted)


# where PEFT itself goes wrong (0.21.2): ours is right, or refuses


def difference(one, other):
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize(
    ("options", "error"), [({"use_rslora": True}, 0.3), ({"lora_bias": True}, 0.05), ({"use_dora": True}, 0.05)]
)
def test_one_adapter_at_weight_one_is_itself(bases, tmp_path, options, error):
    model = written(tmp_path, "llama", **options)
    wanted = theirs(model)
    model.add_weighted_adapter(["default"], [1.0], "merged", combination_type="linear")
    model.set_adapter("merged")
    assert difference(theirs(model), wanted) > error  # PEFT's own merge of the one adapter
    skill = load_adapter(tmp_path)
    if "use_dora" in options:
        with pytest.raises(BadOption, match="a DoRA adapter cannot be scaled, compared or added"):
            weighted_sum([(skill, dict.fromkeys(skill.factors, 1.0))])
    else:
        merged = weighted_sum([(skill, dict.fromkeys(skill.factors, 1.0))])
        assert close(ours(bases["llama"], merged), wanted)
        cut = merge([skill, skill], [0.5, 0.5], rank=4).skill
        assert difference(ours(bases["llama"], cut), wanted) < 1e-4


def test_biases_add_up_with_their_weights(bases, tmp_path):
    written(tmp_path, "llama", lora_bias=True)
    skill = load_adapter(tmp_path)
    plain = LowRank({slot: replace(f, bias=None) for slot, f in skill.factors.items()})
    both = weighted_sum([(skill, dict.fromkeys(skill.factors, 0.5)), (plain, dict.fromkeys(skill.factors, 0.25))])
    slot = next(iter(skill.factors))
    assert torch.allclose(both.factors[slot].bias, skill.factors[slot].bias * skill.factors[slot].scale * 0.5)
    alpha = torch.tensor([[0.5, 0.5], [0.25, 0.25]])
    assert close(ours(bases["llama"], both), ours(bases["llama"], skill, plain, alpha=alpha))


def test_what_replaces_has_no_sum(tmp_path):
    written(tmp_path, "llama", modules_to_save=["lm_head"])
    skill = load_adapter(tmp_path)
    for call in (skill.check_sum, lambda: skill.scaled(2.0), lambda: merge([skill], [1.0])):
        with pytest.raises(BadOption, match=r"replaces lm_head\.weight cannot be scaled or added"):
            call()


def test_two_owners_of_one_weight_are_refused(bases, tmp_path):
    written(tmp_path, "llama", modules_to_save=["lm_head"])
    skill = load_adapter(tmp_path)
    with pytest.raises(BaseMismatch, match=r"`a` and `b` both replace `lm_head.weight`"):
        SkillBank(bases["llama"], {"a": skill, "b": skill})


def test_what_replaces_is_on_or_off(bases, tmp_path):
    base = bases["llama"]
    written(tmp_path, "llama", modules_to_save=["lm_head"])
    skill = load_adapter(tmp_path)
    assert torch.equal(ours(base, skill, alpha=torch.zeros(1, 2)), ours(base))
    with pytest.raises(BadOption, match="replaces `lm_head.weight`: it can be on or off"):
        ours(base, skill, alpha=torch.full((1, 2), 0.5))


def test_two_dora_adapters_add_up_in_any_order(bases, tmp_path):
    """PEFT's two active DoRAs depend on the order; ours are the sum of the changes that each one makes alone."""
    base = bases["llama"]
    skills = []
    for k in range(2):
        written(tmp_path / str(k), "llama", noise=0.1 + 0.1 * k, use_dora=True, target_modules=["q_proj", "up_proj"])
        skills.append(load_adapter(tmp_path / str(k)))
    dense = raw("llama")
    for slot in skills[0].factors:
        weight = dense.get_submodule(slot).weight.data
        old = weight.clone()
        for k, f in enumerate(f.factors[slot] for f in skills):
            moved = old + f.scale * f.b @ f.a
            weight += (0.5, 2.0)[k] * (f.magnitude[:, None] * moved / moved.norm(dim=1, keepdim=True) - old)
    alpha = torch.tensor([[0.5, 0.5], [2.0, 2.0]])
    assert close(ours(base, *skills, alpha=alpha), theirs(dense))
    assert close(ours(base, *skills[::-1], alpha=alpha.flip(0)), theirs(dense))


def test_a_dora_joins_plain_skills(bases, tmp_path):
    base = bases["gpt2"]
    model = written(tmp_path / "plain", "gpt2", target_modules=["c_attn"])
    written(tmp_path / "dora", "gpt2", target_modules=["c_fc"], use_dora=True)
    model.load_adapter(tmp_path / "dora", "dora")
    model.base_model.set_adapter(["default", "dora"])
    assert close(ours(base, load_adapter(tmp_path / "plain"), load_adapter(tmp_path / "dora")), theirs(model))


def test_the_length_of_rows_is_taken_in_the_factors(bases, tmp_path):
    written(tmp_path, "llama", use_dora=True)
    for slot, f in load_adapter(tmp_path).factors.items():
        weight = bases["llama"].linears[slot].matrix
        assert torch.allclose(row_norms(weight, f), (weight + f.scale * f.b @ f.a).norm(dim=1), rtol=1e-6)


def test_overlapping_patterns_are_no_trap(bases, tmp_path):
    """PEFT sorts the patterns as it saves them, so its own reload expects other ranks; the tensors know."""
    options = {"rank_pattern": {"q_proj": 4, "0.self_attn.q_proj": 2}, "r": 3, "target_modules": ["q_proj"]}
    wanted = theirs(written(tmp_path, "llama", **options))
    with pytest.raises(RuntimeError, match="size mismatch"):
        peft.PeftModel.from_pretrained(raw("llama"), tmp_path)
    skill = load_adapter(tmp_path)
    assert close(ours(bases["llama"], skill), wanted)
    save_adapter(tmp_path / "ours", skill, "llama")
    assert close(theirs(peft.PeftModel.from_pretrained(raw("llama"), tmp_path / "ours")), wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_adapters_in_sixteen_bits(bases, tmp_path, dtype):
    written(tmp_path, "llama", use_dora=True)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    save_file({key: tensor.to(dtype) for key, tensor in tensors.items()}, tmp_path / "adapter_model.safetensors")
    model = peft.PeftModel.from_pretrained(raw("llama"), tmp_path)
    assert close(ours(bases["llama"], load_adapter(tmp_path)), theirs(model))


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"target_modules": ["embed_tokens", "q_proj"]}], ids=str)
def test_keys_with_the_name_of_the_adapter(bases, tmp_path, options):
    wanted = theirs(written(tmp_path, "llama", **options))
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    renamed = {}
    for key, tensor in tensors.items():
        named = key.replace("lora_A.", "lora_A.default.").replace("lora_B.", "lora_B.default.")
        named += ".default" if key.endswith(("_A", "_B", "magnitude_vector")) else ""
        renamed[named] = tensor
    assert renamed.keys() != tensors.keys()
    save_file(renamed, tmp_path / "adapter_model.safetensors")
    assert close(ours(bases["llama"], load_adapter(tmp_path)), wanted)


def test_a_tied_head_is_not_merged_into_the_embeddings(bases, tmp_path):
    base = bases["tied"]
    wanted = theirs(written(tmp_path, "tied", target_modules=["lm_head", "q_proj"]))
    before = {name: weight.clone() for name, weight in base.model.named_parameters()}
    assert close(ours(base, load_adapter(tmp_path)), wanted)
    assert all(torch.equal(before[name], weight) for name, weight in base.model.named_parameters())


@pytest.mark.parametrize("name", ["new tokens, tied", "LoRA of the head", "a new head", "DoRA of the head", "bias of the head"])
def test_logits_of_chosen_tokens(bases, tmp_path, name):
    kind, options = KINDS[name]
    written(tmp_path, kind, **options)
    base, chosen = bases[kind], torch.tensor([30, 3, 5, 5])
    with torch.no_grad(), SkillBank(base, {"s": load_adapter(tmp_path)}).on():
        rows = base.hidden(TOKENS).flatten(0, 1)
        whole = base.logits(rows)
        assert torch.allclose(base.logits(rows, chosen), whole[:, chosen], atol=1e-4)
        assert torch.allclose(base.logits(rows, slice(4, 40)), whole[:, 4:40], atol=1e-4)


def test_a_loss_is_not_taken_past_a_changed_head(bases, tmp_path):
    written(tmp_path, "llama", target_modules=["lm_head", "q_proj"])
    bank = SkillBank(bases["llama"], {"s": load_adapter(tmp_path)})
    with pytest.raises(BadOption, match="`s` changes the head"):
        mean_loss(bank, [Example("a", "b")])


# what does not do what it says


def spoil(folder, change):
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors = change(tensors) or tensors
    save_file(tensors, folder / "adapter_model.safetensors")


def zero(part):
    return lambda tensors: {k: torch.zeros_like(v) if part in k else v for k, v in tensors.items()}


def renamed(old, new):
    return lambda tensors: {k.replace(old, new): v for k, v in tensors.items()}


def without(part):
    return lambda tensors: {k: v for k, v in tensors.items() if part not in k}


@pytest.mark.parametrize(
    ("options", "change", "words"),
    [
        ({}, zero("lora_B"), r"does not change `model.layers.0.mlp.down_proj`, .* and 11 more: its weights there are zero"),
        ({}, zero("layers.1.mlp.up_proj.lora_B"), "does not change `model.layers.1.mlp.up_proj`: its"),
        ({}, renamed("layers", "blocks"), r"no layer of `\w+` is one of llama: it changes `model.blocks.0.mlp.down_proj`"),
        ({}, renamed("layers.1", "layers.7"), r"changes `model.layers.7.mlp.down_proj`, .* and 4 more, not to be found"),
        ({}, without("layers.1.mlp"), "says that it changes `model.layers.1.mlp.down_proj`, .*, but has no weights"),
        ({"modules_to_save": ["lm_head"]}, without("lm_head"), "says that it replaces `lm_head`, but has no weights"),
        ({"trainable_token_indices": [3]}, without("token_adapter"), "lacks the rows of trainable_token_indices"),
        ({"trainable_token_indices": [3, 4]}, lambda t: {k: v[:1].clone() if "token_adapter" in k else v for k, v in t.items()},
         r"new rows for `model.embed_tokens`, \(1, 32\), that trainable_token_indices does not"),
        ({"lora_bias": True}, without("layers.0.mlp.up_proj.lora_B.bias"), "not those of its configuration.*bias"),
        ({"use_dora": True}, without("layers.0.mlp.up_proj.lora_mag"), "not those of its configuration.*magnitude"),
        ({"target_modules": ["lm_head"]}, lambda t: {k: v + 1 if "base_layer" in k else v for k, v in t.items()},
         "holds a copy of `lm_head` of its base, and that of llama is another"),
        ({"modules_to_save": ["norm"]}, None, r"replaces `model.layers.0.input_layernorm.weight`, which is not the weight"),
        ({"target_modules": ["embed_tokens"], "use_dora": True}, None, "is a DoRA, or has biases, on the embeddings"),
    ],
)  # fmt: skip
def test_what_does_not_do_what_it_says_is_refused(bases, tmp_path, options, change, words):
    written(tmp_path, "llama", **options)
    if change:
        spoil(tmp_path, change)
    with pytest.raises((BadSkill, BaseMismatch), match=words) as caught:
        check_on(bases["llama"], read_adapter(tmp_path))
    assert caught.value.message.endswith(".")


def test_another_base_is_refused_by_its_shapes(bases, tmp_path):
    written(tmp_path, "gemma", target_modules=["q_proj"], r=2)
    spoil(tmp_path, lambda tensors: {k: v[:, :-1].clone() if "lora_A" in k else v for k, v in tensors.items()})
    with pytest.raises(BaseMismatch, match=r"has a change of 32 x 31 for `model.layers.0.self_attn.q_proj`, which is 32 x 32"):
        check_on(bases["llama"], read_adapter(tmp_path))


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_2", "olora", "loftq", "corda", "lora_ga"])
def test_starts_that_take_from_the_base_are_refused(tmp_path, init):
    real = {"init_lora_weights": init} if init[:2] in ("pi", "ol") else {}  # the others need data or another base
    written(tmp_path, "llama", target_modules=["q_proj"], **real)
    config = json.loads((tmp_path / "adapter_config.json").read_text()) | {"init_lora_weights": init}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(
        BadSkill, match=rf"uses init_lora_weights of PEFT \('{init}'\).*path_initial_model_for_weight_conversion"
    ):
        load_adapter(tmp_path)


def test_a_converted_pissa_is_a_plain_lora(bases, tmp_path):
    model = peft.get_peft_model(
        raw("llama"),
        peft.LoraConfig(r=4, lora_alpha=6, init_lora_weights="pissa", target_modules=["q_proj"], task_type="CAUSAL_LM"),
    )
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "start")
    model.peft_config["default"].init_lora_weights = "pissa"
    for name, tensor in model.named_parameters():
        tensor.data += 0.1 * ("lora_" in name)
    wanted = theirs(model.eval())
    model.save_pretrained(tmp_path / "whole", path_initial_model_for_weight_conversion=tmp_path / "start")
    adapter = read_adapter(tmp_path / "whole")
    check_on(bases["llama"], adapter)
    assert adapter.skill.rank == 8
    assert close(ours(bases["llama"], adapter.skill), wanted)


@pytest.mark.parametrize("name", ["plain", "DoRA", "biases", "LoRA of the head"])
def test_sixteen_bits_are_no_worse_than_in_peft(tmp_path, name, monkeypatch):
    """Distance from the logits in fp32, ours against PEFT's with its single adapter."""
    kind, options = KINDS[name]
    monkeypatch.setitem(globals(), "TOKENS", torch.randint(3, 99, (40, 30), generator=torch.Generator().manual_seed(0)))
    wanted = theirs(written(tmp_path, kind, noise=0.05, **options))
    half = raw(kind).to(torch.bfloat16)
    peer = theirs(peft.PeftModel.from_pretrained(raw(kind).to(torch.bfloat16), tmp_path).eval())
    mine = ours(Base(kind, kind, half, CharTokenizer(ALPHABET)), load_adapter(tmp_path))
    assert difference(mine.float(), wanted) < 1.2 * difference(peer.float(), wanted)


@pytest.fixture
def mixed(bases, tmp_path):
    """`mixed(kind)`: a bank of a DoRA, a LoRA with biases and a plain one, on one base."""

    def make(kind: str) -> SkillBank:
        every = {"dora": {"use_dora": True}, "bias": {"lora_bias": True}, "plain": {}}
        for name, more in every.items():
            target = ["c_attn", "c_fc"] if kind == "gpt2" else ["q_proj", "up_proj"]
            written(tmp_path / name, kind, target_modules=target, **more)
        return SkillBank(bases[kind], {name: load_adapter(tmp_path / name) for name in every})

    return make


@pytest.mark.parametrize("kind", ["llama", "gemma", "gpt2"])
@pytest.mark.parametrize("few", [True, False], ids=["gathered", "stacked"])
def test_dora_and_biases_join_mixed_batches(mixed, kind, few):
    """Each sample gets its own skills, as strong as asked: what the skill alone gives, and PEFT refuses."""
    bank = mixed(kind)
    bank.__dict__["shares"] = Shares({1: 2.0 if few else 0.0})
    tokens = torch.randint(3, 99, (5, 6), generator=torch.Generator().manual_seed(1))
    weights = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, -1, 2], [0, 0, 0]])

    def each(row):
        with bank.on(weights[row]):
            return bank.base.hidden(tokens[row : row + 1])

    wanted = torch.cat([each(row) for row in range(5)])
    with bank.on(PerSample(weights)):
        assert close(bank.base.hidden(tokens), wanted)
    with bank.on(PerToken(weights[:, None].expand(-1, 6, -1))):
        assert close(bank.base.hidden(tokens), wanted)
    with bank.on(bank.choice(["dora", "bias", "plain", None, None])):
        assert close(bank.base.hidden(tokens)[:3], wanted[:3])
    with bank.on(Routed(lambda rows, slot: weights[3].expand(len(rows), -1))):
        assert close(bank.base.hidden(tokens[3:4]), wanted[3:4])
    assert not close(wanted[0], wanted[4]) and not close(wanted[1], wanted[4])


def test_mixed_batches_of_dora_generate(mixed):
    bank = mixed("llama")
    prompts = ["one", "two 2", "three", "four4"]
    with bank.on(bank.choice(["dora", None, "bias", "plain"])):
        together = bank.base.generate(prompts, 8)
    for row, name in enumerate(["dora", None, "bias", "plain"]):
        with bank.on(bank.choice([name])):
            assert bank.base.generate(prompts[row : row + 1], 8) == together[row : row + 1]


def test_the_strength_of_a_gain_can_be_learned_per_sample(mixed):
    bank = mixed("llama")
    alpha = torch.full((2, 3), 0.5, requires_grad=True)
    with bank.on(PerSample(alpha)):
        bank.base.hidden(TOKENS)[..., 0].sum().backward()
    step = torch.zeros(2, 3)
    step[0, 0] = 1e-3

    def value(shift):
        with torch.no_grad(), bank.on(PerSample(alpha + shift)):
            return bank.base.hidden(TOKENS)[..., 0].sum().item()

    assert alpha.grad[0, 0].item() == pytest.approx((value(step) - value(-step)) / 2e-3, rel=0.02)


@pytest.mark.parametrize(("options", "what"), [
    ({"target_modules": ["lm_head"]}, "changes the embeddings or the head"),
    ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "replaces weights"),
])  # fmt: skip
def test_what_has_one_strength_for_a_batch_says_so(bases, tmp_path, options, what):
    written(tmp_path, "llama", **options)
    bank = SkillBank(bases["llama"], {"one": load_adapter(tmp_path)})
    with pytest.raises(BadOption, match=f"`one` {what}: its strength cannot differ"), bank.on(bank.choice(["one", None])):
        pass
    bank.drop("one")
    assert bank.fitted == {}
