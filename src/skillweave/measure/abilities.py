"""A profile of what a base can do, in a minute: facts it knows, rules it reads, formats it keeps, text it expects.

Each suite is a function of (base, seed), the seed draws its items, and two bases are compared on the same ones. A score says
little beside the one that is reached blindly, so each suite gives that too; `lost` compares what is above it.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from ..base import Base
from ..errors import NotFound
from .choice import Choice, chance, right
from .facts import facts
from .formats import Forms, asked, controls, score
from .rules import rules
from .text import perplexity, sample

FACTS, RULES, TOPICS, TEXTS = 200, 400, 4, 12
"""Cloze facts, rules in context, topics of each of the 12 format instructions, texts for the perplexity."""
ANSWER = 40
"""Tokens of an answer to a format instruction."""
Profile = dict[str, float]


def ability_profile(base: Base, seed: int, suites: Sequence[str] = ()) -> Profile:
    """Every number of `suites` (all of SUITES if none is named) of `base`, on the items that `seed` draws."""
    for suite in suites:
        if suite not in SUITES:
            raise NotFound("suite", suite, SUITES, hint=f"choose from {', '.join(SUITES)}")
    return {name: value for suite in suites or SUITES for name, value in SUITES[suite](base, seed).items()}


def lost(full: float, now: float, blind: float) -> float:
    """The share of what `full` had above `blind` that is gone: 0 nothing, 1 all of it, below 0 a gain; unitless.

    Not a number when there was nothing to lose.
    """
    return (full - now) / (full - blind) if full > blind else math.nan


def control_profiles(seed: int) -> dict[str, Profile]:
    """What answers that follow no instruction score in the suite of formats."""
    questions = asked(TOPICS, seed)
    return {name: _shares(score(questions, answers)) for name, answers in controls(questions, seed).items()}


def _ranked(base: Base, name: str, items: Sequence[Choice]) -> Profile:
    return {name: sum(right(base, items)) / len(items), f"{name} blind": chance(items)}


def _formats(base: Base, seed: int) -> Profile:
    questions = asked(TOPICS, seed)
    return _shares(score(questions, base.generate([q.prompt for q in questions], ANSWER)))


def _shares(forms: Forms) -> Profile:
    return {"formats": forms.met, "formats sound": forms.sound, "degenerate": forms.degenerate}


SUITES: Mapping[str, Callable[[Base, int], Profile]] = {
    "facts": lambda base, seed: _ranked(base, "facts", facts(FACTS, seed)),
    "rules": lambda base, seed: _ranked(base, "rules", rules(RULES, seed)),
    "formats": _formats,
    "text": lambda base, seed: {"perplexity": perplexity(base, sample(TEXTS, seed))},
}
"""Suite -> its numbers, by name."""
