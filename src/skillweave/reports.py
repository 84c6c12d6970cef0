"""What the verbs answer with: frozen dataclasses that `skillweave.result.show` prints."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BelowThreshold
from .result import Estimate, Table

if TYPE_CHECKING:
    from .measure.retention import Retention


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
    forgetting: "Retention"
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
