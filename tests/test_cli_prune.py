"""`skillweave prune`: what is written, what is said, and what is refused before anything is read."""

import json

import pytest

from skillweave.base import load_base


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKILLWEAVE_CACHE", str(tmp_path / "cache"))


def test_a_narrower_base_is_written_and_said(cli, saved):
    said = cli("prune", saved, "--share", "0.25", "--out", "small", "--dtype", "fp32")
    assert said.code == 0 and said.err == "next: skillweave learn date --task date --base small\n"
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert lines[2] == "neurons of an MLP 80 60" and lines[3] == "parameters 38,752 32,992"
    assert lines[4] == "25% of the neurons cut by ppm; fp32 in small"
    assert {m.gate_proj.out_features for m in (layer.mlp for layer in load_base("small").model.model.layers)} == {60}


def test_as_json_with_another_score(cli, saved):
    said = cli("prune", saved, "--share", "0.5", "--score", "random", "--seed", "3", "--out", "small", "--json")
    report = json.loads(said.out)
    assert (report["score"], report["share"], report["width"]) == ("random", 0.5, [80, 40]) and said.err == ""


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("no-such-folder/x", "--share", "1"), 1, "error: share is 1.0, but has to be at least 0 and below 1."),
        (("./nowhere", "--share", "0.1"), 1, "error: no folder `./nowhere`."),
        (("tiny", "--share", "0.1", "--score", "maw"), 2, 'error: Invalid value "maw" for --score.'),
        (("tiny",), 2, "error: "),
    ],
)
def test_mistakes_are_answered_in_a_sentence(cli, tmp_path, words, code, sentence):
    said = cli("prune", *words, "--out", "small")
    assert said.code == code and said.out == "" and said.err.startswith(sentence) and "hint: " in said.err
    assert not (tmp_path / "small").exists()


def test_a_folder_that_is_there_is_refused_before_the_model_is_read(cli, tmp_path):
    (tmp_path / "small").mkdir()
    said = cli("prune", "./nowhere", "--share", "0.1", "--out", "small")
    assert (said.code, said.err) == (1, "error: small is already there.\nhint: choose another --out, or remove it\n")
