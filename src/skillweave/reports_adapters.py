"""What import, export and inspect answer with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .result import Table


@dataclass(frozen=True)
class Imported:
    """An adapter that is a skill now."""

    name: str
    path: Path
    base: str
    kind: str
    layers: int
    rank: int
    parameters: int
    shift: float
    """How far it moves the logits of a few tokens, relative to them (unitless)."""
    lost: float | None
    """‖lost‖ / ‖ΔW‖ where a plain adapter was made of it (unitless)."""

    @property
    def next(self) -> str:
        return f"skillweave measure {self.name} base --data FILE"

    def table(self) -> Table:
        columns = ("skill", "what", "base", "layers", "rank", "parameters", "logits moved by")
        row = (self.name, self.kind, self.base, self.layers, self.rank, f"{self.parameters:,}", f"{self.shift:.1%}")
        note = f"saved in {self.path}"
        if self.lost is not None:
            note = f"made plain at rank {self.rank}: {self.lost:.1%} of the change is lost; {note}"
        return Table(columns, (row,), note=note)


@dataclass(frozen=True)
class Exported:
    """A skill that is an adapter for others now."""

    name: str
    path: Path
    files: tuple[str, ...]
    scores: int
    """Measured scores in the model card."""

    def table(self) -> Table:
        note = "the card holds no measured score" if not self.scores else f"measured scores in the card: {self.scores}"
        return Table(("skill", "folder", "files"), ((self.name, self.path, self.files),), note=note)


@dataclass(frozen=True)
class About:
    """What one adapter is."""

    name: str
    kind: str
    base: str | None
    """What it says that it was made on."""
    modules: Mapping[str, int]
    """How many layers of each name it changes."""
    lowest_rank: int
    rank: int
    parameters: int
    energy_by_layer: Mapping[str, float]
    """‖ΔW‖² of each transformer layer, the head and the embeddings; of a DoRA before its magnitudes."""
    replaced: tuple[str, ...]
    """Weights of the base that it brings in full."""

    @property
    def ranks(self) -> str:
        if not self.rank:
            return "none"
        return str(self.rank) if self.rank == self.lowest_rank else f"{self.lowest_rank} to {self.rank}"

    @property
    def energy(self) -> float:
        return sum(self.energy_by_layer.values())


@dataclass(frozen=True)
class Inspected:
    """Adapters, and how alike they are."""

    adapters: tuple[About, ...]
    cosine: Sequence[Sequence[float]]
    """Between the changes of all weights, for every two (unitless)."""
    overlap: Sequence[Sequence[float]]
    """Share of the layers of either that both change."""

    def table(self) -> Table:
        return self._one(self.adapters[0]) if len(self.adapters) == 1 else self._several()

    def _one(self, about: About) -> Table:
        total = about.energy or 1.0
        rows = tuple((layer, f"{e:.4g}", f"{e / total:.1%}") for layer, e in about.energy_by_layer.items())
        modules = ", ".join(f"{module} {count}" for module, count in about.modules.items())
        lines = [f"{about.name}: {about.kind} on {about.base or 'a base it does not name'}"]
        lines += [f"rank {about.ranks}, {about.parameters:,} parameters, layers: {modules}"]
        lines += [f"replaces {', '.join(about.replaced)}"] if about.replaced else []
        note = "of a DoRA, the energy is that before its magnitudes" if "DoRA" in about.kind else ""
        return Table(("layer", "energy", "share"), rows, "\n".join(lines), note)

    def _several(self) -> Table:
        rows = []
        for about, cosine, overlap in zip(self.adapters, self.cosine, self.overlap, strict=True):
            facts = (about.name, about.kind, about.ranks, f"{about.parameters:,}", f"{about.energy:.4g}")
            rows.append((*facts, *(f"{c:.3f} ({o:.0%})" for c, o in zip(cosine, overlap, strict=True))))
        columns = ("adapter", "what", "rank", "parameters", "energy", *(about.name for about in self.adapters))
        note = "cosine of the changes, and in brackets the share of layers that both change"
        return Table(columns, tuple(rows), note=note)
