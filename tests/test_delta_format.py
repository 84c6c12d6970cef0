"""delta.safetensors: what is written is read again to the last bit, and what is damaged is refused in one sentence."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from skillweave.delta import Factors, LowRank
from skillweave.delta_format import DELTA, load_delta, save_delta
from skillweave.delta_full import Dense, Sparse
from skillweave.errors import BadOption, BadSkill
from skillweave.library import Library

SPARSE, DENSE, BOTH = "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj", "model.layers.2.mlp.up_proj"


@pytest.fixture
def skill():
    """Entries of one layer, all of another, and factors with entries beside them in a third."""
    draw = torch.Generator().manual_seed(0)
    index = torch.tensor([0, 7, 8, 30, 59], dtype=torch.int32)
    one = Sparse(index, torch.randn(5, generator=draw), (6, 10), 0.5)
    factors = Factors(torch.randn(2, 10, generator=draw), torch.randn(6, 2, generator=draw), 2.0)
    return LowRank({BOTH: factors}, full={SPARSE: one, DENSE: Dense(torch.randn(6, 10, generator=draw)), BOTH: one})


@pytest.fixture
def folder(tmp_path, skill):
    save_delta(tmp_path / "graft", skill)
    return tmp_path / "graft"


def test_a_round_trip_keeps_every_entry(skill, folder):
    again = load_delta(folder)
    assert set(again.slots) == set(skill.slots)
    for slot in skill.slots:
        assert torch.equal(again.dense(slot), skill.dense(slot))
    assert again.full[SPARSE].index.dtype == torch.int32 and again.full[SPARSE].shape == (6, 10)
    assert isinstance(again.full[DENSE], Dense) and again.factors[BOTH].rank == 2
    assert again.parameters == skill.parameters


def test_a_layer_of_billions_of_weights_takes_long_places(tmp_path):
    wide = Sparse(torch.tensor([2**31 + 5]), torch.ones(1), (2**16, 2**16))
    save_delta(tmp_path, LowRank({}, full={"x": wide}))
    again = load_delta(tmp_path).full["x"]
    assert again.index.dtype == torch.int64 and again.index.tolist() == [2**31 + 5]


def test_what_is_no_sum_or_nothing_is_not_written(tmp_path):
    with pytest.raises(BadOption, match="a change of no weight at all"):
        save_delta(tmp_path, LowRank({}))
    dora = LowRank({"x": Factors(torch.ones(1, 4), torch.ones(3, 1), magnitude=torch.ones(3))})
    with pytest.raises(BadOption, match="a DoRA adapter cannot be"):
        save_delta(tmp_path, dora)
    assert not list(tmp_path.iterdir())


def changed(**tensors):
    """The file with other tensors in the place of the sparse layer's; None leaves one out."""
    return lambda old: {
        k: t for k, t in (old | {f"{SPARSE}.{part}": t for part, t in tensors.items()}).items() if t is not None
    }


