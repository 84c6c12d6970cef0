"""Strengths by sample, token and router, held against a loop over samples; all kernels agree; a cache that is never stale."""

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skillweave import calibration
from skillweave.bank import SkillBank
from skillweave.base import TinyBase
from skillweave.calibration import Shares
from skillweave.composition import Active
from skillweave.delta import Factors, LowRank
from skillweave.errors import BadOption, NotFound
from skillweave.kernels import Store, buckets
from skillweave.measure.score import evaluate
from skillweave.strength import Choice, PerSample, PerToken, Routed, mix
from skillweave.tasks import load_task

Q0, UP1, DOWN2 = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj", "model.layers.2.mlp.down_proj"
KERNELS = {"gathered": Shares({1: 2.0}), "stacked": Shares({1: 0.0}), "as it comes": calibration.DEFAULT}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def tokens(batch: int, time: int = 5, seed: int = 0):
    return torch.randint(4, 90, (batch, time), generator=torch.Generator().manual_seed(seed))


def rows(base, batch, mask=None):
    """Last hidden states (sample, time, width)."""
    return base.hidden(batch, mask)


def alone(base, bank, alpha, batch, mask=None):
    """The same, each sample in a forward of its own with constant strengths `alpha` (sample, skill[, layer])."""
    out = []
    for i in range(len(batch)):
        with bank.on(alpha[i]):
            out.append(base.hidden(batch[i : i + 1], None if mask is None else mask[i : i + 1]))
    return torch.cat(out)


def chosen(skill, skills, weight=None):
    """Choices as strengths (sample, skill)."""
    skill = skill.reshape(len(skill), -1)
    alpha = torch.zeros(len(skill), skills)
    for i, one in enumerate(skill.tolist()):
        for j, k in enumerate(one):
            if k >= 0:
                alpha[i, k] += 1.0 if weight is None else weight.reshape(skill.shape)[i, j]
    return alpha


@pytest.fixture(scope="module")
def library(tiny, random_skill):
    """Skills of ranks 2, 5, 1, 2, 2; the third touches two layers, the last lacks the layers of the third."""
    rest = [slot for slot in tiny.linears if slot not in (Q0, UP1)]
    return {
        "a": random_skill(tiny, 1, 2),
        "b": random_skill(tiny, 2, 5, scale=1.5),
        "c": random_skill(tiny, 3, 1, [Q0, UP1]),
        "d": random_skill(tiny, 4, 2),
        "e": random_skill(tiny, 5, 2, rest),
    }


@pytest.fixture(params=KERNELS)
def bank(request, tiny, library):
    made = SkillBank(tiny, library)
    made.shares = KERNELS[request.param]
    return made


@pytest.mark.parametrize(
    "skill",
    [
        [0, 1, 2, 3, 4, -1],
        [-1, -1, -1, -1, -1, -1],
        [3, 3, 3, 3, 3, 3],
        [1, 0, 0, 1, 0, 0],
        [4, -1, 4, -1, 2, 2],
        [0, 0, 0, 0, 0, 1, 1, 1, 4, 4, 4, 4, 0, 2],
    ],
    ids=str,
)
def test_a_skill_for_each_sample_is_a_loop_over_samples(tiny, bank, skill):
    batch, skill = tokens(len(skill)), torch.tensor(skill)
    with bank.on(Choice(skill)):
        assert torch.allclose(rows(tiny, batch), alone(tiny, bank, chosen(skill, 5), batch), **CLOSE)


