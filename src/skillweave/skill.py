"""A skill is a folder: instructions in SKILL.md, perhaps trained weights or scripts, and where all of it comes from.

    date/
      SKILL.md            the Agent Skills standard: frontmatter (name, description, metadata) and instructions
      adapter/            optional: LoRA weights in PEFT's format
      delta.safetensors   instead of these: a dense or sparse change of weights
      provenance.json     base model, method, data, seed, parents, measured scores, and the digest of every other file

Reading is lenient, since half of the SKILL.md files in the world break the letter of the standard; `strict=True` is the letter.
What `write_skill` writes passes it.
"""

import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from . import frontmatter
from .errors import BadName, BadSkill
from .files import atomic_write, sha256_file, sha256_json
from .result import plain

FORMAT = 1
"""Version of provenance.json."""
JUNK = {".git", "__pycache__", ".DS_Store"}
"""Never part of a skill: not copied, not in the digest."""

_BLANK = {
    "base": None,
    "method": None,
    "config": {},
    "data": None,
    "seed": None,
    "parents": [],
    "versions": {},
    "scores": [],
    "cost": {},
}
_KEYS = {"name", "description", "license", "compatibility", "metadata", "allowed-tools"}


@dataclass(frozen=True)
class Skill:
    """A skill as it is on the disk."""

    path: Path
    """Its folder."""
    name: str
    description: str
    """What it does and when to use it."""
    body: str = field(repr=False)
    """The instructions, Markdown."""
    metadata: dict[str, str]
    provenance: dict = field(repr=False)
    """What provenance.json says; empty when there is none."""
    extra: dict = field(default_factory=dict, repr=False)
    """Other keys of the frontmatter (`license`, `allowed-tools`, ...), as text, lists and dicts."""

    @classmethod
    def load(cls, folder: Path, strict: bool = False) -> "Skill":
        """Read a skill folder; with `strict`, to the letter of the standard. Raises BadSkill with file and fix."""
        file = skill_file(Path(folder))
        fields, body = frontmatter.parse(_text(file), str(file), strict)
        if strict:
            _check_letter(file, fields)
        extra = dict(fields)
        name = extra.pop("name", "") or file.parent.resolve().name
        description = extra.pop("description", "")
        if not isinstance(name, str) or not isinstance(description, str) or not description.strip():
            raise BadSkill(f"{file} has no `description` that is text.", "say what the skill does, in a sentence")
        metadata = extra.pop("metadata", {})
        return cls(
            file.parent,
            slug(name) or slug(file.parent.resolve().name) or "unnamed",
            description.strip(),
            body,
            frontmatter.flat(metadata) if isinstance(metadata, dict) else {},
            load_provenance(file.parent),
            extra,
        )

    @property
    def digest(self) -> str:
        """Content address: of everything in the folder but provenance.json, as recorded there (computed when it is not)."""
        return self.provenance.get("digest") or digest_of(fingerprint(self.path))

    @property
    def adapter(self) -> Path | None:
        """The folder of LoRA weights, if the skill has one."""
        folder = self.path / "adapter"
        return folder if folder.is_dir() else None

    @property
    def delta(self) -> Path | None:
        """The file of a dense or sparse change of weights, if the skill has one in the place of an adapter."""
        file = self.path / "delta.safetensors"
        return file if self.adapter is None and file.is_file() else None

    @property
    def template(self) -> str:
        """How the user's text is wrapped before the model sees it; `{input}` stands for it."""
        return self.metadata.get("template", "{input}")

    @property
    def kind(self) -> str:
        """The heaviest thing it holds: `adapter`, `delta`, `composition`, `scripts` or only `instructions`."""
        if self.adapter:
            return "adapter"
        if (self.path / "parts").is_dir():
            return "composition"
        if self.delta:
            return "delta"
        return "scripts" if (self.path / "scripts").is_dir() else "instructions"


def check_name(name: str) -> str:
    """`name`, if it can name a skill (1 to 64 of a-z, 0-9 and single hyphens); else BadName, with one that can."""
    if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) and len(name) <= 64:
        return name
    shown = name if len(name) <= 80 else name[:77] + "..."
    better = slug(name)
    raise BadName(
        f"{shown!r} cannot be the name of a skill: names are 1 to 64 letters a-z, digits and single hyphens.",
        f"`{better}` would work" if better else "try a name like `date` or `tax-forms`",
    )


def slug(text: str) -> str:
    """The nearest name that a skill can have; empty when nothing is left."""
    ascii_ = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_).strip("-")[:64].strip("-")


