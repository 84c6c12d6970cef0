"""Distances between a student's and a teacher's next tokens: by hand, in pieces, where both have read the same text."""

import copy

import pytest
import torch
import torch.nn.functional as F

from skillweave.bank import SkillBank
from skillweave.base import TinyBase
from skillweave.composition import Active
from skillweave.learn import soft
from skillweave.learn.batches import Batches
from skillweave.learn.soft import Guide, boundaries, divergence, meeting, same_vocabulary, sorted_distance
from skillweave.task import Example

EXAMPLES = [Example(f"in {i}\n", f"{i * 37} ab"[: 1 + i % 5]) for i in range(12)]


class Pairs:
    """Two characters a token, and a last one alone: another way to cut the same text."""

    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2

    def __init__(self):
        self.known: list[str] = []

    def encode(self, text, add_special_tokens=False):
        parts = [text[i : i + 2] for i in range(0, len(text), 2)]
        self.known += [part for part in dict.fromkeys(parts) if part not in self.known]
        return [self.known.index(part) + 4 for part in parts]

    def decode(self, tokens, skip_special_tokens=True):
        return "".join(self.known[t - 4] for t in tokens if t >= 4)

    def get_vocab(self):
        return {part: i for i, part in enumerate(self.known)}


@pytest.fixture
def paired(loud):
    """A base that reads two characters at once."""
    base = copy.copy(loud(seed=3))
    base.tokenizer = Pairs()
    return base


def test_divergence_by_hand():
    p, q = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.2, 0.5, 0.3]])
    wanted = sum(a * (a / b).log() for a, b in zip(p[0], q[0], strict=True))
    torch.testing.assert_close(divergence(q.log() + 3, p.log())[0], wanted)
    assert divergence(p.log(), p.log()).item() == pytest.approx(0, abs=1e-6)


def test_sorted_distance_by_hand_and_blind_to_names():
    p, q = torch.tensor([[0.6, 0.1, 0.3]]).log(), torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log()
    assert sorted_distance(q, p).item() == pytest.approx(0.2 + 0.0 + 0.1 + 0.1, abs=1e-6)  # .6 .3 .1 0 against .4 .3 .2 .1
    assert sorted_distance(p[:, [2, 0, 1]], p).item() == pytest.approx(0, abs=1e-6)


def test_what_is_beyond_the_likeliest_counts_as_one_sum_and_never_as_more():
    draw = torch.Generator().manual_seed(0)
    p, q = (torch.randn(5, width, generator=draw) * 3 for width in (40, 30))
    whole = sorted_distance(q, p, top=40)
    cut = [sorted_distance(q, p, top=top) for top in (1, 4, 16)]
    assert all((part <= whole + 1e-6).all() for part in cut) and (cut[0] < whole - 1e-3).any()
    alone = (p.softmax(1).amax(1) - q.softmax(1).amax(1)).abs()
    torch.testing.assert_close(cut[0], 2 * alone)  # the first, and what is left


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_loss_in_pieces_is_the_whole_one_with_its_gradient(loud, random_skill, monkeypatch, temperature):
    base = loud()
    teacher = Active(base, SkillBank(base, {"t": random_skill(base)}))
    batch = Batches(base, EXAMPLES, 4, seed=0).at(0)
    rows = base.hidden(batch.tokens).flatten(0, 1)[batch.rows]
    with teacher.on([]):
        theirs = base.hidden(batch.tokens).flatten(0, 1)[batch.rows]
    found = []
    for size in (3, 1000):
        monkeypatch.setattr(soft, "ROWS", size)
        own = rows.clone().requires_grad_()
        Guide(teacher, base, EXAMPLES, temperature).loss(batch, own).backward()
        found.append(own.grad)
    own = rows.clone().requires_grad_()
    p, q = (base.logits(x).div(temperature).log_softmax(1) for x in (theirs, own))
    whole = temperature**2 * F.kl_div(q, p, reduction="batchmean", log_target=True)
    whole.backward()
    assert whole.item() > 0.01
    for gradient in found:
        torch.testing.assert_close(gradient, own.grad, rtol=1e-4, atol=1e-6)


def test_pieces_of_a_batch_add_up(loud, random_skill, paired):
    base = loud()
    batch = Batches(base, EXAMPLES, 6, seed=0).at(0)
    for teacher in (Active(base, SkillBank(base, {"t": random_skill(base)})), Active(paired)):
        guide = Guide(teacher, base, EXAMPLES, 1.0)
        parts = batch.pieces(2 * batch.tokens.shape[1])
        sums = [guide.loss(b, base.hidden(b.tokens).flatten(0, 1)[b.rows]).item() * len(b.labels) for b in (batch, *parts)]
        assert len(parts) == 3 and sums[0] == pytest.approx(sum(sums[1:]), rel=1e-4)


def test_the_teacher_gets_no_gradient_and_stays_as_it_is(loud, random_skill):
    base = loud()
    skill = random_skill(base)
    for tensor in skill.tensors().values():
        tensor.requires_grad_()
    batch = Batches(base, EXAMPLES, 4, seed=0).at(0)
    rows = base.hidden(batch.tokens).flatten(0, 1)[batch.rows].requires_grad_()
    Guide(Active(base, SkillBank(base, {"t": skill})), base, EXAMPLES, 1.0).loss(batch, rows).backward()
    assert rows.grad is not None and all(tensor.grad is None for tensor in skill.tensors().values())


def test_two_tokenizers_meet_where_both_have_read_the_same(tiny, paired):
    assert boundaries(tiny, "abcde") == {i: i for i in range(6)}
    assert boundaries(paired, "abcde") == {0: 0, 2: 1, 4: 2, 5: 3}
    assert meeting(tiny, paired, "abcde") == [(0, 0), (2, 1), (4, 2), (5, 3)]  # the last predict the end
    assert meeting(tiny, paired, "") == [(0, 0)]


def test_what_a_tokenizer_cannot_say_is_no_meeting(tiny, paired):
    assert meeting(tiny, paired, "ab\N{GREEK SMALL LETTER ALPHA}d") == [(0, 0), (2, 1)]


def test_rows_are_paired_with_those_that_have_read_the_same_text(loud, paired):
    base = loud()
    guide = Guide(Active(paired), base, EXAMPLES, 1.0)
    assert not guide.same
    batch = Batches(base, EXAMPLES, 5, seed=1).at(0)
    ours, theirs = guide._rows(batch)
    seen = 0
    for sample in batch.samples:
        e = EXAMPLES[sample]
        start = sum(guide.counts[i] for i in batch.samples[: batch.samples.index(sample)])
        for here, there in guide.places[sample]:
            text = e.completion[: 2 * there]
            alone = paired.hidden(torch.tensor([paired.encode(e.prompt, start=True) + paired.encode(text)]))[0, -1]
            assert ours[seen].item() == start + here and len(text) == here
            torch.testing.assert_close(theirs[seen], alone, rtol=1e-3, atol=1e-3)
            seen += 1
    assert seen == len(ours) == len(theirs) > 5


def test_the_same_vocabulary_is_the_same_text_a_number(tiny, loud, paired):
    assert same_vocabulary(tiny, loud()) and not same_vocabulary(tiny, paired)
    assert not same_vocabulary(tiny, TinyBase(32, alphabet="abc"))
