"""The command line: what is typed reaches the verbs, what comes back the right stream, and the exit code says how it went."""

import io
import json
import os
import resource
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest

import skillweave
from skillweave.errors import BelowThreshold, NotFound, Refused
from skillweave.result import Table

SEEDED = {"library": Path("library"), "seed": 0}


@dataclass(frozen=True)
class Report:
    accuracy: float = 0.9
    next: str = "skillweave library list"
    exit_code: int = 0

    def table(self) -> Table:
        return Table(("accuracy",), ((self.accuracy,),))


@dataclass(frozen=True)
class Answers:
    answers: tuple[str, ...]


@pytest.fixture
def verbs(monkeypatch):
    """A stand-in for `skillweave.verbs` that notes every call in `calls` and returns or raises `answer`."""
    fake = types.ModuleType("skillweave.verbs")
    fake.calls, fake.answer = [], Report()

    def verb(name):
        def call(*words, **options):
            fake.calls.append((name, words, options))
            if isinstance(fake.answer, BaseException):
                raise fake.answer
            return fake.answer

        return call

    for name in ("learn", "compose", "measure", "quickstart"):
        setattr(fake, name, verb(name))

    def run(skill, texts, **options):
        fake.calls.append(("run", (skill, list(texts)), options))
        return Answers(tuple(text.upper() for text in texts))

    fake.run = run
    monkeypatch.setitem(sys.modules, "skillweave.verbs", fake)
    monkeypatch.setattr(skillweave, "verbs", fake, raising=False)
    return fake


# what reaches the verbs


def test_learn_passes_everything_on(cli, verbs):
    words = "learn date --data d.jsonl --base tiny --method sft --description Dates --replace --fresh --library L --seed 3"
    words += " --steps 100 --lr 1e-3 --rank 4 --batch 8 --set warmup=0.1 --set layers=[1,2] --set kind=cosine --set on=true"
    words += " --from old --max-forgetting 0.05 --others 2"
    assert cli(*words.split()).code == 0
    knobs = {"steps": 100, "lr": 1e-3, "rank": 4, "batch": 8, "warmup": 0.1, "layers": [1, 2], "kind": "cosine", "on": True}
    how = {"base": "tiny", "method": "sft", "description": "Dates", "replace": True, "fresh": True, "options": knobs}
    how |= {"start": "old", "max_forgetting": 0.05, "others": 2}
    where = {"task": None, "data": Path("d.jsonl"), "library": Path("L"), "seed": 3}
    assert verbs.calls == [("learn", ("date",), where | how)]


def test_a_verifier_is_passed_on(cli, verbs):
    for words in ("learn date", "compose date number", "measure date"):
        cli(*words.split(), "--data", "d.jsonl", "--verifier", "judge.py:verify")
    assert [options["verifier"] for _, _, options in verbs.calls] == ["judge.py:verify"] * 3


def test_learn_has_few_defaults(cli, verbs):
    cli("learn", "date", "--task", "date")
    how = {"base": None, "method": "sft", "description": "", "replace": False, "fresh": False, "options": {}}
    how |= {"start": None, "max_forgetting": None, "others": 0}
    assert verbs.calls == [("learn", ("date",), {"task": "date", "data": None} | SEEDED | how)]


def test_compose_passes_everything_on(cli, verbs):
    cli("compose", "date", "number", "--task", "invoice", "--shots", "24", "--save", "invoice", "--steps", "60")
    how = {"shots": 24, "method": "scales+lora", "options": {"steps": 60}}
    how |= {"save": "invoice", "description": "", "replace": False}
    assert verbs.calls == [("compose", (["date", "number"],), {"task": "invoice", "data": None} | SEEDED | how)]


def test_measure_passes_everything_on(cli, verbs):
    cli("measure", "date", "fresh", "--task", "date", "-n", "50", "--split", "valid", "--shots", "4", "--at-least", "0.9")
    how = {"n": 50, "split": "valid", "shots": 4, "base": None, "at_least": 0.9}
    assert verbs.calls == [("measure", (["date", "fresh"],), {"task": "date", "data": None} | SEEDED | how)]


def test_quickstart_passes_effort(cli, verbs):
    cli("quickstart", "--effort", "quick", "--seed", "2")
    assert verbs.calls == [("quickstart", ("quick",), {"library": Path("library"), "seed": 2})]