INDEX = torch.tensor([0, 7, 8, 30, 59], dtype=torch.int32)
DAMAGE = {
    "out of order": (changed(index=INDEX.flip(0).contiguous()), "out of order, or one is there twice"),
    "twice": (changed(index=torch.tensor([0, 7, 7, 30, 59], dtype=torch.int32)), "out of order, or one is there twice"),
    "too large": (changed(index=torch.tensor([0, 7, 8, 30, 60], dtype=torch.int32)), "changes entry 60 of 6 x 10"),
    "negative": (changed(index=torch.tensor([-1, 7, 8, 30, 59], dtype=torch.int32)), "changes entry -1 of 6 x 10"),
    "too few values": (changed(values=torch.zeros(4)), "has places of shape .5,. for values of shape .4,."),
    "two dimensions": (changed(index=INDEX[None], values=torch.zeros(1, 5)), "has places of shape .1, 5."),
    "not a number": (changed(values=torch.tensor([0, 1, torch.nan, 2, 3])), "has values that are not finite"),
    "infinite": (changed(values=torch.tensor([0, 1, torch.inf, 2, 3])), "has values that are not finite"),
    "places that are no places": (changed(index=INDEX.float()), "index` of `graft` is in float32"),
    "places of another kind": (changed(index=INDEX.to(torch.int16)), "is in int16, not in 16 or 32 bit floating point"),
    "values of another kind": (changed(values=torch.zeros(5, dtype=torch.int32)), "values` of `graft` is in int32"),
    "no values": (changed(values=None), "holds only index, shape of"),
    "no shape": (changed(shape=None), "holds only index, values of"),
    "a shape of one": (changed(shape=torch.tensor([60])), r"the shape of .* is \[60\], not rows and columns"),
    "a shape of nothing": (changed(shape=torch.tensor([0, 10])), r"is \[0, 10\], not rows and columns"),
    "another shape": (changed(shape=torch.tensor([5, 10])), "changes entry 59 of 5 x 10"),
    "entries and all": (changed(dense=torch.zeros(6, 10)), "holds only dense, index, shape, values of"),
    "half the factors": (
        lambda old: {k: t for k, t in old.items() if k != f"{BOTH}.a"},
        "holds only b, index, shape, values of",
    ),
    "a flat change": (lambda old: old | {f"{DENSE}.dense": torch.zeros(60)}, "has the shape .60,., not rows and columns"),
    "factors that do not fit": (lambda old: old | {f"{BOTH}.a": torch.zeros(3, 10)}, r"do not fit: \(6, 2\) and \(3, 10\)"),
    "factors of no rank": (
        lambda old: old | {f"{BOTH}.a": torch.zeros(0, 10), f"{BOTH}.b": torch.zeros(6, 0)},
        r"do not fit: \(6, 0\) and \(0, 10\)",
    ),
    "parts that differ": (lambda old: old | {f"{BOTH}.b": torch.zeros(5, 2)}, "differ in shape"),
    "another name": (lambda old: old | {"note": torch.zeros(1)}, "holds `note`, which is no part"),
    "nothing": (lambda old: {}, "holds no weights"),
}


def test_all_ways_of_damage_are_known():
    assert len(DAMAGE) == 24


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_refused_in_a_sentence(folder, how):
    damage, words = DAMAGE[how]
    save_file(damage(load_file(folder / DELTA)), folder / DELTA)
    with pytest.raises(BadSkill, match=words) as caught:
        load_delta(folder)
    assert "\n" not in caught.value.message and "`graft`" in caught.value.message


@pytest.mark.parametrize("cut", [0, 4, 100, -1, -20])
def test_a_cut_file_is_refused(folder, cut):
    file = folder / DELTA
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(BadSkill, match="the delta of `graft` is corrupt"):
        load_delta(folder)


def test_a_flipped_bit_of_the_header_is_refused_or_seen_in_a_name(folder):
    """What still loads has as many changes as before; a name that a bit has changed is refused by the base."""
    good = (folder / DELTA).read_bytes()
    size = 8 + int.from_bytes(good[:8], "little")
    refused = 0
    for at in range(0, size, 3):
        (folder / DELTA).write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        try:
            again = load_delta(folder)
        except BadSkill:
            refused += 1
            continue
        assert sum(len(again.parts(slot)) for slot in again.slots) == 4
        assert sorted(part.shape for slot in again.slots for part in again.parts(slot)) == [(6, 10)] * 4
    assert refused > size / 12


def test_the_library_lets_it_in_and_refuses_it_beside_an_adapter(folder, tmp_path):
    (folder / "SKILL.md").write_text("---\nname: graft\ndescription: x\n---\n")
    library = Library(tmp_path / "library", create=True)
    assert library.add(folder).kind == "delta"
    assert library.get("graft").delta is not None
    (folder / "adapter").mkdir()
    with pytest.raises(BadSkill, match="holds an adapter and a delta.safetensors"):
        library.add(folder, replace=True)
    assert library.get("graft").kind == "delta"
