"""Samples: of the right distribution, under their own probability, whatever their company."""

import math
from collections import Counter

import pytest
import torch

from skillweave import groups
from skillweave.bank import SkillBank
from skillweave.base import TinyBase, load_base
from skillweave.composition import Active
from skillweave.errors import BadBase, BadData, BadOption
from skillweave.gemma import NAME
from skillweave.learn.sampling import WIDE, Sample, pick, sample, uniforms
from skillweave.strength import Choice, PerSample

PROMPTS = ["", "a", "hgfedcba", "abc", "c", "fff", "abc"]


@pytest.fixture(scope="module")
def talker(loud):
    """A base whose answers end at many different lengths."""
    return loud(alphabet="abcdefgh")


def nats(base, prompt, one: Sample, temperature=1.0):
    """Of each token of a sample, by a full forward."""
    before = base.encode(prompt, start=True) or [base.eos]
    hidden = base.hidden(torch.tensor([before + list(one.tokens[:-1])]))[0, len(before) - 1 :]
    logs = (base.logits(hidden).float() / temperature).log_softmax(-1)
    return logs.gather(1, torch.tensor(one.tokens)[:, None])[:, 0].tolist()


def test_tokens_come_as_often_as_the_base_says(talker):
    drawn = sample(Active(talker), ["ab"], 4000, max_new_tokens=1, temperature=1.5, seed=0, batch=1000)[0]
    logits = talker.logits(talker.hidden(torch.tensor([talker.encode("ab", start=True)]))[0, -1:])[0]
    p = (logits / 1.5).softmax(0)
    count = Counter(one.tokens[0] for one in drawn)
    expected = {token: 4000 * share for token, share in enumerate(p.tolist()) if 4000 * share > 5}
    assert len(expected) >= 4
    chi = sum((count[token] - n) ** 2 / n for token, n in expected.items())
    assert chi < 3.5 * len(expected)  # the 99.9th percentile is 4.6 at 4 and 2.5 at 20; a wrong temperature gives hundreds


@pytest.mark.parametrize("size", [7, WIDE, WIDE + 1, 100_003])
def test_a_token_takes_its_share_of_the_unit_interval(size):
    draw = torch.Generator().manual_seed(size)
    p = torch.rand(1, size, generator=draw) * (torch.rand(1, size, generator=draw) > 0.5)
    u = torch.rand(500, dtype=torch.float64, generator=draw)
    u[:2] = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    edges = p[0].double().cumsum(0) / p[0].double().sum()
    found = pick(p.expand(500, -1), u)
    assert (p[0, found] > 0).all()
    low, high = edges[found] - p[0, found].double() / p[0].double().sum(), edges[found]
    assert ((low - 1e-6 <= u) & (u <= high + 1e-6)).all()
    assert found[1] == p[0].nonzero()[-1, 0] and found[0] == p[0].nonzero()[0, 0]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_logprobs_are_those_of_the_text(talker, temperature):
    drawn = sample(Active(talker), PROMPTS, 5, max_new_tokens=16, temperature=temperature, seed=1)
    for prompt, group in zip(PROMPTS, drawn, strict=True):
        for one in group:
            assert one.logprobs == pytest.approx(nats(talker, prompt, one, temperature), abs=2e-4)
    assert len({len(one.tokens) for group in drawn for one in group}) > 3


def test_a_sample_does_not_depend_on_its_company(talker):
    use = Active(talker)
    together = sample(use, PROMPTS, 6, max_new_tokens=20, temperature=2.0, seed=3)
    assert [len(group) for group in together] == [6] * len(PROMPTS)
    assert len({one.text for group in together for one in group}) > 30
    for batch in (1, 4, 13):
        again = sample(use, PROMPTS, 6, max_new_tokens=20, temperature=2.0, seed=3, batch=batch)
        assert [[one.tokens for one in group] for group in again] == [[one.tokens for one in group] for group in together]
    fewer = sample(use, PROMPTS[:3], 2, max_new_tokens=7, temperature=2.0, seed=3)
    for few, many in zip(fewer, together, strict=False):
        assert [one.tokens for one in few] == [one.tokens[:7] for one in many[:2]]


def test_the_seed_the_prompt_and_the_number_decide(talker):
    one, two, again = (sample(Active(talker), ["abc"] * 2, 3, temperature=3.0, seed=seed) for seed in (0, 1, 0))
    assert one == again != two
    assert len({s.tokens for group in one for s in group}) == 6
    assert uniforms(0, 1, 2, 9)[:4].tolist() == uniforms(0, 1, 2, 4).tolist() != uniforms(0, 2, 1, 4).tolist()


