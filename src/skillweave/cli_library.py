"""`skillweave library`: look at the skills there are, bring some in, take some out, and check that none has changed."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cyclopts import App

from .cli import Common
from .library import Library
from .result import Estimate, Table
from .skill import Skill

app = App(name="library", help="Look after the library.")


@dataclass(frozen=True)
class Skills:
    """Skills in the library, as its index knows them."""

    skills: tuple

    def table(self) -> Table:
        rows = tuple((s.name, s.kind, s.base, s.parents, _best(s), s.description) for s in self.skills)
        columns = ("skill", "kind", "base", "parents", "best score", "description")
        return Table(columns, rows, note=_count(len(rows), "skill"))


@dataclass(frozen=True)
class Shown:
    """One skill, all of it."""

    skill: Skill
    digest: str

    def table(self) -> Table:
        known = self.skill.provenance
        rows = [("description", self.skill.description), ("folder", self.skill.path), ("digest", self.digest)]
        rows += [
            (key, _brief(known[key])) for key in ("created", "method", "base", "data", "seed", "parents") if known.get(key)
        ]
        rows += [("score", _score(score)) for score in known.get("scores", ())]
        return Table(("skill", self.skill.name), tuple(rows))


@dataclass(frozen=True)
class Changed:
    """What a command did to skills of the library."""

    done: str
    skills: tuple[str, ...]
    library: Path
    next: str = ""

    def table(self) -> Table:
        return Table((self.done,), tuple((name,) for name in self.skills))


@dataclass(frozen=True)
class Verified:
    """What differs from what was recorded when the skills came in."""

    findings: tuple

    @property
    def exit_code(self) -> int:
        return 1 if self.findings else 0

    def table(self) -> Table:
        columns = tuple(field.name for field in fields(self.findings[0])) if self.findings else ("finding",)
        rows = tuple(tuple(getattr(finding, name) for name in columns) for finding in self.findings)
        return Table(columns, rows, note=_count(len(rows), "finding") if rows else "every file is as it was recorded")


@dataclass(frozen=True)
class Rebuilt:
    """The index, made anew from the folders."""

    skills: int
    library: Path

    def table(self) -> Table:
        return Table(("library", "skills"), ((self.library, self.skills),))


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _best(entry) -> str:
    return f"{entry.best} on {entry.best_on}" if entry.best else "–"


def _brief(value) -> str:
    """A value of provenance.json in few words: things that have a name show it."""
    if isinstance(value, list):
        return ", ".join(map(_brief, value))
    return str(value.get("name", value)) if isinstance(value, dict) else str(value)


def _score(score: dict) -> str:
    numbers: list[Any] = [score.get(key) for key in ("value", "low", "high", "n")]
    value = str(Estimate(*numbers)) if all(isinstance(number, int | float) for number in numbers) else str(numbers[0])
    return f"{score.get('task')} {score.get('split')} {score.get('metric')} {value}"


@app.command(name="list", sort_key=1)
def list_(*, common: Common = Common()) -> int:
    """List all skills."""
    return common.show(Skills(tuple(Library(common.library).list())))


@app.command(name="show", sort_key=2)
def show_(name: str, /, *, common: Common = Common()) -> int:
    """Show one skill: what it does, where it comes from, what was measured.

    Parameters
    ----------
    name
        Name of the skill.
    """
    skill = Library(common.library).get(name)
    return common.show(Shown(skill, skill.digest))


@app.command(sort_key=3)
def search(query: str, /, *, limit: int = 20, common: Common = Common()) -> int:
    """Search names and descriptions, the best match first.

    Parameters
    ----------
    query
        Words to look for; beginnings of words count.
    limit
        How many skills to show at most.
    """
    return common.show(Skills(tuple(Library(common.library).search(query, limit=limit))))


@app.command(sort_key=4)
def add(folder: Path, /, *, name: str | None = None, replace: bool = False, common: Common = Common()) -> int:
    """Copy a skill folder into the library, after a look at what is in it.

    Parameters
    ----------
    folder
        A folder with a SKILL.md.
    name
        Call it this in the library.
    replace
        Replace a skill of that name.
    """
    skill = Library(common.library, create=True).add(folder, name=name, replace=replace)
    return common.show(Changed("added", (skill.name,), common.library, f"skillweave library show {skill.name}"))


@app.command(sort_key=5)
def remove(names: list[str], /, *, common: Common = Common()) -> int:
    """Remove skills from the library.

    Parameters
    ----------
    names
        Names of the skills.
    """
    library = Library(common.library)
    for name in names:  # all or none: a typing error in the last name must not cost the first skill
        library.folder(name)
    return common.show(Changed("removed", tuple(library.remove(name).name for name in names), common.library))


@app.command(sort_key=6)
def verify(name: str | None = None, /, *, common: Common = Common()) -> int:
    """Check every file against what was recorded; exit code 1 if anything differs.

    Parameters
    ----------
    name
        Check only this skill.
    """
    return common.show(Verified(tuple(Library(common.library).verify(name))))


@app.command(sort_key=7)
def rebuild(*, common: Common = Common()) -> int:
    """Make the index anew from the folders."""
    return common.show(Rebuilt(Library(common.library).rebuild(), common.library))
