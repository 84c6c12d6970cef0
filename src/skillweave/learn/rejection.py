"""Rejection fine-tuning (RFT, 2308.01825), on-policy: sample, verify, keep what is right, train on it, and again.

The loop is that of practice.py; temperature and threshold are the same in all rounds.
"""

from dataclasses import dataclass

from ..errors import BadOption
from .journal import Row
from .practice import Practice
from .rounds import Rounds


@dataclass(frozen=True)
class Rejection(Practice):
    """A skill from its own right answers, round after round."""

    temperature: float = 1.0
    """Of the completions, unitless."""
    threshold: float = 1.0
    """The least score of a completion that is kept; 1 is a right answer."""

    def settings(self, course: Rounds, number: int) -> Row:
        return {"temperature": self.temperature, "threshold": self.threshold}

    def check(self) -> None:
        """Raises BadOption."""
        super().check()
        if self.temperature < 0:
            raise BadOption(f"temperature is {self.temperature}, but has to be at least 0.")
