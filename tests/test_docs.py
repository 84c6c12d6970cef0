"""The documentation says what is so: commands exist, code runs, links lead somewhere, generated pages are current."""

import ast
import importlib
import inspect
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import changelog  # noqa: E402
import pages  # noqa: E402

import docs  # noqa: E402
from skillweave.cli import app  # noqa: E402

GENERATED = {ROOT / "docs" / name for name in docs.PAGES}
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
ALL = [path for path in (*TOP, *sorted((ROOT / "docs").rglob("*.md"))) if path.is_file()]
WRITTEN = [path for path in ALL if path not in GENERATED]
FENCE = re.compile(r"^(?:<!-- not run: (?P<why>[^\n]+) -->\n+)?```(?P<kind>\w*)[^\n]*\n(?P<code>.*?)^```$", re.M | re.S)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, *kinds: str) -> list[tuple[str, str | None]]:
    """(code, reason why it is not run) of each fenced block of one of `kinds`."""
    found = FENCE.finditer(path.read_text(encoding="utf-8"))
    return [(match["code"], match["why"]) for match in found if match["kind"] in kinds]


def command_lines(path: Path) -> list[list[str]]:
    """The words of each `skillweave …` line of a page's shell blocks, without pipes, redirections and remarks."""
    found = []
    for code, _ in blocks(path, "sh", "console"):
        for line in code.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|<>&;")
            lexer.whitespace_split = True
            words = list(lexer)
            if words[:1] == ["skillweave"]:
                end = next((at for at, word in enumerate(words) if set(word) <= set("|<>&;")), len(words))
                found.append(words[1:end])
    return found


# --- commands


