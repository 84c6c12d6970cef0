"""Arrow and the learned router: where they send a token, what they find, and what they refuse."""

import pytest
import torch

from skillweave.compose import router, routing
from skillweave.compose.arrow import Arrow, direction
from skillweave.compose.router import Router
from skillweave.compose.routing import TopK, present
from skillweave.delta import Factors, LowRank
from skillweave.delta_full import Dense
from skillweave.errors import BadData, BadOption
from skillweave.task import Example


@pytest.fixture(scope="module")
def skills(loud, random_skill):
    base = loud(alphabet="abcdefgh")
    return {name: random_skill(base, seed, scale=2.0) for name, seed in (("a", 1), ("b", 2), ("c", 3))}


@pytest.fixture(scope="module")
def base(loud):
    return loud(alphabet="abcdefgh")


@pytest.mark.parametrize("shape", [(3, 40, 30), (1, 20, 20), (12, 8, 10), (12, 10, 8)])
def test_a_direction_is_the_first_right_singular_vector(shape):
    rank, outside, inside = shape
    draw = torch.Generator().manual_seed(0)
    f = Factors(torch.randn(rank, inside, generator=draw), torch.randn(outside, rank, generator=draw), -0.7)
    wanted = torch.linalg.svd(f.dense())[2][0]
    assert abs(direction(f) @ wanted).item() == pytest.approx(1, abs=1e-5)


def test_the_direction_of_nothing_is_nothing():
    assert torch.equal(direction(Factors(torch.ones(2, 5), torch.zeros(4, 2), 1.0)), torch.zeros(5))


def test_scores_become_strengths_of_the_best():
    rows = {"x": torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])}
    everyone = {"x": torch.tensor([True, True, True])}
    x = torch.tensor([[1.0, 1.0], [0.0, 5.0]])
    arrow = TopK(rows, everyone, 2, 0.5, True)(x, "x")
    best = torch.tensor([3.0, 2.0]).div(0.5).softmax(0)
    assert torch.allclose(arrow[0], torch.tensor([0.0, best[1], best[0]]))
    assert arrow[1, 1] == pytest.approx(1) and arrow.sum(1).tolist() == pytest.approx([1, 1])
    learned = TopK(rows, everyone, 2, 1.0, False)(x, "x")
    best = torch.tensor([2.0, 1.0]).div(2**0.5).softmax(0)
    assert torch.allclose(learned[0], torch.tensor([best[1], best[0], 0.0]))


def test_a_skill_takes_no_part_in_a_layer_that_it_does_not_change():
    here = {"x": torch.tensor([True, False, False])}
    alpha = TopK({"x": -torch.ones(3, 2)}, here, 2, 1.0, False)(torch.ones(4, 2), "x")  # its score is below theirs of zero
    assert torch.equal(alpha, torch.tensor([[1.0, 0.0, 0.0]]).expand(4, 3))


def test_arrow_is_what_its_formula_says_in_every_layer(base, skills):
    """Hidden states against dense changes of weights, their own singular vectors and a loop over tokens."""
    skills = {**skills, "c": LowRank(dict(list(skills["c"].factors.items())[:7]))}
    woven, log = Arrow(top_k=2, temperature=0.5).fit(base, skills, [Example("ab", "c")], 0)
    tokens = torch.tensor([[1, 5, 6, 7], [1, 11, 9, 8]])
    use = woven.use(base, skills)
    with use.on(["ab", "ab"]):
        ours = base.hidden(tokens)

    from skillweave.base import edited

    def edit(slot, x, weight, bias):
        y = torch.nn.functional.linear(x, weight, bias)
        dense = [skill.factors[slot].dense() for skill in skills.values() if slot in skill.factors]
        tops = torch.stack([torch.linalg.svd(change)[2][0] for change in dense])
        for row in range(x.shape[0]):
            for time in range(x.shape[1]):
                scores = (tops @ x[row, time]).abs()
                order = scores.argsort(descending=True)[:2]
                for share, k in zip((scores[order] / 0.5).softmax(0), order.tolist(), strict=True):
                    y[row, time] += share * dense[k] @ x[row, time]
        return y

    slots = dict.fromkeys(slot for skill in skills.values() for slot in skill.factors)
    with edited({slot: lambda x, w, b, slot=slot: edit(slot, x, w, b) for slot in slots}):
        wanted = base.hidden(tokens)
    assert torch.allclose(ours, wanted, rtol=1e-3, atol=1e-3) and log.loss == []
    assert not torch.allclose(ours, base.hidden(tokens), atol=1e-1)


