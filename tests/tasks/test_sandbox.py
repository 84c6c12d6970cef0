"""Verifiers that misbehave: each is ended or refused, counted, and the run goes on with the next answer."""

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skillweave.errors import BadData, BadOption, NotFound
from skillweave.task import check_task
from skillweave.tasks import load_data, sandbox
from skillweave.tasks.sandbox import KINDS, Limits, Sandbox, Verified

GOOD = "    return float(completion.strip() == truth)\n"
QUICK = Limits(seconds=0.5, memory=512)
BAD = {  # what it does when it sees the word `bad`: kinds of fault that may be counted for it
    "raise ValueError('no')": {"raised"},
    "raise SystemExit": {"raised"},
    "raise MemoryError": {"memory"},
    "(lambda f: f(f))(lambda f: f(f))": {"raised"},
    "exec(completion)": {"raised"},
    "eval('while')": {"raised"},
    "while True: pass": {"hung"},
    "import time; time.sleep(60)": {"hung"},
    "import threading; threading.Event().wait()": {"hung"},
    "import re; re.match('(a+)+$', 'a' * 50 + 'b')": {"hung"},
    "x = [0]\n    while True: x += x": {"memory"},
    "x = bytearray(1 << 40)": {"memory"},
    "import os; os.fork()": {"processes"},
    "import os; os.system('true')": {"processes"},
    "import os; os.kill(os.getppid(), 9)": {"processes"},
    "import os; os.killpg(0, 9)": {"processes"},
    "import subprocess; subprocess.run(['true'])": {"processes"},
    "import multiprocessing as m; m.get_context('spawn').Process().start()": {"processes", "forbidden", "files"},
    "import ctypes; ctypes.CDLL(None).fork()": {"forbidden"},
    "import ctypes; ctypes.CDLL(None).kill(1, 0)": {"forbidden"},
    "import socket; socket.socket()": {"network"},
    "import socket; socket.getaddrinfo('example.org', 80)": {"network"},
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')": {"network"},
    "import ctypes; ctypes.CDLL(None).socket(2, 1, 0)": {"forbidden"},
    "open('left', 'w')": {"files"},
    "import os; os.remove(__file__)": {"files"},
    "import shutil; shutil.rmtree('.')": {"files"},
    "import os; os._exit(0)": {"died"},
    "import ctypes; ctypes.string_at(0)": {"died"},
    "return 'right'": {"no score"},
    "return None": {"no score"},
    "return 1.5": {"no score"},
    "return float('nan')": {"no score"},
}


@pytest.fixture
def verifier(tmp_path, monkeypatch):
    """Writes a verifier that does something when it sees `bad`, and is right otherwise."""
    monkeypatch.chdir(tmp_path)
    made = []

    def make(does: str = "pass", limits: Limits = QUICK, before: str = "") -> Sandbox:
        text = f"{before}\ndef verify(prompt, completion, truth):\n  if completion == 'bad':\n    {does}\n  if True:\n{GOOD}"
        Path("judge.py").write_text(text)
        made.append(Sandbox("judge.py:verify", limits))
        return made[-1]

    yield make
    for box in made:
        box.close()


@pytest.mark.parametrize("does", list(BAD))
def test_what_misbehaves_is_counted_and_the_run_goes_on(verifier, does):
    assert len(BAD) == 33
    box = verifier(does, QUICK if BAD[does] == {"hung"} else Limits(memory=512))
    rows = [("p", said, "yes") for said in ("yes", "bad", "no", " yes ", "bad", "yes")]
    assert box.score(rows) == [1, 0, 0, 1, 0, 1]
    kinds = BAD[does] if sys.platform == "linux" else set(KINDS)
    assert sum(box.faults.values()) == 2 and set(box.faults) <= kinds, box.words()
    assert not Path("left").exists() and Path("judge.py").is_file()


def test_nothing_is_left_running(verifier):
    box = verifier("import time; time.sleep(60)")
    assert box.score([("p", "yes", "yes")]) == [1]
    first = box._process.pid
    assert box.score([("p", "bad", "yes"), ("p", "yes", "yes")]) == [0, 1]
    second = box._process.pid
    box.close()
    for pid in (first, second):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert first != second


def test_a_process_whose_parent_is_killed_ends_by_itself(verifier):
    verifier("import time; time.sleep(60)", Limits(seconds=60.0))
    code = (
        "from skillweave.tasks.sandbox import *; box = Sandbox('judge.py:verify', Limits(60.0));"
        "box.score([('p', 'yes', 'yes')]);"
        "print(box._process.pid, flush=True); box.score([('p', 'bad', 'yes')])"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env)
    with parent.stdout as said:
        child = int(said.readline())
    time.sleep(0.7)  # until the process is at work, and not just waiting for the next line
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(100):
        if not _runs(child):
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the verifier's process outlived its parent by ten seconds")


