"""What a new skill costs elsewhere: no skill costs nothing, harm is seen, and what was shown is no measure of forgetting."""

import json
import math

import pytest
import torch

from skillweave.bank import SkillBank
from skillweave.composition import Active
from skillweave.delta import LowRank
from skillweave.errors import BadOption, TooMuchForgotten
from skillweave.learn.sft import SFT
from skillweave.measure import retention as module
from skillweave.measure.retention import READ, TEXTS, Other, check_limit, retention, unseen
from skillweave.measure.stats import per_item
from skillweave.measure.text import TWINS, documentation, nats, paragraphs
from skillweave.reports import Change, Retention
from skillweave.result import Estimate, plain
from skillweave.task import Example
from skillweave.tasks import load_task


def noisy(base, size: float) -> LowRank:
    """A skill that changes every layer by chance."""
    skill = LowRank.fresh(base, 4, 1.0, 0).detach()
    draw = torch.Generator().manual_seed(0)
    for name, tensor in skill.tensors().items():
        if name.endswith("b"):
            tensor.normal_(0.0, size, generator=draw)
    return skill


def used(base, size: float) -> Active:
    return Active(base, SkillBank(base, {"new": noisy(base, size)}))


def test_a_skill_that_does_nothing_costs_nothing(loud):
    base = loud()
    text = retention(base, used(base, 0.0), []).text
    assert text.difference == Estimate(0.0, 0.0, 0.0, TEXTS, "nats/token")
    assert text.before == text.after and text.before.low < text.before.value < text.before.high


def test_harm_is_seen_and_is_the_difference_of_the_two_losses(loud):
    base = loud()
    examples = [Example(f"in {i}\n", "~" * 12) for i in range(8)]
    skill, _ = SFT(steps=30, batch=4, lr=0.02).fit(base, examples, seed=0)
    found = retention(base, Active(base, SkillBank(base, {"new": skill})), [])
    text = found.text
    assert text.after.value - text.before.value == pytest.approx(text.difference.value, abs=1e-9)
    assert 0.5 < text.difference.low < text.difference.value < text.difference.high
    assert found.tokens == TEXTS * READ and len(found.texts) == 12


def test_before_is_the_base_without_any_skill(loud):
    base = loud()
    text = retention(base, used(base, 0.5), []).text
    alone = [nats(base, [t], READ)[0] for t in unseen([])]
    assert text.before.value == pytest.approx(sum(a for a, _ in alone) / sum(n for _, n in alone), rel=1e-5)


def test_nats_are_those_of_one_text_at_a_time_and_labels_are_shifted(loud):
    base = loud()
    texts = ["the third of May", "a b c"]
    row = base.encode(texts[0], start=True)
    logits = base.logits(base.hidden(torch.tensor([row]))[0]).log_softmax(1)
    by_hand = -sum(logits[i, row[i + 1]].item() for i in range(5))
    assert nats(base, texts, 5)[0] == (pytest.approx(by_hand, rel=1e-5), 5)
    assert [count for _, count in nats(base, texts, 100)] == [16, 5]


def test_texts_are_prose_that_no_probe_reads():
    assert len(paragraphs()) >= 100 and all(len(p) >= 300 and "\n" not in p for p in paragraphs())
    begin = {text[:TWINS] for text in documentation()}
    assert not [p for p in unseen([]) if p[:TWINS] in begin]
    assert unseen([]) == unseen([]) and len(set(unseen([]))) == TEXTS


@pytest.mark.parametrize("cut", ["all", "begin", "middle", "end"])
def test_what_the_skill_was_shown_is_left_out(cut):
    texts = unseen([])
    text, half = texts[3], len(texts[3]) // 2
    piece = {"all": text, "begin": text[:80], "middle": text[half - 30 : half + 90], "end": text[-90:]}[cut]
    told = [Example("say:\n", piece.replace(" ", "\n  "))]
    assert text not in unseen(told) and len(unseen(told)) == TEXTS and unseen(told)[:3] == texts[:3]


