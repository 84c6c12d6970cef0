"""Bridges that learn: only they change, they carry over what the other model knows, and a saved one is the same again."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from skillweave.base import TinyBase
from skillweave.compose import bridge
from skillweave.compose.bridge import Bridge, Bridged
from skillweave.delta_format import DELTA
from skillweave.errors import BadOption, BadSkill, BaseMismatch
from skillweave.task import Example

EXAMPLES = [Example(f"{c}{c}\n", c.upper() * 3) for c in "abcdefgh"]
QUICK = Bridge(steps=6, batch=4, every=2)


@pytest.fixture(scope="module")
def pair(loud):
    return loud(64), loud(32, seed=3)


@pytest.fixture(scope="module")
def skills(pair, random_skill):
    """One of the anchor, one of the augmenting model."""
    return {"mine": random_skill(pair[0], 1), "other": random_skill(pair[1], 2)}


def fit(pair, skills, how=QUICK, **options):
    anchor, augment = pair
    return how.fit(anchor, skills, EXAMPLES, 0, augment=augment, **options)


def state(base):
    return {name: weight.clone() for name, weight in base.model.state_dict().items()}


def test_only_the_bridges_learn(pair, skills):
    before = [state(base) for base in pair]
    made, log = fit(pair, skills, Bridge(steps=60, batch=8, every=1, lr=3e-3))
    assert log.loss[-1] < log.loss[0] / 4 and len(log.loss) == 60
    assert len(made.tensors()) == 4 * 5 and not any(tensor.requires_grad for tensor in made.tensors().values())
    for base, old in zip(pair, before, strict=True):
        assert all(torch.equal(weight, old[name]) for name, weight in base.model.state_dict().items())
        assert not any(weight.requires_grad for weight in base.model.parameters())
    assert (made.own, made.theirs, made.skills) == (("mine",), ("other",), ("mine", "other"))
    assert made.strengths.shape[0] == 2
    said = made.use(pair[0], skills).generate([e.prompt for e in EXAMPLES], 8)
    assert said == [e.completion for e in EXAMPLES]


def test_the_anchor_reads_what_only_the_other_model_knows(pair):
    """The answer is the last letter, which the anchor cannot see: its embeddings of the letters are one and the same."""
    anchor, augment = TinyBase(32, alphabet="abcdefgh=?"), TinyBase(32, seed=3, alphabet="abcdefgh=?")
    anchor.model.get_input_embeddings().weight.data.mul_(30)
    augment.model.get_input_embeddings().weight.data.mul_(30)
    anchor.model.set_output_embeddings(torch.nn.Linear(32, 14, bias=False).requires_grad_(False))
    anchor.head_layer = anchor.model.get_output_embeddings()
    anchor.head_layer.weight.data.copy_(anchor.table)
    anchor.model.get_input_embeddings().weight = torch.nn.Parameter(anchor.table.clone(), requires_grad=False)
    anchor.table_layer.weight.data[4:12] = anchor.table_layer.weight.data[4]
    examples = [Example(f"{a}{b}=", b) for a in "abcdefgh" for b in "abcdefgh"]
    made, log = Bridge(steps=120, batch=16, every=1, lr=1e-2).fit(
        anchor, {"x": _none(), "y": _none()}, examples, 0, augment=augment
    )
    said = made.use(anchor, {"x": _none(), "y": _none()}).generate([e.prompt for e in examples], 2)
    assert sum(s == e.completion for s, e in zip(said, examples, strict=True)) > 56 and log.loss[0] > 2


def _none():
    from skillweave.delta import LowRank

    return LowRank({})


def test_an_interrupted_bridge_goes_on_bit_for_bit(pair, skills, stopped):
    torch.set_num_threads(1)
    whole, _ = fit(pair, skills)
    again, log = stopped(bridge, lambda run: fit(pair, skills, run=run))
    assert all(torch.equal(tensor, whole.tensors()[name]) for name, tensor in again.tensors().items()) and len(log.loss) == 6


def test_same_seed_same_bridges(pair, skills):
    one, again = (fit(pair, skills)[0].tensors() for _ in range(2))
    assert all(torch.equal(tensor, again[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    ("options", "names", "sides"),
    [
        ({}, ["a", "b", "c"], (("a",), ("b", "c"))),
        ({"augment": "tiny"}, ["a", "b"], (("a", "b"), ())),
        ({"anchor": "tiny"}, ["a"], ((), ("a",))),
    ],
)
def test_which_skills_are_on_where(options, names, sides):
    assert Bridge(**options).sides(names) == sides


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({}, "a bridge joins two models, and `a` names one"), ({"augment": "x", "anchor": "y"}, "both augment and anchor")],
)
def test_two_models_are_needed(options, sentence):
    with pytest.raises(BadOption, match=sentence):
        Bridge(**options).sides(["a"])


@pytest.fixture
def kept(pair, skills, tmp_path, monkeypatch):
    """A saved bridge, and what it answers."""
    made, _ = fit(pair, skills, Bridge(steps=30, batch=8, every=2, lr=3e-3))
    made.save(tmp_path, pair[0], skills)
    monkeypatch.setattr(bridge, "_augmenting", lambda name: pair[1])
    return tmp_path, made.use(pair[0], skills).generate(["aa\n", "cc\n", "xyz\n"], 8)


def test_a_saved_bridge_is_the_same_again(pair, kept):
    folder, said = kept
    again = Bridged.load(folder, pair[0], "both")
    assert again.generate(["aa\n", "cc\n", "xyz\n"], 8) == said != pair[0].generate(["aa\n", "cc\n", "xyz\n"], 8)
    assert sorted(path.name for path in folder.iterdir()) == ["composition.json", "delta.safetensors", "parts"]
    about = json.loads((folder / "composition.json").read_text())
    assert about["kind"] == "bridge" and about["layers"] == [[2, 2], [4, 3]] and about["heads"] == 2
    for base, side in zip(pair, ("anchor", "augment"), strict=True):
        assert (about[side]["name"], about[side]["digest"]) == (base.name, base.digest)


def test_both_bases_are_checked(pair, kept, monkeypatch):
    folder, _ = kept
    with pytest.raises(BaseMismatch, match=r"the anchor of `both` is tiny-64 \(\w{12}\), and this is tiny-32-s3"):
        Bridged.load(folder, pair[1], "both")
    monkeypatch.setattr(bridge, "_augmenting", lambda name: TinyBase(32, seed=4))
    with pytest.raises(BaseMismatch, match=r"the augmenting model of `both` is tiny-32-s3 \(\w{12}\), and this is tiny-32-s4"):
        Bridged.load(folder, pair[0], "both")


def _edit(folder, change):
    about = json.loads((folder / "composition.json").read_text())
    change(about)
    (folder / "composition.json").write_text(json.dumps(about))


DAMAGE = {
    "no sides": (lambda f: _edit(f, lambda a: a.pop("augment")), "does not say what its bridges join"),
    "no layers": (lambda f: _edit(f, lambda a: a.update(layers=[])), "are not between"),
    "layers that are none": (lambda f: _edit(f, lambda a: a.update(layers=[[2, 2], [5, 3]])), "are not between"),
    "layers in words": (lambda f: _edit(f, lambda a: a.update(layers="all")), "does not say what its bridges join"),
    "heads that do not divide": (lambda f: _edit(f, lambda a: a.update(heads=7)), "are not between"),
    "no heads": (lambda f: _edit(f, lambda a: a.update(heads=0)), "are not between"),
    "no weights": (lambda f: (f / DELTA).unlink(), "`both` has no delta.safetensors"),
    "half of the weights": (
        lambda f: (f / DELTA).write_bytes((f / DELTA).read_bytes()[:-9]),
        "file of bridges of `both` is corrupt",
    ),
    "a tensor is missing": (lambda f: _tensors(f, lambda t: t.pop("0.out")), "are not between"),
    "a tensor of another shape": (lambda f: _tensors(f, lambda t: t.update({"0.out": torch.zeros(64, 32)})), "are not between"),
    "not a number": (lambda f: _tensors(f, lambda t: t["0.out"].fill_(torch.nan)), "not finite in `0.out`"),
    "another type": (lambda f: _tensors(f, lambda t: t.update({"0.out": t["0.out"].half()})), "not numbers of 32 bits"),
    "no part": (lambda f: shutil.rmtree(f / "parts" / "other"), "`other` has no adapter_config.json"),
}


def _tensors(folder, change):
    tensors = load_file(folder / "delta.safetensors")
    change(tensors)
    save_file(tensors, folder / "delta.safetensors")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_bridge_is_a_sentence(pair, kept, damage):
    break_it, said = DAMAGE[damage]
    break_it(kept[0])
    with pytest.raises(BadSkill, match=said):
        Bridged.load(kept[0], pair[0], "both")


def test_all_kinds_of_damage_were_seen():
    assert len(DAMAGE) == 13


def test_one_model_with_itself(pair, random_skill, tmp_path):
    """The same weights on both sides, other skills on: the second model is not loaded again."""
    anchor = pair[0]
    skills = {"mine": random_skill(anchor, 1), "other": random_skill(anchor, 2)}
    made, log = QUICK.fit(anchor, skills, EXAMPLES, 0)
    made.save(tmp_path, anchor, skills)
    again = Bridged.load(tmp_path, anchor, "both")
    assert again.base.augment.base is anchor and log.loss[-1] < log.loss[0]
    assert again.generate(["aa\n"], 6) == made.use(anchor, skills).generate(["aa\n"], 6)
