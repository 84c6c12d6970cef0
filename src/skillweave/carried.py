"""What a skill carries along: examples that a later composition can replay, and a fingerprint of everything it has seen."""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from .errors import BadSkill
from .files import sha256_json
from .skill import Skill
from .task import Example

KEEP = 200
"""Examples of its own that a skill carries along."""


def carry(folder: Path, examples: Sequence[Example], parents: Sequence[Skill] = (), read: Sequence[Example] = ()) -> None:
    """Write to the `folder` of a new skill what it learned from; it has seen that, what it `read` and what its parents saw."""
    distinct = list({e.prompt: e for e in examples}.values())
    lines = (json.dumps({"prompt": e.prompt, "completion": e.completion}, ensure_ascii=False) for e in distinct[:KEEP])
    (folder / "examples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "seen.txt").write_text("\n".join(sorted(seen_by(parents) | {fingerprint(e) for e in (*distinct, *read)})) + "\n")


def carried_by(members: Sequence[Skill]) -> dict[str, list[Example]]:
    """The examples that each of `members` carries along, by its name."""
    paths = {member.name: member.path / "examples.jsonl" for member in members}
    return {name: _examples(name, path) if path.is_file() else [] for name, path in paths.items()}


def _examples(name: str, path: Path) -> list[Example]:
    try:
        with open(path, encoding="utf-8") as lines:  # not splitlines: JSON lines may hold other separators
            rows = [json.loads(line) for line in lines]
        return [Example(str(row["prompt"]), str(row["completion"])) for row in rows]
    except (ValueError, TypeError, KeyError) as error:
        raise BadSkill(f"{path} of `{name}` is not lines of prompt and completion.", "fetch or learn it again") from error


def fingerprint(example: Example) -> str:
    """Sixteen hex digits that stand for a prompt: enough to recognise one that was learned from, too few to read it."""
    return sha256_json(example.prompt.strip())[:16]


def seen_by(members: Sequence[Skill]) -> set[str]:
    """Fingerprints of all examples that `members`, and what they were made of, learned from."""
    seen = set()
    for member in members:
        path = member.path / "seen.txt"
        if path.is_file():
            with open(path, errors="replace") as lines:
                seen.update(line.strip() for line in islice(lines, 10_000_000))
    return seen
