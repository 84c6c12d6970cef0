"""A change of weights that no adapter can hold, on disk: `delta.safetensors` in the folder of a skill.

    LAYER.dense             (outside, inside): all entries of ΔW
    LAYER.index, .values    the entries of ΔW that are not zero: places (row · inside + column) in order, and what is there
    LAYER.shape             (outside, inside) of a layer that is held so
    LAYER.a, LAYER.b        factors: ΔW = b a, in addition to the above where both are there

Places are int32, or int64 for a layer of more than 2^31 weights. What is read is read strictly, since a place that is out of
order or out of range would change another weight than the one that was meant.
"""

import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from .delta import Factors, LowRank
from .delta_full import Dense, Full, Sparse
from .errors import BadOption, BadSkill
from .peft_config import AGAIN
from .peft_format import read_tensors

DELTA = "delta.safetensors"
_KEY = re.compile(r"(?P<slot>.+)\.(?P<part>dense|index|values|shape|a|b)")
_WHOLE = {torch.int32, torch.int64}
_SETS = ({"dense"}, {"index", "values", "shape"}, {"a", "b"}, {"a", "b", "dense"}, {"a", "b", "index", "values", "shape"})
"""What can be there of a layer."""


def save_delta(folder: Path, skill: LowRank) -> None:
    """Write `skill` (fp32) into the folder of a skill."""
    skill.check_plain()
    tensors: dict[str, Tensor] = {}
    for slot, f in skill.factors.items():
        tensors |= {f"{slot}.a": f.a.float(), f"{slot}.b": f.b.float() * f.scale}
    for slot, part in skill.full.items():
        if isinstance(part, Dense):
            tensors[f"{slot}.dense"] = part.dense()
        else:
            large = part.shape[0] * part.shape[1] > torch.iinfo(torch.int32).max
            tensors[f"{slot}.index"] = part.index.to(torch.int64 if large else torch.int32)
            tensors |= {f"{slot}.values": part.values.float() * part.scale, f"{slot}.shape": torch.tensor(part.shape)}
    if not tensors:
        raise BadOption("a change of no weight at all cannot be a skill.", "choose a larger --set size")
    folder.mkdir(parents=True, exist_ok=True)
    whole = {key: tensor.detach().clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()}
    save_file(whole, folder / DELTA, metadata={"format": "pt"})


def load_delta(folder: Path, name: str = "") -> LowRank:
    """The change in the folder of a skill. Raises BadSkill with what is wrong with it, BadOption for what is more than that."""
    from .composition import read_about  # which writes deltas

    called = name or folder.name
    if kind := read_about(folder, called).get("kind"):
        raise BadOption(f"`{called}` ({kind}) is not a change of weights.", "use it by itself: skillweave run or measure")
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in read_tensors(folder / DELTA, called, "delta", _WHOLE).items():
        known = _KEY.fullmatch(key)
        if not known:
            raise BadSkill(f"the delta of `{called}` holds `{key}`, which is no part of a change of weights.", AGAIN)
        if (tensor.dtype in _WHOLE) != (known["part"] in ("index", "shape")):
            raise BadSkill(f"`{key}` of `{called}` is in {str(tensor.dtype)[6:]}.", AGAIN)
        found.setdefault(known["slot"], {})[known["part"]] = tensor
    if not found:
        raise BadSkill(f"the delta of `{called}` holds no weights.", AGAIN)
    for slot, parts in found.items():
        if set(parts) not in _SETS:
            raise BadSkill(f"the delta of `{called}` holds only {', '.join(sorted(parts))} of `{slot}`.", AGAIN)
    factors = {slot: _factors(called, slot, parts["a"], parts["b"]) for slot, parts in found.items() if "a" in parts}
    full: dict[str, Full] = {}
    for slot, parts in found.items():
        if "dense" in parts:
            full[slot] = _dense(called, slot, parts["dense"])
        elif "index" in parts:
            full[slot] = _sparse(called, slot, parts)
        if slot in full and slot in factors and full[slot].shape != factors[slot].shape:
            raise BadSkill(f"the parts of `{slot}` in `{called}` differ in shape: {factors[slot].shape}, {full[slot].shape}.")
    return LowRank(factors, full=full)


def _factors(called: str, slot: str, a: Tensor, b: Tensor) -> Factors:
    if a.dim() != 2 or b.dim() != 2 or a.shape[0] != b.shape[1] or not len(a):
        raise BadSkill(f"the factors of `{slot}` in `{called}` do not fit: {tuple(b.shape)} and {tuple(a.shape)}.", AGAIN)
    return Factors(a, b)


def _dense(called: str, slot: str, values: Tensor) -> Dense:
    if values.dim() != 2:
        raise BadSkill(
            f"the change of `{slot}` in `{called}` has the shape {tuple(values.shape)}, not rows and columns.", AGAIN
        )
    return Dense(values)


def _sparse(called: str, slot: str, parts: dict[str, Tensor]) -> Sparse:
    index, values, shape = parts["index"], parts["values"], parts["shape"].flatten().tolist()
    if parts["shape"].shape != (2,) or min(shape) < 1:
        raise BadSkill(f"the shape of `{slot}` in `{called}` is {shape}, not rows and columns.", AGAIN)
    if index.dim() != 1 or index.shape != values.shape:
        raise BadSkill(
            f"`{slot}` of `{called}` has places of shape {tuple(index.shape)} for values of shape {tuple(values.shape)}.", AGAIN
        )
    if len(index) and (wrong := [p for p in (int(index.min()), int(index.max())) if not 0 <= p < shape[0] * shape[1]]):
        raise BadSkill(
            f"`{slot}` of `{called}` changes entry {wrong[0]} of {shape[0]} x {shape[1]}, which is not there.", AGAIN
        )
    if bool((index[1:] <= index[:-1]).any()):
        raise BadSkill(f"the places of `{slot}` in `{called}` are out of order, or one is there twice.", AGAIN)
    return Sparse(index, values, (shape[0], shape[1]))
