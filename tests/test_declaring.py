"""Tasks that learn together by a recipe: what is saved, what stays, and what a mistake in a recipe is told."""

import json
from functools import partial

import pytest
import torch

from skillweave import declaring, verbs
from skillweave.declarations import read
from skillweave.errors import BadData, BadName, BadOption, LibraryError, NotFound
from skillweave.library import Library
from skillweave.peft_format import load_adapter

RECIPE = """
base = "tiny"
new = ["general", "own"]
steps = 3
batch = 4
rank = 2

[tasks]
reverse = ["general", "own"]
upper = ["general"]
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("SKILLWEAVE_NO_PROGRESS", "1")
    monkeypatch.setattr(declaring, "check", partial(verbs.check, n=5))


@pytest.fixture
def shelf(tmp_path):
    return tmp_path / "library"


@pytest.fixture
def write(tmp_path):
    def recipe(text, name="recipe.toml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return recipe


@pytest.fixture
def declare(write, shelf):
    return lambda text=RECIPE, **how: declaring.declare(write(text), library=shelf, **how)


def weights(shelf, name):
    return load_adapter(shelf / name / "adapter", name)


def test_each_task_and_each_skill_is_saved(declare, shelf):
    report = declare(save="house", seed=1)
    assert [(r["task"], r["skills"], r["saved"]) for r in report.rows] == [
        ("reverse", ("general", "own"), "house-reverse"), ("upper", ("general",), "house-upper"),
    ]  # fmt: skip
    assert [r["share"] for r in report.rows] == [0.5, 0.5] and all(r["exact"].n == 5 for r in report.rows)
    assert report.experts == ("house-expert-general", "house-expert-own")
    found = Library(shelf)
    assert sorted(found.names()) == sorted([*report.experts, "house-reverse", "house-upper"]) and found.verify() == []
    parents = [p["name"] for p in found.get("house-reverse").provenance["parents"]]
    assert parents == list(report.experts) and not list((shelf / ".work").iterdir())


def test_what_is_saved_for_a_task_is_the_mean_of_its_skills(declare, shelf):
    declare(save="house")
    one, own, both = (weights(shelf, f"house-{name}") for name in ("expert-general", "expert-own", "reverse"))
    for slot, f in both.factors.items():
        mean = (one.factors[slot].dense() + own.factors[slot].dense()) / 2
        assert torch.allclose(f.dense(), mean, atol=1e-6) and bool(mean.any())
    alone = weights(shelf, "house-upper")
    assert all(torch.equal(alone.factors[slot].dense(), f.dense()) for slot, f in one.factors.items())


def test_a_new_task_declares_skills_of_a_recipe(declare, shelf):
    declare(save="house")
    parts = ["house-expert-general", "house-expert-own"]
    report = verbs.compose(parts, library=shelf, task="chain", method="declared", save="both", options={"steps": 2, "batch": 4})
    assert {name: a["mean"] for name, a in report.alpha.items()} == dict.fromkeys(parts, 0.5)
    plain = verbs.compose(parts, library=shelf, task="chain", method="declared", save="mean")
    assert plain.alpha == report.alpha and verbs.run("both", ["abc"], library=shelf).skill == "both"
    slot = next(iter(weights(shelf, "both").factors))
    assert not torch.equal(*(weights(shelf, name).factors[slot].dense() for name in ("both", "mean")))


def test_skills_of_the_library_learn_on_as_copies(declare, shelf, tmp_path):
    rows = tmp_path / "my notes.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"in {i}\n", "completion": str(i)}) + "\n" for i in range(40)))
    verbs.learn("old", library=shelf, data=rows, base="tiny", options={"steps": 2, "batch": 4})
    before = {p: p.read_bytes() for p in (shelf / "old").rglob("*") if p.is_file()}
    text = f'new = ["own"]\nsteps = 4\n[tasks]\n"{rows}" = ["old", "own"]\nreverse = ["old"]\n'
    report = declare(text, save="house", shots=10, options={"batch": 2, "temperature": 2.0})
    assert [r["saved"] for r in report.rows] == ["house-my-notes", "house-reverse"]
    assert [r["examples"] for r in report.rows] == [10, 10]
    assert before == {p: p.read_bytes() for p in (shelf / "old").rglob("*") if p.is_file()}
    became = Library(shelf).get("house-expert-old")
    assert [p["name"] for p in became.provenance["parents"]] == ["old"]
    slot = next(iter(weights(shelf, "old").factors))
    assert not torch.equal(*(weights(shelf, n).factors[slot].dense() for n in ("old", "house-expert-old")))
    assert {"reverse", "my notes"} <= set(became.provenance["data"]["name"].split("+"))


def test_nothing_is_saved_without_a_name(declare, shelf):
    report = declare()
    assert (report.experts, [r["saved"] for r in report.rows], report.next) == ((), [None, None], "")
    assert Library(shelf).names() == [] and "not saved" in report.table().note


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("[tasks", BadData, "is not TOML"),
        ("steps = 3", BadData, "declares no task"),
        ("tasks = 3", BadData, "declares no task"),
        ('[tasks]\nreverse = "general"', BadData, "has 'general' for the task `reverse`"),
        ('new = [3]\n[tasks]\nreverse = ["general"]', BadData, r"has \[3\] for new"),
        ('base = 3\n[tasks]\nreverse = ["general"]', BadData, "has 3 for base"),
        (RECIPE.replace("steps = 3", "steps = 0"), BadOption, "no steps were given"),
        (RECIPE.replace("steps = 3", ""), BadOption, "no steps were given"),
        (RECIPE.replace("rank = 2", "rank = 0"), BadOption, "rank is 0"),
        (RECIPE.replace("steps = 3", "step = 3"), NotFound, "no option of declared `step`. Did you mean `steps`"),
        (RECIPE.replace("steps = 3", "steps = 3\ntemperature = 0"), BadOption, "temperature is 0"),
        (RECIPE.replace('upper = ["general"]', "upper = []"), BadOption, "`upper` declares no skill"),
        (RECIPE.replace('upper = ["general"]', 'upper = ["own", "own"]'), BadOption, "`upper` declares a skill twice"),
        (RECIPE.replace('"own"]\nsteps', '"own", "idle"]\nsteps'), BadOption, "no task declares `idle`"),
        (RECIPE.replace("upper =", "uper ="), NotFound, "no task `uper`. Did you mean `upper`"),
        (RECIPE.replace("upper =", '"rows.jsonl" ='), BadData, "there is no file rows.jsonl"),
        (RECIPE.replace("general", "General"), BadName, "'house-expert-General' cannot be the name"),
    ],
)  # fmt: skip
def test_a_bad_recipe_gets_a_sentence_and_leaves_nothing(declare, shelf, text, error, words):
    with pytest.raises(error, match=words):
        declare(text, save="house")
    assert not shelf.exists() or Library(shelf).names() == []


def test_other_mistakes_get_a_sentence(declare, shelf, tmp_path):
    with pytest.raises(BadData, match="cannot be read: No such file"):
        read(tmp_path / "none.toml")
    with pytest.raises(BadName, match="'House' cannot be the name"):
        declare(save="House")
    with pytest.raises(BadOption, match="shots is 0"):
        declare(shots=0)
    declare(save="house")
    with pytest.raises(LibraryError, match="`house-reverse` is already in"):
        declare(save="house")
    declare(save="house", replace=True)
    with pytest.raises(NotFound, match="no skill `genera` in .*Did you mean `general`.*new = "):
        declare(RECIPE.replace('upper = ["general"]', 'upper = ["genera"]'))
    with pytest.raises(BadOption, match="`house-upper` is said to be new, but it is in"):
        declare(RECIPE.replace("own", "house-upper"))
    twice = RECIPE.replace("own", "expert-x").replace("upper =", '"expert-general.csv" =')
    with pytest.raises(BadOption, match="two parts of the recipe would be saved as `house-expert-general`"):
        declare(twice, save="house")


def test_the_command_line_takes_a_recipe(cli, write, shelf):
    recipe = write(RECIPE)
    said = cli("compose", "--recipe", recipe, "--save", "house", "--steps", "2", "--library", shelf, "--json")
    found = json.loads(said.out)
    assert said.code == 0 and [row["saved"] for row in found["rows"]] == ["house-reverse", "house-upper"]
    for words, error in [
        (["compose", "x", "--recipe", recipe], "and skills were given"),
        (["compose", "--recipe", recipe, "--task", "copy"], "and --task were given"),
        (["compose", "--recipe", recipe, "--data", "x.csv"], "and --data were given"),
        (["compose", "--recipe", recipe, "--method", "ties"], "--method ties takes no recipe"),
        (["compose", "--task", "copy"], "no skill was named"),
    ]:
        said = cli(*words, "--library", shelf)
        assert (said.code, said.out) == (1, "") and error in said.err
