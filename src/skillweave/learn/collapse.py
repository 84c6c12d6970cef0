"""Has a run come down from its best? The mean reward of the last steps, held against the best mean of as many in a row."""

from collections.abc import Sequence

WINDOW = 20
"""Steps whose mean is taken: single steps are noise."""
DROP = 0.1
"""How far below its best the mean has to be, in units of reward."""


def fallen(rewards: Sequence[float], window: int = WINDOW, drop: float = DROP) -> int | None:
    """The first step (1, 2, …) at which the mean of the last `window` rewards is `drop` or more below the best one before.

    None if it never is.
    """
    best = -float("inf")
    for end in range(window, len(rewards) + 1):
        mean = sum(rewards[end - window : end]) / window
        if mean <= best - drop:
            return end
        best = max(best, mean)
    return None
