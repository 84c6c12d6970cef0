"""Which tasks of reasoning_gym 0.1.25 can be trusted: every one of them is tried, and the first thing that is wrong is named.

    pip install reasoning-gym==0.1.25
    python benchmarks/gym_audit.py
    python benchmarks/gym_audit.py NAME...      these again; the rows of the others stay, each with the commit of its own run

A task is offered (`skillweave.tasks.gym.SOUND`) if each of its items can be made by itself, in less than SLOWEST, the same when
asked again and in another process; if they differ in more than the order of their words; if each has an answer; if its
verifier takes that answer, executes nothing, and takes nothing else for right that the house's audit shows it
(`skillweave.tasks.audit`: empty answers, junk, junk behind the true answer, the answers to other items); and if no single
answer is right more often than MOST_COMMON. For the tasks of `gym.EXACT` it is the exact match that is tried, in the place of
the verifier. The verdict is whether what passes is what is offered.
"""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "results" / "gym_audit.json"
sys.path.insert(0, str(ROOT / "src"))

from skillweave.record import commit, run_app, write_result  # noqa: E402
from skillweave.tasks import gym  # noqa: E402
from skillweave.tasks.audit import JUNK, NOTHING, Audit, audit  # noqa: E402

LOOKED_AT = 100
"""Examples of each split."""
SLOWEST = 50.0
"""Milliseconds for an item."""
FEWEST = 20
"""Items of 100 that differ in more than the order of their words."""
LUCK = 0.02
"""Share of items to which an answer that says nothing may be right, as 0 is where 0.00 is."""
MOST_COMMON = 0.6
"""Share of items to which one answer is right."""
PATIENCE, TO_MAKE = 300, 5
"""Seconds for a task, and for what comes before its first item (or, elsewhere, for some)."""
FORMS = (*NOTHING, *JUNK, "1", "True", "A", "[]", "{}", "[[]]", "1+1", "x", "1 1", "1, 2", '["a"]', "[1, 2]")
"""What a verifier is shown to see whether it executes answers; and the true ones."""
COLUMNS = ("job", "offered", "why not", "judge", "ms", "question", "answer", "different", "other", "guess")
CRITERION = "the tasks that pass every check are those that are offered"


class Late(BaseException):
    """Time is up; no verifier catches it."""


class Missing(Exception):
    """There is nothing to look at; the message says why."""


def names() -> list[str]:
    """Every task of the package but `composite`, which mixes others."""
    from reasoning_gym.factory import DATASETS

    return sorted(set(DATASETS) - {"composite"})


def row(name: str, unlike: set[str], executed: list) -> dict:
    """What is found of one task; `unlike` are those that another process makes in another way."""
    found = {"job": name, "why not": "", "judge": "exact match" if name in gym.EXACT else "its verifier"}
    signal.alarm(PATIENCE)
    try:
        found |= _numbers(name)
        found["why not"] = _fault(name, found, unlike, executed)
        if not found["why not"]:
            found |= _judged(audit(gym.Gym(0, name), LOOKED_AT))
    except Late:
        found["why not"] = f"took more than {PATIENCE} s"
    except Missing as error:
        found["why not"] = str(error)
    except Exception as error:
        found["why not"] = f"{type(error).__name__}: {str(error)[:80]}"
    finally:
        signal.alarm(0)
    return found | {"offered": not found["why not"]}


def _numbers(name: str) -> dict:
    signal.alarm(TO_MAKE)
    try:
        gym._dataset(name, "{}")
    except (Late, ValueError) as error:
        raise Missing("its items cannot be made one by one") from error
    signal.alarm(PATIENCE)
    places, began = _places(name), time.process_time()
    items = [gym.item_of(name, "{}", at) for at in places]
    return {
        "ms": 1000 * (time.process_time() - began) / len(items),
        "question": max(len(item.question) for item in items),
        "answer": max(len(item.answer) for item in items),
        "different": len({item.content for item in items}),
    }


