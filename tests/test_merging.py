"""`skillweave merge`: adapters in, one adapter out that PEFT reads; what cannot be merged is said, and nothing is written."""

import json

import pytest
import torch

from skillweave.compose import METHODS
from skillweave.delta import LowRank
from skillweave.methods import method_of
from skillweave.peft_format import load_adapter, save_adapter
from skillweave.skill import write_skill

MERGING = [name for name in METHODS if hasattr(method_of("compose", name), "merge")]


@pytest.fixture
def adapters(tiny, random_skill, tmp_path):
    """Two adapter folders, a and b, as PEFT has them."""
    for seed, name in enumerate("ab"):
        save_adapter(tmp_path / name, random_skill(tiny, seed, rank=2 + seed), "tiny-32")
    return [str(tmp_path / name) for name in "ab"]


@pytest.fixture
def merge(cli, tmp_path):
    """`merge("x", …)` runs the command into the folder `out` of an empty library."""

    def call(*words):
        return cli("merge", *words, "--out", tmp_path / "out", "--library", tmp_path / "library")

    return call


def test_the_sum_is_exact(merge, adapters, tmp_path):
    said = merge(*adapters, "--weights", "0.5", "-2", "--json")
    assert said.code == 0 and said.err == ""
    report = json.loads(said.out)
    assert (report["share"], report["residual"], report["rank"], report["weights"]) == (1.0, 0.0, 5, [0.5, -2.0])
    assert report["cosines"][0][0] == pytest.approx(1) and abs(report["cosines"][0][1]) < 0.5
    merged, (a, b) = load_adapter(tmp_path / "out"), map(load_adapter, map(type(tmp_path), adapters))
    for slot, f in merged.factors.items():
        assert torch.allclose(f.dense(), 0.5 * a.factors[slot].dense() - 2 * b.factors[slot].dense(), atol=1e-5)


@pytest.mark.parametrize("method", MERGING)
def test_every_method_writes_an_adapter(merge, adapters, tmp_path, method):
    assert len(MERGING) >= 9
    assert merge(*adapters, "--method", method, "--rank", "3").code == 0
    assert {f.rank for f in load_adapter(tmp_path / "out").factors.values()} == {3}
    about = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert about["method"] == method and [part["name"] for part in about["parents"]] == adapters
    assert all(len(part["digest"]) == 64 for part in about["parents"]) and about["base"] == "tiny-32"
    assert 0 < about["energy_kept"] <= 1 and len(about["layers"]) == len(load_adapter(tmp_path / "out").factors)


def test_the_energy_decides_the_rank(merge, adapters, tmp_path):
    said = merge(*adapters, "--rank", "energy:0.6", "--json")
    assert 0.6 <= json.loads(said.out)["share"] < 1 and load_adapter(tmp_path / "out").rank < 5


def test_a_recipe_is_the_same(merge, adapters, tmp_path):
    lines = [
        f"adapters = {json.dumps(adapters)}",
        'method = "ties"',
        "seed = 3",
        "weights = [1, 0.5]",
        "density = 0.5",
        "rank = 2",
    ]
    (tmp_path / "recipe.toml").write_text("\n".join(lines))
    assert merge("--recipe", tmp_path / "recipe.toml").code == 0
    first = load_adapter(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "first")
    options = ["--weights", "1", "0.5", "--rank", "2", "--set", "density=0.5"]
    assert merge(*adapters, "--method", "ties", "--seed", "3", *options).code == 0
    second = load_adapter(tmp_path / "out")
    assert all(torch.equal(f.a, second.factors[slot].a) for slot, f in first.factors.items())


def test_skills_of_the_library(merge, cli, adapters, tmp_path):
    folder = tmp_path / "one"
    save_adapter(folder / "adapter", load_adapter(tmp_path / "a"), "tiny-32")
    write_skill(folder, name="one", description="d", body="", metadata={}, provenance={})
    assert cli("library", "add", folder, "--library", tmp_path / "library").code == 0
    assert merge("one", adapters[1]).code == 0
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["parents"][0]["name"] == "one"
    assert merge("oen", adapters[1]).err.startswith("error: ")


