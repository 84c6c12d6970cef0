"""`learn`, interrupted: the same call goes on to the same bits, another one says what has changed before it does anything."""

import json
from functools import partial

import pytest
from safetensors.torch import save_file

from skillweave import verbs
from skillweave.errors import BadOption
from skillweave.learn import sft
from skillweave.learn.loop import Plan
from skillweave.library import Library
from skillweave.unfinished import forget, state_of

QUICK = {"steps": 3, "batch": 4}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("SKILLWEAVE_NO_PROGRESS", "1")


@pytest.fixture
def shelf(tmp_path):
    return tmp_path / "library"


@pytest.fixture
def learn(shelf, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"in {i}\n", "completion": str(i)}) + "\n" for i in range(60)))
    return partial(verbs.learn, library=shelf, data=path, base="tiny", options=QUICK)


@pytest.fixture
def interrupted(learn, shelf, monkeypatch):
    """A `learn` that was interrupted at its third step, after a state was saved; gives the calls of its loss so far."""
    monkeypatch.setattr(sft, "Plan", partial(Plan, save_every=0.0))
    real, calls = sft.bank_loss, []

    def dies(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(sft, "bank_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        learn("one")
    assert len(states(shelf)) == 1
    return calls


def states(shelf):
    return {path.name: path.read_bytes() for path in (shelf / ".work").iterdir()}


def test_the_library_is_as_it_was(interrupted, shelf):
    assert Library(shelf).names() == [] and Library(shelf).verify() == []


def test_the_same_call_goes_on_to_the_same_bits(interrupted, learn, shelf, tmp_path):
    learn("one")
    assert len(interrupted) == 4  # two whole steps, one that died, and the third again
    whole = learn("one", library=tmp_path / "whole")
    for file in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "examples.jsonl", "seen.txt"):
        assert (shelf / "one" / file).read_bytes() == (whole.path / file).read_bytes()
    assert states(shelf) == {}


CHANGED = {
    "lr": ({"options": QUICK | {"lr": 0.5}}, r"settings: lr 0\.001, now 0\.5\."),
    "two": ({"options": {"steps": 4, "batch": 5}}, r"settings: steps 3, now 4; batch 4, now 5\."),
    "seed": ({"seed": 1}, r"settings: seed 0, now 1\."),
    "base": ({"base": "tiny-64"}, r"settings: base tiny-32 \(\w{12}\), now tiny-64 \(\w{12}\)\."),
    "task": ({"data": None, "task": "copy"}, r"settings: data rows \(\w{12}\), now copy \(\w{12}\)\."),
    "method": ({"method": "grpo"}, r"settings: method sft, now grpo\."),
}


@pytest.mark.parametrize("what", CHANGED)
def test_another_call_says_what_has_changed_and_does_nothing(interrupted, learn, shelf, what):
    how, words = CHANGED[what]
    before = states(shelf)
    with pytest.raises(BadOption, match=rf"a run of `one` that did not end \(2 steps done\) had other {words}") as said:
        learn("one", **how)
    assert said.value.hint == "give the same settings to go on, choose another name, or begin anew with --fresh"
    assert len(interrupted) == 3 and states(shelf) == before and Library(shelf).names() == []


def test_what_it_goes_on_from_is_a_setting_and_options_of_two_methods_are_not_compared(tmp_path):
    old = {"method": "grpo", "options": {"steps": 5, "kl": 0.0}, "from": "first (0123)"}
    save_file({}, state_of(tmp_path, "one", old)[0], {"settings": json.dumps(old), "log": json.dumps({"loss": [1.0] * 7})})
    with pytest.raises(BadOption, match=r"\(7 steps done\) .* settings: kl 0\.0, now 0\.1; from first \(0123\), now nothing\."):
        state_of(tmp_path, "one", {**old, "options": {"steps": 5, "kl": 0.1}, "from": "nothing"})
    with pytest.raises(BadOption, match=r"settings: method grpo, now sft\."):
        state_of(tmp_path, "one", {**old, "method": "sft", "options": {"steps": 6}})
    assert state_of(tmp_path, "ne", {"method": "sft"})[0].name.startswith("ne."), (
        "a run of another name is none of its business"
    )


def test_fresh_begins_anew_and_clears_the_old_run_away(interrupted, learn, shelf):
    learn("one", seed=1, fresh=True)
    assert len(interrupted) == 6 and states(shelf) == {} and Library(shelf).names() == ["one"]


def test_fresh_with_the_same_settings_begins_anew_too(interrupted, learn):
    learn("one", fresh=True)
    assert len(interrupted) == 6


@pytest.mark.parametrize("name", ["two", "one-more", "not-one"])
def test_another_name_is_another_run(interrupted, learn, shelf, name):
    before = states(shelf)
    learn(name, seed=1)
    learn(name, seed=2, fresh=True, replace=True)
    assert states(shelf) == before, "what another run has done is left alone"
    learn("one")
    assert len(interrupted) == 3 + 3 + 3 + 1


def test_a_state_that_cannot_be_read_does_not_stand_in_the_way(interrupted, learn, shelf):
    (state,) = (shelf / ".work").iterdir()
    state.write_bytes(state.read_bytes()[:100])
    learn("one", seed=1)
    assert len(interrupted) == 6


def test_the_command_line_says_it_in_one_sentence(interrupted, cli, shelf, tmp_path):
    words = ("learn", "one", "--data", tmp_path / "rows.jsonl", "--base", "tiny", "--library", shelf, "--batch", "4")
    said = cli(*words, "--steps", "2")
    assert (said.code, said.out) == (1, "") and "steps 3, now 2." in said.err and "hint: give the same settings" in said.err
    assert cli(*words, "--steps", "2", "--fresh").code == 0


def test_what_a_kill_left_is_cleared_away(tmp_path):
    key = "0" * 32 + ".safetensors"
    (tmp_path / f".{key}-abcd").write_text("half")
    (tmp_path / "other.safetensors").write_text("another run's")
    forget(tmp_path / key)
    assert [path.name for path in tmp_path.iterdir()] == ["other.safetensors"]
