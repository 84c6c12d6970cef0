"""Overlap of grafts, calibration, and the confidence of a model that has to choose."""

import pytest
import torch

from skillweave.delta import LowRank
from skillweave.delta_full import Dense, Sparse
from skillweave.errors import BadOption
from skillweave.measure.localize import calibration_error, choice_shares, overlap


def graft(**places):
    return LowRank(
        {}, full={s: Sparse(torch.tensor(p, dtype=torch.int32), torch.ones(len(p)), (4, 5)) for s, p in places.items()}
    )


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ({"x": [1, 2, 3]}, {"x": [1, 2, 3]}, 1.0),
        ({"x": [1, 2, 3]}, {"x": [4, 5]}, 0.0),
        ({"x": [1, 2, 3]}, {"x": [2, 3, 4]}, 0.5),
        ({"x": [1, 2]}, {"y": [1, 2]}, 0.0),  # the same places of another layer are other weights
        ({"x": [1, 2], "y": [7]}, {"y": [7]}, 1 / 3),
        ({}, {}, 0.0),
        ({"x": []}, {"x": [1]}, 0.0),
    ],
)
def test_overlap_is_the_share_of_common_weights(one, other, wanted):
    assert overlap(graft(**one), graft(**other)) == overlap(graft(**other), graft(**one)) == pytest.approx(wanted)


def test_dense_changes_have_no_overlap_of_places():
    with pytest.raises(BadOption, match="`x` is changed in full"):
        overlap(graft(x=[1]), LowRank({}, full={"x": Dense(torch.ones(4, 5))}))


def test_calibration_error_by_hand():
    # bins (0.5, 0.6]: two answers, sure by 0.55, one right; (0.9, 1]: two, sure by 0.95, both right; (0.0, 0.1]: one, wrong
    sure, right = [0.55, 0.55, 0.95, 0.95, 0.05], [1.0, 0.0, 1.0, 1.0, 0.0]
    assert calibration_error(sure, right) == pytest.approx((2 * 0.05 + 2 * 0.05 + 1 * 0.05) / 5)
    assert calibration_error([1.0, 1.0], [1.0, 0.0]) == 0.5
    assert calibration_error([0.0, 1.0], [0.0, 1.0]) == 0.0
    assert calibration_error([0.6], [1.0]) == pytest.approx(0.4)


def test_bins_are_open_on_the_left():
    assert calibration_error([0.5, 0.51], [1.0, 0.0], bins=2) == pytest.approx((0.5 + 0.51) / 2)
    assert calibration_error([0.4, 0.5], [1.0, 0.0], bins=2) == pytest.approx(0.05)


def test_calibration_finds_what_is_calibrated():
    draw = torch.Generator().manual_seed(0)
    sure = torch.rand(20_000, generator=draw)
    right = (torch.rand(20_000, generator=draw) < sure).double()
    assert calibration_error(sure.tolist(), right.tolist()) < 0.02
    assert calibration_error((sure.sqrt()).tolist(), right.tolist()) > 0.1


@pytest.mark.parametrize(("sure", "right"), [([], []), ([0.5], [1.0, 0.0])])
def test_answers_and_confidences_are_as_many(sure, right):
    with pytest.raises(ValueError, match="one confidence an answer"):
        calibration_error(sure, right)


def test_shares_are_among_the_answers_alone(tiny):
    prompts = ["is it so?", "no", "a much longer one, then?"]
    shares = choice_shares(tiny, prompts, ("y", "n"))
    assert shares.shape == (3, 2) and torch.allclose(shares.sum(1), torch.ones(3))
    for prompt, (yes, _) in zip(prompts, shares.tolist(), strict=True):
        tokens = torch.tensor([tiny.encode(f"{prompt} ", start=True)])
        logits = tiny.logits(tiny.hidden(tokens)[0, -1:])[0]
        pair = logits[tiny.encode("yn")].softmax(0)
        assert yes == pytest.approx(pair[0].item(), rel=1e-4)
