"""A student learns its teacher: its answers, its distributions, also across tokenizers; nothing else is learned by accident."""

import json
import shutil

import pytest
import torch

from skillweave import unfinished, verbs
from skillweave.bank import SkillBank
from skillweave.base import TinyBase
from skillweave.carried import seen_by
from skillweave.composition import Active
from skillweave.errors import BadData, BadOption, NotFound
from skillweave.learn import distill
from skillweave.learn.batches import Batches
from skillweave.learn.distill import Distill
from skillweave.learn.sft import SFT
from skillweave.learn.soft import Guide
from skillweave.library import Library
from skillweave.task import Example

WORDS = ["a", "b", "c", "d", "e", "f", "g", "h"]
TRUE = [Example(f"say {w}\n", w * 3) for w in WORDS]
GIVEN = [Example(f"say {w}\n", "no") for w in WORDS]
"""Other answers than the teacher's."""


@pytest.fixture(scope="module")
def teacher(loud):
    """A skill that has learned to repeat a letter."""
    base = loud()
    skill, _ = SFT(steps=100, batch=8, lr=1e-2).fit(base, TRUE, seed=0)
    use = Active(base, SkillBank(base, {"t": skill}))
    assert use.generate([e.prompt for e in TRUE], 8) == [e.completion for e in TRUE]
    return use


FEW = "\n abcdefghsayno"


@pytest.fixture(scope="module")
def other(loud):
    """A base with other tokens: fewer, and in another order."""
    return loud(alphabet=FEW[::-1])


def answers(base, skill) -> list[str]:
    return Active(base, SkillBank(base, {"s": skill})).generate([e.prompt for e in TRUE], 8)


def test_a_student_learns_the_answers_of_the_teacher_and_not_those_given(teacher, loud):
    method = Distill(teacher="t", steps=100, batch=8, lr=1e-2)
    taught = method.taught(GIVEN, teacher)
    assert taught == TRUE
    student = loud(seed=1)
    skill, log = method.fit(student, taught, 0, teacher=teacher)
    assert answers(student, skill) == [e.completion for e in TRUE] and len(log.loss) == 100


def test_given_answers_stay_and_the_longest_answer_can_be_set(teacher):
    assert Distill(answers="given", soft=1.0).taught(GIVEN, teacher) == GIVEN
    assert {e.completion for e in Distill(tokens=2).taught(GIVEN, teacher)} == {w * 2 for w in WORDS}


def test_logits_alone_make_the_student_as_sure_as_the_teacher(teacher, loud):
    student = loud()
    method = Distill(answers="given", soft=1.0, labels=0.0, steps=100, batch=8, lr=1e-2)
    skill, log = method.fit(student, TRUE, 0, teacher=teacher)
    assert log.loss[0] > 1 and log.loss[-1] < 0.05  # nats of KL; it would not fall if the labels were learned instead
    wrong, log = method.fit(student, GIVEN, 0, teacher=teacher)
    assert log.loss[-1] < log.loss[0]
    assert answers(student, wrong) != ["no"] * len(WORDS)  # what was given says where to look, not what to say


def test_between_tokenizers_the_answers_are_learned(teacher, other):
    method = Distill(teacher="t", soft=1.5, steps=100, batch=8, lr=1e-2)
    skill, _ = method.fit(other, method.taught(GIVEN, teacher), 0, teacher=teacher)
    assert answers(other, skill) == [e.completion for e in TRUE]
    with pytest.raises(BadOption, match="different tokens"):
        Distill(answers="given", soft=1.0, labels=0.0, steps=2).fit(other, TRUE, 0, teacher=teacher)


def test_between_tokenizers_the_student_is_no_surer_than_its_teacher(other):
    unsure = Active(TinyBase(32, alphabet=FEW))  # untrained and quiet: every token about as likely as any other
    batch = Batches(other, TRUE, 8, seed=0).at(0)
    guide = Guide(unsure, other, TRUE, 1.0)
    assert not guide.same and min(map(len, guide.places)) == 4
    apart = {}
    for soft in (0.0, 20.0):
        method = Distill(answers="given", soft=soft or 1e-9, steps=60, batch=8, lr=1e-2)
        skill, _ = method.fit(other, TRUE, 0, teacher=unsure)
        with SkillBank(other, {"s": skill}).on(), torch.no_grad():
            apart[soft] = guide.loss(batch, other.hidden(batch.tokens).flatten(0, 1)[batch.rows]).item()
    assert apart[20.0] < 0.3 < 1 < apart[0.0]


def test_without_soft_it_is_fine_tuning_on_the_answers(teacher, loud):
    student = loud()
    ours, _ = Distill(teacher="t", steps=5).fit(student, TRUE, 3, teacher=teacher)
    theirs, _ = SFT(steps=5).fit(student, TRUE, 3)
    for name, tensor in ours.tensors().items():
        assert torch.equal(tensor, theirs.tensors()[name])


