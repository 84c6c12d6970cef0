"""Libraries: what goes in comes out, the index never disagrees with the folders, and a refusal changes nothing."""

import errno
import json
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from skillweave import files, index, library, skill
from skillweave.errors import BadName, BadSkill, LibraryError, NotFound
from skillweave.library import Finding, Library
from skillweave.skill import Skill, write_skill

SPAWN = multiprocessing.get_context("spawn")


def a_skill(folder, description="Dates to ISO 8601.", body="Write the date.", provenance=None):
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "notes.txt").write_text("weights")
    write_skill(folder, name=folder.name, description=description, body=body, metadata={}, provenance=provenance or {})
    return folder


def wild(folder, text="---\nname: wild\ndescription: found somewhere\n---\nBe bold.\n"):
    """A skill that somebody else wrote: no provenance."""
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text(text)
    return folder


def tree(folder):
    """Everything in a library but its index and lock."""
    own = {"index.sqlite", ".lock"}
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name not in own
    }


@pytest.fixture
def lib(tmp_path):
    found = Library(tmp_path / "library", create=True)
    found.add(a_skill(tmp_path / "date"))
    return found


def names(entries):
    return [entry.name for entry in entries]


def test_what_goes_in_comes_out(lib, tmp_path):
    scores = [
        {"task": "t", "split": "test", "metric": "exact", "value": v, "low": 0.1, "high": 0.9, "n": 50} for v in (0.5, 0.8)
    ]
    made = {"base": {"name": "gemma", "digest": "x"}, "parents": [{"name": "date"}], "scores": scores}
    with lib.new("number") as folder:
        write_skill(
            folder,
            name="number",
            description="Words to digits.",
            body="b",
            metadata={"template": "n: {input}"},
            provenance=made,
        )
    assert lib.names() == ["date", "number"] and len(lib) == 2
    assert "date" in lib and "nothing" not in lib and "../library/date" not in lib and ".staging" not in lib
    assert lib.get("number").template == "n: {input}"
    assert lib.get("date").digest == Skill.load(tmp_path / "date").digest
    date, number = lib.list()
    assert (date.kind, number.kind, number.base, number.parents) == ("adapter", "instructions", "gemma", ("date",))
    assert (str(number.best), number.best_on, date.best) == ("0.80 [0.10, 0.90] n=50", "t test exact", None)
    assert lib.verify() == []
    assert lib.remove("date").description == "Dates to ISO 8601."
    assert lib.names() == ["number"] == names(lib.list())
    assert list((lib.path / ".staging").iterdir()) == []


def test_a_wild_skill_is_renamed_and_sealed(lib, tmp_path):
    (wild(tmp_path / "My_Wild", "---\r\nname: My_Wild\r\ndescription: a --- b\r\n---\r\nText\r\n") / "run.sh").write_text(
        "echo"
    )
    (tmp_path / "My_Wild" / "run.sh").chmod(0o755)
    assert lib.add(tmp_path / "My_Wild").name == "my-wild"
    assert lib.add(tmp_path / "My_Wild", name="second").name == "second"
    again = Skill.load(lib.path / "second", strict=True)
    assert (again.description, again.body, again.provenance["name"]) == ("a --- b", "Text", "second")
    assert os.access(lib.path / "second" / "run.sh", os.X_OK) and not os.access(lib.path / "second" / "SKILL.md", os.X_OK)
    assert lib.verify() == []


def test_replace_keeps_one(lib, tmp_path):
    lib.add(wild(tmp_path / "wild"), name="date", replace=True)
    assert lib.get("date").description == "found somewhere"
    assert not (lib.path / "date" / "adapter").exists()
    assert names(lib.list()) == ["date"]


def test_record_adds_scores(lib):
    lib.record("date", [{"task": "date", "value": 0.9, "low": 0.8, "high": 0.95, "n": 100}])
    assert str(lib.list()[0].best) == "0.90 [0.80, 0.95] n=100"
    assert lib.verify() == []
    with pytest.raises(NotFound):
        lib.record("dates", [])


# bad input: one sentence with the value and the fix, and nothing has changed


def test_unknown_skill_says_the_nearest(lib):
    for call in (lib.get, lib.remove, lib.verify, lib.folder):
        with pytest.raises(NotFound, match="no skill `dat` in .*library. Did you mean `date`?") as caught:
            call("dat")
    assert caught.value.hint == f"skillweave library list --library {lib.path}"


