"""Width pruning: the four scores by hand, the least neurons go, the base stays, and a folder gives the same logits again."""

import json

import pytest
import torch

from skillweave.base import Base, TinyBase, load_base, save_base
from skillweave.compose import prune
from skillweave.compose.prune import SCORES, keep, parameters, width_prune
from skillweave.errors import BadBase, BadOption, NotFound

TOKENS = torch.tensor([[1, 9, 40, 17, 23]])
ZERO = [7, 40, 79]
"""Neurons that the test below makes useless."""


def logits(base):
    with torch.inference_mode():
        return base.logits(base.hidden(TOKENS)[0])


def mlps(base):
    return prune.gated_mlps(base.model, base.name)


GATE = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0], [3.0, 1.0, 2.0]])
UP = torch.tensor([[0.0, 4.0, -1.0], [1.0, 1.0, 1.0], [-1.0, -2.0, -3.0]])
BY_HAND = {
    "ppm": [3 + 5, 0 + 2, 4 + 2],  # row 2 of the gate does not straddle zero: 3 + |1|, and that of up: -1 + |-3|
    "vow": [2.583333 + 7.0, 0.0, 1.0 + 1.0],
    "pon": [3.5 * 5, 0.0, 6.0 * 6],
}


@pytest.mark.parametrize("score", BY_HAND)
def test_scores_are_those_computed_by_hand(score):
    assert SCORES[score](GATE, UP, torch.Generator()).tolist() == pytest.approx(BY_HAND[score], abs=1e-5)


