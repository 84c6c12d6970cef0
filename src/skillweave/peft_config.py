"""PEFT's `adapter_config.json`, read strictly: every field is understood, without effect on the result, or refused by name.

READ, IDLE and REFUSED say which. The configuration is a claim about the tensors beside it: ranks are taken from the tensors,
and the layers that it claims on a base are compared with the layers that there are.
"""

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import BadSkill
from .patterns import check_pattern

AGAIN = "fetch or learn it again"
PREFIX = "base_model.model."

READ = {
    "peft_type": "LORA",
    "r": "the rank of each layer is that of its tensors",
    "lora_alpha": "scale is alpha / rank",
    "use_rslora": "scale is alpha / √rank",
    "rank_pattern": "as r",
    "alpha_pattern": "alpha of single layers",
    "use_dora": "magnitudes of rows; not on embeddings",
    "lora_bias": "a bias, times scale; not on embeddings",
    "target_modules": "the layers; compared with those that there are",
    "exclude_modules": "as target_modules",
    "layers_to_transform": "as target_modules",
    "layers_pattern": "as target_modules",
    "modules_to_save": "linear layers, the head and the embeddings, in full",
    "trainable_token_indices": "rows of the embeddings; of a tied head too",
    "init_lora_weights": "starts that leave the base alone: true, false, gaussian, orthogonal",
    "bias": "only `none`",
}
"""Fields that decide the result."""
IDLE = {"base_model_name_or_path", "revision", "task_type", "auto_mapping", "peft_version", "inference_mode", "lora_dropout",
        "fan_in_fan_out", "megatron_core", "qalora_group_size", "loftq_config", "runtime_config"}  # fmt: skip
