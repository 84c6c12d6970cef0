"""What learning costs: how far one loss has risen where another has come down to a level.

Two ways to learn are not compared after as many steps, when one has learned more than the other, but where they have
learned as much: at the level that all of them reach.
"""

from collections.abc import Iterable, Mapping, Sequence

Course = Sequence[tuple[float, float]]
"""(what should fall, what should not rise) along a run, from before the first step on; in nats per token."""


def common_level(courses: Iterable[Course]) -> float:
    """The lowest level that what should fall comes down to in every one of `courses`."""
    return max(min(learned for learned, _ in course) for course in courses)


def rise_at(course: Course, level: float) -> float:
    """How far the second has risen where the first first comes down to `level`; linear between two measurements."""
    for (before, low), (now, high) in zip(course, course[1:], strict=False):
        if now <= level:
            part = min(1.0, (before - level) / (before - now)) if before > now else 1.0
            return low + max(0.0, part) * (high - low) - course[0][1]
    raise AssertionError(f"it never came down to {level}")


def rises(courses: Mapping[str, Course], shares: Sequence[float]) -> dict[str, dict[float, float]]:
    """Of each course, its rise at each of `shares` of the way from the common start to the common level."""
    start, level = next(iter(courses.values()))[0][0], common_level(courses.values())
    levels = {share: level + (1 - share) * (start - level) for share in shares}
    return {name: {share: rise_at(course, at) for share, at in levels.items()} for name, course in courses.items()}
