"""The picture of the house, held against the code: who imports whom, what is promised, and what must not be in the text."""

import ast
import importlib
import re
import subprocess
from pathlib import Path

import pytest

import skillweave

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "skillweave"
FILES = sorted(SOURCE.rglob("*.py"))
ROOMS = {"compose", "curriculum", "guard", "learn", "measure", "serve", "studio", "tasks", "worlds"}
FRONT = {
    "__init__",
    "__main__",
    "beside",
    "cli",
    "cli_adapters",
    "cli_declared",
    "cli_gate",
    "cli_knobs",
    "cli_library",
    "cli_merge",
    "cli_prune",
    "cli_tasks",
    "declaring",
    "merging",
    "quickstart",
    "quickstart_arms",
    "verbs",
    "wishes",
}
"""Top-level files that join rooms; every other one is a noun."""
NOUNS = [path for path in FILES if path.parent == SOURCE and path.stem not in FRONT]
LIGHT = ["cli", "errors", "files", "library", "papers.catalog", "progress", "result", "skill", "task", "tasks"]


def module_of(path: Path) -> str:
    return ".".join(["skillweave", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Absolute names of all modules of ours that a file imports, at the top or inside a function; names from them included."""
    package = module_of(path).split(".") if path.stem == "__init__" else module_of(path).split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            home = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*home, *filter(None, [node.module])])
            found |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "skillweave"}


def rooms_in(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if "." in name}


def tables() -> list[tuple[str, str, str]]:
    """(table, key, target) of every table of lazy strings."""
    found = []
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and node.targets[0].id.isupper():
                pairs = [(key, value) for key, value in zip(node.value.keys, node.value.values, strict=True)]
                pairs = [(k.value, v.value) for k, v in pairs if isinstance(k, ast.Constant) and isinstance(v, ast.Constant)]
                found += [(f"{module_of(path)}.{node.targets[0].id}", key, target) for key, target in pairs if is_lazy(target)]
    return found


def is_lazy(target: object) -> bool:
    return isinstance(target, str) and re.fullmatch(r"skillweave(\.\w+)+:\w+", target) is not None


def test_the_picture_can_see():
    """The checks below look at something: files are found, and relative imports are read."""
    assert len(FILES) >= 20 and len(NOUNS) >= 8 and len(tables()) >= 4
    assert {"skillweave.papers.catalog.search", "skillweave.verbs"} <= imports(SOURCE / "cli.py")


@pytest.mark.parametrize("path", NOUNS, ids=lambda path: path.stem)
def test_nouns_import_no_room(path):
    assert not rooms_in(imports(path)) & (ROOMS | FRONT | {"papers"})


@pytest.mark.parametrize("path", [path for path in FILES if path.relative_to(SOURCE).parts[0] in ROOMS], ids=module_of)
def test_rooms_import_neither_papers_nor_the_front(path):
    assert not rooms_in(imports(path)) & ({"papers"} | FRONT - {"__init__"})


def test_only_the_command_line_imports_papers():
    outside = [path for path in FILES if path.relative_to(SOURCE).parts[0] != "papers"]
    assert [path.name for path in outside if "papers" in rooms_in(imports(path))] == ["cli.py"]


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_public_names_exist(path):
    promised = [
        n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"
    ]
    if promised:
        module = importlib.import_module(module_of(path))
        assert module.__all__ == sorted(module.__all__, key=str)
        assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_the_package_offers_its_nouns():
    assert skillweave.__all__ == ["Estimate", "Library", "Skill", "SkillweaveError", "Task", "__version__"]
    assert dir(skillweave) == skillweave.__all__
    with pytest.raises(AttributeError, match="has no attribute 'Skil'"):
        _ = skillweave.Skil


@pytest.mark.parametrize(("table", "key", "target"), tables())
def test_every_table_entry_resolves(table, key, target):
    module, _, name = target.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("name", LIGHT)
def test_light_modules_import_no_torch(process, name):
    said = process(
        code=f"import sys, skillweave.{name}; sys.exit(', '.join({{'torch', 'transformers'}} & set(sys.modules)) or 0)"
    )
    assert (said.code, said.err) == (0, "")


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_are_short_and_say_what_they_are(path):
    words = path.read_text()
    assert words.count("\n") <= 400
    assert ast.get_docstring(ast.parse(words))


def tracked() -> list[Path]:
    """Every text file that belongs to the project."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


MACHINE = re.compile(
    r"/(?:work|root|opt/pypi|opt/wheels|home/\w+|Users/\w+)/|file:/{2}/|\bpypi[.](?:org|python)|extra-index[-]url"
)


def test_no_text_names_a_machine():
    assert (
        MACHINE.search("see /" + "root/x") and MACHINE.search("/" + "home/me/x") and not MACHINE.search("in ./home or at work/")
    )
    files = tracked()
    assert len(files) >= 30
    assert [f"{p.relative_to(ROOT)}: {m.group()}" for p in files if (m := MACHINE.search(p.read_text(errors="replace")))] == []
