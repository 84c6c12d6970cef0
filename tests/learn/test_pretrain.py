"""A base learns with all of its weights, in a copy, through the one loop."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from skillweave.base import Base, TinyBase, edited, load_base
from skillweave.errors import BadData, BadOption
from skillweave.learn import pretrain as module
from skillweave.learn.batches import Batches
from skillweave.learn.loop import Plan, Run
from skillweave.learn.pretrain import but, groups_of, pretrain, sealed, text_loss, thawed, weights_digest
from skillweave.slots import rounded
from skillweave.task import Example

FOUR = [Example(f"say {c}\n", c * (3 + i)) for i, c in enumerate("abcd")]
QUICK = {"steps": 60, "batch": 4, "lr": 1e-2, "seed": 0}


def weights(base):
    return {name: weight.detach().clone() for name, weight in base.model.named_parameters()}


def changed(one, other):
    return {name for name, weight in weights(one).items() if not torch.equal(weight, weights(other)[name])}


@pytest.fixture(scope="module")
def trained(tiny):
    before = weights(tiny)
    base, log = pretrain(tiny, FOUR, **QUICK)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(tiny).items())
    return base, log


def test_it_learns_four_answers(trained):
    base, log = trained
    assert log.loss[0] > 3 and log.loss[-1] < 0.1
    assert base.generate([e.prompt for e in FOUR], 10) == [e.completion for e in FOUR]


def test_every_weight_learned_and_is_frozen_again(tiny, trained):
    base, _ = trained
    assert len(weights(base)) > 10 and changed(base, tiny) == set(weights(base))
    assert base.tied and not any(weight.requires_grad for weight in base.model.parameters())
    assert base.digest == weights_digest(base) != tiny.digest and base.dtype == torch.float32


def test_same_seed_same_bits(tiny, trained):
    again, log = pretrain(tiny, FOUR, **QUICK)
    assert again.digest == trained[0].digest and log.loss == trained[1].loss
    assert pretrain(tiny, FOUR, **QUICK | {"steps": 2})[0].digest != again.digest


def test_an_interrupted_run_gives_the_same_bits(tiny, trained, tmp_path, monkeypatch):
    def tick(steps, note):
        ticks.append(steps)
        if len(ticks) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "Plan", partial(Plan, save_every=0.0))
    ticks = []
    with pytest.raises(KeyboardInterrupt):
        pretrain(tiny, FOUR, **QUICK, run=Run(tmp_path / "state", "key", tick))
    base, log = pretrain(tiny, FOUR, **QUICK, run=Run(tmp_path / "state", "key", tick))
    assert ticks[7] >= 6 and base.digest == trained[0].digest and log.loss == trained[1].loss


def test_rounded_products_learn_as_much_and_resume(tiny, trained, tmp_path, monkeypatch):
    base, log = pretrain(tiny, FOUR, **QUICK, bf16=True)
    assert log.loss[:5] == pytest.approx(trained[1].loss[:5], rel=0.02) and log.loss != trained[1].loss
    assert log.loss[-1] < 0.1 and base.dtype == torch.float32
    text = Batches(tiny, FOUR, 4, 0, True).at(0)
    assert text_loss(base, text) == text_loss(Base("b", "b", base.model, base.tokenizer), text), "it still rounds"

    def tick(steps, note):
        ticks.append(steps)
        if len(ticks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "Plan", partial(Plan, save_every=-1.0))
    ticks = []
    with pytest.raises(KeyboardInterrupt):
        pretrain(tiny, FOUR, **QUICK, bf16=True, run=Run(tmp_path / "state", "key", tick))
    again, _ = pretrain(tiny, FOUR, **QUICK, bf16=True, run=Run(tmp_path / "state", "key", tick))
    assert ticks[3] == 3 and again.digest == base.digest


def test_only_products_are_rounded(tiny):
    """Each linear layer gives what its rounded input and weights give, in fp32, and so do its gradients."""
    layer = next(iter(tiny.linears.values()))
    x = torch.randn(5, layer.in_features, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with rounded():
        y = layer(x)
    exact = F.linear(x.bfloat16().float(), layer.weight.bfloat16().float())
    assert y.dtype == torch.float32 and torch.equal(y, exact.bfloat16().float()) and not torch.equal(y, layer(x))
    (mine,), (theirs,) = torch.autograd.grad(y.sum(), x), torch.autograd.grad(exact.sum(), x)
    assert torch.allclose(mine, theirs, rtol=0.02, atol=0.02)


def test_the_loss_is_the_models_own(tiny):
    """Against transformers, whose labels of -100 are left out: the completion only, then the whole text."""
    seen = 0
    for whole in (False, True):
        batch = Batches(tiny, FOUR, 4, 0, whole).at(0)
        labels = torch.full(batch.tokens.shape, -100).flatten()
        labels[batch.rows] = batch.labels
        logits = tiny.model(input_ids=batch.tokens).logits.flatten(0, 1)
        theirs = F.cross_entropy(logits, labels, ignore_index=-100)
        assert torch.allclose(text_loss(tiny, batch), theirs, atol=1e-5)
        seen += len(batch.labels)
    completions = sum(len(e.completion) + 1 for e in FOUR)
    assert seen == 2 * completions + sum(len(e.prompt) for e in FOUR)


def test_a_large_vocabulary_is_taken_in_pieces(tiny, monkeypatch):
    batch = Batches(tiny, FOUR, 4, 0, True).at(0)
    gradients = []
    for tile in (10**9, 1):
        monkeypatch.setattr(module, "TILE", tile)
        monkeypatch.setattr(module, "ROWS", 5)
        learner = thawed(tiny)
        text_loss(learner, batch).backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in learner.model.parameters()]))
    assert gradients[0].norm() > 0.1 and torch.allclose(*gradients, atol=1e-6)


def test_the_tied_table_learns_from_both_sides(tiny):
    """A character that is only ever an input, and one that is only ever an answer."""
    learner = thawed(tiny)
    text_loss(learner, Batches(tiny, [Example("q\n", "z")], 1, 0).at(0)).backward()
    rows = learner.table.grad.norm(dim=1)
    assert all(rows[tiny.encode(character)[0]] > 0 for character in "qz")


def test_chosen_weights_learn(tiny, trained):
    base = trained[0]
    body, _ = pretrain(base, FOUR, **QUICK | {"steps": 3}, rate=but(base))
    assert changed(body, base) == {name for name in weights(base) if "embed" not in name}
    fewer, _ = pretrain(base, FOUR, **QUICK | {"steps": 3}, rate=but(base, ["model.layers.0", "model.norm"]))
    assert changed(fewer, base) == {name for name in weights(base) if "layers" in name and "layers.0." not in name}
    assert body.name == base.name == "tiny-32, trained"


def test_groups_have_their_own_rates(tiny):
    learner = thawed(tiny)
    groups = groups_of(learner, 0.1, lambda name: 0.0 if "norm" in name else 2.0 if "mlp" in name else 0.5)
    assert {group.lr for group in groups} == {0.2, 0.05}
    assert all(("mlp" in name) == (group.lr == 0.2) for group in groups for name in group.tensors)
    assert {name for name, w in learner.model.named_parameters() if not w.requires_grad} == {
        name for name in weights(tiny) if "norm" in name
    }


def test_a_bf16_base_learns_in_fp32_and_comes_back_as_bf16(saved):
    base = load_base(str(saved), "bf16")
    learner = thawed(base)
    assert {weight.dtype for weight in learner.model.parameters()} == {torch.float32}
    again = sealed(learner, base)
    assert again.dtype == torch.bfloat16 and not changed(again, base)
    tuned, log = pretrain(base, FOUR, **QUICK)
    assert log.loss[-1] < log.loss[0] / 2 and {weight.dtype for weight in tuned.model.parameters()} == {torch.bfloat16}


def test_skills_are_heard_once_on_a_trained_base(trained):
    base: Base = trained[0]
    tokens = torch.tensor([base.encode("ab")])
    with edited({base.table_slot: lambda tokens, rows, factor: rows + 1}):
        assert torch.allclose(base.table_layer(tokens), base.table[tokens] + 1)


def test_depth_by_hand():
    base = TinyBase(32, layers=1, seed=2)
    assert (base.layers, base.name) == (1, "tiny-32-l1-s2") and load_base("tiny-32-l1-s2").digest == base.digest
    assert TinyBase(32).layers == 3 and TinyBase(32, layers=3).digest != TinyBase(32).digest
    with pytest.raises(BadOption, match="layers is 0"):
        TinyBase(32, layers=0)


def test_what_cannot_be_learned(tiny):
    with pytest.raises(BadOption, match="all weights of `tiny-32` have the rate 0"):
        pretrain(tiny, FOUR, **QUICK, rate=lambda name: 0.0)
    with pytest.raises(BadOption, match=r"is -1\.0, but has to be at least 0"):
        pretrain(tiny, FOUR, **QUICK, rate=lambda name: -1.0)
    with pytest.raises(BadData, match="no examples"):
        pretrain(tiny, [], **QUICK)
