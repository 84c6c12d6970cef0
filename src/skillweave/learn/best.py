"""The best step of a run: tensors as they were when a loss on held-out examples was lowest.

What is kept is part of the run's saved state, and looks are taken at fixed steps, so a run that was killed keeps the same.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .batches import Batch
from .loop import Group

LOOKS = 10
"""How often a run of any length is looked at, besides at its end."""


class Best:
    """`tensors`, and those of them that had the lowest `loss`; their start counts as well."""

    def __init__(self, tensors: Mapping[str, Tensor], loss: Callable[[], float], steps: int):
        self.tensors, self.loss, self.every = tensors, loss, max(1, steps // LOOKS)
        self.kept = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        self.lowest = torch.tensor(float("inf"))

    @property
    def group(self) -> Group:
        """What has to be saved with the run; nothing in it learns."""
        return Group({f"best:{name}": tensor for name, tensor in self.kept.items()} | {"best:loss": self.lowest}, 0.0)

    def watch(self, batch: Callable[[int], Batch]) -> Callable[[int], Batch]:
        """`batch`, with a look at the tensors before some of the steps."""

        def at(step: int) -> Batch:
            if step % self.every == 0:
                self.look()
            return batch(step)

        return at

    def look(self) -> None:
        """Keep the tensors if their loss is the lowest so far."""
        with torch.no_grad():
            loss = self.loss()
            if loss < self.lowest:
                self.lowest.fill_(loss)
                for name, tensor in self.tensors.items():
                    self.kept[name].copy_(tensor)

    def restore(self) -> None:
        """A last look, then the best tensors in the place of the last."""
        self.look()
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(self.kept[name])
