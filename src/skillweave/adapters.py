"""Adapters come and go: one from elsewhere becomes a skill, a skill becomes an adapter for others, and both can be looked into.

What comes in is read strictly (peft_format), tried on its base (peft_check) and written anew; what is not right leaves nothing
behind. No base is needed to look into an adapter or to give one away.
"""

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace as but
from pathlib import Path

from . import __version__
from .card import card
from .errors import BadName, BadOption, BadSkill, LibraryError, NotFound
from .files import atomic_write, check_new, new_folder, sha256_file
from .hub import FILES, fetch_adapter, is_hub_name
from .library import Library
from .progress import say
from .reports_adapters import About, Exported, Imported, Inspected
from .skill import Skill, check_name, slug, write_skill


def import_adapter(
    source: str,
    name: str | None = None,
    *,
    library: Path | str,
    base: str | None = None,
    description: str = "",
    replace: bool = False,
    rank: int | None = None,
) -> Imported:
    """Put a PEFT adapter, a folder or a name on the hub, into the library as a skill, after a try on its base.

    `rank` makes a plain adapter of that rank of it, which can be added to others (a DoRA cannot).
    """
    name = check_name(slug(Path(source).name) if name is None else name)
    if len(description) > 1024:
        raise BadOption(f"the description has {len(description):,} characters.", "write at most 1,024 of them")
    if rank is not None and rank < 1:
        raise BadOption(f"the rank is {rank}, but has to be at least 1.")
    if Path(library).is_dir() and any(Path(library).iterdir()) and name in Library(Path(library)) and not replace:
        raise LibraryError(f"`{name}` is already in {library}.", "choose another --name, or --replace it")
    with tempfile.TemporaryDirectory() as place:
        folder, revision = find_adapter(source, Path(place))
        return _bring_in(folder, source, revision, name, Path(library), base, description, replace, rank)


def _bring_in(folder, source, revision, name, library, base, description, replace, rank) -> Imported:
    import torch

    from .base import load_base
    from .fitting import fit, materialise
    from .peft_check import check_on
    from .peft_format import read_adapter, save_adapter

    adapter = read_adapter(folder, source)
    base = base or adapter.config["base_model_name_or_path"]
    if not base:
        raise BadOption(f"`{source}` does not say which base it was made on.", "name it with --base")
    model = load_base(base)
    say(f"trying `{source}` on {model.name}")
    moved = check_on(model, adapter)
    skill, lost = (adapter.skill, None) if rank is None else materialise(model, fit(model, source, adapter.skill), rank)
    facts = {
        "base": {"name": model.name, "digest": model.digest},
        "method": "import",
        "config": {
            "source": source if revision else folder.name,
            "revision": revision,
            "files": {file: sha256_file(folder / file) for file in FILES},
            "adapter": {key: value for key, value in adapter.config.fields.items() if value not in (None, [], {})},
            **({} if rank is None else {"rank": rank, "lost": lost}),
        },
        "versions": {"skillweave": __version__, "torch": torch.__version__},
    }
    about = description or f"{kind_of(adapter.skill)} from {Path(source).name} for {model.name}, imported."
    body = (
        f"{about}\n\nThe adapter in `adapter/` changes {moved.layers} layers of {model.name}.\n"
        "What it does has not been measured yet.\n"
    )
    with Library(library, create=True).new(name, replace=replace) as inside:
        save_adapter(inside / "adapter", skill, model.name)
        write_skill(inside, name=name, description=about, body=body, metadata={}, provenance=facts)
    where = (name, library / name, model.name, kind_of(skill))
    return Imported(*where, moved.layers, skill.rank, skill.parameters, moved.shift, lost)


def export_skill(name: str, out: Path | str, *, library: Path | str) -> Exported:
    """Write the adapter of a skill to the folder `out` in PEFT's format, with a README.md made of what is known about it."""
    from .peft_format import load_adapter

    skill = Library(Path(library)).get(name)
    if skill.delta is not None:
        raise BadOption(f"`{name}` is a dense or sparse change, which PEFT's format cannot hold.", "copy its folder as it is")
    if skill.adapter is None:
        raise BadOption(f"`{name}` is a skill of words: it has no adapter to export.", "name a skill that was learned")
    out = Path(out)
    check_new(out)
    load_adapter(skill.adapter, name)  # what leaves can be read
    with new_folder(out) as folder:
        for file in FILES:
            shutil.copyfile(skill.adapter / file, folder / file)
        (folder / "README.md").write_text(card(skill, out.name), encoding="utf-8")
    return Exported(name, out, tuple(sorted(file.name for file in out.iterdir())), len(skill.provenance.get("scores") or ()))


def inspect_adapters(adapters: Sequence[str], *, library: Path | str, svg: Path | str | None = None) -> Inspected:
    """What adapters are (folders, or skills of the library), and how alike; `svg` is a file for a small picture of it."""
    from .delta import LowRank, check_alike
    from .likeness import cosines
    from .picture import bars, squares

    if not adapters:
        raise BadOption("no adapter was named.", "name adapter folders or skills of the library")
    if len(set(adapters)) < len(adapters):
        raise BadOption(f"an adapter is named twice: {', '.join(adapters)}.", "name each adapter once")
    found = {words: _look(words, Path(library)) for words in adapters}
    bare = {
        w: LowRank({s: but(f, magnitude=None) for s, f in one.factors.items()}, full=one.full) for w, (one, _) in found.items()
    }
    about = tuple(_about(words, found[words][0], bare[words], found[words][1]) for words in adapters)
    check_alike(bare)
    alike = [[round(x, 6) for x in row] for row in cosines(list(bare.values())).tolist()]
    shared = [[_shared(one, two) for two in bare.values()] for one in bare.values()]
    report = Inspected(about, alike, shared)
    if svg is not None:
        picture = squares("cosine between the changes", adapters, alike) if len(about) > 1 else ""
        picture = picture or bars(f"energy of {adapters[0]} by layer", about[0].energy_by_layer, "squared weights")
        atomic_write(Path(svg), picture)
    return report