def test_what_peft_reads(merge, adapters, tmp_path, monkeypatch):
    """No missing and no unexpected key."""
    peft = pytest.importorskip("peft")
    from skillweave.base import TinyBase

    assert merge(*adapters, "--rank", "energy:0.9").code == 0
    monkeypatch.setattr("warnings.warn", lambda *a, **k: None)  # that the model has no name
    model = peft.get_peft_model(TinyBase(32).model, peft.LoraConfig.from_pretrained(tmp_path / "out"), adapter_name="default")
    loaded = peft.set_peft_model_state_dict(model, peft.load_peft_weights(tmp_path / "out"))
    assert loaded.unexpected_keys == [] and not [key for key in loaded.missing_keys if "lora" in key]


def broken(tmp_path, how):
    folder = tmp_path / "b"
    config = json.loads((folder / "adapter_config.json").read_text())
    if how == "base":
        config["base_model_name_or_path"] = "another"
    (folder / "adapter_config.json").write_text("[" if how == "config" else json.dumps(config))
    if how == "weights":
        (folder / "adapter_model.safetensors").write_bytes(b"\x00" * 40)
    if how == "shape":
        f = load_adapter(folder).factors
        slot = next(iter(f))
        wide = torch.nn.functional.pad(f[slot].a, (0, 1))
        save_adapter(folder, LowRank({slot: type(f[slot])(wide, f[slot].b, f[slot].scale)}), "tiny-32")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("base", "was made for tiny-32, .* for another"),
        ("config", "adapter_config.json is not a JSON object"),
        ("weights", "is corrupt"),
        ("shape", "is 32 x 80 in .* and 32 x 81 in"),
    ],
)
def test_adapters_that_do_not_go_together(merge, adapters, tmp_path, how, words):
    import re

    broken(tmp_path, how)
    said = merge(*adapters)
    assert (said.code, said.out) == (1, "") and re.search(words, said.err) and said.err.count("\n") == 2
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a", "--weights", "1", "2"], "2 weights were given for 1 skills"),
        (["a", "--method", "tise"], "no method `tise`. Did you mean `ties`?"),
        (["a", "--method", "scales"], "scales learns from examples"),
        (["a", "--rank", "many"], "--rank is `many`"),
        (["a", "--rank", "energy:2"], "energy is 2"),
        (["a", "--rank", "0.5"], "--rank is `0.5`"),
        (["a", "--set", "density=0.5"], "no option of sum `density`"),
        (["a", "--set", "weights=x"], "weights is 'x', but has to be a list of numbers"),
        ([], "no adapter was named"),
        (["nowhere"], "`nowhere` is neither an adapter folder nor a skill"),
        (["."], "holds 2 adapters: a, b."),
        (["nothing"], "nothing holds no adapter: it has no adapter_config.json"),
        (["a", "--recipe", "r.toml"], "both --recipe r.toml and what is in it"),
        (["--recipe", "none.toml"], "none.toml cannot be read"),
        (["--recipe", "bad.toml"], "bad.toml is not TOML"),
        (["--recipe", "empty.toml"], "empty.toml has no list of adapters"),
        (["--recipe", "kind.toml"], "seed in kind.toml is 'x'"),
    ],
)
def test_what_is_said(merge, adapters, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("adapters = [")
    (tmp_path / "empty.toml").write_text("")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "kind.toml").write_text('adapters = ["a"]\nseed = "x"')
    said = merge(*words)
    assert (said.code, said.out) == (1, "") and says in said.err
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(merge, adapters, tmp_path):
    (tmp_path / "out").mkdir()
    assert "is already there" in merge(*adapters).err
    assert list((tmp_path / "out").iterdir()) == []
