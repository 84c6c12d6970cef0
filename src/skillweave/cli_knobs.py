"""The options that go to a method, whatever it is."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from .errors import BadOption


@Parameter(name="*", group="Method options")
@dataclass(frozen=True)
class Knobs:
    """Options that go to the method; a method answers for those it does not know."""

    steps: int | None = None
    """Optimiser steps."""
    lr: float | None = None
    """Learning rate at its peak."""
    rank: int | None = None
    """Rank of the adapter."""
    batch: int | None = None
    """Examples in a step."""
    set: Annotated[tuple[str, ...], Parameter(metavar="KEY=VALUE", show_default=False)] = ()
    """Any other option of the method; may be repeated."""

    def options(self) -> dict[str, Any]:
        """All options that were given, by name."""
        named = {name: getattr(self, name) for name in ("steps", "lr", "rank", "batch") if getattr(self, name) is not None}
        for pair in self.set:
            key, equals, value = pair.partition("=")
            if not key or not equals:
                raise BadOption(f"--set {pair} is not KEY=VALUE.", "write it as in --set steps=100")
            if key in named:
                raise BadOption(f"`{key}` was given twice.", f"keep one value of {key}")
            named[key] = _value(value)
        return named


def _value(words: str) -> Any:
    try:
        return json.loads(words)
    except ValueError:
        return words