def write_skill(
    folder: Path, *, name: str, description: str, body: str, metadata: Mapping[str, str], provenance: Mapping
) -> None:
    """Write SKILL.md and, last, provenance.json, which seals every other file that is in `folder` by then.

    `provenance` may hold any of base, method, config, data, seed, parents, versions, scores and cost; the rest is filled in.
    """
    check_name(name)
    description = description.strip()
    if not 1 <= len(description) <= 1024:
        raise BadSkill(f"the description of `{name}` has {len(description):,} characters.", "write 1 to 1,024 of them")
    fields: dict[str, str | dict[str, str]] = {"name": name, "description": description}
    if metadata:
        fields["metadata"] = {str(key): str(value) for key, value in metadata.items()}
    try:
        json.dumps([fields, body], ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadSkill(f"the text of `{name}` is not all UTF-8.", "remove the other bytes") from error
    atomic_write(folder / "SKILL.md", frontmatter.render(fields, body))
    seal(folder, name, provenance)


def seal(folder: Path, name: str, provenance: Mapping) -> dict:
    """Write provenance.json for what is in `folder` now, and return it."""
    files = fingerprint(folder)
    sealed = _BLANK | {"created": datetime.now(UTC).isoformat(timespec="seconds")} | plain(provenance)
    sealed |= {"format": FORMAT, "name": name, "digest": digest_of(files), "files": files}
    _write_provenance(folder, sealed)
    return sealed


def fingerprint(folder: Path) -> dict[str, dict]:
    """`{relative file: {"sha256", "bytes"}}` of everything in a skill but provenance.json."""
    return {name: {"sha256": sha256_file(path), "bytes": path.stat().st_size} for name, path in skill_files(folder).items()}


def digest_of(files: Mapping[str, Mapping]) -> str:
    """The content address of a skill with these files."""
    return sha256_json({name: entry.get("sha256") for name, entry in files.items()})


def compare(folder: Path, provenance: Mapping, name: str | None) -> Iterator[tuple[str, str]]:
    """Files of a skill that are not as `provenance` records them, each with `changed`, `missing`, `extra` or `unreadable`."""
    if not provenance:
        yield "provenance.json", "missing"
        return
    recorded = provenance.get("files")
    recorded = recorded if isinstance(recorded, dict) and all(isinstance(entry, dict) for entry in recorded.values()) else {}
    if provenance.get("digest") != digest_of(recorded) or provenance.get("name") != name:
        yield "provenance.json", "changed"
    there = skill_files(folder, junk=True)
    for file in sorted(recorded.keys() | there.keys()):
        if problem := _difference(there.get(file), recorded.get(file)):
            yield file, problem


def _difference(path: Path | None, entry: dict | None) -> str:
    if entry is None:
        return "extra"
    if path is None:
        return "missing"
    if path.is_symlink() or not path.is_file():
        return "changed"
    try:
        return "" if sha256_file(path) == entry.get("sha256") else "changed"
    except OSError:
        return "unreadable"


def add_scores(folder: Path, scores: Iterable[Mapping]) -> None:
    """Append measured scores (task, split, metric, value, low, high, n, seed) to provenance.json."""
    known = load_provenance(folder)
    _write_provenance(folder, known | {"scores": [*known.get("scores", []), *map(plain, scores)]})


def _write_provenance(folder: Path, value: Mapping) -> None:
    atomic_write(folder / "provenance.json", json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def skill_files(folder: Path, junk: bool = False) -> dict[str, Path]:
    """Relative name and path of everything in a skill that is not a folder or provenance.json, sorted; links stay links."""
    found = {path.relative_to(folder).as_posix(): path for path in _walk(folder, junk)}
    found.pop("provenance.json", None)
    return dict(sorted(found.items()))


def skill_file(folder: Path) -> Path:
    """The SKILL.md of a folder; `skill.md` counts too."""
    for name in ("SKILL.md", "skill.md"):
        if (folder / name).is_file():
            return folder / name
    if not folder.is_dir():
        raise BadSkill(f"{folder} is not a folder.", "name a folder that holds a SKILL.md")
    raise BadSkill(f"{folder} is not a skill: it has no SKILL.md.", "write one: `---`, name, description, `---`, instructions")


def load_provenance(folder: Path) -> dict:
    """What provenance.json says; empty when there is none. Raises BadSkill when it cannot be read."""
    file = folder / "provenance.json"
    if not file.exists():
        return {}
    try:
        value = json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise BadSkill(f"{file}:{line}: is not JSON.", "restore it, or delete it and add the skill again") from error
    if not isinstance(value, dict):
        raise BadSkill(f"{file}:1: is not a JSON object.", "restore it, or delete it and add the skill again")
    return value


def _walk(folder: Path, junk: bool) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in JUNK and not junk:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), junk)
            else:
                yield Path(entry.path)


def _text(file: Path) -> str:
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise BadSkill(f"{file} is not a plain file.", "put a plain file in its place")
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadSkill(f"{file} is not UTF-8 text: byte {error.start} does not fit.", "save it as UTF-8") from error
    except OSError as error:
        raise BadSkill(f"{file} cannot be read: {error.strerror}.", "check its permissions") from error


def _check_letter(file: Path, fields: dict) -> None:
    """The rules of the standard that lenient reading forgives."""
    name, description, metadata = fields.get("name"), fields.get("description"), fields.get("metadata", {})
    unknown = fields.keys() - _KEYS
    rules = {
        f"unknown key `{min(unknown, default='')}`; extras belong under `metadata`": not unknown,
        "the name is missing or not text": isinstance(name, str) and name,
        f"the name `{name}` is not the name of the folder": name == file.parent.resolve().name,
        "the description needs 1 to 1,024 characters": isinstance(description, str) and 1 <= len(description) <= 1024,
        "compatibility needs 1 to 500 characters": 1 <= len(fields.get("compatibility", "-")) <= 500,
        "metadata must be text by text": isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values()),
        "allowed-tools must be text": isinstance(fields.get("allowed-tools", ""), str),
    }
    for rule, kept in rules.items():
        if not kept:
            raise BadSkill(f"{file}: {rule}.", "load it without strict, or change it")
    check_name(str(name))
