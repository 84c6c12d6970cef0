"""The learning loop: goes on bit for bit after any stop, believes no state that is not its own, stops at nonsense."""

import math

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file

from skillweave.errors import SkillweaveError
from skillweave.learn.batches import Batch
from skillweave.learn.loop import Group, Log, Plan, Run, rate, train
from skillweave.learn.rollout import together

PLAN = Plan(20, save_every=0.0)


def start():
    draw = torch.Generator().manual_seed(0)
    return [Group({"a": torch.randn(3, 4, generator=draw).requires_grad_()}, 0.1),
            Group({"b": torch.randn(4, generator=draw).requires_grad_()}, 0.01)]  # fmt: skip


def batch(step):
    draw = torch.Generator().manual_seed(step)
    return Batch(torch.randint(0, 9, (2, 4), generator=draw), torch.arange(3), torch.zeros(3, dtype=torch.long), 7)


def run(plan=PLAN, state=None, key="k", groups=None, batch=batch, tick=lambda n, t: None, rates=None):
    groups = groups or start()
    (a,), (b,) = (group.tensors.values() for group in groups)
    log = train(
        lambda x: (x.tokens.float() @ (a @ b).repeat(4, 1)[:, :2]).square().mean(), groups, batch, plan, Run(state, key, tick),
        **({"rates": rates(groups)} if rates else {}),
    )  # fmt: skip
    return groups, log


def same(one, other):
    (groups, log), (others, another) = one, other
    tensors = zip((t for g in groups for t in g.tensors.values()), (t for g in others for t in g.tensors.values()), strict=True)
    assert all(torch.equal(x, y) for x, y in tensors)
    assert (log.loss, log.tokens, log.padding, log.labels) == (another.loss, another.tokens, another.padding, another.labels)
    return True


def differ(one, other):
    with pytest.raises(AssertionError):
        same(one, other)
    return True


def dies_at(step):
    def asked(number):
        if number == step:
            raise KeyboardInterrupt
        return batch(number)

    return asked


def test_it_learns_and_counts():
    groups, log = run()
    assert log.loss[-1] < log.loss[0] / 2
    assert (len(log.loss), log.tokens, log.padding, log.labels) == (20, 140, 20, 60)
    assert log.seconds > 0
    assert same((groups, log), run())


@pytest.mark.parametrize("stops", [(1,), (7,), (19,), (20,), (3, 4, 11)])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, stops):
    for stop in stops:
        _, log = run(Plan(20, stop=stop, save_every=99.0), tmp_path / "state")
        assert len(log.loss) == stop
    assert same(run(PLAN, tmp_path / "state"), run())


def by_weight(groups):
    """Every five steps the first group gets a rate that depends on where its tensor is; the second has none after ten."""
    tensor = groups[0].tensors["a"]
    return lambda step: None if step % 5 else [tensor.detach().abs().mean().item(), float(step < 10)]


def test_rates_change_on_the_way():
    (_, b), log = run(rates=by_weight)
    assert [step for step, *_ in log.rates] == [0, 5, 10, 15] and log.rates[2][2] == 0
    assert torch.equal(b.tensors["b"], run(Plan(20, stop=10), rates=by_weight)[0][1].tensors["b"])
    assert same(run(rates=lambda groups: lambda step: [1, 1]), run())
    assert differ(run(rates=by_weight), run())


@pytest.mark.parametrize("stop", [3, 5, 12])
def test_a_stopped_run_remembers_its_rates(tmp_path, stop):
    run(Plan(20, stop=stop), tmp_path / "state", rates=by_weight)
    again = run(PLAN, tmp_path / "state", rates=by_weight)
    assert same(again, run(rates=by_weight)) and again[1].rates == run(rates=by_weight)[1].rates


@pytest.mark.parametrize("step", [1, 8, 19])
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, step):
    with pytest.raises(KeyboardInterrupt):
        run(PLAN, tmp_path / "state", batch=dies_at(step))
    asked = []
    again = run(PLAN, tmp_path / "state", batch=lambda number: asked.append(number) or batch(number))
    assert same(again, run())
    assert asked == list(range(step, 20))


def test_states_are_saved_no_more_often_than_asked(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Plan(20, save_every=99.0), tmp_path / "state", batch=dies_at(15))
    assert not (tmp_path / "state").exists()


def test_a_finished_run_is_not_run_again(tmp_path):
    done = run(PLAN, tmp_path / "state")
    assert same(run(PLAN, tmp_path / "state", batch=lambda step: pytest.fail("asked")), done)


def test_a_resumed_run_says_how_far_it_is(tmp_path):
    run(Plan(20, stop=7), tmp_path / "state")
    ticks = []
    run(PLAN, tmp_path / "state", tick=lambda steps, note: ticks.append((steps, note)))
    assert ticks[0] == (7, "") and [steps for steps, _ in ticks[1:]] == [1] * 13
    assert "loss" in ticks[1][1] and "tokens/s" in ticks[1][1]


def test_time_adds_up_over_resumes(tmp_path):
    _, first = run(Plan(20, stop=19), tmp_path / "state")
    _, whole = run(PLAN, tmp_path / "state")
    assert whole.seconds > first.seconds


def test_the_state_of_another_key_is_not_used(tmp_path):
    run(Plan(20, stop=7), tmp_path / "state", key="other")
    assert same(run(PLAN, tmp_path / "state"), run())


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def edit(change, about=lambda metadata: metadata):
    def spoil(path):
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, about(metadata))

    return spoil


