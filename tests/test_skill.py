"""Skills: what is written is read, what people write is read too, and what cannot be trusted is refused in one sentence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillweave import frontmatter
from skillweave.errors import BadName, BadSkill
from skillweave.skill import Skill, add_scores, check_name, compare, slug, write_skill

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def a_skill(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    words = {"name": folder.name, "description": "Dates to ISO 8601.", "body": "# Dates", "metadata": {}, "provenance": {}}
    write_skill(folder, **(words | changes))
    return folder


def load(tmp_path, text, **options):
    (tmp_path / "SKILL.md").write_bytes(text if isinstance(text, bytes) else text.encode())
    return Skill.load(tmp_path, **options)


def test_round_trip(tmp_path):
    (tmp_path / "date" / "adapter").mkdir(parents=True)
    (tmp_path / "date" / "adapter" / "notes.txt").write_text("weights")
    metadata = {"template": "date: {input}\n", "version": "1.10", "flag": "no"}
    provenance = {"seed": 3, "scores": [{"task": "date", "value": float("nan")}]}
    skill = Skill.load(a_skill(tmp_path / "date", metadata=metadata, provenance=provenance, body="a\n---\nb"), strict=True)
    assert (skill.name, skill.description, skill.body) == ("date", "Dates to ISO 8601.", "a\n---\nb")
    assert skill.metadata == metadata
    assert skill.template == "date: {input}\n"
    assert (skill.adapter, skill.kind) == (tmp_path / "date" / "adapter", "adapter")
    assert (skill.provenance["seed"], skill.provenance["format"], skill.provenance["base"]) == (3, 1, None)
    assert skill.provenance["scores"][0]["value"] is None  # not a number is not JSON
    assert skill.provenance["files"].keys() == {"SKILL.md", "adapter/notes.txt"}
    assert skill.provenance["files"]["adapter/notes.txt"]["bytes"] == 7


@given(
    description=TEXT.filter(lambda text: text.strip()), body=TEXT, metadata=st.dictionaries(TEXT.filter(bool), TEXT, max_size=3)
)
def test_any_text_survives_the_frontmatter(description, body, metadata):
    fields = {"name": "x", "description": description} | ({"metadata": metadata} if metadata else {})
    found, found_body = frontmatter.parse(frontmatter.render(fields, body), "SKILL.md", strict=True)
    assert found == fields
    assert found_body == body.replace("\r\n", "\n").replace("\r", "\n").strip()


@pytest.mark.parametrize(
    ("head", "key", "value"),
    [
        ("description: before --- after", "description", "before --- after"),
        ("description: Use when: asked", "description", "Use when: asked"),
        ("description: Use when: asked\n  and: told", "description", "Use when: asked and: told"),
        ("description: it's: fine", "description", "it's: fine"),
        ("description: *starred* and @at: x", "description", "*starred* and @at: x"),
        ("description: >\n  two\n  lines", "description", "two lines"),
        ('description: "quoted: yes"', "description", "quoted: yes"),
        ("description: x\nmetadata:\n  note: a: b", "metadata", {"note": "a: b"}),
        ("description: x\nmetadata:\n  version: 1.10", "metadata", {"version": "1.10"}),
        ("description: x\nmetadata:\n  when: 2024-01-02\n  on: no", "metadata", {"when": "2024-01-02", "on": "no"}),
        ("description: x\nmetadata: {mcp: [rube, two]}", "metadata", {"mcp": "rube, two"}),
        ("description: x\nmetadata:\n  a:\n    b: {c: d}", "metadata", {"a.b.c": "d"}),
        ("description: x\nmetadata: []", "metadata", {}),
        ("description: x\nversion: 1.10\nallowed-tools: [Read, 'Bash(git:*)']", "extra",
         {"version": "1.10", "allowed-tools": ["Read", "Bash(git:*)"]}),
        ("name: My_Skill\ndescription: x", "name", "my-skill"),
    ],
)  # fmt: skip
def test_reads_what_people_write(tmp_path, head, key, value):
    assert getattr(load(tmp_path, f"---\n{head}\n---\nbody"), key) == value


def test_reads_a_byte_order_mark_and_windows_line_ends(tmp_path):
    skill = load(tmp_path, b"\xef\xbb\xbf---\r\nname: x\r\ndescription: y\r\n---  \r\none\r\ntwo\r\n")
    assert (skill.name, skill.description, skill.body) == ("x", "y", "one\ntwo")


def test_reads_skill_md_in_small_letters_and_takes_the_folder_for_a_missing_name(tmp_path):
    (tmp_path / "Tax Forms").mkdir()
    (tmp_path / "Tax Forms" / "skill.md").write_text("---\ndescription: y\n---\n")
    assert Skill.load(tmp_path / "Tax Forms").name == "tax-forms"


BROKEN = [
    ("", "SKILL.md:1: does not begin"),
    ("# no frontmatter", "SKILL.md:1: does not begin"),
    ("---\nname: x\ndescription: y\n", "SKILL.md:1: the frontmatter never ends"),
    ("---\n- a\n---\n", "SKILL.md:2: the frontmatter is not made of"),
    ("---\nname: x\ndescription: y\n\tz: 1\n---\n", "SKILL.md:4: broken frontmatter"),
    ("---\nname: x\n---\n", "no `description`"),
    ("---\nname: x\ndescription: '  '\n---\n", "no `description`"),
    ("---\nname: x\ndescription: [y]\n---\n", "no `description`"),
    ("---\nname: x\na: &a [1]\nb: *a\n---\n", "SKILL.md:4: the frontmatter is written with a YAML alias"),
    ("---\na: " + "[" * 40_000 + "\n---\n", "nested too deeply"),
    ("---\n" + "- " * 20_000 + "\n---\n", "nested too deeply"),
    ("---\na: " + "x" * 70_000 + "\n---\n", "longer than 65,536 characters"),
    (b"---\nname: \xff\n---\n", "not UTF-8 text: byte 10"),
]


@pytest.mark.parametrize(("text", "sentence"), BROKEN)
def test_says_what_is_broken_and_where(tmp_path, text, sentence):
    with pytest.raises(BadSkill) as caught:
        load(tmp_path, text)
    assert sentence in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        ("name: other\ndescription: y", "is not the name of the folder"),
        ("description: y", "name is missing"),
        ("name: {folder}\ndescription: " + "y" * 1025, "1,024"),
        ("name: {folder}\ndescription: y\nversion: 1", "unknown key `version`"),
        ("name: {folder}\ndescription: y\nname: {folder}", "stands twice"),
        ("name: {folder}\ndescription: Use when: asked", "broken frontmatter"),
        ("name: {folder}\ndescription: y\nmetadata: {{a: [b]}}", "text by text"),
    ],
)
def test_strict_is_the_letter_of_the_standard(tmp_path, head, sentence):
    text = f"---\n{head.format(folder='x')}\n---\n"
    (tmp_path / "x").mkdir()
    with pytest.raises(BadSkill, match=sentence):
        load(tmp_path / "x", text, strict=True)


@pytest.mark.parametrize("name", ["date", "a", "a-b-2", "x" * 64])
def test_takes_good_names(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "better"),
    [("../up", "`up`"), ("a/b", "`a-b`"), ("..", "try a name"), ("", "try a name"), ("Date", "`date`"),
     ("a\x1b[31m", "`a-31m`"), ("a\n", "`a`"), ("a--b", "`a-b`"), ("-a", "`a`"), ("x" * 65, "`" + "x" * 64 + "`"),
     ("Ünïcode", "`unicode`")],
)  # fmt: skip
def test_refuses_bad_names_and_offers_one_that_works(name, better):
    with pytest.raises(BadName) as caught:
        check_name(name)
    assert better in caught.value.hint
    assert caught.value.message.isprintable()


@given(st.text())
def test_a_slug_is_a_name_or_empty(text):
    assert slug(text) == "" or check_name(slug(text))


@pytest.mark.parametrize("description", ["", "  ", "x" * 1025, "half a letter \ud800"])
def test_does_not_write_a_bad_description(tmp_path, description):
    with pytest.raises(BadSkill):
        a_skill(tmp_path / "date", description=description)
    assert list((tmp_path / "date").iterdir()) == []


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '"a'])
def test_a_broken_provenance_is_refused(tmp_path, text):
    (a_skill(tmp_path / "date") / "provenance.json").write_text(text)
    with pytest.raises(BadSkill, match=r"provenance.json:1: is not"):
        Skill.load(tmp_path / "date")


def test_the_digest_is_of_the_content(tmp_path):
    one, two = a_skill(tmp_path / "a" / "date"), a_skill(tmp_path / "b" / "date", provenance={"seed": 9})
    assert Skill.load(one).digest == Skill.load(two).digest
    (two / "provenance.json").unlink()
    assert Skill.load(one).digest == Skill.load(two).digest
    (two / "notes.txt").write_text("x")
    assert Skill.load(one).digest != Skill.load(two).digest


def test_scores_are_added_without_breaking_the_seal(tmp_path):
    folder = a_skill(tmp_path / "date", provenance={"scores": [{"task": "a", "value": 0.1}]})
    add_scores(folder, [{"task": "b", "value": 0.2}])
    known = json.loads((folder / "provenance.json").read_text())
    assert [score["task"] for score in known["scores"]] == ["a", "b"]
    assert list(compare(folder, known, "date")) == []
