"""TRL as the engine: what is said without it, how its processes are answered, and, where it is installed, the same skill."""

import json
import subprocess
import sys

import pytest
import torch

from skillweave.delta import LowRank
from skillweave.errors import BadOption, MissingExtra, SkillweaveError
from skillweave.learn import trl_engine
from skillweave.learn.grpo import GRPO
from skillweave.learn.rollout import Prompts
from skillweave.learn.sft import SFT
from skillweave.learn.trl_engine import Job, practice, prepare, scorer
from skillweave.library import Library

CHILD = """
import json, socket, sys
line = socket.socket(socket.AF_UNIX)
line.connect(sys.argv[1] + "/line")
line = line.makefile("rw")
def call(what):
    line.write(json.dumps(what) + "\\n")
    line.flush()
    return json.loads(line.readline())
scores = call({"places": [0, 1], "texts": ["b", "x"]})
call({"row": {"loss": 0.5, "scores": scores}})
call({"row": {"loss": 0.25}})
print("SomeError: the end", file=sys.stderr)
sys.exit(int(sys.argv[2]))
"""


@pytest.fixture
def absent(monkeypatch):
    monkeypatch.setattr(trl_engine, "find_spec", lambda name: None)


def test_without_trl_one_sentence_names_the_extra(absent, cli, tmp_path):
    said = cli("learn", "new", "--task", "sort", "--base", "tiny", "--engine", "trl", "--library", tmp_path / "library")
    assert said.code == 1 and said.out == "" and "Traceback" not in said.err
    assert "the engine trl needs a package that is not installed.\nhint: pip install 'skillweave[trl]'" in said.err
    assert Library(tmp_path / "library").names() == []


@pytest.mark.parametrize("method", [SFT(steps=1, engine="trl"), GRPO(steps=1, engine="trl")])
def test_both_methods_ask_for_it(absent, picker, pick, method):
    more = {"task": pick} if isinstance(method, GRPO) else {}
    with pytest.raises(MissingExtra):
        method.fit(picker, pick.take(3, "train"), 0, **more)


def test_other_engines_are_refused(picker, pick):
    with pytest.raises(BadOption, match="engine is `vllm`, but can only be own or trl"):
        SFT(steps=1, engine="vllm").fit(picker, pick.take(3, "train"), 0)


def test_a_method_without_engines_says_so(cli, tmp_path):
    said = cli("learn", "new", "--task", "sort", "--method", "full", "--engine", "trl", "--library", tmp_path / "library")
    assert said.code == 1 and "no option of full `engine`" in said.err


@pytest.fixture
def present(monkeypatch):
    monkeypatch.setattr(trl_engine, "find_spec", lambda name: name)


def test_what_trl_cannot_is_refused(present, picker, pick):
    examples = pick.take(3, "train")
    with pytest.raises(BadOption, match="does not precondition"):
        SFT(steps=1, engine="trl", precondition=True).fit(picker, examples, 0)
    with pytest.raises(BadOption, match="practises prompts by the score of their task only"):
        GRPO(steps=1, engine="trl").fit(picker, examples, 0, task=pick, prompts=Prompts(examples, 0))


def test_texts_that_the_gpus_cannot_share_are_refused(present, picker, pick, monkeypatch):
    monkeypatch.setattr(trl_engine, "processes", lambda: 3)
    with pytest.raises(BadOption, match="8 texts a step cannot be shared by 3 GPUs"):
        SFT(steps=1, batch=8, engine="trl").fit(picker, pick.take(3, "train"), 0)


def test_prompts_come_in_the_order_of_ours(picker, pick):
    examples = pick.take(24, "train")
    method, prompts = GRPO(steps=5, batch=2, updates=2), Prompts(examples, 7)
    job = practice(method, picker, examples, 7)
    assert list(job.asked) == [prompts.at(place) for place in range(3 * 2)] and job.rows == 16
    assert scorer(job, pick)([0, 1], ["b", "x"]) == [1.0, 0.0]


