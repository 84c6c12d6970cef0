"""LoRA adapters on disk as PEFT writes them: `adapter_config.json` and `adapter_model.safetensors`.

What is written here, PEFT loads with no missing and no unexpected key. What is read here is read strictly: the tensors are
the truth, the configuration is a claim about them, and a field that would change the result and is not understood is refused.
"""

import json
import math
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .delta import Factors, LowRank
from .errors import BadSkill

PREFIX = "base_model.model."
_KEY = re.compile(r"base_model\.model\.(?P<slot>.+)\.lora_(?P<side>[AB])\.weight")
_PLAIN = {"use_dora", "lora_bias", "use_qalora", "use_bdlora", "fan_in_fan_out"}
_EMPTY = {"modules_to_save", "trainable_token_indices", "target_parameters", "layer_replication", "megatron_config",
          "arrow_config", "alora_invocation_tokens", "kasa_config", "eva_config", "corda_config",
          "lora_ga_config"}  # fmt: skip


def save_adapter(folder: Path, skill: LowRank, base_name: str) -> None:
    """Write `skill` (fp32) to `folder`; layers of unequal rank go into PEFT's rank and alpha patterns."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for slot, f in skill.factors.items():
        tensors[f"{PREFIX}{slot}.lora_A.weight"] = f.a.detach().float().contiguous()
        tensors[f"{PREFIX}{slot}.lora_B.weight"] = f.b.detach().float().contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    rank = skill.rank
    first = next(iter(skill.factors.values()))
    alpha = rank * first.scale
    ranks = {slot: f.rank for slot, f in skill.factors.items() if f.rank != rank}
    alphas = {slot: f.rank * f.scale for slot, f in skill.factors.items() if f.rank * f.scale != alpha}
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
        "use_dora": False,
        "modules_to_save": None,
        "rank_pattern": {_whole(slot): value for slot, value in ranks.items()},
        "alpha_pattern": {_whole(slot): value for slot, value in alphas.items()},
        "target_modules": sorted(skill.factors),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))


def _whole(slot: str) -> str:
    """A pattern that matches this layer and no other (PEFT reads the keys of its patterns as ends of names)."""
    return "^" + re.escape(slot).replace(r"\-", "-")


def load_adapter(folder: Path, name: str = "") -> LowRank:
    """Read a LoRA of linear layers. Raises BadSkill with the file and what is wrong with it."""
    called = name or folder.name
    config = _config(folder, called)
    try:
        tensors = load_file(folder / "adapter_model.safetensors")
    except FileNotFoundError as error:
        raise BadSkill(
            f"`{called}` has no adapter_model.safetensors.", "only safetensors are read: a pickle can run code"
        ) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise BadSkill(
            f"the adapter of `{called}` is corrupt: {str(error).splitlines()[0]}.", "fetch or learn it again"
        ) from error
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        found = _KEY.fullmatch(key)
        if not found:
            raise BadSkill(f"the adapter of `{called}` holds `{key}`, which is not a LoRA of a linear layer.")
        sides.setdefault(found["slot"], {})[found["side"]] = tensor
    if not sides:
        raise BadSkill(f"the adapter of `{called}` holds no weights.", "fetch or learn it again")
    return LowRank({slot: _factors(called, slot, pair, config) for slot, pair in sides.items()})


def _config(folder: Path, called: str) -> dict:
    try:
        config = json.loads((folder / "adapter_config.json").read_text())
    except FileNotFoundError as error:
        raise BadSkill(f"`{called}` has no adapter_config.json.", "a skill's adapter is a folder in PEFT's format") from error
    except (ValueError, OSError) as error:
        raise BadSkill(f"adapter_config.json of `{called}` is not JSON: {error}.", "fetch or learn it again") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise BadSkill(f"`{called}` is an adapter of type {kind!r}; only LORA is read.", "convert it with peft.convert_to_lora")
    odd = [k for k in _PLAIN if config.get(k)] + [k for k in _EMPTY if config.get(k)]
    if config.get("bias", "none") != "none":
        odd.append("bias")
    if config.get("init_lora_weights", True) not in (True, False, "gaussian", "orthogonal", "eva"):
        odd.append("init_lora_weights")
    if odd:
        raise BadSkill(
            f"`{called}` uses {', '.join(sorted(odd))} of PEFT, which would not be read rightly.", "use a plain LoRA"
        )
    return config


def _factors(called: str, slot: str, pair: dict[str, torch.Tensor], config: dict) -> Factors:
    a, b = pair.get("A"), pair.get("B")
    if a is None or b is None:
        raise BadSkill(f"the adapter of `{called}` has only one of the two factors of `{slot}`.", "fetch or learn it again")
    if a.dim() != 2 or b.dim() != 2 or a.shape[0] != b.shape[1] or not len(a):
        raise BadSkill(f"the factors of `{slot}` in `{called}` do not fit: {tuple(b.shape)} and {tuple(a.shape)}.")
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise BadSkill(f"the adapter of `{called}` has values that are not finite in `{slot}`.", "fetch or learn it again")
    alpha, rank = _alpha(called, slot, config), a.shape[0]  # the tensor's own rank, whatever the patterns say
    return Factors(a, b, alpha / rank**0.5 if config.get("use_rslora") else alpha / rank)


def _alpha(called: str, slot: str, config: dict) -> float:
    """PEFT's lora_alpha of one layer."""
    try:
        patterns = (config.get("alpha_pattern") or {}).items()
        own = (value for pattern, value in patterns if re.match(rf"(.*\.)?({pattern})$", slot))
        alpha = float(next(own, config.get("lora_alpha", 8)))
    except (ValueError, TypeError, AttributeError, re.error):
        alpha = math.nan
    if not math.isfinite(alpha):
        raise BadSkill(f"lora_alpha or alpha_pattern of `{called}` gives no number for `{slot}`.", "fetch or learn it again")
    return alpha
