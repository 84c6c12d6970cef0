"""How a library scales: add, list, search, show and verify at 100, 1,000 and 10,000 skills.

    python benchmarks/library_scale.py

Each job is timed as the first call of a fresh process (imports apart) and warm, against the obvious program: glob the folders
and read each SKILL.md with a regular expression; copy the folder without flushing; hash every file. Medians of repeats; the
writing jobs end on the disk (fsync), which is most of their time. Reading is from a warm page cache.
"""

import hashlib
import json
import os
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
sys.path.insert(0, str(SOURCE))

SIZES = (100, 1_000, 10_000)
JOBS = ("add", "list", "search", "show", "verify")
GOAL_MS = 100.0
"""Milliseconds that list, search and show may take in a fresh process, at every size."""
REPEATS = {"fresh": 3, "warm": 5}
SEED = 0
QUERY = "invoices german"
_VERBS = ["turns", "reads", "checks", "sorts", "rewrites", "extracts", "translates", "counts", "splits", "merges"]
_THINGS = ["dates", "invoices", "amounts", "countries", "addresses", "tables", "songs", "sketches", "proofs", "tickets"]
_HOW = ["german", "english", "quickly", "strictly", "nested", "long", "short", "legal", "medical", "old"]


def populate(folder: Path, n: int) -> None:
    """A library of `n` small skills with adapters, written without flushing."""
    from skillweave.library import Library

    Library(folder, create=True)
    chance = random.Random(SEED)
    with no_flushing():
        for i in range(n):
            write_one(folder / f"skill-{i}", i, chance)


def write_one(folder: Path, i: int, chance: random.Random) -> None:
    from skillweave.skill import write_skill

    (folder / "adapter").mkdir(parents=True)
    header = b'{"a":{"dtype":"U8","shape":[64],"data_offsets":[0,64]}}'
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + chance.randbytes(64)
    )
    (folder / "adapter" / "adapter_config.json").write_text('{"r": 8}')
    words = [chance.choice(_VERBS), chance.choice(_THINGS), chance.choice(_HOW), chance.choice(_THINGS), f"case{i % 997}"]
    body = " ".join(chance.choice(_VERBS + _THINGS + _HOW) for _ in range(60))
    score = {
        "task": "t",
        "split": "test",
        "metric": "exact",
        "value": chance.random(),
        "low": 0.0,
        "high": 1.0,
        "n": 200,
        "seed": 0,
    }
    made = {"base": {"name": "gemma-3-270m", "digest": None}, "scores": [score] if i % 2 else []}
    write_skill(
        folder, name=folder.name, description=" ".join(words).capitalize() + ".", body=body, metadata={}, provenance=made
    )


@contextmanager
def no_flushing():
    flush, os.fsync = os.fsync, lambda descriptor: None
    try:
        yield
    finally:
        os.fsync = flush


class Ours:
    """The jobs, done by skillweave."""

    def __init__(self, path: Path, extra: Path):
        from skillweave.library import Library

        self.open, self.path, self.extra = Library, path, extra

    def add(self, i: int):
        self.open(self.path).add(self.extra, name=f"extra-{i}")

    def list(self, i: int):
        return len(self.open(self.path).list())

    def search(self, i: int):
        return len(self.open(self.path).search(QUERY, limit=20))

    def show(self, i: int):
        return self.open(self.path).get(f"skill-{i % 100}").description

    def verify(self, i: int):
        return len(self.open(self.path).verify(f"skill-{i % 100}"))

    def undo_add(self, i: int):
        self.open(self.path).remove(f"extra-{i}")


class Peer:
    """The jobs, done by walking the folders."""

    def __init__(self, path: Path, extra: Path):
        self.path, self.extra = path, extra

    def _walk(self) -> list[tuple[str, str, str]]:
        texts = [path.read_text() for path in sorted(self.path.glob("*/SKILL.md"))]
        name, description = re.compile(r"^name: (.*)$", re.M), re.compile(r"^description: (.*)$", re.M)
        return [(name.search(text)[1], description.search(text)[1], text) for text in texts]

    def add(self, i: int):
        shutil.copytree(self.extra, self.path / f"extra-{i}")

    def list(self, i: int):
        return len(self._walk())

    def search(self, i: int):
        words = QUERY.split()
        return len([text for _, _, text in self._walk() if all(word in text.lower() for word in words)][:20])

    def show(self, i: int):
        folder = self.path / f"skill-{i % 100}"
        json.loads((folder / "provenance.json").read_text())
        return re.search(r"^description: (.*)$", (folder / "SKILL.md").read_text(), re.M)[1]

    def verify(self, i: int):
        folder = self.path / f"skill-{i % 100}"
        known = json.loads((folder / "provenance.json").read_text())["files"]
        return sum(hashlib.sha256((folder / name).read_bytes()).hexdigest() != entry["sha256"] for name, entry in known.items())

    def undo_add(self, i: int):
        shutil.rmtree(self.path / f"extra-{i}")


