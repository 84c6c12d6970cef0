"""Regular expressions out of files from elsewhere: used only when they cannot keep us busy for ever.

A repeat inside a repeat, `(a+)+`, takes exponential time, and each further repeat in a row adds a power of the length.
"""

import re
from typing import Any

MOST = 5
"""Repeats of no fixed length in a row: on names of layers these take a fraction of a second at worst."""
WAYS = 10_000
"""Alternatives, multiplied along one way through the pattern."""
LONGEST = 4_000
"""Characters of a pattern."""


def check_pattern(pattern: str) -> str:
    """`pattern`, if it can be used. Raises ValueError (re.error is one of them) or TypeError."""
    if not isinstance(pattern, str):
        raise TypeError(f"{pattern!r} is not text")
    if len(pattern) > LONGEST:
        raise ValueError(f"it has {len(pattern):,} characters")
    re.compile(pattern)
    try:
        _ways(re._parser.parse(pattern), False)  # type: ignore[attr-defined]
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return pattern


def _ways(tree: Any, inside: bool) -> tuple[int, int]:
    """Repeats and alternatives on one way through the pattern, the most there can be. Raises ValueError for too many."""
    repeats, ways = 0, 1
    for kind, value in tree:
        name = str(kind)
        if name.endswith("REPEAT"):
            least, most, body = value
            if inside and most > 1:
                raise ValueError("it repeats a repeat")
            within, choices = _ways(body, inside or most > 1)
            repeats += within + (least != most)
            ways *= choices ** min(int(most), 16)
        elif name == "BRANCH":
            found = [_ways(branch, inside) for branch in value[1]]
            repeats += max(count for count, _ in found)
            ways *= sum(choices for _, choices in found)
        elif name == "SUBPATTERN":
            within, choices = _ways(value[-1], inside)
            repeats, ways = repeats + within, ways * choices
        elif name not in ("LITERAL", "NOT_LITERAL", "ANY", "IN", "AT", "RANGE"):
            raise ValueError("it looks around or back")
    if repeats > MOST or ways > WAYS:
        raise ValueError(f"it has {repeats} repeats in a row and {ways:,} ways to match")
    return repeats, ways
