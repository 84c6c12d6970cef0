"""Tables of README.md and docs/ from results/*.json, so that no number on a page is typed by hand.

    <!-- results:quickstart metrics=exact,date,minutes -->
    (everything here is replaced)
    <!-- /results -->

A reproduction (or quickstart) becomes one row an arm, one column a metric, in the order of `metrics` (default: all; a
space in a name is written `_`); a benchmark one row a job. A file that is not there yet becomes a line that says so.

    python scripts/pages.py            fill every block
    python scripts/pages.py --check    exit 1 and name the pages whose blocks differ from the files
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
BLOCK = re.compile(r"(<!-- results:(\S+?)((?: \w+=\S+)*) -->\n).*?(<!-- /results -->)", re.DOTALL)
OPEN = re.compile(r"<!-- results:\S+")
NOT_A_SHARE = re.compile(r"minute|second|token|mib|gib|step|ratio|loss|entropy|^t (first|last)$")


class PageError(Exception):
    """A page or result file that cannot be filled in; the message names it."""


def pages() -> list[Path]:
    """The files whose blocks are filled."""
    return [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.is_file()]


def fill(text: str, page: str = "page", results: Path = RESULTS) -> str:
    """`text` with every block replaced by what the result files hold now."""
    blocks = BLOCK.findall(text)
    if len(blocks) != len(OPEN.findall(text)):
        raise PageError(f"{page}: a results block is not closed, or its first line is not `<!-- results:NAME key=value -->`")

    def replace(match: re.Match) -> str:
        head, name, options, tail = match.groups()
        try:
            return f"{head}{block(name, dict(o.split('=', 1) for o in options.split()), results)}\n{tail}"
        except PageError as error:
            raise PageError(f"{page}: {error}") from error

    return BLOCK.sub(replace, text)


def block(name: str, options: Mapping[str, str], results: Path = RESULTS) -> str:
    """Markdown for one result: its table and a line that says how it was measured."""
    unknown = set(options) - {"metrics"}
    if unknown:
        raise PageError(f"a results block takes metrics=…, not {', '.join(sorted(unknown))}")
    path = results / f"{name}.json"
    if not path.is_file():
        return f"\n*Not measured yet: there is no `results/{name}.json`.*\n"
    result = read(path)
    metrics = options["metrics"].split(",") if "metrics" in options else None
    table = jobs_table(result) if result["kind"] == "benchmark" else arms_table(result, metrics)
    return f"\n{table}\n\n{measured(result)}\n"


def read(path: Path) -> dict:
    """A result file; PageError if it is not JSON or lacks a field."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PageError(f"results/{path.name} is not JSON: {error}") from error
    needed = ("name", "kind", "command", "commit", "machine", "date", "seeds", "cpu_minutes", "verdict", "values")
    missing = [key for key in needed if key not in result]
    body = "rows" if result.get("kind") == "benchmark" else "arms"
    missing += [] if body in result.get("values", {}) else [f"values.{body}"]
    if missing:
        raise PageError(f"results/{path.name} lacks {', '.join(missing)}")
    return result


def arms_table(result: Mapping, metrics: list[str] | None = None) -> str:
    """One row an arm, one column a metric: mean [low, high]; shares as percentages."""
    arms = result["values"]["arms"]
    known = {metric.replace(" ", "_"): metric for arm in arms.values() for metric in arm}
    if unknown := [metric for metric in metrics or () if metric not in known]:
        raise PageError(f"results/{result['name']}.json has no metric {', '.join(unknown)} (it has {', '.join(known)})")
    columns = []
    for metric in [known[name] for name in metrics or known]:
        found = [arm.get(metric) or {} for arm in arms.values()]
        share = is_share(metric, found)
        columns.append([head(metric, share, found), *(interval(one, share) for one in found)])
    return table(*zip(["arm", *arms], *columns, strict=True))


def head(metric: str, share: bool, found: Iterable[Mapping]) -> str:
    """The name of a column with its unit and n."""
    counts = sorted({one["n"] for one in found if one.get("n")})
    n = f" (n = {' to '.join(f'{x:,}' for x in dict.fromkeys((counts[0], counts[-1])))})" if counts else ""
    return metric.replace("_", " ") + (", %" if share else "") + n


