"""learn, compose, measure and run, as a program calls them, on a base of a few thousand weights."""

import json
from functools import partial

import pytest
import torch

from skillweave import verbs
from skillweave.carried import KEEP, carried_by, carry, seen_by
from skillweave.compose.scales import Scales
from skillweave.errors import BadData, BadName, BadOption, BadSkill, BaseMismatch, LibraryError, NotFound, SkillweaveError
from skillweave.learn import sft
from skillweave.library import Library
from skillweave.skill import write_skill
from skillweave.task import Example

QUICK = {"steps": 3, "batch": 4}
ROWS = [{"prompt": f"in {i}\n", "completion": str(i)[::-1]} for i in range(60)]


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path):
    return write(tmp_path / "rows.jsonl", ROWS)


@pytest.fixture
def shelf(tmp_path):
    return tmp_path / "library"


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("SKILLWEAVE_NO_PROGRESS", "1")


@pytest.fixture
def learn(shelf, data):
    return partial(verbs.learn, library=shelf, data=data, base="tiny", options=QUICK)


@pytest.fixture
def two(learn, tmp_path):
    """A library of two skills, learned from different rows."""
    learn("one")
    learn("two", data=write(tmp_path / "other.jsonl", [{"prompt": f"other {i}\n", "completion": f"{i}"} for i in range(40)]))


def everything(folder):
    return (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()} if folder.exists() else {}
    )


def test_learn_puts_a_skill_into_the_library(learn, shelf, tiny):
    report = learn("one", seed=3, description="turns numbers round")
    skill = Library(shelf).get("one")
    assert Library(shelf).verify() == []
    assert (skill.description, skill.adapter) == ("turns numbers round", shelf / "one" / "adapter")
    about = skill.provenance
    assert about["base"] == {"name": "tiny-32", "digest": tiny.digest}
    assert about["config"] == vars(sft.SFT(steps=3, batch=4))
    assert (about["method"], about["seed"], about["parents"]) == ("sft", 3, [])
    assert about["data"]["rows"] == 12 and about["data"]["split"] == "train" and len(about["data"]["digest"]) == 64
    assert set(about["versions"]) == {"skillweave", "torch", "transformers"}
    (score,) = about["scores"]
    assert (score["task"], score["split"], score["metric"], score["seed"]) == ("rows", "valid", "exact", 3)
    assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1 and score["n"] == report.exact.n > 0
    assert about["cost"]["tokens"] > 0
    assert (report.name, report.path, report.base, report.dtype, report.steps) == ("one", shelf / "one", "tiny-32", "fp32", 3)
    assert report.next == 'skillweave run one "…"' and "one" in str(report.table())
    assert verbs.weights_of(skill).rank == 8
    assert list((shelf / ".work").iterdir()) == []


def test_learned_skills_answer(shelf, data, loud, monkeypatch):
    monkeypatch.setattr("skillweave.base.load_base", lambda name: loud())
    options = {"steps": 200, "batch": 8, "lr": 1e-2}
    rows = [{"prompt": f"say {c}\n", "completion": c * 3} for c in "abcdefgh"]
    verbs.learn("say", library=shelf, data=write(data, rows), options=options)
    known = [json.loads(line) for line in (shelf / "say" / "examples.jsonl").read_text().splitlines()]
    assert len(known) >= 4 and all(row in rows for row in known)
    answers = verbs.run("say", [row["prompt"] for row in known], library=shelf, max_new_tokens=10)
    assert (answers.skill, list(answers.answers)) == ("say", [row["completion"] for row in known])


def test_run_uses_the_template(learn, shelf, monkeypatch):
    learn("one", data=None, task="number", options={"steps": 1, "batch": 1})
    assert Library(shelf).get("one").template == "number: {input}\n"
    asked = []
    monkeypatch.setattr("skillweave.base.TinyBase.generate", lambda self, prompts, n, *rest: asked.extend(prompts) or [" 5 \n"])
    assert verbs.run("one", ["five {input}"], library=shelf).answers == ("5",)
    assert asked == ["number: five {input}\n"]


