"""A deeper base: the same function, the same weights in memory, and a skill that is its new layers."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from skillweave.base import Base, CharTokenizer, load_base, save_base
from skillweave.delta_format import DELTA as FILE
from skillweave.errors import BadBase, BadOption, BadSkill, BaseMismatch
from skillweave.files import sha256_file
from skillweave.learn.depth import Deeper, expand, new_weights, nothing, places

SMALL = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "head_dim": 16}
TOKENS = torch.randint(3, 99, (2, 14), generator=torch.Generator().manual_seed(0))
LAYERS = (0, 2)


def fill(model):
    draw = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.data.normal_(0.0, 0.3, generator=draw)
    return model


def llama(loud):
    return loud()


def gemma(loud):
    """Two sliding layers, one that sees all, one sliding: the window is shorter than the text."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    kinds = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
    config = Gemma3TextConfig(
        **SMALL, num_key_value_heads=1, num_hidden_layers=4, layer_types=kinds, sliding_window=5,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return Base("gemma", "d1", fill(Gemma3ForCausalLM(config)), CharTokenizer())


def gpt2(loud):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=100, n_embd=32, n_layer=3, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2)
    return Base("gpt2", "d2", fill(GPT2LMHeadModel(config)), CharTokenizer())


KINDS = [llama, gemma, gpt2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_silent_copy_changes_no_bit(loud, kind):
    base = kind(loud)
    deeper = expand(base, LAYERS)
    assert deeper.layers == base.layers + 2 == len(deeper.stack) and deeper.digest != base.digest
    hidden = base.hidden(TOKENS)
    assert torch.equal(deeper.hidden(TOKENS), hidden) and hidden.std() > 0.1
    assert torch.equal(deeper.logits(deeper.hidden(TOKENS)[0]), base.logits(hidden[0]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_silent_copy_changes_no_bit_with_a_memory(loud, kind):
    base = kind(loud)
    deeper = expand(base, LAYERS)
    for one in range(1, 13, 3):
        _, ours = base.read(TOKENS[:, :one])
        _, theirs = deeper.read(TOKENS[:, :one], memory=None)
        for at in range(one, 14):
            mine, ours = base.read(TOKENS[:, at : at + 1], memory=ours)
            other, theirs = deeper.read(TOKENS[:, at : at + 1], memory=theirs)
            assert torch.equal(mine, other)
    prompts, other = ["a", "be quick", "a longer one, longer than the window"], base.generate(["ab"], 9)
    assert deeper.generate(prompts, 9) == base.generate(prompts, 9) and other
    assert deeper.generate(["ab"], 9, prefix="so it is: ") == base.generate(["ab"], 9, prefix="so it is: ")


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_that_speaks_is_read_with_a_memory_of_its_own(loud, kind):
    """Once it adds something, cached and uncached reading of the deeper base must agree."""
    base = kind(loud)
    deeper = loudly(expand(base, LAYERS), LAYERS)
    whole = deeper.hidden(TOKENS)
    assert (whole - base.hidden(TOKENS)).abs().max() > 0.1
    _, memory = deeper.read(TOKENS[:, :3])
    for at in range(3, 14):
        some, memory = deeper.read(TOKENS[:, at : at + 1], memory=memory)
        assert torch.allclose(some[:, 0], whole[:, at], atol=1e-4)


def loudly(deeper, layers, seed=0):
    draw = torch.Generator().manual_seed(seed)
    for weight in new_weights(deeper, layers).values():
        weight.data += torch.randn(weight.shape, generator=draw) * 0.2
    return deeper


def test_copies_stand_behind_their_layer_and_keep_its_kind(loud):
    base = gemma(loud)
    deeper = expand(base, (2, 1))
    assert places((2, 1)) == [2, 4]
    assert deeper.model.config.layer_types == [base.model.config.layer_types[i] for i in (0, 1, 1, 2, 2, 3)]
    stack = deeper.stack
    assert [layer.self_attn.layer_idx for layer in stack] == [layer.layer_idx for layer in stack] == list(range(6))
    assert [layer.self_attn.is_sliding for layer in stack] == [kind[0] == "s" for kind in deeper.model.config.layer_types]
    for place, layer in zip((2, 4), (1, 2), strict=True):
        mine, theirs = (dict(b.stack[n].named_parameters()) for b, n in ((deeper, place), (base, layer)))
        silent = {name for name in mine if not torch.equal(mine[name], theirs[name])}
        assert silent == {"post_attention_layernorm.weight", "post_feedforward_layernorm.weight"}
        assert all((mine[name] == -1).all() for name in silent)  # Gemma's norms multiply by 1 + weight
    assert len(base.stack) == base.model.config.num_hidden_layers == 4 and len(base.model.config.layer_types) == 4


@pytest.mark.parametrize(
    ("kind", "ends"),
    [(llama, {"self_attn.o_proj.weight", "mlp.down_proj.weight"}),
     (gpt2, {f"{part}.c_proj.{what}" for part in ("attn", "mlp") for what in ("weight", "bias")})],
)  # fmt: skip
def test_branches_that_end_in_a_matrix_are_silenced_there(loud, kind, ends):
    base = kind(loud)
    mine, theirs = (dict(b.stack[n].named_parameters()) for b, n in ((expand(base, (1,)), 2), (base, 1)))
    silent = {name for name in mine if not torch.equal(mine[name], theirs[name])}
    assert silent == ends and not any(mine[name].any() for name in silent)


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_move_of_a_silent_copy_is_a_small_change(loud, kind):
    """With zeroed matrices in front of Gemma's norms, it is as large as the layer itself."""
    base = kind(loud)
    deeper = expand(base, LAYERS)
    draw = torch.Generator().manual_seed(0)
    for weight in new_weights(deeper, LAYERS).values():
        weight.data += torch.randn(weight.shape, generator=draw).sign() * 1e-4
    change = (deeper.hidden(TOKENS) - base.hidden(TOKENS)).norm() / base.hidden(TOKENS).norm()
    assert 0 < change < 0.01


def test_where_a_module_says_nothing(loud):
    layer = gemma(loud).stack[0]
    assert (
        nothing(layer.post_attention_layernorm) == nothing(layer.self_attn.q_norm) == -1 and nothing(layer.mlp.down_proj) == 0
    )
    assert nothing(loud().stack[0].input_layernorm) == 0 == nothing(torch.nn.LayerNorm(3))


def test_frozen_weights_are_shared_in_memory(loud):
    base = gemma(loud)
    deeper = expand(base, LAYERS)
    before = {weight.data_ptr() for weight in base.model.parameters()}
    new = new_weights(deeper, LAYERS)
    assert len(new) == 2 * 13 and not {weight.data_ptr() for weight in new.values()} & before
    assert {w.data_ptr() for name, w in deeper.model.named_parameters() if name not in new} == before


def test_a_deeper_base_can_be_saved_as_a_model_folder(loud, tmp_path):
    """Read again by transformers alone: the configuration says what stands where."""
    from transformers import AutoModelForCausalLM

    deeper = loudly(expand(gemma(loud), LAYERS), LAYERS)
    save_base(deeper, tmp_path / "deep")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "deep", dtype=torch.float32)
    assert torch.allclose(again(input_ids=TOKENS).logits, deeper.model(input_ids=TOKENS).logits, atol=1e-4)
    assert load_base(str(tmp_path / "deep"), "fp32").layers == 6


@pytest.mark.parametrize("layers", [(), (0, 0), (3,), (-1,)])
def test_layers_that_cannot_be_copied(tiny, layers):
    with pytest.raises(BadOption, match="the layers to copy are .*different ones of 0 to 2"):
        expand(tiny, layers)


def test_models_that_cannot_grow(tiny, monkeypatch):
    monkeypatch.setattr("skillweave.learn.depth.ENDS", (("o_proj", "wo"), ("fc1", "fc1")))
    with pytest.raises(BadBase, match="a layer of `tiny-32` does not end its two branches in o_proj and wo, or fc1"):
        expand(tiny, (0,))
    monkeypatch.setattr("skillweave.learn.depth.ENDS", (("q_proj", "k_proj"),))
    with pytest.raises(BadBase, match="a copied layer changes what `gemma` computes"):
        expand(gemma(None), (0,))


@pytest.fixture
def folder(loud, tmp_path):
    base = loud()
    weights = {name: w.detach().clone() for name, w in new_weights(loudly(expand(base, LAYERS), LAYERS), LAYERS).items()}
    Deeper(LAYERS, weights, (0.1, 0.2, 0.3)).save(tmp_path, base, {})
    return tmp_path


def test_new_layers_come_back_from_a_folder(loud, folder):
    base = loud()
    active = Deeper.load(folder, base, "deep")
    wanted = loudly(expand(base, LAYERS), LAYERS)
    assert torch.equal(active.base.hidden(TOKENS), wanted.hidden(TOKENS))
    assert active.generate(["abc"], 5) == wanted.generate(["abc"], 5)
    assert sorted(path.name for path in folder.iterdir()) == ["composition.json", FILE]
    assert len(load_file(folder / FILE)) == 2 * 9


def test_another_base_is_refused(loud, folder):
    with pytest.raises(BaseMismatch, match="the layers of `deep` were made for tiny-32 .* and this is tiny-64"):
        Deeper.load(folder, loud(64), "deep")


def about(**change):
    def spoil(folder):
        path = folder / "composition.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))

    return spoil


def delta(change):
    def spoil(folder):
        tensors = load_file(folder / FILE)
        change(tensors)
        save_file(tensors, folder / FILE)
        about(delta=sha256_file(folder / FILE))(folder)

    return spoil


FIRST = "model.layers.1.mlp.up_proj.weight"
SPOILED = {
    "no layers": (about(layers=None), "does not say which layers"),
    "words for layers": (about(layers=["0", "2"]), "does not say which layers"),
    "true for a layer": (about(layers=[True, 2]), "does not say which layers"),
    "no base": (about(base="tiny"), "does not say which layers of which base"),
    "layers out of range": (about(layers=[0, 7]), "the layers to copy are 0, 7"),
    "other layers": (about(layers=[0, 1]), "does not hold the weights of the copied layers"),
    "another file": (about(delta="0" * 64), "is not the file"),
    "no file": (lambda folder: (folder / FILE).unlink(), "has no delta.safetensors"),
    "not safetensors": (lambda folder: (folder / FILE).write_bytes(b"x" * 99), "is corrupt: .* is truncated: 99 bytes"),
    "one weight less": (delta(lambda tensors: tensors.pop(FIRST)), "does not hold the weights"),
    "another shape": (delta(lambda tensors: tensors.update({FIRST: torch.zeros(3, 3)})), "does not hold the weights"),
    "not a number": (delta(lambda tensors: tensors[FIRST].fill_(torch.nan)), "values that are not finite"),
    "whole numbers": (delta(lambda tensors: tensors.update({FIRST: tensors[FIRST].int()})), "is in int32, not in 16 or 32"),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_spoiled_folder_gets_a_sentence(loud, folder, how):
    spoil, sentence = SPOILED[how]
    spoil(folder)
    with pytest.raises(BadSkill, match=sentence):
        Deeper.load(folder, loud(), "deep")
