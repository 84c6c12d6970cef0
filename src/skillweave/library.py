"""A library: a folder of skills that stays whole whatever happens to the programs that use it.

    library/
      skillweave.json     says that this is a library, and of which format
      date/  number/      one folder a skill
      index.sqlite        answers list and search; made anew whenever it is missing or wrong (index.py)
      .lock  .staging/    one writer at a time; skills that are not there yet, or not any more

A skill is filled in `.staging`, flushed to the disk, and renamed into place in one step. Its filler holds a lock on its staging
folder, which the system gives back when the process dies: whoever writes next removes the folders that nobody holds. Readers
take no lock and need no permission to write.
"""

import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from dataclasses import replace as as_named
from pathlib import Path

from . import frontmatter
from .door import scan_door
from .errors import BadName, BadSkill, LibraryError, NotFound
from .files import atomic_write, fsync_folder, fsync_tree, os_errors
from .index import Entry, Index, scan
from .skill import Skill, add_scores, check_name, compare, load_provenance, seal, skill_file, skill_files

FORMAT = 1
MARKER = "skillweave.json"
ALONE = "base"
"""What commands call the model without any skill; no skill can have this name."""
PATIENCE = 10.0
"""Seconds a writer waits for another one."""


@dataclass(frozen=True)
class Finding:
    """A file that is not as it was recorded when its skill was made."""

    name: str
    """The skill."""
    file: str
    """The file, relative to the skill's folder."""
    problem: str
    """`changed`, `missing`, `extra` or `unreadable`."""


Names = list[str]
Entries = list[Entry]
Findings = list[Finding]