def test_same_call_same_adapter(learn, tmp_path):
    adapters = [
        learn("one", library=tmp_path / name, seed=seed).path / "adapter" / "adapter_model.safetensors"
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    one, again, other = (path.read_bytes() for path in adapters)
    assert one == again != other


def test_compose_saves_one_skill_that_says_how(two, shelf, data):
    report = verbs.compose(["one", "two"], library=shelf, data=data, save="both", shots=5, seed=2, options=QUICK | {"rank": 2})
    skill = Library(shelf).get("both")
    about = skill.provenance
    assert [parent["name"] for parent in about["parents"]] == ["one", "two"]
    assert about["parents"][0]["digest"] == Library(shelf).get("one").digest
    assert (about["method"], about["seed"], about["config"]["rank"], about["data"]["rows"]) == ("scales+lora", 2, 2, 5)
    assert (report.skills, report.saved, report.shots, report.method) == (("one", "two"), "both", 5, "scales+lora")
    assert set(report.alpha) == {"one", "two"} and report.next == 'skillweave run both "…"'
    assert report.alpha["one"]["low"] <= report.alpha["one"]["mean"] <= report.alpha["one"]["high"]
    assert "saved as both" in report.table().note
    assert verbs.weights_of(skill).rank == 8 + 8 + 2
    alpha = json.loads((skill.path / "composition.json").read_text())["alpha"]
    assert {name: len(layers) for name, layers in alpha.items()} == {"one": 3, "two": 3}
    assert Library(shelf).verify() == []
    assert len(verbs.run("both", ["in 1\n"], library=shelf, max_new_tokens=2).answers) == 1


@pytest.mark.parametrize(
    ("granularity", "shape"), [("global", (2, 3)), ("block", (2, 21)), ("partition:2", (2, 21))], ids=lambda value: str(value)
)
def test_compose_with_strengths_of_any_grain(two, shelf, data, granularity, shape):
    how = {"method": "scales", "options": {"steps": 2, "batch": 2, "lr": 0.1, "valid": 0.25, "granularity": granularity}}
    report = verbs.compose(["one", "two"], library=shelf, data=data, save="both", **how)
    skill = Library(shelf).get("both")
    about = json.loads((skill.path / "composition.json").read_text())
    assert list(about["alpha"]) == list(report.alpha) == ["one", "two"] and len(about["alpha"]["one"]) == shape[1]
    assert about.get("parts") == (2 if granularity == "partition:2" else None)
    assert verbs.weights_of(skill).rank == 8 + 8
    assert len(verbs.run("both", ["in 1\n"], library=shelf, max_new_tokens=2).answers) == 1


def test_compose_unlearns_what_it_is_told_to(two, shelf, data):
    how = {"method": "scales", "options": {"steps": 2, "batch": 2, "objective": "negate", "forget": "one"}}
    assert verbs.compose(["one", "two"], library=shelf, data=data, save="less", **how).saved == "less"
    with pytest.raises(BadOption, match="forget is `three`"):
        verbs.compose(["one", "two"], library=shelf, data=data, method="scales", options=how["options"] | {"forget": "three"})


def test_compose_without_a_name_changes_no_skill(two, shelf, data):
    before = everything(shelf / "one")
    report = verbs.compose(["one", "two"], library=shelf, data=data, method="sum")
    assert report.saved is None and report.next == "" and "not saved" in report.table().note
    assert report.alpha["two"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert Library(shelf).names() == ["one", "two"] and everything(shelf / "one") == before


def test_a_merge_composes_too(two, shelf, data):
    options = {"weights": [1.0, 0.5], "density": 0.5}
    report = verbs.compose(["one", "two"], library=shelf, data=data, method="ties", save="both", options=options)
    assert report.alpha == {
        "one": dict.fromkeys(("mean", "low", "high"), 1.0),
        "two": dict.fromkeys(("mean", "low", "high"), 0.5),
    }
    made = Library(shelf).get("both").provenance
    assert [parent["name"] for parent in made["parents"]] == ["one", "two"] and made["config"]["density"] == 0.5
    assert len(verbs.run("both", ["in 1\n"], library=shelf, max_new_tokens=2).answers) == 1


def test_compose_knows_what_the_skills_carry(two, shelf, data, monkeypatch):
    seen = []
    monkeypatch.setattr(Scales, "drawn", lambda self, few, carried, seed: seen.append((few, carried)) or list(few))
    verbs.compose(["one", "two"], library=shelf, data=data, shots=5, options=QUICK)
    ((few, carried),) = seen
    assert len(few) == 5 and {name: len(kept) for name, kept in carried.items()} == {"one": 12, "two": 12}
    assert {example.prompt.split()[0] for example in carried["two"]} == {"other"}


def test_a_composition_has_seen_what_its_skills_have_seen(two, shelf, tmp_path, data):
    third = write(tmp_path / "third.jsonl", [{"prompt": f"third {i}\n", "completion": "x"} for i in range(30)])
    verbs.compose(["one", "two"], library=shelf, data=third, save="both", shots=5, options=QUICK)
    skills = [Library(shelf).get(name) for name in ("one", "two", "both")]
    one, two, both = (seen_by([skill]) for skill in skills)
    assert one | two < both and len(both) == len(one | two) + 5


def test_measure_compares_on_the_same_examples(two, shelf, data, capsys):
    report = verbs.measure(["base", "one", "one+two"], library=shelf, data=data, split="all", n=60)
    assert (report.task, report.split, report.exit_code) == ("rows", "all", 0)
    assert [row["name"] for row in report.rows] == ["base", "one", "one+two"]
    assert {row["exact"].n for row in report.rows} == {48}
    assert "left out 12 of 60 examples: a skill has learned from them" in capsys.readouterr().err
    assert report.rows[0]["difference"] is None and report.rows[1]["difference"].n == 48
    assert 0 <= report.rows[1]["p"] <= 1
    assert "against base" in report.table().columns


def test_measure_counts_right_answers(two, shelf, data, monkeypatch):
    def generate(self, prompts, *rest):
        asked.append(prompts)
        return [prompt.split()[1][::-1] if len(asked) == 2 or "1" in prompt else "no" for prompt in prompts]

    asked = []
    monkeypatch.setattr("skillweave.base.TinyBase.generate", generate)
    report = verbs.measure(["one", "two"], library=shelf, data=data, split="all", n=60, at_least=0.9)
    assert asked[0] == asked[1] and len(asked) == 2
    share = sum("1" in prompt for prompt in asked[0]) / len(asked[0])
    assert [row["exact"].value for row in report.rows] == [pytest.approx(share), 1.0]
    assert report.rows[1]["difference"].value == pytest.approx(1 - share) and report.rows[1]["p"] < 0.001
    assert report.exit_code == 4
    assert verbs.Measured(report.task, report.split, report.rows[1:], 1.0).exit_code == 0


def test_a_verifier_judges_answers_to_data(two, shelf, data, tmp_path, monkeypatch, capsys):
    judge = tmp_path / "judge.py"
    judge.write_text("def verify(prompt, completion, truth):\n    return 1 / (completion != 'bad') - 0.5 * (truth == '1')\n")
    monkeypatch.setattr(
        "skillweave.base.TinyBase.generate", lambda self, prompts, *rest: ["bad", *["any"] * (len(prompts) - 1)]
    )
    report = verbs.measure(["base"], library=shelf, data=data, verifier=f"{judge}:verify", n=60, base="tiny")
    assert report.rows[0]["exact"].value == pytest.approx((60 - 1 - 0.5) / 60)
    assert "1 raised an error (ZeroDivisionError: division by zero)" in capsys.readouterr().err
    with pytest.raises(BadOption, match="the task `date` has a verifier of its own"):
        verbs.measure(["base"], library=shelf, task="date", verifier=f"{judge}:verify")
    learned = verbs.learn("judged", library=shelf, data=data, base="tiny", options=QUICK, verifier=f"{judge}:verify")
    assert learned.exact.value >= 0.5 and "which score 0: 1 raised an error" in capsys.readouterr().err


def test_measure_shows_examples_first(learn, shelf, data, monkeypatch):
    learn("one")
    prefixes = []
    monkeypatch.setattr(
        "skillweave.base.TinyBase.generate", lambda self, p, n, prefix, b: prefixes.append(prefix) or ["x"] * len(p)
    )
    verbs.measure(["one"], library=shelf, data=data, shots=2, split="all")
    verbs.measure(["one"], library=shelf, data=data, split="all")
    assert prefixes[0].count("\n\n") == 2 and prefixes[0].startswith("in ") and prefixes[1] == ""


def test_nothing_is_measured_on_what_was_learned(learn, shelf, data):
    learn("one", options={"steps": 20, "batch": 4})
    with pytest.raises(BadData, match=r"all \d+ examples were training data of one"):
        verbs.measure(["one"], library=shelf, data=data, split="train")


def test_carried_examples_survive_any_text(tmp_path):
    odd = [Example("a\u2028b \x85 c\x1dd\n", 'é "quoted"\\'), Example("e", "f\nnext")]
    skill = made(tmp_path / "odd", odd)
    assert carried_by([skill]) == {"odd": odd}
    assert len(seen_by([skill])) == 2


def made(folder, examples):
    folder.mkdir()
    carry(folder, examples)
    write_skill(folder, name=folder.name, description="d", body="b", metadata={}, provenance={})
    return verbs.Skill.load(folder)


def test_a_skill_carries_a_few_examples_and_knows_all(tmp_path):
    many = [Example(f"{i}\n", "x") for i in range(KEEP + 50)]
    skill = made(tmp_path / "many", many + many[:10])
    assert carried_by([skill]) == {"many": many[:KEEP]} and len(seen_by([skill])) == KEEP + 50
    assert "\n17\n" not in (skill.path / "seen.txt").read_text()


@pytest.mark.parametrize("line", ["{", "[1]", '{"prompt": "a"}', "5"])
def test_carried_examples_that_are_spoiled_are_refused(tmp_path, line):
    skill = made(tmp_path / "odd", [Example("a", "b")])
    (skill.path / "examples.jsonl").write_text(line)
    with pytest.raises(BadSkill, match="examples.jsonl of `odd` is not lines of prompt and completion"):
        carried_by([skill])


LEARN = {
    "unknown task": ({"task": "dat", "data": None}, NotFound, "no task `dat`.*Did you mean `date`"),
    "both sources": ({"task": "date"}, BadOption, "give either a task or a data file"),
    "no source": ({"data": None}, BadOption, "give either a task or a data file"),
    "unknown base": ({"base": "tiny-33x"}, SkillweaveError, "no base `tiny-33x`"),
    "unknown method": ({"method": "stf"}, NotFound, "no method `stf`.*Did you mean `sft`"),
    "unknown option": ({"options": {"setps": 3}}, NotFound, "no option of sft `setps`.*Did you mean `steps`"),
    "a word for a number": ({"options": {"lr": "fast"}}, BadOption, "lr is 'fast', but has to be a number.*its default is 0"),
    "part of a step": ({"options": {"steps": 1.5}}, BadOption, "steps is 1.5, but has to be a whole number"),
    "truth for a number": ({"options": {"steps": True}}, BadOption, "steps is True, but has to be a whole number"),
    "not a number": ({"options": {"lr": float("nan")}}, BadOption, "lr is nan, but has to be a number"),
    "a number for truth": ({"options": {"precondition": 1}}, BadOption, "precondition is 1, but has to be true or false"),
    "endless": ({"options": {"steps": float("inf")}}, BadOption, "steps is inf, but has to be a whole number"),
    "no steps": ({"options": {"steps": 0}}, BadOption, "steps is 0, which is too small"),
    "no rank": ({"options": {"rank": 0}}, BadOption, "rank is 0, which is too small"),
    "a rate below zero": ({"options": {"lr": -0.1}}, BadOption, "lr is -0.1, which is too small"),
    "a path for a name": ({"name": "../one"}, BadName, "'../one' cannot be the name of a skill"),
}


@pytest.mark.parametrize("what", LEARN)
def test_bad_input_to_learn_changes_nothing(shelf, data, what):
    changes, kind, words = LEARN[what]
    arguments = {"name": "one", "library": shelf, "data": data, "base": "tiny", "options": QUICK} | changes
    with pytest.raises(kind, match=words) as caught:
        verbs.learn(arguments.pop("name"), **arguments)
    assert caught.value.exit_code == 1
    assert {path.name for path in everything(shelf)} <= {"skillweave.json"}
    assert what == "unknown base" or not shelf.exists()


ROWS_THAT_CANNOT_BE = {
    "an empty file": ([], "has no rows"),
    "a long example": ([{"prompt": "x" * 300, "completion": "y"}] * 30, "303 tokens is longer than the window of tiny-32"),
    "no completion": ([{"prompt": "x", "answer": "y"}], "line 1 has no column `completion`; found: `prompt`, `answer`"),
}


@pytest.mark.parametrize("what", ROWS_THAT_CANNOT_BE)
def test_bad_data_is_said_in_a_sentence(learn, shelf, tmp_path, what):
    rows, words = ROWS_THAT_CANNOT_BE[what]
    with pytest.raises(BadData, match=words):
        learn("one", data=write(tmp_path / "bad.jsonl", rows))
    assert not shelf.exists() or Library(shelf).names() == []


def test_a_name_that_is_taken(learn, shelf):
    learn("one")
    before = everything(shelf / "one")
    with pytest.raises(LibraryError, match="`one` is already in .*choose another name, or --replace it"):
        learn("one", seed=1)
    assert everything(shelf / "one") == before
    learn("one", seed=1, replace=True)
    assert Library(shelf).get("one").provenance["seed"] == 1


def test_bad_input_to_the_others(two, shelf, data, tmp_path):
    learned = everything(shelf)
    compose, measure = partial(verbs.compose, library=shelf, data=data), partial(verbs.measure, library=shelf, data=data)
    run = partial(verbs.run, library=shelf)
    cases = [
        (lambda: compose(["one", "tow"]), NotFound, "no skill `tow`.*Did you mean `two`"),
        (lambda: compose(["one", "one"]), BadOption, "a skill is named twice"),
        (lambda: compose([]), BadOption, "no skill was named"),
        (lambda: compose(["one", "two"], shots=0), BadOption, "shots is 0"),
        (lambda: compose(["one", "two"], shots=900), BadData, "were asked for"),
        (lambda: compose(["one", "two"], save="one"), LibraryError, "`one` is already in"),
        (lambda: compose(["one", "two"], save="One"), BadName, "`one` would work"),
        (lambda: compose(["one", "two"], method="scale"), NotFound, "Did you mean `scales`"),
        (lambda: compose(["one", "two"], options={"replay": 1.0}), BadOption, "replay is 1.0"),
        (lambda: compose(["one", "two"], method="sum", options={"steps": 3}), NotFound, "no option of sum `steps`"),
        (lambda: measure(["on"]), NotFound, "no skill `on`.*Did you mean `one`"),
        (lambda: measure(["one+tow"]), NotFound, "no skill `tow`"),
        (lambda: measure([]), BadOption, "no skill was named"),
        (lambda: measure(["one"], n=0), BadOption, "n is 0"),
        (lambda: measure(["one"], split="tset"), NotFound, "no split `tset`.*Did you mean `test`"),
        (lambda: measure(["one"], base="tiny-64"), BaseMismatch, "`one` was learned on tiny-32 .*this is tiny-64"),
        (lambda: measure(["one"], library=tmp_path / "none"), LibraryError, "there is no library at"),
        (lambda: run("oen", ["x"]), NotFound, "Did you mean `one`"),
        (lambda: run("one", ["x" * 400]), BadData, "the window of tiny-32 is 256"),
        (lambda: run("one", ["x"], max_new_tokens=0), BadOption, "max-new-tokens is 0"),
    ]
    for call, kind, words in cases:
        with pytest.raises(kind, match=words):
            call()
    assert {k: v for k, v in everything(shelf).items() if ".work" not in k.parts} == learned


def test_skills_of_different_bases_do_not_work_together(learn, shelf, data):
    learn("one")
    learn("wide", base="tiny-48")
    with pytest.raises(BaseMismatch, match="`one` was learned on tiny-32 and `wide` on tiny-48"):
        verbs.compose(["one", "wide"], library=shelf, data=data)
    with pytest.raises(BaseMismatch, match="`one` was learned on tiny-32 and `wide` on tiny-48"):
        verbs.measure(["one+wide"], library=shelf, data=data)


def test_a_skill_of_words_has_nothing_to_run(shelf, tmp_path):
    (tmp_path / "words").mkdir()
    write_skill(tmp_path / "words", name="words", description="d", body="b", metadata={}, provenance={})
    Library(shelf, create=True).add(tmp_path / "words")
    with pytest.raises(BadOption, match="`words` is a skill of words: it has no adapter"):
        verbs.run("words", ["x"], library=shelf)


def test_a_corrupt_adapter_is_refused(learn, shelf):
    file = learn("one").path / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(BadSkill, match="the adapter of `one` is corrupt"):
        verbs.run("one", ["x"], library=shelf)


def test_a_task_may_be_measured_by_parts(learn, shelf):
    learn("one", data=None, task="invoice", options={"steps": 1, "batch": 1})
    row = verbs.measure(["one"], library=shelf, task="invoice", n=3).rows[0]
    assert set(row["fields"]) == {"country", "date", "amount"}
    assert row["exact"].n == 3


@pytest.mark.slow
def test_gemma_learns_and_answers(shelf, data):
    verbs.learn("one", library=shelf, data=data, options={"steps": 2, "batch": 2, "rank": 2})
    assert torch.isfinite(next(iter(verbs.weights_of(Library(shelf).get("one")).factors.values())).a).all()
    assert len(verbs.run("one", ["in 12\n"], library=shelf, max_new_tokens=4).answers) == 1