def test_several_weighted_skills_for_each_sample(tiny, bank):
    batch, skill = tokens(4), torch.tensor([[0, 1], [2, -1], [4, 4], [-1, -1]])
    weight = torch.tensor([[0.5, -1.0], [2.0, 9.0], [0.25, 0.5], [1.0, 1.0]])
    wanted = alone(tiny, bank, chosen(skill, 5, weight), batch)
    with bank.on(Choice(skill, weight)):
        assert torch.allclose(rows(tiny, batch), wanted, **CLOSE)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_choice_with_any_padding_is_a_loop_over_samples(tiny, library, data):
    bank = SkillBank(tiny, library)
    bank.shares = data.draw(st.sampled_from(list(KERNELS.values())))
    skill = torch.tensor(data.draw(st.lists(st.integers(-1, 4), min_size=1, max_size=12)))
    real = data.draw(st.lists(st.integers(1, 6), min_size=len(skill), max_size=len(skill)))
    left = data.draw(st.booleans())
    mask = torch.tensor([[0] * (6 - n) + [1] * n if left else [1] * n + [0] * (6 - n) for n in real])
    batch = tokens(len(skill), 6) * mask
    with bank.on(Choice(skill)):
        ours = rows(tiny, batch, mask)
    for i, n in enumerate(real):
        here = slice(6 - n, 6) if left else slice(0, n)
        wanted = alone(tiny, bank, chosen(skill[i : i + 1], 5), batch[i : i + 1, here])
        assert torch.allclose(ours[i : i + 1, here], wanted, **CLOSE)


@pytest.mark.parametrize("by_layer", [False, True])
def test_strengths_for_each_sample(tiny, bank, by_layer):
    draw = torch.Generator().manual_seed(3)
    alpha = torch.rand(6, 5, *([tiny.layers] if by_layer else []), generator=draw) * 2 - 1
    alpha[alpha.abs() < 0.4] = 0
    alpha[2] = 0
    batch = tokens(6)
    with bank.on(PerSample(alpha)):
        assert torch.allclose(rows(tiny, batch), alone(tiny, bank, alpha, batch), **CLOSE)


def test_strengths_for_each_token(tiny, bank):
    """Per token: each token of a sample on its own layer input is a row of its own, so one layer is enough to compare."""
    alpha = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(3)).round(decimals=1)
    alpha[:, :, 1] = 0
    layer, x = tiny.linears[UP1], torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(4))
    with bank.on(PerToken(alpha)):
        ours = layer(x)
    for i in range(2):
        for t in range(5):
            with bank.on(alpha[i, t]):
                assert torch.allclose(ours[i, t], layer(x[i, t]), **CLOSE)
    same = torch.tensor([0.5, 0.0, -1.0, 2.0, 1.0])
    with bank.on(PerToken(same.expand(2, 5, 5))):
        ours = rows(tiny, tokens(2))
    with bank.on(same):
        assert torch.allclose(ours, rows(tiny, tokens(2)), **CLOSE)


class TopOne(torch.nn.Module):
    """A router of a layer's input: the skill whose direction it points to most, with its strength."""

    def __init__(self, base, skills):
        super().__init__()
        draw = torch.Generator().manual_seed(8)
        widths = {linear.in_features for linear in base.linears.values()}
        self.ways = torch.nn.ParameterDict({str(w): torch.nn.Parameter(torch.randn(w, skills, generator=draw)) for w in widths})

    def forward(self, x, slot):
        alpha = torch.softmax(x @ self.ways[str(x.shape[1])], 1)
        return alpha * (alpha == alpha.amax(1, keepdim=True))


def test_a_router_sees_each_layers_input(tiny, bank):
    router, seen = TopOne(tiny, 5), {}

    def spy(x, slot):
        seen[slot] = (x, router(x, slot))
        return seen[slot][1]

    with torch.no_grad(), bank.on(Routed(spy)):
        ours = rows(tiny, tokens(3))
    assert set(seen) == set(tiny.linears) and all(x.shape[0] == 15 for x, _ in seen.values())
    for slot in (Q0, UP1, DOWN2):
        (x, alpha), layer = seen[slot], tiny.linears[slot]
        with bank.on(Routed(router)):
            whole = layer(x)
        for i in (0, 7, 14):
            with bank.on(alpha[i]):
                assert torch.allclose(whole[i], layer(x[i]), **CLOSE)
    assert not torch.allclose(ours, rows(tiny, tokens(3)), atol=1e-3)