def test_library_folder_comes_from_option_then_environment_then_here(cli, verbs, monkeypatch):
    monkeypatch.setenv("SKILLWEAVE_LIBRARY", "from-env")
    cli("quickstart")
    cli("quickstart", "--library", "given")
    monkeypatch.delenv("SKILLWEAVE_LIBRARY")
    cli("quickstart")
    assert [options["library"] for _, _, options in verbs.calls] == [Path("from-env"), Path("given"), Path("library")]


def test_the_real_verbs_take_what_the_command_line_gives():
    """The stand-in above takes anything; the true signatures must take these names."""
    import inspect

    verbs = pytest.importorskip("skillweave.verbs")
    common = {"library", "seed"}
    source = {"task", "data", "verifier"} | common
    given = {
        "learn": source | {"base", "method", "options", "description", "replace"},
        "compose": source | {"shots", "method", "save", "description", "replace", "options"},
        "measure": source | {"n", "split", "shots", "base", "at_least"},
        "run": {"library", "max_new_tokens"},
        "quickstart": common,
    }
    for name, names in given.items():
        assert names <= set(inspect.signature(getattr(verbs, name)).parameters), name


# what comes back


def test_report_is_a_table_on_stdout_and_the_next_step_on_stderr(cli, verbs):
    said = cli("learn", "date", "--task", "date")
    assert (said.code, said.out, said.err) == (0, "accuracy\n0.90\n", "next: skillweave library list\n")


def test_json_is_one_object_on_stdout(cli, verbs):
    said = cli("learn", "date", "--task", "date", "--json")
    assert json.loads(said.out) == {"accuracy": 0.9, "next": "skillweave library list", "exit_code": 0}
    assert said.out.count("\n") == 1 and said.err == ""


def test_report_below_the_threshold_is_printed_and_exits_with_4(cli, verbs):
    verbs.answer = Report(0.2, "", exit_code=4)
    said = cli("measure", "date", "--task", "date", "--at-least", "0.9")
    assert (said.code, said.out, said.err) == (4, "accuracy\n0.20\n", "")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            NotFound("skill", "dat", ["date"], "library", "skillweave library list"),
            1,
            "error: no skill `dat` in library. Did you mean `date`?\nhint: skillweave library list\n",
        ),
        (Refused("the skill reads your keys."), 3, "error: the skill reads your keys.\n"),
        (BelowThreshold("0.20 is below 0.9."), 4, "error: 0.20 is below 0.9.\n"),
        (
            ValueError("two\nlines"),
            2,
            "unexpected: ValueError: two lines; please report with SKILLWEAVE_DEBUG=1 for the traceback\n",
        ),
        (
            KeyboardInterrupt(),
            130,
            "interrupted; the library is as it was; to go on: skillweave measure date --task 'a task'\n",
        ),
    ],
)
def test_errors_are_one_sentence_on_stderr(cli, verbs, error, code, words):
    verbs.answer = error
    said = cli("measure", "date", "--task", "a task")
    assert (said.code, said.out, said.err) == (code, "", words)


def test_an_interrupted_quickstart_says_what_is_kept(cli, verbs):
    verbs.answer = KeyboardInterrupt()
    said = cli("quickstart")
    words = "interrupted; the skills learned so far are in the library; to go on: skillweave quickstart\n"
    assert (said.code, said.out, said.err) == (130, "", words)


def test_debug_shows_the_traceback(cli, verbs, monkeypatch):
    verbs.answer = ValueError("why")
    monkeypatch.setenv("SKILLWEAVE_DEBUG", "1")
    said = cli("quickstart")
    assert said.err.startswith("Traceback") and said.err.rstrip().endswith("for the traceback")


# run


def test_run_prints_the_answer_only(cli, verbs):
    said = cli("run", "date", "3 may", "--max-new-tokens", "9")
    assert (said.code, said.out, said.err) == (0, "3 MAY\n", "")
    assert verbs.calls == [("run", ("date", ["3 may"]), {"library": Path("library"), "max_new_tokens": 9})]


def test_run_answers_every_line_of_stdin_in_batches(cli, verbs, monkeypatch):
    lines = [f"line {i}" for i in range(70)]
    lines[40] = ""
    monkeypatch.setattr("sys.stdin", io.StringIO("\r\n".join(lines)))
    said = cli("run", "date")
    assert said.out == "\n".join(lines).upper() + "\n"
    assert [len(words[1]) for _, words, _ in verbs.calls] == [32, 31, 6]