@pytest.mark.parametrize("name", ["a/b", "../x", "..", "a\x1bb", "", "/etc"])
def test_bad_names_are_refused_everywhere(lib, tmp_path, name):
    before = tree(tmp_path)
    for call in (lib.get, lib.remove, lambda n: lib.add(tmp_path / "date", name=n), lambda n: lib.new(n).__enter__()):
        with pytest.raises(BadName):
            call(name)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "there is no library at"),
        (lambda path: path.write_text("x"), "is a file, not a library"),
        (lambda path: path.mkdir(), "it has no skillweave.json"),
        (lambda path: (path.mkdir(), (path / "skillweave.json").write_text("{}")), "cannot be read"),
        (lambda path: (path.mkdir(), (path / "skillweave.json").write_text('{"format": 2}')), "has format 2"),
    ],
)
def test_a_folder_that_is_no_library(tmp_path, make, sentence):
    make(tmp_path / "x")
    before = tree(tmp_path)
    with pytest.raises(LibraryError, match=sentence) as caught:
        Library(tmp_path / "x")
    assert caught.value.hint
    assert tree(tmp_path) == before


def test_create_takes_missing_and_empty_folders_only(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing/deep", "empty"):
        assert Library(tmp_path / name, create=True).list() == []
        Library(tmp_path / name)
    wild(tmp_path / "full" / "wild")
    with pytest.raises(LibraryError, match="is not a library"):
        Library(tmp_path / "full", create=True)


def spoil(path):
    weights = path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(b"\x10\0\0\0\0\0\0\0{")
    (path / "adapter" / "adapter_config.json").write_text("{}")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (spoil, "adapter_model.safetensors is truncated"),
        (lambda path: (path / "adapter" / "adapter_model.bin").write_bytes(b"x"), "adapter_model.bin is a pickle"),
        (lambda path: (path / "SKILL.md").write_text("---\nname: x"), "SKILL.md:1: the frontmatter never ends"),
        (lambda path: (path / "SKILL.md").unlink(), "it has no SKILL.md"),
        (lambda path: (path / "adapter" / "notes.txt").write_text("weightz"), "date/adapter/notes.txt is changed"),
        (lambda path: (path / "more.txt").write_text("x"), "date/more.txt is extra"),
        (lambda path: (path / "adapter" / "notes.txt").unlink(), "date/adapter/notes.txt is missing"),
        (lambda path: (path / "provenance.json").write_text("{"), "provenance.json:1: is not JSON"),
        (lambda path: os.symlink("/etc/passwd", path / "link"), "link is a link"),
        (shutil.rmtree, "is not a folder"),
    ],
)
def test_a_skill_that_cannot_be_trusted_stays_out(lib, tmp_path, change, sentence):
    change(tmp_path / "date")
    before = tree(lib.path)
    with pytest.raises(BadSkill, match=sentence) as caught:
        lib.add(tmp_path / "date", name="new")
    assert caught.value.hint
    assert tree(lib.path) == before


def test_a_name_that_is_taken(lib, tmp_path):
    (lib.path / "notes").mkdir()
    before = tree(lib.path)
    with pytest.raises(LibraryError, match="already has a skill `date`"):
        lib.add(tmp_path / "date")
    with pytest.raises(LibraryError, match="already has a skill `date`"), lib.new("date"):
        raise AssertionError("refused too late")
    with pytest.raises(LibraryError, match="notes is in the way"):
        lib.add(tmp_path / "date", name="notes", replace=True)
    assert tree(lib.path) == before


def test_a_block_that_fails_leaves_nothing(lib):
    before = tree(lib.path)
    with pytest.raises(ZeroDivisionError), lib.new("number") as folder:
        (folder / "x").write_text("x")
        raise ZeroDivisionError
    with pytest.raises(BadSkill, match="was not finished: provenance.json is missing"), lib.new("number"):
        pass
    with pytest.raises(BadSkill, match="x is extra"), lib.new("number") as folder:
        write_skill(folder, name="number", description="d", body="", metadata={}, provenance={})
        (folder / "x").write_text("x")
    assert tree(lib.path) == before


def test_other_peoples_errors_are_left_alone(lib, tmp_path):
    with pytest.raises(FileNotFoundError), lib.new("number"):
        (tmp_path / "data.jsonl").read_text()
    with pytest.raises(PermissionError), lib.new("number"):
        raise PermissionError(errno.EACCES, "denied", str(tmp_path / "data.jsonl"))


