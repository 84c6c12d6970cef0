"""A base made of two: untouched at the start, causal, blind to padding, the same with a cache, and gone afterwards."""

import copy
from dataclasses import replace
from threading import Thread

import pytest
import torch

from skillweave.bank import SkillBank
from skillweave.base import Base, TinyBase, load_base, save_base
from skillweave.compose.bridged import BridgedBase, Weights, check_tokens, crossings, hooked, look_back
from skillweave.errors import BadBase, BadData, BadOption, BaseMismatch

LONG = [1, 20, 7, 41, 33, 60, 12, 9, 55, 18]
PROMPTS = ["a", "hello", "key: 12", "zz top 99", "b"]


@pytest.fixture(scope="module")
def pair(loud):
    """An anchor and an augmenting model of other weights, width and depth."""
    return loud(64), loud(32, seed=3)


def bridged(anchor, augment, skills=None, every=1, strength=0.5):
    """The two joined by bridges that do a lot."""
    made = crossings(anchor, augment, every, seed=1)
    draw = torch.Generator().manual_seed(2)
    for one in made:
        one.weights.out.normal_(0, strength / one.weights.out.shape[0] ** 0.5, generator=draw)
    return BridgedBase(anchor, SkillBank(augment, skills or {}), made)


def hidden(base, rows, **options):
    with torch.inference_mode():
        return base.hidden(torch.tensor(rows), **options)


def test_a_new_bridge_changes_no_bit(pair):
    anchor, augment = pair
    new = BridgedBase(anchor, SkillBank(augment, {}), crossings(anchor, augment, 1))
    assert len(new.crossings) == anchor.layers == 4
    assert torch.equal(hidden(new, [LONG]), hidden(anchor, [LONG]))
    assert new.generate(PROMPTS, 8) == anchor.generate(PROMPTS, 8)
    assert not torch.equal(hidden(bridged(*pair), [LONG]), hidden(anchor, [LONG]))


def test_no_token_sees_what_comes_after_it(pair):
    both = bridged(*pair)
    other = [*LONG[:6], 70, 71, 72, 73]
    one, two = hidden(both, [LONG]), hidden(both, [other])
    assert torch.allclose(one[:, :6], two[:, :6], atol=1e-6) and not torch.allclose(one[:, 6:], two[:, 6:], atol=1e-2)