def _fault(name: str, found: dict, unlike: set[str], executed: list) -> str:
    places = _places(name)
    items = [gym.item_of(name, "{}", at) for at in places]
    if none := sum(not item.answer for item in items):
        return f"{none} of {len(items)} items have no answer"
    if found["different"] < FEWEST:
        return f"only {found['different']} of {len(items)} items are about something else"
    if found["ms"] > SLOWEST:
        return f"an item takes {found['ms']:.0f} ms"
    forget()
    if items != [gym.item_of(name, "{}", at) for at in reversed(places)][::-1]:
        return "items are others when they are asked for again"
    if name in unlike:
        return "items are others in another process"
    if name in gym.EXACT:
        return ""
    executed.clear()
    for at, item in zip(places[:30], items, strict=False):
        if not gym.verified(name, "{}", at, item.answer):
            return "its verifier refuses the true answer"
        for said in FORMS:
            gym.verified(name, "{}", at, said)
    return "its verifier executes answers" if executed else ""


def _judged(one: Audit) -> dict:
    why = f"one answer is right in {one.guess:.0%} of cases" if one.guess > MOST_COMMON else ""
    if max(one.nothing, one.junk) > LUCK:
        why = f"its verifier takes junk for right in {max(one.nothing, one.junk):.0%} of cases"
    said, taken, _ = one.fault.partition(" scores ")
    if taken:
        said = "junk behind the answer" if said.endswith((" junk'", ' junk"')) else said[:40]
        why = f"its verifier takes what is wrong for right: {said}"
    return {"other": one.other, "guess": one.guess, "why not": one.fault if one.fault and not taken else why}


def _places(name: str) -> list[int]:
    return [gym.number("audit", name, i) for i in range(LOOKED_AT)]


def forget() -> None:
    """Make every task and item anew."""
    for kept in (gym._dataset, gym._entry, gym.item_of):
        kept.cache_clear()


def made_elsewhere(hash_seed: int, chosen: list[str]) -> dict[str, str]:
    """A digest of the first items of each task, made in a process where sets have another order."""
    env = os.environ | {"PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run([sys.executable, __file__, "--digests", *chosen], env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def digests(chosen: list[str]) -> dict[str, str]:
    from skillweave.files import sha256_json

    found = {}
    for name in chosen:
        signal.alarm(TO_MAKE)
        try:
            items = [gym.item_of(name, "{}", at) for at in _places(name)[:20]]
            found[name] = sha256_json([[item.question, item.answer] for item in items])
        except (Late, Exception) as error:
            found[name] = type(error).__name__
        finally:
            signal.alarm(0)
    return found


def earlier() -> tuple[dict[str, dict], float]:
    """The rows of the last run by name, and its minutes."""
    last = json.loads(RESULT.read_text(encoding="utf-8"))
    return {one["job"]: {"commit": last["commit"]} | one for one in last["values"]["rows"]}, last["cpu_minutes"]


def main() -> None:
    def late(*_: object) -> None:
        raise Late

    signal.signal(signal.SIGALRM, late)
    warnings.simplefilter("ignore")
    if sys.argv[1:2] == ["--digests"]:
        print(json.dumps(digests(sys.argv[2:])))
        return
    chosen = sys.argv[1:] or names()
    one, other = made_elsewhere(1, chosen), made_elsewhere(2, chosen)
    unlike = {name for name in one if one[name] != other[name] and Late.__name__ not in (one[name], other[name])}
    executed: list[str] = []

    def watch(event: str, arguments: tuple) -> None:
        if event == "exec" and getattr(arguments[0], "co_filename", "") == "<string>":
            executed.append(event)

    offered, gym.SOUND = gym.SOUND, tuple(names())
    sys.addaudithook(watch)
    rows, minutes = earlier() if sys.argv[1:] else ({}, 0.0)
    for name in chosen:
        rows[name] = row(name, unlike, executed) | {"commit": commit(ROOT)}
        print(json.dumps(rows[name]), file=sys.stderr, flush=True)
    passed = tuple(name for name in sorted(rows) if rows[name]["offered"])
    values = {"criterion": CRITERION, "package": f"reasoning_gym {gym.VERSION}", "columns": COLUMNS}
    write_result(
        RESULT,
        name="gym_audit",
        kind="benchmark",
        command="python benchmarks/gym_audit.py",
        seeds=[0],
        cpu_minutes=minutes + time.process_time() / 60,
        verdict="holds" if passed == offered else "does not hold",
        values=values | {"rows": [rows[name] for name in sorted(rows)]},
    )
    print(" ".join(passed))


if __name__ == "__main__":
    sys.exit(run_app(main))
