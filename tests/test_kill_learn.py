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
from skillweave.learn import grpo, practice, sft
from skillweave.learn.loop import Plan
from skillweave.library import Library

torch.set_num_threads(1)
for module in (grpo, practice, sft):
    module.Plan = partial(Plan, save_every=0.0)
root, wanted, method, options = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
answer = str if method == "sft" else lambda i: "1"
rows = [{"prompt": f"in {i}\\n", "completion": answer(i)} for i in range(40)]
(root / "rows.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))


def learn(library):
    verbs.learn("one", library=library, data=root / "rows.jsonl", base="tiny", method=method, options=options)


def files(library):
    names = ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "examples.jsonl", "seen.txt")
    return {name: (library / "one" / name).read_bytes() for name in names} | {"journal": journal(library)}


def journal(library):
    path = library / ".work" / "one.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{key: value for key, value in row.items() if key != "step_time"} for row in rows]


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
assert bool(journal(root / "once")) == (method != "sft")
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


PRACTICE = {"steps": 8, "batch": 4, "tokens": 1}
ROUNDS = PRACTICE | {"samples": 64, "prompts": 8, "rounds": 3, "cut": True}
METHODS = {
    "sft": {"steps": 10, "batch": 4},
    "grpo": PRACTICE | {"group": 64, "probe": 8, "updates": 3, "kl": 0.01},
    "rejection": ROUNDS,
    "selftrain": ROUNDS | {"tuning": 4, "temperatures": [0.5, 1.5]},
}
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("method", "kills"),
    [("sft", 10), ("grpo", 5), ("rejection", 5), ("selftrain", 5), *(pytest.param(m, 60, marks=SLOW) for m in METHODS)],
)
def test_a_killed_learn_loses_nothing(tmp_path, method, kills):
    env = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "SKILLWEAVE_NO_PROGRESS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(kills), method, json.dumps(METHODS[method])]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    count = json.loads(done.stdout.splitlines()[-1])
    assert count["kills"] >= kills and count["rounds"] >= 1
    assert count["resumed"] >= 1 and (kills < 60 or count["saving"] >= 1)