def test_a_router_learns(tiny, library):
    bank, router = SkillBank(tiny, library), TopOne(tiny, 5)
    with bank.on(Routed(router)):
        rows(tiny, tokens(2)).square().mean().backward()
    assert all(way.grad.abs().max() > 0 for way in router.ways.values())


def test_no_skill_is_the_base_bit_for_bit(tiny, bank):
    batch = tokens(4)
    plain = rows(tiny, batch)
    nothing = torch.full((4,), -1)
    for off in (Choice(nothing), PerSample(torch.zeros(4, 5)), PerToken(torch.zeros(4, 5, 5)), torch.zeros(5)):
        with bank.on(off):
            assert torch.equal(rows(tiny, batch), plain)
    with bank.on(Choice(torch.tensor([-1, 0, -1, 1]))):
        mixed = rows(tiny, batch)
    assert torch.equal(mixed[[0, 2]], plain[[0, 2]])
    assert not torch.allclose(mixed[[1, 3]], plain[[1, 3]], atol=1e-3)


@settings(deadline=None, max_examples=20)
@given(order=st.permutations(range(5)), skill=st.lists(st.integers(-1, 4), min_size=4, max_size=4))
def test_a_permuted_library_gives_the_same_answer(tiny, library, order, skill):
    names, skill = list(library), torch.tensor(skill)
    with SkillBank(tiny, library).on(Choice(skill)):
        straight = rows(tiny, tokens(4))
    permuted = SkillBank(tiny, {names[k]: library[names[k]] for k in order})
    with permuted.on(Choice(torch.tensor([order.index(k) if k >= 0 else -1 for k in skill.tolist()]))):
        assert torch.allclose(rows(tiny, tokens(4)), straight, **CLOSE)
    with permuted.on(permuted.choice([names[k] if k >= 0 else None for k in skill.tolist()])):
        assert torch.allclose(rows(tiny, tokens(4)), straight, **CLOSE)


def one_layer():
    """A base of one fp64 layer, three skills on it of ranks 2, 1, 2, its input, and the dense answer for strengths."""
    draw = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64)  # noqa: E731
    base = TinyBase(16)
    slot, layer = next(iter(base.linears.items()))
    layer.double()
    base.linears, base.dtype = {slot: layer}, torch.float64
    parts = [Factors(rand(r, 16).requires_grad_(), rand(16, r).requires_grad_(), s) for r, s in ((2, 0.5), (1, 2.0), (2, 1.5))]
    bank = SkillBank(base, {str(k): LowRank({slot: part}) for k, part in enumerate(parts)})

    def dense(x, alpha):  # alpha (sample, time, skill)
        weights = torch.stack([part.scale * part.b @ part.a for part in parts])
        return layer(x) + torch.einsum("btk,koi,bti->bto", alpha, weights, x)

    return bank, layer, parts, rand(4, 3, 16).requires_grad_(), dense, rand


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", ["choice", "sample", "token", "router"])
def test_gradients_are_those_of_the_dense_formula(kernel, kind):
    bank, layer, parts, x, dense, rand = one_layer()
    bank.shares = KERNELS[kernel]
    skill = torch.tensor([[0, 2], [1, -1], [1, 0], [0, 2]])
    alpha = {"choice": rand(4, 2), "sample": rand(4, 3), "token": rand(4, 3, 3), "router": rand(16, 3)}[kind].requires_grad_()
    strength, shown = {
        "choice": lambda: (Choice(skill, alpha), _spread(skill, alpha)),
        "sample": lambda: (PerSample(alpha), alpha[:, None].expand(4, 3, 3)),
        "token": lambda: (PerToken(alpha), alpha),
        "router": lambda: (Routed(lambda rows, slot: torch.tanh(rows @ alpha)), torch.tanh(x @ alpha)),
    }[kind]()
    wanted = [alpha, x, *(tensor for part in parts for tensor in (part.a, part.b))]
    with bank.on(strength):
        ours = torch.autograd.grad(layer(x).square().sum(), wanted)
    theirs = torch.autograd.grad(dense(x, shown).square().sum(), wanted)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)


