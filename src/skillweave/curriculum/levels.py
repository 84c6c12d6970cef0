"""Three levels of newness for paths over relations (paper 4, arXiv:2512.01970).

iid           paths that are trained on
composition   other paths, over relations that occur in those
zero-shot     paths with a relation that occurs in none of them: known by itself at best
"""

from collections.abc import Collection, Sequence

from ..errors import BadData
from ..task import share

LEVELS = ("iid", "composition", "zero-shot")
Path = tuple[str, ...]


def three_level_split(paths: Sequence[Path], held_out: Collection[str], new: float = 0.25) -> dict[str, list[Path]]:
    """The paths of each level: those with a `held_out` relation are zero-shot, about a share `new` of the others composition.

    What a path's level is does not depend on a seed. Every relation of a composition path occurs in an iid path of the same
    length, at the same place if any path has it there: it is the path that is new, not where a relation stands.
    """
    rest = [path for path in paths if not set(path) & set(held_out)]
    found: dict[str, list[Path]] = {level: [] for level in LEVELS}
    found["zero-shot"] = [path for path in paths if set(path) & set(held_out)]
    shown: set[tuple[int, int, str]] = set()
    for path in sorted(rest, key=lambda path: share(f"path {'/'.join(path)}"), reverse=True):
        places = {(len(path), at, relation) for at, relation in enumerate(path)}
        enough = len(found["iid"]) >= (1 - new) * len(rest)
        found["composition" if enough and places <= shown else "iid"].append(path)
        shown |= places
    if not found["iid"]:
        raise BadData(f"none of {len(paths)} paths is without a relation that is held out ({', '.join(sorted(held_out))}).",
                      "hold out fewer relations")  # fmt: skip
    return found
