"""`skillweave library`: a real library, seen through the command line."""

import json
from pathlib import Path

import pytest

from skillweave.library import Library
from skillweave.skill import write_skill


def fill(folder: Path, name: str, description: str, **provenance) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_skill(folder, name=name, description=description, body="Do it.", metadata={}, provenance=provenance)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A library of two skills in `library`, and a skill folder `new` beside it; the tests run where they lie."""
    monkeypatch.chdir(tmp_path)
    library = Library(Path("library"), create=True)
    score = {"task": "date", "split": "test", "metric": "exact", "value": 0.9, "low": 0.85, "high": 0.94, "n": 200, "seed": 0}
    with library.new("date") as folder:
        fill(folder, "date", "Reads dates.", base={"name": "tiny", "digest": "0" * 64}, method="sft", seed=0, scores=[score])
    with library.new("number") as folder:
        fill(folder, "number", "Reads numbers.")
    fill(Path("new"), "new", "Brand new.")
    return library


def test_list(cli, shelf):
    said = cli("library", "list")
    assert (said.code, said.err) == (0, "")
    first, date, number, note = said.out.splitlines()
    assert first.split() == ["skill", "kind", "base", "parents", "best", "score", "description"]
    assert " ".join(date.split()) == "date instructions tiny 0.90 [0.85, 0.94] n=200 on date test exact Reads dates."
    assert number.split()[0] == "number" and number.endswith("Reads numbers.") and note == "2 skills"


def test_list_as_json(cli, shelf):
    skills = json.loads(cli("library", "list", "--json").out)["skills"]
    assert [(skill["name"], skill["description"]) for skill in skills] == [
        ("date", "Reads dates."),
        ("number", "Reads numbers."),
    ]
    assert skills[0]["best"] == {"value": 0.9, "low": 0.85, "high": 0.94, "n": 200, "unit": ""}


def test_search(cli, shelf):
    assert [skill["name"] for skill in json.loads(cli("library", "search", "numb", "--json").out)["skills"]] == ["number"]
    assert cli("library", "search", "zebra").out.splitlines()[-1] == "0 skills"


def test_show(cli, shelf):
    lines = cli("library", "show", "date").out.splitlines()
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}
    assert rows["skill"] == "date" and rows["description"] == "Reads dates." and rows["base"] == "tiny"
    assert rows["score"] == "date test exact 0.90 [0.85, 0.94] n=200" and rows["digest"] == shelf.get("date").digest
    shown = json.loads(cli("library", "show", "date", "--json").out)
    assert shown["skill"]["provenance"]["method"] == "sft" and shown["digest"] == shelf.get("date").digest


def test_show_of_none_gets_a_guess(cli, shelf):
    said = cli("library", "show", "dat")
    assert (said.code, said.out) == (1, "") and "no skill `dat`" in said.err and "Did you mean `date`?" in said.err


def test_add(cli, shelf):
    said = cli("library", "add", "new")
    assert (said.code, said.out, said.err) == (0, "added\nnew\n", "next: skillweave library show new\n")
    assert "new" in shelf
    again = cli("library", "add", "new")
    assert (again.code, again.out) == (1, "") and again.err.startswith("error: ")
    assert cli("library", "add", "new", "--replace").code == 0
    assert cli("library", "add", "new", "--name", "other").out == "added\nother\n"


def test_add_makes_the_library_if_there_is_none(cli, shelf):
    assert cli("library", "add", "new", "--library", "fresh").code == 0
    assert Library(Path("fresh")).names() == ["new"]


def test_remove_is_all_or_none(cli, shelf):
    assert cli("library", "remove", "date", "numbr").code == 1
    assert set(shelf.names()) == {"date", "number"}
    assert cli("library", "remove", "date", "number").out == "removed\ndate\nnumber\n"
    assert list(shelf.names()) == []


def test_verify_finds_a_changed_byte(cli, shelf):
    sound = cli("library", "verify")
    assert (sound.code, sound.err) == (0, "") and sound.out.splitlines()[-1] == "every file is as it was recorded"
    path = shelf.path / "number" / "SKILL.md"
    path.write_text(path.read_text().replace("numbers", "numbers!"))
    said = cli("library", "verify")
    assert said.code == 1 and "SKILL.md" in said.out and said.out.splitlines()[-1] == "1 finding"
    assert cli("library", "verify", "date").code == 0
    assert len(json.loads(cli("library", "verify", "--json").out)["findings"]) == 1


def test_rebuild(cli, shelf):
    assert cli("library", "rebuild").out == "library  skills\nlibrary  2\n"


@pytest.mark.parametrize("words", ["list", "search x", "show x", "remove x", "verify", "rebuild"])
def test_a_folder_that_is_no_library_is_left_alone(cli, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    said = cli("library", *words.split())
    assert (said.code, said.out) == (1, "") and said.err.startswith("error: ") and "hint: " in said.err
    assert list(tmp_path.iterdir()) == []
