"""The documentation site: pages made from the code and the results, and the build.

Run from anywhere, with the package installed:

    python scripts/docs.py generate    write the generated pages and fill the tables of results
    python scripts/docs.py build       generate, then build the site into site/ (warnings are errors)
    python scripts/docs.py check       exit 1 and name every generated page that is not what the code and the results say
"""

import importlib
import io
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import griffe
import pages
from pages import ROOT, table
from pictures import PICTURES
from rich.console import Console

DOCS = ROOT / "docs"
NOTE = "<!-- Made by scripts/docs.py; change the code, not this page. -->\n"
MODULES = (
    ("verbs", "The five verbs and the quickstart: what the commands call."),
    ("skill", "A skill: a folder."),
    ("library", "A folder of skills with an index."),
    ("task", "A source of examples with a verifier."),
    ("tasks", "The tasks by name, and the user's own data."),
    ("base", "The one seam to models."),
    ("delta", "Changes of weights as factors."),
    ("bank", "Many skills on one base."),
    ("composition", "Which skills, and how strong."),
    ("result", "What a measurement returns."),
    ("errors", "What can go wrong."),
    ("papers.catalog", "The 56 papers."),
)
AUDITED = 200
"""Examples of each split that the audit in the docs looks at."""
ROOMS = ("learn", "compose")


def page(title: str, intro: str, body: str) -> str:
    return f"{NOTE}\n# {title}\n\n{intro}\n\n{body.strip()}\n"


def commands() -> str:
    """Every command with its options, as the command line itself describes them."""
    app = importlib.import_module("skillweave.cli").app
    intro = "What `--help` says. Every command takes `--json`, and says on the error stream what to try next."
    parts = [_help(app, ())]
    for command in command_names(app):
        parts.append(f"## skillweave {' '.join(command)}\n\n{_help(app, command)}")
    return page("Commands", intro, "\n\n".join(parts))


