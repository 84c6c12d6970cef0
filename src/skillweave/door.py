"""The guard at the library's door: what no skill may contain, found without running or unpickling anything.

Reading a pickle runs it, a link can point out of the folder, and a weight file with a false header can make a reader look where
it should not. So: plain files only, no pickles under any name, and every safetensors header must describe its file exactly.
"""

import json
import math
import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from .errors import BadSkill
from .skill import JUNK

MAX_FILES = 2_000
MAX_BYTES = 2 << 30
MAX_HEADER = 100 << 20
"""Bytes of a safetensors header, the format's own limit."""
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill"}
"""Suffixes of formats that run code when they are read."""

_DTYPES = {4: "F4", 6: "F6_E2M3 F6_E3M2", 8: "BOOL U8 I8 F8_E4M3 F8_E5M2 F8_E8M0", 16: "I16 U16 F16 BF16"}
_DTYPES |= {32: "I32 U32 F32", 64: "I64 U64 F64 C64"}
_BITS = {name: bits for bits, names in _DTYPES.items() for name in names.split()}
_PICKLE_STARTS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_AGAIN = "copy or download the skill again"


def scan_door(folder: Path) -> None:
    """Raise BadSkill, naming the file, if `folder` holds what no skill may hold."""
    if not folder.is_dir():
        raise BadSkill(f"{folder} is not a folder.", "name a folder that holds a SKILL.md")
    files = size = 0
    try:
        for path, status in _plain_files(folder):
            files, size = files + 1, size + status.st_size
            if files > MAX_FILES:
                raise BadSkill(f"{folder} holds more than {MAX_FILES:,} files.", "keep data and environments out of the skill")
            if size > MAX_BYTES:
                raise BadSkill(f"{folder} holds more than {MAX_BYTES >> 30} GiB (up to {path}).", "keep data out of the skill")
            _check_file(path)
    except OSError as error:
        raise BadSkill(f"{error.filename or folder} cannot be read: {error.strerror}.", "check its permissions") from error
    _check_adapter(folder / "adapter")
    if (folder / "adapter").is_dir() and (folder / "delta.safetensors").exists():
        raise BadSkill(f"{folder} holds an adapter and a delta.safetensors: one skill has one of the two.", "remove one")


def check_safetensors(path: Path) -> None:
    """Raise BadSkill unless the header of a safetensors file parses and its tensors fill the rest of the file exactly."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            raise BadSkill(f"{path} is truncated: {size:,} bytes, and its header does not fit.", _AGAIN)
        header = _json_object(path, file.read(length))
    spans = [_span(path, name, entry) for name, entry in header.items() if name != "__metadata__"]
    end = 0
    for first, last in sorted(spans):
        if first != end:
            raise BadSkill(f"{path} is corrupt: its tensors overlap or leave a gap at byte {min(first, end):,}.", _AGAIN)
        end = last
    if end != size - 8 - length:
        what = "truncated" if end > size - 8 - length else "corrupt"
        raise BadSkill(f"{path} is {what}: its header promises {end:,} bytes of weights, it has {size - 8 - length:,}.", _AGAIN)


def _plain_files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file below `folder` with its status; raises at the first thing that is neither a file nor a folder."""
    with os.scandir(folder) as entries:
        for entry in sorted((entry for entry in entries if entry.name not in JUNK), key=lambda entry: entry.name):
            if not entry.name.isprintable() or "\\" in entry.name:
                raise BadSkill(f"{str(folder)!r} holds a file with an unsafe name, {entry.name!r}.", "rename it")
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                raise BadSkill(f"{entry.path} is a link, and links can leave the skill.", "put a copy of the file in its place")
            if stat.S_ISDIR(status.st_mode):
                yield from _plain_files(Path(entry.path))
            elif stat.S_ISREG(status.st_mode):
                yield Path(entry.path), status
            else:
                raise BadSkill(f"{entry.path} is neither a file nor a folder.", "remove it")


def _check_file(path: Path) -> None:
    with open(path, "rb") as file:
        start = file.read(4)
    if path.suffix.lower() in PICKLES or start[:2] in _PICKLE_STARTS or (start == b"PK\x03\x04" and _holds_pickle(path)):
        hint = "save the weights as safetensors: PEFT does with save_pretrained(..., safe_serialization=True)"
        raise BadSkill(f"{path} is a pickle, which can run code when it is read.", hint)
    if path.suffix.lower() == ".safetensors":
        check_safetensors(path)
    if path.name == "adapter_config.json":
        _json_object(path, path.read_bytes())


def _holds_pickle(archive: Path) -> bool:
    """Whether a zip file is torch's: documents and templates are zip files too, and welcome outside `adapter/`."""
    try:
        with zipfile.ZipFile(archive) as members:
            return archive.parent.name == "adapter" or any(Path(name).suffix in PICKLES for name in members.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return True


def _check_adapter(folder: Path) -> None:
    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    for there, missing in ((config, weights), (weights, config)):
        if there.exists() and not missing.exists():
            raise BadSkill(f"{folder} has {there.name} but no {missing.name}.", _AGAIN)


def _json_object(path: Path, text: bytes) -> dict:
    try:
        value = json.loads(text.decode(), object_pairs_hook=_no_doubles)
    except (ValueError, RecursionError) as error:
        what = "its header" if path.suffix == ".safetensors" else "it"
        raise BadSkill(f"{path} is corrupt: {what} is not JSON.", _AGAIN) from error
    if not isinstance(value, dict):
        raise BadSkill(f"{path} is corrupt: it does not hold a JSON object.", _AGAIN)
    return value


def _no_doubles(pairs: list[tuple[str, object]]) -> dict:
    """A name that is there twice means one thing to one reader and another to the next."""
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name is there twice")
    return dict(pairs)


def _span(path: Path, name: str, entry) -> tuple[int, int]:
    """Where a tensor lies, in bytes after the header, if its dtype, shape and offsets agree."""
    try:
        (first, last), shape, bits = entry["data_offsets"], entry["shape"], _BITS[entry["dtype"]]
        whole = all(type(number) is int and number >= 0 for number in (first, last, *shape))
        if whole and math.prod(shape) * bits == (last - first) * 8:
            return first, last
    except (KeyError, TypeError, ValueError):
        pass
    raise BadSkill(f"{path} is corrupt: dtype, shape and place of tensor {name!r} do not agree.", _AGAIN)