def test_greedy_samples_are_what_is_generated(talker):
    drawn = sample(Active(talker), PROMPTS, 2, max_new_tokens=24, temperature=0, seed=0)
    assert [group[0].text for group in drawn] == talker.generate(PROMPTS, 24) == [group[1].text for group in drawn]
    assert all(nat == 0 for group in drawn for one in group for nat in one.logprobs)


def test_each_prompt_has_its_own_temperature(talker):
    heat = [0, 1.0, 0.3, 2.5, 0, 1.0, 2.5]
    drawn = sample(Active(talker), PROMPTS, 4, max_new_tokens=12, temperature=heat, seed=0)
    for i, (prompt, t) in enumerate(zip(PROMPTS, heat, strict=True)):
        if t == 0:
            assert {one.text for one in drawn[i]} == set(talker.generate([prompt], 12))
        else:
            for one in drawn[i]:
                assert one.logprobs == pytest.approx(nats(talker, prompt, one, t), abs=2e-4)


def test_ended_samples_have_their_end_and_cut_ones_do_not(talker):
    drawn = [one for group in sample(Active(talker), PROMPTS, 8, max_new_tokens=9, temperature=2.0, seed=0) for one in group]
    ended = [one for one in drawn if one.ended]
    assert 5 < len(ended) < len(drawn) - 5
    for one in drawn:
        assert len(one.tokens) == len(one.logprobs) <= 9
        assert (one.tokens[-1] == talker.eos) == one.ended and talker.eos not in one.tokens[:-1]
        assert one.ended or len(one.tokens) == 9
        assert one.text == talker.decode(one.tokens)


def test_a_prompt_is_read_once_and_finished_rows_leave(talker, monkeypatch):
    bodies, heads, head = [], [], talker.logits
    monkeypatch.setattr(talker, "logits", lambda rows: heads.append(len(rows)) or head(rows))
    hook = talker.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: bodies.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        drawn = sample(Active(talker), ["abc", "abcdef"], 16, max_new_tokens=20, temperature=3.0, seed=0)
    finally:
        hook.remove()
    lengths = [len(one.tokens) for group in drawn for one in group]
    assert bodies[0] == (2, 7) and heads[0] == 2
    alive = [sum(length > step for length in lengths) for step in range(1, max(lengths))]
    assert bodies[1:] == [(rows, 1) for rows in alive] and heads[1:] == alive


@pytest.mark.parametrize("batch", [2, 5, 64])
def test_each_prompt_has_its_own_skills(loud, random_skill, batch):
    base = loud(alphabet="abcdefgh")
    bank = SkillBank(base, {name: random_skill(base, seed, 3, scale=0.4) for seed, name in enumerate("xy")})
    prompts = ["abc", "a", "abc", "hh", "abc"]
    alpha = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.5, -1.0], [0.0, 1.0]])
    for strength in (PerSample(alpha), lambda base, asked: PerSample(alpha[: len(asked)])):
        drawn = sample(Active(base, bank, strength), prompts, 4, max_new_tokens=10, seed=5, batch=batch)
        for prompt, own, group in zip(prompts, alpha, drawn, strict=True):
            with bank.on(own):
                for one in group:
                    assert one.logprobs == pytest.approx(nats(base, prompt, one), abs=5e-4)
    chosen = sample(Active(base, bank, Choice(torch.tensor([0, 1, -1, -1, 1]))), prompts, 4, max_new_tokens=10, seed=5)
    assert [one.tokens for one in chosen[2]] == [one.tokens for one in drawn[2]]
    assert len({tuple(one.tokens for one in drawn[i]) for i in (0, 2, 4)}) == 3


@pytest.mark.parametrize("kind", ["mistral", "gemma3_text"])
@pytest.mark.parametrize("window", [8, 64])
def test_memories_that_slide(kind, window):
    """Short of the window nothing is forgotten; past it the model's own kind of memory is at work."""
    base = sliding(kind, window)
    drawn = sample(Active(base), ["ab", "abcdef", "a"], 6, max_new_tokens=20, temperature=1.3, seed=0)
    lengths = {len(one.tokens) for group in drawn for one in group}
    assert len(lengths) > 3 and max(lengths) == 20
    for prompt, group in zip(["ab", "abcdef", "a"], drawn, strict=True):
        for one in group:
            assert one.logprobs == pytest.approx(nats(base, prompt, one, 1.3), abs=1e-3)