def test_run_with_json_is_one_object_for_all_lines(cli, verbs, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a\n\nb\n"))
    said = cli("run", "date", "--json")
    assert said.out == '{"answers": ["A", "", "B"]}\n'


def test_run_without_text_on_a_terminal_says_what_to_give(cli, verbs, monkeypatch):
    terminal = io.StringIO("")
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    said = cli("run", "date")
    assert (said.code, said.out) == (1, "")
    assert said.err == (
        "error: there is no text to run the skill on.\n"
        'hint: give a text, as in skillweave run date "3 May 2021", or lines on standard input\n'
    )


def test_run_says_so_when_stdin_is_not_text(cli, verbs, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe\n"), encoding="utf-8"))
    said = cli("run", "date")
    words = "error: standard input is not UTF-8 text: invalid start byte.\nhint: convert it, for example with iconv\n"
    assert (said.code, said.out, said.err) == (1, "", words)


def test_an_answer_of_two_lines_stays_on_one(cli, verbs):
    assert cli("run", "date", "a\nb").out == "A B\n"


# what is typed wrong


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (
            "learn x",
            1,
            "error: neither --task nor --data was given.\nhint: give --task NAME (see skillweave tasks) or --data FILE\n",
        ),
        ("learn x --task t --data d.csv", 1, "error: both --task t and --data d.csv were given.\nhint: keep one of the two\n"),
        ("learn x --task t --set steps", 1, "error: --set steps is not KEY=VALUE.\nhint: write it as in --set steps=100\n"),
        ("learn x --task t --set =3", 1, "error: --set =3 is not KEY=VALUE.\nhint: write it as in --set steps=100\n"),
        ("learn x --task t --steps 1 --set steps=2", 1, "error: `steps` was given twice.\nhint: keep one value of steps\n"),
        ("learn x --taks t", 2, "error: Unknown option: --taks. Did you mean --task?\nhint: skillweave --help\n"),
        (
            "quickstart --seed two",
            2,
            'error: Invalid value for --seed: unable to convert "two" into int.\nhint: skillweave --help\n',
        ),
    ],
)
def test_mistakes_get_one_sentence(cli, verbs, words, code, error):
    said = cli(*words.split())
    assert (said.code, said.out, said.err) == (code, "", error)
    assert verbs.calls == []


def test_a_mistyped_command_gets_a_guess(cli):
    said = cli("lern", "date")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith('error: Unknown command "lern". Did you mean "learn"?')


# papers and reproduce


def test_papers_are_searchable(cli):
    found = json.loads(cli("papers", "47", "--json").out)["papers"]
    assert [paper["number"] for paper in found] == [47]
    assert cli("papers", "anisotropic").out.splitlines()[1].startswith("47 ")
    assert len(json.loads(cli("papers", "--json").out)["papers"]) == 56
    assert cli("papers", "no such words").out.splitlines()[-1] == "0 papers"


@pytest.fixture
def catalog(monkeypatch):
    """A catalog of three papers: reproduced by a module, by a command, and not at all."""
    from skillweave.papers import catalog as module

    def paper(number, state, command):
        return module.Paper(number, f"Paper {number}", "0000.00000", "compose", "what", state, command)

    rows = (
        paper(1, "reproduced", "skillweave reproduce 1"),
        paper(2, "planned", ""),
        paper(3, "reproduced", "skillweave quickstart --effort quick"),
    )
    monkeypatch.setattr(module, "load", lambda: rows)


def test_reproduce_runs_the_module_of_a_paper(cli, catalog, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "skillweave.papers.reproduction.reproduce", lambda *given, **options: calls.append((given, options)) or Report()
    )
    assert cli("reproduce", "1", "--seed", "5").code == 0
    assert cli("reproduce", "1", "--effort", "paper", "--seeds", "2", "--out", "p1.json", "--engine", "ray").code == 0
    assert calls == [
        ((1, "quick"), {"library": Path("library"), "seed": 5, "seeds": None, "out": None, "engine": "local"}),
        ((1, "paper"), {"library": Path("library"), "seed": 0, "seeds": 2, "out": Path("p1.json"), "engine": "ray"}),
    ]
    assert cli("reproduce", "1", "--seeds", "0").err.startswith("error: seeds is 0")


def test_reproduce_runs_the_command_of_a_paper(cli, catalog, verbs):
    assert cli("reproduce", "3", "--seed", "5", "--library", "L").code == 0
    assert verbs.calls == [("quickstart", ("quick",), {"library": Path("L"), "seed": 5})]


def test_reproduce_of_one_not_built_says_which_are(cli, catalog):
    said = cli("reproduce", "2")
    assert (said.code, said.out) == (1, "")
    assert said.err == (
        "error: paper 2 has no reproduction yet; papers that have one: 1, 3.\n"
        "hint: skillweave papers shows how far each one is\n"
    )


