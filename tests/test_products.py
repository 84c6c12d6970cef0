"""Dense and sparse changes in a bank: y += α S x, held against the dense formula, for the batch, by sample and by token."""

import pytest
import torch
from torch.func import functional_call

from skillweave.bank import SkillBank
from skillweave.base import Base
from skillweave.delta import LowRank
from skillweave.delta_full import Dense, Sparse
from skillweave.errors import BaseMismatch
from skillweave.products import product
from skillweave.strength import PerSample, PerToken, Routed

TOKENS = torch.tensor([[1, 20, 30, 40, 50], [1, 9, 8, 7, 6]])
Q0, UP1 = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"


def logits(base):
    return base.logits(base.hidden(TOKENS).flatten(0, 1))


def dense(base, skills, alpha):
    """Logits with W + Σ α ΔW in the place of W."""
    weights = {}
    for slot, linear in base.linears.items():
        layer = base.layer_of(slot)
        changes = [alpha[k, layer] * skill.dense(slot) for k, skill in enumerate(skills) if slot in skill.slots]
        weights[f"{slot}.weight"] = linear.weight + sum(changes)
    return functional_call(base.model, weights, (TOKENS,)).logits.flatten(0, 1)


@pytest.fixture
def skills(tiny, random_skill):
    """A graft of all layers, a dense change of two, factors, and one that is sparse beside its factors."""
    lora = random_skill(tiny, 1, 4)
    draw = torch.Generator().manual_seed(7)
    places = {s: torch.randperm(lin.weight.numel(), generator=draw)[:40].sort().values for s, lin in tiny.linears.items()}
    graft = random_skill(tiny, 2, 6, scale=4.0).masked(places)
    wide = LowRank({}, full={s: Dense(random_skill(tiny, 3, 3).dense(s), 0.5) for s in (Q0, UP1)})
    return [graft, wide, lora, LowRank(random_skill(tiny, 4, 2, [Q0]).factors, full={Q0: graft.full[Q0]})]


@pytest.fixture
def bank(tiny, skills):
    return SkillBank(tiny, {str(k): skill for k, skill in enumerate(skills)})


@pytest.fixture
def alpha(tiny):
    return torch.rand(4, tiny.layers, generator=torch.Generator().manual_seed(5)) * 2 - 0.5


def test_it_is_the_dense_formula(tiny, bank, skills, alpha):
    plain = logits(tiny)
    for shown, strength in ((alpha, alpha), (None, bank.ones())):
        wanted = dense(tiny, skills, strength)
        assert (wanted - plain).abs().max() > 0.05
        with bank.on(shown):
            assert torch.allclose(logits(tiny), wanted, rtol=1e-4, atol=1e-5)
    with bank.on(alpha * 0):
        assert torch.equal(logits(tiny), plain)
    assert torch.equal(logits(tiny), plain)


def test_gradients_are_those_of_the_dense_formula(tiny, bank, skills, alpha):
    values = skills[1].full[Q0].values.requires_grad_()
    bank.put("1", skills[1])
    wanted = [alpha.requires_grad_(), values]
    with bank.on(alpha):
        ours = torch.autograd.grad(logits(tiny).square().mean(), wanted)
    theirs = torch.autograd.grad(dense(tiny, skills, alpha).square().mean(), wanted)
    for one, other in zip(ours, theirs, strict=True):
        assert other.abs().max() > 1e-6
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)


def test_a_change_that_learns_is_computed_though_nothing_else_does(tiny, skills):
    values = torch.zeros(tiny.linears[Q0].matrix.shape, requires_grad=True)
    with SkillBank(tiny, {"new": LowRank({}, full={Q0: Dense(values)})}).on():
        logits(tiny).square().mean().backward()
    assert values.grad.abs().max() > 0


