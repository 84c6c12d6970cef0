"""Learning in new layers: only they learn, at rates that general text sets, and the result is a skill of its own kind."""

import json
from functools import partial

import pytest
import torch

from skillweave import verbs
from skillweave.base import load_base
from skillweave.errors import BadOption, NotFound
from skillweave.learn import expand as module
from skillweave.learn.expand import Expand, choose, multiples
from skillweave.learn.loop import Plan, Run
from skillweave.learn.probe import Probe, unit_importance
from skillweave.library import Library
from skillweave.task import Example

FOUR = [Example(f"say {c}\n", c * (3 + i)) for i, c in enumerate("abcd")]
QUICK = Expand(steps=60, batch=4, lr=1e-2, copies=2, texts=4, every=20)
SMALL = {"steps": 4, "batch": 2, "copies": 1, "texts": 2, "every": 2}


@pytest.fixture(scope="module")
def learned(loud):
    before = {name: weight.clone() for name, weight in loud().model.named_parameters()}
    skill, log = QUICK.fit(loud(), FOUR, 0)
    assert all(torch.equal(weight, before[name]) for name, weight in loud().model.named_parameters())
    assert not any(weight.requires_grad for weight in loud().model.parameters())
    return skill, log


def test_it_learns_four_answers(loud, learned):
    skill, log = learned
    assert log.loss[0] > 2 and log.loss[-1] < 0.2
    active = skill.use(loud(), {})
    assert active.generate([e.prompt for e in FOUR], 10) == [e.completion for e in FOUR]
    assert active.base.layers == loud().layers + 2


def test_rates_are_measured_on_the_way(learned):
    _, log = learned
    assert [step for step, *_ in log.rates] == [20, 40] and all(len(row) == 1 + 18 for row in log.rates)
    for _, *row in log.rates:
        assert min(row) == 0 and max(row) == 2 and len(set(row)) > 10


def test_same_seed_same_bits(loud, learned):
    skill, log = QUICK.fit(loud(), FOUR, 0)
    assert same(skill, learned[0]) and log.loss == learned[1].loss
    even = Expand(**vars(QUICK) | {"every": 0}).fit(loud(), FOUR, 0)
    assert not same(even[0], skill) and even[1].rates == []


def same(one, other):
    assert one.weights.keys() == other.weights.keys() and one.layers == other.layers
    return all(torch.equal(weight, other.weights[name]) for name, weight in one.weights.items())


def test_an_interrupted_run_gives_the_same_bits(loud, learned, tmp_path, monkeypatch):
    def tick(steps, note):
        ticks.append(steps)
        if len(ticks) in (5, 33):
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "Plan", partial(Plan, save_every=0.0))
    ticks = []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            QUICK.fit(loud(), FOUR, 0, Run(tmp_path / "state", "key", tick))
    skill, log = QUICK.fit(loud(), FOUR, 0, Run(tmp_path / "state", "key", tick))
    assert ticks[5] >= 4 and same(skill, learned[0]) and log.rates == learned[1].rates


def test_before_the_first_step_nothing_has_importance(loud):
    """Matrices of zeros have none, and they keep every other tensor of the copies from the loss."""
    probe = Probe.of(loud(), "docstrings", 3, 0)
    growth = QUICK.grow(loud(), probe, 0)
    found = unit_importance(growth.loss, growth.weights, probe)
    assert len(found) == 18 and not found.any()
    assert multiples(found, 0.1).tolist() == [1.0] * 18
    assert growth.rates(5, 0.1)(0) is None and growth.rates(0, 0.1)(5) is None and len(growth.rates(5, 0.1)(5)) == 18


def test_multiples_are_those_of_the_paper_and_an_outlier_does_not_rule_them():
    importance = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    assert multiples(importance, 0.0).tolist() == [1.0, 2.0, 1.5, 1.0, 0.5, 0.0]
    outlier = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 1000.0])
    assert multiples(outlier, 0.0)[8] > 1.98
    assert multiples(outlier, 0.2)[8] < 0.3 and multiples(outlier, 0.2)[9] == 0
    assert multiples(torch.full((4,), 3.0), 0.1).tolist() == [1.0] * 4


