"""Join the fragments of changelog.d/ into a section of CHANGELOG.md for the present version, and remove them.

    python scripts/changelog.py            join
    python scripts/changelog.py --check    exit 1 and name a fragment that is not one

A fragment is `changelog.d/NUMBER-word.KIND.md`: one sentence about what a user can do now, ending with a full stop.
"""

import datetime
import sys
from pathlib import Path

from skillweave import __version__

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("added", "changed", "fixed", "removed")


def fragments(folder: Path) -> list[tuple[str, Path]]:
    """(kind, file) of each fragment by kind and name; ValueError for one without a kind of KINDS, or that is no sentence."""
    found = [(path.name.split(".")[-2], path) for path in sorted(folder.glob("*.md"))]
    for kind, path in found:
        if kind not in KINDS:
            raise ValueError(f"changelog.d/{path.name} should be NUMBER-word.KIND.md with KIND one of {', '.join(KINDS)}")
        if not path.read_text(encoding="utf-8").strip().endswith("."):
            raise ValueError(f"changelog.d/{path.name} should be one sentence that ends with a full stop")
    return sorted(found, key=lambda item: (KINDS.index(item[0]), item[1].name))


def section(version: str, date: str, found: list[tuple[str, Path]]) -> str:
    """The section of one release, a list for each kind of change."""
    lines = [f"## {version} ({date})"]
    for kind in KINDS:
        texts = [" ".join(path.read_text(encoding="utf-8").split()) for k, path in found if k == kind]
        lines += [f"\n### {kind.capitalize()}\n", *(f"- {text}" for text in texts)] if texts else []
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    try:
        found = fragments(ROOT / "changelog.d")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if "--check" in arguments or not found:
        return 0
    log = ROOT / "CHANGELOG.md"
    head, mark, older = log.read_text(encoding="utf-8").partition("\n## ")
    new = section(__version__, datetime.date.today().isoformat(), found)
    log.write_text(f"{head.rstrip()}\n\n{new}{mark}{older}", encoding="utf-8")
    for _, path in found:
        path.unlink()
    print(f"{len(found)} changes joined into {log.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
