"""Runs that were interrupted: where they wait in the library, with what settings they began, and whether to go on.

A state is `.work/NAME.KEY.safetensors`; KEY is a digest of the settings, and the state says in words what these were. So a run
that is asked for again goes on, and one that is asked for with other settings is told which ones are others.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .errors import BadOption
from .files import sha256_json

Settings = Mapping[str, Any]
"""JSON values by name; what belongs to a method alone stands in a mapping of its own."""


def state_of(folder: Path, name: str, settings: Settings, fresh: bool = False) -> tuple[Path, str]:
    """Where the run of `name` with `settings` keeps its state in `folder`, and its key. BadOption says what has changed.

    That is asked of the states of other runs of `name` that have not ended; with `fresh` all of them are forgotten.
    """
    key = sha256_json([name, settings])
    state = folder / f"{name}.{key[:32]}.safetensors"
    for other in sorted(folder.glob(f"{name}.*.safetensors")):
        if fresh:
            forget(other)
        elif not state.exists() and (begun := _begun(other)) is not None:
            old, steps = begun
            others = "; ".join(changes(old, settings))
            raise BadOption(
                f"a run of `{name}` that did not end ({steps} steps done) had other settings: {others}.",
                "give the same settings to go on, choose another name, or begin anew with --fresh",
            )
    return state, key


def changes(old: Settings, new: Settings) -> Iterator[str]:
    """What is different, in words: `lr 0.001, now 0.002`. The options of two methods are not compared."""
    same_method = old.get("method") == new.get("method")
    for name in dict.fromkeys([*old, *new]):
        was, now = old.get(name), new.get(name)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from changes(was, now) if same_method else ()
        elif was != now:
            yield f"{name} {was}, now {now}"


def named(name: str, digest: str) -> str:
    """How a setting says what has content: its name and the beginning of its digest."""
    return f"{name} ({digest[:12]})"


def forget(state: Path | None) -> None:
    """Remove the state of a run that is done, and what a kill in the middle of saving it has left."""
    for path in [] if state is None else state.parent.glob(f"*{state.name}*"):
        path.unlink(missing_ok=True)


def _begun(state: Path) -> tuple[Settings, int] | None:
    """The settings of a state and how many steps are done; None if it cannot be read."""
    try:
        with safe_open(state, "pt") as file:
            about = file.metadata() or {}
        return json.loads(about["settings"]), len(json.loads(about["log"])["loss"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
