"""A skill on one base: what of it is W x + α s B A x, and what it does besides.

DoRA (2402.09353) gives each row of W + s B A a length m. On a base whose weights are known this is

    y = g ∘ (W x + s B A x) + b,   g = m / ‖W + s B A‖,   ‖W + s B A‖² = ‖W‖² + (2 s (W Aᵀ) ∘ B + s² (B A Aᵀ) ∘ B) · 1

with the norms of rows taken in the factors. Its change of the weights is thus ΔW = (g - 1) ∘ W + s (g ∘ B) A: a plain low-rank
part, and a gain of what the layer gave. At strength α it adds α ΔW, so several skills add up in any order.

Replaced weights have no strength: they are in use or not. A dense or sparse change adds α S x (`products.py`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .base import Base
from .delta import Factors, LowRank, Replacement
from .delta_full import Full
from .errors import BadOption, BaseMismatch
from .products import Product, product
from .slots import SkillConv1D
from .strength import Rows


@dataclass(frozen=True)
class Fitted:
    """One skill on one base."""

    name: str
    plain: LowRank
    """Of linear layers: what the kernels of a bank compute; the skill itself where there is nothing else."""
    special: Mapping[str, Factors]
    """Of the head and the table of embeddings."""
    gain: Mapping[str, Float[Tensor, " outside"]] = field(default_factory=dict)
    bias: Mapping[str, Float[Tensor, " outside"]] = field(default_factory=dict)
    replaced: Mapping[str, Replacement] = field(default_factory=dict)
    full: Mapping[str, Product] = field(default_factory=dict)

    @property
    def more(self) -> bool:
        """Whether there is anything that no kernel computes."""
        return bool(self.special or self.gain or self.bias or self.replaced or self.full)

    def changes(self, slot: str) -> bool:
        """Whether it does anything to a layer."""
        return slot in {*self.plain.factors, *self.special, *self.gain, *self.bias, *map(_slot, self.replaced), *self.full}


def fit(base: Base, name: str, skill: LowRank) -> Fitted:
    """`skill` on `base`. Raises BaseMismatch, with the layer, if it does not fit."""
    gain, bias, factors = {}, {}, {}
    for slot, f in skill.factors.items():
        matrix = _check_shape(base, name, slot, f)
        if f.bias is not None:
            bias[slot] = f.bias.float() * f.scale
        if f.magnitude is not None:
            g = f.magnitude.float() / row_norms(matrix, f)
            gain[slot] = g - 1
            f = Factors(f.a, g[:, None] * f.b.float(), f.scale)
        factors[slot] = f
    replaced = dict(skill.replaced)
    for weight, new in skill.replaced.items():
        _check_replaced(base, name, weight, new)
        if weight.endswith(".weight") and isinstance(base.linears.get(_slot(weight)), SkillConv1D):
            replaced[weight] = Replacement(new.values.t())  # outside x inside, as everywhere here
        if base.tied and new.rows is not None and _slot(weight) == base.table_slot:
            replaced[f"{base.head_slot}.weight"] = new  # new rows of a tied table are new rows of the head
    ends = (base.head_slot, base.table_slot)
    special = {slot: f for slot, f in factors.items() if slot in ends}
    simple = not (special or gain or bias or replaced or skill.full)
    plain = skill if simple else LowRank({slot: f for slot, f in factors.items() if slot not in ends})
    for slot, part in skill.full.items():
        _check_full(base, name, slot, part)
    full = {slot: product(part, base.dtype) for slot, part in skill.full.items()}
    return Fitted(name, plain, special, gain, bias, replaced, full)


def row_norms(weight: Float[Tensor, "outside inside"], f: Factors) -> Float[Tensor, " outside"]:
    """‖W + s B A‖ of each row, without the product B A."""
    w, a, b = weight.float(), f.a.float(), f.b.float()
    across = ((w @ a.t()) * b).double().sum(1)
    own = ((b @ (a @ a.t())) * b).double().sum(1)
    squares = w.square().sum(1, dtype=torch.float64) + 2 * f.scale * across + f.scale**2 * own
    return squares.clamp(min=torch.finfo(torch.float32).tiny).sqrt().float()


def check_owners(skills: Iterable[Fitted]) -> None:
    """Raises BaseMismatch if two skills replace the same weight."""
    owner: dict[str, str] = {}
    for skill in skills:
        for weight in skill.replaced:
            if weight in owner:
                raise BaseMismatch(
                    f"`{owner[weight]}` and `{skill.name}` both replace `{weight}` of the base.", "use one of them at a time"
                )
            owner[weight] = skill.name


def check_uniform(skills: Iterable[Fitted]) -> None:
    """Raises BadOption if one changes the embeddings or the head, or replaces weights, and so has one strength for a batch."""
    for skill in skills:
        if skill.special or skill.replaced:
            what = "replaces weights" if skill.replaced else "changes the embeddings or the head"
            raise BadOption(
                f"`{skill.name}` {what}: its strength cannot differ within a batch.",
                "use it with one strength for each layer",
            )


def dress(base: Base, skills: Mapping[int, Fitted], strength: Rows, edits: dict) -> dict:
    """The edits of the kernels, and with them what `skills` (by their numbers in the strengths) do besides."""
    strong = {k: skill for k, skill in skills.items() if skill.more}
    for k, skill in strong.items():
        row = strength.alpha[k]
        if skill.replaced and not bool((row == row[0]).all() and row[0] in (0, 1)):
            weight = next(iter(skill.replaced))
            raise BadOption(f"`{skill.name}` replaces `{weight}`: it can be on or off, but not in between.", "use strength one")
    own = {s for f in strong.values() for s in (*f.gain, *f.bias, *f.special, *map(_slot, f.replaced), *f.full)}
    for slot in own:
        extras = _extras(slot, strong, strength)
        if slot == base.head_slot:
            edits[slot] = Head(extras)
        elif slot == base.table_slot:
            edits[slot] = Table(extras)
        else:
            edits[slot] = Dressed(edits.get(slot), extras)
    return edits


@dataclass(frozen=True)
class Extras:
    """What skills do to one layer besides the kernels."""

    gain: Tensor | None = None
    bias: Tensor | None = None
    parts: Sequence[tuple[Factors, Tensor]] = ()
    """Factors and strengths of a layer that no kernel computes."""
    new: Mapping[str, Replacement] = field(default_factory=dict)
    """By the last part of the name: weight or bias."""
    full: Sequence[tuple[Product, Tensor]] = ()
    """Dense and sparse changes, and their strengths."""

    def weight(self, old: Tensor) -> Tensor:
        new = self.new.get("weight")
        return old if new is None or new.rows is not None else new.values.to(old.dtype)


def _extras(slot: str, strong: Mapping[int, Fitted], strength: Rows) -> Extras:
    def total(part: str) -> Tensor | None:
        own = {k: getattr(skill, part) for k, skill in strong.items()}
        here = [change[slot] * strength.at(k, slot) for k, change in own.items() if slot in change]
        return torch.stack(here).sum(0) if here else None

    special = [(k, skill.special[slot]) for k, skill in strong.items() if slot in skill.special]
    on = [skill.replaced.items() for k, skill in strong.items() if strength.alpha[k, 0]]
    new = {weight.rpartition(".")[2]: r for items in on for weight, r in items if _slot(weight) == slot}
    full = [(skill.full[slot], strength.at(k, slot)) for k, skill in strong.items() if slot in skill.full]
    return Extras(total("gain"), total("bias"), [(f, strength.at(k, slot) * f.scale) for k, f in special], new, full)


class Dressed:
    """The edit of a linear layer: the kernel's, and a gain, a bias, a weight or entries of the skills' own."""

    def __init__(self, kernel, extras: Extras):
        self.kernel, self.extras = kernel, extras

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        weight, extras = self.extras.weight(weight), self.extras
        bias = extras.new["bias"].values if "bias" in extras.new else bias
        y = (F.linear(x, weight) if self.kernel is None else self.kernel(x, weight, None)).float()
        if extras.gain is not None:
            y = y + F.linear(x, weight).float() * extras.gain
        for change, strength in extras.full:
            y = y + change(x) * strength
        for extra in (bias, extras.bias):
            y = y if extra is None else y + extra
        return y.to(x.dtype)


class Table:
    """The edit of the embeddings: (tokens, rows of the base, the model's factor) -> rows."""

    def __init__(self, extras: Extras):
        self.extras = extras

    def __call__(self, tokens: Tensor, rows: Tensor, factor: Tensor | float) -> Tensor:
        factor = torch.as_tensor(factor, dtype=rows.dtype)
        if (new := self.extras.new.get("weight")) is not None:
            if new.rows is None:
                rows = F.embedding(tokens, new.values.to(rows.dtype)) * factor
            else:
                place = _places(tokens, new.rows)
                fresh = new.values.to(rows.dtype)[place.clamp(min=0)] * factor
                rows = torch.where(place[..., None] >= 0, fresh, rows)
        for f, strength in self.extras.parts:
            rows = rows + (F.embedding(tokens, f.a.t().to(rows.dtype)) @ f.b.t().to(rows.dtype)) * (strength * factor)
        return rows


class Head:
    """The edit of the head, for the tokens that are asked for: (rows, weight, bias, tokens) -> logits."""

    def __init__(self, extras: Extras):
        self.extras = extras

    def __call__(self, rows: Tensor, weight: Tensor, bias: Tensor | None, tokens: slice | Tensor) -> Tensor:
        extras = self.extras
        logits = F.linear(rows, extras.weight(weight)[tokens]).float()
        new = extras.new.get("weight")
        if new is not None and new.rows is not None:
            place = _places(torch.arange(len(weight))[tokens], new.rows)
            known = (place >= 0).nonzero()[:, 0]
            logits = logits.index_copy(1, known, F.linear(rows, new.values.to(rows.dtype)[place[known]]).float())
        if extras.gain is not None:
            logits = logits * (1 + extras.gain[tokens])
        for f, strength in extras.parts:
            low = F.linear(rows, f.a.to(rows.dtype)) * strength
            logits = logits + F.linear(low.to(rows.dtype), f.b[tokens].to(rows.dtype))
        for extra in (extras.new["bias"].values if "bias" in extras.new else bias, extras.bias):
            logits = logits if extra is None else logits + extra[tokens]
        return logits.to(rows.dtype)


def _places(tokens: Tensor, rows: Tensor) -> Tensor:
    """Where in `rows` each of `tokens` is; -1 for one that is not there."""
    ordered, order = rows.sort()
    at = torch.searchsorted(ordered, tokens).clamp(max=len(rows) - 1)
    return torch.where(ordered[at] == tokens, order[at], -1)


def _slot(weight: str) -> str:
    return weight.rpartition(".")[0]


def _check_shape(base: Base, name: str, slot: str, f: Factors) -> Tensor:
    """The weight (outside x inside) of the layer that `f` changes, if it fits."""
    if slot == base.table_slot:
        matrix = base.table.t()
    elif slot == base.head_slot:
        matrix = base.head
    elif slot in base.linears:
        matrix = base.linears[slot].matrix
    else:
        raise BaseMismatch(f"skill `{name}` changes the layer `{slot}`, which {base.name} does not have.")
    if f.lookup != (slot == base.table_slot):
        kinds = ("a linear layer", "a table of embeddings")
        raise BaseMismatch(f"skill `{name}` takes `{slot}` for {kinds[f.lookup]}; in {base.name} it is {kinds[not f.lookup]}.")
    if (f.b.shape[0], f.a.shape[1]) != tuple(matrix.shape):
        raise BaseMismatch(
            f"skill `{name}` has a change of {f.b.shape[0]} x {f.a.shape[1]} for `{slot}`, which is "
            f"{matrix.shape[0]} x {matrix.shape[1]} in {base.name}."
        )
    return matrix


def _check_full(base: Base, name: str, slot: str, part: Full) -> None:
    if slot not in base.linears:
        ends = f"; the head and the embeddings of {base.name} take factors only" * (slot in (base.head_slot, base.table_slot))
        raise BaseMismatch(f"skill `{name}` changes entries of `{slot}`, which is no linear layer of {base.name}{ends}.")
    shape = tuple(base.linears[slot].matrix.shape)
    if part.shape != shape:
        own = " x ".join(map(str, part.shape))
        raise BaseMismatch(
            f"skill `{name}` has a change of {own} for `{slot}`, which is {shape[0]} x {shape[1]} in {base.name}."
        )


def _check_replaced(base: Base, name: str, weight: str, new: Replacement) -> None:
    old = weight_of(base, weight)
    if old is None:
        known = "a linear layer, the head or the embeddings"
        raise BaseMismatch(f"skill `{name}` replaces `{weight}`, which is not the weight or bias of {known} of {base.name}.")
    fits = new.values.shape[1:] == old.shape[1:] and (new.rows is not None or len(new.values) == len(old))
    if not fits or (new.rows is not None and not bool(((new.rows >= 0) & (new.rows < len(old))).all())):
        shapes = f"{tuple(new.values.shape)} for `{weight}`, which is {tuple(old.shape)}"
        raise BaseMismatch(f"skill `{name}` has new values of {shapes} in {base.name}.")


def weight_of(base: Base, weight: str) -> Tensor | None:
    """The weight or bias, as the base holds it, of a layer that a skill can replace."""
    slot, _, part = weight.rpartition(".")
    layer = {**base.linears, base.head_slot: base.head_layer, base.table_slot: base.table_layer}.get(slot)
    return getattr(layer, part, None) if part in ("weight", "bias") else None


def materialise(base: Base, skill: Fitted, rank: int) -> tuple[LowRank, float]:
    """The best plain change of `rank` in each layer, and ‖what is lost‖ / ‖ΔW‖ over all layers, unitless.

    ΔW = (g - 1) ∘ W + s (g ∘ B) A is formed here, one layer at a time.
    """
    if skill.replaced:
        raise BadOption(f"`{skill.name}` replaces weights, which no factors can stand for.", "import it as it is")
    factors, energy, lost = {}, 0.0, 0.0
    for slot, f in {**skill.plain.factors, **skill.special}.items():
        change = f.dense()
        if slot in skill.gain:
            change += skill.gain[slot][:, None] * (base.head if slot == base.head_slot else base.linears[slot].matrix).float()
        u, s, v = torch.linalg.svd(change, full_matrices=False)
        half = s[:rank].sqrt()
        bias = skill.bias.get(slot)
        factors[slot] = Factors(half[:, None] * v[:rank], u[:, :rank] * half, bias=bias, lookup=f.lookup)
        energy, lost = energy + float(s.square().sum()), lost + float(s[rank:].square().sum())
    return LowRank(factors), (lost / energy) ** 0.5 if energy else 0.0
