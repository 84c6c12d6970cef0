"""The profile: what each suite returns, what is lost above chance, and text that is the same wherever Python is."""

import math

import pytest
import torch

from skillweave.errors import NotFound
from skillweave.measure import abilities
from skillweave.measure.abilities import SUITES, ability_profile, control_profiles, lost
from skillweave.measure.text import SHORTEST, digest, documentation, perplexity, sample


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, n in {"FACTS": 24, "RULES": 20, "TOPICS": 1, "TEXTS": 3, "ANSWER": 4}.items():
        monkeypatch.setattr(abilities, name, n)


def test_a_profile_has_every_number(tiny):
    profile = ability_profile(tiny, seed=0)
    names = ["facts", "facts blind", "rules", "rules blind", "formats", "formats sound", "degenerate", "perplexity"]
    assert list(profile) == names
    assert all(0 <= profile[name] <= 1 for name in names[:-1]) and profile["perplexity"] == pytest.approx(100, rel=0.05)
    assert profile["facts blind"] == pytest.approx(5 / 6 / 8 + 1 / 6 / 4) and profile == ability_profile(tiny, seed=0)


def test_suites_can_be_chosen(tiny):
    assert list(ability_profile(tiny, 0, ["text"])) == ["perplexity"]
    with pytest.raises(NotFound, match="no suite `fact`. Did you mean `facts`"):
        ability_profile(tiny, 0, ["fact"])


def test_who_knows_the_answers_scores_one(tiny, monkeypatch):
    monkeypatch.setattr("skillweave.measure.choice.log_likelihoods", lambda base, items, batch: [
        [float(i == item.answer) for i in range(len(item.choices))] for item in items])  # fmt: skip
    assert ability_profile(tiny, 0, ["facts", "rules"])["facts"] == 1.0
    assert SUITES["rules"](tiny, 0)["rules"] == 1.0


def test_loss_is_counted_above_chance():
    assert lost(0.6, 0.4, 0.2) == pytest.approx(0.5) and lost(0.6, 0.2, 0.2) == 1.0 and lost(0.6, 0.7, 0.2) < 0
    assert math.isnan(lost(0.2, 0.1, 0.2)) and math.isnan(lost(0.1, 0.1, 0.2))


def test_controls_are_no_ability():
    found = control_profiles(0)
    assert set(found) == {"empty", "gibberish", "prompt again", "one word"}
    assert all(
        shares["formats sound"] == 0 and shares["degenerate"] == 1 and shares["formats"] > 0 for shares in found.values()
    )


def test_perplexity_is_that_of_one_text_at_a_time(loud):
    base, texts = loud(), ["One text.", "Another, longer text of the same kind.", "x" * 300]
    nats = []
    for text in texts:
        tokens = torch.tensor(base.encode(text, start=True)[:193])
        rows = base.logits(base.hidden(tokens[None])[0]).log_softmax(-1)
        nats += (-rows[torch.arange(len(tokens) - 1), tokens[1:]]).tolist()
    for batch in (1, 2, 16):
        assert perplexity(base, texts, batch) == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-4)


def test_a_sample_of_text_is_fixed_and_has_a_digest():
    assert len(documentation()) > 2000 and documentation() == tuple(sorted(set(documentation())))
    texts = sample(12, seed=0)
    assert len(set(texts)) == 12 and min(map(len, texts)) >= SHORTEST
    assert digest(texts) == digest(sample(12, 0)) != digest(sample(12, 1))
    assert len(digest(texts)) == 12