def test_it_goes_on_where_it_was_stopped(stopped, teacher, loud):
    method = Distill(answers="given", soft=1.0, steps=6, batch=4)
    again, _ = stopped(distill, lambda run: method.fit(loud(), TRUE, 0, run, teacher=teacher))
    whole, _ = method.fit(loud(), TRUE, 0, teacher=teacher)
    assert all(torch.equal(tensor, whole.tensors()[name]) for name, tensor in again.tensors().items())


BAD = {
    "answers is `mine`": {"answers": "mine"},
    "nothing comes from the teacher": {"answers": "given"},
    "labels and soft are both 0": {"labels": 0.0},
    "temperature is 0": {"temperature": 0.0},
}


@pytest.mark.parametrize("what", BAD)
def test_options_that_teach_nothing(what):
    with pytest.raises(BadOption, match=what):
        Distill(teacher="t", **BAD[what]).check()


def test_a_silent_teacher_is_refused(teacher, monkeypatch):
    monkeypatch.setattr(Active, "generate", lambda self, prompts, *_: [" "] * len(prompts))
    with pytest.raises(BadData, match="the teacher `t` answers nothing to 8 prompts"):
        Distill(teacher="t").taught(GIVEN, teacher)


# From the library


@pytest.fixture(scope="module")
def made(tmp_path_factory, loud):
    """A folder with a library that has the skill `old`, and `given.jsonl` with the same prompts and other answers."""
    folder = tmp_path_factory.mktemp("made")
    for name, rows in (("true", TRUE), ("given", GIVEN)):
        lines = (json.dumps({"prompt": e.prompt, "completion": e.completion}) + "\n" for e in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    options = {"steps": 100, "batch": 8, "lr": 1e-2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skillweave.base.load_base", lambda name: loud())
        verbs.learn("old", library=folder / "library", data=folder / "true.jsonl", base="tiny", options=options)
    return folder


@pytest.fixture
def shelf(made, tmp_path, monkeypatch, loud):
    """A copy of that library, beside its files."""
    monkeypatch.setenv("SKILLWEAVE_NO_PROGRESS", "1")
    monkeypatch.setattr("skillweave.base.load_base", lambda name: loud(seed=int(name.endswith("-s1"))))
    return shutil.copytree(made, tmp_path / "made") / "library"


def taught(shelf, name="new", base="tiny", data="given", **options):
    quick = {"steps": 3, "batch": 8} | options
    return verbs.learn(name, library=shelf, data=shelf.parent / f"{data}.jsonl", base=base, method="distill", options=quick)


def test_the_teacher_is_the_parent_and_its_answers_are_what_the_skill_carries(shelf):
    taught(shelf, teacher="old", soft=1.0, base="tiny-32-s1")
    library = Library(shelf)
    new, old = library.get("new"), library.get("old")
    assert new.provenance["parents"] == [{"name": "old", "digest": old.digest}]
    assert new.provenance["base"] != old.provenance["base"] and new.provenance["config"]["teacher"] == "old"
    rows = [json.loads(line) for line in (new.path / "examples.jsonl").read_text().splitlines()]
    said = verbs.run("old", [row["prompt"] for row in rows], library=shelf, max_new_tokens=10).answers
    assert [row["completion"].strip() for row in rows] == list(said) != ["no"] * len(rows)
    assert seen_by([old]) <= seen_by([new])
    assert library.verify() == []


def test_a_sum_or_a_model_can_teach(shelf):
    taught(shelf, "two", teacher="old")
    taught(shelf, "sum", teacher="old+two")
    assert [p["name"] for p in Library(shelf).get("sum").provenance["parents"]] == ["old", "two"]
    taught(shelf, "model", teacher="tiny-32-s1", answers="given", soft=1.0)
    assert Library(shelf).get("model").provenance["parents"] == []


def test_another_teacher_is_another_run(shelf, monkeypatch):
    keys = []
    real = unfinished.sha256_json
    monkeypatch.setattr(unfinished, "sha256_json", lambda value: keys.append(real(value)) or keys[-1])
    taught(shelf, "one", teacher="old")
    verbs.learn("old", library=shelf, data=shelf.parent / "true.jsonl", base="tiny", options={"steps": 150, "lr": 1e-2},
                replace=True)  # fmt: skip
    taught(shelf, "one-b", teacher="old")
    before = keys[0]
    keys.clear()
    Library(shelf).remove("one")
    taught(shelf, "one", teacher="old")
    assert keys[0] != before


@pytest.mark.parametrize(
    ("teacher", "kind", "said"),
    [("", BadOption, "no teacher was named"), ("odl", NotFound, "no teacher `odl` in .* Did you mean `old`"),
     ("old+nobody", NotFound, "no teacher `nobody`")],
)  # fmt: skip
def test_a_teacher_that_is_not_there(shelf, teacher, kind, said):
    with pytest.raises(kind, match=said):
        taught(shelf, teacher=teacher)
    assert Library(shelf).names() == ["old"]
