"""What general text says: of layers that are left out, and of tensors that are moved."""

import json

import pytest
import torch

from skillweave.errors import BadData, NotFound
from skillweave.learn import probe as module
from skillweave.learn.loss import base_loss
from skillweave.learn.probe import Probe, bypassed, layer_importance, unit_importance
from skillweave.measure.text import documentation_of

TEXTS = ["some words of a text", "and other ones, a few more", "x = 3"]


@pytest.fixture
def probe(loud):
    return Probe.of_texts(loud(), TEXTS)


def test_a_layer_that_is_left_out_is_one_without_weights(loud, probe):
    """Against the paper's code, which sets every weight of the layer to zero."""
    base = loud()
    found = layer_importance(base, list(base.stack), probe)
    whole = probe.loss(base)
    for layer, rise in zip(base.stack, found.tolist(), strict=True):
        kept = {name: weight.detach().clone() for name, weight in layer.named_parameters()}
        for weight in layer.parameters():
            weight.data.zero_()
        assert probe.loss(base) - whole == pytest.approx(rise, abs=1e-5)
        for name, weight in layer.named_parameters():
            weight.data.copy_(kept[name])
    assert len(found) == 3 and found.std() > 0.01 and probe.loss(base) == whole


def test_a_bypass_ends_also_when_it_raises(loud, probe):
    base = loud()
    whole = probe.loss(base)
    with pytest.raises(KeyError), bypassed(base.stack[1]):
        assert probe.loss(base) != whole
        raise KeyError
    assert probe.loss(base) == whole


def test_the_loss_is_a_mean_over_tokens(loud, probe):
    base = loud()
    nats = count = 0
    for text in TEXTS:
        tokens = torch.tensor([base.encode(text, start=True)])
        scores = base.logits(base.hidden(tokens)[0, :-1]).log_softmax(-1)
        nats -= scores.gather(1, tokens[0, 1:, None]).sum().item()
        count += tokens.shape[1] - 1
    assert probe.loss(base) == pytest.approx(nats / count, rel=1e-5)


def test_unit_importance_is_what_a_unit_would_take_with_it(loud, probe):
    """One batch: the mean of |θ · slope|, the slope checked by a small move."""
    base = loud()
    weight = base.stack[1].mlp.down_proj.weight.requires_grad_()
    try:
        (found,) = unit_importance(lambda batch: base_loss(base, batch), {"w": weight}, probe)
        assert found > 0 and weight.grad is None
        slopes = torch.autograd.grad(base_loss(base, probe.batches[0]), weight)[0]
        assert found.item() == pytest.approx((weight * slopes).abs().mean().item(), rel=1e-5)
        at = tuple(int(i) for i in torch.unravel_index(slopes.abs().argmax(), slopes.shape))
        before = probe.loss(base)
        weight.data[at] += 1e-2
        assert (probe.loss(base) - before) / 1e-2 == pytest.approx(slopes[at].item(), rel=0.1)
        weight.data[at] -= 1e-2
    finally:
        weight.requires_grad_(False)


def test_probes_come_from_documentation_tasks_and_files(tiny, tmp_path):
    rows = [json.dumps({"prompt": f"in {i}\n", "completion": str(i)}) for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    docs = Probe.of(tiny, "docstrings", 9, 0)
    assert [len(batch.tokens) for batch in docs.batches] == [8, 1] and docs.examples == ()
    assert all(batch.tokens.shape[1] < tiny.window for batch in docs.batches)
    task, file = Probe.of(tiny, "number", 5, 0), Probe.of(tiny, str(tmp_path / "rows.jsonl"), 99, 0)
    assert len(task.examples) == 5 and 20 < len(file.examples) < 40
    assert sum(len(batch.labels) for batch in task.batches) == sum(len(e.completion) + 1 for e in task.examples)
    again, other = Probe.of(tiny, "docstrings", 9, 0), Probe.of(tiny, "docstrings", 9, 1)
    assert torch.equal(docs.batches[0].tokens, again.batches[0].tokens)
    assert other.batches[0].tokens.shape != docs.batches[0].tokens.shape or not torch.equal(
        docs.batches[0].tokens, other.batches[0].tokens
    )


def test_a_probe_is_never_of_a_test_split(tiny):
    kept = documentation_of("train")
    assert len(kept) > 2000 and not set(kept) & set(documentation_of("test")) and len(documentation_of("valid")) > 200
    beginnings = {split: {text[:40] for text in documentation_of(split)} for split in ("train", "valid", "test")}
    assert not beginnings["train"] & beginnings["test"] and not beginnings["train"] & beginnings["valid"]


def test_a_probe_that_is_not_there(tiny, tmp_path):
    with pytest.raises(NotFound, match="no task `nmber`.* `number`"):
        Probe.of(tiny, "nmber", 3, 0)
    with pytest.raises(BadData, match="no.jsonl"):
        Probe.of(tiny, str(tmp_path / "no.jsonl"), 3, 0)


def test_slopes_are_averaged_over_the_batches(loud, probe):
    base = loud()
    weight = base.stack[1].mlp.down_proj.weight.requires_grad_()
    try:
        once, thrice = (
            unit_importance(lambda batch: base_loss(base, batch), {"w": weight}, Probe(probe.batches * times))
            for times in (1, 3)
        )
    finally:
        weight.requires_grad_(False)
    assert thrice.item() == pytest.approx(once.item(), rel=1e-5) and once > 0


def test_a_docstring_of_a_word_is_not_looked_at(tiny, monkeypatch):
    texts = ["x" * (module.SHORTEST - 1), "y" * module.SHORTEST]
    monkeypatch.setattr(module, "documentation_of", lambda split: texts)
    (batch,) = Probe.of(tiny, "docstrings", 2, 0).batches
    assert len(batch.tokens) == 1 and tiny.decode(batch.tokens[0].tolist()).strip("y") == ""
