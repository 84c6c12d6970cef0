"""What every method promises, whatever it does: from the command line it makes a whole skill, twice the same, that answers."""

import dataclasses
import json

import pytest

from skillweave.cli import main
from skillweave.compose import METHODS as COMPOSE
from skillweave.learn import METHODS as LEARN
from skillweave.library import Library
from skillweave.methods import resolve

PARTS = {"factors": (("plp", "side=down"), ("plp", "side=up"))}
"""How the two skills that a method joins are learned, where that is not `sft`."""
ROUNDS = ("samples=64", "prompts=8", "rounds=2", "tokens=1", "cut=true")
PRACTICE = {"grpo": ("group=64", "probe=8", "tokens=1"), "rejection": ROUNDS, "selftrain": (*ROUNDS, "tuning=4")}
"""Methods that have to be right now and then: an untrained base says the one right character once in a hundred."""
TAUGHT = {"distill": ("teacher=tiny-32-s1", "answers=given", "soft=1"), **PRACTICE}
"""Options without which a way to learn has nothing to learn from."""
ALONE = ("graft",)
"""Methods of one skill."""


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("SKILLWEAVE_NO_PROGRESS", "1")


@pytest.fixture
def data(tmp_path):
    rows = [{"prompt": f"in {i}\n", "completion": str(i)[::-1]} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "rows.jsonl"


def short(target: str) -> list[str]:
    """Options that make a method quick, of those that it has."""
    fields = {field.name for field in dataclasses.fields(resolve(target))}
    quick = {"steps": 2, "batch": 4, "rank": 2, "candidates": 4}
    merging = "weights" in fields  # its rank cuts the result, which may be less than what it is tested for
    return [f"--set={name}={value}" for name, value in quick.items() if name in fields and not (merging and name == "rank")]


def call(capsys, *words) -> str:
    code = main([*map(str, words), "--json"])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out


def learned(capsys, library, name, data, method="sft", *more, base="tiny") -> None:
    options = [*short(LEARN[method]), *(f"--set={option}" for option in more)]
    call(capsys, "learn", name, "--data", data, "--base", base, "--method", method, "--library", library, *options)


def check(capsys, library, name, data) -> str:
    """The skill answers, is measured, and is what its provenance says; its digest."""
    assert len(json.loads(call(capsys, "run", name, "7", "--library", library))["answers"]) == 1
    row = json.loads(call(capsys, "measure", name, "--data", data, "--library", library))["rows"][0]
    assert row["name"] == name and 0 <= row["exact"]["value"] <= 1
    call(capsys, "library", "verify", "--library", library)
    return Library(library).get(name).digest


@pytest.mark.parametrize("method", LEARN)
def test_every_way_to_learn(capsys, tmp_path, data, method):
    if method in PRACTICE:
        data.write_text("".join(json.dumps({"prompt": f"in {i}\n", "completion": "1"}) + "\n" for i in range(40)))
    digests = set()
    other = tmp_path / "other.jsonl"
    other.write_text('{"prompt": "in 99\\n", "completion": "99"}\n')
    for library in (tmp_path / "one", tmp_path / "two"):
        learned(capsys, library, "new", data, method, *TAUGHT.get(method, ()))
        digests.add(check(capsys, library, "new", other))
    assert len(digests) == 1


@pytest.mark.parametrize("method", COMPOSE)
def test_every_way_to_compose(capsys, tmp_path, data, method):
    library, other = tmp_path / "library", tmp_path / "other.jsonl"
    other.write_text('{"prompt": "in 99\\n", "completion": "99"}\n')
    parts = PARTS.get(method, (("sft",), ("sft",)))[: 1 if method in ALONE else 2]
    names = ["one", "two"][: len(parts)]
    for name, how in zip(names, parts, strict=True):
        learned(capsys, library, name, data, *how)
    for saved in ("first", "second"):
        options = ["--method", method, "--save", saved, *short(COMPOSE[method])]
        call(capsys, "compose", *names, "--data", data, "--library", library, *options)
        check(capsys, library, saved, other)
        made = Library(library).get(saved).provenance
        assert [parent["name"] for parent in made["parents"]] == names and made["method"] == method
    first, second = (content(Library(library).get(name).path) for name in ("first", "second"))
    assert first == second != {}


def content(folder) -> dict[str, bytes]:
    """Every file of a skill but those that hold its name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("SKILL.md", "provenance.json")
    }


def test_all_methods_were_seen():
    assert len(COMPOSE) == 19 and len(LEARN) == 8
    assert set(TAUGHT) <= set(LEARN)
    assert set(PARTS) | set(ALONE) <= set(COMPOSE)