@pytest.mark.parametrize(("code", "sentence"), [(errno.ENOSPC, "no space left for"), (errno.EACCES, "no permission to write")])
@pytest.mark.parametrize("step", ["copyfile", "fsync_tree", "mkdtemp", "rename"])
def test_no_space_and_no_permission(lib, tmp_path, monkeypatch, code, sentence, step):
    def fails(*arguments, **_):
        raise OSError(code, os.strerror(code), str(lib.path / "number"))

    before = tree(lib.path)
    place = {"copyfile": shutil, "mkdtemp": tempfile, "rename": os}.get(step, library)
    with monkeypatch.context() as patch:
        patch.setattr(place, step, fails)
        with pytest.raises(LibraryError, match=sentence) as caught:
            lib.add(tmp_path / "date", name="number")
    assert "number" in caught.value.message and caught.value.hint
    assert tree(lib.path) == before and names(lib.list()) == ["date"]
    lib.add(tmp_path / "date", name="number")


def test_a_failed_replacement_brings_the_old_one_back(lib, tmp_path, monkeypatch):
    before, rename, calls = tree(lib.path), os.rename, []

    def fails_second(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "full")
        rename(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fails_second)
        with pytest.raises(LibraryError, match="no space left"):
            lib.add(tmp_path / "date", replace=True)
    assert tree(lib.path) == before and lib.verify() == []


def test_a_disk_that_is_really_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "x", disk], capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        lib = Library(disk / "library", create=True)
        lib.add(a_skill(tmp_path / "date"))
        (tmp_path / "big").mkdir()
        (tmp_path / "big" / "data.txt").write_bytes(os.urandom(1 << 20))
        write_skill(tmp_path / "big", name="big", description="big", body="", metadata={}, provenance={})
        with pytest.raises(LibraryError, match="no space left for .*big"):
            lib.add(tmp_path / "big")
        assert names(lib.list()) == ["date"] and lib.verify() == []
        assert list((lib.path / ".staging").iterdir()) == []
        (disk / "rest").write_bytes(b"\0" * (shutil.disk_usage(disk).free))
        assert names(Library(lib.path).list()) == ["date"]  # reading a full disk works
    finally:
        subprocess.run(["umount", disk], check=True)


READ_ONLY = """
import os, sys
sys.path[:0] = [sys.argv[2]]
from skillweave.library import Library
from skillweave.errors import LibraryError
b"x".decode("utf-8-sig")  # from here on, another user may not be allowed to load modules
if os.geteuid() == 0: os.setuid(65534)
lib = Library(sys.argv[1])
print([entry.name for entry in lib.list()], [entry.name for entry in lib.search("iso")], lib.get("date").name, lib.verify())
for call in (lambda: lib.remove("date"), lib.rebuild, lambda: lib.add(lib.path / "date", name="x")):
    try:
        call()
    except LibraryError as error:
        print(error.message.startswith("no permission to write"))
"""


@pytest.mark.parametrize("state", ["fresh", "stale", "missing"])
def test_a_library_without_write_permission_can_be_read(state):
    source = str(Path(library.__file__).parents[1])
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        lib = Library(Path(place) / "library", create=True)
        lib.add(a_skill(Path(place) / "date"))
        if state == "stale":
            shutil.copytree(lib.path / "date", lib.path / "dropped")
        if state == "missing":
            (lib.path / "index.sqlite").unlink()
        for folder in (lib.path, lib.path / ".staging"):
            folder.chmod(0o555)
        ran = subprocess.run([sys.executable, "-c", READ_ONLY, lib.path, source], capture_output=True, text=True)
        for folder in (lib.path, lib.path / ".staging"):
            folder.chmod(0o755)
    found = ["date", "dropped"] if state == "stale" else ["date"]
    problem = "[Finding(name='dropped', file='provenance.json', problem='changed')]" if state == "stale" else "[]"
    assert ran.stdout.splitlines() == [f"{found} {found} date {problem}", "True", "True", "True"], ran.stderr


# the index


def test_search_ranks_and_forgives(lib, tmp_path):
    lib.add(wild(tmp_path / "number", "---\nname: number\ndescription: A cheque's amount, no date\n---\nÜber five-hundred"))
    lib.add(wild(tmp_path / "date-range", "---\nname: date-range\ndescription: Two days\n---\n"))
    assert names(lib.search("date")) == ["date", "date-range", "number"]
    assert names(lib.search("amou che")) == ["number"]
    assert names(lib.search("uber hund")) == ["number"]
    assert names(lib.search("date amount nowhere"))[0] == "number"  # none has all three, so any
    assert names(lib.search("date-range")) == ["date-range"]
    assert names(lib.search("date", limit=1)) == ["date"]
    assert names(lib.search("")) == names(lib.search("  ")) == ["date", "date-range", "number"]
    assert lib.search("zebra") == []


