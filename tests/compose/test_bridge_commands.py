"""`skillweave compose --method bridge`: skills of two bases, a bare base on either side, and what is refused."""

import pytest

from skillweave import verbs
from skillweave.compose import bridge
from skillweave.library import Library
from skillweave.skill import Skill

LEARN = ("--steps", "2", "--batch", "2")
BRIDGE = ("--method", "bridge", "--task", "key-sums", "--shots", "8", *LEARN)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("SKILLWEAVE_NO_PROGRESS", "1")
    monkeypatch.setattr(verbs, "CHECKED", 4)
    bridge._augmenting.cache_clear()


@pytest.fixture
def two(cli, tmp_path):
    """A library of a skill of tiny-32 and one of tiny-48."""
    where = ("--library", tmp_path / "library")
    for name, task, base in (("sums", "sums", "tiny"), ("keys", "keys", "tiny-48"), ("words", "copy", "tiny")):
        assert cli("learn", name, "--task", task, "--base", base, *LEARN, *where).code == 0
    return where


def test_skills_of_two_bases_become_one(cli, two, tmp_path):
    said = cli("compose", "sums", "keys", *BRIDGE, "--save", "both", *two)
    assert (said.code, "saved as both" in said.out) == (0, True), said.err
    skill = Library(tmp_path / "library").get("both")
    assert skill.provenance["base"]["name"] == "tiny-32" and skill.kind == "composition"
    assert [parent["name"] for parent in skill.provenance["parents"]] == ["sums", "keys"]
    assert Library(tmp_path / "library").verify() == []
    use = verbs.active(verbs.base_of([skill]), [skill])
    assert use.base.name == "tiny-32 bridged to tiny-48" and use.bank.names == ("sums",)
    assert use.base.augment.names == ("keys",)
    assert cli("run", "both", "ab+cd", *two).code == 0
    said = cli("measure", "both", "sums", "--task", "key-sums", "-n", "5", *two)
    assert said.code == 0 and "both" in said.out
    assert cli("library", "list", *two).out.count("composition") == 1


def test_order_says_which_model_answers(cli, two, tmp_path):
    assert cli("compose", "keys", "sums", *BRIDGE, "--save", "other", *two).code == 0
    assert Library(tmp_path / "library").get("other").provenance["base"]["name"] == "tiny-48"


@pytest.mark.parametrize(
    ("option", "anchor", "augment", "own", "theirs"),
    [
        ("augment=tiny-48", "tiny-32", "tiny-48", ("sums", "words"), ()),
        ("anchor=tiny-48", "tiny-48", "tiny-32", (), ("sums", "words")),
        ("augment=tiny", "tiny-32", "tiny-32", ("sums", "words"), ()),
    ],
)
def test_one_side_may_be_bare(cli, two, tmp_path, option, anchor, augment, own, theirs):
    said = cli("compose", "sums", "words", *BRIDGE, "--set", option, "--save", "both", *two)
    assert said.code == 0, said.err
    skill = Library(tmp_path / "library").get("both")
    use = verbs.active(verbs.base_of([skill]), [skill])
    assert (use.base.anchor.name, use.base.augment.base.name) == (anchor, augment)
    assert (use.bank.names, use.base.augment.names) == (own, theirs)
    assert cli("run", "both", "ab+cd", *two).code == 0


def test_a_bridge_without_skills_of_its_own_is_kept_too(cli, two, tmp_path):
    assert cli("compose", "sums", *BRIDGE, "--set", "augment=tiny-48", "--save", "bare", *two).code == 0
    assert Skill.load(tmp_path / "library" / "bare").kind == "composition"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("sums", *BRIDGE), "a bridge joins two models, and `sums` names one"),
        (("sums", "keys", "words", *BRIDGE), "`keys` was learned on tiny-48 and `words` on tiny-32"),
        (("sums", "keys", *BRIDGE, "--set", "augment=tiny"), "`sums` was learned on tiny-32 and `keys` on tiny-48"),
        (("sums", *BRIDGE, "--set", "augment=tinny"), "`tinny` is neither a folder nor a model"),
        (("sums", "keys", *BRIDGE, "--set", "every=0"), "every is 0"),
        (("sums", "keys", *BRIDGE, "--set", "heads=7"), "7 heads do not divide the width of tiny-32, 32"),
        (("sums", "keys", "--method", "sum", "--task", "key-sums"), "join the two bases: --method bridge"),
    ],
)
def test_what_cannot_be_joined_is_a_sentence(cli, two, tmp_path, words, sentence):
    said = cli("compose", *words, "--save", "both", *two)
    import re

    assert said.code == 1 and re.search(sentence, said.err), said.err
    assert "both" not in Library(tmp_path / "library")


def test_a_bridge_is_no_part_of_another_composition(cli, two):
    assert cli("compose", "sums", "keys", *BRIDGE, "--save", "both", *two).code == 0
    said = cli("measure", "both+sums", "--task", "key-sums", *two)
    assert said.code == 1 and "`both` (bridge) is not a change of weights that could be added" in said.err
    said = cli("compose", "both", "words", "--method", "sum", "--task", "copy", *two)
    assert said.code == 1 and "`both` (bridge) is not a change of weights that could be a part" in said.err


def test_a_second_base_that_changed_is_noticed(cli, two, tmp_path):
    from skillweave.base import TinyBase, save_base

    save_base(TinyBase(48), tmp_path / "model")
    assert cli("compose", "sums", *BRIDGE, "--set", f"augment={tmp_path / 'model'}", "--save", "both", *two).code == 0
    assert cli("run", "both", "ab+cd", *two).code == 0
    bridge._augmenting.cache_clear()
    other = TinyBase(48, seed=1)
    (tmp_path / "model").rename(tmp_path / "old")
    save_base(other, tmp_path / "model")
    said = cli("run", "both", "ab+cd", *two)
    assert said.code == 1 and "the augmenting model of `both`" in said.err
