"""From weights to a skill in the library: what is written beside them, and in one step."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .carried import carry
from .library import Library
from .result import Estimate
from .skill import Skill, write_skill
from .task import Example, Task

if TYPE_CHECKING:
    from .base import Base
    from .composition import Composition
    from .delta import LowRank


def facts_of(model: "Base", method: str, fitter, source: Task, examples, seed: int, log, exact: Estimate) -> dict[str, Any]:
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
        "parents": [],
        "versions": {"skillweave": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "scores": [score | {"n": exact.n, "seed": seed}] if exact.n else [],
        "cost": {"seconds": round(log.seconds, 3), "cpu_seconds": round(log.cpu_seconds, 3), "tokens": log.tokens},
    }


def save_skill(
    shelf: Library,
    name: str,
    skill: "LowRank",
    model: "Base",
    source: Task,
    examples: Sequence[Example],
    facts: dict[str, Any],
    description: str,
    replace: bool = False,
    alpha: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Put a learned or composed skill into the library, in one step."""
    from .peft_format import save_adapter

    with shelf.new(name, replace=replace) as folder:
        save_adapter(folder / "adapter", skill, model.name)
        carry(folder, examples, [shelf.get(parent["name"]) for parent in facts["parents"]])
        if alpha is not None:
            (folder / "composition.json").write_text(json.dumps({"alpha": alpha}, indent=1))
        shown = "\n".join(f"    {e.prompt.strip()}\n    -> {e.completion.strip()}" for e in examples[:3])
        body = f"{description}\n\nThe adapter in `adapter/` does this on {model.name}. It was shown, for example:\n\n{shown}\n"
        write_skill(
            folder, name=name, description=description, body=body, metadata={"template": source.template}, provenance=facts
        )


def save_composition(
    shelf: Library,
    name: str,
    woven: "Composition",
    members: Sequence[Skill],
    weights: Mapping[str, "LowRank"],
    model: "Base",
    source: Task,
    examples: Sequence[Example],
    facts: dict[str, Any],
    description: str = "",
    replace: bool = False,
) -> None:
    """Put a composition into the library: as one exact adapter, with its strengths and parents beside it."""
    facts = facts | {"parents": [{"name": member.name, "digest": member.digest} for member in members]}
    alpha = {skill: woven.alpha[k].tolist() for k, skill in enumerate(woven.skills)}
    about = description or f"{source.description} (composed of {', '.join(woven.skills)})"
    save_skill(shelf, name, woven.merged(model, weights), model, source, examples, facts, about, replace, alpha)


def forget(state: Path) -> None:
    """Remove the state of a run that is done, and what a kill in the middle of saving it has left."""
    for path in state.parent.glob(f"*{state.name}*"):
        path.unlink(missing_ok=True)
