"""Adapters that somebody or something has damaged: each is refused in a sentence, or read exactly as its file says."""

import json
import random
import signal
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from skillweave.delta import Factors, LowRank, Replacement
from skillweave.errors import SkillweaveError
from skillweave.peft_check import check_on
from skillweave.peft_format import read_adapter, save_adapter

PATIENCE = 10
"""Seconds that one adapter may take."""
VALUES = [None, True, False, 0, -1, 7, 1e400, float("nan"), 0.5, "", "x", "(", "(a+)+$", ".*", [], ["q_proj"], [None], [3], {},
          {"q_proj": 3}, {"(a*)*b": 2}, {"q_proj": "x"}, {"x": None}, [[0, 2]], "pissa", 10**30,
          "LORA", "all-linear"]  # fmt: skip
FIELDS = ["r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "use_dora", "lora_bias", "target_modules", "bias",
          "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "trainable_token_indices", "peft_type",
          "init_lora_weights", "fan_in_fan_out", "alora_invocation_tokens", "layer_replication", "invented"]  # fmt: skip


@dataclass
class Files:
    """An adapter as two pieces of bytes."""

    weights: bytes
    config: bytes

    def write(self, folder: Path):
        (folder / "adapter_model.safetensors").write_bytes(self.weights)
        (folder / "adapter_config.json").write_bytes(self.config)
        return folder


def of_kind(base, kind: int, random_skill) -> LowRank:
    """A plain skill of unequal ranks; one with biases, embeddings' rows and a new head; a DoRA; a LoRA of both ends."""
    slots = list(base.linears)
    skill = {**random_skill(base, 0, 2, slots[:5]).factors, **random_skill(base, 1, 3, slots[5:9], 0.75).factors}
    draw = torch.Generator().manual_seed(2)
    wide, many = base.table.shape[1], base.table.shape[0]
    if kind == 1:
        skill = {s: Factors(f.a, f.b, f.scale, bias=torch.randn(len(f.b), generator=draw)) for s, f in skill.items()}
        rows = Replacement(torch.randn(3, wide, generator=draw), torch.tensor([9, 4, 30]))
        return LowRank(skill, {"model.embed_tokens.weight": rows})
    if kind == 2:
        skill = {s: Factors(f.a, f.b, f.scale, magnitude=torch.rand(len(f.b), generator=draw) + 0.5) for s, f in skill.items()}
        return LowRank(skill, {"lm_head.weight": Replacement(torch.randn(many, wide, generator=draw))})
    if kind == 3:
        a, b = torch.randn(2, many, generator=draw), torch.randn(wide, 2, generator=draw)
        skill["model.embed_tokens"] = Factors(a, b, 0.5, lookup=True)
        skill["lm_head"] = Factors(torch.randn(2, wide, generator=draw), torch.randn(many, 2, generator=draw), 0.5)
    return LowRank(skill)


# ways to do damage; each takes the files and the dice, and says whether values may differ from before


def flip_weights(files: Files, dice: random.Random) -> bool:
    data = bytearray(files.weights)
    header = 8 + struct.unpack("<Q", data[:8])[0]
    top = dice.choice([8, header, header, len(data)])
    for _ in range(dice.choice([1, 1, 2, 4])):
        data[dice.randrange(top)] ^= 1 << dice.randrange(8)
    files.weights = bytes(data)
    return True


def flip_config(files: Files, dice: random.Random) -> bool:
    data = bytearray(files.config)
    for _ in range(dice.choice([1, 1, 2])):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    files.config = bytes(data)
    return False


def cut_or_grow(files: Files, dice: random.Random) -> bool:
    files.weights = files.weights[: dice.randrange(len(files.weights))] + (b"\0" * 9 if dice.random() < 0.3 else b"")
    return False


def drop_key(files: Files, dice: random.Random) -> bool:
    tensors = load(files.weights)
    del tensors[dice.choice(sorted(tensors))]
    files.weights = save(tensors)
    return False


def drop_layer(files: Files, dice: random.Random) -> bool:
    tensors = load(files.weights)
    layer = dice.choice(sorted(tensors)).partition(".lora_")[0]
    files.weights = save({key: tensor for key, tensor in tensors.items() if not key.startswith(layer)})
    return False


def rename_key(files: Files, dice: random.Random) -> bool:
    tensors = load(files.weights)
    key = dice.choice(sorted(tensors))
    at = dice.randrange(len(key))
    new = dice.choice([key[:at] + dice.choice("01.x_A") + key[at + 1 :], key.replace("lora_A", "lora_B"), key + ".x", key[4:]])
    if new in tensors:
        return False
    tensors[new] = tensors.pop(key)
    files.weights = save(tensors)
    return False


def double_key(files: Files, dice: random.Random) -> bool:
    """The same name twice in the header; or the same thing under two names."""
    if dice.random() < 0.5:
        tensors = load(files.weights)
        key = dice.choice([key for key in sorted(tensors) if "lora_A.weight" in key])
        tensors[key.replace(".weight", ".default.weight")] = tensors[key].clone() * 2
        files.weights = save(tensors)
        return False
    size = struct.unpack("<Q", files.weights[:8])[0]
    header = files.weights[8 : 8 + size].rstrip()
    entries = json.loads(header)
    one, two = dice.sample([key for key in entries if key != "__metadata__"], 2)
    more = header[:-1] + b"," + json.dumps({one: entries[two]}).encode()[1:]
    files.weights = struct.pack("<Q", len(more)) + more + files.weights[8 + size :]
    return False


