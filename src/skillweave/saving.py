"""From weights to a skill in the library: what is written beside them, and in one step."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .carried import carry
from .library import Library
from .result import Estimate
from .skill import Skill, write_skill
from .task import Example, Task

if TYPE_CHECKING:
    from .base import Base
    from .composition import Woven
    from .delta import LowRank


def facts_of(
    model: "Base",
    method: str,
    fitter,
    source: Task,
    examples,
    seed: int,
    log,
    exact: Estimate,
    parents: Sequence[Skill] = (),
) -> dict[str, Any]:
    """What a skill's provenance says about how it was made."""
    import torch
    import transformers

    from . import __version__

    score = {
        "task": source.name,
        "split": "valid",
        "metric": "exact",
        "value": exact.value,
        "low": exact.low,
        "high": exact.high,
    }
    return {
        "base": {"name": model.name, "digest": model.digest},
        "method": method,
        "config": dict(vars(fitter)),
        "data": {"name": source.name, "digest": source.digest(), "rows": len(examples), "split": "train"},
        "seed": seed,
        "parents": [{"name": parent.name, "digest": parent.digest} for parent in parents],
        "versions": {"skillweave": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "scores": [score | {"n": exact.n, "seed": seed}] if exact.n else [],
        "cost": {"seconds": round(log.seconds, 3), "cpu_seconds": round(log.cpu_seconds, 3), "tokens": log.tokens}
        | ({"samples": log.samples, "drawn": log.drawn} if log.samples else {}),
    }


def save_skill(
    shelf: Library,
    name: str,
    made: "Woven",
    model: "Base",
    source: Task,
    examples: Sequence[Example],
    facts: dict[str, Any],
    description: str,
    replace: bool = False,
    parts: Mapping[str, "LowRank"] = MappingProxyType({}),
) -> None:
    """Put a learned or composed skill into the library, in one step; `parts` are the weights of what it was composed of."""
    with shelf.new(name, replace=replace) as folder:
        made.save(folder, model, parts)
        carry(folder, examples, [shelf.get(parent["name"]) for parent in facts["parents"]], getattr(made, "read", ()))
        shown = "\n".join(f"    {e.prompt.strip()}\n    -> {e.completion.strip()}" for e in examples[:3])
        body = f"{description}\n\nThe weights beside this file do it on {model.name}. It was shown, for example:\n\n{shown}\n"
        write_skill(
            folder, name=name, description=description, body=body, metadata={"template": source.template}, provenance=facts
        )


def save_composition(
    shelf: Library,
    name: str,
    woven: "Woven",
    members: Sequence[Skill],
    weights: Mapping[str, "LowRank"],
    model: "Base",
    source: Task,
    examples: Sequence[Example],
    facts: dict[str, Any],
    description: str = "",
    replace: bool = False,
) -> None:
    """Put what was composed of `members` into the library, with them as its parents."""
    facts = facts | {"parents": [{"name": member.name, "digest": member.digest} for member in members]}
    about = description or f"{source.description} (composed of {', '.join(member.name for member in members)})"
    save_skill(shelf, name, woven, model, source, examples, facts, about, replace, weights)
