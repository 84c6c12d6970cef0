"""Methods that practise, from the command line: they go on from a skill, they say when there is nothing to learn from."""

import json

import pytest

from skillweave.library import Library

EASY = ("--set=tokens=1", "--set=group=64", "--set=probe=8", "--steps", "2", "--batch", "4")


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("SKILLWEAVE_NO_PROGRESS", "1")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"in {i}\n", "completion": "1"}) + "\n" for i in range(40)))
    return path


@pytest.fixture
def learn(cli, data, tmp_path):
    return lambda name, *more: cli("learn", name, "--data", data, "--library", tmp_path / "library", *more)


def test_a_skill_goes_on_from_another_on_its_base(learn, tmp_path):
    assert learn("first", "--base", "tiny", "--steps", "3", "--rank", "4").code == 0
    said = learn("second", "--from", "first", "--method", "grpo", *EASY)
    assert said.code == 0, said.err
    shelf = Library(tmp_path / "library")
    first, second = shelf.get("first"), shelf.get("second")
    assert second.provenance["parents"] == [{"name": "first", "digest": first.digest}]
    assert second.provenance["base"] == first.provenance["base"] and second.digest != first.digest
    assert second.provenance["cost"]["samples"] >= 8 * 64 + 2 * 4 * 64
    assert json.loads((second.path / "adapter" / "adapter_config.json").read_text())["r"] == 4
    rows = [json.loads(line) for line in (tmp_path / "library" / ".work" / "second.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]


@pytest.mark.parametrize("method", ["grpo", "rejection", "selftrain"])
def test_nothing_to_learn_from_is_one_sentence(learn, tmp_path, method):
    said = learn("new", "--base", "tiny", "--method", method, "--set=tokens=3")
    assert said.code == 1 and said.out == "" and "Traceback" not in said.err
    assert "none of" in said.err and "prompts of rows" in said.err and "--from" in said.err
    assert Library(tmp_path / "library").names() == []


def test_a_method_that_cannot_go_on_says_which_can(learn):
    learn("first", "--base", "tiny", "--steps", "1")
    said = learn("second", "--from", "first")
    assert said.code == 1 and "method sft cannot go on from a skill (`first`)" in said.err
    assert "--method rejection | selftrain | grpo" in said.err


def test_a_skill_to_go_on_from_that_is_not_there(learn):
    learn("first", "--base", "tiny", "--steps", "1")
    said = learn("second", "--from", "frist", "--method", "grpo")
    assert said.code == 1 and "Did you mean `first`?" in said.err


def test_another_base_is_refused(learn):
    learn("first", "--base", "tiny", "--steps", "1")
    said = learn("second", "--from", "first", "--base", "tiny-64", "--method", "grpo")
    assert said.code == 1 and "`first` was learned on tiny-32" in said.err
