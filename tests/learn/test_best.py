"""The best step of a run: kept as it was, with the start and the end among those that are looked at."""

import pytest
import torch

from skillweave.learn.batches import collate
from skillweave.learn.best import Best


@pytest.mark.parametrize(
    ("losses", "kept"),
    [((2.0, 1.0, 0.5), 9.0), ((2.0, 1.0, 1.5), 5.0), ((1.0, 2.0, 1.5), 1.0), ((1.0, 1.0, 1.0), 1.0)],
)
def test_the_lowest_loss_is_kept_and_the_last_step_is_looked_at(losses, kept):
    learned, asked = torch.tensor([1.0]), iter(losses)
    best = Best({"w": learned}, lambda: next(asked), 20)
    batch = best.watch(lambda step: collate([([1, 2], 1)], 0))
    batch(0)  # the start
    learned.fill_(5.0)
    batch(1)  # between two looks
    batch(2)
    learned.fill_(9.0)
    best.restore()
    assert learned.item() == kept and best.lowest.item() == min(losses) and next(asked, None) is None
