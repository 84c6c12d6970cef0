"""Cross-entropy in tiles is cross-entropy, and holds no more logits than a tile."""

import pytest
import torch
import torch.nn.functional as F

from skillweave.base import TinyBase
from skillweave.learn import loss as module
from skillweave.learn.loss import cross_entropy, token_nats

DRAW = torch.Generator().manual_seed(0)


@pytest.fixture
def rows(tiny):
    return 8 * torch.randn(37, 32, generator=DRAW), torch.randint(0, len(tiny.tokenizer), (37,), generator=DRAW)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("tile", [1, 7, 98, 99, 100, 4096])
def test_value_and_gradient_are_those_of_all_logits_at_once(tiny, rows, tile, softcap, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 10)
    monkeypatch.setattr(tiny, "softcap", softcap)
    hidden, labels = rows
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    one, other = cross_entropy(tiny, ours, labels, tile), F.cross_entropy(tiny.logits(theirs), labels)
    assert torch.allclose(one, other, rtol=1e-6)
    (one * 3).backward()
    (other * 3).backward()
    assert theirs.grad.abs().max() > 1e-3
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("order", [1, -1])
def test_logits_far_apart_do_not_overflow(tiny, rows, order, monkeypatch):
    """Whether the largest comes first or last: the running sum is rescaled."""
    hidden, labels = rows
    heads = torch.linspace(-300 * order, 300 * order, len(tiny.head))[:, None].expand(-1, 32).contiguous()
    monkeypatch.setattr(type(tiny), "head", property(lambda self: heads))
    one, other = cross_entropy(tiny, hidden, labels, 8), F.cross_entropy(tiny.logits(hidden), labels)
    assert torch.isfinite(other) and torch.allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("learning", [True, False])
def test_never_more_logits_than_a_tile(tiny, rows, monkeypatch, learning):
    seen, head = [], tiny.logits
    monkeypatch.setattr(module, "ROWS", 20)
    monkeypatch.setattr(tiny, "logits", lambda part, tokens: seen.append(head(part, tokens).shape) or head(part, tokens))
    cross_entropy(tiny, rows[0].requires_grad_(learning), rows[1], 40)
    last = len(tiny.head) - 80
    chunks = [[(n, n), (n, 40), (n, 40), (n, last)] for n in (20, 17)]  # the labels' own, then the tiles
    assert 0 < last < 40 and [tuple(shape) for shape in seen] == chunks[0] + chunks[1]


def test_a_certain_row_leaves_most_tiles_out(monkeypatch):
    """And its gradient is the same."""
    tiny, label = TinyBase(32), torch.tensor([50])
    row = 40 * torch.nn.functional.normalize(tiny.head[50], dim=0)[None] / tiny.head[50].norm()
    products, ours, theirs = [], row.clone().requires_grad_(), row.clone().requires_grad_()
    matmul = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda one, other: products.append(len(one)) or matmul(one, other))
    cross_entropy(tiny, ours, label, 10).backward()
    assert len(products) == 10 and sum(products) < 5
    F.cross_entropy(tiny.logits(theirs), label).backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-6)


def test_in_bf16_it_is_as_right_as_its_logits(rows):
    """The sum runs in fp32."""
    tiny = TinyBase(32)
    tiny.model.bfloat16()
    hidden, labels = rows[0].bfloat16(), rows[1]
    right = F.cross_entropy(tiny.logits(hidden).float(), labels)
    assert torch.allclose(cross_entropy(tiny, hidden, labels, 16), right, rtol=1e-5)


def test_in_bf16_a_certain_row_still_learns_in_the_right_direction():
    """p_label is 0.999: rounded to bf16 beside the label's own term, what is left of the gradient would be noise."""
    tiny = TinyBase(32)
    tiny.model.bfloat16()
    label = torch.tensor([50])
    own = tiny.head[50].float()
    row = (12 * own / own.square().sum())[None].bfloat16()  # its own logit is 12
    exact = row.float().requires_grad_()
    F.cross_entropy(exact @ tiny.head.float().t(), label).backward()
    ours = row.clone().requires_grad_()
    value = cross_entropy(tiny, ours, label, 16)
    value.backward()
    assert 1e-4 < value < 0.1
    assert (ours.grad.float() - exact.grad).norm() < 0.05 * exact.grad.norm()


def test_without_gradients_it_is_only_a_number(tiny, rows):
    hidden, labels = rows
    with torch.inference_mode():
        value = cross_entropy(tiny, hidden, labels, 8)
    assert torch.allclose(value, F.cross_entropy(tiny.logits(hidden), labels), rtol=1e-6)


def test_the_head_stays_frozen(tiny, rows):
    cross_entropy(tiny, rows[0].requires_grad_(), rows[1]).backward()
    assert tiny.head.grad is None


def test_no_rows_cost_nothing(tiny):
    hidden = torch.zeros(0, 32, requires_grad=True)
    value = cross_entropy(tiny, hidden, torch.zeros(0, dtype=torch.long))
    value.backward()
    assert value == 0 and hidden.grad.shape == (0, 32)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("tile", [7, 99, 4096])
def test_nats_of_each_token_are_those_of_a_full_softmax(tiny, rows, tile, softcap, temperature, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 10)
    monkeypatch.setattr(tiny, "softcap", softcap)
    hidden, labels = rows
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    one = token_nats(tiny, ours, labels, temperature, tile)
    other = -torch.log_softmax(tiny.logits(theirs) / temperature, 1).gather(1, labels[:, None])[:, 0]
    assert one.shape == (37,) and torch.allclose(one, other, rtol=1e-5)
    weight = torch.linspace(-1, 2, 37)
    (one * weight).sum().backward()
    (other * weight).sum().backward()
    assert theirs.grad.abs().max() > 1e-3
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-7)


def test_nats_of_tokens_hold_no_more_logits_than_a_tile(tiny, rows, monkeypatch):
    seen, head = [], tiny.logits
    monkeypatch.setattr(module, "ROWS", 20)
    monkeypatch.setattr(tiny, "logits", lambda part, tokens: seen.append(head(part, tokens).shape) or head(part, tokens))
    token_nats(tiny, rows[0].requires_grad_(), rows[1], 1.0, 40).sum().backward()
    assert len(seen) == 8 and max(a * b for a, b in seen) <= 20 * 40