def _runs(pid: int) -> bool:
    """Whether the process is there and not merely waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_it_prints_and_reads_disturbs_nobody(verifier, capfd):
    box = verifier(before="import sys; print('loaded')\nsys.stdin.read()")
    Path("judge.py").write_text(
        Path("judge.py").read_text().replace("if True:", "print('{}'); sys.stderr.write('x')\n  if True:")
    )
    assert box.score([("p", "yes", "yes")] * 3) == [1, 1, 1] and not box.faults
    assert capfd.readouterr() == ("", "")


def test_many_answers_of_every_kind_of_text(verifier):
    box = verifier()
    texts = ["", "\n", "ü\N{SNOWMAN}", "\ud800", "x" * 200_000, '{"score": 1}\n', "\x00"]
    rows = [("p\n", text, text.strip()) for text in texts * 40]
    assert box.score(rows) == [1.0] * 280 and not box.faults
    assert box.score([]) == []


def test_a_pause_of_the_machine_is_no_hang(verifier, monkeypatch):
    """Waiting took longer than the limit, but the process had no time of its own."""
    box = verifier("import time; time.sleep(0.3)", Limits(seconds=1.0))
    assert box.score([("p", "yes", "yes")]) == [1]
    pauses = [1.5]

    def paused(*pipes):
        if pauses:
            time.sleep(pauses.pop())
            return [], [], []
        return select(*pipes)

    select = sandbox.select.select
    monkeypatch.setattr(sandbox.select, "select", paused)
    assert box.score([("p", "bad", "bad")]) == [1] and not box.faults and not pauses


def test_a_module_on_the_path_will_do(verifier, tmp_path):
    verifier()
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "deep.py").write_text(f"def verify(prompt, completion, truth):\n{GOOD}")
    box = Sandbox("package.deep:verify")
    assert box.score([("p", "a", "a"), ("p", "b", "a")]) == [1, 0]
    box.close()


def test_a_file_may_import_its_neighbour_and_define_dataclasses(verifier, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "neighbour.py").write_text("from dataclasses import dataclass\n@dataclass\nclass A:\n  x: 'int' = 1\n")
    text = "from __future__ import annotations\nfrom neighbour import *\n@dataclass\nclass B(A):\n  y: int = 0\n"
    (tmp_path / "sub" / "judge.py").write_text(text + f"def verify(prompt, completion, truth):\n{GOOD}")
    box = Sandbox(str(tmp_path / "sub" / "judge.py") + ":verify")
    assert box.score([("p", "a", "a")]) == [1]
    box.close()


def test_a_verifier_that_never_works_ends_the_run_with_a_sentence(verifier, monkeypatch):
    monkeypatch.setattr(sandbox, "IN_A_ROW", 5)
    box = verifier("import os; os._exit(0)")
    assert box.score([("p", said, "yes") for said in ("bad", "bad", "bad", "bad", "yes") * 2]) == [0, 0, 0, 0, 1] * 2
    with pytest.raises(BadData, match=r"had to be ended on 5 answers in a row: 13 ended its process \(exit code 0\)"):
        box.score([("p", "bad", "yes")] * 6)


@pytest.mark.parametrize(
    ("before", "sentence"),
    [
        ("import nothing_of_the_kind", "cannot be loaded: it raised an error .ModuleNotFoundError"),
        ("1 +", "cannot be loaded: it raised an error .SyntaxError"),
        ("import os; os.fork()", "cannot be loaded: it tried to start or end a process"),
        ("import socket; socket.socket()", "cannot be loaded: it tried to open a socket"),
        ("import os; os._exit(3)", "cannot be loaded: it ended its process .exit code 3"),
        ("while True: pass", "cannot be loaded: it took too long"),
    ],
)
def test_one_that_cannot_be_loaded_is_named(verifier, monkeypatch, before, sentence):
    monkeypatch.setattr(sandbox, "TO_LOAD", 0.7)
    box = verifier(before=before)
    with pytest.raises(BadOption, match=sentence):
        box.score([("p", "yes", "yes")])
    assert box._process is None


@pytest.mark.parametrize(
    ("kind", "sentence", "where", "limits"),
    [
        (BadOption, "`judge.py` names no function", "judge.py", Limits()),
        (BadOption, "`judge.py:a b` names no function", "judge.py:a b", Limits()),
        (NotFound, "no file `juge.py`. Did you mean `judge.py`", "juge.py:verify", Limits()),
        (BadOption, "limits are 0.0", "judge.py:verify", Limits(seconds=0.0)),
        (BadOption, "5.0 s and 1 MiB", "judge.py:verify", Limits(memory=1)),
    ],
)
def test_mistakes_are_answered_in_a_sentence(verifier, kind, sentence, where, limits):
    verifier()
    with pytest.raises(kind, match=sentence):
        Sandbox(where, limits)


def test_a_function_that_is_not_there(verifier):
    verifier()
    with pytest.raises(BadOption, match="there is no function other in .*judge.py"):
        Sandbox("judge.py:other").score([("p", "a", "b")])


def test_a_task_of_a_file_is_judged_by_it(verifier, tmp_path):
    verifier("raise ValueError('no')")
    rows = [{"prompt": f"p{i}", "completion": "yes"} for i in range(60)]
    Path("d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task, plain = load_data("d.jsonl", 0, "judge.py:verify"), load_data("d.jsonl", 0)
    assert isinstance(task, Verified) and task.splits == plain.splits
    assert task.take(5, "all") == plain.take(5, "all") and task.size("test") == plain.size("test")
    examples = task.take(4, "all")
    assert task.scores(examples, ["yes", "bad", "no", "yes "]) == [1, 0, 0, 1] and task.score(examples[0], "yes") == 1
    assert task.faults() == "1 raised an error (ValueError: no)"
    check_task(task, 10)
    again = pickle.loads(pickle.dumps(copy.deepcopy(task)))
    assert again.score(examples[0], "yes") == 1 and again.verifier._process.pid != task.verifier._process.pid
    digest = task.digest()
    Path("judge.py").write_text(Path("judge.py").read_text() + "# changed\n")
    assert len({digest, task.digest(), plain.digest()}) == 3
    again.verifier.close()
    task.verifier.close()


def test_a_batch_costs_little_more_than_the_verifier(verifier):
    box = verifier()
    box.score([("p", "yes", "yes")])
    began = time.process_time()
    assert box.score([("p", "yes", "yes")] * 2000) == [1] * 2000
    assert time.process_time() - began < 1.0
