"""What a new skill may cost: the options of `learn` about what the model could do before."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter


@Parameter(name="*", group="What it may cost elsewhere")
@dataclass(frozen=True)
class Gate:
    """Limits and checks before a skill is saved."""

    max_forgetting: Annotated[float | None, Parameter(metavar="NATS", show_default=False)] = None
    """Refuse a skill that may raise the loss on general text by more than this, in nats per token; no limit if not given."""
    others: int = 0
    """How many other skills of the library to try with the new one added, each on its own task."""
