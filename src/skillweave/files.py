"""Files that are either all there or not there: write aside, fsync, rename."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import BadOption, LibraryError


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value) -> str:
    """Hex digest of a JSON value in canonical form (sorted keys, no spaces)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says about `path` into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LibraryError(f"no space left for {path}.", "free some space and run the same command again") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise LibraryError(f"no permission to write {path}.", "choose another folder with --library DIR") from error
        raise


def fsync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder` to the disk."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def fsync_folder(folder: Path) -> None:
    """Flush the names in `folder` itself (not what they hold)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_folder(target: Path, replace: bool = False) -> Iterator[Path]:
    """A folder to fill, beside `target`; renamed to `target` when the block ends, removed when it raises.

    With `replace`, a folder that stands at `target` is moved aside first and removed last. Without it, one that stands there
    raises FileExistsError, also when two processes race.
    """
    with os_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
        try:
            aside.chmod(0o755)
            yield aside
            fsync_tree(aside)
            if replace and target.exists():
                old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-old-"))
                os.rename(target, old / "was")
                os.rename(aside, target)
                shutil.rmtree(old, ignore_errors=True)
            elif target.exists():
                raise FileExistsError(errno.EEXIST, "exists", str(target))
            else:
                os.rename(aside, target)
            fsync_folder(target.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def check_new(target: Path) -> None:
    """BadOption if there is something at `target` already."""
    if target.exists() or target.is_symlink():
        raise BadOption(f"{target} is already there.", "choose another --out, or remove it")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """`atomic_folder` for an answer of a command: one that is there already is BadOption, also when two processes race."""
    check_new(target)
    try:
        with atomic_folder(target) as folder:
            yield folder
    except FileExistsError:
        check_new(target)
        raise


def atomic_write(target: Path, text: str | bytes) -> None:
    """Replace the file `target` in one step."""
    data = text.encode() if isinstance(text, str) else text
    with os_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(aside, 0o644)
            os.replace(aside, target)
            fsync_folder(target.parent)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