@pytest.mark.parametrize("code", [0, 3])
def test_processes_are_answered_and_heard(monkeypatch, tmp_path, pick, code):
    started = subprocess.Popen
    words = [sys.executable, "-c", CHILD, str(tmp_path), str(code)]
    monkeypatch.setattr(trl_engine.subprocess, "Popen", lambda command, **options: started(words, **options))
    rows = trl_engine._launch(tmp_path, 1, scorer(Job(None, 0, 0, asked=tuple(pick.take(2, "train"))), pick))
    assert next(rows) == {"loss": 0.5, "scores": [1.0, 0.0]} and next(rows) == {"loss": 0.25}
    if code:
        with pytest.raises(SkillweaveError, match="TRL ended with code 3: SomeError: the end"):
            next(rows)
    else:
        assert list(rows) == []


def test_a_verifier_that_fails_scores_nothing_and_trl_hears_a_number(picker, pick):
    class Broken(type(pick)):
        def score(self, example, completion):
            raise ValueError("no")

    job = practice(GRPO(steps=1, batch=2), picker, pick.take(2, "train"), 0)
    assert json.dumps(scorer(job, Broken())([0], ["b"])) == "[0.0]"


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # PEFT's own
def test_the_head_gets_positions_that_lie_together(picker, pick, tmp_path):
    """Else frozen weights are copied once a row, where `generate` asks for the last position only."""
    pytest.importorskip("peft")
    job, seen = practice(GRPO(steps=1, batch=2), picker, pick.take(2, "train"), 0), []
    prepare(tmp_path, job, picker, LowRank.fresh(picker, 2, 1.0, 0))
    model, _ = trl_engine._learner(tmp_path, job)
    model.get_output_embeddings().register_forward_hook(lambda head, inputs, out: seen.append(inputs[0].is_contiguous()))
    with torch.no_grad():
        model(input_ids=torch.ones(3, 5, dtype=torch.long), logits_to_keep=1)
    assert seen == [True] and not model.get_output_embeddings().weight.requires_grad


@pytest.mark.parametrize("count", [1, 2])
def test_sft_learns_what_ours_learns(picker, pick, monkeypatch, count):
    pytest.importorskip("trl")
    monkeypatch.setattr(trl_engine, "processes", lambda: count)
    examples, method = pick.take(24, "train"), SFT(steps=3, batch=4)
    skill, log = method.fit(picker, examples, 0)
    other, told = SFT(steps=3, batch=4, engine="trl").fit(picker, examples, 0)
    assert told.loss == pytest.approx(log.loss, rel=1e-5)
    ours, theirs = skill.tensors(), other.tensors()
    assert ours.keys() == theirs.keys() and len(ours) == 2 * len(picker.linears)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)


def test_grpo_makes_a_skill_for_the_library(cli, tmp_path, monkeypatch):
    pytest.importorskip("trl")
    monkeypatch.setenv("SKILLWEAVE_NO_PROGRESS", "1")
    rows, shelf = tmp_path / "rows.jsonl", tmp_path / "library"
    rows.write_text("".join(json.dumps({"prompt": f"in {i}\n", "completion": "1"}) + "\n" for i in range(40)))
    where = ("--data", rows, "--library", shelf)
    assert cli("learn", "first", *where, "--base", "tiny", "--steps", "3", "--rank", "4").code == 0
    quick = ("--set=tokens=1", "--set=group=64", "--steps", "2", "--batch", "4")
    said = cli("learn", "second", *where, "--from", "first", "--method", "grpo", "--engine", "trl", *quick)
    assert said.code == 0, said.err
    made = Library(shelf).get("second")
    assert made.provenance["config"]["engine"] == "trl" and made.provenance["cost"]["samples"] == 2 * 4 * 64
    assert json.loads((made.path / "adapter" / "adapter_config.json").read_text())["r"] == 4
    told = [json.loads(line) for line in (shelf / ".work" / "second.jsonl").read_text().splitlines()]
    assert [row["step"] for row in told] == [1, 2] and all(0 <= row["reward"] <= 1 for row in told)
    assert cli("library", "verify", "--library", shelf).code == 0
