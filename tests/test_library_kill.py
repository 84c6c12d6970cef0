"""`kill -9` in the middle of adding, fifty times: what was committed is there and whole, and nothing else is."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skillweave import library
from skillweave.library import Library
from skillweave.skill import write_skill

KILLS = 50
SERVER = """
import os, sys
sys.path[:0] = [sys.argv[3]]
from skillweave.library import Library
for name in map(str.strip, iter(sys.stdin.readline, "")):
    child = os.fork()
    if child == 0:
        lib = Library(sys.argv[1])
        print(os.getpid(), flush=True)
        lib.add(sys.argv[2], name=name, replace=True)
        os._exit(0)
    sys.stdin.readline()  # until then the child's number is not given to anybody else
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Writers:
    """Processes that add one skill each; the modules are loaded once, and each is a fork."""

    def __init__(self, lib: Library, source: Path):
        command = [sys.executable, "-c", SERVER, lib.path, source, str(Path(library.__file__).parents[1])]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def add_and_kill(self, name: str, after: float) -> bool:
        """Let a process begin to add, and kill it `after` seconds; whether it was done by then."""
        pid = int(self._say(name))
        time.sleep(after)
        os.kill(pid, signal.SIGKILL)
        status = int(self._say(""))
        assert status in (0, signal.SIGKILL)
        return status == 0

    def _say(self, line: str) -> str:
        self.server.stdin.write(line + "\n")
        self.server.stdin.flush()
        return self.server.stdout.readline()

    def end(self) -> None:
        self.server.communicate()
        assert self.server.returncode == 0


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "adapter").mkdir(parents=True)
    for i in range(4):
        (folder / "adapter" / f"part-{i}.dat").write_bytes(os.urandom(1 << 20))
    write_skill(folder, name="source", description="some megabytes", body="", metadata={}, provenance={})
    return folder


def test_fifty_kills_lose_nothing(tmp_path, source):
    lib = Library(tmp_path / "library", create=True)
    writers = Writers(lib, source)
    chance = random.Random(0)
    kept, cut, longest = set(), 0, 0.05
    for i in range(KILLS):
        name = f"new-{i}" if i % 2 or not kept else chance.choice(sorted(kept))  # every other one replaces a skill
        done = writers.add_and_kill(name, chance.uniform(0, longest))
        longest = min(longest * 0.8, 1.0) if done else min(longest * 1.05, 1.0)  # most kills land inside
        cut += not done
        found = set(Library(lib.path).names())
        assert found - {name} == kept - {name}  # what was committed stays, nothing else appears
        assert name in found or not (done or name in kept)  # done is done, and a replaced skill is there in either form
        assert [entry.name for entry in lib.list()] == sorted(found)
        assert lib.verify(name) == [] if name in found else True
        kept = found
    writers.end()
    assert cut >= KILLS // 2, f"only {cut} of {KILLS} kills landed inside an add"
    assert lib.verify() == []
    lib.add(source, name="after")  # the same add is taken again, and clears what the killed ones left
    assert list((lib.path / ".staging").iterdir()) == []
    assert lib.rebuild() == len(kept) + 1 and lib.verify() == []


READERS = {
    "get": lambda lib: [lib.get("skill").name],
    "names": lambda lib: lib.names(),
    "list": lambda lib: [entry.name for entry in lib.list()],
    "search": lambda lib: [entry.name for entry in lib.search("skill")],
    "len": lambda lib: ["skill"] * len(lib),
    "in": lambda lib: ["skill"] * ("skill" in lib),
}
MOMENTS = ["staged", "moved aside", "in place", "not indexed"]


@pytest.mark.parametrize(
    ("moment", "reader"), [*((moment, "get") for moment in MOMENTS), *(("moved aside", r) for r in READERS)]
)
def test_the_moments_that_matter(tmp_path, source, moment, reader):
    """The process dies just before or after each step of replacing a skill; the next finds the old or the new one whole."""
    lib = Library(tmp_path / "library", create=True)
    lib.add(source, name="skill")
    old = lib.get("skill").digest
    (source / "adapter" / "part-0.dat").write_bytes(b"new")
    (source / "provenance.json").unlink()
    program = f"""
import os, sys
sys.path[:0] = [{str(Path(library.__file__).parents[1])!r}]
from skillweave import library
from skillweave.index import Index
rename, calls = os.rename, []
def dies(*arguments):
    calls.append(1)
    if len(calls) == 1 and {moment!r} == "staged": os._exit(9)
    rename(*arguments)
    if len(calls) == {{"moved aside": 1, "in place": 2}}.get({moment!r}, 0): os._exit(9)
os.rename = dies
if {moment!r} == "not indexed": Index.put = lambda *_: os._exit(9)
library.Library({str(lib.path)!r}).add({str(source)!r}, name="skill", replace=True)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 9
    assert any((lib.path / ".staging").iterdir())
    assert READERS[reader](lib) == ["skill"]
    assert (lib.get("skill").digest == old) == (moment in ("staged", "moved aside"))
    assert lib.verify() == [] and [entry.name for entry in lib.list()] == ["skill"]
    shutil.rmtree(lib.path / "skill")
    assert lib.list() == [] or moment == "staged"
