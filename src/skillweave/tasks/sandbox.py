"""Verifiers of users, run where they can do no harm.

A verifier is a Python function that a user names, `FILE.py:function` or `module:function`:

    def verify(prompt: str, completion: str, truth: str) -> float:
        \"\"\"How right `completion` is, in [0, 1]; `truth` is what the data say.\"\"\"

It may do what a stranger's code does, and so may the answers that it executes. It runs in a process of its own (`fence.py`)
with limits of time and memory, without network, other processes or files to write; it can read what the user can. Where it
raises, hangs, takes too much memory or tries what it may not, the answer scores 0, the process is ended if need be, the fault
is counted, and the run goes on.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadData, BadOption, NotFound
from ..files import sha256_json
from ..task import Example, Task

KINDS = {
    "raised": "raised an error",
    "hung": "took too long",
    "memory": "took too much memory",
    "network": "tried to open a socket",
    "processes": "tried to start or end a process",
    "files": "tried to change a file",
    "forbidden": "made a forbidden system call",
    "no score": "returned no number from 0 to 1",
    "died": "ended its process",
}
"""What can go wrong, in words."""
SIGNALS = {signal.SIGXCPU: "hung", signal.SIGSYS: "forbidden"}
ROWS = 64
"""Answers that are handed over at once."""
SLICE = 0.1
"""Seconds of waiting that are counted at a time: a machine that sleeps meanwhile costs one of them."""
TO_LOAD = 30.0
"""Seconds in which a verifier has to be loaded, since it may import much."""
IN_A_ROW = 50
"""Answers on which the process had to be ended, one after the other, after which a verifier is taken to be broken."""


@dataclass(frozen=True)
class Limits:
    """What one answer may cost."""

    seconds: float = 5.0
    """Of processor time, and of waiting."""
    memory: int = 1024
    """MiB of address space, all that is imported included."""


class Sandbox:
    """One verifier in a process that is started when it is first needed, and again after each fault that ends it."""

    def __init__(self, where: str, limits: Limits = Limits()):
        self.where, self.limits = where, limits
        self.faults: Counter[str] = Counter()
        """How often each of KINDS happened."""
        self.last = ""
        """What the last fault said of itself."""
        self._file, _, self._function = where.rpartition(":")
        if not self._file or not self._function.isidentifier():
            raise BadOption(f"the verifier `{where}` names no function.", "write FILE.py:function or module:function")
        if limits.seconds <= 0 or limits.memory < 128:
            raise BadOption(
                f"the limits are {limits.seconds} s and {limits.memory} MiB.", "give some seconds, and at least 128 MiB"
            )
        if self._file.endswith(".py"):
            path = Path(self._file)
            if not path.is_file():
                near = [str(found) for found in path.parent.glob("*.py")]
                raise NotFound("file", self._file, near, hint="write FILE.py:function")
            self._file = str(path.resolve())
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""

    def score(self, rows: Sequence[tuple[str, str, str]]) -> list[float]:
        """The scores of (prompt, completion, truth), in [0, 1]; 0 where the verifier fails. Raises BadOption, BadData."""
        found: list[float] = []
        ended = 0
        while len(found) < len(rows):
            before = len(found)
            found += self._some(rows[before : before + ROWS])
            ended = ended + 1 if self._process is None and len(found) == before + 1 else int(self._process is None)
            if ended >= IN_A_ROW:
                raise BadData(f"the verifier {self.where} had to be ended on {ended} answers in a row: {self.words()}.",
                              "try it on one of your examples by hand")  # fmt: skip
        return found

    def words(self) -> str:
        """The faults so far: `3 raised an error, 1 took too long (ValueError: …)`; nothing if there were none."""
        counts = ", ".join(f"{count} {KINDS[kind]}" for kind, count in self.faults.items())
        return counts + (f" ({self.last})" if self.last else "")

    def digest(self) -> str:
        """Content address of the verifier: its file, or its name if it is in a module."""
        text = Path(self._file).read_text("utf-8", "replace") if self._file.endswith(".py") else ""
        return sha256_json([Path(self._file).name, self._function, text])

    def close(self) -> None:
        """End the process, with all that it may have started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
        self._process.wait()
        self._process, self._unread = None, b""

    def __getstate__(self) -> dict:
        """A copy, also one in another process, starts a process of its own."""
        return vars(self) | {"_process": None, "_unread": b""}

    def __del__(self):
        if getattr(self, "_process", None) is not None:
            self.close()

    def _some(self, rows: Sequence[tuple[str, str, str]]) -> Iterator[float]:
        """The scores of the first `rows`, up to the one that ended the process."""
        self._start()
        self._tell([[str(part) for part in row] for row in rows])
        for _ in rows:
            answer = self._answer(self.limits.seconds)
            if "score" in answer:
                yield answer["score"]
                continue
            kind, self.last = answer["fault"]
            self.faults[kind] += 1
            yield 0.0
            if answer.get("over") or kind == "memory":
                self.close()
                return

    def _start(self) -> None:
        if self._process is not None:
            return
        command = [sys.executable, "-I", "-B", str(Path(__file__).with_name("fence.py"))]
        env = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
            start_new_session=True,
        )
        path = [str(Path(entry or ".").resolve()) for entry in ("", *sys.path)]
        memory = self.limits.memory << 20
        self._tell(
            {"path": path, "where": self._file, "function": self._function, "memory": memory, "seconds": self.limits.seconds}
        )
        answer = self._answer(TO_LOAD)
        if "ready" not in answer:
            self.close()
            kind, said = answer["fault"]
            raise BadOption(
                f"the verifier {self.where} cannot be loaded: it {KINDS[kind]} ({said}).", "mend it, or name another"
            )

    def _tell(self, what: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        with suppress(OSError):  # it has ended: the answer that is waited for says how
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()

    def _answer(self, seconds: float) -> dict:
        """The next line of the process; what ended it, if there is none."""
        assert self._process is not None and self._process.stdout is not None
        pipe, waited = self._process.stdout.fileno(), 0.0
        while b"\n" not in self._unread:
            if select.select([pipe], [], [], SLICE)[0]:
                read = os.read(pipe, 1 << 16)
                if not read:
                    return {"fault": self._ended(), "over": True}
                self._unread += read
            elif (waited := waited + SLICE) > seconds:
                return {"fault": ["hung", f"no answer within {seconds:g} s"], "over": True}
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)

    def _ended(self) -> list[str]:
        assert self._process is not None
        code = self._process.wait()
        ending = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return [SIGNALS.get(signal.Signals(-code), "died") if code < 0 else "died", ending]


class Verified(Task):
    """`task` with a verifier of the user's in the place of its own."""

    wrong_at_most = 1.0

    def __init__(self, task: Task, verifier: Sandbox):
        super().__init__(task.seed)
        self.task, self.verifier = task, verifier
        self.name, self.description, self.template = task.name, task.description, task.template
        self.splits, self.depths = task.splits, task.depths

    def size(self, split: str) -> int | None:
        return self.task.size(split)

    def example(self, i: int, split: str) -> Example:
        return self.task.example(i, split)

    def content(self, example: Example) -> frozenset[str]:
        return self.task.content(example)

    def score(self, example: Example, completion: str) -> float:
        return self.scores([example], [completion])[0]

    def scores(self, examples: Sequence[Example], completions: Sequence[str]) -> list[float]:
        """The verifier's scores, in one go."""
        pairs = zip(examples, completions, strict=True)
        return self.verifier.score([(example.prompt, said, example.completion) for example, said in pairs])

    def digest(self) -> str:
        return sha256_json([self.task.digest(), self.verifier.digest()])

    def faults(self) -> str:
        return self.verifier.words()