@pytest.mark.parametrize("command", docs.command_names(app), ids=" ".join)
def test_every_command_is_in_the_reference(command):
    assert f"\n## skillweave {' '.join(command)}\n" in (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")


def test_every_command_is_shown_in_a_page_that_somebody_wrote():
    shown = {tuple(words[:n]) for path in WRITTEN for words in command_lines(path) for n in (1, 2)}
    assert [" ".join(command) for command in docs.command_names(app) if command not in shown] == []


@pytest.mark.parametrize("path", [path for path in ALL if command_lines(path)], ids=name_of)
def test_command_lines_are_understood(path):
    for words in command_lines(path):
        if "--help" not in words and "--install-completion" not in words:
            _, _, unused = app.parse_args(words, print_error=False, exit_on_error=False)
            assert unused == {}, words


# --- code


@pytest.mark.parametrize("path", [path for path in ALL if blocks(path, "python")], ids=name_of)
def test_python_blocks_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": f"page_{path.stem}"}
    for number, (code, why) in enumerate(blocks(path, "python"), 1):
        if why is None:
            exec(compile(code, f"{name_of(path)} block {number}", "exec"), namespace)
        else:
            check_calls(code)


def check_calls(code: str) -> None:
    """For a block that is not run: it parses, its imports exist, and what it imports takes the arguments that it is given."""
    imported = {}
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            imported |= {name.asname or name.name: getattr(module, name.name) for name in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and callable(imported.get(node.func.id)):
            inspect.signature(imported[node.func.id]).bind(*node.args, **{word.arg: word.value for word in node.keywords})


@pytest.mark.parametrize("code", ["from skillweave.task import share\nshare()", "from skillweave.task import Nothing", "a b"])
def test_a_block_that_is_not_run_is_still_checked(code):
    with pytest.raises((TypeError, AttributeError, SyntaxError)):
        check_calls(code)


# --- links


def slugs(path: Path) -> set[str]:
    """Names of the headings of a page, as links call them."""
    heads = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", head.lower()).strip()) for head in heads}


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_links_lead_somewhere(path):
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    for target in targets:
        if not re.match(r"[a-z]+:", target):
            file, _, anchor = target.partition("#")
            page = (path.parent / file).resolve() if file else path
            assert page.exists(), f"{name_of(path)} links to {target}"
            assert not anchor or page.suffix != ".md" or anchor in slugs(page), f"{name_of(path)} links to {target}"


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert listed == {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}


# --- generated pages and tables of results


def test_generated_pages_are_current():
    """In a process of its own: the audit of the tasks takes minutes where every call is checked for its types."""
    script = ROOT / "scripts/docs.py"
    said = subprocess.run([sys.executable, str(script), "check"], capture_output=True, text=True, timeout=600)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_the_file_tree_of_contributing_is_complete():
    tree = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    source = ROOT / "src/skillweave"
    here = [path.name for path in source.glob("[a-z]*.py")] + [f"{path.parent.name}/" for path in source.glob("*/__init__.py")]
    assert [name for name in sorted(here) if name not in tree] == []


RESULT = {
    "name": "toy",
    "kind": "quickstart",
    "command": "skillweave quickstart",
    "commit": "0123456789abcdef",
    "machine": {"processor": "test", "cores": 2},
    "date": "2026-11-23T10:00:00Z",
    "seeds": [0, 1, 2],
    "cpu_minutes": 12.3456,
    "verdict": "partly",
    "values": {
        "criterion": "ours beats theirs.",
        "arms": {
            "ours": {
                "exact": {"mean": 0.8312, "low": 0.802, "high": 0.857, "n": 600},
                "kept date": {"mean": 1, "low": 0.97, "high": 1, "n": 150},
                "minutes": {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 3},
            },
            "a|b": {"exact": {"mean": 0.1, "low": 0.1, "high": 0.1, "n": 1}},
        },
    },
}
ROWS = [{"job": "search", "ours": 1234.5, "peer": None, "unit": "ms", "ratio": 0.0123, "goal": "< 100 ms", "met": False}]


@pytest.fixture
def results(tmp_path):
    def write(**change) -> Path:
        (tmp_path / "toy.json").write_text(json.dumps(RESULT | change))
        return tmp_path

    return write


def test_arms_become_rows_with_intervals(results):
    text = pages.block("toy", {}, results())
    assert "| arm | exact, % (n = 1 to 600) | kept date, % (n = 150) | minutes (n = 3) |" in text
    assert "| ours | 83.1 [80.2, 85.7] | 100.0 [97.0, 100.0] | 0.5 [0.4, 0.6] |" in text
    assert "| a\\|b | 10.0 (no interval) | – | – |" in text
    assert "**partly**" in text and "ours beats theirs" in text and "`012345678`" in text
    assert "an unknown commit" in pages.block("toy", {}, results(commit=None))
    assert "12.3 CPU minutes" in text and "seeds 0, 1, 2" in text


def test_the_tag_chooses_columns_and_their_order(results):
    page = "<!-- results:toy metrics=minutes,kept_date -->\nold\n<!-- /results -->\n"
    assert "| arm | minutes (n = 3) | kept date, % (n = 150) |" in pages.fill(page, results=results())
    with pytest.raises(pages.PageError, match="no metric speed .it has exact, kept_date, minutes"):
        pages.block("toy", {"metrics": "speed"}, results())


def test_a_benchmark_becomes_one_row_a_job(results):
    text = pages.block("toy", {}, results(kind="benchmark", values={"rows": ROWS}))
    assert "| search | 1,234 | – | ms | 0.0123 | < 100 ms | no |" in text


def test_filling_twice_changes_nothing_and_a_new_number_does(results):
    page = "before\n<!-- results:toy -->\n<!-- /results -->\nafter\n"
    once = pages.fill(page, results=results())
    assert once != page and pages.fill(once, results=results()) == once
    assert pages.fill(once.replace("83.1", "93.1"), results=results()) == once


def test_a_result_that_is_not_there_is_said_to_be_missing(tmp_path):
    text = pages.fill("<!-- results:toy -->\n| 99.9 |\n<!-- /results -->\n", results=tmp_path)
    assert "Not measured yet" in text and "99.9" not in text


@pytest.mark.parametrize("change", [{"values": {}}, {"kind": "benchmark"}])
def test_an_incomplete_result_is_named(results, change):
    with pytest.raises(pages.PageError, match="toy.json lacks"):
        pages.block("toy", {}, results(**change))


@pytest.mark.parametrize("page", ["<!-- results:toy -->\n| 1 |\n", "<!-- results:toy metrics -->\n<!-- /results -->\n"])
def test_a_block_that_is_not_closed_or_not_understood_is_named(results, page):
    with pytest.raises(pages.PageError, match="README.md"):
        pages.fill(page, "README.md", results())


def test_fragments_of_the_changelog_are_in_order():
    assert changelog.main(["--check"]) == 0


def test_a_release_lists_its_changes_by_kind(tmp_path):
    (tmp_path / "7-a.fixed.md").write_text("A is\nright.\n")
    (tmp_path / "8-b.added.md").write_text("B is there.\n")
    text = changelog.section("1.0.0", "2027-01-01", changelog.fragments(tmp_path))
    assert text == "## 1.0.0 (2027-01-01)\n\n### Added\n\n- B is there.\n\n### Fixed\n\n- A is right.\n"


@pytest.mark.parametrize(("name", "text"), [("9.md", "Fine."), ("9-a.new.md", "Fine."), ("9-a.added.md", "no sentence")])
def test_a_fragment_without_a_kind_or_a_sentence_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=name):
        changelog.fragments(tmp_path)


# --- pictures


def test_a_picture_shows_what_the_result_says():
    import pictures

    arms = {
        "full": {"exact": {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 3}, "blind": {"mean": 0.25, "low": 0.25, "high": 0.25}}
    }
    arms |= {"ours 20 %": {"exact": {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 3}}, "ours 40 %": {}, "theirs 20 %": {}}
    result = {"values": {"arms": arms}}
    curve = pictures.curve(result, "ours & us", "exact", "ours", "full", "blind")
    assert curve.points == ((0.0, 0.5, 0.4, 0.6), (0.2, 1.0, 1.0, 1.0)) and curve.level == 0.25
    flat, log = (pictures.svg("t", [pictures.Panel("p", "x", (curve,), log)]) for log in (False, True))
    top, bottom, left, right = 34, 256, 48, 318
    assert f'points="{left:.1f},{(top + bottom) / 2:.1f} {right:.1f},{top:.1f}"' in flat  # 50 % halfway up, 100 % at the top
    assert f'points="{left:.1f},{bottom - 222 * 0.69897:.1f} {right:.1f},{top:.1f}"' in log  # log10 of 0.5, from 0.1 to 1
    assert "ours &amp; us" in flat and "<script" not in flat


def test_perplexities_are_averaged_in_logarithms():
    import pictures

    runs = [{"full": {"perplexity": x}, "other": {}} for x in (10.0, 1000.0)]
    result = {"values": {"arms": {"full": {"perplexity": {"mean": 505.0}}, "other": {}}, "runs": runs}}
    found = pictures.in_logs(result, "perplexity")["values"]["arms"]
    assert found["full"]["perplexity"]["mean"] == pytest.approx(100.0) and found["other"] == {}
    assert found["full"]["perplexity"]["low"] < 10 and result["values"]["arms"]["full"]["perplexity"]["mean"] == 505.0


def test_names_of_curves_do_not_lie_on_each_other():
    import pictures

    curves = tuple(pictures.Curve(str(i), ((0.0, y, y, y), (1.0, y, y, y))) for i, y in enumerate((0.01, 0.0, 0.9, 0.02)))
    panel = pictures.Panel("p", "x", curves)
    heights = pictures._labels(panel, lambda y: 256 - 222 * y)
    assert min(b - a for a, b in zip(sorted(heights), sorted(heights)[1:], strict=False)) >= 14 and max(heights) <= 260
    assert sorted(range(4), key=heights.__getitem__) == [2, 3, 0, 1]


def test_no_picture_waits_for_a_result_that_is_there():
    import docs

    drawn = [name for name in docs.PICTURES if docs.result_of(int(Path(name).stem)).is_file()]
    assert len(drawn) >= 8
    assert [name for name in drawn if "Not measured yet" in docs.PAGES[name]()] == []
