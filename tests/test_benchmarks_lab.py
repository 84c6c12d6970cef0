"""The arithmetic of benchmarks/lab_speed.py on made-up runs, and that both sides see the same data."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from skillweave.errors import BadOption, SkillweaveError

FILE = Path(__file__).resolve().parent.parent / "benchmarks" / "lab_speed.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("lab_speed", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def one(cpu: float, nats: float = 3.4, peak: float = 100) -> dict:
    return {"tokens": 1000, "cpu": cpu, "wall": 9 * cpu, "peak": peak, "nats": [9.0, nats]}


def rounds(
    bench, ours=(1, 1, 1), fp32=(2, 2, 2), bf16=(3, 3, 3), drawn=(1, 1, 1), peer=(4, 4, 4), nats=3.4, gemm=2e6
) -> list[dict]:
    """Rounds whose sizes are all alike; a token takes 1,000 operations, so that the limit is 2,000 tokens a second."""
    found = []
    for a, b, c, d, e in zip(ours, fp32, bf16, drawn, peer, strict=True):
        mine = {"train": one(a), "sample": one(d, nats), "flops": 1e3, "gemm": gemm}
        sides = {"ours": mine, "trainer": {"train": one(b, peak=200)}, "trainer-bf16": {"train": one(c)}}
        sides["generate"] = {"sample": one(e)}
        found.append({side: dict.fromkeys(bench.SIZES, values) for side, values in sides.items()})
    return found


def rows(bench, **changed) -> dict[str, dict]:
    return {row["job"]: row for row in bench.summary(rounds(bench, **changed))["rows"]}


def test_ratios_are_taken_within_a_round(bench):
    """A slow spell of the machine slows both sides: 2/1, 60/10 and 7/1 have the median 6, not 7/1."""
    row = rows(bench, ours=(1, 10, 1), fp32=(2, 60, 7), bf16=(99,) * 3)["training, 4 M"]
    assert (row["ratio"], row["ours"], row["peer"]) == (6, 1000, pytest.approx(1000 / 7))


def test_the_peer_is_the_faster_trainer(bench):
    assert bench.summary(rounds(bench))["peers"]["1 M"] == bench.TRAINERS["trainer"]
    assert bench.summary(rounds(bench, bf16=(1.5,) * 3))["peers"]["1 M"] == bench.TRAINERS["trainer-bf16"]


def test_every_size_has_its_goals(bench):
    found = rows(bench)
    assert len(found) == 5 * len(bench.SIZES) == 15
    assert [found[f"training, {size}"]["goal"] for size in bench.SIZES] == ["≥ 1.2", "≥ 1.5", "≥ 1.5"]
    assert [found["sampling groups, 1 M"][key] for key in ("ours", "peer", "ratio", "goal", "met")] == [
        1000,
        250,
        4,
        "≥ 3",
        True,
    ]
    memory = found["training, 1 M, peak memory"]
    assert [memory[key] for key in ("ours", "peer", "ratio", "goal", "met")] == [100, 200, 0.5, None, None]
    assert {key for row in found.values() for key in row} == {"job", "ours", "peer", "unit", "ratio", "goal", "met"}


def test_the_limit_is_aimed_at_in_the_largest_size(bench):
    found = rows(bench)
    assert [found["training against the bf16 limit, 14 M"][key] for key in ("peer", "ratio", "met")] == [2000, 2, True]
    assert rows(bench, gemm=4e6)["training against the bf16 limit, 14 M"]["met"] is False
    assert found["training against the bf16 limit, 1 M"]["met"] is None


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, "holds"),
        ({"fp32": (1.3,) * 3}, "partly"),
        ({"peer": (2.9,) * 3}, "partly"),
        ({"nats": 3.45}, "holds"),
        ({"nats": 3.5}, "does not hold"),
        ({"fp32": (1.1,) * 3, "peer": (2.9,) * 3, "gemm": 4e6}, "does not hold"),
    ],
)
def test_verdict(bench, changed, verdict):
    values = bench.summary(rounds(bench, **changed))
    assert bench.verdict(values["rows"], values["agree"]) == verdict


def test_the_trainer_sees_what_pretrain_sees(bench):
    """The same tokens and labels at the same places, and so the same loss."""
    from skillweave.learn.pretrain import text_loss

    base, (batch, _) = bench.small(32, 2), bench.batches(bench.small(32, 2), 2)
    data = bench.rows_of(batch, base.pad)
    assert (data["labels"] != -100).sum() == len(batch.labels) == batch.real
    assert torch.allclose(bench.plain(base)(**data).loss, text_loss(base, batch), atol=1e-5)


def test_every_side_runs_and_says_the_same(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "SIZES", {"1 M": (32, 2), "14 M": (32, 2)})
    found = {}
    for side in bench.SIDES:
        bench.side(side, tmp_path / side, 1)
        found[side] = json.loads((tmp_path / side).read_text())
    values = bench.summary([found])
    assert values["agree"] and len(values["rows"]) == 10
    assert found["ours"]["1 M"]["train"]["tokens"] == found["trainer"]["1 M"]["train"]["tokens"] > 1500
    lengths = [found[side]["1 M"]["sample"]["tokens"] / 256 for side in ("ours", "generate")]
    assert lengths == pytest.approx([27, 27], abs=4)


def test_bad_options_and_broken_sides_get_a_sentence(bench, tmp_path):
    with pytest.raises(BadOption, match="--rounds is 0"):
        bench.compare(rounds=0)
    with pytest.raises(SkillweaveError, match="the side `nobody` ended with code 1: error: no side `nobody`"):
        bench.run("nobody", tmp_path / "found.json", 1)
