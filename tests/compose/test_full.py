"""Whole models merged in chunks are what they would be in one piece."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from skillweave.base import TinyBase
from skillweave.compose import full
from skillweave.compose.full import merge_models
from skillweave.compose.sum import Sum
from skillweave.compose.thin import Dare, DareTies, Knots, Magnitude, Ties, elected, threshold, trim
from skillweave.errors import BadBase, BadOption, BadSkill, BaseMismatch


def tensors(seed, kind=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    shapes = {"embed.weight": (50, 8), "layers.0.q.weight": (8, 8), "norm.weight": (8,)}
    return {name: torch.randn(shape, generator=draw).to(kind) for name, shape in shapes.items()}


def model(folder, weights):
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({name: w.contiguous() for name, w in weights.items()}, folder / "model.safetensors")
    return folder


@pytest.fixture
def three(tmp_path, monkeypatch):
    """A base, two fine-tunes and their weights; chunks of 7 entries."""
    monkeypatch.setattr(full, "CHUNK", 7)
    base = tensors(0) | {"steps": torch.arange(5)}
    tuned = [base | {n: w + 0.1 * tensors(k)[n] for n, w in tensors(0).items()} for k in (1, 2)]
    folders = [model(tmp_path / name, w) for name, w in zip(("base", "one", "two"), (base, *tuned), strict=True)]
    return folders, base, tuned


def merged(tmp_path, folders, method, seed=0):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    merge_models(folders[0], folders[1:], out, method, seed, lambda n, t: None)
    return {name: w.clone() for name, w in load_file(out / "model.safetensors").items()}  # the next call writes the same file


def test_the_sum(three, tmp_path):
    folders, base, (one, two) = three
    for name, got in merged(tmp_path, folders, Sum((0.5, -2.0))).items():
        if name == "steps":
            assert torch.equal(got, base["steps"])
        else:
            assert torch.allclose(got, base[name] + 0.5 * (one[name] - base[name]) - 2 * (two[name] - base[name]), atol=1e-6)
    assert (tmp_path / "out" / "config.json").read_text() == "{}"


@pytest.mark.parametrize("scope", ["layer", "model"])
@pytest.mark.parametrize("kind", [Magnitude, Ties])
def test_thinned_as_in_one_piece(three, tmp_path, kind, scope):
    folders, base, tuned = three
    got = merged(tmp_path, folders, kind(density=0.3, scope=scope))
    names = [name for name in base if name != "steps"]
    for name in names:
        changes = [(t[name] - base[name]).view(1, -1) for t in tuned]
        over = [[t[n] - base[n] for n in (names if scope == "model" else [name])] for t in tuned]
        kept = torch.stack([trim(c, threshold(lambda o=o: o, 0.3)) for c, o in zip(changes, over, strict=True)])
        total = elected(kept) if kind is Ties else kept.sum(0)
        assert torch.allclose(got[name], base[name] + total.view(base[name].shape), atol=1e-6) and total.any()


@pytest.mark.parametrize("kind", [Dare, DareTies])
def test_dropped_by_the_seed(three, tmp_path, kind):
    folders, base, tuned = three
    one, again, other = (merged(tmp_path, folders, kind(density=0.5), seed) for seed in (1, 1, 2))
    name = "embed.weight"
    assert torch.equal(one[name], again[name]) and not torch.equal(one[name], other[name])
    change = merged(tmp_path, folders[:2], kind(density=0.5), 3)[name] - base[name]
    whole = 2 * (tuned[0][name] - base[name])
    assert torch.allclose(change[change.abs() > 1e-6], whole[change.abs() > 1e-6], atol=1e-5)
    assert 0.4 < float((change.abs() > 1e-6).float().mean()) < 0.6


def test_what_is_written_is_a_model(tmp_path):
    """In bf16, over two files with an index, and with its logits."""
    base = TinyBase(32)
    base.model.bfloat16().save_pretrained(tmp_path / "base", max_shard_size="40KB")
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 1
    for linear in base.linears.values():
        linear.weight.data += 0.05 * torch.randn(linear.weight.shape, generator=torch.Generator().manual_seed(0))
    base.model.save_pretrained(tmp_path / "one", max_shard_size="30KB")
    (tmp_path / "out").mkdir()
    merge_models(tmp_path / "base", [tmp_path / "one"], tmp_path / "out", Sum(), 0, lambda n, t: None)
    from transformers import AutoModelForCausalLM

    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16)
    tokens = torch.tensor([[1, 30, 40, 50]])
    assert torch.allclose(again(tokens).logits, base.model(tokens).logits, atol=0.05)


@pytest.mark.parametrize("method", [Knots(), Sum(rank=4)])
def test_methods_that_cannot(three, tmp_path, method):
    with pytest.raises(BadOption, match="whole models are merged by sum, magnitude, ties, dare or dare-ties"):
        merged(tmp_path, three[0], method)


def test_models_that_do_not_go_together(three, tmp_path):
    folders, base, _ = three
    less = model(tmp_path / "less", {name: w for name, w in base.items() if name != "steps"})
    other = model(tmp_path / "other", base | {"norm.weight": torch.zeros(9)})
    for folder, words in ((less, "`steps` is in only one"), (other, r"`norm.weight` is \(8,\) in .* and \(9,\) in")):
        with pytest.raises(BaseMismatch, match=words):
            merged(tmp_path, [folders[0], folder], Sum())
    with pytest.raises(BadBase, match="is not a model folder"):
        merged(tmp_path, [folders[0], tmp_path / "nowhere"], Sum())
    file = folders[1] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(BadSkill, match="is truncated"):
        merged(tmp_path, folders, Sum())


def test_the_command(three, tmp_path, cli):
    folders, *_ = three
    said = cli("merge", folders[1], folders[2], "--base", folders[0], "--method", "ties", "--out", tmp_path / "m", "--json")
    report = json.loads(said.out)
    assert (said.code, report["method"], report["tensors"], report["weights"]) == (0, "ties", 4, [1.0, 1.0])
    about = json.loads((tmp_path / "m" / "provenance.json").read_text())
    assert about["parents"] == ["one", "two"] and about["options"]["density"] == 0.2
    assert "already there" in cli("merge", folders[1], "--base", folders[0], "--out", tmp_path / "m").err
    assert cli("merge", tmp_path / "x", "--base", folders[0], "--out", tmp_path / "n").code == 1
    assert not (tmp_path / "n").exists() and not list(tmp_path.glob(".n*"))


def test_a_seal_of_the_base_is_not_copied(three, tmp_path):
    folders, *_ = three
    (folders[0] / "seal.json").write_text("{}")
    (folders[0] / "tokenizer.json").write_text("{}")
    merged(tmp_path, folders, Sum())
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
