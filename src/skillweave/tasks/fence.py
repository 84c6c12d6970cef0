"""The process in which a verifier of a user's runs: a program of its own, started by `sandbox.py`, without skillweave.

It reads one line of JSON with its limits and where the verifier is, answers `{"ready": true}`, and from then on answers each
line (a list of [prompt, completion, truth]) with one line a row: `{"score": 0.5}` or `{"fault": [kind, words]}`.

Before the verifier is loaded, three fences go up: limits of memory, processor time and written bytes (`setrlimit`); a hook that
ends the process as soon as Python itself is asked to open a socket, start or end a process, or change a file; and, on Linux, a
filter of system calls (seccomp) that does the same to sockets and processes that do not come from Python.
"""

import ctypes
import importlib.util
import json
import math
import os
import platform
import resource
import struct
import sys
import threading
import time

NETWORK = ("socket.",)
PROCESSES = ("os.fork", "os.posix_spawn", "os.exec", "os.system", "os.spawn", "os.startfile", "os.kill", "subprocess.Popen",
             "pty.spawn", "signal.pthread_kill")  # fmt: skip
FILES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown",
         "os.utime", "shutil.", "tempfile.")  # fmt: skip
HARMLESS = ("socket.gethostname",)

LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
"""Instructions of a filter: load a word, jump if equal, jump if a bit is set, return."""
ALLOW, KILL, NO_SUCH_CALL = 0x7FFF0000, 0x80000000, 0x00050000 | 38
MACHINES = {
    "x86_64": (0xC000003E, 56, (41, 57, 58, 59, 62, 101, 129, 200, 234, 272, 297, 308, 311, 322, 424, 425, 434)),
    "aarch64": (0xC00000B7, 220, (97, 117, 129, 130, 131, 138, 198, 221, 240, 268, 271, 281, 424, 425, 434)),
}
"""(audit number, clone, what ends the process): socket, fork, execve, ptrace, signals to others, namespaces, io_uring."""
CLONE3, THREAD = 435, 0x10000


def main() -> None:
    questions, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):  # what the verifier prints is nobody's answer
        os.dup2(nothing, number)

    def say(answer: dict) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    wanted = json.loads(questions.readline())
    limit(wanted["memory"])
    filter_calls()
    sys.addaudithook(lambda event, arguments: _refuse(event, arguments, say))
    threading.Thread(target=_die_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        verify = load(wanted["path"], wanted["where"], wanted["function"])
    except BaseException as error:
        say({"fault": kind_of(error)})
        return
    say({"ready": True})
    for line in questions:
        for row in json.loads(line):
            allow_seconds(wanted["seconds"])
            say(judge(verify, row))


def load(path: list[str], where: str, function: str):
    """The function of a file (`where` ends in .py) or of a module on `path`."""
    sys.path[:] = path
    if where.endswith(".py"):
        sys.path.insert(0, os.path.dirname(where))
        spec = importlib.util.spec_from_file_location("verifier", where)
        assert spec is not None and spec.loader is not None
        module = sys.modules["verifier"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(where)
    if not callable(getattr(module, function, None)):
        raise LookupError(f"there is no function {function} in {where}")
    return getattr(module, function)


def judge(verify, row: list[str]) -> dict:
    try:
        score = verify(*row)
        if not isinstance(score, int | float) or not 0 <= score <= 1:
            return {"fault": ["no score", f"it returned {repr(score)[:80]}"]}
        return {"score": float(score)}
    except BaseException as error:
        return {"fault": kind_of(error)}


def kind_of(error: BaseException) -> list[str]:
    """The kind of a fault, and what it says of itself."""
    kind = "memory" if isinstance(error, MemoryError) else "raised"
    try:
        return [kind, f"{type(error).__name__}: {error}"[:200]]
    except BaseException:
        return [kind, type(error).__name__]


def limit(memory: int) -> None:
    """At most `memory` bytes, no core files, and nothing written to files."""
    for what, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def allow_seconds(seconds: float) -> None:
    """From now on at most `seconds` of processor time; then the process is ended."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds), hard))


def _refuse(event: str, arguments: tuple, say) -> None:
    kind = ""
    if event.startswith(NETWORK) and event not in HARMLESS:
        kind = "network"
    elif event.startswith(PROCESSES):
        kind = "processes"
    elif event.startswith(FILES) or (event == "open" and _writes(arguments)):
        kind = "files"
    if kind:
        say({"fault": [kind, event], "over": True})
        os._exit(0)


def _writes(arguments: tuple) -> bool:
    path, mode, flags = arguments
    return path != os.devnull and bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


def filter_calls() -> bool:
    """Let the kernel end this process at the first forbidden system call; False where there is no such filter."""
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        return False
    audit, clone, deadly = MACHINES[platform.machine()]
    program = _instruction(LOAD, 4) + _instruction(EQUAL, audit, 1, 0) + _instruction(RETURN, KILL) + _instruction(LOAD, 0)
    for number in deadly:
        program += _instruction(EQUAL, number, 0, 1) + _instruction(RETURN, KILL)
    program += _instruction(EQUAL, CLONE3, 0, 1) + _instruction(
        RETURN, NO_SUCH_CALL
    )  # so that clone, which can be read, is used
    program += _instruction(EQUAL, clone, 0, 3) + _instruction(LOAD, 16) + _instruction(ANY_BIT, THREAD, 1, 0)
    program += _instruction(RETURN, KILL) + _instruction(RETURN, ALLOW)
    libc = ctypes.CDLL(None)
    words = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(words))
    return libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.create_string_buffer(header), 0, 0) == 0


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _die_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main()
