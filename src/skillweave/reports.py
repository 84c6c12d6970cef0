"""What the verbs answer with: frozen dataclasses that `skillweave.result.show` prints."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import BelowThreshold, TooMuchForgotten
from .result import Estimate, Table


@dataclass(frozen=True)
class Change:
    """One number before and after, on the same items."""

    before: Estimate
    after: Estimate
    difference: Estimate
    """After minus before, with a 95 % interval over the items."""


@dataclass(frozen=True)
class Retention:
    """What a skill has changed where it should change nothing."""

    text: Change | None
    """Nats per token of general text: the base alone, and with the skill; None where there is no text to read."""
    texts: str = ""
    """Digest of the texts, 12 hex digits: two numbers compare only if it is the same."""
    tokens: int = 0
    """Tokens that were read on each side."""
    skills: Mapping[str, Change] = field(default_factory=dict)
    """Of other skills the exact match on their own task, in [0, 1]: alone, and added to the new one."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Why other skills were not tried."""
    limit: float | None = None
    """What was allowed, in nats per token."""

    def check(self, name: str) -> None:
        """Raises TooMuchForgotten if it cannot be said with 97.5 % confidence that the rise is within the limit."""
        if self.limit is None:
            return
        if self.text is None:
            raise TooMuchForgotten(
                f"`{name}` was not saved: it was shown all the text that its limit ({self.limit:g} nats/token) is measured by.",
                "learn without --max-forgetting, or without Python's language reference",
            )
        if self.text.difference.high <= self.limit:
            return
        rise = self.text.difference
        more = ""
        if math.isfinite(rise.high):
            enough = math.floor(rise.high * 100 + 1) / 100
            more = (
                f", or allow more: what was learned is kept, and the same command with --max-forgetting {enough:.2f} saves it"
            )
        raise TooMuchForgotten(
            f"`{name}` was not saved: with it the loss on general text rises by {rise.value:.3f} nats/token "
            f"[{rise.low:.3f}, {rise.high:.3f}], and the upper end may be at most {self.limit:g}.",
            f"learn with a lower --lr or fewer --steps{more}",
        )

    def lines(self) -> list[str]:
        """All of it for people, a line each."""
        found = []
        if self.text is not None:
            t = self.text
            found.append(
                f"general text: {t.before.value:.3f} nats/token without the skill, {t.after.value:.3f} with it: "
                f"{_signed(t.difference)} on {t.difference.n} texts"
            )
        for name, c in self.skills.items():
            found.append(f"`{name}`: exact match {c.before} alone, {c.after} added to it: {_signed(c.difference)}")
        return found + [f"`{name}` was not tried with it: {why}" for name, why in self.left_out.items()]


@dataclass(frozen=True)
class Learned:
    """A new skill in the library."""

    name: str
    path: Path
    base: str
    dtype: str
    exact: Estimate
    """Exact match on the validation split."""
    loss: float
    """Nats per token, mean of the last tenth of the steps."""
    steps: int
    seconds: float
    tokens_per_second: float
    forgetting: Retention
    """What it costs elsewhere: general text, other skills."""

    @property
    def next(self) -> str:
        return f'skillweave run {self.name} "…"'

    def table(self) -> Table:
        row = (
            self.name,
            str(self.exact),
            f"{self.loss:.3f}",
            self.steps,
            f"{self.seconds:.0f}",
            f"{self.tokens_per_second:.0f}",
        )
        columns = ("skill", "exact match (valid)", "loss, nats/token", "steps", "seconds", "tokens/s")
        lines = [f"{self.base} in {self.dtype}; saved in {self.path}", *self.forgetting.lines()]
        return Table(columns, (row,), note="\n".join(lines))


@dataclass(frozen=True)
class Composed:
    """Several skills working as one."""

    skills: tuple[str, ...]
    method: str
    saved: str | None
    exact: Estimate
    """Exact match on the validation split."""
    shots: int
    """Examples of the task that were used."""
    alpha: Mapping[str, Mapping[str, float]]
    """Strength of each skill: mean, lowest and highest over its layers or blocks (unitless, 1 = as trained)."""
    seconds: float

    @property
    def next(self) -> str:
        return f'skillweave run {self.saved} "…"' if self.saved else ""

    def table(self) -> Table:
        rows = tuple((name, f"{a['mean']:.2f}", f"{a['low']:.2f}", f"{a['high']:.2f}") for name, a in self.alpha.items())
        kept = f"saved as {self.saved}" if self.saved else "not saved (--save NAME)"
        note = f"{self.method}, {self.shots} examples, {self.seconds:.0f} s; exact match (valid) {self.exact}; {kept}"
        return Table(("skill", "strength", "lowest", "highest"), rows, note=note)


@dataclass(frozen=True)
class Measured:
    """Skills on the same examples, each compared with the first."""

    task: str
    split: str
    rows: tuple[Mapping[str, Any], ...]
    """For each: name, exact, fields, seconds, and against the first: difference and p (exact McNemar)."""
    at_least: float | None = None

    @property
    def exit_code(self) -> int:
        below = self.at_least is not None and self.rows[0]["exact"].value < self.at_least
        return BelowThreshold.exit_code if below else 0

    def table(self) -> Table:
        parts = tuple(self.rows[0]["fields"])
        columns = ("skill", "exact match", *parts, f"against {self.rows[0]['name']}", "p", "seconds")
        rows = tuple(
            (
                row["name"],
                str(row["exact"]),
                *(str(row["fields"][part]) for part in parts),
                str(row["difference"]) if row["difference"] else "–",
                f"{row['p']:.3g}" if row["difference"] else "–",
                f"{row['seconds']:.1f}",
            )
            for row in self.rows
        )
        return Table(columns, rows, title=f"{self.task}, {self.split} split")


@dataclass(frozen=True)
class Answers:
    """What the skill said, one answer a text."""

    skill: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Papers:
    """Rows of the catalog."""

    papers: tuple

    def table(self) -> Table:
        rows = tuple((p.number, p.title, p.room, p.what, p.state, p.command) for p in self.papers)
        return Table(("n", "title", "room", "what it is", "state", "command"), rows, note=f"{len(rows)} papers")


def _signed(e: Estimate) -> str:
    return f"{e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}]"