def _spread(skill, weight):
    """Weights of choices as (sample, time of 3, skill), by autograd."""
    rows = []
    for one, by in zip(skill.tolist(), weight, strict=True):
        rows.append(sum(torch.eye(3, dtype=torch.float64)[k] * w for k, w in zip(one, by, strict=True) if k >= 0))
    return torch.stack(rows)[:, None].expand(len(rows), 3, 3)


def test_a_skill_that_is_off_for_a_sample_can_learn_to_be_on(tiny, bank):
    alpha = torch.zeros(2, 5, requires_grad=True)
    with bank.on(PerSample(alpha)):
        rows(tiny, tokens(2)).square().sum().backward()
    assert (alpha.grad != 0).all()


def test_only_chosen_skills_learn(tiny, random_skill):
    skills = {name: random_skill(tiny, seed) for seed, name in enumerate("abc")}
    for skill in skills.values():
        for tensor in skill.tensors().values():
            tensor.requires_grad_()
    with SkillBank(tiny, skills).on(Choice(torch.tensor([2, 0]))):
        rows(tiny, tokens(2)).sum().backward()
    assert [all(t.grad is not None for t in skill.tensors().values()) for skill in skills.values()] == [True, False, True]


def test_what_was_gathered_while_generating_can_learn_afterwards(tiny, bank):
    alpha = torch.ones(2, 5, requires_grad=True)
    with bank.on(PerSample(alpha)):
        tiny.generate(["ab", "c"], 2)
        with torch.inference_mode():
            rows(tiny, tokens(2))
        rows(tiny, tokens(2)).square().sum().backward()
    assert (alpha.grad != 0).all()


@pytest.mark.parametrize("prefix", ["", "look: "])
def test_generation_follows_its_sample(loud, random_skill, prefix):
    """Prompts are sorted, batched and leave the batch when done: each still has its own skill, token for token."""
    base = copy.copy(loud(width=64, alphabet="abcdefghij look:"))
    base.eos = base.encode("l")[0]  # one that is written often, so that rows leave
    skills = {name: random_skill(base, seed, 3, scale=0.4) for seed, name in enumerate("xyz")}
    bank = SkillBank(base, skills)
    prompts = ["abc", "a", "abcabcabc", "", "fgh", "abc", "abc", "jjjjjj", "b", "ca"]
    names = ["x", None, "y", "z", "x", "y", "z", None, "y", "x"]
    with bank.on(bank.choice(names)):
        together = base.generate(prompts, 12, prefix, batch=4)
    for prompt, name, answer in zip(prompts, names, together, strict=True):
        with bank.on(bank.choice([name])):
            assert base.generate([prompt], 12, prefix) == [answer]
        with SkillBank(base, {name: skills[name]} if name else {}).on():
            assert base.generate([prompt], 12, prefix) == [answer]
    assert len({together[0], together[5], together[6]}) > 1
    assert len({len(answer) for answer in together}) > 2, "no rows left the batch early"


def test_evaluation_takes_a_skill_for_each_example(tiny, library):
    task = load_task("date", 0)
    examples, bank = task.take(3, "valid"), SkillBank(tiny, library)
    each = evaluate(Active(tiny, bank, bank.choice(["a", None, "b"])), task, examples, shots=examples[:0])
    for i, name in enumerate(["a", None, "b"]):
        assert evaluate(Active(tiny, bank, bank.choice([name])), task, [examples[i]]).answers == each.answers[i : i + 1]


