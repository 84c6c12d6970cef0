"""A sequence of examples drawn from several sources in fixed proportions."""

import random
from collections.abc import Mapping, Sequence

from ..errors import BadOption
from ..task import Example


def mixture(sources: Sequence[tuple[Sequence[Example], float]], count: int, seed: int) -> list[Example]:
    """`count` examples, of each source its share (shares are normalised), each source in shuffled passes over itself.

    Within a source every example occurs once before any occurs again. Empty sources and shares of zero take no part.
    """
    used = [(list(examples), share) for examples, share in sources if share > 0 and len(examples)]
    whole = sum(share for _, share in used)
    drawn: list[Example] = []
    for number, (examples, share) in enumerate(used):
        rest = count - len(drawn)
        wanted = rest if number == len(used) - 1 else min(rest, round(count * share / whole))
        drawn += _passes(examples, wanted, random.Random(f"{seed}:{number}"))
    random.Random(f"{seed}:order").shuffle(drawn)
    return drawn


def _passes(examples: list[Example], count: int, rng: random.Random) -> list[Example]:
    out: list[Example] = []
    while len(out) < count:
        out += rng.sample(examples, len(examples))
    return out[:count]


def with_replay(
    examples: Sequence[Example], carried: Mapping[str, Sequence[Example]], replay: float, count: int, seed: int
) -> list[Example]:
    """`count` of `examples`, a share `replay` of them from what the skills carry along. Raises BadOption."""
    if not 0 <= replay < 1:
        raise BadOption(f"replay is {replay:g}, but has to be at least 0 and below 1.", "it is a share of the examples")
    own = [example for kept in carried.values() for example in kept]
    share = replay if own else 0.0
    return mixture([(examples, 1 - share), (own, share)], count, seed)
