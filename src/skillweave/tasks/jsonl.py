"""The user's own data: JSONL or CSV, with the columns `prompt` and `completion`, or `messages`.

Every row is in the split `all`, in the order of the file. A hash of the prompt says whether it is also in train, valid or test
(about 80, 10 and 10 per cent), so rows with the same prompt stay together, and a row keeps its split when others are added.
Other columns are not read. A conversation becomes plain text: `role: content` lines, then `assistant:`; its last assistant
message is the completion, and what follows that is left out.
"""

import csv
import difflib
import hashlib
import json
import os
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import BadData
from ..task import SPLITS, Example, Task, split_of

COLUMNS_HINT = "name the columns `prompt` and `completion`, or `messages`"


CHAT = "user: {input}\nassistant:\n"
"""What a conversation of one question is written as; `run` writes a plain text in the same way."""


class JsonlTask(Task):
    """The rows of a `.jsonl` or `.csv` file; the seed orders train, valid and test, it does not choose their rows."""

    splits = (*SPLITS, "all")

    def __init__(self, path: Path, seed: int = 0):
        super().__init__(seed)
        self._rows = list(read_rows(path))
        if not self._rows:
            raise BadData(f"{path} has no rows.", "put one example on each line")
        if all(prompt.startswith("user: ") and prompt.endswith("\nassistant:\n") for prompt, _ in self._rows):
            self.template = CHAT
        self.name = path.stem
        self.description = f"{len(self._rows)} rows of {path.name}"
        self._places = {split: [] for split in SPLITS} | {"all": list(range(len(self._rows)))}
        for at, (prompt, _) in enumerate(self._rows):
            self._places[split_of(_key(prompt))].append(at)
        for split in SPLITS:
            random.Random(f"{seed}/{split}").shuffle(self._places[split])

    def size(self, split: str) -> int:
        self.check_split(split)
        return len(self._places[split])

    def example(self, i: int, split: str) -> Example:
        return Example(*self._rows[self._places[split][self.place(i, split)]])

    def content(self, example: Example) -> frozenset[str]:
        return frozenset({_key(example.prompt)})

    def digest(self) -> str:
        """Content address of the rows; the file's name, its other columns and the seed do not matter."""
        rows = hashlib.sha256()
        for row in self._rows:
            rows.update(json.dumps(row).encode() + b"\n")
        return rows.hexdigest()


def read_rows(path: Path) -> Iterator[tuple[str, str]]:
    """(prompt, completion) of each row of `path`, read as a stream; BadData with the line of the first fault."""
    if not os.path.exists(path):
        raise BadData(f"there is no file {path}.{_nearest(path)}", "check the path")
    if os.path.isdir(path):
        raise BadData(f"{path} is a folder, not a data file.", "name the .jsonl or .csv file in it")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        message = f"{path} ends in `{path.suffix}`; data are read from {' and '.join(READERS)}."
        raise BadData(message, "save the data as one of these")
    for where, row in reader(path):
        yield _pair(row, where)


def _nearest(path: Path) -> str:
    try:
        near = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1, cutoff=0.5)
    except OSError:
        return f" There is no folder {path.parent} either."
    return f" Did you mean `{path.parent / near[0]}`?" if near else ""


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of each line; a byte order mark is dropped."""
    number = 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise BadData(f"{path} line {number} is not UTF-8 (byte 0x{byte:02x}).", "save the file as UTF-8") from error
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror}.", "check the file and its permissions") from error


def _jsonl(path: Path) -> Iterator[tuple[str, dict]]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        row = _json(line.rstrip(), where)
        if not isinstance(row, dict):
            raise BadData(f"{where} is {_kind(row)}, not an object.", 'write {"prompt": "…", "completion": "…"} on each line')
        yield where, row


def _csv(path: Path) -> Iterator[tuple[str, dict]]:
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    start = 1
    try:
        names = [name.strip() for name in next((row for row in reader if row), [])]
        if names:
            _check_columns(names, f"{path} line {reader.line_num}")
        start = reader.line_num + 1
        for values in reader:
            where = f"{path} line {start}"
            if values:
                yield where, _named(names, values, where)
            start = reader.line_num + 1
    except csv.Error as error:
        hint = 'write quotes inside a value as "", or use JSON lines'
        raise BadData(f"{path} line {start} is not CSV: {error}.", hint) from error


READERS = {".jsonl": _jsonl, ".csv": _csv}


def _named(names: list[str], values: list[str], where: str) -> dict:
    if len(values) != len(names):
        hint = "put values that hold commas in double quotes"
        raise BadData(f"{where} does not fit the columns: {len(values)} values against {len(names)} names.", hint)
    return dict(zip(names, values, strict=True))


def _json(text: str, where: str):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadData(f"{where} is not JSON: {error.msg} at column {error.colno}.", "mend or remove it") from error
    except (ValueError, RecursionError) as error:
        raise BadData(f"{where} is not JSON that can be read: {error}.", "mend or remove it") from error


def _pair(row: dict, where: str) -> tuple[str, str]:
    _check_columns(row, where)
    if "prompt" in row and "completion" in row:
        return _filled(row["prompt"], "prompt", where), _filled(row["completion"], "completion", where)
    return _conversation(row["messages"], where)


def _check_columns(found: Iterable[str], where: str) -> None:
    missing = [name for name in ("prompt", "completion") if name not in found]
    if missing and "messages" not in found:
        names = ", ".join(f"`{name[:40]}`" for name in list(found)[:10]) or "none"
        raise BadData(f"{where} has no column `{'` and no `'.join(missing)}`; found: {names}.", COLUMNS_HINT)


def _conversation(messages: object, where: str) -> tuple[str, str]:
    """Prompt and completion: what comes before the last assistant message, and that message."""
    if isinstance(messages, str):  # a cell of a CSV file
        messages = _json(messages, f"`messages` in {where}")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadData(f"`messages` in {where} is not a list of objects.", 'write [{"role": "user", "content": "…"}, …]')
    turns = [tuple(_text(message.get(key), key, where) for key in ("role", "content")) for message in messages]
    last = max((at for at, (role, _) in enumerate(turns) if role == "assistant"), default=0)
    if last == 0:
        raise BadData(f"`messages` in {where} has no assistant message after another one.", "end it with an answer")
    prompt = "".join(f"{role}: {content}\n" for role, content in turns[:last]) + "assistant:\n"
    return prompt, _filled(turns[last][1], "content", where)


def _text(value: object, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise BadData(f"`{column}` in {where} is {_kind(value)}, not text.", "put it in quotes, or leave the row out")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadData(f"`{column}` in {where} holds half a character ({value[error.start]!a}).", "mend or remove it") from error
    return value


def _filled(value: object, column: str, where: str) -> str:
    text = _text(value, column, where)
    if not text.strip():
        raise BadData(f"`{column}` in {where} is empty.", "fill it in, or leave the row out")
    return text


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _key(prompt: str) -> str:
    return " ".join(prompt.split())
