"""LoRA adapters on disk as PEFT writes them: `adapter_config.json` and `adapter_model.safetensors`.

What is written here, PEFT loads with no missing and no unexpected key. What is read here is read strictly: the tensors are
the truth, the configuration is a claim about them, and what would change the result and is not understood is refused.

    LAYER.lora_A.weight, LAYER.lora_B.weight    (rank, inside), (outside, rank); lora_B.bias and lora_magnitude_vector at times
    LAYER.lora_embedding_A, lora_embedding_B    (rank, tokens), (width, rank)
    LAYER.token_adapter.trainable_tokens_delta  new rows of the embeddings (values, whatever the name says)
    LAYER.base_layer.weight                     a copy of the base's own weight, no part of the skill
    LAYER.weight, LAYER.bias                    modules_to_save: what takes the place of the base's
"""

import json
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .delta import Factors, LowRank, Replacement
from .door import check_safetensors
from .errors import BadSkill
from .peft_config import AGAIN, PREFIX, Config, read_config

WEIGHTS = "adapter_model.safetensors"
_PARTS = {
    "a": r"lora_A(\.default)?\.weight",
    "b": r"lora_B(\.default)?\.weight",
    "bias": r"lora_B(\.default)?\.bias",
    "magnitude": r"lora_magnitude_vector(\.default)?(\.weight)?",
    "table_a": r"lora_embedding_A(\.default)?",
    "table_b": r"lora_embedding_B(\.default)?",
    "rows": r"token_adapter\.trainable_tokens_delta(\.default)?",
    "copy": r"base_layer\.weight",
}
_KEY = re.compile(r"(?P<slot>.+?)\.(?:" + "|".join(f"(?P<{part}>{words})" for part, words in _PARTS.items()) + ")")
_FULL = re.compile(r"(?P<slot>.+?)(\.modules_to_save(\.default)?)?\.(?P<part>weight|bias)")
_KINDS = {torch.float16, torch.bfloat16, torch.float32}


@dataclass(frozen=True)
class Adapter:
    """What a folder in PEFT's format holds."""

    skill: LowRank
    config: Config
    copies: Mapping[str, Tensor]
    """Weights of the base that the file repeats, by layer."""


def save_adapter(folder: Path, skill: LowRank, base_name: str) -> None:
    """Write `skill` (fp32) to `folder`; layers of unequal rank go into PEFT's rank and alpha patterns."""
    if skill.full:
        raise BadSkill("a dense or sparse change cannot be written in PEFT's format.", "save it as delta.safetensors")
    if not skill.factors:
        raise BadSkill("an adapter without factors cannot be written in PEFT's format.", "give it at least one layer")
    tensors: dict[str, Tensor] = {}
    for slot, f in skill.factors.items():
        tensors |= _written(slot, f, skill)
    rows = {}
    for weight, new in skill.replaced.items():
        slot = weight.rpartition(".")[0]
        if new.rows is None:
            tensors[PREFIX + weight] = new.values
        else:
            tensors[f"{PREFIX}{slot}.token_adapter.trainable_tokens_delta"] = new.values
            rows[slot] = new.rows.tolist()
    folder.mkdir(parents=True, exist_ok=True)
    plain = {key: tensor.detach().float().contiguous() for key, tensor in tensors.items()}
    save_file(plain, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(_config_of(skill, base_name, rows), indent=2))


def _written(slot: str, f: Factors, skill: LowRank) -> dict[str, Tensor]:
    """The tensors of one layer under PEFT's names."""
    dora, bias = (any(getattr(other, part) is not None for other in skill.factors.values()) for part in ("magnitude", "bias"))
    if (f.lookup and (dora or bias)) or (dora and (bias or f.magnitude is None)):
        raise BadSkill(
            f"PEFT's format cannot hold `{slot}` beside the other layers: all have magnitudes, or biases, or none has.",
            "make plain adapters of them (embeddings can have neither)",
        )
    if f.lookup:
        return {f"{PREFIX}{slot}.lora_embedding_A": f.a, f"{PREFIX}{slot}.lora_embedding_B": f.b}
    found = {f"{PREFIX}{slot}.lora_A.weight": f.a, f"{PREFIX}{slot}.lora_B.weight": f.b}
    if dora and f.magnitude is not None:
        found[f"{PREFIX}{slot}.lora_magnitude_vector"] = f.magnitude
    if bias:
        found[f"{PREFIX}{slot}.lora_B.bias"] = torch.zeros(len(f.b)) if f.bias is None else f.bias
    return found


def _config_of(skill: LowRank, base_name: str, rows: Mapping[str, list[int]]) -> dict[str, Any]:
    rank = skill.rank
    first = next(iter(skill.factors.values()))
    alpha = rank * first.scale
    ranks = {slot: f.rank for slot, f in skill.factors.items() if f.rank != rank}
    alphas = {slot: f.rank * f.scale for slot, f in skill.factors.items() if f.rank * f.scale != alpha}
    full = sorted({weight.rpartition(".")[0] for weight, new in skill.replaced.items() if new.rows is None})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": first.magnitude is not None,
        "modules_to_save": full or None,
        "rank_pattern": {_whole(slot): value for slot, value in ranks.items()},
        "alpha_pattern": {_whole(slot): value for slot, value in alphas.items()},
        "target_modules": sorted(skill.factors),
    }
    if any(f.bias is not None for f in skill.factors.values()):
        config["lora_bias"] = True
    if rows:
        config["trainable_token_indices"] = dict(rows)
    return config


