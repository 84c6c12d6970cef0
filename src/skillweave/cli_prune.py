"""`skillweave prune`: a base model with narrower MLPs, as a folder of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from . import gemma
from .cli import Common
from .progress import say
from .result import Table


@dataclass(frozen=True)
class Pruned:
    """What was cut, and where the rest is."""

    base: str
    out: Path
    score: str
    share: float
    width: tuple[int, int]
    """Neurons of each MLP, before and after."""
    parameters: tuple[int, int]
    """Weights of the model, before and after."""
    dtype: str
    """The number format of the files: the one that the model was read in."""

    @property
    def next(self) -> str:
        return f"skillweave learn date --task date --base {self.out}"

    def table(self) -> Table:
        rows = (("neurons of an MLP", *map(_thousands, self.width)), ("parameters", *map(_thousands, self.parameters)))
        note = f"{self.share:.0%} of the neurons cut by {self.score}; {self.dtype} in {self.out}"
        return Table(("", "before", "after"), rows, title=self.base, note=note)


def _thousands(count: int) -> str:
    return f"{count:,}"


def prune(
    base: str,
    /,
    *,
    share: float,
    out: Annotated[Path, Parameter(metavar="DIR")],
    score: Literal["ppm", "vow", "pon", "random"] = "ppm",
    dtype: Literal["auto", "bf16", "fp32"] = "auto",
    common: Common = Common(),
) -> int:
    """Cut the least MLP neurons out of a base model and write the rest as a model folder; nothing is trained.

    Parameters
    ----------
    base
        The model: a name, a local folder, or a name on the Hugging Face hub.
    share
        The share of the neurons of every MLP to cut, from 0 to below 1.
    out
        The folder to write; there must be none yet.
    score
        What decides: ppm, the range of a neuron's weights; vow, their variance; pon, the product of norms; random.
    dtype
        The number format to read and write; auto is bf16 where the processor has it, else fp32.
    """
    from .base import load_base, save_base
    from .compose.prune import check, parameters, width, width_prune
    from .files import check_new
    from .verbs import kind

    check(share, score)
    check_new(out)
    whole = load_base(base, dtype)
    if base == gemma.NAME:
        say(f"what is written is a derivative of Gemma, under the Gemma Terms of Use: {gemma.TERMS}")
    small = width_prune(whole, share, score, common.seed)
    save_base(small, out)
    widths, weights = (width(whole), width(small)), (parameters(whole), parameters(small))
    return common.show(Pruned(base, out, score, share, widths, weights, kind(small)))
