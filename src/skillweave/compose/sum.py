"""The plain sum: every skill at full strength, nothing learned. The least that a method is asked to be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ..bank import SkillBank
from ..base import Base
from ..composition import Composition
from ..delta import LowRank
from ..learn.loop import Log, Tick
from ..task import Example


@dataclass(frozen=True)
class Sum:
    """Task arithmetic with weight one: all skills at full strength, nothing learned."""

    def fit(
        self,
        base: Base,
        skills: Mapping[str, LowRank],
        examples: Sequence[Example],
        seed: int,
        carried: Mapping[str, Sequence[Example]] = MappingProxyType({}),
        state: Path | None = None,
        key: str = "",
        tick: Tick = lambda n, t: None,
    ) -> tuple[Composition, Log]:
        bank = SkillBank(base, skills)
        return Composition(bank.names, bank.ones()), Log()