def reshape(tensors):
    tensors["b"] = torch.zeros(1)


SPOILED = {
    "truncated": cut,
    "empty": lambda path: path.write_bytes(b""),
    "not safetensors": lambda path: path.write_text("hello"),
    "no metadata": edit(lambda tensors: None, lambda metadata: None),
    "a log that is not JSON": edit(lambda tensors: None, lambda metadata: metadata | {"log": "{"}),
    "a log of another version": edit(lambda tensors: None, lambda metadata: metadata | {"log": '{"other": 1}'}),
    "no log": edit(lambda tensors: None, lambda metadata: {"key": "k"}),
    "a tensor missing": edit(lambda tensors: tensors.pop("b")),
    "a moment missing": edit(lambda tensors: tensors.pop("b:v")),
    "another shape": edit(reshape),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_state_that_is_not_whole_is_not_used(tmp_path, how):
    run(Plan(20, stop=7), tmp_path / "state")
    SPOILED[how](tmp_path / "state")
    assert same(run(PLAN, tmp_path / "state"), run())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_state(tmp_path, value):
    def loss(data):
        return (groups[0].tensors["a"] * (value if data.tokens[0, 0] == -1 else 1.0)).square().sum()

    def asked(step):
        made = batch(step)
        return Batch(made.tokens * 0 - int(step == 5), made.rows, made.labels, made.real)

    groups = start()[:1]
    with pytest.raises(SkillweaveError, match=rf"the loss is {value} at step 5.*--lr"):
        train(loss, groups, asked, PLAN, Run(tmp_path / "state", "k"))
    saved = load_file(tmp_path / "state")
    assert torch.isfinite(saved["a"]).all() and torch.equal(saved["a"], groups[0].tensors["a"])
    with safe_open(tmp_path / "state", "pt") as file:
        assert file.metadata()["log"].count(",") >= 5


def test_the_rate_rises_then_falls_and_never_ends():
    course = [rate(step, Plan(100)) for step in range(100)]
    assert course[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert course[5] == 1.0 and course[52] == pytest.approx(48 / 95) and course[99] == pytest.approx(1 / 95)
    assert all(a > b for a, b in zip(course[5:], course[6:], strict=False))
    assert rate(0, Plan(1)) == 1.0


def test_each_group_has_its_rate():
    before, (after, _) = start(), run(Plan(1))
    steps = [(after[k].tensors[name] - before[k].tensors[name]).abs().max().item() for k, name in enumerate(("a", "b"))]
    assert steps == pytest.approx([0.1, 0.01], rel=1e-3)


def test_the_gradient_is_clipped():
    value = torch.zeros(1, requires_grad=True)
    groups = [Group({"x": value}, 0.1)]
    seen = []
    value.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.item()))
    train(lambda data: (value * 1000).sum(), groups, batch, Plan(1, clip=0.5))
    assert seen == [1000] and value.grad.item() == pytest.approx(0.5)


def test_a_log_starts_at_nothing():
    counts = dict.fromkeys(("tokens", "padding", "labels", "idle", "samples", "drawn"), 0)
    assert vars(Log()) == {"loss": [], "rates": [], "rows": [], "seconds": 0.0, "cpu_seconds": 0.0, **counts}


def test_a_gradient_that_is_no_number_stops_before_it_is_used(tmp_path):
    """A finite loss with an infinite slope: √x at zero."""
    value = torch.zeros(1, requires_grad=True)
    with pytest.raises(SkillweaveError, match=r"the gradient is inf at step 0.*--lr"):
        train(lambda data: value.sqrt().sum(), [Group({"x": value}, 0.1)], batch, Plan(3), Run(tmp_path / "state"))
    assert value.item() == 0 and not (tmp_path / "state").exists()


class Counter:
    """Remembers how often it was asked."""

    def __init__(self):
        self.asked = 0

    def saved(self):
        return {"asked": self.asked}

    def restore(self, saved):
        self.asked = saved["asked"]


def test_what_a_method_remembers_goes_on_with_the_run(tmp_path):
    def run(stop: int | None) -> tuple[float, int]:
        value, memory = torch.zeros(1, requires_grad=True), Counter()

        def counted(step):
            memory.asked += 1
            return batch(step)

        def loss(data):
            return (value * memory.asked).sum()

        groups, plan = [Group({"x": value}, 0.1)], Plan(6, optimiser="sgd", clip=1e9, steady=True, stop=stop)
        train(loss, groups, counted, plan, Run(tmp_path / "state", "key"), memory=memory)
        return value.item(), memory.asked

    run(4)
    resumed = run(None)
    (tmp_path / "state").unlink()
    assert resumed == run(None) and resumed[1] == 6


def test_an_idle_step_leaves_weights_and_optimiser_alone(tmp_path):
    """Every other batch has no pieces; the rest learn as if the idle steps were not there, resumed or not."""
    idle = together([], 0)

    def run(steps, skip, stop=None):
        value = torch.ones(1, requires_grad=True)
        plan = Plan(steps, steady=True, stop=stop)
        state = Run(tmp_path / f"{steps}", "key")
        batches = {True: lambda step: idle if step % 2 else batch(step), False: batch}[skip]
        return value, train(lambda data: (value**2).sum(), [Group({"x": value}, 0.1)], batches, plan, state)

    plain, _ = run(3, False)
    run(6, True, 3)
    gappy, log = run(6, True)
    assert gappy.item() == plain.item() != 1 and log.idle == 3 and log.loss[1::2] == [0, 0, 0]