def _whole(slot: str) -> str:
    """A pattern that matches this layer and no other (PEFT reads the keys of its patterns as ends of names)."""
    return "^" + re.escape(slot).replace(r"\-", "-")


def load_adapter(folder: Path, name: str = "") -> LowRank:
    """The skill in a folder. Raises BadSkill with the file and what is wrong with it."""
    return read_adapter(folder, name).skill


def read_adapter(folder: Path, name: str = "") -> Adapter:
    """Everything in a folder. Raises BadSkill with the file and what is wrong with it."""
    called = name or folder.name
    config = read_config(folder, called)
    found: dict[str, dict[str, Any]] = {}
    replaced: dict[str, Any] = {}
    for name, tensor in read_tensors(folder / WEIGHTS, called, "adapter").items():
        key = name.removeprefix(PREFIX) if name.startswith(PREFIX) else ""
        known, full = _KEY.fullmatch(key), _FULL.fullmatch(key)
        if known:
            part = next(part for part in _PARTS if known[part])
            place, slot, value = found.setdefault(known["slot"], {}), part, tensor
        elif full and config.saves(full["slot"]):
            place, slot, value = replaced, f"{full['slot']}.{full['part']}", Replacement(tensor)
        else:
            hint = "a resized vocabulary needs a base with that vocabulary" if full else "fetch or learn it again"
            raise BadSkill(f"the adapter of `{called}` holds `{name}`, which its configuration does not account for.", hint)
        if slot in place:
            raise BadSkill(f"the adapter of `{called}` holds `{name}` twice, under two names.", AGAIN)
        place[slot] = value
    copies = {slot: parts.pop("copy") for slot, parts in found.items() if "copy" in parts}
    for slot, parts in found.items():
        if "rows" in parts:
            replaced[f"{slot}.weight"] = _rows(called, slot, parts.pop("rows"), config)
    factors = {slot: _factors(called, slot, parts, config) for slot, parts in found.items() if parts}
    if not factors:
        raise BadSkill(f"the adapter of `{called}` holds no weights.", AGAIN)
    return Adapter(LowRank(factors, replaced), config, copies)


def read_tensors(file: Path, called: str, what: str, kinds: Container[torch.dtype] = ()) -> dict[str, Tensor]:
    """The tensors of a file, all of them finite numbers (or of `kinds`). Raises BadSkill."""
    try:
        check_safetensors(file)
        tensors = load_file(file)
    except FileNotFoundError as error:
        raise BadSkill(f"`{called}` has no {file.name}.", "only safetensors are read: a pickle can run code") from error
    except (BadSkill, SafetensorError, OSError, ValueError) as error:
        reason = error.message if isinstance(error, BadSkill) else str(error)
        raise BadSkill(f"the {what} of `{called}` is corrupt: {reason.splitlines()[0].rstrip('.')}.", AGAIN) from error
    for key, tensor in tensors.items():
        if tensor.dtype in kinds:
            continue
        if tensor.dtype not in _KINDS:
            raise BadSkill(f"`{key}` of `{called}` is in {str(tensor.dtype)[6:]}, not in 16 or 32 bit floating point.", AGAIN)
        if not torch.isfinite(tensor).all():
            raise BadSkill(f"the {what} of `{called}` has values that are not finite in `{key.removeprefix(PREFIX)}`.", AGAIN)
    return tensors


def _factors(called: str, slot: str, parts: dict[str, Tensor], config: Config) -> Factors:
    lookup = "table_a" in parts or "table_b" in parts
    names = ("table_a", "table_b") if lookup else ("a", "b")
    a, b = (parts.get(part) for part in names)
    if a is None or b is None:
        raise BadSkill(f"the adapter of `{called}` has only one of the two factors of `{slot}`.", AGAIN)
    if a.dim() != 2 or b.dim() != 2 or a.shape[0] != b.shape[1] or not len(a):
        raise BadSkill(f"the factors of `{slot}` in `{called}` do not fit: {tuple(b.shape)} and {tuple(a.shape)}.")
    wanted = {*names, *(["bias"] if config["lora_bias"] else []), *(["magnitude"] if config["use_dora"] else [])}
    if lookup and len(wanted) > 2:
        raise BadSkill(f"`{called}` is a DoRA, or has biases, on the embeddings `{slot}`.", "train it on linear layers only")
    if odd := sorted(wanted ^ parts.keys()):
        what = f"use_dora and lora_bias say otherwise ({', '.join(odd)})"
        raise BadSkill(f"the tensors of `{slot}` in `{called}` are not those of its configuration: {what}.", AGAIN)
    for part in ("bias", "magnitude"):
        if part in parts and parts[part].shape != b.shape[:1]:
            raise BadSkill(f"the {part} of `{slot}` in `{called}` has the shape {tuple(parts[part].shape)}.", AGAIN)
    scale = config.scale(slot, a.shape[0])  # the tensor's own rank, whatever the patterns say
    return Factors(a, b, scale, parts.get("bias"), parts.get("magnitude"), lookup)


def _rows(called: str, slot: str, values: Tensor, config: Config) -> Replacement:
    """New rows of the embeddings, with their tokens."""
    tokens = config["trainable_token_indices"]
    if isinstance(tokens, dict):
        tokens = next((rows for name, rows in tokens.items() if slot == name or slot.endswith(f".{name}")), None)
    if not tokens or values.dim() != 2 or len(tokens) != len(values) or len(set(tokens)) < len(tokens):
        raise BadSkill(
            f"`{called}` has new rows for `{slot}`, {tuple(values.shape)}, that trainable_token_indices does not account for.",
            AGAIN,
        )
    return Replacement(values, torch.tensor(tokens))