@pytest.mark.parametrize("fts", [True, False])
def test_search_takes_any_characters(lib, monkeypatch, fts):
    monkeypatch.setattr(index, "_has_fts", lambda db: fts)
    lib.rebuild()
    odd = ['"', "*", "-", ":", "AND", "OR NOT", "NEAR(a b)", "name: x", "(", "'; DROP TABLE skills; --", "^a", "\0", "\udc80"]
    for query in [*odd, "a" * 5000, "²", "日本"]:
        assert lib.search(query) in ([], lib.list()), query
    for query in ('"date"', "date*", "-date", "date:iso", "(date", "'date' + ISO", "DATE", "dat_iso"):
        assert names(lib.search(query)) == ["date"], query


def test_without_full_text_search_the_same_is_found(lib, tmp_path, monkeypatch):
    lib.add(wild(tmp_path / "number", "---\nname: number\ndescription: A cheque's amount, no date\n---\nfive-hundred"))
    queries = ["date", "amou che", "hund", "amount nowhere", "zebra", "date-"]
    found = [names(lib.search(query)) for query in queries]
    assert found[0] == ["date", "number"]
    monkeypatch.setattr(index, "_has_fts", lambda db: False)
    lib.rebuild()
    with sqlite3.connect(lib.path / "index.sqlite") as db:
        assert "fts5" not in " ".join(sql for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL"))
    db.close()
    assert [names(lib.search(query)) for query in queries] == found


def damage(path, kind):
    whole = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "other format":
        db = sqlite3.connect(path)
        db.execute("PRAGMA user_version = 99")
        db.close()
    elif kind == "table gone":
        db = sqlite3.connect(path)
        db.execute("DROP TABLE skills")
        db.close()
    else:
        half = whole[: len(whole) // 2]
        zeros = whole[:4096] + bytes(len(whole) - 4096)
        contents = {"empty": b"", "garbage": os.urandom(5000), "half": half, "zeros": zeros}
        contents |= {"cut": whole[:-1], "header": b"x" * 16 + whole[16:]}
        path.write_bytes(contents[kind])


KINDS = ["missing", "other format", "table gone", "empty", "garbage", "half", "cut", "zeros", "header"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_index_heals(lib, tmp_path, kind):
    for i in range(40):
        wild(lib.path / f"w-{i}", f"---\nname: w-{i}\ndescription: thing {i}\n---\n" + "words " * 200)
    expected = lib.list()
    damage(lib.path / "index.sqlite", kind)
    again = Library(lib.path)
    assert again.list() == expected and len(expected) == 41
    assert names(again.search("thing")) == names(expected)[1:] or len(again.search("thing", limit=99)) == 40
    assert again._index._memory is None  # the file is in use again


def test_a_locked_index_does_not_stop_readers(lib, monkeypatch):
    monkeypatch.setattr(index, "BUSY", 0.05)
    blocker = sqlite3.connect(lib.path / "index.sqlite", isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    wild(lib.path / "wild")
    assert names(lib.list()) == ["date", "wild"] == names(lib.search(""))
    lib.remove("wild")
    assert names(lib.list()) == ["date"]
    blocker.close()


def test_hand_made_changes_are_seen_at_once(lib, tmp_path):
    wild(lib.path / "wild")
    assert names(lib.list()) == ["date", "wild"]
    (lib.path / "wild" / "SKILL.md").write_text("---\nname: wild\ndescription: edited\n---\n")
    assert lib.list()[1].description == "edited" and names(lib.search("edited")) == ["wild"]
    os.rename(lib.path / "wild", lib.path / "tame")
    assert names(lib.list()) == ["date", "tame"] and lib.get("tame").name == "tame"
    shutil.rmtree(lib.path / "tame")
    assert names(lib.list()) == ["date"]
    (lib.path / "no-skill").mkdir()
    (lib.path / ".hidden").mkdir()
    assert names(lib.list()) == ["date"]


def test_a_broken_skill_is_listed_with_the_reason_until_it_is_mended(lib):
    wild(lib.path / "broken", "no frontmatter")
    wild(lib.path / "Bad Name")
    (lib.path / "date" / "provenance.json").write_text("{")
    lib.rebuild()
    entries = lib.list()
    assert [(entry.name, entry.kind) for entry in entries] == [("Bad Name", "broken"), ("broken", "broken"), ("date", "broken")]
    assert "`bad-name` would work" in entries[0].description and "does not begin with" in entries[1].description
    (lib.path / "date" / "provenance.json").unlink()
    assert lib.list()[2].kind == "adapter"
    assert lib.remove("broken").name == "broken"
    assert "broken" not in lib


def test_provenance_from_anywhere_does_not_break_the_list(lib):
    for i, known in enumerate([{"scores": "x", "parents": 3, "base": []}, {"scores": [1, {"value": "x"}, {"value": True}]},
                               {"scores": [{"value": 10**400}, {"value": 0.5}]}, {"base": "\ud800"}]):  # fmt: skip
        (wild(lib.path / f"w-{i}") / "provenance.json").write_text(json.dumps(known))
    found = {entry.name: entry for entry in lib.list()}
    assert len(found) == 5 and found["w-2"].best.value == 0.5 and found["w-3"].base == "?"
    assert found == {entry.name: entry for entry in Library(lib.path).list()}


# verify


def test_verify_finds_every_kind_of_change(lib, tmp_path):
    lib.add(wild(tmp_path / "wild"))
    folder = lib.path / "date"
    data = bytearray((folder / "adapter" / "notes.txt").read_bytes())
    data[3] ^= 1
    (folder / "adapter" / "notes.txt").write_bytes(data)
    (folder / "SKILL.md").rename(folder / "skill.md")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_text("x")
    found = [Finding("date", "SKILL.md", "missing"), Finding("date", "__pycache__/x.pyc", "extra"),
             Finding("date", "adapter/notes.txt", "changed"), Finding("date", "skill.md", "extra")]  # fmt: skip
    assert lib.verify() == lib.verify("date") == found
    assert lib.verify("wild") == []


def test_verify_reads_a_seal_that_was_tampered_with(lib, monkeypatch):
    seal = lib.path / "date" / "provenance.json"
    known = json.loads(seal.read_text())
    known["files"]["SKILL.md"]["sha256"] = "0" * 64
    seal.write_text(json.dumps(known))
    assert [(f.file, f.problem) for f in lib.verify()] == [("provenance.json", "changed"), ("SKILL.md", "changed")]
    seal.write_text("{")
    assert [(f.file, f.problem) for f in lib.verify()] == [("provenance.json", "unreadable")]
    seal.unlink()
    assert [(f.file, f.problem) for f in lib.verify()] == [("provenance.json", "missing")]


def test_verify_names_what_it_cannot_read(lib, monkeypatch):
    from skillweave import skill

    def denied(path):
        raise PermissionError(errno.EACCES, "denied", str(path))

    monkeypatch.setattr(skill, "sha256_file", denied)
    assert [f.problem for f in lib.verify()] == ["unreadable", "unreadable"]


# several at once


def test_of_two_processes_that_add_the_same_skill_one_wins(lib, tmp_path):
    rounds, start, results = 12, SPAWN.Barrier(2), SPAWN.Queue()
    pair = [SPAWN.Process(target=race, args=(lib.path, tmp_path / "date", rounds, start, results)) for _ in range(2)]
    for process in pair:
        process.start()
    outcomes = [results.get(timeout=60) for _ in range(2 * rounds)]
    for process in pair:
        process.join()
    for i in range(rounds):
        said = sorted(what for which, what in outcomes if which == i)
        assert said[0].endswith(f"already has a skill `race-{i}`.") and said[1] == "won", said
    assert names(lib.list()) == sorted(["date", *(f"race-{i}" for i in range(rounds))]) and lib.verify() == []


def race(path, source, rounds, start, results):
    lib = Library(path)
    for i in range(rounds):
        start.wait()
        try:
            lib.add(source, name=f"race-{i}")
            results.put((i, "won"))
        except LibraryError as error:
            results.put((i, error.message))


def test_a_writer_does_not_wait_for_ever(lib, tmp_path, monkeypatch):
    with (
        lib._writing(),
        pytest.raises(LibraryError, match="another process is writing to .*library"),
        lib._writing(patience=0.05),
    ):
        pass


def test_a_skill_that_is_being_filled_is_not_in_the_way(lib, tmp_path):
    with lib.new("slow") as folder:
        Library(lib.path).add(tmp_path / "date", name="quick")  # clears away what nobody holds
        assert folder.exists() and lib.names() == ["date", "quick"]
        write_skill(folder, name="slow", description="d", body="", metadata={}, provenance={})
    assert lib.names() == ["date", "quick", "slow"]


def test_no_skill_is_called_like_the_model_alone(lib, tmp_path):
    with pytest.raises(BadName, match="`base` stands for the model alone"):
        lib.add(tmp_path / "date", name="base")
    with pytest.raises(BadName), lib.new("base"):
        pass
    assert lib.names() == ["date"]


def test_the_slower_of_two_fillers_is_refused(lib, tmp_path):
    with pytest.raises(LibraryError, match="already has a skill `number`"), lib.new("number") as folder:
        lib.add(tmp_path / "date", name="number")
        write_skill(folder, name="number", description="d", body="", metadata={}, provenance={})
    assert lib.get("number").description == "Dates to ISO 8601."


def test_readers_see_whole_skills_while_one_is_replaced(lib, tmp_path, monkeypatch):
    monkeypatch.setattr(library, "fsync_tree", lambda folder: None)
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: None)
    stop, faults, reads = threading.Event(), [], []

    def read():
        reader = Library(lib.path)
        while not stop.is_set():
            try:
                reads.append((reader.get("date").description, names(reader.list()), names(reader.search("iso"))))
            except Exception as error:
                faults.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 2
    while time.monotonic() < until:
        lib.add(tmp_path / "date", replace=True)
    stop.set()
    for thread in threads:
        thread.join()
    assert faults == [] and len(reads) > 20
    assert {found[0] for found in reads} == {"Dates to ISO 8601."}


@pytest.mark.parametrize("fails", [False, True])
def test_a_skill_that_is_replaced_while_it_is_read_is_read_again(lib, tmp_path, monkeypatch, fails):
    new, reads = wild(tmp_path / "new", "---\nname: date\ndescription: The new one.\n---\n"), []

    def load_provenance(folder):
        reads.append(folder)
        if len(reads) == 1:  # in the middle of the first look
            Library(lib.path).add(new, replace=True)
            if fails:
                raise BadSkill("what it was reading is gone.")
        return {}

    monkeypatch.setattr(skill, "load_provenance", load_provenance)
    assert lib.get("date").description == "The new one."


class AnyOrder(RuleBasedStateMachine):
    """Whatever is done in whatever order: the index lists what the folders hold."""

    names = st.sampled_from(["a", "b", "c-d", "e9"])

    @initialize()
    def start(self):
        self.place = tempfile.TemporaryDirectory()
        self.lib = Library(Path(self.place.name) / "library", create=True)
        self.model = {}
        self.count = 0

    @rule(name=names, replace=st.booleans())
    def add(self, name, replace):
        self.count += 1
        text = f"---\nname: {name}\ndescription: number {self.count}\n---\n"
        source = wild(Path(self.place.name) / f"source-{self.count}", text)
        if name in self.model and not replace:
            with pytest.raises(LibraryError):
                self.lib.add(source)
        else:
            self.lib.add(source, replace=replace)
            self.model[name] = f"number {self.count}"

    @rule(name=names)
    def remove(self, name):
        if self.model.pop(name, None) is None:
            with pytest.raises(NotFound):
                self.lib.remove(name)
        else:
            self.lib.remove(name)

    @rule(name=names)
    def drop_in(self, name):
        if name not in self.model:
            wild(self.lib.path / name, f"---\nname: {name}\ndescription: by hand\n---\n")
            self.model[name] = "by hand"

    @rule()
    def rebuild(self):
        assert self.lib.rebuild() == len(self.model)

    @rule(kind=st.sampled_from(KINDS))
    def damage(self, kind):
        if (self.lib.path / "index.sqlite").exists():
            damage(self.lib.path / "index.sqlite", kind)

    @rule()
    def open_again(self):
        self.lib = Library(self.lib.path)

    @invariant()
    def index_and_folders_agree(self):
        folders = {path.parent.name: Skill.load(path.parent).description for path in self.lib.path.glob("*/SKILL.md")}
        assert {entry.name: entry.description for entry in self.lib.list()} == folders == self.model
        assert names(self.lib.list()) == self.lib.names() == sorted(folders)

    def teardown(self):
        self.place.cleanup()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=15, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