def time_job(who, job: str, repeats: int) -> dict:
    """Median wall and CPU milliseconds of a job, and what it answered."""
    walls, cpus = [], []
    for i in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        answer = getattr(who, job)(i)
        walls.append((time.perf_counter() - wall) * 1e3)
        cpus.append((time.process_time() - cpu) * 1e3)
        if job == "add":
            who.undo_add(i)
    return {"wall_ms": statistics.median(walls), "cpu_ms": statistics.median(cpus), "answer": answer}


def one_process(kind: str, path: str, extra: str, job: str) -> None:
    """Run in a fresh process: one job, once, and the memory it took."""
    begun = time.perf_counter()
    who = {"ours": Ours, "peer": Peer}[kind](Path(path), Path(extra))
    imports = (time.perf_counter() - begun) * 1e3
    measured = time_job(who, job, 1) | {"import_ms": imports}
    print(json.dumps(measured | {"peak_mb": peak_mb()}))


def peak_mb() -> float:
    """Peak resident memory; on Linux not from getrusage, which counts what the parent process had."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)  # macOS: bytes
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def fresh(kind: str, path: Path, extra: Path, job: str) -> dict:
    command = [sys.executable, __file__, "--one", kind, path, extra, job]
    runs = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(REPEATS["fresh"])
    ]
    medians = {key: statistics.median(run[key] for run in runs) for key in ("wall_ms", "cpu_ms", "import_ms", "peak_mb")}
    return medians | {"answer": runs[0]["answer"]}


def measure(path: Path, extra: Path) -> tuple[list[dict], dict]:
    """Rows of one library, and the same with CPU time and memory."""
    n = sum(1 for _ in path.glob("*/SKILL.md"))
    rows, details = [], {}
    for job in JOBS:
        for how in ("fresh", "warm"):
            if how == "fresh":
                ours, peer = (fresh(kind, path, extra, job) for kind in ("ours", "peer"))
            else:
                ours, peer = (time_job(who(path, extra), job, REPEATS["warm"]) for who in (Ours, Peer))
            assert ours.pop("answer") == peer.pop("answer"), job
            rows.append(row(f"{job}, {n:,} skills, {how}", job, ours["wall_ms"], peer["wall_ms"]))
            details[rows[-1]["job"]] = {"ours": rounded(ours), "peer": rounded(peer)}
            print(f"{rows[-1]['job']:32} ours {ours['wall_ms']:8.2f} ms   peer {peer['wall_ms']:8.2f} ms", file=sys.stderr)
    return rows, details


def row(name: str, job: str, ours: float, peer: float) -> dict:
    judged = job in ("list", "search", "show")
    return {
        "job": name,
        "ours": round(ours, 2),
        "peer": round(peer, 2),
        "unit": "ms",
        "ratio": round(peer / ours, 2),
        "goal": f"< {GOAL_MS:.0f} ms" if judged else None,
        "met": ours < GOAL_MS if judged else None,
    }


def rounded(numbers: dict) -> dict:
    return {key: round(value, 2) for key, value in numbers.items()}


def once(path: Path, extra: Path) -> dict:
    """What happens once: making the index, checking every file; and what flushing to the disk costs an add."""
    from skillweave.library import Library

    out = {}
    for job, call in (("rebuild_s", Library(path).rebuild), ("verify_all_s", Library(path).verify)):
        begun = time.perf_counter()
        call()
        out[job] = time.perf_counter() - begun
    with no_flushing():
        out["add_without_fsync_ms"] = time_job(Ours(path, extra), "add", REPEATS["warm"])["wall_ms"]
    return rounded(out)


def main() -> None:
    from skillweave.record import write_result

    rows, details, single = [], {}, {}
    load = round(os.getloadavg()[0], 2)  # other work on the machine lengthens every wall time
    with tempfile.TemporaryDirectory() as place:
        extra = Path(place) / "extra"
        write_one(extra, 1, random.Random(SEED))
        for n in SIZES:
            path = Path(place) / f"library-{n}"
            populate(path, n)
            single[f"{n:,} skills"] = once(path, extra)
            more, more_details = measure(path, extra)
            rows += more
            details |= more_details
            shutil.rmtree(path)
    cpu = sum(getattr(resource.getrusage(who), part) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
              for part in ("ru_utime", "ru_stime"))  # fmt: skip
    held = all(row["met"] for row in rows if row["met"] is not None)
    write_result(
        SOURCE.parent / "results" / "library_scale.json",
        name="library_scale",
        kind="benchmark",
        command="python benchmarks/library_scale.py",
        seeds=[SEED],
        cpu_minutes=cpu / 60,
        verdict="holds" if held else "does not hold",
        values={"rows": rows, "details": details, "once": single, "repeats": REPEATS, "query": QUERY, "load_before": load},
    )


if __name__ == "__main__":
    one_process(*sys.argv[2:]) if sys.argv[1:2] == ["--one"] else main()