def sliding(kind, window):
    """A small model with layers that see `window` tokens."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from skillweave.base import Base
    from skillweave.characters import CharTokenizer

    tokenizer = CharTokenizer("abcdefgh")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    layers = {"num_hidden_layers": 2, "sliding_window": window, "max_position_embeddings": 256}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **sizes, **layers, **ends)
    if kind == "gemma3_text":
        config.layer_types = ["sliding_attention", "full_attention"]
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    draw = torch.Generator().manual_seed(0)
    for _, weight in sorted(model.named_parameters()):
        if weight.dim() > 1:
            weight.data.normal_(0, 0.3, generator=draw)
    return Base(kind, kind, model, tokenizer)


def test_gemma_is_sampled_like_any_base():
    base = load_base(NAME)
    prompts = ["The capital of France is", "2 + 2 ="]
    drawn = sample(Active(base), prompts, 3, max_new_tokens=5, seed=0)
    assert drawn == sample(Active(base), prompts, 3, max_new_tokens=5, seed=0)
    for prompt, group in zip(prompts, drawn, strict=True):
        for one in group:
            assert one.logprobs == pytest.approx(nats(base, prompt, one), abs=0.3)  # bf16


def test_what_cannot_be_drawn_gets_a_sentence(tiny):
    use = Active(tiny)
    with pytest.raises(BadOption, match="count is 0, but has to be at least 1"):
        sample(use, ["a"], 0, seed=0)
    with pytest.raises(BadOption, match="max_new_tokens is 0"):
        sample(use, ["a"], 1, max_new_tokens=0, seed=0)
    with pytest.raises(BadOption, match="batch is -1"):
        sample(use, ["a"], 1, batch=-1, seed=0)
    for wrong in (-0.5, math.inf, math.nan):
        with pytest.raises(BadOption, match=f"temperature is {wrong}, but has to be a finite number of at least 0"):
            sample(use, ["a"], 1, temperature=wrong, seed=0)
    with pytest.raises(BadOption, match="2 temperatures were given for 1 prompts"):
        sample(use, ["a"], 1, temperature=[1.0, 0.0], seed=0)
    with pytest.raises(BadData, match="its 60 new tokens need 261 tokens, but the window of tiny-32 is 256"):
        sample(use, ["x" * 200], 1, max_new_tokens=60, seed=0)
    assert sample(use, [], 3, seed=0) == []


def test_a_base_that_is_broken_gets_a_sentence():
    base = TinyBase(32)
    base.model.get_input_embeddings().weight.data[5] = math.nan
    with pytest.raises(BadBase, match="tiny-32 gives scores that are not finite numbers"):
        sample(Active(base), ["a"], 2, seed=0)


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma3_text"])
def test_what_rows_share_changes_nothing(kind, talker, monkeypatch):
    """Rows that look at one copy of their prompt, against rows with a copy each."""
    base, taken, share = talker if kind == "llama" else sliding(kind, 64), [], groups.share
    monkeypatch.setattr(groups, "share", lambda *args: taken.append(share(*args)) or taken[-1])
    drawn = []
    for rows in (4, 10**6):
        monkeypatch.setattr(groups, "ROWS", rows)
        drawn.append(sample(Active(base), PROMPTS, 6, max_new_tokens=12, temperature=2.0, seed=4))
    assert [one is None for one in taken] == [False, True]
    for together, apart in zip(*drawn, strict=True):
        for one, other in zip(together, apart, strict=True):
            assert one.tokens == other.tokens and one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert len({len(one.tokens) for group in drawn[0] for one in group}) > 3


def test_a_part_of_the_keys_is_never_taken_for_the_whole(talker, monkeypatch):
    """A model that computes attention by itself gets memory of its own for each row."""
    base = sliding("mistral", 64)
    base.model.config._attn_implementation = "eager"
    tokens = [[one.tokens for one in group] for group in sample(Active(base), PROMPTS, 6, max_new_tokens=9, seed=4)]
    base.model.config._attn_implementation = "sdpa"
    assert tokens == [[one.tokens for one in group] for group in sample(Active(base), PROMPTS, 6, max_new_tokens=9, seed=4)]
    monkeypatch.setattr(groups, "_attentions", lambda base: {"sdpa"})
    base.model.config._attn_implementation = "eager"
    with pytest.raises(AssertionError, match="keys that are only a part"):
        sample(Active(base), PROMPTS, 6, max_new_tokens=9, seed=4)
