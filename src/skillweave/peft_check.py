"""Does an adapter do on this base what it says? What PEFT passes over in silence is refused here, with the names.

PEFT loads with missing and unexpected keys, and a model whose adapter did not fit is then the base. So after reading: every
layer that the configuration claims on the base has its tensors, every tensor is claimed, every layer is really changed, and
copies of the base's weights that are in the file are those of this base.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch

from .bank import SkillBank
from .base import Base
from .errors import BadSkill, BaseMismatch
from .fitting import Fitted, weight_of
from .peft_format import Adapter

CLOSE = 0.01
"""Relative difference between two copies of a weight that rounding to 16 bits can make."""


@dataclass(frozen=True)
class Moved:
    """What an adapter does to a base."""

    layers: int
    """Layers that it changes."""
    shift: float
    """‖logits with it - logits without‖ / ‖logits without‖ on a few tokens, unitless."""


def check_on(base: Base, adapter: Adapter) -> Moved:
    """Raises BaseMismatch or BadSkill, with names, unless every layer that the adapter claims is there and is moved by it."""
    called, skill = adapter.config.called, adapter.skill
    everything = {*base.linears, base.head_slot, base.table_slot}
    if not everything & skill.factors.keys():
        raise BaseMismatch(
            f"no layer of `{called}` is one of {base.name}: it changes {_some(skill.factors)}, and the base has "
            f"{_some(base.linears)}.",
            "use the base that the adapter was made on",
        )
    if away := skill.factors.keys() - everything:
        raise BaseMismatch(f"`{called}` changes {_some(away)}, not to be found in {base.name}.", "use the adapter's own base")
    claimed = adapter.config.claims(everything, (base.head_slot, base.table_slot))
    if dropped := claimed - skill.factors.keys():
        raise BadSkill(
            f"`{called}` says that it changes {_some(dropped)}, but has no weights for it.", "fetch the adapter again"
        )
    if secret := skill.factors.keys() - claimed:
        raise BadSkill(f"`{called}` has weights for {_some(secret)}, which it does not name.", "fetch the adapter again")
    _check_replaced(base, adapter)
    bank = SkillBank(base, {called: skill})
    _check_copies(base, adapter)
    if still := [slot for slot in skill.factors if not _moves(bank.fitted[called], slot)]:
        raise BadSkill(f"`{called}` does not change {_some(still)}: its weights there are zero.", "fetch or learn it again")
    shift = _shift(bank)
    if not shift > 0:
        raise BadSkill(f"`{called}` changes no output of {base.name}.", "fetch or learn it again")
    return Moved(len(skill.factors), shift)


def _check_replaced(base: Base, adapter: Adapter) -> None:
    """What modules_to_save and trainable_token_indices name is there, all of it."""
    config, skill = adapter.config, adapter.skill
    full = {weight.rpartition(".")[0] for weight, new in skill.replaced.items() if new.rows is None}
    for name in config["modules_to_save"] or ():
        if not any(slot.endswith(name) for slot in full):
            raise BadSkill(f"`{config.called}` says that it replaces `{name}`, but has no weights for it.", "fetch it again")
    for slot in full:
        names = {f"{slot}.{part}" for part in ("weight", "bias") if weight_of(base, f"{slot}.{part}") is not None}
        if lacking := names - skill.replaced.keys():
            raise BadSkill(f"`{config.called}` replaces `{slot}`, but lacks {_some(lacking)}.", "fetch the adapter again")
    tokens = config["trainable_token_indices"]
    rows = [weight for weight, new in skill.replaced.items() if new.rows is not None]
    if tokens and len(rows) != (len(tokens) if isinstance(tokens, dict) else 1):
        raise BadSkill(f"`{config.called}` lacks the rows of trainable_token_indices.", "fetch the adapter again")


def _check_copies(base: Base, adapter: Adapter) -> None:
    for slot, copy in adapter.copies.items():
        own = weight_of(base, f"{slot}.weight")
        same = own is not None and own.shape == copy.shape
        if not same or (copy.float() - own.float()).norm() > CLOSE * own.float().norm():
            raise BaseMismatch(
                f"`{adapter.config.called}` holds a copy of `{slot}` of its base, and that of {base.name} is another.",
                "use the base that the adapter was made on",
            )


def _moves(skill: Fitted, slot: str) -> bool:
    """Whether the layer computes anything else than before: ‖ΔW‖ > 0, or a bias."""
    f = {**skill.plain.factors, **skill.special}[slot]
    extra = any(bool(part[slot].any()) for part in (skill.gain, skill.bias) if slot in part)
    return extra or f.inner(f) > 0


@torch.inference_mode()
def _shift(bank: SkillBank) -> float:
    """How far the adapter moves the logits of a few tokens, those with rows of their own among them."""
    base = bank.base
    count = len(base.table)
    own = [int(t) for new in bank.fitted[bank.names[0]].replaced.values() if new.rows is not None for t in new.rows[:8]]
    tokens = torch.tensor([[base.eos, *own, *((7 * k + 3) % count for k in range(12))]])
    before = base.logits(base.hidden(tokens)[0]).float()
    with bank.on():
        after = base.logits(base.hidden(tokens)[0]).float()
    if not torch.isfinite(after).all():
        raise BadSkill(f"with `{bank.names[0]}` the outputs of {base.name} are not finite.", "fetch the adapter again")
    return float((after - before).norm() / before.norm().clamp(min=torch.finfo(torch.float32).tiny))


def _some(names: Collection[str]) -> str:
    """A few names, and how many more there are."""
    shown = sorted(names)[:3]
    more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
    return ", ".join(f"`{name}`" for name in shown) + more
