"""`learn`, killed with SIGKILL at random moments and run again until it is done: nothing is lost, and the bits are the same.

One process imports torch and forks the workers that die, so that a kill costs a fraction of a second.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src"
SCRIPT = """
import json, os, random, signal, sys, time, traceback
from functools import partial
from pathlib import Path

import torch

from skillweave import verbs
from skillweave.learn import sft
from skillweave.learn.loop import Plan
from skillweave.library import Library

torch.set_num_threads(1)
sft.Plan = partial(Plan, save_every=0.0)
root, wanted = Path(sys.argv[1]), int(sys.argv[2])
(root / "rows.jsonl").write_text("".join(json.dumps({"prompt": f"in {i}\\n", "completion": str(i)}) + "\\n" for i in range(40)))


def learn(library):
    options = {"steps": 10, "batch": 4}
    verbs.learn("one", library=library, data=root / "rows.jsonl", base="tiny", options=options)


def files(library):
    names = ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "examples.jsonl", "seen.txt")
    return {name: (library / "one" / name).read_bytes() for name in names}


def child(library):
    try:
        learn(library)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def wait_for_moment(rng, pid, library):
    if rng.random() < 0.7:
        return time.sleep(rng.uniform(0, 1.1 * usual))
    until = time.monotonic() + 20 * usual + 5
    while time.monotonic() < until and not any((library / ".staging").glob("*")):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.0005)
    time.sleep(rng.uniform(0, 0.03))


def run_once(library, rng):
    count["resumed"] += any((library / ".work").glob("*.safetensors"))
    pid = os.fork() or child(library)
    wait_for_moment(rng, pid, library)
    count["saving"] += any((library / ".staging").glob("*"))
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    count["kills"] += os.WIFSIGNALED(status)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "learn failed"


def check(library):
    if not library.exists():
        return False
    shelf = Library(library, create=True)
    assert shelf.names() in ([], ["one"]), shelf.names()
    assert [entry.name for entry in shelf.list()] == shelf.names()
    assert shelf.verify() == [], shelf.verify()
    return bool(shelf.names()) and verbs.weights_of(shelf.get("one")).rank == 8


learn(root / "once")
began = time.monotonic()
learn(root / "whole")
usual = time.monotonic() - began
whole, rng = files(root / "whole"), random.Random(0)
count = {"kills": 0, "rounds": 0, "resumed": 0, "saving": 0}
while count["kills"] < wanted:
    library = root / str(count["rounds"])
    while not check(library):
        run_once(library, rng)
    assert files(library) == whole, "other bits"
    count["rounds"] += 1
print(json.dumps(count))
"""


@pytest.mark.parametrize("kills", [10, pytest.param(60, marks=pytest.mark.slow)])
def test_a_killed_learn_loses_nothing(tmp_path, kills):
    env = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "SKILLWEAVE_NO_PROGRESS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(kills)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    count = json.loads(done.stdout.splitlines()[-1])
    assert count["kills"] >= kills and count["rounds"] >= 1
    assert count["resumed"] >= 1 and (kills < 60 or count["saving"] >= 1)
