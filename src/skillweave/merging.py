"""The verb `merge`: adapters in, one adapter out; or fine-tuned models in, one model out. No model is ever loaded.

A part is a PEFT adapter folder or a skill of the library. What comes out is a folder that any PEFT program reads, with a
`provenance.json` beside the weights that says what was merged, how, and how far it is from the exact sum.
"""

import json
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .adapters import folder_of
from .errors import BadData, BadOption, BadSkill, BaseMismatch
from .files import check_new, new_folder, sha256_file
from .methods import method_of
from .progress import progress
from .result import Table

if TYPE_CHECKING:
    from .compose.merge import Merged


@dataclass(frozen=True)
class Part:
    """One adapter that goes into a merge."""

    name: str
    path: Path
    """Its folder."""
    base: str
    """The model it was made for, as its configuration says."""
    digest: str
    """Of its weights."""


@dataclass(frozen=True)
class Written:
    """An adapter made of several."""

    out: Path
    method: str
    parts: tuple[Part, ...]
    weights: tuple[float, ...]
    rank: int
    """The largest of any layer."""
    parameters: int
    share: float
    """Energy kept of what was to be merged, in [0, 1]; 1 is exact."""
    residual: float
    """Relative distance from what was to be merged, unitless."""
    norms: tuple[float, ...]
    """Length of each part's change, ‖ΔW‖."""
    cosines: tuple[tuple[float, ...], ...]
    """Of the parts' changes with each other."""
    seconds: float

    def table(self) -> Table:
        rows = tuple(
            (part.name, weight, norm, *cosines)
            for part, weight, norm, cosines in zip(self.parts, self.weights, self.norms, self.cosines, strict=True)
        )
        note = (
            f"{self.method}: rank {self.rank}, {self.parameters:,} parameters, {100 * self.share:.2f} % of the energy kept "
            f"(relative residual {self.residual:.2g}), {self.seconds:.2f} s\nwritten to {self.out}"
        )
        columns = ("adapter", "weight", "length", *(f"cosine with {part.name}" for part in self.parts))
        return Table(columns, rows, note=note)


@dataclass(frozen=True)
class WrittenModel:
    """A model made of several."""

    out: Path
    method: str
    models: tuple[str, ...]
    weights: tuple[float, ...]
    tensors: int
    seconds: float

    def table(self) -> Table:
        note = f"{self.method}: {self.tensors:,} tensors, {self.seconds:.1f} s\nwritten to {self.out}"
        return Table(("model", "weight"), tuple(zip(self.models, self.weights, strict=True)), note=note)


def merge(
    adapters: Sequence[str],
    *,
    out: Path,
    library: Path | str,
    method: str = "sum",
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Written:
    """Make one adapter of several and write it to the new folder `out`."""
    import torch

    from .delta import check_alike
    from .likeness import cosines
    from .peft_format import load_adapter

    began = time.monotonic()
    fitter = method_of("compose", method, options)
    if not hasattr(fitter, "merge"):
        raise BadOption(f"{method} learns from examples, so it cannot merge adapters alone.", "use skillweave compose for it")
    check_new(out)
    if not adapters:
        raise BadOption("no adapter was named.", "name adapter folders or skills of the library")
    weights = fitter.strengths(len(adapters))
    parts = [_part(adapter, Path(library)) for adapter in adapters]
    _check_bases(parts)
    skills = [load_adapter(part.path, part.name) for part in parts]
    check_alike(dict(zip(adapters, skills, strict=True)))
    with torch.inference_mode():
        merged = fitter.merge(skills, seed)
        likeness = cosines(skills).tolist()
    report = Written(
        out, method, tuple(parts), tuple(weights), merged.skill.rank, merged.skill.parameters, merged.share, merged.residual,
        tuple(skill.energy**0.5 for skill in skills), tuple(map(tuple, likeness)), 0.0,
    )  # fmt: skip
    _write(report, merged, vars(fitter), seed)
    return replace(report, seconds=time.monotonic() - began)


def merge_models(
    models: Sequence[str],
    *,
    base: str,
    out: Path,
    method: str = "sum",
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> WrittenModel:
    """Merge whole fine-tuned models of `base` onto it and write the model folder `out`."""
    from . import gemma
    from .compose import full

    began = time.monotonic()
    fitter = method_of("compose", method, options)
    if not models:
        raise BadOption("no model was named.", "name the folders of fine-tuned models")
    root = gemma.folder() if base == gemma.NAME else Path(base)
    folders = [Path(model) for model in models]
    count = len(full.places(root))
    with new_folder(out) as folder, progress(count, "merge", unit="tensors") as tick:
        full.merge_models(root, folders, folder, fitter, seed, tick)
        about = {
            "method": method,
            "options": vars(fitter),
            "seed": seed,
            "base": base,
            "parents": [str(f.name) for f in folders],
        }
        (folder / "provenance.json").write_text(json.dumps(about | {"versions": {"skillweave": __version__}}, indent=1))
    return WrittenModel(out, method, tuple(models), tuple(fitter.strengths(len(models))), count, time.monotonic() - began)


def recipe(path: Path) -> dict[str, Any]:
    """The keywords of `merge` that a TOML file holds: adapters, method, seed, and under any other name an option."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.", "give a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise BadData(f"{path} is not TOML: {error}.", 'write it as in: adapters = ["a", "b"], one key a line') from error
    adapters = found.pop("adapters", None)
    if not isinstance(adapters, list) or not all(isinstance(a, str) for a in adapters):
        raise BadData(f"{path} has no list of adapters.", 'write adapters = ["a", "b"]')
    kinds = {"method": str, "seed": int}
    for key, kind in kinds.items():
        if not isinstance(found.get(key, kind()), kind):
            raise BadData(f"{key} in {path} is {found[key]!r}, but has to be of kind {kind.__name__}.")
    return {"adapters": adapters, **{k: found.pop(k) for k in kinds if k in found}, "options": found}


def _part(named: str, library: Path) -> Part:
    """A folder with an adapter, or a skill of the library."""
    folder = folder_of(named, library)
    return Part(named, folder, _base_of(folder), sha256_file(folder / "adapter_model.safetensors"))


def _base_of(folder: Path) -> str:
    """The model that an adapter names; the loader looks at the rest of its configuration."""
    try:
        return str(json.loads((folder / "adapter_config.json").read_text()).get("base_model_name_or_path") or "")
    except (OSError, ValueError, AttributeError) as error:
        raise BadSkill(f"{folder / 'adapter_config.json'} is not a JSON object.", "fetch or learn the adapter again") from error


def _check_bases(parts: Sequence[Part]) -> None:
    for part in parts:
        if part.base != parts[0].base:
            raise BaseMismatch(
                f"{parts[0].name} was made for {parts[0].base or 'no named model'}, {part.name} for {part.base or 'none'}.",
                "merge adapters of one model; where only the name differs, correct it in adapter_config.json",
            )


def _write(report: Written, merged: "Merged", options: Mapping[str, Any], seed: int) -> None:
    from .peft_format import save_adapter

    about = {
        "method": report.method,
        "options": dict(options),
        "weights": report.weights,
        "seed": seed,
        "parents": [{"name": part.name, "digest": part.digest} for part in report.parts],
        "base": report.parts[0].base,
        "energy_kept": report.share,
        "residual": report.residual,
        "layers": {slot: vars(kept) for slot, kept in merged.layers.items()},
        "versions": {"skillweave": __version__},
    }
    with new_folder(report.out) as folder:
        save_adapter(folder, merged.skill, report.parts[0].base)
        (folder / "provenance.json").write_text(json.dumps(about, indent=1))