def test_generation_routes_each_token_as_one_forward_does(base, skills):
    woven, _ = Arrow().fit(base, skills, [Example("ab", "c")], 0)
    use = woven.use(base, skills)
    prompts = ["ab", "hgfed", "c"]
    for prompt, answer in zip(prompts, use.generate(prompts, 4), strict=True):
        tokens = base.encode(prompt, start=True)
        with use.on([prompt]):
            for _ in range(4):
                tokens.append(int(base.logits(base.hidden(torch.tensor([tokens]))[:, -1]).argmax()))
        made = tokens[-4:]
        assert base.decode(made[: made.index(base.eos)] if base.eos in made else made) == answer


def test_strengths_are_means_by_layer_and_sum_to_one(base, skills):
    some = {**skills, "c": LowRank({s: f for s, f in skills["c"].factors.items() if base.layer_of(s) == 1})}
    woven, _ = Arrow().fit(base, some, [Example(prompt, "a") for prompt in ("ab", "hgf", "c")], 0)
    assert woven.strengths.shape == (3, base.layers)
    assert torch.allclose(woven.strengths.sum(0), torch.ones(base.layers), atol=1e-5)
    assert (woven.strengths[2] > 0).tolist() == [layer == 1 for layer in range(base.layers)]


def test_a_router_learns_which_skill_is_wanted(taught, prompts):
    base, skills = taught
    woven, log = Router(steps=40).fit(base, skills, [Example(prompt, "hb") for prompt in prompts[::11]], 0)
    assert sum(log.loss[-10:]) < sum(log.loss[:10]) - 10
    assert (woven.strengths[1] > woven.strengths[[0, 2]]).all() and woven.strengths[1].mean() > 0.5
    assert not any(row.requires_grad for row in woven.router.rows.values())


@pytest.fixture(scope="module")
def examples(prompts):
    return [Example(prompt, "hb") for prompt in prompts[::11]]


def test_the_same_seed_gives_the_same_router(base, skills, examples):
    first, again, other = (Router(steps=2, batch=4).fit(base, skills, examples, seed)[0].router.rows for seed in (0, 0, 1))
    assert all(torch.equal(first[slot], again[slot]) for slot in first)
    assert not any(torch.equal(first[slot], other[slot]) for slot in first)


def test_an_interrupted_router_goes_on_bit_for_bit(base, skills, examples, stopped):
    method = Router(steps=5, batch=4)
    whole, log = method.fit(base, skills, examples, 0)
    again, resumed = stopped(router, lambda run: method.fit(base, skills, examples, 0, {}, run))
    assert log.loss == resumed.loss
    assert all(torch.equal(row, again.router.rows[slot]) for slot, row in whole.router.rows.items())


METHODS = {"arrow": Arrow, "router": Router}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_what_cannot_be_routed_gets_a_sentence(base, skills, examples, method):
    with pytest.raises(BadOption, match="only `a` was given, and a router chooses between skills"):
        method().fit(base, {"a": skills["a"]}, examples, 0)
    for top_k in (0, 4):
        with pytest.raises(BadOption, match=f"top_k is {top_k}, but with 3 skills it can be 1 to 3"):
            method(top_k=top_k).fit(base, skills, examples, 0)
    table = LowRank(
        {base.table_slot: Factors(torch.ones(1, len(base.table)), torch.ones(base.table.shape[1], 1), 1.0, lookup=True)}
    )
    with pytest.raises(BadOption, match="`d` changes the embeddings or the head"):
        method().fit(base, {"a": skills["a"], "d": table}, examples, 0)


def test_arrow_needs_a_temperature_and_a_router_examples(base, skills):
    with pytest.raises(BadOption, match="temperature is 0, but has to be above 0"):
        Arrow(temperature=0.0).fit(base, skills, [], 0)
    with pytest.raises(BadData, match="no examples to learn from"):
        Router().fit(base, skills, [], 0)
    woven, _ = Arrow().fit(base, skills, [], 0)
    assert torch.equal(woven.strengths, torch.zeros(3, base.layers)) and set(present(skills)) == set(woven.router.rows)


def test_arrow_needs_factors(base, skills):
    slot = next(iter(base.linears))
    whole = LowRank({}, full={slot: Dense(skills["b"].factors[slot].dense())})
    with pytest.raises(BadOption, match=rf"a dense or sparse change \(`{slot}`\) has no factors"):
        Arrow().fit(base, {"a": skills["a"], "b": whole}, [], 0)


def test_the_report_looks_at_a_few_prompts_cut_to_the_window(base, skills, monkeypatch):
    seen, hidden = [], base.hidden
    monkeypatch.setattr(base, "hidden", lambda tokens: seen.append(tokens.shape[1]) or hidden(tokens))
    long = Example("ab" * base.window, "c")
    woven, _ = Arrow().fit(base, skills, [long, Example("", "c"), *[Example("ab", "c")] * 40], 0)
    assert seen == [base.window, 1, *[3] * (routing.LOOKED_AT - 2)]
    assert torch.allclose(woven.strengths.sum(0), torch.ones(base.layers))
