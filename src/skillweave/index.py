"""The library's index: one SQLite file that answers list and search, and may be lost at any time.

The folders are the truth. Before each answer the index is compared with them, by the names of the folders and the time at which
each SKILL.md changed; what differs is read again. So a skill that was dropped in, edited or removed by hand is seen, and a
deleted, corrupted or outdated index heals itself. Where the file cannot be written, an index in memory does the same.
"""

import math
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .errors import LibraryError, SkillweaveError
from .result import Estimate
from .skill import Skill, check_name

FORMAT = 1
"""Raised when the tables change; an index of another format is made anew."""
BUSY = 5.0
"""Seconds to wait for another process that is writing the index."""

T = TypeVar("T")
_COLUMNS = "name, description, kind, base, parents, best_on, value, low, high, n, unit, stamp"
_TABLES = f"""
    CREATE TABLE skills (id INTEGER PRIMARY KEY, {_COLUMNS.replace("name,", "name TEXT UNIQUE,", 1)});
    CREATE {{kind}} words {{using}}(name, description, body{{options}});
    PRAGMA user_version = {FORMAT};
"""
_FTS_OPTIONS = ", prefix='2 3', tokenize='unicode61 remove_diacritics 2'"
_NEW_WORDS = "INSERT INTO words (rowid, name, description, body) VALUES (?, ?, ?, ?)"
_DAMAGED = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_WEIGHTS = {"name": 10.0, "description": 4.0, "body": 1.0}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a list of skills."""

    name: str
    description: str
    kind: str
    """`adapter`, `delta`, `scripts`, `instructions`; `broken` when it cannot be read: the description says why."""
    base: str | None
    """Name of the base model it was learned on."""
    parents: tuple[str, ...]
    """Names of the skills it was made of."""
    best: Estimate | None
    """Its highest measured score."""
    best_on: str
    """What that was measured on: task, split and metric."""


class Index:
    """The index of the skills in the folder `library`. Threads and processes may share it."""

    def __init__(self, library: Path):
        self.library = library
        self.file = library / "index.sqlite"
        self._memory: sqlite3.Connection | None = None
        self._turn = threading.Lock()

    def entries(self) -> list[Entry]:
        """All skills, by name."""
        return self._fresh(self._answer(lambda db: _all(db, self.library)))

    def search(self, words: tuple[str, ...], limit: int) -> list[Entry]:
        """The skills that hold all the words, or if there are none, any of them; a word matches by its beginning."""

        def question(db: sqlite3.Connection) -> list[Entry]:
            _sync(db, self.library)
            return _search(db, words, " ", limit) or _search(db, words, " OR ", limit)

        return self._fresh(self._answer(question))

    def put(self, name: str) -> None:
        """Take note of one skill that was added, changed or removed, if that is possible now."""
        with suppress(sqlite3.Error), closing(self._open()) as db, _transaction(db):
            _update(db, self.library, {name: stamp} if (stamp := _stamp(self.library / name)) else {}, {name})

    def rebuild(self) -> int:
        """Forget the index and make it anew; returns the number of skills."""
        self._discard()
        return len(self.entries())

    def _fresh(self, entries: list[Entry]) -> list[Entry]:
        """The entries, with broken skills looked at again: what was wrong need not have been in SKILL.md."""
        return [self._again(entry) if entry.kind == "broken" else entry for entry in entries]

    def _again(self, entry: Entry) -> Entry:
        fresh, _ = _read(self.library / entry.name)
        if fresh != entry:
            self.put(entry.name)
        return fresh

    def _answer(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Ask the index: the file; the file made anew, if it is damaged; or else one in memory."""
        with self._turn:
            for _ in range(2 if self._memory is None else 0):
                try:
                    with closing(self._open()) as db:
                        return question(db)
                except sqlite3.Error as error:
                    if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _DAMAGED or not self._discard():
                        break
            if self._memory is None:
                self._memory = _prepared(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))
            return question(self._memory)

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.file, timeout=BUSY, isolation_level=None)
        try:
            return _prepared(db)
        except BaseException:
            db.close()
            raise

    def _discard(self) -> bool:
        try:
            for file in (f"{self.file}-journal", self.file):
                with suppress(FileNotFoundError):
                    os.unlink(file)
        except OSError:
            return False
        return True