def test_per_item_weighs_by_tokens_and_covers():
    assert per_item([1.0, 9.0], [1, 3]).value == 2.5
    hits, draw = 0, torch.Generator().manual_seed(1)
    for _ in range(200):
        counts = torch.randint(5, 30, (40,), generator=draw)
        totals = counts * 0.3 + counts.sqrt() * torch.randn(40, generator=draw)
        found = per_item(totals.tolist(), counts.tolist(), draws=400)
        hits += found.low <= 0.3 <= found.high
    assert 178 <= hits <= 200


def limited(low: float, value: float, high: float, limit: float | None) -> Retention:
    rise = Estimate(value, low, high, 24)
    return Retention(Change(rise, rise, rise), limit=limit)


def test_the_upper_end_decides():
    limited(0.0, 0.03, 0.05, 0.05).check("new")
    limited(0.0, 0.03, 0.06, None).check("new")
    with pytest.raises(TooMuchForgotten) as said:
        limited(0.0, 0.03, 0.0649, 0.05).check("new")
    assert "0.030 nats/token [0.000, 0.065], and the upper end may be at most 0.05" in said.value.message
    assert "--max-forgetting 0.07" in said.value.hint and said.value.exit_code == 1


def test_the_limit_that_is_offered_is_enough():
    for high in (0.0512, 0.06, 1.0, 7.999):
        with pytest.raises(TooMuchForgotten) as said:
            limited(0.0, 0.0, high, 0.01).check("new")
        limited(0.0, 0.0, high, float(said.value.hint.split("--max-forgetting ")[1].split()[0])).check("new")


@pytest.mark.parametrize("ruined", [math.nan, math.inf])
def test_a_ruined_model_is_never_within_the_limit(ruined):
    with pytest.raises(TooMuchForgotten) as said:
        limited(ruined, ruined, ruined, 1e6).check("new")
    assert "--max-forgetting" not in said.value.hint


def test_who_was_shown_all_the_text_is_not_within_any_limit(tiny):
    everything = [Example("read:\n", text) for text in paragraphs()]
    found = retention(tiny, used(tiny, 0.0), everything, limit=5.0)
    assert found.text is None and found.lines() == []
    with pytest.raises(TooMuchForgotten, match=r"shown all the text that its limit \(5 nats/token\)"):
        found.check("new")


@pytest.mark.parametrize("limit", [-0.1, math.nan, math.inf])
def test_a_limit_that_cannot_be_held(limit):
    with pytest.raises(BadOption, match=f"max-forgetting is {limit:g}"):
        check_limit(limit)
    check_limit(0.0)
    check_limit(None)


def test_without_text_a_limit_is_refused_and_a_report_says_nothing(tiny, monkeypatch):
    for place in (module, __import__("skillweave.measure.text", fromlist=["text"])):
        monkeypatch.setattr(place, "paragraphs", lambda: ())
    assert retention(tiny, used(tiny, 0.0), []).text is None
    with pytest.raises(BadOption, match="pydoc_data"):
        check_limit(0.1)


def test_other_skills_are_tried_alone_and_with_the_new_one(loud, monkeypatch):
    base, task = loud(), load_task("copy")
    examples = task.take(4, "valid")
    alone, both = used(base, 0.0), used(base, 0.5)
    scores = {id(alone): (1.0, 1.0, 1.0, 0.0), id(both): (1.0, 0.0, 0.0, 0.0)}
    monkeypatch.setattr(module, "evaluate", lambda use, *_: type("Scores", (), {"exact": scores[id(use)]}))
    found = retention(base, used(base, 0.0), [], {"copy": Other(alone, both, task, examples)}, {"old": "gone."})
    change = found.skills["copy"]
    assert (change.before.value, change.after.value, change.difference.value) == (0.75, 0.25, -0.5)
    lines = "\n".join(found.lines())
    assert "`copy`: exact match 0.75" in lines and "-0.500" in lines and "`old` was not tried with it: gone." in lines
    assert json.loads(json.dumps(plain(found), allow_nan=False))["skills"]["copy"]["difference"]["n"] == 4
