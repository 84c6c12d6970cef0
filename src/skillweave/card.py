"""The README.md of an adapter that leaves the library: a model card made of what the skill says and of what was measured."""

import json

from .skill import Skill


def card(skill: Skill, folder: str) -> str:
    """A model card, in the form that hubs read, of a skill whose adapter is in `folder`; what is not known is left out."""
    known = skill.provenance
    base = known.get("base") or {}
    head = {"base_model": base.get("name"), "library_name": "peft", "pipeline_tag": "text-generation", "tags": ["lora"]}
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items() if value), "---", ""]
    lines += [f"# {skill.name}", "", skill.description, ""]
    lines += _use(skill, base["name"], folder) if base.get("name") else []
    if made := _made(known, base):
        lines += ["## How it was made", "", *made, ""]
    if scores := [score for score in known.get("scores") or () if isinstance(score, dict)]:
        lines += ["## Measured", "", *_table(scores), ""]
    return "\n".join(lines)


def _use(skill: Skill, base: str, folder: str) -> list[str]:
    load = f"AutoModelForCausalLM.from_pretrained({base!r})" if "/" in base else f"load_base({base!r}).model"
    origin = "transformers import AutoModelForCausalLM" if "/" in base else "skillweave.base import load_base"
    code = ["from peft import PeftModel", f"from {origin}", "", f"base = {load}"]
    code += [f"model = PeftModel.from_pretrained(base, {folder!r})"]
    template = skill.metadata.get("template")
    words = (
        ["", f"Prompts have this form, with your text in the place of `{{input}}`: {json.dumps(template)}"] if template else []
    )
    return ["## Use", "", "```python", *code, "```", *words, ""]


def _made(known: dict, base: dict) -> list[str]:
    data, parents = known.get("data") or {}, known.get("parents") or []
    facts = {
        "base": f"{base['name']}, digest of its weights `{base['digest']}`"
        if base.get("name") and base.get("digest")
        else None,
        "method": known.get("method"),
        "source": (known.get("config") or {}).get("source"),
        "data": data.get("name"),
        "seed": known.get("seed"),
        "made of": ", ".join(str(parent.get("name")) for parent in parents),
        "made with": ", ".join(f"{name} {version}" for name, version in (known.get("versions") or {}).items()),
    }
    return [f"- {name}: {value}" for name, value in facts.items() if value not in (None, "")]


def _table(scores: list[dict]) -> list[str]:
    columns = ("task", "split", "metric", "value", "low", "high", "n", "seed")
    rows = [[_cell(score.get(column)) for column in columns] for score in scores]
    names = ("task", "split", "metric", "value", "95 % from", "to", "n", "seed")
    return ["| " + " | ".join(row) + " |" for row in (names, ["---"] * len(names), *rows)]


def _cell(value) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "–" if value is None else str(value)