def command_names(group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command of the command line, groups and their members, without options such as --help."""
    found = []
    for name in (name for name in group if not name.startswith("-")):
        found += [(*path, name), *command_names(group[name], (*path, name))]
    return found


def _help(app, command: tuple[str, ...]) -> str:
    console = Console(file=io.StringIO(), width=88, color_system=None, force_terminal=False, legacy_windows=False)
    app.help_print(command, console=console)
    lines = [line.rstrip() for line in console.file.getvalue().strip().splitlines()]
    return "\n".join(["```text", *lines, "```"])


def python_api() -> str:
    """One section a module; the text comes from the docstrings when the site is built."""
    parts = [f"## skillweave.{name}\n\n{what}\n\n::: skillweave.{name}" for name, what in MODULES]
    return page("Python", "The modules that a program uses, with the words of their docstrings.", "\n\n".join(parts))


def methods() -> str:
    """The METHODS tables of the rooms, with every knob of every method."""
    package = griffe.load("skillweave", search_paths=[ROOT / "src"])
    parts = []
    for room in ROOMS:
        module = importlib.import_module(f"skillweave.{room}")
        found = {name: package[where.removeprefix("skillweave.").replace(":", ".")] for name, where in module.METHODS.items()}
        parts.append(f"## {room}\n\n{module.__doc__.strip()}")
        parts += [_method(name, method) for name, method in found.items()]
    intro = "What `--method` takes, and the options of each method with their defaults."
    return page("Methods", intro, "\n\n".join(parts))


def _method(name: str, method: griffe.Class) -> str:
    knobs = [_knob(knob) for knob in method.all_members.values() if knob.is_attribute and "instance-attribute" in knob.labels]
    options = table(["option", "default", "what it is"], *knobs) if knobs else "No options."
    return f"### `{name}`\n\n{_text(method)}\n\n{options}"


def _knob(knob: griffe.Attribute) -> list[str]:
    return [f"`{knob.name}`", f"`{knob.value}`", _text(knob) or _inherited(knob)]


def _inherited(knob: griffe.Attribute) -> str:
    """The words of the field that this one overrides."""
    bases = knob.parent.mro()
    return next((_text(base.members[knob.name]) for base in bases if knob.name in base.members), "")


def _text(thing: griffe.Object) -> str:
    return " ".join(thing.docstring.value.split()) if thing.docstring else ""


def tasks() -> str:
    """The TASKS table: the audit of all, then sizes and one example of each."""
    from skillweave.tasks import TASKS, load_task

    made = {name: load_task(name) for name in TASKS}
    intro = "What `--task` takes. The example is number 0 of the test split with seed 0."
    parts = [_audits(made), *(_task(name, task) for name, task in made.items()), _gym()]
    return pages.fill(page("Tasks", intro, "\n\n".join(parts)), "docs/reference/tasks.md")


def _gym() -> str:
    """Which tasks of reasoning_gym can be trusted, from the file of their audit."""
    return (
        "## Tasks of reasoning_gym\n\n"
        "With the extra `gym`, those that are offered are tasks here: `--task gym-gcd` and so on. *ms* is what an item takes\n"
        "to make, *question* and *answer* are the most characters, *different* how many of 100 items are about something\n"
        "else, *other* what the answer of another item scores, *guess* what the most common answer does.\n\n"
        "<!-- results:gym_audit -->\n<!-- /results -->"
    )


def _audits(made: dict) -> str:
    """What each task gives for right answers, wrong ones and guesses."""
    from skillweave.tasks.audit import audit

    head = ["task", "depth", "n", "true answer", "nothing", "junk", "another's", "most common", "wrong at most", "audit"]
    rows = []
    for name, task in made.items():
        found = audit(task, AUDITED)
        scores = (found.truth, found.nothing, found.junk, found.other, found.guess, found.wrong_at_most)
        depths = ", ".join(map(str, task.depths))
        rows.append([f"`{name}`", depths, str(found.n), *(f"{score:.3f}" for score in scores), found.fault or "sound"])
    words = (
        "## Audit\n\n"
        f"Mean scores over up to {AUDITED} examples of the test split: of the true answer, of an empty one, of text that\n"
        "belongs to no task, of the answer to the next example, and of the most common answer of the training split, which is\n"
        "what guessing reaches. *Sound* means that the true answer scores 1, that no wrong one scores more than the task\n"
        "declares, that the same number always gives the same example, and that no two splits share a prompt or content."
    )
    return f"{words}\n\n{table(head, *rows)}"


def _task(name: str, task) -> str:
    example = task.example(0, "test")
    own = (
        f"{task.description[:1].upper()}{task.description[1:]}." if "description" in vars(task) else None
    )  # of one task among many of its class
    text = " ".join((own or type(task).__doc__ or task.description).split())
    sizes = ", ".join(f"{split} {task.size(split) or 'without end'}" for split in task.splits)
    return f"## `{name}`\n\n{text}\n\nExamples: {sizes}.\n\n```text\n{example.prompt.rstrip()}\n→ {example.completion}\n```"


def papers() -> str:
    """The catalog as one table."""
    from skillweave.papers import catalog

    rows = [[_own_page(p.number), f"[{p.title}]({p.url})", p.room, p.what, _state(p)] for p in catalog.load()]
    counts = {state: sum(p.state == state for p in catalog.load()) for state in catalog.STATES}
    shown = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    intro = (
        f"Skillweave is built from {len(catalog.load())} papers. Each row says in our own words what the paper is and what it\n"
        "does for you, and which room of the house it belongs to.\n\n"
        f"So far: {shown}. *Reproduced* means that a small-scale run is in `results/`, with a criterion that was set\n"
        "beforehand; its verdict stands beside it, and may be that the claim does not hold, or could not be tested.\n"
        "`skillweave papers WORD` searches this table."
    )
    return page("Papers", intro, table(["", "paper", "room", "what it is", "state"], *rows))


def _state(paper) -> str:
    """How far a paper is, with the verdict of its reproduction and the command."""
    path = result_of(paper.number)
    verdict = f" ({pages.read(path)['verdict']})" if path.is_file() else ""
    return f"{paper.state}{verdict}: `{paper.command}`" if paper.command else paper.state


def _own_page(number: int) -> str:
    """The number of a paper, as a link where it has a page of its own."""
    return f"[{number}]({number}.md)" if (DOCS / "papers" / f"{number}.md").is_file() else str(number)


def results() -> str:
    """One section a file of results/, all of them."""
    names = sorted(path.stem for path in pages.RESULTS.glob("*.json"))
    parts = [f"## {name}\n\n<!-- results:{name} -->\n<!-- /results -->" for name in names]
    intro = "One section a file of `results/`, each written by the command that measured it, whether it came out well or not."
    return pages.fill(page("Results", intro, "\n\n".join(parts) or "*Nothing is measured yet.*"), "docs/results.md")


def result_of(number: int) -> Path:
    """Where the result of a reproduction is, or would be."""
    return pages.RESULTS / f"p{number:02d}.json"


def picture(name: str, draw: Callable[[], str]) -> str:
    """The picture of a paper; words in its place until there is a result to draw."""
    if result_of(int(Path(name).stem)).is_file():
        return draw()
    return '<svg xmlns="http://www.w3.org/2000/svg" width="300" height="40"><text x="8" y="25">Not measured yet.</text></svg>\n'


PAGES: dict[str, Callable[[], str]] = {
    "reference/cli.md": commands,
    "reference/methods.md": methods,
    "reference/tasks.md": tasks,
    "reference/python.md": python_api,
    "papers/index.md": papers,
    "results.md": results,
    **{name: partial(picture, name, draw) for name, draw in PICTURES.items()},
}


def stale() -> tuple[dict[Path, str], list[str]]:
    """Pages that should read otherwise, with their text; and what could not be made, in words."""
    found, faults = {}, []
    for name, make in PAGES.items():
        path = DOCS / name
        try:
            text = make()
        except Exception as error:  # one page that cannot be made must not keep the others from being made
            faults.append(f"docs/{name}: {type(error).__name__}: {error}")
            continue
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            found[path] = text
    try:
        found |= {path: text for path, text in pages.stale().items() if path not in found}
    except pages.PageError as error:
        faults.append(str(error))
    return found, faults


def generate() -> int:
    changed, faults = stale()
    for path, text in changed.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    print("\n".join(faults), file=sys.stderr, end="\n" if faults else "")
    return 1 if faults else 0


def check() -> int:
    changed, faults = stale()
    for path in changed:
        print(f"{path.relative_to(ROOT)} is not what code and results say: python scripts/docs.py generate", file=sys.stderr)
    print("\n".join(faults), file=sys.stderr, end="\n" if faults else "")
    return 1 if changed or faults else 0


def build() -> int:
    return generate() or subprocess.run([sys.executable, "-m", "zensical", "build", "--strict", "--clean"], cwd=ROOT).returncode


def main(arguments: list[str]) -> int:
    verbs = {"generate": generate, "build": build, "check": check}
    if len(arguments) != 1 or arguments[0] not in verbs:
        print(__doc__, file=sys.stderr)
        return 2
    return verbs[arguments[0]]()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