def test_an_exception_inside_a_forward_leaves_nothing(tiny, bank):
    plain, count = rows(tiny, tokens(2)), 0

    def broken(x, slot):
        nonlocal count
        count += 1
        if count > 4:
            raise ZeroDivisionError
        return torch.ones(len(x), 5)

    with pytest.raises(ZeroDivisionError), bank.on(Routed(broken)):
        tiny.generate(["ab"], 2)
    assert count == 5
    assert torch.equal(rows(tiny, tokens(2)), plain)
    with bank.on(Choice(torch.tensor([0, 1]))):
        assert rows(tiny, tokens(2)).isfinite().all(), "the samples of the broken generation are still at hand"


def test_a_batch_of_other_samples_is_refused(tiny, bank):
    with bank.on(Choice(torch.tensor([0, 1]))):
        with pytest.raises(BadOption, match="strengths for 2 samples were given, and `.*` computes"):
            rows(tiny, tokens(3))
        with pytest.raises(BadOption, match=r"this is sample 2 \(from 0\)"):
            tiny.generate(["a", "b", "c"], 1)
    with bank.on(PerToken(torch.ones(2, 5, 5))):
        with pytest.raises(BadOption, match="strengths for 2 x 5 tokens were given, and a layer computes 2 x 4"):
            rows(tiny, tokens(2, 4))
        with pytest.raises(BadOption, match="to generate, use strengths per sample or a router"):
            tiny.generate(["a", "b"], 1)


def test_strengths_that_cannot_be_meant_are_refused(tiny, bank):
    for strength, words in [
        (torch.ones(4), "strengths for 4 skills were given, and the bank has 5"),
        (torch.ones(5, 2), "strengths for 2 layers were given, and the base has 3"),
        (PerSample(torch.ones(2, 4)), "strengths for 4 skills"),
        (PerSample(torch.ones(2, 5, 9)), "strengths for 9 layers"),
        (PerToken(torch.ones(2, 5, 6)), "strengths for 6 skills"),
        (Choice(torch.tensor([0, 5])), "skill 5 was chosen from a bank of 5"),
        (Choice(torch.tensor([0, -2])), "skill -2 was chosen"),
        (Choice(torch.tensor([[0, 1]]), torch.ones(1)), r"weights of shape \(1,\)"),
        (Routed(lambda x, slot: torch.ones(len(x), 4)), "strengths for 4 skills"),
        (Routed(lambda x, slot: torch.ones(3, 5)), r"the router gave \(3, 5\) for 10 rows"),
    ]:
        with pytest.raises(BadOption, match=words), bank.on(strength):
            rows(tiny, tokens(2))
    with pytest.raises(NotFound, match="no skill `x` in the bank"):
        bank.choice(["a", "x"])


def test_cost_follows_the_skills_in_use(tiny, random_skill):
    """A batch of 3 skills makes the same copies in a bank of 4 and of 64."""
    made = []
    for count in (4, 64):
        bank = SkillBank(tiny, {str(k): random_skill(tiny, k, 2) for k in range(count)})
        bank.shares = KERNELS["gathered"]
        with torch.no_grad(), bank.on(Choice(torch.tensor([3, 1, -1, 0]))):
            rows(tiny, tokens(4))
        made.append((len(bank.store), bank.store.bytes))
    assert made[0] == made[1] and made[0][0] == len(tiny.linears)


def test_no_rank_is_padded_and_few_copies_are_made():
    mixed = buckets([(0,), (1,), (0, 1), (2,), (), (0,)], [2, 5, 0])
    assert {bucket.groups for bucket in mixed} == {((0,), (0,)), ((1,),), ((0, 1),)}
    every = buckets([(k,) for k in range(8)], [4] * 8)
    assert [bucket.rows for bucket in every] == [None]
    (shared,) = buckets([(k % 4,) for k in range(62)] + [(), ()], [4] * 4)
    assert len(shared.groups) <= 8 and len(shared.rows) <= 2 * 62 and len(shared.targets) == 62