def test_strengths_may_differ_within_a_batch(tiny, bank, alpha):
    rows = alpha[:, 0], alpha[:, 1] * torch.tensor([1.0, 0, 1, 0])

    def each(row):
        with bank.on(rows[row]):
            return tiny.hidden(TOKENS[row : row + 1])

    wanted = torch.cat([each(0), each(1)])
    mixed = torch.stack(rows)
    strengths = [PerSample(mixed), PerToken(mixed[:, None].expand(-1, 5, -1))]
    strengths.append(Routed(lambda x, slot: mixed.repeat_interleave(5, 0)))
    for strength in strengths:
        with bank.on(strength):
            assert torch.allclose(tiny.hidden(TOKENS), wanted, rtol=1e-4, atol=1e-5)
    with bank.on(bank.choice(["0", None])):
        chosen = tiny.hidden(TOKENS)
    assert torch.allclose(chosen[1:], tiny.hidden(TOKENS[1:]), atol=1e-6)
    assert not torch.allclose(chosen[:1], tiny.hidden(TOKENS[:1]), atol=1e-3)


def test_learned_strengths_reach_samples_that_start_at_zero(tiny, bank):
    start = torch.zeros(2, 4, requires_grad=True)
    with bank.on(PerSample(start)):
        logits(tiny).square().mean().backward()
    assert (start.grad != 0).all()


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_sparse_product_of_any_number_format(kind):
    draw = torch.Generator().manual_seed(0)
    index = torch.randperm(6 * 8, generator=draw)[:11].sort().values
    change = Sparse(index.int(), torch.randn(11, generator=draw), (6, 8), 0.5)
    x = torch.randn(2, 3, 8, generator=draw).to(kind).requires_grad_()
    y = product(change, kind)(x)
    assert y.dtype == torch.float32
    assert torch.allclose(y, x.float() @ change.dense().t(), rtol=1e-4, atol=1e-5)
    up = torch.randn(y.shape, generator=draw)
    (grad,) = torch.autograd.grad(y, x, up)
    assert torch.allclose(grad.float(), up @ change.dense(), rtol=1e-2 if kind == torch.bfloat16 else 1e-4, atol=1e-3)


def test_an_empty_change_adds_nothing():
    change = Sparse(torch.zeros(0).long(), torch.zeros(0), (6, 8))
    assert not product(change, torch.float32)(torch.ones(3, 8)).any()


def test_what_was_made_without_gradients_can_learn_later(tiny, skills):
    with torch.inference_mode():
        bank = SkillBank(tiny, {"a": skills[0]})
        with bank.on():
            logits(tiny)
    alpha = torch.ones(1, tiny.layers, requires_grad=True)
    with bank.on(alpha):
        logits(tiny).sum().backward()
    assert alpha.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("slot", "shape", "words"),
    [
        ("model.layers.9.mlp.up_proj", (80, 32), "changes entries of `model.layers.9.mlp.up_proj`, which is no linear layer"),
        ("lm_head", (100, 32), "the head and the embeddings of tiny-32 take factors only"),
        ("model.embed_tokens", (100, 32), "the head and the embeddings of tiny-32 take factors only"),
        (Q0, (32, 33), f"skill `x` has a change of 32 x 33 for `{Q0}`, which is 32 x 32 in tiny-32"),
    ],
)
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_a_change_that_does_not_fit_is_refused(tiny, slot, shape, words, kind):
    full = Dense(torch.zeros(shape)) if kind == "dense" else Sparse(torch.tensor([1]), torch.ones(1), shape)
    with pytest.raises(BaseMismatch, match=words):
        SkillBank(tiny, {"x": LowRank({}, full={slot: full})})


def test_it_goes_through_the_layer_of_gpt2():
    """Conv1D holds its weight turned: a change is outside x inside all the same."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from skillweave.base import ALPHABET, CharTokenizer

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=100, n_positions=64)).eval()
    base = Base("gpt2", "x", model, CharTokenizer(ALPHABET))
    slot = "transformer.h.1.mlp.c_fc"
    change = Sparse(torch.tensor([5, 70, 4000]), torch.tensor([3.0, -2.0, 1.0]), (128, 32))
    with SkillBank(base, {"x": LowRank({}, full={slot: change})}).on():
        ours = base.hidden(TOKENS)
    weight = {f"{slot}.weight": base.linears[slot].weight + change.dense().t()}
    theirs = functional_call(model, weight, (TOKENS,), {"output_hidden_states": True}).hidden_states[-1]
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5) and not torch.allclose(ours, base.hidden(TOKENS), atol=1e-3)
