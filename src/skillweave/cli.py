"""The command line: what a person types becomes a call of a verb, and its report goes to the one printer.

Answers go to stdout, everything said about them to stderr. Exit codes: 0 done, 1 the user can fix it, 2 usage or unexpected,
3 refused by a guard, 4 measured and below what was asked, 130 interrupted. Nothing heavy is imported before a command needs it.
"""

import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from . import __version__
from .cli_gate import Gate
from .cli_knobs import Knobs
from .errors import BadData, BadOption, SkillweaveError
from .reports import Papers
from .result import one_line, show

BATCH = 32
"""Lines of stdin that `run` answers together."""

app = App(
    name="skillweave",
    help="Teach a model one skill at a time, keep every skill in a library, and make skills work together.\n\n"
    "Start with: skillweave quickstart",
    help_format="plaintext",
    version=__version__,
    version_format="plaintext",
    default_parameter=Parameter(negative=()),
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
app.register_install_completion_command(help="Install completion of commands and options for your shell.")


@Parameter(name="*", group="Common options")
@dataclass(frozen=True)
class Common:
    """What every command takes."""

    json: Annotated[bool, Parameter(show_default=False)] = False
    """Print one JSON object instead of a table."""
    library: Annotated[Path, Parameter(metavar="DIR", env_var="SKILLWEAVE_LIBRARY")] = Path("library")
    """The folder that holds the skills."""
    seed: int = 0
    """The same seed gives the same result."""

    def show(self, report) -> int:
        """Print the report; the exit code it asks for, 0 unless it says otherwise."""
        show(report, self.json)
        return getattr(report, "exit_code", 0)


@Parameter(name="*", group="Data (one of the two)")
@dataclass(frozen=True)
class Source:
    """Where examples come from."""

    task: Annotated[str | None, Parameter(metavar="NAME")] = None
    """A task by name; `skillweave tasks` lists them."""
    data: Annotated[Path | None, Parameter(metavar="FILE")] = None
    """Your own examples: .jsonl or .csv with `prompt` and `completion`, or .jsonl with `messages`."""
    verifier: Annotated[str | None, Parameter(metavar="FILE.py:FUNCTION")] = None
    """What judges answers to them: `function(prompt, completion, truth)`, run apart, without network and with limits."""

    def chosen(self) -> dict[str, Any]:
        """The one source that was given, as keywords for a verb."""
        if self.task is None and self.data is None:
            raise BadOption("neither --task nor --data was given.", "give --task NAME (see skillweave tasks) or --data FILE")
        if self.task is not None and self.data is not None:
            raise BadOption(f"both --task {self.task} and --data {self.data} were given.", "keep one of the two")
        return {"task": self.task, "data": self.data} | ({"verifier": self.verifier} if self.verifier else {})


@app.command(sort_key=1)
def learn(
    name: str,
    /,
    *,
    source: Source = Source(),
    base: str | None = None,
    method: str = "sft",
    engine: Annotated[str | None, Parameter(show_default=False)] = None,
    start: Annotated[str | None, Parameter(name="--from", metavar="SKILL", show_default=False)] = None,
    description: str = "",
    replace: bool = False,
    fresh: bool = False,
    gate: Gate = Gate(),
    knobs: Knobs = Knobs(),
    common: Common = Common(),
) -> int:
    """Learn a skill from examples and put it into the library.

    Parameters
    ----------
    name
        Name of the new skill: small letters, digits and hyphens.
    base
        The model to teach: a name, a local folder, or a name on the Hugging Face hub; gemma-3-270m if not given.
    method
        How to teach it.
    engine
        What trains: own if not given, or trl for several GPUs (sft and grpo; pip install 'skillweave[trl]').
    start
        A skill to go on from, on its base; for the methods that practise (rejection, selftrain, grpo).
    description
        What the skill does, in a sentence.
    replace
        Replace a skill of that name.
    fresh
        Begin anew, and forget what an interrupted run of that name has done.
    """
    from . import verbs

    where: dict[str, Any] = source.chosen() | {"library": common.library, "seed": common.seed}
    options = knobs.options() | ({"engine": engine} if engine else {})
    how: dict[str, Any] = {"base": base, "method": method, "start": start, "options": options}
    how |= {"replace": replace, "fresh": fresh}
    return common.show(verbs.learn(name, **where, **how, description=description, **vars(gate)))


@app.command(sort_key=2)
def compose(
    skills: list[str] | None = None,
    /,
    *,
    source: Source = Source(),
    shots: int | None = None,
    method: str = "scales+lora",
    recipe: Annotated[Path | None, Parameter(metavar="FILE", show_default=False)] = None,
    save: str | None = None,
    description: str = "",
    replace: bool = False,
    knobs: Knobs = Knobs(),
    common: Common = Common(),
) -> int:
    """Make several skills work together on a task, from few examples.

    Parameters
    ----------
    skills
        The skills to put together.
    shots
        How many examples of the task to use; all that there are if not given.
    method
        How to put them together.
    recipe
        For the method declared: a TOML file of tasks that learn together, with the skills that each declares.
    save
        Keep the composition in the library under this name.
    description
        What the composition does, in a sentence.
    replace
        Replace a skill of that name.
    """
    from . import cli_declared, verbs

    how: dict[str, Any] = {"shots": shots, "options": knobs.options(), "save": save, "replace": replace}
    how |= {"library": common.library, "seed": common.seed}
    if recipe is not None:
        return common.show(cli_declared.joint(recipe, skills, source, method, description, how))
    where = source.chosen()
    return common.show(verbs.compose(skills or [], **where, **how, method=method, description=description))


@app.command(sort_key=3)
def measure(
    skills: list[str],
    /,
    *,
    source: Source = Source(),
    n: Annotated[int, Parameter(name=["-n", "--n"])] = 200,
    split: str | None = None,
    shots: int = 0,
    base: str | None = None,
    at_least: float | None = None,
    common: Common = Common(),
) -> int:
    """Measure skills on a task, with intervals; several are compared example by example.

    Parameters
    ----------
    skills
        The skills to measure.
    n
        How many examples to measure on.
    split
        The part of the data: train, valid, test or, of a file, all; test of a task and all of a file if not given.
    shots
        Worked examples to show in the prompt.
    base
        Measure on this model instead of the one that the skills were learned on.
    at_least
        Exit with code 4 when a score is below this, in [0, 1].
    """
    from . import verbs

    where: dict[str, Any] = source.chosen() | {"library": common.library, "seed": common.seed}
    return common.show(verbs.measure(skills, **where, n=n, split=split, shots=shots, base=base, at_least=at_least))


@app.command(sort_key=4)
def run(skill: str, text: str | None = None, /, *, max_new_tokens: int = 64, common: Common = Common()) -> int:
    """Use a skill on a text, or on every line of standard input; answers only on stdout, one a line.

    Parameters
    ----------
    skill
        The skill to use.
    text
        The text; without it, lines are read from standard input.
    max_new_tokens
        The longest answer, in tokens.
    """
    from . import verbs

    def answer(lines: list[str]):
        return verbs.run(skill, lines, library=common.library, max_new_tokens=max_new_tokens)

    lines = _lines_of_stdin() if text is None else iter([text])
    return _run_json(answer, list(lines)) if common.json else _run_lines(answer, lines)


def _lines_of_stdin() -> Iterator[str]:
    hint = 'give a text, as in skillweave run date "3 May 2021", or lines on standard input'
    if sys.stdin.isatty():
        raise BadData("there is no text to run the skill on.", hint)
    try:
        for line in sys.stdin:
            yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BadData(f"standard input is not UTF-8 text: {error.reason}.", "convert it, for example with iconv") from error


def _run_json(answer, lines: list[str]) -> int:
    report = answer([line for line in lines if line.strip()])
    show(replace(report, answers=tuple(_blanks_kept(lines, report.answers))), json=True)
    return 0


def _run_lines(answer, lines: Iterator[str]) -> int:
    while batch := list(islice(lines, BATCH)):
        asked = [line for line in batch if line.strip()]
        for words in _blanks_kept(batch, answer(asked).answers if asked else ()):
            print(one_line(words))
        sys.stdout.flush()
    return 0


def _blanks_kept(lines: Iterable[str], answers: Iterable[str]) -> Iterator[str]:
    """One answer a line, in the order of the lines: an empty line has an empty answer."""
    left = iter(answers)
    return (next(left) if line.strip() else "" for line in lines)


app.command("skillweave.cli_merge:merge", name="merge", help="Merge adapters into one; no model is loaded.", sort_key=4.5)
app.command("skillweave.cli_adapters:import_", name="import", help="Make a skill of a PEFT adapter.", sort_key=4.6)
app.command("skillweave.cli_adapters:export_", name="export", help="Make a PEFT adapter of a skill.", sort_key=4.7)
app.command("skillweave.cli_adapters:inspect_", name="inspect", help="Look into adapters, and compare them.", sort_key=4.8)
app.command("skillweave.cli_library:app", name="library", help="Look after the library.", sort_key=5)
app.command("skillweave.cli_tasks:app", name="tasks", help="List the tasks, or show examples of one.", sort_key=6)
app.command("skillweave.cli_prune:prune", name="prune", help="Cut the least MLP neurons out of a base model.", sort_key=10)


@app.command(sort_key=7)
def papers(query: str = "", /, *, common: Common = Common()) -> int:
    """Search the papers behind skillweave.

    Parameters
    ----------
    query
        Words to look for in title, room and description, or a number; all papers if not given.
    """
    from .papers.catalog import search

    return common.show(Papers(tuple(search(query))))


@app.command(sort_key=8)
def reproduce(
    number: int,
    /,
    *,
    effort: Literal["quick", "paper"] = "quick",
    seeds: Annotated[int | None, Parameter(show_default=False)] = None,
    out: Annotated[Path | None, Parameter(metavar="FILE", show_default=False)] = None,
    engine: Literal["local", "ray"] = "local",
    common: Common = Common(),
) -> int:
    """Reproduce a paper at small scale; exit code 4 when its effect was not seen.

    Parameters
    ----------
    number
        The paper's number, as in `skillweave papers`.
    effort
        quick shows it in minutes with one seed; paper is what `results/` holds.
    seeds
        How many seeds, from --seed on; the effort decides if not given.
    out
        A result file (JSON) to write.
    engine
        Where seeds run: local is two processes of this machine; ray is the cluster that RAY_ADDRESS names, or one for this run.
    """
    from .papers.catalog import get, load

    paper = get(number)
    if paper.state != "reproduced":
        built = ", ".join(str(p.number) for p in load() if p.state == "reproduced") or "none yet"
        hint = f"{paper.command} uses its method" if paper.command else "skillweave papers shows how far each one is"
        raise SkillweaveError(f"paper {number} has no reproduction yet; papers that have one: {built}.", hint)
    words = shlex.split(paper.command)[1:]
    if words[:1] != ["reproduce"]:
        json = ["--json"] if common.json else []
        return app([*words, *json, "--library", str(common.library), "--seed", str(common.seed)])
    if seeds is not None and seeds < 1:
        raise BadOption(f"seeds is {seeds}, but has to be at least 1.")
    from .papers import reproduction

    how: dict[str, Any] = {"library": common.library, "seed": common.seed, "seeds": seeds, "out": out, "engine": engine}
    return common.show(reproduction.reproduce(number, effort, **how))


@app.command(sort_key=9)
def quickstart(*, effort: Literal["quick", "fair", "paper"] = "fair", common: Common = Common()) -> int:
    """Teach Gemma three skills, weave them for a fourth task, and show what each way of doing it gives.

    Parameters
    ----------
    effort
        quick is made for 5 minutes on 2 cores, fair for 12; paper learns the skills longer and measures more.
    """
    from . import verbs

    return common.show(verbs.quickstart(effort, library=common.library, seed=common.seed))


def main(argv: list[str] | None = None) -> int:
    """Run one command line, without the program's name; the exit code. Whatever goes wrong becomes one sentence on stderr."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        code = app(argv)
        sys.stdout.flush()
        return code or 0
    except CycloptsError as error:
        return _fail(2, f"error: {error}", "skillweave --help")
    except SkillweaveError as error:
        return _fail(error.exit_code, f"error: {error.message}", error.hint)
    except BrokenPipeError:  # the reader has seen enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _interrupted(argv)
    except Exception as error:
        return _fail(2, f"unexpected: {type(error).__name__}: {error}; please report with SKILLWEAVE_DEBUG=1 for the traceback")


def _fail(code: int, sentence: str, hint: str = "") -> int:
    if os.environ.get("SKILLWEAVE_DEBUG"):
        import traceback

        traceback.print_exc()
    print(one_line(sentence), file=sys.stderr)
    if hint:
        print(f"hint: {one_line(hint)}", file=sys.stderr)
    return code


def _interrupted(argv: list[str]) -> int:
    kept = "the skills learned so far are in the library" if argv[:1] == ["quickstart"] else "the library is as it was"
    return _fail(130, f"interrupted; {kept}; to go on: {shlex.join(['skillweave', *argv])}")