def test_layers_are_chosen_by_what_the_probe_lost():
    importance = torch.tensor([5.0, 0.2, 0.1, 3.0, 0.2, 4.0])
    assert choose(importance, 2, "least", 0) == (1, 2) and choose(importance, 2, "most", 0) == (0, 5)
    assert choose(importance, 3, "least", 0) == (1, 2, 4)
    assert choose(importance, 2, "even", 0) == (2, 5) and choose(importance, 4, "even", 0) == (0, 2, 3, 5)
    drawn = {choose(importance, 2, "random", seed) for seed in range(30)}
    assert len(drawn) > 8 and all(a < b for a, b in drawn)
    assert choose(importance, 2, "random", 3) == choose(importance, 2, "random", 3)


def test_a_bf16_base_learns_in_fp32(saved):
    base = load_base(str(saved), "bf16")
    growth = Expand(**SMALL).grow(base, Probe.of(base, "docstrings", 2, 0), 0)
    assert {weight.dtype for weight in growth.weights.values()} == {torch.float32}
    skill, log = Expand(**SMALL | {"steps": 30, "lr": 1e-2}).fit(base, FOUR, 0)
    assert {weight.dtype for weight in skill.weights.values()} == {torch.bfloat16} and log.loss[-1] < log.loss[0]
    assert skill.use(base, {}).base.dtype == torch.bfloat16


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    rows = [{"prompt": f"in {i}\n", "completion": str(i)} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_it_is_a_skill_of_its_own_kind(cli, shelf):
    where = ["--library", shelf / "lib"]
    knobs = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    said = cli("learn", "deep", "--method", "expand", "--data", shelf / "rows.jsonl", "--base", "tiny", *knobs, *where)
    assert said.code == 0 and "copying layers" in said.err
    skill = Library(shelf / "lib").get("deep")
    about = json.loads((skill.path / "composition.json").read_text())
    assert (about["kind"], len(about["layers"]), len(about["importance"])) == ("expand", 1, 3) and skill.kind == "delta"
    assert cli("run", "deep", "in 3\n", *where).code == 0
    said = cli("measure", "base", "deep", "--data", shelf / "rows.jsonl", "--json", *where)
    assert said.code == 0 and {row["name"] for row in json.loads(said.out)["rows"]} == {"base", "deep"}
    said = cli("compose", "deep", "--data", shelf / "rows.jsonl", *where)
    assert said.code == 1 and "`deep` (expand) is not a change of weights" in said.err
    said = cli("inspect", "deep", *where)
    assert said.code == 1 and "`deep` (expand) is not a change of weights" in said.err


def test_a_skill_is_not_measured_on_its_probe(shelf):
    options = SMALL | {"probe": str(shelf / "rows.jsonl"), "texts": 99}
    verbs.learn("deep", library=shelf / "lib", task="number", base="tiny", method="expand", options=options)
    measured = verbs.measure(["deep"], library=shelf / "lib", data=shelf / "rows.jsonl")
    assert 0 < measured.rows[0]["exact"].n < 15


@pytest.mark.parametrize(
    ("kind", "sentence", "options"),
    [
        (NotFound, "no choice `lest`.* `least`", {"choice": "lest"}),
        (BadOption, "copies is 0", {"copies": 0}),
        (BadOption, "texts is 0", {"texts": 0}),
        (BadOption, "trim is 0.5", {"trim": 0.5}),
        (NotFound, "no task `nmber`", {"probe": "nmber"}),
        (BadOption, "copies is 4, but `tiny-32` has 3 layers", {"copies": 4}),
    ],
)
def test_mistakes_are_answered_in_a_sentence(shelf, kind, sentence, options):
    with pytest.raises(kind, match=sentence):
        verbs.learn("deep", library=shelf / "lib", task="number", base="tiny", method="expand", options=SMALL | options)
    assert not list(shelf.glob("lib/deep*"))


def test_the_layers_that_learn_are_those_of_the_deeper_base(loud, learned):
    skill, _ = learned
    stack = skill.use(loud(), {}).base.stack
    assert len(stack) == 5 and all(name.startswith("model.layers.") for name in skill.weights)
