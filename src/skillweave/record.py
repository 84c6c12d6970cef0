"""What a benchmark or reproduction leaves behind: one JSON file, written by the command that measured it."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from .errors import SkillweaveError
from .files import atomic_write
from .result import plain

KINDS = ("quickstart", "benchmark", "reproduction")
VERDICTS = ("holds", "partly", "does not hold", "not tested")


def run_app(app: Callable[[], object]) -> int:
    """Run the command line of a benchmark; the exit code. What goes wrong becomes one sentence on stderr."""
    try:
        app()
    except SkillweaveError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def write_result(
    path: Path,
    *,
    name: str,
    kind: str,
    command: str,
    seeds: Sequence[int],
    cpu_minutes: float,
    verdict: str,
    values: Mapping,
) -> dict:
    """Write a result with its envelope (commit, machine, date) to `path`, and return it.

    `command` is what a reader types in a clone of the repository to measure it again. NaN becomes null.
    """
    assert kind in KINDS, f"{kind} is none of {KINDS}"
    assert verdict in VERDICTS, f"{verdict} is none of {VERDICTS}"
    record = {
        "name": name,
        "kind": kind,
        "command": command,
        "commit": commit(path.parent),
        "machine": machine(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": list(seeds),
        "cpu_minutes": round(cpu_minutes, 2),
        "verdict": verdict,
        "values": plain(values),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    _check_private(text)
    atomic_write(path, text)
    return record


def commit(folder: Path) -> str | None:
    """The git commit that `folder` is at; None outside a repository and before its first commit."""
    try:
        command = ["git", "rev-parse", "--verify", "--quiet", "HEAD"]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def machine() -> dict:
    """What the numbers depend on: processor, cores that this process may use, Python."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": _cpu(), "cores": allowed, "python": platform.python_version()}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


def _check_private(text: str) -> None:
    """A result is published: it names no folder of the machine that made it."""
    for folder in (str(Path.cwd()), str(Path.home()), sys.prefix, os.environ.get("TMPDIR", "")):
        assert len(folder) < 5 or folder not in text, f"the result names {folder}"
