"""The catalog of papers: 56 rows of `catalog.toml`, read once, searchable.

Examples:
    >>> get(47).room
    'compose'
    >>> [paper.number for paper in search("task vectors")]
    [47]
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import NotFound

CATALOG = Path(__file__).with_name("catalog.toml")
STATES = ("planned", "in use", "reproduced")


@dataclass(frozen=True)
class Paper:
    """One row: a paper, where it lives in the house, and how far we are with it."""

    number: int
    """1 to 56, the number that `skillweave reproduce` takes."""
    title: str
    """As the authors print it."""
    arxiv: str
    """arXiv identifier, such as 2407.02880."""
    room: str
    """Rooms it belongs to, as written in the catalog: "compose", "measure + curriculum", "worlds/control (planning)"."""
    what: str
    """What it is and what it does for a user, in our own words."""
    state: str
    """"planned", "in use" (a method of it is used, nothing is reproduced yet) or "reproduced"."""
    command: str
    """The command that uses or reproduces it; empty when there is none yet."""

    @property
    def url(self) -> str:
        """Address of the abstract."""
        return f"https://arxiv.org/abs/{self.arxiv}"

    @property
    def rooms(self) -> tuple[str, ...]:
        """The rooms one by one, without remarks in brackets."""
        return tuple(part.strip() for part in re.split(r", | \+ | / ", re.sub(r"\(.*?\)", "", self.room)))


@cache
def load() -> tuple[Paper, ...]:
    """All papers in the order of their numbers."""
    with CATALOG.open("rb") as file:
        return tuple(Paper(**row) for row in tomllib.load(file)["paper"])


def search(query: str = "") -> list[Paper]:
    """Papers with every word of `query` (any case) in title, text or room, or the one of that number; all if it is empty."""
    words = query.casefold().split()
    if len(words) == 1 and words[0].isdecimal():
        return [paper for paper in load() if paper.number == int(words[0])]
    return [paper for paper in load() if all(word in f"{paper.title} {paper.what} {paper.room}".casefold() for word in words)]


def get(number: int) -> Paper:
    """The paper of that number; raises NotFound for any other."""
    for paper in load():
        if paper.number == number:
            return paper
    raise NotFound("paper", str(number), (), hint=f"skillweave papers lists all {len(load())}")