def scan(library: Path) -> dict[str, int]:
    """The skills that are in the folder now: name, and when its SKILL.md last changed (nanoseconds). No file is opened."""
    try:
        descriptor = os.open(library, os.O_RDONLY)
    except OSError as error:
        raise LibraryError(f"{library} cannot be read: {error.strerror}.", "choose another with --library DIR") from error
    try:
        names = [name for name in os.listdir(descriptor) if not name.startswith(".") and name.isprintable()]
        return {name: stamp for name in names if (stamp := _stamp(name, descriptor))}
    finally:
        os.close(descriptor)


def _stamp(folder: Path | str, descriptor: int | None = None) -> int:
    """When the SKILL.md of a folder last changed; 0 when the folder is not a skill."""
    try:
        return os.stat(f"{folder}/SKILL.md", dir_fd=descriptor).st_ctime_ns
    except OSError:
        with suppress(OSError):
            return os.stat(f"{folder}/skill.md", dir_fd=descriptor).st_ctime_ns
    return 0


def _prepared(db: sqlite3.Connection) -> sqlite3.Connection:
    """The connection, with tables of today's format in it."""
    if (found := _format(db)) == 0:
        with _transaction(db):
            if _format(db) == 0:  # another process may just have made them
                _create_tables(db)
    elif found != FORMAT:
        error = sqlite3.DatabaseError(f"the index has format {found}")
        error.sqlite_errorcode = sqlite3.SQLITE_ERROR
        raise error
    db.execute("PRAGMA cache_size = -65536")  # KiB: a rebuild stays out of the readers' way until it commits
    return db


def _format(db: sqlite3.Connection) -> int:
    return db.execute("PRAGMA user_version").fetchone()[0]


def _create_tables(db: sqlite3.Connection) -> None:
    fts = {"kind": "TABLE", "using": "", "options": ""}
    if _has_fts(db):
        fts = {"kind": "VIRTUAL TABLE", "using": "USING fts5", "options": _FTS_OPTIONS}
    for statement in _TABLES.format(**fts).split(";"):
        db.execute(statement)


def _has_fts(db: sqlite3.Connection) -> bool:
    return bool(db.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchone())


class _transaction:
    """The only writer of the index, until the block ends."""

    def __init__(self, db: sqlite3.Connection):
        self.db = db

    def __enter__(self) -> None:
        self.db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind, *_) -> None:
        self.db.execute("ROLLBACK" if kind else "COMMIT")


def _all(db: sqlite3.Connection, library: Path) -> list[Entry]:
    """All entries, by name, from the same rows that are compared with the folders."""
    question = f"SELECT {_COLUMNS} FROM skills"
    rows = db.execute(question).fetchall()
    if _sync(db, library, {row[0]: row[-1] for row in rows}):
        rows = db.execute(question).fetchall()
    return _entries(sorted(rows))


def _sync(db: sqlite3.Connection, library: Path, known: dict[str, int] | None = None) -> bool:
    """Make the index agree with the folders, and say whether it did not.

    Costs one look at each folder, and a read of those that changed. `known` are the stamps in the index, if they are at hand.
    """
    if (_stamps(db) if known is None else known) == scan(library):
        return False
    with _transaction(db):
        known, there = _stamps(db), scan(library)
        changed = {name: stamp for name, stamp in there.items() if known.get(name) != stamp}
        _update(db, library, changed, (known.keys() - there.keys()) | changed.keys())
    return True


def _stamps(db: sqlite3.Connection) -> dict[str, int]:
    return dict(db.execute("SELECT name, stamp FROM skills"))


def _update(db: sqlite3.Connection, library: Path, changed: dict[str, int], stale: set[str]) -> None:
    """Forget the skills in `stale`, and read those in `changed`."""
    known = [(id_,) for name in stale for (id_,) in db.execute("SELECT id FROM skills WHERE name = ?", (name,))]
    db.executemany("DELETE FROM words WHERE rowid = ?", known)
    db.executemany("DELETE FROM skills WHERE id = ?", known)
    places = ", ".join("?" * len(_COLUMNS.split(",")))
    for name, stamp in changed.items():
        entry, body = _read(library / name)
        row = (name, entry.description, entry.kind, entry.base, "\n".join(entry.parents), entry.best_on)
        row += (best.value, best.low, best.high, best.n, best.unit) if (best := entry.best) else (None, None, None, 0, "")
        id_ = db.execute(f"INSERT INTO skills ({_COLUMNS}) VALUES ({places})", _storable(*row, stamp)).lastrowid
        db.execute(_NEW_WORDS, _storable(id_, name, entry.description, body))