def test_a_copy_is_used_again_and_dropped_when_a_skill_changes(tiny, random_skill):
    skills = {name: random_skill(tiny, seed, 2) for seed, name in enumerate("abc")}
    bank, batch = SkillBank(tiny, skills), tokens(3)
    bank.shares = KERNELS["gathered"]

    def answer():
        with torch.no_grad(), bank.on(Choice(torch.tensor([0, 1, 2]))):
            return rows(tiny, batch)

    first = answer()
    kept = [entry[3][0] for entry in bank.store._kept.values()]
    assert torch.equal(answer(), first)
    assert all(one is entry[3][0] for one, entry in zip(kept, bank.store._kept.values(), strict=True))
    with torch.no_grad():
        skills["a"].factors[Q0].b.mul_(-1)  # as an optimiser does
    second = answer()
    assert not torch.allclose(second[0], first[0], atol=1e-4) and torch.allclose(second[1:], first[1:], **CLOSE)
    bank.put("b", skills["c"])
    assert len(bank.store) == bank.store.bytes == 0
    assert torch.allclose(answer(), alone(tiny, bank, torch.eye(3), batch), **CLOSE)
    bank.drop("a")
    assert len(bank.store) == 0 and bank.names == ("b", "c")
    with pytest.raises(NotFound, match="no skill `a` in the bank"):
        bank.drop("a")


def test_a_write_inside_the_block_is_seen(tiny, random_skill):
    skill = random_skill(tiny, 1, 2)
    bank = SkillBank(tiny, {"a": skill})
    bank.shares = KERNELS["gathered"]
    with torch.no_grad(), bank.on(Choice(torch.tensor([0, -1]))):
        first = rows(tiny, tokens(2))
        skill.factors[Q0].a.mul_(2)
        assert not torch.allclose(rows(tiny, tokens(2))[0], first[0], atol=1e-5)


def test_the_store_keeps_to_its_bytes():
    store = Store(cap=100)
    new = lambda: (torch.zeros(5), torch.zeros(5))  # noqa: E731  (40 bytes)
    tensors = [torch.zeros(1)]
    store.get(("a",), tensors, new), store.get(("b",), tensors, new), store.get(("c",), tensors, new)
    assert ({key for (key,) in store._kept}, store.bytes) == ({"a", "b"}, 80), "copies of one block push each other out"
    store.turn += 1
    store.get(("a",), tensors, new), store.get(("d",), tensors, new)
    assert {key for (key,) in store._kept} == {"a", "d"}, "the oldest of another block goes"
    store.get(("big",), tensors, lambda: (torch.zeros(50), torch.zeros(1)))
    assert store.bytes <= 100
    before = store.get(("a",), tensors, new)
    assert store.get(("a",), tensors, new)[0] is before[0]
    assert store.get(("a",), [torch.zeros(1)], new)[0] is not before[0], "equal is not the same"


def test_a_tensor_that_learns_or_cannot_tell_is_never_kept():
    store, learning = Store(1000), torch.zeros(2, requires_grad=True)
    with torch.inference_mode():
        silent = torch.zeros(2)
    for tensor in (learning, silent):
        store.get(("x",), [tensor], lambda t=tensor: (t * 2, t * 3))
    assert len(store) == 0


