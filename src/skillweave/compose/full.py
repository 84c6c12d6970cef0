"""Merging whole fine-tuned models onto their base, tensor by tensor, without ever holding a model.

    θ = θ_base + merge(θ_1 - θ_base, θ_2 - θ_base, …)

Files are read and written a chunk at a time in fp32, whatever they are stored in, so memory is a few chunks, not a few models.
The merges are those of `compose/sum.py` and `compose/thin.py` that look at entries one by one: sum, magnitude, ties, dare,
dare-ties. Thresholds are exact: `thin.threshold` counts over the chunks.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..door import check_safetensors
from ..errors import BadBase, BadOption, BaseMismatch
from .sum import Sum
from .thin import Dare, Magnitude, Thinned, elected, threshold

CHUNK = 1 << 18
"""Entries at a time: 1 MiB in fp32, so that what is done to a chunk is done in the processor's cache."""
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5")
"""Endings of files of weights; every other file of the base is copied."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a file."""

    file: Path
    start: int
    size: int
    """Bytes, from `start` on."""
    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        return int(torch.Size(self.shape).numel())

    def read(self, first: int, count: int) -> Tensor:
        """Entries `first` to `first + count` in fp32."""
        kind = DTYPES[self.dtype]
        data = np.fromfile(self.file, np.uint8, count * kind.itemsize, offset=self.start + first * kind.itemsize)
        return torch.from_numpy(data).view(kind).float()


def merge_models(
    base: Path, tuned: Sequence[Path], out: Path, method: Sum | Thinned, seed: int, tick: Callable[[int, str], None]
) -> None:
    """Write the merge of the models in `tuned` onto `base` into the empty folder `out`.

    All are folders with a config.json and .safetensors files of the same tensors. Raises BadBase, BaseMismatch, BadOption.
    """
    if not isinstance(method, Sum | Magnitude | Dare) or getattr(method, "shared", False) or method.kept is not None:
        raise BadOption("whole models are merged by sum, magnitude, ties, dare or dare-ties, without a rank.")
    weights = method.strengths(len(tuned))
    models = [places(folder) for folder in (base, *tuned)]
    for folder, model in zip(tuned, models[1:], strict=True):
        _check_alike(base, models[0], folder, model)
    draw = torch.Generator().manual_seed(seed)
    enough = [_of_model(models[0], model, method) for model in models[1:]]
    for file in sorted({place.file for place in models[0].values()}):
        names = {name: place for name, place in models[0].items() if place.file == file}
        with open(out / file.name, "wb") as target:
            target.write(_header(names))
            for name in names:
                parts = [model[name] for model in models]
                _merge_tensor(target, parts, method, weights, enough, draw)
                tick(1, name)
    for file in sorted(base.iterdir()):
        if file.suffix not in WEIGHTS and file.name != "seal.json" and file.is_file():  # a seal is of the base's own weights
            shutil.copyfile(file, out / file.name)


def places(folder: Path) -> dict[str, Place]:
    """Every tensor of a model folder, by name. Raises BadBase, BadSkill."""
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files or not (folder / "config.json").is_file():
        raise BadBase(f"{folder} is not a model folder.", "name a folder with a config.json and .safetensors files")
    found: dict[str, Place] = {}
    for file in files:
        check_safetensors(file)
        with open(file, "rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                first, last = entry["data_offsets"]
                found[name] = Place(file, 8 + length + first, last - first, entry["dtype"], tuple(entry["shape"]))
    return found


def _check_alike(base: Path, wanted: Mapping[str, Place], folder: Path, model: Mapping[str, Place]) -> None:
    odd = sorted(set(wanted) ^ set(model))
    if odd:
        raise BaseMismatch(f"`{odd[0]}` is in only one of {base} and {folder}.", "merge fine-tunes of one model")
    for name, place in wanted.items():
        if model[name].shape != place.shape:
            raise BaseMismatch(
                f"`{name}` is {place.shape} in {base} and {model[name].shape} in {folder}.", "merge fine-tunes of one model"
            )


def _chunks(place: Place) -> Iterator[tuple[int, int]]:
    """(first, count) of each chunk of a tensor."""
    return ((first, min(CHUNK, place.count - first)) for first in range(0, place.count, CHUNK))


def _changes(base: Place, tuned: Place) -> Iterator[Tensor]:
    return (tuned.read(*span) - base.read(*span) for span in _chunks(base))


def _of_model(base: Mapping[str, Place], tuned: Mapping[str, Place], method: Sum | Thinned) -> float | None:
    """The size from which a model's changes stay, where that is one for all of its tensors."""
    if not isinstance(method, Magnitude) or method.scope != "model":
        return None
    floats = [name for name, place in base.items() if place.dtype in DTYPES]
    return method.enough(lambda: (change for name in floats for change in _changes(base[name], tuned[name])))


def _merge_tensor(target, parts: Sequence[Place], method, weights: Sequence[float], enough, draw: torch.Generator) -> None:
    """Append the merge of one tensor to `target`."""
    base, *tuned = parts
    if base.dtype not in DTYPES:
        with open(base.file, "rb") as file:
            file.seek(base.start)
            target.write(file.read(base.size))
        return
    if isinstance(method, Magnitude) and method.scope == "layer":
        enough = [threshold(lambda t=t: _changes(base, t), method.density) for t in tuned]
    scale = torch.tensor(weights)[:, None, None]
    for span in _chunks(base):
        start = base.read(*span)
        stack = torch.stack([t.read(*span) - start for t in tuned])[:, None]  # (model, 1, entry)
        if isinstance(method, Thinned):
            stack = torch.stack([method.thin(change, enough[k], draw) for k, change in enumerate(stack)])
        stack *= scale
        total = elected(stack) if getattr(method, "elect", False) else stack.sum(0)
        target.write((start + total[0]).to(DTYPES[base.dtype]).view(torch.uint8).numpy())


def _header(names: Mapping[str, Place]) -> bytes:
    """The header of a safetensors file that holds these tensors in this order."""
    entries: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, place in names.items():
        entries[name] = {"dtype": place.dtype, "shape": list(place.shape), "data_offsets": [at, at + place.size]}
        at += place.size
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