def _look(words: str, library: Path):
    """The change of an adapter or a skill, and the base it names."""
    from .delta_format import load_delta
    from .peft_format import read_adapter

    if (skill := delta_skill(words, library)) is not None:
        return load_delta(skill.path, words), (skill.provenance.get("base") or {}).get("name")
    adapter = read_adapter(folder_of(words, library), words)
    return adapter.skill, adapter.config["base_model_name_or_path"]


def delta_skill(words: str, library: Path) -> Skill | None:
    """The skill of that folder or name, if it is a dense or sparse change of weights."""
    folder = Path(words).expanduser()
    try:
        skill = Skill.load(folder) if folder.is_dir() else Library(library).get(words)
    except (LibraryError, NotFound, BadName, BadSkill):
        return None
    return skill if skill.delta is not None else None


def find_adapter(source: str, place: Path) -> tuple[Path, str | None]:
    """The folder of an adapter, fetched below `place` if it is on the hub, and its revision there. Raises BadSkill."""
    path, revision = Path(source).expanduser(), None
    if not path.exists() and is_hub_name(source):
        path, revision = fetch_adapter(source, place)
    if not path.is_dir():
        what = "a file" if path.exists() else "not there"
        raise BadSkill(f"{source} is {what}, not a folder with an adapter.", "give an adapter folder, or owner/name on the hub")
    return adapter_in(path, source), revision


def adapter_in(path: Path, source: str) -> Path:
    """The one folder at or right below `path` that holds an adapter. Raises BadSkill."""
    if any((path / file).exists() for file in (*FILES, "adapter_model.bin")):
        return path
    inner = sorted(config.parent for config in path.glob("*/adapter_config.json"))
    if len(inner) > 1:
        names = ", ".join(folder.name for folder in inner[:5])
        raise BadSkill(
            f"{source} holds {len(inner)} adapters: {names}.", f"choose one, such as {source.rstrip('/')}/{inner[0].name}"
        )
    if not inner:
        raise BadSkill(f"{source} holds no adapter: it has no adapter_config.json.", "give a folder that PEFT has saved")
    return inner[0]


def kind_of(skill) -> str:
    """What it is, in words."""
    factors = skill.factors.values()
    extras = {
        "biases": any(f.bias is not None for f in factors),
        "embeddings": any(f.lookup for f in factors),
        "new tokens": any(new.rows is not None for new in skill.replaced.values()),
        "new weights": any(new.rows is None for new in skill.replaced.values()),
    }
    kinds = {type(part).__name__.lower() for part in skill.full.values()}
    name = ["DoRA" if any(f.magnitude is not None for f in factors) else "LoRA"] * (bool(factors) or not kinds)
    return " + ".join([*name, *sorted(kinds), *(what for what, there in extras.items() if there)])


def folder_of(words: str, library: Path) -> Path:
    """An adapter folder, that of a skill folder, or that of a skill in the library."""
    if delta_skill(words, library) is not None:
        raise BadOption(
            f"`{words}` is a dense or sparse change, not an adapter.", "add it up with skillweave compose --method sum"
        )
    folder = Path(words).expanduser()
    if folder.is_dir():
        return folder / "adapter" if (folder / "SKILL.md").is_file() else adapter_in(folder, words)
    if "/" in words:
        raise BadSkill(f"{words} is not a folder with an adapter.", "name an adapter folder, or a skill of the library")
    try:
        skill = Library(library).get(words)
    except (LibraryError, NotFound, BadName) as error:
        hint = "name a folder with an adapter_config.json, or a skill (skillweave library list)"
        raise BadSkill(f"`{words}` is neither an adapter folder nor a skill: {error.message}", hint) from error
    if skill.adapter is None:
        raise BadOption(f"`{words}` is a skill of words: it has no adapter.", "name a skill that was learned")
    return skill.adapter


def _about(words: str, skill, bare, base: str | None) -> About:
    modules: dict[str, int] = {}
    energy: dict[str, float] = {}
    for slot in bare.slots:
        found = re.search(r"\.(\d+)\.", slot)
        layer, module = (found[1] if found else slot), slot.rpartition(".")[2]
        modules[module] = modules.get(module, 0) + 1
        parts = bare.parts(slot)
        energy[layer] = energy.get(layer, 0.0) + sum(one.inner(other) for one in parts for other in parts)
    ranks = [f.rank for f in bare.factors.values()] or [0]
    order = sorted(energy, key=lambda layer: (not layer.isdigit(), int(layer) if layer.isdigit() else 0, layer))
    by_layer = {layer: energy[layer] for layer in order}
    replaced = tuple(sorted(skill.replaced))
    return About(words, kind_of(skill), base, modules, min(ranks), max(ranks), skill.parameters, by_layer, replaced)


def _shared(one, two) -> float:
    """Share of the layers of either that both change."""
    return len({*one.slots} & {*two.slots}) / max(1, len({*one.slots, *two.slots}))