class Library:
    """The skills in one folder."""

    def __init__(self, path: Path, create: bool = False):
        """Open the library at `path`; with `create`, a missing or empty folder becomes one. Raises LibraryError."""
        self.path = Path(path)
        self._staging = self.path / ".staging"
        self._index = Index(self.path)
        if not _is_library(self.path, create):
            with os_errors(self.path):
                atomic_write(self.path / MARKER, json.dumps({"format": FORMAT}) + "\n")

    def __contains__(self, name: str) -> bool:
        try:
            self.folder(name)
        except (BadName, NotFound):
            return False
        return True

    def __len__(self) -> int:
        return len(self.names())

    def names(self) -> Names:
        """Names of all skills, sorted."""
        self._settle()
        return sorted(scan(self.path))

    def folder(self, name: str) -> Path:
        """Where the skill `name` is, readable or not. Raises BadName, or NotFound with the nearest name."""
        folder = self.path / check_name(name)
        if not _is_skill(folder):
            self._settle()
            self._check_there(name)
        return folder

    def get(self, name: str) -> Skill:
        """The skill `name`, read from its folder, again if it was replaced meanwhile. Raises BadName, NotFound, BadSkill."""
        while True:
            folder = self.folder(name)
            before = _which(folder)
            try:
                skill = Skill.load(folder)
            except BadSkill:
                if before is not None and _which(folder) == before:
                    raise
            else:
                if _which(folder) == before:
                    return as_named(skill, name=name)

    def search(self, query: str, limit: int = 20) -> Entries:
        """Skills whose names, descriptions or instructions hold words that begin like those of `query`, the best first.

        Where no skill holds all the words, those that hold any. An empty query finds all skills, by name.
        """
        if not query.strip():
            return self.list()[:limit]
        words = tuple(re.findall(r"[^\W_]+", query))
        self._settle()
        return self._index.search(words, limit) if words else []

    def add(self, folder: Path, name: str | None = None, replace: bool = False) -> Skill:
        """Copy a skill folder in, after a look at what is in it.

        A skill that was sealed with provenance.json must still be what was sealed; another gets its seal here. Raises BadSkill,
        BadName or LibraryError, and then nothing has changed.
        """
        folder = Path(folder)
        scan_door(folder)
        its_name = Skill.load(folder).name
        name = check_name(its_name if name is None else name)
        with self._filling(name, replace) as inside:
            for relative, source in skill_files(folder).items():
                _copy(source, inside / relative)
            if (folder / "provenance.json").exists():
                _copy(folder / "provenance.json", inside / "provenance.json")
            _settle_name(inside, name, folder)
        return self.get(name)

    @contextmanager
    def new(self, name: str, replace: bool = False) -> Iterator[Path]:
        """A folder to fill, ending with `write_skill`; it becomes the skill `name` at the end, or vanishes if the block raises.

        A name that is taken is refused at once (unless `replace`), and again at the end if somebody was quicker.
        """
        with self._filling(check_name(name), replace) as inside:
            yield inside
            for file, problem in compare(inside, load_provenance(inside), name):
                raise BadSkill(f"`{name}` was not finished: {file} is {problem}.", "call write_skill last, with the same name")

    def remove(self, name: str) -> Skill:
        """Take the skill `name` out and delete it; returns what it was."""
        folder = self.folder(name)
        try:
            skill = self.get(name)
        except BadSkill:
            skill = Skill(folder, name, "", "", {}, {})
        with os_errors(folder), self._stage(name) as stage, self._writing():
            self._check_there(name)
            os.rename(folder, stage / "gone")
            fsync_folder(self.path)
            self._index.put(name)
        return skill

    def record(self, name: str, scores: Iterable[dict]) -> Skill:
        """Add measured scores to the provenance of `name`; its digest stays, since it does not cover them."""
        folder = self.folder(name)
        with os_errors(folder), self._writing():
            self._check_there(name)
            add_scores(folder, scores)
            self._index.put(name)
        return self.get(name)

    def verify(self, name: str | None = None) -> Findings:
        """What differs from the digests recorded when the skills were made, in one skill or in all; reads every byte."""
        folders = [self.folder(name)] if name is not None else [self.path / each for each in self.names()]
        return [finding for folder in folders for finding in _verify(folder)]

    def rebuild(self) -> int:
        """Make the index anew from the folders; returns the number of skills."""
        with os_errors(self.path), self._writing():
            return self._index.rebuild()

    def list(self) -> Entries:
        """All skills, by name."""
        self._settle()
        return self._index.entries()

    def _check_there(self, name: str) -> None:
        if not _is_skill(self.path / name):
            raise NotFound("skill", name, self.names(), str(self.path), f"skillweave library list --library {self.path}")

    def _check_free(self, name: str, replace: bool) -> None:
        target = self.path / name
        if not os.path.lexists(target):
            return
        if not _is_skill(target):
            raise LibraryError(f"{target} is in the way: it is not a skill.", "move it elsewhere, or choose another name")
        if not replace:
            raise LibraryError(f"{self.path} already has a skill `{name}`.", "choose another name, or use --replace")

    @contextmanager
    def _filling(self, name: str, replace: bool) -> Iterator[Path]:
        """An empty folder that is scanned, flushed and renamed to `name` when the block ends."""
        if name == ALONE:
            raise BadName(
                f"`{ALONE}` stands for the model alone, as in `skillweave measure {ALONE} date`.", "choose another name"
            )
        self._check_free(name, replace)
        with self._os_errors(name), self._stage(name) as stage:
            inside = stage / "skill"
            inside.mkdir()
            yield inside
            scan_door(inside)
            fsync_tree(inside)
            self._publish(stage, name, replace)

    @contextmanager
    def _os_errors(self, name: str) -> Iterator[None]:
        """`os_errors`, but leaving alone what the caller's block meets in other folders."""
        try:
            yield
        except OSError as error:
            places = [str(place) for place in (error.filename, error.filename2) if place is not None]
            if places and not any(place.startswith(str(self.path)) for place in places):
                raise
            with os_errors(self.path / name):
                raise

    def _publish(self, stage: Path, name: str, replace: bool) -> None:
        """Rename what was staged into place; a replaced skill waits in the stage, from where `_sweep` would bring it back."""
        target = self.path / name
        with self._writing():
            self._check_free(name, replace)
            try:
                if target.exists():
                    os.rename(target, stage / "was")
                os.rename(stage / "skill", target)
            except BaseException:
                _restore(stage, target)
                raise
            fsync_folder(self.path)
            self._index.put(name)

    @contextmanager
    def _stage(self, name: str) -> Iterator[Path]:
        """A folder in `.staging` that is held by this process, and removed at the end."""
        with self._writing():
            stage = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._staging))
            held = _hold(stage)
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)
            if held is not None:
                os.close(held)

    @contextmanager
    def _writing(self, patience: float = PATIENCE) -> Iterator[None]:
        """The only writer until the block ends; what killed writers left is cleared away first."""
        lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _wait_for(lock, patience, self.path)
            self._staging.mkdir(exist_ok=True)
            self._sweep()
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # by name: a forked child may still have the file open
            os.close(lock)

    def _sweep(self) -> None:
        for stage in sorted(self._staging.iterdir()):
            if (held := _hold(stage)) is not None:
                _restore(stage, self.path / stage.name.rpartition("-")[0])
                shutil.rmtree(stage, ignore_errors=True)
                os.close(held)

    def _settle(self) -> None:
        """Bring back what a killed writer was replacing, and wait for one that is just doing so."""
        with suppress(OSError, LibraryError):
            if any((stage / "was").exists() for stage in self._staging.iterdir()):
                with self._writing(patience=1.0):
                    pass


