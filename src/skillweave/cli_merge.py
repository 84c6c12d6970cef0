"""`skillweave merge`: several adapters become one, without a model."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from .cli import Common, Knobs
from .errors import BadOption


def merge(
    adapters: list[str] | None = None,
    /,
    *,
    out: Annotated[Path, Parameter(metavar="DIR")],
    weights: Annotated[tuple[float, ...], Parameter(consume_multiple=True, show_default=False)] = (),
    method: str = "sum",
    base: Annotated[str | None, Parameter(metavar="MODEL", show_default=False)] = None,
    rank: str | None = None,
    recipe: Annotated[Path | None, Parameter(metavar="FILE", show_default=False)] = None,
    set: Annotated[tuple[str, ...], Parameter(metavar="KEY=VALUE", show_default=False)] = (),
    common: Common = Common(),
) -> int:
    """Merge adapters into one; no model is loaded.

    What is written is an adapter in PEFT's format, with a provenance.json beside it.

    Parameters
    ----------
    adapters
        Folders of PEFT adapters, or skills of the library; with --base, of models.
    out
        The new folder to write.
    weights
        One a adapter; 1 each if not given.
    method
        sum, subtract, magnitude, ties, knots, dare, dare-ties, della or breadcrumbs.
    base
        Merge whole models instead: the folders are fine-tunes of this one (a folder, or gemma-3-270m).
    rank
        What to keep: a number, or the share of the energy as in energy:0.99; exact if not given.
    recipe
        A TOML file with adapters, method and options instead.
    set
        Any other option of the method; may be repeated.
    """
    from . import merging

    options = Knobs(set=set).options() | _kept(rank) | ({"weights": weights} if weights else {})
    if base is not None and recipe is None:
        how: dict[str, Any] = {"base": base, "out": out, "method": method, "seed": common.seed, "options": options}
        return common.show(merging.merge_models(adapters or [], **how))
    if recipe is None:
        return common.show(
            merging.merge(adapters or [], out=out, library=common.library, method=method, seed=common.seed, options=options)
        )
    if adapters or options or method != "sum" or base is not None:
        raise BadOption(f"both --recipe {recipe} and what is in it were given.", "keep one of the two")
    return common.show(merging.merge(**{"seed": common.seed, **merging.recipe(recipe)}, out=out, library=common.library))


def _kept(words: str | None) -> dict[str, Any]:
    """The options that --rank stands for."""
    if words is None or words == "exact":
        return {}
    kind, colon, share = words.partition(":")
    try:
        return {"energy": float(share)} if colon and kind == "energy" else {"rank": int(words)}
    except ValueError:
        raise BadOption(f"--rank is `{words}`.", "give a number, energy:0.99 or exact") from None