"""Fields that change nothing when the adapter is used."""
REFUSED = {
    "alora_invocation_tokens": "is active only after certain tokens",
    "arrow_config": "chooses among other adapters, which are not in the folder",
    "corda_config": "starts from the base's own weights and takes them out of it",
    "ensure_weight_tying": "ties the head's change to that of the embeddings",
    "eva_config": "was started from data, and its ranks may have moved",
    "kasa_config": "changes singular values of the base",
    "layer_replication": "makes a deeper model of the base",
    "lora_ga_config": "starts from the base's own weights and takes them out of it",
    "megatron_config": "is cut in pieces for Megatron",
    "target_parameters": "changes parameters that are no layers (experts)",
    "use_bdlora": "has factors in blocks",
    "use_qalora": "pools what goes into each layer",
}
"""Fields that would change the result in a way that is not computed here; any other field is refused likewise, unless empty."""
STARTS = (True, False, None, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class Config:
    """What an adapter says about itself."""

    called: str
    fields: Mapping[str, Any]

    def __getitem__(self, field: str) -> Any:
        return self.fields.get(field)

    def scale(self, slot: str, rank: int) -> float:
        """PEFT's scaling of one layer, with the rank of its tensors."""
        try:
            patterns = (self["alpha_pattern"] or {}).items()
            own = (value for pattern, value in patterns if re.match(rf"(.*\.)?({check_pattern(pattern)})$", slot))
            alpha = _number(next(own, self.fields.get("lora_alpha", 8)))
        except (ValueError, TypeError, AttributeError, re.error):
            alpha = math.nan
        if not math.isfinite(alpha):
            raise BadSkill(f"lora_alpha or alpha_pattern of `{self.called}` gives no number for `{slot}`.", AGAIN)
        return alpha / rank**0.5 if self["use_rslora"] else alpha / rank

    def saves(self, module: str) -> bool:
        """Whether `modules_to_save` names the module: PEFT takes its words for ends of names."""
        return any(module.endswith(name) for name in self["modules_to_save"] or ())

    def claims(self, slots: Iterable[str], ends: Collection[str] = ()) -> set[str]:
        """Which of `slots` the adapter says that it changes; `ends` (head, embeddings) are not part of "all-linear"."""
        if self["target_modules"] == "all-linear":
            return {slot for slot in slots if slot not in ends and not self._left_out(slot)}
        return {slot for slot in slots if not self._left_out(slot) and self._targeted(slot)}

    def _left_out(self, slot: str) -> bool:
        out = self["exclude_modules"]
        left = bool(re.fullmatch(out, slot)) if isinstance(out, str) else any(_ends(slot, name) for name in out or ())
        return left or any(_ends(slot, name) or f".{name}." in f".{slot}" for name in self["modules_to_save"] or ())

    def _targeted(self, slot: str) -> bool:
        wanted = self["target_modules"]
        if isinstance(wanted, str):
            return bool(re.fullmatch(wanted, slot))
        return slot in wanted or (any(_ends(slot, name) for name in wanted) and self._in_layers(slot))

    def _in_layers(self, slot: str) -> bool:
        chosen, patterns = self["layers_to_transform"], self["layers_pattern"]
        if chosen is None or chosen == []:
            return True
        chosen = [chosen] if isinstance(chosen, int) else chosen
        names = [patterns] if isinstance(patterns, str) and patterns else patterns or []
        found = [re.match(rf"(?:^|.*?\.){name}\.(\d+)\.", slot) for name in names]
        found = found or [re.match(r".*?\.[^.]*\.(\d+)\.", slot)]
        number = next((int(match[1]) for match in found if match), None)
        return number in chosen


def read_config(folder: Path, called: str) -> Config:
    """The configuration of an adapter. Raises BadSkill with what is wrong or not supported."""
    try:
        text = (folder / "adapter_config.json").read_text(encoding="utf-8")
        fields = json.loads(text, object_pairs_hook=_no_doubles)
    except FileNotFoundError as error:
        raise BadSkill(f"`{called}` has no adapter_config.json.", "an adapter is a folder in PEFT's format") from error
    except (ValueError, OSError, RecursionError) as error:
        raise BadSkill(f"adapter_config.json of `{called}` is not JSON: {error}.", AGAIN) from error
    kind = fields.get("peft_type") if isinstance(fields, dict) else type(fields).__name__
    if not isinstance(fields, dict) or kind != "LORA":
        raise BadSkill(f"`{called}` is an adapter of type {kind!r}; only LORA is read.", "convert it with peft.convert_to_lora")
    _check_support(called, fields)
    for field in [field for field in _TYPES if field in fields] + ["target_modules"]:
        if not _TYPES[field](fields.get(field)):
            raise BadSkill(f"{field} of `{called}` is {_short(fields.get(field))}, which it cannot be.", AGAIN)
    _check_patterns(called, fields)
    return Config(called, fields)


def _check_support(called: str, fields: Mapping[str, Any]) -> None:
    start = fields.get("init_lora_weights", True)
    if not any(start is known or (isinstance(known, str) and start == known) for known in STARTS):
        raise BadSkill(
            f"`{called}` uses init_lora_weights of PEFT ({_short(start)}), which takes the adapter's start out of the base.",
            "make a plain LoRA of it: save_pretrained(..., path_initial_model_for_weight_conversion=...) of PEFT",
        )
    odd = sorted(field for field, value in fields.items() if field not in READ and field not in IDLE and not _empty(value))
    if odd:
        why = f": it {REFUSED[odd[0]]}" if odd[0] in REFUSED else ""
        raise BadSkill(f"`{called}` uses {', '.join(odd)} of PEFT, which would not be read rightly{why}.", "use a plain LoRA")
    if fields.get("bias", "none") not in ("none", None):
        raise BadSkill(f"`{called}` uses bias of PEFT, which replaces biases of the base.", "train it with bias='none'")
    if fields.get("use_dora") and fields.get("lora_bias"):
        raise BadSkill(f"`{called}` uses lora_bias and use_dora of PEFT at once, which has no meaning.", AGAIN)


def _check_patterns(called: str, fields: Mapping[str, Any]) -> None:
    """Regular expressions from elsewhere must not keep us busy for ever."""
    given = [fields.get("target_modules"), fields.get("exclude_modules"), fields.get("layers_pattern")]
    given += fields.get("layers_pattern") or [] if isinstance(fields.get("layers_pattern"), list) else []
    try:
        for pattern in given:
            if isinstance(pattern, str):
                check_pattern(pattern)
    except (ValueError, re.error) as error:
        raise BadSkill(f"a pattern in the configuration of `{called}` cannot be used: {error}.", AGAIN) from error


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field is there twice")
    return found


def _ends(slot: str, name: str) -> bool:
    return slot == name or slot.endswith(f".{name}")


def _empty(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _short(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= 60 else words[:57] + "..."


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def _words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) and word for word in value)


def _wholes(value: Any) -> bool:
    return isinstance(value, list) and all(map(_whole, value))


def _flag(value: Any) -> bool:
    return value is None or isinstance(value, bool)


_TYPES = {
    "r": lambda v: _whole(v) and v > 0,
    "use_rslora": _flag,
    "use_dora": _flag,
    "lora_bias": _flag,
    "fan_in_fan_out": _flag,
    "inference_mode": _flag,
    "rank_pattern": lambda v: v is None or (isinstance(v, dict) and all(map(_whole, v.values()))),
    "target_modules": lambda v: bool(v) and (isinstance(v, str) or _words(v)),
    "exclude_modules": lambda v: v is None or isinstance(v, str) or _words(v),
    "layers_to_transform": lambda v: v is None or _whole(v) or _wholes(v),
    "layers_pattern": lambda v: v is None or isinstance(v, str) or _words(v),
    "modules_to_save": lambda v: v is None or _words(v),
    "trainable_token_indices": lambda v: (
        v is None or _wholes(v) or (isinstance(v, dict) and all(map(_wholes, v.values())))
    ),
    "base_model_name_or_path": lambda v: v is None or isinstance(v, str),
}  # fmt: skip
"""Whether a value can be that of the field."""