def test_random_follows_its_seed_and_no_weight():
    first, again, other = (SCORES["random"](GATE, UP, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(first, SCORES["random"](UP, GATE, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(("share", "kept"), [(0.0, [0, 1, 2, 3, 4]), (0.2, [0, 1, 3, 4]), (0.6, [0, 4]), (0.99, [4])])
def test_the_lowest_go_and_the_rest_keeps_its_order(share, kept):
    assert keep(torch.tensor([3.0, 2.0, 0.5, 2.0, 9.0]), share).tolist() == kept  # of the equal ones, number 1 goes first


@pytest.mark.parametrize("score", SCORES)
def test_every_layer_loses_its_lowest_neurons(tiny, score):
    small = width_prune(tiny, 0.3, score, seed=3)
    draw = torch.Generator().manual_seed(3)
    for whole, cut in zip(mlps(tiny), mlps(small), strict=True):
        scores = SCORES[score](whole.gate_proj.weight, whole.up_proj.weight, draw)
        stay = sorted(scores.argsort(descending=True)[:56].tolist())
        for part in ("gate_proj", "up_proj"):
            assert torch.equal(getattr(cut, part).weight, getattr(whole, part).weight[stay])
            assert (getattr(cut, part).out_features, getattr(cut, part).in_features) == (56, 32)
        assert torch.equal(cut.down_proj.weight, whole.down_proj.weight[:, stay]) and cut.down_proj.in_features == 56
    assert small.model.config.intermediate_size == 56
    assert parameters(tiny) - parameters(small) == tiny.layers * 3 * 24 * 32


def test_nothing_cut_changes_nothing(tiny):
    same = width_prune(tiny, 0.0)
    assert torch.equal(logits(same), logits(tiny)) and same.digest == tiny.digest and same.model is not tiny.model


@pytest.mark.parametrize("part", ["gate_proj", "up_proj"])
@pytest.mark.parametrize("score", ["ppm", "vow", "pon"])
def test_neurons_that_do_nothing_go_first_and_are_not_missed(score, part):
    base = TinyBase(32)
    for mlp in mlps(base):
        mlp.gate_proj.weight[ZERO] = 0
        mlp.up_proj.weight[ZERO] = 0
        getattr(mlp, part).weight[ZERO] = 1e-30  # one of the two is enough to silence a neuron
    small = width_prune(base, 3 / 80, score)
    rest = [i for i in range(80) if i not in ZERO]
    assert all(
        torch.equal(cut.up_proj.weight, mlp.up_proj.weight[rest]) for mlp, cut in zip(mlps(base), mlps(small), strict=True)
    )
    assert torch.allclose(logits(small), logits(base), rtol=0, atol=1e-5)
    assert not torch.allclose(logits(width_prune(base, 0.5, score)), logits(base), rtol=0, atol=1e-5)


def test_the_given_base_stays_as_it_is(tiny):
    before, state = logits(tiny), {name: weight.clone() for name, weight in tiny.model.state_dict().items()}
    small = width_prune(tiny, 0.5)
    assert not torch.equal(logits(small), before)
    assert torch.equal(logits(tiny), before) and tiny.model.config.intermediate_size == 80
    assert all(torch.equal(weight, state[name]) for name, weight in tiny.model.state_dict().items())
    assert {m.gate_proj.out_features for m in mlps(tiny)} == {80}
    assert small.head.data_ptr() == tiny.head.data_ptr()  # what is not cut is not copied


def test_a_pruned_base_has_its_own_digest(tiny):
    digests = [width_prune(tiny, share, score).digest for share, score in ((0.2, "ppm"), (0.4, "ppm"), (0.2, "vow"))]
    digests += [width_prune(tiny, 0.2, "random", seed).digest for seed in (0, 1)] + [tiny.digest]
    assert len(set(digests)) == 6
    assert width_prune(tiny, 0.2, "ppm", seed=5).digest == digests[0]  # the seed is for `random` alone


def test_skills_attach_to_a_pruned_base(tiny, random_skill):
    from skillweave.bank import SkillBank

    small = width_prune(tiny, 0.5)
    before = logits(small)
    with SkillBank(small, {"skill": random_skill(small)}).on():
        assert not torch.equal(logits(small), before)
    assert torch.equal(logits(small), before)


def test_a_layer_with_biases_is_cut_whole():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = dict(
        vocab_size=99, hidden_size=32, intermediate_size=20, num_hidden_layers=1, num_attention_heads=2, mlp_bias=True
    )
    model = LlamaForCausalLM(LlamaConfig(**config, pad_token_id=0, bos_token_id=1, eos_token_id=2))
    base = Base("biased", "0", model, TinyBase(32).tokenizer)
    (mlp,) = mlps(base)
    mlp.gate_proj.bias[:] = torch.arange(20.0)
    (cut,) = mlps(width_prune(base, 0.5))
    assert torch.equal(cut.gate_proj.weight, mlp.gate_proj.weight[cut.gate_proj.bias.long()])
    assert cut.up_proj.bias.shape == (10,) and cut.down_proj.bias.shape == (32,)


def test_gemma_3_is_pruned_too():
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    shape = dict(vocab_size=99, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, head_dim=16)
    model = Gemma3ForCausalLM(Gemma3TextConfig(**shape, num_key_value_heads=1, pad_token_id=0, bos_token_id=1, eos_token_id=2))
    base = Base("small gemma", "0", model, TinyBase(32).tokenizer)
    small = width_prune(base, 0.25)
    assert {m.gate_proj.out_features for m in mlps(small)} == {30} and logits(small).shape == (5, 99)


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, float("nan")])
def test_a_share_that_cannot_be_is_refused(tiny, share):
    with pytest.raises(BadOption, match=f"share is {share}, but has to be at least 0 and below 1"):
        width_prune(tiny, share)


def test_an_unknown_score_is_named_with_the_nearest(tiny):
    with pytest.raises(NotFound, match="no score `pmp`. Did you mean `ppm`"):
        width_prune(tiny, 0.1, "pmp")


def test_a_model_without_gates_is_refused(tiny):
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=99, n_embd=32, n_layer=1, n_head=2))
    with pytest.raises(BadBase, match="`gpt` has no gated MLP with gate_proj, up_proj, down_proj"):
        width_prune(Base("gpt", "0", model, tiny.tokenizer), 0.1)


@pytest.fixture
def folder_base(saved, tmp_path, monkeypatch):
    """A base that came from a folder."""
    monkeypatch.setenv("SKILLWEAVE_CACHE", str(tmp_path / "cache"))
    return load_base(str(saved), "fp32")


def test_a_pruned_base_is_saved_and_read_again_with_the_same_logits(folder_base, tmp_path):
    small = width_prune(folder_base, 0.25)
    save_base(small, tmp_path / "deep" / "small")
    again = load_base(str(tmp_path / "deep" / "small"), "fp32")
    assert json.loads((tmp_path / "deep" / "small" / "config.json").read_text())["intermediate_size"] == 60
    assert torch.equal(logits(again), logits(small)) and again.encode("What?") == small.encode("What?")
    assert again.digest != folder_base.digest
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["small"]