def test_a_token_sees_what_the_other_model_read_before_it(pair):
    """Also where the anchor itself could not: its own attention is switched off."""
    anchor, augment = pair
    both = bridged(TinyBase(64, seed=8), augment)
    for name, linear in both.anchor.linears.items():
        if name.endswith("o_proj"):
            linear.weight.data.zero_()
    other = [LONG[0], 70, *LONG[2:]]
    assert torch.equal(hidden(both.anchor, [LONG])[:, 2:], hidden(both.anchor, [other])[:, 2:])
    assert not torch.allclose(hidden(both, [LONG])[:, -1], hidden(both, [other])[:, -1], atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_not_seen(pair, side):
    both, rows = bridged(*pair), [LONG, LONG[:4], LONG[:7]]
    width = len(LONG)
    fill = [[0] * (width - len(row)) for row in rows]
    padded = [pad + row if side == "left" else row + pad for row, pad in zip(rows, fill, strict=True)]
    mask = torch.tensor([[int(token != 0) for token in row] for row in padded])
    position = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        together, _ = both.read(torch.tensor(padded), mask, position)
    for i, row in enumerate(rows):
        alone = hidden(both, [row])[0]
        real = together[i, width - len(row) :] if side == "left" else together[i, : len(row)]
        assert torch.allclose(real, alone, atol=1e-4)
    if side == "right":
        unmasked = hidden(both, padded)  # as in training: causal rows never look at padding that comes after them
        assert all(torch.allclose(unmasked[i, : len(row)], together[i, : len(row)], atol=1e-4) for i, row in enumerate(rows))


def test_reading_on_from_a_memory_equals_reading_it_all(pair):
    both = bridged(*pair)
    whole = hidden(both, [LONG])
    with torch.inference_mode():
        memory, found = None, []
        for start, end in ((0, 4), (4, 5), (5, 10)):
            part, memory = both.read(torch.tensor([LONG[start:end]]), memory=memory)
            found.append(part)
    assert torch.allclose(torch.cat(found, 1), whole, atol=1e-4)
    assert memory.seen[0][0].shape[2] == memory.anchor.get_seq_length() == memory.augment.get_seq_length() == 10


def recomputed(base, prompt, count):
    """Greedy tokens, everything computed anew for each."""
    tokens, start = base.encode(prompt, start=True), len(base.encode(prompt, start=True))
    for _ in range(count):
        with torch.inference_mode():
            token = base.logits(base.hidden(torch.tensor([tokens]))[:, -1]).argmax().item()
        if token == base.eos:
            break
        tokens.append(token)
    return base.decode(tokens[start:])


@pytest.mark.parametrize("prefix", ["", "shown: "])
def test_generation_with_memories_equals_recomputation(pair, prefix):
    both = bridged(*pair)
    answers = both.generate(PROMPTS, 12, prefix)
    assert answers == [recomputed(both, prefix + prompt, 12) for prompt in PROMPTS]
    assert answers != pair[0].generate(PROMPTS, 12, prefix) and len(set(answers)) > 1


def test_rows_that_end_leave_both_memories(pair):
    anchor, augment = pair
    both = bridged(anchor, augment)
    free = recomputed(both, "hello", 3)
    both.eos = both.encode(free[2])[0]  # the answer to "hello" ends after two tokens, the others perhaps not
    answers = both.generate(PROMPTS, 12)
    assert answers == [recomputed(both, prompt, 12) for prompt in PROMPTS] and len({len(a) for a in answers}) > 1


def test_a_memory_keeps_the_rows_that_are_asked_for(pair):
    both, rows = bridged(*pair), [LONG, LONG[::-1], LONG[5:] + LONG[:5]]
    more = torch.tensor([[30], [31]])
    with torch.inference_mode():
        _, memory = both.read(torch.tensor(rows))
        memory.batch_select_indices(torch.tensor([1, 2]))
        after, _ = both.read(more, memory=memory)
        _, one = both.read(torch.tensor(rows[:1]))
        one.batch_repeat_interleave(2)
        twice, _ = both.read(more, memory=one)
    for found, kept in ((after, rows[1:]), (twice, [rows[0]] * 2)):
        whole = hidden(both, [[*row, *new] for row, new in zip(kept, more.tolist(), strict=True)])
        assert torch.allclose(found[:, 0], whole[:, -1], atol=1e-4)


def test_nothing_stays_behind_after_an_exception(pair):
    anchor, augment = pair
    before = hidden(anchor, [LONG]), hidden(augment, [LONG])
    both = bridged(anchor, augment)

    def fail(*_):
        raise RuntimeError("stop")

    for model, last in ((anchor, 4), (augment, 3)):
        handle = model.stack[last - 1].register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="stop"):
            hidden(both, [LONG])
        handle.remove()
        assert not any(layer._forward_hooks for base in pair for layer in base.stack)
    assert torch.equal(hidden(anchor, [LONG]), before[0]) and torch.equal(hidden(augment, [LONG]), before[1])


def test_a_hook_is_for_its_own_thread(pair):
    anchor, _ = pair
    plain, found = hidden(anchor, [LONG]), []
    with hooked(anchor, {1: lambda h: h * 0}):
        thread = Thread(target=lambda: found.append(hidden(anchor, [LONG])))
        thread.start()
        thread.join()
        assert not torch.equal(hidden(anchor, [LONG]), plain)
    assert torch.equal(found[0], plain)


def test_each_side_has_its_own_skills_on(pair, random_skill):
    """Also when the two are one model, whose slots have the same names."""
    anchor, _ = pair
    first, second = random_skill(anchor, 1), random_skill(anchor, 2)
    both = bridged(anchor, anchor, {"second": second})
    plain = bridged(anchor, anchor)
    with SkillBank(both, {"first": first}).on():
        joined = hidden(both, [LONG])
    found = [hidden(plain, [LONG]), hidden(both, [LONG]), joined]
    with SkillBank(plain, {"first": first}).on():
        found.append(hidden(plain, [LONG]))
    assert len({t.sum().item() for t in found}) == 4
    states = {}
    with SkillBank(anchor, {"second": second}).on(), hooked(anchor, {2: lambda h: states.update({2: h})}):
        hidden(anchor, [LONG])
    with SkillBank(both, {"first": first}).on(), torch.inference_mode():
        _, seen = both._look(lambda: both.augment.base.hidden(torch.tensor([LONG])), [])
    crossing = next(one for one in both.crossings if one.augment == 2)
    assert torch.equal(seen[1][0], crossing.look(states[2], None)[0])  # the anchor's skill is off in the augmenting model