def test_calibration_is_kept_and_used(tiny, library, monkeypatch, tmp_path):
    monkeypatch.setenv("SKILLWEAVE_CACHE", str(tmp_path))
    measured = {1: 0.1, 16: 0.5, 128: 0.9}
    monkeypatch.setattr(calibration, "_measure", lambda tokens, kind: measured[tokens])
    assert SkillBank(tiny, library).shares == calibration.DEFAULT
    bank = SkillBank(tiny, library)
    assert bank.calibrate() == bank.shares == SkillBank(tiny, library).shares == Shares(measured)
    (path,) = (tmp_path / "kernels").iterdir()
    assert json.loads(path.read_text())["kind"] == "torch.float32"
    assert calibration.shares(torch.bfloat16) == calibration.DEFAULT
    used = []
    monkeypatch.setattr("skillweave.edits.stacked", lambda y, *rest: used.append("stacked") or y)
    monkeypatch.setattr("skillweave.edits.gathered", lambda y, *rest: used.append("gathered") or y)
    for time, kernel in ((1, "stacked"), (40, "gathered"), (100, "gathered")):
        used.clear()
        with torch.no_grad(), SkillBank(tiny, library).on(Choice(torch.tensor([0, 1, 3]))):
            rows(tiny, tokens(3, time))
        assert set(used) == {kernel}
    path.write_text("broken")
    assert SkillBank(tiny, library).shares == calibration.DEFAULT


def test_a_measurement_gives_a_share(monkeypatch):
    monkeypatch.setattr(calibration, "REPEATS", 1)
    monkeypatch.setattr(calibration, "USED", (2, 16))
    assert 1 / 16 <= calibration._measure(2, torch.float32) <= 1 / 2


@pytest.mark.parametrize(("limit", "skills"), [(0.5, 2), (2.0, 2), (3.0, 3), (6.0, 6), (7.0, 7), (99.0, 8)])
def test_the_share_is_where_both_cost_the_same(limit, skills):
    assert calibration._crossing({2: 2.0, 4: 4.0, 8: 8.0}, limit) == pytest.approx(skills)


def test_the_nearest_number_of_tokens_counts():
    shares = Shares({1: 0.1, 16: 0.5, 128: 0.9})
    assert [shares.at(tokens) for tokens in (1, 3, 5, 40, 60, 1000)] == [0.1, 0.1, 0.5, 0.5, 0.9, 0.9]


def test_a_share_is_of_the_skills_in_use():
    assert mix(Choice(torch.tensor([3, 7, -1, 9])), 512, 1).share == pytest.approx(1 / 3)
    assert mix(Choice(torch.tensor([[3, 7], [7, -1]])), 512, 1).share == pytest.approx(3 / 4)
    assert mix(Choice(torch.tensor([-1])), 4, 1).used == ()


@pytest.mark.parametrize("time", [3, 40])
@pytest.mark.parametrize("kernel", ["gathered", "stacked"])
def test_bf16_is_as_right_as_one_rounding(random_skill, time, kernel):
    """Against fp32 on the same weights: not more than 1.2 times the error of a low-rank part that is all in fp32."""
    exact, base = TinyBase(64), TinyBase(64)
    base.model.bfloat16()
    base.dtype = torch.bfloat16
    exact.model.load_state_dict({name: tensor.float() for name, tensor in base.model.state_dict().items()})
    skills = {str(k): random_skill(base, k, 4) for k in range(4)}
    batch, alpha = tokens(4, time), torch.eye(4)
    bank = SkillBank(base, skills)
    bank.shares = KERNELS[kernel]
    wanted = alone(exact, SkillBank(exact, skills), alpha, batch)
    with bank.on(Choice(torch.arange(4))):
        ours = rows(base, batch).float()
    peers = [_summed_in_fp32(base, skills[str(k)], batch[k : k + 1]) for k in range(4)]
    assert (ours - wanted).norm() <= 1.2 * (torch.cat(peers).float() - wanted).norm()


def _summed_in_fp32(base, skill, batch):
    """Hidden states with y = W x in bf16, the low-rank part and the sum in fp32, rounded at the end."""
    from skillweave.base import edited

    def edit(x, weight, bias, f):
        return (torch.nn.functional.linear(x, weight, bias) + f.scale * (x.float() @ f.a.t()) @ f.b.t()).to(x.dtype)

    with edited({slot: lambda *args, f=f: edit(*args, f) for slot, f in skill.factors.items()}):
        return base.hidden(batch)