def test_reproduce_of_no_paper_says_so(cli):
    assert cli("reproduce", "99").err.startswith("error: no paper `99`.")


# tasks


def test_tasks_are_listed_and_shown(cli):
    from skillweave.tasks import TASKS, load_task

    listed = json.loads(cli("tasks", "-n", "4", "--json").out)["tasks"]
    assert [task["name"] for task in listed] == list(TASKS) and len(listed) >= 4
    by_name = {task["name"]: task for task in listed}
    assert all(task["audit"]["truth"] == 1 and task["audit"]["fault"] == "" for task in listed)
    assert (by_name["country"]["sizes"]["test"], by_name["chain"]["depths"], by_name["key-sums"]["depths"]) == (58, [2], [2])
    said = cli("tasks", "-n", "4")
    rows = said.out.splitlines()
    assert "city-facts and element-facts need skillweave[facts]; skillweave tasks --gym lists" in said.err
    assert rows[0].split() == ["task", "size", "depth", "guess", "audit", "description"] and len(rows) == len(TASKS) + 1
    _, size, depth, guess, audit, *_ = next(row for row in rows if row.startswith("functions-small")).split()
    assert (size, depth, audit) == ("∞", "1-2", "sound") and 0 <= float(guess) <= 0.25
    assert cli("tasks", "-n", "0").err.startswith("error: n is 0")
    shown = json.loads(cli("tasks", "show", "date", "-n", "2", "--split", "valid", "--seed", "1", "--json").out)["examples"]
    assert [example["prompt"] for example in shown] == [e.prompt for e in load_task("date", 1).take(2, "valid")]
    assert cli("tasks", "show", "date").out.count("\n") == 4


def test_unknown_tasks_and_splits_get_a_guess(cli):
    assert cli("tasks", "show", "dates").err.startswith("error: no task `dates`. Did you mean `date`?\n")
    said = cli("tasks", "show", "date", "--split", "tset")
    assert (said.code, said.out) == (1, "") and "Did you mean `test`?" in said.err


# in a process of its own


def test_help_is_quick_and_names_every_command(process):
    """0.3 s on an idle machine; CPU time here, and a wide bound, so that a busy one does not fail it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = process("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert said.code == 0 and said.err == ""
    for name in ("learn", "compose", "measure", "run", "library", "tasks", "papers", "reproduce", "quickstart"):
        assert f"│ {name} " in said.out
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


@pytest.mark.parametrize(
    "words", [["--help"], ["learn", "--help"], ["tasks"], ["papers"], ["library", "list"], ["--version"], ["lern"]]
)
def test_light_commands_import_no_torch(process, words):
    code = f"import sys; from skillweave.cli import main; main({words!r}); sys.exit(7 if 'torch' in sys.modules else 0)"
    assert process(code=code).code == 0


def test_version(process):
    assert process("--version").out == f"{skillweave.__version__}\n"


@pytest.mark.parametrize(
    "words", [["--help"], ["lern"], ["papers"], ["tasks", "show", "date"], ["learn", "x"], ["measure", "--help"]]
)
def test_no_escape_codes_in_pipes(process, words):
    said = process(*words)
    assert said.out + said.err and "\x1b" not in said.out + said.err


def test_a_closed_pipe_is_no_error(process):
    code = """
import os, sys
from skillweave.cli import main
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 1)
sys.exit(main(["papers"]))
"""
    said = process(code=code)
    assert (said.code, said.err) == (0, "")


def test_completion_is_installed(process, tmp_path):
    said = process("--install-completion", "--shell", "bash", HOME=str(tmp_path))
    assert said.code == 0
    scripts = [path.read_text() for path in tmp_path.rglob("*") if path.is_file() and "skillweave" in path.name]
    assert any("quickstart" in script and "--at-least" in script for script in scripts)


def test_ctrl_c_in_a_real_process_exits_with_130(process):
    code = """
import os, signal, sys, types
import skillweave
fake = types.ModuleType("skillweave.verbs")
fake.quickstart = lambda *words, **options: os.kill(os.getpid(), signal.SIGINT) or __import__("time").sleep(5)
sys.modules["skillweave.verbs"] = skillweave.verbs = fake
from skillweave.cli import main
sys.exit(main(["quickstart"]))
"""
    said = process(code=code)
    assert said.code == 130 and said.err.count("\n") == 1 and said.err.startswith("interrupted; ")


def test_module_and_command_are_the_same():
    import tomllib

    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"skillweave": "skillweave.cli:main"}
    assert os.path.exists(Path(skillweave.__file__).with_name("py.typed"))