def test_look_back():
    assert look_back(2, 4, None).int().tolist() == [[[[1, 1, 1, 0], [1, 1, 1, 1]]]]
    mask = torch.tensor([[0, 0, 1], [1, 1, 0]])
    wanted = [[[[1, 0, 0], [0, 1, 0], [0, 0, 1]]], [[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]]
    assert look_back(3, 3, mask).int().tolist() == wanted


@pytest.mark.parametrize(
    ("every", "places"), [(1, [(1, 1), (2, 2), (3, 2), (4, 3)]), (2, [(2, 2), (4, 3)]), (3, [(3, 2)]), (9, [(4, 3)])]
)
def test_bridges_are_evenly_spaced(pair, every, places):
    made = crossings(*pair, every)
    assert [(one.anchor, one.augment) for one in made] == places
    assert {one.heads for one in made} == {2} and made[0].weights.project.shape == (64, 32)


def test_the_same_seed_gives_the_same_bridges(pair):
    one, again, other = (crossings(*pair, 2, seed=s)[1].weights.query for s in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"every": 0}, "every is 0, but has to be at least 1"), ({"heads": 5}, "5 heads do not divide the width of tiny-64, 64")],
)
def test_numbers_that_cannot_be_are_refused(pair, options, sentence):
    with pytest.raises(BadOption, match=sentence):
        crossings(*pair, **options)


def test_bases_of_other_tokens_are_refused(pair):
    with pytest.raises(BaseMismatch, match=r"tiny-64 and tiny-32 cut text into different tokens \(100 and 8 kinds\)"):
        crossings(pair[0], TinyBase(32, alphabet="abcd"))
    with pytest.raises(BaseMismatch, match="different tokens"):
        check_tokens(TinyBase(32, alphabet="abcd"), TinyBase(32, alphabet="abdc"))


def test_a_tokenizer_read_from_a_folder_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("SKILLWEAVE_CACHE", str(tmp_path / "cache"))
    for name, alphabet in (("one", "abcd"), ("two", "abcd"), ("three", "abdc")):
        save_base(TinyBase(32, alphabet=alphabet), tmp_path / name)
    one, two, three = (load_base(str(tmp_path / name), "fp32") for name in ("one", "two", "three"))
    check_tokens(one, two)
    check_tokens(one, TinyBase(32, alphabet="abcd"))
    for other in (three, TinyBase(32, alphabet="abdc")):
        with pytest.raises(BaseMismatch, match="different tokens"):
            check_tokens(one, other)


def test_a_model_without_a_list_of_layers_is_refused(tiny):
    odd = Base("odd", "0", tiny.model, tiny.tokenizer)
    odd.model = copy.deepcopy(tiny.model)
    odd.model.config.num_hidden_layers = 7
    with pytest.raises(BadBase, match="`odd` does not keep its 7 layers in one list"):
        _ = odd.stack


def test_a_bf16_anchor_stays_in_bf16(pair):

    anchor = Base("bf16", "0", copy.deepcopy(pair[0].model).to(torch.bfloat16), pair[0].tokenizer)
    both = bridged(anchor, pair[1])
    assert hidden(both, [LONG]).dtype == torch.bfloat16
    same = [replace(one, weights=Weights.fresh(64, 32, torch.Generator())) for one in both.crossings]
    new = BridgedBase(anchor, both.augment, same)
    assert torch.equal(hidden(new, [LONG]), hidden(anchor, [LONG]))


def test_the_smaller_window_counts(pair):
    short = bridged(pair[0], TinyBase(32, window=20))
    assert short.window == 20
    with pytest.raises(BadData, match=r"longer than the window of .*\(20\)"):
        short.encode_pair("a" * 30, "b")