def _storable(*values) -> tuple:
    """Values with halves of characters, which JSON allows and SQLite does not, replaced by `?`."""
    return tuple(value.encode(errors="replace").decode() if isinstance(value, str) else value for value in values)


def _read(folder: Path) -> tuple[Entry, str]:
    """What the index knows of one skill, and its body. A skill that cannot be read is listed, with the reason."""
    try:
        check_name(folder.name)
        skill = Skill.load(folder)
    except SkillweaveError as error:
        return Entry(folder.name, str(error), "broken", None, (), None, ""), ""
    made = skill.provenance
    parents = tuple(name for parent in _items(made.get("parents")) if (name := _name(parent)))
    best, best_on = _best(_items(made.get("scores")))
    return Entry(folder.name, skill.description, skill.kind, _name(made.get("base")), parents, best, best_on), skill.body


def _items(value) -> list:
    return value if isinstance(value, list) else []


def _name(value) -> str | None:
    name = value.get("name") if isinstance(value, dict) else value
    return name if isinstance(name, str) else None


def _best(scores: list) -> tuple[Estimate | None, str]:
    """The highest score that is a number, and what was measured; provenance may come from anywhere, so it may be anything."""
    numbers = [score for score in scores if isinstance(score, dict) and _number(score.get("value")) is not None]
    if not numbers:
        return None, ""
    best = max(numbers, key=lambda score: score["value"])
    low, high = (bound if (bound := _number(best.get(key))) is not None else math.nan for key in ("low", "high"))
    estimate = Estimate(float(best["value"]), low, high, int(_number(best.get("n")) or 0), str(best.get("unit", "")))
    return estimate, " ".join(str(best[key]) for key in ("task", "split", "metric") if best.get(key))


def _number(value) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e15 and not isinstance(value, bool) else None


def _entries(rows: Iterable[tuple]) -> list[Entry]:
    return [
        Entry(
            name,
            description,
            kind,
            base,
            tuple(parents.splitlines()) if parents else (),
            _estimate(value, low, high, n, unit),
            best_on,
        )
        for name, description, kind, base, parents, best_on, value, low, high, n, unit, _ in rows
    ]


def _estimate(value: float | None, low: float | None, high: float | None, n: int, unit: str) -> Estimate | None:
    if value is None:
        return None
    return Estimate(value, math.nan if low is None else low, math.nan if high is None else high, n, unit)  # SQLite has no nan


def _search(db: sqlite3.Connection, words: tuple[str, ...], joint: str, limit: int) -> list[Entry]:
    """Entries whose words begin with `words`, the best first: the name counts most, then the description, then the body."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'words' AND sql LIKE '%USING fts5%'").fetchone():
        return _search_plainly(db, words, any if joint == " OR " else all, limit)
    found = f"""
        SELECT {", ".join("s." + column for column in _COLUMNS.split(", "))} FROM words JOIN skills s ON s.id = words.rowid
        WHERE words MATCH ? ORDER BY s.name = ? DESC, bm25(words, {", ".join(map(str, _WEIGHTS.values()))}), s.name LIMIT ?
    """
    return _entries(db.execute(found, (joint.join(f'"{word}"*' for word in words), "-".join(words), limit)))


def _search_plainly(db: sqlite3.Connection, words: tuple[str, ...], combine: Callable, limit: int) -> list[Entry]:
    """The same by reading every row, for a Python whose SQLite has no full-text search."""
    found = []
    for row in db.execute(f"SELECT {_COLUMNS}, body FROM skills JOIN (SELECT rowid AS id, body FROM words) USING (id)"):
        texts = {"name": row[0], "description": row[1], "body": row[-1]}
        weights = [_weight(word.lower(), texts) for word in words]
        if combine(weights):
            found.append((row[0] != "-".join(words), -sum(weights), row[:-1]))
    return _entries(row for *_, row in sorted(found, key=lambda hit: (*hit[:2], hit[2][0]))[:limit])


def _weight(word: str, texts: dict[str, str]) -> float:
    start = re.compile(rf"(?<![^\W_]){re.escape(word)}")
    return sum(_WEIGHTS[part] * bool(start.search(text.lower())) for part, text in texts.items())