def change_shape(files: Files, dice: random.Random) -> bool:
    tensors = load(files.weights)
    key = dice.choice(sorted(tensors))
    old = tensors[key]
    ways = [old.t() if old.dim() == 2 else old[None], old.flatten(), old[:1], old[:0], old[..., :-1], torch.cat([old, old]),
            old.to(torch.int32), old.double(), old.bool(), old.to(torch.complex64)]  # fmt: skip
    tensors[key] = dice.choice(ways).contiguous().clone()
    files.weights = save(tensors)
    return torch.equal(tensors[key], old)


def change_field(files: Files, dice: random.Random) -> bool:
    fields = json.loads(files.config)
    fields[dice.choice(FIELDS)] = dice.choice(VALUES)
    files.config = json.dumps(fields).encode()
    return False


def drop_field(files: Files, dice: random.Random) -> bool:
    fields = json.loads(files.config)
    del fields[dice.choice(sorted(fields))]
    files.config = json.dumps(fields).encode()
    return False


def double_field(files: Files, dice: random.Random) -> bool:
    field = dice.choice(FIELDS)
    files.config = files.config.rstrip()[:-1] + b"," + json.dumps({field: dice.choice(VALUES)}).encode()[1:]
    return False


DAMAGE = [flip_weights, flip_config, cut_or_grow, drop_key, drop_layer, rename_key, double_key, change_shape, change_field,
          change_field, drop_field, double_field]  # fmt: skip


def told(skill: LowRank) -> dict[str, torch.Tensor]:
    """Every tensor of a skill under the name that it has in the file."""
    found = {}
    for slot, f in skill.factors.items():
        names = ("lora_embedding_A", "lora_embedding_B") if f.lookup else ("lora_A.weight", "lora_B.weight")
        found |= {f"{slot}.{names[0]}": f.a, f"{slot}.{names[1]}": f.b}
        found |= {} if f.bias is None else {f"{slot}.lora_B.bias": f.bias}
        found |= {} if f.magnitude is None else {f"{slot}.lora_magnitude_vector": f.magnitude}
    for weight, new in skill.replaced.items():
        name = weight if new.rows is None else weight.replace("weight", "token_adapter.trainable_tokens_delta")
        found[name] = new.values
    return {f"base_model.model.{name}": tensor for name, tensor in found.items()}


def scale_in(fields: dict, slot: str, rank: int) -> float:
    """What the configuration says, read by other means."""
    own = [
        value for pattern, value in (fields.get("alpha_pattern") or {}).items() if pattern.strip("^").replace("\\", "") == slot
    ]
    broad = [value for pattern, value in (fields.get("alpha_pattern") or {}).items() if slot.endswith("." + pattern)]
    alpha = [*own, *broad, fields.get("lora_alpha", 8)][0]
    return alpha / (rank**0.5 if fields.get("use_rslora") else rank)


def attack(base, folder: Path, sound: Files, seed: int) -> str:
    """Damage, read, and judge: "refused", or "read" after what was read was found to be what the file says."""
    dice = random.Random(seed)
    files = Files(sound.weights, sound.config)
    may_differ = dice.choice(DAMAGE)(files, dice)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        adapter = read_adapter(files.write(folder), "date")
        check_on(base, adapter)
    except SkillweaveError as error:
        assert error.message and "\n" not in error.message
        return "refused"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    before, after, fields = load(sound.weights), load(files.weights), json.loads(files.config)
    seen = told(adapter.skill)
    assert seen.keys() == after.keys() == before.keys()
    assert all(torch.equal(seen[key], after[key]) for key in seen)
    assert may_differ or all(torch.equal(after[key], before[key]) for key in seen)
    for slot, f in adapter.skill.factors.items():
        assert f.scale == pytest.approx(scale_in(fields, slot, f.rank), rel=1e-9)
    for new in adapter.skill.replaced.values():
        told_rows = fields.get("trainable_token_indices")
        assert new.rows is None or new.rows.tolist() == (
            told_rows if isinstance(told_rows, list) else told_rows["model.embed_tokens"]
        )
    return "read"


def too_long(*_):
    raise AssertionError(f"an adapter took more than {PATIENCE} seconds")


def storm(base, random_skill, folder: Path, count: int) -> dict[str, int]:
    old = signal.signal(signal.SIGALRM, too_long)
    try:
        outcome = {"read": 0, "refused": 0}
        for kind in range(4):
            save_adapter(folder, of_kind(base, kind, random_skill), "tiny-32")
            sound = Files((folder / "adapter_model.safetensors").read_bytes(), (folder / "adapter_config.json").read_bytes())
            check_on(base, read_adapter(folder))
            for seed in range(count // 4):
                outcome[attack(base, folder, sound, 1_000_000 * kind + seed)] += 1
        return outcome
    finally:
        signal.signal(signal.SIGALRM, old)


def test_a_hundred_damaged_adapters(tiny, random_skill, tmp_path):
    outcome = storm(tiny, random_skill, tmp_path, 100)
    assert outcome["refused"] > 60 and outcome["read"] > 5


@pytest.mark.slow
def test_a_thousand_damaged_adapters(tiny, random_skill, tmp_path):
    outcome = storm(tiny, random_skill, tmp_path, 1000)
    assert sum(outcome.values()) == 1000 and outcome["refused"] > 600 and outcome["read"] > 50