def _is_library(path: Path, create: bool) -> bool:
    """Whether there is one; False if there should be one. Raises LibraryError when there cannot be."""
    if (path / MARKER).is_file():
        _check_marker(path / MARKER)
        return True
    try:
        empty = all(name.startswith(".") or name == MARKER for name in os.listdir(path))  # somebody may just be making it
    except FileNotFoundError:
        if create:
            return False
        hint = "`skillweave quickstart` and `skillweave learn` make one; --library DIR opens another"
        raise LibraryError(f"there is no library at {path}.", hint) from None
    except NotADirectoryError:
        raise LibraryError(f"{path} is a file, not a library.", "name a folder with --library DIR") from None
    except OSError as error:
        raise LibraryError(f"{path} cannot be read: {error.strerror}.", "choose another with --library DIR") from error
    if not create or not empty:
        raise LibraryError(f"{path} is not a library: it has no {MARKER}.", "name a library or a new folder with --library DIR")
    return False


def _check_marker(marker: Path) -> None:
    try:
        found = json.loads(marker.read_bytes())["format"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LibraryError(
            f"{marker} cannot be read.", f'if this is a library, write {{"format": {FORMAT}}} into it'
        ) from error
    if found != FORMAT:
        raise LibraryError(f"{marker.parent} has format {found}, and this skillweave reads {FORMAT}.", "update skillweave")


def _is_skill(folder: Path) -> bool:
    return (folder / "SKILL.md").exists() or (folder / "skill.md").exists()


def _which(folder: Path) -> tuple[int, int] | None:
    """What tells a folder from the one that takes its place."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns


def _copy(source: Path, target: Path) -> None:
    """Copy the bytes, and whether it can be executed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target, follow_symlinks=False)
    target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def _settle_name(folder: Path, name: str, source: Path) -> None:
    """Give what was copied from `source` the name it will have, and a seal if it needs one."""
    known = load_provenance(folder)
    if "digest" in known:
        for file, problem in compare(folder, known, known.get("name")):
            hint = "get the skill again, or delete its provenance.json to add it as it is"
            raise BadSkill(f"{source / file} is {problem}: the skill is not what was sealed in provenance.json.", hint)
    file = skill_file(folder)
    text = file.read_bytes().decode("utf-8-sig")
    right = frontmatter.parse(text, str(source / file.name))[0].get("name") == name
    if not right:
        file.write_bytes(frontmatter.renamed(text, name).encode())
    if not right or known.get("digest") is None or known.get("name") != name:
        seal(folder, name, known)


def _verify(folder: Path) -> Findings:
    try:
        known = load_provenance(folder)
        return [Finding(folder.name, file, problem) for file, problem in compare(folder, known, folder.name)]
    except BadSkill:
        return [Finding(folder.name, "provenance.json", "unreadable")]
    except OSError as error:  # a folder without permission; or the skill was removed meanwhile
        return [Finding(folder.name, os.path.relpath(error.filename, folder), "unreadable")] if _is_skill(folder) else []


def _hold(stage: Path) -> int | None:
    """Lock a staging folder: the open descriptor; None when somebody else holds it (or this file system cannot tell)."""
    descriptor = os.open(stage, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _restore(stage: Path, target: Path) -> None:
    """Bring back the skill that was being replaced, if the new one did not get into its place."""
    if (stage / "was").exists() and not os.path.lexists(target):
        os.rename(stage / "was", target)


def _wait_for(lock: int, patience: float, library: Path) -> None:
    until = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                message = f"another process is writing to {library}, and did not finish in {patience:.0f} seconds."
                raise LibraryError(message, "wait for it, or end it, and run the same command again") from None
            time.sleep(0.01)