def jobs_table(result: Mapping) -> str:
    """One row a job of a benchmark: ours, theirs, the ratio, and whether the goal is met; or the columns that it names."""
    keys = result["values"].get("columns") or ["job", "ours", "peer", "unit", "ratio", "goal", "met"]
    rows = [[value(row.get(key)) for key in keys] for row in result["values"]["rows"]]
    return table(keys, *rows)


def measured(result: Mapping) -> str:
    """The line under a table: verdict and criterion, seeds, cost, command, commit, machine."""
    commit = f"`{result['commit'][:9]}`" if result["commit"] else "an unknown commit"
    seeds = result["seeds"] if isinstance(result["seeds"], list) else [result["seeds"]]
    parts = [
        f"Verdict: **{result['verdict']}**",
        f"criterion: {result['values']['criterion'].rstrip('.')}" if result["values"].get("criterion") else "",
        f"seeds {', '.join(map(str, seeds))}",
        "mean [95 % interval]" if "arms" in result["values"] else "",
        f"{number(result['cpu_minutes'])} CPU minutes",
        f"{number(result['values']['minutes_on_the_clock'])} minutes on the clock" if _timed(result) else "",
        f"`{result['command']}` at {commit}, {result['date'][:10]}, {machine(result['machine'])}",
    ]
    return "; ".join(filter(None, parts)) + "."


def _timed(result: Mapping) -> bool:
    return bool(result["values"].get("minutes_on_the_clock"))


def machine(found: object) -> str:
    """The machine in words, from a string or from a mapping."""
    return ", ".join(f"{key} {item}" for key, item in found.items()) if isinstance(found, Mapping) else str(found)


def is_share(metric: str, values: Iterable[Mapping]) -> bool:
    """Whether a metric reads best in percent: it lies in [0, 1] in every arm, and is neither a time nor a count by its name."""
    numbers = [v[key] for v in values for key in ("mean", "low", "high") if v.get(key) is not None]
    return not NOT_A_SHARE.search(metric.lower()) and bool(numbers) and all(0 <= n <= 1 for n in numbers)


def interval(found: Mapping | None, share: bool) -> str:
    """`83.1 [80.2, 85.7]`; a single measurement says so, a missing one is a dash."""
    if not found or found.get("mean") is None:
        return "–"
    mean, low, high = (None if found.get(key) is None else number(found[key], share) for key in ("mean", "low", "high"))
    if low is None or high is None or found.get("n") == 1:
        return f"{mean} (no interval)"
    return f"{mean} [{low}, {high}]"


def number(x: float, share: bool = False) -> str:
    """A share in percent with one decimal; else three significant digits, thousands with commas."""
    if share:
        return f"{100 * x:.1f}"
    if x and abs(x) < 100:
        return f"{x:.3g}" if abs(x) >= 1e-4 else f"{x:.1e}"
    return f"{x:,.0f}"


def value(x: object) -> str:
    """A cell of a benchmark: text as it is, numbers in three digits, yes or no, an interval where there is one."""
    if isinstance(x, Mapping):
        return interval(x, share=False)
    if isinstance(x, bool):
        return "yes" if x else "no"
    return "–" if x is None else number(x) if isinstance(x, int | float) else str(x)


def table(head: Sequence[str], *rows: Sequence[str]) -> str:
    """A Markdown table; bars and line ends inside a cell are made harmless."""
    lines = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def stale(results: Path = RESULTS) -> dict[Path, str]:
    """Pages whose blocks differ from the result files, with the text they should have."""
    found = {}
    for path in pages():
        text = path.read_text(encoding="utf-8")
        if (new := fill(text, str(path.relative_to(ROOT)), results)) != text:
            found[path] = new
    return found


def main(arguments: list[str]) -> int:
    try:
        changed = stale()
    except PageError as error:
        print(error, file=sys.stderr)
        return 1
    if "--check" in arguments:
        for path in changed:
            print(f"{path.relative_to(ROOT)} differs from results/: run python scripts/pages.py", file=sys.stderr)
        return 1 if changed else 0
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8")
        print(f"filled {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
