"""The gate of `learn`: what a skill costs is told and recorded, and one that costs too much is not saved."""

import json

import pytest

from skillweave import verbs
from skillweave.beside import TRIED
from skillweave.errors import BadOption, TooMuchForgotten
from skillweave.library import Library

QUICK = {"steps": 3, "batch": 4}
DEEP = QUICK | {"probe": "copy"}
HARM = {"steps": 30, "batch": 4, "lr": 0.02}


@pytest.fixture(autouse=True)
def quiet(monkeypatch, loud):
    monkeypatch.setenv("SKILLWEAVE_NO_PROGRESS", "1")
    monkeypatch.setattr("skillweave.base.load_base", lambda name: loud(seed=int(name.endswith("-s1"))))


@pytest.fixture
def tildes(tmp_path_factory):
    """A file of answers that no text is made of: whoever has learned them expects no text any more."""
    file = tmp_path_factory.mktemp("data") / "tildes.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"in {i}\n", "completion": "~" * 12}) + "\n" for i in range(60)))
    return file


def learn(name, shelf, task="copy", options=QUICK, **more):
    return verbs.learn(name, library=shelf, task=task, base="tiny", options=options, **more)


def skills(shelf):
    return {path.relative_to(shelf) for path in shelf.rglob("*") if ".work" not in path.parts and path.is_file()}


def test_what_a_skill_costs_is_told_and_recorded(tmp_path):
    report = learn("one", tmp_path, max_forgetting=100.0)
    about = Library(tmp_path).get("one").provenance["forgetting"]
    assert about["text"]["difference"]["value"] == report.forgetting.text.difference.value
    assert about["limit"] == 100.0 and about["text"]["before"]["n"] == 24 and about["text"]["before"]["unit"] == "nats/token"
    assert "general text: " in report.table().note and "nats/token without the skill" in report.table().note


def test_one_that_costs_too_much_is_not_saved_and_what_was_learned_is_kept(tmp_path, tildes, monkeypatch):
    learn("one", tmp_path)
    before = skills(tmp_path)
    with pytest.raises(TooMuchForgotten, match=r"`two` was not saved: .* may be at most 0\.01"):
        learn("two", tmp_path, task=None, data=tildes, options=HARM, max_forgetting=0.01)
    assert skills(tmp_path) == before and Library(tmp_path).names() == ["one"] and Library(tmp_path).verify() == []
    assert list((tmp_path / ".staging").iterdir()) == []
    monkeypatch.setattr("skillweave.learn.sft.bank_loss", None)  # no step is left to take
    kept = learn("two", tmp_path, task=None, data=tildes, options=HARM, max_forgetting=1000.0)
    assert kept.forgetting.text.difference.low > 0.01 and kept.steps == 30
    assert Library(tmp_path).names() == ["one", "two"] and list((tmp_path / ".work").iterdir()) == []


def test_replacing_is_refused_too_and_the_old_one_stays(tmp_path, tildes):
    learn("one", tmp_path)
    digest = Library(tmp_path).get("one").digest
    with pytest.raises(TooMuchForgotten):
        learn("one", tmp_path, task=None, data=tildes, options=HARM, max_forgetting=0.01, replace=True)
    assert Library(tmp_path).get("one").digest == digest


@pytest.mark.parametrize("more", [{"max_forgetting": -1.0}, {"others": -1}], ids=str)
def test_bad_input_is_said_before_anything_is_learned(tmp_path, more):
    with pytest.raises(BadOption, match=f"{next(iter(more)).replace('_', '-')} is -1"):
        learn("one", tmp_path / "new", **more)
    assert not (tmp_path / "new").exists()


def test_the_command_line_says_it_in_a_sentence(cli, tmp_path, tildes):
    words = ["learn", "two", "--data", tildes, "--base", "tiny", "--library", tmp_path, "--steps", "30", "--lr", "0.02"]
    said = cli(*words, "--max-forgetting", "0.01")
    assert said.code == 1 and said.out == ""
    assert said.err.count("error: `two` was not saved") == 1 and "hint: " in said.err and "Traceback" not in said.err
    offered = said.err.split("--max-forgetting ")[1].split()[0]
    assert cli(*words, "--max-forgetting", offered).code == 0


def test_others_are_tried_on_their_own_task_and_those_that_cannot_be_are_named(tmp_path):
    rows = tmp_path / "copy.jsonl"  # a file that is called like a task is not the task
    rows.write_text("".join(json.dumps({"prompt": f"in {i}\n", "completion": str(i)}) + "\n" for i in range(40)))
    shelf = tmp_path / "library"
    learn("a-copy", shelf)
    learn("b-sort", shelf, task="sort")
    verbs.learn("c-file", library=shelf, data=rows, base="tiny", options=QUICK)
    verbs.learn("d-away", library=shelf, task="copy", base="tiny-32-s1", options=QUICK)
    verbs.learn("e-deep", library=shelf, task="copy", base="tiny", method="expand", options=DEEP)
    found = learn("new", shelf, task="reverse", others=9).forgetting
    assert set(found.skills) == {"a-copy", "b-sort"} and found.skills["a-copy"].before.n == TRIED
    assert {name: why.split()[-1] for name, why in found.left_out.items()} == {
        "c-file": "name.",
        "d-away": "base.",
        "e-deep": "others.",
    }
    assert set(learn("new2", shelf, others=1).forgetting.skills) == {"a-copy"}
    assert learn("new3", shelf).forgetting.skills == {}
    deep = verbs.learn("deep", library=shelf, task="sort", base="tiny", method="expand", options=DEEP, others=1).forgetting
    assert deep.skills == {} and "could be added" in deep.left_out["a-copy"] and deep.text is not None


def test_a_skill_that_learned_the_others_examples_is_not_tried_on_them(tmp_path):
    from skillweave.tasks import load_task

    learn("one", tmp_path / "library")
    rows = [{"prompt": e.prompt, "completion": e.completion} for e in load_task("copy").take(TRIED, "valid")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"steps": 30, "batch": 8}
    new = verbs.learn("new", library=tmp_path / "library", data=tmp_path / "rows.jsonl", base="tiny", options=options, others=1)
    assert new.forgetting.skills["one"].before.n < TRIED


@pytest.mark.parametrize("method", ["sft", "plp", "full", "expand"])
def test_methods_of_every_kind_are_behind_the_gate(tmp_path, tildes, method):
    with pytest.raises(TooMuchForgotten):
        learn(
            "new",
            tmp_path,
            task=None,
            data=tildes,
            method=method,
            options=HARM | {"lr": 0.1, "probe": "copy"} if method == "expand" else HARM,
            max_forgetting=0.01,
        )
    assert Library(tmp_path).names() == []
